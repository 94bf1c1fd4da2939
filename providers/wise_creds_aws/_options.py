"""What stands in wise-creds.toml for the provider `aws`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from wise_creds import Options as BaseOptions
from wise_creds.namespace import is_loopback, legal_port
from wise_creds.provider import ConfigPath, option_problem

_ARN = re.compile(r"arn:aws[a-z-]*:secretsmanager:([a-z0-9-]+):([0-9]{12}):secret:([A-Za-z0-9/_+=.@-]{1,519})")
_ROLE = re.compile(r"arn:aws[a-z-]*:iam::[0-9]{12}:role/[\x21-\x7e]{1,512}")
_SUFFIX = re.compile(r"-[A-Za-z0-9]{6}")


@dataclass(frozen=True)
class Reference:
    """A secret as the configuration names it; region and account only from an ARN."""

    name: str
    region: str | None = None
    account: str | None = None

    @property
    def ambiguous(self) -> bool:
        """Whether AWS may take it for another secret: a name that looks like an ARN's end, or an ARN without its end."""
        return bool(_SUFFIX.search(self.name[-7:])) is (self.account is None)


def reference(secret: str) -> Reference:
    """Read a name or an ARN."""
    found = _ARN.fullmatch(secret)
    return Reference(found[3], found[1], found[2]) if found else Reference(secret)


class AwsOptions(BaseOptions):
    """Options of the provider `aws`."""

    secret: str = Field(min_length=1, max_length=2048)
    """Name or full ARN of the secret."""
    region: str | None = Field(None, pattern=r"^[a-z0-9-]{4,32}$")
    """Default: the ARN's, else the session's (`$AWS_DEFAULT_REGION`, profile), else `$AWS_REGION`."""
    stage: str | None = Field(None, min_length=1)
    """Staging label to read; default `AWSCURRENT`, which is always sent."""
    version_id: str | None = Field(None, min_length=1)
    """A pinned version, instead of `stage`."""
    field: str | None = None
    """The secret is one plain value: this field."""
    fields: dict[str, str] | None = None
    """Canonical names to the keys of the JSON secret; a dotted name leads into nested objects."""
    profile: str | None = None
    """A profile of the machine's AWS configuration; sandbox only."""
    role_arn: str | list[str] | None = None
    """A role to assume, or several, one with the credentials of the one before."""
    external_id: str | None = None
    """For the last of the roles."""
    session_name: str = Field("wise-creds", pattern=r"^[\w+=,.@-]{2,64}$")
    """How CloudTrail names the assumed role."""
    account_id: str | None = Field(None, pattern="^[0-9]{12}$")
    """The account that the secret must be in."""
    endpoint_url: str | None = None
    """A VPC endpoint or a local stack; https, or http to loopback. Endpoint variables of the environment are ignored."""
    sts_endpoint_url: str | None = None
    """Default: `endpoint_url`."""
    proxy: str | None = None
    """`http://host:port`; proxies of the environment are ignored."""
    ca_bundle: ConfigPath | None = None
    """PEM file to trust for AWS instead of the one that botocore brings."""
    fips: bool = False
    """Use the FIPS endpoint."""
    dualstack: bool = False
    """Use the dual-stack endpoint (IPv6)."""
    session: Any = Field(None, repr=False, exclude=True)
    """A ready `boto3.Session`; only in a configuration given as a mapping."""

    @field_validator("endpoint_url", "sts_endpoint_url", "proxy")
    @classmethod
    def _endpoint(cls, url: str | None, info: Any) -> str | None:  # noqa: ANN401  pydantic's own
        if url is None:
            return None
        parts = urlsplit(url)
        if not parts.hostname or "@" in parts.netloc or parts.query or parts.fragment or not legal_port(parts):
            raise option_problem("not a plain URL", code="WC204", hint="https://host, without user, query or fragment")
        plain = parts.scheme == "http" and (info.field_name == "proxy" or is_loopback(parts.hostname))
        if parts.scheme != "https" and not plain:
            raise option_problem("needs https; plain http only to loopback", code="WC203", hint="https://…")
        return url

    @field_validator("role_arn")
    @classmethod
    def _roles(cls, given: str | list[str] | None) -> str | list[str] | None:
        roles = [given] if isinstance(given, str) else given or []
        if given == []:
            raise option_problem("names no role", code="WC104", hint="name one, or leave it out")
        if not all(_ROLE.fullmatch(role) for role in roles):
            raise option_problem("not the ARN of a role", hint="arn:aws:iam::123456789012:role/name")
        return given

    @model_validator(mode="after")
    def _agreeing(self) -> Self:
        where = reference(self.secret)
        if self.secret.startswith("arn:") and where.account is None:
            raise option_problem("secret is not the ARN of a secret",
                                 hint="arn:aws:secretsmanager:REGION:ACCOUNT:secret:NAME-XXXXXX, or its name")  # fmt: skip
        for ours, theirs, what in (
            (self.region, where.region, "region"),
            (self.account_id, where.account, "account_id"),
        ):
            if ours is not None and theirs is not None and ours != theirs:
                raise option_problem(f"{what} is not the one in the ARN of secret", code="WC313",
                                     hint="leave it out, or correct one of the two")  # fmt: skip
        for one, other in (("stage", "version_id"), ("field", "fields"), ("profile", "session")):
            if getattr(self, one) is not None and getattr(self, other) is not None:
                raise option_problem(f"{one} and {other} exclude each other", code="WC104", hint="keep one of the two")
        if self.external_id is not None and self.role_arn is None:
            raise option_problem("external_id without role_arn", code="WC104", hint="name the role, or leave it out")
        return self

    @property
    def roles(self) -> list[str]:
        """The roles to assume, in order."""
        return [self.role_arn] if isinstance(self.role_arn, str) else list(self.role_arn or ())
