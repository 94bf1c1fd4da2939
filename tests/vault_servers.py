"""The Vault that tests talk to: the stand-in, and a real server where there is one."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from vault_standin import VaultStandIn

from wise_creds import Namespace, SecretDocument, WiseCredsError
from wise_creds.clock import SYSTEM_CLOCK, Clock
from wise_creds_vault import VaultProvider
from wise_creds_vault._options import VaultOptions

GIVEN = os.environ.get("WISE_CREDS_TEST_VAULT_ADDR")
PROGRAM = shutil.which("bao") or shutil.which("vault")
REAL = GIVEN or PROGRAM
KINDS = ["stand-in", *(["real"] if REAL else [])]
SAID = f"vault: the stand-in, and {'a real server' if REAL else 'no real server (neither bao nor vault is here)'}"


FIELDS = {"client_id": "canary-client-id", "client_secret": "canary-secret-1a2b"}


def soon() -> float:
    """Give a deadline ten seconds away."""
    return SYSTEM_CLOCK.boot() + 10


def fetched(provider: VaultProvider, **arguments: Any) -> SecretDocument:
    """Fetch until then."""
    return provider.fetch(deadline=soon(), **arguments)


def revealed(document: SecretDocument | None) -> dict[str, str]:
    """Look at a document's values."""
    assert document is not None
    return {name: value.reveal() for name, value in document.fields.items()}


def refused(provider: VaultProvider, **arguments: Any) -> WiseCredsError:
    """Give the error of a fetch."""
    with pytest.raises(WiseCredsError) as caught:
        fetched(provider, **arguments)
    return caught.value


class Vault:
    """A KV mount of the test's own on some server, seen by its administrator."""

    def __init__(self, address: str, token: str, standin: VaultStandIn | None = None) -> None:
        self.address, self.token, self.standin = address, token, standin
        self.mount = f"kv-{secrets.token_hex(4)}"
        self.ask("POST", f"sys/mounts/{self.mount}", {"type": "kv", "options": {"version": "2"}})

    def ask(self, method: str, path: str, body: object = None, **headers: str) -> Any:
        """Do something as the administrator."""
        given = {"X-Vault-Token": self.token, **headers}
        for _ in range(50):
            answer = httpx.request(method, f"{self.address}/v1/{path}", json=body, headers=given, trust_env=False)
            if "Upgrading from non-versioned" not in answer.text:
                break
            threading.Event().wait(0.05)
        assert answer.is_success, (method, path, answer.status_code, answer.text)
        return answer.json() if answer.content else None

    def put(self, content: object, path: str = "wise/sandbox") -> int:
        """Write a version."""
        number: int = self.ask("POST", f"{self.mount}/data/{path}", {"data": content})["data"]["version"]
        return number

    def content(self, path: str = "wise/sandbox") -> Any:
        """Read the current content; None where there is none."""
        given = {"X-Vault-Token": self.token}
        answer = httpx.get(f"{self.address}/v1/{self.mount}/data/{path}", headers=given, trust_env=False)
        return answer.json()["data"]["data"] if answer.is_success else None

    def versions(self, path: str = "wise/sandbox") -> int:
        """Count what was written so far."""
        number: int = self.ask("GET", f"{self.mount}/metadata/{path}")["data"]["current_version"]
        return number

    def allow(self, rules: str, **settings: object) -> str:
        """Make a token with a policy of its own; `%` in the rules is the mount."""
        name = f"policy-{secrets.token_hex(4)}"
        self.ask("PUT", f"sys/policies/acl/{name}", {"policy": rules.replace("%", self.mount)})
        made = self.ask("POST", "auth/token/create", {"policies": [name], "ttl": "1h", **settings})
        token: str = made["auth"]["client_token"]
        return token

    def approle(self, rules: str = 'path "%/*" { capabilities = ["read"] }', **settings: object) -> dict[str, Any]:
        """Make a role and a secret ID for it; gives what the table `auth` holds, but for the secret ID."""
        name = f"role-{secrets.token_hex(4)}"
        if self.standin is None and "approle/" not in self.ask("GET", "sys/auth")["data"]:
            self.ask("POST", "sys/auth/approle", {"type": "approle"})
        self.ask("PUT", f"sys/policies/acl/{name}", {"policy": rules.replace("%", self.mount)})
        self.ask("POST", f"auth/approle/role/{name}", {"token_policies": [name], **settings})
        role_id = self.ask("GET", f"auth/approle/role/{name}/role-id")["data"]["role_id"]
        self.role = name
        return {"method": "approle", "role_id": role_id, "secret_id_env": "SECRET_ID"}

    def secret_id(self, *, wrapped: bool = False) -> str:
        """Make a secret ID for the role, or a wrapping token for one."""
        headers = {"X-Vault-Wrap-TTL": "60s"} if wrapped else {}
        made = self.ask("POST", f"auth/approle/role/{self.role}/secret-id", {}, **headers)
        given: str = made["wrap_info"]["token"] if wrapped else made["data"]["secret_id"]
        return given

    def options(self, **changes: Any) -> dict[str, Any]:
        """Give options that read the secret with the administrator's token, unless changed."""
        return {"address": self.address, "mount": self.mount, "path": "wise/sandbox",
                "auth": {"method": "token", "token_env": "TOKEN"}, **changes}  # fmt: skip

    def provider(
        self, *, clock: Clock = SYSTEM_CLOCK, environ: dict[str, str] | None = None,
        namespace: Namespace = Namespace.SANDBOX, **changes: Any,
    ) -> VaultProvider:  # fmt: skip
        """Make a provider as the core does."""
        chosen = VaultOptions.model_validate(self.options(**changes), context={"base": "."})
        made = VaultProvider(chosen, namespace=namespace, environ={"TOKEN": self.token, **(environ or {})}, clock=clock)
        made.uniform = lambda low, high: low  # no pauses between attempts
        return made

    def seen(self) -> list[str]:
        """Method and path of what arrived at the stand-in since the last look, the administrator's own left out."""
        assert self.standin is not None
        ours = [one for one in self.standin.requests if one.headers.get("x-vault-request") == "true"]
        self.standin.requests.clear()
        return [f"{one.method} {one.path.removeprefix('/v1/').replace(self.mount, 'kv')}" for one in ours]


@contextmanager
def running(kind: str) -> Iterator[Vault]:
    """Give a server for one test."""
    if kind == "stand-in":
        with VaultStandIn() as standin:
            yield Vault(standin.address, standin.root_token, standin)
    elif GIVEN:
        yield Vault(GIVEN, os.environ["WISE_CREDS_TEST_VAULT_TOKEN"])
    else:
        yield from _started()


def _started() -> Iterator[Vault]:
    assert PROGRAM is not None
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    token = secrets.token_urlsafe(24)
    server = subprocess.Popen(
        [PROGRAM, "server", "-dev", f"-dev-root-token-id={token}", f"-dev-listen-address=127.0.0.1:{port}"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        for _ in range(100):
            try:
                httpx.get(f"http://127.0.0.1:{port}/v1/sys/health", trust_env=False)
            except httpx.TransportError:
                threading.Event().wait(0.1)
            else:
                break
        yield Vault(f"http://127.0.0.1:{port}", token)
    finally:
        server.terminate()
        server.wait(10)
