"""client-connect: how a session begins, at both ends (protocol.rst, "client-connect").

Three Diffie-Hellman results (four with a one-time key) and an ML-KEM secret, under a transcript that names both ends,
their keys and their lists of specs; then B's first ratchet step, which both identities authenticate.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec import UNSET

from sims import specs
from sims.crypto import schedule
from sims.crypto.identity import Identity, PublicIdentity
from sims.crypto.payloads import Phase1, Phase2
from sims.crypto.prekeys import Bundle, OneTimeKey, OwnPrekeys, Seen, check_bundle, check_one_time_key
from sims.crypto.primitives import ModernEntropy
from sims.crypto.ratchet import Ratchet
from sims.crypto.schedule import Party, Prekeys
from sims.crypto.session import Incoming, Opened, Session, SessionState, Stage, digest_of, macs_of
from sims.errors import Code, LocalError, PeerError, malformed
from sims.specs import ModernSpec


def open_session(
    identity: Identity,
    own_specs: Sequence[ModernSpec],
    bundle: Bundle,
    one_time_key: OneTimeKey | None,
    *,
    now: int,
    entropy: ModernEntropy,
    expected: str,
    before: Seen | None = None,
    floor: int = 0,
) -> Session:
    """A's end: begin a session with whoever published a bundle. Its first ``seal`` gives phase 1.

    :param own_specs: what the own policy allows, in order of preference.
    :param expected: the id that is held for this person; with ``before``, as for ``check_bundle``.
    :param floor: the highest spec class ever agreed with this id, 0 if none.
    :raises LocalError: ``policy``, for one's own id: both ends of such a session would be one.
    :raises PeerError: as ``check_bundle`` and ``check_one_time_key`` do; ``no-common-spec``; ``policy``.
    """
    if expected == identity.id:
        raise LocalError(Code.POLICY, "a session with oneself")
    peer_id = check_bundle(bundle, now=now, expected=expected, before=before)
    if one_time_key is not None:
        check_one_time_key(one_time_key, bundle.identity)
    own = Party(identity.id, identity.public.sign, identity.public.dh, tuple(spec.name for spec in own_specs))
    peer = Party(peer_id, bundle.sign, bundle.dh, bundle.specs)
    spec = specs.common(own.specs, peer.specs, own_specs)
    specs.never_lower(floor, spec)
    kem_key = bundle.kem_prekey.public if one_time_key is None else one_time_key.kem_public
    one_time = b"" if one_time_key is None else one_time_key.public
    to = Prekeys(bundle.prekey.public, kem_key, one_time)
    a1, kem = entropy.x25519(), entropy.mlkem768()
    ciphertext, secret = entropy.encapsulate(to.kem)
    th1 = schedule.session_th1(spec, own, peer, to, a1.public, kem.public, ciphertext)
    ikm = schedule.session_ikm(
        identity.dh.exchange(to.prekey),
        a1.exchange(peer.dh),
        a1.exchange(to.prekey),
        a1.exchange(one_time) if one_time else b"",
        secret,
    )
    ratchet = Ratchet.initiator(spec, th1, own.id, peer.id, schedule.initial(spec, th1, ikm), a1, kem)
    phase1 = Phase1(
        spec=spec.name,
        sign=own.sign,
        dh=own.dh,
        prekey_id=bundle.prekey.key_id,
        public_key=a1.public,
        kem_public_key=kem.public,
        kem_ciphertext=ciphertext,
        kem_prekey_id=bundle.kem_prekey.key_id if one_time_key is None else UNSET,
        one_time_id=UNSET if one_time_key is None else one_time_key.key_id,
    )
    state = SessionState(
        initiator=True,
        stage=Stage.OPENING,
        own=own,
        peer=peer,
        ratchet=ratchet.state,
        phase1=phase1,
        created=now,
    )
    return Session(identity, state, ratchet)


def accept_session(
    identity: Identity,
    prekeys: OwnPrekeys,
    allowed: Sequence[ModernSpec],
    came: Incoming,
    *,
    now: int,
    entropy: ModernEntropy,
    floor: int = 0,
    check: Callable[[bytes], object] = lambda content: None,
) -> tuple[Session, Opened]:
    """B's end: a phase 1 that is of no session yet. Nothing is drawn or changed before its message verifies.

    :param prekeys: lose the one-time key and remember the ``a1``; to be stored together with the session.
    :param allowed: what the own policy allows now.
    :param floor: the highest spec class ever agreed with this id, 0 if none.
    :param check: what else is to be asked of the content: whatever this raises refuses the phase.
    :raises PeerError: ``not-authenticated``, when keys, ids or message do not verify, the prekeys are gone, or this
        ``a1`` began a session before; ``no-common-spec``; ``policy``; ``malformed``; ``too-large``.
    """
    data = came.data
    if not isinstance(data, Phase1) or data.message is UNSET:
        raise malformed("not a phase 1 with a message")
    sender = PublicIdentity(data.sign, data.dh)
    if came.src != sender.id or came.dst != identity.id:
        raise PeerError(Code.NOT_AUTHENTICATED, "a phase 1 of other ids than its keys'")
    if sender.id == identity.id:
        raise PeerError(Code.NOT_AUTHENTICATED, "a phase 1 of one's own")
    kem_prekey_id = None if data.kem_prekey_id is UNSET else data.kem_prekey_id
    one_time_id = None if data.one_time_id is UNSET else data.one_time_id
    mine = prekeys.find(data.prekey_id, kem_prekey_id, one_time_id, data.public_key)
    peer = Party(sender.id, sender.sign, sender.dh, came.ciphers or ())
    own = Party(identity.id, identity.public.sign, identity.public.dh, mine.specs)
    spec = specs.common(peer.specs, own.specs, allowed)
    if data.spec != spec.name:
        raise PeerError(Code.NO_COMMON_SPEC, "another cipher spec than the one that both lists give")
    specs.never_lower(floor, spec)
    a1 = data.public_key
    one_time = b"" if mine.one_time is None else mine.one_time.public
    to = Prekeys(mine.prekey.public, mine.kem.public, one_time)
    th1 = schedule.session_th1(spec, peer, own, to, a1, data.kem_public_key, data.kem_ciphertext)
    ikm = schedule.session_ikm(
        mine.prekey.exchange(peer.dh),
        identity.dh.exchange(a1),
        mine.prekey.exchange(a1),
        b"" if mine.one_time is None else mine.one_time.exchange(a1),
        mine.kem.decapsulate(data.kem_ciphertext),
    )
    keys = schedule.initial(spec, th1, ikm)
    ratchet = Ratchet.responder(spec, th1, own.id, peer.id, keys, a1, data.kem_public_key)
    received = ratchet.open(data.message, now, first=True)
    if received is None:
        raise malformed("a first message that was opened before")
    check(received.content)

    b1, kem = entropy.x25519(), entropy.mlkem768()
    ciphertext, secret = entropy.encapsulate(data.kem_public_key)
    th2 = schedule.session_th2(spec, th1, b1.public, ciphertext, kem.public)
    ikm2 = b1.exchange(a1) + b1.exchange(peer.dh) + identity.dh.exchange(a1) + secret
    second = schedule.second(spec, keys.root, th2, ikm2)
    ratchet.make_second(second, b1, kem)
    mac = schedule.phase_mac(spec, second.confirm, th2, 2)
    state = SessionState(
        initiator=False,
        stage=Stage.ACCEPTED,
        own=own,
        peer=peer,
        ratchet=ratchet.state,
        phase2=Phase2(public_key=b1.public, kem_ciphertext=ciphertext, kem_public_key=kem.public, mac=mac),
        accepted=digest_of(data, came.ciphers),
        macs=macs_of(spec, second.confirm, th2),
        due=2,
        created=now,
    )
    prekeys.spend(data.prekey_id, one_time_id, a1)
    return Session(identity, state, ratchet), Opened(
        received.content, 2, confirmed=False, late=False, duplicate=False, heard=True
    )
