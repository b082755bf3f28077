"""One fault, of every kind, at every point of a talk: then both directions work again within two round trips.

Nothing else is lost: a text that came changed is asked for and said again, one that came late is shown, and only what
the relay has swallowed is missing, which the order of the others shows. That nothing is shown that was not sent so, and
that a refusal changes nothing, is asserted in :mod:`sims.test.modern_builders`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

from msgspec import UNSET
from twisted.trial.unittest import SynchronousTestCase

from sims.crypto.content import Place, Text, decode
from sims.crypto.payloads import Message
from sims.test.modern_builders import Letter, Outcome, Person, Relay, Saved, stripped, tampered

#: Talks: who says something, in turn; after each element everything arrives.
TALKS = {
    "one opens": ("a", "bb", "a", "aa", "b"),
    "both open": ("ab", "ba", "a"),
}


class Point(NamedTuple):
    """A point of a talk, where the first message that is under way is about to arrive.

    :ivar saved: what alice and bob had stored before each turn.
    """

    relay: Relay
    saved: tuple[tuple[Saved, Saved], ...]

    @property
    def letter(self) -> Letter:
        """The message."""
        return self.relay.under_way[0]

    @property
    def receiver(self) -> Person:
        """Whom it is for."""
        return self.relay.who(self.letter)

    def fork(self) -> Point:
        """The same, to go another way from here."""
        return self._replace(relay=self.relay.fork())

    def text(self) -> set[bytes]:
        """The id of the text that the message carries, if it does."""
        content = self.receiver.other.sent.get(self.letter.mid)
        said = None if content is None else decode(content)
        return {said.id} if isinstance(said, Text) else set()


def points(talk: tuple[str, ...]) -> Iterator[Point]:
    """Every point of a talk."""
    relay = Relay()
    saved = [(relay.alice.picture(), relay.bob.picture())]
    for turn in talk:
        for who in turn:
            (relay.alice if who == "a" else relay.bob).say(f"text {len(relay.under_way)}")
        while relay.under_way:
            yield Point(relay.fork(), tuple(saved))
            relay.deliver()
        saved.append((relay.alice.picture(), relay.bob.picture()))


def say_both(relay: Relay) -> tuple[bytes, bytes]:
    """A round trip."""
    asked = relay.alice.say("are you there?")
    relay.settle()
    answered = relay.bob.say("yes")
    relay.settle()
    return asked, answered


# --- faults: each gives the texts that may be missing, or None where an old store shows what it showed then -----------

Lost = set[bytes] | None


def dropped(point: Point) -> Lost:
    """It never arrives."""
    lost = point.text()
    del point.relay.under_way[0]
    return lost


def without_what_rides(point: Point) -> Lost:
    """A phase arrives without its message; anything else as it is."""
    letter, lost = point.letter, point.text()
    point.relay.under_way[0] = stripped(letter)
    return lost if letter.sent.phase in (2, 3) else set()


def doubled(point: Point) -> Lost:
    """It arrives twice."""
    letter, receiver = point.letter, point.receiver
    point.relay.deliver()
    assert receiver.receive(letter) is Outcome.DUPLICATE
    return set()


def replayed(point: Point) -> Lost:
    """It arrives once more when everything has, and has been answered."""
    letter, receiver = point.letter, point.receiver
    point.relay.settle()
    say_both(point.relay)
    assert receiver.receive(letter) is Outcome.DUPLICATE
    return set()


def reordered(point: Point) -> Lost:
    """All that is under way arrives the other way round."""
    point.relay.under_way.reverse()
    return set()


def delayed(point: Point) -> Lost:
    """It arrives when everything else has."""
    receiver, letter = point.receiver, point.relay.under_way.pop(0)
    point.relay.settle()
    assert receiver.receive(letter) is not Outcome.UNREADABLE
    return set()


def long_delayed(point: Point) -> Lost:
    """It arrives two round trips later."""
    receiver, letter = point.receiver, point.relay.under_way.pop(0)
    point.relay.settle()
    for _ in range(2):
        say_both(point.relay)
    assert receiver.receive(letter) is not Outcome.UNREADABLE
    return set()


def changed(where: int, point: Point) -> Lost:
    """It arrives with one bit the other way round."""
    point.relay.under_way[0] = tampered(point.letter, where, 0)
    return set()


def changed_first(where: int, point: Point) -> Lost:
    """It arrives with one bit the other way round, and then as it was sent."""
    point.relay.under_way.insert(0, tampered(point.letter, where, 7))
    return set()


def given_back(point: Point) -> Lost:
    """It comes to its sender, as from the other one; and to whom it is for."""
    letter = point.letter
    point.relay.under_way.insert(0, letter._replace(src=letter.dst, dst=letter.src))
    return set()


def crash_of_receiver(point: Point) -> Lost:
    """Who receives it goes down before they answer."""
    receiver = point.receiver
    receiver.crashes = True
    point.relay.deliver()
    receiver.crashes = False
    return set()


def crash_of_both(point: Point) -> Lost:
    """Both start again from what they have stored."""
    for person in (point.relay.alice, point.relay.bob):
        person.restore(person.picture())
    return set()


def opened_again(point: Point) -> Lost:
    """Both open one more session, and say something on it."""
    for person in (point.relay.alice, point.relay.bob):
        person.say("on a new session", person.begin())
    return set()


def rolled_back(sender: bool, noticed: bool, ago: int, point: Point) -> Lost:
    """Who sent it, or receives it, has restored what they had stored so many turns ago; the server's epoch shows it,
    or nothing does.
    """
    person = point.receiver.other if sender else point.receiver
    saved = point.saved[max(0, len(point.saved) - 1 - ago)][person is point.relay.bob]
    if noticed:
        person.roll_back(saved)
    else:
        person.restore(saved)
    return None


#: Two of them, in turns of a talk.
ROUND_TRIPS = 4

FAULTS: tuple[Callable[[Point], Lost], ...] = (
    *(dropped, without_what_rides, doubled, replayed, reordered, delayed, long_delayed, given_back),
    partial(changed_first, 3),
    *(crash_of_receiver, crash_of_both, opened_again),
    *(partial(rolled_back, sender, noticed, ROUND_TRIPS) for sender in (True, False) for noticed in (True, False)),
    partial(rolled_back, True, False, 0),
)


def faults(letter: Letter) -> Iterator[Callable[[Point], Lost]]:
    """All there are for a message, each of its byte fields changed among them."""
    yield from FAULTS
    data = letter.sent.data
    message = data if isinstance(data, Message) else getattr(data, "message", UNSET)
    own = sum(isinstance(getattr(data, name), bytes) for name in data.__struct_fields__)
    for where in range(own + 2 * (message is not UNSET and message is not data)):
        yield partial(changed, where)


class OneFault(SynchronousTestCase):
    """One thing goes wrong.

    :cvar every: one of so many is tried; all of them in ``tests/test_faults_whole.py``.
    """

    every = 6

    def heals(self, point: Point, lost: Lost) -> None:
        """The relay is honest from now on."""
        relay = point.relay
        relay.settle()
        first, second = say_both(relay), say_both(relay)
        for person, early, probe in zip((relay.bob, relay.alice), first, second, strict=True):
            self.assertIn(early, person.shown)
            self.assertIn(probe, person.confirmed)
            self.assertEqual(person.conversation.due(), ())
            if lost is None:
                continue
            texts = {said.id for said in map(decode, person.other.sent.values()) if isinstance(said, Text)}
            self.assertLessEqual(texts - person.shown.keys(), lost)
            # What rode on phase 1 of a session that nobody has gone on with stays unconfirmed, and does not count.
            whole = texts <= person.confirmed
            self.assertIs(person.places[-1], Place.IN_ORDER if whole else Place.GAP)

    def test_at_every_point_of_a_talk(self) -> None:
        count = 0
        for name, talk in TALKS.items():
            for number, point in enumerate(points(talk)):
                for fault in faults(point.letter):
                    count += 1
                    if count % self.every:
                        continue
                    found = point.fork()
                    try:
                        self.heals(found, fault(found))
                    except AssertionError as error:
                        where = f"{name}, point {number}, phase {point.letter.sent.phase}, {fault}"
                        raise AssertionError(f"{where}: {error}") from error
        self.assertGreaterEqual(count, 400)
