"""client-connect: one session between two clients, after its first phase (protocol.rst, "client-connect").

::

    open_session(identity, own specs, bundle, ...)  -> Session             A: seal(content) then gives phase 1
    accept_session(identity, prekeys, incoming)     -> Session, Opened     B: phase 1 has come
    session.seal(content, or None)                  -> Outgoing            as the phase that is due, or client-com
    session.open(incoming)                          -> Opened              says which phase to answer with

The first two are in :mod:`sims.crypto.opening`. Until phase p+1 has come, every message goes as phase p with the same
fields. Every refusal leaves the session as it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Literal, NamedTuple

from msgspec import UNSET
from msgspec.structs import replace

from sims.crypto import payloads, primitives, schedule, stored
from sims.crypto.chains import RatchetState
from sims.crypto.identity import Identity, PublicIdentity
from sims.crypto.notation import lp, names
from sims.crypto.payloads import Message, Phase1, Phase2, Phase3, Phase4
from sims.crypto.primitives import KemKey, ModernEntropy, X25519Key
from sims.crypto.ratchet import Ratchet, Received
from sims.crypto.schedule import Party
from sims.crypto.stored import Number, Stored
from sims.errors import Code, LocalError, PeerError, malformed
from sims.specs import ModernSpec

Data = Phase1 | Phase2 | Phase3 | Phase4 | Message


class Outgoing(NamedTuple):
    """A message to the peer: ``client-connect`` with its phase, or ``client-com`` where ``phase`` is None.

    :ivar ciphers: the own list, with phase 1 only.
    :ivar data: its ``data``.
    """

    phase: int | None
    ciphers: tuple[str, ...] | None
    data: Data


class Incoming(NamedTuple):
    """A message that came; ``src`` and ``dst`` are what the relay says.

    :ivar ciphers: the other's list, with phase 1 only.
    """

    src: str
    dst: str
    phase: int | None
    ciphers: tuple[str, ...] | None
    data: Data


def incoming(src: str, dst: str, phase: int | None, ciphers: Sequence[str] | None, data: object) -> Incoming:
    """A message that came, from its fields; ``data`` is a map with raw byte fields.

    :raises PeerError: ``malformed``.
    """
    if phase is None:
        return Incoming(src, dst, None, None, payloads.convert(Message, data))
    if type(phase) is not int or phase not in payloads.PHASES or (phase == 1) is not (ciphers is not None):
        raise malformed("a client-connect of no known phase, or a list of specs beside another than 1")
    listed = None if ciphers is None else payloads.spec_list(ciphers)
    return Incoming(src, dst, phase, listed, payloads.convert(payloads.PHASES[phase], data))


class Opened(NamedTuple):
    """What came of a message.

    :ivar content: what it carried, or None: chain and MessagePack (see :mod:`sims.crypto.content`).
    :ivar due: the phase to answer with at once (``seal(None)`` makes it, ``seal(content)`` too, but for 4), or None.
    :ivar confirmed: whether the peer is known to be who they say; before that, only text is acted on.
    :ivar late: whether the message was skipped before.
    :ivar duplicate: whether all of it was opened before: to be acknowledged, and nothing else.
    :ivar heard: whether it shows that the peer uses this session now: what comes late doesn't, nor what a relay can
        repeat by itself, as a phase without its message.
    """

    content: bytes | None
    due: int | None
    confirmed: bool
    late: bool
    duplicate: bool
    heard: bool

    def __repr__(self) -> str:
        return f"<opened, due {self.due}, confirmed {self.confirmed}>"


class Stage(StrEnum):
    """Where a session is."""

    OPENING = "opening"  # A: phase 1 goes out
    ANSWERED = "answered"  # A: phase 3 goes out
    ACCEPTED = "accepted"  # B: phase 2 goes out
    DONE = "done"


#: Which phases an end takes, at which stage; None is client-com.
_TAKES: dict[tuple[bool, Stage], frozenset[int | None]] = {
    (True, Stage.OPENING): frozenset({2}),
    (True, Stage.ANSWERED): frozenset({2, 4, None}),
    (True, Stage.DONE): frozenset({2, 4, None}),
    (False, Stage.ACCEPTED): frozenset({1, 3}),
    (False, Stage.DONE): frozenset({1, 3, None}),
}
#: Which phase an end may owe, at which stage.
_OWES: dict[tuple[bool, Stage], int | None] = {
    (True, Stage.OPENING): None,
    (True, Stage.ANSWERED): 3,
    (True, Stage.DONE): None,
    (False, Stage.ACCEPTED): 2,
    (False, Stage.DONE): 4,
}


class SessionState(Stored, frozen=True, kw_only=True):
    """Everything that a session keeps.

    :ivar phase1: A: the fields of phase 1, for as long as it goes out; ``phase2`` B's, likewise.
    :ivar accepted: SHA-256 of the fields of the peer's phase 1 or 2 that was accepted.
    :ivar macs: of phases 3 and 4, once they are known.
    :ivar due: the phase that is still to be answered with.
    :ivar ended: whether sending has ended.
    :ivar created: when it was begun here, Unix seconds.
    """

    version: Literal[1] = 1
    initiator: bool
    stage: Stage
    own: Party
    peer: Party
    ratchet: RatchetState
    phase1: Phase1 | None = None
    phase2: Phase2 | None = None
    accepted: bytes = b""
    macs: tuple[bytes, bytes] = (b"", b"")
    due: Literal[2, 3, 4] | None = None
    ended: bool = False
    created: Number

    def check(self) -> None:
        """Refuse a state that no session can be in.

        :raises PeerError: ``malformed``.
        """
        begun = self.stage is not Stage.OPENING
        ratchet, size = self.ratchet, 48 if len(self.ratchet.th1) == 48 else 32
        if not (
            (self.initiator, self.stage) in _TAKES
            and self.due in (None, _OWES[self.initiator, self.stage])
            and (self.phase1 is not None) is (self.stage is Stage.OPENING)
            and (self.phase2 is not None) is (self.stage is Stage.ACCEPTED)
            and (ratchet.receiving is not None) is begun
            and len(self.accepted) == (32 if begun else 0)
            and all(len(mac) == (size if begun else 0) for mac in self.macs)
            and (ratchet.own_id, ratchet.peer_id) == (self.own.id, self.peer.id)
            and all(PublicIdentity(party.sign, party.dh).id == party.id for party in (self.own, self.peer))
            and self.own.id != self.peer.id
        ):
            raise malformed("a stored session in no state that there is")


class Session:
    """One end of a session; ``open_session`` and ``accept_session`` begin one, :meth:`load` goes on.

    Its state is replaced as a whole, and never changed: copies cost nothing.
    """

    __slots__ = ("_identity", "_ratchet", "_state")

    def __init__(self, identity: Identity, state: SessionState, ratchet: Ratchet) -> None:
        self._identity = identity
        self._state = state  # but for its ratchet's, which is the other's
        self._ratchet = ratchet

    def __repr__(self) -> str:
        return f"<session with {self.peer_id}, {self._state.stage}>"

    def copy(self) -> Session:
        """Another one in the same state."""
        return Session(self._identity, self._state, self._ratchet.copy())

    @property
    def state(self) -> SessionState:
        """What is stored."""
        return replace(self._state, ratchet=self._ratchet.state)

    @property
    def peer_id(self) -> str:
        """The id of the other end."""
        return self._state.peer.id

    @property
    def peer(self) -> PublicIdentity:
        """The keys of the other end."""
        return PublicIdentity(self._state.peer.sign, self._state.peer.dh)

    @property
    def spec(self) -> ModernSpec:
        """What was agreed."""
        return self._ratchet.spec

    @property
    def th1(self) -> bytes:
        """The transcript of phase 1: which session this is."""
        return self._ratchet.state.th1

    @property
    def created(self) -> int:
        """When it was begun here, Unix seconds."""
        return self._state.created

    @property
    def stage(self) -> Stage:
        """Where it is."""
        return self._state.stage

    @property
    def due(self) -> int | None:
        """The phase that is still to be answered with, or None."""
        return self._state.due

    @property
    def confirmed(self) -> bool:
        """Whether the peer is known to be who they say: for A from phase 2, for B from phase 3."""
        return self._state.stage in (Stage.ANSWERED, Stage.DONE)

    @property
    def ended(self) -> bool:
        """Whether sending has ended: a disconnect was sent or came."""
        return self._state.ended

    def began_with(self, came: Incoming) -> bool:
        """Whether this phase 1 is the one that this session was accepted with, whatever rides on it."""
        return (
            not self._state.initiator
            and isinstance(came.data, Phase1)
            and primitives.same(self._state.accepted, digest_of(came.data, came.ciphers))
        )

    def end(self) -> None:
        """Sending ends; what comes is still received."""
        self._state = replace(self._state, ended=True)

    def expire(self, now: int) -> None:
        """Let go the skipped keys that are 30 days old."""
        self._ratchet.expire(now)

    def dump(self) -> bytes:
        """The whole state, keys included, in MessagePack with its version."""
        return stored.dump(self.state)

    @classmethod
    def load(cls, identity: Identity, dumped: bytes) -> Session:
        """What :meth:`dump` gave.

        :raises PeerError: ``malformed``, for anything else, another version, or a session of another identity.
        """
        state = stored.load(SessionState, dumped)
        state.check()
        if state.own.id != identity.id:
            raise malformed("a stored session of another identity")
        return cls(identity, state, Ratchet.load(state.ratchet))

    # --- sending ------------------------------------------------------------------------------------------------------

    def seal(self, content: bytes | None, entropy: ModernEntropy) -> Outgoing:
        """Seal a content; None makes the phase that is due without one.

        :raises LocalError: ``too-large``; ``policy``, after sending has ended; ``internal``, for None where there is
            nothing to send without a content.
        """
        state = self._state
        if state.stage is Stage.DONE and content is not None and not state.ended:
            return Outgoing(None, None, self._ratchet.seal(content, entropy))
        if content is None and (state.due is None or state.stage is Stage.OPENING):
            raise LocalError(Code.INTERNAL, "no phase is due, and there is nothing to send")
        if content is not None and state.ended:
            raise LocalError(Code.POLICY, "sending on this session has ended")
        message = UNSET if content is None else self._ratchet.seal(content, entropy)
        if state.phase1 is not None:
            return Outgoing(1, state.own.specs, replace(state.phase1, message=message))
        if state.stage is Stage.DONE and message is not UNSET:
            return Outgoing(None, None, message)
        if state.due is not None:
            self._state = replace(state, due=None)
        if state.stage is Stage.DONE:
            return Outgoing(4, None, Phase4(mac=state.macs[1]))
        if state.phase2 is not None:
            return Outgoing(2, None, replace(state.phase2, message=message))
        return Outgoing(3, None, Phase3(mac=state.macs[0], message=message))

    # --- receiving ----------------------------------------------------------------------------------------------------

    def open(self, came: Incoming, now: int) -> Opened:
        """Open a message of the peer's. What was opened before is given as a duplicate, without its content.

        :param now: Unix seconds.
        :raises PeerError: ``not-authenticated``, for what is not of this session or does not verify; ``malformed``,
            ``too-large``.
        """
        state = self._state
        if came.src != state.peer.id or came.dst != state.own.id:
            raise PeerError(Code.NOT_AUTHENTICATED, "a message between others")
        if came.phase is None and state.stage is Stage.DONE and isinstance(came.data, Message):
            return self._opened(self._ratchet.open(came.data, now))
        if came.phase not in _TAKES[state.initiator, state.stage]:
            raise PeerError(Code.NOT_AUTHENTICATED, "a phase that this session does not take")
        data = came.data
        if isinstance(data, Message):
            return self._opened(self._ratchet.open(data, now))
        if isinstance(data, Phase1) and data.message is UNSET:
            raise malformed("a phase 1 without a message")
        if isinstance(data, Phase2) and state.stage is Stage.OPENING:
            return self._second(data, now)
        if isinstance(data, Phase1 | Phase2):
            known = state.accepted
            found = digest_of(data, came.ciphers)
        else:
            known = state.macs[0 if came.phase == 3 else 1]
            found = data.mac
        if not primitives.same(known, found):
            raise PeerError(Code.NOT_AUTHENTICATED, "a phase with other fields than those accepted, or that are due")
        received = _ride(self._ratchet, data, now)
        if came.phase == 4 and state.stage is Stage.ANSWERED:
            self._state = replace(state, stage=Stage.DONE, due=None)
            return self._opened(received, advanced=True)
        if came.phase == 3 and state.stage is Stage.ACCEPTED:
            self._state = replace(state, stage=Stage.DONE, phase2=None, due=4)
            return self._opened(received, advanced=True, due=4)
        return self._opened(received)

    def _opened(self, received: Received | None, *, advanced: bool = False, due: int | None = None) -> Opened:
        """What came of a message.

        :param received: what was in it that is new.
        :param advanced: whether it was the first to bring its phase.
        """
        if received is None:
            return Opened(None, due, self.confirmed, False, not advanced, advanced)
        content, late = received
        return Opened(content, due, self.confirmed, late, False, advanced or not late)

    def _second(self, data: Phase2, now: int) -> Opened:
        """A's end: the first phase 2."""
        state, spec = self._state, self.spec
        ratchet = self._ratchet.copy()
        own = ratchet.state
        if own.own_dh is None or own.own_kem is None:
            raise malformed("phase 2 out of order")
        a1, b1 = X25519Key(own.own_dh), data.public_key
        secret = KemKey(own.own_kem).decapsulate(data.kem_ciphertext)
        th2 = schedule.session_th2(spec, self.th1, b1, data.kem_ciphertext, data.kem_public_key)
        ikm2 = a1.exchange(b1) + self._identity.dh.exchange(b1) + a1.exchange(state.peer.dh) + secret
        keys = schedule.second(spec, own.root, th2, ikm2)
        if not primitives.same(schedule.phase_mac(spec, keys.confirm, th2, 2), data.mac):
            raise PeerError(Code.NOT_AUTHENTICATED, "a phase 2 that does not verify")
        primitives.check_kem_public(data.kem_public_key)
        ratchet.accept_second(keys, b1, data.kem_public_key)
        received = _ride(ratchet, data, now)
        self._ratchet = ratchet
        self._state = replace(
            state,
            stage=Stage.ANSWERED,
            phase1=None,
            accepted=digest_of(data, None),
            macs=macs_of(spec, keys.confirm, th2),
            due=3,
        )
        return self._opened(received, advanced=True, due=3)


def _ride(ratchet: Ratchet, data: Phase1 | Phase2 | Phase3 | Phase4, now: int) -> Received | None:
    """What rides on a phase that was checked; None for nothing, or nothing new."""
    if isinstance(data, Phase4) or data.message is UNSET:
        return None
    return ratchet.open(data.message, now, first=not isinstance(data, Phase3))


def macs_of(spec: ModernSpec, confirm: bytes, th2: bytes) -> tuple[bytes, bytes]:
    """The macs of phases 3 and 4."""
    return schedule.phase_mac(spec, confirm, th2, 3), schedule.phase_mac(spec, confirm, th2, 4)


def digest_of(data: Phase1 | Phase2, ciphers: tuple[str, ...] | None) -> bytes:
    """SHA-256 over all of a phase but its message."""
    fields = payloads.encode(replace(data, message=UNSET))
    return primitives.digest("sha256", lp(fields, names(ciphers or ())))
