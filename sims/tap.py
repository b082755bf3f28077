"""The two twistd commands, and the console scripts that are the same without the word twistd."""

from __future__ import annotations

import sys
from typing import NoReturn

from twisted.application.app import run as run_app

from sims.tap_client import ClientOptions, make_client
from sims.tap_server import ServerOptions, make_server
from sims.tap_vault import COMMANDS, run_command

__all__ = ["ClientOptions", "ServerOptions", "make_client", "make_server", "run_client", "run_server"]


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
    """``sims-client``, or one of its commands."""
    word = sys.argv[1] if len(sys.argv) > 1 else ""
    if word in COMMANDS:
        raise SystemExit(run_command(word, sys.argv[2:]))
    _run("sims-client")
