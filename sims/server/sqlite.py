"""The store of a server in SQLite: one thread writes and reads, and says what has become of it.

Requests wait in a queue and are done in their order, several in one transaction: a group ends when the queue is empty,
or :data:`GROUP` seconds after it began. Only when it is committed are its results handed back, all at once.

A group that fails is done again, each of its requests by itself. Where the disk is full, messages are refused with
``UNAVAILABLE`` until there is room again, and what is behind them too (:mod:`sims.server.sqlite_requests`). All else
that must be written is small; it lives on a reserve, a file that is given up then; once that is used up as well,
everything waits, and the log is emptied meanwhile, which may be what makes room. Everything waits, too, while another
process has the file to itself; when that goes on for too long, messages are refused until it has let go. What fails for
another reason of the disk ends the store: ``failed`` is called, and nothing is answered any more.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from math import inf
from operator import attrgetter
from pathlib import Path
from queue import Empty
from threading import Thread
from typing import Any

from sims.errors import LocalError
from sims.server.interfaces import Asked, Done, Kept
from sims.server.sqlite_file import (
    BUSY,
    RESERVE,
    Reserve,
    checkpoint,
    is_busy,
    is_damaged,
    is_full,
    open_kept,
    reserve_of,
    told,
)
from sims.server.sqlite_requests import Request
from sims.server.sqlite_tables import Tables
from sims.server.sqlite_upkeep import Upkeep

#: Seconds after which a group is committed though more has come.
GROUP = 0.005
#: Requests that are done at once, within a group, before the next are looked for.
MOST = 512
#: Seconds between two looks at what there is to do beside the requests.
IDLE = 1.0
#: Seconds after which is seen whether messages can be taken again.
SHORT = 5.0
#: Seconds after which something else is, where not even the reserve is left.
FULL = 0.5
#: Seconds that SQLite waits for another process at a time, and those between two such times.
TURN, AGAIN = 1.0, 0.05

#: What is wrong with a request, and not with the database.
_OURS = (sqlite3.IntegrityError, sqlite3.DataError, sqlite3.ProgrammingError)

Answers = list[tuple[Done[Any], Any]]


class SqliteStore(Upkeep):
    """As :class:`~sims.server.interfaces.Store`.

    :param deliver: called in the store's thread with what is to be called in the others' (``callFromThread``).
    :param failed: called like ``done`` when it can do its work no longer, with the reason.
    :param broken: called like ``done`` with an exception of a ``done``, or of a request that cannot be done at all.
    :param foreign_change: called like ``done`` when another process has changed something.
    :param life: seconds that messages and mids are kept; ``clock``: seconds, never backwards; ``wall``: Unix seconds.
    """

    def __init__(
        self,
        tables: Tables,
        *,
        deliver: Callable[[Callable[[], object]], object],
        failed: Callable[[str], object],
        broken: Callable[[Exception], object],
        foreign_change: Callable[[], object] = lambda: None,
        life: float,
        reserve: Reserve | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        super().__init__(
            tables,
            deliver=deliver,
            foreign_change=foreign_change,
            life=life,
            reserve=reserve,
            clock=clock,
            wall=wall,
        )
        self._pause = pause
        self._failed = failed
        self._broken = broken
        self._late: float | None = None  # when another process will have been in the way for too long
        if reserve is not None and not reserve.take():
            self._short = clock()

    @classmethod
    def open(cls, path: Path, *, reserve: int = RESERVE, **options: Any) -> SqliteStore:
        """Open a database, or make it.

        :param reserve: bytes of the file that is given up when the disk is full.
        :raises LocalError: as :func:`~sims.server.sqlite_file.open_database`.
        """
        with told(path):
            kept = Reserve(reserve_of(path), reserve)
            database = open_kept(path, kept)
            database.execute(f"pragma busy_timeout = {TURN * 1000:.0f}")
            return cls(Tables(database), reserve=kept, **options)

    def start(self) -> None:
        """Begin with the work, in a thread that ends after :meth:`close`, or with the process."""
        Thread(target=self.run, name="store", daemon=True).start()

    # --- the thread ---

    def run(self) -> None:
        """Work until the store is closed, or can do no more."""
        try:
            while self.turn():
                pass
        except (sqlite3.Error, LocalError) as error:
            reason = "it is damaged: put a backup in its place" if is_damaged(error) else str(error)
            self._deliver(lambda: self._failed(f"the database of the server cannot be used: {reason}"))
        except Exception as error:
            problem = error
            self._deliver(lambda: self._broken(problem))
            self._deliver(lambda: self._failed("the store of the server failed"))

    def turn(self, wait: float = IDLE) -> bool:
        """Do one group, or wait so many seconds for one, and what else there is to do; False after the end."""
        now = self._clock()
        with contextlib.suppress(Empty):
            first = self._queue.get(timeout=max(0.001, min(wait, self._expire_at - now)))
            self._mind_the_clock()
            if not self._group(first):
                return False
        self._keep_up()
        if self._short is not None and self._clock() - self._short >= SHORT:
            self._short = None if self._is_free() else self._clock()
        return True

    def _is_free(self) -> bool:
        """Whether messages can be taken again: no other process is in the way, and the reserve is whole."""
        if self._late is not None:
            with self._later(), self.tables.transaction():
                self._late = None
        return self._late is None and (self._reserve is None or self._reserve.take())

    def _group(self, first: Request) -> bool:
        """Do requests, and hand back their results; False when the store is closed."""
        requests = [first]
        answers: Answers = []
        end = self._clock() + GROUP
        try:
            with self.tables.transaction():
                start = 0
                self._take(requests, MOST)
                while start < len(requests):
                    self._perform(requests[start:], answers)
                    start = len(requests)
                    if self._clock() < end:
                        self._take(requests, start + MOST)
        except Exception as error:
            answers = []
            if not is_busy(error):
                self._late = None
            elif self._closing or self._short is not None:
                self._take(requests, inf if self._closing else MOST)  # not to find that out with each of them
            self._singly(requests, answers)
        else:
            self._late = None
            self._answer(answers)
        self._taken += sum([request.size for request in requests])
        self._notice()
        if requests[-1].name == "close":
            self._close(requests[-1].done)
            return False
        return True

    def _take(self, requests: list[Request], most: float) -> None:
        """Add what waits, until there are so many."""
        with contextlib.suppress(Empty):
            while requests[-1].name != "close" and len(requests) < most:
                requests.append(self._queue.get_nowait())

    def _perform(self, requests: Sequence[Request], answers: Answers) -> None:
        for name, some in _alike(requests):
            if self._refuses(some[0]):
                results: Sequence[Any] = [self.refusals.add(request) for request in some]
            elif name == "keep":
                results = self._keep(some)
            elif name == "acknowledge":
                self.tables.acknowledge_all([request.args for request in some])
                results = [None] * len(some)
            elif name == "close":
                continue
            else:
                results = [getattr(self.tables, name)(*request.args) for request in some]
            answers += [(request.done, result) for request, result in zip(some, results, strict=True)]

    def _refuses(self, request: Request) -> bool:
        return request.name == "no_room" or (request.name == "keep" and self._short is not None)

    def _keep(self, some: Sequence[Request]) -> Sequence[Kept]:
        """Keep messages, but those before which one was refused."""
        if not self.refusals:
            return self.tables.keep_all([request.args for request in some])
        refused = [self.refusals.add(request) if self.refusals.stop(request) else None for request in some]
        free = [request.args for request, result in zip(some, refused, strict=True) if result is None]
        kept = iter(self.tables.keep_all(free))
        return [next(kept) if result is None else result for result in refused]

    def _singly(self, requests: Sequence[Request], answers: Answers) -> None:
        """Do each by itself, where all in one have failed."""
        try:
            for request in requests:
                if self._closing and self._late is not None:
                    break  # another process is in the way: the end does not wait for it with every one
                self._one(request, answers)
        finally:
            self._answer(answers)  # of those that were done, whatever comes

    def _one(self, request: Request, answers: Answers) -> None:
        if self._refuses(request):  # and waits for nobody to do so
            answers.append((request.done, self.refusals.add(request)))
        else:
            while not self._try(request, answers):
                pass

    def _try(self, request: Request, answers: Answers) -> bool:
        """False when it is to be tried again."""
        own: Answers = []
        try:
            with self.tables.transaction():
                self._perform([request], own)
            self._late = None
        except sqlite3.Error as error:
            own = []
            busy = is_busy(error)
            self._late = self._late if busy else None
            if is_damaged(error):
                raise
            if isinstance(error, _OURS):
                self._fault(request, error, own)
            elif busy and self._waits(request, error):
                self._answer([*answers])
                answers.clear()
                self._pause(AGAIN)
                return False
            elif request.name == "keep":
                self._short = self._clock()
                own = [(request.done, self.refusals.add(request))]
            elif busy:
                pass  # the store is to be closed
            elif is_full(error, self._reserve):
                self._short = self._clock()
                return not self._make_room(answers)
            else:
                raise
        except Exception as error:
            own = []
            self._fault(request, error, own)
        answers += own
        return True

    def _waits(self, request: Request, error: Exception) -> bool:
        """Another process has the file to itself: whether a request waits for it. Messages do not for ever."""
        now = self._clock()
        if self._late is None:
            self._late = now + BUSY
        elif now >= self._late:
            self._late = now + BUSY
            self._deliver(lambda: self._broken(error))
            if request.name == "keep":
                return False
        return not self._closing and (request.name != "keep" or self._short is None)

    def _make_room(self, answers: Answers) -> bool:
        """Give up the reserve; where that is gone, wait a little, and empty the log: all else waits, too.

        :param answers: of what was done before; they are not held back by that.
        :returns: False when the store is to be closed: what cannot be written then is not, and nobody is told it was.
        """
        if self._reserve is not None and self._reserve.give_up():
            return True
        self._answer([*answers])
        answers.clear()
        if self._closing:
            return False
        self._pause(FULL)
        with self._later():
            checkpoint(self.tables.connection)
        return True

    def _fault(self, request: Request, error: Exception, answers: Answers) -> None:
        """A fault of ours: what was asked for has not happened, and nobody is told that it has."""
        self._deliver(lambda: self._broken(error))
        if request.name == "keep":
            answers.append((request.done, self.refusals.add(request)))
        else:
            failed = request.done.failed if isinstance(request.done, Asked) else _nothing
            answers.append((lambda _: self._failing(failed), None))

    def _failing(self, failed: Callable[[], object]) -> None:
        """In the other thread: there is no result, which might have put right what was learned from one before."""
        self.known.clear()
        failed()

    def _answer(self, answers: Answers) -> None:
        if answers:
            made = self.refusals.made
            self._deliver(lambda: self._tell(answers, made))

    def _tell(self, answers: Answers, refusals: int) -> None:
        """In the other thread: hand back results. One who cannot take theirs does the others no harm.

        :param refusals: how many are told with these. What is asked for by one of them may be before the next.
        """
        for done, result in answers:
            self._unanswered -= 1
            try:
                done(result)
            except Exception as error:
                self._broken(error)
        self.refusals.told = refusals

    def _close(self, done: Done[None]) -> None:
        with self._later():
            self._scrub()
        with self._later():
            checkpoint(self.tables.connection)
        self.tables.connection.close()
        self._answer([(done, None)])


def _alike(requests: Sequence[Request]) -> Iterable[tuple[str, Sequence[Request]]]:
    """Those that ask for the same, as long as they come one behind the other."""
    names = {request.name for request in requests}
    if len(names) == 1:
        return [(names.pop(), requests)]
    return [(name, [*some]) for name, some in groupby(requests, attrgetter("name"))]


def _nothing() -> None:
    pass
