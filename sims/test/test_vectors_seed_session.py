"""A transcript as a session: the captured one, and one that is made here, with messages that cross on the wire."""

from __future__ import annotations

import copy
import json
from base64 import b64encode
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from sims import messages as m
from sims import specs, vectors, wire
from sims.crypto import primitives, seed
from sims.crypto.primitives import P384PrivateKey, SystemEntropy
from sims.crypto.seed import Box, End, Initiator, Keys, Responder, Session
from sims.strictjson import Octets32, Pem
from sims.vectors_report import Part, Report
from sims.vectors_seed import Values
from sims.vectors_seed_session import Sealed, replay

SEED_A = Path(__file__).parent / "vectors" / "seed-a.json"


def load() -> dict[str, Any]:
    """A fresh copy of the captured session."""
    document: dict[str, Any] = json.loads(SEED_A.read_bytes())
    return document


class SessionTests(SynchronousTestCase):
    """The transcript runs through the package's own implementation."""

    def setUp(self) -> None:
        values = Values(Part(Report(), "the file", load()))
        self.privates, self.steps = values.privates, values.steps

    def compared(self) -> Report:
        report = Report()
        replay(report, self.privates, self.steps)
        return report

    def test_all_steps(self) -> None:
        """Both hops of both clients and the conversation: sealed and opened by both ends."""
        calls = []
        seal, opened = Session.seal, Session.open

        def counted_seal(session: Session, plaintext: bytes) -> Box:
            calls.append(("seal", repr(session).split()[2]))
            return seal(session, plaintext)

        def counted_open(session: Session, box: Any, decode: Any) -> object:
            calls.append(("open", repr(session).split()[2]))
            return opened(session, box, decode)

        self.patch(Session, "seal", counted_seal)
        self.patch(Session, "open", counted_open)
        self.assertEqual(self.compared().differences, [])
        counts = {call: calls.count(call) for call in calls}
        frames = [message for message in load()["messages"] if message["type"] == "secure"]
        up = sum(message["to"] == "server" for message in frames)
        coms = sum("com" in message for message in frames)
        self.assertEqual(
            counts,
            {
                ("seal", "client"): up,
                ("open", "server"): up,
                ("seal", "server"): len(frames) - up,
                ("open", "client"): len(frames) - up,
                ("seal", "peer"): coms,
                ("open", "peer"): coms,
            },
        )

    def test_contents(self) -> None:
        """What an end seals, and what it opens, is compared with the transcript each time."""
        whole = self.steps
        numbers = [number for number, step in enumerate(whole) if isinstance(step.what, Sealed)]
        self.assertEqual(len(numbers), 92)
        for number in numbers[::7]:
            step = whole[number]
            assert isinstance(step.what, Sealed)
            changed = step._replace(what=step.what._replace(plaintext=step.what.plaintext[:-1] + b"!"))
            self.steps = [*whole[:number], changed, *whole[number + 1 :]]
            text = "\n".join(self.compared().differences)
            self.assertIn(f"{step.place}, plaintext as opened" if step.hears else f"{step.place}, ciphertext", text)

    def test_wrong_implementation(self) -> None:
        """A session that seals or opens otherwise is told."""
        right = seed.derive

        def wrong(private: P384PrivateKey, public: Any, first: bytes, second: bytes) -> seed.Derivation:
            return right(private, public, second, first)

        self.patch(seed, "derive", wrong)
        (*_, line) = self.compared().differences
        self.assertTrue(line.startswith("message 7, "), line)

    def test_draws(self) -> None:
        """A session that draws in another order, or other sizes, is told."""

        class Hasty(Session):
            def seal(self, plaintext: bytes) -> Box:
                self._entropy.octets(16)
                return super().seal(plaintext)

        self.patch(seed, "Session", Hasty)
        (line,) = self.compared().differences
        self.assertIn("16 bytes are drawn", line)


class _Recorder(SystemEntropy):
    """Keeps what it hands out, under labels."""

    def __init__(self, owner: str, keys: dict[str, Any]) -> None:
        self._owner = owner
        self._keys = keys
        self.privates: dict[bytes, P384PrivateKey] = {}
        self.labels: dict[bytes, str] = {}

    def p384(self) -> P384PrivateKey:
        private = super().p384()
        public = primitives.p384_to_pem(private.public_key())
        self.labels[public] = f"{self._owner}-{len(self.labels) + 1:02}"
        self.privates[public] = private
        self._keys[self.labels[public]] = {
            "owner": self._owner,
            "use": "",
            "private_key_pem": primitives.p384_private_to_pem(private).decode(),
            "public_key_field": b64encode(public).decode(),
        }
        return private


class CrossingTests(SynchronousTestCase):
    """A transcript made here: another spec, compact frames, and messages that cross on the wire."""

    SPEC = "ECDHE-AES256_OFB-SHA384"

    def setUp(self) -> None:
        self.keys: dict[str, Any] = {}
        self.messages: list[dict[str, Any]] = []
        self.entropy = {name: _Recorder(name, self.keys) for name in ("carol", "server")}

    def frame(self, sender: str, message: m.Message, **parts: Any) -> None:
        receiver = "server" if sender == "carol" else "carol"
        kind, text = message.__struct_config__.tag, wire.encode(message).decode()
        whole = {"n": len(self.messages) + 1, "from": sender, "to": receiver, "type": kind, "frame": text, **parts}
        self.messages.append(whole)
        if sender == "carol":
            self.frame("server", m.Ack())

    def derived(self, sender: str, own: Keys, last: Keys, halves: tuple[bytes, bytes], salt_is: str) -> dict[str, str]:
        public, _ = primitives.p384_from_pem(last.public_key)
        secrets = seed.derive(self.entropy[sender].privates[own.public_key], public, *halves)
        return {
            "master_secret": secrets.shared.hex(),
            "salt": secrets.salt.hex(),
            "salt_is": salt_is,
            "final_secret": secrets.key.hex(),
        }

    def sealed(self, sender: str, session: Session, plaintext: bytes, last: Keys) -> Box:
        """Seal for the receiver's keys ``last``, and write it down."""
        box = session.seal(plaintext)
        new_first = sender == "carol"
        halves = (box.random, last.random) if new_first else (last.random, box.random)
        own, words = Keys(box.public_key, box.random), ("new", "last") if new_first else ("last", "new")
        receiver = "server" if new_first else "carol"
        secure = {
            "sender_new_key": self.entropy[sender].labels[own.public_key],
            "receiver_last_key": self.entropy[receiver].labels[last.public_key],
            "sender_new_random": box.random.hex(),
            "receiver_last_random": last.random.hex(),
            **self.derived(sender, own, last, halves, "client random ({}) || server random ({})".format(*words)),
            "iv": box.iv.hex(),
            "ciphertext": box.ciphertext.hex(),
            "mac": box.hash.hex(),
            "plaintext": plaintext.decode(),
        }
        self.frame(sender, m.Secure.of(box), secure=secure, inner_type="list")
        return box

    def transcript(self, go_back: bool = False) -> dict[str, Any]:
        spec = specs.by_names([self.SPEC])
        client = Initiator(End.CLIENT, spec, self.entropy["carol"])
        server = Responder(End.SERVER, spec, self.entropy["server"])
        offer = client.offer()
        self.frame("carol", m.Connect1(name="carol", id=33333, ciphers=offer), phase=1)
        self.frame("server", m.Connect2(ciphers=server.answer(offer).name), phase=2)
        three = client.choose(self.SPEC)
        data = m.ClientKeys(public_key=Pem(three.public_key), client_random=Octets32(three.random))
        label = self.entropy["carol"].labels[three.public_key]
        whole = m.Connect3(name="carol", id=33333, ciphers=self.SPEC, data=data)
        self.frame("carol", whole, phase=3, key=label, random=three.random.hex())
        four, serving = server.accept(self.SPEC, three)
        answer = m.ServerKeys(public_key=Pem(four.public_key), server_random=Octets32(four.random))
        self.frame(
            "server",
            m.Connect4(ciphers=self.SPEC, data=answer),
            phase=4,
            key=self.entropy["server"].labels[four.public_key],
            random=four.random.hex(),
            handshake=self.derived(
                "server", four, three, (three.random, four.random), "client_random || server_random"
            ),
        )
        asking = client.finish(four)
        request, reply = wire.encode(m.ListRequest()), wire.encode(m.ListReply(data=[]))
        one = self.sealed("carol", asking, request, four)
        serving.open(one, bytes)
        crossing = self.sealed("server", serving, reply, Keys(one.public_key, one.random))
        stale = copy.copy(serving)
        two = self.sealed("carol", asking, request, four)  # before the reply has come
        asking.open(crossing, bytes)
        serving.open(two, bytes)
        last = self.sealed("server", serving, reply, Keys(two.public_key, two.random))
        asking.open(last, bytes)
        self.sealed("carol", asking, request, Keys(last.public_key, last.random))
        if go_back:
            self.sealed("server", stale, reply, Keys(one.public_key, one.random))
        return {
            "suite": self.SPEC,
            "frame_terminator": "\n\n",
            "curve": "secp384r1",
            "hkdf": {"hash": "SHA-256", "info": "hkdf-example", "length": 32},
            "cipher": "AES-256-OFB, 16-byte initial counter block = iv",
            "mac": "HMAC-SHA-384, key = final_secret, over the ciphertext bytes",
            "clients": {"carol": 33333},
            "actions": [{"actor": "carol", "action": "connect", "before_message": 1}],
            "keys": self.keys,
            "messages": self.messages,
        }

    def test_holds(self) -> None:
        self.assertEqual(vectors.check(self.transcript()).differences, [])

    def test_gone_back(self) -> None:
        """A message for a key that its sender had left behind is right by its values; the session tells it."""
        document = self.transcript(go_back=True)
        last = document["messages"][-1]["secure"]
        self.assertEqual(last["receiver_last_key"], "carol-02")
        found = vectors.check(document).differences
        self.assertTrue(found)
        self.assertIn("as sealed in the session", found[0])
