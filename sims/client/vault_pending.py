"""What was committed to a vault and does not stand in its tables yet (docs/decisions/0015-changes-are-put-off.rst).

A change touches a dozen pages of the tables, each of which is encrypted and written as a whole; a row with all of it
touches three or four. So a change is committed as such a row, and some dozens of them are put into the tables at once:
a conversation that has changed with each is written once then, and a letter that has come and gone is not written.
"""

from __future__ import annotations

from copy import copy
from typing import Any

import msgspec
from msgspec import Struct

from sims.client import vault_history
from sims.client.history import Entry, Wanted
from sims.client.store import Change

#: So many changes, or bytes of them, are put into the tables at once; one that is larger is not put off.
MOST, MOST_BYTES, LARGE = 64, 512 * 1024, 64 * 1024

_encoder = msgspec.msgpack.Encoder()


class Row(Struct, array_like=True):
    """A change, or several, as bytes; None where something is to be forgotten."""

    values: dict[str, bytes | None] = {}
    people: dict[str, bytes | None] = {}
    conversations: dict[str, bytes | None] = {}
    letters: dict[int, bytes | None] = {}
    arrived: dict[int, bytes | None] = {}
    seen: list[tuple[str, bytes, int]] = []
    history: list[Entry] = []

    def __repr__(self) -> str:
        return "<row>"

    @classmethod
    def of(cls, change: Change) -> Row:
        """Of a change, but for what only deletes; what it holds may change afterwards."""
        return cls(
            dict(change.values),
            _encoded(change.people),
            dict(change.conversations),
            _encoded(change.letters),
            _encoded(change.arrived),
            [(sender, number, time) for (sender, number), time in change.seen.items()],
            [copy(entry) for entry in change.history],
        )

    def dump(self) -> bytes:
        """As it is put off: by :func:`write`, and then :meth:`Pending.add`."""
        return _encoder.encode(self)

    def put(self, database: Any) -> None:
        """Put all but the history into the tables; within a transaction."""
        _put(database, "facts", "name", "value", self.values)
        _put(database, "people", "id", "person", self.people)
        _put(database, "conversations", "id", "state", self.conversations)
        _put(database, "letters", "number", "letter", self.letters)
        _put(database, "arrived", "number", "row", self.arrived)
        database.executemany("insert or replace into seen values (?, ?, ?)", self.seen)


_row = msgspec.msgpack.Decoder(Row)


class Pending:
    """All changes that are put off, as one."""

    def __init__(self) -> None:
        self.clear()

    def __repr__(self) -> str:
        return f"<{self._count} changes>"

    def __bool__(self) -> bool:
        return bool(self._count)

    def clear(self) -> None:
        """They are in the tables."""
        self._row = Row()
        self._seen: set[tuple[str, bytes]] = set()
        self._said: set[tuple[str, bytes]] = set()
        self._ours: dict[bytes, Entry] = {}
        self._count = self._size = 0

    @property
    def is_full(self) -> bool:
        """Whether it is time to put them into the tables."""
        return self._count >= MOST or self._size >= MOST_BYTES

    def load(self, database: Any) -> None:
        """Read those that a process before this one has left, if the database is of a version that puts any off."""
        if database.execute("select 1 from sqlite_master where name = 'pending'").fetchone() is None:
            return
        for (data,) in database.execute("select change from pending order by number").fetchall():
            self.add(_row.decode(data), len(data))

    def add(self, row: Row, size: int) -> None:
        """One more, behind the others."""
        mine = self._row
        mine.values |= row.values
        mine.people |= row.people
        mine.conversations |= row.conversations
        mine.letters |= row.letters
        mine.arrived |= row.arrived
        mine.seen += row.seen
        self._seen.update((sender, number) for sender, number, _ in row.seen)
        for entry in row.history:
            self._note(entry)
        self._count += 1
        self._size += size

    def _note(self, entry: Entry) -> None:
        # What others have said is noted as it comes: what it changes depends on what there is in the table. So does a
        # change of ours that came without its text.
        self._said.add(entry.key)
        before = None if entry.sender else self._ours.get(entry.id)
        if before is None or (before.text is None and entry.text is not None):
            self._row.history.append(entry)
            if not entry.sender:
                self._ours[entry.id] = entry
            return
        text = before.text
        for name in entry.__struct_fields__:
            setattr(before, name, getattr(entry, name))
        before.text = text

    def has_seen(self, sender: str, number: bytes) -> bool:
        """Whether it is among what was seen."""
        return (sender, number) in self._seen

    def has_said(self, wanted: Wanted) -> bool:
        """Whether something that may be wanted is new, or has changed."""
        if wanted.ids is None:
            return bool(self._said)
        first, last = wanted.ids
        if first == last and wanted.sender is not None:
            return (wanted.sender, first) in self._said  # as it is asked for with each text that comes
        return any(first <= id <= last for _, id in self._said)

    def put(self, database: Any) -> int:
        """Put them into the tables, within a transaction, and call :meth:`clear` behind it.

        :returns: how many texts are new in the history, and not in its index.
        """
        if not self._count:
            return 0
        self._row.put(database)
        database.execute("delete from pending")
        return vault_history.note(database, self._row.history)


def write(database: Any, dumped: bytes) -> None:
    """Put a change off; within a transaction."""
    database.execute("insert into pending (change) values (?)", (dumped,))


def settle(database: Any) -> None:
    """Put all that is put off into the tables, in a transaction of its own; nothing of it is left where it was."""
    pending = Pending()
    pending.load(database)
    if pending:
        database.execute("pragma secure_delete = on")
        database.execute("begin")
        pending.put(database)
        database.execute("commit")


def _encoded(rows: Any) -> dict[Any, bytes | None]:
    return {key: None if row is None else _encoder.encode(row) for key, row in rows.items()}


def _put(database: Any, table: str, key: str, value: str, rows: dict[Any, bytes | None]) -> None:
    gone = [(name,) for name, data in rows.items() if data is None]
    kept = [(name, data) for name, data in rows.items() if data is not None]
    if gone:
        database.executemany(f"delete from {table} where {key} = ?", gone)  # noqa: S608 - our own names
    if kept:
        database.executemany(
            f"insert or replace into {table} ({key}, {value}) values (?, ?)",  # noqa: S608
            kept,
        )
