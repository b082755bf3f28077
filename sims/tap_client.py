"""``twistd sims-client``: its options, and the service that they make."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

from twisted.application.service import IService, Service
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import clientFromString
from twisted.internet.interfaces import IReactorTime
from twisted.python import usage

from sims import specs
from sims.errors import SimsError
from sims.tap_options import Options, folder_of, stop
from sims.transport import LINGER
from sims.wire import MAX_NAME_JSON

_MAX_ID = 2**31
#: Seconds that a signal leaves to a server to take what was written.
_HURRY = 0.3
_NUMBER = re.compile(r"[0-9]{1,18}", re.ASCII)


class ClientOptions(Options):
    """``twistd sims-client``."""

    command = "sims-client"
    logger = "sims.tap_options.log_warnings"
    synopsis = "--seed tcp:HOST:PORT --name NAME [options]"
    longdesc = (
        "Talk through a SIMS relay. Commands come from standard input; type 'help' for them. The seed's format "
        "authenticates nobody: whoever runs the relay can sit in the middle."
    )
    optParameters = [  # noqa: RUF012 - Twisted's way
        ["seed", None, None, "The server, which speaks the seed's format: tcp:HOST:PORT or sims-seed://HOST:PORT."],
        ["name", "n", None, "The name that others see."],
        ["id", None, None, "The number that others reach you by (default: random, kept in the folder)."],
        ["specs", None, None, "The cipher specs to offer and to agree to, in order of preference, with commas."],
        ["dir", "d", None, "The folder that the client keeps its things in (default: in the user's data folder)."],
    ]
    optFlags = [  # noqa: RUF012 - Twisted's way
        ["json", None, "Commands and events as one JSON object a line."],
    ]

    def check(self) -> None:
        """As :meth:`Options.check`."""
        if not self["seed"]:
            raise usage.UsageError("which server? --seed tcp:HOST:PORT")
        name = self["name"]
        if not name or len(name) > 128 or len(json.dumps(name)) > MAX_NAME_JSON or not name.isprintable():
            raise usage.UsageError("which name? --name NAME, of 1 to 128 printable characters")
        self["folder"] = folder_of(self["dir"], "client", _file_name(name))
        try:
            self["specs"] = specs.by_names(self["specs"].split(",")) if self["specs"] is not None else None
        except SimsError as error:
            raise usage.UsageError(error.text) from None
        if self["id"] is not None and not _NUMBER.fullmatch(self["id"]):
            raise usage.UsageError("--id takes a number")
        if is_terminal() and not self["json"] and "twisted.internet.reactor" not in sys.modules:
            # The terminal's library runs on asyncio's loop.
            from twisted.internet import asyncioreactor

            asyncioreactor.install()
        from twisted.internet import reactor

        try:
            self["server"] = clientFromString(reactor, _seed_endpoint(self["seed"]))
        except (ValueError, TypeError, KeyError, IndexError, OSError) as error:
            raise usage.UsageError(f"not a server's address: {self['seed']}: {error}") from None
        self["number"] = int(self["id"]) if self["id"] is not None else own_id(self["folder"], self["name"])


def _seed_endpoint(text: str) -> str:
    """Twisted's description of a server that is given in it or as the server prints it.

    :raises UsageError: for neither.
    """
    match = re.fullmatch(r"sims-seed://(\[[0-9A-Fa-f:.]+\]|[^:/\[\]]+):([0-9]+)/?", text)
    if match is not None:
        host = match[1].strip("[]").replace(":", r"\:")
        return f"tcp:{host}:{match[2]}"
    return text


def own_id(folder: Path, name: str) -> int:
    """The number kept for a name in a folder; a random one of 31 bits, the first time.

    :raises UsageError: when the file cannot be read or written, or holds no number.
    """
    path = folder / f"seed-id.{_file_name(name)}"
    try:
        if not path.exists():
            # Written whole before it has its name, so that neither a second client nor a crash sees a part of it.
            draft = path.with_name(f"{path.name}.{os.getpid()}")
            with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="ascii") as file:
                file.write(f"{secrets.randbelow(_MAX_ID - 1) + 1}\n")
            with contextlib.suppress(FileExistsError):
                os.link(draft, path)
            draft.unlink()
        text = path.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise usage.UsageError(f"cannot keep an id in {path}: {error}") from None
    if not _NUMBER.fullmatch(text):
        raise usage.UsageError(f"{path} does not hold a number: remove it, or give --id")
    return int(text)


def _file_name(name: str) -> str:
    """A name as part of a file's name: readable, never special, never too long."""
    readable = quote(name, safe="").replace(".", "%2E")
    return readable if len(readable) <= 64 else f"{readable[:40]}-{sha256(name.encode()).hexdigest()[:20]}"


def is_terminal() -> bool:
    """Whether a person sits at both ends."""
    return os.isatty(0) and os.isatty(1)


def make_client(options: ClientOptions) -> IService:
    """The service of ``twistd sims-client``."""
    from twisted.internet import reactor

    from sims.client.connection import SeedClient
    from sims.console.shell import Shell

    clock = cast("IReactorTime", reactor)

    def make_shell(write: Callable[[str], None], leave: Callable[[int], None]) -> Shell:
        shell = Shell(json=bool(options["json"]), clock=clock, write=write, leave=leave)
        shell.client = SeedClient(
            options["server"],
            options["name"],
            options["number"],
            clock=clock,
            on_event=shell.show,
            offer=options["specs"] or specs.SEED_OFFER,
            allowed=options["specs"] or specs.SEED,
        )
        return shell

    return cast("IService", ConsoleService(make_shell, terminal=is_terminal() and not options["json"]))


class ConsoleService(Service):
    """A client and its console."""

    def __init__(
        self, make_shell: Callable[[Callable[[str], None], Callable[[int], None]], Any], *, terminal: bool
    ) -> None:
        self._make_shell = make_shell
        self._terminal = terminal
        self._console: Any = None
        self._left = False

    def startService(self) -> None:
        super().startService()
        from twisted.internet import reactor

        def leave(status: int) -> None:
            if not self._left:
                self._left = True
                stop(status)

        if self._terminal:
            from sims.console.terminal import Terminal

            self._console = Terminal(lambda terminal: self._make_shell(terminal.write, leave), leave)
        else:
            from sims.console.pipe import open_pipe

            self._console = open_pipe(
                lambda pipe: self._make_shell(pipe.write, leave), cast("IReactorTime", reactor), gone=lambda: leave(1)
            )
        self._console.shell.client.start()

    def stopService(self) -> Deferred[None]:
        """Leave: what was written is still sent; after a signal, hardly anything is waited for."""
        super().stopService()
        self._console.shell.stop()
        closing: Deferred[None] = self._console.shell.client.close(LINGER if self._left else _HURRY)
        return closing.addBoth(lambda _: self._console.close())
