"""What has changed since the last commit."""

from __future__ import annotations

from collections.abc import Callable

from sims.client.store import Change, Letter, Person, Store
from sims.crypto.conversation import Conversation


class Ledger:
    """Notes changes, and commits them together. States are turned into bytes once, however often they changed."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._values: dict[str, Callable[[], bytes | None]] = {}
        self._people: dict[str, Person | None] = {}
        self._conversations: dict[str, Conversation] = {}
        self._letters: dict[int, Letter | None] = {}
        self._seen: dict[tuple[str, bytes], int] = {}

    def __repr__(self) -> str:
        return "<ledger>"

    def value(self, name: str, value: bytes | None) -> None:
        """A value is this now, or is no more."""
        self._values[name] = lambda: value

    def state(self, name: str, dump: Callable[[], bytes]) -> None:
        """A value has changed, and ``dump`` will say to what."""
        self._values[name] = dump

    def person(self, person: Person) -> None:
        """A person has changed."""
        self._people[person.id] = person

    def conversation(self, conversation: Conversation) -> None:
        """A conversation has changed."""
        self._conversations[conversation.peer_id] = conversation

    def letter(self, letter: Letter) -> None:
        """A letter has changed."""
        self._letters[letter.number] = letter

    def no_letter(self, number: int) -> None:
        """A letter is no more."""
        self._letters[number] = None

    def seen(self, sender: str, number: bytes, now: int) -> None:
        """A message or a text was seen."""
        self._seen[sender, number] = now

    def has_seen(self, sender: str, number: bytes) -> bool:
        """Whether it was."""
        return (sender, number) in self._seen or self.store.has_seen(sender, number)

    def commit(self) -> None:
        """Make it lasting.

        :raises LocalError: it cannot be; it is noted still.
        """
        change = Change(
            values={name: dump() for name, dump in self._values.items()},
            people=dict(self._people),
            conversations={key: conversation.dump() for key, conversation in self._conversations.items()},
            letters=dict(self._letters),
            seen=dict(self._seen),
        )
        if not change:
            return
        self.store.commit(change)
        for noted in (self._values, self._people, self._conversations, self._letters, self._seen):
            noted.clear()
