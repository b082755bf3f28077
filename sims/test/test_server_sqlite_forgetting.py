"""What the store in SQLite has to forget goes from the file as well, whoever deleted it, and as soon as it can."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import Any

from sims.server import sqlite_tables, sqlite_upkeep
from sims.server.interfaces import Kept
from sims.server.sqlite_file import checkpoint, open_database
from sims.server.sqlite_tables import Tables
from sims.server.sqlite_upkeep import CHECKPOINT, CHECKPOINT_AGAIN, EXPIRE
from sims.test.sqlite_case import SqliteCase
from sims.test.store_contract import EVE, NOW, QUOTA, account, letter


class ForgetTests(SqliteCase):
    """Somebody is deleted in another process, or shortly before the end of this one."""

    def setUp(self) -> None:
        super().setUp()
        self.ask(self.store.register, account(EVE, "evelyn-long-name"), None)
        self.wait()
        self.assertTrue(self.on_disk(b"evelyn-long-name"))

    def wait(self) -> None:
        """Nobody asks for anything, for as long as what is deleted may stay."""
        for _ in range(int(EXPIRE + CHECKPOINT + CHECKPOINT_AGAIN)):
            self.calls.now += 1
            self.store.turn(0)
        self.calls.call()
        self.assertEqual(self.calls.broken, [])

    def remove(self) -> None:
        with closing(open_database(self.path, new=False)) as connection:
            tables = Tables(connection)
            with tables.transaction():
                tables.delete(EVE)
                tables.expire(NOW)  # or else the server has something of its own to forget

    def test_while_the_server_is_idle(self) -> None:
        self.remove()
        self.wait()
        self.assertFalse(self.on_disk(b"evelyn-long-name"))
        self.assertFalse(self.store.tables.stale)

    def test_and_this_one_is_killed(self) -> None:
        """The file is written anew soon after the next start."""
        self.ask(self.store.delete, EVE)
        self.check_next()

    def test_while_no_server_runs(self) -> None:
        self.close()
        self.remove()
        self.check_next()

    def check_next(self) -> None:
        vacuums: list[str] = []
        self.store = self.copied()
        self.store.tables.connection.set_trace_callback(
            lambda statement: vacuums.append(statement) if statement == "vacuum" else None
        )
        self.assertTrue(self.store.tables.stale)
        self.wait()
        self.assertEqual((vacuums, self.store.tables.stale), (["vacuum"], False))

    def test_not_while_another_writes(self) -> None:
        """The file is written anew when that has ended, though the log could be emptied before."""
        self.ask(self.store.delete, EVE)
        scrub = self.store.tables.scrub
        self.patch(self.store.tables, "scrub", self.busy)
        self.wait()
        self.assertTrue(self.store.tables.stale)
        self.patch(self.store.tables, "scrub", scrub)
        self.wait()
        self.assertFalse(self.store.tables.stale)

    def test_not_while_there_is_no_room(self) -> None:
        """It is tried once in a while only, for it fills the disk; messages are kept meanwhile."""
        self.ask(self.store.delete, EVE)
        run = self.store.tables.connection.execute
        tried: list[float] = []
        full = True

        def failing(text: str, *values: Any) -> sqlite3.Cursor:
            if text == "vacuum":
                tried.append(self.calls.now)
                if full:
                    error = sqlite3.OperationalError("it is full")
                    error.sqlite_errorcode = sqlite3.SQLITE_FULL
                    raise error
            return run(text, *values)

        self.store.tables._run = failing
        self.calls.now += CHECKPOINT
        quota = QUOTA._replace(stranger_messages=60)
        for number in range(60):
            self.assertIs(self.ask(self.store.keep, letter(number), quota, NOW), Kept.STORED)
            self.calls.now += 1
        self.assertTrue(1 <= len(tried) <= 2, tried)
        self.assertTrue(self.store.tables.stale)
        full = False
        self.wait()
        self.assertFalse(self.store.tables.stale)
        self.assertFalse(self.on_disk(b"evelyn-long-name"))

    def test_only_where_there_is_room_for_it(self) -> None:
        """Twice the file's size. The log is emptied all the same, as often as ever."""
        self.ask(self.store.delete, EVE)
        room = 2 * self.path.stat().st_size - 1
        self.patch(self.store._reserve, "room", lambda: room)
        vacuum = self.patch(self.store.tables, "_run", self.no_vacuum)
        emptied: list[float] = []

        def counted(database: sqlite3.Connection) -> bool:
            emptied.append(self.calls.now)
            return checkpoint(database)

        empty = self.patch(sqlite_upkeep, "checkpoint", counted)
        self.wait()
        empty.restore()
        self.assertTrue(self.store.tables.stale)
        self.assertEqual(self.path.with_name("server.db-wal").stat().st_size, 0)
        self.assertTrue(1 <= len(emptied) <= 1 + (EXPIRE + CHECKPOINT) / CHECKPOINT, emptied)
        vacuum.restore()
        room = 100 * room
        self.wait()
        self.assertFalse(self.store.tables.stale)

    def no_vacuum(self, text: str, *values: Any) -> sqlite3.Cursor:
        self.assertNotEqual(text, "vacuum")
        return self.store.tables.connection.execute(text, *values)

    def test_not_while_messages_are_refused(self) -> None:
        self.ask(self.store.delete, EVE)
        self.patch(self.store._reserve, "take", lambda: False)
        self.store._short = self.calls.now
        self.wait()
        self.assertTrue(self.store.tables.stale)
        self.patch(self.store._reserve, "take", lambda: True)
        self.wait()
        self.assertFalse(self.store.tables.stale)

    def busy(self, _: float) -> None:
        error = sqlite3.OperationalError("it is locked")
        error.sqlite_errorcode = sqlite3.SQLITE_BUSY
        raise error

    def test_a_large_file_stays(self) -> None:
        """And nobody tries again and again."""
        self.patch(sqlite_tables, "SMALL", 1000)
        self.ask(self.store.delete, EVE)
        self.wait()
        self.assertEqual((self.store.tables.stale, self.store._changed), (False, None))
