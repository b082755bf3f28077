"""The relay of sims/2, with members that are only noted down: who is told what."""

from __future__ import annotations

from typing import Any, cast

import msgspec

from sims import inner
from sims.crypto import payloads
from sims.crypto.handshake import Claim
from sims.crypto.prekeys import Bundle, OneTimeKey
from sims.errors import Code
from sims.server.interfaces import Account
from sims.server.registration import Admitted
from sims.test.late_store import LateStore
from sims.test.modern_builders import person
from sims.test.modern_network import WALL, mid_of, publishing
from sims.test.modern_relay_case import RelayTestCase

DAY = 86_400


class MessageTests(RelayTestCase):
    """client-connect and client-com."""

    def test_both_kinds(self) -> None:
        """They come as they were sent."""
        data = inner.pack({"anything": [1, b"2"]})
        for message in (
            self.text(self.ann.id, self.bob.id),
            inner.ClientConnect(
                src=self.ann.id, dst=self.bob.id, mid=mid_of(2), phase=1, ciphers=("x", "y"), data=data
            ),
            inner.ClientConnect(src=self.ann.id, dst=self.bob.id, mid=mid_of(3), phase=4, data=data),
        ):
            self.say(self.ann, message)
            self.assertEqual(inner.encode(self.bob.take(type(message))), inner.encode(message))

    def test_acks_are_gathered(self) -> None:
        """What is accepted in one turn is told in one message, and somebody is told to tell it."""
        for number in range(5):
            self.say(self.ann, self.text(self.ann.id, self.bob.id, number))
        self.assertEqual(self.woken, 0)
        mids = tuple(mid_of(number) for number in range(5))
        self.say(self.bob, inner.Ack(data=inner.AckData(mids=mids)))
        self.assertEqual((self.woken, self.ann.came), (1, []))
        self.relay.flush()
        self.assertEqual(self.ann.take(inner.Ack).data.mids, mids)
        self.relay.flush()
        self.assertEqual(self.ann.came, [])

    def test_many_acks(self) -> None:
        """No ack names more than a reader takes."""
        for number in range(inner.MAX_MIDS + 1):
            self.relay._accepted(self.ann.id, mid_of(number))
        self.assertEqual(len(self.flush(self.ann)), inner.MAX_MIDS + 1)
        self.assertEqual(len(self.ann.came), 2)

    def test_not_the_sender(self) -> None:
        for src in (self.bob.id, "z" * 32):
            self.say(self.ann, self.text(src, self.bob.id))
            self.assertEqual(self.ann.refusals()[0][:2], ("not-sender", mid_of(1)))
        self.assertEqual(self.bob.came, [])

    def test_nobody(self) -> None:
        self.say(self.ann, self.text(self.ann.id, "z" * 32, 7))
        self.assertEqual(self.ann.refusals()[0][:2], ("unknown-recipient", mid_of(7)))

    def test_malformed(self) -> None:
        """What is no known message is told, and everything goes on."""
        for bad in (
            b"",
            b"\xc1",
            b"\x90" * 50_000,
            b"\x91" * 100,
            msgspec.msgpack.encode({"type": "hello"}),
            msgspec.msgpack.encode({"type": ["ack"]}),
            msgspec.msgpack.encode({"type": "rekey", "phase": 1}),
            msgspec.msgpack.encode({"type": "ack", "data": {"mids": [b"short"]}}),
            msgspec.msgpack.encode({"type": "ack", "data": {"mids": [bytes(16)] * 1001}}),
            msgspec.msgpack.encode({"type": "fetch", "mid": bytes(16), "data": {}}),
            msgspec.msgpack.encode({"type": "fetch", "mid": bytes(16), "data": {"id": "short"}}),
            msgspec.msgpack.encode({"type": "bundle", "data": {"bundle": 1}}),
            msgspec.msgpack.encode({"type": "error", "data": {"code": "x"}}),
            msgspec.msgpack.encode({"type": "publish", "mid": bytes(16), "data": {"one_time_keys": []}}),
            inner.encode(self.text(self.ann.id, self.bob.id))[:-1],
            inner.encode(self.text(self.ann.id, self.bob.id)) + b"\0",
            inner.encode(self.text("UPPER" + "a" * 27, self.bob.id)),
        ):
            self.say(self.ann, bad)
            self.assertEqual([code for code, _, _ in self.ann.refusals()], ["malformed"], bad[:40])
        self.assertEqual((self.ann.closed, self.bob.came), ([], []))
        self.say(self.ann, self.text(self.ann.id, self.bob.id))
        self.bob.take(inner.ClientCom)

    def test_replaced(self) -> None:
        """A newer connection of an id closes the older one; what that had not acknowledged comes on the new one."""
        self.say(self.ann, self.text(self.ann.id, self.bob.id))
        newer = self.join("bob")
        self.assertEqual((self.bob.closed, len(self.relay)), ([Code.REPLACED], 2))
        newer.take(inner.ClientCom)
        self.relay.leave(self.bob)
        self.say(self.bob, self.text(self.bob.id, self.ann.id, 9))
        self.say(self.bob, inner.Ack(data=inner.AckData(mids=(mid_of(1),))))
        self.assertEqual((len(self.relay), self.ann.came), (2, []))
        self.relay.leave(newer)
        self.join("bob").take(inner.ClientCom)

    def test_sends(self) -> None:
        """200 at once; then 20 a second, by reading more slowly. Acknowledgements of what was given are free."""
        self.say(self.bob, self.text(self.bob.id, self.ann.id, 999))
        pauses = [self.say(self.ann, self.text(self.ann.id, self.bob.id, n)) for n in range(200)]
        self.assertEqual(set(pauses), {0.0})
        self.assertAlmostEqual(self.say(self.ann, self.text(self.ann.id, self.bob.id, 200)), 0.05)
        given = inner.Ack(data=inner.AckData(mids=(mid_of(999), mid_of(7))))
        self.assertEqual(self.say(self.ann, given), 0.0)
        self.now += 0.05
        self.assertAlmostEqual(self.say(self.ann, b"rubbish"), 0.05)
        self.assertEqual(self.say(self.bob, self.text(self.bob.id, self.ann.id)), 0.0)
        self.relay.leave(self.ann)
        again = self.join("ann")
        self.assertAlmostEqual(self.say(again, inner.ListRequest()), 0.1)  # a new connection is no new credit

    def test_acknowledgements_of_nothing(self) -> None:
        """Of no mid, of one that was not given, of one twice, of somebody else's: each costs as a message does."""
        self.say(self.ann, self.text(self.ann.id, self.bob.id))
        self.say(self.ann, self.text(self.ann.id, self.bob.id, 2))
        self.assertEqual(self.say(self.bob, inner.Ack(data=inner.AckData(mids=(mid_of(1),)))), 0.0)
        for number in range(210):
            mids = [(), (mid_of(9),), (mid_of(1),)][number % 3]
            pause = self.say(self.bob, inner.Ack(data=inner.AckData(mids=mids)))
        self.assertAlmostEqual(pause, 0.5)
        self.assertEqual(self.say(self.bob, inner.Ack(data=inner.AckData(mids=(mid_of(2),)))), 0.0)
        self.assertEqual(self.say(self.ann, inner.Ack(data=inner.AckData(mids=(mid_of(2),)))), 0.0)  # of his credit
        self.assertEqual(len(self.flush(self.ann)), 2)


class SlowStoreTests(MessageTests):
    """The same with a store that takes its time."""

    def make_store(self) -> Any:
        return LateStore()

    def settle(self) -> None:
        self.store.settle()


class PrekeyTests(RelayTestCase):
    """publish and fetch."""

    def test_fetch(self) -> None:
        """By id or by name in any spelling; with a one-time key, once."""
        bundle, keys = self.publish(self.bob)
        for whose, key in (({"id": self.bob.id}, keys[0]), ({"name": "BOB"}, None)):
            self.fetch(self.ann, 5, **whose)
            reply = self.ann.take(inner.BundleReply)
            self.assertEqual(reply.mid, mid_of(5))
            self.assertEqual(payloads.decode(Bundle, bytes(reply.data.bundle)), bundle)
            found = reply.data.one_time_key
            self.assertEqual(None if found is msgspec.UNSET else payloads.decode(OneTimeKey, bytes(found)), key)
        self.now += DAY
        self.fetch(self.ann, id=self.bob.id)
        self.assertIsNot(self.ann.take(inner.BundleReply).data.one_time_key, msgspec.UNSET)

    def test_fetch_of_oneself(self) -> None:
        """One's own bundle, to see its version; one-time keys are for others."""
        self.publish(self.ann)
        self.fetch(self.ann, id=self.ann.id)
        self.assertIs(self.ann.take(inner.BundleReply).data.one_time_key, msgspec.UNSET)

    def test_unknown(self) -> None:
        """Somebody who is not there, a name that nobody can have, somebody who has published nothing: all alike."""
        for whose in ({"id": "z" * 32}, {"name": "eve"}, {"name": "a b"}, {"name": ""}, {"id": self.bob.id}):
            self.fetch(self.ann, 3, **whose)
            self.assertEqual([error[:2] for error in self.ann.refusals()], [("unknown-recipient", mid_of(3))])

    def test_fetches(self) -> None:
        """20 at once, then one a second; and how long to wait."""
        for _ in range(20):
            self.fetch(self.ann, id=self.bob.id)
        self.ann.came.clear()
        self.fetch(self.ann, 9, id=self.bob.id)
        self.assertEqual(self.ann.refusals(), [("rate-limited", mid_of(9), 1)])
        self.fetch(self.bob, id=self.ann.id)
        self.assertEqual(self.bob.refusals()[0][0], "unknown-recipient")
        self.now += 1
        self.fetch(self.ann, id=self.bob.id)
        self.assertEqual(self.ann.refusals()[0][0], "unknown-recipient")

    def refused(self, message: inner.Publish) -> str:
        """The code with which Ann's publishing is refused; her bundle stays as it was."""
        self.ann.came.clear()
        before: list[Any] = []
        self.store.bundle(self.ann.id, before.append)
        self.say(self.ann, message)
        self.assertEqual(self.flush(self.ann), [])
        ((code, mid, _),) = self.ann.refusals()
        self.assertEqual(mid, message.mid)
        self.store.bundle(self.ann.id, before.append)
        self.assertEqual(before[0], before[1])
        return code

    def test_refused(self) -> None:
        bundle, keys = self.prekeys(self.ann)
        others, others_keys = self.prekeys(self.bob)
        flipped = msgspec.structs.replace(bundle, name="y")
        unsigned = msgspec.structs.replace(keys[1], key_id=99)
        for message, code in (
            (publishing(1, others, []), "not-authenticated"),
            (publishing(1, flipped, []), "not-authenticated"),
            (publishing(1, bundle, [*keys, others_keys[0]]), "not-authenticated"),
            (publishing(1, bundle, [keys[0], unsigned]), "not-authenticated"),
            (publishing(1, {"sign": b"short"}, []), "malformed"),
            (publishing(1, bundle, cast("list[OneTimeKey]", [7])), "malformed"),
            (publishing(1, self.prekeys(self.ann, WALL - 31 * DAY)[0], []), "policy"),
        ):
            self.assertEqual(self.refused(message), code)

    def test_steps_back(self) -> None:
        """A lower version, or the same with other bytes; the same again is no harm."""
        bundle, keys = self.publish(self.ann)
        for version in (bundle.version, bundle.version - 1):
            unsigned = msgspec.structs.replace(bundle, version=version, name="other")
            signature = self.ann.identity.sign("bundle", unsigned.signed())
            other = msgspec.structs.replace(unsigned, signature=signature)
            self.assertEqual(self.refused(publishing(2, other, [])), "policy")
        self.say(self.ann, publishing(3, bundle, keys))
        self.assertEqual(self.flush(self.ann), [mid_of(3)])

    def test_what_nobody_has_signed(self) -> None:
        """Fields beside the known ones are not kept: nobody gets them, and they take no room."""
        bundle, keys = self.prekeys(self.ann)
        junk = {"junk": bytes(20_000)}
        data = inner.PublishData(
            bundle=inner.pack({**msgspec.to_builtins(bundle, builtin_types=(bytes,)), **junk}),
            one_time_keys=(inner.pack({**msgspec.to_builtins(keys[0], builtin_types=(bytes,)), **junk}),),
        )
        self.say(self.ann, inner.Publish(mid=mid_of(1), data=data))
        self.assertEqual(self.flush(self.ann), [mid_of(1)])
        self.fetch(self.bob, id=self.ann.id)
        reply = self.bob.take(inner.BundleReply).data
        self.assertEqual(bytes(reply.bundle), payloads.encode(bundle))
        self.assertEqual(bytes(cast("msgspec.Raw", reply.one_time_key)), payloads.encode(keys[0]))

    def test_acknowledgements_that_are_something_else(self) -> None:
        """What takes long to be looked at is taken from the sends."""
        odd = msgspec.msgpack.encode({"type": "ack", "data": {"mids": []}, "x": [[]] * 4000})
        pauses = [self.relay.receive(self.ann, odd) for _ in range(220)]
        self.assertEqual(pauses[0], 0.0)
        self.assertGreater(pauses[-1], 0.0)

    def test_too_many_mids(self) -> None:
        """As many as an acknowledgement may name are taken; one more is no message, and acknowledges nothing."""
        many = inner.MAX_MIDS - 1
        mids = [mid_of(number) for number in range(many + 2)]
        self.say(self.bob, self.text(self.bob.id, self.ann.id, many))
        self.ann.came.clear()
        self.say(self.ann, msgspec.msgpack.encode({"type": "ack", "data": {"mids": mids}}))
        self.assertEqual([code for code, _, _ in self.ann.refusals()], ["malformed"])
        self.assertEqual(self.flush(self.bob), [])
        self.say(self.ann, inner.Ack(data=inner.AckData(mids=tuple(mids[:-1]))))
        self.assertEqual(self.flush(self.bob), [mid_of(many)])

    def test_too_many(self) -> None:
        """More than 40 at once is no message."""
        bundle, keys = self.prekeys(self.ann)
        data = inner.PublishData(bundle=inner.pack(bundle), one_time_keys=(inner.pack(keys[0]),) * 41)
        self.say(self.ann, inner.Publish(mid=mid_of(1), data=data))
        self.assertEqual(self.ann.refusals()[0][0], "malformed")


class RestTests(RelayTestCase):
    """list, about and delete."""

    def test_list(self) -> None:
        self.say(self.ann, inner.ListRequest(mid=mid_of(4)))
        reply = self.ann.take(inner.ListReply)
        self.assertEqual((reply.mid, reply.data.clients), (mid_of(4), ()))

    def test_about(self) -> None:
        self.publish(self.ann)
        self.say(self.ann, self.text(self.ann.id, self.bob.id))
        self.say(self.ann, inner.AboutRequest(mid=mid_of(4)))
        reply = self.ann.take(inner.AboutReply)
        self.assertEqual(reply.mid, mid_of(4))
        facts = reply.data.facts
        self.assertEqual((facts["id"], facts["name"], facts["one_time_keys"]), (self.ann.id, "ann", 3))
        self.assertEqual(facts["written_to"], [self.bob.id])

    def test_delete(self) -> None:
        """The account goes, its name is free, whoever still writes is told, and so is who asked."""
        self.publish(self.ann)
        self.say(self.bob, self.text(self.bob.id, self.ann.id, 8))
        self.ann.came.clear()
        self.say(self.ann, inner.Delete(mid=mid_of(3)))
        self.assertEqual(self.ann.take(inner.Ack).data.mids, (mid_of(3),))
        self.assertEqual((self.ann.closed, len(self.relay)), ([None], 1))
        self.assertEqual([error[:2] for error in self.bob.refusals()], [("unknown-recipient", mid_of(8))])
        self.say(self.ann, self.text(self.ann.id, self.bob.id))
        self.fetch(self.bob, name="ann")
        self.assertEqual(self.bob.refusals()[0][0], "unknown-recipient")
        results: list[Admitted | Code] = []
        self.relay.admit(Claim(person("eve").public, "Ann", None, None), results.append)
        self.assertEqual(results, [Admitted("ann", None, False)])


class DirectoryTests(RelayTestCase):
    directory = True

    def test_list(self) -> None:
        """All accounts by name, and who is here."""
        self.relay.leave(self.bob)
        self.say(self.ann, inner.ListRequest())
        listed = self.ann.take(inner.ListReply).data.clients
        self.assertEqual(
            [(one.id, one.name, one.online) for one in listed],
            [(self.ann.id, "ann", True), (self.bob.id, "bob", False)],
        )

    def test_a_long_list(self) -> None:
        """As many as fit in a box."""
        public = person("eve").public
        for number in range(800):
            claim = Claim(public, f"n{number:03}" + "ü" * 28, None, None)
            self.store.register(_account(number, claim.name), None, lambda _: None)
        self.say(self.ann, inner.ListRequest())
        reply = self.ann.take(inner.ListReply)
        self.assertLess(len(inner.encode(reply)), 65_536)
        self.assertGreater(len(reply.data.clients), 400)

    def test_no_more_is_read_than_may_fit(self) -> None:
        """Of accounts with the shortest names as well; whoever has 20,000 of them is not asked for all."""
        asked: list[int | None] = []
        answer = self.store.everyone

        def everyone(done: Any, most: int | None = None) -> None:
            asked.append(most)
            answer(done, most)

        self.patch(self.store, "everyone", everyone)
        for number in range(1200):
            self.store.register(_account(number, f"{number:x}"), None, lambda _: None)
        self.say(self.ann, inner.ListRequest())
        listed = self.ann.take(inner.ListReply).data.clients
        ((most,), taken) = asked, len(listed)
        self.assertTrue(most is not None and taken < most < 1000, (most, taken))


def _account(number: int, name: str) -> Any:
    return Account("".join("abcdefghij"[int(digit)] for digit in f"{number:032}"), name, b"", b"", 0)
