"""What is sent again as its recipient begins anew: what the server says of the first, and what cannot be sent."""

from __future__ import annotations

from sims import inner
from sims.client import events, people
from sims.client.events import Delivery
from sims.client.store import Letter
from sims.crypto.content import Arrival, Place, Unreadable
from sims.errors import Code, PeerError
from sims.test.anew_case import AnewTestCase, T
from sims.test.modern_world import refusal


class FirstTests(AnewTestCase):
    """Two texts more are under way as bob begins anew: the server answers what carried them only then."""

    def setUp(self) -> None:
        super().setUp()
        self.mids: list[bytes] = []
        self.heard: list[object] = []

        def silent(message: inner.ClientCom | inner.ClientConnect) -> bool:
            self.mids.append(message.mid)
            return True

        self.taking = silent
        self.ann.send("bob", "under way", "r")
        self.ann.client.send("bob", "awaited").addBoth(self.heard.append)
        self.world.run_for(1)
        self.assertEqual(len(self.mids), 2)

    def accept(self) -> None:
        """The server has them."""
        for mid in self.mids:
            self.ann.client.act(lambda messenger, mid=mid: messenger._online._accepted(mid))  # type: ignore[misc]

    def test_is_accepted_while_it_waits(self) -> None:
        """It is told once, and what was to be sealed still is; that it has come is enough."""
        desk = self.ann.messenger._desk
        desk.outbox.lose(self.bob.id)
        letters = desk.outbox.lost(self.bob.id)
        self.assertEqual([one.state for one in letters], [Delivery.ACCEPTED] * 3 + [Delivery.QUEUED] * 2)
        mids = [one.mid for one in letters]
        for letter in letters:
            letter.anew = True
            desk.outbox.unseal(letter, 1)
        for mid in mids * 2:
            self.ann.client.act(lambda messenger, mid=mid: messenger._online._accepted(mid))  # type: ignore[misc]
        self.assertEqual(desk.outbox.waiting(), letters)
        self.assertEqual(desk.outbox.texts_queued, 0)
        desk.outbox.lose(self.bob.id)
        self.assertEqual(desk.outbox.lost(self.bob.id), [])
        self.assertEqual(self.ann.states("r"), ["queued", "accepted"])
        self.assertEqual(len(self.heard), 1)
        stored = self.letters()[-2:]
        self.assertEqual(
            [(one.state, one.anew, one.accepted > 0) for one in stored], [(Delivery.ACCEPTED, True, True)] * 2
        )
        self.assertTrue(all("accepted" in one.times for one in stored))
        self.receipt(letters)
        self.assertEqual({one.state for one in letters}, {Delivery.DELIVERED})
        self.assertEqual((desk.outbox.queued(), self.plain("under way")), ([], []))
        self.assertEqual(self.ann.states("r"), ["queued", "accepted", "delivered"])
        self.assertEqual([one.again for one in letters], [0] * 5, "nothing was sent")
        self.assertFalse(any("again" in one.times for one in letters))

    def test_once_more(self) -> None:
        """What is not answered as bob begins anew again: the newest before counts, and what is asked for none."""
        ann, outbox = self.ann, self.ann.messenger._desk.outbox
        letter = outbox.texts()[-2]
        for _ in range(2):
            letter.anew = True
            outbox.unseal(letter, 1)
            before = letter.mid
            ann.client.act(lambda messenger: messenger._desk.talks.say(letter))
        self.assertEqual((letter.again, letter.mid == before), (2, False))
        self.assertIsNone(outbox.carried_before(self.mids[0]))
        self.assertIs(outbox.carried_before(before), letter)
        letter.anew = False  # as they ask for it
        outbox.unseal(letter, 2)
        self.assertIsNone(outbox.carried_before(before))
        self.assertIsNone(outbox.carried_before(letter.mid))
        ann.client.act(lambda messenger: messenger._online._accepted(before))
        self.assertEqual(ann.states("r"), ["queued"])

    def test_both_are_refused(self) -> None:
        """Nobody has it: that is told, as of any text."""
        letters = self.ann.messenger._desk.outbox.texts()[-2:]
        self.taking = self.full
        self.hear()
        for mid in self.mids:
            self.ann.client.act(
                lambda messenger, mid=mid: messenger._online._error(refusal(mid, Code.MAILBOX_FULL))  # type: ignore[misc]
            )
        self.world.run_for(10)
        self.assertEqual(self.ann.states("r"), ["queued", "failed"])
        self.assertEqual((len(self.heard), self.ann.messenger.unsent), (1, 0))
        self.assertEqual([(one.state, one.is_due) for one in letters], [(Delivery.FAILED, False)] * 2)
        self.assertEqual(self.ann.problems(), [])
        self.accept()
        self.taking = lambda _: False
        self.ann.send("bob", "newer", "newer")
        self.world.run_for(400)
        self.assertEqual(self.ann.states("r"), ["queued", "failed"])
        self.assertEqual(sorted(self.bob.texts()[1:]), sorted([*T, "newer"]), "no older one behind it")

    def test_refused_before_the_first_is_answered(self) -> None:
        """That there is no room for the second says nothing while the first may still be accepted: it waits."""
        for accepted in (True, False):
            if not accepted:
                self.setUp()
            self.taking = self.full
            self.hear()
            self.world.run_for(2)
            self.assertEqual((self.ann.states("r"), self.heard), (["queued"], []))
            if accepted:
                self.taking = lambda _: False
                self.ann.send("bob", "newer", "newer")
                self.world.run_for(20)
                self.assertEqual(self.ann.states("newer"), ["queued"], "it does not go before")
                self.accept()
                self.assertEqual((self.ann.states("r"), len(self.heard)), (["queued", "accepted"], 1))
                self.world.run_for(400)
                self.assertEqual(self.ann.states("r"), ["queued", "accepted", "delivered"])
                self.assertEqual(self.bob.texts()[-3:], ["under way", "awaited", "newer"])
                self.assertEqual([one.order for one in self.bob.all(events.Message)][-3:], [None] * 3)
                continue
            for mid in self.mids:
                self.ann.client.act(
                    lambda messenger, mid=mid: messenger._online._error(refusal(mid, Code.MAILBOX_FULL))  # type: ignore[misc]
                )
            self.world.run_for(60)
            self.assertEqual((self.ann.states("r"), len(self.heard)), (["queued", "failed"], 1))

    def test_accepted_and_then_full(self) -> None:
        """It was accepted, and that is told; what is sent again waits for room, over a restart, too."""
        self.taking = self.full
        self.hear()
        self.accept()
        self.world.run_for(10)
        self.assertEqual(self.ann.states("r"), ["queued", "accepted"])
        self.assertEqual((len(self.heard), self.ann.messenger.unsent), (1, 0))
        self.assertEqual([(one.state, one.anew) for one in self.letters()[1:]], [(Delivery.ACCEPTED, True)] * 5)
        self.ann.restart()
        self.taking = lambda _: False
        self.world.run_for(400)
        self.assertEqual(self.bob.texts()[1:], [*T, "under way", "awaited"])
        self.assertEqual({one.state for one in self.letters()}, {Delivery.DELIVERED})

    def test_accepted_and_then_refused(self) -> None:
        """A text that was accepted does not fail, and that it has come is told."""
        self.taking = lambda message: refusal(message.mid, Code.POLICY)
        self.hear()
        self.accept()
        self.world.run_for(10)
        self.assertEqual(self.ann.states("r"), ["queued", "accepted"])
        self.assertEqual([(one.state, one.anew) for one in self.letters()[1:]], [(Delivery.ACCEPTED, False)] * 5)
        self.receipt(self.letters()[1:])
        self.assertEqual(self.ann.states("r"), ["queued", "accepted", "delivered"])


class NoSessionTests(AnewTestCase):
    """There is no session for what is to be sent again."""

    def waiting(self) -> list[Letter]:
        return self.ann.messenger._desk.outbox.waiting()

    def test_no_common_spec(self) -> None:
        """What was accepted stays as it was, and can be asked for; only what was not accepted fails."""
        ann, talks = self.ann, self.ann.messenger._desk.talks
        heard: list[object] = []

        def start(*_: object) -> None:
            raise PeerError(Code.NO_COMMON_SPEC, "none")

        self.patch(self.bob.messenger._reading, "may_send", lambda _: None)
        self.taking = self.lose
        ann.client.send("bob", "awaited", until=Delivery.DELIVERED).addBoth(heard.append)
        self.hear()
        self.world.run_for(1)
        self.renew()
        self.bob.send("ann", "within the hour")
        self.world.run_for(3)
        before = [(one.state, one.mid, one.again) for one in self.letters()]
        self.assertEqual({(state, again) for state, _, again in before[1:]}, {(Delivery.ACCEPTED, 1)})
        self.patch(talks, "start", start)
        ann.client.act(lambda messenger: messenger._desk.renew(self.bob.id))
        self.bob.kill()
        ann.send("bob", "new", "new")
        self.world.run_for(5)
        self.assertEqual((ann.problems(), ann.states("new")), (["no-common-spec"], ["queued", "failed"]))
        self.world.run_for(people.ANEW_EVERY)
        self.assertEqual(len(ann.all(events.Anew)), 2)
        self.assertEqual((heard, ann.problems(), self.waiting()), ([], ["no-common-spec"], []))
        self.assertEqual([(one.state, one.mid, one.again) for one in self.letters()], before)
        ref = before[-1][1]
        asked = Unreadable(id=bytes(16), stream=bytes(8), seq=1, time=1, ref=ref)
        act = Arrival(asked, b"", Place.IN_ORDER, True)
        ann.client.act(lambda messenger: messenger._reading._act(self.bob.id, act, bytes(32), bytes(16)))
        self.assertEqual([one.again for one in ann.all(events.NotRead)], [2])

    def test_what_comes_costs_little(self) -> None:
        """However much waits for a session, it is looked once whether there is one."""
        desk, calls = self.ann.messenger._desk, []
        needs_bundle = desk.talks.needs_bundle

        def counting(person: str) -> bool:
            calls.append(person)
            return needs_bundle(person)

        self.world.intercept(lambda src, message: src == self.ann.id and isinstance(message, inner.Fetch))
        self.ann.client.act(lambda messenger: messenger.disconnect("bob"))
        for number in range(1000):
            desk.outbox.add(Letter(number=0, to=self.bob.id, id=number.to_bytes(16, "big"), text="waits"))
        self.patch(desk.talks, "needs_bundle", counting)
        self.ann.client.act(lambda messenger: messenger._reading._forward(self.bob.id))
        self.assertEqual(len(self.waiting()), 1000)
        self.assertIn(len(calls), range(1, 4))
