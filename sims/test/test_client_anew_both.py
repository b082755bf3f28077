"""A session that a new store and the one of before both have: what is lost with the latter comes all the same."""

from __future__ import annotations

from sims import inner
from sims.client import events, people
from sims.errors import Code
from sims.test.anew_case import AnewTestCase, T
from sims.test.modern_world import FragileStore, User, WorldTestCase, refusal

LETTERS = (inner.ClientCom, inner.ClientConnect)
LOST = ["lost 0", "lost 1"]


class BothTests(WorldTestCase):
    """Bob's store takes two texts, and is lost before Ann hears of it."""

    def setUp(self) -> None:
        super().setUp()
        self.ann, self.bob = self.world.users("ann", "bob")
        self.talk(self.ann, self.bob)
        self.mute = False
        self.late: list[inner.ClientCom | inner.ClientConnect] | None = None
        self.world.intercept(self.hold)

    def hold(self, src: str, one: inner.FromClient) -> bool | inner.FromServer:
        """What Bob says gets lost, or is kept back by a relay that says it has accepted it."""
        if src != self.bob.id or not isinstance(one, LETTERS):
            return False
        if self.late is not None:
            self.late.append(one)
            return inner.Ack(data=inner.AckData(mids=(one.mid,)))
        return self.mute

    def begin_anew(self) -> None:
        """So that Ann is told of the next time only when an hour is over."""
        self.bob.client.act(lambda messenger: messenger._desk.renew(self.ann.id))
        self.bob.send("ann", "harmless")
        self.world.run_for(5)
        self.talk(self.ann, self.bob)

    def take(self) -> None:
        for text in LOST:
            self.ann.send("bob", text, text)
            self.world.run_for(1)
        self.assertEqual(self.bob.texts()[-2:], LOST)
        self.bob.kill()
        self.world.settle()
        self.mute = False

    def restore(self, bob: User, store: FragileStore) -> None:
        """From a copy whose epoch is older than what the server has seen: the client finds out by itself."""
        self.before = len(bob.texts())
        bob.use(store)
        bob.messenger._online._epoch = 0
        bob.start()
        self.world.run_for(5)
        bob.send("ann", "hi from the new store")
        self.world.run_for(5)

    def check(self) -> None:
        self.bob.send("ann", "hi again")
        self.world.run_for(2 * people.ANEW_EVERY)
        self.assertEqual([text for text in self.bob.texts()[self.before :] if text in LOST], LOST)
        self.assertEqual([self.ann.states(text)[-1] for text in LOST], ["delivered"] * 2)

    def check_a_phase_1_that_both_take(self) -> None:
        """Ann sends it with each of her texts, as long as she hears nothing on its session."""
        self.bob.client.act(lambda messenger: messenger.disconnect("ann"))
        self.world.run_for(5)
        copy = self.bob.store.copy()
        self.mute = True
        self.take()
        self.ann.send("bob", "kept", "kept")
        self.world.run_for(1)
        self.restore(self.bob, copy)
        self.check()

    def test_a_phase_1_that_both_take(self) -> None:
        self.check_a_phase_1_that_both_take()

    def test_a_phase_1_that_both_take_within_the_hour(self) -> None:
        self.begin_anew()
        self.check_a_phase_1_that_both_take()

    def test_something_late_of_the_store_of_before(self) -> None:
        """The session on which it was said can be sent on again; what was lost there has not come for that."""
        self.begin_anew()
        copy = self.bob.store.copy()
        late = self.late = []
        self.bob.send("ann", "late")
        self.world.run_for(1)
        self.patch(self.bob.messenger._reading, "may_send", lambda _: None)
        self.take()
        self.late = None
        self.restore(self.bob, copy)
        self.assertNotEqual(self.ann.store.load().people[self.bob.id].begins, b"")
        for one in late:
            self.world.modern_relay._members[self.ann.id].deliver(inner.encode(one))
        self.world.run_for(2)
        self.assertIn("late", self.ann.texts())
        self.check()


class GivenUpTests(AnewTestCase):
    """What was to be sent once more, and could not be, is still as lost as before."""

    def setUp(self) -> None:
        super().setUp()
        self.late: list[inner.ClientCom | inner.ClientConnect] | None = None
        self.honest, self.known = False, True

    def hold(self, src: str, one: inner.FromClient) -> bool | inner.FromServer:
        """What Ann says is kept back, and what she asks for stays unanswered, or is answered with a lie."""
        if src != self.ann.id or self.honest:
            return False
        if self.late is not None and isinstance(one, LETTERS):
            self.late.append(one)
            return inner.Ack(data=inner.AckData(mids=(one.mid,)))
        if isinstance(one, inner.Fetch):
            return True if self.known else refusal(one.mid, Code.UNKNOWN_RECIPIENT)
        return False

    def begin_anew(self, text: str) -> None:
        """What confirms the session on which Bob begins anew ends it as well."""
        late = self.late = []
        self.bob.send("ann", text)
        self.world.run_for(0.1)
        self.bob.client.act(lambda messenger: messenger.disconnect("ann"))
        self.world.run_for(1)
        self.late = None
        for one in late:
            self.world.modern_relay._members[self.bob.id].deliver(inner.encode(one))
        self.world.run_for(5)

    def test_nobody_has_the_id_for_a_while(self) -> None:
        self.world.intercept(self.hold)
        self.begin_anew("hi")
        self.assertEqual(len(self.ann.all(events.Anew)), 1)
        self.renew()
        self.begin_anew("hi again")
        self.known = False
        self.ann.cut()
        self.world.run_for(60)
        self.assertEqual([one.again for one in self.ann.messenger._desk.outbox.texts()[1:]], [0] * len(T))
        self.honest = True
        self.world.run_for(people.ANEW_EVERY + 60)
        self.assertEqual(len(self.ann.all(events.Anew)), 2)
        self.assertEqual(self.bob.texts()[1:], T)
