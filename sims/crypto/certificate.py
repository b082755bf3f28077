"""A certificate for a server that was given none: self-signed, and it proves nothing.

TLS needs one to run at all. Who the server is, is proved by connect (protocol.rst, "connect"), which is bound to the
TLS connection; so nothing depends on what this certificate says.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

#: How long one is said to be good for. Nobody looks: it is replaced by whoever cares to, with ``--certificate``.
LIFE = timedelta(days=3650)


class SelfSigned(NamedTuple):
    """PEM texts: the certificate, and its private key (PKCS #8, not encrypted)."""

    certificate: bytes
    key: bytes

    def __repr__(self) -> str:
        return "<self-signed certificate>"


def self_signed(now: float) -> SelfSigned:
    """A new certificate with a new P-256 key.

    Its subject is ``sims`` for everybody: it would tell who looks on the network more than the address does.

    :param now: Unix seconds; it is good from a day before that, for machines whose clocks differ.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sims")])
    begin = datetime.fromtimestamp(int(now), UTC) - timedelta(days=1)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + LIFE)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, SHA256())
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return SelfSigned(certificate.public_bytes(Encoding.PEM), private)
