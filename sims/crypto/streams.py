"""One stream of contents as it comes: what is in unbroken order, and what is behind something missing.

A content is chain(32) || MessagePack (protocol.rst, "Content"). Of what is behind a missing one only runs are kept:
each content of a run was checked against the chain of the one before, so that the first alone has to be looked at again
when the missing one has come.
"""

from __future__ import annotations

from bisect import bisect_right
from enum import StrEnum
from hashlib import sha256
from typing import Annotated

from msgspec import Meta
from msgspec.structs import replace

from sims.crypto import primitives
from sims.crypto.payloads import U64, Bytes8, Bytes32
from sims.crypto.stored import Stored

CHAIN_SIZE = 32
FIRST_CHAIN = bytes(CHAIN_SIZE)
#: What a content that is kept costs beside its bytes, roughly: so that many small ones have a bound as well.
COST = 512

Seq = Annotated[int, Meta(ge=1)]


def chained(before: bytes, packed: bytes) -> bytes:
    """The chain of a content whose MessagePack this is, after the chain of the one before."""
    return sha256(before + packed).digest()


class Place(StrEnum):
    """How a content stands to those that came before it."""

    IN_ORDER = "in order"
    GAP = "gap"  # something before it is missing, or was another than its sender says
    DOUBLED = "doubled"  # its number came before


class Run(Stored, frozen=True, kw_only=True):
    """Contents behind a missing one.

    :ivar first: the number of the first of them, and ``last`` that of the last.
    :ivar head: the first, as it came, for its chain to be checked; ``chain`` is that of the last.
    """

    first: Seq
    last: Seq
    head: bytes
    chain: Bytes32


class Stream(Stored, frozen=True, kw_only=True):
    """One stream of a peer's.

    :ivar stream: its 8 bytes.
    :ivar seq: the number of the last content in unbroken order, and ``chain`` its chain.
    :ivar runs: what came behind a missing one, in order; no two that fit together.
    """

    stream: Bytes8
    seq: U64 = 0
    chain: Bytes32 = FIRST_CHAIN
    runs: tuple[Run, ...] = ()

    @property
    def cost(self) -> int:
        """What is kept of it for later, in bytes."""
        return sum(len(run.head) + COST for run in self.runs)

    def taking(self, seq: int, data: bytes) -> tuple[Place, Stream]:
        """Where a content stands, and the stream with it.

        :param data: all its bytes; the chain in it is what its sender says of what came before.
        """
        runs = self.runs
        at = bisect_right(runs, seq, key=_first)
        if seq <= self.seq or (at and seq <= runs[at - 1].last):
            return Place.DOUBLED, self
        first, head, last, chain = seq, data, seq, data[:CHAIN_SIZE]
        low = high = at
        if at < len(runs) and runs[at].first == seq + 1 and _follows(chain, runs[at].head):
            last, chain, high = runs[at].last, runs[at].chain, at + 1
        if seq == self.seq + 1 and _follows(self.chain, data):
            return Place.IN_ORDER, replace(self, seq=last, chain=chain, runs=runs[high:])
        if at and runs[at - 1].last == seq - 1 and _follows(runs[at - 1].chain, data):
            first, head, low = runs[at - 1].first, runs[at - 1].head, at - 1
        run = Run(first=first, last=last, head=head, chain=chain)
        return Place.GAP, replace(self, runs=(*runs[:low], run, *runs[high:]))


def _first(run: Run) -> int:
    return run.first


def _follows(chain: bytes, data: bytes) -> bool:
    """Whether a content says that what has this chain came before it."""
    return primitives.same(chained(chain, data[CHAIN_SIZE:]), data[:CHAIN_SIZE])
