"""Tests of :mod:`sims.client.backup`: a vault in one file, and back."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path
from typing import Any

import sqlcipher3  # type: ignore[import-untyped]

from sims.client import backup
from sims.client.backup import back_up, restore
from sims.client.files import held
from sims.client.passphrase import Passphrase
from sims.client.store import Change, Letter
from sims.client.vault import Vault, connect
from sims.client.vault_key import Ask, Kind, Secret, read_lock
from sims.errors import Code, LocalError
from sims.test.builders import flipped, refusal
from sims.test.test_client_vault_key import WORDS, VaultCase

OTHER = "battery staple"
#: Several parts of a backup.
MUCH = 300_000


def given(text: str) -> Ask:
    return lambda _: Secret(Passphrase(text))


class BackupCase(VaultCase):
    def setUp(self) -> None:
        super().setUp()
        self.file = self.new_folder() / "backup"

    def back_up(self, folder: Path | None = None, text: str = WORDS) -> None:
        back_up(folder or self.folder, self.file, given(text), lambda: Passphrase(OTHER))

    def restore(self, folder: Path, text: str = OTHER, *, force: bool = False) -> None:
        restore(self.file, folder, lambda: Passphrase(text), Secret, force=force)

    def grow(self) -> None:
        vault = Vault(self.folder, WORDS)
        vault.commit(Change(conversations={f"{number}": os.urandom(1000) for number in range(MUCH // 1000)}))
        vault.close()

    def names(self, folder: Path) -> set[str]:
        return {path.name for path in folder.iterdir() if not path.name.endswith(".lock")}


class BackUpTests(BackupCase):
    def test_there_and_back(self) -> None:
        """All that is in it, whatever the size; the backup's passphrase opens it then."""
        for grow in (lambda: None, self.grow):
            grow()
            vault = Vault(self.folder, WORDS)
            vault.commit(Change(seen={("x", b"id"): 1}))
            before = vault.load()
            vault.close()
            self.back_up()
            folder = self.new_folder()
            self.restore(folder)
            self.assertEqual(self.names(folder), {"vault", "vault.key"})
            vault = Vault(folder, OTHER)
            self.assertEqual(vault.load(), before)
            self.assertTrue(vault.has_seen("x", b"id"))
            vault.close()

    def test_for_its_owner_alone(self) -> None:
        """Whatever the umask; no byte of it can be read, and nothing is left in the folder."""
        old = os.umask(0)
        self.addCleanup(os.umask, old)
        before = self.names(self.folder)
        self.back_up()
        self.assertEqual(stat.S_IMODE(self.file.stat().st_mode), 0o600)
        data = self.file.read_bytes()
        for plain in (b"SQLite", b"create table", b"ann", self.key.read_bytes()[-32:]):
            self.assertNotIn(plain, data)
        self.assertEqual(self.names(self.folder), before)
        self.assertEqual([path.name for path in self.file.parent.iterdir()], ["backup"])

    def test_while_a_client_runs(self) -> None:
        """It is what was committed last; the client does not notice."""
        vault = Vault(self.folder, WORDS)
        self.addCleanup(vault.close)
        vault.commit(Change(values={"name": b"eve"}))
        self.back_up()
        vault.commit(Change(values={"name": b"later"}))
        folder = self.new_folder()
        self.restore(folder)
        restored = Vault(folder, OTHER)
        self.assertEqual((restored.load().values["name"], vault.load().values["name"]), (b"eve", b"later"))
        restored.close()

    def test_keys_of_its_own(self) -> None:
        """Who breaks the one has not the other; nor do two backups have anything in common."""
        self.back_up()
        first = self.file.read_bytes()
        self.back_up()
        second = self.file.read_bytes()
        self.assertEqual([at for at in range(40, len(first), 64) if first[at : at + 16] == second[at : at + 16]], [])
        keys = []
        for _ in range(2):
            folder = self.new_folder()
            restore(self.file, folder, lambda: Passphrase(OTHER), lambda _: None)
            keys.append((folder / "vault.key").read_bytes())
            self.back_up()
        Vault(self.folder, WORDS).close()
        self.assertEqual(len({*keys}), 2)

    def test_refused(self) -> None:
        """Nothing is written, and what was there stays."""
        self.file.write_bytes(b"something else")
        self.assertIn("is no backup", refusal(LocalError, self.back_up).text)
        self.assertEqual(self.file.read_bytes(), b"something else")
        self.file.unlink()
        error = refusal(LocalError, self.back_up, self.folder, "wrong")
        self.assertEqual(error.code, Code.NOT_AUTHENTICATED)
        self.assertIn("no vault", refusal(LocalError, self.back_up, self.new_folder()).text)
        self.file = self.folder / "none" / "backup"
        self.assertIn("cannot write", refusal(LocalError, self.back_up).text)
        (self.folder / "vault.key.next").write_bytes(b"x")
        self.file = self.folder / "backup"
        self.assertIn("cut off", refusal(LocalError, self.back_up).text)
        self.assertFalse(self.file.exists())
        self.assertNotIn("vault.draft", self.names(self.folder))

    def test_replaces_an_older_one(self) -> None:
        """Once the new one is whole."""
        self.back_up()
        before = self.file.read_bytes()

        def crash(*_: object) -> None:
            raise OSError(28, "No space left on device")

        patch = self.patch(backup, "_seal", crash)
        self.assertIn("No space", refusal(LocalError, self.back_up).text)
        patch.restore()
        self.assertEqual(self.file.read_bytes(), before)
        self.back_up()
        self.assertNotEqual(self.file.read_bytes(), before)

    def test_beside_other_files(self) -> None:
        """Whatever they are called: none of them is touched, and none is left."""
        beside = self.file.with_name("backup.new")
        beside.write_bytes(b"mine")
        for _ in range(2):
            self.back_up()
            self.assertEqual(beside.read_bytes(), b"mine")
            self.assertEqual(self.names(self.file.parent), {"backup", "backup.new"})

    def test_not_of_a_damaged_vault(self) -> None:
        self.grow()
        vault = self.folder / "vault"
        data = bytearray(vault.read_bytes())
        data[len(data) // 2] ^= 1
        vault.write_bytes(data)
        self.assertIn("damaged", refusal(LocalError, self.back_up).text)
        self.assertFalse(self.file.exists())


class RestoreTests(BackupCase):
    def setUp(self) -> None:
        super().setUp()
        self.grow()
        self.back_up()
        self.target = self.new_folder()

    def assert_untouched(self) -> None:
        self.assertEqual(self.names(self.target), set())

    def test_only_over_nothing(self) -> None:
        """But for --force; then what was there is gone, its log and its copies too."""
        vault = Vault(self.target, "theirs")
        vault.commit(Change(values={"name": b"bob"}))
        vault.close()
        for name in ("vault.of-version-1", "vault-wal"):
            (self.target / name).write_bytes(b"of the old one")
        before = {path.name: path.read_bytes() for path in self.target.iterdir()}
        error = refusal(LocalError, self.restore, self.target)
        self.assertEqual(error.code, Code.POLICY)
        self.assertIn("--force", error.text)
        for name, data in before.items():
            self.assertEqual((self.target / name).read_bytes(), data)
        self.restore(self.target, force=True)
        self.assertEqual(self.names(self.target), {"vault", "vault.key"})
        vault = Vault(self.target, OTHER)
        self.assertEqual(vault.load().values["name"], b"ann")
        vault.close()

    def test_not_while_a_client_runs(self) -> None:
        vault = Vault(self.target)
        self.addCleanup(vault.close)
        for force in (False, True):
            with self.assertRaises(LocalError) as caught:
                self.restore(self.target, force=force)
            self.assertIn("in use", caught.exception.text)

    def test_any_lock(self) -> None:
        for secret, kind in ((None, None), (Secret(Passphrase("x"), Kind.KEYRING), Kind.KEYRING)):
            restore(self.file, self.target, lambda: Passphrase(OTHER), lambda _, s=secret: s, force=True)  # type: ignore[misc]
            lock = read_lock(self.target)
            self.assertEqual(None if lock is None else lock.kind, kind)
            Vault(self.target, None if secret is None else "x").close()

    def test_another_passphrase(self) -> None:
        error = refusal(LocalError, self.restore, self.target, WORDS)
        self.assertEqual(error.code, Code.NOT_AUTHENTICATED)
        self.assert_untouched()

    def test_changed_by_anybody(self) -> None:
        """A bit of any part, parts in another order, one missing, cut off or added to: nothing is restored."""
        good = self.file.read_bytes()
        head, part = 14 + 22, 65_536 + 16
        self.assertGreater(len(good), head + 4 * part)
        parts = [good[at : at + part] for at in range(head, len(good), part)]
        wrong = [flipped(good, at) for at in (0, 11, 14, 20, 35, head, head + part + 5, len(good) - 1)]
        wrong += [good[:size] for size in (0, 5, 13, 20, head, head + 16, head + part, len(good) - 1)]
        wrong += [good + b"x", good + parts[-1], good[:head] + b"".join(parts[1:])]
        wrong += [good[:head] + b"".join([parts[0], parts[2], parts[1], *parts[3:]])]
        wrong += [good[:head] + b"".join([parts[0], *parts[2:]]), b"nothing of the sort"]
        for number, data in enumerate(wrong):
            self.file.write_bytes(data)
            error = refusal(LocalError, self.restore, self.target)
            self.assertIn(error.code, (Code.NOT_AUTHENTICATED, Code.UNAVAILABLE), number)
            self.assertNotIn("\n", error.text)
            self.assert_untouched()
        self.file.write_bytes(good)
        self.restore(self.target)

    def test_of_a_newer_version(self) -> None:
        """The file's, or the vault's in it."""
        good = self.file.read_bytes()
        self.file.write_bytes(good.replace(b"backup 1", b"backup 2"))
        self.assertIn("newer version", refusal(LocalError, self.restore, self.target).text)
        vault = Vault(self.folder, WORDS)
        vault._database.execute("pragma user_version = 99")
        self.patch(backup, "version", lambda *_: 99)
        self.file.unlink()
        self.back_up()
        vault.close()
        self.patch(backup, "version", __import__("sims.client.vault_schema", fromlist=["version"]).version)
        self.assertIn("newer version", refusal(LocalError, self.restore, self.target).text)
        self.assert_untouched()

    def test_full_disk(self) -> None:
        """Or whatever keeps it from being written: nothing is there, or the vault of before."""
        Vault(self.target).close()
        before = {path.name: path.read_bytes() for path in self.target.iterdir()}

        def crash(*_: object) -> None:
            raise OSError(28, "No space left on device")

        for module, name in ((os, "fsync"), (Path, "rename"), (backup, "write_key")):
            patch = self.patch(module, name, crash)
            with self.assertRaises((LocalError, OSError)):
                self.restore(self.target, force=True)
            patch.restore()
            Vault(self.target).close()
            self.assertEqual(self.names(self.target), {"vault", "vault.key"})
            self.assertEqual((self.target / "vault.key").read_bytes(), before["vault.key"])

    def test_no_file(self) -> None:
        self.file.unlink()
        self.assertIn("cannot read", refusal(LocalError, self.restore, self.target).text)
        self.assert_untouched()


class DraftTests(BackupCase):
    def test_of_one_that_was_killed(self) -> None:
        """It goes when the vault is opened next, unless it is of a backup that is under way."""
        for name in ("vault.draft", "vault.draft-journal"):
            for left in ("vault.draft", name):
                (self.folder / left).write_bytes(b"of a backup")
            with held(self.folder, "backup"):
                self.opens(WORDS)
                self.assertEqual((self.folder / name).read_bytes(), b"of a backup")
            self.opens(WORDS)
            self.assertEqual(self.names(self.folder), {"vault", "vault.key"})

    def test_holds_nothing_that_was_forgotten(self) -> None:
        """What was put off of a vault in use, or of one that was killed, does not say what was there before."""
        secret = b"what was said and is forgotten"
        letter = Letter(number=1, text=secret.decode())
        told: list[Any] = []
        seal = backup._seal

        def look(key: bytes, contents: Any, *args: Any) -> None:
            with contextlib.closing(connect(self.folder / "vault.draft", key)) as draft:
                told.append(draft.execute("select count(*) from pending").fetchone()[0])
                told.append(draft.execute("select state from conversations").fetchall())
                plain = self.folder / "plain"
                draft.execute("attach database ? as plain key ''", (str(plain),))
                draft.execute("select sqlcipher_export('plain')")
                told.append(secret in plain.read_bytes())
            plain.unlink()
            seal(key, contents, *args)

        self.patch(backup, "_seal", look)
        for kills in (False, True):
            vault = Vault(self.folder, WORDS)
            for number, state in enumerate((secret, b"now")):
                vault.commit(Change(conversations={"bob": state}, letters={1: None if number else letter}))
            if kills:
                vault._stands = False
                vault.close()
            self.back_up()
            vault.close()
            self.assertEqual(told, [0, [(b"now",)], False])
            told.clear()

    def test_is_encrypted(self) -> None:
        """What stands beside the vault for a moment is under a key that is nowhere on the disk."""
        seen: list[bytes] = []
        seal = backup._seal

        def look(key: bytes, contents: object, out: object, passphrase: Passphrase) -> None:
            draft = self.folder / "vault.draft"
            (beside,) = self.file.parent.iterdir()
            for path in (draft, beside):
                self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o600)
            seen.append(draft.read_bytes())
            with self.assertRaises(sqlcipher3.DatabaseError):
                sqlcipher3.connect(str(draft)).execute("select * from facts")
            seal(key, contents, out, passphrase)  # type: ignore[arg-type]

        self.patch(backup, "_seal", look)
        self.back_up()
        self.assertNotIn(b"create table", seen[0])
