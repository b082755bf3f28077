"""The store in SQLite keeps the contract of all stores; without its thread, see ``test_server_sqlite_tables.py``."""

from __future__ import annotations

import time
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from sims.server.interfaces import Store
from sims.test.sqlite_case import Calls
from sims.test.store_contract import StoreContract


class ThreadTests(StoreContract, SynchronousTestCase):
    """The store has its own thread."""

    def make_store(self) -> Store:
        self.calls = Calls()
        self.sqlite = self.calls.open(Path(self.mktemp()))
        self.sqlite.start()
        return self.sqlite

    def tearDown(self) -> None:
        self.sqlite.close(lambda _: None)

    def settle(self) -> None:
        """Everything that was asked for before is answered when one more question is."""
        answered: list[object] = []
        self.sqlite.find("", answered.append)
        end = time.monotonic() + 10
        while not answered and time.monotonic() < end and not self.sqlite._closing:
            time.sleep(0.0005)
            self.calls.call()
        time.sleep(0.05 if self.sqlite._closing else 0)
        self.calls.call()
        self.assertEqual((self.calls.broken, self.calls.failed), ([], []))
