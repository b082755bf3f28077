"""Tests of ``sims-client export``, and of the option for whether what is said is kept."""

from __future__ import annotations

import json
import os
import stat
import sys
from pathlib import Path
from typing import Any, cast

from twisted.python import usage

from sims.client.history import CAME, Entry
from sims.client.store import Change, Person
from sims.client.vault import Vault
from sims.tap_client import ClientOptions
from sims.tap_vault import run_command
from sims.test.test_tap_client import LINK
from sims.test.test_tap_vault import OLD, CommandCase

BOB = 32 * "b"


class ExportTests(CommandCase):
    """A vault with two texts of bob's."""

    def setUp(self) -> None:
        super().setUp()
        vault = Vault(self.folder, OLD)
        entries = (
            Entry(id=bytes([number] * 16), peer=BOB, sender=BOB, text=text, state=CAME, time=number)
            for number, text in enumerate(("hello", "w\u00f6rld\n* not a title"))
        )
        vault.commit(Change(people={BOB: Person(id=BOB, name="bob")}, history=tuple(entries)))
        vault.close()
        self.arguments = ["--name", "ann", "--passphrase-file", self.old]

    def test_text(self) -> None:
        told = self.does("export", *self.arguments, self.file)
        self.assertIn("the 2 messages", told)
        self.assertIn("not encrypted", told)
        path = Path(self.file)
        title, first, second, rest = path.read_text("utf-8").splitlines()
        self.assertEqual(title, "* what was said with bob (bbbbbbbb...)")
        self.assertTrue(first.endswith("[unverified]: hello"), first)
        self.assertTrue(second.endswith("[unverified]: w\u00f6rld"), second)
        self.assertEqual(rest, "        * not a title")
        self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o600)

    def test_json(self) -> None:
        self.does("export", "--json", *self.arguments, self.file)
        found = [json.loads(line) for line in Path(self.file).read_text("ascii").splitlines()]
        self.assertEqual([one["text"] for one in found], ["hello", "w\u00f6rld\n* not a title"])

    def test_standard_output(self) -> None:
        """Nothing else is printed there."""
        path = self.home / "output"
        with open(path, "w", encoding="utf-8") as output:
            self.patch(sys, "__stdout__", output)
            self.assertEqual(run_command("export", ["--json", *self.arguments, "-"]), 0)
        self.assertEqual(len([json.loads(line) for line in path.read_text("ascii").splitlines()]), 2)
        self.assertFalse(Path("-").exists())

    def test_nobody_reads(self) -> None:
        """A pipe whose other end is gone is told of in a line."""
        reading, writing = os.pipe()
        os.close(reading)
        with open(writing, "w", encoding="utf-8") as output:
            self.patch(sys, "__stdout__", output)
            self.assertEqual(run_command("export", [*self.arguments, "-"]), 1)
        self.assertEqual(self.errors.getvalue(), "sims-client export: cannot write: Broken pipe\n")

    def test_refused(self) -> None:
        """No file, no vault, another's passphrase, a vault in use, a folder that is not there."""
        self.assertIn("which file", self.fails("export", *self.arguments))
        told = self.fails("export", "--dir", str(self.home), "--passphrase-file", self.old, self.file)
        self.assertIn("no vault", told)
        self.fails("export", "--name", "ann", "--passphrase-file", self.new, self.file)
        self.assertEqual(run_command("export", [*self.arguments, str(self.home / "none" / "file")]), 1)
        self.assertIn("No such file", self.errors.getvalue())
        self.errors.truncate(0)
        self.errors.seek(0)
        vault = Vault(self.folder, OLD)
        try:
            self.assertIn("in use", self.fails("export", *self.arguments, self.file))
        finally:
            vault.close()
        self.assertFalse(Path(self.file).exists())

    def test_what_is_there_stays(self) -> None:
        """But for --force, and a file; no file beside it is touched, and none of the profile's ever."""
        path, beside = Path(self.file), Path(f"{self.file}.new")
        path.write_bytes(b"mine")
        beside.write_bytes(b"mine, too")
        self.assertIn("is there already: --force", self.fails("export", *self.arguments, self.file))
        self.assertEqual(path.read_bytes(), b"mine")
        self.does("export", "--force", *self.arguments, self.file)
        self.assertNotEqual(path.read_bytes(), b"mine")
        self.assertEqual(beside.read_bytes(), b"mine, too")
        self.assertIn("is no file", self.fails("export", "--force", *self.arguments, str(self.home)))
        for name in ("vault", "vault.key", "vault.key.next"):
            told = self.fails("export", "--force", *self.arguments, str(self.folder / name))
            self.assertIn("belongs to the vault", told)

    def test_without_a_passphrase(self) -> None:
        """A vault that has none, where one was named."""
        self.does("passphrase", *self.arguments, "--remove")
        self.assertIn("has no passphrase", self.fails("export", *self.arguments, self.file))
        self.does("export", *self.arguments[:2], self.file)

    def test_a_folder_that_may_not_be_entered(self) -> None:
        """It is told of in a line, whoever runs the tests."""
        stat_of = os.stat

        def refuse(path: Any, *args: Any, **more: Any) -> os.stat_result:
            if str(path).startswith(str(self.folder / "vault")):
                raise PermissionError(13, "Permission denied")
            return stat_of(path, *args, **more)

        self.patch(os, "stat", refuse)
        status = run_command("export", [*self.arguments, self.file])
        self.assertEqual((status, self.errors.getvalue().count("\n")), (1, 1))
        self.assertIn(f"cannot use the folder {self.folder}: Permission denied", self.errors.getvalue())

    def test_history_option(self) -> None:
        """On, off, and as before."""
        for given, kept in (([], True), (["off"], False), ([], False), (["on"], True), ([], True)):
            argv = ["--link", LINK, "--name", "bob", "--no-passphrase"]
            options = ClientOptions()
            options.parseOptions([*argv, *(f"--history={one}" for one in given)])
            options.check()
            self.assertIs(options["client"].messenger._ledger.keeps_history, kept)
            options["client"].messenger.settle()
            options["store"].close()
        for argv in (["--history=maybe", "--link", LINK], ["--history=off", "--seed", "tcp:h:1", "--name", "bob"]):
            options = ClientOptions()
            options.parseOptions(argv)
            error = self.assertRaises(usage.UsageError, options.check)
            self.assertIn("--history", str(cast("Exception", error)))
