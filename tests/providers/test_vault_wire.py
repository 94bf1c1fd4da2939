"""What the provider `vault` does on the wire: logins, failures, retries, TLS, and what must not get out."""

from __future__ import annotations

import base64
import http.client
import json
import logging
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import hvac
import hvac.exceptions
import pytest
from pydantic import ValidationError
from support import leaks, tcp_server
from vault_servers import FIELDS, Vault, fetched, refused, revealed, running, soon
from vault_standin import VaultStandIn

import wise_creds
from wise_creds import AccessDeniedError, LoadError, Namespace, ProviderUnavailableError, Secret
from wise_creds.clock import SYSTEM_CLOCK
from wise_creds.shield import attempt, unexpected
from wise_creds.testing import Authority, FakeClock
from wise_creds.tls import load_pair
from wise_creds_vault import VaultProvider
from wise_creds_vault._options import VaultOptions

READ = "GET kv/data/wise/sandbox"
PREFLIGHT = "GET sys/internal/ui/mounts/kv/wise/sandbox"


@pytest.fixture
def vault() -> Iterator[Vault]:
    with running("stand-in") as server:
        server.put(FIELDS)
        yield server


@pytest.fixture
def standin(vault: Vault) -> VaultStandIn:
    assert vault.standin is not None
    return vault.standin


# Requests


def test_a_read_is_one_request_after_the_first_and_the_probe_too(vault: Vault) -> None:
    """The token is looked up once, when it is first used."""
    provider = vault.provider()
    fetched(provider)
    fetched(provider)
    provider.probe(deadline=soon())
    assert vault.seen() == ["GET auth/token/lookup-self", READ, READ, "GET kv/metadata/wise/sandbox"]


def test_a_token_that_may_not_look_at_itself_may_still_read(vault: Vault, standin: VaultStandIn) -> None:
    """A policy without `default`."""
    standin.fail(403, {"errors": ["1 error occurred:\n\t* permission denied\n\n"]}, path="lookup-self")
    assert revealed(fetched(vault.provider())) == FIELDS


def test_a_lookup_that_cannot_be_made_is_an_outage(vault: Vault, standin: VaultStandIn) -> None:
    """Not a token without an end."""
    standin.fail(500, times=9, path="lookup-self")
    assert refused(vault.provider()).code == "WC303"


def test_a_token_near_its_end_is_renewed_once(vault: Vault, standin: VaultStandIn) -> None:
    """At two thirds of its life, on the way to a read."""
    clock = FakeClock()
    auth = vault.approle(token_ttl="20m", token_max_ttl="24h")
    provider = vault.provider(auth=auth, environ={"SECRET_ID": vault.secret_id()}, clock=clock)
    for seconds in (0, 700, 200, 10):
        clock.advance(seconds)
        standin.advance(seconds)
        provider.fetch(deadline=clock.boot() + 10)
    assert vault.seen() == ["POST auth/approle/login", READ, READ, "POST auth/token/renew-self", READ, READ]


@pytest.mark.parametrize("why", ["maximum", "refused", "not renewable"])
def test_what_cannot_be_renewed_is_got_anew(vault: Vault, standin: VaultStandIn, why: str) -> None:
    """At the maximum Vault gives ever shorter lives; a failed renewal is quiet."""
    clock = FakeClock()
    auth = vault.approle(token_ttl="20m", token_max_ttl="24h" if why == "refused" else "20m")
    provider = vault.provider(auth=auth, environ={"SECRET_ID": vault.secret_id()}, clock=clock)
    provider.fetch(deadline=clock.boot() + 10)
    if why == "refused":
        standin.fail(403, path="renew-self")
    clock.advance(900)
    standin.advance(900)
    if why == "not renewable":
        assert provider._lease is not None
        object.__setattr__(provider._lease, "renewable", False)
    provider.fetch(deadline=clock.boot() + 10)
    renewal = [] if why == "not renewable" else ["POST auth/token/renew-self"]
    assert vault.seen() == ["POST auth/approle/login", READ, *renewal, "POST auth/approle/login",
                            "POST auth/token/revoke-self", READ]  # fmt: skip


def test_a_403_with_a_token_that_is_no_good_any_more_costs_one_login_and_one_more_read(
    vault: Vault, standin: VaultStandIn
) -> None:
    """Then it is a missing right."""
    provider = vault.provider(auth=vault.approle(), environ={"SECRET_ID": vault.secret_id()})
    fetched(provider)
    vault.seen()
    standin.fail(403, {"errors": ["permission denied"]}, times=9, path="/data/")
    standin.fail(403, {"errors": ["permission denied"]}, path="lookup-self")
    assert refused(provider).code == "WC302"
    assert vault.seen() == [READ, "GET auth/token/lookup-self", "POST auth/approle/login", "POST auth/token/revoke-self",
                            READ]  # fmt: skip


def test_a_403_with_a_good_token_is_a_missing_right_at_once(vault: Vault) -> None:
    """No login: a wrapped secret ID serves once, and each login makes a token that somebody must revoke."""
    rules = 'path "%/data/*" { capabilities = ["read"] }\npath "auth/token/lookup-self" { capabilities = ["read"] }'
    auth = {**vault.approle(rules), "secret_id_wrapped": True}
    provider = vault.provider(auth=auth, environ={"SECRET_ID": vault.secret_id(wrapped=True)})
    fetched(provider)
    vault.seen()
    assert [provider.probe(deadline=soon()), provider.probe(deadline=soon())] == ["1", "1"]
    assert vault.seen() == ["GET kv/metadata/wise/sandbox", "GET auth/token/lookup-self", READ, READ]


def test_a_login_that_is_refused_after_a_403_leaves_the_first_error_and_the_token(
    vault: Vault, standin: VaultStandIn
) -> None:
    """The token may be good for other reads yet."""
    provider = vault.provider(auth=vault.approle(), environ={"SECRET_ID": vault.secret_id()})
    fetched(provider)
    for path in ("/metadata/", "lookup-self", "approle/login"):
        standin.fail(403, {"errors": ["permission denied"]}, path=path)
    assert provider.probe(deadline=soon()) == "1"
    assert revealed(fetched(provider)) == FIELDS


def test_an_unwrapped_secret_id_serves_later_logins(vault: Vault) -> None:
    """The wrapping token is used up by the first."""
    auth = {**vault.approle(), "secret_id_wrapped": True}
    provider = vault.provider(auth=auth, environ={"SECRET_ID": vault.secret_id(wrapped=True)})
    for _ in range(2):
        assert revealed(fetched(provider)) == FIELDS
        provider.close()


def test_a_custom_secret_id_may_be_wrapped_too(vault: Vault, standin: VaultStandIn) -> None:
    """Its creation path is another."""
    auth = {**vault.approle(), "secret_id_wrapped": True}
    path = f"auth/approle/role/{vault.role}/custom-secret-id"
    standin.fail(200, {"data": {"creation_path": path}}, path="wrapping/lookup")
    provider = vault.provider(auth=auth, environ={"SECRET_ID": vault.secret_id(wrapped=True)})
    assert revealed(fetched(provider)) == FIELDS


def test_while_a_token_lasts_a_login_that_fails_changes_nothing(vault: Vault, standin: VaultStandIn) -> None:
    """Neither renewed nor replaced, it serves to its end; then the failure is told."""
    clock = FakeClock()
    auth = vault.approle(token_ttl="20m", token_max_ttl="20m")
    provider = vault.provider(auth=auth, environ={"SECRET_ID": vault.secret_id()}, clock=clock)
    provider.fetch(deadline=clock.boot() + 10)
    standin.fail(400, {"errors": ["invalid role or secret ID"]}, times=9, path="approle/login")
    for seconds in (900, 10, 30):
        clock.advance(seconds)
        standin.advance(seconds)
        assert revealed(provider.fetch(deadline=clock.boot() + 10)) == FIELDS
    assert vault.seen().count("POST auth/approle/login") == 3
    clock.advance(300)
    standin.advance(300)
    with pytest.raises(AccessDeniedError, match="WC325"):
        provider.fetch(deadline=clock.boot() + 10)


def test_a_provider_that_came_by_a_fork_logs_in_for_itself(vault: Vault) -> None:
    """As if this process were the child; the lock may be held by a thread that did not come along."""
    provider = vault.provider(auth=vault.approle(), environ={"SECRET_ID": vault.secret_id()})
    fetched(provider)
    provider._pid = 0
    with provider._lock:
        fetched(provider)
    assert vault.seen() == ["POST auth/approle/login", READ] * 2


def test_threads_at_once_log_in_once(vault: Vault) -> None:
    """A probe of the watcher may meet a refresh."""
    provider = vault.provider(auth=vault.approle(), environ={"SECRET_ID": vault.secret_id()})
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda _: fetched(provider), range(8)))
    assert vault.seen().count("POST auth/approle/login") == 1


def test_a_login_that_another_thread_does_not_end_is_not_waited_for_beyond_the_deadline(vault: Vault) -> None:
    """The lock has the deadline of the read."""
    provider = vault.provider()
    with provider._lock, pytest.raises(ProviderUnavailableError, match="WC304"):
        provider.fetch(deadline=SYSTEM_CLOCK.boot() + 0.1)


def test_a_token_got_while_the_provider_was_closed_is_revoked(vault: Vault, standin: VaultStandIn) -> None:
    """A load that was given up may end after its loader."""
    provider = vault.provider(auth=vault.approle(), environ={"SECRET_ID": vault.secret_id()})
    original = httpx.HTTPTransport.handle_request

    def closing(self: httpx.HTTPTransport, request: httpx.Request) -> httpx.Response:
        response = original(self, request)
        if request.url.path.endswith("/login"):
            provider.close()
        return response

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(httpx.HTTPTransport, "handle_request", closing)
        assert refused(provider).code == "WC304"
    assert (vault.seen(), provider._lease) == (["POST auth/approle/login", "POST auth/token/revoke-self"], None)


def test_a_token_file_that_was_replaced_is_read_when_the_token_is_due(vault: Vault, tmp_path: Path) -> None:
    """Not renewed for ever beside it."""
    clock, path = FakeClock(), tmp_path / "token"
    rules = 'path "%/*" { capabilities = ["read"] }'
    first, second = vault.allow(rules), vault.allow(rules)
    path.write_text(first)
    provider = vault.provider(auth={"method": "token", "token_file": str(path)}, clock=clock)
    provider.fetch(deadline=clock.boot() + 10)
    path.write_text(second)
    clock.advance(3000)
    provider.fetch(deadline=clock.boot() + 10)
    assert provider._lease is not None
    assert provider._lease.token == Secret(second)


def test_closing_revokes_once_and_only_what_is_ours(vault: Vault, standin: VaultStandIn) -> None:
    """A token that was given to us stays; an unreachable Vault does not matter."""
    given = vault.provider()
    fetched(given)
    given.close()
    ours = vault.provider(auth=vault.approle(), environ={"SECRET_ID": vault.secret_id()})
    fetched(ours)
    vault.seen()
    ours.close()
    ours.close()
    assert vault.seen() == ["POST auth/token/revoke-self"]
    fetched(ours)
    standin.fail(400, path="revoke-self")
    ours.close()


def test_a_batch_token_is_not_revoked(vault: Vault) -> None:
    """It cannot be."""
    auth = vault.approle(token_type="batch")
    provider = vault.provider(auth=auth, environ={"SECRET_ID": vault.secret_id()})
    fetched(provider)
    lease = provider._lease
    assert lease is not None
    provider.close()
    assert (lease.own, "POST auth/token/revoke-self" in vault.seen()) == (False, False)


# Other logins


@pytest.mark.parametrize("method", ["jwt", "kubernetes"])
def test_a_jwt_is_read_anew_at_each_login(vault: Vault, standin: VaultStandIn, tmp_path: Path, method: str) -> None:
    """The kubelet replaces it."""
    vault.ask("PUT", "sys/policies/acl/reader", {"policy": f'path "{vault.mount}/*" {{ capabilities = ["read"] }}'})
    path = tmp_path / "jwt"
    provider = vault.provider(auth={"method": method, "role": "payments", "token_file": str(path)})
    for jwt in ("canary-jwt.first.x", "canary-jwt.second.x"):
        standin.accept_jwt(method, "payments", jwt)
        path.write_text(jwt)
        assert revealed(fetched(provider)) == FIELDS
        provider.close()
    bodies = [json.loads(one.body) for one in standin.requests if one.path == f"/v1/auth/{method}/login"]
    assert bodies == [{"role": "payments", "jwt": f"canary-jwt.{n}.x"} for n in ("first", "second")]
    path.write_text("canary-jwt.stranger.x")
    problem = refused(provider)
    assert (problem.code, leaks({"jwt": "canary-jwt.stranger.x"}, problem)) == ("WC325", [])


@pytest.mark.parametrize(("region", "host", "server"), [
    ("eu-west-1", "sts.eu-west-1.amazonaws.com", {"server_id": "vault.example"}),
    ("cn-north-1", "sts.cn-north-1.amazonaws.com.cn", {}),
])  # fmt: skip
def test_aws_signs_for_the_regions_sts_and_for_this_vault_only(
    vault: Vault, standin: VaultStandIn, monkeypatch: pytest.MonkeyPatch, region: str, host: str, server: dict[str, str]
) -> None:
    """The header with the server's ID is signed too; the secret key is nowhere."""
    vault.ask("PUT", "sys/policies/acl/reader", {"policy": f'path "{vault.mount}/*" {{ capabilities = ["read"] }}'})
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIACANARY0000000000")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary-aws-secret-access-key")
    seen: list[Mapping[str, Any]] = []
    standin.accept_aws("payments", lambda body: not seen.append(body))  # type: ignore[func-returns-value]
    auth = {"method": "aws", "role": "payments", "region": region, **server}
    assert revealed(fetched(vault.provider(auth=auth))) == FIELDS
    text = {
        name: base64.b64decode(value).decode() for name, value in seen[0].items() if name.startswith("iam_request_")
    }
    headers = json.loads(text["iam_request_headers"])
    assert (text["iam_request_url"], text["iam_request_body"]) == (
        f"https://{host}/", "Action=GetCallerIdentity&Version=2011-06-15")  # fmt: skip
    assert f"/{region}/sts/aws4_request" in headers["Authorization"]
    assert ("x-vault-aws-iam-server-id" in headers["Authorization"]) is bool(server)
    assert leaks({"key": "canary-aws-secret-access-key"}, text, seen) == []


def test_aws_without_credentials_or_without_boto3_says_what_is_missing(
    vault: Vault, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Both before the network."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    provider = vault.provider(auth={"method": "aws", "role": "payments", "region": "eu-west-1"})
    assert refused(provider).code == "WC324"
    monkeypatch.setitem(__import__("sys").modules, "boto3", None)
    problem = refused(provider)
    assert (problem.code, problem.hint, vault.seen()) == ("WC123", "pip install 'wise-creds[aws]'", [])


class Tls:
    """An authority, a server context that asks for client certificates, and files for both sides."""

    def __init__(self, folder: Path) -> None:
        self.authority = Authority()
        server, client = self.authority.server(), self.authority.client("payments")
        self.fingerprint = client.certificate.fingerprint(
            __import__("cryptography").hazmat.primitives.hashes.SHA256()
        ).hex()
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        load_pair(self.context, server.pem, server.key_pem)
        self.context.verify_mode = ssl.CERT_OPTIONAL
        self.context.load_verify_locations(cadata=self.authority.issued.pem.decode())
        self.files = {"ca_bundle": str(folder / "ca.pem")}
        self.pair = {"certificate_file": str(folder / "tls.crt"), "private_key_file": str(folder / "tls.key")}
        for path, content in (
            ("ca.pem", self.authority.issued.pem),
            ("tls.crt", client.pem),
            ("tls.key", client.key_pem),
        ):
            (folder / path).write_bytes(content)


@pytest.mark.parametrize("where", ["auth", "source"])
def test_cert_logs_in_by_the_client_certificate(tmp_path: Path, where: str) -> None:
    """Over real mutual TLS; the pair may stand in the auth table or serve Vault's own TLS as well."""
    tls = Tls(tmp_path)
    with VaultStandIn(tls=tls.context) as standin:
        client = httpx.Client(verify=ssl.create_default_context(cadata=tls.authority.issued.pem.decode()),
                              headers={"X-Vault-Token": standin.root_token}, base_url=standin.address)  # fmt: skip
        with client:
            client.post("/v1/kv/data/wise/sandbox", json={"data": FIELDS}).raise_for_status()
            client.put("/v1/sys/policies/acl/reader", json={"policy": 'path "kv/*" { capabilities = ["read"] }'})
        standin.accept_certificate("payments", tls.fingerprint)
        auth = {"method": "cert", "name": "payments", **(tls.pair if where == "auth" else {})}
        given = {"address": standin.address, "mount": "kv", "path": "wise/sandbox", "auth": auth, **tls.files,
                 **(tls.pair if where == "source" else {})}  # fmt: skip
        assert revealed(fetched(made(given))) == FIELDS
        (tmp_path / "tls.crt").write_bytes(tls.authority.client("stranger").pem)
        assert refused(made(given)).code == "WC348"
        problem = refused(made({**given, "auth": {"method": "cert", "name": "nobody", **tls.pair}}))
        assert problem.code == "WC348"


def made(options: dict[str, Any], **environ: str) -> VaultProvider:
    chosen = VaultOptions.model_validate(options, context={"base": "."})
    return VaultProvider(chosen, namespace=Namespace.SANDBOX, environ=environ, clock=SYSTEM_CLOCK)


def test_an_unknown_ca_and_an_unreadable_bundle_are_told_apart(tmp_path: Path) -> None:
    """TLS failures are not retried: no attempt would end otherwise."""
    tls = Tls(tmp_path)
    with VaultStandIn(tls=tls.context) as standin:
        given = {"address": standin.address, "mount": "kv", "path": "wise/sandbox",
                 "auth": {"method": "token", "token_env": "TOKEN"}}  # fmt: skip
        problem = refused(made(given, TOKEN="s.canary-token"))
        assert (problem.code, problem.retryable) == ("WC347", False)
        assert "CERTIFICATE_VERIFY_FAILED" in problem.message
        for content in (b"", b"\xff"):
            (tmp_path / "ca.pem").write_bytes(content)
            assert refused(made({**given, **tls.files}, TOKEN="s.canary-token")).code == "WC348"
        assert refused(made({**given, "ca_bundle": str(tmp_path / "none")}, TOKEN="s.canary-token")).code == "WC348"


def test_a_ca_bundle_may_have_comments_in_any_script(tmp_path: Path) -> None:
    """As distributions ship them."""
    tls = Tls(tmp_path)
    (tmp_path / "ca.pem").write_bytes("# F\u0151tan\u00fas\u00edtv\u00e1ny\n".encode() + tls.authority.issued.pem)
    with VaultStandIn(tls=tls.context) as standin:
        given = {"address": standin.address, "mount": "kv", "path": "nothing", **tls.files,
                 "auth": {"method": "token", "token_env": "TOKEN"}}  # fmt: skip
        assert refused(made(given, TOKEN=standin.root_token)).code == "WC301"


def test_an_encrypted_key_is_refused_and_never_asked_for(tmp_path: Path) -> None:
    """OpenSSL would wait at the terminal for ever."""
    from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat

    tls = Tls(tmp_path)
    key = tls.authority.client("payments").key
    locked = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"password"))
    (tmp_path / "tls.key").write_bytes(locked)
    given = {"address": "https://127.0.0.1:1", "mount": "kv", "path": "p", "auth": {"method": "cert", **tls.pair}}
    assert refused(made(given)).code == "WC348"


@pytest.mark.parametrize("socket", [False, True])
def test_an_agent_gets_no_token_and_the_header_against_forged_requests(tmp_path: Path, socket: bool) -> None:
    """On loopback and on a unix socket."""
    path = tmp_path / "agent.sock"
    with VaultStandIn(unix_socket=path if socket else None) as standin:
        standin.agent = True
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(path) if socket else None),
                          base_url="http://localhost" if socket else standin.address) as client:  # fmt: skip
            client.post("/v1/kv/data/wise/sandbox", json={"data": FIELDS},
                        headers={"X-Vault-Request": "true"}).raise_for_status()  # fmt: skip
        standin.requests.clear()
        provider = made(
            {"address": standin.address, "mount": "kv", "path": "wise/sandbox", "auth": {"method": "agent"}}
        )
        document = fetched(provider)
        provider.close()
        assert (revealed(document), len(standin.requests)) == (FIELDS, 1)
        assert standin.requests[0].headers["x-vault-request"] == "true"
        assert "x-vault-token" not in standin.requests[0].headers
        assert document.location == f"vault:{path if socket else standin.address.partition('//')[2]}:kv/wise/sandbox"


def test_a_namespace_is_sent_with_reads_and_may_differ_for_the_login(vault: Vault, standin: VaultStandIn) -> None:
    """Tokens are looked up, renewed and revoked where they were made."""
    vault.ask("POST", "sys/namespaces/team-a")
    inside = {"X-Vault-Namespace": "team-a"}
    vault.ask("POST", "kv/data/wise/sandbox", {"data": FIELDS}, **inside)
    rules = {"policy": 'path "team-a/kv/*" { capabilities = ["read"] }\npath "kv/*" { capabilities = ["read"] }'}
    auth = vault.approle()
    vault.ask("PUT", f"sys/policies/acl/{vault.role}", rules)
    provider = vault.provider(mount="kv", vault_namespace="team-a", auth={**auth, "vault_namespace": "team-b"},
                              environ={"SECRET_ID": vault.secret_id()})  # fmt: skip
    problem = refused(provider)
    assert (problem.code, "namespace team-b" in (problem.hint or "")) == ("WC341", True)
    assert refused(vault.provider(mount="kv", vault_namespace="team-b", auth={"method": "token", "token_env": "TOKEN",
                                  "vault_namespace": "team-a"})).code in ("WC343", "WC341")  # fmt: skip
    sent = [one.headers.get("x-vault-namespace") for one in standin.requests[-2:]]
    assert "team-a" in sent
    assert revealed(fetched(vault.provider(mount="kv", vault_namespace="team-a/"))) == FIELDS


# Failures


@pytest.mark.parametrize("step", ["/data/", "approle/login"])
@pytest.mark.parametrize("status", [0, 412, 429, 472, 473, 500, 502, 503, 504])
def test_what_may_pass_is_tried_again_reads_and_logins_alike(
    vault: Vault, standin: VaultStandIn, status: int, step: str
) -> None:
    """Two failures, then the answer."""
    provider = vault.provider(auth=vault.approle(), environ={"SECRET_ID": vault.secret_id()})
    standin.fail(status, times=2, path=step)
    assert revealed(fetched(provider)) == FIELDS


@pytest.mark.parametrize(
    ("status", "body", "code"),
    [
        (429, None, "WC327"),
        (503, {"errors": ["Vault is sealed"]}, "WC344"),
        (502, b"<html>bad gateway</html>", "WC303"),
        (400, {"errors": ["Upgrading from non-versioned to versioned data. canary"]}, "WC303"),
        (307, b"", "WC346"),
        (400, b"Client sent an HTTP request to an HTTPS server.\n", "WC336"),
        (200, b"<html>a proxy's login page</html>", "WC336"),
        (200, b"[1]", "WC336"),
        (200, b"[" * 20_000, "WC336"),
        (200, {"data": None}, "WC336"),
        (200, {"data": {"data": None, "metadata": {"version": 1}}}, "WC336"),
        (200, {"data": {"data": {}, "metadata": {}}}, "WC336"),
        (200, {"data": {"data": {}, "metadata": {"version": 1}}, "x": "y" * 140_000}, "WC308"),
        (404, b"not found", "WC336"),
        (405, {"errors": ["1 error occurred:\n\t* unsupported operation\n\n"]}, "WC335"),
        (404, {"errors": ['no handler for route "kv/data". route entry not found.']}, "WC339"),
        (200, {"data": {"data": {"client_id": 5}, "metadata": {"version": 1}}}, "WC310"),
    ],
)
def test_every_failure_has_its_code(vault: Vault, standin: VaultStandIn, status: int, body: Any, code: str) -> None:
    """And shows nothing of what came."""
    standin.fail(status, body, times=9, path="/data/")
    problem = refused(vault.provider())
    assert (problem.code, problem.location) == (code, f"vault:{vault.address[7:]}:{vault.mount}/wise/sandbox"
                                                + (": client_id" if code == "WC310" else ""))  # fmt: skip
    assert leaks({"text": "canary", "page": "a proxy's login page"}, problem) == []


@pytest.mark.parametrize(
    ("state", "code"), [({"sealed": True}, "WC344"), ({"initialised": False}, "WC345"), ({"standby": True}, "WC346")]
)
def test_a_server_that_cannot_serve_says_why(
    vault: Vault, standin: VaultStandIn, state: dict[str, bool], code: str
) -> None:
    """A standby redirects logins: the other address gets no request."""
    leader: list[bytes] = []
    with tcp_server(lambda connection: leader.append(connection.recv(1))) as port:
        standin.leader = f"http://127.0.0.1:{port}"
        auth = vault.approle()
        provider = vault.provider(auth=auth, environ={"SECRET_ID": vault.secret_id()})
        vars(standin).update(state)
        problem = refused(provider)
    assert (type(problem), problem.code, problem.retryable, leader) == (ProviderUnavailableError, code, True, [])


def test_the_probe_without_identity_or_of_nonsense_fails_as_a_read_does(vault: Vault, standin: VaultStandIn) -> None:
    """Only a missing right is answered by a read; the first engine is checked too."""
    with pytest.raises(AccessDeniedError, match="WC324"):
        vault.provider(auth={"method": "token", "token_env": "NONE"}).probe(deadline=soon())
    standin.fail(200, {"data": []}, path="/wise/")
    assert refused(vault.provider(kv_version=1)).code == "WC336"


@pytest.mark.parametrize("path", ["metadata", "data"])
@pytest.mark.parametrize("answer", [{"data": {"current_version": "1"}}, {"data": {"current_version": 1}}, {"data": []}])
def test_metadata_and_data_of_the_wrong_shape_are_refused(
    vault: Vault, standin: VaultStandIn, path: str, answer: Any
) -> None:
    """As no answer of Vault's."""
    standin.fail(200, answer, times=9, path=f"/{path}/")
    with pytest.raises(wise_creds.ProviderError, match="WC336"):
        vault.provider().probe(deadline=soon()) if path == "metadata" else fetched(vault.provider())


@pytest.mark.parametrize(
    "answer",
    [{}, {"auth": None}, *({"auth": {"client_token": token}} for token in ("", "two\r\nlines", 5))],
)
def test_a_login_without_a_token_is_refused(vault: Vault, standin: VaultStandIn, answer: Any) -> None:
    """One that could not be sent neither."""
    provider = vault.provider(auth=vault.approle(), environ={"SECRET_ID": vault.secret_id()})
    standin.fail(200, answer, times=9, path="login")
    assert refused(provider).code == "WC336"


@pytest.mark.parametrize("answer", [{}, {"data": None}, {"data": {"secret_id": 5}}])
def test_an_unwrapping_without_a_secret_id_is_refused(vault: Vault, standin: VaultStandIn, answer: Any) -> None:
    """After a lookup that looked right."""
    auth = {**vault.approle(), "secret_id_wrapped": True}
    provider = vault.provider(auth=auth, environ={"SECRET_ID": vault.secret_id(wrapped=True)})
    standin.fail(200, answer, path="unwrap")
    assert refused(provider).code == "WC336"


@pytest.mark.parametrize("answer", [{"data": []}, {"data": {"ttl": "1h", "renewable": "yes"}}])
def test_a_lookup_of_the_wrong_shape_is_a_token_of_unknown_life(
    vault: Vault, standin: VaultStandIn, answer: Any
) -> None:
    """It may still read."""
    standin.fail(200, answer, path="lookup-self")
    assert revealed(fetched(vault.provider())) == FIELDS


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        ((403, {"errors": ["canary"]}), "WC301"),
        ((200, {"data": {"options": None, "type": "kv"}}), "WC340"),
        ((200, {"data": []}), "WC301"),
    ],
)
def test_the_look_at_the_engine_tells_what_it_can(
    vault: Vault, standin: VaultStandIn, answer: tuple[int, Any], code: str
) -> None:
    """Refused, an old first version without options, or nonsense."""
    provider = vault.provider(path="nothing")
    fetched(vault.provider())
    vault.seen()
    standin.fail(*answer, path="internal/ui")
    problem = refused(provider)
    refusal = "or the engine is version 1 and needs kv_version = 1: Vault refused to say"
    assert (problem.code, problem.hint == refusal) == (code, answer[0] == 403)


def test_a_silent_vault_ends_with_the_deadline(vault: Vault, standin: VaultStandIn) -> None:
    """`timeout` bounds an attempt, the deadline all of them."""
    standin.fail(-1, times=9)
    began = SYSTEM_CLOCK.boot()
    with pytest.raises(ProviderUnavailableError, match="WC304"):
        vault.provider(timeout=0.2).fetch(deadline=began + 0.5)
    assert SYSTEM_CLOCK.boot() - began < 2


def test_a_vault_that_trickles_ends_with_the_deadline() -> None:
    """Each byte is in time, the answer is not."""
    done = threading.Event()

    def trickle(connection: socket.socket) -> None:
        connection.recv(65_536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 200\r\n\r\n")
        for _ in range(200):
            connection.sendall(b" ")
            if done.wait(0.02):
                return

    with tcp_server(trickle) as port:
        given = {"address": f"http://127.0.0.1:{port}", "mount": "kv", "path": "p", "auth": {"method": "agent"}}
        began = SYSTEM_CLOCK.boot()
        with pytest.raises(ProviderUnavailableError, match="WC304"):
            made(given).fetch(deadline=began + 0.3)
        done.set()
    assert SYSTEM_CLOCK.boot() - began < 2


def test_a_deadline_that_has_passed_asks_nobody(vault: Vault) -> None:
    """Not even once."""
    with pytest.raises(ProviderUnavailableError, match="WC304"):
        vault.provider().fetch(deadline=SYSTEM_CLOCK.boot() - 1)
    assert vault.seen() == []


@pytest.mark.parametrize("given", ["7", "soon", "9999"])
def test_retry_after_is_kept_where_it_fits_the_deadline(vault: Vault, standin: VaultStandIn, given: str) -> None:
    """Seven seconds do not fit into five: the error comes at once. What is no small number is not read."""
    standin.fail(429, headers={"Retry-After": given}, path="/data/")
    provider = vault.provider()
    deadline = SYSTEM_CLOCK.boot() + 5
    if given == "7":
        with pytest.raises(ProviderUnavailableError, match="WC327"):
            provider.fetch(deadline=deadline)
    else:
        assert revealed(provider.fetch(deadline=deadline)) == FIELDS


def test_a_vault_that_is_not_there_is_unreachable(vault: Vault) -> None:
    """Nobody listens."""
    problem = refused(vault.provider(address="http://127.0.0.1:1"))
    assert (problem.code, "ECONNREFUSED" in problem.message) == ("WC303", True)


def test_a_version_that_will_delete_itself_is_told(vault: Vault) -> None:
    """`delete_version_after` makes a good secret vanish by time."""
    vault.ask("POST", f"{vault.mount}/metadata/wise/short", {"delete_version_after": "1h"})
    vault.put(FIELDS, "wise/short")
    provider = vault.provider(path="wise/short")
    assert [notice.code for notice in fetched(provider).notices] == ["WC349"]
    assert provider.probe(deadline=soon()) == "1"


def test_sources_whose_versions_cannot_be_compared_are_not_taken_together(
    vault: Vault, standin: VaultStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A probe that fails does not say that nothing has moved."""
    vault.put({"environment": "sandbox"}, "wise/other")
    monkeypatch.setenv("TOKEN", vault.token)
    sources = [{**vault.options(path=path), "provider": "vault"} for path in ("wise/sandbox", "wise/other")]
    standin.fail(500, times=999, path="/metadata/")
    with pytest.raises(LoadError) as caught:
        wise_creds.load("sandbox", config={"sandbox": {"source": sources, "deadline": 30}})
    assert [error.code for error in caught.value.errors] == ["WC303"]


# Staging, with a crash at every request


STEPS: dict[str, Callable[[VaultProvider], object]] = {
    "stage": lambda provider: provider.stage({"client_secret": Secret("canary-new")}, deadline=soon()),
    "promote": lambda provider: provider.promote("1", deadline=soon()),
    "rollback": lambda provider: provider.rollback("2", deadline=soon()),
    "discard": lambda provider: provider.discard(deadline=soon()),
}
NEW = {**FIELDS, "client_secret": "canary-new"}
AFTER: dict[str, Any] = {
    "stage": (FIELDS, NEW),
    "promote": (NEW, None),
    "rollback": (FIELDS, None),
    "discard": (FIELDS, None),
}


@pytest.mark.parametrize("lost", ["request", "answer"])
@pytest.mark.parametrize("step", STEPS)
def test_a_step_cut_off_at_any_request_is_mended_by_repeating_it(vault: Vault, step: str, lost: str) -> None:
    """Whether the last request arrived or not; the current version is whole throughout."""
    cut_at = 1
    while _cut(vault, step, lost, cut_at):
        cut_at += 1
    assert cut_at >= {"stage": 3, "promote": 4, "rollback": 3, "discard": 1}[step]


def _cut(vault: Vault, step: str, lost: str, at: int) -> bool:
    """Let one step die at its n-th request, then repeat it; False when there were fewer."""
    vault.ask("DELETE", f"{vault.mount}/metadata/wise/sandbox")
    vault.put(FIELDS)
    before = vault.provider()
    if step != "stage":
        STEPS["stage"](before)
    if step == "rollback":
        STEPS["promote"](before)
    count = 0

    class Killed(BaseException):
        pass

    def killing(send: Callable[..., httpx.Response]) -> Callable[..., httpx.Response]:
        def wrapped(self: httpx.HTTPTransport, request: httpx.Request) -> httpx.Response:
            nonlocal count
            count += "/auth/" not in request.url.path
            if count == at and lost == "request":
                raise Killed
            response = send(self, request)
            if count == at:
                raise Killed
            return response

        return wrapped

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(httpx.HTTPTransport, "handle_request", killing(httpx.HTTPTransport.handle_request))
        try:
            STEPS[step](vault.provider())
        except Killed:
            died = True
        else:
            died = False
    assert vault.content() in (FIELDS, NEW)
    STEPS[step](vault.provider())
    assert (vault.content(), vault.content("wise/sandbox-pending")) == AFTER[step]
    vault.ask("DELETE", f"{vault.mount}/metadata/wise/sandbox-pending")
    return died


def test_a_write_whose_answer_was_lost_is_not_mistaken_for_somebody_elses(vault: Vault, standin: VaultStandIn) -> None:
    """The repeated request meets the version that the first one made."""
    provider = vault.provider()
    STEPS["stage"](provider)
    original = httpx.HTTPTransport.handle_request
    state = {"lose": True}

    def losing(self: httpx.HTTPTransport, request: httpx.Request) -> httpx.Response:
        response = original(self, request)
        if request.method == "POST" and state.pop("lose", False):
            raise httpx.ReadError("lost")
        return response

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(httpx.HTTPTransport, "handle_request", losing)
        provider.promote("1", deadline=soon())
    assert (vault.content(), vault.versions()) == (NEW, 2)


def test_of_two_operators_between_read_and_write_the_first_wins(vault: Vault) -> None:
    """Vault decides, by `cas`."""
    provider = vault.provider()
    STEPS["stage"](provider)
    original = httpx.HTTPTransport.handle_request
    state = {"once": True}

    def overtaken(self: httpx.HTTPTransport, request: httpx.Request) -> httpx.Response:
        if request.method == "POST" and state.pop("once", False):
            vault.put({**FIELDS, "client_secret": "canary-of-somebody-else"})
        return original(self, request)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(httpx.HTTPTransport, "handle_request", overtaken)
        with pytest.raises(wise_creds.RotationError, match="WC702"):
            provider.promote("1", deadline=soon())
    assert vault.content() == {**FIELDS, "client_secret": "canary-of-somebody-else"}
    assert vault.content("wise/sandbox-pending") == NEW


def test_what_was_staged_before_the_current_version_is_never_promoted_and_not_built_upon(vault: Vault) -> None:
    """It would undo what came in between; only `discard` takes it away."""
    provider = vault.provider()
    STEPS["stage"](provider)
    vault.put({**FIELDS, "certificate": "added"})
    with pytest.raises(wise_creds.RotationError, match="WC750"):
        provider.promote("2", deadline=soon())
    with pytest.raises(wise_creds.RotationError, match="WC750"):
        STEPS["stage"](provider)
    assert (vault.content(), vault.content("wise/sandbox-pending")) == ({**FIELDS, "certificate": "added"}, NEW)
    provider.discard(deadline=soon())
    STEPS["stage"](provider)
    provider.promote("2", deadline=soon())
    assert vault.content() == {**NEW, "certificate": "added"}


def test_after_a_promotion_that_was_killed_at_its_end_staging_goes_on(vault: Vault) -> None:
    """What is pending is what is current then, so nothing is stale."""
    provider = vault.provider()
    STEPS["stage"](provider)
    vault.put(NEW)
    provider.stage({"client_id": Secret("canary-new-id")}, deadline=soon())
    assert vault.content("wise/sandbox-pending") == {**NEW, "client_id": "canary-new-id"}


def test_only_what_was_looked_at_is_promoted(vault: Vault) -> None:
    """Another operator's pending version was not checked."""
    mine, other = vault.provider(), vault.provider()
    STEPS["stage"](mine)
    other.stage({"client_secret": Secret("canary-untested")}, deadline=soon())
    with pytest.raises(wise_creds.RotationError, match="WC702"):
        mine.promote("1", deadline=soon())
    assert mine.fetch_staged(deadline=soon()) is not None
    mine.promote("1", deadline=soon())
    assert vault.content() == {**FIELDS, "client_secret": "canary-untested"}


def test_what_is_staged_while_a_promotion_ends_stays(vault: Vault) -> None:
    """It may be the only copy."""
    provider = vault.provider()
    STEPS["stage"](provider)
    original = httpx.HTTPTransport.handle_request
    state = {"once": True}

    def staged_meanwhile(self: httpx.HTTPTransport, request: httpx.Request) -> httpx.Response:
        response = original(self, request)
        if request.method == "POST" and state.pop("once", False):
            vault.put({**FIELDS, "client_secret": "canary-of-somebody-else"}, "wise/sandbox-pending")
        return response

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(httpx.HTTPTransport, "handle_request", staged_meanwhile)
        provider.promote("1", deadline=soon())
    assert vault.content() == NEW
    assert vault.content("wise/sandbox-pending") == {**FIELDS, "client_secret": "canary-of-somebody-else"}


# Leaks


NOISY = {"token": "s.canary-vault-token", "secret": FIELDS["client_secret"]}


def test_debug_logging_http_client_and_the_environment_tell_nothing(
    vault: Vault, standin: VaultStandIn, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str], tmp_path: Path,
) -> None:  # fmt: skip
    """Hvac by itself sends its token to a proxy of the environment and prints it; with ours under it, none of that."""
    caplog.set_level(logging.DEBUG)
    arrived: list[bytes] = []
    monkeypatch.setattr(http.client.HTTPConnection, "debuglevel", 1)
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys"))
    with tcp_server(lambda connection: arrived.append(connection.recv(65_536))) as port:
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{port}")
        naive = hvac.Client(url=vault.address, token=NOISY["token"], timeout=5)
        with pytest.raises(Exception):  # noqa: B017  whatever comes of the proxy
            naive.secrets.kv.v2.read_secret_version(
                "wise/sandbox", mount_point=vault.mount, raise_on_deleted_version=True
            )
        printed = capfd.readouterr()
        assert leaks(NOISY, printed.out, *arrived) == ["token"]
        arrived.clear()
        outcome = attempt(lambda: fetched(vault.provider()), unexpected)
    assert revealed(outcome.unwrap()) == FIELDS
    assert (leaks({**NOISY, "token": vault.token}, caplog.text, *capfd.readouterr()), arrived) == ([], [])
    assert not (tmp_path / "keys").exists()


def test_errors_show_neither_token_nor_secret_id_nor_text_of_the_server(vault: Vault, standin: VaultStandIn) -> None:
    """Hvac by itself quotes the server."""
    text = {"text": "canary-server-text"}
    standin.fail(400, {"errors": [text["text"]]}, times=9)
    naive = hvac.Client(url=vault.address, token=NOISY["token"])
    with pytest.raises(hvac.exceptions.InvalidRequest) as quoted:
        naive.secrets.kv.v2.read_secret_version("wise/sandbox", mount_point=vault.mount, raise_on_deleted_version=True)
    assert leaks(text, quoted.value) == ["text"]
    problem = refused(vault.provider())
    assert leaks({**text, "token": vault.token}, problem, vars(problem)) == []


def test_the_provider_holds_its_token_masked(vault: Vault) -> None:
    """In its own repr and in that of everything it holds."""
    provider = vault.provider()
    fetched(provider)
    assert leaks({"token": vault.token, **FIELDS}, repr(provider), repr(vars(provider)), repr(provider._lease)) == []


def test_hvac_reads_neither_its_variables_nor_a_token_file(
    vault: Vault, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, standin: VaultStandIn
) -> None:
    """Hvac by itself takes both."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("VAULT_TOKEN", "s.canary-of-the-environment")
    monkeypatch.setenv("VAULT_ADDR", "http://127.0.0.1:1")
    assert hvac.Client().token == "s.canary-of-the-environment"
    assert revealed(fetched(vault.provider())) == FIELDS
    assert leaks({"token": "s.canary-of-the-environment"}, *(one.headers for one in standin.requests)) == []


# Options


BASE = {"address": "https://vault.example:8200", "mount": "kv", "path": "wise/sandbox",
        "auth": {"method": "token", "token_env": "T"}}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"address": "http://vault.example:8200"}, "WC203"),
        ({"address": "ftp://vault.example"}, "WC203"),
        ({"address": "https://user@vault.example"}, "WC204"),
        ({"address": "https://vault.example/v1"}, "WC204"),
        ({"address": "vault.example:8200"}, "WC204"),
        ({"address": "unix://vault/socket"}, "WC204"),
        ({"proxy": "http://me:secret@proxy:3128"}, "WC204"),
        ({"proxy": "http://proxy:99999"}, "WC204"),
        ({"address": "https://vault.example:x"}, "WC204"),
        ({"address": "http://127.0.0.1:8200", "proxy": "http://proxy:3128"}, "WC203"),
        ({"pending_path": "../../sys/x"}, "WC313"),
        ({"pending_path": "data/x"}, "WC313"),
        ({"path": "wise//x"}, "WC313"),
        ({"path": "wise/"}, "WC313"),
        ({"path": "data/wise/sandbox"}, "WC313"),
        ({"path": "kv/wise/sandbox"}, "WC313"),
        ({"path": "wise/../other"}, "WC313"),
        ({"mount": "kv/../sys"}, "WC313"),
        ({"path": "/wise"}, "string_pattern_mismatch"),
        ({"path": "wise?version=1"}, "string_pattern_mismatch"),
        ({"kv_version": 3}, "literal_error"),
        ({"kv_version": 1, "version": 2}, "WC104"),
        ({"kv_version": 1, "pending_path": "next"}, "WC104"),
        ({"pending_path": "wise/sandbox"}, "WC104"),
        ({"version": 0}, "greater_than_equal"),
        ({"auth": {"method": "agent"}}, "WC104"),
        ({"auth": {"method": "agent", "mount": "x"}}, "extra_forbidden"),
        ({"auth": {"method": "ldap"}}, "union_tag_invalid"),
        ({"auth": {"token_env": "T"}}, "union_tag_not_found"),
        ({"auth": {"method": "token", "token": "s.canary-inline-token"}}, "extra_forbidden"),
        ({"auth": {"method": "token", "token_env": "T", "token_file": "t"}}, "WC104"),
        ({"auth": {"method": "token", "token_env": "T", "role": "r"}}, "extra_forbidden"),
        ({"auth": {"method": "approle", "role_id": "r"}}, "WC104"),
        ({"auth": {"method": "approle", "role_id": "r", "secret_id_env": "S", "secret_id_file": "s"}}, "WC104"),
        ({"auth": {"method": "approle", "role_id": "r", "secret_id": "canary-inline"}}, "extra_forbidden"),
        ({"auth": {"method": "kubernetes"}}, "missing"),
        ({"auth": {"method": "jwt", "role": "r"}}, "missing"),
        ({"auth": {"method": "aws", "role": "r"}}, "missing"),
        ({"auth": {"method": "cert"}}, "WC104"),
        ({"auth": {"method": "cert", "certificate_file": "c"}}, "WC104"),
        ({"certificate_file": "c"}, "WC104"),
        ({"address": "http://127.0.0.1:8200", "certificate_file": "c", "private_key_file": "k"}, "WC104"),
        ({"timeout": 0}, "greater_than"),
    ],
)
def test_options_that_cannot_work_are_refused_before_the_network(changes: dict[str, Any], code: str) -> None:
    """Without quoting what was given."""
    with pytest.raises(ValidationError) as caught:
        VaultOptions.model_validate({**BASE, **changes}, context={"base": "."})
    found = [(one.get("ctx") or {}).get("code") or one["type"] for one in caught.value.errors()]
    assert (code in found, leaks({"inline": "canary-inline-token", "password": "me:secret"}, caught.value)) == (
        True,
        [],
    )


def test_a_mount_may_stand_as_vault_lists_it() -> None:
    """With its slash."""
    chosen = VaultOptions.model_validate({**BASE, "mount": "kv/", "vault_namespace": "team-a/"})
    assert (chosen.mount, chosen.vault_namespace) == ("kv", "team-a")


def test_a_proxy_is_the_option_only() -> None:
    """CONNECT goes there."""
    assert VaultOptions.model_validate({**BASE, "proxy": "http://proxy:3128"}).proxy == "http://proxy:3128"


@pytest.mark.parametrize("address", ["http://localhost:8200", "http://[::1]:8200", "https://vault.example:8200/"])
def test_addresses_that_are_good(address: str) -> None:
    """Plain http to loopback; a slash at the end goes away."""
    assert VaultOptions.model_validate({**BASE, "address": address}).address == address.rstrip("/")


@pytest.mark.parametrize(
    ("auth", "said"),
    [
        ({"method": "ldap"}, "'method' must be one of 'token', 'approle', 'kubernetes', 'jwt', 'aws', 'cert', 'agent'"),
        ({}, "'method' is missing"),
        ({"method": "kubernetes", "rol": "x"}, "is missing"),
        ("token", "has the wrong type or form (model attributes type)"),
    ],
)
def test_a_wrong_auth_table_is_told_in_words(auth: Any, said: str) -> None:
    """Its place is where it stands in the file."""
    with pytest.raises(LoadError) as caught:
        wise_creds.load("sandbox", config={"sandbox": {**BASE, "provider": "vault", "auth": auth}})
    assert (caught.value.errors[0].message, (caught.value.errors[0].location or "")[:20]) == (
        said,
        "config: sandbox.auth",
    )


def test_the_config_names_what_is_wrong_with_a_source() -> None:
    """The option's own place, and what to write instead of an inline secret."""
    table = {**BASE, "provider": "vault", "auth": {"method": "token", "token": "s.canary-inline-token"}}
    with pytest.raises(LoadError) as caught:
        wise_creds.load("sandbox", config={"sandbox": table})
    assert [(one.code, one.location) for one in caught.value.errors] == [("WC107", "config: sandbox.auth.token")]
    assert leaks({"token": "s.canary-inline-token"}, caught.value) == []
