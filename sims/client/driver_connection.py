"""One connection of a client: its handshake in time, frames in and out. What they mean, its owner decides."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

from twisted.internet.interfaces import IAddress, IDelayedCall, IReactorTime
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure

from sims.errors import Code, PeerError, SimsError, UnavailableError
from sims.transport import FrameReceiver

#: Seconds for the handshake with the server.
HANDSHAKE_TIMEOUT = 10.0


class Owner(Protocol):
    """Who is told what happens on a connection.

    :ivar max_frame: bytes of the longest frame; ``closed_early``: what a connection that ends in its handshake means.
    """

    @property
    def max_frame(self) -> int: ...

    @property
    def closed_early(self) -> str: ...

    @property
    def connection_class(self) -> type[Connection]: ...

    def connection_opened(self, connection: Connection) -> None:
        """There is a new connection; over TLS it is not ready for bytes."""

    def connection_made(self, connection: Connection, binding: bytes) -> None:
        """Bytes can be exchanged on it."""

    def handshake_over(self, error: SimsError | None) -> None:
        """The handshake with the server is through, or has failed."""

    def connection_lost(self, connection: Connection) -> None:
        """It is gone."""

    def frame_received(self, connection: Connection, frame: bytes) -> None:
        """A frame from the server."""

    def write_side_changed(self, connection: Connection) -> None:
        """The socket is behind, or has caught up."""

    def together(self) -> AbstractContextManager[None]:
        """Around all the frames that come at once."""

    def report(self, error: SimsError) -> None:
        """Something is wrong with the server or the way to it."""


class Connection(FrameReceiver):
    """One connection to the server; feeds the messenger and writes what it has to say.

    :ivar was_ready: whether its handshake has gone through.
    """

    def __init__(self, client: Owner, clock: IReactorTime) -> None:
        super().__init__(clock)
        self.MAX_LENGTH = client.max_frame
        self._client = client
        self._settled = False
        self.was_ready = False
        self._deadline: IDelayedCall | None = None

    def connectionMade(self) -> None:
        super().connectionMade()
        self._deadline = self.clock.callLater(HANDSHAKE_TIMEOUT, self._too_slow)
        self._client.connection_opened(self)
        self.opened()

    def opened(self) -> None:
        """Bytes can be exchanged; over TLS that is later, see :mod:`sims.client.modern_connection`."""
        self._client.connection_made(self, b"")

    def connectionLost(self, reason: Failure | None = None) -> None:
        super().connectionLost(reason)
        self._settle(UnavailableError(self._client.closed_early))
        self._client.connection_lost(self)

    def together(self) -> AbstractContextManager[None]:
        """Around all that comes at once, in however many pieces."""
        return self._client.together()

    def dataReceived(self, data: bytes) -> None:
        with self.together():
            super().dataReceived(data)

    def frame_received(self, frame: bytes) -> None:
        self._client.frame_received(self, frame)

    def frame_too_long(self) -> None:
        self.fail(PeerError(Code.TOO_LARGE, f"the server sent a frame of more than {self.MAX_LENGTH} bytes"))

    def frame_too_slow(self) -> None:
        self.fail(UnavailableError("the server began a frame and did not end it"))

    def write_side_changed(self) -> None:
        self._client.write_side_changed(self)

    def is_ready(self) -> None:
        """The handshake is through."""
        self.was_ready = True
        self._settle(None)

    def fail(self, error: SimsError) -> None:
        """Close, because of something that the server did."""
        if not self._settle(error):
            self._client.report(error)
        self.abort()

    def _too_slow(self) -> None:
        self._deadline = None
        self.fail(UnavailableError(f"the handshake with the server took more than {HANDSHAKE_TIMEOUT:.0f} seconds"))

    def _settle(self, error: SimsError | None) -> bool:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        settled, self._settled = self._settled, True
        if not settled:
            self._client.handshake_over(error)
        return not settled


class ConnectionFactory(Factory[Connection]):
    """Makes the :class:`Connection` of a client, one after the other."""

    noisy = False

    def __init__(self, client: Owner, clock: IReactorTime) -> None:
        self._client = client
        self._clock = clock

    def buildProtocol(self, addr: IAddress | None) -> Connection:
        connection = self._client.connection_class(self._client, self._clock)
        connection.factory = self
        return connection
