"""One-time keys reach the server, whatever it has lost, and whenever a connection or the client ends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

from sims import inner
from sims.client import publishing
from sims.crypto import prekeys
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

    def test_a_connection_that_always_breaks(self) -> None:
        """The same go out on each: there are no more private halves, and the server has them once it stays."""
        lost: list[inner.PublishData] = []
        halves: list[int] = []

        def take(sender: str, message: inner.FromClient) -> bool:
            if not isinstance(message, inner.Publish) or not message.data.one_time_keys or len(lost) == 5:
                return False
            lost.append(message.data)
            halves.append(len(self.ann.messenger._desk.talks.prekeys.one_time_ids))
            self.world.later(self.ann.cut)
            return True

        self.forget()
        self.world.intercept(take)
        self.ann.cut()
        self.until(lambda: len(lost) == 5)
        self.check()
        halves.append(len(self.ann.messenger._desk.talks.prekeys.one_time_ids))
        self.assertEqual(halves, [2] * 6)
        self.assertEqual(len(self.ann.way.attempts), 2 + 5)  # the last one stays
        self.assertEqual([one.one_time_keys for one in lost], [lost[0].one_time_keys] * 5)
        self.talk(self.world.user("bob"), self.ann)

    def test_only_the_answer_is_lost(self) -> None:
        """The server had them, and gave one away: those that were used by then do not go out again."""
        publish = self.server.publish
        lost: list[bytes] = []
        used = False

        def no_answer(owner: str, bundle: Any, keys: Sequence[bytes], done: Callable[[bool], None]) -> None:
            """To the first keys, nor to the bundle on the next connection until the key was used."""
            silent = owner == self.ann.id and not used and bool(keys or lost)
            publish(owner, bundle, keys, lambda taken: None if silent else done(taken))
            if silent and keys:
                lost.extend(keys)
                self.world.later(self.ann.cut)

        self.forget()
        self.patch(self.server, "publish", no_answer)
        self.ann.cut()
        self.until(lambda: bool(lost))
        self.world.user("bob").send(self.ann, "hello")
        self.until(lambda: self.ann.texts() == ["hello"])
        self.assertEqual((len(lost), self.keys()), (1, 0))
        used = True
        self.server._keys[self.ann.id].spent.clear()
        self.ann.cut()
        self.check()
        self.assertNotIn(lost[0], self.server._keys[self.ann.id].one_time.values())
        self.assertEqual(self.keys(), 1)

    def test_a_smaller_frame(self) -> None:
        """Those that were lost go out in as many messages as the next server wants."""
        self.patch(publishing, "MAX_PUBLISHED", 5)
        self.forget()

        def change() -> None:
            self.patch(publishing, "MAX_PUBLISHED", 2)
            self.ann.cut()

        published = self.lose(change, keys=True)
        self.ann.cut()
        self.until(lambda: self.keys() == 5)
        self.check()
        self.assertEqual([len(one.data.one_time_keys) for one in published], [0, 0, 2, 2, 1])

    def test_rounds_are_counted(self) -> None:
        """After a client that ended too early there are three, however often the connection breaks between them."""
        lost: list[int] = []

        def take(sender: str, message: inner.FromClient) -> bool:
            if isinstance(message, inner.Publish) and message.data.one_time_keys:
                lost.append(self.keys())
                happens = {1: self.ann.restart, 3: self.ann.cut, 5: self.ann.cut}.get(len(lost))
                if happens is not None:
                    self.world.later(happens)
                    return True
            return False

        self.forget()
        self.world.intercept(take)
        self.ann.cut()
        self.check()
        self.assertEqual(lost, [0, 0, 1, 1, 2, 2])
        self.assertEqual(self.keys(), 3)
        self.assertEqual(len(self.ann.messenger._desk.talks.prekeys.one_time_ids), 2 + 3)

    def test_a_store_that_was_copied(self) -> None:
        """Another client has used it meanwhile: what this one did not get rid of may have numbers of the other's."""
        lost: list[bytes] = []

        def another() -> None:
            self.server._accounts[self.ann.id] = self.server._accounts[self.ann.id]._replace(epoch=1000)
            self.ann.cut()

        def take(sender: str, message: inner.FromClient) -> bool:
            if lost or not isinstance(message, inner.Publish) or not message.data.one_time_keys:
                return False
            lost.extend(bytes(key) for key in message.data.one_time_keys)
            self.world.later(another)
            return True

        self.forget()
        self.world.intercept(take)
        self.ann.cut()
        self.check()
        self.assertEqual(self.keys(), publishing.ROUNDS)
        self.assertNotIn(lost[0], self.server._keys[self.ann.id].one_time.values())

    def test_private_halves_have_an_end(self) -> None:
        """Of a server that sees her for the first time on every connection, and keeps nothing: the newest stay."""
        self.patch(prekeys, "MAX_HALVES", 3)
        for _ in range(5):
            self.forget()
            before = self.ann.messenger._desk.talks.prekeys.one_time_ids
            self.ann.cut()
            self.check()
            after = self.ann.messenger._desk.talks.prekeys.one_time_ids
            self.assertEqual(len(after - before), 1)
        self.assertEqual(len(after), 3)

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
