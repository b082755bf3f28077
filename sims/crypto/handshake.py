"""connect: the four phases between a client and a server, both ends (protocol.rst, "connect").

::

    client.offer(encode)  -> frame 1           server.answer(frame 1, its list, its data) -> spec, data of 2
    client.answer(spec, data of 2) -> sealed3  server.accept(sealed3)                     -> who claims to be there
                                               server.welcome(...)                        -> sealed4, Hop
    client.finish(sealed4) -> Welcome, Hop     server.refuse(code)                        -> sealed4

An end that has refused something is of no more use: it refuses all that comes behind it, and its connection is closed.
It keeps neither clock nor socket; the binding is the TLS exporter's 32 bytes (RFC 9266), or empty on plain TCP.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import Enum, auto
from typing import Literal, NamedTuple, TypeVar

from msgspec import UNSET

from sims.crypto import payloads, primitives, schedule
from sims.crypto.hop import Hop, Side
from sims.crypto.identity import Identity, PublicIdentity
from sims.crypto.notation import pad, unpad
from sims.crypto.payloads import Answer, ClientProof, Limits, Offer, Outcome, Refusal, ServerProof, Welcome
from sims.crypto.primitives import KemKey, ModernEntropy, X25519Key
from sims.errors import Code, LocalError, PeerError, malformed
from sims.specs import ModernSpec, modern_chosen, preferred

T = TypeVar("T")

VERSION = 2
RANDOM_SIZE = 32
BINDING_SIZE = 32
#: A sealed part of a handshake: no frame before phase 4, of 8 KiB in base64, has room for more.
MAX_SEALED = 6144

_SERVER = "connect server"
_CLIENT = "connect client"


class Phase(Enum):
    """Where an end is."""

    START = auto()
    OFFERED = auto()  # client: 1 is out
    ANSWERED = auto()  # server: 2 is out
    PROVED = auto()  # client: 3 is out; server: 3 has come
    DONE = auto()
    REFUSED = auto()  # something was refused: nothing goes on from here


class Agreed(NamedTuple):
    """What a server answers: the spec (for ``ciphers``) and the ``data`` of connect 2."""

    spec: ModernSpec
    data: Answer


class Claim(NamedTuple):
    """Who has proved to be there, and what they ask for.

    :ivar identity: proved.
    :ivar name: a wish: the server decides.
    :ivar invite: an invitation, if one was sent.
    :ivar epoch: the client's count of its connects, if it was sent.
    """

    identity: PublicIdentity
    name: str
    invite: str | None
    epoch: int | None

    @property
    def id(self) -> str:
        """The id of the proved identity."""
        return self.identity.id

    def __repr__(self) -> str:
        return f"<claim of {self.id}>"  # without the invitation


class Joined(NamedTuple):
    """A client's end of connect.

    :ivar name: the server's word.
    :ivar epoch: the highest that the server saw of this client before, if it says so.
    :ivar restored: true when that is not lower than the own one: this store was restored from a copy.
    """

    hop: Hop
    name: str
    limits: Limits
    time: int
    epoch: int | None
    restored: bool


class _End:
    """What the two ends have in common."""

    def __init__(self, identity: Identity, specs: Sequence[ModernSpec], binding: bytes, entropy: ModernEntropy) -> None:
        if len(binding) not in (0, BINDING_SIZE):
            raise LocalError(Code.INTERNAL, f"a binding of {len(binding)} bytes, where {BINDING_SIZE} or none are due")
        self.phase = Phase.START
        self._identity = identity
        self._specs = tuple(specs)
        self._binding = binding
        self._entropy = entropy
        self._transcript: _Transcript | None = None

    @contextmanager
    def _due(self, *phases: Phase) -> Iterator[None]:
        """Refuse unless this is the phase; whatever is refused, nothing goes on behind it."""
        try:
            if self.phase not in phases:
                raise malformed("a phase of connect that is not the next")
            yield
        except PeerError:
            self.phase = Phase.REFUSED
            raise


class _Transcript:
    """What both ends keep alike: the spec, hs, and the transcript hash so far."""

    __slots__ = ("hash", "hs", "spec")

    def __init__(self, spec: ModernSpec, hs: bytes, th1: bytes) -> None:
        self.spec = spec
        self.hs = hs
        self.hash = th1

    def __repr__(self) -> str:
        return f"<transcript {self.spec.name}>"

    def seal(self, phase: Literal[2, 3, 4], plaintext: bytes) -> bytes:
        padded = pad("box", plaintext)
        if len(padded) + primitives.TAG_SIZE > MAX_SEALED:
            raise LocalError(Code.TOO_LARGE, "what does not fit in a frame of connect")
        key, nonce = schedule.connect_phase(self.spec, self.hs, phase, self.hash)
        sealed = primitives.aead_seal(self.spec.aead, key, nonce, self.hash, padded)
        self.hash = schedule.connect_next(self.spec, self.hash, sealed)
        return sealed

    def open(self, phase: Literal[2, 3, 4], sealed: bytes, kind: type[T]) -> T:
        """What is in a box; the hash goes on only when :meth:`take` is called with it."""
        if len(sealed) > MAX_SEALED:
            raise PeerError(Code.TOO_LARGE, "a sealed part of a handshake is too long")
        key, nonce = schedule.connect_phase(self.spec, self.hs, phase, self.hash)
        return payloads.decode(kind, unpad("box", primitives.aead_open(self.spec.aead, key, nonce, self.hash, sealed)))

    def take(self, sealed: bytes) -> None:
        self.hash = schedule.connect_next(self.spec, self.hash, sealed)

    def hop(self, side: Side, now: float, limits: Limits) -> Hop:
        keys = schedule.channel(self.spec, self.hs, self.hash)
        messages, seconds = limits.rekey_messages, limits.rekey_seconds
        return Hop(side, self.spec, self.hash, keys, now=now, rekey_messages=messages, rekey_seconds=seconds)


class Client(_End):
    """The client's end."""

    def __init__(
        self,
        identity: Identity,
        server: str,
        name: str,
        specs: Sequence[ModernSpec],
        *,
        binding: bytes,
        entropy: ModernEntropy,
        invite: str | None = None,
        epoch: int | None = None,
    ) -> None:
        """Begin.

        :param server: the id in the link.
        :param epoch: raised and committed before each connect; None where no store keeps one.
        :raises LocalError: ``internal``, for a binding that is neither empty nor 32 bytes.
        """
        super().__init__(identity, specs, binding, entropy)
        self._server = server
        self._name = name
        self._invite = invite
        self._epoch = epoch
        self._frame1 = b""
        self._key: X25519Key | None = None
        self._kem: KemKey | None = None

    def __repr__(self) -> str:
        return f"<connect client {self.phase.name.lower()}>"

    def offer(self, encode: Callable[[list[str], Offer], bytes]) -> bytes:
        """Phase 1: the frame that ``encode`` makes of ``ciphers`` and ``data``, without its terminator.

        :raises LocalError: ``internal``, the second time.
        """
        if self.phase is not Phase.START:
            raise LocalError(Code.INTERNAL, "the offer was made already")
        self._key, self._kem = self._entropy.x25519(), self._entropy.mlkem768()
        data = Offer(
            version=VERSION,
            random=self._entropy.octets(RANDOM_SIZE),
            public_key=self._key.public,
            kem_public_key=self._kem.public,
        )
        self._frame1 = encode([spec.name for spec in self._specs], data)
        self.phase = Phase.OFFERED
        return self._frame1

    def answer(self, ciphers: str, data: Answer) -> bytes:
        """Phase 2 in, sealed3 out: only for the server of the link, so that nobody else sees name and id.

        :raises PeerError: ``no-common-spec``, for a spec that was not offered; ``not-authenticated``, when the box or
            the signature does not verify, or the identity is not the link's; ``malformed``; ``too-large``.
        :raises LocalError: ``too-large``, for a name or an invitation that does not fit in a frame.
        """
        with self._due(Phase.OFFERED):
            return self._answer(ciphers, data)

    def _answer(self, ciphers: str, data: Answer) -> bytes:
        key, kem = self._key, self._kem
        if key is None or kem is None:
            raise malformed("phase 2 before phase 1")
        spec = modern_chosen(ciphers, self._specs)
        th1 = schedule.connect_th1(spec, self._frame1, self._binding, data.random, data.public_key, data.kem_ciphertext)
        dh = key.exchange(data.public_key)
        hs = schedule.connect_secret(spec, kem.decapsulate(data.kem_ciphertext), dh)
        transcript = _Transcript(spec, hs, th1)
        proof = transcript.open(2, data.sealed, ServerProof)
        identity = PublicIdentity(proof.sign, proof.dh)
        if identity.id != self._server:
            raise PeerError(Code.NOT_AUTHENTICATED, "the server has another identity than the one in its link")
        identity.verify(_SERVER, th1, proof.signature)
        transcript.take(data.sealed)
        own = self._identity
        mine = ClientProof(
            sign=own.public.sign,
            dh=own.public.dh,
            name=self._name,
            invite=UNSET if self._invite is None else self._invite,
            epoch=UNSET if self._epoch is None else self._epoch,
            signature=own.sign(_CLIENT, transcript.hash + self._server.encode("ascii")),
        )
        sealed = transcript.seal(3, payloads.encode(mine))
        self._transcript = transcript
        self._key = self._kem = None
        self.phase = Phase.PROVED
        return sealed

    def finish(self, sealed: bytes, now: float) -> Joined:
        """Phase 4 in, the hop out.

        :raises PeerError: the server's code, when it refuses; ``not-authenticated``, ``malformed``, ``too-large``.
        """
        with self._due(Phase.PROVED):
            return self._finish(sealed, now)

    def _finish(self, sealed: bytes, now: float) -> Joined:
        transcript = self._transcript
        if transcript is None:
            raise malformed("phase 4 before phase 3")
        outcome = transcript.open(4, sealed, Outcome)
        if outcome.error is not UNSET:
            known = Code(outcome.error) if outcome.error in set(Code) else Code.UNAVAILABLE
            raise PeerError(known, "the server refuses this connection")
        if outcome.name is UNSET or outcome.limits is UNSET or outcome.time is UNSET:
            raise malformed("a phase 4 with neither a welcome nor an error")
        transcript.take(sealed)
        hop = transcript.hop(Side.CLIENT, now, outcome.limits)
        epoch = None if outcome.epoch is UNSET else outcome.epoch
        restored = epoch is not None and self._epoch is not None and epoch >= self._epoch
        self._transcript = None  # it could give the first keys of the hop again
        self.phase = Phase.DONE
        return Joined(hop, outcome.name, outcome.limits, outcome.time, epoch, restored)


class Server(_End):
    """The server's end."""

    def __init__(
        self, identity: Identity, specs: Sequence[ModernSpec], *, binding: bytes, entropy: ModernEntropy
    ) -> None:
        """Begin; ``specs`` in order of preference.

        :raises LocalError: ``internal``, for a binding that is neither empty nor 32 bytes.
        """
        super().__init__(identity, specs, binding, entropy)

    def __repr__(self) -> str:
        return f"<connect server {self.phase.name.lower()}>"

    def answer(self, frame1: bytes, ciphers: Sequence[str], data: Offer) -> Agreed:
        """Phase 1 in, phase 2 out.

        :param frame1: the frame as it came, without its terminator; ``ciphers`` and ``data`` are what it holds.
        :raises PeerError: ``no-common-spec``, for another version too; ``malformed``.
        """
        with self._due(Phase.START):
            return self._answer(frame1, ciphers, data)

    def _answer(self, frame1: bytes, ciphers: Sequence[str], data: Offer) -> Agreed:
        if data.version != VERSION:
            raise PeerError(Code.NO_COMMON_SPEC, f"version {data.version} of connect, where {VERSION} is spoken")
        spec = preferred(ciphers, self._specs)
        key = self._entropy.x25519()
        random = self._entropy.octets(RANDOM_SIZE)
        dh = key.exchange(data.public_key)
        ciphertext, secret = self._entropy.encapsulate(data.kem_public_key)
        th1 = schedule.connect_th1(spec, frame1, self._binding, random, key.public, ciphertext)
        transcript = _Transcript(spec, schedule.connect_secret(spec, secret, dh), th1)
        own = self._identity
        proof = ServerProof(sign=own.public.sign, dh=own.public.dh, signature=own.sign(_SERVER, th1))
        sealed = transcript.seal(2, payloads.encode(proof))
        self._transcript = transcript
        self.phase = Phase.ANSWERED
        return Agreed(spec, Answer(random=random, public_key=key.public, kem_ciphertext=ciphertext, sealed=sealed))

    def accept(self, sealed: bytes) -> Claim:
        """Phase 3 in: who is there; then call :meth:`welcome` or :meth:`refuse`.

        :raises PeerError: ``not-authenticated``, when the box or the signature does not verify; ``malformed``;
            ``too-large``.
        """
        with self._due(Phase.ANSWERED):
            return self._accept(sealed)

    def _accept(self, sealed: bytes) -> Claim:
        transcript = self._transcript
        if transcript is None:
            raise malformed("phase 3 before phase 2")
        proof = transcript.open(3, sealed, ClientProof)
        identity = PublicIdentity(proof.sign, proof.dh)
        identity.verify(_CLIENT, transcript.hash + self._identity.id.encode("ascii"), proof.signature)
        transcript.take(sealed)
        self.phase = Phase.PROVED
        invite = None if proof.invite is UNSET else proof.invite
        epoch = None if proof.epoch is UNSET else proof.epoch
        return Claim(identity, proof.name, invite, epoch)

    def welcome(self, name: str, limits: Limits, time: int, now: float, epoch: int | None = None) -> tuple[bytes, Hop]:
        """sealed4 and the hop, for a client that is taken in.

        :param time: Unix seconds, for the client's information.
        :param now: for the hop, as in :class:`~sims.crypto.hop.Hop`.
        :param epoch: the highest that was seen of this client before.
        :raises LocalError: ``internal``, unless phase 3 has come.
        """
        said = Welcome(name=name, limits=limits, time=time, epoch=UNSET if epoch is None else epoch)
        sealed, transcript = self._fourth(said)
        return sealed, transcript.hop(Side.SERVER, now, limits)

    def refuse(self, code: Code) -> bytes:
        """sealed4 for a client that is not.

        :raises LocalError: ``internal``, unless phase 3 has come.
        """
        return self._fourth(Refusal(error=code.value))[0]

    def _fourth(self, said: Welcome | Refusal) -> tuple[bytes, _Transcript]:
        transcript = self._transcript
        if self.phase is not Phase.PROVED or transcript is None:
            raise LocalError(Code.INTERNAL, "nobody has proved to be there")
        sealed = transcript.seal(4, payloads.encode(said))
        self._transcript = None  # it could give the first keys of the hop again
        self.phase = Phase.DONE
        return sealed, transcript
