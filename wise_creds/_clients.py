"""
httpx transports that guard the namespace, follow the current generation, and keep the bearer out of sight.

The bearer is set on a private copy of the request, below `httpx.Client`: no request, response, event hook or exception
that the caller sees carries it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import httpx

from wise_creds._generation import Generation
from wise_creds._pools import Pinned, Pools
from wise_creds._token_cache import TokenCache
from wise_creds.config import NamespaceConfig
from wise_creds.errors import ConfigError, printable
from wise_creds.namespace import Endpoints
from wise_creds.shield import HTTP_LOGGERS, Translate, attempt, attempt_async, described
from wise_creds.token import Token

_OURS = frozenset(("verify", "cert", "transport", "mounts", "auth", "base_url", "proxy", "trust_env"))
_UNAUTHORIZED = 401


@dataclass(frozen=True, eq=False)
class Wiring:
    """
    What a transport is made of.

    Args:
        current: gives the generation to use now.
        endpoints: the guard.
        proxy: an HTTP proxy that is asked to CONNECT.
        pool: httpx's `http2` and `limits`, for the pool of each generation.
        tokens: a user's tokens; by default those of the generation.
    """

    current: Callable[[], Generation]
    endpoints: Endpoints
    proxy: str | None = None
    pool: Mapping[str, Any] = field(default_factory=dict)
    tokens: TokenCache | None = None

    @classmethod
    def of(
        cls,
        current: Callable[[], Generation],
        config: NamespaceConfig,
        options: dict[str, Any],
        tokens: TokenCache | None = None,
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
        return cls(current, config.endpoints, config.options.proxy, pool, tokens)

    def cache(self, generation: Generation) -> TokenCache:
        """Give the tokens to send with."""
        return self.tokens or generation.cache

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


def _private(request: httpx.Request, token: Token) -> httpx.Request:
    headers = request.headers.copy()
    headers["Authorization"] = token.authorization()
    # Only the timeout: `trace` would show the private request, `sni_hostname` would change whom TLS verifies.
    extensions = {key: value for key, value in request.extensions.items() if key == "timeout"}
    return httpx.Request(request.method, request.url, headers=headers, stream=request.stream, extensions=extensions)


def _replayable(request: httpx.Request) -> bool:
    return isinstance(request.stream, httpx.ByteStream)


def _translator(request: httpx.Request) -> Translate:
    def translate(caught: BaseException) -> BaseException:
        if isinstance(caught, httpx.TransportError):
            return type(caught)(described(caught, place=False), request=request)
        return caught  # the caller's own, out of a body that it streams

    return translate


def client(wiring: Wiring, options: dict[str, Any]) -> httpx.Client:
    """Make a client on these wires."""
    return httpx.Client(base_url=wiring.endpoints.base_url, transport=Transport(wiring), trust_env=False, **options)


def async_client(wiring: Wiring, options: dict[str, Any]) -> httpx.AsyncClient:
    """Make an async client on these wires."""
    return httpx.AsyncClient(
        base_url=wiring.endpoints.base_url, transport=AsyncTransport(wiring), trust_env=False, **options
    )


class Transport(httpx.BaseTransport):
    """The sync transport of `Connection.client`."""

    def __init__(self, wiring: Wiring) -> None:
        self._wiring = wiring
        self._pools = Pools[httpx.HTTPTransport](self._make)

    def _make(self, generation: Generation) -> httpx.HTTPTransport:
        chosen = self._wiring
        return httpx.HTTPTransport(
            verify=generation.ssl_context, trust_env=False, proxy=chosen.proxy, **chosen.limits()
        )

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send with the current token; once more with a new one if the API answers 401."""
        self._wiring.check(request.url)
        generation = self._wiring.current()
        cache = self._wiring.cache(generation)
        token = cache.current() or cache.obtain()
        response = self._send(generation, request, token)
        if response.status_code == _UNAUTHORIZED and _replayable(request) and cache.refused(token):
            response.close()
            response = self._send(generation, request, cache.current() or cache.obtain())
        return response

    def _send(self, generation: Generation, request: httpx.Request, token: Token) -> httpx.Response:
        pinned, idle = self._pools.pin(generation)
        if idle is not None:
            idle.close()
        translate = _translator(request)
        outcome = attempt(lambda: pinned.pool.handle_request(_private(request, token)), translate, loggers=HTTP_LOGGERS)
        if outcome.error is not None:
            self._release(pinned)
        answer = outcome.unwrap()
        body = _Body(answer, translate, lambda: self._release(pinned))
        return httpx.Response(answer.status_code, headers=answer.headers, stream=body, extensions=answer.extensions)

    def _release(self, pinned: Pinned[httpx.HTTPTransport]) -> None:
        done = self._pools.release(pinned)
        if done is not None:
            done.close()

    def close(self) -> None:
        """Close this client's pool."""
        pool = self._pools.take()
        if pool is not None:
            pool.close()


class _Body(httpx.SyncByteStream):
    def __init__(self, answer: httpx.Response, translate: Translate, done: Callable[[], None]) -> None:
        self._answer = answer
        self._translate = translate
        self._done: Callable[[], None] | None = done

    def __iter__(self) -> Iterator[bytes]:
        stream = iter(self._answer.stream)  # type: ignore[arg-type]  # sync by construction
        while True:
            chunk = attempt(lambda: next(stream, None), self._translate, loggers=HTTP_LOGGERS).unwrap()
            if chunk is None:
                return
            yield chunk

    def close(self) -> None:
        done, self._done = self._done, None
        if done is not None:
            attempt(self._answer.close, self._translate, loggers=HTTP_LOGGERS)
            done()


class AsyncTransport(httpx.AsyncBaseTransport):
    """The async transport of `Connection.async_client`; a pool lives in one event loop."""

    def __init__(self, wiring: Wiring) -> None:
        self._wiring = wiring
        self._pools = Pools[httpx.AsyncHTTPTransport](self._make)

    def _make(self, generation: Generation) -> httpx.AsyncHTTPTransport:
        chosen = self._wiring
        return httpx.AsyncHTTPTransport(
            verify=generation.ssl_context, trust_env=False, proxy=chosen.proxy, **chosen.limits()
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send with the current token; once more with a new one if the API answers 401."""
        self._wiring.check(request.url)
        generation = self._wiring.current()
        cache = self._wiring.cache(generation)
        token = cache.current() or await cache.obtain_async()
        response = await self._send(generation, request, token)
        if response.status_code == _UNAUTHORIZED and _replayable(request) and cache.refused(token):
            await response.aclose()
            response = await self._send(generation, request, cache.current() or await cache.obtain_async())
        return response

    async def _send(self, generation: Generation, request: httpx.Request, token: Token) -> httpx.Response:
        pinned, idle = self._pools.pin(generation, asyncio.get_running_loop())
        if idle is not None:
            await idle.aclose()
        translate = _translator(request)
        outcome = await attempt_async(
            lambda: pinned.pool.handle_async_request(_private(request, token)), translate, loggers=HTTP_LOGGERS
        )
        if outcome.error is not None:
            await self._release(pinned)
        answer = outcome.unwrap()
        body = _AsyncBody(answer, translate, lambda: self._release(pinned))
        return httpx.Response(answer.status_code, headers=answer.headers, stream=body, extensions=answer.extensions)

    async def _release(self, pinned: Pinned[httpx.AsyncHTTPTransport]) -> None:
        done = self._pools.release(pinned)
        if done is not None:
            await done.aclose()

    async def aclose(self) -> None:
        """Close this client's pool."""
        pool = self._pools.take()
        if pool is not None:
            await pool.aclose()


class _AsyncBody(httpx.AsyncByteStream):
    def __init__(self, answer: httpx.Response, translate: Translate, done: Callable[[], Awaitable[None]]) -> None:
        self._answer = answer
        self._translate = translate
        self._done: Callable[[], Awaitable[None]] | None = done

    async def __aiter__(self) -> AsyncIterator[bytes]:
        stream = aiter(self._answer.stream)  # type: ignore[arg-type]  # async by construction

        async def following() -> bytes | None:
            return await anext(stream, None)

        while True:
            chunk = (await attempt_async(following, self._translate, loggers=HTTP_LOGGERS)).unwrap()
            if chunk is None:
                return
            yield chunk

    async def aclose(self) -> None:
        done, self._done = self._done, None
        if done is not None:
            await attempt_async(self._answer.aclose, self._translate, loggers=HTTP_LOGGERS)
            await done()


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
        cache = self._wiring.cache(self._wiring.current())
        token = cache.current() or cache.obtain()
        request.headers["Authorization"] = token.authorization()
        response = yield request
        if response.status_code == _UNAUTHORIZED and _replayable(request) and cache.refused(token):
            request.headers["Authorization"] = (cache.current() or cache.obtain()).authorization()
            yield request

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        """Do the same without blocking the event loop."""
        self._wiring.check(request.url)
        cache = self._wiring.cache(self._wiring.current())
        token = cache.current() or await cache.obtain_async()
        request.headers["Authorization"] = token.authorization()
        response = yield request
        if response.status_code == _UNAUTHORIZED and _replayable(request) and cache.refused(token):
            request.headers["Authorization"] = (cache.current() or await cache.obtain_async()).authorization()
            yield request
