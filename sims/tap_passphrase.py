"""Where the passphrase of a vault comes from: a terminal, a file, the desktop's keyring. Never argv or the environment.

Whoever asks here waits: it is all over before the reactor runs.
"""

from __future__ import annotations

import os
import secrets
import stat
import sys
import termios
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from twisted.python import usage

from sims.client.passphrase import MAX_PASSPHRASE, SALT_SIZE, Passphrase
from sims.client.vault_key import Ask, Kind, Lock, Secret
from sims.errors import Code, LocalError

#: What the desktop shows beside what it keeps.
SERVICE = "sims-client"
TERMINAL = "/dev/tty"
#: Bytes of a passphrase that only the keyring knows.
_RANDOM = 32
_FILE_OPTION = "passphrase-file"

PARAMETERS = [
    [_FILE_OPTION, None, None, "The first line of this file is the vault's passphrase; nobody else may read the file."],
]  # fmt: skip
FLAGS = [
    ["keyring", None, "Lock a new vault by a passphrase that the desktop's keyring keeps (package 'keyring')."],
    ["no-passphrase", None, "Lock a new vault by no passphrase: whoever reads the file vault.key opens it."],
]


def check_options(options: Mapping[str, Any]) -> None:
    """See whether they go together.

    :raises UsageError: they do not.
    """
    given = [f"--{name}" for name in (_FILE_OPTION, "keyring", "no-passphrase") if options[name]]
    if len(given) > 1:
        raise usage.UsageError(f"{' and '.join(given)}: one of them")


def asker(options: Mapping[str, Any], folder: Path, *, terminal: bool) -> Ask:
    """Who is asked for the secret of the vault in a folder.

    :param terminal: whether a person who can choose the passphrase of a new vault is there.
    """

    def ask(lock: Lock | None) -> Secret | None:
        return _new(options, folder, terminal=terminal) if lock is None else present(options, folder, lock)

    return ask


def present(options: Mapping[str, Any], folder: Path, lock: Lock) -> Secret:
    """The secret of a lock that is there.

    :raises LocalError: there is none to be had.
    """
    if lock.kind is Kind.KEYRING:
        return Secret(from_keyring(lock))
    if options[_FILE_OPTION]:
        return Secret(from_file(options[_FILE_OPTION]))
    typed = prompt(f"Passphrase of the vault in {folder}: ")
    if typed is None:
        text = f"the vault in {folder} needs its passphrase: give --{_FILE_OPTION} FILE, or start it on a terminal"
        raise LocalError(Code.NOT_AUTHENTICATED, text)
    return Secret(Passphrase(typed))


def _new(options: Mapping[str, Any], folder: Path, *, terminal: bool) -> Secret | None:
    if options["no-passphrase"]:
        return None
    if options[_FILE_OPTION]:
        return Secret(from_file(options[_FILE_OPTION]))
    if options["keyring"]:
        return new_in_keyring()
    chosen = choose(f"Passphrase for the new vault in {folder}") if terminal else None
    if chosen is not None:
        return Secret(chosen)
    text = f"the new vault in {folder} has no passphrase: its file vault.key opens it"
    print(f"sims-client: {text} ('sims-client passphrase' sets one)", file=sys.__stderr__, flush=True)
    return None


def choose(what: str) -> Passphrase | None:
    """A new passphrase, typed twice; None without a terminal.

    :raises LocalError: ``policy``: it can be none, or the two are not the same.
    """
    typed = prompt(f"{what}: ")
    if typed is None:
        return None
    chosen = Passphrase(typed)
    again = prompt("Once more: ")
    if again is None or Passphrase(again).data != chosen.data:
        raise LocalError(Code.POLICY, "the two passphrases are not the same: nothing has changed")
    return chosen


def prompt(text: str) -> str | None:
    """What is typed on the terminal of this process, unseen; None where it has none.

    Standard input may be something else, and is not touched.

    :raises LocalError: nothing was typed.
    """
    try:
        terminal = os.open(TERMINAL, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        before = termios.tcgetattr(terminal)
        unseen = termios.tcgetattr(terminal)
        unseen[3] &= ~termios.ECHO
        termios.tcsetattr(terminal, termios.TCSAFLUSH, unseen)
        try:
            os.write(terminal, text.encode("utf-8", "replace"))
            typed = os.read(terminal, 8 * MAX_PASSPHRASE)  # a line, as long as the terminal gathers lines
        finally:
            termios.tcsetattr(terminal, termios.TCSADRAIN, before)
            os.write(terminal, b"\n")
    except (OSError, termios.error, KeyboardInterrupt):
        typed = b""
    finally:
        os.close(terminal)
    if not typed:
        raise LocalError(Code.UNAVAILABLE, "no passphrase was given")
    return _text(typed, "what was typed")


def from_file(path: str) -> Passphrase:
    """The first line of a file that only its owner may read.

    :raises LocalError: it cannot be read, others may read it, or there is no passphrase in it.
    """
    # No error names the file: who takes the option for one that takes a passphrase does not see it in a log.
    try:
        with open(Path(path).expanduser(), "rb") as opened:
            status = os.fstat(opened.fileno())
            if stat.S_IMODE(status.st_mode) & 0o077 or status.st_uid not in (0, os.getuid()):
                text = "others may read the passphrase's file: make it yours alone (chmod 600), and think of another"
                raise LocalError(Code.POLICY, text)
            line = opened.readline(8 * MAX_PASSPHRASE)
    except (FileNotFoundError, RuntimeError, ValueError):  # in nobody's home; no name at all
        text = f"there is no such file: --{_FILE_OPTION} takes the name of a file, whose first line is the passphrase"
        raise LocalError(Code.UNAVAILABLE, text) from None
    except OSError as error:
        raise LocalError(Code.UNAVAILABLE, f"cannot read the passphrase's file: {error.strerror}") from None
    return Passphrase(_text(line, "the first line of the passphrase's file"))


def _text(line: bytes, what: str) -> str:
    try:
        return line.decode("utf-8").removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise LocalError(Code.POLICY, f"{what} is no text in UTF-8") from None


def new_in_keyring() -> Secret:
    """A random passphrase that the desktop's keyring keeps from now on.

    :raises LocalError: ``unavailable``: it does not.
    """
    text, salt = secrets.token_urlsafe(_RANDOM), os.urandom(SALT_SIZE)
    _keyring("set_password", salt, text)
    if _keyring("get_password", salt) != text:  # there are backends that take everything and keep nothing
        raise LocalError(Code.UNAVAILABLE, "the desktop's keyring did not keep the passphrase: nothing has changed")
    return Secret(Passphrase(text), Kind.KEYRING, salt)


def from_keyring(lock: Lock) -> Passphrase:
    """What the desktop's keyring has kept for a lock.

    :raises LocalError: ``unavailable``: it cannot be asked; ``not-authenticated``: it has nothing.
    """
    found = _keyring("get_password", lock.salt)
    if found is None:
        text = "the passphrase of this vault is in the keyring of another desktop or user: restore a backup"
        raise LocalError(Code.NOT_AUTHENTICATED, text)
    return Passphrase(found)


def forget_in_keyring(lock: Lock) -> None:
    """The desktop's keyring need not keep the passphrase of a lock any longer.

    :raises LocalError: ``unavailable``.
    """
    _keyring("delete_password", lock.salt)


def _keyring(what: str, salt: bytes, *args: str) -> Any:
    try:
        keyring = import_module("keyring")
    except ImportError:
        text = "the desktop's keyring needs another package: pip install 'sims[keyring]'"
        raise LocalError(Code.UNAVAILABLE, text) from None
    try:
        return getattr(keyring, what)(SERVICE, salt.hex(), *args)
    except Exception as error:  # whatever its backends raise; their texts are not ours to show
        raise LocalError(Code.UNAVAILABLE, f"the desktop's keyring does not answer ({type(error).__name__})") from None
