"""The client's process: how it waits, reconnects, reads and writes much, and how it ends."""

from __future__ import annotations

import json
import signal
import subprocess
import time

from tests.processes import TIMEOUT, Console, ProcessTestCase
from tests.talk import next_event

#: How long leaving waits for what is under way, with the start of a process on a slow machine.
LEAVES_WITHIN = 25.0


class LeavingTests(ProcessTestCase):
    """The end of input, signals, and what becomes of what is under way."""

    def test_end_of_input(self) -> None:
        """What was asked for is done before it leaves, with the exit status 0."""
        server = self.start_server()
        for number, command in enumerate((("sims-client",), ("twistd", "-n", "sims-client"))):
            bob = self.start_peer(server.port, f"bob{number}", 8 + number)
            ann = self.start_console(server.port, "ann", "--id", "7", command=command)
            ann.do("list")
            for text in range(20):
                ann.do("send", to=bob.name, text=f"text {text}")
            ann.end_input()
            next_event(bob, "opened", 7)
            self.assertEqual([next_event(bob, "text", 7)[2] for _ in range(20)], [f"text {n}" for n in range(20)])
            self.assertEqual(ann.wait_exit(LEAVES_WITHIN), 0, ann.describe("the exit status"))
            self.assertEqual(len([told for told in ann.all("state") if told["state"] == "delivered"]), 20)
            self.assertEqual((len(ann.all("list")), ann.all("error"), ann.err), (1, [], []))

    def test_last_line_without_end(self) -> None:
        """A last line that has no newline counts."""
        server = self.start_server()
        ann = self.start_console(server.port, "ann")
        ann.write('{"do":"list"}')
        ann.end_input()
        self.assertEqual(ann.wait_exit(LEAVES_WITHIN), 0)
        self.assertEqual(len(ann.all("list")), 1)

    def test_quit(self) -> None:
        """``quit`` does the same as the end of input, and what comes after it is not run."""
        server = self.start_server()
        bob = self.start_peer(server.port, "bob", 8)
        ann = self.start_console(server.port, "ann", "--id", "7")
        ann.do("send", to="8", text="last")
        ann.do("quit", ref="Q")
        ann.do("send", to="8", text="too late")
        self.assertEqual(next_event(bob, "text", 7)[2], "last")
        self.assertEqual(ann.wait_exit(LEAVES_WITHIN), 0)
        self.assertEqual([told["text"] for told in ann.all("state") if "text" in told], ["last"])

    def test_left_undone(self) -> None:
        """Without a server, or an answer, what was asked for is left undone after ten seconds: it says so, exits 1."""
        server = self.start_server()
        bob = self.start_peer(server.port, "bob", 8)
        began = time.monotonic()
        away = self.start_console("tcp:127.0.0.1:1", "ann")
        unanswered = self.start_console(server.port, "ann", "--id", "7")
        for console in (away, unanswered):
            console.do("send", to="8", text="hello")
            console.end_input()
        next_event(bob, "opened", 7)  # it reads nothing more
        for console, errors in ((away, 2), (unanswered, 1)):
            self.assertEqual(console.wait_exit(LEAVES_WITHIN), 1, console.describe("the exit status"))
            self.assertGreater(time.monotonic() - began, 9.5)
            self.assertNotIn("delivered", [told["state"] for told in console.all("state")])
            self.assertEqual([told["code"] for told in console.all("error")], ["unavailable"] * errors)
            self.assertEqual(console.err, [])

    def test_nothing_to_do(self) -> None:
        """No input at all: it leaves at once."""
        ann = self.start_console("tcp:127.0.0.1:1", "ann", stdin=subprocess.DEVNULL)
        self.assertEqual(ann.wait_exit(), 0)

    def test_signals(self) -> None:
        """Ctrl-C and SIGTERM end it at once, and quietly, whatever is under way."""
        server = self.start_server()
        self.start_peer(server.port, "bob", 8)
        for number in (signal.SIGINT, signal.SIGTERM):
            idle = self.start_console(server.port, "ann", command=("twistd", "-n", "sims-client"))
            waiting = self.start_console(server.port, "ann", "--id", "5")
            away = self.start_console("tcp:127.0.0.1:1", "ann")
            text = self.start_console(server.port, "ann", "--id", "6", json_lines=False)
            self._end(idle.ready(), number)
            waiting.ready().do("send", to="8", text="never acknowledged")
            waiting.take("state", state="queued")
            self._end(waiting, number)
            away.do("list")
            away.take("error")
            self._end(away, number)
            text.take_line("ready")
            self._end(text, number)

    def test_signal_without_answer(self) -> None:
        """So they do while the server does not answer."""
        server = self.start_server()
        idle = self.start_console(server.port, "bob").ready()
        server.send_signal(signal.SIGSTOP)
        self._end(idle, signal.SIGINT)
        for number in (signal.SIGINT, signal.SIGTERM):
            ann = self.start_console(server.port, "ann")
            ann.do("send", to="8", text="x")
            ann.take("state", state="queued")
            self._end(ann, number)

    def test_interrupted_pipeline(self) -> None:
        """Ctrl-C ends a whole pipeline: the end of input that follows the signal changes nothing."""
        server = self.start_server()
        for _ in range(5):
            ann = self.start_console(server.port, "ann").ready()
            ann.send_signal(signal.SIGINT)
            ann.end_input()
            ann.wait_exit()
            self.assertEqual(ann.err, [], ann.describe("standard error"))

    def _end(self, console: Console, number: int) -> None:
        began = time.monotonic()
        status = console.stop(number)
        self.assertLess(time.monotonic() - began, 1.5, console.describe("it took too long to end"))
        # twistd ends itself by the same signal, after its services have stopped.
        self.assertEqual(status, -number, console.describe("the exit status"))
        self.assertEqual(console.err, [], console.describe("standard error"))

    def test_output_closed(self) -> None:
        """It ends when nobody reads its output any more, with the exit status 1."""
        server = self.start_server()
        bob = self.start_peer(server.port, "bob", 8)
        ann = self.start_console(server.port, "ann", "--id", "7", reading=False)
        self.assertEqual(self.first_line(ann)["event"], "ready")
        if ann.popen.stdout is not None:
            ann.popen.stdout.close()
        bob.send_inner({"type": "client-connect", "src": 8, "dst": "7", "phase": 1, "ciphers": bob.specs, "data": {}})
        self.assertEqual(ann.wait_exit(LEAVES_WITHIN), 1, ann.describe("the exit status"))
        self.assertEqual(ann.err, [])


class ReconnectTests(ProcessTestCase):
    """A server that goes away and comes back."""

    def test_restart(self) -> None:
        """Offline, then ready again; what was asked for meanwhile is done then, in order."""
        server = self.start_server()
        listen = f"tcp:{server.port}:interface=127.0.0.1"
        ann = self.start_console(server.port, "ann", "--id", "7").ready()
        bob = self.start_console(server.port, "bob", "--id", "8").ready()
        ann.do("send", to="8", text="before")
        self.assertEqual(bob.take("message")["text"], "before")
        ann.take("state", state="delivered")
        server.kill()
        ann.take("offline")
        bob.take("offline")
        for number in range(10):
            ann.do("send", to="8" if number % 2 else "bob", text=f"text {number}", ref=number)
        ann.take_many(10, "state", state="queued", to={"id": "8", "name": "bob"})
        ann.send_signal(signal.SIGSTOP)  # whoever is back first finds nobody else there
        again = self.start_server("--seed-listen", listen)
        bob.ready()
        ann.send_signal(signal.SIGCONT)
        ann.ready()
        texts = [told["text"] for told in bob.take_many(10, "message")]
        self.assertEqual(texts, [f"text {number}" for number in range(10)])
        self.assertEqual([told["ref"] for told in ann.take_many(10, "state", state="delivered")], list(range(10)))
        again.check_log()

    def test_stopped(self) -> None:
        """A server that is stopped in order: the same."""
        server = self.start_server()
        listen = f"tcp:{server.port}:interface=127.0.0.1"
        ann = self.start_console(server.port, "ann").ready()
        server.stop()
        ann.take("offline")
        ann.do("list", ref="L")
        self.start_server("--seed-listen", listen)
        ann.ready()
        ann.take("list", ref="L")
        self.assertEqual(len(ann.all("offline")), 1)

    def test_started_later(self) -> None:
        """A server that is started after the client; the reason for waiting is told once."""
        server = self.start_server()
        port = server.port
        server.stop()
        ann = self.start_console(port, "ann")
        self.assertEqual(ann.take("error")["code"], "unavailable")
        ann.do("list")
        self.start_server("--seed-listen", f"tcp:{port}:interface=127.0.0.1")
        ann.ready()
        ann.take("list")
        self.assertEqual((len(ann.all("error")), ann.all("offline")), (1, []))


class StreamTests(ProcessTestCase):
    """Files, slow readers, and much at once."""

    def test_regular_files(self) -> None:
        """Standard input and output may be files."""
        server = self.start_server()
        bob = self.start_peer(server.port, "bob", 8)
        script, result = self.place.home / "script", self.place.home / "result"
        commands = [{"do": "list"}, {"do": "send", "to": "8", "text": "from a file"}]
        script.write_text("".join(json.dumps(command) + "\n" for command in commands))
        with script.open("rb") as stdin, result.open("wb") as stdout:
            ann = self.start_console(server.port, "ann", "--id", "7", stdin=stdin, stdout=stdout)
        self.assertEqual(next_event(bob, "text", 7)[2], "from a file")
        self.assertEqual(ann.wait_exit(LEAVES_WITHIN), 0, ann.describe("the exit status"))
        told = [json.loads(line) for line in result.read_text().splitlines()]
        states = [event["state"] for event in told if event["event"] == "state"]
        self.assertEqual(states, ["queued", "accepted", "delivered"])
        self.assertEqual(ann.err, [])

    def test_null_device(self) -> None:
        """``/dev/null`` at both ends."""
        server = self.start_server()
        ann = self.start_console(server.port, "ann", stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        self.assertEqual(ann.wait_exit(LEAVES_WITHIN), 0, ann.describe("the exit status"))
        self.assertEqual(ann.err, [])

    def test_slow_reader(self) -> None:
        """Nobody reads the output for a while: the sender is slowed down, memory stays bounded, nothing is lost."""
        server = self.start_server()
        ann = self.start_console(server.port, "ann", "--id", "7").ready()
        bob = self.start_console(server.port, "bob", "--id", "8", reading=False)
        self.assertEqual(self.first_line(bob)["event"], "ready")
        ann.do("connect", to="8")
        ann.take("connected")
        before = server.memory, bob.memory
        count, text = 600, "x" * 20_000
        for number in range(count):
            ann.do("send", to="8", text=f"{number} {text}")

        def delivered() -> int:
            return sum(1 for told in ann.all("state") if told["state"] == "delivered")

        # It comes to a stand: nothing more is delivered for a second.
        last, since = -1, time.monotonic()
        deadline = since + TIMEOUT
        while time.monotonic() - since < 1 and time.monotonic() < deadline:
            if (now := delivered()) != last:
                last, since = now, time.monotonic()
            time.sleep(0.05)
        self.assertLess(last, count, "everything was delivered to somebody who read nothing")
        for process, memory in zip((server, bob), before, strict=True):
            self.assertLess(process.memory - memory, 48 * 2**20, "memory")
        bob.read()
        texts = [told["text"] for told in bob.take_many(count, "message")]
        self.assertEqual(texts, [f"{number} {text}" for number in range(count)])
        ann.take_many(count, "state", state="delivered")
        self.assertEqual(len(bob.all("message")), count)
        server.check_log()

    def test_thousand_each(self) -> None:
        """Two clients that each send 1,000 messages to the other at once: nothing lost, doubled or reordered."""
        server = self.start_server()
        ann = self.start_console(server.port, "ann", "--id", "7")
        bob = self.start_console(server.port, "bob", "--id", "8")
        ann.ready()
        bob.ready()
        count = 1000
        for console, to in ((ann, "8"), (bob, "7")):
            console.write("".join(json.dumps({"do": "send", "to": to, "text": f"{n}"}) + "\n" for n in range(count)))
        for console in (ann, bob):
            console.take_many(count, "state", 150, state="delivered")
            console.take_many(count, "message", 150)
            console.end_input()
        numbers = [str(number) for number in range(count)]
        for console, other in ((ann, bob), (bob, ann)):
            self.assertEqual(console.wait_exit(LEAVES_WITHIN), 0, console.describe("the exit status"))
            self.assertEqual([told["text"] for told in other.all("message")], numbers)
            states = console.all("state")
            queued = [told for told in states if told["state"] == "queued"]
            self.assertEqual([told["text"] for told in queued], numbers)
            ids = [told["id"] for told in queued]
            self.assertEqual(len({*ids}), count)
            for state in ("accepted", "delivered"):
                self.assertEqual([told["id"] for told in states if told["state"] == state], ids)
            self.assertEqual(len(states), 3 * count)
            self.assertEqual((console.all("error"), len(console.all("connected"))), ([], 1))
        server.check_log()

    def test_one_way(self) -> None:
        """A client that only sends is told of nothing but the progress of what it sent."""
        server = self.start_server()
        ann = self.start_console(server.port, "ann", "--id", "7").ready()
        bob = self.start_console(server.port, "bob", "--id", "8").ready()
        count = 300
        ann.write("".join(json.dumps({"do": "send", "to": "8", "text": f"{n}"}) + "\n" for n in range(count)))
        ann.take_many(count, "state", state="delivered")
        self.assertEqual([told["text"] for told in bob.all("message")], [str(number) for number in range(count)])
        self.assertEqual(ann.all("message"), [])
        self.assertEqual({told["event"] for told in ann.events}, {"ready", "connected", "state"})
