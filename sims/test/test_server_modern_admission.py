"""Who is let in by the relay of sims/2; what goes on while a store that takes its time has not answered yet."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from sims import inner
from sims.crypto.handshake import Claim
from sims.crypto.identity import PublicIdentity
from sims.errors import Code
from sims.server.interfaces import Account, Invitation
from sims.server.memory import MemoryStore
from sims.server.modern_relay import ModernRelay
from sims.server.registration import Admitted, Mode, hashed
from sims.test.late_store import LateStore
from sims.test.modern_builders import person
from sims.test.modern_network import WALL, mid_of
from sims.test.modern_relay_case import Member, RelayTestCase


class AdmissionTests(SynchronousTestCase):
    """Who is let in."""

    def admit(self, mode: Mode, name: str, asked: str, invite: str | None = None, epoch: int | None = None) -> Any:
        results: list[Admitted | Code] = []
        if not hasattr(self, "store"):
            self.store = MemoryStore()
        self.spent = 0

        def spent() -> None:
            self.spent += 1

        relay = ModernRelay(self.store, clock=lambda: 0.0, wall=lambda: WALL, mode=mode, invitation_spent=spent)
        relay.admit(Claim(person(name).public, asked, invite, epoch), results.append)
        (result,) = results
        return result

    def test_invitations(self) -> None:
        self.store = MemoryStore()
        self.store.invite(hashed("good"), lambda _: None)
        for invite, code in ((None, Code.INVITE_REQUIRED), ("", Code.INVITE_REQUIRED), ("bad", Code.INVITE_REQUIRED)):
            self.assertEqual(self.admit(Mode.INVITE, "ann", "ann", invite), code)
        self.assertEqual(self.admit(Mode.INVITE, "ann", "Ann", "good"), Admitted("ann", None, True))
        self.assertEqual(self.spent, 1)
        self.assertEqual(self.admit(Mode.INVITE, "bob", "bob", "good"), Code.INVITE_USED)
        # A known id connects always, whatever it brings, and keeps its name.
        for mode in Mode:
            self.assertEqual(self.admit(mode, "ann", "other", "good"), Admitted("ann", None, False))
        self.assertEqual(self.spent, 0)

    def test_names(self) -> None:
        for bad in ("", "a b", "x" * 33, "\u200b", "ﬀ", "a\nb", "@\0"):
            self.assertEqual(self.admit(Mode.OPEN, "ann", bad), Code.NAME_INVALID)
        self.assertEqual(self.admit(Mode.OPEN, "ann", "ÄNN"), Admitted("änn", None, False))
        self.assertEqual(self.admit(Mode.OPEN, "bob", "a\u0308nn"), Code.NAME_TAKEN)
        self.assertEqual(self.admit(Mode.OPEN, "bob", "x" * 32), Admitted("x" * 32, None, False))

    def test_a_name_that_is_refused_spends_nothing(self) -> None:
        self.store = MemoryStore()
        self.admit(Mode.OPEN, "ann", "ann")
        self.store.invite(hashed("good"), lambda _: None)
        self.assertEqual(self.admit(Mode.INVITE, "bob", "ann", "good"), Code.NAME_TAKEN)
        self.assertEqual(self.admit(Mode.INVITE, "bob", "a b", "good"), Code.NAME_INVALID)
        self.assertEqual(self.admit(Mode.INVITE, "bob", "bob", "good"), Admitted("bob", None, True))

    def test_closed(self) -> None:
        self.assertEqual(self.admit(Mode.CLOSED, "ann", "ann", "any"), Code.POLICY)

    def test_two_at_once(self) -> None:
        """An id that registers on two connections at once has one account, one name, and spends one invitation."""
        store = LateStore()
        for token in ("one", "two"):
            store.stored.invite(hashed(token), lambda _: None)
        relay = ModernRelay(store, clock=lambda: 0.0, wall=lambda: WALL)
        results: list[Admitted | Code] = []
        for name, token in (("ann", "one"), ("bob", "two")):
            relay.admit(Claim(person("ann").public, name, token, None), results.append)
        store.settle()
        self.assertEqual(results, [Admitted("ann", None, True), Admitted("ann", None, False)])
        found: list[Invitation | None] = []
        store.stored.invitation(hashed("two"), found.append)
        self.assertEqual(found, [Invitation(hashed("two"))])  # not spent

    def test_deleted_before(self) -> None:
        """An account that is deleted before the store is asked lets nobody in: whoever comes is somebody new.

        Where that takes an invitation, one that was brought is spent; nothing of the old account is there again.
        """
        for mode, invite, expected in (
            (Mode.INVITE, None, Code.INVITE_REQUIRED),
            (Mode.INVITE, "bad", Code.INVITE_REQUIRED),
            (Mode.INVITE, "good", Admitted("new", None, True)),
            (Mode.OPEN, None, Admitted("new", None, False)),
            (Mode.CLOSED, None, Code.POLICY),
        ):
            store, public = self.with_ann()
            store.stored.delete(public.id, lambda _: None)
            self.check(store, mode, invite, expected)

    def test_deleted_between(self) -> None:
        """So does one that was made by another connection of the id, and deleted before that was seen."""
        for mode, invite in ((Mode.INVITE, "good"), (Mode.OPEN, None)):
            store, public = self.with_ann()
            there: list[Account | None] = []
            store.stored.find(public.id, there.append)
            store.stored.delete(public.id, lambda _: None)
            results = self.begin(store, mode, invite)
            store.work()  # there is none
            store.answer()
            for account in there:
                if account is not None:
                    store.stored.register(account, None, lambda _: None)
            store.work()  # now there is
            store.stored.delete(public.id, lambda _: None)
            self.assertEqual(results, [])
            store.settle()
            self.assertEqual(results, [Admitted("new", None, invite is not None)])

    def with_ann(self) -> tuple[LateStore, PublicIdentity]:
        """A store in which Ann is called old, and has been at epoch 7; and there is a good invitation."""
        store, public = LateStore(), person("ann").public
        store.stored.invite(hashed("good"), lambda _: None)
        store.stored.register(Account(public.id, "old", public.sign, public.dh, 0, 7), None, lambda _: None)
        return store, public

    def begin(self, store: LateStore, mode: Mode, invite: str | None) -> list[Admitted | Code]:
        """Ann comes as new, at epoch 2; gives where the result will be."""
        results: list[Admitted | Code] = []
        relay = ModernRelay(store, clock=lambda: 0.0, wall=lambda: WALL, mode=mode)
        relay.admit(Claim(person("ann").public, "new", invite, 2), results.append)
        return results

    def check(self, store: LateStore, mode: Mode, invite: str | None, expected: Admitted | Code) -> None:
        """Ann comes; what she is told, and what is there then."""
        results = self.begin(store, mode, invite)
        store.settle()
        self.assertEqual(results, [expected], f"{mode} {invite}")
        there: list[Account | None] = []
        store.stored.find(person("ann").public.id, there.append)
        known = there[0]
        self.assertEqual(known is not None, isinstance(expected, Admitted))
        if known is not None:
            self.assertEqual((known.name, known.epoch), ("new", 2))

    def test_epochs(self) -> None:
        found = [self.admit(Mode.OPEN, "ann", "ann", None, epoch).epoch for epoch in (3, 4, 2, None)]
        self.assertEqual(found, [None, 3, 4, 4])


class RaceTests(RelayTestCase):
    """What goes on while a store that takes its time has not answered yet."""

    def make_store(self) -> Any:
        return LateStore()

    def settle(self) -> None:
        self.store.settle()

    def delete(self) -> None:
        """Ann asks for her account to be deleted; the store has not been at it."""
        self.relay.receive(self.ann, inner.encode(inner.Delete(mid=mid_of(3))))

    def reconnect(self, answers: int) -> Member:
        """Ann connects again, and so many of the store's answers come."""
        again = Member("ann")

        def admitted(result: Admitted | Code) -> None:
            self.assertIsInstance(result, Admitted)
            self.relay.join(again)

        self.relay.admit(Claim(again.identity.public, "ann", None, None), admitted)
        for _ in range(answers):
            self.store.work()
            self.store.answer()
        return again

    def test_a_connection_of_an_account_that_is_deleted_then(self) -> None:
        """It was let in while there was an account: it ends with that, and can say nothing any more."""
        again = self.reconnect(answers=0)  # the answer is on its way
        self.delete()
        self.settle()
        self.assertEqual((again.closed, len(self.relay)), ([None], 1))
        self.assertEqual(self.ann.closed[-1], None)
        again.came.clear()
        self.say(again, self.text(self.ann.id, self.bob.id))
        self.say(again, inner.AboutRequest())
        self.assertEqual((self.bob.came, again.came), ([], []))
        self.say(self.bob, self.text(self.bob.id, self.ann.id, 8))
        self.assertEqual([error[:2] for error in self.bob.refusals()], [("unknown-recipient", mid_of(8))])

    def test_letters_under_way_to_an_account_that_is_deleted(self) -> None:
        """Whoever sent them is told, of each, once; those that she has acknowledged are accepted."""
        for number in (1, 2, 3):
            self.say(self.bob, self.text(self.bob.id, self.ann.id, number))
        self.relay.receive(self.ann, inner.encode(inner.Ack(data=inner.AckData(mids=(mid_of(2),)))))
        self.delete()
        self.relay.receive(self.bob, inner.encode(self.text(self.bob.id, self.ann.id, 4)))
        self.settle()
        refused = [error[:2] for error in self.bob.refusals()]
        self.assertEqual(refused, [("unknown-recipient", mid_of(number)) for number in (1, 3, 4)])
        self.assertEqual(self.flush(self.bob), [mid_of(2)])
        self.now += 60
        self.relay.tick()
        self.settle()
        self.assertEqual(self.flush(self.bob), [mid_of(2)])

    def test_answers_for_who_is_gone(self) -> None:
        """No one-time key is spent, and no fetcher noted, for somebody who does not get it."""
        _, keys = self.publish(self.bob)
        self.relay.receive(self.ann, inner.encode(inner.Fetch(mid=mid_of(1), data=inner.FetchData(id=self.bob.id))))
        self.delete()
        self.settle()
        facts: list[dict[str, object]] = []
        self.store.stored.facts(self.bob.id, facts.append)
        self.assertEqual((facts[0]["fetched_by"], facts[0]["one_time_keys"]), ([], len(keys)))

    def test_who_comes_back_is_a_stranger_until_written_to(self) -> None:
        """Of who had written to whom nothing is left after a deletion; it is noted anew."""
        self.say(self.bob, self.text(self.bob.id, self.ann.id))
        self.say(self.ann, inner.Ack(data=inner.AckData(mids=(mid_of(1),))))
        self.delete()
        self.settle()
        self.ann = self.join("ann")
        self.assertEqual(self.store.stored._boxes[self.bob.id].friends, {})
        self.say(self.bob, self.text(self.bob.id, self.ann.id))  # the same mid: hers was another account
        self.assertEqual(self.store.stored._boxes[self.bob.id].friends, {self.ann.id: None})
        self.ann.take(inner.ClientCom)

    def test_accounts_that_somebody_else_deletes(self) -> None:
        """Whoever has none any more is let go, with what is under way to them; the others stay, and who comes then."""
        self.say(self.bob, self.text(self.bob.id, self.ann.id))
        self.store.stored.delete(self.ann.id, lambda _: None)
        self.relay.accounts_changed()
        eve = Member("eve")
        self.relay.admit(Claim(eve.identity.public, "eve", None, None), lambda _: self.relay.join(eve))
        self.settle()
        self.assertEqual((self.ann.closed, self.bob.closed, eve.closed, len(self.relay)), ([None], [], [], 2))
        self.assertEqual([error[:2] for error in self.bob.refusals()], [("unknown-recipient", mid_of(1))])
        self.ann.came.clear()
        self.say(self.ann, self.text(self.ann.id, self.bob.id))
        self.assertEqual((self.ann.came, self.bob.came), ([], []))

    def test_long_answers(self) -> None:
        """Whoever asks often, before anything is answered, is not read on: the answers may be long."""
        about = inner.encode(inner.AboutRequest())
        count = 0
        while not self.relay.receive(self.ann, about):
            count += 1
        self.assertLess(count, 15)
        self.settle()
        self.assertEqual(self.relay.receive(self.ann, about), 0.0)  # they were short
        self.assertLessEqual(len(self.ann.came), 16)
