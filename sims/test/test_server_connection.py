"""The server's end of a connection: its states, its acknowledgements, and how it closes."""

from __future__ import annotations

import json
from typing import cast

from twisted.trial.unittest import SynchronousTestCase

from sims import messages
from sims.errors import Code
from sims.server.connection import SeedConnection, State
from sims.test.clients import Raw
from sims.test.hostile import (
    SPEC,
    Act,
    forged,
    fresh_keys,
    outcome,
)
from sims.test.network import Network, Stream, cut
from sims.transport import FRAME_TIMEOUT, LINGER
from sims.wire import MAX_FRAME


class TableTests(SynchronousTestCase):
    """Every state with every input: the state after it, and the frames that came back."""

    CONNECT_4 = {"type": "connect", "phase": 4, "ciphers": SPEC, "data": {"public_key": "", "server_random": ""}}

    INPUTS: dict[str, Act] = {
        "ack": lambda raw: raw.send(messages.Ack()),
        "connect 1": lambda raw: raw.send(raw.greeting()),
        "connect 2": lambda raw: raw.send(messages.Connect2(ciphers=SPEC)),
        "connect 3": lambda raw: raw.send(raw.keying(fresh_keys(raw))),
        "connect 4": lambda raw: raw.send(TableTests.CONNECT_4),
        "secure": lambda raw: raw.say({"type": "list"}) if raw.session else raw.send(forged(raw)),
        "forged": lambda raw: raw.send(forged(raw)),
        "unknown": lambda raw: raw.send({"type": "hello"}),
        "garbage": lambda raw: raw.send(b"garbage"),
        "long": lambda raw: raw.send(b"x" * (MAX_FRAME + 1)),
        "lost": lambda raw: cut(raw.server_end),
        "close": lambda raw: raw.server_end.close(),
    }

    STATES: dict[State, Act] = {
        State.GREETING: lambda raw: None,
        State.KEYING: lambda raw: raw.send(raw.greeting()),
        State.OPEN: lambda raw: raw.handshake(),
        State.CLOSED: lambda raw: raw.send(b"[]"),
    }

    TABLE: dict[tuple[State, str], tuple[State, list[str]]] = {
        (State.GREETING, "ack"): (State.GREETING, []),
        (State.GREETING, "connect 1"): (State.KEYING, ["ack", "connect 2"]),
        (State.KEYING, "ack"): (State.KEYING, []),
        (State.KEYING, "connect 3"): (State.OPEN, ["ack", "connect 4"]),
        (State.OPEN, "ack"): (State.OPEN, []),
        (State.OPEN, "secure"): (State.OPEN, ["ack", "secure"]),
        # What is refused in a session is told in the session, unless somebody else may have sent it.
        (State.OPEN, "connect 1"): (State.CLOSED, ["ack", "secure"]),
        (State.OPEN, "connect 2"): (State.CLOSED, ["ack", "secure"]),
        (State.OPEN, "connect 3"): (State.CLOSED, ["ack", "secure"]),
        (State.OPEN, "connect 4"): (State.CLOSED, ["ack", "secure"]),
        (State.OPEN, "unknown"): (State.CLOSED, ["ack", "secure"]),
        (State.OPEN, "garbage"): (State.CLOSED, ["secure"]),
        (State.OPEN, "long"): (State.CLOSED, ["secure"]),
        (State.OPEN, "forged"): (State.CLOSED, ["ack"]),
    }
    #: Before there is a session, a closing without a word. Every object is acknowledged, whatever is wrong with it.
    OBJECTS = {"connect 1", "connect 2", "connect 3", "connect 4", "secure", "forged", "unknown"}

    def expected(self, state: State, name: str) -> tuple[State, list[str]]:
        """What the table says."""
        if state is State.CLOSED:
            return State.CLOSED, []
        return self.TABLE.get((state, name), (State.CLOSED, ["ack"] if name in self.OBJECTS else []))

    def test_table(self) -> None:
        for state, bring in self.STATES.items():
            for name, give in self.INPUTS.items():
                network = Network()
                raw = Raw(network)
                bring(raw)
                self.assertIs(raw.server_end.state, state)
                seen = len(raw.kinds())
                give(raw)
                network.settle()
                after, kinds = self.expected(state, name)
                self.assertEqual((raw.server_end.state, raw.kinds()[seen:]), (after, kinds), f"{name} in {state}")
                self.assertEqual(network.relay.is_here(raw.id), after is State.OPEN, f"{name} in {state}")
                self.assertEqual(self.flushLoggedErrors(), [], f"{name} in {state}")


class AcknowledgementTests(SynchronousTestCase):
    """An ack goes out for every object that is none itself, before anything else and in a segment of its own."""

    def segments(self, raw: Raw) -> list[bytes]:
        """From now on, what the server hands to the operating system, call by call."""
        fake = cast("Stream", raw.server_end.transport).fake
        found: list[bytes] = []
        send = fake.send

        def spied(data: memoryview) -> int:
            if data:
                found.append(bytes(data))
            return send(data)

        self.patch(fake, "send", spied)
        return found

    def test_segments(self) -> None:
        """What goes out in one breath goes out at once, but never more than the original client reads at once."""
        raw = Raw(Network()).handshake()
        segments = self.segments(raw)
        frames = [json.dumps(raw.sealed({"type": "list"})).encode() for _ in range(9)]
        raw.send(b"\n\n".join(frames))
        for segment in segments:
            self.assertLessEqual(len(segment), 2048)
            self.assertTrue(segment.startswith(b'{"type":'))
            self.assertTrue(segment.endswith(b"}\n\n"))
        self.assertEqual(b"".join(segments).count(b'{"type":"ack"}\n\n'), 9)

    def test_before_processing(self) -> None:
        """The ack of a frame stands before whatever the frame causes."""
        raw = Raw(Network()).handshake()
        segments = self.segments(raw)
        raw.say({"type": "list"})
        self.assertTrue(b"".join(segments).startswith(b'{"type":"ack"}\n\n{"type":"secure"'))

    def test_many_at_once(self) -> None:
        raw = Raw(Network()).handshake()
        frames = [json.dumps(raw.sealed({"type": "list"})).encode() for _ in range(5)]
        seen = len(raw.kinds())
        raw.send(b"\n\n".join(frames))
        self.assertEqual(raw.kinds()[seen:], ["ack", "secure"] * 5)


class HoldingTests(SynchronousTestCase):
    """A connection that is not read for a while."""

    def setUp(self) -> None:
        self.network = Network()
        self.raw = Raw(self.network).handshake()
        self.end = self.raw.server_end

    def test_hold_and_release(self) -> None:
        """Nothing is read meanwhile, not even what is in the buffer; everything is read afterwards, but not at once."""
        frames = [json.dumps(self.raw.sealed({"type": "list"})).encode() for _ in range(3)]
        self.end.hold()
        self.raw.send(b"\n\n".join(frames))
        self.assertEqual(self.raw.heard(), [])
        self.end.release()
        self.assertTrue(self.end.paused)  # it may be in the middle of somebody else's work
        self.network.settle()
        self.assertEqual(len(self.raw.heard()), 3)

    def test_held_again(self) -> None:
        """The last word counts."""
        self.end.hold()
        self.end.release()
        self.end.hold()
        self.raw.say({"type": "list"})
        self.assertEqual(self.raw.heard(), [])
        self.end.release()
        self.end.release()
        self.network.settle()
        self.assertEqual(len(self.raw.heard()), 1)

    def test_half_a_frame(self) -> None:
        """The time during which we do not read is not the client's."""
        self.raw.stream.write(b'{"type":')
        self.network.settle()
        self.end.hold()
        self.network.run_for(2 * FRAME_TIMEOUT)
        self.end.release()
        self.network.run_for(FRAME_TIMEOUT - 1)
        self.assertIs(self.end.state, State.OPEN)
        self.network.run_for(2)
        self.assertIs(self.end.state, State.CLOSED)

    def test_closed_while_held(self) -> None:
        """What the client sent meanwhile does not keep it from reading, or the connection from closing."""
        self.end.hold()
        self.raw.stream.write(b"x" * 100_000)
        self.network.settle()
        self.end.deliver(b'{"type":"list","data":[]}')
        self.end.close()
        self.network.settle(LINGER / 2)
        self.assertEqual(self.raw.heard(), [{"type": "list", "data": []}])
        self.assertEqual(self.network.server.connections, set())
        self.assertEqual(self.network.clock.getDelayedCalls(), [])


class ClosingTests(SynchronousTestCase):
    """How the server closes."""

    def connection(self) -> tuple[Network, Raw, SeedConnection]:
        network = Network()
        raw = Raw(network).handshake()
        return network, raw, raw.server_end

    def test_lets_the_client_read(self) -> None:
        network, raw, _ = self.connection()
        raw.stream.pauseProducing()
        raw.stream.write(b"x" * (MAX_FRAME + 1))
        raw.stream.write(b"unread" * 10_000)
        network.run_for(LINGER / 2)
        raw.stream.resumeProducing()
        network.settle()
        self.assertEqual(outcome(raw), (State.CLOSED, [("too-large", None)]))
        self.assertTrue(raw.closed)
        self.assertEqual(network.server.connections, set())

    def test_does_not_wait_for_ever(self) -> None:
        """A client that does not close is cut off, and nothing is left of it."""
        network, raw, end = self.connection()
        raw.stubborn = True
        raw.send(b"garbage")
        self.assertEqual(network.relay.entries(end)[1:], [])
        network.run_for(LINGER - 0.01)
        self.assertEqual(network.server.connections, {end})
        network.run_for(0.02)
        self.assertEqual(network.server.connections, set())
        self.assertEqual(network.clock.getDelayedCalls(), [])
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_takes_nothing_more(self) -> None:
        _, raw, _ = self.connection()
        raw.stubborn = True
        frame = json.dumps(raw.sealed({"type": "list"})).encode()
        raw.send(b"garbage\n\n" + frame + b"\n\n" + frame)
        self.assertEqual(outcome(raw), (State.CLOSED, [("malformed", None)]))
        raw.send(frame)
        self.assertEqual(raw.kinds()[-1], "secure")  # no ack

    def test_server_stops(self) -> None:
        network, raw, end = self.connection()
        raw.server_end.deliver(b'{"type":"list","data":[]}')
        end.close()
        network.settle()
        self.assertEqual(raw.heard(), [{"type": "list", "data": []}])
        self.assertTrue(raw.closed)
        self.assertEqual((len(network.relay), network.server.connections), (0, set()))

    def test_codes_only(self) -> None:
        """What is told names a code of the protocol and nothing that was sent."""
        _, raw, _ = self.connection()
        raw.say({"type": "client-disconnect", "src": 666, "dst": 5, "data": {"secret": "plum"}})
        raw.say({"type": "plum"})
        heard = raw.heard()
        self.assertNotIn("plum", json.dumps(heard))
        for inner in heard:
            self.assertIn(inner["code"], set(Code))
