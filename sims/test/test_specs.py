"""Tests of :mod:`sims.specs`."""

from __future__ import annotations

import re
from dataclasses import FrozenInstanceError

from twisted.trial.unittest import SynchronousTestCase

from sims.errors import Code, LocalError, PeerError
from sims.specs import MAX_NAME, MAX_OFFER, SEED, SEED_OFFER, by_names, chosen, negotiate
from sims.test.builders import refusal

CTR_128, CTR_256, OFB_128, OFB_256 = SEED
TABLE = [
    ("ECDHE-AES128_CTR-SHA256", "CTR", "sha256", 32),
    ("ECDHE-AES256_CTR-SHA384", "CTR", "sha384", 48),
    ("ECDHE-AES128_OFB-SHA256", "OFB", "sha256", 32),
    ("ECDHE-AES256_OFB-SHA384", "OFB", "sha384", 48),
]
NAMES = [row[0] for row in TABLE]


class Table(SynchronousTestCase):
    def test_is_that_of_the_protocol(self) -> None:
        self.assertEqual([(spec.name, spec.mode, spec.hash, spec.mac_size) for spec in SEED], TABLE)

    def test_a_spec_says_its_name(self) -> None:
        self.assertEqual([str(spec) for spec in SEED], NAMES)

    def test_ofb_is_not_offered_unless_asked_for(self) -> None:
        self.assertEqual(SEED_OFFER, (CTR_128, CTR_256))

    def test_a_spec_cannot_be_changed(self) -> None:
        self.assertRaises(FrozenInstanceError, setattr, CTR_128, "mode", "OFB")

    def test_no_name_acts_on_an_original_client(self) -> None:
        for name in NAMES:
            self.assertIsNone(re.search("connect|secure", name))


class ByNames(SynchronousTestCase):
    def test_keeps_the_order(self) -> None:
        self.assertEqual(by_names([NAMES[3], NAMES[0]]), (OFB_256, CTR_128))

    def test_takes_each_once_and_ignores_space_around_a_name(self) -> None:
        self.assertEqual(by_names([NAMES[1], f" {NAMES[1]} ", NAMES[0]]), (CTR_256, CTR_128))

    def test_refuses_an_unknown_name_and_says_which_there_are(self) -> None:
        error = refusal(LocalError, by_names, [NAMES[0], "ECDHE-AES256_GCM-SHA384"])
        self.assertIs(error.code, Code.POLICY)
        for name in ["ECDHE-AES256_GCM-SHA384", *NAMES]:
            self.assertIn(name, error.text)

    def test_refuses_another_spelling(self) -> None:
        for name in (NAMES[0].lower(), NAMES[0] + "X", NAMES[0].replace("_", "-"), "", " "):
            self.assertIs(refusal(LocalError, by_names, [name]).code, Code.POLICY)

    def test_shows_no_more_of_a_name_than_the_longest_one(self) -> None:
        error = refusal(LocalError, by_names, ["x" * 10_000])
        self.assertIn("x" * MAX_NAME, error.text)
        self.assertNotIn("x" * (MAX_NAME + 1), error.text)

    def test_refuses_an_empty_list(self) -> None:
        self.assertIs(refusal(LocalError, by_names, []).code, Code.POLICY)


class Negotiation(SynchronousTestCase):
    def test_the_initiators_order_decides(self) -> None:
        for first in SEED:
            for second in SEED:
                self.assertIs(negotiate([first.name, second.name], SEED), first)
                self.assertIs(negotiate([first.name, second.name], tuple(reversed(SEED))), first)

    def test_what_is_not_known_or_not_allowed_is_passed_over(self) -> None:
        offer = ["", "ECDHE-AES256_GCM-SHA384", NAMES[0].lower(), NAMES[2], NAMES[1]]
        self.assertIs(negotiate(offer, SEED_OFFER), CTR_256)
        self.assertIs(negotiate(offer, SEED), OFB_128)

    def test_nothing_in_common_is_refused(self) -> None:
        for offer, allowed in (
            ([], SEED),
            (["ECDHE-AES256_GCM-SHA384"], SEED),
            ([f" {NAMES[0]}"], SEED),
            (NAMES[2:], SEED_OFFER),
            (NAMES, ()),
        ):
            error = refusal(PeerError, negotiate, offer, allowed)
            self.assertIs(error.code, Code.NO_COMMON_SPEC)

    def test_an_offer_is_looked_at_as_far_as_its_bound(self) -> None:
        self.assertIs(negotiate(["x"] * (MAX_OFFER - 1) + [NAMES[0]], SEED), CTR_128)
        refusal(PeerError, negotiate, ["x"] * MAX_OFFER + [NAMES[0]], SEED)

    def test_the_refusal_shows_nothing_of_the_offer(self) -> None:
        self.assertNotIn("MARK", str(refusal(PeerError, negotiate, ["MARK"], SEED)))


class Choice(SynchronousTestCase):
    def test_what_was_offered_can_be_chosen(self) -> None:
        for spec in SEED:
            self.assertIs(chosen(spec.name, SEED), spec)

    def test_a_choice_is_never_widened(self) -> None:
        for name in (NAMES[2], NAMES[3], "", "MARK", NAMES[0].lower(), f"{NAMES[0]} "):
            error = refusal(PeerError, chosen, name, SEED_OFFER)
            self.assertIs(error.code, Code.NO_COMMON_SPEC)
            self.assertNotIn("MARK", str(error))
