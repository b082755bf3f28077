"""Tests of :mod:`sims.tap_vault`, and of the options of :mod:`sims.tap_client` that are about the vault."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from twisted.internet.defer import succeed
from twisted.internet.task import Clock

from sims import tap, tap_client, tap_passphrase, tap_vault
from sims.client import backup, passphrase
from sims.client.store import Change
from sims.client.vault import Vault
from sims.client.vault_key import Ask, Kind, Lock, Secret, read_lock
from sims.errors import LocalError
from sims.tap_client import ClientOptions, ConsoleService, make_client
from sims.tap_options import stdout_line
from sims.tap_passphrase import from_keyring
from sims.tap_vault import run_command
from sims.test.builders import refusal
from sims.test.test_tap_client import LINK, TapTestCase

OLD, NEW = "correct horse", "battery staple"


class CommandCase(TapTestCase):
    """No terminal; a vault with the passphrase ``OLD``, of the name ann; what is printed is gathered."""

    def setUp(self) -> None:
        super().setUp()
        self.patch(passphrase, "MEMORY", 64)
        self.patch(tap_passphrase, "TERMINAL", "/none/there")
        self.output = io.StringIO()
        self.patch(sys, "__stdout__", self.output)
        self.home.mkdir(parents=True)
        self.old, self.new = self.words("old", OLD), self.words("new", NEW)
        self.folder = self.data / "sims" / "client" / "ann"
        self.folder.mkdir(parents=True)
        vault = Vault(self.folder, OLD)
        vault.commit(Change(values={"note": b"hers"}))
        vault.close()
        self.file = str(self.home / "backup")

    def words(self, name: str, text: str) -> str:
        path = self.home / name
        path.write_text(f"{text}\n", "utf-8")
        path.chmod(0o600)
        return str(path)

    def does(self, *argv: str) -> str:
        """What a command prints that succeeds."""
        self.output.truncate(0)
        self.output.seek(0)
        status = run_command(argv[0], argv[1:])
        self.assertEqual((status, self.errors.getvalue()), (0, ""))
        self.assertEqual(self.output.getvalue().count("\n"), 1)
        return self.output.getvalue()[:-1]

    def fails(self, *argv: str) -> str:
        """Why a command fails: a line on standard error, status 1; no file of the profile has changed."""
        before, printed = self.files(), self.output.getvalue()
        self.assertEqual(run_command(argv[0], argv[1:]), 1)
        told = self.errors.getvalue()
        self.errors.truncate(0)
        self.errors.seek(0)
        self.assertEqual((told.count("\n"), self.output.getvalue(), self.files()), (1, printed, before))
        self.assertTrue(told.startswith(f"sims-client {argv[0]}: "), told)
        for words in (OLD, NEW):
            self.assertNotIn(words, told)
        return told

    def files(self) -> dict[str, bytes]:
        folder = self.data / "sims" / "client"
        return {str(path): path.read_bytes() for path in folder.glob("*/*") if path.suffix != ".lock"}

    def opens(self, given: str | Ask | None, folder: Path | None = None) -> None:
        vault = Vault(folder or self.folder, given)
        self.assertEqual(vault.load().values, {"note": b"hers"})
        vault.close()

    def install_keyring(self, *, keeps: bool = True) -> dict[str, str]:
        """A keyring, and what it keeps."""
        kept: dict[str, str] = {}
        keyring: Any = SimpleNamespace(
            set_password=lambda _, name, word: kept.update({name: word} if keeps else {}),
            get_password=lambda _, name: kept.get(name),
            delete_password=lambda _, name: kept.pop(name),
        )
        before = sys.modules.get("keyring")
        sys.modules["keyring"] = keyring

        def back() -> None:
            if before is None:
                del sys.modules["keyring"]
            else:
                sys.modules["keyring"] = before

        self.addCleanup(back)
        return kept


class PassphraseTests(CommandCase):
    def test_changes(self) -> None:
        """From one to another, to none, and to one again."""
        told = self.does("passphrase", "--passphrase-file", self.old, "--new-passphrase-file", self.new)
        self.assertEqual(told, f"The vault in {self.folder} opens with the new passphrase.")
        self.opens(NEW)
        told = self.does("passphrase", "--name", "ann", "--passphrase-file", self.new, "--remove")
        self.assertEqual(told, f"The vault in {self.folder} has no passphrase any more.")
        self.opens(None)
        self.does("passphrase", "--dir", str(self.folder), "--new-passphrase-file", self.old)
        self.opens(OLD)

    def test_keyring(self) -> None:
        """It keeps a passphrase as long as that opens the vault, and no longer."""
        kept = self.install_keyring()
        told = self.does("passphrase", "--passphrase-file", self.old, "--keyring")
        self.assertEqual(told, f"The vault in {self.folder} opens with the new passphrase in the keyring.")
        self.assertEqual(cast("Lock", read_lock(self.folder)).kind, Kind.KEYRING)
        self.assertEqual(len(kept), 1)
        self.does("passphrase", "--new-passphrase-file", self.new)
        self.opens(NEW)
        self.assertEqual(kept, {})

    def test_keyring_that_keeps_nothing(self) -> None:
        """The lock stays as it is, byte for byte; nor is a vault made, or restored, that nothing would open."""
        self.does("backup", "--passphrase-file", self.old, self.file)
        self.install_keyring(keeps=False)
        self.assertIn("did not keep", self.fails("passphrase", "--passphrase-file", self.old, "--keyring"))
        self.opens(OLD)
        given = ("--passphrase-file", self.old, "--keyring", self.file)
        self.assertIn("did not keep", self.fails("restore", "--force", *given))
        self.assertIn("did not keep", self.fails("restore", "--name", "eve", *given))

    def test_of_a_vault_without_one(self) -> None:
        """Whoever names the passphrase is told that there is none; and sets one without naming it."""
        self.does("passphrase", "--passphrase-file", self.old, "--remove")
        why = self.fails("passphrase", "--passphrase-file", self.old, "--new-passphrase-file", self.new)
        self.assertIn(f"the vault in {self.folder} has no passphrase", why)
        self.does("passphrase", "--new-passphrase-file", self.new)
        self.opens(NEW)

    def test_refused(self) -> None:
        self.assertIn("not the passphrase", self.fails("passphrase", "--passphrase-file", self.new, "--remove"))
        self.assertIn("needs its passphrase", self.fails("passphrase", "--remove"))
        why = self.fails("passphrase", "--passphrase-file", self.old)
        self.assertIn("no terminal to ask on: --new-passphrase-file FILE, --keyring or --remove", why)
        self.assertIn("one of them", self.fails("passphrase", "--remove", "--new-passphrase-file", self.new))
        self.assertIn("no vault in", self.fails("passphrase", "--name", "bob", "--remove"))
        self.assertFalse((self.data / "sims" / "client" / "bob").exists())
        self.assertIn("there is no such file", self.fails("passphrase", "--passphrase", OLD, "--remove"))
        self.assertIn("not recognized", self.fails("passphrase", "--password", OLD))
        vault = Vault(self.folder, OLD)
        self.addCleanup(vault.close)
        why = self.fails("passphrase", "--passphrase-file", self.old, "--new-passphrase-file", self.new)
        self.assertIn("in use by another client", why)


class BackupTests(CommandCase):
    def test_there_and_back(self) -> None:
        """With the vault's own passphrase, and to another machine."""
        told = self.does("backup", "--passphrase-file", self.old, self.file)
        self.assertIn(f"{self.file} has everything that the vault in {self.folder} has", told)
        self.assertIn("it opens with the vault's passphrase", told)
        other = self.home / "other"
        told = self.does("restore", "--dir", str(other), "--passphrase-file", self.old, self.file)
        self.assertEqual(told, f"{self.file} is restored to {other}; the vault opens with the backup's passphrase.")
        self.opens(OLD, other)

    def test_of_a_vault_without_one(self) -> None:
        """The file has one all the same."""
        self.does("passphrase", "--passphrase-file", self.old, "--remove")
        self.assertIn("no terminal: --passphrase-file FILE", self.fails("backup", self.file))
        self.assertFalse(Path(self.file).exists())
        told = self.does("backup", "--passphrase-file", self.new, self.file)
        self.assertIn("it opens with the passphrase that you gave", told)
        self.does("restore", "--name", "eve", "--passphrase-file", self.new, self.file)
        self.opens(NEW, self.folder.with_name("eve"))

    def test_how_it_is_locked_then(self) -> None:
        """By nothing, or through the keyring, where one asks for it; a backup of that gets a passphrase."""
        kept = self.install_keyring()
        self.does("backup", "--passphrase-file", self.old, self.file)
        other = self.home / "other"
        told = self.does("restore", "-d", str(other), "--passphrase-file", self.old, "--no-passphrase", self.file)
        self.assertTrue(told.endswith("opens without a passphrase."))
        self.opens(None, other)
        given = ("-d", str(other), "--passphrase-file", self.old, "--keyring", self.file)
        self.assertIn("--force", self.fails("restore", *given))
        self.assertEqual(kept, {})
        self.assertTrue(self.does("restore", "--force", *given).endswith("opens through the keyring."))
        vault = Vault(other, lambda lock: Secret(from_keyring(cast("Lock", lock))))
        self.assertEqual(vault.load().values, {"note": b"hers"})
        vault.close()
        self.assertIn(
            "passphrase that you gave", self.does("backup", *given[:2], "--passphrase-file", self.new, self.file)
        )

    def test_refused(self) -> None:
        self.assertIn("which file?", self.fails("backup"))
        self.assertIn("which file?", self.fails("restore", "one", "two"))
        self.assertIn("not the passphrase", self.fails("backup", "--passphrase-file", self.new, self.file))
        self.assertIn("no vault in", self.fails("backup", "--name", "bob", self.file))
        for name in ("vault.next", "vault.key.next"):  # what an opening takes for its own, and removes or uses
            self.assertIn("belongs to the vault", self.fails("backup", str(self.folder / name)))
        self.assertFalse(Path(self.file).exists())
        self.does("backup", "--passphrase-file", self.old, self.file)
        self.assertIn("no terminal", self.fails("restore", "--name", "eve", self.file))
        self.assertIn(
            "not the passphrase", self.fails("restore", "-n", "eve", "--passphrase-file", self.new, self.file)
        )
        why = self.fails("restore", "--passphrase-file", self.old, self.file)
        self.assertIn(f"there is a vault in {self.folder} already: --force", why)
        why = self.fails("restore", "--no-passphrase", "--keyring", self.file)
        self.assertIn("one of them", why)


class ProgramTests(CommandCase):
    def test_a_command_comes_first(self) -> None:
        """Of the program, which ends with its status; anything else is for the client."""
        self.patch(sys, "argv", ["sims-client", "backup", "--passphrase-file", self.new, self.file])
        with self.assertRaises(SystemExit) as caught:
            tap.run_client()
        self.assertEqual(caught.exception.code, 1)
        self.assertIn("sims-client backup: that is not the passphrase", self.errors.getvalue())
        ran: list[str] = []
        self.patch(tap, "_run", ran.append)
        for argv in (["sims-client"], ["sims-client", "--name", "backup"]):
            self.patch(sys, "argv", argv)
            tap.run_client()
        self.assertEqual(ran, ["sims-client"] * 2)

    def test_ctrl_c(self) -> None:
        """Ends a command without a word, and leaves what was there."""

        def interrupt(*_: object) -> None:
            raise KeyboardInterrupt

        self.patch(backup, "_seal", interrupt)
        before = self.files()
        self.assertEqual(run_command("backup", ["--passphrase-file", self.old, self.file]), 130)
        self.assertEqual((self.errors.getvalue(), self.output.getvalue(), self.files()), ("", "", before))
        self.assertEqual(sorted(path.name for path in self.home.iterdir()), ["data", "new", "old"])

    def test_nobodys_home(self) -> None:
        """As a file, as a folder: a line says so."""
        for argv in (
            ("export", "~nosuchuser/x"),
            ("backup", "--dir", "~nosuchuser/x", self.file),
            ("restore", "--dir", "~nosuchuser/x", self.file),
        ):
            self.assertIn("nobody's home: ~nosuchuser/x", self.fails(*argv))
        self.assertIn("there is no such file", self.fails("export", "--passphrase-file", "~nosuchuser/x", self.file))

    def test_a_name_that_is_no_text(self) -> None:
        """Is shown as far as it can be."""
        with open(self.home / "output", "w", encoding="utf-8") as output:
            self.patch(sys, "__stdout__", output)
            stdout_line("a\udcff\xe9")
        self.assertEqual((self.home / "output").read_text("utf-8"), "a\\udcff\xe9\n")

    def test_help(self) -> None:
        """Each says what it is for, and the client's names them all."""
        for word in tap_vault.COMMANDS:
            with contextlib.redirect_stdout(io.StringIO()) as output, self.assertRaises(SystemExit) as caught:
                run_command(word, ["--help"])
            self.assertFalse(caught.exception.code)
            self.assertIn(f"Usage: sims-client {word}", output.getvalue())
            self.assertIn("--passphrase-file=", output.getvalue())
            self.assertIn(f"'{word}'", ClientOptions.longdesc)


class ClientTests(CommandCase):
    """The client itself, started without a terminal."""

    def test_opens(self) -> None:
        """With the file that holds the passphrase; with nothing else."""
        where = ("--link", LINK, "--dir", str(self.folder), "--name", "ann")
        vault = Vault(self.folder, OLD)
        vault.commit(Change(values={"note": None}))
        vault.close()
        self.keep(self.client(*where, "--passphrase-file", self.old))
        self.assertIn("not the passphrase", self.refused(*where, "--passphrase-file", self.new))
        self.assertIn("give --passphrase-file FILE", self.refused(*where))
        self.assertEqual(self.errors.getvalue(), "")

    def test_of_a_vault_without_a_passphrase(self) -> None:
        """It does not open for whoever takes it for one that is locked."""
        self.install_keyring()
        where = ("--link", LINK, "--name", "bob")
        self.keep(self.client(*where, "--no-passphrase"))
        for named in (("--passphrase-file", self.old), ("--keyring",)):
            self.assertIn("has no passphrase, and opens with none", self.refused(*where, *named))
        self.keep(self.client(*where, "--no-passphrase"))

    def test_a_new_vault(self) -> None:
        """It has the lock that was asked for; one that nobody asked for none is said to have none."""
        for name, options, told in (
            ("b", ("--no-passphrase",), ""),
            ("c", (), "has no passphrase: its file vault.key"),
        ):
            self.keep(self.client("--link", LINK, "--name", name, *options))
            self.assertIsNone(read_lock(self.folder.with_name(name)))
            self.assertIn(told, self.errors.getvalue())
            self.assertEqual(bool(told), bool(self.errors.getvalue()))
        self.keep(self.client("--link", LINK, "--name", "d", "--passphrase-file", self.new))
        self.assertEqual(cast("Lock", read_lock(self.folder.with_name("d"))).kind, Kind.PASSPHRASE)
        refusal(LocalError, Vault, self.folder.with_name("d"))

    def test_refused(self) -> None:
        """Before there is a vault: options that do not go together, words, a file that others may read."""
        where = ("--link", LINK, "--name", "eve")
        self.assertIn("one of them", self.refused(*where, "--keyring", "--no-passphrase"))
        os.chmod(self.new, 0o644)
        self.assertIn("others may read", self.refused(*where, "--passphrase-file", self.new))
        self.assertFalse([name for name in self.files() if "/eve/" in name])
        self.assertIn("no passphrase", self.refused("--seed", "tcp:localhost:1", "--name", "x", "--no-passphrase"))
        with self.assertRaises(SystemExit) as caught:
            ClientOptions().parseOptions(["--json", "backup"])
        self.assertEqual(caught.exception.code, 1)
        self.assertIn("'backup' is no option; commands are for the program", self.errors.getvalue())


class TidyTests(TapTestCase):
    def test_every_now_and_then(self) -> None:
        """While the client runs, and within a minute; no longer."""
        clock, tidied = Clock(), []
        client = SimpleNamespace(start=lambda: None, close=lambda _: succeed(None))
        console = SimpleNamespace(shell=SimpleNamespace(client=client, stop=lambda: None), close=lambda: None)
        from sims.console import pipe

        self.patch(pipe, "open_pipe", lambda *_, **__: console)
        service = ConsoleService(lambda *_: None, terminal=False, tidy=lambda: tidied.append(clock.seconds()))
        service._tidying.clock = clock
        service.startService()
        self.assertEqual(tidied, [])
        clock.pump([10] * 13)
        self.assertEqual(tidied, [20, 40, 60, 80, 100, 120])
        self.successResultOf(service.stopService())
        clock.pump([10] * 10)
        self.assertEqual(len(tidied), 6)
        self.assertFalse(clock.getDelayedCalls())

    def test_is_the_vault(self) -> None:
        """What is called is the vault's own."""
        self.patch(tap_client, "is_terminal", lambda: False)
        options = ClientOptions()
        options.parseOptions(["--json", "--link", LINK, "--name", "ann", "--no-passphrase"])
        options.check()
        self.addCleanup(options["store"].close)
        service: Any = make_client(options)
        log = self.data / "sims" / "client" / "ann" / "vault-wal"
        options["store"].commit(Change(values={"x": bytes(1000)}))
        self.assertGreater(log.stat().st_size, 0)
        service._tidying.f()
        self.assertEqual(log.stat().st_size, 0)
