"""The console on a terminal: a line to edit, with a history for this session, and what arrives above it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable

from prompt_toolkit.application import create_app_session
from prompt_toolkit.completion import WordCompleter
from prompt_toolkit.input import create_input
from prompt_toolkit.output import create_output
from prompt_toolkit.patch_stdout import StdoutProxy
from prompt_toolkit.shortcuts import PromptSession
from twisted.internet.defer import Deferred, succeed

from sims.console.shell import Shell

_WORDS = ["/list", "/connect", "/list-connected", "/send", "/disconnect", "/help", "/quit"]
#: What a shell says of a program that Ctrl-C has ended.
_INTERRUPTED = 130


class Terminal:
    """Reads lines from the terminal; runs on asyncio's loop, which must be the reactor's."""

    def __init__(self, shell: Callable[[Terminal], Shell], leave: Callable[[int], None]) -> None:
        self._leave = leave
        # twistd has replaced sys.stdout by its log.
        with create_app_session(input=create_input(sys.__stdin__), output=create_output(sys.__stdout__)):
            self._session: PromptSession[str] = PromptSession(completer=WordCompleter(_WORDS, sentence=True))
            # It gathers what comes in a burst, and prints it above the line that is being edited.
            self._above = StdoutProxy(raw=False)
            self.shell = shell(self)
            self._task = asyncio.get_event_loop().create_task(self._read())

    def write(self, text: str) -> None:
        """Print one line or more above the line that is being edited."""
        self._above.write(text + "\n")

    async def _read(self) -> None:
        while True:
            try:
                line = await self._session.prompt_async("> ", handle_sigint=False)
            except EOFError:
                self.shell.end_of_input()
                return
            except KeyboardInterrupt:
                self._leave(_INTERRUPTED)
                return
            self.shell.line(line.encode("utf-8", "replace"))

    def close(self) -> Deferred[None]:
        """Give the terminal back."""
        self._task.cancel()
        self._above.close()
        return succeed(None)
