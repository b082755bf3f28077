"""Published vectors at our boundary, from PyPI's ``cryptography-vectors``: of RFCs, NIST and other libraries.

What is in that package and touches :mod:`sims.crypto.primitives` is here, of the long files a part. Small orders,
all-zero secrets and second spellings, which are not in it, are in :mod:`sims.test.test_crypto_modern_primitives`; what
is published of signatures is changed here to what must not verify.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Literal

from twisted.trial.unittest import SynchronousTestCase

from sims.crypto import primitives
from sims.crypto.primitives import AeadName, KemKey, X25519Key
from sims.errors import Code, PeerError
from sims.test.builders import flipped, refusal

try:
    from cryptography_vectors import open_vector_file

    NOT_INSTALLED = None
except ImportError:
    NOT_INSTALLED = "cryptography-vectors is not installed: pip install sims[test]"

#: The order of Ed25519's group.
ORDER = 2**252 + 27742317777372353535851937790883648493


def lines(name: str, *, first: int | None = None) -> Iterator[str]:
    """The lines of a file, or the first ones."""
    with open_vector_file(name, "r") as file:
        yield from (line.rstrip("\n") for line in islice(file, first))


def cases(name: str, *, first: int | None = None) -> Iterator[dict[str, str]]:
    """The cases of a file: what is named in each, in lower case, with what is said for the whole section.

    A line without a value is named with an empty one.
    """
    section: dict[str, str] = {}
    found: dict[str, str] = {}
    for line in lines(name, first=first):
        if line.startswith("#") or not line:
            continue
        key, _, value = (part.strip() for part in line.strip("[]").partition("="))
        if line.startswith("["):
            if found:
                yield section | found
            section, found = ({} if found else section) | {key.lower(): value}, {}
            continue
        if key.lower() in ("count", "len") and found:
            yield section | found
            found = {}
        found[key.lower()] = value
    if found:
        yield section | found


def octets(value: str) -> bytes:
    """What stands for bytes: hexadecimal digits, or text in quotation marks."""
    return value[1:-1].encode("ascii") if value.startswith('"') else bytes.fromhex(value)


class Case(SynchronousTestCase):
    skip = NOT_INSTALLED

    def box(self, name: AeadName, case: dict[str, str], *, holds: bool) -> None:
        """A case of an AEAD, by the names of NIST's files; what does not hold gives nothing."""
        key, nonce, ad, text = (octets(case[field]) for field in ("key", "iv", "aad", "ct"))
        box = text + octets(case["tag"])
        if holds:
            plain = octets(case["pt"])
            self.assertEqual(primitives.aead_open(name, key, nonce, ad, box), plain)
            self.assertEqual(primitives.aead_seal(name, key, nonce, ad, plain), box)
            under = primitives.aead(name, key)
            self.assertEqual(under.decrypt(nonce, under.encrypt(nonce, plain, ad), ad), plain)
        else:
            error = refusal(PeerError, primitives.aead_open, name, key, nonce, ad, box)
            self.assertIs(error.code, Code.NOT_AUTHENTICATED)
            self.assertRaises(primitives.Refused, primitives.aead(name, key).decrypt, nonce, box, ad)


class Exchange(Case):
    def test_rfc_7748(self) -> None:
        count = 0
        for case in cases("asymmetric/X25519/rfc7748.txt"):
            key = X25519Key(octets(case["input_scalar"]))
            self.assertEqual(key.exchange(octets(case["input_u"])), octets(case["output_u"]))
            count += 1
        self.assertGreaterEqual(count, 3)


class Encapsulation(Case):
    def test_ml_kem_768(self) -> None:
        """The public key of a seed, the secret of a ciphertext, and that of one that is not of this key."""
        count = 0
        for case in cases("asymmetric/MLKEM/kat_MLKEM_768.rsp", first=12 * 60):
            if "ss" not in case:
                continue
            key = KemKey(octets(case["d"]) + octets(case["z"]))
            self.assertEqual(key.public, octets(case["pk"]))
            ciphertext, secret = octets(case["ct"]), octets(case["ss"])
            self.assertEqual(key.decapsulate(ciphertext), secret)
            self.assertEqual(key.decapsulate(octets(case["ct_n"])), octets(case["ss_n"]))
            self.assertNotEqual(key.decapsulate(flipped(ciphertext, count)), secret)
            for wrong in (ciphertext[:-1], ciphertext + b"\0"):
                self.assertIs(refusal(PeerError, key.decapsulate, wrong).code, Code.MALFORMED)
            primitives.check_kem_public(key.public)
            count += 1
        self.assertGreaterEqual(count, 50)


class Signatures(Case):
    def test_ed25519(self) -> None:
        """Every eighth of the vectors of ed25519.cr.yp.to, those of RFC 8032 among them; and what is made of them."""
        count = 0
        for line in islice(lines("asymmetric/Ed25519/sign.input"), 0, None, 8):
            both, known, text, signed = (bytes.fromhex(field) for field in line.split(":")[:4])
            private, public, signature, message = both[:32], both[32:], signed[:64], text
            self.assertEqual(known, public)
            self.assertEqual(primitives.Ed25519Key(private).public, public)
            self.assertEqual(primitives.Ed25519Key(private).sign(message), signature)
            primitives.ed25519_verify(public, signature, message)
            # The second spelling of S verifies wherever S is not compared with the group's order.
            second = signature[:32] + (int.from_bytes(signature[32:], "little") + ORDER).to_bytes(32, "little")
            for wrong, what in (
                (second, message),
                (flipped(signature, count % 64, count % 8), message),
                (signature, message + b"\0"),
                (signature[:-1], message),
                (bytes(64), message),
            ):
                error = refusal(PeerError, primitives.ed25519_verify, public, wrong, what)
                self.assertIs(error.code, Code.NOT_AUTHENTICATED)
            count += 1
        self.assertGreaterEqual(count, 128)


class Boxes(Case):
    def test_aes_256_gcm(self) -> None:
        """NIST's (CAVP): of nonces of 12 bytes and tags of 16, every second to be opened, some of which must not."""
        opened = refused = 0
        for case in islice(cases("ciphers/AES/GCM/gcmDecrypt256.rsp", first=25_000), 0, None, 2):
            if (case["ivlen"], case["taglen"]) == ("96", "128"):
                holds = "fail" not in case
                self.box("AES256_GCM", case, holds=holds)
                opened, refused = opened + holds, refused + (not holds)
        self.assertGreaterEqual(opened, 80)
        self.assertGreaterEqual(refused, 40)

    def test_chacha20_poly1305(self) -> None:
        """BoringSSL's."""
        count = 0
        for case in cases("ciphers/ChaCha20Poly1305/boringssl.txt"):
            named = {"key": "key", "nonce": "iv", "ad": "aad", "in": "pt", "ct": "ct", "tag": "tag"}
            self.box(
                "CHACHA20_POLY1305", {named[key]: value for key, value in case.items() if key in named}, holds=True
            )
            count += 1
        self.assertGreaterEqual(count, 66)

    def test_chacha20_poly1305_that_must_not_open(self) -> None:
        """OpenSSL's."""
        refused = 0
        for case in cases("ciphers/ChaCha20Poly1305/openssl.txt"):
            holds = "result" not in case
            self.box("CHACHA20_POLY1305", case | {"pt": case["plaintext"], "ct": case["ciphertext"]}, holds=holds)
            refused += not holds
        self.assertGreaterEqual(refused, 1)


class Derivation(Case):
    def test_hkdf(self) -> None:
        """RFC 5869, and one of 1,200 bytes."""
        sizes = []
        for name in ("KDF/rfc-5869-HKDF-SHA256.txt", "KDF/hkdf-generated.txt"):
            for case in cases(name):
                secret, salt, info, found = (octets(case[key]) for key in ("ikm", "salt", "info", "okm"))
                size = int(case["l"])
                self.assertEqual(primitives.hkdf_sha256(secret, salt, info, size), found)
                extracted = primitives.hkdf_extract("sha256", salt, secret)
                self.assertEqual(extracted, octets(case["prk"]) if "prk" in case else extracted)
                self.assertEqual(primitives.hkdf_expand("sha256", extracted, info, size), found)
                sizes.append(size)
        self.assertEqual(sizes, [42, 82, 42, 1200])

    def test_hmac(self) -> None:
        """RFC 4231."""
        names: tuple[Literal["sha256", "sha384"], ...] = ("sha256", "sha384")
        for name in names:
            count = 0
            for case in cases(f"HMAC/rfc-4231-{name}.txt"):
                self.assertEqual(primitives.mac(octets(case["key"]), octets(case["msg"]), name), octets(case["md"]))
                count += 1
            self.assertGreaterEqual(count, 6)
