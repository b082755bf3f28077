"""The relay: who gets what, who has to wait, and that nothing grows while somebody does not read."""

from __future__ import annotations

import json
from random import Random
from typing import Any, cast

from twisted.trial.unittest import SynchronousTestCase

from sims import messages, wire
from sims.client.events import Delivery
from sims.errors import Code, PeerError
from sims.server import limits
from sims.server.connection import SeedConnection, State
from sims.server.relay import Relay
from sims.strictjson import Digest, Octets, Octets16, Octets32, Pem
from sims.test.cheapkeys import use_cheap_keys
from sims.test.clients import Driven, Raw
from sims.test.network import Network, Stream


class FakeMember:
    """A member that does as it is told, and keeps what it is given."""

    def __init__(self, relay: Relay, member_id: int, name: str = "") -> None:
        self.id = member_id
        self.name = name or f"n{member_id}"
        self.congested = self.must_be_read = False
        self.held = False
        self.calls: list[str] = []
        self.got: list[dict[str, Any]] = []
        relay.join(self)

    def deliver(self, inner: bytes) -> None:
        self.got.append(json.loads(inner))

    def hold(self) -> None:
        self.held = True
        self.calls.append("hold")

    def release(self) -> None:
        self.held = False
        self.calls.append("release")


def bye(src: int | str, dst: int | str) -> messages.ClientDisconnect:
    """A short message."""
    return messages.ClientDisconnect(src=src, dst=dst)


class RoutingTests(SynchronousTestCase):
    """Where a message goes."""

    def setUp(self) -> None:
        self.relay = Relay()
        self.a, self.b = FakeMember(self.relay, 1), FakeMember(self.relay, 2)

    def refused(self, message: messages.Relayed | messages.Error) -> Code:
        """The code with which it is refused; nobody gets it."""
        with self.assertRaises(PeerError) as caught:
            self.relay.route(self.a, message)
        self.assertEqual((self.a.got, self.b.got), ([], []))
        error: PeerError = caught.exception
        return error.code

    def test_delivered(self) -> None:
        self.relay.route(self.a, bye(1, "2"))
        self.relay.route(self.a, bye("01", 2))
        expected = {"type": "client-disconnect", "data": {}}
        self.assertEqual(self.b.got, [{**expected, "src": 1, "dst": "2"}, {**expected, "src": "01", "dst": 2}])
        self.assertEqual(self.a.got, [])

    def test_refused(self) -> None:
        self.assertEqual(self.refused(bye(1, 3)), Code.UNKNOWN_RECIPIENT)
        self.assertEqual(self.refused(bye(2, 2)), Code.NOT_SENDER)
        self.assertEqual(self.refused(bye("2", 1)), Code.NOT_SENDER)
        self.assertEqual(self.refused(bye("one", 2)), Code.MALFORMED)
        self.assertEqual(self.refused(bye(1, "two")), Code.MALFORMED)
        self.assertEqual(self.refused(messages.Error(code="internal", dst=2)), Code.MALFORMED)
        self.assertEqual(self.refused(messages.Error(code="internal", src=1)), Code.MALFORMED)

    def test_too_large(self) -> None:
        def com(size: int) -> messages.ClientCom:
            box = messages.SealedBox(
                hash=Digest(bytes(32)),
                iv=Octets16(bytes(16)),
                public_key=Pem(bytes(215)),
                ciphertext=Octets(bytes(size)),
                random=Octets32(bytes(32)),
            )
            return messages.ClientCom(src=1, dst=2, data=box)

        room = (wire.MAX_INNER - len(wire.encode(com(0)))) // 4 * 3
        self.assertEqual(self.refused(com(room + 3)), Code.TOO_LARGE)
        self.relay.route(self.a, com(room))
        self.assertEqual(len(self.b.got), 1)

    def test_id_in_use(self) -> None:
        with self.assertRaises(PeerError) as caught:
            FakeMember(self.relay, 2, "impostor")
        self.assertEqual(caught.exception.code, Code.NAME_TAKEN)
        self.assertEqual(len(self.relay), 2)
        self.relay.route(self.a, bye(1, 2))
        self.assertEqual(len(self.b.got), 1)

    def test_leave(self) -> None:
        self.relay.leave(self.b)
        self.assertFalse(self.relay.is_here(2))
        self.assertEqual(self.refused(bye(1, 2)), Code.UNKNOWN_RECIPIENT)
        other = FakeMember(self.relay, 2, "other")
        self.relay.leave(self.b)  # who left has no say about who came after
        self.relay.route(self.a, bye(1, 2))
        self.assertEqual(len(other.got), 1)

    def test_asker_first(self) -> None:
        c = FakeMember(self.relay, 3)
        self.assertEqual([entry.id for entry in self.relay.entries(c)], [3, 1, 2])
        self.assertEqual([entry.name for entry in self.relay.entries(self.b)], ["n2", "n1", "n3"])
        self.assertEqual([entry.level for entry in self.relay.entries(self.b)], [0, 0, 0])


class WaitingTests(SynchronousTestCase):
    """Who is held, and until when."""

    def setUp(self) -> None:
        self.relay = Relay()
        self.a, self.b, self.c = (FakeMember(self.relay, number) for number in (1, 2, 3))

    def send(self, sender: FakeMember, *targets: FakeMember) -> None:
        for target in targets:
            self.relay.route(sender, bye(sender.id, target.id))

    def test_not_congested(self) -> None:
        self.send(self.a, self.b)
        self.assertEqual(self.a.calls, [])

    def test_congested(self) -> None:
        """Who sends to a slow one waits until that takes more; what he sent arrives nonetheless."""
        self.b.congested = True
        self.send(self.a, self.b)
        self.assertEqual((self.a.calls, len(self.b.got)), (["hold"], 1))
        self.assertEqual((self.b.calls, self.c.calls), ([], []))
        self.relay.drained(self.c)
        self.assertEqual(self.a.calls, ["hold"])
        self.relay.drained(self.b)
        self.relay.drained(self.b)
        self.assertEqual(self.a.calls, ["hold", "release"])

    def test_two_to_wait_for(self) -> None:
        self.b.congested = self.c.congested = True
        self.send(self.a, self.b, self.c, self.b)
        self.relay.drained(self.b)
        self.assertTrue(self.a.held)
        self.relay.drained(self.c)
        self.assertEqual(self.a.calls.count("release"), 1)
        self.assertFalse(self.a.held)

    def test_two_that_wait(self) -> None:
        self.c.congested = True
        self.send(self.a, self.c)
        self.send(self.b, self.c)
        self.relay.drained(self.c)
        self.assertEqual((self.a.held, self.b.held), (False, False))

    def test_target_leaves(self) -> None:
        self.b.congested = True
        self.send(self.a, self.b)
        self.relay.leave(self.b)
        self.assertFalse(self.a.held)

    def test_sender_leaves(self) -> None:
        """Who left while it was held is never touched again, whoever comes under its id."""
        self.b.congested = True
        self.send(self.a, self.b)
        self.relay.leave(self.a)
        again = FakeMember(self.relay, 1)
        self.relay.drained(self.b)
        self.assertEqual((self.a.calls, again.calls), (["hold"], []))
        self.assertEqual((self.relay._held_by, self.relay._waiting_for), ({}, {}))

    def test_must_be_read(self) -> None:
        """Who takes more only when it is read is not held for the slow."""
        self.a.must_be_read = self.b.congested = True
        self.send(self.a, self.b)
        self.assertEqual(self.a.calls, [])

    def test_acknowledgements_do_not_wait(self) -> None:
        """Nobody is held for what it had to say: a peer that takes nothing would keep it from everybody."""
        self.b.congested = True
        self.relay.route(self.a, messages.ClientAck(src=self.a.id, dst=self.b.id))
        self.assertEqual(self.a.calls, [])
        self.relay.route(self.a, messages.ClientDisconnect(src=self.a.id, dst=self.b.id))
        self.assertEqual(self.a.calls, ["hold"])

    def test_needs_reading(self) -> None:
        """Who has come to need reading is let go by all."""
        self.b.congested = self.c.congested = True
        self.send(self.a, self.b, self.c)
        self.assertTrue(self.a.held)
        self.relay.needs_reading(self.a)
        self.assertFalse(self.a.held)
        self.relay.drained(self.b)
        self.relay.drained(self.c)
        self.assertEqual(self.a.calls.count("release"), 1)

    def test_needs_reading_without_being_held(self) -> None:
        self.relay.needs_reading(self.a)
        self.assertEqual(self.a.calls, [])

    def test_waits_for_itself(self) -> None:
        self.relay.wait(self.a, self.a)
        self.assertTrue(self.a.held)
        self.relay.drained(self.a)
        self.assertFalse(self.a.held)
        self.relay.wait(self.a, self.a)
        self.relay.needs_reading(self.a)
        self.assertFalse(self.a.held)
        self.relay.wait(self.a, self.a)
        self.relay.leave(self.a)
        self.assertEqual((self.relay._held_by, self.relay._waiting_for), ({}, {}))


def unsent(connection: SeedConnection) -> int:
    """What waits in the server's memory for the socket, bytes."""
    return cast("Stream", connection.transport).unsent


class SlowReaderTests(SynchronousTestCase):
    """Clients that do not read, in a whole network."""

    TEXT = "x" * 8_000
    #: What may wait for a socket: Twisted's bound, the frame that exceeds it, and a few acks.
    MOST_UNSENT = 64 * 1024 + 66_000

    def setUp(self) -> None:
        use_cheap_keys(self)
        self.network = Network(7, delay=(0.0, 0.01), most_pieces=2, cheap=True)

    def clients(self, *names: str) -> list[Driven]:
        """Clients 1, 2, … that are through their handshakes."""
        found = [Driven(self.network, name, number).dial() for number, name in enumerate(names, 1)]
        self.network.run_until(lambda: all(client.ready for client in found))
        return found

    def send(self, sender: Driven, to: Driven, count: int, text: str = "") -> list[str]:
        """Give so many texts to send; gives them."""
        texts = [f"{sender.id} {number} {text}" for number in range(count)]
        for one in texts:
            sender.messenger.send(str(to.id), one)
        sender.pump()
        return texts

    def test_slow_reader(self) -> None:
        alice, bob, slow, carol, dave = self.clients("alice", "bob", "slow", "carol", "dave")
        self.send(slow, alice, 1)
        self.send(slow, bob, 1)
        self.network.settle()
        reading = cast("Stream", slow.transport)
        reading.pauseProducing()
        from_alice = self.send(alice, slow, 100, self.TEXT)
        from_bob = self.send(bob, slow, 100, self.TEXT)
        most_unsent = most_waiting = most_bytes = 0
        end = self.network.clock.seconds() + 20

        def watched() -> bool:
            nonlocal most_unsent, most_waiting, most_bytes
            connection = slow.server_end
            most_unsent = max(most_unsent, unsent(connection))
            most_waiting = max(most_waiting, len(connection._pending))
            most_bytes = max(most_bytes, connection._pending_bytes)
            return self.network.clock.seconds() >= end

        self.network.clock.callLater(20, lambda: None)
        self.network.run_until(watched)
        # Both wait, and no more is kept than is said.
        self.assertTrue(slow.server_end.write_blocked)
        self.assertEqual((alice.server_end.paused, bob.server_end.paused), (True, True))
        self.assertGreater(most_unsent, 64 * 1024)
        self.assertLess(most_unsent, self.MOST_UNSENT)
        self.assertLess(most_waiting, limits.SOFT_PENDING[0])
        self.assertLess(most_bytes, limits.SOFT_PENDING[1])
        for sender in (alice, bob):
            self.assertLess(len(sender.server_end._buffer), 2 * 64 * 1024)
        # Others don't notice.
        self.send(carol, dave, 1)
        self.network.settle()
        self.assertEqual(dave.texts(), ["4 0 "])
        # And then everything arrives, in order.
        reading.resumeProducing()
        self.network.run_until(lambda: len(slow.texts()) == 200)
        self.assertEqual((slow.texts(1), slow.texts(2)), (from_alice, from_bob))
        self.network.settle()
        self.assertEqual((alice.problems(), bob.problems(), slow.problems()), ([], [], []))
        self.assertEqual(len(alice.states(Delivery.DELIVERED)), 100)
        self.assertEqual((self.network.relay._held_by, self.network.relay._waiting_for), ({}, {}))

    def test_never_reads_again(self) -> None:
        """It is closed, and who waited for it goes on."""
        alice, slow, carol = self.clients("alice", "slow", "carol")
        self.send(slow, alice, 1)
        self.network.settle()
        cast("Stream", slow.transport).pauseProducing()
        self.send(alice, slow, 60, self.TEXT)
        begun = self.network.clock.seconds()
        self.network.run_until(lambda: slow.server_end.write_blocked)
        self.network.run_for(limits.STALL_TIMEOUT - 1)
        self.assertTrue(alice.server_end.paused)
        self.network.run_until(lambda: slow.server_end not in self.network.server.connections)
        self.assertLess(self.network.clock.seconds() - begun, limits.STALL_TIMEOUT + 1)
        self.network.settle()
        self.assertFalse(alice.server_end.paused)
        self.assertFalse(self.network.relay.is_here(slow.id))
        self.assertEqual(len(alice.states(Delivery.FAILED)), 60)
        self.send(alice, carol, 1)
        self.network.settle()
        self.assertEqual(carol.texts(), ["1 0 "])
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_sends_without_reading(self) -> None:
        """Whoever does not read what it is sent is not read either: not even acks pile up for it."""
        network = Network(cheap=True, capacity=1024)
        alice, other = Raw(network, "alice", 1).handshake(), Raw(network, "other", 3).handshake()
        slow = Raw(network, "slow", 2).handshake()
        slow.stream.pauseProducing()
        for _ in range(2):
            alice.say({"type": "client-com", "src": 1, "dst": 2, "data": _box(30_000)})
        other.say({"type": "client-com", "src": 3, "dst": 2, "data": _box(1)})
        self.assertTrue(slow.server_end.write_blocked)
        self.assertEqual(len(slow.server_end._pending), 1)
        before = unsent(slow.server_end)
        ends = network.clock.seconds() + limits.STALL_TIMEOUT
        while network.clock.seconds() < ends - 3:
            for _ in range(20):
                slow.stream.write(json.dumps(slow.sealed({"type": "ack", "src": 2, "dst": 3})).encode() + b"\n\n")
            network.run_for(2)
            self.assertLessEqual(unsent(slow.server_end), before + 100)
            self.assertLessEqual(len(slow.server_end._pending), 2)
            self.assertLess(len(slow.server_end._buffer), 8_000)
        self.assertEqual(other.heard(), [])
        network.run_for(4)
        self.assertNotIn(slow.server_end, network.server.connections)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_reads_again_after_it_was_not_read(self) -> None:
        """What a client sent while it was not read arrives as soon as it reads."""
        network = Network(cheap=True, capacity=1024)
        alice, slow = Raw(network, "alice", 1).handshake(), Raw(network, "slow", 2).handshake()
        slow.stream.pauseProducing()
        for _ in range(2):
            alice.say({"type": "client-com", "src": 1, "dst": 2, "data": _box(30_000)})
        for number in range(30):
            slow.say({"type": "error", "code": str(number), "src": 2, "dst": 1})
        self.assertTrue(slow.server_end.paused)
        slow.stream.resumeProducing()
        network.settle()
        self.assertEqual([inner["code"] for inner in alice.heard()], [str(number) for number in range(30)])
        self.assertEqual([inner["type"] for inner in slow.heard()], ["client-com", "client-com"])

    def test_blocked_by_a_single_ack(self) -> None:
        """The deadline stands, even if the frame that was acknowledged last has nothing to answer."""
        network = Network(cheap=True, capacity=1024)
        slow = Raw(network, "slow", 2).handshake()
        slow.stream.pauseProducing()
        self.patch(Stream, "bufferSize", 512)
        for _ in range(200):
            slow.stream.write(json.dumps(slow.sealed({"type": "ack", "src": 2, "dst": 2})).encode() + b"\n\n")
        network.settle()
        self.assertTrue(slow.server_end.write_blocked)
        network.run_for(limits.STALL_TIMEOUT)
        self.assertEqual(network.server.connections, set())


class KeyTests(SynchronousTestCase):
    """Clients that never use newer keys of the server's."""

    def setUp(self) -> None:
        use_cheap_keys(self)
        self.network = Network(cheap=True)
        self.a, self.b = Raw(self.network, "a", 1).handshake(), Raw(self.network, "b", 2).handshake()

    def flood(self, count: int) -> None:
        """Messages from a to b, numbered."""
        for number in range(count):
            self.a.say({"type": "error", "code": str(number), "src": 1, "dst": 2})
            self.a.heard()

    def test_closed_after_a_while(self) -> None:
        window, soft = 64, limits.SOFT_PENDING[0]
        self.flood(window)
        self.assertEqual(len(self.b.server_end._pending), 0)
        self.flood(soft)
        self.assertFalse(self.a.server_end.paused)
        begun = self.network.clock.seconds()
        self.flood(5)
        # One too many was taken; four are not even read.
        self.assertTrue(self.a.server_end.paused)
        self.assertEqual(len(self.b.server_end._pending), soft + 1)
        # It goes on sending, under the oldest key of all: that is no progress.
        while self.network.clock.seconds() < begun + limits.STALL_TIMEOUT - 4:
            self.network.run_for(3)
            self.b.say({"type": "ack", "src": 2, "dst": 2})
        self.assertIs(self.b.server_end.state, State.OPEN)
        self.assertTrue(self.a.server_end.paused)
        self.network.run_for(5)
        self.assertIs(self.b.server_end.state, State.CLOSED)
        self.assertFalse(self.a.server_end.paused)
        told = [inner for inner in self.a.heard() if inner["type"] == "error"]
        self.assertEqual(told, [{"type": "error", "code": "unknown-recipient", "dst": 2}] * 4)
        self.assertEqual(self.flushLoggedErrors(), [])
        self.assertEqual(self.network.clock.getDelayedCalls(), [])

    def test_one_frame_is_enough(self) -> None:
        """A frame under a newer key lets what waits through, in order, and the sender go on."""
        self.flood(64 + limits.SOFT_PENDING[0] + 5)
        self.assertTrue(self.a.server_end.paused)
        heard = self.b.heard()
        self.assertEqual(len(heard), 64)
        for _ in range(2):
            self.b.say({"type": "error", "code": "internal", "src": 2, "dst": 1})
            heard += self.b.heard()
        codes = [inner["code"] for inner in heard if inner["type"] == "error"]
        self.assertEqual(codes, [str(number) for number in range(64 + limits.SOFT_PENDING[0] + 5)])
        self.assertFalse(self.a.server_end.paused)
        self.network.run_for(2 * limits.STALL_TIMEOUT)
        self.assertIs(self.b.server_end.state, State.OPEN)

    def test_slow_progress(self) -> None:
        """Whoever takes a window of messages within each deadline is not closed, though more always waits."""
        more = 64 + limits.SOFT_PENDING[0] + 1
        for _ in range(4):
            self.flood(more)
            more = 64
            self.network.run_for(limits.STALL_TIMEOUT * 2 / 3)
            self.b.heard()
            self.b.say({"type": "error", "code": "internal", "src": 2, "dst": 1})
            self.assertEqual(len(self.b.server_end._pending), 1)
        self.network.run_for(limits.STALL_TIMEOUT - 1)
        self.assertIs(self.b.server_end.state, State.OPEN)
        self.network.run_for(2)
        self.assertIs(self.b.server_end.state, State.CLOSED)

    def test_progress_that_blocks(self) -> None:
        """What a newer key lets through may be more than the socket takes: then the deadline is the socket's."""
        self.patch(Stream, "bufferSize", 1000)
        self.flood(64)
        self.a.say({"type": "client-com", "src": 1, "dst": 2, "data": _box(30_000)})
        self.network.capacity = 1024
        self.b.heard()
        self.b.stream.pauseProducing()
        self.b.say({"type": "error", "code": "internal", "src": 2, "dst": 1})
        self.assertTrue(self.b.server_end.write_blocked)
        self.assertEqual(len(self.b.server_end._pending), 0)
        self.network.run_for(limits.STALL_TIMEOUT - 1)
        self.assertIs(self.b.server_end.state, State.OPEN)
        self.network.run_for(2)
        self.assertIs(self.b.server_end.state, State.CLOSED)

    def test_held_and_needed(self) -> None:
        """Who is held for somebody slow is read again when something waits for his own keys; then he is held again."""
        slow = Raw(self.network, "slow", 3).handshake()
        for number in range(64 + limits.SOFT_PENDING[0] + 1):
            self.a.say({"type": "error", "code": str(number), "src": 1, "dst": 3})
            self.a.heard()
        self.a.heard()
        self.b.say({"type": "error", "code": "internal", "src": 2, "dst": 3})
        self.assertTrue(self.b.server_end.paused)
        c = Raw(self.network, "c", 4).handshake()
        for number in range(64):
            c.say({"type": "error", "code": str(number), "src": 4, "dst": 2})
            c.heard()
        self.assertTrue(self.b.server_end.paused)
        c.say({"type": "error", "code": "64", "src": 4, "dst": 2})
        self.assertFalse(self.b.server_end.paused)
        self.b.heard()
        self.b.say({"type": "error", "code": "internal", "src": 2, "dst": 3})
        self.assertEqual([inner["code"] for inner in self.b.heard()], ["64"])
        self.assertTrue(self.b.server_end.paused)
        self.assertEqual(len(slow.server_end._pending), limits.SOFT_PENDING[0] + 3)

    def test_lists_do_not_pile_up(self) -> None:
        """Who is owed a list for so many frames is owed one, however many more it sends."""
        self.flood(64)
        for _ in range(3 * limits.TURN_AFTER):
            self.b.say({"type": "error", "code": "internal", "src": 2, "dst": 1})
        self.assertEqual(len(self.b.server_end._pending), 1)

    def test_full(self) -> None:
        """Who needs to be read sends to the slow, and these are closed when too much waits for them."""
        self.patch(limits, "HARD_PENDING", (80, 10**6))
        c = Raw(self.network, "c", 3).handshake()
        # Neither b nor c uses a newer key; b must be read, as something waits for it.
        for number in range(65):
            c.say({"type": "error", "code": str(number), "src": 3, "dst": 2})
            c.heard()
        self.assertTrue(self.b.server_end.must_be_read)
        d = Raw(self.network, "d", 4).handshake()
        for _ in range(64 + 80):
            self.b.say({"type": "error", "code": "internal", "src": 2, "dst": 4})
        self.assertEqual(len(d.server_end._pending), 80)
        self.b.say({"type": "error", "code": "internal", "src": 2, "dst": 4})
        self.network.settle()
        self.assertFalse(self.b.server_end.paused)
        self.assertFalse(self.network.server.relay.is_here(4))
        self.assertTrue(d.server_end.finished)


class SoakTests(SynchronousTestCase):
    """Everybody sends to everybody, and reads when it pleases him.

    :cvar runs: how many times.
    :cvar texts: how many each sends to each of the others; in ``tests/test_random_whole.py`` both are more.
    """

    runs, texts = 1, 6

    def soak(self, seed: int, clients: int = 6) -> int:
        """One run; gives how often somebody was held."""
        random = Random(seed)
        network = Network(seed, delay=(0.0, 0.05), most_pieces=3, capacity=16 * 1024, cheap=True)
        parties = [Driven(network, f"n{number}", number).dial() for number in range(1, clients + 1)]
        network.run_until(lambda: all(party.ready for party in parties))
        holds = 0
        hold = SeedConnection.hold

        def counted(connection: SeedConnection) -> None:
            nonlocal holds
            holds += 1
            hold(connection)

        self.patch(SeedConnection, "hold", counted)
        expected: dict[tuple[int, int], list[str]] = {}

        def send(sender: Driven, to: Driven) -> None:
            text = f"{len(expected.setdefault((sender.id, to.id), []))} " + "x" * random.randrange(20_000)
            expected[sender.id, to.id].append(text)
            sender.do(lambda messenger: messenger.send(str(to.id), text))

        def doze(party: Driven) -> None:
            stream = cast("Stream", party.transport)
            stream.pauseProducing()
            network.clock.callLater(random.uniform(0, 10), stream.resumeProducing)

        pairs = [(party, other) for party in parties for other in parties if other is not party]

        def delivered(each: int) -> bool:
            return sum(len(party.states(Delivery.DELIVERED)) for party in parties) == each * len(pairs)

        # The conversations are open before anybody dozes: four phases have ten seconds.
        for party, other in pairs:
            send(party, other)
        network.settle()
        self.assertTrue(delivered(1))
        for party, other in pairs:
            for _ in range(self.texts):
                network.clock.callLater(random.uniform(0, 4), send, party, other)
        for party in parties:
            for _ in range(3):
                network.clock.callLater(random.uniform(0, 5), doze, party)
        # A look now and then: the condition is not cheap.
        for _ in range(600):
            network.run_for(0.1)
            if delivered(self.texts + 1):
                break
        self.assertTrue(delivered(self.texts + 1), f"seed {seed} comes to a halt")
        for (sender, to), sent in expected.items():
            self.assertEqual(parties[to - 1].texts(sender), sent, f"seed {seed}")
        self.assertEqual([party.problems() for party in parties], [[]] * clients, f"seed {seed}")
        self.assertEqual((network.relay._held_by, network.relay._waiting_for), ({}, {}), f"seed {seed}")
        self.assertEqual(self.flushLoggedErrors(), [])
        return holds

    def test_soak(self) -> None:
        use_cheap_keys(self)
        for seed in range(self.runs):
            self.assertGreater(self.soak(seed), 20)


def _box(size: int) -> dict[str, str]:
    """The data of a client-com, of zeros, as an object."""
    box = messages.SealedBox(
        hash=Digest(bytes(32)),
        iv=Octets16(bytes(16)),
        public_key=Pem(bytes(215)),
        ciphertext=Octets(bytes(size)),
        random=Octets32(bytes(32)),
    )
    found: dict[str, str] = json.loads(wire.encode(messages.ClientCom(src=0, dst=0, data=box)))["data"]
    return found
