"""What the store in SQLite has answered and would answer again: who connects again need not wait for its thread.

It is right while nothing that was asked of the store is unanswered and no other process has changed anything: who uses
it sees to the one, and empties it for the other.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import TypeVar

from sims.server.interfaces import Account, Letter

K = TypeVar("K")
V = TypeVar("V")

#: Of so many people, those who were asked for last.
MOST = 10_000


class Known:
    """Accounts of those who have connected, and who of them had an empty mailbox then.

    Whatever is asked for is noted before it is answered: an answer is remembered only if nothing that would change it
    was asked for after that, or if the same was asked for again. What comes to that is right; if nothing does, all has
    to be forgotten.
    """

    def __init__(self) -> None:
        self._accounts: OrderedDict[str, Account | None] = OrderedDict()  # None: asked for
        self._boxes: OrderedDict[str, bool] = OrderedDict()  # True: empty; False: asked for

    def clear(self) -> None:
        """Forget everything."""
        self._accounts.clear()
        self._boxes.clear()

    # --- accounts ---

    def account(self, id: str, epoch: int | None) -> Account | None:
        """The account of somebody who connects, if it is known and this epoch is not higher than the one it has."""
        found = self._accounts.get(id)
        if found is None or (epoch is not None and (found.epoch is None or epoch > found.epoch)):
            return None
        return found

    def ask_account(self, id: str) -> None:
        """It is asked for."""
        _note(self._accounts, id, None)

    def learn_account(self, id: str, before: Account | None, epoch: int | None) -> None:
        """It was answered.

        :param before: as it was before this epoch was noted, or None if there is none.
        """
        if before is None:
            self._accounts.pop(id, None)
        elif id in self._accounts:
            seen = [one for one in (before.epoch, epoch) if one is not None]
            self._accounts[id] = before._replace(epoch=max(seen, default=None))

    def forget_account(self, id: str) -> None:
        """It is to be deleted."""
        self._accounts.pop(id, None)

    # --- mailboxes ---

    def is_empty(self, owner: str) -> bool:
        """Whether it is known that nothing waits for somebody."""
        return self._boxes.get(owner, False)

    def ask_box(self, owner: str) -> None:
        """All that waits is asked for."""
        _note(self._boxes, owner, False)

    def learn_box(self, owner: str, found: Sequence[tuple[int, Letter]]) -> None:
        """It was answered."""
        if found:
            self._boxes.pop(owner, None)
        elif owner in self._boxes:
            self._boxes[owner] = True

    def fill(self, owner: str) -> None:
        """Something is to be kept for somebody."""
        self._boxes.pop(owner, None)


def _note(notes: OrderedDict[K, V], key: K, value: V) -> None:
    notes[key] = value
    notes.move_to_end(key)
    if len(notes) > MOST:
        notes.popitem(last=False)
