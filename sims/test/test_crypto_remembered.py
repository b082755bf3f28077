"""Tests of :mod:`sims.crypto.remembered` and of the chain step that is written out in the primitives."""

from __future__ import annotations

import hmac
from hashlib import sha256

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from sims.crypto import primitives, remembered, schedule
from sims.crypto.remembered import Log
from sims.specs import MODERN


def r_of(number: int) -> bytes:
    return sha256(b"%d" % number).digest()[: remembered.R_SIZE]


def log_of(count: int) -> Log:
    log: Log = ()
    for number in range(count):
        log = remembered.add(log, number, r_of(number))
    return log


class Logs(SynchronousTestCase):
    def test_keeps_every_number_with_its_r_in_order(self) -> None:
        for count in (0, 1, 63, 64, 65, 200):
            log = log_of(count)
            self.assertEqual(remembered.numbers(log), [*range(count)])
            self.assertEqual(remembered.count(log), count)
            self.assertEqual([remembered.find(log, number) for number in range(count)], [*map(r_of, range(count))])
            self.assertIsNone(remembered.find(log, count))
            self.assertTrue(all(0 < len(piece) <= remembered.PIECE for piece in log))

    def test_is_never_changed(self) -> None:
        before = log_of(70)
        remembered.add(before, 99, r_of(99))
        remembered.without_first(before, 3)
        self.assertEqual(before, log_of(70))

    @given(st.integers(0, 200), st.integers(0, 220), st.integers(0, 80))
    def test_loses_the_oldest(self, count: int, many: int, more: int) -> None:
        log = remembered.without_first(log_of(count), many)
        self.assertEqual(remembered.numbers(log), [*range(min(many, count), count)])
        for number in range(count, count + more):
            log = remembered.add(log, number, r_of(number))
        self.assertEqual(remembered.numbers(log), [*range(min(many, count), count + more)])
        self.assertEqual(remembered.count(log), len(remembered.numbers(log)))

    def test_what_is_stored_is_looked_at(self) -> None:
        self.assertTrue(remembered.is_sound(log_of(70)))
        self.assertFalse(remembered.is_sound((bytes(16), bytes(17))))


class ChainSteps(SynchronousTestCase):
    def test_are_hmac_and_hkdf(self) -> None:
        for spec in MODERN:
            for size in (32, spec.hash_size):
                chain = sha256(b"chain").digest().ljust(size, b"x")
                link = schedule.link(spec, chain)
                self.assertEqual(link.message_key, hmac.digest(chain, b"\x01", spec.hash))
                for kind in ("secure", "message"):
                    keys = schedule.box_keys(spec, link.message_key, kind)
                    found = schedule.message_keys(spec, chain, kind)
                    self.assertEqual(found, (*keys, link.next_chain))

    def test_have_no_room_for_keys_longer_than_a_block(self) -> None:
        # HMAC would hash such a key first. No chain key is as long; one that were must not pass for another.
        self.assertNotEqual(
            primitives.chain_step("sha256", bytes(65), b""), primitives.chain_step("sha256", bytes(64), b"")
        )
