"""What the tests build: predictable randomness, sessions, and pictures of a state to compare."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from enum import Enum
from functools import lru_cache
from hashlib import sha256
from typing import TypeVar

from cryptography.hazmat.primitives.asymmetric import ec

from sims.crypto.primitives import P384PrivateKey, P384PublicKey, p384_point
from sims.crypto.seed import Box, End, Initiator, Responder, Session
from sims.errors import SimsError
from sims.specs import SEED, CipherSpec

#: Why a module of property tests has nothing to run.
NO_HYPOTHESIS = "hypothesis is not installed: pip install sims[test]"

#: The pairs of ends whose salts fit together.
PAIRS = ((End.CLIENT, End.SERVER), (End.SERVER, End.CLIENT), (End.PEER, End.PEER))

_P384_ORDER = int(
    "ffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973", 16
)

E = TypeVar("E", bound=SimsError)


@lru_cache(maxsize=4096)
def _derived(number: int) -> P384PrivateKey:
    return ec.derive_private_key(number, ec.SECP384R1())  # the same few in most tests


class CountingEntropy:
    """Randomness that is the same in every run: SHA-256 of a seed and a counter.

    :ivar draws: how many blocks were used; what draws nothing leaves it as it was.
    :ivar keys: the private keys that were given out, in order.
    """

    def __init__(self, seed: str = "") -> None:
        self.draws = 0
        self.keys: list[P384PrivateKey] = []
        self._seed = seed.encode("utf-8")

    def octets(self, size: int) -> bytes:
        """``size`` bytes."""
        found = b""
        while len(found) < size:
            found += sha256(b"%s/%d" % (self._seed, self.draws)).digest()
            self.draws += 1
        return found[:size]

    def p384(self) -> P384PrivateKey:
        """A secp384r1 private key."""
        number = int.from_bytes(self.octets(56), "big") % (_P384_ORDER - 1) + 1
        key = _derived(number)
        self.keys.append(key)
        return key


def session_pair(
    end_a: End = End.PEER, end_b: End = End.PEER, spec: CipherSpec = SEED[0], *, seed: str = ""
) -> tuple[Session, Session]:
    """The two sessions that the four phases give: ``end_a`` initiates."""
    initiator = Initiator(end_a, [spec], CountingEntropy(f"{seed}/a"))
    responder = Responder(end_b, SEED, CountingEntropy(f"{seed}/b"))
    agreed = responder.answer(initiator.offer())
    keys, session_b = responder.accept(agreed.name, initiator.choose(agreed.name))
    return initiator.finish(keys), session_b


def snapshot(value: object) -> object:
    """A picture of a state that compares equal if, and only if, nothing in it has changed.

    Private keys are taken as numbers, public ones as points, objects as their class with all that they hold. Where
    randomness comes from is no part of a state.
    """
    if value is None or isinstance(value, bool | int | float | str | bytes | Enum):
        return value
    if isinstance(value, P384PrivateKey):
        return "private key", value.private_numbers().private_value
    if isinstance(value, P384PublicKey):
        return "public key", p384_point(value)
    if isinstance(value, dict):
        return "dict", tuple((snapshot(key), snapshot(item)) for key, item in value.items())
    if isinstance(value, set | frozenset):
        return "set", frozenset(snapshot(item) for item in value)
    if isinstance(value, Iterable):
        return type(value).__name__, tuple(snapshot(item) for item in value)
    if callable(getattr(value, "octets", None)):
        return "entropy"
    slots = [name for kind in type(value).__mro__ for name in getattr(kind, "__slots__", ())]
    names = sorted({*slots, *getattr(value, "__dict__", ())})
    held = tuple((name, snapshot(getattr(value, name))) for name in names if hasattr(value, name))
    if not held:
        raise TypeError(f"nothing is known of the state of a {type(value).__name__}")
    return type(value).__name__, held


def refusal(kind: type[E], act: Callable[..., object], *args: object) -> E:
    """The error of this kind (exactly) that ``act`` raises."""
    try:
        act(*args)
    except SimsError as error:
        if type(error) is kind:
            return error
        raise
    raise AssertionError(f"no {kind.__name__} was raised")


def flipped(data: bytes, position: int, bit: int = 0) -> bytes:
    """``data`` with one bit the other way round."""
    changed = bytearray(data)
    changed[position] ^= 1 << bit
    return bytes(changed)


def with_field(box: Box, field: str, value: bytes) -> Box:
    """``box`` with one of its five fields replaced."""
    return Box(**{**box._asdict(), field: value})


class Conversation:
    """Two sessions, numbered 0 and 1, and two links between them that keep what they carry in order.

    :ivar sent: what each end has sent.
    :ivar arrived: what has arrived at each end.
    :ivar links: what is on its way to each end: a box and its serial, or the serial of an acknowledgement alone.
    """

    def __init__(self, pair: tuple[Session, Session]) -> None:
        self.sessions = pair
        self.sent: tuple[list[bytes], list[bytes]] = ([], [])
        self.arrived: tuple[list[bytes], list[bytes]] = ([], [])
        self.links: tuple[deque[tuple[Box | None, int]], deque[tuple[Box | None, int]]] = (deque(), deque())
        self._last = [0, 0]  # the serial of what arrived last at each end
        self._acknowledged = [0, 0]

    def send(self, end: int) -> bool:
        """Seal one more, unless the window is full."""
        session = self.sessions[end]
        if not session.can_seal:
            return False
        text = b"%d from %d" % (len(self.sent[end]), end)
        self.links[1 - end].append((session.seal(text), session.serial))
        self.sent[end].append(text)
        return True

    def acknowledge(self, end: int) -> None:
        """Tell the other end, behind what this one has sent, how much has arrived."""
        if self._last[end] > self._acknowledged[end]:
            self._acknowledged[end] = self._last[end]
            self.links[1 - end].append((None, self._last[end]))

    def deliver(self, end: int) -> bool:
        """Let an end have the first that is on its way to it, if anything is."""
        if not self.links[end]:
            return False
        box, serial = self.links[end].popleft()
        if box is None:
            self.sessions[end].received(serial)
        else:
            self.arrived[end].append(self.sessions[end].open(box, bytes))
            self._last[end] = serial
        return True

    def drain(self) -> None:
        """Deliver and acknowledge whatever is under way."""
        for end in (0, 1):
            while self.deliver(end):
                pass
            self.acknowledge(end)
        for end in (0, 1):
            while self.deliver(end):
                pass

    def lost(self) -> tuple[list[bytes], list[bytes]]:
        """What does not stand where it should, in either direction: nothing is, once all is delivered."""
        differences: tuple[list[bytes], list[bytes]] = ([], [])
        for end in (0, 1):
            if self.arrived[1 - end] != self.sent[end][: len(self.arrived[1 - end])]:
                differences[end].extend(self.arrived[1 - end])
            differences[end].extend(self.sent[end][len(self.arrived[1 - end]) :])
        return differences
