"""The user's end on Twisted: connecting, reconnecting, and Deferreds for what takes time.

A program that embeds SIMS makes a :class:`SeedClient` and awaits its methods. Everything that happens besides is given
to ``on_event``.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar, cast

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
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from twisted.python.failure import Failure

from sims import specs
from sims.client import events
from sims.client.events import Contact, Delivery
from sims.client.seed import SeedMessenger
from sims.client.seed_hop import HopState
from sims.crypto.primitives import Entropy
from sims.errors import Code, LocalError, PeerError, SimsError, UnavailableError
from sims.specs import CipherSpec
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


class SeedConnection(FrameReceiver):
    """One connection to the server; feeds the messenger and writes what it has to say."""

    def __init__(self, client: SeedClient, clock: IReactorTime) -> None:
        super().__init__(clock)
        self._client = client
        self._settled = False
        self._deadline: IDelayedCall | None = None

    def connectionMade(self) -> None:
        super().connectionMade()
        self._deadline = self.clock.callLater(HANDSHAKE_TIMEOUT, self._too_slow)
        self._client.connection_made(self)

    def connectionLost(self, reason: Failure | None = None) -> None:
        super().connectionLost(reason)
        self._settle(UnavailableError("the server closed the connection during the handshake; is the id in use?"))
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


class SeedClientFactory(Factory[SeedConnection]):
    """Makes the :class:`SeedConnection` of a client, one after the other."""

    noisy = False

    def __init__(self, client: SeedClient, clock: IReactorTime) -> None:
        self._client = client
        self._clock = clock

    def buildProtocol(self, addr: IAddress | None) -> SeedConnection:
        connection = SeedConnection(self._client, self._clock)
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


class SeedClient:
    """A user of a server that speaks the seed's format. Nothing authenticates that server, or anybody on it.

    :param endpoint: where the server is.
    :param name: what others see.
    :param own_id: the number others reach this client by; one connection of an id at a time.
    :param on_event: called with each :class:`~sims.client.events.Event`, in order.
    :param offer: specs to offer, in order of preference; ``allowed``: those to agree to when others offer.
    """

    log = Logger()

    def __init__(
        self,
        endpoint: IStreamClientEndpoint,
        name: str,
        own_id: int,
        *,
        clock: IReactorTime,
        on_event: Callable[[events.Event], None] = lambda _: None,
        offer: Sequence[CipherSpec] = specs.SEED_OFFER,
        allowed: Sequence[CipherSpec] = specs.SEED,
        entropy: Entropy | None = None,
    ) -> None:
        self.messenger = SeedMessenger(name, own_id, clock=clock.seconds, entropy=entropy, offer=offer, allowed=allowed)
        self._clock = clock
        self._on_event = on_event
        self._endpoint = endpoint
        self._factory = cast("IProtocolFactory", SeedClientFactory(self, clock))
        self._back_off = backoffPolicy(RETRY_FIRST, RETRY_MOST)
        self._failures = 0  # in a row
        self._wanted = False  # to be connected
        self._attempt: Deferred[IProtocol] | None = None
        self._retry: IDelayedCall | None = None
        self._connection: SeedConnection | None = None
        self._connects: list[Deferred[events.Ready]] = []
        self._closes: list[Deferred[None]] = []
        self._waiters: dict[str, _Waiter[object]] = {}
        self._next_ref = 0
        self._pumping = False
        self._tick: IDelayedCall | None = None
        self._reported: str | None = None
        self._reading_held = False
        self._closed = False

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
        if self._wanted and self.messenger.hop.spec is not None:
            return succeed(self._ready_event(self.messenger.hop.spec))
        waiting: Deferred[events.Ready] = Deferred(self._forget_connect)
        self._connects.append(waiting)
        self.start()
        return waiting

    def open(self, to: str, timeout: float | None = None) -> Deferred[events.Connected]:
        """Open a conversation with an id or a name; fires when the four phases are through.

        Fails with a :class:`~sims.errors.SimsError`: ``unknown-recipient``, ``no-common-spec``, or ``unavailable`` when
        the peer does not answer or ``timeout`` (seconds, counted from now) is over.
        """

        def wanted(event: events.Event) -> events.Connected | None:
            return event if isinstance(event, events.Connected) else None

        return self._wait(wanted, timeout, lambda ref: self.messenger.connect(to, ref))

    def list(self, timeout: float | None = None) -> Deferred[tuple[Contact, ...]]:
        """Who is connected to the server."""

        def wanted(event: events.Event) -> tuple[Contact, ...] | None:
            return event.clients if isinstance(event, events.Listing) else None

        return self._wait(wanted, timeout, self.messenger.list)

    def send(
        self, to: str, text: str, *, until: Delivery = Delivery.ACCEPTED, timeout: float | None = None
    ) -> Deferred[str]:
        """Send a text; fires with its id when it has come as far as ``until``: accepted by the server, or delivered.

        Fails with a :class:`~sims.errors.SimsError` when it cannot be delivered. Cancelling stops the waiting, not the
        message.
        """

        def wanted(event: events.Event) -> str | None:
            return event.id if isinstance(event, events.State) and event.state is until else None

        return self._wait(wanted, timeout, lambda ref: self.messenger.send(to, text, ref))

    def disconnect(self, to: str, timeout: float | None = None) -> Deferred[events.Disconnected]:
        """Close a conversation, after what was sent to it before."""

        def wanted(event: events.Event) -> events.Disconnected | None:
            return event if isinstance(event, events.Disconnected) else None

        return self._wait(wanted, timeout, lambda ref: self.messenger.disconnect(to, ref))

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

    def act(self, command: Callable[[SeedMessenger], object]) -> None:
        """Run a command of the messenger, and see its consequences through.

        :raises SimsError: what the command raises.
        """
        try:
            command(self.messenger)
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

    def connection_made(self, connection: SeedConnection) -> None:
        """There is a new connection."""
        if not self._wanted:
            connection.abort()
            return
        self._connection = connection
        self.messenger.connected()
        if self._reading_held:
            connection.hold()
        self.pump()

    def handshake_over(self, error: SimsError | None) -> None:
        """The handshake with the server is through, or has failed."""
        spec = self.messenger.hop.spec
        if error is not None:
            self._attempt_failed(error)
        elif spec is not None:
            self._failures = 0
            waiting, self._connects = self._connects, []
            for deferred in waiting:
                deferred.callback(self._ready_event(spec))

    def connection_lost(self, connection: SeedConnection) -> None:
        """It is gone."""
        if self._connection is connection:
            self._connection = None
            self.messenger.lost()
            self.pump()
            self._try_again()

    def frame_received(self, connection: SeedConnection, frame: bytes) -> None:
        """A frame from the server."""
        try:
            self.messenger.receive(frame)
        except PeerError as error:
            connection.fail(error)
        if self.messenger.hop.waiting > MAX_WAITING:
            connection.fail(PeerError(Code.RATE_LIMITED, "the server causes more than it takes"))
        if self.messenger.hop.state is HopState.READY:
            connection.is_ready()
        self.pump()

    def write_side_changed(self, connection: SeedConnection) -> None:
        """The socket is behind, or has caught up."""
        self.messenger.hop.congested = connection.write_blocked
        if not connection.write_blocked:
            self.messenger.flush()
            self.pump()

    def report(self, error: SimsError) -> None:
        """Something is wrong with the server or the way to it: say so, once for each new reason."""
        if self._reported != error.text:
            self._reported = error.text
            self.messenger.events.append(events.Problem(code=error.code, text=error.text))
            self.pump()

    def pump(self) -> None:
        """Write the frames and tell the events that have come up."""
        if self._pumping:
            return  # an event's receiver gave a command: the loop below goes on with it
        self._pumping = True
        try:
            frames, happened = self.messenger.hop.frames, self.messenger.events
            while frames or happened:
                while frames and self._connection is not None:
                    self._connection.send_frame(frames.popleft())
                if happened:
                    self._tell(happened.popleft())
                elif self._connection is None:
                    frames.clear()
        finally:
            self._pumping = False
        self._schedule_tick()

    # --- within -------------------------------------------------------------------------------------------------------

    def _dial(self) -> None:
        self._retry = None
        self._attempt = maybeDeferred(self._endpoint.connect, self._factory)
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
        self._wanted = not waiting
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

    def _forget_connect(self, waiting: Deferred[events.Ready]) -> None:
        if waiting in self._connects:
            self._connects.remove(waiting)

    def _ready_event(self, spec: CipherSpec) -> events.Ready:
        return events.Ready(id=str(self.messenger.id), name=self.messenger.name, spec=spec.name)

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
            self.act(lambda _: command(ref))
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
            self._on_event(event)
        except Exception:
            # The program's own mistake must not cost it the connection.
            self.log.failure("on_event failed with {event}", event=type(event).__name__)

    def _schedule_tick(self) -> None:
        if self._closed:
            return
        if self._tick is not None:
            self._tick.cancel()
            self._tick = None
        when = self.messenger.tick()
        if self.messenger.events or (self.messenger.hop.frames and self._connection is not None):
            self.pump()
        elif when is not None:
            self._tick = self._clock.callLater(max(0.0, when - self._clock.seconds()), self._ticked)

    def _ticked(self) -> None:
        self._tick = None
        self.messenger.tick()
        self.pump()


def _timed_out(result: object, timeout: float) -> object:
    # What addTimeout makes of its own cancellation becomes an error of ours.
    if isinstance(result, Failure) and result.check(CancelledError):
        raise UnavailableError(f"nothing came within {timeout:g} seconds")
    return result
