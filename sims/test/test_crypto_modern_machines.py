"""Two people and a relay that drops, delays, doubles, reorders and tampers; crashes and restored copies of a store.

Whatever happens, what is shown was sent by whom it says and a refusal changes nothing (both are asserted in
:mod:`sims.test.modern_builders`); what was not dropped is shown, once; and after a fault both directions work again
within two round trips.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from sims.crypto.content import Place
from sims.crypto.peer import MAX_OTHERS
from sims.test.builders import NO_HYPOTHESIS
from sims.test.modern_builders import Letter, Outcome, Person, Relay, stripped, tampered

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

    #: Each end keeps six sessions: with so many begun by each, some are dropped, unconfirmed and confirmed ones.
    MAX_BEGUN = 9

    class Relayed(RuleBasedStateMachine):
        """What a relay can do, and crashes; nobody restores an old copy."""

        def __init__(self) -> None:
            super().__init__()
            self.relay = Relay()
            self.said: dict[str, dict[bytes, str]] = {"alice": {}, "bob": {}}
            self.lost: set[bytes] = set()
            self.begun = {"alice": 0, "bob": 0}
            self.delivered: list[Letter] = []

        def _person(self, alice: bool) -> Person:
            return self.relay.alice if alice else self.relay.bob

        @initialize(both=st.booleans())
        def open_at_once(self, both: bool) -> None:
            """One or both open, before anything has come."""
            for alice in (True, False) if both else (True,):
                self.say(alice)

        @rule(alice=st.booleans())
        def say(self, alice: bool) -> None:
            """Somebody says something."""
            speaker = self._person(alice)
            if speaker.conversation.needs_bundle:
                self.begun[speaker.name] += 1
            text = f"{speaker.name} {len(self.said[speaker.name])}"
            self.said[speaker.name][speaker.say(text)] = text

        @rule(alice=st.booleans())
        def begin(self, alice: bool) -> None:
            """Somebody opens one more session, as one does who has lost the others."""
            person = self._person(alice)
            if self.begun[person.name] < MAX_BEGUN:
                self.begun[person.name] += 1
                person.begin()

        @precondition(lambda self: self.relay.under_way)
        @rule(data=st.data())
        def deliver(self, data: st.DataObject) -> None:
            """Any message arrives, be it the next or not."""
            index = data.draw(st.integers(0, len(self.relay.under_way) - 1))
            self.delivered.append(self.relay.under_way[index])
            self.relay.deliver(index)

        @precondition(lambda self: self.relay.under_way)
        @rule(data=st.data())
        def double(self, data: st.DataObject) -> None:
            """Any message arrives, and will do so again."""
            index = data.draw(st.integers(0, len(self.relay.under_way) - 1))
            letter = self.relay.under_way[index]
            receiver = self.relay.who(letter)
            first = receiver.receive(letter)
            before = receiver.picture()
            again = receiver.receive(letter)
            assert again is (Outcome.UNREADABLE if first is Outcome.UNREADABLE else Outcome.DUPLICATE)
            assert receiver.picture() == before

        @precondition(lambda self: self.delivered)
        @rule(data=st.data())
        def replay(self, data: st.DataObject) -> None:
            """What arrived long ago arrives once more, whole or without what rode on it: it changes nothing at all."""
            letter = data.draw(st.sampled_from(self.delivered))
            receiver = self.relay.who(letter)
            before = receiver.picture()
            for again in (letter, stripped(letter)):
                assert self.quietly(receiver, again) is not Outcome.OPENED
                assert receiver.picture() == before

        @precondition(lambda self: self.relay.under_way)
        @rule(data=st.data())
        def strip(self, data: st.DataObject) -> None:
            """A message arrives without what rides on it, and the real one still comes."""
            letter = data.draw(st.sampled_from(self.relay.under_way))
            receiver = self.relay.who(letter)
            before = receiver.picture()
            outcome = self.quietly(receiver, stripped(letter))
            assert outcome is Outcome.OPENED or receiver.picture() == before

        def quietly(self, receiver: Person, letter: Letter) -> Outcome:
            """A message arrives of which nobody knows: if it cannot be opened, it is not asked for."""
            asked = set(receiver.unreadable)
            receiver.unreadable.add(letter.mid)
            outcome = receiver.receive(letter)
            receiver.unreadable = asked
            return outcome

        @precondition(lambda self: self.relay.under_way)
        @rule(data=st.data(), where=st.integers(0, 10_000), bit=st.integers(0, 7))
        def tamper(self, data: st.DataObject, where: int, bit: int) -> None:
            """A changed copy arrives: it is refused, and the real one still comes."""
            letter = data.draw(st.sampled_from(self.relay.under_way))
            receiver = self.relay.who(letter)
            posted = len(self.relay.under_way)
            before = receiver.picture()
            assert self.quietly(receiver, tampered(letter, where, bit)) is not Outcome.OPENED
            assert receiver.picture() == before
            assert len(self.relay.under_way) == posted

        @precondition(lambda self: self.relay.under_way)
        @rule(data=st.data())
        def drop(self, data: st.DataObject) -> None:
            """A text is lost; the phases are given once more with the next one, if there is one."""
            index = data.draw(st.integers(0, len(self.relay.under_way) - 1))
            letter = self.relay.under_way[index]
            sender = self._person(letter.src == self.relay.alice.identity.id)
            if letter.mid in sender.sent and letter.sent.phase is None:
                del self.relay.under_way[index]
                self.lost.add(sender.sent[letter.mid])

        @rule(alice=st.booleans())
        def crash(self, alice: bool) -> None:
            """Somebody starts again from what is stored; and from now on, or no more, before they answer a phase."""
            person = self._person(alice)
            before = person.picture()
            person.restore(before)
            assert person.picture() == before
            person.crashes = not person.crashes

        @invariant()
        def nothing_is_unreadable(self) -> None:
            """An honest message is never asked for again, but on a session that had to go."""
            alice, bob = self.relay.alice, self.relay.bob
            assert alice.dropped or bob.dropped or not (alice.unreadable or bob.unreadable)

        @invariant()
        def each_keeps_six_sessions(self) -> None:
            """And the one that messages go out on is never the one that goes."""
            for person in (self.relay.alice, self.relay.bob):
                sessions = person.sessions.sessions
                assert len(sessions) <= MAX_OTHERS + 1
                assert len(set(person.dropped)) == len(person.dropped)
                assert not {session.th1 for session in sessions} & set(person.dropped)

        @invariant()
        def nothing_is_shown_that_was_not_said(self) -> None:
            """And nothing is shown as another's."""
            for person in (self.relay.alice, self.relay.bob):
                assert person.shown.items() <= self.said[person.other.name].items()

        def teardown(self) -> None:
            """The relay delivers the rest: everything that was not dropped is there, and in order if nothing was."""
            self.relay.settle()
            alice, bob = self.relay.alice, self.relay.bob
            for person in (alice, bob):
                lost = {content[32:] for content in self.lost}
                said = self.said[person.other.name]
                missing = [number for number in said if number not in person.shown]
                assert all(any(number in packed for packed in lost) for number in missing)
                if not (lost or alice.dropped or bob.dropped) and person.shown:
                    person.places.clear()
                    said[person.other.say("last")] = "last"
                    self.relay.settle()
                    confirmed = all(session.confirmed for session in person.sessions.sessions)
                    assert not confirmed or person.places[-1] is Place.IN_ORDER
            for person in (alice, bob):
                assert not person.conversation.due()

    class Restored(RuleBasedStateMachine):
        """As before, and each may restore an old copy of their store; the relay is honest."""

        def __init__(self) -> None:
            super().__init__()
            self.relay = Relay()
            self.saved = {"alice": [self.relay.alice.picture()], "bob": [self.relay.bob.picture()]}
            self.rolled_back = 0

        def _person(self, alice: bool) -> Person:
            return self.relay.alice if alice else self.relay.bob

        @rule(alice=st.booleans())
        def say(self, alice: bool) -> None:
            """Somebody says something."""
            self._person(alice).say("something")

        @rule(alice=st.booleans())
        def save(self, alice: bool) -> None:
            """Somebody makes a copy of their store."""
            person = self._person(alice)
            self.saved[person.name].append(person.picture())

        @precondition(lambda self: self.relay.under_way)
        @rule()
        def deliver(self) -> None:
            """The next message arrives."""
            self.relay.deliver()

        @rule()
        def settle(self) -> None:
            """All messages arrive."""
            self.relay.settle()

        @precondition(lambda self: self.rolled_back < 2)
        @rule(alice=st.booleans(), data=st.data())
        def roll_back(self, alice: bool, data: st.DataObject) -> None:
            """Somebody restores a copy."""
            person = self._person(alice)
            self.rolled_back += 1
            person.roll_back(data.draw(st.sampled_from(self.saved[person.name])))
            self.saved[person.name] = [person.picture()]

        def teardown(self) -> None:
            """Within two round trips, both directions work."""
            alice, bob = self.relay.alice, self.relay.bob
            for _ in range(2):
                alice.say("are you there?")
                self.relay.settle()
                bob.say("yes")
                self.relay.settle()
            asked, answered = alice.say("good"), bob.say("good")
            self.relay.settle()
            assert asked in bob.shown
            assert answered in alice.shown

    class Machines(SynchronousTestCase):  # type: ignore[no-redef]
        """The machines, run.

        :cvar examples: how many courses; more in ``tests/test_random_whole.py``.
        """

        examples = 6

        def test_a_relay_can_do_no_harm(self) -> None:
            run_state_machine_as_test(Relayed, settings=settings(SETTINGS, max_examples=self.examples))

        def test_a_restored_copy_is_healed(self) -> None:
            run_state_machine_as_test(Restored, settings=settings(SETTINGS, max_examples=self.examples))
