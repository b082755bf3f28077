"""Tests of :mod:`sims.tap_passphrase`: where a passphrase comes from, on a pseudo-terminal of their own."""

from __future__ import annotations

import io
import os
import pty
import sys
import termios
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any, TypeVar, cast

from twisted.python import usage
from twisted.trial.unittest import SynchronousTestCase

from sims import tap_passphrase
from sims.client.passphrase import Passphrase
from sims.client.vault_key import Kind, Lock, Secret
from sims.errors import Code, LocalError
from sims.tap_passphrase import asker, check_options, choose, from_file, from_keyring, new_in_keyring, prompt
from sims.test.builders import refusal

T = TypeVar("T")
WORDS = "correct horse"
LOCK = Lock(Kind.PASSPHRASE, bytes(16))
NOWHERE = Path("folder")


def options(**given: Any) -> dict[str, Any]:
    return {"passphrase-file": None, "keyring": 0, "no-passphrase": 0, **given}


class PassphraseCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.errors = io.StringIO()
        self.patch(sys, "__stderr__", self.errors)
        self.patch(tap_passphrase, "TERMINAL", "/none/there")

    def file(self, data: bytes, mode: int = 0o600) -> str:
        path = Path(cast("str", self.mktemp()))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        path.chmod(mode)
        return str(path)


class TerminalTests(PassphraseCase):
    def setUp(self) -> None:
        super().setUp()
        self.screen, self.terminal = pty.openpty()
        self.addCleanup(os.close, self.screen)
        self.addCleanup(os.close, self.terminal)
        self.patch(tap_passphrase, "TERMINAL", os.ttyname(self.terminal))
        self.shown = b""

    def while_typing(self, ask: Callable[[], T], *lines: bytes) -> T:
        """What it gives to somebody who types each line once it was asked for."""
        before = termios.tcgetattr(self.terminal)

        def type_all() -> None:
            for line in lines:
                asked = b""
                while not asked.endswith(b": "):
                    asked += os.read(self.screen, 1000)
                self.shown += asked
                os.write(self.screen, line)

        typist = Thread(target=type_all, daemon=True)
        typist.start()
        try:
            return ask()
        finally:
            typist.join(10)
            self.assertFalse(typist.is_alive())
            self.assertEqual(termios.tcgetattr(self.terminal), before)
            os.write(self.terminal, b"end")
            while not self.shown.endswith(b"end"):
                self.shown += os.read(self.screen, 1000)

    def test_unseen(self) -> None:
        """What is typed is not shown, and the terminal is as it was afterwards."""
        self.assertEqual(self.while_typing(lambda: prompt("Say it: "), "naïve words\n".encode()), "naïve words")
        self.assertEqual(self.shown, b"Say it: \r\nend")

    def test_nothing(self) -> None:
        """Neither the end of input nor bytes that are no text are a passphrase; an empty line is refused as one."""
        error = refusal(LocalError, self.while_typing, lambda: prompt("Say it: "), b"\x04")
        self.assertEqual(error.text, "no passphrase was given")
        error = refusal(LocalError, self.while_typing, lambda: prompt("Say it: "), b"caf\xe9\n")
        self.assertEqual(error.text, "what was typed is no text in UTF-8")
        error = refusal(LocalError, self.while_typing, lambda: choose("New"), b"\n")
        self.assertEqual(error.text, "a passphrase cannot be empty")

    def test_twice(self) -> None:
        """A new one is; in whatever spelling, but the same."""
        chosen = self.while_typing(lambda: choose("New"), "pass\u00e9\n".encode(), "passe\u0301\n".encode())
        self.assertEqual(cast("Passphrase", chosen).data, "pass\u00e9".encode())
        error = refusal(LocalError, self.while_typing, lambda: choose("New"), b"one\n", b"other\n")
        self.assertIn("not the same", error.text)
        self.assertNotIn("other", error.text)

    def test_one_that_is_there(self) -> None:
        """It is asked for once, whoever holds standard input; options for a new one are not for it."""
        for given in (options(), options(keyring=1)):
            ask = asker(given, NOWHERE, terminal=False)
            secret = self.while_typing(lambda ask=ask: ask(LOCK), b"correct horse\n")  # type: ignore[misc]
            self.assertEqual((secret.passphrase.data, secret.kind), (WORDS.encode(), Kind.PASSPHRASE))

    def test_a_new_one(self) -> None:
        """It is asked for on a person's terminal alone."""
        ask = asker(options(), NOWHERE, terminal=True)
        secret = self.while_typing(lambda: ask(None), b"correct horse\n", b"correct horse\n")
        self.assertEqual(cast("Secret", secret).passphrase.data, WORDS.encode())
        self.assertEqual(self.errors.getvalue(), "")
        self.assertIsNone(asker(options(), NOWHERE, terminal=False)(None))


class ElsewhereTests(PassphraseCase):
    def test_no_terminal(self) -> None:
        """A vault that is there does not open, and one line says how; a new one is open, and one line says so."""
        self.assertIsNone(prompt("Say it: "))
        self.assertIsNone(choose("New"))
        error = refusal(LocalError, asker(options(), NOWHERE, terminal=True), LOCK)
        self.assertEqual(error.code, Code.NOT_AUTHENTICATED)
        self.assertIn("give --passphrase-file FILE, or start it on a terminal", error.text)
        for terminal in (True, False):
            self.assertIsNone(asker(options(), NOWHERE, terminal=terminal)(None))
        told = (
            "sims-client: the new vault in folder has no passphrase: its file vault.key opens it "
            "('sims-client passphrase' sets one)\n"
        )
        self.assertEqual(self.errors.getvalue(), told * 2)

    def test_none(self) -> None:
        """Whoever asks for none is not told of it."""
        self.assertIsNone(asker(options(**{"no-passphrase": 1}), NOWHERE, terminal=True)(None))
        self.assertEqual(self.errors.getvalue(), "")

    def test_file(self) -> None:
        """Its first line, without its end, whichever it is; for a new vault and for one that is there."""
        for data in (b"correct horse", b"correct horse\n", b"correct horse\r\nmore\n\xff"):
            self.assertEqual(from_file(self.file(data)).data, WORDS.encode())
        ask = asker(options(**{"passphrase-file": self.file(b"correct horse\n")}), NOWHERE, terminal=True)
        for lock in (None, LOCK):
            self.assertEqual(cast("Secret", ask(lock)).passphrase.data, WORDS.encode())

    def test_file_refused(self) -> None:
        """One that others may read, or own; that is not there; that holds no passphrase."""
        for mode in (0o640, 0o604, 0o620, 0o666):
            self.assertIn("others may read", refusal(LocalError, from_file, self.file(b"words", mode)).text)
        theirs = SimpleNamespace(st_mode=0o100600, st_uid=os.getuid() + 1)
        patch = self.patch(os, "fstat", lambda _: theirs)
        self.assertIn("others may read", refusal(LocalError, from_file, self.file(b"words")).text)
        patch.restore()
        error = refusal(LocalError, from_file, "/none/there")
        self.assertIn("there is no such file", error.text)
        self.assertNotIn("/none", error.text)
        self.assertIn("Is a directory", refusal(LocalError, from_file, "/").text)
        for data, why in ((b"", "empty"), (b"\n", "empty"), (b"\nwords", "empty"), (b"\xff\n", "no text in UTF-8")):
            self.assertIn(why, refusal(LocalError, from_file, self.file(data)).text)

    def test_file_is_not_named(self) -> None:
        """In no error: it may be a passphrase, given as the option's value."""
        for named in ("~nosuchuser/correct horse", f"{self.file(b'x')}/correct horse", f"{WORDS}/{'x' * 300}", "\0"):
            self.assertNotIn(WORDS, refusal(LocalError, from_file, named).text)
        for data, mode in ((b"words", 0o644), (b"\xff", 0o600)):
            named = self.file(data, mode)
            self.assertNotIn(named, refusal(LocalError, from_file, named).text)

    def test_one_way(self) -> None:
        check_options(options(keyring=1))
        with self.assertRaises(usage.UsageError) as caught:
            check_options(options(**{"keyring": 1, "passphrase-file": "x"}))
        self.assertEqual(str(caught.exception), "--passphrase-file and --keyring: one of them")


class KeyringTests(PassphraseCase):
    """With a keyring that the test plays."""

    def setUp(self) -> None:
        super().setUp()
        self.kept: dict[tuple[str, str], str] = {}

        def keep(service: str, name: str, word: str) -> None:
            self.kept[service, name] = word

        def find(service: str, name: str) -> str | None:
            return self.kept.get((service, name))

        self.keyring = SimpleNamespace(set_password=keep, get_password=find, delete_password=None)
        self.install(self.keyring)

    def install(self, keyring: object) -> None:
        before = sys.modules.get("keyring")
        sys.modules["keyring"] = cast("Any", keyring)

        def back() -> None:
            if before is None:
                sys.modules.pop("keyring", None)
            else:
                sys.modules["keyring"] = before

        self.addCleanup(back)

    def test_keeps(self) -> None:
        """A random passphrase for each lock, found again by the lock's salt."""
        ask = asker(options(keyring=1), NOWHERE, terminal=True)
        found = set()
        for _ in range(2):
            secret = cast("Secret", ask(None))
            self.assertEqual(secret.kind, Kind.KEYRING)
            again = cast("Secret", ask(Lock(Kind.KEYRING, cast("bytes", secret.salt))))
            self.assertEqual(again.passphrase.data, secret.passphrase.data)
            self.assertGreaterEqual(len(secret.passphrase.data), 40)
            found.add(secret.passphrase.data)
        self.assertEqual(len(found), 2)
        self.assertEqual({service for service, _ in self.kept}, {"sims-client"})

    def test_has_it_not(self) -> None:
        error = refusal(LocalError, from_keyring, Lock(Kind.KEYRING, bytes(16)))
        self.assertEqual(error.code, Code.NOT_AUTHENTICATED)
        self.assertIn("another desktop or user", error.text)

    def test_does_not_answer(self) -> None:
        """Nor is what it says shown: nobody knows what is in it."""

        def fail(*args: object) -> None:
            raise RuntimeError(f"cannot keep {args}")

        self.keyring.set_password = fail
        error = refusal(LocalError, new_in_keyring)
        self.assertEqual(error.text, "the desktop's keyring does not answer (RuntimeError)")

    def test_does_not_keep(self) -> None:
        """One that takes everything and keeps nothing, or something else, is none."""
        for keep in (lambda *_: None, lambda service, name, _: self.kept.update({(service, name): "other"})):
            self.keyring.set_password = keep
            error = refusal(LocalError, new_in_keyring)
            self.assertEqual((error.code, "did not keep" in error.text), (Code.UNAVAILABLE, True))

    def test_is_not_installed(self) -> None:
        self.install(None)
        error = refusal(LocalError, new_in_keyring)
        self.assertEqual((error.code, "sims[keyring]" in error.text), (Code.UNAVAILABLE, True))
