"""The tables of the store in SQLite: numbers that are never used again, and no statement that reads a whole table."""

from __future__ import annotations

import re
from math import inf
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from sims.server.interfaces import Invitation, Kept, Letter, Registered, Store
from sims.server.memory import MAX_MIDS
from sims.server.sqlite_tables import Tables
from sims.server.sqlite_totals import Box
from sims.test.sqlite_case import Calls, SqliteCase
from sims.test.store_contract import ANN, BOB, DAY, EVE, NOW, QUOTA, StoreContract, account, letter

LARGE = QUOTA._replace(messages=inf, size=inf, stranger_messages=inf, stranger_size=inf)


class NumberTests(SqliteCase):
    """The numbers of letters go up, whatever has been forgotten, and whichever process counts."""

    def keep(self, tables: Tables, number: int, now: int = NOW) -> None:
        with tables.transaction():
            self.assertIs(tables.keep(letter(number), LARGE, now), Kept.STORED)

    def lowest_key(self) -> int:
        ((found,),) = self.rows("select min(number) from keys")
        return int(found)

    def test_after_everything_was_forgotten(self) -> None:
        """Of letters that have expired the keys' places stay for a while: no new letter has the number of one."""
        tables = self.store.tables
        for number in range(5):
            self.keep(tables, number)
        with tables.transaction():
            tables.acknowledge(BOB, [(ANN, letter(number).mid) for number in range(5)])
        with tables.transaction():
            tables.expire(NOW)
        self.assertEqual(self.rows("select count(*) from letters"), [(0,)])
        before = self.lowest_key()
        again = self.copied().tables
        self.keep(again, 9)
        self.assertEqual(again.connection.execute("select number from letters").fetchall(), [(6,)])
        self.assertEqual(again.connection.execute("select min(number) from keys").fetchone(), (before,))

    def test_after_a_sender_was_forgotten(self) -> None:
        """Whoever has left stays known until all letters are newer than what they may have sent."""
        tables = self.store.tables
        self.keep(tables, 1)
        with tables.transaction():
            tables.delete(ANN)
            tables.expire(NOW)
            tables.connection.execute("delete from keys")
            tables.connection.execute("insert into departed values (99, ?, 7)", (EVE,))
        again = self.copied().tables
        self.keep(again, 2)
        self.assertEqual(again.connection.execute("select number from letters").fetchall(), [(8,)])

    def test_beside_another_process(self) -> None:
        """What the other has kept and forgotten counts."""
        other = self.calls.open(self.path)
        self.addCleanup(other.tables.connection.close)
        for number in range(3):
            self.keep(other.tables, number)
        with other.tables.transaction():
            other.tables.expire(NOW)
        self.keep(self.store.tables, 9)
        self.assertEqual(self.rows("select number from letters"), [(4,)])


class InvitationTests(SqliteCase):
    """What an operator does with invitations, beside the store."""

    def come(self, number: int, invitation: bytes) -> Registered:
        tables = self.store.tables
        with tables.transaction():
            return tables.register(account(f"{number:032}", f"n{number}"), invitation)

    def test_are_listed(self) -> None:
        """Those that are good, as far as is known, oldest first."""
        tables = self.store.tables
        with tables.transaction():
            tables.invite(b"z" * 32)
            tables.invite(b"b" * 32)
            tables.invite(b"a" * 32, 2, NOW + 99)
        self.come(1, b"b" * 32)
        self.assertEqual(tables.invitations(), [Invitation(b"z" * 32, 1, None), Invitation(b"a" * 32, 2, NOW + 99)])

    def test_are_withdrawn(self) -> None:
        """As if they had never been given out; and may be, anew."""
        tables = self.store.tables
        with tables.transaction():
            tables.invite(b"i" * 32, 2)
        self.come(1, b"i" * 32)
        with tables.transaction():
            self.assertEqual([tables.withdraw(b"i" * 32), tables.withdraw(b"i" * 32)], [True, False])
        self.assertIs(self.come(2, b"i" * 32), Registered.INVITE_REQUIRED)
        with tables.transaction():
            tables.invite(b"i" * 32)
        self.assertIs(self.come(3, b"i" * 32), Registered.DONE)


class ClockTests(SqliteCase):
    """Letters are dated by the clock of the machine, which may be wrong, and be set."""

    def times(self) -> list[int]:
        return [time for (time,) in self.rows("select time from letters order by number")]

    def keep(self, *times: int) -> None:
        for number, time in enumerate(times, 1):
            self.assertIs(self.ask(self.store.keep, letter(number), LARGE, time), Kept.STORED)

    def test_is_set(self) -> None:
        """No letter becomes older by that, nor one of the future; those that were dated before become younger."""
        for by, now, expected in (
            (NOW, NOW, [NOW, NOW, NOW]),  # it began in 1970
            (DAY, NOW + DAY, [DAY, NOW, NOW + DAY]),
            (-DAY, NOW - 50, [0, NOW - DAY, NOW - 50]),
        ):
            with self.store.tables.transaction():
                self.store.tables.connection.execute("delete from letters")
            self.keep(0, NOW - DAY, NOW + 5 * DAY)
            with self.store.tables.transaction():
                self.store.tables.redate(by, now)
            self.assertEqual(self.times(), expected)

    def test_letters_of_the_future(self) -> None:
        """They stay, and those behind them expire all the same."""
        self.keep(NOW + 400 * DAY, NOW - 40 * DAY, NOW - 40 * DAY, NOW)
        self.ask(self.store.acknowledge, BOB, [(ANN, letter(3).mid)])
        with self.store.tables.transaction():
            self.assertFalse(self.store.tables.expire(NOW - 30 * DAY, NOW))
        self.assertEqual(self.times(), [NOW + 400 * DAY, NOW])
        self.assertEqual(self.rows("select messages from pairs"), [(2,)])
        self.assertEqual(self.rows("select mids from boxes"), [(2,)])


#: What may be read as a whole: it is asked for as a whole, is short, or has an index of its own, which is.
WHOLE = re.compile(
    r"SCAN (accounts USING INDEX|invitations|slots USING (COVERING )?INDEX slots_free|(\d+ )?CONSTANT ROW|n$)"
)
#: What is read in the order in which it lies, as far as a limit.
FIRST = re.compile(r"order by l\.number limit")


class Plans:
    """Looks at how SQLite does every statement of a connection, one of each kind."""

    def __init__(self, store: Any) -> None:
        self._connection = store.tables.connection
        self._kinds: dict[str, str] = {}
        self._connection.set_trace_callback(self._note)

    def _note(self, statement: str) -> None:
        kind = re.sub(r"x'[0-9a-f]*'|'[^']*'|\b\d+(\.\d+)?\b|[Ii]nf", "?", statement)
        self._kinds.setdefault(kind, statement)

    def scans(self) -> list[str]:
        """The statements that read a whole table, and what SQLite says of it."""
        self._connection.set_trace_callback(None)
        found = []
        for kind, statement in self._kinds.items():
            if re.match(r"(begin|commit|rollback|pragma|--)", statement, re.IGNORECASE):
                continue
            finite = re.sub(r"\b[Ii]nf\b", "9e999", statement)
            plan = [row[3] for row in self._connection.execute(f"explain query plan {finite}")]
            scans = [step for step in plan if step.startswith("SCAN") and not WHOLE.match(step)]
            found += [f"{kind}: {step}" for step in scans if not (step == "SCAN l" and FIRST.search(kind))]
        return found


class SqliteTests(StoreContract, SynchronousTestCase):
    """The store keeps the contract, and the test has its turns.

    Whatever it is asked for, it goes to the rows in question: its cost does not grow with all others'.
    """

    def make_store(self) -> Store:
        self.calls = Calls()
        self.sqlite = self.calls.open(Path(self.mktemp()))
        self.addCleanup(self.sqlite.tables.connection.close)
        plans = Plans(self.sqlite)
        self.addCleanup(lambda: None if self.sqlite._closing else self.assertEqual(plans.scans(), []))
        return self.sqlite

    def settle(self) -> None:
        while not self.sqlite._queue.empty():
            self.sqlite.turn()
            self.calls.call()
        self.assertEqual(self.calls.broken, [])

    def test_many_at_once(self) -> None:
        """Groups of every size, that are kept, known already, acknowledged, expired."""
        tables = self.sqlite.tables
        for size in (1, 2, 3, 64, 130):
            some = [letter(size * 1000 + number, src=(ANN, EVE)[number % 2]) for number in range(size)]
            for _ in range(2):
                with tables.transaction():
                    tables.keep_all([(one, LARGE, NOW) for one in some])
            with tables.transaction():
                tables.acknowledge_all([(BOB, [(one.src, one.mid)]) for one in some[: size // 2]])
                tables.acknowledge_all([(BOB, [(one.src, one.mid) for one in some[size // 2 :]])])
            self.assertEqual(self.waiting(), [])
        with tables.transaction():
            tables.keep(Letter(ANN, BOB, b"m" * 16, b"x"), LARGE, NOW + 40 * DAY)
            tables.keep(letter(5), LARGE._replace(messages=0), NOW + 80 * DAY)
            tables.expire(NOW + 40 * DAY)
            tables._trim_mids(2, Box({}, MAX_MIDS + 1))
        with tables.transaction():
            tables.delete(ANN)
        with tables.transaction():
            tables.expire(NOW + 90 * DAY)
