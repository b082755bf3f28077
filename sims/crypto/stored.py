"""What the crypto core stores: frozen types that are replaced and never changed, so that a copy costs nothing."""

from __future__ import annotations

from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta, Struct

from sims.errors import malformed

T = TypeVar("T", bound="Stored")

#: A count, or Unix seconds.
Number = Annotated[int, Meta(ge=0)]


class Stored(Struct, frozen=True, kw_only=True):
    """What is stored. It may hold keys, so its repr says nothing; its dicts and lists are never changed in place."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


_ERRORS = (msgspec.MsgspecError, RecursionError, UnicodeDecodeError, OverflowError)
_encoder = msgspec.msgpack.Encoder()


def dump(state: Stored) -> bytes:
    """A state in MessagePack."""
    return _encoder.encode(state)


def load(kind: type[T], dumped: bytes) -> T:
    """What :func:`dump` gave for a state of this type.

    :raises PeerError: ``malformed``, for any other bytes: another version, unknown and missing fields, keys that stand
        twice.
    """
    try:
        state = msgspec.msgpack.decode(dumped, type=kind)
        same = _encoder.encode(state) == dumped
    except _ERRORS:
        same = False
    if not same:
        raise malformed(f"not a stored {kind.__name__} of this version")
    return state
