"""The only module that imports ``cryptography.hazmat``: thin, typed, strict.

Everything that a peer sends is checked here before it becomes a key.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from binascii import Error as Base64Error
from binascii import a2b_base64, b2a_base64
from collections.abc import Callable
from functools import lru_cache
from importlib import import_module
from typing import Any, Literal, NamedTuple, Protocol

from cryptography.exceptions import InvalidSignature, InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.decrepit.ciphers.modes import OFB
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.ciphers.modes import CTR
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from sims.errors import Code, LocalError, PeerError, malformed

HashName = Literal["sha256", "sha384"]
AeadName = Literal["AES256_GCM", "CHACHA20_POLY1305"]

P384PrivateKey = ec.EllipticCurvePrivateKey
P384PublicKey = ec.EllipticCurvePublicKey

_P384 = ec.SECP384R1()
_ECDH = ec.ECDH()

# A SubjectPublicKeyInfo of an uncompressed secp384r1 point is these 23 bytes, 04, and the two coordinates.
_SPKI_PREFIX = bytes.fromhex("3076301006072a8648ce3d020106052b81040022036200")
_POINT_SIZE = 97
_PEM_BEGIN = b"-----BEGIN PUBLIC KEY-----\n"
_PEM_END = b"\n-----END PUBLIC KEY-----\n"
PEM_SIZE = 215


class Entropy(Protocol):
    """Where randomness comes from; tests hand in their own."""

    def octets(self, size: int) -> bytes:
        """``size`` random bytes."""

    def p384(self) -> P384PrivateKey:
        """A fresh secp384r1 private key."""


class ModernEntropy(Protocol):
    """Where the modern protocol's randomness comes from; tests hand in their own keys and encapsulations."""

    def octets(self, size: int) -> bytes:
        """``size`` random bytes."""

    def x25519(self) -> X25519Key:
        """A fresh X25519 key."""

    def mlkem768(self) -> KemKey:
        """A fresh ML-KEM-768 key."""

    def encapsulate(self, public: bytes) -> Encapsulation:
        """A fresh secret for the holder of an ML-KEM-768 key; as :func:`encapsulate`."""


class SystemEntropy:
    """The operating system's randomness."""

    def octets(self, size: int) -> bytes:
        """``size`` random bytes."""
        return os.urandom(size)

    def p384(self) -> P384PrivateKey:
        """A fresh secp384r1 private key."""
        return ec.generate_private_key(_P384)

    def x25519(self) -> X25519Key:
        """A fresh X25519 key."""
        return X25519Key(os.urandom(X25519_SIZE))

    def mlkem768(self) -> KemKey:
        """A fresh ML-KEM-768 key."""
        return KemKey(os.urandom(KEM_SEED_SIZE))

    def encapsulate(self, public: bytes) -> Encapsulation:
        """A fresh secret for the holder of an ML-KEM-768 key."""
        return encapsulate(public)


def p384_to_pem(public: P384PublicKey) -> bytes:
    """The PEM text of a public key: 215 bytes, lines of 64 columns, a newline at the end."""
    body = b2a_base64(_SPKI_PREFIX + p384_point(public), newline=False)
    return b"%b%b\n%b\n%b%b" % (_PEM_BEGIN, body[:64], body[64:128], body[128:], _PEM_END)


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
    body = pem[len(_PEM_BEGIN) : -len(_PEM_END)]
    if body[64:65] != b"\n" or body[129:130] != b"\n":
        raise malformed("a public key is not in its one PEM form")
    try:
        # 160 characters without padding are 120 bytes: in the strict mode there is one text for them.
        der = a2b_base64(body[:64] + body[65:129] + body[130:], strict_mode=True)
        point = der[len(_SPKI_PREFIX) :]
        if not der.startswith(_SPKI_PREFIX) or len(point) != _POINT_SIZE:
            raise malformed("a public key is not on secp384r1")
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
    return hkdf_expand("sha256", hkdf_extract("sha256", salt, secret), info, size)


def mac(key: bytes, data: bytes, hash_name: HashName) -> bytes:
    """HMAC (RFC 2104): 32 or 48 bytes.

    It is written out: the library's own looks its hash up for each call, which takes longer than the hashing.
    """
    new, block = _HASHES[hash_name]
    if len(key) > block:
        key = new(key).digest()
    padded = key.ljust(block, b"\0")
    found: bytes = new(padded.translate(_OUTER) + new(padded.translate(_INNER) + data).digest()).digest()
    return found


def chain_step(hash_name: HashName, chain: bytes, info: bytes) -> tuple[bytes, bytes]:
    """mk = HMAC(chain, 01), next = HMAC(chain, 02), and HKDF-Expand(mk, info, 44): for every message.

    The three HMACs are written out, as the same key would be padded twice.

    :param chain: 32 bytes, or a hash.
    :returns: what follows from mk, 44 bytes, and the next chain key.
    """
    new, block = _SMALL_HASHES[hash_name]
    padded = chain.ljust(block, b"\0")
    inner, outer = padded.translate(_INNER), padded.translate(_OUTER)
    padded = new(outer + new(inner + b"\x01").digest()).digest().ljust(block, b"\0")  # mk
    next_chain = new(outer + new(inner + b"\x02").digest()).digest()
    inner, outer = padded.translate(_INNER), padded.translate(_OUTER)
    output = new(outer + new(inner + info + b"\x01").digest()).digest()
    if len(output) < 44:
        output += new(outer + new(inner + output + info + b"\x02").digest()).digest()
    return output[:44], next_chain


_HASHES: dict[HashName, tuple[Callable[[bytes], Any], int]] = {
    "sha256": (hashlib.sha256, 64),
    "sha384": (hashlib.sha384, 128),
}


def _python_sha384() -> Callable[[bytes], Any]:
    """SHA-384 of the interpreter itself.

    That of ``hashlib`` is OpenSSL's, which is quicker once it runs, but takes longer to begin than two blocks take. The
    interpreter's has no public name: where it is called something else, ``hashlib`` has to do.
    """
    for name in ("_sha2", "_sha512"):  # of Python 3.12 and later, and of 3.11
        try:
            found: Callable[[bytes], Any] = import_module(name).sha384
        except (ImportError, AttributeError):
            continue
        return found
    return hashlib.sha384


#: For what is no longer than some blocks.
_SMALL_HASHES = {**_HASHES, "sha384": (_python_sha384(), 128)}

_INNER = bytes(byte ^ 0x36 for byte in range(256))
_OUTER = bytes(byte ^ 0x5C for byte in range(256))

#: Comparison in constant time.
same = hmac.compare_digest


def aes_stream(key: bytes, iv: bytes, mode: Literal["CTR", "OFB"], data: bytes) -> bytes:
    """AES-256 as a stream cipher: the same call encrypts and decrypts. ``iv`` is the initial block, 16 bytes."""
    context = Cipher(algorithms.AES(key), CTR(iv) if mode == "CTR" else OFB(iv)).encryptor()
    return context.update(data) + context.finalize()


# --- the modern protocol's primitives (protocol.rst, "Notation") ------------------------------------------------------

#: Sizes, bytes.
X25519_SIZE = 32
KEM_SEED_SIZE = 64
KEM_PUBLIC_SIZE = 1184
KEM_CIPHERTEXT_SIZE = 1088
KEM_SECRET_SIZE = 32
ED25519_SIZE = 32
SIGNATURE_SIZE = 64
TAG_SIZE = 16

_ED25519_PRIME = 2**255 - 19
# The y-coordinates of the eight points of small order: 0, 1 and -1, and the two of order 8.
_SMALL_ORDER = frozenset(
    {
        0,
        1,
        _ED25519_PRIME - 1,
        int.from_bytes(bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), "little"),
        int.from_bytes(bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"), "little"),
    }
)
_AEADS: dict[AeadName, type[AESGCM] | type[ChaCha20Poly1305]] = {
    "AES256_GCM": AESGCM,
    "CHACHA20_POLY1305": ChaCha20Poly1305,
}


class X25519Key:
    """An X25519 key pair.

    :ivar private: 32 bytes.
    :ivar public: 32 bytes.
    """

    __slots__ = ("_key", "private", "public")

    def __init__(self, private: bytes) -> None:
        """Load a private key; :exc:`ValueError` unless it is 32 bytes."""
        self._key = X25519PrivateKey.from_private_bytes(private)
        self.private = private
        self.public = self._key.public_key().public_bytes_raw()

    def __repr__(self) -> str:
        return "<X25519 key>"

    def exchange(self, public: bytes) -> bytes:
        """The shared secret, 32 bytes.

        :raises PeerError: ``malformed``, when the other key is not 32 bytes, or of small order: the result would be
            all zero, whoever computes it.
        """
        try:
            return self._key.exchange(X25519PublicKey.from_public_bytes(public))
        except ValueError:
            raise malformed("an X25519 key that cannot be used") from None


class Encapsulation(NamedTuple):
    """What ML-KEM-768 gives to who encapsulates: 1,088 bytes to send and a secret of 32."""

    ciphertext: bytes
    secret: bytes

    def __repr__(self) -> str:
        return "<ML-KEM-768 encapsulation>"


class KemKey:
    """An ML-KEM-768 key pair.

    :ivar seed: d and z (FIPS 203), 64 bytes.
    :ivar public: 1,184 bytes.
    """

    __slots__ = ("_key", "public", "seed")

    def __init__(self, seed: bytes) -> None:
        """Load a key from its seed; :exc:`ValueError` unless it is 64 bytes."""
        self._key = MLKEM768PrivateKey.from_seed_bytes(seed)
        self.seed = seed
        self.public = self._key.public_key().public_bytes_raw()

    def __repr__(self) -> str:
        return "<ML-KEM-768 key>"

    def decapsulate(self, ciphertext: bytes) -> bytes:
        """The secret, 32 bytes; of a changed ciphertext another one, as ML-KEM rejects implicitly.

        :raises PeerError: ``malformed``, when the ciphertext is not 1,088 bytes.
        """
        if len(ciphertext) != KEM_CIPHERTEXT_SIZE:
            raise malformed(f"an ML-KEM-768 ciphertext of {len(ciphertext)} bytes, not {KEM_CIPHERTEXT_SIZE}")
        return self._key.decapsulate(ciphertext)


def check_kem_public(public: bytes) -> None:
    """Refuse what is no ML-KEM-768 key: 1,184 bytes, each coefficient reduced (FIPS 203, 7.2).

    :raises PeerError: ``malformed``.
    """
    _kem_public(public)


def encapsulate(public: bytes) -> Encapsulation:
    """A fresh secret for the holder of an ML-KEM-768 key.

    :raises PeerError: ``malformed``, when there is no such key.
    """
    secret, ciphertext = _kem_public(public).encapsulate()
    return Encapsulation(ciphertext, secret)


# A key is checked when it comes and used when the next message goes: to read it takes as long as to encapsulate to it.
@lru_cache(maxsize=256)
def _kem_public(public: bytes) -> MLKEM768PublicKey:
    try:
        return MLKEM768PublicKey.from_public_bytes(public)
    except ValueError:
        raise malformed("an ML-KEM-768 key that cannot be used") from None


class Ed25519Key:
    """An Ed25519 key pair (RFC 8032).

    :ivar private: 32 bytes.
    :ivar public: 32 bytes.
    """

    __slots__ = ("_key", "private", "public")

    def __init__(self, private: bytes) -> None:
        """Load a private key; :exc:`ValueError` unless it is 32 bytes."""
        self._key = Ed25519PrivateKey.from_private_bytes(private)
        self.private = private
        self.public = self._key.public_key().public_bytes_raw()

    def __repr__(self) -> str:
        return "<Ed25519 key>"

    def sign(self, message: bytes) -> bytes:
        """The signature, 64 bytes."""
        return self._key.sign(message)


def check_ed25519_public(public: bytes) -> None:
    """Refuse a key that is not 32 bytes, not in its one encoding, or of small order.

    Under a key of small order one signature verifies for many messages: it would not bind anybody to anything. One that
    is not on the curve may pass; no signature verifies under it.

    :raises PeerError: ``malformed``.
    """
    _ed25519(public)


def ed25519_verify(public: bytes, signature: bytes, message: bytes) -> None:
    """Nothing, if the signature is the key's.

    :raises PeerError: ``malformed`` for a key as :func:`check_ed25519_public` refuses it, ``not-authenticated`` for
        a signature that does not verify.
    """
    key = _ed25519(public)
    try:
        key.verify(signature, message)
    except InvalidSignature:
        raise PeerError(Code.NOT_AUTHENTICATED, "a signature that does not verify") from None


def _ed25519(public: bytes) -> Ed25519PublicKey:
    y = int.from_bytes(public, "little") & ~(1 << 255)
    if len(public) != ED25519_SIZE or y >= _ED25519_PRIME or y in _SMALL_ORDER:
        raise malformed("an Ed25519 key that cannot be used")
    try:
        return Ed25519PublicKey.from_public_bytes(public)
    except ValueError:
        raise malformed("an Ed25519 key that cannot be used") from None


def aead_seal(name: AeadName, key: bytes, nonce: bytes, ad: bytes, plaintext: bytes) -> bytes:
    """The ciphertext with its 16-byte tag; ``key`` is 32 bytes, ``nonce`` 12."""
    return _AEADS[name](key).encrypt(nonce, plaintext, ad)


def aead_open(name: AeadName, key: bytes, nonce: bytes, ad: bytes, box: bytes) -> bytes:
    """The plaintext.

    :raises PeerError: ``not-authenticated``, for whatever :func:`aead_seal` did not make with the same arguments.
    """
    try:
        return _AEADS[name](key).decrypt(nonce, box, ad)
    except InvalidTag:
        raise PeerError(Code.NOT_AUTHENTICATED, "a box that does not verify") from None


class Aead(Protocol):
    """An AEAD under one key, for what is sealed or opened with it again and again."""

    def encrypt(self, nonce: bytes, data: bytes, associated_data: bytes | None) -> bytes:
        """As :func:`aead_seal`."""

    def encrypt_into(self, nonce: bytes, data: bytes, associated_data: bytes | None, buf: bytearray) -> int:
        """As :meth:`encrypt`, into a buffer that is 16 bytes longer than the plaintext."""

    def decrypt(self, nonce: bytes, data: bytes, associated_data: bytes | None) -> bytes:
        """As :func:`aead_open`, but it raises :data:`Refused`."""


#: What :meth:`Aead.decrypt` raises for what does not verify.
Refused = InvalidTag


def aead(name: AeadName, key: bytes | bytearray) -> Aead:
    """The AEAD under a key of 32 bytes."""
    return _AEADS[name](key)


def digest(hash_name: HashName, data: bytes) -> bytes:
    """The hash: 32 or 48 bytes."""
    found: bytes = _HASHES[hash_name][0](data).digest()
    return found


def hkdf_extract(hash_name: HashName, salt: bytes, secret: bytes) -> bytes:
    """HKDF-Extract (RFC 5869): 32 or 48 bytes. An empty salt is one of zeros."""
    return mac(salt, secret, hash_name)


def hkdf_expand(hash_name: HashName, key: bytes, info: bytes, size: int) -> bytes:
    """HKDF-Expand (RFC 5869), up to 255 hashes; written out, because it runs for every message and is six lines."""
    found = block = mac(key, info + b"\x01", hash_name)
    counter = 1
    while len(found) < size:
        counter += 1
        block = mac(key, block + info + bytes((counter,)), hash_name)
        found += block
    return found[:size]


def argon2id(passphrase: bytes, salt: bytes, *, memory: int, passes: int, lanes: int) -> bytes:
    """A key of 32 bytes of a passphrase (RFC 9106); ``memory`` in KiB, at least 8 for each lane; ``salt`` 16 bytes.

    :raises LocalError: ``unavailable``: there is not so much memory, or the library cannot.
    """
    try:
        stretch = Argon2id(salt=salt, length=32, iterations=passes, lanes=lanes, memory_cost=memory)
        return stretch.derive(passphrase)
    except MemoryError:
        raise LocalError(Code.UNAVAILABLE, f"the passphrase needs {memory // 1024} MiB of memory to be used") from None
    except UnsupportedAlgorithm:
        raise LocalError(Code.UNAVAILABLE, "Argon2id is missing: install a newer 'cryptography'") from None
