"""Tests of an order of contents that is emptied: no text is left in it, and what comes behind is in order."""

from __future__ import annotations

from random import Random
from typing import Any

import msgspec
from twisted.trial.unittest import SynchronousTestCase

from sims.crypto import content as contents
from sims.crypto.content import Disconnect, Order, OwnStream, Receipt, Text, Unreadable
from sims.crypto.streams import COST, Stream, chained
from sims.test.modern_builders import NOW
from sims.test.test_crypto_modern_order import DOUBLED, GAP, IN_ORDER, add, hold, texts

#: What the version before stored, that knew no ends: of a stream of one text that counts, and one that is held.
OLD = bytes.fromhex(
    "83a773747265616d739184a673747265616dc40873747265616d2041a373657101a5636861696ec4209ef327eabde8162e1e63222171b3774c"
    "679ea275b802cf866cd13c0ee7d32240a472756e7390a468656c649182a773657373696f6ec40773657373696f6ea8636f6e74656e74739183"
    "a673747265616dc40873747265616d2041a373657102a464617461c467f7e431ffecbdde9a0f4e3beba68d82956b48fd58d5ead3758faf0b52"
    "744313d386a46b696e64a474657874a26964c41000000000000000000000000000000002a673747265616dc40873747265616d2041a3736571"
    "02a474696d65ce6b49d200a4626f6479a178a776657273696f6e01"
)


def emptied(order: Order) -> Order:
    """What is left of it, from a store."""
    order.empty()
    return Order.load(order.dump())


class Emptied(SynchronousTestCase):
    def test_what_waits_for_a_missing_one(self) -> None:
        made = texts(6, mark="MARK")
        order = Order()
        add(order, made[0], made[2], made[4])
        order = emptied(order)
        self.assertNotIn(b"MARK", order.dump())
        self.assertEqual(add(order, made[1], made[3], made[5]), [DOUBLED, DOUBLED, IN_ORDER])

    def test_what_waits_for_its_session(self) -> None:
        """Of several sessions and streams: what follows is in order, before and behind the confirmation."""
        made, other = texts(9, mark="MARK"), texts(4, b"stream B", mark="MARK")
        order = Order()
        add(order, made[0])
        hold(order, b"session", made[1], other[0], made[2])
        hold(order, b"another", other[0])
        order = emptied(order)
        self.assertNotIn(b"MARK", order.dump())
        self.assertEqual(order.unbroken(b"stream A"), 1)
        self.assertEqual(hold(order, b"session", made[3], other[1]), [IN_ORDER] * 2)
        self.assertEqual(order.stream(b"session", b"stream A").seq, 4)
        order = emptied(order)
        self.assertEqual(hold(order, b"session", made[4]), [IN_ORDER])
        found = order.confirm(b"session")
        self.assertEqual([(arrival.data, arrival.place) for arrival in found], [(made[4], IN_ORDER)])
        self.assertEqual(add(order, made[5], other[2]), [IN_ORDER] * 2)
        self.assertEqual([arrival.place for arrival in order.confirm(b"another")], [])
        self.assertEqual(add(order, other[3], other[1]), [IN_ORDER, DOUBLED])

    def test_what_waits_for_both(self) -> None:
        made = texts(5)
        for stored in (False, True):
            order = Order()
            self.assertEqual(hold(order, b"session", made[1], made[3]), [GAP, GAP])
            order.empty()
            order = Order.load(order.dump()) if stored else order
            self.assertEqual(hold(order, b"session", made[4]), [IN_ORDER])
            self.assertEqual([arrival.place for arrival in order.confirm(b"session")], [IN_ORDER])
            self.assertEqual(order.chain, made[4][:32])

    def test_what_has_come_on_another_session_since(self) -> None:
        """Behind what was held, or over it: the two fit together where their senders say so."""
        for forged in (False, True):
            made, other = texts(8), texts(8, mark="y")
            order = Order()
            hold(order, b"session", *(other if forged else made)[:3])
            order.empty()
            self.assertEqual(add(order, made[3], made[5]), [GAP, GAP])
            order.confirm(b"session")
            self.assertEqual(order.unbroken(b"stream A"), 3 if forged else 4)
            self.assertEqual(add(order, made[4], made[6]), [GAP, GAP] if forged else [IN_ORDER, IN_ORDER])
        order = Order()
        hold(order, b"session", *made[:3])
        order.empty()
        add(order, made[1], made[2], made[3], made[7])
        order.confirm(b"session")
        self.assertEqual(add(order, made[4]), [IN_ORDER])
        self.assertEqual(len(order.stream(b"session", b"stream A").runs), 1)

    def test_what_has_come_on_both(self) -> None:
        """Nothing is missing in it any more, so nothing waits."""
        made = texts(4)
        order = Order()
        hold(order, b"session", *made[:3])
        order.empty()
        self.assertEqual(add(order, made[1]), [GAP])
        order.confirm(b"session")
        self.assertEqual((order.stream(b"session", b"stream A").runs, order.unbroken(b"stream A")), ((), 3))

    def test_nothing_goes_back(self) -> None:
        made = texts(5)
        order = Order()
        hold(order, b"session", made[0])
        order.empty()
        add(order, *made[:4])
        order.confirm(b"session")
        self.assertEqual(order.unbroken(b"stream A"), 4)

    def test_a_session_that_goes(self) -> None:
        """It takes along what it has claimed."""
        order = Order()
        hold(order, b"session", *texts(3, mark="y"))
        order.empty()
        order.drop(b"session")
        self.assertEqual(order.confirm(b"session"), [])
        self.assertEqual(add(order, *texts(2)), [IN_ORDER] * 2)

    def test_what_is_no_text_is_acted_on(self) -> None:
        """Once its session is confirmed, as ever; a kind that is not known may be one."""
        fields: dict[str, Any] = {"id": bytes(16), "stream": b"stream A", "time": NOW}
        own = OwnStream(stream=b"stream A")
        receipt, own = own.next(Receipt(**fields, seq=1, ids=(), state="read", chain=bytes(32)))
        text, own = own.next(Text(**fields, seq=2, body="MARK"))
        packed = msgspec.msgpack.encode({"kind": "of a later version", **fields, "seq": 3, "body": "MARK"})
        unknown = chained(text[:32], packed) + packed
        own = OwnStream(stream=b"stream A", seq=3, chain=unknown[:32])
        lost, own = own.next(Unreadable(**fields, seq=4, ref=bytes(16)))
        last, own = own.next(Disconnect(**fields, seq=5))
        order = Order()
        hold(order, b"session", receipt, text, unknown, lost, last)
        order = emptied(order)
        self.assertNotIn(b"MARK", order.dump())
        found = order.confirm(b"session")
        self.assertEqual([arrival.data for arrival in found], [receipt, lost, last])
        self.assertTrue(all(arrival.act and arrival.confirmed for arrival in found))
        self.assertEqual(order.chain, last[:32])  # so that the session goes, as all has come

    def test_bounds(self) -> None:
        """What is kept of streams that are held has the limit of all that is."""
        self.patch(contents, "MAX_BYTES", 2**16)
        order = Order()
        for number in range(300):
            hold(order, b"session", *texts(1, b"%8d" % number))
            order.empty()
        self.assertLessEqual(len(order._held[b"session"].ends), 2**16 // COST)
        self.assertLess(len(order.dump()), 2**16)

    def test_any_course(self) -> None:
        """Whatever has come before: what comes next of each sender is in order; the same from a store."""
        random = Random(1)
        for _ in range(50):
            made = {b"stream A": texts(40), b"stream B": texts(40, b"stream B")}
            order, highest = Order(), dict.fromkeys(made, 0)
            for _ in range(random.randrange(1, 20)):
                name = random.choice([*made])
                number = random.randrange(20)
                session = random.choice((b"confirmed", b"one"))
                order.receive(session, made[name][number], confirmed=session == b"confirmed")
                highest[name] = max(highest[name], number + 1)
                if random.random() < 0.2:
                    order = emptied(order)
            again = emptied(order)
            self.assertEqual(again.dump(), order.dump())
            for name, at in highest.items():
                for session in (b"one", b"confirmed"):
                    if not at:
                        continue
                    one = again.copy()
                    if session == b"confirmed":
                        one.confirm(b"one")
                    place = one.receive(session, made[name][at], confirmed=session == b"confirmed").place
                    self.assertEqual(place, IN_ORDER)

    def test_what_older_versions_stored(self) -> None:
        """It is read, and stored as it was while nothing was emptied."""
        order = Order.load(OLD)
        self.assertEqual(order.dump(), OLD)
        self.assertEqual([arrival.place for arrival in order.confirm(b"session")], [IN_ORDER])

    def test_nothing_is_looked_at_again_for_nothing(self) -> None:
        """After it, too, each content of a session that is not confirmed costs the same."""
        taken = 0
        taking = Stream.taking

        def counting(stream: Stream, seq: int, data: bytes) -> Any:
            nonlocal taken
            taken += 1
            return taking(stream, seq, data)

        order = Order()
        hold(order, b"session", *texts(30)[:15])
        order.empty()
        self.patch(Stream, "taking", counting)
        hold(order, b"session", *texts(30)[15:])
        self.assertEqual(taken, 15)
