"""The relay of sims/2 in any order of events, with a store that takes its time.

People come, are replaced, go, delete their accounts, or somebody else does.
"""

from __future__ import annotations

from random import Random

from twisted.trial.unittest import SynchronousTestCase

from sims import inner
from sims.crypto.handshake import Claim
from sims.errors import Code
from sims.server.delivery import ACK_WAIT, FULL_WAIT
from sims.server.limits import Limits
from sims.server.modern_relay import ModernRelay
from sims.server.registration import Admitted, Mode
from sims.test.late_store import LateStore
from sims.test.modern_builders import person
from sims.test.modern_network import WALL, mid_of
from sims.test.modern_relay_case import Member

NAMES = ("ann", "bob", "eve")
IDS = {name: person(name).id for name in NAMES}
Key = tuple[str, bytes]


class Connection(Member):
    """One connection of somebody; notes what is sent on it, and what it is told of that."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name
        self.given: list[Key] = []
        self.told: set[bytes] = set()
        self.accepted: set[bytes] = set()
        self.sent: set[bytes] = set()

    def deliver(self, message: bytes) -> None:
        match inner.from_server(message):
            case inner.ClientCom(src=src, dst=dst, mid=mid):
                if dst != self.id or self.closed:
                    raise AssertionError("for another, or after the end")
                self.given.append((src, mid))
            case inner.Ack(data=data):
                self.accepted.update(data.mids)
                self.told.update(data.mids)
            case inner.Error(mid=bytes() as mid):
                self.told.add(mid)


class Course:
    """One course of events."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.now = 0.0
        limits = Limits().with_limit("sends=none").with_limit(f"unacknowledged=5000/{random.choice([3, 5, 50])}")
        if random.random() < 0.5:
            limits = limits.with_limit("mailbox=6/4K/1/3/2K")
        self.store = LateStore()
        self.relay = ModernRelay(
            self.store, clock=lambda: self.now, wall=lambda: WALL + self.now, limits=limits, mode=Mode.OPEN
        )
        self.connections: list[Connection] = []
        self.sent: dict[Key, str] = {}
        self.deleted: set[str] = set()
        self.count = 0
        for name in NAMES:
            self.connect(name)
        self.store.settle()

    def here(self, name: str) -> Connection | None:
        """The connection of somebody."""
        found = [one for one in self.connections if one.name == name and not one.closed]
        return found[-1] if found else None

    def step(self) -> None:
        name = self.random.choice(NAMES)
        one = self.here(name)
        match self.random.randrange(16):
            case 0 if one is None or self.random.random() < 0.3:
                self.connect(name)
            case 1 | 2 | 3 | 4 | 5 if one is not None:
                self.send(one)
            case 6 | 7 if one is not None:
                self.acknowledge(one, [mid for _, mid in one.given if self.random.random() < 0.6])
            case 8 if one is not None and self.random.random() < 0.3:
                one.closed.append(None)
                self.relay.leave(one)
            case 9 if one is not None and self.random.random() < 0.3:
                self.deleted.add(one.id)
                self.relay.receive(one, inner.encode(inner.Delete(mid=mid_of(10**6))))
            case 10 if self.random.random() < 0.1:
                self.deleted.add(IDS[name])
                self.store.delete(IDS[name], lambda _: None)
                self.relay.accounts_changed()
            case 11:
                for _ in range(self.random.randrange(16)):
                    self.store.work()
            case 12 | 13:
                for _ in range(self.random.randrange(8)):
                    self.store.answer()
            case 14:
                self.relay.flush()
            case 15:
                self.wait(self.random.choice([0.1, ACK_WAIT, FULL_WAIT + 1]))

    def connect(self, name: str) -> None:
        one = Connection(name)

        def admitted(result: Admitted | Code) -> None:
            if isinstance(result, Admitted):
                self.connections.append(one)
                self.relay.join(one)

        self.relay.admit(Claim(one.identity.public, name, None, None), admitted)

    def send(self, one: Connection) -> None:
        """Send somebody a message; now and then one that was sent before, by oneself or by another."""
        self.count += 1
        mid = mid_of(self.count if self.random.random() < 0.9 else self.random.randrange(1, self.count + 1))
        dst = self.sent.setdefault((one.id, mid), IDS[self.random.choice(NAMES)])
        one.sent.add(mid)
        data = inner.pack({"header": b"h", "body": bytes(self.random.choice([1, 900]))})
        self.relay.receive(one, inner.encode(inner.ClientCom(src=one.id, dst=dst, mid=mid, data=data)))

    def acknowledge(self, one: Connection, mids: list[bytes]) -> None:
        self.relay.receive(one, inner.encode(inner.Ack(data=inner.AckData(mids=tuple(mids)))))

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.relay.tick()

    def end(self) -> list[Connection]:
        """Everything is answered and acknowledged; gives who is here then."""
        for _ in range(30):
            self.store.settle()
            self.relay.flush()
            for one in filter(None, map(self.here, NAMES)):
                self.acknowledge(one, [mid for _, mid in one.given])
            self.wait(ACK_WAIT)
        self.store.settle()
        self.relay.flush()
        return [*filter(None, map(self.here, NAMES))]


class RandomTests(SynchronousTestCase):
    """Many courses.

    :cvar seeds: how many; more in ``tests/test_random_whole.py``.
    """

    seeds = 75

    def test_any_order(self) -> None:
        """Whoever is here in the end has an account; is told of all that he has sent; and was given all that is his.

        What was accepted has come, unless its recipient's account was deleted; and on no connection twice, unless its
        sender's was: who has the id then is somebody else.
        """
        for seed in range(self.seeds):
            course = Course(Random(seed))
            for _ in range(course.random.randrange(30, 250)):
                course.step()
            here = course.end()
            self.assertEqual(len(course.relay), len(here), f"seed {seed}")
            for one in here:
                self.assertIn(one.id, course.store.stored._accounts, f"seed {seed}")
                self.assertEqual(one.sent - one.told, set(), f"seed {seed}")
                self.assertEqual(len(course.store.stored._boxes[one.id].letters), 0, f"seed {seed}")
            for one in course.connections:
                once = [key for key in one.given if key[0] not in course.deleted]
                self.assertEqual(len(once), len({*once}), f"seed {seed}")
            given = {(one.id, *key) for one in course.connections for key in one.given}
            accepted = {(one.id, mid) for one in course.connections for mid in one.accepted & one.sent}
            kept = {one.id for one in here} - course.deleted
            due = {(course.sent[key], *key) for key in accepted if course.sent[key] in kept}
            self.assertEqual(due - given, set(), f"seed {seed}")
