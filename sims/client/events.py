"""What happens at the user's end: one frozen type for each event. The console prints them, programs match on them."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

from sims.errors import Code


class Delivery(StrEnum):
    """How far a message of ours has come."""

    QUEUED = "queued"
    ACCEPTED = "accepted"
    DELIVERED = "delivered"
    READ = "read"
    FAILED = "failed"


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
    """A conversation is open. ``verified`` is always false on the seed's format: nothing authenticates the peer."""

    peer: Contact
    spec: str
    verified: bool = False


class Message(Event, frozen=True, kw_only=True):
    """A text has come."""

    sender: Contact
    text: str
    id: str


class State(Event, frozen=True, kw_only=True):
    """A message of ours has come further, or has failed (then ``code`` says why)."""

    id: str
    to: Contact
    state: Delivery
    text: str | None = None
    code: Code | None = None


class Disconnected(Event, frozen=True, kw_only=True):
    """A conversation is closed."""

    peer: Contact


class Offline(Event, frozen=True, kw_only=True):
    """The connection to the server is lost; it is being made again."""


class Problem(Event, frozen=True, kw_only=True):
    """Something was refused or did not work. What follows from it comes as events of its own."""

    code: Code
    text: str
