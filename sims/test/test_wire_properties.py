"""Properties of :mod:`sims.wire`: for any bytes there is a message or a :class:`~sims.errors.PeerError`."""

from __future__ import annotations

import json
from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase

from sims import wire
from sims.errors import PeerError
from sims.messages import InnerMessage, ListEntry, ListReply, Message
from sims.test.builders import NO_HYPOTHESIS
from sims.test.samples import FROM_CLIENT, FROM_SERVER, TOP_LEVEL
from sims.test.ways import short_ways_differ

try:
    from hypothesis import HealthCheck, given, settings
    from hypothesis import strategies as st
except ImportError:

    class Properties(SynchronousTestCase):
        skip = NO_HYPOTHESIS

        def test_properties(self) -> None:
            """Not without hypothesis."""

else:
    DECODERS: tuple[Callable[[bytes], Message | InnerMessage], ...] = (
        wire.decode,
        lambda data: wire.from_client(wire.parse(data)),
        lambda data: wire.from_server(wire.parse(data)),
    )
    FRAMES = sorted(
        {wire.encode(sample.message) for found in (TOP_LEVEL, FROM_CLIENT, FROM_SERVER) for sample in found.values()}
    )
    OBJECTS = [json.loads(frame) for frame in FRAMES]

    many = settings(
        deadline=None, derandomize=True, max_examples=80, database=None, suppress_health_check=list(HealthCheck)
    )
    #: What a mutation puts into a frame: what JSON is made of, and what it is not.
    pieces = st.one_of(
        st.sampled_from(
            [b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b"null", b"NaN", b"-", b"1e999", b"\xff", b"\xed\xa0\x80"]
        ),
        st.sampled_from(
            [b'"type":"ack",', b'"phase":1,', b'"src":7,', b"\\ud800", b"=", b"==", b"\xef\xbb\xbf", b"9" * 40]
        ),
        st.binary(max_size=8),
        st.sampled_from(FRAMES),
    )
    values = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
        max_leaves=12,
    )

    class Totality(SynchronousTestCase):
        def total(self, data: bytes) -> None:
            """It is a message that travels again as it came, or it is refused."""
            self.assertIsNone(short_ways_differ(data))
            for decode in DECODERS:
                try:
                    message = decode(data)
                except PeerError:
                    continue
                again = wire.encode(message)
                self.assertTrue(again.isascii())
                self.assertEqual(decode(again), message)
            try:
                text = wire.parse_text(data)
            except PeerError:
                return
            self.assertEqual(wire.parse_text(wire.encode_text(text)), text)

        @many
        @given(data=st.binary(max_size=300))
        def test_of_any_bytes(self, data: bytes) -> None:
            self.total(data)

        @many
        @given(text=st.text(max_size=200))
        def test_of_any_text(self, text: str) -> None:
            self.total(text.encode("utf-8", "surrogatepass"))

        @many
        @given(value=values)
        def test_of_any_json(self, value: object) -> None:
            self.total(json.dumps(value).encode("ascii"))

        @settings(many, max_examples=150)
        @given(
            frame=st.sampled_from(FRAMES),
            changes=st.lists(
                st.tuples(st.integers(0, 2000), st.integers(0, 30), pieces, st.booleans()), min_size=1, max_size=3
            ),
        )
        def test_of_a_changed_frame(self, frame: bytes, changes: list[tuple[int, int, bytes, bool]]) -> None:
            for start, length, piece, doubled in changes:
                start %= len(frame)
                removed = frame[start : start + length]
                frame = frame[:start] + (removed * 2 if doubled else piece) + frame[start + length :]
            self.total(frame)

        @settings(many, max_examples=150)
        @given(chosen=st.sampled_from(OBJECTS), at=st.integers(0, 20), key=st.integers(0, 20), value=values)
        def test_of_a_message_with_anything_in_a_field(
            self, chosen: dict[str, object], at: int, key: int, value: object
        ) -> None:
            changed = json.loads(json.dumps(chosen))
            places = [changed, *(inner for inner in changed.values() if isinstance(inner, dict) and inner)]
            place = places[at % len(places)]
            place[sorted(place)[key % len(place)]] = value
            self.total(json.dumps(changed).encode("ascii"))

    class Texts(SynchronousTestCase):
        @many
        @given(text=st.text())
        def test_arrive_as_they_were(self, text: str) -> None:
            data = wire.encode_text(text)
            self.assertTrue(data.isascii())
            self.assertEqual(wire.parse_text(data), text)

    class ListReplies(SynchronousTestCase):
        @many
        @given(
            entries=st.lists(
                st.builds(
                    ListEntry,
                    name=st.text(max_size=60),
                    id=st.integers(-(10**18) + 1, 10**18 - 1),
                    level=st.integers(0, 9),
                ),
                max_size=40,
            ),
            mac=st.sampled_from([32, 48]),
        )
        def test_are_the_entries_that_fit_in_their_order(self, entries: list[ListEntry], mac: int) -> None:
            data = wire.list_reply(entries, mac)
            self.assertLessEqual(len(data), 1146)
            self.assertTrue(data.isascii())
            reply = wire.from_server(wire.parse(data))
            assert isinstance(reply, ListReply)
            others = iter(entries)
            self.assertTrue(all(entry in others for entry in reply.data), "not in their order")
            if len(reply.data) < len(entries):
                left_out = [entry for entry in entries if entry not in reply.data]
                shortest = min(len(wire.encode(ListReply(data=[entry]))) for entry in left_out or entries)
                self.assertGreater(len(data) + shortest, 1146 - 40)
