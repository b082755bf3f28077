"""A client's console on a pseudo-terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Sequence

from tests.processes import TIMEOUT, Place, program

_SEQUENCE = re.compile(rb"\x1b\[[0-9;?]*[A-Za-z]")
_WHERE = b"\x1b[6n"  # where is the cursor?
# Makes the terminal that of the new session, so that its Ctrl-C becomes a signal, as a shell would do.
_TAKE_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


class TerminalConsole:
    """A console that has a terminal, of 24 lines of 80 columns, for standard input and output.

    The other end of the terminal answers where its cursor is, and gathers what is shown.
    """

    def __init__(
        self, place: Place, port: int, name: str, *args: str, command: Sequence[str] = ("sims-client",)
    ) -> None:
        self._screen, self._terminal = pty.openpty()
        fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self._settings = termios.tcgetattr(self._terminal)
        self._shown = bytearray()
        self._changed = threading.Condition()
        self._looked = 0
        self._hung_up = False
        options = ["--seed", f"tcp:127.0.0.1:{port}", "--name", name]
        self.popen = subprocess.Popen(
            [sys.executable, "-c", _TAKE_TERMINAL, program(command[0]), *command[1:], *options, *args],
            stdin=self._terminal,
            stdout=self._terminal,
            stderr=subprocess.PIPE,
            cwd=place.cwd,
            env={**place.environment, "TERM": "xterm"},
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def type(self, text: str) -> None:
        """Press keys, when nothing is being shown; ``\\r`` is Enter.

        While something is printed, the terminal is as it is outside the line editor: Ctrl-D is lost then.
        """
        self._settle()
        os.write(self._screen, text.encode("utf-8"))

    def see(self, text: str, timeout: float = TIMEOUT) -> None:
        """Wait until a text is shown, after what was waited for before."""

        def found() -> bool:
            at = self.shown.find(text, self._looked)
            if at >= 0:
                self._looked = at + len(text)
            return at >= 0

        with self._changed:
            if not self._changed.wait_for(found, timeout):
                raise AssertionError(f"{text!r} was not shown within {timeout:g} seconds, but\n{self.shown}")

    @property
    def shown(self) -> str:
        """Everything shown so far, without the sequences that move the cursor and the like."""
        return _SEQUENCE.sub(b"", bytes(self._shown)).decode("utf-8", "replace")

    @property
    def raw(self) -> bytes:
        """Everything shown so far, to the byte."""
        return bytes(self._shown)

    @property
    def restored(self) -> bool:
        """Whether the terminal is as it was before."""
        return termios.tcgetattr(self._terminal) == self._settings

    def wait_exit(self, timeout: float = TIMEOUT) -> int:
        """Wait for its end; gives the exit status."""
        try:
            status = self.popen.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it did not end within {timeout:g} seconds:\n{self.shown}") from None
        self._settle()
        return status

    def errors(self) -> str:
        """What it wrote to standard error, once it has ended."""
        stderr = self.popen.stderr
        return stderr.read().decode("utf-8", "replace") if stderr is not None else ""

    def hang_up(self) -> None:
        """Take the terminal away."""
        if not self._hung_up:
            self._hung_up = True
            self._reader.join(TIMEOUT)
            os.close(self._screen)

    def close(self) -> None:
        """End it, whatever state it is in."""
        self.popen.kill()
        self.popen.wait(TIMEOUT)
        self.hang_up()
        os.close(self._terminal)
        if self.popen.stderr is not None:
            self.popen.stderr.close()

    def _settle(self) -> None:
        """Wait until nothing more has been shown for a moment."""
        deadline = time.monotonic() + TIMEOUT
        with self._changed:
            while self._changed.wait(0.25) and time.monotonic() < deadline:
                pass

    def _read(self) -> None:
        while not self._hung_up:
            if not select.select([self._screen], [], [], 0.05)[0]:
                continue
            data = os.read(self._screen, 65_536)
            with self._changed:
                self._shown += data
                self._changed.notify_all()
            if _WHERE in data:
                os.write(self._screen, b"\x1b[1;1R")
