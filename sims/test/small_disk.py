"""The store in SQLite as far as messages go, without SQLite: its real turns over tables in memory, on a disk that a
test can fill."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

from sims.server.interfaces import Kept, Letter, Quota
from sims.server.memory import MemoryStore
from sims.server.sqlite import SqliteStore
from sims.server.sqlite_tables import Tables


class _Connection:
    total_changes = 0


class MemoryTables:
    """As :class:`~sims.server.sqlite_tables.Tables`, for messages.

    :ivar full: the disk has no room for a message.
    """

    foreign = 0
    connection = _Connection()

    def __init__(self) -> None:
        self.stored = MemoryStore()
        self.full = False

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Nothing has to be undone: what fails does so before anything has changed."""
        yield

    def look(self) -> None:
        """Nobody else changes anything."""

    def expire(self, before: float, now: float) -> bool:
        """Nothing does."""
        return False

    def redate(self, by: float, now: float) -> None:
        """The machine's clock is another than the test's: that says nothing."""

    def keep_all(self, asked: Sequence[tuple[Letter, Quota, int]]) -> list[Kept]:
        """As of the tables."""
        if self.full and asked:
            error = sqlite3.OperationalError("it is full")
            error.sqlite_errorcode = sqlite3.SQLITE_FULL
            raise error
        found: list[Kept] = []
        for one in asked:
            self.stored.keep(*one, found.append)
        return found

    def acknowledge_all(self, asked: Sequence[tuple[str, Sequence[tuple[str, bytes]]]]) -> None:
        """As of the tables."""
        for owner, letters in asked:
            self.stored.acknowledge(owner, letters, lambda _: None)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def ask(*args: Any) -> Any:
            found: list[Any] = []
            getattr(self.stored, name)(*args, found.append)
            return found[0]

        return ask


class SmallDiskStore(SqliteStore):
    """A store whose thread and reactor are the test's.

    :ivar answers: what the reactor is to call, in order.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.memory = MemoryTables()
        self.answers: list[Callable[[], object]] = []
        self.problems: list[object] = []
        super().__init__(
            cast("Tables", self.memory),
            deliver=self.answers.append,
            failed=self.problems.append,
            broken=self.problems.append,
            life=86_400.0,
            clock=clock,
        )
        self._changed = None  # nothing has to be forgotten

    @property
    def busy(self) -> bool:
        """Whether anything waits."""
        return bool(self.answers) or not self._queue.empty()

    def work(self) -> None:
        """Do all that was asked for, in one group."""
        if not self._queue.empty():
            self.turn()

    def answer(self) -> None:
        """Tell the oldest results."""
        if self.answers:
            self.answers.pop(0)()

    def settle(self) -> None:
        """Do everything, and what comes of it."""
        while self.busy:
            self.work()
            self.answer()
