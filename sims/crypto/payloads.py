"""What travels inside sealed boxes and is the crypto core's own: one frozen type for each, in MessagePack.

Handshakes and sessions take and give these; who frames messages decodes a ``data`` field into one with :func:`decode`
(from MessagePack) or :func:`convert` (from a map). Both are total: any input gives a value or a
:class:`~sims.errors.PeerError`. Unknown fields are ignored, missing and ill-typed ones are refused.
"""

from __future__ import annotations

from typing import Annotated, TypeVar

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from sims import strictmsgpack
from sims.errors import malformed

T = TypeVar("T")

Bytes8 = Annotated[bytes, Meta(min_length=8, max_length=8)]
Bytes16 = Annotated[bytes, Meta(min_length=16, max_length=16)]
Bytes32 = Annotated[bytes, Meta(min_length=32, max_length=32)]
Mac = Annotated[bytes, Meta(min_length=32, max_length=48)]
Signature = Annotated[bytes, Meta(min_length=64, max_length=64)]
KemPublic = Annotated[bytes, Meta(min_length=1184, max_length=1184)]
KemCiphertext = Annotated[bytes, Meta(min_length=1088, max_length=1088)]
U32 = Annotated[int, Meta(ge=0, lt=2**32)]
U64 = Annotated[int, Meta(ge=0)]
SpecName = Annotated[str, Meta(max_length=128)]
Specs = Annotated[tuple[SpecName, ...], Meta(max_length=64)]
#: Bounds, not rules: what a name or an invitation is, the server decides. They fit in a frame of connect.
Name = Annotated[str, Meta(max_length=512)]
Invite = Annotated[str, Meta(max_length=1024)]
Header = Annotated[bytes, Meta(min_length=69, max_length=2341)]
Body = Annotated[bytes, Meta(min_length=272, max_length=32_784)]


class _Quiet(Struct, frozen=True, kw_only=True):
    """What shows nothing of itself where it might be logged."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


# --- connect (protocol.rst, "connect") --------------------------------------------------------------------------------


class Offer(_Quiet, frozen=True, kw_only=True):
    """The ``data`` of connect 1."""

    version: U64
    random: Bytes32
    public_key: Bytes32
    kem_public_key: KemPublic


class Answer(_Quiet, frozen=True, kw_only=True):
    """The ``data`` of connect 2; ``sealed`` holds a :class:`ServerProof`."""

    random: Bytes32
    public_key: Bytes32
    kem_ciphertext: KemCiphertext
    sealed: bytes


class ServerProof(_Quiet, frozen=True, kw_only=True):
    """What sealed2 holds."""

    sign: Bytes32
    dh: Bytes32
    signature: Signature


class ClientProof(_Quiet, frozen=True, kw_only=True):
    """What sealed3 holds; ``name`` is a wish, the server's word is in :class:`Welcome`."""

    sign: Bytes32
    dh: Bytes32
    name: Name
    invite: Invite | UnsetType = UNSET
    epoch: U64 | UnsetType = UNSET
    signature: Signature


class Limits(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The limits that a client must know, each optional; bytes, messages and seconds."""

    frame: U32 | None = None
    mailbox: U32 | None = None
    sends: U32 | None = None
    burst: U32 | None = None
    rekey_messages: U32 | None = None
    rekey_seconds: U32 | None = None


class Welcome(_Quiet, frozen=True, kw_only=True):
    """What sealed4 holds when the server takes the client in.

    :ivar epoch: the highest that the server saw of this client before.
    """

    name: Name
    limits: Limits
    time: U64
    epoch: U64 | UnsetType = UNSET


class Refusal(_Quiet, frozen=True, kw_only=True):
    """What sealed4 holds when it doesn't."""

    error: Annotated[str, Meta(max_length=64)]


class Outcome(_Quiet, frozen=True, kw_only=True):
    """Either of the two, as it is read; :attr:`error` decides."""

    error: Annotated[str, Meta(max_length=64)] | UnsetType = UNSET
    name: Name | UnsetType = UNSET
    limits: Limits | UnsetType = UNSET
    time: U64 | UnsetType = UNSET
    epoch: U64 | UnsetType = UNSET


# --- rekey (protocol.rst, "secure") -----------------------------------------------------------------------------------


class Rekey1(_Quiet, frozen=True, kw_only=True):
    """C→S: the client's new keys."""

    public_key: Bytes32
    kem_public_key: KemPublic


class Rekey2(_Quiet, frozen=True, kw_only=True):
    """S→C: the server's."""

    public_key: Bytes32
    kem_ciphertext: KemCiphertext


class Rekey3(_Quiet, frozen=True, kw_only=True):
    """C→S: from now on."""


# --- client-connect and client-com ------------------------------------------------------------------------------------


class Message(_Quiet, frozen=True, kw_only=True):
    """A ratchet message: the ``data`` of client-com, and what rides on phases 1 to 3 of client-connect."""

    header: Header
    body: Body


class Phase1(_Quiet, frozen=True, kw_only=True):
    """A→B; of ``kem_prekey_id`` and ``one_time_id`` there is exactly one, and ``message`` is never left out."""

    spec: SpecName
    sign: Bytes32
    dh: Bytes32
    prekey_id: U32
    public_key: Bytes32
    kem_public_key: KemPublic
    kem_ciphertext: KemCiphertext
    kem_prekey_id: U32 | UnsetType = UNSET
    one_time_id: U32 | UnsetType = UNSET
    message: Message | UnsetType = UNSET


class Phase2(_Quiet, frozen=True, kw_only=True):
    """B→A."""

    public_key: Bytes32
    kem_ciphertext: KemCiphertext
    kem_public_key: KemPublic
    mac: Mac
    message: Message | UnsetType = UNSET


class Phase3(_Quiet, frozen=True, kw_only=True):
    """A→B."""

    mac: Mac
    message: Message | UnsetType = UNSET


class Phase4(_Quiet, frozen=True, kw_only=True):
    """B→A."""

    mac: Mac


#: The ``data`` of client-connect by its phase.
PHASES: dict[int, type[Phase1] | type[Phase2] | type[Phase3] | type[Phase4]] = {
    1: Phase1,
    2: Phase2,
    3: Phase3,
    4: Phase4,
}


# --- encoding ---------------------------------------------------------------------------------------------------------

_ERRORS = (msgspec.MsgspecError, RecursionError, UnicodeDecodeError, OverflowError)
_encoder = msgspec.msgpack.Encoder()


def encode(value: object) -> bytes:
    """MessagePack: a map in the order of the type's fields, everything in its shortest form."""
    return _encoder.encode(value)


def decode(kind: type[T], data: bytes) -> T:
    """The value of this type in MessagePack that somebody else has made.

    :raises PeerError: ``malformed``, also for what two parsers could read differently
        (:func:`sims.strictmsgpack.check`).
    """
    strictmsgpack.check(data)
    try:
        return msgspec.msgpack.decode(data, type=kind)
    except _ERRORS:
        raise malformed(f"not the MessagePack of a {kind.__name__}") from None


def convert(kind: type[T], value: object) -> T:
    """The value of this type in a map with raw byte fields.

    A map cannot show any more what :func:`decode` refuses: this is for one that stood in a larger message which
    ``strictmsgpack.check`` or ``strictjson`` has passed as a whole.

    :raises PeerError: ``malformed``.
    """
    try:
        return msgspec.convert(value, kind, builtin_types=(bytes,))
    except _ERRORS:
        raise malformed(f"not the fields of a {kind.__name__}") from None


class _SpecList(_Quiet, frozen=True, kw_only=True):
    names: Specs


def spec_list(value: object) -> tuple[str, ...]:
    """A list of specs: at most 64 names of at most 128 characters.

    :raises PeerError: ``malformed``.
    """
    return convert(_SpecList, {"names": value}).names
