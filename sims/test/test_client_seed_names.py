"""Who is meant by a name, and what a lost connection means for what was asked for."""

from __future__ import annotations

from functools import partial
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from sims import messages
from sims.client import events
from sims.client.events import Contact, Delivery
from sims.client.seed import SeedMessenger
from sims.client.seed_hop import TURN_AFTER
from sims.crypto.seed import WINDOW
from sims.errors import Code
from sims.test.cheapkeys import use_cheap_keys
from sims.test.desk import Desk, Far, heard, kinds

OWN, HIGHER = 5, 9


class ConnectionTests(SynchronousTestCase):
    """What a lost connection to the server means for what was under way."""

    def setUp(self) -> None:
        use_cheap_keys(self)
        self.desk = Desk(OWN, cheap=True)

    def test_before_the_first(self) -> None:
        """Commands wait for the session, and are carried out in their order."""
        self.desk.roster.append(("bob", HIGHER))
        self.desk.do(lambda messenger: messenger.list("list"))
        self.desk.do(lambda messenger: messenger.send("bob", "hi", "text"))
        self.desk.do(lambda messenger: messenger.connect("nobody", "connect"))
        self.desk.do(lambda messenger: messenger.disconnect("9", "bye"))
        self.assertEqual(heard(self.desk.happened()), ["queued"])
        self.assertEqual(self.desk.messenger.unsent, 4)
        self.desk.connect()
        self.assertEqual(kinds(self.desk.take()), ["client-connect 1"])
        found = self.desk.happened()
        self.assertEqual(heard(found), ["ready", "listing", "unknown-recipient"])
        self.assertEqual([event.ref for event in found], [None, "list", "connect"])

    def test_written_and_not_acknowledged(self) -> None:
        """It may have arrived or not: it fails, and is not sent again."""
        self.desk.connect()
        far = Far(self.desk, HIGHER).open()
        self.desk.do(lambda messenger: messenger.send(str(HIGHER), "a"))
        self.assertEqual(far.texts(self.desk.take()), ["a"])
        self.desk.happened()
        self.desk.lose()
        found = self.desk.happened()
        self.assertEqual(heard(found), ["offline", "failed"])
        self.desk.connect()
        self.assertEqual(self.desk.take(), [])
        self.assertEqual(self.desk.messenger.under_way, 0)

    def test_not_written(self) -> None:
        """What the socket did not take waits for the next connection, in order."""
        self.desk.connect()
        far = Far(self.desk, HIGHER).open()
        self.desk.do(lambda messenger: messenger.send(str(HIGHER), "a"))
        self.desk.messenger.hop.congested = True
        for text in "bcd":
            self.desk.do(partial(SeedMessenger.send, to=str(HIGHER), text=text))
        self.assertEqual(far.texts(self.desk.take()), ["a"])
        self.desk.lose()
        self.desk.do(lambda messenger: messenger.send(str(HIGHER), "e"))
        self.desk.happened()
        self.desk.connect()
        self.assertEqual(kinds(self.desk.take()), ["client-connect 1"])
        self.desk.give(far.phase2())
        self.desk.give(far.phase4(self.desk.take()[0]))
        self.assertEqual(far.texts(self.desk.take()), ["b", "c", "d", "e"])

    def test_sealed_for_the_peer_and_not_for_the_server(self) -> None:
        """What waits for the server's keys was not written either."""
        self.desk.connect()
        far = Far(self.desk, HIGHER).open()
        self.desk.acknowledging = False
        for number in range(WINDOW + 40):
            self.desk.do(partial(SeedMessenger.send, to=str(HIGHER), text=str(number)))
        written = far.texts(self.desk.take())
        self.assertLess(len(written), WINDOW)
        self.desk.happened()
        self.desk.lose()
        failed = [event for event in self.desk.happened() if isinstance(event, events.State)]
        self.assertEqual(len(failed), len(written))
        self.desk.acknowledging = True
        self.desk.connect()
        self.desk.give(far.phase2())
        self.desk.give(far.phase4(self.desk.take()[-1]))
        rest = far.texts(self.desk.take())
        self.assertEqual(rest, [str(number) for number in range(len(written), len(written) + len(rest))])
        self.assertEqual(len(rest) + self.desk.messenger.unsent + len(written), WINDOW + 40)

    def test_commands_under_way(self) -> None:
        """A list, a name and a handshake under way are asked for again on the next connection."""
        self.desk.connect()
        self.desk.happened()
        self.desk.messenger.hop.congested = True
        self.desk.do(lambda messenger: messenger.list("list"))
        self.desk.do(lambda messenger: messenger.connect("8", "connect"))
        self.desk.do(lambda messenger: messenger.send("bob", "hi", "text"))
        self.desk.lose()
        self.desk.roster.append(("bob", HIGHER))
        self.desk.connect()
        sent = [inner["dst"] for inner in self.desk.take()]
        self.assertEqual(sorted(sent), ["8", "9"])
        found = self.desk.happened()
        self.assertEqual(heard(found), ["queued", "offline", "ready", "listing"])
        self.assertEqual(found[-1].ref, "list")

    def test_a_name_under_way(self) -> None:
        """The first list of the next connection decides, however many there were on this one."""
        self.desk.connect()
        for _ in range(3):
            self.desk.do(lambda messenger: messenger.list())
        self.desk.messenger.hop.congested = True
        self.desk.do(lambda messenger: messenger.connect("nobody", "ref"))
        self.desk.lose()
        self.desk.happened()
        self.desk.connect()
        found = self.desk.happened()
        self.assertEqual(heard(found), ["ready", "unknown-recipient"])
        self.assertEqual(found[-1].ref, "ref")

    def test_keys_move_on(self) -> None:
        """After 32 frames without one of ours, a list request goes out, and only one."""
        self.desk.connect()
        lists = self.desk.lists
        for _ in range(TURN_AFTER - 2):  # the answer to the first request was one, too
            self.desk.give(Far(self.desk, HIGHER).ack())
        self.assertEqual(self.desk.lists, lists)
        self.desk.give(Far(self.desk, HIGHER).ack())
        self.assertEqual(self.desk.lists, lists + 1)
        self.assertEqual(heard(self.desk.happened()), ["ready"])  # it is nobody's: nothing is shown

    def test_stops_at_the_server_s_window(self) -> None:
        """A server that acknowledges nothing and says nothing stops us at 64 frames."""
        self.desk.connect()
        self.desk.acknowledging = False
        before = self.desk.messenger.hop._session
        assert before is not None
        for _ in range(100):
            self.desk.messenger.hop.send(messages.ClientAck(src=OWN, dst=HIGHER))
        self.desk.messenger.flush()
        # The server has shown by its first list that it had our first frame.
        self.assertEqual(len(self.desk.messenger.hop.frames), WINDOW)
        self.assertEqual(self.desk.messenger.hop.waiting, 100 - WINDOW)


class NameTests(SynchronousTestCase):
    """Who is meant."""

    def setUp(self) -> None:
        use_cheap_keys(self)
        self.desk = Desk(OWN, cheap=True).connect()
        self.desk.happened()
        self.lists = self.desk.lists

    def connect(self, to: str) -> list[events.Event]:
        self.desk.do(lambda messenger: messenger.connect(to, "ref"))
        return self.desk.happened()

    def test_unknown(self) -> None:
        """A name that is not in the list is looked up once more before it is said to be unknown."""
        [problem] = self.connect("bob")
        self.assertEqual((heard([problem]), problem.ref), (["unknown-recipient"], "ref"))
        self.assertEqual(self.desk.lists, self.lists + 1)
        self.assertEqual(self.desk.take(), [])

    def test_in_a_later_list(self) -> None:
        """Somebody who came after the last list is found."""
        self.desk.roster.append(("bob", HIGHER))
        self.assertEqual(self.connect("bob"), [])
        self.assertEqual([inner["dst"] for inner in self.desk.take()], ["9"])
        self.assertEqual(self.desk.lists, self.lists + 1)
        # Now the name is known, and no list is asked for.
        self.desk.do(lambda messenger: messenger.send("bob", "hi"))
        self.assertEqual(self.desk.lists, self.lists + 1)
        [queued] = self.desk.happened()
        self.assertEqual(queued, events.State(
            id=_id(queued), to=Contact("9", "bob"), state=Delivery.QUEUED, text="hi"
        ))  # fmt: skip

    def test_only_the_right_list_decides(self) -> None:
        """A list that was asked for before the command says nothing about who is there now."""
        self.desk.messenger.hop.congested = True
        self.desk.messenger.list("before")
        self.desk.messenger.connect("bob", "ref")
        self.desk.messenger.hop.congested = False
        rosters = iter([[("me", OWN)], [("me", OWN), ("bob", HIGHER)]])
        inner = self.desk._inner

        def changing(message: dict[str, Any]) -> None:
            if message["type"] == "list":
                self.desk.roster = next(rosters)
            inner(message)

        self.patch(self.desk, "_inner", changing)
        self.desk.do(lambda messenger: messenger.flush())
        self.assertEqual(heard(self.desk.happened()), ["listing"])
        self.assertEqual([inner["dst"] for inner in self.desk.take()], ["9"])

    def test_two_of_one_name(self) -> None:
        self.desk.roster += [("bob", 7), ("bob", HIGHER)]
        [problem] = self.connect("bob")
        assert isinstance(problem, events.Problem)
        self.assertEqual(problem.code, Code.UNKNOWN_RECIPIENT)
        self.assertIn("use the id", problem.text)
        self.connect("7")
        self.assertEqual([inner["dst"] for inner in self.desk.take()], ["7"])

    def test_own(self) -> None:
        for to in ("me", "5", "005"):
            self.assertEqual(heard(self.connect(to)), ["unknown-recipient"], to)
        self.assertEqual(self.desk.take(), [])

    def test_failed_text(self) -> None:
        """A text to nobody fails, with its ref and what was written for a recipient."""
        self.desk.do(lambda messenger: messenger.send("bob", "hi", "ref"))
        found = self.desk.happened()
        self.assertEqual(heard(found), ["queued", "failed", "unknown-recipient"])
        self.assertEqual([event.ref for event in found], ["ref"] * 3)
        self.assertEqual([event.to for event in found if isinstance(event, events.State)], [Contact("", "bob")] * 2)

    def test_order(self) -> None:
        """Commands behind one that waits for a name wait, too."""
        self.desk.roster.append(("bob", HIGHER))
        self.desk.messenger.hop.congested = True
        self.desk.messenger.send("bob", "first")
        self.desk.messenger.send("7", "second")
        self.desk.messenger.list("third")
        self.assertEqual(self.desk.messenger.hop.waiting, 1)
        self.desk.messenger.hop.congested = False
        self.desk.do(lambda messenger: messenger.flush())
        self.assertEqual([inner["dst"] for inner in self.desk.take()], ["9", "7"])
        self.assertEqual(heard(self.desk.happened()), ["queued", "queued", "listing"])

    def test_forgotten(self) -> None:
        """A name whose id is gone is looked up again."""
        self.desk.roster.append(("bob", HIGHER))
        self.connect("bob")
        self.desk.give(messages.Error(code="unknown-recipient", dst="9"))
        self.desk.roster[-1] = ("bob", 7)
        self.desk.take()
        self.connect("bob")
        self.assertEqual([inner["dst"] for inner in self.desk.take()], ["7"])

    def test_names_in_events(self) -> None:
        """Whoever opens a conversation is looked up, so that what follows has a name."""
        self.desk.roster.append(("bob", HIGHER))
        far = Far(self.desk, HIGHER).open()
        self.desk.give(far.com("hi"))
        connected, message = self.desk.happened()
        assert isinstance(connected, events.Connected)
        assert isinstance(message, events.Message)
        self.assertEqual((connected.peer, message.sender), (Contact("9", "bob"), Contact("9", "bob")))

    def test_refs(self) -> None:
        """Each command's ref is in every event that it causes, as it was given."""
        self.desk.roster.append(("bob", HIGHER))
        self.desk.do(lambda messenger: messenger.list(7))
        self.desk.do(lambda messenger: messenger.connect("bob", "c1"))
        self.desk.do(lambda messenger: messenger.connect("9", "c2"))
        far = Far(self.desk, HIGHER)
        self.desk.give(far.phase2())
        self.desk.give(far.phase4(self.desk.take()[-1]))
        self.desk.do(lambda messenger: messenger.connect("9", "c3"))
        self.desk.do(lambda messenger: messenger.send("9", "x", "s"))
        self.desk.give(far.ack())
        self.desk.do(lambda messenger: messenger.disconnect("9", 0))
        found = [(type(event).__name__, event.ref) for event in self.desk.happened()]
        expected: list[tuple[str, object]] = [("Listing", 7)]
        expected += [("Connected", ref) for ref in ("c1", "c2", "c3")]
        expected += [("State", "s")] * 3 + [("Disconnected", 0)]
        self.assertEqual(found, expected)


def _id(event: events.Event) -> str:
    assert isinstance(event, events.State)
    return event.id
