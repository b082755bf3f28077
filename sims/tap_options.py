"""What both twistd commands have in common: options, folders, logs, an end with an exit status."""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
from errno import ENOTDIR
from pathlib import Path
from typing import Any, NoReturn, cast

import platformdirs
from twisted.internet.error import ReactorNotRunning
from twisted.internet.interfaces import IReactorCore
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

from sims.version import __version__


def stop(status: int) -> None:
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


def die(text: str) -> None:
    """Say why it ends, and end."""
    print(f"{Path(sys.argv[0]).name}: {text}", file=sys.__stderr__, flush=True)
    stop(1)


def stdout_line(text: str) -> None:
    # twistd replaces sys.stdout by its log.
    encoding = getattr(sys.__stdout__, "encoding", None) or "utf-8"
    shown = text.encode(encoding, "backslashreplace").decode(encoding)  # a file's name may be no text
    with contextlib.suppress(OSError):  # nobody reads it any more
        print(shown, file=sys.__stdout__, flush=True)


class Options(usage.Options):
    """Options of both commands."""

    logger = "sims.tap_options.log_all"
    command = ""

    def check(self) -> None:
        """See whether the options make sense, and turn them into what the service needs.

        :raises UsageError: they do not.
        """

    def opt_version(self) -> NoReturn:
        """Print the version and exit."""
        stdout_line(f"sims {__version__}")
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


def path_of(text: str) -> Path:
    """What a user calls a file or a folder.

    :raises UsageError: it begins with ``~`` and a name, and nobody has that.
    """
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise usage.UsageError(f"nobody's home: {text}") from None


def folder_of(path: str | None, *default: str, make: bool = True) -> Path:
    """The folder to keep things in, made if it is not there, for its owner alone.

    :param make: False for where it would be.
    :raises UsageError: when it cannot be made or is no folder.
    """
    folder = path_of(path) if path else Path(platformdirs.user_data_dir("sims")).joinpath(*default)
    if not make:
        return folder
    try:
        for missing in reversed([one for one in (folder, *folder.parents) if not one.exists()]):
            missing.mkdir(mode=0o700, exist_ok=True)
        if not folder.is_dir():
            raise NotADirectoryError(ENOTDIR, os.strerror(ENOTDIR))
    except OSError as error:
        raise usage.UsageError(f"cannot use the folder {folder}: {error.strerror}") from None
    return folder
