"""What somebody was refused for want of room on the disk, so that nothing overtakes it (protocol.rst, "Delivery")."""

from __future__ import annotations

#: Seconds after a refusal in which nothing that was sent behind it is taken, unless it comes again before.
BEHIND = 10.0
#: Seconds after the first of them in which that ends, though each was soon followed by the next.
BEHIND_MOST = 300.0
#: So many recipients are noted of one sender, and so many messages to one of them: all else is as if never refused.
RECIPIENTS = 1000
MESSAGES = 100


class _Note:
    __slots__ = ("first", "last", "mids")

    def __init__(self, now: float) -> None:
        self.first = self.last = now  # when something was refused
        self.mids: dict[bytes, None] = {}


class Refusals:
    """Those of one connection, by recipient. All times are seconds on a clock that never goes backwards."""

    def __init__(self) -> None:
        self._notes: dict[str, _Note] = {}

    def __len__(self) -> int:
        return len(self._notes)

    def add(self, to: str, mid: bytes, now: float) -> None:
        """A message was refused."""
        note = self._notes.get(to)
        if note is None:
            if len(self._notes) >= RECIPIENTS:
                self._notes = {one: note for one, note in self._notes.items() if not self._is_over(note, now)}
            if len(self._notes) >= RECIPIENTS:
                return
            note = self._notes[to] = _Note(now)
        note.last = now
        if len(note.mids) < MESSAGES:
            note.mids[mid] = None

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
        del self._notes[to]
        return False

    def accept(self, to: str, mid: bytes) -> None:
        """A message is accepted, though it was refused before: it does not have to come again."""
        note = self._notes.get(to)
        if note is not None and mid in note.mids:
            del note.mids[mid]
            if not note.mids:
                del self._notes[to]

    def forget(self, to: str) -> None:
        """There is no such recipient any more."""
        self._notes.pop(to, None)

    def _is_over(self, note: _Note, now: float) -> bool:
        return now >= min(note.last + BEHIND, note.first + BEHIND_MOST)
