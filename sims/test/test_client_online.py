"""Tests of :mod:`sims.client.online` and the driver of sims/2: connections, invitations, servers of every kind."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

from sims import inner, specs
from sims.client import events, online, publishing
from sims.client.online import room
from sims.crypto import prekeys
from sims.crypto.identity import ServerLink
from sims.errors import Code, LocalError, SimsError
from sims.server.limits import Frame
from sims.server.registration import Mode, hashed
from sims.test.modern_world import LIFTED, User, World, WorldTestCase, refusal

DAY = 86_400
_LETTERS = (inner.ClientCom, inner.ClientConnect)


class ConnectTests(WorldTestCase):
    """Whom the server takes in, and whom the client takes for the server."""

    def test_another_server(self) -> None:
        """Refused before it learns anything, told once, and not tried again."""
        link = self.world.link()
        ann = User(self.world, "ann", link=ServerLink(link.addresses, "a" * 32, None, False)).start()
        self.world.run_for(300)
        self.assertEqual(ann.problems(), ["not-authenticated"])
        self.assertEqual((len(ann.way.attempts), ann.client.gave_up), (1, True))
        self.assertEqual(self.world.store._accounts, {})  # type: ignore[attr-defined]

    def test_no_common_spec(self) -> None:
        self.world.modern.specs = specs.MODERN[:1]
        ann = User(self.world, "ann", allowed=specs.MODERN[1:]).start()
        self.world.run_for(300)
        self.assertEqual((ann.problems(), len(ann.way.attempts)), (["no-common-spec"], 1))

    def test_awaited(self) -> None:
        """A program hears of the first attempt."""
        ann = User(self.world, "ann")
        ready = ann.client.connect()
        self.world.settle()
        self.assertEqual(self.successResultOf(ready).id, ann.id)
        eve = User(self.world, "ann", seed="eve")
        refused = eve.client.connect()
        self.world.settle()
        error: SimsError = self.failureResultOf(refused, SimsError).value
        self.assertEqual(error.code, Code.NAME_TAKEN)

    def test_name_taken(self) -> None:
        self.world.user("ann")
        eve = User(self.world, "ANN", seed="eve").start()
        self.world.run_for(300)
        self.assertEqual((eve.problems(), eve.client.gave_up, len(eve.way.attempts)), (["name-taken"], True, 1))

    def test_name_invalid(self) -> None:
        eve = User(self.world, "no name").start()
        self.world.run_for(300)
        self.assertEqual((eve.problems(), len(eve.way.attempts)), (["name-invalid"], 1))

    def test_replaced(self) -> None:
        """Of two clients with one identity the newer stays; the older says so, and does not come back."""
        ann = self.world.user("ann")
        other = User(self.world, "ann", ann.store.copy(), seed="other").start()
        waiting = ann.client.send("bob", "hello")
        self.world.run_for(120)
        self.assertEqual(ann.problems()[-1], "replaced")
        self.assertTrue(ann.client.gave_up)
        self.failureResultOf(waiting, LocalError, SimsError)
        self.assertEqual(len(other.all(events.Ready)), 1)
        self.assertIsNotNone(other.messenger.ready)

    def test_a_server_that_calls_us_something(self) -> None:
        """A name that can be none is no name."""
        for name in ("", "a\nb", "x" * 200, "\u202e"):
            world = World()
            ann = User(world, "ann")
            account = world.modern_relay.admit

            def admit(claim: Any, done: Any, name: str = name, account: Any = account) -> None:
                account(claim, lambda result: done(result._replace(name=name)))

            self.patch(world.modern_relay, "admit", admit)
            ann.start()
            world.run_for(2)
            self.assertEqual((ann.problems(), ann.messenger.name), (["malformed"], "ann"))

    def test_an_epoch_beyond_all(self) -> None:
        """A server that says that it has seen the greatest there is: one can connect again, and again."""
        ann, bob = self.world.users("ann", "bob")
        for _ in range(3):
            account = self.world.store._accounts[ann.id]  # type: ignore[attr-defined]
            self.world.store._accounts[ann.id] = account._replace(epoch=2**64 - 1)  # type: ignore[attr-defined]
            ann.restart()
            self.world.run_for(2)
            self.talk(ann, bob)


class InviteTests(WorldTestCase):
    """Invitations."""

    def setUp(self) -> None:
        super().setUp()
        self.world = World(mode=Mode.INVITE)
        self.tokens = [self.world.invite(f"token-{number}") for number in range(10)]

    def local(self, stale: int = 0) -> Callable[[], str]:
        """What a server on this machine has written: so many times what it was before somebody used it."""
        asked = itertools.count()

        def invite() -> str:
            if next(asked) < stale:
                return self.tokens[0]
            spent = self.world.store._spent  # type: ignore[attr-defined]
            return next(token for token in self.tokens if hashed(token) not in spent)

        return invite

    def test_from_the_link(self) -> None:
        """Used once; without one, or with a used one, there is no way in, and no second attempt."""
        ann = self.world.user("ann", link=self.world.link("token-0"))
        self.assertEqual((len(ann.all(events.Ready)), self.world.spent), (1, 1))
        for name, token, code in (
            ("bob", None, "invite-required"),
            ("bob", "never", "invite-required"),
            ("bob", "token-0", "invite-used"),
        ):
            user = User(self.world, name, link=self.world.link(token)).start()
            self.world.run_for(300)
            self.assertEqual((user.problems(), len(user.way.attempts), user.client.gave_up), ([code], 1, True))
        ann.restart()
        self.world.run_for(1)
        self.assertEqual((len(ann.all(events.Ready)), self.world.spent), (2, 1))

    def test_somebody_was_quicker(self) -> None:
        """Two read the same link; the second looks for another invitation, and nobody is told."""
        ann = User(self.world, "ann", invite=self.local()).start()
        bob = User(self.world, "bob", invite=self.local(stale=2)).start()
        self.world.run_for(5)
        self.assertEqual([len(user.all(events.Ready)) for user in (ann, bob)], [1, 1])
        self.assertEqual((ann.problems(), bob.problems(), self.world.spent), ([], [], 2))

    def test_awaited_when_somebody_was_quicker(self) -> None:
        self.world.user("ann", link=self.world.link("token-0"))
        bob = User(self.world, "bob", invite=self.local(stale=4))
        ready = bob.client.connect()
        self.world.run_for(5)
        self.assertEqual(self.successResultOf(ready).name, "bob")

    def test_there_is_never_another(self) -> None:
        """It does not look for ever."""
        self.world.user("ann", link=self.world.link("token-0"))
        bob = User(self.world, "bob", invite=lambda: "token-0").start()
        self.world.run_for(300)
        self.assertEqual((bob.problems(), bob.client.gave_up), (["invite-used"], True))
        self.assertLessEqual(len(bob.way.attempts), online.INVITE_ATTEMPTS + 1)

    def test_the_server_has_lost_its_accounts(self) -> None:
        """Who was a member comes back with another invitation, and publishes anew what the server has lost."""
        ann, bob = (self.world.user(name, invite=self.local()) for name in ("ann", "bob"))
        self.talk(ann, bob)
        for user in (ann, bob):
            self.world.store.delete(user.id, lambda _: None)
            user.cut()
        self.world.run_for(10)
        self.assertEqual([len(user.all(events.Ready)) for user in (ann, bob)], [2, 2])
        self.assertEqual((ann.problems(), bob.problems()), ([], []))
        self.assertTrue(self.world.store._keys[ann.id].one_time)  # type: ignore[attr-defined]
        self.talk(ann, bob)

    def test_lost_accounts_and_no_invitation(self) -> None:
        """It is told, and given up."""
        ann = self.world.user("ann", link=self.world.link("token-0"))
        self.world.store.delete(ann.id, lambda _: None)
        ann.cut()
        self.world.run_for(300)
        self.assertEqual((ann.problems()[-1], ann.client.gave_up), ("invite-used", True))


class PublishingTests(WorldTestCase):
    """One's own prekeys."""

    def keys(self, user: User) -> Any:
        return self.world.store._keys[user.id]  # type: ignore[attr-defined]

    def test_first(self) -> None:
        """A bundle, at once, and one-time keys behind it."""
        self.patch(publishing, "MAX_PUBLISHED", 40)
        self.patch(publishing, "FEW", 20)
        ann = self.world.user("ann")
        self.assertEqual(len(self.keys(ann).one_time), 40)
        self.assertEqual(len(ann.messenger._desk.talks.prekeys.one_time_ids), 40)

    def test_used_up(self) -> None:
        """They are made anew when few are left."""
        ann = self.world.user("ann")
        for name in ("bob", "carol", "dave"):
            self.talk(self.world.user(name), ann)
        self.assertEqual(len(self.keys(ann).one_time), 1)

    def test_replaced_weekly(self) -> None:
        """The bundle is; old halves are let go 30 days after its end, once the mailbox was found empty."""
        ann = self.world.user("ann")
        first = self.keys(ann).bundle.version
        self.world.clock.rightNow += 7 * DAY
        self.world.run_for(5)
        self.assertGreater(self.keys(ann).bundle.version, first)
        self.assertEqual(len(ann.messenger._desk.talks.prekeys._state.generations), 2)
        ann.kill()
        self.world.clock.rightNow += 54 * DAY
        ann.restart()
        self.world.run_for(2 * DAY + online.QUIET)
        expires = [one.bundle.expires for one in ann.messenger._desk.talks.prekeys._state.generations]
        self.assertTrue(all(end + prekeys.GRACE > self.world.wall() - DAY for end in expires))
        self.assertEqual(len(expires), 2)

    def test_the_servers_copy_is_newer(self) -> None:
        """Whatever it has of ours, what is published follows it."""
        ann = self.world.user("ann")
        own = ann.messenger._desk.talks.prekeys.copy()
        newer = own.make_bundle(
            ann.messenger._identity,
            "ann",
            tuple(ann.messenger._online.publishing._specs),
            now=int(self.world.wall()) + 1000,
            entropy=ann.messenger._entropy,
        )
        seen = prekeys.seen(newer)
        self.keys(ann).bundle = self.keys(ann).bundle._replace(
            version=seen.version, digest=seen.digest, raw=bytes(inner.pack(newer))
        )
        ann.restart()
        self.world.run_for(1)
        self.assertEqual(self.keys(ann).bundle.version, newer.version + 1)
        self.assertEqual(ann.problems(), [])

    def test_a_copy_far_ahead(self) -> None:
        """It is not believed: told, and nothing is published on this connection; the rest goes on."""
        ann, bob = self.world.users("ann", "bob")
        own = ann.messenger._desk.talks.prekeys.copy()
        far = own.make_bundle(
            ann.messenger._identity,
            "ann",
            tuple(ann.messenger._online.publishing._specs),
            now=int(self.world.wall()) + 800 * DAY,
            entropy=ann.messenger._entropy,
        )
        seen = prekeys.seen(far)
        self.keys(ann).bundle = self.keys(ann).bundle._replace(
            version=seen.version, digest=seen.digest, raw=bytes(inner.pack(far))
        )
        ann.restart()
        self.world.run_for(5)
        self.assertEqual(ann.problems(), ["policy"])
        ann.send("bob", "hello")
        self.until(lambda: bob.texts() == ["hello"])

    def test_a_server_that_refuses_for_ever(self) -> None:
        """There is an end to it."""
        published: list[inner.Publish] = []

        def publish(_: str, message: inner.FromClient) -> inner.Error | bool:
            if not isinstance(message, inner.Publish):
                return False
            published.append(message)
            return refusal(message.mid, Code.POLICY)

        self.world.intercept(publish)
        ann = self.world.user("ann")
        self.world.run_for(300)
        self.assertLessEqual(len(published), publishing.ATTEMPTS + 1)
        self.assertEqual(ann.problems(), ["policy"])

    def test_limits_of_the_server(self) -> None:
        """What it takes in one frame decides how much is published at once, and how long a text may be."""
        self.patch(publishing, "MAX_PUBLISHED", 40)
        self.patch(publishing, "FEW", 3)
        for frame, size, keys in ((16 * 1024, 4000, range(3, 8)), (9 * 1024, 1000, range(1, 6))):
            self.world = World(limits=LIFTED._replace(frame=Frame(frame, 8 * 1024)))
            ann, bob = self.world.users("ann", "bob")
            self.assertIn(len(self.keys(ann).one_time), keys)
            ann.send("bob", "x" * 20_000)
            ann.send("bob", "y" * size)
            self.world.run_for(2)
            self.assertEqual(ann.all(events.State)[2].code, Code.TOO_LARGE)
            self.until(lambda bob=bob: len(bob.texts()) == 1)  # type: ignore[misc]
            self.assertEqual((len(ann.all(events.Ready)), ann.problems()), (1, []))

    def test_room(self) -> None:
        """What fits in a frame: the longest inner message is never more than that."""
        from sims import frames
        from sims.crypto.notation import pad

        self.assertEqual(room(None), 65_535)
        for limit in (0, 100, 600, 4096, 9999, 65_536, 98_304, 10**9):
            most = room(limit)
            if most > 0:
                box = frames.encode_box(2**63, bytes(len(pad("box", bytes(most))) + 16))
                self.assertLessEqual(len(box), min(limit, frames.MAX_FRAME))
