"""What a running service does when its credentials change: `refresh`, `watch`, `on_rotate`, refusals, and the drain."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from support import leaks
from vault_servers import FIELDS as VAULT_FIELDS
from vault_servers import running

import wise_creds
from wise_creds import Connection, Generation, LoadError, Secret, TokenError, TokenRejectedError, _refresh
from wise_creds.clock import SYSTEM_CLOCK, Clock
from wise_creds.testing import FakeClock, MockWise


@pytest.fixture
def wise(mock_wise: MockWise) -> Iterator[Connection]:
    with connected(mock_wise) as connection:
        yield connection


def connected(mock_wise: MockWise, clock: Clock = SYSTEM_CLOCK, **changes: Any) -> Connection:
    table = {**mock_wise.table, "watch": 0, **changes}
    return wise_creds.connect("sandbox", config={"sandbox": table}, clock=clock)


def until(condition: Callable[[], bool]) -> None:
    """Wait for what another thread does, five seconds at most."""
    event = threading.Event()
    for _ in range(1000):
        if condition():
            return
        event.wait(0.005)
    pytest.fail("it did not come to that")


def told(wise: Connection) -> list[int]:
    """Collect the numbers of the generations that callbacks get."""
    numbers: list[int] = []
    wise.on_rotate(lambda generation: numbers.append(generation.number))
    return numbers


# Refreshing


def test_a_new_secret_is_taken_over_and_proved_by_one_token(mock_wise: MockWise, wise: Connection) -> None:
    """The old one is dead at Wise, and nobody noticed."""
    numbers = told(wise)
    mock_wise.rotate_secret()
    assert (wise.refresh(), wise.current().number, mock_wise.token_requests) == (True, 2, 2)
    secret = wise.current().credentials.client_secret
    assert secret == Secret(mock_wise.client_secret)
    until(lambda: numbers == [2])
    with wise.client() as http:
        assert http.get("/v2/profiles").status_code == 200


@pytest.mark.parametrize("kind", ["ec-p384", "rsa-2048"])
def test_a_new_certificate_of_another_kind_is_taken_over(mock_wise: MockWise, wise: Connection, kind: str) -> None:
    """A client made before follows."""
    with wise.client() as http:
        http.get("/v2/profiles")
        before = wise.status()["certificate_sha256"]
        mock_wise.rotate_certificate(kind)
        assert wise.refresh()
        assert http.get("/v2/profiles").status_code == 200
    certificate = wise.current().credentials.certificate
    assert certificate is not None
    assert (certificate.key_type, wise.status()["certificate_sha256"] == before) == (kind, False)


def test_an_unchanged_secret_fires_nothing(mock_wise: MockWise, wise: Connection) -> None:
    """Read, compared, left alone."""
    numbers, before = told(wise), wise.current()
    assert (wise.refresh(), asyncio.run(wise.arefresh()), wise.current() is before) == (False, False, True)
    assert (numbers, mock_wise.token_requests) == ([], 1)


def test_the_same_content_under_another_version_fires_nothing_but_is_shown(mock_wise: MockWise) -> None:
    """Somebody wrote the same again; a fleet that is asked for the version must not look outdated."""
    names = ("client_id", "client_secret", "certificate", "private_key", "ca_bundle", "environment")
    content = {name: (mock_wise.directory / name).read_text() for name in names}
    with running("stand-in") as vault:
        (mock_wise.root / "token").write_text(vault.token)
        table = {**vault.options(auth={"method": "token", "token_file": str(mock_wise.root / "token")}),
                 "provider": "vault", "base_url": mock_wise.base_url, "watch": 0}  # fmt: skip
        vault.put(content)
        with wise_creds.connect("sandbox", config={"sandbox": table}) as wise:
            numbers = told(wise)
            vault.put(content)
            assert (wise.refresh(), wise.status()["version"], wise.current().version) == (False, "2", "1")
            wise._rotator.look()
            assert (numbers, mock_wise.token_requests, VAULT_FIELDS.keys() <= content.keys()) == ([], 1, True)


def test_refreshes_at_the_same_time_share_one_reading(mock_wise: MockWise, wise: Connection) -> None:
    """One token request for all."""
    mock_wise.rotate_secret()
    mock_wise.state.delay = 0.2
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(lambda _: wise.refresh(), range(8))) == [True] * 8
    assert (wise.current().number, mock_wise.token_requests) == (2, 2)


def test_arefresh_leaves_the_event_loop_alone(mock_wise: MockWise, wise: Connection) -> None:
    """It turns while Wise takes its time."""
    mock_wise.rotate_secret()
    mock_wise.state.delay = 0.3

    async def both() -> tuple[bool, int]:
        turns = 0
        refresh = asyncio.ensure_future(wise.arefresh())
        while not refresh.done():
            turns += 1
            await asyncio.sleep(0.01)
        return refresh.result(), turns

    swapped, turns = asyncio.run(both())
    assert (swapped, turns > 10) == (True, True)


def test_a_refresh_that_does_not_end_is_given_up(mock_wise: MockWise, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a code, sync and async."""
    with connected(mock_wise, deadline=0.1) as wise:
        held = wise._rotator._work
        with held:
            with pytest.raises(LoadError, match="WC304"):
                wise.refresh()
            with pytest.raises(LoadError, match="WC304"):
                asyncio.run(wise.arefresh())


def test_a_closed_connection_is_not_refreshed(mock_wise: MockWise) -> None:
    """Nor is it brought back to life."""
    wise = connected(mock_wise)
    wise.close()
    with pytest.raises(TokenError, match="WC513"):
        wise.refresh()


def test_a_connection_that_is_closed_while_it_refreshes_stays_closed(mock_wise: MockWise) -> None:
    """The new generation is not let in any more."""
    wise = connected(mock_wise)
    mock_wise.rotate_secret()
    mock_wise.state.delay = 0.3
    job = wise._rotator.start()
    until(lambda: mock_wise.token_requests == 2)
    wise.close()
    outcome = job.wait(SYSTEM_CLOCK, SYSTEM_CLOCK.boot() + 5)
    assert outcome is not None
    assert (getattr(outcome.error, "code", None), wise._rotator.generation.cache.closed) == ("WC513", True)


# Bad versions


def broken(mock_wise: MockWise, how: str) -> str:
    """Put something unusable into the store; gives the code that it gets."""
    if how == "refused":
        (mock_wise.directory / "client_secret").write_text("canary-not-the-secret")
        return "WC501"
    if how == "expired":
        from datetime import timedelta

        issued = mock_wise.authority.client(mock_wise.client_id, begins=timedelta(days=-9), ends=timedelta(days=-1))
        mock_wise.write_credentials(mock_wise.directory, issued=issued)
        return "WC414"
    name, content, code = {
        "mismatched": ("private_key", mock_wise.authority.client("other").key_pem.decode(), "WC413"),
        "garbage": ("certificate", "canary-xyzzy-blob", "WC411"),
        "other namespace": ("environment", "production", "WC206"),
    }[how]
    (mock_wise.directory / name).write_text(content)
    return code


@pytest.mark.parametrize("how", ["refused", "expired", "mismatched", "garbage", "other namespace"])
def test_a_bad_version_leaves_the_good_generation_working(
    mock_wise: MockWise, wise: Connection, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    """It is raised to whoever asked, logged, and shown with the time of the next try."""
    numbers, before, token = told(wise), wise.current(), wise.token()
    code = broken(mock_wise, how)
    with caplog.at_level(logging.WARNING), pytest.raises((LoadError, TokenRejectedError)) as caught:
        wise.refresh()
    rejected = wise.status()["rejected"]
    assert isinstance(rejected, dict)
    assert (caught.value.code, rejected["code"], rejected["at"] < rejected["retry_at"]) == (code, code, True)
    assert (wise.current() is before, wise.token() is token, wise.status()["ready"], numbers) == (True, True, True, [])
    assert "the present one serves on" in caplog.text
    assert leaks({"a": "canary-not-the-secret", "b": "canary-xyzzy-blob"}, caplog.text, wise.status()) == []


def test_a_rejected_version_is_tried_again_in_time_and_another_one_at_once(mock_wise: MockWise) -> None:
    """Never in a tight loop; going back to the version in use clears it."""
    clock = FakeClock(SYSTEM_CLOCK.wall())
    with connected(mock_wise, clock) as wise:
        good = mock_wise.client_secret
        path = mock_wise.directory / "client_secret"
        path.write_text("wrong-secret-one")
        look, asked = wise._rotator.look, []
        for seconds in (0, 1, 10, 600, 1):
            clock.advance(seconds)
            look()
            asked.append(mock_wise.token_requests)
        assert asked == [2, 2, 2, 3, 3]
        path.write_text("wrong-secret-two")
        look()
        assert (mock_wise.token_requests, wise.status()["rejected"] is None) == (4, False)
        path.write_text(good)
        look()
        assert (mock_wise.token_requests, wise.status()["rejected"]) == (4, None)


def test_a_store_that_is_down_is_shown_and_takes_nothing_down(
    mock_wise: MockWise, caplog: pytest.LogCaptureFixture
) -> None:
    """The age of what is known is `source_checked_at`; it is logged once, not each time."""
    clock = FakeClock(SYSTEM_CLOCK.wall())
    with connected(mock_wise, clock) as wise:
        checked = wise.status()["source_checked_at"]
        away = mock_wise.directory.rename(mock_wise.root / "away")
        with caplog.at_level(logging.WARNING):
            for _ in range(3):
                clock.advance(60)
                wise._rotator.look()
        assert wise.status() | {"token_expires_in": 0} == wise.status() | {
            "ready": True, "source_error": "WC301", "source_checked_at": checked, "token_expires_in": 0}  # fmt: skip
        assert caplog.text.count("cannot be probed") == 1
        with pytest.raises(LoadError, match="WC301"):
            wise.refresh()
        away.rename(mock_wise.directory)
        wise._rotator.look()
        assert (wise.status()["source_error"], wise.status()["source_checked_at"] == checked) == (None, False)


def test_a_store_that_says_nothing_is_given_up_at_the_deadline(mock_wise: MockWise) -> None:
    """The probe has the deadline of a load."""
    names = ("client_id", "client_secret", "certificate", "private_key", "ca_bundle", "environment")
    with running("stand-in") as vault:
        vault.put({name: (mock_wise.directory / name).read_text() for name in names})
        (mock_wise.root / "token").write_text(vault.token)
        table = {**vault.options(auth={"method": "token", "token_file": str(mock_wise.root / "token")}, timeout=60),
                 "provider": "vault", "base_url": mock_wise.base_url}  # fmt: skip
        with wise_creds.connect("sandbox", config={"sandbox": {**table, "deadline": 1}}) as wise:
            assert vault.standin is not None
            vault.standin.fail(-1, times=99)
            wise._rotator.look()
            assert (wise.status()["source_error"], wise.status()["ready"]) == ("WC304", True)
            assert wise._rotator.loader.interval() == 60.0


def test_a_pair_that_openssl_refuses_is_a_bad_version(
    mock_wise: MockWise, wise: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The material check is not the last word."""
    mock_wise.rotate_certificate()
    monkeypatch.setattr("wise_creds.tls._MEMORY_WAYS", ())
    with pytest.raises(LoadError, match="WC430"):
        wise.refresh()
    assert wise.current().number == 1


def test_status_stays_json_safe(mock_wise: MockWise, wise: Connection) -> None:
    """With something in every place."""
    broken(mock_wise, "refused")
    with pytest.raises(TokenRejectedError):
        wise.refresh()
    assert json.loads(json.dumps(wise.status())) == wise.status()


# Tokens over a swap


def test_every_thread_starts_on_the_token_that_proved_the_new_version_and_gets_its_own_later(
    mock_wise: MockWise,
) -> None:
    """Nobody waits for Wise after a swap."""
    with connected(mock_wise) as wise, ThreadPoolExecutor(4) as threads:
        together = threading.Barrier(4)

        def header(_: int) -> str:
            together.wait()
            return wise.authorization()

        list(threads.map(header, range(4)))
        mock_wise.rotate_secret()
        wise.refresh()
        mock_wise.state.delay = 0.2
        asked = mock_wise.token_requests
        first = set(threads.map(header, range(4)))
        assert (len(first), mock_wise.token_requests) == (1, asked)
        set(threads.map(header, range(4)))
        until(lambda: len(set(threads.map(header, range(4)))) == 4)


def test_a_shared_token_that_is_refused_is_nobodys_any_more(mock_wise: MockWise, wise: Connection) -> None:
    """Later threads do not start on it."""
    mock_wise.rotate_secret()
    wise.refresh()
    cache = wise.current().cache
    token = wise.token()
    assert cache._slots.shared is token or token is not None
    shared = cache._slots.shared
    assert shared is not None
    cache.invalidate(shared)
    assert cache._slots.shared is None


@pytest.mark.parametrize(
    "how", ["token", "authorization", "atoken", "aauthorization", "client", "async_client", "auth"]
)
def test_a_refused_client_looks_at_the_source_and_goes_on_with_what_is_new_there(mock_wise: MockWise, how: str) -> None:
    """Without polling, without a failed call: the caller only waits a little longer."""
    with connected(mock_wise) as wise:
        mock_wise.rotate_secret()
        mock_wise.expire_tokens()
        wise.current().cache.invalidate(wise.token())

        async def fetch() -> int:
            async with wise.async_client() as http:
                return (await http.get("/v2/profiles")).status_code

        def get(http: httpx.Client) -> int:
            with http:
                return http.get(f"{wise.base_url}/v2/profiles").status_code

        calls: dict[str, Callable[[], object]] = {
            "token": wise.token,
            "authorization": wise.authorization,
            "atoken": lambda: asyncio.run(wise.atoken()),
            "aauthorization": lambda: asyncio.run(wise.aauthorization()),
            "client": lambda: get(wise.client()),
            "async_client": lambda: asyncio.run(fetch()),
            "auth": lambda: get(httpx.Client(auth=wise.auth, verify=wise.current().ssl_context)),
        }
        assert calls[how]()
        assert (wise.current().number, wise.status()["rejected"]) == (2, None)


def test_a_refused_client_without_anything_new_is_an_error_and_looks_once_in_ten_seconds(mock_wise: MockWise) -> None:
    """A wrong secret does not become a storm on the store."""
    clock = FakeClock(SYSTEM_CLOCK.wall())
    with connected(mock_wise, clock) as wise:
        wise.current().cache.invalidate(wise.token())
        (old,) = mock_wise.state.secrets
        mock_wise.state.secrets = ["another"]
        looks = []
        original = wise._rotator.loader.read

        def reading() -> Any:
            looks.append(1)
            return original()

        wise._rotator.loader.read = reading  # type: ignore[method-assign]
        for seconds in (0, 1, 10):
            clock.advance(seconds)
            for call in (wise.token, wise.authorization, lambda: asyncio.run(wise.atoken())):
                with pytest.raises(TokenRejectedError, match="WC501"):
                    call()
        assert (len(looks), wise.current().number, old == "another") == (2, 1, False)


def test_another_token_error_does_not_look_at_the_source(mock_wise: MockWise, wise: Connection) -> None:
    """An outage of Wise is not mended by a newer secret."""
    mock_wise.rotate_secret()
    wise.current().cache.invalidate(wise.token())
    mock_wise.fail("server_error", times=9)
    with pytest.raises(TokenError):
        wise.token()
    assert wise.current().number == 1


def test_a_renewal_in_the_background_that_is_refused_looks_at_the_source_too(mock_wise: MockWise) -> None:
    """Before any caller has to wait."""
    clock = FakeClock(SYSTEM_CLOCK.wall())
    with connected(mock_wise, clock) as wise:
        mock_wise.rotate_secret()
        clock.advance(11 * 3600)
        before = wise.authorization()
        until(lambda: wise.current().number == 2)
        assert wise.authorization() != before


def test_a_certificate_that_the_api_refuses_is_replaced_and_the_request_sent_again() -> None:
    """The alert comes before the request is looked at, so a POST may go out once more; with TLS 1.2 in the handshake."""
    with MockWise(tls="1.2") as mock_wise, connected(mock_wise) as wise, wise.client() as http:
        mock_wise.revoke_certificate()
        mock_wise.rotate_certificate()
        assert http.post("/v2/profiles", content=b"{}").status_code < 500
        assert wise.current().number == 2

        async def asynchronously() -> int:
            async with wise.async_client() as other:
                mock_wise.revoke_certificate()
                mock_wise.rotate_certificate()
                wise._rotator._not_before = 0.0
                return (await other.post("/v2/profiles", content=b"{}")).status_code

        assert (asyncio.run(asynchronously()) < 500, wise.current().number) == (True, 3)


@pytest.mark.parametrize("tls", ["1.2", "1.3"])
def test_a_certificate_that_stays_refused_is_the_callers_error(tls: Any) -> None:
    """Of httpx's kind, also where the body cannot be sent again, and however late the alert comes."""
    with MockWise(tls=tls) as mock_wise, connected(mock_wise) as wise, wise.client() as http:
        mock_wise.revoke_certificate()
        with pytest.raises(httpx.TransportError):
            http.get("/v2/profiles")
        with pytest.raises(httpx.TransportError):
            http.post("/v2/profiles", content=iter([b"{}"]))

        async def asynchronously() -> None:
            async with wise.async_client() as other:
                await other.get("/v2/profiles")

        for _ in range(5):
            with pytest.raises(httpx.TransportError):
                asyncio.run(asynchronously())
        assert wise.current().number == 1


# Callbacks


def test_callbacks_are_told_in_order_and_one_that_fails_harms_nobody(
    mock_wise: MockWise, wise: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    """Its exception is logged by type; what it says may hold anything."""
    seen: list[tuple[str, int]] = []

    def failing(generation: Generation) -> None:
        seen.append(("failing", generation.number))
        raise ValueError("canary-of-a-callback")

    def good(generation: Generation) -> None:
        seen.append(("good", generation.number))

    wise.on_rotate(failing)
    remove = [wise.on_rotate(good), wise.on_rotate(good)]
    for _ in range(2):
        mock_wise.rotate_secret()
        wise.refresh()
    until(lambda: len(seen) == 6)
    remove[0]()
    remove[0]()
    mock_wise.rotate_secret()
    wise.refresh()
    until(lambda: len(seen) == 8)
    assert seen == [(name, number) for number, names in ((2, "fgg"), (3, "fgg"), (4, "fg"))
                    for name in ({"f": "failing", "g": "good"}[letter] for letter in names)]  # fmt: skip
    assert ("an on_rotate callback failed: ValueError" in caplog.text, "canary" in caplog.text) == (True, False)


def test_a_callback_that_takes_its_time_holds_nobody_up(mock_wise: MockWise, wise: Connection) -> None:
    """The next rotation goes on, and its news waits for its turn."""
    gate, numbers = threading.Event(), []

    def slow(generation: Generation) -> None:
        gate.wait(5)
        numbers.append(generation.number)

    wise.on_rotate(slow)
    for _ in range(2):
        mock_wise.rotate_secret()
        wise.refresh()
    assert (wise.current().number, numbers) == (3, [])
    gate.set()
    until(lambda: numbers == [2, 3])


# Draining


def test_an_answer_under_way_ends_on_the_old_generation_and_idle_connections_go_at_once(
    mock_wise: MockWise, wise: Connection
) -> None:
    """Also in a client that sends nothing any more."""
    with wise.client() as http, wise.client() as quiet:
        quiet.get("/v2/profiles")
        idle: Any = quiet._transport._pools._held  # type: ignore[attr-defined]
        with http.stream("GET", "/v2/profiles") as answer:
            busy: Any = http._transport._pools._held  # type: ignore[attr-defined]
            mock_wise.rotate_certificate()
            wise.refresh()
            assert (idle.pool._pool.connections, len(busy.pool._pool.connections)) == ([], 1)
            assert answer.read()
        assert busy.pool._pool.connections == []


def test_a_caller_that_never_reads_its_answer_keeps_the_old_generation_a_minute(mock_wise: MockWise) -> None:
    """Then its connection is closed."""
    clock = FakeClock(SYSTEM_CLOCK.wall())
    with connected(mock_wise, clock) as wise, wise.client() as http, http.stream("GET", "/v2/profiles"):
        busy: Any = http._transport._pools._held  # type: ignore[attr-defined]
        mock_wise.rotate_certificate()
        wise.refresh()
        clock.advance(30)
        assert len(busy.pool._pool.connections) == 1
        clock.advance(31)
        until(lambda: busy.pool._pool.connections == [])


def test_a_request_that_is_overtaken_by_a_swap_leaves_no_old_pool_behind(mock_wise: MockWise, wise: Connection) -> None:
    """It has its generation in hand already, and goes out on a pool of its own."""
    with wise.client() as http:
        pools: Any = http._transport._pools  # type: ignore[attr-defined]
        old = wise.current()
        mock_wise.rotate_certificate()
        wise.refresh()
        pinned = pools.pin(old)
        assert (pools._held, pools.retire(9)) == (None, 1)
        assert (pools.release(pinned) is pinned.pool, pools.retire(9)) == (True, 0)


def test_pools_of_an_event_loop_are_closed_in_it(mock_wise: MockWise, wise: Connection) -> None:
    """A swap that another thread makes; a loop that is gone by then needs nothing."""

    async def use() -> tuple[list[object], bytes]:
        async with wise.async_client() as idle, wise.async_client() as busy:
            await idle.get("/v2/profiles")
            held: Any = idle._transport._pools._held  # type: ignore[attr-defined]
            async with busy.stream("GET", "/v2/profiles") as answer:
                mock_wise.rotate_certificate()
                await wise.arefresh()
                body = await answer.aread()
            for _ in range(100):
                if not held.pool._pool.connections:
                    break
                await asyncio.sleep(0.01)
            return held.pool._pool.connections, body

    connections, body = asyncio.run(use())
    assert (connections, bool(body)) == ([], True)


def test_a_pool_of_an_event_loop_that_is_gone_is_dropped(mock_wise: MockWise, wise: Connection) -> None:
    """Nothing can be awaited there any more; its connections were closed with the loop."""
    client = wise.async_client(headers={"Connection": "close"})

    async def once() -> int:
        return (await client.get("/v2/profiles")).status_code

    assert asyncio.run(once()) == 200
    mock_wise.rotate_certificate()
    assert (wise.refresh(), asyncio.run(once())) == (True, 200)


def test_discard_ends_old_tokens_and_connections_at_once(mock_wise: MockWise, wise: Connection) -> None:
    """Even if nothing has changed in the store; users' access tokens go as well."""
    stored: list[Secret] = []
    users = wise.user(Secret(mock_wise.authorise()), store=stored.append)
    before, users_before = wise.current(), users.token()
    with wise.client() as http, http.stream("GET", "/v2/profiles"):
        busy: Any = http._transport._pools._held  # type: ignore[attr-defined]
        assert wise.refresh(discard=True)
        assert busy.pool._pool.connections == []
    assert (wise.current().number, users.token() is users_before) == (2, False)
    with pytest.raises(TokenError, match="WC513"):
        before.authorization()
    assert (asyncio.run(wise.arefresh(discard=True)), wise.current().number) == (True, 3)


# Watching


def test_the_watcher_starts_with_the_first_use_and_takes_over_what_is_new(mock_wise: MockWise) -> None:
    """No thread before that."""
    clock = FakeClock(SYSTEM_CLOCK.wall())
    table = {**mock_wise.table, "watch": 30}
    with wise_creds.connect("sandbox", config={"sandbox": table}, clock=clock) as wise:
        assert "wise-creds watch" not in names()
        clock.advance(2)
        wise.token()
        assert "wise-creds watch" in names()
        mock_wise.rotate_secret()
        clock.advance(23)
        assert wise.current().number == 1
        clock.advance(14)
        until(lambda: wise.current().number == 2)
    until(lambda: "wise-creds watch" not in names())


def names() -> list[str]:
    return [thread.name for thread in threading.enumerate()]


def test_watch_may_be_changed_and_ended(mock_wise: MockWise) -> None:
    """A shorter interval counts at once; what is no interval is refused."""
    clock = FakeClock(SYSTEM_CLOCK.wall())
    with connected(mock_wise, clock, watch=3600) as wise:
        for interval in (-1, float("inf"), float("nan")):
            with pytest.raises(wise_creds.ConfigError, match="WC112"):
                wise.watch(interval)
        wise.watch(10)
        mock_wise.rotate_secret()
        clock.advance(13)
        until(lambda: wise.current().number == 2)
        wise.watch(0)
        until(lambda: "wise-creds watch" not in names())
        mock_wise.rotate_secret()
        clock.advance(3600)
        wise._rotator.pulse()
        assert wise.current().number == 2


def test_the_interval_is_the_providers_unless_the_configuration_says_one(mock_wise: MockWise) -> None:
    """Files half a minute."""
    with wise_creds.connect("sandbox", config=mock_wise.config) as wise, connected(mock_wise, watch=7) as other:
        assert (wise._rotator.loader.interval(), other._rotator.loader.interval()) == (30.0, 7.0)


def test_a_process_that_was_frozen_looks_on_its_next_use(mock_wise: MockWise) -> None:
    """Its thread may not run for a while yet."""
    clock = FakeClock(SYSTEM_CLOCK.wall())
    with connected(mock_wise, clock) as wise:
        watch = wise._rotator.watch
        watch._interval, watch._watching = 30.0, True  # a thread that does not run
        watch._next()
        mock_wise.rotate_secret()
        wise.token()
        assert wise.current().number == 1
        clock.suspend(60)
        wise.token()
        until(lambda: wise.current().number == 2)


def test_a_forked_child_watches_again_from_its_first_use_on(mock_wise: MockWise) -> None:
    """As under gunicorn --preload."""
    with connected(mock_wise, watch=0.05) as wise:
        wise.current()
        until(lambda: "wise-creds watch" in names())
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:  # pragma: no cover  the child is not measured
            status = 1
            try:
                wise.token()
                os.write(writing, b"x")
                for _ in range(1000):
                    wise.token()
                    if wise.current().number == 2:
                        status = 0
                        break
                    threading.Event().wait(0.01)
            finally:
                os._exit(status)
        assert os.read(reading, 1) == b"x"
        mock_wise.rotate_secret()
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        until(lambda: wise.current().number == 2)
        os.close(reading)
        os.close(writing)


def test_a_closed_connection_watches_no_more(mock_wise: MockWise) -> None:
    """Whoever still has it in hand starts nothing."""
    wise = connected(mock_wise, watch=30)
    wise.close()
    until(lambda: "wise-creds watch" not in names())
    wise._rotator.pulse()
    assert "wise-creds watch" not in names()


def test_a_refusal_joins_a_refresh_that_is_under_way(mock_wise: MockWise, wise: Connection) -> None:
    """Two reasons to look, one look."""
    mock_wise.rotate_secret()
    mock_wise.state.delay = 0.2
    job = wise._rotator.start()
    refused = TokenRejectedError("refused", code="WC501")
    assert wise._rotator._looking_anew(wise.current(), refused) is job
    assert wise._rotator.moved_on(wise.current(), refused)


def test_a_child_leaves_its_parents_pools_to_the_parent(mock_wise: MockWise, wise: Connection) -> None:
    """A swap in the child closes nothing that the parent uses."""
    with wise.client() as http:
        http.get("/v2/profiles")
        pools: Any = http._transport._pools  # type: ignore[attr-defined]
        held, pools._pid = pools._held, 0
        mock_wise.rotate_certificate()
        wise.refresh()
        assert (len(held.pool._pool.connections), http.get("/v2/profiles").status_code) == (1, 200)
        held.pool.close()


def test_a_connection_that_nobody_holds_takes_its_watcher_with_it(mock_wise: MockWise) -> None:
    """Watching keeps nothing alive."""
    wise = connected(mock_wise, watch=0.02)
    wise.current()
    until(lambda: "wise-creds watch" in names())
    rotator = weakref.ref(wise._rotator)
    del wise
    until(lambda: gc.collect() >= 0 and rotator() is None and "wise-creds watch" not in names())


def test_rotations_leave_nothing_behind(mock_wise: MockWise, wise: Connection, tmp_path: Path) -> None:
    """No thread, no descriptor, no context."""
    with wise.client() as http:
        http.get("/v2/profiles")
        contexts = []
        threads, descriptors = len(names()), len(os.listdir("/proc/self/fd"))
        for kind in ("ec-p256", "ec-p384") * 3:
            contexts.append(weakref.ref(wise.current().ssl_context))
            mock_wise.rotate_certificate(kind)
            wise.refresh()
            http.get("/v2/profiles")

        def clean() -> bool:
            gc.collect()
            alive = [one for one in contexts if one() is not None]
            return (len(names()) <= threads, len(os.listdir("/proc/self/fd")) <= descriptors, alive) == (True, True, [])

        until(clean)
    assert _refresh.MAX_DRAIN == 60.0


# What a review found


def test_a_forked_child_takes_no_lock_of_its_parents_pools(mock_wise: MockWise, wise: Connection) -> None:
    """Another thread may have held it at the fork."""
    with wise.client() as http:
        http.get("/v2/profiles")
        pools: Any = http._transport._pools  # type: ignore[attr-defined]
        held, pools._pid = pools._held, 0
        with pools._lock:
            assert (pools.retire(9), pools.release(held), pools.take(), pools.end(9)) == (0, None, None, None)
        pools._pid = os.getpid()


def test_a_refresh_that_interrupts_another_ones_start_waits_for_nothing(wise: Connection) -> None:
    """As a signal handler does, in the thread that holds the lock."""
    with wise._rotator._lock:
        assert not wise.refresh()


def test_a_refresh_that_was_asked_for_sees_what_a_reading_under_way_has_missed(
    mock_wise: MockWise, wise: Connection
) -> None:
    """A promotion, then SIGHUP: joining an older reading would leave the new version for later."""
    mock_wise.rotate_secret(overlap=True)
    mock_wise.state.delay = 0.3
    job = wise._rotator.start()
    until(lambda: mock_wise.token_requests == 2)
    mock_wise.rotate_secret(overlap=True)
    assert (wise.refresh(), wise.current().number, job.value) == (True, 3, True)


def test_a_rejected_version_is_not_tried_at_wise_because_of_refusals(mock_wise: MockWise) -> None:
    """Before its time; whoever asks for a refresh gets one."""
    clock = FakeClock(SYSTEM_CLOCK.wall())
    with connected(mock_wise, clock) as wise:
        broken(mock_wise, "refused")
        refused = TokenRejectedError("refused", code="WC501")
        asked = []
        for seconds in (0, 11, 400):
            clock.advance(seconds)
            wise._rotator.moved_on(wise.current(), refused)
            asked.append(mock_wise.token_requests)
        with pytest.raises(TokenRejectedError):
            wise.refresh()
        assert (asked, mock_wise.token_requests) == ([2, 2, 3], 4)


def test_the_end_of_one_drain_leaves_what_was_replaced_later(mock_wise: MockWise, wise: Connection) -> None:
    """Its minute is not over."""
    with wise.client() as http:
        pools: Any = http._transport._pools  # type: ignore[attr-defined]
        with http.stream("GET", "/v2/profiles"):
            first = pools._held
            mock_wise.rotate_certificate()
            wise.refresh()
            with http.stream("GET", "/v2/profiles") as second:
                mock_wise.rotate_certificate()
                wise.refresh()
                wise._rotator._end(1)
                assert (first.pool._pool.connections, bool(second.read())) == ([], True)


def test_discard_wakes_a_call_that_waits_for_its_answer(mock_wise: MockWise, wise: Connection) -> None:
    """Closing a socket alone leaves a thread in recv() there."""
    with wise.client(timeout=None) as http:
        http.get("/v2/profiles")
        pools: Any = http._transport._pools  # type: ignore[attr-defined]
        pinned = pools.pin(wise.current())
        (one,) = pinned.sockets
        waiting = threading.Thread(target=lambda: one.recv(1))
        waiting.start()
        assert wise.refresh(discard=True)
        waiting.join(5)
        assert not waiting.is_alive()


def test_a_token_that_arrives_after_a_discard_is_not_used(mock_wise: MockWise, wise: Connection) -> None:
    """Whoever waited for it goes on with the new generation."""
    old = wise.current()
    old.cache.invalidate(wise.token())
    mock_wise.state.delay = 1.5
    with ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(wise.token)
        until(lambda: mock_wise.token_requests == 2)
        mock_wise.state.delay = 0.0
        wise.refresh(discard=True)
        token, cache = waiting.result(), wise.current().cache
        assert (cache._slots.shared is token or bool(cache._holders(token)), wise.current().number) == (True, 2)


def test_a_callback_that_exits_ends_nothing(mock_wise: MockWise, wise: Connection) -> None:
    """The others are told, and of later generations too."""
    wise.on_rotate(lambda _generation: sys.exit())
    numbers = told(wise)
    for _ in range(2):
        mock_wise.rotate_secret()
        wise.refresh()
    until(lambda: numbers == [2, 3])


def test_where_no_thread_can_be_started_a_valid_token_still_serves(
    mock_wise: MockWise, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Due as it is, and with a watcher that is not there; news waits for its turn."""
    clock = FakeClock(SYSTEM_CLOCK.wall())
    with connected(mock_wise, clock, watch=30) as wise, connected(mock_wise, clock, watch=30) as unwatched:
        numbers = told(wise)
        clock.advance(11 * 3600)

        def failing(_thread: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", failing)
            assert wise.authorization()
            assert unwatched.authorization()
            wise._rotator.listeners.tell(wise._rotator.generation)
        assert numbers == []
        mock_wise.rotate_secret()
        wise.refresh()
        until(lambda: numbers == [1, 2])
        unwatched.current()
        until(lambda: names().count("wise-creds watch") == 2)


@pytest.mark.parametrize("how", ["token", "authorization", "atoken"])
def test_a_users_token_too_leads_to_a_look_at_the_source(mock_wise: MockWise, wise: Connection, how: str) -> None:
    """When Wise refuses the partner's client."""
    users = wise.user(Secret(mock_wise.authorise()), store=lambda _secret: None)
    mock_wise.rotate_secret()
    calls: dict[str, Callable[[], object]] = {
        "token": users.token, "authorization": users.authorization, "atoken": lambda: asyncio.run(users.atoken())}  # fmt: skip
    assert calls[how]()
    assert wise.current().number == 2


def test_users_may_come_while_others_go(mock_wise: MockWise, wise: Connection) -> None:
    """A discard meets them all, and those that nobody holds any more are forgotten."""
    kept = [wise.user(Secret("x"), store=lambda _secret: None) for _ in range(3)]
    wise.user(Secret("y"), store=lambda _secret: None)
    gc.collect()
    assert wise._known_users() == kept
