"""Properties of the modern parsers: for any input there is a value or a :class:`~sims.errors.PeerError`."""

from __future__ import annotations

import contextlib

import msgspec
from twisted.trial.unittest import SynchronousTestCase

from sims.crypto import content, payloads
from sims.crypto.content import Order
from sims.crypto.conversation import Conversation
from sims.crypto.identity import parse_link
from sims.crypto.notation import pad, unpad
from sims.crypto.peer import PeerSessions
from sims.crypto.prekeys import Bundle, OneTimeKey, OwnPrekeys
from sims.crypto.session import Session
from sims.errors import PeerError
from sims.test.builders import NO_HYPOTHESIS
from sims.test.modern_builders import Relay, person

try:
    from hypothesis import HealthCheck, given, settings
    from hypothesis import strategies as st
except ImportError:

    class Properties(SynchronousTestCase):
        skip = NO_HYPOTHESIS

        def test_properties(self) -> None:
            """Not without hypothesis."""

else:
    ALICE = person("alice")
    STRUCTS = (
        *(payloads.Offer, payloads.Answer, payloads.ServerProof, payloads.ClientProof, payloads.Outcome),
        *(payloads.Rekey1, payloads.Rekey2, payloads.Rekey3, payloads.Message, payloads.Limits),
        *(payloads.Phase1, payloads.Phase2, payloads.Phase3, payloads.Phase4, Bundle, OneTimeKey),
    )

    many = settings(
        deadline=None, derandomize=True, max_examples=40, database=None, suppress_health_check=list(HealthCheck)
    )
    plain = st.recursive(
        st.none() | st.booleans() | st.integers() | st.binary(max_size=70) | st.text(max_size=20) | st.floats(),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8) | st.integers(), inner, max_size=3)
        ),
        max_leaves=8,
    )

    def _packed(value: object) -> bytes:
        try:
            return msgspec.msgpack.encode(value)
        except OverflowError:
            return b""

    def _stored() -> list[bytes]:
        """States as they are stored, of a conversation under way."""
        relay = Relay()
        relay.alice.say("one")
        relay.settle()
        relay.bob.say("two")
        person_ = relay.alice
        session = person_.sessions.sessions[0].dump()
        conversation = person_.conversation
        order = conversation._order.dump()
        return [session, person_.sessions.dump(), person_.prekeys.dump(), order, conversation.dump()]

    class Properties(SynchronousTestCase):  # type: ignore[no-redef]
        """Nothing but a value or a PeerError comes out."""

        @many
        @given(st.binary(max_size=200) | plain.map(_packed))
        def test_any_bytes(self, data: bytes) -> None:
            for kind in STRUCTS:
                with contextlib.suppress(PeerError):
                    payloads.decode(kind, data)
            for load in (
                *(lambda given: content.decode(bytes(32) + given), OwnPrekeys.load, Order.load),
                *(lambda given: Session.load(ALICE, given), lambda given: PeerSessions.load(ALICE, given)),
                lambda given: Conversation.load(ALICE, given),
            ):
                with contextlib.suppress(PeerError):
                    load(data)

        @many
        @given(plain)
        def test_any_map(self, value: object) -> None:
            for kind in STRUCTS:
                with contextlib.suppress(PeerError):
                    payloads.convert(kind, value)

        @many
        @given(st.text(max_size=80), st.sampled_from(("", "sims://", "sims+tcp://")), st.booleans())
        def test_any_link(self, text: str, scheme: str, whole: bool) -> None:
            tail = f"/{ALICE.id}" if whole else ""
            try:
                link = parse_link(f"{scheme}{text}{tail}")
            except PeerError:
                return
            self.assertEqual(parse_link(str(link)), link)

        @many
        @given(st.binary(max_size=700), st.sampled_from(("content", "box")))
        def test_any_padding(self, data: bytes, kind: str) -> None:
            padded = pad(kind, data)  # type: ignore[arg-type]
            self.assertEqual(unpad(kind, padded), data)  # type: ignore[arg-type]
            try:
                found = unpad(kind, data)  # type: ignore[arg-type]
            except PeerError:
                return
            self.assertEqual(pad(kind, found), data)  # type: ignore[arg-type]

        def test_truncated_states(self) -> None:
            loads = (
                lambda given: Session.load(ALICE, given),
                lambda given: PeerSessions.load(ALICE, given),
                OwnPrekeys.load,
                Order.load,
                lambda given: Conversation.load(ALICE, given),
            )
            for load, stored in zip(loads, _stored(), strict=True):
                load(stored)
                for end in range(0, len(stored), 97):
                    self.assertRaises(PeerError, load, stored[:end])
