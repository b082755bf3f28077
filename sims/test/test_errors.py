"""Tests of :mod:`sims.errors`."""

from __future__ import annotations

import re

from twisted.trial.unittest import SynchronousTestCase

from sims.errors import Code, LocalError, PeerError, SimsError, UnavailableError, malformed

ON_THE_WIRE = [
    "malformed",
    "too-large",
    "no-common-spec",
    "policy",
    "not-authenticated",
    "invite-required",
    "invite-used",
    "name-taken",
    "name-invalid",
    "unknown-recipient",
    "not-sender",
    "rate-limited",
    "mailbox-full",
    "replaced",
    "rekey-required",
    "unavailable",
    "internal",
]


class Codes(SynchronousTestCase):
    def test_are_those_of_the_protocol(self) -> None:
        self.assertEqual([str(code) for code in Code], ON_THE_WIRE)

    def test_never_act_on_an_original_client(self) -> None:
        # It routes a frame by the words "connect" and "secure", wherever they stand.
        for code in Code:
            self.assertIsNone(re.search("connect|secure", code))


class Errors(SynchronousTestCase):
    def test_ours_and_theirs_are_apart(self) -> None:
        self.assertTrue(issubclass(LocalError, SimsError))
        self.assertTrue(issubclass(PeerError, SimsError))
        self.assertFalse(issubclass(LocalError, PeerError))
        self.assertFalse(issubclass(PeerError, LocalError))

    def test_say_what_happened_to_programs_and_to_people(self) -> None:
        error = PeerError(Code.TOO_LARGE, "a frame of more than 7 bytes")
        self.assertIs(error.code, Code.TOO_LARGE)
        self.assertEqual(error.text, "a frame of more than 7 bytes")
        self.assertEqual(str(error), "a frame of more than 7 bytes (too-large)")

    def test_unavailable_is_a_local_error_with_its_code(self) -> None:
        error = UnavailableError("nobody is there")
        self.assertIsInstance(error, LocalError)
        self.assertIs(error.code, Code.UNAVAILABLE)
        self.assertEqual(str(error), "nobody is there (unavailable)")

    def test_malformed_is_a_peer_error(self) -> None:
        error = malformed("not JSON")
        self.assertIs(type(error), PeerError)
        self.assertIs(error.code, Code.MALFORMED)
        self.assertEqual(error.text, "not JSON")
