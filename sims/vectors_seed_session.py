"""A transcript of the seed, run as a session: both ends of every hop, played by :mod:`sims.crypto.seed`.

Every end draws the keys, randoms and ivs that the transcript says it drew. What it then says must be what stands in
the transcript, and what it hears must open to what was sealed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from sims import messages as m
from sims import specs
from sims.crypto.primitives import P384PrivateKey
from sims.crypto.seed import Box, BoxLike, End, Initiator, Keys, Responder, Session
from sims.errors import Code, LocalError
from sims.vectors_report import Report, UnusableError

#: The name of the end that is not a client.
SERVER = "server"


class Sealed(NamedTuple):
    """A box, what is in it, and the public key of the receiver (PEM) that it was made for."""

    box: BoxLike
    plaintext: bytes
    made_for: bytes


Said = m.Connect1 | m.Connect2 | m.Connect3 | m.Connect4 | m.ClientConnect | Sealed


class Step(NamedTuple):
    """One end says something, or hears it; ``end`` is who it is and towards whom."""

    place: str
    end: tuple[str, str]
    hears: bool
    what: Said


def keys_of(message: m.Connect3 | m.Connect4 | m.ClientConnect3 | m.ClientConnect4) -> Keys:
    """What phase 3 or 4 carries, of either hop."""
    match message.data:
        case m.ClientKeys(public_key=public, client_random=random):
            return Keys(public, random)
        case m.ServerKeys(public_key=public, server_random=random):
            return Keys(public, random)
        case m.PeerKeys(public_key=public, random=random):
            return Keys(public, random)


def replay(report: Report, privates: Mapping[bytes, P384PrivateKey], steps: Iterable[Step]) -> None:
    """Run the steps up to the first one that does not hold: all that follows would only be its consequence.

    :param privates: private keys by the PEM text of their public halves.
    """
    ends: dict[tuple[str, str], _End] = {}
    for step in steps:
        end = ends.get(step.end)
        if end is None:
            role = End.SERVER if step.end[0] == SERVER else End.CLIENT if step.end[1] == SERVER else End.PEER
            end = ends[step.end] = _End(report, role, privates)
        with report.attempt(f"{step.place}, run as a session"):
            if step.hears:
                end.hear(step.place, step.what)
            else:
                end.say(step.place, step.what)
        if report.differences:
            return
    for end in ends.values():
        with report.attempt("the end of the session"):
            end.settle()


class _Script:
    """Entropy that hands out what a transcript says was drawn, in that order."""

    def __init__(self) -> None:
        self._items: deque[P384PrivateKey | bytes] = deque()

    def give(self, *items: P384PrivateKey | bytes) -> None:
        """What the next operation will draw."""
        self._items.extend(items)

    def octets(self, size: int) -> bytes:
        """The next item, if it is so many bytes."""
        item = self._items.popleft() if self._items else None
        if not isinstance(item, bytes) or len(item) != size:
            raise LocalError(Code.INTERNAL, f"{size} bytes are drawn where the transcript has something else")
        return item

    def p384(self) -> P384PrivateKey:
        """The next item, if it is a key."""
        item = self._items.popleft() if self._items else None
        if item is None or isinstance(item, bytes):
            raise LocalError(Code.INTERNAL, "a key is drawn where the transcript has something else")
        return item


class _End:
    """One end of a hop.

    Boxes that it hears wait until they must have been there: when it seals for a later key of the other end, or at the
    end of the session. For what crosses on the wire, the order of the file is not the order in which an end saw it.
    """

    def __init__(self, report: Report, role: End, privates: Mapping[bytes, P384PrivateKey]) -> None:
        self._same = report.same
        self._role = role
        self._privates = privates
        self._script = _Script()
        self._initiator = Initiator(role, (), self._script)
        self._responder = Responder(role, specs.SEED, self._script)
        self._offer: list[str] = []
        self._choice = ""
        self._theirs = Keys(b"", b"")
        self._session: Session | None = None
        self._waiting: deque[tuple[str, Sealed]] = deque()

    def say(self, place: str, what: Said) -> None:
        """Make what this end sends, and compare it with what it did send."""
        match what:
            case Sealed():
                self._seal(place, what)
            case m.Connect1() | m.ClientConnect1():
                self._initiator = Initiator(self._role, specs.by_names(what.ciphers), self._script)
                self._same(f"{place}, offer of the session", what.ciphers, self._initiator.offer())
            case m.Connect2() | m.ClientConnect2():
                self._same(f"{place}, spec of the session", what.ciphers, self._responder.answer(self._offer).name)
            case m.Connect3() | m.ClientConnect3():
                self._give(keys_of(what))
                self._same_keys(place, keys_of(what), self._initiator.choose(self._choice))
            case m.Connect4() | m.ClientConnect4():
                self._give(keys_of(what))
                answer, session = self._responder.accept(self._choice, self._theirs)
                self._same_keys(place, keys_of(what), answer)
                self._begin(session, self._theirs)

    def hear(self, place: str, what: Said) -> None:
        """Take what the other end has sent."""
        match what:
            case Sealed():
                self._waiting.append((place, what))
            case m.Connect1() | m.ClientConnect1():
                self._responder = Responder(self._role, specs.SEED, self._script)
                self._offer = what.ciphers
            case m.Connect2() | m.ClientConnect2():
                self._choice = what.ciphers
            case m.Connect3() | m.ClientConnect3():
                self._choice = what.ciphers
                self._theirs = keys_of(what)
            case m.Connect4() | m.ClientConnect4():
                keys = keys_of(what)
                self._begin(self._initiator.finish(keys), keys)

    def settle(self) -> None:
        """Open everything that waits."""
        while self._waiting:
            self._open_next()

    def _begin(self, session: Session, theirs: Keys) -> None:
        self.settle()
        self._session = session
        self._theirs = theirs

    def _give(self, keys: Keys, *octets: bytes) -> None:
        self._script.give(self._privates[keys.public_key], keys.random, *octets)

    def _same_keys(self, place: str, expected: Keys, got: Keys) -> None:
        for name in Keys._fields:
            self._same(f"{place}, {name} of the session", getattr(expected, name), getattr(got, name))

    def _seal(self, place: str, sealed: Sealed) -> None:
        while self._waiting and self._theirs.public_key != sealed.made_for:
            self._open_next()
        if self._session is None:
            raise UnusableError("sealed before phase 4")
        self._give(Keys(sealed.box.public_key, sealed.box.random), sealed.box.iv)
        box = self._session.seal(sealed.plaintext)
        for name in Box._fields:
            self._same(f"{place}, {name} as sealed in the session", getattr(sealed.box, name), getattr(box, name))

    def _open_next(self) -> None:
        place, sealed = self._waiting.popleft()
        if self._session is None:
            raise UnusableError(f"the box of {place} comes before phase 4")
        plaintext = self._session.open(sealed.box, bytes)
        self._same(f"{place}, plaintext as opened in the session", sealed.plaintext, plaintext)
        self._theirs = Keys(sealed.box.public_key, sealed.box.random)
