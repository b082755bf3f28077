"""Texts, their acknowledgements, and what becomes of them when a conversation ends or is replaced."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from twisted.trial.unittest import SynchronousTestCase

from sims import messages, wire
from sims.client import events, seed, seed_peer
from sims.client.events import Contact, Delivery
from sims.client.seed import SeedMessenger
from sims.crypto.seed import WINDOW
from sims.errors import Code, LocalError
from sims.test.cheapkeys import use_cheap_keys
from sims.test.desk import Desk, Far, heard, kinds

OWN, HIGHER = 5, 9


class TextTests(SynchronousTestCase):
    """Texts, their acknowledgements, and what becomes of them when a conversation ends or is replaced.

    :cvar many: texts, several windows full; in ``tests/test_random_whole.py`` there are more.
    """

    many = 6 * WINDOW

    def setUp(self) -> None:
        use_cheap_keys(self)
        self.desk = Desk(OWN, cheap=True).connect()
        self.far = Far(self.desk, HIGHER)
        self.desk.happened()

    def send(self, *texts: str) -> None:
        for text in texts:
            self.desk.do(partial(SeedMessenger.send, to=str(HIGHER), text=text, ref=f"ref {text}"))

    def reconnect(self) -> None:
        self.desk.lose()
        self.desk.connect()

    def acknowledge(self, count: int) -> None:
        for _ in range(count):
            self.desk.give(self.far.ack())

    def states(self) -> list[tuple[object, str]]:
        """The (ref, state) of the texts since the last time."""
        return [(event.ref, str(event.state)) for event in self.desk.happened() if isinstance(event, events.State)]

    def test_opens_by_itself(self) -> None:
        """A text to somebody without a conversation opens one, and goes out when it is open."""
        self.send("a", "b")
        self.assertEqual(kinds(self.desk.take()), ["client-connect 1"])
        self.desk.give(self.far.phase2())
        [phase3] = self.desk.take()
        self.desk.give(self.far.phase4(phase3))
        self.assertEqual(self.far.texts(self.desk.take()), ["a", "b"])
        for _ in range(2):
            self.desk.give(self.far.ack())
        found = self.states()
        self.assertEqual(found[-2:], [("ref a", "delivered"), ("ref b", "delivered")])
        self.assertEqual(self.desk.messenger.under_way, 0)

    def test_states(self) -> None:
        """Queued, accepted when the server acknowledges, delivered when the peer does; each once, with the ref."""
        self.far.open()
        self.desk.happened()
        self.desk.acknowledging = False
        self.send("a", "b")
        self.assertEqual(self.states(), [("ref a", "queued"), ("ref b", "queued")])
        self.desk.frame(messages.Ack())
        self.desk.frame(messages.Ack())
        self.desk.acknowledging = True
        self.assertEqual(self.states(), [("ref a", "accepted"), ("ref b", "accepted")])
        self.desk.give(self.far.ack())
        self.assertEqual(self.states(), [("ref a", "delivered")])
        self.assertEqual(self.desk.messenger.under_way, 1)
        for _ in range(3):
            self.desk.give(self.far.ack())
        self.assertEqual(self.states(), [("ref b", "delivered")])
        self.assertEqual(self.desk.messenger.under_way, 0)

    def test_replaced(self) -> None:
        """What is not acknowledged when a conversation is replaced may have been shown: it fails; what waits goes."""
        self.far.open()
        self.send("a", "b", "c")
        old = self.desk.take()
        self.assertEqual(self.far.texts(old), ["a", "b", "c"])
        self.desk.give(self.far.ack())
        self.desk.give(self.far.phase1())
        self.send("d")
        sent = self.desk.take()
        self.assertEqual(kinds(sent), ["client-connect 2"])  # nothing goes out meanwhile
        self.desk.give(self.far.phase3(sent[0]["ciphers"]))
        phase4, *again = self.desk.take()
        self.far.finish(phase4)
        self.assertEqual(self.far.texts(again), ["d"])
        self.desk.give(self.far.ack())
        found = self.states()
        for ref, end in (("ref a", "delivered"), ("ref b", "failed"), ("ref c", "failed"), ("ref d", "delivered")):
            self.assertEqual([state for name, state in found if name == ref], ["queued", "accepted", end], ref)

    def test_the_replaced_one_still_opens(self) -> None:
        """An initiator may use the old session until phase 4 has reached it."""
        self.far.open()
        old = self.far.session
        self.desk.give(self.far.phase1())
        self.desk.give(self.far.phase3(self.desk.take()[-1]["ciphers"]))
        self.far.finish(self.desk.take()[-1])
        new, self.far.session = self.far.session, old
        self.desk.give(self.far.com("on the old one"))
        self.far.session = new
        self.desk.give(self.far.com("on the new one"))
        self.far.session = old
        self.desk.give(self.far.com("too late"))
        found = self.desk.happened()
        self.assertEqual(heard(found), ["connected", "connected", "message", "message", "not-authenticated"])
        texts = [event.text for event in found if isinstance(event, events.Message)]
        self.assertEqual(texts, ["on the old one", "on the new one"])

    def test_disconnected_by_the_peer(self) -> None:
        """What it did not acknowledge before, it has not received: that goes out in a new conversation."""
        self.far.open()
        self.send("a", "b")
        self.desk.take()
        self.desk.give(self.far.ack())
        self.desk.give(self.far.disconnect())
        self.assertEqual(kinds(self.desk.take()), ["client-connect 1"])
        self.desk.give(self.far.phase2())
        self.desk.give(self.far.phase4(self.desk.take()[0]))
        self.assertEqual(self.far.texts(self.desk.take()), ["b"])

    def test_attempts(self) -> None:
        """A text is sent three times at most, and then fails, whoever closed the conversation."""
        for closed_by_us in (False, True):
            self.desk = Desk(OWN, cheap=True).connect()
            self.far = Far(self.desk, HIGHER).open()
            self.send("a")
            for attempt in range(seed_peer.MAX_ATTEMPTS - 1):
                self.desk.take()
                self.desk.give(self.far.disconnect())
                self.assertEqual(kinds(self.desk.take()), ["client-connect 1"], attempt)
                self.desk.give(self.far.phase2())
                self.desk.give(self.far.phase4(self.desk.take()[0]))
                self.assertEqual(self.far.texts(self.desk.take()), ["a"], attempt)
            if closed_by_us:
                self.desk.do(lambda messenger: messenger.disconnect(str(HIGHER)))
                self.desk.take()
            self.desk.give(self.far.disconnect())
            self.assertEqual(self.desk.take(), [])
            self.assertEqual(self.states()[-1], ("ref a", "failed"))
            self.assertEqual(self.desk.messenger.under_way, 0)

    def test_disconnect(self) -> None:
        """It comes after what was sent before, and acknowledgements still count."""
        self.far.open()
        self.send("a")
        self.desk.do(lambda messenger: messenger.disconnect(str(HIGHER), "bye"))
        sent = self.desk.take()
        self.assertEqual(kinds(sent), ["client-com", "client-disconnect"])
        self.assertEqual(sent[1], {"type": "client-disconnect", "src": OWN, "dst": str(HIGHER), "data": {}})
        self.assertEqual(self.desk.messenger.under_way, 1)
        self.desk.give(self.far.ack())
        found = self.desk.happened()
        self.assertEqual(heard(found), ["connected", "queued", "accepted", "disconnected", "delivered"])
        self.assertEqual([event.ref for event in found if isinstance(event, events.Disconnected)], ["bye"])
        self.assertEqual(self.desk.messenger.under_way, 0)

    def test_disconnect_is_always_answered(self) -> None:
        """Whatever ends the conversation, whoever asked for the end hears of it, once, under his ref."""
        how: dict[str, Callable[[], object]] = {
            "by the peer": lambda: self.desk.give(self.far.disconnect()),
            "gone": lambda: self.desk.give(messages.Error(code="unknown-recipient", dst=HIGHER)),
            "lost": self.reconnect,
            "acknowledged": lambda: self.acknowledge(WINDOW + 1),
        }
        for name, end in how.items():
            self.desk = Desk(OWN, cheap=True).connect()
            self.far = Far(self.desk, HIGHER).open()
            # As many as may be under way, and one more: so the disconnect has to wait.
            self.send(*map(str, range(WINDOW + 1)))
            for ref in ("one", "two"):
                self.desk.do(partial(SeedMessenger.disconnect, to=str(HIGHER), ref=ref))
            self.assertNotIn("client-disconnect", kinds(self.desk.take()), name)
            self.assertEqual(self.desk.messenger.under_way, WINDOW + 3, name)
            self.desk.happened()
            end()
            if name in ("by the peer", "lost"):
                self.assertEqual(kinds(self.desk.sent)[:1], ["client-connect 1"], name)
            sent = self.desk.take()
            if "client-connect 1" in kinds(sent):
                self.desk.give(self.far.phase2())
                self.desk.give(self.far.phase4(self.desk.take()[0]))
                self.acknowledge(WINDOW + 1)
                sent = self.desk.take()
            self.assertEqual(kinds(sent)[-1:], [] if name == "gone" else ["client-disconnect"], name)
            refs = [event.ref for event in self.desk.happened() if isinstance(event, events.Disconnected) and event.ref]
            self.assertEqual(refs, ["one", "two"], name)
            self.assertEqual(self.desk.messenger.under_way, 0, name)

    def test_disconnect_during_a_handshake(self) -> None:
        """It waits for the handshake; if the connection is lost meanwhile, that was the end."""
        self.far.open()
        self.desk.give(self.far.phase1())
        self.desk.take()
        self.desk.do(lambda messenger: messenger.disconnect(str(HIGHER), "bye"))
        self.assertEqual(self.desk.take(), [])
        self.desk.happened()
        self.desk.lose()
        found = self.desk.happened()
        self.assertEqual(heard(found), ["offline", "disconnected"])
        self.assertEqual(found[-1].ref, "bye")
        self.assertEqual(self.desk.messenger.under_way, 0)

    def test_closed_by_both(self) -> None:
        """A text that met a conversation closed by its receiver goes out again, though we had closed it, too."""
        self.far.open()
        self.send("a")
        self.desk.do(lambda messenger: messenger.disconnect(str(HIGHER)))
        self.assertEqual(kinds(self.desk.take()), ["client-com", "client-disconnect"])
        self.desk.give(self.far.disconnect())
        self.assertEqual(kinds(self.desk.take()), ["client-connect 1"])
        self.desk.give(self.far.disconnect())  # and its answer to the text that it did not take
        self.desk.give(self.far.phase2())
        self.desk.give(self.far.phase4(self.desk.take()[0]))
        self.assertEqual(self.far.texts(self.desk.take()), ["a"])

    def test_disconnect_before_the_conversation(self) -> None:
        """A conversation that does not come about cannot be closed; who asked for that hears why."""
        for name, end in {
            "no answer": lambda: self.desk.advance(seed.OPEN_TIMEOUT),
            "gone": lambda: self.desk.give(messages.Error(code="unknown-recipient", dst=HIGHER)),
            "refused": lambda: self.desk.give(self.far.error()),
        }.items():
            self.desk.do(lambda messenger: messenger.connect(str(HIGHER), "hello"))
            self.desk.do(lambda messenger: messenger.disconnect(str(HIGHER), "bye"))
            end()
            refs = [event.ref for event in self.desk.happened() if isinstance(event, events.Problem)]
            self.assertEqual(refs, ["hello", "bye"], name)
            self.assertEqual(self.desk.messenger.under_way, 0, name)

    def test_disconnect_without_a_conversation(self) -> None:
        self.desk.do(lambda messenger: messenger.disconnect(str(HIGHER), "bye"))
        [problem] = self.desk.happened()
        self.assertEqual((heard([problem]), problem.ref), (["unknown-recipient"], "bye"))

    def test_window(self) -> None:
        """A peer that neither acknowledges nor sends stops us at 64; each sign of it lets us go on."""
        self.far.open()
        self.send(*map(str, range(100)))
        self.assertEqual(self.far.texts(self.desk.take()), [str(number) for number in range(WINDOW)])
        self.assertEqual(self.desk.messenger.unsent, 100 - WINDOW)
        self.desk.give(self.far.ack())
        self.assertEqual(self.far.texts(self.desk.take()), [str(WINDOW)])
        # A text of its own, under our newest key, shows that it has received everything.
        self.desk.give(self.far.com("hello"))
        self.assertEqual(len(self.far.texts(self.desk.take())), 100 - WINDOW - 1)

    def test_one_way(self) -> None:
        """Many texts to a peer that acknowledges and says nothing."""
        self.far.open()
        got: list[str] = []
        self.send(*map(str, range(self.many)))
        while sent := self.desk.take():
            got += self.far.texts(sent)
            for inner in sent:
                self.assertEqual(inner["type"], "client-com")
                self.desk.give(self.far.ack())
        self.assertEqual(got, [str(number) for number in range(self.many)])
        delivered = [ref for ref, state in self.states() if state == "delivered"]
        self.assertEqual(delivered, [f"ref {number}" for number in range(self.many)])

    def test_empty_text_moves_keys_on(self) -> None:
        """After 64 texts without one of ours an empty one goes out, which nobody shows or acknowledges."""
        self.far.open()
        for number in range(seed_peer.TURN_AFTER - 1):
            self.desk.give(self.far.com(str(number)))
        self.assertEqual(set(kinds(self.desk.take())), {"ack"})
        self.desk.give(self.far.com("the last"))
        sent = self.desk.take()
        self.assertEqual(kinds(sent), ["ack", "client-com"])
        self.assertEqual(self.far.texts(sent), [""])
        self.desk.happened()
        self.desk.give(self.far.com(""))
        self.assertEqual((self.desk.take(), self.desk.happened()), ([], []))
        self.assertEqual(self.desk.messenger.under_way, 0)

    def test_refused_texts(self) -> None:
        self.far.open()
        self.desk.happened()
        longest = "x" * (wire.MAX_TEXT - 2)
        for text, code in (("", Code.MALFORMED), ("\ud800", Code.MALFORMED), (longest + "x", Code.TOO_LARGE)):
            with self.assertRaises(LocalError) as caught:
                self.desk.messenger.send(str(HIGHER), text)
            self.assertEqual(caught.exception.code, code)
        self.assertEqual((self.desk.happened(), self.desk.messenger.under_way), ([], 0))
        self.send(longest)
        self.assertEqual(self.far.texts(self.desk.take()), [longest])

    def test_unknown_recipient(self) -> None:
        """Nobody of this id: every text that waits fails, and a conversation that was open is closed."""
        self.send("a", "b")
        self.desk.give(messages.Error(code="unknown-recipient", dst=str(HIGHER)))
        found = self.desk.happened()
        self.assertEqual(heard(found), ["queued", "queued", "unknown-recipient", "failed", "failed"])
        self.assertEqual(found[-1], events.State(
            id=_id(found[-1]), to=Contact("9", ""), state=Delivery.FAILED, code=Code.UNKNOWN_RECIPIENT, ref="ref b"
        ))  # fmt: skip
        self.far.open()
        self.send("c")
        self.desk.happened()
        self.desk.give(messages.Error(code="unknown-recipient", dst=HIGHER))
        self.assertEqual(heard(self.desk.happened()), ["unknown-recipient", "failed", "disconnected"])
        self.assertEqual(self.desk.messenger.under_way, 0)
        self.assertEqual(self.desk.messenger.conversations(), ())


def _id(event: events.Event) -> str:
    assert isinstance(event, events.State)
    return event.id
