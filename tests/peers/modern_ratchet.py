"""The ratchet of sims/2 with header encryption and skipped keys, made from the protocol page alone ("client-com").

`seal` and `open` change the object as they go: who calls `open` works on a copy, and keeps it when nothing was raised.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from tests.peers.modern_primitives import (
    CONTENT_LIMIT,
    KEM_CIPHERTEXT,
    KEM_PUBLIC,
    KEY,
    SUITES,
    Draws,
    DuplicateError,
    Map,
    RefusedError,
    Suite,
    decapsulate,
    dh,
    kem_public,
    lp,
    pad,
    raw_field,
    split,
    unpad,
    x25519_public,
)

MAX_SKIP = 2_000  # messages skipped in one jump
MAX_KEPT = 2_000  # keys of skipped messages kept

_SHORT = 1 + KEY + 4 + 4
_LONG = _SHORT + KEM_PUBLIC + KEM_CIPHERTEXT


@dataclass
class Chain:
    """A chain; `public` and `kem` (public key ‖ ciphertext, empty in a first chain) are in its headers."""

    key: bytes
    header_key: bytes
    public: bytes
    kem: bytes = b""
    n: int = 0


@dataclass
class _Past:
    """What is kept of a receiving chain: keys of skipped messages, and the r of each that was opened."""

    chain: Chain
    skipped: dict[int, bytes] = field(default_factory=dict)
    used: dict[int, bytes] = field(default_factory=dict)


@dataclass
class _Header:
    public: bytes
    pn: int
    n: int
    kem: bytes


@dataclass
class Ratchet:
    """One end of a session's ratchet.

    `own` are the X25519 and ML-KEM privates that the peer's next chain is made with; `peer` the peer's last publics.
    """

    spec: str
    th1: bytes
    root: bytes
    sending: Chain | None
    next_sending: bytes
    receiving: Chain | None
    next_receiving: bytes
    own: tuple[bytes, bytes] | None
    peer: tuple[bytes, bytes] | None
    pn: int = 0
    step_due: bool = False
    past: dict[bytes, _Past] = field(default_factory=dict)  # by header key
    kept: list[tuple[bytes, int]] = field(default_factory=list)  # of which messages keys are kept, oldest first
    late: bool = False  # whether what was opened last had been skipped
    trace: Map = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.receiving is not None:
            self.past[self.receiving.header_key] = _Past(self.receiving)

    @property
    def suite(self) -> Suite:
        return SUITES[self.spec]

    def begin_receiving(self, chain: Chain, next_receiving: bytes, peer: tuple[bytes, bytes]) -> None:
        """The peer's new chain becomes the current one; the own privates that it was made with are deleted."""
        self.receiving, self.next_receiving, self.peer = chain, next_receiving, peer
        self.own, self.step_due = None, True
        self.past[chain.header_key] = _Past(chain)

    # --- out ---

    def seal(self, content: bytes, ends: tuple[str, str], draws: Draws) -> Map:
        """`{header, body}` of a content; `ends` are the ids from and to."""
        self.trace = {}
        if self.step_due:
            self._step(draws)
        chain = self.sending
        if chain is None:
            raise ValueError("there is no sending chain")
        message_key, n = self.suite.hmac(chain.key, b"\x01"), chain.n
        chain.key, chain.n = self.suite.hmac(chain.key, b"\x02"), n + 1
        r = draws.random("r", 12)
        plain = bytes([bool(chain.kem)]) + chain.public + struct.pack(">II", self.pn, n) + chain.kem
        header = r + self.suite.seal(chain.header_key, r, b"sims/2 header" + self.th1, plain)
        key, nonce = self._message(message_key, r)
        self.trace |= {"message_key": message_key, "next_chain": chain.key, "header_key": chain.header_key}
        self.trace |= {"header_plain": plain[:_SHORT], "n": n, "pn": self.pn}
        body = self.suite.seal(key, nonce, self._ad(ends, header), pad(content, CONTENT_LIMIT))
        return {"header": header, "body": body}

    def _step(self, draws: Draws) -> None:
        if self.peer is None:
            raise ValueError("the peer's keys are not known")
        own = draws.x25519("dh"), draws.kem_seed("kem")
        ciphertext, secret = draws.encapsulate("ratchet_kem", self.peer[1])
        ikm = dh(own[0], self.peer[0]) + secret
        self.root, key, following = split(self.suite.hkdf(self.root, ikm, b"sims/2 ratchet", 96))
        self.trace |= {"step_ikm": ikm, "root": self.root, "chain": key, "next_header_key": following}
        self.pn = self.sending.n if self.sending is not None else 0
        kem = kem_public(own[1]) + ciphertext
        self.sending = Chain(key, self.next_sending, x25519_public(own[0]), kem)
        self.next_sending, self.own, self.step_due = following, own, False

    def _message(self, message_key: bytes, r: bytes) -> tuple[bytes, bytes]:
        keys = self.suite.labelled(message_key, "message", b"", 44)
        nonce = bytes(a ^ b for a, b in zip(keys[32:], r, strict=True))
        self.trace |= {"key": keys[:32], "iv": keys[32:], "nonce": nonce}
        return keys[:32], nonce

    def _ad(self, ends: tuple[str, str], header: bytes) -> bytes:
        return lp("client-com", self.spec, *ends, header, self.th1)

    # --- in ---

    def open(self, message: Map, ends: tuple[str, str]) -> bytes:
        """The content of `{header, body}`."""
        raw, body = raw_field(message, "header"), raw_field(message, "body")
        r = raw[:12]
        header_key, header = self._find(raw)
        if header_key == self.next_receiving:
            self._turn(header)
        past = self.past[header_key]
        chain = past.chain
        if (header.public, header.kem) != (chain.public, chain.kem):
            raise RefusedError("malformed", "not the keys of its chain")
        if header.n in past.used:
            if past.used[header.n] == r:
                raise DuplicateError("malformed", "opened before")
            raise RefusedError("malformed", "an n that was used")
        self.late = header.n < chain.n or chain is not self.receiving
        if not self.late:
            self._skip(past, header.n)
            past.skipped[header.n] = self._next_key(chain)
        if header.n not in past.skipped:
            raise RefusedError("malformed", "no key for this message")
        key, nonce = self._message(past.skipped.pop(header.n), r)
        content = unpad(self.suite.open(key, nonce, self._ad(ends, raw), body), CONTENT_LIMIT)
        past.used[header.n] = r
        self.kept = [one for one in self.kept if one != (header_key, header.n)]
        return content

    def _find(self, raw: bytes) -> tuple[bytes, _Header]:
        """The header, and the key that opens it: the current one, the next, or an older one."""
        current = [self.receiving.header_key] if self.receiving is not None else []
        for header_key in dict.fromkeys([*current, self.next_receiving, *self.past]):
            try:
                plain = self.suite.open(header_key, raw[:12], b"sims/2 header" + self.th1, raw[12:])
            except RefusedError:
                continue
            if len(plain) not in (_SHORT, _LONG) or plain[0] != (len(plain) == _LONG):
                raise RefusedError("malformed", "a header's flags or length")
            pn, n = struct.unpack(">II", plain[33:_SHORT])
            return header_key, _Header(plain[1:33], pn, n, plain[_SHORT:])
        raise RefusedError("not-authenticated", "no header key fits")

    def _turn(self, header: _Header) -> None:
        """Take up the peer's next chain."""
        if not header.kem or self.own is None:
            raise RefusedError("malformed", "a chain without its keys, or too soon")
        if self.receiving is not None:
            if header.pn < self.receiving.n:
                raise RefusedError("malformed", "pn is below what was received")
            if header.pn - self.receiving.n + header.n > MAX_SKIP:
                raise RefusedError("malformed", "too many skipped")
            self._skip(self.past[self.receiving.header_key], header.pn)
        kem, ciphertext = header.kem[:KEM_PUBLIC], header.kem[KEM_PUBLIC:]
        ikm = dh(self.own[0], header.public) + decapsulate(self.own[1], ciphertext)
        self.root, key, following = split(self.suite.hkdf(self.root, ikm, b"sims/2 ratchet", 96))
        chain = Chain(key, self.next_receiving, header.public, header.kem)
        self.begin_receiving(chain, following, (header.public, kem))

    def _skip(self, past: _Past, until: int) -> None:
        if until - past.chain.n > MAX_SKIP:
            raise RefusedError("malformed", "too many skipped")
        while past.chain.n < until:
            n = past.chain.n
            past.skipped[n] = self._next_key(past.chain)
            self.kept.append((past.chain.header_key, n))
        while len(self.kept) > MAX_KEPT:
            header_key, n = self.kept.pop(0)
            self.past[header_key].skipped.pop(n, None)

    def _next_key(self, chain: Chain) -> bytes:
        key = self.suite.hmac(chain.key, b"\x01")
        chain.key, chain.n = self.suite.hmac(chain.key, b"\x02"), chain.n + 1
        return key
