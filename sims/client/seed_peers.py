"""All conversations of one user of the seed's format: who opens and closes them, and what is said in them. No reactor.

A :class:`~sims.client.seed_peer.Peer` is the state of one; here is what each command, each message and each moment does
to it, what is sent for that, and what the user hears.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence, Set

from sims import messages, wire
from sims.client import events
from sims.client.events import Contact, Delivery
from sims.client.seed_hop import HopState, SeedHop
from sims.client.seed_names import Names, Ref
from sims.client.seed_peer import MAX_REFUSED, Outgoing, Peer, PeerState
from sims.crypto.primitives import Entropy
from sims.crypto.seed import End, Initiator, Keys, Responder, Session
from sims.errors import Code, LocalError, PeerError, SimsError, UnavailableError, malformed
from sims.specs import CipherSpec
from sims.strictjson import Octets32, Pem


class Peers:
    """The other clients that there is or may soon be a conversation with, by their ids.

    :param happened: the user's events; what happens here is added to them.
    :param offer: specs to offer, in order of preference; ``allowed``: those to agree to when a peer offers.
    :param most: how many there are at most; beyond that, the oldest idle one is closed when somebody opens another.
    :param wait: seconds for a conversation's four phases.
    """

    def __init__(
        self,
        hop: SeedHop,
        names: Names,
        happened: deque[events.Event],
        entropy: Entropy,
        clock: Callable[[], float],
        offer: Sequence[CipherSpec],
        allowed: Sequence[CipherSpec],
        *,
        most: int,
        wait: float,
    ) -> None:
        self._id = hop.id
        self._hop = hop
        self._names = names
        self._events = happened
        self._entropy = entropy
        self._clock = clock
        self._offer = tuple(offer)
        self._allowed = tuple(allowed)
        self._most = most
        self._wait = wait
        self._peers: dict[int, Peer] = {}

    def __repr__(self) -> str:
        return f"<{len(self)} conversations>"

    def __len__(self) -> int:
        return len(self._peers)

    def get(self, peer_id: int) -> Peer | None:
        """What there is with this client, if there is anything."""
        return self._peers.get(peer_id)

    @property
    def under_way(self) -> int:
        """How much is not done of what was asked for: connects, texts that are not acknowledged, disconnects."""
        return sum(peer.under_way for peer in self._peers.values())

    @property
    def queued(self) -> int:
        """How many texts wait to be sealed."""
        return sum(len(peer.queue) for peer in self._peers.values())

    def contacts(self) -> tuple[Contact, ...]:
        """Whom there is an open conversation with."""
        return tuple(self._names.contact(peer.id) for peer in self._peers.values() if peer.session is not None)

    # --- what the user asks for ---------------------------------------------------------------------------------------

    def connect(self, peer_id: int, ref: Ref) -> None:
        """Open a conversation, or say that it is open."""
        peer = self._peer(peer_id)
        if peer.session is not None and peer.state is PeerState.IDLE:
            self._say_connected(peer_id, peer.session, ref)
        else:
            peer.asked.append(ref)
            self._begin(peer)

    def send(self, peer_id: int, message: Outgoing) -> None:
        """Send a text with the next :meth:`flush`, or when there is a conversation."""
        self._peer(peer_id).queue.append(message)

    def disconnect(self, peer_id: int, ref: Ref) -> None:
        """Close a conversation with the next :meth:`flush`, after what was sent to it before."""
        peer = self.get(peer_id)
        if peer is None or not peer.active:
            self._problem(LocalError(Code.UNKNOWN_RECIPIENT, f"there is no conversation with {peer_id}"), ref)
        else:
            peer.closing.append(ref)

    # --- what comes ---------------------------------------------------------------------------------------------------

    def refused(self, message: messages.Error) -> None:
        """The server has refused a message of ours to the client that this names."""
        code = _code(message.code)
        peer = self.get(wire.as_id(message.dst)) if isinstance(message.dst, int | str) else None
        if code is Code.UNKNOWN_RECIPIENT and peer is not None:
            self._gone(peer, PeerError(code, f"{peer.id} is not connected to the server"))
        elif code is not Code.UNKNOWN_RECIPIENT:
            self._problem(PeerError(code, "the server refused a message"))

    def receive(self, message: messages.Relayed | messages.Error) -> None:
        """What a peer says (seed.rst, "States of a conversation").

        :raises SimsError: it is refused; the connection to the server stays.
        """
        peer_id = _endpoint(message.src)
        if _endpoint(message.dst) != self._id or peer_id == self._id:
            raise malformed("a message whose ends are not a peer and this client")
        peer = self.get(peer_id)
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
                    self._events.append(acknowledged.event(self._names.contact(peer_id), Delivery.DELIVERED))
            case messages.ClientDisconnect() if peer is not None:
                self._peer_disconnected(peer)
            case messages.Error() if peer is not None and peer.state is not PeerState.IDLE:
                self._give_up(peer, PeerError(_code(message.code), f"{peer_id} refused the conversation"))

    def _answer(self, peer_id: int, peer: Peer | None, message: messages.ClientConnect1) -> None:
        if peer is not None and peer.state is PeerState.OFFERED and self._id < peer_id:
            return  # both opened at once, and the lower id stays the initiator
        if peer is None and len(self) >= self._most:
            self._make_room()
        responder = Responder(End.PEER, self._allowed, self._entropy)
        try:
            spec = responder.answer(message.ciphers)
        except PeerError as error:
            self._hop.send(messages.Error(code=error.code, src=self._id, dst=message.src))
            raise
        self._names.learn(peer_id)
        peer = self._peer(peer_id)
        peer.begin(PeerState.ANSWERED, self._clock() + self._wait, responder=responder)
        self._hop.send(messages.ClientConnect2(src=message.dst, dst=message.src, ciphers=spec.name))

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
                self._hop.send(messages.ClientConnect3(src=message.dst, dst=message.src, ciphers=name, data=data))
            case Peer(state=PeerState.KEYED, initiator=Initiator() as initiator), messages.ClientConnect4():
                self._open(peer, initiator.finish(Keys(message.data.public_key, message.data.random)))
            case Peer(state=PeerState.ANSWERED, responder=Responder() as responder), messages.ClientConnect3():
                given = Keys(message.data.public_key, message.data.random)
                keys, session = responder.accept(message.ciphers, given)
                self._hop.send(messages.ClientConnect4(src=message.dst, dst=message.src, data=_peer_keys(keys)))
                self._open(peer, session)
            case _:
                state = peer.state.name if peer is not None else "no conversation"
                raise malformed(f"client-connect {message.phase} from {peer_id} in state {state}")

    def _text(self, peer_id: int, peer: Peer | None, message: messages.ClientCom) -> None:
        if peer is None or (peer.session is None and peer.state is PeerState.IDLE):
            # The peer believes in a conversation that is not there: so it learns, and can open one.
            self._hop.send(messages.ClientDisconnect(src=self._id, dst=str(peer_id)))
            return
        if peer.session is None:
            return  # of a conversation before this one
        try:
            text = peer.open(message.data)
        except PeerError:
            if peer.refused >= MAX_REFUSED:
                self._hop.send(messages.ClientDisconnect(src=self._id, dst=str(peer_id)))
                self._closed(peer)
            raise
        if text:  # an empty one only moves keys on
            self._hop.send(messages.ClientAck(src=self._id, dst=peer_id))
            event_id = self._entropy.octets(8).hex()
            self._events.append(events.Message(sender=self._names.contact(peer_id), text=text, id=event_id))
        turn = peer.turn()
        if turn is not None:
            self._hop.send(messages.ClientCom(src=self._id, dst=str(peer_id), data=messages.SealedBox.of(turn)))

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

    # --- the connection and the time ----------------------------------------------------------------------------------

    def lost(self, unwritten: Set[Outgoing]) -> None:
        """The connection to the server is gone, and all sessions with it: texts that were not written go on waiting."""
        for peer in list(self._peers.values()):
            for message in peer.reset(unwritten):
                self._fail(peer, message, Code.UNAVAILABLE)
            if not peer.queue and not peer.asked:
                self._say_disconnected(peer, peer.take_closing())

    def flush(self) -> None:
        """Seal what waits, as far as keys and socket allow; forget whom there is nothing with any more."""
        for peer in list(self._peers.values()):
            self._flush_peer(peer)

    def tick(self, now: float) -> float | None:
        """Give up the handshakes that took too long; gives the time at which the next one has."""
        for peer in list(self._peers.values()):
            if peer.deadline is not None and peer.deadline <= now:
                self._give_up(peer, UnavailableError(f"{peer.id} did not answer within {self._wait:.0f} seconds"))
        deadlines = [peer.deadline for peer in self._peers.values()]
        return min((deadline for deadline in deadlines if deadline is not None), default=None)

    # --- one conversation ---------------------------------------------------------------------------------------------

    def _begin(self, peer: Peer) -> None:
        """Send phase 1, unless a handshake with this peer is under way."""
        if peer.state is not PeerState.IDLE:
            return
        self._names.learn(peer.id)
        initiator = Initiator(End.PEER, self._offer, self._entropy)
        peer.begin(PeerState.OFFERED, self._clock() + self._wait, initiator=initiator)
        self._hop.send(messages.ClientConnect1(src=self._id, dst=str(peer.id), ciphers=initiator.offer()))

    def _open(self, peer: Peer, session: Session) -> None:
        """The four phases are through: the new session takes the place of what was there."""
        refs = peer.take_refs()
        for message in peer.opened(session):
            self._fail(peer, message, Code.UNAVAILABLE)
        for ref in refs:
            self._say_connected(peer.id, session, ref)

    def _flush_peer(self, peer: Peer) -> None:
        if self._hop.state is not HopState.READY or peer.state is not PeerState.IDLE:
            return
        if not peer.active and not peer.under_way:
            del self._peers[peer.id]
            return
        session = peer.session
        if session is None:
            if peer.queue or peer.asked:
                self._begin(peer)
            return
        while peer.queue and session.can_seal and not self._hop.congested:
            message, box = peer.seal_next(session)
            self._hop.send(messages.ClientCom(src=self._id, dst=str(peer.id), data=messages.SealedBox.of(box)), message)
        if peer.closing and not peer.queue:
            self._hop.send(messages.ClientDisconnect(src=self._id, dst=str(peer.id)))
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
        raise LocalError(Code.UNAVAILABLE, f"more than {self._most} conversations")

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

    def _peer(self, peer_id: int) -> Peer:
        return self._peers.setdefault(peer_id, Peer(peer_id))

    def _say_connected(self, peer_id: int, session: Session, ref: Ref) -> None:
        self._events.append(events.Connected(peer=self._names.contact(peer_id), spec=session.spec.name, ref=ref))

    def _say_disconnected(self, peer: Peer, refs: Sequence[Ref]) -> None:
        contact = self._names.contact(peer.id)
        self._events.extend(events.Disconnected(peer=contact, ref=ref) for ref in refs)

    def _fail(self, peer: Peer, message: Outgoing, code: Code) -> None:
        message.accepted = True  # whatever the server says of it yet, it comes too late
        self._events.append(message.event(self._names.contact(peer.id), Delivery.FAILED, code=code))

    def _problem(self, error: SimsError, ref: Ref = None) -> None:
        self._events.append(events.Problem(code=error.code, text=error.text, ref=ref))


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
