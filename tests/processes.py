"""Real processes of the two commands, for tests that look at the system from outside.

Every wait has an end, and says what the process wrote when it comes to it.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

from tests.peers.seed_peer import DEFAULT_SPECS, SeedPeer

if TYPE_CHECKING:  # trial's is the same for a reader, but its assertions carry no types
    from unittest import TestCase
else:
    from twisted.trial.unittest import SynchronousTestCase as TestCase

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # As in what a shell has put into the background. The processes that are started would ignore it, too.
    signal.signal(signal.SIGINT, signal.default_int_handler)

T = TypeVar("T")
Event = dict[str, Any]

#: Seconds for whatever should come soon, on a slow and busy machine.
TIMEOUT = 60.0
#: A listener on a free port of this machine alone.
LOOPBACK = "tcp:0:interface=127.0.0.1"
#: Tests make more connections from one address than a server takes.
MANY_CONNECTIONS = "--limit=connections=none"

_ADDRESS = re.compile(r"sims-seed://(\[[0-9a-f:]+\]|[0-9.]+):([0-9]+)")
#: How every line of the log begins.
_LOG_LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4} \[")
_SHOWN = 4000


def program(name: str) -> str:
    """A script that is installed beside the Python that runs the tests."""
    return os.path.join(os.path.dirname(sys.executable), name)


class Place(NamedTuple):
    """Where a process runs: a home and a working folder, both its own and empty at first."""

    home: Path
    cwd: Path

    @classmethod
    def make(cls, base: str) -> Place:
        """Two new folders in the new folder ``base``."""
        place = cls(Path(base).resolve() / "home", Path(base).resolve() / "cwd")
        for folder in place:
            folder.mkdir(parents=True)
        return place

    @property
    def data(self) -> Path:
        """The user's data folder."""
        return self.home / "data"

    @property
    def environment(self) -> dict[str, str]:
        """The environment of a process that lives here."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith("XDG_")}
        kept.pop("PYTHONUNBUFFERED", None)
        return {**kept, "HOME": str(self.home), "XDG_DATA_HOME": str(self.data)}


class Process:
    """A child process, whose output is gathered line by line.

    :ivar out: the lines of its standard output so far, without their ends.
    :ivar err: those of its standard error.
    """

    def __init__(
        self,
        place: Place,
        argv: Sequence[str],
        *,
        stdin: int | IO[bytes] = subprocess.PIPE,
        stdout: int | IO[bytes] = subprocess.PIPE,
        reading: bool = True,
    ) -> None:
        self.place = place
        self.out: list[str] = []
        self.err: list[str] = []
        self._changed = threading.Condition()
        self._open = 0  # streams that are read
        self._taken: set[int] = set()
        self._readers: list[threading.Thread] = []
        self._to_write: queue.Queue[bytes | None] = queue.Queue()
        self.popen: subprocess.Popen[bytes] = subprocess.Popen(
            [program(argv[0]), *argv[1:]],
            stdin=stdin,
            stdout=stdout,
            stderr=subprocess.PIPE,
            cwd=place.cwd,
            env=place.environment,
            start_new_session=True,
        )
        self._follow(self.popen.stderr, self._err_line)
        if reading:
            self.read()
        if self.popen.stdin is not None:
            threading.Thread(target=self._write_all, args=(self.popen.stdin,), daemon=True).start()

    def read(self) -> None:
        """Begin to read its standard output, if that was not done from the start."""
        self._follow(self.popen.stdout, self._out_line)

    # --- what the test does ---

    def write(self, data: str | bytes) -> None:
        """Write to its standard input, without waiting for it to be read."""
        self._to_write.put(data if isinstance(data, bytes) else data.encode("utf-8"))

    def end_input(self) -> None:
        """Close its standard input, after what was written before."""
        self._to_write.put(None)

    def send_signal(self, number: int) -> None:
        """Send it a signal."""
        self.popen.send_signal(number)

    def wait_until(self, ready: Callable[[], T | None], what: str, timeout: float = TIMEOUT) -> T:
        """Wait until ``ready`` gives something, called after every line.

        :raises AssertionError: when it gives nothing in time, or the process ends without it.
        """
        deadline = time.monotonic() + timeout
        with self._changed:
            while (found := ready()) is None:
                left = deadline - time.monotonic()
                if left <= 0 or not self._open:
                    why = f"within {timeout:g} seconds" if self._open else "before the process ended"
                    raise AssertionError(self.describe(f"{what} did not come {why}"))
                self._changed.wait(left)
        return found

    def take_line(self, part: str, timeout: float = TIMEOUT) -> str:
        """Wait for a line of standard output that holds ``part`` and was not taken before, and take it."""

        def find() -> str | None:
            for index, line in enumerate(self.out):
                if part in line and index not in self._taken:
                    self._taken.add(index)
                    return line
            return None

        return self.wait_until(find, f"a line with {part!r}", timeout)

    def wait_exit(self, timeout: float = TIMEOUT) -> int:
        """Wait for its end, and for the last line of its output; gives the exit status."""
        try:
            status = self.popen.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(self.describe(f"it did not end within {timeout:g} seconds")) from None
        for reader in self._readers:
            reader.join(timeout)
        return status

    def stop(self, number: int = signal.SIGTERM, timeout: float = TIMEOUT) -> int:
        """End it with a signal; gives the exit status."""
        self.send_signal(number)
        return self.wait_exit(timeout)

    def kill(self) -> None:
        """End it at once, whatever state it is in."""
        self.popen.kill()
        self.popen.wait(TIMEOUT)
        self.end_input()
        for reader in self._readers:
            reader.join(TIMEOUT)
        for stream in (self.popen.stdout, self.popen.stderr):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()

    # --- what the test looks at ---

    @property
    def complaints(self) -> list[str]:
        """The lines of standard error that are not of the log."""
        return [line for line in self.err if not _LOG_LINE.match(line)]

    @property
    def memory(self) -> int:
        """Its resident memory, bytes."""
        status = Path(f"/proc/{self.popen.pid}/status").read_text("ascii")
        return int(re.findall(r"^VmRSS:\s+([0-9]+) kB$", status, re.MULTILINE)[0]) * 1024

    def describe(self, text: str) -> str:
        """``text``, with what the process wrote last."""
        out, err = ("\n".join(lines)[-_SHOWN:] for lines in (self.out, self.err))
        ended = "" if self.popen.poll() is None else f" (it has ended: {self.popen.returncode})"
        return f"{text}{ended}\n--- standard error\n{err}\n--- standard output\n{out}"

    # --- within ---

    def _follow(self, stream: IO[bytes] | None, take: Callable[[str], None]) -> None:
        if stream is None:
            return
        self._open += 1
        reader = threading.Thread(target=self._read_all, args=(stream, take), daemon=True)
        self._readers.append(reader)
        reader.start()

    def _read_all(self, stream: IO[bytes], take: Callable[[str], None]) -> None:
        with contextlib.suppress(OSError, ValueError):  # closed meanwhile
            for line in stream:
                with self._changed:
                    take(line.removesuffix(b"\n").decode("utf-8", "backslashreplace"))
                    self._changed.notify_all()
        with self._changed:
            self._open -= 1
            self._changed.notify_all()

    def _write_all(self, stream: IO[bytes]) -> None:
        with contextlib.suppress(OSError):  # nobody reads it any more
            while (data := self._to_write.get()) is not None:
                stream.write(data)
                if self._to_write.empty():
                    stream.flush()
        with contextlib.suppress(OSError):
            stream.close()

    def _out_line(self, line: str) -> None:
        self.out.append(line)

    def _err_line(self, line: str) -> None:
        self.err.append(line)


class Server(Process):
    """A server. ``args`` follow the command; the log is on standard error."""

    def __init__(self, place: Place, *args: str, command: Sequence[str] = ("sims-server",)) -> None:
        super().__init__(place, [*command, *args], stdin=subprocess.DEVNULL)

    def wait_ready(self, listeners: int = 1) -> Server:
        """Wait for the addresses of so many listeners."""
        self.wait_until(lambda: len(self.out) >= listeners or None, f"the addresses of {listeners} listeners")
        return self

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Host (without brackets) and port of each listener, as printed."""
        found = [_ADDRESS.fullmatch(line) for line in self.out]
        if not all(found):
            raise AssertionError(self.describe("something else than an address on standard output"))
        return [(match[1].strip("[]"), int(match[2])) for match in found if match is not None]

    @property
    def port(self) -> int:
        """The port of the first listener."""
        return self.addresses[0][1]

    def check_log(self) -> None:
        """See to it that nothing has gone wrong inside."""
        for line in self.err:
            if "Traceback" in line or "Unhandled" in line or "#critical" in line or "#error" in line:
                raise AssertionError(self.describe("something went wrong in the server"))


class Console(Process):
    """A client's console in JSON mode.

    :ivar events: what it has told so far.
    """

    def __init__(
        self,
        place: Place,
        server: int | str,
        name: str,
        *args: str,
        command: Sequence[str] = ("sims-client",),
        json_lines: bool = True,
        stdin: int | IO[bytes] = subprocess.PIPE,
        stdout: int | IO[bytes] = subprocess.PIPE,
        reading: bool = True,
    ) -> None:
        self.name = name
        self.events: list[Event] = []
        self._json = json_lines
        self._events_taken: set[int] = set()
        seed = f"tcp:127.0.0.1:{server}" if isinstance(server, int) else server
        mode = ["--json"] if json_lines else []
        argv = [*command, "--seed", seed, "--name", name, *mode, *args]
        super().__init__(place, argv, stdin=stdin, stdout=stdout, reading=reading)

    def do(self, do: str, **fields: object) -> None:
        """Give it a command."""
        self.write(json.dumps({"do": do, **fields}) + "\n")

    def take(self, event: str, timeout: float = TIMEOUT, **fields: object) -> Event:
        """Wait for an event with these fields that was not taken before, and take it. ``sender`` stands for from."""
        return self.take_many(1, event, timeout, **fields)[0]

    def take_many(self, count: int, event: str, timeout: float = TIMEOUT, **fields: object) -> list[Event]:
        """Wait for so many events with these fields that were not taken before, and take them."""
        wanted = {"event": event, **fields}
        if "sender" in wanted:
            wanted["from"] = wanted.pop("sender")
        found: list[int] = []
        seen = 0

        def find() -> list[Event] | None:
            nonlocal seen
            for index in range(seen, len(self.events)):
                told = self.events[index]
                fits = all(told.get(key) == value for key, value in wanted.items())
                if fits and index not in self._events_taken and len(found) < count:
                    found.append(index)
            seen = len(self.events)
            if len(found) < count:
                return None
            self._events_taken.update(found)
            return [self.events[index] for index in found]

        return self.wait_until(find, f"{count} events like {wanted}", timeout)

    def all(self, event: str) -> list[Event]:
        """Every event of a kind so far, taken or not."""
        with self._changed:
            return [told for told in self.events if told["event"] == event]

    def ready(self) -> Console:
        """Wait until it is connected to the server."""
        self.take("ready")
        return self

    @property
    def id(self) -> str:
        """Its id, as it told in its first ready."""
        return str(next(told["id"] for told in self.events if told["event"] == "ready"))

    def contact(self) -> dict[str, str]:
        """How it is named in events of others that know its name."""
        return {"id": self.id, "name": self.name}

    def _out_line(self, line: str) -> None:
        super()._out_line(line)
        if not self._json:
            return
        try:
            told = json.loads(line)
        except ValueError:
            told = None
        self.events.append(told if isinstance(told, dict) and "event" in told else {"event": "NOT JSON", "line": line})


class ProcessTestCase(TestCase):
    """A test with processes and peers of its own; whatever it leaves is ended after it."""

    def setUp(self) -> None:
        super().setUp()
        self.place = Place.make(cast("Any", self).mktemp())
        self._threads = concurrent.futures.ThreadPoolExecutor(16)
        self.addCleanup(self._threads.shutdown, wait=False)

    def keep(self, process: T) -> T:
        """End a process after the test."""
        if isinstance(process, Process):
            self.addCleanup(process.kill)
        return process

    def start_server(self, *args: str, command: Sequence[str] = ("sims-server",)) -> Server:
        """A server that listens, on a free port if not told otherwise."""
        given = [*args] if "--seed-listen" in args else [*args, "--seed-listen", LOOPBACK]
        given.append(MANY_CONNECTIONS)
        server = self.keep(Server(self.place, *given, command=command))
        return server.wait_ready(given.count("--seed-listen"))

    def start_console(self, server: int | str, name: str, *args: str, **how: Any) -> Console:
        """A console in JSON mode, which may not be connected yet."""
        return self.keep(Console(self.place, server, name, *args, **how))

    def first_line(self, console: Console) -> Event:
        """The first event of a console whose output is not read yet, nor is it after that."""
        stdout = console.popen.stdout
        if stdout is None:
            raise AssertionError("its output is not a pipe")
        told: Event = json.loads(self.meanwhile(stdout.readline).result(TIMEOUT))
        return told

    def start_peer(
        self, port: int, name: str, peer_id: int, specs: Sequence[str] = DEFAULT_SPECS, host: str = "127.0.0.1"
    ) -> SeedPeer:
        """An independent client that is connected and has its list."""
        peer = SeedPeer(host, port, name, peer_id, specs, TIMEOUT)
        peer.dial()
        self.addCleanup(peer.close)
        peer.handshake()
        peer.list()
        return peer

    def wait_for(self, condition: Callable[[], bool], what: str, timeout: float = TIMEOUT) -> None:
        """Wait until something is so that nobody tells of."""
        deadline = time.monotonic() + timeout
        while not condition():
            self.assertLess(time.monotonic(), deadline, f"{what}: not within {timeout:g} seconds")
            time.sleep(0.005)

    def meanwhile(self, act: Callable[..., T], *args: object) -> concurrent.futures.Future[T]:
        """Do something in a thread: what blocks on a socket must have a time limit of its own."""
        return self._threads.submit(act, *args)
