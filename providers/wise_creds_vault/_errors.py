"""What Vault says, in our words: decided by status and shape, by its text only where nothing else tells."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Literal

from wise_creds.errors import (
    AccessDeniedError,
    ConfigError,
    CredentialsError,
    ProviderError,
    ProviderUnavailableError,
    RotationError,
    SecretNotFoundError,
    WiseCredsError,
)

Step = Literal["read", "write", "login", "unwrap", "token"]
"""What was tried: with the secret, with an identity, or with the Vault token itself."""
_REPLICATING, _DR_STANDBY, _PERFORMANCE_STANDBY = 412, 472, 473  # statuses of Vault's own
_SHOWN = "docs/vault.md has the least policies"


@dataclass(frozen=True)
class Answer:
    """One HTTP answer; `body` is None where it is not JSON."""

    status: int
    body: object = None
    retry_after: float = 0.0

    def at(self, *keys: str) -> object:
        """Look into the body; None where there is no such place."""
        value = self.body
        for key in keys:
            value = value.get(key) if isinstance(value, Mapping) else None
        return value

    @property
    def said(self) -> str:
        """Vault's own text, for telling cases apart and never for showing."""
        errors = self.at("errors")
        return "\n".join(map(str, errors)) if isinstance(errors, list) else ""


def explained(answer: Answer, *, step: Step, place: str, login: str) -> WiseCredsError | None:
    """
    Make our error out of an answer; None for a success.

    Args:
        answer: what came.
        step: what was tried.
        place: the secret, for messages.
        login: auth method, mount and namespace, for hints.
    """
    status, said = answer.status, answer.said
    if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
        whole = status == HTTPStatus.NO_CONTENT or isinstance(answer.body, Mapping)
        return None if whole else _made("foreign", place, login, status)
    return _made(
        ("namespace" if status == HTTPStatus.NOT_FOUND and "namespace not found" in said else None)
        or _IN_STEP[step](answer)
        or _unavailable(status, said)
        or ("foreign" if answer.body is None else "other"),
        place,
        login,
        status,
    )


def gone(metadata: Mapping[str, object], now: datetime) -> Literal["deleted", "destroyed"] | None:
    """Tell from a version's metadata whether its data can still be read."""
    if metadata.get("destroyed") is True:
        return "destroyed"
    ends = instant(metadata.get("deletion_time"))
    return "deleted" if ends is not None and ends <= now else None


def instant(text: object) -> datetime | None:
    """Read one of Vault's times, `2026-11-21T02:19:31.696981383Z`; None for `""` and for what is none."""
    whole, _, rest = str(text).removesuffix("Z").partition(".")
    try:
        return datetime.fromisoformat(f"{whole}.{rest[:6]:0<6}").replace(tzinfo=UTC)
    except ValueError:
        return None


def missing(kind: str, *, place: str, login: str) -> WiseCredsError:
    """Make an error that no single answer tells."""
    return _made(kind, place, login, 0)


def _made(kind: str, place: str, login: str, status: int) -> WiseCredsError:
    error, code, message, hint = _WORDS[kind]
    return error(message.format(status=status), code=code, location=place, hint=hint.format(login=login))


def _unavailable(status: int, said: str) -> str | None:
    if HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
        return "redirect"
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return "throttled"
    if status == HTTPStatus.SERVICE_UNAVAILABLE and "sealed" in said:
        return "sealed"
    # A KV engine just made answers 400 for a moment.
    starting = status == HTTPStatus.BAD_REQUEST and said.startswith("Upgrading from non-versioned")
    waiting = status in (_REPLICATING, _DR_STANDBY, _PERFORMANCE_STANDBY)
    return "outage" if starting or waiting or status >= HTTPStatus.INTERNAL_SERVER_ERROR else None


def _reading(answer: Answer) -> str | None:
    if answer.status == HTTPStatus.FORBIDDEN:
        return "denied"
    if answer.status != HTTPStatus.NOT_FOUND:
        return None
    metadata = answer.at("data", "metadata")
    if isinstance(metadata, Mapping):
        return "destroyed" if metadata.get("destroyed") is True else "deleted"
    if answer.at("warnings"):
        return "version 2"
    if answer.said.startswith(("no handler for route", "unsupported path")):
        return "mount"
    return "absent" if answer.at("errors") == [] else None


def _writing(answer: Answer) -> str | None:
    return "moved" if answer.status == HTTPStatus.BAD_REQUEST and "check-and-set" in answer.said else _reading(answer)


def _login(answer: Answer) -> str | None:
    refused = (HTTPStatus.BAD_REQUEST, HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND)
    incomplete = answer.status == HTTPStatus.INTERNAL_SERVER_ERROR and answer.said.startswith("missing ")
    return "login" if (answer.status in refused and answer.body is not None) or incomplete else None


def _unwrapping(answer: Answer) -> str | None:
    refused = (HTTPStatus.BAD_REQUEST, HTTPStatus.FORBIDDEN)
    return "wrapping" if answer.status in refused and answer.body is not None else None


def _token(answer: Answer) -> str | None:
    # The other text of a 403 comes of a policy that does not let a token look at itself; it may be a good token.
    # HashiCorp's server names both: https://github.com/hashicorp/vault/pull/26687.
    bad = answer.said == "permission denied" or "invalid token" in answer.said
    return "token" if answer.status == HTTPStatus.FORBIDDEN and bad else None


_IN_STEP = {"read": _reading, "write": _writing, "login": _login, "unwrap": _unwrapping, "token": _token}

_WORDS: dict[str, tuple[type[WiseCredsError], str, str, str]] = {
    "absent": (SecretNotFoundError, "WC301", "there is no such secret", "check mount, path and vault_namespace"),
    "absent?": (SecretNotFoundError, "WC301", "there is no such secret",
                "or the engine is version 1 and needs kv_version = 1: Vault refused to say"),
    "deleted": (SecretNotFoundError, "WC337", "the version is deleted, by hand or by delete_version_after",
                "vault kv undelete brings it back"),
    "destroyed": (SecretNotFoundError, "WC338", "the version is destroyed", "write the secret anew"),
    "mount": (ConfigError, "WC339", "nothing is mounted there", "check mount and vault_namespace; vault secrets list"),
    "version 1": (ConfigError, "WC340", "the engine is version 1, not 2", "kv_version = 1"),
    "version 2": (ConfigError, "WC340", "the engine is version 2, not 1", "kv_version = 2"),
    "namespace": (ConfigError, "WC341", "there is no such Vault namespace", "check vault_namespace ({login})"),
    "denied": (AccessDeniedError, "WC302", "Vault refuses access to it", f"{_SHOWN}; a wrong mount looks the same"),
    "login": (AccessDeniedError, "WC325", "Vault refuses the login (status {status})",
              "unknown, used up or expired looks the same; check {login}"),
    "wrapping": (AccessDeniedError, "WC342", "the wrapping token is used or expired (status {status})",
                 "if nobody of yours has used it, take it as stolen; wrap a new secret ID"),
    "wrapped elsewhere": (AccessDeniedError, "WC342", "the wrapping token was not made for a secret ID of this mount",
                          "take it as forged; wrap a new secret ID ({login})"),
    "token": (AccessDeniedError, "WC343", "Vault does not accept the token", "is it expired or revoked? check {login}"),
    "throttled": (ProviderUnavailableError, "WC327", "Vault limits the rate", "fewer processes that start at once"),
    "sealed": (ProviderUnavailableError, "WC344", "Vault is sealed", "its operators must unseal it"),
    "uninitialised": (ProviderUnavailableError, "WC345", "Vault is not initialised", "is address the right server?"),
    "redirect": (ProviderUnavailableError, "WC346", "Vault redirects to another node (status {status})",
                 "redirects are not followed; give an address that forwards, a load balancer for instance"),
    "outage": (ProviderUnavailableError, "WC303", "Vault cannot serve now (status {status})", "see its logs"),
    "slow": (ProviderUnavailableError, "WC304", "Vault did not answer in time", "is there a route? see timeout"),
    "large": (CredentialsError, "WC308", "the answer is larger than 128 KiB", "is it the right secret?"),
    "foreign": (ProviderError, "WC336", "what came back is not an answer of Vault (status {status})",
                "is address the right host, and its scheme?"),
    "other": (ProviderError, "WC335", "Vault refuses the request (status {status})", "see Vault's audit log"),
    "stale": (RotationError, "WC750", "what is staged is older than the current version",
              "wise-creds rotate discard, then stage again"),
    "restaged": (RotationError, "WC702", "somebody else has staged meanwhile", "look at its status, then decide anew"),
    "moved": (RotationError, "WC702", "the current version is not the expected one: somebody else has rotated",
              "look at its status, then decide anew"),
}  # fmt: skip
