"""Tests of :mod:`sims.client.lookups`."""

from __future__ import annotations

from itertools import count

from twisted.trial.unittest import SynchronousTestCase

from sims.client.lookups import (
    AFTER_MOST,
    ANSWER_TIMEOUT,
    MOST_OUT,
    RETRY_FIRST,
    RETRY_MOST,
    Key,
    Lookups,
)
from sims.inner import Fetch

BOB, EVE = Key("id", "b" * 32), Key("name", "eve")


class LookupTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.now = 100.0
        self.asked: list[Fetch] = []
        numbers = count(1)
        self.lookups = Lookups(
            self.asked.append, clock=lambda: self.now, random=lambda size: next(numbers).to_bytes(size, "big")
        )

    def tick(self, seconds: float = 0) -> list[tuple[object, object]]:
        """Time passes; gives what is asked then."""
        self.now += seconds
        self.asked.clear()
        self.lookups.tick()
        return [(fetch.data.id or None, fetch.data.name or None) for fetch in self.asked]

    def test_one_question(self) -> None:
        """However often it is wanted; until there is an answer that will do."""
        for _ in range(3):
            self.lookups.want(BOB)
        self.assertEqual(len(self.tick()), 1)
        (fetch,) = self.asked
        self.assertEqual((fetch.data.id, self.lookups.answered(fetch.mid)), (BOB.what, BOB))
        self.assertEqual(self.tick(1), [])
        self.lookups.forget(BOB)
        self.assertEqual((self.lookups.answered(fetch.mid), len(self.lookups)), (None, 0))
        self.assertEqual(self.tick(1000), [])

    def test_answers_that_name_no_question(self) -> None:
        """They answer the oldest; of another mid, none."""
        self.assertIsNone(self.lookups.answered(None))
        self.lookups.want(BOB)
        self.lookups.want(EVE)
        self.tick()
        self.assertEqual((self.lookups.answered(None), self.lookups.answered(bytes(16))), (BOB, None))

    def test_asked_again(self) -> None:
        """After a growing while; what comes late for an older question is nothing."""
        self.lookups.want(EVE)
        self.tick()
        first, waited = self.asked[0].mid, RETRY_FIRST
        for _ in range(8):
            self.lookups.later(EVE)
            self.assertIsNone(self.lookups.answered(first))
            self.assertEqual(self.lookups.tick(), self.now + waited)
            self.assertEqual(self.tick(waited - 0.1), [])
            self.assertEqual(len(self.tick(0.1)), 1)
            waited = min(2 * waited, RETRY_MOST)
        self.lookups.later(BOB)  # not wanted: nothing
        self.assertNotIn(BOB, self.lookups)

    def test_no_answer(self) -> None:
        self.lookups.want(EVE)
        self.tick()
        first = self.asked[0].mid
        self.assertEqual(len(self.tick(ANSWER_TIMEOUT)), 1)
        self.assertNotEqual(self.asked[0].mid, first)
        self.assertIsNone(self.lookups.answered(first))

    def test_when_the_server_says(self) -> None:
        """Nothing at all is asked until then; but not for ever."""
        self.lookups.want(EVE)
        self.tick()
        self.lookups.later(EVE, 5)
        self.lookups.want(BOB)
        self.assertEqual(self.lookups.tick(), self.now + 5)
        self.assertEqual(self.tick(4.9), [])
        self.assertEqual(len(self.tick(0.1)), 2)
        self.lookups.later(EVE, 2**32)
        self.assertEqual(self.lookups.tick(), self.now + AFTER_MOST)

    def test_few_at_once(self) -> None:
        """The others when there is room."""
        keys = [Key("name", str(number)) for number in range(3 * MOST_OUT)]
        for key in keys:
            self.lookups.want(key)
        self.assertEqual(len(self.tick()), MOST_OUT)
        self.assertEqual(self.tick(), [])
        self.lookups.forget(keys[0])
        self.lookups.forget(keys[1])
        self.assertEqual(len(self.tick()), 2)

    def test_lost(self) -> None:
        """The connection is gone: the answers of the old one are nothing on the new one, where all is asked again."""
        self.lookups.want(BOB)
        self.lookups.want(EVE)
        self.tick()
        old = [fetch.mid for fetch in self.asked]
        self.lookups.later(EVE, 300)
        self.lookups.lost()
        self.assertEqual([self.lookups.answered(mid) for mid in [*old, None]], [None] * 3)
        self.assertEqual(len(self.tick()), 2)
