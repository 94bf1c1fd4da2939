"""
A stand-in for HashiCorp Vault and OpenBao on loopback, at the level of the wire.

It answers as the recordings in `providers/vault_wire` show; `test_vault_standin.py` compares the two.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import ipaddress
import json
import re
import secrets
import socket
import ssl
import string
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import TCPServer
from types import TracebackType
from typing import Any, Self, TypeVar, cast
from urllib.parse import parse_qsl, unquote, urlsplit

from vault_standin_kv import (
    DEFAULT_LEASE,
    SECOND,
    Answer,
    PlainStore,
    RefusedError,
    VersionedStore,
    duration,
    rfc3339,
    seconds,
    unsupported,
)

VERSION = "2.0.0-HEAD"
DENIED = "permission denied"
NOT_ALLOWED = f"1 error occurred:\n\t* {DENIED}\n\n"  # a token that is good, for something else
USED_WRAPPING = "wrapping token is not valid or does not exist"
DEFAULT_POLICY = """
path "auth/token/lookup-self" { capabilities = ["read"] }
path "auth/token/renew-self" { capabilities = ["update"] }
path "auth/token/revoke-self" { capabilities = ["update"] }
"""
PLAIN = b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n"
OPERATIONS = {"GET": "read", "HEAD": "read", "LIST": "list", "POST": "write", "PUT": "write", "PATCH": "patch",
              "DELETE": "delete"}  # fmt: skip

Rules = dict[str, frozenset[str]]
Settings = dict[str, Any]
T = TypeVar("T")


@dataclass(frozen=True)
class Seen:
    """A request that arrived; `path` has the query, the names of `headers` are in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Peer:
    """Who is at the other end of the connection."""

    host: str = "127.0.0.1"
    fingerprint: str | None = None
    certificate: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class Fault:
    """An answer that some requests get instead of their own."""

    path: str
    times: int
    status: int
    payload: bytes
    headers: Mapping[str, str]


@dataclass
class Token:
    """A token; `wrapped` is what a wrapping token holds."""

    id: str
    namespace: str
    policies: list[str]
    created: int
    accessor: str = ""
    ttl: int = 0
    expires: int | None = None
    explicit_max_ttl: int = 0
    max_ttl: int = DEFAULT_LEASE
    renewed: int = 0
    renewable: bool = False
    kind: str = "service"
    path: str = "auth/token/root"
    display_name: str = "root"
    meta: Mapping[str, str] | None = None
    entity_id: str = ""
    orphan: bool = True
    num_uses: int = 0
    wrapped: Answer | None = None


@dataclass
class SecretId:
    """A secret id of an AppRole role."""

    role: str
    uses: int
    expires: int  # 0 is never


@dataclass
class AuthMount:
    """A login method with its roles, and what is good for them."""

    kind: str
    roles: dict[str, Settings] = field(default_factory=dict)
    secret_ids: dict[str, SecretId] = field(default_factory=dict)
    jwts: set[tuple[str, str]] = field(default_factory=set)
    checks: dict[str, Callable[[Mapping[str, Any]], bool]] = field(default_factory=dict)
    fingerprints: dict[str, str] = field(default_factory=dict)
    entities: dict[str, str] = field(default_factory=dict)


@dataclass
class Mount:
    """A secrets engine."""

    store: PlainStore | VersionedStore
    accessor: str = field(default_factory=lambda: f"kv_{secrets.token_hex(4)}")
    uuid: str = field(default_factory=lambda: str(uuid.uuid4()))


class Namespace:
    """A namespace with its own mounts, policies and login methods; the root namespace has neither path nor id."""

    def __init__(self, path: str, now: Callable[[], int]) -> None:
        self.path = path
        self.id = letters(6) if path else ""
        self.uuid = str(uuid.uuid4())
        self.mounts = {"kv": Mount(VersionedStore(now)), "kv1": Mount(PlainStore())}
        self.auth = {kind: AuthMount(kind) for kind in LOGINS}
        self.policies = {"default": DEFAULT_POLICY}

    def own(self, identifier: str) -> str:
        """Mark an id as one of this namespace."""
        return f"{identifier}.{self.id}" if self.id else identifier

    def below(self, path: str) -> str:
        """Give the path of something in here, seen from the root."""
        return f"{self.path}/{path}".lstrip("/")


@dataclass
class Request:
    """A request after its namespace was found; `path` starts below it, without "v1/"."""

    seen: Seen
    operation: str
    namespace: Namespace
    path: str
    query: dict[str, str]
    body: dict[str, Any]
    peer: Peer
    token: str


def letters(length: int) -> str:
    """Make a random string."""
    return "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(length))


def rules(policy: str) -> Rules:
    """Read the path blocks of a policy."""
    blocks = re.findall(r'path\s+"([^"]*)"\s*\{[^}]*?capabilities\s*=\s*\[([^\]]*)\]', re.sub(r"#.*", "", policy))
    return {path: frozenset(re.findall(r'"(\w+)"', capabilities)) for path, capabilities in blocks}


def names(value: object) -> list[str]:
    """Read a list that may also come as one string with commas."""
    parts = value.split(",") if isinstance(value, str) else cast("list[str]", value or [])
    return [part.strip() for part in parts if part.strip()]


def longest(mounts: Mapping[str, object], path: str) -> str | None:
    """Find the mount that a path lies in."""
    return max((name for name in mounts if f"{path}/".startswith(f"{name}/")), key=len, default=None)


def claims(jwt: str) -> dict[str, Any]:
    """Read what a JWT says, if it is one."""
    with contextlib.suppress(ValueError, binascii.Error):
        payload = jwt.split(".")[1] if jwt.count(".") == 2 else ""
        found = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        return found if isinstance(found, dict) else {}
    return {}


Login = tuple[Settings, str, dict[str, str]]  # the role, the name of who logged in, and what the token says of it


def _approle(mount: AuthMount, request: Request, rest: str, now: int) -> Login:
    role_id, secret_id = request.body.get("role_id"), request.body.get("secret_id")
    if not role_id:
        raise RefusedError(500, "missing role_id")
    name = next((name for name, role in mount.roles.items() if role["role_id"] == role_id), None)
    if name is not None and not secret_id:
        raise RefusedError(400, "missing secret_id")
    found = mount.secret_ids.get(str(secret_id))
    if name is None or found is None or found.role != name or 0 < found.expires <= now:
        raise RefusedError(400, "invalid role or secret ID")
    networks = names(mount.roles[name].get("secret_id_bound_cidrs"))
    host = ipaddress.ip_address(request.peer.host)
    if networks and not any(host in ipaddress.ip_network(network) for network in networks):
        wording = f'source address "{host}" unauthorized by CIDR restrictions on the role: %!w(<nil>)'
        raise RefusedError(400, wording)
    if found.uses == 1:
        del mount.secret_ids[str(secret_id)]
    found.uses = max(found.uses - 1, 0)
    return mount.roles[name], "", {"role_name": name}


def _userpass(mount: AuthMount, request: Request, rest: str, now: int) -> Login:
    user = mount.roles.get(rest)
    if user is None or user.get("password") != request.body.get("password"):
        raise RefusedError(400, "invalid username or password")
    return user, rest, {"username": rest}


def _jwt(mount: AuthMount, request: Request, rest: str, now: int) -> Login:
    role, jwt = str(request.body.get("role")), str(request.body.get("jwt"))
    said = claims(jwt)
    if role not in mount.roles:
        raise RefusedError(400, f'role "{role}" could not be found')
    problem = None
    if said.get("exp", now) < now // SECOND:
        problem = "invalid expiration time (exp) claim: token is expired"
    elif (role, jwt) not in mount.jwts and said:
        problem = "invalid audience (aud) claim: audience claim does not match any expected audience"
    elif (role, jwt) not in mount.jwts:
        problem = "error verifying token signature: go-jose/go-jose: compact JWS format must have three parts"
    if problem is not None:
        raise RefusedError(400, f"error validating token: {problem}")
    return mount.roles[role], str(said.get("sub", role)), {"role": role}


def _kubernetes(mount: AuthMount, request: Request, rest: str, now: int) -> Login:
    role, jwt = str(request.body.get("role")), str(request.body.get("jwt"))
    if role not in mount.roles:
        raise RefusedError(400, f'invalid role name "{role}"')
    said = claims(jwt)
    if jwt not in {known for _, known in mount.jwts} or said.get("exp", now) < now // SECOND:
        raise RefusedError(403, DENIED)
    if (role, jwt) not in mount.jwts:
        raise RefusedError(403, "service account name not authorized")
    kubernetes = said.get("kubernetes.io", {})
    account = {"name": role, "uid": str(uuid.UUID(int=0)), **kubernetes.get("serviceaccount", {})}
    metadata = {
        "role": role,
        "service_account_name": account["name"],
        "service_account_namespace": kubernetes.get("namespace", "default"),
        "service_account_secret_name": "",
        "service_account_uid": account["uid"],
    }
    return mount.roles[role], account["uid"], metadata


def _aws(mount: AuthMount, request: Request, rest: str, now: int) -> Login:
    # Not recorded, so that only the status is to be relied on.
    role = str(request.body.get("role"))
    if role not in mount.checks:
        raise RefusedError(400, f"entry for role {role} not found")
    if not mount.checks[role](request.body):
        raise RefusedError(400, "error making upstream request: received error code 403 from STS")
    return mount.roles[role], role, {"auth_type": "iam", "role": role}


def _cert(mount: AuthMount, request: Request, rest: str, now: int) -> Login:
    if request.peer.fingerprint is None:
        raise RefusedError(400, "no client certificate found")
    wanted = request.body.get("name")
    for name, fingerprint in mount.fingerprints.items():
        if wanted in (None, "", name) and fingerprint == request.peer.fingerprint:
            subject = {key: value for part in request.peer.certificate.get("subject", ()) for key, value in part}
            metadata = {
                "authority_key_id": "",
                "cert_name": name,
                "common_name": subject.get("commonName", ""),
                "serial_number": str(int(request.peer.certificate.get("serialNumber", "0"), 16)),
                "subject_key_id": "",
            }
            return mount.roles[name], metadata["common_name"], metadata
    raise RefusedError(400, "invalid certificate or no client certificate supplied")


LOGINS: dict[str, Callable[[AuthMount, Request, str, int], Login]] = {
    "approle": _approle, "jwt": _jwt, "kubernetes": _kubernetes, "aws": _aws, "cert": _cert, "userpass": _userpass,
}  # fmt: skip


class VaultStandIn:
    """
    A server with the state of a real one, from `with` to its end.

    `sealed`, `initialised`, `standby` and `agent` may be changed while it runs. A standby sends logins to `leader`.
    A namespace starts with the mounts that the root namespace starts with: kv (version 2), kv1, every login method.
    """

    address: str
    leader: str

    def __init__(self, *, tls: ssl.SSLContext | None = None, unix_socket: Path | None = None) -> None:
        self.root_token = f"s.{letters(24)}"
        self.requests: list[Seen] = []
        self.sealed = self.standby = self.agent = False
        self.initialised = True
        self.clock: Callable[[], int] = time.time_ns
        self.stopped = threading.Event()
        self._tls = tls
        self._unix_socket = unix_socket
        self._lock = threading.RLock()
        self._shift = 0
        self._faults: list[Fault] = []
        self._namespaces = {"": Namespace("", self.now)}
        self._tokens = {self.root_token: Token(self.root_token, "", ["root"], self.now(), letters(24))}
        self._cluster = {"cluster_name": f"vault-cluster-{secrets.token_hex(4)}", "cluster_id": str(uuid.uuid4())}

    def __enter__(self) -> Self:
        self._server = Server(self, self._tls, self._unix_socket)
        host = f"127.0.0.1:{self._server.server_address[1]}"
        scheme = "https" if self._tls else "http"
        self.address = f"unix://{self._unix_socket}" if self._unix_socket else f"{scheme}://{host}"
        self.leader = self.address
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stopped.set()
        self._server.stop()
        if self._unix_socket:
            self._unix_socket.unlink()

    def now(self) -> int:
        """Give the time by its own clock, in nanoseconds."""
        return self.clock() + self._shift

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self._shift += int(seconds * SECOND)

    def fail(
        self,
        status: int,
        body: object = None,
        *,
        times: int = 1,
        headers: Mapping[str, str] | None = None,
        path: str = "",
    ) -> None:
        """
        Answer the next requests whose path contains `path` otherwise.

        Args:
            status: 0 closes the connection without an answer, -1 stays silent until the server stops.
            body: bytes go out as they are, anything else as JSON; None is an empty list of errors.
            times: how many requests.
            headers: sent beside the usual ones, or instead of them.
            path: a part of the path.
        """
        payload = body if isinstance(body, bytes) else json.dumps({"errors": []} if body is None else body).encode()
        lower = {name.lower(): value for name, value in (headers or {}).items()}
        with self._lock:
            self._faults.append(Fault(path, times, status, payload, lower))

    def accept_jwt(self, mount: str, role: str, jwt: str) -> None:
        """Let a token log in on a jwt or kubernetes mount; the role has the policy "reader" unless it was written."""
        self._accepting(mount, role).jwts.add((role, jwt))

    def accept_aws(self, role: str, check: Callable[[Mapping[str, Any]], bool]) -> None:
        """Let the login bodies that pass a check log in on the mount aws."""
        self._accepting("aws", role).checks[role] = check

    def accept_certificate(self, name: str, fingerprint_sha256_hex: str) -> None:
        """Let a client certificate log in on the mount cert."""
        self._accepting("cert", name).fingerprints[name] = fingerprint_sha256_hex.replace(":", "").lower()

    def _accepting(self, mount: str, role: str) -> AuthMount:
        namespace, name = self._locate(mount)
        namespace.auth[name].roles.setdefault(role, {"token_policies": ["reader"]})
        return namespace.auth[name]

    def _locate(self, path: str, start: str = "") -> tuple[Namespace, str]:
        """Split a path into its namespace, which may stand in a header or at the path's own start, and the rest."""
        if start not in self._namespaces:
            raise RefusedError(404, "namespace not found")
        full = f"{start}/{path}".lstrip("/")
        found = longest(self._namespaces, full) or ""
        return self._namespaces[found], full.removeprefix(found).lstrip("/")

    def answer(self, seen: Seen, peer: Peer) -> tuple[int, Mapping[str, str], bytes]:
        """Answer a request: status, headers and body."""
        headers = {"cache-control": "no-store", "content-type": "application/json"}
        with self._lock:
            self.requests.append(seen)
            for fault in self._faults:
                if fault.path in seen.path:
                    fault.times -= 1
                    self._faults = [one for one in self._faults if one.times > 0]
                    return fault.status, {**headers, **fault.headers}, fault.payload
            try:
                answer = self._route(seen, peer)
            except RefusedError as refusal:
                answer = refusal.answer
        if answer.status == 307:
            del headers["content-type"]
        return answer.status, {**headers, **answer.headers}, _payload(answer)

    def _route(self, seen: Seen, peer: Peer) -> Answer:
        """Answer what needs no namespace, and refuse what the server's state does not allow."""
        url = urlsplit(seen.path)
        path, query = unquote(url.path).removeprefix("/v1/").rstrip("/"), dict(parse_qsl(url.query))
        operation = "list" if query.get("list") == "true" else OPERATIONS[seen.method]
        if self.agent and seen.headers.get("x-vault-request") != "true":
            raise RefusedError(403, "missing 'X-Vault-Request' header")
        if operation == "read" and path in ("sys/health", "sys/seal-status", "sys/leader", "sys/init"):
            return self._state(path, query)
        if self.sealed or not self.initialised:
            raise RefusedError(503, "Vault is sealed")
        if self.standby and operation == "write" and re.search(r"(^|/)auth/.+/login(/|$)", path):
            return Answer(307, headers={"location": self.leader + seen.path})
        namespace, path = self._locate(path, seen.headers.get("x-vault-namespace", "").strip("/"))
        bearer = seen.headers.get("authorization", "").removeprefix("Bearer ")
        token = seen.headers.get("x-vault-token", bearer) or (self.root_token if self.agent else "")
        body = _json(seen.body) if operation in ("write", "patch") and seen.body else {}
        request = Request(seen, operation, namespace, path, query, body, peer, token)
        return self._wrapped(request, self._open(request) or self._guarded(request))

    def _state(self, path: str, query: Mapping[str, str]) -> Answer:
        """Tell the server's state."""
        sealed = self.sealed or not self.initialised
        active = not (sealed or self.standby)
        if path == "sys/init":
            return Answer(body={"initialized": self.initialised})
        if path == "sys/leader":
            log = {"raft_committed_index": 36, "raft_applied_index": 36} if self.standby else {"is_self": False}
            leader, cluster = (self.leader, re.sub("^http:", "https:", self.leader)) if self.standby else ("", "")
            addresses = {"leader_address": leader, "leader_cluster_address": cluster}
            return Answer(body={"ha_enabled": self.standby, **addresses, **log})
        shared = {"initialized": self.initialised, "sealed": sealed, "version": VERSION}
        if path == "sys/seal-status":
            shares = {"t": 1, "n": 1, "progress": 0, "nonce": "", "recovery_seal": False, "migration": False}
            return Answer(body={**shared, **shares, "type": "shamir", "commit_date": "", "storage_type": "file"})
        status = 501 if not self.initialised else 503 if sealed else 429 if self.standby else 200
        health = {
            "standby": not active,
            "replication_performance_mode": "disabled" if active else "unknown",
            "replication_dr_mode": "disabled" if active else "unknown",
            "server_time_utc": self.now() // SECOND,
        }
        passable = status == 429 and query.get("standbyok") == "true"
        return Answer(200 if passable else status, body={**shared, **health, **(self._cluster if active else {})})

    def _open(self, request: Request) -> Answer | None:
        """Answer what needs no token, or looks at it in its own way."""
        kind, _, rest = request.path.partition("/")
        if request.path in ("sys/wrapping/lookup", "sys/wrapping/unwrap"):
            return self._unwrap(request, keep=rest.endswith("lookup"))
        if request.operation == "read" and rest.startswith("internal/ui/mounts/") and kind == "sys":
            return self._preflight(request, rest.removeprefix("internal/ui/mounts/"))
        name = longest(request.namespace.auth, rest) if kind == "auth" and request.operation == "write" else None
        if name is None or not f"{rest}/".startswith(f"{name}/login/"):
            return None
        mount = request.namespace.auth[name]
        user = rest.removeprefix(f"{name}/login").strip("/")
        role, who, metadata = LOGINS[mount.kind](mount, request, user, self.now())
        entity = mount.entities.setdefault(who or str(metadata), request.namespace.own(str(uuid.uuid4())))
        wish = {field.removeprefix("token_"): value for field, value in role.items()}
        token = self._issue(request.namespace, wish, request.path, f"{name}-{who}".rstrip("-"))
        token.meta, token.entity_id, token.orphan = metadata, entity, True
        return _authenticated(token)

    def _guarded(self, request: Request) -> Answer:
        """Answer what needs a token that has the right."""
        token = self._token(request)
        kind, _, rest = request.path.partition("/")
        mounts = request.namespace.mounts
        name = longest(mounts, request.path)
        below = request.path.removeprefix(name or "").lstrip("/")
        needed = {request.operation}
        if request.operation == "write":
            known = name is not None and mounts[name].store.exists(below)
            needed = {"create", "update"} if name is None else {"update"} if known else {"create"}
        if "root" not in token.policies or self._inside(token, request.namespace, "") is None:
            capabilities = self._capabilities(token, request)
            if not needed & capabilities:
                raise RefusedError(403, NOT_ALLOWED)
        if kind == "sys":
            return self._sys(request, rest.split("/"))
        if kind == "auth":
            return self._token_api(request, token, rest[6:]) if rest.startswith("token/") else self._auth(request, rest)
        if name is None:
            raise _no_handler(request.path)
        if request.operation == "patch" and "merge-patch+json" not in request.seen.headers.get("content-type", ""):
            raise RefusedError(415, "PATCH requires Content-Type of application/merge-patch+json")
        return mounts[name].store.serve(request.operation, below, request.query, request.body)

    def _token(self, request: Request) -> Token:
        """Find the token of a request, and count its use."""
        token = self._alive(request.token)
        if token is None:
            raise RefusedError(403, DENIED)
        if token.num_uses == 1:
            del self._tokens[token.id]
        token.num_uses = max(token.num_uses - 1, 0)
        return token

    def _alive(self, identifier: str) -> Token | None:
        token = self._tokens.get(identifier)
        if token is not None and token.expires is not None and token.expires <= self.now():
            del self._tokens[identifier]
            return None
        return token

    def _inside(self, token: Token, namespace: Namespace, path: str) -> str | None:
        """Give a path as the policies of a token name it, or None where they cannot reach."""
        if token.namespace and not f"{namespace.path}/".startswith(f"{token.namespace}/"):
            return None
        return namespace.below(path).removeprefix(token.namespace).lstrip("/")

    def _rules(self, token: Token) -> list[tuple[str, frozenset[str]]]:
        policies = self._namespaces[token.namespace].policies
        return [rule for name in token.policies for rule in rules(policies.get(name, "")).items()]

    def _capabilities(self, token: Token, request: Request) -> frozenset[str]:
        """Find what a token may do: the longest path that fits wins, over all its policies."""
        path = self._inside(token, request.namespace, request.path)
        found: dict[str, frozenset[str]] = {}
        for pattern, capabilities in self._rules(token) if path is not None else ():
            shown = f"{path}/" if request.operation == "list" else str(path)
            if pattern in (path, shown) or (pattern.endswith("*") and shown.startswith(pattern[:-1])):
                found[pattern] = found.get(pattern, frozenset()) | capabilities
        best = max(found, key=lambda pattern: (len(pattern.rstrip("*")), not pattern.endswith("*")), default="")
        given = found.get(best, frozenset())
        return frozenset() if "deny" in given else given

    def _preflight(self, request: Request, path: str) -> Answer:
        """Describe the mount of a path to whoever has any right below it."""
        wording = (
            f'preflight capability check returned 403, please ensure client\'s policies grant access to path "{path}/"'
        )
        name = longest(request.namespace.mounts, path)
        if name is None:
            raise RefusedError(403, wording)
        token = self._alive(request.token)
        if token is None:
            raise RefusedError(403, DENIED)
        start = self._inside(token, request.namespace, f"{name}/")
        patterns = [pattern for pattern, capabilities in self._rules(token) if capabilities - {"deny"}]
        if "root" in token.policies:
            patterns.append("*")
        if start is None or not any(
            pattern.startswith(start) or (pattern.endswith("*") and start.startswith(pattern[:-1]))
            for pattern in patterns
        ):
            raise RefusedError(403, wording)
        mount = request.namespace.mounts[name]
        return Answer(
            data={
                "accessor": mount.accessor, "uuid": mount.uuid, "options": mount.store.options, "path": f"{name}/",
                "type": "kv", "description": "", "deprecation_status": "supported", "local": False, "seal_wrap": False,
                "config": {"default_lease_ttl": 0, "force_no_cache": False, "max_lease_ttl": 0},
                "external_entropy_access": False, "plugin_version": "", "running_sha256": "",
                "running_plugin_version": "v2.0.0+builtin.bao",
            }
        )  # fmt: skip

    def _sys(self, request: Request, parts: list[str]) -> Answer:
        """Answer below sys/."""
        match request.operation, parts:
            case "write", ["seal"]:
                self.sealed = True
                return Answer(204)
            case "read" | "write", ["namespaces", name]:
                return self._namespace(request.namespace.below(name), make=request.operation == "write")
            case operation, ["policies", "acl", name] | ["policy", name]:
                return _policy(operation, request.namespace.policies, name, request.body)
            case "write" | "delete", ["mounts", *rest]:
                return _change(request, request.namespace.mounts, "/".join(rest), self._engine)
            case "write" | "delete", ["auth", *rest]:
                return _change(request, request.namespace.auth, "/".join(rest), _method)
        raise unsupported("path")

    def _namespace(self, path: str, *, make: bool) -> Answer:
        if make:
            self._namespaces.setdefault(path, Namespace(path, self.now))
        if path not in self._namespaces:
            raise RefusedError(404)
        found = self._namespaces[path]
        flags = {"custom_metadata": {}, "locked": False, "tainted": False}
        return Answer(data={**flags, "id": found.id, "path": f"{path}/", "uuid": found.uuid})

    def _engine(self, body: Settings) -> Mount:
        kinds = {"kv": str((body.get("options") or {}).get("version", "1")), "kv-v1": "1", "kv-v2": "2"}
        if body.get("type") not in kinds:
            raise RefusedError(400, f"plugin not found in the catalog: {body.get('type')}")
        return Mount(VersionedStore(self.now) if kinds[body["type"]] == "2" else PlainStore())

    def _auth(self, request: Request, path: str) -> Answer:
        """Configure login methods."""
        name = longest(request.namespace.auth, path)
        if name is None:
            raise _no_handler(request.path)
        mount = request.namespace.auth[name]
        match request.operation, path.removeprefix(name).strip("/").split("/"):
            case "write", ["role" | "certs" | "users", role]:
                settings = mount.roles.setdefault(
                    role, {"role_id": str(uuid.uuid4())} if mount.kind == "approle" else {}
                )
                settings.update(request.body)
                return Answer(204)
            case "delete", ["role" | "certs" | "users", role]:
                mount.roles.pop(role, None)
                return Answer(204)
            case operation, ["role", role, *rest] if mount.kind == "approle":
                if role not in mount.roles:
                    raise RefusedError(404)
                return self._approle(mount, role, operation, rest, request.body)
        raise unsupported("path")

    def _approle(self, mount: AuthMount, role: str, operation: str, rest: list[str], body: Settings) -> Answer:
        """Answer below a role: its id, and its secret ids."""
        settings = mount.roles[role]
        match operation, rest:
            case "read", ["role-id"]:
                return Answer(data={"role_id": settings["role_id"]})
            case "write", ["secret-id"]:
                uses = int(body.get("num_uses") or settings.get("secret_id_num_uses") or 0)
                ttl = seconds(body.get("ttl", settings.get("secret_id_ttl")))
                made, accessor = str(uuid.uuid4()), str(uuid.uuid4())
                mount.secret_ids[made] = SecretId(role, uses, self.now() + ttl * SECOND if ttl else 0)
                limits = {"secret_id_num_uses": uses, "secret_id_ttl": ttl}
                return Answer(data={"secret_id": made, "secret_id_accessor": accessor, **limits})
            case "write", ["secret-id", "destroy"]:
                mount.secret_ids.pop(str(body.get("secret_id")), None)
                return Answer(204)
        raise unsupported("path")

    def _issue(self, namespace: Namespace, wish: Mapping[str, Any], path: str, display_name: str) -> Token:
        """Make a token; `wish` has the fields of auth/token/create."""
        now = self.now()
        policies = sorted({*names(wish.get("policies")), *([] if wish.get("no_default_policy") else ["default"])})
        explicit = seconds(wish.get("explicit_max_ttl"))
        maximum = explicit or seconds(wish.get("max_ttl")) or DEFAULT_LEASE
        ttl = 0 if "root" in policies else min(seconds(wish.get("ttl")) or DEFAULT_LEASE, maximum)
        batch = wish.get("type") == "batch"
        token = Token(
            namespace.own(f"b.{letters(179)}" if batch else f"s.{letters(24)}"),
            namespace.path,
            ["root"] if "root" in policies else policies,
            now,
            accessor="" if batch else namespace.own(letters(24)),
            ttl=ttl,
            explicit_max_ttl=explicit,
            max_ttl=maximum,
            renewable=not batch and ttl > 0 and bool(wish.get("renewable", True)),
            kind="batch" if batch else "service",
            path=path,
            display_name=display_name,
            meta=wish.get("meta"),
            orphan=False,
            num_uses=int(wish.get("num_uses", 0)),
        )
        if "root" not in policies:  # root tokens do not end
            token.expires = token.created + ttl * SECOND
        self._tokens[token.id] = token
        return token

    def _token_api(self, request: Request, token: Token, verb: str) -> Answer:
        """Answer below auth/token/."""
        if (request.operation, verb) == ("write", "create"):
            wish = {"policies": token.policies, **request.body}
            return _authenticated(self._issue(request.namespace, wish, request.path, "token"))
        verb, own, _ = verb.partition("-self")
        found = token if own else self._alive(str(request.body.get("token")))
        if (request.operation, verb) == ("write", "revoke"):
            return self._revoke(found)
        if found is None:
            raise RefusedError(403, "bad token")
        if verb == "lookup" and request.operation in ("read", "write"):
            return Answer(data=self._described(found))
        if (request.operation, verb) == ("write", "renew"):
            return self._renew(found, seconds(request.body.get("increment")))
        raise unsupported("path")

    def _revoke(self, token: Token | None) -> Answer:
        if token is not None:
            if token.kind == "batch":
                raise RefusedError(400, "batch tokens cannot be revoked")
            self._tokens.pop(token.id, None)
        return Answer(204)

    def _renew(self, token: Token, increment: int) -> Answer:
        if not token.renewable:
            raise RefusedError(
                400, "batch tokens cannot be renewed" if token.kind == "batch" else "lease is not renewable"
            )
        now, wanted = self.now(), increment or token.ttl
        left = _ceiling(token.created - now) + token.max_ttl
        token.expires, token.renewed = now + min(wanted, left) * SECOND, now
        shown, maximum = (
            re.sub("(?<=[hm])0[ms]", "", re.sub("m0s$", "m", duration(one))) for one in (wanted, token.max_ttl)
        )
        capped = f'TTL of "{shown}" exceeded the effective max_ttl of "{maximum}"; TTL value is capped accordingly'
        return _authenticated(token, min(wanted, left), [capped] if wanted > left else None)

    def _described(self, token: Token) -> Settings:
        """Give what lookup says of a token; that of the root token has fewer fields."""
        fraction = token.created % SECOND if token.kind == "batch" else 0  # a batch token keeps whole seconds
        data = {
            "accessor": token.accessor, "creation_time": token.created // SECOND, "creation_ttl": token.ttl,
            "display_name": token.display_name, "entity_id": token.entity_id, "explicit_max_ttl": token.explicit_max_ttl,
            "expire_time": rfc3339(token.expires - fraction) if token.expires else None, "id": token.id,
            "meta": token.meta, "num_uses": token.num_uses, "orphan": token.orphan, "path": token.path,
            "policies": token.policies, "ttl": _ceiling(token.expires - self.now()) if token.expires else 0,
            "type": token.kind,
        }  # fmt: skip
        if token.expires:
            data |= {"issue_time": rfc3339(token.created - fraction), "renewable": token.renewable}
        if token.renewed:
            data |= {"last_renewal": token.renewed // SECOND, "last_renewal_time": rfc3339(token.renewed)}
        return data | ({"namespace_path": f"{token.namespace}/"} if token.namespace else {})

    def _wrapped(self, request: Request, answer: Answer) -> Answer:
        """Keep an answer behind a wrapping token, if the request asks for it."""
        ttl = seconds(request.seen.headers.get("x-vault-wrap-ttl"))
        if not ttl or answer.status != 200 or not (answer.data or answer.auth):
            return answer
        wish = {"policies": "response-wrapping", "no_default_policy": True, "ttl": ttl, "renewable": False}
        token = self._issue(request.namespace, wish, request.path, "")
        token.wrapped = answer
        info = {"token": token.id, "accessor": token.accessor, "ttl": ttl, "creation_path": request.path,
                "creation_time": rfc3339(token.created)}  # fmt: skip
        inner = (answer.data or {}).get("secret_id_accessor") or (answer.auth or {}).get("accessor")
        return Answer(wrap_info={**info, "wrapped_accessor": inner} if inner else info)

    def _unwrap(self, request: Request, *, keep: bool) -> Answer:
        """Give back what a wrapping token holds, or only tell of it."""
        token = self._alive(str(request.body.get("token") or request.token))
        if token is None or token.wrapped is None:
            raise RefusedError(400, USED_WRAPPING)
        if keep:
            times = {"creation_time": rfc3339(token.created), "creation_ttl": token.ttl}
            return Answer(data={"creation_path": token.path, **times})
        del self._tokens[token.id]
        return token.wrapped


def _ceiling(nanoseconds: int) -> int:
    return -(-nanoseconds // SECOND)


def _payload(answer: Answer) -> bytes:
    if answer.status in (204, 307):
        return b""
    envelope = {
        "request_id": "" if answer.wrap_info else str(uuid.uuid4()), "lease_id": "", "renewable": False,
        "lease_duration": answer.lease_duration, "data": answer.data, "wrap_info": answer.wrap_info,
        "warnings": answer.warnings, "auth": answer.auth,
    }  # fmt: skip
    return json.dumps(envelope if answer.body is None else answer.body).encode()


def _json(body: bytes) -> Settings:
    try:
        found = json.loads(body.decode(errors="replace"))
    except json.JSONDecodeError as error:
        character = error.doc[error.pos : error.pos + 1]
        problem = f"invalid character '{character}'" if character else "unexpected EOF"
        raise RefusedError(400, f"failed to decode JSON input: {problem}") from None
    if not isinstance(found, dict):
        raise RefusedError(400, "failed to decode JSON input: not an object")
    return found


def _no_handler(path: str) -> RefusedError:
    return RefusedError(404, f'no handler for route "{path}". route entry not found.')


def _authenticated(token: Token, lease: int | None = None, warnings: list[str] | None = None) -> Answer:
    """Give the answer to a login, a creation or a renewal."""
    auth = {
        "client_token": token.id, "accessor": token.accessor, "policies": token.policies,
        "token_policies": token.policies, "metadata": token.meta, "renewable": token.renewable,
        "lease_duration": token.ttl if lease is None else lease, "entity_id": token.entity_id,
        "token_type": token.kind, "orphan": token.orphan, "mfa_requirement": None, "num_uses": token.num_uses,
    }  # fmt: skip
    return Answer(auth=auth, warnings=warnings)


def _policy(operation: str, policies: dict[str, str], name: str, body: Settings) -> Answer:
    if operation == "read":
        if name not in policies:
            raise RefusedError(404)
        return Answer(data={"name": name, "policy": policies[name]})
    if operation == "write":
        policies[name] = str(body.get("policy", ""))
    elif operation == "delete":
        policies.pop(name, None)
    else:
        raise unsupported("operation")
    return Answer(204)


def _change(request: Request, mounts: dict[str, T], name: str, make: Callable[[Settings], T]) -> Answer:
    """Make a mount, or take it away with all it holds."""
    if request.operation == "delete":
        mounts.pop(name, None)
    elif name in mounts:
        raise RefusedError(400, f"path is already in use at {name}/")
    else:
        mounts[name] = make(request.body)
    return Answer(204)


def _method(body: Settings) -> AuthMount:
    if body.get("type") not in LOGINS:
        raise RefusedError(400, f"plugin not found in the catalog: {body.get('type')}")
    return AuthMount(body["type"])


class Server(ThreadingHTTPServer):
    """One thread per connection; the TLS handshake is done in that thread."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 256

    def __init__(self, vault: VaultStandIn, tls: ssl.SSLContext | None, unix_socket: Path | None) -> None:
        self.vault = vault
        self._tls = tls
        self._open: set[socket.socket] = set()
        if unix_socket:
            self.address_family = socket.AF_UNIX
        super().__init__(cast("tuple[str, int]", str(unix_socket) if unix_socket else ("127.0.0.1", 0)), Handler)

    def server_bind(self) -> None:
        """Bind without asking for the host's name, which a Unix socket has not."""
        TCPServer.server_bind(self)

    def finish_request(self, request: socket.socket | tuple[bytes, socket.socket], client_address: object) -> None:
        """Serve one connection."""
        connection = cast("socket.socket", request)
        with contextlib.suppress(OSError):  # a peer that goes away is not our concern
            if self._tls is not None:
                connection.settimeout(10)
                if connection.recv(1, socket.MSG_PEEK) != b"\x16":  # the first byte of a TLS handshake
                    connection.recv(65_536)
                    connection.sendall(PLAIN)
                    return
                connection = self._tls.wrap_socket(connection, server_side=True)
                connection.settimeout(None)
            self._open.add(connection)
            try:
                self.RequestHandlerClass(connection, client_address, self)  # type: ignore[arg-type]
            finally:
                self._open.discard(connection)
                connection.close()

    def stop(self) -> None:
        """Stop at once; silent answers end."""
        self.shutdown()
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    """Hands each request to the stand-in, and its answer back."""

    protocol_version = "HTTP/1.1"
    server: Server
    timeout = 60
    wbufsize = -1  # head and body in one segment, so that nobody waits for a delayed acknowledgement

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        status, fields, payload = self.server.vault.answer(Seen(self.command, self.path, headers, body), self._peer())
        if status <= 0:
            self.close_connection = True
            if status < 0:
                self.server.vault.stopped.wait(60)
            return
        self.send_response(status)
        for name, value in fields.items():
            self.send_header(name, value)
        if status != 204:
            self.send_header("content-length", str(len(payload)))
        self.end_headers()
        if status != 204 and self.command != "HEAD":
            self.wfile.write(payload)

    do_GET = do_HEAD = do_LIST = do_POST = do_PUT = do_PATCH = do_DELETE = _serve  # noqa: N815  the library's names

    def _peer(self) -> Peer:
        host = self.client_address[0] if self.server.address_family == socket.AF_INET else "127.0.0.1"
        connection = self.connection
        der = connection.getpeercert(True) if isinstance(connection, ssl.SSLSocket) else None
        if der is None or not isinstance(connection, ssl.SSLSocket):
            return Peer(host)
        return Peer(host, sha256(der).hexdigest(), connection.getpeercert() or {})

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base class names it so
        """Say nothing."""
