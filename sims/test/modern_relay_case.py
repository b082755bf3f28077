"""The relay of sims/2, with members that only note what they are told."""

from __future__ import annotations

from typing import Any, TypeVar, cast

from twisted.trial.unittest import SynchronousTestCase

from sims import inner
from sims.crypto.handshake import Claim
from sims.crypto.prekeys import Bundle, OneTimeKey, OwnPrekeys
from sims.errors import Code
from sims.server.limits import Limits
from sims.server.memory import MemoryStore
from sims.server.modern_relay import ModernRelay
from sims.server.registration import Admitted, Mode
from sims.test.modern_builders import Counting, person
from sims.test.modern_network import SPECS, WALL, mid_of, publishing

M = TypeVar("M")


class Member:
    """Somebody who is here."""

    def __init__(self, name: str) -> None:
        self.identity = person(name)
        self.id = self.identity.id
        self.unsent = 0
        self.came: list[inner.FromServer] = []
        self.closed: list[Code | None] = []

    def deliver(self, message: bytes) -> None:
        self.came.append(inner.from_server(message))

    def close(self, code: Code | None = None) -> None:
        self.closed.append(code)

    def take(self, kind: type[M]) -> M:
        """The one message that came, which is of this kind."""
        (found,), self.came = self.came, []
        if not isinstance(found, kind):
            raise AssertionError(f"{found}, not {kind}")
        return found

    def refusals(self) -> list[tuple[str, object, object]]:
        """The errors that came: code, mid, after. A mid stands in both places."""
        found: list[tuple[str, object, object]] = []
        for error in self.came:
            if not isinstance(error, inner.Error) or error.mid != error.data.mid:
                raise AssertionError(f"{error}")
            found.append((error.data.code, error.mid, error.data.after))
        self.came = []
        return found


class RelayTestCase(SynchronousTestCase):
    """A relay with Ann and Bob."""

    limits = Limits()
    directory = False

    def setUp(self) -> None:
        self.now = 0.0
        self.woken = 0
        self.begin()

    def begin(self) -> None:
        self.store = self.make_store()
        self.relay = ModernRelay(
            self.store,
            clock=lambda: self.now,
            wall=lambda: WALL + self.now,
            limits=self.limits,
            mode=Mode.OPEN,
            directory=self.directory,
        )
        self.relay.wake = self.wake
        self.ann, self.bob = self.join("ann"), self.join("bob")

    def make_store(self) -> Any:
        return MemoryStore()

    def settle(self) -> None:
        """Let a slow store do its work."""

    def wake(self) -> None:
        self.woken += 1

    def join(self, name: str) -> Member:
        member = Member(name)
        results: list[Admitted | Code] = []
        self.relay.admit(Claim(member.identity.public, name, None, None), results.append)
        self.settle()
        self.assertIsInstance(results[0], Admitted)
        self.relay.join(member)
        self.settle()
        return member

    def say(self, member: Member, message: inner.Inner | bytes) -> float:
        """Have the relay receive a message; gives the pause that it asks for."""
        plaintext = message if isinstance(message, bytes) else inner.encode(message)
        pause = self.relay.receive(member, plaintext)
        self.settle()
        return pause

    def flush(self, member: Member) -> list[bytes]:
        """The mids that somebody is told are accepted."""
        self.relay.flush()
        return [mid for ack in member.came if isinstance(ack, inner.Ack) for mid in ack.data.mids]

    def text(self, src: str, dst: str, number: int = 1) -> inner.ClientCom:
        return inner.ClientCom(src=src, dst=dst, mid=mid_of(number), data=inner.pack({"header": b"h", "body": b"b"}))

    def prekeys(self, member: Member, now: int = WALL) -> tuple[Bundle, list[OneTimeKey]]:
        own, entropy = OwnPrekeys(), Counting(member.id)
        bundle = own.make_bundle(member.identity, "x", SPECS, now=now, entropy=entropy)
        return bundle, own.make_one_time_keys(member.identity, 3, now=now, entropy=entropy)

    def publish(self, member: Member, number: int = 1) -> tuple[Bundle, list[OneTimeKey]]:
        bundle, keys = self.prekeys(member)
        self.say(member, publishing(number, bundle, keys))
        self.assertIn(mid_of(number), self.flush(member))
        member.came.clear()
        return bundle, keys

    def fetch(self, member: Member, number: int = 1, **whose: str) -> None:
        self.say(member, inner.Fetch(mid=mid_of(number), data=inner.FetchData(**cast("Any", whose))))
