"""``python -m tests.bench online``: what it costs that nothing is lost, for people who are both here.

Pairs of the library's clients talk through the server over TLS: once with vaults and the server's database on a disk,
once with all of it in memory. The two take turns in one run. Each pair has so many texts under way, and sends another
when one of them is accepted: with one, each end commits for each text; with several, what comes at once is committed
at once.
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
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import Protocol
from twisted.internet.stdio import StandardIO
from twisted.python.failure import Failure

from sims import Client, MemoryStore, Vault
from sims.errors import SimsError
from tests.bench import TEXT_SIZE
from tests.bench_relay import Relay, start_sims

PAIRS = 10
#: Texts of a pair that are under way.
IN_FLIGHT = (1, 16)


def bench_online(seconds: float, rounds: int) -> None:
    """Print texts a second of both, and the ratio, for each number in flight."""
    print(f"{PAIRS} pairs of clients over TLS, {TEXT_SIZE}-byte texts, in flight until they are accepted")
    print(f"{rounds} rounds of {seconds:g} s each, taking turns; limits lifted")
    with tempfile.TemporaryDirectory() as base:
        servers: list[Relay] = []
        loads: list[subprocess.Popen[str]] = []
        try:
            for kind in ("disk", "memory"):
                folder = Path(base) / kind
                folder.mkdir()
                servers.append(start_sims(str(folder), "--store", "sqlite" if kind == "disk" else "memory"))
                loads.append(_load(servers[-1].link, str(folder) if kind == "disk" else ""))
            rows: dict[int, list[tuple[float, float]]] = {}
            for _ in range(rounds):
                for number in IN_FLIGHT:
                    disk, memory = (_run(load, number, seconds) / seconds for load in loads)
                    rows.setdefault(number, []).append((disk, memory))
        finally:
            for process in (*loads, *(server.process for server in servers)):
                process.terminate()
                process.wait(30)
    for number, found in rows.items():
        disk, memory = (statistics.median(row[index] for row in found) for index in range(2))
        ratios = [one / other for one, other in found]
        each = ", ".join(f"{one:.2f}" for one in ratios)
        print(f"{number:2} in flight: on disk {disk:5.0f} texts/s, in memory {memory:5.0f}", end="")
        print(f", ratio {statistics.median(ratios):.2f}  (of each round: {each})")


def _load(link: str, folder: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.bench_online", link, folder]
    load = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    if load.stdout is None or load.stdout.readline().strip() != "ready":
        raise SystemExit("a load did not start")
    return load


def _run(load: subprocess.Popen[str], in_flight: int, seconds: float) -> int:
    if load.stdin is None or load.stdout is None:
        raise SystemExit("no pipes")
    for line in (str(in_flight), "stop"):
        load.stdin.write(f"{line}\n")
        load.stdin.flush()
        if line != "stop":
            time.sleep(seconds)
    return int(load.stdout.readline())


class Load(Protocol):
    """All clients; does what it reads.

    :ivar count: texts that were accepted.
    """

    def __init__(self, link: str, folder: str) -> None:
        self.count = self._counted = 0
        self._running = False
        self._clients = []
        for number in range(2 * PAIRS):
            store: Vault | MemoryStore = MemoryStore()
            if folder:
                own = Path(folder) / f"vault{number}"
                own.mkdir(mode=0o700)
                store = Vault(own)
            self._clients.append(Client(cast("IReactorTime", reactor), link, f"person{number}", store=store))

    async def connect(self) -> None:
        """Connect all, and let each pair meet."""
        for client in self._clients:
            await client.connect()
        for number in range(0, 2 * PAIRS, 2):
            await self._meet(number)

    async def _meet(self, number: int) -> None:
        for _ in range(50):
            try:  # the other one may not have published yet
                await self._clients[number].send(f"person{number + 1}", "hello", timeout=10)
            except SimsError:
                time.sleep(0.1)
            else:
                return
        raise SystemExit("two people did not meet")

    async def talk(self, number: int) -> None:
        """One text after the other."""
        while self._running:
            await self._clients[number].send(f"person{number + 1}", "x" * TEXT_SIZE)
            self.count += 1

    def dataReceived(self, data: bytes) -> None:
        for line in data.split():
            self._running = line != b"stop"
            if self._running:
                pairs = range(0, 2 * PAIRS, 2)
                talks = [Deferred.fromCoroutine(self.talk(pair)) for pair in pairs for _ in range(int(line))]
                gatherResults(talks).addErrback(failed)
            else:
                print(self.count - self._counted, flush=True)
                self._counted = self.count


def failed(reason: Failure) -> None:
    """Something went wrong: say what, and end."""
    print(reason.getTraceback(), file=sys.stderr)
    cast("Any", reactor).stop()


def main(link: str, folder: str) -> None:
    """Connect everybody, say that all is ready, and do as told."""
    load = Load(link, folder)

    def ready(_: object) -> None:
        StandardIO(load)
        print("ready", flush=True)

    Deferred.fromCoroutine(load.connect()).addCallbacks(ready, failed)
    cast("Any", reactor).run()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
