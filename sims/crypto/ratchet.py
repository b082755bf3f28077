"""client-com: a Double Ratchet with header encryption whose steps are hybrid (protocol.rst, "client-com").

::

    header   r(12) || AEAD(header key, r, "sims/2 header" || th1, flags(1) || dh(32) || pn(4) || n(4) [|| kem(2272)])
    body     AEAD(key, iv xor r, LP("client-com", spec, from, to, header, th1), padded content)

``open`` finds the key without changing anything, verifies, and only then commits: after any refusal the ratchet is as
it was. A header names its chain by the key that opens it: the current one, the next one, or one of those that are kept
because something of them is still missing or could come twice.
"""

from __future__ import annotations

from typing import NamedTuple

from sims.crypto import payloads, primitives, schedule
from sims.crypto.chains import (
    MAX_JUMP,
    MAX_PAST,
    MAX_REMEMBERED,
    MAX_SKIPPED,
    R_SIZE,
    SKIPPED_LIFE,
    Header,
    RatchetState,
    Receiving,
    Sending,
    body_ad,
    header_ad,
    plain_header,
    read_header,
)
from sims.crypto.notation import lp, pad, unpad
from sims.crypto.payloads import Message
from sims.crypto.primitives import KemKey, ModernEntropy, X25519Key
from sims.crypto.schedule import Initial, Second
from sims.errors import Code, PeerError, malformed
from sims.specs import ModernSpec, modern_by_names


class DuplicateError(PeerError):
    """A message that was opened before, and has come once more: to be acknowledged, and nothing else."""

    def __init__(self) -> None:
        super().__init__(Code.NOT_AUTHENTICATED, "a message that was received before")


class Received(NamedTuple):
    """What a message holds.

    :ivar content: as it was sealed.
    :ivar late: whether it was skipped before; such a one doesn't count as hearing from the peer.
    """

    content: bytes
    late: bool

    def __repr__(self) -> str:
        return f"<received {len(self.content)} bytes>"


class _Step(NamedTuple):
    """A step of the peer's, worked out and not yet taken."""

    keys: schedule.Step
    header: Header


class Ratchet:
    """One end of a ratchet.

    :ivar spec: what client-connect agreed on.
    """

    __slots__ = (
        *("_ad_in", "_ad_out", "_dh", "_header_ad", "_kem", "_kept", "_oldest", "_remembered", "_state", "_th1"),
        "spec",
    )

    def __init__(self, state: RatchetState) -> None:
        """Go on from a stored state."""
        self.spec: ModernSpec = modern_by_names([state.spec])[0]
        self._state = state
        self._dh = None if state.own_dh is None else X25519Key(state.own_dh)
        self._kem = None if state.own_kem is None else KemKey(state.own_kem)
        self._header_ad = header_ad(state.th1)
        self._ad_out = body_ad(self.spec, state.own_id, state.peer_id)
        self._ad_in = body_ad(self.spec, state.peer_id, state.own_id)
        self._th1 = lp(state.th1)
        chains = self._chains()
        self._kept = sum(len(chain.skipped) for chain in chains)
        self._remembered = sum(len(chain.used) for chain in chains)
        self._oldest = min((at for chain in chains for _, at in chain.skipped.values()), default=None)

    @classmethod
    def initiator(
        cls, spec: ModernSpec, th1: bytes, own_id: str, peer_id: str, keys: Initial, dh: X25519Key, kem: KemKey
    ) -> Ratchet:
        """A's end after phase 1: it can send, and receive after :meth:`accept_second`."""
        return cls(
            RatchetState(
                spec=spec.name,
                th1=th1,
                own_id=own_id,
                peer_id=peer_id,
                root=keys.root,
                sending=Sending(header_key=keys.a_header_key, key=keys.a_chain, n=0, pn=0, dh=dh.public, kem=b""),
                next_sending_key=keys.a_next_header_key,
                own_dh=dh.private,
                own_kem=kem.seed,
                receiving=None,
                next_receiving_key=keys.b_next_header_key,
                past=[],
            )
        )

    @classmethod
    def responder(
        cls, spec: ModernSpec, th1: bytes, own_id: str, peer_id: str, keys: Initial, a1: bytes, kem: bytes
    ) -> Ratchet:
        """B's end after phase 1: it can receive A's first chain, and do all else after :meth:`make_second`."""
        return cls(
            RatchetState(
                spec=spec.name,
                th1=th1,
                own_id=own_id,
                peer_id=peer_id,
                root=keys.root,
                sending=Sending(header_key=keys.b_next_header_key, key=b"", n=0, pn=0, dh=b"", kem=b""),
                next_sending_key=b"",
                own_dh=None,
                own_kem=None,
                receiving=_begun(keys.a_header_key, keys.a_chain, a1, kem, first=True),
                next_receiving_key=keys.a_next_header_key,
                past=[],
            )
        )

    def make_second(self, keys: Second, dh: X25519Key, kem: KemKey) -> None:
        """B's end: the step that is phase 2 is taken."""
        state = self._state
        state.root, state.next_sending_key = keys.root, keys.header_key
        state.sending.key, state.sending.dh = keys.chain, dh.public
        self._dh, self._kem = dh, kem
        state.own_dh, state.own_kem = dh.private, kem.seed

    def __repr__(self) -> str:
        return f"<ratchet {self.spec.name} with {self._state.peer_id}>"

    @property
    def state(self) -> RatchetState:
        """What is stored; not to be changed."""
        return self._state

    def copy(self) -> Ratchet:
        """Another one in the same state."""
        return Ratchet(payloads.decode(RatchetState, payloads.encode(self._state)))

    # --- sending ------------------------------------------------------------------------------------------------------

    def seal(self, content: bytes, entropy: ModernEntropy) -> Message:
        """Seal one content; steps first, if the peer's new chain has come since the last time.

        :raises LocalError: ``too-large``, for more than 32,767 bytes.
        """
        state = self._state
        padded = pad("content", content)
        stepped = None if self._dh is not None else self._step(entropy)
        sending = state.sending if stepped is None else stepped[0]
        r = entropy.octets(R_SIZE)
        aead = self.spec.aead
        header = r + primitives.aead_seal(aead, sending.header_key, r, self._header_ad, plain_header(sending))
        link = schedule.link(self.spec, sending.key)
        key, iv = schedule.box_keys(self.spec, link.message_key, "message")
        ad = self._ad_out + lp(header) + self._th1
        message = Message(header=header, body=primitives.aead_seal(aead, key, schedule.body_nonce(iv, r), ad, padded))
        if stepped is not None:
            state.sending, keys, self._dh, self._kem = stepped
            state.root, state.next_sending_key = keys.root, keys.next_header_key
            state.own_dh, state.own_kem = self._dh.private, self._kem.seed
        sending.key = link.next_chain
        sending.n += 1
        return message

    def _step(self, entropy: ModernEntropy) -> tuple[Sending, schedule.Step, X25519Key, KemKey]:
        """The own next step, not yet taken."""
        state = self._state
        if state.receiving is None:
            raise malformed("a ratchet that has neither keys of its own nor the peer's")
        dh, kem = entropy.x25519(), entropy.mlkem768()
        ciphertext, secret = entropy.encapsulate(state.receiving.kem)
        keys = schedule.step(self.spec, state.root, dh.exchange(state.receiving.dh) + secret)
        sending = Sending(
            header_key=state.next_sending_key,
            key=keys.chain,
            n=0,
            pn=state.sending.n,
            dh=dh.public,
            kem=kem.public + ciphertext,
        )
        return sending, keys, dh, kem

    # --- receiving ----------------------------------------------------------------------------------------------------

    def accept_second(self, keys: Second, b1: bytes, kem: bytes) -> None:
        """A's end: phase 2 has come and verified, and its chain is the current one."""
        state = self._state
        state.receiving = _begun(state.next_receiving_key, keys.chain, b1, kem, first=True)
        state.root, state.next_receiving_key = keys.root, keys.header_key
        self._dh = self._kem = state.own_dh = state.own_kem = None

    def open(self, message: Message, now: int, first: bool | None = None) -> Received:
        """Open one message.

        :param now: Unix seconds.
        :param first: whether it has to be of the peer's first chain, or must not; None for either.
        :raises DuplicateError: for one that was opened before.
        :raises PeerError: ``not-authenticated``, for what no key opens; ``malformed``, for a header that breaks a
            rule; ``too-large``, for a jump of more than 2,000 messages.
        """
        r, sealed = message.header[:R_SIZE], message.header[R_SIZE:]
        receiving = self._state.receiving
        if receiving is None:
            raise _unopened()
        plain = self._try(receiving.header_key, r, sealed)
        if plain is not None:
            return self._in_chain(receiving, _checked(plain, receiving, first), r, message, now)
        plain = self._try(self._state.next_receiving_key, r, sealed)
        if plain is not None:
            return self._in_next(receiving, plain, first, r, message, now)
        for chain in reversed(self._state.past):
            plain = self._try(chain.header_key, r, sealed)
            if plain is not None:
                return self._in_chain(chain, _checked(plain, chain, first), r, message, now)
        raise _unopened()

    def _try(self, key: bytes, r: bytes, sealed: bytes) -> bytes | None:
        try:
            return primitives.aead_open(self.spec.aead, key, r, self._header_ad, sealed)
        except PeerError:
            return None

    def _in_chain(self, chain: Receiving, header: Header, r: bytes, message: Message, now: int) -> Received:
        n = header.n
        if n < chain.n:
            return self._skipped_before(chain, n, r, message, now)
        if not chain.key:
            raise malformed("a number behind the end of its chain")
        skipped, key = self._skip(chain.key, n - chain.n)
        link = schedule.link(self.spec, key)
        content = self._body(link.message_key, r, message)
        self._keep(chain, skipped, now)
        chain.key = link.next_chain
        chain.n = n + 1
        self._use(chain, n, r, now)
        return Received(content, late=False)

    def _skipped_before(self, chain: Receiving, n: int, r: bytes, message: Message, now: int) -> Received:
        kept = chain.skipped.get(n)
        if kept is None or kept[1] + SKIPPED_LIFE <= now:
            used = chain.used.get(n)
            if used is not None and primitives.same(used, r):
                raise DuplicateError
            raise PeerError(Code.NOT_AUTHENTICATED, "a message under a number that was used, or whose key is gone")
        content = self._body(kept[0], r, message)
        del chain.skipped[n]
        self._kept -= 1
        self._use(chain, n, r, now)
        self._tidy()
        return Received(content, late=True)

    def _in_next(
        self, before: Receiving, plain: bytes, first: bool | None, r: bytes, message: Message, now: int
    ) -> Received:
        """The first message to come of the peer's next chain: finish the current one, and step."""
        state = self._state
        header = read_header(plain)
        if header.first or first is True or self._dh is None or self._kem is None:
            raise malformed("a chain that begins out of order")
        if header.pn < before.n:
            raise malformed(f"a chain of {header.pn} messages, after {before.n} were received")
        rest = header.pn - before.n
        if rest + header.n > MAX_JUMP:
            raise _jump()
        primitives.check_kem_public(header.kem_public_key)
        secret = self._kem.decapsulate(header.kem_ciphertext)
        keys = schedule.step(self.spec, state.root, self._dh.exchange(header.dh) + secret)
        chain = _begun(state.next_receiving_key, keys.chain, header.dh, header.kem_public_key, first=False)
        missing, _ = self._skip(before.key, rest)
        skipped, key = self._skip(keys.chain, header.n)
        link = schedule.link(self.spec, key)
        content = self._body(link.message_key, r, message)

        self._keep(before, missing, now)
        before.n = header.pn
        before.key = b""
        state.past.append(before)
        state.receiving = chain
        state.root, state.next_receiving_key = keys.root, keys.next_header_key
        self._dh = self._kem = state.own_dh = state.own_kem = None
        self._keep(chain, skipped, now)
        chain.key = link.next_chain
        chain.n = header.n + 1
        self._use(chain, header.n, r, now)
        self._tidy()
        return Received(content, late=False)

    def _skip(self, key: bytes, count: int) -> tuple[list[bytes], bytes]:
        """So many message keys of a chain, and the chain key behind them."""
        if count > MAX_JUMP:
            raise _jump()
        found = []
        for _ in range(count):
            message_key, key = schedule.link(self.spec, key)
            found.append(message_key)
        return found, key

    def _body(self, message_key: bytes, r: bytes, message: Message) -> bytes:
        key, iv = schedule.box_keys(self.spec, message_key, "message")
        ad = self._ad_in + lp(message.header) + self._th1
        nonce = schedule.body_nonce(iv, r)
        return unpad("content", primitives.aead_open(self.spec.aead, key, nonce, ad, message.body))

    # --- what is kept -------------------------------------------------------------------------------------------------

    def _chains(self) -> list[Receiving]:
        """From the oldest to the current one."""
        receiving = self._state.receiving
        return [*self._state.past, *([] if receiving is None else [receiving])]

    def _keep(self, chain: Receiving, keys: list[bytes], now: int) -> None:
        """Keep the keys of the messages that come next in a chain, and let the oldest of all go beyond the limit."""
        if not keys:
            return
        for n, key in enumerate(keys, chain.n):
            chain.skipped[n] = (key, now)
        self._kept += len(keys)
        self._oldest = now if self._oldest is None else min(now, self._oldest)
        if self._kept > MAX_SKIPPED:
            for old in self._chains():
                while old.skipped and self._kept > MAX_SKIPPED:
                    del old.skipped[next(iter(old.skipped))]
                    self._kept -= 1

    def _use(self, chain: Receiving, n: int, r: bytes, now: int) -> None:
        """Remember that a number was used, and let go what is too old or too much."""
        chain.used[n] = r
        self._remembered += 1
        if self._remembered > MAX_REMEMBERED:
            oldest = next(old for old in self._chains() if old.used)
            del oldest.used[next(iter(oldest.used))]
            self._remembered -= 1
        if self._oldest is not None and self._oldest + SKIPPED_LIFE <= now:
            self.expire(now)

    def expire(self, now: int) -> None:
        """Let go the skipped keys that are 30 days old; to be called once a day, if nothing comes."""
        chains = self._chains()
        for chain in chains:
            chain.skipped = {n: kept for n, kept in chain.skipped.items() if kept[1] + SKIPPED_LIFE > now}
        self._kept = sum(len(chain.skipped) for chain in chains)
        self._oldest = min((at for chain in chains for _, at in chain.skipped.values()), default=None)
        self._tidy()

    def _tidy(self) -> None:
        """Keep the chains of which something is missing, and the last few, of which something could come twice."""
        past = self._state.past
        if len(past) > MAX_PAST:
            kept = [chain for chain in past[:-MAX_PAST] if chain.skipped]
            self._state.past = [*kept, *past[-MAX_PAST:]]
            self._remembered = sum(len(chain.used) for chain in self._chains())


def _begun(header_key: bytes, key: bytes, dh: bytes, kem: bytes, *, first: bool) -> Receiving:
    return Receiving(header_key=header_key, key=key, n=0, dh=dh, kem=kem, first=first, skipped={}, used={})


def _checked(plain: bytes, chain: Receiving, first: bool | None) -> Header:
    """The header of a message in a chain that has begun."""
    header = read_header(plain)
    if header.first is not chain.first or first is (not chain.first):
        raise malformed("a message in a chain that is not its own")
    if header.dh != chain.dh or (not header.first and header.kem_public_key != chain.kem):
        raise malformed("a header with other keys than those that its chain began with")
    return header


def _unopened() -> PeerError:
    return PeerError(Code.NOT_AUTHENTICATED, "a message that no key opens")


def _jump() -> PeerError:
    return PeerError(Code.TOO_LARGE, f"a jump of more than {MAX_JUMP} messages")
