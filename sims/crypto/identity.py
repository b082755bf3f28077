"""Who somebody is: keys, ids, safety numbers, signatures with a purpose, links (protocol.rst, "Identity")."""

from __future__ import annotations

import re
from base64 import b32encode
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256, sha512
from urllib.parse import quote, unquote_to_bytes

from sims.crypto import primitives
from sims.crypto.notation import lp
from sims.crypto.primitives import Ed25519Key, ModernEntropy, X25519Key
from sims.errors import malformed

ID_SIZE = 32
MAX_NAME = 32
MAX_LINK = 2048
MAX_ADDRESSES = 8
DEFAULT_PORT = 7467

_ROUNDS = 5200
_ID = re.compile(r"[a-z2-7]{32}", re.ASCII)


@dataclass(frozen=True, slots=True)
class PublicIdentity:
    """The public half of an identity; whoever holds it has checked nothing yet but the keys themselves.

    :ivar sign: an Ed25519 key, 32 bytes.
    :ivar dh: an X25519 key, 32 bytes.
    :raises PeerError: ``malformed``, for keys of other sizes, and a ``sign`` that is no key or of small order.
    """

    sign: bytes
    dh: bytes

    def __post_init__(self) -> None:
        primitives.check_ed25519_public(self.sign)
        if len(self.dh) != primitives.X25519_SIZE:
            raise malformed(f"an X25519 key of {len(self.dh)} bytes")

    @property
    def id(self) -> str:
        """32 characters of ``a-z2-7``: computed from the keys, so that it proves them."""
        return _id_of(self.sign, self.dh)

    def verify(self, purpose: str, message: bytes, signature: bytes) -> None:
        """Nothing, if this identity has signed this for this purpose; errors as :func:`verify`."""
        verify(self.sign, purpose, message, signature)

    def __repr__(self) -> str:
        return f"<public identity {self.id}>"


class Identity:
    """An identity with its private keys.

    :ivar public: the public half.
    :ivar dh: the X25519 key.
    """

    __slots__ = ("_sign", "dh", "id", "public")

    def __init__(self, sign_private: bytes, dh_private: bytes) -> None:
        """Load one; :exc:`ValueError` unless both are 32 bytes."""
        self._sign = Ed25519Key(sign_private)
        self.dh = X25519Key(dh_private)
        self.public = PublicIdentity(self._sign.public, self.dh.public)
        self.id = self.public.id

    @classmethod
    def generate(cls, entropy: ModernEntropy) -> Identity:
        """A fresh one."""
        return cls(entropy.octets(primitives.ED25519_SIZE), entropy.x25519().private)

    def private_bytes(self) -> bytes:
        """Both private keys, 64 bytes, to be stored; ``Identity(stored[:32], stored[32:])`` is this one again."""
        return self._sign.private + self.dh.private

    def sign(self, purpose: str, message: bytes) -> bytes:
        """Sign(sk, purpose, m), 64 bytes."""
        return self._sign.sign(_signed(purpose, message))

    def __repr__(self) -> str:
        return f"<identity {self.id}>"


def _signed(purpose: str, message: bytes) -> bytes:
    return f"sims/2 {purpose}".encode() + b"\0" + message


def verify(sign: bytes, purpose: str, message: bytes, signature: bytes) -> None:
    """Nothing, if the holder of the Ed25519 key has signed this for this purpose.

    :raises PeerError: ``not-authenticated``; ``malformed`` for what is no key, or one of small order.
    """
    primitives.ed25519_verify(sign, signature, _signed(purpose, message))


def identity_id(sign: bytes, dh: bytes) -> str:
    """The id of two public keys: 32 characters of base32, lower-case."""
    return b32encode(sha256(lp(b"sims/2 id", sign, dh)).digest()).decode("ascii").lower()[:ID_SIZE]


#: The same few are asked for again and again.
_id_of = lru_cache(maxsize=256)(identity_id)


def is_id(text: str) -> bool:
    """True for what has the form of an id."""
    return _ID.fullmatch(text) is not None


def safety_number(one: PublicIdentity, other: PublicIdentity) -> str:
    """60 digits in 12 groups of 5, the same on both screens; slow on purpose, about 10 ms."""
    return " ".join(sorted((_half(one), _half(other))))


def _half(identity: PublicIdentity) -> str:
    keys = identity.sign + identity.dh
    found = lp(b"sims/2 safety number", identity.sign, identity.dh)
    for _ in range(_ROUNDS):
        found = sha512(found + keys).digest()
    return " ".join(f"{int.from_bytes(found[start : start + 5], 'big') % 100_000:05d}" for start in range(0, 30, 5))


# --- links ------------------------------------------------------------------------------------------------------------

_SCHEMES = {"sims://": True, "sims+tcp://": False}
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,252}[A-Za-z0-9])?", re.ASCII)
_IPV6 = re.compile(r"[0-9A-Fa-f:.]{2,45}(?:%[A-Za-z0-9_.-]{1,32})?", re.ASCII)
_PORT = re.compile(r"[1-9][0-9]{0,4}", re.ASCII)
_TOKEN = re.compile(r"[A-Za-z0-9_.~-]{1,128}", re.ASCII)
_ENCODED = re.compile(r"(?:[A-Za-z0-9_.~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})+", re.ASCII)


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server listens; ``host`` is a name or an address, IPv6 without its brackets."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class ServerLink:
    """A link to a server.

    :ivar addresses: where it may be reached, in the order in which to try; one at least.
    :ivar id: its id: all that proves who answers there.
    :ivar invite: an invitation, where the link carries one.
    :ivar tls: false for plain TCP.
    """

    addresses: tuple[Address, ...]
    id: str
    invite: str | None = None
    tls: bool = True

    def __str__(self) -> str:
        invite = "" if self.invite is None else f"?invite={self.invite}"
        return f"{_base(self.tls, self.addresses)}/{self.id}{invite}"

    def __repr__(self) -> str:
        return f"<link to the server {self.id}>"  # without the invitation, which is for one person


@dataclass(frozen=True, slots=True)
class PersonLink:
    """A link to a person: the server where they are, their name there, and the id that proves who they are."""

    addresses: tuple[Address, ...]
    server: str
    name: str
    id: str
    tls: bool = True

    def __str__(self) -> str:
        return f"{_base(self.tls, self.addresses)}/{self.server}/{quote(self.name, safe='')}/{self.id}"

    def __repr__(self) -> str:
        return f"<link to the person {self.id}>"


def _base(tls: bool, addresses: tuple[Address, ...]) -> str:
    scheme = "sims://" if tls else "sims+tcp://"
    return scheme + ",".join(map(str, addresses))


def parse_link(text: str) -> ServerLink | PersonLink:
    """Read a link to a server or to a person; space around it is ignored.

    :raises PeerError: ``malformed``, and what about it. Links come from others, whoever pastes them.
    """
    text = text.strip()
    if len(text) > MAX_LINK:
        raise malformed(f"a link of more than {MAX_LINK} characters")
    scheme = next((scheme for scheme in _SCHEMES if text[: len(scheme)].lower() == scheme), None)
    if scheme is None:
        raise malformed(f"a link begins with {' or '.join(_SCHEMES)}")
    tls = _SCHEMES[scheme]
    path, asked, query = text[len(scheme) :].partition("?")
    where, *parts = path.split("/")
    addresses = tuple(_address(address) for address in where.split(",", MAX_ADDRESSES))
    if len(addresses) > MAX_ADDRESSES:
        raise malformed(f"a link with more than {MAX_ADDRESSES} addresses")
    if len(parts) not in (1, 3) or not all(is_id(part) for part in parts[::2]):
        raise malformed("a link is host:port/SERVER-ID or host:port/SERVER-ID/NAME/ID, and an id 32 characters")
    if len(parts) == 1:
        return ServerLink(addresses, parts[0], _invite(query) if asked else None, tls)
    if asked:
        raise malformed("a link to a person carries no invitation")
    return PersonLink(addresses, parts[0], _name(parts[1]), parts[2], tls)


def parse_server_link(text: str) -> ServerLink:
    """Read a link to a server.

    :raises PeerError: ``malformed``, for a link to a person too.
    """
    link = parse_link(text)
    if not isinstance(link, ServerLink):
        raise malformed("a link to a person, where one to a server is needed")
    return link


def parse_person_link(text: str) -> PersonLink:
    """Read a link to a person.

    :raises PeerError: ``malformed``, for a link to a server too.
    """
    link = parse_link(text)
    if not isinstance(link, PersonLink):
        raise malformed("a link to a server, where one to a person is needed")
    return link


def _address(text: str) -> Address:
    if text.startswith("["):
        host, closed, rest = text[1:].partition("]")
        if not closed or not _IPV6.fullmatch(host) or ":" not in host or (rest and not rest.startswith(":")):
            raise malformed("an address that is not [IPv6]:port")
        colon, port = rest[:1], rest[1:]
    else:
        host, colon, port = text.partition(":")
        if not _HOST.fullmatch(host):
            raise malformed("an address that is not host:port")
    if not colon:
        return Address(host, DEFAULT_PORT)
    if not _PORT.fullmatch(port) or int(port) > 0xFFFF:
        raise malformed("a port that is no number from 1 to 65535")
    return Address(host, int(port))


def _invite(query: str) -> str:
    key, _, token = query.partition("=")
    if key != "invite" or not _TOKEN.fullmatch(token):
        raise malformed("what is behind the ? of a link is no invitation")
    return token


def _name(text: str) -> str:
    try:
        name = unquote_to_bytes(text).decode("utf-8") if _ENCODED.fullmatch(text) else ""
    except UnicodeDecodeError:
        name = ""
    if not 1 <= len(name) <= MAX_NAME or not name.isprintable():
        raise malformed(f"a name in a link that is not 1 to {MAX_NAME} characters, percent-encoded")
    return name
