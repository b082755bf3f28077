"""One conversation of the seed: its handshake, its session, what waits for it and what waits for acknowledgement."""

from __future__ import annotations

from collections import deque
from collections.abc import Set
from dataclasses import dataclass, field
from enum import Enum, auto

from sims.client.events import Contact, Delivery, State
from sims.crypto.seed import Box, Initiator, Responder, Session
from sims.errors import Code, PeerError
from sims.messages import SealedBox
from sims.wire import encode_text, parse_text

#: Texts received without one of ours after which an empty one is sent: the peer's end may be waiting to see its keys
#: used, and ours remembers what it received for one key.
TURN_AFTER = 64
#: Texts in a row that do not open, after which the conversation is ended: each may cost as much as a hundred good ones.
MAX_REFUSED = 8
#: How often a message is sent at most, when conversations are replaced or broken off before it was acknowledged.
MAX_ATTEMPTS = 3


class PeerState(Enum):
    """Where a handshake with a peer is. An older session may be there in every state."""

    IDLE = auto()
    OFFERED = auto()  # our phase 1 is out
    KEYED = auto()  # our phase 3 is out
    ANSWERED = auto()  # our phase 2 is out


@dataclass(slots=True, repr=False, eq=False)
class Outgoing:
    """A text of ours on its way."""

    id: str
    plaintext: bytes
    ref: str | int | None
    peer_id: int = 0
    serial: int = 0
    attempts: int = 0
    accepted: bool = False

    def event(self, to: Contact, state: Delivery, *, text: str | None = None, code: Code | None = None) -> State:
        """What the user hears of it."""
        return State(id=self.id, to=to, state=state, text=text, code=code, ref=self.ref)


@dataclass(slots=True, repr=False, eq=False)
class Peer:
    """What is known of one other client."""

    id: int
    state: PeerState = PeerState.IDLE
    session: Session | None = None
    replaced: Session | None = None  # what the session took the place of, until the first text comes on it
    initiator: Initiator | None = None
    responder: Responder | None = None
    deadline: float | None = None
    asked: list[str | int | None] = field(default_factory=list)  # refs of connects that wait
    queue: deque[Outgoing] = field(default_factory=deque)
    sent: deque[Outgoing] = field(default_factory=deque)  # sealed, and not acknowledged by the peer
    taken_since_sent: int = 0
    refused: int = 0  # texts in a row that did not open
    closing: list[str | int | None] = field(default_factory=list)  # refs of disconnects that wait

    @property
    def active(self) -> bool:
        """Whether there is a conversation, or one on its way."""
        return self.session is not None or self.state is not PeerState.IDLE or bool(self.queue)

    @property
    def under_way(self) -> int:
        """What was asked for and is not done."""
        return len(self.asked) + len(self.queue) + len(self.sent) + len(self.closing)

    def turn(self) -> Box | None:
        """An empty text under a new key, when so much came without an answer that keys should move on.

        Receivers do not acknowledge it.
        """
        due = self.taken_since_sent >= TURN_AFTER and not self.queue and self.state is PeerState.IDLE
        if not due or self.session is None or not self.session.can_seal:
            return None
        self.taken_since_sent = 0
        return self.session.seal(encode_text(""))

    def open(self, box: SealedBox) -> str:
        """The text in a box.

        :raises PeerError: when neither the session opens it nor the one that it has just replaced: an initiator may
            use that one until phase 4 has reached it.
        """
        if self.session is None:
            raise PeerError(Code.NOT_AUTHENTICATED, "there is no conversation")
        try:
            text = self.session.open(box, parse_text)
            self.replaced = None
        except PeerError:
            self.refused += 1
            if self.replaced is None:
                raise
            text = self.replaced.open(box, parse_text)
        self.taken_since_sent += 1
        self.refused = 0
        return text

    def opened(self, session: Session) -> list[Outgoing]:
        """Take a new session.

        :returns: what the old one carried and the peer never acknowledged. Nothing of ours goes out on an old session
            while a handshake is under way, so a peer that was here all the time has acknowledged whatever it received.
            One that was away may have shown these, and its acknowledgements may be lost.
        """
        self.replaced = self.session if self.state is PeerState.ANSWERED else None
        self.abandon()
        self.session = session
        self.taken_since_sent = self.refused = 0
        uncertain = list(self.sent)
        self.sent.clear()
        return uncertain

    def begin(
        self,
        state: PeerState,
        deadline: float,
        *,
        initiator: Initiator | None = None,
        responder: Responder | None = None,
    ) -> None:
        """A handshake starts, in the place of one that may be under way."""
        self.state = state
        if self.deadline is None or not (self.asked or self.queue):
            # Where something of ours waits, a peer that begins again and again does not put off its end.
            self.deadline = deadline
        self.initiator = initiator
        self.responder = responder

    def abandon(self) -> None:
        """Drop the handshake."""
        self.state = PeerState.IDLE
        self.initiator = self.responder = None
        self.deadline = None

    def closed(self) -> None:
        """Drop the session."""
        self.session = self.replaced = None

    def take_refs(self) -> list[str | int | None]:
        """The refs of those who wait for this conversation: of the connects, else of the first text that has one."""
        first = next((message.ref for message in [*self.sent, *self.queue] if message.ref is not None), None)
        refs = self.asked or [first]
        self.asked = []
        return refs

    def take_closing(self) -> list[str | int | None]:
        """The refs of those who wait for the end of this conversation."""
        refs, self.closing = self.closing, []
        return refs

    def seal_next(self, session: Session) -> tuple[Outgoing, Box]:
        """Take the first of the queue and seal it."""
        message = self.queue.popleft()
        box = session.seal(message.plaintext)
        message.peer_id = self.id
        message.serial = session.serial
        message.attempts += 1
        self.sent.append(message)
        self.taken_since_sent = 0
        return message, box

    def reset(self, unwritten: Set[Outgoing]) -> list[Outgoing]:
        """The connection is gone, and with it the handshake and the session; what was not written goes on waiting.

        :returns: what was written and not acknowledged.
        """
        self.abandon()
        self.closed()
        self.queue.extendleft(reversed([message for message in self.sent if message in unwritten]))
        uncertain = [message for message in self.sent if message not in unwritten]
        self.sent.clear()
        return uncertain

    def acknowledged(self) -> Outgoing | None:
        """The peer has acknowledged one message: the one sent first, as the format names none."""
        if not self.sent:
            return None
        message = self.sent.popleft()
        if self.session is not None:
            self.session.received(message.serial)
        return message

    def unreceived(self) -> tuple[list[Outgoing], list[Outgoing]]:
        """Take out what the peer has not acknowledged: (worth another attempt, tried often enough)."""
        again = [message for message in self.sent if message.attempts < MAX_ATTEMPTS]
        lost = [message for message in self.sent if message.attempts >= MAX_ATTEMPTS]
        self.sent.clear()
        return again, lost
