"""client-com: a Double Ratchet with header encryption whose steps are hybrid (protocol.rst, "client-com").

::

    header   r(12) || AEAD(header key, r, "sims/2 header" || th1, flags(1) || dh(32) || pn(4) || n(4) [|| kem(2272)])
    body     AEAD(key, iv xor r, LP("client-com", spec, from, to, header, th1), padded content)

``open`` finds the key without changing anything, verifies, and only then commits: after any refusal the ratchet is as
it was. A header names its chain by the key that opens it: the current one, the next one, or one of those that are kept
because something of them is still missing or could come twice.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from msgspec.structs import replace

from sims.crypto import primitives, remembered, schedule
from sims.crypto.chains import (
    MAX_JUMP,
    R_SIZE,
    SKIPPED_LIFE,
    Header,
    RatchetState,
    Receiving,
    Sending,
    body_ad,
    check_stored,
    header_ad,
    plain_header,
    read_header,
    tidied,
)
from sims.crypto.notation import lp, pad, unpad
from sims.crypto.payloads import Message
from sims.crypto.primitives import Aead, KemKey, ModernEntropy, Refused, X25519Key
from sims.crypto.schedule import Initial, Second
from sims.errors import Code, LocalError, PeerError, malformed
from sims.specs import ModernSpec, modern_by_names

#: How often a chain in order is looked at for what is kept too long: so many messages.
TIDY_EVERY = 64


class Received(NamedTuple):
    """What a message holds.

    :ivar content: as it was sealed.
    :ivar late: whether it was skipped before; such a one doesn't count as hearing from the peer.
    """

    content: bytes
    late: bool

    def __repr__(self) -> str:
        return f"<received {len(self.content)} bytes>"


class _Fixed(NamedTuple):
    """What of a ratchet never changes: its spec, and the beginnings of additional data."""

    spec: ModernSpec
    header_ad: bytes
    ad_out: bytes
    ad_in: bytes
    th1: bytes


class Ratchet:
    """One end of a ratchet. Its state is replaced and never changed: copies cost nothing.

    The two chains are what every message moves, so they stand beside the state until somebody asks for it as a whole.
    """

    __slots__ = ("_aead_in", "_aead_out", "_dh", "_fixed", "_kem", "_receiving", "_sending", "_whole")

    _whole: RatchetState
    _sending: Sending
    _receiving: Receiving | None
    _aead_in: Aead | None  # under the header keys of the two chains, once they are needed
    _aead_out: Aead | None

    def __init__(self, state: RatchetState) -> None:
        """Begin with a state, or go on from a stored one.

        :raises LocalError: ``policy``, for a spec that isn't known.
        """
        spec = modern_by_names([state.spec])[0]
        self._fixed = _Fixed(
            spec,
            header_ad(state.th1),
            body_ad(spec, state.own_id, state.peer_id),
            body_ad(spec, state.peer_id, state.own_id),
            lp(state.th1),
        )
        self._state = state
        self._dh: X25519Key | None = None if state.own_dh is None else X25519Key(state.own_dh)
        self._kem: KemKey | None = None if state.own_kem is None else KemKey(state.own_kem)

    @classmethod
    def load(cls, state: RatchetState) -> Ratchet:
        """Go on from a stored state.

        :raises PeerError: ``malformed``, for one that no ratchet can be in.
        """
        try:
            found = cls(state)
        except LocalError:
            raise malformed("a stored ratchet of a cipher spec that is not known") from None
        check_stored(state, found.spec)
        return found

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
                past=(),
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
                past=(),
            )
        )

    def make_second(self, keys: Second, dh: X25519Key, kem: KemKey) -> None:
        """B's end: the step that is phase 2 is taken."""
        self._state = replace(
            self._state,
            root=keys.root,
            next_sending_key=keys.header_key,
            sending=replace(self._state.sending, key=keys.chain, dh=dh.public),
            own_dh=dh.private,
            own_kem=kem.seed,
        )
        self._dh, self._kem = dh, kem

    def __repr__(self) -> str:
        return f"<ratchet {self.spec.name} with {self._state.peer_id}>"

    @property
    def spec(self) -> ModernSpec:
        """What client-connect agreed on."""
        return self._fixed.spec

    @property
    def state(self) -> RatchetState:
        """What is stored."""
        return self._state

    @property
    def _state(self) -> RatchetState:
        whole = self._whole
        if whole.sending is not self._sending or whole.receiving is not self._receiving:
            whole = self._whole = replace(whole, sending=self._sending, receiving=self._receiving)
        return whole

    @_state.setter
    def _state(self, state: RatchetState) -> None:
        self._whole, self._sending, self._receiving = state, state.sending, state.receiving
        self._aead_in = self._aead_out = None

    def copy(self) -> Ratchet:
        """Another one in the same state."""
        found = Ratchet.__new__(Ratchet)
        found._fixed, found._dh, found._kem = self._fixed, self._dh, self._kem
        found._whole, found._sending, found._receiving = self._whole, self._sending, self._receiving
        found._aead_in, found._aead_out = self._aead_in, self._aead_out
        return found

    # --- sending ------------------------------------------------------------------------------------------------------

    def seal(self, content: bytes, entropy: ModernEntropy) -> Message:
        """Seal one content; steps first, if the peer's new chain has come since the last time.

        :raises LocalError: ``too-large``, for more than 32,767 bytes.
        """
        padded = pad("content", content)
        fixed = self._fixed
        if self._dh is None:
            self._state, self._dh, self._kem = self._step(entropy)
        sending, spec = self._sending, fixed.spec
        under = self._aead_out
        if under is None:
            under = self._aead_out = primitives.aead(spec.aead, sending.header_key)
        r = entropy.octets(R_SIZE)
        header = r + under.encrypt(r, plain_header(sending), fixed.header_ad)
        key, iv, next_chain = schedule.message_keys(spec, sending.key, "message")
        ad = b"%b%b%b%b" % (fixed.ad_out, len(header).to_bytes(4, "big"), header, fixed.th1)
        body = primitives.aead_seal(spec.aead, key, schedule.body_nonce(iv, r), ad, padded)
        self._sending = Sending(
            header_key=sending.header_key,
            key=next_chain,
            n=sending.n + 1,
            pn=sending.pn,
            dh=sending.dh,
            kem=sending.kem,
        )
        return Message(header=header, body=body)

    def _step(self, entropy: ModernEntropy) -> tuple[RatchetState, X25519Key, KemKey]:
        """The own next step, not yet taken: the state after it, and its keys."""
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
        stepped = replace(
            state,
            root=keys.root,
            sending=sending,
            next_sending_key=keys.next_header_key,
            own_dh=dh.private,
            own_kem=kem.seed,
        )
        return stepped, dh, kem

    # --- receiving ----------------------------------------------------------------------------------------------------

    def accept_second(self, keys: Second, b1: bytes, kem: bytes) -> None:
        """A's end: phase 2 has come and verified, and its chain is the current one."""
        chain = _begun(self._state.next_receiving_key, keys.chain, b1, kem, first=True)
        self._begin(keys.root, keys.header_key, receiving=chain)

    def open(self, message: Message, now: int, first: bool | None = None) -> Received | None:
        """Open one message; None for one that was opened before, and has come once more.

        :param now: Unix seconds.
        :param first: whether it has to be of the peer's first chain, or must not; None for either.
        :raises PeerError: ``not-authenticated``, for what no key opens; ``malformed``, for a header that breaks a
            rule; ``too-large``, for a jump of more than 2,000 messages.
        """
        receiving = self._receiving
        header = message.header
        r, sealed = header[:R_SIZE], header[R_SIZE:]
        if receiving is None:
            raise _unopened()
        under = self._aead_in
        if under is None:
            under = self._aead_in = primitives.aead(self.spec.aead, receiving.header_key)
        try:
            plain: bytes | None = under.decrypt(r, sealed, self._fixed.header_ad)
        except Refused:
            plain = None
        if plain is not None:
            checked = _checked(plain, receiving, first)
            if checked.n == receiving.n and not receiving.skipped and receiving.key:
                return self._next_in_order(receiving, r, message, now)
            return self._in_chain(len(self._whole.past), checked, r, message, now)
        state = self._state
        plain = self._try(state.next_receiving_key, r, sealed)
        if plain is not None:
            return self._in_next(receiving, plain, first, r, message, now)
        for index in reversed(range(len(state.past))):
            plain = self._try(state.past[index].header_key, r, sealed)
            if plain is not None:
                return self._in_chain(index, _checked(plain, state.past[index], first), r, message, now)
        raise _unopened()

    def _next_in_order(self, chain: Receiving, r: bytes, message: Message, now: int) -> Received:
        """The message that is due in the current chain, of which none was skipped: as :meth:`_in_chain`, but quick."""
        fixed, header, n = self._fixed, message.header, chain.n
        key, iv, next_chain = schedule.message_keys(fixed.spec, chain.key, "message")
        ad = b"%b%b%b%b" % (fixed.ad_in, len(header).to_bytes(4, "big"), header, fixed.th1)
        padded = primitives.aead_open(fixed.spec.aead, key, schedule.body_nonce(iv, r), ad, message.body)
        content = unpad("content", padded)
        self._receiving = Receiving(
            header_key=chain.header_key,
            key=next_chain,
            n=n + 1,
            dh=chain.dh,
            kem=chain.kem,
            first=chain.first,
            skipped=chain.skipped,
            used=remembered.add(chain.used, n, r),
        )
        if n % TIDY_EVERY == 0:
            self._keep(self._chains(), now)
        return Received(content, False)

    def _try(self, key: bytes, r: bytes, sealed: bytes) -> bytes | None:
        try:
            return primitives.aead_open(self.spec.aead, key, r, self._fixed.header_ad, sealed)
        except PeerError:
            return None

    def _in_chain(self, index: int, header: Header, r: bytes, message: Message, now: int) -> Received | None:
        """A message of a chain that has begun: the one at this place of :meth:`_chains`."""
        chains, n = self._chains(), header.n
        chain = chains[index]
        if n < chain.n:
            return self._skipped_before(index, n, r, message, now)
        if not chain.key:
            raise malformed("a number behind the end of its chain")
        keys, key = self._skip(chain.key, n - chain.n)
        link = schedule.link(self.spec, key)
        content = self._body(link.message_key, r, message)
        skipped = _with(chain, keys, now)
        chains[index] = replace(
            chain, key=link.next_chain, n=n + 1, skipped=skipped, used=remembered.add(chain.used, n, r)
        )
        self._keep(chains, now)
        return Received(content, late=False)

    def _skipped_before(self, index: int, n: int, r: bytes, message: Message, now: int) -> Received | None:
        chains = self._chains()
        chain = chains[index]
        kept = chain.skipped.get(n)
        if kept is None or kept[1] + SKIPPED_LIFE <= now:
            used = remembered.find(chain.used, n)
            if used is not None and primitives.same(used, r):
                return None
            raise PeerError(Code.NOT_AUTHENTICATED, "a message under a number that was used, or whose key is gone")
        content = self._body(kept[0], r, message)
        skipped = {number: other for number, other in chain.skipped.items() if number != n}
        chains[index] = replace(chain, skipped=skipped, used=remembered.add(chain.used, n, r))
        self._keep(chains, now)
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

        n = header.n
        chain = replace(
            chain, key=link.next_chain, n=n + 1, skipped=_with(chain, skipped, now), used=remembered.add((), n, r)
        )
        before = before.finished(header.pn, _with(before, missing, now))
        self._begin(keys.root, keys.next_header_key)
        self._keep([*state.past, before, chain], now)
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
        ad = self._fixed.ad_in + lp(message.header) + self._fixed.th1
        nonce = schedule.body_nonce(iv, r)
        return unpad("content", primitives.aead_open(self.spec.aead, key, nonce, ad, message.body))

    # --- what is kept -------------------------------------------------------------------------------------------------

    def _chains(self) -> list[Receiving]:
        """From the oldest to the current one."""
        receiving = self._state.receiving
        return [*self._state.past, *([] if receiving is None else [receiving])]

    def _begin(self, root: bytes, next_key: bytes, **changes: Any) -> None:
        """The peer's next chain is accepted: the own ratchet keys go."""
        self._dh = self._kem = None
        self._state = replace(self._state, root=root, next_receiving_key=next_key, own_dh=None, own_kem=None, **changes)

    def _keep(self, chains: list[Receiving], now: int) -> None:
        """These are the peer's chains from now on, as far as they are kept."""
        if chains:
            *past, receiving = tidied(chains, now)
            self._state = replace(self._state, past=tuple(past), receiving=receiving)

    def expire(self, now: int) -> None:
        """Let go the skipped keys that are 30 days old; to be called once a day, if nothing comes."""
        self._keep(self._chains(), now)


def _with(chain: Receiving, keys: list[bytes], now: int) -> dict[int, tuple[bytes, int]]:
    """The skipped keys of a chain, and those of the messages that come next in it."""
    if not keys:
        return chain.skipped
    return {**chain.skipped, **{n: (key, now) for n, key in enumerate(keys, chain.n)}}


def _begun(header_key: bytes, key: bytes, dh: bytes, kem: bytes, *, first: bool) -> Receiving:
    return Receiving(header_key=header_key, key=key, n=0, dh=dh, kem=kem, first=first, skipped={}, used=())


def _checked(plain: bytes, chain: Receiving, first: bool | None) -> Header:
    """The header of a message in a chain that has begun."""
    header = read_header(plain)
    if header.first is not chain.first or first is (not chain.first):
        raise malformed("a message in a chain that is not its own")
    if header.dh != chain.dh or not (header.first or _is_kem(chain, header.kem_public_key)):
        raise malformed("a header with other keys than those that its chain began with")
    return header


def _is_kem(chain: Receiving, kem: bytes) -> bool:
    """Whether this is the key that a chain began with; of a past one there is the SHA-256."""
    return kem == chain.kem or primitives.digest("sha256", kem) == chain.kem


def _unopened() -> PeerError:
    return PeerError(Code.NOT_AUTHENTICATED, "a message that no key opens")


def _jump() -> PeerError:
    return PeerError(Code.TOO_LARGE, f"a jump of more than {MAX_JUMP} messages")
