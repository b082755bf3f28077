"""Tests of :mod:`sims.client.driver_shown`: a text counts as shown when its user has it, and no sooner."""

from __future__ import annotations

import json
from typing import cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPullProducer
from twisted.internet.testing import StringTransport

from sims.client import events
from sims.client.messenger import LAZY
from sims.client.modern_connection import SHOW_TIMEOUT
from sims.client.reading import GATHER
from sims.console.pipe import Pipe
from sims.console.shell import Shell
from sims.test.modern_world import FragileStore, User, World, WorldTestCase

_LATER = 1.0


class Slow:
    """A program that says later whether it has an event.

    :ivar given: what it was given and has said nothing of.
    """

    def __init__(self, user: User) -> None:
        self.user = user
        self.given: list[tuple[events.Event, Deferred[bool]]] = []
        user.client.on_event = self.take

    def take(self, event: events.Event) -> Deferred[bool]:
        self.user.happened.append(event)
        done: Deferred[bool] = Deferred()
        self.given.append((event, done))
        return done

    def has(self, most: int = 1000, has: bool = True) -> None:
        """It has the oldest of them, or never will."""
        some, self.given = self.given[:most], self.given[most:]
        for _, done in some:
            done.callback(has)

    @property
    def texts(self) -> list[str]:
        """The texts that it has said nothing of."""
        return [event.text for event, _ in self.given if isinstance(event, events.Message)]


class ShownTests(WorldTestCase):
    """Ann writes; bob's program is slow."""

    def setUp(self) -> None:
        super().setUp()
        self.ann, self.bob = self.world.users("ann", "bob")
        self.talk(self.ann, self.bob)
        self.slow = Slow(self.bob)

    def write(self, *texts: str) -> None:
        for text in texts:
            self.ann.send(self.bob, text)
        self.until(lambda: self.bob.texts()[-1] == texts[-1])

    def start_anew(self, user: User) -> Slow:
        """Killed, and another client on what is stored."""
        user.kill()
        user.use(user.store.copy())
        slow = Slow(user)
        user.start()
        return slow

    def test_killed(self) -> None:
        """What its user did not have goes to the next client, in order, under the same ids; what he had does not."""
        self.write("1", "2", "3")
        self.world.run_for(_LATER)
        while self.slow.texts != ["2", "3"]:
            self.slow.has(1)
        self.world.run_for(_LATER)
        first = {event.text: event.id for event in self.bob.all(events.Message)}
        slow = self.start_anew(self.bob)
        self.assertEqual(slow.texts, ["2", "3"])
        self.assertEqual({event.text: event.id for event in self.bob.all(events.Message)}, first)
        slow.has()
        self.world.run_for(_LATER)
        self.assertEqual(self.start_anew(self.bob).texts, [])

    def test_never(self) -> None:
        """A text that its program never had, or failed with, is not shown."""
        self.write("1", "2", "3")
        for _, done in self.slow.given[:-1]:
            done.callback(False)
        self.slow.given[-1][1].errback(ValueError("of the program"))
        self.world.run_for(_LATER)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        self.assertEqual(self.start_anew(self.bob).texts, ["1", "2", "3"])

    def test_at_once(self) -> None:
        """A program that gives nothing has it at once."""
        self.bob.client.on_event = self.bob.happened.append
        self.write("1")
        self.world.run_for(_LATER)
        self.assertEqual(self.start_anew(self.bob).texts, [])

    def test_failed_states(self) -> None:
        """That a text of ours has failed, too, is told until its user has it."""
        self.bob.send("nobody", "hello")
        self.world.run_for(_LATER)
        self.assertEqual(self.bob.states()[-1], "failed")
        slow = self.start_anew(self.bob)
        (failed,) = (event for event, _ in slow.given if isinstance(event, events.State))
        self.assertEqual(str(failed.state), "failed")
        slow.has()
        self.world.run_for(_LATER)
        self.assertEqual(self.bob.messenger._desk.outbox.failed(), [])
        slow = self.start_anew(self.bob)
        self.assertEqual([event for event, _ in slow.given if isinstance(event, events.State)], [])

    def test_read_receipts(self) -> None:
        """That it has come is told at once; that it was read, when it is shown, over a restart, too; each once."""
        self.bob._options["read_receipts"] = True
        slow = self.start_anew(self.bob)
        self.world.run_for(_LATER)
        self.ann.happened.clear()
        self.write("1", "2")
        self.world.run_for(_LATER)
        self.assertEqual(self.ann.states()[-4:], ["accepted", "accepted", "delivered", "delivered"])
        while slow.texts != ["2"]:
            slow.has(1)
        self.world.run_for(_LATER)
        self.assertEqual(self.ann.states()[-2:], ["delivered", "read"])
        slow = self.start_anew(self.bob)
        self.world.run_for(_LATER)
        self.assertEqual((self.ann.states().count("read"), slow.texts), (1, ["2"]))
        slow.has()
        self.world.run_for(_LATER)
        self.assertEqual((self.ann.states().count("read"), self.ann.states().count("delivered")), (2, 2))
        self.assertEqual(self.bob.messenger._desk.inbox.senders, [])

    def test_leaving(self) -> None:
        """What its user gets to have while it leaves is noted before the store is let go; nobody is waited for long."""
        for has in (True, False):
            self.write(f"text {has}")
            closing = self.bob.client.close(0.1)
            self.world.run_for(0.5)
            self.assertNoResult(closing)
            if has:
                self.slow.has()
                self.successResultOf(closing)
            else:
                self.world.run_for(SHOW_TIMEOUT)
                self.successResultOf(closing)
                self.slow.has()  # too late, and nothing comes of it
            self.bob.use(self.bob.store.copy())
            self.slow = Slow(self.bob)
            self.bob.start()
            self.assertEqual(self.slow.texts, [] if has else ["text False"])

    def test_account_deleted(self) -> None:
        """The client stays away from the server at once, whenever its user hears of it."""
        waiting = self.bob.client.delete_account()
        self.world.settle()
        self.successResultOf(waiting)
        self.bob.cut()
        self.world.run_for(120)
        self.assertTrue(self.bob.client.gave_up)


class _SlowUser(User):
    """Somebody whose program has what it is given a while later, if it lives then.

    :ivar had: the ids and texts that it had.
    """

    def use(self, store: FragileStore) -> None:
        super().use(store)
        self.had: list[tuple[str, str]] = getattr(self, "had", [])
        client = self.client

        def take(event: events.Event) -> Deferred[bool]:
            self.happened.append(event)
            done: Deferred[bool] = Deferred()

            def has() -> None:
                if client is self.client:
                    if isinstance(event, events.Message):
                        self.had.append((event.id, event.text))
                    done.callback(True)

            self.world.clock.callLater(0.15, has)
            return done

        client.on_event = take


class CommitTests(WorldTestCase):
    """A client goes down.

    :cvar every: with one of so many commits; with all of them in ``tests/test_faults_whole.py``.
    """

    every = 5

    def test_what_can_wait(self) -> None:
        """It waits for a moment only, at either end: be it that nothing else happens."""
        ann, bob = self.world.users("ann", "bob")
        self.talk(ann, bob)
        self.world.run_for(1)
        for _ in range(3):
            before = ann.store.commits, bob.store.commits
            ann.send("bob", "hello")
            self.until(lambda: ann.states()[-1] == "delivered")
            self.world.run_for(GATHER + LAZY + 0.3)
            self.assertFalse(ann.messenger._ledger.lazy or bob.messenger._ledger.lazy)
            self.assertLessEqual(ann.store.commits - before[0], 3)
            self.assertLessEqual(bob.store.commits - before[1], 4)

    def test_at_any_commit(self) -> None:
        """Wherever it goes down, its user gets to have every text, in order; what he has again has the same id."""
        most = self.run_script(None, applied=True)
        self.assertGreater(most, 5)
        for applied in (True, False):
            for number in range(1 + applied, most + 1, self.every):
                self.run_script(number, applied=applied)

    def run_script(self, fails_at: int | None, *, applied: bool) -> int:
        """Some texts come while the store fails; gives how many commits there were."""
        self.world = World()
        ann = self.world.user("ann")
        bob = _SlowUser(self.world, "bob")
        bob.join()
        bob.store.fails_at, bob.store.applied = fails_at, applied
        first = bob.store
        texts = [str(number) for number in range(6)]
        for text in texts:
            ann.send("bob", text)
            self.world.run_for(0.07)
        self.until(lambda: {text for _, text in bob.had} == {*texts})
        self.world.run_for(1)
        case = fails_at, applied
        self.assertEqual([*dict.fromkeys(text for _, text in bob.had)], texts, case)
        self.assertEqual(len({*bob.had}), len(texts), case)
        bob.restart()
        before = len(bob.had)
        self.world.run_for(1)
        self.assertEqual(len(bob.had), before, case)
        return first.commits


class PipeTests(WorldTestCase):
    """The console on a pipe that is killed while a burst arrives."""

    def test_burst(self) -> None:
        """All texts of a burst that the operating system did not get are printed by the next one."""
        ann, bob = self.world.users("ann", "bob")
        self.talk(ann, bob)
        many = [str(number) for number in range(50)]
        printed: list[list[str]] = []
        for taken in (False, True, True):
            transport = StringTransport()
            pipe = self.pipe(bob, transport)
            if not printed:
                for text in many:
                    ann.send(bob, text)
            bob.start()
            self.world.run_for(3)
            if taken:
                cast("IPullProducer", transport.producer).resumeProducing()
                self.world.run_for(_LATER)
            lines = [json.loads(line) for line in transport.value().splitlines()]
            printed.append([line["text"] for line in lines if line["event"] == "message"])
            bob.kill()
            pipe.shell.stop()
            bob.use(bob.store.copy())
        self.assertEqual(printed, [many, many, []])

    def pipe(self, user: User, transport: StringTransport) -> Pipe:
        def make(pipe: Pipe) -> Shell:
            shell = Shell(json=True, clock=self.world.clock, write=pipe.write, leave=lambda _: None)
            shell.client = user.client
            user.client.on_event = shell.show
            return shell

        pipe = Pipe(make, self.world.clock, blocked=lambda _: None, gone=lambda: None)
        pipe.makeConnection(transport)
        return pipe
