"""Tests of :mod:`sims.wire` and :mod:`sims.messages`."""

from __future__ import annotations

import json
import traceback
from base64 import b64decode
from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any

from msgspec import structs
from twisted.trial.unittest import SynchronousTestCase

from sims import messages, wire
from sims.errors import Code, PeerError
from sims.messages import InnerMessage, ListEntry, Message, SealedBox, Secure
from sims.specs import SEED
from sims.test.builders import refusal, session_pair
from sims.test.samples import CIPHERS, FROM_CLIENT, FROM_SERVER, MAC, PEM, TOP_LEVEL, Sample, b64


def from_client(data: bytes) -> Message | InnerMessage:
    """What a server makes of an inner message."""
    return wire.from_client(wire.parse(data))


def from_server(data: bytes) -> Message | InnerMessage:
    """What a client makes of an inner message."""
    return wire.from_server(wire.parse(data))


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


def changed(value: dict[str, Any], path: str, *new: object) -> bytes:
    """The JSON of an object in which what stands at a path is replaced, or missing."""
    value = deepcopy(value)
    *parents, last = path.split("/")
    place: Any = value
    for name in parents:
        place = place[int(name) if isinstance(place, list) else name]
    key = int(last) if isinstance(place, list) else last
    if new:
        place[key] = new[0]
    else:
        del place[key]
    return json.dumps(value).encode("ascii")


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
                data[:-1] + b',"MARK":' + b"[" * 50_000 + b"}",
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
        for shown in (str(error), repr(error), "".join(traceback.format_exception(error))):
            self.assertNotIn(MARK, shown, what)


class Bounds(SynchronousTestCase):
    def test_a_frame_may_be_as_long_as_the_protocol_says(self) -> None:
        self.assertEqual(wire.MAX_FRAME, 65_536)
        self.assertEqual(wire.decode(b'{"type":"ack"}'.ljust(wire.MAX_FRAME)), messages.Ack())
        error = refusal(PeerError, wire.decode, b'{"type":"ack"}'.ljust(wire.MAX_FRAME + 1))
        self.assertIs(error.code, Code.TOO_LARGE)

    def test_a_name_may_have_so_many_characters(self) -> None:
        for phase in ("connect 1", "connect 3"):
            value = TOP_LEVEL[phase].object
            arrived = wire.decode(changed(value, "name", "\U0001f600" * wire.MAX_NAME))
            self.assertEqual(getattr(arrived, "name", None), "\U0001f600" * wire.MAX_NAME)
            error = refusal(PeerError, wire.decode, changed(value, "name", "x" * (wire.MAX_NAME + 1)))
            self.assertIs(error.code, Code.NAME_INVALID)
            self.assertNotIn("x" * 10, str(error))

    def test_an_offer_may_name_so_many_specs(self) -> None:
        for decode, value in (
            (wire.decode, TOP_LEVEL["connect 1"].object),
            (from_client, FROM_CLIENT["client-connect 1"].object),
            (from_server, FROM_CLIENT["client-connect 1"].object),
        ):
            for offer in ([], ["x"] * 32, ["x" * 64] * 32):
                self.assertEqual(getattr(decode(changed(value, "ciphers", offer)), "ciphers", None), offer)
            for offer in (["x"] * 33, ["x" * 65], [*CIPHERS, "x" * 1000]):
                self.assertIs(refusal(PeerError, decode, changed(value, "ciphers", offer)).code, Code.MALFORMED)

    def test_an_id_of_a_client_has_at_most_18_digits(self) -> None:
        for phase in ("connect 1", "connect 3"):
            value = TOP_LEVEL[phase].object
            for number in (0, 10**18 - 1, -(10**18) + 1):
                self.assertEqual(getattr(wire.decode(changed(value, "id", number)), "id", None), number)
            for number in (10**18, -(10**18), 2**64, 10**1000, 10**4000):
                self.assertIs(refusal(PeerError, wire.decode, changed(value, "id", number)).code, Code.MALFORMED)

    def test_huge_numbers_are_refused_wherever_they_stand(self) -> None:
        for data in (
            b'{"type":"connect","phase":1,"name":"a","ciphers":[],"id":%s}',
            b'{"type":"connect","phase":%s,"name":"a","ciphers":[],"id":1}',
        ):
            for number in (b"9" * 30, b"-" + b"9" * 4299, b"9" * 5000, b"1e999", b"1E+400", b"1.0e400"):
                self.assertIs(refusal(PeerError, wire.decode, data % number).code, Code.MALFORMED)

    def test_the_longest_plaintext_fits_in_a_frame_and_no_longer_one_does(self) -> None:
        for spec in SEED:
            sealing, _ = session_pair(spec=spec)
            sealed = len(wire.encode(Secure.of(sealing.seal(bytes(wire.MAX_INNER)))))
            self.assertLessEqual(sealed, wire.MAX_FRAME, spec.name)
        sealing, _ = session_pair(spec=SEED[1])
        self.assertGreater(len(wire.encode(Secure.of(sealing.seal(bytes(wire.MAX_INNER + 1))))), wire.MAX_FRAME)

    def test_the_longest_text_fits_in_a_frame_sealed_twice(self) -> None:
        text = "\u00e9" * 2 + "x" * (wire.MAX_TEXT - 14)
        plaintext = wire.encode_text(text)
        self.assertEqual(len(plaintext), wire.MAX_TEXT)
        for spec in SEED:
            sealing, opening = session_pair(spec=spec)
            data = SealedBox.of(sealing.seal(plaintext))
            for end in (-(10**18) + 1, str(-(10**18) + 1)):
                inner = wire.encode(messages.ClientCom(src=end, dst=end, data=data))
                self.assertLessEqual(len(inner), wire.MAX_INNER, spec.name)
                frame = wire.encode(Secure.of(session_pair(spec=spec)[0].seal(inner)))
                self.assertLessEqual(len(frame), wire.MAX_FRAME, spec.name)
            self.assertEqual(opening.open(data, wire.parse_text), text)


class Ids(SynchronousTestCase):
    def test_an_end_is_a_number_or_its_decimal_text(self) -> None:
        for value, number in (
            (0, 0),
            (7, 7),
            (-7, -7),
            ("7", 7),
            ("-7", -7),
            ("007", 7),
            ("-0", 0),
            (10**18 - 1, 10**18 - 1),
            ("9" * 18, 10**18 - 1),
            ("-" + "9" * 18, -(10**18) + 1),
        ):
            self.assertEqual(wire.as_id(value), number)

    def test_anything_else_is_refused(self) -> None:
        for value in (
            "", "-", "--7", "+7", " 7", "7 ", "7\n", "7.0", "7e1", "0x7", "1_0", "MARK", "\uff17", "\u0667", "\u00b2",
            "1" * 19, "-" + "1" * 19, "1" * 5000, 10**18, -(10**18), 10**4000,
        ):  # fmt: skip
            error = refusal(PeerError, wire.as_id, value)
            self.assertIs(error.code, Code.MALFORMED)
            self.assertNotIn("MARK", str(error))

    def test_both_ends_may_be_either(self) -> None:
        for name, sample in FROM_CLIENT.items():
            for path in {"src", "dst"} & set(sample.kinds):
                for end in (7, -7, "7", "-7", "MARK", "", 10**30):
                    arrived = from_client(changed(sample.object, path, end))
                    self.assertEqual(getattr(arrived, path, None), end, name)
                    self.assertIs(type(getattr(arrived, path, None)), type(end), name)
                    self.assertEqual(from_server(wire.encode(arrived)), arrived, name)


class Encoding(SynchronousTestCase):
    def test_is_ascii_whatever_is_written(self) -> None:
        text = "\u00e9\u2028\U0001f600\x7f\n\x00\"\\'</"
        for message in (
            messages.Connect1(name=text, id=1, ciphers=[text], data={text: [text, {text: 1.5}]}),
            messages.ClientDisconnect(src=text, dst=text, data={text: text}),
            messages.Error(code=text),
        ):
            data = wire.encode(message)
            self.assertTrue(data.isascii())
            self.assertNotIn(b"\n", data)
            decode = wire.decode if isinstance(message, messages.Connect1) else from_server
            self.assertEqual(decode(data), message)

    def test_in_the_clear_nothing_acts_on_an_original_client_that_is_not_meant_to(self) -> None:
        # It routes a frame by the first of the words "connect" and "secure" that it finds in it.
        words = {"ack": (False, False), "connect 2": (True, False), "connect 4": (True, False), "secure": (False, True)}
        for name, expected in words.items():
            data = wire.encode(TOP_LEVEL[name].message)
            self.assertEqual((b"connect" in data, b"secure" in data), expected, name)

    def test_an_absent_end_of_an_error_is_not_written(self) -> None:
        self.assertEqual(wire.encode(messages.Error(code="internal")), b'{"type":"error","code":"internal"}')

    def test_a_secure_frame_is_as_long_as_the_protocol_says(self) -> None:
        # The page counts the original's spaces after colons and commas, which this side does not write, and the
        # terminator.
        for spec, base in ((SEED[0], 518), (SEED[1], 538)):
            for size in (0, 1, 2, 3, 4, 300):
                sealing, _ = session_pair(spec=spec)
                value = json.loads(wire.encode(Secure.of(sealing.seal(bytes(size)))))
                self.assertEqual(len(json.dumps(value)) + len(wire.TERMINATOR), base + (size + 2) // 3 * 4)


class Boxes(SynchronousTestCase):
    def test_travel_in_a_secure_and_in_a_client_com_unchanged(self) -> None:
        for spec in SEED:
            sealing, _ = session_pair(spec=spec)
            box = sealing.seal(b"{}")
            secure = wire.decode(wire.encode(Secure.of(box)))
            assert isinstance(secure, Secure)
            com = from_server(wire.encode(messages.ClientCom(src=1, dst=2, data=SealedBox.of(box))))
            assert isinstance(com, messages.ClientCom)
            for arrived in (secure.box, com.data):
                self.assertEqual({name: getattr(arrived, name) for name in box._fields}, box._asdict())
                self.assertEqual(structs.asdict(arrived), box._asdict())

    def test_stand_in_the_fields_of_the_protocol(self) -> None:
        box = session_pair(spec=SEED[1])[0].seal(b"{}")
        value = json.loads(wire.encode(Secure.of(box)))
        self.assertEqual(set(value), {"type", "sa-data", "payload"})
        found = {name: b64decode(text) for place in ("sa-data", "payload") for name, text in value[place].items()}
        self.assertEqual(found, box._asdict())
        self.assertEqual(set(value["sa-data"]), {"hash", "iv", "random"})


class Texts(SynchronousTestCase):
    def test_travel_as_json_strings_in_ascii(self) -> None:
        self.assertEqual(wire.encode_text(""), b'""')
        self.assertEqual(wire.encode_text('a"\u00e9\n'), b'"a\\"\\u00e9\\n"')
        for text in ("", "hi", "\u00e9\U0001f600\u2028", '\x00\x1f\x7f\n\r\t"\\/', "]" * 1000, "\\ud800"):
            self.assertEqual(wire.parse_text(wire.encode_text(text)), text)

    def test_that_are_no_json_string_are_refused(self) -> None:
        for data in (
            b"", b"hi", b"'hi'", b'"hi', b'["hi"]', b'{"a":"hi"}', b"null", b"1", b"true", b"NaN", b'"\\ud800"',
            b'"\xff"', b'"\n"', b'"a" "b"', b"[" * 50_000,
        ):  # fmt: skip
            self.assertIs(refusal(PeerError, wire.parse_text, data).code, Code.MALFORMED)


class ListReplies(SynchronousTestCase):
    def test_name_everybody_while_they_fit(self) -> None:
        entries = [ListEntry(name="alice", id=7), ListEntry(name="bob", id=8)]
        for mac in (32, 48):
            self.assertEqual(from_server(wire.list_reply(entries, mac)), messages.ListReply(data=entries))
            self.assertEqual(from_server(wire.list_reply([], mac)), messages.ListReply(data=[]))

    def test_are_cut_from_the_end_to_what_an_original_client_reads_at_once(self) -> None:
        ack = wire.encode(messages.Ack())
        for spec in SEED:
            for name in ("a", "client", "\u00e9", "\U0001f600" * 3, 'quo"te\\', "x" * 100):
                entries = [ListEntry(name=f"{name}{number}", id=-(10**17) * number) for number in range(9, 200)]
                inner = wire.list_reply(entries, spec.mac_size)
                reply = from_server(inner)
                assert isinstance(reply, messages.ListReply)
                self.assertLess(len(reply.data), len(entries))
                self.assertGreaterEqual(len(reply.data), 6)
                self.assertEqual(reply.data, entries[: len(reply.data)])
                self.assertLessEqual(len(inner), 1146)
                self.assertTrue(inner.isascii())
                frame = wire.encode(Secure.of(session_pair(spec=spec)[0].seal(inner)))
                read = ack + wire.TERMINATOR + frame + wire.TERMINATOR
                self.assertLessEqual(len(read), 2048, spec.name)

    def test_are_as_long_as_they_may_be(self) -> None:
        for mac in (32, 48):
            entries = [ListEntry(name="x", id=1) for _ in range(100)]
            inner = wire.list_reply(entries, mac)
            longer = len(inner) + len(b',{"name":"x","id":1,"level":0}')
            frame = 470 + (mac + 2) // 3 * 4 + (longer + 2) // 3 * 4
            self.assertTrue(longer > 1146 or frame + 18 > 2048)
