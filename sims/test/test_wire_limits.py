"""Tests of :mod:`sims.wire`: sizes, ids, texts, and how things are spelled."""

from __future__ import annotations

import json
from base64 import b64decode

from msgspec import structs
from twisted.trial.unittest import SynchronousTestCase

from sims import messages, wire
from sims.errors import Code, PeerError
from sims.messages import ListEntry, SealedBox, Secure
from sims.specs import SEED
from sims.test.builders import refusal, session_pair
from sims.test.samples import CIPHERS, FROM_CLIENT, TOP_LEVEL
from sims.test.ways import changed, from_client, from_server


class Bounds(SynchronousTestCase):
    def test_a_frame_may_be_as_long_as_the_protocol_says(self) -> None:
        self.assertEqual(wire.MAX_FRAME, 65_536)
        self.assertEqual(wire.decode(b'{"type":"ack"}'.ljust(wire.MAX_FRAME)), messages.Ack())
        error = refusal(PeerError, wire.decode, b'{"type":"ack"}'.ljust(wire.MAX_FRAME + 1))
        self.assertIs(error.code, Code.TOO_LARGE)

    def test_a_name_may_have_so_many_characters(self) -> None:
        for phase in ("connect 1", "connect 3"):
            value = TOP_LEVEL[phase].object
            for char, count in (("\u540d", wire.MAX_NAME), ("\U0001f600", 66)):
                arrived = wire.decode(changed(value, "name", char * count))
                self.assertEqual(getattr(arrived, "name", None), char * count)
                # Even so, an asker finds itself in the list.
                self.assertIn(b'"id":1', wire.list_reply([ListEntry(name=char * count, id=1)], 48))
            for name in ("x" * (wire.MAX_NAME + 1), "\U0001f600" * 67):
                error = refusal(PeerError, wire.decode, changed(value, "name", name))
                self.assertIs(error.code, Code.NAME_INVALID)
                self.assertNotIn(name[:10], str(error))

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

    def test_leave_out_only_what_does_not_fit(self) -> None:
        """A long name hides nobody but itself."""
        entries = [ListEntry(name="x", id=number) for number in range(35)]
        entries[15] = ListEntry(name="\u540d" * 128, id=15)
        reply = from_server(wire.list_reply(entries, 32))
        assert isinstance(reply, messages.ListReply)
        self.assertNotIn(15, [entry.id for entry in reply.data])
        self.assertIn(20, [entry.id for entry in reply.data])

    def test_are_as_long_as_they_may_be(self) -> None:
        for mac in (32, 48):
            entries = [ListEntry(name="x", id=1) for _ in range(100)]
            inner = wire.list_reply(entries, mac)
            longer = len(inner) + len(b',{"name":"x","id":1,"level":0}')
            frame = 470 + (mac + 2) // 3 * 4 + (longer + 2) // 3 * 4
            self.assertTrue(longer > 1146 or frame + 18 > 2048)
