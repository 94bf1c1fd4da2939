"""Users who have authorised the partner: refresh tokens in, access tokens out, the new refresh token stored first."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs

import pytest
from support import leaks, until

import wise_creds
from wise_creds import ConfigError, Connection, CredentialsError, Secret, TokenRejectedError, TokenUnavailableError
from wise_creds._engine import Job
from wise_creds._user import UserGrant
from wise_creds.clock import SYSTEM_CLOCK
from wise_creds.testing import FakeClock, MockWise
from wise_creds.token import Token

BACK = "https://partner.example/back"


def finished_call(call: Callable[[Job[Any]], Token]) -> Token:
    job: Job[Token] = Job(call, name="test")
    outcome = job.wait(SYSTEM_CLOCK, SYSTEM_CLOCK.boot() + 10)
    assert outcome is not None
    return outcome.unwrap()


class Shelf:
    """Where a partner keeps a user's refresh token; it can be made to fail."""

    def __init__(self, *, broken: bool = False) -> None:
        self.offered: list[str] = []
        self.broken = broken

    def __call__(self, refresh_token: Secret) -> None:
        self.offered.append(refresh_token.reveal())
        if self.broken:
            raise OSError(28, refresh_token.reveal())

    @property
    def kept(self) -> str:
        return self.offered[-1]


def connected(wise: MockWise, **table: Any) -> Connection:
    return wise_creds.connect("sandbox", config={"sandbox": {**wise.table, "deadline": 2.0, **table}}, lazy=True)


def test_a_users_token_comes_for_the_refresh_token(mock_wise: MockWise) -> None:
    """One request for any number of calls, whatever the thread; the new refresh token is stored."""
    shelf = Shelf()
    with connected(mock_wise) as wise:
        user = wise.user(Secret(mock_wise.authorise()), store=shelf)
        headers = {user.authorization(), user.token().authorization(), asyncio.run(user.aauthorization())}
        thread = threading.Thread(target=lambda: headers.add(user.authorization()))
        thread.start()
        thread.join()
        assert headers == {f"Bearer {token}" for token in mock_wise.state.tokens}
        assert ([shelf.kept], mock_wise.token_requests) == (list(mock_wise.state.refresh_tokens), 1)
        assert parse_qs(mock_wise.requests[0].body.decode())["grant_type"] == ["refresh_token"]


def test_the_next_refresh_uses_the_newest_refresh_token(mock_wise: MockWise) -> None:
    """It never goes back to the one it was given."""
    shelf, clock = Shelf(), FakeClock()
    with wise_creds.connect("sandbox", config=mock_wise.config, lazy=True, clock=clock) as wise:
        user = wise.user(Secret(mock_wise.authorise()), store=shelf)
        first = user.token()
        clock.advance(50_000)
        assert user.token() != first
        assert (len(shelf.offered), mock_wise.token_requests, [shelf.kept]) == (
            2,
            2,
            list(mock_wise.state.refresh_tokens),
        )


@pytest.mark.parametrize("kind", ["field", "callable"])
def test_the_refresh_token_may_be_a_field_or_a_callable(mock_wise: MockWise, kind: str) -> None:
    """It is read when it is needed."""
    given = mock_wise.authorise()
    field = mock_wise.directory / "refresh_token_of_jo"
    field.touch(mode=0o600)
    field.write_text(given)
    source: Any = field.name if kind == "field" else lambda: Secret(given)
    with connected(mock_wise) as wise:
        assert wise.user(source, store=Shelf()).token().remaining() > 0


def test_a_source_that_fails_is_named(mock_wise: MockWise) -> None:
    """A field that is not there, a callable that raises, one that gives something else."""

    def broken() -> Secret:
        raise LookupError("canary-refresh-77")

    with connected(mock_wise, deadline=0.2) as wise:
        with pytest.raises(CredentialsError) as missing:
            wise.user("refresh_token_of_jo", store=Shelf()).token()
        with pytest.raises(TokenUnavailableError) as raised:
            wise.user(broken, store=Shelf()).token()
        with pytest.raises(TokenUnavailableError) as other:
            wise.user(lambda: "plain", store=Shelf()).token()  # type: ignore[arg-type,return-value]
    assert (missing.value.code, missing.value.location) == ("WC401", "refresh_token_of_jo")
    assert [raised.value.code, other.value.code] == ["WC516"] * 2
    assert raised.value.message.startswith("the user's refresh token cannot be read: LookupError at test_user.py:")


def test_no_access_token_is_used_before_its_refresh_token_is_stored(mock_wise: MockWise) -> None:
    """A store that fails is offered the same again, and no second request is made for that."""
    shelf = Shelf(broken=True)
    given = mock_wise.authorise()
    with connected(mock_wise, deadline=0.2) as wise:
        user = wise.user(Secret(given), store=shelf)
        with pytest.raises(TokenUnavailableError) as caught:
            user.token()
        with pytest.raises(TokenUnavailableError):
            asyncio.run(user.atoken())
        shelf.broken = False
        assert user.token().remaining() > 0
        assert (len(shelf.offered) >= 3, len(set(shelf.offered)), mock_wise.token_requests) == (True, 1, 1)
    assert (caught.value.code, leaks({"old": given, "new": shelf.kept}, str(caught.value), repr(caught.value))) == (
        "WC517",
        [],
    )


def test_the_control_an_exception_of_the_store_would_leak() -> None:
    """What the store raises holds the token, and the detector sees it."""
    shelf = Shelf(broken=True)
    with pytest.raises(OSError, match="canary") as caught:
        shelf(Secret("canary-refresh-token"))
    assert leaks({"new": "canary-refresh-token"}, caught.value) == ["new"]


def test_a_store_that_works_again_after_the_token_has_ended_costs_one_more_request(mock_wise: MockWise) -> None:
    """With the refresh token that was kept in memory meanwhile."""
    shelf, clock = Shelf(broken=True), FakeClock()
    mock_wise.state.token_life = 60
    with wise_creds.connect("sandbox", config=mock_wise.config, lazy=True, clock=clock) as wise:
        user = wise.user(Secret(mock_wise.authorise()), store=shelf)
        failed = []

        def work() -> None:
            with pytest.raises(TokenUnavailableError) as caught:
                user.token()
            failed.append(caught.value.code)

        thread = threading.Thread(target=work)
        thread.start()
        until(lambda: bool(shelf.offered))
        shelf.broken = False
        clock.advance(61)
        thread.join()
        assert failed == ["WC517"]
        assert user.token().remaining() == 60
        assert (len(set(shelf.offered)), mock_wise.token_requests) == (2, 2)


def test_a_revoked_refresh_token_wants_the_user_again(mock_wise: MockWise) -> None:
    """And the source is read anew the next time, for the user may have authorised meanwhile."""
    held = ["revoked"]
    with connected(mock_wise) as wise:
        user = wise.user(lambda: Secret(held[0]), store=Shelf())
        with pytest.raises(TokenRejectedError) as caught:
            user.token()
        held[0] = mock_wise.authorise()
        user.token()
        mock_wise.state.refresh_tokens.clear()
        mock_wise.expire_tokens()
        held[0] = mock_wise.authorise()
        with user.client() as http:
            with pytest.raises(TokenRejectedError):
                http.get("/v2/profiles")
            assert http.get("/v2/profiles").status_code == 200
    assert (caught.value.code, caught.value.message, caught.value.retryable) == (
        "WC515",
        "Wise refuses the user's grant (400 invalid_grant)",
        False,
    )


def test_a_code_is_exchanged_once(mock_wise: MockWise) -> None:
    """At once, because it does not live long; later the refresh token serves."""
    shelf, clock = Shelf(), FakeClock()
    with wise_creds.connect("sandbox", config=mock_wise.config, lazy=True, clock=clock) as wise:
        code = mock_wise.authorise(BACK)
        user = wise.exchange_code(code, redirect_uri=BACK, store=shelf)
        assert (mock_wise.token_requests, len(shelf.offered)) == (1, 1)
        clock.advance(50_000)
        user.token()
        assert (mock_wise.token_requests, len(shelf.offered)) == (2, 2)
        with pytest.raises(TokenRejectedError) as caught:
            wise.exchange_code(Secret(code), redirect_uri=BACK, store=shelf)
    assert (caught.value.code, leaks({"code": code}, caught.value)) == ("WC515", [])


def test_a_store_that_fails_at_the_exchange_loses_nothing(
    mock_wise: MockWise, caplog: pytest.LogCaptureFixture
) -> None:
    """The code is used up by then, so the tokens come back all the same, and the store is offered them again."""
    shelf = Shelf(broken=True)
    with connected(mock_wise, deadline=0.2) as wise:
        user = wise.exchange_code(mock_wise.authorise(BACK), redirect_uri=BACK, store=shelf)
        shelf.broken = False
        assert user.token().remaining() > 0
    assert ("WC517" in caplog.text, mock_wise.token_requests, leaks({"new": shelf.kept}, caplog.text)) == (True, 1, [])


def test_without_a_refresh_token_the_exchange_holds_as_long_as_its_token(
    mock_wise: MockWise, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then the user is needed again."""
    from wise_creds.testing._server import Handler

    monkeypatch.setattr(Handler, "_user", lambda self, *_: self._json(200, self.token_answer()))
    clock = FakeClock()
    with wise_creds.connect("sandbox", config=mock_wise.config, lazy=True, clock=clock) as wise:
        user = wise.exchange_code(mock_wise.authorise(BACK), redirect_uri=BACK, store=Shelf())
        clock.advance(50_000)
        with pytest.raises(TokenRejectedError) as caught:
            user.token()
    assert (caught.value.code, caught.value.message) == ("WC515", "no refresh token came with the code")


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_users_client_calls_for_the_user(mock_wise: MockWise, kind: str) -> None:
    """Guarded and following 401s, as the partner's own."""
    shelf = Shelf()

    async def asked(make: Callable[[], Any]) -> int:
        async with make() as http:
            code: int = (await http.get("/v2/profiles")).status_code
            return code

    with connected(mock_wise) as wise:
        user = wise.user(Secret(mock_wise.authorise()), store=shelf)
        user.token()
        mock_wise.expire_tokens()
        if kind == "sync":
            with user.client() as http:
                assert http.get("/v2/profiles").status_code == 200
        else:
            assert asyncio.run(asked(user.async_client)) == 200
        assert (len(shelf.offered), mock_wise.token_requests) == (2, 2)


def test_requests_for_one_user_never_overlap(mock_wise: MockWise) -> None:
    """A caller whose token ends while it is being renewed gets the renewed one; each refresh token is sent once."""
    clock, shelf = FakeClock(), Shelf()
    with wise_creds.connect("sandbox", config=mock_wise.config, lazy=True, clock=clock) as wise:
        user = wise.user(Secret(mock_wise.authorise()), store=shelf)
        user.token()
        mock_wise.state.delay = 0.3
        clock.advance(40_000)
        user.token()
        until(lambda: mock_wise.token_requests == 2)
        clock.advance(5_000)
        renewed = user.token()
        assert (mock_wise.token_requests, len(shelf.offered)) == (2, 2)
        assert {renewed.reveal()} == set(mock_wise.state.tokens)


@pytest.mark.skipif(sys.platform == "win32", reason="no fork")
def test_a_forked_child_does_not_wait_for_its_parents_threads(mock_wise: MockWise) -> None:
    """A refresh was under way in the parent, and its lock was held."""
    with connected(mock_wise, deadline=5.0) as wise:
        user = wise.user(lambda: Secret(mock_wise.authorise()), store=Shelf())
        mock_wise.state.delay = 1.0
        thread = threading.Thread(target=user.token)
        thread.start()
        until(lambda: mock_wise.token_requests == 1)
        child = os.fork()
        if not child:  # pragma: no cover  in the child, where nothing measures
            try:
                user.token()
            except TokenRejectedError:  # what the child authorises, the server, which lives in the parent, never hears
                os._exit(7)
            except BaseException:
                os._exit(9)
            os._exit(0)
        thread.join()
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_a_lock_out_of_another_process_is_not_waited_for(mock_wise: MockWise) -> None:
    """What the test before sees from outside."""
    with connected(mock_wise) as wise:
        grant = UserGrant(wise.current, Secret(mock_wise.authorise()), Shelf())
        grant._lock.acquire()
        grant._pid = 0
        token = finished_call(lambda job: grant(job, SYSTEM_CLOCK.boot() + 5))
    assert token.remaining() > 0


def test_a_closed_connection_closes_its_users(mock_wise: MockWise) -> None:
    """And a user can be closed alone."""
    with connected(mock_wise) as wise:
        alone, user = (wise.user(Secret(mock_wise.authorise()), store=Shelf()) for _ in range(2))
        alone.close()
        with pytest.raises(TokenUnavailableError) as first:
            alone.token()
        user.token()
    with pytest.raises(TokenUnavailableError) as second:
        user.authorization()
    assert [first.value.code, second.value.code] == ["WC513"] * 2


def test_a_personal_token_has_no_users(mock_wise: MockWise) -> None:
    """It is somebody's already."""
    secret = mock_wise.root / "personal"
    secret.mkdir(mode=0o700)
    (secret / "personal_token").touch(mode=0o600)
    (secret / "personal_token").write_text("personal-token-1")
    table = {"provider": "files", "directory": str(secret), "grant": "personal_token"}
    with wise_creds.connect("sandbox", config={"sandbox": table}, lazy=True) as wise:
        with pytest.raises(ConfigError) as caught:
            wise.user(Secret("x"), store=Shelf())
        with pytest.raises(ConfigError):
            wise.exchange_code("x", redirect_uri=BACK, store=Shelf())
    assert caught.value.code == "WC112"
