"""Tests of :mod:`sims.client.messenger` and what it is made of: what users do, through the real server in memory."""

from __future__ import annotations

from msgspec.structs import replace

from sims import specs
from sims.client import events
from sims.client.commands import MAX_TEXT
from sims.client.events import Contact, Delivery
from sims.client.outbox import TEXT_LIFE
from sims.errors import Code, LocalError
from sims.server.limits import Mailbox
from sims.test.modern_world import LIFTED, User, World, WorldTestCase

SPEC = "X25519MLKEM768-AES256_GCM-SHA384"


class TextTests(WorldTestCase):
    """Texts, and what their senders hear of them."""

    def test_to_a_name(self) -> None:
        """In order: queued, who it is, accepted, delivered; at the other end who it is, and the text."""
        ann, bob = self.world.users("ann", "bob")
        ann.happened.clear()
        bob.happened.clear()
        ann.send("bob", "hello", "r")
        self.world.run_for(1)
        (number,) = {state.id for state in ann.all(events.State)}
        to = Contact(bob.id, "bob")
        self.assertEqual(
            ann.happened,
            [
                events.State(id=number, to=Contact("", "bob"), state=Delivery.QUEUED, text="hello", ref="r"),
                events.Connected(peer=to, spec=SPEC, confirmed=False),
                events.Connected(peer=to, spec=SPEC, confirmed=True),
                events.State(id=number, to=to, state=Delivery.ACCEPTED, ref="r"),
                events.State(id=number, to=to, state=Delivery.DELIVERED, ref="r"),
            ],
        )
        sender = Contact(ann.id, "ann")
        self.assertEqual(
            bob.happened,
            [
                events.Connected(peer=sender, spec=SPEC, confirmed=False),
                events.Message(sender=sender, text="hello", id=number, verified=False, confirmed=False),
                events.Connected(peer=sender, spec=SPEC, confirmed=True),
            ],
        )
        self.talk(ann, bob)

    def test_what_is_known_is_not_asked_for_again(self) -> None:
        ann, bob = self.world.users("ann", "bob")
        self.talk(ann, bob)
        frames = ann.frames
        ann.send("BOB", "once more")
        self.world.settle()
        self.assertEqual(bob.texts()[-1], "once more")
        self.assertLessEqual(ann.frames - frames, 3)

    def test_to_somebody_away(self) -> None:
        """They are accepted while the recipient is away, and come in order when he is back; the sender has gone."""
        ann, bob = self.world.users("ann", "bob")
        bob.kill()
        self.world.settle()
        for number in range(20):
            ann.send(bob, str(number))
        self.world.settle()
        self.assertEqual(ann.states().count("accepted"), 20)
        ann.kill()
        bob.restart()
        self.until(lambda: len(bob.texts()) == 20)
        self.assertEqual(bob.texts(), [str(number) for number in range(20)])
        self.assertEqual({message.order for message in bob.all(events.Message)}, {None})
        ann.restart()
        self.until(lambda: ann.delivered() == 20)

    def test_asked_for_while_offline(self) -> None:
        """A text is kept until there is a server; by its link even to somebody of whom nothing is known."""
        ann, bob = self.world.users("ann", "bob")
        ann.way.refusing = True
        ann.cut()
        self.world.run_for(1)
        ann.send("bob", "to a name")
        ann.send(bob.id, "to an id")
        ann.restart()
        self.world.run_for(1)
        self.assertEqual(ann.states(), ["queued", "queued"])
        ann.way.refusing = False
        self.until(lambda: ann.delivered() == 2)
        self.assertEqual(set(bob.texts()), {"to a name", "to an id"})

    def test_both_open_at_once(self) -> None:
        ann, bob = self.world.users("ann", "bob")
        for number in range(3):
            ann.send("bob", f"a{number}")
            bob.send("ann", f"b{number}")
        self.world.run_for(1)
        self.assertEqual(bob.texts(), ["a0", "a1", "a2"])
        self.assertEqual(ann.texts(), ["b0", "b1", "b2"])
        self.assertEqual((ann.delivered(), bob.delivered()), (3, 3))
        for _ in range(3):
            self.talk(ann, bob)

    def test_what_can_be_said(self) -> None:
        """Nothing, 32,000 bytes, and whatever is in between arrive as they are."""
        ann, bob = self.world.users("ann", "bob")
        texts = ["", " ", "\0\x1b[31m", "two\n\nlines", "é" * (MAX_TEXT // 2), "x" * MAX_TEXT]
        for text in texts:
            ann.send("bob", text)
        self.world.run_for(1)
        self.assertEqual(bob.texts(), texts)
        self.assertEqual(ann.delivered(), len(texts))

    def test_what_cannot(self) -> None:
        """Each is refused with its code, and nothing is queued for it."""
        ann, bob = self.world.users("ann", "bob")
        ann.happened.clear()
        link = f"sims+tcp://server.test:7467/{'a' * 32}/bob/{bob.id}"
        for to, text, code in (
            ("bob", "x" * (MAX_TEXT + 1), Code.TOO_LARGE),
            ("bob", "é" * (MAX_TEXT // 2) + "x", Code.TOO_LARGE),
            ("bob", "half a character: \ud800", Code.MALFORMED),
            ("", "text", Code.MALFORMED),
            (" ", "text", Code.MALFORMED),
            ("\udfff", "text", Code.UNKNOWN_RECIPIENT),
            ("x" * 129, "text", Code.UNKNOWN_RECIPIENT),
            (ann.id, "text", Code.POLICY),
            ("ann", "text", Code.POLICY),
            ("ANN", "text", Code.POLICY),
            ("sims://nothing", "text", Code.MALFORMED),
            (str(self.world.link()), "text", Code.MALFORMED),
            (link, "text", Code.POLICY),
        ):
            with self.assertRaises(LocalError) as caught:
                ann.send(to, text)
            self.assertEqual(caught.exception.code, code, to)
        self.assertEqual((ann.happened, ann.messenger.unsent), ([], 0))
        self.talk(ann, bob)

    def test_unknown_recipient(self) -> None:
        """Nobody has the name, or the id: the text fails, with the ref of what asked for it."""
        ann = self.world.user("ann")
        for to in ("nobody", "a" * 32, "no name\n", "x" * 128):
            ann.happened.clear()
            ann.send(to, "hello", "r")
            self.world.settle()
            last = ann.all(events.State)[-1]
            self.assertEqual((last.state, last.code, last.ref), (Delivery.FAILED, Code.UNKNOWN_RECIPIENT, "r"), to)
        self.assertEqual((ann.messenger.unsent, ann.messenger.under_way), (0, 0))
        self.world.run_for(1)
        ann.restart()
        self.world.run_for(1)
        self.assertEqual(ann.states().count("failed"), 1, "what was told is not told again")

    def test_mailbox_full(self) -> None:
        """What finds no room fails at once; what had room arrives, and so does what is said later, with no gap."""
        self.world = World(limits=LIFTED._replace(mailbox=Mailbox(stranger_messages=5)))
        ann, bob = self.world.users("ann", "bob")
        bob.kill()
        self.world.settle()
        for number in range(8):
            ann.send("bob", str(number))
        self.world.run_for(1)
        failed = [state for state in ann.all(events.State) if state.state is Delivery.FAILED]
        self.assertEqual([state.code for state in failed], [Code.MAILBOX_FULL] * 3)
        bob.restart()
        self.until(lambda: ann.delivered() == 5)
        self.assertEqual(bob.texts(), ["0", "1", "2", "3", "4"])
        for _ in range(2):
            self.talk(ann, bob)
        self.assertEqual([message.order for message in bob.all(events.Message)], [None] * 7)

    def test_receipts_when_we_have_ended_the_session(self) -> None:
        """After a failure nothing goes on the old session: what comes on it is answered on a new one."""
        ann, bob = self.world.users("ann", "bob")
        self.talk(ann, bob)
        ann.messenger._desk.renew(bob.id)
        bob.send("ann", "on the old one")
        self.world.run_for(2)
        self.assertEqual((ann.texts()[-1], bob.delivered()), ("on the old one", 2))
        self.talk(ann, bob)
        self.assertEqual({message.order for message in bob.all(events.Message)}, {None})

    def test_expired(self) -> None:
        """What has no receipt 30 days after it was accepted has failed; the code is none of the protocol's."""
        ann, bob = self.world.users("ann", "bob")
        bob.kill()
        self.world.settle()
        ann.send("bob", "hello")
        self.world.run_for(1)  # what the server has said is kept
        ann.kill()
        self.world.clock.rightNow += TEXT_LIFE - 10
        ann.restart()
        self.world.run_for(1)
        self.assertEqual(ann.states(), ["queued", "accepted"])
        self.world.clock.rightNow += 86_400
        ann.client.pump()
        last = ann.all(events.State)[-1]
        self.assertEqual((last.state, str(last.code)), (Delivery.FAILED, "expired"))
        self.assertNotIn("expired", set(Code))

    def test_receipts_are_gathered(self) -> None:
        """100 texts that come at once are answered in one message, and never by one each."""
        ann, bob = self.world.users("ann", "bob")
        self.talk(ann, bob)
        frames = bob.frames
        for number in range(100):
            ann.send(bob, str(number))
        self.world.run_for(1)
        self.assertEqual(ann.delivered(), 101)
        # 100 texts and as many acks, the receipt and its ack.
        self.assertLess(bob.frames - frames, 210)

    def test_read_receipts(self) -> None:
        """They are sent only where that was asked for."""
        ann = self.world.user("ann")
        bob = self.world.user("bob", read_receipts=True)
        self.talk(ann, bob)
        self.assertEqual(ann.states()[-1], "read")
        self.assertNotIn("read", bob.states())

    def test_spec_of_ones_own(self) -> None:
        """The one that both allow is used; where there is none, the text fails, and nothing weaker is spoken."""
        chacha = specs.modern_by_names(["X25519MLKEM768-CHACHA20_POLY1305-SHA256"])
        ann = self.world.user("ann", allowed=chacha)
        bob = self.world.user("bob")
        self.talk(ann, bob)
        self.assertEqual(ann.all(events.Connected)[0].spec, chacha[0].name)
        eve = self.world.user("eve", allowed=specs.MODERN[:1])
        eve.send("ann", "hello")
        eve.client.act(lambda messenger: messenger.connect("ann", 7))
        self.world.run_for(1)
        self.assertEqual(eve.states(), ["queued", "failed"])
        self.assertEqual((set(eve.problems()), eve.messenger.under_way), ({"no-common-spec"}, 0))
        self.assertEqual(eve.all(events.Problem)[-1].ref, 7)


class ConversationTests(WorldTestCase):
    """Opening, closing, verifying."""

    def setUp(self) -> None:
        super().setUp()
        self.ann, self.bob = self.world.users("ann", "bob")

    def test_connect(self) -> None:
        """Told when it is open, with the ref, and when the peer has confirmed it; the second time at once."""
        self.ann.do(lambda messenger: messenger.connect("bob", 7))
        first, confirmed = self.ann.all(events.Connected)
        self.assertEqual((first.ref, first.confirmed, first.peer), (7, False, Contact(self.bob.id, "bob")))
        self.assertEqual((confirmed.ref, confirmed.confirmed), (None, True))
        self.ann.client.act(lambda messenger: messenger.connect(self.bob.id, 8))
        self.assertEqual(self.ann.all(events.Connected)[2], replace(confirmed, ref=8))
        self.world.run_for(3)
        self.assertEqual([one.confirmed for one in self.bob.all(events.Connected)], [False, True])
        self.assertEqual(self.bob.texts(), [])
        self.assertEqual(self.ann.messenger.conversations(), (Contact(self.bob.id, "bob"),))

    def test_connect_to_nobody(self) -> None:
        self.ann.do(lambda messenger: messenger.connect("nobody", 7))
        (problem,) = self.ann.all(events.Problem)
        self.assertEqual((problem.code, problem.ref), (Code.UNKNOWN_RECIPIENT, 7))
        self.assertEqual(self.ann.messenger.under_way, 0)

    def test_several_wait_for_one(self) -> None:
        """Each is told, with its own ref, and a text that waits with them goes."""
        for ref in (1, 2):
            self.ann.client.act(lambda messenger, ref=ref: messenger.connect("bob", ref))  # type: ignore[misc]
        self.ann.send("bob", "hello")
        self.world.run_for(1)
        self.assertEqual([one.ref for one in self.ann.all(events.Connected)], [1, 2, None])
        self.assertEqual(self.bob.texts(), ["hello"])

    def test_disconnect(self) -> None:
        """Both hear of it, what was said before has arrived and its sender knows; then they talk anew."""
        self.talk(self.ann, self.bob)
        self.ann.send("bob", "last words")
        self.ann.client.act(lambda messenger: messenger.disconnect("bob", 9))
        self.world.run_for(1)
        self.assertEqual(
            self.ann.all(events.Disconnected), [events.Disconnected(peer=Contact(self.bob.id, "bob"), ref=9)]
        )
        self.assertEqual([one.peer.id for one in self.bob.all(events.Disconnected)], [self.ann.id])
        self.assertEqual(self.bob.texts()[-1], "last words")
        self.assertEqual((self.ann.messenger.conversations(), self.bob.messenger.conversations()), ((), ()))
        for _ in range(2):
            self.talk(self.bob, self.ann)
        self.assertEqual(self.ann.delivered(), 4, "the receipt for the last words came on the new session")
        self.assertEqual({message.order for message in self.bob.all(events.Message)}, {None})

    def test_receipts_go_before_the_end(self) -> None:
        """Whoever closes a conversation tells first what has come in it."""
        self.talk(self.ann, self.bob)
        self.bob.send("ann", "hello")
        self.world.settle()
        self.ann.client.act(lambda messenger: messenger.disconnect("bob"))
        self.world.run_for(1)
        self.assertEqual(self.bob.delivered(), 2)

    def test_disconnect_from_nobody(self) -> None:
        for to in ("bob", "nobody", self.bob.id):
            with self.assertRaises(LocalError) as caught:
                self.ann.client.act(lambda messenger, to=to: messenger.disconnect(to))  # type: ignore[misc]
            self.assertEqual(caught.exception.code, Code.UNKNOWN_RECIPIENT)

    def test_safety_number(self) -> None:
        """The same on both screens; whoever says that it was compared is told that the other is verified."""
        for to in ("bob", "nobody"):
            with self.assertRaises(LocalError) as caught:
                self.ann.client.act(lambda messenger, to=to: messenger.verify(to))  # type: ignore[misc]
            self.assertEqual(caught.exception.code, Code.UNKNOWN_RECIPIENT)
        self.talk(self.ann, self.bob)
        self.ann.do(lambda messenger: messenger.verify("bob", 1))
        self.bob.do(lambda messenger: messenger.verify("ann", 2))
        (mine,), (theirs,) = self.ann.all(events.SafetyNumber), self.bob.all(events.SafetyNumber)
        self.assertEqual((mine.number, mine.ref, mine.peer.id), (theirs.number, 1, self.bob.id))
        self.assertEqual([len(group) for group in mine.number.split(" ")], [5] * 12)
        self.ann.do(lambda messenger: messenger.trust("bob", 3))
        self.assertEqual(self.ann.all(events.Trusted), [events.Trusted(peer=Contact(self.bob.id, "bob"), ref=3)])
        self.bob.send("ann", "hello")
        self.world.settle()
        self.assertTrue(self.ann.all(events.Message)[-1].verified)
        self.ann.restart()
        self.world.run_for(1)
        self.bob.send("ann", "again")
        self.world.settle()
        self.assertTrue(self.ann.all(events.Message)[-1].verified)

    def test_link(self) -> None:
        """One's own link, in a friend's hand, is whom to send to; it verifies."""
        self.bob.do(lambda messenger: messenger.own_link(4))
        (link,) = self.bob.all(events.Link)
        self.assertEqual(
            (link.link, link.ref), (f"sims+tcp://server.test:7467/{self.world.identity.id}/bob/{self.bob.id}", 4)
        )
        self.ann.send(f" {link.link}\n", "hello")
        self.world.run_for(1)
        self.assertEqual((self.bob.texts(), self.ann.delivered()), (["hello"], 1))
        self.assertEqual(self.ann.all(events.State)[-1].to, Contact(self.bob.id, "bob"))
        self.assertTrue(self.ann.all(events.Connected)[0].verified)
        self.talk(self.ann, self.bob)

    def test_directory(self) -> None:
        """Where the operator keeps none it is empty; offline there is no answer."""
        self.ann.do(lambda messenger: messenger.list(5))
        self.assertEqual(self.ann.all(events.Listing), [events.Listing(clients=(), ref=5)])
        self.ann.client.act(lambda messenger: messenger.list(6))
        self.ann.cut()
        self.world.settle()
        self.assertEqual([(one.code, one.ref) for one in self.ann.all(events.Problem)], [(Code.UNAVAILABLE, 6)])
        self.ann.way.refusing = True
        self.ann.cut()
        self.world.run_for(5)
        with self.assertRaises(LocalError) as caught:
            self.ann.client.act(lambda messenger: messenger.list(7))
        self.assertEqual(caught.exception.code, Code.UNAVAILABLE)

    def test_says_nothing_in_its_reprs(self) -> None:
        """No name, text or key."""
        self.talk(self.ann, self.bob)
        self.ann.send("bob", "a very secret text")
        messenger = self.ann.messenger
        desk = messenger._desk
        letters = list(desk.outbox._letters.values())
        for one in (messenger, desk, desk.outbox, desk.inbox, desk.people, desk.talks, *letters, *desk.people.all()):
            self.assertNotIn("secret", repr(one))
            self.assertNotIn("bob", repr(one))
        self.world.settle()


class NewUserTests(WorldTestCase):
    def test_needs_link_and_name(self) -> None:
        """The first time; later the store has them, and keeps others out."""
        for options in ({"link": None}, {"name": None}):
            with self.assertRaises(LocalError) as caught:
                User(self.world, "ann", **options)
            self.assertEqual(caught.exception.code, Code.POLICY)
        for name in ("", "x" * 33, "\ud800"):
            with self.assertRaises(LocalError) as caught:
                User(self.world, "ann", None, name=name)
            self.assertEqual(caught.exception.code, Code.NAME_INVALID)
        ann = self.world.user("Ann")
        self.assertEqual(ann.messenger.name, "ann", "it is the server that says how it is written")
        ann.kill()
        for known in (None, "ann", "ANN"):
            self.assertEqual(User(self.world, "ann", ann.store, link=None, name=known).id, ann.id)
        other = World(seed=1).link()
        other = type(other)(other.addresses, "a" * 32)
        for wrong in ({"link": other}, {"name": "bob"}):
            with self.assertRaises(LocalError) as caught:
                User(self.world, "ann", ann.store, **wrong)
            self.assertEqual(caught.exception.code, Code.POLICY)
