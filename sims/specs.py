"""Cipher specs: their notation, the table of those spoken, policy and negotiation.

A name reads ``KEYEXCHANGE-CIPHER_MODE-HASH``; the table is the only place where the parts get a meaning.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from sims.errors import Code, LocalError, PeerError, malformed

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
    """The first of the initiator's order that this side allows (seed.rst, "Cipher specs").

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


# --- the modern protocol ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ModernSpec:
    """One row of the modern table: X25519 with ML-KEM-768 always, an AEAD with 32-byte keys, and a hash.

    :ivar name: as it travels.
    """

    name: str
    aead: Literal["AES256_GCM", "CHACHA20_POLY1305"]
    hash: Literal["sha256", "sha384"]

    @property
    def hash_size(self) -> int:
        """The size of a hash and of an HMAC, bytes."""
        return 32 if self.hash == "sha256" else 48

    def __str__(self) -> str:
        return self.name


#: Every spec of the modern protocol, in order of preference.
MODERN: tuple[ModernSpec, ...] = (
    ModernSpec("X25519MLKEM768-AES256_GCM-SHA384", "AES256_GCM", "sha384"),
    ModernSpec("X25519MLKEM768-CHACHA20_POLY1305-SHA256", "CHACHA20_POLY1305", "sha256"),
)

_MODERN_BY_NAME = {spec.name: spec for spec in MODERN}

#: Classes of specs: one is below another if what it protects is less. It is never the order of preference.
SEED_CLASS = 1
MODERN_CLASS = 2


def spec_class(spec: CipherSpec | ModernSpec) -> int:
    """The class of a spec: 1 for the seed's, 2 for the modern ones, which protect alike."""
    return MODERN_CLASS if isinstance(spec, ModernSpec) else SEED_CLASS


def never_lower(remembered: int, spec: CipherSpec | ModernSpec) -> int:
    """The class to remember from now on: the highest ever agreed with an id; ``remembered`` is 0 at first.

    :raises PeerError: ``policy``, when this spec's class is below what was agreed before.
    """
    found = spec_class(spec)
    if found < remembered:
        raise PeerError(Code.POLICY, "a cipher spec of a lower class than was agreed before")
    return found


def modern_by_names(names: Iterable[str]) -> tuple[ModernSpec, ...]:
    """The modern specs of these names, in their order.

    :raises LocalError: ``policy``, when a name is not in the table or none is given.
    """
    found: list[ModernSpec] = []
    for name in names:
        spec = _MODERN_BY_NAME.get(name.strip())
        if spec is None:
            known = ", ".join(_MODERN_BY_NAME)
            raise LocalError(Code.POLICY, f"no such cipher spec: {name.strip()[:MAX_NAME]!r}; there are {known}")
        if spec not in found:
            found.append(spec)
    if not found:
        raise LocalError(Code.POLICY, "no cipher spec is named")
    return tuple(found)


def preferred(offer: Sequence[str], preference: Sequence[ModernSpec]) -> ModernSpec:
    """What a server picks: the first of its own preference that the client offers (protocol.rst, "connect").

    :raises PeerError: ``no-common-spec``; ``malformed``, for a text in place of a list.
    """
    offered = _listed(offer)
    for spec in preference:
        if spec.name in offered:
            return spec
    raise PeerError(Code.NO_COMMON_SPEC, "none of the cipher specs that the other end offers is spoken here")


def modern_chosen(name: str, offered: Sequence[ModernSpec]) -> ModernSpec:
    """The spec that a server chose, provided that it was offered.

    :raises PeerError: ``no-common-spec``, when it was not: a choice is never widened.
    """
    spec = _MODERN_BY_NAME.get(name)
    if spec is None or spec not in offered:
        raise PeerError(Code.NO_COMMON_SPEC, "the other end chose a cipher spec that was not offered")
    return spec


def common(initiator: Sequence[str], responder: Sequence[str], allowed: Sequence[ModernSpec]) -> ModernSpec:
    """What two lists give between clients: the first of the initiator's that the responder lists.

    Both ends work it out for themselves (protocol.rst, "client-connect"); the own list says what the own policy
    allowed when it was made, ``allowed`` what it allows now.

    :raises PeerError: ``no-common-spec``, when no name is in both; ``policy``, when the one that they give is not
        allowed here: the next one isn't looked at, as the other end would not agree; ``malformed``, for a text in place
        of a list.
    """
    listed = _listed(responder)
    for name in _listed(initiator):
        if name in listed:
            spec = _MODERN_BY_NAME.get(name)
            if spec is None or spec not in allowed:
                raise PeerError(Code.POLICY, "the cipher spec that both ends list is not allowed here")
            return spec
    raise PeerError(Code.NO_COMMON_SPEC, "no cipher spec is on the lists of both ends")


def _listed(names: Sequence[str]) -> Sequence[str]:
    """As much of a list as is looked at. A text is a sequence too, of which every part would be found in it."""
    if isinstance(names, str):
        raise malformed("a text in place of a list of cipher specs")
    return names[:MAX_OFFER]
