"""Who talks to the server of a :class:`~sims.test.network.Network`: from the whole client down to bytes by hand."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

from twisted.internet.interfaces import IHalfCloseableProtocol, IProtocol
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from zope.interface import implementer

from sims import messages, specs, wire
from sims.client import events
from sims.client.connection import SeedClient
from sims.client.events import Delivery
from sims.client.seed import SeedMessenger
from sims.client.seed_hop import HopState
from sims.crypto.seed import End, Initiator, Keys, Session
from sims.server.connection import SeedConnection
from sims.strictjson import Octets32, Pem
from sims.test.network import Endpoint, Network, Stream
from sims.wire import TERMINATOR

E = TypeVar("E", bound=events.Event)


class Party:
    """Somebody with events, and what a test wants to know of them.

    :ivar happened: every event so far.
    """

    def __init__(self) -> None:
        self.happened: list[events.Event] = []

    def all(self, kind: type[E]) -> list[E]:
        """The events of one kind, in order."""
        return [event for event in self.happened if isinstance(event, kind)]

    def texts(self, sender: int | None = None) -> list[str]:
        """The texts that came: all, or those of one sender."""
        return [event.text for event in self.all(events.Message) if sender is None or event.sender.id == str(sender)]

    def states(self, state: Delivery) -> list[str]:
        """The ids of the messages that came as far as this."""
        return [event.id for event in self.all(events.State) if event.state is state]

    def problems(self) -> list[str]:
        """The codes of what went wrong."""
        return [str(event.code) for event in self.all(events.Problem)]


class Driven(Protocol, Party):
    """A :class:`SeedMessenger` on a connection, with nothing between them but framing and the clock."""

    def __init__(self, network: Network, name: str, own_id: int, **options: Any) -> None:
        Party.__init__(self)
        self.messenger = SeedMessenger(
            name, own_id, clock=network.clock.seconds, **{"entropy": network.entropy, **options}
        )
        self.network = network
        self.id = own_id
        self.server_end: SeedConnection
        self._buffer = b""
        self._tick: Any = None

    def dial(self) -> Driven:
        """Connect, again if it was connected before."""
        self._buffer = b""
        self.server_end = self.network.dial(cast("IProtocol", self))
        return self

    def do(self, command: Callable[[SeedMessenger], object]) -> None:
        """Give a command."""
        command(self.messenger)
        self.pump()

    @property
    def ready(self) -> bool:
        """Whether the session with the server is there."""
        return self.messenger.hop.state is HopState.READY

    def connectionMade(self) -> None:
        cast("Stream", self.transport).registerProducer(self, True)
        self.messenger.connected()
        self.pump()

    def dataReceived(self, data: bytes) -> None:
        *frames, self._buffer = (self._buffer + data).split(TERMINATOR)
        for frame in frames:
            self.messenger.receive(frame)
            self.pump()

    def connectionLost(self, reason: Failure | None = None) -> None:
        self.transport = None
        self.messenger.lost()
        self.pump()

    def pauseProducing(self) -> None:
        self.messenger.hop.congested = True

    def resumeProducing(self) -> None:
        self.messenger.hop.congested = False
        self.messenger.flush()
        self.pump()

    def stopProducing(self) -> None:
        pass

    def pump(self) -> None:
        """Write frames, keep events, wait for the next deadline."""
        if self._tick is not None:
            self._tick.cancel()
            self._tick = None
        frames, happened = self.messenger.hop.frames, self.messenger.events
        when = self.messenger.tick()
        while frames and self.transport is not None:
            self.transport.write(frames.popleft() + TERMINATOR)
        while happened:
            self.happened.append(happened.popleft())
        if when is not None:
            self._tick = self.network.clock.callLater(max(0.0, when - self.network.clock.seconds()), self._ticked)

    def _ticked(self) -> None:
        self._tick = None
        self.pump()


class Program(Party):
    """A :class:`SeedClient` with an endpoint on the network."""

    def __init__(self, network: Network, name: str, own_id: int, **options: Any) -> None:
        super().__init__()
        self.id = own_id
        self.endpoint = Endpoint(network)
        self.client = SeedClient(
            self.endpoint,
            name,
            own_id,
            clock=network.clock,
            on_event=self.happened.append,
            **{"entropy": network.entropy, **options},
        )


@implementer(IHalfCloseableProtocol)
class Raw(Protocol):
    """Frames by hand: what a hostile client, or a foreign one, may send.

    :ivar received: every byte that came.
    :ivar closed: the server has closed its side.
    :ivar stubborn: do not close when the server does.
    """

    def __init__(self, network: Network, name: str = "mallory", own_id: int = 666) -> None:
        self.network = network
        self.name, self.id = name, own_id
        self.received = b""
        self.closed = False
        self.stubborn = False
        self.session: Session | None = None
        self.server_end = network.dial(cast("IProtocol", self))
        self._opened = 0

    @property
    def stream(self) -> Stream:
        """The transport."""
        return cast("Stream", self.transport)

    def dataReceived(self, data: bytes) -> None:
        self.received += data

    def readConnectionLost(self) -> None:
        self.closed = True
        if not self.stubborn:
            self.stream.loseConnection()

    def writeConnectionLost(self) -> None:
        pass

    def connectionLost(self, reason: Failure | None = None) -> None:
        self.closed = True

    def frames(self) -> list[dict[str, Any]]:
        """Every frame that came so far."""
        return [json.loads(frame) for frame in self.received.split(TERMINATOR)[:-1]]

    def kinds(self) -> list[str]:
        """What they were, as type or as type and phase."""
        return [" ".join(str(frame[key]) for key in ("type", "phase") if key in frame) for frame in self.frames()]

    def send(self, frame: dict[str, Any] | messages.Message | bytes) -> None:
        """Write one frame, then let everything happen."""
        data = json.dumps(frame).encode() if isinstance(frame, dict) else frame
        self.stream.write((data if isinstance(data, bytes) else wire.encode(data)) + TERMINATOR)
        self.network.settle()

    def greeting(self, offer: Sequence[str] = ("ECDHE-AES128_CTR-SHA256",)) -> messages.Connect1:
        """Phase 1."""
        return messages.Connect1(name=self.name, id=self.id, ciphers=list(offer))

    def handshake(self) -> Raw:
        """All four phases."""
        initiator = Initiator(End.CLIENT, specs.SEED_OFFER, self.network.entropy)
        self.send(self.greeting(initiator.offer()))
        chosen = self.frames()[-1]["ciphers"]
        self.send(self.keying(initiator.choose(chosen), chosen))
        answer = wire.decode(self.received.split(TERMINATOR)[-2])
        if not isinstance(answer, messages.Connect4):
            raise AssertionError(f"no connect 4, but {self.kinds()}")
        self.session = initiator.finish(Keys(answer.data.public_key, answer.data.server_random))
        self._opened = len(self.frames())
        return self

    def keying(self, keys: Keys, chosen: str = "ECDHE-AES128_CTR-SHA256") -> messages.Connect3:
        """Phase 3."""
        data = messages.ClientKeys(public_key=Pem(keys.public_key), client_random=Octets32(keys.random))
        return messages.Connect3(name=self.name, id=self.id, ciphers=chosen, data=data)

    def sealed(self, inner: dict[str, Any] | bytes) -> dict[str, Any]:
        """The secure frame of an inner message, as an object."""
        if self.session is None:
            raise AssertionError("no session")
        self.session.received(self.session.serial)  # it does not mind how much is under way
        plaintext = inner if isinstance(inner, bytes) else json.dumps(inner).encode()
        found: dict[str, Any] = json.loads(wire.encode(messages.Secure.of(self.session.seal(plaintext))))
        return found

    def say(self, inner: dict[str, Any] | bytes) -> None:
        """Seal an inner message and send it."""
        self.send(self.sealed(inner))

    def heard(self) -> list[dict[str, Any]]:
        """The inner messages that came since this was last asked."""
        if self.session is None:
            return []
        frames = self.received.split(TERMINATOR)[:-1]
        new, self._opened = frames[self._opened :], len(frames)
        decoded = [wire.decode(frame) for frame in new]
        return [self.session.open(found.box, json.loads) for found in decoded if isinstance(found, messages.Secure)]
