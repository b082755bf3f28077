"""What a message says, and in which order (protocol.rst, "Content").

A content is chain(32) || MessagePack ``{kind, id(16), stream(8), seq, time, ...}``. ``seq`` counts from 1 for each
stream and conversation, whatever the session; chain = SHA-256(the chain of the content before, at first 32 zero bytes,
and the MessagePack bytes as sent). So what was dropped, reordered or doubled shows; :class:`Order` says so, and hides
none.
"""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple, TypeVar

import msgspec
from msgspec import Meta, Struct
from msgspec.structs import replace

from sims import strictmsgpack
from sims.crypto import payloads, stored
from sims.crypto.held import Held, Kept, further, given_up
from sims.crypto.notation import CONTENT_SIZES
from sims.crypto.payloads import U64, Bytes8, Bytes16, Bytes32
from sims.crypto.stored import Stored
from sims.crypto.streams import CHAIN_SIZE, Seq, Stream, chained
from sims.crypto.streams import FIRST_CHAIN as FIRST_CHAIN
from sims.crypto.streams import Place as Place
from sims.errors import Code, LocalError, PeerError, malformed

#: The longest content, bytes: padding adds one at least.
MAX_CONTENT = CONTENT_SIZES[-1] - 1
#: So many ids are in a receipt.
MAX_RECEIPT = 100
#: So many streams are remembered; of so many unconfirmed sessions something is held.
MAX_STREAMS = 32
MAX_HELD = 6
#: So much is kept of what is held, and as much again of what waits for a missing content: bytes, and
#: :data:`~sims.crypto.streams.COST` for each content.
MAX_BYTES = 2**20


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


class Unknown(_Content, frozen=True, kw_only=True):
    """A kind of a later version: nothing is done about it, but ``seq`` and chain go on over it. It is never sent."""


#: What can be sent, and what can come.
Content = Text | Receipt | Disconnect | Unreadable
Said = Content | Unknown


class _Kind(Struct, frozen=True):
    kind: str


_KINDS = frozenset(kind.__struct_config__.tag for kind in (Text, Receipt, Disconnect, Unreadable))
_kind = msgspec.msgpack.Decoder(_Kind)
_known: msgspec.msgpack.Decoder[Content] = msgspec.msgpack.Decoder(Content)


class _Base(Struct, frozen=True, kw_only=True):
    id: Bytes16
    stream: Bytes8
    seq: Seq
    time: U64


_base = msgspec.msgpack.Decoder(_Base)
_ERRORS = (msgspec.MsgspecError, RecursionError, UnicodeDecodeError, OverflowError)


def decode(content: bytes) -> Said:
    """What a content says.

    :raises PeerError: ``malformed``.
    """
    if len(content) <= CHAIN_SIZE:
        raise malformed("a content without a chain")
    packed = content[CHAIN_SIZE:]
    strictmsgpack.check(packed)
    try:
        if _kind.decode(packed).kind in _KINDS:
            return _known.decode(packed)
        base = _base.decode(packed)
    except _ERRORS:
        raise malformed("not the MessagePack of a content") from None
    return Unknown(id=base.id, stream=base.stream, seq=base.seq, time=base.time)


def kind_of(content: bytes) -> str:
    """The kind of an own content.

    :raises LocalError: ``internal``: it is none.
    """
    try:
        return _kind.decode(content[CHAIN_SIZE:]).kind
    except msgspec.MsgspecError:
        raise LocalError(Code.INTERNAL, "not the bytes of a content") from None


# --- sending ----------------------------------------------------------------------------------------------------------


class OwnStream(Struct, frozen=True, kw_only=True):
    """The sender's side of one conversation: where stream, ``seq`` and chain stand. To be stored with what was sealed.

    :ivar stream: 8 random bytes, made with the store, so that a new or restored store shows.
    """

    stream: Bytes8
    seq: Annotated[int, Meta(ge=0)] = 0
    chain: Bytes32 = FIRST_CHAIN
    version: Literal[1] = 1

    def __repr__(self) -> str:
        return f"<{self.seq} contents sent>"

    def next(self, content: Content) -> tuple[bytes, OwnStream]:
        """The bytes of the next content, which has this stream and the next ``seq``; and the stream behind it.

        The stream itself stays: if sealing or storing fails, the same number is used for what is sent instead.

        :raises LocalError: ``internal``, when it is not the next, or not what a peer could read; ``too-large``, when it
            were longer than 32,767 bytes.
        """
        if content.stream != self.stream or content.seq != self.seq + 1:
            raise LocalError(Code.INTERNAL, "a content that is not the next of its stream")
        try:
            packed = payloads.encode(content)
        except (OverflowError, UnicodeEncodeError):
            raise LocalError(Code.INTERNAL, "a content that cannot be encoded") from None
        chain = chained(self.chain, packed)
        made = chain + packed
        if len(made) > MAX_CONTENT:
            raise LocalError(Code.TOO_LARGE, f"a content of {len(made)} bytes, where {MAX_CONTENT} can be sent")
        try:
            readable = not isinstance(decode(made), Unknown)
        except PeerError:
            readable = False
        if not readable:
            raise LocalError(Code.INTERNAL, "a content that nobody could read")
        return made, replace(self, seq=content.seq, chain=chain)


# --- receiving --------------------------------------------------------------------------------------------------------


class Arrival(NamedTuple):
    """A content that came.

    :ivar content: what it says.
    :ivar data: its bytes: chain || MessagePack.
    :ivar place: how it stands to the others; for one that is not confirmed, to those that are and to what else its
        session brought.
    :ivar confirmed: whether its session is: until then somebody else may have written it.
    :ivar shown: true for a text that came unconfirmed, was handed over then, and is confirmed now.
    :ivar anew: true for the first of a stream, on a confirmed session, where another stream of the peer's was heard
        before; of what was held, :meth:`Order.begins_anew` says it.
    """

    content: Said
    data: bytes
    place: Place
    confirmed: bool
    shown: bool = False
    anew: bool = False

    @property
    def act(self) -> bool:
        """Whether it is to be acted on now: a text at once, but only once; other known kinds when they are confirmed.

        A doubled one too: none is hidden for its place, and it is its id that is shown once.
        """
        if not self.confirmed:
            return isinstance(self.content, Text)
        return not self.shown and not isinstance(self.content, Unknown)

    def __repr__(self) -> str:
        return f"<arrival of {self.content!r}, {self.place}{'' if self.confirmed else ', not confirmed'}>"


K = TypeVar("K", Held, Stream)


class _OrderState(Stored, frozen=True, kw_only=True):
    streams: tuple[Stream, ...]
    held: tuple[Held, ...]
    version: Literal[1] = 1


class Order:
    """The receiver's side of one conversation: which contents came, of each stream of the peer's.

    What came on a session that is not confirmed is held apart: it counts only once :meth:`confirm` says so, as until
    then somebody else may have written it. All that is kept is bounded: of streams, and of sessions that hold
    something, those go first that were heard longest ago; what finds no room at all is placed and not remembered.
    """

    __slots__ = ("_held", "_streams", "_tentative")

    def __init__(self) -> None:
        # Both in the order in which they were heard; all that is in them is immutable, so that copies share it.
        self._streams: dict[bytes, Stream] = {}
        self._held: dict[bytes, Held] = {}
        # Session -> stream -> what counts, and that with what is held of the session: found anew when the former is
        # another, and so never stored.
        self._tentative: dict[bytes, dict[bytes, tuple[Stream | None, Stream]]] = {}

    def __repr__(self) -> str:
        return f"<order of {len(self._streams)} streams>"

    def copy(self) -> Order:
        """One that goes its own way from here; it costs next to nothing."""
        found = Order()
        found._streams, found._held, found._tentative = dict(self._streams), dict(self._held), dict(self._tentative)
        return found

    @property
    def chain(self) -> bytes:
        """For the next receipt: the chain of the last content in unbroken order, of the stream heard last."""
        return next(reversed(self._streams.values())).chain if self._streams else FIRST_CHAIN

    def unbroken(self, stream: bytes) -> int:
        """The number of the last content in unbroken order of one of the peer's streams; 0 for one that never came."""
        found = self._streams.get(stream)
        return 0 if found is None else found.seq

    def stream(self, session: bytes, stream: bytes) -> Stream:
        """One of the peer's streams, as it stands with what came on a session; of one that is confirmed, as it counts.

        What the session has brought is in it from when something came on it, which is what it is asked behind.
        """
        tentative = self._tentative.get(session, {}).get(stream)
        return self._counted(stream) if tentative is None else tentative[1]

    def receive(self, session: bytes, content: bytes, *, confirmed: bool) -> Arrival:
        """Take a content; whether it is to be acted on now is :attr:`Arrival.act`.

        :param session: the th1 of the session that brought it; ``confirmed`` says whether that is.
        :raises PeerError: ``malformed``, as :func:`decode`.
        :raises LocalError: ``internal``, for a confirmed session of which something is held: :meth:`confirm` it first.
        """
        said = decode(content)
        if not confirmed:
            return Arrival(said, content, self._hold(session, said, content), False)
        if session in self._held:
            raise LocalError(Code.INTERNAL, "a session that was confirmed, but not to the order of its contents")
        anew = bool(self._streams) and said.stream not in self._streams
        return Arrival(said, content, self._count(said, content), True, anew=anew)

    def begins_anew(self, session: bytes) -> bool:
        """Whether a stream that was never heard will count once this session is confirmed, where another was heard."""
        held = self._held.get(session, Held(session=session))
        streams = {end.stream for end in held.ends} | {kept.stream for kept in held.contents}
        return bool(self._streams) and not streams <= self._streams.keys()

    def confirm(self, session: bytes) -> list[Arrival]:
        """A session was confirmed: what was held of it counts from now on, and is given to be acted on.

        Its places are the final ones, and :attr:`Arrival.shown` marks the texts, which were handed over before.
        """
        self._tentative.pop(session, None)
        held = self._held.pop(session, Held(session=session))
        for end in held.ends:
            before = self._counted(end.stream)
            self._put(before, further(before, end))
        found = []
        for kept in held.contents:
            said = decode(kept.data)
            place = self._count(said, kept.data)
            found.append(Arrival(said, kept.data, place, True, shown=isinstance(said, Text)))
        return found

    def drop(self, session: bytes) -> None:
        """A session was dropped: what was held of it is forgotten."""
        self._held.pop(session, None)
        self._tentative.pop(session, None)

    def empty(self) -> None:
        """Keep no text, and wait for none: what is missing is given up, and what comes from now on is in order."""
        self._streams = {key: given_up(stream) for key, stream in self._streams.items()}
        self._held = {key: held.without(_may_be_text) for key, held in self._held.items()}
        self._tentative.clear()

    def _count(self, said: Said, data: bytes) -> Place:
        """Take a content that counts."""
        before = self._counted(said.stream)
        place, after = before.taking(said.seq, data)
        if place is not Place.DOUBLED:
            self._put(before, after)
        return place

    def _counted(self, stream: bytes) -> Stream:
        return self._streams.get(stream) or Stream(stream=stream)

    def _put(self, before: Stream, after: Stream) -> None:
        """A stream was heard, and has come further."""
        self._streams.pop(after.stream, None)
        if after.cost > MAX_BYTES:
            after = before
        _make_room(self._streams, MAX_STREAMS, after.cost)
        self._streams[after.stream] = after

    def _hold(self, session: bytes, said: Said, data: bytes) -> Place:
        """Take a content of an unconfirmed session."""
        held = self._held.pop(session, None) or Held(session=session)
        base = self._streams.get(said.stream)
        known = self._tentative.get(session, {})
        before, stream = known.get(said.stream, (None, None))
        if stream is None or before is not base:
            stream = held.onto(self._counted(said.stream))
        place, stream_after = stream.taking(said.seq, data)
        more = replace(held, contents=(*held.contents, Kept(stream=said.stream, seq=said.seq, data=data)))
        if more.cost <= MAX_BYTES:
            held, stream = more, stream_after
        _make_room(self._held, MAX_HELD, held.cost)
        self._held[session] = held
        self._tentative[session] = {**known, said.stream: (base, stream)}
        self._tentative = {key: found for key, found in self._tentative.items() if key in self._held}
        return place

    # --- storing ------------------------------------------------------------------------------------------------------

    def dump(self) -> bytes:
        """The whole state, texts included, in MessagePack with its version."""
        return stored.dump(_OrderState(streams=tuple(self._streams.values()), held=tuple(self._held.values())))

    @classmethod
    def load(cls, dumped: bytes) -> Order:
        """What :meth:`dump` gave.

        :raises PeerError: ``malformed``, for anything else and for another version.
        """
        state = stored.load(_OrderState, dumped)
        found = cls()
        found._streams = {stream.stream: stream for stream in state.streams}
        found._held = {held.session: held for held in state.held}
        return found


def _may_be_text(content: bytes) -> bool:
    return isinstance(decode(content), Text | Unknown)


def _make_room(kept: dict[bytes, K], most: int, cost: int) -> None:
    """Let go what was heard longest ago until there is room for one more that costs so much."""
    spent = cost + sum(one.cost for one in kept.values())
    for key, one in list(kept.items()):
        if len(kept) >= most or (spent > MAX_BYTES and one.cost):
            spent -= one.cost
            del kept[key]
