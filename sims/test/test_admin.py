"""sims-admin: what an operator asks of a folder, and what it answers."""

from __future__ import annotations

import argparse
import json
import os
import stat
import sys
import tarfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from sims import admin
from sims.crypto.identity import Identity, parse_server_link
from sims.errors import Code, LocalError
from sims.server.folder import DATABASE
from sims.server.interfaces import Registered
from sims.server.registration import hashed
from sims.server.sqlite_file import open_database
from sims.server.sqlite_tables import Tables
from sims.test.builders import refusal
from sims.test.modern_builders import Counting
from sims.test.store_contract import ANN, BOB, EVE, NOW, QUOTA, account, letter

SERVER = Identity.generate(Counting())
LINK = f"sims://example.org:7467/{SERVER.id}?invite=old"


class AdminTests(SynchronousTestCase):
    """A folder with two people, for one of whom two messages wait."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir(mode=0o700)
        self.said: list[str] = []
        self.admin = admin.Admin(self.folder, self.said.append, lambda: NOW)
        self.connection = open_database(self.folder / DATABASE)
        self.addCleanup(self.connection.close)
        self.tables = Tables(self.connection)
        with self.tables.transaction():
            for number, name in ((ANN, "ann"), (BOB, "bob")):
                self.tables.register(account(number, name), None)
            self.tables.keep(letter(1, size=70), QUOTA, NOW)
            self.tables.keep(letter(2, size=30), QUOTA, NOW)
        self.write("link", LINK.encode("ascii") + b"\n")
        self.write("identity", bytes(64))

    def write(self, name: str, data: bytes) -> None:
        with open(os.open(self.folder / name, os.O_WRONLY | os.O_CREAT, 0o600), "wb") as file:
            file.write(data)

    def run_admin(self, *words: str) -> list[str]:
        """What a command says."""
        self.said.clear()
        chosen = admin.parser().parse_args(words)
        getattr(self.admin, chosen.command)(chosen)
        return list(self.said)

    def refused(self, *words: str) -> LocalError:
        return refusal(LocalError, self.run_admin, *words)

    def register(self, number: str, name: str, token: str, now: int = NOW) -> Registered:
        with self.tables.transaction():
            return self.tables.register(account(number, name)._replace(created=now), hashed(token))

    # --- people ---

    def test_users(self) -> None:
        """One line each, by name; as JSON too."""
        lines = self.run_admin("users")
        self.assertEqual([line.split()[0] for line in lines], ["ann", "bob"])
        self.assertIn("2 waiting, 100 bytes", lines[1])
        self.assertNotIn("waiting", lines[0])
        found = [json.loads(line) for line in self.run_admin("users", "--json")]
        self.assertEqual(
            found[1], {"name": "bob", "id": BOB, "created": NOW, "waiting_messages": 2, "waiting_bytes": 100}
        )

    def test_about(self) -> None:
        """By name, however it is written, or id; bytes as base64."""
        for who in ("bob", "BOB", BOB):
            facts = json.loads("\n".join(self.run_admin("about", who)))
            self.assertEqual((facts["id"], facts["name"], facts["waiting_messages"]), (BOB, "bob", 2))

    def test_nobody(self) -> None:
        """Whoever is not there is named, and nothing has changed."""
        for words in (("about", "eve"), ("remove", "eve", "--yes"), ("remove", EVE, "--yes"), ("about", "\x1b[2J")):
            error = self.refused(*words)
            self.assertIs(error.code, Code.UNKNOWN_RECIPIENT)
            self.assertNotIn("\x1b", error.text)
        self.assertEqual(len(self.run_admin("users")), 2)

    def test_remove(self) -> None:
        """The account is gone, and what waited for it; the name is free; a server beside it notices."""
        self.run_admin("remove", "bob", "--yes")
        self.assertEqual(len(self.run_admin("users")), 1)
        self.assertTrue(self.tables.look())
        with self.tables.transaction():
            self.assertIsNone(self.tables.find(BOB))
            self.assertEqual(self.tables.register(account(EVE, "bob"), None), Registered.DONE)
        self.assertEqual(self.run_admin("check"), ["all is well"])

    def test_remove_unasked(self) -> None:
        """Without a terminal and without --yes nothing is removed."""
        self.patch(sys, "stdin", open(os.devnull))  # noqa: SIM115
        self.addCleanup(sys.stdin.close)
        self.assertIs(self.refused("remove", "bob").code, Code.POLICY)
        self.assertEqual(len(self.run_admin("users")), 2)

    # --- invitations ---

    def test_invite(self) -> None:
        """The server's own link, with another invitation that is good once."""
        (line,) = self.run_admin("invite")
        link = parse_server_link(line)
        self.assertEqual((link.id, link.addresses), (SERVER.id, parse_server_link(LINK).addresses))
        token = link.invite or ""
        self.assertNotEqual(token, "old")
        self.assertEqual(self.register(EVE, "eve", token), Registered.DONE)
        self.assertEqual(self.register("c" * 32, "carol", token), Registered.INVITE_USED)

    def test_several_uses_and_an_end(self) -> None:
        """For so many people, until then."""
        (line,) = self.run_admin("invite", "--uses", "2", "--expires", "12h")
        token = parse_server_link(line).invite or ""
        self.assertEqual(len(self.run_admin("invitations")), 1)
        self.assertIn("for 2 more, until 2027-01-15", self.said[0])
        self.assertEqual(self.register(EVE, "eve", token), Registered.DONE)
        self.assertIn("for 1 more", self.run_admin("invitations")[0])
        self.assertEqual(self.register("c" * 32, "carol", token, NOW + 12 * 3600), Registered.INVITE_REQUIRED)

    def test_withdraw(self) -> None:
        """By the link, or what is shown of it."""
        for shown in (False, True):
            (line,) = self.run_admin("invite")
            name = self.run_admin("invitations")[0].split()[0] if shown else line
            self.run_admin("withdraw", name)
            self.assertEqual(self.run_admin("invitations"), [])
            token = parse_server_link(line).invite or ""
            self.assertEqual(self.register(EVE, "eve", token), Registered.INVITE_REQUIRED)
            self.assertIs(self.refused("withdraw", name).code, Code.INVITE_REQUIRED)

    def test_what_is_no_number_or_time(self) -> None:
        """It is said what was expected."""
        for words in (("--uses", "0"), ("--uses", "x"), ("--expires", "7"), ("--expires", "-1d"), ("--expires", "0d")):
            with self.assertRaises(SystemExit):
                self.patch(sys, "stderr", open(os.devnull, "w"))  # noqa: SIM115
                try:
                    admin.parser().parse_args(["invite", *words])
                finally:
                    sys.stderr.close()

    # --- the whole ---

    def test_stats(self) -> None:
        """Counts."""
        found = {line.split(None, 1)[1]: line.split()[0] for line in self.run_admin("stats")}
        self.assertEqual((found["accounts"], found["messages that wait"], found["bytes that wait"]), ("2", "2", "100"))

    def test_backup(self) -> None:
        """A file for its owner alone, from which a server goes on; made while another connection has the database."""
        target = self.folder / "copy.tar"
        self.run_admin("backup", str(target))
        self.assertEqual(stat.S_IMODE(target.stat().st_mode), 0o600)
        again = Path(self.mktemp())
        again.mkdir()
        with tarfile.open(target) as archive:
            self.assertEqual(sorted(archive.getnames()), ["identity", DATABASE])
            archive.extractall(again, filter="data")
        connection = open_database(again / DATABASE)
        self.addCleanup(connection.close)
        tables = Tables(connection)
        with tables.transaction():
            self.assertEqual([one.name for one in tables.everyone()], ["ann", "bob"])
            self.assertEqual(len(tables.waiting(BOB, 0, 10, 0)), 2)
        self.assertEqual([path.name for path in self.folder.iterdir() if path.name.startswith(".sims")], [])

    def test_backup_over_another(self) -> None:
        """Only if that is asked for."""
        target = self.folder / "copy.tar"
        target.write_bytes(b"another")
        self.assertIs(self.refused("backup", str(target)).code, Code.POLICY)
        self.assertEqual(target.read_bytes(), b"another")
        self.run_admin("backup", str(target), "--force")
        self.assertTrue(tarfile.is_tarfile(target))
        self.assertIs(self.refused("backup", str(self.folder / "no" / "copy.tar")).code, Code.UNAVAILABLE)

    def test_check(self) -> None:
        """What others may read, and what does not fit together, is named."""
        self.assertEqual(self.run_admin("check"), ["all is well"])
        os.chmod(self.folder / "identity", 0o644)
        self.assertIn("chmod go=", self.refused("check").text)
        os.chmod(self.folder / "identity", 0o600)
        self.connection.execute("update pairs set messages = messages + 1")
        self.assertIn("mailboxes whose totals are wrong", self.refused("check").text)

    def test_damaged(self) -> None:
        """One line, and no traceback."""
        folder = Path(self.mktemp())
        folder.mkdir()
        (folder / DATABASE).write_bytes(b"no database" * 1000)
        for words in (["users"], ["check"], ["stats"]):
            chosen = admin.parser().parse_args(words)
            other = admin.Admin(folder, self.said.append)
            self.assertIs(refusal(LocalError, getattr(other, chosen.command), chosen).code, Code.MALFORMED)

    def test_no_server(self) -> None:
        """A folder without a database is not made one by looking."""
        folder = Path(self.mktemp())
        folder.mkdir()
        other = admin.Admin(folder, self.said.append)
        error = refusal(LocalError, other.users, argparse.Namespace(json=False))
        self.assertIs(error.code, Code.UNAVAILABLE)
        self.assertEqual([*folder.iterdir()], [])
        self.assertIs(refusal(LocalError, admin.folder, str(folder / "none")).code, Code.UNAVAILABLE)
