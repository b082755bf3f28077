"""A server of sims/2 in memory, and clients by hand: what a hostile one may send, or a foreign one."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar, cast

from twisted.internet.address import IPv4Address
from twisted.internet.interfaces import IHalfCloseableProtocol, IProtocol
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from zope.interface import implementer

from sims import frames, inner, specs
from sims.crypto.handshake import Client, Joined
from sims.crypto.hop import Hop
from sims.crypto.identity import Identity
from sims.crypto.payloads import Answer, Offer
from sims.crypto.prekeys import Bundle, OneTimeKey, OwnPrekeys
from sims.errors import Code, PeerError
from sims.frames import TERMINATOR
from sims.server.interfaces import Store
from sims.server.limits import Limits
from sims.server.memory import MemoryStore
from sims.server.modern_connection import ModernConnection, ModernServerFactory
from sims.server.modern_relay import ModernRelay
from sims.server.rates import Addresses
from sims.server.registration import Mode, hashed
from sims.server.turns import Turns
from sims.strictjson import Octets, Octets32
from sims.test.modern_builders import Counting, person
from sims.test.network import Network, Stream

M = TypeVar("M")

#: The server's time at the start, Unix seconds; its clock starts at 0.
WALL = 1_800_000_000
SPECS = tuple(spec.name for spec in specs.MODERN)


def mid_of(number: int) -> bytes:
    """A mid."""
    return number.to_bytes(16, "big")


class Factory(ModernServerFactory):
    """Makes the server's end of connections, and keeps what has gone wrong with one in a way that none may."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.failures: list[Exception] = []

    def failed(self, error: Exception) -> None:
        self.failures.append(error)
        super().failed(error)


class ModernNetwork(Network):
    """A network whose server speaks sims/2 over plain TCP.

    :ivar spent: how many invitations were.
    """

    def __init__(
        self,
        *,
        limits: Limits | None = None,
        mode: Mode = Mode.OPEN,
        store: Store | None = None,
        directory: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.store = store or MemoryStore()
        self.spent = 0
        self.identity = person("server")
        limits = limits or Limits()
        self.modern_relay = ModernRelay(
            self.store,
            clock=self.clock.seconds,
            wall=self.wall,
            limits=limits,
            mode=mode,
            directory=directory,
            invitation_spent=self._invitation_spent,
        )
        self.turns = Turns(self.modern_relay, self.clock, self.clock.seconds)
        self.addresses = Addresses(limits.connections, self.clock.seconds)
        self.modern = Factory(
            self.turns, self.identity, self.addresses, clock=self.clock, wall=self.wall, secured=False
        )

    def wall(self) -> float:
        """Unix seconds."""
        return WALL + self.clock.seconds()

    def _invitation_spent(self) -> None:
        self.spent += 1

    def invite(self, token: str) -> str:
        """Give an invitation out."""
        self.store.invite(hashed(token), lambda _: None)
        return token

    def reach(self, protocol: IProtocol, host: str = "192.0.2.1") -> ModernConnection | None:
        """Connect a protocol; gives the server's end, or None if the server does not take it."""
        address = IPv4Address("TCP", host, 4711)
        connection = self.modern.buildProtocol(address)
        if connection is not None:
            self.join(protocol, cast("IProtocol", connection), address)
        return connection


@implementer(IHalfCloseableProtocol)
class Hand(Protocol):
    """A client by hand.

    :ivar received: every byte that came.
    :ivar closed: the server has closed its side.
    :ivar came: the inner messages that came, with which the clock does nothing.
    :ivar acknowledging: whether messages are acknowledged as they come.
    """

    def __init__(
        self, network: ModernNetwork, name: str = "mallory", *, host: str = "192.0.2.1", acknowledging: bool = False
    ) -> None:
        self.network = network
        self.name = name
        self.identity: Identity = person(name)
        self.entropy = Counting(name)
        self.received = b""
        self.came: list[inner.FromServer] = []
        self.closed = False
        self.acknowledging = acknowledging
        self.hop: Hop | None = None
        self.joined: Joined | None = None
        self.handshake: Client | None = None
        self.refused: Code | None = None
        self._buffer = b""
        self.server_end = network.reach(cast("IProtocol", self), host)

    @property
    def id(self) -> str:
        """Its id."""
        return self.identity.id

    @property
    def stream(self) -> Stream:
        """The transport."""
        return cast("Stream", self.transport)

    # --- Twisted's ---

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        *whole, self._buffer = (self._buffer + data).split(TERMINATOR)
        for frame in whole:
            self._open(frame)

    def readConnectionLost(self) -> None:
        self.closed = True
        self.stream.loseConnection()

    def writeConnectionLost(self) -> None:
        pass

    def connectionLost(self, reason: Failure | None = None) -> None:
        self.closed = True

    # --- what a test does ---

    def frames(self) -> list[dict[str, Any]]:
        """Every frame that came so far."""
        return [json.loads(frame) for frame in self.received.split(TERMINATOR)[:-1]]

    def write(self, frame: bytes) -> None:
        """Write one frame, and let everything happen."""
        self.stream.write(frame + TERMINATOR)
        self.network.settle()

    def greet(self, **options: Any) -> bytes:
        """The frame of phase 1."""
        self.handshake = Client(
            self.identity,
            self.network.identity.id,
            options.pop("name", self.name),
            specs.MODERN,
            binding=options.pop("binding", b""),
            entropy=self.entropy,
            **options,
        )
        return self.handshake.offer(_offer)

    def prove(self) -> bytes:
        """The frame of phase 3."""
        answer = frames.decode(self.received.split(TERMINATOR)[-2])
        if not isinstance(answer, frames.Connect2) or self.handshake is None:
            raise AssertionError(f"no connect 2, but {answer}")
        data = answer.data
        sealed = self.handshake.answer(
            answer.ciphers,
            Answer(
                random=data.random,
                public_key=data.public_key,
                kem_ciphertext=data.kem_ciphertext,
                sealed=data.sealed,
            ),
        )
        return frames.encode(frames.Connect3(data=frames.SealedData(sealed=Octets(sealed))))

    def connect(self, **options: Any) -> Hand:
        """All four phases."""
        self.write(self.greet(**options))
        self.write(self.prove())
        return self

    def refusal(self, **options: Any) -> str:
        """The code with which phase 4 refuses."""
        self.write(self.greet(**options))
        self.write(self.prove())
        if self.refused is None:
            raise AssertionError("it was not refused")
        return self.refused.value

    def sealed(self, message: inner.Inner | bytes) -> bytes:
        """The frame of an inner message."""
        if self.hop is None:
            raise AssertionError("no hop")
        plaintext = message if isinstance(message, bytes) else inner.encode(message)
        return frames.encode_box(*self.hop.seal(plaintext))

    def say(self, message: inner.Inner | bytes) -> None:
        """Seal and send."""
        self.write(self.sealed(message))

    def text(self, to: Hand | str, number: int, size: int = 100, src: str | None = None) -> inner.ClientCom:
        """A message for somebody."""
        dst = to if isinstance(to, str) else to.id
        data = inner.pack({"header": bytes(69), "body": bytes(size)})
        return inner.ClientCom(src=src or self.id, dst=dst, mid=mid_of(number), data=data)

    def send(self, to: Hand | str, number: int, size: int = 100) -> None:
        """Send somebody a message."""
        self.say(self.text(to, number, size))

    def acknowledge(self, *numbers: int) -> None:
        """Say that these are committed."""
        self.say(inner.Ack(data=inner.AckData(mids=tuple(map(mid_of, numbers)))))

    def publish(self, number: int = 1, keys: int = 2) -> tuple[Bundle, list[OneTimeKey]]:
        """Publish a bundle and one-time keys."""
        own = OwnPrekeys()
        now = int(self.network.wall())
        bundle = own.make_bundle(self.identity, self.name, SPECS, now=now, entropy=self.entropy)
        one_time = own.make_one_time_keys(self.identity, keys, now=now, entropy=self.entropy)
        self.say(publishing(number, bundle, one_time))
        return bundle, one_time

    # --- what it sees ---

    def all(self, kind: type[M]) -> list[M]:
        """What came of one kind, in order."""
        return [message for message in self.came if isinstance(message, kind)]

    @property
    def numbers(self) -> list[int]:
        """The numbers of the messages that came."""
        return [int.from_bytes(message.mid, "big") for message in self.all(inner.ClientCom)]

    @property
    def acked(self) -> list[int]:
        """The numbers of what the server has acknowledged."""
        return [int.from_bytes(mid, "big") for ack in self.all(inner.Ack) for mid in ack.data.mids]

    @property
    def errors(self) -> list[tuple[str, int | None]]:
        """The codes of the errors that came, and the number of what each is about."""
        return [
            (error.data.code, int.from_bytes(error.data.mid, "big") if isinstance(error.data.mid, bytes) else None)
            for error in self.all(inner.Error)
        ]

    @property
    def clear(self) -> list[str]:
        """The codes of the errors that came in the clear."""
        return [frame["data"]["code"] for frame in self.frames() if frame["type"] == "error"]

    # --- within ---

    def _open(self, frame: bytes) -> None:
        found = frames.decode(frame)
        if isinstance(found, frames.Connect4) and self.handshake is not None:
            try:
                self.joined = self.handshake.finish(found.data.sealed, self.network.clock.seconds())
            except PeerError as error:
                self.refused = error.code
                return
            self.hop = self.joined.hop
        elif isinstance(found, frames.Box) and self.hop is not None:
            received = self.hop.open(found.n, found.ciphertext, self.network.clock.seconds(), self.entropy)
            if received.reply is not None:
                self.stream.write(frames.encode_box(*received.reply) + TERMINATOR)
            if received.plaintext is not None:
                self._take(inner.from_server(received.plaintext))

    def _take(self, message: inner.FromServer) -> None:
        self.came.append(message)
        if self.acknowledging and isinstance(message, inner.ClientCom):
            self.stream.write(self.sealed(inner.Ack(data=inner.AckData(mids=(message.mid,)))) + TERMINATOR)


def publishing(number: int, bundle: object, keys: list[OneTimeKey]) -> inner.Publish:
    """The message that publishes these."""
    data = inner.PublishData(bundle=inner.pack(bundle), one_time_keys=tuple(map(inner.pack, keys)))
    return inner.Publish(mid=mid_of(number), data=data)


def _offer(ciphers: list[str], data: Offer) -> bytes:
    offer = frames.OfferData(
        version=data.version,
        random=Octets32(data.random),
        public_key=Octets32(data.public_key),
        kem_public_key=frames.KemPublic(data.kem_public_key),
    )
    return frames.encode(frames.Connect1(ciphers=ciphers, data=offer))


Act = Callable[[Hand], object]
