"""What a service holds: credentials, tokens and clients of one namespace, from one call at startup."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from wise_creds._engine import Job
from wise_creds._generation import Generation, build
from wise_creds._loader import Loader, announce
from wise_creds._material import utc
from wise_creds._quiet import process_environ
from wise_creds.clock import SYSTEM_CLOCK, Clock
from wise_creds.config import ConfigSource, choose_namespace, namespace_config, read_config
from wise_creds.credentials import Credentials
from wise_creds.errors import ConfigError, LoadError, Notice, WiseCredsError, printable
from wise_creds.namespace import Namespace
from wise_creds.shield import Outcome
from wise_creds.token import Token

if TYPE_CHECKING:
    import httpx

    from wise_creds._clients import Auth, Wiring

_OURS = frozenset(("verify", "cert", "transport", "mounts", "auth", "base_url", "proxy", "trust_env"))


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
    return connection


def _opened(namespace: str | None, config: ConfigSource, clock: Clock) -> Connection:
    loader = open_loader(namespace, config, clock=clock, environ=process_environ())
    try:
        credentials, notices = loader.load()
        generation = build(1, credentials, loader.config, clock=clock, environ=process_environ())
    except WiseCredsError as problem:
        loader.close()
        failed = problem if isinstance(problem, LoadError) else LoadError([problem])
    else:
        announce(notices)
        return Connection(loader, generation, notices, clock=clock)
    raise failed


class Connection:
    """
    Credentials, tokens and clients of one namespace. Made by `connect` or `aconnect`; a context manager of both kinds.

    Safe to share between threads and event loops, and across `fork`.
    """

    def __init__(self, loader: Loader, generation: Generation, notices: tuple[Notice, ...], *, clock: Clock) -> None:
        self._loader = loader
        self._generation = generation
        self._clock = clock
        self._checked_at = utc(clock.wall())
        self.notices = notices

    @property
    def namespace(self) -> Namespace:
        """Sandbox or production."""
        return self._loader.config.namespace

    @property
    def base_url(self) -> str:
        """Where API requests go."""
        return self._loader.config.endpoints.base_url

    def current(self) -> Generation:
        """Give the present generation: credentials, SSL context and tokens of one version."""
        return self._generation

    def token(self) -> Token:
        """
        Give the thread's (or process's) access token, at once while it is valid.

        Raises:
            TokenError: there is none, and none could be had before the deadline.
        """
        cache = self._generation.cache
        return cache.current() or cache.obtain()

    def authorization(self) -> str:
        """Give the value of an `Authorization` header."""
        return self._generation.cache.authorization()

    async def atoken(self) -> Token:
        """Do the same as `token` without blocking the event loop."""
        cache = self._generation.cache
        return cache.current() or await cache.obtain_async()

    async def aauthorization(self) -> str:
        """Give the value of an `Authorization` header."""
        return (await self.atoken()).authorization()

    def client(self, **options: Any) -> httpx.Client:  # noqa: ANN401  httpx's own arguments
        """
        Make an `httpx.Client` with base URL, mTLS and bearer, which talks to this namespace only.

        Args:
            options: httpx's keyword arguments, except those that are ours: verify, cert, transport, mounts, auth,
                base_url, proxy, trust_env.

        Raises:
            ConfigError: one of ours was given (WC112).
        """
        import httpx

        from wise_creds._clients import Transport

        transport = Transport(self._wiring(options))
        return httpx.Client(base_url=self.base_url, transport=transport, trust_env=False, **options)

    def async_client(self, **options: Any) -> httpx.AsyncClient:  # noqa: ANN401  httpx's own arguments
        """Make an `httpx.AsyncClient`; otherwise as `client`."""
        import httpx

        from wise_creds._clients import AsyncTransport

        transport = AsyncTransport(self._wiring(options))
        return httpx.AsyncClient(base_url=self.base_url, transport=transport, trust_env=False, **options)

    @property
    def auth(self) -> Auth:
        """The bearer for a client of your own; there it is visible on your requests: prefer `client`."""
        from wise_creds._clients import Auth

        return Auth(self._wiring({}))

    def _wiring(self, options: dict[str, Any]) -> Wiring:
        from wise_creds._clients import Wiring

        refused = sorted(_OURS & options.keys())
        if refused:
            raise ConfigError(f"client() sets {printable(', '.join(refused))} itself", code="WC112",
                              namespace=self.namespace, hint="leave it out; proxy belongs to wise-creds.toml")  # fmt: skip
        pool: dict[str, Any] = {name: options.pop(name) for name in ("http2", "limits") if name in options}
        config = self._loader.config
        return Wiring(self.current, config.endpoints, config.options.proxy, pool)

    def status(self) -> dict[str, object]:
        """Tell how things stand, for readiness probes and metrics: JSON-safe, dates ISO 8601 UTC, no secret."""
        generation = self._generation
        certificate, cache = generation.credentials.certificate, generation.cache
        left, problem = cache.longest_left(), cache.error
        return {
            "ready": left is not None,
            "namespace": self.namespace.value,
            "generation": generation.number,
            "version": generation.version,
            "token_expires_in": None if left is None else int(left),
            "token_error": problem.code if problem else None,
            "certificate_not_after": _iso(certificate.not_after) if certificate else None,
            "certificate_sha256": certificate.fingerprint if certificate else None,
            "ca_not_after": _iso(generation.credentials.ca_not_after),
            "source_checked_at": _iso(self._checked_at),
            "source_error": None,
            "rejected": None,
        }

    def close(self) -> None:
        """Forget the tokens and let the sources go; clients made here raise from now on."""
        self._generation.cache.close()
        self._loader.close()

    async def aclose(self) -> None:
        """Do the same as `close`."""
        self.close()

    def __repr__(self) -> str:
        return f"<Connection {self.namespace.value} {self.base_url} generation={self._generation.number}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _iso(date: datetime | None) -> str | None:
    return None if date is None else date.isoformat(timespec="seconds").replace("+00:00", "Z")
