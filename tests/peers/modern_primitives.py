"""The primitives of sims/2, made from the protocol page alone, for the other modern_* modules.

Names in quotes in the docstrings are sections of the protocol page.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import struct
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

Map = dict[str, Any]

AES = "X25519MLKEM768-AES256_GCM-SHA384"
CHACHA = "X25519MLKEM768-CHACHA20_POLY1305-SHA256"

KEM_PUBLIC, KEM_CIPHERTEXT, KEY = 1_184, 1_088, 32
CONTENT_LIMIT, BOX_LIMIT, BOX_BLOCK = 32_768, 65_536, 512

_P = 2**255 - 19
# The y coordinates of the eight points of small order of Ed25519, modulo p.
_SMALL_ORDER = {
    0,
    1,
    _P - 1,
    *(
        int.from_bytes(bytes.fromhex(y), "little")
        for y in (
            "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
            "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        )
    ),
}


class RefusedError(Exception):
    """The other end broke the protocol, or refused; no state has moved. `code` is one of "Limits and failure"."""

    def __init__(self, code: str, why: str = "") -> None:
        super().__init__(f"{code}: {why}" if why else code)
        self.code = code


class DuplicateError(RefusedError):
    """A message that was opened before: acknowledged, and silent."""


# "Notation"


def lp(*parts: bytes | str) -> bytes:
    """LP(a, b, ...)."""
    raw = [part.encode() if isinstance(part, str) else part for part in parts]
    return b"".join(struct.pack(">I", len(part)) + part for part in raw)


def u32(number: int) -> bytes:
    return struct.pack(">I", number)


def u64(number: int) -> bytes:
    return struct.pack(">Q", number)


class Suite(NamedTuple):
    """A cipher spec: its AEAD, its hash, and what is built of the hash."""

    name: str
    aead: type[AESGCM] | type[ChaCha20Poly1305]
    algorithm: str

    def hash(self, data: bytes) -> bytes:
        return hashlib.new(self.algorithm, data).digest()

    def hmac(self, key: bytes, data: bytes) -> bytes:
        return hmac.digest(key, data, self.algorithm)

    def expand(self, key: bytes, info: bytes, length: int) -> bytes:
        out, block, count = b"", b"", 1
        while len(out) < length:
            block = self.hmac(key, block + info + bytes([count]))
            out, count = out + block, count + 1
        return out[:length]

    def labelled(self, key: bytes, label: str, context: bytes, length: int) -> bytes:
        """E(k, label, ctx, n)."""
        return self.expand(key, lp("sims/2 " + label) + context, length)

    def hkdf(self, salt: bytes, ikm: bytes, info: bytes, length: int) -> bytes:
        return self.expand(self.hmac(salt, ikm), info, length)

    def seal(self, key: bytes, nonce: bytes, ad: bytes, plain: bytes) -> bytes:
        return self.aead(key).encrypt(nonce, plain, ad)

    def open(self, key: bytes, nonce: bytes, ad: bytes, box: bytes) -> bytes:
        try:
            return self.aead(key).decrypt(nonce, box, ad)
        except (InvalidTag, ValueError):
            raise RefusedError("not-authenticated", "a box that does not verify") from None


SUITES = {AES: Suite(AES, AESGCM, "sha384"), CHACHA: Suite(CHACHA, ChaCha20Poly1305, "sha256")}
DEFAULT_SPECS = (AES, CHACHA)


def split(keys: bytes) -> list[bytes]:
    """Keys split from one output."""
    return [keys[at : at + KEY] for at in range(0, len(keys), KEY)]


def choose(preferred: Sequence[str], offered: Sequence[str]) -> str:
    """The first of `preferred` that is in `offered`, or no-common-spec."""
    for spec in preferred:
        if spec in offered and spec in SUITES:
            return spec
    raise RefusedError("no-common-spec")


# Keys, and the random inputs of a step.


def x25519_public(private: bytes) -> bytes:
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def dh(private: bytes, public: bytes) -> bytes:
    """DH; an all-zero result is refused."""
    try:
        return X25519PrivateKey.from_private_bytes(private).exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError:
        raise RefusedError("malformed", "not a usable X25519 key") from None


def kem_public(seed: bytes) -> bytes:
    return MLKEM768PrivateKey.from_seed_bytes(seed).public_key().public_bytes_raw()


def decapsulate(seed: bytes, ciphertext: bytes) -> bytes:
    try:
        return MLKEM768PrivateKey.from_seed_bytes(seed).decapsulate(ciphertext)
    except ValueError:
        raise RefusedError("malformed", "not a ciphertext of ML-KEM-768") from None


class Draws:
    """Where random inputs come from; `label` says what for. Tests give their own."""

    def x25519(self, label: str) -> bytes:
        return self.random(label, KEY)

    def kem_seed(self, label: str) -> bytes:
        return self.random(label, 64)

    def random(self, label: str, length: int) -> bytes:
        return os.urandom(length)

    def encapsulate(self, label: str, public: bytes) -> tuple[bytes, bytes]:
        """Ciphertext and secret."""
        try:
            secret, ciphertext = MLKEM768PublicKey.from_public_bytes(public).encapsulate()
        except ValueError:
            raise RefusedError("malformed", "not a public key of ML-KEM-768") from None
        return ciphertext, secret


class GivenDraws(Draws):
    """Draws of the vectors: hex by label; an encapsulation is given with its secret."""

    def __init__(self, given: Mapping[str, Any]) -> None:
        self.given = given

    def random(self, label: str, length: int) -> bytes:
        value = bytes.fromhex(self.given[label])
        if len(value) != length:
            raise ValueError(f"{label} has {len(value)} bytes")
        return value

    def encapsulate(self, label: str, public: bytes) -> tuple[bytes, bytes]:
        super().encapsulate(label, public)
        return bytes.fromhex(self.given[label]["ciphertext"]), bytes.fromhex(self.given[label]["secret"])


def sign(private: bytes, purpose: str, message: bytes) -> bytes:
    return Ed25519PrivateKey.from_private_bytes(private).sign(_signed(purpose, message))


def verify(public: bytes, purpose: str, message: bytes, signature: bytes) -> None:
    """Refuse a signature that does not verify, and any by a key of small order."""
    if (int.from_bytes(public, "little") & (2**255 - 1)) % _P in _SMALL_ORDER:
        raise RefusedError("not-authenticated", "a key of small order")
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, _signed(purpose, message))
    except (InvalidSignature, ValueError):
        raise RefusedError("not-authenticated", "a signature that does not verify") from None


def _signed(purpose: str, message: bytes) -> bytes:
    return b"sims/2 " + purpose.encode() + b"\0" + message


def ed25519_public(private: bytes) -> bytes:
    return Ed25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


# "Padding"


def _padded_length(length: int, limit: int) -> int:
    if limit == BOX_LIMIT:
        size = -(-length // BOX_BLOCK) * BOX_BLOCK
    else:
        size = 256
        while size < length:
            size *= 2
    if size > limit:
        raise RefusedError("too-large", f"{length - 1} bytes")
    return size


def pad(plain: bytes, limit: int) -> bytes:
    """As content (CONTENT_LIMIT) or as a box (BOX_LIMIT)."""
    return (plain + b"\x80").ljust(_padded_length(len(plain) + 1, limit), b"\0")


def unpad(padded: bytes, limit: int) -> bytes:
    """The inverse; anything but what `pad` makes is refused."""
    bare = padded.rstrip(b"\0")
    if not bare.endswith(b"\x80") or _padded_length(len(bare), limit) != len(padded):
        raise RefusedError("malformed", "padding")
    return bare[:-1]


# "Encoding"


def pack(value: Any) -> bytes:
    return msgspec.msgpack.encode(value)


def unpack(raw: bytes) -> Map:
    """A MessagePack map with text keys, or refused."""
    try:
        value = msgspec.msgpack.decode(raw)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        raise RefusedError("malformed", "not MessagePack") from None
    return as_map(value)


def as_map(value: Any) -> Map:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise RefusedError("malformed", "not a map")
    return value


def raw_field(data: Any, name: str, length: int | None = None) -> bytes:
    """A byte field of that length, or refused."""
    value = as_map(data).get(name)
    if not isinstance(value, bytes) or (length is not None and len(value) != length):
        raise RefusedError("malformed", name)
    return value


def text_field(data: Any, name: str) -> str:
    value = as_map(data).get(name)
    if not isinstance(value, str):
        raise RefusedError("malformed", name)
    return value


def number_field(data: Any, name: str) -> int:
    """A number that is not negative, or refused."""
    value = as_map(data).get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**64:
        raise RefusedError("malformed", name)
    return value


def texts_field(data: Any, name: str) -> list[str]:
    value = as_map(data).get(name)
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise RefusedError("malformed", name)
    return value
