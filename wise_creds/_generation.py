"""A generation: credentials, SSL context and tokens of one version, held together and never changed."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from wise_creds._slots import Policy, Watcher
from wise_creds._token_cache import TokenCache
from wise_creds._token_request import TokenRequest
from wise_creds.clock import Clock
from wise_creds.config import NamespaceConfig
from wise_creds.credentials import Credentials


@dataclass(frozen=True, eq=False)
class Generation:
    """
    What `Connection.current` gives: one version of everything.

    Attributes:
        number: counts from 1 in this process.
        version: the store's name for the version.
        credentials: checked.
        ssl_context: made from these credentials.
    """

    number: int
    version: str
    credentials: Credentials
    ssl_context: ssl.SSLContext = field(repr=False)
    ask: TokenRequest = field(repr=False)
    cache: TokenCache = field(repr=False)
    authorization: Callable[[], str] = field(repr=False)
    """Give the value of an `Authorization` header of this generation, waiting for a token if need be."""


def build(
    number: int,
    credentials: Credentials,
    config: NamespaceConfig,
    *,
    clock: Clock,
    environ: Mapping[str, str],
    watcher: Watcher | None = None,
) -> Generation:
    """
    Make a generation; asks nobody for anything.

    Raises:
        CredentialsError: the pair cannot be loaded.
    """
    options = config.options
    context = credentials.ssl_context()
    ask = TokenRequest(credentials, config.endpoints, context, clock, environ, options.basic_auth, options.proxy)
    cache = TokenCache(ask, clock=clock, policy=policy(config), watcher=watcher)
    return Generation(number, credentials.version, credentials, context, ask, cache, cache.header_source())


def policy(config: NamespaceConfig) -> Policy:
    """Say how a namespace wants its tokens kept."""
    options = config.options
    return Policy(
        options.token_scope, options.refresh_at, options.deadline, config.namespace, config.endpoints.token_url
    )
