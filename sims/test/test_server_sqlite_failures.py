"""What goes wrong in the store in SQLite: nothing is answered as if it had happened, and who can go on does."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from math import inf
from typing import Any

from sims.server import sqlite
from sims.server.interfaces import Kept, Letter, Registered
from sims.server.sqlite import SHORT
from sims.server.sqlite_file import BUSY, checkpoint, open_database
from sims.server.sqlite_requests import MAX_QUEUED
from sims.server.sqlite_tables import Tables
from sims.test.sqlite_case import SqliteCase
from sims.test.store_contract import ANN, BOB, EVE, NOW, QUOTA, account, bundle, letter

ANYTHING = QUOTA._replace(messages=inf, size=inf, stranger_messages=inf, stranger_size=inf)


class FailureTests(SqliteCase):
    """Groups and requests that fail."""

    def failing(self, statement: str, code: int, times: float = inf) -> list[int]:
        """From now on this statement fails, so often; gives how often it has failed."""
        run = self.store.tables.connection.execute
        failed: list[int] = []

        def broken(text: str, *values: Any) -> sqlite3.Cursor:
            if text.startswith(statement) and len(failed) < times:
                failed.append(code)
                error = sqlite3.OperationalError("it cannot be")
                error.sqlite_errorcode = code
                raise error
            return run(text, *values)

        self.store.tables._run = broken
        return failed

    def answers(self) -> tuple[list[Any], Callable[[Any], None]]:
        found: list[Any] = []
        return found, found.append

    def test_one_bad_request_does_others_no_harm(self) -> None:
        """It is told as a fault, and its ``done`` not called; what stood in its group is done, in its order."""
        found, done = self.answers()
        self.store.keep(letter(1), QUOTA, NOW, done)
        self.store.find("\udc80", done)
        self.store.waiting(BOB, 0, 9, -inf, done)
        self.store.keep(Letter("\udc80", BOB, b"m" * 16, b"inner"), QUOTA, NOW, done)
        self.settle()
        self.assertEqual(found[0], Kept.STORED)
        self.assertEqual([one for _, one in found[1]], [letter(1)])
        self.assertEqual(found[2:], [Kept.UNAVAILABLE])
        self.assertEqual([type(error) for error in self.calls.broken], [UnicodeEncodeError] * 2)
        self.assertEqual(self.calls.failed, [])

    def test_a_done_that_fails_does_others_no_harm(self) -> None:
        found, done = self.answers()
        self.store.find(ANN, lambda _: {"a": 1}["b"])
        self.store.find(BOB, done)
        self.settle()
        self.assertEqual(found, [account(BOB, "bob")])
        self.assertEqual([type(error) for error in self.calls.broken], [KeyError])

    def test_a_commit_that_fails_once(self) -> None:
        """Nothing was answered by then; done again, one by one, everything is."""
        failed = self.failing("commit", sqlite3.SQLITE_IOERR, 1)
        found, done = self.answers()
        for number in (1, 2, 1):
            self.store.keep(letter(number), QUOTA, NOW, done)
        self.store.register(account(EVE, "eve"), None, done)
        self.settle()
        self.assertEqual(failed, [sqlite3.SQLITE_IOERR])
        self.assertEqual(found, [Kept.STORED, Kept.STORED, Kept.KNOWN, Registered.DONE])
        facts = self.ask(self.store.facts, BOB)
        self.assertEqual((facts["waiting_messages"], facts["waiting_bytes"]), (2, 200))

    def test_commits_that_go_on_failing(self) -> None:
        """Messages are refused for now; what else must be written ends the store, and nobody is answered any more."""
        self.failing("commit", sqlite3.SQLITE_IOERR)
        found, done = self.answers()
        self.store.keep(letter(1), QUOTA, NOW, done)
        self.store.publish(BOB, bundle(1), [], done)
        self.store.keep(letter(2), QUOTA, NOW, done)
        self.store.run()
        self.calls.call()
        self.assertEqual(found, [Kept.UNAVAILABLE])
        self.assertEqual(self.calls.failed, ["the database of the server cannot be used: it cannot be"])
        self.assertEqual(self.rows("select * from letters"), [])
        self.assertEqual(self.rows("select * from bundles"), [])

    def test_closed_after_a_failure(self) -> None:
        """What was asked for before the end is done, one by one, though another process was once in the way."""
        self.store._late = 1.0
        self.failing("commit", sqlite3.SQLITE_IOERR, 1)
        found, done = self.answers()
        self.store.keep(letter(1), QUOTA, NOW, done)
        self.store.find(ANN, done)
        self.store.close(done)
        self.settle()
        self.assertEqual(found, [Kept.STORED, account(ANN, "ann"), None])

    def test_damage_ends_it(self) -> None:
        self.failing("select number from accounts", sqlite3.SQLITE_CORRUPT)
        found, done = self.answers()
        self.store.keep(letter(1, EVE, ANN), QUOTA, NOW, done)
        self.store.run()
        self.calls.call()
        ((reason,), answered) = self.calls.failed, found
        self.assertIn("it is damaged", reason)
        self.assertEqual(answered, [])

    def test_too_much_at_once(self) -> None:
        """What waits to be written is bounded; whoever is refused is told in turn, and later there is room again."""
        found, done = self.answers()
        large = MAX_QUEUED // 2 + 1
        self.store.keep(letter(1, size=large), ANYTHING, NOW, done)
        self.store.keep(letter(2, size=large), ANYTHING, NOW, done)
        self.store.find(EVE, done)
        self.settle()
        self.store.keep(letter(3, size=large), QUOTA, NOW, done)
        self.settle()
        self.assertEqual(found, [Kept.STORED, Kept.UNAVAILABLE, None, Kept.FULL])

    def test_a_full_disk(self) -> None:
        """Messages are refused, all else goes on, on the reserve; when there is room again, so do messages."""
        run = self.store.tables.connection.execute
        (pages,) = run("pragma page_count").fetchone()
        run(f"pragma max_page_count = {pages + 4}")
        reserve = self.path.with_suffix(".reserve")
        found, done = self.answers()
        for number in range(10):
            self.store.keep(letter(number, size=3000), QUOTA, NOW, done)
        self.settle()
        stored = found.count(Kept.STORED)
        self.assertTrue(0 < stored < 10)
        self.assertEqual(found, [Kept.STORED] * stored + [Kept.UNAVAILABLE] * (10 - stored))
        self.assertEqual(len(self.ask(self.store.waiting, BOB, 0, 99, -inf)), stored)
        self.assertIs(self.ask(self.store.keep, letter(1), QUOTA, NOW), Kept.UNAVAILABLE)

        def give_up() -> bool:
            run("pragma max_page_count = 100000")
            reserve.unlink()
            return True

        self.assertIsNotNone(self.store._reserve)
        self.patch(self.store._reserve, "give_up", give_up)
        published = bundle(1, os.urandom(40_000))
        self.assertTrue(self.ask(self.store.publish, BOB, published, []))
        self.assertEqual(self.ask(self.store.bundle, BOB), published)
        self.assertFalse(reserve.exists())
        self.calls.now += SHORT
        self.store.turn(0)
        self.assertTrue(reserve.exists())
        for number in range(10):
            result = self.ask(self.store.keep, letter(number, size=3000), QUOTA, NOW)
            self.assertIs(result, Kept.KNOWN if number < stored else Kept.STORED)
        self.assertEqual(self.calls.broken + self.calls.failed, [])

    def test_not_even_the_reserve(self) -> None:
        """What is no message waits until there is room, and with it what comes behind; what was done before is told."""
        run = self.store.tables.connection.execute
        (pages,) = run("pragma page_count").fetchone()
        run(f"pragma max_page_count = {pages}")
        self.assertIsNotNone(self.store._reserve)
        self.patch(self.store._reserve, "give_up", lambda: False)
        found, done = self.answers()
        pauses: list[float] = []
        told: list[object] = []

        def pause(seconds: float) -> None:
            pauses.append(seconds)
            self.calls.call()
            told[:] = found
            if len(pauses) == 3000:  # more than may be within each other
                run("pragma max_page_count = 100000")

        self.patch(self.store, "_pause", pause)
        published = bundle(1, os.urandom(40_000))
        self.store.find(ANN, done)
        self.store.publish(BOB, published, [], done)
        self.store.bundle(BOB, done)
        self.settle()
        self.assertEqual((len(pauses), len(told)), (3000, 1))
        self.assertEqual(found[1:], [True, published])
        self.assertEqual(self.calls.broken + self.calls.failed, [])

    def test_the_log_makes_room(self) -> None:
        """Where the reserve is gone, it is emptied: whoever waits goes on then, and what is behind it."""
        self.ask(self.store.keep, letter(1), QUOTA, NOW)
        self.failing("commit", sqlite3.SQLITE_FULL)
        self.patch(self.store._reserve, "give_up", lambda: False)

        def emptied(database: sqlite3.Connection) -> bool:
            self.store.tables._run = database.execute
            return checkpoint(database)

        self.patch(sqlite, "checkpoint", emptied)
        found, done = self.answers()
        pauses: list[float] = []

        def pause(seconds: float) -> None:
            pauses.append(seconds)
            self.assertLess(len(pauses), 5)

        self.patch(self.store, "_pause", pause)
        self.store.acknowledge(BOB, [(ANN, letter(1).mid)], done)
        self.store.find(ANN, done)
        self.settle()
        self.assertEqual((found, pauses), ([None, account(ANN, "ann")], [sqlite.FULL]))
        self.assertEqual(self.ask(self.store.facts, BOB)["waiting_messages"], 0)
        self.assertEqual(self.calls.broken + self.calls.failed, [])

    def test_nor_does_the_log(self) -> None:
        """Where it cannot be emptied either, for want of room or because another process reads, all goes on waiting."""
        self.failing("commit", sqlite3.SQLITE_FULL, 5)
        self.patch(self.store._reserve, "give_up", lambda: False)
        codes = [sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY] * 2

        def broken(_: object) -> bool:
            error = sqlite3.OperationalError("it cannot be")
            error.sqlite_errorcode = codes.pop()
            raise error

        self.patch(sqlite, "checkpoint", broken)
        self.patch(self.store, "_pause", lambda _: None)
        self.assertTrue(self.ask(self.store.publish, BOB, bundle(1), []))
        self.assertEqual((codes, self.calls.broken + self.calls.failed), ([], []))

    def test_closed_while_there_is_no_room(self) -> None:
        """The end is not held up; what could not be written is not said to be."""
        run = self.store.tables.connection.execute
        (pages,) = run("pragma page_count").fetchone()
        run(f"pragma max_page_count = {pages}")
        self.patch(self.store._reserve, "give_up", lambda: False)
        self.patch(self.store, "_pause", self.fail)
        found, done = self.answers()
        self.store.publish(BOB, bundle(1, os.urandom(40_000)), [], done)
        self.store.close(done)
        self.settle()
        self.assertEqual(found, [None])


class ForeignTests(SqliteCase):
    """Another process works on the tables, too."""

    def setUp(self) -> None:
        super().setUp()
        self.other = Tables(open_database(self.path, new=False))
        self.addCleanup(self.other.connection.close)

    def test_is_noticed_while_nothing_is_asked_for(self) -> None:
        with self.other.transaction():
            self.other.invite(b"i" * 32, uses=3)
        self.store.turn(0)
        self.calls.call()
        self.assertEqual(len(self.calls.foreign), 1)
        self.assertEqual(self.ask(self.store.invitation, b"i" * 32).uses, 3)
        self.assertEqual(len(self.calls.foreign), 1)

    def test_our_own_changes_are_none(self) -> None:
        self.ask(self.store.keep, letter(1), QUOTA, NOW)
        self.store.turn(0)
        self.calls.call()
        self.assertEqual(self.calls.foreign, [])

    def test_what_was_remembered_is_forgotten(self) -> None:
        """An account that the other process deletes is nobody's for the very next message, and its mailbox is empty."""
        self.assertIs(self.ask(self.store.keep, letter(1), QUOTA, NOW), Kept.STORED)
        with self.other.transaction():
            self.other.delete(BOB)
        self.assertIs(self.ask(self.store.keep, letter(2), QUOTA, NOW), Kept.NOBODY)
        self.assertIsNone(self.ask(self.store.connected, BOB, 1))
        self.ask(self.store.register, account(BOB, "bob"), None)
        self.assertEqual([*self.ask(self.store.waiting, BOB, 0, 9, -inf)], [])
        self.assertIs(self.ask(self.store.keep, letter(1), QUOTA, NOW), Kept.STORED)

    def test_a_sender_who_was_deleted_by_another_process(self) -> None:
        """What she sent is still Bob's, under her id, for as long as he has it, whatever expires meanwhile."""
        for number in range(3):
            self.ask(self.store.keep, letter(number), QUOTA, NOW)
        with self.other.transaction():
            self.other.delete(ANN)
        self.store.turn(0)
        with self.store.tables.transaction():
            self.store.tables.expire(NOW - 1)
        found = self.ask(self.store.waiting, BOB, 0, 9, -inf)
        self.assertEqual([one for _, one in found], [letter(number) for number in range(3)])

    def test_a_key_is_given_once(self) -> None:
        """Whichever process hands them out: between them, each of the keys once."""
        self.ask(self.store.publish, BOB, bundle(1), [b"%d" % number for number in range(6)])
        taken = []
        for number in range(4):
            taken.append(self.ask(self.store.take, BOB, f"{number:032}", NOW))
            with self.other.transaction():
                taken.append(self.other.take(BOB, f"{number + 10:032}", NOW))
        self.assertEqual(taken, [b"0", b"1", b"2", b"3", b"4", b"5", None, None])

    def test_a_transaction_that_goes_on_for_too_long(self) -> None:
        """A group that finds the file taken for too long refuses messages; they are taken as soon as it is let go."""
        self.store.tables.connection.execute("pragma busy_timeout = 1")

        def pause(_: float) -> None:
            self.calls.now += BUSY / 10

        self.patch(self.store, "_pause", pause)
        with closing(sqlite3.connect(self.path, isolation_level=None)) as third:
            third.execute("begin immediate")
            self.assertIs(self.ask(self.store.keep, letter(1), QUOTA, NOW), Kept.UNAVAILABLE)
            third.execute("rollback")
        self.calls.now += SHORT
        self.store.turn(0)
        self.assertIs(self.ask(self.store.keep, letter(1), QUOTA, NOW), Kept.STORED)
