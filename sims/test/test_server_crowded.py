"""More is asked of the store than it does, because its thread is held up: what waits is bounded, and so is memory."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from sims import inner
from sims.server import sqlite_requests
from sims.server.interfaces import Kept
from sims.server.memory import MemoryStore
from sims.server.modern_relay import CROWDED
from sims.server.sqlite_requests import EACH, OF_A_CONNECTION
from sims.test.modern_network import Hand, ModernNetwork, mid_of
from sims.test.modern_relay_case import Member, RelayTestCase
from sims.test.small_disk import SmallDiskStore
from sims.test.store_contract import ANN, BOB, EVE, NOW, QUOTA, account, bundle, letter


class RelayTests(RelayTestCase):
    """Clients of a server whose store does nothing, until :meth:`settle`."""

    def make_store(self) -> Any:
        self.patch(sqlite_requests, "MAX_QUEUED", 20 * EACH)
        return SmallDiskStore(lambda: self.now)

    def settle(self) -> None:
        self.store.settle()

    def setUp(self) -> None:
        super().setUp()
        self.eve = self.join("eve")
        self.relay.leave(self.eve)

    def receive(self, member: Member, message: inner.Inner) -> float:
        return self.relay.receive(member, inner.encode(message))

    def test_nobody_is_read(self) -> None:
        """From when twice as much waits as is taken, whatever one says; as soon as that is done, all goes on."""
        pauses = [self.receive(self.ann, self.text(self.ann.id, self.eve.id, number)) for number in range(100)]
        free = pauses.index(CROWDED)
        self.assertEqual(pauses, [0.0] * free + [CROWDED] * (100 - free))
        self.assertTrue(20 < free < 40, free)
        nothing = inner.Ack(data=inner.AckData(mids=(mid_of(9),)))
        for pause in (self.receive(self.bob, nothing), self.relay.charge(self.bob, 1)):
            self.assertEqual(pause, CROWDED)
        self.settle()
        self.assertEqual(self.receive(self.ann, self.text(self.ann.id, self.eve.id, 100)), 0.0)
        self.assertEqual(self.relay.charge(self.bob, 1), 0.0)
        refused = [mid for code, mid, _ in self.ann.refusals() if code == "unavailable"]
        accepted = self.flush(self.ann)
        self.assertEqual(sorted(refused + accepted), [mid_of(number) for number in range(101)])
        self.assertTrue(accepted)

    def test_a_longer_pause_stays(self) -> None:
        """Who has done too much besides waits for that."""
        for number in range(50):
            self.receive(self.ann, self.text(self.ann.id, self.eve.id, number))
        self.assertGreater(self.relay.charge(self.ann, 500), 2 * CROWDED)


class ConnectionTests(SynchronousTestCase):
    """What a client sends meanwhile is not read."""

    def test_as_long_as_it_takes(self) -> None:
        """Not once in a while either: what waits would grow for as long as the store is held up."""
        store = MemoryStore()
        network = ModernNetwork(store=store)
        ann, bob = Hand(network, "ann").connect(), Hand(network, "bob").connect()
        store.crowded = True
        for number in range(5):
            ann.send(bob, number)
        network.run_for(100 * CROWDED)
        self.assertEqual(bob.numbers, [0])
        store.crowded = False
        network.run_for(CROWDED)
        self.assertEqual((bob.numbers, ann.closed), ([0, 1, 2, 3, 4], False))

    def test_nobody_comes(self) -> None:
        """Nor is anybody let begin a handshake: each would ask the store, and wait in vain. It counts for nothing."""
        store = MemoryStore()
        network = ModernNetwork(store=store)
        store.crowded = True
        self.assertIsNone(network.modern.buildProtocol(None))
        store.crowded = False
        self.assertTrue(Hand(network, "eve").connect().id)
        self.assertEqual(len(network.modern.connections), 1)


class StoreTests(SynchronousTestCase):
    """What waits is counted, and whatever has become of it, it does not wait any more."""

    def setUp(self) -> None:
        self.store = SmallDiskStore(lambda: 0.0)
        for number in (ANN, BOB):
            self.store.register(account(number, number[:3]), None, self.done)
        self.store.settle()

    def done(self, _: object) -> None:
        """Nobody wants to know."""

    def test_everything_counts(self) -> None:
        """A message, whether it is kept or refused; what else is asked for; prekeys by their length."""
        self.patch(sqlite_requests, "MAX_QUEUED", 29_672 + OF_A_CONNECTION)  # twice that is all of the following
        kept: list[Kept] = []
        store = self.store
        asked = [
            (EACH + 100, lambda: store.keep(letter(1), QUOTA, NOW, kept.append)),
            (EACH + 50_000, lambda: store.keep(letter(2, BOB, ANN, 50_000), QUOTA, NOW, kept.append)),  # too much
            (EACH, lambda: store.find(ANN, self.done)),
            (OF_A_CONNECTION, lambda: store.connected(ANN, None, self.done)),
            (OF_A_CONNECTION, lambda: store.register(account(EVE, "eve"), None, self.done)),
            (EACH, lambda: store.acknowledge(BOB, [(ANN, letter(1).mid)], self.done)),
            (EACH, lambda: store.written(ANN, BOB, self.done)),
            (EACH + 3100, lambda: store.publish(ANN, bundle(1)._replace(raw=bytes(3000)), [bytes(50)] * 2, self.done)),
        ]
        for size, ask in asked:
            before = store._put
            ask()
            self.assertEqual(store._put - before, size)
        self.assertEqual(store._put - store._taken, sum(size for size, _ in asked))
        self.assertFalse(store.crowded)
        store.find(ANN, self.done)
        self.assertTrue(store.crowded)
        store.settle()
        self.assertEqual((store._put - store._taken, store.crowded), (0, False))
        self.assertEqual(kept, [Kept.STORED, Kept.UNAVAILABLE])

    def test_a_fault(self) -> None:
        """What cannot be done does not wait any more either, nor what had to be done anew for that."""
        self.store.find(ANN, self.done)
        self.store._ask("no_such_thing", self.done, b"")
        self.store.keep(letter(1), QUOTA, NOW, self.done)
        self.assertGreater(self.store._put, self.store._taken)
        self.store.settle()
        self.assertEqual((self.store._put - self.store._taken, len(self.store.problems)), (0, 1))
