"""Messages of ours, from when they are asked for until nobody can ask for them again."""

from __future__ import annotations

from collections.abc import Iterable

from sims.client.events import Delivery
from sims.client.history import Entry, nameless
from sims.client.ledger import Ledger
from sims.client.names import folded
from sims.client.store import Letter

#: Seconds from when it was accepted that a text is kept for its receipt, and other messages for the case that their
#: recipient cannot read them.
TEXT_LIFE = 30 * 86_400
OTHER_LIFE = 86_400
#: So many are kept of texts that were delivered, and of other messages that were accepted.
MOST_DELIVERED = 5000
MOST_OTHERS = 1000


class Outbox:
    """All letters of one user."""

    def __init__(self, letters: Iterable[Letter], ledger: Ledger) -> None:
        self._ledger = ledger
        self._letters = {letter.number: letter for letter in sorted(letters, key=lambda letter: letter.number)}
        self._by_mid: dict[bytes, Letter] = {}
        self._by_id: dict[bytes, Letter] = {}
        self._mids: dict[int, bytes] = {}  # number -> the mid under which it can be found
        self._before: dict[int, bytes] = {}  # number -> the mid before that, if the server has not accepted it
        self._by_before: dict[bytes, Letter] = {}
        self._queued: dict[int, Letter] = {}
        self._unsealed: dict[int, Letter] = {}
        self._failed: dict[bytes, Letter] = {}  # by id: it is here only until that was told
        self._texts: set[int] = set()  # those that the server has not accepted
        self._others = 0  # of those that are queued
        for letter in self._letters.values():
            self._index(letter)
        self._next = max(self._letters, default=0) + 1

    def __repr__(self) -> str:
        return f"<{len(self._letters)} letters, {len(self._queued)} queued>"

    def __len__(self) -> int:
        return len(self._letters)

    def add(self, letter: Letter) -> Letter:
        """Take one in; it gets its number."""
        letter.number = self._next
        self._next += 1
        self._letters[letter.number] = letter
        self.note(letter)
        return letter

    def note(self, letter: Letter) -> None:
        """A letter has changed."""
        self._index(letter)
        self._ledger.letter(letter)
        if letter.id:
            self._ledger.said(entry_of(letter))

    def unseal(self, letter: Letter, now: int) -> None:
        """What carries a letter is of no use any more: it is to be sealed once more."""
        self._unindex(letter)
        letter.again += 1
        letter.lost = False
        letter.times = {**letter.times, "again": now}
        letter.inner = None
        self._before[letter.number] = letter.mid
        self.note(letter)

    def drop(self, letter: Letter, *, urgent: bool = True) -> None:
        """A letter is no more."""
        self._unindex(letter)
        if self._letters.pop(letter.number, None) is not None:
            self._ledger.no_letter(letter.number, urgent=urgent)

    def _index(self, letter: Letter) -> None:
        before = self._before.get(letter.number)
        self._unindex(letter)
        if letter.state is Delivery.FAILED:
            self._failed[letter.id] = letter
            return
        number = letter.number
        if letter.mid and not (letter.is_due and letter.inner is None):
            # Only under its newest mid: what is said of an older one says nothing about what is under way now.
            self._mids[number] = letter.mid
            self._by_mid[letter.mid] = letter
        if before and letter.anew and letter.state is Delivery.QUEUED:
            self._before[number] = before
            self._by_before[before] = letter
        if letter.id:
            self._by_id[letter.id] = letter
        if letter.is_due:
            self._queued[number] = letter
            self._others += not letter.id
            if letter.id and letter.state is Delivery.QUEUED:
                self._texts.add(number)
            if letter.inner is None:
                self._unsealed[number] = letter

    def _unindex(self, letter: Letter) -> None:
        mid = self._mids.pop(letter.number, None)
        if mid is not None and self._by_mid.get(mid) is letter:
            del self._by_mid[mid]
        before = self._before.pop(letter.number, None)
        if before is not None:
            self._by_before.pop(before, None)
        if letter.id and self._by_id.get(letter.id) is letter:
            del self._by_id[letter.id]
        if self._failed.get(letter.id) is letter:
            del self._failed[letter.id]
        self._unsealed.pop(letter.number, None)
        self._texts.discard(letter.number)
        if self._queued.pop(letter.number, None) is not None:
            self._others -= not letter.id

    # --- what there is ------------------------------------------------------------------------------------------------

    def get(self, number: int) -> Letter | None:
        """The letter of this number."""
        return self._letters.get(number)

    def carried_by(self, mid: bytes) -> Letter | None:
        """The letter that a message of this mid carries, if no other message carries it now."""
        return self._by_mid.get(mid)

    def carried_before(self, mid: bytes) -> Letter | None:
        """The text that a message of this mid carried, and that is sent once more as its recipient begins anew; only
        while the server has not accepted it."""
        return self._by_before.get(mid)

    def before(self, letter: Letter) -> bytes | None:
        """The mid of the message that carried a letter before, if :meth:`carried_before` finds it by that."""
        return self._before.get(letter.number)

    def text(self, number: bytes) -> Letter | None:
        """The text of this id."""
        return self._by_id.get(number)

    def texts(self) -> list[Letter]:
        """All texts, whatever has become of them, in order."""
        return [letter for letter in self._letters.values() if letter.id]

    def queued(self) -> list[Letter]:
        """Those that are to be sent, in order: not accepted by the server, or to be sent once more."""
        return [self._queued[number] for number in sorted(self._queued)]

    def waiting(self) -> list[Letter]:
        """Those of them that are not sealed yet, in order."""
        return [self._unsealed[number] for number in sorted(self._unsealed)]

    def unsealed(self, person: str) -> list[Letter]:
        """Those of them that are for this id."""
        return [letter for letter in self.waiting() if letter.to == person]

    def nameless(self, name: str) -> list[Letter]:
        """Those of them that are for this name, whose id is not known yet."""
        wanted = folded(name)
        return [letter for letter in self.waiting() if not letter.to and folded(letter.name) == wanted]

    def lose(self, person: str) -> None:
        """The store of this id is another: of the texts that were sealed until here, nobody knows which of them it has.

        That is noted now. Later the session of a text would not tell: both stores may have it.
        """
        for one in self._undelivered(person):
            if not one.lost and one.number not in self._unsealed:
                one.lost = True
                self.note(one)

    def lost(self, person: str) -> list[Letter]:
        """Those of which nothing was heard since; in order."""
        return [one for one in self._undelivered(person) if one.lost]

    def _undelivered(self, person: str) -> list[Letter]:
        return [one for one in self._letters.values() if one.id and one.to == person and one.content is not None]

    def failed(self) -> list[Letter]:
        """Those of which it is still to be told that they have failed."""
        return sorted(self._failed.values(), key=lambda letter: letter.number)

    def failed_text(self, number: bytes) -> Letter | None:
        """The one of them that has this id."""
        return self._failed.get(number)

    @property
    def texts_queued(self) -> int:
        """How many texts the server has not accepted."""
        return len(self._texts)

    @property
    def others_queued(self) -> int:
        """How many other messages it has not accepted."""
        return self._others

    def expired(self, now: int) -> list[Letter]:
        """Those whose time is over: texts that were never delivered among them."""
        found = []
        delivered, others = MOST_DELIVERED, MOST_OTHERS
        for letter in reversed(self._letters.values()):
            if letter.state is Delivery.FAILED:
                continue
            old = now - (letter.accepted or letter.time)
            if letter.state is Delivery.QUEUED:
                over = not letter.id and old >= TEXT_LIFE
            elif not letter.id:
                others -= 1
                over = others < 0 or old >= OTHER_LIFE
            else:
                delivered -= letter.state is not Delivery.ACCEPTED
                over = delivered < 0 or old >= TEXT_LIFE
            if over:
                found.append(letter)
        return found[::-1]


def entry_of(letter: Letter) -> Entry:
    """How far a text has come, for the history; the text itself is there the first time."""
    return Entry(
        id=letter.id,
        peer=letter.to or nameless(folded(letter.name)),
        name=letter.name,
        text=letter.text,
        state=str(letter.state),
        code=letter.code,
        time=letter.time,
        times=letter.times,
        again=letter.again,
    )
