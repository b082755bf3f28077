"""Events that are given to a user, and which of them the user has."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from sims.client import events

#: Takes an event. What it gives says when the user has that for good, be the program killed then: None, at once; a
#: Deferred, when it fires, unless with False. A text that the user does not have goes to the next client of the store.
OnEvent: TypeAlias = Callable[[events.Event], "Deferred[bool] | None"]


class Showing:
    """Gives events, and waits for what comes of it.

    :param has: called with each event that the user has.
    """

    log = Logger()

    def __init__(self, clock: IReactorTime, has: Callable[[events.Event], None]) -> None:
        self._clock = clock
        self._has = has
        self._given = 0  # events that the user does not have yet
        self._waiting: Deferred[None] | None = None

    def __repr__(self) -> str:
        return f"<{self._given} events>"

    def give(self, on_event: OnEvent, event: events.Event) -> None:
        """Give an event to the program."""
        try:
            shown = on_event(event)
        except Exception:
            # The program's own mistake must not cost it the connection.
            self.log.failure("on_event failed with {event}", event=type(event).__name__)
            return
        if not isinstance(shown, Deferred):
            self._has(event)
            return
        self._given += 1
        shown.addErrback(self._failed, event).addCallback(self._shown, event)

    def _failed(self, failure: Failure, event: events.Event) -> bool:
        self.log.failure("on_event failed with {event}", failure, event=type(event).__name__)
        return False

    def _shown(self, has: bool, event: events.Event) -> None:
        self._given -= 1
        if has is not False:
            self._has(event)
        if not self._given:
            self._over()

    def _over(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.callback(None)

    def all_shown(self, timeout: float) -> Deferred[None]:
        """Fires when the user has everything that was given, or never will, or when so many seconds are over.

        To be called by one at a time.
        """
        if not self._given:
            return succeed(None)
        self._waiting = Deferred(lambda _: self._over())
        return self._waiting.addTimeout(timeout, self._clock)
