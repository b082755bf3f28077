"""Faults of the server's own: whoever waits for an answer that cannot come is let go, and all others go on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

from twisted.trial.unittest import SynchronousTestCase

from sims import inner
from sims.crypto.handshake import Claim
from sims.errors import Code
from sims.server.interfaces import Store
from sims.server.memory import MemoryStore
from sims.server.modern_connection import State
from sims.server.registration import Admitted, Mode
from sims.test.late_store import LateStore
from sims.test.modern_builders import person
from sims.test.modern_case import seen
from sims.test.modern_network import Hand, ModernNetwork, mid_of, publishing


def fault(*_: object) -> Any:
    """Something that nobody has thought of."""
    raise RuntimeError("it cannot be")


class AdmissionTests(SynchronousTestCase):
    """Somebody is admitted, and cannot be told."""

    def check(self, store: Store) -> None:
        network = ModernNetwork(store=store, mode=Mode.INVITE)
        network.invite("good")
        network.modern.wall = fault
        hand = Hand(network, "ann")
        hand.write(hand.greet(invite="good"))
        hand.write(hand.prove())
        if isinstance(store, LateStore):
            self.assertIs(cast("Any", hand.server_end).state, State.ADMITTING)
            store.settle()
        network.settle()
        self.assertTrue(hand.closed)
        self.assertIs(cast("Any", hand.server_end).state, State.CLOSED)
        self.assertEqual([str(error) for error in network.modern.failures], ["it cannot be"])
        self.assertEqual((len(network.modern.connections), len(network.modern_relay), network.spent), (0, 0, 1))
        network.modern.wall = network.wall
        again = Hand(network, "ann")
        again.write(again.greet())
        again.write(again.prove())
        if isinstance(store, LateStore):
            store.settle()
            network.settle()
        self.assertIsNotNone(again.hop)  # the account is there, and so is its invitation spent

    def test_by_a_store_that_answers_at_once(self) -> None:
        self.check(MemoryStore())

    def test_by_a_store_that_answers_later(self) -> None:
        self.check(LateStore())

    def test_the_invitation_is_spent(self) -> None:
        """Those who make a new one hear of it, whatever becomes of the answer."""
        network = ModernNetwork(mode=Mode.INVITE)
        network.invite("good")
        told: list[Admitted] = []

        def done(result: Any) -> None:
            told.append(result)
            fault()

        claim = Claim(person("ann").public, "ann", "good", None)
        self.assertRaises(RuntimeError, network.modern_relay.admit, claim, done)
        self.assertEqual((told, network.spent), ([Admitted("ann", None, True)], 1))


class StoreTests(SynchronousTestCase):
    """The store has a fault with what one client asks for."""

    def setUp(self) -> None:
        self.store = LateStore()
        self.network = ModernNetwork(store=self.store, directory=True)
        self.ann, self.bob = self.connect("ann"), self.connect("bob")
        self.bob.publish()
        self.settle()
        self.bob.came.clear()

    def settle(self) -> None:
        self.store.settle()
        self.network.settle()

    def say(self, hand: Hand, message: inner.Inner) -> None:
        hand.say(message)
        self.settle()

    def connect(self, name: str) -> Hand:
        hand = Hand(self.network, name)
        hand.write(hand.greet())
        hand.write(hand.prove())
        self.settle()
        return hand

    def test_what_is_asked_for(self) -> None:
        """Whoever has asked is told, and let go; the other goes on; what was asked for can be asked for again."""
        bundle, keys = self.ann.publish()
        asked: dict[str, inner.Inner] = {
            "find_name": inner.Fetch(mid=mid_of(5), data=inner.FetchData(name="bob")),
            "bundle": inner.Fetch(mid=mid_of(5), data=inner.FetchData(id=self.bob.id)),
            "take": inner.Fetch(mid=mid_of(5), data=inner.FetchData(id=self.bob.id)),
            "publish": publishing(5, bundle, keys),
            "everyone": inner.ListRequest(mid=mid_of(5)),
            "facts": inner.AboutRequest(mid=mid_of(5)),
            "delete": inner.Delete(mid=mid_of(5)),
        }
        for name, message in asked.items():
            with fails(self.store.stored, name):
                self.say(self.ann, message)
            self.assertEqual(seen(self.ann), (True, [], ["internal"]), name)
            self.ann = self.connect("ann")
            self.say(self.ann, message)
            self.assertEqual((len(self.ann.came), self.ann.errors), (1, []), name)
        self.assertFalse(self.bob.closed)

    def test_what_waits(self) -> None:
        """Whoever cannot be given it is let go, and given it on the next connection."""
        self.bob.stream.loseConnection()
        self.settle()
        self.say(self.ann, self.ann.text(self.bob, 1))
        with fails(self.store.stored, "waiting"):
            self.bob = self.connect("bob")
        self.assertEqual(seen(self.bob), (True, [], ["internal"]))
        self.bob = self.connect("bob")
        self.assertEqual(self.bob.numbers, [1])

    def test_who_is_let_in(self) -> None:
        """Nobody is by a fault; and they are told."""
        for name in ("connected", "register"):
            with fails(self.store.stored, name):
                eve = self.connect("eve")
            self.assertEqual((eve.refused, eve.closed), (Code.INTERNAL, True), name)
        self.assertIsNotNone(self.connect("eve").hop)


@contextmanager
def fails(store: MemoryStore, name: str) -> Iterator[None]:
    """A store that has a fault whenever it is asked for this."""
    setattr(store, name, fault)
    try:
        yield
    finally:
        delattr(store, name)
