"""
Everything that wise-creds raises, and the notices it gives.

```
WiseCredsError
├── ConfigError                    also: no region, wrong account, wrong mount or kv_version
│   ├── NamespaceError             sandbox and production would mix; a host that is not the namespace's
│   └── PluginError                unknown, duplicate, or its SDK is not installed
├── ProviderError
│   ├── ProviderUnavailableError   network, throttled, sealed, 5xx, deadline (retryable)
│   ├── AccessDeniedError          refused; no, or an expired, identity
│   └── SecretNotFoundError        absent, deleted, destroyed, no value for the stage
├── CredentialsError               not JSON, wrong shape, too large; not usable as credentials
├── TokenError
│   ├── TokenRejectedError
│   ├── TokenUnavailableError      network, 429, 5xx, deadline (retryable)
│   └── TokenResponseError
├── RotationError                  nothing staged, lost compare-and-set, not possible here
└── LoadError                      everything wrong with one load: `.errors`
```

Messages are safe to log: names, codes and places, never a value, a server's text or a cause.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

_LONGEST_NAME = 128
_UNPRINTABLE = re.compile(r"[^\x20-\x7e]")


def _escape(text: str) -> str:
    return _UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def printable(foreign: object) -> str:
    """Make foreign text fit for a message: printable ASCII, at most 128 characters, the rest escaped or left out."""
    text = _escape(str(foreign))
    return text if len(text) <= _LONGEST_NAME else f"{text[:60]}...{text[-65:]}"


class WiseCredsError(Exception):
    """
    The root of everything that wise-creds raises.

    Attributes:
        code: stable, `WC…`, explained in docs/errors.md.
        namespace: `"sandbox"`, `"production"` or None where it is not known yet.
        location: where (a key of the configuration, a file, a secret's name), never what stands there.
        hint: what to do about it.
        retryable: whether the same call may succeed later without anybody changing anything.
    """

    retryable: bool = False

    def __init__(
        self,
        message: str,
        *,
        code: str = "WC000",
        namespace: str | None = None,
        location: str | None = None,
        hint: str | None = None,
        retryable: bool | None = None,
    ) -> None:
        self.message = _escape(message)
        super().__init__(self.message)
        self.code = code
        self.namespace = None if namespace is None else _escape(str(namespace))
        self.location = None if location is None else _escape(location)
        self.hint = None if hint is None else _escape(hint)
        if retryable is not None:
            self.retryable = retryable

    def __str__(self) -> str:
        place = "".join(f"{part}: " for part in (self.namespace, self.location) if part)
        return f"{self.code} {place}{self.message}" + (f" (hint: {self.hint})" if self.hint else "")


class ConfigError(WiseCredsError):
    """The configuration is wrong; nothing was asked of any store or of Wise."""


class NamespaceError(ConfigError):
    """Sandbox and production would mix, or a host is not the namespace's."""


class PluginError(ConfigError):
    """A provider is unknown, there twice, broken, or misses its SDK."""


class ProviderError(WiseCredsError):
    """A store did not give the secret."""


class ProviderUnavailableError(ProviderError):
    """The store could not be asked: network, throttling, sealed, 5xx, deadline."""

    retryable = True


class AccessDeniedError(ProviderError):
    """The store was asked and refused."""


class SecretNotFoundError(ProviderError):
    """The store was asked and has no such value."""


class CredentialsError(WiseCredsError):
    """What the store gave does not make usable credentials."""


class TokenError(WiseCredsError):
    """
    No token.

    Attributes:
        status: the HTTP status, or None where no answer came.
        trace_id: Wise's `x-trace-id`, which its support asks for.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str = "WC000",
        namespace: str | None = None,
        location: str | None = None,
        hint: str | None = None,
        retryable: bool | None = None,
        status: int | None = None,
        trace_id: str | None = None,
    ) -> None:
        super().__init__(message, code=code, namespace=namespace, location=location, hint=hint, retryable=retryable)
        self.status = status
        self.trace_id = None if trace_id is None else printable(trace_id)

    def __str__(self) -> str:
        return super().__str__() + (f" [x-trace-id {self.trace_id}]" if self.trace_id else "")


class TokenRejectedError(TokenError):
    """Wise was asked and refused: the client, its certificate, or the request."""


class TokenUnavailableError(TokenError):
    """
    Wise could not be asked, or answered that it cannot serve now.

    Attributes:
        retry_after: seconds that Wise asks to wait, or None.
    """

    retryable = True
    retry_after: float | None = None


class TokenResponseError(TokenError):
    """Wise's answer is not a token answer."""


class RotationError(WiseCredsError):
    """A rotation step cannot be done here or now."""


class LoadError(WiseCredsError):
    """
    Everything that is wrong with one load.

    Attributes:
        errors: the single errors, never empty. Code, location, hint and namespace are the first one's; the whole is
            retryable only if each of them is.
    """

    def __init__(self, errors: Sequence[WiseCredsError]) -> None:
        self.errors = tuple(errors)
        first = self.errors[0]
        super().__init__(
            first.message if len(self.errors) == 1 else f"{len(self.errors)} problems",
            code=first.code,
            namespace=first.namespace,
            location=first.location,
            hint=first.hint,
            retryable=all(error.retryable for error in self.errors),
        )

    def __str__(self) -> str:
        if len(self.errors) == 1:
            return str(self.errors[0])
        return "\n".join([f"{len(self.errors)} problems", *(f"  {error}" for error in self.errors)])

    def __reduce__(self) -> tuple[type[LoadError], tuple[tuple[WiseCredsError, ...]]]:
        return type(self), (self.errors,)


@dataclass(frozen=True, kw_only=True)
class Notice:
    """Something worth saying that stops nothing; `connect` logs it, `validate` shows it."""

    code: str
    message: str
    level: Literal["warning", "information"] = "warning"
    namespace: str | None = None
    location: str | None = None
    hint: str | None = None

    def __str__(self) -> str:
        return str(WiseCredsError(self.message, code=self.code, namespace=self.namespace, location=self.location,
                                  hint=self.hint))  # fmt: skip
