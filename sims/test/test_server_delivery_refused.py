"""A disk that is full for a while: whoever is refused something is refused what is behind it, until it comes again."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from sims.errors import Code
from sims.server import refusals
from sims.server.delivery import ACK_WAIT, FULL_WAIT
from sims.server.limits import Limits
from sims.server.refusals import BEHIND, BEHIND_MOST, MESSAGES, RECIPIENTS, Refusals
from sims.server.sqlite import SHORT
from sims.test.delivery_case import DeliveryTestCase
from sims.test.small_disk import SmallDiskStore
from sims.test.store_contract import ANN, BOB, EVE


class RefusalsTests(SynchronousTestCase):
    """What is noted."""

    def setUp(self) -> None:
        self.refusals = Refusals()

    def test_until_one_comes_again(self) -> None:
        """Any of them: then nothing is noted any more. Other recipients are not concerned."""
        for again in (b"1", b"2"):
            self.refusals.add("bob", b"1", 0.0)
            self.refusals.add("bob", b"2", 0.0)
            self.assertTrue(self.refusals.stop("bob", b"3", 1.0))
            self.assertFalse(self.refusals.stop("eve", b"3", 1.0))
            self.assertFalse(self.refusals.stop("bob", again, 1.0))
            self.assertFalse(self.refusals.stop("bob", b"3", 1.0))

    def test_until_all_are_accepted(self) -> None:
        self.refusals.add("bob", b"1", 0.0)
        self.refusals.add("bob", b"2", 0.0)
        self.refusals.accept("bob", b"1")
        self.refusals.accept("bob", b"3")
        self.refusals.accept("eve", b"2")
        self.assertTrue(self.refusals.stop("bob", b"3", 1.0))
        self.refusals.accept("bob", b"2")
        self.assertFalse(self.refusals.stop("bob", b"3", 1.0))

    def test_what_is_on_the_way_behind_many(self) -> None:
        """It does not pass for the one that comes again when those before it come, though the oldest are accepted."""
        for number in range(150):
            self.refusals.add("bob", b"%d" % number, 0.0)
        for number in range(100):
            self.refusals.accept("bob", b"%d" % number)
        self.assertTrue(self.refusals.stop("bob", b"150", 1.0))
        self.refusals.add("bob", b"150", 1.0)
        self.assertEqual([self.refusals.stop("bob", b"%d" % number, 6.0) for number in range(100, 151)], [False] * 51)

    def test_more_than_are_noted(self) -> None:
        """When all that are noted are accepted, the others still come before what is new, each once more."""
        for number in range(MESSAGES + 2):
            self.refusals.add("bob", b"%d" % number, 0.0)
        for number in range(MESSAGES):
            self.refusals.accept("bob", b"%d" % number)
        again = b"%d" % MESSAGES
        self.assertTrue(self.refusals.stop("bob", b"new", 1.0))
        self.assertTrue(self.refusals.stop("bob", again, 1.0))
        self.refusals.add("bob", again, 1.0)
        self.assertTrue(self.refusals.stop("bob", b"new", 2.0))
        self.assertFalse(self.refusals.stop("bob", again, 2.0))
        self.assertFalse(self.refusals.stop("bob", b"new", 2.0))

    def test_as_many_as_are_noted(self) -> None:
        """Who is refused one of them twice is owed no more of them for that."""
        for number in [*range(MESSAGES), 0]:
            self.refusals.add("bob", b"%d" % number, 0.0)
        for number in range(MESSAGES):
            self.refusals.accept("bob", b"%d" % number)
        self.assertFalse(self.refusals.stop("bob", b"new", 1.0))

    def test_whoever_never_tries_again(self) -> None:
        """He is not kept out for ever: not after a while of silence, nor though he goes on and on."""
        self.refusals.add("bob", b"1", 0.0)
        self.assertTrue(self.refusals.stop("bob", b"2", BEHIND - 1))
        self.refusals.add("bob", b"2", BEHIND - 1)
        self.assertTrue(self.refusals.stop("bob", b"3", 2 * BEHIND - 2))
        self.assertFalse(self.refusals.stop("bob", b"3", 2 * BEHIND - 1))
        now = 0.0
        while now < BEHIND_MOST:
            self.refusals.add("bob", b"%d" % now, now)
            now += BEHIND / 2
        self.assertFalse(self.refusals.stop("bob", b"new", now))

    def test_bounded(self) -> None:
        """So many recipients, and messages to all of them; what is over makes room."""
        for number in range(MESSAGES + 1):
            self.refusals.add("bob", b"%d" % number, 0.0)
        self.assertTrue(self.refusals.stop("bob", b"%d" % MESSAGES, 0.0))
        for number in range(RECIPIENTS):
            self.refusals.add(f"{number}", b"1", 1.0)
        self.assertEqual(len(self.refusals), RECIPIENTS)
        self.assertFalse(self.refusals.stop(f"{RECIPIENTS - 1}", b"2", 1.0))
        self.refusals.add("eve", b"1", BEHIND)
        self.assertEqual(len(self.refusals), RECIPIENTS)
        self.assertTrue(self.refusals.stop("eve", b"2", BEHIND))
        self.assertFalse(self.refusals.stop("eve", b"1", BEHIND))

    def test_room_is_counted(self) -> None:
        """However a note goes: its messages are none of those that are noted any more."""
        ways = (
            lambda mid: self.refusals.stop("bob", mid, 1.0),
            lambda mid: self.refusals.stop("bob", mid, BEHIND),
            lambda mid: self.refusals.accept("bob", mid),
            lambda _: self.refusals.forget("bob"),
            lambda _: self.refusals.add("eve", b"1", BEHIND),
        )
        self.patch(refusals, "MESSAGES", 2)
        for way in ways:
            for mid in (b"1", b"2", b"2"):
                self.refusals.add("bob", mid, 0.0)
            self.assertEqual(self.refusals._noted, 2)
            for mid in (b"1", b"2"):
                way(mid)
            self.assertFalse(self.refusals.stop("bob", b"3", 1.0))
            self.assertEqual(self.refusals._noted, len(self.refusals))
            self.refusals.forget("eve")

    def test_a_recipient_who_is_gone(self) -> None:
        self.refusals.add("bob", b"1", 0.0)
        self.refusals.forget("bob")
        self.assertFalse(self.refusals.stop("bob", b"2", 0.0))


class OrderCase(DeliveryTestCase):
    """Ann is here, and sends to Bob what is refused for now."""

    limits = Limits().with_limit("mailbox=none").with_limit("unacknowledged=1000/2")

    def setUp(self) -> None:
        super().setUp()
        self.disk = SmallDiskStore(lambda: self.now)
        self.store = self.disk.memory.stored
        self.begin(self.disk)
        self.disk.settle()
        self.ann = self.join(ANN)
        self.disk.settle()

    def full(self, full: bool = True) -> None:
        self.disk.memory.full = full
        self.wait(SHORT)
        self.disk.turn(0)
        self.disk.settle()

    def begin_short(self) -> None:
        """The first message is refused, and there is room again."""
        self.full()
        self.send(1)
        self.disk.settle()
        self.disk.memory.full = False
        self.disk._short = None

    def settle(self, seconds: float = 0.0) -> None:
        self.wait(seconds)
        self.disk.settle()

    def told(self) -> list[int]:
        """The numbers that were refused since this was last called."""
        found = [number for _, number, code in self.refused if code is Code.UNAVAILABLE]
        self.assertEqual(len(found), len(self.refused))
        self.refused.clear()
        return found


class OrderTests(OrderCase):
    """Bob is away, or comes later."""

    def test_behind_what_was_refused(self) -> None:
        """It is refused too, until that comes again; then all is taken in its order."""
        self.begin_short()
        self.send(2, 3)
        self.settle()
        self.assertEqual((self.told(), self.kept()), ([1, 2, 3], []))
        self.send(1, 2, 3, 4)
        self.settle()
        self.assertEqual((self.told(), self.kept()), ([], [1, 2, 3, 4]))

    def test_others(self) -> None:
        """Who sends to somebody else, or is somebody else, is not concerned."""
        self.begin_short()
        self.send(2, dst=EVE)
        self.send(3, src=EVE)
        self.settle()
        self.assertEqual((self.told(), self.kept(), self.kept(EVE)), ([1], [3], [2]))

    def test_not_given_either(self) -> None:
        """Not even to who is here, for whom nothing waits."""
        self.begin_short()
        bob = self.join()
        self.settle()
        self.send(2)
        self.assertEqual(bob.numbers, [])
        self.send(1, 2)
        self.settle()
        self.assertEqual((self.told(), bob.numbers), ([1, 2], [1, 2]))

    def test_who_never_tries_again(self) -> None:
        self.begin_short()
        self.settle(BEHIND - 0.1)
        self.send(2)
        self.settle(BEHIND)
        self.send(3)
        self.settle()
        self.assertEqual((self.told(), self.kept()), ([1, 2], [3]))

    def test_a_new_connection(self) -> None:
        """On it, all is sent again in order: nothing of what was refused before is noted, told then or later."""
        self.begin_short()
        self.delivery.leave(self.ann)
        self.ann = self.join(ANN)
        self.send(2)
        self.settle()
        self.assertEqual((self.told(), self.kept()), ([1], [2]))

    def test_refused_late(self) -> None:
        """What an older connection asked for is refused: what this one has not sent yet is not opened by that."""
        self.full()
        self.send(1, 2)
        self.delivery.leave(self.ann)
        self.ann = self.join(ANN)
        self.send(1)
        self.disk.settle()
        self.full(False)
        self.send(2)  # it was on its way: no answer to it has been heard
        self.settle()
        self.assertEqual((self.told(), self.kept()), ([1, 2, 1, 2], []))
        self.send(1, 2)
        self.settle()
        self.assertEqual(self.kept(), [1, 2])

    def test_forgotten_with_the_recipient(self) -> None:
        self.begin_short()
        self.delivery.forget(BOB)
        self.send(2)
        self.settle()
        self.assertEqual(self.kept(), [2])


class GivenTests(OrderCase):
    """Bob is here as well, and is given two messages; no more until he has acknowledged some."""

    def setUp(self) -> None:
        super().setUp()
        self.bob = self.join()
        self.disk.settle()

    def give(self) -> None:
        """Bob is given two, the disk is full, and has room again when both should have been kept."""
        self.full()
        self.send(1)
        self.settle(1.0)
        self.send(2)
        self.settle(ACK_WAIT - 1.0)
        self.assertEqual((self.bob.numbers, self.told(), self.kept()), ([1, 2], [], []))
        self.disk.memory.full = False
        self.disk._short = None

    def wait_for_refusals(self) -> None:
        while not self.refused and self.now < 3 * FULL_WAIT:
            self.settle(1.0)

    def leave(self) -> None:
        self.delivery.leave(self.bob)
        self.disk.settle()

    def test_kept_in_order(self) -> None:
        """What is to be kept waits for what is before it, and had no room."""
        self.give()
        self.settle(1.0)
        self.assertEqual(self.kept(), [])
        self.settle(1.0)
        self.assertEqual(self.kept(), [1])
        self.settle(1.0)
        self.assertEqual((self.kept(), self.told()), ([1, 2], []))

    def test_all_that_waits_is_kept_in_order(self) -> None:
        """What has waited for another is waited for, whichever is tried first."""
        self.delivery._window = self.delivery._window._replace(messages=9)
        self.give()
        self.send(3)
        self.wait(ACK_WAIT + 1.0)
        self.disk.settle()
        self.leave()
        self.assertEqual((self.kept(), self.told()), ([1, 2, 3], []))

    def test_kept_when_he_goes(self) -> None:
        self.give()
        self.settle(1.0)
        self.leave()
        self.assertEqual((self.kept(), self.told()), ([1, 2], []))

    def test_kept_for_another(self) -> None:
        """What somebody else sends makes nothing be kept before its turn."""
        self.give()
        self.send(9, src=EVE)
        self.settle()
        self.assertEqual(self.kept(), [9])
        self.leave()
        self.assertEqual((self.kept(), self.told()), ([9, 1, 2], []))

    def test_refused_with_what_comes(self) -> None:
        """What cannot be given is not kept before them: all are refused, and come again; what he has is not given."""
        self.give()
        self.send(3)
        self.settle()
        self.assertEqual((self.told(), self.kept()), ([1, 2, 3], []))
        self.send(1, 2, 3)
        self.settle()
        self.assertEqual((self.told(), self.kept(), self.bob.numbers), ([], [1, 2, 3], [1, 2]))

    def test_refused_in_their_time(self) -> None:
        """With the first that is refused, so is all that was given behind it."""
        self.full()
        self.send(1)
        self.settle(ACK_WAIT)
        self.send(2)
        self.wait_for_refusals()
        self.assertEqual((self.now, self.told()), (SHORT + ACK_WAIT + FULL_WAIT, [1, 2]))
        self.leave()
        self.full(False)
        self.send(3)
        self.settle()
        self.assertEqual((self.told(), self.kept()), ([3], []))

    def test_sent_again(self) -> None:
        """What comes again while what is before it has no room again is not kept before that."""
        self.give()
        self.send(3)
        self.full()
        self.told()
        self.send(1)
        self.disk.settle()
        self.disk.memory.full = False
        self.disk._short = None
        self.send(2, 3)
        self.settle()
        self.assertEqual((self.told(), self.kept()), ([1, 2, 3], []))
        self.leave()
        self.send(1, 2, 3)
        self.settle()
        self.assertEqual(self.kept(), [1, 2, 3])

    def test_accepted_after_all(self) -> None:
        """What was refused is acknowledged: what is behind is taken, once all that was refused is, or comes again."""
        self.give()
        self.send(3)
        self.told()
        self.acknowledge(self.bob, 1, 2)
        self.assertEqual(self.accepted, [("a", 1), ("a", 2)])
        self.send(4)
        self.assertEqual((self.told(), self.bob.numbers), ([4], [1, 2]))
        self.send(3, 4)
        self.assertEqual((self.told(), self.bob.numbers), ([], [1, 2, 3, 4]))

    def test_all_accepted_after_all(self) -> None:
        self.full()
        self.send(1)
        self.wait_for_refusals()
        self.acknowledge(self.bob, 1)
        self.send(2)
        self.assertEqual((self.told(), self.bob.numbers), ([1], [1, 2]))

    def test_refused_while_she_is_away(self) -> None:
        """Who sent it is not told; when she is back she sends all again, in order."""
        self.full()
        self.send(1, 2)
        self.delivery.leave(self.ann)
        self.settle(ACK_WAIT)
        self.settle(FULL_WAIT)
        self.full(False)
        self.leave()
        self.assertEqual(self.kept(), [])
        self.ann = self.join(ANN)
        self.send(1, 2)
        self.settle()
        self.assertEqual(self.kept(), [1, 2])

    def test_refused_on_another_connection(self) -> None:
        """What this one has not sent yet is refused, with what it has: it is not what comes again."""
        self.full()
        self.send(1, 2)
        self.delivery.leave(self.ann)
        self.ann = self.join(ANN)
        self.send(1)
        self.leave()
        self.assertEqual(self.told(), [1, 2])
        self.disk.memory.full = False
        self.disk._short = None
        self.send(2)
        self.settle()
        self.assertEqual((self.told(), self.kept()), ([2], []))
        self.send(1, 2)
        self.settle()
        self.assertEqual((self.told(), self.kept()), ([], [1, 2]))
