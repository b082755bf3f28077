"""What drives a messenger on Twisted: dialling and dialling again, frames in and out, Deferreds that wait for events.

A messenger decides, a :class:`Driver` moves bytes: :class:`~sims.client.connection.SeedClient` and
:class:`~sims.client.modern_connection.Client` are drivers with the methods that programs await.
"""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Callable
from typing import ClassVar, Generic, Protocol, TypeVar, cast

import msgspec
from twisted.application.internet import backoffPolicy
from twisted.internet.defer import CancelledError, Deferred, fail, maybeDeferred, succeed
from twisted.internet.error import ConnectError
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IProtocol,
    IProtocolFactory,
    IReactorTime,
)
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from twisted.python.failure import Failure

from sims.client import events
from sims.client.events import Delivery, Event, Ready
from sims.errors import Code, LocalError, PeerError, SimsError, UnavailableError
from sims.transport import LINGER, FrameReceiver

T = TypeVar("T")

#: Seconds: for the handshake with the server; between attempts to connect, at first and at most.
HANDSHAKE_TIMEOUT = 10.0
RETRY_FIRST = 0.5
RETRY_MOST = 60.0
#: Messages that may wait for the server to take them.
MAX_WAITING = 8192

# Refs of this module's own, never shown: the Deferreds that wait for an event.
_OWN_REF = f"\0{secrets.token_hex(8)}-"


class Messenger(Protocol):
    """What decides at the user's end, without a reactor. Frames and commands in, frames and events out."""

    @property
    def frames(self) -> deque[bytes]:
        """To be written, without terminators."""

    @property
    def events(self) -> deque[Event]:
        """What happened, in order."""

    @property
    def ready(self) -> Ready | None:
        """Said when the handshake with the server is through; None while it is not."""

    @property
    def waiting(self) -> int:
        """How many messages wait for the server to take them."""

    def connected(self, binding: bytes) -> None:
        """A new connection to the server is there; ``binding`` ties the handshake to it (TLS exporter)."""

    def lost(self) -> None:
        """The connection is gone."""

    def receive(self, frame: bytes) -> None:
        """One frame from the server.

        :raises PeerError: the connection is to be closed.
        """

    def slowed(self, congested: bool) -> None:
        """The way to the server is behind, or has caught up."""

    def tick(self) -> float | None:
        """Do what is due; gives when to be called again."""

    def settle(self) -> None:
        """Make lasting what has changed: called before anything that follows from it leaves.

        :raises LocalError: it cannot be.
        """


class Connection(FrameReceiver):
    """One connection to the server; feeds the messenger and writes what it has to say."""

    def __init__(self, client: Driver, clock: IReactorTime) -> None:
        super().__init__(clock)
        self.MAX_LENGTH = client.max_frame
        self._client = client
        self._settled = False
        self._deadline: IDelayedCall | None = None

    def connectionMade(self) -> None:
        super().connectionMade()
        self._deadline = self.clock.callLater(HANDSHAKE_TIMEOUT, self._too_slow)
        self._client.connection_opened(self)
        self.opened()

    def opened(self) -> None:
        """Bytes can be exchanged; over TLS that is later, see :mod:`sims.client.modern_connection`."""
        self._client.connection_made(self, b"")

    def connectionLost(self, reason: Failure | None = None) -> None:
        super().connectionLost(reason)
        self._settle(UnavailableError(self._client.closed_early))
        self._client.connection_lost(self)

    def frame_received(self, frame: bytes) -> None:
        self._client.frame_received(self, frame)

    def frame_too_long(self) -> None:
        self.fail(PeerError(Code.TOO_LARGE, f"the server sent a frame of more than {self.MAX_LENGTH} bytes"))

    def frame_too_slow(self) -> None:
        self.fail(UnavailableError("the server began a frame and did not end it"))

    def write_side_changed(self) -> None:
        self._client.write_side_changed(self)

    def is_ready(self) -> None:
        """The handshake is through."""
        self._settle(None)

    def fail(self, error: SimsError) -> None:
        """Close, because of something that the server did."""
        if not self._settle(error):
            self._client.report(error)
        self.abort()

    def _too_slow(self) -> None:
        self._deadline = None
        self.fail(UnavailableError(f"the handshake with the server took more than {HANDSHAKE_TIMEOUT:.0f} seconds"))

    def _settle(self, error: SimsError | None) -> bool:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        settled, self._settled = self._settled, True
        if not settled:
            self._client.handshake_over(error)
        return not settled


class ConnectionFactory(Factory[Connection]):
    """Makes the :class:`Connection` of a client, one after the other."""

    noisy = False

    def __init__(self, client: Driver, clock: IReactorTime) -> None:
        self._client = client
        self._clock = clock

    def buildProtocol(self, addr: IAddress | None) -> Connection:
        connection = self._client.connection_class(self._client, self._clock)
        connection.factory = self
        return connection


class _Waiter(Generic[T]):
    """A Deferred that waits for the first event of a ref that ``wanted`` makes something of."""

    def __init__(self, wanted: Callable[[events.Event], T | None], cancelled: Callable[[], None]) -> None:
        self.deferred: Deferred[T] = Deferred(lambda _: cancelled())
        self._wanted = wanted

    def outcome(self, event: events.Event) -> T | SimsError | None:
        """What an event means for it: the result, the end of the hope for one, or nothing."""
        if isinstance(event, events.Problem):
            return LocalError(event.code, event.text)
        if isinstance(event, events.State) and event.state is Delivery.FAILED:
            return LocalError(event.code or Code.INTERNAL, "the message was not delivered")
        return self._wanted(event)


class Driver:
    """Keeps a messenger connected, while that is wanted.

    :cvar max_frame: bytes of the longest frame; ``closed_early``: what a connection that ends in its handshake means.
    """

    log = Logger()
    max_frame: ClassVar[int]
    closed_early: ClassVar[str] = "the server closed the connection during the handshake"
    connection_class: type[Connection] = Connection
    #: Refusals after which it makes no sense to dial again.
    permanent: ClassVar[frozenset[Code]] = frozenset()

    #: Called with each event, in order.
    on_event: Callable[[events.Event], None]

    def __init__(self, messenger: Messenger, clock: IReactorTime, on_event: Callable[[events.Event], None]) -> None:
        self._messenger = messenger
        self._clock = clock
        self.on_event = on_event
        self._factory = cast("IProtocolFactory", ConnectionFactory(self, clock))
        self._back_off = backoffPolicy(RETRY_FIRST, RETRY_MOST)
        self._failures = 0  # in a row
        self._wanted = False  # to be connected
        self._attempt: Deferred[IProtocol] | None = None
        self._retry: IDelayedCall | None = None
        self._connection: Connection | None = None
        self._connects: list[Deferred[events.Ready]] = []
        self._closes: list[Deferred[None]] = []
        self._waiters: dict[str, _Waiter[object]] = {}
        self._next_ref = 0
        self._pumping = False
        self._tick: IDelayedCall | None = None
        self._reported: str | None = None
        self._reading_held = False
        self._closed = False

    def dial(self) -> Deferred[IProtocol]:
        """Begin to connect; the protocol is to be made by :attr:`factory`."""
        raise NotImplementedError

    @property
    def factory(self) -> IProtocolFactory:
        """Makes the connections."""
        return self._factory

    @property
    def gave_up(self) -> bool:
        """Whether a connection was wanted, and is no more: the server refuses it for good."""
        return not self._wanted and not self._closed

    # --- what programs await ------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Connect, and go on trying; ``on_event`` hears of it."""
        self._closed = False
        self._wanted = True
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        if self._connection is None and self._attempt is None:
            self._dial()

    def connect(self) -> Deferred[events.Ready]:
        """Connect; fires when the handshake is through. From then on a lost connection is made again.

        Fails with the :class:`~sims.errors.SimsError` of the first attempt, and then tries no more until called again.
        """
        ready = self._messenger.ready
        if self._wanted and ready is not None:
            return succeed(ready)
        waiting: Deferred[events.Ready] = Deferred(self._forget_connect)
        self._connects.append(waiting)
        self.start()
        return waiting

    def close(self, linger: float = LINGER) -> Deferred[None]:
        """Leave: what was written is still sent; whoever waits for something hears ``unavailable``.

        :param linger: seconds that the server has to take it.
        """
        self._closed = True
        self._wanted = False
        for call in (self._retry, self._tick):
            if call is not None:
                call.cancel()
        self._retry = self._tick = None
        if self._connection is not None:
            self._connection.finish(linger)
        if self._attempt is not None:
            self._attempt.cancel()
        connects, self._connects = self._connects, []
        waiters, self._waiters = self._waiters, {}
        for connect in connects:
            connect.errback(UnavailableError("the client was closed"))
        for waiter in waiters.values():
            waiter.deferred.errback(UnavailableError("the client was closed"))
        done: Deferred[None] = Deferred()
        self._closes.append(done)
        self._see_whether_closed()
        return done

    # --- what the console needs besides -------------------------------------------------------------------------------

    def run(self, command: Callable[[], object]) -> None:
        """Run a command of the messenger, and see its consequences through.

        :raises SimsError: what the command raises.
        """
        try:
            command()
        finally:
            self.pump()

    def hold_reading(self) -> None:
        """Take nothing more from the server: whoever takes our events is behind."""
        self._reading_held = True
        if self._connection is not None:
            self._connection.hold()

    def release_reading(self) -> None:
        """Go on taking."""
        self._reading_held = False
        if self._connection is not None:
            self._connection.release()

    # --- what the connection tells ------------------------------------------------------------------------------------

    def connection_opened(self, connection: Connection) -> None:
        """There is a new connection; over TLS it is not ready for bytes."""
        self._connection = connection

    def connection_made(self, connection: Connection, binding: bytes) -> None:
        """Bytes can be exchanged on it."""
        if not self._wanted:
            connection.abort()
            return
        self._messenger.connected(binding)
        if self._reading_held:
            connection.hold()
        self.pump()

    def handshake_over(self, error: SimsError | None) -> None:
        """The handshake with the server is through, or has failed."""
        ready = self._messenger.ready
        if error is not None:
            self._attempt_failed(error)
        elif ready is not None:
            self._failures = 0
            waiting, self._connects = self._connects, []
            for deferred in waiting:
                deferred.callback(ready)

    def connection_lost(self, connection: Connection) -> None:
        """It is gone."""
        if self._connection is connection:
            self._connection = None
            self._messenger.lost()
            self.pump()
            self._try_again()

    def frame_received(self, connection: Connection, frame: bytes) -> None:
        """A frame from the server."""
        try:
            self._messenger.receive(frame)
        except PeerError as error:
            connection.fail(error)
        if self._messenger.waiting > MAX_WAITING:
            connection.fail(PeerError(Code.RATE_LIMITED, "the server causes more than it takes"))
        if self._messenger.ready is not None:
            connection.is_ready()
        self.pump()

    def write_side_changed(self, connection: Connection) -> None:
        """The socket is behind, or has caught up."""
        self._messenger.slowed(connection.write_blocked)
        if not connection.write_blocked:
            self.pump()

    def report(self, error: SimsError) -> None:
        """Something is wrong with the server or the way to it: say so, once for each new reason."""
        if self._reported != error.text:
            self._reported = error.text
            self._messenger.events.append(events.Problem(code=error.code, text=error.text))
            self.pump()

    def pump(self) -> None:
        """Write the frames and tell the events that have come up."""
        if self._pumping:
            return  # an event's receiver gave a command: the loop below goes on with it
        self._pumping = True
        when: float | None = None
        frames, happened = self._messenger.frames, self._messenger.events
        try:
            while True:
                if not happened:
                    when = self._messenger.tick()
                self._messenger.settle()
                while frames and self._connection is not None:
                    self._connection.send_frame(frames.popleft())
                frames.clear()
                if not happened:
                    break
                self._tell(happened.popleft())
        except LocalError as error:
            self._unsettled(error)
            return
        finally:
            self._pumping = False
        self._schedule_tick(when)

    # --- within -------------------------------------------------------------------------------------------------------

    def _dial(self) -> None:
        self._retry = None
        self._attempt = maybeDeferred(self.dial)
        self._attempt.addCallbacks(self._dialled, self._not_dialled)

    def _dialled(self, _: object) -> None:
        # The connection has made itself known; it may even be lost already.
        self._attempt = None
        self._try_again()

    def _not_dialled(self, failure: Failure) -> None:
        self._attempt = None
        text = failure.value.__doc__ if isinstance(failure.value, ConnectError) else type(failure.value).__name__
        reason = (text or type(failure.value).__name__).strip().splitlines()[0].rstrip(".")
        self._attempt_failed(UnavailableError(f"cannot connect to the server: {reason}"))
        self._try_again()

    def _attempt_failed(self, error: SimsError) -> None:
        if not self._wanted:
            return
        waiting, self._connects = self._connects, []
        self._wanted = not waiting and error.code not in self.permanent
        self.report(error)
        for deferred in waiting:
            deferred.errback(error)

    def _try_again(self) -> None:
        """Dial again after a while, if nothing is there and something is wanted."""
        idle = self._connection is None and self._attempt is None and self._retry is None
        if self._wanted and idle:
            self._failures += 1
            self._retry = self._clock.callLater(self._back_off(self._failures), self._dial)
        self._see_whether_closed()

    def _see_whether_closed(self) -> None:
        if self._connection is None and self._attempt is None:
            closes, self._closes = self._closes, []
            for deferred in closes:
                deferred.callback(None)

    def _unsettled(self, error: LocalError) -> None:
        """What has happened cannot be made lasting, so nothing that follows from it may leave. The server will say all
        again, to whoever comes with what was made lasting before."""
        self._messenger.frames.clear()
        self._messenger.events.clear()
        self._wanted = False
        if self._connection is not None:
            self._connection.abort()
        self.on_event(events.Problem(code=error.code, text=error.text))

    def _forget_connect(self, waiting: Deferred[events.Ready]) -> None:
        if waiting in self._connects:
            self._connects.remove(waiting)

    def _wait(
        self, wanted: Callable[[events.Event], T | None], timeout: float | None, command: Callable[[str], object]
    ) -> Deferred[T]:
        if self._closed:
            return fail(UnavailableError("the client was closed"))
        self._next_ref += 1
        ref = f"{_OWN_REF}{self._next_ref}"

        def cancelled() -> None:
            self._waiters.pop(ref, None)

        waiter = _Waiter(wanted, cancelled)
        self._waiters[ref] = cast("_Waiter[object]", waiter)
        if timeout is not None:
            waiter.deferred.addTimeout(timeout, self._clock, _timed_out)
        try:
            self.run(lambda: command(ref))
        except SimsError as error:
            self._waiters.pop(ref, None)
            waiter.deferred.errback(error)
        return waiter.deferred

    def _tell(self, event: events.Event) -> None:
        if isinstance(event, events.Ready):
            self._reported = None
        if isinstance(event.ref, str) and event.ref.startswith(_OWN_REF):
            ref, event = event.ref, msgspec.structs.replace(event, ref=None)
            waiter = self._waiters.get(ref)
            outcome = waiter.outcome(event) if waiter is not None else None
            if waiter is not None and outcome is not None:
                # It goes first: whoever waits may do anything now, and close the client, too.
                del self._waiters[ref]
                if isinstance(outcome, SimsError):
                    waiter.deferred.errback(outcome)
                else:
                    waiter.deferred.callback(outcome)
        if self._closed:
            return
        try:
            self.on_event(event)
        except Exception:
            # The program's own mistake must not cost it the connection.
            self.log.failure("on_event failed with {event}", event=type(event).__name__)

    def _schedule_tick(self, when: float | None) -> None:
        if self._tick is not None:
            self._tick.cancel()
            self._tick = None
        if when is not None and not self._closed:
            self._tick = self._clock.callLater(max(0.0, when - self._clock.seconds()), self._ticked)

    def _ticked(self) -> None:
        self._tick = None
        self.pump()


def _timed_out(result: object, timeout: float) -> object:
    # What addTimeout makes of its own cancellation becomes an error of ours.
    if isinstance(result, Failure) and result.check(CancelledError):
        raise UnavailableError(f"nothing came within {timeout:g} seconds")
    return result
