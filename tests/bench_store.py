"""``python -m tests.bench store``: messages that are made durable, for people who are away.

100 senders, as many recipients; each message of 600 bytes is asked for as the relay does it, and counts when the store
has said that it would survive a crash. Beside it, in the same run, a bare writer: one thread that inserts the same
bytes into one table, with the same grouping and the same care of the disk. The two take turns, and short ones: a
machine that is others' too changes its speed within a second. What they do only now and then, as working the log into
the file, belongs to both: the rates are of all rounds together. Then the cost of one message while the mailboxes and
the accounts grow.
"""

from __future__ import annotations

import gc
import os
import queue
import sqlite3
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from math import inf
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from sims.server.interfaces import Account, Kept, Letter, Quota
from sims.server.sqlite import GROUP, SqliteStore

SENDERS = 100
SIZE = 600
#: Messages that are asked for and not answered.
UNDER_WAY = 1000
QUOTA = Quota(inf, inf, 30 * 86_400, inf, inf)


class Loop:
    """What a reactor is to a store: it calls what comes from other threads."""

    def __init__(self) -> None:
        self._calls: SimpleQueue[Callable[[], object]] = SimpleQueue()
        self.call = self._calls.put

    def run_until(self, done: Callable[[], bool]) -> None:
        """Call whatever comes until that is so."""
        while not done():
            self._calls.get()()


def person(number: int) -> str:
    """An id: 32 characters."""
    return f"p{number:031}"


def _failed(reason: object) -> None:
    raise SystemExit(f"the store failed: {reason}")


class Ours:
    """The store of the server."""

    def __init__(self, folder: Path) -> None:
        self.loop = Loop()
        self.store = SqliteStore.open(
            folder / "server.db", deliver=self.loop.call, failed=_failed, broken=_failed, life=30 * 86_400
        )
        self.store.start()
        self.people(0, 2 * SENDERS)
        self._number = 0

    def _wait(self, asked: Callable[[Callable[[Any], None]], None], count: int = 1) -> None:
        results: list[Any] = []
        asked(results.append)
        self.loop.run_until(lambda: len(results) >= count)

    def people(self, start: int, end: int) -> None:
        """Register these."""

        def ask(done: Callable[[Any], None]) -> None:
            for number in range(start, end):
                account = Account(person(number), f"name{number}", os.urandom(32), os.urandom(32), int(time.time()))
                self.store.register(account, None, done)

        self._wait(ask, end - start)

    def keep(self, count: int, recipients: int = SENDERS) -> float:
        """Have so many messages kept; gives the seconds."""
        state = [0, 0]  # asked for, answered
        now, inner = int(time.time()), os.urandom(SIZE)

        def ask() -> None:
            number = self._number = self._number + 1
            state[0] += 1
            src, dst = person(number % SENDERS), person(SENDERS + number % recipients)
            self.store.keep(Letter(src, dst, number.to_bytes(16, "big"), inner), QUOTA, now, kept)

        def kept(result: Kept) -> None:
            if result is not Kept.STORED:
                _failed(result)
            state[1] += 1
            if state[0] < count:
                ask()

        begin = time.perf_counter()
        for _ in range(min(count, UNDER_WAY)):
            ask()
        self.loop.run_until(lambda: state[1] >= count)
        return time.perf_counter() - begin

    def close(self) -> None:
        """The end."""
        self._wait(self.store.close)


class Bare:
    """A writer that does nothing else."""

    def __init__(self, folder: Path) -> None:
        self.loop = Loop()
        self._database = sqlite3.connect(folder / "bare.db", isolation_level=None, check_same_thread=False)
        for pragma in ("journal_mode = wal", "synchronous = full", "wal_autocheckpoint = 16384"):
            self._database.execute(f"pragma {pragma}")
        columns = "number integer primary key, src, dst, mid, inner, unique (dst, src, mid)"
        self._database.execute(f"create table letters ({columns})")
        self._queue: SimpleQueue[tuple[Any, ...] | None] = SimpleQueue()
        threading.Thread(target=self._run, daemon=True).start()
        self._number = 0

    def _run(self) -> None:
        while (row := self._queue.get()) is not None:
            rows = [row]
            end = time.monotonic() + GROUP
            while time.monotonic() < end:
                try:
                    more = self._queue.get_nowait()
                except queue.Empty:
                    break
                if more is None:
                    return
                rows.append(more)
            self._database.execute("begin immediate")
            self._database.executemany(
                "insert into letters (src, dst, mid, inner) values (?, ?, ?, ?)", [row[1:] for row in rows]
            )
            self._database.execute("commit")
            self._answer([row[0] for row in rows])

    def _answer(self, dones: list[Callable[[], None]]) -> None:
        self.loop.call(lambda: [done() for done in dones])

    def keep(self, count: int) -> float:
        """Have so many messages written; gives the seconds."""
        state = [0, 0]
        inner = os.urandom(SIZE)

        def ask() -> None:
            number = self._number = self._number + 1
            state[0] += 1
            src, dst = person(number % SENDERS), person(SENDERS + number % SENDERS)
            self._queue.put((kept, src, dst, number.to_bytes(16, "big"), inner))

        def kept() -> None:
            state[1] += 1
            if state[0] < count:
                ask()

        begin = time.perf_counter()
        for _ in range(min(count, UNDER_WAY)):
            ask()
        self.loop.run_until(lambda: state[1] >= count)
        return time.perf_counter() - begin

    def close(self) -> None:
        """The end."""
        self._queue.put(None)


def bench_store(messages: int, rounds: int) -> None:
    """Print the rates, their ratio, and the table."""
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)  # as the server does
    print(f"{SENDERS} senders, {SENDERS} people who are away, messages of {SIZE} bytes; limits lifted")
    print(f"{rounds} rounds of {messages} messages, taking turns; the rates are of all of them together")
    with tempfile.TemporaryDirectory() as folder:
        ours, bare = Ours(Path(folder)), Bare(Path(folder))
        rows = [(ours.keep(messages), bare.keep(messages)) for _ in range(rounds)]
        ours.close()
        bare.close()
    own, other = (messages * rounds / sum(row[index] for row in rows) for index in range(2))
    low, middle, high = statistics.quantiles([two / one for one, two in rows], n=4)
    print(f"the server's store {own:9.0f} messages/s")
    print(f"bare writer        {other:9.0f} messages/s")
    print(f"ratio {own / other:22.2f}  (of each round: median {middle:.2f}, quartiles {low:.2f} and {high:.2f})")
    _table()


def _table() -> None:
    print(f"{'accounts':>9} {'messages in one mailbox':>24} {'us a message':>13}")
    with tempfile.TemporaryDirectory() as folder:
        ours, count = Ours(Path(folder)), 2 * SENDERS
        queued = 0
        for size in (1000, 10_000, 100_000):
            ours.people(count, size)
            count = size
            ours.keep(size - queued, recipients=1)
            queued = size + 3000
            spent = statistics.median(ours.keep(1000, recipients=1) for _ in range(3))
            print(f"{count:9} {size:24} {spent * 1000:13.0f}", flush=True)
        ours.close()
