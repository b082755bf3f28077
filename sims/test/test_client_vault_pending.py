"""Changes that a vault has committed and not yet put into its tables: whoever asks it sees no difference."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import sqlcipher3  # type: ignore[import-untyped]
from twisted.trial.unittest import SynchronousTestCase

from sims.client import vault, vault_pending
from sims.client.history import CAME, Entry, Wanted
from sims.client.store import UNREAD, Arrived, Change, Letter, MemoryStore, Person, Store
from sims.client.vault import Vault
from sims.client.vault_schema import MIGRATIONS, migrate
from sims.errors import Code, LocalError

PEOPLE = ("ann", "bob")


def a_change(chance: Random) -> Change:
    """Something of everything, or nothing of it."""

    def some(kind: Any, keys: Any, gone: float = 0.3) -> dict[Any, Any]:
        wanted = [key for key in keys if chance.random() < 0.3]
        return {key: None if chance.random() < gone else kind(key) for key in wanted}

    def an_entry() -> Entry:
        sender = chance.choice(("", *PEOPLE))
        number, time = chance.randrange(4), chance.randrange(1000)
        text = chance.choice((None, f"{'another' if number % 2 else 'one'} word of {sender}"))  # it never changes
        return Entry(
            id=bytes([number]) * 16, sender=sender, peer=chance.choice(PEOPLE), text=text, state=CAME, time=time
        )

    number = chance.randrange(1000)
    return Change(
        values=some(lambda key: b"%d" % number, ("name", "epoch")),
        people=some(lambda key: Person(id=key, heard=number), PEOPLE),
        conversations=some(lambda key: b"%d" % number, PEOPLE),
        letters=some(lambda key: Letter(number=key, time=number), range(1, 4)),
        arrived=some(lambda key: Arrived(number=key, sender="bob", id=b"", session=b"", time=number), range(1, 4)),
        seen={key: 1000 * number + chance.randrange(1000) for key in seen() if chance.random() < 0.2},
        unseen=1000 * number if chance.random() < 0.1 else 0,
        crowded={"bob": 2} if chance.random() < 0.1 else {},
        deleted=("bob",) if chance.random() < 0.1 else (),
        history=tuple(an_entry() for _ in range(chance.randrange(4))),
    )


def seen() -> list[tuple[str, bytes]]:
    """Whatever may have been seen."""
    return [(sender, bytes([number])) for sender in (UNREAD, *PEOPLE) for number in range(3)]


class PendingCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir(mode=0o700, parents=True)
        self.vault = Vault(self.folder)
        self.addCleanup(lambda: self.vault.close())

    def kill(self) -> None:
        """End it without what :meth:`Vault.close` does first, and open it again."""
        self.vault._stands = False
        self.vault.close()
        self.vault = Vault(self.folder)

    def count(self) -> int:
        """How many changes are put off."""
        found: int = self.vault._database.execute("select count(*) from pending").fetchone()[0]
        return found


class SameTests(PendingCase):
    """Beside a store that puts nothing off.

    :cvar seeds: how many courses; more in ``tests/test_random_whole.py``.
    """

    seeds = 3

    def test_whatever_changes(self) -> None:
        """A store that puts nothing off gives the same answers, whenever they are asked for, and after a crash."""
        self.patch(vault_pending, "MOST", 5)
        for seed in range(self.seeds):
            chance, other = Random(seed), MemoryStore()
            self.setUp()
            for _ in range(40):
                change = a_change(chance)
                for store in (self.vault, other):
                    store.commit(change)
                for entry in change.history:
                    entry.state = "changed by whom it belongs to"
                match chance.randrange(9):
                    case 0:
                        self.kill()
                    case 1:
                        self.vault.tidy()
                    case 2:
                        self.compare(lambda store: store.load().letters, other)
                    case 3:
                        self.compare(self.everything, other)
                    case 4:
                        number = bytes([chance.randrange(5)]) * 16
                        ids = Wanted(ids=(number, number), sender=chance.choice((None, "", *PEOPLE)))
                        self.compare(lambda store, wanted=ids: _shown(store, wanted), other)
            self.compare(self.everything, other)
            self.vault.close()

    def test_order(self) -> None:
        """What was said stands where it was first said, and not where a change came that nobody knew of."""
        other = MemoryStore()
        for sender, text in (("", None), ("bob", "theirs"), ("", "ours"), ("", None)):
            entry = Entry(id=bytes(16), sender=sender, peer="bob", text=text, state=CAME, time=1)
            for store in (self.vault, other):
                store.commit(Change(history=(entry,)))
        self.assertEqual([text for _, _, text, *_ in _shown(self.vault, Wanted())], ["theirs", "ours"])
        self.compare(self.everything, other)

    def compare(self, ask: Any, other: Store) -> None:
        """Ask both."""
        for key in seen():
            self.assertEqual(self.vault.has_seen(*key), other.has_seen(*key), key)
        self.assertEqual(ask(self.vault), ask(other))

    @staticmethod
    def everything(store: Store) -> Any:
        saved = store.load()
        values = {name: value for name, value in saved.values.items() if name in ("name", "epoch")}
        wanted = (Wanted(), Wanted(peer="ann"), Wanted(words=("another",)))
        told = saved.people, saved.conversations, saved.letters, saved.arrived
        return values, told, [_shown(store, one) for one in wanted]


def _shown(store: Store, wanted: Wanted) -> Any:
    return [(one.key, one.peer, one.text, one.state, one.time) for one in store.history(wanted)]


class PutOffTests(PendingCase):
    def say(self, number: int, size: int = 10) -> None:
        entry = Entry(id=number.to_bytes(16, "big"), sender="bob", peer="bob", text="x" * size, state=CAME, time=number)
        self.vault.commit(Change(history=(entry,), letters={number: Letter(number=number)}))

    def test_bound(self) -> None:
        """So many are put off, then all are put in; and bytes are counted, too."""
        counts = []
        for number in range(2 * vault_pending.MOST + 4):
            self.say(number)
            counts.append(self.count())
        self.assertEqual(counts, [*range(1, vault_pending.MOST + 1), 0] * 2 + [1, 2])
        for number in range(1000, 1012):
            self.say(number, vault_pending.LARGE - 1000)
        self.assertLess(self.count(), 10)

    def test_large(self) -> None:
        """What is large is not written twice."""
        self.say(1)
        self.say(2, vault_pending.LARGE)
        self.assertEqual(self.count(), 0)
        self.assertEqual(len(self.vault.history(Wanted())), 2)

    def test_nothing_is_left(self) -> None:
        """In quiet nothing is put off any more; nor in a vault that is closed, or opened again after a crash."""
        for end in (self.vault.tidy, self.vault.close, self.kill):
            self.say(1)
            self.assertEqual(self.count(), 1)
            end()
            if end == self.vault.close:
                self.vault = Vault(self.folder)
            self.assertEqual(self.count(), 0)
            self.assertEqual([*self.vault.load().letters], [1])

    def test_what_is_looked_for_by_an_id(self) -> None:
        """To see that a text is not one of those that are put off, they need not be put in."""
        self.say(1)
        number = (7).to_bytes(16, "big")
        self.assertEqual(self.vault.history(Wanted(ids=(number, number))), [])
        self.assertEqual(self.count(), 1)

    def test_one_id_of_two_people(self) -> None:
        """Nor where somebody else has used its id."""
        self.say(1)
        number = (1).to_bytes(16, "big")
        self.assertEqual(self.vault.history(Wanted(sender="", ids=(number, number))), [])
        self.assertEqual(self.count(), 1)
        self.assertEqual(len(self.vault.history(Wanted(sender="bob", ids=(number, number)))), 1)
        self.assertEqual(self.count(), 0)

    def test_full_log(self) -> None:
        """Where there is no room to put it in, the log is emptied all the same, which makes some; then it is put in."""
        self.say(1)

        def full() -> None:
            raise sqlcipher3.OperationalError("database or disk is full")

        patch = self.patch(self.vault, "_settle", full)
        log = self.folder / "vault-wal"
        self.assertGreater(log.stat().st_size, 0)
        self.vault.tidy()
        self.assertEqual((log.stat().st_size, self.count()), (0, 1))
        patch.restore()
        self.vault.tidy()
        self.assertEqual((log.stat().st_size, self.count()), (0, 0))

    def test_migrated(self) -> None:
        """What was put off is of the form of the version before, and goes over to the next with all the rest."""
        self.vault.commit(Change(values={"a": b"old", "b": b"old"}))
        self.vault.load()
        self.vault.commit(Change(values={"b": b"older"}))
        newer = (*MIGRATIONS, ("update facts set value = 'new' where name in ('a', 'b')",))
        self.patch(vault, "migrate", partial(migrate, migrations=newer))
        self.kill()
        saved = self.vault.load().values
        self.assertEqual((saved["a"], saved["b"]), ("new", "new"))
        self.vault._database.execute(f"pragma user_version = {len(MIGRATIONS)}")

    def test_full_disk(self) -> None:
        """What was said can be read though there is no room to put it in; nothing is changed by that."""
        self.say(1)

        def full() -> None:
            raise sqlcipher3.OperationalError("database or disk is full")

        self.patch(self.vault, "_settle", full)
        for wanted in (Wanted(), Wanted(words=("xxxx",)), Wanted()):
            self.assertEqual([one.time for one in self.vault.history(wanted)], [1])
        self.assertEqual(self.count(), 1)
        self.assertRaises(LocalError, self.vault.load)

    def test_refused(self) -> None:
        """A change that cannot be committed is not put off; one that was put off stays so if it cannot be put in."""
        self.say(1)
        run = self.vault._database.execute
        for table, change in (("pending", Change(values={"a": b""})), ("letters", Change(deleted=("x",)))):
            run(f"create temp trigger refuse before insert on {table} begin select raise(abort, 'no'); end")
            with self.assertRaises(LocalError) as caught:
                self.vault.commit(change)
            self.assertIs(caught.exception.code, Code.UNAVAILABLE)
            run("drop trigger refuse")
            self.assertEqual(self.count(), 1)
        self.assertNotIn("a", self.vault.load().values)
        self.assertEqual([*self.vault.load().letters], [1])
