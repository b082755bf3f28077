"""Tests of :mod:`sims.crypto.seed`: what is refused, and that nothing has moved then."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

from twisted.trial.unittest import SynchronousTestCase

from sims import wire
from sims.crypto import primitives
from sims.crypto.seed import Box, End, Session
from sims.errors import Code, LocalError, PeerError
from sims.specs import SEED
from sims.test.builders import (
    PAIRS,
    flipped,
    refusal,
    session_pair,
    snapshot,
    with_field,
)
from sims.test.cheapkeys import use_cheap_keys
from sims.test.foreign_keys import PREFIX, foreign_keys, pem_of
from sims.test.seed_builders import GOOD, PLAINTEXT, refused

PRIME = 2**384 - 2**128 - 2**96 + 2**32 - 1


def negated(pem: bytes) -> bytes:
    """The public key with the same x-coordinate and the other y-coordinate."""
    point = primitives.p384_from_pem(pem)[1]
    y = int.from_bytes(point[49:], "big")
    return pem_of(PREFIX + point[:49] + (PRIME - y).to_bytes(48, "big"))


class Tampering(SynchronousTestCase):
    """A box that is not as it was sealed is refused, and afterwards the one that is opens."""

    turn = 0

    def tampered(self) -> list[tuple[Session, Box, str]]:
        """An end that is spoken to, with some pairs of its own under way; a box for it; of which kind."""
        found = []
        for (end_a, end_b), spec in [((End.PEER, End.PEER), spec) for spec in SEED] + [
            (ends, SEED[1]) for ends in PAIRS
        ]:
            sealing, opening = session_pair(end_a, end_b, spec)
            opening.seal(b"under way")
            found.append((opening, sealing.seal(PLAINTEXT), f"{spec} {end_a}"))
        return found

    def each(self, change: Callable[[Session, Box, str], None]) -> None:
        """Try a change on every kind of session, then the box as it was sealed."""
        for turn, (session, box, what) in enumerate(self.tampered()):
            self.turn = turn
            change(session, box, what)
            self.assertEqual(session.open(box, bytes), PLAINTEXT)

    def positions(self, value: bytes) -> range:
        """Every fourth place, beginning elsewhere for each kind of session: all of them together have them all."""
        return range(self.turn % 4, len(value), 4)

    def test_a_flipped_bit_anywhere_in_what_the_mac_covers(self) -> None:
        use_cheap_keys(self)

        def change(session: Session, box: Box, what: str) -> None:
            for field in ("hash", "random", "ciphertext"):
                value = getattr(box, field)
                for position in self.positions(value):
                    other = with_field(box, field, flipped(value, position, position % 8))
                    refused(self, session, other, Code.NOT_AUTHENTICATED, f"{what}: {field} {position}", bytes)

        self.each(change)

    def test_a_flipped_bit_anywhere_in_the_key(self) -> None:
        def change(session: Session, box: Box, what: str) -> None:
            for position in self.positions(box.public_key):
                other = with_field(box, "public_key", flipped(box.public_key, position, position % 8))
                refused(self, session, other, Code.MALFORMED, f"{what}: {position}", bytes)

        self.each(change)

    def test_a_flipped_bit_anywhere_in_the_iv_shows_in_the_plaintext(self) -> None:
        use_cheap_keys(self)

        def change(session: Session, box: Box, what: str) -> None:
            for position in range(16):
                for bit in (0, 7):
                    other = with_field(box, "iv", flipped(box.iv, position, bit))
                    refused(self, session, other, Code.MALFORMED, f"{what}: {position}")

        self.each(change)

    def test_a_flipped_iv_is_no_text_either(self) -> None:
        use_cheap_keys(self)
        for spec in SEED:
            sealing, opening = session_pair(spec=spec)
            box = sealing.seal(wire.encode_text("good morning"))
            for position in range(16):
                other = with_field(box, "iv", flipped(box.iv, position))
                refused(self, opening, other, Code.MALFORMED, "", wire.parse_text)
            self.assertEqual(opening.open(box, wire.parse_text), "good morning")

    def test_a_field_of_another_length(self) -> None:
        def change(session: Session, box: Box, what: str) -> None:
            for field, code in (
                ("hash", Code.NOT_AUTHENTICATED),
                ("ciphertext", Code.NOT_AUTHENTICATED),
                ("random", Code.MALFORMED),
                ("iv", Code.MALFORMED),
                ("public_key", Code.MALFORMED),
            ):
                value = getattr(box, field)
                for other in (b"", value[:1], value[:-1], value[1:], value + b"\x00", b"\x00" + value, value * 2):
                    refused(self, session, with_field(box, field, other), code, f"{what}: {field}", bytes)

        self.each(change)

    def test_another_key_random_or_mac(self) -> None:
        def change(session: Session, box: Box, what: str) -> None:
            for field, value in (
                ("hash", bytes(len(box.hash))),
                ("random", bytes(32)),
                ("random", GOOD.random),
                ("public_key", GOOD.public_key),
            ):
                refused(self, session, with_field(box, field, value), Code.NOT_AUTHENTICATED, f"{what}: {field}", bytes)

        self.each(change)

    def test_a_foreign_key(self) -> None:
        def change(session: Session, box: Box, what: str) -> None:
            for kind, pem in foreign_keys().items():
                refused(self, session, with_field(box, "public_key", pem), Code.MALFORMED, f"{what}: {kind}", bytes)

        self.each(change)

    def test_the_fields_of_two_boxes_exchanged(self) -> None:
        for spec in SEED:
            sealing, opening = session_pair(spec=spec)
            first, second = sealing.seal(PLAINTEXT), sealing.seal(b'{"type":"ack"}')
            for field in ("hash", "random", "ciphertext", "public_key"):
                for one, other in ((first, second), (second, first)):
                    refused(self, opening, with_field(one, field, getattr(other, field)), Code.NOT_AUTHENTICATED, field)
            refused(self, opening, with_field(first, "iv", second.iv), Code.MALFORMED)
            self.assertEqual([opening.open(box, bytes) for box in (first, second)], [PLAINTEXT, b'{"type":"ack"}'])

    def test_a_box_of_another_spec(self) -> None:
        use_cheap_keys(self)
        for ours, theirs in product(SEED, SEED):
            if ours is not theirs:
                # The same keys, as the seed of the randomness is the same.
                _, opening = session_pair(spec=ours)
                sealing, _ = session_pair(spec=theirs)
                code = Code.MALFORMED if ours.hash == theirs.hash else Code.NOT_AUTHENTICATED
                # In the first block the two modes do the same.
                plaintext = b'{"type":"list","beyond the first block":1}'
                refused(self, opening, sealing.seal(plaintext), code, f"{theirs} for {ours}")

    def test_a_box_of_another_conversation(self) -> None:
        for end_a, end_b in PAIRS:
            _, opening = session_pair(end_a, end_b)
            sealing, _ = session_pair(end_a, end_b, seed="other")
            refused(self, opening, sealing.seal(PLAINTEXT), Code.NOT_AUTHENTICATED)

    def test_a_box_that_comes_back_to_who_sealed_it(self) -> None:
        for ends in PAIRS:
            for session in session_pair(*ends):
                refused(self, session, session.seal(PLAINTEXT), Code.NOT_AUTHENTICATED)

    def test_the_refusal_shows_nothing_of_the_box(self) -> None:
        sealing, opening = session_pair()
        box = sealing.seal(b'{"type":"MARK"}')
        for field in Box._fields:
            for value in (b"MARK", b"M" * len(getattr(box, field))):
                error = refusal(PeerError, opening.open, with_field(box, field, value), wire.parse)
                self.assertNotIn("MARK", str(error))
                self.assertNotIn("MMM", str(error))


class Replays(SynchronousTestCase):
    def test_at_once(self) -> None:
        for ends in PAIRS:
            sealing, opening = session_pair(*ends)
            box = sealing.seal(PLAINTEXT)
            opening.open(box, bytes)
            for _ in range(3):
                refused(self, opening, box, Code.NOT_AUTHENTICATED)

    def test_after_further_messages(self) -> None:
        use_cheap_keys(self)
        sealing, opening = session_pair()
        boxes = [sealing.seal(b"%d" % number) for number in range(5)]
        for number, box in enumerate(boxes):
            opening.open(box, bytes)
            for earlier in boxes[: number + 1]:
                refused(self, opening, earlier, Code.NOT_AUTHENTICATED)

    def test_after_the_receivers_pairs_have_moved(self) -> None:
        use_cheap_keys(self)
        for ends in PAIRS:
            session_a, session_b = session_pair(*ends)
            seen_a: list[Box] = []
            seen_b: list[Box] = []
            for number in range(6):
                seen_b.append(session_a.seal(b"%d" % number))
                session_b.open(seen_b[-1], bytes)
                if number == 3:
                    session_b.seal(b"under way")  # a pair that is not used yet
                seen_a.append(session_b.seal(b"%d" % number))
                session_a.open(seen_a[-1], bytes)
                for session, seen in ((session_a, seen_a), (session_b, seen_b)):
                    for box in seen:
                        refused(self, session, box, Code.NOT_AUTHENTICATED)

    def test_with_the_other_point_of_the_same_x(self) -> None:
        # It gives the same secret, and so opens the same box: but only one of the two.
        sealing, opening = session_pair()
        box = sealing.seal(PLAINTEXT)
        other = with_field(box, "public_key", negated(box.public_key))
        self.assertNotEqual(box.public_key, other.public_key)
        opening.open(box, bytes)
        refused(self, opening, other, Code.NOT_AUTHENTICATED)
        sealing, opening = session_pair()
        box = sealing.seal(PLAINTEXT)
        other = with_field(box, "public_key", negated(box.public_key))
        self.assertEqual(opening.open(other, bytes), PLAINTEXT)
        refused(self, opening, box, Code.NOT_AUTHENTICATED)
        self.assertEqual(sealing.open(opening.seal(PLAINTEXT), bytes), PLAINTEXT)

    def test_of_a_box_that_was_refused_are_none(self) -> None:
        sealing, opening = session_pair()
        box = sealing.seal(PLAINTEXT)
        refused(self, opening, with_field(box, "hash", bytes(32)), Code.NOT_AUTHENTICATED)
        refused(self, opening, with_field(box, "iv", bytes(16)), Code.MALFORMED)
        self.assertEqual(opening.open(box, bytes), PLAINTEXT)


class Decoding(SynchronousTestCase):
    def test_that_fails_leaves_everything_as_it_was(self) -> None:
        use_cheap_keys(self)
        errors: list[BaseException] = [
            PeerError(Code.MALFORMED, "no"),
            LocalError(Code.POLICY, "no"),
            ValueError("no"),
            KeyError("no"),
            MemoryError(),
            RecursionError(),
            KeyboardInterrupt(),
            GeneratorExit(),
        ]
        for ends, spec in product(PAIRS, SEED[:2]):
            sealing, opening = session_pair(*ends, spec)
            opening.seal(b"under way")
            box = sealing.seal(PLAINTEXT)
            before = snapshot(opening)
            for error in errors:

                def fails(plaintext: bytes, error: BaseException = error) -> None:
                    self.assertEqual(plaintext, PLAINTEXT)
                    raise error

                with self.assertRaises(type(error)) as caught:
                    opening.open(box, fails)
                self.assertIs(caught.exception, error)
                self.assertEqual(snapshot(opening), before)
            self.assertEqual(opening.open(box, bytes), PLAINTEXT)

    def test_gives_what_the_caller_makes_of_the_plaintext(self) -> None:
        sealing, opening = session_pair()
        self.assertEqual(opening.open(sealing.seal(PLAINTEXT), wire.parse), {"type": "list"})

    def test_is_not_tried_on_what_does_not_verify(self) -> None:
        sealing, opening = session_pair()
        box = sealing.seal(PLAINTEXT)
        tried: list[bytes] = []
        for other in (with_field(box, "hash", bytes(32)), with_field(box, "ciphertext", b"{}")):
            refusal(PeerError, opening.open, other, tried.append)
        opening.open(box, bytes)
        refusal(PeerError, opening.open, box, tried.append)
        self.assertEqual(tried, [])
