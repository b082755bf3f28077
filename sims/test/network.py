"""A network in memory: one server, any number of clients, a clock that the test turns.

The transports are Twisted's own TCP connections; only the sockets and the reactor below them are replaced. So buffers,
producers, half-closing and resets behave as they do over TCP. A connection is two flows of bytes; what is written to
one arrives in order, in pieces, each after a delay, and no more is taken than fits (:attr:`Network.capacity`).
"""

from __future__ import annotations

import errno
import heapq
import struct
from collections.abc import Callable, Iterator
from itertools import count
from random import Random
from typing import Any, cast

from twisted.internet import error, tcp
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.internet.main import CONNECTION_DONE
from twisted.internet.task import Clock
from twisted.python import log
from twisted.python.failure import Failure
from zope.interface import implementer

from sims.crypto.primitives import Entropy
from sims.server.connection import SeedConnection, SeedServerFactory
from sims.server.relay import Relay
from sims.test.cheapkeys import SeededEntropy

# --- sockets ----------------------------------------------------------------------------------------------------------


class _Flow:
    """One direction of a connection."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.reader: FakeSocket
        self.writer: FakeSocket
        self.arrived = bytearray()
        self.held = 0  # bytes under way or arrived
        self.ended = False
        self.cut = False
        self._slowest = network.delay()  # so one direction may be much slower than another
        self._last = 0.0

    def send(self, data: bytes) -> None:
        self.held += len(data)
        for piece in self.network.pieces(data):
            self._later(self._arrive, piece)

    def end(self) -> None:
        self._later(self._end)

    def _later(self, act: Callable[..., None], *args: object) -> None:
        self._last = max(self._last, self.network.clock.seconds() + self.network.delay(self._slowest))
        self.network.at(self._last, act, *args)

    def _arrive(self, piece: bytes) -> None:
        if self.reader.closed:
            self.reader.reset_other()
        elif not self.cut:
            self.arrived += piece
            self.reader.changed()

    def _end(self) -> None:
        self.ended = True
        self.reader.changed()


class FakeSocket:
    """What :class:`twisted.internet.tcp.Connection` needs of a non-blocking socket."""

    def __init__(self, network: Network, incoming: _Flow, outgoing: _Flow) -> None:
        self.incoming, self.outgoing = incoming, outgoing
        incoming.reader = outgoing.writer = self
        self.closed = self.is_reset = False
        self.changed: Callable[[], None] = lambda: None
        self._network = network
        self._shut = self._abortive = False

    @property
    def readable(self) -> bool:
        """Whether ``recv`` has something to tell."""
        return bool(self.incoming.arrived) or self.incoming.ended or self.is_reset

    @property
    def writable(self) -> bool:
        """Whether ``send`` would take something."""
        return self.is_reset or self.outgoing.held < self._network.capacity

    def recv(self, size: int) -> bytes:
        arrived = self.incoming.arrived
        if arrived:
            data = bytes(arrived[:size])
            del arrived[:size]
            self.incoming.held -= len(data)
            self.incoming.writer.changed()
            return data
        if self.is_reset:
            raise ConnectionResetError(errno.ECONNRESET, "reset")
        if self.incoming.ended:
            return b""
        raise BlockingIOError(errno.EWOULDBLOCK, "nothing to read")

    def send(self, data: memoryview) -> int:
        if self.is_reset or self._shut:
            raise ConnectionResetError(errno.ECONNRESET, "reset")
        taken = bytes(data[: max(0, self._network.capacity - self.outgoing.held)])
        if data and not taken:
            raise BlockingIOError(errno.EWOULDBLOCK, "full")
        if taken:
            self.outgoing.send(taken)
        return len(taken)

    def shutdown(self, _: int) -> None:
        if not self._shut and not self.is_reset:
            self._shut = True
            self.outgoing.end()

    def close(self) -> None:
        self.closed = True
        if self._abortive or self.incoming.arrived:
            self.reset_other()
        else:
            self.shutdown(2)

    def reset_other(self) -> None:
        """What is under way to the other end is lost, and it will hear of a reset."""
        self.outgoing.cut = True
        self._network.later(self.outgoing.reader.reset)

    def reset(self) -> None:
        if not self.closed:
            self.is_reset = True
            self.changed()

    def setsockopt(self, level: int, option: int, value: int | bytes) -> None:
        self._abortive = self._abortive or value == struct.pack("ii", 1, 0)

    def setblocking(self, _: bool) -> None:
        pass

    def fileno(self) -> int:
        return 3


class Stream(tcp.Connection):
    """A TCP connection of Twisted's on a :class:`FakeSocket`."""

    def __init__(self, skt: FakeSocket, protocol: IProtocol, network: Network, address: IPv4Address) -> None:
        super().__init__(cast("Any", skt), protocol, cast("Any", network))
        self.fake = skt
        self.polled = False
        self.connected = 1
        self._address = address
        skt.changed = lambda: network.poll(self)

    def getPeer(self) -> IPv4Address:  # noqa: N802
        return self._address

    getHost = getPeer  # noqa: N815

    @property
    def unsent(self) -> int:
        """Bytes that wait in this process."""
        return len(self.dataBuffer) - self.offset + self._tempDataLen


# --- the network ------------------------------------------------------------------------------------------------------


class Network:
    """The reactor, the wires and the server.

    :param delay: the least and the greatest time that a piece is under way, seconds; for each direction of each
        connection, the greatest is something between the two.
    :param most_pieces: into how many pieces what is written at once falls apart at most.
    :param capacity: how many bytes one direction of a connection takes that the other end has not read.
    :ivar happenings: how many events there were so far.
    """

    def __init__(
        self,
        seed: int = 0,
        *,
        delay: tuple[float, float] = (0.0, 0.0),
        most_pieces: int = 1,
        capacity: int = 64 * 1024,
        cheap: bool = False,
    ) -> None:
        self.clock = Clock()
        self.random = Random(seed)
        self.entropy: Entropy = SeededEntropy(seed, cheap=cheap)
        self.capacity = capacity
        self.relay = Relay()
        self.server = SeedServerFactory(self.relay, self.clock, entropy=self.entropy)
        self.happenings = 0
        self._delay = delay
        self._most_pieces = most_pieces
        self._agenda: list[tuple[float, int, Callable[..., None], tuple[object, ...]]] = []
        self._number = count()
        self._readers: set[Stream] = set()
        self._writers: set[Stream] = set()

    def delay(self, slowest: float | None = None) -> float:
        """How long the next piece is under way, on the slowest of connections unless another is given."""
        low, high = self._delay
        return self.random.uniform(low, high if slowest is None else slowest) if high else 0.0

    def pieces(self, data: bytes) -> Iterator[bytes]:
        """What is written at once, as it arrives."""
        cuts = sorted(self.random.randrange(len(data)) for _ in range(self.random.randrange(self._most_pieces)))
        for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
            if start < end:
                yield data[start:end]

    def dial(self, protocol: IProtocol) -> SeedConnection:
        """Connect a protocol to the server; gives the server's end."""
        address = IPv4Address("TCP", "192.0.2.1", 4711)
        connection = self.server.buildProtocol(address)
        self.join(protocol, cast("IProtocol", connection), address)
        return connection

    def join(self, protocol: IProtocol, connection: IProtocol, address: IPv4Address) -> None:
        """Put two protocols at the ends of a new connection."""
        there, back = _Flow(self), _Flow(self)
        for end, flows in ((connection, (there, back)), (protocol, (back, there))):
            stream = Stream(FakeSocket(self, *flows), end, self, address)
            stream.startReading()
            end.makeConnection(stream)

    # --- what Twisted's transports ask of a reactor ---

    def addReader(self, stream: Stream) -> None:  # noqa: N802
        self._readers.add(stream)
        self.poll(stream)

    def removeReader(self, stream: Stream) -> None:  # noqa: N802
        self._readers.discard(stream)

    def addWriter(self, stream: Stream) -> None:  # noqa: N802
        self._writers.add(stream)
        self.poll(stream)

    def removeWriter(self, stream: Stream) -> None:  # noqa: N802
        self._writers.discard(stream)

    def callLater(self, delay: float, act: Callable[..., object], *args: object) -> object:  # noqa: N802
        return self.clock.callLater(delay, act, *args)

    def poll(self, stream: Stream) -> None:
        """See soon whether there is something to do for a stream."""
        if not stream.polled:
            stream.polled = True
            self.at(self.clock.seconds(), self._ready, stream)

    def _ready(self, stream: Stream) -> None:
        stream.polled = False
        reading = stream in self._readers and stream.fake.readable
        writing = stream in self._writers and stream.fake.writable
        if reading:
            self._run(stream, stream.doRead, is_read=True)
        if writing and stream in self._writers:
            self._run(stream, stream.doWrite, is_read=False)
        if (stream in self._readers and stream.fake.readable) or (stream in self._writers and stream.fake.writable):
            self.poll(stream)

    def _run(self, stream: Stream, act: Callable[[], object], *, is_read: bool) -> None:
        # As posixbase does it: an exception is logged and ends the connection.
        try:
            why = act()
        except Exception as raised:
            log.err()
            why = raised
        if why is None:
            return
        self.removeReader(stream)
        reason = Failure(cast("BaseException", why))
        if is_read and why is CONNECTION_DONE:
            stream.readConnectionLost(reason)
        else:
            self.removeWriter(stream)
            stream.connectionLost(reason)

    # --- time ---

    def at(self, time: float, act: Callable[..., None], *args: object) -> None:
        """Call something at a time."""
        heapq.heappush(self._agenda, (time, next(self._number), act, args))

    def later(self, act: Callable[..., None]) -> None:
        """Call something after the delay of a piece."""
        self.at(self.clock.seconds() + self.delay(), act)

    def _next_time(self) -> float | None:
        times = [self._agenda[0][0]] if self._agenda else []
        if self.clock.calls:
            times.append(self.clock.calls[0].getTime())
        return min(times, default=None)

    def _step(self, time: float) -> None:
        """Do the next thing, which is due at ``time``."""
        self.happenings += 1
        clock = self.clock
        clock.rightNow = max(clock.rightNow, time)
        if self._agenda and self._agenda[0][0] <= clock.rightNow:
            _, _, act, args = heapq.heappop(self._agenda)
            act(*args)
            return
        try:
            clock.advance(0)
        except Exception:
            log.err()  # as a reactor does

    def run_for(self, seconds: float) -> None:
        """Let time pass."""
        end = self.clock.seconds() + seconds
        while (time := self._next_time()) is not None and time <= end:
            self._step(time)
        self.clock.rightNow = end

    def settle(self, most: float = 5.0) -> None:
        """Let everything happen that is under way; timers that are further off than it stay."""
        limit = self.clock.seconds() + most
        while self._agenda or (self.clock.calls and self.clock.calls[0].getTime() <= self.clock.seconds()):
            time = self._next_time()
            if time is None or time > limit:
                raise AssertionError(f"the network does not come to rest within {most} seconds")
            self._step(time)

    def run_until(self, condition: Callable[[], bool], seconds: float = 30.0) -> None:
        """Let time pass until something is the case.

        :raises AssertionError: when that has not come within so many seconds, or cannot come any more.
        """
        end = self.clock.seconds() + seconds
        while not condition():
            time = self._next_time()
            if time is None or time > end:
                raise AssertionError(f"not the case within {seconds} seconds: {condition}")
            self._step(time)


@implementer(IStreamClientEndpoint)
class Endpoint:
    """The way of a client to the server.

    :ivar refusing: connecting fails.
    :ivar hanging: connecting takes until it is cancelled.
    :ivar attempts: the times at which it was tried.
    """

    def __init__(self, network: Network) -> None:
        self.refusing = self.hanging = False
        self.attempts: list[float] = []
        self.server_end: SeedConnection | None = None
        self._network = network

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:  # noqa: N803
        """As IStreamClientEndpoint: it takes the delay of a piece."""
        self.attempts.append(self._network.clock.seconds())
        done: Deferred[IProtocol] = Deferred()

        def made() -> None:
            if self.refusing and not done.called:
                done.errback(error.ConnectionRefusedError())
            elif not done.called:
                protocol = protocolFactory.buildProtocol(IPv4Address("TCP", "192.0.2.2", 8080))
                self.server_end = self._network.dial(cast("IProtocol", protocol))
                done.callback(cast("IProtocol", protocol))

        if not self.hanging:
            self._network.later(made)
        return done


def cut(connection: SeedConnection) -> None:
    """The connection of this end of the server's breaks: what is under way is lost, both ends see a reset."""
    fake = cast("Stream", connection.transport).fake
    for flow in (fake.incoming, fake.outgoing):
        flow.cut = True
        flow.reader.reset()
