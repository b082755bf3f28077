"""What was said, in the tables of a vault: ``history``, and ``history_words`` to search it (``vault_schema``)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec.structs import replace

from sims.client.history import Entry, Wanted, words

_INSERT = """
insert into history (sender, id, peer, text, entry) values (?, ?, ?, ?, ?) on conflict (sender, id) do nothing
"""

_encoder = msgspec.msgpack.Encoder()
_entry = msgspec.msgpack.Decoder(Entry)


def note(database: Any, entries: Iterable[Entry]) -> int:
    """Entries are new, or have changed; within a transaction. A change of what was deleted is none.

    What somebody else has said stays as it is: another text under the same id changes nothing.

    :returns: how many are new, whose words wait for :func:`index`.
    """
    run = database.execute
    new = 0
    for entry in entries:
        # What has a column of its own stands there alone; a text never changes.
        packed = _encoder.encode(replace(entry, number=0, text=None))
        if entry.text is None or not entry.sender:
            changed = run(
                "update history set peer = ?, entry = ? where sender = ? and id = ?",
                (entry.peer, packed, entry.sender, entry.id),
            )
            if changed.rowcount or entry.text is None:
                continue
        row = (entry.sender, entry.id, entry.peer, entry.text, packed)
        new += run(_INSERT, row).rowcount
    return new


def index(database: Any) -> None:
    """Take in the words of what is not in the index yet; within a transaction.

    Those of many texts at once cost a third of what they do one by one.
    """
    rows = database.execute("select number, text from history where number > ?", (_newest(database),)).fetchall()
    words = [(number, _indexed(text)) for number, text in rows]
    database.executemany("insert into history_words (rowid, text) values (?, ?)", words)


def unindexed(database: Any) -> int:
    """How many texts are not in the index."""
    found = database.execute("select count(*) from history where number > ?", (_newest(database),)).fetchone()
    return int(found[0])


def _newest(database: Any) -> int:
    """The number of the newest in the index: all that are older and still there are in it as well."""
    found = database.execute("select max(id) from history_words_docsize").fetchone()
    return found[0] or 0


def delete(database: Any, peer: str) -> None:
    """Nothing of what was said with somebody is kept, nor its words; within a transaction."""
    rows = database.execute(
        "select number, text from history where peer = ? and number <= ?", (peer, _newest(database))
    ).fetchall()
    database.executemany(
        "insert into history_words (history_words, rowid, text) values ('delete', ?, ?)",
        [(number, _indexed(text)) for number, text in rows],
    )
    database.execute("delete from history where peer = ?", (peer,))


def find(database: Any, wanted: Wanted) -> list[Entry]:
    """The entries that are wanted, in order."""
    where: list[str] = []
    values: list[object] = []
    for condition, value in (
        # Of few ids one needs no index of the peer's, be it in order.
        ("peer = ?" if wanted.ids is None else "+peer = ?", wanted.peer),
        ("sender = ?", wanted.sender),
        ("number < ?", wanted.before),
        ("number > ?", wanted.after),
    ):
        if value is not None:
            where.append(condition)
            values.append(value)
    if wanted.ids is not None:
        where.append("id between ? and ?")
        values += wanted.ids
    if wanted.words:
        where.append("number in (select rowid from history_words where history_words match ?)")
        values.append(" ".join(f'"{word}"*' for word in wanted.words))
    which = f"where {' and '.join(where)}" if where else ""
    forward = wanted.after is not None
    rows = database.execute(
        f"select number, text, entry from history {which} "  # noqa: S608 - conditions of our own
        f"order by number {'' if forward else 'desc'} limit ?",
        (*values, wanted.limit),
    ).fetchall()
    return [_read(*row) for row in (rows if forward else reversed(rows))]


def _indexed(text: str) -> str:
    """A text as the index has it: its words as :func:`~sims.client.history.words` gives them, for every store alike."""
    return " ".join(words(text))


def _read(number: int, text: str, packed: bytes) -> Entry:
    entry = _entry.decode(packed)
    entry.number, entry.text = number, text
    return entry
