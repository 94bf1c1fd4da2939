"""The httpx clients: guarded, following 401s, and never showing the bearer."""

from __future__ import annotations

import asyncio
import gc
import io
import json
import logging
import pickle
import socket
import ssl
import threading
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any

import httpx
import pytest
from support import leaks, tcp_server, until

import wise_creds
from wise_creds import ConfigError, Connection, NamespaceError
from wise_creds.testing import MockWise, Recorded
from wise_creds.testing._server import Handler, Server, State


def connected(wise: MockWise, **table: Any) -> Connection:
    return wise_creds.connect("sandbox", config={"sandbox": {**wise.table, **table}})


def bearer(wise: MockWise) -> dict[str, str]:
    return {f"token {number}": token for number, token in enumerate(wise.state.tokens)}


class _Elsewhere(Handler):
    """An HTTPS server that is not Wise; it accepts any client, and redirects where its path says."""

    def do_GET(self) -> None:
        der = self.connection.getpeercert(True) if isinstance(self.connection, ssl.SSLSocket) else None
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.state.requests.append(Recorded("GET", self.path, headers, b"", "seen" if der else None))
        self.answer(200, "text/plain", b"elsewhere")


@contextmanager
def elsewhere(wise: MockWise) -> Iterator[Server]:
    """A foreign server with a certificate that we would trust, so that only the guard stands between."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    from wise_creds.tls import load_pair

    issued = wise.authority.server()
    load_pair(context, issued.pem, issued.key_pem)
    context.verify_mode = ssl.CERT_OPTIONAL
    context.load_verify_locations(cadata=wise.authority.issued.pem.decode())
    server = Server(State("x", []), context)
    server.RequestHandlerClass = _Elsewhere
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.stop()
        thread.join(10)


def test_a_request_carries_certificate_and_bearer_and_shows_neither(mock_wise: MockWise) -> None:
    """The server sees both; the caller's request, response and hooks see no bearer."""
    shown: list[object] = []

    def look(it: Any) -> None:
        shown.extend([vars(it), it.headers.raw, pickle.dumps(it)] if isinstance(it, httpx.Request) else [vars(it)])

    with connected(mock_wise) as wise, wise.client(event_hooks={"request": [look], "response": [look]}) as http:
        answer = http.post("/v3/quotes", json={"a": 1})
    seen = mock_wise.requests[-1]
    assert seen.headers["authorization"].removeprefix("Bearer ") in mock_wise.state.tokens
    assert seen.certificate_sha256 == wise.status()["certificate_sha256"]
    assert (seen.body, answer.json()["received"]) == (b'{"a":1}', 7)
    shown += [repr(answer.request.headers), answer.request.headers.raw, vars(answer), answer.extensions]
    assert leaks(bearer(mock_wise), *shown) == []


def test_a_plain_auth_class_is_caught_by_the_same_look(mock_wise: MockWise) -> None:
    """The control: the usual httpx.Auth puts the bearer on the caller's request, and so does our `.auth`."""
    with connected(mock_wise) as wise:
        context = wise.current().ssl_context
        with httpx.Client(auth=wise.auth, verify=context, base_url=wise.base_url, trust_env=False) as http:
            request = http.get("/v2/profiles").request
    assert leaks(bearer(mock_wise), request.headers.raw) == ["token 0"]


def _nothing(handler: Handler, _body: bytes) -> None:
    handler.drop()


def _garbage(handler: Handler, _body: bytes) -> None:
    handler.wfile.write(b"canary-garbage\r\n\r\n")


@pytest.mark.parametrize("failure", ["refused", "reset", "garbage", "bad header"])
def test_no_exception_shows_the_bearer(mock_wise: MockWise, failure: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Httpx's own class and the caller's own request, without the frames that held the private one."""
    headers = {"X-Bad": "a\nb"} if failure == "bad header" else {}
    with connected(mock_wise) as wise, wise.client() as http:
        if failure == "refused":
            mock_wise._server.stop()
        if failure in ("reset", "garbage"):
            monkeypatch.setattr(Handler, "_api", _nothing if failure == "reset" else _garbage)
        with pytest.raises(httpx.TransportError) as caught:
            http.get("/v2/profiles", headers=headers)
    error = caught.value
    rendered = "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
    assert leaks(bearer(mock_wise), rendered) == []
    assert leaks({"garbage": "canary-garbage"}, str(error)) == []
    assert (error.request.url.path, error.__cause__, error.__context__) == ("/v2/profiles", None, None)


def test_the_same_failure_without_us_shows_the_bearer(mock_wise: MockWise, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: in a plain client the frames below the exception hold it."""
    monkeypatch.setattr(Handler, "_api", _nothing)
    with connected(mock_wise) as wise:
        context, header = wise.current().ssl_context, {"Authorization": wise.authorization()}
        with (
            httpx.Client(verify=context, headers=header, trust_env=False) as http,
            pytest.raises(httpx.TransportError) as caught,
        ):
            http.get(f"{wise.base_url}/v2/profiles")
    rendered = "".join(traceback.TracebackException.from_exception(caught.value, capture_locals=True).format())
    assert leaks(bearer(mock_wise), rendered) == ["token 0"]


FOREIGN: dict[str, Callable[[str, int], str]] = {
    "absolute URL": lambda _base, port: f"https://127.0.0.1:{port}/x",
    "another name of the same machine": lambda _base, port: f"https://localhost:{port}/x",
    "plain http": lambda base, _port: base.replace("https", "http") + "/x",
    "user name": lambda base, _port: base.replace("https://", "https://user:pass@") + "/v2/profiles",
    "the other namespace": lambda _base, _port: "https://api-mtls.transferwise.com/v2/profiles",
}


@pytest.mark.parametrize("name", FOREIGN)
def test_nothing_leaves_the_namespace(mock_wise: MockWise, name: str) -> None:
    """Neither token nor certificate, in sync and async alike; not even a name is resolved."""
    with elsewhere(mock_wise) as other, connected(mock_wise) as wise:
        url = FOREIGN[name](mock_wise.base_url, other.server_port)
        before = len(mock_wise.requests)
        with wise.client() as http, pytest.raises(NamespaceError) as caught:
            http.get(url)

        async def asynchronously() -> None:
            async with wise.async_client() as http:
                await http.get(url)

        with pytest.raises(NamespaceError):
            asyncio.run(asynchronously())
        with httpx.Client(auth=wise.auth, trust_env=False) as own, pytest.raises(NamespaceError):
            own.get(url)
        assert caught.value.code == "WC205"
        assert (other.state.requests, len(mock_wise.requests)) == ([], before)


def test_a_scheme_relative_url_stays_with_us(mock_wise: MockWise) -> None:
    """Httpx reads `//host/path` as a path below base_url: the host named gets nothing."""
    with elsewhere(mock_wise) as other, connected(mock_wise) as wise, wise.client() as http:
        assert http.get(f"//127.0.0.1:{other.server_port}/x").status_code == 404
        assert (other.state.requests, mock_wise.requests[-1].path) == ([], "/x")


def test_a_redirect_to_a_foreign_host_is_refused(mock_wise: MockWise, monkeypatch: pytest.MonkeyPatch) -> None:
    """A redirect within the namespace is followed with the bearer, one that leaves it is not followed at all."""
    target: list[str] = []

    def redirecting(self: Handler, body: bytes) -> None:
        if self.path == "/moved":
            self.answer(307, "text/plain", b"", Location=target[0])
        else:
            self.answer(200, "text/plain", b"here")

    monkeypatch.setattr(Handler, "_api", redirecting)
    with elsewhere(mock_wise) as other, connected(mock_wise) as wise, wise.client(follow_redirects=True) as http:
        target.append("/v2/profiles")
        assert http.get("/moved").text == "here"
        for prefix in ("https:", ""):
            target[0] = f"{prefix}//127.0.0.1:{other.server_port}/x"
            with pytest.raises(NamespaceError):
                http.get("/moved")
        assert other.state.requests == []


def test_an_allowed_host_gets_both(mock_wise: MockWise) -> None:
    """On any port; that is what allow_hosts is for."""
    with (
        elsewhere(mock_wise) as other,
        connected(mock_wise, allow_hosts=["localhost"]) as wise,
        wise.client() as http,
    ):
        http.get(f"https://localhost:{other.server_port}/x")
        (request,) = other.state.requests
        assert (request.certificate_sha256, request.headers["authorization"][:7]) == ("seen", "Bearer ")


@pytest.mark.parametrize("name", ["verify", "cert", "transport", "mounts", "auth", "base_url", "proxy", "trust_env"])
def test_what_is_ours_is_refused(mock_wise: MockWise, name: str) -> None:
    """A client with its own transport would send the token anywhere."""
    with connected(mock_wise) as wise:
        for make in (wise.client, wise.async_client):
            with pytest.raises(ConfigError) as caught:
                make(**{name: None})
            assert (caught.value.code, name in str(caught.value)) == ("WC112", True)


def test_httpx_options_reach_the_client_and_its_pool(mock_wise: MockWise) -> None:
    """Headers and timeouts are the client's, HTTP/2 and limits the pool's."""
    with connected(mock_wise) as wise:
        limits = httpx.Limits(max_keepalive_connections=0)
        with wise.client(headers={"X-Mine": "1"}, timeout=3, http2=True, limits=limits) as http:
            http.get("/v2/profiles")
            assert (http.timeout.read, mock_wise.requests[-1].headers["x-mine"]) == (3, "1")
            assert http.trust_env is False


def test_a_401_renews_the_token_and_sends_once_more(mock_wise: MockWise) -> None:
    """If the body can be sent again."""
    with connected(mock_wise) as wise, wise.client() as http:
        mock_wise.expire_tokens()
        assert http.post("/v3/quotes", json={}).status_code == 200
        assert (mock_wise.token_requests, len(mock_wise.requests)) == (2, 4)


def test_a_second_401_goes_to_the_caller(mock_wise: MockWise, monkeypatch: pytest.MonkeyPatch) -> None:
    """And within ten seconds no further token is asked for."""
    monkeypatch.setattr(Handler, "_valid", lambda self: set())
    with connected(mock_wise) as wise, wise.client() as http:
        assert [http.get("/v2/profiles").status_code for _ in range(3)] == [401] * 3
        assert (mock_wise.token_requests, len(mock_wise.requests)) == (2, 6)


@pytest.mark.parametrize("scope", ["thread", "process"])
def test_a_hundred_401s_at_once_make_one_refresh(mock_wise: MockWise, scope: str) -> None:
    """All of them are answered in the end, whoever holds which token."""
    with connected(mock_wise, token_scope=scope) as wise, wise.client() as http:
        together, codes = threading.Barrier(100), []

        def work() -> None:
            http.get("/v2/profiles")
            if together.wait(30) == 0:
                mock_wise.expire_tokens()
                mock_wise.requests.clear()
                mock_wise.state.delay = 0.2
            together.wait(30)
            codes.extend([http.get("/v2/profiles").status_code, http.get("/v2/profiles").status_code])

        threads = [threading.Thread(target=work) for _ in range(100)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert (codes, mock_wise.token_requests) == ([200] * 200, 1)


def test_a_refusal_whose_renewal_fails_goes_to_the_caller(mock_wise: MockWise) -> None:
    """Also in the other threads, for ten seconds: no storm on the token endpoint."""
    with connected(mock_wise) as wise, wise.client() as http:
        got: list[object] = []

        def other(ready: threading.Barrier) -> None:
            wise.token()
            ready.wait(10)
            ready.wait(10)
            got.append(http.get("/v2/profiles").status_code)

        ready = threading.Barrier(2)
        thread = threading.Thread(target=other, args=(ready,))
        thread.start()
        ready.wait(10)
        mock_wise.expire_tokens()
        mock_wise.fail("invalid_client", times=9)
        kept = wise.token()
        cache = wise.current().cache
        assert cache.refused(kept)
        until(lambda: cache._replaced is not None and cache._replaced.job is not None and cache._replaced.job.done)
        ready.wait(10)
        thread.join(10)
        assert (got, mock_wise.token_requests) == ([401], 3)


def _streams() -> dict[str, dict[str, Any]]:
    def generator() -> Iterator[bytes]:
        yield b"once"

    return {
        "generator": {"content": generator()},
        "iterator": {"content": iter([b"once"])},
        "file": {"content": io.BytesIO(b"once")},
        "multipart file": {"files": {"document": io.BytesIO(b"once")}},
    }


@pytest.mark.parametrize("kind", list(_streams()))
def test_a_streamed_body_is_not_sent_twice(mock_wise: MockWise, kind: str) -> None:
    """It is used up, or may be: the 401 goes to the caller."""
    with connected(mock_wise) as wise, wise.client() as http:
        mock_wise.expire_tokens()
        assert http.post("/v3/quotes", **_streams()[kind]).status_code == 401
        assert (mock_wise.token_requests, len(mock_wise.requests)) == (1, 2)


@pytest.mark.parametrize("body", [{"json": {}}, {"data": {"a": "1"}}, {"content": b"x"}, {}], ids=str)
def test_a_body_in_memory_is_sent_twice(mock_wise: MockWise, body: dict[str, Any]) -> None:
    """Whole, and the same."""
    with connected(mock_wise) as wise, wise.client() as http:
        mock_wise.expire_tokens()
        assert http.post("/v3/quotes", **body).status_code == 200
        first, _, second = mock_wise.requests[-3:]
        assert (first.path, first.body) == (second.path, second.body)


def test_a_failing_body_raises_the_callers_own_exception(mock_wise: MockWise) -> None:
    """It is none of ours to translate."""

    def body() -> Iterator[bytes]:
        yield b"x"
        raise KeyError("the caller's own")

    with connected(mock_wise) as wise, wise.client() as http, pytest.raises(KeyError, match="the caller's own"):
        http.post("/v3/quotes", content=body())


def test_hpack_and_httpcore_say_nothing(mock_wise: MockWise, caplog: pytest.LogCaptureFixture) -> None:
    """Their DEBUG records hold headers, Huffman-coded ones too; httpx's INFO line about the caller's URL stays."""
    caplog.set_level(logging.DEBUG)
    with connected(mock_wise) as wise, wise.client() as http:
        http.get("/v2/profiles")
    names = {record.name for record in caplog.records}
    assert "httpx" in names
    assert not {name for name in names if name.startswith(("hpack", "httpcore.http"))}


def test_a_streamed_answer_ends_on_its_own_connection(mock_wise: MockWise, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read, closed, and closed twice."""
    with connected(mock_wise) as wise, wise.client() as http:
        with http.stream("GET", "/v2/profiles") as answer:
            assert json.loads(b"".join(answer.iter_bytes()))
            stream: Any = answer.stream
            stream.close()
        transport: Any = http._transport
        assert transport._pools._held.in_flight == 0


def test_an_answer_that_breaks_off_is_an_httpx_error(mock_wise: MockWise, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sync and async; nothing stays pinned."""

    def short(self: Handler, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        self.wfile.write(b"part")
        self.close_connection = True

    monkeypatch.setattr(Handler, "_api", short)
    with connected(mock_wise) as wise:
        with wise.client() as http, pytest.raises(httpx.RemoteProtocolError) as caught:
            http.get("/v2/profiles")

        async def asynchronously() -> None:
            async with wise.async_client() as http:
                await http.get("/v2/profiles")

        with pytest.raises(httpx.RemoteProtocolError):
            asyncio.run(asynchronously())
    assert str(caught.value) == "RemoteProtocolError"


# asyncio complains of the first loop's connection, which its owner left open when that loop ended.
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_the_async_client_does_the_same(mock_wise: MockWise) -> None:
    """Bearer, certificate, 401, streaming; in one event loop after the other."""
    wise = connected(mock_wise)
    http = wise.async_client()

    async def use() -> list[int]:
        codes = [(await http.get("/v2/profiles")).status_code]
        mock_wise.expire_tokens()
        codes.append((await http.post("/v3/quotes", json={})).status_code)

        async def body() -> AsyncIterator[bytes]:
            yield b"once"

        mock_wise.expire_tokens()
        codes.append((await http.post("/v3/quotes", content=body())).status_code)
        wise.current().cache.invalidate(wise.token())
        async with http.stream("GET", "/v2/profiles") as answer:
            codes.append(answer.status_code)
            await answer.aread()
            stream: Any = answer.stream
            await stream.aclose()
        return codes

    assert asyncio.run(use()) == [200, 200, 401, 200]

    async def again() -> int:
        try:
            return (await http.get("/v2/profiles")).status_code
        finally:
            await http.aclose()
            await http.aclose()

    assert asyncio.run(again()) == 200
    gc.collect()
    assert leaks(bearer(mock_wise), vars(http), http.headers.raw) == []
    wise.close()


def test_a_failing_async_request_is_an_httpx_error_of_the_callers_request(mock_wise: MockWise) -> None:
    """Without the private one."""
    wise = connected(mock_wise)

    async def use() -> httpx.TransportError:
        async with wise.async_client() as http:
            with pytest.raises(httpx.TransportError) as caught:
                await http.get("/v2/profiles", headers={"X-Bad": "a\nb"})
            return caught.value

    error = asyncio.run(use())
    rendered = "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
    assert leaks(bearer(mock_wise), rendered) == []
    wise.close()


def test_auth_for_a_callers_own_client_renews_as_well(mock_wise: MockWise) -> None:
    """Sync and async, with one repetition at most."""
    with connected(mock_wise) as wise:
        context = wise.current().ssl_context
        options: dict[str, Any] = {
            "auth": wise.auth,
            "verify": context,
            "base_url": wise.base_url,
            "trust_env": False,
        }
        with httpx.Client(**options) as http:
            mock_wise.expire_tokens()
            assert http.get("/v2/profiles").status_code == 200

        async def asynchronously() -> list[int]:
            async with httpx.AsyncClient(**options) as http:
                first = await http.get("/v2/profiles")
                wise.current().cache._refused_at = -100.0
                mock_wise.expire_tokens()
                return [first.status_code, (await http.get("/v2/profiles")).status_code]

        assert asyncio.run(asynchronously()) == [200, 200]


def test_a_new_generation_takes_over_and_the_old_one_ends_its_answers(mock_wise: MockWise) -> None:
    """The seam for rotation: an answer under way ends on its own pool, which is closed then."""
    from dataclasses import replace

    with connected(mock_wise) as wise, wise.client() as http:
        transport: Any = http._transport
        with http.stream("GET", "/v2/profiles") as answer:
            old = transport._pools._held
            wise._rotator.generation = replace(wise.current(), number=2)
            assert http.get("/v2/profiles").status_code == 200
            assert (old.retired, old.in_flight) == (True, 1)
            answer.read()
        assert (old.in_flight, old.pool._pool.connections) == (0, [])
        wise._rotator.generation = replace(wise.current(), number=3)
        idle = transport._pools._held
        http.get("/v2/profiles")
        assert idle.pool._pool.connections == []

    async def asynchronously() -> list[object]:
        async with connected(mock_wise) as wise, wise.async_client() as http:
            transport: Any = http._transport
            async with http.stream("GET", "/v2/profiles") as answer:
                old = transport._pools._held
                wise._rotator.generation = replace(wise.current(), number=2)
                await http.get("/v2/profiles")
                await answer.aread()
            wise._rotator.generation = replace(wise.current(), number=3)
            idle = transport._pools._held
            await http.get("/v2/profiles")
            return [old.pool._pool.connections, idle.pool._pool.connections]

    assert asyncio.run(asynchronously()) == [[], []]


def test_a_child_after_fork_leaves_its_parents_connections_alone(mock_wise: MockWise) -> None:
    """Both go on: the child on connections of its own."""
    import os

    with connected(mock_wise) as wise, wise.client() as http:
        http.get("/v2/profiles")
        child = os.fork()
        if child == 0:  # pragma: no cover  the child is not measured
            status = 1
            try:
                status = 0 if http.get("/v2/profiles").status_code == 200 else 1
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0
        assert http.get("/v2/profiles").status_code == 200
        transport: Any = http._transport
        parents, transport._pools._pid = transport._pools._held, 0
        assert http.get("/v2/profiles").status_code == 200
        assert (parents.retired, len(parents.pool._pool.connections)) == (False, 1)
        parents.pool.close()


class _Proxy:
    """A recording CONNECT proxy."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []

    def __call__(self, connection: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            head += connection.recv(65_536)
        self.heard.append(head)
        host, _, port = head.split()[1].decode().rpartition(":")
        with socket.create_connection((host, int(port))) as upstream:
            connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            back = threading.Thread(target=self._pump, args=(upstream, connection), daemon=True)
            back.start()
            self._pump(connection, upstream)
            back.join(10)

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(65_536):
                self.heard.append(data)
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            pass


def test_a_proxy_sees_connect_and_ciphertext_only(mock_wise: MockWise, monkeypatch: pytest.MonkeyPatch) -> None:
    """For the token and for the API; one in the environment is never used."""
    proxy, other = _Proxy(), _Proxy()
    with tcp_server(proxy) as port, tcp_server(other) as unused:
        for name in ("HTTPS_PROXY", "ALL_PROXY", "HTTP_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{unused}")
        with connected(mock_wise, proxy=f"http://127.0.0.1:{port}") as wise, wise.client() as http:
            assert http.get("/v2/profiles").status_code == 200
        with connected(mock_wise) as wise, wise.client() as http:
            assert http.get("/v2/profiles").status_code == 200
    target = mock_wise.base_url.removeprefix("https://").encode()
    assert [line for line in proxy.heard if line.startswith(b"CONNECT")] == [
        line for line in proxy.heard if line.startswith(b"CONNECT " + target)
    ]
    canaries = {**bearer(mock_wise), "id": mock_wise.client_id, "secret": mock_wise.client_secret}
    assert (len(proxy.heard) > 4, leaks(canaries, *proxy.heard), other.heard) == (True, [], [])


def test_a_proxy_that_refuses_is_named(mock_wise: MockWise) -> None:
    """The hint speaks of the proxy then."""

    def refuses(connection: socket.socket) -> None:
        connection.recv(65_536)
        connection.sendall(b"HTTP/1.1 403 Forbidden\r\n\r\n")

    with (
        tcp_server(refuses) as port,
        pytest.raises(wise_creds.TokenUnavailableError, match="does the proxy allow") as e,
    ):
        connected(mock_wise, proxy=f"http://127.0.0.1:{port}", deadline=1)
    assert e.value.code == "WC506"


def test_plain_http_in_sandbox_works_without_certificates() -> None:
    """For a stand-in on loopback."""
    with MockWise(mtls=False) as plain, connected(plain) as wise, wise.client() as http:
        assert http.get("/v2/profiles").status_code == 200
        assert plain.requests[-1].certificate_sha256 is None
    assert issubclass(Handler, BaseHTTPRequestHandler)
