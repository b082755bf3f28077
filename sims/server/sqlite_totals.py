"""What the server's mailboxes hold, in numbers, and which of their letters are filed; synchronously.

Letters are written at the end of their tables. To enter one in the indexes, and to add it to the totals, is to write
somewhere in the middle of four others: that is put off for the newest, :data:`FRESH` at most, and then done for all of
them at once. Whoever looks for a letter looks among those as well. They are the last of the table, those after
:meth:`TotalTables.last_filed`: what a process knows of them it can find again.
"""

from __future__ import annotations

import os
import sqlite3
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from sims.server.memory import MAX_MIDS
from sims.server.sqlite_people import PeopleTables

T = TypeVar("T")
#: What a letter is known by: the numbers of its recipient and its sender, and its mid.
Name = tuple[int, int, bytes]

#: Rows that one statement writes or looks for at most. Python's threads change places at every step of a statement.
ROWS = 64
#: So many letters, and those of one group more, are not filed.
FRESH = 16_384
#: So many mailboxes' totals are remembered.
MAX_BOXES = 20_000
#: So many letters are learned in one transaction, as long as there are some that are not.
LEARNED = 256
#: One bit of memory each; a power of two, and at least 8.
PLACES = 2**25


class Box:
    """What a mailbox holds: messages and bytes, of each sender (by number) too; how many mids are known to it."""

    __slots__ = ("messages", "mids", "senders", "size")

    def __init__(self, senders: dict[int, tuple[int, int]], mids: int) -> None:
        self.senders = senders
        self.messages = sum(messages for messages, _ in senders.values())
        self.size = sum(size for _, size in senders.values())
        self.mids = mids

    def take(self, src: int, size: int) -> None:
        """Count one message more."""
        messages, taken = self.senders.get(src, (0, 0))
        self.senders[src] = messages + 1, taken + size
        self.messages += 1
        self.size += size
        self.mids += 1

    def add(self, src: int, messages: int, size: int) -> None:
        """Count messages of a sender, or count them no longer."""
        before, taken = self.senders.get(src, (0, 0))
        self.messages += messages
        self.size += size
        if before + messages:
            self.senders[src] = before + messages, taken + size
        else:
            self.senders.pop(src, None)


class Seen:
    """Which letters may have been filed: where it says no, there is no need to look.

    Each has a place, which is that of others too: one in nine places is taken by 4 million. What has left stays, until
    the process ends.

    :ivar whole: whether it knows of all. Then what it does not know of was never kept, or has been forgotten.
    :ivar learned: the number of the newest letter that it has learned of in the order of their numbers.
    """

    __slots__ = ("_places", "learned", "whole")

    def __init__(self) -> None:
        self._places = bytearray(PLACES // 8)
        self.learned = 0
        self.whole = False

    def add(self, names: Iterable[Name]) -> None:
        """Some more."""
        places, mask = self._places, PLACES - 1
        for name in names:
            # The hash of bytes is another in every process: nobody can choose mids that all have one place.
            place = hash(name) & mask
            places[place >> 3] |= 1 << (place & 7)

    def among(self, names: Sequence[Name]) -> list[Name]:
        """Those that may have been filed."""
        if not self.whole:
            return [*names]
        places, mask = self._places, PLACES - 1
        return [name for name in names if places[(place := hash(name) & mask) >> 3] >> (place & 7) & 1]


class TotalTables(PeopleTables):
    """Mailboxes, in numbers. What the tables say of them is of the letters that are filed."""

    def __init__(self, connection: sqlite3.Connection, entropy: Callable[[int], bytes] = os.urandom) -> None:
        super().__init__(connection, entropy)
        self._boxes: OrderedDict[int, Box] = OrderedDict()
        # What is to be added to the totals in the tables: by recipient and sender; to the mids, by recipient.
        self._totals: dict[tuple[int, int], tuple[int, int]] = {}
        self._mids: dict[int, int] = {}
        # The newest letter that is filed, None while that is not known; the numbers of those after it. By recipient
        # they are in order, and there may be some that have left.
        self._filed: int | None = None
        self._fresh: dict[Name, int] = {}
        self._fresh_boxes: defaultdict[int, list[int]] = defaultdict(list)
        self._seen = Seen()

    def look(self) -> bool:
        changed = super().look()
        if changed:
            # Others may have kept something, under whichever number: one that was given away here and rolled back, one
            # that was used before and has left. All are read again.
            self._seen.learned, self._seen.whole = 0, False
        return changed

    def forget(self) -> None:
        super().forget()
        self._boxes.clear()
        self._totals.clear()
        self._mids.clear()
        self._filed = None
        self._fresh.clear()
        self._fresh_boxes.clear()

    # --- filing ---

    def begun(self) -> None:
        if self._filed is None:
            self._filed = self.last_filed()
            query = "select dst, src, mid, number from letters where number > ? order by number"
            for dst, src, mid, number in self._run(query, (self._filed,)):
                self._fresh[dst, src, mid] = number
                self._fresh_boxes[dst].append(number)
        if not self._seen.whole:
            self._learn()

    def _learn(self) -> None:
        """Learn of some letters more, from the oldest on. Those that are kept meanwhile are learned of at once."""
        query = "select number, dst, src, mid from letters where number > ? order by number limit ?"
        rows = self._run(query, (self._seen.learned, LEARNED)).fetchall()
        if rows:
            self._seen.add([row[1:] for row in rows])
            self._seen.learned = rows[-1][0]
        self._seen.whole = len(rows) < LEARNED

    def last_filed(self) -> int:
        """The number of the newest letter that is filed."""
        if self._filed is not None:
            return self._filed
        found = self._run(
            "select number from letters not indexed where number <= ? and filed = 1 order by number desc limit 1",
            (self._newest,),
        ).fetchone()
        return int(found[0]) if found else 0

    def file(self) -> None:
        """File all letters."""
        if not self._fresh:
            return
        self.flush()
        boxes = {dst: self._box(dst) for dst in self._fresh_boxes}
        pairs = {name[:2] for name in self._fresh}
        totals = [(dst, src, *boxes[dst].senders[src]) for dst, src in pairs if src in boxes[dst].senders]
        for some in pieces(totals):
            self._run(
                f"insert into pairs values {marks(len(some), 4)} on conflict do update"  # noqa: S608
                " set messages = excluded.messages, size = excluded.size",
                [value for row in some for value in row],
            )
        for mids in pieces([(dst, box.mids) for dst, box in boxes.items()]):
            self._run(
                f"insert into boxes values {marks(len(mids), 2)} on conflict do update set mids = excluded.mids",  # noqa: S608
                [value for row in mids for value in row],
            )
        self._run("update letters set filed = 1 where number > ?", (self._filed,))
        self._filed = self._newest
        self._fresh.clear()
        self._fresh_boxes.clear()
        for dst, box in boxes.items():
            self._trim_mids(dst, box)

    def _trim_mids(self, dst: int, box: Box) -> None:
        """Of one mailbox, only the newest mids are remembered."""
        if box.mids <= MAX_MIDS:
            return
        oldest = "select number from letters where dst = ? and gone = 1 and filed = 1 order by number limit ?"
        found = self._run(f"delete from letters where number in ({oldest})", (dst, box.mids - MAX_MIDS))  # noqa: S608
        box.mids -= found.rowcount
        self._run("update boxes set mids = mids - ? where dst = ?", (found.rowcount, dst))

    # --- counting ---

    def _box(self, dst: int) -> Box:
        box = self._boxes.get(dst)
        if box is None:
            self.flush()
            rows = self._run("select src, messages, size from pairs where dst = ?", (dst,))
            senders = {src: (messages, size) for src, messages, size in rows}
            mids = self._run("select mids from boxes where dst = ?", (dst,)).fetchone()
            box = self._boxes[dst] = Box(senders, mids[0] if mids else 0)
            for some in pieces(self._not_filed(dst)):
                fresh = self._run(
                    "select l.src, l.gone, length(b.body) from letters l left join bodies b using (number)"  # noqa: S608
                    f" where l.number in ({','.join('?' * len(some))})",
                    some,
                )
                for src, gone, size in fresh.fetchall():
                    box.mids += 1
                    if not gone:
                        box.add(src, 1, size)
            if len(self._boxes) > MAX_BOXES:
                self._boxes.popitem(last=False)
        else:
            self._boxes.move_to_end(dst)
        return box

    def _not_filed(self, dst: int) -> list[int]:
        """The numbers of somebody's letters that are not filed, in their order; there may be some that have left."""
        if self._filed is not None:
            return self._fresh_boxes.get(dst, [])
        rows = self._run(
            "select number from letters where number > ? and dst = ? order by number", (self.last_filed(), dst)
        )
        return [number for (number,) in rows]

    def _discount(self, number: int, dst: int, src: int, *, size: int | None = None, mids: int = 0) -> None:
        """A letter waits no longer, if it has a size, and so many of its mids are not known any more."""
        filed = number <= self.last_filed()
        box = self._boxes.get(dst)
        if box is not None:
            box.mids -= mids
        if size is not None:
            if box is not None:
                box.add(src, -1, -size)
            if filed:
                before, taken = self._totals.get((dst, src), (0, 0))
                self._totals[dst, src] = before - 1, taken - size
        if mids and filed:
            self._mids[dst] = self._mids.get(dst, 0) - mids

    def flush(self) -> None:
        """Write the totals."""
        if not self._totals and not self._mids:
            return
        totals, self._totals = self._totals, {}
        mids, self._mids = self._mids, {}
        for some in pieces([(*pair, *change) for pair, change in totals.items()]):
            self._run(
                f"insert into pairs values {marks(len(some), 4)} on conflict do update"  # noqa: S608
                " set messages = messages + excluded.messages, size = size + excluded.size",
                [value for row in some for value in row],
            )
        self.connection.executemany("delete from pairs where dst = ? and src = ? and messages = 0", [*totals])
        for dst, change in mids.items():  # maybe of one that is no mailbox any more
            self._run("update boxes set mids = mids + ? where dst = ?", (change, dst))


def marks(rows: int, columns: int) -> str:
    """What stands for the values of so many rows in a statement."""
    return ",".join([f"({','.join('?' * columns)})"] * rows)


def pieces(rows: Sequence[T], columns: int = 1) -> Iterator[Sequence[T]]:
    """Some rows at a time, in few sizes: SQLite's statements stay prepared.

    :param columns: of so many values each row consists, where they come one behind the other.
    """
    start, size = 0, ROWS
    while start < len(rows):
        while size * columns > len(rows) - start:
            size //= 2
        yield rows[start : start + size * columns]
        start += size * columns
