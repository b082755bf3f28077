"""sims-admin beside a server that runs."""

from __future__ import annotations

import subprocess

from tests.modern_processes import ModernConsole
from tests.peers.modern_identity import Link
from tests.processes import program
from tests.test_modern_console import ConsoleTestCase


class AdminTests(ConsoleTestCase):
    """The operator's program, as a process."""

    def admin(self, *words: str) -> str:
        """What a command prints."""
        command = [program("sims-admin"), "--dir", str(self.place.cwd / "server"), *words]
        done = subprocess.run(command, capture_output=True, text=True, env=self.place.environment, check=False)
        self.assertEqual((done.returncode, done.stderr), (0, ""), done)
        return done.stdout

    def test_people(self) -> None:
        """An invitation for two; who is there; somebody who is removed is let go, and the name is free."""
        server = self.use_server()
        link = self.admin("invite", "--uses", "2").strip()
        ann, bob = self.console(link, "ann"), self.console(link, "bob")
        self.assertEqual([line.split()[0] for line in self.admin("users").splitlines()], ["ann", "bob"])
        self.assertEqual(self.admin("invitations").count("\n"), 1)  # the server's own
        ann.do("send", to="bob", text="hello")
        bob.take("message")
        self.admin("remove", "bob", "--yes")
        bob.take("offline")
        self.assertEqual(bob.take("error")["code"], "invite-used")
        self.assertEqual(len(self.admin("users").splitlines()), 1)
        newer = self.keep(ModernConsole(self.place, str(server.link()), "bob", folder=self.place.cwd / "newer"))
        newer.ready()
        self.assertNotEqual(newer.id, bob.id)
        self.assertEqual(self.admin("check"), "all is well\n")
        self.admin("backup", str(self.place.cwd / "copy.tar"))
        self.assertIn("2  accounts", self.admin("stats"))

    def test_withdrawn(self) -> None:
        """The invitation in the server's own links is withdrawn: there is another."""
        server = self.use_server()
        first = str(server.link())
        self.admin("withdraw", first)
        self.assertNotEqual(server.link().invite, Link.parse(first).invite)

    def test_refused(self) -> None:
        """One line on standard error, and the status 1."""
        self.use_server()
        for words in (["about", "nobody"], ["withdraw", "nothing"], ["--dir", "/nowhere", "users"]):
            command = [program("sims-admin"), "--dir", str(self.place.cwd / "server"), *words]
            done = subprocess.run(command, capture_output=True, text=True, env=self.place.environment, check=False)
            self.assertEqual((done.returncode, done.stdout, done.stderr.count("\n")), (1, "", 1), done)
