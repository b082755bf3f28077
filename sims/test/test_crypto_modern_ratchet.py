"""Tests of the ratchet: what it keeps, for how long, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from sims.crypto import chains, ratchet, remembered
from sims.crypto.payloads import Message, Phase1, Phase3
from sims.crypto.ratchet import Ratchet
from sims.crypto.session import Incoming, Session
from sims.errors import Code
from sims.test.builders import flipped
from sims.test.modern_builders import NOW
from sims.test.test_crypto_modern_session import ALICE, BOB, DAY, Case, Pair


class Ratcheting(Case):
    def setUp(self) -> None:
        self.pair = Pair()
        self.pair.finish()
        self.alice, self.bob = self.pair.alice, self.pair.bob

    def says(self, session: Session, content: bytes) -> Incoming:
        """What a session's message is where it arrives."""
        return self.pair.says(session, content)

    def test_a_state_comes_back(self) -> None:
        for number in range(6):
            sender, receiver = (self.alice, self.bob) if number % 2 else (self.bob, self.alice)
            self.says(sender, b"lost")
            self.assertEqual(receiver.open(self.says(sender, b"%d" % number), NOW).content, b"%d" % number)
            dumped = self.alice.dump(), self.bob.dump()
            self.alice, self.bob = Session.load(ALICE, dumped[0]), Session.load(BOB, dumped[1])
            self.assertEqual((self.alice.dump(), self.bob.dump()), dumped)

    def test_own_ratchet_keys_go_once_the_peers_next_chain_has_come(self) -> None:
        self.assertIsNone(self.alice.state.ratchet.own_dh)
        came = self.says(self.alice, b"1")
        self.assertIsNotNone(self.alice.state.ratchet.own_dh)
        self.bob.open(came, NOW)
        answer = self.says(self.bob, b"2")
        self.alice.open(answer, NOW)
        self.assertIsNone(self.alice.state.ratchet.own_dh)
        self.assertIsNone(self.alice.state.ratchet.own_kem)

    def test_a_jump_has_a_limit(self) -> None:
        came = [self.says(self.alice, b"%d" % number) for number in range(chains.MAX_JUMP + 2)]
        self.refused(Code.TOO_LARGE, self.bob, self.bob.open, came[-1], NOW)
        self.assertEqual(self.bob.open(came[-2], NOW).content, b"%d" % chains.MAX_JUMP)
        # As many keys are kept as there may be: one more lets the oldest go.
        self.assertEqual(self.bob.open(came[0], NOW).content, b"0")
        more = [self.says(self.alice, b"more") for _ in range(3)]
        self.assertEqual(self.bob.open(more[2], NOW).content, b"more")
        self.refused(Code.NOT_AUTHENTICATED, self.bob, self.bob.open, came[1], NOW)
        kept = self.bob.state.ratchet.receiving
        assert kept is not None
        self.assertEqual(len(kept.skipped), chains.MAX_SKIPPED)
        self.assertEqual(self.bob.open(came[-1], NOW).content, b"%d" % (chains.MAX_JUMP + 1))
        self.assertEqual(self.bob.open(came[5], NOW).content, b"5")

    def test_a_jump_over_two_chains_has_the_same_limit(self) -> None:
        self.bob.open(self.says(self.alice, b"first"), NOW)
        for _ in range(1500):
            self.alice.seal(b"lost", self.pair.entropy)
        self.alice.open(self.says(self.bob, b"turn"), NOW)
        later = [self.says(self.alice, b"later") for _ in range(503)]
        self.refused(Code.TOO_LARGE, self.bob, self.bob.open, later[501], NOW)
        self.assertEqual(self.bob.open(later[500], NOW).content, b"later")

    def test_skipped_keys_live_for_thirty_days(self) -> None:
        came = [self.says(self.alice, b"%d" % number) for number in range(4)]
        self.bob.open(came[1], NOW)
        self.bob.open(came[3], NOW + 5)
        self.refused(Code.NOT_AUTHENTICATED, self.bob, self.bob.open, came[0], NOW + 30 * DAY)
        self.assertEqual(Session.load(BOB, self.bob.dump()).open(came[0], NOW + 30 * DAY - 1).content, b"0")
        self.bob.expire(NOW + 30 * DAY)
        kept = self.bob.state.ratchet.receiving
        assert kept is not None
        self.assertEqual(list(kept.skipped), [2])
        self.assertEqual(self.bob.open(came[2], NOW + 30 * DAY + 4).content, b"2")

    def test_old_keys_go_with_the_next_message(self) -> None:
        came = [self.says(self.alice, b"%d" % number) for number in range(3)]
        self.bob.open(came[1], NOW)
        self.bob.open(came[2], NOW + 31 * DAY)
        kept = self.bob.state.ratchet.receiving
        assert kept is not None
        self.assertEqual(kept.skipped, {})

    def test_a_message_that_comes_twice_is_silent(self) -> None:
        came = [self.says(self.alice, b"%d" % number) for number in range(3)]
        for number in (0, 2, 1):
            self.bob.open(came[number], NOW)
        self.alice.open(self.says(self.bob, b"turn"), NOW)
        self.bob.open(self.says(self.alice, b"turn"), NOW)
        for restored in (False, True):
            if restored:
                self.bob = Session.load(BOB, self.bob.dump())
            for message in came:
                self.duplicate(self.bob, message)

    def test_a_number_that_is_used_again_is_unreadable(self) -> None:
        first = self.says(self.alice, b"one")
        self.bob.open(first, NOW)
        again = Session.load(ALICE, self.alice.dump())
        self.bob.open(self.says(self.alice, b"two"), NOW)
        error = self.refused(Code.NOT_AUTHENTICATED, self.bob, self.bob.open, self.says(again, b"other"), NOW)
        self.assertIn("under a number that was used", error.text)

    def test_a_header_that_breaks_a_rule_is_refused(self) -> None:
        self.bob.open(self.says(self.alice, b"one"), NOW)
        stored = self.alice.dump()

        def forged(change: Callable[[Ratchet], None]) -> Incoming:
            session = Session.load(ALICE, stored)
            change(session._ratchet)
            return self.says(session, b"forged")

        def sending(**changes: Any) -> Callable[[Ratchet], None]:
            def change(ratchet: Ratchet) -> None:
                changed = msgspec.structs.replace(ratchet.state.sending, **changes)
                ratchet._state = msgspec.structs.replace(ratchet.state, sending=changed)

            return change

        kem = self.alice.state.ratchet.sending.kem
        for change in (
            sending(dh=bytes(32)),
            sending(kem=b""),
            sending(kem=kem[:-1]),
            sending(kem=flipped(kem, 0)),
        ):
            self.refused(Code.MALFORMED, self.bob, self.bob.open, forged(change), NOW)
        # A new chain whose predecessor is said to have been shorter than it was.
        self.alice.open(self.says(self.bob, b"turn"), NOW)
        came = self.alice.dump()
        session = Session.load(ALICE, came)
        sending(n=0)(session._ratchet)
        self.refused(Code.MALFORMED, self.bob, self.bob.open, self.says(session, b"forged"), NOW)
        self.assertEqual(self.bob.open(self.says(self.alice, b"good"), NOW).content, b"good")

    def test_many_turns_keep_little(self) -> None:
        sizes = []
        for number in range(40):
            self.says(self.alice, b"lost") if number < 3 else None
            self.bob.open(self.says(self.alice, b"text"), NOW)
            self.alice.open(self.says(self.bob, b"text"), NOW)
            sizes.append(len(self.bob.dump()))
        state = self.bob.state.ratchet
        self.assertEqual(len(state.past), 3 + chains.MAX_PAST)
        self.assertEqual(sizes[-1], sizes[-10])

    def test_what_is_remembered_has_a_limit(self) -> None:
        came = [self.says(self.alice, b"text") for _ in range(chains.MAX_REMEMBERED + ratchet.TIDY_EVERY)]
        for message in came:
            self.bob.open(message, NOW)
        state = self.bob.state.ratchet
        assert state.receiving is not None
        kept = remembered.count(state.receiving.used)
        self.assertLess(abs(kept - chains.MAX_REMEMBERED), ratchet.TIDY_EVERY)
        self.duplicate(self.bob, came[-1])
        self.refused(Code.NOT_AUTHENTICATED, self.bob, self.bob.open, came[0], NOW)

    def test_what_rode_on_a_phase_stays_on_it(self) -> None:
        pair = Pair()
        first = pair.says(pair.alice, b"one")
        bob, _ = pair.accept(first)
        pair.alice.open(pair.says(bob, None), NOW)
        third = pair.says(pair.alice, b"three")
        assert isinstance(first.data, Phase1)
        assert isinstance(third.data, Phase3)
        moved = first._replace(data=msgspec.structs.replace(first.data, message=third.data.message))
        self.refused(Code.MALFORMED, bob, bob.open, moved, NOW)
        message = third.data.message
        assert isinstance(message, Message)
        unwrapped = Incoming(ALICE.id, BOB.id, None, None, message)
        self.refused(Code.NOT_AUTHENTICATED, bob, bob.open, unwrapped, NOW)
        self.assertEqual(bob.open(third, NOW).content, b"three")

    def test_what_rode_on_phase_1_does_not_ride_on_phase_3(self) -> None:
        pair = Pair()
        first, second = pair.says(pair.alice, b"one"), pair.says(pair.alice, b"two")
        bob, _ = pair.accept(first)
        pair.alice.open(pair.says(bob, None), NOW)
        third = pair.says(pair.alice, None)
        assert isinstance(second.data, Phase1)
        assert isinstance(third.data, Phase3)
        moved = third._replace(data=msgspec.structs.replace(third.data, message=second.data.message))
        self.refused(Code.MALFORMED, bob, bob.open, moved, NOW)
        bob.open(third, NOW)
        self.assertEqual(bob.open(second, NOW).content, b"two")

    def test_a_changed_body_skips_nothing(self) -> None:
        for turn in (False, True, False):
            if turn:
                self.alice.open(self.says(self.bob, b"turn"), NOW)
            came = [self.says(self.alice, b"%d" % number) for number in range(3)]
            for message in (came[2], came[0]):
                assert isinstance(message.data, Message)
                data = msgspec.structs.replace(message.data, body=flipped(message.data.body, 9))
                self.refused(Code.NOT_AUTHENTICATED, self.bob, self.bob.open, message._replace(data=data), NOW)
            for number in (1, 2, 0):
                self.assertEqual(self.bob.open(came[number], NOW).content, b"%d" % number)

    def test_a_chain_with_a_kem_key_that_cannot_be_is_refused(self) -> None:
        # Nothing could be sent to such a key: the session would be stuck.
        self.bob.open(self.says(self.alice, b"one"), NOW)
        self.alice.open(self.says(self.bob, b"turn"), NOW)
        self.says(self.alice, b"lost")
        state = self.alice.state.ratchet
        sending = msgspec.structs.replace(state.sending, kem=b"\xff" * 3 + state.sending.kem[3:])
        self.alice._ratchet._state = msgspec.structs.replace(state, sending=sending)
        self.refused(Code.MALFORMED, self.bob, self.bob.open, self.says(self.alice, b"two"), NOW)

    def turn(self) -> None:
        """Each has a new chain."""
        self.alice.open(self.says(self.bob, b"turn"), NOW)
        self.bob.open(self.says(self.alice, b"turn"), NOW)

    def forged(self, stored: bytes, **changes: Any) -> Incoming:
        """What alice could send with what she once had, and some of it changed."""
        session = Session.load(ALICE, stored)
        state = session._ratchet.state
        sending = msgspec.structs.replace(state.sending, **changes)
        session._ratchet._state = msgspec.structs.replace(state, sending=sending)
        return self.says(session, b"forged")

    def test_a_chain_ends_where_the_next_begins(self) -> None:
        came = self.says(self.alice, b"one")
        self.bob.open(came, NOW)
        stored = self.alice.dump()
        chain = self.bob.state.ratchet.receiving
        assert chain is not None
        self.turn()
        ended = self.bob.state.ratchet.past[-1]
        self.assertEqual((ended.header_key, ended.n, ended.key), (chain.header_key, 1, b""))
        self.assertEqual(len(ended.kem), 32)
        # Under a chain key that anybody knows, or under the right one.
        for changes in ({"key": b""}, {}):
            error = self.refused(Code.MALFORMED, self.bob, self.bob.open, self.forged(stored, **changes), NOW)
            self.assertIn("behind the end", error.text)
        self.duplicate(self.bob, came)

    def test_a_later_chain_does_not_begin_like_a_first_one(self) -> None:
        self.bob.open(self.says(self.alice, b"one"), NOW)
        self.alice.open(self.says(self.bob, b"turn"), NOW)
        self.says(self.alice, b"lost")
        error = self.refused(Code.MALFORMED, self.bob, self.bob.open, self.forged(self.alice.dump(), kem=b""), NOW)
        self.assertIn("begins out of order", error.text)

    def test_a_past_chain_is_known_by_its_kem_key(self) -> None:
        lost = self.says(self.alice, b"lost")
        stored = self.alice.dump()
        self.bob.open(self.says(self.alice, b"one"), NOW)
        self.turn()
        kem = Session.load(ALICE, stored).state.ratchet.sending.kem
        came = self.forged(stored, n=0, kem=flipped(kem, 7))
        self.assertIn("other keys", self.refused(Code.MALFORMED, self.bob, self.bob.open, came, NOW).text)
        self.assertEqual(self.bob.open(lost, NOW).content, b"lost")

    def test_a_message_lost_in_each_chain_costs_little(self) -> None:
        self.patch(chains, "MAX_UNFINISHED", 12)
        lost = []
        for _ in range(12 + chains.MAX_PAST + 5):
            lost.append(self.says(self.alice, b"lost"))
            self.bob.open(self.says(self.alice, b"one"), NOW)
            self.alice.open(self.says(self.bob, b"turn"), NOW)
        self.assertEqual(len(self.bob.state.ratchet.past), 12 + chains.MAX_PAST)
        past = len(self.bob.dump()) - len(self.alice.dump())
        self.assertLess(past, (12 + chains.MAX_PAST) * 350)
        self.refused(Code.NOT_AUTHENTICATED, self.bob, self.bob.open, lost[3], NOW)
        self.bob = Session.load(BOB, self.bob.dump())
        for message in lost[4:]:
            self.assertEqual(self.bob.open(message, NOW).content, b"lost")
        self.assertEqual(len(self.bob.state.ratchet.past), chains.MAX_PAST)

    def test_a_copy_goes_its_own_way(self) -> None:
        came = [self.says(self.alice, b"%d" % number) for number in range(4)]
        self.bob.open(came[2], NOW)
        before, copy = self.bob.dump(), self.bob.copy()
        for message in (came[0], came[3]):
            copy.open(message, NOW)
        copy.seal(b"text", self.pair.entropy)
        copy.expire(NOW + 40 * DAY)
        self.assertEqual(self.bob.dump(), before)
        for number in (0, 1, 3):
            self.assertEqual(self.bob.open(came[number], NOW).content, b"%d" % number)

    def test_the_oldest_keys_go_first_whichever_chain_they_are_of(self) -> None:
        self.patch(chains, "MAX_SKIPPED", 5)
        self.patch(chains, "MAX_REMEMBERED", 3)
        first = [self.says(self.alice, b"%d" % number) for number in range(5)]
        self.bob.open(first[4], NOW)
        self.turn()
        self.alice.open(self.says(self.bob, b"turn"), NOW)
        second = [self.says(self.alice, b"%d" % number) for number in range(4)]
        self.bob.open(second[3], NOW)
        kept = [list(chain.skipped) for chain in self.bob.state.ratchet.past if chain.skipped]
        current = self.bob.state.ratchet.receiving
        assert current is not None
        self.assertEqual((kept, list(current.skipped)), ([[2, 3]], [0, 1, 2]))
        for number in (1, 0):
            self.bob.open(second[number], NOW)
        used = [remembered.numbers(chain.used) for chain in self.bob.state.ratchet.past if chain.used]
        current = self.bob.state.ratchet.receiving
        assert current is not None
        self.assertEqual((used, remembered.numbers(current.used)), ([], [3, 1, 0]))
