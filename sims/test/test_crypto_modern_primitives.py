"""The modern primitives at the boundary: published vectors, and everything that a peer could send instead of a key."""

from __future__ import annotations

import hmac

from twisted.trial.unittest import SynchronousTestCase

from sims.crypto import notation, primitives
from sims.crypto.primitives import AeadName, KemKey, SystemEntropy, X25519Key
from sims.errors import Code, LocalError, PeerError
from sims.test.builders import flipped, refusal
from sims.test.modern_builders import Counting

PRIME = 2**255 - 19
#: Points of small order on Curve25519 (RFC 7748, 7; the list of cr.yp.to/ecdh.html), some in a second spelling.
X25519_SMALL = [
    *(number.to_bytes(32, "little") for number in (0, 1, PRIME - 1, PRIME, PRIME + 1)),
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
]
ED25519_SMALL = [
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
]
AEADS: tuple[AeadName, ...] = ("AES256_GCM", "CHACHA20_POLY1305")


class Exchange(SynchronousTestCase):
    def test_rfc_7748(self) -> None:
        bob = X25519Key(bytes.fromhex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb"))
        self.assertEqual(bob.public.hex(), "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f")
        alice = bytes.fromhex("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a")
        shared = "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742"
        self.assertEqual(bob.exchange(alice).hex(), shared)

    def test_an_all_zero_secret_is_refused(self) -> None:
        key = X25519Key(bytes(range(32)))
        for public in X25519_SMALL:
            for high in (0, 0x80):
                error = refusal(PeerError, key.exchange, public[:31] + bytes([public[31] | high]))
                self.assertIs(error.code, Code.MALFORMED)

    def test_another_size_is_refused(self) -> None:
        key = X25519Key(bytes(range(32)))
        for size in (0, 31, 33, 64):
            refusal(PeerError, key.exchange, b"\x09" * size)
            self.assertRaises(ValueError, X25519Key, b"\x09" * size)

    def test_no_key_is_shown(self) -> None:
        key = X25519Key(b"MARK" * 8)
        self.assertNotIn("MARK", repr(key))
        self.assertNotIn(key.private.hex(), repr(key))


class Encapsulation(SynchronousTestCase):
    def test_both_ends_have_the_same_secret(self) -> None:
        key = KemKey(bytes(range(64)))
        self.assertEqual((len(key.seed), len(key.public)), (64, 1184))
        for entropy in (SystemEntropy(), Counting()):
            ciphertext, secret = entropy.encapsulate(key.public)
            self.assertEqual((len(ciphertext), len(secret)), (1088, 32))
            self.assertEqual(key.decapsulate(ciphertext), secret)
            self.assertNotEqual(key.decapsulate(flipped(ciphertext, 500)), secret)

    def test_truncated_and_oversized_ciphertexts_are_refused(self) -> None:
        key = KemKey(bytes(range(64)))
        ciphertext, _ = primitives.encapsulate(key.public)
        for data in (b"", ciphertext[:-1], ciphertext + b"\0", ciphertext[:32], ciphertext * 2):
            self.assertIs(refusal(PeerError, key.decapsulate, data).code, Code.MALFORMED)

    def test_what_is_no_key_is_refused(self) -> None:
        public = KemKey(bytes(range(64))).public
        primitives.check_kem_public(public)
        # b"\xff\xff\xff" is two coefficients of 4095, which are not reduced modulo 3329 (FIPS 203, 7.2).
        for data in (b"", public[:-1], public + b"\0", b"\xff\xff\xff" + public[3:], b"\xff" * 1184):
            self.assertIs(refusal(PeerError, primitives.encapsulate, data).code, Code.MALFORMED)
            refusal(PeerError, primitives.check_kem_public, data)

    def test_no_key_is_shown(self) -> None:
        key = KemKey(b"MARK" * 16)
        given = primitives.encapsulate(key.public)
        for shown in (repr(key), repr(given), str(given)):
            self.assertNotIn("MARK", shown)
            self.assertNotIn(repr(given.secret)[2:-1], shown)

    def test_a_seed_has_one_size(self) -> None:
        for size in (0, 32, 63, 65):
            self.assertRaises(ValueError, KemKey, bytes(size))


class Signatures(SynchronousTestCase):
    def test_rfc_8032(self) -> None:
        private = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
        public = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")
        self.assertEqual(primitives.Ed25519Key(private).public, public)
        signature = primitives.Ed25519Key(private).sign(b"")
        self.assertEqual(
            signature.hex(),
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46b"
            "d25bf5f0595bbe24655141438e7a100b",
        )
        primitives.ed25519_verify(public, signature, b"")
        for where in (0, 31, 32, 63):
            error = refusal(PeerError, primitives.ed25519_verify, public, flipped(signature, where), b"")
            self.assertIs(error.code, Code.NOT_AUTHENTICATED)
        # The same signature with another S, which is that one and the order of the group, is not the one form.
        order = 2**252 + 27742317777372353535851937790883648493
        other = signature[:32] + (int.from_bytes(signature[32:], "little") + order).to_bytes(32, "little")
        for wrong in (other, b"", signature[:63], signature + b"\0"):
            refusal(PeerError, primitives.ed25519_verify, public, wrong, b"")

    def test_small_order_and_second_spellings_are_refused(self) -> None:
        for text in ED25519_SMALL:
            for high in (0, 0x80):
                key = bytes.fromhex(text)
                key = key[:31] + bytes([key[31] | high])
                # Under the neutral element the signature of R = neutral, S = 0 verifies for every message.
                for signature in (bytes(64), b"\x01" + bytes(63)):
                    error = refusal(PeerError, primitives.ed25519_verify, key, signature, b"any")
                    self.assertIs(error.code, Code.MALFORMED)
        for y in range(PRIME, 2**255):
            refusal(PeerError, primitives.check_ed25519_public, y.to_bytes(32, "little"))

    def test_what_is_no_key_is_refused(self) -> None:
        for key in (b"", bytes(31), bytes(33)):
            self.assertIs(refusal(PeerError, primitives.check_ed25519_public, key).code, Code.MALFORMED)
        # y = 2 is not on the curve: no signature is of that key.
        for signature in (bytes(64), b"\x01" + bytes(63)):
            refusal(PeerError, primitives.ed25519_verify, b"\x02" + bytes(31), signature, b"any")


class Boxes(SynchronousTestCase):
    def test_what_was_not_sealed_so_does_not_open(self) -> None:
        key, nonce, ad = bytes(range(32)), bytes(12), b"ad"
        for name in AEADS:
            box = primitives.aead_seal(name, key, nonce, ad, b"text")
            self.assertEqual(len(box), 4 + primitives.TAG_SIZE)
            self.assertEqual(primitives.aead_open(name, key, nonce, ad, box), b"text")
            for arguments in (
                (name, flipped(key, 0), nonce, ad, box),
                (name, key, flipped(nonce, 11), ad, box),
                (name, key, nonce, b"", box),
                (name, key, nonce, ad, box[:-1]),
                (name, key, nonce, ad, b""),
                (name, key, nonce, ad, box + b"\0"),
                *((name, key, nonce, ad, flipped(box, place)) for place in range(len(box))),
            ):
                error = refusal(PeerError, primitives.aead_open, *arguments)
                self.assertIs(error.code, Code.NOT_AUTHENTICATED)


class Derivation(SynchronousTestCase):
    def test_rfc_5869(self) -> None:
        prk = primitives.hkdf_extract("sha256", bytes(range(13)), b"\x0b" * 22)
        self.assertEqual(prk.hex(), "077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5")
        found = primitives.hkdf_expand("sha256", prk, bytes(range(0xF0, 0xFA)), 42)
        self.assertEqual(
            found.hex(), "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"
        )
        empty = primitives.hkdf_extract("sha256", b"", b"\x0b" * 22)
        self.assertEqual(empty, primitives.hkdf_extract("sha256", bytes(32), b"\x0b" * 22))

    def test_as_the_other_implementation(self) -> None:
        for size in (1, 32, 33, 160, 255 * 32):
            self.assertEqual(
                primitives.hkdf_sha256(b"secret", b"salt", b"info", size),
                primitives.hkdf_expand("sha256", primitives.hkdf_extract("sha256", b"salt", b"secret"), b"info", size),
            )


class Mac(SynchronousTestCase):
    def test_as_the_library_s_own_for_keys_around_the_block_s_size(self) -> None:
        hashes: tuple[primitives.HashName, ...] = ("sha256", "sha384")
        for name in hashes:
            for size in (0, 1, 32, 63, 64, 65, 127, 128, 129, 300):
                for data in (b"", bytes(range(256)) * 3):
                    key = bytes(range(255)) * 2
                    found = primitives.mac(key[:size], data, name)
                    self.assertEqual(found, hmac.digest(key[:size], data, name), (name, size))


class Padding(SynchronousTestCase):
    def test_there_is_one_form(self) -> None:
        for kind, largest in (("content", 32_768), ("box", 65_536)):
            for size in (0, 1, 254, 255, 256, 511, 512, 1023, 1024, 32_766, 32_767, largest - 1):
                for filler in (b"\0", b"\x80", b"a"):
                    padded = notation.pad(kind, filler * size)  # type: ignore[arg-type]
                    self.assertEqual(notation.unpad(kind, padded), filler * size)  # type: ignore[arg-type]
                    refusal(PeerError, notation.unpad, kind, padded + bytes(len(padded)))
                    refusal(PeerError, notation.unpad, kind, padded[:-1])
                    refusal(PeerError, notation.unpad, kind, padded[:-1] + b"\x01")
            for size in (largest, largest + 1, 2 * largest):
                self.assertIs(refusal(LocalError, notation.pad, kind, bytes(size)).code, Code.TOO_LARGE)
