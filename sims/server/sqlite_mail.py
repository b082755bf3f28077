"""The server's mailboxes in SQLite, synchronously: letters, what is remembered of them, and running totals.

A letter's body is masked with a key of its own (:mod:`sims.server.sqlite_people`), which leaves at the beginning of its
table, ``MARGIN`` rows behind the oldest letter of which anything is known. This is no protection from whoever reads the
file while the letter waits.
"""

from __future__ import annotations

import os
import sqlite3
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from itertools import takewhile
from typing import NamedTuple, TypeVar

from sims.server.interfaces import Kept, Letter, Quota
from sims.server.memory import MAX_MIDS
from sims.server.sqlite_people import GONE, PeopleTables, masked

T = TypeVar("T")

#: Rows that one statement writes or looks for at most. Python's threads change places at every step of a statement.
ROWS = 64
#: So many mailboxes' totals are remembered.
MAX_BOXES = 20_000
#: Rows of keys that stay between those that leave and those that are in use: more than three pages hold.
MARGIN = 2000


class _Box:
    """What a mailbox holds: messages and bytes, of each sender (by number) too; how many mids are known to it."""

    __slots__ = ("messages", "mids", "senders", "size")

    def __init__(self, senders: dict[int, tuple[int, int]], mids: int) -> None:
        self.senders = senders
        self.messages = sum(messages for messages, _ in senders.values())
        self.size = sum(size for _, size in senders.values())
        self.mids = mids

    def add(self, src: int, messages: int, size: int) -> None:
        before, taken = self.senders.get(src, (0, 0))
        self.messages += messages
        self.size += size
        if before + messages:
            self.senders[src] = before + messages, taken + size
        else:
            self.senders.pop(src, None)


class _Row(NamedTuple):
    """A letter that is about to be written; ``at``, which of those that were asked for."""

    at: int
    number: int
    dst: int
    src: int
    mid: bytes
    key: bytes
    body: bytes
    time: int
    life: float


class MailTables(PeopleTables):
    """Mailboxes."""

    def __init__(self, connection: sqlite3.Connection, entropy: Callable[[int], bytes] = os.urandom) -> None:
        super().__init__(connection, entropy)
        self._boxes: OrderedDict[int, _Box] = OrderedDict()
        self._ids: dict[int, str] = {}
        # What is to be added to the totals in the tables: by recipient and sender; to the mids, by recipient.
        self._totals: dict[tuple[int, int], tuple[int, int]] = {}
        self._mids: dict[int, int] = {}

    def forget(self) -> None:
        super().forget()
        self._boxes.clear()
        self._ids.clear()
        self._totals.clear()
        self._mids.clear()

    # --- keeping ---

    def keep(self, letter: Letter, quota: Quota, now: int) -> Kept:
        """Keep a message."""
        return self.keep_all([(letter, quota, now)])[0]

    def keep_all(self, asked: Sequence[tuple[Letter, Quota, int]]) -> list[Kept]:
        """Keep messages, each as if those before it were kept already."""
        results = [Kept.STORED] * len(asked)
        batch: list[_Row] = []
        for at, (letter, quota, now) in enumerate(asked):
            dst = self._number_of(letter.dst)
            if dst is None:
                results[at] = Kept.NOBODY
                continue
            src = self._source(letter.src)
            box = self._box(dst)
            size = len(letter.inner)
            if not self._has_room(box, dst, src, size, quota):
                self._insert(batch, results)  # some may be known, and take no room
                batch = []
                refused = self._crowded(dst, src, letter, quota, now)
                if refused is not None:
                    results[at] = refused
                    continue
            self._newest += 1
            key = self._key()
            body = masked(key, letter.inner)
            batch.append(_Row(at, self._newest, dst, src, letter.mid, key, body, now, quota.life))
            self._count(dst, src, 1, size, 1)
            if len(batch) == ROWS:
                self._insert(batch, results)
                batch = []
        self._insert(batch, results)
        return results

    def _crowded(self, dst: int, src: int, letter: Letter, quota: Quota, now: int) -> Kept | None:
        """What becomes of a message for which there seems to be no room; None if there is, looked at closely."""
        known = self._run(
            "select 1 from letters where dst = ? and src = ? and mid = ? and time > ?",
            (dst, src, letter.mid, now - quota.life),
        ).fetchone()
        if known:
            return Kept.KNOWN
        rows = self._run(
            "select l.number, l.dst, l.src, length(b.body) from letters l cross join bodies b using (number)"
            " where l.dst = ? and l.gone = 0 and l.time <= ? order by l.number",
            (dst, now - quota.life),
        ).fetchall()
        self._erase(rows)
        return None if self._has_room(self._box(dst), dst, src, len(letter.inner), quota) else Kept.FULL

    def _has_room(self, box: _Box, dst: int, src: int, size: int, quota: Quota) -> bool:
        messages, taken = box.senders.get(src, (0, 0))
        messages += 1
        taken += size
        if box.messages + 1 > quota.messages or box.size + size > quota.size:
            return False
        if messages > quota.sender_messages or taken > quota.sender_size:
            return False
        if messages <= quota.stranger_messages and taken <= quota.stranger_size:
            return True
        return self._run("select 1 from written where owner = ? and other = ?", (dst, src)).fetchone() is not None

    def _insert(self, batch: Sequence[_Row], results: list[Kept]) -> None:
        for rows in _pieces(batch):
            values = [value for row in rows for value in (row.number, row.dst, row.src, row.time, 0, row.mid)]
            statement = f"insert into letters values {_marks(len(rows), 6)} on conflict (dst, src, mid) do nothing"  # noqa: S608
            stored: Sequence[_Row] = rows
            if self._run(statement, values).rowcount != len(rows):
                stored = [row for row in rows if self._is_new(row, results)]
            if stored:
                bodies = [value for row in stored for value in (row.number, row.body)]
                keys = [value for row in stored for value in (row.number, row.key)]
                self._run(f"insert into bodies values {_marks(len(stored), 2)}", bodies)  # noqa: S608
                self._run(f"insert into keys values {_marks(len(stored), 2)}", keys)  # noqa: S608

    def _is_new(self, row: _Row, results: list[Kept]) -> bool:
        """Whether a letter was written, where not all were; what is in its way and has expired makes place."""
        if self._run("select 1 from letters where number = ?", (row.number,)).fetchone():
            return True
        name = (row.dst, row.src, row.mid)
        old, time, gone = self._run(
            "select number, time, gone from letters where dst = ? and src = ? and mid = ?", name
        ).fetchone()
        if time > row.time - row.life:
            results[row.at] = Kept.KNOWN
            self._count(row.dst, row.src, -1, -len(row.body), -1)
            return False
        if not gone:
            size = self._run("select length(body) from bodies where number = ?", (old,)).fetchone()[0]
            self._erase([(old, row.dst, row.src, size)])
        self._run("delete from letters where number = ?", (old,))
        self._count(row.dst, row.src, 0, 0, -1)
        self._run("insert into letters values (?, ?, ?, ?, 0, ?)", (row.number, row.dst, row.src, row.time, row.mid))
        return True

    # --- what waits, and what is taken ---

    def waiting(self, owner: str, after: int, most: int, since: float) -> list[tuple[int, Letter]]:
        """The oldest messages for somebody."""
        rows = self._run(
            "select l.number, l.src, l.mid, k.key, b.body from letters l cross join keys k using (number)"
            " cross join bodies b using (number)"
            " where l.dst = ? and l.gone = 0 and l.number > ? and l.time > ? order by l.number limit ?",
            (self._number_of(owner), after, since, most),
        ).fetchall()
        return [
            (number, Letter(self._id_of(src), owner, mid, masked(key, body))) for number, src, mid, key, body in rows
        ]

    def acknowledge(self, owner: str, letters: Sequence[tuple[str, bytes]]) -> None:
        """The owner has these."""
        self.acknowledge_all([(owner, letters)])

    def acknowledge_all(self, asked: Sequence[tuple[str, Sequence[tuple[str, bytes]]]]) -> None:
        """Several owners have these."""
        names = []
        for owner, letters in asked:
            dst = self._number_of(owner)
            for id, mid in letters if dst is not None else ():
                person = self._person(id)
                numbers = person.before if person.account is None else (*person.before, person.account)
                names += [(dst, src, mid) for src in numbers]
        for some in _pieces(names):
            rows = self._run(
                "select l.number, l.dst, l.src, length(b.body) from letters l cross join bodies b using (number)"  # noqa: S608
                f" where (l.dst, l.src, l.mid) in (values {_marks(len(some), 3)}) and l.gone = 0",
                [value for name in some for value in name],
            ).fetchall()
            self._erase(rows)

    def written(self, owner: str, to: str) -> None:
        """Note that somebody has written to somebody."""
        number, other = self._number_of(owner), self._number_of(to)
        if number is not None and other is not None:
            self._run("insert into written (owner, other) values (?, ?) on conflict do nothing", (number, other))

    # --- time ---

    def expire(self, before: float, most: int = 256) -> bool:
        """Forget the oldest letters and mids that were accepted then or earlier; at most so many.

        :returns: whether there may be more.
        """
        rows = self._run(
            "select l.number, l.dst, l.src, l.time, l.gone, length(b.body) from letters l"
            " left join bodies b using (number) order by l.number limit ?",
            (most,),
        ).fetchall()
        old = [*takewhile(lambda row: row[3] <= before, rows)]
        self._erase([(number, dst, src, size) for number, dst, src, _, gone, size in old if not gone])
        if old:
            self._run("delete from letters where number <= ?", (old[-1][0],))
            for _, dst, *_ in old:
                self._count(dst, 0, 0, 0, -1)
        (oldest,) = self._run("select min(number) from letters").fetchone()
        oldest = self._newest + 1 if oldest is None else oldest
        self._run(
            "delete from keys where number in (select number from keys where number < ? order by number limit ?)",
            (oldest - MARGIN, 2 * most),
        )
        for (number,) in self._run("select number from departed where last < ? limit ?", (oldest, most)).fetchall():
            self._run("delete from fetches where fetcher = ?", (number,))
            self._run("delete from departed where number = ?", (number,))
            self._people.clear()
            self._ids.pop(number, None)
        return len(old) == most

    # --- within ---

    def _erase(self, rows: Sequence[tuple[int, int, int, int]]) -> None:
        """Forget the bodies of letters: their numbers, recipients and senders, and bytes."""
        for some in _pieces(rows):
            numbers = [row[0] for row in some]
            which = f"where number in ({','.join('?' * len(some))})"
            self._run(f"update keys set key = ? {which}", [GONE, *numbers])  # noqa: S608
            self._run(f"delete from bodies {which}", numbers)  # noqa: S608
            self._run(f"update letters set gone = 1 {which}", numbers)  # noqa: S608
            for _, dst, src, size in some:
                self._count(dst, src, -1, -size, 0)

    def _count(self, dst: int, src: int, messages: int, size: int, mids: int) -> None:
        box = self._boxes.get(dst)
        if box is not None:
            box.mids += mids
        if messages or size:
            before, taken = self._totals.get((dst, src), (0, 0))
            self._totals[dst, src] = before + messages, taken + size
            if box is not None:
                box.add(src, messages, size)
        if mids:
            self._mids[dst] = self._mids.get(dst, 0) + mids

    def flush(self) -> None:
        """Write the totals."""
        totals, self._totals = self._totals, {}
        mids, self._mids = self._mids, {}
        for some in _pieces([(*pair, *change) for pair, change in totals.items()]):
            self._run(
                f"insert into pairs values {_marks(len(some), 4)} on conflict do update"  # noqa: S608
                " set messages = messages + excluded.messages, size = size + excluded.size",
                [value for row in some for value in row],
            )
        for pairs in _pieces([pair for pair, (messages, _) in totals.items() if messages <= 0]):
            self._run(
                f"delete from pairs where (dst, src) in (values {_marks(len(pairs), 2)}) and messages = 0",  # noqa: S608
                [value for pair in pairs for value in pair],
            )
        for dst, change in mids.items():
            if change < 0:  # maybe of one that is no mailbox any more
                self._run("update boxes set mids = mids + ? where dst = ?", (change, dst))
        for boxes in _pieces([row for row in mids.items() if row[1] > 0]):
            self._run(
                f"insert into boxes values {_marks(len(boxes), 2)} on conflict do update"  # noqa: S608
                " set mids = mids + excluded.mids",
                [value for row in boxes for value in row],
            )
        for dst, change in mids.items():
            if change > 0:
                self._trim_mids(dst)

    def _trim_mids(self, dst: int) -> None:
        """Of one mailbox, only the newest mids are remembered."""
        box = self._boxes.get(dst)
        if box is None or box.mids <= MAX_MIDS:
            return
        oldest = "select number from letters where dst = ? and gone = 1 order by number limit ?"
        found = self._run(f"delete from letters where number in ({oldest})", (dst, box.mids - MAX_MIDS))  # noqa: S608
        box.mids -= found.rowcount
        self._run("update boxes set mids = mids - ? where dst = ?", (found.rowcount, dst))

    def _box(self, dst: int) -> _Box:
        box = self._boxes.get(dst)
        if box is None:
            self.flush()
            rows = self._run("select src, messages, size from pairs where dst = ?", (dst,))
            senders = {src: (messages, size) for src, messages, size in rows}
            mids = self._run("select mids from boxes where dst = ?", (dst,)).fetchone()
            box = self._boxes[dst] = _Box(senders, mids[0] if mids else 0)
            if len(self._boxes) > MAX_BOXES:
                self._boxes.popitem(last=False)
        else:
            self._boxes.move_to_end(dst)
        return box

    def _id_of(self, number: int) -> str:
        found = self._ids.get(number)
        if found is None:
            (found,) = self._run(
                "select id from accounts where number = ?1 union all select id from departed where number = ?1",
                (number,),
            ).fetchone()
            if len(self._ids) >= MAX_BOXES:
                self._ids.clear()
            self._ids[number] = found
        return found


def _marks(rows: int, columns: int) -> str:
    return ",".join([f"({','.join('?' * columns)})"] * rows)


def _pieces(rows: Sequence[T]) -> Iterator[Sequence[T]]:
    """Some rows at a time, in few sizes: SQLite's statements stay prepared."""
    start, size = 0, ROWS
    while start < len(rows):
        while size > len(rows) - start:
            size //= 2
        yield rows[start : start + size]
        start += size
