"""
httpx transports that guard the namespace, follow the current generation, and keep the bearer out of sight.

The bearer is set on a private copy of the request, below `httpx.Client`: no request, response, event hook or exception
that the caller sees carries it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any

import httpx

from wise_creds._generation import Generation
from wise_creds._pools import Pinned, Pools
from wise_creds._wiring import UNAUTHORIZED, Translator, Wiring, private, replayable
from wise_creds.shield import HTTP_LOGGERS, Translate, attempt, attempt_async, unexpected
from wise_creds.token import Token


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
        self._pools = Pools[httpx.HTTPTransport](self._make, wiring.rotator.current, _shut)
        wiring.rotator.join(self._pools)

    def _make(self, generation: Generation) -> httpx.HTTPTransport:
        chosen = self._wiring
        return httpx.HTTPTransport(
            verify=generation.ssl_context, trust_env=False, proxy=chosen.proxy, **chosen.limits()
        )

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send; once more with a new token if the API answers 401, with a new generation if it refuses our certificate."""
        self._wiring.check(request.url)
        again = replayable(request)
        while True:
            generation, cache, token = self._wiring.ready()
            translate = Translator(request)
            try:
                response = self._send(generation, request, token, translate)
            except httpx.TransportError:
                if not again or translate.refused is None:
                    raise
                if not self._wiring.rotator.moved_on(generation, translate.refused):
                    raise
            else:
                if not again or response.status_code != UNAUTHORIZED or not cache.refused(token):
                    return response
                response.close()
            again = False

    def _send(
        self, generation: Generation, request: httpx.Request, token: Token, translate: Translate
    ) -> httpx.Response:
        pinned = self._pools.pin(generation)

        def opened(event: str, info: Mapping[str, Any]) -> None:
            if event in ("connection.connect_tcp.complete", "connection.start_tls.complete"):
                pinned.sockets.add(info["return_value"].get_extra_info("socket"))

        outcome = attempt(
            lambda: pinned.pool.handle_request(private(request, token, trace=opened)), translate, loggers=HTTP_LOGGERS
        )
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
        self._pools = Pools[httpx.AsyncHTTPTransport](self._make, wiring.rotator.current, _shut_in_its_loop)
        wiring.rotator.join(self._pools)

    def _make(self, generation: Generation) -> httpx.AsyncHTTPTransport:
        chosen = self._wiring
        return httpx.AsyncHTTPTransport(
            verify=generation.ssl_context, trust_env=False, proxy=chosen.proxy, **chosen.limits()
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send; once more with a new token if the API answers 401, with a new generation if it refuses our certificate."""
        self._wiring.check(request.url)
        again = replayable(request)
        while True:
            generation, cache, token = await self._wiring.aready()
            translate = Translator(request)
            try:
                response = await self._send(generation, request, token, translate)
            except httpx.TransportError:
                if not again or translate.refused is None:
                    raise
                if not await self._wiring.rotator.amoved_on(generation, translate.refused):
                    raise
            else:
                if not again or response.status_code != UNAUTHORIZED or not cache.refused(token):
                    return response
                await response.aclose()
            again = False

    async def _send(
        self, generation: Generation, request: httpx.Request, token: Token, translate: Translate
    ) -> httpx.Response:
        pinned = self._pools.pin(generation, asyncio.get_running_loop())
        outcome = await attempt_async(
            lambda: pinned.pool.handle_async_request(private(request, token)), translate, loggers=HTTP_LOGGERS
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


def _shut(pinned: Pinned[httpx.HTTPTransport]) -> None:
    attempt(pinned.pool.close, unexpected, loggers=HTTP_LOGGERS)


def _shut_in_its_loop(pinned: Pinned[httpx.AsyncHTTPTransport]) -> None:
    async def close() -> None:
        await attempt_async(pinned.pool.aclose, unexpected, loggers=HTTP_LOGGERS)

    def begin() -> None:
        task = asyncio.ensure_future(close())
        _closing.add(task)
        task.add_done_callback(_closing.discard)

    loop = pinned.loop
    assert isinstance(loop, asyncio.AbstractEventLoop)  # noqa: S101  that is where this transport pins its pools
    with suppress(RuntimeError):  # closed, and its connections with it
        loop.call_soon_threadsafe(begin)


_closing: set[asyncio.Task[None]] = set()  # the loop itself holds tasks only weakly
