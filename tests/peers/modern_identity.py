"""Identities, links, bundles and one-time keys of sims/2, made from the protocol page alone.

Names in quotes in the docstrings are sections of the protocol page.
"""

from __future__ import annotations

import base64
import hashlib
import urllib.parse
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from tests.peers.modern_primitives import (
    KEM_PUBLIC,
    KEY,
    Draws,
    Map,
    RefusedError,
    ed25519_public,
    kem_public,
    lp,
    number_field,
    raw_field,
    sign,
    text_field,
    texts_field,
    u32,
    u64,
    verify,
    x25519_public,
)


def identity_id(sign_public: bytes, dh_public: bytes) -> str:
    """The id that an identity's keys give."""
    digest = hashlib.sha256(lp("sims/2 id", sign_public, dh_public)).digest()
    return base64.b32encode(digest).decode("ascii").lower()[:32]


@dataclass(frozen=True)
class Public:
    """An identity's public keys."""

    sign: bytes
    dh: bytes

    @property
    def id(self) -> str:
        return identity_id(self.sign, self.dh)

    def safety_half(self) -> str:
        digest = lp("sims/2 safety number", self.sign, self.dh)
        for _ in range(5_200):
            digest = hashlib.sha512(digest + self.sign + self.dh).digest()
        groups = (int.from_bytes(digest[at : at + 5], "big") % 100_000 for at in range(0, 30, 5))
        return " ".join(f"{group:05}" for group in groups)


def safety_number(one: Public, other: Public) -> str:
    return " ".join(sorted((one.safety_half(), other.safety_half())))


@dataclass(frozen=True)
class Identity:
    """An identity's private keys ("Notation")."""

    sign_private: bytes = field(repr=False)
    dh_private: bytes = field(repr=False)

    @classmethod
    def fresh(cls) -> Identity:
        draws = Draws()
        return cls(draws.random("sign", 32), draws.x25519("dh"))

    @property
    def public(self) -> Public:
        return Public(ed25519_public(self.sign_private), x25519_public(self.dh_private))

    @property
    def id(self) -> str:
        return self.public.id

    def signature(self, purpose: str, message: bytes) -> bytes:
        return sign(self.sign_private, purpose, message)


class Link(NamedTuple):
    """A link to a server, or, with `name` and `person`, to somebody."""

    tls: bool
    addresses: tuple[tuple[str, int], ...]
    server_id: str
    invite: str | None = None
    name: str | None = None
    person: str | None = None

    @classmethod
    def parse(cls, text: str) -> Link:
        """Read a link; ValueError for anything else."""
        scheme, _, rest = text.partition("://")
        if scheme not in ("sims", "sims+tcp"):
            raise ValueError(f"not a link: {text}")
        rest, _, query = rest.partition("?")
        hosts, *path = rest.split("/")
        invite = urllib.parse.parse_qs(query).get("invite", [None])[0]
        if len(path) not in (1, 3) or len(path[0]) != 32:
            raise ValueError(f"not a link: {text}")
        addresses = []
        for address in hosts.split(","):
            host, _, port = address.rpartition(":")
            addresses.append((host.strip("[]"), int(port)))
        name, person = (urllib.parse.unquote(path[1]), path[2]) if len(path) == 3 else (None, None)
        return cls(scheme == "sims", tuple(addresses), path[0], invite, name, person)

    def __str__(self) -> str:
        hosts = ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.addresses)
        text = f"{'sims' if self.tls else 'sims+tcp'}://{hosts}/{self.server_id}"
        if self.person is not None:
            text += f"/{urllib.parse.quote(self.name or '', safe='')}/{self.person}"
        return text + (f"?invite={urllib.parse.quote(self.invite, safe='')}" if self.invite else "")


# "Prekeys"


def _key_id(key: object) -> bytes:
    number = number_field(key, "key_id")
    if number >= 2**32:
        raise RefusedError("malformed", "key_id")
    return u32(number)


def bundle_signed(bundle: Map) -> bytes:
    """The bytes under a bundle's signature, without the purpose; a bundle of another shape is refused."""
    prekey, kem = bundle.get("prekey"), bundle.get("kem_prekey")
    return lp(
        raw_field(bundle, "sign", KEY),
        raw_field(bundle, "dh", KEY),
        text_field(bundle, "name"),
        lp(*texts_field(bundle, "specs")),
        u64(number_field(bundle, "version")),
        u64(number_field(bundle, "expires")),
        _key_id(prekey),
        raw_field(prekey, "public", KEY),
        _key_id(kem),
        raw_field(kem, "public", KEM_PUBLIC),
    )


def one_time_signed(owner: str, key: Map) -> bytes:
    return lp(owner, _key_id(key), raw_field(key, "public", KEY), raw_field(key, "kem_public", KEM_PUBLIC))


def check_bundle(bundle: Map, now: float, expected_id: str | None = None, seen_version: int = 0) -> Public:
    """Refuse a bundle that "Prekeys" says to refuse; gives its owner."""
    signed = bundle_signed(bundle)
    owner = Public(raw_field(bundle, "sign", KEY), raw_field(bundle, "dh", KEY))
    verify(owner.sign, "bundle", signed, raw_field(bundle, "signature", 64))
    if expected_id is not None and owner.id != expected_id:
        raise RefusedError("not-authenticated", "somebody else's bundle")
    if bundle["version"] < seen_version:
        raise RefusedError("policy", "an older bundle than one seen before")
    if bundle["expires"] <= now:
        raise RefusedError("policy", "an expired bundle")
    return owner


def check_one_time(owner: Public, key: Map) -> None:
    verify(owner.sign, "one-time prekey", one_time_signed(owner.id, key), raw_field(key, "signature", 64))


@dataclass
class Prekeys:
    """The private halves of what somebody has published, by key id."""

    prekeys: dict[int, bytes] = field(default_factory=dict)
    kem_prekeys: dict[int, bytes] = field(default_factory=dict)
    one_time: dict[int, tuple[bytes, bytes]] = field(default_factory=dict)
    next_id: int = 1

    def new_id(self) -> int:
        self.next_id += 1
        return self.next_id - 1

    def make_bundle(
        self, identity: Identity, name: str, specs: Sequence[str], version: int, expires: int, draws: Draws
    ) -> Map:
        """A signed bundle with a new prekey and KEM prekey."""
        prekey_id, kem_id = self.new_id(), self.new_id()
        self.prekeys[prekey_id] = draws.x25519("prekey")
        self.kem_prekeys[kem_id] = draws.kem_seed("kem_prekey")
        bundle = {
            "sign": identity.public.sign,
            "dh": identity.public.dh,
            "name": name,
            "specs": [*specs],
            "version": version,
            "expires": expires,
            "prekey": {"key_id": prekey_id, "public": x25519_public(self.prekeys[prekey_id])},
            "kem_prekey": {"key_id": kem_id, "public": kem_public(self.kem_prekeys[kem_id])},
        }
        return {**bundle, "signature": identity.signature("bundle", bundle_signed(bundle))}

    def make_one_time(self, identity: Identity, draws: Draws) -> Map:
        """A signed one-time key."""
        number = self.new_id()
        private = draws.x25519(f"one_time_{number}"), draws.kem_seed(f"one_time_kem_{number}")
        self.one_time[number] = private
        key = {"key_id": number, "public": x25519_public(private[0]), "kem_public": kem_public(private[1])}
        signature = identity.signature("one-time prekey", one_time_signed(identity.id, key))
        return {**key, "signature": signature}
