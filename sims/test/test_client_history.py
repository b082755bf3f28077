"""What was said is kept, found, explained and deleted; through the real server in memory."""

from __future__ import annotations

from typing import Any, cast

from sims import inner
from sims.client import asking, events
from sims.client.history import Entry
from sims.client.store import Change
from sims.errors import Code
from sims.test.history_case import HistoryTestCase, texts
from sims.test.modern_world import User
from sims.test.test_client_faults import TO_ANN, TO_BOB, Script


class KeptTests(HistoryTestCase):
    """Both ways, in order, over restarts.

    :cvar every: one of so many commits is tried; all of them in ``tests/test_faults_whole.py``.
    """

    every = 5

    def test_both_ways(self) -> None:
        """Who, what, when, how far; the same after a restart."""
        self.say(self.ann, self.bob, "one")
        self.say(self.bob, self.ann, "two")
        self.ann.do(lambda messenger: messenger.trust("bob"))
        self.say(self.bob, self.ann, "three")
        for restarted in (False, True):
            if restarted:
                self.ann.restart()
                self.world.settle()
            one, two, three = self.history(self.ann, "bob")
            self.assertEqual((one.text, one.ours, one.state, one.peer.name), ("one", True, "delivered", "bob"))
            self.assertEqual(set(one.times), {"accepted", "delivered"})
            self.assertIsNone(one.verified)
            self.assertEqual((two.text, two.ours, two.state), ("two", False, "came"))
            self.assertEqual((two.verified, two.confirmed, two.order), (False, True, None))
            self.assertEqual((three.text, three.verified), ("three", True))
            self.assertTrue(one.time <= two.time <= three.time)

    def test_confirmed_later(self) -> None:
        """A text that came before its sender was confirmed is kept as confirmed once that is so."""
        self.ann.send("bob", "hello")
        self.until(lambda: self.bob.texts() == ["hello"])
        self.assertFalse(self.bob.all(events.Message)[0].confirmed)
        self.world.run_for(1)
        (message,) = self.history(self.bob, "ann")
        self.assertEqual((message.text, message.confirmed, message.order), ("hello", True, None))

    def test_pages(self) -> None:
        """The newest so many; those before one of them."""
        self.say(self.ann, self.bob, *map(str, range(5)))
        found = self.history(self.bob, "ann", 2)
        self.assertEqual(texts(found), ["3", "4"])
        self.assertEqual(texts(self.history(self.bob, "ann", 2, found[0].id)), ["1", "2"])
        self.assertEqual(texts(self.history(self.bob, "nobody")), [])
        for limit in (0, 1001, -1):
            self.refused(self.bob.client.history("ann", limit), Code.MALFORMED)
        self.refused(self.bob.client.history("ann", 1, "0" * 32), Code.UNKNOWN_RECIPIENT)
        self.refused(self.bob.client.history("ann", 1, "xyz"), Code.MALFORMED)

    def test_search(self) -> None:
        """All the words, or words that begin so, with whomever; never what a text does not hold."""
        self.say(self.ann, self.bob, 'Grüße from "Köln"', "no_such* (thing)")
        self.assertEqual(self.search(self.bob, "GRUSSE"), ['Grüße from "Köln"'])
        self.assertEqual(self.search(self.bob, "koln fro"), ['Grüße from "Köln"'])
        self.assertEqual(self.search(self.bob, "such thing"), ["no_such* (thing)"])
        self.assertEqual(self.search(self.bob, "koln thing"), [])
        self.refused(self.bob.client.search('"* ('), Code.MALFORMED)

    def test_to_a_name_that_nobody_has(self) -> None:
        """It is kept with the name, and deleted by it."""
        self.ann.send("carol", "who are you?")
        self.world.run_for(1)
        (message,) = self.history(self.ann, "Carol")
        self.assertEqual((message.state, message.code, message.peer.name), ("failed", "unknown-recipient", "carol"))
        self.ann.do(lambda messenger: messenger.delete("carol"))
        self.assertEqual(self.history(self.ann, "carol"), ())

    def test_switched_off(self) -> None:
        """Nothing more is kept; a client that does not say goes on so; one that does switches it on again."""
        self.say(self.ann, self.bob, "kept")
        for history, said, expected in (
            (False, "not kept", ["kept"]),
            (None, "nor this", ["kept"]),
            (True, "this is", ["kept", "this is"]),
            (None, "and this", ["kept", "this is", "and this"]),
        ):
            self.bob._options["history"] = history
            self.bob.restart()
            self.world.settle()
            self.say(self.ann, self.bob, said)
            self.assertEqual(texts(self.history(self.bob, "ann")), expected)

    def test_client_at_any_commit(self) -> None:
        """Whichever commit it goes down with, or behind: what was shown or asked for is kept, once, in order; and what
        is shown again has the same id."""
        whole = Script().run()
        for name, most in (("ann", whole.ann.store.commits), ("bob", whole.bob.store.commits)):
            for applied in (True, False):
                for number in range(1 + applied, most + 1, self.every):
                    script = Script()
                    user = script.ann if name == "ann" else script.bob
                    user.store.fails_at, user.store.applied = number, applied
                    script.run()
                    case = name, applied, number
                    for one, other, ours, theirs in (
                        (script.ann, script.bob, TO_BOB, TO_ANN),
                        (script.bob, script.ann, TO_ANN, TO_BOB),
                    ):
                        kept = self.history(one, other)
                        asked = script.asked(one)
                        sent = [message.text for message in kept if message.ours]
                        self.assertEqual([text for text in sent if text in asked], asked, case)
                        self.assertEqual(sent, [text for text in ours if text in sent], case)
                        came = [message for message in kept if not message.ours]
                        self.assertEqual(texts(tuple(came)), [text for text in theirs if text in one.texts()], case)
                        ids = {message.id: message.text for message in came}
                        shown = one.all(events.Message)
                        self.assertEqual({message.id: message.text for message in shown}, ids, case)


class WhyTests(HistoryTestCase):
    """What has become of a message explains itself."""

    def last(self, user: User) -> str:
        return user.all(events.State)[-1].id

    def test_of_ours(self) -> None:
        """Queued without a server; accepted while they are away; delivered; over restarts."""
        self.say(self.ann, self.bob, "before")
        self.bob.kill()
        self.ann.way.refusing = True
        self.ann.cut()
        self.world.run_for(1)
        self.ann.send("bob", "hello")
        number = self.last(self.ann)
        why = self.why(self.ann, number)
        self.assertEqual((why.state, [*why.times], why.peer.name), ("queued", ["queued"], "bob"))
        self.assertIn("no connection to the server", why.text)
        self.ann.way.refusing = False
        self.ann.restart()
        self.world.run_for(5)
        why = self.why(self.ann, number[:10])
        self.assertEqual((why.state, [*why.times]), ("accepted", ["queued", "accepted"]))
        self.assertIn("have not said yet", why.text)
        self.bob.restart()
        self.until(lambda: self.ann.states()[-1] == "delivered")
        self.world.run_for(1)  # the receipt is kept
        self.ann.restart()
        why = self.why(self.ann, number)
        self.assertEqual((why.state, [*why.times], why.code), ("delivered", ["queued", "accepted", "delivered"], ""))

    def test_waits(self) -> None:
        """For the name, for the keys, for the server's word."""
        self.say(self.ann, self.bob, "before")
        carol = self.world.user("carol")
        taken: list[inner.FromClient] = []

        def take(sender: str, message: inner.FromClient) -> bool:
            taken.append(message)
            return sender == self.ann.id and not isinstance(message, inner.Ack)

        self.world.intercept(take)
        for to, said in (("carol", "who has this name"), (carol.id, "keys"), ("bob", "on its way to the server")):
            self.ann.send(to, "hello")
            self.world.run_for(1)
            self.assertIn(said, self.why(self.ann, self.last(self.ann)).text)

    def test_failed(self) -> None:
        """The code in words, and what to do; in the history, too, after it was told and its letter was dropped."""
        self.ann.send("carol", "hello")
        self.world.run_for(1)
        self.ann.restart()
        self.world.run_for(1)
        why = self.why(self.ann, self.last(self.ann))
        self.assertEqual((why.state, why.code), ("failed", "unknown-recipient"))
        self.assertIn("ask them for their link", why.text)

    def test_of_theirs(self) -> None:
        self.say(self.ann, self.bob, "hello")
        why = self.why(self.bob, self.bob.all(events.Message)[0].id.upper())
        self.assertEqual((why.state, [*why.times], why.peer.name), ("came", ["came"], "ann"))
        self.assertIn("safety number was not compared", why.text)

    def test_of_nothing(self) -> None:
        """An id that is none, that nothing has, or that several have."""
        self.refused(self.ann.client.why("0" * 32), Code.UNKNOWN_RECIPIENT)
        self.say(self.ann, self.bob, *map(str, range(3)))
        for number in ("", "abc", "g" * 32, "0" * 33, "../.."):
            self.refused(self.ann.client.why(number), Code.MALFORMED)
        self.patch(asking, "ASK_EVERY", 1)
        entries = self.ann.store._history._entries
        for key, entry in list(entries.items()):
            entry.id = b"\xab\xcd" + entry.id[2:]
            entries["", entry.id] = entries.pop(key)
        self.refused(self.ann.client.why("abcd"), Code.UNKNOWN_RECIPIENT)

    def test_an_id_of_ours_that_a_peer_takes(self) -> None:
        """Their text is not kept under it, and they are told of as what could not be read; nothing of ours is blocked,
        be it that an older version has kept theirs."""
        self.say(self.ann, self.bob, "one", "I owe you 100")
        first, number = (message.id for message in self.history(self.ann, "bob"))
        desk = self.ann.messenger._desk
        old = desk.outbox.text(bytes.fromhex(first))
        assert old is not None
        desk.drop(old)  # as after a month
        entropy = cast("Any", self.bob.messenger._entropy)
        octets = entropy.octets
        for id in (first, number, number):
            taken = [bytes.fromhex(id)]
            entropy.octets = lambda size, taken=taken: taken.pop() if taken else octets(size)
            self.bob.send("ann", "mine")
            self.world.run_for(3)
        entropy.octets = octets
        self.assertEqual(self.ann.texts(), [])
        unreadable = self.ann.all(events.Unreadable)
        self.assertEqual([one.code for one in unreadable], [Code.MALFORMED] * 3)
        self.assertEqual(self.bob.states()[-1], "accepted")  # and never delivered
        self.assertEqual({one.id for one in unreadable} & {first, number}, set())
        self.assertEqual(self.why(self.ann, number).state, "delivered")
        self.assertEqual(texts(self.history(self.ann, "bob")), ["one", "I owe you 100"])
        self.say(self.bob, self.ann, "honest")
        kept = Entry(id=bytes.fromhex(number), sender=self.bob.id, peer=self.bob.id, text="mine", state="came", time=1)
        self.ann.store.commit(Change(history=(kept,)))
        self.assertEqual(self.why(self.ann, number).state, "delivered")
        self.assertEqual(texts(self.history(self.ann, "bob", 50, number)), ["one"])

    def test_without_a_history(self) -> None:
        """What is under way is known all the same."""
        self.ann._options["history"] = False
        self.ann.restart()
        self.world.settle()
        self.bob.kill()
        self.ann.send("bob", "hello")
        self.world.run_for(1)
        self.assertEqual(self.why(self.ann, self.last(self.ann)).state, "accepted")
        self.assertEqual(self.history(self.ann, "bob"), ())
