"""The stand-in for Vault: compared with recordings of a real server, and what it does beyond them."""

from __future__ import annotations

import base64
import json
import re
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cache
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.hashes import SHA256
from vault_standin import Seen, VaultStandIn

from wise_creds.testing import Authority, Issued
from wise_creds.tls import load_pair

RECORDINGS = Path(__file__).parent / "providers" / "vault_wire"
FILES = ("kv2", "kv1", "auth", "namespaces", "states", "standby", "limits", "cert", "plain-to-tls")
COUNTED = "00000000-0000-4000-8000-0000000000"
KUBERNETES_UID = "5f3a0b1c-0d3e-4c57-9f57-3a1f0c9d2e10"
STRICT = "/v1/kv/data/wise/strict"
SECRET = {
    "client_id": "e0000000-example",
    "client_secret": "example-secret-1",
    "certificate": "-----BEGIN CERTIFICATE-----\n...",
    "private_key": "-----BEGIN PRIVATE KEY-----\n...",
}
READER = 'path "kv/data/wise/*" { capabilities = ["read"] }\npath "kv1/wise/*" { capabilities = ["read"] }'

NOT_REPLAYED = {
    # The real server let a secret id live until its own tidy; the stand-in refuses it at once.
    ("auth", "secret id 3 s past its ttl"),
    # Recorded in the moment after the unseal in which the server does not know its cluster's name yet.
    ("states", "unsealed: health"),
}

# Whose token stands behind "<token>"; root's where nothing is said, and an exchange's name means the token it gave.
TOKENS = {
    ("kv2", "metadata denied"): "reader",
    ("kv2", "v2 mount read as v1, token without a policy for it"): "reader",
    ("kv2", "wrong mount, token without a policy for it"): "reader",
    ("kv2", "no policy for this path"): "elsewhere",
    ("kv2", "write without the right"): "reader",
    ("kv2", "mount preflight: no right below that mount"): "elsewhere",
    ("kv2", "mount preflight: wrong mount"): "reader",
    ("kv1", "v1 mount read as v2, token without a policy for it"): "reader",
    ("auth", "unwrap, the wrapping token as the token"): "make a wrapped secret id",
    ("auth", "unwrap again"): "make a wrapped secret id",
    ("auth", "lookup-self"): "a periodic-less service token",
    ("auth", "renew-self"): "a periodic-less service token",
    ("auth", "renew-self beyond the maximum"): "a periodic-less service token",
    ("auth", "revoke-self"): "a periodic-less service token",
    ("auth", "after revoke: lookup-self"): "a periodic-less service token",
    ("auth", "after revoke: read"): "a periodic-less service token",
    ("auth", "batch token: lookup-self"): "a batch token",
    ("auth", "batch token: renew-self"): "a batch token",
    ("auth", "batch token: revoke-self"): "a batch token",
    ("auth", "non-renewable token: renew-self"): "not renewable",
    ("auth", "token for one use: first read"): "one use",
    ("auth", "token for one use: second read"): "one use",
    ("auth", "expired token: read"): "one second",
    ("namespaces", "a namespace's token in its namespace"): "login inside the namespace",
    ("namespaces", "a namespace's token in the root namespace"): "login inside the namespace",
    ("namespaces", "a root token's reader policy in a namespace"): "reader",
}

# Values that differ from run to run, and the numbers that do, by the names of their fields.
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z")
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
MADE_UP = re.compile(r"([sb]\.)?EXAMPL[AELMPX0-9]*")
CLUSTER = re.compile(r"vault-cluster-[0-9a-f]{8}")
SERIAL = re.compile(r"\d{30,50}")
NUMBERS = {"creation_time", "server_time_utc", "raft_committed_index", "raft_applied_index"}


def recorded(file: str) -> list[dict[str, Any]]:
    """The exchanges of one file, whole."""
    found: list[dict[str, Any]] = json.loads((RECORDINGS / f"{file}.json").read_text())
    for exchange in found:
        if exchange["request"].get("json") == "<2 MB>":  # recorded in short
            exchange["request"] |= {"json": {"data": {"big": "x" * 2_000_000}}, "headers": {"X-Vault-Token": "<token>"}}
            exchange["response"] |= {"status": 200, "headers": found[1]["response"]["headers"]}
    return found


def shape(value: str) -> str | None:
    """What a value that differs from run to run has to look like; None for any other."""
    if match := TIME.fullmatch(value):
        return "time" if match[1] else "time in whole seconds"
    for pattern, name in ((UUID, "uuid"), (CLUSTER, "cluster"), (SERIAL, "serial")):
        if pattern.fullmatch(value):
            return name
    return None


def alike(old: str, new: str) -> bool:
    """Tell whether a live value may stand in the place of a recorded one."""
    if match := MADE_UP.fullmatch(old):
        return len(old) == len(new) and new.startswith(match[1] or "")
    return shape(old) is not None and shape(old) == shape(new)


@dataclass
class Answered:
    """What came back, for comparing as a whole."""

    status: int
    headers: dict[str, str]
    content: Any


@dataclass
class Session:
    """One server, and the live values that stand in the place of recorded ones."""

    vault: VaultStandIn
    authority: Authority | None = None
    certificate: Issued | None = None
    live: dict[str, str] = field(default_factory=dict)
    tokens: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.tokens["root"] = self.vault.root_token

    def send(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answered:
        """Make one request over a connection of its own."""
        host, port = re.findall(r"https?://(.+):(\d+)", self.vault.address)[0]
        connection = HTTPConnection(host, int(port), timeout=10)
        if self.authority is not None:
            context = ssl.create_default_context(cadata=self.authority.issued.pem.decode())
            if self.certificate is not None:
                load_pair(context, self.certificate.pem, self.certificate.key_pem)
            connection = HTTPSConnection(host, int(port), timeout=10, context=context)
        try:
            connection.request(method, path, body, dict(headers or {}))
            response = connection.getresponse()
            text = response.read().decode()
        finally:
            connection.close()
        transport = ("server", "date", "content-length", "strict-transport-security")
        shown = {name.lower(): value for name, value in response.getheaders() if name.lower() not in transport}
        is_json = shown.get("content-type") == "application/json" and text
        return Answered(response.status, shown, json.loads(text) if is_json else text)

    def root(self, method: str, path: str, body: object = None, **headers: str) -> Any:
        """Make a request that has to succeed, as root."""
        fields = {"X-Vault-Token": self.vault.root_token, **{name.replace("_", "-"): headers[name] for name in headers}}
        answered = self.send(method, f"/v1/{path}", None if body is None else json.dumps(body).encode(), fields)
        assert answered.status in (200, 204), answered
        return answered.content

    def token(self, **wish: object) -> str:
        """Make a token."""
        return str(self.root("POST", "auth/token/create", wish)["auth"]["client_token"])

    def policy(self, name: str, text: str, **headers: str) -> None:
        """Write a policy."""
        self.root("PUT", f"sys/policies/acl/{name}", {"policy": text}, **headers)

    def secret_id(self, role: str, wish: object, role_id: str, secret_id: str, **headers: str) -> None:
        """Make a role and a secret id in the place of recorded ones."""
        base = f"auth/approle/role/{role}"
        self.root("POST", base, wish, **headers)
        self.live[role_id] = self.root("GET", f"{base}/role-id", **headers)["data"]["role_id"]
        self.live[secret_id] = self.root("POST", f"{base}/secret-id", **headers)["data"]["secret_id"]

    def free(self, old: str, new: str) -> bool:
        """Tell whether neither value stands for another yet."""
        return old not in self.live and new not in self.live.values()

    def learn(self, old: Any, new: Any) -> None:
        """Take a live value for each recorded one that is met for the first time, if it is alike and still free."""
        if isinstance(old, dict) and isinstance(new, dict):
            for name in old.keys() & new.keys():
                if name in NUMBERS and isinstance(old[name], int) and isinstance(new[name], int):
                    new[name] = old[name]
                self.learn(old[name], new[name])
        elif isinstance(old, list) and isinstance(new, list):
            for one, other in zip(old, new, strict=False):
                self.learn(one, other)
        elif isinstance(old, str) and isinstance(new, str) and alike(old, new) and self.free(old, new):
            self.live[old] = new

    def translated(self, old: Any) -> Any:
        """Put live values into the place of recorded ones."""
        if isinstance(old, dict):
            return {name: self.translated(value) for name, value in old.items()}
        if isinstance(old, list):
            return [self.translated(value) for value in old]
        if not isinstance(old, str):
            return old
        old = self.live.get(old, old).replace('"192.0.2.7"', '"127.0.0.1"')
        return re.sub("vault.example:8200", self.vault.address.partition("//")[2], old)

    def replay(self, token: str, exchange: Mapping[str, Any]) -> tuple[Answered, Answered]:
        """Send a recorded request; give the answer expected and the answer that came."""
        request, response = exchange["request"], exchange["response"]
        headers = {**request.get("headers", {})}
        if "<token>" in headers.values():
            headers["X-Vault-Token"] = self.tokens[token]
        text = request.get("text", json.dumps(self.translated(request["json"])) if "json" in request else None)
        came = self.send(request["method"], request["path"], None if text is None else text.encode(), headers)
        if isinstance(came.content, dict):
            given = came.content.get("auth") or came.content.get("wrap_info") or {}
            self.tokens[exchange["name"]] = given.get("client_token") or given.get("token", "")
        content = response.get("json", response.get("text", ""))
        self.learn(content, came.content)
        shown = {name: value for name, value in response["headers"].items() if name != "strict-transport-security"}
        return Answered(response["status"], self.translated(shown), self.translated(content)), came


def start(session: Session) -> None:
    """What the recordings of kv2, kv1 and auth found on the server."""
    session.policy("reader", READER)
    session.policy("elsewhere", 'path "kv/data/other/*" { capabilities = ["read"] }')
    session.tokens["reader"] = session.token(policies=["reader"])
    session.tokens["elsewhere"] = session.token(policies=["elsewhere"])


def few_versions(session: Session) -> None:
    session.root("POST", "kv/metadata/wise/few", {"max_versions": 2})
    for _ in range(3):
        session.root("POST", "kv/data/wise/few", {"data": SECRET})


def login_methods(session: Session) -> None:
    start(session)
    session.root("POST", STRICT.removeprefix("/v1/"), {"data": SECRET})
    session.root("POST", "auth/approle/role/payments", {"token_policies": ["reader"], "token_ttl": "20m"})
    once, bound = {"token_policies": "reader", "secret_id_num_uses": 1}, {"secret_id_bound_cidrs": ["10.0.0.0/8"]}
    session.secret_id("once", once, f"{COUNTED}50", f"{COUNTED}51")
    session.secret_id("bound", bound, f"{COUNTED}60", f"{COUNTED}61")
    session.root("POST", "auth/userpass/users/dev", {"password": "example-password", "token_policies": ["reader"]})


def jwts(session: Session) -> None:
    now = session.vault.now() // 1_000_000_000
    of = {exchange["name"]: exchange["request"].get("json", {}).get("jwt") for exchange in recorded("auth")}
    good, account = jwt(exp=now + 60, aud="vault"), {"serviceaccount": {"name": "payments", "uid": KUBERNETES_UID}}
    pod = jwt(exp=now + 60, **{"kubernetes.io": {"namespace": "pay", **account}})
    session.live[of["jwt login"]], session.live[of["kubernetes login"]] = good, pod
    session.live[of["jwt expired"]] = jwt(exp=now - 60, aud="vault")
    session.live[of["jwt wrong audience"]] = jwt(exp=now + 60, aud="other")
    session.live[of["kubernetes token refused by the API server"]] = jwt(exp=now + 60)
    session.vault.accept_jwt("jwt", "payments", good)
    session.vault.accept_jwt("kubernetes", "payments", pod)
    session.root("POST", "auth/kubernetes/role/other", {"token_policies": ["reader"]})


def short_lived(session: Session) -> None:
    session.tokens["one second"] = session.token(policies=["reader"], ttl=1)
    session.vault.advance(2)


def inside(session: Session) -> None:
    start(session)
    session.policy("reader", READER, X_Vault_Namespace="team-a")
    session.root("POST", "kv/data/wise/production", {"data": SECRET}, X_Vault_Namespace="team-a")
    wish = {"token_policies": ["reader"]}
    session.secret_id("payments", wish, f"{COUNTED}90", f"{COUNTED}91", X_Vault_Namespace="team-a")


def states(*, initialised: bool, sealed: bool) -> Callable[[Session], None]:
    def change(session: Session) -> None:
        session.vault.initialised, session.vault.sealed = initialised, sealed

    return change


def standby(session: Session) -> None:
    session.root("POST", "kv/data/wise/production", {"data": SECRET})
    session.vault.standby = True


def owner(session: Session) -> None:
    assert session.authority is not None
    session.certificate = session.authority.client("e0000000-example")
    session.root("POST", "auth/cert/certs/payments", {"token_ttl": 1200})
    session.vault.accept_certificate("payments", session.certificate.certificate.fingerprint(SHA256()).hex())


def stranger(session: Session) -> None:
    assert session.authority is not None
    session.certificate = session.authority.client("stranger")


BEFORE: dict[tuple[str, str], Callable[[Session], object]] = {
    ("kv2", "absent: never written"): start,
    ("kv2", "cas_required: write without cas"): lambda session: session.root(
        "POST", "kv/metadata/wise/strict", {"cas_required": True}
    ),
    ("kv2", "delete_version_after: write"): lambda session: session.root(
        "POST", "kv/metadata/wise/short", {"delete_version_after": "1s"}
    ),
    ("kv2", "delete_version_after: read when past"): lambda session: session.vault.advance(1.5),
    ("kv2", "max_versions: read one that fell out"): few_versions,
    ("kv1", "write"): start,
    ("auth", "read the role id"): login_methods,
    ("auth", "jwt login"): jwts,
    ("auth", "non-renewable token: renew-self"): lambda session: session.tokens.update(
        {"not renewable": session.token(policies=["reader"], renewable=False)}
    ),
    ("auth", "token for one use: first read"): lambda session: session.tokens.update(
        {"one use": session.token(policies=["reader"], num_uses=1)}
    ),
    ("auth", "expired token: read"): short_lived,
    ("namespaces", "read by header"): inside,
    ("states", "not initialised: health"): states(initialised=False, sealed=True),
    ("states", "sealed: health"): states(initialised=True, sealed=True),
    ("states", "a v2 mount right after it was made"): states(initialised=True, sealed=False),
    ("standby", "standby: health"): standby,
    ("limits", "rate limit hit"): lambda session: session.vault.fail(
        429, {"errors": ['request path "kv/data/wise/strict": rate limit quota exceeded']}
    ),
    ("cert", "cert login"): owner,
    ("cert", "cert login with a stranger's certificate"): stranger,
    ("cert", "cert login without a certificate"): lambda session: setattr(session, "certificate", None),
}


def server_side(authority: Authority) -> ssl.SSLContext:
    """TLS that asks for a client certificate, and takes none for an answer."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    issued = authority.server()
    load_pair(context, issued.pem, issued.key_pem)
    context.verify_mode = ssl.CERT_OPTIONAL
    context.load_verify_locations(cadata=authority.issued.pem.decode())
    return context


def jwt(**claims: object) -> str:
    """Make a token that is well-formed and signed by nobody."""
    parts = (json.dumps(one).encode() for one in ({"alg": "RS256"}, claims))
    return ".".join([*(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts), "signature"])


@cache
def replayed(file: str) -> dict[str, tuple[Answered, Answered]]:
    """Replay a file in its order; gives the answers expected and those that came."""
    authority = Authority() if file in ("cert", "plain-to-tls") else None
    with VaultStandIn(tls=server_side(authority) if authority else None) as vault:
        vault.clock = count(vault.now(), 1_234_567).__next__  # so that no slow machine makes a token a second older
        session = Session(vault, authority if file == "cert" else None)
        answers = {}
        for exchange in recorded(file):
            name = exchange["name"]
            BEFORE.get((file, name), str)(session)
            if (file, name) not in NOT_REPLAYED:
                answers[name] = session.replay(TOKENS.get((file, name), "root"), exchange)
        return answers


EXCHANGES = [(file, exchange["name"]) for file in FILES for exchange in recorded(file)]


@pytest.mark.parametrize(
    ("file", "name"),
    [one for one in EXCHANGES if one not in NOT_REPLAYED],
    ids=[f"{file}: {name}" for file, name in EXCHANGES if (file, name) not in NOT_REPLAYED],
)
def test_it_answers_as_recorded(file: str, name: str) -> None:
    """Status, headers and every field, with one live value for each recorded one wherever it comes up again."""
    expected, came = replayed(file)[name]
    assert expected == came


def test_the_tables_name_exchanges_that_exist() -> None:
    """A name that no longer fits would switch a comparison off, or its set-up."""
    assert len(EXCHANGES) == len(set(EXCHANGES)) == 142
    assert {*NOT_REPLAYED, *TOKENS, *BEFORE} - set(EXCHANGES) == set()


@pytest.fixture
def session() -> Iterator[Session]:
    with VaultStandIn() as vault:
        yield Session(vault)


def test_a_connection_serves_several_requests_and_all_of_them_are_seen(session: Session) -> None:
    """Kept alive, with the path's query, header names in lower case, and the body."""
    connection = HTTPConnection(session.vault.address.partition("//")[2], timeout=10)
    for body in (b"{}", b'{"a": 1}'):
        connection.request("POST", "/v1/auth/approle/login?x=1", body, {"X-Vault-Namespace": "team"})
        connection.getresponse().read()
    port = connection.sock.getsockname()[1]
    connection.request("GET", "/v1/sys/health")
    assert connection.getresponse().read()
    assert connection.sock.getsockname()[1] == port
    connection.close()
    first, second, third = session.vault.requests
    assert (first.method, first.path, first.headers["x-vault-namespace"], first.body) == (
        "POST", "/v1/auth/approle/login?x=1", "team", b"{}",
    )  # fmt: skip
    assert second.body == b'{"a": 1}'
    assert third == Seen("GET", "/v1/sys/health", third.headers, b"")


def test_faults_hit_the_paths_they_name_and_wear_off(session: Session) -> None:
    """In any form: JSON, bytes, headers, no answer at all."""
    session.vault.fail(503, b"<h1>busy</h1>", times=2, headers={"Content-Type": "text/html"}, path="health")
    session.vault.fail(429, headers={"Retry-After": "7"}, path="seal")
    session.vault.fail(0, path="leader")
    html = {"cache-control": "no-store", "content-type": "text/html"}
    assert [session.send("GET", "/v1/sys/health") for _ in range(2)] == [Answered(503, html, "<h1>busy</h1>")] * 2
    assert session.send("GET", "/v1/sys/health").status == 200
    limited = session.send("GET", "/v1/sys/seal-status")
    assert (limited.status, limited.headers["retry-after"], limited.content) == (429, "7", {"errors": []})
    with pytest.raises((HTTPException, ConnectionError)):
        session.send("GET", "/v1/sys/leader")
    assert session.send("GET", "/v1/sys/leader").status == 200


def test_a_silent_answer_ends_with_the_server() -> None:
    """A client that waits for ever learns of the end."""
    with ExitStack() as running:
        vault = running.enter_context(VaultStandIn())
        vault.fail(-1)
        host, port = vault.address.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=0.1) as waiting:
            waiting.sendall(b"GET /v1/sys/health HTTP/1.1\r\n\r\n")
            with pytest.raises(TimeoutError):
                waiting.recv(1)
            waiting.settimeout(10)
            running.close()
            assert waiting.recv(1) == b""


def test_an_agent_acts_for_whoever_sends_its_header(session: Session) -> None:
    """Without a token, as with automatic authentication."""
    session.root("POST", "kv/data/wise/strict", {"data": SECRET})
    session.vault.agent = True
    assert session.send("GET", STRICT, headers={"X-Vault-Request": "true"}).content["data"]["data"] == SECRET
    refused = session.send("GET", STRICT, headers={"X-Vault-Token": session.vault.root_token})
    assert (refused.status, refused.content) == (403, {"errors": ["missing 'X-Vault-Request' header"]})


def test_it_listens_on_a_unix_socket(tmp_path: Path) -> None:
    """The way an agent is reached on the same machine."""
    path = tmp_path / "agent.sock"
    with VaultStandIn(unix_socket=path) as vault, socket.socket(socket.AF_UNIX) as connection:
        assert vault.address == f"unix://{path}"
        connection.connect(str(path))
        connection.sendall(b"GET /v1/sys/health HTTP/1.1\r\nConnection: close\r\n\r\n")
        assert connection.makefile("rb").readline() == b"HTTP/1.1 200 OK\r\n"
    assert not path.exists()


def test_a_standby_sends_logins_to_its_leader(session: Session) -> None:
    """Under an address that another stand-in may have."""
    session.vault.standby, session.vault.leader = True, "http://127.0.0.1:1"
    answered = session.send("POST", "/v1/auth/approle/login", b"{}")
    assert (answered.status, answered.headers["location"]) == (307, "http://127.0.0.1:1/v1/auth/approle/login")


def test_time_passes_for_tokens_secret_ids_and_wrapped_answers(session: Session) -> None:
    """Each one ends at its own hour, and not before."""
    session.policy("reader", READER)
    session.secret_id("short", {"secret_id_ttl": "1m"}, "role", "secret")
    login = json.dumps({"role_id": session.live["role"], "secret_id": session.live["secret"]}).encode()
    wrapping = session.root("POST", "auth/approle/role/short/secret-id", X_Vault_Wrap_TTL="60s")["wrap_info"]["token"]
    lookup = json.dumps({"token": wrapping}).encode()
    token = {"X-Vault-Token": session.token(policies=["reader"], ttl="1m")}

    def statuses() -> list[int]:
        return [
            session.send("POST", "/v1/auth/approle/login", login).status,
            session.send("POST", "/v1/sys/wrapping/lookup", lookup).status,
            session.send("GET", "/v1/auth/token/lookup-self", headers=token).status,
        ]

    session.vault.advance(50)
    assert statuses() == [200, 200, 200]
    session.vault.advance(20)
    assert statuses() == [400, 400, 403]


def test_a_version_is_deleted_when_its_mount_says_so(session: Session) -> None:
    """`deletion_time` lies that far behind `created_time`, and the mount's limits hold for every key."""
    session.root("POST", "kv/config", {"delete_version_after": "1h30m", "max_versions": 1, "cas_required": True})
    assert session.root("GET", "kv/config")["data"] == {
        "cas_required": True, "delete_version_after": "1h30m0s", "max_versions": 1,
    }  # fmt: skip
    for cas in range(2):
        session.root("POST", "kv/data/wise/strict", {"data": SECRET, "options": {"cas": cas}})
    root = {"X-Vault-Token": session.vault.root_token}
    assert session.send("GET", f"{STRICT}?version=1", headers=root).content == {"errors": []}
    session.vault.advance(5390)
    assert session.send("GET", STRICT, headers=root).status == 200
    session.vault.advance(20)
    assert session.send("GET", STRICT, headers=root).content["data"]["data"] is None


def test_the_longest_policy_path_wins(session: Session) -> None:
    """Over all policies of a token; deny beats what a shorter path allows."""
    session.policy("wide", 'path "kv/*" { capabilities = ["create", "read", "list"] }  # path "x" {}')
    session.policy("narrow", 'path "kv/data/wise/strict" {\n  capabilities = ["deny"]\n}')
    token = {"X-Vault-Token": session.token(policies=["wide", "narrow"])}
    body = json.dumps({"data": SECRET}).encode()
    assert session.send("POST", "/v1/kv/data/wise/new", body, token).status == 200
    assert session.send("POST", "/v1/kv/data/wise/new", body, token).status == 403  # that would be an update
    assert session.send("LIST", "/v1/kv/metadata/wise", None, token).content["data"] == {"keys": ["new"]}
    assert session.send("GET", STRICT, None, token).content == {
        "errors": ["1 error occurred:\n\t* permission denied\n\n"]
    }


def test_mounts_come_and_go(session: Session) -> None:
    """With names of several parts, and of either version."""
    session.root("POST", "sys/mounts/team/secrets", {"type": "kv", "options": {"version": "2"}})
    session.root("POST", "team/secrets/data/a/b", {"data": SECRET})
    assert session.root("GET", "team/secrets/metadata?list=true")["data"] == {"keys": ["a/"]}
    assert session.root("GET", "sys/internal/ui/mounts/team/secrets/a")["data"]["options"] == {"version": "2"}
    session.root("DELETE", "sys/mounts/team/secrets")
    root = {"X-Vault-Token": session.vault.root_token}
    assert session.send("GET", "/v1/team/secrets/data/a/b", None, root).content == {
        "errors": ['no handler for route "team/secrets/data/a/b". route entry not found.']
    }
    again = session.send("POST", "/v1/sys/mounts/kv", b'{"type": "kv"}', root)
    assert (again.status, again.content) == (400, {"errors": ["path is already in use at kv/"]})


def test_patch_merges_and_takes_away(session: Session) -> None:
    """As RFC 7396 has it; any other content type is refused."""
    session.root("POST", "kv/data/wise/strict", {"data": {"a": {"b": 1, "c": 2}, "d": 3}})
    headers = {"X-Vault-Token": session.vault.root_token, "Content-Type": "application/merge-patch+json"}
    patch = json.dumps({"data": {"a": {"b": None, "e": 4}, "d": None}}).encode()
    assert session.send("PATCH", STRICT, patch, headers).status == 200
    assert session.root("GET", "kv/data/wise/strict")["data"]["data"] == {"a": {"c": 2, "e": 4}}
    assert session.send("PATCH", STRICT, patch, {**headers, "Content-Type": "application/json"}).status == 415
    assert session.send("PATCH", "/v1/kv/data/nothing", patch, headers).content == {"errors": []}


def test_aws_logins_are_checked_by_the_test(session: Session) -> None:
    """The role has the policy reader, as after every accept."""
    session.vault.accept_aws("payments", lambda body: body["iam_http_request_method"] == "POST")
    answers = [
        session.send("POST", "/v1/auth/aws/login", json.dumps({"role": role, "iam_http_request_method": how}).encode())
        for role, how in (("payments", "POST"), ("payments", "GET"), ("nosuch", "POST"))
    ]
    assert [answered.status for answered in answers] == [200, 400, 400]
    assert answers[0].content["auth"]["policies"] == ["default", "reader"]
