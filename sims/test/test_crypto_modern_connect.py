"""Tests of connect: who is there, what is agreed on, and everything that ends it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import msgspec

from sims.crypto import payloads
from sims.crypto.handshake import MAX_SEALED, Client, Phase, Server
from sims.crypto.identity import Identity
from sims.crypto.payloads import Limits, Offer, Welcome
from sims.errors import Code, LocalError, PeerError
from sims.specs import MODERN
from sims.test.builders import flipped, refusal
from sims.test.connect_builders import ALICE, BOB, FRAME, SERVER, Ends, client, server
from sims.test.modern_builders import NOW, SPECS


class Impostor(Identity):
    """The public keys of one, and something else where they would sign."""

    def __init__(self, whose: Identity, sign: Callable[[str, bytes], bytes]) -> None:
        stored = whose.private_bytes()
        super().__init__(stored[:32], stored[32:])
        self._signs = sign

    def sign(self, purpose: str, message: bytes) -> bytes:
        """What was given."""
        return self._signs(purpose, message)


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
        ciphers, data = self.offered(client())
        for version in (1, 3):
            other = server()
            changed = msgspec.structs.replace(data, version=version)
            self.refused(Code.NO_COMMON_SPEC, other, other.answer, FRAME, ciphers, changed)

    def test_a_choice_is_never_widened(self) -> None:
        for name in (SPECS[0], "ECDHE-AES128_CTR-SHA256", ""):
            one, other = client(specs=MODERN[1:]), server()
            agreed = self.answered(one, other)
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

    def test_a_server_that_only_knows_the_public_keys(self) -> None:
        for sign in (
            BOB.sign,
            lambda purpose, message: SERVER.sign("connect client", message),
            lambda purpose, message: SERVER.sign(purpose, flipped(message, 0)),
            lambda purpose, message: SERVER.sign(purpose, message[:-1]),
            lambda purpose, message: bytes(64),
        ):
            one, other = client(), server(identity=Impostor(SERVER, sign))
            agreed = self.answered(one, other)
            self.refused(Code.NOT_AUTHENTICATED, one, one.answer, agreed.spec.name, agreed.data)

    def test_a_client_that_only_knows_the_public_keys(self) -> None:
        for sign in (
            BOB.sign,
            lambda purpose, message: ALICE.sign("connect server", message),
            lambda purpose, message: ALICE.sign(purpose, flipped(message, 0)),
            lambda purpose, message: ALICE.sign(purpose, message[:-32]),
            lambda purpose, message: ALICE.sign(purpose, message[:-32] + BOB.id.encode()),  # to another server
            lambda purpose, message: bytes(64),
        ):
            one, other = client(Impostor(ALICE, sign)), server()
            self.refused(Code.NOT_AUTHENTICATED, other, other.accept, self.proved(one, other))
            refusal(LocalError, other.welcome, "alice", Limits(), NOW, 0.0)

    def test_the_honest_impostor(self) -> None:
        # Or the two tests above would show nothing.
        one, other = client(Impostor(ALICE, ALICE.sign)), server(identity=Impostor(SERVER, SERVER.sign))
        self.joined(one, other)

    def test_every_changed_box_is_refused(self) -> None:
        for where in (0, 100, -1):
            one, other = client(), server()
            agreed = self.answered(one, other)
            changed = msgspec.structs.replace(agreed.data, sealed=flipped(agreed.data.sealed, where))
            self.refused(Code.NOT_AUTHENTICATED, one, one.answer, agreed.spec.name, changed)
            one, other = client(), server()
            sealed3 = self.proved(one, other)
            self.refused(Code.NOT_AUTHENTICATED, other, other.accept, flipped(sealed3, where))
            one, other = client(), server()
            other.accept(self.proved(one, other))
            sealed4, _ = other.welcome("alice", Limits(), NOW, 0.0)
            self.refused(Code.NOT_AUTHENTICATED, one, one.finish, flipped(sealed4, where), 0.0)

    def test_a_box_of_another_size(self) -> None:
        for cut in (-1, 0, 15):
            one, other = client(), server()
            self.refused(Code.NOT_AUTHENTICATED, other, other.accept, self.proved(one, other)[:cut])
        for size, code in ((MAX_SEALED, Code.NOT_AUTHENTICATED), (MAX_SEALED + 1, Code.TOO_LARGE)):
            one, other = client(), server()
            self.proved(one, other)
            self.refused(code, other, other.accept, bytes(size))

    def test_what_a_frame_has_room_for_is_taken(self) -> None:
        # 8 KiB of base64 hold 6,144 bytes: 11 times 512, and a tag.
        one, other = client(name="n" * 512, invite="i" * 1024, epoch=2**64 - 1), server()
        claim = other.accept(self.proved(one, other))
        self.assertEqual((len(claim.name), claim.invite, claim.epoch), (512, "i" * 1024, 2**64 - 1))
        for name, invite in (("\u00e9" * 512, "\U0001f600" * 1024), ("\U0001f600" * 512, "\u00e9" * 1024)):
            one, other = client(name=name, invite=invite), server()
            sealed = self.proved(one, other)
            self.assertGreater(len(sealed), 4112)
            self.assertEqual(other.accept(sealed)[1:3], (name, invite))
        one, other = client(name="\U0001f600" * 512, invite="\U0001f600" * 1024), server()
        agreed = self.answered(one, other)
        self.assertIs(refusal(LocalError, one.answer, agreed.spec.name, agreed.data).code, Code.TOO_LARGE)

    def test_what_two_parsers_could_read_differently(self) -> None:
        packed = payloads.encode(Welcome(name="alice", limits=Limits(), time=1))
        self.assertIsNone(self.ended(packed))
        for extra in (b"\xa4name\xa1x", b"\xa4more\xcb\x7f\xf8" + bytes(6), b"\xa4more" + b"\x91" * 8 + b"\xc0"):
            self.assertIs(self.ended(bytes([packed[0] + 1]) + packed[1:] + extra), Code.MALFORMED)

    def test_keys_that_cannot_be_are_refused(self) -> None:
        for changed in ({"public_key": bytes(32)}, {"kem_public_key": b"\xff" * 1184}):
            one, other = client(), server()
            ciphers, data = self.offered(one)
            self.refused(Code.MALFORMED, other, other.answer, FRAME, ciphers, msgspec.structs.replace(data, **changed))
        one, other = client(), server()
        agreed = self.answered(one, other)
        zero = msgspec.structs.replace(agreed.data, public_key=bytes(32))
        self.refused(Code.MALFORMED, one, one.answer, agreed.spec.name, zero)

    def test_a_binding_is_32_bytes_or_none(self) -> None:
        for size in (1, 16, 31, 33, 64):
            for make in (client, server):
                self.assertIs(refusal(LocalError, partial(make, binding=bytes(size))).code, Code.INTERNAL)
        self.joined(client(binding=b""), server(binding=b""))

    def test_phases_come_in_order(self) -> None:
        agreed = self.answered(client(), server())
        offered = self.offered(client())
        for steps in range(4):
            for end in ("client", "server"):
                for phase in (1, 2, 3, 4):
                    one, other, sealed = self.after(steps)
                    match end, phase:
                        case "client", 2 if steps != 1:
                            self.refused(Code.MALFORMED, one, one.answer, agreed.spec.name, agreed.data)
                        case "client", 4 if steps < 2:
                            self.refused(Code.MALFORMED, one, one.finish, sealed, 0.0)
                        case "server", 1 if steps > 1:
                            self.refused(Code.MALFORMED, other, other.answer, FRAME, *offered)
                        case "server", 3 if steps != 2:
                            self.refused(Code.MALFORMED, other, other.accept, sealed)

    def after(self, steps: int) -> tuple[Client, Server, bytes]:
        """Both ends when 0 nothing, 1 the offer, 2 the client's proof, 3 the server's acceptance was; and what came."""
        one, other = client(), server()
        sealed = b""
        if steps == 1:
            self.offered(one)
        elif steps > 1:
            sealed = self.proved(one, other)
        if steps == 3:
            other.accept(sealed)
            sealed, _ = other.welcome("alice", Limits(), NOW, 0.0)
        return one, other, sealed

    def test_nothing_goes_on_behind_a_refusal(self) -> None:
        one, other = client(), server()
        ciphers, data = self.offered(one)
        refusal(PeerError, other.answer, FRAME, [], data)
        self.refused(Code.MALFORMED, other, other.answer, FRAME, ciphers, data)
        other = server()
        agreed = other.answer(FRAME, ciphers, data)
        refusal(PeerError, one.answer, SPECS[1][:-1], agreed.data)
        self.refused(Code.MALFORMED, one, one.answer, agreed.spec.name, agreed.data)
        self.assertIs(refusal(LocalError, one.offer, _never).code, Code.INTERNAL)
        one, other = client(), server()
        sealed = self.proved(one, other)
        refusal(PeerError, other.accept, b"")
        self.refused(Code.MALFORMED, other, other.accept, sealed)
        for act in (lambda: other.welcome("x", Limits(), 0, 0.0), lambda: other.refuse(Code.POLICY)):
            self.assertIs(refusal(LocalError, act).code, Code.INTERNAL)
        one, other = client(), server()
        other.accept(self.proved(one, other))
        sealed, _ = other.welcome("alice", Limits(), NOW, 0.0)
        refusal(PeerError, one.finish, flipped(sealed, 0), 0.0)
        self.refused(Code.MALFORMED, one, one.finish, sealed, 0.0)

    def test_own_phases_come_in_order(self) -> None:
        one, other = client(), server()
        acts: tuple[Callable[[], object], ...] = (
            lambda: other.welcome("x", Limits(), 0, 0.0),
            lambda: other.refuse(Code.POLICY),
        )
        sealed = b""
        for step in range(4):
            if step == 1:
                sealed = self.proved(one, other)
                self.assertIs(refusal(LocalError, one.offer, _never).code, Code.INTERNAL)
            elif step == 2:
                other.accept(sealed)
                other.refuse(Code.POLICY)
                self.assertIs(other.phase, Phase.DONE)
            for act in acts:
                self.assertIs(refusal(LocalError, act).code, Code.INTERNAL)

    def test_what_gave_the_keys_is_forgotten(self) -> None:
        one, other = client(), server()
        self.joined(one, other)
        for end in (one, other):
            self.assertIs(end.phase, Phase.DONE)
            held = vars(end)
            self.assertEqual([name for name in ("_transcript", "_key", "_kem") if held.get(name) is not None], [])

    def test_a_refusal_has_a_code(self) -> None:
        for code, found in ((Code.INVITE_REQUIRED, Code.INVITE_REQUIRED), (Code.NAME_TAKEN, Code.NAME_TAKEN)):
            one, other = client(), server()
            other.accept(self.proved(one, other))
            self.refused(found, one, one.finish, other.refuse(code), 0.0)

    def test_an_epoch_shows_a_restored_store(self) -> None:
        for own, highest, restored in ((7, 6, False), (7, 7, True), (7, 9, True), (7, None, False), (None, 9, False)):
            joined, _ = self.joined(client(epoch=own), server(), epoch=highest)
            self.assertIs(joined.restored, restored)
            self.assertEqual(joined.epoch, highest)

    def test_a_code_that_is_not_known(self) -> None:
        self.assertIs(self.ended_with({"error": "of a later version"}), Code.UNAVAILABLE)

    def test_neither_a_welcome_nor_an_error(self) -> None:
        whole = {"name": "alice", "limits": {}, "time": 1}
        for missing in whole:
            self.assertIs(
                self.ended_with({key: value for key, value in whole.items() if key != missing}), Code.MALFORMED
            )
        self.assertIs(self.ended_with({**whole, "error": "policy"}), Code.POLICY)
        self.assertIsNone(self.ended_with(whole))

    def ended_with(self, outcome: object) -> Code | None:
        """What a client makes of a phase 4 that says this."""
        return self.ended(payloads.encode(outcome))

    def ended(self, packed: bytes) -> Code | None:
        """What a client makes of a phase 4 with these bytes in its box."""
        one, other = client(), server()
        other.accept(self.proved(one, other))
        transcript = other._transcript
        assert transcript is not None
        try:
            one.finish(transcript.seal(4, packed), 0.0)
        except PeerError as error:
            return error.code
        return None

    def test_no_key_is_shown(self) -> None:
        for shown in (repr(client(invite="MARK")), repr(server())):
            for secret in ("b'", "\\x", "MARK"):
                self.assertNotIn(secret, shown)


def _never(ciphers: list[str], data: Offer) -> bytes:
    raise AssertionError("an offer was made")
