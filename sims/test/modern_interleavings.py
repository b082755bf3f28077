"""Every course that a talk of two people can take: who says something next, and which message arrives next.

What one end is depends on nothing but what it has said and what has come to it. So the two ends are explored apart: an
:class:`End` never changes and remembers what followed on it, so that whatever costs something is done once, however
many courses of the whole pass through it; and ends that are alike are one. The whole is then a search over pairs of
ends with what is under way between them, which meets each such state once.

On the way everything is checked that holds at one end (:meth:`End.received`), and wherever nothing is under way what
holds between the two (:meth:`Courses.check_rest`).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from random import Random
from typing import NamedTuple

from sims.crypto.content import Arrival, Place, Text
from sims.crypto.conversation import Arrived, Conversation
from sims.crypto.prekeys import OwnPrekeys
from sims.errors import PeerError
from sims.specs import MODERN
from sims.test.modern_builders import NOW, Counting, Letter, Person, arrives


class Post:
    """A message under way: one for all courses in which it is the same.

    :ivar number: among all posts.
    :ivar content: what it carries.
    """

    __slots__ = ("content", "letter", "number")

    def __init__(self, number: int, letter: Letter, content: bytes | None) -> None:
        self.number, self.letter, self.content = number, letter, content


class Seen(NamedTuple):
    """What came to an end, as its user has it.

    :ivar shown: the texts with their ids, and ``confirmed`` those of them whose sender is.
    :ivar counted: the numbers of the contents that count, and ``held`` those that do not yet, with their sessions.
    """

    shown: frozenset[tuple[bytes, str]] = frozenset()
    confirmed: frozenset[tuple[bytes, str]] = frozenset()
    counted: frozenset[int] = frozenset()
    held: frozenset[tuple[bytes, int]] = frozenset()

    def after(self, arrived: Arrived) -> Seen:
        """With what came; each place is the one that the numbers give, and nothing is new that was shown before."""
        seen = self
        for arrival in arrived.settled + arrived.acts:
            seen = seen._with(arrived.session, arrival)
        if arrived.confirmed:
            assert all(session != arrived.session for session, _ in seen.held), "a text that is held for nothing"
        return seen

    def _with(self, session: bytes, arrival: Arrival) -> Seen:
        said = arrival.content
        assert isinstance(said, Text), "nobody has said anything but texts"
        text, key = (said.id, said.body), (session, said.seq)
        assert arrival.shown is (key in self.held) is (text in self.shown), "a text that is shown twice"
        assert said.seq not in self.counted, "a number that came before"
        before = self.counted
        if not arrival.confirmed:
            before |= {seq for name, seq in self.held if name == session}
        place = Place.IN_ORDER if before >= set(range(1, said.seq)) else Place.GAP
        assert arrival.place is place, f"{arrival.place}, where it is {place}"
        shown = self.shown | {text}
        if not arrival.confirmed:
            return self._replace(shown=shown, held=self.held | {key})
        return Seen(shown, self.confirmed | {text}, self.counted | {said.seq}, self.held - {key})


class End:
    """One end, after what it has said and what has come to it.

    :ivar said: the texts with their ids.
    :ivar seen: what came.
    :ivar came: the messages that came.
    """

    __slots__ = ("_after", "_courses", "_kept", "came", "conversation", "draws", "person", "prekeys", "said", "seen")

    def __init__(
        self,
        courses: Courses,
        person: Person,
        conversation: Conversation,
        prekeys: OwnPrekeys,
        draws: int,
        said: tuple[tuple[bytes, str], ...],
        seen: Seen,
        came: tuple[Post, ...],
    ) -> None:
        self._courses, self.person = courses, person
        self.conversation, self.prekeys, self.draws = conversation, prekeys, draws
        self.said, self.seen, self.came = said, seen, came
        self._after: dict[Post | str, tuple[End, tuple[Post, ...]]] = {}
        self._kept: tuple[bytes, ...] | None = None

    @property
    def sessions(self) -> tuple[bytes, ...]:
        """All of them, the one to send on first."""
        if self._kept is None:
            self._kept = self.conversation.sessions
        return self._kept

    def after(self, move: Post | str) -> tuple[End, tuple[Post, ...]]:
        """What it is when this has come, or when it ``says`` one more text, or ``answers`` what is due; what it posts.

        What is asked for again is what was given.
        """
        found = self._after.get(move)
        if found is None:
            if isinstance(move, Post):
                found = self.received(move)
            else:
                found = self._says() if move == "says" else self._answers()
            self._after[move] = found
        return found

    def _says(self) -> tuple[End, tuple[Post, ...]]:
        conversation, entropy = self.conversation.copy(), drawing(self.person.name, self.draws)
        other = self.person.other
        if conversation.needs_bundle:
            conversation.start(MODERN, other.bundle, other.one_time[0], now=NOW, entropy=entropy)
        number, body = entropy.octets(16), f"{self.person.name} {len(self.said)}"
        content = conversation.text(body, number, NOW)
        post = self._post(conversation, entropy, content)
        said = (*self.said, (number, body))
        return self._courses.end(self, conversation, self.prekeys, entropy.draws, said, self.seen, self.came), (post,)

    def _answers(self) -> tuple[End, tuple[Post, ...]]:
        conversation, entropy = self.conversation.copy(), drawing(self.person.name, self.draws)
        posts = tuple(self._post(conversation, entropy, None, session) for session, _ in conversation.due())
        assert not conversation.due(), "a phase that was answered, and is still due"
        draws, said = entropy.draws, self.said
        return self._courses.end(self, conversation, self.prekeys, draws, said, self.seen, self.came), posts

    def _post(
        self, conversation: Conversation, entropy: Counting, content: bytes | None, session: bytes | None = None
    ) -> Post:
        sent = conversation.seal(content, entropy, session)
        letter = Letter(entropy.octets(16), self.person.identity.id, self.person.other.identity.id, sent.message)
        return self._courses.post(letter, content)

    def received(self, post: Post) -> tuple[End, tuple[Post, ...]]:
        """What it is when this has come; and what it posts.

        It is not refused; what it carries is handed over now; and beside it nothing is, but that what was held is
        confirmed. Phases are answered, if that is done at once.
        """
        conversation, prekeys, entropy = self.conversation.copy(), self.prekeys.copy(), drawing("accepting", self.draws)
        arrived = _opened(post, conversation, prekeys, entropy)
        assert not arrived.dropped, "a session that had to go"
        assert post.content is None or not arrived.duplicate, "a text that is said to have come before"
        data = [arrival.data for arrival in arrived.acts]
        assert data == ([] if post.content is None else [post.content]), "what is handed over is not what came"
        due = dict(conversation.due()).get(arrived.session)
        assert arrived.due in (None, due), "what is due is not what is said to be"
        seen, came = self.seen.after(arrived), (*self.came, post)
        end = self._courses.end(self, conversation, prekeys, entropy.draws, self.said, seen, came)
        if self._courses.at_once and arrived.due is not None:
            return end.after("answers")
        return end, ()

    def check_doubled(self) -> None:
        """All that came comes once more: it is known to have come, and changes nothing."""
        before = self.conversation.dump(), self.prekeys.dump()
        for post in self.came:
            conversation, prekeys, entropy = self.conversation.copy(), self.prekeys.copy(), drawing("", 0)
            assert _opened(post, conversation, prekeys, entropy).duplicate, "what came before is taken for new"
            assert ((conversation.dump(), prekeys.dump()), entropy.draws) == (before, 0), (
                "a doubled one changes a state"
            )


def drawing(name: str, draws: int) -> Counting:
    """Somebody's randomness, of which so much was drawn."""
    found = Counting(name)
    found.draws = draws
    return found


def _opened(post: Post, conversation: Conversation, prekeys: OwnPrekeys, entropy: Counting) -> Arrived:
    """What comes of a message, which is honest."""
    came = arrives(*post.letter[1:])
    try:
        return conversation.open(came, prekeys, MODERN, now=NOW, entropy=entropy)
    except PeerError as error:
        raise AssertionError("an honest message is refused") from error


class State(NamedTuple):
    """Two ends, and what is under way to each of them."""

    ends: tuple[End, End]
    under_way: tuple[tuple[Post, ...], tuple[Post, ...]]

    @property
    def at_rest(self) -> bool:
        """Whether nothing happens until somebody says something."""
        return self.under_way == ((), ()) and not any(end.conversation.due() for end in self.ends)


#: What happens: which end does what, or what comes to it.
Move = tuple[int, Post | str]


class Courses:
    """All courses of a talk.

    :ivar texts: how many are said, by whomever.
    :ivar ordered: whether messages to one end arrive in the order in which they were sent; or else in any.
    :ivar doubled: whether each that came may come again, at any time.
    :ivar at_once: whether phases are answered as soon as they are due; or else at any time, after anything else.
    :ivar states: how many were met; ``rests`` are those of them with nothing under way, ``apart`` of those the ones in
        which the two would send on different sessions.
    """

    def __init__(self, texts: int, *, ordered: bool, doubled: bool = False, at_once: bool = True) -> None:
        self.texts, self.ordered, self.doubled, self.at_once = texts, ordered, doubled, at_once
        self.states = self.rests = self.apart = 0
        self._posts: dict[bytes, list[Post]] = {}
        self._numbers = count()
        self._ends: dict[object, End] = {}
        self._from: dict[State, tuple[State, Move] | None] = {}
        alice, bob = Person("alice", _nowhere), Person("bob", _nowhere)
        alice.meet(bob)
        bob.meet(alice)
        first, second = (
            End(self, one, one.conversation, one.prekeys, one.entropy.draws, (), Seen(), ()) for one in (alice, bob)
        )
        self.start = State((first, second), ((), ()))

    def post(self, letter: Letter, content: bytes | None) -> Post:
        """A message: the same one for the same."""
        alike = self._posts.setdefault(letter.mid, [])
        for post in alike:
            if (post.letter, post.content) == (letter, content):
                return post
        alike.append(Post(next(self._numbers), letter, content))
        return alike[-1]

    def end(
        self,
        before: End,
        conversation: Conversation,
        prekeys: OwnPrekeys,
        draws: int,
        said: tuple[tuple[bytes, str], ...],
        seen: Seen,
        came: tuple[Post, ...],
    ) -> End:
        """What an end has become: the same one for the same."""
        key = (conversation.dump(), prekeys.dump(), draws, said, seen, frozenset(came))
        found = self._ends.get(key)
        if found is None:
            found = self._ends[key] = End(self, before.person, conversation, prekeys, draws, said, seen, came)
            if self.doubled:
                found.check_doubled()
        return found

    def explore(self) -> None:
        """Go everywhere from the start."""
        left = [self.start]
        self._from[self.start] = None
        while left:
            state = left.pop()
            self._meet(state)
            for move in self._moves(state):
                found = self._after(state, move)
                if found not in self._from:
                    self._from[found] = state, move
                    left.append(found)

    def wander(self, walks: int, random: Random) -> None:
        """Go so many ways from the start to an end, each step by chance."""
        for _ in range(walks):
            state = self.start
            self._from.setdefault(state, None)
            while moves := list(self._moves(state)):
                move = random.choice(moves)
                found = self._after(state, move)
                if found not in self._from:
                    self._from[found] = state, move
                    self._meet(found)
                state = found

    def settle(self, *who: int) -> None:
        """Begin elsewhere: each of these says something, in turn, and then everything arrives."""
        state = self.start
        for end in who:
            state = self._after(state, (end, "says"))
        while not state.at_rest:
            state = self._after(state, next(move for move in self._moves(state) if move[1] != "says"))
        self.start = state
        self.texts += len(who)

    def _moves(self, state: State) -> Iterator[Move]:
        """All that can happen next."""
        for who, (end, under_way) in enumerate(zip(*state, strict=True)):
            if not self._silent(state):
                yield who, "says"
            if not self.at_once and end.conversation.due():
                yield who, "answers"
            for post in under_way[:1] if self.ordered else under_way:
                yield who, post

    def _silent(self, state: State) -> bool:
        """Whether all is said."""
        return sum(len(end.said) for end in state.ends) == self.texts

    def _after(self, state: State, move: Move) -> State:
        """What there is when this has happened."""
        who, what = move
        try:
            end, posts = state.ends[who].after(what)
        except AssertionError as error:
            raise self._told(error, state, move) from error
        to_it = tuple(post for post in state.under_way[who] if post is not what)
        from_it = state.under_way[1 - who] + posts
        if not self.ordered:
            from_it = tuple(sorted(from_it, key=_number))
        if who:
            return State((state.ends[0], end), (from_it, to_it))
        return State((end, state.ends[1]), (to_it, from_it))

    def _told(self, error: AssertionError, state: State, *then: Move) -> AssertionError:
        """What does not hold, and how it came to this."""
        moves = [*then]
        found = self._from.get(state)
        while found is not None:
            moves.append(found[1])
            found = self._from[found[0]]
        return AssertionError(f"{error}: {'; '.join(map(_told, reversed(moves)))}")

    def _meet(self, state: State) -> None:
        self.states += 1
        if state.at_rest:
            self.rests += 1
            try:
                self.check_rest(state)
            except AssertionError as error:
                raise self._told(error, state) from error

    def check_rest(self, state: State) -> None:
        """Nothing is under way: all that was said is shown, confirmed and in its place.

        Unless all is said: whoever says something next, it is shown, and then both send on one session.
        """
        for one, other in (state.ends, state.ends[::-1]):
            said = frozenset(other.said)
            assert one.seen == Seen(said, said, frozenset(range(1, len(said) + 1)), frozenset()), "something is missing"
            conversation, stream = one.conversation, other.conversation._stream
            order = conversation._order
            assert (order.unbroken(stream.stream), order.chain) == (stream.seq, stream.chain), "an order with a gap"
            assert set(one.sessions) == set(other.sessions), "a session that only one has"
            assert conversation.confirmed is bool(one.sessions), "a session that is not confirmed"
        if not state.ends[0].sessions:
            return
        self.apart += state.ends[0].sessions[0] != state.ends[1].sessions[0]
        if self._silent(state):
            return
        for one, other in (state.ends, state.ends[::-1]):
            speaker, (post,) = one.after("says")
            listener, answers = other.after(post)
            assert listener.seen.confirmed == frozenset(speaker.said), "one direction does not work"
            assert not answers, "a session whose phases are not through"
            assert speaker.sessions[0] == listener.sessions[0], "two who send on different sessions"


def _number(post: Post) -> int:
    return post.number


def _nowhere(letter: Letter) -> None:
    raise AssertionError("nobody posts anything by themselves")


def _told(move: Move) -> str:
    who, what = move
    name = ("alice", "bob")[who]
    if isinstance(what, str):
        return f"{name} {what}"
    return f"to {name} comes message {what.number}, phase {what.letter.sent.phase or 'none'}"
