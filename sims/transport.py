"""What both wings need of Twisted: frames on a stream, with their limits and deadlines.

A frame is what stands before ``\\n\\n``. Its length is checked before it is buffered, its arrival has a deadline, and
both directions tell when they are congested.
"""

from __future__ import annotations

import contextlib
import socket
from math import inf
from typing import cast

from twisted.internet.abstract import FileDescriptor
from twisted.internet.interfaces import (
    IConsumer,
    IDelayedCall,
    IPushProducer,
    IReactorTime,
    ISSLTransport,
    ITCPTransport,
    ITransport,
)
from twisted.protocols.basic import LineReceiver
from twisted.python.failure import Failure
from zope.interface import implementer

from sims.wire import MAX_FRAME, TERMINATOR

#: Seconds: for one frame from its first byte to its last; for a peer to take what it was sent when it is refused.
FRAME_TIMEOUT = 30.0
LINGER = 2.0
_KEEPALIVE = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 4, "TCP_USER_TIMEOUT": 120_000}
#: Of these, what this system has.
_OPTIONS = [(getattr(socket, name), value) for name, value in _KEEPALIVE.items() if hasattr(socket, name)]


@implementer(IPushProducer)
class _WriteSide:
    """Tells a protocol when its transport's write buffer fills up and when it has drained.

    It is an object of its own because a LineReceiver's pauseProducing is about its reading.
    """

    def __init__(self, frames: FrameReceiver) -> None:
        self._frames = frames

    def pauseProducing(self) -> None:
        self._frames.write_blocked = True
        self._frames.write_side_changed()

    def resumeProducing(self) -> None:
        self._frames.drained()

    def stopProducing(self) -> None:
        pass  # connectionLost says so, too


class FrameReceiver(LineReceiver):
    """Frames in, frames out. Subclasses override the methods in the second half.

    :ivar write_blocked: the transport holds more than it wants to; what is not urgent had better wait.
    """

    delimiter = TERMINATOR
    MAX_LENGTH = MAX_FRAME

    write_blocked = False
    #: Seconds for one frame from its first byte to its last; ``math.inf`` for as long as it takes.
    frame_timeout: float = FRAME_TIMEOUT

    def __init__(self, clock: IReactorTime) -> None:
        self.clock = clock
        self._finished = False
        self._tail = b""
        self._frame_deadline: IDelayedCall | None = None
        self._linger: IDelayedCall | None = None
        self._release: IDelayedCall | None = None
        self._socket: FileDescriptor | None = None  # the transport, where it writes to a socket of its own
        self._reasons: set[str] = set()  # why nothing is read

    # --- what Twisted calls ---

    def connectionMade(self) -> None:
        transport = self._stream
        if ITCPTransport.providedBy(transport):
            with contextlib.suppress(OSError):  # it is gone already, which is seen soon
                _tune(transport)
        if isinstance(transport, FileDescriptor) and not ISSLTransport.providedBy(transport):
            self._socket = transport
        if IConsumer.providedBy(transport):
            cast("IConsumer", transport).registerProducer(_WriteSide(self), True)

    def dataReceived(self, data: bytes) -> None:
        if self._finished:
            return
        size = len(data) - len(TERMINATOR)
        nothing_buffered = getattr(self, "_buffer", None) == b""  # LineReceiver's; what is unknown goes the long way
        # One frame and whole, as nearly always, and no other newline in it: one byte is found quicker than two.
        is_one = 0 <= size <= self.MAX_LENGTH and data.find(b"\n") == size and data.endswith(TERMINATOR)
        if nothing_buffered and is_one and not self.paused:
            self._tail = TERMINATOR
            self.lineReceived(data[:size])
            return
        self._tail = (self._tail + data[-2:])[-2:]
        super().dataReceived(data)
        self._watch_frame()

    def lineReceived(self, line: bytes) -> None:
        if self._frame_deadline is not None:
            self._frame_deadline.cancel()
            self._frame_deadline = None
        if not self._finished:
            self.frame_received(line)

    def lineLengthExceeded(self, line: bytes) -> None:
        if not self._finished:
            self.frame_too_long()

    def connectionLost(self, reason: Failure | None = None) -> None:
        self._finished = True
        self._cancel_deadlines()
        if self._linger is not None:
            self._linger.cancel()
            self._linger = None

    # --- what subclasses call ---

    @property
    def finished(self) -> bool:
        """Whether :meth:`finish` was called or the connection is lost."""
        return self._finished

    def send_frame(self, frame: bytes) -> None:
        """Write one frame; nothing after :meth:`finish`."""
        if not self._finished:
            self._stream.write(frame + TERMINATOR)

    def send_at_once(self, frame: bytes) -> None:
        """Write one frame now, as a segment of its own, without another round of the reactor if that can be done."""
        if self._finished:
            return
        if self._socket is None:
            self._stream.write(frame + TERMINATOR)
        else:
            write_at_once(self._socket, frame + TERMINATOR)

    def hold(self, reason: str = "") -> None:
        """Stop reading until :meth:`release`, for each reason that there is."""
        self._reasons.add(reason)
        if self._release is not None:
            self._release.cancel()
            self._release = None
        if not self.paused and not self._finished:
            self._cancel_deadlines()
            self.pauseProducing()

    def release(self, reason: str = "") -> None:
        """Read again, soon: never within the call, which may come from the middle of somebody else's work."""
        self._reasons.discard(reason)
        if not self._reasons and self.paused and self._release is None and not self._finished:
            self._release = self.clock.callLater(0, self._read_again)

    def finish(self, linger: float = LINGER) -> None:
        """Take nothing more, let the other end read what was written, then close: after ``linger`` seconds at most."""
        if self._finished:
            return
        self._finished = True
        self._cancel_deadlines()
        self.clearLineBuffer()
        transport = self._stream
        if IConsumer.providedBy(transport):
            cast("IConsumer", transport).unregisterProducer()
        if self.paused:
            self.resumeProducing()
        self._linger = self.clock.callLater(linger, self._lingered)
        if ITCPTransport.providedBy(transport) and not ISSLTransport.providedBy(transport):
            # Closed at once, a socket with unread input resets the connection, and the last frame may be lost.
            transport.loseWriteConnection()
        else:
            transport.loseConnection()

    def abort(self) -> None:
        """Close without waiting for anything."""
        self._finished = True
        self._cancel_deadlines()
        self.clearLineBuffer()
        transport = self.transport
        if transport is None:
            return
        if hasattr(transport, "abortConnection"):
            transport.abortConnection()
        else:
            transport.loseConnection()

    def drained(self) -> None:
        """What was buffered has gone."""
        self.write_blocked = False
        self.write_side_changed()

    # --- what subclasses override ---

    def frame_received(self, frame: bytes) -> None:
        """A frame, without its terminator, of at most ``MAX_LENGTH`` bytes."""
        raise NotImplementedError

    def frame_too_long(self) -> None:
        """More than ``MAX_LENGTH`` bytes came without a terminator."""
        self.finish()

    def frame_too_slow(self) -> None:
        """A frame was begun ``frame_timeout`` seconds ago and is not whole."""
        self.finish()

    def write_side_changed(self) -> None:
        """``write_blocked`` has changed."""

    # --- within ---

    @property
    def _stream(self) -> ITransport:
        transport = self.transport
        if transport is None:
            raise RuntimeError("used before connectionMade")
        return transport

    def _watch_frame(self) -> None:
        partial = self._tail != TERMINATOR and self._tail != b""
        due = partial and self.frame_timeout != inf and self._frame_deadline is None
        if due and not self.paused and not self._finished:
            self._frame_deadline = self.clock.callLater(self.frame_timeout, self._frame_expired)

    def _frame_expired(self) -> None:
        self._frame_deadline = None
        self.frame_too_slow()

    def _lingered(self) -> None:
        self._linger = None
        self.abort()

    def _read_again(self) -> None:
        self._release = None
        if not self._finished:
            self.resumeProducing()
            self._watch_frame()

    def _cancel_deadlines(self) -> None:
        for deadline in (self._frame_deadline, self._release):
            if deadline is not None:
                deadline.cancel()
        self._frame_deadline = self._release = None


def write_at_once(transport: FileDescriptor, data: bytes) -> None:
    """Write to a socket now, while nothing is buffered for it: without another round of the reactor."""
    # Of what Twisted buffers, only one half has a public name; what is unknown goes the long way.
    is_clear = transport.dataBuffer == b"" and getattr(transport, "_tempDataBuffer", None) == []
    if is_clear and transport.connected:
        taken = transport.writeSomeData(data)
        if taken == len(data):
            return
        # The reactor writes the rest: it knows when the socket takes more, and what an error means.
        if isinstance(taken, int):
            data = data[taken:]
    transport.write(data)


def _tune(transport: ITCPTransport) -> None:
    """Send frames at once, and notice a peer whose machine is gone.

    There are two ways: while nothing is under way to it, it is asked from time to time; what is under way may be so for
    two minutes (milliseconds there), where the system itself would try for a quarter of an hour.
    """
    transport.setTcpNoDelay(True)
    transport.setTcpKeepAlive(True)
    # Over TLS it is the transport below that has the socket.
    below = getattr(transport, "transport", transport)
    handle = below.getHandle() if hasattr(below, "getHandle") else None
    if isinstance(handle, socket.socket):
        for option, value in _OPTIONS:
            handle.setsockopt(socket.IPPROTO_TCP, option, value)
