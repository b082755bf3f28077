"""What happens at the user's end: one frozen type for each event. The console prints them, programs match on them."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Final, Literal

from msgspec import Struct

from sims.errors import Code

#: Why a text has failed of which nobody has said in 30 days that it arrived. It is never on the wire, so it is no Code.
EXPIRED: Final = "expired"


class Delivery(StrEnum):
    """How far a message of ours has come."""

    QUEUED = "queued"
    ACCEPTED = "accepted"
    DELIVERED = "delivered"
    READ = "read"
    FAILED = "failed"

    def reaches(self, other: Delivery) -> bool:
        """Whether a message in this state has come as far as another one; a failed one has not."""
        order = [*Delivery]
        return self is not Delivery.FAILED and order.index(self) >= order.index(other)


class Contact(Struct, frozen=True):
    """Somebody: the id (text in every event) and the name that goes with it, empty while it is unknown."""

    id: str
    name: str


class Event(Struct, frozen=True, kw_only=True):
    """Base of all events. ``ref`` is that of the command that caused it, if it had one."""

    ref: str | int | None = None


class Ready(Event, frozen=True, kw_only=True):
    """The handshake with the server is through."""

    id: str
    name: str
    spec: str


class Listing(Event, frozen=True, kw_only=True):
    """Who is connected to the server, the answer to ``list``."""

    clients: tuple[Contact, ...]


class Connected(Event, frozen=True, kw_only=True):
    """A conversation is open. ``verified`` is always false on the seed's format: nothing authenticates the peer.

    :ivar verified: whether a link or the safety number has confirmed the id.
    :ivar confirmed: whether the peer has proved to be the id; told again when it has. None on the seed's format.
    """

    peer: Contact
    spec: str
    verified: bool = False
    confirmed: bool | None = None


class Message(Event, frozen=True, kw_only=True):
    """A text has come.

    :ivar verified: as in :class:`Connected`, and ``confirmed`` too; both None on the seed's format.
    :ivar order: ``gap``, when something before it is missing, or ``doubled``; None, when it is in order.
    :ivar missing: the numbers of what is missing, at most 20; none where what came before was not what its sender says.
    :ivar unreadable: the ids of messages of theirs that could not be read; what is missing may be in them.
    """

    sender: Contact
    text: str
    id: str
    verified: bool | None = None
    confirmed: bool | None = None
    order: str | None = None
    missing: tuple[int, ...] = ()
    unreadable: tuple[str, ...] = ()


class State(Event, frozen=True, kw_only=True):
    """A message of ours has come further, or has failed (then ``code`` says why)."""

    id: str
    to: Contact
    state: Delivery
    text: str | None = None
    code: Code | Literal["expired"] | None = None


class Disconnected(Event, frozen=True, kw_only=True):
    """A conversation is closed."""

    peer: Contact


class Offline(Event, frozen=True, kw_only=True):
    """The connection to the server is lost; it is being made again."""


class Problem(Event, frozen=True, kw_only=True):
    """Something was refused or did not work. What follows from it comes as events of its own."""

    code: Code
    text: str


# --- of sims/2 alone --------------------------------------------------------------------------------------------------


class Link(Event, frozen=True, kw_only=True):
    """The own link, to hand to a friend."""

    link: str


class SafetyNumber(Event, frozen=True, kw_only=True):
    """60 digits in 12 groups, the same on both screens if nobody sits between."""

    peer: Contact
    number: str


class Trusted(Event, frozen=True, kw_only=True):
    """The user says that this id is who they think."""

    peer: Contact


class IdentityChanged(Event, frozen=True, kw_only=True):
    """The server gives another id for a name that is held: nothing is sent to the name until the user accepts it."""

    peer: Contact
    old: str
    new: str


class Unreadable(Event, frozen=True, kw_only=True):
    """Something came that could not be opened; ``id`` is that of the message it travelled in."""

    sender: Contact
    id: str
    code: Code


class Anew(Event, frozen=True, kw_only=True):
    """What somebody says begins anew: their store is new or was restored from a copy, or they gave something up.

    Texts of ours that are not delivered are sent to them again.
    """

    peer: Contact


class NotRead(Event, frozen=True, kw_only=True):
    """A text of ours came and could not be opened, says its recipient: it is sent once more.

    :ivar id: the text's; ``again``: how many times it is sent once more by now.
    """

    to: Contact
    id: str
    again: int


class Said(Struct, frozen=True, kw_only=True):
    """A text that is kept, or a message that could not be read, as it stands now.

    :ivar id: the text's; of what could not be read, that of the message it travelled in.
    :ivar ours: whether we sent it.
    :ivar text: empty for what could not be read.
    :ivar state: a :class:`Delivery` of ours; ``came`` or ``unreadable`` of theirs. ``code`` says why it failed.
    :ivar time: when it was asked for, or came, Unix seconds; ``times``: when it came further, by its state then.
    :ivar verified: as in :class:`Message`, with ``confirmed``, ``order`` and ``missing``; None for ours.
    """

    id: str
    peer: Contact
    ours: bool
    text: str
    state: str
    time: int
    code: str = ""
    times: dict[str, int] = {}
    verified: bool | None = None
    confirmed: bool | None = None
    order: str | None = None
    missing: tuple[int, ...] = ()


class History(Event, frozen=True, kw_only=True):
    """What was said, the oldest first: with somebody (``to``), or wherever the words of ``text`` were said."""

    to: Contact | None = None
    text: str | None = None
    messages: tuple[Said, ...]


class Why(Event, frozen=True, kw_only=True):
    """What has become of a message, in words.

    :ivar times: when it was queued, or came, and when it came further, by its state then; Unix seconds.
    """

    id: str
    peer: Contact
    state: str
    text: str
    times: dict[str, int]
    code: str = ""


class Deleted(Event, frozen=True, kw_only=True):
    """Nothing of what was said with somebody is kept any more."""

    peer: Contact


class About(Event, frozen=True, kw_only=True):
    """What the server says it keeps on us, by name: its word, and whatever it wants to write."""

    facts: dict[str, Any]


class AccountDeleted(Event, frozen=True, kw_only=True):
    """The server has forgotten us, and our name is free."""
