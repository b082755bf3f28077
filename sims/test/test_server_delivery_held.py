"""What delivery holds in memory, and what becomes of it where nothing can be kept."""

from __future__ import annotations

from sims.errors import Code
from sims.server.delivery import ACK_WAIT, FULL_WAIT, HELD, KNOWN
from sims.server.interfaces import Done, Kept, Letter, Quota
from sims.server.limits import Limits
from sims.server.memory import MemoryStore
from sims.test.delivery_case import DeliveryTestCase, letter
from sims.test.store_contract import ANN, BOB, EVE


class FullDiskStore(MemoryStore):
    """A store whose disk is full, until it isn't; it notes who is said to have written to whom."""

    full = True

    def __init__(self) -> None:
        super().__init__()
        self.noted: list[tuple[str, str]] = []

    def keep(self, letter: Letter, quota: Quota, now: int, done: Done[Kept]) -> None:
        if self.full:
            done(Kept.UNAVAILABLE)
        else:
            super().keep(letter, quota, now, done)

    def written(self, owner: str, to: str, done: Done[None]) -> None:
        self.noted.append((owner, to))
        super().written(owner, to, done)


class FullDiskTests(DeliveryTestCase):
    """A store that can keep nothing for now."""

    def setUp(self) -> None:
        super().setUp()
        self.store = self.disk = FullDiskStore()
        self.begin(self.store)

    def test_away(self) -> None:
        """The sender is told to try later, and may."""
        self.send(1)
        self.assertEqual((self.refused, self.accepted), ([("a", 1, Code.UNAVAILABLE)], []))
        self.disk.full = False
        self.send(1)
        self.assertEqual((len(self.refused), self.accepted, self.kept()), (1, [("a", 1)], [1]))

    def test_here(self) -> None:
        """What was given goes on; what is not acknowledged is refused in its time, or kept when that is possible."""
        bob = self.join()
        self.send(1, 2)
        self.wait(ACK_WAIT)
        self.acknowledge(bob, 1)
        self.assertEqual((self.accepted, self.refused), ([("a", 1)], []))
        self.disk.full = False
        self.wait(ACK_WAIT)
        self.assertEqual((self.accepted, self.kept()), ([("a", 1), ("a", 2)], [2]))
        self.disk.full = True
        self.send(3)
        while self.now < 2 * FULL_WAIT:
            self.wait(ACK_WAIT)
        self.assertEqual(self.refused, [("a", 3, Code.UNAVAILABLE)])

    def test_who_has_written(self) -> None:
        """It is noted once a message was given or kept; whoever was refused has written to nobody."""
        self.send(1)
        self.send(2, dst="z" * 32)
        self.assertEqual(self.disk.noted, [])
        self.disk.full = False
        self.send(1)
        self.assertEqual(self.disk.noted, [(ANN, BOB)])
        self.disk.full = True
        self.join()
        self.disk.noted.clear()
        self.send(3, src=EVE)
        self.assertEqual(self.disk.noted, [(EVE, BOB)])  # given

    def test_what_waited(self) -> None:
        """It was noted when it was kept; to give it costs the store nothing more."""
        self.disk.full = False
        self.send(*range(20))
        self.disk.noted.clear()
        self.assertEqual((self.join().numbers, self.disk.noted), ([*range(20)], []))

    def test_who_has_written_is_noted_once(self) -> None:
        """While the sender is here; and again when there are more than are remembered, or somebody was deleted."""
        self.disk.full = False
        ann = self.join(ANN)
        self.send(1, 2)
        self.assertEqual(self.disk.noted, [(ANN, BOB)])
        self.delivery.forget(BOB)
        self.send(3)
        self.assertEqual(self.disk.noted, [(ANN, BOB)] * 2)
        self.delivery.leave(ann)
        ann = self.join(ANN)
        for number in range(KNOWN):
            self.delivery._note_written(ANN, f"{number}")
        self.send(4)
        self.assertEqual(self.disk.noted[-1], (ANN, BOB))
        self.assertEqual(len(self.delivery._desks[ANN].written), 1)


class HeldTests(DeliveryTestCase):
    """What was given and not acknowledged takes little memory, however much it is."""

    limits = Limits().with_limit("mailbox=none")
    SIZE = 64_000
    AT_ONCE = HELD // (SIZE + 10)

    def held(self) -> int:
        """The bytes of messages in memory, of all that anybody may still ask for."""
        flights = {id(one): one for desk in self.delivery._desks.values() for one in desk.flights.values()}
        flights |= {id(one): one for _, one in self.delivery._due}
        return sum(len(one.letter.inner) for one in flights.values())

    def flood(self, *numbers: int) -> None:
        for number in numbers:
            self.delivery.send(letter(number, size=self.SIZE))
            self.assertEqual(self.counted(), self.held())
            self.assertLessEqual(self.held(), HELD)

    def counted(self) -> int:
        return self.delivery._desks[BOB].held

    def test_as_much_as_is_not_kept(self) -> None:
        """So much is given without the store; then all goes into it, and comes all the same, in order."""
        bob = self.join()
        self.flood(*range(self.AT_ONCE))
        self.assertEqual((self.kept(), bob.numbers), ([], [*range(self.AT_ONCE)]))
        self.flood(*range(self.AT_ONCE, 100))
        self.assertEqual((self.kept(), bob.numbers, len(self.accepted)), ([*range(100)], [*range(100)], 100))
        self.assertEqual(self.held(), 0)
        self.acknowledge(bob, *range(100))
        self.assertEqual((self.kept(), self.refused), ([], []))
        self.flood(100)
        self.acknowledge(bob, 100)
        self.assertEqual((self.kept(), self.held(), self.counted()), ([], 0, 0))  # at once again, and nothing stays

    def test_what_waited(self) -> None:
        """Of what comes from the mailbox nothing is held."""
        for number in range(100):
            self.delivery.send(letter(number, size=self.SIZE))
        self.assertEqual((self.join().numbers, self.held(), self.counted()), ([*range(100)], 0, 0))

    def test_kept_in_its_time(self) -> None:
        bob = self.join()
        self.flood(1, 2)
        self.wait(ACK_WAIT)
        self.assertEqual((self.held(), self.counted(), self.kept()), (0, 0, [1, 2]))
        self.acknowledge(bob, 1, 2)
        self.assertEqual((self.counted(), self.kept()), (0, []))

    def test_gone(self) -> None:
        """What is kept when its reader goes is whole."""
        bob = self.join()
        self.flood(1, 2)
        self.delivery.leave(bob)
        found: list[Letter] = []
        self.store.waiting(BOB, 0, 9, 0, lambda items: found.extend(one for _, one in items))
        self.assertEqual(found, [letter(number, size=self.SIZE) for number in (1, 2)])


class HeldAndFullTests(HeldTests):
    """The same where the mailbox takes nothing."""

    limits = Limits().with_limit("mailbox=0/0/1/0/0")

    def test_as_much_as_is_not_kept(self) -> None:
        """More than may be held is refused; what is refused in its time is held no longer, and is given whole again."""
        bob = self.join()
        self.flood(*range(self.AT_ONCE + 1))
        self.assertEqual(self.refused, [("a", self.AT_ONCE, Code.MAILBOX_FULL)])
        while len(self.refused) <= self.AT_ONCE:
            self.wait(ACK_WAIT)
        self.assertEqual((self.held(), self.counted()), (0, 0))
        self.flood(0)  # it is sent again: it is tried again, and then it goes into the mailbox as it is
        self.assertEqual(self.held(), self.SIZE + len(b"a 0"))
        self.acknowledge(bob, *range(self.AT_ONCE))
        self.assertEqual((self.held(), self.counted(), len(self.accepted)), (0, 0, self.AT_ONCE))

    def test_sent_again(self) -> None:
        """Of much that was refused and is sent again, as much is tried for a while as may be held; the rest once."""
        bob = self.join()
        for start in range(0, 3 * self.AT_ONCE, self.AT_ONCE):
            self.flood(*range(start, start + self.AT_ONCE))
            while len(self.refused) < start + self.AT_ONCE:
                self.wait(ACK_WAIT)
        for _ in range(2):
            self.refused.clear()
            self.flood(*range(3 * self.AT_ONCE))
            self.assertEqual([number for _, number, _ in self.refused], [*range(self.AT_ONCE, 3 * self.AT_ONCE)])
        self.acknowledge(bob, *range(3 * self.AT_ONCE))
        self.assertEqual(sorted(self.accepted), [("a", number) for number in range(3 * self.AT_ONCE)])
        self.assertEqual((self.held(), self.counted()), (0, 0))

    def test_what_waited(self) -> None:
        self.delivery.send(letter(1, size=self.SIZE))
        self.assertEqual(self.join().numbers, [])

    def test_kept_in_its_time(self) -> None:
        bob = self.join()
        self.flood(1, 2)
        self.wait(ACK_WAIT)
        self.assertEqual(self.held(), 2 * (self.SIZE + len(b"a 1")))
        self.acknowledge(bob, 1, 2)
        self.assertEqual((self.held(), self.counted()), (0, 0))

    def test_gone(self) -> None:
        bob = self.join()
        self.flood(1, 2)
        self.delivery.leave(bob)
        self.assertEqual([number for _, number, _ in self.refused], [1, 2])
