"""The console on a terminal: a line to edit, with a history for this session, and what arrives above it."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Callable
from contextvars import copy_context
from typing import cast

from prompt_toolkit.application import create_app_session, run_in_terminal
from prompt_toolkit.completion import WordCompleter
from prompt_toolkit.input import create_input
from prompt_toolkit.output import create_output
from prompt_toolkit.shortcuts import PromptSession
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from sims.console.commands import HELP
from sims.console.shell import Shell

_WORDS = [line.split()[0] for line in HELP.splitlines() if line.startswith("/")]
#: What a shell says of a program that Ctrl-C has ended.
_INTERRUPTED = 130
#: Seconds for which output is gathered: redrawing the line for each message of a burst would flicker, and be slow.
_GATHER = 0.02


class Terminal:
    """Reads lines from the terminal; runs on asyncio's loop, which must be the reactor's."""

    def __init__(self, shell: Callable[[Terminal], Shell], leave: Callable[[int], None]) -> None:
        self._leave = leave
        self._loop = asyncio.get_event_loop()
        self._batch: list[tuple[str, Deferred[bool]]] = []
        self._printing: asyncio.Future[None] | None = None
        # twistd has replaced sys.stdout by its log.
        self._output = create_output(sys.__stdout__)
        with create_app_session(input=create_input(sys.__stdin__), output=self._output):
            self._context = copy_context()
            self._session: PromptSession[str] = PromptSession(completer=WordCompleter(_WORDS, sentence=True))
            self.shell = shell(self)
            self._task = self._loop.create_task(self._read())

    def write(self, text: str) -> Deferred[bool]:
        """Print one line or more above the line that is being edited; fires when they are there, if they ever are."""
        if not self._batch:
            # In the context in which the line is being edited, or the two would not know of each other.
            self._loop.call_later(_GATHER, self._flush, context=self._context)
        done: Deferred[bool] = Deferred()
        self._batch.append((text, done))
        return done

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
            except OSError:  # the terminal is gone
                self._leave(1)
                return
            self.shell.line(line.encode("utf-8", "replace"))

    def close(self) -> Deferred[None]:
        """Give the terminal back; fires when it is as it was before, and everything is printed."""

        def ended(result: object) -> object:
            self._print()
            cancelled = isinstance(result, Failure) and isinstance(result.value, asyncio.CancelledError)
            return None if cancelled else result

        # The prompt restores the terminal as it ends.
        self._task.cancel()
        return cast("Deferred[None]", Deferred.fromFuture(self._task).addBoth(ended))

    def _flush(self) -> None:
        if self._batch:
            self._printing = asyncio.ensure_future(run_in_terminal(self._print))

    def _print(self) -> None:
        batch, self._batch = self._batch, []
        if batch:
            text, printed = "\n".join(text for text, _ in batch), False
            with contextlib.suppress(OSError):  # the terminal is gone: whoever reads from it sees that, too
                self._output.write_raw(text.replace("\n", "\r\n") + "\r\n")
                self._output.flush()
                printed = True
            for _, done in batch:
                done.callback(printed)
