"""The hop of sims/2 after connect, with its rekey, made from the protocol page alone ("secure")."""

from __future__ import annotations

from tests.peers.modern_primitives import (
    BOX_LIMIT,
    KEM_CIPHERTEXT,
    KEM_PUBLIC,
    KEY,
    Draws,
    Map,
    RefusedError,
    Suite,
    decapsulate,
    dh,
    kem_public,
    pack,
    pad,
    raw_field,
    split,
    u64,
    unpack,
    unpad,
    x25519_public,
)


class _Direction:
    """One direction's chain."""

    def __init__(self, suite: Suite, th4: bytes, number: int, chain: bytes) -> None:
        self.suite, self.head, self.chain, self.n = suite, th4 + bytes([number]), chain, 0
        self.trace: dict[str, bytes] = {}

    def keys(self) -> tuple[bytes, bytes, bytes]:
        """Key, nonce and ad of the next message; nothing moves."""
        message_key = self.suite.hmac(self.chain, b"\x01")
        keys, ad = self.suite.labelled(message_key, "secure", b"", 44), self.head + u64(self.n)
        self.trace = {"message_key": message_key, "next_chain": self._next()}
        self.trace |= {"key": keys[:32], "nonce": keys[32:], "ad": ad}
        return keys[:32], keys[32:], ad

    def move(self) -> None:
        self.chain, self.n = self._next(), self.n + 1

    def _next(self) -> bytes:
        return self.suite.hmac(self.chain, b"\x02")


class Hop:
    """One end. `handled` messages count both directions since the last rekey."""

    def __init__(
        self, suite: Suite, role: str, th4: bytes, root: bytes, client: bytes, server: bytes, draws: Draws | None = None
    ) -> None:
        from_client, from_server = _Direction(suite, th4, 1, client), _Direction(suite, th4, 2, server)
        self.suite, self.role, self.th4, self.root, self.draws = suite, role, th4, root, draws or Draws()
        self.out, self.into = (from_client, from_server) if role == "client" else (from_server, from_client)
        self.handled = self.rekeys = 0
        self._rekey: tuple[bytes, bytes] | None = None  # the client's private keys
        self._next_client: bytes | None = None  # the client's new chain, at the server until 3 has come
        self.trace: dict[str, bytes] = {}

    @property
    def rekeying(self) -> bool:
        return self._rekey is not None or self._next_client is not None

    # --- messages ---

    def seal(self, inner: Map) -> Map:
        """The secure frame of an inner message, byte fields raw."""
        return self.seal_bytes(pack(inner))

    def seal_bytes(self, plain: bytes) -> Map:
        n, (key, nonce, ad) = self.out.n, self.out.keys()
        box = self.suite.seal(key, nonce, ad, pad(plain, BOX_LIMIT))
        self.out.move()
        self.handled += 1
        return {"type": "secure", "sa-data": {"n": n}, "payload": {"ciphertext": box}}

    def open(self, n: object, box: bytes) -> Map:
        """The inner message; nothing moves for one that does not verify or is not the next."""
        if n != self.into.n or isinstance(n, bool):
            raise RefusedError("malformed", "n is not the next")
        key, nonce, ad = self.into.keys()
        inner = unpack(unpad(self.suite.open(key, nonce, ad, box), BOX_LIMIT))
        self.into.move()
        self.handled += 1
        return inner

    # --- rekey ---

    def start_rekey(self) -> Map:
        """Rekey 1, for the client to send."""
        if self.rekeying:
            raise RefusedError("malformed", "a rekey is under way")
        self._rekey = self.draws.x25519("rekey_x1"), self.draws.kem_seed("rekey_k1")
        data = {"public_key": x25519_public(self._rekey[0]), "kem_public_key": kem_public(self._rekey[1])}
        return {"type": "rekey", "phase": 1, "data": data}

    def take_rekey(self, inner: Map) -> Map | None:
        """Take a rekey message that was opened; what it gives is to be sent, and `sent_rekey` called after that."""
        phase, data = inner.get("phase"), inner.get("data")
        if phase == 1 and self.role == "server" and not self.rekeying:
            private = self.draws.x25519("rekey_x2")
            ciphertext, secret = self.draws.encapsulate("rekey_kem2", raw_field(data, "kem_public_key", KEM_PUBLIC))
            self._derive(dh(private, raw_field(data, "public_key", KEY)), secret)
            answer = {"public_key": x25519_public(private), "kem_ciphertext": ciphertext}
            return {"type": "rekey", "phase": 2, "data": answer}
        if phase == 2 and self._rekey is not None:
            private, seed = self._rekey
            secret = decapsulate(seed, raw_field(data, "kem_ciphertext", KEM_CIPHERTEXT))
            self._derive(dh(private, raw_field(data, "public_key", KEY)), secret)
            self._rekey, self.into.chain = None, self._chains[1]
            return {"type": "rekey", "phase": 3, "data": {}}
        if phase == 3 and self._next_client is not None:
            self.into.chain, self._next_client = self._next_client, None
            self._done()
            return None
        raise RefusedError("malformed", "this rekey is not expected")

    def sent_rekey(self, inner: Map) -> None:
        """The own chain changes after a server's 2 and after a client's 3."""
        if inner["phase"] == 2:
            self.out.chain, self._next_client = self._chains[1], self._chains[0]
        elif inner["phase"] == 3:
            self.out.chain = self._chains[0]
            self._done()

    def _derive(self, shared: bytes, secret: bytes) -> None:
        keys = split(self.suite.hkdf(self.root, shared + secret, b"sims/2 rekey", 96))
        self.root, self._chains = keys[0], (keys[1], keys[2])
        names = "rekey_root", "rekey_client_chain", "rekey_server_chain"
        self.trace = dict(zip(names, keys, strict=True))

    def _done(self) -> None:
        self.rekeys, self.handled = self.rekeys + 1, 0
