"""The server's mailboxes in SQLite, synchronously: letters, what is remembered of them, and running totals.

A letter's body is masked with a key of its own (:mod:`sims.server.sqlite_people`), which leaves at the beginning of its
table, ``MARGIN`` rows behind the oldest letter of which anything is known. This is no protection from whoever reads the
file while the letter waits.
"""

from __future__ import annotations

import os
import sqlite3
from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import takewhile
from math import inf
from typing import Any

from sims.crypto.primitives import TAG_SIZE, aead
from sims.server.interfaces import Kept, Letter, Quota
from sims.server.sqlite_people import GONE, KEY_SIZE, masked
from sims.server.sqlite_totals import FRESH, MAX_BOXES, Box, Name, TotalTables, marks, pieces

#: Rows of keys that stay between those that leave and those that are in use: more than three pages hold.
MARGIN = 2000

#: There is one message to a key.
_NONCE = bytes(12)


def _masked(key: bytes | bytearray, data: bytes) -> bytearray:
    """As :func:`masked`, in half the time: with the key stream of AES-256-GCM, whose tag nobody needs."""
    found = bytearray(len(data) + TAG_SIZE)
    aead("AES256_GCM", key).encrypt_into(_NONCE, data, None, found)
    del found[len(data) :]
    return found


#: How bodies are masked, by the number that stands with their letters; the first, those of version 1 of the file.
_MASKS = (masked, _masked)


class MailTables(TotalTables):
    """Mailboxes."""

    def __init__(self, connection: sqlite3.Connection, entropy: Callable[[int], bytes] = os.urandom) -> None:
        super().__init__(connection, entropy)
        self._ids: dict[int, str] = {}

    def forget(self) -> None:
        super().forget()
        self._ids.clear()

    # --- keeping ---

    def keep(self, letter: Letter, quota: Quota, now: int) -> Kept:
        """Keep a message."""
        return self.keep_all([(letter, quota, now)])[0]

    def keep_all(self, asked: Sequence[tuple[Letter, Quota, int]]) -> list[Kept]:
        """Keep messages, each as if those before it were kept already."""
        if len(self._fresh) >= FRESH:
            self.file()
        results = [Kept.STORED] * len(asked)
        names = self._names(asked)
        known = self._known(self._seen.among([name for name in names if name is not None]))
        # What is not text is given to the database as bytearrays: for bytes, its module looks for adapters each time.
        random = bytearray(self._entropy(KEY_SIZE * len(asked)))
        letters: list[Any] = []
        bodies: list[Any] = []
        keys: list[Any] = []
        fresh, fresh_boxes = self._fresh, self._fresh_boxes
        boxes: dict[int, Box] = {}
        kept: list[Name] = []
        for at, (name, (letter, quota, now)) in enumerate(zip(names, asked, strict=True)):
            if name is None:
                results[at] = Kept.NOBODY
                continue
            dst, src, mid = name
            inner = letter.inner
            size = len(inner)
            box = boxes.get(dst)
            if box is None:
                box = boxes[dst] = self._box(dst)
            if name in fresh or (known and name in known) or not self._has_room(box, dst, src, size, quota):
                self._write(letters, bodies, keys)
                letters, bodies, keys = [], [], []
                refused = self._crowded(name, size, quota, now)
                if refused is not None:
                    results[at] = refused
                    boxes.clear()
                    continue
                boxes = {dst: (box := self._box(dst))}
            self._newest = number = self._newest + 1
            key = random[at * KEY_SIZE : (at + 1) * KEY_SIZE]
            letters += (number, dst, src, now, bytearray(mid))
            bodies += (number, _masked(key, inner))
            keys += (number, key)
            fresh[name] = number
            fresh_boxes[dst].append(number)
            box.take(src, size)
            kept.append(name)
        self._write(letters, bodies, keys)
        self._seen.add(kept)
        return results

    def _names(self, asked: Sequence[tuple[Letter, Quota, int]]) -> list[Name | None]:
        """What letters are known by; None if there is no account of the recipient's id."""
        names: list[Name | None] = []
        ahead, person, source = len(asked), self._person, self._source
        for (src, dst, mid, _), _, _ in asked:
            to = person(dst).account
            names.append(None if to is None else (to, source(src, ahead), mid))
        return names

    def _known(self, names: Sequence[Name]) -> set[Name]:
        """Which of these are filed, expired or not."""
        found: set[Name] = set()
        for some in pieces(names):
            rows = self._run(
                f"with named (dst, src, mid) as (values {marks(len(some), 3)})"  # noqa: S608
                " select l.dst, l.src, l.mid from named n cross join letters l"
                " on l.dst = n.dst and l.src = n.src and l.mid = n.mid and l.filed = 1",
                [value for name in some for value in name],
            )
            found.update(rows)
        return found

    def _crowded(self, name: Name, size: int, quota: Quota, now: int) -> Kept | None:
        """What becomes of a message that may be known, or have no room; None if, looked at closely, it may be kept."""
        dst, src, _ = name
        number = self._fresh.get(name)
        columns = "l.number, l.time, l.gone, length(b.body) from letters l left join bodies b using (number)"
        if number is not None:
            known = self._run(f"select {columns} where l.number = ?", (number,)).fetchone()
        else:
            query = f"select {columns} where l.dst = ? and l.src = ? and l.mid = ? and l.filed = 1"
            known = self._run(query, name).fetchone()
        if known is not None:
            number, time, gone, old_size = known
            if time > now - quota.life:
                return Kept.KNOWN
            if not gone:
                self._erase([(number, dst, src, old_size)])
            self._run("delete from letters where number = ?", (number,))
            self._discount(number, dst, src, mids=1)
            self._fresh.pop(name, None)
        # What is not filed came after the last filing: it is no older than a minute, but for a disk without room.
        rows = self._run(
            "select l.number, l.dst, l.src, length(b.body) from letters l cross join bodies b using (number)"
            " where l.dst = ? and l.gone = 0 and l.filed = 1 and l.time <= ? order by l.number",
            (dst, now - quota.life),
        ).fetchall()
        self._erase(rows)
        return None if self._has_room(self._box(dst), dst, src, size, quota) else Kept.FULL

    def _has_room(self, box: Box, dst: int, src: int, size: int, quota: Quota) -> bool:
        messages, taken = box.senders.get(src, (0, 0))
        messages += 1
        taken += size
        most, largest, _, stranger_most, stranger_largest = quota
        if box.messages + 1 > most or box.size + size > largest:
            return False
        if messages > most / 4 or taken > largest / 4:  # as the quota says; it is asked for each message
            return False
        if messages <= stranger_most and taken <= stranger_largest:
            return True
        return self._run("select 1 from written where owner = ? and other = ?", (dst, src)).fetchone() is not None

    def _write(self, letters: list[Any], bodies: list[Any], keys: list[Any]) -> None:
        """Write letters: the values of the rows of three tables, one behind the other."""
        self._insert("letters (number, dst, src, time, mid, gone, filed, mask)", "(?,?,?,?,?,0,0,1)", 5, letters)
        self._insert("bodies", "(?,?)", 2, bodies)
        self._insert("keys", "(?,?)", 2, keys)

    def _insert(self, table: str, row: str, columns: int, values: list[Any]) -> None:
        for some in pieces(values, columns):
            self._run(f"insert into {table} values {','.join([row] * (len(some) // columns))}", some)  # noqa: S608

    # --- what waits, and what is taken ---

    def waiting(self, owner: str, after: int, most: int, since: float) -> list[tuple[int, Letter]]:
        """The oldest messages for somebody."""
        dst = self._number_of(owner)
        if dst is None:
            return []
        query = (
            "select l.number, l.src, l.mid, l.mask, k.key, b.body from letters l cross join keys k using (number)"
            " cross join bodies b using (number) where l.gone = 0 and l.time > ? and {} order by l.number limit ?"
        )
        which = "l.filed = 1 and l.dst = ? and l.number > ?"
        rows = self._run(query.format(which), (since, dst, after, most)).fetchall()
        fresh = self._not_filed(dst) if len(rows) < most else []
        for some in pieces(fresh[bisect_right(fresh, after) :]):
            which = f"l.number in ({','.join('?' * len(some))})"
            rows += self._run(query.format(which), (since, *some, most - len(rows))).fetchall()
            if len(rows) == most:
                break
        return [
            (number, Letter(self._id_of(src), owner, mid, bytes(_MASKS[mask](key, body))))
            for number, src, mid, mask, key, body in rows
        ]

    def acknowledge(self, owner: str, letters: Sequence[tuple[str, bytes]]) -> None:
        """The owner has these."""
        self.acknowledge_all([(owner, letters)])

    def acknowledge_all(self, asked: Sequence[tuple[str, Sequence[tuple[str, bytes]]]]) -> None:
        """Several owners have these."""
        names: dict[Name, None] = {}  # whatever is named twice is erased and counted once
        for owner, letters in asked:
            dst = self._number_of(owner)
            if dst is not None:
                for id, mid in letters:
                    person = self._person(id)
                    numbers = person.before if person.account is None else (*person.before, person.account)
                    names |= dict.fromkeys((dst, src, mid) for src in numbers)
        columns = "l.number, l.dst, l.src, length(b.body) from"
        for fresh in pieces([number for name in names if (number := self._fresh.get(name)) is not None]):
            rows = self._run(
                f"select {columns} letters l cross join bodies b using (number)"
                f" where l.number in ({','.join('?' * len(fresh))}) and l.gone = 0",
                fresh,
            ).fetchall()
            self._erase(rows)
        for some in pieces([name for name in names if name not in self._fresh]):
            rows = self._run(
                # The cross joins say where to begin: with what is named, and not with all letters.
                f"with named (dst, src, mid) as (values {marks(len(some), 3)})"
                f" select {columns} named n cross join letters l"
                " on l.dst = n.dst and l.src = n.src and l.mid = n.mid and l.filed = 1"
                " cross join bodies b using (number) where l.gone = 0",
                [value for name in some for value in name],
            ).fetchall()
            self._erase(rows)

    def written(self, owner: str, to: str) -> None:
        """Note that somebody has written to somebody."""
        number, other = self._number_of(owner), self._number_of(to)
        if number is not None and other is not None:
            self._run("insert into written (owner, other) values (?, ?) on conflict do nothing", (number, other))

    # --- time ---

    def redate(self, by: float, now: float) -> None:
        """The clock was set, forward by so many seconds or back, to this: no letter is older thereby, or of the future.

        What seems to be older than it is would be dropped, and what seems to be of the future would stay for too long.
        """
        self._run("update letters set time = min(time + ?, ?)", (max(0, int(by)), int(now)))

    def expire(self, before: float, now: float = inf, most: int = 256) -> bool:
        """Forget the oldest letters and mids that were accepted then or earlier; at most so many.

        :param now: what seems to be of the future, from a clock that was wrong, is in nobody's way.
        :returns: whether there may be more.
        """
        self.file()
        rows = self._run(
            "select l.number, l.dst, l.src, l.time, l.gone, length(b.body) from letters l"
            " left join bodies b using (number) where l.time <= ? order by l.number limit ?",
            (now, most),
        ).fetchall()
        old = [*takewhile(lambda row: row[3] <= before, rows)]
        self._erase([(number, dst, src, size) for number, dst, src, _, gone, size in old if not gone])
        for some in pieces(old):
            which = f"where number in ({','.join('?' * len(some))})"
            self._run(f"delete from letters {which}", [row[0] for row in some])  # noqa: S608
        for number, dst, src, *_ in old:
            self._discount(number, dst, src, mids=1)
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

    def _forget_unfiled(self, dst: int) -> None:
        """Forget somebody's letters that are not filed, with their mids; others' are not filed for that."""
        for some in pieces(self._fresh_boxes.pop(dst, [])):
            which = f"number in ({','.join('?' * len(some))})"
            query = f"select number, dst, src, length(body) from letters join bodies using (number) where {which}"  # noqa: S608
            self._erase(self._run(query, some).fetchall())
            self._run(f"delete from letters where {which}", some)  # noqa: S608
        for name in [name for name in self._fresh if name[0] == dst]:
            del self._fresh[name]

    def _erase(self, rows: Sequence[tuple[int, int, int, int]]) -> None:
        """Forget the bodies of letters: their numbers, recipients and senders, and bytes."""
        for some in pieces(rows):
            numbers = [row[0] for row in some]
            which = f"where number in ({','.join('?' * len(some))})"
            self._run(f"update keys set key = ? {which}", [GONE, *numbers])  # noqa: S608
            self._run(f"delete from bodies {which}", numbers)  # noqa: S608
            self._run(f"update letters set gone = 1 {which}", numbers)  # noqa: S608
            for number, dst, src, size in some:
                self._discount(number, dst, src, size=size)

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
