"""The checked material of one namespace: parsed, immutable, masked."""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256

from wise_creds._material import Certificate, Findings, judge_pair, read_ca, read_pair, read_pkcs12, utc
from wise_creds._quiet import Quiet
from wise_creds.errors import CredentialsError, Notice
from wise_creds.namespace import Namespace
from wise_creds.provider import CANONICAL_FIELDS
from wise_creds.secret import Secret
from wise_creds.shield import shielded, unexpected
from wise_creds.tls import KeyLoading, client_context, load_pair

_VISIBLE = re.compile(rb"[\x20-\x7e]+")
_ALIASES = {
    "client_id": ("clientid", "id", "username"),
    "client_secret": ("clientsecret", "secret", "apisecret", "password"),
    "certificate": ("tls.crt", "client.crt", "client.pem", "cert.pem", "crt", "cert", "clientcertificate"),
    "private_key": ("tls.key", "client.key", "key.pem", "key", "privatekey", "clientkey"),
    "ca_bundle": ("ca.crt", "ca.pem", "ca", "cacert", "cabundle"),
    "personal_token": ("token", "apitoken", "personaltoken"),
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Expectations:
    """What the configuration says about the material."""

    namespace: Namespace
    grant: str = "client_credentials"
    mtls: bool = True
    basic_auth: str = "raw"
    expect_client_id: str | None = None
    expect_common_name: str | None = None
    key_loading: KeyLoading = "memory"


@dataclass(frozen=True, kw_only=True, eq=False)
class Credentials:
    """
    The credentials of one namespace, checked and coherent. Made by `load`; every value is a `Secret` or None.

    Attributes:
        certificate: the client certificate's facts, and its chain as PEM.
        private_key: PKCS#8 PEM, unencrypted.
        ca_bundle: PEM.
        extra: further fields of the store, by their names there.
        version: the store's name for this version.
        sources: where the fields came from.
    """

    namespace: Namespace
    client_id: Secret | None
    client_secret: Secret | None
    certificate: Certificate | None
    private_key: Secret | None
    ca_bundle: Secret | None
    ca_not_after: datetime | None
    extra: Mapping[str, Secret]
    version: str
    sources: tuple[str, ...]
    key_loading: KeyLoading = field(default="memory", repr=False)

    def ssl_context(self) -> ssl.SSLContext:
        """
        Make a new SSL context: TLS 1.2 at least, the client certificate loaded through memory, no key log.

        Raises:
            CredentialsError: OpenSSL refuses the pair, or this platform has no way through memory.
        """
        return _context(self)


@shielded(unexpected)
def _context(credentials: Credentials) -> ssl.SSLContext:
    context = client_context(credentials.ca_bundle.reveal() if credentials.ca_bundle else None)
    if credentials.certificate is not None and credentials.private_key is not None:
        chain = credentials.certificate.pem.encode()
        load_pair(context, chain, credentials.private_key.reveal_bytes(), loading=credentials.key_loading)
    return context


@shielded(unexpected)
def client_id_pin(client_id: Secret) -> str:
    """Give the line to paste behind `expect_client_id`: a prefix of the SHA-256, which shows nothing of the ID."""
    return f"sha256:{sha256(client_id.reveal_bytes()).hexdigest()[:16]}"


@dataclass(frozen=True, eq=False)
class Fields:
    """The fields of all sources of a namespace, joined."""

    values: Mapping[str, Secret]
    places: Mapping[str, str]
    names: tuple[str, ...]
    version: str
    sources: tuple[str, ...]
    notices: tuple[Notice, ...] = ()

    def place(self, name: str) -> str:
        """Say where a field stands, or where it should."""
        return self.places.get(name) or f"{', '.join(self.sources)}: {name}"


@dataclass(frozen=True, eq=False)
class Checked:
    """What the check came to: credentials, or errors; and notices either way."""

    credentials: Credentials | None
    errors: tuple[CredentialsError, ...]
    notices: tuple[Notice, ...]


def check(fields: Fields, expected: Expectations, *, now: float) -> Checked:
    """
    Make credentials out of fields, or say everything that is wrong with them; runs within the shield.

    Args:
        fields: what the sources gave.
        expected: what the configuration says.
        now: the wall clock, seconds since 1970 UTC.
    """
    report = Findings(fields.place, expected.namespace)
    values = dict(fields.values)
    _check_marker(report, values, expected)
    client_id = client_secret = None
    if expected.grant == "personal_token":
        _legal(report, values, "personal_token", hints=fields.names)
        for name in ("client_secret", "certificate", "private_key", "pkcs12"):
            if name in values:
                report.error("WC431", name, "a personal token takes no client secret or certificate beside it",
                             'remove the field, or set grant = "client_credentials"')  # fmt: skip
    else:
        client_id = _legal(report, values, "client_id", hints=fields.names)
        client_secret = _legal(report, values, "client_secret", hints=fields.names)
    if client_id is not None:
        _check_client_id(report, client_id, expected)
    certificate, private_key = _check_pair(report, values, fields.names, expected, client_id, utc(now))
    ca = read_ca(report, values["ca_bundle"].reveal_bytes(), utc(now)) if "ca_bundle" in values else None
    if "ca_bundle" not in values and expected.mtls:
        report.notice("WC426", "ca_bundle", "no CA file: the system's trust store decides who is Wise",
                      "Developer Hub offers it under Get Wise Certificate", warning=False)  # fmt: skip
    known = set(CANONICAL_FIELDS) - {"personal_token"}
    credentials = None
    if not report.errors:
        credentials = Credentials(
            namespace=expected.namespace,
            client_id=client_id,
            client_secret=client_secret,
            certificate=certificate,
            private_key=private_key,
            ca_bundle=Secret(ca[0], name="ca_bundle") if ca else None,
            ca_not_after=ca[1] if ca else None,
            extra=Quiet({name: value for name, value in values.items() if name not in known}),
            version=fields.version,
            sources=fields.sources,
            key_loading=expected.key_loading,
        )
    return Checked(credentials, tuple(report.errors), tuple(report.notices))


def _check_marker(report: Findings, values: Mapping[str, Secret], expected: Expectations) -> None:
    marker = values.get("environment")
    if marker is None:
        if expected.namespace is Namespace.PRODUCTION and expected.expect_client_id is None:
            report.notice("WC208", "environment", "nothing ties this secret to production",
                          "add the field environment to the secret, or expect_client_id to the configuration: "
                          "validate --secrets prints the line")  # fmt: skip
    elif marker.reveal_bytes() != expected.namespace.encode():
        report.error("WC206", "environment", f"the secret is not marked as {expected.namespace}",
                     "the field environment must equal the namespace: is this the other one's secret?")  # fmt: skip


def _check_client_id(report: Findings, client_id: Secret, expected: Expectations) -> None:
    if expected.basic_auth == "raw" and b":" in client_id.reveal_bytes():
        report.error("WC404", "client_id", "a colon in the client ID would end it in HTTP Basic (RFC 7617)",
                     'set basic_auth = "form"')  # fmt: skip
    pin = expected.expect_client_id
    if pin is not None and not sha256(client_id.reveal_bytes()).hexdigest().startswith(pin.removeprefix("sha256:")):
        report.error("WC207", "client_id", "the client ID is not the one that expect_client_id names",
                     "is this the secret of another client or of the other namespace?")  # fmt: skip


def _check_pair(
    report: Findings,
    values: Mapping[str, Secret],
    names: tuple[str, ...],
    expected: Expectations,
    client_id: Secret | None,
    now: datetime,
) -> tuple[Certificate | None, Secret | None]:
    if not expected.mtls:
        return None, None
    given = {name: _given(report, values, name) for name in ("certificate", "private_key", "pkcs12")}
    if given["pkcs12"] is not None:
        for name in ("certificate", "private_key"):
            if name in values:
                report.error("WC421", name, "stands beside pkcs12, which holds the same", "keep one of the two")
        pair = read_pkcs12(report, given["pkcs12"], _password(values, "pkcs12_password"))
    else:
        for name in ("certificate", "private_key"):
            if name not in values:
                _missing(report, name, names)
        if given["certificate"] is None or given["private_key"] is None:
            return None, None
        pair = read_pair(report, given["certificate"], given["private_key"], _password(values, "private_key_password"))
    if pair is None:
        return None, None
    common_name = expected.expect_common_name or (client_id.reveal() if client_id is not None else None)
    judge_pair(report, pair, common_name=common_name, now=now)
    return pair.certificate(), pair.key_pem()


def _given(report: Findings, values: Mapping[str, Secret], name: str) -> bytes | None:
    content = values[name].reveal_bytes() if name in values else None
    if content == b"":
        report.error("WC402", name, "is empty", "store the value again")
        return None
    return content


def _password(values: Mapping[str, Secret], name: str) -> bytes | None:
    return values[name].reveal_bytes() if name in values else None


def _legal(report: Findings, values: Mapping[str, Secret], name: str, *, hints: tuple[str, ...]) -> Secret | None:
    """Give a one-line value if it can stand in a header as it is."""
    if name not in values:
        _missing(report, name, hints)
        return None
    content = values[name].reveal_bytes()
    if not content:
        report.error("WC402", name, "is empty", "store the value again")
    elif content.strip() != content:
        report.error(
            "WC403",
            name,
            "begins or ends with white space",
            "store it again without; echo adds a newline, printf does not",
        )
    elif not _VISIBLE.fullmatch(content):
        report.error(
            "WC403",
            name,
            "holds a control character or a character outside ASCII",
            "store it again, copied as plain text",
        )
    else:
        return values[name]
    return None


def _missing(report: Findings, name: str, names: tuple[str, ...]) -> None:
    plain = {re.sub(r"[_\- ]", "", seen).lower(): seen for seen in names if seen not in CANONICAL_FIELDS}
    alias = next((plain[alias] for alias in _ALIASES.get(name, ()) if alias in plain), None)
    if name in names:
        hint = f'it is there, but fields names all that is read: add {name} = "{name}" to it'
    elif alias is not None:
        hint = f'there is a likely one: fields = {{ {name} = "{alias}" }}'
    else:
        hint = f'add it, or say how it is called there: fields = {{ {name} = "..." }}'
    report.error("WC401", name, "is missing", hint)
