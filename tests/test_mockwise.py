"""MockWise is what it claims to be, and leaves nothing behind."""

from __future__ import annotations

import ssl
import threading
from pathlib import Path

import httpx
import pytest

import wise_creds
from wise_creds import TokenRejectedError
from wise_creds.testing import FAULTS, Authority, MockWise


def test_it_requires_and_records_client_certificates(mock_wise: MockWise) -> None:
    """Without one there is no answer."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=mock_wise.authority.issued.pem.decode())
    with httpx.Client(verify=context, trust_env=False) as http, pytest.raises(httpx.TransportError):
        http.get(f"{mock_wise.base_url}/v2/profiles")
    assert mock_wise.requests == []


def test_its_routes_answer_as_wise_does(mock_wise: MockWise) -> None:
    """Playground, profiles, quotes; 404 elsewhere; 401 with the presented token in the description."""
    with wise_creds.connect("sandbox", config=mock_wise.config) as wise, wise.client() as http:
        assert http.get("/v1/authenticated/playground").json() == {"message": "authenticated"}
        assert http.get("/v2/profiles").headers["x-trace-id"]
        assert http.post("/v3/quotes", json={}).json()["rate"]
        assert http.get("/nowhere").status_code == 404
        context = wise.current().ssl_context
        with httpx.Client(verify=context, trust_env=False, headers={"Authorization": "Bearer x"}) as plain:
            answer = plain.get(f"{mock_wise.base_url}/v2/profiles")
        assert (answer.status_code, answer.json()) == (401, {"error": "invalid_token", "error_description": "x"})


def test_rotation_replaces_what_is_on_disk(mock_wise: MockWise) -> None:
    """The old secret is dead, or lives on where they overlap; both certificates stay good."""
    old = wise_creds.load("sandbox", config=mock_wise.config)
    mock_wise.rotate_secret(overlap=True)
    mock_wise.rotate_certificate("rsa-2048")
    fetch = wise_creds.TokenFetcher(old, base_url=mock_wise.base_url).fetch
    assert fetch().remaining() > 0
    mock_wise.rotate_secret()
    with pytest.raises(TokenRejectedError):
        fetch()
    with wise_creds.connect("sandbox", config=mock_wise.config) as wise:
        certificate = wise.current().credentials.certificate
        assert certificate is not None
        assert certificate.key_type == "rsa-2048"


def test_an_unknown_fault_is_refused(mock_wise: MockWise) -> None:
    """With the names that there are."""
    with pytest.raises(ValueError, match="invalid_client"):
        mock_wise.fail("flood")
    assert "hang" in FAULTS


def test_credentials_are_private_and_go_with_it() -> None:
    """0700 and 0600, and nothing is left, not even a thread."""
    with MockWise() as wise:
        modes = {path.stat().st_mode & 0o777 for path in wise.directory.iterdir()}
        folder = wise.root
        assert (wise.directory.stat().st_mode & 0o777, modes) == (0o700, {0o600})
    assert not folder.exists()
    for thread in threading.enumerate():
        if thread.name == "MockWise":
            thread.join(10)
            assert not thread.is_alive()


def test_it_ends_while_clients_are_still_connected() -> None:
    """Their next request fails at once instead of hanging."""
    with MockWise() as mock:
        wise = wise_creds.connect("sandbox", config=mock.config)
        http = wise.client()
        http.get("/v2/profiles")
    with pytest.raises(httpx.TransportError):
        http.get("/v2/profiles")
    http.close()
    wise.close()


def test_a_request_that_makes_no_sense_is_refused_as_wise_does(mock_wise: MockWise) -> None:
    """A token request without its grant type."""
    with wise_creds.connect("sandbox", config=mock_wise.config, lazy=True) as wise:
        made = wise.current()
        secret = made.credentials.client_secret
        assert secret is not None
        with httpx.Client(verify=made.ssl_context, trust_env=False) as http:
            answer = http.post(f"{mock_wise.base_url}/oauth/token", auth=(mock_wise.client_id, secret.reveal()))
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")


def test_an_authority_signs_what_a_test_needs(tmp_path: Path) -> None:
    """Chains and revocation lists."""
    root = Authority("root")
    middle = Authority("middle", above=root)
    leaf = middle.client("x")
    assert leaf.certificate.issuer == middle.issued.certificate.subject
    assert middle.issued.certificate.issuer == root.issued.certificate.subject
    assert b"X509 CRL" in middle.revocation_list(leaf.certificate)
