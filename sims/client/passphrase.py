"""Passphrases: in one spelling, and what becomes a key of them.

What is locked by one says how its key is made of it, in 22 bytes::

    memory, KiB (u32) ‖ passes (u8) ‖ lanes (u8) ‖ salt (16)

The key is Argon2id (RFC 9106) of the passphrase's UTF-8 under these.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import NamedTuple

import precis_i18n

from sims.crypto.primitives import argon2id
from sims.errors import Code, LocalError

#: The longest passphrase, characters.
MAX_PASSPHRASE = 1024
SALT_SIZE = 16
#: What RFC 9106, 4, recommends second: 64 MiB, for a fraction of a second.
MEMORY, PASSES, LANES = 65_536, 3, 4
# What a file may ask for at most: it is not known to be ours before its key was made.
_MOST_MEMORY, _MOST_PASSES, _MOST_LANES = 1 << 20, 64, 64
_LAYOUT = struct.Struct(f">IBB{SALT_SIZE}s")
STRETCH_SIZE = _LAYOUT.size

_prepare: Callable[[str], str] = precis_i18n.get_profile("OpaqueString").enforce


class Passphrase:
    """What a user has typed or a file holds, as every keyboard would give it (RFC 8265, OpaqueString)."""

    def __init__(self, text: str) -> None:
        """Take it.

        :raises LocalError: ``policy``: it is empty or too long, or holds what a keyboard does not give.
        """
        if not text:
            raise LocalError(Code.POLICY, "a passphrase cannot be empty")
        if len(text) > MAX_PASSPHRASE:
            raise LocalError(Code.POLICY, f"a passphrase has at most {MAX_PASSPHRASE} characters")
        try:
            self.data = _prepare(text).encode("utf-8")
        except UnicodeError:
            raise LocalError(Code.POLICY, "a passphrase holds text: no control characters, no tabs") from None

    def __repr__(self) -> str:
        return "<passphrase>"


class Stretch(NamedTuple):
    """How a key is made of a passphrase; ``memory`` in KiB, ``salt`` 16 bytes."""

    memory: int
    passes: int
    lanes: int
    salt: bytes

    def key(self, passphrase: Passphrase) -> bytes:
        """The key, 32 bytes; it takes a while.

        :raises LocalError: ``unavailable``: there is not enough memory.
        """
        return argon2id(passphrase.data, self.salt, memory=self.memory, passes=self.passes, lanes=self.lanes)

    def to_bytes(self) -> bytes:
        """As it stands in a file: 22 bytes."""
        return _LAYOUT.pack(*self)

    @classmethod
    def from_bytes(cls, data: bytes) -> Stretch | None:
        """What a file of 22 bytes asks for; None where that is nothing that we would ever write."""
        found = cls(*_LAYOUT.unpack(data))
        sane = 1 <= found.passes <= _MOST_PASSES and 1 <= found.lanes <= _MOST_LANES
        return found if sane and 8 * found.lanes <= found.memory <= _MOST_MEMORY else None


def new_stretch(salt: bytes) -> Stretch:
    """How the key of a new file is made; ``salt`` is 16 random bytes that nothing else has."""
    return Stretch(MEMORY, PASSES, LANES, salt)
