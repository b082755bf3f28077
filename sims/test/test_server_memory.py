"""The store in memory."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from sims.server.interfaces import Store
from sims.server.memory import MemoryStore
from sims.test.late_store import LateStore
from sims.test.store_contract import StoreContract


class MemoryTests(StoreContract, SynchronousTestCase):
    def make_store(self) -> Store:
        return MemoryStore()


class LateTests(StoreContract, SynchronousTestCase):
    """The store of the tests that has its answers wait keeps the contract, too."""

    def make_store(self) -> Store:
        self.late = LateStore()
        return self.late

    def settle(self) -> None:
        self.late.settle()
