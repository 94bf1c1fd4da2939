"""What stands in wise-creds.toml for the provider `vault`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar
from urllib.parse import urlsplit

from pydantic import Field, ValidationInfo, field_validator, model_validator

from wise_creds import Options as BaseOptions
from wise_creds.namespace import is_loopback, legal_port
from wise_creds.provider import ConfigPath, option_problem

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")
_PATH = r"^[^/\s?#%][^\s?#%]*$"
Place = Annotated[str, Field(pattern=_PATH, max_length=512)]
Word = Annotated[str, Field(min_length=1, max_length=512)]


class _Auth(BaseOptions):
    vault_namespace: Place | None = None
    """Where to log in; default: the source's."""


A = TypeVar("A", bound=_Auth)


class TokenAuth(_Auth):
    """A token that somebody else keeps alive; in sandbox, with neither option, that of `vault login`."""

    method: Literal["token"]
    token_file: ConfigPath | None = None
    token_env: Word | None = None

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        return _exclusive(self, "token_file", "token_env")


class AppRoleAuth(_Auth):
    """https://developer.hashicorp.com/vault/docs/auth/approle."""

    method: Literal["approle"]
    mount: Place = "approle"
    role_id: Word
    secret_id_file: ConfigPath | None = None
    secret_id_env: Word | None = None
    secret_id_wrapped: bool = False
    """What is there is a wrapping token, good for one unwrapping."""

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if self.secret_id_file is None and self.secret_id_env is None:
            raise option_problem("needs secret_id_file or secret_id_env", code="WC104", hint="add one of them")
        return _exclusive(self, "secret_id_file", "secret_id_env")


class KubernetesAuth(_Auth):
    """https://developer.hashicorp.com/vault/docs/auth/kubernetes."""

    method: Literal["kubernetes"]
    mount: Place = "kubernetes"
    role: Word
    token_file: ConfigPath = SERVICE_ACCOUNT


class JwtAuth(_Auth):
    """https://developer.hashicorp.com/vault/docs/auth/jwt."""

    method: Literal["jwt"]
    mount: Place = "jwt"
    role: Word
    token_file: ConfigPath


class AwsAuth(_Auth):
    """The IAM type of https://developer.hashicorp.com/vault/docs/auth/aws; the identity is that of boto3."""

    method: Literal["aws"]
    mount: Place = "aws"
    role: Word
    region: str = Field(pattern=r"^[a-z0-9-]{4,32}$")
    """Whose STS endpoint Vault is to ask."""
    server_id: Word | None = None
    """What Vault wants in `X-Vault-AWS-IAM-Server-ID`."""


class CertAuth(_Auth):
    """https://developer.hashicorp.com/vault/docs/auth/cert; default certificate: the one for Vault's own TLS."""

    method: Literal["cert"]
    mount: Place = "cert"
    name: Word | None = None
    certificate_file: ConfigPath | None = None
    private_key_file: ConfigPath | None = None


class AgentAuth(_Auth):
    """A Vault Agent or Vault Proxy on this machine that logs in by itself."""

    method: Literal["agent"]


Auth = TokenAuth | AppRoleAuth | KubernetesAuth | JwtAuth | AwsAuth | CertAuth | AgentAuth


class VaultOptions(BaseOptions):
    """Options of the provider `vault`."""

    address: str
    """`https://host:port`; `http://` to loopback and `unix:///path` only for what runs on this machine."""
    mount: Place
    """Where the KV engine is mounted."""
    path: Place
    """The secret, without the mount and without `data/`."""
    auth: Annotated[Auth, Field(discriminator="method")]
    """How to log in."""
    kv_version: Literal[1, 2] = 2
    """The engine's version."""
    version: int | None = Field(None, ge=1)
    """A pinned version; KV v2 only."""
    fields: dict[str, str] | None = None
    """Canonical names to the keys of the secret; a dotted name leads into nested objects."""
    vault_namespace: Place | None = None
    """Namespace of Vault Enterprise or OpenBao; nothing to do with sandbox and production."""
    pending_path: Place | None = None
    """Where a rotation stages; default: the path with `-pending` behind it."""
    ca_bundle: ConfigPath | None = None
    """PEM file to trust for Vault; default: the system's roots."""
    certificate_file: ConfigPath | None = None
    """Client certificate for Vault's own TLS, with `private_key_file`."""
    private_key_file: ConfigPath | None = None
    proxy: str | None = None
    """`http://host:port`; proxies of the environment are ignored."""
    timeout: float = Field(5.0, gt=0, le=60)
    """Seconds for one attempt; the namespace's `deadline` is above it."""

    @field_validator("mount", "vault_namespace")
    @classmethod
    def _stripped(cls, name: str | None) -> str | None:
        return None if name is None else name.strip("/")  # `vault secrets list` prints them with a slash

    @field_validator("path", "pending_path")
    @classmethod
    def _inside(cls, path: str | None, info: ValidationInfo) -> str | None:
        parts = (path or "x").split("/")
        if parts[0] == "data" or parts[0] == (info.data.get("mount") or "/").partition("/")[0]:
            raise option_problem("starts with data/ or with the mount", code="WC313",
                                 hint='mount = "kv" and path = "wise/production", for instance')  # fmt: skip
        if {"", ".", ".."} & set(parts):
            raise option_problem("is no plain path below the mount", code="WC313", hint="name the secret itself")
        return path

    @field_validator("address")
    @classmethod
    def _address(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme == "unix" and not parts.netloc and parts.path.startswith("/") and parts.path == url[7:]:
            return url
        if (
            not parts.hostname
            or "@" in parts.netloc
            or not legal_port(parts)
            or parts.query
            or parts.fragment
            or parts.path.strip("/")
        ):
            raise option_problem(
                "not a plain URL", code="WC204", hint="https://vault.example:8200, and nothing behind it"
            )
        if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(parts.hostname)):
            raise option_problem("needs https; plain http only to loopback", code="WC203", hint="https://…")
        return url.rstrip("/")

    @field_validator("proxy")
    @classmethod
    def _proxy(cls, url: str | None) -> str | None:
        parts = urlsplit(url or "http://none")
        if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc or not legal_port(parts):
            raise option_problem("not a plain URL", code="WC204", hint="http://host:port, without a user")
        return url

    @model_validator(mode="after")
    def _agreeing(self) -> Self:
        if ".." in self.mount.split("/"):
            raise option_problem("mount leads out of itself", code="WC313", hint="name it as vault secrets list does")
        if self.proxy is not None and not self.address.startswith("https:"):
            raise option_problem("a proxy would see what goes to a plain address", code="WC203",
                                 hint="https, or no proxy: what runs on this machine needs none")  # fmt: skip
        if self.kv_version == 1 and (self.version is not None or self.pending_path is not None):
            raise option_problem("KV version 1 keeps one version only", code="WC104",
                                 hint="leave version and pending_path out, or use kv_version = 2")  # fmt: skip
        if self.pending_path == self.path:
            raise option_problem("pending_path is path itself", code="WC104", hint="leave it out")
        if isinstance(self.auth, AgentAuth) and self.address.startswith("https:"):
            raise option_problem("an agent is on this machine", code="WC104",
                                 hint='address = "http://127.0.0.1:8200" or "unix:///run/vault.sock"')  # fmt: skip
        for holder in (self, self.auth) if isinstance(self.auth, CertAuth) else (self,):
            if (holder.certificate_file is None) != (holder.private_key_file is None):
                raise option_problem("certificate_file and private_key_file go together", code="WC104",
                                     hint="give both; they may name one file")  # fmt: skip
        if isinstance(self.auth, CertAuth) and self.key_pair is None:
            raise option_problem("cert needs certificate_file and private_key_file", code="WC104", hint="add both")
        if self.key_pair is not None and not self.address.startswith("https:"):
            raise option_problem("a client certificate needs https", code="WC104", hint="https://…")
        return self

    @property
    def key_pair(self) -> tuple[Path, Path] | None:
        """The client certificate for TLS with Vault, and its key."""
        holder = self.auth if isinstance(self.auth, CertAuth) and self.auth.certificate_file is not None else self
        if holder.certificate_file is None or holder.private_key_file is None:
            return None
        return holder.certificate_file, holder.private_key_file

    @property
    def pending(self) -> str:
        """Where a rotation stages."""
        return self.pending_path or f"{self.path}-pending"

    @property
    def login_namespace(self) -> str | None:
        """Where the Vault token belongs."""
        return self.auth.vault_namespace or self.vault_namespace


def _exclusive(auth: A, one: str, other: str) -> A:
    if getattr(auth, one) is not None and getattr(auth, other) is not None:
        raise option_problem(f"{one} and {other} exclude each other", code="WC104", hint="keep one of the two")
    return auth
