"""Tests of all that is kept about one person, as a client uses it: on copies, with what may be acted on and when."""

from __future__ import annotations

from typing import Any

import msgspec
from twisted.trial.unittest import SynchronousTestCase

from sims.crypto import payloads
from sims.crypto.chains import DAY
from sims.crypto.content import Disconnect, Order, OwnStream, Place, Receipt, Text, Unreadable, decode
from sims.crypto.conversation import Arrived, Conversation
from sims.crypto.peer import MAX_OTHERS
from sims.crypto.streams import chained
from sims.errors import Code, LocalError, PeerError
from sims.specs import MODERN
from sims.test.builders import refusal
from sims.test.modern_builders import NOW, Letter, Person, Relay, arrives


class Case(SynchronousTestCase):
    def setUp(self) -> None:
        self.relay = Relay()
        self.alice, self.bob = self.relay.alice, self.relay.bob

    def comes(self, to: Person, letter: Letter) -> Arrived:
        """A message comes; nothing is answered."""
        came = arrives(letter.src, letter.dst, letter.sent)
        return to.conversation.open(came, to.prekeys, MODERN, now=NOW, entropy=to.entropy)

    def next(self, to: Person) -> Arrived:
        """The first message that is under way comes."""
        return self.comes(to, self.relay.under_way.pop(0))

    def raw(self, one: Person, content: bytes) -> Letter:
        """A content that no client makes, on the current session."""
        sent = one.sessions.seal(content, one.entropy)
        return Letter(bytes(16), one.identity.id, one.other.identity.id, sent.message)

    def meet(self) -> None:
        """A session that both know to be confirmed."""
        self.alice.say("hello")
        self.relay.settle()


class Held(Case):
    def test_only_text_is_acted_on_before_phase_3(self) -> None:
        self.alice.begin()
        conversation = self.alice.conversation
        number, asked = b"n" * 16, b"m" * 16
        made = [
            conversation.text("one", number, NOW),
            conversation.receipt([asked], "delivered", NOW),
            conversation.unreadable(asked, NOW),
            conversation.text("two", b"2" * 16, NOW),
        ]
        for content in made:
            self.alice.transmit(content)
        found = [self.next(self.bob) for _ in made]
        self.assertEqual([len(arrived.acts) for arrived in found], [1, 0, 0, 1])
        self.assertEqual({arrived.confirmed for arrived in found}, {False})
        self.assertEqual([arrived.due for arrived in found], [2, None, None, None])
        for arrived, body in ((found[0], "one"), (found[3], "two")):
            act = arrived.acts[0]
            assert isinstance(act.content, Text)
            self.assertEqual((act.content.body, act.confirmed, act.place), (body, False, Place.IN_ORDER))
        restored = Conversation.load(self.bob.identity, self.bob.conversation.dump())
        self.assertEqual(restored.dump(), self.bob.conversation.dump())
        self.bob.conversation = restored
        self.bob.transmit(None, found[0].session)
        self.assertEqual(self.next(self.alice).due, 3)
        self.alice.say("three", found[0].session)
        arrived = self.next(self.bob)
        self.assertEqual((arrived.due, arrived.confirmed), (4, True))
        self.assertEqual([type(act.content) for act in arrived.acts], [Receipt, Unreadable, Text])
        self.assertEqual([decode(content) for content in made[1:3]], [act.content for act in arrived.acts[:2]])
        self.assertEqual([act.content for act in arrived.settled], [found[0].acts[0].content, found[3].acts[0].content])
        self.assertEqual(
            {(act.confirmed, act.place) for act in arrived.acts + arrived.settled}, {(True, Place.IN_ORDER)}
        )
        self.assertNotIn("one", repr(arrived) + repr(self.bob.conversation))

    def test_nothing_of_it_twice(self) -> None:
        self.alice.begin()
        self.alice.transmit(self.alice.conversation.receipt([b"i" * 16], "read", NOW))
        self.relay.settle()
        self.assertEqual(self.bob.receipts, [b"i" * 16])
        self.alice.say("two")
        self.relay.settle()
        self.assertEqual(self.bob.receipts, [b"i" * 16])

    def test_what_begins_anew_shows_when_it_counts(self) -> None:
        """Be it that the text which came on it was deleted, and that nothing but a phase confirms it; only where there
        was another stream before."""
        for first, emptied in ((True, False), (True, True), (False, False), (False, True)):
            self.setUp()
            if not first:
                self.meet()
                self.alice.conversation.restored(self.alice.entropy)
            arrived = self.held()
            self.assertEqual((arrived.confirmed, arrived.anew), (False, False))
            self.alice.say("on the same", arrived.session)
            self.assertFalse(self.next(self.bob).anew)
            if emptied:
                self.bob.conversation.empty()
            self.bob.conversation = Conversation.load(self.bob.identity, self.bob.conversation.dump())
            self.bob.transmit(None, arrived.session)
            self.next(self.alice)
            self.alice.transmit(None, arrived.session)
            arrived = self.next(self.bob)
            texts = 0 if emptied else 2
            self.assertEqual((arrived.confirmed, arrived.anew, len(arrived.settled)), (True, not first, texts))
            self.alice.say("more")
            self.assertFalse(self.next(self.bob).anew)

    def test_a_session_that_goes_takes_along_what_was_held_of_it(self) -> None:
        for _ in range(MAX_OTHERS):
            self.alice.say("one", self.alice.begin())
            self.relay.settle()
        conversation = self.bob.conversation
        gone, last = (self.held() for _ in range(2))
        self.assertEqual(last.dropped, (gone.session,))
        self.assertEqual(list(conversation._order._held), [last.session])
        # The same where a session goes for one that is started here, or for its age.
        self.bob.begin()
        self.assertNotIn(last.session, conversation.sessions)
        self.assertEqual(list(conversation._order._held), [])
        old = self.held()
        self.assertEqual(list(conversation._order._held), [old.session])
        self.assertIn(old.session, conversation.expire(NOW + 30 * DAY))
        self.assertEqual(list(conversation._order._held), [])

    def held(self) -> Arrived:
        """A text on a new session, which comes to bob."""
        self.alice.say("text", self.alice.begin())
        return self.next(self.bob)

    def test_a_later_kind_is_no_gap(self) -> None:
        self.meet()
        own = self.alice.stream
        base = {"kind": "wave", "id": b"w" * 16, "stream": own.stream, "seq": own.seq + 1, "time": NOW}
        packed = payloads.encode(base)
        chain = chained(own.chain, packed)
        arrived = self.comes(self.bob, self.raw(self.alice, chain + packed))
        self.assertEqual((arrived.acts, arrived.settled, arrived.duplicate), ((), (), False))
        self.alice.conversation._stream = OwnStream(stream=own.stream, seq=own.seq + 1, chain=chain)
        self.alice.say("after it")
        self.assertIs(self.next(self.bob).acts[0].place, Place.IN_ORDER)


class WhatIsRefused(Case):
    def test_leaves_everything_as_it_was(self) -> None:
        self.alice.begin()
        letter = self.raw(self.alice, bytes(40))
        before, draws = self.bob.picture(), self.bob.entropy.draws
        refusal(PeerError, self.comes, self.bob, letter)
        self.assertEqual((self.bob.picture(), self.bob.entropy.draws), (before, draws))
        self.meet()
        before, draws = self.bob.picture(), self.bob.entropy.draws
        refusal(PeerError, self.comes, self.bob, self.raw(self.alice, bytes(40)))
        self.assertEqual((self.bob.picture(), self.bob.entropy.draws), (before, draws))
        self.alice.say("goes on")
        self.relay.settle()
        self.assertIn("goes on", self.bob.shown.values())

    def test_ones_prekeys_change_with_what_was_opened(self) -> None:
        self.alice.begin()
        self.alice.say("one")
        letter = self.relay.under_way.pop()
        unused, fresh = self.bob.prekeys.one_time_ids, self.bob.conversation.copy()
        before = self.bob.picture()

        def fail(*_: object, **__: object) -> None:
            raise PeerError(Code.MALFORMED, "whatever else may go wrong")

        patched = self.patch(Order, "receive", fail)
        refusal(PeerError, self.comes, self.bob, letter)
        self.assertEqual(self.bob.picture(), before)
        patched.restore()
        self.comes(self.bob, letter)
        self.assertEqual(len(unused - self.bob.prekeys.one_time_ids), 1)
        self.bob.conversation = fresh
        refusal(PeerError, self.comes, self.bob, letter)

    def test_a_duplicate_is_no_refusal_and_changes_nothing(self) -> None:
        self.alice.say("one")
        for _ in range(4):
            letter = self.relay.under_way.pop(0)
            to = self.relay.who(letter)
            arrived = self.comes(to, letter)
            before = to.picture()
            again = self.comes(to, letter)
            self.assertEqual((again.duplicate, again.acts, again.settled, again.due), (True, (), (), None))
            self.assertEqual(again.session, arrived.session)
            self.assertEqual(to.picture(), before)
            if arrived.due is not None:
                to.transmit(None, arrived.session)
        self.assertEqual(self.relay.under_way, [])

    def test_what_cannot_be_said(self) -> None:
        self.meet()
        conversation = self.alice.conversation
        before, draws = conversation.dump(), self.alice.entropy.draws
        for code, act, *arguments in (
            (Code.TOO_LARGE, conversation.text, "x" * 32_768, bytes(16), NOW),
            (Code.INTERNAL, conversation.text, "x", bytes(15), NOW),
            (Code.INTERNAL, conversation.text, "\ud800", bytes(16), NOW),
            (Code.INTERNAL, conversation.receipt, [bytes(16)] * 101, "read", NOW),
            (Code.INTERNAL, conversation.receipt, [b""], "read", NOW),
            (Code.INTERNAL, conversation.unreadable, b"", NOW),
            (Code.INTERNAL, conversation.seal, b"no content", self.alice.entropy),
            (Code.INTERNAL, conversation.seal, None, self.alice.entropy),
            (Code.NOT_AUTHENTICATED, conversation.seal, None, self.alice.entropy, b"no such session"),
        ):
            error: Any = refusal(LocalError, act, *arguments)
            self.assertIs(error.code, code)
            self.assertEqual((conversation.dump(), self.alice.entropy.draws), (before, draws))
        own = self.alice.identity
        self.assertIs(refusal(LocalError, Conversation.new, own, own.id, self.alice.entropy).code, Code.POLICY)

    def test_a_start_that_is_refused(self) -> None:
        before, draws = self.alice.picture(), self.alice.entropy.draws
        start: Any = self.alice.conversation.start
        later = NOW + 31 * DAY
        refusal(PeerError, lambda: start(MODERN, self.bob.bundle, None, now=later, entropy=self.alice.entropy))
        refusal(PeerError, lambda: start(MODERN, self.alice.bundle, None, now=NOW, entropy=self.alice.entropy))
        self.assertEqual((self.alice.picture(), self.alice.entropy.draws), (before, draws))


class Ending(Case):
    def test_a_disconnect_ends_its_session_at_both_ends(self) -> None:
        self.meet()
        session = self.alice.conversation.sessions[0]
        self.alice.transmit(self.alice.conversation.disconnect(NOW))
        self.assertTrue(self.alice.conversation.needs_bundle)
        self.assertFalse(self.alice.conversation.can_send(session))
        self.assertEqual(self.alice.conversation.sessions, (session,))
        sealing = self.alice.conversation.seal
        content = self.alice.conversation.copy().text("more", bytes(16), NOW)
        self.assertIs(refusal(LocalError, sealing, content, self.alice.entropy, session).code, Code.POLICY)
        late = self.bob.say("said before it came")
        self.relay.under_way.reverse()
        self.relay.settle()
        self.assertIn(late, self.alice.shown)
        self.assertEqual(self.bob.ended, 1)
        # All that was sent before it has come: the session goes.
        self.assertEqual(self.bob.conversation.sessions, ())
        self.assertTrue(self.bob.conversation.needs_bundle)
        self.bob.say("a new one")
        self.relay.settle()
        self.assertIn("a new one", self.alice.shown.values())

    def test_what_is_missing_before_it_can_still_come(self) -> None:
        for order in ((2, 0, 1), (2, 1, 0), (1, 2, 0)):
            self.setUp()
            self.meet()
            session = self.alice.conversation.sessions[0]
            self.alice.say("first")
            self.alice.say("second")
            self.alice.transmit(self.alice.conversation.disconnect(NOW))
            letters = list(self.relay.under_way)
            for number in order:
                self.assertEqual(self.bob.conversation.sessions, (session,))
                self.comes(self.bob, letters[number])
                self.bob.conversation = Conversation.load(self.bob.identity, self.bob.conversation.dump())
                disconnected = 2 in order[: order.index(number) + 1]
                self.assertEqual(self.bob.conversation.can_send(session), not disconnected)
            self.assertEqual(self.bob.conversation.sessions, ())

    def test_what_came_behind_it_shows_it_too(self) -> None:
        self.meet()
        ending = self.alice.conversation.sessions[0]
        other = self.alice.begin()
        self.alice.say("on both", other)
        self.relay.settle()
        self.alice.say("missing", ending)
        self.alice.transmit(self.alice.conversation.disconnect(NOW), ending)
        self.alice.say("behind", other)
        missing, disconnect, behind = self.relay.under_way
        for letter in (disconnect, behind, missing):
            self.assertIn(ending, self.bob.conversation.sessions)
            self.comes(self.bob, letter)
        # The last in order is another than the disconnect: the next one in order says it.
        self.relay.under_way.clear()
        self.alice.say("next", other)
        self.next(self.bob)
        self.assertEqual(self.bob.conversation.sessions, (other,))

    def test_not_before_the_phases_are_answered(self) -> None:
        self.alice.begin()
        session = self.alice.conversation.sessions[0]
        self.alice.transmit(self.alice.conversation.text("one", bytes(16), NOW))
        self.next(self.bob)
        self.bob.transmit(None, session)
        self.next(self.alice)
        self.alice.transmit(self.alice.conversation.disconnect(NOW))
        arrived = self.next(self.bob)
        self.assertEqual((arrived.due, [type(act.content) for act in arrived.acts]), (4, [Disconnect]))
        self.bob.conversation = Conversation.load(self.bob.identity, self.bob.conversation.dump())
        self.assertEqual(self.bob.conversation.due(), ((session, 4),))
        other = self.alice.begin()
        self.alice.say("goes on", other)
        for one in (self.bob, self.alice, self.bob, self.alice):
            self.next(one)
            if other in dict(one.conversation.due()):
                one.transmit(None, other)
        self.assertEqual(set(self.bob.conversation.sessions), {session, other})
        self.bob.conversation = Conversation.load(self.bob.identity, self.bob.conversation.dump())
        self.bob.transmit(None, session)
        self.assertEqual(self.bob.conversation.sessions, (other,))
        self.assertFalse(self.next(self.alice).duplicate)

    def test_one_that_was_never_confirmed_ends_nothing(self) -> None:
        self.alice.begin()
        self.alice.transmit(self.alice.conversation.disconnect(NOW))
        arrived = self.next(self.bob)
        self.assertEqual(arrived.acts, ())
        self.assertTrue(self.bob.conversation.can_send(arrived.session))

    def test_a_restored_store_sends_on_nothing_old(self) -> None:
        self.meet()
        saved = self.alice.picture()
        self.alice.say("since then")
        self.relay.settle()
        self.alice.restore(saved)
        before = self.alice.stream
        self.alice.conversation.restored(self.alice.entropy)
        self.assertTrue(self.alice.conversation.needs_bundle)
        self.assertFalse(self.alice.conversation.confirmed)
        self.assertIsNone(self.alice.conversation.spec)
        self.assertNotEqual(self.alice.stream.stream, before.stream)
        self.assertEqual((len(self.alice.stream.stream), self.alice.stream.seq), (8, 0))
        number = self.bob.say("on the old one")
        self.relay.settle()
        self.assertIn(number, self.alice.confirmed)
        number = self.alice.say("on a new one")
        self.relay.settle()
        self.assertIn(number, self.bob.confirmed)
        self.assertEqual(self.bob.places[-1], Place.IN_ORDER)
        self.assertEqual(len(self.alice.conversation.sessions), 2)


class Whatever(Case):
    def test_says_how_it_stands(self) -> None:
        conversation = self.alice.conversation
        self.assertEqual((conversation.needs_bundle, conversation.confirmed, conversation.spec), (True, False, None))
        self.assertEqual((conversation.sessions, conversation.peer, conversation.due()), ((), None, ()))
        self.assertEqual(conversation.peer_id, self.bob.identity.id)
        session = self.alice.begin()
        self.assertEqual((conversation.needs_bundle, conversation.confirmed), (False, False))
        self.assertIs(conversation.spec, MODERN[0])
        self.assertEqual((conversation.sessions, conversation.can_send(session)), ((session,), True))
        self.assertFalse(conversation.can_send(b"another"))
        self.assertEqual(conversation.peer, self.bob.identity.public)
        self.alice.say("hello")
        self.relay.settle()
        for one in (self.alice, self.bob):
            self.assertTrue(one.conversation.confirmed)
        second = self.alice.begin()
        self.assertEqual(self.alice.conversation.sessions, (session, second))
        self.alice.conversation.end(session)
        self.assertEqual(self.alice.conversation.sessions, (second, session))

    def test_a_receipt_says_what_has_come(self) -> None:
        self.meet()
        content = self.bob.conversation.receipt([bytes(16)], "delivered", NOW)
        said = decode(content)
        assert isinstance(said, Receipt)
        self.assertEqual(said.chain, self.alice.stream.chain)
        other = decode(self.bob.conversation.disconnect(NOW))
        self.assertEqual((other.seq, other.stream), (said.seq + 1, said.stream))
        self.assertNotEqual(other.id, said.id)

    def test_a_copy_goes_its_own_way(self) -> None:
        self.meet()
        before = self.alice.conversation.dump()
        self.bob.say("comes to the copy")
        letter = self.relay.under_way.pop()
        copy = self.alice.conversation.copy()
        self.assertEqual(copy.dump(), before)
        arguments: dict[str, Any] = {"now": NOW, "entropy": self.alice.entropy}
        copy.open(arrives(letter.src, letter.dst, letter.sent), self.alice.prekeys.copy(), MODERN, **arguments)
        copy.seal(copy.text("one", bytes(16), NOW), self.alice.entropy)
        copy.start(MODERN, self.bob.bundle, None, **arguments)
        copy.seal(copy.disconnect(NOW), self.alice.entropy)
        copy.restored(self.alice.entropy)
        copy.expire(NOW + 90 * DAY)
        self.assertEqual(self.alice.conversation.dump(), before)
        self.assertEqual(len(self.comes(self.alice, letter).acts), 1)

    def test_a_content_is_sealed_again_as_it_is(self) -> None:
        self.meet()
        content = self.alice.conversation.text("once", b"o" * 16, NOW)
        seq = self.alice.stream.seq
        for _ in range(2):
            self.alice.transmit(content)
        self.assertEqual(self.alice.stream.seq, seq)
        found = [self.next(self.bob).acts[0] for _ in range(2)]
        self.assertEqual([act.place for act in found], [Place.IN_ORDER, Place.DOUBLED])
        self.assertEqual(found[0].content, found[1].content)

    def test_old_sessions_go_and_are_told(self) -> None:
        session = self.alice.begin()
        other = self.alice.begin()
        first, second = sorted((session, other))
        self.assertEqual(self.alice.conversation.expire(NOW + 30 * DAY), (second,))
        self.assertEqual(self.alice.conversation.sessions, (first,))
        state = msgspec.msgpack.decode(self.alice.conversation.dump())
        self.assertEqual(state["closing"], [])
