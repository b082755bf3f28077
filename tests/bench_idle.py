"""``python -m tests.bench idle``: what an idle connection over TLS costs the server, in resident memory.

Everybody has connected, proved who they are, and says nothing more. The load holds the other ends in processes of its
own; each connection takes a file descriptor at both ends (``ulimit -n``).
"""

from __future__ import annotations

import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, cast

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.interfaces import IHandshakeListener, IReactorTime
from twisted.python.failure import Failure
from zope.interface import implementer

from sims import frames, specs, tls
from sims.client.modern_hop import ModernHop
from sims.crypto.identity import Identity, parse_server_link
from sims.crypto.primitives import SystemEntropy
from sims.transport import FrameReceiver
from tests.bench_relay import start_sims

#: Connections of one process of the load; how many are begun at once.
EACH = 2500
AT_ONCE = 25


def resident(pid: int) -> int:
    """Resident memory of a process, bytes."""
    status = Path(f"/proc/{pid}/status").read_text("ascii")
    return int(re.findall(r"^VmRSS:\s+([0-9]+) kB$", status, re.MULTILINE)[0]) * 1024


def bench_idle(connections: int) -> None:
    """Print the resident memory of the server with none, some and all connections."""
    _raise_limit(connections + 500)
    with tempfile.TemporaryDirectory() as folder:
        server = start_sims(folder)
        loads: list[subprocess.Popen[str]] = []
        try:
            _connect(loads, server.link, 50)  # what is made once, for the first of them
            time.sleep(1)
            before, count = resident(server.process.pid), 0
            print(f"{'connections':>11} {'resident MiB':>13} {'KiB each':>9}", flush=True)
            while count < connections:
                some = min(EACH, connections - count)
                _connect(loads, server.link, some)
                count += some
                time.sleep(2)
                now = resident(server.process.pid)
                print(f"{count:11} {now / 2**20:13.1f} {(now - before) / count / 1024:9.1f}", flush=True)
        finally:
            for load in loads:
                load.kill()
                load.wait(10)
            server.process.terminate()
            server.process.wait(60)


def _connect(loads: list[subprocess.Popen[str]], link: str, count: int) -> None:
    command = [sys.executable, "-m", "tests.bench_idle", link, str(count)]
    load = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    loads.append(load)
    if load.stdout is None or load.stdout.readline().strip() != "ready":
        raise SystemExit("a load did not connect")


def _raise_limit(needed: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < needed:
        if hard != resource.RLIM_INFINITY and hard < needed:
            raise SystemExit(
                f"{needed} file descriptors are needed, and at most {hard} are to be had here (ulimit -Hn)"
            )
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


@implementer(IHandshakeListener)
class Idle(FrameReceiver):
    """One connection that stays."""

    MAX_LENGTH = frames.MAX_FRAME

    def __init__(self, hop: ModernHop, name: str) -> None:
        super().__init__(cast("IReactorTime", reactor))
        self.ready: Deferred[None] = Deferred()
        self._hop = hop
        self._name = name

    def handshakeCompleted(self) -> None:  # noqa: N802 - Twisted's name
        """TLS is through."""
        self._hop.connected(self._name, tls.binding(self.transport), None, 1)
        self._write()

    def frame_received(self, frame: bytes) -> None:
        self._hop.receive(frame)
        self._write()
        if self._hop.joined is not None and not self.ready.called:
            self.ready.callback(None)

    def connectionLost(self, reason: Failure | None = None) -> None:
        super().connectionLost(reason)
        cast("Any", reactor).stop()  # none is to be lost

    def _write(self) -> None:
        while self._hop.frames:
            self.send_frame(self._hop.frames.popleft())


async def _hold(where: str, count: int) -> None:
    link = parse_server_link(where)
    endpoint = tls.client_tls(TCP4ClientEndpoint(reactor, "127.0.0.1", link.addresses[0].port), "127.0.0.1")
    entropy, clock = SystemEntropy(), cast("IReactorTime", reactor).seconds
    for start in range(0, count, AT_ONCE):
        some = []
        for number in range(start, min(start + AT_ONCE, count)):
            identity = Identity.generate(entropy)
            hop = ModernHop(identity, link, specs.MODERN, clock=clock, entropy=entropy)
            some.append(Idle(hop, f"p{identity.id[:12]}{number}"))
        await gatherResults([connectProtocol(endpoint, cast("Any", one)) for one in some])
        await gatherResults([one.ready for one in some])
    print("ready", flush=True)


def main(where: str, count: int) -> None:
    """Connect so many, say that all are there, and stay."""

    def failed(reason: Failure) -> None:
        print(reason.getTraceback(), file=sys.stderr)
        cast("Any", reactor).stop()

    Deferred.fromCoroutine(_hold(where, count)).addErrback(failed)
    cast("Any", reactor).run()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
