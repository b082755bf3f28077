"""The commands of the program ``sims-client`` that are about its vault. They are over at once: no reactor runs."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO, cast

from twisted.python import usage

from sims.client.backup import back_up, restore
from sims.client.export import as_json, export, write_lines
from sims.client.passphrase import Passphrase
from sims.client.store import Store
from sims.client.vault import Vault
from sims.client.vault_key import Kind, Lock, Secret, change_secret, has_vault, is_ours, read_lock
from sims.console.view import export_to_text
from sims.errors import Code, LocalError, SimsError
from sims.tap_client import profile
from sims.tap_options import Options, path_of, stdout_line
from sims.tap_passphrase import choose, forget_in_keyring, from_file, new_in_keyring, present, prompt

#: As a shell has it for SIGINT.
_INTERRUPTED = 130
_NAME = ["name", "n", None, "The name of the profile (default: the only one that there is, or the login name)."]
_DIR = ["dir", "d", None, "The folder of the profile (default: one for each name, in the user's data folder)."]


class Command(usage.Options):
    """A command: its options, and what it does."""

    #: Whether the folder of the profile is made where there is none.
    makes = False

    opt_version = Options.opt_version

    @property
    def folder(self) -> Path:
        """The folder of the profile."""
        return profile(self["name"], self["dir"], make=self.makes)[1]

    def run(self) -> str:
        """Do it; gives what to tell, if anything.

        :raises SimsError: it cannot be done.
        :raises UsageError: the options make no sense.
        """
        raise NotImplementedError


class PassphraseCommand(Command):
    """``sims-client passphrase``."""

    synopsis = "Usage: sims-client passphrase [--name NAME] [options]"
    longdesc = (
        "Set, change or remove the passphrase of a vault. The present one, if there is one, and the new one are asked "
        "for on the terminal, where no option says otherwise. What the vault holds is not touched; who has a copy of "
        "the vault from before opens that copy with the passphrase from before. No client may be using the vault."
    )
    optParameters = [  # noqa: RUF012 - Twisted's way
        _NAME,
        _DIR,
        ["passphrase-file", None, None, "The present passphrase is the first line of this file, for your eyes only."],
        ["new-passphrase-file", None, None, "The new passphrase is the first line of this file, for your eyes only."],
    ]
    optFlags = [  # noqa: RUF012 - Twisted's way
        ["keyring", None, "A new, random passphrase that the desktop's keyring keeps (package 'keyring')."],
        ["remove", None, "No passphrase: whoever reads the file vault.key opens the vault."],
    ]

    def run(self) -> str:
        if sum(map(bool, (self["new-passphrase-file"], self["keyring"], self["remove"]))) > 1:
            raise usage.UsageError("--new-passphrase-file, --keyring, --remove: one of them")
        folder = self.folder
        before: list[Lock] = []

        def ask(lock: Lock | None) -> Secret | None:
            if lock is None:
                return None
            before.append(lock)
            return present(self, folder, lock)

        change_secret(folder, ask, self._new, locked=bool(self["passphrase-file"]))
        for lock in before:
            if lock.kind is Kind.KEYRING:
                with contextlib.suppress(LocalError):  # it opens nothing any more
                    forget_in_keyring(lock)
        if self["remove"]:
            return f"The vault in {folder} has no passphrase any more."
        return f"The vault in {folder} opens with the new passphrase{' in the keyring' if self['keyring'] else ''}."

    def _new(self) -> Secret | None:
        if self["remove"]:
            return None
        if self["keyring"]:
            return new_in_keyring()
        if self["new-passphrase-file"]:
            return Secret(from_file(self["new-passphrase-file"]))
        chosen = choose("New passphrase")
        if chosen is None:
            raise usage.UsageError("no terminal to ask on: --new-passphrase-file FILE, --keyring or --remove")
        return Secret(chosen)


class _FileCommand(Command):
    """A command about a backup's file."""

    def parseArgs(self, *words: str) -> None:
        if len(words) != 1:
            raise usage.UsageError("which file? one FILE comes last")
        self["file"] = path_of(words[0])

    def check_place(self) -> None:
        """See whether the file that is to be written would be taken for one of the profile's own.

        :raises LocalError: ``policy``.
        """
        if is_ours(self.folder, self["file"]):
            text = f"{self['file'].name} in {self.folder} is a name for what belongs to the vault: give another FILE"
            raise LocalError(Code.POLICY, text)


class BackupCommand(_FileCommand):
    """``sims-client backup``."""

    synopsis = "Usage: sims-client backup [--name NAME] [options] FILE"
    longdesc = (
        "Write everything in a vault to one encrypted file; a client may go on meanwhile. The file opens with the "
        "passphrase that the vault has now. Where that has none, or the keyring keeps it, the file gets one of its "
        "own, which is asked for on the terminal, or is the first line of --passphrase-file. A backup that is in FILE "
        "already is replaced, once the new one is whole."
    )
    optParameters = [  # noqa: RUF012 - Twisted's way
        _NAME,
        _DIR,
        ["passphrase-file", None, None, "The passphrase is the first line of this file, for your eyes only."],
    ]

    def run(self) -> str:
        folder, file = self.folder, self["file"]
        typed: list[Passphrase] = []

        def ask(lock: Lock | None) -> Secret | None:
            if lock is None:
                return None
            secret = present(self, folder, lock)
            if lock.kind is Kind.PASSPHRASE:
                typed.append(secret.passphrase)
            return secret

        self.check_place()
        back_up(folder, file, ask, lambda: typed[0] if typed else self._own())
        whose = "the vault's passphrase" if typed else "the passphrase that you gave"
        return f"{file} has everything that the vault in {folder} has; it opens with {whose}."

    def _own(self) -> Passphrase:
        if self["passphrase-file"]:
            return from_file(self["passphrase-file"])
        chosen = choose("Passphrase for the backup")
        if chosen is None:
            raise usage.UsageError("a backup needs a passphrase, and there is no terminal: --passphrase-file FILE")
        return chosen


class RestoreCommand(_FileCommand):
    """``sims-client restore``."""

    makes = True
    synopsis = "Usage: sims-client restore [--name NAME] [options] FILE"
    longdesc = (
        "Make a vault from a backup. The backup's passphrase is asked for on the terminal, or is the first line of "
        "--passphrase-file; afterwards it is the vault's, where no option says otherwise. Nothing is written before "
        "all of the file was checked. What was said since the backup was made is not in it; with everybody a new "
        "conversation begins by itself. Use only one of the vaults from then on."
    )
    optParameters = [  # noqa: RUF012 - Twisted's way
        _NAME,
        _DIR,
        ["passphrase-file", None, None, "The passphrase is the first line of this file, for your eyes only."],
    ]
    optFlags = [  # noqa: RUF012 - Twisted's way
        ["keyring", None, "Lock the vault by a passphrase that the desktop's keyring keeps (package 'keyring')."],
        ["no-passphrase", None, "Lock the vault by no passphrase: whoever reads the file vault.key opens it."],
        ["force", "f", "Replace the vault that is there. What it has is lost."],
    ]

    def run(self) -> str:
        if self["keyring"] and self["no-passphrase"]:
            raise usage.UsageError("--keyring and --no-passphrase: one of them")
        folder, file = self.folder, self["file"]
        restore(file, folder, lambda: self._passphrase(file), self._secret, force=bool(self["force"]))
        lock = read_lock(folder)
        how = "with the backup's passphrase"
        if lock is None or lock.kind is Kind.KEYRING:
            how = "without a passphrase" if lock is None else "through the keyring"
        return f"{file} is restored to {folder}; the vault opens {how}."

    def _passphrase(self, file: Path) -> Passphrase:
        if self["passphrase-file"]:
            return from_file(self["passphrase-file"])
        typed = prompt(f"Passphrase of the backup {file}: ")
        if typed is None:
            raise usage.UsageError("a backup needs its passphrase, and there is no terminal: --passphrase-file FILE")
        return Passphrase(typed)

    def _secret(self, given: Passphrase) -> Secret | None:
        if self["no-passphrase"]:
            return None
        return new_in_keyring() if self["keyring"] else Secret(given)


class ExportCommand(_FileCommand):
    """``sims-client export``."""

    synopsis = "Usage: sims-client export [--name NAME] [options] FILE"
    longdesc = (
        "Write all that was said, conversation by conversation, to a file that is NOT encrypted; it is for your eyes "
        "only. A FILE of - is standard output. The vault's passphrase is asked for on the terminal, where no option "
        "says otherwise. No client may be using the vault."
    )
    optParameters = [  # noqa: RUF012 - Twisted's way
        _NAME,
        _DIR,
        ["passphrase-file", None, None, "The passphrase is the first line of this file, for your eyes only."],
    ]
    optFlags = [  # noqa: RUF012 - Twisted's way
        ["json", None, "One JSON object a line for each message (default: text to read)."],
        ["force", "f", "Replace the FILE that is there."],
    ]

    def run(self) -> str:
        folder, file = self.folder, self["file"]
        if not has_vault(folder):
            raise LocalError(Code.UNAVAILABLE, f"there is no vault in {folder}")
        if str(file) != "-":
            self.check_place()
            _check_free(file, force=bool(self["force"]))  # before a passphrase is asked for

        def ask(lock: Lock | None) -> Secret | None:
            return None if lock is None else present(self, folder, lock)

        lines = as_json if self["json"] else export_to_text
        vault = Vault(folder, ask, locked=bool(self["passphrase-file"]))
        try:
            if str(file) == "-":
                return self._print(vault, lines)
            count = export(vault, file, lines)
        finally:
            vault.close()
        return f"{file} has the {count} messages that are kept in {folder}; it is not encrypted."

    def _print(self, vault: Vault, lines: Callable[[Store], Iterator[str]]) -> str:
        try:
            with open(os.dup(cast("TextIO", sys.__stdout__).fileno()), "wb") as out:
                write_lines(vault, out, lines)
        except OSError as error:
            raise LocalError(Code.UNAVAILABLE, f"cannot write: {error.strerror}") from None
        return ""


def _check_free(file: Path, *, force: bool) -> None:
    """See whether a file may be written: nothing is there, or a file that may be replaced.

    :raises LocalError: ``policy``: it may not; ``unavailable``: that cannot be seen.
    """
    try:
        found = file.lstat()
    except FileNotFoundError:
        return
    except OSError as error:
        raise LocalError(Code.UNAVAILABLE, f"cannot write {file}: {error.strerror}") from None
    if not stat.S_ISREG(found.st_mode):
        raise LocalError(Code.POLICY, f"{file} is there already, and is no file")
    if not force:
        raise LocalError(Code.POLICY, f"{file} is there already: --force replaces it")


#: The commands, by the word that comes first.
COMMANDS: dict[str, type[Command]] = {
    "passphrase": PassphraseCommand,
    "backup": BackupCommand,
    "restore": RestoreCommand,
    "export": ExportCommand,
}


def run_command(word: str, argv: Sequence[str]) -> int:
    """Run a command; gives the exit status: 0, 1 for what cannot be done, 130 after Ctrl-C."""
    options: Any = COMMANDS[word]()
    try:
        options.parseOptions(list(argv))
        told = options.run()
    except KeyboardInterrupt:
        return _INTERRUPTED
    except usage.UsageError as error:
        print(f"sims-client {word}: {error} (--help says more)", file=sys.__stderr__)
        return 1
    except SimsError as error:
        print(f"sims-client {word}: {error.text}", file=sys.__stderr__)
        return 1
    if told:
        stdout_line(told)
    return 0
