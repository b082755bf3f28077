"""The real console of sims/2 behind a relay that is hostile for a while, and then honest again.

No wrong text is shown, none is shown twice, and no right text is lost once the relay is honest.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable

from tests.modern_hostile_case import Hostile
from tests.modern_processes import ModernConsole
from tests.peers.modern_client import ModernClient
from tests.peers.modern_hostile import changed, fields_of, flipped
from tests.peers.modern_primitives import Map

#: Phase (None for client-com) and path of every byte field between two clients.
PLACES: list[tuple[int | None, str]] = [
    *((1, f"data/{name}") for name in ("sign", "dh", "public_key", "kem_public_key", "kem_ciphertext")),
    *((2, f"data/{name}") for name in ("public_key", "kem_public_key", "kem_ciphertext", "mac")),
    *((3, "data/mac"), (4, "data/mac")),
    *((phase, f"data/message/{name}") for phase in (1, 2, 3) for name in ("header", "body")),
    *((None, f"data/{name}") for name in ("header", "body")),
]


class TamperTests(Hostile):
    """One byte of one field of one message is changed."""

    def tamper(self, console_opens: bool, places: Iterable[tuple[int | None, str]], at: int) -> None:
        """Each place with a peer of its own."""
        console, _ = self.join()
        for index, (phase, path) in enumerate(places):
            peer = self.client(self.server.link(), f"peer{index}")
            done: list[Map] = []

            def meddle(inner: Map, phase: int | None = phase, path: str = path, done: list[Map] = done) -> list[Map]:
                if phase in (2, 3) and inner.get("phase") == phase + 1 and "message" in path:
                    self.server.held.append(inner)  # so that texts go on with this phase
                    return []
                if done or inner.get("phase") != phase or path not in fields_of(inner):
                    return [inner]
                done.append(inner)
                return [changed(inner, path, lambda data: flipped(data, at))]

            self.server.meddle = meddle
            self.exchange(console, peer, console_opens)
            self.assertEqual(len(done), 1, (phase, path))
            self.server.honest()
            self.exchange(console, peer, console_opens, "honest ")
            try:
                self.nothing_lost(console, peer)
            except AssertionError as error:
                raise AssertionError(f"{phase} {path} of {done[0]['src'] == console.id}: {error}") from error
            peer.close()
        console.check_log()

    def test_console_opens_first_byte(self) -> None:
        """The console opens; the first byte of each field."""
        self.tamper(True, PLACES, 0)

    def test_peer_opens_first_byte(self) -> None:
        """The other opens; the first byte of each field."""
        self.tamper(False, PLACES, 0)

    def test_console_opens_last_byte(self) -> None:
        """The console opens; the last byte of each field."""
        self.tamper(True, PLACES, -1)

    def test_peer_opens_last_byte(self) -> None:
        """The other opens; the last byte of each field."""
        self.tamper(False, PLACES, -1)


class OrderTests(Hostile):
    """Messages are withheld, reordered, replayed, swapped and made up."""

    def test_withheld(self) -> None:
        """Everything is withheld, one direction and the other, before there is a session and later; then delivered."""
        console, peers = self.join("bob", "cay", "dan")
        for number, peer in enumerate(peers):
            for round_ in ("first ", "second "):
                self.server.withhold(lambda inner: True)
                for index in range(4):
                    self.from_console(console, peer, f"{round_}out {index}")
                    if number or round_ != "first ":
                        self.from_peer(console, peer, f"{round_}in {index}")
                self.settle()
                self.server.honest()
                self.settle()
            self.nothing_lost(console, peer)
        console.check_log()

    def test_backwards(self) -> None:
        """What was withheld is delivered backwards."""
        console, peers = self.join("bob", "cay", "dan")
        for number, peer in enumerate(peers):
            for round_ in ("first ", "second ", "third "):
                self.server.withhold(lambda inner: True)
                for index in range(4):
                    if number != 1 or round_ != "first ":
                        self.from_console(console, peer, f"{round_}out {index}")
                    if number or round_ != "first ":
                        self.from_peer(console, peer, f"{round_}in {index}")
                self.settle()
                self.server.release_backwards()
                self.settle()
            self.nothing_lost(console, peer)
        console.check_log()

    def test_replayed(self) -> None:
        """Each message comes three times, and everything once more at the end, under its own mid and another."""
        console, peers = self.join("bob", "cay")
        self.server.meddle = lambda inner: [inner, inner, {**inner, "mid": flipped(inner["mid"])}]
        for number, peer in enumerate(peers):
            for round_ in range(3):
                self.exchange(console, peer, bool(number), f"{round_} ")
        self.server.honest()
        for inner in list(self.server.originals):
            self.server.deliver(inner)
            self.server.deliver({**inner, "mid": flipped(inner["mid"], 5)})
        self.settle()
        for peer in peers:
            self.exchange(console, peer, True, "honest ")
            self.nothing_lost(console, peer)
        console.check_log()

    def test_swapped_mids(self) -> None:
        """Two messages come under one another's mid."""
        console, peers = self.join("bob", "cay")
        for number, peer in enumerate(peers):
            self.exchange(console, peer, bool(number))
            self.server.withhold(lambda inner: True)
            for index in range(2):
                self.from_peer(console, peer, f"in {index}")
                self.from_console(console, peer, f"out {index}")
            self.settle()
            held, self.server.held = self.server.held, []
            for src in (peer.id, console.id):
                one, other = (inner for inner in held if inner["src"] == src)
                self.server.deliver({**one, "mid": other["mid"]})
                self.server.deliver({**other, "mid": one["mid"]})
            self.settle()
            self.server.honest()
            self.exchange(console, peer, True, "honest ")
            self.nothing_lost(console, peer)

    def test_swapped_ends(self) -> None:
        """Messages come as somebody else's, or to somebody else, and then as they are."""
        console, (bob, eve) = self.join("bob", "eve")
        for peer in (bob, eve):
            self.exchange(console, peer, True)
        swap = {bob.id: eve.id, eve.id: bob.id}

        def swapped(inner: Map) -> list[Map]:
            self.server.held.append(inner)
            return [{**inner, **{end: swap.get(inner[end], inner[end]) for end in ("src", "dst")}}]

        self.server.meddle = swapped
        for peer in (bob, eve):
            self.from_peer(console, peer, f"in from {peer.name}")
            self.from_console(console, peer, f"out to {peer.name}")
            self.settle()
        self.server.honest()
        for peer in (bob, eve):
            self.exchange(console, peer, True, "honest ")
        for peer in (bob, eve):
            self.nothing_lost(console, peer)
        console.check_log()

    def test_swapped_parts(self) -> None:
        """Two messages come with one another's header, and then with one another's body."""
        console, peers = self.join("bob", "cay")
        for path, peer in zip(("header", "body"), peers, strict=True):
            self.exchange(console, peer, True)
            self.server.withhold(lambda inner: True)
            for index in range(2):
                self.from_console(console, peer, f"out {index}")
            self.settle()
            one, other = self.server.held
            self.server.held = []
            parts = one["data"][path], other["data"][path]
            self.server.deliver({**one, "data": {**one["data"], path: parts[1]}})
            self.server.deliver({**other, "data": {**other["data"], path: parts[0]}})
            self.server.honest()
            self.exchange(console, peer, False, "honest ")
            self.nothing_lost(console, peer)
        console.check_log()

    def test_made_up(self) -> None:
        """Messages that the relay makes up show nothing, reset nothing, and keep nothing from arriving."""
        console, (bob, eve) = self.join("bob", "eve")
        self.exchange(console, bob, True)
        self.exchange(console, eve, False)
        real = [inner for inner in self.server.originals if inner["dst"] == console.id]
        phase1 = next(inner for inner in self.server.originals if inner.get("phase") == 1 and inner["src"] == eve.id)
        for number in range(300):
            inner = real[number % len(real)]
            path = fields_of(inner)[number % len(fields_of(inner))]
            made = changed(inner, path, functools.partial(flipped, at=number, mask=1 + number % 255))
            self.server.deliver({**made, "src": eve.id, "mid": number.to_bytes(16, "big")})
        self.server.deliver({**phase1, "src": bob.id, "mid": bytes(16)})
        self.from_peer(console, bob, "after 300")
        self.settle()
        self.exchange(console, bob, False, "honest ")
        self.nothing_lost(console, bob)
        self.assertEqual(sorted(console.messages(eve.id)), ["text 0", "text 2"])
        console.check_log()

    def test_acknowledged_and_dropped(self) -> None:
        """What the relay acknowledges and never delivers is accepted, and never delivered."""
        console, (bob,) = self.join("bob")
        self.exchange(console, bob, True)
        self.server.meddle = lambda inner: []
        console.do("send", to=bob.id, text="gone", ref="gone")
        console.take("state", state="accepted", ref="gone")
        self.settle()
        self.server.honest()
        self.exchange(console, bob, True, "honest ")
        self.nothing_lost(console, bob)
        states = [told["state"] for told in console.all("state") if told.get("ref") == "gone"]
        self.assertNotIn("delivered", states)


class SeveralTests(Hostile):
    """More than one text of the same person is spoilt before the relay is honest again."""

    def spoil(self, src: str, count: int) -> None:
        """From now on spoil so many client-com of somebody."""
        spoilt: list[Map] = []

        def meddle(inner: Map) -> list[Map]:
            if inner["src"] != src or inner["type"] != "client-com" or len(spoilt) == count:
                return [inner]
            spoilt.append(inner)
            return [changed(inner, "data/body", flipped)]

        self.server.meddle = meddle

    def test_from_console(self) -> None:
        """Three texts of the console: each is sent again."""
        console, (bob,) = self.join("bob")
        self.exchange(console, bob, True)
        self.spoil(console.id, 3)
        for index in range(3):
            self.from_console(console, bob, f"spoilt {index}")
        self.settle()
        self.server.honest()
        self.exchange(console, bob, False, "honest ")
        self.nothing_lost(console, bob)

    def test_from_console_again(self) -> None:
        """A text of the console, and then the same when it is sent again: it is sent once more."""
        console, (bob,) = self.join("bob")
        self.exchange(console, bob, True)
        self.spoil(console.id, 2)
        self.from_console(console, bob, "spoilt")
        self.settle()
        self.server.honest()
        self.exchange(console, bob, False, "honest ")
        self.nothing_lost(console, bob)

    def test_to_console(self) -> None:
        """Three texts to the console: it asks for the first at once, and for no other within the hour; all are told."""
        console, (bob,) = self.join("bob")
        self.exchange(console, bob, True)
        self.spoil(bob.id, 3)
        for index in range(3):
            bob.send(console.id, f"spoilt {index}")
        self.settle()
        self.server.honest()
        self.exchange(console, bob, False, "honest ")
        console.take("message", text="spoilt 0")
        self.nothing_lost_but(console, bob, "spoilt 0")
        self.assertEqual(len(console.all("unreadable")), 3)
        self.assertEqual(len(bob.all("told-unreadable")), 1)

    def nothing_lost_but(self, console: ModernConsole, peer: ModernClient, text: str) -> None:
        """As `nothing_lost`, with one more text."""
        self.texts[peer.id].append((text, next(told["id"] for told in peer.all("receipt"))))
        self.nothing_lost(console, peer, delivered=False)
