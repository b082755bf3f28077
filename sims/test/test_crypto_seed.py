"""Tests of :mod:`sims.crypto.seed`: what a box is, and what it takes to open it."""

from __future__ import annotations

import hmac
from itertools import product

from cryptography.hazmat.decrepit.ciphers.modes import OFB
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from cryptography.hazmat.primitives.ciphers.modes import CTR
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from twisted.trial.unittest import SynchronousTestCase

from sims import wire
from sims.crypto import primitives
from sims.crypto.primitives import P384PrivateKey, P384PublicKey
from sims.crypto.seed import Box, End, Initiator, Keys, Phase, Session, TrialOrder
from sims.errors import Code
from sims.specs import SEED, CipherSpec
from sims.test.builders import (
    PAIRS,
    Conversation,
    CountingEntropy,
    session_pair,
    snapshot,
)
from sims.test.seed_builders import PLAINTEXT, entropy_of, initiator_in, refused, responder_in


def opened_by_the_page(box: Box, spec: CipherSpec, private: P384PrivateKey, salt: bytes) -> bytes | None:
    """What the protocol page makes of a box, with nothing of this package: the plaintext, or None for a wrong MAC."""
    public = load_pem_public_key(box.public_key)
    assert isinstance(public, ec.EllipticCurvePublicKey)
    shared = private.exchange(ec.ECDH(), public)
    pseudorandom = hmac.digest(salt, shared, "sha256")
    key = hmac.digest(pseudorandom, b"hkdf-example\x01", "sha256")
    if hmac.digest(key, box.ciphertext, spec.name.rpartition("-")[2]) != box.hash:
        return None
    mode = CTR(box.iv) if "_CTR-" in spec.name else OFB(box.iv)
    cipher = Cipher(algorithms.AES(key), mode).decryptor()
    return cipher.update(box.ciphertext) + cipher.finalize()


class Boxes(SynchronousTestCase):
    def test_open_at_the_other_end(self) -> None:
        for (end_a, end_b), spec in product(PAIRS, SEED):
            conversation = Conversation(session_pair(end_a, end_b, spec))
            for sender in (0, 0, 1, 0, 1, 1, 1, 0):
                conversation.send(sender)
                conversation.deliver(1 - sender)
            self.assertEqual(conversation.lost(), ([], []))

    def test_hold_any_plaintext(self) -> None:
        for spec in SEED:
            sealing, opening = session_pair(spec=spec)
            for plaintext in (b"", b"x", bytes(16), bytes(range(256)) * 200, bytes(wire.MAX_FRAME)):
                box = sealing.seal(plaintext)
                self.assertEqual(len(box.ciphertext), len(plaintext))
                self.assertEqual(opening.open(box, bytes), plaintext)

    def test_have_the_sizes_of_the_protocol(self) -> None:
        for spec in SEED:
            box = session_pair(spec=spec)[0].seal(b"hello")
            sizes = {name: len(value) for name, value in box._asdict().items()}
            self.assertEqual(sizes, {"hash": spec.mac_size, "iv": 16, "random": 32, "ciphertext": 5, "public_key": 215})

    def test_are_what_the_protocol_page_says(self) -> None:
        for (end_a, end_b), spec in product(PAIRS, SEED):
            session_a, session_b = session_pair(end_a, end_b, spec)
            for sender, receiver, end in (
                (session_a, session_b, end_a),
                (session_a, session_b, end_a),
                (session_b, session_a, end_b),
                (session_a, session_b, end_a),
            ):
                last = receiver._own[-1]
                box = sender.seal(PLAINTEXT)
                # The client's random is the first half of the salt; between clients, that of the receiver.
                salt = box.random + last.random if end is End.CLIENT else last.random + box.random
                self.assertEqual(opened_by_the_page(box, spec, last.private, salt), PLAINTEXT)
                receiver.open(box, bytes)

    def test_use_the_keys_of_the_handshake_first(self) -> None:
        initiator = Initiator(End.CLIENT, SEED, CountingEntropy("a"))
        initiator.offer()
        given = initiator.choose(SEED[0].name)
        theirs = CountingEntropy("b")
        private, random = theirs.p384(), theirs.octets(32)
        session = initiator.finish(Keys(primitives.p384_to_pem(private.public_key()), random))
        box = session.seal(PLAINTEXT)
        self.assertEqual(opened_by_the_page(box, SEED[0], private, box.random + random), PLAINTEXT)
        self.assertNotEqual(box.public_key, given.public_key)

    def test_never_use_a_key_a_random_or_an_iv_twice(self) -> None:
        conversation = Conversation(session_pair())
        boxes = []
        for turn in range(20):
            conversation.send(turn % 2)
            boxes.append(conversation.links[1 - turn % 2][0][0])
            conversation.deliver(1 - turn % 2)
        for field in ("public_key", "random", "iv", "hash"):
            self.assertEqual(len({getattr(box, field) for box in boxes}), 20)

    def test_do_not_open_between_ends_that_do_not_belong_together(self) -> None:
        for end_a, end_b in (
            (End.CLIENT, End.CLIENT),
            (End.SERVER, End.SERVER),
            (End.CLIENT, End.PEER),
            (End.PEER, End.SERVER),
        ):
            sealing, opening = session_pair(end_a, end_b)
            refused(self, opening, sealing.seal(PLAINTEXT), Code.NOT_AUTHENTICATED, f"{end_a} to {end_b}")

    def test_cost_one_exchange_while_a_peer_goes_on_as_it_did(self) -> None:
        exchanges: list[None] = []
        exchange = primitives.p384_exchange

        def counted(private: P384PrivateKey, public: P384PublicKey) -> bytes:
            exchanges.append(None)
            return exchange(private, public)

        def cost(conversation: Conversation, end: int) -> list[int]:
            """How many exchanges each box that is on its way to an end takes to open."""
            found = []
            exchanges.clear()
            while conversation.deliver(end):
                found.append(len(exchanges))
                exchanges.clear()
            return found

        self.patch(primitives, "p384_exchange", counted)
        answering, talking, reading = (Conversation(session_pair()) for _ in range(3))
        for turn in range(10):  # one that answers every message
            answering.send(turn % 2)
            self.assertEqual(cost(answering, 1 - turn % 2), [1])
        for _ in range(10):  # one that only talks
            talking.send(0)
            talking.send(1)
        self.assertEqual(cost(talking, 0)[1:], [1] * 9)
        for turn in range(5):  # one that answers the last of a burst
            for _ in range(6):
                reading.send(0)
            cost(reading, 1)
            reading.send(1)
            found = cost(reading, 0)
            self.assertEqual(found, [1] if turn else found)

    def test_are_tried_with_every_pair_once_whatever_the_habit(self) -> None:
        for kept in range(1, 12):
            for places in product(range(kept), repeat=2):
                trials = TrialOrder()
                for place in places:
                    trials.learn(place, kept)
                    self.assertEqual(sorted(trials.order(kept)), list(range(kept)))
                    for other in range(1, 12):
                        self.assertEqual(sorted(trials.order(other)), list(range(other)))

    def test_are_tried_first_as_the_last_one_opened(self) -> None:
        for kept in range(2, 12):
            for place in (0, 1, kept - 1):
                trials = TrialOrder()
                trials.learn(place, kept)
                self.assertEqual(next(iter(trials.order(kept))), place)


class Sealing(SynchronousTestCase):
    def test_that_fails_leaves_everything_as_it_was(self) -> None:
        session, other = session_pair()
        before = snapshot(session)

        def nothing(_: object) -> bytes:
            raise OSError("no randomness")

        entropy = entropy_of(session)
        self.patch(entropy, "octets", nothing)
        self.assertRaises(OSError, session.seal, PLAINTEXT)
        self.assertEqual(snapshot(session), before)
        del entropy.__dict__["octets"]
        self.assertEqual(other.open(session.seal(PLAINTEXT), bytes), PLAINTEXT)


class Pictures(SynchronousTestCase):
    def test_show_every_change_of_a_session(self) -> None:
        # Or what the tests above compare would not be the state.
        session, other = session_pair()
        seen = [snapshot(session)]
        self.assertEqual(snapshot(session_pair()[0]), seen[0])

        def changed() -> None:
            self.assertNotIn(snapshot(session), seen)
            seen.append(snapshot(session))

        session.seal(b"x")
        changed()
        session.received(1)
        changed()
        session.open(other.seal(b"x"), bytes)
        changed()
        session._own[0].seen.add(b"x")
        changed()
        for name in Session.__slots__:
            if name != "_entropy":
                kept = getattr(session, name)
                setattr(session, name, session_pair(spec=SEED[3], seed="other")[1] if name != "_end" else End.CLIENT)
                changed()
                setattr(session, name, kept)
        for name in ("private", "random", "serial", "seen"):
            kept = getattr(session._own[0], name)
            setattr(session._own[0], name, None)
            changed()
            setattr(session._own[0], name, kept)

    def test_know_every_attribute(self) -> None:
        self.assertRaises(TypeError, snapshot, object())


class Secrets(SynchronousTestCase):
    def test_are_not_in_what_a_session_or_a_handshake_looks_like(self) -> None:
        session, other = session_pair()
        session.seal(PLAINTEXT)
        session.open(other.seal(PLAINTEXT), bytes)
        keyed = initiator_in(Phase.KEYED)
        answered = responder_in(Phase.OFFERED)
        shown = "".join(
            f"{thing!r} {thing} {[thing]}" for thing in (session, other, session._own[0], keyed, answered, session._own)
        )
        self.assertIn("<seed session peer ECDHE-AES128_CTR-SHA256, 2 own pairs>", shown)
        for each in (session, other):
            for own in each._own:
                number = own.private.private_numbers().private_value
                for secret in (str(number), f"{number:x}", own.random.hex(), repr(own.random), str(own.random)[2:-1]):
                    self.assertNotIn(secret, shown)
        self.assertNotIn("list", shown)
