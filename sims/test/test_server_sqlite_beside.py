"""What the store in SQLite meets from outside: other processes, clocks that are set, quotas, faults of its own."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Callable
from math import inf
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from sims.server import sqlite
from sims.server.interfaces import Asked, Kept
from sims.server.sqlite import SHORT
from sims.server.sqlite_file import BUSY, Reserve
from sims.server.sqlite_upkeep import EXPIRE
from sims.test.sqlite_case import SqliteCase
from sims.test.store_contract import ANN, BOB, DAY, NOW, QUOTA, account, bundle, letter


class HeldUpTests(SqliteCase):
    """Another process has the file to itself for long."""

    def setUp(self) -> None:
        super().setUp()
        self.store.tables.connection.execute("pragma busy_timeout = 1")
        self.patch(sqlite, "AGAIN", 1.0)
        self.other = sqlite3.connect(self.path, isolation_level=None)
        self.addCleanup(self.other.close)
        self.pauses: list[float] = []
        self.found: list[Any] = []

    def hold(self, act: Callable[[], object], seconds: float) -> None:
        """The other has it; when the store has waited for so long, it does this, and later lets go."""
        self.other.execute("begin immediate")

        def pause(more: float) -> None:
            self.pauses.append(more)
            self.calls.now += more
            self.calls.call()
            if self.other.in_transaction and sum(self.pauses) > seconds:
                act()
                self.other.execute("rollback")
            self.assertLess(len(self.pauses), 200)

        self.patch(self.store, "_pause", pause)

    def test_everything_waits(self) -> None:
        """However long it takes; then everything is answered, in its order."""
        self.hold(lambda: self.assertEqual(self.found, []), 1.5 * BUSY)
        self.store.find(ANN, self.found.append)
        self.store.publish(BOB, bundle(1), [], self.found.append)
        self.store.bundle(BOB, self.found.append)
        self.settle()
        self.assertEqual(self.found, [account(ANN, "ann"), True, bundle(1)])
        self.assertEqual(self.calls.failed, [])
        self.assertEqual([type(error) for error in self.calls.broken], [sqlite3.OperationalError])  # told once

    def test_messages_wait_for_a_while(self) -> None:
        self.hold(lambda: None, BUSY / 2)
        self.store.keep(letter(1), QUOTA, NOW, self.found.append)
        self.settle()
        self.assertEqual((self.found, self.calls.broken), ([Kept.STORED], []))

    def test_messages_are_refused_after_that(self) -> None:
        """The first when its time has come, the others with it."""
        self.hold(lambda: None, 1.5 * BUSY)
        for number in range(3):
            self.store.keep(letter(number), QUOTA, NOW, self.found.append)
        self.store.find(ANN, self.found.append)
        self.settle()
        self.assertEqual(self.found, [Kept.UNAVAILABLE] * 3 + [account(ANN, "ann")])
        self.assertEqual(self.calls.failed, [])

    def test_for_as_long_as_it_lasts(self) -> None:
        """From then on each is refused at once, though it is seen again and again whether they can be taken."""
        self.hold(lambda: None, inf)
        self.assertIs(self.ask(self.store.keep, letter(1), QUOTA, NOW), Kept.UNAVAILABLE)
        for number in range(2, 7):
            self.calls.now += SHORT + 1
            self.store.turn(0)
            before = self.calls.now
            self.assertIs(self.ask(self.store.keep, letter(number), QUOTA, NOW), Kept.UNAVAILABLE)
            self.assertEqual(self.calls.now, before)
        self.other.execute("rollback")
        self.calls.now += SHORT
        self.store.turn(0)
        self.assertIs(self.ask(self.store.keep, letter(1), QUOTA, NOW), Kept.STORED)

    def test_each_time_is_one_of_its_own(self) -> None:
        """Who was refused once waits again when another takes the file again."""
        for expected in (Kept.UNAVAILABLE, Kept.STORED):
            self.pauses.clear()
            self.hold(lambda: None, BUSY + 5 if expected is Kept.UNAVAILABLE else BUSY - 5)
            self.assertIs(self.ask(self.store.keep, letter(1), QUOTA, NOW), expected)
            if self.other.in_transaction:
                self.other.execute("rollback")
            self.calls.now += SHORT
            self.store.turn(0)
            self.ask(self.store.find, ANN)

    def test_what_was_done_before_is_told(self) -> None:
        """It is not held up by what comes behind it."""
        one = self.store._one

        def then(*args: Any) -> None:
            one(*args)
            if not self.pauses:
                self.hold(lambda: self.assertEqual(self.found, [account(ANN, "ann")]), 5)

        self.patch(self.store, "_one", then)
        self.store.find(ANN, self.found.append)
        self.store.find(BOB, self.found.append)
        self.store.find("\udc80", self.found.append)  # a fault, for which all are done one by one
        self.settle()
        self.assertEqual(self.found, [account(ANN, "ann"), account(BOB, "bob")])

    def test_the_end_is_not_held_up(self) -> None:
        """What was not done is not said to be."""
        ended: list[None] = []
        self.hold(lambda: None, inf)
        self.store.publish(BOB, bundle(1), [], self.found.append)
        self.store.close(ended.append)
        self.settle()
        self.assertEqual((self.found, ended, self.calls.failed, self.pauses), ([], [None], [], []))

    def slowly(self, request: str) -> None:
        """While the other has the file, each time that the store waits for it takes a while, as it does in earnest."""
        self.store.tables.connection.execute("pragma busy_timeout = 50")
        self.other.execute("begin immediate")
        self.patch(self.store, "_pause", self.fail)
        self.tries = 0
        transaction = self.store.tables.transaction

        def counted() -> Any:
            self.tries += 1
            return transaction()

        self.patch(self.store.tables, "transaction", counted)
        for number in range(50):
            if request == "keep":
                self.store.keep(letter(number), QUOTA, NOW, self.found.append)
            else:
                self.store.find(ANN, self.found.append)

    def test_refusals_do_not_wait(self) -> None:
        """Once messages are refused, all that wait are, without looking each time whether the file is free."""
        self.store._short = self.calls.now
        self.slowly("keep")
        self.settle()
        self.assertEqual((self.found, self.tries), ([Kept.UNAVAILABLE] * 50, 1))
        self.other.execute("rollback")
        self.calls.now += SHORT
        self.store.turn(0)
        self.assertIs(self.ask(self.store.keep, letter(1), QUOTA, NOW), Kept.STORED)

    def test_the_end_does_not_wait_for_each(self) -> None:
        """Of all that was asked for before."""
        ended: list[None] = []
        self.slowly("find")
        self.store.close(ended.append)
        self.settle()
        self.assertEqual((self.found, ended), ([], [None]))
        self.assertLessEqual(self.tries, 2)

    def test_the_end_comes_while_some_wait(self) -> None:
        """The one that waits gives up, and those behind it are not tried any more."""
        ended: list[None] = []
        self.slowly("find")
        self.patch(self.store, "_pause", lambda _: self.store.close(ended.append))
        self.store._short = self.calls.now  # so that all are taken at once
        self.settle()
        self.assertEqual((self.found, ended), ([], [None]))
        self.assertLessEqual(self.tries, 5)

    def test_waits_in_small_steps(self) -> None:
        """So that its end is soon noticed."""
        (before,) = self.copied().tables.connection.execute("pragma busy_timeout").fetchone()
        self.assertLessEqual(before, 2000)
        self.store.tables.connection.execute("pragma busy_timeout = 77")
        self.store.tables.scrub()
        self.assertEqual(self.store.tables.connection.execute("pragma busy_timeout").fetchone(), (77,))


class FaultTests(SqliteCase):
    """A fault of ours."""

    def test_is_told(self) -> None:
        """In its turn, to whom it may concern: what was asked for before and after is answered."""
        found: list[object] = []
        broken = self.store.tables.bundle
        self.patch(self.store.tables, "bundle", fault)
        self.store.find(ANN, Asked(found.append, lambda: found.append("not found")))
        self.store.bundle(BOB, Asked(found.append, lambda: found.append("failed")))
        self.store.bundle(BOB, found.append)
        self.store.find(BOB, found.append)
        self.settle()
        self.assertEqual(found, [account(ANN, "ann"), "failed", account(BOB, "bob")])
        self.patch(self.store.tables, "bundle", broken)
        self.assertIsNone(self.ask(self.store.bundle, BOB))
        self.assertEqual([type(error) for error in self.calls.broken], [TypeError] * 2)


def fault(*_: object) -> Any:
    raise TypeError("it cannot be")


class ClockTests(SqliteCase):
    """The machine's clock is set while the server runs."""

    def waiting(self) -> int:
        since = self.calls.wall - 30 * DAY
        return len(self.ask(self.store.waiting, BOB, 0, 9, since))

    def go_on(self) -> None:
        self.calls.now += EXPIRE
        self.calls.wall += EXPIRE
        self.store.turn(0)

    def test_a_clock_that_began_in_1970(self) -> None:
        """What was accepted before it was set is given all the same, and lives as long as anything else."""
        self.calls.wall = 0.0
        self.store = self.open(self.folder / "other.db")
        for number, name in ((ANN, "ann"), (BOB, "bob")):
            self.ask(self.store.register, account(number, name), None)
        self.ask(self.store.keep, letter(1), QUOTA, 0)
        self.calls.wall = float(NOW)
        self.assertEqual(self.waiting(), 1)
        self.go_on()
        self.assertEqual(self.waiting(), 1)
        self.calls.now += 30 * DAY
        self.calls.wall += 30 * DAY
        self.go_on()
        self.assertEqual(self.rows("select count(*) from letters"), [(0,)])

    def test_nobody_asks_meanwhile(self) -> None:
        self.ask(self.store.keep, letter(1), QUOTA, NOW)
        self.calls.wall += 40 * DAY
        self.go_on()
        self.assertEqual(self.waiting(), 1)

    def test_a_clock_that_was_ahead(self) -> None:
        """What it dated lives no longer than anything else."""
        self.ask(self.store.keep, letter(1), QUOTA, NOW)
        self.calls.wall -= 400 * DAY
        self.go_on()
        self.assertEqual(self.waiting(), 1)
        self.assertEqual(self.rows("select time from letters"), [(int(self.calls.wall),)])

    def test_a_clock_that_runs_a_little_fast(self) -> None:
        """That is nothing; nor is a year of it."""
        self.ask(self.store.keep, letter(1), QUOTA, NOW)
        for _ in range(100):
            self.calls.wall += 60
            self.go_on()
        self.assertEqual(self.rows("select time from letters"), [(NOW,)])

    def test_and_there_is_no_room_to_write_that(self) -> None:
        """Nothing expires until there is."""
        self.ask(self.store.keep, letter(1), QUOTA, NOW)
        redate = self.store.tables.redate
        self.patch(self.store.tables, "redate", self.full)
        self.calls.wall += 40 * DAY
        for _ in range(3):
            self.go_on()
        self.patch(self.store.tables, "redate", redate)
        self.go_on()
        self.assertEqual(self.waiting(), 1)

    def full(self, *_: object) -> None:
        error = sqlite3.OperationalError("it is full")
        error.sqlite_errorcode = sqlite3.SQLITE_FULL
        raise error


class QuotaTests(SqliteCase):
    """The owner of the files has no right to more room: SQLite calls that an error of the disk."""

    def failing(self) -> None:
        """From now on nothing can be written, until the reserve is given up."""
        run = self.store.tables.connection.execute

        def broken(text: str, *values: Any) -> sqlite3.Cursor:
            if text == "commit" and self.path.with_suffix(".reserve").exists():
                error = sqlite3.OperationalError("disk I/O error")
                error.sqlite_errorcode = sqlite3.SQLITE_IOERR_WRITE
                raise error
            return run(text, *values)

        self.store.tables._run = broken

    def test_is_as_a_full_disk(self) -> None:
        """The reserve is given up, and what must be written is."""
        self.failing()
        self.patch(self.store._reserve, "is_needed", lambda: True)
        self.assertTrue(self.ask(self.store.publish, BOB, bundle(1), []))
        self.assertIs(self.ask(self.store.keep, letter(1), QUOTA, NOW), Kept.UNAVAILABLE)
        self.assertEqual(self.calls.failed, [])

    def test_another_error_of_the_disk_is_the_end(self) -> None:
        self.failing()
        self.store.publish(BOB, bundle(1), [], self.fail)
        self.store.run()
        self.calls.call()
        self.assertEqual(self.calls.failed, ["the database of the server cannot be used: disk I/O error"])


class ReserveTests(SynchronousTestCase):
    """Whether there is room beside it."""

    def test_is_needed(self) -> None:
        path = Path(self.mktemp())
        reserve = Reserve(path)
        self.assertFalse(reserve.is_needed())
        for number, expected in ((errno.ENOSPC, True), (errno.EDQUOT, True), (errno.EIO, False)):
            with_error = OSError(number, os.strerror(number))

            def fsync(_: int, error: OSError = with_error) -> None:
                raise error

            self.patch(os, "fsync", fsync)
            self.assertIs(reserve.is_needed(), expected)
        self.assertFalse(path.with_suffix(".probe").exists())
