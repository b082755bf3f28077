"""Two copies of one vault: each goes on, no key is used by both, and nothing is lost (:mod:`sims.client.vault_copied`).

In all of these the copy is of the connection that was the last, so that the server's epoch tells nothing.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from pathlib import Path
from typing import Any, cast

from sims.client import passphrase
from sims.client.backup import back_up, restore
from sims.client.passphrase import Passphrase
from sims.client.store import Change
from sims.client.vault import PLACE, Vault
from sims.client.vault_copied import start_anew
from sims.crypto import primitives
from sims.errors import Code, LocalError
from sims.test.builders import refusal
from sims.test.modern_builders import Counting
from sims.test.modern_world import User, WorldTestCase


class Sealed:
    """Every use of a key from now on, whoever uses it.

    :ivar once: keys that are for one box alone; ``pairs`` of keys that are for several, with the nonce.
    """

    def __init__(self, case: WorldTestCase) -> None:
        self.once: Counter[bytes] = Counter()
        self.pairs: Counter[tuple[bytes, bytes]] = Counter()
        seal, aead, sealed = primitives.aead_seal, primitives.aead, self

        def aead_seal(name: primitives.AeadName, key: bytes, nonce: bytes, ad: bytes, plaintext: bytes) -> bytes:
            self.once[key] += 1
            return seal(name, key, nonce, ad, plaintext)

        class Recorded:
            def __init__(self, name: primitives.AeadName, key: bytes) -> None:
                self._key, self._aead = key, aead(name, key)

            def encrypt(self, nonce: bytes, data: bytes, ad: bytes | None) -> bytes:
                sealed.pairs[self._key, nonce] += 1
                return self._aead.encrypt(nonce, data, ad)

            def decrypt(self, nonce: bytes, data: bytes, ad: bytes | None) -> bytes:
                return self._aead.decrypt(nonce, data, ad)

        case.patch(primitives, "aead_seal", aead_seal)
        case.patch(primitives, "aead", Recorded)

    def twice(self) -> int:
        """How many were used more than once."""
        return sum(count > 1 for count in (*self.once.values(), *self.pairs.values()))


class CopiedTests(WorldTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.patch(passphrase, "MEMORY", 64)
        self.sealed = Sealed(self)
        self.first, self.second = self.folder(), self.folder()
        self.bob = self.world.user("bob")
        self.ann = User(self.world, "ann", self.vault(self.first)).join()
        self.talk(self.ann, self.bob)

    def folder(self) -> Path:
        path = Path(cast("str", self.mktemp()))
        path.mkdir(parents=True)
        return path

    def vault(self, folder: Path) -> Any:
        vault = Vault(folder)
        self.addCleanup(vault.close)
        return vault

    def goes_on_with(self, folder: Path, text: str) -> None:
        """Another process, with the vault of a folder; something is said before it is connected."""
        self.ann.kill()
        cast("Any", self.ann.store).close()
        self.world.run_for(2)
        self.ann.use(self.vault(folder))
        self.ann.send(self.bob, text)
        self.ann.start()
        self.until(lambda: text in self.bob.texts(self.ann))

    def both_go_on(self) -> None:
        """The original after the copy, and again, and nothing is lost, heard twice, or said under a key of before."""
        for _ in range(2):
            self.talk(self.ann, self.bob)
        said = len(self.bob.texts(self.ann))
        sessions = self.sessions()
        stream = self.stream()
        self.goes_on_with(self.second, "of the copy")
        self.assertNotEqual(self.stream(), stream)
        self.assertTrue(self.sessions() - sessions)
        self.talk(self.ann, self.bob)
        self.goes_on_with(self.first, "of the original")
        self.talk(self.ann, self.bob)
        self.goes_on_with(self.second, "of the copy again")
        self.talk(self.ann, self.bob)
        texts = self.bob.texts(self.ann)
        self.assertEqual((len(texts), len({*texts})), (said + 6, said + 6))
        self.assertEqual(self.bob.problems(), [])
        self.assertGreater(len(self.sealed.once), 10)
        self.assertEqual(self.sealed.twice(), 0)

    def stream(self) -> Any:
        """In which stream she speaks to him."""
        conversation = self.ann.messenger._desk.talks.find(self.bob.id)
        return cast("Any", conversation)._stream.stream

    def sessions(self) -> set[bytes]:
        """On what he can hear her."""
        conversation = self.bob.messenger._desk.talks.find(self.ann.id)
        return {session.th1 for session in cast("Any", conversation)._sessions.sessions}

    def test_no_copy(self) -> None:
        """A vault that was killed while it noted where it stands is not taken for a copy, nor one that was used."""
        folder = self.folder()
        before = Vault(folder)
        before.commit(Change(values={"identity": bytes(range(64))}))
        before.close()

        def killed(*_: object) -> None:
            raise OSError("killed")

        for call in ("utime", "fsync"):
            patch = self.patch(os, call, killed)
            refusal(LocalError, Vault, folder)
            patch.restore()
            again = Vault(folder)
            self.assertEqual(again.load().values, {"identity": bytes(range(64))}, call)  # a copy is outdated
            again.close()

    def test_files(self) -> None:
        """Of a folder that was copied while the client ran."""
        shutil.copytree(self.first, self.second, dirs_exist_ok=True)
        self.both_go_on()

    def test_backup(self) -> None:
        """That was made while the client ran."""
        file = self.first / "backup"
        back_up(self.first, file, lambda _: None, lambda: Passphrase("secret"))
        restore(file, self.second, lambda: Passphrase("secret"), lambda _: None)
        self.both_go_on()

    def test_written_over_the_original(self) -> None:
        """All of the folder, or the vault alone; from when the client ran, or had ended."""
        for ended in (False, True):
            for names in (("vault", "vault-wal", "vault.key", "vault.lock"), ("vault", "vault-wal", "vault.key")):
                with self.subTest((ended, names)):
                    self.over_the_original(names, ended=ended)
        self.assertEqual(self.bob.problems(), [])
        self.assertEqual(self.sealed.twice(), 0)

    def over_the_original(self, names: tuple[str, ...], *, ended: bool) -> None:
        self.ann.kill()
        cast("Any", self.ann.store).close()
        self.world.run_for(2)
        self.ann.use(self.vault(self.first))
        self.ann.start()
        self.talk(self.ann, self.bob)
        if ended:
            self.ann.kill()
            cast("Any", self.ann.store).close()
        copies = {name: (self.first / name).read_bytes() for name in names if (self.first / name).exists()}
        if ended:
            self.world.run_for(2)
            self.ann.use(self.vault(self.first))
            self.ann.start()
        self.talk(self.ann, self.bob)
        stream = self.stream()
        self.ann.kill()
        cast("Any", self.ann.store).close()
        number = (self.first / "vault").stat().st_ino
        for name, data in copies.items():
            (self.first / name).write_bytes(data)
        self.assertEqual((self.first / "vault").stat().st_ino, number)
        self.goes_on_with(self.first, f"over it {ended} {names}")
        self.assertNotEqual(self.stream(), stream)

    def test_of_a_version_that_did_not_say_where_it_stood(self) -> None:
        """It may be a copy: it goes on as one, once."""
        self.ann.kill()
        store = cast("Any", self.ann.store)
        store._database.execute("delete from facts where name = ?", (PLACE,))
        store._stands = False
        store.close()
        for anew in (True, False):
            vault = self.vault(self.first)
            self.assertEqual("outdated" in vault.load().values, anew)
            vault.commit(Change(values={"outdated": None}))
            vault.close()

    def test_moved(self) -> None:
        """The same file elsewhere is no copy, nor is it one the next time: nothing begins anew."""
        self.ann.kill()
        cast("Any", self.ann.store).close()
        for _ in range(2):
            moved = self.folder() / "moved"
            self.first.rename(moved)
            self.first = moved
            vault = self.vault(self.first)
            self.assertNotIn("outdated", vault.load().values)
            vault.close()

    def test_killed(self) -> None:
        """One that could not say where it stands at its end is no copy either; one whose lock was removed may be."""
        for removed, anew in ((False, False), (True, True)):
            self.ann.kill()
            store = cast("Any", self.ann.store)
            store._stands = False
            store.close()
            if removed:
                (self.first / "vault.lock").unlink()
            self.ann.use(self.vault(self.first))
            self.assertEqual("outdated" in self.ann.store.load().values, anew)


class StartAnewTests(WorldTestCase):
    def test_what_changes(self) -> None:
        """New streams, no session to send on, new numbers for prekeys; people hear of it; nothing else changes."""
        ann, bob = self.world.users("ann", "bob")
        self.talk(ann, bob)
        saved = ann.store.load()
        change = start_anew(saved, Counting("anew"))
        self.assertEqual({*change.values}, {"outdated", "prekeys"})
        self.assertEqual({*change.conversations}, {bob.id})
        self.assertNotEqual(change.conversations, saved.conversations)
        person = change.people[bob.id]
        assert person is not None
        self.assertTrue(person.renewed)
        self.assertFalse(saved.people[bob.id].renewed)
        self.assertEqual((change.letters, change.arrived), ({}, {}))

    def test_an_empty_one(self) -> None:
        """Nobody has used it: nothing changes."""
        saved = User(self.world, "ann").store.load()
        saved.values.clear()
        self.assertEqual(start_anew(saved, Counting("anew")), Change())

    def test_of_another_version(self) -> None:
        ann = self.world.user("ann")
        saved = ann.store.load()
        saved.values["prekeys"] = b"\x80"
        error = refusal(LocalError, start_anew, saved, Counting("anew"))
        self.assertEqual(error.code, Code.UNAVAILABLE)
