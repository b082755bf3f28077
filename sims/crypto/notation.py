"""The notation that the modern protocol is written in (protocol.rst, "Notation"), and its padding ("Padding")."""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

from sims.crypto import primitives
from sims.errors import Code, LocalError, malformed
from sims.specs import ModernSpec

#: The sizes of padded content, bytes; the largest one of a padded box, and what boxes are a multiple of.
CONTENT_SIZES = (256, 512, 1024, 2048, 4096, 8192, 16_384, 32_768)
MAX_BOX = 65_536
BOX_STEP = 512

_MARK = b"\x80"


def lp(*values: bytes) -> bytes:
    """LP(a, b, …): each value behind its length as four bytes, so that no two lists give the same bytes."""
    return b"".join([len(value).to_bytes(4, "big") + value for value in values])


def u32(number: int) -> bytes:
    """Four bytes, big-endian; :exc:`OverflowError` for what does not fit."""
    return number.to_bytes(4, "big")


def u64(number: int) -> bytes:
    """Eight bytes, big-endian.

    :raises PeerError: ``malformed``, for what does not fit: the greatest numbers that are read are greater.
    """
    if number >> 64:
        raise malformed("a number that does not fit in eight bytes")
    return number.to_bytes(8, "big")


def names(specs: tuple[str, ...] | list[str]) -> bytes:
    """LP(specs…): a list of names as one value."""
    return lp(*[name.encode("utf-8") for name in specs])


@lru_cache(maxsize=64)
def label(text: str) -> bytes:
    """What E puts before its context: the label with its length."""
    return lp(f"sims/2 {text}".encode())


def expand(spec: ModernSpec, key: bytes, text: str, context: bytes, size: int) -> bytes:
    """E(k, label, ctx, n): ``size`` bytes."""
    return primitives.hkdf_expand(spec.hash, key, label(text) + context, size)


def hkdf(spec: ModernSpec, salt: bytes, secret: bytes, info: bytes, size: int) -> bytes:
    """HKDF (RFC 5869) with the spec's hash: ``size`` bytes."""
    return primitives.hkdf_expand(spec.hash, primitives.hkdf_extract(spec.hash, salt, secret), info, size)


def split(data: bytes) -> list[bytes]:
    """Keys of 32 bytes each."""
    return [data[start : start + 32] for start in range(0, len(data), 32)]


def pad(kind: Literal["content", "box"], plaintext: bytes) -> bytes:
    """``plaintext`` ‖ 0x80 ‖ zeros: content to the next of :data:`CONTENT_SIZES`, a box to a multiple of 512.

    :raises LocalError: ``too-large``, when the result were longer than 32,768 bytes (content) or 65,536 (a box).
    """
    needed = len(plaintext) + 1
    if kind == "box":
        size = -(-needed // BOX_STEP) * BOX_STEP
        if size > MAX_BOX:
            raise LocalError(Code.TOO_LARGE, f"{len(plaintext)} bytes do not fit in a box of {MAX_BOX}")
    else:
        size = next((size for size in CONTENT_SIZES if size >= needed), 0)
        if not size:
            raise LocalError(Code.TOO_LARGE, f"{len(plaintext)} bytes are more than a message can carry")
    return (plaintext + _MARK).ljust(size, b"\0")


def unpad(kind: Literal["content", "box"], padded: bytes) -> bytes:
    """What :func:`pad` was given; call it on what has verified only.

    :raises PeerError: ``malformed``, unless this is what :func:`pad` makes, its length included: a message has one
        padded form, so that none can carry a mark of its own making.
    """
    plaintext, mark, rest = padded.rpartition(_MARK)
    if not mark or rest.count(0) != len(rest):
        raise malformed("a padding that is not 0x80 and zeros")
    size = len(padded)
    if kind == "box":
        fits = size <= MAX_BOX and size == -(-(len(plaintext) + 1) // BOX_STEP) * BOX_STEP
    else:
        fits = size in CONTENT_SIZES and (size == CONTENT_SIZES[0] or len(plaintext) + 1 > size // 2)
    if not fits:
        raise malformed(f"{len(plaintext)} bytes padded to {size}")
    return plaintext
