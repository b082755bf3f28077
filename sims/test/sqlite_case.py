"""A store in SQLite whose turns a test has, and what it hands back."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from sims.server.sqlite import SqliteStore
from sims.test.store_contract import ANN, BOB, DAY, NOW, account


class Calls:
    """What a reactor does for the store: it calls what was left for it, when it is told to."""

    def __init__(self) -> None:
        self.left: list[Callable[[], object]] = []
        self.failed: list[str] = []
        self.broken: list[Exception] = []
        self.foreign: list[None] = []
        self.now = 0.0
        self.wall = float(NOW)

    def open(self, path: Path) -> SqliteStore:
        """A store on a file, whose calls these are. It waits for no disk: ``tests/test_crashes.py`` cuts power."""
        store = SqliteStore.open(
            path,
            reserve=4096,
            deliver=self.left.append,
            failed=self.failed.append,
            broken=self.broken.append,
            foreign_change=lambda: self.foreign.append(None),
            life=30 * DAY,
            clock=lambda: self.now,
            wall=lambda: self.wall,
        )
        store.tables.connection.execute("pragma synchronous = off")
        return store

    def call(self) -> None:
        """Call what was left."""
        left, self.left[:] = [*self.left], []
        for act in left:
            act()


class SqliteCase(SynchronousTestCase):
    """A store in a file of an own folder, with the accounts of Ann and Bob."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.path = self.folder / "server.db"
        self.calls = Calls()
        self.store = self.open(self.path)
        for number, name in ((ANN, "ann"), (BOB, "bob")):
            self.ask(self.store.register, account(number, name), None)

    def open(self, path: Path) -> SqliteStore:
        """A store on a file."""
        store = self.calls.open(path)
        self.addCleanup(store.tables.connection.close)
        return store

    def settle(self, store: SqliteStore | None = None) -> None:
        """Have a store do what it was asked for."""
        store = store or self.store
        while not store._queue.empty():
            store.turn()
            self.calls.call()

    def ask(self, request: Callable[..., None], *args: Any) -> Any:
        """Ask for something; gives the result."""
        results: list[Any] = []
        request(*args, results.append)
        self.settle(request.__self__)  # type: ignore[attr-defined]
        self.assertEqual(len(results), 1)
        return results[0]

    def close(self) -> None:
        """Bring the store to its end."""
        done: list[None] = []
        self.store.close(done.append)
        self.store.run()
        self.calls.call()
        self.assertEqual((done, self.calls.failed), ([None], []))

    def copied(self) -> SqliteStore:
        """What a crash at this moment would leave, opened."""
        other = Path(self.mktemp())
        shutil.copytree(self.folder, other)
        return self.open(other / self.path.name)

    def rows(self, query: str) -> list[Any]:
        """What is in the tables."""
        return self.store.tables.connection.execute(query).fetchall()

    def on_disk(self, data: bytes) -> bool:
        """Whether these bytes stand in any of the files."""
        return any(data in path.read_bytes() for path in self.folder.iterdir())
