"""Everything that is kept about one person, as one value: sessions, own stream, order of theirs, newest bundle seen.

::

    changed = conversation.copy()                   costs next to nothing
    content = changed.text("hello", id, now)        the bytes of the next content
    sent = changed.seal(content, entropy)           what goes out, and on which session
    store(changed.dump(), sent)                     one transaction: state and outbox
    conversation = changed                          and only then

So for what comes, with a copy of one's own prekeys beside it: what ``open`` refuses is committed as unreadable, what it
gives is committed with the copies' dumps, then acknowledged. Every refusal leaves a conversation as it was, and draws
no randomness.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from msgspec.structs import replace

from sims.crypto import content as contents
from sims.crypto import stored
from sims.crypto.content import Arrival, Content, Disconnect, Order, OwnStream, Place, Receipt, Text, Unreadable
from sims.crypto.identity import Identity, PublicIdentity
from sims.crypto.payloads import Bytes8, Bytes32
from sims.crypto.peer import Came, PeerSessions, Sent
from sims.crypto.prekeys import Bundle, OneTimeKey, OwnPrekeys
from sims.crypto.primitives import ModernEntropy, digest
from sims.crypto.session import Incoming
from sims.crypto.stored import Number, Stored
from sims.crypto.streams import CHAIN_SIZE, Stream
from sims.specs import ModernSpec

STREAM_SIZE = 8


class Arrived(NamedTuple):
    """What came of a message.

    :ivar session: the th1 of the session that it is of; a receipt for it goes back there, if it :meth:`can_send`.
    :ivar duplicate: it was opened before: to be acknowledged, and nothing else.
    :ivar due: the phase to answer with at once, by ``seal(None, entropy, session)``, or by a content that is sealed on
        that session (but for 4); or None.
    :ivar confirmed: whether that session's peer is known to be who they say.
    :ivar acts: what is to be acted on or shown now, in the order in which it came; see
        :class:`~sims.crypto.content.Arrival`. Of an unconfirmed session that is texts only, to be shown as *sender not
        confirmed*; the message that confirms it brings all else that came on it before. An ``id`` is shown once.
    :ivar settled: texts that were given before, unconfirmed: they are confirmed now, and these are their true places.
    :ivar anew: whether something of it is the first that counts of a stream, where the peer had another one before.
    :ivar late: whether it was skipped before, and came behind later ones.
    :ivar dropped: the th1 of the sessions that had to go, as there are too many; they are forgotten, keys and all.
    """

    session: bytes
    duplicate: bool
    due: int | None
    confirmed: bool
    acts: tuple[Arrival, ...]
    settled: tuple[Arrival, ...]
    anew: bool
    late: bool
    dropped: tuple[bytes, ...]

    def __repr__(self) -> str:
        return f"<arrived, {len(self.acts)} to act on, due {self.due}, confirmed {self.confirmed}>"


class _Closing(Stored, frozen=True, kw_only=True):
    """A session that the peer has ended: it goes when all that they sent before has come.

    :ivar chain: of their disconnect, which stands in their stream at ``seq``.
    :ivar whole: whether all has come: a phase is still to be answered.
    """

    session: bytes
    stream: Bytes8
    seq: Number
    chain: Bytes32
    whole: bool = False


class _State(Stored, frozen=True, kw_only=True):
    """What is stored; ``stream``, ``seq`` and ``chain`` are the own ones."""

    version: Literal[1] = 1
    sessions: bytes
    order: bytes
    stream: Bytes8
    seq: Number
    chain: Bytes32
    closing: tuple[_Closing, ...]


class Conversation:
    """One end of everything between two people."""

    __slots__ = ("_closing", "_identity", "_order", "_sessions", "_stream")

    def __init__(
        self,
        identity: Identity,
        sessions: PeerSessions,
        order: Order,
        stream: OwnStream,
        closing: tuple[_Closing, ...] = (),
    ) -> None:
        """Of its parts; :meth:`new` begins one, :meth:`load` goes on."""
        self._identity = identity
        self._sessions = sessions
        self._order = order
        self._stream = stream
        self._closing = closing

    def __repr__(self) -> str:
        return f"<conversation with {self.peer_id}>"

    @classmethod
    def new(cls, identity: Identity, peer_id: str, entropy: ModernEntropy) -> Conversation:
        """An empty one, with an own stream: 8 random bytes.

        :raises LocalError: ``policy``, for one's own id.
        """
        return cls(identity, PeerSessions(identity, peer_id), Order(), OwnStream(stream=entropy.octets(STREAM_SIZE)))

    def copy(self) -> Conversation:
        """Another one in the same state: some microseconds, as states are replaced and never changed."""
        sessions, order = self._sessions.copy(), self._order.copy()
        return Conversation(self._identity, sessions, order, self._stream, self._closing)

    def dump(self) -> bytes:
        """The whole state, keys included, in MessagePack with its version."""
        own = self._stream
        state = _State(
            sessions=self._sessions.dump(),
            order=self._order.dump(),
            stream=own.stream,
            seq=own.seq,
            chain=own.chain,
            closing=self._closing,
        )
        return stored.dump(state)

    @classmethod
    def load(cls, identity: Identity, dumped: bytes) -> Conversation:
        """What :meth:`dump` gave.

        :raises PeerError: ``malformed``, for anything else, another version, or a conversation of another identity.
        """
        state = stored.load(_State, dumped)
        own = OwnStream(stream=state.stream, seq=state.seq, chain=state.chain)
        sessions, order = PeerSessions.load(identity, state.sessions), Order.load(state.order)
        return cls(identity, sessions, order, own, state.closing)

    # --- what there is ------------------------------------------------------------------------------------------------

    @property
    def peer_id(self) -> str:
        """Whose conversation with us this is."""
        return self._sessions.peer_id

    @property
    def peer(self) -> PublicIdentity | None:
        """Their keys, for the safety number; None before the first session."""
        return self._sessions.peer

    @property
    def sessions(self) -> tuple[bytes, ...]:
        """The th1 of every session that is kept, those that can be sent on first, the one to send on foremost."""
        found = [session.th1 for session in self._sessions.sessions]
        return tuple(sorted(found, key=lambda session: not self._sessions.is_open(session)))

    @property
    def needs_bundle(self) -> bool:
        """Whether there is no session to send on: a bundle has to be fetched, and :meth:`start` called."""
        return self._sessions.current is None

    @property
    def confirmed(self) -> bool:
        """Whether the peer of the session that messages go out on is known to be who they say; False without one."""
        return (current := self._sessions.current) is not None and current.confirmed

    @property
    def spec(self) -> ModernSpec | None:
        """The cipher spec of the session that messages go out on; None without one."""
        current = self._sessions.current
        return None if current is None else current.spec

    def can_send(self, session: bytes) -> bool:
        """Whether the session of this th1 is still there and takes contents."""
        return self._sessions.is_open(session)

    def due(self) -> tuple[tuple[bytes, int], ...]:
        """The sessions (th1) on which a phase is still to be answered with, and which: to be sent after a crash."""
        return self._sessions.due()

    def stream(self, session: bytes, stream: bytes) -> Stream:
        """How one of their streams stands behind what came on a session, as :meth:`Order.stream`."""
        return self._order.stream(session, stream)

    # --- sessions -----------------------------------------------------------------------------------------------------

    def start(
        self,
        own_specs: Sequence[ModernSpec],
        bundle: Bundle,
        one_time_key: OneTimeKey | None,
        *,
        now: int,
        entropy: ModernEntropy,
    ) -> bytes:
        """Open a session to this person's bundle; gives its th1. It carries phase 1 when something is sealed on it.

        The bundle's id, signature and end are checked, its version and bytes against the newest that was seen (which
        is remembered here), the one-time key's signature, and the spec's class against the highest ever agreed.

        :param own_specs: what the own policy allows, in order of preference.
        :param now: one's own clock, Unix seconds.
        :raises PeerError: ``not-authenticated``; ``policy``, for a bundle that has expired, is older than one seen, or
            the same with other bytes, and for a spec class below what was agreed before; ``no-common-spec``;
            ``malformed``.
        """
        started = self._sessions.start(own_specs, bundle, one_time_key, now=now, entropy=entropy)
        self._dropped(started.dropped)
        return started.session

    def end(self, session: bytes) -> None:
        """No more contents are sent on a session; it is kept to receive, and answers phases.

        A disconnect does so by itself: on the session that it is sealed on, and on the one that it came on. Once all
        that the peer sent before theirs has come, that session goes.
        """
        self._sessions.end(session)

    def set_aside(self, session: bytes) -> None:
        """Their store is another, which has spoken on this session: as :meth:`PeerSessions.set_aside`."""
        self._sessions.set_aside(session)

    def restored(self, entropy: ModernEntropy) -> None:
        """The store was restored from a copy: a new own stream, and nothing is sent on any old session any more.

        They are kept to receive. The next message needs a new session; one's prekeys have to be told too
        (``OwnPrekeys.restored``), and a bundle published.
        """
        for session in self._sessions.sessions:
            self._sessions.end(session.th1)
        self._stream = OwnStream(stream=entropy.octets(STREAM_SIZE))

    def expire(self, now: int) -> tuple[bytes, ...]:
        """Let go what is 30 days old, skipped keys and sessions beside the current one; to be called once a day.

        :returns: the th1 of the sessions that went.
        """
        dropped = self._sessions.expire(now)
        self._dropped(dropped)
        return dropped

    def empty(self) -> None:
        """Keep nothing that they have said: no text that waits for another, or for its session.

        All else stays: sessions and their keys, which bundle and class of spec were seen, where their streams stand.
        """
        self._order.empty()

    # --- sending ------------------------------------------------------------------------------------------------------

    def text(self, body: str, id: bytes, now: int) -> bytes:
        """The next content: a text. What was sent once is sealed again as it is, with the bytes that this gave.

        :param id: 16 random bytes.
        :raises LocalError: ``too-large``, for a content of more than 32,767 bytes; ``internal``, for another id.
        """
        return self._next(Text, now, id=id, body=body)

    def receipt(self, ids: Sequence[bytes], state: Literal["delivered", "read"], now: int) -> bytes:
        """The next content: a receipt for up to 100 ids; says too what of theirs has come in unbroken order.

        The ids of receipts, disconnects and unreadables follow from stream and ``seq``.

        :raises LocalError: ``internal``, for more ids, and for ids that are not 16 bytes.
        """
        return self._next(Receipt, now, ids=tuple(ids), state=state, chain=self._order.chain)

    def disconnect(self, now: int) -> bytes:
        """The next content: sending ends on the session that it is sealed on."""
        return self._next(Disconnect, now)

    def unreadable(self, mid: bytes, now: int) -> bytes:
        """The next content: the message of this mid could not be opened. It goes on a session started for it.

        :raises LocalError: ``internal``, for a mid that is not 16 bytes.
        """
        return self._next(Unreadable, now, ref=mid)

    def _next(self, kind: type[Content], now: int, **fields: Any) -> bytes:
        """The next content of the own stream."""
        own = self._stream
        seq = own.seq + 1
        if "id" not in fields:
            fields["id"] = digest("sha256", b"sims/2 content id" + own.stream + seq.to_bytes(8, "big"))[:16]
        made, self._stream = own.next(kind(stream=own.stream, seq=seq, time=now, **fields))
        return made

    def seal(self, content: bytes | None, entropy: ModernEntropy, session: bytes | None = None) -> Sent:
        """Seal a content, or with None the phase that is due.

        :param session: the th1 of the session to seal on; without it, the one that messages go out on.
        :returns: the session's th1, and the message.
        :raises LocalError: ``not-authenticated``, when there is no (such) session; ``policy``, when sending on it has
            ended; ``too-large``; ``internal``, for None where no phase is due.
        """
        ends = content is not None and contents.kind_of(content) == "disconnect"
        sent = self._sessions.seal(content, entropy, session)
        if ends:
            self._sessions.end(sent.session)
        self._close()
        return sent

    # --- receiving ----------------------------------------------------------------------------------------------------

    def open(
        self,
        came: Incoming,
        prekeys: OwnPrekeys,
        allowed: Sequence[ModernSpec],
        *,
        now: int,
        entropy: ModernEntropy,
    ) -> Arrived:
        """Open what came from this person, on whichever session it is of; a new phase 1 begins one.

        :param prekeys: a copy of one's own: they lose the one-time key that a phase 1 was made to, and remember its
            ``a1``; to be stored together with this.
        :param allowed: what the own policy allows now.
        :param now: Unix seconds.
        :raises PeerError: for what cannot be opened, whatever the reason: it is committed as unreadable. Neither this
            nor the prekeys have changed.
        """
        changed, own = self.copy(), prekeys.copy()
        arrived = changed._take(
            changed._sessions.open(came, own, allowed, now=now, entropy=entropy, check=contents.decode)
        )
        self._sessions, self._order, self._closing = changed._sessions, changed._order, changed._closing
        prekeys.become(own)
        return arrived

    def _take(self, came: Came) -> Arrived:
        """What came was opened."""
        session, opened, dropped = came
        self._dropped(dropped)
        anew = opened.confirmed and self._order.begins_anew(session)
        arrivals = self._order.confirm(session) if opened.confirmed else []
        if opened.content is not None:
            arrivals.append(self._order.receive(session, opened.content, confirmed=opened.confirmed))
        for arrival in arrivals:
            if arrival.confirmed and isinstance(arrival.content, Disconnect):
                said = arrival.content
                self._sessions.end(session)
                closing = _Closing(session=session, stream=said.stream, seq=said.seq, chain=arrival.data[:CHAIN_SIZE])
                self._closing = (*(other for other in self._closing if other.session != session), closing)
        self._close(arrivals)
        return Arrived(
            session=session,
            duplicate=opened.duplicate,
            due=opened.due,
            confirmed=opened.confirmed,
            acts=tuple(arrival for arrival in arrivals if arrival.act),
            settled=tuple(arrival for arrival in arrivals if arrival.shown),
            anew=anew or any(arrival.anew for arrival in arrivals),
            late=opened.late,
            dropped=dropped,
        )

    def _close(self, arrivals: Sequence[Arrival] = ()) -> None:
        """Let those sessions go that the peer has ended, and whose contents have all come and phases been answered."""
        if not self._closing:
            return
        owing = {session for session, _ in self._sessions.due()}
        said = [arrival.content for arrival in arrivals if arrival.confirmed and arrival.place is Place.IN_ORDER]
        kept = []
        for closing in self._closing:
            behind = any(one.stream == closing.stream and one.seq >= closing.seq for one in said)
            whole = closing.whole or behind or self._order.chain == closing.chain
            if whole and closing.session not in owing:
                self._sessions.remove(closing.session)
            else:
                kept.append(replace(closing, whole=whole))
        self._closing = tuple(kept)

    def _dropped(self, sessions: tuple[bytes, ...]) -> None:
        """These sessions are no longer there."""
        for session in sessions:
            self._order.drop(session)
        if sessions:
            self._closing = tuple(closing for closing in self._closing if closing.session not in sessions)
