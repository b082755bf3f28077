"""TLS records as they are read and written, whatever the network makes of them."""

from __future__ import annotations

from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st
from OpenSSL import SSL
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from sims import tls
from sims.test.test_tls import OWN, End, TlsTestCase, once
from sims.test.test_transport import Descriptor


class RecordTests(TlsTestCase):
    """What is read of a connection, however the network cuts it."""

    def setUp(self) -> None:
        super().setUp()
        self.client, self.server = self.pair()

    def record(self, text: bytes) -> bytes:
        """Of the client, as it stands on the wire."""
        self.client.connection.send(text)
        return self.client.connection.bio_read(2**15)

    def feed(self, data: bytes) -> None:
        """Let the server's end of TLS read."""
        cast("Any", self.server.transport).dataReceived(data)

    @given(
        st.lists(st.integers(1, 40), min_size=1, max_size=8),
        st.lists(st.integers(0, 600), max_size=12),
        st.booleans(),
    )
    def test_pieces(self, sizes: list[int], cuts: list[int], at_the_ends: bool) -> None:
        """Whatever record is there as a whole has been read, once and in order."""
        self.server.received = b""
        records = [self.record(bytes([number]) * size) for number, size in enumerate(sizes)]
        stream = b"".join(records)
        ends = [sum(map(len, records[: number + 1])) for number in range(len(records))]
        places = {cut % len(stream) for cut in cuts} | set(ends if at_the_ends else ends[-1:])
        start = 0
        for place in sorted(places - {0}):
            self.feed(stream[start:place])
            start = place
            whole = [bytes([number]) * size for number, size in enumerate(sizes) if ends[number] <= place]
            self.assertEqual(self.server.received, b"".join(whole))

    def test_what_looks_like_a_record(self) -> None:
        """Where a piece begins within a record, what stands there is not taken for its size."""
        for begun in (8, 3):  # so much of a record: its header and some of its text, or not even that
            self.client, self.server = self.pair()
            records = [self.record(b"%04d" % number) for number in range(2600)]  # 26 bytes each: more than 2**16
            stream, size = b"".join(records), len(records[0])
            end = begun + 5 + int.from_bytes(stream[begun + 3 : begun + 5], "big")
            self.feed(stream[:begun])
            self.feed(stream[begun:end])
            self.assertEqual(len(self.server.received), end // size * 4)

    def test_the_end(self) -> None:
        """The end of the other side is one, though it is a record like any other."""
        self.feed(self.record(b"1"))
        self.client.connection.shutdown()
        self.feed(self.client.connection.bio_read(2**15))
        self.network.settle()
        self.assertEqual(self.server.received, b"1")
        self.assertIsInstance(self.server.lost, ConnectionDone)

    def test_tampered(self) -> None:
        """A record that does not verify ends the connection, is not read, and the other end is told."""
        for cut in (7, None):
            self.client, self.server = self.pair()
            self.feed(self.record(b"1"))
            bad = bytearray(self.record(b"2"))
            bad[-1] ^= 1
            self.feed(bytes(bad[:cut]))
            if cut:
                self.feed(bytes(bad[cut:]))
            self.network.settle()
            self.assertEqual(self.server.received, b"1")
            self.assertIsInstance(self.server.lost, SSL.Error)
            self.assertIn("alert", str(self.client.lost))

    def test_after_the_end(self) -> None:
        """Nothing is read of a connection that was given up."""
        cast("Any", self.server.transport).abortConnection()
        self.feed(self.record(b"1"))
        self.assertEqual(self.server.received, b"")


class Answering(End):
    """Answers the end of the handshake with something, and may close then."""

    def __init__(self, answer: bytes, closes: bool) -> None:
        super().__init__()
        self._answer = answer
        self._closes = closes

    def handshakeCompleted(self) -> None:  # noqa: N802
        super().handshakeCompleted()
        if self.transport is not None and self._answer:
            self.transport.write(self._answer)
        if self.transport is not None and self._closes:
            self.transport.loseConnection()


class HoldingTests(SynchronousTestCase):
    """What the server writes, and when."""

    def shake(self, server: Protocol, *, leaves: bool = False) -> SSL.Connection:
        """A handshake with a server; gives the client, who may leave in the same breath."""
        self.clock = Clock()
        factory = cast("Any", tls.server_tls(cast("Any", once(server)), tls.ServerTls(*OWN), cast("Any", self.clock)))
        self.below, self.end = Descriptor(100_000), factory.buildProtocol(None)
        self.end.makeConnection(self.below)
        client = SSL.Connection(SSL.Context(SSL.TLS_METHOD), None)
        client.set_connect_state()
        with self.assertRaises(SSL.WantReadError):
            client.do_handshake()
        self.end.dataReceived(client.bio_read(2**15))
        client.bio_write(self.below.all)
        client.do_handshake()
        self.below.took.clear()
        if leaves:
            client.shutdown()
        self.end.dataReceived(client.bio_read(2**15))
        return client

    def read(self, client: SSL.Connection) -> bytes:
        """What the client makes of all that the server has written behind the handshake."""
        client.bio_write(self.below.all)
        return client.recv(2**15)

    def test_nothing_to_say(self) -> None:
        """What ends the handshake does not wait for ever."""
        self.shake(End())
        self.assertEqual(self.below.took, [])
        self.clock.advance(0)
        self.assertEqual(len(self.below.took), 1)
        self.clock.advance(0)
        self.assertEqual(len(self.below.took), 1)

    def test_together(self) -> None:
        """It goes out with what is said in the same turn, before that, as one piece; the next is at once again."""
        for answer in (b"", b"within"):
            server = Answering(answer, closes=False)
            client = self.shake(server)
            self.assertEqual(self.below.took, [])
            cast("Any", server.transport).write(b"behind")
            self.assertEqual(len(self.below.took), 1)
            cast("Any", server.transport).write(b"next")
            self.assertEqual(len(self.below.took), 2)
            self.clock.advance(0)
            self.assertEqual(self.read(client), answer or b"behind")
            self.assertEqual(client.recv(100), b"behind" if answer else b"next")

    def test_refused(self) -> None:
        """Whoever is told something as the handshake ends, and closed, hears it."""
        client = self.shake(Answering(b"no", closes=True))
        self.clock.advance(0)
        self.assertEqual(len(self.below.took), 1)
        self.assertEqual(self.read(client), b"no")
        self.assertRaises(SSL.ZeroReturnError, client.recv, 1)

    def test_gone_already(self) -> None:
        """Whoever leaves with the end of the handshake sees the end of the server's side, too."""
        client = self.shake(End(), leaves=True)
        self.assertEqual((len(self.below.took), self.below.disconnecting), (1, True))
        client.bio_write(self.below.all)
        self.assertRaises(SSL.ZeroReturnError, client.recv, 1)

    def test_gone(self) -> None:
        """Nothing is written to a connection that was lost meanwhile."""
        self.shake(End())
        self.below.connected = 0
        self.clock.advance(0)
        self.assertEqual(self.below.took, [])
