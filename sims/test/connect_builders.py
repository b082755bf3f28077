"""What the tests of connect and of the hop build: a client's and a server's end, and what a refusal leaves of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from sims.crypto.handshake import Agreed, Client, Joined, Phase, Server
from sims.crypto.hop import Hop
from sims.crypto.identity import Identity
from sims.crypto.payloads import Limits, Offer
from sims.errors import Code, PeerError
from sims.specs import MODERN, ModernSpec
from sims.test.builders import refusal
from sims.test.modern_builders import Counting, person

ALICE, BOB, SERVER = person("alice"), person("bob"), person("server")
FRAME = b"frame 1"
BINDING = bytes(range(32))


def client(identity: Identity = ALICE, **changes: Any) -> Client:
    """A client's end."""
    arguments: dict[str, Any] = {
        "server": SERVER.id,
        "name": "alice",
        "specs": MODERN,
        "binding": BINDING,
        "entropy": Counting("client"),
        **changes,
    }
    return Client(identity, **arguments)


def server(specs: tuple[ModernSpec, ...] = MODERN, binding: bytes = BINDING, identity: Identity = SERVER) -> Server:
    """A server's end."""
    return Server(identity, specs, binding=binding, entropy=Counting("server"))


def picture(end: object) -> object:
    """A picture of the state of an end or a hop, but for whether it is still of use."""
    names = getattr(type(end), "__slots__", None) or vars(end)
    held = {name: getattr(end, name) for name in names if name not in ("_entropy", "_identity", "phase", "_dead")}
    transcript = held.get("_transcript")
    return held, transcript and transcript.hash


class Ends(SynchronousTestCase):
    """Tests with both ends of connect."""

    def offered(self, one: Client) -> tuple[list[str], Offer]:
        """Phase 1 of a client."""
        said: list[tuple[list[str], Offer]] = []

        def encode(ciphers: list[str], data: Offer) -> bytes:
            said.append((ciphers, data))
            return FRAME

        self.assertEqual(one.offer(encode), FRAME)
        return said[0]

    def answered(self, one: Client, other: Server, frame: bytes = FRAME) -> Agreed:
        """Phase 2 of a server."""
        return other.answer(frame, *self.offered(one))

    def proved(self, one: Client, other: Server) -> bytes:
        """Phase 3 of a client."""
        agreed = self.answered(one, other)
        return one.answer(agreed.spec.name, agreed.data)

    def joined(self, one: Client, other: Server, epoch: int | None = None, **limits: int) -> tuple[Joined, Hop]:
        """Both ends after phase 4."""
        claim = other.accept(self.proved(one, other))
        self.assertEqual((claim.id, claim.name), (ALICE.id, "alice"))
        sealed, hop = other.welcome("alice", Limits(**limits), 1, 0.0, epoch)
        return one.finish(sealed, 0.0), hop

    def hops(self, **limits: int) -> tuple[Hop, Hop]:
        """Both ends of a hop."""
        joined, hop = self.joined(client(), server(), **limits)
        return joined.hop, hop

    def refused(self, code: Code, end: Client | Server, act: Callable[..., object], *arguments: object) -> None:
        """``act`` is refused; nothing has changed, but that the end is of no more use."""
        before = picture(end)
        self.assertIs(refusal(PeerError, act, *arguments).code, code)
        self.assertEqual(picture(end), before)
        self.assertIs(end.phase, Phase.REFUSED)
