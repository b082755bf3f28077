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
from sims.client.seed_names import Names
from sims.client.seed_peer import MAX_REFUSED, Outgoing, Peer, PeerState
from sims.crypto.primitives import Entropy, SystemEntropy
from sims.crypto.seed import End, Initiator, Keys, Responder, Session
from sims.errors import Code, LocalError, PeerError, SimsError, UnavailableError, malformed
from sims.specs import CipherSpec
from sims.strictjson import Octets32, Pem

Ref = str | int | None

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
        self._offer = tuple(offer)
        self._allowed = tuple(allowed)
        self.hop = SeedHop(name, own_id, offer, self._entropy, clock=clock, accepted=self._accepted)
        self._names = Names(own_id, lambda: self.hop.send(messages.ListRequest()))
        self._peers: dict[int, Peer] = {}
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
        for peer in list(self._peers.values()):
            for message in peer.reset(unwritten):
                self._fail(peer, message, Code.UNAVAILABLE)
            if not peer.queue and not peer.asked:
                self._say_disconnected(peer, peer.take_closing())

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
        for peer in list(self._peers.values()):
            self._flush_peer(peer)
        self.hop.flush()

    def tick(self) -> float | None:
        """Give up what has waited too long; gives the time at which to call again, if anything still waits."""
        now = self._clock()
        for peer in list(self._peers.values()):
            if peer.deadline is not None and peer.deadline <= now:
                self._give_up(peer, UnavailableError(f"{peer.id} did not answer within {OPEN_TIMEOUT:.0f} seconds"))
        deadlines = [peer.deadline for peer in self._peers.values()]
        if self.hop.waiting and self.hop.reply_due is not None:
            if self.hop.reply_due <= now:
                self.hop.replied()
                self.hop.flush()
            deadlines.append(self.hop.reply_due)
        return min((deadline for deadline in deadlines if deadline is not None), default=None)

    @property
    def under_way(self) -> int:
        """How much is not done of what was asked for: handshakes, lists, texts that the peer has not acknowledged."""
        peers = sum(peer.under_way for peer in self._peers.values())
        return peers + self.hop.waiting + self._names.under_way + len(self._commands)

    @property
    def unsent(self) -> int:
        """How much waits to be sealed: what a driver bounds, by reading its input more slowly."""
        queued = sum(len(peer.queue) for peer in self._peers.values())
        return queued + self.hop.waiting + self._names.waiting + len(self._commands)

    # --- commands -----------------------------------------------------------------------------------------------------

    def list(self, ref: Ref = None) -> None:
        """Ask who is there; a :class:`~sims.client.events.Listing` answers."""
        self._when_ready(partial(self._ask, ref))

    def connect(self, to: str, ref: Ref = None) -> None:
        """Open a conversation with an id or a name; :class:`~sims.client.events.Connected` answers, or a problem."""

        def found(peer_id: int) -> None:
            peer = self._peer(peer_id)
            if peer.session is not None and peer.state is PeerState.IDLE:
                self._say_connected(peer_id, peer.session, ref)
            else:
                peer.asked.append(ref)
                self._begin(peer)

        self._when_ready(lambda: self._names.resolve(to, found, lambda error: self._problem(error, ref)))

    def send(self, to: str, text: str, ref: Ref = None) -> str:
        """Send a text to an id or a name, after opening a conversation if there is none.

        :returns: the id that the message's states will name.
        :raises LocalError: ``malformed`` for an empty text (the format cannot acknowledge it) or one that is no
            Unicode, ``too-large`` for one whose JSON string is longer than :data:`~sims.wire.MAX_TEXT`.
        """
        message = Outgoing(id=self._entropy.octets(8).hex(), plaintext=_plaintext(text), ref=ref)

        def found(peer_id: int) -> None:
            self._peer(peer_id).queue.append(message)

        def failed(error: SimsError) -> None:
            self._state(Contact("", to), message, Delivery.FAILED, code=error.code)
            self._problem(error, ref)

        self._state(self._names.contact_of(to), message, Delivery.QUEUED, text=text)
        self._when_ready(lambda: self._names.resolve(to, found, failed))
        return message.id

    def disconnect(self, to: str, ref: Ref = None) -> None:
        """Close a conversation, after what was sent to it before."""

        def found(peer_id: int) -> None:
            peer = self._peers.get(peer_id)
            if peer is None or not peer.active:
                self._problem(LocalError(Code.UNKNOWN_RECIPIENT, f"there is no conversation with {peer_id}"), ref)
            else:
                peer.closing.append(ref)

        self._when_ready(lambda: self._names.resolve(to, found, lambda error: self._problem(error, ref)))

    def conversations(self) -> tuple[Contact, ...]:
        """Whom there is an open conversation with."""
        return tuple(self._names.contact(peer.id) for peer in self._peers.values() if peer.session is not None)

    # --- what the server says -----------------------------------------------------------------------------------------

    def _inner(self, message: messages.FromServer) -> None:
        if isinstance(message, messages.ListReply):
            self.hop.replied()
            request = self._names.received(message)
            if request.asked:
                clients = tuple(Contact(str(entry.id), entry.name) for entry in message.data)
                self.events.append(events.Listing(clients=clients, ref=request.ref))
        elif isinstance(message, messages.Error) and message.src is UNSET:
            self._refused(message)
        else:
            self._from_peer(message)

    def _refused(self, message: messages.Error) -> None:
        code = _code(message.code)
        peer = self._peers.get(wire.as_id(message.dst)) if isinstance(message.dst, int | str) else None
        if code is Code.UNKNOWN_RECIPIENT and peer is not None:
            self._gone(peer, PeerError(code, f"{peer.id} is not connected to the server"))
        elif code is not Code.UNKNOWN_RECIPIENT:
            self._problem(PeerError(code, "the server refused a message"))

    def _accepted(self, message: Outgoing) -> None:
        self._state(self._names.contact(message.peer_id), message, Delivery.ACCEPTED)

    # --- what a peer says ---------------------------------------------------------------------------------------------

    def _from_peer(self, message: messages.Relayed | messages.Error) -> None:
        peer_id = _endpoint(message.src)
        if _endpoint(message.dst) != self.id or peer_id == self.id:
            raise malformed("a message whose ends are not a peer and this client")
        peer = self._peers.get(peer_id)
        match message:
            case messages.ClientCom():
                self._text(peer_id, peer, message)
            case messages.ClientConnect1():
                self._answer(peer_id, peer, message)
            case messages.ClientConnect2() | messages.ClientConnect3() | messages.ClientConnect4():
                self._phase(peer_id, peer, message)
            case messages.ClientAck() if peer is not None:
                acknowledged = peer.acknowledged()
                if acknowledged is not None:
                    self._state(self._names.contact(peer_id), acknowledged, Delivery.DELIVERED)
            case messages.ClientDisconnect() if peer is not None:
                self._peer_disconnected(peer)
            case messages.Error() if peer is not None and peer.state is not PeerState.IDLE:
                self._give_up(peer, PeerError(_code(message.code), f"{peer_id} refused the conversation"))

    def _answer(self, peer_id: int, peer: Peer | None, message: messages.ClientConnect1) -> None:
        if peer is not None and peer.state is PeerState.OFFERED and self.id < peer_id:
            return  # both opened at once, and the lower id stays the initiator
        if peer is None and len(self._peers) >= MAX_PEERS:
            self._make_room()
        responder = Responder(End.PEER, self._allowed, self._entropy)
        try:
            spec = responder.answer(message.ciphers)
        except PeerError as error:
            self.hop.send(messages.Error(code=error.code, src=self.id, dst=message.src))
            raise
        self._names.learn(peer_id)
        peer = self._peer(peer_id)
        peer.begin(PeerState.ANSWERED, self._clock() + OPEN_TIMEOUT, responder=responder)
        self.hop.send(messages.ClientConnect2(src=message.dst, dst=message.src, ciphers=spec.name))

    def _phase(self, peer_id: int, peer: Peer | None, message: messages.ClientConnect) -> None:
        match peer, message:
            case Peer(state=PeerState.OFFERED, initiator=Initiator() as initiator), messages.ClientConnect2():
                try:
                    keys = initiator.choose(message.ciphers)
                except PeerError as error:
                    self._give_up(peer, error)
                    return
                peer.state = PeerState.KEYED
                name, data = message.ciphers, _peer_keys(keys)
                self.hop.send(messages.ClientConnect3(src=message.dst, dst=message.src, ciphers=name, data=data))
            case Peer(state=PeerState.KEYED, initiator=Initiator() as initiator), messages.ClientConnect4():
                self._open(peer, initiator.finish(Keys(message.data.public_key, message.data.random)))
            case Peer(state=PeerState.ANSWERED, responder=Responder() as responder), messages.ClientConnect3():
                given = Keys(message.data.public_key, message.data.random)
                keys, session = responder.accept(message.ciphers, given)
                self.hop.send(messages.ClientConnect4(src=message.dst, dst=message.src, data=_peer_keys(keys)))
                self._open(peer, session)
            case _:
                state = peer.state.name if peer is not None else "no conversation"
                raise malformed(f"client-connect {message.phase} from {peer_id} in state {state}")

    def _text(self, peer_id: int, peer: Peer | None, message: messages.ClientCom) -> None:
        if peer is None or (peer.session is None and peer.state is PeerState.IDLE):
            # The peer believes in a conversation that is not there: so it learns, and can open one.
            self.hop.send(messages.ClientDisconnect(src=self.id, dst=str(peer_id)))
            return
        if peer.session is None:
            return  # of a conversation before this one
        try:
            text = peer.open(message.data)
        except PeerError:
            if peer.refused >= MAX_REFUSED:
                self.hop.send(messages.ClientDisconnect(src=self.id, dst=str(peer_id)))
                self._closed(peer)
            raise
        if text:  # an empty one only moves keys on
            self.hop.send(messages.ClientAck(src=self.id, dst=peer_id))
            event_id = self._entropy.octets(8).hex()
            self.events.append(events.Message(sender=self._names.contact(peer_id), text=text, id=event_id))
        turn = peer.turn()
        if turn is not None:
            self.hop.send(messages.ClientCom(src=self.id, dst=str(peer_id), data=messages.SealedBox.of(turn)))

    def _peer_disconnected(self, peer: Peer) -> None:
        if peer.state in (PeerState.KEYED, PeerState.ANSWERED):
            self._give_up(peer, PeerError(Code.UNAVAILABLE, f"{peer.id} broke off"))
        # What the peer did not acknowledge before this it has not received, and it goes out again, in a new one; unless
        # the peer has lost this conversation with its connection, and with that perhaps its last acknowledgements.
        again, lost = peer.unreceived()
        peer.queue.extendleft(reversed(again))
        if peer.session is not None:
            self._closed(peer)
        for message in lost:
            self._fail(peer, message, Code.UNAVAILABLE)

    # --- conversations ------------------------------------------------------------------------------------------------

    def _begin(self, peer: Peer) -> None:
        """Send phase 1, unless a handshake with this peer is under way."""
        if peer.state is not PeerState.IDLE:
            return
        self._names.learn(peer.id)
        initiator = Initiator(End.PEER, self._offer, self._entropy)
        peer.begin(PeerState.OFFERED, self._clock() + OPEN_TIMEOUT, initiator=initiator)
        self.hop.send(messages.ClientConnect1(src=self.id, dst=str(peer.id), ciphers=initiator.offer()))

    def _open(self, peer: Peer, session: Session) -> None:
        """The four phases are through: the new session takes the place of what was there."""
        refs = peer.take_refs()
        for message in peer.opened(session):
            self._fail(peer, message, Code.UNAVAILABLE)
        for ref in refs:
            self._say_connected(peer.id, session, ref)

    def _flush_peer(self, peer: Peer) -> None:
        if self.hop.state is not HopState.READY or peer.state is not PeerState.IDLE:
            return
        if not peer.active and not peer.under_way:
            del self._peers[peer.id]
            return
        session = peer.session
        if session is None:
            if peer.queue or peer.asked:
                self._begin(peer)
            return
        while peer.queue and session.can_seal and not self.hop.congested:
            message, box = peer.seal_next(session)
            self.hop.send(messages.ClientCom(src=self.id, dst=str(peer.id), data=messages.SealedBox.of(box)), message)
        if peer.closing and not peer.queue:
            self.hop.send(messages.ClientDisconnect(src=self.id, dst=str(peer.id)))
            self._closed(peer)

    def _make_room(self) -> None:
        """Close the oldest conversation in which nothing is under way: its peer can open it again.

        :raises LocalError: ``unavailable``, when there is none.
        """
        for peer in self._peers.values():
            if peer.state is PeerState.IDLE and not peer.under_way:
                del self._peers[peer.id]
                if peer.session is not None:
                    self._closed(peer)
                return
        raise LocalError(Code.UNAVAILABLE, f"more than {MAX_PEERS} conversations")

    def _closed(self, peer: Peer) -> None:
        """The conversation is over. Whoever asked for that hears it now, or after what is still to be sent before."""
        peer.closed()
        self._say_disconnected(peer, (not peer.queue and peer.take_closing()) or [None])

    def _give_up(self, peer: Peer, error: SimsError) -> None:
        """A handshake has failed. An older conversation goes on; without one, what waited for it fails."""
        refs = peer.take_refs()
        peer.abandon()
        for ref in refs:
            self._problem(error, ref)
        if peer.session is None:
            for message in [*peer.sent, *peer.queue]:
                self._fail(peer, message, error.code)
            peer.sent.clear()
            peer.queue.clear()
            for ref in peer.closing:
                self._problem(error, ref)
            del self._peers[peer.id]

    def _gone(self, peer: Peer, error: PeerError) -> None:
        """The server says that the peer is not there: nothing that waits for it can arrive."""
        self._names.forget(peer.id)
        waiting = [*peer.sent, *peer.queue]
        if peer.state is not PeerState.IDLE or waiting:
            for ref in peer.take_refs():
                self._problem(error, ref)
        for message in waiting:
            self._fail(peer, message, error.code)
        del self._peers[peer.id]
        peer.queue.clear()
        if peer.session is not None:
            self._closed(peer)
        for ref in peer.take_closing():
            self._problem(error, ref)

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

    def _peer(self, peer_id: int) -> Peer:
        return self._peers.setdefault(peer_id, Peer(peer_id))

    def _say_connected(self, peer_id: int, session: Session, ref: Ref) -> None:
        self.events.append(events.Connected(peer=self._names.contact(peer_id), spec=session.spec.name, ref=ref))

    def _say_disconnected(self, peer: Peer, refs: Sequence[Ref]) -> None:
        contact = self._names.contact(peer.id)
        self.events.extend(events.Disconnected(peer=contact, ref=ref) for ref in refs)

    def _state(
        self, to: Contact, message: Outgoing, state: Delivery, *, text: str | None = None, code: Code | None = None
    ) -> None:
        self.events.append(events.State(id=message.id, to=to, state=state, text=text, code=code, ref=message.ref))

    def _fail(self, peer: Peer, message: Outgoing, code: Code) -> None:
        message.accepted = True  # whatever the server says of it yet, it comes too late
        self._state(self._names.contact(peer.id), message, Delivery.FAILED, code=code)

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


def _peer_keys(keys: Keys) -> messages.PeerKeys:
    return messages.PeerKeys(public_key=Pem(keys.public_key), random=Octets32(keys.random))


def _endpoint(value: object) -> int:
    if not isinstance(value, int | str):
        raise malformed("a message without src and dst")
    return wire.as_id(value)


def _code(text: str) -> Code:
    try:
        return Code(text)
    except ValueError:
        return Code.INTERNAL
