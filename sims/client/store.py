"""What the user's end keeps, and how: the shape of a store, and one in memory.

A messenger changes its own memory and notes what has changed; before anything that follows from it leaves or is shown,
all of it is committed at once (:meth:`Store.commit`). So a store holds a state that the world may have seen, or a newer
one; never an older.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy as _copy
from typing import Protocol, TypeVar

from msgspec import Struct

from sims.client.events import Delivery
from sims.client.history import Entry, Kept, Wanted

#: In the place of a sender, in what was seen: what could not be read, whoever sent it.
UNREAD = ""

K = TypeVar("K")
V = TypeVar("V")


class Letter(Struct, kw_only=True):
    """A message of ours, from when it is asked for until nobody can ask for it again.

    :ivar number: in which order they were asked for.
    :ivar to: the id of whom it is for; empty while only a ``name`` is known.
    :ivar id: of a text, 16 random bytes.
    :ivar text: what is to be said, while it is not sealed; None for what is no text.
    :ivar content: what was sealed; to be sealed again if it cannot be read.
    :ivar mid: of the message that carries it, or did before it is sealed once more, 16 random bytes.
    :ivar inner: that message; None once the server has accepted it.
    :ivar session: the th1 of the session that it was sealed on.
    :ivar again: how many times it was to be sealed once more: its recipient could not read it, or began anew.
    :ivar anew: whether it is sent once more as its recipient begins anew. Its state says how far it came before.
    :ivar lost: whether it was sealed for a store that is another now, and nothing was heard of it.
    :ivar time: when it was asked for, Unix seconds; ``accepted`` when the server had it.
    :ivar times: when it came into each further state, Unix seconds.
    :ivar code: why it failed; kept until that was told.
    """

    number: int
    to: str = ""
    name: str = ""
    id: bytes = b""
    text: str | None = None
    content: bytes | None = None
    mid: bytes = b""
    inner: bytes | None = None
    session: bytes = b""
    state: Delivery = Delivery.QUEUED
    again: int = 0
    anew: bool = False
    lost: bool = False
    time: int = 0
    accepted: int = 0
    times: dict[str, int] = {}
    code: str = ""

    def __repr__(self) -> str:
        return f"<letter {self.number} {self.state}>"

    @property
    def is_due(self) -> bool:
        """Whether it is to be sealed, or sent."""
        return self.state is Delivery.QUEUED or self.anew

    @property
    def is_quiet(self) -> bool:
        """Whether nobody waits for the server to take it: no text, or one that it has taken before."""
        return not self.id or self.state is not Delivery.QUEUED


class Arrived(Struct, kw_only=True):
    """A text that came, until it was shown and its sender told that it has come.

    :ivar number: in which order they came.
    :ivar id: the text's, 16 bytes; ``session`` the th1 of the session that brought it.
    :ivar text: None once it was shown.
    :ivar order: how it stands to those before it, as in :class:`~sims.client.events.Message`, with ``missing``.
    :ivar owed: whether a receipt is to be sent; ``told``: that it has come was told, and that it was read is to be.
    :ivar time: when it came, Unix seconds.
    """

    number: int
    sender: str
    id: bytes
    session: bytes
    text: str | None = None
    confirmed: bool = False
    order: str | None = None
    missing: tuple[int, ...] = ()
    owed: bool = True
    time: int = 0
    told: bool = False

    def __repr__(self) -> str:
        return f"<arrived {self.number} of {self.sender}>"


class Person(Struct, kw_only=True):
    """Somebody, as we know them.

    :ivar name: the server's word for the id, held from the first time; empty while it is unknown.
    :ivar verified: whether a link or the safety number has confirmed the id.
    :ivar sign: their public keys, 32 bytes each, once they are known; ``dh`` likewise.
    :ivar changed_to: another id that the server now gives for the name; nothing is sent until the user accepts it.
    :ivar before: the ids that had the name before, as the user has accepted this one in their place.
    :ivar asked: when they were last asked for what could not be read, Unix seconds.
    :ivar asks: the mids of what could not be read, and is to be asked for; ``vain``: how often in a row that failed.
    :ivar unread: the mids of what could not be read since all was whole that came of them.
    :ivar ours: whether we wanted to know them: a stranger otherwise, who is forgotten after a while.
    :ivar renewed: whether we have ended our sessions with them, and they do not know.
    :ivar heard: when something of them was last read, Unix seconds.
    :ivar anew: when it was last told that what they say begins anew, Unix seconds.
    :ivar begins: the th1 of the session on which it began anew, while that is still to be told.
    """

    id: str
    name: str = ""
    verified: bool = False
    sign: bytes = b""
    dh: bytes = b""
    changed_to: str = ""
    before: tuple[str, ...] = ()
    asked: int = 0
    asks: tuple[bytes, ...] = ()
    vain: int = 0
    unread: tuple[bytes, ...] = ()
    ours: bool = False
    renewed: bool = False
    heard: int = 0
    anew: int = 0
    begins: bytes = b""

    def __repr__(self) -> str:
        return f"<person {self.id}>"


class Change(Struct, kw_only=True):
    """What is to be committed at once; None where something is to be forgotten.

    :ivar values: identity, prekeys, epoch and the like, by name.
    :ivar conversations: their dumps, by id.
    :ivar seen: (id of the sender, mid of a message or id of a text) that need not be looked at again, with the time.
    :ivar unseen: what was seen before this time is to be forgotten.
    :ivar crowded: of what was seen of these senders, only so many of the newest are to be kept.
    :ivar deleted: what was said with these people before is to be deleted, and its room freed.
    :ivar history: what was said, and what has become of it.
    """

    values: dict[str, bytes | None] = {}
    people: dict[str, Person | None] = {}
    conversations: dict[str, bytes | None] = {}
    letters: dict[int, Letter | None] = {}
    arrived: dict[int, Arrived | None] = {}
    seen: dict[tuple[str, bytes], int] = {}
    unseen: int = 0
    crowded: dict[str, int] = {}
    deleted: tuple[str, ...] = ()
    history: tuple[Entry, ...] = ()

    def __bool__(self) -> bool:
        kept = self.values or self.people or self.conversations or self.letters or self.arrived
        return bool(kept or self.seen or self.unseen or self.crowded or self.deleted or self.history)

    def __repr__(self) -> str:
        return "<change>"


class Saved(Struct, kw_only=True):
    """Everything that was committed, but for what was seen and what was said."""

    values: dict[str, bytes]
    people: dict[str, Person]
    conversations: dict[str, bytes]
    letters: dict[int, Letter]
    arrived: dict[int, Arrived]

    def __repr__(self) -> str:
        return "<saved>"


class Store(Protocol):
    """Where it is kept."""

    def load(self) -> Saved:
        """What was committed.

        :raises LocalError: it cannot be read.
        """

    def has_seen(self, sender: str, number: bytes) -> bool:
        """Whether a mid of a message, or an id of a text, of this sender was committed as seen."""

    def history(self, wanted: Wanted) -> list[Entry]:
        """What was said, in order.

        :raises LocalError: ``unavailable``: it cannot be read.
        """

    def commit(self, change: Change) -> None:
        """Make all of it lasting, or nothing.

        :raises LocalError: ``unavailable``: nothing of it is.
        """

    def close(self) -> None:
        """Let go of the files."""


class MemoryStore:
    """A store that lives as long as the process."""

    def __init__(self) -> None:
        self._saved = Saved(values={}, people={}, conversations={}, letters={}, arrived={})
        self._seen: dict[tuple[str, bytes], int] = {}
        self._history = Kept()

    def __repr__(self) -> str:
        return "<memory store>"

    def load(self) -> Saved:
        """As :meth:`Store.load`."""
        saved = self._saved
        return Saved(
            values=dict(saved.values),
            people=_copies(saved.people),
            conversations=dict(saved.conversations),
            letters=_copies(saved.letters),
            arrived=_copies(saved.arrived),
        )

    def has_seen(self, sender: str, number: bytes) -> bool:
        """As :meth:`Store.has_seen`."""
        return (sender, number) in self._seen

    def history(self, wanted: Wanted) -> list[Entry]:
        """As :meth:`Store.history`."""
        return self._history.find(wanted)

    def commit(self, change: Change) -> None:
        """As :meth:`Store.commit`."""
        saved = self._saved
        _apply(saved.values, change.values)
        _apply(saved.people, _copies(change.people))
        _apply(saved.conversations, change.conversations)
        _apply(saved.letters, _copies(change.letters))
        _apply(saved.arrived, _copies(change.arrived))
        self._seen.update(change.seen)
        if change.unseen:
            self._seen = {key: time for key, time in self._seen.items() if time >= change.unseen}
        for sender, most in change.crowded.items():
            theirs = [key for key in self._seen if key[0] == sender]
            for key in sorted(theirs, key=self._seen.__getitem__)[: max(0, len(theirs) - most)]:
                del self._seen[key]
        for peer in change.deleted:
            self._history.delete(peer)
        self._history.note(change.history)

    def close(self) -> None:
        """As :meth:`Store.close`."""


def _copies(rows: Mapping[K, V]) -> dict[K, V]:
    """The rows and, where they are there, copies of what stands in them: whoever changes one changes no other."""
    return {key: _copy(row) for key, row in rows.items()}


def _apply(kept: dict[K, V], change: Mapping[K, V | None]) -> None:
    for key, value in change.items():
        if value is None:
            kept.pop(key, None)
        else:
            kept[key] = value
