"""What is owed to whom: delivery, with a store that answers at once and one that takes its time."""

from __future__ import annotations

from collections.abc import Iterable
from random import Random

from sims.errors import Code
from sims.server import delivery
from sims.server.delivery import ACK_WAIT, FULL_WAIT, PULL
from sims.server.limits import Limits
from sims.test.delivery_case import DeliveryTestCase, Reader, letter
from sims.test.late_store import LateStore
from sims.test.store_contract import ANN, BOB, EVE


class HereTests(DeliveryTestCase):
    """To somebody who is here."""

    def test_at_once(self) -> None:
        """Given at once; accepted once it is acknowledged; the store never sees it."""
        bob = self.join()
        self.send(1)
        self.assertEqual((bob.numbers, self.accepted, self.kept()), ([1], [], []))
        self.acknowledge(bob, 1)
        self.assertEqual(self.accepted, [("a", 1)])
        self.wait(10)
        self.assertEqual((self.kept(), self.accepted), ([], [("a", 1)]))

    def test_not_acknowledged_in_time(self) -> None:
        """Then it is kept, and accepted; acknowledged later, it is gone."""
        bob = self.join()
        self.send(1)
        self.assertEqual(self.delivery.due, ACK_WAIT)
        self.wait(ACK_WAIT - 0.01)
        self.assertEqual((self.kept(), self.accepted), ([], []))
        self.wait(0.01)
        self.assertEqual((self.kept(), self.accepted), ([1], [("a", 1)]))
        self.assertIsNone(self.delivery.due)
        self.acknowledge(bob, 1)
        self.assertEqual((self.kept(), self.accepted, bob.numbers), ([], [("a", 1)], [1]))

    def test_gone(self) -> None:
        """What is not acknowledged when the connection ends is kept at once, in order, and given on the next."""
        bob = self.join()
        self.send(1, 2)
        self.send(3, src=EVE)
        self.acknowledge(bob, 2)
        self.delivery.leave(bob)
        self.assertEqual((self.kept(), self.accepted), ([1, 3], [("a", 2), ("a", 1), ("e", 3)]))
        self.wait(10)
        self.assertEqual(self.kept(), [1, 3])
        again = self.join()
        self.assertEqual((again.numbers, bob.numbers), ([1, 3], [1, 2, 3]))
        self.acknowledge(again, 1, 3)
        self.assertEqual(self.kept(), [])

    def test_nothing_overtakes_what_waits(self) -> None:
        """While something older waits for somebody, everything goes through the mailbox."""
        self.send(1)
        bob = self.join()
        self.send(2)
        self.assertEqual(bob.numbers, [1, 2])
        self.acknowledge(bob, 1, 2)
        self.send(3)
        self.assertEqual((bob.numbers, self.kept()), ([1, 2, 3], []))

    def test_somebody_elses_acknowledgement(self) -> None:
        """Only the connection that has a message can acknowledge it; of one that has left, nothing counts."""
        bob, eve = self.join(), self.join(EVE)
        self.send(1)
        self.acknowledge(eve, 1)
        self.acknowledge(Reader(BOB), 1)
        self.acknowledge(bob, 2)
        self.assertEqual(self.accepted, [])
        self.delivery.leave(bob)
        self.acknowledge(bob, 1)
        self.delivery.leave(bob)
        self.assertEqual(self.kept(), [1])

    def test_to_oneself(self) -> None:
        bob = self.join()
        self.send(1, src=BOB)
        self.acknowledge(bob, 1)
        self.assertEqual((bob.given, self.accepted), ([("b", 1)], [("b", 1)]))


class AgainTests(DeliveryTestCase):
    """A message that is sent again, under the same mid."""

    def test_while_it_is_under_way(self) -> None:
        bob = self.join()
        self.send(1, 1)
        self.assertEqual((bob.numbers, self.accepted), ([1], []))
        self.acknowledge(bob, 1)
        self.assertEqual(self.accepted, [("a", 1)])

    def test_after_it_was_acknowledged(self) -> None:
        bob = self.join()
        self.send(1)
        self.acknowledge(bob, 1)
        self.send(1)
        self.delivery.leave(bob)
        self.send(1)
        self.assertEqual((bob.numbers, self.accepted, self.kept()), ([1], [("a", 1)] * 3, []))

    def test_after_it_was_kept(self) -> None:
        self.send(1, 1)
        bob = self.join()
        self.send(1)
        self.acknowledge(bob, 1)
        self.send(1)
        self.assertEqual((bob.numbers, self.accepted, self.kept()), ([1], [("a", 1)] * 4, []))

    def test_same_mid_of_another(self) -> None:
        """Somebody else's mid that is the same is another message; it waits until the first is acknowledged."""
        bob = self.join()
        self.send(1)
        self.send(1, 2, src=EVE)
        self.assertEqual(bob.given, [("a", 1)])
        self.assertEqual(self.accepted, [("a", 1), ("e", 1), ("e", 2)])
        self.acknowledge(bob, 1)
        self.assertEqual(bob.given, [("a", 1), ("e", 1), ("e", 2)])
        self.acknowledge(bob, 1, 2)
        self.assertEqual((self.kept(), len(self.accepted)), ([], 3))

    def test_memory_is_bounded(self) -> None:
        self.assertEqual(delivery.REMEMBERED, 20_000)
        self.patch(delivery, "REMEMBERED", 500)
        bob = self.join()
        for number in range(502):
            self.send(number)
            self.acknowledge(bob, number)
        self.assertEqual(len(self.delivery._remembered), 500)
        self.send(501)
        self.assertEqual(len(bob.given), 502)


class RefusedTests(DeliveryTestCase):
    """What cannot be delivered."""

    limits = Limits().with_limit("mailbox=40/4M/30/2")

    def test_nobody(self) -> None:
        self.send(1, dst="z" * 32)
        self.assertEqual(self.refused, [("a", 1, Code.UNKNOWN_RECIPIENT)])

    def test_full(self) -> None:
        self.send(1, 2, 3)
        self.send(4, src=EVE)
        self.assertEqual(self.refused, [("a", 3, Code.MAILBOX_FULL)])
        self.assertEqual((self.kept(), len(self.accepted)), ([1, 2, 4], 3))

    def test_answered(self) -> None:
        """Who was written to is no stranger."""
        self.send(9, src=BOB, dst=ANN)
        self.send(*range(11))
        self.assertEqual(self.refused, [("a", 10, Code.MAILBOX_FULL)])

    def test_full_while_under_way(self) -> None:
        """What was given is not refused while its recipient may have it: that is for him to say, for a while."""
        bob = self.join()
        self.send(1, 2, 3, 4)
        while self.now < FULL_WAIT:
            self.wait(ACK_WAIT)
            self.assertEqual((self.refused, self.kept()), ([], [1, 2]))
        self.acknowledge(bob, 1, 2, 3)
        self.assertEqual(self.accepted, [("a", 1), ("a", 2), ("a", 3)])
        self.send(3)
        self.assertEqual((bob.numbers, self.accepted[3:]), ([1, 2, 3, 4], [("a", 3)]))
        self.assertEqual(self.refused, [])

    def test_full_and_never_acknowledged(self) -> None:
        """Its sender is told in the end, or when the recipient goes."""
        bob = self.join()
        self.send(1, 2, 3)
        while self.now < FULL_WAIT:
            self.wait(ACK_WAIT)
        self.assertEqual(self.refused, [])
        self.wait(ACK_WAIT)
        self.assertEqual(self.refused, [("a", 3, Code.MAILBOX_FULL)])
        self.assertIsNone(self.delivery.due)
        self.send(3)  # once more: it is tried once more
        self.assertEqual((len(self.refused), self.delivery.due), (1, self.now + ACK_WAIT))
        self.acknowledge(bob, 3)
        self.assertEqual(self.accepted[-1], ("a", 3))

    def test_refused_and_acknowledged_after_all(self) -> None:
        bob = self.join()
        self.send(1, 2, 3)
        while not self.refused:
            self.wait(ACK_WAIT)
        self.acknowledge(bob, 3)
        self.assertEqual(self.accepted[-1], ("a", 3))

    def test_what_others_send_costs_no_time(self) -> None:
        """A message that was given has its time, however much comes meanwhile."""
        bob = self.join()
        self.send(1, 2, 3)
        self.wait(ACK_WAIT)
        for number in range(300):
            self.delivery.send(letter(number, EVE))
        self.assertNotIn(("a", 3, Code.MAILBOX_FULL), self.refused)
        self.acknowledge(bob, 3)
        self.assertEqual(self.accepted[-1], ("a", 3))

    def test_full_and_gone(self) -> None:
        bob = self.join()
        self.send(1, 2, 3)
        self.wait(ACK_WAIT)
        self.delivery.leave(bob)
        self.assertEqual((self.refused, self.kept()), ([("a", 3, Code.MAILBOX_FULL)], [1, 2]))
        self.wait(ACK_WAIT)
        self.assertEqual(len(self.refused), 1)

    def test_a_burst_to_somebody_who_is_here(self) -> None:
        """More than the mailbox would take of one sender, and more than is given at once: none is given and refused."""
        bob = self.join()
        self.send(*range(60))
        self.acknowledge(bob, *bob.numbers)
        self.assertEqual(bob.numbers, [*range(60)])
        self.assertEqual((self.refused, len(self.accepted)), ([], 60))

    def test_a_flood_of_a_stranger(self) -> None:
        """300 messages that nobody acknowledges: the next good one of somebody else comes all the same."""
        bob = self.join()
        for number in range(300):
            self.delivery.send(letter(number, EVE))
        self.wait(ACK_WAIT)
        self.send(1000)
        self.assertIn(("e", 0), bob.given)
        self.acknowledge(bob, *bob.numbers)
        self.assertIn(("a", 1000), bob.given)
        self.delivery.leave(bob)
        self.assertLessEqual(len(self.kept()), 3)


class WindowTests(DeliveryTestCase):
    """To somebody who is slow."""

    limits = Limits().with_limit("unacknowledged=1000/4").with_limit("mailbox=10000/4M/30/none".replace("none", "9999"))

    def test_messages(self) -> None:
        """So many are under way at once; the rest waits in the mailbox, and comes in order."""
        bob = self.join()
        self.send(*range(10))
        self.assertEqual((bob.numbers, self.kept()), ([*range(4)], [*range(10)]))  # in their order
        self.assertEqual(len(self.accepted), 10)
        self.acknowledge(bob, 0, 1)
        self.assertEqual(bob.numbers, [*range(6)])
        self.acknowledge(bob, *range(2, 10))
        self.assertEqual(bob.numbers, [*range(10)])
        self.acknowledge(bob, *range(6, 10))
        self.assertEqual((self.kept(), sorted(number for _, number in self.accepted)), ([], [*range(10)]))

    def test_bytes(self) -> None:
        """While so many bytes have not left, nothing more is given; when they have, it goes on."""
        bob = self.join()
        bob.unsent = 1000
        self.send(1, 2)
        self.assertEqual((bob.numbers, self.kept()), ([], [1, 2]))
        bob.unsent = 999
        self.delivery.drained(bob)
        self.assertEqual(bob.numbers, [1, 2])
        self.delivery.leave(bob)
        self.delivery.drained(bob)

    def test_bytes_in_the_middle(self) -> None:
        self.send(1, 2, 3)
        bob = Reader()
        deliver = bob.deliver

        def full(inner: bytes) -> None:
            deliver(inner)
            bob.unsent = 1000

        bob.deliver = full  # type: ignore[method-assign]
        self.delivery.join(bob)
        self.assertEqual(bob.numbers, [1])
        bob.unsent = 0
        self.delivery.drained(bob)
        self.assertEqual(bob.numbers, [1, 2])


class ManyTests(DeliveryTestCase):
    limits = Limits().with_limit("mailbox=none").with_limit("unacknowledged=none")

    def test_a_large_mailbox(self) -> None:
        """However much waits, it is given page by page."""
        count = 20 * PULL + 1
        self.send(*range(count))
        self.assertEqual(self.join().numbers, [*range(count)])


class RandomTests(DeliveryTestCase):
    """Senders, a reader who comes and goes, and a store that takes its time, in any order.

    What was accepted comes; on one connection nothing comes twice; what is new comes in the order of its sender.

    :cvar seeds: how many courses; more in ``tests/test_random_whole.py``.
    """

    seeds = 75
    limits = Limits().with_limit("mailbox=none").with_limit("unacknowledged=500/5")

    def setUp(self) -> None:
        super().setUp()
        self.late = LateStore()
        self.store = self.late.stored

    def test_acknowledged_while_it_is_looked_up(self) -> None:
        """What is acknowledged while the mailbox's answer that names it is under way is not given again."""
        self.begin(self.late)
        bob = self.join()
        self.late.settle()
        self.send(1)
        self.wait(ACK_WAIT)
        bob.unsent = 500
        self.send(2)
        self.late.settle()
        bob.unsent = 0
        self.delivery.drained(bob)
        self.late.work()
        self.acknowledge(bob, 1)
        self.late.settle()
        self.assertEqual(bob.numbers, [1, 2])

    def test_any_order(self) -> None:
        for seed in range(self.seeds):
            self.late = LateStore()
            self.store = self.late.stored
            self.begin(self.late)
            self.run_one(Random(seed), f"seed {seed}")

    def run_one(self, random: Random, name: str) -> None:
        readers: list[Reader] = []
        acknowledged: set[tuple[str, int]] = set()
        sent: dict[str, int] = {ANN: 0, EVE: 0}
        here: Reader | None = None
        present = random.random()
        for _ in range(random.randrange(20, 200)):
            match random.randrange(10):
                case 0 | 1 | 2:
                    src = random.choice([ANN, EVE])
                    sent[src] += 1
                    self.send(sent[src], src=src)
                case 3:
                    src = random.choice([ANN, EVE])
                    if sent[src]:
                        self.send(random.randrange(1, sent[src] + 1), src=src)
                case 4:
                    self.late.work()
                case 5 | 6:
                    self.late.answer()
                case 7:
                    if here is not None and random.random() < 0.4:
                        self.delivery.leave(here)
                        here = None
                    if here is None and random.random() < present:
                        here = self.join()
                        readers.append(here)
                case 8:
                    if here is not None:
                        self.take(here, acknowledged, random)
                case 9:
                    self.wait(random.choice([0.1, ACK_WAIT]))
        if here is not None:
            self.delivery.leave(here)
        here = self.join()
        readers.append(here)
        for _ in range(200):
            self.late.settle()
            self.take(here, acknowledged)
        self.check(readers, acknowledged, sent, name)

    def take(self, reader: Reader, acknowledged: set[tuple[str, int]], random: Random | None = None) -> None:
        """Acknowledge what has come, or some of it."""
        for sender, number in [*reader.given]:
            if random is None or random.random() < 0.5:
                if (sender, number) not in acknowledged:
                    self.acknowledge(reader, number)
                acknowledged.add((sender, number))

    def check(
        self, readers: Iterable[Reader], acknowledged: set[tuple[str, int]], sent: dict[str, int], name: str
    ) -> None:
        everything = {(src[:1], number) for src, count in sent.items() for number in range(1, count + 1)}
        self.assertEqual(self.refused, [], name)
        self.assertEqual({*self.accepted}, everything, name)
        seen = {one for reader in readers for one in reader.given}
        self.assertEqual(seen, everything, name)
        for reader in readers:
            self.assertEqual(len(reader.given), len({*reader.given}), f"{name}: twice on one connection")
            for sender in "ae":
                numbers = [number for src, number in reader.given if src == sender]
                self.assertEqual(numbers, sorted(numbers), f"{name}: out of order")
