"""The console between lines and the client: the shell, and the pipe on standard input and output."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IPullProducer
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from sims.client import events
from sims.client.connection import SeedClient
from sims.client.events import Contact, Delivery
from sims.console import pipe as pipe_module
from sims.console.commands import MAX_LINE, SEED_HELP
from sims.console.pipe import MAX_BACKLOG, Pipe, open_pipe
from sims.console.shell import LEAVE_TIMEOUT, Shell
from sims.errors import Code, LocalError
from sims.test.cheapkeys import use_cheap_keys
from sims.test.clients import Driven
from sims.test.network import Endpoint, Network


class FakeMessenger:
    """Keeps the commands that it is given."""

    def __init__(self) -> None:
        self.commands: list[tuple[Any, ...]] = []
        self.under_way = self.unsent = 0
        self.refuses = False

    def list(self, ref: Any) -> None:
        self._keep("list", ref)

    def connect(self, to: str, ref: Any) -> None:
        self._keep("connect", to, ref)

    def send(self, to: str, text: str, ref: Any) -> None:
        self._keep("send", to, text, ref)

    def disconnect(self, to: str, ref: Any) -> None:
        self._keep("disconnect", to, ref)

    def conversations(self) -> tuple[Contact, ...]:
        return (Contact("7", "bob"), Contact("8", ""))

    def _keep(self, *command: Any) -> None:
        if self.refuses:
            raise LocalError(Code.TOO_LARGE, "no")
        self.commands.append(command)


class FakeClient:
    """What a shell and a pipe need of a client."""

    def __init__(self) -> None:
        self.messenger = FakeMessenger()
        self.calls: list[str] = []

    def run(self, command: Callable[[], object]) -> None:
        command()

    def together(self) -> AbstractContextManager[None]:
        return nullcontext()

    def flush(self) -> None:
        pass

    def hold_reading(self) -> None:
        self.calls.append("hold")

    def release_reading(self) -> None:
        self.calls.append("release")


class ShellTestCase(SynchronousTestCase):
    """A shell whose client is a fake."""

    json = True

    def setUp(self) -> None:
        self.clock = Clock()
        self.written: list[str] = []
        self.left: list[int] = []
        self.shell = Shell(json=self.json, clock=self.clock, write=self.written.append, leave=self.left.append)
        self.client = FakeClient()
        self.shell.client = cast("SeedClient", self.client)

    def lines(self, *lines: str | bytes | dict[str, Any]) -> list[tuple[Any, ...]]:
        """Run these; gives the commands that came of them."""
        for line in lines:
            text = json.dumps(line) if isinstance(line, dict) else line
            self.shell.line(text.encode() if isinstance(text, str) else text)
        found, self.client.messenger.commands = self.client.messenger.commands, []
        return found

    def problems(self) -> list[tuple[str, object]]:
        """The codes and refs of the errors that were written since the last time."""
        found = [json.loads(line) for line in self.written]
        self.written.clear()
        return [(event["code"], event.get("ref")) for event in found if event["event"] == "error"]


class JsonTests(ShellTestCase):
    """Programs at the other end."""

    def test_commands(self) -> None:
        found = self.lines(
            {"do": "list", "ref": 1},
            {"do": "connect", "to": "bob"},
            {"do": "connect", "to": 7, "ref": "a"},
            {"do": "send", "to": " bob ", "text": " hi ", "ref": 0},
            {"do": "disconnect", "to": 7},
        )
        self.assertEqual(
            found,
            [
                ("list", 1),
                ("connect", "bob", None),
                ("connect", "7", "a"),
                ("send", "bob", " hi ", 0),
                ("disconnect", "7", None),
            ],
        )
        self.assertEqual(self.written, [])

    def test_refused(self) -> None:
        """What is wrong with a line is told, with the line's ref if it has one."""
        cases: dict[bytes, object] = {
            b"hello": None,
            b"[]": None,
            b"{}": None,
            b"\xff": None,
            b'{"do":"fly","ref":"r"}': "r",
            b'{"do":"send","to":"bob","ref":7}': 7,
            b'{"do":"send","to":"  ","text":"x","ref":"empty"}': "empty",
            b'{"do":"send","to":"bob","text":1,"ref":true}': None,
            b"[" * 100_000: None,
        }
        for line, ref in cases.items():
            self.assertEqual(self.lines(line), [], line[:60])
            self.assertEqual(self.problems(), [("malformed", ref)], line[:60])

    def test_refused_by_the_messenger(self) -> None:
        self.client.messenger.refuses = True
        self.lines({"do": "send", "to": "bob", "text": "x", "ref": "r"})
        self.assertEqual(self.problems(), [("too-large", "r")])

    def test_empty_lines(self) -> None:
        self.assertEqual(self.lines(b"", b"  ", b"\r"), [])
        self.assertEqual(self.written, [])

    def test_events(self) -> None:
        """One line of JSON for each."""
        self.shell.show(events.Offline(ref="x"))
        self.shell.show(events.State(id="1", to=Contact("7", ""), state=Delivery.ACCEPTED))
        self.assertEqual([json.loads(line)["event"] for line in self.written], ["offline", "state"])

    def test_without_a_client(self) -> None:
        self.shell.client = None
        self.assertEqual(self.lines({"do": "list"}), [])
        self.assertEqual(self.shell.backlog, 0)
        self.shell.end_of_input()
        self.assertEqual(self.left, [0])


class TextTests(ShellTestCase):
    """People at the other end."""

    json = False

    def test_commands(self) -> None:
        found = self.lines("list", "send-7-hi - there", "/send bob hi there", "connect-bob", "disconnect-7", "  ")
        self.assertEqual(
            found,
            [
                ("list", None),
                ("send", "7", "hi - there", None),
                ("send", "bob", "hi there", None),
                ("connect", "bob", None),
                ("disconnect", "7", None),
            ],
        )
        self.assertEqual(self.written, [])

    def test_answered_by_the_shell(self) -> None:
        self.assertEqual(self.lines("help", "list-connected"), [])
        self.assertEqual(self.written[0], SEED_HELP)
        self.assertIn("bob (7), 8", self.written[1])

    def test_refused(self) -> None:
        self.lines("fly", b"send-7-\xff", "send-7")
        self.assertEqual(len(self.written), 3)
        for line in self.written:
            self.assertTrue(line.startswith("! ") and line.endswith("(malformed)"), line)

    def test_not_shown(self) -> None:
        """What a person need not see is not written."""
        self.shell.show(events.State(id="1", to=Contact("7", ""), state=Delivery.ACCEPTED))
        self.assertEqual(self.written, [])

    def test_quit(self) -> None:
        self.assertEqual(self.lines("quit", "list"), [])
        self.assertEqual(self.left, [0])


class LeavingTests(ShellTestCase):
    """The end of the input waits for what is under way."""

    def test_nothing_under_way(self) -> None:
        self.shell.end_of_input()
        self.assertEqual((self.left, self.written), ([0], []))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_done_in_time(self) -> None:
        self.client.messenger.under_way = 2
        self.shell.end_of_input()
        self.clock.pump([0.1] * 98)
        self.assertEqual(self.left, [])
        self.client.messenger.under_way = 0
        self.clock.advance(0.1)
        self.assertEqual((self.left, self.written), ([0], []))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_not_done(self) -> None:
        """After ten seconds it leaves, says so, and its exit status says so, too."""
        self.client.messenger.under_way = 2
        self.shell.end_of_input()
        self.clock.pump([0.1] * int(LEAVE_TIMEOUT * 10 - 1))
        self.assertEqual(self.left, [])
        self.clock.pump([0.1] * 2)
        self.assertEqual(self.left, [1])
        [line] = self.written
        self.assertEqual(json.loads(line)["code"], "unavailable")
        self.assertIn("2 of what was asked for", line)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_once(self) -> None:
        """Quit, and then the end of the input: one leaving, and no command after it."""
        self.client.messenger.under_way = 1
        self.assertEqual(self.lines({"do": "quit"}, {"do": "list"}), [])
        self.clock.advance(1)
        self.shell.end_of_input()
        self.assertEqual(self.lines({"do": "list"}), [])
        self.clock.pump([0.1] * 120)
        self.assertEqual(self.left, [1])

    def test_stop(self) -> None:
        self.client.messenger.under_way = 1
        self.shell.end_of_input()
        self.shell.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.shell.stop()
        self.assertEqual(self.left, [])


class PipeTestCase(ShellTestCase):
    """A pipe with a shell in front of a fake client."""

    def setUp(self) -> None:
        super().setUp()
        self.blocked: list[bool] = []
        self.gone = 0

        def gone() -> None:
            self.gone += 1

        def make(pipe: Pipe) -> Shell:
            self.shell._write = pipe.write
            return self.shell

        self.pipe = Pipe(make, self.clock, blocked=self.blocked.append, gone=gone)
        self.transport = StringTransport()
        self.pipe.makeConnection(self.transport)

    def give(self, data: bytes) -> list[tuple[Any, ...]]:
        """Input; gives the commands that came of it."""
        self.pipe.dataReceived(data)
        found, self.client.messenger.commands = self.client.messenger.commands, []
        return found

    def output(self) -> list[dict[str, Any]]:
        """The lines that are out."""
        self.clock.advance(0)
        data = self.transport.value()
        self.transport.clear()
        self.assertTrue(data == b"" or data.endswith(b"\n"))
        return [json.loads(line) for line in data.splitlines()]


class InputTests(PipeTestCase):
    """Lines in."""

    LIST = b'{"do":"list","ref":%d}\n'

    def test_pieces(self) -> None:
        """Lines are lines, however they arrive."""
        data = b"".join(self.LIST % number for number in range(5))
        for size in (1, 7, 50, 1000):
            found: list[tuple[Any, ...]] = []
            for start in range(0, len(data), size):
                found += self.give(data[start : start + size])
            self.assertEqual(found, [("list", number) for number in range(5)], size)

    def test_last_line(self) -> None:
        """The last one needs no newline."""
        self.assertEqual(self.give(b'{"do":"list"}\n{"do":"list","ref":2}'), [("list", None)])
        self.pipe.readConnectionLost()
        self.assertEqual(self.client.messenger.commands, [("list", 2)])
        self.assertEqual(self.left, [0])

    def test_too_long(self) -> None:
        """A line that is too long is told of once, and does not spoil its neighbours."""
        fits = b'{"do":"list","ref":"' + b"x" * (MAX_LINE - 22) + b'"}'
        self.assertEqual(len(fits), MAX_LINE)
        self.assertEqual(len(self.give(fits + b"\n")), 1)
        self.assertEqual(self.output(), [])
        for data in (fits + b" \n", fits * 9 + b"\n"):
            for size in (len(data), 65_536, 300_000):
                found = self.give(self.LIST % 1)
                for start in range(0, len(data), size):
                    found += self.give(data[start : start + size])
                    self.assertLessEqual(len(self.pipe._partial), MAX_LINE)
                found += self.give(self.LIST % 2)
                self.assertEqual(found, [("list", 1), ("list", 2)], size)
                self.assertEqual([line["code"] for line in self.output()], ["too-large"], size)

    def test_too_long_at_the_end(self) -> None:
        self.give(b"x" * (MAX_LINE + 1))
        self.pipe.readConnectionLost()
        self.assertEqual([line["code"] for line in self.output()], ["too-large"])
        self.assertEqual(self.left, [0])

    def test_back_pressure(self) -> None:
        """While more than 256 messages wait to be sent, nothing more is read or run."""
        messenger = self.client.messenger
        messenger.unsent = MAX_BACKLOG
        self.assertEqual(self.give(self.LIST % 1), [("list", 1)])
        self.assertEqual(self.transport.producerState, "producing")
        messenger.unsent = MAX_BACKLOG + 1
        self.assertEqual(self.give(self.LIST % 2 + self.LIST % 3), [])
        self.assertEqual(self.transport.producerState, "paused")
        self.clock.pump([0.01] * 20)
        self.assertEqual((messenger.commands, self.transport.producerState), ([], "paused"))
        messenger.unsent = 0
        self.clock.advance(0.03)
        self.assertEqual(messenger.commands, [("list", 2), ("list", 3)])
        self.assertEqual(self.transport.producerState, "producing")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_end_of_input_while_it_waits(self) -> None:
        """What was read before the end is run before leaving."""
        messenger = self.client.messenger
        messenger.unsent = MAX_BACKLOG + 1
        self.give(self.LIST % 1 + self.LIST % 2)
        self.pipe.readConnectionLost()
        self.assertEqual(messenger.commands, [("list", 1), ("list", 2)])
        self.assertEqual(self.left, [0])

    def test_quit(self) -> None:
        self.assertEqual(self.give(self.LIST % 1 + b'{"do":"quit"}\n' + self.LIST % 2), [("list", 1)])
        self.assertEqual(self.left, [0])


class OutputTests(PipeTestCase):
    """Lines out."""

    def test_batches(self) -> None:
        """What comes up in one turn of the reactor is written at once."""
        writes: list[bytes] = []
        self.patch(self.transport, "write", writes.append)
        for number in range(3):
            self.pipe.write(str(number))
        self.assertEqual(writes, [])
        self.clock.advance(0)
        self.pipe.write("3\n4")
        self.clock.advance(0)
        self.assertEqual(writes, [b"0\n1\n2\n", b"3\n4\n"])

    def test_held_when_blocked(self) -> None:
        """While the output is more than 64 KiB behind, nothing more is taken from the server."""
        made: list[Protocol] = []
        self.patch(pipe_module, "StandardIO", made.append)
        opened = open_pipe(lambda _: self.shell, self.clock, gone=lambda: None)
        self.assertEqual(made, [opened])
        transport = StringTransport()
        opened.makeConnection(transport)
        producer = cast("IPullProducer", transport.producer)
        self.assertFalse(transport.streaming)
        for _ in range(2):
            opened.write("x" * 40_000)
            self.clock.advance(0)
        self.assertEqual(self.client.calls, ["hold"])
        producer.resumeProducing()
        self.assertEqual(self.client.calls, ["hold", "release"])
        self.shell.client = None
        opened.write("x" * 70_000)
        self.clock.advance(0)
        self.assertEqual(len(self.client.calls), 2)

    def test_blocked(self) -> None:
        """Told once that it is behind, and once that it is not, however much is written."""
        producer = cast("IPullProducer", self.transport.producer)
        for _ in range(2):
            for _ in range(5):
                self.pipe.write("x" * 30_000)
                self.clock.advance(0)
            producer.resumeProducing()
        self.assertEqual(self.blocked, [True, False] * 2)

    def test_fires_when_it_is_out(self) -> None:
        """A line counts as written when the operating system has it: neither when it is gathered, nor buffered."""
        producer = cast("IPullProducer", self.transport.producer)
        found: list[tuple[int, bool]] = []

        def write(number: int) -> None:
            self.pipe.write(str(number)).addCallback(lambda out: found.append((number, out)))

        for number in range(3):
            write(number)
            if number:
                self.clock.advance(0)
                self.assertEqual(found, [(0, True), (1, True)][: 2 * number - 2])
            if number == 1:
                producer.resumeProducing()
        write(3)
        self.assertEqual(found, [(0, True), (1, True)])
        self.pipe.connectionLost(Failure(ConnectionDone()))
        write(4)
        self.assertEqual(found[2:], [(2, False), (3, False), (4, False)])

    def test_nobody_reads(self) -> None:
        self.pipe.writeConnectionLost()
        self.pipe.write("lost")
        self.pipe.connectionLost(Failure(ConnectionDone()))
        self.assertEqual((self.gone, self.output()), (1, []))
        self.successResultOf(self.pipe.close())

    def test_lost_at_once(self) -> None:
        self.pipe.write("1")
        self.pipe.connectionLost(Failure(ConnectionDone()))
        self.assertEqual((self.gone, self.output()), (1, []))

    def test_close(self) -> None:
        """What was written goes out first, and then it is over."""
        self.client.messenger.unsent = MAX_BACKLOG + 1
        self.give(b"{}\n")
        self.pipe.write("1")
        done = self.pipe.close()
        self.assertEqual(self.transport.value(), b"1\n")
        self.assertTrue(self.transport.disconnecting)
        self.assertIsNone(self.transport.producer)
        self.assertNoResult(done)
        self.pipe.connectionLost(Failure(ConnectionDone()))
        self.successResultOf(done)
        self.assertEqual(self.gone, 0)
        self.clock.advance(0)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_halves_of_characters(self) -> None:
        self.pipe.write("a\ud800b")
        self.clock.advance(0)
        self.assertEqual(self.transport.value(), b"a?b\n")


class WholeTests(SynchronousTestCase):
    """A pipe, a shell and a client on a network."""

    def test_much_input(self) -> None:
        """More than may wait is read as it is sent, arrives in order, and the end waits for all of it."""
        use_cheap_keys(self)
        most_waiting = 100
        self.patch(pipe_module, "MAX_BACKLOG", most_waiting)
        network = Network(2, delay=(0.0, 0.02), most_pieces=2, cheap=True)
        bob = Driven(network, "bob", 2).dial()
        network.run_until(lambda: bob.ready)
        left: list[int] = []
        transport = StringTransport()

        def make(pipe: Pipe) -> Shell:
            shell = Shell(json=True, clock=network.clock, write=pipe.write, leave=left.append)
            shell.client = SeedClient(
                Endpoint(network), "alice", 1, clock=network.clock, on_event=shell.show, entropy=network.entropy
            )
            return shell

        pipe = Pipe(make, network.clock, blocked=lambda _: None, gone=lambda: None)
        pipe.makeConnection(transport)
        client = pipe.shell.client
        assert client is not None
        client.start()
        count, most, paused = most_waiting + 100, 0, 0
        texts = [f"text {number}" for number in range(count)]
        lines = [json.dumps({"do": "send", "to": "bob", "text": text, "ref": text}).encode() + b"\n" for text in texts]
        while lines or pipe._waiting:
            if lines and transport.producerState == "producing":
                chunk, lines = lines[:40], lines[40:]
                pipe.dataReceived(b"".join(chunk))
            else:
                paused += 1
            most = max(most, client.messenger.unsent)
            network.run_for(0.01)
        self.assertGreater(paused, 0)
        # And the question who bob is, which waits as they do.
        self.assertTrue(most_waiting - 40 < most <= most_waiting + 1 + 1, most)
        pipe.readConnectionLost()
        network.run_for(5)
        self.assertEqual(left, [0])
        self.assertEqual(bob.texts(1), texts)
        written = [json.loads(line) for line in transport.value().splitlines()]
        delivered = [line["ref"] for line in written if line.get("state") == "delivered"]
        self.assertEqual(delivered, texts)
        closing = client.close()
        network.settle()
        self.successResultOf(closing)
        pipe.close()
        self.assertEqual([call for call in network.clock.getDelayedCalls() if call.getTime() > 60], [])

    def test_server_that_is_not_there(self) -> None:
        """What cannot be sent within ten seconds is not waited for."""
        network = Network()
        left: list[int] = []
        written: list[str] = []
        endpoint = Endpoint(network)
        endpoint.refusing = True
        shell = Shell(json=True, clock=network.clock, write=written.append, leave=left.append)
        client = SeedClient(endpoint, "alice", 1, clock=network.clock, on_event=shell.show, entropy=network.entropy)
        shell.client = client
        client.start()
        shell.line(b'{"do":"send","to":"2","text":"hi"}')
        shell.end_of_input()
        network.run_for(LEAVE_TIMEOUT - 0.1)
        self.assertEqual(left, [])
        network.run_for(0.2)
        self.assertEqual(left, [1])
        found = [json.loads(line) for line in written]
        self.assertEqual([event["event"] for event in found], ["state", "error", "error"])
        shell.stop()
        self.successResultOf(client.close())
        self.assertEqual(network.clock.getDelayedCalls(), [])
