"""Tests of what stores keep of what was said: every store gives the same answers."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from sims.client import vault, vault_history
from sims.client.history import CAME, Entry, Wanted, words
from sims.client.store import Change, MemoryStore, Store
from sims.client.vault import Vault


def entry(number: int, text: str | None, *, peer: str = "bob", sender: str = "bob", state: str = CAME) -> Entry:
    """What somebody said, or with no text what has become of it."""
    return Entry(id=number.to_bytes(16, "big"), sender=sender, peer=peer, text=text, state=state, time=number)


class Contract:
    """What every store does."""

    store: Store

    def note(self, *entries: Entry) -> None:
        self.store.commit(Change(history=entries))

    def found(self, **wanted: Any) -> list[tuple[int, str | None, str]]:
        """The time, text and state of what is found."""
        return [(one.time, one.text, one.state) for one in self.store.history(Wanted(**wanted))]

    def test_what_has_changed(self: Any) -> None:
        """It keeps its text and its place; what nobody knows of is not made by a change."""
        self.note(entry(1, "one"), entry(2, "two"))
        self.note(entry(1, None, state="changed"), entry(3, None))
        self.assertEqual(self.found(), [(1, "one", "changed"), (2, "two", CAME)])
        numbers = [one.number for one in self.store.history(Wanted())]
        self.assertEqual(numbers, sorted(set(numbers)))

    def test_one_id_of_several_people(self: Any) -> None:
        """Whoever takes the id of another's text takes nothing of his."""
        self.note(entry(1, "of bob"), entry(1, "of eve", peer="eve", sender="eve"), entry(1, "ours", sender=""))
        number = (1).to_bytes(16, "big")
        self.assertEqual(self.found(ids=(number, number), sender="eve"), [(1, "of eve", CAME)])
        self.assertEqual(self.found(peer="bob"), [(1, "of bob", CAME), (1, "ours", CAME)])

    def test_an_id_that_is_used_again(self: Any) -> None:
        """What somebody has said stays as it was, wherever it is looked for; one of ours goes on."""
        self.note(entry(1, "first"), entry(2, "ours", sender=""))
        again = entry(1, "again", state="again")
        again.time = 9
        self.note(again)
        self.note(again, entry(2, "ours", sender="", state="sent"))
        self.assertEqual(self.found(), [(1, "first", CAME), (2, "ours", "sent")])
        self.assertEqual(self.found(words=("again",)), [])
        self.assertEqual(self.found(words=("first",)), [(1, "first", CAME)])
        self.note(entry(1, None, state="changed"))
        self.assertEqual(self.found(peer="bob"), [(1, "first", "changed"), (2, "ours", "sent")])

    def test_pages(self: Any) -> None:
        """The newest before a number, the oldest behind one; in order both."""
        self.note(*(entry(number, str(number)) for number in range(1, 8)))
        numbers = [one.number for one in self.store.history(Wanted())]
        for wanted, expected in (
            ({"limit": 2}, [6, 7]),
            ({"limit": 2, "before": numbers[5]}, [4, 5]),
            ({"limit": 2, "before": numbers[0]}, []),
            ({"limit": 2, "after": 0}, [1, 2]),
            ({"limit": 9, "after": numbers[4]}, [6, 7]),
            ({"peer": "eve"}, []),
            ({"ids": ((2).to_bytes(16, "big"), (4).to_bytes(16, "big"))}, [2, 3, 4]),
            ({"ids": ((2).to_bytes(16, "big"), (4).to_bytes(16, "big")), "peer": "bob", "limit": 1}, [4]),
            ({"ids": ((2).to_bytes(16, "big"), (4).to_bytes(16, "big")), "peer": "eve"}, []),
        ):
            self.assertEqual([time for time, _, _ in self.found(**wanted)], expected, wanted)

    def test_search(self: Any) -> None:
        """Words or their beginnings, all of them, whatever signs and accents stand about them."""
        texts = [
            'Grüße from "Köln"',
            "no_such* (thing) AND that OR NOT near",
            "naïve café—déjà vu",
            "Привет, мир",
            "नमस्ते दुनिया",
            "text: -history",
            "",
            "a'); drop table history; --",
        ]
        self.note(*(entry(number, text) for number, text in enumerate(texts, 1)))
        for text, expected in (
            ("GRUSSE", [1]),
            ("grüß koln", [1]),
            ("such", [2]),
            ("that or", [2]),
            ("not", [2]),
            ("deja naive", [3]),
            ("vu cafe", [3]),
            ("мир", [4]),
            ("दुनिया", [5]),
            ("text history", [6]),
            ("history", [6, 8]),
            ("drop table", [8]),
            ("grusse such", []),
            ("istory", []),
        ):
            self.assertEqual([time for time, _, _ in self.found(words=words(text))], expected, text)
            self.assertEqual(self.found(words=words(text), peer="eve"), [])

    def test_deleted(self: Any) -> None:
        """Of one person, nothing of it is found; what is said in the same commit is."""
        self.note(entry(1, "old secret"), entry(2, "other secret", peer="eve", sender="eve"))
        self.store.commit(Change(deleted=("bob",), history=(entry(1, None), entry(3, "new secret"))))
        self.assertEqual([time for time, _, _ in self.found(words=("secret",))], [2, 3])
        self.assertEqual(self.found(peer="bob"), [(3, "new secret", CAME)])
        self.assertEqual(self.found(words=("old",)), [])
        self.note(entry(1, "again"))
        self.assertEqual([time for time, _, _ in self.found(peer="bob")], [3, 1])


class MemoryTests(Contract, SynchronousTestCase):
    def setUp(self) -> None:
        self.store = MemoryStore()


class VaultTests(Contract, SynchronousTestCase):
    """The one in a vault.

    :cvar seeds: how many courses beside a store without an index; more in ``tests/test_random_whole.py``.
    """

    seeds = 2

    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir(mode=0o700, parents=True)
        self.store = self.vault = Vault(self.folder)
        self.addCleanup(lambda: self.vault.close())

    def test_lasts(self) -> None:
        """All of it, index and order, over closing; and the database is whole by its own rules."""
        self.note(entry(1, "Grüße"), entry(2, "secret"))
        self.store.commit(Change(deleted=("eve",)))
        self.vault.close()
        self.store = self.vault = Vault(self.folder)
        self.assertEqual(self.found(words=("grusse",)), [(1, "Grüße", CAME)])
        self.assertEqual(self.vault._database.execute("pragma integrity_check").fetchall(), [("ok",)])
        self.note(entry(3, "more"))
        self.assertEqual([time for time, _, _ in self.found()], [1, 2, 3])

    def test_index(self) -> None:
        """Whenever words are indexed, those are found that a store without an index finds."""
        self.patch(vault, "MOST_UNINDEXED", 3)
        for seed in range(self.seeds):
            chance, other = Random(seed), MemoryStore()
            for peer in "ab":
                self.store.commit(Change(deleted=(peer,)))
            for number in range(1, 61):
                peer = chance.choice("ab")
                deleted = (chance.choice("ab"),) if chance.random() < 0.15 else ()
                entries = tuple(
                    entry(100 * number + count, f"word{chance.randrange(4)} of {peer}", peer=peer, sender=peer)
                    for count in range(chance.randrange(4))
                )
                for store in (self.store, other):
                    store.commit(Change(deleted=deleted, history=entries))
                happens = chance.randrange(6)
                if happens == 0:
                    self.vault.tidy()
                elif happens == 1:
                    self.vault.close()
                    self.store = self.vault = Vault(self.folder)
                elif happens == 2:
                    wanted = Wanted(words=(f"word{chance.randrange(4)}",))
                    times = [[one.time for one in store.history(wanted)] for store in (self.store, other)]
                    self.assertEqual(*times)
            self.vault.tidy()
            self.assertEqual(vault_history.unindexed(self.vault._database), 0)
            self.vault._database.execute(
                "insert into history_words (history_words, rank) values ('integrity-check', 1)"
            )

    def test_indexed_in_time(self) -> None:
        """However long nobody searches, no more than so many texts wait for it."""
        for number in range(450):
            self.note(entry(number, "word"))
        self.assertLess(vault_history.unindexed(self.vault._database), vault.MOST_UNINDEXED)
        self.assertEqual(len(self.found(words=("word",), limit=1000)), 450)
