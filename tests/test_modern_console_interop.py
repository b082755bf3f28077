"""The real console of sims/2 with an independent client, through the real server and through an independent one."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from tests.modern_processes import TEXTS, ModernConsole, ModernTestCase, RealServer
from tests.peers.modern_client import ModernClient
from tests.peers.modern_hostile import HostileServer
from tests.peers.modern_identity import Link, Public, safety_number
from tests.peers.modern_primitives import AES, CHACHA


class _Consoles(ModernTestCase):
    """What a console does with an independent client; a subclass says through which server."""

    def link(self, tls: bool) -> Link:
        """A link with an invitation that nobody has used."""
        raise NotImplementedError

    def pair(self, tls: bool, *args: str, number: int = 0) -> tuple[ModernConsole, ModernClient]:
        """A console and a client."""
        peer = self.client(self.link(tls), f"bob{number}{tls:d}")
        return self.console(self.link(tls), f"ann{number}{tls:d}", *args), peer

    def again(self, console: ModernConsole, folder: Path | None = None) -> ModernConsole:
        """A console that has ended, once more; or with another folder."""
        newer = self.keep(ModernConsole(self.place, "", console.name, folder=folder))
        newer.ready()
        return newer


class _EitherServer:
    """The tests, whichever the server is."""

    def test_console_opens(self: Any) -> None:
        """The console opens, over TCP and TLS; both talk; the console closes."""
        for tls in (False, True):
            console, peer = self.pair(tls)
            console.do("connect", to=peer.name)
            self.talk(console, peer)
            told = console.take("connected")
            self.assertEqual((told["peer"]["id"], told["verified"]), (peer.id, False))
            console.do("disconnect", to=peer.id)
            peer.wait("disconnect", sender=console.id)
            console.check_log()

    def test_peer_opens(self: Any) -> None:
        """The independent client opens; both talk; it closes."""
        for tls in (False, True):
            console, peer = self.pair(tls)
            self.assertEqual(peer.find(console.name), console.id)
            self.hear(console, peer, "first")
            self.talk(console, peer)
            peer.disconnect(console.id)
            self.assertEqual(console.take("disconnected")["peer"]["id"], peer.id)
            console.check_log()

    def test_specs(self: Any) -> None:
        """Under each spec, whatever the order of the others."""
        for number, specs in enumerate(([AES], [CHACHA], [CHACHA, AES])):
            console = self.console(self.link(False), f"ann{number}", "--specs", ",".join(specs))
            peer = self.client(self.link(False), f"bob{number}")
            self.assertIn(console.all("ready")[0]["spec"], specs)
            self.say(console, peer, "hello", "one")
            who = {"id": peer.id, "name": peer.name}
            self.assertEqual(console.take("connected", peer=who, confirmed=True)["spec"], specs[0])
            self.talk(console, peer, TEXTS[:2])
            # The other way about: the client's order counts.
            other = self.client(self.link(False), f"cay{number}", specs[::-1])
            self.hear(console, other, "hello")
            who = {"id": other.id, "name": other.name}
            self.assertEqual(console.take("connected", peer=who, confirmed=True)["spec"], specs[-1])
            self.talk(console, other, TEXTS[:2])

    def test_peer_away(self: Any) -> None:
        """The console's first messages to somebody away; who answers when the console has gone."""
        console, peer = self.pair(False)
        peer.close()
        for number in range(5):
            console.do("send", to=peer.id, text=f"text {number}", ref=f"{number}")
            console.take("state", state="accepted", ref=f"{number}")
        console.do("quit")
        self.assertEqual(console.wait_exit(), 0)
        peer.connect()
        self.assertEqual([peer.wait("text")["text"] for _ in range(5)], [f"text {n}" for n in range(5)])
        sent = peer.send(console.id, "back")
        peer.wait_accepted()
        again = self.again(console)
        self.assertEqual(again.take("message")["text"], "back")
        peer.wait_delivered(console.id, sent)

    def test_console_away(self: Any) -> None:
        """First messages to a console that is away."""
        console, peer = self.pair(True)
        console.do("quit")
        console.wait_exit()
        sent = [peer.send(console.id, f"text {number}") for number in range(5)]
        peer.wait_accepted()
        peer.close()
        again = self.again(console)
        self.assertEqual([again.take("message")["text"] for _ in sent], [f"text {n}" for n in range(5)])
        peer.connect()
        for one in sent:
            peer.wait_delivered(console.id, one)
        self.talk(again, peer, TEXTS[:2])

    def test_verify(self: Any) -> None:
        """The link to oneself and the safety number are those of the independent client."""
        console, peer = self.pair(False)
        console.do("link")
        link = Link.parse(console.take("link")["link"])
        self.assertEqual((link.person, link.name, link.server_id), (console.id, console.name, peer.link.server_id))
        self.talk(console, peer, TEXTS[:1])
        console.do("verify", to=peer.id)
        bundle, _ = peer.fetch(console.id)
        number = safety_number(peer.talks.identity.public, Public(bundle["sign"], bundle["dh"]))
        self.assertEqual(console.take("safety-number")["number"], number)
        console.do("trust", to=peer.id)
        peer.send(console.id, "now")
        told = console.take("message", text="now")
        self.assertEqual((told["verified"], told["confirmed"]), (True, True))

    def test_confirmed(self: Any) -> None:
        """A first message is shown as not confirmed, one after phase 3 as confirmed."""
        console, peer = self.pair(False)
        peer.send(console.id, "first")
        self.assertEqual(console.take("message", text="first")["confirmed"], False)
        peer.wait("confirmed")
        peer.send(console.id, "second")
        self.assertEqual(console.take("message", text="second")["confirmed"], True)


class RealServerTests(_EitherServer, _Consoles):
    """Through the real server."""

    def setUp(self) -> None:
        super().setUp()
        self.server: RealServer = self.real_server()
        self.addCleanup(self.server.check_log)

    def link(self, tls: bool) -> Link:
        return self.server.link(tls)


class IndependentServerTests(_EitherServer, _Consoles):
    """Through an independent server."""

    def setUp(self) -> None:
        super().setUp()
        self.servers: dict[bool, HostileServer] = {}

    def link(self, tls: bool) -> Link:
        if tls not in self.servers:
            self.servers[tls] = self.hostile_server(tls)
        return Link.parse(self.servers[tls].link())

    def test_at_once(self) -> None:
        """Both open at once: the phase 1s of both are under way before either is delivered."""
        console, peer = self.pair(False)
        server = self.servers[False]
        server.withhold(lambda inner: True)
        sent = [peer.send(console.id, f"peer {number}") for number in range(3)]
        for number in range(3):
            console.do("send", to=peer.id, text=f"console {number}", ref=f"{number}")
            console.take("state", state="accepted", ref=f"{number}")
        peer.wait_accepted()
        self.assertEqual({(inner["src"], inner.get("phase")) for inner in server.held}, {(console.id, 1), (peer.id, 1)})
        server.honest()
        for number in range(3):
            self.assertEqual(console.take("message", text=f"peer {number}")["from"]["id"], peer.id)
            peer.wait("text", text=f"console {number}")
            console.take("state", state="delivered", ref=f"{number}")
            peer.wait_delivered(console.id, sent[number])
        self.talk(console, peer, TEXTS[:3])
        self.assertEqual(len(console.messages(peer.id)), 6)

    def test_reconnects(self) -> None:
        """A console whose server goes away and comes back sends what it could not, and loses nothing."""
        console, peer = self.pair(False)
        self.talk(console, peer, TEXTS[:1])
        self.servers[False].stop()
        console.take("offline")
        console.do("send", to=peer.id, text="while away", ref="away")
        sent = peer.send(console.id, "while away")
        self.servers[False].start()
        peer.close()
        peer.connect()
        peer.wait("text", text="while away")
        console.take("state", state="delivered", ref="away")
        console.take("message", text="while away")
        peer.wait_delivered(console.id, sent)

    def test_restored(self) -> None:
        """A console whose folder was put back to an older copy talks on, both ways."""
        console, peer = self.pair(False)
        self.talk(console, peer, TEXTS[:2])
        console.do("quit")
        console.wait_exit()
        folder = self.place.cwd / f"profile-{console.name}"
        shutil.copytree(folder, f"{folder}-copy")
        again = self.again(console)
        self.talk(again, peer, ("after the copy", "and on"))
        again.do("quit")
        again.wait_exit()
        restored = self.again(console, Path(f"{folder}-copy"))
        self.assertEqual(restored.id, console.id)
        self.talk(restored, peer, ("restored", "and on again"))
        self.assertEqual(len(peer.texts(console.id)), len(set(peer.texts(console.id))))
