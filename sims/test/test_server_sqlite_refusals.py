"""The store in SQLite: between a refusal and its being told, nothing that was asked for behind it is kept."""

from __future__ import annotations

from collections import OrderedDict
from functools import partial
from typing import Any

from msgspec.structs import replace
from twisted.trial.unittest import SynchronousTestCase

from sims.server import sqlite_requests
from sims.server.interfaces import Kept
from sims.server.sqlite import SHORT
from sims.server.sqlite_requests import Refusals, Request
from sims.test.delivery_case import letter
from sims.test.small_disk import SmallDiskStore
from sims.test.store_contract import ANN, BOB, EVE, NOW, QUOTA, account


class RefusalsTests(SynchronousTestCase):
    """Of one sender to one recipient."""

    def setUp(self) -> None:
        self.now = 0.0
        self.store = SmallDiskStore(lambda: self.now)
        self.disk = self.store.memory
        for number in (ANN, BOB, EVE):
            self.store.register(account(number, number[:3]), None, lambda _: None)
        self.store.settle()
        self.told: list[tuple[int, Kept]] = []

    def keep(self, *numbers: int, src: str = ANN, dst: str = BOB) -> None:
        for number in numbers:
            self.store.keep(letter(number, src, dst), QUOTA, NOW, partial(self.note, number))

    def note(self, number: int, result: Kept) -> None:
        self.told.append((number, result))

    def refuse_one(self) -> None:
        """The first is refused, and there is room again before that is told."""
        self.disk.full = True
        self.keep(1)
        self.store.work()
        self.disk.full = False
        self.now += SHORT
        self.store.turn(0)

    def results(self) -> dict[int, Kept]:
        self.store.settle()
        return dict(self.told)

    def test_asked_for_before_it_was_told(self) -> None:
        self.refuse_one()
        self.keep(2)
        self.assertEqual(self.results(), {1: Kept.UNAVAILABLE, 2: Kept.UNAVAILABLE})
        self.keep(1, 2)
        self.assertEqual(self.results(), {1: Kept.STORED, 2: Kept.STORED})

    def test_asked_for_by_who_is_told(self) -> None:
        """What an answer makes others ask for is asked for before the next answer."""
        self.disk.full = True
        self.store.keep(letter(1, EVE), QUOTA, NOW, lambda _: self.keep(3))
        self.keep(2)
        self.store.work()
        self.disk.full = False
        self.now += SHORT
        self.store.turn(0)
        self.assertEqual(self.results(), {2: Kept.UNAVAILABLE, 3: Kept.UNAVAILABLE})

    def test_asked_for_after_it_was_told(self) -> None:
        self.refuse_one()
        self.store.answer()
        self.keep(2)
        self.assertEqual(self.results(), {1: Kept.UNAVAILABLE, 2: Kept.STORED})

    def test_refused_for_that(self) -> None:
        """Such a one is a refusal like others: what is behind it, and asked for before it is told, is refused."""
        self.refuse_one()
        self.keep(2)
        self.store.answer()  # of the first
        self.keep(3)
        self.store.work()
        self.assertEqual(self.results(), dict.fromkeys((1, 2, 3), Kept.UNAVAILABLE))

    def test_others(self) -> None:
        """Other senders, and other recipients, are not concerned, though their messages come in one group."""
        self.refuse_one()
        self.keep(2)
        self.keep(3, src=EVE)
        self.keep(4, dst=EVE)
        self.keep(5)
        expected = {3: Kept.STORED, 4: Kept.STORED, **dict.fromkeys((1, 2, 5), Kept.UNAVAILABLE)}
        self.assertEqual(self.results(), expected)

    def test_too_much_at_once(self) -> None:
        """Behind what is refused because too much waits, nothing smaller is kept."""
        small = self.patch(sqlite_requests, "MAX_QUEUED", sqlite_requests.EACH)
        self.keep(1)
        self.store.work()
        small.restore()
        self.keep(2)
        self.keep(3, src=EVE)
        self.assertEqual(self.results(), {1: Kept.UNAVAILABLE, 2: Kept.UNAVAILABLE, 3: Kept.STORED})

    def test_a_fault(self) -> None:
        """Nor behind what failed for a reason of its own."""
        keep_all = self.disk.keep_all

        def broken(asked: Any) -> list[Kept]:
            if any(one[0].mid == letter(1).mid for one in asked):
                raise ValueError("a fault")
            return keep_all(asked)

        self.patch(self.disk, "keep_all", broken)
        self.keep(1, 2)
        self.assertEqual(self.results(), {1: Kept.UNAVAILABLE, 2: Kept.UNAVAILABLE})
        self.assertEqual([type(error) for error in self.store.problems], [ValueError])

    def test_nothing_is_remembered_of_it(self) -> None:
        """Once all is told, with the next message."""
        self.refuse_one()
        self.keep(2)
        self.store.settle()
        self.keep(3, src=EVE)
        self.store.settle()
        self.assertEqual(self.store.refusals._last, {})

    def test_nor_while_there_is_no_room(self) -> None:
        """What was told is forgotten with the next refusal, whoever it is of."""
        self.disk.full = True
        for number in range(100):
            self.keep(number, dst=f"{number:043}")
            self.store.settle()
            self.assertEqual(len(self.store.refusals), 1)
        self.assertEqual(self.told, [(number, Kept.UNAVAILABLE) for number in range(100)])

    def test_many(self) -> None:
        """However many there are, all that were told are forgotten at once: the first is found without a search."""
        refusals = Refusals()
        requests = [Request("keep", (letter(1, dst=f"{number:043}"),), print, 0) for number in range(1001)]
        for request in requests[:1000]:
            refusals.add(request)
        self.assertEqual(len(refusals), 1000)
        self.assertIsInstance(refusals._last, OrderedDict, "a dict looks at all that were deleted before its first")
        refusals.add(replace(requests[1000], told=999))
        self.assertEqual(len(refusals), 2)
