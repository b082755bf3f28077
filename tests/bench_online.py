"""``python -m tests.bench online``: what it costs that nothing is lost, for people who are both here.

Pairs of the library's clients, each in a process of its own as people's are, talk through the server over TLS: once
with vaults and the server's database on a disk, once with all of it in memory. The two take turns in one run. Each pair
has so many texts under way, and sends another when one of them is accepted: with one, each end commits for each text;
with several, what comes at once is committed at once.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, cast

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import Protocol
from twisted.internet.stdio import StandardIO
from twisted.python.failure import Failure

from sims import Client, MemoryStore, Vault
from sims.errors import SimsError
from tests.bench import TEXT_SIZE
from tests.bench_relay import Relay, start_sims

PAIRS = 5
#: Texts of a pair that are under way.
IN_FLIGHT = (1, 16)


def bench_online(seconds: float, rounds: int) -> None:
    """Print texts a second of both, and the ratio, for each number in flight."""
    print(f"{PAIRS} pairs of clients over TLS, {TEXT_SIZE}-byte texts, in flight until they are accepted")
    print(f"{rounds} rounds of {seconds:g} s each, taking turns; limits lifted")
    with tempfile.TemporaryDirectory() as base:
        servers: list[Relay] = []
        loads: list[_Load] = []
        try:
            for kind, store in (("disk", "sqlite"), ("memory", "memory")):
                folder = Path(base) / kind
                folder.mkdir()
                servers.append(start_sims(str(folder), "--store", store))
                loads.append(_Load(servers[-1].link, folder if kind == "disk" else None))
                loads[-1].meet()
            rows: dict[int, list[tuple[float, float]]] = {}
            for _ in range(rounds):
                for number in IN_FLIGHT:
                    disk, memory = (load.run(number, seconds) / seconds for load in loads)
                    rows.setdefault(number, []).append((disk, memory))
        finally:
            for process in (*(one for load in loads for one in load.processes), *(one.process for one in servers)):
                process.terminate()
                process.wait(30)
    for number, found in rows.items():
        disk, memory = (statistics.median(row[index] for row in found) for index in range(2))
        ratios = [one / other for one, other in found]
        each = ", ".join(f"{one:.2f}" for one in ratios)
        print(f"{number:2} in flight: on disk {disk:5.0f} texts/s, in memory {memory:5.0f}", end="")
        print(f", ratio {statistics.median(ratios):.2f}  (of each round: {each})")


class _Load:
    """All clients of one server, each a process: those who are sent to, and those who send."""

    def __init__(self, link: str, folder: Path | None) -> None:
        self.processes = [_start(link, folder, f"receiver{number}") for number in range(PAIRS)]
        self._senders = [_start(link, folder, f"sender{number}", f"receiver{number}") for number in range(PAIRS)]
        self.processes += self._senders

    def meet(self) -> None:
        """Wait until all are connected and each pair has met."""
        for one in self.processes:
            if _line(one) != "ready":
                raise SystemExit("a client did not start")

    def run(self, in_flight: int, seconds: float) -> int:
        """Let all talk for so long; gives how many texts were accepted."""
        self._tell(str(in_flight))
        time.sleep(seconds)
        self._tell("stop")
        return sum(int(_line(sender)) for sender in self._senders)

    def _tell(self, line: str) -> None:
        for sender in self._senders:
            if sender.stdin is not None:
                sender.stdin.write(f"{line}\n")
                sender.stdin.flush()


def _start(link: str, folder: Path | None, *names: str) -> subprocess.Popen[str]:
    own = "" if folder is None else str(folder / names[0])
    command = [sys.executable, "-m", "tests.bench_online", link, own, *names]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _line(process: subprocess.Popen[str]) -> str:
    return "" if process.stdout is None else process.stdout.readline().strip()


class Talker(Protocol):
    """One client; sends as it is told on standard input.

    :ivar count: texts that were accepted.
    """

    def __init__(self, link: str, folder: str, name: str, to: str = "") -> None:
        self.count = self._counted = 0
        self._running = False
        self._to = to
        store: Vault | MemoryStore = MemoryStore()
        if folder:
            own = Path(folder)
            own.mkdir(mode=0o700)
            store = Vault(own)
        self._client = Client(cast("IReactorTime", reactor), link, name, store=store)

    async def connect(self) -> None:
        """Connect, and meet whom to send to."""
        await self._client.connect()
        for _ in range(100):
            try:  # they may not have published yet
                await (self._client.send(self._to, "hello", timeout=10) if self._to else succeed(None))
            except SimsError:
                time.sleep(0.1)
            else:
                return
        raise SystemExit("two people did not meet")

    async def talk(self) -> None:
        """One text after the other."""
        while self._running:
            await self._client.send(self._to, "x" * TEXT_SIZE)
            self.count += 1

    def dataReceived(self, data: bytes) -> None:
        for line in data.split():
            self._running = line != b"stop"
            if self._running:
                talks = [Deferred.fromCoroutine(self.talk()) for _ in range(int(line))]
                gatherResults(talks).addErrback(failed)
            else:
                print(self.count - self._counted, flush=True)
                self._counted = self.count


def failed(reason: Failure) -> None:
    """Something went wrong: say what, and end."""
    print(reason.getTraceback(), file=sys.stderr)
    cast("Any", reactor).stop()


def main(*arguments: str) -> None:
    """Connect, say that all is ready, and do as told."""
    talker = Talker(*arguments)

    def ready(_: object) -> None:
        StandardIO(talker)
        print("ready", flush=True)

    Deferred.fromCoroutine(talker.connect()).addCallbacks(ready, failed)
    cast("Any", reactor).run()


if __name__ == "__main__":
    main(*sys.argv[1:])
