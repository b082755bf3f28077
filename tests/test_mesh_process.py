"""Many clients of the library, a real server, and a network that delays."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Generator
from typing import TYPE_CHECKING, Any, cast

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, gatherResults, inlineCallbacks
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.interfaces import IDelayedCall, IListeningPort, IReactorTime
from twisted.internet.protocol import ClientFactory, Protocol, ServerFactory
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from sims import Connected, Delivery, Event, Message, Problem, SeedClient, State
from sims.client import seed
from tests.processes import LOOPBACK, Place, Server

if TYPE_CHECKING:  # trial's is the same for a reader, but its assertions carry no types
    from unittest import TestCase
else:
    from twisted.trial.unittest import TestCase

#: The longest delay of the network, seconds.
MAX_DELAY = 0.15


class _End(Protocol):
    """One end of a delayed connection: what it receives, the other end sends later, in the same order."""

    def __init__(self, clock: IReactorTime, chance: random.Random) -> None:
        self.other: _End | None = None
        self._clock = clock
        self._chance = chance
        self._waiting: deque[bytes] = deque()
        self._next: IDelayedCall | None = None
        self._lost = False

    def dataReceived(self, data: bytes) -> None:
        # In pieces, so that frames come apart and together.
        cut = self._chance.randrange(len(data))
        self._waiting.extend(piece for piece in (data[:cut], data[cut:]) if piece)
        self._schedule()

    def connectionLost(self, reason: Failure | None = None) -> None:
        self._lost = True
        if self._next is not None:
            self._next.cancel()
        other, self.other = self.other, None
        if other is not None and other.transport is not None:
            other.other = None
            other.transport.loseConnection()

    def connected_to(self, other: _End) -> None:
        """Begin to pass on what has come."""
        self.other = other
        self._schedule()

    def _schedule(self) -> None:
        if self._waiting and self._next is None and self.other is not None and not self._lost:
            self._next = self._clock.callLater(self._chance.random() ** 3 * MAX_DELAY, self._pass_on)

    def _pass_on(self) -> None:
        self._next = None
        if self.other is not None and self.other.transport is not None:
            self.other.transport.write(b"".join(self._waiting))
            self._waiting.clear()
        self._schedule()


class _Outward(ClientFactory):
    noisy = False

    def __init__(self, end: _End, inward: _End) -> None:
        self._end = end
        self._inward = inward

    def buildProtocol(self, addr: object) -> Protocol:
        self._end.connected_to(self._inward)
        self._inward.connected_to(self._end)
        return self._end


class DelayingProxy(ServerFactory[Protocol]):
    """Passes connections on to a port of this machine, with random delays."""

    noisy = False

    def __init__(self, reactor: Any, port: int, chance: random.Random) -> None:
        self._reactor = reactor
        self._port = port
        self._chance = chance

    def buildProtocol(self, addr: object) -> Protocol:
        inward, outward = (_End(self._reactor, self._chance) for _ in range(2))
        self._reactor.connectTCP("127.0.0.1", self._port, _Outward(outward, inward))
        return inward


class MeshTests(TestCase):
    """Everybody talks with everybody, all from the same moment on."""

    timeout = 200

    def setUp(self) -> None:
        from twisted.internet import reactor

        self.reactor = reactor
        place = Place.make(cast("Any", self).mktemp())
        self.server = Server(place, "--seed-listen", LOOPBACK)
        self.addCleanup(self.server.kill)
        self.server.wait_ready()
        proxy = DelayingProxy(reactor, self.server.port, random.Random(7))
        listening: IListeningPort = cast("Any", reactor).listenTCP(0, proxy, interface="127.0.0.1")
        self.addCleanup(lambda: listening.stopListening())
        self.port = cast("IPv4Address", listening.getHost()).port
        self.happened: dict[int, list[Event]] = {}

        # Twenty clients share this process: no answer comes as soon as from a process of its own.
        cast("Any", self).patch(seed, "OPEN_TIMEOUT", 120.0)

    def client(self, number: int) -> SeedClient:
        """A client behind the network that delays."""
        endpoint = TCP4ClientEndpoint(self.reactor, "127.0.0.1", self.port)
        told = self.happened.setdefault(number, [])
        clock = cast("IReactorTime", self.reactor)
        client = SeedClient(endpoint, f"client {number}", number, clock=clock, on_event=told.append)
        self.addCleanup(client.close)
        return client

    def turn(self) -> Deferred[None]:
        """Let the event be told that the last Deferred has fired for."""
        return deferLater(cast("IReactorTime", self.reactor), 0)

    @inlineCallbacks
    def test_full_mesh(self) -> Generator[Deferred[Any], Any, None]:
        """Twenty clients open all conversations at once, from both ends, and send at once: nothing is lost, doubled or
        reordered."""
        count, texts = 20, 3
        clients = {number: self.client(number) for number in range(1, count + 1)}
        yield gatherResults([client.connect() for client in clients.values()], consumeErrors=True)
        pairs = [(a, b) for a in clients for b in clients if a != b]
        opened = [clients[a].open(str(b)) for a, b in pairs]
        delivered = [
            clients[a].send(str(b), f"{a} to {b}, number {number}", until=Delivery.DELIVERED)
            for number in range(texts)
            for a, b in pairs
        ]
        yield gatherResults(opened, consumeErrors=True)
        yield gatherResults(delivered, consumeErrors=True)
        yield self.turn()
        for number, told in self.happened.items():
            others = [other for other in clients if other != number]
            came: dict[str, list[str]] = {str(other): [] for other in others}
            for message in (event for event in told if isinstance(event, Message)):
                came[message.sender.id].append(message.text)
            expected = {str(o): [f"{o} to {number}, number {n}" for n in range(texts)] for o in others}
            self.assertEqual(came, expected)
            done = [event for event in told if isinstance(event, State) and event.state is Delivery.DELIVERED]
            self.assertEqual(len({event.id for event in done}), len(others) * texts)
            self.assertEqual(len(done), len(others) * texts)
            self.assertEqual({e.peer.id for e in told if isinstance(e, Connected)}, {str(other) for other in others})
            self.assertEqual([event for event in told if isinstance(event, Problem)], [])
        self.server.check_log()

    @inlineCallbacks
    def test_many_each(self) -> Generator[Deferred[Any], Any, None]:
        """Two clients that send 400 texts each at once through that network."""
        ann, bob = self.client(1), self.client(2)
        yield gatherResults([ann.connect(), bob.connect()], consumeErrors=True)
        numbers = [str(number) for number in range(400)]
        sent = [
            sender.send(to, text, until=Delivery.DELIVERED)
            for text in numbers
            for sender, to in ((ann, "2"), (bob, "1"))
        ]
        yield gatherResults(sent, consumeErrors=True)
        yield self.turn()
        for told in self.happened.values():
            self.assertEqual([event.text for event in told if isinstance(event, Message)], numbers)
            self.assertEqual([event for event in told if isinstance(event, Problem)], [])
        self.server.check_log()
