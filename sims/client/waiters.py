"""Deferreds that wait for an event."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Generic, TypeVar, cast

from msgspec.structs import replace
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from sims.client import events
from sims.client.events import EXPIRED, Delivery
from sims.errors import Code, LocalError, SimsError, UnavailableError

T = TypeVar("T")

# Refs of this module's own, never shown.
_OWN_REF = f"\0{secrets.token_hex(8)}-"


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
            code = Code.UNAVAILABLE if event.code in (None, EXPIRED) else Code(event.code)
            return LocalError(code, "the message was not delivered")
        return self._wanted(event)


class Waiters:
    """All of one client. An event that was caused by what somebody waits for has a ref of ours."""

    def __init__(self) -> None:
        self._waiters: dict[str, _Waiter[object]] = {}
        self._next = 0

    def __len__(self) -> int:
        return len(self._waiters)

    def add(
        self,
        wanted: Callable[[events.Event], T | None],
        command: Callable[[str], object],
        *,
        timeout: float | None,
        clock: IReactorTime,
    ) -> Deferred[T]:
        """Give a command, and wait for the first event of it that ``wanted`` makes something of."""
        self._next += 1
        ref = f"{_OWN_REF}{self._next}"

        def cancelled() -> None:
            self._waiters.pop(ref, None)

        waiter = _Waiter(wanted, cancelled)
        self._waiters[ref] = cast("_Waiter[object]", waiter)
        if timeout is not None:
            waiter.deferred.addTimeout(timeout, clock, _timed_out)
        try:
            command(ref)
        except SimsError as error:
            if self._waiters.pop(ref, None) is not None:
                waiter.deferred.errback(error)
        return waiter.deferred

    def tell(self, event: events.Event) -> events.Event:
        """Tell who waits for it; gives the event as everybody may see it."""
        ref = event.ref
        if not isinstance(ref, str) or not ref.startswith(_OWN_REF):
            return event
        event = replace(event, ref=None)
        waiter = self._waiters.get(ref)
        outcome = waiter.outcome(event) if waiter is not None else None
        if waiter is not None and outcome is not None:
            # It goes first: whoever waits may do anything now, and close the client, too.
            del self._waiters[ref]
            if isinstance(outcome, SimsError):
                waiter.deferred.errback(outcome)
            else:
                waiter.deferred.callback(outcome)
        return event

    def fail(self, error: SimsError) -> None:
        """Nobody needs to wait any more."""
        waiters, self._waiters = self._waiters, {}
        for waiter in waiters.values():
            waiter.deferred.errback(error)


def _timed_out(result: object, timeout: float) -> object:
    # What addTimeout makes of its own cancellation becomes an error of ours.
    if isinstance(result, Failure) and result.check(CancelledError):
        raise UnavailableError(f"nothing came within {timeout:g} seconds")
    return result
