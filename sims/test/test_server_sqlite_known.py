"""What the store in SQLite answers at once is what its thread would have answered."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from sims.server.interfaces import Account, Asked, Kept
from sims.server.memory import MemoryStore
from sims.server.sqlite_known import MOST, Known
from sims.server.sqlite_upkeep import SET
from sims.test.sqlite_case import SqliteCase
from sims.test.store_contract import ANN, BOB, EVE, NOW, QUOTA, account, letter

NAMES = {ANN: "ann", BOB: "bob"}

epochs = st.none() | st.integers(0, 3)
asked = st.one_of(
    st.tuples(st.just("register")),
    st.tuples(st.just("connected"), epochs),
    st.tuples(st.just("delete")),
    st.tuples(st.just("keep"), st.integers(1, 3)),
    st.tuples(st.just("waiting"), st.sampled_from((0, 10**9))),
    st.tuples(st.just("acknowledge"), st.integers(1, 3)),
)


class SameTests(SqliteCase):
    """Beside a store that keeps everything in memory, and has nothing to wait for."""

    @settings(deadline=None, derandomize=True, max_examples=40, database=None)
    @given(st.lists(st.tuples(asked, st.booleans()), min_size=10, max_size=30))
    def test_answers(self, steps: list[tuple[Any, bool]]) -> None:
        """Whatever is asked for, and however much of it at once, the answers are the same, in the same order."""
        first: list[Any] = [("register", ANN), ("register",)]
        last: list[Any] = [("waiting", 0), ("connected", None)]
        ours, beside = self.open(Path(self.mktemp())), MemoryStore()
        found: list[Any] = []
        expected: list[Any] = []
        for (name, *args), settles in [(one, True) for one in first] + steps + [(one, True) for one in last]:
            self.begin(ours, name, args, found)
            self.begin(beside, name, args, expected)
            if settles:
                self.settle(ours)
        ours.tables.connection.close()
        self.assertEqual(found, expected)

    def begin(self, store: Any, name: str, args: list[Any], found: list[Any]) -> None:
        """Ask a store for something; the answer is noted with what was asked for."""

        def done(result: Any) -> None:
            letters = name == "waiting"
            found.append((name, args, [one for _, one in result] if letters else result))

        match (name, *args):
            case "register", *whom:
                person = whom[0] if whom else BOB
                store.register(account(person, NAMES[person], 1), None, done)
            case "connected", epoch:
                store.connected(BOB, epoch, done)
            case ("delete",):
                store.delete(BOB, done)
            case "keep", number:
                store.keep(letter(number, ANN, BOB), QUOTA, NOW, done)
            case "waiting", after:
                store.waiting(BOB, after, 100, NOW - QUOTA.life, done)
            case "acknowledge", number:
                store.acknowledge(BOB, [(ANN, number.to_bytes(16, "big"))], done)


class AtOnceTests(SqliteCase):
    def connected(self, epoch: int | None = None) -> list[Account | None]:
        """What is answered before the call returns."""
        found: list[Account | None] = []
        self.store.connected(ANN, epoch, Asked(found.append, self.fail))
        return [*found]

    def empty(self) -> bool:
        """Whether it is said before the call returns that nothing waits for Bob."""
        found: list[Any] = []
        self.store.waiting(BOB, 0, 10, 0, found.append)
        return found == [()]

    def known(self) -> tuple[bool, bool]:
        """Whether it is known of Ann that she has an account, and of Bob that his mailbox is empty; then it is."""
        found = bool(self.connected()), self.empty()
        self.settle()
        if not self.store._queue.empty():
            raise AssertionError
        return found

    def test_again(self) -> None:
        """Who connects again hears at once what is there, and the thread has nothing to do."""
        self.assertEqual(self.known(), (False, False))
        self.assertEqual(self.known(), (True, True))
        self.assertEqual(self.connected(), [account(ANN, "ann")])
        self.assertTrue(self.store._queue.empty())

    def test_epochs(self) -> None:
        """A higher epoch is noted first; whoever comes with the same or a lower one hears which it is."""
        self.known()
        self.assertEqual(self.connected(5), [])
        self.settle()
        self.assertEqual(self.rows("select epoch from accounts where name = 'ann'"), [((5).to_bytes(8, "big"),)])
        for epoch in (None, 4, 5):
            self.assertEqual(self.connected(epoch), [account(ANN, "ann", 5)])
        self.assertEqual(self.connected(6), [])

    def test_not_before_others(self) -> None:
        """While anything that was asked for is unanswered, whatever it is, the thread answers."""
        self.known()
        order: list[str] = []
        self.store.find(EVE, lambda _: order.append("find"))
        self.assertEqual(self.connected(), [])
        self.assertFalse(self.empty())
        while not self.store._queue.empty():
            self.store.turn()
        self.store.connected(ANN, None, lambda _: order.append("connected"))  # done, and not handed back
        self.settle()
        self.settle()
        self.assertEqual(order, ["find", "connected"])
        self.assertEqual(self.known(), (True, True))

    def test_what_is_kept_meanwhile(self) -> None:
        """A mailbox that was empty when it was looked at is not known to be so, if something came before the answer."""
        self.empty()
        self.store.keep(letter(1), QUOTA, NOW, self.assertTrue)
        self.settle()
        self.assertFalse(self.empty())

    def test_behind_a_number(self) -> None:
        """That nothing waits behind a number does not say that nothing waits."""
        self.ask(self.store.keep, letter(1), QUOTA, NOW)
        self.assertEqual(self.ask(self.store.waiting, BOB, 10**9, 10, 0), [])
        self.assertFalse(self.empty())

    def test_within_an_answer(self) -> None:
        """Nor does the answer to a question from within an answer come before those behind that."""
        self.known()
        order: list[str] = []
        self.store.find(EVE, lambda _: self.store.connected(ANN, None, lambda _: order.append("connected")))
        self.store.find(EVE, lambda _: order.append("find"))
        self.settle()
        self.assertEqual(order, ["find", "connected"])

    def test_another_process(self) -> None:
        """What another process changes is seen with the next look, as by everybody else."""
        self.known()
        with contextlib.closing(sqlite3.connect(self.path)) as other, other:
            other.execute("delete from accounts where name = 'ann'")
        self.assertEqual(len(self.connected()), 1)
        self.store.turn(0)
        self.calls.call()
        self.assertEqual(len(self.calls.foreign), 1)
        found: list[Account | None] = []
        self.store.connected(ANN, None, found.append)
        self.settle()
        self.assertEqual(found, [None])

    def test_the_clock_is_set(self) -> None:
        """A mailbox that seemed empty may not be so when letters were dated anew."""
        self.known()
        self.calls.wall += 2 * SET
        self.ask(self.store.find, EVE)
        self.assertFalse(self.empty())

    def test_a_fault(self) -> None:
        """A request that nobody hears of any more does not stand in the way for ever."""
        self.known()
        patch = self.patch(self.store.tables, "find", lambda _: 1 / 0)
        self.store.find(EVE, self.fail)
        self.settle()
        patch.restore()
        self.assertEqual(len(self.calls.broken), 1)
        self.known()
        self.assertEqual(self.known(), (True, True))

    def test_a_fault_after_an_answer(self) -> None:
        """An answer is not kept that the next one would have put right, if that never comes."""
        came: list[Any] = []
        real = self.store.tables.waiting
        self.store.waiting(BOB, 0, 10, 0, came.append)
        self.store.keep(letter(1), QUOTA, NOW, came.append)
        self.store.waiting(BOB, 0, 10, 0, Asked(self.fail, lambda: came.append("failed")))

        def waiting(*args: Any) -> Any:
            return 1 / 0 if real(*args) else []

        self.patch(self.store.tables, "waiting", waiting)
        self.settle()
        self.assertEqual(came, [[], Kept.STORED, "failed"])
        self.store.tables.waiting = real  # type: ignore[method-assign]
        self.assertFalse(self.empty())

    def test_closed(self) -> None:
        """A store that was closed answers nothing."""
        self.known()
        self.close()
        self.assertEqual((self.connected(), self.empty()), ([], False))


class BoundTests(SynchronousTestCase):
    def test_many(self) -> None:
        """Of many, those who were asked for last are known."""
        known = Known()
        for number in range(MOST + 2):
            known.ask_account(f"{number}")
            known.learn_account(f"{number}", account(f"{number}", "x"), None)
            known.ask_box(f"{number}")
            known.learn_box(f"{number}", ())
            if number == MOST - 1:
                known.ask_account("0")
                known.learn_account("0", account("0", "x"), None)
        found = [known.account(f"{number}", None) is not None for number in range(4)]
        self.assertEqual(found, [True, False, False, True])
        self.assertEqual([known.is_empty(f"{number}") for number in range(4)], [False, False, True, True])
