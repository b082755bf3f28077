"""Tests of the MessagePack that two parsers read alike: against msgspec, and against a second reading of the format."""

from __future__ import annotations

import math
import struct
from time import process_time
from typing import Any

import msgspec
from twisted.trial.unittest import SynchronousTestCase

from sims.errors import Code, PeerError
from sims.strictmsgpack import MAX_DEPTH, MAX_VALUES, check
from sims.test.builders import NO_HYPOTHESIS, refusal

try:
    from hypothesis import HealthCheck, given, settings
    from hypothesis import strategies as st
except ImportError:
    given = None  # type: ignore[assignment]

packed = msgspec.msgpack.encode
#: First bytes of maps, arrays, texts and bytes, and a letter for their keys.
LIKELY = b"\x80\x81\x82\x83\x90\x91\x92\xa0\xa1a\xc0\xc4\xd9\xde\xdc\x01\x00"


def nested(depth: int, inner: bytes = b"\xc0") -> bytes:
    """So many arrays in one another."""
    return b"\x91" * depth + inner


class Accepted(SynchronousTestCase):
    def test_every_type_in_every_form(self) -> None:
        for data in (
            *(bytes([first]) for first in (*range(0x80), 0xC0, 0xC2, 0xC3, *range(0xE0, 0x100))),
            *(b"\xcc\xff", b"\xcd" + bytes(2), b"\xce" + bytes(4), b"\xcf" + b"\xff" * 8),
            *(b"\xd0\x80", b"\xd1" + bytes(2), b"\xd2" + bytes(4), b"\xd3" + b"\xff" * 8),
            *(b"\xca" + struct.pack(">f", 1.5), b"\xcb" + struct.pack(">d", -math.inf)),
            *(bytes([0xA0 + size]) + b"x" * size for size in range(32)),
            *(b"\xd9\x02\xc3\xa4", b"\xda\x00\x01x", b"\xdb\x00\x00\x00\x00", b"\xd9\xff" + b"x" * 255),
            *(b"\xc4\x01\xff", b"\xc5\x01\x00" + b"\xff" * 256, b"\xc6\x00\x00\x00\x01\xff", b"\xc4\x00"),
            *(bytes([0x90 + size]) + b"\xc0" * size for size in range(16)),
            *(b"\xdc\x00\x10" + b"\x01" * 16, b"\xdd\x00\x00\x00\x00", b"\xdc\x00\x00"),
            *(b"\x80", b"\xde\x00\x01\xa1a\xc0", b"\xdf\x00\x00\x00\x02\xa1a\x01\xd9\x01b\x02"),
            b"\x8f" + b"".join(bytes([0xA1, number, 0xC0]) for number in range(15)),
        ):
            check(data)
            msgspec.msgpack.decode(data)

    def test_a_key_may_stand_in_two_maps(self) -> None:
        check(b"\x92\x81\xa1a\x01\x81\xa1a\x01")
        check(b"\x82\xa1a\x81\xa1a\x01\xa1b\x81\xa1a\x01")
        check(b"\x82\xa1a\xa1a\xa1b\xa1a")  # values may be alike

    def test_as_deep_as_is_allowed(self) -> None:
        self.assertEqual(MAX_DEPTH, 8)
        for inner in (b"\xc0", b"\xa1x", b"\x00"):
            check(nested(MAX_DEPTH, inner))
            check(b"\x81\xa1a" * MAX_DEPTH + inner)
            check(b"\x92" + nested(MAX_DEPTH - 1) + nested(MAX_DEPTH - 1))  # depth is not a count
        check(nested(MAX_DEPTH - 1, b"\x90"))
        check(nested(MAX_DEPTH - 1, b"\x80"))


class Refused(SynchronousTestCase):
    def refused(self, *given: bytes) -> None:
        """Each is malformed."""
        for data in given:
            error = refusal(PeerError, check, data)
            self.assertIs(error.code, Code.MALFORMED, data[:20])
            self.assertIn("not the MessagePack of one value", error.text)

    def test_a_key_that_stands_twice(self) -> None:
        self.refused(
            b"\x82\xa1a\x01\xa1a\x02",
            b"\x82\xa1a\x01\xa1a\x01",
            b"\x82\xa1a\x01\xd9\x01a\x01",  # in another spelling
            b"\x82\xd9\x01a\x01\xdb\x00\x00\x00\x01a\x01",
            b"\x83\xa1a\x01\xa1b\x01\xa1a\x02",
            b"\x82\xa0\x01\xa0\x01",
            b"\x91\x82\xa1a\x01\xa1a\x02",
            b"\x81\xa1x\x82\xa1a\x90\xa1a\x02",
            b"\x82\xa1a\x81\xa1b\x01\xa1a\x02",  # with another map between them
            b"\xde\x00\x02\xa1a\x01\xa1a\x02",
            b"\xdf\x00\x00\x00\x02\xa1a\x01\xa1a\x02",
        )

    def test_a_key_that_is_no_text(self) -> None:
        for key in (
            b"\x01",
            b"\xc0",
            b"\xc3",
            b"\xc4\x01a",
            b"\x90",
            b"\x80",
            b"\xcb" + bytes(8),
            b"\xe0",
            b"\xcc\x01",
        ):
            self.refused(b"\x81" + key + b"\x01", b"\x82\xa1a\x01" + key + b"\x01")
        for first in range(0x100):
            if not (0xA0 <= first <= 0xBF or first in (0xD9, 0xDA, 0xDB)):
                self.refused(*(b"\x81" + bytes([first]) + b"a" * size + b"\x01" for size in range(33)))

    def test_what_is_too_deep(self) -> None:
        for first in (b"\x91", b"\xdc\x00\x01", b"\x81\xa1a", b"\xde\x00\x01\xa1a"):
            for inner in (b"\xc0", b"\x90", b"\x80"):
                self.refused(first * (MAX_DEPTH + 1) + inner)
        self.refused(nested(MAX_DEPTH, b"\x90"), nested(MAX_DEPTH, b"\x80"), nested(100_000), nested(100_000, b""))
        self.refused(b"\x92\xc0" + nested(MAX_DEPTH))

    def test_what_is_no_number(self) -> None:
        single, double = (b"\x7f\xc0\0\0", b"\xff\x80\0\1"), (b"\x7f\xf8" + bytes(6), b"\xff\xf0" + bytes(5) + b"\1")
        for data in (*(b"\xca" + nan for nan in single), *(b"\xcb" + nan for nan in double), b"\xcb" + b"\xff" * 8):
            self.refused(data, b"\x91" + data, b"\x81\xa1a" + data)

    def test_types_that_are_not_in_use(self) -> None:
        for first in (0xC1, 0xC7, 0xC8, 0xC9, 0xD4, 0xD5, 0xD6, 0xD7, 0xD8):
            for data in (bytes([first]), bytes([first]) + b"\x01" * 40):
                self.refused(data, b"\x91" + data, b"\x81\xa1a" + data)
        self.refused(packed(msgspec.msgpack.Ext(1, b"x")))

    def test_text_that_is_not_utf_8(self) -> None:
        for text in (b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xc0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82", b"x\x80"):
            whole = bytes([0xA0 + len(text)]) + text
            long = b"\xda\x00" + bytes([len(text)]) + text
            for data in (whole, long):
                self.refused(data, b"\x91" + data, b"\x81" + data + b"\x01", b"\x81\xa1a" + data)
        check(b"\xc4\x01\xff")  # bytes may be any

    def test_more_values_than_any_message_has(self) -> None:
        check(packed([0] * (MAX_VALUES - 1)))
        check(b"\xdd\x00\x00\x00\x01\x01")
        self.refused(packed([0] * MAX_VALUES), packed([[]] * 60_000), packed({"x": [{}] * MAX_VALUES}))

    def test_what_ends_early_or_late(self) -> None:
        for value in (
            *(1, 300, -1, -300, 2**40, -(2**40), 1.5, True, None, "x", "é" * 40, "x" * 300, "x" * 70_000),
            *(b"x", b"x" * 300, b"x" * 70_000, [1, 2], list(range(20)), [0] * 4000, {}, {"a": {"b": [1, {}]}}),
            {str(number): number for number in range(20)},
        ):
            data = packed(value)
            check(data)
            ends = range(len(data)) if len(data) < 400 else (0, 1, 2, 3, 4, 5, len(data) // 2, len(data) - 1)
            self.refused(*(data[:end] for end in ends))
            self.refused(*(data + extra for extra in (b"\0", b"\xc0", b"\xc1", b"\x90", data)))
        self.refused(b"\xca\x00\x00\x00", b"\xcb" + bytes(7), b"\xca", b"\xcb")

    def test_lengths_that_cannot_be(self) -> None:
        for first in (0xC6, 0xDB, 0xDD, 0xDF):
            data = bytes([first]) + b"\xff" * 4
            self.refused(data, data + b"\xc0" * 100, b"\x91" + data, b"\x81\xa1a" + data)
        self.refused(b"\x81" + b"\xdb\xff\xff\xff\xff")

    def test_costs_no_more_than_its_length(self) -> None:
        before = process_time()
        for data in (b"\x90" * 60_000, b"\xdd" + (65_000).to_bytes(4, "big") + b"\x90" * 65_000, nested(60_000)):
            try:
                check(data)
            except PeerError:
                continue
        self.assertLess(process_time() - before, 2)

    def test_nothing_of_it_is_shown(self) -> None:
        for data in (b"\x82\xa4MARK\x01\xa4MARK\x01", b"\xa5MARK\xff", b"\xa4MARKMARK", b"\x81\xc4\x04MARK\x01"):
            self.assertNotIn("MARK", str(refusal(PeerError, check, data)))


class OtherReading:
    """MessagePack read once more, as plainly as it can be; :exc:`ValueError` for all that is to be refused."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def whole(self) -> None:
        """The one value that there is."""
        self.value(0)
        if self.at != len(self.data):
            raise ValueError

    def take(self, size: int) -> bytes:
        """The next bytes."""
        if self.at + size > len(self.data):
            raise ValueError
        self.at += size
        return self.data[self.at - size : self.at]

    def number(self, size: int) -> int:
        """The next number."""
        return int.from_bytes(self.take(size), "big")

    def value(self, depth: int) -> object:
        """A value: texts as they are."""
        first = self.number(1)
        sizes = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4, 0xDC: 2, 0xDD: 4, 0xDE: 2, 0xDF: 4}
        if first < 0x80 or first >= 0xE0 or first in (0xC0, 0xC2, 0xC3):
            return None
        if 0xCC <= first <= 0xD3:
            return self.take(1 << (first & 3)) and None
        if first in (0xCA, 0xCB):
            (found,) = struct.unpack(">f" if first == 0xCA else ">d", self.take(4 if first == 0xCA else 8))
            if found != found:
                raise ValueError
            return None
        count = self.number(sizes[first]) if first in sizes else first & (0x1F if 0xA0 <= first < 0xC0 else 0x0F)
        if 0xA0 <= first < 0xC0 or first in (0xD9, 0xDA, 0xDB):
            return self.take(count).decode("utf-8")
        if first in (0xC4, 0xC5, 0xC6):
            return self.take(count) and None
        is_map, is_array = 0x80 <= first < 0x90 or first in (0xDE, 0xDF), 0x90 <= first < 0xA0 or first in (0xDC, 0xDD)
        if not (is_map or is_array) or depth == 8 or count > len(self.data):
            raise ValueError
        keys = set()
        for _ in range(count):
            if is_map:
                key = self.value(depth + 1)
                if not isinstance(key, str) or key in keys:
                    raise ValueError
                keys.add(key)
            self.value(depth + 1)
        return None


def is_good(data: bytes) -> bool:
    """What the other reading says."""
    try:
        OtherReading(data).whole()
    except ValueError:
        return False
    return True


def is_taken(data: bytes) -> bool:
    """What the check says."""
    try:
        check(data)
    except PeerError:
        return False
    return True


if given is None:

    class Properties(SynchronousTestCase):
        skip = NO_HYPOTHESIS

        def test_properties(self) -> None:
            """Not without hypothesis."""

else:
    many = settings(
        deadline=None, derandomize=True, max_examples=60, database=None, suppress_health_check=list(HealthCheck)
    )
    numbers = st.integers(-(2**63), 2**64 - 1)
    floats = st.floats(allow_nan=False)
    plain = st.recursive(
        st.none()
        | st.booleans()
        | numbers
        | st.binary(max_size=40)
        | st.text(max_size=40)
        | st.floats(allow_nan=False),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
        max_leaves=12,
    )

    def depth(value: Any) -> int:
        """How many lists and maps are in one another."""
        inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
        return 0 if inner is None else 1 + max(map(depth, inner), default=0)

    class Properties(SynchronousTestCase):  # type: ignore[no-redef]
        """Against msgspec, and against the other reading."""

        @many
        @given(plain)
        def test_what_msgspec_writes_is_taken(self, value: object) -> None:
            self.assertEqual(is_taken(packed(value)), depth(value) <= MAX_DEPTH)

        @many
        @given(plain, st.data())
        def test_what_is_changed(self, value: object, data: st.DataObject) -> None:
            raw = bytearray(packed(value))
            at = data.draw(st.integers(0, len(raw) - 1))
            what = data.draw(st.sampled_from(("set", "insert", "delete", "copy")))
            if what == "set":
                raw[at] = data.draw(st.integers(0, 255))
            elif what == "insert":
                raw.insert(at, data.draw(st.integers(0, 255)))
            elif what == "delete":
                del raw[at]
            else:
                raw[at:at] = raw[at : at + data.draw(st.integers(1, 6))]
            self.alike(bytes(raw))

        @many
        @given(
            st.lists(st.sampled_from(b"\x80\x81\x82\x83\x90\x91\x92\xa0\xa1a\xc0\xc4\xd9\xde\xdc\x01\x00"), max_size=24)
        )
        def test_any_bytes(self, data: list[int]) -> None:
            self.alike(bytes(data))

        @many
        @given(st.binary(max_size=40))
        def test_any_bytes_at_all(self, data: bytes) -> None:
            self.alike(data)

        def alike(self, data: bytes) -> None:
            """Both readings say the same; what they take, msgspec takes."""
            taken = is_taken(data)
            self.assertEqual(taken, is_good(data))
            if taken:
                msgspec.msgpack.decode(data)
