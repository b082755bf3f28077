"""The small parts of a server: limits, rates, names, listeners, folder, links."""

from __future__ import annotations

import os
import stat
import tempfile
from math import inf
from pathlib import Path
from typing import Any, cast

from twisted.trial.unittest import SynchronousTestCase

from sims import names
from sims.crypto.certificate import self_signed
from sims.crypto.identity import Address, ServerLink
from sims.errors import Code, LocalError, PeerError
from sims.frames import MAX_FRAME
from sims.names import MAX_ASKED
from sims.server import rates
from sims.server.folder import Folder, read_certificate, write
from sims.server.invitations import Links
from sims.server.limits import FORMATS, Connections, Frame, Limits, Mailbox, Rate
from sims.server.listeners import Listener, check_host, machine_name, parse
from sims.server.memory import MemoryStore
from sims.server.names import prepare
from sims.server.rates import Addresses, Bucket, Buckets, network, whole_seconds
from sims.server.registration import Mode, hashed
from sims.test.modern_builders import Counting, person

NOW = 1_800_000_000


class LimitTests(SynchronousTestCase):
    """``--limit``."""

    def test_values(self) -> None:
        for text, row, value in (
            ("frame=64K", "frame", Frame(65_536, 8192)),
            ("frame=64K/4096", "frame", Frame(65_536, 4096)),
            ("connections=5", "connections", Connections(5, 64, 10)),
            ("connections=5/6/7", "connections", Connections(5, 6, 7)),
            ("sends=0.5/2", "sends", Rate(0.5, 2)),
            ("fetches=2", "fetches", Rate(2, 20)),
            ("mailbox=10/1M", "mailbox", Mailbox(10, 1024 * 1024)),
            ("mailbox=0/0/1/0/0", "mailbox", Mailbox(0, 0, 1, 0, 0)),
            ("mailbox=none", "mailbox", Mailbox(inf, inf, inf, inf, inf)),
            ("sends=none", "sends", Rate(inf, inf)),
            ("frame=none", "frame", Frame(MAX_FRAME, MAX_FRAME)),
        ):
            changed = Limits().with_limit(text)
            self.assertEqual(getattr(changed, row), value, text)
            for other in FORMATS:
                if other != row:
                    self.assertEqual(getattr(changed, other), getattr(Limits(), other))

    def test_several(self) -> None:
        self.assertEqual(Limits().with_limit("sends=none").with_limit("sends=3").sends, Rate(3, inf))

    def test_every_row_can_be_lifted(self) -> None:
        for name in FORMATS:
            self.assertIsNot(Limits().with_limit(f"{name}=none"), Limits())
        self.assertEqual(set(FORMATS), set(Limits._fields))

    def test_bad(self) -> None:
        for text in (
            *("", "sends", "=5", "nothing=5", "sends=", "sends=x", "sends=5/", "sends=-1", "sends=1/2/3", "sends=0"),
            *("sends=1e3", "sends=inf", "sends=None", "frame=97K", "frame=100", "frame=64K/97K", "mailbox=1/1/0"),
            *("connections=0", "handshake=0", "sends= 5", "sends=5k", "told=5", "_fields=none", "sends=9999999999999"),
        ):
            with self.assertRaises(LocalError, msg=text) as caught:
                Limits().with_limit(text)
            self.assertEqual(caught.exception.code, Code.MALFORMED)

    def test_told(self) -> None:
        told = Limits().told()
        self.assertEqual((told.frame, told.mailbox, told.sends, told.burst), (98_304, 1000, 20, 200))
        told = Limits().with_limit("sends=0.5/none".replace("none", "3")).with_limit("mailbox=none").told()
        self.assertEqual((told.mailbox, told.sends, told.burst), (None, 1, 3))


class RateTests(SynchronousTestCase):
    def test_bucket(self) -> None:
        bucket = Bucket(Rate(2, 3), 0)
        self.assertEqual([bucket.try_take(0) for _ in range(4)], [0, 0, 0, 0.5])
        self.assertEqual(bucket.try_take(0.25), 0.25)
        self.assertEqual(bucket.try_take(0.5), 0)
        self.assertEqual(bucket.take(0.5, 4), 2)
        self.assertFalse(bucket.is_full(3.9))
        self.assertTrue(bucket.is_full(4.1))
        self.assertEqual(bucket.take(1, 0), 0)  # a clock that goes back

    def test_no_limit(self) -> None:
        bucket = Bucket(Rate(inf, inf), 0)
        self.assertEqual({bucket.take(0, 1000) for _ in range(9)} | {bucket.try_take(0)}, {0})
        self.assertTrue(bucket.has_one(0))

    def test_forgotten(self) -> None:
        """Those that are full again are forgotten, others stay: nobody gains by it."""
        buckets: Buckets[int] = Buckets(Rate(1, 2))
        buckets.of(-1, 0).take(0, 5000)
        for number in range(5000):
            buckets.of(number, float(number)).take(number)
        self.assertLess(len(buckets), 3000)
        self.assertGreater(buckets.of(-1, 4000).take(4000, 0), 0)

    def test_networks(self) -> None:
        for address, found in (
            ("192.0.2.1", "192.0.2.1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("::ffff:c000:0201", "192.0.2.1"),
            ("::192.0.2.1", "::/64"),
            ("2001:db8:1:2:3:4:192.0.2.1", "2001:db8:1:2::/64"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
            ("fe80::1%eth0", "fe80::/64"),
            ("a socket", "a socket"),
        ):
            self.assertEqual(network(address), found)

    def test_plain_networks(self) -> None:
        """What nearly all addresses look like takes no parser."""
        self.patch(rates, "ip_address", self.fail)
        for address in ("1.2.3.4", "192.0.2.1", "255.255.255.255"):
            self.assertEqual([network(address), network(f"::ffff:{address}")], [address] * 2)

    def test_addresses(self) -> None:
        """What is left is counted down, never below nothing."""
        addresses = Addresses(Connections(100, 1, 100), lambda: 0.0)
        addresses.left("192.0.2.1")
        self.assertEqual([addresses.admit("192.0.2.1") for _ in range(2)], [True, False])
        addresses.left("192.0.2.1")
        self.assertTrue(addresses.admit("192.0.2.1"))

    def test_whole_seconds(self) -> None:
        self.assertEqual([whole_seconds(value) for value in (0.01, 1, 1.5, 1e12)], [1, 1, 2, 2**32 - 1])


class NameTests(SynchronousTestCase):
    def test_prepared(self) -> None:
        for name, prepared in (("Ann", "ann"), ("\uff21nn", "ann"), ("Ä", "ä"), ("a\u0308", "ä"), ("x" * 32, "x" * 32)):
            self.assertEqual(prepare(name), prepared)
            self.assertEqual(prepare(prepared), prepared)

    def test_bad(self) -> None:
        for name in ("", " ", "a b", "x" * 33, "a\u200db", "\ud800", "a\x1b", "ﬀ", "\u0661a", "a" * 5000):
            with self.assertRaises(PeerError) as caught:
                prepare(name)
            self.assertEqual(caught.exception.code, Code.NAME_INVALID)

    def test_long(self) -> None:
        """What is too long for any name is refused before anything is done about it; what becomes short is not."""
        self.assertEqual(prepare("\u1112\u1161\u11ab" * 32), "\ud55c" * 32)
        self.patch(names, "_enforced", self.fail)
        for name in ("x" * (MAX_ASKED + 1), "x" * 512, "\ufdfa" * 60_000):
            with self.assertRaises(PeerError) as caught:
                prepare(name)
            self.assertEqual(caught.exception.code, Code.NAME_INVALID)


class ListenerTests(SynchronousTestCase):
    def test_good(self) -> None:
        for text, found in (
            ("tls:7467", (True, 7467, "", "")),
            ("tcp:0", (False, 0, "", "")),
            ("tls:0:interface=127.0.0.1", (True, 0, "127.0.0.1", "127.0.0.1")),
            ("tls:1:interface=::1", (True, 1, "::1", "::1")),
            ("tls:1:interface=[::1]", (True, 1, "::1", "::1")),
            (r"tls:1:interface=\:\:1", (True, 1, "::1", "::1")),
            ("tls:1:interface=0.0.0.0", (True, 1, "0.0.0.0", "")),  # noqa: S104
            ("tls:1:interface=::", (True, 1, "::", "")),
        ):
            listener = parse(text)
            self.assertEqual((*listener[:3], listener.named), found)
            self.assertEqual(listener, Listener(*found[:3], text))

    def test_bad(self) -> None:
        for text in ("", "tls", "tls:", "tls:x", "tls:65536", "ssl:1", "tcp:1:interface=", "tcp:1:interface=localhost",
                     "tcp:1:backlog=5", "tcp:1:interface=999.0.0.1", "TLS:1", "tls:-1"):  # fmt: skip
            with self.assertRaises(LocalError) as caught:
                parse(text)
            self.assertIn(repr(text), caught.exception.text)

    def test_hosts(self) -> None:
        for host, found in (
            ("example.org", "example.org"),
            ("192.0.2.1", "192.0.2.1"),
            ("[::1]", "::1"),
            ("::1", "::1"),
        ):
            self.assertEqual(check_host(host), found)
        for host in ("", "a b", "a/b", "a:b", "example.org:7467", "ä.example", "-", "x?y"):
            with self.assertRaises(LocalError):
                check_host(host)

    def test_machine_name(self) -> None:
        check_host(machine_name())


class FolderTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.path = Path(self.mktemp())
        self.path.mkdir()
        self.folder = Folder(self.path)

    def mode(self, name: str) -> int:
        return stat.S_IMODE((self.path / name).stat().st_mode)

    def test_identity(self) -> None:
        """Made once, for its owner alone, and the same from then on."""
        made = self.folder.identity(Counting())
        self.assertEqual(self.mode("identity"), 0o600)
        self.assertEqual(self.folder.identity(Counting("other")).private_bytes(), made.private_bytes())
        self.assertEqual((self.path / "identity").read_bytes(), made.private_bytes())

    def test_drafts_of_one_who_was_killed(self) -> None:
        """They go with the next start: what was in them is secret. Nothing of anybody else's does."""
        self.folder.write_link("sims://old")
        drafts = []
        for name in ("identity", "certificate.pem", "key.pem", "link"):
            descriptor, draft = tempfile.mkstemp(prefix=f".{name}.", dir=self.path)
            os.close(descriptor)
            drafts.append(Path(draft))
        others = [self.path / name for name in (".link.old", ".link", "link.12345678", ".other.12345678")]
        for path in others:
            path.write_bytes(b"")
        self.folder.lock()
        self.addCleanup(self.folder.unlock)
        self.assertEqual([path.exists() for path in drafts], [False] * 4)
        self.assertEqual(
            sorted(path.name for path in self.path.iterdir()), sorted([path.name for path in others] + ["link", "lock"])
        )

    def test_drafts_of_one_who_runs(self) -> None:
        """They are that one's."""
        self.folder.lock()
        self.addCleanup(self.folder.unlock)
        draft = self.path / ".link.12345678"
        draft.write_bytes(b"")
        self.assertRaises(LocalError, Folder(self.path).lock)
        self.assertTrue(draft.exists())

    def test_a_broken_identity(self) -> None:
        """It is not replaced: links name it."""
        (self.path / "identity").write_bytes(b"x" * 63)
        with self.assertRaises(LocalError) as caught:
            self.folder.identity(Counting())
        self.assertEqual(caught.exception.code, Code.MALFORMED)
        self.assertEqual((self.path / "identity").read_bytes(), b"x" * 63)

    def test_certificate(self) -> None:
        made = self.folder.certificate(NOW)
        self.assertEqual((self.mode("key.pem"), self.mode("certificate.pem")), (0o600, 0o600))
        self.assertEqual(self.folder.certificate(NOW), made)
        other = self_signed(NOW)
        write(self.path / "certificate.pem", other.certificate)
        write(self.path / "key.pem", other.key)
        self.assertEqual(self.folder.certificate(NOW), other)
        self.assertNotIn(b"PRIVATE", repr(made).encode())

    def test_missing_files(self) -> None:
        with self.assertRaises(LocalError) as caught:
            read_certificate(self.path / "no", self.path / "none")
        self.assertEqual(caught.exception.text, f"there is no file {self.path / 'no'}")

    def test_lock(self) -> None:
        """One server a folder."""
        self.folder.lock()
        self.assertEqual(self.mode("lock"), 0o600)
        other = Folder(self.path)
        with self.assertRaises(LocalError) as caught:
            other.lock()
        self.assertEqual(caught.exception.text, f"another server runs in {self.path}")
        self.folder.unlock()
        self.folder.unlock()
        other.lock()
        other.unlock()

    def test_link(self) -> None:
        """Replaced as a whole; nothing else stays behind."""
        for link in ("sims://one", "sims://another"):
            self.folder.write_link(link)
            self.assertEqual((self.path / "link").read_text(), link + "\n")
        self.assertEqual((self.mode("link"), os.listdir(self.path)), (0o600, ["link"]))

    def test_unusable(self) -> None:
        missing = Folder(self.path / "missing")
        for act in (missing.lock, lambda: missing.write_link("x"), lambda: missing.identity(Counting())):
            with self.assertRaises(LocalError) as caught:
                cast("Any", act)()
            self.assertEqual(caught.exception.code, Code.UNAVAILABLE)
        (self.path / "identity").mkdir()
        with self.assertRaises(LocalError):
            self.folder.identity(Counting())


class LinkTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.store = MemoryStore()
        self.told: list[list[ServerLink]] = []

    def links(self, mode: Mode) -> Links:
        return Links(self.store, person("server").id, mode, Counting(), lambda links: self.told.append([*links]))

    def test_invitations(self) -> None:
        """All links carry the same one, whose hash alone the store has; a new one is another."""
        links = self.links(Mode.INVITE)
        links.begin([(Address("a.example", 1), True), (Address("::1", 2), False)])
        links.renew()
        ((first, second), (third, _)) = self.told
        self.assertEqual((str(first)[:19], str(second)[:19]), ("sims://a.example:1/", "sims+tcp://[::1]:2/"))
        self.assertEqual(first.invite, second.invite)
        self.assertNotEqual(first.invite, third.invite)
        for link in (first, third):
            self.assertIn(hashed(cast("str", link.invite)), self.store._invitations)
            self.assertNotIn(cast("str", link.invite), repr(self.store._invitations))
            self.assertNotIn(cast("str", link.invite), repr(link) + repr(links))

    def test_without(self) -> None:
        for mode in (Mode.OPEN, Mode.CLOSED):
            self.links(mode).begin([(Address("a.example", 1), True)])
            self.assertIsNone(self.told[-1][0].invite)

    def test_nowhere(self) -> None:
        self.links(Mode.INVITE).renew()
        self.assertEqual(self.told, [])
