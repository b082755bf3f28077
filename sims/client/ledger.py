"""What has changed since the last commit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import copy
from hashlib import sha256

from sims.client.history import Entry, Wanted
from sims.client.store import UNREAD, Arrived, Change, Letter, Person, Store
from sims.crypto.conversation import Conversation

#: Of each sender so much is remembered as seen: mids and the ids of texts; of all that could not be read as much again.
MOST_SEEN = 20_000
#: After so many of one sender it is looked whether they are too many.
_CROWD = 1000


class Ledger:
    """Notes changes, and commits them together. States are turned into bytes once, however often they changed.

    :ivar urgent: whether something has to be committed before anything leaves; what is not can wait for company.
    :ivar lazy: whether something waits that is to be committed soon all the same.
    :ivar keeps_history: whether what is said is kept.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.urgent = self.lazy = False
        self.keeps_history = True
        self._values: dict[str, Callable[[], bytes | None]] = {}
        self._people: dict[str, Person | None] = {}
        self._conversations: dict[str, Conversation | None] = {}
        self._letters: dict[int, Letter | None] = {}
        self._arrived: dict[int, Arrived | None] = {}
        self._seen: dict[tuple[str, bytes], int] = {}
        self._unseen = 0
        self._crowds: Counter[str] = Counter()
        self._crowded: dict[str, int] = {}
        self._history: dict[tuple[str, bytes], Entry] = {}
        self._deleted: list[str] = []

    def __repr__(self) -> str:
        return "<ledger>"

    def value(self, name: str, value: bytes | None) -> None:
        """A value is this now, or is no more."""
        self.state(name, lambda: value)

    def state(self, name: str, dump: Callable[[], bytes | None]) -> None:
        """A value has changed, and ``dump`` will say to what."""
        self._values[name] = dump
        self.urgent = True

    def person(self, person: Person) -> None:
        """A person has changed."""
        self._people[person.id] = person
        self.urgent = True

    def no_person(self, person_id: str) -> None:
        """A person is forgotten, and the conversation with them."""
        self._people[person_id] = None
        self._conversations[person_id] = None
        self.urgent = True

    def conversation(self, conversation: Conversation) -> None:
        """A conversation has changed."""
        self._conversations[conversation.peer_id] = conversation
        self.urgent = True

    def letter(self, letter: Letter) -> None:
        """A letter has changed."""
        self._letters[letter.number] = letter
        self.urgent = True

    def no_letter(self, number: int, *, urgent: bool = True) -> None:
        """A letter is no more."""
        self._letters[number] = None
        self.urgent = self.urgent or urgent

    def arrived(self, row: Arrived, *, gone: bool = False, urgent: bool = True) -> None:
        """A text that came has changed, or nothing is left to do for it."""
        self._arrived[row.number] = None if gone else row
        self.urgent = self.urgent or urgent

    # --- what was said ------------------------------------------------------------------------------------------------

    def said(self, entry: Entry) -> None:
        """Something was said, or has come further: then without its text."""
        if not self.keeps_history and entry.text is not None:
            return
        before = self._history.get(entry.key)
        if before is not None and entry.text is None:
            entry.text = before.text
        self._history[entry.key] = entry
        self.urgent = True

    def history(self, wanted: Wanted) -> list[Entry]:
        """What was said, up to now; for commands only, between which everything noted belongs together.

        :raises LocalError: ``unavailable``: it cannot be read, or what was noted cannot be committed before.
        """
        if self._history or self._deleted:
            self.commit()
        return self.store.history(wanted)

    def entry(self, sender: str, number: bytes) -> Entry | None:
        """What is kept of a text, or of a message that could not be read; its text only if it is committed.

        :raises LocalError: ``unavailable``: it cannot be read.
        """
        noted = self._history.get((sender, number))
        if noted is not None:
            return copy(noted)
        found = self.store.history(Wanted(sender=sender, ids=(number, number), limit=1))
        return found[0] if found and found[0].peer not in self._deleted else None

    def delete(self, peer: str) -> None:
        """Nothing of what was said with somebody until now is kept."""
        self._history = {key: entry for key, entry in self._history.items() if entry.peer != peer}
        self._deleted.append(peer)
        self.urgent = True

    # --- what was seen ------------------------------------------------------------------------------------------------

    def seen(self, sender: str, number: bytes, now: int) -> None:
        """A message was opened, or a text came."""
        self._see((sender, number), now)

    def unread(self, sender: str, mid: bytes, now: int) -> None:
        """A message could not be opened."""
        self._see((UNREAD, _unread(sender, mid)), now)

    def _see(self, key: tuple[str, bytes], now: int) -> None:
        self._seen[key] = now
        self._crowds[key[0]] += 1
        if self._crowds[key[0]] >= _CROWD:
            del self._crowds[key[0]]
            self._crowded[key[0]] = MOST_SEEN
        self.urgent = True

    def has_seen(self, sender: str, number: bytes) -> bool:
        """Whether a message or a text of somebody was seen, be it that it could not be read.

        :raises LocalError: ``unavailable``: that cannot be found out.
        """
        keys = ((sender, number), (UNREAD, _unread(sender, number)))
        return any(key in self._seen or self.store.has_seen(*key) for key in keys)

    def forget_seen(self, before: int) -> None:
        """What was seen before this time can be forgotten."""
        self._unseen = before

    @contextmanager
    def lazily(self) -> Iterator[None]:
        """What is noted within can wait: should it be lost, others will say it again."""
        before = self.urgent
        yield
        self.urgent, self.lazy = before, True

    # --- committing ---------------------------------------------------------------------------------------------------

    def commit(self) -> None:
        """Make it lasting.

        :raises LocalError: it cannot be; it is noted still, and nothing has been changed.
        """
        change = Change(
            values={name: dump() for name, dump in self._values.items()},
            people=dict(self._people),
            conversations={key: None if one is None else one.dump() for key, one in self._conversations.items()},
            letters=dict(self._letters),
            arrived=dict(self._arrived),
            seen=dict(self._seen),
            unseen=self._unseen,
            crowded=dict(self._crowded),
            deleted=tuple(self._deleted),
            history=tuple(self._history.values()),
        )
        if change:
            self.store.commit(change)
        for noted in (
            *(self._values, self._people, self._conversations, self._letters, self._arrived),
            *(self._seen, self._crowded, self._history, self._deleted),
        ):
            noted.clear()
        self._unseen = 0
        self.urgent = self.lazy = False


def _unread(sender: str, mid: bytes) -> bytes:
    return sha256(sender.encode("ascii") + mid).digest()[:16]
