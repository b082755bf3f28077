"""One-time keys reach the server, whatever it has lost, and whenever a connection or the client ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from sims import inner
from sims.client import publishing
from sims.errors import Code
from sims.server.memory import MemoryStore
from sims.test.modern_world import WorldTestCase, refusal


class OwedTests(WorldTestCase):
    """One-time keys whose private halves are there, and that the server does not have."""

    def setUp(self) -> None:
        super().setUp()
        self.ann = self.world.user("ann")

    @property
    def server(self) -> MemoryStore:
        return cast("MemoryStore", self.world.store)

    def keys(self) -> int:
        """How many of hers the server has."""
        return len(self.server._keys[self.ann.id].one_time)

    def forget(self) -> None:
        """The server goes on from a backup: it has none of her one-time keys, and has seen no epoch."""
        self.server._accounts[self.ann.id] = self.server._accounts[self.ann.id]._replace(epoch=None)
        self.server._keys[self.ann.id].one_time.clear()

    def lose(self, happens: Callable[[], None], *, keys: bool) -> list[inner.Publish]:
        """From now on the first bundle, or the first with keys, does not reach the server: this happens instead.

        :returns: where those that came are noted.
        """
        lost: list[inner.Publish] = []
        published: list[inner.Publish] = []

        def take(sender: str, message: inner.FromClient) -> bool:
            if not isinstance(message, inner.Publish) or sender != self.ann.id:
                return False
            if lost or bool(message.data.one_time_keys) is not keys:
                published.append(message)
                return False
            lost.append(message)
            self.world.later(happens)
            return True

        self.world.intercept(take)
        return published

    def check(self) -> None:
        """The server has her keys again, and she owes it none."""
        self.until(lambda: self.keys() > 0)
        self.world.run_for(5)
        self.assertNotIn("outdated", self.ann.store.load().values)
        self.assertEqual(self.ann.problems(), [])

    def test_a_server_from_a_backup(self) -> None:
        """It is given keys, though there are enough whose halves nobody has used."""
        self.forget()
        self.ann.cut()
        self.check()
        self.talk(self.world.user("bob"), self.ann)

    def test_the_connection_ends_before_they_are_published(self) -> None:
        """They are, on the next, whose server knows an epoch by then."""
        for keys in (False, True):
            self.forget()
            self.lose(self.ann.cut, keys=keys)
            self.ann.cut()
            self.check()

    def test_the_client_ends_before_they_are_published(self) -> None:
        for keys in (False, True):
            self.forget()
            self.lose(self.ann.restart, keys=keys)
            self.ann.cut()
            self.check()

    def test_ordinary_ones_are_lost_with_the_connection(self) -> None:
        """Those that the server was to have when few were left."""
        self.lose(self.ann.cut, keys=True)
        self.talk(self.world.user("bob"), self.ann)  # it takes the only one
        self.check()

    def test_nothing_is_owed_twice(self) -> None:
        """A connection like all others publishes the bundle alone."""
        published = self.lose(lambda: None, keys=True)
        self.ann.cut()
        self.world.run_for(30)
        self.assertEqual([len(one.data.one_time_keys) for one in published], [0])

    def test_a_server_that_takes_none(self) -> None:
        """There is an end to it, and the next connection tries again."""
        seen: list[int] = []

        def take(_: str, message: inner.FromClient) -> inner.Error | bool:
            if not isinstance(message, inner.Publish):
                return False
            seen.append(len(message.data.one_time_keys))
            return refusal(message.mid, Code.POLICY) if message.data.one_time_keys else False

        self.forget()
        self.world.intercept(take)
        self.ann.cut()
        self.world.run_for(300)
        self.assertLessEqual(len(seen), 2 * publishing.ATTEMPTS + 2)
        self.assertIn("outdated", self.ann.store.load().values)
