"""What was said is deleted while some of it is under way, or stands elsewhere; through the real server in memory."""

from __future__ import annotations

from sims import inner
from sims.client import events
from sims.client.events import Delivery
from sims.client.why import reason
from sims.errors import Code
from sims.test.history_case import HistoryTestCase, texts


class UnderWayTests(HistoryTestCase):
    """What is under way is told truly, and nothing that follows is taken for a loss."""

    def test_unconfirmed(self) -> None:
        """Before it was confirmed who had written it: what follows is in order, over a restart too."""
        for restarted in (False, True):
            name = f"carol{restarted}"
            carol = self.world.user(name)
            carol.send("ann", "one")
            taking = True

            def take(sender: str, message: inner.FromClient) -> bool:
                return taking and sender == self.ann.id and isinstance(message, inner.ClientCom | inner.ClientConnect)  # noqa: B023

            self.world.intercept(take)
            self.until(lambda carol=carol: self.ann.texts(carol) == ["one"])  # type: ignore[misc]
            self.assertFalse(self.ann.all(events.Message)[-1].confirmed)
            self.ann.do(lambda messenger, name=name: messenger.delete(name))  # type: ignore[misc]
            taking = False
            if restarted:
                self.ann.restart()
            else:
                self.ann.cut()
            self.world.run_for(5)
            self.say(carol, self.ann, "two", "three")
            found = [(one.text, one.confirmed, one.order) for one in self.ann.all(events.Message)[-2:]]
            self.assertEqual(found, [("two", True, None), ("three", True, None)])
            self.assertEqual(texts(self.history(self.ann, name)), ["two", "three"])

    def test_accepted(self) -> None:
        """Whoever waits for its receipt hears that it will not be known whether it has arrived; it is not failed."""
        self.say(self.ann, self.bob, "one")
        self.bob.kill()
        waiting = self.ann.client.send("bob", "two", until=Delivery.DELIVERED)
        self.until(lambda: self.ann.states()[-1] == "accepted")
        self.assertNoResult(waiting)
        told = len(self.ann.happened)
        self.ann.do(lambda messenger: messenger.delete("bob"))
        self.refused(waiting, Code.POLICY)
        kinds = [type(event) for event in self.ann.happened[told:]]
        self.assertEqual(kinds, [events.Problem, events.Deleted])
        self.bob.restart()
        self.until(lambda: self.bob.texts() == ["one", "two"])

    def test_on_its_way(self) -> None:
        """Sent, and not accepted yet: it fails, and the words do not say that it has not arrived."""
        self.say(self.ann, self.bob, "one")
        self.ann.send("bob", "two")
        self.ann.do(lambda messenger: messenger.delete("bob"))
        self.assertEqual(self.ann.states()[-1], "failed")
        self.assertEqual(self.bob.texts(), ["one", "two"])
        code = self.ann.all(events.State)[-1].code
        self.assertIn("may have arrived", reason(str(code)))
        self.say(self.ann, self.bob, "three")
        self.assertEqual({message.order for message in self.bob.all(events.Message)}, {None})

    def test_not_on_its_way_yet(self) -> None:
        """The way to the server is behind: it never leaves, and what follows is in order."""
        self.say(self.ann, self.bob, "one")
        self.ann.messenger.slowed(True)
        self.ann.send("bob", "two")
        self.ann.do(lambda messenger: messenger.delete("bob"))
        self.ann.messenger.slowed(False)
        self.world.run_for(60)
        self.assertEqual(self.bob.texts(), ["one"])
        self.assertEqual(self.ann.messenger._online._holds._under_way, {})  # or nothing could be refused for now
        self.say(self.ann, self.bob, "three")
        self.assertEqual(self.bob.texts(), ["one", "three"])
        self.assertEqual({message.order for message in self.bob.all(events.Message)}, {None})


class ElsewhereTests(HistoryTestCase):
    """What was said with somebody is all of it, whatever they were known by."""

    def test_before_anybody_had_the_name(self) -> None:
        """It is shown with what was said since, page by page, and deleted by name and by id."""
        for by_name in (False, True):
            name = f"carol{by_name}"
            self.ann.send(name, "who are you?")
            self.world.run_for(1)
            carol = self.world.user(name)
            self.say(self.ann, carol, "one", "two")
            for to in (name, carol.id):
                found = self.history(self.ann, to)
                self.assertEqual(texts(found), ["who are you?", "one", "two"])
                self.assertEqual(texts(self.history(self.ann, to, 2)), ["one", "two"])
                self.assertEqual(texts(self.history(self.ann, to, 2, found[2].id)), ["who are you?", "one"])
                self.assertEqual(self.history(self.ann, to, 2, found[0].id), ())
            to = name if by_name else carol.id
            self.ann.do(lambda messenger, to=to: messenger.delete(to))  # type: ignore[misc]
            self.assertEqual((self.history(self.ann, name), self.search(self.ann, "who")), ((), []))

    def test_after_an_identity_has_changed(self) -> None:
        """What was said with the id that had the name before, over a restart too; what is under way to it goes no
        further, and what it says from then on is its own."""
        self.say(self.ann, self.bob, "to the old one")
        self.bob.kill()
        self.ann.send("bob", "under way")
        self.world.run_for(1)
        people = self.ann.messenger._desk.people
        held = people.named("bob")
        assert held is not None
        other = self.world.user("robert")
        people._changed(held, other.id)  # as the server's answer to a lookup does
        self.ann.do(lambda messenger: messenger.accept_identity("bob"))
        self.say(self.ann, other, "to the new one")
        self.ann.restart()
        self.world.settle()
        found = self.history(self.ann, "bob")
        self.assertEqual(texts(found), ["to the old one", "under way", "to the new one"])
        self.assertEqual([message.peer.id for message in found], [self.bob.id, self.bob.id, other.id])
        self.assertEqual(texts(self.history(self.ann, self.bob)), ["to the old one", "under way"])
        self.ann.do(lambda messenger: messenger.delete("bob"))
        for to in ("bob", self.bob, other):
            self.assertEqual(self.history(self.ann, to), ())
        self.assertEqual(self.search(self.ann, "old"), [])
        self.assertEqual([letter.to for letter in self.ann.messenger._desk.outbox.texts()], [])
        people = self.ann.messenger._desk.people
        self.assertEqual([one.before for one in people.all() if one.id == self.bob.id], [()])
