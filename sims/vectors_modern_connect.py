"""The vectors of connect and of the hop behind it: values, frames, and everything that must be refused."""

from __future__ import annotations

import json
from base64 import b64encode
from functools import partial
from typing import Any, Literal

from msgspec import UNSET

from sims.crypto import payloads, primitives, schedule
from sims.crypto.handshake import Client, Server
from sims.crypto.hop import Box, Hop
from sims.crypto.identity import Identity, PublicIdentity
from sims.crypto.notation import u64, unpad
from sims.crypto.payloads import Answer, ClientProof, Offer, ServerProof, Welcome
from sims.crypto.primitives import KemKey, X25519Key
from sims.errors import malformed
from sims.specs import ModernSpec, modern_by_names
from sims.strictjson import Octets, parse_json
from sims.vectors_modern_given import Draws, all_keys, each, mutated, octets, refused, unhex
from sims.vectors_report import Part, UnusableError

_Frame = dict[str, Any]
_SIDES = ("client", "server")


def _compact(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


def _base64(data: bytes) -> str:
    return b64encode(data).decode("ascii")


def _parsed(text: str) -> _Frame:
    value = parse_json(text.encode())
    if not isinstance(value, dict):
        raise malformed("not a frame")
    return value


def _raw(frame: _Frame) -> dict[str, Any]:
    """The ``data`` of a frame with raw byte fields."""
    data = frame.get("data")
    if not isinstance(data, dict):
        raise malformed("a frame without data")
    try:
        return {key: Octets.from_text(value) if isinstance(value, str) else value for key, value in data.items()}
    except ValueError:
        raise malformed("a byte field that is not base64") from None


def _spelled(data: Offer | Answer) -> dict[str, Any]:
    """The ``data`` of a frame as JSON has it."""
    fields = ((name, getattr(data, name)) for name in data.__struct_fields__)
    return {name: _base64(value) if isinstance(value, bytes) else value for name, value in fields}


def _picture(end: object) -> object:
    """A picture of the state of one end of connect, or of a hop."""
    slots = getattr(type(end), "__slots__", None) or vars(end)
    held = {name: getattr(end, name) for name in slots}
    transcript = held.get("_transcript")
    return held, transcript and (transcript.hash, transcript.hs)


class _Impostor(Identity):
    """Keys of one, signatures of another."""

    def __init__(self, own: Identity, signer: Identity) -> None:
        stored = own.private_bytes()
        super().__init__(stored[:32], stored[32:])
        self._signer = signer

    def sign(self, purpose: str, message: bytes) -> bytes:
        return self._signer.sign(purpose, message)


class Connect:
    """One entry of ``connect``."""

    def __init__(self, part: Part, people: dict[str, Identity]) -> None:
        self._part = part
        self._people = people
        self._spec: ModernSpec = modern_by_names([part.take("spec", str)])[0]
        self._client, self._server = (self._person(part.take(side, str)) for side in _SIDES)
        self._frames = [str(frame) for frame in part.take("frames", list)]
        if len(self._frames) != 4:
            raise UnusableError("frames: not four")

    def run(self) -> None:
        """Compare everything in it."""
        part = self._part
        self._values()
        client, server = self._ends()
        client_hop, server_hop = self._play(client, server)
        _Secure(part, self._spec, client_hop, server_hop).run()
        each(part, "negative", f"{part.place}, refused", self._negative)

    def _person(self, name: object) -> Identity:
        if not isinstance(name, str) or name not in self._people:
            raise UnusableError("names nobody whose keys are given")
        return self._people[name]

    # --- value by value -----------------------------------------------------------------------------------------------

    def _values(self) -> None:
        part, spec = self._part, self._spec
        client, server = part.part("client_draws"), part.part("server_draws")
        x1, x2 = X25519Key(octets(client, "x1")), X25519Key(octets(server, "x2"))
        kem = KemKey(octets(client, "k1"))
        given = server.part("kem2")
        ciphertext = octets(given, "ciphertext")
        known = {f"{name}{phase}" for phase in (2, 3, 4) for name in ("key", "nonce", "plain", "sealed")}
        known |= {"th1", "th2", "th3", "th4", "dh", "kem_secret", "hs", "root", "client_chain", "server_chain"}
        values = all_keys(part, "values", known)
        given.check("secret", kem.decapsulate(ciphertext))
        values.check("kem_secret", octets(given, "secret"))
        dh = x1.exchange(x2.public)
        values.check("dh", dh)
        hs = schedule.connect_secret(spec, octets(given, "secret"), dh)
        values.check("hs", hs)
        transcript = schedule.connect_th1(
            spec,
            self._frames[0].encode(),
            octets(part, "binding"),
            octets(server, "random2"),
            x2.public,
            ciphertext,
        )
        values.check("th1", transcript)
        phases: tuple[Literal[2, 3, 4], ...] = (2, 3, 4)
        for phase in phases:
            keys = schedule.connect_phase(spec, hs, phase, transcript)
            values.check(f"key{phase}", keys.key)
            values.check(f"nonce{phase}", keys.nonce)
            sealed = octets(values, f"sealed{phase}")
            plain = unpad("box", primitives.aead_open(spec.aead, keys.key, keys.nonce, transcript, sealed))
            values.check(f"plain{phase}", plain)
            self._proof(phase, plain, transcript)
            part.report.same(
                f"{part.place}, sealed{phase}", _parsed(self._frames[phase - 1])["data"]["sealed"], _base64(sealed)
            )
            transcript = schedule.connect_next(spec, transcript, sealed)
            values.check(f"th{phase}", transcript)
        for name, key in schedule.channel(spec, hs, transcript)._asdict().items():
            values.check(name, key)

    def _proof(self, phase: Literal[2, 3, 4], plain: bytes, transcript: bytes) -> None:
        """What a box says: whoever signs it, and that our own encoding of it has the same bytes."""
        found: ServerProof | ClientProof | Welcome
        if phase == 4:
            found = payloads.decode(Welcome, plain)
        else:
            proof: ServerProof | ClientProof
            proof = payloads.decode(ServerProof, plain) if phase == 2 else payloads.decode(ClientProof, plain)
            signer = self._server if phase == 2 else self._client
            self._part.report.same(f"{self._part.place}, the id in plain{phase}", signer.id, _id(proof))
            signed = transcript + (b"" if phase == 2 else self._server.id.encode())
            signer.public.verify(f"connect {_SIDES[3 - phase]}", signed, proof.signature)
            found = proof
        self._part.report.same(f"{self._part.place}, plain{phase} encoded anew", plain, payloads.encode(found))

    # --- both ends played ---------------------------------------------------------------------------------------------

    def _ends(self, negative: Part | None = None) -> tuple[Client, Server]:
        part, other = self._part, {} if negative is None else negative.values
        draws, server_draws = part.part("client_draws"), part.part("server_draws")
        server = self._server
        if "sign_with" in other:
            server = _Impostor(server, self._person(other["sign_with"]))
        invite = part.values.get("invite")
        return Client(
            self._client,
            other.get("link_id", server.id),
            part.take("name", str),
            modern_by_names(part.take("client_specs", list)),
            binding=unhex(other.get("client_binding", part.take("binding", str))),
            entropy=Draws.with_randoms([draws.take("x1", str), draws.take("k1", str)], [draws.take("random1", str)]),
            invite=invite,
        ), Server(
            server,
            modern_by_names(part.take("server_specs", list)),
            binding=octets(part, "binding"),
            entropy=Draws.with_randoms(
                [server_draws.take("x2", str), server_draws.take("kem2", dict)], [server_draws.take("random2", str)]
            ),
        )

    def _frame1(self, ciphers: list[str], data: Offer) -> bytes:
        head = {"type": "connect", "phase": 1, "name": "", "id": "", "ciphers": ciphers}
        return _compact({**head, "data": _spelled(data)}).encode()

    def _answer(self, server: Server, frame: str) -> str:
        value = _parsed(frame)
        ciphers = payloads.spec_list(value.get("ciphers"))
        agreed = server.answer(frame.encode(), ciphers, payloads.convert(Offer, _raw(value)))
        head = {"type": "connect", "phase": 2, "ciphers": agreed.spec.name}
        return _compact({**head, "data": _spelled(agreed.data)})

    def _prove(self, client: Client, frame: str) -> str:
        value = _parsed(frame)
        sealed = client.answer(str(value.get("ciphers")), payloads.convert(Answer, _raw(value)))
        return _compact({"type": "connect", "phase": 3, "data": {"sealed": _base64(sealed)}})

    def _welcomed(self) -> Welcome:
        return payloads.decode(Welcome, octets(self._part.part("values"), "plain4"))

    def _play(self, client: Client, server: Server) -> tuple[Hop, Hop]:
        same, place = self._part.report.same, self._part.place
        first = client.offer(self._frame1).decode()
        same(f"{place}, frame 1", self._frames[0], first)
        second = self._answer(server, first)
        same(f"{place}, frame 2", self._frames[1], second)
        third = self._prove(client, second)
        same(f"{place}, frame 3", self._frames[2], third)
        claim = server.accept(_raw(_parsed(third))["sealed"])
        same(f"{place}, who claims to be there", self._client.id, claim.id)
        same(f"{place}, their name", self._part.take("name", str), claim.name)
        same(f"{place}, their invitation", self._part.values.get("invite"), claim.invite)
        welcome = self._welcomed()
        epoch = None if welcome.epoch is UNSET else welcome.epoch
        sealed, server_hop = server.welcome(welcome.name, welcome.limits, welcome.time, 0.0, epoch)
        fourth = _compact({"type": "connect", "phase": 4, "data": {"sealed": _base64(sealed)}})
        same(f"{place}, frame 4", self._frames[3], fourth)
        joined = client.finish(sealed, 0.0)
        same(f"{place}, the name that the server gives", welcome.name, joined.name)
        return joined.hop, server_hop

    def _negative(self, negative: Part) -> None:
        negative.check("expect", "refused")
        client, server = self._ends(negative)
        frames = list(self._frames)
        number = 0
        if "frame" in negative.values:
            number = negative.take("frame", int)
            frame = mutated(_parsed(frames[number - 1]), negative.part("mutate"), base64=True)
            frames[number - 1] = _compact(frame)

        def through() -> None:
            client.offer(self._frame1)
            second = self._answer(server, frames[0])
            self._prove(client, frames[1] if number == 2 else second)
            server.accept(_raw(_parsed(frames[2]))["sealed"])
            client.finish(_raw(_parsed(frames[3]))["sealed"], 0.0)

        refused(negative.report, negative.place, through)
        # Where it failed, whoever refused is as it was before: once more, with a picture taken just before.
        client, server = self._ends(negative)
        client.offer(self._frame1)
        if _refuses(negative, lambda: self._answer(server, frames[0]), server):
            return
        second = frames[1] if number == 2 else self._answer(self._ends(negative)[1], frames[0])
        if _refuses(negative, lambda: self._prove(client, second), client):
            return
        if not _refuses(negative, lambda: server.accept(_raw(_parsed(frames[2]))["sealed"]), server):
            _refuses(negative, lambda: client.finish(_raw(_parsed(frames[3]))["sealed"], 0.0), client)


def _refuses(part: Part, act: Any, end: object) -> bool:
    """Whether an end refuses; if so, its state has to be the same."""
    before = _picture(end)
    try:
        act()
    except Exception:  # which one was checked before
        part.report.same(f"{part.place}, the state after a refusal", True, _picture(end) == before)
        return True
    return False


def _id(proof: ServerProof | ClientProof) -> str:
    return PublicIdentity(proof.sign, proof.dh).id


# --- the hop ----------------------------------------------------------------------------------------------------------


class _Secure:
    """The messages after phase 4."""

    def __init__(self, part: Part, spec: ModernSpec, client: Hop, server: Hop) -> None:
        self._part = part
        self._spec = spec
        self._hops = {"client": client, "server": server}
        values = part.part("values")
        self._th4 = octets(values, "th4")
        self._chains = {side: octets(values, f"{side}_chain") for side in _SIDES}
        self._numbers = dict.fromkeys(_SIDES, 0)
        self._next: schedule.Channel | None = None
        self._reply: Box | None = None
        self._given: list[list[Any]] = []
        self._negatives: dict[int, list[Part]] = {}
        self._count = 0

    def run(self) -> None:
        """Compare everything in them."""
        part = self._part
        each(part, "secure", f"{part.place}, secure", self._gather)
        each(part, "secure_negative", f"{part.place}, refused secure", self._negative)
        self._rekeyed()
        each(part, "secure", f"{part.place}, secure", self._step)
        if self._negatives:
            part.report.fault(f"{part.place}, refused secure: names steps that there are not")

    def _gather(self, step: Part) -> None:
        if "draws" in step.values:
            self._given.append(list(step.take("draws", dict).values()))

    def _negative(self, negative: Part) -> None:
        negative.check("expect", "refused")
        self._negatives.setdefault(negative.take("step", int), []).append(negative)

    def _rekeyed(self) -> None:
        """The keys that the rekey gives."""
        if len(self._given) != 2:
            raise UnusableError("secure: not two messages with draws")
        (x1, k1), (x2, kem2) = self._given
        ciphertext, secret = (unhex(kem2.get(key)) for key in ("ciphertext", "secret"))
        same = self._part.report.same
        same(f"{self._part.place}, rekey_kem2", secret, KemKey(unhex(k1)).decapsulate(ciphertext))
        dh = X25519Key(unhex(x1)).exchange(X25519Key(unhex(x2)).public)
        root = octets(self._part.part("values"), "root")
        self._next = schedule.rekeyed(self._spec, root, dh, secret)
        values = all_keys(self._part, "rekey_values", [f"rekey_{name}" for name in schedule.Channel._fields])
        for name, key in self._next._asdict().items():
            values.check(f"rekey_{name}", key)

    def _step(self, step: Part) -> None:
        negatives = self._negatives.pop(self._count, [])
        self._count += 1
        by = step.take("by", str)
        if by not in _SIDES:
            raise UnusableError("by: neither client nor server")
        sender = self._hops[by]
        receiver = self._hops["server" if by == "client" else "client"]
        values = all_keys(step, "values", ("message_key", "next_chain", "key", "nonce", "ad", "plaintext"))
        plaintext = octets(values, "plaintext")
        link = schedule.link(self._spec, self._chains[by])
        keys = schedule.box_keys(self._spec, link.message_key, "secure")
        values.check("message_key", link.message_key)
        values.check("next_chain", link.next_chain)
        values.check("key", keys.key)
        values.check("nonce", keys.nonce)
        values.check("ad", self._th4 + (b"\x01" if by == "client" else b"\x02") + u64(self._numbers[by]))
        self._chains[by] = link.next_chain
        self._numbers[by] += 1

        inner = payloads.decode(dict, plaintext)
        rekey = inner.get("phase") if inner.get("type") == "rekey" else None
        if rekey is None:
            box = sender.seal(plaintext)
        elif rekey == 1:
            box = sender.begin_rekey(Draws(self._given[0]))
        elif self._reply is not None:
            box, self._reply = self._reply, None
        else:
            raise UnusableError("frame: a rekey out of order")
        text = step.take("frame", str)
        step.check("frame", _compact(_secure(box)))
        frame = _parsed(text)
        for negative in negatives:
            changed = mutated(frame, negative.part("mutate"), base64=True)
            act, picture = partial(_open, receiver, changed), partial(_picture, receiver)
            refused(step.report, negative.place, act, picture)
        step.report.same(f"{step.place}, the plaintext that comes out", plaintext, _open(receiver, frame))
        refused(step.report, f"{step.place}, once more", lambda: _open(receiver, frame), lambda: _picture(receiver))
        if rekey is not None:
            self._reply = receiver.rekey(rekey, inner.get("data"), 0.0, Draws(self._given[1]))
            refused(
                step.report,
                f"{step.place}, once more",
                lambda: receiver.rekey(rekey, inner.get("data"), 0.0, Draws(self._given[1])),
                lambda: _picture(receiver),
            )
            if rekey > 1 and self._next is not None:
                side = "server" if rekey == 2 else "client"
                self._chains[side] = getattr(self._next, f"{side}_chain")


def _secure(box: Box) -> _Frame:
    return {"type": "secure", "sa-data": {"n": box.n}, "payload": {"ciphertext": _base64(box.ciphertext)}}


def _open(hop: Hop, frame: _Frame) -> bytes:
    try:
        ciphertext = Octets.from_text(frame["payload"]["ciphertext"])
        n = frame["sa-data"]["n"]
    except (KeyError, TypeError, ValueError):
        raise malformed("not a secure") from None
    return hop.open(n, ciphertext, 0.0)
