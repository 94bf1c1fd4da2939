"""The material check: every problem with its code, all at once, and no value in any of it."""

from __future__ import annotations

import base64
import copy
import dataclasses
import pickle
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    pkcs12,
)
from cryptography.x509.oid import ExtendedKeyUsageOID
from support import CLIENT_ID, CLIENT_SECRET, Material, leaks

from wise_creds import Credentials, Namespace
from wise_creds.clock import SYSTEM_CLOCK
from wise_creds.credentials import client_id_pin
from wise_creds.testing import Authority, Issued

GOOD = Material()
P = Namespace.PRODUCTION
TITLE = PrivateFormat.PKCS8
CANARIES: dict[str, str | bytes] = {
    "id": CLIENT_ID, "secret": CLIENT_SECRET, "key": GOOD.issued.key_pem.splitlines()[1],
}  # fmt: skip


def _key(issued: Issued, password: bytes | None = None, form: PrivateFormat = TITLE) -> bytes:
    sealed = BestAvailableEncryption(password) if password else NoEncryption()
    return issued.key.private_bytes(Encoding.PEM, form, sealed)


def _store(password: bytes | None, chain: list[x509.Certificate] | None = None) -> bytes:
    sealed = BestAvailableEncryption(password) if password else NoEncryption()
    return pkcs12.serialize_key_and_certificates(b"wise", GOOD.issued.key, GOOD.issued.certificate, chain, sealed)  # type: ignore[arg-type]


def test_good_fields_make_credentials() -> None:
    """Whole, typed and masked."""
    made = GOOD.credentials(jws_private_key="canary-jws-key")
    assert made.certificate is not None
    assert made.client_secret is not None
    assert (made.namespace, made.version, made.sources) == ("sandbox", "v1", ("store",))
    assert (made.certificate.common_name, made.certificate.key_type) == (CLIENT_ID, "ec-p256")
    assert made.certificate.pem.encode() == GOOD.issued.pem
    assert made.certificate.fingerprint == GOOD.issued.certificate.fingerprint(SHA256()).hex()
    assert made.client_secret.reveal() == CLIENT_SECRET
    assert {name: value.reveal() for name, value in made.extra.items()} == {"jws_private_key": "canary-jws-key"}
    assert made.ca_not_after is not None
    assert copy.deepcopy(made).extra is made.extra
    plain = dataclasses.asdict(made) | {"certificate": None}
    assert leaks(CANARIES, str(plain)) == []
    with pytest.raises(TypeError):
        made.extra["more"] = made.client_secret  # type: ignore[index]


def test_credentials_show_no_value_and_are_not_pickled() -> None:
    """The client ID counts as one, and so does the CN, which is the client ID."""
    made = GOOD.credentials()
    assert leaks(CANARIES, repr(made), str(made), repr(made.certificate), repr(copy.deepcopy(made.client_secret))) == []
    with pytest.raises(TypeError):
        pickle.dumps(made)


@pytest.mark.parametrize(
    ("changes", "codes"),
    [
        ({"client_id": None}, ["WC401"]),
        ({"client_secret": None}, ["WC401"]),
        ({"certificate": None}, ["WC401"]),
        ({"private_key": None}, ["WC401"]),
        ({"client_id": None, "client_secret": None, "certificate": None, "private_key": None}, ["WC401"] * 4),
        ({"client_id": ""}, ["WC402"]),
        ({"client_secret": ""}, ["WC402"]),
        ({"certificate": ""}, ["WC402"]),
        ({"private_key": ""}, ["WC402"]),
        ({"client_secret": "secret\n"}, ["WC403"]),
        ({"client_secret": " secret"}, ["WC403"]),
        ({"client_secret": "sec\x07ret"}, ["WC403"]),
        ({"client_secret": "sec\nret"}, ["WC403"]),
        ({"client_secret": "sécret"}, ["WC403"]),
        ({"client_secret": b"\xff\xfe"}, ["WC403"]),
        ({"client_id": "a:b"}, ["WC404", "WC416"]),
        ({"environment": "production"}, ["WC206"]),
        ({"certificate": b"garbage !"}, ["WC411"]),
        ({"certificate": GOOD.issued.certificate.public_bytes(Encoding.DER)}, ["WC411"]),
        ({"certificate": GOOD.issued.key_pem}, ["WC411"]),
        ({"certificate": b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"}, ["WC411"]),
        ({"private_key": b"garbage !"}, ["WC412"]),
        ({"private_key": GOOD.issued.pem}, ["WC412"]),
        ({"private_key": b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"}, ["WC412"]),
        ({"private_key": Authority().client("x").key_pem}, ["WC413"]),
        ({"private_key": Authority().client("x", kind="rsa-2048").key_pem}, ["WC413"]),
        ({"private_key": _key(GOOD.issued, b"pw")}, ["WC418"]),
        ({"private_key": _key(GOOD.issued, b"pw"), "private_key_password": "no"}, ["WC419"]),
        ({"ca_bundle": b"garbage !"}, ["WC423"]),
        ({"ca_bundle": GOOD.issued.key_pem}, ["WC423"]),
        ({"pkcs12": b"\x30\x82garbage\xff"}, ["WC421", "WC421", "WC418"]),
    ],
)
def test_what_is_wrong_has_its_own_code(changes: dict[str, Any], codes: list[str]) -> None:
    """From a missing field to a key of another certificate."""
    assert GOOD.codes(**changes) == codes
    shown = [str(error) for error in GOOD.errors(**changes)]
    assert leaks(CANARIES, *shown) == []


def test_every_message_names_place_and_remedy() -> None:
    """All problems of one load, together."""
    errors = GOOD.errors(client_id="", client_secret=" x", certificate=None)
    assert [(error.code, error.location, error.namespace) for error in errors] == [
        ("WC402", "store: client_id", "sandbox"),
        ("WC403", "store: client_secret", "sandbox"),
        ("WC401", "store: certificate", "sandbox"),
    ]
    assert "printf" in str(errors[1])


def test_a_likely_spelling_is_suggested() -> None:
    """The line to add stands in the hint."""
    fields: dict[str, Any] = {
        "clientId": CLIENT_ID,
        "CLIENT_SECRET": CLIENT_SECRET,
        "tls.crt": GOOD.issued.pem,
        "tls.key": "x",
    }
    none: dict[str, Any] = dict.fromkeys(("client_id", "client_secret", "certificate", "private_key"))
    hints = [error.hint for error in GOOD.errors(**{**none, **fields})]
    assert hints == [
        'there is a likely one: fields = { client_id = "clientId" }',
        'there is a likely one: fields = { client_secret = "CLIENT_SECRET" }',
        'there is a likely one: fields = { certificate = "tls.crt" }',
        'there is a likely one: fields = { private_key = "tls.key" }',
    ]


@pytest.mark.parametrize(("begins", "ends", "code"), [(-10, -1, "WC414"), (1, 10, "WC415")], ids=["expired", "not yet"])
def test_dates_are_checked(begins: int, ends: int, code: str) -> None:
    """OpenSSL loads an expired certificate silently."""
    material = Material(begins=timedelta(days=begins), ends=timedelta(days=ends))
    assert material.codes() == [code]


@pytest.mark.parametrize(("days", "told"), [(27, True), (29.5, False)])
def test_a_certificate_near_its_end_is_a_warning(days: float, told: bool) -> None:
    """From 28 days on, as Wise's own mails."""
    assert ("WC425" in Material(ends=timedelta(days=days)).notices()) is told


def test_days_left_are_whole_days_rounded_down() -> None:
    """Negative once it is over."""
    certificate = GOOD.credentials().certificate
    assert certificate is not None
    ends = certificate.not_after
    assert ends.tzinfo is UTC
    days = [certificate.days_left(ends - timedelta(hours=hours)) for hours in (49, 48, 1, -1)]
    assert days == [2, 2, 0, -1]


def test_the_common_name_must_be_the_client_id_or_the_one_expected() -> None:
    """Wise forces it to the client ID; an operator may know better."""
    material = Material(common_name="another")
    assert material.codes() == ["WC416"]
    assert material.codes(material.expected(expect_common_name="another")) == []
    assert GOOD.codes(GOOD.expected(expect_common_name="another")) == ["WC416"]


@pytest.mark.parametrize("kind", ["rsa-2048", "ec-p384"])
def test_kinds_that_wise_lists_pass(kind: str) -> None:
    """RSA and EC."""
    material = Material(key_type=kind)
    certificate = material.credentials().certificate
    assert certificate is not None
    assert certificate.key_type == kind
    assert "WC417" not in material.notices()


def _self_signed(key: object, *, extensions: bool = False) -> tuple[bytes, bytes]:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, CLIENT_ID)])
    now = datetime.now(UTC)
    built = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())  # type: ignore[attr-defined]
    built = built.serial_number(1).not_valid_before(now - timedelta(1)).not_valid_after(now + timedelta(99))
    if extensions:
        usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
        built = built.add_extension(usage, critical=False)
    digest = None if isinstance(key, ed25519.Ed25519PrivateKey) else SHA256()
    pem = built.sign(key, digest).public_bytes(Encoding.PEM)  # type: ignore[arg-type]
    return pem, key.private_bytes(Encoding.PEM, TITLE, NoEncryption())  # type: ignore[attr-defined]


def test_a_small_rsa_key_is_an_error_and_an_odd_kind_a_warning() -> None:
    """As Wise's list has it."""
    small = rsa.generate_private_key(65537, 1024)
    certificate, key = _self_signed(small)
    assert GOOD.codes(certificate=certificate, private_key=key) == ["WC417"]
    for odd in (
        ec.generate_private_key(ec.SECP521R1()),
        ed25519.Ed25519PrivateKey.generate(),
        dsa.generate_private_key(2048),
    ):
        certificate, key = _self_signed(odd)
        assert GOOD.notices(certificate=certificate, private_key=key)["WC417"] == "warning"


def test_a_server_certificate_is_a_warning() -> None:
    """Its extended key usage leaves out client authentication."""
    certificate, key = _self_signed(ec.generate_private_key(ec.SECP256R1()), extensions=True)
    assert GOOD.notices(certificate=certificate, private_key=key)["WC428"] == "warning"


def test_a_certificate_without_a_name_is_not_the_clients() -> None:
    """No CN is not the expected CN."""
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC)
    nameless = x509.Name([])
    built = x509.CertificateBuilder().subject_name(nameless).issuer_name(nameless).public_key(key.public_key())
    pem = built.serial_number(1).not_valid_before(now).not_valid_after(now + timedelta(9)).sign(key, SHA256())
    issued = Issued(pem, key)
    assert GOOD.codes(certificate=issued.pem, private_key=issued.key_pem) == ["WC416"]


def test_a_chain_is_put_in_order() -> None:
    """Leaf first, then each one's issuer; strangers are left out, and it is said."""
    root = Authority("root")
    middle = Authority("middle", above=root)
    leaf = middle.client(CLIENT_ID)
    wrong = middle.issued.pem + leaf.pem + Authority("stranger").issued.pem
    made = GOOD.credentials(certificate=wrong, private_key=leaf.key_pem)
    assert made.certificate is not None
    assert made.certificate.pem.encode() == leaf.pem + middle.issued.pem
    assert GOOD.notices(certificate=wrong, private_key=leaf.key_pem)["WC422"] == "information"


@pytest.mark.parametrize("form", [PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL])
def test_an_encrypted_key_opens_with_its_passphrase(form: PrivateFormat) -> None:
    """And a passphrase beside a plain key does no harm."""
    assert GOOD.codes(private_key=_key(GOOD.issued, b"pw", form), private_key_password="pw") == []
    assert GOOD.codes(private_key_password="pw") == []


@pytest.mark.parametrize("encode", [bytes, base64.b64encode, base64.encodebytes], ids=["binary", "base64", "lines"])
def test_pkcs12_replaces_certificate_and_key(encode: Callable[[bytes], bytes]) -> None:
    """Binary, or base64 as text."""
    other: dict[str, Any] = {"certificate": None, "private_key": None}
    made = GOOD.credentials(pkcs12=encode(_store(b"pw")), pkcs12_password="pw", **other)
    assert made.certificate is not None
    assert made.certificate.pem.encode() == GOOD.issued.pem
    chained = encode(_store(None, [GOOD.authority.issued.certificate]))
    assert GOOD.codes(pkcs12=chained, **other) == []


def test_pkcs12_that_does_not_open_says_why() -> None:
    """No passphrase, the wrong one, garbage, nothing inside, empty."""
    other: dict[str, Any] = {"certificate": None, "private_key": None}
    empty = pkcs12.serialize_key_and_certificates(b"x", None, GOOD.issued.certificate, None, NoEncryption())
    cases: list[tuple[dict[str, Any], list[str]]] = [
        ({"pkcs12": _store(b"pw")}, ["WC418"]),
        ({"pkcs12": _store(b"pw"), "pkcs12_password": "no"}, ["WC420"]),
        ({"pkcs12": b"not base64 !"}, ["WC420"]),
        ({"pkcs12": empty}, ["WC420"]),
        ({"pkcs12": b""}, ["WC402", "WC401", "WC401"]),
    ]
    assert [GOOD.codes(**{**other, **changes}) for changes, _ in cases] == [codes for _, codes in cases]


def test_a_ca_file_may_be_a_root_or_a_pin() -> None:
    """A leaf is accepted with a warning; none at all is said; dead ones are an error; old ones are seen coming."""
    expired = Authority._issue("old", GOOD.issued.key, None, ca=True, life=(timedelta(-9), timedelta(-1)))
    ending = Authority._issue("soon", GOOD.issued.key, None, ca=True, life=(timedelta(-9), timedelta(20)))
    assert "WC424" not in GOOD.notices()
    assert GOOD.notices(ca_bundle=GOOD.authority.server().pem)["WC424"] == "warning"
    assert GOOD.notices(ca_bundle=_self_signed(GOOD.issued.key)[0])["WC424"] == "warning"
    assert GOOD.notices(ca_bundle=None)["WC426"] == "information"
    assert GOOD.codes(ca_bundle=expired.pem) == ["WC427"]
    assert GOOD.codes(ca_bundle=expired.pem + GOOD.authority.issued.pem) == []
    assert GOOD.notices(ca_bundle=ending.pem)["WC425"] == "warning"


def test_production_wants_a_tie_between_secret_and_namespace() -> None:
    """The marker in the secret, or the pin in the configuration."""
    production = GOOD.expected(namespace=P)
    pin = client_id_pin(GOOD.credentials().client_id)  # type: ignore[arg-type]
    pinned = GOOD.expected(namespace=P, expect_client_id=pin)
    assert GOOD.codes(production) == ["WC206"]
    assert GOOD.codes(production, environment="production") == []
    assert GOOD.notices(production, environment=None)["WC208"] == "warning"
    assert "WC208" not in GOOD.notices(pinned, environment=None)
    assert "WC208" not in GOOD.notices(environment=None)
    assert GOOD.codes(GOOD.expected(expect_client_id="sha256:" + "0" * 16)) == ["WC207"]
    assert CLIENT_ID not in pin


def test_form_encoding_permits_a_colon_in_the_client_id() -> None:
    """RFC 6749 encodes it, RFC 7617 alone cannot."""
    expected = GOOD.expected(basic_auth="form", expect_common_name=CLIENT_ID)
    assert GOOD.codes(expected, client_id="a:b") == []


def test_without_mtls_no_certificate_is_needed() -> None:
    """And one that is there is not looked at."""
    off = GOOD.expected(mtls=False)
    made = GOOD.credentials(off, certificate=None, private_key=None)
    assert (made.certificate, made.private_key) == (None, None)
    assert GOOD.codes(off, certificate="garbage !") == []


def test_a_personal_token_stands_alone() -> None:
    """No client secret or certificate beside it."""
    grant = GOOD.expected(grant="personal_token", mtls=False)
    alone: dict[str, Any] = dict.fromkeys(("client_id", "client_secret", "certificate", "private_key"))
    made = GOOD.credentials(grant, personal_token="canary-personal-token", **alone)
    assert (made.client_id, made.extra["personal_token"].reveal()) == (None, "canary-personal-token")
    assert GOOD.codes(grant, personal_token="x") == ["WC431", "WC431", "WC431"]
    assert GOOD.codes(grant, **alone) == ["WC401"]
    assert isinstance(made, Credentials)


def test_the_check_does_not_depend_on_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time is a parameter."""
    late = SYSTEM_CLOCK.wall() + 400 * 86_400
    from wise_creds.credentials import check

    assert [error.code for error in check(GOOD.joined(), GOOD.expected(), now=late).errors] == ["WC414"]
