"""What a message says, and in which order (protocol.rst, "Content").

A content is chain(32) || MessagePack ``{kind, id(16), stream(8), seq, time, ...}``. ``seq`` counts from 1 for each
stream and conversation, whatever the session; chain = SHA-256(the chain of the content before, at first 32 zero bytes,
and the MessagePack bytes as sent). So what was dropped, reordered or doubled shows; :class:`Order` says so, and hides
none.
"""

from __future__ import annotations

from collections.abc import Collection
from enum import StrEnum
from hashlib import sha256
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from sims.crypto import payloads, primitives
from sims.crypto.payloads import U64, Bytes8, Bytes16, Bytes32
from sims.errors import Code, LocalError, malformed

CHAIN_SIZE = 32
FIRST_CHAIN = bytes(CHAIN_SIZE)
#: So many ids are in a receipt.
MAX_RECEIPT = 100
#: So many contents, and bytes of them, are remembered of a stream while one before them is missing; so many streams.
MAX_WAITING = 2000
MAX_WAITING_BYTES = 2**20
MAX_STREAMS = 32

_VERSION = 1

Seq = Annotated[int, Meta(ge=1)]


class _Content(Struct, frozen=True, kw_only=True, tag_field="kind"):
    """What every kind has; ``time`` is the sender's clock, Unix seconds."""

    id: Bytes16
    stream: Bytes8
    seq: Seq
    time: U64

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.seq}>"


class Text(_Content, frozen=True, kw_only=True, tag="text"):
    """What somebody says."""

    body: str


class Receipt(_Content, frozen=True, kw_only=True, tag="receipt"):
    """The seed's client ack; ``chain`` is that of the last content that its sender has in unbroken order."""

    ids: Annotated[tuple[Bytes16, ...], Meta(max_length=MAX_RECEIPT)]
    state: Literal["delivered", "read"]
    chain: Bytes32


class Disconnect(_Content, frozen=True, kw_only=True, tag="disconnect"):
    """The seed's client-disconnect: sending on its session ends."""


class Unreadable(_Content, frozen=True, kw_only=True, tag="unreadable"):
    """Your message of this mid could not be opened."""

    ref: Bytes16


Content = Text | Receipt | Disconnect | Unreadable

_decoder: msgspec.msgpack.Decoder[Content] = msgspec.msgpack.Decoder(Content)
_ERRORS = (msgspec.MsgspecError, RecursionError, UnicodeDecodeError, OverflowError)


def decode(content: bytes) -> Content:
    """What a content says.

    :raises PeerError: ``malformed``, for an unknown kind too.
    """
    if len(content) <= CHAIN_SIZE:
        raise malformed("a content without a chain")
    try:
        return _decoder.decode(content[CHAIN_SIZE:])
    except _ERRORS:
        raise malformed("not the MessagePack of a content") from None


def chained(before: bytes, packed: bytes) -> bytes:
    """The chain of a content whose MessagePack this is, after the chain of the one before."""
    return sha256(before + packed).digest()


# --- sending ----------------------------------------------------------------------------------------------------------


class OwnStream(Struct, kw_only=True):
    """The sender's side of one conversation: where stream, ``seq`` and chain stand. To be stored with what was sealed.

    :ivar stream: 8 random bytes, made with the store, so that a new or restored store shows.
    """

    stream: bytes
    seq: int = 0
    chain: bytes = FIRST_CHAIN
    version: int = _VERSION

    def __repr__(self) -> str:
        return f"<{self.seq} contents sent>"

    def add(self, content: Content) -> bytes:
        """The bytes of the next content, which has this stream and the next ``seq``.

        :raises LocalError: ``internal``, when it has not.
        """
        if content.stream != self.stream or content.seq != self.seq + 1:
            raise LocalError(Code.INTERNAL, "a content that is not the next of its stream")
        packed = payloads.encode(content)
        self.chain = chained(self.chain, packed)
        self.seq += 1
        return self.chain + packed


# --- receiving --------------------------------------------------------------------------------------------------------


class Place(StrEnum):
    """How a content stands to those that came before it."""

    IN_ORDER = "in order"
    GAP = "gap"  # something before it is missing, or was another than its sender says
    DOUBLED = "doubled"  # its number came before


class _Stream(Struct, kw_only=True):
    """One stream of a peer's.

    :ivar seq: the last in unbroken order, and ``chain`` its chain.
    :ivar waiting: those behind a missing one: seq → content, as long as its own chain cannot be checked.
    """

    seq: int = 0
    chain: bytes = FIRST_CHAIN
    waiting: dict[int, bytes] = {}

    def __repr__(self) -> str:
        return f"<{self.seq} in order, {len(self.waiting)} waiting>"


class _OrderState(Struct, kw_only=True):
    version: int = _VERSION
    streams: dict[bytes, _Stream]
    last: bytes | None = None
    held: dict[bytes, list[bytes]]


class Order:
    """The receiver's side of one conversation: which contents came, of each stream of the peer's.

    What came on a session that is not confirmed is held apart: it counts only once :meth:`confirm` says so, as until
    then somebody else may have written it.
    """

    __slots__ = ("_state",)

    def __init__(self) -> None:
        self._state = _OrderState(streams={}, held={})

    def __repr__(self) -> str:
        return f"<order of {len(self._state.streams)} streams>"

    @property
    def chain(self) -> bytes:
        """For the next receipt: the chain of the last content in unbroken order, of the stream heard last."""
        last = self._state.last
        return FIRST_CHAIN if last is None else self._state.streams[last].chain

    def place(self, content: bytes) -> Place:
        """How a content stands to those that count. Changes nothing.

        :raises PeerError: ``malformed``, as :func:`decode`.
        """
        said = decode(content)
        stream = self._state.streams.get(said.stream, _Stream())
        if said.seq <= stream.seq or said.seq in stream.waiting:
            return Place.DOUBLED
        return Place.IN_ORDER if _follows(stream, said.seq, content) else Place.GAP

    def add(self, content: bytes) -> Place:
        """Take a content of a confirmed session.

        :raises PeerError: ``malformed``, as :func:`decode`.
        """
        said = decode(content)
        place = self.place(content)
        streams = self._state.streams
        if place is Place.DOUBLED:
            return place
        stream = streams.get(said.stream)
        if stream is None:
            if len(streams) >= MAX_STREAMS:
                del streams[next(iter(streams))]
            stream = streams[said.stream] = _Stream(waiting={})
        self._state.last = said.stream
        if place is Place.IN_ORDER or _has_room(stream.waiting.values(), content):
            stream.waiting[said.seq] = content
        while (following := stream.waiting.get(stream.seq + 1)) is not None:
            if not _follows(stream, stream.seq + 1, following):
                break
            del stream.waiting[stream.seq + 1]
            stream.seq += 1
            stream.chain = following[:CHAIN_SIZE]
        return place

    def hold(self, session: bytes, content: bytes) -> Place:
        """Take a content of an unconfirmed session: how it stands if those that count are all.

        :param session: its th1.
        :raises PeerError: ``malformed``, as :func:`decode`.
        """
        place = self.place(content)
        held = self._state.held.setdefault(session, [])
        if _has_room(held, content):
            held.append(content)
        return place

    def confirm(self, session: bytes) -> None:
        """A session was confirmed: what was held of it counts from now on."""
        for content in self._state.held.pop(session, []):
            self.add(content)

    def drop(self, session: bytes) -> None:
        """A session was dropped without having been confirmed."""
        self._state.held.pop(session, None)

    def dump(self) -> bytes:
        """The whole state, in MessagePack with its version."""
        return _encoder.encode(self._state)

    @classmethod
    def load(cls, dumped: bytes) -> Order:
        """What :meth:`dump` gave.

        :raises PeerError: ``malformed``, for anything else and for another version.
        """
        state = payloads.decode(_OrderState, dumped)
        if state.version != _VERSION:
            raise malformed(f"a stored order of version {state.version}")
        found = cls()
        found._state = state
        return found


def _has_room(kept: Collection[bytes], content: bytes) -> bool:
    return len(kept) < MAX_WAITING and sum(map(len, kept)) + len(content) <= MAX_WAITING_BYTES


def _follows(stream: _Stream, seq: int, content: bytes) -> bool:
    """Whether a content is the next of its stream, and says that the same came before it."""
    return seq == stream.seq + 1 and primitives.same(chained(stream.chain, content[CHAIN_SIZE:]), content[:CHAIN_SIZE])


_encoder = msgspec.msgpack.Encoder()
