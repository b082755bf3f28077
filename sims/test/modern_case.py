"""A server of sims/2 with an honest pair, and what hostile clients do to frames."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable
from typing import Any, cast

from twisted.trial.unittest import SynchronousTestCase

from sims.server.limits import Limits
from sims.strictjson import Octets
from sims.test.modern_network import Hand, ModernNetwork

Act = Callable[[Hand], object]
#: What a client sees in the end: whether the server closed, the codes in the clear, the codes in boxes.
Seen = tuple[bool, list[str], list[str]]

SILENT: Seen = (True, [], [])
MALFORMED: Seen = (True, ["malformed"], [])
IN_BOX: Seen = (True, [], ["malformed"])


def seen(hand: Hand) -> Seen:
    """What a client sees."""
    return hand.closed, hand.clear, [code for code, _ in hand.errors]


def changed(frame: bytes, change: Callable[[dict[str, Any]], object]) -> bytes:
    """A frame with something else in it."""
    value = json.loads(frame)
    change(value)
    return json.dumps(value).encode("ascii")


def put(*path: str | object) -> Callable[[dict[str, Any]], object]:
    """Put the last argument where the others lead."""
    *keys, last, new = path

    def change(value: dict[str, Any]) -> None:
        for key in keys:
            value = value[cast("str", key)]
        value[cast("str", last)] = new

    return change


def leave_out(*path: str) -> Callable[[dict[str, Any]], object]:
    """Leave out what the arguments lead to."""
    *keys, last = path

    def change(value: dict[str, Any]) -> None:
        for key in keys:
            value = value[key]
        del value[last]

    return change


def base64(data: bytes) -> str:
    return b64encode(data).decode("ascii")


def flipped(path: tuple[str, ...], position: int) -> Callable[[dict[str, Any]], object]:
    """Turn one bit of a byte field around."""
    *keys, last = path

    def change(value: dict[str, Any]) -> None:
        for key in keys:
            value = value[key]
        data = bytearray(Octets.from_text(value[last]))
        data[position] ^= 1
        value[last] = base64(bytes(data))

    return change


class ServerTestCase(SynchronousTestCase):
    """A server with Ann and Bob, who have to go on talking whatever others do."""

    limits = Limits().with_limit("connections=none")

    def setUp(self) -> None:
        self.network = ModernNetwork(limits=self.limits)
        self.ann = Hand(self.network, "ann", acknowledging=True).connect()
        self.bob = Hand(self.network, "bob", acknowledging=True).connect()
        self.sent = 10_000

    def check_others(self, name: str, *others: Hand) -> None:
        """They still talk, nobody is left over, and nothing has gone wrong on the server."""
        self.sent += 1
        self.ann.send(self.bob, self.sent)
        self.bob.send(self.ann, self.sent)
        for one in (self.ann, self.bob):
            self.assertEqual((one.numbers[-1:], one.acked[-1:], one.errors), ([self.sent], [self.sent], []), name)
        here = {connection.id for connection in self.network.modern.connections}
        self.assertEqual(here, {self.ann.id, self.bob.id, *(other.id for other in others)}, name)
        self.assertEqual((self.flushLoggedErrors(), self.network.modern.failures), ([], []), name)
