"""Getting a Vault token, and keeping it while it lasts. Each login reads its material anew."""

from __future__ import annotations

import base64
import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from wise_creds import ConfigError, Namespace, PluginError, Secret
from wise_creds.clock import Clock
from wise_creds.errors import AccessDeniedError, ProviderError, WiseCredsError, printable
from wise_creds_vault._errors import missing
from wise_creds_vault._options import (
    AgentAuth,
    AppRoleAuth,
    Auth,
    AwsAuth,
    CertAuth,
    JwtAuth,
    KubernetesAuth,
    TokenAuth,
)
from wise_creds_vault._wire import Wire

_PERSONAL = ".vault-token"
_LONGEST = 65_536
_STS_BODY = "Action=GetCallerIdentity&Version=2011-06-15"


@dataclass(frozen=True)
class Lease:
    """
    A Vault token.

    Args:
        token: None where an agent adds its own.
        due: the point on the boot clock from which on it is renewed, or got anew.
        ends: the point on the boot clock at which it ends.
        life: seconds that it was given at first.
        renewable: whether Vault would lengthen it.
        own: whether we made it, and so revoke it.
        process: who got it; a forked child has no part in it.
    """

    token: Secret | None
    due: float = math.inf
    ends: float = math.inf
    life: float = math.inf
    renewable: bool = False
    own: bool = False
    process: int = 0


class Login:
    """
    One way to log in.

    Args:
        auth: the `auth` table.
        namespace: tokens of a person are for sandbox only.
        environ: where `*_env` options look.
        clock: time.

    Raises:
        ConfigError: a person's token in production (WC209).
    """

    def __init__(self, auth: Auth, *, namespace: Namespace, environ: Mapping[str, str], clock: Clock) -> None:
        personal = isinstance(auth, TokenAuth) and auth.token_env is None and (
            auth.token_file is None or auth.token_file.name == _PERSONAL)  # fmt: skip
        if personal and namespace is Namespace.PRODUCTION:
            raise ConfigError("the token of a person is for sandbox only", code="WC209", location="auth",
                              hint="give token_file or token_env, or better a method of the machine's own")  # fmt: skip
        self._auth, self._environ, self._clock = auth, environ, clock
        self._secret_id: tuple[Secret, Secret] | None = None

    def lease(self, wire: Wire) -> Lease:
        """
        Log in.

        Raises:
            AccessDeniedError: nothing to log in with (WC324), or refused (WC325, WC342, WC343).
            ProviderUnavailableError: could not ask.
        """
        wire.identity = None
        auth, now = self._auth, self._clock.boot()
        if isinstance(auth, AgentAuth):
            return Lease(None, process=os.getpid())
        if isinstance(auth, TokenAuth):
            return self._looked_up(wire, self._static(auth), now)
        headers: dict[str, str] = {}
        body = self._body(wire, auth)
        given = wire.post(f"/v1/auth/{auth.mount.strip('/')}/login", json=body, headers=headers)
        return self._lease(wire, given, now)

    def renewed(self, wire: Wire, lease: Lease) -> Lease | None:
        """Lengthen a lease; None where that is not worth while, or not possible."""
        now = self._clock.boot()
        try:
            if isinstance(self._auth, TokenAuth) and self._static(self._auth) != lease.token:
                return None  # somebody has replaced it
            given = wire.post("/v1/auth/token/renew-self", json={}) if lease.renewable else {}
            longer = self._lease(wire, given, now)
        except WiseCredsError:
            return None
        return replace(longer, own=lease.own, life=lease.life) if longer.life > lease.life / 3 else None

    def _lease(self, wire: Wire, given: Any, now: float) -> Lease:  # noqa: ANN401  parsed JSON
        auth = given.get("auth")
        token = auth.get("client_token") if isinstance(auth, Mapping) else None
        if not isinstance(token, str) or not _sendable(token):
            raise missing("foreign", place=wire.place, login="")
        life = _life(auth.get("lease_duration"))
        return Lease(Secret(token, name="vault token"), now + life * 2 / 3, now + life, life, auth.get("renewable") is True,
                     auth.get("token_type") != "batch", os.getpid())  # fmt: skip

    def _looked_up(self, wire: Wire, token: Secret, now: float) -> Lease:
        """Ask once how long a token lives; one that may not even ask that may still read."""
        lease = Lease(token, process=os.getpid())
        wire.identity = token
        try:
            about = wire.get("/v1/auth/token/lookup-self").get("data")
        except AccessDeniedError:
            raise
        except ProviderError as problem:
            if problem.retryable:
                raise
            return lease
        life = _life(about.get("ttl")) if isinstance(about, Mapping) else math.inf
        return replace(
            lease, due=now + life * 2 / 3, life=life, renewable=bool(about) and about.get("renewable") is True
        )

    def _static(self, auth: TokenAuth) -> Secret:
        if auth.token_env is not None:
            return self._variable(auth.token_env)
        home = self._environ.get("HOME") or "~"
        return _file(auth.token_file or Path(home).expanduser() / _PERSONAL)

    def _body(self, wire: Wire, auth: Auth) -> dict[str, str]:
        match auth:
            case AppRoleAuth():
                given = _file(auth.secret_id_file) if auth.secret_id_file else self._variable(auth.secret_id_env or "")
                secret_id = self._unwrapped(wire, auth, given) if auth.secret_id_wrapped else given
                return {"role_id": auth.role_id, "secret_id": secret_id.reveal()}
            case KubernetesAuth() | JwtAuth():
                return {"role": auth.role, "jwt": _file(auth.token_file).reveal()}
            case AwsAuth():
                return _signed(auth)
            case CertAuth():
                return {} if auth.name is None else {"name": auth.name}
        raise AssertionError  # pragma: no cover  the other two send no login

    def _unwrapped(self, wire: Wire, auth: AppRoleAuth, wrapping: Secret) -> Secret:
        if self._secret_id is not None and self._secret_id[0] == wrapping:
            return self._secret_id[1]  # a wrapping token serves once, a secret ID perhaps for several logins
        # Looked up first: a token that wraps something else was slipped in, and unwrapping it would hide that.
        about = wire.post("/v1/sys/wrapping/lookup", json={"token": wrapping.reveal()})
        made_at = str((about.get("data") or {}).get("creation_path"))
        if not re.fullmatch(rf"auth/{re.escape(auth.mount.strip('/'))}/role/[^/]+/(custom-)?secret-id", made_at):
            raise missing("wrapped elsewhere", place=wire.place, login=wire.login_place())
        given = wire.post("/v1/sys/wrapping/unwrap", headers={"X-Vault-Token": wrapping.reveal()})
        secret_id = (given.get("data") or {}).get("secret_id")
        if not isinstance(secret_id, str):
            raise missing("foreign", place=wire.place, login="")
        self._secret_id = wrapping, Secret(secret_id, name="secret_id")
        return self._secret_id[1]

    def _variable(self, name: str) -> Secret:
        return _checked(self._environ.get(name, ""), f"${printable(name)}")


def _signed(auth: AwsAuth) -> dict[str, str]:
    """Sign the request that Vault sends to STS to learn who we are; the region's own endpoint, not the global one."""
    try:
        import boto3
        from botocore.auth import SigV4Auth
        from botocore.awsrequest import AWSRequest
    except ModuleNotFoundError:
        raise PluginError("auth.method aws needs the module boto3, which is not installed", code="WC123",
                          location="auth", hint="pip install 'wise-creds[aws]'") from None  # fmt: skip
    held = boto3.Session().get_credentials()
    if held is None:
        raise AccessDeniedError("no AWS credentials", code="WC324", location="auth",
                                hint="a role of the machine or task, or $AWS_… variables give them")  # fmt: skip
    domain = "amazonaws.com.cn" if auth.region.startswith("cn-") else "amazonaws.com"
    url = f"https://sts.{auth.region}.{domain}/"
    headers = {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}
    if auth.server_id is not None:
        headers["X-Vault-AWS-IAM-Server-ID"] = auth.server_id
    asked = AWSRequest(method="POST", url=url, data=_STS_BODY, headers=headers)
    SigV4Auth(held.get_frozen_credentials(), "sts", auth.region).add_auth(asked)
    return {
        "role": auth.role,
        "iam_http_request_method": "POST",
        "iam_request_url": _encoded(url),
        "iam_request_body": _encoded(_STS_BODY),
        "iam_request_headers": _encoded(json.dumps(dict(asked.headers.items()))),
    }


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode("ascii")


def _file(path: Path) -> Secret:
    where = printable(path)
    try:
        with path.open("rb") as opened:
            text = opened.read(_LONGEST).decode("ascii", "replace")
    except OSError as caught:
        raise AccessDeniedError(f"nothing to log in with: the file cannot be read ({type(caught).__name__})", code="WC324",
                                location=where, hint="is it mounted, and may this process read it?") from None  # fmt: skip
    return _checked(text, where)


def _checked(text: str, where: str) -> Secret:
    text = text.strip()
    if not _sendable(text):
        raise AccessDeniedError("nothing to log in with: empty, or not one word", code="WC324", location=where,
                                hint="it holds the bare value; a wrapped or JSON sink of an agent is not read")  # fmt: skip
    return Secret(text, name="vault login")


def _sendable(text: str) -> bool:
    return re.fullmatch(r"[!#-z|~]+", text) is not None  # what a header may carry, and no JSON


def _life(seconds: object) -> float:
    """A lease's length; a token without an end says 0."""
    return float(seconds) if isinstance(seconds, int) and seconds > 0 else math.inf
