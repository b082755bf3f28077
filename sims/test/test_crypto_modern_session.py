"""Tests of sessions between clients: how they begin, what they take, what they keep, and what they refuse."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from twisted.trial.unittest import SynchronousTestCase

from sims.crypto import payloads
from sims.crypto.opening import accept_session, open_session
from sims.crypto.payloads import Message
from sims.crypto.prekeys import Bundle, OneTimeKey, OwnPrekeys
from sims.crypto.primitives import KemKey
from sims.crypto.session import Incoming, Opened, Session, Stage, incoming
from sims.errors import Code, LocalError, PeerError, malformed
from sims.specs import (
    MODERN,
    MODERN_CLASS,
    SEED,
    ModernSpec,
    common,
    modern_by_names,
    never_lower,
    preferred,
    spec_class,
)
from sims.test.builders import flipped, refusal
from sims.test.modern_builders import NOW, SPECS, Counting, arrives, person

ALICE, BOB, CAROL = person("alice"), person("bob"), person("carol")
DAY = 86_400


class Pair:
    """Alice opens to bob."""

    def __init__(self, specs: tuple[ModernSpec, ...] = MODERN, *, one_time: bool = True) -> None:
        self.entropy = Counting("pair")
        self.prekeys = OwnPrekeys()
        names = tuple(spec.name for spec in specs)
        self.bundle: Bundle = self.prekeys.make_bundle(BOB, "bob", names, now=NOW, entropy=self.entropy)
        self.keys = self.prekeys.make_one_time_keys(BOB, 3, now=NOW, entropy=self.entropy)
        self.alice = self.begin(self.keys[0] if one_time else None)

    def begin(self, key: OneTimeKey | None = None, specs: tuple[ModernSpec, ...] = MODERN, floor: int = 0) -> Session:
        """One more session of alice's."""
        return open_session(ALICE, specs, self.bundle, key, now=NOW, entropy=self.entropy, expected=BOB.id, floor=floor)

    def says(self, session: Session, content: bytes | None) -> Incoming:
        """What a session's message is where it arrives."""
        src, dst = (ALICE.id, BOB.id) if session.peer_id == BOB.id else (BOB.id, ALICE.id)
        return arrives(src, dst, session.seal(content, self.entropy))

    def accept(self, came: Incoming, specs: tuple[ModernSpec, ...] = MODERN, floor: int = 0) -> tuple[Session, Opened]:
        """Bob's end of a new session."""
        return accept_session(BOB, self.prekeys, specs, came, now=NOW, entropy=self.entropy, floor=floor)

    def meet(self) -> None:
        """Phases 1 and 2."""
        self.bob, opened = self.accept(self.says(self.alice, b"one"))
        assert (opened.content, opened.due, opened.confirmed) == (b"one", 2, False)
        opened = self.alice.open(self.says(self.bob, None), NOW)
        assert (opened.content, opened.due, opened.confirmed) == (None, 3, True)

    def finish(self) -> None:
        """All four phases."""
        self.meet()
        opened = self.bob.open(self.says(self.alice, None), NOW)
        assert (opened.due, opened.confirmed) == (4, True)
        assert self.alice.open(self.says(self.bob, None), NOW).due is None


class Case(SynchronousTestCase):
    def refused(self, code: Code | None, session: Session, act: Callable[..., object], *arguments: object) -> PeerError:
        """``act`` is refused, and the session is as it was."""
        before = session.dump()
        error = refusal(PeerError, act, *arguments)
        self.assertIn(code, (None, error.code))
        self.assertEqual(session.dump(), before)
        return error

    def duplicate(self, session: Session, came: Incoming, now: int = NOW) -> None:
        """The message came before, and the session is as it was."""
        before = session.dump()
        opened = session.open(came, now)
        self.assertEqual((opened.content, opened.due, opened.duplicate, opened.heard), (None, None, True, False))
        self.assertEqual(session.dump(), before)


class Opening(Case):
    def test_every_phase_with_and_without_a_message(self) -> None:
        for specs in (MODERN, MODERN[1:]):
            for one_time in (True, False):
                for riding in (True, False):
                    pair = Pair(specs, one_time=one_time)
                    self.assertIs(pair.alice.spec, specs[0])
                    bob, _ = pair.accept(pair.says(pair.alice, b"one"))
                    for sender, receiver in ((bob, pair.alice), (pair.alice, bob)):
                        due = sender.due
                        opened = receiver.open(pair.says(sender, b"text" if riding else None), NOW)
                        self.assertEqual(opened.content, b"text" if riding else None)
                        self.assertEqual((opened.due, opened.confirmed), (3 if due == 2 else 4, True))
                        self.assertIsNone(sender.due)
                    self.assertIs(bob.stage, Stage.DONE)
                    self.assertIs(pair.alice.stage, Stage.ANSWERED)
                    early = pair.says(bob, b"early")
                    self.assertIsNone(early.phase)
                    self.assertEqual(bob.due, 4)
                    self.assertEqual(pair.alice.open(early, NOW).content, b"early")
                    pair.alice.open(pair.says(bob, None), NOW)
                    self.assertIs(pair.alice.stage, Stage.DONE)
                    for number in range(4):
                        for sender, receiver in ((pair.alice, bob), (bob, pair.alice)):
                            came = pair.says(sender, b"%d" % number)
                            self.assertIsNone(came.phase)
                            self.assertEqual(receiver.open(came, NOW).content, b"%d" % number)

    def test_a_phase_goes_out_until_the_next_has_come(self) -> None:
        pair = Pair()
        first, second = pair.says(pair.alice, b"1"), pair.says(pair.alice, b"2")
        self.assertEqual((first.phase, second.phase), (1, 1))
        bob, _ = pair.accept(second)
        opened = bob.open(first, NOW)
        self.assertEqual((opened.content, opened.due, opened.late), (b"1", None, True))
        answers = [pair.says(bob, b"%d" % number) for number in range(3)]
        self.assertEqual([answer.phase for answer in answers], [2, 2, 2])
        self.assertEqual(pair.alice.open(answers[2], NOW).due, 3)
        self.assertIsNone(pair.alice.open(answers[0], NOW).due)
        thirds = [pair.says(pair.alice, b"%d" % number) for number in range(2)]
        self.assertEqual([third.phase for third in thirds], [3, 3])
        self.assertEqual(bob.open(thirds[1], NOW).due, 4)
        self.assertIsNone(bob.open(thirds[0], NOW).due)
        self.assertTrue(pair.alice.open(answers[1], NOW).late)

    def test_every_changed_field_of_a_phase_is_refused(self) -> None:
        pair = Pair()
        first = pair.says(pair.alice, b"one")
        prekeys, draws = pair.prekeys.dump(), pair.entropy.draws
        for changed in self.changes(first):
            refusal(PeerError, pair.accept, changed)
            self.assertEqual((pair.prekeys.dump(), pair.entropy.draws), (prekeys, draws))
        bob, _ = pair.accept(first)
        for changed in self.changes(pair.says(pair.alice, b"again")):
            self.refused(None, bob, bob.open, changed, NOW)
        second = pair.says(bob, b"two")
        for changed in self.changes(second):
            self.refused(None, pair.alice, pair.alice.open, changed, NOW)
        pair.alice.open(second, NOW)
        third = pair.says(pair.alice, b"three")
        for changed in self.changes(third):
            self.refused(None, bob, bob.open, changed, NOW)
        bob.open(third, NOW)
        fourth = pair.says(bob, None)
        for changed in self.changes(fourth):
            self.refused(Code.NOT_AUTHENTICATED, pair.alice, pair.alice.open, changed, NOW)

    def changes(self, came: Incoming) -> list[Incoming]:
        """A message with each of its fields changed."""
        found = [came._replace(src=CAROL.id), came._replace(dst=CAROL.id)]
        if came.ciphers is not None:
            found += [came._replace(ciphers=ciphers) for ciphers in (SPECS[:1], SPECS[::-1], (*SPECS, "X"))]
        data: Any = came.data
        for field in data.__struct_fields__:
            value = getattr(data, field)
            if isinstance(value, bytes):
                changed: list[object] = [flipped(value, 0), flipped(value, -1)]
            elif isinstance(value, int):
                changed = [value + 1]
            elif isinstance(value, Message):
                changed = [
                    msgspec.structs.replace(value, header=flipped(value.header, 20)),
                    msgspec.structs.replace(value, header=value.header + bytes(10)),
                    msgspec.structs.replace(value, body=flipped(value.body, 20)),
                ]
            else:
                changed = []
            found += [came._replace(data=msgspec.structs.replace(data, **{field: other})) for other in changed]
        return found

    def test_a_phase_1_names_one_kem_key_and_carries_a_message(self) -> None:
        pair = Pair()
        first = pair.says(pair.alice, b"one")
        for changes in ({"kem_prekey_id": 2}, {"one_time_id": msgspec.UNSET}, {"message": msgspec.UNSET}):
            data = msgspec.structs.replace(first.data, **changes)
            self.assertIs(refusal(PeerError, pair.accept, first._replace(data=data)).code, Code.MALFORMED)

    def test_an_a1_begins_one_session(self) -> None:
        for one_time in (True, False):
            pair = Pair(one_time=one_time)
            first, second = pair.says(pair.alice, b"1"), pair.says(pair.alice, b"2")
            pair.accept(first)
            before = pair.prekeys.dump()
            for came in (first, second):
                refusal(PeerError, pair.accept, came)
                self.assertEqual(pair.prekeys.dump(), before)

    def test_a_one_time_key_is_used_once(self) -> None:
        pair = Pair()
        other = pair.begin(pair.keys[0])
        pair.accept(pair.says(pair.alice, b"1"))
        self.assertIs(refusal(PeerError, pair.accept, pair.says(other, b"1")).code, Code.NOT_AUTHENTICATED)

    def test_another_choice_than_that_of_both_lists(self) -> None:
        pair = Pair()
        first = pair.says(pair.alice, b"one")
        data = msgspec.structs.replace(first.data, spec=SPECS[1])
        self.assertIs(refusal(PeerError, pair.accept, first._replace(data=data)).code, Code.NO_COMMON_SPEC)
        for ciphers, code in (
            ((), Code.NO_COMMON_SPEC),
            (("X",), Code.NO_COMMON_SPEC),
            (SPECS[1:], Code.NO_COMMON_SPEC),
        ):
            self.assertIs(refusal(PeerError, pair.accept, first._replace(ciphers=ciphers)).code, code)
        self.assertIs(refusal(PeerError, pair.accept, first, MODERN[1:]).code, Code.POLICY)

    def test_a_spec_class_is_never_lower(self) -> None:
        pair = Pair()
        self.assertIs(pair.begin(floor=MODERN_CLASS).spec, MODERN[0])
        first = pair.says(pair.alice, b"one")
        refusal(PeerError, lambda: pair.begin(floor=MODERN_CLASS + 1))
        self.assertIs(refusal(PeerError, pair.accept, first, MODERN, MODERN_CLASS + 1).code, Code.POLICY)

    def test_a_small_order_key_of_a_stranger_is_refused(self) -> None:
        pair = Pair()
        first = pair.says(pair.alice, b"one")
        for field in ("sign", "dh", "public_key"):
            data = msgspec.structs.replace(first.data, **{field: bytes(32)})
            refusal(PeerError, pair.accept, first._replace(data=data))

    def test_a_phase_2_with_a_kem_key_that_cannot_be_is_refused(self) -> None:
        class Broken(Counting):
            """Gives KEM keys whose public half is none."""

            def mlkem768(self) -> KemKey:
                key = super().mlkem768()
                key.public = b"\xff" * 1184
                return key

        pair = Pair()
        first = pair.says(pair.alice, b"one")
        pair.entropy = Broken("broken")
        bob, _ = pair.accept(first)
        self.refused(Code.MALFORMED, pair.alice, pair.alice.open, pair.says(bob, None), NOW)

    def test_decoding_is_total(self) -> None:
        pair = Pair()
        raw = msgspec.msgpack.decode(payloads.encode(pair.alice.seal(b"one", pair.entropy).data))
        incoming(ALICE.id, BOB.id, 1, SPECS, raw)
        phase: Any
        phases: list[Any] = [2, 3, 4, None, True, 1.0, "1", [1], {}]
        lists: list[Any] = ["x", [1], ["x"] * 65, ["x" * 129], {}]
        maps: list[Any] = [None, [], 1, b"", {}, {**raw, "dh": "text"}, {**raw, "prekey_id": -1}]
        for phase, ciphers, data in (
            *((phase, None, raw) for phase in (0, 1, 2, 5, None)),
            *((phase, SPECS, raw) for phase in phases),
            *((1, ciphers, raw) for ciphers in lists),
            *((1, SPECS, data) for data in maps),
            *((1, SPECS, {**raw, "message": data}) for data in (None, {}, {"header": b"", "body": b""})),
        ):
            error = refusal(PeerError, incoming, ALICE.id, BOB.id, phase, ciphers, data)
            self.assertIs(error.code, Code.MALFORMED)

    def test_a_phase_without_its_message_is_no_news(self) -> None:
        # A relay can take the message away and give the rest as often as it likes: it must not count as being heard.
        pair = Pair()
        first = pair.says(pair.alice, b"one")
        bob, opened = pair.accept(first)
        self.assertTrue(opened.heard)
        self.refused(Code.MALFORMED, bob, bob.open, self.bare(first), NOW)
        bare, second = pair.says(bob, None), pair.says(bob, b"two")
        self.assertEqual(pair.alice.open(bare, NOW), Opened(None, 3, True, False, False, True))
        self.duplicate(pair.alice, self.bare(second))
        self.assertEqual(pair.alice.open(second, NOW), Opened(b"two", None, True, False, False, True))
        third = pair.says(pair.alice, b"three")
        self.assertEqual(bob.open(self.bare(third), NOW), Opened(None, 4, True, False, False, True))
        self.duplicate(bob, self.bare(third))
        self.assertEqual(bob.open(third, NOW).content, b"three")
        self.duplicate(bob, third)
        self.duplicate(bob, first)
        fourth = pair.says(bob, None)
        self.assertTrue(pair.alice.open(fourth, NOW).heard)
        self.duplicate(pair.alice, fourth)
        self.duplicate(pair.alice, second)

    def bare(self, came: Incoming) -> Incoming:
        """A phase without its message."""
        return came._replace(data=msgspec.structs.replace(came.data, message=msgspec.UNSET))

    def test_phases_that_are_done_with_go(self) -> None:
        pair = Pair()
        pair.meet()
        self.assertIsNone(pair.alice.state.phase1)
        self.assertIsNotNone(pair.bob.state.phase2)
        saved = pair.alice.dump()
        pair.bob.open(pair.says(pair.alice, None), NOW)
        self.assertIsNone(pair.bob.state.phase2)
        # A copy from before phase 3 was sent owes nothing any more, once phase 4 has come.
        restored = Session.load(ALICE, saved)
        self.assertEqual(restored.due, 3)
        restored.open(pair.says(pair.bob, None), NOW)
        self.assertIsNone(restored.due)

    def test_a_copy_goes_its_own_way(self) -> None:
        pair = Pair()
        pair.meet()
        for session in (pair.alice, pair.bob):
            before, copy = session.dump(), session.copy()
            self.assertEqual(copy.dump(), before)
            copy.seal(b"text", pair.entropy)
            copy.end()
            copy.expire(NOW)
            self.assertNotEqual(copy.dump(), before)
            self.assertEqual(session.dump(), before)
        came = pair.says(pair.alice, b"text")
        before, copy = pair.bob.dump(), pair.bob.copy()
        copy.open(came, NOW)
        self.assertEqual(pair.bob.dump(), before)

    def test_a_content_that_is_refused_begins_nothing(self) -> None:
        pair = Pair()
        first = pair.says(pair.alice, b"one")
        before, draws = pair.prekeys.dump(), pair.entropy.draws

        def refuse(content: bytes) -> None:
            self.assertEqual(content, b"one")
            raise malformed("not readable")

        arguments: dict[str, Any] = {"now": NOW, "entropy": pair.entropy, "check": refuse}
        refusal(PeerError, lambda: accept_session(BOB, pair.prekeys, MODERN, first, **arguments))
        self.assertEqual((pair.prekeys.dump(), pair.entropy.draws), (before, draws))
        pair.accept(first)

    def test_nothing_is_sent_without_a_reason(self) -> None:
        pair = Pair()
        self.assertIs(refusal(LocalError, pair.alice.seal, None, pair.entropy).code, Code.INTERNAL)
        pair.finish()
        for session in (pair.alice, pair.bob):
            self.assertIs(refusal(LocalError, session.seal, None, pair.entropy).code, Code.INTERNAL)
            self.assertIs(refusal(LocalError, session.seal, bytes(32_768), pair.entropy).code, Code.TOO_LARGE)
            session.end()
            self.assertIs(refusal(LocalError, session.seal, b"text", pair.entropy).code, Code.POLICY)

    def test_no_key_is_shown(self) -> None:
        pair = Pair()
        pair.meet()
        opened = pair.alice.open(pair.says(pair.bob, b"MARK"), NOW)
        state = pair.alice.state
        for shown in map(repr, (pair.alice, pair.bob, opened, state, state.ratchet, state.ratchet.sending)):
            self.assertNotIn("MARK", shown)
            self.assertNotIn("b'", shown)
            self.assertNotIn("\\x", shown)


class Specs(SynchronousTestCase):
    def test_names(self) -> None:
        self.assertEqual(modern_by_names(SPECS[::-1]), MODERN[::-1])
        self.assertEqual([str(spec) for spec in MODERN], list(SPECS))
        self.assertEqual([spec.hash_size for spec in MODERN], [48, 32])
        for names in ([], ["ECDHE-AES128_CTR-SHA256"], [""]):
            self.assertIs(refusal(LocalError, modern_by_names, names).code, Code.POLICY)

    def test_between_clients_the_initiators_order_decides(self) -> None:
        one, two = SPECS
        initiator: Any
        responder: Any
        for initiator, responder, found in (
            ([one, two], [two, one], one),
            ([two, one], [one, two], two),
            (["X", two], ["X!", two, one], two),
            ([one, two], [two], two),
        ):
            self.assertEqual(common(initiator, responder, MODERN).name, found)
        for initiator, responder, allowed, code in (
            ([], SPECS, MODERN, Code.NO_COMMON_SPEC),
            (SPECS, [], MODERN, Code.NO_COMMON_SPEC),
            (SPECS, SPECS, MODERN[1:], Code.POLICY),
            (["X", one], ["X", one], MODERN, Code.POLICY),
            (["x"] * 32 + [one], SPECS, MODERN, Code.NO_COMMON_SPEC),
        ):
            self.assertIs(refusal(PeerError, common, initiator, responder, allowed).code, code)

    def test_with_a_server_its_order_decides(self) -> None:
        self.assertIs(preferred(SPECS, MODERN[::-1]), MODERN[1])
        self.assertIs(preferred(["X", SPECS[1]], MODERN), MODERN[1])
        self.assertIs(refusal(PeerError, preferred, [], MODERN).code, Code.NO_COMMON_SPEC)

    def test_a_text_is_no_list(self) -> None:
        text = " ".join(SPECS)
        self.assertIs(refusal(PeerError, preferred, text, MODERN).code, Code.MALFORMED)
        for lists in ((text, SPECS), (SPECS, text)):
            self.assertIs(refusal(PeerError, common, *lists, MODERN).code, Code.MALFORMED)

    def test_a_class_is_never_lower(self) -> None:
        self.assertGreater(spec_class(MODERN[1]), spec_class(SEED[0]))
        self.assertEqual(never_lower(0, SEED[0]), spec_class(SEED[0]))
        self.assertEqual(never_lower(MODERN_CLASS, MODERN[1]), MODERN_CLASS)
        self.assertIs(refusal(PeerError, never_lower, MODERN_CLASS, SEED[0]).code, Code.POLICY)
