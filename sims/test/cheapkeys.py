"""Keys that cost next to nothing, for tests with so many messages that secp384r1 would take too long."""

from __future__ import annotations

import sys
from base64 import b64decode
from hashlib import sha384
from random import Random
from typing import cast

from twisted.trial.unittest import SynchronousTestCase

from sims.crypto import primitives
from sims.crypto.primitives import P384PrivateKey, P384PublicKey
from sims.errors import Code, PeerError
from sims.test import builders

_PRIME = 2**61 - 1
_POINT = 97
_everywhere = False


class _CheapPublic:
    """The public half of a key agreement modulo a small prime, as long as a point of secp384r1."""

    def __init__(self, number: int) -> None:
        self.number = number

    def public_bytes(self, *_: object) -> bytes:
        return b"\4" + self.number.to_bytes(_POINT - 1, "little")

    def to_pem(self) -> bytes:
        """As it travels."""
        return primitives.p384_to_pem(cast("P384PublicKey", self))


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
        if self._cheap or _everywhere:
            return _cheap_private(self._random.getrandbits(126))
        return primitives.SystemEntropy().p384()


def _cheap_private(number: int) -> P384PrivateKey:
    return cast("P384PrivateKey", _CheapPrivate(number % (_PRIME - 1) | 1))


def use_cheap_keys(case: SynchronousTestCase) -> None:
    """Replace secp384r1 by a small group for one test, whoever draws the keys: sizes and algebra stay, nothing is
    secret. A text that is not the one of a key of the group is refused, as one beside the curve is."""

    def from_pem(pem: bytes) -> tuple[_CheapPublic, bytes]:
        try:
            point = b64decode(pem[27:-26])[-_POINT:]
            public = _CheapPublic(int.from_bytes(point[1:], "little"))
            known = 0 < public.number < _PRIME and public.to_pem() == pem
        except ValueError:
            known = False
        if not known:
            raise PeerError(Code.MALFORMED, "a public key is not one of the small group")
        return public, point

    def exchange(private: _CheapPrivate, public: _CheapPublic) -> bytes:
        return sha384(pow(public.number, private.number, _PRIME).to_bytes(16, "big")).digest()

    case.patch(sys.modules[__name__], "_everywhere", True)
    case.patch(builders, "_derived", _cheap_private)
    case.patch(primitives, "p384_from_pem", from_pem)
    case.patch(primitives, "p384_exchange", exchange)
