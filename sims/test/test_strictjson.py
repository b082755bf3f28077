"""Tests of :mod:`sims.strictjson`."""

from __future__ import annotations

from base64 import b64encode
from time import process_time

from twisted.trial.unittest import SynchronousTestCase

from sims.errors import Code, PeerError
from sims.strictjson import MAX_DEPTH, Digest, Octets, Octets16, Octets32, Pem, parse_json
from sims.test.builders import refusal

REFUSED = {
    "nothing": b"",
    "white space": b" \n\t",
    "two values": b"{} {}",
    "cut off": b'{"a":1',
    "no quotes": b"{a:1}",
    "single quotes": b"{'a':1}",
    "a comma too many": b'{"a":1,}',
    "a comment": b"{} // x",
    "NaN": b'{"a":NaN}',
    "Infinity": b'{"a":Infinity}',
    "-Infinity": b"[-Infinity]",
    "more than the largest float": b"[1e999]",
    "less than the smallest float": b"[-1.0E+400]",
    "a leading zero": b"[01]",
    "hexadecimal": b"[0x1]",
    "a plus": b"[+1]",
    "True": b"[True]",
    "a duplicate key": b'{"a":1,"a":1}',
    "a duplicate key, written differently": b'{"a":1,"\\u0061":2}',
    "a duplicate key within": b'{"a":[{"b":1,"c":2,"b":3}]}',
    "a duplicate key of three": b'{"a":1,"a":1,"a":1}',
    "a raw newline in a string": b'["\n"]',
    "a raw control character in a string": b'["\x01"]',
    "an escape that is none": b'["\\x41"]',
    "half an escape": b'["\\u12"]',
    "a lone high surrogate": b'["\\ud800"]',
    "a lone low surrogate": b'["\\udfff"]',
    "surrogates the wrong way round": b'["\\udc00\\ud800"]',
    "a lone surrogate in a key": b'{"\\ud800":1}',
    "a lone surrogate as the value": b'"\\ud83d"',
    "a surrogate in UTF-8": b'["\xed\xa0\x80"]',
    "Latin-1": b'["\xe9"]',
    "an overlong form": b'["\xc0\xaf"]',
    "beyond Unicode": b'["\xf4\x90\x80\x80"]',
    "a cut off character": b'["\xf0\x9f\x98"]',
    "a byte order mark": b"\xef\xbb\xbf{}",
    "UTF-16": "{}".encode("utf-16"),
    "UTF-16 without a mark": "{}".encode("utf-16-le"),
    "UTF-32": "{}".encode("utf-32-be"),
    "a zero byte": b"{}\x00",
    "a number too long to be read": b"[" + b"9" * 5000 + b"]",
    "nested far too deep": b"[" * 50_000 + b"]" * 50_000,
    "nested far too deep, not closed": b"[" * 50_000,
    "objects nested far too deep": b'{"a":' * 50_000,
    "nested too deep behind closing ones": b"]" * 100 + b"[" * 100,
    "just too deep": b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1),
    "just too deep, mixed": b'{"a":[' * 4 + b'{"a":1}' + b"]}" * 4,
    "too deep behind brackets in strings": b'["]]]]]]]]]",' + b"[" * MAX_DEPTH + b"]" * MAX_DEPTH + b"]",
    "too deep behind an escaped quote": b'["\\"]]]]]]]]",' + b"[" * MAX_DEPTH + b"]" * MAX_DEPTH + b"]",
}
TAKEN: dict[bytes, object] = {
    b"{}": {},
    b' \r\n\t[1, 2.5, -3e2, true, false, null, "x"] ': [1, 2.5, -300.0, True, False, None, "x"],
    b'"\\u00e9\\ud83d\\ude00"': "\u00e9\U0001f600",
    '["\u00e9\U0001f600"]'.encode(): ["\u00e9\U0001f600"],
    b'{"a":{"b":1},"c":{"b":1}}': {"a": {"b": 1}, "c": {"b": 1}},
    b'"\\\\ud800"': "\\ud800",
    b"[" * MAX_DEPTH + b"]" * MAX_DEPTH: [[[[[[[[]]]]]]]],
    b"[" + b",".join([b"{}"] * 100) + b"]": [{}] * 100,
    b'["' + b"[" * 100 + b'"]': ["[" * 100],
    b'["\\"' + b"[" * 100 + b'"]': ['"' + "[" * 100],
    b'["\\\\","' + b"{" * 100 + b'"]': ["\\", "{" * 100],
    b"123456789012345678901234567890": 123456789012345678901234567890,
}


class Parsing(SynchronousTestCase):
    def test_refuses_what_two_parsers_could_read_differently(self) -> None:
        for what, data in REFUSED.items():
            try:
                error = refusal(PeerError, parse_json, data)
            except AssertionError:
                self.fail(f"taken: {what}")
            self.assertIs(error.code, Code.MALFORMED, what)

    def test_takes_the_rest(self) -> None:
        for data, value in TAKEN.items():
            self.assertEqual(parse_json(data), value)

    def test_looks_at_nothing_twice(self) -> None:
        # What takes a moment in one pass takes a quarter of a minute if every quote is a new start.
        before = process_time()
        for data in (b'["' + b'\\"' * 32_000 + b"[" * 9, b"[" * 9 + b'"' + b'\\"' * 32_000, b'"' * 64_000 + b"[" * 9):
            refusal(PeerError, parse_json, data)
        self.assertLess(process_time() - before, 2)

    def test_tells_true_from_1(self) -> None:
        self.assertIs(parse_json(b"true"), True)
        self.assertIs(type(parse_json(b"1")), int)

    def test_shows_nothing_of_what_it_refuses(self) -> None:
        for data in (b'{"MARK":1,"MARK":1}', b'["MARK" MARK]', b'["MARK\\ud800"]', b"MARK", b'"MARK\xff"'):
            self.assertNotIn("MARK", str(refusal(PeerError, parse_json, data)))


class ByteFields(SynchronousTestCase):
    def test_are_read_from_their_one_base64_text(self) -> None:
        for size in range(70):
            data = bytes(range(0xC8, 0xC8 + 50)) * 2
            text = b64encode(data[:size]).decode("ascii")
            value = Octets.from_text(text)
            self.assertEqual(value, data[:size])
            self.assertIs(type(value), Octets)

    def test_refuse_any_other_text(self) -> None:
        for text in (
            "A", "AA", "AAA", "AAAAA", "AA=", "AA===", "AAAA=", "AAAA====", "=", "====", "=AAA", "AA==AA==", "AA==AAAA",
            "AB==", "AAB=", "AAAA\n", "\nAAAA", " AAAA", "AA AA", "AAAA\x00", "AA-_", "AA\u0391A", "\uff21AAA", "!!!!",
            "\ud800AAA",
        ):  # fmt: skip
            self.assertRaises(ValueError, Octets.from_text, text)

    def test_refuse_what_is_no_text(self) -> None:
        nothing: list[object] = [None, 1, 1.5, True, [], {}, b"AAAA"]
        for value in nothing:
            self.assertRaises(ValueError, Octets.from_text, value)

    def test_have_the_lengths_of_the_protocol(self) -> None:
        for kind, sizes in ((Octets16, {16}), (Octets32, {32}), (Digest, {32, 48}), (Pem, {215})):
            for size in range(230):
                text = b64encode(bytes(size)).decode("ascii")
                if size in sizes:
                    self.assertEqual(kind.from_text(text), bytes(size))
                    self.assertIs(type(kind.from_text(text)), kind)
                else:
                    self.assertRaises(ValueError, kind.from_text, text)
