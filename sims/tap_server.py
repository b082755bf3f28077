"""``twistd sims-server``: its options, and the service that they make."""

from __future__ import annotations

from typing import cast

from twisted.application.service import IService
from twisted.internet.interfaces import IReactorTime
from twisted.python import usage

from sims.errors import SimsError
from sims.server.service import SeedServer, endpoint
from sims.tap_options import Options, die, folder_of, stdout_line

DEFAULT_SEED_LISTEN = "tcp:8080:interface=127.0.0.1"


class ServerOptions(Options):
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
        """As :meth:`Options.check`."""
        from twisted.internet import reactor

        descriptions = self["seed-listen"] or [DEFAULT_SEED_LISTEN]
        try:
            self["endpoints"] = [(description, endpoint(reactor, description)) for description in descriptions]
        except SimsError as error:
            raise usage.UsageError(error.text) from None
        self["folder"] = folder_of(self["dir"], "server")


def make_server(options: ServerOptions) -> IService:
    """The service of ``twistd sims-server``."""
    from twisted.internet import reactor

    clock = cast("IReactorTime", reactor)
    return cast("IService", SeedServer(options["endpoints"], clock=clock, announce=stdout_line, failed=die))
