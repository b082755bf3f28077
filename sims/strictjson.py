"""JSON that any two parsers read alike, and byte fields of one spelling: what every frame is checked for first."""

from __future__ import annotations

import json
import re
from binascii import Error as Base64Error
from binascii import a2b_base64, b2a_base64
from math import isfinite
from typing import Any, ClassVar, NoReturn, Self

from sims.errors import malformed

MAX_DEPTH = 8

# Possessive, and with an end that may be missing: nothing is ever looked at twice, whatever was sent.
_STRINGS = re.compile(rb'"(?:[^"\\]|\\.)*+"?', re.DOTALL)


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise malformed("a key stands twice in one object")
    return found


def _no_constant(_: str) -> NoReturn:
    raise malformed("NaN and Infinity are not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not isfinite(value):
        raise malformed("a number that is out of range")
    return value


_decoder = json.JSONDecoder(object_pairs_hook=_no_duplicates, parse_constant=_no_constant, parse_float=_finite)


def _depth(data: bytes) -> int:
    deepest = depth = 0
    for byte in _STRINGS.sub(b"", data):
        if byte in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        elif byte in b"]}":
            depth -= 1
    return deepest


def parse_json(data: bytes) -> object:
    """The value in ``data``: UTF-8, no duplicate keys, no NaN, no half characters, at most 8 deep.

    :raises PeerError: ``malformed``.
    """
    if data.count(b"{") + data.count(b"[") > MAX_DEPTH and _depth(data) > MAX_DEPTH:
        raise malformed(f"JSON nested more than {MAX_DEPTH} deep")
    try:
        text = data.decode("utf-8")
        value: object = _decoder.decode(text)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode("utf-8")  # refuses lone surrogates
    except (ValueError, RecursionError):  # UnicodeError and JSONDecodeError are ValueErrors
        raise malformed("not JSON in UTF-8") from None
    return value


class Octets(bytes):
    """A byte field: base64 in JSON, of the one length that the protocol gives it (or any)."""

    sizes: ClassVar[tuple[int, ...]] = ()

    @classmethod
    def from_text(cls, text: object) -> Self:
        """Decode the one base64 text that these bytes have.

        :raises ValueError: for anything else.
        """
        if not isinstance(text, str):
            raise ValueError("a byte field is not a string")
        try:
            value = cls(a2b_base64(text, strict_mode=True))
        except Base64Error:
            raise ValueError("a byte field is not base64") from None
        if cls.sizes and len(value) not in cls.sizes:
            raise ValueError(f"a byte field of {len(value)} bytes")
        odd = len(value) % 3
        # What even the strict mode takes: padding beyond the end, and bits that padding leaves over and are not zero.
        surplus = len(text) != (len(value) + 2) // 3 * 4
        if surplus or (odd and b2a_base64(value[-odd:], newline=False) != text[-4:].encode("ascii")):
            raise ValueError("a byte field is not in its one base64 form")
        return value


class Octets16(Octets):
    """16 bytes."""

    sizes = (16,)


class Octets32(Octets):
    """32 bytes."""

    sizes = (32,)


class Digest(Octets):
    """An HMAC with SHA-256 or SHA-384."""

    sizes = (32, 48)


class Pem(Octets):
    """A PEM SubjectPublicKeyInfo of a secp384r1 key."""

    sizes = (215,)
