"""The modern frames outside their sealed boxes: connect, secure, and an error in the clear (protocol.rst, "sims/2").

JSON like the seed's, byte fields in base64. Decoding is total, as in :mod:`sims.wire`, and as strict.
"""

from __future__ import annotations

from binascii import b2a_base64
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

import msgspec
from msgspec import Meta, Struct

from sims.errors import Code, PeerError, malformed
from sims.strictjson import Octets, Octets32, parse_json

#: What ends a frame, and how long one may be (bytes, without it).
TERMINATOR = b"\n\n"
MAX_FRAME = 96 * 1024
MAX_FRAME_BEFORE_SESSION = 8 * 1024

MAX_CIPHERS = 32
MAX_CIPHER_NAME = 64
_MAX_N = 2**64


class KemPublic(Octets):
    """An ML-KEM-768 public key."""

    sizes = (1184,)


class KemCiphertext(Octets):
    """An ML-KEM-768 ciphertext."""

    sizes = (1088,)


class _Frame(Struct, frozen=True, kw_only=True, tag_field="type"):
    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


class _Data(Struct, frozen=True, kw_only=True):
    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


class OfferData(_Data, frozen=True, kw_only=True):
    """What connect 1 carries."""

    version: int
    random: Octets32
    public_key: Octets32
    kem_public_key: KemPublic


class Connect1(_Frame, tag="connect", frozen=True, kw_only=True):
    """C→S: what I speak. ``name`` and ``id`` say nothing here: only the right server learns them, from phase 3."""

    phase: Literal[1] = 1
    name: str = ""
    id: str | int = ""
    ciphers: list[str]
    data: OfferData


class AnswerData(_Data, frozen=True, kw_only=True):
    """What connect 2 carries."""

    random: Octets32
    public_key: Octets32
    kem_ciphertext: KemCiphertext
    sealed: Octets


class Connect2(_Frame, tag="connect", frozen=True, kw_only=True):
    """S→C: what we speak, and who I am."""

    phase: Literal[2] = 2
    ciphers: str
    data: AnswerData


class SealedData(_Data, frozen=True, kw_only=True):
    """What connect 3 and 4 carry."""

    sealed: Octets


class Connect3(_Frame, tag="connect", frozen=True, kw_only=True):
    """C→S: who I am."""

    phase: Literal[3] = 3
    data: SealedData


class Connect4(_Frame, tag="connect", frozen=True, kw_only=True):
    """S→C: welcome, or not."""

    phase: Literal[4] = 4
    data: SealedData


class ClearErrorData(_Data, frozen=True, kw_only=True):
    """Why."""

    code: Annotated[str, Meta(max_length=64)]


class ClearError(_Frame, tag="error", frozen=True, kw_only=True):
    """In the clear, before phase 4: it closes, and proves nothing."""

    data: ClearErrorData


class _Number(_Data, frozen=True, kw_only=True):
    n: Annotated[int, Meta(ge=0)]


class _Payload(_Data, frozen=True, kw_only=True):
    ciphertext: Octets


class _Secure(_Frame, tag="secure", frozen=True, kw_only=True, rename={"sa_data": "sa-data"}):
    sa_data: _Number
    payload: _Payload


class Box(NamedTuple):
    """A ``secure``: the number of the message in its direction, and the ciphertext."""

    n: int
    ciphertext: bytes


Frame = Connect1 | Connect2 | Connect3 | Connect4 | ClearError | Box

_CONNECT: dict[object, type[Connect1 | Connect2 | Connect3 | Connect4]] = {
    1: Connect1,
    2: Connect2,
    3: Connect3,
    4: Connect4,
}

S = TypeVar("S", bound=Struct)


def _octets(kind: type[Any], value: object) -> object:
    if issubclass(kind, Octets):
        return kind.from_text(value)
    raise TypeError(f"no field is a {kind.__name__}")


def _convert(value: dict[str, Any], kind: type[S]) -> S:
    try:
        return msgspec.convert(value, kind, dec_hook=_octets)
    except (msgspec.ValidationError, ValueError, OverflowError):
        raise malformed("a frame with a field that is missing or wrong") from None


def decode(data: bytes) -> Frame:
    """The frame in ``data``, which is without its terminator.

    :raises PeerError: ``malformed``; ``too-large`` beyond :data:`MAX_FRAME`.
    """
    if len(data) > MAX_FRAME:
        raise PeerError(Code.TOO_LARGE, f"a frame of more than {MAX_FRAME} bytes")
    box = _read_box(data)
    if box is not None:
        return box
    value = parse_json(data)
    if not isinstance(value, dict):
        raise malformed("a frame is not a JSON object")
    match value.get("type"):
        case "secure":
            secure = _convert(value, _Secure)
            if secure.sa_data.n >= _MAX_N:
                raise malformed("a message number that is out of range")
            return Box(secure.sa_data.n, secure.payload.ciphertext)
        case "connect":
            phase = value.get("phase")
            kind = _CONNECT.get(phase) if type(phase) is int else None
            if kind is None:
                raise malformed("a connect of no known phase")
            connect = _convert(value, kind)
            if isinstance(connect, Connect1) and (
                len(connect.ciphers) > MAX_CIPHERS or any(len(name) > MAX_CIPHER_NAME for name in connect.ciphers)
            ):
                raise malformed("an offer of cipher specs that is too long")
            return connect
        case "error":
            return _convert(value, ClearError)
    raise malformed("a frame of no known type")


_BEGIN = b'{"type":"secure","sa-data":{"n":'
_MIDDLE = b'},"payload":{"ciphertext":"'
_END = b'"}}'


def _read_box(data: bytes) -> Box | None:
    """A ``secure`` that is spelled as :func:`encode_box` spells it, or None for what has to be looked at closely.

    There is one way to read these bytes: a number without a sign or a zero before it, and base64, in which no quotation
    mark can stand.
    """
    if not data.startswith(_BEGIN) or not data.endswith(_END):
        return None
    middle = data.find(_MIDDLE, len(_BEGIN), len(_BEGIN) + 48)
    number = data[len(_BEGIN) : middle]
    if (
        not 0 <= middle <= len(data) - len(_MIDDLE) - len(_END)
        or not number.isdigit()
        or len(number) > 19
        or (number[0] == _ZERO and len(number) > 1)
    ):
        return None
    quoted = data[middle + len(_MIDDLE) - 1 : 1 - len(_END)]
    try:
        ciphertext = _read_octets(quoted)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    odd = len(ciphertext) % 3
    if len(quoted) != (len(ciphertext) + 2) // 3 * 4 + 2:
        return None  # an escape in it is longer than what it stands for
    # The bits that padding leaves over have to be zero: the text is the one that these bytes have.
    if odd and quoted[odd - 5] not in (b"AQgw" if odd == 1 else b"AEIMQUYcgkosw048"):
        return None
    return Box(int(number), ciphertext)


_ZERO = ord("0")
_read_octets = msgspec.json.Decoder(bytes).decode  # in a third of the time that binascii takes


def _text(value: object) -> str:
    if isinstance(value, Octets):
        return b2a_base64(value, newline=False).decode("ascii")
    raise TypeError(f"no field is a {type(value).__name__}")


_encoder = msgspec.json.Encoder(enc_hook=_text)


def encode(frame: Connect1 | Connect2 | Connect3 | Connect4 | ClearError) -> bytes:
    """The JSON text of a frame, without its terminator."""
    return _encoder.encode(frame)


def encode_box(n: int, ciphertext: bytes) -> bytes:
    """The frame of a ``secure``, without its terminator."""
    # Written out: nothing in it needs an escape, and it is the commonest frame by far.
    return b'{"type":"secure","sa-data":{"n":%d},"payload":{"ciphertext":"%b"}}' % (
        n,
        b2a_base64(ciphertext, newline=False),
    )


def encode_error(code: Code) -> bytes:
    """The frame of an error in the clear, without its terminator."""
    return encode(ClearError(data=ClearErrorData(code=code.value)))
