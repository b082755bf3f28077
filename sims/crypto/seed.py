"""The seed's handshake and its ratchet, for both hops (seed.rst, "The seed's key schedule").

Four phases in, a :class:`Session` out: ``seal(plaintext) -> box`` and ``open(box) -> plaintext``. Whether the hop is
client-server or client-client shows only in the :class:`End`, which says how the salt is put together.

An end keeps its own key pairs from the one that the peer is known to have used last up to the newest, because what
crosses on the wire may have been made for any of them. Nothing here keeps a clock, a socket or a random source.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum, auto
from typing import NamedTuple, Protocol, TypeVar

from sims.crypto import primitives
from sims.crypto.primitives import Entropy, P384PrivateKey, P384PublicKey
from sims.errors import Code, LocalError, PeerError, malformed
from sims.specs import CipherSpec, chosen, negotiate

T = TypeVar("T")

RANDOM_SIZE = 32
IV_SIZE = 16
_KEY_SIZE = 32
_HKDF_INFO = b"hkdf-example"

#: So many frames go out that the peer is not known to have received; then sealing waits.
WINDOW = 64
#: So many older pairs are kept beyond those that the peer is known to have received but not seen to use.
GRACE = 64
#: So many frames are taken that were made for one and the same pair of ours (each is remembered against replay).
MAX_FRAMES_PER_PAIR = 8192


class End(Enum):
    """Which end of a hop this is: the order of the salt's halves, (own first when sealing, own first when opening)."""

    CLIENT = (True, True)
    SERVER = (False, False)
    PEER = (False, True)

    def __init__(self, own_first_sealing: bool, own_first_opening: bool) -> None:
        self.own_first_sealing = own_first_sealing
        self.own_first_opening = own_first_opening


class BoxLike(Protocol):
    """What travels: the five fields of ``secure`` and of client-com, as :class:`Box` names them."""

    @property
    def hash(self) -> bytes:
        """The MAC."""

    @property
    def iv(self) -> bytes:
        """The initial block."""

    @property
    def random(self) -> bytes:
        """The sender's new random."""

    @property
    def ciphertext(self) -> bytes:
        """As long as the plaintext."""

    @property
    def public_key(self) -> bytes:
        """The sender's new public key."""


class Box(NamedTuple):
    """A sealed plaintext: MAC (32 or 48 bytes), iv (16), the sender's new random (32) and public key (PEM, 215)."""

    hash: bytes
    iv: bytes
    random: bytes
    ciphertext: bytes
    public_key: bytes


class Keys(NamedTuple):
    """What phases 3 and 4 carry: a public key (PEM, 215 bytes) and a random (32 bytes)."""

    public_key: bytes
    random: bytes


class _Own:
    """A pair of ours that the peer may still use."""

    __slots__ = ("private", "random", "seen", "serial")

    def __init__(self, private: P384PrivateKey, random: bytes, serial: int) -> None:
        self.private = private
        self.random = random
        self.serial = serial
        self.seen: set[bytes] = set()


class Habit(Enum):
    """How a peer may go on from the pair that it used last: with the next, with our newest, with the same."""

    NEXT = auto()
    NEWEST = auto()
    SAME = auto()


class TrialOrder:
    """In which order kept pairs are tried: by habit, then upwards.

    Each further trial costs about 0.4 of a relay, and a peer goes on as it did: one that answers each message uses
    the next pair, one that reads in bursts the newest, one that only talks the same.
    """

    __slots__ = ("_habits",)

    def __init__(self) -> None:
        self._habits = tuple(Habit)  # the one that was right last, first

    def order(self, kept: int) -> list[int]:
        """The places of ``kept`` pairs, of which the first is that used last and the last the newest."""
        if kept == 1:
            return [0]
        if kept == 2:  # by far the commonest
            return [0, 1] if self._habits[0] is Habit.SAME else [1, 0]
        return [*dict.fromkeys([_place(habit, kept) for habit in self._habits]), *range(2, kept - 1)]

    def learn(self, place: int, kept: int) -> None:
        """The pair at ``place`` was the right one."""
        if kept == 1:
            return  # every habit comes to the same
        for habit in self._habits:
            if _place(habit, kept) == place:
                if habit is not self._habits[0]:
                    self._habits = (habit, *(other for other in self._habits if other is not habit))
                return


def _place(habit: Habit, kept: int) -> int:
    if habit is Habit.SAME or kept == 1:
        return 0
    return 1 if habit is Habit.NEXT else kept - 1


class Derivation(NamedTuple):
    """The secrets behind one box: the ECDH result (48 bytes), the salt (64) and the key (32)."""

    shared: bytes
    salt: bytes
    key: bytes

    def __repr__(self) -> str:
        return "<derivation>"


def derive(private: P384PrivateKey, public: P384PublicKey, first: bytes, second: bytes) -> Derivation:
    """The key of one box from a pair's private half, the other's public half and the two halves of the salt."""
    shared = primitives.p384_exchange(private, public)
    salt = first + second
    return Derivation(shared, salt, primitives.hkdf_sha256(shared, salt, _HKDF_INFO, _KEY_SIZE))


class Session:
    """One end of a hop after its four phases.

    ``open`` finds the key without changing anything, verifies, decrypts, lets the caller decode, and only then
    commits: after any error the session is as it was.
    """

    __slots__ = ("_end", "_entropy", "_known", "_own", "_peer", "_peer_random", "_serial", "_trials", "spec")

    def __init__(
        self, end: End, spec: CipherSpec, own: tuple[P384PrivateKey, bytes], peer: Keys, entropy: Entropy
    ) -> None:
        """Begin from what phases 3 and 4 carried.

        :raises PeerError: ``malformed``, when the peer's key or random is not what it must be.
        """
        self.spec = spec
        self._end = end
        self._entropy = entropy
        self._peer, _ = primitives.p384_from_pem(peer.public_key)
        self._peer_random = _checked_random(peer.random)
        self._own = [_Own(*own, serial=0)]
        self._serial = 0  # of the newest pair
        self._known = 0  # the newest pair that the peer is known to have received
        self._trials = TrialOrder()

    def __repr__(self) -> str:
        return f"<seed session {self._end.name.lower()} {self.spec.name}, {len(self._own)} own pairs>"

    @property
    def can_seal(self) -> bool:
        """False while :data:`WINDOW` boxes are under way that the peer is not known to have received."""
        return self._serial - self._known < WINDOW

    @property
    def serial(self) -> int:
        """How many boxes were sealed; the last one's number."""
        return self._serial

    def seal(self, plaintext: bytes) -> Box:
        """Seal one plaintext under a fresh pair.

        :raises LocalError: ``rate-limited``, when :attr:`can_seal` is false.
        """
        if not self.can_seal:
            raise LocalError(Code.RATE_LIMITED, f"{WINDOW} messages are on their way, and none is known to have come")
        private = self._entropy.p384()
        random = self._entropy.octets(RANDOM_SIZE)
        iv = self._entropy.octets(IV_SIZE)
        halves = (random, self._peer_random) if self._end.own_first_sealing else (self._peer_random, random)
        key = derive(private, self._peer, *halves).key
        ciphertext = primitives.aes_stream(key, iv, self.spec.mode, plaintext)
        box = Box(
            hash=primitives.mac(key, ciphertext, self.spec.hash),
            iv=iv,
            random=random,
            ciphertext=ciphertext,
            public_key=primitives.p384_to_pem(private.public_key()),
        )
        self._serial += 1
        self._own.append(_Own(private, random, self._serial))
        return box

    def open(self, box: BoxLike, decode: Callable[[bytes], T]) -> T:
        """Open one box and give what ``decode`` makes of its plaintext.

        ``decode`` runs before anything is committed, because the seed's MAC does not cover the iv: a changed iv shows
        only in a plaintext that makes no sense. What it raises passes through.

        :raises PeerError: ``malformed`` for a key or a length that cannot be, ``not-authenticated`` for a box that
            no pair of ours opens or that was opened before, ``rekey-required`` for a peer that goes on using one pair.
        """
        public, point = primitives.p384_from_pem(box.public_key)
        random = _checked_random(box.random)
        if len(box.iv) != IV_SIZE:
            raise malformed(f"an iv of {len(box.iv)} bytes, not {IV_SIZE}")
        fingerprint = point[1:17]
        kept = self._own
        for own in kept:
            if fingerprint in own.seen:
                raise PeerError(Code.NOT_AUTHENTICATED, "a message that was received before")
        for index in self._trials.order(len(kept)):
            own = kept[index]
            halves = (own.random, random) if self._end.own_first_opening else (random, own.random)
            key = derive(own.private, public, *halves).key
            if primitives.same(primitives.mac(key, box.ciphertext, self.spec.hash), box.hash):
                break
        else:
            raise PeerError(Code.NOT_AUTHENTICATED, "a message that does not verify")
        if len(own.seen) >= MAX_FRAMES_PER_PAIR:
            raise PeerError(Code.REKEY_REQUIRED, "too many messages for one and the same key of this side")
        value = decode(primitives.aes_stream(key, box.iv, self.spec.mode, box.ciphertext))
        self._trials.learn(index, len(kept))
        del kept[:index]
        own.seen.add(fingerprint)
        self._known = max(self._known, own.serial)
        self._peer = public
        self._peer_random = random
        return value

    def received(self, serial: int) -> None:
        """Take note that the peer has received the box of this :attr:`serial`: it was acknowledged.

        That makes room in the window. Older pairs go only when :data:`GRACE` newer ones are known to have arrived, as
        the peer may have had something under way when it acknowledged.
        """
        self._known = max(self._known, min(serial, self._serial))
        while len(self._own) > 1 and self._own[1].serial <= self._known - GRACE:
            del self._own[0]


def _checked_random(random: bytes) -> bytes:
    if len(random) != RANDOM_SIZE:
        raise malformed(f"a random of {len(random)} bytes, not {RANDOM_SIZE}")
    return random


class Phase(Enum):
    """Where a handshake is."""

    START = auto()
    OFFERED = auto()  # initiator: 1 is out; responder: 2 is out
    KEYED = auto()  # initiator: 3 is out
    DONE = auto()


class Initiator:
    """The end that sends phases 1 and 3."""

    def __init__(self, end: End, offer: Sequence[CipherSpec], entropy: Entropy) -> None:
        self.phase = Phase.START
        self._end = end
        self._offer = tuple(offer)
        self._entropy = entropy
        self._spec: CipherSpec | None = None
        self._own: tuple[P384PrivateKey, bytes] | None = None

    def offer(self) -> list[str]:
        """Phase 1: the names of the specs in order of preference."""
        if self.phase is not Phase.START:
            raise LocalError(Code.INTERNAL, "the offer was made already")
        self.phase = Phase.OFFERED
        return [spec.name for spec in self._offer]

    def choose(self, name: str) -> Keys:
        """Phase 2 in, phase 3 out.

        :raises PeerError: ``no-common-spec`` for a spec that was not offered, ``malformed`` out of order.
        """
        if self.phase is not Phase.OFFERED:
            raise malformed("phase 2 out of order")
        self._spec = chosen(name, self._offer)
        self._own, keys = _fresh(self._entropy)
        self.phase = Phase.KEYED
        return keys

    @property
    def spec(self) -> CipherSpec | None:
        """The spec that was agreed, from phase 2 on."""
        return self._spec

    def finish(self, keys: Keys) -> Session:
        """Phase 4 in, the session out.

        :raises PeerError: ``malformed``, for a key or random that cannot be, or out of order.
        """
        if self.phase is not Phase.KEYED or self._spec is None or self._own is None:
            raise malformed("phase 4 out of order")
        session = Session(self._end, self._spec, self._own, keys, self._entropy)
        self.phase = Phase.DONE
        self._own = None
        return session


class Responder:
    """The end that sends phases 2 and 4."""

    def __init__(self, end: End, allowed: Sequence[CipherSpec], entropy: Entropy) -> None:
        self.phase = Phase.START
        self._end = end
        self._allowed = tuple(allowed)
        self._entropy = entropy
        self._spec: CipherSpec | None = None

    def answer(self, offer: Sequence[str]) -> CipherSpec:
        """Phase 1 in, the spec of phase 2 out.

        :raises PeerError: ``no-common-spec``, ``malformed`` out of order.
        """
        if self.phase is not Phase.START:
            raise malformed("phase 1 out of order")
        self._spec = negotiate(offer, self._allowed)
        self.phase = Phase.OFFERED
        return self._spec

    def accept(self, name: str, keys: Keys) -> tuple[Keys, Session]:
        """Phase 3 in, phase 4 and the session out.

        :raises PeerError: ``no-common-spec`` for another spec than the agreed one, ``malformed`` for a key or random
            that cannot be, or out of order.
        """
        if self.phase is not Phase.OFFERED or self._spec is None:
            raise malformed("phase 3 out of order")
        if name != self._spec.name:
            raise PeerError(Code.NO_COMMON_SPEC, "phase 3 names another cipher spec than the one agreed")
        own, answer = _fresh(self._entropy)
        session = Session(self._end, self._spec, own, keys, self._entropy)
        self.phase = Phase.DONE
        return answer, session


def _fresh(entropy: Entropy) -> tuple[tuple[P384PrivateKey, bytes], Keys]:
    private = entropy.p384()
    random = entropy.octets(RANDOM_SIZE)
    return (private, random), Keys(primitives.p384_to_pem(private.public_key()), random)
