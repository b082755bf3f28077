"""One client of sims/2: its handshake, its hop, what is written to it (protocol.rst, "connect" and "secure")."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum, auto
from math import inf

from twisted.internet.interfaces import IAddress, IDelayedCall, IHandshakeListener, IReactorTime
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from sims import frames, inner, specs, tls
from sims.crypto.hop import Hop
from sims.crypto.identity import Identity
from sims.crypto.primitives import ModernEntropy, SystemEntropy
from sims.errors import Code, LocalError, PeerError, malformed
from sims.server.limits import STALL_TIMEOUT
from sims.server.modern_handshake import Handshake
from sims.server.rates import Addresses
from sims.server.registration import Admitted
from sims.server.turns import Turns, described, guarded
from sims.specs import ModernSpec
from sims.transport import FrameReceiver

#: How often the server looks whether keys have become too old, seconds.
ROUNDS = 30.0
#: So many bytes of a frame beside its box are free: the names of its fields, and a few more.
SPARE = 1024
#: Characters of the log on why a connection was closed.
_MAX_REASON = 200


class State(Enum):
    """Where a connection is."""

    SECURING = auto()  # waits for TLS
    GREETING = auto()  # waits for connect 1
    PROVING = auto()  # waits for connect 3
    ADMITTING = auto()  # waits for the store; the client has nothing to say before it has heard
    OPEN = auto()  # boxes only
    CLOSED = auto()


@implementer(IHandshakeListener)
class ModernConnection(FrameReceiver):
    """One client."""

    log = Logger()

    def __init__(self, factory: ModernServerFactory, address: str, *, secured: bool) -> None:
        super().__init__(factory.clock)
        self.state = State.SECURING if secured else State.GREETING
        self.id = ""
        self._address = address
        self._factory = factory
        self._relay = factory.relay
        self.MAX_LENGTH = int(factory.relay.limits.frame.before)
        self.frame_timeout = factory.relay.limits.handshake.frame
        self._handshake: Handshake | None = None
        self._hop: Hop | None = None
        self._failed = True  # until it is through, or the server itself ends it
        self._deadline: IDelayedCall | None = None
        self._resume: IDelayedCall | None = None
        self._unsaid: list[bytes] = []
        self._unsaid_size = 0
        self._behind = 0  # bytes written since the socket was last behind

    # --- the connection ---

    def connectionMade(self) -> None:
        super().connectionMade()
        self._factory.connections.add(self)
        whole = self._relay.limits.handshake.whole
        if whole != inf:
            self._deadline = self.clock.callLater(whole, self._too_slow)
        if self.state is State.GREETING:
            self._begin(b"")

    def handshakeCompleted(self) -> None:  # noqa: N802
        """TLS is there."""
        if self.state is not State.SECURING:
            return
        try:
            self._begin(tls.binding(self.transport, self._factory.groups))
        except PeerError as error:
            self._refuse(error)

    def connectionLost(self, reason: Failure | None = None) -> None:
        super().connectionLost(reason)
        self._leave()
        self._factory.lost(self, self._address, failed=self._failed)

    def frame_received(self, frame: bytes) -> None:
        try:
            found = frames.decode(frame)
            if self.state is State.OPEN and isinstance(found, frames.Box):
                self._take(found, len(frame))
            else:
                self._frame(frame, found)
        except PeerError as error:
            self._refuse(error)
        except Exception as error:
            self.broken(error)  # the reactor would quote it

    def frame_too_long(self) -> None:
        self._refuse(PeerError(Code.TOO_LARGE, f"a frame of more than {self.MAX_LENGTH} bytes"))

    def frame_too_slow(self) -> None:
        self._refuse(PeerError(Code.UNAVAILABLE, "a frame was begun and not ended in time"))

    # --- the handshake ---

    def _begin(self, binding: bytes) -> None:
        factory = self._factory
        self._handshake = Handshake(factory.identity, factory.specs, binding=binding, entropy=factory.entropy)
        self.state = State.GREETING

    def _frame(self, raw: bytes, frame: frames.Frame) -> None:
        handshake = self._handshake
        if self.state is State.GREETING and handshake is not None:
            answer = handshake.answer(raw, frame)
            self.state = State.PROVING
            self._say(answer)
        elif self.state is State.PROVING and handshake is not None:
            claim = handshake.accept(frame)
            self.state = State.ADMITTING
            self.id = claim.id
            self._relay.admit(claim, guarded(self._admitted, self.broken))
        else:
            raise malformed(f"{type(frame).__name__} in state {self.state.name}")

    def _admitted(self, result: Admitted | Code) -> None:
        handshake = self._handshake
        if self.state is not State.ADMITTING or handshake is None:
            return  # it went away meanwhile
        self._cancel_deadline()
        self._handshake = None
        if isinstance(result, Code):
            self._say(handshake.refuse(result))
            self._end(f"refused: {result}")
            return
        factory = self._factory
        welcome, self._hop = handshake.welcome(result, factory.told, time=int(factory.wall()), now=factory.seconds())
        self._say(welcome)
        self.state = State.OPEN
        self._failed = False
        self.MAX_LENGTH = int(self._relay.limits.frame.after)
        self._note("client {id} connected from {address}")
        self._relay.join(self)

    # --- the hop ---

    def _take(self, box: frames.Box, size: int) -> None:
        """Take a box that came in a frame of so many bytes."""
        hop = self._hop
        if hop is None:
            raise malformed("a box, and no hop")
        try:
            plaintext, reply = hop.open(box.n, box.ciphertext, self._factory.seconds(), self._factory.entropy)
        except PeerError as error:
            if error.code is Code.REKEY_REQUIRED:
                self.close(error.code)
                return
            self._hop = None  # it is dead, and says nothing any more
            raise
        if reply is not None:
            self._say(frames.encode_box(*reply))
        # A step of a rekey costs as a message does.
        pause = self._relay.charge(self, 1) if plaintext is None else self._relay.receive(self, plaintext)
        if size - len(box.ciphertext) * 4 // 3 > SPARE:
            pause = max(pause, self._relay.charge(self, size // 4096))  # much of the frame is something else
        if self._unsaid_size >= self._relay.limits.unacknowledged.unsent:
            self.push()  # so that who asks for much in one breath is not read on before he takes it
        if pause and self.state is State.OPEN:
            self.hold("rate")
            if self._resume is None:
                self._resume = self.clock.callLater(pause, self._resumed)

    def _resumed(self) -> None:
        pause = self._relay.pause
        self._resume = self.clock.callLater(pause, self._resumed) if pause else None
        if not pause:
            self.release("rate")

    def check_keys(self, now: float) -> None:
        """Close a client that uses its keys for too long, and says nothing that would show it."""
        if self.state is State.OPEN and self._hop is not None and self._hop.overdue(now):
            self.close(Code.REKEY_REQUIRED)

    # --- what the relay asks of a member ---

    @property
    def unsent(self) -> int:
        """About how many bytes have not left this process."""
        return self._behind + self._unsaid_size

    def deliver(self, message: bytes) -> None:
        """Seal and write an inner message; nothing once it is closed."""
        if self._hop is None or self.finished:
            return
        try:
            box = self._hop.seal(message)
        except LocalError as error:
            # Whoever caused it is somebody else, whose turn must not end with it.
            self.log.error("a message could not be sealed: {code}", code=error.code)
            return
        except Exception as error:
            # Not within their turn: the relay is in the middle of something.
            self.clock.callLater(0, self.broken, error)
            return
        self._say(frames.encode_box(*box))

    def broken(self, error: Exception) -> None:
        """Close, for something that nobody has thought of; nothing once it is closed."""
        if self.state is State.CLOSED:
            return
        self._factory.failed(error)
        self._leave()
        self.abort()

    def close(self, code: Code | None = None) -> None:
        """Tell it why, if there is something to tell, let it read what it was sent, and close."""
        if self.state is State.CLOSED:
            return
        self._failed = False
        if code is not None:
            self._tell(code)
        self._end(str(code or "the end"))

    def _tell(self, code: Code) -> None:
        self.deliver(inner.encode(inner.Error(data=inner.ErrorData(code=code.value))))

    # --- writing ---

    def _say(self, frame: bytes) -> None:
        """Write a frame, together with others that go out in the same turn of the reactor."""
        if self._finished:
            return
        if not self._unsaid:
            self._factory.turns.unsaid.add(self)
            self._factory.turns.wake()
        self._unsaid.append(frame)
        self._unsaid_size += len(frame) + len(frames.TERMINATOR)

    def push(self) -> None:
        """Write what was said."""
        self._factory.turns.unsaid.discard(self)
        if not self._unsaid:
            return
        said, self._unsaid = self._unsaid, []
        size, self._unsaid_size = self._unsaid_size, 0
        self.send_frame(frames.TERMINATOR.join(said))
        if self.write_blocked:
            self._behind += size
        elif size >= self._relay.limits.unacknowledged.unsent:
            self._relay.drained(self)

    def write_side_changed(self) -> None:
        """The socket is behind, or has caught up."""
        if self.state is not State.OPEN:
            return
        if self.write_blocked:
            # Whatever it sends may be answered: it waits for its own reading.
            self.hold("writing")
            if self._deadline is None:
                self._deadline = self.clock.callLater(STALL_TIMEOUT, self._stalled)
        else:
            self._behind = 0
            self._cancel_deadline()
            self.release("writing")
            self._relay.drained(self)

    # --- the end ---

    def _too_slow(self) -> None:
        self._deadline = None
        self._refuse(PeerError(Code.UNAVAILABLE, "the handshake took too long"))

    def _stalled(self) -> None:
        self._deadline = None
        self._note("client {id} takes nothing any more: closed")
        self._leave()
        self.abort()

    def _refuse(self, error: PeerError) -> None:
        """Close; say why, unless a box has not verified, or there is nothing yet to say it in."""
        if self.state is State.CLOSED:
            return
        if self.state is State.OPEN:
            self._tell(error.code)
        elif self.state is not State.SECURING and error.code is not Code.NOT_AUTHENTICATED:
            self._say(frames.encode_error(error.code))
        self._end(f"{error.code}: {error.text}"[:_MAX_REASON])

    def _end(self, why: str) -> None:
        who = self._address if self._factory.log_connections else "a connection"
        self.log.info("closed {who}: {why}", who=who, why=why)
        self.push()
        self._leave()
        if self.write_blocked:
            self.abort()
        else:
            self.finish()

    def _note(self, what: str) -> None:
        """For the log, if it is to say who is here when."""
        if self._factory.log_connections:
            self.log.info(what, id=self.id, address=self._address)

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _leave(self) -> None:
        self._cancel_deadline()
        if self._resume is not None:
            self._resume.cancel()
            self._resume = None
        was, self.state = self.state, State.CLOSED
        self._handshake = self._hop = None
        self._unsaid.clear()
        self._unsaid_size = 0
        if was is State.OPEN:
            self._relay.leave(self)
            self._note("client {id} left")


class ModernServerFactory(Factory[ModernConnection]):
    """Makes a :class:`ModernConnection` for each client of one relay.

    :param turns: what all factories of one relay have in common.
    :param secured: behind TLS, so that each waits for its handshake.
    :param wall: Unix seconds.
    :param log_connections: whether the log says who connects from where, who leaves, and whose connection is closed.
    :ivar connections: those that are open.
    :ivar told: the limits that a client must know.
    """

    noisy = False

    def __init__(
        self,
        turns: Turns,
        identity: Identity,
        addresses: Addresses,
        *,
        clock: IReactorTime,
        wall: Callable[[], float],
        secured: bool,
        groups: Sequence[str] = (tls.GROUP,),
        entropy: ModernEntropy | None = None,
        allowed: Sequence[ModernSpec] = specs.MODERN,
        log_connections: bool = False,
    ) -> None:
        self.turns = turns
        self.relay = turns.relay
        self.told = turns.relay.limits.told()
        self.identity = identity
        self.clock = clock
        self.seconds = turns.seconds
        self.wall = wall
        self.groups = groups
        self.entropy = entropy or SystemEntropy()
        self.specs = allowed
        self.log_connections = log_connections
        self.connections: set[ModernConnection] = set()
        self._addresses = addresses
        self._secured = secured
        turns.failed = self.failed

    def buildProtocol(self, addr: IAddress | None) -> ModernConnection | None:
        address = str(getattr(addr, "host", addr))
        # Whether somebody has an account is for the store to say: while it cannot, nobody begins to prove anything.
        if self.relay.pause or not self._addresses.admit(address):
            return None
        connection = ModernConnection(self, address, secured=self._secured)
        connection.factory = self
        return connection

    def lost(self, connection: ModernConnection, address: str, *, failed: bool) -> None:
        """A connection is gone."""
        self.connections.discard(connection)
        self.turns.unsaid.discard(connection)
        self._addresses.left(address)
        if failed:
            self._addresses.failed(address)

    def failed(self, error: Exception) -> None:
        """Something has gone wrong, with one connection or in a turn of all: say where that was."""
        ModernConnection.log.error("something has gone wrong: {what}", what=described(error))

    def check_keys(self) -> None:
        """To be called every :data:`ROUNDS` seconds."""
        now = self.seconds()
        for connection in list(self.connections):
            connection.check_keys(now)
