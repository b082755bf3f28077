"""Tests of contents, and of the order that they come in."""

from __future__ import annotations

from typing import Any

import msgspec
from twisted.trial.unittest import SynchronousTestCase

from sims.crypto import content as contents
from sims.crypto import payloads
from sims.crypto.content import (
    FIRST_CHAIN,
    MAX_WAITING_BYTES,
    Disconnect,
    Order,
    OwnStream,
    Place,
    Receipt,
    Text,
    Unreadable,
    decode,
)
from sims.errors import Code, LocalError, PeerError
from sims.test.builders import refusal
from sims.test.modern_builders import NOW, receipt

GAP, IN_ORDER, DOUBLED = Place.GAP, Place.IN_ORDER, Place.DOUBLED


def texts(count: int, stream: bytes = b"stream A", size: int = 1) -> list[bytes]:
    """So many contents of one stream."""
    own = OwnStream(stream=stream)
    made = []
    for number in range(1, count + 1):
        said = Text(id=number.to_bytes(16, "big"), stream=stream, seq=number, time=NOW, body="x" * size)
        made.append(own.add(said))
    return made


class Contents(SynchronousTestCase):
    def test_every_kind_comes_back(self) -> None:
        fields: dict[str, Any] = {"id": bytes(16), "stream": b"stream A", "time": NOW}
        own = OwnStream(stream=b"stream A")
        kinds: list[contents.Content] = [
            Text(**fields, seq=1, body="☺"),
            Receipt(**fields, seq=2, ids=(bytes(16),), state="read", chain=bytes(32)),
            Disconnect(**fields, seq=3),
            Unreadable(**fields, seq=4, ref=bytes(16)),
        ]
        for number, said in enumerate(kinds, 1):
            content = own.add(said)
            self.assertEqual(decode(content), said)
            self.assertEqual(own.seq, number)
            self.assertEqual(content[:32], own.chain)
            self.assertNotIn("☺", repr(said))

    def test_only_the_next_is_added(self) -> None:
        own = OwnStream(stream=b"stream A")
        for stream, seq in ((b"stream A", 2), (b"stream B", 1)):
            said = Disconnect(id=bytes(16), stream=stream, seq=seq, time=NOW)
            self.assertIs(refusal(LocalError, own.add, said).code, Code.INTERNAL)
        self.assertEqual((own.seq, own.chain), (0, FIRST_CHAIN))

    def test_decoding_is_total(self) -> None:
        good = msgspec.msgpack.decode(texts(1)[0][32:])
        self.assertEqual(decode(bytes(32) + msgspec.msgpack.encode({**good, "more": [1]})).seq, 1)
        for changed in (
            *({**good, "kind": kind} for kind in ("other", 1, None)),
            *({**good, "id": value} for value in (bytes(15), bytes(17), "x" * 16, None)),
            *({**good, "seq": value} for value in (0, -1, 1.5, "1")),
            *({key: value for key, value in good.items() if key != missing} for missing in good),
            {**good, "kind": "receipt", "ids": [bytes(16)] * 101, "state": "read", "chain": bytes(32)},
            {**good, "kind": "receipt", "ids": [], "state": "seen", "chain": bytes(32)},
        ):
            error = refusal(PeerError, decode, bytes(32) + msgspec.msgpack.encode(changed))
            self.assertIs(error.code, Code.MALFORMED)
        packed = msgspec.msgpack.encode(good)
        for data in (
            b"",
            packed[:-1],
            packed + b"\0",
            b"\x81\xa1a" * 100_000,
            b"\xc1",
            packed.replace(b"text", b"t\xffxt"),
        ):
            self.assertIs(refusal(PeerError, decode, bytes(32) + data).code, Code.MALFORMED)
        refusal(PeerError, decode, b"")


class Orders(SynchronousTestCase):
    def test_in_order(self) -> None:
        order = Order()
        for content in texts(4):
            self.assertIs(order.add(content), IN_ORDER)
            self.assertEqual(order.chain, content[:32])

    def test_what_is_missing_shows_until_it_has_come(self) -> None:
        made = texts(5)
        order = Order()
        found = [order.add(made[number]) for number in (0, 2, 3, 1, 4)]
        self.assertEqual(found, [IN_ORDER, GAP, GAP, IN_ORDER, IN_ORDER])
        self.assertEqual(order.chain, made[4][:32])

    def test_a_number_that_comes_twice(self) -> None:
        made = texts(3)
        order = Order()
        self.assertEqual(
            [order.add(made[number]) for number in (0, 0, 2, 2, 0)], [IN_ORDER, DOUBLED, GAP, DOUBLED, DOUBLED]
        )

    def test_another_past_than_the_senders_shows(self) -> None:
        made, other = texts(3), texts(3, size=2)
        order = Order()
        self.assertEqual([order.add(content) for content in (made[0], other[1], other[2])], [IN_ORDER, GAP, GAP])
        self.assertEqual(order.chain, made[0][:32])

    def test_streams_are_counted_apart(self) -> None:
        one, two = texts(2), texts(2, b"stream B")
        order = Order()
        for content in (one[0], two[0], two[1], one[1]):
            self.assertIs(order.add(content), IN_ORDER)
        self.assertEqual(order.chain, one[1][:32])

    def test_unconfirmed_ones_count_only_later(self) -> None:
        made, forged = texts(4), texts(2, size=9)
        order = Order()
        self.assertIs(order.hold(b"session 1", made[0]), IN_ORDER)
        self.assertIs(order.hold(b"session 2", forged[0]), IN_ORDER)
        self.assertEqual(order.chain, FIRST_CHAIN)
        self.assertIs(order.place(made[1]), GAP)
        order.drop(b"session 2")
        order.confirm(b"session 1")
        self.assertIs(order.add(made[1]), IN_ORDER)
        self.assertEqual(order.chain, made[1][:32])
        order.confirm(b"session 2")
        self.assertEqual(order.chain, made[1][:32])

    def test_what_waits_has_a_limit(self) -> None:
        made = texts(50, size=30_000)
        order = Order()
        for content in made[1:]:
            self.assertIs(order.add(content), GAP)
        self.assertLess(len(order.dump()), MAX_WAITING_BYTES + 1000)
        self.assertIs(order.add(made[0]), IN_ORDER)
        for number in range(100):
            order.add(texts(1, b"%8d" % number)[0])
        self.assertLess(len(order.dump()), MAX_WAITING_BYTES + 10_000)

    def test_comes_back_from_what_is_stored(self) -> None:
        made = texts(4)
        order = Order()
        for number in (0, 2):
            order.add(made[number])
        order.hold(b"session", made[3])
        again = Order.load(order.dump())
        self.assertEqual(again.dump(), order.dump())
        again.confirm(b"session")
        self.assertIs(again.add(made[1]), IN_ORDER)
        self.assertEqual(again.chain, made[3][:32])
        for data in (b"", order.dump()[:-1], payloads.encode({"version": 2, "streams": {}, "held": {}})):
            refusal(PeerError, Order.load, data)

    def test_a_refusal_changes_nothing(self) -> None:
        order = Order()
        order.add(texts(1)[0])
        before = order.dump()
        for act in (order.add, order.place, lambda data: order.hold(b"session", data)):
            refusal(PeerError, act, bytes(40))
            self.assertEqual(order.dump(), before)

    def test_a_receipt_is_a_content(self) -> None:
        own = OwnStream(stream=b"stream A")
        content = receipt(own, (bytes(16),))
        self.assertIs(Order().add(content), IN_ORDER)
        self.assertIsInstance(contents.decode(content), Receipt)
