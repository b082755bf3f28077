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
from typing import NamedTuple

import msgspec
from msgspec import UNSET, Struct

from sims.crypto import payloads, primitives, schedule
from sims.crypto.chains import RatchetState
from sims.crypto.identity import Identity
from sims.crypto.notation import lp, names
from sims.crypto.payloads import Message, Phase1, Phase2, Phase3, Phase4
from sims.crypto.primitives import KemKey, ModernEntropy, X25519Key
from sims.crypto.ratchet import Ratchet
from sims.crypto.schedule import Party
from sims.errors import Code, LocalError, PeerError, malformed
from sims.specs import ModernSpec

_VERSION = 1

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
    if phase not in payloads.PHASES or (phase == 1) is not (ciphers is not None):
        raise malformed("a client-connect of no known phase, or a list of specs beside another than 1")
    listed = None if ciphers is None else payloads.spec_list(ciphers)
    return Incoming(src, dst, phase, listed, payloads.convert(payloads.PHASES[phase], data))


class Opened(NamedTuple):
    """What came of a message.

    :ivar content: what it carried, or None: chain and MessagePack (see :mod:`sims.crypto.content`).
    :ivar due: the phase to answer with at once (``seal(None)`` makes it, ``seal(content)`` too, but for 4), or None.
    :ivar confirmed: whether the peer is known to be who they say; before that, only text is acted on.
    :ivar late: whether the message was skipped before.
    """

    content: bytes | None
    due: int | None
    confirmed: bool
    late: bool

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


class SessionState(Struct, kw_only=True):
    """Everything that a session keeps.

    :ivar phase1: A: the fields of phase 1, for as long as it goes out; ``phase2`` B's, likewise.
    :ivar accepted: SHA-256 of the fields of the peer's phase 1 or 2 that was accepted.
    :ivar macs: of phases 3 and 4, once they are known.
    :ivar due: the phase that is still to be answered with.
    :ivar ended: whether sending has ended.
    :ivar created: when it was begun here, Unix seconds.
    """

    version: int = _VERSION
    initiator: bool
    stage: Stage
    own: Party
    peer: Party
    ratchet: RatchetState
    phase1: Phase1 | None = None
    phase2: Phase2 | None = None
    accepted: bytes = b""
    macs: tuple[bytes, bytes] = (b"", b"")
    due: int | None = None
    ended: bool = False
    created: int = 0

    def __repr__(self) -> str:
        return f"<state of a session with {self.peer.id}>"


class Session:
    """One end of a session; ``open_session`` and ``accept_session`` begin one, :meth:`load` goes on."""

    __slots__ = ("_identity", "_ratchet", "_state")

    def __init__(self, identity: Identity, state: SessionState, ratchet: Ratchet) -> None:
        self._identity = identity
        self._state = state
        self._ratchet = ratchet

    def __repr__(self) -> str:
        return f"<session with {self.peer_id}, {self._state.stage}>"

    @property
    def peer_id(self) -> str:
        """The id of the other end."""
        return self._state.peer.id

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
        self._state.ended = True

    def expire(self, now: int) -> None:
        """Let go the skipped keys that are 30 days old."""
        self._ratchet.expire(now)

    def dump(self) -> bytes:
        """The whole state, keys included, in MessagePack with its version."""
        return _encoder.encode(self._state)

    @classmethod
    def load(cls, identity: Identity, dumped: bytes) -> Session:
        """What :meth:`dump` gave.

        :raises PeerError: ``malformed``, for anything else, another version, or a session of another identity.
        """
        state = payloads.decode(SessionState, dumped)
        if state.version != _VERSION or state.own.id != identity.id:
            raise malformed(f"a stored session of version {state.version}, or of another identity")
        return cls(identity, state, Ratchet(state.ratchet))

    # --- sending ------------------------------------------------------------------------------------------------------

    def seal(self, content: bytes | None, entropy: ModernEntropy) -> Outgoing:
        """Seal a content; None makes the phase that is due without one.

        :raises LocalError: ``too-large``; ``policy``, after sending has ended; ``internal``, for None where there is
            nothing to send without a content.
        """
        state = self._state
        if content is None and (state.due is None or state.stage is Stage.OPENING):
            raise LocalError(Code.INTERNAL, "no phase is due, and there is nothing to send")
        if content is not None and state.ended:
            raise LocalError(Code.POLICY, "sending on this session has ended")
        message = UNSET if content is None else self._ratchet.seal(content, entropy)
        if state.phase1 is not None:
            return Outgoing(1, state.own.specs, msgspec.structs.replace(state.phase1, message=message))
        if state.stage is Stage.DONE:
            if message is not UNSET:
                return Outgoing(None, None, message)
            state.due = None
            return Outgoing(4, None, Phase4(mac=state.macs[1]))
        state.due = None
        if state.phase2 is not None:
            return Outgoing(2, None, msgspec.structs.replace(state.phase2, message=message))
        return Outgoing(3, None, Phase3(mac=state.macs[0], message=message))

    # --- receiving ----------------------------------------------------------------------------------------------------

    def open(self, came: Incoming, now: int) -> Opened:
        """Open a message of the peer's.

        :param now: Unix seconds.
        :raises DuplicateError: for one that was opened before.
        :raises PeerError: ``not-authenticated``, for what is not of this session or does not verify; ``malformed``,
            ``too-large``.
        """
        state = self._state
        if came.src != state.peer.id or came.dst != state.own.id:
            raise PeerError(Code.NOT_AUTHENTICATED, "a message between others")
        if came.phase not in _TAKES[state.initiator, state.stage]:
            raise PeerError(Code.NOT_AUTHENTICATED, "a phase that this session does not take")
        data = came.data
        if isinstance(data, Message):
            received = self._ratchet.open(data, now)
            return Opened(received.content, None, self.confirmed, received.late)
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
        content, late = self._ride(self._ratchet, data, now)
        due: int | None = None
        if came.phase == 4:
            state.stage = Stage.DONE
        elif came.phase == 3 and state.stage is Stage.ACCEPTED:
            state.stage = Stage.DONE
            state.phase2 = None
            state.due = due = 4
        return Opened(content, due, self.confirmed, late)

    def _ride(self, ratchet: Ratchet, data: Phase1 | Phase2 | Phase3 | Phase4, now: int) -> tuple[bytes | None, bool]:
        """What rides on a phase that was checked."""
        if isinstance(data, Phase4) or data.message is UNSET:
            return None, False
        received = ratchet.open(data.message, now, first=not isinstance(data, Phase3))
        return received.content, received.late

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
        content, late = self._ride(ratchet, data, now)
        self._ratchet, state.ratchet = ratchet, ratchet.state
        state.stage = Stage.ANSWERED
        state.phase1 = None
        state.accepted = digest_of(data, None)
        state.macs = macs_of(spec, keys.confirm, th2)
        state.due = 3
        return Opened(content, 3, True, late)


def macs_of(spec: ModernSpec, confirm: bytes, th2: bytes) -> tuple[bytes, bytes]:
    """The macs of phases 3 and 4."""
    return schedule.phase_mac(spec, confirm, th2, 3), schedule.phase_mac(spec, confirm, th2, 4)


def digest_of(data: Phase1 | Phase2, ciphers: tuple[str, ...] | None) -> bytes:
    """SHA-256 over all of a phase but its message."""
    fields = payloads.encode(msgspec.structs.replace(data, message=UNSET))
    return primitives.digest("sha256", lp(fields, names(ciphers or ())))


_encoder = msgspec.msgpack.Encoder()
