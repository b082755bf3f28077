"""The real console of sims/2 that is served another bundle, or from whose offer of specs something is taken.

Nothing is said to anybody else, no weaker session comes of it, and what waits is sent once the relay is honest.
"""

from __future__ import annotations

import functools
import json
import threading
import time
from collections.abc import Callable

from tests.modern_hostile_case import Hostile
from tests.modern_processes import ModernConsole
from tests.peers.modern_client import ModernClient
from tests.peers.modern_hostile import Between, HostileServer, change_frame, changed, flipped
from tests.peers.modern_identity import Link, bundle_signed
from tests.peers.modern_primitives import AES, CHACHA, DEFAULT_SPECS, Map
from tests.peers.modern_server import Account
from tests.processes import TIMEOUT

Change = Callable[[Map], Map]


def answered(change: Change, asker: object, owner: object, reply: Map) -> Map:
    return change(reply)


def one(change: Change, inner: Map) -> list[Map]:
    return [change(inner)]


class BundleTests(Hostile):
    """Another bundle than the one that was published."""

    def refused(self, change: Change, console: ModernConsole, peer: ModernClient, text: str) -> None:
        """The console fetches a bundle that is changed: nothing is sent, and there is no session."""
        relayed, done = len(self.server.originals), threading.Event()

        def meddle(asker: Account, owner: Account, reply: Map) -> Map:
            # What is asked for once more, without a one-time key or for somebody else, is spoilt in another way.
            if owner.id != peer.id or "one_time_key" not in reply:
                return changed(reply, "bundle/signature", flipped)
            done.set()
            return change(reply)

        self.server.meddle_bundle = meddle
        self.from_console(console, peer, text)
        self.assertTrue(done.wait(TIMEOUT))
        self.settle()
        self.assertEqual(self.server.originals[relayed:], [])
        self.assertEqual([told for told in console.all("connected") if told["peer"]["id"] == peer.id], [])

    def signed(self, peer: ModernClient, **fields: object) -> Change:
        """The peer's own bundle with other fields, rightly signed by it."""

        def change(reply: Map) -> Map:
            bundle = {**reply["bundle"], **fields}
            signature = peer.talks.identity.signature("bundle", bundle_signed(bundle))
            return {**reply, "bundle": {**bundle, "signature": signature}}

        return change

    def test_refused(self) -> None:
        """Each wrong bundle, for a peer of its own; then the right ones, and everything that waited arrives."""
        console, (eve,) = self.join("eve")
        peers = [self.client(self.server.link(), f"peer{number}") for number in range(9)]
        ways: list[Change] = [
            lambda reply: {"bundle": self.server.accounts[eve.id].bundle},
            lambda reply: changed(reply, "bundle/specs", lambda specs: specs[1:]),
            lambda reply: changed(reply, "bundle/specs", lambda specs: []),
            lambda reply: changed(reply, "bundle/prekey/public", flipped),
            lambda reply: changed(reply, "bundle/kem_prekey/public", lambda key: flipped(key, 700)),
            lambda reply: changed(reply, "bundle/signature", flipped),
            lambda reply: changed(reply, "one_time_key/kem_public", lambda key: flipped(key, 700)),
            lambda reply: changed(reply, "one_time_key/signature", lambda key: flipped(key, -1)),
            self.signed(peers[8], expires=int(time.time()) - 1),
        ]
        for number, (way, peer) in enumerate(zip(ways, peers, strict=True)):
            self.refused(way, console, peer, f"text {number}")
            self.server.accounts[peer.id].given.clear()
        self.server.honest()
        for peer in peers:
            self.from_console(console, peer, "honest")
            self.nothing_lost(console, peer)
        self.assertEqual(eve.all("text"), [])
        console.check_log()

    def test_older(self) -> None:
        """A bundle older than one that was seen, and another one of the same version, are refused."""
        console, (bob,) = self.join("bob")
        old = self.server.accounts[bob.id].bundle
        bob.publish(0)
        new = self.server.accounts[bob.id].bundle
        if old is None or new is None:
            self.fail("there is no bundle")
        self.assertGreater(new["version"], old["version"])
        self.exchange(console, bob, True)
        # A console that lost its sessions asks again; so does one that could not open something.
        self.server.meddle_bundle = functools.partial(answered, lambda reply: {**reply, "bundle": old})
        self.unreadable(console, bob, "spoilt")
        self.assertEqual([inner for inner in self.server.originals if self.is_second(inner, console)], [])
        self.server.honest()
        self.exchange(console, bob, True, "honest ")
        self.assertEqual(console.messages(bob.id)[:1], ["text 1"])

    def is_second(self, inner: Map, console: ModernConsole) -> bool:
        """Whether it is the phase 1 of another session than the console's first."""
        first = next(inner for inner in self.server.originals if inner.get("phase") == 1)
        return bool(
            inner["src"] == console.id
            and inner.get("phase") == 1
            and inner["data"]["public_key"] != first["data"]["public_key"]
        )

    def unreadable(self, console: ModernConsole, peer: ModernClient, text: str) -> None:
        """A text to the console that comes with another body."""
        self.server.once(lambda inner: True, lambda inner: [changed(inner, "data/body", flipped)])
        peer.send(console.id, text)
        self.settle()

    def test_another_identity_for_a_name(self) -> None:
        """A name that was known is answered with somebody else's bundle: told, and nothing goes there unasked."""
        console, (bob, eve) = self.join("bob", "eve")
        console.do("send", to="bob", text="to bob", ref="first")
        self.assertEqual(bob.wait("text")["text"], "to bob")
        console.take("state", state="delivered", ref="first")
        console.do("quit")
        console.wait_exit()
        bob.close()

        def lookup(reply: Map) -> Map:
            return {"bundle": self.server.accounts[eve.id].bundle}

        self.server.meddle_bundle = functools.partial(answered, lookup)
        again = self.keep(ModernConsole(self.place, "", console.name))
        again.ready()
        again.do("send", to="bob", text="secret", ref="second")
        self.settle()
        self.assertEqual(eve.all("text"), [])
        self.assertEqual(eve.all("opened"), [])


class StrippedTests(Hostile):
    """Something is taken from an offer of specs."""

    def between(self, change: Callable[[str, int, bytes], list[bytes]]) -> Link:
        """A link through somebody who changes frames."""
        between = Between(self.server.port, change)
        self.addCleanup(between.stop)
        return Link.parse(self.server.link(between.port))

    def not_ready(self, link: Link, name: str, *args: str) -> set[str]:
        """A console that must not become ready; gives the codes that it told."""
        console = self.keep(ModernConsole(self.place, str(link), name, *args))
        told = console.take("error")
        time.sleep(self.quiet)
        self.assertEqual(console.all("ready"), [])
        console.kill()
        return {str(error["code"]) for error in [told, *console.all("error")]}

    def test_connect(self) -> None:
        """The client's offer is emptied or cut on its way, or another spec is said to be chosen."""

        def cut(left: list[str], way: str, count: int, frame: bytes) -> list[bytes]:
            if (way, count) != ("to server", 0):
                return [frame]
            return [change_frame(frame, "ciphers", lambda specs: left)]

        def said(spec: str, way: str, count: int, frame: bytes) -> list[bytes]:
            if (way, count) != ("to client", 0):
                return [frame]
            return [json.dumps({**json.loads(frame), "ciphers": spec}).encode()]

        for number, (left, codes) in enumerate(
            (([], {"no-common-spec"}), (["no-such-spec"], {"no-common-spec"}), ([CHACHA], None))
        ):
            found = self.not_ready(self.between(functools.partial(cut, left)), f"ann{number}")
            if codes is not None:
                self.assertEqual(found, codes)
        for number, spec in enumerate((CHACHA, "X25519MLKEM768-NONE-SHA256", "ECDHE-AES128_CTR-SHA256")):
            found = self.not_ready(self.between(functools.partial(said, spec)), f"bob{number}", "--specs", AES)
            self.assertLessEqual(found, {"policy", "no-common-spec"}, spec)

    def test_between_tls(self) -> None:
        """Somebody who ends TLS on both sides and changes nothing is noticed by the binding."""
        server: HostileServer = self.hostile_server(True)
        between = Between(server.port, lambda way, count, frame: [frame], tls=True)
        self.addCleanup(between.stop)
        found = self.not_ready(Link.parse(server.link(between.port)), "ann")
        self.assertEqual(found, {"not-authenticated"})

    def test_server_without(self) -> None:
        """A server that speaks nothing of what the console offers."""
        server: HostileServer = self.hostile_server(specs=[CHACHA])
        self.assertEqual(self.not_ready(Link.parse(server.link()), "ann", "--specs", AES), {"no-common-spec"})

    def test_peer_without(self) -> None:
        """A peer that speaks nothing of what the console offers, whoever opens."""
        bob = self.client(self.server.link(), "bob", [CHACHA])
        console = self.console(self.server.link(), "console", "--specs", AES)
        console.do("send", to=bob.id, text="hello", ref="x")
        self.assertIn(console.take("error")["code"], ("no-common-spec", "policy"))
        bob.send(console.id, "hello")
        self.assertEqual(bob.wait("cannot-open")["code"], "no-common-spec")
        self.settle()
        self.assertEqual(console.all("connected") + console.all("message") + bob.all("text"), [])

    def test_sessions(self) -> None:
        """Phase 1 with a cut offer, or with another choice: no session comes of it, and the next has the full offer."""
        cuts: list[Change] = [
            lambda inner: {**inner, "ciphers": [CHACHA], "data": {**inner["data"], "spec": CHACHA}},
            lambda inner: {**inner, "ciphers": [CHACHA]},
            lambda inner: {**inner, "ciphers": []},
            lambda inner: {**inner, "ciphers": [*DEFAULT_SPECS, "X25519MLKEM768-NONE-SHA256"]},
            lambda inner: {**inner, "ciphers": list(DEFAULT_SPECS)[::-1]},
            lambda inner: {**inner, "data": {**inner["data"], "spec": CHACHA}},
        ]
        console, _ = self.join()
        for console_opens in (False, True):
            for number, cut in enumerate(cuts):
                peer = self.client(self.server.link(), f"peer{number}{console_opens:d}")
                self.server.once(lambda inner: inner.get("phase") == 1, functools.partial(one, cut))
                self.exchange(console, peer, console_opens)
                self.server.honest()
                self.exchange(console, peer, console_opens, "honest ")
                self.nothing_lost(console, peer)
                specs = {told["spec"] for told in console.all("connected") if told["peer"]["id"] == peer.id}
                specs |= {told["spec"] for told in peer.all("opened") + peer.all("confirmed")}
                self.assertEqual(specs, {AES}, (number, console_opens))
                peer.close()
        console.check_log()
