"""Which numbers of a chain were used, and the r of each: what tells a message that comes twice from a forged one.

A log of entries of 16 bytes, number(4) || r(12), the oldest first, in pieces of at most 64 entries: to add one copies
no more than the last piece.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from msgspec import Meta

R_SIZE = 12
ENTRY = 4 + R_SIZE
PIECE = 64 * ENTRY

#: The log. It is replaced and never changed.
Log = tuple[Annotated[bytes, Meta(min_length=ENTRY, max_length=PIECE)], ...]


def add(log: Log, number: int, r: bytes) -> Log:
    """The log with one more entry."""
    entry = number.to_bytes(4, "big") + r
    if not log or len(log[-1]) >= PIECE:
        return (*log, entry)
    return (*log[:-1], log[-1] + entry)


def find(log: Log, number: int) -> bytes | None:
    """The r that was used with a number, 12 bytes, if it is remembered."""
    wanted = number.to_bytes(4, "big")
    for piece in log:
        for start in range(0, len(piece), ENTRY):
            if piece[start : start + 4] == wanted:
                return piece[start + 4 : start + ENTRY]
    return None


def numbers(log: Log) -> list[int]:
    """All numbers, in the order in which they were used."""
    return [int.from_bytes(piece[start : start + 4], "big") for piece in log for start in range(0, len(piece), ENTRY)]


def count(log: Log) -> int:
    """How many there are."""
    # All pieces but the first and the last are full; the first may have lost some.
    return sum(map(len, log)) // ENTRY


def without_first(log: Log, many: int) -> Log:
    """The log without its oldest so many entries."""
    size = many * ENTRY
    kept: list[bytes] = []
    for piece in log:
        if size >= len(piece):
            size -= len(piece)
            continue
        kept.append(piece[size:])
        size = 0
    return tuple(kept)


def is_sound(log: Iterable[bytes]) -> bool:
    """Whether a stored log is one."""
    return all(len(piece) % ENTRY == 0 for piece in log)
