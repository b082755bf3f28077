"""What somebody says begins anew, as their store is another: it is told, and what has not come is sent again."""

from __future__ import annotations

import msgspec

from sims import inner
from sims.client import desk as desks
from sims.client import events, people, reading
from sims.client.events import EXPIRED, Delivery
from sims.client.store import Change
from sims.errors import Code
from sims.test.anew_case import AnewTestCase, T
from sims.test.modern_world import FragileStore, refusal


class SentAgainTests(AnewTestCase):
    def test_nothing_leaves_before_it_is_committed(self) -> None:
        """Not even where a receipt alone has shown it; who goes down right then goes on."""
        ann, seal = self.ann, self.ann.messenger.hop.seal
        uncommitted: list[bytes] = []
        copies: list[FragileStore] = []
        bodies: dict[bytes, set[bytes]] = {}  # by the header, which holds the number

        def look(message: inner.ClientCom | inner.ClientConnect) -> bool:
            data = msgspec.msgpack.decode(message.data)
            if "header" in data:
                bodies.setdefault(data["header"], set()).add(data["body"])
            return False

        def checked(message: bytes) -> None:
            found = inner.from_client(message)
            if isinstance(found, inner.ClientCom):
                look(found)
                stored = {one.mid for one in ann.store.load().letters.values()}
                uncommitted.extend([] if found.mid in stored else [found.mid])
                copies.append(ann.store.copy())
            seal(message)

        ann.messenger.hop.seal = checked  # type: ignore[method-assign, assignment]
        ann.client.act(lambda messenger: messenger.disconnect("bob"))
        ann.send("bob", "new", "new")  # on a session of ann's: what bob answers first is a receipt
        while len(copies) < 2:
            self.world.run_for(0.001)
        self.assertEqual(self.ann.texts(), ["bob 4"])
        self.world.run_for(0.06)
        self.assertEqual(uncommitted, [])
        ann.restart(copies[1])
        before = len(bodies)
        self.taking = look
        for text in ("x0", "x1"):
            ann.send("bob", text, text)
        self.world.run_for(30)
        self.assertEqual(sorted(self.bob.texts()[1:]), sorted([*T, "new", "x0", "x1"]))
        self.assertEqual({one.state for one in self.letters()}, {Delivery.DELIVERED})
        self.assertGreater(len(bodies), before)
        self.assertEqual({len(found) for found in bodies.values()}, {1}, "no key is used twice")

    def test_in_order(self) -> None:
        """What was written since, and not sealed, comes behind it; however much there is, so many are sealed at once,
        and it is one letter for each text."""
        self.patch(desks, "MOST_AT_ONCE", 2)
        ann, most = self.ann, []
        commit = ann.store.commit

        def counting(change: Change) -> None:
            most.append(len([one for one in change.letters.values() if one is not None and one.id and one.inner]))
            commit(change)

        self.patch(ann.store, "commit", counting)
        self.world.intercept(lambda src, message: src == ann.id and isinstance(message, inner.Fetch))
        ann.client.act(lambda messenger: messenger.disconnect("bob"))
        late = [f"late {number}" for number in range(40)]
        for text in late:
            ann.send("bob", text)
        self.world.run_for(1)
        self.taking = lambda _: True  # nothing that the server says makes it go on
        self.hear()
        self.world.run_for(0.1)
        self.assertEqual(ann.messenger._desk.outbox.waiting(), [])
        self.taking = lambda _: False
        ann.cut()
        self.world.run_for(5)
        self.assertEqual(self.bob.texts()[1:], [*T, *late])
        self.assertEqual(max(most), 2)
        self.assertEqual(len(self.letters()), 1 + len(T) + len(late))

    def test_says_nothing_of_the_first(self) -> None:
        """Whatever becomes of it: the text was accepted; nobody is told that it has failed, nor twice how far it is."""
        ann, desk = self.ann, self.ann.messenger._desk
        for code in (Code.POLICY, Code.UNKNOWN_RECIPIENT):
            self.taking = lambda message, code=code: refusal(message.mid, code)  # type: ignore[misc]
            with self.subTest(code):
                self.hear(code)
                self.world.run_for(2)
                self.assertEqual({one.state for one in desk.outbox.texts()[1:]}, {Delivery.ACCEPTED})
                self.assertEqual(desk.outbox.queued(), [])
            self.world.run_for(people.ANEW_EVERY)
            self.renew()
        self.taking = self.full  # nothing that its user has asked for: it waits, over a restart, too
        self.hear("full")
        self.world.run_for(5)
        again = [one.id for one in desk.outbox.queued() if one.anew]
        others = len([one for one in desk.outbox.queued() if not one.id])
        self.assertEqual((len(again), desk.outbox.texts_queued, desk.outbox.others_queued), (3, 0, others))
        letter = desk.outbox.text(again[0])
        assert letter is not None
        ann.client.act(lambda _: desk.fail(letter, EXPIRED))  # as the day's tidying does
        ann.restart()
        self.world.run_for(10)
        self.taking = lambda _: False
        self.world.run_for(400)
        self.assertEqual(ann.states("t0"), ["queued", "accepted", "failed"])
        self.assertEqual({one.state for one in self.letters()}, {Delivery.DELIVERED})
        self.assertEqual(self.bob.texts()[1:], T[1:])
        told = [one.state for one in ann.all(events.State) if one.ref in T[1:] or one.id == again[1].hex()]
        self.assertEqual(told.count(Delivery.ACCEPTED), 2)
        self.assertEqual(ann.all(events.NotRead), [])

    def test_what_was_delivered_is_no_more(self) -> None:
        self.hear()
        self.world.run_for(2)
        self.assertEqual([self.ann.states(text) for text in T], [["queued", "accepted", "delivered"]] * 3)
        for text in T:
            self.assertEqual(self.plain(text), [])

    def test_under_way(self) -> None:
        """What was not answered yet is sealed once more like the rest; what the server says of the first then is let
        be, and the user hears of each state once."""
        ann, mids = self.ann, []

        def silent(message: inner.ClientCom | inner.ClientConnect) -> bool:
            mids.append(message.mid)
            return True

        self.taking = silent
        ann.send("bob", "under way", "r")
        self.world.run_for(1)
        ann.client.act(lambda messenger: messenger.send("bob", "and more"))
        self.taking = lambda _: False
        self.hear()
        ann.messenger._online._error(refusal(mids[0], Code.MAILBOX_FULL))
        ann.client.pump()
        self.world.run_for(5)
        self.assertEqual(ann.problems(), [])
        self.assertEqual(ann.states("r"), ["queued", "accepted", "delivered"])
        self.assertEqual(set(self.bob.texts()[1:]), {*T, "under way", "and more"})

    def test_to_an_identity_that_has_changed(self) -> None:
        """It goes nowhere."""
        desk = self.ann.messenger._desk
        desk.people.get(self.bob.id).changed_to = self.ann.id  # type: ignore[union-attr]
        sent = self.sent
        self.bob.send("ann", "hi")
        self.until(lambda: bool(self.ann.all(events.Anew)))
        self.world.run_for(2)
        self.assertEqual(self.bob.texts(), ["ann 1"])
        self.assertEqual({one.state for one in desk.outbox.texts()[1:]}, {Delivery.ACCEPTED})
        self.assertEqual(desk.outbox.queued(), [])
        self.assertEqual(self.sent, sent)

    def test_with_a_phase_that_is_due(self) -> None:
        """Whoever sends phase 2 with what begins anew breaks nothing."""
        ann, bob = self.ann, self.bob
        kept: list[bytes] = []

        def take(src: str, message: inner.FromClient) -> inner.FromServer | bool:
            if src != bob.id or kept or not isinstance(message, inner.ClientConnect) or inner.has_message(message):
                return False
            kept.append(message.mid)
            return refusal(message.mid, Code.MAILBOX_FULL)

        self.world.intercept(take)
        ann.client.act(lambda messenger: messenger.disconnect("bob"))
        ann.send("bob", "new", "new")
        while not kept:
            self.world.run_for(0.001)
        bob.send("ann", "hi")
        self.world.run_for(5)
        self.assertEqual((ann.problems(), ann.all(events.Offline), len(ann.all(events.Anew))), ([], [], 1))
        self.assertEqual(sorted(bob.texts()[1:]), sorted([*T, "new"]))
        self.assertEqual(ann.texts()[1:], ["hi"])


class DeletedTests(AnewTestCase):
    """What was said is deleted while it is sent again: nothing of it is left, or leaves."""

    def delete(self) -> None:
        self.ann.client.act(lambda messenger: messenger.delete("bob"))
        self.world.run_for(1)
        for text in T:
            self.assertEqual(self.plain(text), [])

    def test_accepted(self) -> None:
        self.hear()
        self.bob.kill()
        self.delete()

    def test_waiting(self) -> None:
        self.taking = self.full
        self.hear()
        self.world.run_for(1)
        self.delete()
        self.taking = lambda _: False
        self.world.run_for(30)
        self.assertEqual(self.bob.texts(), ["ann 1"])

    def test_without_a_history(self) -> None:
        self.ann.messenger._ledger.keeps_history = False
        self.test_waiting()


class HowOftenTests(AnewTestCase):
    def mute(self) -> None:
        """Bob sends no receipt."""
        reads = self.bob.messenger._reading
        self.patch(reads, "may_send", lambda _: None)

    def test_nothing_piles_up(self) -> None:
        """Each text has one letter, however often it was sent again, and is so a number of times only."""
        self.patch(people, "ANEW_EVERY", 1)
        self.patch(reading, "MOST_AGAIN", 3)
        self.mute()
        sent = []
        for number in range(5):
            self.renew()
            before = self.sent
            self.hear(str(number))
            self.world.run_for(2)
            sent.append(self.sent - before)
            self.assertEqual(len(self.letters()), 4)
            self.assertEqual(len(self.plain("t1")), 1)
            self.assertEqual([one for one in self.ann.messenger._desk.outbox.queued() if one.id], [])
        self.assertEqual(sent, [3, 3, 3, 0, 0])
        self.assertEqual([one.again for one in self.letters()], [0, 3, 3, 3])
        self.assertEqual(self.bob.texts()[1:], T)

    def test_once_an_hour(self) -> None:
        """It is told, and makes us send again."""
        for number in range(5):
            self.renew()
            self.bob.send("ann", str(number))
            self.world.run_for(5)
        self.assertEqual(len(self.ann.all(events.Anew)), 1)
        self.world.run_for(people.ANEW_EVERY)
        self.assertEqual(len(self.ann.all(events.Anew)), 2, "what came within the hour is told behind it")
        self.world.run_for(2 * people.ANEW_EVERY)
        self.assertEqual(len(self.ann.all(events.Anew)), 2)
        self.renew()
        self.bob.send("ann", "later")
        self.world.run_for(5)
        self.assertEqual(len(self.ann.all(events.Anew)), 3)
        self.assertEqual(self.ann.texts()[-1], "later")

    def test_within_the_hour(self) -> None:
        """A store that is lost behind a harmless beginning: what it has lost comes when the hour is over, be it that
        we were started again meanwhile; what was sent on the session that showed it is not sent again."""
        for restarted in (False, True):
            with self.subTest(restarted):
                self.setUp()
                ann, bob = self.ann, self.bob
                self.hear(f"harmless {restarted}")
                self.talk(ann, bob)
                bob.kill()
                self.world.settle()
                store: FragileStore = bob.store.copy()
                lost = [f"lost {restarted} {number}" for number in range(4)]
                for text in lost:
                    ann.send("bob", text)
                self.world.run_for(2)
                bob.use(store)
                bob.messenger._desk.talks.forget(ann.id)  # the store is another
                bob.start()
                self.patch(bob.messenger._reading, "may_send", lambda _: None)  # he sends no receipt
                self.world.run_for(30)
                ann.send("bob", f"since {restarted}")
                self.world.run_for(2)
                self.assertNotEqual(ann.store.load().people[bob.id].begins, b"")
                self.assertLess(len([text for text in bob.texts() if text in lost]), len(lost))
                told = len(ann.all(events.Anew))
                bob.kill()  # or he would ask again
                if restarted:
                    ann.restart()
                sent = self.sent
                self.world.run_for(people.ANEW_EVERY)
                self.assertEqual(self.sent - sent, len(lost) - 1, "all but the one that he has asked for")
                bob.restart()
                self.world.run_for(5)
                self.assertEqual(len(ann.all(events.Anew)), told + 1)
                self.assertEqual([text for text in bob.texts() if text in lost], lost)
                self.assertEqual(ann.store.load().people[bob.id].begins, b"")
                self.assertEqual([one.again for one in self.letters()[-5:]], [1, 1, 1, 1, 0])

    def test_on_no_session_of_before(self) -> None:
        """A store that is lost behind a harmless beginning, where the session that shows it has ended: what it has lost
        does not go on those that it does not know."""
        ann, bob = self.ann, self.bob
        self.hear("harmless")
        self.talk(ann, bob)
        bob.kill()
        self.world.settle()
        self.taking = self.lose
        lost = [f"lost {number}" for number in range(3)]
        for text in lost:
            ann.send("bob", text)
        self.world.run_for(2)
        self.taking = lambda _: False
        bob.use(bob.store.copy())
        bob.messenger._desk.talks.forget(ann.id)  # the store is another
        bob.start()
        bob.send("ann", "hi")
        self.world.run_for(5)
        bob.client.act(lambda messenger: messenger.disconnect("ann"))
        self.world.run_for(5)
        self.assertEqual(ann.texts()[-1], "hi")
        told, sent = len(ann.all(events.Anew)), self.sent
        self.world.run_for(people.ANEW_EVERY)
        self.assertEqual((len(ann.all(events.Anew)) - told, self.sent - sent), (1, 3))
        self.assertEqual(bob.texts()[-3:], lost)
        self.assertEqual((bob.all(events.Unreadable), ann.all(events.NotRead)), ([], []))
        self.assertEqual([(one.state, one.again) for one in self.letters()[-3:]], [(Delivery.DELIVERED, 1)] * 3)

    def test_what_was_begun_since(self) -> None:
        """Sessions that were begun since then, with the same store, go on as they are: receipts find their way."""
        ann, bob = self.ann, self.bob
        self.hear("harmless")
        self.talk(ann, bob)
        self.renew()
        bob.send("ann", "within the hour")
        self.world.run_for(5)
        bob.client.act(lambda messenger: messenger.disconnect("ann"))
        self.world.run_for(2)
        bob.send("ann", "on another", "before")
        self.world.run_for(5)
        self.talk(ann, bob)
        self.taking = self.lose
        for number in range(3):
            ann.send("bob", f"on its way {number}")
        self.world.run_for(2)
        self.taking = lambda _: False
        told = len(ann.all(events.Anew))
        wait = ann.messenger._desk.people.begun_in(ann.messenger._reading._now())
        assert wait is not None
        self.world.run_for(wait - 0.1)
        bob.send("ann", "just before", "just")
        self.world.run_for(5)
        self.assertEqual(len(ann.all(events.Anew)), told + 1)
        self.assertFalse(ann.messenger._desk.talks.needs_bundle(bob.id))
        self.assertEqual([one.again for one in self.letters()[-3:]], [0, 0, 0])
        self.assertEqual(bob.states("just"), ["queued", "accepted", "delivered"])
        self.world.run_for(people.ANEW_EVERY)
        for number in range(3):
            bob.send("ann", f"{number}", f"{number}")
            self.world.run_for(60)
            self.assertEqual(bob.states(f"{number}"), ["queued", "accepted", "delivered"])
        self.assertEqual(ann.messenger._desk.inbox.owed(bob.id), {})

    def test_both_begin_anew(self) -> None:
        """At once: they end up on sessions that both send on, and make new keys with every turn."""
        ann, bob = self.ann, self.bob
        ann.client.act(lambda messenger: messenger._desk.renew(bob.id))
        for one, other in ((ann, "bob"), (bob, "ann")):
            one.send(other, "at once")
        self.world.run_for(5)
        for number in range(20):
            for one, other in ((ann, "bob"), (bob, "ann")):
                one.send(other, f"{number}")
                self.world.run_for(5)
        for one, peer in ((ann, bob), (bob, ann)):
            talks = one.messenger._desk.talks.find(peer.id)
            assert talks is not None
            assert talks._sessions.current is not None
            self.assertLess(talks._sessions.current._ratchet.state.sending.n, 5)
            self.assertEqual(one.texts()[-20:], [f"{number}" for number in range(20)])
            self.assertEqual(one.all(events.Unreadable), [])

    def test_nothing_else_is_late(self) -> None:
        """What waits for the hour's end holds up nothing: the hop gets its new keys in time."""
        self.hear()
        self.world.run_for(5)
        self.renew()
        self.bob.send("ann", "within the hour")
        self.world.run_for(5)
        self.bob.kill()
        self.world.run_for(people.ANEW_EVERY + 100)
        self.assertEqual((self.ann.all(events.Offline), self.ann.problems()), ([], []))
        self.assertEqual(len(self.ann.all(events.Anew)), 2)
