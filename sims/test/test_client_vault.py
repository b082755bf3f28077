"""Tests of :mod:`sims.client.vault`: a store that is right, and a folder that nobody else can read."""

from __future__ import annotations

import os
import sqlite3
import stat
from pathlib import Path
from typing import Any, cast

import sqlcipher3  # type: ignore[import-untyped]
from twisted.trial.unittest import SynchronousTestCase

from sims.client import vault as vaults
from sims.client.events import Delivery
from sims.client.store import Arrived, Change, Letter, MemoryStore, Person, Store
from sims.client.vault import CHECK_EVERY, Vault
from sims.errors import Code, LocalError
from sims.test.builders import refusal

SECRET = b"a text that nobody may read"
MID = bytes(range(16))


def change(number: int = 1) -> Change:
    """Some of everything."""
    person = Person(id=f"person {number}", name="bob", verified=True, asks=(MID,), heard=3, begins=MID)
    letter = Letter(number=number, to="x", id=MID, text=SECRET.decode(), state=Delivery.ACCEPTED, content=SECRET)
    letter.anew = True
    arrived = Arrived(number=number, sender="x", id=MID, session=b"s", text=SECRET.decode(), order="gap")
    return Change(
        values={"identity": SECRET, "name": b"ann"},
        people={person.id: person},
        conversations={"x": SECRET},
        letters={number: letter},
        arrived={number: arrived},
        seen={("x", MID): number},
    )


class Contract:
    """What every store does."""

    store: Store

    def test_keeps(self: Any) -> None:
        """Everything, as it was; copies, so that what is changed later is not changed in it."""
        wanted = change()
        self.store.commit(wanted)
        saved = self.store.load()
        self.assertEqual(saved.values, wanted.values)
        self.assertEqual(saved.people, wanted.people)
        self.assertEqual(saved.conversations, wanted.conversations)
        self.assertEqual(saved.letters, wanted.letters)
        self.assertEqual(saved.arrived, wanted.arrived)
        saved.letters[1].text = "changed"
        saved.people["person 1"].name = "eve"
        again = self.store.load()
        self.assertEqual((again.letters[1].text, again.people["person 1"].name), (SECRET.decode(), "bob"))

    def test_forgets(self: Any) -> None:
        """What a change says is no more; what it does not name stays."""
        self.store.commit(change(1))
        self.store.commit(change(2))
        gone = Change(
            values={"identity": None},
            people={"person 1": None, "nobody": None},
            conversations={"x": None},
            letters={1: None},
            arrived={1: None, 7: None},
        )
        self.store.commit(gone)
        saved = self.store.load()
        self.assertEqual((saved.values, saved.conversations), ({"name": b"ann"}, {}))
        self.assertEqual(([*saved.people], [*saved.letters], [*saved.arrived]), (["person 2"], [2], [2]))

    def test_seen(self: Any) -> None:
        """By sender and number; the old and the crowded go."""
        self.store.commit(Change(seen={("x", bytes([number])): number for number in range(20)} | {("y", MID): 5}))
        self.assertTrue(self.store.has_seen("x", bytes([7])) and self.store.has_seen("y", MID))
        self.assertFalse(self.store.has_seen("y", bytes([7])) or self.store.has_seen("x", MID))
        self.store.commit(Change(crowded={"x": 15, "z": 3}))
        seen = [number for number in range(20) if self.store.has_seen("x", bytes([number]))]
        self.assertEqual(seen, [*range(5, 20)])
        self.store.commit(Change(unseen=10))
        seen = [number for number in range(20) if self.store.has_seen("x", bytes([number]))]
        self.assertEqual((seen, self.store.has_seen("y", MID)), ([*range(10, 20)], False))

    def test_nothing_is_no_change(self: Any) -> None:
        self.assertFalse(Change())
        for field in (
            {"unseen": 1},
            {"crowded": {"x": 1}},
            {"seen": {("x", MID): 1}},
            {"values": {"x": None}},
            {"arrived": {1: None}},
        ):
            self.assertTrue(Change(**field))


class MemoryTests(Contract, SynchronousTestCase):
    def setUp(self) -> None:
        self.store = MemoryStore()


class VaultTests(Contract, SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(cast("str", self.mktemp()))
        self.folder.mkdir(parents=True)
        self.store = self.vault = Vault(self.folder)
        self.addCleanup(self.vault.close)

    def again(self) -> Vault:
        """Closed, and opened once more."""
        self.vault.close()
        self.store = self.vault = Vault(self.folder)
        self.addCleanup(self.vault.close)
        return self.vault

    def refused(self, *parts: str) -> None:
        with self.assertRaises(LocalError) as caught:
            Vault(self.folder)
        self.assertEqual(caught.exception.code, Code.UNAVAILABLE)
        for part in parts:
            self.assertIn(part, caught.exception.text)

    def test_lasts(self) -> None:
        self.vault.commit(change())
        before = self.vault.load()
        self.assertEqual(self.again().load(), before)
        self.assertTrue(self.vault.has_seen("x", MID))

    def test_for_its_owner_alone(self) -> None:
        """Whatever the umask; and nothing in any file can be read."""
        old = os.umask(0)
        self.addCleanup(os.umask, old)
        self.folder = Path(cast("str", self.mktemp()))
        self.folder.mkdir(parents=True)
        vault = Vault(self.folder)
        self.addCleanup(vault.close)
        vault.commit(change())
        files = sorted(path.name for path in self.folder.iterdir())
        self.assertIn("vault-wal", files)
        for path in self.folder.iterdir():
            self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o600, path)
            for plain in (SECRET, b"SQLite", b"create table", b"person 1"):
                self.assertNotIn(plain, path.read_bytes(), path)
        vault.close()
        self.assertNotIn(SECRET, (self.folder / "vault").read_bytes())

    def test_one_at_a_time(self) -> None:
        """The second is told which folder, and what to do."""
        self.refused("in use by another client", str(self.folder), "--dir")
        self.again()

    def test_without_its_key(self) -> None:
        """It is never made anew for a vault that is there."""
        self.vault.commit(change())
        self.vault.close()
        key = self.folder / "vault.key"
        kept = key.read_bytes()
        key.unlink()
        self.refused("missing")
        self.assertFalse(key.exists())
        for other in (b"", kept[:-1], kept + b"x"):
            key.write_bytes(other)
            self.refused("32 bytes")
        key.write_bytes(bytes(32))
        self.refused("damaged, or the key beside it is another's")
        key.write_bytes(kept)
        self.assertEqual(self.again().load().values["name"], b"ann")

    def test_damaged(self) -> None:
        self.vault.commit(change())
        self.vault.close()
        data = bytearray((self.folder / "vault").read_bytes())
        data[:100] = bytes(100)
        (self.folder / "vault").write_bytes(data)
        self.refused("damaged")

    def test_when_all_of_it_is_read(self) -> None:
        """After a crash, of a copy, once a day, or when the clock was put back; else what is needed alone."""
        self.vault.close()
        checked: list[Path] = []
        self.patch(vaults, "check", lambda _, path: checked.append(path))
        now = 2_000_000_000.5  # long after it was made
        for later, crashed, expected in (
            (0.0, False, 1),
            (10.0, False, 0),
            (CHECK_EVERY - 10.0, False, 0),
            (CHECK_EVERY + 10.0, False, 1),
            (CHECK_EVERY + 20.0, True, 1),
            (CHECK_EVERY + 30.0, False, 0),
            (CHECK_EVERY + 40.0, None, 1),  # it is a copy
            (CHECK_EVERY + 50.0, False, 0),
            (-1000.0, False, 1),
        ):
            if crashed:
                (self.folder / "vault-wal").touch()
            elif crashed is None:
                os.utime(self.folder / "vault.lock")
            checked.clear()
            vault = Vault(self.folder, now=lambda later=later: now + later)  # type: ignore[misc]
            self.assertEqual(vault.load().values, {})
            vault.close()
            self.assertEqual(checked, [self.folder / "vault"] * expected, (later, crashed))

    def test_damaged_where_it_is_read(self) -> None:
        """It is said, whether all of it was read at its start or not."""
        self.vault.commit(Change(conversations={f"{number}": os.urandom(3000) for number in range(50)}))
        self.vault.close()
        path = self.folder / "vault"
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
        self.store = self.vault = Vault(self.folder)
        self.addCleanup(self.vault.close)
        error = refusal(LocalError, self.vault.load)
        self.assertIn("it is damaged (database disk image is malformed); a backup can be restored", error.text)

    def test_the_disk(self) -> None:
        """A vault that is whole is not called damaged where the disk is full, or cannot be read."""
        for what in ("disk I/O error", "database or disk is full"):

            class Failing:
                def execute(self, *_: object) -> None:
                    raise sqlcipher3.OperationalError(what)  # noqa: B023 - within the loop

            patch = self.patch(self.vault, "_database", Failing())
            error = refusal(LocalError, self.vault.load)
            patch.restore()
            self.assertIn("disk is full", error.text)
            self.assertIn(what, error.text)
            for wrong in ("damaged", "restored"):
                self.assertNotIn(wrong, error.text)

    def test_a_library_that_does_not_encrypt(self) -> None:
        """Nothing is written with it."""
        self.vault.close()
        before = (self.folder / "vault").read_bytes()
        self.patch(vaults, "sqlcipher3", sqlite3)
        self.refused("has no SQLCipher")
        self.assertEqual((self.folder / "vault").read_bytes(), before)
        self.folder = Path(cast("str", self.mktemp()))
        self.folder.mkdir(parents=True)
        self.refused("has no SQLCipher")
        self.assertEqual((self.folder / "vault").read_bytes(), b"")

    def test_of_another_version(self) -> None:
        self.vault._database.execute("pragma user_version = 99")
        self.vault.close()
        self.refused("newer version", "99")

    def test_a_key_that_was_not_finished(self) -> None:
        """A crash while it was written leaves nothing behind."""
        self.folder = Path(cast("str", self.mktemp()))
        self.folder.mkdir(parents=True)
        (self.folder / "vault.key.new").write_bytes(b"part")
        self.store = self.vault = Vault(self.folder)
        self.addCleanup(self.vault.close)
        self.assertEqual(len((self.folder / "vault.key").read_bytes()), 32)
        self.assertFalse((self.folder / "vault.key.new").exists())

    def test_closed(self) -> None:
        """Again does no harm; what is asked of it then is refused."""
        self.vault.close()
        self.vault.close()
        with self.assertRaises(LocalError):
            self.vault.commit(change())
        with self.assertRaises(LocalError):
            self.vault.has_seen("x", MID)

    def test_no_folder(self) -> None:
        self.folder = self.folder / "none"
        self.refused("cannot use the folder")

    def test_says_nothing(self) -> None:
        """Of what is in it, in any repr."""
        everything = change()
        shown = [everything, self.vault, self.vault.load(), *everything.letters.values(), *everything.arrived.values()]
        for one in [*shown, *everything.people.values()]:
            self.assertNotIn("nobody may read", repr(one))
            self.assertNotIn("bob", repr(one))
