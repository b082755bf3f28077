"""What the tests of the modern protocol build: predictable keys, people, and a relay that can do what a relay can."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto
from functools import lru_cache
from hashlib import sha256
from typing import NamedTuple

import msgspec

from sims.crypto import content as contents
from sims.crypto import payloads, primitives
from sims.crypto.content import FIRST_CHAIN, Order, OwnStream, Place, Receipt, Text, Unreadable
from sims.crypto.identity import Identity
from sims.crypto.peer import PeerSessions
from sims.crypto.prekeys import Bundle, OneTimeKey, OwnPrekeys
from sims.crypto.primitives import Encapsulation, KemKey, X25519Key
from sims.crypto.ratchet import DuplicateError
from sims.crypto.session import Incoming, Outgoing, incoming
from sims.errors import PeerError
from sims.specs import MODERN
from sims.test.builders import flipped

NOW = 1_800_000_000
SPECS = tuple(spec.name for spec in MODERN)


class Counting:
    """Randomness that is the same in every run of a process.

    :ivar draws: how many times something was drawn.
    """

    def __init__(self, seed: str = "") -> None:
        self.draws = 0
        self._seed = seed.encode("utf-8")

    def octets(self, size: int) -> bytes:
        """``size`` bytes."""
        self.draws += 1
        found = b""
        while len(found) < size:
            found += sha256(b"%s/%d/%d" % (self._seed, self.draws, len(found))).digest()
        return found[:size]

    def x25519(self) -> X25519Key:
        """A key."""
        return X25519Key(self.octets(32))

    def mlkem768(self) -> KemKey:
        """A key."""
        return KemKey(self.octets(64))

    def encapsulate(self, public: bytes) -> Encapsulation:
        """A secret for this key."""
        self.draws += 1
        return _encapsulated(self._seed, self.draws, public)


@lru_cache(maxsize=4096)
def _encapsulated(seed: bytes, draws: int, public: bytes) -> Encapsulation:
    """ML-KEM's own randomness cannot be handed in, so what it gave is remembered: runs of a test are then alike."""
    return primitives.encapsulate(public)


def person(seed: str) -> Identity:
    """An identity that is the same in every run."""
    return Identity.generate(Counting(f"identity {seed}"))


def arrives(src: str, dst: str, sent: Outgoing) -> Incoming:
    """What the other end reads of what was sent: through MessagePack, as on the wire."""
    raw = msgspec.msgpack.decode(payloads.encode(sent.data))
    ciphers = None if sent.ciphers is None else list(sent.ciphers)
    return incoming(src, dst, sent.phase, ciphers, raw)


class Letter(NamedTuple):
    """A message on its way."""

    mid: bytes
    src: str
    dst: str
    sent: Outgoing


class Outcome(Enum):
    """What came of a message."""

    OPENED = auto()
    DUPLICATE = auto()
    UNREADABLE = auto()


class _Saved(NamedTuple):
    sessions: bytes
    prekeys: bytes
    order: bytes
    stream: bytes
    shown: dict[bytes, str]


class Person:
    """A small messenger: it opens sessions, answers phases, shows texts once, and asks for what it could not open.

    :ivar shown: the texts that came, by their ids.
    :ivar unreadable: the mids that it could not open.
    """

    def __init__(self, name: str, post: Callable[[Letter], None]) -> None:
        self.name = name
        self.identity = person(name)
        self.entropy = Counting(name)
        self.prekeys = OwnPrekeys()
        self.order = Order()
        self.stream = OwnStream(stream=self.entropy.octets(8))
        self.shown: dict[bytes, str] = {}
        self.places: list[Place] = []
        self.unreadable: set[bytes] = set()
        self.sent: dict[bytes, bytes] = {}  # mid -> content
        self.one_time: list[OneTimeKey] = []
        self.publish()
        self._post = post
        self._asking: bytes | None = None

    def publish(self) -> None:
        """A new bundle, and a one-time key."""
        published = 0 if self.prekeys.bundle is None else self.prekeys.bundle.version
        self.bundle: Bundle = self.prekeys.make_bundle(
            self.identity, self.name, SPECS, now=NOW, entropy=self.entropy, published=published
        )
        self.one_time = self.prekeys.make_one_time_keys(self.identity, 1, self.entropy)

    def meet(self, other: Person) -> None:
        """Take note of the other one's id."""
        self.other = other
        self.sessions = PeerSessions(self.identity, other.identity.id)

    def begin(self) -> bytes:
        """Open a new session; gives its th1."""
        one_time = self.other.one_time.pop() if self.other.one_time else None
        return self.sessions.start(MODERN, self.other.bundle, one_time, now=NOW, entropy=self.entropy)

    def say(self, text: str) -> bytes:
        """Send a text; gives its id."""
        if self.sessions.current is None:
            self.begin()
        number = self.entropy.octets(16)
        said = Text(id=number, stream=self.stream.stream, seq=self.stream.seq + 1, time=NOW, body=text)
        self.transmit(self.stream.add(said))
        return number

    def transmit(self, content: bytes | None, session: bytes | None = None) -> None:
        """Seal and post."""
        sent = self.sessions.seal(content, self.entropy, session)
        letter = Letter(self.entropy.octets(16), self.identity.id, self.other.identity.id, sent.message)
        if content is not None:
            self.sent[letter.mid] = content
        self._post(letter)

    def picture(self) -> _Saved:
        """The whole state, as it is stored."""
        return _Saved(
            self.sessions.dump(),
            self.prekeys.dump(),
            self.order.dump(),
            msgspec.msgpack.encode(self.stream),
            dict(self.shown),
        )

    def restore(self, saved: _Saved) -> None:
        """Go on from a stored state."""
        self.sessions = PeerSessions.load(self.identity, saved.sessions)
        self.prekeys = OwnPrekeys.load(saved.prekeys)
        self.order = Order.load(saved.order)
        self.stream = msgspec.msgpack.decode(saved.stream, type=OwnStream)
        self.shown = dict(saved.shown)

    def roll_back(self, saved: _Saved) -> None:
        """A copy of the store was restored; the server's epoch shows it: new stream, new bundle, new session."""
        newest = self.bundle.version
        self.restore(saved)
        self.stream = OwnStream(stream=self.entropy.octets(8))
        while self.prekeys.bundle is None or self.prekeys.bundle.version <= newest:
            self.publish()
        self._asking = None
        for session in self.sessions.sessions:
            session.end()

    def receive(self, letter: Letter) -> Outcome:
        """Take a message. Whatever is refused changes nothing."""
        before = self.picture()
        draws = self.entropy.draws
        try:
            came = self.sessions.open(
                arrives(letter.src, letter.dst, letter.sent), self.prekeys, MODERN, now=NOW, entropy=self.entropy
            )
        except PeerError as error:
            assert self.picture() == before, "a refusal has changed a state"
            assert self.entropy.draws == draws, "a refusal has drawn randomness"
            if isinstance(error, DuplicateError):
                return Outcome.DUPLICATE
            self._ask(letter.mid)
            return Outcome.UNREADABLE
        opened = came.opened
        if opened.due is not None:
            self.transmit(None, came.session)
        if opened.confirmed:
            self.order.confirm(came.session)
        if opened.content is not None:
            self._take(opened.content, came.session, confirmed=opened.confirmed)
        return Outcome.OPENED

    def _take(self, content: bytes, session: bytes, *, confirmed: bool) -> None:
        said = contents.decode(content)
        assert content in self.other.sent.values(), "something came that was not sent"
        self.places.append(self.order.add(content) if confirmed else self.order.hold(session, content))
        if isinstance(said, Text):
            assert said.id not in self.shown or said.body == self.shown[said.id]
            self.shown[said.id] = said.body
        elif isinstance(said, Unreadable) and said.ref in self.sent:
            self.transmit(self.sent[said.ref])

    def _ask(self, mid: bytes) -> None:
        """Ask for what could not be opened, on phase 1 of a new session."""
        if mid in self.unreadable:
            return
        self.unreadable.add(mid)
        asking = None if self._asking is None else self.sessions.find(self._asking)
        if asking is None or asking.confirmed:
            self._asking = self.begin()
        said = Unreadable(
            id=self.entropy.octets(16), stream=self.stream.stream, seq=self.stream.seq + 1, time=NOW, ref=mid
        )
        self.transmit(self.stream.add(said), self._asking)


class Relay:
    """Between two people: it keeps everything that they post until it is told what to do with it."""

    def __init__(self) -> None:
        self.under_way: list[Letter] = []
        self.alice = Person("alice", self.under_way.append)
        self.bob = Person("bob", self.under_way.append)
        self.alice.meet(self.bob)
        self.bob.meet(self.alice)

    def who(self, letter: Letter) -> Person:
        """Whom a message is for."""
        return self.alice if letter.dst == self.alice.identity.id else self.bob

    def deliver(self, index: int = 0) -> Outcome:
        """Deliver one message."""
        letter = self.under_way.pop(index)
        return self.who(letter).receive(letter)

    def settle(self) -> None:
        """Deliver everything, and what it causes, in order."""
        for _ in range(500):
            if not self.under_way:
                return
            self.deliver()
        raise AssertionError("two people who do not come to rest")


def tampered(letter: Letter, where: int, bit: int) -> Letter:
    """A message with one bit the other way round, in one of its byte fields."""
    fields = msgspec.to_builtins(letter.sent.data, builtin_types=(bytes,))
    message = fields.get("message")
    places = [(fields, key) for key, value in fields.items() if isinstance(value, bytes)]
    if message is not None:
        places += [(message, key) for key in message]
    holder, key = places[where % len(places)]
    data = holder[key]
    holder[key] = flipped(data, (where * 7919) % len(data), bit)
    kind = type(letter.sent.data)
    return letter._replace(sent=letter.sent._replace(data=payloads.convert(kind, fields)))


def receipt(stream: OwnStream, ids: tuple[bytes, ...], chain: bytes = FIRST_CHAIN) -> bytes:
    """The content of the next receipt."""
    return stream.add(
        Receipt(
            id=bytes(16), stream=stream.stream, seq=stream.seq + 1, time=NOW, ids=ids, state="delivered", chain=chain
        )
    )
