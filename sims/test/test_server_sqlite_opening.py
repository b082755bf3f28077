"""How the file of the store in SQLite is opened: what must be there, and what must not be left beside it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from sims.errors import Code, LocalError
from sims.server import sqlite_file
from sims.server.interfaces import Kept
from sims.server.sqlite_file import MIGRATIONS, Reserve, _set_up, open_database
from sims.test.sqlite_case import SqliteCase
from sims.test.store_contract import ANN, NOW, QUOTA, account, letter

OLD = ("create table first (what text)", "create table second (what text)", "create table third (what text)")


class OpeningTests(SynchronousTestCase):
    """A file in a folder of its own."""

    def setUp(self) -> None:
        self.path = Path(self.mktemp())
        self.path.mkdir()
        self.path /= "server.db"

    def test_where_there_can_be_no_log(self) -> None:
        """It is refused: what is answered would not last, and others could not work beside the server."""
        with closing(sqlite3.connect(":memory:", isolation_level=None)) as database:
            error = self.assertRaises(LocalError, _set_up, database, self.path, MIGRATIONS, True)
            self.assertEqual(database.execute("select count(*) from sqlite_master").fetchone(), (0,))
        self.assertIs(error.code, Code.UNAVAILABLE)
        self.assertIn("another file system", error.text)

    def test_a_crash_at_the_end_of_a_migration(self) -> None:
        """The copy of before it goes with the next start, of the server alone; nothing else does."""
        with closing(open_database(self.path, migrations=OLD)):
            pass
        names = ["server.db.before-2", "server.db.before-3", "server.db.before-4", "server.db.before-mine"]
        copies = [self.path.with_name(name) for name in names]
        for copy in copies:
            copy.write_bytes(b"what is to be forgotten")
        with closing(open_database(self.path, migrations=OLD, new=False)):
            self.assertEqual([copy.exists() for copy in copies], [True] * 4)
        with closing(open_database(self.path, migrations=OLD)):
            self.assertEqual([copy.exists() for copy in copies], [False, False, True, True])


class FullDiskTests(SqliteCase):
    """A server is started where there is no room, but for its own reserve."""

    def setUp(self) -> None:
        super().setUp()
        self.reserve = self.path.with_suffix(".reserve")
        self.close()
        self.needed = True
        self.patch(Reserve, "is_needed", lambda _: self.needed)

    def no_reserve(self) -> None:
        """There is none, nor does it fit."""
        self.reserve.unlink()
        self.reserve.mkdir()

    def refused(self, code: Code) -> None:
        self.assertIs(self.assertRaises(LocalError, self.open, self.path).code, code)

    # --- what a crash has left in the log does not fit into the file ---

    def log_fails(self, code: int) -> None:
        def fail(_: object) -> bool:
            raise failure(code)

        self.patch(sqlite_file, "checkpoint", fail)

    def check_starts(self) -> None:
        """What there is can be read, and messages are refused."""
        for code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_FSYNC):
            self.log_fails(code)
            store = self.open(self.path)
            run = store.tables.connection.execute
            (pages,) = run("pragma page_count").fetchone()
            run(f"pragma max_page_count = {pages}")
            self.assertEqual(self.ask(store.find, ANN), account(ANN, "ann"))
            self.assertIs(self.ask(store.keep, letter(1, size=20_000), QUOTA, NOW), Kept.UNAVAILABLE)
            self.assertIsNotNone(store._short)
            store.tables.connection.close()

    def test_the_log_stays(self) -> None:
        """And so does the reserve, for what must be written."""
        self.check_starts()
        self.assertTrue(self.reserve.is_file())

    def test_the_log_stays_and_there_is_no_reserve(self) -> None:
        self.no_reserve()
        self.check_starts()

    def test_another_error_with_the_log(self) -> None:
        """Nobody knows what comes of that: it is not begun with."""
        self.needed = False  # or else the last two may be for want of room
        for code in (sqlite3.SQLITE_IOERR_READ, sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_FSYNC):
            self.log_fails(code)
            self.refused(Code.UNAVAILABLE)
            self.assertTrue(self.reserve.is_file())

    # --- not even what SQLite has beside a file does ---

    def index_needs_the_reserve(self) -> None:
        def set_up(*args: Any) -> None:
            if self.reserve.is_file() or not self.given_up:
                raise failure(sqlite3.SQLITE_IOERR_SHMSIZE)
            _set_up(*args)

        def give_up(_: Reserve) -> bool:
            self.given_up = self.reserve.is_file()
            if self.given_up:
                self.no_reserve()
            return self.given_up

        self.given_up = False
        self.patch(sqlite_file, "_set_up", set_up)
        self.patch(Reserve, "give_up", give_up)

    def test_starts(self) -> None:
        """The reserve is given up; what there is can be read, and messages are refused."""
        self.index_needs_the_reserve()
        store = self.open(self.path)
        self.assertFalse(self.reserve.is_file())
        self.assertEqual(self.ask(store.find, ANN), account(ANN, "ann"))
        self.assertIs(self.ask(store.keep, letter(1), QUOTA, NOW), Kept.UNAVAILABLE)

    def test_without_a_reserve(self) -> None:
        """Nothing can be done then, nor is anything changed."""
        self.no_reserve()
        self.index_needs_the_reserve()
        before = self.path.read_bytes()
        self.refused(Code.UNAVAILABLE)
        self.assertEqual(self.path.read_bytes(), before)

    def test_another_reason(self) -> None:
        """The reserve stays where it would not help: there is room, or the file is none of ours."""
        self.index_needs_the_reserve()
        self.needed = False
        self.refused(Code.UNAVAILABLE)
        self.needed = True
        self.patch(sqlite_file, "_set_up", _set_up)
        self.path.write_bytes(b"no database" * 1000)
        self.refused(Code.MALFORMED)
        self.assertTrue(self.reserve.is_file())


def failure(code: int) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("it cannot be")
    error.sqlite_errorcode = code
    return error
