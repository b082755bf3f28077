"""Texts that look more or less like a public key and are none that may be taken."""

from __future__ import annotations

from base64 import b64encode

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, x25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from sims.crypto import primitives
from sims.crypto.primitives import PEM_SIZE
from sims.test.builders import CountingEntropy, flipped

#: What a SubjectPublicKeyInfo on secp384r1 begins with, before the 97 bytes of an uncompressed point.
PREFIX = bytes.fromhex("3076301006072a8648ce3d020106052b81040022036200")


def pem_of(der: bytes, columns: int = 64) -> bytes:
    """The PEM text of a SubjectPublicKeyInfo."""
    body = b64encode(der)
    lines = [body[start : start + columns] for start in range(0, len(body), columns)]
    return b"-----BEGIN PUBLIC KEY-----\n" + b"\n".join(lines) + b"\n-----END PUBLIC KEY-----\n"


def spki(
    key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey | x25519.X25519PublicKey,
) -> bytes:
    """The PEM text of a public key of any kind."""
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def foreign_keys() -> dict[str, bytes]:
    """PEM texts that are no secp384r1 public key in its one form."""
    private = CountingEntropy("foreign").p384()
    good = primitives.p384_to_pem(private.public_key())
    point = primitives.p384_point(private.public_key())
    x, y = point[1:49], point[49:]
    compressed = private.public_key().public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
    hybrid = bytes([6 + (y[-1] & 1)]) + x + y
    body = good.removeprefix(b"-----BEGIN PUBLIC KEY-----\n").removesuffix(b"\n-----END PUBLIC KEY-----\n")
    found = {
        "secp256r1": spki(ec.derive_private_key(7, ec.SECP256R1()).public_key()),
        "secp521r1": spki(ec.derive_private_key(7, ec.SECP521R1()).public_key()),
        "secp256k1": spki(ec.derive_private_key(7, ec.SECP256K1()).public_key()),
        "RSA": spki(rsa.RSAPublicNumbers(65537, 2**1023 + 1).public_key()),
        "Ed25519": spki(ed25519.Ed25519PrivateKey.from_private_bytes(bytes(32)).public_key()),
        "X25519": spki(x25519.X25519PrivateKey.from_private_bytes(bytes(32)).public_key()),
        "a private key": private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        "a compressed point": spki_of_point(compressed),
        "a compressed point, filled up": pem_of(PREFIX + compressed + bytes(48)),
        "a hybrid point": pem_of(PREFIX + hybrid),
        "the point at infinity": spki_of_point(b"\x00"),
        "the point at infinity, filled up": pem_of(PREFIX + bytes(97)),
        "zeros": pem_of(PREFIX + b"\x04" + bytes(96)),
        "a point beside the curve": pem_of(PREFIX + b"\x04" + x + flipped(y, -1)),
        "the coordinates exchanged": pem_of(PREFIX + b"\x04" + y + x),
        "an x beyond the field": pem_of(PREFIX + b"\x04" + b"\xff" * 48 + y),
        "a y beyond the field": pem_of(PREFIX + b"\x04" + x + b"\xff" * 48),
        "a byte too few": pem_of(PREFIX + point[:-1]),
        "a byte too many": pem_of(PREFIX + point + b"\x00"),
        "DER": PREFIX + point,
        "base64 of DER": b64encode(PREFIX + point),
        "the point": point,
        "nothing": b"",
        "zeros in place of the text": bytes(PEM_SIZE),
        "CRLF": good.replace(b"\n", b"\r\n"),
        "CR": good.replace(b"\n", b"\r"),
        "no newline at the end": good[:-1],
        "another newline at the end": good + b"\n",
        "a newline at the start": b"\n" + good,
        "a space in place of the last newline": good[:-1] + b" ",
        "a single line": good.replace(body, body.replace(b"\n", b"")),
        "76 columns": pem_of(PREFIX + point, 76),
        "63 columns": pem_of(PREFIX + point, 63),
        "65 columns": pem_of(PREFIX + point, 65),
        "70 columns": pem_of(PREFIX + point, 70),
        "a space in place of a newline": good.replace(body, body.replace(b"\n", b" ", 1)),
        "a foreign character in place of a newline": good.replace(body, body.replace(b"\n", b"!", 1)),
        "a high byte in place of a newline": good.replace(body, body.replace(b"\n", b"\xff", 1)),
        "a newline moved": good.replace(body, body[:63] + b"\n" + body[63:64] + body[65:]),
        "padding in the middle": good.replace(body[62:65], b"==\n"),
        "padding at the end": good.replace(body[-2:], b"=="),
        "the alphabet of URLs": good.replace(body, b"-_" + body[2:]),
        "another label": good.replace(b"PUBLIC KEY", b"public key"),
        "the label of EC": good.replace(b"PUBLIC KEY", b"EC PUBLIC KEY"),
        "a label of as many letters": good.replace(b"PUBLIC KEY", b"PUBLIC KEI"),
        "two keys": good + good,
        "something before it": b"x" + good,
    }
    found.update({f"byte {at} of the prefix": pem_of(flipped(PREFIX, at) + point) for at in range(len(PREFIX))})
    return found


def spki_of_point(point: bytes) -> bytes:
    """The PEM text of a SubjectPublicKeyInfo on secp384r1 whose point has another length."""
    bits = b"\x03" + bytes([len(point) + 1]) + b"\x00" + point
    inner = PREFIX[2:20] + bits
    return pem_of(b"\x30" + bytes([len(inner)]) + inner)
