"""connect, aconnect, load: what a service calls at startup."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

import pytest
from support import Material, leaks, write_fields

import wise_creds
from wise_creds import ConfigError, LoadError, NamespaceError, TokenError, TokenRejectedError
from wise_creds._quiet import Quiet
from wise_creds.testing import FakeClock, MockWise


def test_ten_lines_lead_from_a_folder_to_an_api_call(mock_wise: MockWise) -> None:
    """The whole way."""
    with wise_creds.connect("sandbox", config=mock_wise.config) as wise, wise.client() as http:
        assert http.get("/v2/profiles").json()[0]["type"] == "BUSINESS"
        assert (wise.namespace, wise.base_url, mock_wise.token_requests) == ("sandbox", mock_wise.base_url, 1)
        assert wise.authorization() == wise.token().authorization() == wise.current().authorization()


def test_config_and_namespace_may_come_from_the_environment(
    mock_wise: MockWise, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is guessed beyond that."""
    monkeypatch.setenv("WISE_CREDS_CONFIG", str(mock_wise.config))
    monkeypatch.setenv("WISE_CREDS_NAMESPACE", "sandbox")
    wise_creds.connect().close()
    monkeypatch.delenv("WISE_CREDS_NAMESPACE")
    with pytest.raises(ConfigError) as caught:
        wise_creds.connect()
    assert caught.value.code == "WC108"


def test_lazy_asks_wise_for_nothing(mock_wise: MockWise) -> None:
    """The first token comes with the first use."""
    with wise_creds.connect("sandbox", config=mock_wise.config, lazy=True) as wise:
        assert (mock_wise.requests, wise.status()["ready"]) == ([], False)
        wise.token()
        assert (len(mock_wise.requests), wise.status()["ready"]) == (1, True)


def test_the_first_token_error_comes_bare(mock_wise: MockWise) -> None:
    """Startup fails with what Wise said."""
    mock_wise.fail("invalid_client", times=2)
    with pytest.raises(TokenRejectedError) as caught:
        wise_creds.connect("sandbox", config=mock_wise.config)
    with pytest.raises(TokenRejectedError):
        asyncio.run(wise_creds.aconnect("sandbox", config=mock_wise.config))
    assert caught.value.code == "WC501"


def test_no_traceback_with_locals_shows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It holds more secrets than ours; an ordinary frame that holds `os.environ` is the control."""
    monkeypatch.setenv("OTHER_SECRET", "canary-of-another-library")
    canary = {"other": "canary-of-another-library"}

    def rendered(call: Any) -> str:
        with pytest.raises((wise_creds.WiseCredsError, KeyError)) as caught:
            call()
        return "".join(traceback.TracebackException.from_exception(caught.value, capture_locals=True).format())

    def naive() -> None:
        environ = os.environ
        raise KeyError(len(environ))

    for call in (
        wise_creds.connect,
        lambda: wise_creds.connect("prod"),
        lambda: wise_creds.load("sandbox"),
        lambda: wise_creds.load("sandbox", config={"sandbox": {"provider": "files", "directory": "${OTHER_SECRET}"}}),
        lambda: asyncio.run(wise_creds.aconnect("sandbox", config="nowhere.toml")),
        lambda: wise_creds.validate("prod"),
    ):
        assert leaks(canary, rendered(call)) == []
    assert leaks(canary, rendered(naive)) == ["other"]
    assert (dict(Quiet({"a": "b"})), repr(Quiet({"a": "b"}))) == ({"a": "b"}, "<1 values>")


def test_everything_wrong_with_a_load_comes_at_once(tmp_path: Path) -> None:
    """In a LoadError, from `load`, `connect` and `aconnect` alike."""
    write_fields(tmp_path / "s", {"client_id": " x", "environment": "production"})
    config: dict[str, Any] = {"sandbox": {"provider": "files", "directory": "s"}}
    for call in (
        lambda: wise_creds.load("sandbox", config=config),
        lambda: wise_creds.connect("sandbox", config=config),
        lambda: asyncio.run(wise_creds.aconnect("sandbox", config=config)),
    ):
        with pytest.raises(LoadError) as caught:
            call()
        assert [error.code for error in caught.value.errors] == ["WC206", "WC403", "WC401", "WC401", "WC401"]


def test_a_pair_that_openssl_refuses_is_a_load_error(mock_wise: MockWise, monkeypatch: pytest.MonkeyPatch) -> None:
    """The material check is not the last word."""
    monkeypatch.setattr("wise_creds.tls._MEMORY_WAYS", ())
    with pytest.raises(LoadError) as caught:
        wise_creds.connect("sandbox", config=mock_wise.config)
    assert caught.value.code == "WC430"


def test_aconnect_gives_the_same_connection(mock_wise: MockWise) -> None:
    """Without blocking the event loop."""

    async def use() -> tuple[str, int]:
        async with await wise_creds.aconnect("sandbox", config=mock_wise.config) as wise:
            assert await wise.aauthorization() == (await wise.atoken()).authorization()
            async with wise.async_client() as http:
                return wise.namespace, (await http.get("/v2/profiles")).status_code

    async def lazily() -> None:
        wise = await wise_creds.aconnect("sandbox", config=mock_wise.config, lazy=True)
        await wise.aclose()

    assert asyncio.run(use()) == ("sandbox", 200)
    before = mock_wise.token_requests
    asyncio.run(lazily())
    assert mock_wise.token_requests == before


def test_status_is_json_and_holds_no_secret(mock_wise: MockWise) -> None:
    """For readiness probes and metrics."""
    clock = FakeClock(wall=os.stat(mock_wise.config).st_mtime)  # noqa: PTH116
    with wise_creds.connect("sandbox", config=mock_wise.config, clock=clock) as wise:
        status = json.loads(json.dumps(wise.status()))
        assert list(status) == [
            "ready", "namespace", "generation", "version", "token_expires_in", "token_error", "certificate_not_after",
            "certificate_sha256", "ca_not_after", "source_checked_at", "source_error", "rejected",
        ]  # fmt: skip
        assert (status["ready"], status["generation"], status["token_expires_in"]) == (True, 1, 43_199)
        assert status["certificate_not_after"].endswith("Z")
        canaries = {"id": mock_wise.client_id, "secret": mock_wise.client_secret, "token": wise.token().reveal()}
        assert leaks(canaries, str(status), repr(wise), repr(wise.current())) == []
        clock.advance(40_000)
        mock_wise.fail("server_error")
        wise.token()
        renewal = wise.current().cache._renewal
        assert renewal is not None
        renewal._finished.wait(10)
        assert (wise.status()["token_error"], wise.status()["ready"]) == ("WC505", True)
        clock.advance(4_000)
        assert (wise.status()["ready"], wise.status()["token_expires_in"]) == (False, None)


def test_status_tells_a_scope_that_was_not_expected(mock_wise: MockWise) -> None:
    """More or fewer; an error of the last request comes first."""
    for expected, told in ((["transfers"], None), (["transfers", "balances"], "WC520"), ([], "WC520")):
        table = {**mock_wise.table, "expect_scope": expected}
        with wise_creds.connect("sandbox", config={"sandbox": table}) as wise:
            assert (wise.status()["token_error"], wise.status()["ready"]) == (told, True)


PRE_FORK = """
import os, sys, threading, wise_creds
wise = wise_creds.connect("sandbox", config=sys.argv[1])
http = wise.client()
assert http.get("/v2/profiles").status_code == 200
busy = threading.Thread(target=lambda: [http.get("/v2/profiles") for _ in range(20)])
busy.start()
workers = []
for _ in range(4):
    worker = os.fork()
    if worker == 0:
        codes = {http.get("/v2/profiles").status_code for _ in range(5)}
        os._exit(0 if codes == {200} and wise.status()["ready"] else 1)
    workers.append(worker)
assert [os.waitpid(worker, 0)[1] for worker in workers] == [0] * 4
busy.join()
assert http.get("/v2/profiles").status_code == 200
"""


@pytest.mark.parametrize("scope", ["thread", "process"])
def test_workers_forked_from_a_loaded_application_go_on_by_themselves(mock_wise: MockWise, scope: str) -> None:
    """As under a pre-forking server with the application preloaded: one token for each process, no failed call."""
    mock_wise.config.write_text(mock_wise.config.read_text() + f'token_scope = "{scope}"\n')
    arguments = [sys.executable, "-W", "ignore", "-c", PRE_FORK, str(mock_wise.config)]
    subprocess.run(arguments, check=True, timeout=60)
    assert mock_wise.token_requests == {"process": 5, "thread": 6}[scope]


def test_a_connection_that_is_closed_says_so(mock_wise: MockWise) -> None:
    """Tokens and clients alike."""
    wise = wise_creds.connect("sandbox", config=mock_wise.config)
    http = wise.client()
    wise.close()
    with pytest.raises(TokenError) as caught:
        wise.token()
    with pytest.raises(TokenError):
        http.get("/v2/profiles")
    http.close()
    assert caught.value.code == "WC513"


def test_warnings_of_a_load_are_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """And mere information is not louder than that."""
    caplog.set_level(logging.INFO, "wise_creds")
    material = Material()
    write_fields(tmp_path / "s", {k: v for k, v in material.fields.items() if k not in ("ca_bundle", "environment")})
    wise_creds.load("production", config={"production": {"provider": "files", "directory": "s"}})
    assert [(record.levelname, record.message[:5]) for record in caplog.records] == [
        ("WARNING", "WC208"), ("INFO", "WC426"),
    ]  # fmt: skip


def test_production_never_talks_to_a_sandbox_stand_in(mock_wise: MockWise) -> None:
    """Loopback is sandbox's, unless it is allowed by name; the secret is marked as well."""
    with pytest.raises(LoadError) as caught:
        wise_creds.connect("production", config={"production": mock_wise.table})
    assert [error.code for error in caught.value.errors] == ["WC202"]
    assert isinstance(caught.value.errors[0], NamespaceError)
    with pytest.raises(LoadError) as caught:
        wise_creds.connect("production", config={"production": {**mock_wise.table, "allow_hosts": ["127.0.0.1"]}})
    assert [error.code for error in caught.value.errors] == ["WC206"]
    assert mock_wise.requests == []
    (mock_wise.directory / "environment").write_text("production\n")
    table = {**mock_wise.table, "allow_hosts": ["127.0.0.1"]}
    with wise_creds.connect("production", config={"production": table}) as wise:
        assert wise.namespace == "production"


def test_a_personal_token_is_a_static_bearer(tmp_path: Path) -> None:
    """No token request at all."""
    write_fields(tmp_path / "s", {"personal_token": "canary-personal-token\n"})
    with MockWise(mtls=False) as plain:
        plain.state.tokens["canary-personal-token"] = 2e10
        table = {
            "provider": "files",
            "directory": "s",
            "base_url": plain.base_url,
            "grant": "personal_token",
            "mtls": "off",
        }
        with wise_creds.connect("sandbox", config={"sandbox": table}) as wise, wise.client() as http:
            assert http.get("/v2/profiles").status_code == 200
            assert plain.token_requests == 0
            assert wise.status()["certificate_not_after"] is None
        fetcher = wise_creds.TokenFetcher(wise.current().credentials, base_url="https://api.wise-sandbox.com")
        assert fetcher.authorization() == "Bearer canary-personal-token"


@pytest.mark.parametrize("name", ["client_id", "client_secret", "private_key"])
def test_docker_secrets_and_systemd_credentials_work_as_they_are(
    mock_wise: MockWise, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`$CREDENTIALS_DIRECTORY` in the configuration."""
    for path in mock_wise.directory.iterdir():
        path.chmod(0o440)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(mock_wise.directory))
    (mock_wise.directory / "environment").unlink()
    table = {**mock_wise.table, "directory": "${CREDENTIALS_DIRECTORY}", "allow_hosts": ["127.0.0.1"]}
    made = wise_creds.load("production", config={"production": table})
    assert getattr(made, name) is not None
