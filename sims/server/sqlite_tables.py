"""The server's database as a whole, synchronously: for the thread of the server, and for another process beside it."""

from __future__ import annotations

import sqlite3
from math import inf

from sims.server.interfaces import Facts
from sims.server.memory import MAX_FACTS
from sims.server.sqlite_file import hasty
from sims.server.sqlite_mail import MailTables

#: Bytes of a file that is written anew for one who leaves: it takes a second, and as much memory.
SMALL = 32 * 1024 * 1024


class Tables(MailTables):
    """All tables. Another process uses its own connection, each change in a :meth:`transaction`."""

    def delete(self, account: str) -> None:
        """Forget an account with everything that is kept on it or for it.

        The mids of its mailbox that are filed are nobody's from now on, and go in their time. Nothing is filed for it:
        what that writes grows with all that is remembered, and it has to be possible on a full disk.
        """
        number = self._number_of(account)
        if number is None:
            return
        columns = "l.number, l.dst, l.src, length(b.body) from letters l cross join bodies b using (number)"
        which = "l.dst = ? and l.gone = 0 and l.filed = 1"
        rows = self._run(f"select {columns} where {which}", (number,)).fetchall()
        self._erase(rows)
        self._forget_unfiled(number)
        self.flush()
        self._boxes.pop(number, None)
        self._free("owner = ?", (number,))
        self._run("insert into departed values (?, ?, ?)", (number, account, self._newest))
        for table, column in (
            ("accounts", "number"),
            ("boxes", "dst"),
            ("bundles", "owner"),
            ("one_time_keys", "owner"),
            ("fetches", "owner"),
            ("fetches", "fetcher"),
            ("written", "owner"),
            ("written", "other"),
        ):
            self._run(f"delete from {table} where {column} = ?", (number,))  # noqa: S608 - our own names
        self._people.pop(account, None)
        self.stale = True

    def scrub(self, room: float = inf) -> None:
        """Write a file of up to :data:`SMALL` bytes anew, in no transaction, if somebody may have been deleted since.

        What rows leave behind where SQLite moves them from page to page goes thereby; a larger file stays as it is.

        :param room: bytes that there are on the disk. All of the file goes through the log, which must not fill it.
        :raises sqlite3.OperationalError: as SQLite does, ``SQLITE_FULL`` also where there is less than twice its size.
        """
        ((pages,), (size,)) = (self._run(f"pragma {name}").fetchone() for name in ("page_count", "page_size"))
        if self.stale and pages * size <= SMALL:
            if room < 2 * pages * size:
                error = sqlite3.OperationalError("there is no room to write the file anew")
                error.sqlite_errorcode = sqlite3.SQLITE_FULL
                raise error
            with hasty(self.connection):
                self._run("vacuum")
        self.stale = False

    def facts(self, account: str) -> Facts:
        """Everything that is kept about somebody."""
        found, number = self.find(account), self._number_of(account)
        if found is None or number is None:
            return {}
        self.flush()
        box = self._box(number)
        facts: Facts = dict(found._asdict())
        bundle = self.bundle(account)
        if bundle is not None:
            facts |= {
                "bundle": bundle.raw,
                "one_time_keys": self._count_of("one_time_keys where owner = ? and raw is not null", number),
                "one_time_keys_handed_out": self._count_of("one_time_keys where owner = ? and raw is null", number),
                "fetched_by": self._some("fetcher from fetches where owner = ?", number),
                "fetched_by_count": self._count_of("fetches where owner = ?", number),
            }
        facts |= {
            "waiting_messages": box.messages,
            "waiting_bytes": box.size,
            "waiting_from": [self._id_of(src) for src in [*box.senders][-MAX_FACTS:]],
            "waiting_from_count": len(box.senders),
            "remembered_mids": box.mids,
            "written_to": self._some("other from written where owner = ?", number),
            "written_to_count": self._count_of("written where owner = ?", number),
            "written_by": self._some("owner from written where other = ?", number),
            "fetched_from": self._some("owner from fetches where fetcher = ?", number),
            "sent_and_waiting": self._run(
                "select (select ifnull(sum(messages), 0) from pairs where src = ?1)"
                " + (select count(*) from letters where number > ?2 and src = ?1 and gone = 0)",
                (number, self.last_filed()),
            ).fetchone()[0],
        }
        return facts

    def _count_of(self, which: str, number: int) -> int:
        return int(self._run(f"select count(*) from {which}", (number,)).fetchone()[0])  # noqa: S608

    def _some(self, which: str, number: int) -> list[str]:
        rows = self._run(f"select {which} order by number desc limit ?", (number, MAX_FACTS)).fetchall()
        return [self._id_of(other) for (other,) in reversed(rows)]
