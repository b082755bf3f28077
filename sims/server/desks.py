"""What delivery knows of those who are here, and of what they were given."""

from __future__ import annotations

from itertools import takewhile
from typing import Protocol

from sims.errors import Code
from sims.server.interfaces import Letter
from sims.server.refusals import Refusals


class Reader(Protocol):
    """A connection, as one to give messages to."""

    @property
    def id(self) -> str:
        """Whose it is."""

    @property
    def unsent(self) -> int:
        """About how many bytes it was given that have not left this process."""

    def deliver(self, inner: bytes) -> None:
        """Seal and write an inner message. Whatever is wrong with this reader, it raises nothing."""

    def close(self, code: Code | None = None) -> None:
        """Tell it the code, if there is one, let it read what it was sent, and close."""


class Flight:
    """A message that was given and is not acknowledged; ``kept``, when the mailbox has it, or is about to.

    Its ``letter`` has no ``inner`` any more once nobody will want that from here: it may be large, and there are many.
    """

    __slots__ = ("accepted", "full", "gone", "kept", "letter", "refusals", "refused", "short")

    def __init__(self, letter: Letter, refusals: Refusals | None, *, kept: bool) -> None:
        self.letter = letter
        self.refusals = refusals  # of the connection on which it came last
        self.kept = kept
        self.accepted = kept  # whether the sender knows
        self.gone = False  # whether the recipient has it for good
        self.full: float | None = None  # since when the mailbox has no room for it
        self.short = False  # whether it waits for room on the disk, or for one that does
        self.refused = False  # whether the sender was told that there is none


class Desk:
    """One recipient who is here.

    :ivar flights: what was given and not acknowledged, by mid, in order.
    :ivar behind: the mailbox may hold something that was not given on this connection.
    :ivar cursor: the number of the newest of the mailbox that was given.
    :ivar asking: within a call that asks the mailbox; ``pulling``: its answer has not come.
    :ivar blocked: what is next has the mid of something under way, by whoever sent that, and waits for it.
    :ivar taken: what was acknowledged while an answer was under way that may still name it.
    :ivar held: how many bytes of the flights are kept here.
    :ivar written: to whom he is known to have written.
    :ivar refusals: of what he has sent on this connection.
    :ivar short: whether the disk ever had no room for anything that he was given.
    """

    __slots__ = (
        *("asking", "behind", "blocked", "cursor", "flights", "held", "pulling", "reader", "refusals", "short"),
        *("taken", "written"),
    )

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self.flights: dict[bytes, Flight] = {}
        self.behind = True
        self.cursor = 0
        self.asking = self.pulling = self.blocked = False
        self.taken: set[tuple[str, bytes]] = set()
        self.held = 0
        self.written: set[str] = set()
        self.refusals = Refusals()
        self.short = False

    def holds(self, flight: Flight) -> bool:
        """Whether this was given and not acknowledged."""
        return self.flights.get(flight.letter.mid) is flight

    def is_short(self, src: str, before: Flight | None = None) -> bool:
        """Whether anything of this sender that was given had no room on the disk, and is to be kept first.

        :param before: only what was given before this.
        """
        given = takewhile(lambda one: one is not before, self.flights.values() if self.short else ())
        return any(one.short and one.letter.src == src for one in given)

    def let_go(self, flight: Flight) -> None:
        """Its bytes are not needed any more."""
        src, dst, mid, inner = flight.letter
        if inner:
            self.held -= len(inner)
            flight.letter = Letter(src, dst, mid, b"")

    def take_up(self, flight: Flight, letter: Letter) -> None:
        """Its bytes are needed again."""
        self.let_go(flight)
        self.held += len(letter.inner)
        flight.letter = letter
