"""How the file of the store in SQLite is opened: what must be there, and what must not be left beside it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from sims.errors import Code, LocalError
from sims.server.sqlite_file import MIGRATIONS, _set_up, open_database

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
