"""``sims-admin``: what an operator does with a server's folder, whether the server runs or not.

Each command opens the database by itself, beside the server, which notices what has changed within a second or two.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import stat
import sys
import time
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

from platformdirs import user_data_dir

from sims.crypto.identity import ServerLink, is_id, parse_server_link
from sims.crypto.primitives import SystemEntropy
from sims.errors import Code, LocalError, PeerError, SimsError
from sims.server.backup import back_up
from sims.server.folder import DATABASE
from sims.server.interfaces import Account, Invitation
from sims.server.names import prepare
from sims.server.registration import TOKEN_SIZE, hashed
from sims.server.sqlite_admin import problems, totals, waiting
from sims.server.sqlite_file import open_database, told
from sims.server.sqlite_tables import Tables
from sims.version import __version__

_LIFE = re.compile(r"([1-9][0-9]{0,4})([mhdw])", re.ASCII)
_UNITS = {"m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
#: So many hexadecimal digits of an invitation's hash are shown, and name it.
SHOWN = 12


class Admin:
    """The commands, on one folder. Each prints what it finds and raises what goes wrong.

    :param say: called with each line of output.
    :param now: Unix seconds.
    """

    def __init__(self, folder: Path, say: Callable[[str], None] = print, now: Callable[[], float] = time.time) -> None:
        self._folder = folder
        self._say = say
        self._now = now

    @contextmanager
    def _tables(self) -> Iterator[Tables]:
        """The tables, in one transaction: until it ends, the server waits.

        :raises LocalError: the database is not there, damaged, of another version, or in use for too long.
        """
        path = self._folder / DATABASE
        with closing(open_database(path, new=False)) as connection, told(path):
            tables = Tables(connection)
            with tables.transaction():
                yield tables

    @contextmanager
    def _reading(self) -> Iterator[Tables]:
        """The tables, as they are at one moment, for what takes its time and changes nothing.

        :raises LocalError: the database is not there, damaged, or of another version.
        """
        path = self._folder / DATABASE
        with closing(open_database(path, new=False)) as connection, told(path):
            tables = Tables(connection)
            with tables.reading():
                yield tables

    # --- people ---

    def users(self, chosen: argparse.Namespace) -> None:
        """Everybody who has an account."""
        with self._reading() as tables:
            waits = waiting(tables)
            rows = [(account, waits.get(account.id, (0, 0))) for account in tables.everyone()]
        if chosen.json:
            for account, (messages, size) in rows:
                facts = {"name": account.name, "id": account.id, "created": account.created}
                self._say(json.dumps({**facts, "waiting_messages": messages, "waiting_bytes": size}))
            return
        for account, (messages, size) in rows:
            more = f"  {messages} waiting, {size} bytes" if messages else ""
            self._say(f"{account.name:32}  {account.id}  since {_date(account.created)}{more}")
        if not rows:
            self._say("nobody has an account yet: give somebody the link that 'invite' prints")

    def remove(self, chosen: argparse.Namespace) -> None:
        """Delete somebody's account: the name is free then."""
        with self._reading() as tables:
            account = _find(tables, chosen.who)
        if not chosen.yes:
            _confirm(f"Remove {account.name} ({account.id}), with what waits for them?", account.name)
        with self._tables() as tables:
            if tables.find(account.id) is not None:  # or else somebody was quicker
                tables.delete(account.id)
        self._say(f"{account.name} ({account.id}) is removed; the name is free")

    def about(self, chosen: argparse.Namespace) -> None:
        """Everything that is kept about somebody."""
        with self._reading() as tables:
            facts = tables.facts(_find(tables, chosen.who).id)
        self._say(json.dumps(_plain(facts), indent=2))

    # --- invitations ---

    def invite(self, chosen: argparse.Namespace) -> None:
        """A link with a new invitation."""
        link = self._link()
        expires = None if chosen.expires is None else int(self._now()) + chosen.expires
        token = urlsafe_b64encode(SystemEntropy().octets(TOKEN_SIZE)).rstrip(b"=").decode("ascii")
        with self._tables() as tables:
            tables.invite(hashed(token), chosen.uses, expires)
        self._say(str(ServerLink(link.addresses, link.id, token, link.tls)))

    def invitations(self, chosen: argparse.Namespace) -> None:
        """Those that can still be used."""
        now = self._now()
        with self._reading() as tables:
            found = [one for one in tables.invitations() if one.expires is None or one.expires > now]
        for one in found:
            until = "for ever" if one.expires is None else f"until {_date(one.expires)}"
            self._say(f"{one.hash.hex()[:SHOWN]}  for {one.uses} more, {until}")

    def withdraw(self, chosen: argparse.Namespace) -> None:
        """Make an invitation useless."""
        with self._tables() as tables:
            tables.withdraw(_invitation(tables, chosen.invitation).hash)
        self._say("the invitation is good no longer")

    # --- the whole ---

    def stats(self, chosen: argparse.Namespace) -> None:
        """How much there is of what."""
        with self._reading() as tables:
            found = totals(tables)
        size = sum(status.st_size for path, status in self._files() if path.name.startswith(DATABASE))
        for name, number in {**found, "bytes of the database": size}.items():
            self._say(f"{number:>14,}  {name}")

    def backup(self, chosen: argparse.Namespace) -> None:
        """Everything that a server needs to go on, in one file; the server may run meanwhile."""
        target = Path(chosen.file).expanduser()
        if target.exists() and not chosen.force:
            raise LocalError(Code.POLICY, f"{target} is there already (--force replaces it)")
        back_up(self._folder, target)
        self._say(f"{target} has the server's database, identity and certificate. Keep it secret: whoever has it can")
        self._say(f"be this server. To go on from it: tar -xpf {target.name} in an empty folder, and --dir that folder")

    def check(self, chosen: argparse.Namespace) -> None:
        """See whether the folder is as it should be."""
        wrong = []
        for path, status in self._files():
            mode = stat.S_IMODE(status.st_mode)
            if mode & 0o077:
                wrong.append(f"{path} may be read by others (mode {mode:o}): chmod go= {path}")
        path = self._folder / DATABASE
        with closing(open_database(path, new=False)) as connection, told(path):
            found = [row[0] for row in connection.execute("pragma integrity_check")]
            if found != ["ok"]:
                wrong += [f"{path}: {line}" for line in found]
            else:
                tables = Tables(connection)
                with tables.reading():
                    wrong += [f"{path}: {line}" for line in problems(tables)]
        if wrong:
            raise LocalError(Code.MALFORMED, "\n".join(wrong))
        self._say("all is well")

    def _files(self) -> Iterator[tuple[Path, os.stat_result]]:
        """What is in the folder; what the server has removed by now is not."""
        for path in sorted(self._folder.iterdir()):
            with suppress(FileNotFoundError):
                yield path, path.stat()

    def _link(self) -> ServerLink:
        path = self._folder / "link"
        try:
            return parse_server_link(path.read_text("utf-8"))
        except FileNotFoundError:
            raise LocalError(Code.UNAVAILABLE, f"there is no {path}: start the server once") from None
        except (OSError, UnicodeDecodeError, PeerError) as error:
            raise LocalError(Code.UNAVAILABLE, f"cannot use {path}: {error}") from None


def _find(tables: Tables, who: str) -> Account:
    account = tables.find(who) if is_id(who) else None
    if account is None:
        with suppress(PeerError):  # nobody has such a name
            account = tables.find_name(prepare(who))
    if account is None:
        raise LocalError(Code.UNKNOWN_RECIPIENT, f"nobody here has the name or id {who!r}")
    return account


def _invitation(tables: Tables, text: str) -> Invitation:
    token: str | None = text
    if ":" in text:
        token = parse_server_link(text).invite
    if token is not None:
        found = tables.invitation(hashed(token))
        if found is not None:
            return found
        several = [one for one in tables.invitations() if one.hash.hex().startswith(token.lower())]
        if len(token) >= SHOWN and len(several) == 1:
            return several[0]
    raise LocalError(
        Code.INVITE_REQUIRED, "there is no such invitation: give a link, or what 'invitations' shows of it"
    )


def _confirm(question: str, name: str) -> None:
    if not sys.stdin.isatty():
        raise LocalError(Code.POLICY, "nothing is done without being asked: --yes")
    try:
        typed = input(f"{question} Type the name to go on: ")
    except EOFError:
        typed = ""
    if typed.strip() != name:
        raise LocalError(Code.POLICY, "nothing was done")


def _plain(value: Any) -> Any:
    """As JSON can say it: bytes in base64."""
    if isinstance(value, bytes):
        return b64encode(value).decode("ascii")
    if isinstance(value, dict):
        return {key: _plain(inside) for key, inside in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inside) for inside in value]
    return value


def _date(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _life(text: str) -> int:
    found = _LIFE.fullmatch(text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time like 90m, 12h, 7d or 2w")
    return int(found[1]) * _UNITS[found[2]]


def _uses(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 100_000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to 100000")
    return int(text)


def parser() -> argparse.ArgumentParser:
    """The commands and their options."""
    found = argparse.ArgumentParser(
        prog="sims-admin", description="Look after a SIMS server, on its own machine. The server may run meanwhile."
    )
    found.add_argument("--version", action="version", version=f"sims {__version__}")
    found.add_argument("-d", "--dir", help="the server's folder (default: in the user's data folder)")
    commands = found.add_subparsers(dest="command", required=True, metavar="COMMAND")
    users = commands.add_parser("users", help="who has an account")
    users.add_argument("--json", action="store_true", help="one JSON object a line")
    about = commands.add_parser("about", help="everything that the server keeps about somebody, as JSON")
    about.add_argument("who", metavar="NAME", help="a name or an id")
    remove = commands.add_parser("remove", help="delete somebody's account, and free the name")
    remove.add_argument("who", metavar="NAME", help="a name or an id")
    remove.add_argument("--yes", action="store_true", help="do not ask")
    invite = commands.add_parser("invite", help="print a link with a new invitation")
    invite.add_argument("--uses", type=_uses, default=1, metavar="N", help="how many may use it (default: 1)")
    invite.add_argument("--expires", type=_life, metavar="TIME", help="good for so long: 90m, 12h, 7d, 2w")
    commands.add_parser("invitations", help="which can still be used")
    withdraw = commands.add_parser("withdraw", help="make an invitation useless")
    withdraw.add_argument("invitation", help="a link, or what 'invitations' shows of it")
    commands.add_parser("stats", help="how much there is of what")
    backup = commands.add_parser("backup", help="write everything that the server needs to one file")
    backup.add_argument("file", metavar="FILE")
    backup.add_argument("--force", action="store_true", help="replace a file that is there")
    commands.add_parser("check", help="see whether the folder is as it should be")
    return found


def folder(given: str | None) -> Path:
    """The folder of a server.

    :raises LocalError: ``unavailable``: there is none.
    """
    found = Path(given).expanduser() if given else Path(user_data_dir("sims")) / "server"
    if not found.is_dir():
        raise LocalError(Code.UNAVAILABLE, f"there is no folder {found}: --dir names the one that the server has")
    return found.absolute()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; gives the exit status."""
    chosen = parser().parse_args(arguments)
    try:
        admin = Admin(folder(chosen.dir))
        getattr(admin, chosen.command)(chosen)
    except SimsError as error:
        print(f"sims-admin {chosen.command}: {error.text}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # nobody reads on
        sys.stderr.close()
        return 1
    except OSError as error:
        where = "" if error.filename is None else f"{error.filename}: "
        print(f"sims-admin {chosen.command}: {where}{error.strerror or error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def run() -> NoReturn:
    """``sims-admin``."""
    raise SystemExit(main())
