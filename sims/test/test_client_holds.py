"""Tests of :mod:`sims.client.holds`: what a server refuses for now is sent again later, and nothing overtakes it."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from sims import inner
from sims.client import events
from sims.client.events import Delivery
from sims.client.holds import AGAIN_FIRST, AGAIN_MOST, Holds
from sims.client.store import Letter
from sims.errors import Code
from sims.test.modern_world import User, WorldTestCase, refusal

_LETTERS = (inner.ClientCom, inner.ClientConnect)


def letter(number: int, to: str = "bob", *, text: bool = True) -> Letter:
    """A letter, which has a mid."""
    mid = number.to_bytes(16, "big")
    return Letter(number=number, to=to, mid=mid, id=mid if text else b"")


class HoldsTests(SynchronousTestCase):
    """Who is held, and until when."""

    def setUp(self) -> None:
        self.now = 100.0
        self.holds = Holds(lambda: self.now)

    def refuse(self, *numbers: int, after: float | None = None, texts: bool = True) -> None:
        for number in numbers:
            self.holds.sent(letter(number))
            self.holds.answered(letter(number).mid)
            self.holds.refuse(letter(number), after, texts=texts)

    def pass_until_due(self) -> float:
        """Go to where somebody is free, and free them; gives how long it was."""
        began, due = self.now, self.holds.due
        self.assertIsNotNone(due)
        self.now = (due or 0.0) - 0.01
        self.assertEqual(self.holds.free(), set())
        self.now = due or 0.0
        self.assertTrue(self.holds.free())
        return self.now - began

    def test_one_person(self) -> None:
        """Whoever something was refused for, until it is tried; others are not concerned."""
        self.refuse(1)
        self.assertTrue(self.holds.stop(letter(2)))
        self.assertFalse(self.holds.stop(letter(3, "eve")))
        self.now += 2 * AGAIN_FIRST
        self.assertTrue(self.holds.stop(letter(2)), "not before all that waits goes with it")
        self.assertEqual(self.holds.free(), {"bob"})
        self.assertFalse(self.holds.stop(letter(2)))
        self.assertEqual((self.holds.free(), self.holds.due), (set(), None))

    def test_delay(self) -> None:
        """It grows with each try that is refused, not with each letter; what is accepted ends that."""
        delays = []
        for _ in range(8):
            self.refuse(1, 2, 3)
            self.holds.accept("bob")  # one that was sent before
            delays.append(self.pass_until_due())
        self.assertEqual(delays, [5, 10, 20, 40, 80, 160, 300, 300])
        self.holds.accept("bob")
        self.refuse(1)
        self.assertEqual(self.pass_until_due(), AGAIN_FIRST)

    def test_what_the_server_says(self) -> None:
        """When it says for how long, it is not sooner; within bounds."""
        self.refuse(1, after=7.0)
        self.refuse(2, after=6.0)
        self.assertEqual(self.pass_until_due(), 7.0)
        self.refuse(1)
        self.refuse(2, after=1e9)
        self.assertEqual(self.pass_until_due(), AGAIN_MOST)

    def test_under_way(self) -> None:
        """Nobody is tried again before all is answered that was sent to them before."""
        self.holds.sent(letter(2))
        self.holds.sent(letter(9, "eve"))
        self.refuse(1)
        self.now += 2 * AGAIN_FIRST
        self.assertEqual((self.holds.due, self.holds.free()), (None, set()))
        self.holds.answered(letter(2).mid)
        self.assertEqual((self.holds.due, self.holds.free()), (100.0 + AGAIN_FIRST, {"bob"}))

    def test_texts(self) -> None:
        """What is refused for a reason that is not the texts' does not hold these back, unless one of them is, too."""
        self.refuse(1, texts=False)
        self.assertEqual([self.holds.stop(letter(2, text=text)) for text in (False, True)], [True, False])
        again = letter(4)
        again.anew = True
        self.assertFalse(self.holds.stop(again), "the server has not accepted it")
        again.state = Delivery.ACCEPTED
        self.assertTrue(self.holds.stop(again))
        self.refuse(3)
        self.assertTrue(self.holds.stop(letter(2)))

    def test_a_new_connection(self) -> None:
        self.refuse(1)
        self.holds.sent(letter(2))
        self.holds.clear()
        self.assertFalse(self.holds.stop(letter(1)))
        self.assertFalse(self.holds.is_under_way(letter(2)))
        self.assertIsNone(self.holds.due)
        self.refuse(1)
        self.assertEqual(self.pass_until_due(), AGAIN_FIRST)


class OnlineTests(WorldTestCase):
    """A client whose server refuses."""

    def setUp(self) -> None:
        super().setUp()
        self.ann, self.bob, self.eve = self.world.users("ann", "bob", "eve")
        self.talk(self.ann, self.bob)
        self.talk(self.ann, self.eve)
        self.code: Code | None = None
        self.silent = False
        self.came: list[tuple[float, bytes]] = []
        self.world.intercept(self.take)
        self.began = self.world.clock.seconds()

    def take(self, src: str, message: inner.FromClient) -> inner.Error | bool:
        if src != self.ann.id or not isinstance(message, _LETTERS) or message.dst != self.bob.id:
            return False
        self.came.append((round(self.world.clock.seconds() - self.began), message.mid))
        return self.silent or (False if self.code is None else refusal(message.mid, self.code))

    def send(self, *texts: str, to: User | None = None) -> None:
        for text in texts:
            self.ann.send(to or self.bob, text)
        self.world.run_for(0.5)

    def times(self) -> list[float]:
        """When something came, since this was last called."""
        found, self.came = [when for when, _ in self.came], []
        return found

    def refuse(self, mid: bytes) -> None:
        member = self.world.modern_relay._members[self.ann.id]
        member.deliver(inner.encode(refusal(mid, Code.UNAVAILABLE)))

    def test_in_order(self) -> None:
        """What is said meanwhile waits, and goes with what was refused, behind it; what is for others goes at once."""
        self.code = Code.UNAVAILABLE
        self.send("a", "b")
        self.code = None
        self.send("c")
        self.send("to eve", to=self.eve)
        self.assertEqual(self.eve.texts()[-1], "to eve")
        self.world.run_for(2)
        self.send("d")
        self.assertEqual(self.times(), [0, 0])
        self.world.run_for(4)
        self.assertEqual((self.times(), self.bob.texts()[-4:]), ([5] * 4, ["a", "b", "c", "d"]))
        self.send("e")
        self.assertEqual((len(self.times()), self.bob.texts()[-1]), (1, "e"))

    def test_delay(self) -> None:
        """It grows once for all that is refused together, and begins anew when something was accepted."""
        self.code = Code.UNAVAILABLE
        self.send("a", "b", "c")
        self.world.run_for(80)
        self.assertEqual(self.times(), [when for when in (0, 5, 15, 35, 75) for _ in "abc"])
        self.code = None
        self.world.run_for(80)
        self.assertEqual(self.times(), [155] * 3)
        self.code, self.began = Code.UNAVAILABLE, self.world.clock.seconds()
        self.send("d")
        self.world.run_for(6)
        self.assertEqual(self.times(), [0, 5])

    def test_answers_are_awaited(self) -> None:
        """While an answer is owed, nothing goes again: what it is about may be refused as well."""
        self.silent = True
        self.send("a", "b")
        (_, first), (_, second) = self.came
        self.silent = False
        self.refuse(first)
        self.world.run_for(20)
        self.assertEqual(self.times(), [0, 0])
        self.refuse(second)
        self.world.run_for(0.5)
        self.assertEqual((len(self.times()), self.bob.texts()[-2:]), (2, ["a", "b"]))

    def test_what_has_not_left(self) -> None:
        """What waits for the way to the server when something is refused stays, and goes later, in order."""
        self.silent = True
        self.send("a")
        self.silent = False
        self.ann.messenger.slowed(True)
        self.send("b", "c")
        self.send("to eve", to=self.eve)
        self.refuse(self.came[0][1])
        self.world.run_for(0.5)
        self.ann.messenger.slowed(False)
        self.ann.client.pump()
        self.world.run_for(1)
        self.assertEqual((self.times(), self.eve.texts()[-1]), ([0], "to eve"))
        self.world.run_for(AGAIN_FIRST)
        self.assertEqual((len(self.times()), self.bob.texts()[-3:]), (3, ["a", "b", "c"]))

    def test_a_new_connection(self) -> None:
        """On it, all goes at once."""
        self.code = Code.UNAVAILABLE
        self.send("a", "b")
        self.code = None
        self.times()
        self.ann.cut()
        self.world.run_for(2)
        self.assertEqual((len(self.times()), self.bob.texts()[-2:]), (2, ["a", "b"]))

    def test_a_full_mailbox(self) -> None:
        """A text fails, and holds back nothing; what is no text is sent again later, and holds back no text."""
        self.code = Code.MAILBOX_FULL
        self.send("a")
        self.assertEqual(self.ann.all(events.State)[-1].state, Delivery.FAILED)
        self.bob.send("ann", "an answer to it is owed")
        self.world.run_for(2)
        self.assertEqual(len(self.times()), 2)
        self.code = None
        self.send("b")
        self.assertEqual(len(self.times()), 1)
        self.world.run_for(2 * AGAIN_FIRST)
        self.assertGreaterEqual(len(self.times()), 1)
        self.assertEqual((self.bob.texts()[-1], self.bob.delivered()), ("b", 2))

    def test_nothing_waits_any_more(self) -> None:
        """What was held is gone by then: nothing is sent, and the next goes at once."""
        self.code = Code.UNAVAILABLE
        self.send("a")
        for one in self.ann.messenger._desk.outbox.queued():
            self.ann.messenger._desk.drop(one)
        self.world.run_for(2 * AGAIN_FIRST)
        self.assertEqual((self.times(), self.ann.messenger._online._holds._held), ([0], {}))
        self.code = None
        self.ann.messenger._desk.renew(self.bob.id)
        self.send("b")
        self.assertEqual(self.bob.texts()[-1], "b")
