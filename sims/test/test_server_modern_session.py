"""Sessions of sims/2 at the server: messages, slow readers, keys that get old, addresses, limits."""

from __future__ import annotations

from typing import Any, cast

import msgspec
from twisted.trial.unittest import SynchronousTestCase

from sims import frames, inner
from sims.crypto.hop import LEAST_MESSAGES, PATIENCE, REKEY_SECONDS
from sims.frames import MAX_FRAME, TERMINATOR
from sims.server.limits import STALL_TIMEOUT, Limits
from sims.server.registration import Mode
from sims.test.modern_case import Act, ServerTestCase, changed, put, seen
from sims.test.modern_network import Hand, ModernNetwork, mid_of
from sims.test.network import cut


class RelayTests(ServerTestCase):
    """Messages, on real hops."""

    def test_away_and_back(self) -> None:
        self.bob.stream.loseConnection()
        self.network.settle()
        for number in (1, 2):
            self.ann.send(self.bob, number)
        self.assertEqual(self.ann.acked, [1, 2])
        self.bob = Hand(self.network, "bob", acknowledging=True).connect()
        self.assertEqual(self.bob.numbers, [1, 2])

    def test_an_ack_waits_for_the_receiver(self) -> None:
        """Two seconds at most: then the mailbox has it."""
        self.bob.acknowledging = False
        self.ann.send(self.bob, 1)
        self.network.run_for(1.9)
        self.assertEqual((self.bob.numbers, self.ann.acked), ([1], []))
        self.network.run_for(0.2)
        self.assertEqual(self.ann.acked, [1])

    def test_replaced(self) -> None:
        """The older connection is told and closed; what it had not acknowledged comes again on the new one."""
        self.bob.acknowledging = False
        for number in (1, 2):
            self.ann.send(self.bob, number)
        self.bob.acknowledge(1)
        newer = Hand(self.network, "bob", acknowledging=True).connect()
        self.assertEqual(seen(self.bob), (True, [], ["replaced"]))
        self.assertEqual((newer.numbers, self.ann.acked), ([2], [1, 2]))
        self.bob = newer
        self.check_others("replaced")

    def test_cut(self) -> None:
        """Both ends of a broken connection see a reset; what was under way comes again."""
        self.bob.acknowledging = False
        self.ann.send(self.bob, 1)
        cut(cast("Any", self.bob.server_end))
        self.network.settle()
        self.assertEqual(self.ann.acked, [1])
        self.bob = Hand(self.network, "bob", acknowledging=True).connect()
        self.assertEqual(self.bob.numbers, [1])
        self.check_others("cut")

    def test_unopenable_messages(self) -> None:
        """300 of them from a stranger, to somebody who is away: the next good one of a friend arrives."""
        self.bob.send(self.ann, 999)
        self.bob.stream.loseConnection()
        self.network.settle()
        eve = Hand(self.network, "eve").connect()
        for number in range(300):
            eve.stream.write(eve.sealed(eve.text(self.bob, number)) + TERMINATOR)
        self.network.run_for(20)
        self.assertEqual(eve.acked, [*range(20)])
        self.assertEqual(eve.errors, [("mailbox-full", number) for number in range(20, 300)])
        self.ann.send(self.bob, 1000)
        self.assertEqual(self.ann.acked, [1000])
        self.bob = Hand(self.network, "bob", acknowledging=True).connect()
        self.assertEqual(self.bob.numbers, [*range(20), 1000])
        self.check_others("flood", eve)

    def test_sends(self) -> None:
        """Beyond the burst it is read more slowly; nothing is refused, nothing lost."""
        eve = Hand(self.network, "eve").connect()
        for number in range(240):
            eve.stream.write(eve.sealed(eve.text(self.bob, number)) + TERMINATOR)
        self.network.settle()
        self.assertEqual(len(self.bob.numbers), 201)
        self.network.run_for(1)
        self.assertIn(len(self.bob.numbers), range(218, 224))
        self.check_others("sends", eve)
        self.network.run_for(2)
        self.assertEqual([n for n in self.bob.numbers if n != self.sent], [n for n in range(240) if n != self.sent])
        self.assertEqual(eve.errors, [])

    def test_frames_that_are_something_else(self) -> None:
        """What stands in a frame beside its box is read as well, and costs by its size."""
        eve = Hand(self.network, "eve").connect()
        for number in range(40):
            frame = eve.sealed(eve.text(self.bob, number))
            eve.stream.write(changed(frame, put("x", "x" * 90_000)) + TERMINATOR)
        self.network.settle(0.5)
        self.assertIn(len(self.bob.numbers), range(5, 15))
        self.network.run_for(60)
        self.assertEqual(self.bob.numbers, [*range(40)])
        self.check_others("frames", eve)

    def test_delete(self) -> None:
        eve = Hand(self.network, "eve").connect()
        eve.say(inner.Delete(mid=mid_of(5)))
        self.assertEqual((eve.acked, eve.closed), ([5], True))
        self.ann.send(eve, 6)
        self.assertEqual(self.ann.errors, [("unknown-recipient", 6)])
        self.ann.came.clear()
        self.check_others("delete")
        Hand(self.network, "zoe").connect(name="eve")

    def test_prekeys(self) -> None:
        self.bob.publish()
        self.ann.say(inner.Fetch(mid=mid_of(3), data=inner.FetchData(name="bob")))
        self.assertEqual(len(self.ann.all(inner.BundleReply)), 1)


class SlowReaderTests(ServerTestCase):
    """Somebody who does not read."""

    def deaf(self) -> Hand:
        hand = Hand(self.network, "eve").connect()
        hand.stream.pauseProducing()
        return hand

    def test_window(self) -> None:
        """It is given no more than the window; the rest waits in the mailbox; others notice nothing."""
        eve = self.deaf()
        self.network.store.written(eve.id, self.ann.id, lambda _: None)
        for number in range(1000, 1100):
            self.ann.send(eve, number, size=10_000)
        self.network.run_for(3)
        self.assertEqual(self.ann.acked, [*range(1000, 1100)])
        end = cast("Any", eve.server_end)
        self.assertLess(cast("Any", end.transport).unsent, 450_000)
        self.check_others("deaf", eve)
        eve.stream.resumeProducing()
        eve.acknowledging = True
        self.network.run_for(10)
        eve.acknowledge(*eve.numbers)
        self.network.run_for(10)
        self.assertEqual(eve.numbers, [*range(1000, 1100)])
        self.assertEqual(end.unsent, 0)

    def test_its_own_answers(self) -> None:
        """Whoever asks and does not read is not read; after a minute it is cut off."""
        eve = self.deaf()
        for _ in range(3000):
            eve.stream.write(eve.sealed(inner.AboutRequest()) + TERMINATOR)
        self.network.run_for(STALL_TIMEOUT / 2)
        end = cast("Any", eve.server_end)
        self.assertLess(cast("Any", end.transport).unsent, 300_000)
        self.check_others("does not read", eve)
        self.network.run_for(STALL_TIMEOUT)
        self.assertTrue(end.finished)
        self.check_others("cut off")

    def test_much_in_one_breath(self) -> None:
        """Whoever asks for much in one segment, and does not read, is not read on before it has left."""
        facts = {"all": bytes(55_000)}
        self.patch(self.network.store, "facts", lambda _, done: done(facts))
        for limits in (Limits(), Limits().with_limit("sends=none")):
            self.patch(self.network.modern_relay, "limits", limits)
            eve = self.deaf()
            end = cast("Any", eve.server_end)
            most = 0
            push = end.send_frame

            def noted(frame: bytes, end: Any = end, push: Any = push) -> None:
                nonlocal most
                most = max(most, end.unsent + len(frame))
                push(frame)

            self.patch(end, "send_frame", noted)
            asked = [eve.sealed(inner.AboutRequest()) for _ in range(60)]
            eve.stream.write(TERMINATOR.join(asked) + TERMINATOR)
            self.network.settle()
            self.assertIn(most, range(250_000, 400_000))
            self.assertLess(end.unsent, 400_000)
            eve.stream.resumeProducing()
            self.network.run_for(60)
            self.assertEqual(len(eve.all(inner.AboutReply)), 60)
            self.check_others("much", eve)
            eve.stream.loseConnection()
            self.network.settle()


class RekeyTests(ServerTestCase):
    """Keys that are used for too long."""

    def test_rekey(self) -> None:
        """The server answers; messages go on before, between and after."""
        assert self.ann.hop is not None
        self.ann.write(frames.encode_box(*self.ann.hop.begin_rekey(self.ann.entropy)))
        self.check_others("rekey")

    def test_messages(self) -> None:
        limits = msgspec.structs.replace(self.limits.told(), rekey_messages=LEAST_MESSAGES)
        self.network.modern.told = limits
        eve = Hand(self.network, "eve").connect()
        for _ in range(PATIENCE * LEAST_MESSAGES):
            if not eve.closed:
                eve.say(inner.Ack(data=inner.AckData(mids=())))
        self.assertFalse(eve.closed)
        eve.say(inner.Ack(data=inner.AckData(mids=())))
        self.assertEqual(seen(eve), (True, [], ["rekey-required"]))
        self.check_others("messages")

    def test_seconds(self) -> None:
        """Also of somebody who says nothing; others have rekeyed in time."""
        Hand(self.network, "eve").connect()
        self.network.run_for(REKEY_SECONDS)
        for one in (self.ann, self.bob):
            assert one.hop is not None
            one.write(frames.encode_box(*one.hop.begin_rekey(one.entropy)))
        self.network.run_for(PATIENCE * REKEY_SECONDS - REKEY_SECONDS - 1)
        self.network.modern.check_keys()
        self.network.settle()
        self.assertEqual(len(self.network.modern.connections), 3)
        self.network.run_for(2)
        self.network.modern.check_keys()
        self.network.settle()
        self.check_others("seconds")


class AddressTests(SynchronousTestCase):
    """What one address may cost."""

    def try_(self, network: ModernNetwork, host: str) -> bool:
        """Connect and stay."""
        return Hand(network, "x", host=host).server_end is not None

    def test_a_minute(self) -> None:
        network = ModernNetwork(limits=Limits().with_limit("connections=5/100/100"))
        for _ in range(5):
            self.assertTrue(self.try_(network, "192.0.2.1"))
        self.assertFalse(self.try_(network, "192.0.2.1"))
        self.assertTrue(self.try_(network, "192.0.2.2"))
        network.clock.rightNow += 12.1
        self.assertTrue(self.try_(network, "192.0.2.1"))
        self.assertFalse(self.try_(network, "192.0.2.1"))

    def test_at_once(self) -> None:
        network = ModernNetwork(limits=Limits().with_limit("connections=100/2/100"))
        first = Hand(network, "x")
        self.assertTrue(self.try_(network, "192.0.2.1"))
        self.assertFalse(self.try_(network, "192.0.2.1"))
        first.stream.loseConnection()
        network.settle()
        self.assertTrue(self.try_(network, "192.0.2.1"))

    def test_networks(self) -> None:
        """An IPv6 /64 counts as one address, and an IPv4 address within IPv6 as what it is."""
        network = ModernNetwork(limits=Limits().with_limit("connections=100/1/100"))
        for host, admitted in (
            ("2001:db8::1", True),
            ("2001:db8::ffff:2", False),
            ("2001:db8:0:1::1", True),
            ("::ffff:192.0.2.7", True),
            ("192.0.2.7", False),
            ("fe80::1%eth0", True),
        ):
            self.assertEqual(self.try_(network, host), admitted, host)

    def test_failed_handshakes(self) -> None:
        """Ten a minute, whatever they fail of; what succeeds does not count."""
        network = ModernNetwork(limits=Limits().with_limit("connections=1000/1000/3"), mode=Mode.INVITE)
        network.invite("good")
        ann = Hand(network, "ann").connect(invite="good")
        for _ in range(5):
            ann = Hand(network, "ann").connect()
        bad: list[Act] = [
            lambda hand: hand.write(b"garbage"),
            lambda hand: hand.stream.loseConnection(),
            lambda hand: hand.refusal(invite="good"),
        ]
        for act in bad:
            hand = Hand(network, "eve")
            self.assertIsNotNone(hand.server_end)
            act(hand)
            network.settle()
        self.assertFalse(self.try_(network, "192.0.2.1"))
        self.assertTrue(self.try_(network, "192.0.2.2"))
        network.clock.rightNow += 20.1
        self.assertTrue(self.try_(network, "192.0.2.1"))
        self.assertFalse(ann.closed)

    def test_none(self) -> None:
        network = ModernNetwork(limits=Limits().with_limit("connections=none"))
        for _ in range(200):
            hand = Hand(network, "x")
            self.assertIsNotNone(hand.server_end)
            hand.write(b"garbage")


class LimitTests(SynchronousTestCase):
    """Rows that are set otherwise."""

    def test_frame(self) -> None:
        network = ModernNetwork(limits=Limits().with_limit("frame=5000/4K"))
        hand = Hand(network).connect()
        assert hand.joined is not None
        self.assertEqual(hand.joined.limits.frame, 5000)
        hand.write(b"x" * 5001)
        self.assertEqual(seen(hand), (True, [], ["too-large"]))
        hand = Hand(network)
        hand.write(b"x" * 4097)
        self.assertEqual(seen(hand), (True, ["too-large"], []))

    def test_frame_none(self) -> None:
        network = ModernNetwork(limits=Limits().with_limit("frame=none"))
        hand = Hand(network)
        hand.stream.write(b"x" * (MAX_FRAME - 1))
        network.settle()
        self.assertFalse(hand.closed)

    def test_handshake(self) -> None:
        network = ModernNetwork(limits=Limits().with_limit("handshake=2/1"))
        hand = Hand(network)
        network.run_for(2.1)
        self.assertTrue(hand.closed)
        hand = Hand(network).connect()
        hand.stream.write(b"x")
        network.run_for(1.1)
        self.assertTrue(hand.closed)
        network = ModernNetwork(limits=Limits().with_limit("handshake=none"))
        hand = Hand(network)
        hand.stream.write(b"x")
        network.run_for(1000)
        self.assertFalse(hand.closed)

    def test_sends_none(self) -> None:
        network = ModernNetwork(limits=Limits().with_limit("sends=none").with_limit("fetches=none"))
        hand = Hand(network).connect()
        assert hand.joined is not None
        self.assertIsNone(hand.joined.limits.sends)
        for number in range(300):
            hand.stream.write(hand.sealed(inner.Fetch(mid=mid_of(number), data=inner.FetchData(name="x"))) + TERMINATOR)
        network.settle()
        self.assertEqual({code for code, _ in hand.errors}, {"unknown-recipient"})
        self.assertEqual(len(hand.errors), 300)
