"""What somebody was refused for want of room on the disk, so that nothing overtakes it (protocol.rst, "Delivery")."""

from __future__ import annotations

#: Seconds after a refusal in which nothing that was sent behind it is taken, unless it comes again before.
BEHIND = 10.0
#: Seconds after the first of them in which that ends, though each was soon followed by the next.
BEHIND_MOST = 300.0
#: So many recipients are noted of one sender: all others are as if never refused anything.
RECIPIENTS = 1000
#: So many messages are, to all of them; of the others is known only that there are some.
MESSAGES = 10_000


class _Note:
    __slots__ = ("first", "last", "mids", "more")

    def __init__(self, now: float) -> None:
        self.first = self.last = now  # when something was refused
        self.mids: dict[bytes, None] = {}
        self.more = False  # whether others than these were refused, too


class Refusals:
    """Those of one connection, by recipient. All times are seconds on a clock that never goes backwards."""

    def __init__(self) -> None:
        self._notes: dict[str, _Note] = {}
        self._noted = 0  # messages, in all of them

    def __len__(self) -> int:
        return len(self._notes)

    def add(self, to: str, mid: bytes, now: float) -> None:
        """A message was refused."""
        note = self._notes.get(to)
        if note is None:
            if len(self._notes) >= RECIPIENTS or self._noted >= MESSAGES:
                for over in [one for one, note in self._notes.items() if self._is_over(note, now)]:
                    self.forget(over)
            if len(self._notes) >= RECIPIENTS:
                return
            note = self._notes[to] = _Note(now)
        note.last = now
        if mid in note.mids:
            return
        if self._noted < MESSAGES:
            note.mids[mid] = None
            self._noted += 1
        else:
            note.more = True

    def stop(self, to: str, mid: bytes, now: float) -> bool:
        """Whether a message that has come is to be refused, because one before it was.

        When any of those comes again, its sender has heard of it, and of what he had sent behind it: from then on all
        is as if nothing had been refused. So it is when he never does, after a while.
        """
        note = self._notes.get(to)
        if note is None:
            return False
        if mid not in note.mids and not self._is_over(note, now):
            return True
        self.forget(to)
        return False

    def accept(self, to: str, mid: bytes) -> None:
        """A message is accepted, though it was refused before: it does not have to come again.

        When none has to, all is as if nothing had been refused.
        """
        note = self._notes.get(to)
        if note is not None and mid in note.mids:
            del note.mids[mid]
            self._noted -= 1
            if not note.mids and not note.more:
                self.forget(to)

    def forget(self, to: str) -> None:
        """There is no such recipient any more, or nothing to be noted of him."""
        note = self._notes.pop(to, None)
        if note is not None:
            self._noted -= len(note.mids)

    def _is_over(self, note: _Note, now: float) -> bool:
        return now >= min(note.last + BEHIND, note.first + BEHIND_MOST)
