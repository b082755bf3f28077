"""The user's end of the seed's format: one session with the server, a conversation for each peer. No reactor.

Frames and commands in, frames and events out: ``hop.frames`` and :attr:`SeedMessenger.events` fill up and are emptied
by whoever drives it (:mod:`sims.client.connection`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial

from msgspec import UNSET

from sims import messages, specs, wire
from sims.client import events
from sims.client.events import Contact, Delivery
from sims.client.seed_hop import HopState, SeedHop
from sims.client.seed_names import Names, Ref
from sims.client.seed_peer import Outgoing
from sims.client.seed_peers import Peers
from sims.crypto.primitives import Entropy, SystemEntropy
from sims.errors import Code, LocalError, SimsError
from sims.specs import CipherSpec

#: Seconds for a conversation's four phases.
OPEN_TIMEOUT = 10.0
#: Conversations, open and on their way, beyond which the oldest idle one is closed when somebody opens another.
MAX_PEERS = 1024


class SeedMessenger:
    """One user of the seed's format.

    :ivar hop: the session with the server; its ``frames`` are to be written.
    :ivar events: what happened, in order.
    """

    def __init__(
        self,
        name: str,
        own_id: int,
        *,
        clock: Callable[[], float],
        entropy: Entropy | None = None,
        offer: Sequence[CipherSpec] = specs.SEED_OFFER,
        allowed: Sequence[CipherSpec] = specs.SEED,
    ) -> None:
        self.name = name
        self.id = own_id
        self.events: deque[events.Event] = deque()
        self._clock = clock
        self._entropy = entropy or SystemEntropy()
        self.hop = SeedHop(name, own_id, offer, self._entropy, clock=clock, accepted=self._accepted)
        self._names = Names(own_id, lambda: self.hop.send(messages.ListRequest()))
        self._peers = Peers(
            self.hop, self._names, self.events, self._entropy, clock, offer, allowed, most=MAX_PEERS, wait=OPEN_TIMEOUT
        )
        self._commands: deque[Callable[[], None]] = deque()  # wait for the session, or for a name before them

    def __repr__(self) -> str:
        return f"<seed messenger {self.id} {self.hop.state.name}>"

    # --- the connection -----------------------------------------------------------------------------------------------

    @property
    def frames(self) -> deque[bytes]:
        """To be written, without terminators."""
        return self.hop.frames

    @property
    def ready(self) -> events.Ready | None:
        """Said when the handshake with the server is through; None while it is not."""
        spec = self.hop.spec
        if spec is None or self.hop.state is not HopState.READY:
            return None
        return events.Ready(id=str(self.id), name=self.name, spec=spec.name)

    @property
    def waiting(self) -> int:
        """How many messages wait for the server to take them."""
        return self.hop.waiting

    def slowed(self, congested: bool) -> None:
        """The way to the server is behind, or has caught up."""
        self.hop.congested = congested
        if not congested:
            self.flush()

    def settle(self) -> None:
        """Nothing of the seed's outlives the process."""

    def connected(self, binding: bytes = b"") -> None:
        """A new connection to the server is there; the format has no way to tie a handshake to it."""
        self.hop.connected()

    def lost(self) -> None:
        """The connection is gone.

        What was not written waits for the next one. What was written and not acknowledged by the peer may have arrived
        or not, and the format has no way to tell: it fails, and says so.
        """
        if self.hop.state is HopState.READY:
            self.events.append(events.Offline())
        unwritten = self.hop.lost()
        self._commands.extendleft(partial(self._ask, ref) for ref in reversed(self._names.lost()))
        self._peers.lost(unwritten)

    def receive(self, frame: bytes) -> None:
        """One frame from the server.

        :raises PeerError: the connection is to be closed; what is wrong with a conversation becomes an event instead.
        """
        was_ready = self.hop.state is HopState.READY
        inner = self.hop.receive(frame)
        if inner is not None:
            try:
                self._inner(wire.from_server(inner))
            except SimsError as error:
                self._problem(error)
            if self.hop.turn_due:
                self._names.ask()
            self._run_commands()
        elif self.hop.spec is not None and not was_ready:
            self.events.append(events.Ready(id=str(self.id), name=self.name, spec=self.hop.spec.name))
            # As the original client does: the original server takes this client's keys from its first secure frame.
            self._names.ask()
            self._run_commands()
        self.flush()

    def flush(self) -> None:
        """Seal what waits, as far as keys and socket allow."""
        self._peers.flush()
        self.hop.flush()

    def tick(self) -> float | None:
        """Give up what has waited too long; gives the time at which to call again, if anything still waits."""
        now = self._clock()
        deadlines = [self._peers.tick(now)]
        if self.hop.waiting and self.hop.reply_due is not None:
            if self.hop.reply_due <= now:
                self.hop.replied()
                self.hop.flush()
            deadlines.append(self.hop.reply_due)
        return min((deadline for deadline in deadlines if deadline is not None), default=None)

    @property
    def under_way(self) -> int:
        """How much is not done of what was asked for: handshakes, lists, texts that the peer has not acknowledged."""
        return self._peers.under_way + self.hop.waiting + self._names.under_way + len(self._commands)

    @property
    def unsent(self) -> int:
        """How much waits to be sealed: what a driver bounds, by reading its input more slowly."""
        return self._peers.queued + self.hop.waiting + self._names.waiting + len(self._commands)

    # --- commands -----------------------------------------------------------------------------------------------------

    def list(self, ref: Ref = None) -> None:
        """Ask who is there; a :class:`~sims.client.events.Listing` answers."""
        self._when_ready(partial(self._ask, ref))

    def connect(self, to: str, ref: Ref = None) -> None:
        """Open a conversation with an id or a name; :class:`~sims.client.events.Connected` answers, or a problem."""

        def found(peer_id: int) -> None:
            self._peers.connect(peer_id, ref)

        self._when_ready(lambda: self._names.resolve(to, found, lambda error: self._problem(error, ref)))

    def send(self, to: str, text: str, ref: Ref = None) -> str:
        """Send a text to an id or a name, after opening a conversation if there is none.

        :returns: the id that the message's states will name.
        :raises LocalError: ``malformed`` for an empty text (the format cannot acknowledge it) or one that is no
            Unicode, ``too-large`` for one whose JSON string is longer than :data:`~sims.wire.MAX_TEXT`.
        """
        message = Outgoing(id=self._entropy.octets(8).hex(), plaintext=_plaintext(text), ref=ref)

        def found(peer_id: int) -> None:
            self._peers.send(peer_id, message)

        def failed(error: SimsError) -> None:
            self.events.append(message.event(Contact("", to), Delivery.FAILED, code=error.code))
            self._problem(error, ref)

        self.events.append(message.event(self._names.contact_of(to), Delivery.QUEUED, text=text))
        self._when_ready(lambda: self._names.resolve(to, found, failed))
        return message.id

    def disconnect(self, to: str, ref: Ref = None) -> None:
        """Close a conversation, after what was sent to it before."""

        def found(peer_id: int) -> None:
            self._peers.disconnect(peer_id, ref)

        self._when_ready(lambda: self._names.resolve(to, found, lambda error: self._problem(error, ref)))

    def conversations(self) -> tuple[Contact, ...]:
        """Whom there is an open conversation with."""
        return self._peers.contacts()

    # --- what the server says -----------------------------------------------------------------------------------------

    def _inner(self, message: messages.FromServer) -> None:
        if isinstance(message, messages.ListReply):
            self.hop.replied()
            request = self._names.received(message)
            if request.asked:
                clients = tuple(Contact(str(entry.id), entry.name) for entry in message.data)
                self.events.append(events.Listing(clients=clients, ref=request.ref))
        elif isinstance(message, messages.Error) and message.src is UNSET:
            self._peers.refused(message)
        else:
            self._peers.receive(message)

    def _accepted(self, message: Outgoing) -> None:
        self.events.append(message.event(self._names.contact(message.peer_id), Delivery.ACCEPTED))

    # --- within -------------------------------------------------------------------------------------------------------

    def _when_ready(self, act: Callable[[], None]) -> None:
        self._commands.append(act)
        self._run_commands()
        self.flush()

    def _ask(self, ref: Ref) -> None:
        self._names.ask(ref, asked=True)

    def _run_commands(self) -> None:
        """Carry out commands in their order: those behind one that waits for a name wait, too."""
        while self._commands and self.hop.state is HopState.READY and not self._names.waiting:
            self._commands.popleft()()

    def _problem(self, error: SimsError, ref: Ref = None) -> None:
        self.events.append(events.Problem(code=error.code, text=error.text, ref=ref))


def _plaintext(text: str) -> bytes:
    if not text:
        raise LocalError(Code.MALFORMED, "an empty text is not sent")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise LocalError(Code.MALFORMED, "the text holds half a character") from None
    plaintext = wire.encode_text(text)
    if len(plaintext) > wire.MAX_TEXT:
        raise LocalError(Code.TOO_LARGE, f"a text of {len(plaintext)} bytes, more than {wire.MAX_TEXT}")
    return plaintext
