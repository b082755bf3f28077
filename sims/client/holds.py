"""To whom nothing is written for now, since the server has refused something for them (protocol.rst, "Choices").

What was sent behind a message that is refused is refused as well, and all of it is sent again in its order: so nothing
new may go to that person before, and nothing again before the server has answered all that is under way to them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

from sims.client.store import Letter

#: Seconds until what was refused is sent again, at first and at most.
AGAIN_FIRST = 5.0
AGAIN_MOST = 300.0


class _Hold:
    """One person's.

    :ivar until: its end, on the clock; None once that has come, and before anything is accepted or refused.
    :ivar delay: how long it was meant to be, seconds: the next in a row is twice as long.
    :ivar texts: whether texts wait as well.
    """

    __slots__ = ("delay", "texts", "until")

    def __init__(self) -> None:
        self.until: float | None = None
        self.delay = AGAIN_FIRST / 2
        self.texts = False


class Holds:
    """Those of one connection, with what is under way on it.

    :param clock: seconds, never backwards.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._under_way: dict[bytes, str] = {}  # mids of letters, and to whom they are
        self._counts: Counter[str] = Counter()
        self._held: dict[str, _Hold] = {}

    def __repr__(self) -> str:
        return f"<{len(self._held)} held, {len(self._under_way)} under way>"

    def clear(self) -> None:
        """The connection is gone."""
        self._under_way.clear()
        self._counts.clear()
        self._held.clear()

    # --- what is under way --------------------------------------------------------------------------------------------

    def is_unanswered(self, mid: bytes | None) -> bool:
        """Whether the server still has to answer to a message of this mid."""
        return mid in self._under_way

    def is_under_way(self, letter: Letter) -> bool:
        """Whether it is about to be written, or was and is not answered."""
        return letter.mid in self._under_way

    def sent(self, letter: Letter) -> None:
        """It is about to be written."""
        self._under_way[letter.mid] = letter.to
        self._counts[letter.to] += 1

    def answered(self, mid: bytes) -> bool:
        """The server has answered something, or it will not be written; gives whether it was a letter."""
        to = self._under_way.pop(mid, None)
        if to is not None:
            self._counts[to] -= 1
            if not self._counts[to]:
                del self._counts[to]
        return to is not None

    # --- who is held --------------------------------------------------------------------------------------------------

    def stop(self, letter: Letter) -> bool:
        """Whether it is not to be written now."""
        hold = self._held.get(letter.to)
        return hold is not None and hold.until is not None and (hold.texts or letter.is_quiet)

    def refuse(self, letter: Letter, after: float | None = None, *, texts: bool = True) -> None:
        """The server has refused a letter for now. What is refused together is one refusal.

        :param after: not to be sent again before so many seconds, if the server says so.
        :param texts: whether that holds for texts as well.
        """
        hold = self._held.setdefault(letter.to, _Hold())
        least = min(after or 0.0, AGAIN_MOST)
        if hold.until is None:
            hold.delay = min(max(2 * hold.delay, least), AGAIN_MOST)
            hold.until, hold.texts = self._clock() + hold.delay, texts
        else:
            hold.until, hold.texts = max(hold.until, self._clock() + least), hold.texts or texts

    def accept(self, person: str) -> None:
        """The server has accepted something for somebody, or nothing waits for them."""
        hold = self._held.get(person)
        if hold is not None and hold.until is None:
            del self._held[person]

    def free(self) -> set[str]:
        """Those whose time has come: what waits for them is to be sent now."""
        now = self._clock()
        free = {person for person, until in self._ends() if until <= now}
        for person in free:
            self._held[person].until = None
        return free

    @property
    def due(self) -> float | None:
        """When somebody's time comes, on the clock; without those for whom something is under way."""
        return min((until for _, until in self._ends()), default=None)

    def _ends(self) -> Iterable[tuple[str, float]]:
        for person, hold in self._held.items():
            if hold.until is not None and person not in self._counts:
                yield person, hold.until
