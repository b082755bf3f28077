"""Tests of :mod:`sims.client.vault_schema`, and of what :mod:`sims.client.vault` leaves on the disk."""

from __future__ import annotations

import os
import shutil
import stat
import time
from pathlib import Path
from typing import Any, cast

import sqlcipher3  # type: ignore[import-untyped]
from twisted.trial.unittest import SynchronousTestCase

from sims.client.history import CAME, Entry
from sims.client.store import Change
from sims.client.vault import Vault, connect
from sims.client.vault_schema import KEEP_COPY, MIGRATIONS, migrate, version
from sims.errors import Code, LocalError
from sims.test.builders import refusal
from sims.test.test_client_vault import SECRET, change

KEY = bytes(range(32))
FIRST = MIGRATIONS[:1]
ONE, TWO, THREE = ("create table one (a)",), ("create table two (a)", "insert into two values (2)"), ("drop table one",)


class FolderCase(SynchronousTestCase):
    """A folder with a key, and no vault yet."""

    def setUp(self) -> None:
        self.folder = Path(cast("str", self.mktemp()))
        self.folder.mkdir(parents=True)
        self.path = self.folder / "vault"
        self.wal = self.folder / "vault-wal"
        (self.folder / "vault.key").write_bytes(KEY)

    def database(self) -> Any:
        """The vault's file, opened by hand."""
        database = connect(self.path, KEY)
        self.addCleanup(database.close)
        database.execute("pragma journal_mode = wal")
        return database

    def tables(self, database: Any) -> set[str]:
        rows = database.execute("select name from sqlite_master where type = 'table' and name not like 'sqlite%'")
        return {name for (name,) in rows}

    def copies(self) -> list[str]:
        return sorted(path.name for path in self.folder.glob("vault.of-version-*"))


class MigrateTests(FolderCase):
    def test_an_empty_file(self) -> None:
        """It gets everything, in order, and there is nothing to copy; the next time nothing is done."""
        database = self.database()
        for _ in range(2):
            migrate(database, self.path, (ONE, TWO, THREE))
            self.assertEqual((self.tables(database), version(database, self.path, (ONE, TWO, THREE))), ({"two"}, 3))
            self.assertEqual(database.execute("select * from two").fetchall(), [(2,)])
        self.assertEqual(self.copies(), [])

    def test_several_steps(self) -> None:
        """Those alone that it does not have; what was in it stays; the copy is as it was before all of them."""
        database = self.database()
        migrate(database, self.path, (ONE,))
        database.execute("insert into one values ('kept')")
        migrate(database, self.path, (ONE, TWO, ("insert into two select a from one",)))
        self.assertEqual(database.execute("select a from two order by a").fetchall(), [(2,), ("kept",)])
        self.assertEqual(self.copies(), ["vault.of-version-1"])
        copy = connect(self.folder / "vault.of-version-1", KEY)
        self.addCleanup(copy.close)
        self.assertEqual((self.tables(copy), copy.execute("select a from one").fetchall()), ({"one"}, [("kept",)]))

    def test_fails(self) -> None:
        """In the midst of it: the database is as it was."""
        database = self.database()
        migrate(database, self.path, (ONE,))
        for bad in (("create table two (a)",), ("create table more (a)", "nonsense"), ("insert into none values (1)",)):
            with self.assertRaises(sqlcipher3.Error):
                migrate(database, self.path, (ONE, TWO, THREE, bad))
            self.assertEqual((self.tables(database), version(database, self.path)), ({"one"}, 1))
            self.assertFalse(database.in_transaction)

    def test_without_a_copy(self) -> None:
        """While somebody reads it, so that it cannot be copied whole: nothing changes."""
        database, reader = self.database(), self.database()
        migrate(database, self.path, (ONE,))
        database.execute("pragma busy_timeout = 0")
        reader.execute("begin")
        self.assertEqual(reader.execute("select count(*) from one").fetchone(), (0,))
        database.execute("insert into one values (1)")
        error = refusal(LocalError, migrate, database, self.path, (ONE, TWO))
        self.assertEqual(error.code, Code.UNAVAILABLE)
        self.assertEqual((self.tables(database), self.copies()), ({"one"}, []))
        reader.execute("rollback")
        migrate(database, self.path, (ONE, TWO))
        self.assertEqual(self.tables(database), {"one", "two"})

    def test_of_a_newer_version(self) -> None:
        """It is not touched; neither is one whose version is nonsense."""
        database = self.database()
        for number in (2, 99, -1):
            database.execute(f"pragma user_version = {number}")
            error = refusal(LocalError, migrate, database, self.path, (ONE,))
            self.assertEqual(error.code, Code.UNAVAILABLE)
            self.assertIn(f"newer version of this program ({number}; this one knows 1)", error.text)
            self.assertEqual((self.tables(database), self.copies()), (set(), []))

    def test_the_copy_goes(self) -> None:
        """After a week: it holds keys that the vault itself has forgotten."""
        database = self.database()
        migrate(database, self.path, (ONE,))
        migrate(database, self.path, (ONE, TWO))
        for later, kept in (
            (0, ["vault.of-version-1"]),
            (KEEP_COPY - 60, ["vault.of-version-1"]),
            (KEEP_COPY + 60, []),
        ):
            migrate(database, self.path, (ONE, TWO), lambda later=later: time.time() + later)  # type: ignore[misc]
            self.assertEqual(self.copies(), kept)


class OldVaultTests(FolderCase):
    """A vault as the first version of this program wrote it."""

    def setUp(self) -> None:
        super().setUp()
        database = self.database()
        migrate(database, self.path, FIRST)
        run = database.execute
        run("insert into facts values ('name', ?)", (SECRET,))
        run("insert into conversations values ('x', ?)", (SECRET,))
        run("insert into seen values ('x', ?, 5)", (b"number",))
        database.close()

    def opened(self) -> Vault:
        vault = Vault(self.folder)
        self.addCleanup(vault.close)
        return vault

    def check(self, vault: Vault) -> None:
        """Nothing of it is lost, and it takes what there is now."""
        saved = vault.load()
        self.assertEqual((saved.values, saved.conversations), ({"name": SECRET}, {"x": SECRET}))
        self.assertTrue(vault.has_seen("x", b"number"))
        vault.commit(change())
        self.assertEqual(version(vault._database, self.path), len(MIGRATIONS))

    def test_is_brought_up(self) -> None:
        """A copy is kept beside it, for its owner alone, that nobody can read."""
        self.check(self.opened())
        self.assertEqual(self.copies(), ["vault.of-version-1"])
        copy = self.folder / "vault.of-version-1"
        self.assertEqual(stat.S_IMODE(copy.stat().st_mode), 0o600)
        for plain in (SECRET, b"SQLite", b"create table"):
            self.assertNotIn(plain, copy.read_bytes())

    def test_is_put_back(self) -> None:
        """The copy in the vault's place is the vault of before."""
        vault = self.opened()
        vault.commit(Change(values={"name": b"later"}))
        vault.close()
        shutil.move(self.folder / "vault.of-version-1", self.path)
        self.check(self.opened())

    def test_the_copy_goes_in_time(self) -> None:
        """Though the client is never closed; and at once when what was said with anybody is deleted."""
        vault = self.opened()
        copy = self.folder / "vault.of-version-1"
        for age, kept in ((KEEP_COPY - 60, True), (KEEP_COPY + 60, False)):
            os.utime(copy, (time.time() - age,) * 2)
            vault.tidy()
            self.assertEqual(copy.exists(), kept)
        copy.write_bytes(b"a copy")
        vault.commit(Change(values={"name": b"later"}))
        self.assertTrue(copy.exists())
        vault.commit(Change(deleted=("x",)))
        self.assertFalse(copy.exists())


class FreeTests(FolderCase):
    """What is deleted makes room."""

    def setUp(self) -> None:
        super().setUp()
        self.vault = Vault(self.folder)
        self.addCleanup(self.vault.close)

    def say(self, peer: str, count: int) -> None:
        entries = (
            Entry(id=f"{peer} {number:06}".encode(), sender=peer, peer=peer, text="x" * 4000, state=CAME, time=1)
            for number in range(count)
        )
        self.vault.commit(Change(history=tuple(entries)))

    def pages(self) -> tuple[int, int]:
        """How many there are, and how many of them are free."""
        run = self.vault._database.execute
        return run("pragma page_count").fetchone()[0], run("pragma freelist_count").fetchone()[0]

    def test_makes_room(self) -> None:
        """Pages are free for what comes next; the file gets smaller where that is worth its while."""
        self.say("a", 300)
        self.say("b", 30)
        self.say("c", 200)
        before, _ = self.pages()
        self.vault.commit(Change(deleted=("b",)))  # little: all the rest would be written anew
        pages, free = self.pages()
        self.assertEqual(pages, before)
        self.assertGreater(free, 25)
        self.vault.commit(Change(deleted=("a",)))  # much
        pages, free = self.pages()
        self.assertLess(pages, before // 2)
        self.assertEqual(free, 0)
        self.assertEqual(self.wal.stat().st_size, 0)
        self.vault.commit(Change(deleted=("c",)))
        self.assertLess(self.pages()[0], 60)

    def test_when_somebody_reads(self) -> None:
        """A backup, perhaps: nobody waits for it."""
        self.say("a", 50)
        self.say("b", 50)
        self.vault.load()  # whatever was put off is in its tables
        reader = self.database()
        reader.execute("begin")
        self.assertEqual(reader.execute("select count(*) from history").fetchone(), (100,))
        began = time.monotonic()
        self.vault.commit(Change(deleted=("a",)))
        self.assertLess(time.monotonic() - began, 2)  # SQLite itself would wait for 5 seconds
        self.assertGreater(self.wal.stat().st_size, 0)
        self.assertEqual(reader.execute("select count(*) from history").fetchone(), (100,))
        reader.execute("rollback")
        self.assertEqual(reader.execute("select count(*) from history").fetchone(), (50,))
        self.vault.tidy()
        self.assertEqual(self.wal.stat().st_size, 0)
        self.assertEqual(self.vault._database.execute("pragma busy_timeout").fetchone(), (5000,))


class TidyTests(FolderCase):
    def test_nothing_is_left(self) -> None:
        """Neither in the log, nor on a page that is free."""
        vault = Vault(self.folder)
        self.addCleanup(vault.close)
        vault.commit(Change(conversations={"x": SECRET * 1000}))
        vault.commit(Change(conversations={"x": None}))
        self.assertGreater(self.wal.stat().st_size, len(SECRET) * 1000)
        vault.tidy()
        self.assertEqual(self.wal.stat().st_size, 0)
        self.assertEqual(vault._database.execute("pragma secure_delete").fetchone(), (1,))
        vault.tidy()
        vault.close()
        vault.tidy()

    def test_when_somebody_reads(self) -> None:
        """A backup, perhaps: it waits for nothing, and does it the next time."""
        vault = Vault(self.folder)
        self.addCleanup(vault.close)
        vault.commit(change())
        vault.load()  # whatever was put off is in its tables
        reader = self.database()
        reader.execute("begin")
        self.assertEqual(reader.execute("select count(*) from people").fetchone(), (1,))
        vault.commit(change(2))
        began = time.monotonic()
        vault.tidy()
        self.assertLess(time.monotonic() - began, 2)
        self.assertGreater(self.wal.stat().st_size, 0)
        reader.execute("rollback")
        vault.tidy()
        self.assertEqual(self.wal.stat().st_size, 0)
        self.assertEqual([*vault.load().letters], [1, 2])

    def test_after_a_crash(self) -> None:
        """What one that was killed has left in its log goes, though nothing is committed."""
        vault = Vault(self.folder)
        self.addCleanup(vault.close)
        vault.commit(Change(values={"name": SECRET}))
        killed = self.folder.with_name("killed")
        killed.mkdir()
        for name in ("vault", "vault-wal", "vault.key"):
            shutil.copy(self.folder / name, killed / name)
        again = Vault(killed)
        self.addCleanup(again.close)
        self.assertEqual(again.load().values, {"name": SECRET})
        again.tidy()
        self.assertEqual((killed / "vault-wal").stat().st_size, 0)
