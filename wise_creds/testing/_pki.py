"""Throw-away certificates, made in memory."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_DAY = timedelta(days=1)
_CA_USAGE = x509.KeyUsage(
    digital_signature=False, content_commitment=False, key_encipherment=False, data_encipherment=False,
    key_agreement=False, key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False,
)  # fmt: skip


@dataclass(frozen=True)
class Issued:
    """A certificate with its key, both PEM."""

    certificate: x509.Certificate
    key: CertificateIssuerPrivateKeyTypes

    @property
    def pem(self) -> bytes:
        """The certificate."""
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        """The key, PKCS#8, unencrypted."""
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def make_key(kind: str) -> CertificateIssuerPrivateKeyTypes:
    """Make a key of a kind as `Certificate.key_type` names it."""
    if kind.startswith("rsa-"):
        return rsa.generate_private_key(65537, int(kind[4:]))
    return ec.generate_private_key({"ec-p256": ec.SECP256R1(), "ec-p384": ec.SECP384R1()}[kind])


class Authority:
    """A certificate authority for one test or one demonstration."""

    def __init__(self, name: str = "wise-creds throw-away authority", *, above: Authority | None = None) -> None:
        self._above = above
        self.issued: Issued = self._issue(
            name, make_key("ec-p256"), above.issued if above else None, ca=True, life=(-_DAY, 3650 * _DAY)
        )

    def client(
        self, common_name: str, *, kind: str = "ec-p256", begins: timedelta = -_DAY, ends: timedelta = 365 * _DAY
    ) -> Issued:
        """Issue a client certificate, valid from now + `begins` to now + `ends`."""
        return self._issue(common_name, make_key(kind), self.issued, life=(begins, ends))

    def server(self) -> Issued:
        """Issue a certificate for loopback."""
        return self._issue("localhost", make_key("ec-p256"), self.issued, life=(-_DAY, 365 * _DAY), server=True)

    def revocation_list(self, *revoked: x509.Certificate) -> bytes:
        """Make a CRL, PEM."""
        now = datetime.now(UTC)
        crl = x509.CertificateRevocationListBuilder(self.issued.certificate.subject, now - _DAY, now + 365 * _DAY)
        for certificate in revoked:
            crl = crl.add_revoked_certificate(
                x509.RevokedCertificateBuilder(certificate.serial_number, now - _DAY).build()
            )
        return crl.sign(self.issued.key, SHA256()).public_bytes(Encoding.PEM)

    @staticmethod
    def _issue(
        name: str,
        key: CertificateIssuerPrivateKeyTypes,
        issuer: Issued | None,
        *,
        life: tuple[timedelta, timedelta],
        ca: bool = False,
        server: bool = False,
    ) -> Issued:
        subject = x509.Name(
            [x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Example"), x509.NameAttribute(NameOID.COMMON_NAME, name)]
        )
        now = datetime.now(UTC)
        public = key.public_key()
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer.certificate.subject if issuer else subject)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + life[0])
            .not_valid_after(now + life[1])
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        )
        if issuer is not None:
            builder = builder.add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key()), critical=False
            )
        if ca:  # what strict verification (RFC 5280, the default since Python 3.13) wants of an authority
            builder = builder.add_extension(_CA_USAGE, critical=True)
        else:
            usage = ExtendedKeyUsageOID.SERVER_AUTH if server else ExtendedKeyUsageOID.CLIENT_AUTH
            builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        if server:
            names = [x509.DNSName("localhost"), *(x509.IPAddress(ip_address(one)) for one in ("127.0.0.1", "::1"))]
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return Issued(builder.sign(issuer.key if issuer else key, SHA256()), key)
