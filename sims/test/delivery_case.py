"""A delivery with three accounts, readers that only note what they are given, and a clock that the test turns."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from sims.errors import Code
from sims.server.delivery import Delivery
from sims.server.interfaces import Letter, Mailboxes
from sims.server.limits import Limits
from sims.server.memory import MemoryStore
from sims.test.store_contract import ANN, BOB, EVE, account

WALL = 1_800_000_000


def letter(number: int, src: str = ANN, dst: str = BOB, size: int = 10) -> Letter:
    """A message, whose inner bytes say who sent it and which it is."""
    return Letter(src, dst, number.to_bytes(16, "big"), b"%s %d" % (src[:1].encode(), number) + bytes(size))


class Reader:
    """A connection that notes what it is given."""

    def __init__(self, number: str = BOB) -> None:
        self.id = number
        self.given: list[tuple[str, int]] = []
        self.unsent = 0
        self.closed: Code | None = None

    def deliver(self, inner: bytes) -> None:
        sender, number = inner.rstrip(b"\0").decode("ascii").split()
        self.given.append((sender, int(number)))

    def close(self, code: Code | None = None) -> None:
        self.closed = code

    @property
    def numbers(self) -> list[int]:
        """The numbers of what it was given."""
        return [number for _, number in self.given]


class DeliveryTestCase(SynchronousTestCase):
    """A delivery with three accounts. ``accepted`` and ``refused`` are what senders were told."""

    limits = Limits()

    def setUp(self) -> None:
        self.now = 0.0
        self.store = MemoryStore()
        self.begin(self.store)

    def begin(self, store: Mailboxes) -> None:
        for number in (ANN, BOB, EVE):
            self.store.register(account(number, number[:3]), None, lambda _: None)
        self.accepted: list[tuple[str, int]] = []
        self.refused: list[tuple[str, int, Code]] = []
        self.delivery = Delivery(
            store,
            self.limits,
            clock=lambda: self.now,
            wall=lambda: WALL + self.now,
            accepted=lambda src, mid: self.accepted.append((src[:1], int.from_bytes(mid, "big"))),
            refused=lambda src, mid, code: self.refused.append((src[:1], int.from_bytes(mid, "big"), code)),
        )

    def send(self, *numbers: int, src: str = ANN, dst: str = BOB) -> None:
        for number in numbers:
            self.delivery.send(letter(number, src, dst))

    def join(self, number: str = BOB) -> Reader:
        reader = Reader(number)
        self.delivery.join(reader)
        return reader

    def acknowledge(self, reader: Reader, *numbers: int) -> None:
        self.delivery.acknowledge(reader, [number.to_bytes(16, "big") for number in numbers])

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.delivery.tick()

    def kept(self, owner: str = BOB) -> list[int]:
        """The numbers of what is in a mailbox."""
        found: list[Letter] = []
        self.store.waiting(owner, 0, 9999, 0, lambda items: found.extend(one for _, one in items))
        return [int.from_bytes(one.mid, "big") for one in found]
