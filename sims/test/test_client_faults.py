"""Connections that break at any frame, clients that go down at any commit, stores put back, what cannot be read."""

from __future__ import annotations

from sims import inner
from sims.client import asking, events
from sims.client import ledger as ledgers
from sims.client.events import Delivery
from sims.server.limits import Mailbox
from sims.test.modern_network import Hand, mid_of
from sims.test.modern_world import LIFTED, FragileStore, User, World, WorldTestCase

TO_BOB = ["a0", "a1", "a2"]
TO_ANN = ["b0", "b1"]
_OPEN = (Delivery.QUEUED, Delivery.ACCEPTED)


class Script:
    """Two people talk while something goes wrong with one of them."""

    def __init__(self) -> None:
        self.world = World()
        self.ann, self.bob = User(self.world, "ann"), User(self.world, "bob")

    def run(self) -> Script:
        """Talk, until all is over."""
        ann, bob, world = self.ann, self.bob, self.world
        ann.start()
        bob.start()
        world.run_for(2)
        for text in TO_BOB:
            ann.send("bob", text)
            world.run_for(0.02)
        world.run_for(2)
        for text in TO_ANN:
            bob.send("ann", text)
        world.run_until(self._is_over, 200)
        world.run_for(1)
        return self

    def _is_over(self) -> bool:
        return all(
            set(self.asked(other)) <= set(one.texts())
            and not one.messenger.under_way
            and not [letter for letter in one.messenger._desk.outbox._by_id.values() if letter.state in _OPEN]
            for one, other in ((self.ann, self.bob), (self.bob, self.ann))
        )

    def asked(self, user: User) -> list[str]:
        """What somebody has asked for, and was told to be queued: what was not is not promised."""
        return [str(state.text) for state in user.all(events.State) if state.text is not None]

    def picture(self) -> tuple[list[str], list[str], set[str | None], int]:
        """What was shown, how it stood, what could not be read."""
        messages = [*self.ann.all(events.Message), *self.bob.all(events.Message)]
        unreadable = len(self.ann.all(events.Unreadable)) + len(self.bob.all(events.Unreadable))
        return self.bob.texts(), self.ann.texts(), {message.order for message in messages}, unreadable


class BreakingTests(WorldTestCase):
    """Whatever breaks: nothing lost, nothing doubled, nothing out of order.

    :cvar every: one of so many places is tried; all of them in ``tests/test_faults_whole.py``.
    """

    every = 5

    def setUp(self) -> None:
        super().setUp()
        whole = Script().run()
        self.frames = {"ann": whole.ann.frames, "bob": whole.bob.frames}
        self.commits = {"ann": whole.ann.store.commits, "bob": whole.bob.store.commits}

    def user(self, script: Script, name: str) -> User:
        return script.ann if name == "ann" else script.bob

    def test_connection_at_any_frame(self) -> None:
        """The frame is lost, whichever direction it was of, and all that is under way behind it."""
        for name, most in self.frames.items():
            for number in range(1, most + 1, self.every):
                script = Script()
                self.user(script, name).breaks_at = number
                script.run()
                self.assertEqual(script.picture(), (TO_BOB, TO_ANN, {None}, 0), (name, number))
                self.assertEqual((script.ann.delivered(), script.bob.delivered()), (3, 2), (name, number))

    def test_client_after_any_commit(self) -> None:
        """It goes down between a commit and what follows from that."""
        for name, most in self.commits.items():
            for number in range(1, most + 1, self.every):
                script = Script()
                self.user(script, name).store.fails_at = number
                script.run()
                for one, other, texts in ((script.ann, script.bob, TO_ANN), (script.bob, script.ann, TO_BOB)):
                    shown = one.texts()
                    self.assertEqual(shown, [text for text in texts if text in shown], (name, number))
                    self.assertLessEqual(set(script.asked(other)), set(shown), (name, number))
                self.assertEqual(script.picture()[2:], ({None}, 0), (name, number))

    def test_client_before_any_commit(self) -> None:
        """It goes down instead of committing. What it had just shown may be shown once more, with the same id."""
        for name, most in self.commits.items():
            for number in range(1, most + 1, self.every):
                script = Script()
                user = self.user(script, name)
                user.store.fails_at, user.store.applied = number, False
                script.run()
                for one, other in ((script.ann, script.bob), (script.bob, script.ann)):
                    shown = {message.id: message.text for message in one.all(events.Message)}
                    self.assertEqual([*shown.values()], script.asked(other), (name, number))
                again = len(user.all(events.Message)) - len({message.id for message in user.all(events.Message)})
                self.assertLessEqual(again, 2, (name, number))
                self.assertEqual(script.picture()[2:], ({None}, 0), (name, number))


class RestoredTests(WorldTestCase):
    """A store that was put back to an older copy."""

    def setUp(self) -> None:
        super().setUp()
        self.ann, self.bob = self.world.users("ann", "bob")

    def put_back(self, user: User, store: FragileStore) -> None:
        """The folder of an older day."""
        user.restart(store)
        self.world.run_for(2)

    def test_talks_on(self) -> None:
        """Both ways, with what came meanwhile known, and with a new bundle and new one-time keys published."""
        for opened in (False, True):
            self.world = World()
            ann, bob = self.world.users("ann", "bob")
            user, other = (ann, bob) if opened else (bob, ann)
            self.talk(ann, bob)
            copy = user.store.copy()
            user.cut()
            self.world.run_for(2)
            for _ in range(3):
                self.talk(ann, bob)
            before = self.world.store._keys[user.id].bundle.version  # type: ignore[attr-defined]
            self.put_back(user, copy)
            self.assertGreater(self.world.store._keys[user.id].bundle.version, before)  # type: ignore[attr-defined]
            for _ in range(2):
                self.talk(user, other)
            self.assertEqual(user.problems(), [])
            self.assertEqual({message.order for message in other.all(events.Message)}, {None})

    def test_unnoticed(self) -> None:
        """The copy is of the connection that was the last: the server's epoch tells nothing. What both say arrives."""
        self.talk(self.ann, self.bob)
        copy = self.ann.store.copy()
        for _ in range(2):
            self.talk(self.ann, self.bob)
        self.put_back(self.ann, copy)
        self.ann.send("bob", "old keys, new text")
        self.bob.send("ann", "new keys")
        self.world.run_for(5)
        self.assertIn("old keys, new text", self.bob.texts())
        self.assertIn("new keys", self.ann.texts())
        self.talk(self.ann, self.bob)

    def test_before_anything_was_said(self) -> None:
        """Keys that were handed out since then are not there any more: what comes to them is asked for again."""
        copy = self.bob.store.copy()
        self.ann.kill()
        self.bob.kill()
        self.world.settle()
        self.bob.restart()
        self.world.settle()
        self.bob.kill()
        self.ann.restart()
        self.world.settle()
        self.ann.send("bob", "hello")
        self.world.run_for(1)
        self.put_back(self.bob, copy)
        self.until(lambda: self.bob.texts() == ["hello"])
        self.talk(self.ann, self.bob)

    def test_goes_down_before_it_has_published(self) -> None:
        """It publishes anew the next time, though the server then sees no epoch that is too low."""
        self.talk(self.ann, self.bob)
        copy = self.bob.store.copy()
        self.bob.restart()
        self.world.run_for(1)
        self.bob.cut()
        self.world.run_for(2)
        before = self.world.store._keys[self.bob.id].bundle.version  # type: ignore[attr-defined]
        copy.fails_at = 2  # the epoch; that it was restored
        self.bob.restart(copy)
        self.world.run_for(5)
        self.assertEqual(self.bob.starts, 4)
        self.assertGreater(self.world.store._keys[self.bob.id].bundle.version, before)  # type: ignore[attr-defined]
        self.assertNotIn("outdated", self.bob.store.load().values)
        self.talk(self.ann, self.bob)

    def test_what_was_queued_in_it(self) -> None:
        """It goes out with the identical bytes, which the other end knows."""
        self.talk(self.ann, self.bob)
        self.ann.way.refusing = True
        self.ann.cut()
        self.world.run_for(0.2)
        self.ann.send("bob", "once")
        copy = self.ann.store.copy()
        self.ann.way.refusing = False
        self.until(lambda: self.bob.texts()[-1:] == ["once"])
        self.talk(self.ann, self.bob)
        self.put_back(self.ann, copy)
        self.talk(self.ann, self.bob)
        self.assertEqual(self.bob.texts().count("once"), 1)


class UnreadableTests(WorldTestCase):
    """What cannot be opened."""

    def setUp(self) -> None:
        super().setUp()
        self.ann, self.bob = self.world.users("ann", "bob")

    def lose(self, user: User, other: User) -> None:
        """Somebody loses the sessions with somebody else, and does not know."""
        user.restart(user.store.copy())
        self.world.settle()
        user.messenger._desk.talks.forget(other.id)

    def test_is_asked_for_again_once(self) -> None:
        """It comes again on a new session, and is shown once, in its place."""
        self.talk(self.ann, self.bob)
        self.lose(self.bob, self.ann)
        self.ann.send("bob", "hello")
        self.until(lambda: self.bob.texts()[-1:] == ["hello"])
        (unreadable,) = self.bob.all(events.Unreadable)
        self.assertEqual((unreadable.sender.id, unreadable.sender.name), (self.ann.id, "ann"))
        self.world.run_for(5)
        self.assertEqual(self.bob.texts().count("hello"), 1)
        self.assertEqual(self.ann.delivered(), 2)
        self.talk(self.ann, self.bob)

    def test_several(self) -> None:
        """One question an hour, as the protocol has it; it shows that the store is another, and all come by that."""
        self.talk(self.ann, self.bob)
        self.lose(self.bob, self.ann)
        self.ann.kill()
        self.world.settle()
        self.ann.use(self.ann.store.copy())
        for text in TO_BOB:
            self.ann.send("bob", text)
        self.ann.start()
        self.world.run_for(10)
        self.assertEqual(self.bob.texts()[1:], TO_BOB)
        self.world.run_for(1)
        self.assertEqual(self.ann.delivered(), 4)
        self.assertEqual([told.peer.name for told in self.ann.all(events.Anew)], ["bob"])
        letters = [letter.again for letter in self.ann.messenger._desk.outbox.texts()[1:]]
        self.assertEqual(letters, [1, 1, 1], "one was asked for, and the others had gone the same way")
        self.bob.restart()
        self.world.run_for(3 * asking.ASK_EVERY)
        self.assertEqual(self.bob.texts()[1:], TO_BOB)
        self.assertEqual((len(self.ann.all(events.NotRead)), self.ann.delivered()), (1, 4))

    def test_what_has_arrived_is_not_sent_again(self) -> None:
        """A peer that asks for what it has acknowledged, or asks twice, or for what is somebody else's."""
        self.talk(self.ann, self.bob)
        desk = self.ann.messenger._desk
        (letter,) = [one for one in desk.outbox._letters.values() if one.id]
        self.assertIsNone(letter.content)
        self.ann.send("bob", "more")
        carol = self.world.user("carol")
        self.talk(self.ann, carol)
        for mid in {one.mid for one in desk.outbox._letters.values()}:
            talks = carol.messenger._desk.talks
            talks.ask_again(self.ann.id, mid, talks.find(self.ann.id).sessions[0])  # type: ignore[union-attr]
        queued = desk.outbox.others_queued
        carol.client.pump()
        self.world.run_for(5)
        self.assertEqual((self.bob.texts().count("more"), carol.texts(self.ann).count("more")), (1, 0))
        self.assertEqual(desk.outbox.others_queued, queued)

    def test_garbage_of_a_stranger(self) -> None:
        """300 messages: each is told and acknowledged, the next good one arrives, and there is one lookup at most."""
        self.world = World(limits=LIFTED._replace(mailbox=Mailbox(stranger_messages=1000)))
        ann, bob = self.world.users("ann", "bob")
        self.talk(ann, bob)
        fetched: list[object] = []

        def fetch(_: str, message: inner.FromClient) -> bool:
            if isinstance(message, inner.Fetch):
                fetched.append(message)
            return isinstance(message, inner.Fetch)

        self.world.intercept(fetch)
        mallory = Hand(self.world).connect()
        for away in (False, True):
            if away:
                bob.kill()
                self.world.settle()
            for number in range(150):
                mallory.stream.write(mallory.sealed(mallory.text(bob.id, 1000 * away + number)) + b"\n\n")
            phase = inner.pack({"public_key": bytes(32), "kem_ciphertext": bytes(1088), "mac": bytes(32)})
            for number, phases in enumerate((2, 3, 4)):
                data = inner.ClientConnect(
                    src=mallory.id, dst=bob.id, mid=mid_of(10_000 + 10 * away + number), phase=phases, data=phase
                )
                mallory.stream.write(mallory.sealed(data) + b"\n\n")
            self.world.settle()
            ann.send(bob, f"good {away}")
            if away:
                bob.restart()
            self.until(lambda away=away: bob.texts()[-1] == f"good {away}")  # type: ignore[misc]
        self.world.run_for(1)
        self.assertEqual(len(bob.all(events.Unreadable)), 300, "phases with nothing on them are no loss")
        self.assertLessEqual(len(fetched), 2, "one a client: the question before the restart was not answered")
        self.assertEqual(self.world.store._boxes[bob.id].letters, {})  # type: ignore[attr-defined]
        self.assertEqual(len(mallory.acked), 306)
        self.talk(ann, bob)
        self.assertEqual(set(bob.messenger._desk.people._by_id), {ann.id, mallory.id})

    def test_many_strangers(self) -> None:
        """However many there are, few are looked up and remembered, and a friend is still asked."""
        self.talk(self.ann, self.bob)
        desk = self.bob.messenger._desk
        for number in range(300):
            src = f"{'abcdefghijklmnopqrstuvwxyz'[number % 26]}{'abcdefghijklmnopqrstuvwxyz'[number // 26]}" + 30 * "a"
            message = inner.ClientCom(src=src, dst=self.bob.id, mid=mid_of(number), data=inner.pack({"header": b""}))
            self.bob.messenger._reading.take(message)
        self.bob.client.pump()
        self.world.run_for(30)
        self.assertLessEqual(len(desk.people), asking.OF_STRANGERS + 1)
        self.assertEqual(len(desk.lookups), 0)
        self.lose(self.bob, self.ann)
        self.bob.messenger._desk.talks._saved[self.ann.id] = b""  # a friend, of whom nothing can be opened
        self.bob.messenger._reading.asking.unreadable(self.ann.id, mid_of(1), stranger=False)
        self.assertEqual(self.bob.messenger._reading.asking.due(self.ann.id), mid_of(1))

    def test_replayed_and_doubled(self) -> None:
        """The same message once more, under its mid or another, is acknowledged and silent."""
        self.talk(self.ann, self.bob)
        kept: list[inner.ClientCom | inner.ClientConnect] = []
        take = self.bob.messenger._reading.take

        def keep(message: inner.ClientCom | inner.ClientConnect) -> None:
            kept.append(message)
            take(message)

        self.patch(self.bob.messenger._reading, "take", keep)
        self.ann.send("bob", "hello")
        self.world.run_for(1)
        self.bob.happened.clear()
        for message in list(kept):
            for mid in (message.mid, bytes(16)):
                take(type(message)(**{**{key: getattr(message, key) for key in message.__struct_fields__}, "mid": mid}))
        self.bob.client.pump()
        self.world.run_for(1)
        self.assertEqual(self.bob.happened, [])
        self.talk(self.ann, self.bob)

    def test_what_was_seen_is_bounded(self) -> None:
        """The oldest of each sender go, and all that is older than any mailbox keeps."""
        store, ledger = self.bob.store, self.bob.messenger._ledger
        self.patch(ledgers, "MOST_SEEN", 1500)
        for number in range(3000):
            ledger.seen("x", mid_of(number), number)
            ledger.unread("y", mid_of(number), number)
            if number % 500 == 499:
                ledger.commit()
        self.assertLessEqual(len(store._seen), 2 * 1500 + 1000)
        self.assertTrue(ledger.has_seen("x", mid_of(2999)) and ledger.has_seen("y", mid_of(2999)))
        self.assertFalse(ledger.has_seen("x", mid_of(0)) or ledger.has_seen("y", mid_of(0)))
        self.assertFalse(ledger.has_seen("z", mid_of(2999)))
        ledger.forget_seen(2000)
        ledger.commit()
        self.assertFalse(ledger.has_seen("x", mid_of(1999)))
        self.assertTrue(ledger.has_seen("x", mid_of(2000)))
