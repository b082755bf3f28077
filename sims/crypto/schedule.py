"""The modern key schedule: every transcript hash and every key, as functions of their inputs.

One function for each line of the specification, so that a vector can name what went wrong. Sizes: transcript hashes,
message keys and chain keys that follow another are whole hashes (32 or 48 bytes); keys split from one output are 32
bytes each. Nothing here keeps anything.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from sims.crypto import primitives
from sims.crypto.notation import expand, hkdf, label, lp, names, split
from sims.specs import ModernSpec

NONCE_SIZE = 12
KEY_AND_NONCE_SIZE = 32 + NONCE_SIZE


def _hidden(self: object) -> str:
    """The repr of what holds keys."""
    return f"<{type(self).__name__}>"


class KeyAndNonce(NamedTuple):
    """A key of 32 bytes that is used once, and the nonce of 12 that it is used with."""

    key: bytes
    nonce: bytes

    def __repr__(self) -> str:
        return _hidden(self)


# --- connect (protocol.rst, "connect") --------------------------------------------------------------------------------


class Channel(NamedTuple):
    """The keys of a hop: 32 bytes each."""

    root: bytes
    client_chain: bytes
    server_chain: bytes

    def __repr__(self) -> str:
        return _hidden(self)


def connect_th1(
    spec: ModernSpec, frame1: bytes, binding: bytes, random2: bytes, public_key2: bytes, kem_ciphertext2: bytes
) -> bytes:
    """th1: what was said before the first box, and over which TLS connection."""
    said = lp(frame1, binding, spec.name.encode("ascii"), random2, public_key2, kem_ciphertext2)
    return primitives.digest(spec.hash, said)


def connect_next(spec: ModernSpec, before: bytes, sealed: bytes) -> bytes:
    """th2, th3 and th4: the hash before, and the box that came."""
    return primitives.digest(spec.hash, before + lp(sealed))


def connect_secret(spec: ModernSpec, kem_secret: bytes, dh: bytes) -> bytes:
    """hs."""
    salt = primitives.digest(spec.hash, f"sims/2 connect {spec.name}".encode("ascii"))
    return primitives.hkdf_extract(spec.hash, salt, kem_secret + dh)


def connect_phase(spec: ModernSpec, hs: bytes, phase: Literal[2, 3, 4], transcript: bytes) -> KeyAndNonce:
    """The key of a phase's box."""
    found = expand(spec, hs, f"phase {phase}", transcript, KEY_AND_NONCE_SIZE)
    return KeyAndNonce(found[:32], found[32:])


def channel(spec: ModernSpec, hs: bytes, th4: bytes) -> Channel:
    """The first keys of the hop."""
    return Channel(*split(expand(spec, hs, "channel", th4, 96)))


def rekeyed(spec: ModernSpec, root: bytes, dh: bytes, kem_secret: bytes) -> Channel:
    """The next keys of the hop."""
    return Channel(*split(hkdf(spec, root, dh + kem_secret, b"sims/2 rekey", 96)))


# --- chains (protocol.rst, "secure" and "client-com") -----------------------------------------------------------------


class Link(NamedTuple):
    """One step of a chain: the key of a message, and the chain key behind it."""

    message_key: bytes
    next_chain: bytes

    def __repr__(self) -> str:
        return _hidden(self)


def link(spec: ModernSpec, chain: bytes) -> Link:
    """One step of a chain."""
    return Link(primitives.mac(chain, b"\x01", spec.hash), primitives.mac(chain, b"\x02", spec.hash))


def box_keys(spec: ModernSpec, message_key: bytes, kind: Literal["secure", "message"]) -> KeyAndNonce:
    """The key of a box, and its nonce (secure) or iv (client-com)."""
    found = expand(spec, message_key, kind, b"", KEY_AND_NONCE_SIZE)
    return KeyAndNonce(found[:32], found[32:])


def message_keys(spec: ModernSpec, chain: bytes, kind: Literal["secure", "message"]) -> tuple[bytes, bytes, bytes]:
    """:func:`link` and :func:`box_keys` at once, as they are needed for each message in order.

    :returns: the key of the box, its nonce or iv, and the next chain key.
    """
    output, next_chain = primitives.chain_step(spec.hash, chain, _LABELS[kind])
    return output[:32], output[32:], next_chain


_LABELS = {kind: label(kind) for kind in ("secure", "message")}


def body_nonce(iv: bytes, r: bytes) -> bytes:
    """iv ⊕ r: a message key that is used again, from a restored store, still meets another nonce."""
    return (int.from_bytes(iv, "big") ^ int.from_bytes(r, "big")).to_bytes(NONCE_SIZE, "big")


# --- client-connect (protocol.rst, "client-connect") ------------------------------------------------------------------


class Party(NamedTuple):
    """One end as the transcript names it: id, keys (32 bytes each) and list of specs."""

    id: str
    sign: bytes
    dh: bytes
    specs: tuple[str, ...]


class Prekeys(NamedTuple):
    """B's keys that a session is opened to: SPK (32 bytes), KPK (1,184) and OTK (32, or empty)."""

    prekey: bytes
    kem: bytes
    one_time: bytes


class Initial(NamedTuple):
    """The keys that phase 1 gives: 32 bytes each."""

    root: bytes
    a_chain: bytes
    a_header_key: bytes
    b_next_header_key: bytes
    a_next_header_key: bytes

    def __repr__(self) -> str:
        return _hidden(self)


class Second(NamedTuple):
    """The keys that phase 2 gives: 32 bytes each."""

    root: bytes
    chain: bytes
    header_key: bytes
    confirm: bytes

    def __repr__(self) -> str:
        return _hidden(self)


class Step(NamedTuple):
    """The keys that a ratchet step gives: 32 bytes each."""

    root: bytes
    chain: bytes
    next_header_key: bytes

    def __repr__(self) -> str:
        return _hidden(self)


def session_th1(
    spec: ModernSpec, a: Party, b: Party, to: Prekeys, a1: bytes, kem_public_key: bytes, kem_ciphertext: bytes
) -> bytes:
    """th1: who opens to whom, under which keys, out of which lists."""
    return primitives.digest(
        spec.hash,
        lp(
            b"client-connect",
            *(a.id.encode("ascii"), b.id.encode("ascii"), a.sign, a.dh, b.sign, b.dh),
            *(names(a.specs), names(b.specs), spec.name.encode("ascii")),
            *(to.prekey, to.kem, to.one_time, a1, kem_public_key, kem_ciphertext),
        ),
    )


def session_ikm(dh_a_spk: bytes, a1_dh_b: bytes, a1_spk: bytes, a1_otk: bytes, kem_secret: bytes) -> bytes:
    """What phase 1 agrees on; ``a1_otk`` is empty where no one-time key is used."""
    return b"\xff" * 32 + dh_a_spk + a1_dh_b + a1_spk + a1_otk + kem_secret


def initial(spec: ModernSpec, th1: bytes, ikm: bytes) -> Initial:
    """The keys of phase 1."""
    return Initial(*split(expand(spec, primitives.hkdf_extract(spec.hash, b"", ikm), "session", th1, 160)))


def session_th2(spec: ModernSpec, th1: bytes, b1: bytes, kem_ciphertext: bytes, kem_public_key: bytes) -> bytes:
    """th2."""
    return primitives.digest(spec.hash, th1 + lp(b1, kem_ciphertext, kem_public_key))


def second(spec: ModernSpec, root0: bytes, th2: bytes, ikm2: bytes) -> Second:
    """The keys of phase 2, which is B's first ratchet step; ``ikm2`` is three DH results and a secret, 128 bytes."""
    return Second(*split(hkdf(spec, root0, ikm2, b"sims/2 phase 2" + th2, 128)))


def phase_mac(spec: ModernSpec, confirm: bytes, th2: bytes, phase: Literal[2, 3, 4]) -> bytes:
    """The mac of a phase: a whole hash."""
    return primitives.mac(expand(spec, confirm, f"phase {phase}", th2, 32), th2, spec.hash)


def step(spec: ModernSpec, root: bytes, ikm: bytes) -> Step:
    """A ratchet step; ``ikm`` is dh ‖ ss, 64 bytes."""
    return Step(*split(hkdf(spec, root, ikm, b"sims/2 ratchet", 96)))
