"""Tests of the four phases of :mod:`sims.crypto.seed`: every input in every phase."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import TypeVar

from twisted.trial.unittest import SynchronousTestCase

from sims.crypto.seed import End, Initiator, Keys, Phase, Responder
from sims.errors import Code, LocalError, PeerError, SimsError
from sims.specs import SEED, SEED_OFFER
from sims.test.builders import (
    CountingEntropy,
    refusal,
    snapshot,
)
from sims.test.foreign_keys import foreign_keys
from sims.test.seed_builders import GOOD, initiator_in, responder_in

H = TypeVar("H", Initiator, Responder)

SHORT = GOOD._replace(random=bytes(31))
FOREIGN = GOOD._replace(public_key=foreign_keys()["secp256r1"])

INITIATOR_INPUTS: dict[str, Callable[[Initiator], object]] = {
    "offer": lambda initiator: initiator.offer(),
    "an offered choice": lambda initiator: initiator.choose(SEED[1].name),
    "another choice": lambda initiator: initiator.choose(SEED[2].name),
    "an unknown choice": lambda initiator: initiator.choose("ECDHE-AES256_GCM-SHA384"),
    "keys": lambda initiator: initiator.finish(GOOD),
    "a short random": lambda initiator: initiator.finish(SHORT),
    "a foreign key": lambda initiator: initiator.finish(FOREIGN),
}
RESPONDER_INPUTS: dict[str, Callable[[Responder], object]] = {
    "an offer": lambda responder: responder.answer([SEED[1].name, SEED[0].name]),
    "nothing in common": lambda responder: responder.answer(["ECDHE-AES256_GCM-SHA384"]),
    "keys": lambda responder: responder.accept(SEED[1].name, GOOD),
    "another spec": lambda responder: responder.accept(SEED[0].name, GOOD),
    "a short random": lambda responder: responder.accept(SEED[1].name, SHORT),
    "a foreign key": lambda responder: responder.accept(SEED[1].name, FOREIGN),
}

_MALFORMED = (PeerError, Code.MALFORMED)
_NO_COMMON_SPEC = (PeerError, Code.NO_COMMON_SPEC)
_TWICE = (LocalError, Code.INTERNAL)
_OUT_OF_ORDER = {
    "an offered choice": _MALFORMED,
    "another choice": _MALFORMED,
    "an unknown choice": _MALFORMED,
    "keys": _MALFORMED,
    "a short random": _MALFORMED,
    "a foreign key": _MALFORMED,
}
_RESPONDER_OUT_OF_ORDER = dict.fromkeys(RESPONDER_INPUTS, _MALFORMED)

#: What every input does in every phase: the next phase, or the error that leaves everything as it was.
INITIATOR_TABLE: dict[Phase, dict[str, Phase | tuple[type[SimsError], Code]]] = {
    Phase.START: {**_OUT_OF_ORDER, "offer": Phase.OFFERED},
    Phase.OFFERED: {
        **_OUT_OF_ORDER,
        "offer": _TWICE,
        "an offered choice": Phase.KEYED,
        "another choice": _NO_COMMON_SPEC,
        "an unknown choice": _NO_COMMON_SPEC,
    },
    Phase.KEYED: {**_OUT_OF_ORDER, "offer": _TWICE, "keys": Phase.DONE},
    Phase.DONE: {**_OUT_OF_ORDER, "offer": _TWICE},
}
RESPONDER_TABLE: dict[Phase, dict[str, Phase | tuple[type[SimsError], Code]]] = {
    Phase.START: {**_RESPONDER_OUT_OF_ORDER, "an offer": Phase.OFFERED, "nothing in common": _NO_COMMON_SPEC},
    Phase.OFFERED: {**_RESPONDER_OUT_OF_ORDER, "keys": Phase.DONE, "another spec": _NO_COMMON_SPEC},
    Phase.KEYED: {**_RESPONDER_OUT_OF_ORDER},
    Phase.DONE: {**_RESPONDER_OUT_OF_ORDER},
}


class Phases(SynchronousTestCase):
    def test_of_an_initiator_take_every_input_as_the_table_says(self) -> None:
        for phase, (name, give) in product(Phase, INITIATOR_INPUTS.items()):
            self.check(initiator_in(phase), give, INITIATOR_TABLE[phase][name], f"{name} in {phase}")

    def test_of_a_responder_take_every_input_as_the_table_says(self) -> None:
        for phase, (name, give) in product(Phase, RESPONDER_INPUTS.items()):
            self.check(responder_in(phase), give, RESPONDER_TABLE[phase][name], f"{name} in {phase}")

    def check(
        self, handshake: H, give: Callable[[H], object], expected: Phase | tuple[type[SimsError], Code], what: str
    ) -> None:
        before = snapshot(handshake)
        if isinstance(expected, Phase):
            give(handshake)
            self.assertIs(handshake.phase, expected, what)
            self.assertNotEqual(snapshot(handshake), before, what)
        else:
            kind, code = expected
            try:
                self.assertIs(refusal(kind, give, handshake).code, code, what)
            except AssertionError as error:
                self.fail(f"{what}: {error}")
            self.assertEqual(snapshot(handshake), before, what)

    def test_there_is_a_row_for_every_phase_and_a_column_for_every_input(self) -> None:
        self.assertEqual(set(INITIATOR_TABLE), set(Phase))
        self.assertEqual(set(RESPONDER_TABLE), set(Phase))
        for row in INITIATOR_TABLE.values():
            self.assertEqual(set(row), set(INITIATOR_INPUTS))
        for row in RESPONDER_TABLE.values():
            self.assertEqual(set(row), set(RESPONDER_INPUTS))

    def test_of_an_initiator_go_on_after_a_refusal(self) -> None:
        initiator = Initiator(End.PEER, SEED_OFFER, CountingEntropy("a"))
        responder = Responder(End.PEER, SEED, CountingEntropy("b"))
        refusal(PeerError, initiator.choose, SEED[0].name)
        offer = initiator.offer()
        refusal(LocalError, initiator.offer)
        refusal(PeerError, responder.answer, [])
        agreed = responder.answer(offer)
        refusal(PeerError, initiator.choose, SEED[3].name)
        keys = initiator.choose(agreed.name)
        refusal(PeerError, responder.accept, agreed.name, FOREIGN)
        answer, theirs = responder.accept(agreed.name, keys)
        refusal(PeerError, initiator.finish, SHORT)
        ours = initiator.finish(answer)
        self.assertEqual(theirs.open(ours.seal(b"hi"), bytes), b"hi")

    def test_every_foreign_key_is_refused_with_nothing_moved(self) -> None:
        initiator, responder = initiator_in(Phase.KEYED), responder_in(Phase.OFFERED)
        before = snapshot(initiator), snapshot(responder)
        for what, pem in foreign_keys().items():
            keys = Keys(pem, GOOD.random)
            self.assertIs(refusal(PeerError, initiator.finish, keys).code, Code.MALFORMED, what)
            self.assertIs(refusal(PeerError, responder.accept, SEED[1].name, keys).code, Code.MALFORMED, what)
            self.assertEqual((snapshot(initiator), snapshot(responder)), before, what)

    def test_every_random_of_another_length_is_refused_with_nothing_moved(self) -> None:
        initiator, responder = initiator_in(Phase.KEYED), responder_in(Phase.OFFERED)
        before = snapshot(initiator), snapshot(responder)
        for size in (0, 1, 16, 31, 33, 48, 64):
            keys = Keys(GOOD.public_key, bytes(size))
            self.assertIs(refusal(PeerError, initiator.finish, keys).code, Code.MALFORMED)
            self.assertIs(refusal(PeerError, responder.accept, SEED[1].name, keys).code, Code.MALFORMED)
            self.assertEqual((snapshot(initiator), snapshot(responder)), before)

    def test_the_offer_is_in_order_of_preference(self) -> None:
        for offer in (SEED, SEED_OFFER, tuple(reversed(SEED)), SEED[3:]):
            initiator = Initiator(End.CLIENT, offer, CountingEntropy())
            self.assertEqual(initiator.offer(), [spec.name for spec in offer])

    def test_the_first_of_the_offer_that_the_responder_speaks_is_agreed(self) -> None:
        for offer, allowed in product((SEED, tuple(reversed(SEED)), SEED[1:3]), (SEED, SEED[1:], SEED[2:3])):
            initiator = Initiator(End.PEER, offer, CountingEntropy("a"))
            responder = Responder(End.PEER, allowed, CountingEntropy("b"))
            self.assertIsNone(initiator.spec)
            agreed = responder.answer(initiator.offer())
            self.assertIs(agreed, next(spec for spec in offer if spec in allowed))
            keys = initiator.choose(agreed.name)
            self.assertIs(initiator.spec, agreed)
            answer, theirs = responder.accept(agreed.name, keys)
            self.assertEqual({initiator.finish(answer).spec, theirs.spec}, {agreed})

    def test_an_end_keeps_no_private_key_beside_its_session(self) -> None:
        initiator = initiator_in(Phase.DONE)
        self.assertNotIn("private key", str(snapshot(initiator)))
