"""The real server of sims/2 with independent clients."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Sequence
from typing import Any

from tests.modern_processes import TEXTS, ModernTestCase
from tests.peers.modern_client import ModernClient
from tests.peers.modern_connect import to_frame
from tests.peers.modern_hostile import Between, change_frame, flipped
from tests.peers.modern_identity import Link
from tests.peers.modern_primitives import AES, CHACHA, DEFAULT_SPECS, Map, RefusedError

NOBODY = "a" * 32


class RealServerTests(ModernTestCase):
    """The real server with independent clients."""

    def setUp(self) -> None:
        super().setUp()
        self.server = self.real_server()

    def join(self, name: str, tls: bool = False, specs: Sequence[str] = DEFAULT_SPECS, **named: Any) -> ModernClient:
        """A new client, connected."""
        return self.client(self.server.link(tls), name, specs, hop_specs=specs, **named)

    def refused(self, code: str, client: ModernClient) -> None:
        """The server refuses this client in the handshake, with this code."""
        with self.assertRaises(RefusedError) as caught:
            client.connect()
        self.assertEqual(caught.exception.code, code)

    def test_conversations(self) -> None:
        """Over TCP and TLS and from one to the other, under each spec: register, publish, fetch, open, talk, close."""
        number = 0
        for specs in ([AES], [CHACHA], [CHACHA, AES]):
            for kinds in ((False, False), (True, True), (False, True)):
                number += 1
                names = f"ann{number}", f"bob{number}"
                ann, bob = (self.join(name, tls, specs) for name, tls in zip(names, kinds, strict=True))
                self.assertEqual((ann.answer["name"], type(ann.answer["time"])), (ann.name, int))
                self.assertEqual(len(bob.wire.stream.binding), 32 * kinds[1])
                self.assertIn(ann.wire.hop and ann.wire.hop.suite.name, specs)
                self.assertEqual(ann.find(bob.name), bob.id)
                self.converse(ann, bob)
                talk = ann.talks.best(bob.id)
                self.assertEqual(talk and talk.session.spec, specs[0])
                ann.disconnect(bob.id)
                bob.wait("disconnect", sender=ann.id)
                ann.close()
                bob.close()
        self.server.check_log()

    def test_away(self) -> None:
        """First messages to somebody away, who reads them when back; the sender has gone by then."""
        for tls in (False, True):
            ann, bob = self.join(f"ann{tls:d}", tls), self.join(f"bob{tls:d}", tls)
            bob.close()
            sent = [ann.send(bob.id, f"text {n}") for n in range(8)]
            ann.wait_accepted()
            ann.close()
            bob.connect()
            self.assertEqual([bob.wait("text")["text"] for _ in sent], [f"text {n}" for n in range(8)])
            bob.send(ann.id, "back")
            bob.wait_accepted()
            ann.connect()
            for one in sent:
                ann.wait_delivered(bob.id, one)
            ann.wait("text", text="back", confirmed=True)
            self.converse(ann, bob, TEXTS[:2])
        self.server.check_log()

    def test_at_once(self) -> None:
        """Both open, and both phase 1s are under way before either is relayed."""
        for tls in (False, True):
            ann, bob = self.join(f"ann{tls:d}", tls), self.join(f"bob{tls:d}", tls)
            ann.prefetch(bob.id)
            bob.prefetch(ann.id)
            self.server.send_signal(signal.SIGSTOP)
            sent = {
                one: [one.send(other.id, f"{one.name} {n}") for n in range(3)]
                for one, other in ((ann, bob), (bob, ann))
            }
            self.assertEqual([len(one.talks.people[other.id]) for one, other in ((ann, bob), (bob, ann))], [1, 1])
            self.server.send_signal(signal.SIGCONT)
            for one, other in ((ann, bob), (bob, ann)):
                for number, content in enumerate(sent[one]):
                    other.wait("text", sender=one.id, text=f"{one.name} {number}")
                    one.wait_delivered(other.id, content)
            self.assertEqual([len(one.talks.people[other.id]) for one, other in ((ann, bob), (bob, ann))], [2, 2])
            self.converse(ann, bob, TEXTS[:2])
        self.server.check_log()

    def test_again_until_acknowledged(self) -> None:
        """What the receiver has not acknowledged comes again on its next connection, and a mid is kept once only."""
        ann, bob = self.join("ann"), self.join("bob")
        bob.auto_ack = False
        ann.send(bob.id, "hello")
        bob.wait("text")
        bob.wait_accepted()
        newer = ModernClient(bob.link, "bob", talks=bob.talks, timeout=self.patience)
        got: list[Map] = []
        take = bob.talks.take

        def taken(inner: Map) -> None:
            got.append(inner)
            take(inner)

        bob.talks.take = taken  # type: ignore[method-assign]
        newer.connect()
        self.addCleanup(newer.close)
        bob.wait("error", code="replaced")
        bob.wait("offline")
        self.converse(ann, newer, TEXTS[:2])
        self.assertEqual(newer.texts(ann.id), list(TEXTS[:2]))
        self.assertEqual((got[0]["phase"], got[0]["src"]), (1, ann.id))
        again = dict(got[-1], src=newer.id, dst=ann.id)
        for _ in range(3):
            newer.wire.send(again)
        self.converse(ann, newer, ("after",))
        self.assertLessEqual(len(ann.all("unreadable")), 1)
        self.server.check_log()

    def test_refused_to_connect(self) -> None:
        """Invitations are used once, names are held by one, another server is refused, and so is no common spec."""
        ann = self.join("ann")
        known, new = self.server.known(), self.server.link()
        self.refused("invite-required", ModernClient(known, "eve"))
        # One that never was is not told apart from none.
        self.refused("invite-required", ModernClient(new._replace(invite="x" * 22), "eve"))
        self.refused("name-taken", ModernClient(new, "ann"))
        self.refused("name-invalid", ModernClient(new, "a\u0000b"))
        self.refused("name-invalid", ModernClient(new, "x" * 33))
        self.refused("not-authenticated", ModernClient(new._replace(server_id=ann.id), "eve"))
        for specs in ([], ["X25519MLKEM768-NONE-SHA256"], ["ECDHE-AES128_CTR-SHA256"]):
            self.refused("no-common-spec", ModernClient(new, "eve", hop_specs=specs))
        # The invitation is still good after all that.
        eve = self.client(new, "eve")
        self.refused("invite-used", ModernClient(new, "mallory"))
        self.converse(ann, eve, TEXTS[:1])
        self.server.check_log()

    def test_refused_messages(self) -> None:
        """Somebody else's `src`, somebody unknown, an unknown type: told with a code, and the connection goes on."""
        ann, bob = self.join("ann"), self.join("bob", True)
        self.converse(ann, bob, TEXTS[:1])
        mid = iter(range(1, 100))

        def inner(**fields: object) -> Map:
            number = next(mid).to_bytes(16, "big")
            data = {"header": bytes(69), "body": bytes(272)}
            return {"type": "client-com", "src": ann.id, "dst": bob.id, "mid": number, "data": data, **fields}

        for message, code in (
            (inner(src=bob.id, dst=ann.id), "not-sender"),
            (inner(dst=NOBODY), "unknown-recipient"),
        ):
            ann.wire.send(message)
            self.assertEqual(ann.wait("error", mid=message["mid"])["code"], code)
        for wanted in ({"id": NOBODY}, {"name": "nobody"}):
            with self.assertRaises(RefusedError) as caught:
                ann.fetch(wanted.get("id"), wanted.get("name"))
            self.assertEqual(caught.exception.code, "unknown-recipient")
        self.converse(ann, bob, TEXTS[:1])
        ann.wire.send(inner(type="no-such-type"))
        ann.wait("error", code="malformed")
        self.server.check_log()

    def test_bundles(self) -> None:
        """Somebody else's bundle is refused; a fetcher has one one-time key a day; each key is given once."""
        ann, bob, eve = self.join("ann"), self.join("bob"), self.join("eve")
        first, second = ann.fetch(bob.id), ann.fetch(name="bob")
        self.assertEqual((first[0], second[1]), (second[0], None))
        other = eve.fetch(bob.id)
        self.assertEqual(other[0], first[0])
        if first[1] is None or other[1] is None:
            self.fail("no one-time key was given")
        self.assertNotEqual(first[1]["key_id"], other[1]["key_id"])
        bundle = {"bundle": first[0], "one_time_keys": []}
        eve.wire.send({"type": "publish", "mid": bytes(16), "data": bundle})
        eve.wait("error")
        self.assertEqual(ann.fetch(eve.id)[0]["sign"], eve.talks.identity.public.sign)
        self.server.check_log()

    def test_rekey(self) -> None:
        """Rekeys in the midst of messages; none while one is under way."""
        for tls in (False, True):
            ann, bob = self.join(f"ann{tls:d}", tls), self.join(f"bob{tls:d}", tls)
            for _ in range(3):
                ann.wire.rekey()
                self.converse(ann, bob, TEXTS[:2])
            bob.wire.rekey_after = 4
            self.converse(ann, bob, [str(number) for number in range(10)])
            self.assertEqual(ann.wire.hop and ann.wire.hop.rekeys, 3)
            self.assertGreaterEqual(bob.wire.hop.rekeys if bob.wire.hop else 0, 3)
            with ann.wire.lock:
                ann.wire.rekey()
                hop = ann.wire.hop
                message = {
                    "type": "rekey",
                    "phase": 1,
                    "data": {"public_key": bytes(32), "kem_public_key": bytes(1184)},
                }
                ann.wire.send_frame(self.sealed(ann, message))
            ann.wait("offline")
            self.assertIsNotNone(hop)
        self.server.check_log()

    def test_rekey_required(self) -> None:
        """A client that never rekeys is closed with a code, after 2,000 messages of both directions."""
        server = self.real_server("--dir", str(self.place.cwd / "unlimited"), "--limit", "sends=none")
        ann = self.client(server.link(), "ann")
        ann.wire.rekey_after = 10**9
        with contextlib.suppress(TimeoutError):
            for _ in range(1_100):
                ann.ask("list", 2)
        ann.wait("error", code="rekey-required")
        ann.wait("offline")
        self.assertGreater(ann.wire.hop.handled if ann.wire.hop else 0, 1_900)
        server.check_log()

    @staticmethod
    def sealed(client: ModernClient, inner: Map) -> bytes:
        """A frame, sealed without a look at what is in it."""
        hop = client.wire.hop
        if hop is None:
            raise AssertionError("not connected")
        return to_frame(hop.seal(inner))

    def test_bad_frames(self) -> None:
        """A sealed frame that is changed, repeated or out of turn closes that connection, and no other."""
        ann, bob = self.join("ann"), self.join("bob")
        self.converse(ann, bob, TEXTS[:1])
        good = self.sealed(bob, {"type": "list", "data": {}})
        later = self.sealed(bob, {"type": "list", "data": {}})
        flip = change_frame(good, "payload/ciphertext", flipped)
        for number, frames in enumerate(((flip,), (later,), (good, good), (good.replace(b":", b":}", 1),), (b"",))):
            eve = self.join(f"eve{number}")
            if number in (2,):
                good = self.sealed(eve, {"type": "list", "data": {}})
                frames = (good, good)
            for frame in frames:
                eve.wire.send_frame(frame)
            eve.wait("offline")
        self.converse(ann, self.back(bob), TEXTS[:1])
        self.server.check_log()

    @staticmethod
    def back(client: ModernClient) -> ModernClient:
        client.close()
        return client.connect()

    def test_between(self) -> None:
        """Somebody on the way who changes anything of connect, strips the offer, or changes a sealed frame."""
        known = self.server.link()
        for direction, at, path in (
            ("to server", 0, "ciphers"),
            ("to server", 0, "data/random"),
            ("to server", 0, "data/public_key"),
            ("to server", 0, "data/kem_public_key"),
            ("to client", 0, "data/random"),
            ("to client", 0, "data/kem_ciphertext"),
            ("to client", 0, "data/sealed"),
            ("to server", 1, "data/sealed"),
            ("to client", 1, "data/sealed"),
        ):

            def change(way: str, count: int, frame: bytes, want: Any = (direction, at, path)) -> list[bytes]:
                if (way, count) != want[:2]:
                    return [frame]
                return [
                    change_frame(frame, want[2], lambda value: value[:1] if want[2] == "ciphers" else flipped(value))
                ]

            between = Between(known.addresses[0][1], change)
            self.addCleanup(between.stop)
            link = Link(False, (("127.0.0.1", between.port),), known.server_id, known.invite)
            client = ModernClient(link, "ann", DEFAULT_SPECS[::-1], timeout=5)
            with self.assertRaises((RefusedError, EOFError, TimeoutError, OSError)):
                client.connect()
            client.wire.close()
        self.server.check_log()

    def test_between_tls(self) -> None:
        """Somebody on the way who ends TLS on both sides and changes nothing is noticed by its binding."""
        known = self.server.link(True)
        between = Between(known.addresses[0][1], lambda way, count, frame: [frame], tls=True)
        self.addCleanup(between.stop)
        link = Link(True, (("127.0.0.1", between.port),), known.server_id, known.invite)
        self.refused("not-authenticated", ModernClient(link, "ann"))
        self.client(known, "ann")
        self.server.check_log()
