"""Texts that came, until they were shown and their senders told: a crash between the two loses neither."""

from __future__ import annotations

from collections.abc import Iterable

from sims.client.ledger import Ledger
from sims.client.store import Arrived

#: Seconds that a receipt waits for a session to go back on; of one sender, so many at most.
OWED_LIFE = 30 * 86_400
MOST_OWED = 1000


class Inbox:
    """What has come, and is not done with."""

    def __init__(self, rows: Iterable[Arrived], ledger: Ledger) -> None:
        self._ledger = ledger
        self._unshown: dict[tuple[str, bytes], Arrived] = {}
        self._owed: dict[str, dict[bytes, Arrived]] = {}  # sender -> id of the text
        self._next = 1
        for row in sorted(rows, key=lambda row: row.number):
            self._index(row)
            self._next = row.number + 1

    def __repr__(self) -> str:
        return f"<{len(self._unshown)} texts to show>"

    def _index(self, row: Arrived) -> None:
        if row.text is not None:
            self._unshown[row.sender, row.id] = row
        if row.owed:
            owed = self._owed.setdefault(row.sender, {})
            owed[row.id] = row
            if len(owed) > MOST_OWED:
                self.sent([next(iter(owed.values()))])

    def add(self, row: Arrived) -> None:
        """A text has come; it gets its number. One that came before has no text any more, and is owed a receipt."""
        known = self._owed.get(row.sender, {}).get(row.id)
        if row.text is None and known is not None:
            known.session = row.session  # it is told on the session that brought it last
            known.told = False
            self._ledger.arrived(known)
            return
        row.number = self._next
        self._next += 1
        self._ledger.arrived(row)
        self._index(row)

    def unshown(self) -> list[Arrived]:
        """What is to be shown still, in order."""
        return list(self._unshown.values())

    def shown(self, sender: str, number: bytes) -> bool:
        """It was shown; False, if nothing of the kind was waiting."""
        row = self._unshown.pop((sender, number), None)
        if row is None:
            return False
        row.text = None
        self._ledger.arrived(row, gone=not row.owed, urgent=False)
        return True

    @property
    def senders(self) -> list[str]:
        """Who is owed a receipt."""
        return list(self._owed)

    def owed(self, sender: str) -> dict[bytes, list[Arrived]]:
        """What somebody can be sent receipts for, by session."""
        found: dict[bytes, list[Arrived]] = {}
        for row in self._owed.get(sender, {}).values():
            if not row.told or row.text is None:
                found.setdefault(row.session, []).append(row)
        return found

    def sent(self, rows: Iterable[Arrived]) -> None:
        """Their receipts are on their way, or will never be."""
        for row in rows:
            owed = self._owed.get(row.sender, {})
            if owed.get(row.id) is row:
                del owed[row.id]
            if not owed:
                self._owed.pop(row.sender, None)
            row.owed = False
            self._ledger.arrived(row, gone=row.text is None)

    def told(self, rows: Iterable[Arrived]) -> None:
        """Their senders hear that they have come; that they were read is told when they are shown."""
        for row in rows:
            row.told = True
            self._ledger.arrived(row)

    def expire(self, now: int) -> None:
        """Owe nothing any more for what came too long ago."""
        rows = [row for owed in self._owed.values() for row in owed.values()]
        self.sent([row for row in rows if now - row.time >= OWED_LIFE])

    def delete(self, sender: str) -> None:
        """No text of somebody is kept until it is shown."""
        for row in [row for row in self._unshown.values() if row.sender == sender]:
            self.shown(row.sender, row.id)

    def forget(self, sender: str) -> None:
        """Nothing is owed to somebody who is known no more."""
        self.sent(list(self._owed.get(sender, {}).values()))
