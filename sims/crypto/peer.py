"""All sessions with one person: both may open at once, and either may lose its state (protocol.rst, "client-connect").

Every session is accepted and kept to receive. Messages are sent on one of them: confirmed before unconfirmed, then the
one that was heard last; at first, as nothing was heard, the one with the lower th1, which both ends see alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from msgspec import Struct

from sims import specs
from sims.crypto import payloads
from sims.crypto.chains import DAY
from sims.crypto.identity import Identity
from sims.crypto.opening import accept_session, open_session
from sims.crypto.payloads import Phase1
from sims.crypto.prekeys import Bundle, OneTimeKey, OwnPrekeys, Seen
from sims.crypto.primitives import ModernEntropy
from sims.crypto.ratchet import DuplicateError
from sims.crypto.session import Incoming, Opened, Outgoing, Session
from sims.errors import Code, LocalError, PeerError, malformed
from sims.specs import ModernSpec

#: So many sessions are kept beside the one that messages are sent on, and for so long unheard (seconds).
MAX_OTHERS = 5
OTHERS_LIFE = 30 * DAY

_VERSION = 1


class _Stored(Struct, kw_only=True):
    session: bytes
    begun: int
    heard: int
    at: int


class _State(Struct, kw_only=True):
    version: int = _VERSION
    peer: str
    count: int
    floor: int
    sessions: list[_Stored]


class _Entry:
    """A session, and when it was begun and heard last: as a count of events, and in Unix seconds."""

    __slots__ = ("at", "begun", "heard", "session")

    def __init__(self, session: Session, begun: int, heard: int, at: int) -> None:
        self.session = session
        self.begun = begun
        self.heard = heard
        self.at = at

    def rank(self) -> tuple[bool, int, int]:
        """The greater, the sooner messages are sent on it."""
        return self.session.confirmed, self.heard, -int.from_bytes(self.session.th1, "big")

    def worth(self) -> tuple[bool, int]:
        """The less, the sooner it is dropped."""
        return self.session.confirmed, max(self.begun, self.heard)


class Came(NamedTuple):
    """What came, and on which session: its th1."""

    session: bytes
    opened: Opened


class Sent(NamedTuple):
    """What goes out, and on which session: its th1."""

    session: bytes
    message: Outgoing


class PeerSessions:
    """All sessions with one id. Every refusal leaves them as they were.

    :ivar peer_id: the id.
    """

    __slots__ = ("_count", "_entries", "_floor", "_identity", "peer_id")

    def __init__(self, identity: Identity, peer_id: str) -> None:
        self.peer_id = peer_id
        self._identity = identity
        self._entries: list[_Entry] = []
        self._count = 0
        self._floor = 0

    def __repr__(self) -> str:
        return f"<{len(self._entries)} sessions with {self.peer_id}>"

    @property
    def sessions(self) -> tuple[Session, ...]:
        """All of them, the one to send on first."""
        return tuple(entry.session for entry in sorted(self._entries, key=_Entry.rank, reverse=True))

    @property
    def current(self) -> Session | None:
        """The one to send on; None, when a new one has to be opened."""
        return next((session for session in self.sessions if not session.ended), None)

    def start(
        self,
        own_specs: Sequence[ModernSpec],
        bundle: Bundle,
        one_time_key: OneTimeKey | None,
        *,
        now: int,
        entropy: ModernEntropy,
        before: Seen | None = None,
    ) -> bytes:
        """Open a session to this person's bundle; gives its th1. It carries phase 1 when something is sealed on it.

        :raises PeerError: as ``open_session`` does.
        """
        session = open_session(
            self._identity,
            own_specs,
            bundle,
            one_time_key,
            now=now,
            entropy=entropy,
            expected=self.peer_id,
            before=before,
            floor=self._floor,
        )
        self._add(session, now, heard=False)
        return session.th1

    def seal(self, content: bytes | None, entropy: ModernEntropy, session: bytes | None = None) -> Sent:
        """Seal a content on the current session, or on the one with this th1; None makes the phase that is due there.

        :raises LocalError: ``not-authenticated``, when there is no session; and as ``Session.seal`` does.
        """
        found = self.current if session is None else self.find(session)
        if found is None:
            raise LocalError(Code.NOT_AUTHENTICATED, "no session to send on: one has to be opened")
        return Sent(found.th1, found.seal(content, entropy))

    def open(
        self,
        came: Incoming,
        prekeys: OwnPrekeys,
        allowed: Sequence[ModernSpec],
        *,
        now: int,
        entropy: ModernEntropy,
    ) -> Came:
        """Open what came from this person, on whichever session it is of; a new phase 1 begins one.

        :raises DuplicateError: for what was opened before.
        :raises PeerError: as ``Session.open`` and ``accept_session`` do.
        """
        if came.src != self.peer_id:
            raise PeerError(Code.NOT_AUTHENTICATED, "a message of another person")
        if isinstance(came.data, Phase1):
            entry = next((entry for entry in self._entries if entry.session.began_with(came)), None)
            if entry is None:
                session, opened = accept_session(
                    self._identity, prekeys, allowed, came, now=now, entropy=entropy, floor=self._floor
                )
                self._add(session, now, heard=True)
                return Came(session.th1, opened)
            return self._heard(entry, entry.session.open(came, now), now)
        refusal: PeerError | None = None
        for entry in sorted(self._entries, key=_Entry.rank, reverse=True):
            try:
                opened = entry.session.open(came, now)
            except DuplicateError:
                raise
            except PeerError as error:
                if refusal is None or refusal.code is Code.NOT_AUTHENTICATED:
                    refusal = error
            else:
                return self._heard(entry, opened, now)
        raise refusal or PeerError(Code.NOT_AUTHENTICATED, "no session with who sent this")

    def find(self, session: bytes) -> Session | None:
        """The session with this th1."""
        return next((entry.session for entry in self._entries if entry.session.th1 == session), None)

    def remove(self, session: bytes) -> None:
        """Forget a session and its keys."""
        self._entries = [entry for entry in self._entries if entry.session.th1 != session]

    def expire(self, now: int) -> None:
        """Let go what is 30 days old: skipped keys, and sessions beside the current one; to be called once a day."""
        current = self.current
        self._entries = [entry for entry in self._entries if entry.session is current or now < entry.at + OTHERS_LIFE]
        for entry in self._entries:
            entry.session.expire(now)

    def _add(self, session: Session, now: int, *, heard: bool) -> None:
        self._count += 1
        self._entries.append(_Entry(session, self._count, self._count if heard else 0, now))
        if len(self._entries) > MAX_OTHERS + 1:
            current = self.current
            others = [entry for entry in self._entries if entry.session is not current]
            self._entries.remove(min(others, key=_Entry.worth))

    def _heard(self, entry: _Entry, opened: Opened, now: int) -> Came:
        if not opened.late:
            self._count += 1
            entry.heard, entry.at = self._count, now
        if opened.confirmed:
            self._floor = max(self._floor, specs.spec_class(entry.session.spec))
        return Came(entry.session.th1, opened)

    def dump(self) -> bytes:
        """The whole state, keys included, in MessagePack with its version."""
        return payloads.encode(
            _State(
                peer=self.peer_id,
                count=self._count,
                floor=self._floor,
                sessions=[
                    _Stored(session=entry.session.dump(), begun=entry.begun, heard=entry.heard, at=entry.at)
                    for entry in self._entries
                ],
            )
        )

    @classmethod
    def load(cls, identity: Identity, dumped: bytes) -> PeerSessions:
        """What :meth:`dump` gave.

        :raises PeerError: ``malformed``, for anything else and for another version.
        """
        state = payloads.decode(_State, dumped)
        if state.version != _VERSION:
            raise malformed(f"stored sessions of version {state.version}")
        found = cls(identity, state.peer)
        found._count, found._floor = state.count, state.floor
        found._entries = [
            _Entry(Session.load(identity, stored.session), stored.begun, stored.heard, stored.at)
            for stored in state.sessions
        ]
        return found
