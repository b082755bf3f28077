"""What the thread of the store in SQLite does beside what it is asked for: nobody waits for that, and it may be later.

What has expired goes; of what is deleted nothing is left in the log or, as far as that can be, in the file; changes
that another process makes are noticed, and so it is when the machine's clock is set.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable
from math import inf
from typing import Any

from sims.server.sqlite_file import Reserve, checkpoint, is_busy, is_full
from sims.server.sqlite_requests import Requests
from sims.server.sqlite_tables import Tables

#: Seconds from a change to the moment when nothing of what was before it is left in the log.
CHECKPOINT = 15.0
#: Seconds between two looks for what has expired; and those when there was more than one look takes.
EXPIRE, EXPIRE_MORE = 60.0, 0.02
#: Seconds after which that is tried again, when another process was in the way.
CHECKPOINT_AGAIN = 1.0
#: Seconds by which the clock of the machine has been set if it is not as far from the other as before.
SET = 3600.0


class Upkeep(Requests):
    """The part of the store that keeps its tables and its file in order; the parameters are the store's."""

    def __init__(
        self,
        tables: Tables,
        *,
        deliver: Callable[[Callable[[], object]], object],
        foreign_change: Callable[[], object],
        life: float,
        reserve: Reserve | None,
        clock: Callable[[], float],
        wall: Callable[[], float],
    ) -> None:
        super().__init__()
        self.tables = tables
        self._deliver = deliver
        self._foreign_change = foreign_change
        self._life = life
        self._reserve = reserve
        self._clock = clock
        self._wall = wall
        self._foreign = tables.foreign
        self._changes = tables.connection.total_changes
        self._changed: float | None = clock()  # since when something may be left of what was to be forgotten
        self._checkpoint_at = self._scrub_at = -inf
        self._expire_at = clock()
        self._ahead = wall() - clock()
        self._short: float | None = None  # when it was last found that messages cannot be taken

    def _keep_up(self) -> None:
        """Do what it is time for."""
        with self._later():
            self.tables.look()
        self._notice()
        self._expire()
        self._checkpoint()

    def _changed_by_others(self) -> None:
        """In the other thread: another process has changed something."""
        self.known.clear()
        self._foreign_change()

    def _notice(self) -> None:
        if self.tables.foreign != self._foreign:
            self._foreign = self.tables.foreign
            self._deliver(self._changed_by_others)
        elif self.tables.connection.total_changes == self._changes:
            return
        self._changes = self.tables.connection.total_changes
        if self._changed is None:
            self._changed = self._clock()

    def _mind_the_clock(self) -> bool:
        """See whether the clock of the machine was set; False while letters are not dated by what it shows now."""
        wall = self._wall()
        by = wall - self._clock() - self._ahead
        if abs(by) > SET:
            with self._later():
                with self.tables.transaction():
                    self.tables.redate(by, wall)
                self._ahead += by
                self._deliver(self.known.clear)  # what seemed too old to be given may not be so
                return True
            return False
        self._ahead += by
        return True

    def _expire(self) -> None:
        now = self._clock()
        if now < self._expire_at or not self._mind_the_clock():
            return
        more = False
        with self._later(), self.tables.transaction():
            wall = self._wall()
            more = self.tables.expire(wall - self._life, wall)
        self._expire_at = now + (EXPIRE_MORE if more else EXPIRE)
        self._notice()

    def _checkpoint(self) -> None:
        now = self._clock()
        if self._changed is None or now - self._changed < CHECKPOINT or now < self._checkpoint_at:
            return
        self._checkpoint_at = now + CHECKPOINT_AGAIN
        if self._short is None and now >= self._scrub_at:
            with self._later():
                self._scrub()
        with self._later():
            waits = self._short is not None or now < self._scrub_at
            if checkpoint(self.tables.connection) and (waits or not self.tables.stale):
                self._changed = now if self.tables.stale else None

    def _scrub(self) -> None:
        """Have the file written anew; for want of room it is not tried again at once, for each time takes up all."""
        try:
            self.tables.scrub(inf if self._reserve is None else self._reserve.room())
        except sqlite3.OperationalError as error:
            if is_full(error, self._reserve):
                self._scrub_at = self._clock() + EXPIRE
            raise

    @contextlib.contextmanager
    def _later(self) -> Any:
        """What nobody waits for may fail for want of room, or of a turn: it is tried again."""
        try:
            yield
        except sqlite3.OperationalError as error:
            if not is_full(error, self._reserve) and not is_busy(error):
                raise
