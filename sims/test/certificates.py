"""Certificates as an operator would have them: an authority, and what it signs."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import NameOID

from sims.crypto.certificate import SelfSigned


def authority(name: str, now: float) -> SelfSigned:
    """An authority that has signed itself."""
    return _make(name, None, (), now, is_authority=True)


def signed(by: SelfSigned, names: Sequence[str], now: float, *, is_authority: bool = False) -> SelfSigned:
    """A certificate for names and addresses, or for none."""
    return _make("between" if is_authority else "server", by, names, now, is_authority=is_authority)


def _make(name: str, by: SelfSigned | None, names: Sequence[str], now: float, *, is_authority: bool) -> SelfSigned:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    signing = key
    if by is not None:
        issuer = x509.load_pem_x509_certificate(by.certificate).subject
        loaded = load_pem_private_key(by.key, None)
        assert isinstance(loaded, ec.EllipticCurvePrivateKey)
        signing = loaded
    begin = datetime.fromtimestamp(0, UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(datetime.fromtimestamp(now, UTC) + timedelta(days=3650))
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName([_name(one) for one in names]), critical=False)
    certificate = builder.sign(signing, SHA256())
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return SelfSigned(certificate.public_bytes(Encoding.PEM), private)


def _name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(text))
    except ValueError:
        return x509.DNSName(text)
