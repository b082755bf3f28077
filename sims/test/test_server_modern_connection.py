"""The server's end of a connection of sims/2: its states, its handshake, bad input; with real keys, in memory."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, cast

import msgspec
from twisted.logger import formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from sims import frames, inner
from sims.errors import Code
from sims.frames import MAX_FRAME, MAX_FRAME_BEFORE_SESSION, TERMINATOR
from sims.server.modern_connection import State
from sims.server.registration import Mode
from sims.strictjson import Octets
from sims.test.late_store import LateStore
from sims.test.modern_case import (
    IN_BOX,
    MALFORMED,
    SILENT,
    Act,
    Seen,
    ServerTestCase,
    base64,
    changed,
    flipped,
    leave_out,
    put,
    seen,
)
from sims.test.modern_network import Hand, ModernNetwork
from sims.test.network import cut
from sims.transport import FRAME_TIMEOUT, LINGER


class TableTests(ServerTestCase):
    """Every state with every input: what the client sees, and whether it is in."""

    INPUTS: dict[str, Act] = {
        "connect 1": lambda hand: hand.write(hand.greet()),
        "connect 2": lambda hand: hand.write(TableTests.answer()),
        "connect 3": lambda hand: hand.write(
            frames.encode(frames.Connect3(data=frames.SealedData(sealed=Octets(bytes(528)))))
        ),
        "connect 4": lambda hand: hand.write(
            frames.encode(frames.Connect4(data=frames.SealedData(sealed=Octets(bytes(528)))))
        ),
        "error": lambda hand: hand.write(frames.encode_error(Code.POLICY)),
        "a box": lambda hand: (
            hand.say(inner.ListRequest()) if hand.hop else hand.write(frames.encode_box(0, bytes(528)))
        ),
        "a forged box": lambda hand: hand.write(frames.encode_box(0, bytes(528))),
        "an unknown type": lambda hand: hand.write(b'{"type":"hello"}'),
        "garbage": lambda hand: hand.write(b"garbage"),
        "a long frame": lambda hand: hand.write(b"x" * (MAX_FRAME + 1)),
        "a reset": lambda hand: cut(cast("Any", hand.server_end)),
        "the end": lambda hand: cast("Any", hand.server_end).close(),
    }
    STATES: dict[State, Act] = {
        State.GREETING: lambda hand: None,
        State.PROVING: lambda hand: hand.write(hand.greet()),
        State.OPEN: lambda hand: hand.connect(),
        State.CLOSED: lambda hand: hand.write(b"[]"),
    }
    TABLE: dict[tuple[State, str], Seen] = {
        (State.GREETING, "connect 1"): (False, [], []),
        (State.PROVING, "connect 3"): SILENT,  # a box that does not verify
        (State.OPEN, "a box"): (False, [], []),
        (State.OPEN, "a forged box"): SILENT,
        (State.OPEN, "a long frame"): (True, [], ["too-large"]),
    }

    @staticmethod
    def answer() -> bytes:
        sealed = Octets(bytes(528))
        data = {"random": base64(bytes(32)), "public_key": base64(bytes(32)), "kem_ciphertext": base64(bytes(1088))}
        return json.dumps(
            {"type": "connect", "phase": 2, "ciphers": "x", "data": {**data, "sealed": base64(sealed)}}
        ).encode()

    def expected(self, state: State, name: str) -> Seen:
        if state is State.CLOSED:
            return MALFORMED
        if name in ("a reset", "the end"):
            return SILENT
        if name == "a long frame" and state is not State.OPEN:
            return True, ["too-large"], []
        return self.TABLE.get((state, name), IN_BOX if state is State.OPEN else MALFORMED)

    def test_table(self) -> None:
        for state, bring in self.STATES.items():
            for name, give in self.INPUTS.items():
                what = f"{name} in {state.name}"
                hand = Hand(self.network)
                bring(hand)
                self.assertIs(cast("Any", hand.server_end).state, state, what)
                give(hand)
                self.network.settle()
                self.assertEqual(seen(hand), self.expected(state, name), what)
                hand.stream.loseConnection()
                self.network.settle()
                self.check_others(what)


class HandshakeTests(ServerTestCase):
    """The four phases."""

    def test_welcome(self) -> None:
        """The name is the server's word; the limits and the time are told."""
        eve = Hand(self.network, "eve").connect(name="EVE", epoch=5)
        joined = eve.joined
        assert joined is not None
        self.assertEqual((joined.name, joined.epoch, joined.time), ("eve", None, int(self.network.wall())))
        limits = joined.limits
        self.assertEqual((limits.frame, limits.mailbox, limits.sends, limits.burst), (MAX_FRAME, 1000, 20, 200))
        again = Hand(self.network, "eve").connect(name="other", epoch=3)
        assert again.joined is not None
        self.assertEqual((again.joined.name, again.joined.epoch, again.joined.restored), ("eve", 5, True))

    def test_refused(self) -> None:
        """What is refused in phase 4 closes, and says why to nobody else."""
        network = ModernNetwork(mode=Mode.INVITE)
        network.invite("good")
        for options, code in (
            ({}, "invite-required"),
            ({"invite": "bad"}, "invite-required"),
            ({"invite": "good", "name": "a b"}, "name-invalid"),
        ):
            hand = Hand(network, "eve")
            self.assertEqual(hand.refusal(**options), code)
            self.assertEqual((hand.closed, hand.clear), (True, []))
        Hand(network, "eve").connect(invite="good")
        self.assertEqual(network.spent, 1)
        self.assertEqual(Hand(network, "bob").refusal(invite="good"), "invite-used")
        network.invite("better")
        self.assertEqual(Hand(network, "bob").refusal(invite="better", name="EVE"), "name-taken")
        Hand(network, "bob").connect(invite="better")
        self.assertEqual((network.spent, len(network.modern_relay)), (2, 2))

    def test_specs(self) -> None:
        """The first of the server's own order that the client offers; none in common is said in the clear."""
        for offer, chosen in (
            ([], None),
            (["X25519MLKEM768-AES128_GCM-SHA256", "x"], None),
            (["X25519MLKEM768-CHACHA20_POLY1305-SHA256"], "X25519MLKEM768-CHACHA20_POLY1305-SHA256"),
            (
                ["X25519MLKEM768-CHACHA20_POLY1305-SHA256", "X25519MLKEM768-AES256_GCM-SHA384"],
                "X25519MLKEM768-AES256_GCM-SHA384",
            ),
        ):
            hand = Hand(self.network)
            hand.write(changed(hand.greet(), put("ciphers", offer)))
            if chosen is None:
                self.assertEqual(seen(hand), (True, ["no-common-spec"], []))
            else:
                self.assertEqual(hand.frames()[-1]["ciphers"], chosen)
                hand.stream.loseConnection()

    def test_bad_greetings(self) -> None:
        small = bytes.fromhex("00" * 32)
        cases: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
            "another version": (put("data", "version", 3), "no-common-spec"),
            "a version that is no number": (put("data", "version", "2"), "malformed"),
            "no random": (leave_out("data", "random"), "malformed"),
            "a short random": (put("data", "random", base64(bytes(31))), "malformed"),
            "a key of small order": (put("data", "public_key", base64(small)), "malformed"),
            "a long key": (put("data", "public_key", base64(bytes(33))), "malformed"),
            "a KEM key that is none": (put("data", "kem_public_key", base64(b"\xff" * 1184)), "malformed"),
            "a short KEM key": (put("data", "kem_public_key", base64(bytes(1183))), "malformed"),
            "base64 in another spelling": (put("data", "random", base64(bytes(32)) + "\n"), "malformed"),
            "too many ciphers": (put("ciphers", ["x"] * 33), "malformed"),
            "a long cipher": (put("ciphers", ["x" * 65]), "malformed"),
            "ciphers that are no list": (put("ciphers", "x"), "malformed"),
            "a phase that is true": (put("phase", True), "malformed"),
            "phase 5": (put("phase", 5), "malformed"),
        }
        for name, (change, code) in cases.items():
            hand = Hand(self.network)
            hand.write(changed(hand.greet(), change))
            self.assertEqual(seen(hand), (True, [code], []), name)
            self.check_others(name)

    def test_a_changed_handshake(self) -> None:
        """A bit of phase 1 on its way, of phase 3, a phase 3 of another handshake: silence."""
        hand = Hand(self.network)
        greeting = hand.greet()
        hand.write(changed(greeting, put("name", "x")))
        with self.assertRaises(Exception):  # noqa: B017 - its own end sees that the transcript differs
            hand.prove()
        hand.stream.loseConnection()
        for position in (0, 100, -1):
            hand = Hand(self.network)
            hand.write(hand.greet())
            hand.write(changed(hand.prove(), flipped(("data", "sealed"), position)))
            self.assertEqual(seen(hand), SILENT)
        first, second = Hand(self.network, "eve"), Hand(self.network, "eve")
        for one in (first, second):
            one.write(one.greet())
        second.write(first.prove())
        self.assertEqual(seen(second), SILENT)
        for size in (0, 15, 16, 528, 5000):
            hand = Hand(self.network)
            hand.write(hand.greet())
            hand.write(frames.encode(frames.Connect3(data=frames.SealedData(sealed=Octets(bytes(size))))))
            self.assertEqual(seen(hand), SILENT, f"{size}")
        first.stream.loseConnection()
        self.network.settle()
        self.check_others("handshakes")

    def test_too_slow(self) -> None:
        """10 seconds, wherever it is; and nothing of a client that hangs up in the middle stays."""
        for bring in (lambda _: None, lambda hand: hand.write(hand.greet()), lambda hand: hand.stream.write(b"{")):
            hand = Hand(self.network)
            bring(hand)
            self.network.run_for(9.9)
            self.assertFalse(hand.closed)
            self.network.run_for(0.2)
            self.assertEqual(seen(hand), (True, ["unavailable"], []))
            hand = Hand(self.network)
            bring(hand)
            hand.stream.loseConnection()
            self.network.settle()
            self.check_others("slow")

    def test_a_slow_store(self) -> None:
        """While the store looks for the account nobody has anything to say; who hangs up meanwhile is not let in."""
        store = LateStore()
        network = ModernNetwork(store=store)
        hand = Hand(network, "ann")
        hand.write(hand.greet())
        hand.write(hand.prove())
        self.assertIs(cast("Any", hand.server_end).state, State.ADMITTING)
        self.assertEqual((hand.hop, hand.closed), (None, False))
        store.settle()
        network.settle()
        self.assertIsNotNone(hand.hop)
        hand = Hand(network, "eve")
        hand.write(hand.greet())
        hand.write(hand.prove() + TERMINATOR + b"rubbish")
        self.assertEqual(seen(hand), (True, ["malformed"], []))
        store.settle()
        network.settle()
        self.assertEqual((hand.hop, len(network.modern_relay)), (None, 1))
        hand = Hand(network, "bob")
        hand.write(hand.greet())
        hand.write(hand.prove())
        hand.stream.loseConnection()
        network.settle()
        store.settle()
        network.settle()
        self.assertEqual((len(network.modern_relay), self.flushLoggedErrors()), (1, []))


GARBAGE: dict[str, bytes] = {
    "text": b"garbage",
    "nothing": b"",
    "zeros": bytes(100),
    "not UTF-8": b'{"type": "secure\xff"}',
    "half a character": b'{"type": "secure", "x": "\\ud800"}',
    "a string": b'"connect"',
    "a number": b"1",
    "null": b"null",
    "an array": b'[{"type": "secure"}]',
    "an empty object": b"{}",
    "an unfinished object": b'{"type": "connect"',
    "NaN": b'{"type": "secure", "x": NaN}',
    "a key twice": b'{"type": "secure", "type": "connect"}',
    "nested objects": b'{"a":' * 1000,
    "a long number": b'{"type": "secure", "sa-data": {"n": ' + b"9" * 5000 + b'}, "payload": {"ciphertext": ""}}',
    "a type that is no string": b'{"type": ["connect"]}',
    "a number below zero": b'{"type":"secure","sa-data":{"n":-1},"payload":{"ciphertext":""}}',
    "a number that is none": b'{"type":"secure","sa-data":{"n":true},"payload":{"ciphertext":""}}',
    "2**64": b'{"type":"secure","sa-data":{"n":18446744073709551616},"payload":{"ciphertext":""}}',
    "half base64": b'{"type":"secure","sa-data":{"n":0},"payload":{"ciphertext":"AAA"}}',
    "no payload": b'{"type":"secure","sa-data":{"n":0}}',
    "the seed's connect": b'{"type":"connect","phase":1,"name":"eve","id":7,"ciphers":["ECDHE"],"data":{}}',
    "HTTP": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
}


class LogTests(SynchronousTestCase):
    """What the log says of connections."""

    def said(self, network: ModernNetwork) -> list[str]:
        """All that is logged while somebody connects and leaves, and somebody else is refused."""
        events: list[dict[str, Any]] = []
        observer = cast("Any", events.append)
        globalLogPublisher.addObserver(observer)
        hand = Hand(network, "ann", host="192.0.2.77").connect()
        hand.stream.loseConnection()
        Hand(network, "eve", host="192.0.2.78").write(b"garbage")
        network.settle()
        globalLogPublisher.removeObserver(observer)
        self.ann = hand.id
        self.assertEqual(len(network.modern.connections), 0)
        return [formatEvent(cast("Any", event)) + repr(event) for event in events]

    def test_nobody(self) -> None:
        """It does not say who was here, where and when; only why somebody had to leave."""
        (text,) = self.said(ModernNetwork())
        self.assertNotIn(self.ann, text)
        self.assertNotIn("192.0.2.7", text)
        self.assertRegex(text, r"\Aclosed a connection: malformed: ")

    def test_asked_for(self) -> None:
        network = ModernNetwork()
        network.modern.log_connections = True
        first, second, third = (text.partition("{")[0] for text in self.said(network))
        self.assertEqual(first, f"client {self.ann} connected from 192.0.2.77")
        self.assertEqual(second, f"client {self.ann} left")
        self.assertRegex(third, r"\Aclosed 192.0.2.78: malformed: ")


class BadInputTests(ServerTestCase):
    """What no client sends: closed with a code, before the session and in it, and nobody else notices."""

    def test_before_the_session(self) -> None:
        for name, frame in {**GARBAGE, "a box": frames.encode_box(0, bytes(528))}.items():
            for greeted in (False, True):
                hand = Hand(self.network)
                if greeted:
                    hand.write(hand.greet())
                hand.write(frame)
                self.assertEqual(seen(hand), MALFORMED, name)
        for size in (MAX_FRAME_BEFORE_SESSION + 3, 50_000):
            hand = Hand(self.network)
            hand.stream.write(b"[" * size)
            self.network.settle()
            self.assertEqual(seen(hand), (True, ["too-large"], []))
        self.check_others("before")

    def test_in_the_session(self) -> None:
        for name, frame in {**GARBAGE, "brackets": b"[" * 50_000}.items():
            hand = Hand(self.network).connect()
            hand.write(frame)
            self.assertEqual(seen(hand), IN_BOX, name)
        self.check_others("in the session")

    def test_boxes(self) -> None:
        """A box that is not the next, or does not verify, closes without a word."""
        for name, bad in {
            "twice": lambda hand, box: box + TERMINATOR + box,
            "the one after the next": lambda hand, box: hand.sealed(inner.ListRequest()),
            "another number": lambda hand, box: changed(box, put("sa-data", "n", 1)),
            "the greatest number": lambda hand, box: changed(box, put("sa-data", "n", 2**64 - 1)),
            "empty": lambda hand, box: frames.encode_box(0, b""),
            "short": lambda hand, box: frames.encode_box(0, bytes(15)),
            "long": lambda hand, box: frames.encode_box(0, bytes(70_000)),
            "the first bit": lambda hand, box: changed(box, flipped(("payload", "ciphertext"), 0)),
            "the last bit": lambda hand, box: changed(box, flipped(("payload", "ciphertext"), -1)),
        }.items():
            hand = Hand(self.network).connect()
            hand.write(bad(hand, hand.sealed(inner.ListRequest())))
            self.assertEqual(seen(hand), SILENT, name)
        self.check_others("boxes")

    def test_inside_the_box(self) -> None:
        """What is authentic and no message is told, and the connection goes on."""
        hand = Hand(self.network).connect()
        bad = [b"", b"\xc1", b"\x90" * 9, b"{}", msgspec.msgpack.encode({"type": "hello"}), b"\x91" * 50_000]
        for number, plaintext in enumerate(bad):
            hand.say(plaintext)
            self.assertEqual(seen(hand), (False, [], ["malformed"] * (number + 1)))
        hand.send(self.bob, 77)
        self.assertEqual((hand.acked, self.bob.numbers), ([77], [77]))
        self.check_others("inside", hand)

    def test_rekey_out_of_order(self) -> None:
        hand = Hand(self.network).connect()
        hand.say(msgspec.msgpack.encode({"type": "rekey", "phase": 3, "data": {}}))
        self.assertTrue(hand.closed)
        self.check_others("rekey")

    def test_half_a_frame(self) -> None:
        """Half a frame has 30 seconds; a whole one, in single bytes, is a frame."""
        hand = Hand(self.network).connect()
        box = hand.sealed(inner.ListRequest()) + TERMINATOR
        for number in range(len(box)):
            hand.stream.write(box[number : number + 1])
            self.network.settle()
        self.assertEqual(len(hand.all(inner.ListReply)), 1)
        hand.stream.write(b'{"type":')
        self.network.run_for(FRAME_TIMEOUT - 0.1)
        self.assertFalse(hand.closed)
        self.network.run_for(0.2)
        self.assertEqual(seen(hand), (True, [], ["unavailable"]))
        self.check_others("half")

    def test_it_does_not_hang_up(self) -> None:
        """Whoever is refused and stays is cut off."""
        hand = Hand(self.network)
        hand.readConnectionLost = lambda: None  # type: ignore[method-assign]
        hand.write(b"[]")
        self.assertEqual(len(self.network.modern.connections), 3)
        self.network.run_for(LINGER)
        self.check_others("stays")
