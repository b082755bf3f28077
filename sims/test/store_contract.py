"""What every store of a server must do (``sims/server/interfaces.py``), as tests for whichever there are."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from sims.server.interfaces import (
    Account,
    Invitation,
    Kept,
    Letter,
    Published,
    Quota,
    Registered,
    Store,
)

if TYPE_CHECKING:  # a mixin: the test case comes with the class that uses it
    from unittest import TestCase as Base
else:
    Base = object

T = TypeVar("T")

DAY = 86_400
NOW = 1_800_000_000
QUOTA = Quota(messages=1000, size=4 * 1024 * 1024, life=30 * DAY, stranger_messages=20, stranger_size=256 * 1024)
ANN, BOB, EVE = "a" * 32, "b" * 32, "e" * 32


def account(number: str, name: str, epoch: int | None = None) -> Account:
    """An account."""
    return Account(number, name, number[:1].encode() * 32, b"d" * 32, NOW, epoch)


def letter(number: int, src: str = ANN, dst: str = BOB, size: int = 100) -> Letter:
    """A message."""
    return Letter(src, dst, number.to_bytes(16, "big"), bytes(size))


def bundle(version: int, content: bytes = b"") -> Published:
    """A bundle."""
    return Published(version, content.ljust(32, b"\0"), b"bundle %d " % version + content)


class StoreContract(Base):
    """Mix this into a test case that has :meth:`make_store`."""

    store: Store

    def make_store(self) -> Store:
        """A new, empty store."""
        raise NotImplementedError

    def settle(self) -> None:
        """Wait until the store has done all that it was asked for."""

    def setUp(self) -> None:
        super().setUp()
        self.store = self.make_store()
        for number, name in ((ANN, "ann"), (BOB, "bob")):
            self.ask(self.store.register, account(number, name), None)

    def ask(self, request: Callable[..., None], *args: Any) -> Any:
        """Ask for something; gives the result, which must come exactly once."""
        results: list[Any] = []
        request(*args, results.append)
        self.settle()
        self.assertEqual(len(results), 1)
        return results[0]

    def keep(self, *letters: Letter, quota: Quota = QUOTA, now: int = NOW) -> list[Kept]:
        """Have messages kept."""
        return [self.ask(self.store.keep, one, quota, now) for one in letters]

    def waiting(self, owner: str = BOB, after: int = 0, most: int = 5000, since: float = -inf) -> list[Letter]:
        """What waits for somebody."""
        found = self.ask(self.store.waiting, owner, after, most, since)
        numbers = [number for number, _ in found]
        self.assertEqual(numbers, sorted(set(numbers)))
        self.assertTrue(all(number > after for number in numbers))
        return [one for _, one in found]

    def acknowledge(self, *letters: Letter, owner: str = BOB) -> None:
        """Somebody has these."""
        self.ask(self.store.acknowledge, owner, [(one.src, one.mid) for one in letters])

    # --- accounts and invitations ---

    def test_accounts(self) -> None:
        """An account is found by its id and by its name, and by nothing else."""
        ann = account(ANN, "ann")
        self.assertEqual(self.ask(self.store.find, ANN), ann)
        self.assertEqual(self.ask(self.store.find_name, "ann"), ann)
        for unknown in (EVE, "ann", ""):
            self.assertIsNone(self.ask(self.store.find, unknown))
        for unknown in ("eve", "Ann", ANN, ""):
            self.assertIsNone(self.ask(self.store.find_name, unknown))
        self.assertEqual([one.name for one in self.ask(self.store.everyone)], ["ann", "bob"])
        for most in (0, 1, 2, 3):
            found: list[Account] = []
            self.store.everyone(found.extend, most)
            self.settle()
            self.assertEqual([one.name for one in found], ["ann", "bob"][:most])

    def test_a_name_is_taken_once(self) -> None:
        """A name that is taken stays with whoever has it, and nothing is spent on the attempt."""
        self.ask(self.store.invite, b"i" * 32)
        for _ in range(2):
            self.assertIs(self.ask(self.store.register, account(EVE, "ann"), b"i" * 32), Registered.NAME_TAKEN)
        self.assertIsNone(self.ask(self.store.find, EVE))
        self.assertIs(self.ask(self.store.register, account(EVE, "eve"), b"i" * 32), Registered.DONE)

    def test_an_id_keeps_its_name(self) -> None:
        self.assertIs(self.ask(self.store.register, account(ANN, "anna"), None), Registered.KNOWN)
        self.assertEqual(self.ask(self.store.find, ANN).name, "ann")
        self.assertIsNone(self.ask(self.store.find_name, "anna"))

    def test_an_invitation_is_good_once(self) -> None:
        self.ask(self.store.invite, b"i" * 32)
        self.assertIs(self.ask(self.store.register, account(EVE, "eve"), b"j" * 32), Registered.INVITE_REQUIRED)
        self.assertIsNone(self.ask(self.store.find, EVE))
        self.assertIs(self.ask(self.store.register, account(EVE, "eve"), b"i" * 32), Registered.DONE)
        other = account("f" * 32, "fay")
        self.assertIs(self.ask(self.store.register, other, b"i" * 32), Registered.INVITE_USED)
        self.assertIsNone(self.ask(self.store.find_name, "fay"))

    def invite(self, token: bytes, uses: int = 1, expires: int | None = None) -> bytes:
        """Have an invitation given out."""
        self.ask(partial(self.store.invite, uses=uses, expires=expires), token * 32)
        return token * 32

    def come(self, number: int, invitation: bytes, now: int = NOW) -> Registered:
        """Somebody new."""
        new = account(f"{number:032}", f"n{number}")._replace(created=now)
        result: Registered = self.ask(self.store.register, new, invitation)
        return result

    def test_an_invitation_for_several(self) -> None:
        """It is good as often as was said."""
        several = self.invite(b"i", uses=3)
        self.assertEqual(self.ask(self.store.invitation, several), Invitation(several, 3))
        self.assertEqual([self.come(n, several) for n in range(4)], [Registered.DONE] * 3 + [Registered.INVITE_USED])
        self.assertEqual(self.ask(self.store.invitation, several).uses, 0)

    def test_an_invitation_expires(self) -> None:
        """From that second on it is as one that was never given out, whatever is left of it."""
        late = self.invite(b"i", uses=5, expires=NOW + 10)
        self.assertIs(self.come(1, late, NOW + 9), Registered.DONE)
        self.assertIs(self.come(2, late, NOW + 10), Registered.INVITE_REQUIRED)
        self.assertIsNone(self.ask(self.store.find, f"{2:032}"))
        self.assertIsNone(self.ask(self.store.invitation, late))

    def test_an_invitation_is_given_out_anew(self) -> None:
        """What was known of it counts no longer, whether it was spent or not."""
        one = self.invite(b"i", uses=2)
        self.come(1, one)
        self.invite(b"i")
        self.assertEqual([self.come(n, one) for n in (2, 3)], [Registered.DONE, Registered.INVITE_USED])
        self.invite(b"i")
        self.assertIs(self.come(4, one), Registered.DONE)
        self.assertIsNone(self.ask(self.store.invitation, b"?" * 32))

    def test_who_has_no_invitation_learns_no_name(self) -> None:
        self.assertIs(self.ask(self.store.register, account(EVE, "ann"), b"j" * 32), Registered.INVITE_REQUIRED)

    def test_a_known_id_spends_nothing(self) -> None:
        self.ask(self.store.invite, b"i" * 32)
        self.assertIs(self.ask(self.store.register, account(ANN, "ann"), b"i" * 32), Registered.KNOWN)
        self.assertIs(self.ask(self.store.register, account(EVE, "eve"), b"i" * 32), Registered.DONE)

    def test_epochs(self) -> None:
        """The highest is kept; what is given is that of before."""
        for epoch, before in ((None, None), (5, None), (3, 5), (None, 5), (2**64 - 1, 5), (6, 2**64 - 1)):
            self.assertEqual(self.ask(self.store.connected, ANN, epoch), account(ANN, "ann")._replace(epoch=before))
        self.assertEqual(self.ask(self.store.find, ANN).epoch, 2**64 - 1)
        self.assertEqual(self.ask(self.store.find_name, "ann").epoch, 2**64 - 1)

    def test_epoch_of_nobody(self) -> None:
        """A connect does not make an account, nor bring one back that was deleted."""
        self.assertIsNone(self.ask(self.store.connected, EVE, 7))
        self.assertIsNone(self.ask(self.store.find, EVE))
        self.ask(self.store.delete, ANN)
        self.assertIsNone(self.ask(self.store.connected, ANN, None))
        self.assertIsNone(self.ask(self.store.find, ANN))

    def test_delete(self) -> None:
        """Everything on somebody goes, the name is free, and what they sent is still others'."""
        self.ask(self.store.publish, ANN, bundle(1), [b"key"])
        self.keep(letter(1), letter(2, BOB, ANN))
        self.ask(self.store.written, ANN, BOB)
        self.ask(self.store.delete, ANN)
        self.assertIsNone(self.ask(self.store.find, ANN))
        self.assertIsNone(self.ask(self.store.bundle, ANN))
        self.assertIsNone(self.ask(self.store.take, ANN, BOB, NOW))
        self.assertEqual(self.waiting(ANN), [])
        self.assertEqual(self.keep(letter(3, BOB, ANN)), [Kept.NOBODY])
        self.assertEqual(self.ask(self.store.facts, ANN), {})
        self.assertEqual(self.waiting(BOB), [letter(1)])
        self.assertIs(self.ask(self.store.register, account(EVE, "ann"), None), Registered.DONE)
        self.assertEqual(self.waiting(EVE), [])
        self.assertIsNone(self.ask(self.store.bundle, EVE))
        self.ask(self.store.delete, "f" * 32)

    def test_delete_and_come_again(self) -> None:
        """An id that comes again is as new; even a lower version of its bundle is taken."""
        self.ask(self.store.publish, ANN, bundle(9), [b"key"])
        self.ask(self.store.connected, ANN, 7)
        self.ask(self.store.delete, ANN)
        self.ask(self.store.register, account(ANN, "ann"), None)
        self.assertEqual(self.ask(self.store.connected, ANN, 1), account(ANN, "ann"))
        self.assertTrue(self.ask(self.store.publish, ANN, bundle(1), []))

    # --- prekeys ---

    def test_bundles(self) -> None:
        """The newest one counts; no step back is taken, and with it no key."""
        self.assertIsNone(self.ask(self.store.bundle, ANN))
        steps = (
            (bundle(5), True),
            (bundle(5), True),
            (bundle(5, b"other"), False),
            (bundle(4), False),
            (bundle(6), True),
            (bundle(5), False),
            (bundle(2**64 - 1), True),
        )
        newest = None
        for number, (published, taken) in enumerate(steps):
            self.assertIs(self.ask(self.store.publish, ANN, published, [b"key %d" % number]), taken)
            newest = published if taken else newest
            self.assertEqual(self.ask(self.store.bundle, ANN), newest)
        fetched = [self.ask(self.store.take, ANN, f"{n:032}", NOW) for n in range(5)]
        self.assertEqual(fetched, [b"key 0", b"key 1", b"key 4", b"key 6", None])

    def test_bundle_of_nobody(self) -> None:
        self.assertFalse(self.ask(self.store.publish, EVE, bundle(1), [b"key"]))
        self.assertIsNone(self.ask(self.store.bundle, EVE))

    def test_one_time_keys(self) -> None:
        """Each is given once, oldest first; published again it is not taken again."""
        self.ask(self.store.publish, ANN, bundle(1), [b"one", b"two"])
        self.assertEqual(self.ask(self.store.take, ANN, BOB, NOW), b"one")
        self.ask(self.store.publish, ANN, bundle(1), [b"one", b"two", b"three"])
        taken = [self.ask(self.store.take, ANN, f"{n:032}", NOW) for n in range(3)]
        self.assertEqual(taken, [b"two", b"three", None])

    def test_one_time_keys_once_a_day(self) -> None:
        """One fetcher is given one of a person's a day; another person's all the same."""
        self.ask(self.store.publish, ANN, bundle(1), [b"one", b"two", b"three"])
        self.ask(self.store.publish, BOB, bundle(1), [b"bob's"])
        self.assertEqual(self.ask(self.store.take, ANN, EVE, NOW), b"one")
        self.assertIsNone(self.ask(self.store.take, ANN, EVE, NOW + DAY - 1))
        self.assertEqual(self.ask(self.store.take, BOB, EVE, NOW), b"bob's")
        self.assertEqual(self.ask(self.store.take, ANN, EVE, NOW + DAY), b"two")
        self.assertIsNone(self.ask(self.store.take, ANN, EVE, NOW + DAY + 1))
        self.assertEqual(self.ask(self.store.take, ANN, BOB, NOW + DAY + 1), b"three")

    def test_a_fetch_without_a_key_does_not_count(self) -> None:
        self.ask(self.store.publish, ANN, bundle(1), [])
        self.assertIsNone(self.ask(self.store.take, ANN, BOB, NOW))
        self.ask(self.store.publish, ANN, bundle(1), [b"one"])
        self.assertEqual(self.ask(self.store.take, ANN, BOB, NOW), b"one")

    def test_one_hundred_one_time_keys(self) -> None:
        """The newest 100 are kept."""
        for start in range(0, 120, 40):
            self.ask(self.store.publish, ANN, bundle(1), [b"%d" % number for number in range(start, start + 40)])
        taken = [self.ask(self.store.take, ANN, f"{n:032}", NOW) for n in range(101)]
        self.assertEqual(taken, [b"%d" % number for number in range(20, 120)] + [None])

    # --- mailboxes ---

    def test_order(self) -> None:
        """What waits is given in the order in which it was kept, as often as it is asked for."""
        letters = [letter(number, (ANN, EVE)[number % 2]) for number in range(10)]
        self.assertEqual(self.keep(*letters), [Kept.STORED] * 10)
        for _ in range(2):
            self.assertEqual(self.waiting(), letters)
        self.assertEqual(self.waiting(ANN), [])
        self.assertEqual(self.waiting(EVE), [])

    def test_pages(self) -> None:
        letters = [letter(number) for number in range(7)]
        self.keep(*letters)
        first = self.ask(self.store.waiting, BOB, 0, 3, -inf)
        second = self.ask(self.store.waiting, BOB, first[-1][0], 3, -inf)
        third = self.ask(self.store.waiting, BOB, second[-1][0], 3, -inf)
        self.assertEqual([one for _, one in [*first, *second, *third]], letters)

    def test_acknowledge(self) -> None:
        """What is acknowledged is gone; a name that is not there does no harm, nor does another's mailbox change."""
        letters = [letter(number) for number in range(4)]
        other = letter(1, EVE)
        self.keep(*letters, other, letter(1, BOB, ANN))
        self.acknowledge(letters[1], letters[2], letter(99), letter(0, EVE))
        self.assertEqual(self.waiting(), [letters[0], letters[3], other])
        self.assertEqual(self.waiting(ANN), [letter(1, BOB, ANN)])
        self.acknowledge(letters[0], owner=EVE)
        self.assertEqual(len(self.waiting()), 3)

    def test_acknowledged_twice_in_one_breath(self) -> None:
        """It is gone once: what it took up is free, and no more."""
        self.keep(*[letter(number) for number in range(4)])
        self.acknowledge(letter(0), letter(0), letter(1), letter(0))
        facts = self.ask(self.store.facts, BOB)
        self.assertEqual((facts["waiting_messages"], facts["waiting_bytes"]), (2, 200))
        self.acknowledge(letter(2), letter(3))
        self.assertEqual(self.ask(self.store.facts, BOB)["waiting_from"], [])

    def test_mids(self) -> None:
        """A mid is known to the mailbox, per sender, whether or not the message was fetched."""
        self.keep(letter(1))
        self.assertEqual(self.keep(letter(1), letter(1, size=5)), [Kept.KNOWN] * 2)
        self.acknowledge(letter(1))
        self.assertEqual(self.keep(letter(1)), [Kept.KNOWN])
        self.assertEqual(self.waiting(), [])
        self.assertEqual(self.keep(letter(1, EVE), letter(1, BOB, ANN)), [Kept.STORED] * 2)
        self.assertEqual(self.waiting(), [letter(1, EVE)])

    def test_a_refused_mid_is_not_known(self) -> None:
        quota = QUOTA._replace(stranger_messages=0)
        self.assertEqual(self.keep(letter(1), quota=quota), [Kept.FULL])
        self.assertEqual(self.keep(letter(1)), [Kept.STORED])

    def test_thirty_days(self) -> None:
        """A message waits for so long, then it and its mid are gone; younger ones stay."""
        self.keep(letter(1))
        self.keep(letter(2), now=NOW + DAY)
        self.acknowledge(letter(2))
        self.keep(letter(3), now=NOW + DAY)
        end = NOW + 30 * DAY
        self.assertEqual(self.waiting(since=end - 1 - QUOTA.life), [letter(1), letter(3)])
        self.assertEqual(self.waiting(since=end - QUOTA.life), [letter(3)])
        self.assertEqual(self.keep(letter(1), letter(2), now=end), [Kept.STORED, Kept.KNOWN])

    def test_nobody(self) -> None:
        self.assertEqual(self.keep(letter(1, dst=EVE)), [Kept.NOBODY])

    def befriend(self, *others: str) -> None:
        """Bob has written to these, who so have a quarter of his mailbox each."""
        for other in others:
            if self.ask(self.store.find, other) is None:
                self.ask(self.store.register, account(other, f"n{other}"), None)
            self.ask(self.store.written, BOB, other)

    def test_messages_of_a_mailbox(self) -> None:
        """A mailbox holds so many; what is fetched makes room; nothing old is dropped."""
        quota = QUOTA._replace(messages=8)
        senders = [f"{n:032}" for n in range(2, 7)]
        self.befriend(*senders)
        letters = [letter(number, sender) for sender in senders[:4] for number in range(2)]
        self.assertEqual(self.keep(*letters, quota=quota), [Kept.STORED] * 8)
        late = letter(9, senders[4])
        self.assertEqual(self.keep(late, quota=quota), [Kept.FULL])
        self.assertEqual(self.waiting(), letters)
        self.acknowledge(letters[3])
        self.assertEqual(self.keep(late, quota=quota), [Kept.STORED])
        self.assertEqual(self.waiting(), [*letters[:3], *letters[4:], late])

    def test_bytes_of_a_mailbox(self) -> None:
        quota = QUOTA._replace(size=4000)
        senders = [f"{n:032}" for n in range(2, 7)]
        self.befriend(*senders)
        self.assertEqual(self.keep(letter(1, senders[0], size=1001), quota=quota), [Kept.FULL])
        letters = [letter(1, sender, size=1000) for sender in senders[:4]]
        self.assertEqual(self.keep(*letters, quota=quota), [Kept.STORED] * 4)
        self.assertEqual(self.keep(letter(1, senders[4], size=1), quota=quota), [Kept.FULL])
        self.acknowledge(letters[0])
        self.assertEqual(self.keep(letter(2, senders[4], size=1000), quota=quota), [Kept.STORED])

    def test_a_quarter_for_one_sender(self) -> None:
        quota = QUOTA._replace(messages=40, size=40_000)
        self.befriend(ANN)
        self.assertEqual(self.keep(*[letter(n) for n in range(11)], quota=quota), [Kept.STORED] * 10 + [Kept.FULL])
        self.assertEqual(self.keep(letter(1, EVE), quota=quota), [Kept.STORED])
        self.acknowledge(letter(0))
        self.assertEqual(self.keep(letter(20), letter(21), quota=quota), [Kept.STORED, Kept.FULL])
        self.acknowledge(*[letter(n) for n in (*range(1, 10), 20)])
        self.assertEqual(
            self.keep(letter(30, size=9999), letter(31, size=2), letter(32, size=1), quota=quota),
            [Kept.STORED, Kept.FULL, Kept.STORED],
        )

    def test_twenty_for_a_stranger(self) -> None:
        """Somebody to whom the owner has never written: 20 messages or 256 KiB, until the owner writes."""
        self.assertEqual(self.keep(*[letter(n) for n in range(21)]), [Kept.STORED] * 20 + [Kept.FULL])
        self.ask(self.store.written, ANN, BOB)  # what the stranger does counts for nothing
        self.assertEqual(self.keep(letter(21)), [Kept.FULL])
        self.befriend(ANN)
        self.assertEqual(self.keep(letter(22)), [Kept.STORED])
        large = [letter(n, EVE, size=200 * 1024) for n in range(2)]
        self.assertEqual(self.keep(*large), [Kept.STORED, Kept.FULL])

    def test_no_limits(self) -> None:
        self.assertEqual(
            self.keep(*[letter(n) for n in range(50)], quota=Quota(inf, inf, inf, inf, inf)), [Kept.STORED] * 50
        )
        self.assertEqual(len(self.waiting()), 50)

    # --- facts, and the order of things ---

    def test_facts(self) -> None:
        """Everything that is kept is told, as MessagePack, and in a few bytes."""
        self.ask(self.store.connected, ANN, 7)
        self.ask(self.store.publish, ANN, bundle(1), [b"one", b"two"])
        self.ask(self.store.take, ANN, BOB, NOW)
        self.keep(letter(1), letter(1, BOB, ANN, size=70))
        self.ask(self.store.written, ANN, BOB)
        facts = self.ask(self.store.facts, ANN)
        for name, value in {
            "id": ANN,
            "name": "ann",
            "sign": b"a" * 32,
            "dh": b"d" * 32,
            "created": NOW,
            "epoch": 7,
            "bundle": b"bundle 1 ",
            "one_time_keys": 1,
            "one_time_keys_handed_out": 1,
            "fetched_by": [BOB],
            "fetched_by_count": 1,
            "waiting_messages": 1,
            "waiting_bytes": 70,
            "waiting_from": [BOB],
            "waiting_from_count": 1,
            "remembered_mids": 1,
            "written_to": [BOB],
            "written_to_count": 1,
            "written_by": [],
            "fetched_from": [],
            "sent_and_waiting": 1,
        }.items():
            self.assertEqual(facts.pop(name), value, name)
        self.assertEqual(facts, {})
        facts = self.ask(self.store.facts, BOB)
        self.assertEqual((facts["written_by"], facts["fetched_from"]), ([ANN], [ANN]))

    def test_facts_are_bounded(self) -> None:
        for number in range(2000, 2310):
            self.ask(self.store.register, account(f"{number:032}", f"n{number}"), None)
            self.ask(self.store.written, ANN, f"{number:032}")
        facts = self.ask(self.store.facts, ANN)
        self.assertEqual((len(facts["written_to"]), facts["written_to_count"]), (300, 310))
        self.assertEqual(facts["written_to"][-1], f"{2309:032}")
        self.assertLess(len(msgspec.msgpack.encode(facts)), 60 * 1024)

    def test_requests_take_effect_in_order(self) -> None:
        """Whoever asks for several things at once is answered in that order, and each is as if the others were done."""
        answers: list[tuple[str, Any]] = []

        def note(what: str) -> Callable[[Any], None]:
            return lambda result: answers.append((what, result))

        self.store.keep(letter(1), QUOTA, NOW, note("keep"))
        self.store.waiting(BOB, 0, 10, -inf, note("waiting"))
        self.store.acknowledge(BOB, [(ANN, letter(1).mid)], note("acknowledge"))
        self.store.waiting(BOB, 0, 10, -inf, note("again"))
        self.store.keep(letter(1), QUOTA, NOW, note("known"))
        self.store.delete(BOB, note("delete"))
        self.store.keep(letter(2), QUOTA, NOW, note("nobody"))
        self.settle()
        found = dict(answers)
        self.assertEqual(
            [what for what, _ in answers],
            ["keep", "waiting", "acknowledge", "again", "known", "delete", "nobody"],
        )
        self.assertEqual([one for _, one in found["waiting"]], [letter(1)])
        self.assertEqual([*found["again"]], [])
        self.assertEqual((found["keep"], found["known"], found["nobody"]), (Kept.STORED, Kept.KNOWN, Kept.NOBODY))

    def test_close(self) -> None:
        self.ask(self.store.close)
