"""The independent ends of sims/2 with one another, over sockets of this machine."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from tests.peers.modern_client import ModernClient
from tests.peers.modern_hostile import Between, HostileServer, change_frame, changed, fields_of, flipped
from tests.peers.modern_primitives import AES, CHACHA, DEFAULT_SPECS, Map, RefusedError

if TYPE_CHECKING:
    from unittest import TestCase
else:
    from twisted.trial.unittest import SynchronousTestCase as TestCase


def is_from(src: str, inner: Map) -> bool:
    return bool(inner["src"] == src)


def answered(way: Callable[[Map], Map], asker: object, owner: object, reply: Map) -> Map:
    return way(reply)


class TalkTests(TestCase):
    """Clients and servers of these modules, over TCP and over TLS."""

    def setUp(self) -> None:
        super().setUp()
        self.server: HostileServer

    def serve(self, tls: bool = False, specs: Sequence[str] = DEFAULT_SPECS) -> HostileServer:
        self.server = HostileServer(tls, specs)
        self.server.start()
        self.addCleanup(self.server.stop)
        return self.server

    def client(self, name: str, specs: Sequence[str] = DEFAULT_SPECS, **named: Any) -> ModernClient:
        client = ModernClient(self.server.link(), name, specs, **named)
        client.talks.unreadable_every = 0
        client.connect()
        self.addCleanup(client.close)
        return client

    def converse(self, ann: ModernClient, bob: ModernClient, *texts: str) -> None:
        """Texts both ways, each with its receipt, shown once and in order."""
        for text in texts:
            for one, other in ((ann, bob), (bob, ann)):
                sent = one.send(other.id, f"{text} from {one.name}")
                told = other.wait("text", sender=one.id, text=f"{text} from {one.name}")
                self.assertEqual((told["id"], told["order"]), (sent, "in order"))
                one.wait_delivered(other.id, sent)

    def test_connected(self) -> None:
        """Register, publish, fetch, list and about; a conversation; over TCP and TLS, under each spec."""
        for tls, specs in ((False, [AES]), (True, [CHACHA])):
            server = self.serve(tls, specs)
            ann, bob = self.client("ann", specs), self.client("bob", specs)
            self.assertEqual(len(bob.wire.stream.binding), 32 * tls)
            self.assertEqual((ann.find("bob"), server.id_of("bob")), (bob.id, bob.id))
            self.assertEqual(sorted(entry["name"] for entry in ann.ask("list")["clients"]), ["ann", "bob"])
            self.assertEqual(ann.ask("about")["facts"]["name"], "ann")
            with self.assertRaises(RefusedError) as caught:
                ann.fetch("a" * 32)
            self.assertEqual(caught.exception.code, "unknown-recipient")
            self.converse(ann, bob, "hello", "you \u263a", "x" * 30_000)
            talk = ann.talks.best(bob.id)
            self.assertTrue(talk is not None and talk.session.confirmed and talk.session.spec == specs[0])
            ann.disconnect(bob.id)
            bob.wait("disconnect", sender=ann.id)
            ann.wait_accepted()
            self.assertEqual(server.failures, [])

    def test_refused(self) -> None:
        """Invitations are used once, names are held once, another server is refused."""
        server = self.serve()
        ann = self.client("ann")
        used = server.link()
        for link, name, code in (
            (str(ann.link), "eve", "invite-required"),
            (used.replace("invite=", "invite=x"), "eve", "invite-used"),
            (used, "ann", "name-taken"),
            (used.replace(server.identity.id, ann.id), "eve", "not-authenticated"),
        ):
            with self.assertRaises(RefusedError) as caught:
                ModernClient(link, name).connect()
            self.assertEqual(caught.exception.code, code)

    def test_away(self) -> None:
        """First messages to somebody away, who reads them later; the answer to somebody who has gone meanwhile."""
        self.serve()
        ann, bob = self.client("ann"), self.client("bob")
        bob.close()
        sent = [ann.send(bob.id, f"text {n}") for n in range(5)]
        ann.wait_accepted()
        ann.close()
        bob.connect()
        self.assertEqual([bob.wait("text")["text"] for _ in sent], [f"text {n}" for n in range(5)])
        self.assertEqual([told["order"] for told in bob.all("text")], ["in order"] * 5)
        bob.send(ann.id, "back")
        bob.wait_accepted()
        ann.connect()
        for one in sent:
            ann.wait_delivered(bob.id, one)
        ann.wait("text", text="back", confirmed=True)
        self.converse(ann, bob, "on")

    def test_replaced(self) -> None:
        """A newer connection of an id ends the older one; what was not acknowledged comes again on it."""
        self.serve()
        ann, bob = self.client("ann"), self.client("bob")
        bob.auto_ack = False
        ann.send(bob.id, "hello")
        bob.wait("text")
        newer = ModernClient(bob.link, "bob", talks=bob.talks)
        newer.connect()
        self.addCleanup(newer.close)
        bob.wait("error", code="replaced")
        newer.wait_accepted()
        self.converse(ann, newer, "on")
        self.assertEqual(len(newer.texts(ann.id)), 1)

    def test_at_once(self) -> None:
        """Both phase 1s are under way before either is delivered; everything arrives, and they agree on one session."""
        server = self.serve()
        ann, bob = self.client("ann"), self.client("bob")
        server.withhold(lambda inner: True)
        sent = {
            one: [one.send(other.id, f"{one.name} {n}") for n in range(3)] for one, other in ((ann, bob), (bob, ann))
        }
        for one in sent:
            one.wait_accepted()
        self.assertEqual({inner.get("phase") for inner in server.held}, {1})
        server.honest()
        for one, other in ((ann, bob), (bob, ann)):
            for number, content in enumerate(sent[one]):
                other.wait("text", sender=one.id, text=f"{one.name} {number}")
                one.wait_delivered(other.id, content)
        self.converse(ann, bob, "one", "two")
        best = ann.talks.best(bob.id), bob.talks.best(ann.id)
        self.assertEqual(*(talk.session.th1 for talk in best if talk is not None))

    def test_rekey(self) -> None:
        """A rekey in the midst of messages, over TLS, and one by count."""
        server = self.serve(True)
        ann, bob = self.client("ann"), self.client("bob")
        self.converse(ann, bob, "before")
        ann.wire.rekey()
        self.converse(ann, bob, "after")
        self.assertEqual(ann.wire.hop and ann.wire.hop.rekeys, 1)
        bob.wire.rekey_after = 5
        self.converse(ann, bob, *(str(number) for number in range(8)))
        self.assertGreaterEqual(bob.wire.hop.rekeys if bob.wire.hop else 0, 2)
        self.assertEqual(server.failures, [])

    # --- a hostile relay ---

    def pair(self, confirmed: bool) -> tuple[ModernClient, ModernClient]:
        ann, bob = self.client("ann"), self.client("bob")
        if confirmed:
            self.converse(ann, bob, "before")
        return ann, bob

    def test_reordered_and_withheld(self) -> None:
        """What is held back or comes backwards is shown once, whole, and marked."""
        for confirmed in (False, True):
            server = self.serve()
            ann, bob = self.pair(confirmed)
            server.withhold(functools.partial(is_from, ann.id))
            sent = [ann.send(bob.id, f"text {n}") for n in range(4)]
            ann.wait_accepted()
            server.release_backwards()
            for number, content in enumerate(sent):
                bob.wait("text", text=f"text {number}")
                ann.wait_delivered(bob.id, content)
            self.assertIn("gap", [told["order"] for told in bob.all("text")])
            self.converse(ann, bob, "after")
            self.assertEqual(len(bob.texts(ann.id)), len(set(bob.texts(ann.id))))
            self.assertEqual([*bob.all("unreadable"), *ann.all("unreadable")], [])

    def test_replayed(self) -> None:
        """What comes again, under its own mid or another, is shown once."""
        server = self.serve()
        ann, bob = self.pair(False)
        server.meddle = lambda inner: [inner, inner, {**inner, "mid": bytes(8) + inner["mid"][8:]}]
        sent = [ann.send(bob.id, f"text {n}") for n in range(4)]
        for content in sent:
            ann.wait_delivered(bob.id, content)
        server.honest()
        self.converse(ann, bob, "after")
        self.assertEqual(bob.texts(ann.id)[:4], [f"text {n}" for n in range(4)])
        self.assertEqual(len(bob.texts(ann.id)), 5)

    def test_tampered(self) -> None:
        """Each byte field of each message, one at a time: nothing wrong is shown, and nothing right is lost."""
        server = self.serve()
        for index, (phase, path) in enumerate(self.places()):
            ann, bob = self.client(f"ann{index}"), self.client(f"bob{index}")

            done: list[Map] = []

            def tamper(inner: Map, phase: int | None = phase, path: str = path, done: list[Map] = done) -> list[Map]:
                if phase == 3 and inner.get("phase") == 4:
                    server.held.append(inner)  # so that a text goes with phase 3
                    return []
                if done or inner.get("phase") != phase or path not in fields_of(inner):
                    return [inner]
                done.append(inner)
                return [changed(inner, path, lambda data: flipped(data, -1))]

            server.meddle = tamper
            sent = [ann.send(bob.id, "one")]
            if phase != 1:
                bob.wait("text", text="one")
                self.settle(ann, bob)
            sent.append(bob.send(ann.id, "two"))
            self.settle(ann, bob)
            sent.append(ann.send(bob.id, "three"))
            self.settle(ann, bob)
            self.assertEqual(len(done), 1, (phase, path))
            server.honest()
            for one, other, content in zip((ann, bob, ann), (bob, ann, bob), sent, strict=True):
                one.wait_delivered(other.id, content)
            self.assertEqual((sorted(bob.texts(ann.id)), ann.texts(bob.id)), (["one", "three"], ["two"]))
            ann.close()
            bob.close()

    def places(self) -> list[tuple[int | None, str]]:
        """Phase (None for client-com) and path of every byte field in a conversation."""
        ann, bob = self.client("ann"), self.client("bob")
        self.converse(ann, bob, "one", "two")
        ann.close()
        bob.close()
        every = ((inner.get("phase"), path) for inner in self.server.originals for path in fields_of(inner))
        return list(dict.fromkeys([*every, (3, "data/message/header"), (3, "data/message/body")]))

    def settle(self, *clients: ModernClient) -> None:
        """Wait until nothing is under way."""
        quiet = 0
        while quiet < 3:
            with self.server.lock:
                busy = any(account.mailbox for account in self.server.accounts.values() if account.wire)
            busy = busy or any(client.busy for client in clients)
            quiet = 0 if busy else quiet + 1
            time.sleep(0.001)

    def test_another_bundle(self) -> None:
        """Somebody else's bundle, a stripped or an altered one is refused, and what waits goes once it is right."""
        server = self.serve()
        ann, bob, eve = self.client("ann"), self.client("bob"), self.client("eve")
        bob.publish(5)
        ways: list[Callable[[Map], Map]] = [
            lambda reply: {"bundle": server.accounts[eve.id].bundle},
            lambda reply: changed(reply, "bundle/specs", lambda specs: specs[:1]),
            lambda reply: changed(reply, "bundle/prekey/public", flipped),
            lambda reply: changed(reply, "one_time_key/public", flipped),
        ]
        for way in ways:
            server.meddle_bundle = functools.partial(answered, way)
            ann.send(bob.id, "hello")
            ann.wait("cannot-open", peer=bob.id)
            server.accounts[bob.id].given.clear()
        server.honest()
        ann.talks.retry()
        for _ in ways:
            bob.wait("text", text="hello", sender=ann.id)
        self.assertEqual(eve.all("text"), [])

    def test_between(self) -> None:
        """Somebody on the way who changes or strips anything of connect, or a sealed frame, ends the connection."""
        server = self.serve()
        for number, (direction, at, path) in enumerate(
            (
                ("to server", 0, "ciphers"),
                ("to server", 0, "data/random"),
                ("to client", 0, "data/kem_ciphertext"),
                ("to client", 0, "data/sealed"),
                ("to server", 1, "data/sealed"),
                ("to client", 1, "data/sealed"),
                ("to server", 2, "payload/ciphertext"),
                ("to client", 2, "payload/ciphertext"),
            )
        ):

            def change(way: str, count: int, frame: bytes, want: Any = (direction, at, path)) -> list[bytes]:
                if (way, count) != want[:2]:
                    return [frame]
                return [
                    change_frame(frame, want[2], lambda value: value[1:] if want[2] == "ciphers" else flipped(value))
                ]

            between = Between(server.port, change)
            self.addCleanup(between.stop)
            client = ModernClient(server.link(between.port), f"eve{number}", timeout=0.5)
            with self.assertRaises((RefusedError, EOFError, TimeoutError, OSError)):
                client.connect()
            client.wire.close()

    def test_between_tls(self) -> None:
        """Somebody on the way who ends TLS on both sides is noticed by the binding."""
        server = self.serve(True)
        between = Between(server.port, lambda way, count, frame: [frame], tls=True)
        self.addCleanup(between.stop)
        with self.assertRaises(RefusedError) as caught:
            ModernClient(server.link(between.port), "eve").connect()
        self.assertEqual(caught.exception.code, "not-authenticated")
