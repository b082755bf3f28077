"""Nothing accepted is lost, doubled or put out of order, whatever is killed: the short forms (docs/testing.rst)."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from tests.crashes import Talk, kill_loop
from tests.forgetful import ForgetfulDisk, Unavailable
from tests.full_disk import SmallDisk

if TYPE_CHECKING:
    from unittest import SkipTest, TestCase
else:
    from twisted.trial.unittest import SkipTest
    from twisted.trial.unittest import SynchronousTestCase as TestCase

#: What a process does to its disk before it is killed: it commits rows, and says how many.
WRITES = """
import os, sqlite3, sys
database = sqlite3.connect("rows.db", isolation_level=None)
database.execute("pragma journal_mode=wal")
database.execute(f"pragma synchronous={sys.argv[1]}")
database.execute("create table if not exists rows (number)")
for number in range(200):
    database.execute("insert into rows values (?)", (number,))
print(database.execute("select count(*) from rows").fetchone()[0], flush=True)
os._exit(0)
"""


class CrashTests(TestCase):
    """Two clients send while they and their server are killed."""

    def base(self) -> str:
        return str(cast("Any", self).mktemp())

    def run_loop(self, kills: int, cuts: int = 0, cut: float = 0.0, fills: int = 0, **how: Any) -> None:
        seed = int.from_bytes(os.urandom(4), "big")
        talk = Talk(self.base(), small=bool(fills), **how)
        try:
            kill_loop(talk, kills, random.Random(seed), cuts=cuts, cut=cut, fills=fills)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from None
        finally:
            talk.close()

    def test_killed(self) -> None:
        """Fifteen times, at random moments."""
        self.run_loop(15)

    def test_network_stops(self) -> None:
        """The same, and the network stops both ways for a while."""
        self.run_loop(4, cuts=1, cut=8.0)

    def test_full_disks(self) -> None:
        """The same, and the server's disk or a client's is full while one of them is killed and started."""
        try:
            self.run_loop(6, fills=4)
        except Unavailable as reason:
            raise SkipTest(str(reason)) from None

    def test_power_cuts(self) -> None:
        """What was not synced is forgotten at each kill."""
        try:
            self.run_loop(10, forgetful=True)
        except Unavailable as reason:
            raise SkipTest(str(reason)) from None


class FullDiskTests(TestCase):
    """The server's disk is full for a while."""

    def test_full(self) -> None:
        """Both go on once there is room, and nothing is missing, doubled or out of order."""
        where = Path(cast("Any", self).mktemp()).resolve()
        try:
            disk = SmallDisk(where, 24 << 20)
        except Unavailable as reason:
            raise SkipTest(str(reason)) from None
        self.addCleanup(disk.close)
        talk = Talk(cast("Any", self).mktemp(), server_folder=where / "server")
        self.addCleanup(talk.close)
        chance = random.Random(7)
        talk.talk(2.0)
        for _ in range(3):
            disk.fill()
            bob = talk.people[1]
            bob.kill()  # what is sent to somebody who is away has to be stored
            talk.talk(3.0)
            bob.start()
            talk.talk(chance.uniform(0.5, 2.0))
            disk.empty()
            talk.talk(2.0)
        talk.settle()
        talk.check()


class ForgetfulDiskTests(TestCase):
    """The disk that the tests above use."""

    def setUp(self) -> None:
        base = Path(cast("Any", self).mktemp())
        root, kept = base / "root", base / "kept"
        self.folder = root / "folder"
        for path in (base, root, kept, self.folder):
            path.mkdir()
        try:
            self.disk = ForgetfulDisk(root, kept)
        except Unavailable as reason:
            raise SkipTest(str(reason)) from None

    def write(self, synchronous: str) -> int:
        with self.disk.watched():
            command = [sys.executable, "-c", WRITES, synchronous]
            done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=True)
        return int(done.stdout)

    def count(self) -> int:
        copy = self.folder.parent.parent / "copy"
        shutil.copytree(self.folder, copy)
        database = sqlite3.connect(copy / "rows.db")
        there = database.execute("select 1 from sqlite_master where name = 'rows'").fetchone()
        found: int = database.execute("select count(*) from rows").fetchone()[0] if there else 0
        database.close()
        shutil.rmtree(copy)
        return found

    def test_what_is_synced_stays(self) -> None:
        """Whichever of the other blocks stay."""
        for number in range(5):
            written = self.write("full")
            self.disk.forget(self.folder, random.Random(number))
            self.assertEqual(self.count(), written)

    def test_what_is_not_is_forgotten(self) -> None:
        """A database that does not sync its log has lost some rows after a few cuts, and a file its name."""
        lost = 0
        for number in range(5):
            written = self.write("normal")
            (self.folder / "loose").write_text("not synced")
            self.disk.forget(self.folder, random.Random(number))
            lost += not (self.folder / "rows.db").exists() or self.count() < written
            self.assertFalse((self.folder / "loose").exists())
        self.assertGreater(lost, 0)
