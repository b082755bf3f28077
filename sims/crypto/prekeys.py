"""What lets others open a session with somebody who is away: bundles and one-time prekeys (protocol.rst, "Prekeys").

A bundle holds a person's identity, specs and two prekeys, all under one signature. :func:`check_bundle` says whether
one that came may be used; :class:`OwnPrekeys` keeps the private halves of one's own.
"""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple

from msgspec import Meta, field
from msgspec.structs import replace

from sims.crypto import primitives, stored
from sims.crypto.identity import Identity, PublicIdentity
from sims.crypto.notation import lp, names, u32, u64
from sims.crypto.payloads import U32, U64, Bytes32, KemPublic, Name, Signature, Specs
from sims.crypto.primitives import KemKey, ModernEntropy, X25519Key
from sims.crypto.stored import Number, Stored
from sims.errors import Code, LocalError, PeerError, malformed

DAY = 86_400
#: A bundle expires so long after it was made; its private halves are kept so much longer. Seconds.
LIFE = 30 * DAY
GRACE = 30 * DAY
#: A bundle's keys are replaced so often. Seconds.
REPLACED_AFTER = 7 * DAY
#: So many one-time keys are published at once, and kept by a server.
MAX_PUBLISHED = 40
MAX_KEPT = 100
#: Of one-time keys so many private halves are kept, the newest: a server that loses what is published costs no more.
MAX_HALVES = 1000
#: A server's copy of the own bundle is not believed when it is of a time so far ahead. Seconds.
AHEAD = 365 * DAY

_IDS = 2**32
_BUNDLE = "bundle"
_ONE_TIME = "one-time prekey"


Seed = Annotated[bytes, Meta(min_length=primitives.KEM_SEED_SIZE, max_length=primitives.KEM_SEED_SIZE)]


class Prekey(Stored, frozen=True, kw_only=True):
    """The X25519 prekey of a bundle."""

    key_id: U32
    public: Bytes32


class KemPrekey(Stored, frozen=True, kw_only=True):
    """The ML-KEM-768 prekey of a bundle."""

    key_id: U32
    public: KemPublic


class Bundle(Stored, frozen=True, kw_only=True):
    """What a person publishes; ``expires`` is in Unix seconds."""

    sign: Bytes32
    dh: Bytes32
    name: Name
    specs: Annotated[Specs, Meta(min_length=1)]
    version: U64
    expires: U64
    prekey: Prekey
    kem_prekey: KemPrekey
    signature: Signature

    def signed(self) -> bytes:
        """The bytes under the signature, without the purpose."""
        return lp(
            *(self.sign, self.dh, self.name.encode("utf-8"), names(self.specs)),
            *(u64(self.version), u64(self.expires)),
            *(u32(self.prekey.key_id), self.prekey.public, u32(self.kem_prekey.key_id), self.kem_prekey.public),
        )

    @property
    def identity(self) -> PublicIdentity:
        """Whose it claims to be; ``malformed`` for keys that cannot be used."""
        return PublicIdentity(self.sign, self.dh)


class OneTimeKey(Stored, frozen=True, kw_only=True):
    """A key pair of both kinds that one session is opened to."""

    key_id: U32
    public: Bytes32
    kem_public: KemPublic
    signature: Signature

    def signed(self, owner: str) -> bytes:
        """The bytes under the signature of the owner with this id, without the purpose."""
        return lp(owner.encode("ascii"), u32(self.key_id), self.public, self.kem_public)


class Seen(Stored, frozen=True, kw_only=True):
    """What is remembered of the newest bundle seen of a person."""

    version: Number
    digest: Bytes32


def seen(bundle: Bundle) -> Seen:
    """What to remember of a bundle that :func:`check_bundle` let pass."""
    return Seen(version=bundle.version, digest=primitives.digest("sha256", bundle.signed() + bundle.signature))


def check_bundle(bundle: Bundle, *, now: int, expected: str | None = None, before: Seen | None = None) -> str:
    """The id whose bundle this is.

    :param now: one's own clock, Unix seconds; never the server's.
    :param expected: the id that is held for this person, if one is.
    :param before: what is remembered of the newest bundle seen of this id.
    :raises PeerError: ``not-authenticated``, when it is another id's, or not signed by its identity; ``policy``, when
        it has expired, or its version is lower than one seen, or the same with other bytes; ``malformed``, for keys
        that cannot be used.
    """
    peer_id = _proven(bundle, expected)
    if bundle.expires <= now:
        raise PeerError(Code.POLICY, "a bundle that has expired")
    if before is not None:
        if bundle.version < before.version:
            raise PeerError(Code.POLICY, f"version {bundle.version} of a bundle, after {before.version} was seen")
        if bundle.version == before.version and not primitives.same(seen(bundle).digest, before.digest):
            raise PeerError(Code.POLICY, f"another bundle under the version {bundle.version} that was seen")
    return peer_id


def _proven(bundle: Bundle, expected: str | None) -> str:
    """The id that has signed a bundle, be it expired; errors as :func:`check_bundle`."""
    identity = bundle.identity
    if expected is not None and identity.id != expected:
        raise PeerError(Code.NOT_AUTHENTICATED, "a bundle of another identity than the one expected")
    identity.verify(_BUNDLE, bundle.signed(), bundle.signature)
    primitives.check_kem_public(bundle.kem_prekey.public)
    return identity.id


def check_one_time_key(key: OneTimeKey, owner: PublicIdentity) -> None:
    """Nothing, if this is a one-time key of this person.

    :raises PeerError: ``not-authenticated``, ``malformed``.
    """
    owner.verify(_ONE_TIME, key.signed(owner.id), key.signature)
    primitives.check_kem_public(key.kem_public)


# --- one's own --------------------------------------------------------------------------------------------------------


class _Generation(Stored, frozen=True, kw_only=True):
    """The private halves of one bundle, and the a1 that opened sessions to it, each with True.

    These are remembered for as long as the halves live; only what a server lets through bounds how many there are.
    """

    bundle: Bundle
    prekey: Bytes32
    kem_prekey: Seed
    used: dict[Bytes32, bool]


class _OneTime(Stored, frozen=True, kw_only=True):
    """The private halves of a one-time key, and when it was made."""

    private: Bytes32
    seed: Seed
    made: Number


class _State(Stored, frozen=True, kw_only=True):
    """Everything that is kept; ``greatest`` is the highest version that a bundle of one's own ever had."""

    version: Literal[1] = 1
    next_id: Annotated[int, Meta(ge=1, le=_IDS)] = 1
    greatest: Number = 0
    generations: tuple[_Generation, ...] = ()
    one_time: dict[U32, _OneTime] = field(default_factory=dict)


class Opening(NamedTuple):
    """What of one's own prekeys a phase 1 was made to.

    :ivar specs: those that were published with them.
    :ivar one_time: the X25519 half of the one-time key, if one was used.
    """

    prekey: X25519Key
    kem: KemKey
    one_time: X25519Key | None
    specs: tuple[str, ...]

    def __repr__(self) -> str:
        return "<own prekeys that a session was opened to>"


class OwnPrekeys:
    """The private halves of one's own bundles and one-time keys, and the memory of what used them.

    Whatever changes it replaces its state as a whole: copies cost nothing, and it is a copy that is changed and stored.
    """

    __slots__ = ("_state",)

    def __init__(self) -> None:
        self._state = _State()

    def __repr__(self) -> str:
        return f"<{len(self._state.generations)} bundles, {len(self._state.one_time)} one-time keys>"

    def copy(self) -> OwnPrekeys:
        """Another one in the same state."""
        found = OwnPrekeys()
        found._state = self._state
        return found

    def become(self, other: OwnPrekeys) -> None:
        """Take the state of another one: of a copy on which something was done that has gone well."""
        self._state = other._state

    @property
    def bundle(self) -> Bundle | None:
        """The newest of one's own."""
        return self._state.generations[-1].bundle if self._state.generations else None

    @property
    def one_time_ids(self) -> frozenset[int]:
        """The one-time keys that nobody has used yet."""
        return frozenset(self._state.one_time)

    def restored(self, entropy: ModernEntropy) -> None:
        """The store was restored from a copy: new keys get numbers that those made since then don't have."""
        self._state = replace(self._state, next_id=1 + int.from_bytes(entropy.octets(4), "big"))

    def make_bundle(
        self,
        identity: Identity,
        name: str,
        specs: tuple[str, ...],
        *,
        now: int,
        entropy: ModernEntropy,
        published: Bundle | None = None,
        expires: int | None = None,
    ) -> Bundle:
        """A new bundle with new keys; its version is the greatest of every own one's + 1, ``now``, and published + 1.

        :param published: the copy that the server has, if there is one, so that a restored store is not locked out.
            The server is not believed: it counts only if one has signed it, be it expired.
        :param expires: at most 30 days ahead, which is what it is if not given.
        :raises LocalError: ``policy``, for a bundle that would live longer, or of no spec, and where the server has one
            that the own store doesn't know and that is a year ahead of the own clock.
        """
        expires = now + LIFE if expires is None else expires
        if not now < expires <= now + LIFE or not specs:
            raise LocalError(Code.POLICY, "a bundle lists specs, and lives for at most 30 days")
        greatest = self._state.greatest
        if published is not None and published.version > greatest and _is_own(published, identity.id):
            greatest = published.version
            if greatest > now + AHEAD:
                raise LocalError(Code.POLICY, "the server has a bundle of one's own that is a year ahead of the clock")
        return self._make(identity, name, specs, max(greatest + 1, now), expires, entropy)

    def _make(
        self, identity: Identity, name: str, specs: tuple[str, ...], version: int, expires: int, entropy: ModernEntropy
    ) -> Bundle:
        """A bundle of any version and end; what replays vectors calls this, too."""
        prekey, kem_prekey = entropy.x25519(), entropy.mlkem768()
        number = self._free(2)
        unsigned = Bundle(
            sign=identity.public.sign,
            dh=identity.public.dh,
            name=name,
            specs=specs,
            version=version,
            expires=expires,
            prekey=Prekey(key_id=number, public=prekey.public),
            kem_prekey=KemPrekey(key_id=number + 1, public=kem_prekey.public),
            signature=bytes(primitives.SIGNATURE_SIZE),
        )
        bundle = replace(unsigned, signature=identity.sign(_BUNDLE, unsigned.signed()))
        made = _Generation(bundle=bundle, prekey=prekey.private, kem_prekey=kem_prekey.seed, used={})
        self._state = replace(
            self._state,
            generations=(*self._state.generations, made),
            greatest=max(self._state.greatest, version),
            next_id=number + 2,
        )
        return bundle

    def make_one_time_keys(
        self, identity: Identity, count: int, *, now: int, entropy: ModernEntropy
    ) -> list[OneTimeKey]:
        """Fresh one-time keys to be published.

        :raises LocalError: ``too-large``, for more than 40 at once.
        """
        if count > MAX_PUBLISHED:
            raise LocalError(Code.TOO_LARGE, f"at most {MAX_PUBLISHED} one-time keys are published at once")
        first = self._free(count)
        made, kept = [], dict(self._state.one_time)
        for number in range(first, first + count):
            key, kem = entropy.x25519(), entropy.mlkem768()
            unsigned = OneTimeKey(
                key_id=number, public=key.public, kem_public=kem.public, signature=bytes(primitives.SIGNATURE_SIZE)
            )
            signature = identity.sign(_ONE_TIME, unsigned.signed(identity.id))
            made.append(replace(unsigned, signature=signature))
            kept[number] = _OneTime(private=key.private, seed=kem.seed, made=now)
        self._state = replace(self._state, one_time=dict([*kept.items()][-MAX_HALVES:]), next_id=first + count)
        return made

    def _free(self, count: int) -> int:
        """The first of so many numbers in a row that no key has."""
        bundles = [generation.bundle for generation in self._state.generations]
        taken = {*self._state.one_time, *(key.key_id for one in bundles for key in (one.prekey, one.kem_prekey))}
        number = self._state.next_id
        while number + count > _IDS or not taken.isdisjoint(range(number, number + count)):
            number = 1 if number + count > _IDS else number + 1
        return number

    def find(self, prekey_id: int, kem_prekey_id: int | None, one_time_id: int | None, a1: bytes) -> Opening:
        """The private halves that a phase 1 names. Changes nothing: :meth:`spend` does, once its message verifies.

        :raises PeerError: ``malformed``, unless it names a kem_prekey or a one-time key and not both;
            ``not-authenticated``, for keys that are not there (any more), or an ``a1`` that began a session before.
        """
        if (kem_prekey_id is None) == (one_time_id is None):
            raise malformed("a phase 1 that does not name one KEM key")
        generation = self._generation(prekey_id)
        if any(a1 in other.used for other in self._state.generations):
            raise PeerError(Code.NOT_AUTHENTICATED, "a phase 1 that began a session before")
        one_time: X25519Key | None = None
        if one_time_id is None:
            if kem_prekey_id != generation.bundle.kem_prekey.key_id:
                raise PeerError(Code.NOT_AUTHENTICATED, "a phase 1 to a KEM prekey that is not there")
            kem = KemKey(generation.kem_prekey)
        elif one_time_id in self._state.one_time:
            kept = self._state.one_time[one_time_id]
            one_time, kem = X25519Key(kept.private), KemKey(kept.seed)
        else:
            raise PeerError(Code.NOT_AUTHENTICATED, "a phase 1 to a one-time key that is not there")
        return Opening(prekey=X25519Key(generation.prekey), kem=kem, one_time=one_time, specs=generation.bundle.specs)

    def spend(self, prekey_id: int, one_time_id: int | None, a1: bytes) -> None:
        """A session was begun: its one-time key goes, its ``a1`` is remembered. To be stored with the session."""
        spent = self._generation(prekey_id)
        used = replace(spent, used={**spent.used, a1: True})
        self._state = replace(
            self._state,
            generations=tuple(used if other is spent else other for other in self._state.generations),
            one_time={number: key for number, key in self._state.one_time.items() if number != one_time_id},
        )

    def forget(self, now: int, mailbox_emptied: int) -> None:
        """Let old private halves go, once the mailbox was emptied after their time; to be called once a day.

        A bundle's have theirs until 30 days after its ``expires``; those of one-time keys that nobody used, until so
        long after newer ones were published as a bundle is of use: the server gives the newest.

        :param mailbox_emptied: when the mailbox was last found empty, Unix seconds.
        """
        latest = min(now, mailbox_emptied)
        generations, kept = self._state.generations, self._state.one_time
        newest = max((key.made for key in kept.values()), default=0)
        self._state = replace(
            self._state,
            generations=tuple(one for one in generations if latest < one.bundle.expires + GRACE),
            one_time={n: key for n, key in kept.items() if min(newest, latest) < key.made + LIFE + GRACE},
        )

    def _generation(self, prekey_id: int) -> _Generation:
        for generation in self._state.generations:
            if generation.bundle.prekey.key_id == prekey_id:
                return generation
        raise PeerError(Code.NOT_AUTHENTICATED, "a phase 1 to a prekey that is not there")

    def dump(self) -> bytes:
        """The whole state, private keys included, in MessagePack with its version."""
        return stored.dump(self._state)

    @classmethod
    def load(cls, dumped: bytes) -> OwnPrekeys:
        """What :meth:`dump` gave.

        :raises PeerError: ``malformed``, for anything else and for another version.
        """
        found = cls()
        found._state = stored.load(_State, dumped)
        return found


def _is_own(published: Bundle, own_id: str) -> bool:
    try:
        _proven(published, own_id)
    except PeerError:
        return False
    return True
