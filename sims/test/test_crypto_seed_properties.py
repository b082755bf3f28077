"""Properties of :mod:`sims.crypto.seed`: whatever crosses whatever, nothing is lost, doubled or put out of order."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from sims.crypto import seed
from sims.crypto.seed import Box, End
from sims.errors import Code, PeerError
from sims.specs import SEED, CipherSpec
from sims.test.builders import NO_HYPOTHESIS, PAIRS, Conversation, refusal, session_pair, snapshot, with_field
from sims.test.cheapkeys import use_cheap_keys

try:
    from hypothesis import HealthCheck, given, settings
    from hypothesis import strategies as st
except ImportError:

    class Properties(SynchronousTestCase):
        skip = NO_HYPOTHESIS

        def test_properties(self) -> None:
            """Not without hypothesis."""

else:
    #: What happens, to which end, how often: a message is sent, the next one is delivered, what has come is
    #: acknowledged.
    steps = st.lists(
        st.tuples(
            st.sampled_from(["send", "deliver", "send", "deliver", "acknowledge"]), st.integers(0, 1), st.integers(1, 5)
        ),
        min_size=14,
        max_size=30,
    )
    slow = settings(
        deadline=None, derandomize=True, max_examples=12, database=None, suppress_health_check=list(HealthCheck)
    )

    def run(conversation: Conversation, story: list[tuple[str, int, int]]) -> int:
        """Let it happen; gives the most pairs that an end kept."""
        most = 1
        for what, end, times in story:
            for _ in range(times):
                if what == "send":
                    conversation.send(end)
                elif what == "deliver":
                    conversation.deliver(end)
            if what == "acknowledge":
                conversation.acknowledge(end)
            most = max(most, *(len(session._own) for session in conversation.sessions))
        return most

    class Interleavings(SynchronousTestCase):
        """Two ordered links, and every order of sending and delivering on them."""

        def setUp(self) -> None:
            use_cheap_keys(self)

        @slow
        @given(story=steps, ends=st.sampled_from(PAIRS), spec=st.sampled_from(SEED))
        def test_lose_double_and_reorder_nothing(
            self, story: list[tuple[str, int, int]], ends: tuple[End, End], spec: CipherSpec
        ) -> None:
            conversation = Conversation(session_pair(*ends, spec))
            run(conversation, story)
            conversation.drain()
            self.assertEqual(conversation.lost(), ([], []))

        @slow
        @given(story=steps, ends=st.sampled_from(PAIRS), window=st.integers(1, 5), grace=st.integers(0, 3))
        def test_lose_nothing_where_windows_are_full_and_old_pairs_go(
            self, story: list[tuple[str, int, int]], ends: tuple[End, End], window: int, grace: int
        ) -> None:
            self.patch(seed, "WINDOW", window)
            self.patch(seed, "GRACE", grace)
            conversation = Conversation(session_pair(*ends))
            self.assertLessEqual(run(conversation, story), window + grace + 1)
            conversation.drain()
            self.assertEqual(conversation.lost(), ([], []))
            # And it goes on: nothing is stuck.
            for end in (0, 1):
                self.assertTrue(conversation.send(end))
            conversation.drain()
            self.assertEqual(conversation.lost(), ([], []))

        @slow
        @given(story=steps, ends=st.sampled_from(PAIRS), end=st.integers(0, 1))
        def test_take_no_box_a_second_time(
            self, story: list[tuple[str, int, int]], ends: tuple[End, End], end: int
        ) -> None:
            conversation = Conversation(session_pair(*ends))
            boxes: list[Box] = []
            session = conversation.sessions[end]
            for what, whose, _ in story:
                if what == "send":
                    conversation.send(whose)
                else:
                    link = conversation.links[end]
                    if whose == end and link:
                        box, _ = link[0]
                        boxes.extend([box] if box else [])
                    conversation.deliver(whose)
            before = snapshot(session)
            for box in boxes:
                refusal(PeerError, session.open, box, bytes)
            self.assertEqual(snapshot(session), before)

    class Boxes(SynchronousTestCase):
        @settings(slow, max_examples=16)
        @given(
            field=st.sampled_from(Box._fields),
            cut=st.tuples(st.integers(0, 220), st.integers(0, 220)),
            inserted=st.binary(max_size=40),
        )
        def test_with_other_bytes_are_refused_and_change_nothing(
            self, field: str, cut: tuple[int, int], inserted: bytes
        ) -> None:
            sealing, opening = session_pair()
            box = sealing.seal(b'{"type":"list"}')
            value = getattr(box, field)
            other = value[: min(cut)] + inserted + value[max(cut) :]
            before = snapshot(opening)

            def only(plaintext: bytes) -> None:
                self.assertNotEqual(plaintext, b'{"type":"list"}')
                raise PeerError(Code.MALFORMED, "garbled")

            if other != value:
                refusal(PeerError, opening.open, with_field(box, field, other), only)
                self.assertEqual(snapshot(opening), before)
            self.assertEqual(opening.open(box, bytes), b'{"type":"list"}')

        @settings(slow, max_examples=10)
        @given(plaintext=st.binary(max_size=2000), spec=st.sampled_from(SEED), ends=st.sampled_from(PAIRS))
        def test_open_to_what_was_sealed(self, plaintext: bytes, spec: CipherSpec, ends: tuple[End, End]) -> None:
            sealing, opening = session_pair(*ends, spec)
            box = sealing.seal(plaintext)
            self.assertEqual(len(box.ciphertext), len(plaintext))
            self.assertEqual(opening.open(box, bytes), plaintext)
