"""Tests of :mod:`sims.client.vault_key` and :mod:`sims.client.passphrase`: what locks a vault, and who opens it."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import cast

from twisted.trial.unittest import SynchronousTestCase

from sims.client import files, passphrase, vault_key
from sims.client.passphrase import MAX_PASSPHRASE, STRETCH_SIZE, Passphrase, Stretch, new_stretch
from sims.client.store import Change
from sims.client.vault import Vault
from sims.client.vault_key import Kind, Lock, Secret, change_secret, finish_restore, read_lock
from sims.errors import Code, LocalError
from sims.test.builders import flipped, refusal

WORDS = "correct horse"


class VaultCase(SynchronousTestCase):
    """A folder with a vault in it, locked by a passphrase that costs little to use."""

    def setUp(self) -> None:
        self.patch(passphrase, "MEMORY", 64)
        self.folder = self.new_folder()
        self.key = self.folder / "vault.key"
        vault = Vault(self.folder, WORDS)
        vault.commit(Change(values={"name": b"ann"}))
        vault.close()

    def new_folder(self) -> Path:
        folder = Path(cast("str", self.mktemp()))
        folder.mkdir(parents=True)
        return folder

    def opens(self, given: str | vault_key.Ask | None = None, folder: Path | None = None) -> None:
        """The vault is there, with what is in it."""
        vault = Vault(folder or self.folder, given)
        self.assertEqual(vault.load().values, {"name": b"ann"})
        vault.close()

    def refused(self, given: str | None, code: Code, part: str) -> None:
        """It does not open, one line says why, and no file has changed."""
        before = self.files()
        error = refusal(LocalError, Vault, self.folder, given)
        self.assertEqual(error.code, code)
        self.assertIn(part, error.text)
        self.assertNotIn("\n", error.text)
        self.assertEqual(self.files(), before)

    def files(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.folder.iterdir() if not path.name.endswith(".lock")}

    def change(self, old: str | None, new: str | None) -> None:
        asked = None if old is None else Secret(Passphrase(old))
        change_secret(self.folder, lambda _: asked, lambda: None if new is None else Secret(Passphrase(new)))


class PassphraseTests(SynchronousTestCase):
    def test_one_spelling(self) -> None:
        """Whatever keyboard it was typed on; what is another word stays another."""
        self.assertEqual(Passphrase("pass\u00e9 w").data, Passphrase("passe\u0301\u00a0w").data)
        for one, other in (("a", "A"), ("a b", "ab"), (" a", "a"), ("ß", "ss")):
            self.assertNotEqual(Passphrase(one).data, Passphrase(other).data)

    def test_what_is_none(self) -> None:
        for text in ("", "a\tb", "a\nb", "\x00", "\udc80", "x" * (MAX_PASSPHRASE + 1)):
            error = refusal(LocalError, Passphrase, text)
            self.assertEqual(error.code, Code.POLICY)
            self.assertNotIn("a\tb", error.text)

    def test_says_nothing(self) -> None:
        self.assertNotIn(WORDS, repr(Secret(Passphrase(WORDS))))

    def test_costs(self) -> None:
        """What RFC 9106 recommends: so that nobody tries many."""
        self.assertEqual(new_stretch(bytes(16))[:3], (65_536, 3, 4))
        self.assertEqual(Stretch.from_bytes(new_stretch(bytes(16)).to_bytes()), new_stretch(bytes(16)))
        self.assertEqual(len(new_stretch(bytes(16)).to_bytes()), STRETCH_SIZE)

    def test_key(self) -> None:
        """Each part of it tells."""
        base = Stretch(64, 1, 1, bytes(16))
        key = base.key(Passphrase(WORDS))
        self.assertEqual((len(key), base.key(Passphrase(WORDS))), (32, key))
        others = (
            base._replace(memory=65),
            base._replace(passes=2),
            base._replace(lanes=2),
            base._replace(salt=b"x" * 16),
        )
        found = {one.key(Passphrase(WORDS)) for one in others} | {base.key(Passphrase("other")), key}
        self.assertEqual(len(found), 6)

    def test_bounds(self) -> None:
        """A file cannot ask for what no machine has."""
        for wrong in ((7, 1, 1), (2**20 + 1, 1, 1), (64, 0, 1), (64, 65, 1), (2**20, 1, 0), (2**20, 1, 65), (64, 1, 9)):
            self.assertIsNone(Stretch.from_bytes(Stretch(*wrong, bytes(16)).to_bytes()))


class LockTests(VaultCase):
    def test_opens(self) -> None:
        """With the passphrase alone, in any spelling; the key stands nowhere, in a file for its owner alone."""
        self.opens(WORDS)
        self.opens(WORDS.replace(" ", "\u00a0"))
        self.assertEqual(stat.S_IMODE(self.key.stat().st_mode), 0o600)
        self.assertEqual(len(self.key.read_bytes()), 17 + 1 + STRETCH_SIZE + 12 + 48)
        self.assertEqual(cast("Lock", read_lock(self.folder)).kind, Kind.PASSPHRASE)

    def test_another_passphrase(self) -> None:
        self.refused("correct house", Code.NOT_AUTHENTICATED, "not the passphrase")
        self.refused(None, Code.NOT_AUTHENTICATED, "needs its passphrase")
        self.refused("", Code.POLICY, "empty")
        self.opens(WORDS)

    def test_changed_by_anybody(self) -> None:
        """Each bit of the file counts; one of a newer version is named so."""
        good = self.key.read_bytes()
        for position in range(len(good)):
            self.key.write_bytes(flipped(good, position))
            error = refusal(LocalError, Vault, self.folder, WORDS)
            self.assertIn(error.code, (Code.NOT_AUTHENTICATED, Code.UNAVAILABLE), position)
        for cut in (good[:-1], good + b"x", good[:40], b""):
            self.key.write_bytes(cut)
            self.refused(WORDS, Code.UNAVAILABLE, "damaged")
        self.key.write_bytes(good.replace(b"key 1", b"key 2"))
        self.refused(WORDS, Code.UNAVAILABLE, "newer version")
        self.key.write_bytes(good)
        self.opens(WORDS)

    def test_a_file_needs_none(self) -> None:
        """Nobody is asked for anything where the key stands as it is."""
        folder = self.new_folder()
        Vault(folder).close()
        self.assertIsNone(read_lock(folder))

        def ask(lock: Lock | None) -> None:
            raise AssertionError("asked")

        Vault(folder, ask).close()

    def test_a_passphrase_for_none(self) -> None:
        """Whoever has given one learns that there is none; nothing changes."""
        self.folder = self.new_folder()
        Vault(self.folder).close()
        self.refused(WORDS, Code.POLICY, "has no passphrase, and opens with none")
        error = refusal(LocalError, lambda: Vault(self.folder, lambda _: None, locked=True))
        self.assertEqual(error.code, Code.POLICY)
        Vault(self.folder).close()
        new = self.new_folder()
        Vault(new, lambda _: Secret(Passphrase(WORDS)), locked=True).close()
        self.assertIsNotNone(read_lock(new))

    def test_a_first_start_that_was_cut_off(self) -> None:
        """Before the vault was there, or while it was empty, without a passphrase: the next one locks the key, and
        nothing is left of it."""
        for empty in (False, True):
            self.folder = self.new_folder()
            self.key = self.folder / "vault.key"
            vault_key.write_key(self.key, b"k" * 32, None)
            if empty:
                (self.folder / "vault").touch(0o600)
            with open(self.key, "rb") as before:
                vault = Vault(self.folder, WORDS)
                vault.commit(Change(values={"name": b"ann"}))
                vault.close()
                self.assertEqual(before.read(), bytes(32))
            self.assertIsNotNone(read_lock(self.folder))
            self.opens(WORDS)
            self.refused(None, Code.NOT_AUTHENTICATED, "needs its passphrase")
            self.change(WORDS, "other words")
            self.opens("other words")

    def test_who_is_asked(self) -> None:
        """For a new vault, with nothing; for one that is there, with its lock."""
        asked: list[Lock | None] = []
        salt = b"s" * 16

        def ask(lock: Lock | None) -> Secret:
            asked.append(lock)
            return Secret(Passphrase(WORDS), Kind.KEYRING, salt)

        folder = self.new_folder()
        Vault(folder, ask).close()
        Vault(folder, ask).close()
        self.assertEqual(asked, [None, Lock(Kind.KEYRING, salt)])
        self.assertEqual(read_lock(folder), asked[1])


class ChangeTests(VaultCase):
    def test_from_each_to_each(self) -> None:
        """The vault itself stays as it is; the old passphrase opens it no more."""
        before = (self.folder / "vault").read_bytes()
        old: str | None = WORDS
        for new in ("other words", None, WORDS, "x"):
            self.change(old, new)
            self.opens(new)
            if old is not None and new is not None:
                self.refused(old, Code.NOT_AUTHENTICATED, "not the passphrase")
            old = new
        self.assertEqual((self.folder / "vault").read_bytes()[:16], before[:16])
        self.assertEqual(read_lock(self.folder) and self.key.stat().st_mode & 0o777, 0o600)

    def test_nothing_is_left_of_the_old_file(self) -> None:
        """In its blocks: neither the key as it was, nor one that an older passphrase opens."""
        old: str | None = WORDS
        for new in (None, "words", "other words"):
            with open(self.key, "rb") as before:
                size = len(before.read())
                self.change(old, new)
                before.seek(0)
                self.assertEqual(before.read(), bytes(size))
            self.opens(new)
            old = new

    def test_a_copy_stays(self) -> None:
        """Under another name, the old file is as it was: it is not ours to destroy."""
        before = self.key.read_bytes()
        os.link(self.key, self.folder / "kept")
        self.change(WORDS, "new words")
        self.assertEqual((self.folder / "kept").read_bytes(), before)

    def test_a_file_that_is_read_only(self) -> None:
        """Its lock is changed all the same; only its blocks stay as they are."""
        opened = os.open
        refused: list[Path] = []

        def read_only(path: Path, flags: int, *rest: int, **more: int) -> int:
            if path == self.key and flags & (os.O_WRONLY | os.O_RDWR):  # root would be let in
                refused.append(path)
                raise PermissionError(13, "Permission denied")
            return opened(path, flags, *rest, **more)

        self.key.chmod(0o400)
        with open(self.key, "rb") as before:
            self.patch(os, "open", read_only)
            self.change(WORDS, "new words")
            self.patch(os, "open", opened)
            self.assertNotEqual(before.read(), bytes(vault_key._SIZE))
        self.assertEqual(refused, [self.key])
        self.opens("new words")
        self.refused(WORDS, Code.NOT_AUTHENTICATED, "not the passphrase")

    def test_refused(self) -> None:
        """Without the old one, while a client runs, without a vault: nothing changes, and nobody is asked for a new."""

        def new() -> Secret:
            raise AssertionError("asked")

        before = self.files()
        error = refusal(LocalError, change_secret, self.folder, lambda _: Secret(Passphrase("wrong")), new)
        self.assertEqual(error.code, Code.NOT_AUTHENTICATED)
        vault = Vault(self.folder, WORDS)
        error = refusal(LocalError, change_secret, self.folder, lambda _: Secret(Passphrase(WORDS)), new)
        self.assertIn("in use", error.text)
        vault.close()
        error = refusal(LocalError, change_secret, self.new_folder(), lambda _: None, new)
        self.assertIn("no vault", error.text)
        self.assertEqual(self.files()["vault.key"], before["vault.key"])

    def test_crash(self) -> None:
        """Wherever it happens, the old passphrase opens the vault, or the new one does."""
        for what in ("fsync", "rename"):
            with self.subTest(what):

                def crash(*_: object) -> None:
                    raise OSError(28, "No space left on device")

                original = Path.rename if what == "rename" else os.fsync
                if what == "rename":
                    self.patch(Path, "rename", crash)
                else:
                    self.patch(files.os, "fsync", crash)  # type: ignore[attr-defined]
                error = refusal(LocalError, self.change, WORDS, "new words")
                self.assertIn("No space", error.text)
                if what == "rename":
                    self.patch(Path, "rename", original)
                else:
                    self.patch(files.os, "fsync", original)  # type: ignore[attr-defined]
                self.opens(WORDS)
                self.assertFalse([name for name in self.files() if name.endswith(".new")])


class FinishTests(VaultCase):
    """A restore that a crash has cut off."""

    def setUp(self) -> None:
        super().setUp()
        self.other = self.new_folder()
        vault = Vault(self.other)
        vault.commit(Change(values={"name": b"bob"}))
        vault.close()

    def name(self, given: str | None) -> bytes:
        vault = Vault(self.folder, given)
        self.addCleanup(vault.close)
        vault.close()
        self.assertFalse([name for name in self.files() if ".next" in name or name.endswith(".new")])
        return Vault(self.folder, given).load().values["name"]

    def test_before_anything_is_in_its_place(self) -> None:
        """It is undone."""
        (self.folder / "vault.next").write_bytes((self.other / "vault").read_bytes())
        (self.folder / "vault.key.next").write_bytes((self.other / "vault.key").read_bytes())
        (self.folder / "vault.key.next.new").write_bytes(b"part")
        (self.folder / "vault.key.new").write_bytes(b"of a change")
        self.assertEqual(self.name(WORDS), b"ann")

    def test_after_the_vault_is_in_its_place(self) -> None:
        """It is seen through: the key follows, and nothing of the old one's log is taken for the new one's."""
        (self.folder / "vault.key.next").write_bytes((self.other / "vault.key").read_bytes())
        (self.folder / "vault").write_bytes((self.other / "vault").read_bytes())
        (self.folder / "vault-wal").write_bytes(b"of the old one")
        self.assertEqual(self.name(None), b"bob")

    def test_nothing_to_finish(self) -> None:
        before = self.files()
        finish_restore(self.folder)
        self.assertEqual(self.files(), before)
