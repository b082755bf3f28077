"""What drives a messenger on Twisted: dialling and dialling again, frames in and out, Deferreds that wait for events.

A messenger decides, a :class:`Driver` moves bytes: :class:`~sims.client.connection.SeedClient` and
:class:`~sims.client.modern_connection.Client` are drivers with the methods that programs await.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import ClassVar, TypeVar, cast

from twisted.application.internet import backoffPolicy
from twisted.internet.defer import Deferred, fail, maybeDeferred, succeed
from twisted.internet.error import ConnectError
from twisted.internet.interfaces import IDelayedCall, IProtocol, IProtocolFactory, IReactorTime
from twisted.python.failure import Failure

from sims.client import events
from sims.client.driven import MOST_SHOWN, Messenger
from sims.client.driver_connection import Connection, ConnectionFactory
from sims.client.driver_shown import OnEvent, Showing
from sims.client.waiters import Waiters
from sims.errors import Code, LocalError, PeerError, SimsError, UnavailableError
from sims.transport import LINGER

T = TypeVar("T")

#: Seconds between attempts to connect, at first and at most; likewise between attempts to make lasting what is not.
RETRY_FIRST = 0.5
RETRY_MOST = 60.0
SETTLE_FIRST = 1.0
SETTLE_MOST = 30.0
#: Messages that may wait for the server to take them.
MAX_WAITING = 8192


class Driver:
    """Keeps a messenger connected, while that is wanted.

    :cvar max_frame: bytes of the longest frame; ``closed_early``: what a connection that ends in its handshake means.
    :ivar showing: which events the user has.
    """

    max_frame: ClassVar[int]
    closed_early: ClassVar[str] = "the server closed the connection during the handshake"
    connection_class: type[Connection] = Connection
    #: Refusals after which it makes no sense to dial again: of the handshake, and later.
    permanent: ClassVar[frozenset[Code]] = frozenset()
    permanent_later: ClassVar[frozenset[Code]] = frozenset()

    #: Called with each event, in order.
    on_event: OnEvent

    def __init__(self, messenger: Messenger, clock: IReactorTime, on_event: OnEvent) -> None:
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
        self._waiters = Waiters()
        self._pumping = self._gathering = False
        self._tick: IDelayedCall | None = None
        self._reported: str | None = None
        self._holds: set[str] = set()  # why nothing is read
        self._unsettled: IDelayedCall | None = None  # when it is tried again to make lasting what is not
        self._unsettled_times = 0
        self._closed = False
        self.showing = Showing(clock, self._has)

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
        self.flush()
        self._closed = True
        self._wanted = False
        for call in (self._retry, self._tick, self._unsettled):
            if call is not None:
                call.cancel()
        self._retry = self._tick = self._unsettled = None
        if self._connection is not None:
            self._connection.finish(linger)
        if self._attempt is not None:
            self._attempt.cancel()
        connects, self._connects = self._connects, []
        for connect in connects:
            connect.errback(UnavailableError("the client was closed"))
        self._waiters.fail(UnavailableError("the client was closed"))
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
        self._hold("events")

    def release_reading(self) -> None:
        """Go on taking."""
        self._unhold("events")

    def _hold(self, reason: str) -> None:
        self._holds.add(reason)
        if self._connection is not None:
            self._connection.hold()

    def _unhold(self, reason: str) -> None:
        self._holds.discard(reason)
        if self._connection is not None and not self._holds:
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
        if self._holds:
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
        except SimsError as error:
            if connection.was_ready and error.code in self.permanent_later:
                self._give_up(error)
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

    @contextmanager
    def together(self) -> Iterator[None]:
        """Whatever happens within is made lasting, and leaves, at its end: all of it at once, which is quicker."""
        if self._gathering or self._pumping:
            yield
            return
        self._gathering = True
        try:
            yield
        finally:
            self._gathering = False
            self.pump()

    def flush(self) -> None:
        """Within :meth:`together`, or while an event is told: see what has happened until now through."""
        if self._pumping:
            with suppress(LocalError):  # the pump will tell it
                self._write()
        gathering, self._gathering = self._gathering, False
        self.pump()
        self._gathering = gathering

    def pump(self) -> None:
        """Write the frames and tell the events that have come up."""
        if self._gathering or self._pumping:
            return  # an event's receiver gave a command, which the loop below goes on with; or there is more to come
        self._pumping = True
        when: float | None = None
        happened = self._messenger.events
        try:
            while True:
                if not happened:
                    when = self._messenger.tick()
                self._write()
                if not happened:
                    break
                # Those that are lasting by now, and as many as may be shown once more after a crash. What their
                # receivers do goes together.
                for _ in range(min(len(happened), MOST_SHOWN)):
                    self._tell(happened.popleft())
        except LocalError as error:
            self._not_settled(error)
            return
        finally:
            self._pumping = False
        self._settled()
        self._schedule_tick(when)

    def _write(self) -> None:
        """Make lasting what has happened, and write what follows from it."""
        self._messenger.settle()
        while (frames := self._messenger.frames) and self._connection is not None:
            self._connection.send_frame(frames.popleft())
        frames.clear()

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

    def may_go_on(self, error: SimsError) -> bool:
        """Whether the next attempt may well go better than the one that failed with this: nobody is told of it."""
        return False

    def _attempt_failed(self, error: SimsError) -> None:
        if not self._wanted or self.may_go_on(error):
            return
        waiting, self._connects = self._connects, []
        if waiting or error.code in self.permanent:
            self._give_up(error)
        self.report(error)
        for deferred in waiting:
            deferred.errback(error)

    def _give_up(self, error: SimsError) -> None:
        """Dial no more, until somebody says so."""
        self._wanted = False
        if error.code in self.permanent or error.code in self.permanent_later:
            self._waiters.fail(error)

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

    def _not_settled(self, error: LocalError) -> None:
        """What has happened cannot be made lasting: nothing that follows from it leaves, is shown, or is added to by
        the server, until it can."""
        self._hold("store")
        if self._unsettled is None and not self._closed:
            delay = min(SETTLE_FIRST * 2**self._unsettled_times, SETTLE_MOST)
            self._unsettled_times += 1
            self._unsettled = self._clock.callLater(delay, self._settle_again)
            if self._unsettled_times == 1:
                self.showing.give(self.on_event, events.Problem(code=error.code, text=error.text))

    def _settle_again(self) -> None:
        self._unsettled = None
        self.pump()

    def _settled(self) -> None:
        if self._unsettled_times:
            self._unsettled_times = 0
            if self._unsettled is not None:
                self._unsettled.cancel()
                self._unsettled = None
            self._unhold("store")

    def _forget_connect(self, waiting: Deferred[events.Ready]) -> None:
        if waiting in self._connects:
            self._connects.remove(waiting)

    def _wait(
        self, wanted: Callable[[events.Event], T | None], timeout: float | None, command: Callable[[str], object]
    ) -> Deferred[T]:
        if self._closed:
            return fail(UnavailableError("the client was closed"))
        return self._waiters.add(wanted, lambda ref: self.run(lambda: command(ref)), timeout=timeout, clock=self._clock)

    def told(self, event: events.Event) -> None:
        """The user has an event."""

    def _tell(self, event: events.Event) -> None:
        if isinstance(event, events.Ready):
            self._reported = None
        event = self._waiters.tell(event)
        if not self._closed:
            self.showing.give(self.on_event, event)

    def _has(self, event: events.Event) -> None:
        self.told(event)
        if not self._pumping and (self._tick is None or self._tick.getTime() > self._clock.seconds()):
            self._schedule_tick(self._clock.seconds())  # once for all that were shown together

    def _schedule_tick(self, when: float | None) -> None:
        if self._tick is not None:
            self._tick.cancel()
            self._tick = None
        if when is not None and not self._closed:
            self._tick = self._clock.callLater(max(0.0, when - self._clock.seconds()), self._ticked)

    def _ticked(self) -> None:
        self._tick = None
        self.pump()
