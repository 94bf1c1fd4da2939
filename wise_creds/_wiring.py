"""What the transports and the bearer of a connection share: the guard, the generation to use, and private requests."""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import httpx

from wise_creds._generation import Generation
from wise_creds._rotator import Rotator
from wise_creds._token_cache import TokenCache
from wise_creds._token_request import ABOUT_US
from wise_creds.config import NamespaceConfig
from wise_creds.errors import ConfigError, TokenRejectedError, printable
from wise_creds.namespace import Endpoints
from wise_creds.shield import described, ssl_reason
from wise_creds.token import Token

_OURS = frozenset(("verify", "cert", "transport", "mounts", "auth", "base_url", "proxy", "trust_env"))
UNAUTHORIZED = 401


@dataclass(frozen=True, eq=False)
class Wiring:
    """
    What a transport is made of.

    Args:
        rotator: gives the generation to use now, with a token.
        endpoints: the guard.
        proxy: an HTTP proxy that is asked to CONNECT.
        pool: httpx's `http2` and `limits`, for the pool of each generation.
        tokens: a user's tokens; by default those of the generation.
    """

    rotator: Rotator
    endpoints: Endpoints
    proxy: str | None = None
    pool: Mapping[str, Any] = field(default_factory=dict)
    tokens: TokenCache | None = None

    @classmethod
    def of(
        cls, rotator: Rotator, config: NamespaceConfig, options: dict[str, Any], tokens: TokenCache | None = None
    ) -> Self:
        """
        Make one for a namespace; takes what belongs to the pool out of a client's `options`.

        Raises:
            ConfigError: an option that is ours (WC112).
        """
        refused = sorted(_OURS & options.keys())
        if refused:
            raise ConfigError(f"client() sets {printable(', '.join(refused))} itself", code="WC112",
                              namespace=config.namespace, hint="leave it out; proxy belongs to wise-creds.toml")  # fmt: skip
        pool: dict[str, Any] = {name: options.pop(name) for name in ("http2", "limits") if name in options}
        return cls(rotator, config.endpoints, config.options.proxy, pool, tokens)

    def ready(self) -> tuple[Generation, TokenCache, Token]:
        """Give what to send with."""
        return self.rotator.ready(self.tokens)

    async def aready(self) -> tuple[Generation, TokenCache, Token]:
        """Do the same as `ready` without blocking the event loop."""
        return await self.rotator.aready(self.tokens)

    def limits(self) -> dict[str, Any]:
        """
        Give `pool`, with a default under which no idle connection is surplus.

        httpcore may close a surplus connection that it has just given to another thread, whose request then fails or
        hangs: https://github.com/encode/httpcore/issues/1110.
        """
        return {"limits": httpx.Limits(max_connections=100, max_keepalive_connections=100), **self.pool}

    def check(self, url: httpx.URL) -> None:
        """Refuse what would leave the namespace."""
        host = url.raw_host.decode("ascii").strip("[]")
        self.endpoints.check(url.scheme, host, url.port, userinfo=bool(url.userinfo))


def private(request: httpx.Request, token: Token, **extensions: object) -> httpx.Request:
    """Give the request as it is sent: a copy with the bearer, which the caller never sees."""
    headers = request.headers.copy()
    headers["Authorization"] = token.authorization()
    # Only the timeout: `trace` would show the private request, `sni_hostname` would change whom TLS verifies.
    extensions |= {key: value for key, value in request.extensions.items() if key == "timeout"}
    return httpx.Request(request.method, request.url, headers=headers, stream=request.stream, extensions=extensions)


def replayable(request: httpx.Request) -> bool:
    """Tell whether a request can be sent once more."""
    return isinstance(request.stream, httpx.ByteStream)


class Translator:
    """
    Makes httpx's own exceptions anew, without what they hold of the private request.

    Attributes:
        refused: our certificate was refused by a TLS alert, before the request was looked at.
    """

    def __init__(self, request: httpx.Request) -> None:
        self._request = request
        self.refused: TokenRejectedError | None = None

    def __call__(self, caught: BaseException) -> BaseException:
        """Translate."""
        if not isinstance(caught, httpx.TransportError | ssl.SSLError):
            return caught  # the caller's own, out of a body that it streams
        reason = ssl_reason(caught)
        if reason.partition("_ALERT_")[2] in ABOUT_US:
            self.refused = TokenRejectedError(f"the API refuses the client certificate ({reason})", code="WC502",
                                              hint="is it active in Developer Hub?")  # fmt: skip
        # anyio lets an alert that comes after the handshake through as it is.
        kind = httpx.ReadError if isinstance(caught, ssl.SSLError) else type(caught)
        return kind(described(caught, place=False), request=self._request)


class Auth(httpx.Auth):
    """
    The bearer for a caller's own `httpx.Client(auth=connection.auth, …)`.

    It stands on the request that the caller sees; prefer `Connection.client`.
    """

    def __init__(self, wiring: Wiring) -> None:
        self._wiring = wiring

    def sync_auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Set the bearer; once more with a new one if the API answers 401."""
        self._wiring.check(request.url)
        _, cache, token = self._wiring.ready()
        request.headers["Authorization"] = token.authorization()
        response = yield request
        if response.status_code == UNAUTHORIZED and replayable(request) and cache.refused(token):
            request.headers["Authorization"] = self._wiring.ready()[2].authorization()
            yield request

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        """Do the same without blocking the event loop."""
        self._wiring.check(request.url)
        _, cache, token = await self._wiring.aready()
        request.headers["Authorization"] = token.authorization()
        response = yield request
        if response.status_code == UNAUTHORIZED and replayable(request) and cache.refused(token):
            request.headers["Authorization"] = (await self._wiring.aready())[2].authorization()
            yield request
