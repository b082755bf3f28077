"""Tests of :mod:`sims.tap_client`: which profile, which server, which invitation."""

from __future__ import annotations

import contextlib
import getpass
import io
import os
import stat
import sys
from pathlib import Path
from typing import Any, cast

from twisted.python import usage
from twisted.trial.unittest import SynchronousTestCase

from sims import tap_client
from sims.client.modern_connection import Client
from sims.client.store import Saved
from sims.client.vault import Vault
from sims.crypto.identity import PersonLink, parse_server_link
from sims.tap_client import ClientOptions, local_invite, local_link, profile

SERVER, OTHER = "a" * 32, "b" * 32
LINK = f"sims://server.test:7467/{SERVER}?invite=token"


class TapTestCase(SynchronousTestCase):
    """A test with a home of its own."""

    def setUp(self) -> None:
        self.home = Path(cast("str", self.mktemp())).absolute()
        self.data = self.home / "data"
        for name, value in (("HOME", str(self.home)), ("XDG_DATA_HOME", str(self.data))):
            self.patch_environment(name, value)
        self.errors = io.StringIO()
        self.patch(sys, "__stderr__", self.errors)

    def patch_environment(self, name: str, value: str) -> None:
        before = os.environ.get(name)
        os.environ[name] = value

        def back() -> None:
            if before is None:
                del os.environ[name]
            else:
                os.environ[name] = before

        self.addCleanup(back)

    def write_link(self, link: str = LINK) -> None:
        """A server on this machine has started."""
        path = self.data / "sims" / "server" / "link"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{link}\n", "ascii")

    def client(self, *argv: str) -> Client:
        """What the options make."""
        options = ClientOptions()
        options.parseOptions(["--json", *argv])
        options.check()
        client: Client = options["client"]
        self.addCleanup(client._store.close)
        return client

    def refused(self, *argv: str) -> str:
        """Why the options make nothing."""
        options = ClientOptions()
        options.parseOptions(["--json", *argv])
        with self.assertRaises(usage.UsageError) as caught:
            options.check()
        return str(caught.exception)

    def keep(self, client: Client) -> None:
        """As a client that has run: what it knows is stored."""
        client.messenger.settle()
        client._store.close()


class ProfileTests(TapTestCase):
    def test_one_for_each_name(self) -> None:
        """Beneath the user's data folder, for nobody else; without a name it is the login name's."""
        for name, folder in (("ann", "ann"), ("../../x", "%2E%2E%2F%2E%2E%2Fx"), ("ä b", "%C3%A4%20b"), (".", "%2E")):
            found, path = profile(name, None)
            self.assertEqual((found, path), (name, self.data / "sims" / "client" / folder))
            self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o700)
        self.patch(getpass, "getuser", lambda: "login")
        self.assertEqual(profile(None, None)[0], "login")

    def test_the_only_one(self) -> None:
        """Whoever has one profile need not name it."""
        for name in ("ä b", "bob"):
            (profile(name, None)[1] / "vault").touch()
            if name == "ä b":
                self.assertEqual(profile(None, None), profile(name, None))
        self.patch(getpass, "getuser", lambda: "login")
        self.assertEqual(profile(None, None)[0], "login")

    def test_a_folder(self) -> None:
        path = self.home / "here"
        self.assertEqual(profile("ann", str(path)), ("ann", path))
        self.assertEqual(profile("ann", "~/there")[1], self.home / "there")

    def test_no_login_name(self) -> None:
        def getuser() -> str:
            raise KeyError("nobody")

        self.patch(getpass, "getuser", getuser)
        with self.assertRaises(usage.UsageError):
            profile(None, None)

    def test_names(self) -> None:
        for name in ("", "x" * 33, "a\nb", "\x1b"):
            self.assertIn("--name", self.refused("--link", LINK, "--name", name))


class LinkTests(TapTestCase):
    def test_of_this_machine(self) -> None:
        """The link that a server in the default folder wrote; nothing else is one."""
        self.assertIsNone(local_link())
        for bad in ("", "nothing", "é"):
            path = self.data / "sims" / "server" / "link"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(bad, "utf-8")
            self.assertIsNone(local_link())
        self.write_link()
        self.assertEqual(local_link(), parse_server_link(LINK))

    def test_invitations(self) -> None:
        """Whatever is there at the time; of that server only."""
        mine, other = parse_server_link(LINK), parse_server_link(LINK.replace(SERVER, OTHER))
        invite = local_invite(mine)
        self.assertIsNone(invite())
        for token in ("one", "two"):
            self.write_link(LINK.replace("token", token))
            self.assertEqual(invite(), token)
            self.assertIsNone(local_invite(other)())
            self.assertIsNone(local_invite(None)())
        self.write_link(LINK.partition("?")[0])
        self.assertIsNone(invite())


class ClientTests(TapTestCase):
    def test_link_given(self) -> None:
        """Its server, and its invitation; a person's link is good for the server, too."""
        client = self.client("--link", LINK, "--name", "ann")
        self.assertEqual((client.messenger.link.id, client.messenger.name), (SERVER, "ann"))
        self.assertEqual(client.messenger._online._invited, "token")
        person = PersonLink(client.messenger.link.addresses, SERVER, "bob", OTHER)
        self.assertEqual(self.client("--link", str(person), "--name", "eve").messenger.link.id, SERVER)

    def test_link_of_this_machine(self) -> None:
        self.write_link()
        client = self.client("--name", "ann")
        self.assertEqual(client.messenger.link.id, SERVER)
        self.assertEqual(client.messenger._online._invite(), "token")

    def test_link_of_the_profile(self) -> None:
        """The next time; another address of the same server is taken over, another server is not."""
        self.keep(self.client("--link", LINK, "--name", "ann"))
        self.write_link(LINK.replace(SERVER, OTHER))
        client = self.client()
        self.assertEqual((client.messenger.link.id, client.messenger.name), (SERVER, "ann"))
        self.assertIsNone(client.messenger._online._invite())
        self.keep(client)
        moved = self.client("--link", LINK.replace("server.test:7467", "elsewhere:1,[::1]:2"), "--name", "ann")
        self.assertEqual([str(one) for one in moved.messenger.link.addresses], ["elsewhere:1", "[::1]:2"])
        self.keep(moved)
        self.assertEqual([one.host for one in self.client().messenger.link.addresses], ["elsewhere", "::1"])

    def test_reads_the_profile_once(self) -> None:
        """Whatever has to be known of it before."""
        self.keep(self.client("--link", LINK, "--name", "ann"))
        loaded: list[Vault] = []
        load = Vault.load

        def count(vault: Vault) -> Saved:
            loaded.append(vault)
            return load(vault)

        self.patch(Vault, "load", count)
        self.client("--name", "ann")
        self.assertEqual(len(loaded), 1)

    def test_another_server_than_the_profiles(self) -> None:
        self.keep(self.client("--link", LINK, "--name", "ann"))
        self.assertIn("another server", self.refused("--link", LINK.replace(SERVER, OTHER), "--name", "ann"))
        folder = str(profile("ann", None)[1])
        self.assertIn("'ann'", self.refused("--name", "bob", "--dir", folder))
        self.client("--dir", folder)  # and nothing is left locked

    def test_no_server(self) -> None:
        self.assertIn("--link", self.refused("--name", "ann"))
        for link in ("nothing", "sims://host", LINK + "x y", "http://host/" + SERVER):
            self.refused("--link", link, "--name", "ann")

    def test_a_second_client(self) -> None:
        """On one profile: a line that says what to do."""
        self.client("--link", LINK, "--name", "ann")
        why = self.refused("--name", "ann")
        self.assertIn("in use by another client", why)
        self.assertNotIn("\n", why)

    def test_other_options(self) -> None:
        """Each that makes no sense is refused before there is a profile for it."""
        for argv in (
            ("--specs", "nothing"),
            ("--specs", "ECDHE-AES128_CTR-SHA256"),
            ("--id", "7"),
            ("--tls-groups", ""),
            ("--ca", str(self.home / "none.pem")),
        ):
            self.refused("--link", LINK, "--name", "ann", *argv)
        self.assertFalse((self.data / "sims" / "client" / "ann" / "vault").exists())
        chacha = "X25519MLKEM768-CHACHA20_POLY1305-SHA256"
        client = self.client("--link", LINK, "--name", "ann", "--specs", chacha, "--read-receipts")
        self.assertEqual([spec.name for spec in client.messenger.hop._specs], [chacha])
        self.assertTrue(client.messenger._reading._read_receipts)

    def test_told_in_one_line(self) -> None:
        """On standard error, with the exit status 1."""
        options: Any = ClientOptions()
        options.parent = {"pidfile": "twistd.pid"}
        with contextlib.redirect_stdout(io.StringIO()) as output, self.assertRaises(SystemExit) as caught:
            options.parseOptions(["--json", "--name", "ann"])
        self.assertEqual(caught.exception.code, 1)
        self.assertEqual((self.errors.getvalue().count("\n"), output.getvalue()), (1, ""))
        self.assertIn("which server?", self.errors.getvalue())


class SeedTests(TapTestCase):
    def test_is_asked_for_by_name(self) -> None:
        """With --seed alone; the two formats are never mixed."""
        self.assertIn("--seed", self.refused("--seed", "tcp:localhost:1", "--link", LINK, "--name", "ann"))
        self.assertIn("which name", self.refused("--seed", "tcp:localhost:1"))
        options = ClientOptions()
        options.parseOptions(["--json", "--seed", "sims-seed://[::1]:1", "--name", "ann"])
        options.check()
        self.assertNotIsInstance(options["client"], Client)
        self.assertEqual(tap_client._seed_endpoint("sims-seed://[::1]:8080/"), r"tcp:\:\:1:8080")
