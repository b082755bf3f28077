"""What the tests of the modern protocol build: predictable keys, people, and a relay that can do what a relay can."""

from __future__ import annotations

import copy
from collections.abc import Callable
from enum import Enum, auto
from functools import lru_cache
from hashlib import sha256
from typing import NamedTuple

import msgspec
from msgspec import UNSET

from sims.crypto import payloads, primitives
from sims.crypto.content import FIRST_CHAIN, Arrival, Disconnect, OwnStream, Place, Receipt, Text, Unreadable
from sims.crypto.conversation import Conversation
from sims.crypto.identity import Identity
from sims.crypto.payloads import Phase1, Phase2, Phase3
from sims.crypto.peer import PeerSessions
from sims.crypto.prekeys import Bundle, OneTimeKey, OwnPrekeys
from sims.crypto.primitives import Encapsulation, KemKey, X25519Key
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
        return _x25519(self.octets(32))

    def mlkem768(self) -> KemKey:
        """A key."""
        return _mlkem768(self.octets(64))

    def encapsulate(self, public: bytes) -> Encapsulation:
        """A secret for this key."""
        self.draws += 1
        return _encapsulated(self._seed, self.draws, public)


# Those who go different ways from one state draw the same.
_x25519 = lru_cache(maxsize=4096)(X25519Key)
_mlkem768 = lru_cache(maxsize=4096)(KemKey)


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


class Saved(NamedTuple):
    """What a person has stored."""

    conversation: bytes
    prekeys: bytes
    shown: dict[bytes, str]


class Person:
    """A small messenger: it opens sessions, answers phases, shows texts once, and asks for what it could not open.

    Everything is done on copies, which are stored and then take the place of what was.

    :ivar shown: the texts that came, by their ids; ``confirmed`` those of them whose sender is.
    :ivar places: of the texts that are confirmed.
    :ivar receipts: the ids in receipts that came; ``ended`` counts the disconnects.
    :ivar unreadable: the mids that it could not open.
    :ivar dropped: the sessions that had to go.
    :ivar crashes: whether it goes down each time before it answers a phase.
    """

    def __init__(self, name: str, post: Callable[[Letter], None]) -> None:
        self.name = name
        self.identity = person(name)
        self.entropy = Counting(name)
        self.prekeys = OwnPrekeys()
        self.shown: dict[bytes, str] = {}
        self.confirmed: set[bytes] = set()
        self.places: list[Place] = []
        self.receipts: list[bytes] = []
        self.ended = 0
        self.unreadable: set[bytes] = set()
        self.dropped: list[bytes] = []
        self.crashes = False
        self.sent: dict[bytes, bytes] = {}  # mid -> content
        self.one_time: list[OneTimeKey] = []
        self.published: Bundle | None = None
        self.publish()
        self._post = post
        self._asking: bytes | None = None

    def publish(self) -> None:
        """A new bundle, and a one-time key."""
        self.bundle = self.published = self.prekeys.make_bundle(
            self.identity, self.name, SPECS, now=NOW, entropy=self.entropy, published=self.published
        )
        self.one_time = self.prekeys.make_one_time_keys(self.identity, 1, now=NOW, entropy=self.entropy)

    def meet(self, other: Person) -> None:
        """Take note of the other one's id."""
        self.other = other
        self.conversation = Conversation.new(self.identity, other.identity.id, self.entropy)

    @property
    def sessions(self) -> PeerSessions:
        """All sessions with the other one; whatever is done to them is done to the conversation."""
        return self.conversation._sessions

    @property
    def stream(self) -> OwnStream:
        """The own stream."""
        return self.conversation._stream

    def begin(self) -> bytes:
        """Open a new session; gives its th1."""
        one_time = self.other.one_time.pop() if self.other.one_time else None
        before = set(self.conversation.sessions)
        th1 = self.conversation.start(MODERN, self.other.bundle, one_time, now=NOW, entropy=self.entropy)
        assert th1 in self.conversation.sessions, "a session that is not there"
        self.dropped += before - set(self.conversation.sessions)
        return th1

    def say(self, text: str, session: bytes | None = None) -> bytes:
        """Send a text; gives its id."""
        if session is None and self.conversation.needs_bundle:
            self.begin()
        number = self.entropy.octets(16)
        self.transmit(self.conversation.text(text, number, NOW), session)
        return number

    def transmit(self, content: bytes | None, session: bytes | None = None) -> None:
        """Seal and post."""
        sent = self.conversation.seal(content, self.entropy, session)
        letter = Letter(self.entropy.octets(16), self.identity.id, self.other.identity.id, sent.message)
        if content is not None:
            self.sent[letter.mid] = content
        self._post(letter)

    def picture(self) -> Saved:
        """The whole state, as it is stored."""
        return Saved(self.conversation.dump(), self.prekeys.dump(), dict(self.shown))

    def restore(self, saved: Saved) -> None:
        """Go on from a stored state."""
        self.conversation = Conversation.load(self.identity, saved.conversation)
        self.prekeys = OwnPrekeys.load(saved.prekeys)
        self.shown = dict(saved.shown)
        self.confirmed &= self.shown.keys()

    def fork(self, post: Callable[[Letter], None]) -> Person:
        """Another one in the same state, who goes their own way from here; the other one is still the old one's."""
        found = copy.copy(self)
        found.conversation, found.prekeys = self.conversation.copy(), self.prekeys.copy()
        found.entropy = copy.copy(self.entropy)
        for name, value in vars(self).items():
            if isinstance(value, dict | list | set):
                setattr(found, name, value.copy())
        found._post = post
        return found

    def roll_back(self, saved: Saved) -> None:
        """A copy of the store was restored; the server's epoch shows it: new stream, new bundle, new session."""
        self.restore(saved)
        self.conversation.restored(self.entropy)
        self.prekeys.restored(self.entropy)
        self.publish()
        self._asking = None

    def receive(self, letter: Letter) -> Outcome:
        """Take a message. Whatever is refused changes nothing."""
        before = self.picture()
        draws = self.entropy.draws
        changed, prekeys = self.conversation.copy(), self.prekeys.copy()
        try:
            came = arrives(letter.src, letter.dst, letter.sent)
            arrived = changed.open(came, prekeys, MODERN, now=NOW, entropy=self.entropy)
        except PeerError:
            assert (changed.dump(), prekeys.dump()) == before[:2], "a refusal has changed a state"
            assert self.entropy.draws == draws, "a refusal has drawn randomness"
            self._ask(letter.mid)
            return Outcome.UNREADABLE
        assert self.picture() == before, "a copy that is none"
        if arrived.duplicate:
            assert (changed.dump(), prekeys.dump()) == before[:2], "a duplicate has changed a state"
            return Outcome.DUPLICATE
        self.conversation, self.prekeys = changed, prekeys
        self.dropped += arrived.dropped
        if self.crashes:
            self.restore(self.picture())
            for session, _ in self.conversation.due():
                self.transmit(None, session)
        elif arrived.due is not None:
            self.transmit(None, arrived.session)
        assert not self.conversation.due(), "a phase that was not answered"
        for arrival in arrived.acts + arrived.settled:
            self._take(arrival)
        return Outcome.OPENED

    def _take(self, arrival: Arrival) -> None:
        said = arrival.content
        assert arrival.data in self.other.sent.values(), "something came that was not sent"
        assert arrival.confirmed or isinstance(said, Text), "acted on before its sender is confirmed"
        if isinstance(said, Text):
            assert said.id not in self.shown or said.body == self.shown[said.id]
            self.shown[said.id] = said.body
            if arrival.confirmed:
                self.confirmed.add(said.id)
                self.places.append(arrival.place)
        elif isinstance(said, Unreadable) and said.ref in self.sent:
            if self.conversation.needs_bundle:
                self.begin()
            self.transmit(self.sent[said.ref])
        elif isinstance(said, Receipt):
            self.receipts += said.ids
        elif isinstance(said, Disconnect):
            self.ended += 1

    def _ask(self, mid: bytes) -> None:
        """Ask for what could not be opened, on phase 1 of a new session."""
        if mid in self.unreadable:
            return
        self.unreadable.add(mid)
        asking = None if self._asking is None else self.sessions.find(self._asking)
        if asking is None or asking.confirmed or asking.ended:
            self._asking = self.begin()
        self.transmit(self.conversation.unreadable(mid, NOW), self._asking)


class Relay:
    """Between two people: it keeps everything that they post until it is told what to do with it."""

    def __init__(self) -> None:
        self.under_way: list[Letter] = []
        self.alice = Person("alice", self.under_way.append)
        self.bob = Person("bob", self.under_way.append)
        self.alice.meet(self.bob)
        self.bob.meet(self.alice)

    def fork(self) -> Relay:
        """Another one in the same state, with people who go their own way from here."""
        found = copy.copy(self)
        found.under_way = self.under_way.copy()
        found.alice, found.bob = (one.fork(found.under_way.append) for one in (self.alice, self.bob))
        found.alice.other, found.bob.other = found.bob, found.alice
        return found

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


def stripped(letter: Letter) -> Letter:
    """A phase without what rides on it: a relay can take that away, as no mac is over it."""
    data = letter.sent.data
    if isinstance(data, Phase1 | Phase2 | Phase3):
        data = msgspec.structs.replace(data, message=UNSET)
    return letter._replace(sent=letter.sent._replace(data=data))


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
    """The content of the next receipt; the stream stays."""
    said = Receipt(
        id=bytes(16), stream=stream.stream, seq=stream.seq + 1, time=NOW, ids=ids, state="delivered", chain=chain
    )
    return stream.next(said)[0]
