"""Certificates of every kind, made when they are needed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from attrs import frozen
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@frozen
class Pair:
    """A certificate and its key."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @property
    def pem(self) -> bytes:
        """The certificate."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def key_pem(self, password: bytes | None = None) -> bytes:
        """The key."""
        how: serialization.KeySerializationEncryption = serialization.NoEncryption()
        if password:
            how = serialization.BestAvailableEncryption(password)
        return self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, how
        )

    def write(self, folder: Path) -> str:
        """Write both; give the part of an endpoint string that names them."""
        key, certificate = folder / "key.pem", folder / "cert.pem"
        key.write_bytes(self.key_pem())
        key.chmod(0o600)
        certificate.write_bytes(self.pem)
        return f"privateKey={key}:certKey={certificate}"


def certify(
    name: str,
    *names: str,
    days: float = 365,
    begin: float = -1,
    by: Pair | None = None,
    is_ca: bool = False,
) -> Pair:
    """
    Make a certificate.

    :param name: its subject.
    :param names: host names and addresses that it is for.
    :param begin: from when on it is valid, in days from now; and until when.
    :param by: who signs it; itself, if nobody does.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    maker = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(by.certificate.subject if by else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + timedelta(begin))
        .not_valid_after(now + timedelta(days))
        .add_extension(x509.BasicConstraints(is_ca, None), critical=True)
    )
    if names:
        listed = [
            x509.IPAddress(ip_address(each))
            if each[0].isdigit()
            else x509.DNSName(each)
            for each in names
        ]
        maker = maker.add_extension(x509.SubjectAlternativeName(listed), critical=False)
    signer = by.key if by else key
    return Pair(key, maker.sign(signer, hashes.SHA256()))
