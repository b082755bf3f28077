"""What is owed to whom (protocol.rst, "Delivery"): synchronous, without a reactor.

A message for somebody who is here, and for whom nothing older waits, is handed over at once: if it is acknowledged
within :data:`ACK_WAIT` seconds, no store ever sees it. Every other one goes into the mailbox, and its recipient is
given what waits there, oldest first, as far as the window allows. Either way the sender is told that a message is
accepted only when its recipient has acknowledged it or the mailbox has it for good.

On one connection a message is given once; what is unacknowledged when it ends is given again on the next.

What one sends to another stays in order where the disk is full for a while, too: whoever is told that there is no room
for a message is told so of all that he has sent behind it, until he sends it again.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from math import inf

from sims.errors import Code
from sims.server.desks import Desk, Flight
from sims.server.desks import Reader as Reader
from sims.server.interfaces import Asked, Kept, Letter, Mailboxes
from sims.server.limits import Limits
from sims.server.refusals import Refusals

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
        self._desks: dict[str, Desk] = {}
        self._due: deque[tuple[float, Flight]] = deque()
        self._remembered: OrderedDict[tuple[str, str, bytes], None] = OrderedDict()

    # --- who is here ---

    def join(self, reader: Reader) -> None:
        """Somebody is here: give what waits. Whoever had the id before must have left."""
        desk = self._desks[reader.id] = Desk(reader)
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
            desk.refusals.forget(account)
        for key in [key for key in self._remembered if account in key[:2]]:
            del self._remembered[key]

    # --- messages ---

    def send(self, letter: Letter) -> None:
        """A message has come from its sender; he is told what becomes of it."""
        if (letter.src, letter.dst, letter.mid) in self._remembered:
            self._accept(letter)
            return
        desk, refusals = self._desks.get(letter.dst), self._refusals_of(letter.src)
        flight = None if desk is None else desk.flights.get(letter.mid)
        same = flight if flight is not None and flight.letter.src == letter.src else None
        if same is not None:
            same.refusals = refusals
            if same.accepted:
                self._accept(letter)
                return
            if not same.refused:
                return  # he is told when that is settled
        if refusals is not None and refusals.stop(letter.dst, letter.mid, self._clock()):
            self._refuse(letter, refusals)
        elif desk is None:
            self._keep(letter)
        elif flight is None and self._is_next(desk, letter):
            given = self._give(desk, letter, kept=False)
            self._due.append((self._clock() + ACK_WAIT, given))
        elif desk.is_short(letter.src):
            self._refuse_given(desk, letter.src)
            self._refuse(letter, refusals)
        elif same is not None:
            same.refused, same.full = False, None
            if desk.held + len(letter.inner) <= HELD:
                desk.take_up(same, letter)
            self._keep(letter, same)
        else:
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
                self._accept(letter)
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
            desk = self._desks.get(flight.letter.dst)
            if flight.kept:
                continue
            if desk is not None and desk.is_short(flight.letter.src, before=flight):
                flight.short = True
                self._due.append((now + ACK_WAIT, flight))
            else:
                self._keep(flight.letter, flight)

    # --- within ---

    def _room(self, desk: Desk) -> int:
        """How many more may be given now."""
        if desk.blocked or desk.reader.unsent >= self._window.unsent:
            return 0
        left = self._window.messages - len(desk.flights)
        return PULL if left >= PULL else max(0, int(left))

    def _is_next(self, desk: Desk, letter: Letter) -> bool:
        """Whether something new may be given at once."""
        is_next = not desk.behind and not desk.pulling and desk.held + len(letter.inner) <= HELD
        return is_next and bool(self._room(desk))

    def _give(self, desk: Desk, letter: Letter, *, kept: bool) -> Flight:
        if not kept:  # or else it was noted then
            self._note_written(letter.src, letter.dst)
        flight = desk.flights[letter.mid] = Flight(letter, self._refusals_of(letter.src), kept=kept)
        desk.held += len(letter.inner)
        desk.reader.deliver(letter.inner)
        if kept:
            desk.let_go(flight)
        return flight

    def _keep_flights(self, desk: Desk, *, leaves: bool = False) -> None:
        """Keep everything that is under way: nothing in a mailbox is newer than what is not in it yet.

        :param leaves: whether the recipient goes; or else what had no room is tried again in its time only.
        """
        for flight in [one for one in desk.flights.values() if not one.kept and (leaves or one.full is None)]:
            if leaves or not desk.is_short(flight.letter.src, before=flight):
                self._keep(flight.letter, flight)

    def _keep(self, letter: Letter, flight: Flight | None = None) -> None:
        if flight is not None:
            flight.kept, flight.short = True, False
        done = partial(self._kept, letter, flight, self._refusals_of(letter.src))
        self._store.keep(letter, self._quota, int(self._wall()), done)

    def _kept(self, letter: Letter, flight: Flight | None, refusals: Refusals | None, result: Kept) -> None:
        match result:
            case Kept.STORED | Kept.KNOWN:
                self._note_written(letter.src, letter.dst)
                if flight is not None:
                    flight.accepted = True
                    self._let_go(flight)
                self._accept(letter)
            case Kept.FULL | Kept.UNAVAILABLE:
                self._full(letter, flight, flight.refusals if flight else refusals, short=result is Kept.UNAVAILABLE)
            case Kept.NOBODY:
                self._refused(letter.src, letter.mid, Code.UNKNOWN_RECIPIENT)
        desk = self._desks.get(letter.dst)
        if desk is not None:
            self._pull(desk)

    def _full(self, letter: Letter, flight: Flight | None, refusals: Refusals | None, *, short: bool) -> None:
        """There is no room for a message. It is not refused while its recipient may have it: that is for him to say.

        :param short: whether it is the disk that has none.
        """
        desk = self._desks.get(letter.dst)
        if flight is not None and flight.gone:
            self._accept(letter)
            return
        if flight is not None and desk is not None and desk.holds(flight):
            now = self._clock()
            flight.full = now if flight.full is None else flight.full
            flight.kept = False
            if now - flight.full < FULL_WAIT and flight.letter.inner:  # or else there is nothing to try it with
                flight.short = short
                desk.short = desk.short or short
                self._due.append((now + ACK_WAIT, flight))
            elif short:
                self._refuse_given(desk, letter.src)
            else:
                flight.kept = flight.refused = True
                desk.let_go(flight)
                self._refused(letter.src, letter.mid, Code.MAILBOX_FULL)
        elif short:
            if desk is not None:
                self._refuse_given(desk, letter.src)
            self._refuse(letter, refusals)
        else:
            self._refused(letter.src, letter.mid, Code.MAILBOX_FULL)

    def _refuse_given(self, desk: Desk, src: str) -> None:
        """Refuse all of one sender that was given and that no mailbox has, in its order, for want of room on the disk.

        What is refused with or behind one of them must not be kept before it.
        """
        for flight in [*desk.flights.values()]:
            if flight.letter.src == src and not (flight.accepted or flight.refused or flight.gone):
                flight.full = -inf  # or, where the mailbox is being asked, with its answer
                if not flight.kept:
                    flight.kept = flight.refused = True
                    flight.short = False
                    desk.let_go(flight)
                    self._refuse(flight.letter, flight.refusals)

    def _refuse(self, letter: Letter, refusals: Refusals | None) -> None:
        """Refuse a message for want of room on the disk.

        :param refusals: of the connection on which it came. On another it has not come yet, nor what is behind it.
        """
        if refusals is not None:
            refusals.add(letter.dst, letter.mid, self._clock())
        self._refused(letter.src, letter.mid, Code.UNAVAILABLE)

    def _accept(self, letter: Letter) -> None:
        refusals = self._refusals_of(letter.src)
        if refusals is not None:
            refusals.accept(letter.dst, letter.mid)
        self._accepted(letter.src, letter.mid)

    def _refusals_of(self, src: str) -> Refusals | None:
        desk = self._desks.get(src)
        return None if desk is None else desk.refusals

    def _pull(self, desk: Desk) -> None:
        """Give what waits in the mailbox, as far as there is room."""
        while desk.behind and not desk.pulling and (room := self._room(desk)):
            # From here on, whatever is kept sets ``behind`` again.
            desk.behind, desk.pulling, desk.asking = False, True, True
            since = self._wall() - self._quota.life
            done = Asked(partial(self._waiting, desk, room), partial(desk.reader.close, Code.INTERNAL))
            self._store.waiting(desk.reader.id, desk.cursor, room, since, done)
            desk.asking = False

    def _waiting(self, desk: Desk, room: int, letters: Sequence[tuple[int, Letter]]) -> None:
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

    def _let_go(self, flight: Flight) -> None:
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
