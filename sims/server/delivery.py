"""What is owed to whom (protocol.rst, "Delivery"): synchronous, without a reactor.

A message for somebody who is here, and for whom nothing older waits, is handed over at once: if it is acknowledged
within :data:`ACK_WAIT` seconds, no store ever sees it. Every other one goes into the mailbox, and its recipient is
given what waits there, oldest first, as far as the window allows. Either way the sender is told that a message is
accepted only when its recipient has acknowledged it or the mailbox has it for good.

On one connection a message is given once; what is unacknowledged when it ends is given again on the next.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Protocol

from sims.errors import Code
from sims.server.interfaces import Kept, Letter, Mailboxes
from sims.server.limits import Limits

#: Seconds in which a recipient acknowledges what need not be stored.
ACK_WAIT = 2.0
#: Seconds in which a message that was given is not refused, though the mailbox has no room for it.
FULL_WAIT = 30.0
#: So many are asked of the mailbox at once.
PULL = 128
#: So many messages that were acknowledged are remembered, in case they are sent again: for longer their recipient does.
REMEMBERED = 20_000
#: So many bytes that one reader was given, has not acknowledged, and that no mailbox has, stay in memory.
HELD = 256 * 1024
#: So many of those to whom somebody has written are remembered while he is here; the store knows them all.
KNOWN = 1000


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


class _Flight:
    """A message that was given and is not acknowledged; ``kept``, when the mailbox has it, or is about to.

    Its ``letter`` has no ``inner`` any more once nobody will want that from here: it may be large, and there are many.
    """

    __slots__ = ("accepted", "full", "gone", "kept", "letter", "refused")

    def __init__(self, letter: Letter, *, kept: bool) -> None:
        self.letter = letter
        self.kept = kept
        self.accepted = kept  # whether the sender knows
        self.gone = False  # whether the recipient has it for good
        self.full: float | None = None  # since when the mailbox has no room for it
        self.refused = False  # whether the sender was told that there is none


class _Desk:
    """One recipient who is here.

    :ivar flights: what was given and not acknowledged, by mid, in order.
    :ivar behind: the mailbox may hold something that was not given on this connection.
    :ivar cursor: the number of the newest of the mailbox that was given.
    :ivar asking: within a call that asks the mailbox; ``pulling``: its answer has not come.
    :ivar blocked: what is next has the mid of something under way, by whoever sent that, and waits for it.
    :ivar taken: what was acknowledged while an answer was under way that may still name it.
    :ivar held: how many bytes of the flights are kept here.
    :ivar written: to whom he is known to have written.
    """

    __slots__ = ("asking", "behind", "blocked", "cursor", "flights", "held", "pulling", "reader", "taken", "written")

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self.flights: dict[bytes, _Flight] = {}
        self.behind = True
        self.cursor = 0
        self.asking = self.pulling = self.blocked = False
        self.taken: set[tuple[str, bytes]] = set()
        self.held = 0
        self.written: set[str] = set()

    def holds(self, flight: _Flight) -> bool:
        """Whether this was given and not acknowledged."""
        return self.flights.get(flight.letter.mid) is flight

    def let_go(self, flight: _Flight) -> None:
        """Its bytes are not needed any more."""
        src, dst, mid, inner = flight.letter
        if inner:
            self.held -= len(inner)
            flight.letter = Letter(src, dst, mid, b"")

    def take_up(self, flight: _Flight, letter: Letter) -> None:
        """Its bytes are needed again."""
        self.let_go(flight)
        self.held += len(letter.inner)
        flight.letter = letter


class Delivery:
    """The messages of one server.

    :param clock: seconds, never backwards; ``wall``: Unix seconds.
    :param accepted: called with the sender's id and the mid of what he can forget; ``refused`` with the code as well.
    """

    def __init__(
        self,
        store: Mailboxes,
        limits: Limits,
        *,
        clock: Callable[[], float],
        wall: Callable[[], float],
        accepted: Callable[[str, bytes], None],
        refused: Callable[[str, bytes, Code], None],
    ) -> None:
        self._store = store
        self._quota = limits.mailbox.quota
        self._window = limits.unacknowledged
        self._clock = clock
        self._wall = wall
        self._accepted = accepted
        self._refused = refused
        self._desks: dict[str, _Desk] = {}
        self._due: deque[tuple[float, _Flight]] = deque()
        self._remembered: OrderedDict[tuple[str, str, bytes], None] = OrderedDict()

    # --- who is here ---

    def join(self, reader: Reader) -> None:
        """Somebody is here: give what waits. Whoever had the id before must have left."""
        desk = self._desks[reader.id] = _Desk(reader)
        self._pull(desk)

    def leave(self, reader: Reader) -> None:
        """Somebody is gone: what he has not acknowledged waits for him."""
        desk = self._desks.get(reader.id)
        if desk is None or desk.reader is not reader:
            return
        del self._desks[reader.id]
        self._keep_flights(desk, leaves=True)

    def forget(self, account: str) -> None:
        """An account is deleted: whoever has its id from now on is somebody new."""
        for desk in self._desks.values():
            desk.written.discard(account)
        for key in [key for key in self._remembered if account in key[:2]]:
            del self._remembered[key]

    # --- messages ---

    def send(self, letter: Letter) -> None:
        """A message has come from its sender; he is told what becomes of it."""
        if (letter.src, letter.dst, letter.mid) in self._remembered:
            self._accepted(letter.src, letter.mid)
            return
        desk = self._desks.get(letter.dst)
        if desk is None:
            self._keep(letter)
            return
        flight = desk.flights.get(letter.mid)
        if flight is not None and flight.letter.src == letter.src:
            if flight.accepted:
                self._accepted(letter.src, letter.mid)
            elif flight.refused:
                flight.refused, flight.full = False, None
                if desk.held + len(letter.inner) <= HELD:
                    desk.take_up(flight, letter)
                self._keep(letter, flight)
            return  # or else he is told when that is settled
        is_next = flight is None and not desk.behind and not desk.pulling
        if is_next and desk.held + len(letter.inner) <= HELD and self._room(desk):
            given = self._give(desk, letter, kept=False)
            self._due.append((self._clock() + ACK_WAIT, given))
            return
        self._keep_flights(desk)
        desk.behind = True
        self._keep(letter)

    def acknowledge(self, reader: Reader, mids: Iterable[bytes]) -> bool:
        """A recipient has these for good; False when none of them is anything that he was given."""
        desk = self._desks.get(reader.id)
        if desk is None or desk.reader is not reader:
            return False
        before = len(desk.flights)
        gone: list[tuple[str, bytes]] = []
        for mid in mids:
            flight = desk.flights.pop(mid, None)
            if flight is None:
                continue
            letter = flight.letter
            flight.gone = True
            desk.let_go(flight)
            self._remember(letter)
            if flight.kept and not flight.refused:
                gone.append((letter.src, mid))
            else:
                flight.kept = True  # nothing is left to do for it when its time comes
                self._accepted(letter.src, mid)
        if gone:
            if desk.pulling:
                desk.taken.update(gone)
            self._store.acknowledge(reader.id, gone, _nothing)
        if len(desk.flights) == before:
            return False
        desk.blocked = False
        self._pull(desk)
        return True

    def drained(self, reader: Reader) -> None:
        """A connection takes more again."""
        desk = self._desks.get(reader.id)
        if desk is not None and desk.reader is reader:
            self._pull(desk)

    # --- time ---

    @property
    def due(self) -> float | None:
        """When :meth:`tick` is to be called, on the clock."""
        return self._due[0][0] if self._due else None

    def tick(self) -> None:
        """Keep what was not acknowledged in time."""
        now = self._clock()
        while self._due and self._due[0][0] <= now:
            _, flight = self._due.popleft()
            if not flight.kept:
                self._keep(flight.letter, flight)

    # --- within ---

    def _room(self, desk: _Desk) -> int:
        """How many more may be given now."""
        if desk.blocked or desk.reader.unsent >= self._window.unsent:
            return 0
        left = self._window.messages - len(desk.flights)
        return PULL if left >= PULL else max(0, int(left))

    def _give(self, desk: _Desk, letter: Letter, *, kept: bool) -> _Flight:
        if not kept:  # or else it was noted then
            self._note_written(letter.src, letter.dst)
        flight = desk.flights[letter.mid] = _Flight(letter, kept=kept)
        desk.held += len(letter.inner)
        desk.reader.deliver(letter.inner)
        if kept:
            desk.let_go(flight)
        return flight

    def _keep_flights(self, desk: _Desk, *, leaves: bool = False) -> None:
        """Keep everything that is under way: nothing in a mailbox is newer than what is not in it yet.

        :param leaves: whether the recipient goes; or else what had no room is tried again in its time only.
        """
        for flight in [one for one in desk.flights.values() if not one.kept and (leaves or one.full is None)]:
            self._keep(flight.letter, flight)

    def _keep(self, letter: Letter, flight: _Flight | None = None) -> None:
        if flight is not None:
            flight.kept = True
        self._store.keep(letter, self._quota, int(self._wall()), partial(self._kept, letter, flight))

    def _kept(self, letter: Letter, flight: _Flight | None, result: Kept) -> None:
        match result:
            case Kept.STORED | Kept.KNOWN:
                self._note_written(letter.src, letter.dst)
                if flight is not None:
                    flight.accepted = True
                    self._let_go(flight)
                self._accepted(letter.src, letter.mid)
            case Kept.FULL:
                self._full(letter, flight, Code.MAILBOX_FULL)
            case Kept.UNAVAILABLE:
                self._full(letter, flight, Code.UNAVAILABLE)
            case Kept.NOBODY:
                self._refused(letter.src, letter.mid, Code.UNKNOWN_RECIPIENT)
        desk = self._desks.get(letter.dst)
        if desk is not None:
            self._pull(desk)

    def _full(self, letter: Letter, flight: _Flight | None, code: Code) -> None:
        """There is no room for a message. It is not refused while its recipient may have it: that is for him to say."""
        desk = self._desks.get(letter.dst)
        if flight is not None and flight.gone:
            self._accepted(letter.src, letter.mid)
        elif flight is not None and desk is not None and desk.holds(flight):
            now = self._clock()
            flight.full = now if flight.full is None else flight.full
            if now - flight.full < FULL_WAIT and flight.letter.inner:  # or else there is nothing to try it with
                flight.kept = False
                self._due.append((now + ACK_WAIT, flight))
            else:
                flight.refused = True
                desk.let_go(flight)
                self._refused(letter.src, letter.mid, code)
        else:
            self._refused(letter.src, letter.mid, code)

    def _pull(self, desk: _Desk) -> None:
        """Give what waits in the mailbox, as far as there is room."""
        while desk.behind and not desk.pulling and (room := self._room(desk)):
            # From here on, whatever is kept sets ``behind`` again.
            desk.behind, desk.pulling, desk.asking = False, True, True
            since = self._wall() - self._quota.life
            self._store.waiting(desk.reader.id, desk.cursor, room, since, partial(self._waiting, desk, room))
            desk.asking = False

    def _waiting(self, desk: _Desk, room: int, letters: Sequence[tuple[int, Letter]]) -> None:
        desk.pulling = False
        taken, desk.taken = desk.taken, set()
        if self._desks.get(desk.reader.id) is not desk:
            return
        desk.behind = desk.behind or len(letters) == room
        for number, letter in letters:
            flight = desk.flights.get(letter.mid)
            if flight is not None and flight.letter.src != letter.src:
                desk.behind = desk.blocked = True
                break
            if flight is None and (letter.src, letter.mid) not in taken:
                if not self._room(desk):
                    desk.behind = True
                    break
                self._give(desk, letter, kept=True)
            desk.cursor = number
        if not desk.asking:
            self._pull(desk)

    def _remember(self, letter: Letter) -> None:
        self._remembered[letter.src, letter.dst, letter.mid] = None
        if len(self._remembered) > REMEMBERED:
            self._remembered.popitem(last=False)

    def _let_go(self, flight: _Flight) -> None:
        desk = self._desks.get(flight.letter.dst)
        if desk is not None and desk.holds(flight):
            desk.let_go(flight)

    def _note_written(self, src: str, dst: str) -> None:
        desk = self._desks.get(src)
        if desk is not None:
            if dst in desk.written:
                return
            if len(desk.written) >= KNOWN:
                desk.written.clear()
            desk.written.add(dst)
        self._store.written(src, dst, _nothing)


def _nothing(_: None) -> None:
    pass
