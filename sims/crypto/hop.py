"""The hop between a client and a server after connect: two chains, and their rekey (protocol.rst, "secure").

``seal(plaintext) -> box`` and ``open(box) -> plaintext``, as everywhere. Messages come in order over one connection,
so each number must be exactly the next; every message has a key of its own, gone after use. The messages of a rekey are
the hop's own: :meth:`Hop.open` answers them.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Literal, NamedTuple

import msgspec
from msgspec import Struct

from sims.crypto import payloads, primitives, schedule
from sims.crypto.notation import pad, unpad
from sims.crypto.payloads import Rekey1, Rekey2, Rekey3
from sims.crypto.primitives import KemKey, ModernEntropy, X25519Key
from sims.crypto.schedule import Channel
from sims.errors import Code, LocalError, PeerError, malformed
from sims.specs import ModernSpec

#: After so many messages (both directions), or so many seconds, the client starts a rekey.
REKEY_MESSAGES = 1000
REKEY_SECONDS = 600
#: A server may ask for less, but not for so little that nothing else would go on.
LEAST_MESSAGES = 100
LEAST_SECONDS = 30
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


class Received(NamedTuple):
    """What came in a box.

    :ivar plaintext: an inner message; None for one of a rekey.
    :ivar reply: what the hop answers, to be sent before anything else.
    """

    plaintext: bytes | None
    reply: Box | None

    def __repr__(self) -> str:
        return f"<received {'a rekey' if self.plaintext is None else 'a message'}>"


class Rekeying(Enum):
    """Where a rekey is."""

    IDLE = auto()
    ASKED = auto()  # client: 1 is out
    ANSWERED = auto()  # server: 2 is out


class _Step(NamedTuple):
    """A step of a rekey, worked out before anything changes: what is answered, and the keys behind that."""

    answer: Rekey2 | Rekey3 | None = None
    keys: Channel | None = None

    def __repr__(self) -> str:
        return "<step of a rekey>"


class Hop:
    """One end of a hop. What it refuses changes nothing but this: it is dead then, and refuses everything.

    :ivar spec: what connect agreed on.
    """

    __slots__ = (
        *("_ad_in", "_ad_out", "_dead", "_in", "_in_n", "_key", "_kem", "_max_messages", "_max_seconds"),
        *("_next", "_out", "_out_n", "_received", "_rekeying", "_root", "_sent", "_side", "_since", "spec"),
    )

    def __init__(
        self,
        side: Side,
        spec: ModernSpec,
        th4: bytes,
        keys: Channel,
        *,
        now: float,
        rekey_messages: int | None = None,
        rekey_seconds: int | None = None,
    ) -> None:
        """Begin.

        :param now: seconds on a clock that does not go backwards; as in all other calls.
        :param rekey_messages: the server's limit, if it has one; more than :data:`REKEY_MESSAGES` is taken as that, and
            less than :data:`LEAST_MESSAGES` as that. ``rekey_seconds`` likewise.
        """
        self.spec = spec
        self._side = side
        self._ad_out = th4 + side.value
        self._ad_in = th4 + (Side.SERVER if side is Side.CLIENT else Side.CLIENT).value
        self._root, client, server = keys
        self._out, self._in = (client, server) if side is Side.CLIENT else (server, client)
        self._out_n = self._in_n = 0
        self._sent = self._received = 0  # messages under the present keys
        self._since = now
        self._max_messages = _between(LEAST_MESSAGES, rekey_messages, REKEY_MESSAGES)
        self._max_seconds = _between(LEAST_SECONDS, rekey_seconds, REKEY_SECONDS)
        self._rekeying = Rekeying.IDLE
        self._key: X25519Key | None = None  # client: what rekey 1 offered
        self._kem: KemKey | None = None
        self._next: bytes | None = None  # server: the client's chain behind its rekey 3
        self._dead = False

    def __repr__(self) -> str:
        return f"<hop {self._side.name.lower()} {self.spec.name}, {self._out_n} sent, {self._in_n} received>"

    def seal(self, plaintext: bytes) -> Box:
        """Seal one inner message.

        :raises LocalError: ``too-large``, for more than 65,535 bytes; ``internal``, after a refusal.
        """
        if self._dead:
            raise LocalError(Code.INTERNAL, "this hop has refused something, and is to be closed")
        padded = pad("box", plaintext)
        spec, n = self.spec, self._out_n
        key, nonce, next_chain = schedule.message_keys(spec, self._out, "secure")
        ciphertext = primitives.aead(spec.aead, key).encrypt(nonce, padded, self._ad_out + n.to_bytes(8, "big"))
        self._out = next_chain
        self._out_n = n + 1
        self._sent += 1
        return Box(n, ciphertext)

    def open(self, n: int, ciphertext: bytes, now: float, entropy: ModernEntropy) -> Received:
        """Open one, and go on with the rekey if it is of one.

        :raises PeerError: ``not-authenticated``, when ``n`` is not the next or the box does not verify, and for
            everything after a refusal; ``malformed``, when its padding is not what it must be, or for a rekey that is
            out of order or has keys that cannot be used; ``rekey-required``, at a server whose client goes on without:
            then it can still be told.
        """
        if self._dead:
            raise PeerError(Code.NOT_AUTHENTICATED, "this hop has refused something before")
        if self.overdue(now):
            raise PeerError(Code.REKEY_REQUIRED, "the keys of this hop were used for too long")
        try:
            return self._open(n, ciphertext, now, entropy)
        except PeerError:
            self._dead = True
            raise

    def _open(self, n: int, ciphertext: bytes, now: float, entropy: ModernEntropy) -> Received:
        if type(n) is not int:
            raise malformed("the number of a message that is no number")
        if n != self._in_n:
            raise PeerError(Code.NOT_AUTHENTICATED, f"message {self._in_n} is due on this hop, and another came")
        key, nonce, next_chain = schedule.message_keys(self.spec, self._in, "secure")
        padded = primitives.aead_open(self.spec.aead, key, nonce, self._ad_in + n.to_bytes(8, "big"), ciphertext)
        plaintext = unpad("box", padded)
        step = self._step(plaintext, entropy) if _is_rekey(plaintext) else None
        self._in = next_chain
        self._in_n += 1
        self._received += 1
        if step is None:
            return Received(plaintext, None)
        return Received(None, self._take(step, now))

    # --- rekey --------------------------------------------------------------------------------------------------------

    def rekey_due(self, now: float) -> bool:
        """True when the client has to call :meth:`begin_rekey`: to be asked after all that is sealed or opened."""
        spent = self._sent + self._received >= self._max_messages or now - self._since >= self._max_seconds
        return self._side is Side.CLIENT and self._rekeying is Rekeying.IDLE and spent

    def overdue(self, now: float) -> bool:
        """True at a server whose client has let twice the bounds pass: it is closed with ``rekey-required``.

        What may still be on its way to or from an honest client is not held against it: of what the server sends, no
        more counts than what makes a rekey due, and while one is under way only the seconds count.
        """
        if self._side is not Side.SERVER:
            return False
        spent = min(self._sent, self._max_messages - 1) + self._received
        late = self._rekeying is Rekeying.IDLE and spent >= PATIENCE * self._max_messages
        return late or now - self._since >= PATIENCE * self._max_seconds

    def begin_rekey(self, entropy: ModernEntropy) -> Box:
        """The client's rekey 1, sealed.

        :raises LocalError: ``internal``, at a server, while one is under way, or after a refusal.
        """
        if self._side is not Side.CLIENT or self._rekeying is not Rekeying.IDLE:
            raise LocalError(Code.INTERNAL, "a rekey is the client's to begin, one at a time")
        key, kem = entropy.x25519(), entropy.mlkem768()
        box = self.seal(_rekey(1, Rekey1(public_key=key.public, kem_public_key=kem.public)))
        self._key, self._kem = key, kem
        self._rekeying = Rekeying.ASKED
        return box

    def _step(self, plaintext: bytes, entropy: ModernEntropy) -> _Step:
        """What is to be done about a message of a rekey. Changes nothing."""
        said = payloads.decode(_RekeyMessage, plaintext)
        match self._side, self._rekeying, said.phase:
            case Side.SERVER, Rekeying.IDLE, 1:
                asked = payloads.convert(Rekey1, said.data)
                own = entropy.x25519()
                ciphertext, secret = entropy.encapsulate(asked.kem_public_key)
                keys = schedule.rekeyed(self.spec, self._root, own.exchange(asked.public_key), secret)
                return _Step(Rekey2(public_key=own.public, kem_ciphertext=ciphertext), keys)
            case Side.CLIENT, Rekeying.ASKED, 2 if self._key is not None and self._kem is not None:
                agreed = payloads.convert(Rekey2, said.data)
                dh = self._key.exchange(agreed.public_key)
                secret = self._kem.decapsulate(agreed.kem_ciphertext)
                return _Step(Rekey3(), schedule.rekeyed(self.spec, self._root, dh, secret))
            case Side.SERVER, Rekeying.ANSWERED, 3:
                payloads.convert(Rekey3, said.data)
                return _Step()
        raise malformed("a rekey out of order, or while one is under way")

    def _take(self, step: _Step, now: float) -> Box | None:
        """Take a step that was worked out; its answer is the last message of a chain.

        The server's clock goes on until the client has finished.
        """
        box = None
        if isinstance(step.answer, Rekey2) and step.keys is not None:
            box = self.seal(_rekey(2, step.answer))
            self._root, self._next, self._out = step.keys
            self._rekeying = Rekeying.ANSWERED
        elif isinstance(step.answer, Rekey3) and step.keys is not None:
            box = self.seal(_rekey(3, step.answer))
            self._root, self._out, self._in = step.keys
            self._key = self._kem = None
            self._rekeying, self._since = Rekeying.IDLE, now
        elif self._next is not None:
            self._in, self._next = self._next, None
            self._rekeying, self._since = Rekeying.IDLE, now
        self._sent = self._received = 0
        return box


def _between(least: int, given: int | None, most: int) -> int:
    return most if given is None else max(least, min(given, most))


class _RekeyMessage(Struct, frozen=True, kw_only=True, tag_field="type", tag="rekey"):
    phase: Literal[1, 2, 3]
    data: object

    def __repr__(self) -> str:
        return f"<rekey {self.phase}>"


def _rekey(phase: Literal[1, 2, 3], data: Rekey1 | Rekey2 | Rekey3) -> bytes:
    return payloads.encode(_RekeyMessage(phase=phase, data=data))


class _Typed(Struct, frozen=True):
    type: str


_typed = msgspec.msgpack.Decoder(_Typed)


def _is_rekey(plaintext: bytes) -> bool:
    """Whether an inner message is of a rekey; one that cannot be read isn't, and is refused by who reads it."""
    if b"rekey" not in plaintext:
        return False
    try:
        return _typed.decode(plaintext).type == "rekey"
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError, OverflowError):
        return False
