"""The vectors of connect: values, frames, and everything that must be refused, by whom and why."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from msgspec import UNSET

from sims.crypto import payloads, primitives, schedule
from sims.crypto.handshake import Client, Server
from sims.crypto.hop import Hop
from sims.crypto.identity import Identity, PublicIdentity
from sims.crypto.notation import unpad
from sims.crypto.payloads import Answer, ClientProof, Offer, ServerProof, Welcome
from sims.crypto.primitives import KemKey, X25519Key
from sims.errors import Code, PeerError, malformed
from sims.specs import ModernSpec, modern_by_names
from sims.strictjson import Octets
from sims.vectors_modern_given import Draws, all_keys, each, mutated, octets, unhex
from sims.vectors_modern_hop import SIDES, Frame, Secure, as_base64, compact, parsed, picture
from sims.vectors_report import Part, UnusableError


def _raw(frame: Frame) -> dict[str, Any]:
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
    return {name: as_base64(value) if isinstance(value, bytes) else value for name, value in fields}


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
        self._client, self._server = (self._person(part.take(side, str)) for side in SIDES)
        self._frames = [str(frame) for frame in part.take("frames", list)]
        if len(self._frames) != 4:
            raise UnusableError("frames: not four")

    def run(self) -> None:
        """Compare everything in it."""
        part = self._part
        self._values()
        client, server = self._ends()
        client_hop, server_hop = self._play(client, server)
        Secure(part, self._spec, client_hop, server_hop).run()
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
                f"{part.place}, sealed{phase}", parsed(self._frames[phase - 1])["data"]["sealed"], as_base64(sealed)
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
            signer.public.verify(f"connect {SIDES[3 - phase]}", signed, proof.signature)
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
        return compact({**head, "data": _spelled(data)}).encode()

    def _answer(self, server: Server, frame: str) -> str:
        value = parsed(frame)
        ciphers = payloads.spec_list(value.get("ciphers"))
        agreed = server.answer(frame.encode(), ciphers, payloads.convert(Offer, _raw(value)))
        head = {"type": "connect", "phase": 2, "ciphers": agreed.spec.name}
        return compact({**head, "data": _spelled(agreed.data)})

    def _prove(self, client: Client, frame: str) -> str:
        value = parsed(frame)
        sealed = client.answer(str(value.get("ciphers")), payloads.convert(Answer, _raw(value)))
        return compact({"type": "connect", "phase": 3, "data": {"sealed": as_base64(sealed)}})

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
        claim = server.accept(_raw(parsed(third))["sealed"])
        same(f"{place}, who claims to be there", self._client.id, claim.id)
        same(f"{place}, their name", self._part.take("name", str), claim.name)
        same(f"{place}, their invitation", self._part.values.get("invite"), claim.invite)
        welcome = self._welcomed()
        epoch = None if welcome.epoch is UNSET else welcome.epoch
        sealed, server_hop = server.welcome(welcome.name, welcome.limits, welcome.time, 0.0, epoch)
        fourth = compact({"type": "connect", "phase": 4, "data": {"sealed": as_base64(sealed)}})
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
            frame = mutated(parsed(frames[number - 1]), negative.part("mutate"), base64=True)
            frames[number - 1] = compact(frame)

        def answer() -> None:
            second = self._answer(server, frames[0])
            frames[1] = frames[1] if number == 2 else second

        steps: tuple[tuple[Client | Server, Callable[[], object]], ...] = (
            (server, answer),
            (client, lambda: self._prove(client, frames[1])),
            (server, lambda: server.accept(_raw(parsed(frames[2]))["sealed"])),
            (client, lambda: client.finish(_raw(parsed(frames[3]))["sealed"], 0.0)),
        )
        client.offer(self._frame1)
        same, place = negative.report.same, negative.place
        for at, (end, act) in enumerate(steps, 1):
            before = picture(end)
            try:
                act()
            except PeerError as error:
                same(
                    f"{place}, the frame at which it is refused, and the code",
                    _due(negative, frames[0]),
                    (at, error.code),
                )
                same(f"{place}, the state after a refusal", True, picture(end) == before)
                return
        negative.report.fault(f"{place}: not refused")


def _due(negative: Part, frame1: str) -> tuple[int, Code]:
    """At which frame a handshake has to be refused, and with which code: whatever comes later is too late."""
    number = negative.values.get("frame", 2)
    if "mutate" not in negative.values:
        return number, Code.NOT_AUTHENTICATED
    how = negative.part("mutate").values
    if "set" in how:
        return number, Code.NO_COMMON_SPEC if how["path"] in ("ciphers", "data/version") else Code.MALFORMED
    if number != 1:
        return number, Code.NOT_AUTHENTICATED
    try:
        primitives.check_kem_public(_raw(parsed(frame1))["kem_public_key"])
    except PeerError:
        return 1, Code.MALFORMED
    return 2, Code.NOT_AUTHENTICATED  # the server cannot know, and answers


def _id(proof: ServerProof | ClientProof) -> str:
    return PublicIdentity(proof.sign, proof.dh).id
