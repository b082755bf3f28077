"""The two twistd commands, and the console scripts that are the same without the word twistd."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import re
import secrets
import sys
from collections.abc import Callable
from errno import ENOTDIR
from hashlib import sha256
from pathlib import Path
from typing import Any, NoReturn, cast
from urllib.parse import quote

import platformdirs
from twisted.application.app import run as run_app
from twisted.application.service import IService, Service
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import clientFromString
from twisted.internet.error import ReactorNotRunning
from twisted.internet.interfaces import IReactorCore, IReactorTime
from twisted.logger import (
    FilteringLogObserver,
    ILogObserver,
    LogEvent,
    LogLevel,
    LogLevelFilterPredicate,
    PredicateResult,
    textFileLogObserver,
)
from twisted.python import usage

from sims import specs
from sims.errors import SimsError
from sims.server.service import SeedServer, endpoint
from sims.transport import LINGER
from sims.version import __version__
from sims.wire import MAX_NAME_JSON

DEFAULT_SEED_LISTEN = "tcp:8080:interface=127.0.0.1"
_MAX_ID = 2**31
#: Seconds that a signal leaves to a server to take what was written.
_HURRY = 0.3
_NUMBER = re.compile(r"[0-9]{1,18}", re.ASCII)


# --- what both commands have in common --------------------------------------------------------------------------------


def _stop(status: int) -> None:
    """End, with an exit status: twistd itself would always end with 0."""
    from twisted.internet import reactor

    if status:
        atexit.register(_exit, status)
    core = cast("IReactorCore", reactor)
    if core.running:
        with contextlib.suppress(ReactorNotRunning):  # it is being stopped already
            core.stop()
    else:
        core.callWhenRunning(core.stop)


def _exit(status: int) -> None:
    for stream in (sys.__stdout__, sys.__stderr__):
        with contextlib.suppress(OSError, ValueError):
            if stream is not None:
                stream.flush()
    os._exit(status)


def _die(text: str) -> None:
    """Say why it ends, and end."""
    print(f"{Path(sys.argv[0]).name}: {text}", file=sys.__stderr__, flush=True)
    _stop(1)


def _stdout_line(text: str) -> None:
    # twistd replaces sys.stdout by its log.
    with contextlib.suppress(OSError):  # nobody reads it any more
        print(text, file=sys.__stdout__, flush=True)


class _Options(usage.Options):
    """Options of both commands."""

    logger = "sims.tap.log_all"
    command = ""

    def check(self) -> None:
        """See whether the options make sense, and turn them into what the service needs.

        :raises UsageError: they do not.
        """

    def opt_version(self) -> NoReturn:
        """Print the version and exit."""
        _stdout_line(f"sims {__version__}")
        raise SystemExit(0)

    def opt_logfile(self, name: str) -> None:
        """Log to this file instead of standard error."""
        self["logfile"] = name

    def postOptions(self) -> None:
        parent = self.parent
        if parent is None:
            return
        if parent.get("pidfile") == "twistd.pid":  # twistd's default; one asked for by name stays
            parent["pidfile"] = ""
        if self.get("logfile"):
            parent["logfile"] = self["logfile"]
        if parent.get("logger") is None and parent.get("logfile") in (None, "-"):
            parent["logger"] = self.logger
        self.check()

    def parseOptions(self, options: Any = None) -> None:
        """As usage.Options does, but for what is wrong: one line on standard error.

        twistd would print the whole help, on standard output.
        """
        try:
            super().parseOptions(options)
        except usage.UsageError as error:
            print(f"{self.command}: {error} (--help says more)", file=sys.__stderr__)
            raise SystemExit(1) from None


def log_all() -> ILogObserver:
    """Everything from *info* upwards, on standard error."""
    return _observer(LogLevel.info)


def log_warnings() -> ILogObserver:
    """Warnings and worse, on standard error: a console's user sees the rest as events."""
    return _observer(LogLevel.warn)


def _no_second_stop(event: LogEvent) -> Any:
    # A signal while the reactor is being stopped makes it stop again, and complain of itself. That is no news.
    failure = event.get("log_failure")
    second = failure is not None and failure.check(ReactorNotRunning)
    return PredicateResult.no if second else PredicateResult.maybe


def _observer(level: Any) -> ILogObserver:
    stream = sys.__stderr__ or open(os.devnull, "w")  # noqa: SIM115 - open as long as the process
    predicates: list[Any] = [_no_second_stop, LogLevelFilterPredicate(defaultLogLevel=level)]
    shown = FilteringLogObserver(textFileLogObserver(stream), predicates)
    return cast("ILogObserver", shown)


def _folder(path: str | None, *default: str) -> Path:
    """The folder to keep things in, made if it is not there, for its owner alone.

    :raises UsageError: when it cannot be made or is no folder.
    """
    folder = Path(path).expanduser() if path else Path(platformdirs.user_data_dir("sims")).joinpath(*default)
    try:
        for missing in reversed([one for one in (folder, *folder.parents) if not one.exists()]):
            missing.mkdir(mode=0o700, exist_ok=True)
        if not folder.is_dir():
            raise NotADirectoryError(ENOTDIR, os.strerror(ENOTDIR))
    except OSError as error:
        raise usage.UsageError(f"cannot use the folder {folder}: {error.strerror}") from None
    return folder


# --- the server -------------------------------------------------------------------------------------------------------


class ServerOptions(_Options):
    """``twistd sims-server``."""

    command = "sims-server"
    synopsis = "[options]"
    longdesc = (
        "Run a SIMS relay. It prints the address of each listener on standard output. Without a listener named, it "
        f"speaks the seed's format, in which nothing is authenticated, on this machine only ({DEFAULT_SEED_LISTEN})."
    )
    optParameters = [  # noqa: RUF012 - Twisted's way
        ["dir", "d", None, "The folder that the server keeps its things in (default: in the user's data folder)."],
    ]

    def __init__(self) -> None:
        super().__init__()
        self["seed-listen"] = []

    def opt_seed_listen(self, description: str) -> None:
        """Speak the seed's unauthenticated format here: a Twisted endpoint, tcp:PORT[:interface=ADDRESS]; port 0
        takes a free one. May be given several times."""
        self["seed-listen"].append(description)

    def check(self) -> None:
        """As :meth:`_Options.check`."""
        from twisted.internet import reactor

        descriptions = self["seed-listen"] or [DEFAULT_SEED_LISTEN]
        try:
            self["endpoints"] = [(description, endpoint(reactor, description)) for description in descriptions]
        except SimsError as error:
            raise usage.UsageError(error.text) from None
        self["folder"] = _folder(self["dir"], "server")


def make_server(options: ServerOptions) -> IService:
    """The service of ``twistd sims-server``."""
    from twisted.internet import reactor

    clock = cast("IReactorTime", reactor)
    return cast("IService", SeedServer(options["endpoints"], clock=clock, announce=_stdout_line, failed=_die))


# --- the client -------------------------------------------------------------------------------------------------------


class ClientOptions(_Options):
    """``twistd sims-client``."""

    command = "sims-client"
    logger = "sims.tap.log_warnings"
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
        """As :meth:`_Options.check`."""
        if not self["seed"]:
            raise usage.UsageError("which server? --seed tcp:HOST:PORT")
        name = self["name"]
        if not name or len(name) > 128 or len(json.dumps(name)) > MAX_NAME_JSON or not name.isprintable():
            raise usage.UsageError("which name? --name NAME, of 1 to 128 printable characters")
        self["folder"] = _folder(self["dir"], "client", _file_name(name))
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
                _stop(status)

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


# --- console scripts --------------------------------------------------------------------------------------------------


def _run(command: str) -> NoReturn:
    from twisted.scripts._twistd_unix import ServerOptions as TwistdOptions
    from twisted.scripts.twistd import runApp

    sys.argv = [sys.argv[0], "--nodaemon", command, *sys.argv[1:]]
    run_app(runApp, TwistdOptions)
    raise SystemExit(0)


def run_server() -> NoReturn:
    """``sims-server``."""
    _run("sims-server")


def run_client() -> NoReturn:
    """``sims-client``."""
    _run("sims-client")
