"""The keys and sealed messages of the seed protocol, made from the wire page alone, for seed_peer.py and its server.

Names in quotes in the docstrings are sections of the wire page.
"""

from __future__ import annotations

import base64
import hmac
import json
import os
import re
from typing import Any, NamedTuple

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

Json = dict[str, Any]
Parts = dict[str, bytes]  # hash, iv, random, ciphertext, public_key (PEM): raw bytes
Remote = tuple[ec.EllipticCurvePublicKey, bytes]  # the public key and random last received

LIMIT = 64  # own pairs that the other end has not used yet
# "Cipher specs": name -> (cipher mode, hash). The first two are offered unless others are asked for.
SPECS = {
    "ECDHE-AES128_CTR-SHA256": ("CTR", "sha256"),
    "ECDHE-AES256_CTR-SHA384": ("CTR", "sha384"),
    "ECDHE-AES128_OFB-SHA256": ("OFB", "sha256"),
    "ECDHE-AES256_OFB-SHA384": ("OFB", "sha384"),
}
DEFAULT_SPECS = tuple(SPECS)[:2]


class PeerError(Exception):
    """The other end broke the protocol, or refused."""


class BadBoxError(PeerError):
    """A sealed message, a key or a random is not acceptable; no state has moved."""


class FullError(PeerError):
    """LIMIT own pairs wait for the other end to use one of them ("What is unsafe", messages that cross)."""


class Pair(NamedTuple):
    """What an end keeps of a message that it sent ("Key schedule")."""

    private: ec.EllipticCurvePrivateKey
    random: bytes

    @classmethod
    def fresh(cls) -> Pair:
        return cls(ec.generate_private_key(ec.SECP384R1()), os.urandom(32))

    @property
    def pem(self) -> bytes:
        return public_pem(self.private.public_key())


def public_pem(public: ec.EllipticCurvePublicKey) -> bytes:
    """The PEM text inside K ("Notation")."""
    return public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def unb64(value: Any) -> bytes:
    """B ("Notation"), strictly: only the one encoding of the bytes, else BadBoxError."""
    try:
        data = base64.b64decode(value, validate=True)
        if isinstance(value, str) and b64(data) == value:
            return data
    except (TypeError, ValueError):
        pass
    raise BadBoxError("not base64")


def read_remote(pem: bytes, random: bytes) -> Remote:
    """A key and random as received: secp384r1 in its PEM form, and 32 bytes, else BadBoxError ("What is unsafe")."""
    try:
        public = serialization.load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise BadBoxError("not a public key") from error
    if not isinstance(public, ec.EllipticCurvePublicKey) or not isinstance(public.curve, ec.SECP384R1):
        raise BadBoxError("not a secp384r1 key")
    if public_pem(public) != pem or len(random) != 32:
        raise BadBoxError("not the PEM form of the protocol, or not a random of 32 bytes")
    return public, random


# "Cipher specs": Z, the key, the cipher and the hash.


def ecdh(private: ec.EllipticCurvePrivateKey, public: ec.EllipticCurvePublicKey) -> bytes:
    return private.exchange(ec.ECDH(), public)


def derive_key(z: bytes, salt: bytes) -> bytes:
    return HKDF(algorithm=hashes.SHA256(), length=32, salt=salt, info=b"hkdf-example").derive(z)


def run_cipher(spec: str, key: bytes, iv: bytes, data: bytes) -> bytes:
    """AES-CTR or AES-OFB, each its own inverse."""
    if SPECS[spec][0] == "CTR":
        return Cipher(algorithms.AES(key), modes.CTR(iv)).encryptor().update(data)
    # The OFB keystream is the CBC encryption of zeros.
    stream = Cipher(algorithms.AES(key), modes.CBC(iv)).encryptor().update(bytes(len(data) + -len(data) % 16))
    return bytes(a ^ b for a, b in zip(data, stream, strict=False))


def make_mac(spec: str, key: bytes, ciphertext: bytes) -> bytes:
    return hmac.digest(key, ciphertext, SPECS[spec][1])


class Channel:
    """One end of a client-server ("client", "server") or client-com ("com") channel ("Key schedule").

    `own` is the pair that the other end last used, then every later one, oldest first. `remote` may be None until the
    first message is open. `last_only` keeps one own pair, as the original does; `limit` None means no limit.
    """

    def __init__(
        self,
        spec: str,
        kind: str,
        own: Pair,
        remote: Remote | None,
        *,
        limit: int | None = LIMIT,
        last_only: bool = False,
    ) -> None:
        if spec not in SPECS or kind not in ("client", "server", "com"):
            raise ValueError("unknown spec or kind")
        self.spec, self.kind, self.own, self.remote = spec, kind, [own], remote
        self.limit, self.last_only = limit, last_only

    def _key(self, own: Pair, remote: Remote, sending: bool) -> bytes:
        # Salt: client, then server; or, for client-com, the receiver's last, then the sender's new random.
        own_first = not sending if self.kind == "com" else self.kind == "client"
        salt = own.random + remote[1] if own_first else remote[1] + own.random
        return derive_key(ecdh(own.private, remote[0]), salt)

    def seal(self, plaintext: bytes, pair: Pair | None = None, iv: bytes | None = None) -> Parts:
        """Seal with a fresh (or the given) pair and iv; FullError when too many pairs are unused."""
        if self.remote is None:
            raise PeerError("the other end's key is not known yet")
        if self.limit is not None and len(self.own) > self.limit:
            raise FullError("too many unused pairs")
        pair, iv = pair or Pair.fresh(), iv or os.urandom(16)
        key = self._key(pair, self.remote, True)
        ciphertext = run_cipher(self.spec, key, iv, plaintext)
        self.own = [pair] if self.last_only else [*self.own, pair]
        return {
            "hash": make_mac(self.spec, key, ciphertext),
            "iv": iv,
            "random": pair.random,
            "ciphertext": ciphertext,
            "public_key": pair.pem,
        }

    def open(self, parts: Parts) -> bytes:
        """Open with the own pair whose MAC fits (the last used, the newest, the others upwards), or BadBoxError."""
        remote = read_remote(parts["public_key"], parts["random"])
        if len(parts["iv"]) != 16:
            raise BadBoxError("an iv is 16 bytes")
        last = len(self.own) - 1
        for index in [0, last, *range(1, last)] if last else [0]:
            key = self._key(self.own[index], remote, False)
            if hmac.compare_digest(make_mac(self.spec, key, parts["ciphertext"]), parts["hash"]):
                self.own, self.remote = self.own[index:], remote
                return run_cipher(self.spec, key, parts["iv"], parts["ciphertext"])
        raise BadBoxError("no own pair fits the MAC")


# "Framing", and the two forms of the parts: client-com `data`, and `secure`.


def encode(obj: Any) -> bytes:
    return json.dumps(obj).encode("ascii")


def decode(raw: bytes, kind: type = dict) -> Any:
    """JSON of that kind, or PeerError."""
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise PeerError("not JSON") from error
    return expect(value, kind)


def expect(value: Any, kind: type = dict) -> Any:
    if not isinstance(value, kind):
        raise PeerError(f"not the JSON kind that belongs here: {kind.__name__}")
    return value


def as_id(value: Any) -> int:
    """`src` and `dst` occur as int and as str: both are accepted ("Inner messages")."""
    if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,40}", value):
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise PeerError("not an id")


def com_data(parts: Parts) -> Json:
    return {name: b64(value) for name, value in parts.items()}


def com_parts(data: Any) -> Parts:
    return {name: unb64(expect(data).get(name)) for name in ("hash", "iv", "random", "ciphertext", "public_key")}


def secure_frame(parts: Parts) -> Json:
    data = com_data(parts)
    payload = {name: data.pop(name) for name in ("ciphertext", "public_key")}
    return {"type": "secure", "sa-data": data, "payload": payload}


def secure_parts(obj: Json) -> Parts:
    return com_parts({**expect(obj.get("sa-data")), **expect(obj.get("payload"))})
