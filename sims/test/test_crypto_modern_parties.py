"""Three people, each of whom talks with the two others, and a relay that may do anything with what they post.

It drops, delays, doubles, reorders and tampers; it gives to one what is for another, and as from another. The people
crash, open sessions beside those that they have, and restore old copies of their whole store. Whatever happens, what is
shown was sent by whom it says, to whom it is shown, once; what was not dropped is shown; and once the relay is honest,
both directions work between any two within two round trips.
"""

from __future__ import annotations

from itertools import combinations, permutations

from twisted.trial.unittest import SynchronousTestCase

from sims.test.builders import NO_HYPOTHESIS
from sims.test.modern_builders import Letter, Outcome, Person, Saved, stripped, tampered

try:
    from hypothesis import HealthCheck, settings
    from hypothesis import strategies as st
    from hypothesis.stateful import (
        RuleBasedStateMachine,
        initialize,
        invariant,
        precondition,
        rule,
        run_state_machine_as_test,
    )
except ImportError:

    class Machines(SynchronousTestCase):
        skip = NO_HYPOTHESIS

        def test_machines(self) -> None:
            """Not without hypothesis."""

else:
    SETTINGS = settings(
        stateful_step_count=40,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    NAMES = ("alice", "bob", "carol")
    PAIRS = tuple(permutations(NAMES, 2))
    TALKS = tuple(combinations(NAMES, 2))
    pairs = st.sampled_from(PAIRS)
    #: Each end keeps six sessions with one person; so many are begun for no reason.
    MAX_BEGUN = 3
    MAX_ROLLED_BACK = 2

    class Parties:
        """Three people and what they have posted. The two ends of one person have the same keys and one randomness.

        :ivar ends: of each pair, the first's end of their talk.
        """

        def __init__(self) -> None:
            self.under_way: list[Letter] = []
            self.ends = {pair: Person(pair[0], self.under_way.append) for pair in PAIRS}
            self.names = {self.ends[pair].identity.id: pair[0] for pair in PAIRS}
            for (one, other), end in self.ends.items():
                end.entropy = self.of(one)[0].entropy
                self.share(one, end)
                end.meet(self.ends[other, one])

        def of(self, name: str) -> list[Person]:
            """Both ends of one person."""
            return [end for (one, _), end in self.ends.items() if one == name]

        def share(self, name: str, first: Person) -> None:
            """The keys of this end are now those of the person."""
            for end in self.of(name):
                end.prekeys, end.published, end.bundle = first.prekeys, first.published, first.bundle
                end.one_time = first.one_time

        def who(self, letter: Letter) -> Person:
            """For which end a message is."""
            return self.ends[self.names[letter.dst], self.names[letter.src]]

        def receive(self, letter: Letter) -> Outcome:
            """A message arrives at the end that it is for, going by what is written on it."""
            end = self.who(letter)
            others = {other: other.conversation.dump() for other in self.of(end.name) if other is not end}
            outcome = end.receive(letter)
            self.share(end.name, end)
            assert {other: other.conversation.dump() for other in others} == others, "a message in another talk"
            return outcome

        def picture(self, name: str) -> list[Saved]:
            """What one person has stored."""
            return [end.picture() for end in self.of(name)]

        def settle(self) -> None:
            """Deliver everything, and what it causes, in order."""
            for _ in range(1000):
                if not self.under_way:
                    return
                self.receive(self.under_way.pop(0))
            raise AssertionError("people who do not come to rest")

    class Relayed(RuleBasedStateMachine):
        """What the relay does, and what happens to the people."""

        def __init__(self) -> None:
            super().__init__()
            self.parties = Parties()
            self.said: dict[tuple[str, str], dict[bytes, str]] = {pair: {} for pair in PAIRS}
            self.saved = {name: [self.parties.picture(name)] for name in NAMES}
            self.delivered: list[Letter] = []
            self.diverted: set[bytes] = set()
            self.lost: set[bytes] = set()
            self.begun = 0
            self.rolled_back: list[str] = []

        @property
        def under_way(self) -> list[Letter]:
            """What is posted, and has not arrived."""
            return self.parties.under_way

        @initialize(pair=pairs, both=st.booleans())
        def open(self, pair: tuple[str, str], both: bool) -> None:
            """One or both of two people open, before anything has come."""
            for one in (pair, pair[::-1]) if both else (pair,):
                self.text(one)

        @rule(pair=pairs, texts=st.integers(1, 3))
        def say(self, pair: tuple[str, str], texts: int) -> None:
            """The one says something to the other."""
            for _ in range(texts):
                self.text(pair)

        def text(self, pair: tuple[str, str]) -> bytes:
            """The id of a text that the one says to the other."""
            text = f"{pair[0]} to {pair[1]}: {len(self.said[pair])}"
            number = self.parties.ends[pair].say(text)
            self.said[pair][number] = text
            return number

        @precondition(lambda self: self.begun < MAX_BEGUN)
        @rule(pair=pairs)
        def begin(self, pair: tuple[str, str]) -> None:
            """The one opens one more session with the other."""
            self.begun += 1
            self.parties.ends[pair].begin()

        @precondition(lambda self: self.under_way)
        @rule(data=st.data(), again=st.booleans())
        def deliver(self, data: st.DataObject, again: bool) -> None:
            """Any message arrives, be it the next or not; perhaps it comes twice."""
            letter = self.under_way.pop(data.draw(st.integers(0, len(self.under_way) - 1)))
            self.delivered.append(letter)
            first = self.parties.receive(letter)
            if again:
                known = Outcome.UNREADABLE if first is Outcome.UNREADABLE else Outcome.DUPLICATE
                self.changes_nothing(letter, (known,))

        @precondition(lambda self: self.delivered and not self.rolled_back)
        @rule(data=st.data())
        def replay(self, data: st.DataObject) -> None:
            """What arrived long ago arrives once more, whole or without what rode on it."""
            letter = data.draw(st.sampled_from(self.delivered))
            for again in (letter, stripped(letter)):
                self.changes_nothing(again, (Outcome.DUPLICATE, Outcome.UNREADABLE))

        @precondition(lambda self: self.under_way)
        @rule(data=st.data(), where=st.integers(0, 10_000), bit=st.integers(0, 7))
        def tamper(self, data: st.DataObject, where: int, bit: int) -> None:
            """A changed copy arrives, and the real one still comes."""
            letter = data.draw(st.sampled_from(self.under_way))
            self.changes_nothing(tampered(letter, where, bit), (Outcome.UNREADABLE,))

        @precondition(lambda self: self.under_way or self.delivered)
        @rule(data=st.data(), pair=pairs, asked=st.booleans())
        def divert(self, data: st.DataObject, pair: tuple[str, str], asked: bool) -> None:
            """A message comes to another person than it is for, or or as from another; perhaps it is asked for."""
            letter = data.draw(st.sampled_from(self.under_way + self.delivered))
            src, dst = (self.parties.ends[pair].identity.id for pair in (pair, pair[::-1]))
            if (src, dst) == (letter.src, letter.dst):
                return
            wrong = letter._replace(src=src, dst=dst)
            self.changes_nothing(wrong, (Outcome.UNREADABLE,))
            if asked and self.begun < MAX_BEGUN:
                self.begun += 1
                self.diverted.add(letter.mid)
                self.parties.receive(wrong)

        def changes_nothing(self, letter: Letter, allowed: tuple[Outcome, ...]) -> None:
            """A message arrives, of which nobody knows and which is not asked for: nothing changes, nothing is said."""
            end = self.parties.who(letter)
            asked, end.unreadable = end.unreadable, {*end.unreadable, letter.mid}
            before, posted = self.parties.picture(end.name), len(self.under_way)
            assert self.parties.receive(letter) in allowed
            assert self.parties.picture(end.name) == before
            assert len(self.under_way) == posted
            end.unreadable = asked

        @precondition(lambda self: self.under_way)
        @rule(data=st.data())
        def drop(self, data: st.DataObject) -> None:
            """Any message is lost, with what it says or without."""
            letter = self.under_way.pop(data.draw(st.integers(0, len(self.under_way) - 1)))
            sent = self.parties.who(letter).other.sent
            if letter.mid in sent:
                self.lost.add(sent[letter.mid])

        @rule(name=st.sampled_from(NAMES))
        def crash(self, name: str) -> None:
            """Somebody starts again from what is stored; and from now on, or no more, before they answer a phase."""
            before = self.parties.picture(name)
            self.restore(name, before)
            assert self.parties.picture(name) == before
            for end in self.parties.of(name):
                end.crashes = not end.crashes

        def restore(self, name: str, saved: list[Saved]) -> None:
            """Somebody's store is this one."""
            for end, one in zip(self.parties.of(name), saved, strict=True):
                end.restore(one)
            self.parties.share(name, end)

        @rule(pair=pairs)
        def round_trip(self, pair: tuple[str, str]) -> None:
            """Everything arrives, and two people talk; then everybody makes a copy of their store."""
            self.talk(pair)
            for name in NAMES:
                self.saved[name].append(self.parties.picture(name))

        def talk(self, pair: tuple[str, str]) -> tuple[bytes, bytes]:
            """The one says something, then the other; everything arrives, in order."""
            self.parties.settle()
            asked = self.text(pair)
            self.parties.settle()
            answered = self.text(pair[::-1])
            self.parties.settle()
            return asked, answered

        @precondition(lambda self: len(self.rolled_back) < MAX_ROLLED_BACK)
        @rule(name=st.sampled_from(NAMES), noticed=st.booleans())
        def roll_back(self, name: str, noticed: bool) -> None:
            """Somebody restores the copy of two round trips before; the server's epoch shows it, or nothing does."""
            saved = self.saved[name][-3:][0]
            self.restore(name, saved)
            if noticed:
                first, second = self.parties.of(name)
                first.roll_back(saved[0])
                self.parties.share(name, first)
                second.conversation.restored(second.entropy)
                second._asking = None
            self.saved[name] = [self.parties.picture(name)]
            self.rolled_back.append(name)

        @invariant()
        def what_is_shown_was_said(self) -> None:
            """By this one, to that one."""
            for (one, other), end in self.parties.ends.items():
                assert end.shown.items() <= self.said[other, one].items()

        @invariant()
        def nothing_honest_is_unreadable(self) -> None:
            """But what comes on a session that had to go, or from before a store was restored."""
            ends = self.parties.ends.values()
            if not self.rolled_back and not any(end.dropped for end in ends):
                assert all(end.unreadable <= self.diverted for end in ends)

        def teardown(self) -> None:
            """The relay is honest now."""
            for pair in TALKS:
                self.talk(pair)
            probes = {}
            for pair in TALKS:
                probes[pair], probes[pair[::-1]] = self.talk(pair)
            lost = b"".join(self.lost)
            for (one, other), end in self.parties.ends.items():
                assert probes[other, one] in end.confirmed
                assert not end.conversation.due()
                if not (end.dropped or end.other.dropped or {one, other} & {*self.rolled_back}):
                    assert all(number in end.shown or number in lost for number in self.said[other, one])

    class Machines(SynchronousTestCase):  # type: ignore[no-redef]
        """The machine, run.

        :cvar examples: how many courses; more in ``tests/test_random_whole.py``.
        """

        examples = 6

        def test_a_relay_can_do_no_harm(self) -> None:
            run_state_machine_as_test(Relayed, settings=settings(SETTINGS, max_examples=self.examples))
