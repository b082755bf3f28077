"""Bad input for the real server, while two honest clients go on talking."""

from __future__ import annotations

import json
import os
import socket
import struct
from collections.abc import Callable
from typing import Any

from tests.hostile import (
    END,
    GARBAGE,
    HostileTestCase,
    connect_1,
    connect_3,
    flip,
    off_curve,
    other_curve,
    secure,
)
from tests.peers.seed_peer import DEFAULT_SPECS, Json, Pair, SeedPeer, b64, com_data, encode, secure_frame
from tests.processes import TIMEOUT
from tests.talk import next_event, say


class BeforeSessionTests(HostileTestCase):
    """Before there is a session: a closing without a word."""

    def test_garbage(self) -> None:
        """What is no message is answered by a closing."""
        for what, frame in GARBAGE.items():
            with self.no_effect(what):
                sock = self.dial()
                self.attack(frame + END, sock)
                self.assertEqual(self.refused(sock, what), [], what)

    def test_handshake(self) -> None:
        """Phases out of order, with the wrong fields, with specs that are not spoken."""
        one, three = encode(connect_1()) + END, encode(connect_3()) + END
        no_random = connect_3()
        del no_random["data"]["client_random"]
        short, long, curve, text = connect_3(), connect_3(), connect_3(), connect_3()
        short["data"]["client_random"] = b64(os.urandom(31))
        long["data"]["client_random"] = b64(os.urandom(33))
        curve["data"]["public_key"] = b64(other_curve())
        text["data"]["public_key"] = b64(b"x" * 215)
        off = connect_3()
        off["data"]["public_key"] = b64(off_curve())
        inputs: dict[str, tuple[bytes, int]] = {  # what is sent, and how many answers there may be
            "phase 3 first": (three, 0),
            "phase 1 twice": (one + one, 1),
            "a secure first": (encode(secure()) + END, 0),
            "a secure after phase 1": (one + encode(secure()) + END, 1),
            "no common spec": (encode(connect_1(ciphers=["ECDHE-AES256_GCM-SHA384", "x"])) + END, 0),
            "no spec": (encode(connect_1(ciphers=[])) + END, 0),
            "specs that are no list": (encode(connect_1(ciphers=DEFAULT_SPECS[0])) + END, 0),
            "specs that are no strings": (encode(connect_1(ciphers=[1, None])) + END, 0),
            "a thousand specs": (encode(connect_1(ciphers=["x"] * 1000 + [*DEFAULT_SPECS])) + END, 0),
            "another spec in phase 3": (one + encode(connect_3(ciphers=DEFAULT_SPECS[1])) + END, 1),
            "an unknown spec in phase 3": (one + encode(connect_3(ciphers="x")) + END, 1),
            "another id in phase 3": (one + encode(connect_3(id=667)) + END, 1),
            "another name in phase 3": (one + encode(connect_3(name="mallory")) + END, 1),
            "a name that is no string": (encode(connect_1(name=7)) + END, 0),
            "a name that is too long": (encode(connect_1(name="x" * 129)) + END, 0),
            "no name": (encode({"type": "connect", "phase": 1, "id": 1, "ciphers": [*DEFAULT_SPECS]}) + END, 0),
            "an id that is no number": (encode(connect_1(id="six")) + END, 0),
            "an id that is a fraction": (encode(connect_1(id=1.5)) + END, 0),
            "an id that is true": (encode(connect_1(id=True)) + END, 0),
            "an id that is huge": (encode(connect_1(id=10**30)) + END, 0),
            "no data in phase 3": (one + encode(connect_3(data={})) + END, 1),
            "no random in phase 3": (one + encode(no_random) + END, 1),
            "a random of 31 bytes": (one + encode(short) + END, 1),
            "a random of 33 bytes": (one + encode(long) + END, 1),
            "a key on another curve": (one + encode(curve) + END, 1),
            "a key that is none": (one + encode(text) + END, 1),
            "a key that is not on the curve": (one + encode(off) + END, 1),
            "an id in use": (encode(connect_1(id=self.pair.ids[0])) + END, 0),
        }
        for what, (data, answers) in inputs.items():
            with self.no_effect(what):
                sock = self.dial()
                self.attack(data, sock)
                frames = self.refused(sock, what)
                self.assertLessEqual(len(frames), answers, f"{what}: {frames}")
                self.assertEqual({frame["type"] for frame in frames} - {"connect"}, set(), what)

    def test_race_for_an_id(self) -> None:
        """Of two connections that greet with one id, the first that comes through gets it."""
        with self.no_effect("a race"):
            late = SeedPeer("127.0.0.1", self.port, "late", 666, timeout=TIMEOUT)
            late.dial()
            self.addCleanup(late.close)
            head = {"type": "connect", "name": "late", "id": 666}
            late.send_frame({**head, "phase": 1, "ciphers": [*DEFAULT_SPECS], "data": {}})
            late._phase(2, DEFAULT_SPECS)
            first = self.start_peer(self.port, "first", 666)
            late.send_frame(connect_3(name="late"))
            self.assertEqual(self.refused(late.sock, "the second"), [])
            self.assertEqual(first.list()[0]["name"], "first")
            first.close()

    def test_without_end(self) -> None:
        """Four megabytes without an end."""
        for what, start in (("zeros", b""), ("a message", b'{"type": "connect", "name": "')):
            with self.no_effect(f"4 MiB of {what}"):
                memory = self.server.memory
                sock = self.dial()
                self.attack(start, sock)
                for _ in range(64):
                    self.attack(b"x" * 65_536, sock)
                self.assertEqual(self.refused(sock, what), [])
                self.assertLess(self.server.memory - memory, 8 * 2**20)

    def test_vanishing(self) -> None:
        """Clients that vanish in the middle of a handshake, in order or not."""
        one, three = encode(connect_1()) + END, encode(connect_3()) + END
        for data in (b"", b"{", one[:50], one, one + three[:200], one + three):
            for abort in (False, True):
                with self.no_effect(f"vanishing after {len(data)} bytes"):
                    sock = self.dial()
                    if abort:  # closing sends a reset
                        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    sock.sendall(data)
                    sock.close()

    def test_half_closed(self) -> None:
        """A client that only closes its own side is let go."""
        with self.no_effect("closing one side"):
            sock = self.dial()
            sock.sendall(encode(connect_1()) + END)
            sock.shutdown(socket.SHUT_WR)
            self.refused(sock, "closing one side")


class InSessionTests(HostileTestCase):
    """In a session: the code of the error inside it, where the frame was not forged, and a closing."""

    def session(self) -> SeedPeer:
        """The attacker's own session."""
        return self.start_peer(self.port, "eve", 666)

    def check_closed(self, peer: SeedPeer, what: str, *codes: str) -> None:
        """The server has told one of the codes and closed, or, if none is given, closed without a word."""
        inners = [inner for inner in self.refused_in_session(peer, what) if inner.get("type") != "list"]
        self.assertEqual([inner["type"] for inner in inners], ["error"] * len(inners), what)
        told = [inner["code"] for inner in inners]
        self.assertEqual(len(told), 1 if codes else 0, f"{what}: {told}")
        for code in told:
            self.assertIn(code, codes, what)

    def test_garbage(self) -> None:
        """What is no message."""
        for what, frame in {
            **GARBAGE,
            "phase 1": encode(connect_1()),
            "phase 3": encode(connect_3()),
            "a secure without fields": b'{"type": "secure"}',
            "a secure of strings": b'{"type": "secure", "sa-data": "x", "payload": "y"}',
        }.items():
            with self.no_effect(what):
                peer = self.session()
                self.attack(frame + END, peer.sock)
                self.check_closed(peer, what, "malformed")

    def test_without_end(self) -> None:
        """Four megabytes without an end, and a frame that is one byte too long."""
        with self.no_effect("4 MiB"):
            peer = self.session()
            memory = self.server.memory
            for _ in range(64):
                self.attack(b"x" * 65_536, peer.sock)
            # What was not read yet when the server closed may take its last word away.
            inners = self.refused_in_session(peer, "4 MiB")
            self.assertEqual({inner["code"] for inner in inners} - {"too-large"}, set())
            self.assertLess(self.server.memory - memory, 8 * 2**20)
        with self.no_effect("a frame that is too long"):
            peer = self.session()
            self.attack(b"x" * 65_537 + END, peer.sock)
            self.check_closed(peer, "a frame that is too long", "too-large")

    def test_fields(self) -> None:
        """Fields of the wrong length or kind in a sealed frame."""
        changes: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
            "a key on another curve": ("public_key", lambda _: other_curve()),
            "a key that is not on the curve": ("public_key", lambda _: off_curve()),
            "a key that is none": ("public_key", lambda old: b"x" * len(old)),
            "a key and more": ("public_key", lambda old: old + b"\n"),
            "a random of 31 bytes": ("random", lambda old: old[:31]),
            "a random of 33 bytes": ("random", lambda old: old + b"x"),
            "no random": ("random", lambda _: b""),
            "an iv of 15 bytes": ("iv", lambda old: old[:15]),
            "an iv of 17 bytes": ("iv", lambda old: old + b"x"),
            "a hash of 31 bytes": ("hash", lambda old: old[:31]),
        }
        for what, (field, change) in changes.items():
            with self.no_effect(what):
                peer = self.session()
                parts = peer.channel.seal(encode({"type": "list"}))
                parts[field] = change(parts[field])
                self.attack(encode(secure_frame(parts)) + END, peer.sock)
                self.check_closed(peer, what, "malformed")

    def test_forgeries(self) -> None:
        """A bit is flipped: closed without a word, and nothing of what was in it is done."""
        victim = self.pair.ids[0]
        inner = encode({"type": "client-disconnect", "src": 666, "dst": victim, "data": {}})
        for field in ("ciphertext", "hash", "random"):
            for at in (0, -1):
                with self.no_effect(f"a bit of {field}"):
                    peer = self.session()
                    parts = peer.channel.seal(inner)
                    parts[field] = flip(parts[field], at)
                    self.attack(encode(secure_frame(parts)) + END, peer.sock)
                    self.check_closed(peer, f"a bit of {field}")
        with self.no_effect("another key"):
            peer = self.session()
            parts = peer.channel.seal(inner)
            parts["public_key"] = Pair.fresh().pem
            self.attack(encode(secure_frame(parts)) + END, peer.sock)
            self.check_closed(peer, "another key")
        with self.no_effect("a bit of the key"):
            peer = self.session()
            parts = peer.channel.seal(inner)
            parts["public_key"] = flip(parts["public_key"], 100)
            self.attack(encode(secure_frame(parts)) + END, peer.sock)
            self.check_closed(peer, "a bit of the key", "malformed")
        with self.no_effect("a bit of the iv"):  # which no MAC covers: what comes out makes no sense
            peer = self.session()
            parts = peer.channel.seal(inner)
            parts["iv"] = flip(parts["iv"], 0)
            self.attack(encode(secure_frame(parts)) + END, peer.sock)
            self.check_closed(peer, "a bit of the iv", "malformed")

    def test_replayed_frame(self) -> None:
        """A frame that was received before, at once and later: closed without a word."""
        for later in (False, True):
            with self.no_effect("a replayed frame"):
                peer = self.session()
                frame = encode(secure_frame(peer.channel.seal(encode({"type": "list"})))) + END
                peer.send_frame(frame, acks=1)
                next_event(peer, "list")
                if later:
                    peer.list()
                self.attack(frame, peer.sock)
                self.check_closed(peer, "a replayed frame")

    def test_inner(self) -> None:
        """What is wrong inside an authentic frame is answered, and the session goes on."""
        victim, other = self.pair.ids
        com = com_data(self.session_of_two().talks[777].seal(b'"x"'))
        relayed = {"src": 666, "dst": victim}
        disconnect = {"type": "client-disconnect", "data": {}}
        inputs: dict[str, tuple[Json, str]] = {
            "an unknown type": ({"type": "hello", **relayed}, "malformed"),
            "no type": ({**relayed}, "malformed"),
            "a type that is no string": ({"type": 7, **relayed}, "malformed"),
            "a list reply": ({"type": "client-connect", "data": [], **relayed}, "malformed"),
            "an unknown phase": ({"type": "client-connect", "phase": 5, **relayed}, "malformed"),
            "a phase without fields": ({"type": "client-connect", "phase": 3, **relayed}, "malformed"),
            "no data": ({"type": "client-com", **relayed}, "malformed"),
            "a short random": (
                {"type": "client-com", **relayed, "data": {**com, "random": b64(bytes(31))}},
                "malformed",
            ),
            "an error without src": ({"type": "error", "code": "unknown-recipient", "dst": victim}, "malformed"),
            "no src": ({**disconnect, "dst": victim}, "malformed"),
            "no dst": ({**disconnect, "src": 666}, "malformed"),
            "a dst that is no number": ({**disconnect, "src": 666, "dst": "bob"}, "malformed"),
            "a dst that is null": ({**disconnect, "src": 666, "dst": None}, "malformed"),
            "a dst of other digits": ({**disconnect, "src": 666, "dst": "\u0661\u0660\u0661"}, "malformed"),
            "a dst with spaces": ({**disconnect, "src": 666, "dst": f" {victim}"}, "malformed"),
            "a src that is true": ({**disconnect, "src": True, "dst": victim}, "malformed"),
            "an unknown recipient": ({**disconnect, "src": 666, "dst": 9999}, "unknown-recipient"),
            "an unknown recipient as text": ({**disconnect, "src": "666", "dst": "9999"}, "unknown-recipient"),
            "the src of another": ({**disconnect, "src": other, "dst": victim}, "not-sender"),
            "the src of another as text": ({**disconnect, "src": str(other), "dst": str(victim)}, "not-sender"),
            "the ack of another": ({"type": "ack", "src": other, "dst": victim, "data": None}, "not-sender"),
            "the error of another": ({"type": "error", "code": "x", "src": other, "dst": victim}, "not-sender"),
            "the text of another": ({"type": "client-com", "src": other, "dst": victim, "data": com}, "not-sender"),
            "the src of nobody": ({**disconnect, "src": 9999, "dst": victim}, "not-sender"),
        }
        peer = self.session()
        for what, (inner, code) in inputs.items():
            with self.no_effect(what):
                peer.send_inner(inner)
                # The dst comes back as it was, which is not always one that a client can read.
                while (answer := peer.recv_inner())["type"] != "error":
                    pass
                self.assertEqual(answer["code"], code, what)
                if code == "unknown-recipient":
                    self.assertEqual(answer, {"type": "error", "code": code, "dst": inner["dst"]})
                self.assertIn(666, [entry["id"] for entry in peer.list()], what)

    def test_inner_garbage(self) -> None:
        """A plaintext that is no object: the code, and a closing."""
        for what, plaintext in {**GARBAGE, "an inner frame": encode(secure())}.items():
            if decodes_to_inner_object(plaintext) or len(plaintext) > 40_000:
                continue
            with self.no_effect(what):
                peer = self.session()
                self.attack(encode(secure_frame(peer.channel.seal(plaintext))) + END, peer.sock)
                self.check_closed(peer, what, "malformed")

    def session_of_two(self) -> SeedPeer:
        """A client that has a conversation with 777."""
        first, second = self.start_peer(self.port, "first", 776), self.start_peer(self.port, "second", 777)
        opened = self.meanwhile(next_event, second, "opened")
        first.open(777)
        opened.result(TIMEOUT)
        say(first, second, "hello")
        return first

    def test_vanishing(self) -> None:
        """A client that vanishes in the middle of a message: its id is free again, its peers are told when they ask."""
        for abort in (False, True):
            with self.no_effect("vanishing"):
                first, second = self.session(), self.start_peer(self.port, "peer", 777)
                opened = self.meanwhile(next_event, second, "opened")
                first.open(777)
                opened.result(TIMEOUT)
                frame = encode(secure_frame(first.channel.seal(encode({"type": "list"})))) + END
                if abort:
                    first.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                first.sock.sendall(frame[:-40])
                first.close()
                self.wait_for(lambda: 666 not in self.there(), "the client that vanished is gone")
                second.send_text(666, "are you there?")
                self.assertEqual(next_event(second, "error")[1:], (666, "unknown-recipient"))
                self.start_peer(self.port, "eve again", 666).close()
                second.close()


def decodes_to_inner_object(plaintext: bytes) -> bool:
    """Whether a plaintext is an object in JSON, however senseless."""
    try:
        return isinstance(json.loads(plaintext), dict) and plaintext.count(b"NaN") + plaintext.count(b"Inf") == 0
    except (ValueError, RecursionError):
        return False


class Recorder(SeedPeer):
    """A client that keeps what it sends, frame by frame."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.recorded: list[bytes] = []

    def send_frame(self, obj: bytes | Json, acks: int = 0) -> None:
        data = obj if isinstance(obj, bytes) else encode(obj) + END
        self.recorded.append(data)
        super().send_frame(data, acks if isinstance(obj, bytes) else 1)


class ReplayTests(HostileTestCase):
    """A whole session that was recorded."""

    def test_session(self) -> None:
        """It is sent again while its client is there and after it has left, at once and frame by frame."""
        ann = Recorder("127.0.0.1", self.port, "ann", 666, timeout=TIMEOUT)
        self.addCleanup(lambda: ann.close())
        ann.connect()
        bob = self.start_peer(self.port, "bob", 777)
        opened = self.meanwhile(next_event, bob, "opened")
        ann.open(777)
        opened.result(TIMEOUT)
        say(ann, bob, "once")
        say(ann, bob, "only")
        self.assertGreater(len(ann.recorded), 5)
        bob.list()
        bob.events.clear()
        for gone in (False, True):
            if gone:
                ann.close()
                self.wait_for(lambda: 666 not in self.there(), "the client has left")
            for at_once in (True, False):
                with self.no_effect("a replayed session"):
                    sock = self.dial()
                    for frame in [b"".join(ann.recorded)] if at_once else ann.recorded:
                        self.attack(frame, sock)
                    answers = self.refused(sock, "a replayed session")
                    self.assertEqual([answer.get("phase") for answer in answers], [2, 4] if gone else [])
        bob.list()
        self.assertEqual(list(bob.events), [])
