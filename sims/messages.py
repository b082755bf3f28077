"""Every message of the seed as one frozen type (seed.rst, "The seed"): what travels, and in which fields.

:mod:`sims.wire` turns bytes into these and these into bytes.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Protocol, Self

from msgspec import UNSET, Meta, Struct, UnsetType

from sims.strictjson import Digest, Octets, Octets16, Octets32, Pem


class BoxFields(Protocol):
    """A sealed box, whoever sealed it."""

    @property
    def hash(self) -> bytes:
        """The MAC, 32 or 48 bytes."""

    @property
    def iv(self) -> bytes:
        """16 bytes."""

    @property
    def random(self) -> bytes:
        """The sender's new random, 32 bytes."""

    @property
    def ciphertext(self) -> bytes:
        """As long as the plaintext."""

    @property
    def public_key(self) -> bytes:
        """The sender's new public key, PEM, 215 bytes."""


# --- top-level messages -----------------------------------------------------------------------------------------------


class Ack(Struct, tag_field="type", tag="ack", frozen=True):
    """S→C, for every object received whose type is not ``ack``, before it is processed."""


class _Connect(Struct, tag_field="type", tag="connect", frozen=True, kw_only=True):
    phase: int


class Connect1(_Connect, tag="connect", frozen=True, kw_only=True):
    """C→S: who I am and what I speak."""

    phase: Literal[1] = 1
    name: str
    id: int
    ciphers: list[str]
    data: dict[str, Any] = {}


class Connect2(_Connect, tag="connect", frozen=True, kw_only=True):
    """S→C: what we speak."""

    phase: Literal[2] = 2
    ciphers: str
    data: dict[str, Any] = {}


class ClientKeys(Struct, frozen=True, kw_only=True):
    """The ``data`` of connect 3."""

    public_key: Pem
    client_random: Octets32


class ServerKeys(Struct, frozen=True, kw_only=True):
    """The ``data`` of connect 4."""

    public_key: Pem
    server_random: Octets32


class Connect3(_Connect, tag="connect", frozen=True, kw_only=True):
    """C→S: my key and random."""

    phase: Literal[3] = 3
    name: str
    id: int
    ciphers: str
    data: ClientKeys


class Connect4(_Connect, tag="connect", frozen=True, kw_only=True):
    """S→C: my key and random."""

    phase: Literal[4] = 4
    ciphers: str
    data: ServerKeys


class SaData(Struct, frozen=True, kw_only=True):
    """How a ``secure`` is sealed."""

    hash: Digest
    iv: Octets16
    random: Octets32


class Payload(Struct, frozen=True, kw_only=True):
    """What a ``secure`` carries."""

    ciphertext: Octets
    public_key: Pem


class Secure(Struct, tag_field="type", tag="secure", frozen=True, rename={"sa_data": "sa-data"}, kw_only=True):
    """Both directions: one inner message, sealed."""

    sa_data: SaData
    payload: Payload

    @property
    def box(self) -> SealedBox:
        """The five fields flat, as the sessions take them."""
        sealed, payload = self.sa_data, self.payload
        return SealedBox(
            hash=sealed.hash,
            iv=sealed.iv,
            random=sealed.random,
            ciphertext=payload.ciphertext,
            public_key=payload.public_key,
        )

    @classmethod
    def of(cls, box: BoxFields) -> Self:
        """The message that carries a box."""
        return cls(
            sa_data=SaData(hash=Digest(box.hash), iv=Octets16(box.iv), random=Octets32(box.random)),
            payload=Payload(ciphertext=Octets(box.ciphertext), public_key=Pem(box.public_key)),
        )


Message = Ack | Connect1 | Connect2 | Connect3 | Connect4 | Secure


# --- inner messages ---------------------------------------------------------------------------------------------------


class SealedBox(Struct, frozen=True, kw_only=True):
    """The ``data`` of client-com."""

    hash: Digest
    iv: Octets16
    public_key: Pem
    ciphertext: Octets
    random: Octets32

    @classmethod
    def of(cls, box: BoxFields) -> Self:
        """The fields of a box."""
        return cls(
            hash=Digest(box.hash),
            iv=Octets16(box.iv),
            public_key=Pem(box.public_key),
            ciphertext=Octets(box.ciphertext),
            random=Octets32(box.random),
        )


class ListRequest(Struct, tag_field="type", tag="list", frozen=True, kw_only=True):
    """C→S: who is here?"""


class ListEntry(Struct, frozen=True, kw_only=True):
    """One client of a list reply."""

    name: str
    id: int
    level: int = 0


class ListReply(Struct, tag_field="type", tag="list", frozen=True, kw_only=True):
    """S→C: they are."""

    data: list[ListEntry]


class PeerKeys(Struct, frozen=True, kw_only=True):
    """The ``data`` of client-connect 3 and 4."""

    public_key: Pem
    random: Octets32


class _Relayed(Struct, tag_field="type", frozen=True, kw_only=True):
    src: int | str
    dst: int | str


class ClientConnect1(_Relayed, tag="client-connect", frozen=True, kw_only=True):
    """I→R: what I speak, in order of preference."""

    phase: Literal[1] = 1
    ciphers: list[str]
    data: dict[str, Any] = {}


class ClientConnect2(_Relayed, tag="client-connect", frozen=True, kw_only=True):
    """R→I: the first of yours that I speak."""

    phase: Literal[2] = 2
    ciphers: str
    data: dict[str, Any] = {}


class ClientConnect3(_Relayed, tag="client-connect", frozen=True, kw_only=True):
    """I→R: my key and random."""

    phase: Literal[3] = 3
    ciphers: str
    data: PeerKeys


class ClientConnect4(_Relayed, tag="client-connect", frozen=True, kw_only=True):
    """R→I: my key and random."""

    phase: Literal[4] = 4
    data: PeerKeys


class ClientCom(_Relayed, tag="client-com", frozen=True, kw_only=True):
    """A text, sealed between the two clients; the plaintext is its JSON string."""

    data: SealedBox


class ClientAck(_Relayed, tag="ack", frozen=True, kw_only=True):
    """The receiver of a client-com with non-empty text says so."""

    data: None = None


class ClientDisconnect(_Relayed, tag="client-disconnect", frozen=True, kw_only=True):
    """The conversation is over."""

    data: dict[str, Any] = {}


class Error(Struct, tag_field="type", tag="error", frozen=True, kw_only=True, omit_defaults=True):
    """Something was refused: by the server (no ``src``), or by the client ``src``."""

    code: str
    src: int | str | UnsetType = UNSET
    dst: int | str | UnsetType = UNSET


ClientConnect = ClientConnect1 | ClientConnect2 | ClientConnect3 | ClientConnect4
Relayed = ClientConnect | ClientCom | ClientAck | ClientDisconnect
FromClient = ListRequest | Relayed | Error
FromServer = ListReply | Relayed | Error
InnerMessage = ListRequest | ListReply | Relayed | Error


# --- the same again, with plain bytes ---------------------------------------------------------------------------------
#
# For the commonest messages, which the library then reads and writes without a call back for each field. Whether base64
# was in its one form is for the reader to see (:func:`sims.wire.read_box`).

_Mac = Annotated[bytes, Meta(min_length=32, max_length=48)]
_Bytes16 = Annotated[bytes, Meta(min_length=16, max_length=16)]
_Bytes32 = Annotated[bytes, Meta(min_length=32, max_length=32)]
_PemBytes = Annotated[bytes, Meta(min_length=215, max_length=215)]


class PlainSaData(Struct, frozen=True):
    """As :class:`SaData`."""

    hash: _Mac
    iv: _Bytes16
    random: _Bytes32


class PlainPayload(Struct, frozen=True):
    """As :class:`Payload`."""

    ciphertext: bytes
    public_key: _PemBytes


class PlainSecure(Struct, tag_field="type", tag="secure", frozen=True, rename={"sa_data": "sa-data"}):
    """As :class:`Secure`."""

    sa_data: PlainSaData
    payload: PlainPayload


class PlainBox(Struct, frozen=True):
    """The five fields of a box, of the sizes that :class:`SealedBox` has."""

    hash: _Mac
    iv: _Bytes16
    public_key: _PemBytes
    ciphertext: bytes
    random: _Bytes32


class PlainCom(Struct, tag_field="type", tag="client-com", frozen=True):
    """A :class:`ClientCom` that is passed on."""

    src: int | str
    dst: int | str
    data: PlainBox
