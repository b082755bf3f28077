"""The hop between a client and a server after connect: two chains, and their rekey (protocol.rst, "secure").

``seal(plaintext) -> box`` and ``open(box) -> plaintext``, as everywhere. Messages come in order over one connection,
so each number must be exactly the next; every message has a key of its own, gone after use.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import NamedTuple

from msgspec import Struct

from sims.crypto import payloads, primitives, schedule
from sims.crypto.notation import pad, u64, unpad
from sims.crypto.payloads import Rekey1, Rekey2, Rekey3
from sims.crypto.primitives import KemKey, ModernEntropy, X25519Key
from sims.crypto.schedule import Channel
from sims.errors import Code, LocalError, PeerError, malformed
from sims.specs import ModernSpec

#: After so many messages (both directions), or so many seconds, the client starts a rekey.
REKEY_MESSAGES = 1000
REKEY_SECONDS = 600
#: A client that has not done so within so many times as much is closed.
PATIENCE = 2


class Side(Enum):
    """Which end of the hop this is; the value is the direction of what it sends."""

    CLIENT = b"\x01"
    SERVER = b"\x02"


class Box(NamedTuple):
    """What travels as ``secure``: the number of the message in its direction, and the ciphertext."""

    n: int
    ciphertext: bytes


class Rekeying(Enum):
    """Where a rekey is."""

    IDLE = auto()
    ASKED = auto()  # client: 1 is out
    ANSWERED = auto()  # server: 2 is out


class Hop:
    """One end of a hop. After any refusal it is as it was, and of no more use: a hop that refuses a box is closed.

    :ivar spec: what connect agreed on.
    """

    __slots__ = (
        *("_ad_in", "_ad_out", "_count", "_in", "_in_n", "_key", "_kem", "_max_messages", "_max_seconds"),
        *("_next", "_out", "_out_n", "_rekeying", "_root", "_side", "_since", "spec"),
    )

    def __init__(
        self,
        side: Side,
        spec: ModernSpec,
        th4: bytes,
        keys: Channel,
        *,
        now: float,
        rekey_messages: int = REKEY_MESSAGES,
        rekey_seconds: float = REKEY_SECONDS,
    ) -> None:
        """Begin.

        :param now: seconds on a clock that does not go backwards; as in all other calls.
        """
        self.spec = spec
        self._side = side
        self._ad_out = th4 + side.value
        self._ad_in = th4 + (Side.SERVER if side is Side.CLIENT else Side.CLIENT).value
        self._root, client, server = keys
        self._out, self._in = (client, server) if side is Side.CLIENT else (server, client)
        self._out_n = self._in_n = 0
        self._count = 0  # messages under the present keys
        self._since = now
        self._max_messages = rekey_messages
        self._max_seconds = rekey_seconds
        self._rekeying = Rekeying.IDLE
        self._key: X25519Key | None = None  # client: what rekey 1 offered
        self._kem: KemKey | None = None
        self._next: bytes | None = None  # server: the client's chain behind its rekey 3

    def __repr__(self) -> str:
        return f"<hop {self._side.name.lower()} {self.spec.name}, {self._out_n} sent, {self._in_n} received>"

    def seal(self, plaintext: bytes) -> Box:
        """Seal one inner message.

        :raises LocalError: ``too-large``, for more than 65,535 bytes.
        """
        padded = pad("box", plaintext)
        link = schedule.link(self.spec, self._out)
        key, nonce = schedule.box_keys(self.spec, link.message_key, "secure")
        ad = self._ad_out + u64(self._out_n)
        box = Box(self._out_n, primitives.aead_seal(self.spec.aead, key, nonce, ad, padded))
        self._out = link.next_chain
        self._out_n += 1
        self._count += 1
        return box

    def open(self, n: int, ciphertext: bytes, now: float) -> bytes:
        """Open one.

        :raises PeerError: ``not-authenticated``, when ``n`` is not the next or the box does not verify; ``malformed``,
            when its padding is not what it must be; ``rekey-required``, at a server whose client goes on without.
        """
        if n != self._in_n:
            raise PeerError(Code.NOT_AUTHENTICATED, f"message {self._in_n} is due on this hop, and another came")
        if self.overdue(now):
            raise PeerError(Code.REKEY_REQUIRED, "the keys of this hop were used for too long")
        link = schedule.link(self.spec, self._in)
        key, nonce = schedule.box_keys(self.spec, link.message_key, "secure")
        padded = primitives.aead_open(self.spec.aead, key, nonce, self._ad_in + u64(n), ciphertext)
        plaintext = unpad("box", padded)
        self._in = link.next_chain
        self._in_n += 1
        self._count += 1
        return plaintext

    # --- rekey --------------------------------------------------------------------------------------------------------

    def rekey_due(self, now: float) -> bool:
        """True when the client has to call :meth:`begin_rekey`."""
        spent = self._count >= self._max_messages or now - self._since >= self._max_seconds
        return self._side is Side.CLIENT and self._rekeying is Rekeying.IDLE and spent

    def overdue(self, now: float) -> bool:
        """True at a server whose client has let twice the bounds pass: it is closed with ``rekey-required``."""
        late = self._count >= PATIENCE * self._max_messages or now - self._since >= PATIENCE * self._max_seconds
        return self._side is Side.SERVER and late

    def begin_rekey(self, entropy: ModernEntropy) -> Box:
        """The client's rekey 1, sealed.

        :raises LocalError: ``internal``, at a server, or while one is under way.
        """
        if self._side is not Side.CLIENT or self._rekeying is not Rekeying.IDLE:
            raise LocalError(Code.INTERNAL, "a rekey is the client's to begin, one at a time")
        key, kem = entropy.x25519(), entropy.mlkem768()
        box = self.seal(_rekey(1, Rekey1(public_key=key.public, kem_public_key=kem.public)))
        self._key, self._kem = key, kem
        self._rekeying = Rekeying.ASKED
        return box

    def rekey(self, phase: int, data: object, now: float, entropy: ModernEntropy) -> Box | None:
        """Go on with a rekey whose next message was opened; gives the answer, sealed, if there is one.

        :param data: its ``data``, a map with raw byte fields.
        :raises PeerError: ``malformed``, for a message out of order, or keys that cannot be used.
        """
        expected = {
            (Side.SERVER, Rekeying.IDLE): 1,
            (Side.CLIENT, Rekeying.ASKED): 2,
            (Side.SERVER, Rekeying.ANSWERED): 3,
        }
        if expected.get((self._side, self._rekeying)) != phase:
            raise malformed("a rekey out of order, or while one is under way")
        if phase == 1:
            return self._answer(payloads.convert(Rekey1, data), entropy)
        if phase == 2:
            return self._agree(payloads.convert(Rekey2, data), now)
        payloads.convert(Rekey3, data)
        self._finish(now)
        return None

    def _answer(self, asked: Rekey1, entropy: ModernEntropy) -> Box:
        key = entropy.x25519()
        ciphertext, secret = entropy.encapsulate(asked.kem_public_key)
        root, client, server = schedule.rekeyed(self.spec, self._root, key.exchange(asked.public_key), secret)
        box = self.seal(_rekey(2, Rekey2(public_key=key.public, kem_ciphertext=ciphertext)))
        self._root, self._out, self._next = root, server, client
        self._rekeying = Rekeying.ANSWERED
        return box

    def _agree(self, answer: Rekey2, now: float) -> Box:
        if self._key is None or self._kem is None:
            raise malformed("a rekey out of order")
        dh = self._key.exchange(answer.public_key)
        secret = self._kem.decapsulate(answer.kem_ciphertext)
        root, client, server = schedule.rekeyed(self.spec, self._root, dh, secret)
        box = self.seal(_rekey(3, Rekey3()))
        self._root, self._out, self._in = root, client, server
        self._key = self._kem = None
        self._done(now)
        return box

    def _finish(self, now: float) -> None:
        if self._next is None:
            raise malformed("a rekey out of order")
        self._in, self._next = self._next, None
        self._done(now)

    def _done(self, now: float) -> None:
        self._rekeying = Rekeying.IDLE
        self._count = 0
        self._since = now


class _RekeyMessage(Struct, frozen=True, kw_only=True, tag_field="type", tag="rekey"):
    phase: int
    data: object


def _rekey(phase: int, data: Rekey1 | Rekey2 | Rekey3) -> bytes:
    return payloads.encode(_RekeyMessage(phase=phase, data=data))
