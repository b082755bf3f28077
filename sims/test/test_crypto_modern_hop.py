"""Tests of the hop behind connect: its boxes, its rekey, and everything that ends it."""

from __future__ import annotations

from copy import copy
from typing import Any

from msgspec.structs import asdict

from sims.crypto import hop as hops
from sims.crypto import payloads
from sims.crypto.hop import (
    LEAST_MESSAGES,
    LEAST_SECONDS,
    PATIENCE,
    REKEY_MESSAGES,
    REKEY_SECONDS,
    Box,
    Hop,
    Received,
    Rekeying,
)
from sims.crypto.payloads import Rekey1, Rekey2
from sims.errors import Code, LocalError, PeerError
from sims.test.builders import flipped, refusal
from sims.test.connect_builders import Ends, picture
from sims.test.modern_builders import Counting

NO_DRAWS = Counting("never drawn")


def public_keys(**changes: Any) -> dict[str, Any]:
    """The ``data`` of a rekey 1."""
    entropy = Counting("rekey 1")
    keys = Rekey1(public_key=entropy.x25519().public, kem_public_key=entropy.mlkem768().public)
    return {**asdict(keys), **changes}


def rekey(phase: object, data: object) -> bytes:
    """The plaintext of a rekey."""
    return payloads.encode({"type": "rekey", "phase": phase, "data": data})


class Hops(Ends):
    def arrives(self, receiver: Hop, box: Box, now: float = 0.0) -> bytes | None:
        """What is in a message that is no rekey's."""
        received = receiver.open(*box, now, NO_DRAWS)
        self.assertIsNone(received.reply)
        return received.plaintext

    def due(self, hop: Hop, n: int, ciphertext: bytes, now: float = 0.0) -> None:
        """A copy of a hop takes nothing before a rekey; nothing has changed in it, and it can still say so."""
        hop = copy(hop)
        before = picture(hop)
        for _ in range(2):
            self.assertIs(refusal(PeerError, hop.open, n, ciphertext, now, NO_DRAWS).code, Code.REKEY_REQUIRED)
        self.assertEqual(picture(hop), before)
        hop.seal(b"rekey-required")

    def ended(self, code: Code, hop: Hop, n: Any, ciphertext: bytes, now: float = 0.0) -> None:
        """A copy of a hop refuses a box; nothing has changed in it, but that it refuses everything."""
        hop = copy(hop)
        before = picture(hop)
        self.assertIs(refusal(PeerError, hop.open, n, ciphertext, now, Counting("spare")).code, code)
        self.assertEqual(picture(hop), before)
        for act in (lambda: hop.seal(b""), lambda: hop.begin_rekey(Counting("spare"))):
            self.assertIs(refusal(LocalError, act).code, Code.INTERNAL)
        self.assertIs(refusal(PeerError, hop.open, n, ciphertext, now, NO_DRAWS).code, Code.NOT_AUTHENTICATED)
        self.assertEqual(picture(hop), before)

    def rekeyed(self, one: Hop, other: Hop, now: float) -> None:
        """A whole rekey, with a message under way in each direction at every moment."""
        entropy = Counting(f"rekey {now}")
        first = one.begin_rekey(entropy)
        crossing = other.seal(b"crossing 1")
        self.assertIs(refusal(LocalError, one.begin_rekey, entropy).code, Code.INTERNAL)
        plaintext, second = other.open(*first, now, entropy)
        self.assertIsNone(plaintext)
        assert second is not None
        late = one.seal(b"before 3"), other.seal(b"after 2")
        self.assertEqual(self.arrives(one, crossing, now), b"crossing 1")
        plaintext, third = one.open(*second, now, NO_DRAWS)
        self.assertIsNone(plaintext)
        assert third is not None
        self.assertEqual(self.arrives(one, late[1], now), b"after 2")
        behind = one.seal(b"behind 3")
        self.assertEqual(self.arrives(other, late[0], now), b"before 3")
        self.assertEqual(other.open(*third, now, NO_DRAWS), (None, None))
        self.assertEqual(self.arrives(other, behind, now), b"behind 3")


class Boxes(Hops):
    def test_both_directions(self) -> None:
        one, other = self.hops()
        for number in range(3):
            for sender, receiver in ((one, other), (other, one)):
                box = sender.seal(b"text %d" % number)
                self.assertEqual((box.n, len(box.ciphertext)), (number, 528))
                self.assertEqual(self.arrives(receiver, box), b"text %d" % number)
        self.assertIs(refusal(LocalError, one.seal, bytes(65_536)).code, Code.TOO_LARGE)
        self.assertEqual(self.arrives(other, one.seal(bytes(65_535))), bytes(65_535))

    def test_a_number_is_exactly_the_next(self) -> None:
        one, other = self.hops()
        first, second = one.seal(b"1"), one.seal(b"2")
        for n, ciphertext in (second, (0, second.ciphertext), (1, first.ciphertext), (-1, first.ciphertext)):
            self.ended(Code.NOT_AUTHENTICATED, other, n, ciphertext)
        self.ended(Code.NOT_AUTHENTICATED, one, *first)
        self.ended(Code.NOT_AUTHENTICATED, other, 0, flipped(first.ciphertext, 3))
        self.ended(Code.NOT_AUTHENTICATED, other, 0, b"")
        self.assertEqual(self.arrives(other, first), b"1")
        self.ended(Code.NOT_AUTHENTICATED, other, *first)
        self.assertEqual(self.arrives(other, second), b"2")

    def test_a_peer_that_counts_otherwise(self) -> None:
        # Its boxes verify under the number that they name: only the number itself is wrong.
        for n in (1, 2, 1000):
            one, other = self.hops()
            one._out_n = n
            self.ended(Code.NOT_AUTHENTICATED, other, *one.seal(b"text"))

    def test_a_number_is_an_int(self) -> None:
        one, other = self.hops()
        numbers: tuple[Any, ...] = (0.0, False, "0", None, b"", [], 0j)
        for n in numbers:
            self.ended(Code.MALFORMED, other, n, one.seal(b"text").ciphertext)

    def test_padding_is_checked_behind_the_tag(self) -> None:
        one, other = self.hops()
        box = one.seal(b"\x80" + bytes(511))
        self.assertEqual(self.arrives(copy(other), box), b"\x80" + bytes(511))
        self.patch(hops, "pad", lambda kind, plaintext: bytes(512))
        one, other = self.hops()
        self.ended(Code.MALFORMED, other, *one.seal(b""))

    def test_no_key_is_shown(self) -> None:
        one, other = self.hops()
        for shown in (one, other, Received(b"MARK", None), Received(None, one.seal(b""))):
            for secret in ("b'", "\\x", "MARK"):
                self.assertNotIn(secret, repr(shown))


class Rekeys(Hops):
    def test_nothing_is_lost(self) -> None:
        one, other = self.hops()
        for now in (1.0, 2.0, 3.0):
            self.rekeyed(one, other, now)
        self.assertEqual(self.arrives(one, other.seal(b"text"), 4.0), b"text")

    def test_private_keys_do_not_stay(self) -> None:
        one, other = self.hops()
        self.rekeyed(one, other, 1.0)
        self.assertEqual([one._key, one._kem, one._next, other._key, other._kem, other._next], [None] * 6)

    def test_a_rekey_heals(self) -> None:
        one, other = self.hops()
        stolen = copy(one), copy(other)
        self.rekeyed(one, other, 1.0)
        self.assertEqual([one._root, one._out, one._in], [other._root, other._in, other._out])
        for before, after in zip(stolen, (one, other), strict=True):
            keys = (before._root, before._out, before._in)
            self.assertFalse({*keys} & {after._root, after._out, after._in})

    def test_out_of_order(self) -> None:
        for phase, data in (
            *((phase, public_keys()) for phase in (0, 2, 4, -1, "1", None, True, 1.0)),
            (2, {"public_key": bytes(32), "kem_ciphertext": bytes(1088)}),
            (3, {}),
        ):
            one, other = self.hops()
            self.ended(Code.MALFORMED, other, *one.seal(rekey(phase, data)))
        for phase in (1, 2, 3):
            one, other = self.hops()
            self.ended(Code.MALFORMED, one, *other.seal(rekey(phase, public_keys(kem_ciphertext=bytes(1088)))))
        one, other = self.hops()
        self.assertIs(refusal(LocalError, other.begin_rekey, NO_DRAWS).code, Code.INTERNAL)

    def test_one_while_another_is_under_way(self) -> None:
        for phase in (1, 2):
            one, other = self.hops()
            other.open(*one.begin_rekey(Counting("one")), 0.0, Counting("other"))
            self.ended(Code.MALFORMED, other, *one.seal(rekey(phase, public_keys(kem_ciphertext=bytes(1088)))))
        one, other = self.hops()
        other.open(*one.begin_rekey(Counting("one")), 0.0, Counting("other"))
        self.ended(Code.MALFORMED, other, *copy(one).seal(rekey(3, None)))
        self.assertEqual(other.open(*one.seal(rekey(3, {})), 0.0, NO_DRAWS), (None, None))
        one, other = self.hops()
        one.begin_rekey(Counting("one"))
        for phase in (1, 3):
            self.ended(Code.MALFORMED, one, *copy(other).seal(rekey(phase, public_keys())))

    def test_keys_that_cannot_be(self) -> None:
        maps: list[Any] = [None, {}, [], 1]
        maps += [public_keys(public_key=key) for key in (bytes(32), b"", bytes(31), None)]
        maps += [public_keys(kem_public_key=key) for key in (b"\xff" * 1184, b"", bytes(1183))]
        for data in maps:
            one, other = self.hops()
            self.ended(Code.MALFORMED, other, *one.seal(rekey(1, data)))
        good = Rekey2(public_key=public_keys()["public_key"], kem_ciphertext=bytes(1088))
        for changed, code in (({}, None), ({"public_key": bytes(32)}, 1), ({"kem_ciphertext": bytes(1087)}, 1)):
            one, other = self.hops()
            other.open(*one.begin_rekey(Counting("one")), 0.0, Counting("other"))
            other, box = copy(other), None
            other._out = one._in  # as if it had not answered
            other._out_n = 0
            box = other.seal(rekey(2, {**asdict(good), **changed}))
            if code is None:
                self.assertIsNotNone(one.open(*box, 0.0, NO_DRAWS).reply)
            else:
                self.ended(Code.MALFORMED, one, *box)

    def test_what_two_parsers_could_read_differently(self) -> None:
        good = rekey(1, public_keys())
        one, other = self.hops()
        self.assertIsNotNone(other.open(*one.seal(good), 0.0, Counting("other")).reply)
        for bad in (
            bytes([good[0] + 1]) + good[1:] + b"\xa5phase\x01",
            bytes([good[0] + 1]) + good[1:] + b"\xa4type\xa5rekey",
            bytes([good[0] + 1]) + good[1:] + b"\xa4more" + b"\x91" * 8 + b"\xc0",
        ):
            one, other = self.hops()
            self.ended(Code.MALFORMED, other, *one.seal(bad))

    def test_everything_else_is_handed_on(self) -> None:
        good = rekey(3, {})
        for plaintext in (
            *(b"", b"text", b"\xc1", good[:-1], good + b"\0", good.replace(b"rekey", b"reke\xff")),
            *(payloads.encode(value) for value in ({"type": "rekeys"}, {"type": 1}, {"kind": "rekey"}, ["rekey"], {})),
        ):
            one, other = self.hops()
            self.assertEqual(self.arrives(other, one.seal(plaintext)), plaintext)


class Bounds(Hops):
    def test_the_greatest_and_the_least(self) -> None:
        for given, messages, seconds in (
            (None, REKEY_MESSAGES, REKEY_SECONDS),
            (0, LEAST_MESSAGES, LEAST_SECONDS),
            (1, LEAST_MESSAGES, LEAST_SECONDS),
            (300, 300, 300),
            (2000, REKEY_MESSAGES, REKEY_SECONDS),
            (2**32 - 1, REKEY_MESSAGES, REKEY_SECONDS),
        ):
            limits = {} if given is None else {"rekey_messages": given, "rekey_seconds": given}
            for hop in self.hops(**limits):
                self.assertEqual((hop._max_messages, hop._max_seconds), (messages, seconds))

    def test_a_client_rekeys_in_time(self) -> None:
        one, other = self.hops(rekey_messages=100, rekey_seconds=200)
        self.assertFalse(one.rekey_due(199.9))
        self.assertTrue(one.rekey_due(200.0))
        self.assertFalse(other.rekey_due(1000.0))
        for number in range(50):
            self.arrives(other, one.seal(b"text"))
            self.assertFalse(one.rekey_due(0.0), number)
            self.arrives(one, other.seal(b"text"))
        self.assertTrue(one.rekey_due(0.0))
        box = one.begin_rekey(Counting("asked"))
        self.assertFalse(one.rekey_due(1000.0))
        reply = other.open(*box, 0.0, Counting("answered")).reply
        assert reply is not None
        reply = one.open(*reply, 150.0, NO_DRAWS).reply
        assert reply is not None
        self.assertFalse(one.rekey_due(349.9))
        self.assertTrue(one.rekey_due(350.0))
        other.open(*reply, 160.0, NO_DRAWS)
        self.assertFalse(other.overdue(559.9))
        self.assertTrue(other.overdue(560.0))
        for _ in range(99):
            one.seal(b"text")
        self.assertFalse(one.rekey_due(150.0))

    def test_a_client_that_does_not_is_closed(self) -> None:
        one, other = self.hops(rekey_messages=100, rekey_seconds=200)
        for _ in range(PATIENCE * 100):
            self.assertFalse(other.overdue(399.9))
            self.arrives(other, one.seal(b"text"), 399.9)
        self.assertTrue(other.overdue(0.0))
        self.assertFalse(one.overdue(1e9))
        self.due(other, *one.seal(b"text"))
        one, other = self.hops(rekey_messages=100, rekey_seconds=200)
        self.due(other, *one.seal(b"text"), 400.0)

    def test_what_the_server_sends_counts_until_the_rekey_is_due(self) -> None:
        for sent, received in ((50, 150), (99, 101), (500, 101)):
            one, other = self.hops(rekey_messages=100)
            for _ in range(sent):
                other.seal(b"text")
            for _ in range(received):
                self.assertFalse(other.overdue(0.0))
                self.arrives(other, one.seal(b"text"))
            self.assertTrue(other.overdue(0.0))

    def test_a_rekey_that_is_begun_has_to_end(self) -> None:
        one, other = self.hops()
        other.open(*one.begin_rekey(Counting("one")), 599.0, Counting("other"))
        self.assertFalse(other.overdue(1199.9))
        self.due(other, *one.seal(b"text"), 1200.0)

    def test_an_honest_client_is_not_closed_for_what_is_under_way(self) -> None:
        # The server has sent far more than the client has read; the client, which counts both, has sent all it may.
        one, other = self.hops(rekey_messages=100)
        flood = [other.seal(b"text") for _ in range(300)]
        said = []
        while not one.rekey_due(0.0):
            said.append(one.seal(b"text"))
        self.assertEqual(len(said), 100)
        first = one.begin_rekey(Counting("one"))
        more = [one.seal(b"text") for _ in range(250)]
        for box in said:
            self.arrives(other, box)
        reply = other.open(*first, 0.0, Counting("other")).reply
        assert reply is not None
        for box in more:
            self.arrives(other, box)
        for box in flood:
            self.arrives(one, box)
        third = one.open(*reply, 0.0, NO_DRAWS).reply
        assert third is not None
        other.open(*third, 0.0, NO_DRAWS)
        self.assertFalse(other.overdue(0.0))
        self.assertEqual(self.arrives(other, one.seal(b"text")), b"text")
        self.assertIs(one._rekeying, Rekeying.IDLE)

    def test_a_client_that_only_reads_rekeys_too(self) -> None:
        one, other = self.hops(rekey_messages=100)
        for number in range(100):
            self.assertFalse(one.rekey_due(0.0), number)
            self.arrives(one, other.seal(b"text"))
        self.assertTrue(one.rekey_due(0.0))
