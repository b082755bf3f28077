"""The console of sims/2 as a process: people who meet, are away, crash, leave; what is on their disks."""

from __future__ import annotations

import os
import signal
import stat
import time
from pathlib import Path

from tests.modern_processes import ModernConsole, ModernTestCase, RealServer
from tests.processes import Console, Place, Process

SECRET = "a text that nobody else may read"
TLS = "tls:0:interface=127.0.0.1"


class LocalConsole(Console):
    """A console in JSON mode that finds its server by itself, in the default folder of this machine's user."""

    def __init__(self, place: Place, name: str, *args: str, command: tuple[str, ...] = ("sims-client",)) -> None:
        self.name, self._json = name, True
        self.events, self._events_taken = [], set()
        Process.__init__(self, place, [*command, "--name", name, "--json", "--no-passphrase", *args])


class ConsoleTestCase(ModernTestCase):
    """Consoles of one server."""

    def use_server(self, *args: str) -> RealServer:
        server = self.real_server(*args)
        server.wait_until(lambda: len(server.out) >= 2 or None, "its links")
        self.addCleanup(server.check_log)
        return server

    def again(self, name: str, *args: str) -> ModernConsole:
        """A console with the profile that somebody has."""
        return self.keep(ModernConsole(self.place, "", name, *args))

    def folder(self, name: str) -> Path:
        return self.place.cwd / f"profile-{name}"

    def order(self, console: Console, *events: str) -> None:
        """Of these kinds, what was told, in this order."""
        found = [told["event"] for told in console.events if told["event"] in events]
        self.assertEqual(found, list(events), console.describe("its events"))


class MachineTests(ConsoleTestCase):
    """One machine, and nothing said about servers: the default folder."""

    def test_three_terminals(self) -> None:
        """A server and two clients, in three terminals, are a conversation; a second client of a name is told why not.

        Both clients start at once, and have one invitation between them at first.
        """
        server = self.keep(Process(self.place, ["twistd", "-n", "sims-server", "--listen", TLS]))
        server.take_line("sims://")
        ann = self.keep(LocalConsole(self.place, "ann", command=("twistd", "-n", "sims-client")))
        bob = self.keep(LocalConsole(self.place, "bob"))
        ann.ready()
        bob.ready()
        ann.do("send", to="bob", text="hello", ref=1)
        told = bob.take("message")
        self.assertEqual((told["text"], told["from"]), ("hello", ann.contact()))
        self.assertEqual((told["verified"], told["confirmed"]), (False, False))
        ann.take("state", state="delivered", ref=1)
        self.order(ann, "ready", "connected", "connected")
        states = [(told["state"], told.get("text"), told["ref"]) for told in ann.all("state")]
        self.assertEqual(states, [("queued", "hello", 1), ("accepted", None, 1), ("delivered", None, 1)])
        bob.do("send", to="ann", text="hello to you")
        told = ann.take("message")
        self.assertEqual((told["text"], told["from"], told["confirmed"]), ("hello to you", bob.contact(), True))

        second = self.keep(LocalConsole(self.place, "ann"))
        self.assertEqual(second.wait_exit(), 1)
        self.assertEqual(second.out, [])
        self.assertEqual(len(second.complaints), 1, second.describe("standard error"))
        self.assertIn("in use by another client", second.complaints[0])

        for number, console in ((signal.SIGINT, ann), (signal.SIGTERM, bob)):
            began = time.monotonic()
            self.assertEqual(console.stop(number), -number)
            self.assertLess(time.monotonic() - began, 5)
            self.assertEqual(console.err, [])
        for name in ("ann", "bob"):
            folder = self.place.data / "sims" / "client" / name
            self.assertEqual(stat.S_IMODE(folder.stat().st_mode), 0o700)
        server.stop()
        self.assertNotIn("Traceback", "\n".join(server.err))


class MeetingTests(ConsoleTestCase):
    """Who is who."""

    def test_verified(self) -> None:
        """A link, the same safety number on both screens, and trust: told with every message from then on."""
        server = self.use_server()
        ann, bob = self.console(server.link(), "ann"), self.console(server.link(True), "bob")
        bob.do("link", ref="l")
        link = bob.take("link", ref="l")["link"]
        self.assertTrue(link.endswith(f"/bob/{bob.id}"))
        ann.do("send", to=link, text="by your link")
        self.assertEqual(bob.take("message")["from"]["id"], ann.id)
        self.assertTrue(ann.take("connected")["verified"])
        ann.do("verify", to="bob", ref="v")
        bob.do("verify", to="ann")
        mine, theirs = ann.take("safety-number", ref="v"), bob.take("safety-number")
        self.assertEqual((mine["number"], mine["peer"]), (theirs["number"], bob.contact()))
        bob.do("trust", to="ann")
        self.assertEqual(bob.take("trusted"), {"event": "trusted", "peer": ann.contact(), "verified": True})
        ann.do("send", to="bob", text="again")
        told = bob.take("message", text="again")
        self.assertEqual((told["verified"], told["confirmed"]), (True, True))
        for do, fields, code in (
            ("verify", {"to": "nobody"}, "unknown-recipient"),
            ("accept-identity", {"to": "bob"}, "policy"),
            ("send", {"to": "ann", "text": "x"}, "policy"),
            ("send", {"to": "sims://x", "text": "x"}, "malformed"),
            ("send", {"to": "bob", "text": "x" * 32_001}, "too-large"),
            ("send", {"to": "bob"}, "malformed"),
        ):
            ann.do(do, ref=do, **fields)
            self.assertEqual(ann.take("error", ref=do)["code"], code)
        ann.do("send", to="nobody", text="x", ref="n")
        self.assertEqual(ann.take("state", state="failed", ref="n")["code"], "unknown-recipient")
        for console in (ann, bob):
            console.check_log()

    def test_identity_changed(self) -> None:
        """The server forgets everybody, and one has a new identity: nothing goes to it until it is accepted."""
        options = ("--registration", "open", "--store", "memory")
        server = self.use_server(*options)
        ann, bob = self.console(server.known(), "ann"), self.console(server.known(), "bob")
        ann.do("send", to="bob", text="hello")
        bob.take("message")
        ann.take("state", state="delivered")
        old = bob.id
        bob.kill()
        port = server.known().addresses[0][1]
        server.stop()
        ann.take("offline")
        where = f"--listen=tcp:{port}:interface=127.0.0.1"
        anew = self.keep(Process(self.place, ["sims-server", "--dir", str(self.place.cwd / "server"), where, *options]))
        anew.take_line("sims+tcp://")
        newer = self.keep(
            ModernConsole(self.place, str(server.known()), "bob", folder=self.place.cwd / "another-folder")
        )
        newer.ready()
        ann.take("ready")
        newer.do("send", to="ann", text="it is me")
        told = ann.take("identity-changed")
        self.assertEqual((told["peer"], told["old"], told["new"]), ({"id": old, "name": "bob"}, old, newer.id))
        self.assertEqual(ann.take("message")["from"], {"id": newer.id, "name": ""})
        ann.do("send", to="bob", text="are you?", ref=1)
        self.assertEqual(ann.take("error", ref=1)["code"], "policy")
        ann.do("accept-identity", to="bob", ref=2)
        self.assertEqual(ann.take("connected", ref=2)["peer"], newer.contact())
        ann.do("send", to="bob", text="well then")
        newer.take("message", text="well then")
        self.assertEqual(len(ann.all("identity-changed")), 1)


class RefusedTests(ConsoleTestCase):
    """Whom a server does not take in, and which server a client does not take."""

    def test_refused(self) -> None:
        """One event with the code, and the exit status 1: another server's id, a name or an invitation that is taken,
        a link to nothing."""
        server = self.use_server()
        ann = self.console(server.link(), "ann")
        known, used = server.known(), server.link()
        self.console(used, "carol")
        other = known._replace(server_id=ann.id)
        for name, link, code in (
            ("eve", other, "not-authenticated"),
            ("eve", used, "invite-used"),
            ("eve", known, "invite-required"),
            ("ANN", server.link(), "name-taken"),
        ):
            eve = self.keep(ModernConsole(self.place, str(link), name, folder=self.place.cwd / f"eve-{code}"))
            self.assertEqual(eve.take("error")["code"], code)
            self.assertEqual(eve.wait_exit(), 1)
            self.assertEqual((len(eve.events), eve.err), (1, []), eve.describe(code))
        eve = self.keep(ModernConsole(self.place, "sims://nothing", "eve"))
        self.assertEqual((eve.wait_exit(), eve.out, len(eve.complaints)), (1, [], 1))


class LifeTests(ConsoleTestCase):
    """Away, killed, at the end of input; and what is left on the disk."""

    def test_away(self) -> None:
        """First messages to somebody away come when he is back, each once, though both have ended meanwhile."""
        server = self.use_server()
        ann, bob = self.console(server.link(True), "ann"), self.console(server.link(True), "bob")
        bob.end_input()
        self.assertEqual(bob.wait_exit(), 0)
        for number in range(5):
            ann.do("send", to="bob", text=f"{SECRET} {number}")
        ann.end_input()  # it waits for what is under way
        self.assertEqual(ann.wait_exit(), 0, ann.describe("the end of input"))
        self.assertEqual([told["state"] for told in ann.all("state")].count("accepted"), 5)
        back = self.again("bob")
        texts = [told["text"] for told in back.take_many(5, "message")]
        self.assertEqual(texts, [f"{SECRET} {number}" for number in range(5)])
        returned = self.again("ann")
        returned.take_many(5, "state", state="delivered")
        for name in ("ann", "bob"):
            files = [path for path in self.folder(name).iterdir() if path.is_file()]
            self.assertIn("vault", {path.name for path in files})
            for path in files:
                self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o600, path)
                self.assertNotIn(SECRET.encode(), path.read_bytes(), path)
                self.assertNotIn(b"SQLite", path.read_bytes(), path)

    def test_killed(self) -> None:
        """With kill -9 between send and accepted: the text arrives once, of whichever process."""
        server = self.use_server()
        ann, bob = self.console(server.link(), "ann"), self.console(server.link(), "bob")
        ann.do("send", to="bob", text="first")
        bob.take("message", text="first")
        ann.take("state", state="delivered")
        for number in range(3):
            server.send_signal(signal.SIGSTOP)
            ann.do("send", to="bob", text=f"text {number}")
            ann.take("state", state="queued", text=f"text {number}")
            if number:
                time.sleep(0.1 * number)
            os.kill(ann.popen.pid, signal.SIGKILL)
            ann.wait_exit()
            server.send_signal(signal.SIGCONT)
            ann = self.again("ann")
            ann.ready()
            bob.take("message", text=f"text {number}")
            ann.take("state", state="delivered")
        ann.do("send", to="bob", text="last")
        bob.take("message", text="last")
        texts = [told["text"] for told in bob.all("message")]
        self.assertEqual(texts, ["first", "text 0", "text 1", "text 2", "last"])
        self.assertEqual({told.get("order") for told in bob.all("message")}, {None})

    def test_recipient_killed(self) -> None:
        """With kill -9 while texts come in: what was accepted is shown by the next process, or was by this one."""
        server = self.use_server()
        ann, bob = self.console(server.link(), "ann"), self.console(server.link(), "bob")
        for number in range(60):
            ann.do("send", to="bob", text=str(number))
        bob.take("message", text="5")
        os.kill(bob.popen.pid, signal.SIGKILL)
        bob.wait_exit()
        ann.take_many(60, "state", state="accepted")
        back = self.again("bob")
        ann.take_many(60, "state", state="delivered")
        back.do("quit")
        back.wait_exit()
        shown = [int(told["text"]) for console in (bob, back) for told in console.all("message")]
        self.assertEqual(list(dict.fromkeys(shown)), list(range(60)))
        # What it had printed and not noted yet is printed once more, under the same ids: never a third time.
        self.assertLessEqual(max(shown.count(number) for number in shown), 2)
        ids = {told["id"] for console in (bob, back) for told in console.all("message")}
        self.assertEqual(len(ids), 60)

    def test_signals(self) -> None:
        """They end it at once, whatever is under way: it is kept, and goes the next time."""
        server = self.use_server()
        ann, bob = self.console(server.link(), "ann"), self.console(server.link(), "bob")
        ann.do("send", to="bob", text="the last", ref=1)
        ann.take("state", ref=1, state="queued")
        self.assertEqual(ann.stop(signal.SIGTERM), -signal.SIGTERM)
        self.assertEqual(ann.err, [])
        ann = self.again("ann")
        bob.take("message", text="the last")
        server.send_signal(signal.SIGSTOP)
        bob.do("send", to="ann", text="into the void", ref=2)
        bob.take("state", ref=2, state="queued")
        began = time.monotonic()
        self.assertEqual(bob.stop(signal.SIGINT), -signal.SIGINT)
        self.assertLess(time.monotonic() - began, 3)
        self.assertEqual(bob.err, [])
        server.send_signal(signal.SIGCONT)
        self.again("bob").take("state", state="accepted")
        ann.take("message", text="into the void")
