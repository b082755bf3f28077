"""The independent ends of sims/2 against the vectors."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.peers.modern_connect import ClientConnect, ServerConnect, base64_field, to_frame
from tests.peers.modern_content import Content, Order
from tests.peers.modern_hop import Hop
from tests.peers.modern_identity import (
    Identity,
    Prekeys,
    bundle_signed,
    check_bundle,
    check_one_time,
    one_time_signed,
    safety_number,
)
from tests.peers.modern_primitives import (
    Draws,
    GivenDraws,
    Map,
    RefusedError,
    pack,
    pad,
    unpack,
    unpad,
    verify,
)
from tests.peers.modern_session import Session

if TYPE_CHECKING:
    from unittest import TestCase
else:
    from twisted.trial.unittest import SynchronousTestCase as TestCase

VECTORS: Map = json.loads((Path(__file__).parents[1] / "sims/test/vectors/modern-a.json").read_bytes())
IDENTITIES = {
    name: Identity(bytes.fromhex(keys["sign_private"]), bytes.fromhex(keys["dh_private"]))
    for name, keys in VECTORS["identities"].items()
}
TEXT_FIELDS = {"type", "ciphers", "spec", "src", "dst", "name", "specs"}


def raw(value: Any, name: str = "") -> Any:
    """A map of the vectors with its byte strings as bytes."""
    if isinstance(value, dict):
        return {key: raw(item, key) for key, item in value.items()}
    return bytes.fromhex(value) if isinstance(value, str) and name not in TEXT_FIELDS else value


def plain(value: Map) -> Map:
    """Values as the vectors have them."""
    return {key: item.hex() if isinstance(item, bytes) else item for key, item in value.items()}


def mutated(value: Map, how: Map, in_frame: bool) -> Map:
    """`mutate` of the vectors, on a copy: a frame as parsed, or an inner message or bundle with bytes."""
    top = at = copy.deepcopy(value)
    *path, last = how["path"].split("/")
    for key in path:
        at = at[key]
    if "remove" in how:
        del at[last]
    elif "set" in how:
        at[last] = how["set"]
    else:
        data = bytearray(base64_field(at, last) if in_frame else at[last])
        for index, byte in enumerate(bytes.fromhex(how["xor"])):
            data[how["at"] + index] ^= byte
        at[last] = json.loads(to_frame({"": bytes(data)}))[""] if in_frame else bytes(data)
    return top


class VectorTests(TestCase):
    """The vectors, all of them."""

    def refused(self, act: Callable[..., object], *args: Any) -> None:
        with self.assertRaises(RefusedError):
            act(*args)

    def test_identities(self) -> None:
        """Ids, safety numbers, signatures, keys of small order."""
        for name, keys in VECTORS["identities"].items():
            public = IDENTITIES[name].public
            self.assertEqual(
                [public.sign.hex(), public.dh.hex(), public.id], [keys[key] for key in ("sign", "dh", "id")]
            )
        for entry in VECTORS["safety_numbers"]:
            one, other = (IDENTITIES[name].public for name in entry["of"])
            self.assertEqual(safety_number(one, other), entry["number"])
        for entry in VECTORS["signatures"]:
            by, message = IDENTITIES[entry["by"]], bytes.fromhex(entry["message"])
            signature = by.signature(entry["purpose"], message)
            self.assertEqual(signature.hex(), entry["signature"])
            verify(by.public.sign, entry["purpose"], message, signature)
            self.refused(verify, by.public.sign, "another", message, signature)
            for key in VECTORS["small_order_keys"]:
                self.refused(verify, bytes.fromhex(key), entry["purpose"], message, signature)

    def test_padding(self) -> None:
        """What is padded, and what is not padding."""
        for entry in VECTORS["padding"]:
            data, limit = bytes.fromhex(entry["byte"]) * entry["count"], entry["limit"]
            if "expect" in entry:
                self.refused(pad, data, limit)
                continue
            padded = pad(data, limit)
            self.assertEqual((len(padded), hashlib.sha256(padded).hexdigest()), (entry["length"], entry["sha256"]))
            self.assertEqual(unpad(padded, limit), data)
        for entry in VECTORS["padding_refused"]:
            for limit in (32_768, 65_536):
                self.refused(unpad, bytes.fromhex(entry["start"]) + bytes(entry["zeros"]), limit)

    def test_bundles(self) -> None:
        """Bundles and one-time keys as signed, and what is refused."""
        for entry in VECTORS["sessions"]:
            bundle, one_time = raw(entry["bundle"]), raw(entry["one_time_key"])
            self.assertEqual(bundle_signed(bundle).hex(), entry["signed"])
            owner = check_bundle(bundle, 1_800_000_000, IDENTITIES["bob"].id, 3)
            if one_time is not None:
                self.assertEqual(one_time_signed(owner.id, one_time).hex(), entry["one_time_signed"])
                check_one_time(owner, one_time)
        for entry in VECTORS["bundle_negative"]:
            given = {key: raw(VECTORS["sessions"][0][key]) for key in ("bundle", "one_time_key")}
            given = mutated(given, entry["mutate"], False) if "mutate" in entry else given

            def check(entry: Map = entry, given: Map = given) -> None:
                now, seen = entry.get("now", 1_800_000_000), entry.get("seen_version", 3)
                check_one_time(check_bundle(given["bundle"], now, entry.get("id"), seen), given["one_time_key"])

            self.refused(check)

    # --- connect ---

    def ends(self, entry: Map, changed: Map) -> tuple[ClientConnect, ServerConnect]:
        server = IDENTITIES[entry["server"]]
        client_binding = bytes.fromhex(str(changed.get("client_binding", entry["binding"])))
        return ClientConnect(
            IDENTITIES[entry["client"]],
            entry["name"],
            entry["client_specs"],
            changed.get("link_id", server.id),
            binding=client_binding,
            invite=entry["invite"],
            draws=GivenDraws(entry["client_draws"]),
        ), ServerConnect(
            server,
            entry["server_specs"],
            binding=bytes.fromhex(entry["binding"]),
            draws=GivenDraws(entry["server_draws"]),
            signer=IDENTITIES[changed.get("sign_with", entry["server"])],
        )

    def handshake(self, entry: Map, changed: Map) -> tuple[ClientConnect, Hop, ServerConnect]:
        """The four phases, one of them changed on its way."""
        client, server = self.ends(entry, changed)

        def send(number: int, frame: bytes) -> bytes:
            if changed.get("frame") != number:
                return frame
            return to_frame(mutated(json.loads(frame), changed["mutate"], True))

        third = client.take2(send(2, server.take1(send(1, client.frame1))))
        server.take3(send(3, third))
        fourth = server.finish(unpack(bytes.fromhex(entry["values"]["plain4"])))
        return client, client.take4(send(4, fourth)), server

    def test_connect(self) -> None:
        """Frames and values of connect, byte for byte; everything negative is refused."""
        for entry in VECTORS["connect"]:
            client, server = self.ends(entry, {})
            frames = [client.frame1]
            frames.append(server.take1(frames[0]))
            frames.append(client.take2(frames[1]))
            said = server.take3(frames[2])
            self.assertEqual((said["id"], said["name"]), (IDENTITIES[entry["client"]].id, entry["name"]))
            self.assertEqual(said.get("invite"), entry["invite"])
            frames.append(server.finish(unpack(bytes.fromhex(entry["values"]["plain4"]))))
            client.take4(frames[3])
            self.assertEqual([frame.decode() for frame in frames], entry["frames"])
            for end in (client, server):
                self.assertEqual(plain(dict(end.secrets.trace)), entry["values"])
            for negative in entry["negative"]:
                self.refused(self.handshake, entry, negative)

    def test_hop(self) -> None:
        """The messages after connect with a rekey among them, each refused when changed and when repeated."""
        for entry in VECTORS["connect"]:
            client, hop, server = self.handshake(entry, {})
            self.assertEqual(server.suite.name, entry["spec"])
            ends = {"client": hop, "server": server.hop}
            for step, message in enumerate(entry["secure"]):
                by, to = ends.pop(message["by"]), next(iter(ends.values()))
                ends[message["by"]] = by
                inner = unpack(bytes.fromhex(message["values"]["plaintext"]))
                if inner["type"] == "rekey":
                    self._rekeys(by, entry["secure"], step, inner)
                frame = by.seal(inner)
                self.assertEqual(to_frame(frame).decode(), message["frame"])
                values = {key: value for key, value in message["values"].items() if key != "plaintext"}
                self.assertEqual(plain(dict(by.out.trace)), values)
                parsed = json.loads(message["frame"])
                for negative in entry["secure_negative"]:
                    if negative["step"] == step:
                        self.refused(self._open, to, mutated(parsed, negative["mutate"], True))
                self.assertEqual(self._open(to, parsed), inner)
                if inner["type"] == "rekey":
                    by.sent_rekey(inner)
                self.refused(self._open, to, parsed)
                self._last = inner
            for end in ends.values():
                self.assertEqual(plain(dict(end.trace)), entry["rekey_values"])
            self.assertEqual((client.answer["time"], hop.rekeys, server.hop.rekeys), (1_800_000_000, 1, 1))

    def _rekeys(self, by: Hop, messages: list[Map], step: int, inner: Map) -> None:
        """The end that is to send this rekey message makes the same."""
        by.draws = GivenDraws(messages[step].get("draws", {}))
        self.assertEqual(by.start_rekey() if inner["phase"] == 1 else by.take_rekey(self._last), inner)
        if inner["phase"] == 1:
            self.refused(by.start_rekey)
        if inner["phase"] == 3:
            self.refused(by.take_rekey, self._last)

    @staticmethod
    def _open(hop: Hop, frame: Map) -> Map:
        inner = hop.open(frame["sa-data"]["n"], base64_field(frame["payload"], "ciphertext"))
        if inner["type"] == "rekey" and inner["phase"] == 3:
            hop.take_rekey(inner)
        return inner

    # --- sessions ---

    def test_sessions(self) -> None:
        """Both sessions' steps, byte for byte; everything negative is refused and nothing moves."""
        for entry in VECTORS["sessions"]:
            _SessionRun(self, entry).run()


class _SessionRun:
    """One session of the vectors."""

    def __init__(self, test: VectorTests, entry: Map) -> None:
        self.test, self.entry = test, entry
        self.prekeys = Prekeys()
        draws = GivenDraws(entry["bob_draws"])
        bob, bundle = IDENTITIES["bob"], raw(entry["bundle"])
        made = self.prekeys.make_bundle(bob, "bob", entry["b_specs"], 3, 1_900_000_000, draws)
        test.assertEqual(made, bundle)
        if entry["one_time_key"] is not None:
            test.assertEqual(self.prekeys.make_one_time(bob, draws), raw(entry["one_time_key"]))
        given = GivenDraws(entry["create"]["draws"])
        alice = Session.initiate(IDENTITIES["alice"], entry["a_specs"], bundle, raw(entry["one_time_key"]), given)
        test.assertEqual(plain(alice.trace), entry["create"]["values"])
        test.assertEqual(alice.spec, entry["spec"])
        self.sessions = {"alice": alice}
        self.wires: dict[int, Map] = {}
        self.orders = {"alice": Order(), "bob": Order()}
        self.unconfirmed: list[Content] = []
        self.accepted: set[bytes] = set()

    def run(self) -> None:
        for step in self.entry["steps"]:
            if step["op"] == "seal":
                self._seal(step)
            elif step["expect"] == "refused":
                self._refuse(step)
            else:
                self._open(step)

    def _seal(self, step: Map) -> None:
        session, wire = self.sessions[step["by"]], raw(step["wire"])
        content = bytes.fromhex(step["content"]) if step["content"] else None
        made = session.seal(content, wire["mid"], GivenDraws(step["draws"]))
        self.test.assertEqual(made, wire)
        values = dict(step["values"])
        if content is not None:
            self.test.assertEqual(values.pop("chain_out"), content[:32].hex())
        self.test.assertEqual(plain(session.trace), values)
        self.wires[step["message"]] = made

    def _receive(self, step: Map, wire: Map, draws: Draws, new: bool = False) -> Any:
        session = None if new else self.sessions.get(step["by"])
        if session is not None:
            return session.receive(wire)
        if wire["data"]["public_key"] in self.accepted:
            raise RefusedError("malformed", "an a1 that was accepted before")
        bob = IDENTITIES["bob"]
        session, opened = Session.accept(bob, self.entry["b_specs"], self.prekeys, wire, draws)
        self.sessions["bob"] = session
        self.accepted.add(wire["data"]["public_key"])
        self.prekeys.one_time.clear()
        return opened

    def _refuse(self, step: Map) -> None:
        wire = self.wires[step["message"]]
        if "mutate" in step:
            wire = mutated(wire, step["mutate"], False)
        session = self.sessions.get(step["by"])
        before = state(session)
        new = step.get("new_session", False)
        self.test.refused(self._receive, step, wire, Draws(), new)
        self.test.assertEqual(state(self.sessions.get(step["by"])), before)

    def _open(self, step: Map) -> None:
        by, draws = step["by"], GivenDraws(step.get("draws") or {})
        opened = self._receive(step, unpack(pack(self.wires[step["message"]])), draws)
        session = self.sessions[by]
        self.test.assertEqual(opened.content.hex() if opened.content else None, step.get("content"))
        self.test.assertEqual((opened.due, session.confirmed), (step["due"], step["confirmed"]))
        if step.get("values"):
            self.test.assertEqual(plain(session.trace), step["values"])
        order = self.orders[by]
        if session.confirmed:
            while self.unconfirmed and by == "bob":
                order.count(self.unconfirmed.pop(0))
        if opened.content is None:
            return
        content = Content.parse(opened.content)
        self.test.assertEqual(order.count(content) if session.confirmed else order.judge(content), step["order"])
        if not session.confirmed:
            self.unconfirmed.append(content)


def state(session: Session | None) -> Any:
    """Everything that a session keeps, comparable."""
    if session is None:
        return None
    kept = {key: value for key, value in vars(session).items() if key not in ("identity", "trace")}
    ratchet = {key: value for key, value in vars(kept.pop("ratchet")).items() if key != "trace"}
    return copy.deepcopy((kept, ratchet))
