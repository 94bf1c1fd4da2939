"""The X.509 side of the credentials: parsing, ordering and judging; runs within the shield."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    pkcs12,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from wise_creds._pem import Block, NotPemError, blocks
from wise_creds.errors import CredentialsError, Notice
from wise_creds.secret import Secret

# What Wise lists: https://docs.wise.com/guides/developer/auth-and-security/mtls
_ACCEPTED_KEYS = ("rsa-2048", "rsa-3072", "rsa-4096", "ec-p256", "ec-p384")
_SMALLEST_RSA = 2048
_CURVES = {"secp256r1": "p256", "secp384r1": "p384", "secp521r1": "p521"}
# Wise mails its own notices 28, 14, 7, 3, 1 and 0 days before the end:
# https://docs.wise.com/guides/developer/auth-and-security/expiry-notifications
NOTICE_DAYS = 28


@dataclass(frozen=True, eq=False)
class Certificate:
    """
    What a person asks of a client certificate.

    Attributes:
        common_name: the subject's CN, which at Wise is the client ID; `repr` hides it.
        not_before: aware, UTC.
        not_after: aware, UTC.
        key_type: `"rsa-4096"`, `"ec-p256"` …
        fingerprint: SHA-256 of the certificate, lower-case hex.
        pem: the chain, leaf first.
    """

    common_name: str | None = field(repr=False)
    not_before: datetime
    not_after: datetime
    key_type: str
    fingerprint: str
    pem: str = field(repr=False)

    def days_left(self, now: datetime) -> int:
        """Count the whole days until it ends, rounded down; negative when it has."""
        return (self.not_after - now).days


@dataclass(eq=False)
class Findings:
    """Collects what is wrong with the fields of one load, each with its place."""

    places: Callable[[str], str]
    namespace: str
    errors: list[CredentialsError] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)

    def error(self, code: str, name: str, message: str, hint: str | None = None) -> None:
        """Add a problem of the field `name`."""
        self.errors.append(
            CredentialsError(message, code=code, namespace=self.namespace, location=self.places(name), hint=hint)
        )

    def notice(self, code: str, name: str, message: str, hint: str | None = None, *, warning: bool = True) -> None:
        """Add something worth saying about the field `name`."""
        self.notices.append(
            Notice(code=code, message=message, level="warning" if warning else "information", hint=hint,
                   namespace=self.namespace, location=self.places(name))
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Pair:
    """A parsed key pair: the leaf, the chain with the leaf first, and the key."""

    leaf: x509.Certificate
    chain: tuple[x509.Certificate, ...]
    key: PrivateKeyTypes

    def key_pem(self) -> Secret:
        """Give the key as unencrypted PKCS#8 PEM."""
        pem = self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return Secret(pem, name="private_key")

    def certificate(self) -> Certificate:
        """Give the facts of the leaf."""
        return Certificate(
            common_name=_common_name(self.leaf),
            not_before=self.leaf.not_valid_before_utc,
            not_after=self.leaf.not_valid_after_utc,
            key_type=_key_type(self.leaf.public_key()),
            fingerprint=self.leaf.fingerprint(SHA256()).hex(),
            pem="".join(one.public_bytes(Encoding.PEM).decode() for one in self.chain),
        )


def read_pair(report: Findings, certificate: bytes, private_key: bytes, password: bytes | None) -> Pair | None:
    """Parse a PEM chain and a PEM key; None, and an error in the report, where that fails."""
    certificates = _certificates(report, "certificate", "WC411", certificate)
    key = _private_key(report, private_key, password)
    return _matched(report, certificates, key) if certificates and key is not None else None


def read_pkcs12(report: Findings, content: bytes, password: bytes | None) -> Pair | None:
    """Parse a PKCS#12 store (RFC 7292), binary or base64."""
    der = content
    if content.isascii():
        try:
            der = base64.b64decode(b"".join(content.split()), validate=True)
        except binascii.Error:
            report.error(
                "WC420", "pkcs12", "not PKCS#12, neither binary nor base64 of it", "store it as it is, or its base64"
            )
            return None
    try:
        store = pkcs12.load_pkcs12(der, password)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        if password is None:
            report.error("WC418", "pkcs12", "cannot be opened without a passphrase", "give the field pkcs12_password")
        else:
            report.error("WC420", "pkcs12", "cannot be opened: wrong passphrase, or not PKCS#12",
                         "check pkcs12_password")  # fmt: skip
        return None
    leaf, key = store.cert, store.key
    if leaf is None or key is None:
        report.error("WC420", "pkcs12", "holds no certificate with its private key", "export both into it")
        return None
    return _matched(report, [leaf.certificate, *(one.certificate for one in store.additional_certs)], key)


def _certificates(report: Findings, name: str, code: str, raw: bytes) -> list[x509.Certificate]:
    try:
        found = [block for block in blocks(raw, der_label="CERTIFICATE") if block.is_certificate]
        parsed = [x509.load_pem_x509_certificate(block.pem) for block in found]
    except NotPemError as reason:
        report.error(code, name, f"not a PEM certificate: {reason}", "store the PEM that Developer Hub shows")
        return []
    except ValueError:
        report.error(code, name, "a CERTIFICATE block does not hold an X.509 certificate", "export it again as PEM")
        return []
    if not parsed:
        report.error(code, name, "no CERTIFICATE block in it", "is this the private key or the CSR?")
    return parsed


def _private_key(report: Findings, raw: bytes, password: bytes | None) -> PrivateKeyTypes | None:
    try:
        found = [block for block in blocks(raw, der_label="PRIVATE KEY") if block.is_private_key]
    except NotPemError as reason:
        report.error("WC412", "private_key", f"not a PEM private key: {reason}", "store it as PKCS#8 PEM")
        return None
    if not found:
        report.error("WC412", "private_key", "no PRIVATE KEY block in it", "is this the certificate or the CSR?")
        return None
    block = found[0]
    if block.is_encrypted and password is None:
        report.error("WC418", "private_key", "the key is encrypted and there is no passphrase",
                     "give the field private_key_password")  # fmt: skip
        return None
    return _opened(report, block, password)


def _opened(report: Findings, block: Block, password: bytes | None) -> PrivateKeyTypes | None:
    try:
        return load_pem_private_key(block.pem, password if block.is_encrypted else None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        if block.is_encrypted:
            report.error("WC419", "private_key", "the passphrase does not open the key", "check private_key_password")
        else:
            report.error("WC412", "private_key", "the PRIVATE KEY block does not hold a usable key",
                         "export it again as PKCS#8 PEM")  # fmt: skip
        return None


def _matched(report: Findings, certificates: list[x509.Certificate], key: PrivateKeyTypes) -> Pair | None:
    wanted = _public_bytes(key.public_key())
    leaf = next((one for one in certificates if _public_bytes(one.public_key()) == wanted), None)
    if leaf is None:
        report.error("WC413", "private_key", "the key does not belong to the certificate",
                     "take both from the same issue; the CSR's key goes with the certificate made from it")  # fmt: skip
        return None
    chain = [leaf]
    while issuer := next((c for c in certificates if c not in chain and c.subject == chain[-1].issuer), None):
        chain.append(issuer)
    if chain != certificates:
        report.notice("WC422", "certificate", "the chain was put in order: leaf first, each then its issuer",
                      "certificates that do not belong to it are left out", warning=False)  # fmt: skip
    return Pair(leaf, tuple(chain), key)


def judge_pair(report: Findings, pair: Pair, *, common_name: str | None, now: datetime) -> None:
    """Check dates, name, key kind and usage of the leaf."""
    leaf, kind = pair.leaf, _key_type(pair.leaf.public_key())
    ends, begins = leaf.not_valid_after_utc, leaf.not_valid_before_utc
    if ends <= now:
        report.error("WC414", "certificate", f"the certificate expired on {ends:%Y-%m-%d %H:%M} UTC",
                     "issue a new one in Wise's Developer Hub")  # fmt: skip
    elif (left := (ends - now).days) <= NOTICE_DAYS:
        report.notice("WC425", "certificate", f"the certificate ends in {left} days, on {ends:%Y-%m-%d}",
                      "issue a new one in Wise's Developer Hub and stage it")  # fmt: skip
    if begins > now:
        report.error("WC415", "certificate", f"the certificate is not valid before {begins:%Y-%m-%d %H:%M} UTC",
                     "check this machine's clock")  # fmt: skip
    if common_name is not None and _common_name(leaf) != common_name:
        report.error("WC416", "certificate", "the certificate's common name is not the one expected",
                     "Wise sets it to the client ID: is this the certificate of another client? "
                     "expect_common_name overrides")  # fmt: skip
    if kind.startswith("rsa-") and int(kind[4:]) < _SMALLEST_RSA:
        report.error("WC417", "private_key", f"{kind} is too small for Wise", "use rsa-2048 to rsa-4096 or P-256/384")
    elif kind not in _ACCEPTED_KEYS:
        report.notice("WC417", "private_key", f"{kind} is not among the key kinds that Wise lists",
                      f"Wise lists {', '.join(_ACCEPTED_KEYS)}")  # fmt: skip
    try:
        usage = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except (x509.ExtensionNotFound, ValueError):
        return
    if not {ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE} & set(usage):
        report.notice("WC428", "certificate", "the certificate's extended key usage leaves out client authentication",
                      "servers refuse such a client certificate; is this a server's?")  # fmt: skip


def read_ca(report: Findings, raw: bytes, now: datetime) -> tuple[str, datetime] | None:
    """Parse and judge the CA file; give it as clean PEM with the date on which its first certificate ends."""
    found = _certificates(report, "ca_bundle", "WC423", raw)
    if not found:
        return None
    living = [one for one in found if one.not_valid_after_utc > now]
    if not living:
        report.error(
            "WC427",
            "ca_bundle",
            "every certificate in it has expired",
            "get Wise's certificate anew in Developer Hub",
        )
        return None
    if not any(_is_ca(one) for one in found):
        report.notice("WC424", "ca_bundle", "it holds the server's own certificate, which makes it a pin",
                      "it breaks when Wise renews; prefer the root")  # fmt: skip
    ends = min(one.not_valid_after_utc for one in living)
    if (left := (ends - now).days) <= NOTICE_DAYS:
        report.notice("WC425", "ca_bundle", f"a certificate in it ends in {left} days, on {ends:%Y-%m-%d}",
                      "get Wise's certificate anew in Developer Hub")  # fmt: skip
    return "".join(one.public_bytes(Encoding.PEM).decode() for one in found), ends


def utc(seconds: float) -> datetime:
    """Make a date of a reading of the wall clock."""
    return datetime.fromtimestamp(seconds, UTC)


def _is_ca(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, ValueError):
        return False


def _common_name(certificate: x509.Certificate) -> str | None:
    names: Sequence[x509.NameAttribute[str | bytes]] = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[0].value) if names else None


def _key_type(key: object) -> str:
    if isinstance(key, rsa.RSAPublicKey):
        return f"rsa-{key.key_size}"
    if isinstance(key, ec.EllipticCurvePublicKey):
        return f"ec-{_CURVES.get(key.curve.name, key.curve.name)}"
    return type(key).__name__.removesuffix("PublicKey").lstrip("_").lower()


def _public_bytes(key: object) -> bytes:
    encode = key.public_bytes  # type: ignore[attr-defined]  # each kind of public key has it, without a common base
    encoded: bytes = encode(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return encoded
