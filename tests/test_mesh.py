"""Whole networks with delays, in which everybody talks at once: nothing lost, doubled or reordered."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from random import Random

from twisted.trial.unittest import SynchronousTestCase

from sims.client import events
from sims.client.events import Delivery
from sims.client.seed import SeedMessenger
from sims.test.cheapkeys import use_cheap_keys
from sims.test.clients import Driven, Program
from sims.test.network import Network, cut


class MeshTestCase(SynchronousTestCase):
    """Clients on a network, and what must be true of them."""

    def network(self, seed: int, *, cheap: bool = True) -> Network:
        """A network with delays, on which what is written falls apart."""
        if cheap:
            use_cheap_keys(self)
        return Network(seed, delay=(0.0, 0.1), most_pieces=4, cheap=cheap)

    def clients(self, network: Network, count: int) -> list[Driven]:
        """Clients 1, 2, … that are through their handshakes."""
        found = [Driven(network, f"n{number}", number).dial() for number in range(1, count + 1)]
        network.settle()
        self.assertTrue(all(client.ready for client in found))
        return found

    def queue(self, sender: Driven, to: Driven, count: int) -> list[str]:
        """Give so many texts to send, at once; gives them."""
        texts = [f"{sender.id} to {to.id}: {number}" for number in range(count)]
        for text in texts:
            sender.messenger.send(str(to.id), text)
        sender.pump()
        return texts

    def check(self, parties: Sequence[Driven], expected: dict[tuple[int, int], list[str]], label: str) -> None:
        """Each text arrived once and in order, and its sender heard of that once; and of nothing else."""
        for party in parties:
            for other in parties:
                if other is not party:
                    self.assertEqual(party.texts(other.id), expected[other.id, party.id], label)
            sent = sum(len(texts) for (sender, _), texts in expected.items() if sender == party.id)
            for state in (Delivery.QUEUED, Delivery.ACCEPTED, Delivery.DELIVERED):
                found = party.states(state)
                self.assertEqual((len(found), len(set(found))), (sent, sent), f"{label}: {state}")
            wrong = [event for event in party.all(events.Problem) if event.ref is None]
            self.assertEqual((wrong, party.states(Delivery.FAILED)), ([], []), label)
            self.assertEqual((party.messenger.under_way, party.messenger.unsent), (0, 0), label)
        self.assertEqual(self.flushLoggedErrors(), [], label)

    def check_rest(self, network: Network, label: str) -> None:
        """Nobody waits for anything any more."""
        self.assertEqual(network.clock.getDelayedCalls(), [], label)
        self.assertEqual((network.relay._held_by, network.relay._waiting_for), ({}, {}), label)


class CrossingTests(MeshTestCase):
    """Two clients, both at once."""

    def cross(self, network: Network, count: int, label: str) -> list[Driven]:
        """Both send so many texts at once, before there is a conversation."""
        alice, bob = parties = self.clients(network, 2)
        expected = {(1, 2): self.queue(alice, bob, count), (2, 1): self.queue(bob, alice, count)}
        network.settle(60)
        self.check(parties, expected, label)
        self.check_rest(network, label)
        return parties

    def test_real_keys(self) -> None:
        for seed in range(3):
            alice, bob = self.cross(self.network(seed, cheap=False), 20, f"seed {seed}")
            # The two handshakes that crossed became one conversation.
            for party in (alice, bob):
                self.assertEqual(len(party.all(events.Connected)), 1)

    def test_many(self) -> None:
        self.cross(self.network(1), 300, "300 texts")

    def test_slow(self) -> None:
        """Over slow lines, of which some are slower than others, more is sent than may be under way."""
        use_cheap_keys(self)
        for seed in range(4):
            network = Network(seed, delay=(0.0, 1.0), most_pieces=4, cheap=True)
            self.cross(network, 100, f"seed {seed}")


class MeshTests(MeshTestCase):
    """Everybody opens a conversation with everybody, at once, and has several texts to send."""

    def mesh(self, seed: int, count: int, texts: int) -> None:
        network = self.network(seed)
        parties = self.clients(network, count)
        expected = {
            (party.id, other.id): self.queue(party, other, texts)
            for party in parties
            for other in parties
            if other is not party
        }
        network.settle(60)
        self.check(parties, expected, f"seed {seed}")
        self.check_rest(network, f"seed {seed}")
        for party in parties:
            self.assertEqual(len(party.all(events.Connected)), count - 1)
            self.assertEqual(len(party.messenger.conversations()), count - 1)

    def test_a_dozen(self) -> None:
        self.mesh(0, 12, 3)  # tests/test_mesh_process.py has twenty, on sockets

    def test_several_seeds(self) -> None:
        for seed in range(1, 4):
            self.mesh(seed, 7, 3)


class DisconnectTests(MeshTestCase):
    """Conversations that either side closes while texts are under way: what was not received goes out again."""

    TEXTS = 20

    def talk(self, seed: int, closing: str) -> tuple[Network, list[Driven], dict[tuple[int, int], list[str]]]:
        """Both send over a second; those named in ``closing`` close the conversation in its course."""
        network, random = self.network(seed), Random(seed)
        alice, bob = parties = self.clients(network, 2)
        expected = {}
        for sender, to in ((alice, bob), (bob, alice)):
            texts = [f"{sender.id} {number}" for number in range(self.TEXTS)]
            expected[sender.id, to.id] = texts
            times = sorted(random.uniform(0, 1) for _ in texts)
            for time, text in zip(times, texts, strict=True):
                network.clock.callLater(time, sender.do, partial(SeedMessenger.send, to=str(to.id), text=text))
        for number, letter in enumerate(closing):
            who, other = (alice, bob) if letter == "a" else (bob, alice)
            command = partial(SeedMessenger.disconnect, to=str(other.id), ref=f"bye {number}")
            network.clock.callLater(random.uniform(0.4, 1.1), who.do, command)
        network.run_for(3)
        network.settle()
        return network, parties, expected

    def test_closed(self) -> None:
        closed = 0
        for closing in ("a", "b", "ab"):
            for seed in range(4):
                label = f"{closing} {seed}"
                network, parties, expected = self.talk(seed, closing)
                self.check(parties, expected, label)
                self.check_rest(network, label)
                for party in parties:
                    # Whoever asked for the end hears of it, or that there is no conversation any more.
                    ends: list[events.Event] = [*party.all(events.Disconnected), *party.all(events.Problem)]
                    asked = [f"bye {n}" for n, letter in enumerate(closing) if letter == "ab"[party.id - 1]]
                    self.assertEqual([event.ref for event in ends if event.ref is not None], asked, label)
                    closed += len(party.all(events.Disconnected))
        self.assertGreater(closed, 20)


class ReconnectTests(MeshTestCase):
    """A connection to the server that breaks."""

    TEXTS = 20

    def break_one(self, seed: int) -> tuple[Network, list[Driven], Driven]:
        """Two talk; the connection of one breaks meanwhile and is made again; in the end both say one thing more."""
        network, random = self.network(seed), Random(seed)
        alice, bob = parties = self.clients(network, 2)
        for sender, to in ((alice, bob), (bob, alice)):
            times = [*sorted(random.uniform(0, 1) for _ in range(self.TEXTS)), 15.0]
            for number, time in enumerate(times):
                command = partial(SeedMessenger.send, to=str(to.id), text=f"{sender.id} {number}")
                network.clock.callLater(time, sender.do, command)
        broken = parties[seed % 2]
        time = random.uniform(0.3, 0.9)
        network.clock.callLater(time, cut, broken.server_end)
        network.clock.callLater(time + 0.5, broken.dial)
        network.run_for(30)
        network.settle()
        return network, parties, broken

    def test_cut(self) -> None:
        """Every text ends, once, as delivered or as failed; what was delivered has arrived, once, and all in order."""
        failed = 0
        for seed in range(4):
            network, parties, broken = self.break_one(seed)
            label = f"seed {seed}"
            for party, other in (parties, parties[::-1]):
                texts = {event.id: str(event.text) for event in party.all(events.State) if event.text is not None}
                done, lost = party.states(Delivery.DELIVERED), party.states(Delivery.FAILED)
                self.assertEqual(sorted(done + lost), sorted(texts), label)
                arrived = other.texts(party.id)
                self.assertLessEqual({texts[one] for one in done}, set(arrived), label)
                self.assertEqual(arrived, [text for text in texts.values() if text in arrived], label)
                self.assertEqual(party.messenger.under_way, 0, label)
                failed += len(lost)
            self.assertEqual(len(broken.all(events.Offline)), 1, label)
            self.assertEqual(self.flushLoggedErrors(), [], label)
            self.check_rest(network, label)
        self.assertGreater(failed, 0)

    def test_program(self) -> None:
        """A whole client connects again by itself, and goes on with what it had to say."""
        network = self.network(3)
        alice, bob = Program(network, "alice", 1), Driven(network, "bob", 2).dial()
        alice.client.start()
        alice.client.messenger.send("2", "first")
        network.run_for(2)
        for round_ in range(3):
            connection = alice.endpoint.server_end
            assert connection is not None
            cut(connection)
            network.settle()
            alice.client.act(partial(SeedMessenger.send, to="2", text=f"text {round_}"))
            network.run_for(5)
        self.assertEqual(bob.texts(1), ["first", "text 0", "text 1", "text 2"])
        self.assertEqual(len(alice.states(Delivery.DELIVERED)), 4)
        self.assertEqual(len(alice.all(events.Ready)), 4)
        self.assertEqual(len(alice.all(events.Offline)), 3)
        closing = alice.client.close()
        network.settle()
        self.successResultOf(closing)
        self.check_rest(network, "program")
