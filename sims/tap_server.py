"""``twistd sims-server``: its options, and the service that they make."""

from __future__ import annotations

import contextlib
import gc
import sys
from pathlib import Path
from typing import cast

import segno
from twisted.application.service import IService
from twisted.python import usage

from sims import tls
from sims.crypto.identity import ServerLink
from sims.errors import SimsError
from sims.server.limits import Limits
from sims.server.listeners import DEFAULT, check_host, parse
from sims.server.registration import Mode
from sims.server.service import RelayServer, Settings, endpoint
from sims.tap_options import Options, die, folder_of, stdout_line

STORES = ("sqlite", "memory")


class ServerOptions(Options):
    """``twistd sims-server``."""

    command = "sims-server"
    synopsis = "[options]"
    longdesc = (
        "Run a SIMS relay. It prints a link to each listener on standard output; whoever has one can connect, and the "
        "invitation in it is good for one person. The newest link is in the file 'link' of its folder, too. Without a "
        f"listener named, it listens with TLS on port {DEFAULT.partition(':')[2]} of all interfaces."
    )
    optParameters = [  # noqa: RUF012 - Twisted's way
        ["dir", "d", None, "The folder that the server keeps its things in (default: in the user's data folder)."],
        ["host", None, None, "The name or address in links (default: the listener's interface, or the machine)."],
        ["registration", None, "invite", "Who may have an account: 'invite', whoever has an unused invitation; "
         "'open', whoever comes; 'closed', nobody new."],
        ["certificate", None, None, "A file with the certificate for TLS, in PEM, those between it and a root behind "
         "it; SIGHUP reads it again. Default: one that is made in the folder."],
        ["key", None, None, "The file with the key of the certificate, in PEM, not encrypted."],
        ["store", None, "sqlite", "Where accounts and messages are kept: 'sqlite', in the folder; 'memory', which "
         "forgets everything when the server ends."],
        ["tls-groups", None, tls.GROUP, "The key agreements that TLS may use: NAME[:NAME]..."],
    ]  # fmt: skip
    optFlags = [  # noqa: RUF012 - Twisted's way
        ["directory", None, "Tell whoever asks who has an account here, and is connected."],
        ["log-connections", None, "Say in the log who connects from where, who leaves, and why."],
    ]

    def __init__(self) -> None:
        super().__init__()
        self["listen"] = []
        self["seed-listen"] = []
        self["limits"] = Limits()

    def opt_listen(self, description: str) -> None:
        """Listen here: tls:PORT[:interface=ADDRESS], or tcp:PORT[:interface=ADDRESS] without TLS; port 0 takes a free
        one. May be given several times."""
        self["listen"].append(description)

    def opt_seed_listen(self, description: str) -> None:
        """Speak the seed's unauthenticated format here: a Twisted endpoint, tcp:PORT[:interface=ADDRESS]; port 0
        takes a free one. May be given several times."""
        self["seed-listen"].append(description)

    def opt_limit(self, text: str) -> None:
        """NAME=VALUE, or NAME=none for no limit; numbers may end in K or M, parts at the end may be left out.
        frame=BYTES/BEFORE-PHASE-4, handshake=SECONDS/SECONDS-A-FRAME, connections=A-MINUTE/AT-ONCE/FAILED-A-MINUTE (of
        one address), sends=A-SECOND/BURST, fetches=A-SECOND/BURST, mailbox=MESSAGES/BYTES/DAYS/MESSAGES-OF-A-STRANGER/
        BYTES-OF-A-STRANGER, unacknowledged=BYTES-UNSENT/MESSAGES. May be given several times."""
        try:
            self["limits"] = self["limits"].with_limit(text)
        except SimsError as error:
            raise usage.UsageError(error.text) from None

    def check(self) -> None:
        """As :meth:`Options.check`."""
        try:
            self["settings"] = self._settings()
        except SimsError as error:
            raise usage.UsageError(error.text) from None

    def _settings(self) -> Settings:
        from twisted.internet import reactor

        modes = [mode.value for mode in Mode]
        if self["registration"] not in modes:
            raise usage.UsageError(f"--registration takes {', '.join(modes)}; not {self['registration']!r}")
        if self["store"] not in STORES:
            raise usage.UsageError(f"--store takes {', '.join(STORES)}; not {self['store']!r}")
        if (self["certificate"] is None) != (self["key"] is None):
            raise usage.UsageError("--certificate and --key go together")
        given = None
        if self["certificate"] is not None:
            given = Path(self["certificate"]).expanduser().absolute(), Path(self["key"]).expanduser().absolute()
        seed = [(description, endpoint(reactor, description)) for description in self["seed-listen"]]
        listen = self["listen"] or ([] if seed else [DEFAULT])
        return Settings(
            listeners=[parse(description) for description in listen],
            seed=seed,
            host=None if self["host"] is None else check_host(self["host"]),
            mode=Mode(self["registration"]),
            limits=self["limits"],
            certificate=given,
            groups=tls.group_names(self["tls-groups"]),
            directory=bool(self["directory"]),
            log_connections=bool(self["log-connections"]),
            memory=self["store"] == "memory",
            folder=folder_of(self["dir"], "server").absolute(),
        )


def link_lines(link: ServerLink) -> None:
    """A link on standard output, and what a telephone reads if that is a terminal."""
    stdout_line(str(link))
    stream = sys.__stdout__
    if stream is not None and stream.isatty():
        with contextlib.suppress(OSError, UnicodeError):  # a terminal that cannot show it, or nobody at it
            segno.make(str(link), error="l", micro=False).terminal(stream, border=2, compact=True)
            stream.flush()


def make_server(options: ServerOptions) -> IService:
    """The service of ``twistd sims-server``."""
    from twisted.internet import reactor

    # What is imported by now stays for good, and a relay makes few circles: the collector need not look so often.
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
    server = RelayServer(
        options["settings"], reactor=reactor, announce=stdout_line, announce_link=link_lines, failed=die
    )
    return cast("IService", server)
