"""Bad input for the real console: from other clients through the real server, and from a hostile server."""

from __future__ import annotations

import contextlib
import os

from tests.hostile import END, GARBAGE, HostileTestCase, loose_parts
from tests.peers.seed_peer import DEFAULT_SPECS, SPECS, Json, Pair, b64, com_data, encode
from tests.peers.seed_server import SeedServer
from tests.processes import ProcessTestCase
from tests.talk import next_event


class ConsoleTests(HostileTestCase):
    """The relay used against another client: the real console, which has a conversation with an honest one."""

    def setUp(self) -> None:
        super().setUp()
        self.console = self.start_console(self.port, "victim", "--id", "7").ready()
        self.friend = self.start_peer(self.port, "friend", 8)
        self.friend.open(7)
        self.console.take("connected")
        self.eve = self.start_peer(self.port, "friend", 9)  # the same name
        self.console.do("list")
        self.console.take("list")

    def check_friend(self, what: str) -> None:
        """The console and its friend still have their conversation."""
        for text in (f"to {what}", f"again to {what}"):
            self.friend.send_text(7, text)
            told = self.console.take("message", sender={"id": "8", "name": "friend"})
            self.assertEqual(told["text"], text)
            self.friend.wait_ack(7)
        self.console.do("send", to="8", text=f"from {what}")
        self.assertEqual(next_event(self.friend, "text", 7)[2], f"from {what}")
        self.console.take("state", state="delivered")
        self.pair.check()

    def test_injections(self) -> None:
        """What an attacker sends of its own changes nothing for the conversation with another."""
        ends: Json = {"src": 9, "dst": 7}
        key = {"public_key": b64(Pair.fresh().pem), "random": b64(os.urandom(32))}
        channel = com_data({**loose_parts(), "hash": os.urandom(32)})
        phase: Json = {"type": "client-connect", **ends, "ciphers": DEFAULT_SPECS[0]}
        first: Json = {**phase, "phase": 1, "ciphers": [*SPECS], "data": {}}
        injections: dict[str, Json] = {
            "a list": {"type": "list", **ends, "data": [{"name": "friend", "id": 9, "level": 0}]},
            "an error as the server's": {"type": "error", "code": "unknown-recipient", "dst": 8},
            "an error": {"type": "error", "code": "unknown-recipient", **ends},
            "an error with a strange code": {"type": "error", "code": "\x1b[2J" * 20, **ends},
            "an ack of nothing": {"type": "ack", **ends, "data": None},
            "a disconnect without a conversation": {"type": "client-disconnect", **ends, "data": {}},
            "a disconnect as the friend's": {"type": "client-disconnect", "src": 8, "dst": 7, "data": {}},
            "a text without a conversation": {"type": "client-com", **ends, "data": channel},
            "phase 2 out of order": {**phase, "phase": 2, "data": {}},
            "phase 3 out of order": {**phase, "phase": 3, "data": key},
            "phase 4 out of order": {**phase, "phase": 4, "data": key},
            "no common spec": {**first, "ciphers": ["x"]},
            "phase 1 and nothing more": first,
            "phase 1 as the friend's": {**first, "src": 8},
        }
        for what, inner in injections.items():
            self.eve.send_inner(inner)
            self.eve.send_inner({"type": "list"})
            self.check_friend(what)
        self.assertEqual([told["peer"]["id"] for told in self.console.all("connected")], ["8"])
        self.assertEqual(self.console.all("disconnected"), [])
        self.assertEqual({told["from"]["id"] for told in self.console.all("message")}, {"8"})
        self.assertEqual(self.console.err, [])
        self.server.check_log()

    def test_conversation_of_its_own(self) -> None:
        """In its own conversation an attacker can replay, forge and flood; each text is shown once, others go on."""
        self.eve.open(7)
        self.console.take("connected")
        data = com_data(self.eve.talks[7].seal(encode("once")))
        com = {"type": "client-com", "src": 9, "dst": "7", "data": data}
        self.eve.send_inner(com)
        self.assertEqual(self.console.take("message")["text"], "once")
        self.eve.wait_ack(7)
        fresh = com_data(self.eve.talks[7].seal(encode("never")))
        for what, changed, code in (
            ("a replay", data, "not-authenticated"),
            ("another ciphertext", {**fresh, "ciphertext": b64(b"x" * 7)}, "not-authenticated"),
            ("another hash", {**fresh, "hash": b64(bytes(32))}, "not-authenticated"),
            ("another random", {**fresh, "random": b64(os.urandom(32))}, "not-authenticated"),
            ("another key", {**fresh, "public_key": b64(Pair.fresh().pem)}, "not-authenticated"),
            ("another iv", {**fresh, "iv": b64(bytes(16))}, "malformed"),
        ):
            self.eve.send_inner({**com, "data": changed})
            self.assertEqual(self.console.take("error")["code"], code, what)
            self.check_friend(what)
        self.eve.send_text(7, "still here")
        self.assertEqual(self.console.take("message", text="still here")["from"]["id"], "9")
        for _ in range(30):  # it opens conversation after conversation and finishes none
            ends: Json = {"src": 9, "dst": "7"}
            self.eve.send_inner({"type": "client-connect", "phase": 1, **ends, "ciphers": [*SPECS], "data": {}})
        self.check_friend("a flood of phase 1s")
        texts = [told["text"] for told in self.console.all("message") if told["from"]["id"] == "9"]
        self.assertEqual(texts, ["once", "still here"])
        self.server.check_log()


class HostileServerTests(ProcessTestCase):
    """A hostile server, for the real console."""

    def test_frames(self) -> None:
        """Frames that are wrong end the connection; the console says why, connects again, and nothing is shown."""
        with SeedServer() as server:
            console = self.start_console(server.port, "ann", "--id", "7").ready()
            for what in ("text", "nested", "phase 4", "an unknown type"):
                connection = server.clients[7]
                with contextlib.suppress(ConnectionError):
                    connection.sock.sendall(GARBAGE[what] + END)
                self.assertIn(console.take("error")["code"], ("malformed", "too-large"), what)
                console.take("offline")
                console.ready()
                self.wait_for(lambda: server.clients.get(7) not in (None, connection), "the new one")  # noqa: B023
            console.do("quit")
            self.assertEqual(console.wait_exit(), 0)
            self.assertEqual(console.err, [])

    def test_inner(self) -> None:
        """Inner messages that are wrong are told of, and the session goes on."""
        with SeedServer() as server:
            console = self.start_console(server.port, "ann", "--id", "7").ready()
            bob = self.start_peer(server.port, "bob", 8)
            bob.open(7)
            console.take("connected")
            for inner in (
                {"type": "hello"},
                {"type": "list", "data": "x"},
                {"type": "list", "data": [{"name": 1, "id": "x"}]},
                {"type": "client-com", "src": "7", "dst": "7", "data": {}},
                {"type": "client-disconnect", "src": 8, "dst": 9, "data": {}},
                {"type": "ack", "src": "x", "dst": 7, "data": None},
            ):
                server.push(7, inner)
                self.assertEqual(console.take("error")["code"], "malformed", str(inner))
            com: Json = {}
            bob.send_text(7, "once")
            console.take("message", text="once")
            com = next(inner for _, inner in server.inners if inner["type"] == "client-com")
            server.push(7, com)
            self.assertEqual(console.take("error")["code"], "not-authenticated")
            bob.wait_ack(7)
            bob.send_text(7, "twice")
            console.take("message", text="twice")
            bob.wait_ack(7)
            self.assertEqual([told["text"] for told in console.all("message")], ["once", "twice"])
            self.assertEqual(console.err, [])
