"""What a service holds: credentials, tokens and clients of one namespace, from one call at startup."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from weakref import ref

from wise_creds._generation import Generation, policy
from wise_creds._listeners import Callback
from wise_creds._material import utc
from wise_creds._rotator import Rotator
from wise_creds._token_cache import TokenCache
from wise_creds._user import NOT_STORED, RefreshToken, UserGrant, UserTokens
from wise_creds.errors import ConfigError, Notice, TokenError
from wise_creds.namespace import Namespace
from wise_creds.secret import Secret
from wise_creds.token import Token, scope_as_expected

if TYPE_CHECKING:
    import httpx

    from wise_creds._wiring import Auth, Wiring

log = logging.getLogger("wise_creds")


class Connection:
    """
    Credentials, tokens and clients of one namespace. Made by `connect` or `aconnect`; a context manager of both kinds.

    Safe to share between threads and event loops, and across `fork`.
    """

    def __init__(self, rotator: Rotator, notices: tuple[Notice, ...]) -> None:
        self._rotator = rotator
        self._config = rotator.loader.config
        self._users: list[ref[UserTokens]] = []
        self.notices = notices

    @property
    def namespace(self) -> Namespace:
        """Sandbox or production."""
        return self._config.namespace

    @property
    def base_url(self) -> str:
        """Where API requests go."""
        return self._config.endpoints.base_url

    def current(self) -> Generation:
        """Give the present generation: credentials, SSL context and tokens of one version."""
        self._rotator.pulse()
        return self._rotator.generation

    def token(self) -> Token:
        """
        Give the thread's (or process's) access token, at once while it is valid.

        Raises:
            TokenError: there is none, and none could be had before the deadline.
        """
        return self._rotator.ready()[2]

    def authorization(self) -> str:
        """Give the value of an `Authorization` header."""
        generation = self._rotator.generation
        try:
            return generation.authorization()
        except TokenError as problem:
            refused = problem
        if not self._rotator.moved_on(generation, refused):
            raise refused
        return self._rotator.generation.authorization()

    async def atoken(self) -> Token:
        """Do the same as `token` without blocking the event loop."""
        return (await self._rotator.aready())[2]

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
        from wise_creds._clients import client

        return client(self._wiring(options), options)

    def async_client(self, **options: Any) -> httpx.AsyncClient:  # noqa: ANN401  httpx's own arguments
        """Make an `httpx.AsyncClient`; otherwise as `client`."""
        from wise_creds._clients import async_client

        return async_client(self._wiring(options), options)

    @property
    def auth(self) -> Auth:
        """The bearer for a client of your own; there it is visible on your requests: prefer `client`."""
        from wise_creds._wiring import Auth

        return Auth(self._wiring({}))

    def _wiring(self, options: dict[str, Any], tokens: TokenCache | None = None) -> Wiring:
        from wise_creds._wiring import Wiring

        return Wiring.of(self._rotator, self._config, options, tokens)

    def user(self, refresh_token: RefreshToken, *, store: Callable[[Secret], object]) -> UserTokens:
        """
        Give the tokens and clients of a user who has authorised you (RFC 6749 section 6); asks nobody yet.

        Args:
            refresh_token: the user's, or the name of a field of the secret, or a callable that gives it.
            store: gets each new refresh token, and must have kept it when it returns: the access token that came with
                it is used only then. If it raises, it is offered the same again.

        Raises:
            ConfigError: the configuration's grant is a personal token (WC112).
        """
        return self._user(UserGrant(self.current, refresh_token, store))

    def exchange_code(self, code: Secret | str, *, redirect_uri: str, store: Callable[[Secret], object]) -> UserTokens:
        """
        Exchange the code of a user's authorisation (RFC 6749 section 4.1.3) for the user's tokens; the code serves once.

        Args:
            code: as it came to `redirect_uri`.
            redirect_uri: the same as in the authorisation.
            store: as for `user`. If it fails here, that is logged, and it is offered the refresh token again.

        Raises:
            ConfigError: as for `user`.
            TokenError: there is no token; WC515 is a code that was used or has expired.
        """
        form = {"code": Secret(code, name="code") if isinstance(code, str) else code}
        users = self._user(UserGrant(self.current, None, store, form | {"redirect_uri": Secret(redirect_uri)}))
        try:
            users.token()
        except TokenError as problem:
            # Raising would lose the refresh token, and the code is used up.
            if problem.code != NOT_STORED:
                raise
            log.warning("%s", problem)
        return users

    def _user(self, grant: UserGrant) -> UserTokens:
        config = self._config
        if config.options.grant == "personal_token":
            raise ConfigError("a personal token has no users beside its own", code="WC112", namespace=self.namespace,
                              location="grant", hint='grant = "client_credentials" with client ID and secret')  # fmt: skip
        users = UserTokens(grant, policy(config), watcher=self._rotator, wiring=self._wiring)
        self._users.append(ref(users))
        return users

    def _known_users(self) -> list[UserTokens]:
        self._users = [one for one in self._users if one() is not None]
        return [users for one in self._users if (users := one()) is not None]

    def refresh(self, *, discard: bool = False) -> bool:
        """
        Read the sources now, and go over to a new version if there is one; for SIGHUP, an admin route, an event.

        Args:
            discard: for a breach: even if nothing has changed, old tokens and connections end at once, with whatever is
                under way on them.

        Returns:
            True if there is a new generation, False if nothing has changed. Callers at the same time share one reading.

        Raises:
            LoadError: the sources cannot be read, or what they hold is not usable; the present generation serves on.
            TokenError: Wise gives no token for it; the present generation serves on.
        """
        try:
            return self._rotator.refresh(discard=discard)
        finally:
            self._forget(discard=discard)

    async def arefresh(self, *, discard: bool = False) -> bool:
        """Do the same as `refresh` without blocking the event loop."""
        try:
            return await self._rotator.arefresh(discard=discard)
        finally:
            self._forget(discard=discard)

    def _forget(self, *, discard: bool) -> None:
        for users in self._known_users() if discard else ():
            users.discard()

    def on_rotate(self, callback: Callback) -> Callable[[], None]:
        """
        Have a callable called with each new generation, after the swap and off the request path, one at a time, in order.

        What it raises is logged by its type and changes nothing. Gives a callable that unsubscribes.
        """
        remove = self._rotator.listeners.add(callback)
        self._rotator.pulse()
        return remove

    def watch(self, interval: float) -> None:
        """
        Look for a new version every `interval` seconds, more or less a fifth; 0 ends that.

        By default the configuration's `watch` is used, else what the provider is good for (files 30, Vault 60, AWS 300).
        """
        if not 0 <= interval < math.inf:
            raise ConfigError("not a number of seconds", code="WC112", location="watch", namespace=self.namespace,
                              hint="0, or a positive number")  # fmt: skip
        self._rotator.watch.set(interval)

    def begin(self) -> None:
        """Let watching start with the next use; `connect` calls this."""
        self._rotator.watch.begin()

    def status(self) -> dict[str, object]:
        """Tell how things stand, for readiness probes and metrics: JSON-safe, dates ISO 8601 UTC, no secret."""
        rotator = self._rotator
        generation, rejected = rotator.generation, rotator.rejected
        certificate, cache = generation.credentials.certificate, generation.cache
        token, problem = cache.longest_lived(), cache.error.code if cache.error else None
        if token is not None and not scope_as_expected(token, self._config.options.expect_scope):
            problem = problem or "WC520"
        return {
            "ready": token is not None,
            "namespace": self.namespace.value,
            "generation": generation.number,
            "version": rotator.version,
            "token_expires_in": None if token is None else int(token.remaining()),
            "token_error": problem,
            "certificate_not_after": _iso(certificate.not_after) if certificate else None,
            "certificate_sha256": certificate.fingerprint if certificate else None,
            "ca_not_after": _iso(generation.credentials.ca_not_after),
            "source_checked_at": _iso(utc(rotator.checked_at)),
            "source_error": rotator.source_error,
            "rejected": rejected
            and {"code": rejected.code, "at": _iso(utc(rejected.at)), "retry_at": _iso(utc(rejected.retry_at))},
        }

    def close(self) -> None:
        """Forget the tokens and let the sources go; clients made here raise from now on."""
        self._rotator.close()
        for users in self._known_users():
            users.close()

    async def aclose(self) -> None:
        """Do the same as `close`."""
        self.close()

    def __repr__(self) -> str:
        return f"<Connection {self.namespace.value} {self.base_url} generation={self._rotator.generation.number}>"

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
