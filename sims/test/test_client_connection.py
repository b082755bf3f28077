"""The whole client: connecting and reconnecting, and Deferreds that fire, fail, time out or are cancelled."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any, cast

from twisted.internet.defer import CancelledError, Deferred, ensureDeferred, fail
from twisted.internet.error import DNSLookupError
from twisted.internet.interfaces import IProtocol
from twisted.trial.unittest import SynchronousTestCase

from sims.client import driver, driver_connection, events
from sims.client.events import Contact, Delivery
from sims.crypto.primitives import p384_to_pem
from sims.errors import Code, LocalError, PeerError, SimsError, UnavailableError
from sims.server import limits
from sims.server.connection import SeedConnection
from sims.test.cheapkeys import SeededEntropy, use_cheap_keys
from sims.test.clients import Driven, Program, Raw
from sims.test.network import Endpoint, Network, Stream, cut
from sims.transport import FRAME_TIMEOUT, LINGER


class ClientTestCase(SynchronousTestCase):
    """A client that is not connected yet, and a server with bob on it."""

    def setUp(self) -> None:
        use_cheap_keys(self)
        self.network = Network(1, delay=(0.01, 0.02), cheap=True)
        self.alice = Program(self.network, "alice", 1)
        self.client = self.alice.client
        self.bob = Driven(self.network, "bob", 2).dial()
        self.network.settle()

    def connect(self) -> None:
        """Connect, and forget what was heard of it."""
        done = self.client.connect()
        self.network.settle()
        self.successResultOf(done)
        self.alice.happened.clear()

    @property
    def server_end(self) -> SeedConnection:
        """The server's end of the client's connection."""
        found = self.alice.endpoint.server_end
        assert found is not None
        return found

    def code_of(self, failed: Deferred[Any]) -> Code:
        """The code of the error with which a Deferred has failed."""
        error = self.failureResultOf(failed, SimsError).value
        assert isinstance(error, LocalError | PeerError)
        return error.code

    def leave(self) -> None:
        """Close; nothing is left then, of the client or of its timers."""
        done = self.client.close()
        self.network.settle()
        self.successResultOf(done)
        self.assertNotIn(1, {end.id for end in self.network.server.connections})
        self.assertEqual(self.network.clock.getDelayedCalls(), [])
        self.assertEqual(self.flushLoggedErrors(), [])


class ConnectTests(ClientTestCase):
    """connect, start and close."""

    def test_connect(self) -> None:
        done = self.client.connect()
        self.assertNoResult(done)
        self.network.settle()
        ready = events.Ready(id="1", name="alice", spec="ECDHE-AES128_CTR-SHA256")
        self.assertEqual(self.successResultOf(done), ready)
        self.assertEqual(self.alice.happened, [ready])
        # Who is connected is so at once.
        self.assertEqual(self.successResultOf(self.client.connect()), ready)
        self.assertEqual(len(self.alice.endpoint.attempts), 1)
        self.leave()

    def test_several_wait(self) -> None:
        first, second = self.client.connect(), self.client.connect()
        self.network.settle()
        self.assertEqual(self.successResultOf(first), self.successResultOf(second))
        self.leave()

    def test_refused(self) -> None:
        """It fails, typed, and nothing is tried any more until it is asked for again."""
        self.alice.endpoint.refusing = True
        done = self.client.connect()
        self.network.settle()
        self.assertEqual(self.code_of(done), Code.UNAVAILABLE)
        self.assertEqual(self.network.clock.getDelayedCalls(), [])
        [problem] = self.alice.all(events.Problem)
        self.assertEqual(problem.text, "cannot connect to the server: Connection was refused by other side")
        self.alice.endpoint.refusing = False
        self.connect()
        self.leave()

    def test_refused_at_once(self) -> None:
        """Endpoints may fail before they return, or raise."""

        def failing(_: object) -> Deferred[IProtocol]:
            return fail(DNSLookupError("no such host"))

        def raising(_: object) -> Deferred[IProtocol]:
            raise OSError("no sockets")

        for connect in (failing, raising):
            self.patch(Endpoint, "connect", lambda _, factory, connect=connect: connect(factory))
            done = self.client.connect()
            self.assertEqual(self.code_of(done), Code.UNAVAILABLE)
            self.assertNotIn("host", self.alice.all(events.Problem)[-1].text)
            self.assertEqual(self.network.clock.getDelayedCalls(), [])

    def test_id_in_use(self) -> None:
        Raw(self.network, "other", 1).handshake()
        done = self.client.connect()
        self.network.settle()
        self.assertEqual(self.code_of(done), Code.UNAVAILABLE)
        self.assertEqual(self.alice.problems(), ["unavailable"])
        self.assertEqual(self.network.clock.getDelayedCalls(), [])
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_silent_server(self) -> None:
        self.patch(limits, "HANDSHAKE_TIMEOUT", 100.0)
        done = self.client.connect()
        self.network.run_until(lambda: self.alice.endpoint.server_end is not None)
        cast("Stream", self.server_end.transport).pauseProducing()
        self.network.run_for(driver_connection.HANDSHAKE_TIMEOUT - 0.1)
        self.assertNoResult(done)
        self.network.run_for(0.2)
        self.assertEqual(self.code_of(done), Code.UNAVAILABLE)
        self.leave_from_failure()

    def leave_from_failure(self) -> None:
        """Close; the server's end may not have noticed yet."""
        done = self.client.close()
        self.network.settle()
        self.successResultOf(done)

    def test_bad_server(self) -> None:
        """Whatever the server says that cannot be, the connection is closed and made again; the reason is told."""
        cases: dict[str, tuple[bytes, float, Code]] = {
            "garbage": (b"garbage\n\n", 0, Code.MALFORMED),
            "not a message": (b"{}\n\n", 0, Code.MALFORMED),
            "forged": (_forged(), 0, Code.NOT_AUTHENTICATED),
            "too long": (b"x" * 70_000, 0, Code.TOO_LARGE),
            "half a frame": (b'{"type":', FRAME_TIMEOUT, Code.UNAVAILABLE),
        }
        self.client.start()
        for name, (data, time, code) in cases.items():
            self.network.run_for(5)
            self.assertEqual(len(self.alice.all(events.Ready)), 1, name)
            self.alice.happened.clear()
            cast("Stream", self.server_end.transport).write(data)
            self.network.run_for(time + 0.2)
            self.assertEqual(self.alice.problems(), [code], name)
            self.assertEqual(len(self.alice.all(events.Offline)), 1, name)
            self.assertEqual(self.flushLoggedErrors(), [], name)
        self.network.run_for(5)
        self.leave()

    def test_bad_handshake(self) -> None:
        """The same during the handshake fails it."""
        for data, code in ((b"garbage\n\n", Code.MALFORMED), (b"x" * 70_000, Code.TOO_LARGE)):
            self.alice.endpoint.server_end = None
            done = self.client.connect()
            self.network.run_until(lambda: self.alice.endpoint.server_end is not None)
            cast("Stream", self.server_end.transport).write(data)
            self.network.settle()
            self.assertEqual(self.code_of(done), code)
            self.assertEqual(self.network.clock.getDelayedCalls(), [])
            self.assertEqual(self.flushLoggedErrors(), [])

    def test_back_off(self) -> None:
        """Attempts are further and further apart, up to a minute, and never in step; one reason is told once."""
        self.alice.endpoint.refusing = True
        self.client.start()
        self.network.run_for(900)
        attempts = self.alice.endpoint.attempts
        self.assertAlmostEqual(attempts[0], self.network.clock.seconds() - 900)
        waits = [later - earlier for earlier, later in pairwise(attempts)]
        least = [min(driver.RETRY_FIRST * 1.5**number, driver.RETRY_MOST) for number in range(1, 99)]
        for wait, floor in zip(waits, least, strict=False):
            self.assertTrue(floor <= wait <= floor + 1.1, f"{wait} after {floor}")
        self.assertGreater(len(attempts), 14)
        longest = [wait for wait in waits if wait >= driver.RETRY_MOST]
        self.assertGreater(max(longest) - min(longest), 0.2)
        self.assertEqual(self.alice.problems(), ["unavailable"])
        # A connection that was there is made again soon, whatever was before.
        self.alice.endpoint.refusing = False
        self.network.run_for(62)
        self.assertEqual(len(self.alice.all(events.Ready)), 1)
        count = len(attempts)
        cut(self.server_end)
        self.network.run_for(driver.RETRY_FIRST * 1.5 + 1.1)
        self.assertEqual((len(attempts), len(self.alice.all(events.Ready))), (count + 1, 2))
        self.leave()

    def test_connect_while_waiting(self) -> None:
        """Whoever asks does not wait for the next attempt."""
        self.alice.endpoint.refusing = True
        self.client.start()
        self.network.run_for(100)
        self.alice.endpoint.refusing = False
        done = self.client.connect()
        self.network.settle()
        self.successResultOf(done)
        self.leave()

    def test_cancel(self) -> None:
        done = self.client.connect()
        done.cancel()
        self.failureResultOf(done, CancelledError)
        self.network.settle()
        self.assertEqual(len(self.alice.all(events.Ready)), 1)
        self.leave()

    def test_close_at_any_time(self) -> None:
        """Whenever it is closed, whoever waits hears so, and nothing is left."""
        for steps in range(0, 34, 2):
            network = Network(steps, delay=(0.01, 0.02), cheap=True)
            program = Program(network, "alice", 1)
            waiting: list[Deferred[Any]] = [program.client.connect(), program.client.list(), program.client.open("2")]
            begun = network.happenings
            network.run_until(partial(_happened, network, begun + steps))
            open_ones = [deferred for deferred in waiting if not deferred.called]
            done = program.client.close()
            for deferred in open_ones:
                self.assertEqual(self.code_of(deferred), Code.UNAVAILABLE, steps)
            network.run_for(LINGER + 1)
            self.successResultOf(done)
            self.assertEqual(network.server.connections, set(), steps)
            self.assertEqual(network.clock.getDelayedCalls(), [], steps)
            self.assertEqual(self.flushLoggedErrors(), [], steps)
            for deferred in waiting:
                deferred.addErrback(lambda _: None)

    def test_close_while_dialling(self) -> None:
        self.alice.endpoint.hanging = True
        done = self.client.connect()
        self.network.settle()
        closed = self.client.close()
        self.assertEqual(self.code_of(done), Code.UNAVAILABLE)
        self.successResultOf(closed)
        self.assertEqual(self.network.clock.getDelayedCalls(), [])
        self.assertEqual(self.alice.happened, [])

    def test_connected_too_late(self) -> None:
        """An endpoint that connects although it was cancelled: nobody wants that connection any more."""
        factories: list[Any] = []

        def connect(_: object, factory: object) -> Deferred[IProtocol]:
            factories.append(factory)
            return Deferred()

        self.patch(Endpoint, "connect", connect)
        done = self.client.connect()
        self.successResultOf(self.client.close())
        self.assertEqual(self.code_of(done), Code.UNAVAILABLE)
        self.network.dial(factories[0].buildProtocol(None))
        self.network.settle()
        self.assertEqual({end.id for end in self.network.server.connections}, {2})
        self.assertEqual(self.network.clock.getDelayedCalls(), [])

    def test_close_while_waiting(self) -> None:
        self.alice.endpoint.refusing = True
        self.client.start()
        self.network.run_for(10)
        self.successResultOf(self.client.close())
        count = len(self.alice.endpoint.attempts)
        self.network.run_for(100)
        self.assertEqual(len(self.alice.endpoint.attempts), count)
        self.assertEqual(self.network.clock.getDelayedCalls(), [])

    def test_close_sends_what_was_written(self) -> None:
        self.connect()
        opened = self.client.open("2")
        self.network.settle()
        self.successResultOf(opened)
        for number in range(30):
            sent = self.client.send("2", f"{number} " + "x" * 200, until=Delivery.DELIVERED)
            sent.addErrback(lambda failure: failure.trap(UnavailableError))
        self.leave()
        self.assertEqual([text.split()[0] for text in self.bob.texts(1)], [str(number) for number in range(30)])

    def test_close_does_not_wait_for_ever(self) -> None:
        """A server that does not close its side is left after a while."""
        self.connect()
        cast("Stream", self.server_end.transport).pauseProducing()
        closed = self.client.close()
        self.network.run_for(LINGER - 0.1)
        self.assertNoResult(closed)
        self.network.run_for(0.2)
        self.successResultOf(closed)

    def test_after_close(self) -> None:
        """What is asked of a client that was closed fails at once; it can be started again."""
        self.connect()
        self.leave()
        self.successResultOf(self.client.close())
        asked: list[Callable[[], Deferred[Any]]] = [
            lambda: self.client.list(),
            lambda: self.client.open("2"),
            lambda: self.client.send("2", "x"),
            lambda: self.client.disconnect("2"),
        ]
        for ask in asked:
            self.assertEqual(self.code_of(ask()), Code.UNAVAILABLE)
        self.assertEqual(self.alice.happened, [])
        self.connect()
        listed = self.client.list()
        self.network.settle()
        self.assertEqual(len(self.successResultOf(listed)), 2)
        self.leave()

    def test_asked_for_and_left_at_once(self) -> None:
        """What is asked for right before it leaves is still sent: by who waited to be connected, or for an answer."""
        frames: list[tuple[bool, int]] = []
        send = driver_connection.Connection.send_frame

        def sending(connection: driver_connection.Connection, frame: bytes) -> None:
            if connection._client is self.client:
                frames.append((connection.finished, len(frame)))
            send(connection, frame)

        def leave(_: object) -> Deferred[None]:
            self.client.act(lambda messenger: messenger.list("x"))
            return self.client.close()

        self.patch(driver_connection.Connection, "send_frame", sending)
        connected = self.client.connect()
        self.network.settle()
        self.successResultOf(connected)
        before = len(frames)
        left = self.client.list().addCallback(leave)
        self.network.settle()
        self.successResultOf(left)
        self.assertEqual([finished for finished, _ in frames[before:]], [False, False])
        frames.clear()
        left = self.client.connect().addCallback(leave)
        self.network.settle()
        self.successResultOf(left)
        self.assertEqual([finished for finished, _ in frames], [False] * 3, "two of the handshake, and the question")

    def test_start_while_closing(self) -> None:
        """A client that is started before it has left connects anew when it has."""
        self.connect()
        closed = self.client.close()
        done = self.client.connect()
        self.network.run_for(5)
        self.successResultOf(closed)
        self.successResultOf(done)
        self.leave()


class AwaitTests(ClientTestCase):
    """What programs await of a connected client."""

    def setUp(self) -> None:
        super().setUp()
        self.connect()

    def test_open(self) -> None:
        done = self.client.open("bob")
        self.network.settle()
        spec = "ECDHE-AES128_CTR-SHA256"
        self.assertEqual(self.successResultOf(done), events.Connected(peer=Contact("2", "bob"), spec=spec))
        # Open already: at once.
        self.assertEqual(self.successResultOf(self.client.open("2")).peer, Contact("2", "bob"))
        self.leave()

    def test_open_fails(self) -> None:
        for to in ("99", "nobody", "1", "alice"):
            done = self.client.open(to)
            self.network.settle()
            self.assertEqual(self.code_of(done), Code.UNKNOWN_RECIPIENT, to)
        self.leave()

    def test_open_refused(self) -> None:
        Driven(self.network, "picky", 3, allowed=()).dial()
        self.network.settle()
        done = self.client.open("3")
        self.network.settle()
        self.assertEqual(self.code_of(done), Code.NO_COMMON_SPEC)
        self.leave()

    def test_no_answer(self) -> None:
        Raw(self.network, "mute", 3).handshake()
        opening, sending = self.client.open("3"), self.client.send("3", "hi")
        impatient = self.client.open("3", timeout=2)
        self.network.run_for(1.9)
        self.assertNoResult(impatient)
        self.network.run_for(0.2)
        self.assertEqual(self.code_of(impatient), Code.UNAVAILABLE)
        self.network.run_for(7.8)
        self.assertNoResult(opening)
        self.network.run_for(0.3)
        self.assertEqual((self.code_of(opening), self.code_of(sending)), (Code.UNAVAILABLE, Code.UNAVAILABLE))
        self.leave()

    def test_list(self) -> None:
        done = self.client.list()
        self.network.settle()
        self.assertEqual(self.successResultOf(done), (Contact("1", "alice"), Contact("2", "bob")))
        self.leave()

    def test_send(self) -> None:
        accepted = self.client.send("bob", "one")
        delivered = self.client.send("2", "two", until=Delivery.DELIVERED)
        self.network.run_until(lambda: bool(accepted.called))
        self.assertNoResult(delivered)
        self.network.settle()
        ids = [event.id for event in self.alice.all(events.State) if event.text is not None]
        self.assertEqual([self.successResultOf(accepted), self.successResultOf(delivered)], ids)
        self.assertEqual(self.bob.texts(1), ["one", "two"])
        self.leave()

    def test_send_fails(self) -> None:
        cases = {"": Code.MALFORMED, "\ud800": Code.MALFORMED, "x" * 70_000: Code.TOO_LARGE}
        for text, code in cases.items():
            done = self.client.send("2", text)
            self.assertIsInstance(self.failureResultOf(done).value, LocalError)
            self.assertEqual(self.code_of(self.client.send("2", text)), code)
            done.addErrback(lambda _: None)
        unknown = self.client.send("99", "hi")
        self.network.settle()
        self.assertEqual(self.code_of(unknown), Code.UNKNOWN_RECIPIENT)
        self.leave()

    def test_send_fails_later(self) -> None:
        """A text that was accepted, and then was not delivered."""
        mute = Raw(self.network, "mute", 3).handshake()
        self.client.open("2")
        self.network.settle()
        cast("Stream", self.bob.transport).pauseProducing()
        done = self.client.send("2", "hi", until=Delivery.DELIVERED)
        self.network.settle()
        self.assertNoResult(done)
        cut(self.server_end)
        self.network.settle()
        self.assertEqual(self.code_of(done), Code.UNAVAILABLE)
        self.network.run_for(5)
        mute.stream.loseConnection()
        self.leave()

    def test_disconnect(self) -> None:
        self.client.open("2")
        sent = self.client.send("2", "bye")
        done = self.client.disconnect("bob")
        self.network.settle()
        self.successResultOf(sent)
        self.assertEqual(self.successResultOf(done), events.Disconnected(peer=Contact("2", "bob")))
        self.assertEqual(self.bob.texts(1), ["bye"])
        self.assertEqual(len(self.bob.all(events.Disconnected)), 1)
        self.assertEqual(self.code_of(self.client.disconnect("2")), Code.UNKNOWN_RECIPIENT)
        self.leave()

    def test_lost_under_way(self) -> None:
        """What was asked for on a connection that is lost is answered on the next, or by its time."""
        self.client.open("2")
        self.network.settle()
        cast("Stream", self.server_end.transport).pauseProducing()
        closed, listed = self.client.disconnect("2"), self.client.list()
        named, impatient = self.client.open("nobody"), self.client.list(timeout=0.5)
        self.network.settle()
        self.assertEqual(self.successResultOf(closed).peer.id, "2")
        cut(self.server_end)
        cast("Stream", self.server_end.transport).resumeProducing()
        self.network.run_for(0.6)
        self.assertEqual(self.code_of(impatient), Code.UNAVAILABLE)
        self.network.run_for(5)
        self.assertEqual(len(self.successResultOf(listed)), 2)
        self.assertEqual(self.code_of(named), Code.UNKNOWN_RECIPIENT)
        self.leave()

    def test_cancel(self) -> None:
        """Cancelling stops the waiting, and nothing else."""
        asked: list[Deferred[Any]] = [
            self.client.list(timeout=5),
            self.client.open("2", timeout=5),
            self.client.send("2", "hi", until=Delivery.DELIVERED, timeout=5),
            self.client.disconnect("2", timeout=5),
        ]
        for deferred in asked:
            deferred.cancel()
            self.failureResultOf(deferred, CancelledError)
        self.assertEqual(len(self.client._waiters), 0)
        self.network.settle()
        self.assertEqual(self.bob.texts(1), ["hi"])
        self.leave()

    def test_timeouts_are_typed(self) -> None:
        cast("Stream", self.server_end.transport).pauseProducing()
        asked: list[Deferred[Any]] = [
            self.client.list(timeout=1),
            self.client.open("bob", timeout=1),
            self.client.send("2", "hi", timeout=1),
        ]
        self.network.run_for(1.1)
        for deferred in asked:
            self.assertIsInstance(self.failureResultOf(deferred).value, UnavailableError)
            deferred.addErrback(lambda _: None)
        self.assertEqual(len(self.client._waiters), 0)

    def test_nothing_of_ours_in_refs(self) -> None:
        """Events that belong to a Deferred carry no ref; those of commands carry the command's."""
        self.client.send("2", "hi", until=Delivery.DELIVERED)
        self.client.act(lambda messenger: messenger.send("2", "ho", "mine"))
        self.network.settle()
        self.assertEqual({event.ref for event in self.alice.happened}, {None, "mine"})
        self.assertEqual(len(self.alice.states(Delivery.DELIVERED)), 2)
        self.leave()

    def test_program(self) -> None:
        """An async program awaits all of it."""
        log: list[object] = []
        bob = self.bob

        async def program() -> str:
            client = self.client
            log.append((await client.connect()).id)
            log.append([contact.name for contact in await client.list()])
            log.append((await client.open("bob", timeout=5)).peer.name)
            for text in ("one", "two"):
                await client.send("bob", text, until=Delivery.DELIVERED)
                log.append(bob.texts()[-1])
            try:
                await client.open("nobody")
            except SimsError as error:
                log.append(error.code)
            log.append((await client.disconnect("bob")).peer.id)
            await client.close()
            try:
                await client.send("bob", "three")
            except UnavailableError as error:
                log.append(error.code)
            return "done"

        done = ensureDeferred(program())
        self.network.settle()
        self.assertEqual(self.successResultOf(done), "done")
        names = ["alice", "bob"]
        self.assertEqual(log, ["1", names, "bob", "one", "two", "unknown-recipient", "2", "unavailable"])
        self.assertEqual(self.network.clock.getDelayedCalls(), [])

    def test_commands_from_events(self) -> None:
        """Whoever hears an event may give commands at once, and hears of them in order."""
        heard: list[str] = []

        def answer(event: events.Event) -> None:
            heard.append(type(event).__name__)
            if isinstance(event, events.Message):
                echo.client.send(event.sender.id, f"you said: {event.text}")
                heard.append("sent")

        echo = Program(self.network, "echo", 3)
        echo.client.on_event = answer
        echo.client.start()
        self.network.settle()
        for text in ("one", "two"):
            self.client.send("3", text)
            self.network.settle()
        self.assertEqual(self.alice.texts(3), ["you said: one", "you said: two"])
        self.assertEqual(heard[:5], ["Ready", "Connected", "Message", "sent", "State"])
        echo.client.close()
        self.leave()

    def test_reading_held(self) -> None:
        """A client whose owner is behind takes nothing, on this connection and on the next."""
        self.client.open("2")
        self.network.settle()
        self.client.hold_reading()
        self.bob.do(lambda messenger: messenger.send("1", "hi"))
        self.network.settle()
        self.assertEqual(self.alice.texts(), [])
        self.client.release_reading()
        self.network.settle()
        self.assertEqual(self.alice.texts(), ["hi"])
        self.client.hold_reading()
        cut(self.server_end)
        self.client.release_reading()
        self.network.settle()
        self.client.hold_reading()
        self.network.run_for(3)
        self.assertEqual(len(self.alice.all(events.Ready)), 0)
        self.client.release_reading()
        self.network.settle()
        self.assertEqual(len(self.alice.all(events.Ready)), 1)
        self.leave()

    def test_slow_server(self) -> None:
        """While the socket is behind, texts wait unsealed; and then all of them go out, in order."""
        self.client.open("2")
        self.network.settle()
        cast("Stream", self.server_end.transport).pauseProducing()
        texts = [f"{number} " + "x" * 20_000 for number in range(60)]
        for text in texts:
            self.client.send("2", text)
        self.network.settle()
        stream = cast("Stream", self.client._connection.transport if self.client._connection else None)
        self.assertTrue(self.client.messenger.hop.congested)
        self.assertLess(stream.unsent, 64 * 1024 + 50_000)
        self.assertGreater(self.client.messenger.unsent, 40)
        cast("Stream", self.server_end.transport).resumeProducing()
        self.network.settle()
        self.assertEqual(self.bob.texts(1), texts)
        self.leave()


def _happened(network: Network, count: int) -> bool:
    return network.happenings >= count


def _forged() -> bytes:
    """A secure frame that is well made, and that nobody's keys open."""
    key = b64encode(p384_to_pem(SeededEntropy(7).p384().public_key()))
    return (
        b'{"type":"secure","sa-data":{"hash":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",'
        b'"iv":"AAAAAAAAAAAAAAAAAAAAAA==","random":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="},'
        b'"payload":{"ciphertext":"AAAA","public_key":"' + key + b'"}}\n\n'
    )
