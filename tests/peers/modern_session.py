"""The four phases between two clients of sims/2, and what is said in a session, made from the protocol page alone.

Names in quotes in the docstrings are sections of the protocol page.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import NamedTuple

from tests.peers.modern_identity import Identity, Prekeys, Public
from tests.peers.modern_primitives import (
    KEM_CIPHERTEXT,
    KEM_PUBLIC,
    KEY,
    SUITES,
    Draws,
    Map,
    RefusedError,
    as_map,
    choose,
    decapsulate,
    dh,
    kem_public,
    lp,
    number_field,
    raw_field,
    split,
    text_field,
    texts_field,
    x25519_public,
)
from tests.peers.modern_ratchet import Chain, Ratchet


class Opened(NamedTuple):
    """What a message gave: `due` is the phase to answer with at once; `late` if it had been skipped."""

    content: bytes | None
    due: int | None
    late: bool


class _Offer(NamedTuple):
    """What th1 is made of, beside A's fields of phase 1 ("client-connect")."""

    a: Public
    b: Public
    a_specs: Sequence[str]
    b_specs: Sequence[str]
    spk: bytes
    kpk: bytes
    otk: bytes

    def th1(self, fields: Map) -> bytes:
        spec, keys = fields["spec"], [fields[key] for key in ("public_key", "kem_public_key", "kem_ciphertext")]
        lists = lp(*self.a_specs), lp(*self.b_specs)
        who = self.a.id, self.b.id, self.a.sign, self.a.dh, self.b.sign, self.b.dh
        text = lp("client-connect", *who, *lists, spec, self.spk, self.kpk, self.otk, *keys)
        return SUITES[spec].hash(text)


class Session:
    """One end of a session. Role "a" opened it.

    :ivar heard: the phases that have arrived.
    :ivar ciphers: A's list, as it goes with phase 1.
    :ivar fields: the accepted fields of phase 1 and of phase 2, without messages.
    """

    def __init__(self, role: str, identity: Identity, peer_id: str, ciphers: Sequence[str], fields: Map) -> None:
        self.role, self.identity, self.peer_id = role, identity, peer_id
        self.ciphers: list[str] = [*ciphers]
        self.fields: dict[int, Map] = {1: fields}
        self.heard: set[int] = set()
        self.th1 = self.th2 = self.confirm = b""
        self.peer_dh = self.b_next = b""  # at A: B's identity key, and the header key of B's first chain
        self.ratchet: Ratchet
        self.trace: Map = {}

    @property
    def spec(self) -> str:
        return str(self.fields[1]["spec"])

    @property
    def confirmed(self) -> bool:
        """A knows B from phase 2, B knows A from phase 3."""
        return (2 if self.role == "a" else 3) in self.heard

    # --- the beginning ---

    @classmethod
    def initiate(
        cls, identity: Identity, specs: Sequence[str], bundle: Map, one_time: Map | None, draws: Draws
    ) -> Session:
        """A's end, of a bundle and one-time key that were checked."""
        own, peer = identity.public, Public(bundle["sign"], bundle["dh"])
        spec = choose(specs, bundle["specs"])
        a1, kem_a = draws.x25519("a1"), draws.kem_seed("kem_a")
        kpk = one_time["kem_public"] if one_time else bundle["kem_prekey"]["public"]
        ciphertext, secret = draws.encapsulate("kem1", kpk)
        which = "one_time_id" if one_time else "kem_prekey_id"
        fields = {
            "spec": spec,
            "sign": own.sign,
            "dh": own.dh,
            "prekey_id": bundle["prekey"]["key_id"],
            which: one_time["key_id"] if one_time else bundle["kem_prekey"]["key_id"],
            "public_key": x25519_public(a1),
            "kem_public_key": kem_public(kem_a),
            "kem_ciphertext": ciphertext,
        }
        session = cls("a", identity, peer.id, specs, fields)
        spk, otk = bundle["prekey"]["public"], one_time["public"] if one_time else b""
        offer = _Offer(own, peer, specs, bundle["specs"], spk, kpk, otk)
        shared = dh(identity.dh_private, spk) + dh(a1, peer.dh) + dh(a1, spk) + (dh(a1, otk) if otk else b"")
        root, chain, header, b_next, a_next = session._first_keys(offer, shared + secret)
        sending = Chain(chain, header, x25519_public(a1))
        session.peer_dh, session.b_next = peer.dh, b_next
        session.ratchet = Ratchet(spec, session.th1, root, sending, a_next, None, b_next, own=(a1, kem_a), peer=None)
        return session

    @classmethod
    def accept(
        cls, identity: Identity, specs: Sequence[str], prekeys: Prekeys, inner: Map, draws: Draws
    ) -> tuple[Session, Opened]:
        """B's end, of a phase 1 that is B's first; `specs` are those of the bundle. Nothing is taken from `prekeys`."""
        data, ciphers = as_map(inner.get("data")), texts_field(inner, "ciphers")
        fields = {key: value for key, value in data.items() if key != "message"}
        peer, own = Public(raw_field(data, "sign", KEY), raw_field(data, "dh", KEY)), identity.public
        if inner.get("src") != peer.id or inner.get("dst") != own.id:
            raise RefusedError("not-sender", "not the ids of phase 1")
        if text_field(data, "spec") != choose(ciphers, specs):
            raise RefusedError("no-common-spec", "not what the two lists give")
        a1, kem_a = raw_field(data, "public_key", KEY), raw_field(data, "kem_public_key", KEM_PUBLIC)
        ciphertext = raw_field(data, "kem_ciphertext", KEM_CIPHERTEXT)
        prekey = prekeys.prekeys.get(number_field(data, "prekey_id"))
        one_time = prekeys.one_time.get(number_field(data, "one_time_id")) if "one_time_id" in data else None
        seed = one_time[1] if one_time else prekeys.kem_prekeys.get(data.get("kem_prekey_id", -1))
        if prekey is None or seed is None:
            raise RefusedError("malformed", "unknown prekeys")
        session = cls("b", identity, peer.id, ciphers, fields)
        otk = x25519_public(one_time[0]) if one_time else b""
        offer = _Offer(peer, own, ciphers, specs, x25519_public(prekey), kem_public(seed), otk)
        shared = dh(prekey, peer.dh) + dh(identity.dh_private, a1) + dh(prekey, a1)
        shared += dh(one_time[0], a1) if one_time else b""
        keys = session._first_keys(offer, shared + decapsulate(seed, ciphertext))
        root, chain, header, b_next, a_next = keys
        ratchet = Ratchet(
            session.spec, session.th1, root, None, b"", Chain(chain, header, a1), a_next, own=None, peer=(a1, kem_a)
        )
        session.ratchet = ratchet
        content = ratchet.open(as_map(data.get("message")), (peer.id, own.id))
        session.heard.add(1)
        session._make_phase2(b_next, draws)
        return session, Opened(content, 2, False)

    def _first_keys(self, offer: _Offer, shared: bytes) -> list[bytes]:
        suite, ikm = SUITES[self.spec], b"\xff" * 32 + shared
        self.th1 = offer.th1(self.fields[1])
        keys = split(suite.labelled(suite.hmac(b"\0" * 32, ikm), "session", self.th1, 160))
        names = "root0", "a_chain", "a_header_key", "b_next_header_key", "a_next_header_key"
        self.trace = {"th1": self.th1, "ikm": ikm, **dict(zip(names, keys, strict=True))}
        return keys

    # --- phase 2 ---

    def _make_phase2(self, b_next: bytes, draws: Draws) -> None:
        ratchet, first, identity = self.ratchet, self.fields[1], self.identity
        b1, kem_b = draws.x25519("b1"), draws.kem_seed("kem_b")
        ciphertext, secret = draws.encapsulate("kem2", first["kem_public_key"])
        fields = {"public_key": x25519_public(b1), "kem_ciphertext": ciphertext, "kem_public_key": kem_public(kem_b)}
        a1 = first["public_key"]
        shared = dh(b1, a1) + dh(b1, first["dh"]) + dh(identity.dh_private, a1)
        root, chain, following = self._second_keys(fields, shared + secret)
        ratchet.root, ratchet.own, ratchet.next_sending = root, (b1, kem_b), following
        ratchet.sending = Chain(chain, b_next, fields["public_key"])
        self.fields[2] = {**fields, "mac": self._mac(2)}

    def _take_phase2(self, fields: Map) -> None:
        ratchet, b1 = self.ratchet, raw_field(fields, "public_key", KEY)
        ciphertext, kem = (
            raw_field(fields, "kem_ciphertext", KEM_CIPHERTEXT),
            raw_field(fields, "kem_public_key", KEM_PUBLIC),
        )
        if ratchet.own is None:
            raise RefusedError("malformed", "phase 2 came before")
        a1, seed = ratchet.own
        shared = dh(a1, b1) + dh(self.identity.dh_private, b1) + dh(a1, self.peer_dh)
        root, chain, following = self._second_keys(fields, shared + decapsulate(seed, ciphertext))
        self._check_mac(2, fields)
        ratchet.root = root
        ratchet.begin_receiving(Chain(chain, self.b_next, b1), following, (b1, kem))
        self.fields[2] = fields

    def _second_keys(self, fields: Map, ikm: bytes) -> tuple[bytes, bytes, bytes]:
        suite = SUITES[self.spec]
        parts = [fields[key] for key in ("public_key", "kem_ciphertext", "kem_public_key")]
        self.th2 = suite.hash(self.th1 + lp(*parts))
        keys = split(suite.hkdf(self.ratchet.root, ikm, b"sims/2 phase 2" + self.th2, 128))
        names = "root1", "b_chain", "b_following_header_key", "confirm"
        self.trace |= {"th2": self.th2, "ikm2": ikm, **dict(zip(names, keys, strict=True))}
        self.confirm = keys[3]
        return keys[0], keys[1], keys[2]

    def _mac(self, phase: int) -> bytes:
        suite = SUITES[self.spec]
        return suite.hmac(suite.labelled(self.confirm, f"phase {phase}", self.th2, 32), self.th2)

    def _check_mac(self, phase: int, fields: Map) -> None:
        if fields.get("mac") != self._mac(phase):
            raise RefusedError("not-authenticated", f"the mac of phase {phase}")

    # --- messages ---

    def seal(self, content: bytes | None, mid: bytes, draws: Draws) -> Map:
        """The inner message of a content, or of the phase that is due."""
        src = self.identity.id
        tail = {"src": src, "dst": self.peer_id, "mid": mid}
        message = None if content is None else self.ratchet.seal(content, (src, self.peer_id), draws)
        self.trace = {} if message is None else dict(self.ratchet.trace)
        phase = self._phase(content)
        if phase is None:
            return {"type": "client-com", "data": message, **tail}
        head: Map = {"type": "client-connect", "phase": phase}
        data: Map = dict(self.fields[phase]) if phase < 3 else {"mac": self._mac(phase)}
        if phase == 1:
            head["ciphers"] = self.ciphers
        else:
            self.trace[f"mac{phase}"] = data["mac"]
        if message is not None:
            data["message"] = message
        return {**head, "data": data, **tail}

    def _phase(self, content: bytes | None) -> int | None:
        """As which phase a message goes: as p, until p + 1 has arrived."""
        if self.role == "b":
            return 2 if 3 not in self.heard else 4 if content is None else None
        return 1 if 2 not in self.heard else 3 if 4 not in self.heard else None

    def receive(self, inner: Map) -> Opened:
        """Open a message of this session; nothing has moved when anything is raised."""
        trial = copy.copy(self)
        trial.ratchet, trial.fields = copy.deepcopy(self.ratchet), dict(self.fields)
        trial.heard, trial.trace = set(self.heard), {}
        opened = trial._receive(inner)
        self.__dict__.update(trial.__dict__)
        return opened

    def _receive(self, inner: Map) -> Opened:
        data, phase = as_map(inner.get("data")), inner.get("phase")
        if (inner.get("src"), inner.get("dst")) != (self.peer_id, self.identity.id):
            raise RefusedError("not-sender", "not between these two")
        if inner.get("type") == "client-com":
            if not self.confirmed:
                raise RefusedError("not-authenticated", "before the phase that confirms the sender")
            return self._open(data, None)
        fields = {key: value for key, value in data.items() if key != "message"}
        if phase not in ((2, 4) if self.role == "a" else (1, 3)):
            raise RefusedError("malformed", "not a phase for this end")
        known = phase in self.heard
        if phase == 1 and (fields != self.fields[1] or inner.get("ciphers") != self.ciphers):
            raise RefusedError("malformed", "other fields than the accepted ones")
        if phase == 2 and known and fields != self.fields[2]:
            raise RefusedError("malformed", "other fields than the accepted ones")
        if phase == 2 and not known:
            self._take_phase2(fields)
        if phase in (3, 4):
            if phase == 4 and 2 not in self.heard:
                raise RefusedError("malformed", "phase 4 before phase 2")
            self._check_mac(phase, fields)
        self.heard.add(phase)
        due = phase + 1 if not known and phase in (2, 3) else None
        if "message" in data and phase != 4:
            return self._open(as_map(data["message"]), due)
        if phase == 1:
            raise RefusedError("malformed", "phase 1 without a message")
        return Opened(None, due, False)

    def _open(self, message: Map, due: int | None) -> Opened:
        content = self.ratchet.open(message, (self.peer_id, self.identity.id))
        return Opened(content, due, self.ratchet.late)
