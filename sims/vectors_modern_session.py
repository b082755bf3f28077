"""The vectors of client-connect and client-com: a session with every step, and everything that must be refused."""

from __future__ import annotations

from typing import Any

import msgspec

from sims.crypto import content as contents
from sims.crypto import payloads, primitives, schedule
from sims.crypto import session as sessions
from sims.crypto.chains import header_ad
from sims.crypto.content import Order, OwnStream
from sims.crypto.identity import Identity
from sims.crypto.opening import accept_session, open_session
from sims.crypto.prekeys import Bundle, OneTimeKey, OwnPrekeys
from sims.crypto.primitives import KemKey, X25519Key
from sims.crypto.schedule import Party, Prekeys
from sims.crypto.session import Outgoing, SessionState
from sims.errors import Code, PeerError
from sims.specs import ModernSpec, modern_by_names
from sims.vectors_modern_given import Draws, all_keys, each, expects_refusal, mutated, octets, refused, unhex
from sims.vectors_report import Part, UnusableError

_NOW = 1_800_000_000
_TEXTS = frozenset({"name", "spec", "specs"})


def raw_bundle(values: dict[str, Any]) -> dict[str, Any]:
    """A map of the file with raw byte fields: all strings but names and specs are hex."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            found[key] = raw_bundle(value)
        else:
            found[key] = unhex(value) if isinstance(value, str) and key not in _TEXTS else value
    return found


def _spelled(value: object) -> object:
    """A value as the file has it."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dict):
        return {key: _spelled(item) for key, item in value.items()}
    return [_spelled(item) for item in value] if isinstance(value, list | tuple) else value


class _End:
    """One end of a session."""

    def __init__(self, identity: Identity) -> None:
        self.identity = identity
        self.session: sessions.Session | None = None
        self.order = Order()
        self.stream: OwnStream | None = None

    @property
    def state(self) -> SessionState:
        if self.session is None:
            raise UnusableError("by: has no session yet")
        return self.session.state


class Session:
    """One entry of ``sessions``."""

    def __init__(self, part: Part, people: dict[str, Identity]) -> None:
        self._part = part
        self._same = part.report.same
        names = [part.take("initiator", str), part.take("responder", str)]
        if len(set(names)) != 2 or not set(names) <= people.keys():
            raise UnusableError("initiator, responder: not two whose keys are given")
        self._a, self._b = (_End(people[name]) for name in names)
        self._ends = dict(zip(names, (self._a, self._b), strict=True))
        self._spec: ModernSpec = modern_by_names([part.take("spec", str)])[0]
        self._a_specs = modern_by_names(part.take("a_specs", list))
        self._b_specs = modern_by_names(part.take("b_specs", list))
        self._prekeys = OwnPrekeys()
        self._bundle, self._one_time = self._publish()
        self._th1, self._root0 = self._create()
        self._sent: dict[int, dict[str, Any]] = {}

    def run(self) -> None:
        """Take every step."""
        each(self._part, "steps", f"{self._part.place}, step", self._step)

    def _step(self, step: Part) -> None:
        operation = step.take("op", str)
        if operation not in ("seal", "open"):
            raise UnusableError("op: neither seal nor open")
        (self._seal if operation == "seal" else self._open)(step)

    # --- the beginning ------------------------------------------------------------------------------------------------

    def _publish(self) -> tuple[Bundle, OneTimeKey | None]:
        part, b = self._part, self._b.identity
        draws = part.part("bob_draws")
        values = part.part("bundle")
        # As the file has them, whatever make_bundle would say to this version and end.
        bundle = self._prekeys._make(
            b,
            values.take("name", str),
            tuple(spec.name for spec in self._b_specs),
            values.take("version", int),
            values.take("expires", int),
            Draws([draws.take("prekey", str), draws.take("kem_prekey", str)]),
        )
        part.check("bundle", _spelled(msgspec.to_builtins(bundle, builtin_types=(bytes,))))
        part.check("signed", bundle.signed())
        if part.values.get("one_time_key") is None:
            part.check("one_time_key", None)
            part.check("one_time_signed", None)
            return bundle, None
        number = part.part("one_time_key").take("key_id", int)
        given = Draws([draws.take(f"one_time_{number}", str), draws.take(f"one_time_kem_{number}", str)])
        key = self._prekeys.make_one_time_keys(b, 1, now=_NOW, entropy=given)[0]
        part.check("one_time_key", _spelled(msgspec.to_builtins(key, builtin_types=(bytes,))))
        part.check("one_time_signed", key.signed(b.id))
        return bundle, key

    def _create(self) -> tuple[bytes, bytes]:
        """Phase 1 worked out from its draws, and A's end made from the same."""
        a, b, spec, bundle, one_time = self._a.identity, self._b.identity, self._spec, self._bundle, self._one_time
        create = self._part.part("create")
        draws = all_keys(create, "draws", ("a1", "kem_a", "kem1"))
        a1, kem = X25519Key(octets(draws, "a1")), KemKey(octets(draws, "kem_a"))
        given = draws.part("kem1")
        ciphertext, secret = octets(given, "ciphertext"), octets(given, "secret")
        kpk = bundle.kem_prekey.public if one_time is None else one_time.kem_public
        otk = b"" if one_time is None else one_time.public
        seeds = self._part.part("bob_draws")
        seed = seeds.take("kem_prekey" if one_time is None else f"one_time_kem_{one_time.key_id}", str)
        given.check("secret", KemKey(unhex(seed)).decapsulate(ciphertext))
        th1 = schedule.session_th1(
            spec,
            Party(a.id, a.public.sign, a.public.dh, tuple(map(str, self._a_specs))),
            Party(b.id, b.public.sign, b.public.dh, bundle.specs),
            Prekeys(bundle.prekey.public, kpk, otk),
            a1.public,
            kem.public,
            ciphertext,
        )
        ikm = schedule.session_ikm(
            a.dh.exchange(bundle.prekey.public),
            a1.exchange(b.public.dh),
            a1.exchange(bundle.prekey.public),
            a1.exchange(otk) if otk else b"",
            secret,
        )
        keys = schedule.initial(spec, th1, ikm)
        self._initial = {"th1": th1, "ikm": ikm, "root0": keys.root, **keys._asdict()}
        del self._initial["root"]
        values = all_keys(create, "values", self._initial)
        for name, value in self._initial.items():
            values.check(name, value)
        entropy = Draws([draws.take("a1", str), draws.take("kem_a", str), draws.take("kem1", dict)])
        self._a.session = open_session(a, self._a_specs, bundle, one_time, now=_NOW, entropy=entropy, expected=b.id)
        self._same(f"{self._part.place}, the spec that both lists give", spec.name, self._a.session.spec.name)
        self._same(f"{self._part.place}, th1 of the session", th1, self._a.session.th1)
        return th1, keys.root

    # --- steps --------------------------------------------------------------------------------------------------------

    def _end(self, step: Part) -> _End:
        name = step.take("by", str)
        if name not in self._ends:
            raise UnusableError("by: neither initiator nor responder")
        return self._ends[name]

    def _seal(self, step: Part) -> None:
        end = self._end(step)
        other = self._b if end is self._a else self._a
        number, wire = step.take("message", int), step.take("wire", dict)
        if end.session is None:
            raise UnusableError("by: has no session yet")
        content, values = None, {}
        if step.values.get("content") is not None:
            content = octets(step, "content")
            said = contents.decode(content)
            if isinstance(said, contents.Unknown):
                raise UnusableError("content: of no known kind")
            end.stream = end.stream or OwnStream(stream=said.stream)
            encoded, end.stream = end.stream.next(said)
            step.check("content", encoded)
            values["chain_out"] = end.stream.chain
        draws = step.take("draws", dict)
        before = end.state.ratchet
        entropy = Draws(draws.values())
        sent = end.session.seal(content, entropy)
        self._same(f"{step.place}, draws left over", 0, entropy.left)
        made = _wire(sent, end.identity.id, other.identity.id, wire.get("mid"))
        step.check("wire", made)
        self._same(f"{step.place}, the size of the mid", 16, len(unhex(wire.get("mid"))))
        after = end.state.ratchet
        if "dh" in draws:
            receiving = before.receiving
            if receiving is None:
                raise UnusableError("draws: a ratchet step before the peer's first")
            given = Part(step.report, step.place, draws).part("ratchet_kem")
            ikm = X25519Key(unhex(draws["dh"])).exchange(receiving.dh) + octets(given, "secret")
            keys = schedule.step(self._spec, before.root, ikm)
            values |= {"step_ikm": ikm, **keys._asdict()}
            self._same(f"{step.place}, the root that is kept", keys.root, after.root)
            chain = keys.chain
        else:
            chain = before.sending.key
        if content is not None:
            values |= self._message_values(sent, chain, after.sending.header_key)
            self._same(f"{step.place}, the chain key that is kept", values["next_chain"], after.sending.key)
        if sent.phase in (2, 3, 4):
            values[f"mac{sent.phase}"] = made["data"]["mac"]
        compared = all_keys(step, "values", values)
        for name, value in values.items():
            compared.check(name, value)
        self._sent[number] = wire

    def _message_values(self, sent: Outgoing, chain: bytes, header_key: bytes) -> dict[str, Any]:
        message = sent.data if isinstance(sent.data, payloads.Message) else getattr(sent.data, "message", None)
        if not isinstance(message, payloads.Message):
            raise UnusableError("content: sealed without a message")
        r, sealed = message.header[:12], message.header[12:]
        header = primitives.aead_open(self._spec.aead, header_key, r, header_ad(self._th1), sealed)
        link = schedule.link(self._spec, chain)
        key, iv = schedule.box_keys(self._spec, link.message_key, "message")
        return {
            "header_key": header_key,
            "header_plain": header[:41],
            "message_key": link.message_key,
            "next_chain": link.next_chain,
            "key": key,
            "iv": iv,
            "nonce": schedule.body_nonce(iv, r),
            "pn": int.from_bytes(header[33:37], "big"),
            "n": int.from_bytes(header[37:41], "big"),
        }

    def _open(self, step: Part) -> None:
        end = self._end(step)
        number = step.take("message", int)
        if number not in self._sent:
            raise UnusableError("message: was not sealed yet")
        wire = self._sent[number]
        fresh = step.values.get("new_session") is True
        if expects_refusal(step):
            if "mutate" in step.values:
                wire = mutated(wire, step.part("mutate"))

            def picture() -> object:
                session = None if end.session is None else end.session.dump()
                return session, self._prekeys.dump(), end.order.dump()

            refused(step.report, step.place, lambda: self._come(end, wire, Draws(), fresh), picture)
            return
        first = end.session is None
        draws = step.take("draws", dict)
        if first:
            self._second(step, wire, draws)
        entropy = Draws(draws.values())
        opened = self._come(end, wire, entropy, fresh)
        self._same(f"{step.place}, draws left over", 0, entropy.left)
        step.check("content", opened.content)
        step.check("due", opened.due)
        step.check("confirmed", opened.confirmed)
        if opened.confirmed:
            end.order.confirm(self._th1)
        if opened.content is not None:
            arrival = end.order.receive(self._th1, opened.content, confirmed=opened.confirmed)
            step.check("order", str(arrival.place))

    def _come(self, end: _End, wire: dict[str, Any], entropy: Draws, fresh: bool) -> sessions.Opened:
        """A message arrives."""
        raw = raw_bundle(wire.get("data", {}))
        came = sessions.incoming(
            str(wire.get("src")), str(wire.get("dst")), wire.get("phase"), wire.get("ciphers"), raw
        )
        if end.session is not None and not fresh:
            opened = end.session.open(came, _NOW)
            if opened.duplicate:  # which is none to a messenger, and one to the file
                raise PeerError(Code.NOT_AUTHENTICATED, "a message that was opened before")
            return opened
        session, opened = accept_session(end.identity, self._prekeys, self._b_specs, came, now=_NOW, entropy=entropy)
        end.session = session
        return opened

    def _second(self, step: Part, wire: dict[str, Any], draws: dict[str, Any]) -> None:
        """Phase 2 worked out from its draws."""
        spec, a, b = self._spec, self._a.identity.public, self._b.identity
        data = raw_bundle(wire["data"])
        given = Part(step.report, step.place, draws)
        b1, kem = X25519Key(octets(given, "b1")), KemKey(octets(given, "kem_b"))
        encapsulated = given.part("kem2")
        ciphertext, secret = octets(encapsulated, "ciphertext"), octets(encapsulated, "secret")
        own = KemKey(octets(self._part.part("create").part("draws"), "kem_a"))
        encapsulated.check("secret", own.decapsulate(ciphertext))
        th2 = schedule.session_th2(spec, self._th1, b1.public, ciphertext, kem.public)
        a1 = data["public_key"]
        ikm2 = b1.exchange(a1) + b1.exchange(a.dh) + b.dh.exchange(a1) + secret
        keys = schedule.second(spec, self._root0, th2, ikm2)
        found = {
            **self._initial,
            "th2": th2,
            "ikm2": ikm2,
            "root1": keys.root,
            "b_chain": keys.chain,
            "b_following_header_key": keys.header_key,
            "confirm": keys.confirm,
        }
        values = all_keys(step, "values", found)
        for name, value in found.items():
            values.check(name, value)


def _wire(sent: Outgoing, src: str, dst: str, mid: object) -> dict[str, Any]:
    """The whole inner message, as the file has it."""
    data = {
        key: value for key, value in msgspec.to_builtins(sent.data, builtin_types=(bytes,)).items() if value is not None
    }
    found: dict[str, Any] = {"type": "client-com" if sent.phase is None else "client-connect"}
    if sent.phase is not None:
        found["phase"] = sent.phase
    if sent.ciphers is not None:
        found["ciphers"] = list(sent.ciphers)
    return {**found, "data": _spelled(data), "src": src, "dst": dst, "mid": mid}
