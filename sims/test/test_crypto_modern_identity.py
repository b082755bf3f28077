"""Tests of identities, links, bundles and one-time keys."""

from __future__ import annotations

from typing import Any

import msgspec
from twisted.trial.unittest import SynchronousTestCase

from sims.crypto import identity as identities
from sims.crypto import payloads
from sims.crypto.identity import Address, Identity, PersonLink, PublicIdentity, ServerLink, parse_link
from sims.crypto.prekeys import (
    AHEAD,
    GRACE,
    LIFE,
    Bundle,
    OneTimeKey,
    OwnPrekeys,
    check_bundle,
    check_one_time_key,
    seen,
)
from sims.errors import Code, LocalError, PeerError
from sims.test.builders import flipped, refusal
from sims.test.modern_builders import NOW, SPECS, Counting, person

ALICE, BOB = person("alice"), person("bob")


class Identities(SynchronousTestCase):
    def test_an_id_is_of_both_keys(self) -> None:
        self.assertTrue(identities.is_id(ALICE.id))
        for sign, dh in ((BOB.public.sign, ALICE.public.dh), (ALICE.public.sign, BOB.public.dh)):
            self.assertNotIn(PublicIdentity(sign, dh).id, (ALICE.id, BOB.id))

    def test_comes_back_from_its_bytes(self) -> None:
        stored = ALICE.private_bytes()
        self.assertEqual(Identity(stored[:32], stored[32:]).public, ALICE.public)

    def test_a_signature_is_for_one_purpose(self) -> None:
        signature = ALICE.sign("bundle", b"message")
        ALICE.public.verify("bundle", b"message", signature)
        for purpose, message in (("one-time prekey", b"message"), ("bundle", b"Message"), ("bundl", b"emessage")):
            error = refusal(PeerError, ALICE.public.verify, purpose, message, signature)
            self.assertIs(error.code, Code.NOT_AUTHENTICATED)
        refusal(PeerError, BOB.public.verify, "bundle", b"message", signature)

    def test_keys_that_cannot_be_are_refused(self) -> None:
        for sign, dh in ((bytes(32), BOB.public.dh), (BOB.public.sign[:31], BOB.public.dh), (BOB.public.sign, b"")):
            self.assertIs(refusal(PeerError, PublicIdentity, sign, dh).code, Code.MALFORMED)

    def test_a_safety_number_is_the_same_on_both_screens(self) -> None:
        number = identities.safety_number(ALICE.public, BOB.public)
        self.assertEqual(number, identities.safety_number(BOB.public, ALICE.public))
        self.assertRegex(number, r"\A[0-9]{5}( [0-9]{5}){11}\Z")
        self.assertNotEqual(number, identities.safety_number(ALICE.public, person("carol").public))

    def test_no_private_key_is_shown(self) -> None:
        shown = repr(ALICE) + str(ALICE) + repr(ALICE.dh)
        self.assertNotIn(ALICE.private_bytes()[:32].hex(), shown)
        self.assertIn(ALICE.id, shown)


class Links(SynchronousTestCase):
    def test_come_back_from_their_text(self) -> None:
        addresses = (Address("relay.example", 7467), Address("::1", 1), Address("192.0.2.1", 65_535))
        for link in (
            ServerLink(addresses, ALICE.id),
            ServerLink(addresses[:1], ALICE.id, "to.ken~_-1", tls=False),
            PersonLink(addresses, ALICE.id, "bob", BOB.id),
            PersonLink(addresses[1:2], ALICE.id, "a b/ü%?#☺", BOB.id, tls=False),
        ):
            self.assertEqual(parse_link(str(link)), link)
            self.assertEqual(parse_link(f"  {link}\n"), link)

    def test_read_as_the_protocol_writes_them(self) -> None:
        link = identities.parse_server_link(f"sims://a.example:1,[2001:db8::2]:22/{ALICE.id}?invite=TOKEN")
        self.assertEqual(link.addresses, (Address("a.example", 1), Address("2001:db8::2", 22)))
        self.assertEqual((link.id, link.invite, link.tls), (ALICE.id, "TOKEN", True))
        person_link = identities.parse_person_link(f"SIMS+TCP://localhost/{ALICE.id}/J%C3%B6rg%2f/{BOB.id}")
        self.assertEqual((person_link.name, person_link.id, person_link.tls), ("Jörg/", BOB.id, False))
        self.assertEqual(person_link.addresses, (Address("localhost", 7467),))

    def test_one_kind_is_not_the_other(self) -> None:
        refusal(PeerError, identities.parse_person_link, f"sims://h:1/{ALICE.id}")
        refusal(PeerError, identities.parse_server_link, f"sims://h:1/{ALICE.id}/bob/{BOB.id}")

    def test_everything_else_is_refused(self) -> None:
        good = f"h:1/{ALICE.id}"
        for text in (
            *(
                "",
                "sims://",
                "sims:/" + good,
                "http://" + good,
                good,
                "sims://h:1",
                "sims://h:1/",
                "sims:///" + ALICE.id,
            ),
            *(f"sims://{good}{tail}" for tail in ("/", "x", "/bob", "/bob/x", "?", "?invite=", "?x=1", "?invite=a b")),
            *(f"sims://{good}{tail}" for tail in ("?invite=%41", f"//{BOB.id}", f"/b/{BOB.id}?invite=x", "#x")),
            *(f"sims://{good}/{name}/{BOB.id}" for name in ("%", "%4", "%zz", "%ff", "a b", "%00", "x" * 33, "%0a")),
            *(
                f"sims://{where}/{ALICE.id}"
                for where in ("h:0", "h:65536", "h:", "h:x", "h:1:2", "::1:2", "[::1", "[]:1")
            ),
            *(
                f"sims://{where}/{ALICE.id}"
                for where in ("h:1,", ",h:1", "[x]:1", "[::1]x", "-h:1", "ü:1", "h:\u0661", "a@h:1")
            ),
            f"sims://{','.join(['h:1'] * 9)}/{ALICE.id}",
            f"sims://h:1/{ALICE.id.upper()}",
            f"sims://h:1/{ALICE.id[:-1]}1",
            "sims://" + "h" * 3000,
        ):
            with self.subTest(text[:80]):
                self.assertIs(refusal(PeerError, parse_link, text).code, Code.MALFORMED)

    def test_no_invitation_is_shown(self) -> None:
        link = parse_link(f"sims://h:1/{ALICE.id}?invite=MARK")
        self.assertNotIn("MARK", repr(link))
        self.assertNotIn("MARK", str(refusal(PeerError, parse_link, f"sims://h:1/x?invite=MARK{ALICE.id}")))


class Bundles(SynchronousTestCase):
    def setUp(self) -> None:
        self.own = OwnPrekeys()
        self.entropy = Counting("bundles")
        self.bundle = self.own.make_bundle(BOB, "bob", SPECS, now=NOW, entropy=self.entropy)
        self.key = self.own.make_one_time_keys(BOB, 1, now=NOW, entropy=self.entropy)[0]

    def changed(self, **changes: Any) -> Bundle:
        """The bundle with other fields, under the old signature."""
        return msgspec.structs.replace(self.bundle, **changes)

    def test_is_whose_it_says(self) -> None:
        self.assertEqual(check_bundle(self.bundle, now=NOW), BOB.id)
        self.assertEqual(check_bundle(self.bundle, now=NOW, expected=BOB.id, before=seen(self.bundle)), BOB.id)
        check_one_time_key(self.key, self.bundle.identity)
        again = payloads.decode(Bundle, payloads.encode(self.bundle))
        self.assertEqual(again, self.bundle)

    def test_every_changed_field_is_refused(self) -> None:
        prekey, kem = self.bundle.prekey, self.bundle.kem_prekey
        for changed in (
            self.changed(sign=ALICE.public.sign),
            self.changed(dh=ALICE.public.dh),
            self.changed(name="rob"),
            self.changed(specs=SPECS[:1]),
            self.changed(specs=SPECS[::-1]),
            self.changed(version=self.bundle.version + 1),
            self.changed(expires=self.bundle.expires + 1),
            self.changed(prekey=msgspec.structs.replace(prekey, key_id=9)),
            self.changed(prekey=msgspec.structs.replace(prekey, public=flipped(prekey.public, 0))),
            self.changed(kem_prekey=msgspec.structs.replace(kem, key_id=9)),
            self.changed(kem_prekey=msgspec.structs.replace(kem, public=flipped(kem.public, 7))),
            self.changed(signature=flipped(self.bundle.signature, 0)),
        ):
            error = refusal(PeerError, lambda changed=changed: check_bundle(changed, now=NOW))
            self.assertIs(error.code, Code.NOT_AUTHENTICATED)
        for field in ("public", "kem_public", "signature"):
            value = flipped(getattr(self.key, field), 5)
            key = msgspec.structs.replace(self.key, **{field: value})
            refusal(PeerError, check_one_time_key, key, BOB.public)
        refusal(PeerError, check_one_time_key, msgspec.structs.replace(self.key, key_id=77), BOB.public)
        refusal(PeerError, check_one_time_key, self.key, ALICE.public)

    def test_a_number_that_does_not_fit_is_refused(self) -> None:
        raw = msgspec.to_builtins(self.bundle, builtin_types=(bytes,))
        for field in ("version", "expires"):
            bundle = payloads.convert(Bundle, {**raw, field: 2**64})
            error = refusal(PeerError, lambda bundle=bundle: check_bundle(bundle, now=NOW))
            self.assertIs(error.code, Code.MALFORMED)

    def test_another_id_is_refused(self) -> None:
        error = refusal(PeerError, lambda: check_bundle(self.bundle, now=NOW, expected=ALICE.id))
        self.assertIs(error.code, Code.NOT_AUTHENTICATED)

    def test_expires_by_the_own_clock(self) -> None:
        check_bundle(self.bundle, now=NOW + LIFE - 1)
        self.assertIs(refusal(PeerError, lambda: check_bundle(self.bundle, now=NOW + LIFE)).code, Code.POLICY)

    def test_a_version_never_goes_back_and_has_one_form(self) -> None:
        newer = self.own.make_bundle(BOB, "bob", SPECS, now=NOW, entropy=self.entropy)
        self.assertEqual(newer.version, self.bundle.version + 1)
        check_bundle(newer, now=NOW, before=seen(self.bundle))
        for before in (seen(newer), msgspec.structs.replace(seen(self.bundle), digest=bytes(32))):
            error = refusal(PeerError, lambda before=before: check_bundle(self.bundle, now=NOW, before=before))
            self.assertIs(error.code, Code.POLICY)

    def test_a_restored_store_is_not_locked_out(self) -> None:
        saved = self.own.copy()
        newest = [self.own.make_bundle(BOB, "bob", SPECS, now=NOW, entropy=self.entropy) for _ in range(3)][-1]
        self.assertEqual(newest.version, NOW + 3)
        self.assertEqual(self.remade(saved, newest).version, NOW + 4)
        # Expired or not, it was one's own; and an older one than is stored changes nothing.
        self.assertEqual(self.remade(saved, newest, NOW + 5 - LIFE).version, NOW + 4)
        self.assertEqual(self.remade(self.own, self.bundle).version, NOW + 4)
        self.assertEqual(self.remade(OwnPrekeys(), newest, newest.expires + 5).version, newest.expires + 5)
        self.assertEqual(self.remade(saved, self.changed(expires=NOW - 1)).version, NOW + 1)

    def remade(self, own: OwnPrekeys, published: Bundle | None, now: int = NOW) -> Bundle:
        """The next bundle, where the server has this one."""
        return own.copy().make_bundle(BOB, "bob", SPECS, now=now, entropy=self.entropy, published=published)

    def test_a_server_does_not_choose_the_version(self) -> None:
        high = 2**64 - 2
        foreign = OwnPrekeys()._make(ALICE, "bob", SPECS, high, NOW + LIFE, self.entropy)
        for claimed in (
            self.changed(version=high),
            self.changed(version=NOW + 9),
            foreign,
            self.changed(sign=bytes(32)),
        ):
            self.assertEqual(self.remade(self.own, claimed).version, self.bundle.version + 1)
        # Even if one has signed it: something is wrong with the clock.
        ahead = OwnPrekeys()._make(BOB, "bob", SPECS, NOW + AHEAD + 1, NOW + LIFE, self.entropy)
        before = self.own.dump()
        error = refusal(
            LocalError, lambda: self.own.make_bundle(BOB, "bob", SPECS, now=NOW, entropy=self.entropy, published=ahead)
        )
        self.assertIs(error.code, Code.POLICY)
        self.assertEqual(self.own.dump(), before)
        self.assertEqual(self.remade(self.own, ahead, NOW + 1).version, NOW + AHEAD + 2)

    def test_the_greatest_version_outlives_its_bundle(self) -> None:
        self.own.make_bundle(BOB, "bob", SPECS, now=NOW, entropy=self.entropy)
        self.own.forget(NOW + 1000 * LIFE, NOW + 1000 * LIFE)
        self.assertIsNone(self.own.bundle)
        again = OwnPrekeys.load(self.own.dump())
        self.assertEqual(again.make_bundle(BOB, "bob", SPECS, now=NOW, entropy=self.entropy).version, NOW + 2)

    def test_numbers_are_new_after_a_restored_copy(self) -> None:
        saved = OwnPrekeys.load(self.own.dump())
        lost = self.own.make_one_time_keys(BOB, 5, now=NOW, entropy=self.entropy)
        saved.restored(self.entropy)
        made = saved.make_one_time_keys(BOB, 5, now=NOW, entropy=self.entropy)
        self.assertFalse({key.key_id for key in lost} & {key.key_id for key in made})
        self.assertEqual(OwnPrekeys.load(saved.dump()).dump(), saved.dump())

        class High(Counting):
            """Draws the highest numbers."""

            def octets(self, size: int) -> bytes:
                return b"\xff" * size if size == 4 else super().octets(size)

        own = OwnPrekeys.load(self.own.dump())
        own.restored(High())
        before = own.one_time_ids
        keys = own.make_one_time_keys(BOB, 3, now=NOW, entropy=self.entropy)
        self.assertEqual([key.key_id for key in keys], [9, 10, 11])  # 1 to 8 are taken
        self.assertEqual(own.one_time_ids, before | {9, 10, 11})
        own._state = msgspec.structs.replace(own._state, next_id=2**32 - 2)
        bundle = own.make_bundle(BOB, "bob", SPECS, now=NOW, entropy=self.entropy)
        self.assertEqual((bundle.prekey.key_id, bundle.kem_prekey.key_id), (2**32 - 2, 2**32 - 1))
        own.make_bundle(BOB, "bob", SPECS, now=NOW, entropy=self.entropy)
        self.assertEqual(OwnPrekeys.load(own.dump()).dump(), own.dump())

    def test_one_time_keys_go_when_newer_ones_have_been_there_for_long(self) -> None:
        first = self.own.one_time_ids
        self.own.forget(NOW + 5 * LIFE, NOW + 5 * LIFE)
        self.assertEqual(self.own.one_time_ids, first)
        later = NOW + LIFE + GRACE
        second = {key.key_id for key in self.own.make_one_time_keys(BOB, 2, now=later, entropy=self.entropy)}
        for now, emptied in ((later - 1, later), (later, later - 1)):
            self.own.forget(now, emptied)
            self.assertEqual(self.own.one_time_ids, first | second)
        self.own.forget(later, later)
        self.assertEqual(self.own.one_time_ids, second)

    def test_a_copy_goes_its_own_way(self) -> None:
        before = self.own.dump()
        copy = self.own.copy()
        copy.make_one_time_keys(BOB, 1, now=NOW, entropy=self.entropy)
        copy.make_bundle(BOB, "bob", SPECS, now=NOW, entropy=self.entropy)
        copy.spend(1, 3, b"a" * 32)
        copy.restored(self.entropy)
        copy.forget(NOW + 5 * LIFE, NOW + 5 * LIFE)
        self.assertEqual(self.own.dump(), before)
        self.own.become(copy)
        self.assertEqual(self.own.dump(), copy.dump())

    def test_a_kem_key_that_cannot_be_is_refused_though_it_is_signed(self) -> None:
        broken = b"\xff" * 1184
        bundle = self.changed(kem_prekey=msgspec.structs.replace(self.bundle.kem_prekey, public=broken))
        bundle = msgspec.structs.replace(bundle, signature=BOB.sign("bundle", bundle.signed()))
        self.assertIs(refusal(PeerError, lambda: check_bundle(bundle, now=NOW)).code, Code.MALFORMED)
        key = msgspec.structs.replace(self.key, kem_public=broken)
        key = msgspec.structs.replace(key, signature=BOB.sign("one-time prekey", key.signed(BOB.id)))
        self.assertIs(refusal(PeerError, check_one_time_key, key, BOB.public).code, Code.MALFORMED)

    def test_an_a1_is_remembered_as_long_as_the_bundle_it_was_for(self) -> None:
        later = NOW + 7 * 86_400
        newer = self.own.make_bundle(BOB, "bob", SPECS, now=later, entropy=self.entropy)
        numbers = newer.prekey.key_id, newer.kem_prekey.key_id, None
        self.own.spend(newer.prekey.key_id, None, b"a" * 32)
        self.own.spend(self.bundle.prekey.key_id, None, b"b" * 32)
        self.assertEqual([list(one.used) for one in self.own._state.generations], [[b"b" * 32], [b"a" * 32]])
        refusal(PeerError, self.own.find, *numbers, b"b" * 32)
        gone = self.bundle.expires + GRACE
        self.own.forget(gone, gone)
        refusal(PeerError, self.own.find, *numbers, b"a" * 32)
        self.own.find(*numbers, b"b" * 32)

    def test_lives_for_thirty_days_and_lists_a_spec(self) -> None:
        for specs, expires in ((SPECS, NOW + LIFE + 1), (SPECS, NOW), ((), NOW + 1)):
            error = refusal(
                LocalError,
                lambda specs=specs, expires=expires: self.own.make_bundle(
                    BOB, "bob", specs, now=NOW, entropy=self.entropy, expires=expires
                ),
            )
            self.assertIs(error.code, Code.POLICY)
        self.assertIs(refusal(LocalError, self.keys, 41).code, Code.TOO_LARGE)

    def keys(self, count: int) -> object:
        """So many one-time keys."""
        return self.own.make_one_time_keys(BOB, count, now=NOW, entropy=self.entropy)

    def test_private_halves_are_kept_until_nothing_can_need_them(self) -> None:
        prekey, kem = self.bundle.prekey.key_id, self.bundle.kem_prekey.key_id
        gone = self.bundle.expires + GRACE
        for now, emptied in ((gone - 1, gone - 1), (gone + 9, gone - 1)):
            self.own.forget(now, emptied)
            self.own.find(prekey, kem, None, b"a" * 32)
        self.own.forget(gone, gone)
        refusal(PeerError, self.own.find, prekey, kem, None, b"a" * 32)

    def test_what_was_used_is_refused(self) -> None:
        prekey, kem, one_time = self.bundle.prekey.key_id, self.bundle.kem_prekey.key_id, self.key.key_id
        self.own.find(prekey, None, one_time, b"a" * 32)
        self.own.spend(prekey, one_time, b"a" * 32)
        for names in ((None, one_time, b"b" * 32), (kem, None, b"a" * 32), (kem, one_time, b"b" * 32)):
            refusal(PeerError, self.own.find, prekey, *names)
        refusal(PeerError, self.own.find, prekey, None, None, b"b" * 32)
        refusal(PeerError, self.own.find, 99, kem, None, b"b" * 32)
        restored = OwnPrekeys.load(self.own.dump())
        self.assertEqual(restored.dump(), self.own.dump())
        refusal(PeerError, restored.find, prekey, kem, None, b"a" * 32)
        self.assertEqual(restored.one_time_ids, frozenset())

    def test_decoding_is_total(self) -> None:
        value: object
        packed = payloads.encode(self.key)
        for data in (b"", packed[:-1], packed + b"\0", b"\xc1", b"\x81" * 10_000, b"\x90", b"\xff"):
            self.assertIs(refusal(PeerError, payloads.decode, OneTimeKey, data).code, Code.MALFORMED)
            refusal(PeerError, OwnPrekeys.load, data)
        for value in (None, 1, [], {"key_id": -1}, {"key_id": 1, "public": "x" * 32}):
            refusal(PeerError, payloads.convert, OneTimeKey, value)
        dumped = msgspec.msgpack.decode(self.own.dump())
        refusal(PeerError, OwnPrekeys.load, msgspec.msgpack.encode({**dumped, "version": 2}))

    def test_no_private_key_is_shown(self) -> None:
        self.assertEqual(repr(self.own), "<1 bundles, 1 one-time keys>")
        self.assertNotIn("b'", repr(self.own.find(1, 2, None, bytes(32))))
