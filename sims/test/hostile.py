"""What hostile clients have in common: their bytes, and what must be true when they have gone."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Callable
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from sims import messages
from sims.crypto.primitives import p384_to_pem
from sims.crypto.seed import Keys
from sims.server.connection import State
from sims.strictjson import Digest, Octets, Octets16, Octets32, Pem
from sims.test.cheapkeys import use_cheap_keys
from sims.test.clients import Driven, Raw
from sims.test.network import Network

Act = Callable[[Raw], object]
#: The state of the connection, and what was told inside the session: a code and the dst.
Outcome = tuple[State, list[tuple[str, object]]]

CLOSED: Outcome = (State.CLOSED, [])
SPEC = "ECDHE-AES128_CTR-SHA256"


def fresh_keys(raw: Raw) -> Keys:
    """A key and a random, as phase 3 carries them."""
    entropy = raw.network.entropy
    return Keys(p384_to_pem(entropy.p384().public_key()), entropy.octets(32))


def forged(raw: Raw) -> messages.Secure:
    """A secure frame that is well made, and that nobody's keys open."""
    box = messages.SealedBox(
        hash=Digest(bytes(32)),
        iv=Octets16(bytes(16)),
        public_key=Pem(fresh_keys(raw).public_key),
        ciphertext=Octets(b"nothing"),
        random=Octets32(bytes(32)),
    )
    return messages.Secure.of(box)


def outcome(raw: Raw) -> Outcome:
    """What has become of a connection."""
    told = [inner for inner in raw.heard() if inner["type"] == "error"]
    return raw.server_end.state, [(error["code"], error.get("dst")) for error in told]


class ServerTestCase(SynchronousTestCase):
    """A server with two honest clients in conversation.

    :ivar real_keys: theirs are of secp384r1, and the hostile one's.
    """

    real_keys = False

    def setUp(self) -> None:
        if not self.real_keys:
            use_cheap_keys(self)
        self.network = Network()
        self.alice = Driven(self.network, "alice", 1).dial()
        self.bob = Driven(self.network, "bob", 2).dial()
        self.network.settle()
        self.sent = 0

    def check_others(self, name: str) -> None:
        """The honest ones still talk, in both directions, and nothing has gone wrong on the server."""
        self.sent += 1
        self.alice.do(lambda messenger: messenger.send("2", f"{name} {self.sent}"))
        self.network.settle()
        self.bob.do(lambda messenger: messenger.send("1", f"{name} {self.sent}"))
        self.network.settle()
        self.assertEqual(self.bob.texts(1)[-1:], [f"{name} {self.sent}"])
        self.assertEqual(self.alice.texts(2)[-1:], [f"{name} {self.sent}"])
        self.assertEqual((self.alice.problems(), self.bob.problems()), ([], []), name)
        self.assertEqual(self.flushLoggedErrors(), [], name)

    def check_members(self, name: str, *others: int) -> None:
        """Who is on the relay, and on the server at all."""
        here = {1, 2, *others}
        self.assertEqual({entry.id for entry in self.network.relay.entries(self.alice.server_end)}, here, name)
        self.assertEqual({end.id for end in self.network.server.connections}, here, name)

    def meet(self, cases: dict[str, tuple[Act, Outcome]], *, greeted: bool = False, session: bool = False) -> None:
        """Have a client of its own try each of these."""
        for name, (act, expected) in cases.items():
            raw = Raw(self.network)
            if greeted:
                raw.send(raw.greeting())
            if session:
                raw.handshake()
            act(raw)
            self.network.settle()
            found = outcome(raw)
            self.assertEqual(found, expected, name)
            if expected[0] is State.OPEN:
                self.check_members(name, raw.id)
                raw.stream.loseConnection()
                self.network.settle()
            self.assertTrue(raw.closed, name)
            self.check_members(name)
            self.check_others(name)


def base64(data: bytes) -> str:
    return b64encode(data).decode()


def flipped(text: str, position: int) -> str:
    data = bytearray(b64decode(text))
    data[position] ^= 1
    return base64(bytes(data))


def with_field(raw: Raw, field: str, value: bytes) -> dict[str, Any]:
    frame = raw.sealed({"type": "list"})
    frame["sa-data"][field] = base64(value)
    return frame
