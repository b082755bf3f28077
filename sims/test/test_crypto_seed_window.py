"""Tests of :mod:`sims.crypto.seed`: messages that cross, the window, and what is kept."""

from __future__ import annotations

from itertools import product
from random import Random

from twisted.trial.unittest import SynchronousTestCase

from sims.crypto import seed
from sims.crypto.seed import GRACE, WINDOW
from sims.errors import Code, LocalError
from sims.test.builders import (
    PAIRS,
    Conversation,
    flipped,
    refusal,
    session_pair,
    snapshot,
    with_field,
)
from sims.test.cheapkeys import use_cheap_keys
from sims.test.seed_builders import PLAINTEXT, entropy_of, own_pairs, refused


class RealKeys(SynchronousTestCase):
    """With keys of secp384r1; the other tests have cheap ones."""

    def test_both_send_at_once(self) -> None:
        for ends in PAIRS:
            conversation = Conversation(session_pair(*ends))
            for _ in range(3):
                for end in (0, 1, 1, 0, 0):
                    self.assertTrue(conversation.send(end))
                conversation.drain()
                self.assertEqual(conversation.lost(), ([], []))


class Crossing(SynchronousTestCase):
    def setUp(self) -> None:
        use_cheap_keys(self)

    def test_in_any_order_that_a_die_gives(self) -> None:
        die = Random(6)
        for ends, (window, grace) in product(PAIRS, ((64, 64), (5, 1), (2, 0))):
            self.patch(seed, "WINDOW", window)
            self.patch(seed, "GRACE", grace)
            conversation = Conversation(session_pair(*ends))
            for _ in range(60):
                die.choice([conversation.send, conversation.deliver, conversation.acknowledge])(die.randrange(2))
                self.assertLessEqual(max(map(own_pairs, conversation.sessions)), window + grace + 1)
            conversation.drain()
            self.assertEqual(conversation.lost(), ([], []))

    def test_an_answer_may_use_any_of_the_pairs_that_are_under_way(self) -> None:
        for ends in PAIRS:
            for arrived in range(6):
                session_a, session_b = session_pair(*ends)
                boxes = [session_a.seal(b"%d" % number) for number in range(5)]
                for box in boxes[:arrived]:
                    session_b.open(box, bytes)
                answer = session_b.seal(b"answer")
                self.assertEqual(session_a.open(answer, bytes), b"answer")
                self.assertEqual(own_pairs(session_a), 6 - arrived)
                for number, box in enumerate(boxes[arrived:], arrived):
                    self.assertEqual(session_b.open(box, bytes), b"%d" % number)

    def test_always_one_behind(self) -> None:
        # Each answers what came before the last: no pair that is used is ever the newest.
        for ends in PAIRS:
            conversation = Conversation(session_pair(*ends))
            for _ in range(12):
                for end in (0, 1):
                    conversation.send(end)
                for end in (0, 1):
                    if len(conversation.links[end]) > 2:
                        conversation.deliver(end)
            self.assertLessEqual(max(map(own_pairs, conversation.sessions)), 6)
            conversation.drain()
            self.assertEqual(conversation.lost(), ([], []))

    def test_a_pair_older_than_the_last_used_is_gone(self) -> None:
        session_a, session_b = session_pair()
        old = session_b.seal(b"for the first pair")
        session_b.open(session_a.seal(b"x"), bytes)
        session_a.open(session_b.seal(b"for the second pair"), bytes)
        self.assertEqual(own_pairs(session_a), 1)
        refused(self, session_a, old, Code.NOT_AUTHENTICATED)


class Window(SynchronousTestCase):
    def setUp(self) -> None:
        use_cheap_keys(self)

    def test_sealing_waits_when_so_much_is_under_way(self) -> None:
        self.assertEqual(WINDOW, 64)
        session, _ = session_pair()
        for serial in range(1, WINDOW + 1):
            self.assertTrue(session.can_seal)
            session.seal(b"x")
            self.assertEqual(session.serial, serial)
        self.assertFalse(session.can_seal)
        before, drawn = snapshot(session), entropy_of(session).draws
        error = refusal(LocalError, session.seal, b"x")
        self.assertIs(error.code, Code.RATE_LIMITED)
        self.assertEqual(snapshot(session), before)
        self.assertEqual(entropy_of(session).draws, drawn)

    def test_an_answer_frees_what_it_shows_to_have_arrived(self) -> None:
        self.patch(seed, "WINDOW", 8)
        for arrived in range(9):
            session_a, session_b = session_pair()
            boxes = [session_a.seal(b"x") for _ in range(8)]
            for box in boxes[:arrived]:
                session_b.open(box, bytes)
            self.assertFalse(session_a.can_seal)
            session_a.open(session_b.seal(b"x"), bytes)
            free = 0
            while session_a.can_seal:
                session_a.seal(b"x")
                free += 1
            self.assertEqual(free, arrived)

    def test_an_acknowledgement_frees_as_much(self) -> None:
        self.patch(seed, "WINDOW", 8)
        session, _ = session_pair()
        for _ in range(8):
            session.seal(b"x")
        for serial in (3, 8):
            session.received(serial)
            free = 0
            while session.can_seal:
                session.seal(b"x")
                free += 1
            self.assertEqual(free, serial if serial == 3 else 5)

    def test_an_older_acknowledgement_changes_nothing(self) -> None:
        session, _ = session_pair()
        for _ in range(5):
            session.seal(b"x")
        session.received(4)
        before = snapshot(session)
        for serial in (4, 3, 0, -1, -1000):
            session.received(serial)
            self.assertEqual(snapshot(session), before)

    def test_an_acknowledgement_of_what_was_never_sent_counts_for_what_was(self) -> None:
        self.patch(seed, "WINDOW", 4)
        session, other = session_pair()
        for _ in range(4):
            session.seal(b"x")
        session.received(10**9)
        for _ in range(4):
            session.seal(b"x")
        self.assertFalse(session.can_seal)
        self.assertEqual(session.open(other.seal(b"hi"), bytes), b"hi")

    def test_an_answer_with_an_older_pair_takes_nothing_back(self) -> None:
        self.patch(seed, "WINDOW", 4)
        session, other = session_pair()
        for _ in range(4):
            session.seal(b"x")
        session.received(4)
        session.open(other.seal(b"for the first pair"), bytes)
        for _ in range(4):
            session.seal(b"x")
        self.assertFalse(session.can_seal)

    def test_so_many_pairs_are_kept_and_no_more(self) -> None:
        session, _ = session_pair()
        most = 0
        for number in range(3 * WINDOW):
            session.seal(b"x")
            most = max(most, own_pairs(session))
            if not session.can_seal or number % 7 == 0:
                session.received(session.serial - (number % 3))
                most = max(most, own_pairs(session))
        while session.can_seal:
            session.seal(b"x")
        most = max(most, own_pairs(session))
        self.assertLessEqual(most, WINDOW + GRACE + 1)
        session.received(session.serial)
        while session.can_seal:
            session.seal(b"x")
        self.assertEqual(own_pairs(session), WINDOW + GRACE + 1)

    def test_what_was_under_way_when_it_was_acknowledged_opens_still(self) -> None:
        for newer, opens in ((GRACE, True), (GRACE + 1, False)):
            session, other = session_pair()
            late = other.seal(PLAINTEXT)
            for _ in range(newer):
                session.seal(b"x")
                session.received(session.serial)
            if opens:
                self.assertEqual(session.open(late, bytes), PLAINTEXT)
            else:
                refused(self, session, late, Code.NOT_AUTHENTICATED)

    def test_it_moves_on_in_both_directions_for_ever(self) -> None:
        self.patch(seed, "WINDOW", 3)
        self.patch(seed, "GRACE", 2)
        conversation = Conversation(session_pair())
        for number in range(60):
            for end in (0, 1) if number % 3 else (1,):
                conversation.send(end)
            if number % 4 == 3:
                conversation.drain()
                self.assertTrue(all(session.can_seal for session in conversation.sessions))
            self.assertLessEqual(max(map(own_pairs, conversation.sessions)), 3 + 2 + 1)
        conversation.drain()
        self.assertEqual(conversation.lost(), ([], []))
        self.assertGreater(len(conversation.arrived[0]), 40)


class FramesForOnePair(SynchronousTestCase):
    def setUp(self) -> None:
        use_cheap_keys(self)

    def test_are_bounded_because_each_is_remembered(self) -> None:
        self.patch(seed, "MAX_FRAMES_PER_PAIR", 3)
        session, other = session_pair()
        for _ in range(3):
            session.open(other.seal(PLAINTEXT), bytes)
        for _ in range(2):
            refused(self, session, other.seal(PLAINTEXT), Code.REKEY_REQUIRED)

    def test_begin_anew_with_the_next_pair(self) -> None:
        self.patch(seed, "MAX_FRAMES_PER_PAIR", 3)
        session, other = session_pair()
        for _ in range(4):
            for number in range(3):
                box = other.seal(b"%d" % number)
                self.assertEqual(session.open(box, bytes), b"%d" % number)
            refused(self, session, box, Code.NOT_AUTHENTICATED)
            other.open(session.seal(b"x"), bytes)

    def test_a_refused_one_does_not_count(self) -> None:
        self.patch(seed, "MAX_FRAMES_PER_PAIR", 2)
        session, other = session_pair()
        for _ in range(2):
            box = other.seal(PLAINTEXT)
            for field in ("hash", "iv"):
                value = getattr(box, field)
                code = Code.MALFORMED if field == "iv" else Code.NOT_AUTHENTICATED
                refused(self, session, with_field(box, field, flipped(value, 0)), code)
            session.open(box, bytes)
        refused(self, session, other.seal(PLAINTEXT), Code.REKEY_REQUIRED)

    def test_are_so_many(self) -> None:
        self.assertEqual(seed.MAX_FRAMES_PER_PAIR, 8192)
