"""Tests of the order that contents come in: what shows, what waits, what counts only later, and what all that costs."""

from __future__ import annotations

from itertools import permutations
from random import Random
from time import process_time
from typing import Any

import msgspec
from twisted.trial.unittest import SynchronousTestCase

from sims.crypto import content as contents
from sims.crypto.content import MAX_BYTES, MAX_HELD, MAX_STREAMS, Arrival, Disconnect, Order, OwnStream, Receipt, Text
from sims.crypto.streams import COST, FIRST_CHAIN, Place, Stream, chained
from sims.errors import Code, LocalError, PeerError
from sims.test.builders import refusal
from sims.test.modern_builders import NOW

GAP, IN_ORDER, DOUBLED = Place.GAP, Place.IN_ORDER, Place.DOUBLED


def texts(count: int, stream: bytes = b"stream A", size: int = 1, mark: str = "x") -> list[bytes]:
    """So many contents of one stream."""
    own = OwnStream(stream=stream)
    made = []
    for number in range(1, count + 1):
        said = Text(id=number.to_bytes(16, "big"), stream=stream, seq=number, time=NOW, body=mark * size)
        content, own = own.next(said)
        made.append(content)
    return made


def add(order: Order, *data: bytes) -> list[Place]:
    """The places of contents of a confirmed session."""
    return [order.receive(b"confirmed", content, confirmed=True).place for content in data]


def hold(order: Order, session: bytes, *data: bytes) -> list[Place]:
    """The places of contents of an unconfirmed session."""
    return [order.receive(session, content, confirmed=False).place for content in data]


class Confirmed(SynchronousTestCase):
    def test_in_order(self) -> None:
        order = Order()
        self.assertEqual(order.chain, FIRST_CHAIN)
        for number, content in enumerate(texts(4), 1):
            arrival = order.receive(b"session", content, confirmed=True)
            self.assertEqual(arrival, Arrival(contents.decode(content), content, IN_ORDER, True))
            self.assertTrue(arrival.act)
            self.assertEqual((order.chain, order.unbroken(b"stream A")), (content[:32], number))
        self.assertEqual(order.unbroken(b"stream B"), 0)

    def test_what_is_missing_shows_until_it_has_come(self) -> None:
        made = texts(5)
        order = Order()
        found = add(order, *(made[number] for number in (0, 2, 3, 1, 4)))
        self.assertEqual(found, [IN_ORDER, GAP, GAP, IN_ORDER, IN_ORDER])
        self.assertEqual(order.chain, made[4][:32])

    def test_every_order_ends_well(self) -> None:
        made = texts(6)
        for arranged in permutations(range(6)):
            order, seen, unbroken = Order(), set[int](), 0
            for number in arranged:
                self.assertEqual(add(order, made[number]), [IN_ORDER if number == unbroken else GAP])
                seen.add(number)
                while unbroken in seen:
                    unbroken += 1
                self.assertEqual(order.unbroken(b"stream A"), unbroken)
                self.assertEqual(order.chain, made[unbroken - 1][:32] if unbroken else FIRST_CHAIN)
            self.assertEqual(add(order, *made), [DOUBLED] * 6)
            self.assertEqual(order._streams[b"stream A"].runs, ())

    def test_a_number_that_comes_twice(self) -> None:
        made = texts(4)
        order = Order()
        found = add(order, *(made[number] for number in (0, 0, 2, 3, 2, 3, 0)))
        self.assertEqual(found, [IN_ORDER, DOUBLED, GAP, GAP, DOUBLED, DOUBLED, DOUBLED])
        self.assertEqual(order.chain, made[0][:32])
        self.assertTrue(order.receive(b"", made[0], confirmed=True).act)

    def test_another_past_than_the_senders_shows(self) -> None:
        made, other = texts(4), texts(4, mark="y")
        for arranged in permutations((made[0], other[1], other[2])):
            order = Order()
            add(order, *arranged)
            self.assertEqual(order.chain, made[0][:32])
            self.assertEqual(add(order, made[1], other[3], made[3]), [DOUBLED, GAP, DOUBLED])
            self.assertEqual(order.chain, made[0][:32])
        order = Order()
        add(order, made[2], other[1], other[3])
        self.assertEqual(add(order, made[0]), [IN_ORDER])
        self.assertEqual(order.unbroken(b"stream A"), 1)

    def test_a_forked_past_is_found_at_each_joint(self) -> None:
        made, other = texts(6), texts(6, mark="y")
        for first, second in ((made, other), (other, made)):
            order = Order()
            add(order, first[1], second[2], first[4], second[3], second[5])
            self.assertEqual(add(order, first[0]), [IN_ORDER])
            self.assertEqual((order.unbroken(b"stream A"), order.chain), (2, first[1][:32]))

    def test_a_number_that_was_never_given_shows(self) -> None:
        # The chain goes on from the one before, as if there were no number between the two.
        own = OwnStream(stream=b"stream A")
        made = []
        for seq in (1, 3, 5, 7):
            own = OwnStream(stream=b"stream A", seq=seq - 1, chain=own.chain)
            content, own = own.next(Text(id=bytes(16), stream=b"stream A", seq=seq, time=NOW, body=""))
            made.append(content)
        for arranged in permutations(made):
            order = Order()
            self.assertEqual(add(order, *arranged).count(IN_ORDER), 1)
            self.assertEqual((order.unbroken(b"stream A"), order.chain), (1, made[0][:32]))
            self.assertEqual(len(order._streams[b"stream A"].runs), 3)

    def test_streams_are_counted_apart(self) -> None:
        one, two = texts(3), texts(3, b"stream B")
        order = Order()
        self.assertEqual(add(order, one[0], two[0], two[1], one[1]), [IN_ORDER] * 4)
        self.assertEqual(order.chain, one[1][:32])
        add(order, two[1])  # a doubled one is not news
        self.assertEqual(order.chain, one[1][:32])
        add(order, two[2])
        self.assertEqual(order.chain, two[2][:32])

    def test_an_unknown_kind_has_its_place(self) -> None:
        own = OwnStream(stream=b"stream A")
        made = texts(3)
        base: dict[str, Any] = {"id": bytes(16), "stream": b"stream A", "seq": 2, "time": NOW}
        packed = msgspec.msgpack.encode({"kind": "of a later version", **base})
        second = chained(made[0][:32], packed) + packed
        own = OwnStream(stream=b"stream A", seq=2, chain=second[:32])
        third, _ = own.next(Text(**{**base, "seq": 3}, body="on it goes"))
        order = Order()
        self.assertEqual(add(order, made[0], second, third), [IN_ORDER] * 3)
        self.assertFalse(Order().receive(b"", second, confirmed=True).act)
        self.assertFalse(Order().receive(b"", second, confirmed=False).act)

    def test_a_refusal_changes_nothing(self) -> None:
        order = Order()
        add(order, *texts(1))
        hold(order, b"held", *texts(2)[1:])
        before = order.dump()
        for confirmed in (True, False):
            for data in (b"", bytes(40)):
                self.assertIs(refusal(PeerError, _receive, order, data, confirmed).code, Code.MALFORMED)
                self.assertEqual(order.dump(), before)


def _receive(order: Order, data: bytes, confirmed: bool) -> None:
    order.receive(b"held", data, confirmed=confirmed)


class Unconfirmed(SynchronousTestCase):
    def test_count_only_later(self) -> None:
        made, forged = texts(4), texts(2, mark="y")
        order = Order()
        self.assertEqual(hold(order, b"session 1", made[0]), [IN_ORDER])
        self.assertEqual(hold(order, b"session 2", *forged), [IN_ORDER, IN_ORDER])
        self.assertEqual((order.chain, order.unbroken(b"stream A")), (FIRST_CHAIN, 0))
        order.drop(b"session 2")
        self.assertEqual(order.confirm(b"session 2"), [])
        self.assertEqual([arrival.place for arrival in order.confirm(b"session 1")], [IN_ORDER])
        self.assertEqual(add(order, made[1]), [IN_ORDER])
        self.assertEqual(order.confirm(b"session 1"), [])
        self.assertEqual(order.chain, made[1][:32])
        self.assertEqual((order._held, order._tentative), ({}, {}))

    def test_a_burst_has_no_false_gaps(self) -> None:
        made = texts(20)
        order = Order()
        add(order, *made[:5])
        self.assertEqual(hold(order, b"session", *made[5:]), [IN_ORDER] * 15)
        self.assertEqual(hold(order, b"another", made[6]), [GAP])
        self.assertEqual([arrival.place for arrival in order.confirm(b"session")], [IN_ORDER] * 15)
        self.assertEqual(order.chain, made[-1][:32])

    def test_places_are_final_when_confirmed(self) -> None:
        made = texts(4)
        order = Order()
        self.assertEqual(hold(order, b"session", made[0], made[2], made[0]), [IN_ORDER, GAP, DOUBLED])
        add(order, made[0], made[1])
        self.assertEqual(hold(order, b"session", made[3], made[1]), [IN_ORDER, DOUBLED])
        found = [arrival.place for arrival in order.confirm(b"session")]
        self.assertEqual(found, [DOUBLED, IN_ORDER, DOUBLED, IN_ORDER, DOUBLED])

    def test_only_texts_are_acted_on_before(self) -> None:
        own = OwnStream(stream=b"stream A")
        fields: dict[str, Any] = {"id": bytes(16), "stream": b"stream A", "time": NOW}
        receipt, own = own.next(Receipt(**fields, seq=1, ids=(), state="read", chain=bytes(32)))
        text, own = own.next(Text(**fields, seq=2, body="text"))
        last, own = own.next(Disconnect(**fields, seq=3))
        order = Order()
        came = [order.receive(b"session", content, confirmed=False) for content in (receipt, text, last)]
        self.assertEqual([arrival.act for arrival in came], [False, True, False])
        self.assertEqual([arrival.confirmed or arrival.shown for arrival in came], [False] * 3)
        later = order.confirm(b"session")
        self.assertEqual([arrival.data for arrival in later], [receipt, text, last])
        self.assertEqual([arrival.content for arrival in later], [arrival.content for arrival in came])
        self.assertEqual([arrival.act for arrival in later], [True, False, True])
        self.assertEqual([arrival.shown for arrival in later], [False, True, False])
        self.assertTrue(all(arrival.confirmed for arrival in later))

    def test_what_was_held_is_not_forgotten(self) -> None:
        made = texts(2)
        order = Order()
        hold(order, b"confirmed", made[0])
        before = order.dump()
        error = refusal(LocalError, add, order, made[1])
        self.assertIs(error.code, Code.INTERNAL)
        self.assertEqual(order.dump(), before)

    def test_held_contents_with_another_past(self) -> None:
        made, other = texts(3), texts(3, mark="y")
        order = Order()
        add(order, made[0])
        self.assertEqual(hold(order, b"session", other[1], other[2]), [GAP, GAP])
        self.assertEqual([arrival.place for arrival in order.confirm(b"session")], [GAP, GAP])


class Bounds(SynchronousTestCase):
    def test_any_number_may_wait_behind_a_missing_one(self) -> None:
        made = texts(1000)
        order = Order()
        self.assertEqual(set(add(order, *made[1:])), {GAP})
        self.assertEqual(add(order, made[1], made[500], made[-1]), [DOUBLED] * 3)
        self.assertLess(len(order.dump()), 500)
        self.assertEqual(add(order, made[0]), [IN_ORDER])
        self.assertEqual(order.chain, made[-1][:32])

    def test_any_size_may_wait(self) -> None:
        made = texts(50, size=30_000)
        order = Order()
        self.assertEqual(set(add(order, *made[1:])), {GAP})
        self.assertLess(len(order.dump()), 31_000)
        self.assertEqual(add(order, made[0]), [IN_ORDER])
        self.assertEqual(order.unbroken(b"stream A"), 50)

    def test_many_holes_have_a_limit(self) -> None:
        made = texts(100, size=30_000)
        order = Order()
        self.assertEqual(set(add(order, *made[1::2])), {GAP})
        self.assertLess(len(order.dump()), MAX_BYTES)
        self.assertEqual(set(add(order, *made[::2])), {IN_ORDER, GAP})
        self.assertLess(len(order.dump()), MAX_BYTES)
        self.assertGreater(order.unbroken(b"stream A"), 60)

    def test_many_small_holes_have_a_limit(self) -> None:
        self.patch(contents, "MAX_BYTES", 2**16)
        order = Order()
        add(order, *texts(300)[1::2])
        self.assertEqual(len(order._streams[b"stream A"].runs), 2**16 // (COST + len(texts(1)[0])))

    def test_the_streams_heard_longest_ago_go_first(self) -> None:
        order = Order()
        names = [b"%8d" % number for number in range(MAX_STREAMS + 1)]
        for name in names[:-1]:
            add(order, *texts(1, name))
        add(order, texts(2, names[0])[1])
        add(order, *texts(1, names[-1]))
        self.assertEqual([order.unbroken(name) for name in (names[0], names[1], names[2], names[-1])], [2, 0, 1, 1])

    def test_the_streams_that_wait_longest_make_room(self) -> None:
        order = Order()
        add(order, *texts(1, b"nothing "))
        first, second, third = (texts(61, name, size=30_000) for name in (b"stream A", b"stream B", b"stream C"))
        for made, holes in ((first, 10), (second, 20)):
            add(order, made[0], *made[2 : 2 + 2 * holes : 2])
        add(order, third[0], *third[2:20:2])
        found = [order.unbroken(name) for name in (b"nothing ", b"stream A", b"stream B", b"stream C")]
        self.assertEqual(found, [1, 0, 1, 1])
        self.assertLess(len(order.dump()), MAX_BYTES)
        self.assertEqual(add(order, third[1]), [IN_ORDER])
        self.assertEqual(order.unbroken(b"stream C"), 3)

    def test_held_sessions_have_a_limit(self) -> None:
        made = texts(2)
        order = Order()
        names = [b"session %d" % number for number in range(MAX_HELD + 1)]
        for name in names[:-1]:
            hold(order, name, made[0])
        hold(order, names[-2], made[1])
        hold(order, names[0], made[1])
        hold(order, names[-1], made[0])
        counts = [len(order.copy().confirm(name)) for name in names]
        self.assertEqual(counts, [2, 0, *[1] * (MAX_HELD - 3), 2, 1])
        self.assertEqual(set(order._tentative), {*names} - {names[1]})

    def test_held_bytes_have_a_limit(self) -> None:
        made = texts(60, size=30_000)
        order = Order()
        add(order, *texts(1, b"confirmd"))
        self.assertEqual(hold(order, b"session 1", *made[:20]), [IN_ORDER] * 20)
        places = hold(order, b"session 2", *made)
        self.assertLess(len(order.dump()), MAX_BYTES)
        self.assertEqual(order.copy().confirm(b"session 1"), [])
        found = order.confirm(b"session 2")
        self.assertEqual([arrival.place for arrival in found], [IN_ORDER] * 34)
        self.assertEqual(places, [IN_ORDER] * 35 + [GAP] * 25)
        self.assertEqual(order.unbroken(b"confirmd"), 1)

    def test_small_held_ones_have_a_limit(self) -> None:
        self.patch(contents, "MAX_BYTES", 2**16)
        order = Order()
        hold(order, b"session", *texts(120))
        self.assertEqual(len(order.confirm(b"session")), 2**16 // (COST + len(texts(1)[0])))

    def test_nothing_is_looked_at_again_for_nothing(self) -> None:
        counted, held = texts(30), texts(30, b"stream B")
        taken = 0
        taking = Stream.taking

        def counting(stream: Stream, seq: int, data: bytes) -> tuple[Place, Stream]:
            nonlocal taken
            taken += 1
            return taking(stream, seq, data)

        self.patch(Stream, "taking", counting)
        order = Order()
        for one, other in zip(counted, held, strict=True):
            add(order, one)
            hold(order, b"session", other)
        self.assertEqual(taken, 60)


class Copies(SynchronousTestCase):
    def test_go_their_own_ways(self) -> None:
        made = texts(8)
        order = Order()
        add(order, made[0], made[2])
        hold(order, b"session", made[1], made[3])
        stored = order.dump()
        for act in (
            lambda one: add(one, made[1]),
            lambda one: hold(one, b"session", made[4]),
            lambda one: hold(one, b"another", made[4]),
            lambda one: one.confirm(b"session"),
            lambda one: one.drop(b"session"),
            lambda one: add(one, *texts(1, b"stream B")),
        ):
            copy = order.copy()
            self.assertEqual(copy.dump(), stored)
            act(copy)
            self.assertNotEqual(copy.dump(), stored)
            self.assertEqual(order.dump(), stored)
        self.assertEqual(hold(order, b"session", made[4]), [IN_ORDER])

    def test_cost_next_to_nothing(self) -> None:
        order = Order()
        add(order, *texts(100, size=10_000)[1::2])
        hold(order, b"session", *texts(300, b"stream B"))
        before = process_time()
        for _ in range(1000):
            order.copy()
        self.assertLess(process_time() - before, 0.1)

    def test_come_back_from_what_is_stored(self) -> None:
        made = texts(8)
        order = Order()
        add(order, made[0], made[2], *texts(1, b"stream B"))
        hold(order, b"session", made[3])
        again = Order.load(order.dump())
        self.assertEqual(again.dump(), order.dump())
        self.assertEqual(again.chain, order.chain)
        self.assertEqual(hold(again, b"session", made[4]), hold(order, b"session", made[4]))
        again.confirm(b"session")
        self.assertEqual(add(again, made[1]), [IN_ORDER])
        self.assertEqual(again.chain, made[4][:32])
        stored = order.dump()
        fields = msgspec.msgpack.decode(stored)
        for data in (b"", stored[:-1], stored + b"\0", msgspec.msgpack.encode({**fields, "version": 2})):
            self.assertIs(refusal(PeerError, Order.load, data).code, Code.MALFORMED)

    def test_any_course_is_the_same_from_a_store(self) -> None:
        random = Random(1)
        for _ in range(10):
            made = texts(12) + texts(12, mark="y")[6:] + texts(4, b"stream B")
            order, again = Order(), Order()
            for _ in range(60):
                content, session = random.choice(made), random.choice((b"confirmed", b"one", b"two"))
                if random.random() < 0.1:
                    self.assertEqual(order.confirm(session), again.confirm(session))
                confirmed = session == b"confirmed"
                self.assertEqual(
                    order.receive(session, content, confirmed=confirmed),
                    again.receive(session, content, confirmed=confirmed),
                )
                again = Order.load(again.dump())
            self.assertEqual(order.dump(), again.dump())

    def test_no_text_is_shown(self) -> None:
        order = Order()
        add(order, *texts(1, mark="MARK"), texts(3, mark="MARK")[2])
        hold(order, b"session", *texts(2, mark="MARK"))
        for value in (order, *order._streams.values(), *order._held.values(), order.confirm(b"session")):
            self.assertNotIn("MARK", repr(value))
