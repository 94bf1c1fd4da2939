"""The key and the certificate request for Developer Hub."""

from __future__ import annotations

import logging
import shutil
import subprocess
import traceback
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import NamedTuple, NoReturn

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from support import CLIENT_ID, leaks

import wise_creds
from wise_creds import ConfigError, CredentialsError, Secret, WiseCredsError
from wise_creds.rotation._csr import KINDS, make_request
from wise_creds.testing import Authority, Issued, MockWise

ORGANISATION = "Paiements d'Été SA"
ID = Secret(CLIENT_ID, name="client_id")


class Made(NamedTuple):
    """What was made for one kind of key."""

    kind: str
    pem: str
    private_key: Secret

    @property
    def request(self) -> x509.CertificateSigningRequest:
        return x509.load_pem_x509_csr(self.pem.encode())

    @property
    def key(self) -> RSAPrivateKey | EllipticCurvePrivateKey:
        key = load_pem_private_key(self.private_key.reveal_bytes(), None)
        assert isinstance(key, RSAPrivateKey | EllipticCurvePrivateKey)
        return key


@pytest.fixture(scope="module", params=KINDS)
def made(request: pytest.FixtureRequest) -> Made:
    """One request of each kind for all tests: a large key takes seconds."""
    return Made(request.param, *make_request(ID, ORGANISATION, kind=request.param))


def _issue(authority: Authority, request: x509.CertificateSigningRequest) -> x509.Certificate:
    """Do what Wise does with a request: the name's organisation, the key, one year."""
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(request.subject)
        .issuer_name(authority.issued.certificate.subject)
        .public_key(request.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=365))
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(request.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.issued.key.public_key()), critical=False
        )
    )
    return builder.sign(authority.issued.key, SHA256())


def test_the_request_is_signed_and_names_the_organisation_and_the_client(made: Made) -> None:
    """Nothing else is in it, and the hash fits the key."""
    request = made.request
    digest = request.signature_hash_algorithm
    assert digest is not None
    assert request.is_signature_valid
    assert [(part.oid, part.value) for part in request.subject] == [
        (NameOID.ORGANIZATION_NAME, ORGANISATION),
        (NameOID.COMMON_NAME, CLIENT_ID),
    ]
    assert (digest.name, list(request.extensions)) == ("sha384" if made.kind == "ec-p384" else "sha256", [])


def test_the_request_is_bare_pem(made: Made) -> None:
    """Wise takes no text around it."""
    lines = made.pem.split("\n")
    assert (lines[0], lines[-2:]) == ("-----BEGIN CERTIFICATE REQUEST-----", ["-----END CERTIFICATE REQUEST-----", ""])
    assert made.pem == made.request.public_bytes(Encoding.PEM).decode()


def _spki(holder: x509.CertificateSigningRequest | RSAPrivateKey | EllipticCurvePrivateKey) -> bytes:
    return holder.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def test_the_key_is_the_requests_as_plain_pkcs8(made: Made) -> None:
    """Masked, under the name of its field, and exactly as other code would write it."""
    key = made.key
    assert made.private_key.name == "private_key"
    assert made.private_key == Secret(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    assert _spki(made.request) == _spki(key)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
@pytest.mark.parametrize("tampered", [False, True])
def test_openssl_accepts_the_request(made: Made, tampered: bool) -> None:
    """And, so that this says something, refuses one with another signature."""
    pem = made.pem
    if tampered:
        der = made.request.public_bytes(Encoding.DER)
        body = subprocess.run(
            ["openssl", "base64"], input=der[:-1] + bytes([der[-1] ^ 1]), capture_output=True, check=True
        )
        pem = f"-----BEGIN CERTIFICATE REQUEST-----\n{body.stdout.decode()}-----END CERTIFICATE REQUEST-----\n"
    done = subprocess.run(
        ["openssl", "req", "-verify", "-noout", "-subject", "-nameopt", "RFC2253,-esc_msb,utf8"],
        input=pem.encode(), capture_output=True, timeout=30, check=False,
    )  # fmt: skip
    assert (b"verify OK" in done.stderr) is not tampered
    if not tampered:
        assert (done.returncode, done.stdout.decode()) == (0, f"subject=CN={CLIENT_ID},O={ORGANISATION}\n")


def test_the_certificate_made_from_it_serves_with_the_key(made: Made) -> None:
    """Over mTLS, as far as a token and an API call."""
    wise = MockWise()
    wise.state.client_id = CLIENT_ID
    with wise:
        wise.write_credentials(wise.directory, issued=Issued(_issue(wise.authority, made.request), made.key))
        with wise_creds.connect("sandbox", config=wise.config) as connection, connection.client() as http:
            assert http.get("/v2/profiles").status_code == 200
            credentials = connection.current().credentials
        assert credentials.certificate is not None
        assert (credentials.certificate.common_name, credentials.certificate.key_type) == (CLIENT_ID, made.kind)
        assert credentials.private_key == made.private_key


def test_two_requests_have_two_keys() -> None:
    """Nothing is kept between them."""
    (_, one), (_, other) = (make_request(ID, ORGANISATION, kind="ec-p256") for _ in range(2))
    assert one != other


def test_every_kind_is_one_that_the_check_of_credentials_accepts() -> None:
    """And all of them."""
    from wise_creds._material import _ACCEPTED_KEYS

    assert sorted(KINDS) == sorted(_ACCEPTED_KEYS)


@pytest.mark.parametrize(
    "organisation", ["", " ", " Example", "Example ", "Exa\nmple", "Exa\x00mple", "x" * 65, "\ud800"]
)
def test_an_organisation_that_does_not_serve_is_refused(organisation: str) -> None:
    """Empty, too long, or not printable."""
    with pytest.raises(ConfigError) as caught:
        make_request(ID, organisation, kind="ec-p256")
    assert (caught.value.code, caught.value.location, bool(caught.value.hint)) == ("WC710", "organisation", True)


def test_a_kind_that_wise_does_not_take_is_refused() -> None:
    """The hint lists the others."""
    with pytest.raises(ConfigError) as caught:
        make_request(ID, ORGANISATION, kind="rsa-1024")
    assert (caught.value.code, caught.value.location, caught.value.hint) == ("WC710", "kind", ", ".join(KINDS))


@pytest.mark.parametrize(
    "client_id", ["", f"{CLIENT_ID} ", f"{CLIENT_ID}\n", CLIENT_ID * 4, f"{CLIENT_ID}é", b"\xff\xfe"]
)
def test_a_client_id_that_does_not_serve_is_refused_without_showing_it(client_id: str | bytes) -> None:
    """It could not be sent to Wise either."""
    error = _failure(partial(make_request, Secret(client_id), ORGANISATION, kind="ec-p256"))
    assert isinstance(error, CredentialsError)
    assert (error.code, error.location, bool(error.hint)) == ("WC711", "client_id", True)
    assert leaks({"id": CLIENT_ID}, _rendered(error)) == []


@pytest.mark.parametrize("length", [1, 64])
def test_names_of_the_shortest_and_the_longest_length_serve(length: int) -> None:
    """X.520 counts characters, not bytes."""
    pem, _ = make_request(Secret("i" * length), "É" * length, kind="ec-p256")
    parts = x509.load_pem_x509_csr(pem.encode()).subject
    assert [part.value for part in parts] == ["É" * length, "i" * length]


# Nothing shows


def _failure(call: Callable[[], object]) -> Exception:
    """Give what a call raises; the frames of the test, which know the values, are not in its traceback."""
    try:
        call()
    except Exception as error:
        return error
    raise AssertionError


def _rendered(error: Exception) -> str:
    frames = traceback.TracebackException.from_exception(error, capture_locals=True).format()
    return "".join(frames) + repr(error.args) + repr(vars(error)) + repr(error.__context__)


def _private(pem: str) -> str:
    """A part of a P-256 key that holds nothing but the secret number: what is around it stands in the request too."""
    return pem.splitlines()[1][48:]


def test_the_result_and_the_log_hold_no_key(caplog: pytest.LogCaptureFixture) -> None:
    """The request, of course, shows the client ID: it is made for being handed out."""
    with caplog.at_level(logging.DEBUG):
        result = make_request(ID, ORGANISATION, kind="ec-p256")
    canary = {"key": _private(result[1].reveal())}
    assert leaks(canary, repr(result), *result, caplog.text) == []
    naive = (result[0], result[1].reveal())
    assert leaks(canary, repr(naive)) == ["key"]


@pytest.mark.parametrize(
    ("call", "found"),
    [(make_request, []), (make_request.__wrapped__, ["key", "id"])],  # type: ignore[attr-defined]  # functools.wraps
    ids=["ours", "the same without the shield"],
)
def test_a_failure_on_the_way_shows_neither_key_nor_client_id(
    call: Callable[..., object], found: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even when the library that fails quotes the key."""
    keys: list[str] = []

    def explode(_builder: object, key: EllipticCurvePrivateKey, _digest: object) -> NoReturn:
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
        keys.append(_private(pem))
        raise ValueError(pem)

    monkeypatch.setattr(x509.CertificateSigningRequestBuilder, "sign", explode)
    error = _failure(partial(call, ID, ORGANISATION, kind="ec-p256"))
    assert leaks({"key": keys[0], "id": CLIENT_ID}, _rendered(error)) == found
    assert isinstance(error, WiseCredsError if found == [] else ValueError)
