"""Keys that cost next to nothing, for tests with so many messages that secp384r1 would take too long."""

from __future__ import annotations

from base64 import b64decode
from hashlib import sha384
from random import Random
from typing import cast

from twisted.trial.unittest import SynchronousTestCase

from sims.crypto import primitives
from sims.crypto.primitives import P384PrivateKey

_PRIME = 2**127 - 1
_POINT = 97


class _CheapPublic:
    """The public half of a key agreement modulo a small prime, as long as a point of secp384r1."""

    def __init__(self, number: int) -> None:
        self.number = number

    def public_bytes(self, *_: object) -> bytes:
        return b"\4" + self.number.to_bytes(_POINT - 1, "little")


class _CheapPrivate:
    def __init__(self, number: int) -> None:
        self.number = number

    def public_key(self) -> _CheapPublic:
        return _CheapPublic(pow(3, self.number, _PRIME))


class SeededEntropy:
    """Randomness that a seed decides. Its keys are real ones, unless ``cheap`` (then see :func:`use_cheap_keys`)."""

    def __init__(self, seed: int, *, cheap: bool = False) -> None:
        self._random = Random(seed)
        self._cheap = cheap

    def octets(self, size: int) -> bytes:
        """``size`` bytes."""
        return self._random.randbytes(size)

    def p384(self) -> P384PrivateKey:
        """A private key."""
        if self._cheap:
            return cast("P384PrivateKey", _CheapPrivate(self._random.getrandbits(126) | 1))
        return primitives.SystemEntropy().p384()


def use_cheap_keys(case: SynchronousTestCase) -> None:
    """Replace secp384r1 by a small group for one test: sizes and algebra stay, nothing is secret."""

    def from_pem(pem: bytes) -> tuple[_CheapPublic, bytes]:
        point = b64decode(pem[27:-26])[-_POINT:]
        return _CheapPublic(int.from_bytes(point[1:], "little")), point

    def exchange(private: _CheapPrivate, public: _CheapPublic) -> bytes:
        return sha384(pow(public.number, private.number, _PRIME).to_bytes(16, "big")).digest()

    case.patch(primitives, "p384_from_pem", from_pem)
    case.patch(primitives, "p384_exchange", exchange)
