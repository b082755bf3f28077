"""What is known of the letters that were kept, so that most need not be looked for."""

from __future__ import annotations

import sqlite3

from sims.server import sqlite_mail, sqlite_totals
from sims.server.interfaces import Kept, Letter
from sims.server.sqlite_totals import Seen
from sims.test.store_contract import ANN, BOB, NOW, letter
from sims.test.test_server_sqlite_filing import LARGE, FilingCase


class SeenTests(FilingCase):
    def file(self) -> None:
        with self.store.tables.transaction():
            self.store.tables.file()

    def looked_for(self, *letters: Letter) -> tuple[list[Kept], int]:
        """What becomes of letters, and how many of them were looked for in the file."""
        count = 0
        known = self.store.tables._known

        def counting(names: list[sqlite_totals.Name]) -> set[sqlite_totals.Name]:
            nonlocal count
            count += len(names)
            return known(names)

        self.patch(self.store.tables, "_known", counting)
        return self.keep(*letters), count

    def test_what_is_new_is_not_looked_for(self) -> None:
        letters = [letter(number) for number in range(4)]
        self.assertEqual(self.looked_for(*letters), ([Kept.STORED] * 4, 0))
        self.file()
        self.assertEqual(self.looked_for(letters[2], letter(9)), ([Kept.KNOWN, Kept.STORED], 1))

    def test_is_learned_after_a_start(self) -> None:
        """Some with each transaction; until all are, whatever comes is looked for."""
        self.patch(sqlite_totals, "LEARNED", 4)
        letters = [letter(number) for number in range(9)]
        self.keep(*letters)
        self.file()
        self.crash()
        counts = []
        for at in (0, 4, 8, 3, 7):
            results, count = self.looked_for(letters[at], letter(100 + at))
            self.assertEqual(results, [Kept.KNOWN, Kept.STORED], at)
            counts.append(count)
        self.assertEqual((counts[0], counts[-2:]), (2, [1, 1]))

    def test_of_another_process(self) -> None:
        """What it has kept is known, though it came under a number that was given away here in vain."""
        self.keep(letter(0))
        self.roll_back(400, 5)
        self.file()
        with self.other.transaction():
            self.other.keep(letter(500), LARGE, NOW)
        self.assertEqual(self.looked_for(letter(500), letter(501))[0], [Kept.KNOWN, Kept.STORED])
        self.file()
        self.assertEqual(self.keep(letter(500), letter(501)), [Kept.KNOWN, Kept.KNOWN])
        self.check(self.other)

    def roll_back(self, first: int, count: int) -> None:
        """A group that is not committed."""
        tables = self.store.tables
        with self.assertRaises(KeyError), tables.transaction():
            tables.keep_all([(letter(number), LARGE, NOW) for number in range(first, first + count)])
            raise KeyError

    def test_under_a_number_that_has_left(self) -> None:
        """Where all has expired, another process begins with the first number again."""
        self.patch(sqlite_mail, "MARGIN", 3)
        self.keep(letter(0))
        self.file()
        self.crash()
        self.keep()
        tables = self.store.tables
        self.file()
        self.assertEqual((tables._seen.learned, tables._seen.whole), (1, True))
        self.roll_back(400, 20)
        with tables.transaction():
            tables.expire(NOW)
        self.assertEqual(self.rows("select count(*) from keys"), [(0,)])
        self.look_on()
        with self.other.transaction():
            self.other.keep(letter(500), LARGE, NOW)
            self.other.file()
        self.assertEqual(self.rows("select number from letters"), [(1,)])
        self.assertEqual(self.keep(letter(500), letter(501)), [Kept.KNOWN, Kept.STORED])

    def test_what_was_not_looked_at(self) -> None:
        """Where the look at what another process has done fails, it is made again."""
        error = sqlite3.OperationalError("for want of room")
        error.sqlite_errorcode = sqlite3.SQLITE_IOERR_SHMSIZE
        self.keep(letter(0))
        self.file()
        with self.other.transaction():
            self.other.delete(ANN)
        failed: list[None] = []

        def fails() -> int:
            failed.append(None)
            raise error

        patched = self.patch(self.store.tables, "_highest", fails)
        self.store.turn(0)
        patched.restore()
        self.assertEqual((len(failed), self.calls.failed), (1, []))
        self.assertEqual(self.keep(letter(1, BOB, ANN)), [Kept.NOBODY])

    def test_places_that_are_all_taken(self) -> None:
        """That makes for work, and nothing else."""
        self.patch(sqlite_totals, "PLACES", 8)
        self.crash()
        letters = [letter(number) for number in range(100)]
        self.assertEqual(self.keep(*letters), [Kept.STORED] * 100)
        self.file()
        self.assertEqual(self.looked_for(letters[2], letter(200)), ([Kept.KNOWN, Kept.STORED], 2))
        self.assertEqual(self.keep(Letter(ANN, BOB, letters[0].mid, b"other")), [Kept.KNOWN])

    def test_fits_in_memory(self) -> None:
        seen = Seen()
        seen.add([(1, 2, number.to_bytes(16, "big")) for number in range(1_000)])
        seen.whole = True
        self.assertEqual(len(seen.among([(1, 2, number.to_bytes(16, "big")) for number in range(1_000)])), 1_000)
        self.assertLess(len(seen.among([(1, 3, number.to_bytes(16, "big")) for number in range(10_000)])), 20)
        self.assertEqual(len(seen._places), 4 * 1024 * 1024)
