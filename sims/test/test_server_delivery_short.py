"""A disk that is full now and then: what one sends to another comes in order, once each, whatever happens meanwhile.

The delivery, the store's own order of things, and a client that holds back what it should; in between, a wire.
"""

from __future__ import annotations

from collections import deque
from random import Random

from twisted.trial.unittest import SynchronousTestCase

from sims.client.holds import AGAIN_FIRST, Holds
from sims.client.store import Letter as Sent
from sims.errors import Code
from sims.server import delivery
from sims.server.delivery import ACK_WAIT, Delivery
from sims.server.limits import Limits
from sims.test.builders import NO_HYPOTHESIS
from sims.test.delivery_case import Reader, letter
from sims.test.small_disk import SmallDiskStore
from sims.test.store_contract import ANN, BOB, NOW, account


class Person:
    """Ann's client: what it has sent and not heard of, and whom it holds back; the wire both ways."""

    def __init__(self, case: Anything) -> None:
        self.case = case
        self.queued: dict[int, Sent] = {}
        self.count = 0
        self.up: deque[int] = deque()
        self.down: deque[tuple[int, Code | None]] = deque()
        self.holds = Holds(lambda: case.now)
        self.here = False

    def sends(self) -> None:
        self.count += 1
        mid = self.count.to_bytes(16, "big")
        self.queued[self.count] = Sent(number=self.count, to=BOB, mid=mid, id=mid)
        self.post(self.count)

    def post(self, number: int) -> None:
        one = self.queued[number]
        if self.here and not self.holds.is_under_way(one) and not self.holds.stop(one):
            self.holds.sent(one)
            self.up.append(number)

    def hears(self) -> None:
        number, code = self.down.popleft()
        one = self.queued.get(number)
        self.holds.answered(number.to_bytes(16, "big"))
        if one is not None and code is None:
            del self.queued[number]
            self.holds.accept(BOB)
        elif one is not None:
            self.holds.refuse(one)

    def tick(self) -> None:
        if self.holds.free():
            self.posts()

    def posts(self) -> None:
        for number in sorted(self.queued):
            self.post(number)


class Anything:
    """Ann and Bob come and go, the disk is full and is not, and everything takes its time."""

    def __init__(self) -> None:
        self.now = 0.0
        self.store = SmallDiskStore(lambda: self.now)
        for number in (ANN, BOB):
            self.store.register(account(number, number[:3]), None, lambda _: None)
        self.person = Person(self)
        self.delivery = Delivery(
            self.store,
            Limits().with_limit("mailbox=none").with_limit("unacknowledged=1000/3"),
            clock=lambda: self.now,
            wall=lambda: NOW + self.now,
            accepted=lambda src, mid: self.tell(mid, None),
            refused=lambda src, mid, code: self.tell(mid, code),
        )
        self.ann: Reader | None = None
        self.bob: Reader | None = None
        self.heard = 0  # how much of what he was given has reached Bob
        self.seen: list[int] = []

    def tell(self, mid: bytes, code: Code | None) -> None:
        if self.ann is not None:
            self.person.down.append((int.from_bytes(mid, "big"), code))

    def do(self, step: int) -> None:
        """One of :data:`STEPS`, by its place."""
        match STEPS[step]:
            case "send":
                self.person.sends()
            case "up" if self.person.up:
                self.delivery.send(letter(self.person.up.popleft()))
            case "down" if self.person.down:
                self.person.hears()
            case "work":
                self.store.work()
            case "answer":
                self.store.answer()
            case "full":
                self.store.memory.full = not self.store.memory.full
                self.store._short = None
            case "ann":
                self.ann_comes_or_goes()
            case "bob":
                self.bob_comes_or_goes()
            case "hear":
                self.bob_hears(acknowledges=False)
            case "acknowledge":
                self.bob_hears(acknowledges=True)
            case "wait" | "long" as how:
                self.wait(AGAIN_FIRST if how == "long" else ACK_WAIT / 2)

    def wait(self, seconds: float) -> None:
        """Time passes: what is on the wire is not under way for so long."""
        while self.person.up:
            self.delivery.send(letter(self.person.up.popleft()))
        while self.person.down:
            self.person.hears()
        self.now += seconds
        self.delivery.tick()
        self.person.tick()

    def ann_comes_or_goes(self) -> None:
        self.person.up.clear()
        self.person.down.clear()
        self.person.holds.clear()
        if self.ann is not None:
            self.delivery.leave(self.ann)
            self.ann, self.person.here = None, False
        else:
            self.ann, self.person.here = Reader(ANN), True
            self.delivery.join(self.ann)
            self.person.posts()

    def bob_comes_or_goes(self) -> None:
        if self.bob is not None:
            self.delivery.leave(self.bob)
            self.bob = None
        else:
            self.bob, self.heard = Reader(BOB), 0
            self.delivery.join(self.bob)

    def bob_hears(self, *, acknowledges: bool) -> None:
        if self.bob is None or self.heard >= len(self.bob.numbers):
            return
        number = self.bob.numbers[self.heard]
        self.heard += 1
        if number not in self.seen:
            self.seen.append(number)
        if acknowledges:
            self.delivery.acknowledge(self.bob, [number.to_bytes(16, "big")])

    def finish(self) -> None:
        """There is room, both are here, and everything comes to its end."""
        self.store.memory.full, self.store._short = False, None
        for here, turn in ((self.ann, self.ann_comes_or_goes), (self.bob, self.bob_comes_or_goes)):
            if here is not None:
                turn()
            turn()
        for _ in range(40):
            self.store.settle()
            for _ in range(6):
                self.bob_hears(acknowledges=True)
            self.wait(AGAIN_FIRST)


#: What may happen.
STEPS = ("send", "up", "down", "work", "answer", "full", "ann", "bob", "hear", "acknowledge", "wait", "long")


def run_one(case: SynchronousTestCase, steps: bytes) -> None:
    """Bob sees what Ann has sent, in her order, each once; and in the end all of it."""
    world = Anything()
    world.ann_comes_or_goes()
    world.bob_comes_or_goes()
    for step in steps:
        world.do(step)
        case.assertEqual(world.seen, sorted(world.seen), "out of order")
    world.finish()
    case.assertEqual(world.seen, [*range(1, world.person.count + 1)])
    case.assertEqual((world.person.queued, world.store.problems), ({}, []))


class RandomTests(SynchronousTestCase):
    """Many courses, in each of which some things happen often, and others never.

    :cvar seeds: how many; more in ``tests/test_random_whole.py``.
    """

    seeds = 200

    def test_anything(self) -> None:
        for seed in range(self.seeds):
            random = Random(seed)
            self.patch(delivery, "FULL_WAIT", random.choice([1.5, 3.0, 30.0]))
            weights = [random.choice([0, 0.2, 0.5, 1] if one in ("ann", "bob") else [0.1, 1, 1, 2, 5]) for one in STEPS]
            steps = random.choices(range(len(STEPS)), weights, k=random.randrange(10, 150))
            try:
                run_one(self, bytes(steps))
            except AssertionError as error:
                raise AssertionError(f"seed {seed}, {[STEPS[step] for step in steps]}: {error}") from None


try:
    from hypothesis import given, settings
    from hypothesis import strategies as st
except ImportError:

    class ShortTests(SynchronousTestCase):
        skip = NO_HYPOTHESIS

        def test_anything(self) -> None:
            """Not without hypothesis."""

else:

    class ShortTests(SynchronousTestCase):  # type: ignore[no-redef]
        """Short courses, as hypothesis thinks of them."""

        @settings(max_examples=100, deadline=None)
        @given(st.lists(st.integers(0, len(STEPS) - 1), max_size=60).map(bytes))
        def test_anything(self, steps: bytes) -> None:
            run_one(self, steps)
