"""What a driver drives: the user's end of either format, as :mod:`sims.client.driver` sees it."""

from __future__ import annotations

from collections import deque
from typing import Protocol

from sims.client.events import Event, Ready

#: So much that was shown may wait to be noted as such: after a crash it is shown once more.
MOST_SHOWN = 8


class Messenger(Protocol):
    """What decides at the user's end, without a reactor. Frames and commands in, frames and events out."""

    @property
    def frames(self) -> deque[bytes]:
        """To be written, without terminators."""

    @property
    def events(self) -> deque[Event]:
        """What happened, in order."""

    @property
    def ready(self) -> Ready | None:
        """Said when the handshake with the server is through; None while it is not."""

    @property
    def waiting(self) -> int:
        """How many messages wait for the server to take them."""

    def connected(self, binding: bytes) -> None:
        """A new connection to the server is there; ``binding`` ties the handshake to it (TLS exporter)."""

    def lost(self) -> None:
        """The connection is gone."""

    def receive(self, frame: bytes) -> None:
        """One frame from the server.

        :raises SimsError: the connection is to be closed.
        """

    def slowed(self, congested: bool) -> None:
        """The way to the server is behind, or has caught up."""

    def tick(self) -> float | None:
        """Do what is due; gives when to be called again."""

    def settle(self) -> None:
        """Make lasting what has changed: called before anything that follows from it leaves.

        :raises LocalError: it cannot be.
        """
