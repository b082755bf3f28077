"""Tests of connect and of the hop behind it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from twisted.trial.unittest import SynchronousTestCase

from sims.crypto import payloads
from sims.crypto.handshake import Agreed, Client, Joined, Server
from sims.crypto.hop import Hop
from sims.crypto.payloads import Limits, Offer, Rekey1, Rekey2
from sims.errors import Code, LocalError, PeerError
from sims.specs import MODERN, ModernSpec
from sims.test.builders import flipped, refusal
from sims.test.modern_builders import NOW, SPECS, Counting, person

ALICE, SERVER = person("alice"), person("server")
FRAME = b"frame 1"
BINDING = bytes(range(32))


def client(**changes: Any) -> Client:
    """A client's end."""
    arguments: dict[str, Any] = {
        "server": SERVER.id,
        "name": "alice",
        "specs": MODERN,
        "binding": BINDING,
        "entropy": Counting("client"),
        **changes,
    }
    return Client(ALICE, **arguments)


def server(specs: tuple[ModernSpec, ...] = MODERN, binding: bytes = BINDING) -> Server:
    """A server's end."""
    return Server(SERVER, specs, binding=binding, entropy=Counting("server"))


def picture(end: object) -> object:
    """A picture of an end's or a hop's state."""
    names = getattr(type(end), "__slots__", None) or vars(end)
    held = {name: getattr(end, name) for name in names if name not in ("_entropy", "_identity")}
    transcript = held.get("_transcript")
    return held, transcript and transcript.hash


class Ends(SynchronousTestCase):
    def offered(self, one: Client) -> tuple[list[str], Offer]:
        """Phase 1 of a client."""
        said: list[tuple[list[str], Offer]] = []

        def encode(ciphers: list[str], data: Offer) -> bytes:
            said.append((ciphers, data))
            return FRAME

        self.assertEqual(one.offer(encode), FRAME)
        return said[0]

    def answered(self, one: Client, other: Server, frame: bytes = FRAME) -> Agreed:
        """Phase 2 of a server."""
        return other.answer(frame, *self.offered(one))

    def joined(self, one: Client, other: Server, epoch: int | None = None, **limits: int) -> tuple[Joined, Hop]:
        """Both ends after phase 4."""
        agreed = self.answered(one, other)
        claim = other.accept(one.answer(agreed.spec.name, agreed.data))
        self.assertEqual((claim.id, claim.name), (ALICE.id, "alice"))
        sealed, hop = other.welcome("alice", Limits(**limits), NOW, 0.0, epoch)
        return one.finish(sealed, 0.0), hop

    def refused(self, code: Code, end: object, act: Callable[..., object], *arguments: object) -> None:
        """``act`` is refused, and the end is as it was."""
        before = picture(end)
        self.assertIs(refusal(PeerError, act, *arguments).code, code)
        self.assertEqual(picture(end), before)

    def hops(self, **limits: int) -> tuple[Hop, Hop]:
        """Both ends of a hop."""
        joined, hop = self.joined(client(), server(), **limits)
        return joined.hop, hop


class Connect(Ends):
    def test_what_is_said_arrives(self) -> None:
        one, other = client(invite="MARK", epoch=7), server()
        agreed = self.answered(one, other)
        claim = other.accept(one.answer(agreed.spec.name, agreed.data))
        self.assertEqual((claim.invite, claim.epoch, claim.identity), ("MARK", 7, ALICE.public))
        self.assertNotIn("MARK", repr(claim))
        sealed, _ = other.welcome("Alice", Limits(frame=98_304), NOW, 0.0)
        joined = one.finish(sealed, 0.0)
        self.assertEqual((joined.name, joined.limits.frame, joined.time), ("Alice", 98_304, NOW))

    def test_the_servers_preference_decides(self) -> None:
        for specs in (MODERN, MODERN[::-1]):
            self.assertIs(self.answered(client(), server(specs)).spec, specs[0])
        self.assertIs(self.answered(client(specs=MODERN[1:]), server()).spec, MODERN[1])

    def test_nothing_in_common(self) -> None:
        one, other = client(specs=MODERN[1:]), server(MODERN[:1])
        self.refused(Code.NO_COMMON_SPEC, other, other.answer, FRAME, *self.offered(one))

    def test_another_version(self) -> None:
        other = server()
        ciphers, data = self.offered(client())
        for version in (1, 3):
            changed = msgspec.structs.replace(data, version=version)
            self.refused(Code.NO_COMMON_SPEC, other, other.answer, FRAME, ciphers, changed)

    def test_a_choice_is_never_widened(self) -> None:
        one, other = client(specs=MODERN[1:]), server()
        agreed = self.answered(one, other)
        for name in (SPECS[0], "ECDHE-AES128_CTR-SHA256", ""):
            self.refused(Code.NO_COMMON_SPEC, one, one.answer, name, agreed.data)

    def test_a_stripped_offer_does_not_verify(self) -> None:
        one, other = client(), server()
        _, data = self.offered(one)
        agreed = other.answer(b"frame 1, with another list", list(SPECS[1:]), data)
        self.refused(Code.NOT_AUTHENTICATED, one, one.answer, agreed.spec.name, agreed.data)

    def test_another_binding_does_not_verify(self) -> None:
        for binding in (b"", bytes(32)):
            one, other = client(), server(binding=binding)
            agreed = self.answered(one, other)
            self.refused(Code.NOT_AUTHENTICATED, one, one.answer, agreed.spec.name, agreed.data)

    def test_another_server_than_the_links(self) -> None:
        one, other = client(server=ALICE.id), server()
        agreed = self.answered(one, other)
        self.refused(Code.NOT_AUTHENTICATED, one, one.answer, agreed.spec.name, agreed.data)

    def test_every_changed_box_is_refused_by_an_end_that_goes_on_afterwards(self) -> None:
        one, other = client(), server()
        agreed = self.answered(one, other)
        for where in (0, 100, -1):
            changed = msgspec.structs.replace(agreed.data, sealed=flipped(agreed.data.sealed, where))
            self.refused(Code.NOT_AUTHENTICATED, one, one.answer, agreed.spec.name, changed)
        sealed3 = one.answer(agreed.spec.name, agreed.data)
        for changed3 in (flipped(sealed3, 0), sealed3[:-1], b""):
            self.refused(Code.NOT_AUTHENTICATED, other, other.accept, changed3)
        self.refused(Code.TOO_LARGE, other, other.accept, bytes(5000))
        other.accept(sealed3)
        sealed4, _ = other.welcome("alice", Limits(), NOW, 0.0)
        self.refused(Code.NOT_AUTHENTICATED, one, one.finish, flipped(sealed4, 9), 0.0)
        one.finish(sealed4, 0.0)

    def test_keys_that_cannot_be_are_refused(self) -> None:
        one, other = client(), server()
        ciphers, data = self.offered(one)
        for changed in ({"public_key": bytes(32)}, {"kem_public_key": b"\xff" * 1184}):
            self.refused(Code.MALFORMED, other, other.answer, FRAME, ciphers, msgspec.structs.replace(data, **changed))
        agreed = other.answer(FRAME, ciphers, data)
        zero = msgspec.structs.replace(agreed.data, public_key=bytes(32))
        self.refused(Code.MALFORMED, one, one.answer, agreed.spec.name, zero)

    def test_phases_come_in_order(self) -> None:
        one, other = client(), server()
        fresh, spare = client(), server()
        agreed = self.answered(one, other)
        self.refused(Code.MALFORMED, fresh, fresh.answer, agreed.spec.name, agreed.data)
        self.refused(Code.MALFORMED, one, one.finish, b"", 0.0)
        self.refused(Code.MALFORMED, spare, spare.accept, b"")
        self.refused(Code.MALFORMED, other, other.answer, FRAME, list(SPECS), self.offered(fresh)[1])
        for act in (
            lambda: other.welcome("x", Limits(), 0, 0.0),
            lambda: other.refuse(Code.POLICY),
            lambda: one.offer(_never),
        ):
            self.assertIs(refusal(LocalError, act).code, Code.INTERNAL)
        sealed3 = one.answer(agreed.spec.name, agreed.data)
        self.refused(Code.MALFORMED, one, one.answer, agreed.spec.name, agreed.data)
        other.accept(sealed3)
        self.refused(Code.MALFORMED, other, other.accept, sealed3)

    def test_a_refusal_has_a_code(self) -> None:
        for code, found in ((Code.INVITE_REQUIRED, Code.INVITE_REQUIRED), (Code.NAME_TAKEN, Code.NAME_TAKEN)):
            one, other = client(), server()
            agreed = self.answered(one, other)
            other.accept(one.answer(agreed.spec.name, agreed.data))
            self.refused(found, one, one.finish, other.refuse(code), 0.0)

    def test_an_epoch_shows_a_restored_store(self) -> None:
        for own, highest, restored in ((7, 6, False), (7, 7, True), (7, 9, True), (7, None, False), (None, 9, False)):
            joined, _ = self.joined(client(epoch=own), server(), epoch=highest)
            self.assertIs(joined.restored, restored)
            self.assertEqual(joined.epoch, highest)


class Secure(Ends):
    def test_both_directions(self) -> None:
        one, other = self.hops()
        for number in range(3):
            for sender, receiver in ((one, other), (other, one)):
                box = sender.seal(b"text %d" % number)
                self.assertEqual((box.n, len(box.ciphertext)), (number, 528))
                self.assertEqual(receiver.open(*box, 0.0), b"text %d" % number)
        self.assertIs(refusal(LocalError, one.seal, bytes(65_536)).code, Code.TOO_LARGE)
        self.assertEqual(other.open(*one.seal(bytes(65_535)), 0.0), bytes(65_535))

    def test_a_number_is_exactly_the_next(self) -> None:
        one, other = self.hops()
        first, second = one.seal(b"1"), one.seal(b"2")
        for n, ciphertext in (second, (0, second.ciphertext), (1, first.ciphertext), (-1, first.ciphertext)):
            self.refused(Code.NOT_AUTHENTICATED, other, other.open, n, ciphertext, 0.0)
        self.refused(Code.NOT_AUTHENTICATED, one, one.open, *first, 0.0)
        self.refused(Code.NOT_AUTHENTICATED, other, other.open, 0, flipped(first.ciphertext, 3), 0.0)
        self.assertEqual(other.open(*first, 0.0), b"1")
        self.refused(Code.NOT_AUTHENTICATED, other, other.open, *first, 0.0)
        self.assertEqual(other.open(*second, 0.0), b"2")

    def rekey(self, one: Hop, other: Hop, now: float) -> None:
        """A whole rekey, with a message under way in each direction at every moment."""
        entropy = Counting("rekey")

        def said(receiver: Hop, box: tuple[int, bytes]) -> tuple[int, Any]:
            inner = payloads.decode(dict, receiver.open(*box, now))
            self.assertEqual(inner["type"], "rekey")
            return inner["phase"], inner["data"]

        first = one.begin_rekey(entropy)
        crossing = other.seal(b"crossing 1")
        self.assertIs(refusal(LocalError, one.begin_rekey, entropy).code, Code.INTERNAL)
        second = other.rekey(*said(other, first), now, entropy)
        assert second is not None
        late = one.seal(b"before 3"), other.seal(b"after 2")
        self.assertEqual(one.open(*crossing, now), b"crossing 1")
        third = one.rekey(*said(one, second), now, entropy)
        assert third is not None
        self.assertEqual(one.open(*late[1], now), b"after 2")
        behind = one.seal(b"behind 3")
        self.assertEqual(other.open(*late[0], now), b"before 3")
        self.assertIsNone(other.rekey(*said(other, third), now, entropy))
        self.assertEqual(other.open(*behind, now), b"behind 3")

    def test_a_rekey_loses_nothing(self) -> None:
        one, other = self.hops()
        for now in (1.0, 2.0, 3.0):
            self.rekey(one, other, now)
        self.assertEqual(one.open(*other.seal(b"text"), 4.0), b"text")

    def test_a_rekey_out_of_order_is_refused(self) -> None:
        one, other = self.hops()
        entropy = Counting("order")
        keys = Rekey1(public_key=entropy.x25519().public, kem_public_key=entropy.mlkem768().public)
        good = msgspec.to_builtins(keys, builtin_types=(bytes,))
        maps: list[Any] = [None, {}, [], {**good, "public_key": bytes(32)}, {**good, "public_key": b""}]
        for end, phase, data in (
            *((one, phase, good) for phase in (0, 1, 2, 3, 4)),
            *((other, phase, good) for phase in (0, 2, 3, 4)),
            *((other, 1, data) for data in maps),
            (other, 1, {**good, "kem_public_key": b"\xff" * 1184}),
        ):
            self.refused(Code.MALFORMED, end, end.rekey, phase, data, 0.0, entropy)
        self.assertIs(refusal(LocalError, other.begin_rekey, entropy).code, Code.INTERNAL)
        box = one.begin_rekey(entropy)
        other.open(*box, 0.0)
        self.assertIsNotNone(other.rekey(1, good, 0.0, entropy))
        self.refused(Code.MALFORMED, other, other.rekey, 1, good, 0.0, entropy)
        bad = Rekey2(public_key=bytes(32), kem_ciphertext=bytes(1088))
        self.refused(Code.MALFORMED, one, one.rekey, 2, msgspec.to_builtins(bad, builtin_types=(bytes,)), 0.0, entropy)

    def test_a_client_rekeys_in_time(self) -> None:
        one, other = self.hops(rekey_messages=10, rekey_seconds=100)
        self.assertFalse(one.rekey_due(99.9))
        self.assertTrue(one.rekey_due(100.0))
        self.assertFalse(other.rekey_due(1000.0))
        for _ in range(10):
            other.open(*one.seal(b"text"), 0.0)
        self.assertTrue(one.rekey_due(0.0))
        self.rekey(one, other, 150.0)
        self.assertFalse(one.rekey_due(150.0))
        self.assertFalse(other.overdue(349.0))

    def test_a_client_that_does_not_is_closed(self) -> None:
        one, other = self.hops(rekey_messages=4, rekey_seconds=100)
        for _ in range(8):
            other.open(*one.seal(b"text"), 0.0)
        self.assertTrue(other.overdue(0.0))
        self.refused(Code.REKEY_REQUIRED, other, other.open, *one.seal(b"text"), 0.0)
        one, other = self.hops(rekey_messages=4, rekey_seconds=100)
        self.refused(Code.REKEY_REQUIRED, other, other.open, *one.seal(b"text"), 200.0)

    def test_no_key_is_shown(self) -> None:
        one, other = self.hops()
        for shown in (repr(one), repr(other), repr(client()), repr(server())):
            self.assertNotIn("b'", shown)
            self.assertNotIn("\\x", shown)


def _never(ciphers: list[str], data: Offer) -> bytes:
    raise AssertionError("an offer was made")
