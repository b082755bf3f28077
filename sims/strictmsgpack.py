"""MessagePack that any two parsers read alike: what everything inside a sealed box is checked for first."""

from __future__ import annotations

from math import isnan
from struct import unpack_from

from sims.errors import PeerError, malformed

MAX_DEPTH = 8
#: So many values, keys not counted, are in one message: several times as many as any message here has. Whoever checks
#: it does so at some microseconds each.
MAX_VALUES = 4096

# First byte -> bytes behind it: of the value itself, or of its length.
_FIXED = {0xC0: 0, 0xC2: 0, 0xC3: 0, 0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8, 0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8}
_TEXTS = {0xD9: 1, 0xDA: 2, 0xDB: 4}
_BINARIES = {0xC4: 1, 0xC5: 2, 0xC6: 4}
_ARRAYS = {0xDC: 2, 0xDD: 4}
_MAPS = {0xDE: 2, 0xDF: 4}
_FLOATS = {0xCA: ">f", 0xCB: ">d"}


def check(data: bytes) -> None:
    """Refuse what is not one MessagePack value, or one that two parsers could read differently.

    Refused are: a key twice in one map, a key that is no text, NaN, extension types, more than :data:`MAX_DEPTH` maps
    and arrays in one another, text that is not UTF-8, and anything before the end or after it.

    :raises PeerError: ``malformed``.
    """
    end = len(data)
    position = 0
    # For each open map or array: how many values are still to come, and the keys so far (None in an array).
    open_: list[tuple[int, set[bytes] | None]] = []
    values = 0
    try:
        while True:
            if open_:
                left, keys = open_[-1]
                if left == 0:
                    open_.pop()
                    if not open_:
                        break
                    continue
                open_[-1] = left - 1, keys
                if keys is not None:
                    position = _key(data, position, keys)
            values += 1
            if values > MAX_VALUES:
                raise _bad("it holds too many values")
            position, inside = _value(data, position)
            if position > end:
                raise _bad("it ends in the middle")
            if inside is not None:
                # Every value is a byte at least: a length that cannot be is not believed.
                if len(open_) >= MAX_DEPTH or inside[0] > end - position:
                    raise _bad("it is too deep, or ends in the middle")
                open_.append(inside)
            elif not open_:
                break
    except IndexError:
        raise _bad("it ends in the middle") from None
    if position != end:
        raise _bad("something stands behind its end")


def _key(data: bytes, position: int, keys: set[bytes]) -> int:
    first = data[position]
    if not (0xA0 <= first <= 0xBF or first in _TEXTS):
        raise _bad("a key is no text")
    start, after = _text(data, position)
    key = data[start:after]
    if after > len(data) or key in keys:
        raise _bad("a key stands twice in one map, or ends in the middle")
    keys.add(key)
    return after


def _value(data: bytes, position: int) -> tuple[int, tuple[int, set[bytes] | None] | None]:
    """Where a value ends, or where what is in it begins, and how much of it there is."""
    first = data[position]
    if first <= 0x7F or first >= 0xE0:
        return position + 1, None
    if first <= 0x8F:
        return position + 1, (first & 0x0F, set())
    if first <= 0x9F:
        return position + 1, (first & 0x0F, None)
    if first <= 0xBF or first in _TEXTS:
        return _text(data, position)[1], None
    if first in _BINARIES:
        size = _BINARIES[first]
        return position + 1 + size + _number(data, position + 1, size), None
    if first in _FIXED:
        return position + 1 + _FIXED[first], None
    if first in _ARRAYS:
        size = _ARRAYS[first]
        return position + 1 + size, (_number(data, position + 1, size), None)
    if first in _MAPS:
        size = _MAPS[first]
        return position + 1 + size, (_number(data, position + 1, size), set())
    if first in _FLOATS:
        size = 4 if first == 0xCA else 8
        if position + 1 + size > len(data) or isnan(unpack_from(_FLOATS[first], data, position + 1)[0]):
            raise _bad("NaN, or a number that ends in the middle")
        return position + 1 + size, None
    raise _bad("a type that is not in use")


def _text(data: bytes, position: int) -> tuple[int, int]:
    """Where a text begins and ends; it is UTF-8."""
    first = data[position]
    if first in _TEXTS:
        size = _TEXTS[first]
        start = position + 1 + size
        end = start + _number(data, position + 1, size)
    else:
        start = position + 1
        end = start + (first & 0x1F)
    text = data[start:end]
    if not text.isascii():
        try:
            text.decode("utf-8")
        except UnicodeDecodeError:
            raise _bad("a text is not UTF-8") from None
    return start, end


def _number(data: bytes, position: int, size: int) -> int:
    if position + size > len(data):
        raise _bad("it ends in the middle")
    return int.from_bytes(data[position : position + size], "big")


def _bad(why: str) -> PeerError:
    return malformed(f"not the MessagePack of one value: {why}")
