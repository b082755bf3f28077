"""Three people in any order of events: connections that break, processes that end and come back, disks that are full.

What is shown was sent by whom it says, once, in order of each sender; what was accepted is shown in the end.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from sims.client import events
from sims.client.events import Delivery
from sims.test.builders import NO_HYPOTHESIS
from sims.test.modern_world import World, use_few_keys

try:
    from hypothesis import HealthCheck, settings
    from hypothesis import strategies as st
    from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
except ImportError:

    class MachineTests(SynchronousTestCase):
        skip = NO_HYPOTHESIS

        def test_any_order(self) -> None:
            """Not without hypothesis."""

else:
    NAMES = ("ann", "bob", "carol")
    _WHO = st.integers(0, len(NAMES) - 1)
    _PAIR = st.tuples(_WHO, _WHO).filter(lambda pair: pair[0] != pair[1])

    class People(RuleBasedStateMachine):
        """All three, and what they have sent."""

        def __init__(self) -> None:
            super().__init__()
            self.world = World(seed=7, delay=(0.0, 0.03), most_pieces=3)
            self.users = [self.world.user(name) for name in NAMES]
            self.sent: dict[str, tuple[int, int, str]] = {}  # id -> from, to, text
            self.count = 0
            self.killed = [0 for _ in NAMES]

        # --- what happens ---

        @rule(pair=_PAIR, count=st.integers(1, 3))
        def send(self, pair: tuple[int, int], count: int) -> None:
            """Some texts. Those that the store could not take in are not promised."""
            one, other = pair
            user = self.users[one]
            for _ in range(count):
                self.count += 1
                text = f"{one} {other} {self.count}"
                user.send(NAMES[other], text)
                asked = [state.id for state in user.all(events.State) if state.text == text]
                self.sent.update(dict.fromkeys(asked, (one, other, text)))

        @rule(seconds=st.sampled_from((0.01, 0.05, 0.3, 2.0)))
        def wait(self, seconds: float) -> None:
            """Time passes."""
            self.world.run_for(seconds)

        @rule(who=_WHO, frames=st.integers(0, 3))
        def cut(self, who: int, frames: int) -> None:
            """A connection breaks, now or after some frames more."""
            if frames:
                self.users[who].breaks_at = self.users[who].frames + frames
            else:
                self.users[who].cut()

        @rule(who=_WHO)
        def crash(self, who: int) -> None:
            """A process ends, and another goes on with what is stored."""
            self.killed[who] += 1
            self.users[who].store.full = False
            self.users[who].restart()

        @rule(who=_WHO, commits=st.integers(1, 4), applied=st.booleans())
        def crash_at(self, who: int, commits: int, applied: bool) -> None:
            """It ends at a commit."""
            self.killed[who] += 1
            store = self.users[who].store
            store.fails_at, store.applied = store.commits + commits, applied

        @rule(who=_WHO, away=st.booleans())
        def away(self, who: int, away: bool) -> None:
            """There is no way to the server, or there is one again."""
            self.users[who].way.refusing = away
            if away:
                self.users[who].cut()

        @rule(who=_WHO, full=st.booleans())
        def disk(self, who: int, full: bool) -> None:
            """A disk is full, or has room again."""
            self.users[who].store.full = full

        @rule(pair=_PAIR)
        def disconnect(self, pair: tuple[int, int]) -> None:
            """Somebody closes a conversation, if there is one."""
            user, other = self.users[pair[0]], self.users[pair[1]]
            if other.id in {contact.id for contact in user.messenger.conversations()}:
                user.client.act(lambda messenger: messenger.disconnect(other.id))

        # --- what holds ---

        @invariant()
        def shown(self) -> None:
            """Each text by whom it says, in order; once, but for what was shown just before a process ended."""
            for who, user in enumerate(self.users):
                before: dict[str, list[str]] = {}
                again = 0
                for message in user.all(events.Message):
                    one, other, text = self.found(message)
                    assert (self.users[one].id, other, text) == (message.sender.id, who, message.text)
                    theirs = before.setdefault(message.sender.id, [])
                    if message.id in theirs:
                        again += 1
                    else:
                        theirs.append(message.id)
                for theirs in before.values():
                    assert theirs == sorted(theirs, key=[*self.sent].index), "out of order"
                assert again <= 12 * self.killed[who], "shown twice"

        def found(self, message: events.Message) -> tuple[int, int, str]:
            """What was sent under an id; it may have been queued and not told."""
            if message.id not in self.sent:
                one, other, _ = message.text.split(" ")
                self.sent[message.id] = int(one), int(other), message.text
                self.sent = dict(sorted(self.sent.items(), key=lambda item: int(item[1][2].split(" ")[2])))
            return self.sent[message.id]

        def teardown(self) -> None:
            """In the end all are there, and everything that was asked for is shown and acknowledged."""
            for user in self.users:
                user.way.refusing = user.store.full = False
                user.breaks_at = user.store.fails_at = None
                user.client.start()
            try:
                self.world.run_until(self.is_over, 300)
            except AssertionError:
                raise AssertionError([user.messenger._desk.outbox for user in self.users]) from None
            self.shown()
            for user in self.users:
                assert not user.all(events.Unreadable)
                assert not [state for state in user.all(events.State) if state.state is Delivery.FAILED]

        def is_over(self) -> bool:
            """Whether nothing is under way any more."""
            for number, (_, other, _) in self.sent.items():
                if not any(message.id == number for message in self.users[other].all(events.Message)):
                    return False
            return not any(user.messenger.unsent or user.messenger.ready is None for user in self.users)

    class MachineTests(SynchronousTestCase):  # type: ignore[no-redef]
        """The machine, run.

        :cvar examples: how many courses; more in ``tests/test_random_whole.py``.
        """

        examples = 6

        def test_any_order(self) -> None:
            """Each with 30 things that happen."""
            use_few_keys(self)
            run_state_machine_as_test(
                People,
                settings=settings(
                    max_examples=self.examples,
                    stateful_step_count=30,
                    deadline=None,
                    database=None,
                    derandomize=True,
                    suppress_health_check=list(HealthCheck),
                ),
            )
