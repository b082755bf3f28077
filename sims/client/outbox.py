"""Messages of ours, from when they are asked for until nobody can ask for them again."""

from __future__ import annotations

from collections.abc import Iterable

from sims.client.events import Delivery
from sims.client.ledger import Ledger
from sims.client.store import Letter

#: Seconds that a text is kept for the case that its recipient cannot read it, and a receipt.
TEXT_LIFE = 30 * 86_400
RECEIPT_LIFE = 86_400


class Outbox:
    """All letters of one user."""

    def __init__(self, letters: Iterable[Letter], ledger: Ledger) -> None:
        self._ledger = ledger
        self._letters = {letter.number: letter for letter in sorted(letters, key=lambda letter: letter.number)}
        self._by_mid = {letter.mid: letter for letter in self._letters.values() if letter.mid}
        self._by_id = {letter.id: letter for letter in self._letters.values() if letter.id}
        self._queued = {number: letter for number, letter in self._letters.items() if letter.state is Delivery.QUEUED}
        self._next = max(self._letters, default=0) + 1

    def __repr__(self) -> str:
        return f"<{len(self._letters)} letters, {len(self._queued)} queued>"

    def add(self, letter: Letter) -> Letter:
        """Take one in; it gets its number."""
        letter.number = self._next
        self._next += 1
        self._letters[letter.number] = letter
        self._queued[letter.number] = letter
        if letter.id:
            self._by_id[letter.id] = letter
        self.note(letter)
        return letter

    def note(self, letter: Letter) -> None:
        """A letter has changed."""
        if letter.mid:
            self._by_mid[letter.mid] = letter
        if letter.state is Delivery.QUEUED:
            self._queued[letter.number] = letter
        else:
            self._queued.pop(letter.number, None)
        self._ledger.letter(letter)

    def drop(self, letter: Letter) -> None:
        """A letter is no more."""
        self._letters.pop(letter.number, None)
        self._queued.pop(letter.number, None)
        if self._by_mid.get(letter.mid) is letter:
            del self._by_mid[letter.mid]
        if letter.id and self._by_id.get(letter.id) is letter:
            del self._by_id[letter.id]
        self._ledger.no_letter(letter.number)

    def carried_by(self, mid: bytes) -> Letter | None:
        """The letter that a message of this mid carries."""
        return self._by_mid.get(mid)

    def text(self, number: bytes) -> Letter | None:
        """The text of this id."""
        return self._by_id.get(number)

    def queued(self) -> list[Letter]:
        """Those that the server has not accepted, in order."""
        return [self._queued[number] for number in sorted(self._queued)]

    def unsealed(self, person: str) -> list[Letter]:
        """Texts to somebody that are not sealed yet, in order."""
        return [letter for letter in self.queued() if letter.to == person and letter.inner is None]

    def nameless(self, name: str) -> list[Letter]:
        """Texts to a name whose id is not known yet."""
        folded = name.casefold()
        return [letter for letter in self.queued() if not letter.to and letter.name.casefold() == folded]

    @property
    def texts_queued(self) -> int:
        """How many texts the server has not accepted."""
        return sum(1 for letter in self._queued.values() if letter.id)

    def expired(self, now: int) -> list[Letter]:
        """Those whose time is over: texts that were never delivered among them."""
        return [
            letter
            for letter in self._letters.values()
            if now - letter.time >= (TEXT_LIFE if letter.id or letter.state is Delivery.QUEUED else RECEIPT_LIFE)
        ]
