"""What stands in the files of the store in SQLite: everything that was answered, for its owner alone, and no more."""

from __future__ import annotations

import os
import sqlite3
import stat
from contextlib import closing
from math import inf
from pathlib import Path

from sims.errors import Code, LocalError
from sims.server.interfaces import Kept, Letter
from sims.server.sqlite import SqliteStore
from sims.server.sqlite_file import APPLICATION, MIGRATIONS, Reserve, open_database
from sims.server.sqlite_tables import Tables
from sims.server.sqlite_upkeep import CHECKPOINT, CHECKPOINT_AGAIN, EXPIRE
from sims.test.sqlite_case import SqliteCase
from sims.test.store_contract import ANN, BOB, DAY, EVE, NOW, QUOTA, account, bundle, letter


def _ignore(_: Kept) -> None:
    pass


class LastingTests(SqliteCase):
    """What was answered is there again."""

    def fill(self) -> None:
        self.ask(self.store.connected, ANN, 7)
        self.ask(self.store.invite, b"i" * 32)
        self.ask(self.store.publish, BOB, bundle(3), [b"one", b"two"])
        self.assertEqual(self.ask(self.store.take, BOB, ANN, NOW), b"one")
        for number in range(3):
            self.ask(self.store.keep, letter(number), QUOTA, NOW)
        self.ask(self.store.acknowledge, BOB, [(ANN, letter(1).mid)])
        self.ask(self.store.written, BOB, ANN)

    def check(self, store: SqliteStore) -> None:
        self.assertEqual(self.ask(store.find, ANN), account(ANN, "ann", 7))
        self.assertEqual(self.ask(store.invitation, b"i" * 32).uses, 1)
        self.assertEqual(self.ask(store.bundle, BOB), bundle(3))
        self.assertIsNone(self.ask(store.take, BOB, ANN, NOW))
        self.assertEqual(self.ask(store.take, BOB, EVE, NOW), b"two")
        self.assertEqual([one for _, one in self.ask(store.waiting, BOB, 0, 9, -inf)], [letter(0), letter(2)])
        self.assertIs(self.ask(store.keep, letter(1), QUOTA, NOW), Kept.KNOWN)
        friends = [self.ask(store.keep, letter(100 + number), QUOTA, NOW) for number in range(20)]
        self.assertEqual(friends, [Kept.STORED] * 20)

    def test_after_the_end(self) -> None:
        self.fill()
        self.close()
        self.assertEqual(sorted(path.name for path in self.folder.iterdir()), ["server.db", "server.reserve"])
        self.check(self.open(self.path))

    def test_after_a_crash(self) -> None:
        """The copy is taken while the store runs, before anything was worked into the file."""
        self.fill()
        self.check(self.copied())

    def test_nothing_is_answered_before_it_lasts(self) -> None:
        """Whoever looks into the file at the moment of an answer finds what it says."""
        seen: list[int] = []

        def stored(_: Kept) -> None:
            with closing(sqlite3.connect(self.path)) as other:
                seen.append(other.execute("select count(*) from letters").fetchone()[0])

        for number in range(5):
            self.store.keep(letter(number), QUOTA, NOW, stored)
        self.settle()
        self.assertEqual(seen, [5] * 5)

    def test_numbers_are_never_used_again(self) -> None:
        """Whoever has read up to the newest message is given the next one though all were forgotten meanwhile."""
        self.ask(self.store.keep, letter(1), QUOTA, NOW - 40 * DAY)
        ((number, _),) = self.ask(self.store.waiting, BOB, 0, 9, -inf)
        self.calls.now += EXPIRE
        self.store.turn(0)
        self.assertEqual(self.rows("select count(*) from letters"), [(0,)])
        self.ask(self.store.keep, letter(2), QUOTA, NOW)
        self.assertEqual([one for _, one in self.ask(self.store.waiting, BOB, number, 9, -inf)], [letter(2)])

    def test_expires_in_small_steps(self) -> None:
        for number in range(600):
            self.store.keep(
                letter(number), QUOTA._replace(messages=inf, stranger_messages=inf), NOW - 40 * DAY, _ignore
            )
        self.settle()
        left = []
        self.calls.now += EXPIRE
        for _ in range(4):
            self.store.turn(0)
            left += self.rows("select count(*) from letters")
            self.calls.now += 1
        self.assertEqual(left, [(344,), (88,), (0,), (0,)])
        self.assertEqual(self.rows("select * from pairs"), [])


class ForgottenTests(SqliteCase):
    """What is to be forgotten is in no file, :data:`CHECKPOINT` seconds after it was forgotten."""

    def wait(self) -> None:
        self.calls.now += CHECKPOINT + CHECKPOINT_AGAIN
        self.store.turn(0)
        self.assertEqual(self.calls.broken, [])

    def test_messages(self) -> None:
        """Neither what was acknowledged nor the key of its mask; what waits is there, and so is its key."""
        texts = [b"text %3d " % number + os.urandom(400) for number in range(70)]
        letters = [Letter(ANN, BOB, number.to_bytes(16, "big"), text) for number, text in enumerate(texts)]
        for one in letters:
            self.store.keep(one, QUOTA._replace(stranger_messages=inf), NOW, _ignore)
        self.settle()
        found = self.rows("select k.key, b.body from keys k join bodies b using (number) order by number")
        self.assertFalse([text for text in texts if self.on_disk(text)])
        self.assertTrue(all(self.on_disk(key) and self.on_disk(body) for key, body in found))
        gone = [number for number in range(70) if number % 7]
        for number in gone:
            self.ask(self.store.acknowledge, BOB, [(ANN, letters[number].mid)])
        self.wait()
        on_disk = [number for number, (key, _) in enumerate(found) if self.on_disk(key)]
        self.assertEqual(on_disk, [number for number in range(70) if not number % 7])

    def test_one_time_keys(self) -> None:
        raws = [os.urandom(1250) for _ in range(30)]
        self.ask(self.store.publish, BOB, bundle(1), raws)
        keys = [key for (key,) in self.rows("select key from slots order by number")]
        self.assertTrue(all(self.on_disk(key) for key in keys))
        taken = [self.ask(self.store.take, BOB, f"{number:032}", NOW) for number in range(20)]
        self.assertEqual(taken, raws[:20])
        self.wait()
        self.assertEqual([self.on_disk(key) for key in keys], [False] * 20 + [True] * 10)
        self.ask(self.store.publish, BOB, bundle(1), [b"new %d" % number for number in range(20)])
        self.assertEqual(self.rows("select count(*), sum(used) from slots"), [(30, 30)])  # they are used again

    def test_an_account(self) -> None:
        published = bundle(1, b"of Bob's" * 40)
        self.ask(self.store.register, account(EVE, "evelyn-long-name"), None)
        self.ask(self.store.publish, EVE, published, [b"one"])
        self.assertTrue(self.on_disk(b"evelyn-long-name") and self.on_disk(published.raw))
        ((key,),) = self.rows("select key from slots")
        self.ask(self.store.delete, EVE)
        self.ask(self.store.find, "")
        self.calls.now += EXPIRE  # nothing of hers waits, so that her id goes with the next look
        self.store.turn(0)
        self.wait()
        for said in (b"evelyn-long-name", published.raw, key, EVE.encode()):
            self.assertFalse(self.on_disk(said))
        self.assertFalse(self.store.tables.stale)

    def test_while_another_process_reads(self) -> None:
        """What it may still read stays; it goes as soon as that has ended."""
        self.ask(self.store.keep, letter(1), QUOTA, NOW)
        ((key,),) = self.rows("select key from keys")
        with closing(sqlite3.connect(self.path)) as other:
            other.execute("begin")
            other.execute("select * from letters").fetchall()
            self.ask(self.store.acknowledge, BOB, [(ANN, letter(1).mid)])
            self.wait()
            self.assertTrue(self.on_disk(key))
        self.wait()
        self.assertFalse(self.on_disk(key))


class FileTests(SqliteCase):
    """The files, and what is wrong with them."""

    def refused(self, code: Code, said: str) -> None:
        error = self.assertRaises(LocalError, open_database, self.path)
        self.assertEqual(error.code, code)
        self.assertIn(said, error.text)
        self.assertNotIn("\n", error.text)

    def test_are_their_owners_alone(self) -> None:
        before = os.umask(0)
        try:
            path = self.folder / "other.db"
            store = self.open(path)
            self.ask(store.find, ANN)
        finally:
            os.umask(before)
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in self.folder.glob("other*")}
        self.assertEqual(modes, dict.fromkeys(["other.db", "other.db-wal", "other.db-shm", "other.reserve"], 0o600))

    def test_damaged(self) -> None:
        self.close()
        self.path.write_bytes(b"SQLite format 3\0" + os.urandom(8000))
        self.refused(Code.MALFORMED, "is damaged")

    def test_something_else(self) -> None:
        self.close()
        self.path.unlink()
        with closing(sqlite3.connect(self.path)) as other:
            other.execute("create table accounts (id)")
        self.refused(Code.MALFORMED, "is not a database of this server's")

    def test_of_a_newer_program(self) -> None:
        self.close()
        with closing(sqlite3.connect(self.path)) as other:
            other.execute(f"pragma user_version = {len(MIGRATIONS) + 1}")
        before = self.path.read_bytes()
        self.refused(Code.UNAVAILABLE, "was written by a newer version")
        self.assertEqual(self.path.read_bytes(), before)

    def test_not_there(self) -> None:
        path = self.folder / "none.db"
        error = self.assertRaises(LocalError, open_database, path, new=False)
        self.assertEqual((error.code, path.exists()), (Code.UNAVAILABLE, False))

    def test_the_reserve_takes_up_room(self) -> None:
        path = self.folder / "reserve"
        reserve = Reserve(path, 100_000)
        self.assertTrue(reserve.take() and reserve.take())
        found = path.stat()
        self.assertEqual((found.st_size, stat.S_IMODE(found.st_mode)), (100_000, 0o600))
        self.assertGreaterEqual(found.st_blocks * 512, 100_000)
        self.assertEqual([reserve.give_up(), reserve.give_up(), path.exists()], [True, False, False])

    def test_the_room_beside_the_reserve(self) -> None:
        """That of its disk; none is where nobody knows."""
        usage = os.statvfs(self.folder)
        self.patch(os, "statvfs", lambda path: {self.folder: usage}[path])
        self.assertEqual(Reserve(self.folder / "reserve").room(), usage.f_bavail * usage.f_frsize)
        self.patch(os, "statvfs", os.stat)
        self.assertEqual(Reserve(self.folder / "none" / "reserve").room(), 0)


OLD = ("create table first (what text)", "create table second (what text); insert into second select what from first")


class MigrationTests(SqliteCase):
    """From version 1, made by hand, to version 2."""

    def setUp(self) -> None:
        self.path = Path(self.mktemp())
        self.backup = self.path.with_name(f"{self.path.name}.before-2")
        with closing(open_database(self.path, migrations=OLD[:1])) as made:
            self.assertEqual(made.execute("pragma application_id").fetchone(), (APPLICATION,))
            made.execute("insert into first values ('old')")

    def test_goes_through(self) -> None:
        """What was there is there, and no copy is left: it would keep what is to be forgotten."""
        for _ in range(2):
            with closing(open_database(self.path, migrations=OLD)) as migrated:
                self.assertEqual(migrated.execute("select * from second").fetchall(), [("old",)])
                self.assertEqual(migrated.execute("pragma user_version").fetchone(), (2,))
        self.assertFalse(self.backup.exists())

    def test_fails(self) -> None:
        """Nothing has changed, and the copy is named, and is its owner's alone."""
        bad = (OLD[0], "drop table first; insert into nowhere values (1)")
        error = self.assertRaises(LocalError, open_database, self.path, migrations=bad)
        self.assertIn(str(self.backup), error.text)
        for path in (self.path, self.backup):
            with closing(sqlite3.connect(path)) as found:
                self.assertEqual(found.execute("select * from first").fetchall(), [("old",)])
                self.assertEqual(found.execute("pragma user_version").fetchone(), (1,))
        self.assertEqual(stat.S_IMODE(self.backup.stat().st_mode), 0o600)

    def test_is_the_servers_alone_to_do(self) -> None:
        error = self.assertRaises(LocalError, open_database, self.path, migrations=OLD, new=False)
        self.assertIn("start the server", error.text)

    def test_ends_at_the_tables_of_today(self) -> None:
        with closing(open_database(Path(self.mktemp()))) as new, Tables(new).transaction():
            self.assertEqual(new.execute("pragma user_version").fetchone(), (len(MIGRATIONS),))
