"""Bytes to messages and messages to bytes; the limits.

Decoding is total: for any bytes it returns a message or raises a :class:`~sims.errors.PeerError` with a code. A frame
is checked as JSON first (:func:`parse`: UTF-8, no duplicate keys, no NaN, bounded depth) and then as a message
(:func:`message`, :func:`from_client`, :func:`from_server`). Unknown keys are ignored; what is relayed is encoded anew
from its type, so that two parsers can never read one frame differently.
"""

from __future__ import annotations

import json
import re
from binascii import b2a_base64
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from sims.errors import Code, PeerError, malformed
from sims.messages import (
    Ack,
    BoxFields,
    ClientAck,
    ClientCom,
    ClientConnect,
    ClientConnect1,
    ClientConnect2,
    ClientConnect3,
    ClientConnect4,
    ClientDisconnect,
    Connect1,
    Connect2,
    Connect3,
    Connect4,
    Error,
    FromClient,
    FromServer,
    InnerMessage,
    ListEntry,
    ListReply,
    ListRequest,
    Message,
    Payload,
    PlainBox,
    PlainCom,
    PlainPayload,
    PlainSaData,
    PlainSecure,
    SaData,
    Secure,
)
from sims.strictjson import Digest, Octets, Octets16, Octets32, Pem, parse_json

#: What ends a frame, and how long one may be (bytes, without the terminator; seed.rst, "Framing").
TERMINATOR = b"\n\n"
MAX_FRAME = 65_536
MAX_FRAME_BEFORE_SESSION = 8_192

#: A name in a frame: characters, and bytes of its JSON string (or a list reply could not hold it).
MAX_NAME = 128
MAX_NAME_JSON = 800
_MAX_CIPHERS = 32
_MAX_CIPHER_NAME = 64

_DECIMAL = re.compile(r"-?[0-9]{1,18}", re.ASCII)
_MAX_ID = 10**18

M = TypeVar("M", bound=Struct)


# --- values -----------------------------------------------------------------------------------------------------------


def as_id(value: int | str) -> int:
    """An endpoint as a number: the seed writes the same id now as int, now as str.

    :raises PeerError: ``malformed``.
    """
    if isinstance(value, str):
        if not _DECIMAL.fullmatch(value):
            raise malformed("an id is not a number")
        return int(value)
    if not -_MAX_ID < value < _MAX_ID:
        raise malformed("an id is out of range")
    return value


_CONNECT: dict[object, type[Message]] = {1: Connect1, 2: Connect2, 3: Connect3, 4: Connect4}
_CLIENT_CONNECT: dict[object, type[ClientConnect]] = {
    1: ClientConnect1,
    2: ClientConnect2,
    3: ClientConnect3,
    4: ClientConnect4,
}


# --- decoding ---------------------------------------------------------------------------------------------------------


def parse(data: bytes) -> dict[str, Any]:
    """The JSON object in ``data``, checked for what two parsers could read differently.

    :raises PeerError: ``malformed``; ``too-large`` beyond :data:`MAX_FRAME`.
    """
    if len(data) > MAX_FRAME:
        raise PeerError(Code.TOO_LARGE, f"a frame of more than {MAX_FRAME} bytes")
    value = parse_json(data)
    if not isinstance(value, dict):
        raise malformed("a frame is not a JSON object")
    return value


def parse_text(data: bytes) -> str:
    """The text in the plaintext of a client-com: a JSON string.

    :raises PeerError: ``malformed``.
    """
    value = parse_json(data)
    if not isinstance(value, str):
        raise malformed("the plaintext of a client-com is not a JSON string")
    return value


def encode_text(text: str) -> bytes:
    """The plaintext of a client-com: the JSON string of the text, in ASCII."""
    return json.dumps(text).encode("ascii")


def _octets(kind: type[Any], value: object) -> object:
    if issubclass(kind, Octets):
        return kind.from_text(value)
    raise TypeError(f"no field is a {kind.__name__}")


def _convert(value: dict[str, Any], kind: type[M]) -> M:
    try:
        return msgspec.convert(value, kind, dec_hook=_octets)
    except msgspec.ValidationError:
        # The library's own text quotes what was sent; what a peer wrote stays out of errors.
        raise malformed(f"not a valid {_kind_name(value)}") from None


def _kind_name(value: dict[str, Any]) -> str:
    kind, phase = value.get("type"), _phase(value)
    if not isinstance(kind, str) or kind not in {"connect", "secure", "list", "client-connect", *_INNER}:
        return "message"
    return f"{kind} {phase}" if phase in (1, 2, 3, 4) else f"{kind}"


def _phase(value: dict[str, Any]) -> object:
    # JSON's true is not 1, though Python's is.
    phase = value.get("phase")
    return phase if type(phase) is int else None


def _check_offer(offer: list[str]) -> None:
    if len(offer) > _MAX_CIPHERS or any(len(name) > _MAX_CIPHER_NAME for name in offer):
        raise malformed("an offer of cipher specs that is too long")


def message(value: dict[str, Any]) -> Message:
    """The top-level message in a parsed object.

    :raises PeerError: ``malformed``; ``name-invalid`` for a name of more than :data:`MAX_NAME` characters.
    """
    match value.get("type"):
        case "secure":
            return _convert(value, Secure)
        case "ack":
            return Ack()
        case "connect":
            kind = _CONNECT.get(_phase(value))
            if kind is None:
                raise malformed("a connect of no known phase")
            connect = _convert(value, kind)
            if isinstance(connect, Connect1 | Connect3):
                as_id(connect.id)
                if len(connect.name) > MAX_NAME or len(json.dumps(connect.name)) > MAX_NAME_JSON:
                    raise PeerError(Code.NAME_INVALID, f"a name of more than {MAX_NAME} characters")
            if isinstance(connect, Connect1):
                _check_offer(connect.ciphers)
            return connect
    raise malformed("a message of no known type")


def decode(data: bytes) -> Message:
    """The top-level message in a frame (without its terminator).

    :raises PeerError: as :func:`parse` and :func:`message` do.
    """
    return message(parse(data))


_INNER: dict[object, type[InnerMessage]] = {
    "client-com": ClientCom,
    "ack": ClientAck,
    "client-disconnect": ClientDisconnect,
    "error": Error,
}


def _inner(value: dict[str, Any], listing: type[InnerMessage]) -> InnerMessage:
    name = value.get("type")
    if not isinstance(name, str):
        raise malformed("an inner message of no known type")
    kind: type[InnerMessage] | None
    if name == "list":
        kind = listing
    elif name == "client-connect":
        kind = _CLIENT_CONNECT.get(_phase(value))
    else:
        kind = _INNER.get(name)
    if kind is None:
        raise malformed("an inner message of no known type")
    found = _convert(value, kind)
    if isinstance(found, ClientConnect1):
        _check_offer(found.ciphers)
    return found


def from_client(value: dict[str, Any]) -> FromClient:
    """The inner message that a client sends, in a parsed object.

    :raises PeerError: ``malformed``.
    """
    found = _inner(value, ListRequest)
    if isinstance(found, ListReply):
        raise malformed("a list reply from a client")
    return found


def from_server(value: dict[str, Any]) -> FromServer:
    """The inner message that a server sends, in a parsed object.

    :raises PeerError: ``malformed``.
    """
    found = _inner(value, ListReply)
    if isinstance(found, ListRequest):
        raise malformed("a list request from a server")
    return found


# What follows reads the commonest messages in one pass. A text without a backslash that has exactly the quotation marks
# which the keys and values of its type need holds no key twice and none that is unknown, so that :func:`parse` would
# find nothing more to refuse. Whatever is otherwise takes the long way, which says what is wrong with it.

# (Of a single type the library would not ask for the key "type".)
_secure_or_ack = msgspec.json.Decoder(PlainSecure | Ack)
_com_or_ack = msgspec.json.Decoder(PlainCom | ClientAck)
_SECURE_QUOTES = 2 * (8 + 6)
_COM_QUOTES = 2 * (9 + 6)
_ACK_QUOTES = 2 * (4 + 1)


def read_box(frame: bytes) -> PlainBox | None:
    """The box of the ``secure`` in a frame, or None for a frame that :func:`parse` and :func:`message` have to see."""
    if b"\\" in frame or frame.count(b'"') != _SECURE_QUOTES or not _base64_ends_well(frame):
        return None
    try:
        found = _secure_or_ack.decode(frame)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    if not isinstance(found, PlainSecure) or len(found.sa_data.hash) not in Digest.sizes:
        return None
    sealed, payload = found.sa_data, found.payload
    return PlainBox(sealed.hash, sealed.iv, payload.public_key, payload.ciphertext, sealed.random)


def read_relayed(data: bytes) -> PlainCom | ClientAck | None:
    """The client-com or ack in a plaintext, or None for what :func:`parse` and :func:`from_client` have to see."""
    if b"\\" in data or not _base64_ends_well(data):
        return None
    try:
        found = _com_or_ack.decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    if isinstance(found, PlainCom):
        if len(found.data.hash) not in Digest.sizes:
            return None
        needed = _COM_QUOTES
    elif data.count(b'"data":') == 1:  # where it is missing, there is room for another key
        needed = _ACK_QUOTES
    else:
        return None
    strings = isinstance(found.src, str) + isinstance(found.dst, str)
    return found if data.count(b'"') == needed + 2 * strings else None


def secure_frame(box: BoxFields) -> bytes:
    """The frame of the ``secure`` that carries a box, without a terminator."""
    sa_data = PlainSaData(box.hash, box.iv, box.random)
    return _encoder.encode(PlainSecure(sa_data, PlainPayload(box.ciphertext, box.public_key)))


def _base64_ends_well(data: bytes) -> bool:
    """Whether every string that ends with padding has zeros in the bits that padding leaves over."""
    return _ENDS_BADLY.search(data) is None


#: The end of such a string, looked for forwards and then looked at backwards: it is only two bytes that are looked for.
_ENDS_BADLY = re.compile(rb'="(?<![AEIMQUYcgkosw048]=")(?<![AQgw]==")')


# --- encoding ---------------------------------------------------------------------------------------------------------


def _text(value: object) -> str:
    if isinstance(value, Octets):
        return b2a_base64(value, newline=False).decode("ascii")
    raise TypeError(f"no field is a {type(value).__name__}")


_encoder = msgspec.json.Encoder(enc_hook=_text)


def encode(sent: Message | InnerMessage | PlainCom) -> bytes:
    """The JSON text of a message, in ASCII, without a terminator."""
    data = _encoder.encode(sent)
    if data.isascii():
        return data
    return json.dumps(json.loads(data), separators=(",", ":")).encode("ascii")


def _secure_size(plaintext: int, mac: int) -> int:
    """How long the frame is that carries so many bytes of plaintext under a MAC of so many bytes."""
    return _SECURE_EMPTY + (mac + 2) // 3 * 4 + (plaintext + 2) // 3 * 4


_SECURE_EMPTY = len(
    encode(
        Secure(
            sa_data=SaData(hash=Digest(), iv=Octets16(bytes(16)), random=Octets32(bytes(32))),
            payload=Payload(ciphertext=Octets(), public_key=Pem(bytes(215))),
        )
    )
)

#: The longest plaintext that fits in a frame, whatever the spec; the longest text (as JSON) that does, sealed twice.
MAX_INNER = (MAX_FRAME - _secure_size(0, 48)) // 4 * 3
MAX_TEXT = (MAX_INNER - 640) // 4 * 3

#: The original client reads with one ``recv(2048)``: what it is sent at once must not be longer.
ORIGINAL_READS = 2048
#: The longest list reply that the format knows, for any spec.
MAX_LIST_REPLY = 1146


def list_reply(entries: list[ListEntry], mac: int) -> bytes:
    """A list reply whose frame, behind an ack, the original client can read: the entries from the first that fit.

    :param mac: the size of the session's MAC, bytes.
    """
    room = ORIGINAL_READS - 2 * len(TERMINATOR) - len(encode(Ack())) - _secure_size(0, mac)
    limit = min(MAX_LIST_REPLY, room // 4 * 3)
    kept: list[ListEntry] = []
    size = len(encode(ListReply(data=[])))
    for entry in entries:
        more = len(_encode_entry(entry)) + (1 if kept else 0)
        if size + more <= limit:
            size += more
            kept.append(entry)
    return encode(ListReply(data=kept))


def _encode_entry(entry: ListEntry) -> bytes:
    return json.dumps(msgspec.to_builtins(entry), separators=(",", ":")).encode("ascii")
