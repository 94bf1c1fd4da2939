"""Tokens over real mTLS: their states, their scopes, their failures."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import sys
import threading
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import Material, leaks, tcp_server, until

import wise_creds
from wise_creds import (
    AsyncTokenFetcher,
    Credentials,
    CredentialsError,
    NamespaceError,
    Token,
    TokenError,
    TokenFetcher,
    TokenRejectedError,
    TokenResponseError,
    TokenUnavailableError,
)
from wise_creds._fork import _after_fork
from wise_creds.testing import FakeClock, MockWise


def load(wise: MockWise) -> Credentials:
    return wise_creds.load("sandbox", config=wise.config)


def fetcher(wise: MockWise, **options: Any) -> TokenFetcher:
    return TokenFetcher(load(wise), base_url=wise.base_url, **options)


@pytest.mark.parametrize("tls", ["1.2", "1.3"])
def test_a_token_comes_over_mtls(tls: Any) -> None:
    """The server sees the certificate, Basic, the form body and nothing else."""
    with MockWise(tls=tls) as wise, fetcher(wise) as tokens:
        token = tokens.fetch()
        (request,) = wise.requests
        assert token.reveal() in wise.state.tokens
        assert (request.method, request.path, request.body) == (
            "POST",
            "/oauth/token",
            b"grant_type=client_credentials",
        )
        assert request.certificate_sha256 == load(wise).certificate.fingerprint  # type: ignore[union-attr]
        assert request.headers["content-type"] == "application/x-www-form-urlencoded"
        assert len(request.headers["x-external-correlation-id"]) == 36
        assert (token.scope, token.token_type) == ("transfers", "bearer")
        assert 43_190 < token.remaining() <= 43_199


def test_a_token_is_kept_and_fetch_always_asks(mock_wise: MockWise) -> None:
    """`token` and `authorization` serve from memory."""
    with fetcher(mock_wise) as tokens:
        token = tokens.token()
        assert tokens.token() is token
        assert tokens.authorization() == token.authorization()
        assert mock_wise.token_requests == 1
        assert tokens.fetch() is not token
        assert mock_wise.token_requests == 2


def test_an_invalidated_token_is_replaced_once(mock_wise: MockWise) -> None:
    """Only if it is still the one in use."""
    with fetcher(mock_wise) as tokens:
        first = tokens.token()
        tokens.invalidate(first)
        second = tokens.token()
        tokens.invalidate(first)
        assert (second is first, tokens.token() is second) == (False, True)


FAULTS = [
    ("invalid_client", TokenRejectedError, "WC501"),
    ("invalid_request", TokenRejectedError, "WC503"),
    ("forbidden", TokenRejectedError, "WC503"),
    ("certificate_refused", TokenRejectedError, "WC502"),
    ("rate_limited", TokenUnavailableError, "WC504"),
    ("server_error", TokenUnavailableError, "WC505"),
    ("unavailable", TokenUnavailableError, "WC505"),
    ("redirect", TokenResponseError, "WC511"),
    ("html", TokenResponseError, "WC509"),
    ("truncated", TokenResponseError, "WC509"),
    ("huge", TokenResponseError, "WC510"),
    ("empty_token", TokenResponseError, "WC509"),
    ("no_expires_in", TokenResponseError, "WC509"),
    ("no_token_type", TokenResponseError, "WC509"),
    ("reset", TokenUnavailableError, "WC506"),
]


@pytest.mark.parametrize(("fault", "kind", "code"), FAULTS, ids=[fault for fault, _, _ in FAULTS])
def test_every_odd_answer_has_its_class_and_code(
    mock_wise: MockWise, fault: str, kind: type[TokenError], code: str
) -> None:
    """And names the namespace and the URL, never the answer."""
    with fetcher(mock_wise, deadline=1.0) as tokens:
        mock_wise.fail(fault, times=9)
        with pytest.raises(kind) as caught:
            tokens.token()
    error = caught.value
    assert (type(error), error.code, error.namespace) == (kind, code, "sandbox")
    assert error.location == f"{mock_wise.base_url}/oauth/token"
    assert (bool(error.hint), error.__context__, error.__cause__) == (True, None, None)
    assert (error.trace_id is not None) == (fault not in ("reset", "huge"))
    canaries = {
        "id": mock_wise.client_id,
        "secret": mock_wise.client_secret,
        **dict(zip("abc", mock_wise.state.tokens, strict=False)),
    }
    assert leaks(canaries, str(error), repr(vars(error))) == []


@pytest.mark.parametrize("tls", ["1.2", "1.3"])
def test_a_revoked_certificate_is_told_from_a_network_error(tls: Any) -> None:
    """By the TLS alert, which comes in the handshake (1.2) or with the first read (1.3)."""
    with MockWise(tls=tls) as wise, fetcher(wise) as tokens:
        wise.revoke_certificate()
        with pytest.raises(TokenRejectedError, match="CERTIFICATE_REVOKED") as caught:
            tokens.token()
        assert caught.value.code == "WC502"
        assert wise.token_requests == 0


@pytest.mark.parametrize("tls", ["1.2", "1.3"])
def test_a_stranger_certificate_is_told_from_a_network_error(tls: Any) -> None:
    """Unknown CA; and none at all."""
    with MockWise(tls=tls) as wise:
        stranger = Material()
        made = stranger.credentials(ca_bundle=wise.authority.issued.pem)
        with pytest.raises(TokenRejectedError, match="UNKNOWN_CA") as caught:
            TokenFetcher(made, base_url=wise.base_url).fetch()
        bare = stranger.credentials(stranger.expected(mtls=False), ca_bundle=wise.authority.issued.pem)
        with pytest.raises(TokenRejectedError, match=r"CERTIFICATE_REQUIRED|HANDSHAKE_FAILURE") as none:
            TokenFetcher(bare, base_url=wise.base_url, mtls="off").fetch()
        assert (caught.value.code, none.value.code) == ("WC502", "WC502")


def test_an_untrusted_server_gets_no_secret(mock_wise: MockWise) -> None:
    """A wrong CA file: nothing is sent, and waiting does not help."""
    made = Material().credentials()
    with pytest.raises(TokenUnavailableError) as caught:
        TokenFetcher(made, base_url=mock_wise.base_url).fetch()
    assert (caught.value.code, caught.value.retryable, mock_wise.requests) == ("WC507", False, [])


def test_a_dead_host_is_unavailable_and_the_ignored_proxy_is_named(
    mock_wise: MockWise, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Environment proxies are never used silently; if one is set, the hint says so."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    tokens = TokenFetcher(load(mock_wise), base_url=f"https://127.0.0.1:{port}", deadline=0.5)
    with pytest.raises(TokenUnavailableError, match="ECONNREFUSED") as caught:
        tokens.fetch()
    assert (caught.value.code, caught.value.retryable) == ("WC506", True)
    assert "HTTPS_PROXY" not in str(caught.value)
    monkeypatch.setenv("HTTPS_PROXY", "http://canary-user:canary-pass@proxy.example:3128")
    with pytest.raises(TokenUnavailableError, match="HTTPS_PROXY is set but never used silently") as caught:
        tokens.fetch()
    assert leaks({"proxy": "canary-user:canary-pass"}, str(caught.value)) == []


def _silent(connection: socket.socket) -> None:
    while connection.recv(4096):
        pass


def _drips_handshake(connection: socket.socket) -> None:
    connection.recv(4096)
    connection.sendall(b"\x16\x03\x03\x40\x00")
    event = threading.Event()
    for _ in range(600):
        connection.sendall(b"\x02")
        event.wait(0.05)


@pytest.mark.parametrize("serve", [_silent, _drips_handshake], ids=["silent", "one byte at a time"])
def test_a_stalled_handshake_ends_at_the_deadline(mock_wise: MockWise, serve: Callable[[socket.socket], None]) -> None:
    """The deadline is wall time; the connection is given up with it and no thread stays behind."""
    with tcp_server(serve) as port:
        tokens = TokenFetcher(load(mock_wise), base_url=f"https://127.0.0.1:{port}", deadline=0.3)
        with pytest.raises(TokenUnavailableError) as caught:
            tokens.fetch()
        _threads_end()
    assert caught.value.code == "WC508"


@pytest.mark.parametrize("fault", ["hang", "drip"])
def test_a_stalled_answer_ends_at_the_deadline(mock_wise: MockWise, fault: str) -> None:
    """A server that is silent, and one that sends a byte now and then."""
    with fetcher(mock_wise, deadline=0.3) as tokens:
        mock_wise.fail(fault)
        with pytest.raises(TokenUnavailableError) as caught:
            tokens.token()
        _threads_end()
    assert caught.value.code == "WC508"


def test_a_silent_resolver_ends_at_the_deadline(mock_wise: MockWise, monkeypatch: pytest.MonkeyPatch) -> None:
    """`getaddrinfo` cannot be interrupted; its caller goes on."""
    release = threading.Event()
    real = socket.getaddrinfo

    def stuck(*args: Any, **kwargs: Any) -> Any:
        release.wait(30)
        return real("127.0.0.1", *args[1:], **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", stuck)
    tokens = TokenFetcher(load(mock_wise), base_url=mock_wise.base_url.replace("127.0.0.1", "localhost"), deadline=0.2)
    with pytest.raises(TokenUnavailableError) as caught:
        tokens.fetch()
    assert caught.value.code == "WC508"
    release.set()
    _threads_end()


def _threads_end() -> None:
    for thread in threading.enumerate():
        if thread.name.startswith("wise-creds"):
            thread.join(10)
            assert not thread.is_alive()


def test_waiting_callers_get_retries_within_the_deadline(mock_wise: MockWise) -> None:
    """Two failures and a success look like a success."""
    with fetcher(mock_wise) as tokens:
        mock_wise.fail("unavailable")
        mock_wise.fail("reset")
        assert tokens.token().reveal() in mock_wise.state.tokens
        assert mock_wise.token_requests == 3


def test_a_deadline_between_two_attempts_tells_the_cause(mock_wise: MockWise) -> None:
    """What the first attempt met says more than that the second one took too long."""
    with fetcher(mock_wise, deadline=1.5) as tokens:
        mock_wise.fail("unavailable")
        mock_wise.fail("hang")
        with pytest.raises(TokenUnavailableError) as caught:
            tokens.token()
    assert (caught.value.code, caught.value.status) == ("WC505", 503)


def test_a_refusal_is_not_repeated(mock_wise: MockWise) -> None:
    """400 and 401 do not mend themselves; a repeated wrong secret becomes a lock-out."""
    with fetcher(mock_wise) as tokens:
        mock_wise.fail("invalid_client", times=2)
        with pytest.raises(TokenRejectedError):
            tokens.token()
        assert mock_wise.token_requests == 1


def test_advice_to_wait_beyond_the_deadline_is_an_error_at_once(mock_wise: MockWise) -> None:
    """`Retry-After: 1` with half a second to go."""
    with fetcher(mock_wise, deadline=0.5) as tokens:
        mock_wise.fail("rate_limited")
        with pytest.raises(TokenUnavailableError) as caught:
            tokens.token()
        assert (caught.value.code, caught.value.retry_after, mock_wise.token_requests) == ("WC504", 1.0, 1)


class Cases:
    """A fetcher on a fake clock whose background work can be awaited."""

    def __init__(self, wise: MockWise, **options: Any) -> None:
        self.wise = wise
        self.clock = FakeClock()
        wise.state.token_life = 1000
        self.tokens = fetcher(wise, clock=self.clock, **options)

    def renewed(self) -> None:
        renewal = self.tokens._cache._renewal
        assert renewal is not None
        renewal._finished.wait(10)


@pytest.fixture
def cases(mock_wise: MockWise) -> Cases:
    """A fetcher whose tokens live 1000 fake seconds."""
    return Cases(mock_wise)


def test_fresh_until_the_renewal_point(cases: Cases) -> None:
    """Somewhere between 75 and 80 % of the life."""
    first = cases.tokens.token()
    cases.clock.advance(751)
    assert cases.tokens.token() is first
    assert cases.wise.token_requests == 1


def test_a_due_token_serves_while_the_background_renews(cases: Cases) -> None:
    """Nobody waits; the next caller finds the new one."""
    first = cases.tokens.token()
    cases.clock.advance(801)
    assert cases.tokens.token() is first
    cases.renewed()
    second = cases.tokens.token()
    assert (second is first, cases.wise.token_requests) == (False, 2)


def test_a_failed_renewal_is_quiet_and_backs_off(cases: Cases, caplog: pytest.LogCaptureFixture) -> None:
    """The valid token is never withheld; one attempt, then a pause, then again."""
    first = cases.tokens.token()
    cases.clock.advance(801)
    cases.wise.fail("server_error", times=2)
    assert cases.tokens.token() is first
    cases.renewed()
    for _ in range(50):
        assert cases.tokens.token() is first
    assert cases.wise.token_requests == 2
    assert "renewal failed, the present token serves on: WC505" in caplog.text
    assert cases.tokens._cache.error is not None
    cases.clock.advance(31)
    assert cases.tokens.token() is first
    cases.renewed()
    assert cases.wise.token_requests == 3
    cases.clock.advance(61)
    cases.tokens.token()
    cases.renewed()
    assert (cases.tokens.token() is first, cases.tokens._cache.error is None) == (False, True)


def test_a_renewal_that_drips_is_given_up(cases: Cases) -> None:
    """Nobody waits for it, so it must end by itself, or no renewal would ever follow."""
    first = cases.tokens.token()
    cases.clock.advance(801)
    cases.wise.fail("drip")
    assert cases.tokens.token() is first
    until(lambda: cases.wise.token_requests == 2)
    cases.clock.advance(11)
    cases.renewed()
    error = cases.tokens._cache.error
    assert (cases.tokens.token() is first, error.code if error else None) == (True, "WC508")
    cases.clock.advance(31)
    cases.tokens.token()
    cases.renewed()
    assert cases.tokens.token() is not first
    _threads_end()


def test_an_expired_token_is_never_handed_out(cases: Cases) -> None:
    """Callers wait for a new one, or get the error."""
    first = cases.tokens.token()
    cases.clock.advance(1001)
    cases.wise.fail("invalid_client")
    with pytest.raises(TokenRejectedError):
        cases.tokens.token()
    assert cases.tokens.token() is not first


def test_a_wall_clock_past_the_end_counts_and_a_step_back_does_not(cases: Cases) -> None:
    """Boot time decides; the wall clock is the second opinion, looked at when a second has passed."""
    first = cases.tokens.token()
    cases.clock.step_wall(-100_000)
    cases.clock.advance(500)
    assert cases.tokens.token() is first
    cases.clock.step_wall(+200_000)
    assert cases.tokens.token() is first
    cases.clock.advance(2)
    assert cases.tokens.token() is not first


def test_suspend_counts(cases: Cases) -> None:
    """A laptop that slept has an expired token."""
    first = cases.tokens.authorization()
    cases.clock.suspend(5000)
    second = cases.tokens.authorization()
    assert (second != first, second) == (True, cases.tokens.token().authorization())


def test_a_process_thawed_from_a_snapshot_has_an_expired_token(cases: Cases) -> None:
    """Its boot clock goes on where it stood; only the wall clock knows of the hours between."""
    first = cases.tokens.authorization()
    cases.clock.step_wall(50_000)
    cases.clock.advance(1.1)
    assert cases.tokens.authorization() != first


def _in_threads(count: int, call: Callable[[], Any]) -> list[Any]:
    results: list[Any] = []
    start = threading.Barrier(count)

    def work() -> None:
        start.wait(10)
        try:
            results.append(call())
        except Exception as error:
            results.append(error)

    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    return results


@pytest.mark.parametrize(("scope", "requests"), [("process", 1), ("thread", 16)])
def test_cold_callers_share_or_have_their_own(mock_wise: MockWise, scope: Any, requests: int) -> None:
    """One per process in one request, or one per thread in parallel."""
    mock_wise.state.delay = 0.05
    with fetcher(mock_wise, token_scope=scope) as tokens:
        got = _in_threads(16, tokens.token)
        assert len({id(token) for token in got}) == requests
        assert mock_wise.token_requests == requests


def test_a_token_refused_twice_at_once_is_renewed_once(mock_wise: MockWise) -> None:
    """A hundred 401s make one refresh: the second one finds it done already."""
    with fetcher(mock_wise, token_scope="process") as tokens:
        first = tokens.token()
        cache = tokens._cache
        assert (cache.refused(first), cache.refused(first)) == (True, True)
        second = tokens.token()
        assert (cache.refused(first), cache.refused(second), tokens.token() is second) == (True, False, True)


def test_a_waiter_finds_the_token_that_came_meanwhile(mock_wise: MockWise) -> None:
    """Between the quick look and the wait."""
    with fetcher(mock_wise) as tokens:
        first = tokens.token()
        cache = tokens._cache

        async def late() -> Token:
            return await cache.obtain_async()

        assert (cache.obtain() is first, asyncio.run(late()) is first) == (True, True)
        assert mock_wise.token_requests == 1


def test_only_what_is_due_is_renewed_and_by_one_thread(cases: Cases) -> None:
    """A fresh token stays; while one renewal runs no second begins."""
    tokens, ask = cases.tokens, threading.Semaphore(0)
    got: list[Token] = []

    def work() -> None:
        while ask.acquire(timeout=30):
            got.append(tokens.token())

    def other() -> Token:
        count = len(got)
        ask.release()
        until(lambda: len(got) > count)
        return got[-1]

    tokens.token()
    threading.Thread(target=work, daemon=True).start()
    due = other()
    cases.clock.advance(700)
    fresh = tokens.fetch()
    cases.clock.advance(101)
    cases.wise.fail("hang")
    assert [other() is due for _ in range(3)] == [True] * 3
    until(lambda: cases.wise.token_requests == 4)
    renewal = tokens._cache._renewal
    assert renewal is not None
    assert (renewal.done, tokens.token() is fresh) == (False, True)
    cases.wise.state.stopped.set()
    cases.renewed()


def test_the_fork_hook_resets_every_cache(mock_wise: MockWise) -> None:
    """What runs in a child, called here for the gate."""
    with fetcher(mock_wise) as tokens:
        first = tokens.token()
        _after_fork()
        assert tokens.token() is not first


def test_a_shared_failure_gives_each_waiter_an_error_of_its_own(mock_wise: MockWise) -> None:
    """One object raised in several threads would collect all their tracebacks."""
    mock_wise.state.delay = 0.2
    mock_wise.state.secrets = ["another"]
    with fetcher(mock_wise, token_scope="process") as tokens:
        got = _in_threads(4, tokens.token)
    assert [error.code for error in got] == ["WC501"] * 4
    assert len({id(error) for error in got}) == 4


def test_a_thread_hands_its_token_on_when_it_ends(mock_wise: MockWise) -> None:
    """A thousand threads one after the other make one request."""
    with fetcher(mock_wise) as tokens:
        got = [_in_threads(1, tokens.token)[0] for _ in range(1000)]
        assert (len({id(token) for token in got}), mock_wise.token_requests) == (1, 1)
        assert len(tokens._cache._slots._all) == 1


def test_a_new_thread_whose_fetch_fails_borrows_a_valid_token(
    mock_wise: MockWise, caplog: pytest.LogCaptureFixture
) -> None:
    """And the log says so."""
    with fetcher(mock_wise) as tokens:
        first = tokens.token()
        mock_wise.fail("invalid_client", times=3)
        assert [other is first for other in _in_threads(2, tokens.token)] == [True, True]
        assert "a token of another thread serves meanwhile" in caplog.text
        tokens.invalidate(first)
        (none,) = _in_threads(1, tokens.token)
        assert isinstance(none, TokenRejectedError)


def test_a_thread_that_borrowed_waits_no_more_and_gets_its_own_in_the_background(mock_wise: MockWise) -> None:
    """It asks Wise itself once, not once a call; the background asks again after the back-off."""
    clock = FakeClock()
    with fetcher(mock_wise, clock=clock) as tokens:
        first, got = tokens.token(), list[Token]()
        mock_wise.fail("invalid_client")
        steps = [threading.Event(), threading.Event()]

        def work() -> None:
            got.extend(tokens.token() for _ in range(100))
            steps[0].set()
            steps[1].wait(10)
            got.append(tokens.token())
            until(lambda: tokens.token() is not first)
            got.append(tokens.token())

        thread = threading.Thread(target=work)
        thread.start()
        steps[0].wait(10)
        assert (set(map(id, got)), mock_wise.token_requests) == ({id(first)}, 2)
        clock.advance(31)
        steps[1].set()
        thread.join(10)
        assert (got[-2] is first, got[-1] is first, mock_wise.token_requests) == (True, False, 3)


def test_a_waiter_that_joined_a_given_up_fetch_tries_again(mock_wise: MockWise) -> None:
    """The first caller's deadline is not the second one's."""
    with fetcher(mock_wise, token_scope="process", deadline=1.2) as tokens:
        mock_wise.fail("hang")
        late: list[Token] = []
        threads = [threading.Thread(target=lambda: late.append(tokens.token())) for _ in range(2)]
        with pytest.raises(TokenUnavailableError):
            _staggered(tokens, threads)
        for thread in threads:
            thread.join(10)
        assert len(late) == 2


def _staggered(tokens: TokenFetcher, others: list[threading.Thread]) -> None:
    timers = [threading.Timer(0.6, thread.start) for thread in others]
    for timer in timers:
        timer.start()
    try:
        tokens.token()
    finally:
        for timer in timers:
            timer.join()


def test_a_child_after_fork_starts_clean(mock_wise: MockWise) -> None:
    """No token, no lock held, nothing under way; also when another thread was fetching."""
    with fetcher(mock_wise, token_scope="process") as tokens:
        tokens.token()
        mock_wise.state.delay = 0.3
        busy = threading.Thread(target=tokens.fetch)
        busy.start()
        reading, writing = os.pipe()
        with tokens._cache._lock:
            child = os.fork()
        if child == 0:  # pragma: no cover  the child is not measured
            try:
                cache = tokens._cache
                clean = cache.current() is None and not cache._slots.everyone() and not cache._lock.locked()
                os.write(writing, b"clean" if clean else b"dirty")
            finally:
                os._exit(0)
        os.close(writing)
        assert os.read(reading, 10) == b"clean"
        os.close(reading)
        os.waitpid(child, 0)
        busy.join(10)


def test_closing_forgets_and_further_calls_say_so(mock_wise: MockWise) -> None:
    """An error of its own."""
    tokens = fetcher(mock_wise)
    tokens.token()
    tokens.close()
    for call in (tokens.token, tokens.fetch, tokens.authorization):
        with pytest.raises(TokenError) as caught:
            call()
        assert (caught.value.code, caught.value.retryable) == ("WC513", False)


def test_a_token_that_comes_after_closing_is_neither_given_nor_kept(mock_wise: MockWise) -> None:
    """Closed is closed: after a breach nobody is to go on with it."""
    tokens, codes = fetcher(mock_wise), list[object]()
    mock_wise.state.delay = 0.3

    def work() -> None:
        for _ in range(2):
            with pytest.raises(TokenError) as caught:
                tokens.authorization()
            codes.append(caught.value.code)

    busy = threading.Thread(target=work)
    busy.start()
    until(lambda: mock_wise.token_requests == 1)
    tokens.close()
    busy.join(10)
    assert codes == ["WC513", "WC513"]


def test_the_addresses_are_guarded(mock_wise: MockWise) -> None:
    """Before anything is sent."""
    made = load(mock_wise)
    for options, code in (
        ({"base_url": "https://api-mtls.transferwise.com"}, "WC201"),
        ({"token_url": "https://gateway.example/t"}, "WC202"),
        ({"allow_hosts": ["api.wise.com"]}, "WC201"),
    ):
        with pytest.raises(NamespaceError) as caught:
            TokenFetcher(made, **options)
        assert caught.value.code == code
    TokenFetcher(made, token_url="https://gateway.example/t", allow_hosts=["gateway.example"])
    TokenFetcher(made, base_url="https://api-mtls.wise-sandbox.com", mtls="off")


def test_production_wants_mtls_and_a_certificate() -> None:
    """Neither the switch nor the material can leave it out."""
    material = Material()
    production = material.credentials(
        material.expected(namespace=wise_creds.Namespace.PRODUCTION), environment="production"
    )
    with pytest.raises(NamespaceError) as caught:
        TokenFetcher(production, mtls="off")
    bare = material.credentials(material.expected(mtls=False))
    with pytest.raises(CredentialsError) as missing:
        TokenFetcher(bare)
    assert (caught.value.code, missing.value.code) == ("WC209", "WC401")


def test_basic_is_raw_or_form_encoded(mock_wise: MockWise) -> None:
    """As Wise's own examples send it, or as RFC 6749 has it."""
    import base64

    mock_wise.state.secrets = ["a+b/c%"]
    mock_wise.write_credentials(mock_wise.directory)
    with fetcher(mock_wise) as tokens:
        tokens.fetch()
    mock_wise.state.secrets = ["a%2Bb%2Fc%25"]
    with fetcher(mock_wise, basic_auth="form") as tokens:
        tokens.fetch()
    sent = [base64.b64decode(request.headers["authorization"][6:]).decode() for request in mock_wise.requests]
    assert sent == [f"{mock_wise.client_id}:a+b/c%", f"{mock_wise.client_id}:a%2Bb%2Fc%25"]


def test_a_token_request_is_audited(mock_wise: MockWise) -> None:
    """With namespace and host; the cached path is silent."""
    heard: list[tuple[object, ...]] = []
    listening = True

    def hook(event: str, args: tuple[object, ...]) -> None:
        if listening and event.startswith("wise_creds."):
            heard.append((event, *args))

    with fetcher(mock_wise) as tokens:
        sys.addaudithook(hook)
        for _ in range(5):
            tokens.authorization()
        listening = False
    assert heard == [("wise_creds.token", "sandbox", "127.0.0.1")]


def test_a_failure_that_nobody_foresaw_is_a_token_error(mock_wise: MockWise, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its type and place."""
    with fetcher(mock_wise) as tokens:

        def fails(*_: object, **__: object) -> None:
            raise ZeroDivisionError("canary")

        monkeypatch.setattr(uuid, "uuid4", fails)
        with pytest.raises(TokenError, match="ZeroDivisionError at") as caught:
            tokens.fetch()
    assert caught.value.code == "WC514"


def test_the_async_fetcher_does_the_same(mock_wise: MockWise) -> None:
    """In one loop after the other; 64 tasks share one request."""
    made = AsyncTokenFetcher(load(mock_wise), base_url=mock_wise.base_url)

    async def use() -> list[Token]:
        got = await asyncio.gather(*(made.token() for _ in range(64)))
        assert await made.token() is got[0]
        assert await made.authorization() == got[0].authorization()
        return got

    first = asyncio.run(use())
    made.invalidate(first[0])
    second = asyncio.run(use())
    assert (len({id(token) for token in first + second}), mock_wise.token_requests) == (2, 2)

    async def end() -> Token:
        async with made as opened:
            return await opened.fetch()

    assert isinstance(asyncio.run(end()), Token)

    async def after() -> None:
        await made.authorization()

    with pytest.raises(TokenError):
        asyncio.run(after())


def test_the_event_loop_runs_on_while_a_fetch_waits(mock_wise: MockWise) -> None:
    """The loop's own tasks go on, and a deadline ends the wait."""
    mock_wise.fail("hang")

    async def use() -> tuple[int, str]:
        made = AsyncTokenFetcher(load(mock_wise), base_url=mock_wise.base_url, deadline=0.3)
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        counting = asyncio.create_task(count())
        with pytest.raises(TokenUnavailableError) as caught:
            await made.token()
        counting.cancel()
        return turns, caught.value.code

    turns, code = asyncio.run(use())
    assert (turns > 100, code) == (True, "WC508")


def test_a_task_that_joined_a_given_up_fetch_tries_again(mock_wise: MockWise) -> None:
    """As threads do."""
    mock_wise.fail("hang")

    async def use() -> tuple[Any, Any]:
        made = AsyncTokenFetcher(load(mock_wise), base_url=mock_wise.base_url, deadline=1.0)

        async def later() -> Token:
            await asyncio.sleep(0.5)
            return await made.token()

        return await asyncio.gather(made.token(), later(), return_exceptions=True)

    first, second = asyncio.run(use())
    assert (isinstance(first, TokenUnavailableError), isinstance(second, Token)) == (True, True)


def test_no_key_log_and_no_file_on_the_way(
    mock_wise: MockWise, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A token request leaves nothing behind; a default context, the control, does."""
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys"))
    with fetcher(mock_wise) as tokens:
        tokens.fetch()
    assert list(tmp_path.iterdir()) == []
    ssl.create_default_context()
    assert (tmp_path / "keys").exists()
