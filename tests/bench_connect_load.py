"""The load of ``python -m tests.bench connect``: people who connect, are through, close, and connect again.

Reads lines with how many seconds to go on; answers each with how many connects there were.
"""

from __future__ import annotations

import sys
from typing import Any, cast

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.interfaces import IHandshakeListener, IReactorTime
from twisted.internet.protocol import Protocol
from twisted.internet.stdio import StandardIO
from twisted.python.failure import Failure
from zope.interface import implementer

from sims import frames, specs, tls
from sims.client.modern_hop import ModernHop
from sims.crypto.identity import Identity, ServerLink, parse_server_link
from sims.crypto.primitives import SystemEntropy
from sims.transport import FrameReceiver
from tests.bench_connect import AT_ONCE

ENTROPY = SystemEntropy()
CLOCK = cast("IReactorTime", reactor)


@implementer(IHandshakeListener)
class Bare(FrameReceiver):
    """One handshake of TLS, and a line."""

    def __init__(self) -> None:
        super().__init__(CLOCK)
        self.gone: Deferred[None] = Deferred()

    def handshakeCompleted(self) -> None:  # noqa: N802 - Twisted's name
        """TLS is through."""
        self.send_frame(b"0")
        self.finish()

    def connectionLost(self, reason: Failure | None = None) -> None:
        super().connectionLost(reason)
        self.gone.callback(None)


@implementer(IHandshakeListener)
class Sims(FrameReceiver):
    """One connect."""

    MAX_LENGTH = frames.MAX_FRAME

    def __init__(self, hop: ModernHop, name: str) -> None:
        super().__init__(CLOCK)
        self.gone: Deferred[None] = Deferred()
        self._hop = hop
        self._name = name

    def handshakeCompleted(self) -> None:  # noqa: N802 - Twisted's name
        """TLS is through."""
        self._hop.connected(self._name, tls.binding(self.transport), None, 1)
        self._write()

    def frame_received(self, frame: bytes) -> None:
        self._hop.receive(frame)
        self._write()
        if self._hop.joined is not None:
            self.finish()

    def connectionLost(self, reason: Failure | None = None) -> None:
        super().connectionLost(reason)
        if self._hop.joined is not None:
            self.gone.callback(None)
        else:
            self.gone.errback(reason)

    def _write(self) -> None:
        while self._hop.frames:
            self.send_frame(self._hop.frames.popleft())


class Load:
    """Everybody.

    :ivar count: of the connects since this was last looked at.
    """

    def __init__(self, kind: str, where: str) -> None:
        self.count = 0
        self.until = 0.0
        self._link: ServerLink | None = parse_server_link(where) if kind == "sims" else None
        port = int(where) if self._link is None else self._link.addresses[0].port
        self._endpoint = tls.client_tls(TCP4ClientEndpoint(reactor, "127.0.0.1", port), "127.0.0.1")
        self._identities = [Identity.generate(ENTROPY) for _ in range(AT_ONCE)]

    async def once(self, number: int) -> None:
        """Connect, and close."""
        one: Bare | Sims
        if self._link is None:
            one = Bare()
        else:
            hop = ModernHop(self._identities[number], self._link, specs.MODERN, clock=CLOCK.seconds, entropy=ENTROPY)
            one = Sims(hop, f"person{number}")
        await connectProtocol(self._endpoint, cast("Any", one))
        await one.gone
        self.count += 1

    async def again_and_again(self, number: int) -> None:
        """Connect until the time is over."""
        while CLOCK.seconds() < self.until:
            await self.once(number)

    def run(self, seconds: float) -> Deferred[Any]:
        """Let everybody connect for so long."""
        self.count, self.until = 0, CLOCK.seconds() + seconds
        return gatherResults([Deferred.fromCoroutine(self.again_and_again(number)) for number in range(AT_ONCE)])


class Control(Protocol):
    """Reads what to do."""

    def __init__(self, load: Load) -> None:
        self._load = load

    def dataReceived(self, data: bytes) -> None:
        for line in data.split():
            self._load.run(float(line)).addCallbacks(self._done, failed)

    def connectionLost(self, reason: Failure | None = None) -> None:
        cast("Any", reactor).stop()

    def _done(self, _: object) -> None:
        print(self._load.count, flush=True)


def failed(reason: Failure) -> None:
    """Something went wrong: say what, and end."""
    print(reason.getTraceback(), file=sys.stderr)
    cast("Any", reactor).stop()


def main(kind: str, where: str) -> None:
    """Register everybody, say that all is ready, and do as told."""
    load = Load(kind, where)

    def ready(_: object) -> None:
        StandardIO(Control(load))
        print("ready", flush=True)

    load.run(0.2).addCallbacks(ready, failed)
    cast("Any", reactor).run()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
