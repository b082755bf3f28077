"""The state of a ratchet and the layout of its headers (protocol.rst, "client-com"); :mod:`.ratchet` has the rules."""

from __future__ import annotations

from typing import Annotated, NamedTuple, TypeVar

from msgspec import Meta
from msgspec.structs import replace

from sims.crypto import primitives, remembered
from sims.crypto.notation import lp, u32
from sims.crypto.payloads import Bytes32
from sims.crypto.primitives import KEM_CIPHERTEXT_SIZE, KEM_PUBLIC_SIZE, KEM_SEED_SIZE
from sims.crypto.remembered import R_SIZE as R_SIZE
from sims.crypto.remembered import Log
from sims.crypto.stored import Number, Stored
from sims.errors import malformed
from sims.specs import ModernSpec

DAY = 86_400
#: So many messages are skipped in one jump, and so many skipped keys kept in a session, and for so long (seconds).
MAX_JUMP = 2000
MAX_SKIPPED = 2000
SKIPPED_LIFE = 30 * DAY
#: So many used numbers are remembered with their r, and so many chains kept for that alone. Beyond it a message that
#: comes twice is unreadable, not silent: it is asked for again rather than lost.
MAX_REMEMBERED = 2000
MAX_PAST = 5
#: So many chains are kept because something of them is missing: each header that no newer key opens is tried on all.
MAX_UNFINISHED = 250

T = TypeVar("T")

_FIRST = 0
_LATER = 1
_PLAIN = 1 + 32 + 4 + 4
_KEM = KEM_PUBLIC_SIZE + KEM_CIPHERTEXT_SIZE

#: A chain key or a message key: a chain begins with 32 bytes, what follows from them are whole hashes.
Key = Annotated[bytes, Meta(min_length=32, max_length=48)]
KemSeed = Annotated[bytes, Meta(min_length=KEM_SEED_SIZE, max_length=KEM_SEED_SIZE)]


class Sending(Stored, frozen=True, kw_only=True):
    """The own chain.

    :ivar key: the chain key.
    :ivar n: the number of the next message.
    :ivar pn: how many the own chain before had.
    :ivar dh: the own ratchet key, public.
    :ivar kem: the own ML-KEM key, public, and the ciphertext to the peer's; empty in the first chain.
    """

    header_key: Bytes32
    key: Key
    n: Number
    pn: Number
    dh: Bytes32
    kem: bytes


class Receiving(Stored, frozen=True, kw_only=True):
    """A chain of the peer's.

    :ivar key: the chain key; empty once another chain has begun.
    :ivar n: the number that is next in order.
    :ivar dh: the peer's ratchet key.
    :ivar kem: the peer's ML-KEM key; its SHA-256, once another chain has begun.
    :ivar first: whether it is the peer's first, whose keys came with a phase.
    :ivar skipped: number → message key, and when it was skipped (Unix seconds).
    :ivar used: the numbers that were used last, each with its r (:mod:`.remembered`). What these no longer tell apart,
        a number that was used in a chain that is forgotten or some 2,000 messages ago, is unreadable where it is a
        duplicate.
    """

    header_key: Bytes32
    key: bytes
    n: Number
    dh: Bytes32
    kem: bytes
    first: bool
    skipped: dict[Number, tuple[Key, Number]]
    used: Log

    def finished(self, n: int, skipped: dict[int, tuple[bytes, int]]) -> Receiving:
        """The same, after another chain has begun: it had ``n`` messages, and these are still missing."""
        return replace(self, key=b"", n=n, kem=primitives.digest("sha256", self.kem), skipped=skipped)


class RatchetState(Stored, frozen=True, kw_only=True):
    """Everything that a ratchet keeps.

    :ivar own_dh: the own ratchet key, private; with ``own_kem`` gone once the peer's next chain is accepted, which is
        how an end knows that it steps when it next sends.
    :ivar past: chains before the one that is received now, from the oldest on.
    """

    spec: str
    th1: bytes
    own_id: str
    peer_id: str
    root: Bytes32
    sending: Sending
    next_sending_key: Bytes32
    own_dh: Bytes32 | None
    own_kem: KemSeed | None
    receiving: Receiving | None
    next_receiving_key: Bytes32
    past: tuple[Receiving, ...]


def check_stored(state: RatchetState, spec: ModernSpec) -> None:
    """Refuse a state that no ratchet of this spec can be in, as far as one can go on from it without failing.

    :raises PeerError: ``malformed``.
    """
    receiving = state.receiving
    current = () if receiving is None else (receiving,)
    chains = (*state.past, *current)
    if not (
        len(state.th1) == spec.hash_size
        and len(state.sending.kem) in (0, _KEM)
        and (state.own_dh is None) == (state.own_kem is None)
        and (receiving is not None or (state.own_dh is not None and not state.past))
        and all(len(chain.kem) == KEM_PUBLIC_SIZE and 32 <= len(chain.key) <= 48 for chain in current)
        and all(len(chain.kem) == 32 and not chain.key for chain in state.past)
        and all(remembered.is_sound(chain.used) for chain in chains)
        and all(max((*chain.skipped, *remembered.numbers(chain.used)), default=-1) < chain.n for chain in chains)
    ):
        raise malformed("a stored ratchet in no state that there is")


def tidied(chains: list[Receiving], now: int) -> list[Receiving]:
    """What is kept of the peer's chains, all given from the oldest to the current one.

    Keys of 30 days go, and the oldest of all beyond their number. Of the chains before the current one, those stay of
    which something is missing, and the last few, of which something could come twice.
    """
    found = [_without_old(chain, now) for chain in chains]
    over = sum(len(chain.skipped) for chain in found) - MAX_SKIPPED
    forgotten = sum(remembered.count(chain.used) for chain in found) - MAX_REMEMBERED
    for index, chain in enumerate(found):
        if over <= 0 and forgotten <= 0:
            break
        keys = min(max(over, 0), len(chain.skipped))
        numbers = min(max(forgotten, 0), remembered.count(chain.used))
        if keys or numbers:
            used = remembered.without_first(chain.used, numbers)
            found[index] = replace(chain, skipped=_behind(chain.skipped, keys), used=used)
            over, forgotten = over - keys, forgotten - numbers
    last = MAX_PAST + 1
    if len(found) > last:
        unfinished = [chain for chain in found[:-last] if chain.skipped]
        found = [*unfinished[-MAX_UNFINISHED:], *found[-last:]]
    return found


def _behind(kept: dict[int, T], count: int) -> dict[int, T]:
    """The same without its first so many."""
    found = dict(kept)
    for _ in range(count):
        del found[next(iter(found))]
    return found


def _without_old(chain: Receiving, now: int) -> Receiving:
    """The chain without keys of 30 days; they stand in the order in which they were skipped."""
    if not chain.skipped or next(iter(chain.skipped.values()))[1] + SKIPPED_LIFE > now:
        return chain
    return replace(chain, skipped={n: kept for n, kept in chain.skipped.items() if kept[1] + SKIPPED_LIFE > now})


class Header(NamedTuple):
    """A header that was opened; ``kem_public_key`` and ``kem_ciphertext`` are empty in a first chain."""

    first: bool
    dh: bytes
    pn: int
    n: int
    kem_public_key: bytes
    kem_ciphertext: bytes


def plain_header(sending: Sending) -> bytes:
    """The plaintext of the next header: 41 bytes, or 2,313."""
    flags = b"\x01" if sending.kem else b"\x00"
    return flags + sending.dh + u32(sending.pn) + u32(sending.n) + sending.kem


def read_header(plain: bytes) -> Header:
    """The fields of a header.

    :raises PeerError: ``malformed``, for unknown flags or a length that does not go with them.
    """
    flags = plain[0]
    if flags not in (_FIRST, _LATER) or len(plain) != _PLAIN + flags * _KEM:
        raise malformed("a header with unknown flags, or of a length that does not go with them")
    kem = _PLAIN + KEM_PUBLIC_SIZE
    return Header(
        flags == _FIRST,
        plain[1:33],
        int.from_bytes(plain[33:37], "big"),
        int.from_bytes(plain[37:41], "big"),
        plain[_PLAIN:kem],
        plain[kem:],
    )


def header_ad(th1: bytes) -> bytes:
    """The additional data of a header."""
    return b"sims/2 header" + th1


def body_ad(spec: ModernSpec, sender: str, recipient: str) -> bytes:
    """The additional data of a body up to its header: LP(header, th1) follows."""
    return lp(b"client-com", spec.name.encode("ascii"), sender.encode("ascii"), recipient.encode("ascii"))
