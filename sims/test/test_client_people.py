"""Tests of :mod:`sims.client.people` and :mod:`sims.client.naming`: who is who, whatever anybody says they are."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace
from twisted.trial.unittest import SynchronousTestCase

from sims import inner
from sims.client import events, naming
from sims.client.events import Contact, Delivery
from sims.client.ledger import Ledger
from sims.client.lookups import Key
from sims.client.names import can_be_asked, folded
from sims.client.naming import Naming
from sims.client.people import MOST_STRANGERS, STRANGER_LIFE, People
from sims.client.store import MemoryStore
from sims.crypto.identity import Address, PersonLink
from sims.errors import Code, LocalError
from sims.test.modern_builders import person
from sims.test.modern_world import User, WorldTestCase

SERVER = person("server").id
BOB, EVE = person("bob"), person("eve")


class NameTests(SynchronousTestCase):
    def test_are_compared_as_the_server_does(self) -> None:
        """In every case and width; but what it gives to two people is never taken for one."""
        for name, other in (("Bob", "bOB"), ("\uff42ob", "bob"), ("Ä", "a\u0308"), ("nobody!", "NOBODY!")):
            self.assertEqual(folded(name), folded(other))
        for name, other in (("straße", "strasse"), ("bob", "b0b"), ("bob", "b\u043eb"), ("a b", "ab")):
            self.assertNotEqual(folded(name), folded(other))

    def test_no_name_is_like_a_name(self) -> None:
        for name in ("a b", " bob", "bob\n", "", "\u202ebob", "bob\0"):
            self.assertEqual(folded(name), name)

    def test_what_can_be_asked(self) -> None:
        for name in ("", "x" * 129, "\ud800"):
            self.assertFalse(can_be_asked(name), name)
        for name in ("x", "x" * 128, "a b", "\0"):
            self.assertTrue(can_be_asked(name), name)


class PeopleTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.people = People([], Ledger(MemoryStore()))

    def refused(self, code: Code, to: str) -> None:
        with self.assertRaises(LocalError) as caught:
            self.people.recipient(to, SERVER)
        self.assertEqual(caught.exception.code, code)

    def link(self, name: str, person_id: str, server: str = SERVER) -> str:
        return str(PersonLink((Address("h", 1),), server, name, person_id))

    def test_a_held_name_keeps_its_id(self) -> None:
        """Another id for it is told once, whoever has given it, and changes nothing until it is accepted."""
        bob, eve = self.people.learn(BOB.public), self.people.learn(EVE.public)
        self.people.name(bob, "bob")
        self.people.trust(bob)
        for name in ("bob", "BOB"):
            self.people.name(eve, name)
            self.refused(Code.POLICY, self.link(name, EVE.id))
        self.assertEqual(self.people.take_changes(), [bob])
        self.assertEqual(self.people.take_changes(), [])
        self.assertEqual(self.people.recipient("bob", SERVER), (BOB.id, "bob"))
        self.assertEqual(
            (bob.name, bob.verified, bob.changed_to, eve.name, eve.verified), ("bob", True, EVE.id, "", False)
        )
        self.assertIs(self.people.accept(bob), eve)
        self.assertEqual(
            (eve.name, eve.verified, bob.name, bob.verified, bob.changed_to), ("bob", False, "", False, "")
        )
        self.assertEqual(self.people.recipient("Bob", SERVER), (EVE.id, "bob"))
        with self.assertRaises(LocalError) as caught:
            self.people.accept(eve)
        self.assertEqual(caught.exception.code, Code.POLICY)

    def test_an_id_keeps_its_name(self) -> None:
        bob = self.people.learn(BOB.public)
        self.people.name(bob, "bob")
        self.people.name(bob, "carol")
        self.assertEqual((bob.name, self.people.named("carol")), ("bob", None))

    def test_who_takes_a_name_gives_up_his(self) -> None:
        """So that nothing to the name that he had goes to him."""
        bob, eve = self.people.learn(BOB.public), self.people.learn(EVE.public)
        self.people.name(bob, "bob")
        self.people.name(eve, "eve")
        self.people.name(eve, "bob")
        self.people.accept(bob)
        self.assertEqual((self.people.named("eve"), self.people.named("bob")), (None, eve))

    def test_who_begins_anew(self) -> None:
        """Is told of once an hour, by a clock that may be turned back, and no more once they are forgotten."""
        people, now = self.people, 1_000_000
        people.begins_anew(BOB.id, b"one")
        self.assertEqual((people.begun(now), people.meet(BOB.id).begins), ([BOB.id], b"one"))
        people.told_anew(BOB.id, now)
        self.assertEqual((people.begun(now), people.begun_in(now)), ([], None))
        people.begins_anew(BOB.id, b"two")
        people.begins_anew(BOB.id, b"three")
        self.assertEqual((people.begun(now + 3599), people.begun_in(now + 3599)), ([], 1))
        self.assertEqual((people.begun(now + 3600), people.begun(now - 1)), ([BOB.id], [BOB.id]))
        again = People(people.all(), Ledger(MemoryStore()))
        self.assertEqual((again.begun(now + 3600), again.meet(BOB.id).begins), ([BOB.id], b"three"))
        again.told_anew(BOB.id, now + 3600)
        self.assertEqual((again.begun(now + 9999), again.meet(BOB.id).begins), ([], b""))
        people.begins_anew(BOB.id, b"four")
        people.forget(people.meet(BOB.id))
        self.assertEqual(people.begun(now + 9999), [])

    def test_links(self) -> None:
        """They verify, and name whoever has no name; one to another server's people is refused."""
        self.assertEqual(self.people.recipient(self.link("bob", BOB.id), SERVER), (BOB.id, ""))
        bob = self.people.meet(BOB.id)
        self.assertEqual((bob.name, bob.verified, bob.ours), ("bob", True, True))
        self.refused(Code.POLICY, self.link("eve", EVE.id, EVE.id))
        self.assertIsNone(self.people.get(EVE.id))
        self.people.recipient(self.link("robert", BOB.id), SERVER)
        self.assertEqual((bob.name, self.people.named("robert")), ("bob", None))

    def test_strangers(self) -> None:
        """They are forgotten after a while, and the oldest when they are many; those whom we wanted never."""
        ids = [f"{'abcdefghijklmnopqrstuvwxyz'[number // 26]}{'abcdefghijklmnopqrstuvwxyz'[number % 26]}" + 30 * "a"
               for number in range(MOST_STRANGERS + 20)]  # fmt: skip
        for number, person_id in enumerate(ids):
            self.people.heard(person_id, 10**9 + number)
        self.people.want(ids[0])
        self.people.name(self.people.meet(ids[1]), "eve")
        now = 10**9 + len(ids)
        gone = self.people.strangers(now)
        self.assertEqual([one.id for one in gone], ids[1:20])
        for one in gone:
            self.people.forget(one)
        self.assertIsNone(self.people.named("eve"))
        self.assertEqual(self.people.strangers(now), [])
        self.assertEqual(len(self.people.strangers(now + STRANGER_LIFE)), MOST_STRANGERS)

    def test_saved(self) -> None:
        """What was committed is what is known the next time."""
        store = MemoryStore()
        ledger = Ledger(store)
        people = People([], ledger)
        people.name(people.learn(BOB.public), "bob")
        ledger.commit()
        again = People(store.load().people.values(), ledger)
        self.assertEqual(again.recipient("BOB", SERVER), (BOB.id, "bob"))
        self.assertEqual(again.get(BOB.id), people.get(BOB.id))
        again.forget(again.meet(BOB.id))
        ledger.commit()
        self.assertEqual(store.load().people, {})


class NamingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.now = 0.0
        self.names: dict[str, str] = {}
        self.told: list[events.Event] = []
        self.wanted: list[Key] = []
        self.naming = Naming(
            contact=lambda person: Contact(person, self.names.get(person, "")),
            tell=self.told.append,
            want=self.wanted.append,
            clock=lambda: self.now,
        )

    def event(self, person: str, text: str = "hello") -> events.Message:
        return events.Message(sender=Contact(person, ""), text=text, id="")

    def seen(self) -> list[tuple[str, str]]:
        return [(one.sender.name, one.text) for one in self.told if isinstance(one, events.Message)]

    def test_waits_for_the_name(self) -> None:
        """All of one person, in order; the server is asked once."""
        self.naming.show(self.event("b", "1"))
        self.naming.show(events.Disconnected(peer=Contact("b", "")))
        self.naming.show(self.event("b", "2"))
        self.assertEqual((self.told, self.wanted), ([], [Key("id", "b")]))
        self.names["b"] = "bob"
        self.naming.settled("b")
        self.assertEqual([type(one).__name__ for one in self.told], ["Message", "Disconnected", "Message"])
        self.assertEqual(self.seen(), [("bob", "1"), ("bob", "2")])
        self.naming.show(self.event("b", "3"))
        self.assertEqual(self.seen()[-1], ("bob", "3"))

    def test_does_not_wait_for_long(self) -> None:
        """After two seconds it is shown without; what comes next does not wait again."""
        self.naming.show(self.event("b", "1"))
        self.assertEqual(self.naming.tick(), naming.NAME_TIMEOUT)
        self.now = naming.NAME_TIMEOUT
        self.assertIsNone(self.naming.tick())
        self.assertEqual(self.seen(), [("", "1")])
        self.naming.settled("b")
        self.naming.show(self.event("b", "2"))
        self.assertEqual(self.seen(), [("", "1"), ("", "2")])

    def test_bounds(self) -> None:
        """Of many people, and of much of one, nothing is held that finds no room; the order of each stays."""
        for number in range(naming.MOST_HELD + 10):
            self.naming.show(self.event(str(number)))
        self.assertEqual((len(self.told), len(self.wanted)), (10, naming.MOST_HELD))
        self.told.clear()
        for number in range(naming.MOST_EVENTS + 10):
            self.naming.show(self.event("0", str(number)))
        shown = [text for _, text in self.seen()]
        self.assertEqual(shown[:2], ["hello", "0"])
        self.assertEqual(shown[1:], [str(number) for number in range(len(shown) - 1)])
        for number in range(2 * naming.MOST_NAMELESS):
            self.naming.settled(f"x{number}")
        self.assertEqual(len(self.naming._nameless), naming.MOST_NAMELESS)


class ServerTests(WorldTestCase):
    """Through the real server, or one that says something else."""

    def setUp(self) -> None:
        super().setUp()
        self.ann, self.bob = self.world.users("ann", "bob")

    def become(self, user: User, name: str) -> None:
        """Somebody's client publishes bundles of another name than the server knows."""
        user.messenger._online.publishing._name = name
        user.messenger._online.publishing._publish(None, user.messenger._now())
        user.client.pump()
        self.world.settle()

    def lose_account(self, user: User) -> None:
        """Somebody's account is deleted, its name free."""
        user.kill()
        self.world.settle()
        self.world.store.delete(user.id, lambda _: None)

    def test_nobody_names_himself(self) -> None:
        """Whose bundle says another's name is shown without any; the other's texts are his."""
        self.talk(self.ann, self.bob)
        eve = self.world.user("eve")
        self.become(eve, "bob")
        eve.send("ann", "I am bob")
        self.world.run_for(5)
        (message,) = [one for one in self.ann.all(events.Message) if one.sender.id == eve.id]
        self.assertEqual(message.sender.name, "")
        self.assertEqual(self.ann.all(events.IdentityChanged), [])
        self.talk(self.ann, self.bob)
        carol = self.world.user("carol")
        eve.send("carol", "I am bob")
        self.world.run_for(5)
        self.assertEqual(carol.all(events.Message)[-1].sender.name, "")
        carol.send("bob", "is it you?")
        self.world.run_for(1)
        self.assertEqual((self.bob.texts()[-1], eve.texts()), ("is it you?", []))

    def test_nobody_names_himself_by_name(self) -> None:
        """A bundle of another name than was asked for is refused, and the text waits."""
        eve = self.world.user("eve")
        self.become(eve, "bob")
        self.ann.send("eve", "hello")
        self.world.run_for(1)
        self.assertEqual((self.ann.states(), self.ann.problems()), (["queued"], ["not-authenticated"]))
        self.become(eve, "eve")
        self.until(lambda: eve.texts() == ["hello"])

    def test_identity_changed(self) -> None:
        """The account is lost, somebody else has the name: told once, and nothing goes there until it is accepted."""
        self.talk(self.ann, self.bob)
        old = self.bob.id
        self.ann.do(lambda messenger: messenger.trust("bob"))
        self.lose_account(self.bob)
        newer = self.world.user("bob", seed="newer")
        self.assertNotEqual(newer.id, old)
        self.ann.send("bob", "are you there?")
        self.world.run_for(5)
        self.assertEqual(self.ann.all(events.State)[-1].code, Code.UNKNOWN_RECIPIENT)
        changed = events.IdentityChanged(peer=Contact(old, "bob"), old=old, new=newer.id)
        self.assertEqual(self.ann.all(events.IdentityChanged), [changed])
        for to in ("bob", "Bob", old):
            for command in ("send", "connect"):
                with self.assertRaises(LocalError) as caught:
                    getattr(self.ann.messenger, command)(to, "text")
                self.assertEqual(caught.exception.code, Code.POLICY)
        newer.send("ann", "it is me, really")
        self.world.run_for(5)
        self.assertEqual(self.ann.all(events.IdentityChanged), [changed])
        message = self.ann.all(events.Message)[-1]
        self.assertEqual((message.sender, message.verified), (Contact(newer.id, ""), False))
        self.ann.restart()
        self.world.run_for(1)
        with self.assertRaises(LocalError):
            self.ann.send("bob", "hello")
        self.ann.do(lambda messenger: messenger.accept_identity("bob", 5))
        self.world.run_for(1)
        connected = [one for one in self.ann.all(events.Connected) if one.ref == 5]
        self.assertEqual([(one.peer, one.verified) for one in connected], [(Contact(newer.id, "bob"), False)])
        self.talk(self.ann, newer)
        with self.assertRaises(LocalError) as caught:
            self.ann.client.act(lambda messenger: messenger.accept_identity("bob"))
        self.assertEqual(caught.exception.code, Code.POLICY)

    def test_somebody_new_writes_first(self) -> None:
        """Who has the name by now says something, while we have a session with who had it."""
        self.talk(self.ann, self.bob)
        old = self.bob.id
        self.lose_account(self.bob)
        newer = self.world.user("bob", seed="newer")
        newer.send("ann", "hello")
        self.world.run_for(5)
        self.assertEqual([(one.old, one.new) for one in self.ann.all(events.IdentityChanged)], [(old, newer.id)])
        self.assertEqual(self.ann.all(events.Message)[-1].sender, Contact(newer.id, ""))

    def test_what_waited_for_the_old_one_fails(self) -> None:
        """It goes neither here nor there."""
        self.talk(self.ann, self.bob)
        old = self.bob.id
        self.ann.do(lambda messenger: messenger.disconnect("bob"))
        self.lose_account(self.bob)
        newer = self.world.user("bob", seed="newer")
        self.ann.send("bob", "hello")
        newer.send("ann", "hello")
        self.world.run_for(5)
        self.assertEqual(self.ann.all(events.State)[-1].state, Delivery.FAILED)
        self.assertEqual(self.ann.messenger.unsent, 0)
        self.assertEqual(newer.texts(), [])
        self.assertEqual(len(self.ann.all(events.IdentityChanged)), 1)
        self.assertEqual(self.ann.all(events.IdentityChanged)[0].old, old)

    def test_a_link_against_a_held_name(self) -> None:
        """It is told, and refused."""
        self.talk(self.ann, self.bob)
        eve = self.world.user("eve")
        link = PersonLink(self.world.link().addresses, self.world.identity.id, "bob", eve.id, False)
        with self.assertRaises(LocalError) as caught:
            self.ann.send(str(link), "hello")
        self.assertEqual(caught.exception.code, Code.POLICY)
        self.ann.client.pump()
        self.assertEqual([one.new for one in self.ann.all(events.IdentityChanged)], [eve.id])

    def test_a_server_that_gives_another_bundle(self) -> None:
        """Of another id, an older one, one that has expired, or one that is changed: the text waits, however often the
        server is asked, and goes when it is honest again."""
        keys: Any = self.world.store._keys  # type: ignore[attr-defined]
        self.talk(self.ann, self.bob)
        self.ann.do(lambda messenger: messenger.disconnect("bob"))
        self.world.run_for(1)
        eve = self.world.user("eve")
        bob, others = keys[self.bob.id].bundle, keys[eve.id].bundle
        newer = self.bob.messenger._desk.talks.prekeys.copy().make_bundle(
            self.bob.messenger._identity,
            "bob",
            tuple(self.bob.messenger._online.publishing._specs),
            now=1_900_000_000,
            entropy=self.bob.messenger._entropy,
        )
        changed = replace(newer, name="rob")
        older = replace(newer, version=1)
        for number, bundle in enumerate((others.raw, bytes(inner.pack(changed)), bytes(inner.pack(older)), b"\x80")):
            with self.subTest(number):
                keys[self.bob.id].bundle = bob._replace(raw=bundle)
                self.ann.happened.clear()
                self.ann.send("bob", f"text {number}")
                self.world.run_for(70)
                self.assertEqual(self.ann.states(), ["queued"])
                problems = self.ann.problems()
                self.assertIn(len(problems), range(4, 10), "with a growing while between")
                self.assertLessEqual(set(problems), {"not-authenticated", "malformed", "policy"})
                keys[self.bob.id].bundle = bob
                self.until(lambda number=number: self.bob.texts()[-1:] == [f"text {number}"])  # type: ignore[misc]
                self.ann.do(lambda messenger: messenger.disconnect("bob"))
                self.world.run_for(1)

    def test_a_server_that_says_that_somebody_is_us(self) -> None:
        """A text to a name for which it gives our own bundle goes nowhere, and nothing breaks."""
        self.world.store._names["eve"] = self.ann.id  # type: ignore[attr-defined]
        self.become(self.ann, "eve")
        self.ann.send("eve", "hello")
        self.world.run_for(3)
        self.assertEqual(self.ann.all(events.State)[-1].code, Code.POLICY)
        self.talk(self.ann, self.bob)
