"""Letters that are not filed yet: nobody can tell, whatever comes between, and they are filed at last."""

from __future__ import annotations

import random
import sqlite3
from contextlib import closing
from itertools import count
from math import inf
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from sims.server import sqlite_mail, sqlite_totals
from sims.server.interfaces import Kept, Letter, Quota, Store
from sims.server.memory import MemoryStore
from sims.server.sqlite_admin import problems, totals, waiting
from sims.server.sqlite_file import MIGRATIONS, open_database
from sims.server.sqlite_people import GONE, masked
from sims.server.sqlite_tables import Tables
from sims.server.sqlite_upkeep import EXPIRE
from sims.test.sqlite_case import Calls, SqliteCase
from sims.test.store_contract import ANN, BOB, DAY, EVE, NOW, QUOTA, account, letter

LARGE = QUOTA._replace(messages=inf, size=inf, stranger_messages=inf, stranger_size=inf)
UNFILED = "select count(*) from letters where filed = 0"


class FilingCase(SqliteCase):
    """Another process looks on."""

    def setUp(self) -> None:
        super().setUp()
        self.look_on()
        self.ask(self.store.find, "")  # the first look for what has expired comes with it

    def look_on(self) -> None:
        self.other = Tables(open_database(self.path, new=False))
        self.addCleanup(self.look_away, self.other)

    def look_away(self, tables: Tables) -> None:
        with closing(tables.connection):
            self.check(tables)

    def check(self, tables: Tables) -> None:
        """What is in the tables fits together."""
        with tables.reading():
            self.assertEqual(problems(tables), [])

    def crash(self) -> None:
        self.store = self.copied()
        ((file,),) = self.rows("select file from pragma_database_list")
        self.path = Path(file)
        self.folder = self.path.parent
        self.look_on()

    def keep(self, *letters: Letter, quota: Quota = LARGE, now: int = NOW) -> list[Kept]:
        results: list[Kept] = []
        for one in letters:
            self.store.keep(one, quota, now, results.append)
        self.settle()
        return results

    def waiting(self, owner: str = BOB) -> list[Letter]:
        return [one for _, one in self.ask(self.store.waiting, owner, 0, 1000, -inf)]


class UnfiledTests(FilingCase):
    """What is not filed is there all the same."""

    def setUp(self) -> None:
        super().setUp()
        self.letters = [letter(number, (ANN, EVE)[number % 2]) for number in range(6)]
        self.assertEqual(self.keep(*self.letters), [Kept.STORED] * 6)
        self.assertEqual(self.rows(UNFILED), [(6,)])

    def file(self) -> None:
        with self.store.tables.transaction():
            self.store.tables.file()

    def test_is_given(self) -> None:
        """In its order, behind what is filed, a page at a time, and nothing is written for that."""
        self.file()
        more = [letter(number) for number in range(10, 14)]
        self.keep(*more)
        changes = self.store.tables.connection.total_changes
        found: list[Letter] = []
        after = 0
        for _ in range(4):
            page = self.ask(self.store.waiting, BOB, after, 3, -inf)
            after = page[-1][0]
            found += [one for _, one in page]
        self.assertEqual(found, self.letters + more)
        self.assertEqual(self.ask(self.store.waiting, BOB, after, 3, -inf), [])
        self.assertEqual(self.store.tables.connection.total_changes, changes)

    def test_many_are_given(self) -> None:
        """However many there are, of others too, and whatever of them was taken: the next in their order."""
        for _ in range(2):
            self.keep(*[letter(number, dst=(BOB, ANN)[number % 3 == 0], src=EVE) for number in range(100, 400)])
            taken = [letter(number).mid for number in range(100, 400) if number % 10 < 4]
            self.ask(self.store.acknowledge, BOB, [(EVE, mid) for mid in taken])
            left = [letter(at, EVE) for at in range(100, 400) if at % 3 and at % 10 >= 4]
            for most in (7, 64, 1000):
                found: list[tuple[int, Letter]] = []
                while page := self.ask(self.store.waiting, BOB, found[-1][0] if found else 0, most, -inf):
                    self.assertLessEqual(len(page), most)
                    found += page
                self.assertEqual([one for _, one in found], self.letters + left)
            with self.other.reading():
                self.assertEqual([one for _, one in self.other.waiting(BOB, 0, 9, -inf)], (self.letters + left)[:9])
            self.crash()

    def test_is_known(self) -> None:
        self.assertEqual(self.keep(*self.letters), [Kept.KNOWN] * 6)
        self.assertEqual(self.rows(UNFILED), [(6,)])

    def test_counts(self) -> None:
        quota = LARGE._replace(messages=8)
        self.assertEqual(self.keep(letter(9), letter(10, "c" * 32), letter(11, "f" * 32), quota=quota)[0], Kept.FULL)
        self.assertEqual(len(self.waiting()), 8)

    def test_is_acknowledged(self) -> None:
        """Then its key and its body are gone; its mid is known until it is filed, and afterwards."""
        self.ask(self.store.acknowledge, BOB, [(one.src, one.mid) for one in self.letters[1:] * 2])
        self.assertEqual(self.rows(UNFILED), [(6,)])
        self.assertEqual(self.waiting(), self.letters[:1])
        self.assertEqual(self.rows("select count(*) from bodies"), [(1,)])
        keys = self.rows("select key from keys order by number")
        self.assertEqual([key == (GONE,) for key in keys], [False] + [True] * 5)
        for _ in range(2):
            self.assertEqual(self.keep(*self.letters), [Kept.KNOWN] * 6)
            self.check(self.other)
            self.file()
        self.assertEqual(self.rows("select messages, size from pairs"), [(1, 100)])
        self.assertEqual(self.rows("select mids from boxes"), [(6,)])

    def test_expires(self) -> None:
        """A mid that has expired is one like any other, and what waited under it is gone."""
        self.file()
        letters = [letter(number) for number in range(10, 16)]
        self.keep(*letters)
        end = NOW + 30 * DAY
        self.assertEqual(self.keep(letters[0], now=end - 1), [Kept.KNOWN])
        self.assertEqual(self.keep(letters[0], letters[0], now=end), [Kept.STORED, Kept.KNOWN])
        self.assertEqual(self.waiting(), [*letters[1:], letters[0]])  # with it went all that was filed
        self.ask(self.store.acknowledge, BOB, [(ANN, letters[1].mid)])
        self.assertEqual(self.keep(letters[1], now=end), [Kept.STORED])
        self.crash()
        self.assertEqual(self.ask(self.store.facts, BOB)["remembered_mids"], 12)
        self.file()
        self.assertEqual(self.rows("select mids from boxes"), [(12,)])

    def test_of_one_who_has_left(self) -> None:
        """Her id is known for as long as any of what she sent at once waits."""
        now = [NOW - 40 * DAY] * 3 + [NOW] * 2
        with self.store.tables.transaction():
            self.store.tables.keep_all([(letter(9, "f" * 32), LARGE, when) for when in now[:1]])
            asked = [(letter(20 + at, "c" * 32), LARGE, when) for at, when in enumerate(now)]
            self.store.tables.keep_all(asked)
        for one in self.letters:
            self.ask(self.store.acknowledge, BOB, [(one.src, one.mid)])
        with self.store.tables.transaction():
            self.store.tables.connection.execute("delete from letters where gone = 1")
            self.store.tables.expire(NOW - 1)
        self.assertEqual(self.waiting(), [letter(23, "c" * 32), letter(24, "c" * 32)])
        self.assertNotIn(("f" * 32,), self.rows("select id from departed"))

    def test_is_filed_beside_what_goes(self) -> None:
        self.file()
        with self.store.tables.transaction():
            self.store.tables.acknowledge(BOB, [(ANN, self.letters[0].mid)])
            self.store.tables.keep(letter(9), LARGE, NOW)
            self.store.tables.file()
        self.assertEqual(self.rows("select sum(messages) from pairs"), [(6,)])

    def test_of_an_account_that_is_deleted(self) -> None:
        """It leaves with its body and its key; that of others is not filed for that, which would take room."""
        self.file()
        self.ask(self.store.register, account(EVE, "eve"), None)
        self.keep(*[letter(number, ANN, (BOB, EVE)[number % 2]) for number in range(10, 20)], letter(30, BOB, ANN))
        self.ask(self.store.acknowledge, BOB, [(ANN, letter(10).mid)])
        self.ask(self.store.delete, BOB)
        before = self.store
        for _ in range(2):
            self.assertEqual(self.rows("select filed, count(*) from letters group by filed"), [(0, 6), (1, 6)])
            self.assertEqual(self.rows("select count(*) from bodies"), [(6,)])
            keys = self.rows("select key from keys order by number")
            self.assertEqual([key == (GONE,) for key in keys], [True] * 6 + [True, False] * 5 + [False])
            self.check(self.other)
            self.assertEqual(self.waiting(EVE), [letter(number, ANN, EVE) for number in range(11, 20, 2)])
            self.assertEqual(self.waiting(ANN), [letter(30, BOB, ANN)])
            self.assertEqual(self.keep(letter(11, ANN, EVE), letter(31))[:2], [Kept.KNOWN, Kept.NOBODY])
            self.crash()
        for store in (before, self.store):
            with store.tables.transaction():
                store.tables.file()
                query = "select a.id from boxes left join accounts a on a.number = dst"
                self.assertEqual({*store.tables.connection.execute(query)}, {(ANN,), (EVE,)})
        self.ask(self.store.register, account(BOB, "bob"), None)
        self.assertEqual(self.keep(letter(10), letter(0)), [Kept.STORED] * 2)
        self.file()
        self.assertEqual(self.waiting(), [letter(10), letter(0)])

    def test_is_known_to_another_process(self) -> None:
        """Whoever only reads writes nothing; whoever deletes an account takes along what is not filed."""
        self.ask(self.store.acknowledge, BOB, [(ANN, self.letters[0].mid)])
        with self.other.reading():
            facts, sender = self.other.facts(BOB), self.other.facts(ANN)
            self.assertEqual((facts["waiting_messages"], facts["waiting_bytes"]), (5, 500))
            self.assertEqual((facts["remembered_mids"], facts["waiting_from_count"]), (6, 2))
            self.assertEqual(sender["sent_and_waiting"], 2)
            self.assertEqual(waiting(self.other), {BOB: (5, 500)})
            self.assertEqual(totals(self.other)["bytes that wait"], 500)
            self.assertEqual([one for _, one in self.other.waiting(BOB, 0, 9, -inf)], self.letters[1:])
        self.assertEqual(self.rows(UNFILED), [(6,)])
        with self.other.transaction():
            self.other.delete(BOB)
        self.assertEqual(self.rows("select count(*) from bodies"), [(0,)])
        self.assertEqual(self.keep(letter(7), letter(8, BOB, ANN)), [Kept.NOBODY, Kept.STORED])

    def test_of_another_process(self) -> None:
        """What the other has kept, and not filed, is known to this one."""
        with self.other.transaction():
            self.assertIs(self.other.keep(letter(7), LARGE, NOW), Kept.STORED)
        self.assertEqual(self.keep(letter(7), letter(8)), [Kept.KNOWN, Kept.STORED])
        self.assertEqual(self.waiting(), [*self.letters, letter(7), letter(8)])
        self.file()

    def test_is_found_after_a_crash(self) -> None:
        self.crash()
        self.assertEqual(self.keep(self.letters[3], letter(9)), [Kept.KNOWN, Kept.STORED])
        self.assertEqual(self.waiting(), [*self.letters, letter(9)])
        self.assertEqual(self.ask(self.store.facts, BOB)["waiting_messages"], 7)
        self.file()
        self.assertEqual(self.rows("select sum(messages) from pairs"), [(7,)])

    def test_is_found_after_a_failure(self) -> None:
        """A group that was not committed has not been, and what was before it still is."""
        tables = self.store.tables

        def group() -> None:
            with tables.transaction():
                tables.keep_all([(letter(number), LARGE, NOW) for number in range(20, 25)])
                raise KeyError

        self.assertRaises(KeyError, group)
        self.assertEqual(self.keep(letter(20), self.letters[0]), [Kept.STORED, Kept.KNOWN])
        self.assertEqual(self.waiting(), [*self.letters, letter(20)])

    def test_is_filed_in_time(self) -> None:
        """With every look for what has expired, and as soon as there are many."""
        self.calls.now += EXPIRE
        self.store.turn(0)
        self.assertEqual(self.rows(UNFILED), [(0,)])
        self.patch(sqlite_mail, "FRESH", 20)
        for start in range(100, 200, 10):
            self.keep(*[letter(number) for number in range(start, start + 10)])
            ((unfiled,),) = self.rows(UNFILED)
            self.assertLess(unfiled, 30)
        self.assertEqual(len(self.waiting()), 106)

    def test_only_the_newest_mids_stay(self) -> None:
        """Of a mailbox, from when they are filed; what waits is not among those that go."""
        self.patch(sqlite_totals, "MAX_MIDS", 4)
        self.ask(self.store.acknowledge, BOB, [(one.src, one.mid) for one in self.letters[1:4]])
        self.file()
        self.assertEqual(self.rows("select mids from boxes"), [(4,)])
        known, stored = Kept.KNOWN, Kept.STORED
        self.assertEqual(self.keep(*self.letters), [known, stored, stored, known, known, known])


class CourseTests(FilingCase):
    """Whatever happens in whichever order, the answers are those of the store in memory."""

    def both(self, name: str, *args: Any) -> None:
        self.asked.append((name, args))

    def compare(self) -> None:
        """Have all that was asked for done, in one group, by both."""
        answers: list[list[Any]] = [[], []]
        stores: tuple[Store, Store] = (self.store, self.memory)
        for store, found in zip(stores, answers, strict=True):
            for name, args in self.asked:
                getattr(store, name)(*args, found.append)
        self.settle()
        for (name, args), ours, theirs in zip(self.asked, *answers, strict=True):
            if name == "waiting":
                ours, theirs = ([one for _, one in found] for found in (ours, theirs))
            if name == "facts":  # there is no order of those whom one has to do with
                ours, theirs = (
                    {key: sorted(value) if isinstance(value, list) else value for key, value in found.items()}
                    for found in (ours, theirs)
                )
            self.assertEqual(ours, theirs, (name, args))
        self.asked.clear()

    def course(self, seed: int) -> None:
        chance = random.Random(seed)
        life = (50, 30 * DAY)[seed % 2]
        quota = Quota(12, 1500, life, 5, inf)
        self.memory = MemoryStore()
        self.asked: list[tuple[str, tuple[Any, ...]]] = []
        for store in (self.store, self.memory):
            for name, id in (("ann", ANN), ("bob", BOB)):
                store.delete(id, lambda _: None)
                store.register(account(id, name), None, lambda _: None)
        self.settle()
        now, people = NOW, [ANN, BOB, EVE]
        for _ in range(150):
            if life == 50 and chance.random() < 0.3:
                self.compare()
                now += chance.choice((1, 20))
                with self.store.tables.transaction():
                    self.store.tables.file()  # as happens with every look for what has expired
            src, dst = chance.choice(people), chance.choice(people)
            some = [chance.randrange(30).to_bytes(16, "big") for _ in range(chance.randrange(1, 9))]
            match chance.randrange(14):
                case 0 | 1:
                    self.both("acknowledge", dst, [(src, mid) for mid in some])
                case 2:
                    self.both("waiting", dst, 0, chance.choice((3, 100)), now - life)
                case 3:
                    self.compare()
                    self.check(self.other)
                case 4 if life > 50:
                    self.both("facts", dst)
                case 5:
                    self.compare()
                    if chance.random() < 0.3:
                        self.crash()
                case 6:
                    self.compare()
                    with self.other.transaction():
                        self.other.invite(b"i" * 32)
                        for one in [Letter(src, dst, mid, b"of another process") for mid in some]:
                            results = [self.other.keep(one, quota, now)]
                            self.memory.keep(one, quota, now, results.append)
                            self.assertIs(*results)
                        if chance.random() < 0.5:
                            self.other.file()
                case 7:
                    self.both("written", dst, src)
                case 8 if life == 50:
                    self.compare()
                    with self.store.tables.transaction():
                        self.store.tables.expire(now - life)
                case _:
                    for mid in some:
                        self.both("keep", Letter(src, dst, mid, bytes(chance.randrange(90))), quota, now)
        self.compare()
        self.check(self.other)

    def test_are_those_of_the_store_in_memory(self) -> None:
        self.patch(sqlite_mail, "FRESH", 5)
        self.patch(sqlite_totals, "MAX_BOXES", 1)
        for seed in range(12):
            self.patch(sqlite_totals, "LEARNED", (7, 256)[seed % 3 == 0])
            self.patch(sqlite_totals, "PLACES", (2**22, 32)[seed % 4 == 3])
            self.crash()
            self.course(seed)


class FormerTests(SynchronousTestCase):
    """A file of version 1, as a server had it that was stopped with messages waiting."""

    def test_goes_on(self) -> None:
        """What waits is given, what is known is known, and all of it goes in its time."""
        path = Path(self.mktemp())
        keys = (bytes([number]) * 32 for number in count(1))
        with closing(open_database(path, migrations=MIGRATIONS[:1])) as old:
            for number, (id, name) in enumerate(((ANN, "ann"), (BOB, "bob")), 1):
                old.execute("insert into accounts values (?, ?, ?, 's', 'd', 1, null)", (number, id, name))
            for number in range(1, 5):
                key, body = next(keys), b"letter %d" % number
                row = (number, 2, 1, NOW, number == 2, number.to_bytes(16, "big"))
                old.execute("insert into letters values (?, ?, ?, ?, ?, ?)", row)
                old.execute("insert into keys values (?, ?)", (number, GONE if number == 2 else key))
                if number != 2:
                    old.execute("insert into bodies values (?, ?)", (number, masked(key, body)))
            old.execute("insert into pairs values (2, 1, 3, 24)")
            old.execute("insert into boxes values (2, 4)")
        calls = Calls()
        store = calls.open(path)
        self.addCleanup(store.tables.connection.close)
        answers: list[Any] = []
        letters = [Letter(ANN, BOB, number.to_bytes(16, "big"), b"letter %d" % number) for number in range(6)]
        for one in letters:
            store.keep(one, LARGE, NOW, answers.append)
        store.waiting(BOB, 0, 9, -inf, answers.append)
        store.acknowledge(BOB, [(ANN, letters[3].mid), (ANN, letters[5].mid)], answers.append)
        store.waiting(BOB, 0, 9, -inf, answers.append)
        store.turn(0)
        calls.call()
        stored, known = Kept.STORED, Kept.KNOWN
        self.assertEqual(answers[:6], [stored, known, known, known, known, stored])
        given, left = ([found for _, found in answers[at]] for at in (6, 8))
        self.assertEqual(given, [letters[1], letters[3], letters[4], letters[0], letters[5]])
        self.assertEqual(left, [letters[1], letters[4], letters[0]])
        self.assertEqual(problems(store.tables), [])
        self.assertFalse(path.with_name(f"{path.name}.before-2").exists())
        found = store.tables.connection.execute("pragma index_list(letters)").fetchall()
        indexes = {name: (unique, partial) for _, name, unique, _, partial in found}
        self.assertEqual(indexes, {"letters_by_box": (0, 1), "letters_by_mid": (1, 1)})
        with self.assertRaises(sqlite3.IntegrityError):  # nothing is filed twice
            store.tables.connection.execute(
                "insert into letters select 99, dst, src, time, gone, mid, 1, 1 from letters"
            )
