"""Both ends of the connect handshake of sims/2, made from the protocol page alone.

An end takes frames as they were received, without their terminator, and gives the frames to send. Names in quotes in
the docstrings are sections of the protocol page.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from typing import Any

from tests.peers.modern_hop import Hop
from tests.peers.modern_identity import Identity, Public, identity_id
from tests.peers.modern_primitives import (
    BOX_LIMIT,
    KEM_CIPHERTEXT,
    KEM_PUBLIC,
    KEY,
    SUITES,
    Draws,
    Map,
    RefusedError,
    Suite,
    as_map,
    choose,
    decapsulate,
    dh,
    kem_public,
    lp,
    number_field,
    pack,
    pad,
    raw_field,
    split,
    text_field,
    texts_field,
    unpack,
    unpad,
    verify,
    x25519_public,
)

EXPORTER = b"EXPORTER-Channel-Binding"


def to_frame(value: Map) -> bytes:
    """Compact JSON in which byte fields are base64 ("Encoding")."""

    def plain(item: Any) -> Any:
        if isinstance(item, bytes):
            return base64.b64encode(item).decode("ascii")
        if isinstance(item, dict):
            return {key: plain(value) for key, value in item.items()}
        return item

    return json.dumps(plain(value), separators=(",", ":"), ensure_ascii=False).encode()


def from_frame(raw: bytes) -> Map:
    try:
        return as_map(json.loads(raw))
    except (ValueError, RecursionError):
        raise RefusedError("malformed", "not JSON") from None


def base64_field(data: Any, name: str, length: int | None = None) -> bytes:
    """A byte field of a frame."""
    try:
        value = base64.b64decode(text_field(data, name), validate=True)
    except (binascii.Error, ValueError):
        raise RefusedError("malformed", name) from None
    if length is not None and len(value) != length:
        raise RefusedError("malformed", name)
    return value


def phase_data(frame: Map, phase: int) -> Map:
    """The data of that phase; an error in the clear is raised with its code."""
    if frame.get("type") == "error":
        raise RefusedError(text_field(frame.get("data"), "code"), "told in the clear")
    if frame.get("type") != "connect" or frame.get("phase") != phase:
        raise RefusedError("malformed", f"phase {phase} expected")
    return as_map(frame.get("data"))


class _Secrets:
    """What both ends compute ("connect"), beginning with phase 2. `trace` has every value, by its name in the page."""

    def __init__(
        self, spec: str, first: bytes, binding: bytes, answer: Sequence[bytes], secrets: Sequence[bytes]
    ) -> None:
        """`answer`: random2, public_key2 and kem_ciphertext2; `secrets`: the KEM's and DH's."""
        suite = SUITES[spec]
        self.suite, self.th = suite, suite.hash(lp(first, binding, spec, *answer))
        self.hs = suite.hmac(suite.hash(b"sims/2 connect " + spec.encode()), b"".join(secrets))
        self.trace: dict[str, bytes] = {"th1": self.th, "hs": self.hs, "kem_secret": secrets[0], "dh": secrets[1]}

    def _keys(self, phase: int) -> tuple[bytes, bytes]:
        keys = self.suite.labelled(self.hs, f"phase {phase}", self.th, 44)
        return keys[:32], keys[32:]

    def seal(self, phase: int, plain: Map) -> bytes:
        key, nonce = self._keys(phase)
        sealed = self.suite.seal(key, nonce, self.th, pad(pack(plain), BOX_LIMIT))
        self._sealed(phase, pack(plain), sealed)
        return sealed

    def open(self, phase: int, sealed: bytes) -> Map:
        key, nonce = self._keys(phase)
        plain = unpad(self.suite.open(key, nonce, self.th, sealed), BOX_LIMIT)
        value = unpack(plain)
        self._sealed(phase, plain, sealed)
        return value

    def _sealed(self, phase: int, plain: bytes, sealed: bytes) -> None:
        key, nonce = self._keys(phase)
        self.th = self.suite.hash(self.th + lp(sealed))
        values = {"key": key, "nonce": nonce, "plain": plain, "sealed": sealed}
        self.trace |= {f"{name}{phase}": value for name, value in values.items()} | {f"th{phase}": self.th}

    def hop(self, role: str, draws: Draws) -> Hop:
        root, client, server = split(self.suite.labelled(self.hs, "channel", self.th, 96))
        self.trace |= {"root": root, "client_chain": client, "server_chain": server}
        return Hop(self.suite, role, self.th, root, client, server, draws)


class ClientConnect:
    """The client's end: `frame1`, then `take2` gives phase 3, then `take4` gives the hop."""

    def __init__(
        self,
        identity: Identity,
        name: str,
        specs: Sequence[str],
        server_id: str,
        *,
        binding: bytes = b"",
        invite: str | None = None,
        epoch: int | None = None,
        draws: Draws | None = None,
    ) -> None:
        self.identity, self.name, self.specs, self.server_id = identity, name, [*specs], server_id
        self.binding, self.invite, self.epoch, self.draws = binding, invite, epoch, draws or Draws()
        self.secrets: _Secrets
        self.answer: Map = {}  # what sealed4 held
        self._x1, self._k1 = self.draws.x25519("x1"), self.draws.kem_seed("k1")
        data = {
            "version": 2,
            "random": self.draws.random("random1", 32),
            "public_key": x25519_public(self._x1),
            "kem_public_key": kem_public(self._k1),
        }
        head = {"type": "connect", "phase": 1, "name": "", "id": "", "ciphers": self.specs}
        self.frame1 = to_frame({**head, "data": data})

    def take2(self, raw: bytes) -> bytes:
        """Check phase 2, and give phase 3: the name and id go to the link's server only."""
        frame = from_frame(raw)
        data, spec = phase_data(frame, 2), frame.get("ciphers")
        if spec not in self.specs or not isinstance(spec, str):
            raise RefusedError("policy", "a spec that was not offered")
        random, public = base64_field(data, "random", 32), base64_field(data, "public_key", KEY)
        ciphertext = base64_field(data, "kem_ciphertext", KEM_CIPHERTEXT)
        secrets = decapsulate(self._k1, ciphertext), dh(self._x1, public)
        self.secrets = _Secrets(spec, self.frame1, self.binding, (random, public, ciphertext), secrets)
        th1 = self.secrets.th
        plain = self.secrets.open(2, base64_field(data, "sealed"))
        server = Public(raw_field(plain, "sign", KEY), raw_field(plain, "dh", KEY))
        if server.id != self.server_id:
            raise RefusedError("not-authenticated", "another server than the link's")
        verify(server.sign, "connect server", th1, raw_field(plain, "signature", 64))
        own = self.identity.public
        body: Map = {"sign": own.sign, "dh": own.dh, "name": self.name}
        if self.invite is not None:
            body["invite"] = self.invite
        if self.epoch is not None:
            body["epoch"] = self.epoch
        signature = self.identity.signature("connect client", self.secrets.th + self.server_id.encode())
        sealed = self.secrets.seal(3, {**body, "signature": signature})
        return to_frame({"type": "connect", "phase": 3, "data": {"sealed": sealed}})

    def take4(self, raw: bytes) -> Hop:
        """Check phase 4; a refusal in it is raised with its code."""
        data = phase_data(from_frame(raw), 4)
        self.answer = self.secrets.open(4, base64_field(data, "sealed"))
        if "error" in self.answer:
            raise RefusedError(text_field(self.answer, "error"), "told in phase 4")
        text_field(self.answer, "name")
        as_map(self.answer.get("limits"))
        number_field(self.answer, "time")
        return self.secrets.hop("client", self.draws)


class ServerConnect:
    """The server's end: `take1` gives phase 2, `take3` says who it is, `finish` gives phase 4 and sets `hop`."""

    def __init__(
        self,
        identity: Identity,
        specs: Sequence[str],
        *,
        binding: bytes = b"",
        draws: Draws | None = None,
        signer: Identity | None = None,
    ) -> None:
        """`signer` makes the signature of phase 2 instead of the server, for tests of clients."""
        self.identity, self.specs, self.binding, self.draws = identity, [*specs], binding, draws or Draws()
        self.signer = signer or identity
        self.secrets: _Secrets
        self.hop: Hop

    @property
    def suite(self) -> Suite:
        return self.secrets.suite

    def take1(self, raw: bytes) -> bytes:
        frame = from_frame(raw)
        data, draws = phase_data(frame, 1), self.draws
        if number_field(data, "version") != 2:
            raise RefusedError("malformed", "another version")
        spec = choose(self.specs, texts_field(frame, "ciphers"))
        base64_field(data, "random", 32)
        public, kem = base64_field(data, "public_key", KEY), base64_field(data, "kem_public_key", KEM_PUBLIC)
        private, random = draws.x25519("x2"), draws.random("random2", 32)
        ciphertext, secret = draws.encapsulate("kem2", kem)
        answer = {"random": random, "public_key": x25519_public(private), "kem_ciphertext": ciphertext}
        self.secrets = _Secrets(spec, raw, self.binding, [*answer.values()], (secret, dh(private, public)))
        own, signature = self.identity.public, self.signer.signature("connect server", self.secrets.th)
        sealed = self.secrets.seal(2, {"sign": own.sign, "dh": own.dh, "signature": signature})
        return to_frame({"type": "connect", "phase": 2, "ciphers": spec, "data": {**answer, "sealed": sealed}})

    def take3(self, raw: bytes) -> Map:
        """What the client says of itself, with `id` as its keys give it."""
        th2 = self.secrets.th
        plain = self.secrets.open(3, base64_field(phase_data(from_frame(raw), 3), "sealed"))
        sign, signature = raw_field(plain, "sign", KEY), raw_field(plain, "signature", 64)
        verify(sign, "connect client", th2 + self.identity.id.encode(), signature)
        text_field(plain, "name")
        return {**plain, "id": identity_id(sign, raw_field(plain, "dh", KEY))}

    def finish(self, plain: Map) -> bytes:
        """Phase 4 of what it is to hold: `{name, limits, time}`, or `{error}`, after which there is no hop."""
        sealed = self.secrets.seal(4, plain)
        if "error" not in plain:
            self.hop = self.secrets.hop("server", self.draws)
        return to_frame({"type": "connect", "phase": 4, "data": {"sealed": sealed}})
