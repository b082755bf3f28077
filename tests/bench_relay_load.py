"""The load of ``python -m tests.bench relay``: pairs of people, one message in flight each, against either relay.

Reads ``go`` and ``stop`` lines; answers each ``stop`` with how many messages have come to their senders' acks.
"""

from __future__ import annotations

import os
import sys
from typing import Any, cast

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.interfaces import IHandshakeListener, IReactorTime
from twisted.internet.protocol import Protocol
from twisted.internet.stdio import StandardIO
from zope.interface import implementer

from sims import frames, inner, specs, tls
from sims.client.modern_hop import ModernHop
from sims.crypto.identity import Identity, ServerLink, parse_server_link
from sims.crypto.primitives import SystemEntropy
from sims.transport import FrameReceiver
from tests.bench_relay import BODY_SIZE, HEADER_SIZE, Sizes, frame_sizes

ENTROPY = SystemEntropy()


class Person(FrameReceiver):
    """What both kinds have in common."""

    MAX_LENGTH = frames.MAX_FRAME

    def __init__(self, number: int, load: Load) -> None:
        super().__init__(cast("IReactorTime", reactor))
        self.number = number
        self.load = load
        self.ready: Deferred[None] = Deferred()
        self.partner: Person
        self.idle = True

    @property
    def talks(self) -> bool:
        """Whether this is the one of the pair that sends messages."""
        return self.number % 2 == 0

    def go(self) -> None:
        """Send a message, if the one before is acknowledged."""
        if self.idle:
            self.idle = False
            self.say()

    def say(self) -> None:
        """Send a message."""
        raise NotImplementedError

    def acknowledged(self) -> None:
        """The server has acknowledged it."""
        self.idle = True
        self.load.count += 1
        if self.load.running:
            self.go()


@implementer(IHandshakeListener)
class SimsPerson(Person):
    """Speaks sims/2; the boxes for the peer are made up, as the relay cannot look into them."""

    def __init__(self, number: int, load: Load, link: ServerLink) -> None:
        super().__init__(number, load)
        self.identity = Identity.generate(ENTROPY)
        clock = cast("IReactorTime", reactor).seconds
        self.hop = ModernHop(self.identity, link, specs.MODERN, clock=clock, entropy=ENTROPY)
        self._data = inner.pack({"header": os.urandom(HEADER_SIZE), "body": os.urandom(BODY_SIZE)})

    def handshakeCompleted(self) -> None:  # noqa: N802 - Twisted's name
        """TLS is through."""
        self.hop.connected(f"person{self.number}", tls.binding(self.transport), None, 1)
        self._write()

    def frame_received(self, frame: bytes) -> None:
        plaintext = self.hop.receive(frame)
        if plaintext is not None:
            message = inner.from_server(plaintext)
            if isinstance(message, inner.ClientCom):
                self.hop.seal(inner.encode(inner.Ack(data=inner.AckData(mids=(message.mid,)))))
            elif isinstance(message, inner.Ack) and message.data.mids:
                self.acknowledged()
        elif self.hop.joined is not None and not self.ready.called:
            self.ready.callback(None)
        self._write()

    def say(self) -> None:
        partner = cast("SimsPerson", self.partner)
        message = inner.ClientCom(src=self.identity.id, dst=partner.identity.id, mid=os.urandom(16), data=self._data)
        self.hop.seal(inner.encode(message))
        self._write()

    def _write(self) -> None:
        while self.hop.frames:
            self.send_frame(self.hop.frames.popleft())


@implementer(IHandshakeListener)
class BarePerson(Person):
    """Sends lines of the same sizes."""

    sizes: Sizes = frame_sizes()

    def handshakeCompleted(self) -> None:  # noqa: N802 - Twisted's name
        """TLS is through."""
        self.send_frame(b"%d" % self.number)
        self.ready.callback(None)

    def frame_received(self, frame: bytes) -> None:
        if self.talks:
            self.acknowledged()
        else:
            self.send_frame(b"a" * self.sizes.ack)

    def say(self) -> None:
        self.send_frame(b"m" * self.sizes.message)


class Load:
    """All of them.

    :ivar count: messages that were acknowledged.
    """

    def __init__(self, kind: str, where: str, pairs: int) -> None:
        self.running = False
        self.count = 0
        if kind == "sims":
            link = parse_server_link(where)
            self._port = link.addresses[0].port
            self.people: list[Person] = [SimsPerson(number, self, link) for number in range(2 * pairs)]
        else:
            self._port = int(where)
            self.people = [BarePerson(number, self) for number in range(2 * pairs)]
        for person in self.people:
            person.partner = self.people[person.number ^ 1]

    async def connect(self) -> None:
        """Connect all, some at a time."""
        for start in range(0, len(self.people), 20):
            some = self.people[start : start + 20]
            endpoint = tls.client_tls(TCP4ClientEndpoint(reactor, "127.0.0.1", self._port), "127.0.0.1")
            await gatherResults([connectProtocol(endpoint, cast("Any", person)) for person in some])
            await gatherResults([person.ready for person in some])

    def go(self) -> None:
        """Begin, or go on."""
        self.running = True
        for person in self.people:
            if person.talks:
                person.go()


class Control(Protocol):
    """Reads what to do."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._counted = 0

    def dataReceived(self, data: bytes) -> None:
        for line in data.split():
            if line == b"go":
                self._load.go()
            else:
                self._load.running = False
                print(self._load.count - self._counted, flush=True)
                self._counted = self._load.count


def main(kind: str, where: str, pairs: int) -> None:
    """Connect, say that all is ready, and do as told."""
    load = Load(kind, where, pairs)

    def ready(_: object) -> None:
        StandardIO(Control(load))
        print("ready", flush=True)

    def failed(reason: Any) -> None:
        print(reason.getTraceback(), file=sys.stderr)
        cast("Any", reactor).stop()

    Deferred.fromCoroutine(load.connect()).addCallbacks(ready, failed)
    cast("Any", reactor).run()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
