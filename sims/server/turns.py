"""What is done once in a turn of the reactor, for all connections of a relay: acknowledge, write, look at the time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from sims.server.modern_relay import ModernRelay


class _Later(Protocol):
    """A reactor, as far as it is needed here."""

    def callLater(self, delay: float, callable: Callable[[], object]) -> object:  # noqa: N802
        """Call something after so many seconds."""


class _Writer(Protocol):
    def push(self) -> None:
        """Write what was said."""


class Turns:
    """Gathers what is caused by everything that is read in one turn, so that it goes out in as few pieces as it can.

    :ivar relay: whose connections these are.
    :ivar seconds: a clock that does not go backwards, the relay's.
    :ivar unsaid: the connections with something that was said and not written.
    """

    def __init__(self, relay: ModernRelay, clock: _Later, seconds: Callable[[], float]) -> None:
        self.relay = relay
        self.seconds = seconds
        self.unsaid: set[_Writer] = set()
        self._clock = clock
        self._awake = self._waiting = False
        relay.wake = self.wake

    def wake(self) -> None:
        """Something was said, or is to be told: see to it once everything that has come in this turn is read."""
        if not self._awake:
            self._awake = True
            self._clock.callLater(0, self._end)

    def _end(self) -> None:
        self._awake = False
        self.relay.flush()
        while self.unsaid:
            self.unsaid.pop().push()
        due = self.relay.due
        if due is not None and not self._waiting:
            self._waiting = True
            self._clock.callLater(max(0.0, due - self.seconds()), self._tick)

    def _tick(self) -> None:
        self._waiting = False
        self.relay.tick()
        self.wake()
