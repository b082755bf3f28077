"""The only module that imports ``cryptography.hazmat``: thin, typed, strict.

Everything that a peer sends is checked here before it becomes a key.
"""

from __future__ import annotations

import hmac
import os
from base64 import b64encode
from binascii import Error as Base64Error
from binascii import a2b_base64
from typing import Literal, Protocol

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.decrepit.ciphers.modes import OFB
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from cryptography.hazmat.primitives.ciphers.modes import CTR
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from sims.errors import malformed

P384PrivateKey = ec.EllipticCurvePrivateKey
P384PublicKey = ec.EllipticCurvePublicKey

_P384 = ec.SECP384R1()
_ECDH = ec.ECDH()
_SHA256 = hashes.SHA256()

# A SubjectPublicKeyInfo of an uncompressed secp384r1 point is these 23 bytes, 04, and the two coordinates.
_SPKI_PREFIX = bytes.fromhex("3076301006072a8648ce3d020106052b81040022036200")
_POINT_SIZE = 97
_PEM_BEGIN = b"-----BEGIN PUBLIC KEY-----\n"
_PEM_END = b"\n-----END PUBLIC KEY-----\n"
_PEM_LINE = 64
PEM_SIZE = 215


class Entropy(Protocol):
    """Where randomness comes from; tests hand in their own."""

    def octets(self, size: int) -> bytes:
        """``size`` random bytes."""

    def p384(self) -> P384PrivateKey:
        """A fresh secp384r1 private key."""


class SystemEntropy:
    """The operating system's randomness."""

    def octets(self, size: int) -> bytes:
        """``size`` random bytes."""
        return os.urandom(size)

    def p384(self) -> P384PrivateKey:
        """A fresh secp384r1 private key."""
        return ec.generate_private_key(_P384)


def p384_to_pem(public: P384PublicKey) -> bytes:
    """The PEM text of a public key: 215 bytes, lines of 64 columns, a newline at the end."""
    body = b64encode(_SPKI_PREFIX + p384_point(public))
    lines = [body[start : start + _PEM_LINE] for start in range(0, len(body), _PEM_LINE)]
    return _PEM_BEGIN + b"\n".join(lines) + _PEM_END


def p384_point(public: P384PublicKey) -> bytes:
    """The uncompressed point, 97 bytes."""
    return public.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


def p384_from_pem(pem: bytes) -> tuple[P384PublicKey, bytes]:
    """A public key and its point (97 bytes) from the one PEM text that this key has.

    The text has a single spelling, so that a key cannot travel under two.

    :raises PeerError: ``malformed``: another spelling, another curve, or not a point of the curve.
    """
    if len(pem) != PEM_SIZE or not pem.startswith(_PEM_BEGIN) or not pem.endswith(_PEM_END):
        raise malformed("a public key is not the PEM text of a secp384r1 key")
    try:
        encoded = pem[len(_PEM_BEGIN) : -len(_PEM_END)]
        der = a2b_base64(encoded)
        point = der[len(_SPKI_PREFIX) :]
        if not der.startswith(_SPKI_PREFIX) or len(point) != _POINT_SIZE:
            raise malformed("a public key is not on secp384r1")
        lines = b64encode(der)
        if encoded != b"\n".join((lines[:_PEM_LINE], lines[_PEM_LINE : 2 * _PEM_LINE], lines[2 * _PEM_LINE :])):
            raise malformed("a public key is not in its one PEM form")
        return P384PublicKey.from_encoded_point(_P384, point), point
    except (Base64Error, ValueError):
        raise malformed("a public key is not a point of secp384r1") from None


def p384_exchange(private: P384PrivateKey, public: P384PublicKey) -> bytes:
    """The shared x-coordinate, 48 bytes."""
    return private.exchange(_ECDH, public)


def p384_private_from_pem(pem: bytes) -> P384PrivateKey:
    """A PKCS #8 private key, for the replaying of transcripts.

    :raises ValueError: when it is not one of secp384r1.
    """
    try:
        key = load_pem_private_key(pem, None)
    except (TypeError, UnsupportedAlgorithm):  # an encrypted key, one of an unknown kind
        raise ValueError("not a secp384r1 private key") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name != _P384.name:
        raise ValueError("not a secp384r1 private key")
    return key


def p384_private_to_pem(private: P384PrivateKey) -> bytes:
    """The PKCS #8 text of a private key, for the making of transcripts."""
    return private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def hkdf_sha256(secret: bytes, salt: bytes, info: bytes, size: int) -> bytes:
    """HKDF (RFC 5869) with SHA-256."""
    return HKDF(_SHA256, size, salt, info).derive(secret)


def mac(key: bytes, data: bytes, hash_name: Literal["sha256", "sha384"]) -> bytes:
    """HMAC (RFC 2104): 32 or 48 bytes."""
    return hmac.digest(key, data, hash_name)


#: Comparison in constant time.
same = hmac.compare_digest


def aes_stream(key: bytes, iv: bytes, mode: Literal["CTR", "OFB"], data: bytes) -> bytes:
    """AES-256 as a stream cipher: the same call encrypts and decrypts. ``iv`` is the initial block, 16 bytes."""
    context = Cipher(algorithms.AES(key), CTR(iv) if mode == "CTR" else OFB(iv)).encryptor()
    return context.update(data) + context.finalize()
