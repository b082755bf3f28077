"""The store of a server in SQLite: one thread writes and reads, and says what has become of it.

Requests wait in a queue and are done in their order, several in one transaction: a group ends when the queue is empty,
or :data:`GROUP` seconds after it began. Only when it is committed are its results handed back, all at once.

A group that fails is done again, each of its requests by itself. Where the disk is full, messages are refused with
``UNAVAILABLE`` until there is room again. All else that must be written is small; it lives on a reserve, a file that is
given up then; once that is used up as well, everything waits. What fails for another reason of the disk ends the store:
``failed`` is called, and nothing is answered any more.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, NamedTuple

from sims.errors import LocalError
from sims.server.interfaces import (
    Account,
    Done,
    Facts,
    Invitation,
    Kept,
    Letter,
    Published,
    Quota,
    Registered,
)
from sims.server.sqlite_file import Reserve, checkpoint, open_database, told
from sims.server.sqlite_tables import Tables

#: Seconds after which a group is committed though more has come.
GROUP = 0.005
#: Seconds between two looks at what there is to do beside the requests.
IDLE = 1.0
#: Seconds from a change to the moment when nothing of what was before it is left in the log.
CHECKPOINT = 15.0
#: Seconds between two looks for what has expired; and those when there was more than one look takes.
EXPIRE, EXPIRE_MORE = 60.0, 0.02
#: Seconds after which that is tried again, when another process was in the way.
CHECKPOINT_AGAIN = 1.0
#: Seconds after which a full disk is tried again.
SHORT = 5.0
#: Seconds after which something else is, where not even the reserve is left.
FULL = 0.5
#: Bytes of messages that wait to be written before more are refused.
MAX_QUEUED = 64 * 1024 * 1024

_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
#: What is wrong with a request, and not with the database.
_OURS = (sqlite3.IntegrityError, sqlite3.DataError, sqlite3.ProgrammingError)


def _is_full(error: sqlite3.Error) -> bool:
    """Whether this is for want of room."""
    return getattr(error, "sqlite_errorcode", 0) in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE)


class Request(NamedTuple):
    """What is asked for: a method of :class:`Tables`, or ``no_room`` or ``close``."""

    name: str
    args: tuple[Any, ...]
    done: Done[Any]


Answers = list[tuple[Done[Any], Any]]


class SqliteStore:
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
        self.tables = tables
        self._pause = pause
        self._deliver = deliver
        self._failed = failed
        self._broken = broken
        self._foreign_change = foreign_change
        self._life = life
        self._reserve = reserve
        self._clock = clock
        self._wall = wall
        self._queue: SimpleQueue[Request] = SimpleQueue()
        self._closing = False
        self._put = self._taken = 0  # bytes of messages; the one is counted here, the other in the thread
        self._foreign = tables.foreign
        self._changes = tables.connection.total_changes
        self._changed: float | None = None  # since when the log holds something
        self._checkpoint_at = 0.0
        self._expire_at = clock()
        self._short: float | None = None  # since when there is no room for messages
        if reserve is not None and not reserve.take():
            self._short = clock()

    @classmethod
    def open(cls, path: Path, **options: Any) -> SqliteStore:
        """Open a database, or make it.

        :raises LocalError: as :func:`~sims.server.sqlite_file.open_database`.
        """
        with told(path):
            return cls(Tables(open_database(path)), reserve=Reserve(path.with_suffix(".reserve")), **options)

    def start(self) -> None:
        """Begin with the work, in a thread that ends after :meth:`close`, or with the process."""
        Thread(target=self.run, name="store", daemon=True).start()

    # --- requests: in whichever thread ---

    def _ask(self, name: str, done: Done[Any], *args: Any) -> None:
        if not self._closing:
            self._queue.put(Request(name, args, done))

    def find(self, account: str, done: Done[Account | None]) -> None:
        self._ask("find", done, account)

    def find_name(self, name: str, done: Done[Account | None]) -> None:
        self._ask("find_name", done, name)

    def register(self, account: Account, invitation: bytes | None, done: Done[Registered]) -> None:
        self._ask("register", done, account, invitation)

    def connected(self, account: str, epoch: int | None, done: Done[Account | None]) -> None:
        self._ask("connected", done, account, epoch)

    def everyone(self, done: Done[Sequence[Account]]) -> None:
        self._ask("everyone", done)

    def delete(self, account: str, done: Done[None]) -> None:
        self._ask("delete", done, account)

    def invite(self, invitation: bytes, done: Done[None], *, uses: int = 1, expires: int | None = None) -> None:
        self._ask("invite", done, invitation, uses, expires)

    def invitation(self, invitation: bytes, done: Done[Invitation | None]) -> None:
        self._ask("invitation", done, invitation)

    def invitations(self, done: Done[Sequence[Invitation]]) -> None:
        self._ask("invitations", done)

    def withdraw(self, invitation: bytes, done: Done[bool]) -> None:
        self._ask("withdraw", done, invitation)

    def bundle(self, owner: str, done: Done[Published | None]) -> None:
        self._ask("bundle", done, owner)

    def publish(self, owner: str, bundle: Published, one_time_keys: Sequence[bytes], done: Done[bool]) -> None:
        self._ask("publish", done, owner, bundle, one_time_keys)

    def take(self, owner: str, fetcher: str, now: int, done: Done[bytes | None]) -> None:
        self._ask("take", done, owner, fetcher, now)

    def keep(self, letter: Letter, quota: Quota, now: int, done: Done[Kept]) -> None:
        size = len(letter.inner)
        if self._put + size - self._taken > MAX_QUEUED:
            self._ask("no_room", done)  # the answer still comes in its turn
            return
        self._put += size
        self._ask("keep", done, letter, quota, now)

    def waiting(
        self, owner: str, after: int, most: int, since: float, done: Done[Sequence[tuple[int, Letter]]]
    ) -> None:
        self._ask("waiting", done, owner, after, most, since)

    def acknowledge(self, owner: str, letters: Sequence[tuple[str, bytes]], done: Done[None]) -> None:
        self._ask("acknowledge", done, owner, letters)

    def written(self, owner: str, to: str, done: Done[None]) -> None:
        self._ask("written", done, owner, to)

    def facts(self, account: str, done: Done[Facts]) -> None:
        self._ask("facts", done, account)

    def close(self, done: Done[None]) -> None:
        self._ask("close", done)
        self._closing = True

    # --- the thread ---

    def run(self) -> None:
        """Work until the store is closed, or can do no more."""
        try:
            while self.turn():
                pass
        except (sqlite3.Error, LocalError) as error:
            damaged = getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGED
            reason = "it is damaged: put a backup in its place" if damaged else str(error)
            self._deliver(lambda: self._failed(f"the database of the server cannot be used: {reason}"))
        except Exception as error:
            problem = error
            self._deliver(lambda: self._broken(problem))
            self._deliver(lambda: self._failed("the store of the server failed"))

    def turn(self, wait: float = IDLE) -> bool:
        """Do one group, or wait so many seconds for one, and what else there is to do; False after the end."""
        now = self._clock()
        with contextlib.suppress(Empty):
            if not self._group(self._queue.get(timeout=max(0.001, min(wait, self._expire_at - now)))):
                return False
        self.tables.look()
        self._notice()
        self._expire()
        self._checkpoint()
        if self._short is not None and self._clock() - self._short >= SHORT:
            self._short = None if self._reserve is None or self._reserve.take() else self._clock()
        return True

    def _group(self, first: Request) -> bool:
        """Do requests, and hand back their results; False when the store is closed."""
        requests = [first]
        answers: Answers = []
        end = self._clock() + GROUP
        try:
            with self.tables.transaction():
                start = 0
                while True:
                    with contextlib.suppress(Empty):
                        while requests[-1].name != "close" and len(requests) - start < 256:
                            requests.append(self._queue.get_nowait())
                    self._perform(requests[start:], answers)
                    start = len(requests)
                    if requests[-1].name == "close" or self._clock() >= end:
                        break
                    try:
                        requests.append(self._queue.get_nowait())
                    except Empty:
                        break
        except Exception:
            answers = []
            self._singly(requests, answers)
        else:
            self._answer(answers)
        self._taken += sum(len(request.args[0].inner) for request in requests if request.name == "keep")
        self._notice()
        if requests[-1].name == "close":
            self._close(requests[-1].done)
            return False
        return True

    def _perform(self, requests: Sequence[Request], answers: Answers) -> None:
        for name, several in groupby(requests, lambda request: request.name):
            some = [*several]
            if name == "no_room" or (name == "keep" and self._short is not None):
                results: Sequence[Any] = [Kept.UNAVAILABLE] * len(some)
            elif name == "keep":
                results = self.tables.keep_all([request.args for request in some])
            elif name == "acknowledge":
                self.tables.acknowledge_all([request.args for request in some])
                results = [None] * len(some)
            elif name == "close":
                continue
            else:
                results = [getattr(self.tables, name)(*request.args) for request in some]
            answers += [(request.done, result) for request, result in zip(some, results, strict=True)]

    def _singly(self, requests: Sequence[Request], answers: Answers) -> None:
        """Do each by itself, where all in one have failed."""
        try:
            for request in requests:
                self._one(request, answers)
        finally:
            self._answer(answers)  # of those that were done, whatever comes

    def _one(self, request: Request, answers: Answers) -> None:
        while not self._try(request, answers):
            pass

    def _try(self, request: Request, answers: Answers) -> bool:
        """False when it is to be tried again."""
        own: Answers = []
        try:
            with self.tables.transaction():
                self._perform([request], own)
        except sqlite3.Error as error:
            own = []
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            if code in _DAMAGED:
                raise
            if isinstance(error, _OURS):
                self._fault(request, error, own)
            elif request.name == "keep":
                self._short = self._clock()
                own = [(request.done, Kept.UNAVAILABLE)]
            elif _is_full(error):
                self._short = self._clock()
                return not self._make_room(answers)
            else:
                raise
        except Exception as error:
            own = []
            self._fault(request, error, own)
        answers += own
        return True

    def _make_room(self, answers: Answers) -> bool:
        """Give up the reserve; where that is gone, wait a little: all else waits, too.

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
        return True

    def _fault(self, request: Request, error: Exception, answers: Answers) -> None:
        """A fault of ours: what was asked for has not happened, and nobody is told that it has."""
        self._deliver(lambda: self._broken(error))
        if request.name == "keep":
            answers.append((request.done, Kept.UNAVAILABLE))

    def _answer(self, answers: Answers) -> None:
        if answers:
            self._deliver(lambda: self._tell(answers))

    def _tell(self, answers: Answers) -> None:
        """In the other thread: hand back results. One who cannot take theirs does the others no harm."""
        for done, result in answers:
            try:
                done(result)
            except Exception as error:
                self._broken(error)

    def _notice(self) -> None:
        if self.tables.foreign != self._foreign:
            self._foreign = self.tables.foreign
            self._deliver(self._foreign_change)
        changes = self.tables.connection.total_changes
        if changes != self._changes:
            self._changes = changes
            if self._changed is None:
                self._changed = self._clock()

    def _expire(self) -> None:
        now = self._clock()
        if now < self._expire_at:
            return
        more = False
        with self._later(), self.tables.transaction():
            more = self.tables.expire(self._wall() - self._life)
        self._expire_at = now + (EXPIRE_MORE if more else EXPIRE)
        self._notice()

    def _checkpoint(self) -> None:
        now = self._clock()
        if self._changed is None or now - self._changed < CHECKPOINT or now < self._checkpoint_at:
            return
        self._checkpoint_at = now + CHECKPOINT_AGAIN
        with self._later():
            self.tables.scrub()
        with self._later():
            if checkpoint(self.tables.connection):
                self._changed = None

    @contextlib.contextmanager
    def _later(self) -> Any:
        """What nobody waits for may fail for want of room, or of a turn: it is tried again."""
        try:
            yield
        except sqlite3.OperationalError as error:
            if not _is_full(error) and error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                raise

    def _close(self, done: Done[None]) -> None:
        with self._later():
            self.tables.scrub()
        with self._later():
            checkpoint(self.tables.connection)
        self.tables.connection.close()
        self._answer([(done, None)])
