"""What is known of the letters that were kept, so that most need not be looked for."""

from __future__ import annotations

from sims.server import sqlite_totals
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
        """What it has kept is learned of, and not all the rest again; not even if it came under a number that was
        given away here in vain."""
        self.keep(*[letter(number) for number in range(300)])
        self.file()
        tables = self.store.tables
        with self.assertRaises(KeyError), tables.transaction():
            tables.keep_all([(letter(number), LARGE, NOW) for number in range(400, 405)])
            raise KeyError
        self.keep(letter(300))
        self.file()
        learned = tables._seen.learned
        with self.other.transaction():
            self.other.keep(letter(500), LARGE, NOW)
            self.other.file()
        self.assertEqual(self.looked_for(letter(500), letter(501)), ([Kept.KNOWN, Kept.STORED], 1))
        self.assertEqual(learned, 0)
        self.assertGreater(tables._seen.learned, 300)

    def test_all_of_one_place(self) -> None:
        """That makes for work, and nothing else."""
        self.patch(sqlite_totals, "PLACES", 1)
        self.crash()
        letters = [letter(number) for number in range(4)]
        self.assertEqual(self.keep(*letters), [Kept.STORED] * 4)
        self.file()
        self.assertEqual(self.looked_for(letters[2], letter(9)), ([Kept.KNOWN, Kept.STORED], 2))
        self.assertEqual(self.looked_for(Letter(ANN, BOB, letters[0].mid, b"other")), ([Kept.KNOWN], 1))

    def test_fits_in_memory(self) -> None:
        seen = Seen()
        for number in range(1000):
            seen.add((1, 2, number.to_bytes(16, "big")))
        seen.whole = True
        strangers = [(1, 3, number.to_bytes(16, "big")) for number in range(10_000)]
        self.assertLess(len(seen.among(strangers)), 100)
        self.assertEqual(len(seen._places), 4 * 1024 * 1024)
