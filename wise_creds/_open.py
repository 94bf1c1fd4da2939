"""The ways in: `load` for credentials, `connect` for everything."""

from __future__ import annotations

from collections.abc import Mapping

from wise_creds._engine import Job
from wise_creds._loader import Loader, announce
from wise_creds._quiet import process_environ
from wise_creds._rotator import Rotator
from wise_creds.clock import SYSTEM_CLOCK, Clock
from wise_creds.config import ConfigSource, choose_namespace, namespace_config, read_config
from wise_creds.connection import Connection
from wise_creds.credentials import Credentials
from wise_creds.errors import LoadError, WiseCredsError
from wise_creds.shield import Outcome


def open_loader(namespace: str | None, config: ConfigSource, *, clock: Clock, environ: Mapping[str, str]) -> Loader:
    """
    Find the configuration and open the namespace's sources; reads no secret.

    Raises:
        ConfigError: no namespace, or no readable configuration.
    """
    chosen = choose_namespace(namespace, environ)
    return Loader(namespace_config(read_config(config, environ), chosen), clock=clock, environ=environ)


def load(namespace: str | None = None, *, config: ConfigSource = None) -> Credentials:
    """
    Load and check the credentials of a namespace; no network but the provider's.

    Args:
        namespace: `"sandbox"` or `"production"`; default: `$WISE_CREDS_NAMESPACE`, else an error.
        config: a path or a mapping; default: `$WISE_CREDS_CONFIG`, else `./wise-creds.toml`.

    Raises:
        LoadError: everything that is wrong, from the first key to the material.
        ConfigError: no namespace, or no readable configuration.
    """
    loader = open_loader(namespace, config, clock=SYSTEM_CLOCK, environ=process_environ())
    try:
        credentials, notices = loader.load()
    finally:
        loader.close()
    announce(notices)
    return credentials


def connect(
    namespace: str | None = None, *, config: ConfigSource = None, lazy: bool = False, clock: Clock = SYSTEM_CLOCK
) -> Connection:
    """
    Load, check, and fetch the first token: one call at service startup.

    Args:
        namespace: as for `load`.
        config: as for `load`.
        lazy: skip the first token, and so every call to Wise.
        clock: time.

    Raises:
        LoadError, ConfigError: as for `load`.
        TokenError: there is no first token.
    """
    connection = _opened(namespace, config, clock)
    if not lazy:
        try:
            connection.token()
        except BaseException:
            connection.close()
            raise
    connection.begin()
    return connection


async def aconnect(
    namespace: str | None = None, *, config: ConfigSource = None, lazy: bool = False, clock: Clock = SYSTEM_CLOCK
) -> Connection:
    """Do the same as `connect` without blocking the event loop."""
    job: Job[Connection] = Job(lambda _job: _opened(namespace, config, clock), name="connect")
    # The load ends by its own deadline, which only the configuration knows.
    outcome: Outcome[Connection] | None = await job.wait_async(clock, float("inf"))
    assert outcome is not None  # noqa: S101  there is no end to that wait
    connection = outcome.unwrap()
    if not lazy:
        try:
            await connection.atoken()
        except BaseException:
            await connection.aclose()
            raise
    connection.begin()
    return connection


def _opened(namespace: str | None, config: ConfigSource, clock: Clock) -> Connection:
    loader = open_loader(namespace, config, clock=clock, environ=process_environ())
    try:
        credentials, notices = loader.load()
        rotator = Rotator(loader, credentials, clock=clock, environ=process_environ())
    except WiseCredsError as problem:
        loader.close()
        failed = problem if isinstance(problem, LoadError) else LoadError([problem])
    else:
        announce(notices)
        return Connection(rotator, notices)
    raise failed
