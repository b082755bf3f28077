"""Tests of :mod:`sims.crypto.primitives`: published vectors, and the one spelling of a key."""

from __future__ import annotations

from base64 import b64encode
from typing import Literal

from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_public_key,
)
from twisted.trial.unittest import SynchronousTestCase

from sims.crypto import primitives
from sims.crypto.primitives import PEM_SIZE, P384PrivateKey, SystemEntropy
from sims.errors import Code, PeerError
from sims.test.builders import CountingEntropy, flipped, refusal
from sims.test.foreign_keys import foreign_keys, spki


class Spellings(SynchronousTestCase):
    def test_a_public_key_has_the_pem_text_of_every_other_program(self) -> None:
        for key in (private.public_key() for private in some_keys()):
            pem = primitives.p384_to_pem(key)
            self.assertEqual(pem, spki(key))
            self.assertEqual(len(pem), PEM_SIZE)
            self.assertEqual(len(b64encode(pem)), 288)

    def test_a_public_key_comes_back_from_its_text(self) -> None:
        for key in (private.public_key() for private in some_keys()):
            found, point = primitives.p384_from_pem(primitives.p384_to_pem(key))
            self.assertEqual(found.public_numbers(), key.public_numbers())
            self.assertEqual(point, primitives.p384_point(key))
            self.assertEqual(point, key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint))
            self.assertEqual(len(point), 97)

    def test_every_other_text_is_refused(self) -> None:
        for what, pem in foreign_keys().items():
            try:
                error = refusal(PeerError, primitives.p384_from_pem, pem)
            except AssertionError:
                self.fail(f"taken: {what}")
            self.assertIs(error.code, Code.MALFORMED, what)

    def test_some_refused_texts_are_keys_to_other_programs(self) -> None:
        # Or the test above would show less than it seems to.
        found = foreign_keys()
        for what in ("secp256r1", "secp521r1", "a compressed point", "CRLF", "a single line", "76 columns"):
            load_pem_public_key(found[what])

    def test_every_flipped_bit_of_a_text_is_refused(self) -> None:
        pem = primitives.p384_to_pem(CountingEntropy("flip").p384().public_key())
        for position in range(PEM_SIZE):
            for bit in range(8):
                refusal(PeerError, primitives.p384_from_pem, flipped(pem, position, bit))

    def test_the_refusal_shows_nothing_of_the_text(self) -> None:
        for pem in (b"MARK", b"-----BEGIN PUBLIC KEY-----\n" + b"MARK" * 41 + b"\n-----END PUBLIC KEY-----\n"):
            self.assertNotIn("MARK", str(refusal(PeerError, primitives.p384_from_pem, pem)))


class PrivateKeys(SynchronousTestCase):
    def test_come_back_from_their_text(self) -> None:
        for key in some_keys():
            found = primitives.p384_private_from_pem(primitives.p384_private_to_pem(key))
            self.assertEqual(found.private_numbers(), key.private_numbers())

    def test_of_another_kind_are_refused(self) -> None:
        for key in (ec.derive_private_key(7, ec.SECP256R1()), ed25519.Ed25519PrivateKey.from_private_bytes(bytes(32))):
            pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            self.assertRaises(ValueError, primitives.p384_private_from_pem, pem)
        self.assertRaises(ValueError, primitives.p384_private_from_pem, b"")


class Agreement(SynchronousTestCase):
    def test_both_ends_have_the_same_secret(self) -> None:
        ours, theirs = some_keys()[:2]
        shared = primitives.p384_exchange(ours, theirs.public_key())
        self.assertEqual(shared, primitives.p384_exchange(theirs, ours.public_key()))
        self.assertEqual(len(shared), 48)

    def test_nist_cavs_ecc_cdh_p384_count_0(self) -> None:
        private = ec.derive_private_key(
            0x3CC3122A68F0D95027AD38C067916BA0EB8C38894D22E1B15618B6818A661774AD463B205DA88CF699AB4D43C9CF98A1,
            ec.SECP384R1(),
        )
        public = ec.EllipticCurvePublicNumbers(
            0xA7C76B970C3B5FE8B05D2838AE04AB47697B9EAF52E764592EFDA27FE7513272734466B400091ADBF2D68C58E0C50066,
            0xAC68F19F2E1CB879AED43A9969B91A0839C4C38A49749B661EFEDF243451915ED0905A32B060992B468C64766FC8437A,
            ec.SECP384R1(),
        ).public_key()
        self.assertEqual(
            primitives.p384_exchange(private, public).hex(),
            "5f9d29dc5e31a163060356213669c8ce132e22f57c9a04f40ba7fcead493b457e5621e766c40a2e3d4d6a04b25e533f1",
        )

    def test_the_secret_is_the_x_coordinate_of_48_bytes_even_if_it_begins_with_a_zero(self) -> None:
        private = ec.derive_private_key(1, ec.SECP384R1())
        found = next(
            key
            for key in (ec.derive_private_key(number, ec.SECP384R1()) for number in range(2, 2000))
            if primitives.p384_point(key.public_key())[1] == 0
        )
        shared = primitives.p384_exchange(private, found.public_key())
        self.assertEqual(shared, primitives.p384_point(found.public_key())[1:49])
        self.assertEqual((len(shared), shared[0]), (48, 0))


class Derivation(SynchronousTestCase):
    def test_rfc_5869_test_case_1(self) -> None:
        found = primitives.hkdf_sha256(b"\x0b" * 22, bytes(range(13)), bytes(range(0xF0, 0xFA)), 42)
        self.assertEqual(
            found.hex(), "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"
        )

    def test_rfc_5869_test_case_2(self) -> None:
        found = primitives.hkdf_sha256(bytes(range(0x50)), bytes(range(0x60, 0xB0)), bytes(range(0xB0, 0x100)), 82)
        self.assertEqual(
            found.hex(),
            "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c59045a99cac7827271cb41c65e590e09"
            "da3275600c2f09b8367793a9aca3db71cc30c58179ec3e87c14c01d5c1f3434f1d87",
        )


class Mac(SynchronousTestCase):
    def test_rfc_4231_test_case_2(self) -> None:
        data = b"what do ya want for nothing?"
        self.assertEqual(
            primitives.mac(b"Jefe", data, "sha256").hex(),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
        )
        self.assertEqual(
            primitives.mac(b"Jefe", data, "sha384").hex(),
            "af45d2e376484031617f78d2b58a6b1b9c7ef464f5a01b47e42ec3736322445e8e2240ca5e69e2c78b3239ecfab21649",
        )

    def test_compares_all_of_both(self) -> None:
        tag = primitives.mac(b"key", b"data", "sha256")
        self.assertTrue(primitives.same(tag, bytes(tag)))
        self.assertFalse(primitives.same(tag, tag[:-1]))
        self.assertFalse(primitives.same(tag, b""))
        for position in range(len(tag)):
            self.assertFalse(primitives.same(tag, flipped(tag, position)))


class Stream(SynchronousTestCase):
    # NIST SP 800-38A, F.5.5 and F.4.5, with the four blocks of plaintext that all its examples share.
    KEY = bytes.fromhex("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4")
    PLAINTEXT = bytes.fromhex(
        "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51"
        "30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710"
    )
    CTR: tuple[Literal["CTR", "OFB"], bytes, str] = (
        "CTR",
        bytes.fromhex("f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff"),
        "601ec313775789a5b7a7f504bbf3d228f443e3ca4d62b59aca84e990cacaf5c5"
        "2b0930daa23de94ce87017ba2d84988ddfc9c58db67aada613c2dd08457941a6",
    )
    OFB: tuple[Literal["CTR", "OFB"], bytes, str] = (
        "OFB",
        bytes(range(16)),
        "dc7e84bfda79164b7ecd8486985d38604febdc6740d20b3ac88f6ad82a4fb08d"
        "71ab47a086e86eedf39d1c5bba97c4080126141d67f37be8538f5a8be740e484",
    )

    def test_ctr_aes_256_of_sp_800_38a(self) -> None:
        mode, iv, ciphertext = self.CTR
        self.assertEqual(primitives.aes_stream(self.KEY, iv, mode, self.PLAINTEXT).hex(), ciphertext)
        self.assertEqual(primitives.aes_stream(self.KEY, iv, mode, bytes.fromhex(ciphertext)), self.PLAINTEXT)

    def test_ofb_aes_256_of_sp_800_38a(self) -> None:
        mode, iv, ciphertext = self.OFB
        self.assertEqual(primitives.aes_stream(self.KEY, iv, mode, self.PLAINTEXT).hex(), ciphertext)
        self.assertEqual(primitives.aes_stream(self.KEY, iv, mode, bytes.fromhex(ciphertext)), self.PLAINTEXT)

    def test_any_length_is_as_long_as_it_was(self) -> None:
        for mode, iv, ciphertext in (self.CTR, self.OFB):
            for size in range(len(self.PLAINTEXT) + 1):
                found = primitives.aes_stream(self.KEY, iv, mode, self.PLAINTEXT[:size])
                self.assertEqual(found, bytes.fromhex(ciphertext)[:size])


class Randomness(SynchronousTestCase):
    def test_is_as_long_as_asked_for_and_never_the_same(self) -> None:
        entropy = SystemEntropy()
        self.assertEqual([len(entropy.octets(size)) for size in (0, 1, 16, 32, 100)], [0, 1, 16, 32, 100])
        self.assertEqual(len({entropy.octets(16) for _ in range(50)}), 50)

    def test_makes_keys_of_the_curve(self) -> None:
        keys = [SystemEntropy().p384() for _ in range(3)]
        self.assertEqual({key.curve.name for key in keys}, {"secp384r1"})
        self.assertEqual(len({key.private_numbers().private_value for key in keys}), 3)

    def test_of_the_tests_is_the_same_in_every_run(self) -> None:
        first, second, other = CountingEntropy("x"), CountingEntropy("x"), CountingEntropy("y")
        self.assertEqual(first.octets(100), second.octets(100))
        self.assertEqual(first.p384().private_numbers(), second.p384().private_numbers())
        self.assertNotEqual(first.octets(32), first.octets(32))
        self.assertNotEqual(other.octets(100), CountingEntropy("x").octets(100))


def some_keys() -> list[P384PrivateKey]:
    """A few private keys."""
    entropy = CountingEntropy("keys")
    return [entropy.p384() for _ in range(5)]
