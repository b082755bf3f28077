"""The client's process: its commands, its events, its files."""

from __future__ import annotations

import json
import stat
from pathlib import Path

from sims import __version__
from tests.processes import Console, Event, Process, ProcessTestCase
from tests.talk import next_event

UNAUTHENTICATED = "[unauthenticated]"


class EventTests(ProcessTestCase):
    """Every event of the JSON mode, to the letter."""

    def setUp(self) -> None:
        super().setUp()
        self.server = self.start_server()

    def _keys(self, event: Event, *expected: str) -> None:
        self.assertEqual(list(event), ["event", *expected])

    def test_shapes(self) -> None:
        """Each event of a conversation has the keys that it should have, and ids are strings."""
        ann = self.start_console(self.server.port, "ann", "--id", "7")
        ready = ann.take("ready")
        self.assertEqual(ready, {"event": "ready", "id": "7", "name": "ann", "spec": "ECDHE-AES128_CTR-SHA256"})
        bob = self.start_console(self.server.port, "bob", "--id", "8").ready()
        seven, eight = {"id": "7", "name": "ann"}, {"id": "8", "name": "bob"}

        ann.do("list")
        self.assertEqual(ann.take("list"), {"event": "list", "clients": [seven, eight]})

        ann.do("connect", to="8")
        spec = "ECDHE-AES128_CTR-SHA256"
        connected = {"event": "connected", "peer": eight, "spec": spec, "verified": False}
        self.assertEqual(ann.take("connected"), connected)
        self.assertEqual(bob.take("connected"), {**connected, "peer": {"id": "7", "name": ""} | {"name": "ann"}})

        ann.do("send", to="8", text="hello")
        message = bob.take("message")
        self._keys(message, "from", "text", "id")
        self.assertEqual((message["from"], message["text"]), (seven, "hello"))
        self.assertIsInstance(message["id"], str)
        queued, accepted, delivered = ann.take_many(3, "state")
        for state in (queued, accepted, delivered):
            self._keys(state, "id", "to", *(["text"] if "text" in state else []), "state")
            self.assertEqual((state["id"], state["to"]), (queued["id"], eight))
        self.assertEqual([told["state"] for told in (queued, accepted, delivered)], ["queued", "accepted", "delivered"])
        self.assertEqual(queued["text"], "hello")

        ann.do("disconnect", to="8")
        self.assertEqual(ann.take("disconnected"), {"event": "disconnected", "peer": eight})
        self.assertEqual(bob.take("disconnected"), {"event": "disconnected", "peer": seven})

        ann.do("send", to="9", text="nobody")
        failed = ann.take("state", state="failed")
        self._keys(failed, "id", "to", "state", "code")
        self.assertEqual((failed["to"]["id"], failed["code"]), ("9", "unknown-recipient"))
        error = ann.take("error")
        self._keys(error, "code", "text")
        self.assertEqual(error["code"], "unknown-recipient")

        self.server.kill()
        self.assertEqual(ann.take("offline"), {"event": "offline"})
        kinds = {"ready", "list", "connected", "message", "state", "disconnected", "error", "offline"}
        self.assertEqual({told["event"] for told in ann.events} | {"message"}, kinds)
        self.assertEqual((ann.complaints, bob.complaints), ([], []))

    def test_refs(self) -> None:
        """A ref comes back in every event that its command causes, as it was, and in no other."""
        ann = self.start_console(self.server.port, "ann", "--id", "7").ready()
        bob = self.start_console(self.server.port, "bob", "--id", "8").ready()
        ann.do("list", ref="L")
        self.assertEqual(list(ann.take("list")), ["event", "clients", "ref"])
        ann.do("connect", to="8", ref=17)
        self.assertEqual(ann.take("connected")["ref"], 17)
        ann.do("connect", to="bob", ref="again")
        self.assertEqual(ann.take("connected")["ref"], "again")
        ann.do("send", to="bob", text="hello", ref="S")
        states = ann.take_many(3, "state", ref="S")
        self.assertEqual([told["state"] for told in states], ["queued", "accepted", "delivered"])
        ann.do("disconnect", to="8", ref="D")
        self.assertEqual(ann.take("disconnected")["ref"], "D")
        ann.do("send", to="8", text="opens first", ref="O")
        self.assertEqual(ann.take("connected")["ref"], "O")
        ann.take("state", state="delivered", ref="O")
        ann.do("send", to="99", text="nobody", ref="N")
        self.assertEqual(ann.take("state", state="failed")["ref"], "N")
        self.assertEqual(ann.take("error")["ref"], "N")
        ann.do("send", to="nobody of this name", text="nobody", ref="M")
        self.assertEqual(ann.take("state", state="failed")["ref"], "M")
        self.assertEqual(ann.take("error")["ref"], "M")
        for line in (
            '{"do":"fly","ref":"F"}',
            '{"do":"send","to":"8","ref":"F"}',
            '{"do":"connect","to":[],"ref":"F"}',
        ):
            ann.write(line + "\n")
            error = ann.take("error", ref="F")
            self.assertEqual((list(error), error["code"]), (["event", "code", "text", "ref"], "malformed"))
        self.assertEqual([told for told in bob.events if "ref" in told], [])

    def test_bad_lines(self) -> None:
        """Lines that are no command are answered, one error each, and change nothing."""
        ann = self.start_console(self.server.port, "ann").ready()
        bad = (
            b"list",
            b"[]",
            b"7",
            b'{"do":',
            b'{"do":"list"} {"do":"list"}',
            b'{"do":7}',
            b"{}",
            b'{"do":"send","to":"8","text":7}',
            b'{"do":"send","to":"","text":"x"}',
            b'{"do":"send","to":"8","text":""}',
            b'{"do":"send","to":"8","text":"\xff"}',
            b'{"do":"send","to":"8","text":"\\ud800"}',
            b"[" * 50_000,
            b"\xff\xfe",
        )
        for line in bad:
            ann.write(line + b"\n")
            self.assertEqual(ann.take("error")["code"], "malformed", line[:60])
        ann.write(json.dumps({"do": "send", "to": "8", "text": "x" * 50_000}) + "\n")
        self.assertEqual(ann.take("error")["code"], "too-large")
        ann.write(b"x" * 1_000_000 + b"\n")
        self.assertEqual(ann.take("error")["code"], "too-large")
        ann.write(b"\n  \n\r\n")
        ann.do("list", ref="still here")
        ann.take("list", ref="still here")
        self.assertEqual(len(ann.all("error")), len(bad) + 2)

    def test_recipients(self) -> None:
        """An id as text or number, a name; a name that two have is refused, as is oneself."""
        ann = self.start_console(self.server.port, "ann", "--id", "7").ready()
        bob = self.start_console(self.server.port, "bob", "--id", "8").ready()
        for to in ("8", 8, "bob"):
            ann.do("send", to=to, text=f"to {to!r}")
            self.assertEqual(bob.take("message")["text"], f"to {to!r}")
        # A name that is not in the last list is looked for in a new one.
        eve = self.start_peer(self.server.port, "Ève la 2ème", 9)
        ann.do("connect", to="Ève la 2ème")
        next_event(eve, "opened", 7)
        self.assertEqual(ann.take("connected", peer={"id": "9", "name": "Ève la 2ème"})["verified"], False)
        self.start_peer(self.server.port, "bob", 10)
        ann.do("list")
        self.assertEqual(len(ann.take("list")["clients"]), 4)
        for to in ("bob", "7", "ann", "nobody"):
            ann.do("send", to=to, text="x", ref=f"to {to}")
            failed = ann.take("state", state="failed", ref=f"to {to}")
            self.assertEqual(failed["code"], "unknown-recipient", to)

    def test_id_in_use(self) -> None:
        """A second client with the id of one that is connected is told, goes on trying, and gets in when it is free."""
        ann = self.start_console(self.server.port, "ann", "--id", "7").ready()
        bob = self.start_console(self.server.port, "bob", "--id", "7")
        self.assertEqual(bob.take("error")["code"], "unavailable")
        ann.do("list")
        self.assertEqual(ann.take("list")["clients"], [{"id": "7", "name": "ann"}])
        ann.do("quit")
        self.assertEqual(ann.wait_exit(), 0)
        bob.ready()


class FileTests(ProcessTestCase):
    """What it keeps, and where."""

    def setUp(self) -> None:
        super().setUp()
        self.server = self.start_server()

    def run_once(self, name: str, *args: str) -> Console:
        """A console that is ready and has left again."""
        console = self.start_console(self.server.port, name, *args).ready()
        console.do("quit")
        self.assertEqual(console.wait_exit(), 0, console.describe("quit"))
        return console

    def test_id_is_kept(self) -> None:
        """The id is random, of at most 31 bits, kept in the folder from run to run, in a file for its owner alone."""
        folder = self.place.home / "ann's"
        ids = {self.run_once("ann", "--dir", str(folder)).id for _ in range(3)}
        self.assertEqual(len(ids), 1)
        self.assertTrue(0 < int(ids.pop()) < 2**31)
        files = list(folder.iterdir())
        self.assertEqual(len(files), 1)
        self.assertEqual(stat.S_IMODE(files[0].stat().st_mode), 0o600)
        self.assertEqual(stat.S_IMODE(folder.stat().st_mode), 0o700)
        self.assertFalse((self.place.data / "sims" / "client").exists())
        self.assertEqual(list(self.place.cwd.iterdir()), [])

    def test_two_names_in_one_folder(self) -> None:
        """Each name has an id of its own, and keeps it."""
        folder = str(self.place.home / "shared")
        names = ("ann", "bob", "../ann", "a/b", "Ève")

        def ids() -> list[str]:
            consoles = [self.start_console(self.server.port, name, "--dir", folder) for name in names]
            for console in consoles:
                console.ready().do("quit")
            self.assertEqual([console.wait_exit() for console in consoles], [0] * len(names))
            return [console.id for console in consoles]

        first = ids()
        self.assertEqual(len({*first}), len(names))
        self.assertEqual(ids(), first)

    def test_default_folder(self) -> None:
        """The user's data folder: for its owner alone, an id for each name."""
        first, second = self.run_once("ann").id, self.run_once("bob").id
        self.assertNotEqual(first, second)
        self.assertEqual(self.run_once("ann").id, first)
        for path in (self.place.data / "sims" / "client").rglob("*"):
            self.assertEqual(stat.S_IMODE(path.stat().st_mode) & 0o077, 0, path)

    def test_given_id(self) -> None:
        """``--id`` is used, and not kept."""
        folder = self.place.home / "ann's"
        self.assertEqual(self.run_once("ann", "--dir", str(folder), "--id", "12345").id, "12345")
        self.assertNotEqual(self.run_once("ann", "--dir", str(folder)).id, "12345")

    def test_spoiled_file(self) -> None:
        """A file that holds no number is named; nothing is changed."""
        folder = self.place.home / "ann's"
        self.run_once("ann", "--dir", str(folder))
        path = next(folder.iterdir())
        path.write_text("what?\n")
        self.check_refused((str(path), "--seed", "tcp:127.0.0.1:1", "--name", "ann", "--dir", str(folder)))
        self.assertEqual(path.read_text(), "what?\n")

    def test_bad_options(self) -> None:
        """What is wrong with the options is said in a line on standard error, with an exit status."""
        name, seed = ("--name", "ann"), ("--seed", "tcp:127.0.0.1:1")
        self.check_refused(
            ("--link", *name),
            ("--name", *seed),
            ("--name", *seed, "--name", "two\nlines"),
            ("--id", *seed, *name, "--id", "seven"),
            ("no-such-spec", *seed, *name, "--specs", "no-such-spec"),
            ("bogus", *name, "--seed", "bogus"),
            ("tcp:127.0.0.1:x", *name, "--seed", "tcp:127.0.0.1:x"),
        )

    def test_version_and_help(self) -> None:
        """``--version`` and ``--help`` need nothing else."""
        for command in (["sims-client"], ["twistd", "-n", "sims-client"]):
            process = self.keep(Process(self.place, [*command, "--version"]))
            self.assertEqual(process.wait_exit(), 0)
            self.assertEqual((process.out, process.err), ([f"sims {__version__}"], []))
            process = self.keep(Process(self.place, [*command, "--help"]))
            self.assertEqual(process.wait_exit(), 0)
            for option in ("--seed", "--name", "--id", "--specs", "--dir", "--json", "--logfile", "--version"):
                self.assertIn(option, "\n".join(process.out))
        self.assertEqual([*Path(self.place.cwd).iterdir()], [])
        self.assertFalse((self.place.data / "sims" / "client").exists())

    def check_refused(self, *refused: tuple[str, ...]) -> None:
        """Consoles that do not even start, and say why in one line: what that names, then the options."""
        consoles = [self.keep(Process(self.place, ["sims-client", "--json", *args])) for _, *args in refused]
        for console, (named, *args) in zip(consoles, refused, strict=True):
            self.assertEqual(console.wait_exit(), 1, console.describe(f"{args}"))
            self.assertEqual(console.out, [], console.describe("standard output is for events"))
            self.assertEqual(len(console.err), 1, console.describe("not one line"))
            self.assertIn(named, console.err[0])


class TextTests(ProcessTestCase):
    """The text mode, on a pipe."""

    def setUp(self) -> None:
        super().setUp()
        self.server = self.start_server()

    def text_console(self, name: str, *args: str) -> Console:
        """A console in text mode."""
        return self.start_console(self.server.port, name, *args, json_lines=False)

    def test_commands_of_the_seed(self) -> None:
        """The seed's own commands, dashes in texts included."""
        self._check_commands("connect-8", "send-8-a text - with-dashes", "disconnect-8")

    def test_slash_commands(self) -> None:
        """The same with a slash and spaces."""
        self._check_commands("/connect 8", "/send 8 a text - with-dashes", "/disconnect 8", slash="/")

    def _check_commands(self, connect: str, send: str, disconnect: str, slash: str = "") -> None:
        ann = self.text_console("ann", "--id", "7")
        bob = self.start_console(self.server.port, "bob", "--id", "8").ready()
        ann.take_line("ready as ann (7)")
        ann.write(f"{slash}help\n")
        for word in ("list", "connect", "list-connected", "send", "disconnect", "help", "/send 7 hi there"):
            ann.take_line(word)
        ann.write(f"{slash}list\n")
        self.assertIn("bob (8)", ann.take_line("ann (7)"))
        ann.write(f"{slash}list-connected\n")
        ann.take_line("no conversation")
        ann.write(f"{connect}\n")
        self.assertIn(UNAUTHENTICATED, ann.take_line("conversation with bob (8)"))
        ann.write(f"{slash}list-connected\n")
        self.assertIn("unauthenticated", ann.take_line("open conversations"))
        ann.write(f"{send}\n")
        self.assertEqual(bob.take("message")["text"], "a text - with-dashes")
        ann.take_line("delivered to bob (8)")
        bob.do("send", to="7", text="grüß dich")
        self.assertEqual(ann.take_line("grüß dich"), f"bob (8) {UNAUTHENTICATED}: grüß dich")
        ann.write(f"{disconnect}\n")
        ann.take_line("conversation with bob (8) is closed")
        bob.take("disconnected")
        ann.write(f"{slash}nonsense\n{slash}send\n")
        ann.take_line("! no such command")
        ann.take_line("! send whom?")
        ann.write(b"\xff\xfe\n")
        ann.take_line("! a line that is not UTF-8")
        ann.write(f"{slash}quit\n")
        self.assertEqual(ann.wait_exit(), 0)
        self.assertEqual(ann.err, [])

    def test_control_characters(self) -> None:
        """What would act on a terminal, or fake a line of ours, is taken out of texts and names."""
        ann = self.text_console("ann", "--id", "7")
        ann.take_line("ready")
        eve = self.start_peer(self.server.port, "e\x1b[31mve\r\n* ready\u202e", 8)
        ann.write("list\n")
        ann.take_line("(8)")
        eve.open(7)
        ann.take_line("conversation with")
        text = (
            "\x1b]0;title\x07\x9b2J a\x08b\x7f \u202eevil\u202c \ufeff\n"
            "bob (9) [unauthenticated]: fake\r\n* fake\u2028fake end"
        )
        eve.send_text(7, text)
        eve.wait_ack(7)
        eve.send_text(7, "👩\u200d👧 ok")
        ann.take_line("👩\u200d👧 ok")
        for line in ann.out:
            self.assertFalse(line.startswith(("bob", "* fake", "fake", "* ready\u202e")), ascii(line))
            for char in line:
                self.assertFalse(ord(char) < 32 or 0x7F <= ord(char) < 0xA0, ascii(line))
                self.assertNotIn(char, "\u202e\u202c\ufeff\u2028", ascii(line))
        self.assertTrue(any("evil" in line for line in ann.out))
        self.assertTrue(any(UNAUTHENTICATED in line and "title" in line for line in ann.out))

    def test_offline(self) -> None:
        """A lost connection, and a server that is away, are told."""
        ann = self.text_console("ann")
        ann.take_line("ready")
        self.server.kill()
        ann.take_line("connection to the server is lost")
        ann.take_line("cannot connect to the server")
