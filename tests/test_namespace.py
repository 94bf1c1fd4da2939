"""Sandbox and production, their hosts, and the guard between them."""

from __future__ import annotations

import pytest

from wise_creds import Namespace, NamespaceError
from wise_creds.errors import Notice
from wise_creds.namespace import Endpoints, endpoints, is_loopback, legal_host

S, P = Namespace.SANDBOX, Namespace.PRODUCTION


def _told(namespace: Namespace, **given: object) -> tuple[Endpoints, list[NamespaceError | Notice]]:
    told: list[NamespaceError | Notice] = []
    return endpoints(namespace, report=told.append, **given), told  # type: ignore[arg-type]


def test_each_namespace_has_its_own_default_hosts() -> None:
    """From Wise's table; the two production names follow no common rule."""
    found = {(n, m): _told(n, mtls=m) for n in Namespace for m in (True, False)}
    assert {key: (where.base_url, told) for key, (where, told) in found.items()} == {
        (S, True): ("https://api-mtls.wise-sandbox.com", []),
        (S, False): ("https://api.wise-sandbox.com", []),
        (P, True): ("https://api-mtls.transferwise.com", []),
        (P, False): ("https://api.wise.com", []),
    }
    assert found[P, True][0].token_url == "https://api-mtls.transferwise.com/oauth/token"


@pytest.mark.parametrize(
    ("namespace", "url", "codes"),
    [
        (P, "https://api-mtls.wise-sandbox.com", ["WC201"]),
        (P, "https://API-MTLS.Wise-Sandbox.com", ["WC201"]),
        (P, "https://foo.wise-sandbox.com", ["WC201"]),
        (S, "https://api-mtls.transferwise.com", ["WC201"]),
        (S, "https://api.wise.com./", ["WC204"]),
        (S, "https://gateway.example", ["WC202"]),
        (P, "https://localhost:8443", ["WC202"]),
        (P, "https://127.0.0.1", ["WC202"]),
        (S, "https://api.sandbox.transferwise.tech", ["WC210"]),
        (S, "http://api-mtls.wise-sandbox.com", ["WC203"]),
        (S, "http://localhost:8080", ["WC203"]),
        (S, "https://user@api-mtls.wise-sandbox.com", ["WC204"]),
        (S, "https://u:p@api-mtls.wise-sandbox.com", ["WC204"]),
        (S, "https://api-mtls.wise-sandbox.com?x=1", ["WC204"]),
        (S, "https://api-mtls.wise-sandbox.com#x", ["WC204"]),
        (S, "https://api-mtls.wise-sandbox.com\\@evil.example", ["WC204"]),
        (S, "https://api-mtls.wise-sandbox.com:99999", ["WC204"]),
        (S, "https://[::1", ["WC204"]),
        (S, "https://", ["WC204"]),
        (S, "ftp://localhost", ["WC204"]),
        (S, "localhost", ["WC204"]),
        (S, "https://127.1", ["WC204"]),
        (S, "https://0x7f000001", ["WC204"]),
        (S, "https://api-mtls.wise-sandbox.com/ x", ["WC204"]),
        (S, "https://wíse.com", ["WC204"]),
        (S, "https://localhost:8443/prefix", []),
        (S, "https://[::1]:8443", []),
        (S, "https://127.0.0.2", []),
        (P, "https://api.transferwise.com", ["WC212", "WC211"]),
        (P, "https://api-mtls.wise.com", ["WC212"]),
        (P, "https://api.wise.com", ["WC211"]),
    ],
)
def test_a_base_url_is_judged_before_anything_is_sent(namespace: Namespace, url: str, codes: list[str]) -> None:
    """The other namespace's hosts, unknown hosts, plain http, and anything that is more than a plain URL."""
    assert [told.code for told in _told(namespace, base_url=url)[1]] == codes


def test_plain_http_is_for_sandbox_to_loopback_without_mtls() -> None:
    """All three together, or not at all."""
    assert _told(S, base_url="http://127.0.0.1:1", mtls=False)[1] == []
    assert [
        told.code for told in _told(P, base_url="http://127.0.0.1:1", mtls=False, allow_hosts=["127.0.0.1"])[1]
    ] == ["WC203"]


def test_an_mtls_host_without_a_certificate_is_worth_a_warning() -> None:
    """The reverse case stands in the table above."""
    assert [told.code for told in _told(S, base_url="https://api-mtls.wise-sandbox.com", mtls=False)[1]] == ["WC211"]


def test_allowed_hosts_are_exact_and_never_the_other_namespaces() -> None:
    """A gateway may be allowed; a wildcard, a URL or a foreign Wise host may not."""
    where, told = _told(P, base_url="https://Gateway.example:8443", allow_hosts=["GATEWAY.example", "10.0.0.1"])
    assert (where.allow_hosts, told) == (frozenset({"gateway.example", "10.0.0.1"}), [])
    bad = ["*.example", "https://x.example", "x.example:1", "api.wise-sandbox.com", "127.1", ""]
    assert [told.code for told in _told(P, allow_hosts=bad)[1]] == [
        "WC204", "WC204", "WC204", "WC201", "WC204", "WC204",
    ]  # fmt: skip


def test_a_token_url_is_judged_like_a_base_url() -> None:
    """And named as what it is."""
    told = _told(P, token_url="https://api-mtls.wise-sandbox.com/oauth/token")[1]
    assert [(one.code, one.location) for one in told] == [("WC201", "token_url")]


@pytest.mark.parametrize(
    ("scheme", "host", "port", "userinfo", "passes"),
    [
        ("https", "localhost", 8443, False, True),
        ("https", "LOCALHOST", 8443, False, True),
        ("https", "localhost", 8444, False, False),
        ("https", "localhost", None, False, False),
        ("http", "localhost", 8443, False, False),
        ("https", "localhost", 8443, True, False),
        ("https", "auth.example", None, False, True),
        ("https", "auth.example", 443, False, True),
        ("https", "auth.example.", 443, False, False),
        ("https", "gateway.example", 9, False, True),
        ("http", "gateway.example", 9, False, False),
        ("https", "evil.example", 443, False, False),
        ("https", "localhost.evil.example", 8443, False, False),
    ],
)
def test_the_guard_knows_two_origins_and_the_allowed_hosts(
    scheme: str, host: str, port: int | None, userinfo: bool, passes: bool
) -> None:
    """Scheme, host and port of base_url and token_url; an allowed host on any port, over https."""
    where = Endpoints(S, "https://localhost:8443", "https://auth.example/oauth/token", frozenset({"gateway.example"}))
    if passes:
        where.check(scheme, host, port, userinfo=userinfo)
    else:
        with pytest.raises(NamespaceError) as caught:
            where.check(scheme, host, port, userinfo=userinfo)
        assert (caught.value.code, caught.value.namespace) == ("WC205", "sandbox")


def test_loopback_is_told_by_form() -> None:
    """Nothing is resolved."""
    assert [host for host in ("localhost", "127.8.8.8", "::1", "10.0.0.1", "localhost.example") if is_loopback(host)] == [
        "localhost", "127.8.8.8", "::1",
    ]  # fmt: skip
    assert [host for host in ("a.example", "::1", "1.2.3.4", "1.2.3", "0x1", "a b", "a..b") if legal_host(host)] == [
        "a.example", "::1", "1.2.3.4",
    ]  # fmt: skip
