"""Tests of :mod:`sims.client.driver` with sims/2: full disks, servers that cannot just now, what is awaited."""

from __future__ import annotations

import json
from collections import Counter

from sims import inner
from sims.client import driver, events
from sims.client.driven import MOST_SHOWN
from sims.client.events import Delivery
from sims.client.holds import AGAIN_FIRST
from sims.client.store import Change
from sims.console.shell import Shell
from sims.errors import Code, LocalError, SimsError
from sims.test.modern_world import User, WorldTestCase, refusal

_LETTERS = (inner.ClientCom, inner.ClientConnect)


class TroubleTests(WorldTestCase):
    """Disks that are full, servers that cannot just now, and what was asked for meanwhile."""

    def setUp(self) -> None:
        super().setUp()
        self.ann, self.bob = self.world.users("ann", "bob")
        self.talk(self.ann, self.bob)

    def test_disk_full(self) -> None:
        """Nothing leaves and nothing is shown while nothing can be stored; it is told once, and goes on by itself."""
        self.ann.happened.clear()
        self.ann.store.full = True
        frames = self.ann.frames
        self.ann.send("bob", "hello", "r")
        self.bob.send("ann", "hello to you")
        self.world.run_for(300)
        self.assertEqual([type(one).__name__ for one in self.ann.happened], ["Problem"])
        self.assertEqual(self.ann.problems(), ["unavailable"])
        self.assertLessEqual(self.ann.frames - frames, 1, "what the server had written before it was held back")
        self.assertFalse(self.ann.client.gave_up)
        self.assertEqual(self.bob.texts(), [self.bob.texts()[0]])
        self.ann.store.full = False
        self.world.run_for(40)
        self.assertEqual(self.bob.texts()[-1], "hello")
        self.assertEqual(self.ann.texts(), ["hello to you"])
        self.assertEqual(self.ann.states("r"), ["queued", "accepted", "delivered"])
        self.talk(self.ann, self.bob)

    def test_disk_full_and_gone(self) -> None:
        """What could not be stored was never there; what was stored before is as it was."""
        self.ann.store.full = True
        self.ann.send("bob", "never")
        self.bob.send("ann", "comes again")
        self.world.run_for(5)
        self.ann.restart()
        self.until(lambda: self.ann.texts()[-1:] == ["comes again"])
        self.world.run_for(5)
        self.assertNotIn("never", self.bob.texts())
        self.talk(self.ann, self.bob)

    def test_disk_full_while_connecting(self) -> None:
        """No epoch leaves that is not stored."""
        self.ann.kill()
        self.world.settle()
        store = self.ann.store.copy()
        store.full = True
        before = self.world.store._accounts[self.ann.id].epoch  # type: ignore[attr-defined]
        self.ann.restart(store)
        self.world.run_for(60)
        self.assertEqual(self.world.store._accounts[self.ann.id].epoch, before)  # type: ignore[attr-defined]
        self.assertEqual(self.ann.problems()[:1], ["unavailable"])
        store.full = False
        self.world.run_for(120)
        self.talk(self.ann, self.bob)

    def commits(self, user: User) -> list[int]:
        """Counts them, from now on."""
        count = [0]
        commit = user.store.commit

        def counted(change: Change) -> None:
            count[0] += 1
            commit(change)

        self.patch(user.store, "commit", counted)
        return count

    def test_together(self) -> None:
        """Texts that are given together are made lasting at once, at both ends, and each of them before it leaves."""
        self.world.run_for(60)
        texts = [f"text {number}" for number in range(20)]
        anns, bobs = self.commits(self.ann), self.commits(self.bob)
        with self.ann.client.together():
            for text in texts:
                self.ann.send("bob", text)
            self.assertEqual(anns, [0])
            self.assertEqual(len(self.ann.client.messenger.frames), 0)
        self.assertEqual(anns, [1])
        self.world.settle()
        self.assertEqual(self.bob.texts()[-20:], texts)
        self.assertLessEqual(bobs[0], 3)

    def test_what_is_asked_for_when_connected_leaves_before_the_end(self) -> None:
        """A program that connects, sends, and closes, all in one turn."""
        self.ann.kill()
        self.world.settle()
        self.ann.use(self.ann.store.copy())

        def ready(_: object) -> object:
            self.ann.send("bob", "on connecting")
            return self.ann.client.close()

        done = self.ann.client.connect().addCallback(ready)
        self.world.run_for(20)
        self.successResultOf(done)
        self.assertEqual(self.bob.texts()[-1:], ["on connecting"])

    def test_answers_in_the_order_of_the_commands(self) -> None:
        """Those of a console that reads several lines at once, what is wrong with one of them among it."""
        out: list[dict[str, object]] = []
        shell = Shell(
            json=True, clock=self.world.clock, write=lambda text: out.append(json.loads(text)), leave=lambda _: None
        )
        shell.client, self.ann.client.on_event = self.ann.client, shell.show
        with shell.together():
            for line in (b'{"do":"link","ref":1}', b'{"do":"bogus","ref":2}', b'{"do":"verify","to":"bob","ref":3}'):
                shell.line(line)
        self.assertEqual([told["ref"] for told in out], [1, 2, 3])

    def test_few_are_shown_between_two_commits(self) -> None:
        """However many come at once: after a crash no more than that are shown once more."""
        shown: list[int] = []
        count = self.commits(self.bob)
        on_event = self.bob.client.on_event

        def watch(event: events.Event) -> object:
            if isinstance(event, events.Message):
                shown.append(count[0])
            return on_event(event)

        self.bob.client.on_event = watch  # type: ignore[assignment]
        with self.ann.client.together():
            for number in range(30):
                self.ann.send("bob", str(number))
        self.world.run_for(5)
        self.assertEqual(len(shown), 30)
        self.assertLessEqual(max(Counter(shown).values()), MOST_SHOWN)

    def test_together_with_a_full_disk(self) -> None:
        """They leave when there is room again, in their order."""
        self.ann.store.full = True
        with self.ann.client.together():
            for text in "abc":
                self.ann.send("bob", text)
        self.world.run_for(5)
        self.assertEqual(len(self.bob.texts()), 1)
        self.ann.store.full = False
        self.world.run_for(40)
        self.assertEqual(self.bob.texts()[1:], ["a", "b", "c"])

    def test_the_store_fails_while_a_text_comes(self) -> None:
        """Whichever time it is asked: the text is shown."""
        self.talk(self.ann, self.bob)
        asked = self.ann.store.has_seen
        calls = fails = 0

        def has_seen(sender: str, number: bytes) -> bool:
            nonlocal calls
            calls += 1
            if calls == fails:
                raise LocalError(Code.UNAVAILABLE, "the disk does not answer")
            return asked(sender, number)

        self.patch(self.ann.store, "has_seen", has_seen)
        for fails in range(1, 6):
            calls = 0
            self.bob.send("ann", f"at {fails}")
            self.world.run_for(60)
            self.assertEqual(self.ann.texts()[-1], f"at {fails}")
            self.assertEqual(self.ann.problems(), ["unavailable"] * min(fails, 2), "of the message, not of the text")
        self.assertEqual(calls, 4)

    def test_the_store_cannot_be_asked(self) -> None:
        """Nothing is acknowledged that was not looked at: it comes again."""

        def has_seen(sender: str, number: bytes) -> bool:
            raise LocalError(Code.UNAVAILABLE, "it cannot be read")

        self.patch(self.ann.store, "has_seen", has_seen)
        self.bob.send("ann", "hello")
        self.world.run_for(10)
        self.assertNotIn("hello", self.ann.texts())
        self.patch(self.ann.store, "has_seen", type(self.ann.store).has_seen.__get__(self.ann.store))
        self.until(lambda: self.ann.texts()[-1] == "hello")
        self.talk(self.ann, self.bob)

    def test_refused_for_now(self) -> None:
        """A text that the server cannot take just now is sent again, after a growing while."""
        refused: list[float] = []

        def busy(src: str, message: inner.FromClient) -> inner.Error | bool:
            if src != self.ann.id or not isinstance(message, _LETTERS) or len(refused) >= 2:
                return False
            refused.append(self.world.clock.seconds())
            return refusal(message.mid, Code.UNAVAILABLE)

        self.world.intercept(busy)
        self.ann.send("bob", "hello", "r")
        self.until(lambda: self.bob.texts()[-1] == "hello", 60)
        self.assertEqual(len(refused), 2)
        self.assertGreaterEqual(refused[1] - refused[0], AGAIN_FIRST)
        self.world.run_for(1)
        self.assertEqual(self.ann.states("r"), ["queued", "accepted", "delivered"])

    def test_accepted_after_delivered(self) -> None:
        """The recipient's word implies the server's, which changes nothing when it comes later."""
        desk = self.ann.messenger._desk
        self.ann.way.refusing = True
        self.ann.cut()
        self.world.run_for(0.1)
        self.ann.send("bob", "hello", "r")
        (letter,) = desk.outbox.queued()
        desk.reached(letter, Delivery.DELIVERED, 1)
        self.assertIsNone(letter.inner)
        self.ann.messenger._online._accepted(letter.mid)
        self.ann.client.pump()
        self.assertEqual(self.ann.states("r"), ["queued", "accepted", "delivered"])
        self.assertEqual(desk.outbox.texts_queued, 0)

    def test_many_texts_while_offline(self) -> None:
        """They do not keep the connection from coming up."""
        self.patch(driver, "MAX_WAITING", 500)
        self.ann.way.refusing = True
        self.ann.cut()
        self.world.run_for(0.1)
        outbox = self.ann.messenger._desk.outbox
        number = driver.MAX_WAITING + 10
        # Many of them, made as they are in a store; sealing them all would take its time.
        self.ann.send("bob", "hello")
        (letter,) = outbox.queued()
        for count in range(number):
            same = type(letter)(**{field: getattr(letter, field) for field in letter.__struct_fields__})
            same.id, same.mid = count.to_bytes(16, "big"), count.to_bytes(16, "little")
            outbox.add(same)
        self.world.intercept(lambda _, message: isinstance(message, _LETTERS))
        self.ann.way.refusing = False
        self.ann.client.start()
        self.world.run_for(3)
        self.assertIsNotNone(self.ann.messenger.ready)
        self.assertEqual((self.ann.problems(), len(self.ann.all(events.Ready))), ([], 2))

    def test_a_server_that_only_causes(self) -> None:
        """It sends and sends, and takes nothing of what follows: it is left."""
        self.patch(driver, "MAX_WAITING", 20)
        desk = self.ann.messenger._desk
        self.world.intercept(lambda _, message: isinstance(message, _LETTERS))
        for number in range(30):
            desk.talks.receipt(self.bob.id, b"", [number.to_bytes(16, "big")])
        self.ann.client.pump()
        self.ann.do(lambda messenger: messenger.list())
        self.world.settle()
        self.assertIn("rate-limited", self.ann.problems())
        self.world.run_for(5)
        self.assertIsNotNone(self.ann.messenger.ready, "and it is tried again")

    def test_closed(self) -> None:
        """Whoever waits hears that it was closed; what was shown is noted; the store is let go of, once."""
        closed: list[int] = []
        self.patch(self.ann.store, "close", lambda: closed.append(1))
        self.bob.send("ann", "hello")
        waiting = self.ann.client.open("nobody")
        self.until(lambda: self.ann.texts()[-1] == "hello")
        done = self.ann.client.close()
        self.world.run_for(3)
        self.successResultOf(done)
        self.failureResultOf(waiting, SimsError)
        self.assertEqual(closed, [1])
        self.assertEqual(self.ann.store.load().arrived, {})


class AwaitedTests(WorldTestCase):
    """What a program awaits of a client."""

    def test_all(self) -> None:
        """Open, send, number, list, close."""
        ann, bob = self.world.users("ann", "bob")
        opened = ann.client.open("bob")
        sent = ann.client.send("bob", "hello", until=Delivery.DELIVERED)
        listed = ann.client.list()
        self.world.run_for(1)
        self.assertEqual(self.successResultOf(opened).peer.id, bob.id)
        self.assertEqual(self.successResultOf(sent), bob.all(events.Message)[0].id)
        self.assertEqual(self.successResultOf(listed), ())
        numbers = [one.client.safety_number(other.id) for one, other in ((ann, bob), (bob, ann))]
        self.assertEqual(self.successResultOf(numbers[0]), self.successResultOf(numbers[1]))
        closed = ann.client.disconnect("bob")
        self.world.settle()
        self.assertEqual(self.successResultOf(closed).peer.id, bob.id)
        self.assertFalse([one for one in ann.happened if one.ref is not None], "refs of its own are not shown")

    def test_fails(self) -> None:
        """With what is wrong; a timeout is one."""
        ann = self.world.user("ann")
        for act, code in (
            (lambda: ann.client.open("nobody"), Code.UNKNOWN_RECIPIENT),
            (lambda: ann.client.send("nobody", "x"), Code.UNKNOWN_RECIPIENT),
            (lambda: ann.client.send("ann", "x"), Code.POLICY),
            (lambda: ann.client.safety_number("nobody"), Code.UNKNOWN_RECIPIENT),
        ):
            waiting = act()
            self.world.run_for(1)
            error: SimsError = self.failureResultOf(waiting, SimsError).value
            self.assertEqual(error.code, code)
        ann.way.refusing = True
        ann.cut()
        self.world.run_for(0.1)
        late = ann.client.send("bob", "x", timeout=3)
        self.world.run_for(4)
        self.failureResultOf(late, SimsError)
        self.assertEqual(len(ann.client._waiters), 0)
