"""Tests of :mod:`sims.wire` and :mod:`sims.messages`."""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable, Iterator
from copy import deepcopy
from itertools import product
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from sims import messages, wire
from sims.errors import Code, PeerError
from sims.messages import InnerMessage, Message, SealedBox, Secure
from sims.specs import SEED
from sims.test.builders import refusal, session_pair
from sims.test.samples import FROM_CLIENT, FROM_SERVER, LONG_MAC, MAC, PEM, TOP_LEVEL, Sample, b64
from sims.test.ways import changed, from_client, from_server, short_ways_differ

DIRECTIONS: tuple[tuple[str, Callable[[bytes], Message | InnerMessage], dict[str, Sample]], ...] = (
    ("top level", wire.decode, TOP_LEVEL),
    ("from a client", from_client, FROM_CLIENT),
    ("from a server", from_server, FROM_SERVER),
)
EVERY = [(f"{name}, {way}", decode, sample) for way, decode, found in DIRECTIONS for name, sample in found.items()]

MARK = "MARK"
PHASES: list[object] = [None, True, False, "1", 1.0, 0, 5, -1, 10**30, [], [1], {}, MARK]
NOT_OCTETS: list[object] = [None, True, 1, 1.5, [], {}, MARK + "!", "AAA", "====", "\u00e9", "AAAA\n"]


def sized(*sizes: int) -> list[object]:
    """The texts of byte fields of these lengths."""
    return [b64(bytes(size)) for size in sizes]


#: What is refused at a path of each kind. Base64 with stray bits at the end is another spelling of the same bytes.
WRONG: dict[str, list[object]] = {
    "type": [None, True, 1, [], {}, [MARK], {MARK: 1}, "", MARK, "Ack", "client-com ", "sa-data"],
    "phase": PHASES,
    "str": [None, True, 1, 1.5, [], {}, [MARK], {MARK: MARK}],
    "int": [None, True, False, 1.0, 1.5, "1", MARK, [], {}, [1], {MARK: MARK}],
    "end": [None, True, False, 1.0, 1.5, [], {}, [MARK], {MARK: MARK}],
    "names": [None, True, 1, MARK, {}, {MARK: 1}, [1], [None], [True], [[MARK]], ["x", 1]],
    "object": [None, True, 1, 1.5, MARK, [], [MARK]],
    "array": [None, True, 1, MARK, {}, {MARK: 1}],
    "null": [True, False, 0, 1, MARK, "", [], {}],
    "octets": [*NOT_OCTETS, "+/8AAB=="],
    "mac": [*NOT_OCTETS, *sized(0, 16, 20, 31, 33, 47, 49, 64), b64(MAC)[:-2] + "9="],
    "iv": [*NOT_OCTETS, *sized(0, 12, 15, 17, 32), b64(bytes(16))[:-3] + "B=="],
    "random": [*NOT_OCTETS, *sized(0, 16, 31, 33, 64), b64(bytes(32))[:-2] + "B="],
    "pem": [*NOT_OCTETS, *sized(0, 91, 97, 120, 214, 216, 430), b64(PEM)[:-2] + "p=", PEM.decode("ascii")],
}


def nested_objects(value: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The objects in an object, itself first; those with keys of their own meaning."""
    yield value
    for item in value.values():
        if isinstance(item, dict):
            yield from nested_objects(item)
        elif isinstance(item, list):
            for each in item:
                if isinstance(each, dict):
                    yield from nested_objects(each)


class EveryMessage(SynchronousTestCase):
    def test_there_is_a_sample_of_every_type(self) -> None:
        kinds = {type(sample.message) for _, _, sample in EVERY}
        self.assertEqual(kinds, {*messages.Message.__args__, *messages.InnerMessage.__args__})

    def test_travels_with_the_fields_of_the_protocol(self) -> None:
        for what, _, sample in EVERY:
            self.assertEqual(json.loads(wire.encode(sample.message)), sample.object, what)

    def test_is_read_from_the_fields_of_the_protocol(self) -> None:
        for what, decode, sample in EVERY:
            self.assertEqual(decode(json.dumps(sample.object).encode("ascii")), sample.message, what)

    def test_is_the_same_after_its_way(self) -> None:
        for what, decode, sample in EVERY:
            arrived = decode(wire.encode(sample.message))
            self.assertEqual(arrived, sample.message, what)
            self.assertIs(type(arrived), type(sample.message), what)

    def test_is_written_on_one_line_of_ascii(self) -> None:
        for what, _, sample in EVERY:
            data = wire.encode(sample.message)
            self.assertTrue(data.isascii(), what)
            self.assertNotIn(b"\n", data, what)

    def test_cannot_be_changed(self) -> None:
        for what, _, sample in EVERY:
            for field in sample.message.__struct_fields__:
                with self.assertRaises(AttributeError, msg=what):
                    setattr(sample.message, field, 1)

    def test_may_hold_unknown_keys(self) -> None:
        for what, decode, sample in EVERY:
            value = deepcopy(sample.object)
            for place in list(nested_objects(value)):
                place["unknown"] = [1, None, {"\u00e9": 2.5}]
            if isinstance(sample.object.get("data"), dict) and not sample.object["data"]:
                value["data"] = {}  # anybody's: what stands in it is kept
            self.assertEqual(decode(json.dumps(value).encode("ascii")), sample.message, what)

    def test_may_have_its_keys_in_any_order(self) -> None:
        for what, decode, sample in EVERY:
            backwards = dict(reversed(sample.object.items()))
            self.assertEqual(decode(json.dumps(backwards).encode("ascii")), sample.message, what)

    def test_without_a_field_is_refused(self) -> None:
        for what, decode, sample in EVERY:
            for path, kind in sample.kinds.items():
                data = changed(sample.object, path)
                if path == "data/0":
                    continue  # a shorter list
                if kind.startswith("?"):
                    self.assertIs(type(decode(data)), type(sample.message), f"{what}: {path}")
                else:
                    self.refuse(decode, data, f"{what}: no {path}")

    def test_with_something_else_in_a_field_is_refused(self) -> None:
        for what, decode, sample in EVERY:
            for path, kind in sample.kinds.items():
                for wrong in WRONG[kind.removeprefix("?")]:
                    data = changed(sample.object, path, wrong)
                    self.refuse(decode, data, f"{what}: {path} is {str(wrong)[:50]!r}")

    def test_is_an_object(self) -> None:
        for _, decode, sample in EVERY:
            data = wire.encode(sample.message)
            for other in (b"[" + data + b"]", b"null", b"1", b'"MARK"', b"[]", b"{}", b"", data + data, data[:-1]):
                self.refuse(decode, other, str(other[:50]))

    def test_that_is_not_plain_json_is_refused(self) -> None:
        for what, decode, sample in EVERY:
            data = wire.encode(sample.message)
            for other in (
                data[:-1] + b',"MARK":NaN}',
                data[:-1] + b',"MARK":-Infinity}',
                data[:-1] + b',"MARK":"\\ud800"}',
                data[:-1] + b',"MARK":"\xff"}',
                data[:-1] + b',"MARK":' + b"9" * 5000 + b"}",
                data[:-1] + b',"MARK":' + b"[" * 5_000 + b"}",
                data[:-1] + b',"MARK":' + b"[" * 8 + b"]" * 8 + b"}",
                data[:-1] + b',"MARK":1,"MARK":1}',
                data[:-1] + b',"type":"ack"}',
                b"\xef\xbb\xbf" + data,
                data.decode("ascii").encode("utf-16"),
            ):
                self.refuse(decode, other, what)

    def test_from_the_wrong_side_is_refused(self) -> None:
        # Of a list reply a server sees the type alone: the rest is a key that a request does not have.
        self.assertEqual(from_client(wire.encode(FROM_SERVER["list"].message)), messages.ListRequest())
        self.refuse(from_server, wire.encode(FROM_CLIENT["list"].message), "a list request from a server")
        for name, sample in TOP_LEVEL.items():
            self.refuse(from_client, wire.encode(sample.message), name)
            self.refuse(from_server, wire.encode(sample.message), name)
        for name, sample in FROM_CLIENT.items():
            if name != "ack of a client":  # both are called ack
                self.refuse(wire.decode, wire.encode(sample.message), name)

    def refuse(self, decode: Callable[[bytes], object], data: bytes, what: str) -> None:
        """The data is refused as malformed, without a word of what is in it."""
        try:
            error = refusal(PeerError, decode, data)
        except AssertionError:
            self.fail(f"taken: {what}")
        self.assertIs(error.code, Code.MALFORMED, what)
        self.assertTrue(error.__context__ is None or error.__suppress_context__, what)
        if decode is not from_server:
            self.assertIsNone(wire.read_box(data) if decode is wire.decode else wire.read_relayed(data), what)
        for shown in (str(error), repr(error), "".join(traceback.format_exception(error))):
            self.assertNotIn(MARK, shown, what)


class ShortWays(SynchronousTestCase):
    """What reads the commonest messages in one pass never differs from the long way."""

    def test_count_keys_not_values(self) -> None:
        for data in (
            b'{"type":"ack","src":"data","dst":2,"dst":3}',
            b'{"type":"ack","src":"data","dst":2,"x":[[[[[[[[[]]]]]]]]]}',
        ):
            self.assertIsNone(short_ways_differ(data))

    def test_read_what_is_commonest_as_the_long_way_does(self) -> None:
        box = SealedBox.of(session_pair(spec=SEED[1])[0].seal(b"{}"))
        secure = TOP_LEVEL["secure"].message
        for message in (secure, Secure.of(box)):
            data = wire.encode(message)
            for spelling in (data, b" " + data + b"\n", json.dumps(json.loads(data), indent=3).encode("ascii")):
                self.assertIsNotNone(wire.read_box(spelling))
                self.assertIsNone(short_ways_differ(spelling))
        for message in (
            FROM_CLIENT["client-com"].message,
            FROM_CLIENT["ack of a client"].message,
            *(messages.ClientCom(src=src, dst=dst, data=box) for src in (7, "7") for dst in (-8, "-8", "")),
            *(messages.ClientAck(src=src, dst=dst) for src in (7, "7") for dst in (8, "8", "x", "")),
        ):
            data = wire.encode(message)
            for spelling in (data, b" " + data + b"\n", json.dumps(json.loads(data), indent=3).encode("ascii")):
                self.assertIsNotNone(wire.read_relayed(spelling))
                self.assertIsNone(short_ways_differ(spelling))

    def test_read_every_length_of_a_ciphertext(self) -> None:
        value = TOP_LEVEL["secure"].object
        for size in range(40):
            for mac in (MAC, LONG_MAC):
                data = changed(value, "payload/ciphertext", b64(bytes(range(255, 255 - size, -1))))
                data = changed(json.loads(data), "sa-data/hash", b64(mac))
                self.assertIsNotNone(wire.read_box(data))
                self.assertIsNone(short_ways_differ(data))

    def test_take_nothing_that_the_long_way_refuses(self) -> None:
        for what, _, sample in EVERY:
            value = sample.object
            self.assertIsNone(short_ways_differ(wire.encode(sample.message)), what)
            more: list[dict[str, Any]] = [
                {"unknown": 1},
                {"unknown": [[[[[[[[[]]]]]]]]]},
                {"unknown": "x", "another": None},
                {"data": None},
                {"": ""},
            ]
            for added in more:
                self.assertIsNone(short_ways_differ(json.dumps({**value, **added}).encode("ascii")), what)
            for missing in value:
                rest = json.dumps({key: item for key, item in value.items() if key != missing})
                for again in value:
                    doubled = f"{rest[:-1]}, {json.dumps(again)}: {json.dumps(value[again])}}}".encode("ascii")
                    self.assertIsNone(short_ways_differ(doubled), f"{what}: no {missing}, {again} twice")

    def test_take_no_other_base64_than_the_long_way(self) -> None:
        digits = "ABQw/=\n"
        for name, path in (("secure", "payload/ciphertext"), ("client-com", "data/ciphertext")):
            value = {**TOP_LEVEL, **FROM_CLIENT}[name].object
            for text in (*map("".join, product(digits, repeat=3)), *map("AB".join, product(digits, repeat=3))):
                for padded in (text, text + "=", text + "==", "AAAA" + text + "=", text + "===="):
                    self.assertIsNone(short_ways_differ(changed(value, path, padded)), padded)
