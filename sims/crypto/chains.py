"""The state of a ratchet and the layout of its headers (protocol.rst, "client-com"); :mod:`.ratchet` has the rules."""

from __future__ import annotations

from typing import NamedTuple

from msgspec import Struct

from sims.crypto.notation import lp, u32
from sims.crypto.primitives import KEM_CIPHERTEXT_SIZE, KEM_PUBLIC_SIZE
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

R_SIZE = 12
_FIRST = 0
_LATER = 1
_PLAIN = 1 + 32 + 4 + 4
_KEM = KEM_PUBLIC_SIZE + KEM_CIPHERTEXT_SIZE


class Sending(Struct, kw_only=True):
    """The own chain.

    :ivar key: the chain key.
    :ivar n: the number of the next message.
    :ivar pn: how many the own chain before had.
    :ivar dh: the own ratchet key, public.
    :ivar kem: the own ML-KEM key, public, and the ciphertext to the peer's; empty in the first chain.
    """

    header_key: bytes
    key: bytes
    n: int
    pn: int
    dh: bytes
    kem: bytes

    def __repr__(self) -> str:
        return f"<sending chain, {self.n} sent>"


class Receiving(Struct, kw_only=True):
    """A chain of the peer's.

    :ivar key: the chain key; empty once another chain has begun.
    :ivar n: the number that is next in order.
    :ivar dh: the peer's ratchet key.
    :ivar kem: the peer's ML-KEM key.
    :ivar first: whether it is the peer's first, whose keys came with a phase.
    :ivar skipped: number → message key, and when it was skipped (Unix seconds).
    :ivar used: number → r, of the newest that were used.
    """

    header_key: bytes
    key: bytes
    n: int
    dh: bytes
    kem: bytes
    first: bool
    skipped: dict[int, tuple[bytes, int]]
    used: dict[int, bytes]

    def __repr__(self) -> str:
        return f"<receiving chain, {self.n} received, {len(self.skipped)} of them not yet>"


class RatchetState(Struct, kw_only=True):
    """Everything that a ratchet keeps.

    :ivar own_dh: the own ratchet key, private; with ``own_kem`` gone once the peer's next chain is accepted, which is
        how an end knows that it steps when it next sends.
    """

    spec: str
    th1: bytes
    own_id: str
    peer_id: str
    root: bytes
    sending: Sending
    next_sending_key: bytes
    own_dh: bytes | None
    own_kem: bytes | None
    receiving: Receiving | None
    next_receiving_key: bytes
    past: list[Receiving]

    def __repr__(self) -> str:
        return f"<ratchet with {self.peer_id}>"


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
