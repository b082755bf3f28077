"""What is done once in a turn of the reactor; what goes wrong in it stays with whom it concerns."""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from sims import inner
from sims.crypto.hop import Hop
from sims.server.delivery import ACK_WAIT
from sims.server.turns import Turns, described
from sims.test.modern_case import ServerTestCase, seen
from sims.test.modern_network import Hand

SECRET = "what somebody has written"


class Relay:
    """A relay of which only is asked what is done once in a turn."""

    def __init__(self) -> None:
        self.due: float | None = None
        self.done: list[str] = []
        self.fails: set[str] = set()
        self.wake: Any = None

    def _do(self, what: str) -> None:
        self.done.append(what)
        if what in self.fails:
            raise ValueError(SECRET)

    def flush(self) -> None:
        self._do("flush")

    def tick(self) -> None:
        self.due = None
        self._do("tick")


class Writer:
    """A connection that writes, or can't."""

    def __init__(self, done: list[str], name: str, *, fails: bool = False) -> None:
        self.done, self.name, self.fails = done, name, fails

    def push(self) -> None:
        self.done.append(self.name)
        if self.fails:
            raise KeyError(SECRET)

    def broken(self, error: Exception) -> None:
        self.done.append(f"{self.name}: {described(error)}".partition(" in ")[0])


class TurnTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.relay = Relay()
        self.done = self.relay.done
        self.turns = Turns(cast("Any", self.relay), self.clock, self.clock.seconds)
        self.failures: list[str] = []
        self.turns.failed = lambda error: self.failures.append(described(error))

    def end(self) -> list[str]:
        """What is done when the turn is over."""
        self.done.clear()
        self.clock.advance(0)
        return [*self.done]

    def test_once(self) -> None:
        """However often it is woken."""
        self.turns.wake()
        self.turns.wake()
        self.turns.unsaid.add(Writer(self.done, "a"))
        self.assertEqual((self.end(), self.end()), (["flush", "a"], []))
        self.turns.wake()
        self.assertEqual(self.end(), ["flush"])

    def test_time(self) -> None:
        self.relay.due = 3.0
        self.turns.wake()
        self.turns.wake()
        self.assertEqual(self.end(), ["flush"])
        self.clock.advance(2.9)
        self.assertEqual(self.end(), [])
        self.clock.advance(0.2)
        self.assertEqual(self.done, ["tick", "flush"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_one_that_cannot_write(self) -> None:
        """It is told, and all the others write."""
        for number in range(9):
            self.turns.unsaid.add(Writer(self.done, str(number), fails=number == 4))
        self.turns.wake()
        self.assertEqual(sorted(self.end()), sorted(["flush", *"012345678", "4: KeyError"]))
        self.assertEqual(self.failures, [])

    def test_one_that_cannot_be_closed(self) -> None:
        """All the others write, and the time is looked at."""
        worst = Writer(self.done, "x", fails=True)
        nothing: dict[str, str] = {}
        self.patch(worst, "broken", lambda _: nothing[SECRET])
        self.turns.unsaid |= {worst, *(Writer(self.done, str(number)) for number in range(9))}
        self.relay.due = 3.0
        self.turns.wake()
        self.assertEqual(sorted(self.end()), sorted(["flush", *"012345678x"]))
        self.assertEqual((len(self.failures), len(self.clock.getDelayedCalls())), (1, 1))
        self.assertNotIn(SECRET, self.failures[0])

    def test_acknowledgements_that_fail(self) -> None:
        """The connections write all the same, the time is looked at, and the next turn comes."""
        self.relay.fails = {"flush"}
        self.relay.due = 3.0
        self.turns.unsaid.add(Writer(self.done, "a"))
        self.turns.wake()
        self.assertEqual(self.end(), ["flush", "a"])
        self.done.clear()
        self.clock.advance(3)
        self.assertEqual((self.done, len(self.failures)), (["tick", "flush"], 2))

    def test_time_that_fails(self) -> None:
        """The next time comes."""
        self.relay.fails = {"tick"}
        for number in (1, 2):
            self.relay.due = 3.0 * number
            self.turns.wake()
            self.end()
            self.done.clear()
            self.clock.advance(3)
            self.assertEqual((self.done, len(self.failures)), (["tick", "flush"], number))

    def test_nothing_is_quoted(self) -> None:
        """What is said of a failure is its kind and its place."""
        self.relay.fails = {"flush"}
        self.turns.wake()
        self.end()
        self.assertRegex(self.failures[0], r"\AValueError in test_server_turns.py, line [0-9]+\Z")
        self.assertEqual(described(ValueError(SECRET)), "ValueError")


class ConnectionTests(ServerTestCase):
    """The same with connections."""

    def logged(self) -> list[str]:
        return [str(event["what"]) for event in self.events if "what" in event]

    def setUp(self) -> None:
        super().setUp()
        self.events: list[dict[str, Any]] = []
        globalLogPublisher.addObserver(cast("Any", self.events.append))
        self.addCleanup(globalLogPublisher.removeObserver, cast("Any", self.events.append))

    def break_(self, hand: Hand, name: str) -> None:
        """Something at the server's end of a connection raises what nobody has thought of."""

        def broken(*_: object) -> None:
            raise KeyError(SECRET)

        if name == "seal":
            seal = Hop.seal
            mine = cast("Any", hand.server_end)._hop
            self.patch(Hop, "seal", lambda hop, text: broken() if hop is mine else seal(hop, text))
        else:
            self.patch(cast("Any", hand.server_end), name, broken)

    def test_a_connection_that_fails(self) -> None:
        """When it is given something, or writes: it is closed, and what it was given waits; the others go on."""
        for number, name in enumerate(("seal", "send_frame")):
            eve = Hand(self.network, "eve", acknowledging=True).connect()
            self.break_(eve, name)
            self.ann.send(eve, number)
            self.network.settle()
            self.assertEqual(seen(eve), (True, [], []), name)
            self.network.modern.failures.clear()
            self.check_others(name)
            self.assertRegex(self.logged().pop(), r"\AKeyError in test_server_turns.py, line [0-9]+\Z")
            self.assertNotIn(SECRET, repr(self.events))
            eve = Hand(self.network, "eve", acknowledging=True).connect()
            self.assertEqual(eve.numbers, [number], name)
            eve.stream.loseConnection()
            self.network.settle()
            self.ann.came.clear()

    def test_a_delivery_that_fails(self) -> None:
        """A message that cannot be kept does no harm to those behind it."""
        self.bob.acknowledging = False
        keep = self.network.store.keep

        def broken(letter: Any, *args: Any) -> None:
            if int.from_bytes(letter.mid, "big") == 1:
                raise KeyError(SECRET)
            keep(letter, *args)

        self.patch(self.network.store, "keep", broken)
        self.ann.send(self.bob, 1)
        self.ann.send(self.bob, 2)
        self.network.run_for(ACK_WAIT + 1)
        self.assertEqual((self.ann.acked, len(self.logged())), ([2], 1))
        self.assertNotIn(SECRET, repr(self.events))
        self.bob.acknowledging = True
        self.bob.say(inner.ListRequest())
        self.network.modern.failures.clear()
        self.check_others("keep")

    def test_a_request_that_fails(self) -> None:
        """Whoever has made it is cut off; the log does not say what it was."""

        def broken(*_: object) -> None:
            raise KeyError(SECRET)

        self.patch(self.network.store, "facts", broken)
        eve = Hand(self.network, "eve").connect()
        eve.say(inner.AboutRequest())
        self.assertEqual(seen(eve), (True, [], []))
        self.network.modern.failures.clear()
        self.check_others("facts")
        self.assertEqual(len(self.logged()), 1)
        self.assertNotIn(SECRET, repr(self.events))
