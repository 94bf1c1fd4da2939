"""
Credentials for the Wise Platform: loaded from your secret store, checked, and never written anywhere.

```python
import wise_creds

wise = wise_creds.connect("production")
with wise.client() as http:
    http.post("/v3/quotes", json={})
```
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from wise_creds._generation import Generation
    from wise_creds._material import Certificate
    from wise_creds._open import aconnect, connect, load
    from wise_creds._user import UserTokens
    from wise_creds.clock import Clock
    from wise_creds.connection import Connection
    from wise_creds.credentials import Credentials
    from wise_creds.errors import (
        AccessDeniedError,
        ConfigError,
        CredentialsError,
        LoadError,
        NamespaceError,
        Notice,
        PluginError,
        ProviderError,
        ProviderUnavailableError,
        RotationError,
        SecretNotFoundError,
        TokenError,
        TokenRejectedError,
        TokenResponseError,
        TokenUnavailableError,
        WiseCredsError,
    )
    from wise_creds.fetcher import AsyncTokenFetcher, TokenFetcher
    from wise_creds.namespace import Namespace
    from wise_creds.provider import Options, Provider, SecretDocument, Staging
    from wise_creds.rotation import RotationStatus
    from wise_creds.secret import Secret
    from wise_creds.token import Token
    from wise_creds.validation import Report, validate

# Where each public name lives. They are resolved at first use, so that `import wise_creds` costs next to nothing and
# the command line starts fast.
_HOMES = {
    "_generation": ("Generation",),
    "_material": ("Certificate",),
    "_open": ("aconnect", "connect", "load"),
    "_user": ("UserTokens",),
    "clock": ("Clock",),
    "connection": ("Connection",),
    "credentials": ("Credentials",),
    "errors": (
        "AccessDeniedError", "ConfigError", "CredentialsError", "LoadError", "NamespaceError", "Notice", "PluginError",
        "ProviderError", "ProviderUnavailableError", "RotationError", "SecretNotFoundError", "TokenError",
        "TokenRejectedError", "TokenResponseError", "TokenUnavailableError", "WiseCredsError",
    ),
    "fetcher": ("AsyncTokenFetcher", "TokenFetcher"),
    "namespace": ("Namespace",),
    "provider": ("Options", "Provider", "SecretDocument", "Staging"),
    "rotation": ("RotationStatus",),
    "secret": ("Secret",),
    "token": ("Token",),
    "validation": ("Report", "validate"),
}  # fmt: skip
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "AccessDeniedError",
    "AsyncTokenFetcher",
    "Certificate",
    "Clock",
    "ConfigError",
    "Connection",
    "Credentials",
    "CredentialsError",
    "Generation",
    "LoadError",
    "Namespace",
    "NamespaceError",
    "Notice",
    "Options",
    "PluginError",
    "Provider",
    "ProviderError",
    "ProviderUnavailableError",
    "Report",
    "RotationError",
    "RotationStatus",
    "Secret",
    "SecretDocument",
    "SecretNotFoundError",
    "Staging",
    "Token",
    "TokenError",
    "TokenFetcher",
    "TokenRejectedError",
    "TokenResponseError",
    "TokenUnavailableError",
    "UserTokens",
    "WiseCredsError",
    "__version__",
    "aconnect",
    "connect",
    "load",
    "validate",
]  # fmt: skip


def __getattr__(name: str) -> object:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'wise_creds' has no attribute {name!r}")
    from importlib import import_module

    value: object = getattr(import_module(f"wise_creds.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
