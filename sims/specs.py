"""Cipher specs: their notation, the table of those spoken, policy and negotiation.

A name reads ``KEYEXCHANGE-CIPHER_MODE-HASH``; the table is the only place where the parts get a meaning.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from sims.errors import Code, LocalError, PeerError

#: The longest name of a spec, and the longest offer, that is looked at.
MAX_NAME = 64
MAX_OFFER = 32


@dataclass(frozen=True, slots=True)
class CipherSpec:
    """One row of the table.

    :ivar name: as it travels.
    :ivar mode: how AES is run, always under a 32-byte key: the seed keys ``AES128`` with 32 bytes too.
    :ivar hash: the hash of the HMAC.
    """

    name: str
    mode: Literal["CTR", "OFB"]
    hash: Literal["sha256", "sha384"]

    @property
    def mac_size(self) -> int:
        """The size of the HMAC, bytes."""
        return 32 if self.hash == "sha256" else 48

    def __str__(self) -> str:
        return self.name


#: Every spec of the seed, in order of preference.
SEED: tuple[CipherSpec, ...] = (
    CipherSpec("ECDHE-AES128_CTR-SHA256", "CTR", "sha256"),
    CipherSpec("ECDHE-AES256_CTR-SHA384", "CTR", "sha384"),
    CipherSpec("ECDHE-AES128_OFB-SHA256", "OFB", "sha256"),
    CipherSpec("ECDHE-AES256_OFB-SHA384", "OFB", "sha384"),
)

#: What an initiator offers unless it is told otherwise: OFB is answered, never offered.
SEED_OFFER: tuple[CipherSpec, ...] = SEED[:2]

_BY_NAME = {spec.name: spec for spec in SEED}


def by_names(names: Iterable[str]) -> tuple[CipherSpec, ...]:
    """The specs of these names, in their order.

    :raises LocalError: ``policy``, when a name is not in the table or none is given.
    """
    chosen = []
    for name in names:
        spec = _BY_NAME.get(name.strip())
        if spec is None:
            known = ", ".join(_BY_NAME)
            raise LocalError(Code.POLICY, f"no such cipher spec: {name.strip()[:MAX_NAME]!r}; there are {known}")
        if spec not in chosen:
            chosen.append(spec)
    if not chosen:
        raise LocalError(Code.POLICY, "no cipher spec is named")
    return tuple(chosen)


def negotiate(offer: Sequence[str], allowed: Sequence[CipherSpec]) -> CipherSpec:
    """The first of the initiator's order that this side allows (protocol.rst, "Cipher specs").

    :raises PeerError: ``no-common-spec``.
    """
    for name in offer[:MAX_OFFER]:
        spec = _BY_NAME.get(name)
        if spec is not None and spec in allowed:
            return spec
    raise PeerError(Code.NO_COMMON_SPEC, "none of the cipher specs that the other end offers is spoken here")


def chosen(name: str, offered: Sequence[CipherSpec]) -> CipherSpec:
    """The spec that a responder chose, provided that it was offered.

    :raises PeerError: ``no-common-spec``, when it was not: a choice is never widened.
    """
    spec = _BY_NAME.get(name)
    if spec is None or spec not in offered:
        raise PeerError(Code.NO_COMMON_SPEC, "the other end chose a cipher spec that was not offered")
    return spec
