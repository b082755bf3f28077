"""Tests of contents: what they say, and how they are numbered and chained where they are sent."""

from __future__ import annotations

from typing import Any

import msgspec
from twisted.trial.unittest import SynchronousTestCase

from sims.crypto.content import (
    MAX_CONTENT,
    Arrival,
    Content,
    Disconnect,
    OwnStream,
    Receipt,
    Text,
    Unknown,
    Unreadable,
    decode,
)
from sims.crypto.notation import pad
from sims.crypto.streams import FIRST_CHAIN, Place, chained
from sims.errors import Code, LocalError, PeerError
from sims.test.builders import refusal
from sims.test.modern_builders import NOW

FIELDS: dict[str, Any] = {"id": bytes(16), "stream": b"stream A", "time": NOW}
KINDS: list[Content] = [
    Text(**FIELDS, seq=1, body="☺"),
    Receipt(**FIELDS, seq=2, ids=(bytes(16),) * 100, state="read", chain=bytes(32)),
    Receipt(**FIELDS, seq=3, ids=(), state="delivered", chain=bytes(32)),
    Disconnect(**FIELDS, seq=4),
    Unreadable(**FIELDS, seq=5, ref=bytes(16)),
]


def packed(content: object) -> bytes:
    """Something where a content is due, with a chain before it."""
    return bytes(32) + msgspec.msgpack.encode(content)


class Contents(SynchronousTestCase):
    def refused(self, *contents: bytes) -> None:
        """None of them is a content."""
        for content in contents:
            self.assertIs(refusal(PeerError, decode, content).code, Code.MALFORMED, content)

    def test_every_kind_comes_back(self) -> None:
        for said in KINDS:
            self.assertEqual(decode(packed(said)), said)
            self.assertNotIn("☺", repr(said))

    def test_unknown_fields_are_no_matter(self) -> None:
        good = msgspec.to_builtins(KINDS[0], builtin_types=(bytes,))
        self.assertEqual(decode(packed({**good, "more": [1]})), KINDS[0])

    def test_every_field_is_needed(self) -> None:
        for said in KINDS:
            good = msgspec.to_builtins(said, builtin_types=(bytes,))
            self.refused(*(packed({key: good[key] for key in good if key != missing}) for missing in good))
            for field in good:
                self.refused(packed({**good, field: None}), packed({**good, field: 1.5}))

    def test_every_size(self) -> None:
        text, receipt, unreadable = (msgspec.to_builtins(KINDS[number], builtin_types=(bytes,)) for number in (0, 1, 4))
        self.refused(
            *(packed({**text, "id": value}) for value in (bytes(15), bytes(17), "x" * 16)),
            *(packed({**text, "stream": value}) for value in (bytes(7), bytes(9))),
            *(packed({**text, "seq": value}) for value in (0, -1, "1", True)),
            *(packed({**text, "time": value}) for value in (-1, "1", True)),
            *(packed({**receipt, "ids": value}) for value in ([bytes(16)] * 101, [bytes(15)], bytes(16))),
            *(packed({**receipt, "chain": value}) for value in (bytes(31), bytes(33))),
            *(packed({**receipt, "state": value}) for value in ("seen", "Read", "")),
            *(packed({**unreadable, "ref": value}) for value in (bytes(15), bytes(17))),
        )

    def test_an_unknown_kind_has_its_place(self) -> None:
        base: dict[str, Any] = {**FIELDS, "seq": 7}
        for kind in ("reaction", "", "Text", "unknown", "texts"):
            for more in ({}, {"body": 1, "ids": None}):
                self.assertEqual(decode(packed({"kind": kind, **base, **more})), Unknown(**base))
        for field, value in (("id", bytes(15)), ("stream", b""), ("seq", 0), ("time", -1), ("kind", 1), ("kind", None)):
            self.refused(packed({"kind": "reaction", **base, field: value}))
        for missing in ("kind", *base):
            self.refused(packed({key: value for key, value in {"kind": "x", **base}.items() if key != missing}))

    def test_what_two_parsers_could_read_differently(self) -> None:
        for said in (KINDS[0], {"kind": "reaction", **FIELDS, "seq": 1}):
            good = packed(said)
            first = good[32] + 1
            decode(bytes(32) + bytes([first]) + good[33:] + b"\xa4more\x90")
            for extra in (
                *(b"\xa4kind\xa4text", b"\xa3seq\x02", b"\xa4more\xcb\x7f\xf8" + bytes(6), b"\x01\x01"),
                *(b"\xa4more" + b"\x91" * 8 + b"\xc0", b"\xa4more\xd4\x01\x01", b"\xa4more\xa1\xff"),
            ):
                self.refused(bytes(32) + bytes([first]) + good[33:] + extra)
            self.refused(good[:-1], good + b"\0", good.replace(b"kind", b"kin\xff"))
        self.refused(b"", bytes(31), bytes(32), packed([]), packed(1), bytes(32) + b"\x81\xa1a" * 100_000)


class OwnStreams(SynchronousTestCase):
    def test_numbers_and_chain(self) -> None:
        own = OwnStream(stream=b"stream A")
        chain = FIRST_CHAIN
        for number, said in enumerate(KINDS, 1):
            before = own
            content, own = before.next(said)
            self.assertEqual(before.seq, number - 1)
            self.assertEqual(before.next(said), (content, own))
            self.assertEqual(decode(content), said)
            chain = chained(chain, content[32:])
            self.assertEqual((content[:32], own.chain, own.seq, own.stream), (chain, chain, number, b"stream A"))

    def test_only_the_next(self) -> None:
        own = OwnStream(stream=b"stream A", seq=4)
        for stream, seq in ((b"stream A", 4), (b"stream A", 6), (b"stream B", 5)):
            said = Disconnect(id=bytes(16), stream=stream, seq=seq, time=NOW)
            self.assertIs(refusal(LocalError, own.next, said).code, Code.INTERNAL)

    def test_what_nobody_could_read_is_not_sent(self) -> None:
        own = OwnStream(stream=b"stream A")
        for said in (
            Text(**{**FIELDS, "id": bytes(15)}, seq=1, body=""),
            Text(**FIELDS, seq=1, body="\ud800"),
            Text(**{**FIELDS, "time": 2**64}, seq=1, body=""),
            Text(**{**FIELDS, "time": -1}, seq=1, body=""),
            Receipt(**FIELDS, seq=1, ids=(bytes(16),) * 101, state="read", chain=bytes(32)),
        ):
            self.assertIs(refusal(LocalError, own.next, said).code, Code.INTERNAL)
        unknown: Any = Unknown(**FIELDS, seq=1)
        self.assertIs(refusal(LocalError, own.next, unknown).code, Code.INTERNAL)

    def test_a_content_has_room_for_its_padding(self) -> None:
        own = OwnStream(stream=b"stream A")
        spare = MAX_CONTENT - len(own.next(Text(**FIELDS, seq=1, body="x" * 30_000))[0])
        content, _ = own.next(Text(**FIELDS, seq=1, body="x" * (30_000 + spare)))
        self.assertEqual((len(content), len(pad("content", content))), (32_767, 32_768))
        too_long = Text(**FIELDS, seq=1, body="x" * (30_001 + spare))
        self.assertIs(refusal(LocalError, own.next, too_long).code, Code.TOO_LARGE)

    def test_nothing_is_shown(self) -> None:
        content, own = OwnStream(stream=b"MARK MAR").next(Text(**{**FIELDS, "stream": b"MARK MAR"}, seq=1, body="MARK"))
        arrival = Arrival(decode(content), content, Place.IN_ORDER, True)
        for value in (own, arrival, decode(content)):
            self.assertNotIn("MARK", repr(value))
            self.assertNotIn("\\x", repr(value))
