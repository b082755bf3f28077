"""All sessions with one person: both may open at once, and either may lose its state (protocol.rst, "client-connect").

Every session is accepted and kept to receive. Messages are sent on one of them: confirmed before unconfirmed, then the
one that was heard last; at first, as nothing was heard, the one with the lower th1, which both ends see alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any, Literal, NamedTuple

from msgspec.structs import replace

from sims import specs
from sims.crypto import stored
from sims.crypto.chains import DAY
from sims.crypto.identity import Identity, PublicIdentity, is_id
from sims.crypto.opening import accept_session, open_session
from sims.crypto.payloads import Bytes32, Phase1
from sims.crypto.prekeys import Bundle, OneTimeKey, OwnPrekeys, Seen, seen
from sims.crypto.primitives import ModernEntropy
from sims.crypto.session import Incoming, Opened, Outgoing, Session
from sims.crypto.stored import Number, Stored
from sims.errors import Code, LocalError, PeerError, malformed
from sims.specs import ModernSpec

#: So many sessions are kept beside the one that messages are sent on, and for so long unheard (seconds).
MAX_OTHERS = 5
OTHERS_LIFE = 30 * DAY


class _Stored(Stored, frozen=True, kw_only=True, omit_defaults=True):  # of one that is not aside, as it always was
    session: bytes
    begun: Number
    heard: Number
    at: Number
    aside: bool = False


class _State(Stored, frozen=True, kw_only=True):
    """Everything that is kept but the sessions themselves, which are here only when it is stored.

    :ivar count: of what was begun and heard.
    :ivar floor: the highest spec class ever agreed, 0 if none.
    :ivar seen: of the newest bundle.
    :ivar keys: the peer's, sign and dh, once they are known.
    """

    version: Literal[1] = 1
    peer: str
    count: Number = 0
    floor: Number = 0
    seen: Seen | None = None
    keys: tuple[Bytes32, Bytes32] | None = None
    sessions: tuple[_Stored, ...] = ()


class _Entry(NamedTuple):
    """A session, and when it was begun and heard last: as a count of events, and in Unix seconds.

    What is done with the session is done with a copy, which then takes its place in another entry.
    """

    session: Session
    begun: int
    heard: int
    at: int
    aside: bool = False

    def __repr__(self) -> str:
        return f"<{self.session!r}, heard {self.heard}>"

    @property
    def is_open(self) -> bool:
        """Whether messages may be sent on it."""
        return not (self.session.ended or self.aside)

    def rank(self) -> tuple[bool, int]:
        """The greater, the sooner messages are sent on it."""
        return self.session.confirmed, self.heard

    def worth(self) -> tuple[bool, int]:
        """The less, the sooner it is dropped."""
        return self.session.confirmed, max(self.begun, self.heard)


class Came(NamedTuple):
    """What came, and on which session: its th1; and which sessions had to go for it."""

    session: bytes
    opened: Opened
    dropped: tuple[bytes, ...]


class Started(NamedTuple):
    """Which session was begun: its th1; and which had to go for it."""

    session: bytes
    dropped: tuple[bytes, ...]


class Sent(NamedTuple):
    """What goes out, and on which session: its th1."""

    session: bytes
    message: Outgoing


class PeerSessions:
    """All sessions with one id. Every refusal leaves them as they were; copies cost nothing."""

    __slots__ = ("_entries", "_identity", "_state")

    def __init__(self, identity: Identity, peer_id: str) -> None:
        """No session yet.

        :raises LocalError: ``policy``, for one's own id: both ends of a session would be one.
        """
        if peer_id == identity.id:
            raise LocalError(Code.POLICY, "sessions with oneself")
        self._identity = identity
        self._entries: tuple[_Entry, ...] = ()
        self._state = _State(peer=peer_id)

    def __repr__(self) -> str:
        return f"<{len(self._entries)} sessions with {self.peer_id}>"

    def copy(self) -> PeerSessions:
        """Another one in the same state."""
        found = PeerSessions.__new__(PeerSessions)
        found._identity, found._entries, found._state = self._identity, self._entries, self._state
        return found

    @property
    def peer_id(self) -> str:
        """The id of the other end."""
        return self._state.peer

    @property
    def peer(self) -> PublicIdentity | None:
        """The keys of the other end; None before the first session."""
        return None if self._state.keys is None else PublicIdentity(*self._state.keys)

    @property
    def sessions(self) -> tuple[Session, ...]:
        """Copies of all of them, the one to send on first."""
        return tuple(entry.session.copy() for entry in self._ranked())

    @property
    def current(self) -> Session | None:
        """A copy of the one to send on; None, when a new one has to be opened."""
        return next((entry.session.copy() for entry in self._ranked() if entry.is_open), None)

    def find(self, session: bytes) -> Session | None:
        """A copy of the session with this th1."""
        return next((entry.session.copy() for entry in self._entries if entry.session.th1 == session), None)

    def is_open(self, session: bytes) -> bool:
        """Whether the session with this th1 is there, and messages may be sent on it."""
        return any(entry.is_open for entry in self._entries if entry.session.th1 == session)

    def due(self) -> tuple[tuple[bytes, int], ...]:
        """On which sessions (th1) a phase is still to be answered with, and which."""
        sessions = [entry.session for entry in self._ranked()]
        return tuple((session.th1, session.due) for session in sessions if session.due is not None)

    def start(
        self,
        own_specs: Sequence[ModernSpec],
        bundle: Bundle,
        one_time_key: OneTimeKey | None,
        *,
        now: int,
        entropy: ModernEntropy,
    ) -> Started:
        """Open a session to this person's bundle. It carries phase 1 when something is sealed on it.

        :raises PeerError: as ``open_session`` does; ``policy``, for an older bundle than was seen before, too.
        """
        session = open_session(
            self._identity,
            own_specs,
            bundle,
            one_time_key,
            now=now,
            entropy=entropy,
            expected=self.peer_id,
            before=self._state.seen,
            floor=self._state.floor,
        )
        self._state = replace(self._state, seen=seen(bundle))
        return Started(session.th1, self._add(session, now, heard=False))

    def seal(self, content: bytes | None, entropy: ModernEntropy, session: bytes | None = None) -> Sent:
        """Seal a content on the current session, or on the one with this th1; None makes the phase that is due there.

        :raises LocalError: ``not-authenticated``, when there is no such session; and as ``Session.seal`` does.
        """
        found = self.current if session is None else self.find(session)
        if found is None:
            raise LocalError(Code.NOT_AUTHENTICATED, "no session to send on: one has to be opened")
        sent = found.seal(content, entropy)
        self._replace(found)
        return Sent(found.th1, sent)

    def open(
        self,
        came: Incoming,
        prekeys: OwnPrekeys,
        allowed: Sequence[ModernSpec],
        *,
        now: int,
        entropy: ModernEntropy,
        check: Callable[[bytes], object] = lambda content: None,
    ) -> Came:
        """Open what came from this person, on whichever session it is of; a new phase 1 begins one.

        :param check: what else is to be asked of the first content of a new session, as for ``accept_session``.
        :raises PeerError: as ``Session.open`` and ``accept_session`` do.
        """
        if came.src != self.peer_id:
            raise PeerError(Code.NOT_AUTHENTICATED, "a message of another person")
        if isinstance(came.data, Phase1):
            entry = next((entry for entry in self._entries if entry.session.began_with(came)), None)
            if entry is None:
                session, opened = accept_session(
                    *(self._identity, prekeys, allowed, came),
                    now=now,
                    entropy=entropy,
                    floor=self._state.floor,
                    check=check,
                )
                return Came(session.th1, opened, self._add(session, now, heard=True))
            return self._open(entry, came, now)
        refusal: PeerError | None = None
        for entry in self._ranked():
            try:
                return self._open(entry, came, now)
            except PeerError as error:
                if refusal is None or refusal.code is Code.NOT_AUTHENTICATED:
                    refusal = error
        raise refusal or PeerError(Code.NOT_AUTHENTICATED, "no session with who sent this")

    def end(self, session: bytes) -> None:
        """No more contents are sent on the session with this th1; it is kept to receive."""
        found = self.find(session)
        if found is not None:
            found.end()
            self._replace(found)

    def set_aside(self, session: bytes) -> None:
        """Send on no other than the session with this th1, until something new is heard on it.

        Their store is another, which has spoken on this one, and may not have the others, be it that they were begun
        later. Whoever says something new on one has it; unless it is late, and was said by the store of before: then
        what is sent there cannot be read, until this one speaks again.
        """
        self._entries = tuple(
            entry if entry.session.th1 == session else entry._replace(aside=True) for entry in self._entries
        )

    def remove(self, session: bytes) -> None:
        """Forget a session and its keys."""
        self._entries = tuple(entry for entry in self._entries if entry.session.th1 != session)

    def expire(self, now: int) -> tuple[bytes, ...]:
        """Let go what is 30 days old: skipped keys, and sessions beside the current one; to be called once a day.

        :returns: the th1 of the sessions that went.
        """
        current = next((entry for entry in self._ranked() if entry.is_open), None)
        old = [entry for entry in self._entries if entry is not current and entry.at + OTHERS_LIFE <= now]
        kept = [entry for entry in self._entries if entry not in old]
        for index, entry in enumerate(kept):
            session = entry.session.copy()
            session.expire(now)
            kept[index] = entry._replace(session=session)
        self._entries = tuple(kept)
        return tuple(entry.session.th1 for entry in old)

    # --- the entries --------------------------------------------------------------------------------------------------

    def _ranked(self) -> list[_Entry]:
        """All of them, the one to send on first: of two alike the one with the lower th1."""
        ordered = sorted(self._entries, key=lambda entry: entry.session.th1)
        return sorted(ordered, key=_Entry.rank, reverse=True)

    def _replace(self, session: Session, **changes: Any) -> None:
        """A session is now this one."""
        self._entries = tuple(
            entry._replace(session=session, **changes) if entry.session.th1 == session.th1 else entry
            for entry in self._entries
        )

    def _add(self, session: Session, now: int, *, heard: bool) -> tuple[bytes, ...]:
        """One more; gives the th1 of those that are dropped for it.

        Unconfirmed ones go first, then what was heard longest ago; never the new one, nor the one that messages are
        sent on, nor the newest of ours that was not heard: where both ends begin one at once, each would drop its own
        for the other's, and what both carry were lost. So one who begins sessions that are never confirmed drops a
        confirmed one at most once: after that, only their own.
        """
        count = self._state.count + 1
        self._state = replace(self._state, count=count, keys=(session.peer.sign, session.peer.dh))
        added = _Entry(session, count, count if heard else 0, now)
        self._entries = (*self._entries, added)
        dropped: tuple[bytes, ...] = ()
        if len(self._entries) > MAX_OTHERS + 1:
            current = next((entry for entry in self._ranked() if entry.is_open), None)
            asked = max((entry for entry in self._entries if not entry.heard), key=attrgetter("begun"), default=None)
            others = [entry for entry in self._entries if entry not in (added, current, asked)]
            dropped = (min(others, key=_Entry.worth).session.th1,)
            self.remove(dropped[0])
        return dropped

    def _open(self, entry: _Entry, came: Incoming, now: int) -> Came:
        """Open what came on one session."""
        session = entry.session.copy()
        opened = session.open(came, now)
        state = self._state
        if opened.heard:
            state = replace(state, count=state.count + 1)
            self._replace(session, heard=state.count, at=now, aside=False)
        else:
            self._replace(session)
        if opened.confirmed:
            state = replace(state, floor=max(state.floor, specs.spec_class(session.spec)))
        self._state = state
        return Came(session.th1, opened, ())

    # --- storing ------------------------------------------------------------------------------------------------------

    def dump(self) -> bytes:
        """The whole state, keys included, in MessagePack with its version."""
        sessions = tuple(
            _Stored(session=entry.session.dump(), begun=entry.begun, heard=entry.heard, at=entry.at, aside=entry.aside)
            for entry in self._entries
        )
        return stored.dump(replace(self._state, sessions=sessions))

    @classmethod
    def load(cls, identity: Identity, dumped: bytes) -> PeerSessions:
        """What :meth:`dump` gave.

        :raises PeerError: ``malformed``, for anything else, another version, and sessions of others.
        """
        state = stored.load(_State, dumped)
        entries = tuple(
            _Entry(Session.load(identity, entry.session), entry.begun, entry.heard, entry.at, entry.aside)
            for entry in state.sessions
        )
        known = state.keys is None or PublicIdentity(*state.keys).id == state.peer
        alone = len({entry.session.th1 for entry in entries}) == len(entries) <= MAX_OTHERS + 1
        if not (
            known
            and alone
            and is_id(state.peer)
            and state.peer != identity.id
            and all(entry.session.peer_id == state.peer for entry in entries)
        ):
            raise malformed("stored sessions that are not those with one other person")
        found = cls(identity, state.peer)
        found._state, found._entries = replace(state, sessions=()), entries
        return found
