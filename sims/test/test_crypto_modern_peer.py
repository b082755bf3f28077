"""Tests of all sessions with one person: which is sent on, which goes, and what a relay can't do to that."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec
from twisted.trial.unittest import SynchronousTestCase

from sims.crypto.chains import DAY
from sims.crypto.opening import open_session
from sims.crypto.payloads import Phase3
from sims.crypto.peer import MAX_OTHERS, PeerSessions
from sims.crypto.prekeys import Bundle, OwnPrekeys, seen
from sims.crypto.session import Incoming
from sims.errors import Code, LocalError, PeerError
from sims.specs import MODERN, MODERN_CLASS
from sims.test.builders import flipped, refusal
from sims.test.modern_builders import NOW, SPECS, Counting, Letter, Outcome, Person, Relay, arrives, stripped
from sims.test.test_crypto_modern_session import ALICE, BOB, CAROL, Pair


class Case(SynchronousTestCase):
    def setUp(self) -> None:
        self.relay = Relay()
        self.alice, self.bob = self.relay.alice, self.relay.bob

    def current(self, one: Person) -> bytes:
        """The session that somebody's messages go out on: its th1."""
        current = one.sessions.current
        assert current is not None
        return current.th1

    def meet(self, count: int = 1) -> list[bytes]:
        """So many confirmed sessions, which alice begins."""
        found = []
        for _ in range(count):
            found.append(self.alice.begin())
            self.alice.say("one more", found[-1])
            self.relay.settle()
        return found

    def comes(self, to: Person, letter: Letter) -> Any:
        """What opens a message, and with which prekeys."""
        came = arrives(letter.src, letter.dst, letter.sent)
        return to.sessions.open(came, to.prekeys, MODERN, now=NOW, entropy=to.entropy)

    def refused(self, one: Person, code: Code | None, act: Callable[[], object]) -> PeerError:
        """``act`` is refused; nothing of this person's has changed, and nothing was drawn."""
        before, draws = one.picture(), one.entropy.draws
        error = refusal(PeerError, act)
        self.assertIn(code, (None, error.code))
        self.assertEqual((one.picture(), one.entropy.draws), (before, draws))
        return error


class WhichIsSentOn(Case):
    def test_both_open_at_once(self) -> None:
        said = {one: one.say(f"from {one.name}") for one in (self.alice, self.bob)}
        self.relay.settle()
        for one in (self.alice, self.bob):
            self.assertIn(said[one], one.other.shown)
            self.assertEqual([session.confirmed for session in one.sessions.sessions], [True, True])
        for _ in range(2):
            for one in (self.alice, self.bob):
                number = one.say("more")
                self.relay.settle()
                self.assertIn(number, one.other.shown)
        self.assertFalse(self.alice.unreadable | self.bob.unreadable)
        self.assertEqual(self.current(self.alice), self.current(self.bob))

    def test_at_first_the_one_with_the_lower_th1(self) -> None:
        for _ in range(6):
            self.setUp()
            found = [self.alice.begin() for _ in range(3)]
            # As bytes, not as numbers: those of SHA-384 are longer than those of SHA-256.
            own, other, entropy = self.alice.sessions, self.bob.bundle, self.alice.entropy
            found += [own.start(MODERN[1:], other, None, now=NOW, entropy=entropy).session for _ in range(2)]
            self.assertEqual({len(th1) for th1 in found}, {32, 48})
            self.assertEqual([session.th1 for session in own.sessions], sorted(found))

    def test_confirmed_before_unconfirmed(self) -> None:
        confirmed = self.meet()[0]
        begun = self.alice.begin()
        self.alice.say("new", begun)
        self.assertEqual(self.comes(self.bob, self.relay.under_way.pop()).session, begun)
        self.assertEqual(self.current(self.bob), confirmed)

    def test_set_aside(self) -> None:
        """No other than one is sent on, over storing, until something new is heard on it."""
        self.meet(3)
        own = self.alice.sessions
        first, second, third = [entry.session.th1 for entry in sorted(own._entries, key=lambda entry: entry.begun)]
        self.assertNotIn(b"aside", own.dump(), "as it was stored before there was this")
        own.set_aside(second)
        self.assertEqual([own.is_open(one) for one in (first, second, third)], [False, True, False])
        own.end(second)
        self.assertIsNone(own.current)
        stored = PeerSessions.load(self.alice.identity, own.dump())
        self.assertEqual([stored.is_open(one) for one in (first, second, third)], [False] * 3)
        number = self.bob.say("still there", first)
        self.relay.settle()
        self.assertIn(number, self.alice.shown)
        self.assertEqual(self.current(self.alice), first)
        self.alice.sessions.set_aside(bytes(32))
        self.assertIsNone(self.alice.sessions.current, "none, behind one that is not there any more")

    def test_what_comes_late_does_not_count_as_heard(self) -> None:
        self.meet(2)
        newer, older = (session.th1 for session in self.bob.sessions.sessions)
        for text in ("b", "c"):
            self.alice.say(text, older)
        skipped = self.relay.under_way.pop(0)
        self.relay.settle()
        self.assertEqual(self.current(self.bob), older)
        self.alice.say("d", newer)
        self.relay.settle()
        self.assertEqual(self.current(self.bob), newer)
        self.relay.under_way.append(skipped)
        self.relay.settle()
        self.assertEqual(self.current(self.bob), newer)

    def test_a_relay_cannot_choose_by_repeating_phases(self) -> None:
        posted: list[Letter] = []
        for _ in range(2):
            session = self.alice.begin()
            self.alice.say("on phase 1", session)
            self.alice.say("again on phase 1", session)
            while self.relay.under_way:
                letter = self.relay.under_way[0]
                posted.append(letter)
                self.relay.deliver()
                if letter.sent.phase == 2:
                    self.alice.say("on phase 3", session)
        phases = {letter.sent.phase for letter in posted}
        self.assertEqual(phases, {1, 2, 3, 4})
        pictures = self.alice.picture(), self.bob.picture()
        now = self.current(self.alice), self.current(self.bob)
        for letter in posted * 2:
            for again in (letter, stripped(letter)):
                receiver = self.relay.who(again)
                receiver.unreadable.add(again.mid)
                self.assertIsNot(receiver.receive(again), Outcome.OPENED)
        self.assertEqual((self.alice.picture(), self.bob.picture()), pictures)
        self.assertEqual((self.current(self.alice), self.current(self.bob)), now)

    def test_none_that_has_ended(self) -> None:
        first, second = self.meet(2)
        self.alice.conversation.end(second)
        self.assertEqual(self.current(self.alice), first)
        self.alice.conversation.end(first)
        self.assertIsNone(self.alice.sessions.current)
        self.assertEqual(len(self.alice.sessions.sessions), 2)
        sealing = self.alice.sessions.seal
        self.assertIs(refusal(LocalError, sealing, b"text", self.alice.entropy).code, Code.NOT_AUTHENTICATED)
        self.assertIs(refusal(LocalError, sealing, b"text", self.alice.entropy, first).code, Code.POLICY)


class WhichGoes(Case):
    def test_unconfirmed_ones_first(self) -> None:
        confirmed = self.meet()[0]
        begun = [self.alice.begin() for _ in range(MAX_OTHERS + 3)]
        kept = {session.th1 for session in self.alice.sessions.sessions}
        self.assertEqual(kept, {confirmed, *begun[-MAX_OTHERS:]})
        self.assertEqual(self.alice.dropped, begun[:-MAX_OTHERS])
        self.assertEqual(set(self.alice.sessions.expire(NOW + 30 * DAY)), set(begun[-MAX_OTHERS:]))
        self.assertEqual([session.th1 for session in self.alice.sessions.sessions], [confirmed])

    def test_the_seventh_that_is_begun_stays(self) -> None:
        confirmed = self.meet(MAX_OTHERS + 1)
        self.assertEqual(len(set(confirmed)), MAX_OTHERS + 1)
        for one in (self.alice, self.bob):
            self.assertTrue(all(session.confirmed for session in one.sessions.sessions))
        for number in (1, 0):
            for one in (self.alice, self.bob):
                one.say("heard", confirmed[number])
                self.relay.settle()
        started = self.alice.sessions.start(MODERN, self.bob.bundle, None, now=NOW, entropy=self.alice.entropy)
        self.assertIsNotNone(self.alice.sessions.find(started.session))
        self.assertEqual(started.dropped, (confirmed[2],))
        # And where it comes: what is dropped is said there, too.
        self.alice.say("seventh", started.session)
        came = self.comes(self.bob, self.relay.under_way.pop())
        self.assertEqual((came.session, came.dropped, came.opened.due), (started.session, (confirmed[2],), 2))
        self.assertIsNotNone(self.bob.sessions.find(started.session))
        self.assertEqual(self.current(self.bob), confirmed[0])

    def test_those_that_are_never_confirmed_drop_each_other(self) -> None:
        confirmed = self.meet(MAX_OTHERS + 1)
        begun = [self.alice.begin() for _ in range(4)]
        self.assertEqual(self.alice.dropped, [confirmed[0], *begun[:-1]])
        kept = [session.th1 for session in self.alice.sessions.sessions]
        self.assertEqual(kept, [*reversed(confirmed[1:]), begun[-1]])

    def test_the_oldest_unconfirmed_one_whoever_began_it(self) -> None:
        theirs = self.alice.begin()
        self.alice.say("one", theirs)
        self.comes(self.bob, self.relay.under_way.pop())
        own = [self.bob.begin() for _ in range(2)]
        self.bob.conversation.end(theirs)
        own += [self.bob.begin() for _ in range(4)]
        self.assertEqual(self.bob.dropped, [theirs])
        self.assertEqual({session.th1 for session in self.bob.sessions.sessions}, set(own))

    def test_never_the_one_that_messages_go_out_on(self) -> None:
        confirmed = self.meet(MAX_OTHERS + 1)
        for session in confirmed[1:]:
            self.alice.conversation.end(session)
        self.assertEqual(self.current(self.alice), confirmed[0])
        self.alice.begin()
        self.assertEqual(self.alice.dropped, [confirmed[1]])
        self.assertEqual(self.current(self.alice), confirmed[0])

    def test_both_begin_one_at_once(self) -> None:
        """Neither drops its own for the other's, though there is no room: what both carry gets through."""
        confirmed = self.meet(MAX_OTHERS + 1)
        begun = [one.begin() for one in (self.alice, self.bob)]
        numbers = [one.say(f"on {th1.hex()}", th1) for one, th1 in zip((self.alice, self.bob), begun, strict=True)]
        self.relay.settle()
        self.assertIn(numbers[0], self.bob.confirmed)
        self.assertIn(numbers[1], self.alice.confirmed)
        for one in (self.alice, self.bob):
            self.assertEqual({session.th1 for session in one.sessions.sessions}, {*begun, *confirmed[2:]})

    def test_a_peer_who_lost_everything_gets_through(self) -> None:
        self.meet(MAX_OTHERS + 1)
        self.bob.conversation = type(self.bob.conversation).new(
            self.bob.identity, self.alice.identity.id, self.bob.entropy
        )
        number = self.bob.say("I lost my store")
        self.relay.settle()
        self.assertIn(number, self.alice.confirmed)
        self.assertEqual(self.current(self.alice), self.current(self.bob))

    def test_after_thirty_days_unheard_and_never_the_current_one(self) -> None:
        older, newer = self.meet(2)
        self.assertEqual(self.alice.sessions.copy().expire(NOW + 30 * DAY - 1), ())
        # What a relay repeats doesn't keep a session.
        letter = self.say_later(older)
        self.assertFalse(self.comes_at(letter, NOW).opened.duplicate)
        letter = self.say_later(newer)
        self.comes_at(letter, NOW + 9)
        self.comes_at(letter, NOW + DAY)
        self.assertEqual(self.bob.sessions.expire(NOW + 30 * DAY), (older,))
        self.assertEqual(self.bob.sessions.expire(NOW + 90 * DAY), ())
        self.bob.conversation.end(newer)
        self.assertEqual(self.bob.sessions.copy().expire(NOW + 30 * DAY + 8), ())
        self.assertEqual(self.bob.sessions.expire(NOW + 30 * DAY + 9), (newer,))

    def say_later(self, session: bytes) -> Letter:
        """A text of alice's that is under way."""
        self.alice.say("text", session)
        return self.relay.under_way.pop()

    def comes_at(self, letter: Letter, now: int) -> Any:
        """It comes to bob at this time."""
        came = arrives(letter.src, letter.dst, letter.sent)
        return self.bob.sessions.open(came, self.bob.prekeys, MODERN, now=now, entropy=self.bob.entropy)


class WhatIsRefused(Case):
    def start(self, one: Person, bundle: Bundle, key: Any = None) -> Callable[[], object]:
        """Begin a session with somebody's bundle."""
        return lambda: one.sessions.start(MODERN, bundle, key, now=NOW, entropy=one.entropy)

    def test_a_bundle_of_somebody_else(self) -> None:
        other = OwnPrekeys().make_bundle(CAROL, "bob", SPECS, now=NOW, entropy=Counting("carol"))
        self.refused(self.alice, Code.NOT_AUTHENTICATED, self.start(self.alice, other))

    def test_an_older_bundle_than_was_seen_or_another_of_its_version(self) -> None:
        older = self.bob.bundle
        same = self.bob.prekeys.copy()
        self.bob.publish()
        newer = self.bob.bundle
        twin = same.make_bundle(self.bob.identity, "bob", SPECS, now=NOW, entropy=self.bob.entropy)
        self.assertEqual(twin.version, newer.version)
        self.start(self.alice, newer)()
        for sessions in (self.alice.sessions, PeerSessions.load(self.alice.identity, self.alice.sessions.dump())):
            self.alice.conversation._sessions = sessions
            for bundle in (older, twin):
                self.refused(self.alice, Code.POLICY, self.start(self.alice, bundle))
        self.start(self.alice, newer)()
        self.assertEqual(self.alice.sessions._state.seen, seen(newer))

    def test_a_one_time_key_that_is_not_signed(self) -> None:
        key = self.bob.one_time[0]
        forged = msgspec.structs.replace(key, signature=flipped(key.signature, 3))
        self.refused(self.alice, Code.NOT_AUTHENTICATED, self.start(self.alice, self.bob.bundle, forged))
        foreign = self.alice.one_time[0]
        self.refused(self.alice, Code.NOT_AUTHENTICATED, self.start(self.alice, self.bob.bundle, foreign))

    def test_a_spec_class_below_what_was_agreed(self) -> None:
        self.alice.say("one")
        for one in (self.alice, self.bob):
            one.sessions._state = msgspec.structs.replace(one.sessions._state, floor=MODERN_CLASS + 1)
        self.refused(self.alice, Code.POLICY, self.start(self.alice, self.bob.bundle))
        letter = self.relay.under_way[0]
        self.refused(self.bob, Code.POLICY, lambda: self.comes(self.bob, letter))

    def test_a_class_is_agreed_when_the_session_is_confirmed(self) -> None:
        floors = []
        self.alice.say("one")
        self.alice.say("two")
        while self.relay.under_way:
            self.relay.deliver()
            floors.append((self.alice.sessions._state.floor, self.bob.sessions._state.floor))
        two = MODERN_CLASS
        self.assertEqual(floors, [(0, 0), (0, 0), (two, 0), (two, two), (two, two)])
        self.assertEqual(PeerSessions.load(self.bob.identity, self.bob.sessions.dump())._state.floor, two)

    def test_a_message_of_another_person(self) -> None:
        carols = PeerSessions(CAROL, self.bob.identity.id)
        carols.start(MODERN, self.bob.bundle, None, now=NOW, entropy=Counting("carol"))
        sent = carols.seal(b"text", Counting("carol 2"))
        came = arrives(CAROL.id, self.bob.identity.id, sent.message)
        arguments: dict[str, Any] = {"now": NOW, "entropy": self.bob.entropy}

        def act() -> object:
            return self.bob.sessions.open(came, self.bob.prekeys, MODERN, **arguments)

        self.assertIn("another person", self.refused(self.bob, Code.NOT_AUTHENTICATED, act).text)
        right = PeerSessions(self.bob.identity, CAROL.id)
        right.open(came, self.bob.prekeys, MODERN, **arguments)

    def test_what_no_session_opens(self) -> None:
        for known in (0, 1, 2):
            phase3 = Incoming(self.alice.identity.id, self.bob.identity.id, 3, None, Phase3(mac=bytes(32)))
            arguments: dict[str, Any] = {"now": NOW, "entropy": self.bob.entropy}
            act = partial(self.bob.sessions.open, phase3, self.bob.prekeys, MODERN, **arguments)
            self.refused(self.bob, Code.NOT_AUTHENTICATED, act)
            if not known:
                self.assertIs(
                    refusal(LocalError, self.bob.sessions.seal, b"text", self.bob.entropy).code, Code.NOT_AUTHENTICATED
                )
            self.meet()

    def test_with_oneself_there_is_none(self) -> None:
        pair = Pair()
        for bundle in (pair.bundle, pair.prekeys.make_bundle(ALICE, "alice", SPECS, now=NOW, entropy=pair.entropy)):
            draws = pair.entropy.draws
            with self.assertRaises(LocalError) as caught:
                open_session(ALICE, MODERN, bundle, None, now=NOW, entropy=pair.entropy, expected=ALICE.id)
            self.assertIs(caught.exception.code, Code.POLICY)
            self.assertEqual(pair.entropy.draws, draws)
        self.assertIs(refusal(LocalError, PeerSessions, CAROL, CAROL.id).code, Code.POLICY)
        first = pair.says(pair.alice, b"one")
        own = msgspec.structs.replace(first.data, sign=BOB.public.sign, dh=BOB.public.dh)
        error = refusal(PeerError, pair.accept, first._replace(src=BOB.id, data=own))
        self.assertIn("one's own", error.text)


class Whatever(Case):
    def test_says_which_phases_are_due(self) -> None:
        sessions = [self.alice.begin() for _ in range(2)]
        for session in sessions:
            self.alice.say("text", session)
        for letter in self.relay.under_way[:]:
            self.comes(self.bob, letter)
        self.assertEqual(set(self.bob.sessions.due()), {(session, 2) for session in sessions})
        restored = PeerSessions.load(self.bob.identity, self.bob.sessions.dump())
        self.assertEqual(set(restored.due()), {(session, 2) for session in sessions})
        self.bob.transmit(None, sessions[0])
        self.assertEqual(self.bob.sessions.due(), ((sessions[1], 2),))

    def test_copies_go_their_own_way(self) -> None:
        older, newer = self.meet(2)
        before = self.alice.sessions.dump()
        copy = self.alice.sessions.copy()
        self.assertEqual(copy.dump(), before)
        copy.seal(b"text", self.alice.entropy, older)
        copy.start(MODERN, self.bob.bundle, None, now=NOW, entropy=self.alice.entropy)
        copy.end(newer)
        copy.remove(older)
        copy.expire(NOW + 90 * DAY)
        for session in (*self.alice.sessions.sessions, self.alice.sessions.current, self.alice.sessions.find(older)):
            assert session is not None
            session.end()
        self.assertEqual(self.alice.sessions.dump(), before)
        self.assertNotEqual(copy.dump(), before)
        self.assertEqual(repr(self.alice.sessions), f"<2 sessions with {self.bob.identity.id}>")

    def test_knows_the_peers_keys(self) -> None:
        self.assertIsNone(self.alice.sessions.peer)
        self.meet()
        for one in (self.alice, self.bob):
            self.assertEqual(one.sessions.peer, one.other.identity.public)
            for session in one.sessions.sessions:
                one.sessions.remove(session.th1)
            loaded = PeerSessions.load(one.identity, one.sessions.dump())
            self.assertEqual(loaded.peer, one.other.identity.public)
