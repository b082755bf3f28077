"""The seed's server protocol: a LineReceiver for each connection, and its factory (seed.rst, "The seed")."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from enum import Enum, auto
from typing import Any, cast

from msgspec import UNSET, UnsetType
from twisted.internet.interfaces import IAddress, IDelayedCall, IReactorTime
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from twisted.python.failure import Failure

from sims import messages, specs, wire
from sims.crypto.primitives import Entropy, SystemEntropy
from sims.crypto.seed import BoxLike, End, Keys, Responder, Session
from sims.errors import Code, PeerError, malformed
from sims.server import limits
from sims.server.rates import Addresses
from sims.server.relay import Relay
from sims.specs import CipherSpec
from sims.strictjson import Octets32, Pem
from sims.transport import FrameReceiver


class State(Enum):
    """Where a connection is."""

    GREETING = auto()  # waits for connect 1
    KEYING = auto()  # waits for connect 3
    OPEN = auto()  # secure frames only
    CLOSED = auto()


class SeedConnection(FrameReceiver):
    """One client of the seed: its handshake, its session, what waits for it."""

    MAX_LENGTH = wire.MAX_FRAME_BEFORE_SESSION
    log = Logger()

    def __init__(self, factory: SeedServerFactory, address: str) -> None:
        super().__init__(factory.clock)
        self.state = State.GREETING
        self.id = 0
        self.name = ""
        self._address = address
        self._factory = factory
        self._relay = factory.relay
        self._responder = Responder(End.SERVER, factory.allowed, factory.entropy)
        self._session: Session | None = None
        self._pending: deque[bytes] = deque()
        self._pending_bytes = 0
        self._taken_since_sent = 0
        self._deadline: IDelayedCall | None = None
        self._failed = True  # until it is through
        self._unsaid: list[bytes] = []
        self._unsaid_size = 0

    # --- the connection ---

    def connectionMade(self) -> None:
        super().connectionMade()
        self._factory.connections.add(self)
        self._deadline = self.clock.callLater(limits.HANDSHAKE_TIMEOUT, self._too_slow)

    def connectionLost(self, reason: Failure | None = None) -> None:
        super().connectionLost(reason)
        self._leave()
        self._factory.lost(self, self._address, failed=self._failed)

    def dataReceived(self, data: bytes) -> None:
        super().dataReceived(data)
        self._factory.push()

    def frame_received(self, frame: bytes) -> None:
        try:
            box = wire.read_box(frame)
            if box is not None:
                self._acknowledge()
                self._take(box)
                return
            value = wire.parse(frame)
            if value.get("type") != "ack":
                self._acknowledge()
            self._frame(wire.message(value))
        except PeerError as error:
            self._refuse(error)

    def frame_too_long(self) -> None:
        self._refuse(PeerError(Code.TOO_LARGE, f"a frame of more than {self.MAX_LENGTH} bytes"))

    def frame_too_slow(self) -> None:
        self._refuse(PeerError(Code.UNAVAILABLE, "a frame was begun and not ended in time"))

    # --- frames ---

    def _frame(self, message: messages.Message) -> None:
        match self.state, message:
            case State.GREETING, messages.Connect1():
                self._greet(message)
            case State.KEYING, messages.Connect3():
                self._key(message)
            case _, messages.Secure():
                self._take(message.box)
            case _, messages.Ack():
                pass
            case _:
                raise malformed(f"{type(message).__name__} in state {self.state.name}")

    def _acknowledge(self) -> None:
        self._say(_ACK)

    def _say(self, frame: bytes) -> None:
        """Write a frame, together with others that go out in the same breath.

        Never with more than the original client reads at once: it expects whole frames in it.
        """
        if self.finished:
            return
        size = len(frame) + len(wire.TERMINATOR)
        if self._unsaid and self._unsaid_size + size > wire.ORIGINAL_READS:
            self.push()
        self._unsaid.append(frame)
        self._unsaid_size += size
        self._factory.unsaid.add(self)

    def push(self) -> None:
        """Hand what was said to the operating system."""
        self._factory.unsaid.discard(self)
        if self._unsaid:
            frames, self._unsaid, self._unsaid_size = self._unsaid, [], 0
            self.send_at_once(wire.TERMINATOR.join(frames))

    def _take(self, box: BoxLike) -> None:
        session = self._session
        if session is None:
            raise malformed(f"secure in state {self.state.name}")
        inner = session.open(box, _read_inner)
        self._taken_since_sent += 1
        if self._pending:
            self._drain()
        self._inner(inner)
        if self._taken_since_sent >= limits.TURN_AFTER and not self._pending:
            self.deliver(self._list_reply())

    def _greet(self, message: messages.Connect1) -> None:
        if self._relay.is_here(message.id):
            raise PeerError(Code.NAME_TAKEN, "the id is in use")
        spec = self._responder.answer(message.ciphers)
        self.id, self.name = message.id, message.name
        self.state = State.KEYING
        self._say(wire.encode(messages.Connect2(ciphers=spec.name)))

    def _key(self, message: messages.Connect3) -> None:
        if message.id != self.id or message.name != self.name:
            raise malformed("connect 3 names another client than connect 1")
        data = message.data
        keys, session = self._responder.accept(message.ciphers, Keys(data.public_key, data.client_random))
        self._relay.join(self)
        self._session = session
        self.state = State.OPEN
        self._failed = False
        self.MAX_LENGTH = wire.MAX_FRAME
        self._cancel_deadline()
        answer = messages.ServerKeys(public_key=Pem(keys.public_key), server_random=Octets32(keys.random))
        self._say(wire.encode(messages.Connect4(ciphers=message.ciphers, data=answer)))
        self.log.info(
            "client {id} connected from {address} with {spec}", id=self.id, address=self._address, spec=session.spec
        )

    def _inner(self, inner: dict[str, Any] | messages.PlainCom | messages.ClientAck) -> None:
        # The frame was authentic. What is wrong inside is answered, and the connection goes on.
        try:
            message = wire.from_client(inner) if isinstance(inner, dict) else inner
            if isinstance(message, messages.ListRequest):
                self._relay.give(self, self, self._list_reply())
            else:
                self._relay.route(self, message)
        except PeerError as error:
            dst = inner.get("dst") if isinstance(inner, dict) else inner.dst
            self._relay.give(self, self, wire.encode(messages.Error(code=error.code, dst=_endpoint(dst))))

    def _list_reply(self) -> bytes:
        spec = self._session.spec if self._session is not None else specs.SEED[0]
        return wire.list_reply(self._relay.entries(self), spec.mac_size)

    # --- what the relay asks of a member ---

    @property
    def congested(self) -> bool:
        """Whether the socket is behind, or more waits for its keys than is let wait lightly."""
        return self.write_blocked or self._exceeds(limits.SOFT_PENDING)

    @property
    def must_be_read(self) -> bool:
        """Whether something waits for a frame of this client that shows which keys it has."""
        return bool(self._pending) and not self.write_blocked

    def deliver(self, inner: bytes) -> None:
        """Seal and write an inner message, or keep it until this client has used a newer key of ours."""
        session = self._session
        if session is None:
            return
        if not self._pending and not self.write_blocked and session.can_seal:
            self._seal(session, inner)
            return
        self._pending.append(inner)
        self._pending_bytes += len(inner)
        if self._exceeds(limits.HARD_PENDING):
            self._stalled()
        else:
            self._drain()

    def close(self) -> None:
        """The server stops: let the client read what it was sent, unless it does not."""
        self._failed = False
        self.push()
        self._leave()
        if self.write_blocked:
            self.abort()
        else:
            self.finish()

    # --- within ---

    def write_side_changed(self) -> None:
        """The socket is behind, or has caught up."""
        if self.write_blocked:
            self._expect_progress()
            if self.state is State.OPEN:
                # Whatever it sends is answered, if only by an ack: it waits for its own reading.
                self._relay.wait(self, self)
        else:
            self._drain()
            self._factory.push()

    def _drain(self) -> None:
        session = self._session
        if session is None:
            return
        progress = False
        while self._pending and session.can_seal and not self.write_blocked:
            inner = self._pending.popleft()
            self._pending_bytes -= len(inner)
            self._seal(session, inner)
            progress = True
        waits = bool(self._pending) or self.write_blocked
        if progress or not waits:
            self._cancel_deadline()
        if waits:
            self._expect_progress()
        if self.must_be_read:
            self._relay.needs_reading(self)
        if not self.congested:
            self._relay.drained(self)

    def _seal(self, session: Session, inner: bytes) -> None:
        self._taken_since_sent = 0
        self._say(wire.secure_frame(session.seal(inner)))

    def _expect_progress(self) -> None:
        if self._deadline is None and not self.finished:
            self._deadline = self.clock.callLater(limits.STALL_TIMEOUT, self._stall_expired)

    def _exceeds(self, bound: tuple[int, int]) -> bool:
        return len(self._pending) > bound[0] or self._pending_bytes > bound[1]

    def _too_slow(self) -> None:
        self._deadline = None
        self._refuse(PeerError(Code.UNAVAILABLE, "the handshake took too long"))

    def _stall_expired(self) -> None:
        self._deadline = None
        self._stalled()

    def _stalled(self) -> None:
        self._cancel_deadline()
        self.log.info("client {id} takes nothing any more: closed", id=self.id)
        self._leave()
        self.abort()

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _refuse(self, error: PeerError) -> None:
        """Close; say why inside the session, if there is one and the frame was not forged."""
        self.log.info("closed {address}: {code}: {text}", address=self._address, code=error.code, text=error.text)
        told = self.state is State.OPEN and error.code is not Code.NOT_AUTHENTICATED
        if told and self._session is not None and self._session.can_seal:
            self._pending.clear()
            self.deliver(wire.encode(messages.Error(code=error.code)))
        self.push()
        self._leave()
        self.finish()

    def _leave(self) -> None:
        self._cancel_deadline()
        if self.state is State.OPEN:
            self._relay.leave(self)
            self.log.info("client {id} left", id=self.id)
        self.state = State.CLOSED
        self._session = None
        self._pending.clear()
        self._pending_bytes = 0


def _read_inner(plaintext: bytes) -> dict[str, Any] | messages.PlainCom | messages.ClientAck:
    """The inner message, or the JSON object that may be one.

    :raises PeerError: ``malformed``, for what is no JSON object: it may be an authentic frame with a changed iv.
    """
    return wire.read_relayed(plaintext) or wire.parse(plaintext)


def _endpoint(dst: object) -> int | str | UnsetType:
    """A ``dst`` as it came, to be named in an error; nothing if it cannot have been meant as one."""
    if isinstance(dst, str) and len(dst) <= wire.MAX_NAME:
        return dst
    return dst if type(dst) is int and dst.bit_length() < 64 else UNSET


_ACK = wire.encode(messages.Ack())


class SeedServerFactory(Factory[SeedConnection]):
    """Makes a :class:`SeedConnection` for each client of one relay.

    :param addresses: what one address may cost, if that is limited.
    :ivar connections: those that are open.
    """

    noisy = False

    def __init__(
        self,
        relay: Relay,
        clock: IReactorTime,
        *,
        entropy: Entropy | None = None,
        allowed: Sequence[CipherSpec] = specs.SEED,
        addresses: Addresses | None = None,
    ) -> None:
        self.relay = relay
        self.clock = clock
        self.entropy = entropy or SystemEntropy()
        self.allowed = allowed
        self.connections: set[SeedConnection] = set()
        self._addresses = addresses
        self.unsaid: set[SeedConnection] = set()  # those with something that was said and not pushed

    def push(self) -> None:
        """Hand to the operating system what was said on all connections."""
        while self.unsaid:
            self.unsaid.pop().push()

    def lost(self, connection: SeedConnection, address: str, *, failed: bool) -> None:
        """A connection is gone."""
        self.connections.discard(connection)
        self.unsaid.discard(connection)
        if self._addresses is not None:
            self._addresses.left(address)
            if failed:
                self._addresses.failed(address)

    def buildProtocol(self, addr: IAddress | None) -> SeedConnection:
        address = str(getattr(addr, "host", addr))
        if self._addresses is not None and not self._addresses.admit(address):
            return cast("SeedConnection", None)  # Twisted closes it then
        connection = SeedConnection(self, address)
        connection.factory = self
        return connection
