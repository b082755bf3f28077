"""How the file of the store in SQLite is opened: what must be there, and what must not be left beside it."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from sims.errors import Code, LocalError
from sims.server import sqlite_file
from sims.server.sqlite_file import MIGRATIONS, Reserve, _set_up, checkpoint, open_database
from sims.test.sqlite_case import SqliteCase
from sims.test.store_contract import ANN, account

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
        self.patch(sqlite_file, "checkpoint", self.checkpoint)

    def checkpoint(self, database: sqlite3.Connection) -> bool:
        """What a crash has left in the log fits into the file only if the reserve does not lie beside it."""
        if self.reserve.exists():
            error = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorcode = sqlite3.SQLITE_FULL
            raise error
        os.mkdir(self.reserve)  # nor does the reserve fit any more
        return checkpoint(database)

    def refused(self, code: Code) -> None:
        self.assertIs(self.assertRaises(LocalError, self.open, self.path).code, code)

    def test_starts(self) -> None:
        """The reserve is given up; what there is can be read, and messages are refused."""
        store = self.open(self.path)
        self.assertFalse(self.reserve.is_file())
        self.assertEqual(self.ask(store.find, ANN), account(ANN, "ann"))
        self.assertIsNotNone(store._short)

    def test_without_a_reserve(self) -> None:
        """Nothing can be done then, nor is anything changed."""
        self.reserve.unlink()
        os.mkdir(self.reserve)
        before = self.path.read_bytes()
        self.refused(Code.UNAVAILABLE)
        self.assertEqual(self.path.read_bytes(), before)

    def test_another_reason(self) -> None:
        """The reserve stays where it would not help: there is room, or the file is none of ours."""
        self.needed = False
        self.refused(Code.UNAVAILABLE)
        self.needed = True
        self.path.write_bytes(b"no database" * 1000)
        self.refused(Code.MALFORMED)
        self.assertTrue(self.reserve.is_file())
