"""What both wings need of Twisted: what is written at once, and what is asked of a socket."""

from __future__ import annotations

import errno
import socket
from typing import Any, cast

from twisted.internet import tcp
from twisted.internet.abstract import FileDescriptor
from twisted.internet.interfaces import IProtocol
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.trial.unittest import SynchronousTestCase

from sims import tls
from sims.crypto.certificate import self_signed
from sims.transport import FrameReceiver, write_at_once

NOW = 1_800_000_000
OWN = self_signed(NOW)


class Taking(FrameReceiver):
    """Notes its frames."""

    def __init__(self) -> None:
        super().__init__(cast("Any", Clock()))
        self.frames: list[bytes] = []

    def frame_received(self, frame: bytes) -> None:
        self.frames.append(frame)


class EndTests(SynchronousTestCase):
    def test_however_it_is_cut(self) -> None:
        """A frame ends with two newlines, and with no single one, wherever a piece ends."""
        stream = b"a\nx\n\nb\n\n\n\nc\n\n"
        for first in range(len(stream)):
            for second in range(first, len(stream)):
                taking = Taking()
                taking.makeConnection(StringTransport())
                for piece in (stream[:first], stream[first:second], stream[second:]):
                    taking.dataReceived(piece)
                self.assertEqual(taking.frames, [b"a\nx", b"b", b"", b"c"], (first, second))
                taking.connectionLost()


class Descriptor(FileDescriptor):
    """A socket that takes so many bytes, and then no more until the reactor has gone round.

    :ivar took: what it has taken, each with whether that was within the call that wrote it.
    """

    def __init__(self, room: int) -> None:
        super().__init__(cast("Any", self))
        self.connected = 1
        self.room = room
        self.took: list[tuple[bytes, bool]] = []
        self.writing = self.is_round = False

    def addWriter(self, _: object) -> None:  # noqa: N802 - the reactor's
        self.writing = True

    def removeWriter(self, _: object) -> None:  # noqa: N802 - the reactor's
        self.writing = False

    def removeReader(self, _: object) -> None:  # noqa: N802 - the reactor's
        pass

    def writeSomeData(self, data: Any) -> int:  # noqa: N802 - Twisted's name
        taken = bytes(data[: self.room])
        self.room -= len(taken)
        if taken:
            self.took.append((taken, not self.is_round))
        return len(taken)

    def go_round(self, room: int) -> None:
        """The socket takes more, and the reactor sees to it."""
        self.room, self.is_round = room, True
        if self.writing:
            self.doWrite()
        self.is_round = False

    @property
    def all(self) -> bytes:
        """Everything that was taken."""
        return b"".join(data for data, _ in self.took)


class AtOnceTests(SynchronousTestCase):
    def test_room(self) -> None:
        """While there is room nothing waits for the reactor."""
        end = Descriptor(100)
        for data in (b"abc", b"", b"def"):
            write_at_once(end, data)
        self.assertEqual((end.took, end.writing), ([(b"abc", True), (b"def", True)], False))

    def test_no_room(self) -> None:
        """What is not taken waits, and everything behind it, however it is written; then it is at once again."""
        end = Descriptor(2)
        write_at_once(end, b"abc")
        write_at_once(end, b"def")
        end.write(b"ghi")
        end.writeSequence([b"j", b"kl"])
        write_at_once(end, b"m")
        self.assertEqual((end.took, end.writing), ([(b"ab", True)], True))
        end.go_round(4)
        end.room = 100  # there is room again, and the rest is still to come
        write_at_once(end, b"n")
        self.assertEqual(end.all, b"abcdef")
        end.go_round(100)
        self.assertEqual((end.all, end.writing), (b"abcdefghijklmn", False))
        write_at_once(end, b"o")
        self.assertEqual(end.took[-1], (b"o", True))

    def test_behind_what_others_wrote(self) -> None:
        """Nothing overtakes what another has left to the reactor."""
        for write in (lambda end: end.write(b"abc"), lambda end: end.writeSequence([b"a", b"bc"])):
            end = Descriptor(100)
            write(end)
            write_at_once(end, b"def")
            self.assertEqual(end.took, [])
            end.go_round(100)
            self.assertEqual(end.all, b"abcdef")

    def test_an_error(self) -> None:
        """It is the reactor's, who knows what it means."""
        end = Descriptor(100)
        end.writeSomeData = lambda _: ConnectionError()  # type: ignore[assignment,method-assign,return-value]
        write_at_once(end, b"abc")
        self.assertTrue(end.writing)

    def test_closed(self) -> None:
        end = Descriptor(100)
        end.connected = 0
        write_at_once(end, b"abc")
        self.assertEqual((end.took, end.writing), ([], False))

    def test_frames(self) -> None:
        """Frames at once keep their place among the others."""
        frames = FrameReceiver(cast("Any", Clock()))
        end = Descriptor(100)
        frames.makeConnection(cast("Any", end))
        frames.send_at_once(b"1")
        frames.send_frame(b"2")
        frames.send_at_once(b"3")
        self.assertEqual(end.took, [(b"1\n\n", True)])
        end.go_round(100)
        frames.send_at_once(b"4")
        self.assertEqual(end.took[1:], [(b"2\n\n3\n\n", False), (b"4\n\n", True)])

    def test_tls(self) -> None:
        """So are the records of TLS, and again after the socket was behind."""
        end = Descriptor(2)
        below = cast("Any", tls._Socket(end))
        below.write(b"abc")
        below.writeSequence([b"de", b"f"])
        below.write(b"g")
        end.go_round(100)
        below.write(b"h")
        self.assertEqual((end.all, end.took[-1]), (b"abcdefgh", (b"h", True)))


class HoldTests(SynchronousTestCase):
    def test_reasons(self) -> None:
        """It is read again when there is no reason left not to; a reason counts once, however often it is given."""
        clock = Clock()
        frames = FrameReceiver(cast("Any", clock))
        came: list[bytes] = []
        self.patch(frames, "frame_received", came.append)
        frames.makeConnection(cast("Any", StringTransport()))
        for reason in ("a", "b", "a"):
            frames.hold(reason)
        for number, reason in enumerate(("a", "c", "a", "b", "b")):
            frames.dataReceived(b"%d\n\n" % number)
            frames.release(reason)
            clock.advance(0)
            self.assertEqual(came, [b"%d" % one for one in range(number + 1)] if number > 2 else [])
        frames.hold("a")
        frames.release("a")
        frames.hold("b")
        clock.advance(0)
        frames.dataReceived(b"5\n\n")
        self.assertEqual(len(came), 5)


class SocketTests(SynchronousTestCase):
    """What is asked of a socket. It is never connected."""

    def setUp(self) -> None:
        self.socket = socket.socket()
        self.addCleanup(self.socket.close)

    def connect(self, protocol: IProtocol) -> None:
        protocol.makeConnection(tcp.Connection(self.socket, protocol, cast("Any", MemoryReactorClock())))

    def check(self) -> None:
        def option(level: int, name: int) -> int:
            return self.socket.getsockopt(level, name)

        self.assertTrue(option(socket.SOL_SOCKET, socket.SO_KEEPALIVE))
        self.assertTrue(option(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        if hasattr(socket, "TCP_KEEPIDLE"):
            found = [
                option(socket.IPPROTO_TCP, getattr(socket, f"TCP_KEEP{name}")) for name in ("IDLE", "INTVL", "CNT")
            ]
            self.assertEqual(found, [60, 15, 4])
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            self.assertEqual(option(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT), 120_000)

    def test_tcp(self) -> None:
        """A machine that is gone is noticed within two minutes, whatever is under way to it; frames leave at once."""
        self.connect(cast("IProtocol", FrameReceiver(cast("Any", Clock()))))
        self.check()

    def test_gone(self) -> None:
        """Of one whose other end is gone already some systems take nothing; it goes on, to see that."""

        def gone(*_: object) -> None:
            raise OSError(errno.EINVAL, "Invalid argument")

        frames = FrameReceiver(cast("Any", Clock()))
        self.patch(tcp.Connection, "setTcpNoDelay", gone)
        self.connect(cast("IProtocol", frames))
        self.assertIsNotNone(cast("Any", frames.transport).producer)

    def test_tls(self) -> None:
        """The same below TLS."""
        factory: Factory[Any] = Factory()
        cast("Any", factory).buildProtocol = lambda _: FrameReceiver(cast("Any", Clock()))
        server = cast("Any", tls.server_tls(cast("Any", factory), tls.ServerTls(*OWN), MemoryReactorClock()))
        self.connect(server.buildProtocol(None))
        self.check()
