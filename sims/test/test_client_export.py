"""Tests of :mod:`sims.client.export`, and of how every store keeps what was said."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any, cast

from twisted.trial.unittest import SynchronousTestCase

from sims.client import export as exports
from sims.client.events import Delivery
from sims.client.export import as_json, export
from sims.client.history import CAME, UNREADABLE, Entry, Wanted, nameless
from sims.client.store import Change, MemoryStore, Person, Store
from sims.client.vault import Vault
from sims.console.view import export_to_text
from sims.errors import Code, LocalError
from sims.test.builders import refusal
from sims.test.history_case import HistoryTestCase

ANN, BOB = 32 * "a", 32 * "b"


def mid(number: int) -> bytes:
    return number.to_bytes(16, "big")


def ours(number: int, peer: str, text: str | None, **more: Any) -> Entry:
    return Entry(**{"id": mid(number), "peer": peer, "text": text, "state": "accepted", "time": number, **more})


def theirs(number: int, peer: str, text: str, **more: Any) -> Entry:
    fields = {"id": mid(number), "peer": peer, "sender": peer, "text": text, "state": CAME, "time": number, **more}
    return Entry(**fields)


#: Two people, one of whom nobody knows yet, and what could not be read.
SAID = (
    theirs(1, ANN, "first \x1b[31m\nof ann", verified=True),
    ours(2, BOB, "to bob"),
    ours(3, ANN, "\ud83d\ude00 é".encode("utf-16", "surrogatepass").decode("utf-16")),
    theirs(4, BOB, "", state=UNREADABLE, code="malformed"),
    ours(5, nameless("carol"), "who?", name="carol", state="failed", code="unknown-recipient", times={"failed": 6}),
    theirs(6, ANN, "last", order="gap", missing=(7, 8)),
)
PEOPLE = {ANN: Person(id=ANN, name="ann"), BOB: Person(id=BOB, name="bob")}


class StoresTestCase(SynchronousTestCase):
    """A store in memory and a vault, in which the same was said."""

    def stores(self) -> list[Store]:
        folder = Path(cast("str", self.mktemp()))
        folder.mkdir(mode=0o700, parents=True)
        vault = Vault(folder)
        self.addCleanup(vault.close)
        stores: list[Store] = [MemoryStore(), vault]
        for store in stores:
            store.commit(Change(people=cast("dict[str, Person | None]", PEOPLE), history=SAID))
        return stores


class KeepsTests(StoresTestCase):
    """Both keep alike what was said."""

    def ids(self, store: Store, **wanted: Any) -> list[int]:
        return [int.from_bytes(entry.id, "big") for entry in store.history(Wanted(**wanted))]

    def test_finds(self) -> None:
        for store in self.stores():
            for wanted, found in (
                ({}, [1, 2, 3, 4, 5, 6]),
                ({"limit": 2}, [5, 6]),
                ({"peer": ANN}, [1, 3, 6]),
                ({"peer": ANN, "limit": 2}, [3, 6]),
                ({"peer": ANN, "before": 6, "limit": 1}, [3]),
                ({"after": 0, "limit": 2}, [1, 2]),
                ({"after": 2, "limit": 2}, [3, 4]),
                ({"after": 6}, []),
                ({"sender": BOB}, [4]),
                ({"sender": ""}, [2, 3, 5]),
                ({"ids": (mid(2), mid(4))}, [2, 3, 4]),
                ({"words": ("ann", "fir")}, [1]),
                ({"words": ("ann", "bob")}, []),
                ({"words": ("e",)}, [3]),
                ({"words": ("NEAR",)}, []),
            ):
                self.assertEqual(self.ids(store, **wanted), found, (store, wanted))

    def test_gives_all_of_it(self) -> None:
        for store in self.stores():
            found = store.history(Wanted())
            for entry in found:
                self.assertEqual(entry.number, entry.time, store)
                entry.number = 0
            self.assertEqual(tuple(found), SAID)

    def test_changes(self) -> None:
        """A note without a text leaves the text; it has its place; of what is not kept it makes nothing."""
        for store in self.stores():
            changed = ours(2, BOB, None, state="delivered", times={"delivered": 9})
            store.commit(Change(history=(changed, ours(99, BOB, None))))
            found = store.history(Wanted(peer=BOB))[0]
            self.assertEqual(
                (found.number, found.text, found.state, found.times), (2, "to bob", "delivered", {"delivered": 9})
            )
            self.assertEqual(self.ids(store), [1, 2, 3, 4, 5, 6])
            self.assertEqual(self.ids(store, words=("bob",)), [2])

    def test_deletes(self) -> None:
        """One conversation; what is said in the same transaction is of the next, and a number never comes again."""
        for store in self.stores():
            store.commit(Change(deleted=(ANN,), history=(ours(7, ANN, "anew"),)))
            self.assertEqual(self.ids(store), [2, 4, 5, 7])
            self.assertEqual((self.ids(store, words=("last",)), self.ids(store, words=("anew",))), ([], [7]))
            self.assertEqual(store.history(Wanted(peer=ANN))[0].number, 7)


class ExportTests(StoresTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.patch(exports, "MOST", 2)  # many pages
        self.folder = Path(cast("str", self.mktemp()))
        self.folder.mkdir(parents=True)
        self.path = self.folder / "said"

    def test_json(self) -> None:
        """An object a message, conversation by conversation; for its owner alone, whatever the umask."""
        self.addCleanup(os.umask, os.umask(0))
        for store in self.stores():
            self.assertEqual(export(store, self.path, as_json), 6)
            found = [json.loads(line) for line in self.path.read_text("ascii").splitlines()]
            self.assertEqual([one["time"] for one in found], [1, 3, 6, 2, 4, 5])
            self.assertEqual([one["text"] for one in found], [SAID[one["time"] - 1].text for one in found])
            self.assertEqual(found[0]["from"], {"id": ANN, "name": "ann"})
            self.assertEqual(found[2]["missing"], [7, 8])
            self.assertEqual((found[3]["to"], found[3]["state"]), ({"id": BOB, "name": "bob"}, "accepted"))
            self.assertEqual((found[4]["state"], found[4]["code"]), ("unreadable", "malformed"))
            self.assertEqual((found[5]["to"], found[5]["times"]), ({"id": "", "name": "carol"}, {"failed": 6}))
            self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), 0o600)

    def test_text(self) -> None:
        """To read: a title for each conversation, and nothing in it that would act on a terminal."""
        for store in self.stores():
            self.assertEqual(export(store, self.path, export_to_text), 6)
            text = self.path.read_text("utf-8")
            self.assertEqual(
                [line for line in text.splitlines() if line.startswith("*")],
                [f"* what was said with {who}" for who in (f"ann ({ANN[:8]}...)", f"bob ({BOB[:8]}...)", "carol")],
            )
            self.assertNotIn("\x1b", text)
            self.assertIn("[failed: unknown-recipient]: who?\n", text)
            self.assertIn("[missing before this: numbers 7, 8]: last\n", text)

    def test_nothing(self) -> None:
        self.assertEqual(export(MemoryStore(), self.path, as_json), 0)
        self.assertEqual(self.path.read_bytes(), b"")

    def test_whole_or_not_at_all(self) -> None:
        """What was there stays when the store, or the disk, fails in between; and nothing lies beside it."""
        self.path.write_bytes(b"before")
        (store, _) = self.stores()
        asked = 0

        def history(wanted: Wanted) -> list[Entry]:
            nonlocal asked
            asked += 1
            if asked > 5:
                raise LocalError(Code.UNAVAILABLE, "cannot be read")
            return MemoryStore.history(cast("MemoryStore", store), wanted)

        self.patch(store, "history", history)
        self.assertIs(refusal(LocalError, export, store, self.path, as_json).code, Code.UNAVAILABLE)
        self.assertEqual((self.path.read_bytes(), os.listdir(self.folder)), (b"before", ["said"]))
        error = refusal(LocalError, export, MemoryStore(), self.folder / "none" / "said", as_json)
        self.assertIs(error.code, Code.UNAVAILABLE)
        self.assertIn("No such file", error.text)


class TalkTests(HistoryTestCase):
    def test_a_talk(self) -> None:
        """What a client has kept comes out of its store."""
        self.say(self.ann, self.bob, "one")
        self.say(self.bob, self.ann, "two")
        found = [json.loads(line) for line in as_json(self.ann.store)]
        self.assertEqual(
            [(one["text"], one["state"], one.get("to", one.get("from"))) for one in found],
            [
                (text, state, {"id": self.bob.id, "name": "bob"})
                for text, state in (("one", Delivery.DELIVERED), ("two", CAME))
            ],
        )
