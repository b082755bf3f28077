"""sims-admin: what an operator asks of a folder, and what it answers."""

from __future__ import annotations

import argparse
import fcntl
import io
import json
import os
import sqlite3
import stat
import sys
import tarfile
from contextlib import closing
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from sims import admin
from sims.crypto.identity import Identity, parse_server_link
from sims.errors import Code, LocalError
from sims.server import backup, sqlite_file
from sims.server.folder import DATABASE
from sims.server.interfaces import Registered
from sims.server.registration import hashed
from sims.server.sqlite_file import open_database
from sims.server.sqlite_tables import Tables
from sims.test.builders import refusal
from sims.test.modern_builders import Counting
from sims.test.store_contract import ANN, BOB, EVE, NOW, QUOTA, account, bundle, letter

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
        lasting: list[tuple[Path, bool]] = []
        self.patch(backup, "sync", lambda folder: lasting.append((folder, target.exists())))
        self.run_admin("backup", str(target))
        self.assertEqual(lasting, [(self.folder.absolute(), True)])
        self.assertEqual(stat.S_IMODE(target.stat().st_mode), 0o600)
        again = Path(self.mktemp())
        again.mkdir()
        with tarfile.open(target) as archive:
            self.assertEqual(sorted(archive.getnames()), ["identity", DATABASE])
            archive.extractall(again, filter="data")
        tables = self.opened(again)
        with tables.transaction():
            self.assertEqual([one.name for one in tables.everyone()], ["ann", "bob"])
            self.assertEqual(len(tables.waiting(BOB, 0, 10, 0)), 2)
        self.assertEqual([path.name for path in self.folder.iterdir() if path.name.startswith(".sims")], [])

    def unpacked(self) -> Tables:
        """A backup is made; gives the tables of a server that goes on from it."""
        target, again = Path(self.mktemp()), Path(self.mktemp())
        self.run_admin("backup", str(target))
        with tarfile.open(target) as archive:
            archive.extractall(again, filter="data")
        return self.opened(again)

    def opened(self, folder: Path) -> Tables:
        connection = open_database(folder / DATABASE)
        self.addCleanup(connection.close)
        return Tables(connection)

    def test_a_backup_hands_out_no_key_again(self) -> None:
        """It has none, and no trace of one; and the server that goes on from it says that it has seen no epoch."""
        with self.tables.transaction():
            self.tables.connected(BOB, 7)
            self.tables.publish(BOB, bundle(1), [b"one", b"two"])
            self.assertEqual(self.tables.take(BOB, ANN, NOW), b"one")
        masks = [key for (key,) in self.connection.execute("select key from slots where used = 1")]
        again = self.unpacked()
        with again.transaction():
            self.assertEqual(again.bundle(BOB), bundle(1))
            self.assertIsNone(again.take(BOB, EVE, NOW))
            found = again.connected(BOB, 8)
            self.assertEqual((found and found.name, found and found.epoch), ("bob", None))
            again.publish(BOB, bundle(1), [b"three"])
            self.assertEqual(again.take(BOB, EVE, NOW), b"three")
        path = Path(again.connection.execute("pragma database_list").fetchone()[2])
        self.assertEqual((len(masks), [mask for mask in masks if mask in path.read_bytes()]), (1, []))
        with self.tables.transaction():
            self.assertEqual(self.tables.take(BOB, EVE, NOW), b"two")  # the server itself has lost nothing

    def test_backup_of_a_server_at_work(self) -> None:
        """Whatever is written meanwhile: it ends, and has what there was at one moment."""
        with closing(open_database(self.folder / DATABASE, new=False)) as other:
            steps: list[int] = []

            class Source:
                """The database, of which somebody writes something after each step of the copy."""

                def __init__(self, database: Any) -> None:
                    self.database = database

                def close(self) -> None:
                    self.database.close()

                def backup(self, target: Any, **how: Any) -> None:
                    def progress(*_: int) -> None:
                        steps.append(other.execute("insert into slots (used, key) values (0, zeroblob(32))").rowcount)
                        if len(steps) > 50:
                            raise AssertionError("it begins anew for ever")

                    self.database.backup(target, progress=progress, **how)

            with self.tables.transaction():
                self.connection.executemany("insert into slots (used, key) values (0, ?)", [(bytes(90_000),)] * 90)
            self.patch(backup, "open_database", lambda *args, **how: Source(open_database(*args, **how)))
            self.run_admin("backup", self.mktemp())
        self.assertEqual(len(steps), 1)

    def test_no_room_for_a_backup(self) -> None:
        """The file that cannot be written is named, and nothing is left of it."""
        connect = sqlite3.connect

        def full(*args: Any, **how: Any) -> sqlite3.Connection:
            made: sqlite3.Connection = connect(*args, **how)
            made.execute("pragma max_page_count = 3")
            return made

        self.patch(backup, "connect", full)
        target = self.folder / "copy.tar"
        error = self.refused("backup", str(target))
        self.assertIs(error.code, Code.UNAVAILABLE)
        self.assertIn(f"to {target}: database or disk is full", error.text)
        self.assertEqual([path.name for path in self.folder.iterdir() if path.name.startswith((".sims", "copy"))], [])

    def test_backups_that_were_killed(self) -> None:
        """What they left goes with the next backup to the same place; what one is at work with stays."""
        killed, working = self.folder / ".sims-backup-killed", self.folder / ".sims-backup-working"
        for place in (killed, working):
            place.mkdir(mode=0o700)
            (place / DATABASE).write_bytes(b"letters")
        (self.folder / ".sims-backup-file").write_bytes(b"somebody else's")
        (self.folder / ".sims-backup-link").symlink_to(working)
        descriptor = os.open(working, os.O_RDONLY)
        self.addCleanup(os.close, descriptor)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        self.run_admin("backup", str(self.folder / "copy.tar"))
        left = sorted(path.name for path in self.folder.iterdir() if path.name.startswith(".sims"))
        self.assertEqual(left, [".sims-backup-file", ".sims-backup-link", ".sims-backup-working"])
        self.assertEqual((working / DATABASE).read_bytes(), b"letters")

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
        with self.tables.transaction():
            self.tables.file()
        self.connection.execute("update pairs set messages = messages + 1")
        self.assertIn("mailboxes whose totals are wrong", self.refused("check").text)

    def test_beside_one_who_writes(self) -> None:
        """What only looks waits for nobody, and keeps nobody from writing."""
        self.patch(sqlite_file, "BUSY", 0.01)
        looks = (["users"], ["about", "bob"], ["invitations"], ["stats"], ["check"], ["backup", self.mktemp()])
        self.connection.execute("begin immediate")
        self.connection.execute("delete from written")
        for words in looks:
            self.assertTrue(self.run_admin(*words) or words == ["invitations"])
        self.assertIs(self.refused("invite").code, Code.UNAVAILABLE)
        self.connection.execute("commit")
        with self.admin._reading() as tables:
            self.assertEqual(len(tables.everyone()), 2)
            with self.tables.transaction():
                self.tables.register(account(EVE, "eve"), None)
            self.assertEqual(len(tables.everyone()), 2)
        self.assertEqual(len(self.run_admin("users")), 3)

    def main(self, *words: str) -> tuple[int, str]:
        """The exit status, and what standard error says."""
        errors = io.StringIO()
        self.patch(sys, "stderr", errors)
        self.patch(sys, "stdout", io.StringIO())
        status = admin.main(words)
        return status, errors.getvalue()

    def test_one_line(self) -> None:
        """Whatever is wrong with a path."""
        long = "x" * 300
        for words in (("--dir", long, "users"), ("--dir", str(self.folder), "backup", str(self.folder / long))):
            status, said = self.main(*words)
            self.assertEqual((status, said.count("\n")), (1, 1), said)
            self.assertIn("File name too long", said)

    def test_no_answer(self) -> None:
        """The end of the input is no."""

        class Terminal(io.StringIO):
            def isatty(self) -> bool:
                return True

        for typed in ("", "no\n"):
            self.patch(sys, "stdin", Terminal(typed))
            found = self.main("--dir", str(self.folder), "remove", "bob")
            self.assertEqual(found, (1, "sims-admin remove: nothing was done\n"))
        self.assertEqual(len(self.run_admin("users")), 2)
        self.patch(sys, "stdin", Terminal("bob\n"))
        self.assertEqual(self.main("--dir", str(self.folder), "remove", "bob"), (0, ""))

    def test_files_that_go_meanwhile(self) -> None:
        """They are in nobody's way."""
        (self.folder / f"{DATABASE}-gone").symlink_to(self.folder / "nowhere")
        self.assertEqual(self.run_admin("check"), ["all is well"])
        self.assertTrue(self.run_admin("stats"))

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
