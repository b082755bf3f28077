"""What is done once in a turn of the reactor, for all connections of a relay: acknowledge, write, look at the time."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from traceback import extract_tb
from typing import Protocol, TypeVar

from sims.server.modern_relay import ModernRelay

T = TypeVar("T")


class _Later(Protocol):
    """A reactor, as far as it is needed here."""

    def callLater(self, delay: float, callable: Callable[[], object]) -> object:  # noqa: N802
        """Call something after so many seconds."""


class _Writer(Protocol):
    def push(self) -> None:
        """Write what was said."""

    def broken(self, error: Exception) -> None:
        """It could not, for a reason that nobody has thought of: say so, and close."""


class Turns:
    """Gathers what is caused by everything that is read in one turn, so that it goes out in as few pieces as it can.

    :ivar relay: whose connections these are.
    :ivar seconds: a clock that does not go backwards, the relay's.
    :ivar unsaid: the connections with something that was said and not written.
    :ivar failed: told of what has gone wrong in a turn, and in whose part nobody knows. The turn goes on all the same.
    """

    def __init__(self, relay: ModernRelay, clock: _Later, seconds: Callable[[], float]) -> None:
        self.relay = relay
        self.seconds = seconds
        self.unsaid: set[_Writer] = set()
        self.failed: Callable[[Exception], None] = lambda _: None
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
        self._try(self.relay.flush)
        while self.unsaid:
            writer = self.unsaid.pop()
            try:
                writer.push()
            except Exception as error:
                self._try(partial(writer.broken, error))
        due = self.relay.due
        if due is not None and not self._waiting:
            self._waiting = True
            self._clock.callLater(max(0.0, due - self.seconds()), self._tick)

    def _tick(self) -> None:
        self._waiting = False
        self._try(self.relay.tick)
        self.wake()

    def _try(self, act: Callable[[], None]) -> None:
        try:
            act()
        except Exception as error:
            self.failed(error)


def guarded(act: Callable[[T], object], broken: Callable[[Exception], None]) -> Callable[[T], None]:
    """What is called by somebody who could do nothing about its exceptions: they go to ``broken``."""

    def call(value: T) -> None:
        try:
            act(value)
        except Exception as error:
            broken(error)

    return call


def described(error: Exception) -> str:
    """What a log may say of an exception: its type, and where it comes from. Its text may quote anything."""
    frames = extract_tb(error.__traceback__)
    where = f" in {Path(frames[-1].filename).name}, line {frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{where}"
