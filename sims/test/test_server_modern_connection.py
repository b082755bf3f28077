"""The server's end of a connection of sims/2, with real keys over a network in memory."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from sims.test.modern_network import Hand, ModernNetwork


class Smoke(SynchronousTestCase):
    def test_relay(self) -> None:
        network = ModernNetwork()
        ann = Hand(network, "ann").connect()
        bob = Hand(network, "bob", acknowledging=True).connect()
        ann.send(bob, 1)
        self.assertEqual(bob.numbers, [1])
        self.assertEqual(ann.acked, [1])
        bob.stream.loseConnection()
        network.settle()
        ann.send(bob, 2)
        self.assertEqual(ann.acked, [1, 2])
        bob = Hand(network, "bob", acknowledging=True).connect()
        network.settle()
        self.assertEqual(bob.numbers, [2])
