"""
A namespace with values that are not current yet: are they whole, and does Wise give a token for them?

For rotation hooks of stores that start a rotation themselves, as AWS Secrets Manager does with a Lambda. `wise_creds.rotation`
is for a person or a job that rotates.
"""

from __future__ import annotations

from collections.abc import Mapping

from wise_creds._generation import build
from wise_creds._loader import Loader, announce
from wise_creds._quiet import process_environ
from wise_creds.clock import SYSTEM_CLOCK, Clock
from wise_creds.config import ConfigSource, NamespaceConfig, namespace_config, read_config
from wise_creds.credentials import Credentials
from wise_creds.errors import WiseCredsError
from wise_creds.provider import SecretDocument


def configured(config: ConfigSource = None) -> tuple[NamespaceConfig, ...]:
    """
    Give each namespace of the configuration, to find the one that has a certain source; its errors are in it.

    Args:
        config: a path or a mapping; default: `$WISE_CREDS_CONFIG`, else `./wise-creds.toml`.

    Raises:
        ConfigError: no readable configuration.
    """
    found = read_config(config, process_environ())
    return tuple(namespace_config(found, namespace) for namespace in found.namespaces())


def check_with(
    config: NamespaceConfig, replaced: Mapping[int, SecretDocument], *, clock: Clock = SYSTEM_CLOCK
) -> Credentials:
    """
    Load and check a namespace's credentials as they would be with other documents in the place of some sources'.

    Args:
        config: the namespace.
        replaced: documents by the number of their source, from 0; every other source is read as it is.
        clock: time.

    Raises:
        LoadError: everything that is wrong.
    """
    loader = _Trial(config, replaced, clock)
    try:
        credentials, notices = loader.load()
    finally:
        loader.close()
    announce(notices)
    return credentials


def token_with(config: NamespaceConfig, credentials: Credentials, *, clock: Clock = SYSTEM_CLOCK) -> None:
    """
    Get a token with these credentials, where and how the namespace gets its own, and drop it.

    Raises:
        TokenError: there is none.
        CredentialsError: the pair cannot be loaded.
    """
    cache = build(0, credentials, config, clock=clock, environ=process_environ()).cache
    try:
        cache.obtain()
    finally:
        cache.close()


class _Trial(Loader):
    """Opens all sources, and reads and probes those that nothing stands in for."""

    def __init__(self, config: NamespaceConfig, replaced: Mapping[int, SecretDocument], clock: Clock) -> None:
        super().__init__(config, clock=clock, environ=process_environ())
        self._sources = [source for number, source in enumerate(self._sources) if number not in replaced]
        self._given = [document for _, document in sorted(replaced.items())]

    def _documents(self, deadline: float) -> tuple[list[SecretDocument], list[WiseCredsError]]:
        read, problems = super()._documents(deadline)
        return [*self._given, *read], problems

    def probe(self, deadline: float | None = None) -> tuple[list[str | None], WiseCredsError | None]:
        versions, problem = super().probe(deadline)
        return [*(None for _ in self._given), *versions], problem
