"""Every course that a talk of two people can take: who says something next, and which message arrives next.

What one end is depends on nothing but what it has said and what has come to it, in that order. So the two ends are
explored apart: an :class:`End` is never changed and remembers what followed on it, and what costs something is done
once, however many courses of the whole pass through it. The whole is then a search over pairs of ends with what is under
way between them, which meets each such state once.

On the way everything is checked that holds at one end (:meth:`End.received`), and wherever nothing is under way what
holds between the two (:meth:`Courses.settled`).
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from msgspec import UNSET

from sims.crypto.content import Arrival, Place, Text
from sims.crypto.conversation import Arrived, Conversation
from sims.crypto.prekeys import OwnPrekeys
from sims.crypto.primitives import KemKey, X25519Key
from sims.errors import PeerError
from sims.specs import MODERN
from sims.test.modern_builders import NOW, Counting, Letter, Person, arrives


class Shared(Counting):
    """Randomness of which each draw is made once, however many courses come to it."""

    def __init__(self, seed: str, draws: int) -> None:
        super().__init__(seed)
        self.draws = draws

    def x25519(self) -> X25519Key:
        """A key."""
        return _x25519(self.octets(32))

    def mlkem768(self) -> KemKey:
        """A key."""
        return _mlkem768(self.octets(64))


_x25519 = cache(X25519Key)
_mlkem768 = cache(KemKey)


class Post(NamedTuple):
    """A message under way, once for all courses in which it is the same.

    :ivar number: of all posts of a search.
    :ivar content: what it carries.
    """

    number: int
    letter: Letter
    content: bytes | None


class Seen(NamedTuple):
    """What came to an end, as its user has it: what no conversation is asked for.

    :ivar shown: the texts by their ids, and ``confirmed`` the ids of those whose sender is.
    :ivar counted: the numbers of the contents that count, and ``held`` those that do not yet, with their sessions.
    """

    shown: frozenset[tuple[bytes, str]] = frozenset()
    confirmed: frozenset[bytes] = frozenset()
    counted: frozenset[int] = frozenset()
    held: frozenset[tuple[bytes, int]] = frozenset()

    def with_arrivals(self, arrived: Arrived) -> Seen:
        """With what came, of which each place is the one that the numbers give."""
        for arrival in arrived.settled + arrived.acts:
            self = self._with(arrived.session, arrival)
        return self

    def _with(self, session: bytes, arrival: Arrival) -> Seen:
        said, confirmed = arrival.content, arrival.confirmed
        assert isinstance(said, Text), "nobody has said anything but texts"
        text, known = (said.id, said.body), (session, said.seq) in self.held
        assert known is arrival.shown, "a text that was held, and does not say so"
        assert (text in self.shown) is arrival.shown, "a text that was shown before"
        assert said.seq not in self.counted, "a number that came before"
        before = self.counted if confirmed else self.counted | {seq for name, seq in self.held if name == session}
        place = Place.IN_ORDER if before >= set(range(1, said.seq)) else Place.GAP
        assert arrival.place is place, f"{arrival.place}, and should be {place}"
        shown, held = self.shown | {text}, self.held
        if confirmed:
            held -= {(session, said.seq)}
            return Seen(shown, self.confirmed | {said.id}, self.counted | {said.seq}, held)
        return self._replace(shown=shown, held=held | {(session, said.seq)})


class End:
    """One end, after what it has said and what has come to it.

    :ivar said: the texts, by their ids.
    :ivar seen: what came.
    :ivar came: the messages that came; each of them may do so again.
    """

    __slots__ = ("_after", "_courses", "came", "conversation", "draws", "person", "prekeys", "said", "seen")

    def __init__(
        self,
        courses: Courses,
        person: Person,
        conversation: Conversation,
        prekeys: OwnPrekeys,
        draws: int,
        said: tuple[tuple[bytes, str], ...] = (),
        seen: Seen = Seen(),  # noqa: B008
        came: tuple[Post, ...] = (),
    ) -> None:
        self._courses, self.person = courses, person
        self.conversation, self.prekeys, self.draws = conversation, prekeys, draws
        self.said, self.seen, self.came = said, seen, came
        self._after: dict[int | None, tuple[End, tuple[Post, ...]]] = {}

    @property
    def current(self) -> bytes:
        """The session that it sends on."""
        return self.conversation.sessions[0]

    def after(self, post: Post | None) -> tuple[End, tuple[Post, ...]]:
        """What it is when this has come, or with None when it has said one more text; and what it posts."""
        key = None if post is None else post.number
        if key not in self._after:
            self._after[key] = self._speak() if post is None else self.received(post)
        return self._after[key]

    def answered(self) -> tuple[End, tuple[Post, ...]]:
        """What it is when it has answered the phases that are due; and what it posts."""
        if -1 not in self._after:
            self._after[-1] = self._answer(self.conversation, self.prekeys, self.draws, self.seen, self.came)
        return self._after[-1]

    def _speak(self) -> tuple[End, tuple[Post, ...]]:
        conversation, entropy = self.conversation.copy(), Shared(self.person.name, self.draws)
        if conversation.needs_bundle:
            one_time = self.person.other.one_time[0]
            conversation.start(MODERN, self.person.other.bundle, one_time, now=NOW, entropy=entropy)
        number, body = entropy.octets(16), f"{self.person.name} {len(self.said)}"
        content = conversation.text(body, number, NOW)
        post = self._post(conversation, content, entropy)
        said = (*self.said, (number, body))
        end = End(self._courses, self.person, conversation, self.prekeys, entropy.draws, said, self.seen, self.came)
        return end, (post,)

    def _post(
        self, conversation: Conversation, content: bytes | None, entropy: Counting, session: bytes | None = None
    ) -> Post:
        sent = conversation.seal(content, entropy, session)
        mid = entropy.octets(16)
        letter = Letter(mid, self.person.identity.id, self.person.other.identity.id, sent.message)
        return self._courses.post(letter, content)

    def received(self, post: Post) -> tuple[End, tuple[Post, ...]]:
        """What it is when this has come, and what it posts.

        It is not refused; what it carries is shown now, unless that was done before; and nothing else is, but what was
        held is settled. All that came before, and this, may come again, and changes nothing.
        """
        conversation, prekeys, entropy = self.conversation.copy(), self.prekeys.copy(), Shared("nothing is drawn", 0)
        entropy = Shared(self.person.name, self.draws)
        arrived = self._open(conversation, prekeys, post, entropy)
        assert arrived.duplicate <= (post.content is None), "a message that came before, and did not"
        assert not arrived.dropped
        seen = self.seen.with_arrivals(arrived)
        data = [arrival.data for arrival in arrived.acts]
        assert data == ([] if post.content is None else [post.content]), "another content than was sent"
        came = (*self.came, post)
        if self._courses.at_once:
            end, posts = self._answer(conversation, prekeys, entropy.draws, seen, came)
        else:
            end = End(self._courses, self.person, conversation, prekeys, entropy.draws, self.said, seen, came)
            posts = ()
        if self._courses.doubled:
            end._again()
        return end, posts

    def _open(
        self, conversation: Conversation, prekeys: OwnPrekeys, post: Post, entropy: Counting
    ) -> Arrived:
        letter = post.letter
        came = arrives(letter.src, letter.dst, letter.sent)
        try:
            return conversation.open(came, prekeys, MODERN, now=NOW, entropy=entropy)
        except PeerError as error:
            raise AssertionError("an honest message is refused") from error

    def _again(self) -> None:
        """All that came comes once more: what is known is acknowledged, and nothing else."""
        before, prekeys = self.conversation.dump(), self.prekeys.dump()
        for post in self.came:
            conversation, own, entropy = self.conversation.copy(), self.prekeys.copy(), Shared("", 0)
            assert self._open(conversation, own, post, entropy).duplicate, "a message that came before"
            assert (conversation.dump(), own.dump(), entropy.draws) == (before, prekeys, 0), "one that changed something"

    def _answer(
        self, conversation: Conversation, prekeys: OwnPrekeys, draws: int, seen: Seen, came: tuple[Post, ...]
    ) -> tuple[End, tuple[Post, ...]]:
        conversation, entropy = conversation.copy(), Shared(self.person.name, draws)
        posts = tuple(self._post(conversation, None, entropy, session) for session, _ in conversation.due())
        end = End(self._courses, self.person, conversation, prekeys, entropy.draws, self.said, seen, came)
        return end, posts


#: Two ends, and what is under way to each of them.
State = tuple[End, End, tuple[Post, ...], tuple[Post, ...]]


class Courses:
    """All courses of a talk.

    :ivar texts: how many are said, by whomever.
    :ivar ordered: whether messages to one end arrive in the order in which they were sent; or else in any.
    :ivar doubled: whether each may arrive again, at any time.
    :ivar at_once: whether phases are answered as soon as they are due; or else at any later time, before or after
        something else is said or comes.
    :ivar states: how many were met; ``rests`` are those of them with nothing under way, ``apart`` of those the ones in
        which the two would send on different sessions.
    :ivar ends: how many were made.
    """

    def __init__(self, texts: int, *, ordered: bool, doubled: bool = False, at_once: bool = True) -> None:
        self.texts, self.ordered, self.doubled, self.at_once = texts, ordered, doubled, at_once
        self.states = self.rests = self.apart = self.ends = 0
        self._posts: dict[tuple[Letter, bytes | None], Post] = {}
        alice, bob = Person("alice", self._nowhere), Person("bob", self._nowhere)
        alice.meet(bob)
        bob.meet(alice)
        self._start = tuple(End(self, one, one.conversation, one.prekeys, one.entropy.draws) for one in (alice, bob))

    def _nowhere(self, letter: Letter) -> None:
        raise AssertionError("a person posts by themselves")

    def post(self, letter: Letter, content: bytes | None) -> Post:
        """A message: the same for the same."""
        return Post(len(self._posts), letter, content)

    def explore(self) -> None:
        """Go everywhere."""
        alice, bob = self._start
        first: State = (alice, bob, (), ())
        known, left = {first}, [first]
        while left:
            state = left.pop()
            self.states += 1
            for found in self._next(state):
                if found not in known:
                    known.add(found)
                    left.append(found)
            if not (state[2] or state[3]):
                self.settled(state)

    def _next(self, state):
        for who in (0, 1):
            end, under_way = state[who], state[2 + who]
            if len(state[0].said) + len(state[1].said) < self.texts:
                yield self._moved(state, who, *end.after(None), under_way)
            if not self.at_once and end.conversation.due():
                yield self._moved(state, who, *end.answered(), under_way)
            for index in range(min(1, len(under_way)) if self.ordered else len(under_way)):
                left = under_way[:index] + under_way[index + 1 :]
                yield self._moved(state, who, *end.after(under_way[index]), left)

    def _moved(self, state, who, end, posts, left):
        other = state[3 - who] + posts
        if not self.ordered: other = tuple(sorted(other))
        return (end, state[1], left, other) if who == 0 else (state[0], end, other, left)

    def settled(self, state):
        self.rests += 1
if __name__ == "__main__":
    import sys, time
    n, ordered, doubled, at_once = int(sys.argv[1]), *(c == "1" for c in sys.argv[2])
    t = time.process_time()
    c = Courses(n, ordered=ordered, doubled=doubled, at_once=at_once)
    made = 0
    o = End.__init__
    def init(self, *a, **k):
        global made
        made += 1
        o(self, *a, **k)
    End.__init__ = init
    c._posts = __import__("collections").UserList() if 0 else c._posts
    import itertools
    k = itertools.count()
    c.post = lambda letter, content: Post(next(k), letter, content)
    c.explore()
    print(n, sys.argv[2], c.states, c.rests, made, time.process_time() - t)
