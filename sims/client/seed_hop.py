"""The session with a server that speaks the seed's format: handshake, sealing, the server's acknowledgements."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from enum import Enum, auto
from typing import Any

from sims import messages, wire
from sims.client.seed_peer import Outgoing
from sims.crypto.primitives import Entropy
from sims.crypto.seed import End, Initiator, Keys, Session
from sims.errors import malformed
from sims.specs import CipherSpec
from sims.strictjson import Octets32, Pem

#: Received frames without one of ours after which something is to be sent, so that keys move on.
TURN_AFTER = 32
#: How long a list reply is waited for (seconds), and received frames after which it is not.
REPLY_TIMEOUT = 2.0
BUSY_AFTER = 8

_LIST = wire.encode(messages.ListRequest())


class HopState(Enum):
    """Where the session with the server is."""

    OFFLINE = auto()
    OFFERED = auto()  # connect 1 is out
    KEYED = auto()  # connect 3 is out
    READY = auto()


class SeedHop:
    """One connection after the other to the server.

    :ivar frames: what is to be written, in order.
    :ivar congested: set by the driver while the socket is behind: then nothing more is sealed.
    """

    def __init__(
        self,
        name: str,
        own_id: int,
        offer: Sequence[CipherSpec],
        entropy: Entropy,
        *,
        clock: Callable[[], float],
        accepted: Callable[[Outgoing], None],
    ) -> None:
        self.name = name
        self.id = own_id
        self.state = HopState.OFFLINE
        self.frames: deque[bytes] = deque()
        self.congested = False
        self._offer = tuple(offer)
        self._entropy = entropy
        self._clock = clock
        self._accepted = accepted
        self._initiator: Initiator | None = None
        self._session: Session | None = None
        self._waiting: deque[tuple[bytes, Outgoing | None]] = deque()  # not yet sealed
        self._reply_due: float | None = None
        self._unacknowledged: deque[tuple[int, Outgoing | None]] = deque()  # by the server: serial, message
        self._taken_since_sent = 0

    @property
    def spec(self) -> CipherSpec | None:
        """The spec that was agreed, while the session is there."""
        return self._session.spec if self._session is not None else None

    @property
    def waiting(self) -> int:
        """How many inner messages are not yet sealed."""
        return len(self._waiting)

    @property
    def turn_due(self) -> bool:
        """Whether so much came without an answer that something should be sent."""
        return self._taken_since_sent >= TURN_AFTER and not self._waiting

    def connected(self) -> None:
        """A new connection is there."""
        self._initiator = Initiator(End.CLIENT, self._offer, self._entropy)
        self.state = HopState.OFFERED
        self._connect(messages.Connect1(name=self.name, id=self.id, ciphers=self._initiator.offer()))

    def lost(self) -> set[Outgoing]:
        """The connection is gone.

        :returns: the messages that were not written.
        """
        unwritten = {message for _, message in self._waiting if message is not None}
        self.state = HopState.OFFLINE
        self._session = self._initiator = None
        self.congested = False
        self.frames.clear()
        self._waiting.clear()
        self._unacknowledged.clear()
        self._taken_since_sent = 0
        self._reply_due = None
        return unwritten

    def receive(self, frame: bytes) -> dict[str, Any] | None:
        """One frame from the server; gives the inner message in it, parsed, if there is one.

        :raises PeerError: the connection is to be closed.
        """
        message = wire.message(wire.parse(frame))
        match self.state, message:
            case _, messages.Ack():
                self._acknowledged()
            case HopState.OFFERED, messages.Connect2() if self._initiator is not None:
                keys = self._initiator.choose(message.ciphers)
                self.state = HopState.KEYED
                data = messages.ClientKeys(public_key=Pem(keys.public_key), client_random=Octets32(keys.random))
                self._connect(messages.Connect3(name=self.name, id=self.id, ciphers=message.ciphers, data=data))
            case HopState.KEYED, messages.Connect4() if self._initiator is not None:
                self._session = self._initiator.finish(Keys(message.data.public_key, message.data.server_random))
                self._initiator = None
                self.state = HopState.READY
            case HopState.READY, messages.Secure() if self._session is not None:
                inner = self._session.open(message.box, wire.parse)
                self._taken_since_sent += 1
                return inner
            case _:
                raise malformed(f"{type(message).__name__} in state {self.state.name}")
        return None

    def replied(self) -> None:
        """The reply to a list request has come, or is not waited for any longer."""
        self._reply_due = None

    @property
    def reply_due(self) -> float | None:
        """Until when nothing is sent, because a list reply is on its way."""
        return self._reply_due

    def send(self, message: messages.InnerMessage, outgoing: Outgoing | None = None) -> None:
        """Seal and write an inner message, now or as soon as that is possible.

        :param outgoing: the text that it carries, if it carries one.
        """
        self._waiting.append((wire.encode(message), outgoing))

    def flush(self) -> None:
        """Seal what waits, as far as the keys and the socket allow.

        Nothing follows a list request before its reply: the original server keeps no key but its last, and its reply
        and what we send would cross. Others need not be waited for so strictly, and may wait for us.
        """
        session = self._session
        while session is not None and self._waiting and session.can_seal and not self.congested:
            if self._reply_due is not None:
                if self._clock() < self._reply_due and self._taken_since_sent < BUSY_AFTER:
                    return
                self._reply_due = None
            inner, outgoing = self._waiting.popleft()
            if inner == _LIST:
                self._reply_due = self._clock() + REPLY_TIMEOUT
            frame = wire.secure_frame(session.seal(inner))
            self._taken_since_sent = 0
            self._write(frame, session.serial, outgoing)

    def _acknowledged(self) -> None:
        if not self._unacknowledged:
            return  # one too many proves nothing and changes nothing
        serial, outgoing = self._unacknowledged.popleft()
        if self._session is not None and serial > 1:
            # It goes out before the frame is processed: only the one before is known to count.
            self._session.received(serial - 1)
        if outgoing is not None and not outgoing.accepted:
            outgoing.accepted = True
            self._accepted(outgoing)

    def _connect(self, message: messages.Message) -> None:
        self._write(wire.encode(message), 0, None)

    def _write(self, frame: bytes, serial: int, outgoing: Outgoing | None) -> None:
        self.frames.append(frame)
        self._unacknowledged.append((serial, outgoing))
