"""``twistd sims-client``: its options, and the service that they make."""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import re
import secrets
import sys
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote, unquote

import platformdirs
from twisted.application.service import IService, Service
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import clientFromString
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.python import usage

from sims import specs, tls
from sims.crypto.identity import MAX_NAME, ServerLink, parse_link, parse_server_link
from sims.errors import SimsError
from sims.tap_options import Options, folder_of, path_of, stop
from sims.tap_passphrase import FLAGS, PARAMETERS, asker, check_options
from sims.transport import LINGER
from sims.wire import MAX_NAME_JSON

_MAX_ID = 2**31
#: Seconds that a signal leaves to a server to take what was written.
_HURRY = 0.3
#: Seconds after which nothing that was deleted is on the disk any more.
_TIDY_EVERY = 20.0
_HISTORY = {None: None, "on": True, "off": False}
_NUMBER = re.compile(r"[0-9]{1,18}", re.ASCII)


class ClientOptions(Options):
    """``twistd sims-client``."""

    command = "sims-client"
    logger = "sims.tap_options.log_warnings"
    synopsis = "[--link LINK] [--name NAME] [options]"
    longdesc = (
        "Talk through a SIMS relay. Commands come from standard input; type 'help' for them. The first time, it needs "
        "the link that the server printed, with an unused invitation (on the server's own machine it finds that by "
        "itself), and a name. With --seed it speaks a format that authenticates nobody: whoever runs the relay can "
        "sit in the middle. What the client knows is kept encrypted in a vault, which a passphrase locks: it is asked "
        "for on the terminal, where no option says otherwise. The program sims-client has commands besides, which come "
        "first: 'passphrase' changes it, 'backup' and 'restore' are for the whole vault, 'export' writes what was said "
        "as text; 'sims-client COMMAND --help' says more."
    )
    optParameters = [  # noqa: RUF012 - Twisted's way
        ["link", "l", None, "The server, as it prints it: sims://HOST:PORT/ID?invite=TOKEN."],
        ["name", "n", None, "The name that others see (default: the only one used here before, or the login name)."],
        ["dir", "d", None, "The folder of one profile (default: one for each name, in the user's data folder)."],
        ["specs", None, None, "The cipher specs to offer and to agree to, in order of preference, with commas."],
        ["ca", None, None, "A file with certificates in PEM: the server's has to be signed by one of them, for its "
         "host. Its identity is proved by the link in any case."],
        ["tls-groups", None, tls.GROUP, "The key agreements that TLS may use: NAME[:NAME]..."],
        ["seed", None, None, "A server that speaks the seed's unauthenticated format: tcp:HOST:PORT or "
         "sims-seed://HOST:PORT."],
        ["id", None, None, "With --seed, the number that others reach you by (default: random, kept in the folder)."],
        ["history", None, None, "Whether what is said is kept in the vault: on or off, from now on (default: as "
         "before; the first time on)."],
        *PARAMETERS,
    ]  # fmt: skip
    optFlags = [  # noqa: RUF012 - Twisted's way
        ["json", None, "Commands and events as one JSON object a line."],
        ["read-receipts", None, "Tell senders when their texts are shown."],
        *FLAGS,
    ]

    def parseArgs(self, *words: str) -> None:
        if words:
            text = f"{words[0]!r} is no option; commands are for the program sims-client, and come first"
            raise usage.UsageError(text)

    def check(self) -> None:
        """As :meth:`Options.check`."""
        if is_terminal() and not self["json"] and "twisted.internet.reactor" not in sys.modules:
            # The terminal's library runs on asyncio's loop.
            from twisted.internet import asyncioreactor

            asyncioreactor.install()
        try:
            self["client"] = self._seed_client() if self["seed"] else self._client()
        except SimsError as error:
            raise usage.UsageError(error.text) from None

    def _client(self) -> Any:
        """The client for sims/2.

        :raises SimsError: what is wrong with the options, or with the profile.
        """
        if self["id"] is not None:
            raise usage.UsageError("--id goes with --seed: in sims/2 an id follows from one's keys")
        name, folder = profile(self["name"], self["dir"])
        link = None if self["link"] is None else _server_link(self["link"])
        check_options(self)
        if self["history"] not in _HISTORY:
            raise usage.UsageError("--history is on or off")
        chosen = specs.MODERN if self["specs"] is None else specs.modern_by_names(self["specs"].split(","))
        groups, ca = tls.group_names(self["tls-groups"]), None if self["ca"] is None else _read(self["ca"])
        from twisted.internet import reactor

        from sims.client.modern_connection import Client
        from sims.client.vault import Vault
        from sims.client.vault_key import has_vault

        if link is None and not has_vault(folder):
            link = _needed_link()  # before anything is made, or asked for
        person = is_terminal() and not self["json"]
        locked = bool(self["passphrase-file"] or self["keyring"])
        store = self["store"] = Vault(folder, asker(self, folder, terminal=person), locked=locked)
        try:
            kept = store.values()  # a profile knows its server and its name
            if not kept and link is None:
                link = _needed_link()
            return Client(
                cast("IReactorTime", reactor),
                link,
                self["name"] if kept else name,
                store=store,
                allowed=chosen,
                groups=groups,
                ca=ca,
                invite=local_invite(link if link is not None else _kept_link(kept)),
                read_receipts=bool(self["read-receipts"]),
                history=_HISTORY[self["history"]],
            )
        except BaseException:
            store.close()
            raise

    def _seed_client(self) -> Any:
        """The client for the seed's format.

        :raises SimsError: what is wrong with the options.
        """
        if self["link"] is not None:
            raise usage.UsageError("--link and --seed are of two formats: one of them")
        if self["passphrase-file"] or self["keyring"] or self["no-passphrase"]:
            raise usage.UsageError("with --seed nothing is kept in a vault, and there is no passphrase")
        if self["history"] is not None:
            raise usage.UsageError("with --seed nothing of what is said is kept: no --history")
        name = self["name"]
        if not name or len(name) > 128 or len(json.dumps(name)) > MAX_NAME_JSON or not name.isprintable():
            raise usage.UsageError("which name? --name NAME, of 1 to 128 printable characters")
        folder = folder_of(self["dir"], "client", _file_name(name))
        chosen = specs.by_names(self["specs"].split(",")) if self["specs"] is not None else None
        if self["id"] is not None and not _NUMBER.fullmatch(self["id"]):
            raise usage.UsageError("--id takes a number")
        from twisted.internet import reactor

        from sims.client.connection import SeedClient

        try:
            server = clientFromString(reactor, _seed_endpoint(self["seed"]))
        except (ValueError, TypeError, KeyError, IndexError, OSError) as error:
            raise usage.UsageError(f"not a server's address: {self['seed']}: {error}") from None
        number = int(self["id"]) if self["id"] is not None else own_id(folder, name)
        return SeedClient(
            server,
            name,
            number,
            clock=cast("IReactorTime", reactor),
            offer=chosen or specs.SEED_OFFER,
            allowed=chosen or specs.SEED,
        )


def profile(name: str | None, path: str | None, *, make: bool = True) -> tuple[str, Path]:
    """The name to be known by and the folder that goes with it, made if it is not there.

    :param make: False for where it would be.
    :raises UsageError: the name cannot be one, or the folder cannot be used.
    """
    if name is not None and (not 1 <= len(name) <= MAX_NAME or not name.isprintable()):
        raise usage.UsageError(f"--name takes 1 to {MAX_NAME} printable characters")
    if name is None and path is None:
        used = sorted(folder.parent for folder in folder_of(None, "client", make=make).glob("*/vault"))
        if len(used) == 1:
            return unquote(used[0].name), used[0]
    found = name if name is not None else _login()
    return found, folder_of(path, "client", _file_name(found), make=make)


def _login() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        raise usage.UsageError("which name? --name NAME") from None


def _server_link(text: str) -> ServerLink:
    """The server of a link, be it to somebody there.

    :raises SimsError: it is none.
    """
    link = parse_link(text)
    return link if isinstance(link, ServerLink) else ServerLink(link.addresses, link.server, None, link.tls)


def local_link() -> ServerLink | None:
    """The link that a server in this user's default folder wrote, if there is one."""
    path = Path(platformdirs.user_data_dir("sims")) / "server" / "link"
    try:
        return parse_server_link(path.read_text("ascii"))
    except (OSError, UnicodeDecodeError, SimsError):
        return None


def _needed_link() -> ServerLink:
    """The server for a new profile, where none was named.

    :raises UsageError: there is none on this machine.
    """
    link = local_link()
    if link is None:
        raise usage.UsageError("which server? --link LINK, as the server prints it")
    return link


def local_invite(server: ServerLink | None) -> Callable[[], str | None]:
    """Where to look for an invitation: a server on this machine writes a new one whenever one is spent."""

    def invite() -> str | None:
        found = local_link()
        return found.invite if found is not None and server is not None and found.id == server.id else None

    return invite


def _kept_link(values: Mapping[str, bytes]) -> ServerLink | None:
    kept = values.get("link")
    return None if kept is None else parse_server_link(kept.decode("ascii"))


def _read(path: str) -> bytes:
    try:
        return path_of(path).read_bytes()
    except OSError as error:
        raise usage.UsageError(f"cannot read {path}: {error.strerror}") from None


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

    from sims.console.shell import Shell

    def make_shell(write: Callable[[str], Deferred[bool]], leave: Callable[[int], None]) -> Shell:
        shell = Shell(json=bool(options["json"]), clock=cast("IReactorTime", reactor), write=write, leave=leave)
        shell.client = options["client"]
        shell.client.on_event = shell.show
        return shell

    store = options.get("store")
    tidy = (lambda: None) if store is None else store.tidy
    return cast("IService", ConsoleService(make_shell, terminal=is_terminal() and not options["json"], tidy=tidy))


class ConsoleService(Service):
    """A client and its console.

    :param tidy: called every now and then, to overwrite what was deleted.
    """

    def __init__(
        self,
        make_shell: Callable[[Callable[[str], Deferred[bool]], Callable[[int], None]], Any],
        *,
        terminal: bool,
        tidy: Callable[[], None] = lambda: None,
    ) -> None:
        self._make_shell = make_shell
        self._terminal = terminal
        self._console: Any = None
        self._tidying = LoopingCall(tidy)
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
        self._tidying.start(_TIDY_EVERY, now=False)

    def stopService(self) -> Deferred[None]:
        """Leave: what was written is still sent; after a signal, hardly anything is waited for."""
        super().stopService()
        if self._tidying.running:
            self._tidying.stop()
        self._console.shell.stop()
        closing: Deferred[None] = self._console.shell.client.close(LINGER if self._left else _HURRY)
        return closing.addBoth(lambda _: self._console.close())
