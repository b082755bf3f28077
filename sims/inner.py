"""What stands inside the sealed boxes of the modern hop, as one frozen type for each (protocol.rst, "Inside secure").

MessagePack: ``{type, ...}``, byte fields raw. What only the two clients may read into (the ``data`` of client-connect
and client-com), and what is signed as a whole (bundles, one-time keys), stays in the bytes in which it came.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from sims import strictmsgpack
from sims.errors import malformed

Mid = Annotated[bytes, Meta(min_length=16, max_length=16)]
#: The first 32 characters of a base32 SHA-256.
Id = Annotated[str, Meta(pattern=r"^[a-z2-7]{32}\Z")]
U32 = Annotated[int, Meta(ge=0, lt=2**32)]

MAX_MIDS = 1000
MAX_ONE_TIME_KEYS = 40


class _Inner(Struct, frozen=True, kw_only=True, tag_field="type"):
    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


class _Data(Struct, frozen=True, kw_only=True):
    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


# --- both directions --------------------------------------------------------------------------------------------------


class AckData(_Data, frozen=True, kw_only=True):
    """Which messages."""

    mids: Annotated[tuple[Mid, ...], Meta(max_length=MAX_MIDS)]


class Ack(_Inner, tag="ack", frozen=True, kw_only=True):
    """Accepted (S→C), or committed (C→S)."""

    data: AckData


class ClientConnect(_Inner, tag="client-connect", frozen=True, kw_only=True):
    """One of the four phases between clients; ``ciphers`` with phase 1 only."""

    src: Id
    dst: Id
    mid: Mid
    phase: Annotated[int, Meta(ge=1, le=4)]
    ciphers: tuple[str, ...] | UnsetType = UNSET
    data: Raw


class ClientCom(_Inner, tag="client-com", frozen=True, kw_only=True):
    """A message of a session."""

    src: Id
    dst: Id
    mid: Mid
    data: Raw


class ErrorData(_Data, frozen=True, kw_only=True):
    """``mid``: of what is refused, where it has one; ``after``: seconds to wait."""

    code: Annotated[str, Meta(max_length=64)]
    mid: Mid | UnsetType = UNSET
    after: U32 | UnsetType = UNSET


class Error(_Inner, tag="error", frozen=True, kw_only=True):
    """Something is refused; the connection goes on, or is about to close."""

    mid: Mid | UnsetType = UNSET
    data: ErrorData


# --- client to server -------------------------------------------------------------------------------------------------


class PublishData(_Data, frozen=True, kw_only=True):
    """The newest bundle, and new one-time keys."""

    bundle: Raw
    one_time_keys: Annotated[tuple[Raw, ...], Meta(max_length=MAX_ONE_TIME_KEYS)] = ()


class Publish(_Inner, tag="publish", frozen=True, kw_only=True):
    """Here are my prekeys; answered with an ack."""

    mid: Mid
    data: PublishData


class FetchData(_Data, frozen=True, kw_only=True):
    """Whose: of the two exactly one."""

    id: Id | UnsetType = UNSET
    name: Annotated[str, Meta(max_length=128)] | UnsetType = UNSET


class Fetch(_Inner, tag="fetch", frozen=True, kw_only=True):
    """Give me somebody's bundle; answered with a bundle."""

    mid: Mid
    data: FetchData


class _Empty(_Data, frozen=True, kw_only=True):
    pass


class ListRequest(_Inner, tag="list", frozen=True, kw_only=True):
    """Who is here?"""

    mid: Mid | UnsetType = UNSET
    data: _Empty = _Empty()


class AboutRequest(_Inner, tag="about", frozen=True, kw_only=True):
    """What does the server keep about me?"""

    mid: Mid | UnsetType = UNSET
    data: _Empty = _Empty()


class Delete(_Inner, tag="delete", frozen=True, kw_only=True):
    """Forget my account, and free its name; answered with an ack, then the server closes."""

    mid: Mid
    data: _Empty = _Empty()


# --- server to client -------------------------------------------------------------------------------------------------


class BundleData(_Data, frozen=True, kw_only=True):
    """What was published, as it was published."""

    bundle: Raw
    one_time_key: Raw | UnsetType = UNSET


class BundleReply(_Inner, tag="bundle", frozen=True, kw_only=True):
    """Answers a fetch."""

    mid: Mid | UnsetType = UNSET
    data: BundleData


class Listed(_Data, frozen=True, kw_only=True):
    """Somebody in the directory."""

    id: Id
    name: str
    online: bool


class ListData(_Data, frozen=True, kw_only=True):
    """The directory, or nothing where the operator keeps none."""

    clients: tuple[Listed, ...]


class ListReply(_Inner, tag="list", frozen=True, kw_only=True):
    """Answers a list."""

    mid: Mid | UnsetType = UNSET
    data: ListData


class AboutData(_Data, frozen=True, kw_only=True):
    """Every stored fact on the asker, by its name."""

    facts: dict[str, Any]


class AboutReply(_Inner, tag="about", frozen=True, kw_only=True):
    """Answers an about."""

    mid: Mid | UnsetType = UNSET
    data: AboutData


Relayed = ClientConnect | ClientCom
FromClient = Ack | ClientConnect | ClientCom | Publish | Fetch | ListRequest | AboutRequest | Delete
FromServer = Ack | ClientConnect | ClientCom | BundleReply | ListReply | AboutReply | Error
Inner = FromClient | FromServer

_from_client: msgspec.msgpack.Decoder[FromClient] = msgspec.msgpack.Decoder(FromClient)
_from_server: msgspec.msgpack.Decoder[FromServer] = msgspec.msgpack.Decoder(FromServer)
_encoder = msgspec.msgpack.Encoder()
M = TypeVar("M")
_ERRORS = (msgspec.MsgspecError, RecursionError, UnicodeDecodeError, OverflowError)


def from_client(plaintext: bytes) -> FromClient:
    """The inner message that a client sends.

    :raises PeerError: ``malformed``.
    """
    return _read(_from_client, plaintext)


def from_server(plaintext: bytes) -> FromServer:
    """The inner message that a server sends.

    :raises PeerError: ``malformed``.
    """
    return _read(_from_server, plaintext)


class ComData(_Data, frozen=True, kw_only=True):
    """The ``data`` of a client-com, looked into."""

    header: bytes
    body: bytes


class Com(_Inner, tag="client-com", frozen=True, kw_only=True):
    """A :class:`ClientCom`, looked into."""

    src: Id
    dst: Id
    mid: Mid
    data: ComData


_common: msgspec.msgpack.Decoder[Ack | Com] = msgspec.msgpack.Decoder(Ack | Com)


def common(plaintext: bytes) -> Ack | Com | None:
    """One of the two commonest messages, if it is in its shortest form: encoded anew, it gives the same bytes.

    Then there is nothing in it that :func:`strictmsgpack.check` could refuse, and it can be passed on as it is.
    """
    try:
        found = _common.decode(plaintext)
    except _ERRORS:
        return None
    return found if _encoder.encode(found) == plaintext else None


def _read(decoder: msgspec.msgpack.Decoder[M], plaintext: bytes) -> M:
    if common(plaintext) is None:
        strictmsgpack.check(plaintext)
    try:
        found = decoder.decode(plaintext)
    except _ERRORS:
        # The library's own text quotes what was sent.
        raise malformed("not a known message, or one with a field that is missing or wrong") from None
    if isinstance(found, ClientConnect) and (found.phase == 1) is (found.ciphers is UNSET):
        raise malformed("a client-connect with a list of specs belongs to phase 1, and to no other")
    if isinstance(found, Fetch) and (found.data.id is UNSET) is (found.data.name is UNSET):
        raise malformed("a fetch is of an id or of a name")
    return found


def encode(message: Inner) -> bytes:
    """The MessagePack of an inner message."""
    return _encoder.encode(message)


def pack(value: object) -> Raw:
    """A value as it stands in ``data``, ``bundle`` or ``one_time_keys``."""
    return Raw(_encoder.encode(value))


class _Riding(Struct, frozen=True):
    message: Raw | UnsetType = UNSET


_riding = msgspec.msgpack.Decoder(_Riding)


def has_message(phase: ClientConnect) -> bool:
    """Whether something rides on a phase; True, too, where that cannot be made out."""
    try:
        return _riding.decode(phase.data).message is not UNSET
    except _ERRORS:
        return True
