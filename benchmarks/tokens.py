"""
The token source beside a floor and its peers, in one process and one run.

Cached headers (one thread, eight threads), 64 cold callers, a failing endpoint while tokens are due, and the stall of an
event loop while a token is fetched. The floor of a cached header is a closure over a tuple with one read of the boot
clock. Peers get a valid token put into their own cache, and are asked for a header in their own way.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import statistics
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import wise_creds
from wise_creds import AsyncTokenFetcher, Credentials, TokenFetcher

ROUNDS, CALLS = 9, 20_000
SCOPES: tuple[Literal["thread", "process"], ...] = ("thread", "process")


class Stand:
    """A stand-in for Wise in another process."""

    def __init__(self, child: subprocess.Popen[str]) -> None:
        self._child = child
        self.config = self._line()
        self.credentials: Credentials = wise_creds.load("sandbox", config=self.config)
        text = Path(self.config).read_text()
        self.base_url = next(line.split('"')[1] for line in text.splitlines() if line.startswith("base_url"))

    def _line(self) -> str:
        assert self._child.stdout is not None
        return self._child.stdout.readline().strip()

    def tell(self, **command: object) -> int:
        """Change its behaviour; gives the number of token requests so far."""
        assert self._child.stdin is not None
        self._child.stdin.write(json.dumps(command) + "\n")
        self._child.stdin.flush()
        count: int = json.loads(self._line())["token_requests"]
        return count

    def fetcher(self, **options: Any) -> TokenFetcher:
        """A fetcher for it."""
        return TokenFetcher(self.credentials, base_url=self.base_url, **options)


@contextmanager
def stand() -> Iterator[Stand]:
    """Run the stand-in."""
    server = Path(__file__).with_name("_server.py")
    child = subprocess.Popen([sys.executable, server], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield Stand(child)
    finally:
        child.communicate()


def floor() -> Callable[[], object]:
    """The least that a cached header with an expiry can cost."""
    read, clock, held = time.clock_gettime, time.CLOCK_BOOTTIME, (float("inf"), "Bearer " + "t" * 40)

    def header() -> object:
        snapshot = held
        return snapshot[1] if read(clock) < snapshot[0] else None

    return header


def _authlib() -> Callable[[], object]:
    from authlib.integrations.requests_client import OAuth2Session

    token = {"access_token": "t" * 40, "token_type": "bearer", "expires_at": time.time() + 40_000}
    session = OAuth2Session("id", "secret", token=token, token_endpoint="https://127.0.0.1/oauth/token")

    def header() -> object:
        session.ensure_active_token(session.token)
        return session.token_auth.prepare("https://127.0.0.1/", {}, "")

    return header


def _httpx_auth() -> Callable[[], object]:
    import httpx
    import httpx_auth

    auth = httpx_auth.OAuth2ClientCredentials("https://127.0.0.1/oauth/token", "id", "secret")
    httpx_auth.OAuth2.token_cache._add_token(auth.state, "t" * 40, time.time() + 40_000)
    request = httpx.Request("GET", "https://127.0.0.1/")
    return lambda: next(auth.auth_flow(request))


def _google_auth() -> Callable[[], object]:
    from google.oauth2.credentials import Credentials as Google

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ends = dt.datetime.utcnow() + dt.timedelta(hours=11)  # noqa: DTZ003  as google-auth wants it
    credentials = Google("t" * 40, expiry=ends)

    def header() -> object:
        headers: dict[str, str] = {}
        credentials.before_request(None, "GET", "https://127.0.0.1/", headers)
        return headers["authorization"]

    return header


def _botocore() -> Callable[[], object]:
    from botocore.tokens import DeferredRefreshableToken, FrozenAuthToken

    ends = dt.datetime.now(dt.UTC) + dt.timedelta(hours=11)
    token = DeferredRefreshableToken("bench", lambda: FrozenAuthToken("t" * 40, ends))
    return lambda: f"Bearer {token.get_frozen_token().token}"


def _requests_oauthlib() -> Callable[[], object]:
    from requests_oauthlib import OAuth2Session

    session = OAuth2Session("id", token={"access_token": "t" * 40, "token_type": "bearer", "expires_in": 40_000})
    return lambda: session._client.add_token("https://127.0.0.1/", http_method="GET", headers={})


PEERS: dict[str, Callable[[], Callable[[], object]]] = {
    "authlib": _authlib,
    "httpx-auth": _httpx_auth,
    "google-auth": _google_auth,
    "botocore token": _botocore,
    "requests-oauthlib": _requests_oauthlib,
}


def nanoseconds(call: Callable[[], object]) -> float:
    """One round."""
    began = time.perf_counter()
    for _ in range(CALLS):
        call()
    return (time.perf_counter() - began) / CALLS * 1e9


def threaded(call: Callable[[], object], count: int = 8) -> float:
    """Million calls a second of several threads together."""
    start = threading.Barrier(count + 1)

    def work() -> None:
        call()
        start.wait()
        for _ in range(CALLS // 2):
            call()

    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    start.wait()
    began = time.perf_counter()
    for thread in threads:
        thread.join()
    return count * (CALLS // 2) / (time.perf_counter() - began) / 1e6


def cached(place: Stand) -> None:
    """Headers from memory."""
    sources = {"floor": floor()}
    sources |= {f"wise-creds {scope}": place.fetcher(token_scope=scope).authorization for scope in SCOPES}
    for name, make in PEERS.items():
        with suppress(ImportError):
            sources[name] = make()
    one: dict[str, list[float]] = {name: [] for name in sources}
    eight: dict[str, list[float]] = {name: [] for name in sources}
    for call in sources.values():
        call()
    for _ in range(ROUNDS):
        for name, call in sources.items():
            one[name].append(nanoseconds(call))
    for _ in range(3):
        for name, call in sources.items():
            eight[name].append(threaded(call))
    single = {name: statistics.median(values) for name, values in one.items()}
    many = {name: statistics.median(values) for name, values in eight.items()}
    print(f"cached header: median of {ROUNDS} rounds of {CALLS} calls; 8 threads: median of 3")
    for name in sources:
        print(f"  {name:<22} {single[name]:8.0f} ns  {single[name] / single['floor']:6.2f} x floor   "
              f"8 threads {many[name]:6.2f} M/s  {many[name] / many['floor']:5.2f} x floor")  # fmt: skip
    missing = [name for name in PEERS if name not in sources]
    if missing:
        print(f"  not installed, not compared: {', '.join(missing)}")


def cold(place: Stand) -> None:
    """64 callers without a token, an endpoint that takes 50 ms."""
    place.tell(delay=0.05)
    alone = []
    for _ in range(5):
        began = time.perf_counter()
        place.fetcher().token()
        alone.append(time.perf_counter() - began)
    print(f"64 cold callers, endpoint 50 ms (one request alone: {1000 * statistics.median(alone):.0f} ms)")
    for scope in SCOPES:
        walls, requests = [], []
        for _ in range(5):
            tokens, before = place.fetcher(token_scope=scope), place.tell()
            start = threading.Barrier(65)

            def work(tokens: TokenFetcher = tokens, start: threading.Barrier = start) -> None:
                start.wait()
                tokens.token()

            threads = [threading.Thread(target=work) for _ in range(64)]
            for thread in threads:
                thread.start()
            start.wait()
            began = time.perf_counter()
            for thread in threads:
                thread.join()
            walls.append(time.perf_counter() - began)
            requests.append(place.tell() - before)
        wall = statistics.median(walls)
        print(f"  {scope:<8} {statistics.median(requests):3.0f} requests, wall {1000 * wall:5.0f} ms, "
              f"{wall / statistics.median(alone):.2f} x one request")  # fmt: skip
    place.tell(delay=0.0)


def due(place: Stand, seconds: float = 8.0) -> None:
    """Tokens that are due while the endpoint fails: nobody may notice."""
    print(f"due, endpoint failing, 8 threads for {seconds:.0f} s, a call every 2 ms")
    for fault, delay in (("server_error", 0.3), ("hang", 0.0)):
        for scope in SCOPES:
            place.tell(token_life=60, faults=[], delay=0.0)
            tokens = place.fetcher(token_scope=scope, refresh_at=0.01)
            slow: list[float] = []
            errors: list[BaseException] = []
            start = threading.Barrier(9)

            def work(
                tokens: TokenFetcher = tokens,
                start: threading.Barrier = start,
                slow: list[float] = slow,
                errors: list[BaseException] = errors,
            ) -> None:
                tokens.token()
                start.wait()
                end = time.perf_counter() + seconds
                pause = threading.Event()
                while time.perf_counter() < end:
                    began = time.perf_counter()
                    try:
                        tokens.authorization()
                    except wise_creds.TokenError as error:
                        errors.append(error)
                    taken = time.perf_counter() - began
                    if taken > 0.005:
                        slow.append(taken)
                    pause.wait(0.002)

            threads = [threading.Thread(target=work) for _ in range(8)]
            for thread in threads:
                thread.start()
            while start.n_waiting < 8:
                time.sleep(0.01)
            before = place.tell(faults=[fault] * 1000, delay=delay)
            start.wait()
            for thread in threads:
                thread.join()
            asked = place.tell(faults=[], delay=0.0) - before
            held = 8 if scope == "thread" else 1
            print(f"  {fault:<13} {scope:<8} {len(errors)} errors, {len(slow)} calls above 5 ms, "
                  f"{asked} requests for {held} tokens")  # fmt: skip
    place.tell(token_life=43_199)


def stall(place: Stand) -> None:
    """The longest pause of an event loop while a fetch takes 500 ms."""
    place.tell(delay=0.5)

    async def measure() -> float:
        tokens, longest, running = AsyncTokenFetcher(place.credentials, base_url=place.base_url), 0.0, True

        async def tick() -> None:
            nonlocal longest
            last = time.perf_counter()
            while running:
                await asyncio.sleep(0.001)
                now = time.perf_counter()
                longest, last = max(longest, now - last), now

        ticking = asyncio.create_task(tick())
        await tokens.token()
        running = False
        await ticking
        return longest

    longest = [asyncio.run(measure()) for _ in range(5)]
    print(f"event loop, fetch of 500 ms: longest pause {1000 * statistics.median(longest):.1f} ms (median of 5)")
    place.tell(delay=0.0)


def main() -> None:
    """Run everything."""
    with stand() as place:
        cached(place)
        cold(place)
        due(place)
        stall(place)


if __name__ == "__main__":
    main()
