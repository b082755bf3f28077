"""What could not be read, what is missing, what is deleted, and the account; through the real server in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CBC
from twisted.internet.defer import Deferred

from sims import inner
from sims.client import asking, events
from sims.client.vault import Vault
from sims.client.vault_key import VAULT, read_key
from sims.errors import Code, PeerError
from sims.server.interfaces import Account
from sims.server.registration import Mode
from sims.test.history_case import HistoryTestCase, texts
from sims.test.modern_world import User, World, refusal

#: Bytes of a page, and of what SQLCipher keeps at its end.
_PAGE, _RESERVED = 4096, 80


class UnreadableTests(HistoryTestCase):
    """What could not be read is shown as such at both ends, and sent again."""

    def test_at_both_ends(self) -> None:
        """Over restarts of both, and explained."""
        self.say(self.ann, self.bob, "before")
        self.lose(self.bob, self.ann)
        self.ann.send("bob", "hello")
        self.until(lambda: bool(self.bob.all(events.Unreadable)))
        self.ann.kill()
        self.world.settle()
        self.bob.restart()
        self.world.run_for(5)
        self.ann.restart()
        self.until(lambda: self.bob.texts()[-1:] == ["hello"])
        self.world.run_for(5)
        (unreadable,) = self.bob.all(events.Unreadable)
        (not_read,) = self.ann.all(events.NotRead)
        self.assertEqual((not_read.to.name, not_read.again), ("bob", 1))
        self.assertEqual(not_read.id, self.bob.all(events.Message)[-1].id)
        self.assertEqual(self.bob.texts().count("hello"), 1)
        for restarted in (False, True):
            if restarted:
                self.ann.restart()
                self.bob.restart()
                self.world.settle()
            why = self.why(self.bob, unreadable.id)
            self.assertEqual((why.state, [*why.times]), ("unreadable", ["came", "asked"]))
            self.assertIn("asked for it again", why.text)
            why = self.why(self.ann, not_read.id)
            self.assertEqual((why.state, [*why.times]), ("delivered", ["queued", "accepted", "again", "delivered"]))
            self.assertIn("could not be read or was lost there, and was sent again once", why.text)
            kept = self.history(self.bob, "ann")
            self.assertEqual([message.state for message in kept], ["came", "unreadable", "came"])

    def test_a_relay_that_lies_about_an_id(self) -> None:
        """It says that nobody has it when they are to be asked: they are asked once it says so no more."""
        self.say(self.ann, self.bob, "before")
        self.lose(self.bob, self.ann)
        lying = True

        def lie(sender: str, message: inner.FromClient) -> inner.FromServer | bool:
            if lying and sender == self.bob.id and isinstance(message, inner.Fetch):
                return refusal(message.mid, Code.UNKNOWN_RECIPIENT)
            return False

        self.world.intercept(lie)
        self.ann.send("bob", "hello")
        self.world.run_for(3 * asking.ASK_EVERY)
        self.assertEqual(self.bob.texts()[-1:], ["before"])
        lying = False
        self.until(lambda: self.bob.texts()[-1:] == ["hello"], asking.ASK_EVERY + 120)

    def test_more_than_a_day_has_questions(self) -> None:
        """Each of them comes in the end: none is forgotten for there being many."""
        self.patch(asking, "ASK_EVERY", 60)
        self.patch(asking, "ASKS_A_DAY", 100)
        self.say(self.ann, self.bob, "before")
        self.lose(self.bob, self.ann)
        self.ann.kill()
        self.world.settle()
        self.ann.use(self.ann.store.copy())
        many = [f"{number}" for number in range(30)]
        for text in many:
            self.ann.send("bob", text)
        self.ann.start()
        self.until(lambda: self.bob.texts()[1:] == many, 30 * 130)


class MissingTests(HistoryTestCase):
    """What a relay keeps back is named."""

    def test_by_its_number(self) -> None:
        """Dropped ones by their numbers in the stream; all is in order once they are not dropped any more."""
        self.say(self.ann, self.bob, "one")
        seq = self.ann.messenger._desk.talks.find(self.bob.id)._stream.seq  # type: ignore[union-attr]
        dropped = 0

        def drop(sender: str, message: inner.FromClient) -> inner.FromServer | bool:
            nonlocal dropped
            if dropped < 2 and sender == self.ann.id and isinstance(message, inner.ClientCom):
                dropped += 1
                return inner.Ack(data=inner.AckData(mids=(message.mid,)))
            return False

        self.world.intercept(drop)
        for text in ("two", "three", "four", "five"):
            self.ann.send("bob", text)
            self.world.run_for(1)
        four, five = self.bob.all(events.Message)[1:]
        self.assertEqual((four.text, four.order, four.missing), ("four", "gap", (seq + 1, seq + 2)))
        self.assertEqual((five.text, five.missing, five.unreadable), ("five", (seq + 1, seq + 2), ()))
        self.assertIn(f"numbers {seq + 1}, {seq + 2}", self.why(self.bob, four.id).text)
        self.assertEqual(self.history(self.bob, "ann")[1].missing, (seq + 1, seq + 2))

    def test_by_its_id(self) -> None:
        """Where it came and could not be read, the message of that id is named; no more once it has come."""
        self.say(self.ann, self.bob, "one")
        spoilt: list[bytes] = []

        def spoil(sender: str, message: inner.FromClient) -> inner.FromServer | bool:
            if not spoilt and sender == self.ann.id and isinstance(message, inner.ClientCom):
                spoilt.append(message.mid)
                data = inner.pack({"header": bytes(80), "body": bytes(272)})
                garbled = inner.ClientCom(src=message.src, dst=message.dst, mid=message.mid, data=data)
                self.world.modern_relay._members[self.bob.id].deliver(inner.encode(garbled))
                return inner.Ack(data=inner.AckData(mids=(message.mid,)))
            return False

        self.world.intercept(spoil)
        self.ann.send("bob", "two")
        self.ann.send("bob", "three")
        self.until(lambda: len(self.bob.texts()) == 3)
        three = self.bob.all(events.Message)[1]
        self.assertEqual((three.text, three.unreadable), ("three", (spoilt[0].hex(),)))
        self.assertEqual(len(three.missing), 1)
        self.world.run_for(2)
        self.say(self.ann, self.bob, "four")
        self.assertIsNone(self.bob.all(events.Message)[-1].order)
        person = self.bob.messenger._desk.people.get(self.ann.id)
        self.assertEqual(None if person is None else person.unread, ())


class DeleteTests(HistoryTestCase):
    """Nothing that was said is left; everything that keeps the promises is."""

    def test_forgets(self) -> None:
        """Of one person, not of others; both talk on, in order; who is verified stays so."""
        carol = self.world.user("carol")
        self.say(carol, self.bob, "of carol")
        self.say(self.ann, self.bob, "one", "two")
        self.bob.do(lambda messenger: messenger.trust("ann"))
        deleted = self.successResultOf(self.bob.client.delete("ann"))
        self.assertEqual(deleted.peer.name, "ann")
        self.assertEqual((self.history(self.bob, "ann"), self.search(self.bob, "two")), ((), []))
        self.assertEqual(texts(self.history(self.bob, "carol")), ["of carol"])
        self.say(self.ann, self.bob, "three")
        self.say(self.bob, self.ann, "four")
        (three, four) = self.history(self.bob, "ann")
        self.assertEqual((three.text, three.verified, three.order, four.text), ("three", True, None, "four"))
        self.refused(self.bob.client.delete("nobody"), Code.UNKNOWN_RECIPIENT)

    def test_what_was_not_sent(self) -> None:
        """It fails, and is not sent later; what follows it is in order."""
        self.say(self.ann, self.bob, "one")
        for sealed in (False, True):
            if not sealed:
                self.ann.kill()
                self.world.settle()
                self.ann.use(self.ann.store.copy())
            else:
                self.ann.way.refusing = True
                self.ann.cut()
                self.world.run_for(1)
            self.ann.send("bob", "two")
            self.assertEqual(self.ann.states()[-1], "queued")
            self.ann.do(lambda messenger: messenger.delete("bob"))
            self.assertEqual((self.ann.states()[-1], self.history(self.ann, "bob")), ("failed", ()))
            self.ann.way.refusing = False
            self.ann.start()
            self.world.run_for(60)
            self.assertEqual(self.bob.texts(), ["one", *(["three"] if sealed else [])])
            self.say(self.ann, self.bob, "three")
        self.assertEqual({message.order for message in self.bob.all(events.Message)}, {None})

    def test_leaves_no_byte(self) -> None:
        """Of a vault with unsent, accepted and out-of-order texts: in no decrypted page, and no page is free."""
        folder = Path(self.mktemp())
        folder.mkdir(mode=0o700)
        vault = Vault(folder)
        self.addCleanup(vault.close)
        carol = User(self.world, "carol", cast("Any", vault)).join()
        secret = "xylophonist marmalade"
        self.say(carol, self.bob, f"{secret} one")
        self.say(self.bob, carol, f"{secret} two")
        dropped: list[bytes] = []

        def drop(sender: str, message: inner.FromClient) -> inner.FromServer | bool:
            if not dropped and sender == self.bob.id and isinstance(message, inner.ClientCom):
                dropped.append(message.mid)
                return inner.Ack(data=inner.AckData(mids=(message.mid,)))
            return False

        self.world.intercept(drop)
        self.bob.send(carol, f"{secret} three")
        self.world.run_for(1)
        self.bob.send(carol, f"{secret} four")  # behind a gap
        self.world.run_for(1)
        self.bob.kill()
        self.world.settle()
        carol.send(self.bob, f"{secret} five")  # accepted
        self.world.run_for(1)
        carol.way.refusing = True
        carol.cut()
        self.world.run_for(1)
        carol.send(self.bob, f"{secret} six")
        self.world.run_for(1)
        self.assertIn(b"marmalade", self.pages(folder))
        self.assertIn(b"xylophonist", self.pages(folder))
        free = vault._database.execute("pragma page_count").fetchone()[0]
        carol.do(lambda messenger: messenger.delete("bob"))
        for word in (b"xylophonist", b"marmalade", b"xylo"):
            self.assertNotIn(word, self.pages(folder))
        self.assertLess(vault._database.execute("pragma page_count").fetchone()[0], free + 1)
        self.assertEqual(vault._database.execute("pragma freelist_count").fetchone()[0], 0)

    def pages(self, folder: Path) -> bytes:
        """Every page of the database and of its log, decrypted as it stands there: what is free in them, too."""
        key = read_key(folder, lambda _: None, new=False)
        whole, log = (folder / VAULT).read_bytes(), (folder / f"{VAULT}-wal").read_bytes()
        pages = [whole[start : start + _PAGE] for start in range(0, len(whole), _PAGE)]
        pages += [log[start + 24 : start + 24 + _PAGE] for start in range(32, len(log), 24 + _PAGE)]
        found = [_decrypted(key, page, 16 if page[:16] == whole[:16] else 0) for page in pages]
        self.assertEqual(found[0][:5], bytes((_PAGE >> 8, 0, 2, 2, _RESERVED)))  # as the format of SQLite begins
        return b"".join(found)


def _decrypted(key: bytes, page: bytes, salt: int) -> bytes:
    """A page as SQLCipher writes it: a salt before the first, what is encrypted, its IV, a MAC."""
    end = _PAGE - _RESERVED
    decryptor = Cipher(AES256(key), CBC(page[end : end + 16])).decryptor()
    return decryptor.update(page[salt:end]) + decryptor.finalize()


class AccountTests(HistoryTestCase):
    """What the server keeps on us, and the end of it."""

    def test_about(self) -> None:
        facts = self.ann.client.about()
        self.world.settle()
        found = self.successResultOf(facts)
        self.assertEqual(found["name"], "ann")
        self.ann.way.refusing = True
        waiting = self.ann.client.about()
        self.ann.cut()
        self.world.run_for(1)
        self.refused(waiting, Code.UNAVAILABLE)
        self.refused(self.ann.client.about(), Code.UNAVAILABLE)

    def test_delete_account(self) -> None:
        """The server has forgotten us, the client stays away, and the name is free."""
        self.say(self.ann, self.bob, "kept")
        waiting = self.ann.client.delete_account()
        self.refused(self.ann.client.delete_account(), Code.POLICY)
        self.world.settle()
        self.successResultOf(waiting)
        self.world.run_for(120)
        self.assertTrue(self.ann.client.gave_up)
        self.assertEqual(self.ann.all(events.Offline), [])
        self.assertEqual(texts(self.history(self.ann, "bob")), ["kept"])
        self.assertNotIn("member", self.ann.store.load().values)
        other = self.world.user("ann", seed="another ann")
        self.assertNotEqual(other.id, self.ann.id)
        self.assertTrue(other.messenger.ready)

    def test_delete_account_on_a_connection_that_breaks(self) -> None:
        """It is asked for on the next, until the server says that it is done."""
        taken: list[inner.FromClient] = []

        def take(sender: str, message: inner.FromClient) -> bool:
            if isinstance(message, inner.Delete) and not taken:
                taken.append(message)
                self.ann.cut()
                return True
            return False

        self.world.intercept(take)
        waiting = self.ann.client.delete_account()
        self.world.run_for(10)
        self.successResultOf(waiting)
        self.assertTrue(self.ann.client.gave_up)

    def leave(self, mode: Mode, lost: int) -> tuple[World, User, Deferred[events.AccountDeleted]]:
        """Somebody new asks to be forgotten, and loses the connection with that frame; there is no way to go on yet."""
        world = World(mode=Mode.INVITE)
        local = world.invite("local")
        ann = world.user("ann", link=world.link(world.invite("token")), invite=lambda: local)
        cast("Any", world.modern_relay)._mode = mode
        world.run_for(3)
        ann.happened.clear()
        ann.way.refusing = True
        ann.breaks_at = ann.frames + lost
        waiting = ann.client.delete_account()
        world.run_for(1)
        self.assertIsNone(ann.messenger.ready)
        return world, ann, waiting

    def test_delete_account_whose_answer_is_lost(self) -> None:
        """Where the server would not take them in now, nobody knows whether it has forgotten them, and they hear just
        that: it is no refusal to forget them, and nobody new is made for it. It can be asked for again."""
        for mode, code in (
            (Mode.INVITE, Code.INVITE_REQUIRED),
            (Mode.CLOSED, Code.POLICY),
            (Mode.OPEN, Code.NAME_TAKEN),
        ):
            world, ann, waiting = self.leave(mode, 2)
            if code is Code.NAME_TAKEN:
                world.user("ann", seed="another")
            ann.way.refusing = False
            world.run_for(60)
            error = self.failureResultOf(waiting, PeerError).value
            self.assertEqual((error.code, "whether" in error.text), (code, True), mode)
            texts = {event.text for event in ann.all(events.Problem) if event.code is code}
            self.assertEqual(texts, {error.text}, mode)
            self.assertTrue(ann.client.gave_up, mode)
            self.assertEqual(ann.messenger.under_way, 0, mode)
            self.assertNotIn("member", ann.store.load().values, mode)
            attempts = len(ann.way.attempts)
            world.run_for(300)
            self.assertEqual((len(ann.way.attempts), ann.all(events.Ready)), (attempts, []), mode)
            self.refused(ann.client.delete_account(), Code.UNAVAILABLE)

    def test_delete_account_on_a_connection_that_comes_back(self) -> None:
        """Where the server takes anybody in, or has not heard of it, it is asked for again until it has answered."""
        for mode, lost in ((Mode.OPEN, 2), (Mode.OPEN, 1), (Mode.INVITE, 1), (Mode.CLOSED, 1)):
            world, ann, waiting = self.leave(mode, lost)
            ann.way.refusing = False
            world.run_for(60)
            self.successResultOf(waiting)
            self.assertTrue(ann.client.gave_up, (mode, lost))
            self.assertEqual(ann.messenger.under_way, 0, (mode, lost))
            self.assertEqual(self.successResultOf(_found(world, ann)), None, (mode, lost))


def _found(world: World, user: User) -> Deferred[Account | None]:
    """The account of somebody at the server."""
    found: Deferred[Account | None] = Deferred()
    world.store.find(user.id, found.callback)
    return found
