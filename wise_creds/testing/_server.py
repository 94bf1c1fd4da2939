"""The HTTP side of MockWise: a small HTTPS server whose token endpoint can be made to fail."""

from __future__ import annotations

import base64
import contextlib
import json
import secrets
import socket
import ssl
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import cast
from urllib.parse import parse_qsl

HTML = "text/html"
_NGINX = (
    b"<html><head><title>400 No required SSL certificate was sent</title></head>"
    b"<body><center><h1>400 Bad Request</h1></center><hr><center>nginx</center></body></html>"
)


@dataclass(frozen=True)
class Recorded:
    """A request that arrived; `certificate_sha256` is the client certificate's, hex."""

    method: str
    path: str
    headers: dict[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    certificate_sha256: str | None


@dataclass
class State:
    """What the server knows; tests may change it while it runs."""

    client_id: str
    secrets: list[str] = field(repr=False)
    token_life: int = 43_199
    scope: str = "transfers"
    delay: float = 0.0
    tokens: dict[str, float] = field(default_factory=dict, repr=False)
    refresh_tokens: dict[str, str | None] = field(default_factory=dict, repr=False)
    codes: dict[str, str | None] = field(default_factory=dict, repr=False)
    requests: list[Recorded] = field(default_factory=list)
    faults: deque[str] = field(default_factory=deque)
    stopped: threading.Event = field(default_factory=threading.Event)


class Server(ThreadingHTTPServer):
    """One thread per connection; the TLS handshake is done in that thread."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 256

    def __init__(self, state: State, context: ssl.SSLContext | None) -> None:
        self.state = state
        self.context = context
        self._open: set[socket.socket] = set()
        super().__init__(("127.0.0.1", 0), Handler)

    def finish_request(self, request: socket.socket | tuple[bytes, socket.socket], client_address: object) -> None:
        """Serve one connection."""
        connection = cast("socket.socket", request)
        with contextlib.suppress(OSError):  # a peer that goes away is not our concern
            if self.context is not None:
                connection.settimeout(10)
                connection = self.context.wrap_socket(connection, server_side=True)
                connection.settimeout(None)
            self._open.add(connection)
            try:
                self.RequestHandlerClass(connection, client_address, self)  # type: ignore[arg-type]
            finally:
                self._open.discard(connection)
                connection.close()

    def stop(self) -> None:
        """Stop at once; hanging answers end."""
        self.state.stopped.set()
        self.shutdown()
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    """Wise's answers, with the fields, headers and errors that its documentation shows."""

    protocol_version = "HTTP/1.1"
    server: Server
    timeout = 60
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        """Serve the API routes."""
        self._serve(b"")

    def do_POST(self) -> None:
        """Serve the token endpoint and the API routes."""
        self._serve(self.rfile.read(int(self.headers.get("Content-Length") or 0)))

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base class names it so
        """Say nothing."""

    def _serve(self, body: bytes) -> None:
        state = self.server.state
        der = self.connection.getpeercert(True) if isinstance(self.connection, ssl.SSLSocket) else None
        headers = {name.lower(): value for name, value in self.headers.items()}
        state.requests.append(
            Recorded(self.command, self.path, headers, body, sha256(der).hexdigest() if der else None)
        )
        if self.path.endswith("/oauth/token"):
            self._token(headers, body)
        elif headers.get("authorization", "").removeprefix("Bearer ") in self._valid():
            self._api(body)
        else:
            presented = headers.get("authorization", "").removeprefix("Bearer ")
            # Wise's own example shows the presented token in this field.
            self._json(401, {"error": "invalid_token", "error_description": presented})

    def _valid(self) -> set[str]:
        now = time.time()
        return {token for token, ends in list(self.server.state.tokens.items()) if ends > now}

    def _token(self, headers: dict[str, str], body: bytes) -> None:
        state = self.server.state
        with contextlib.suppress(IndexError):
            FAULTS[state.faults.popleft()](self)
            return
        state.stopped.wait(state.delay)
        pairs = [base64.b64encode(f"{state.client_id}:{one}".encode()).decode() for one in state.secrets]
        if headers.get("authorization") not in [f"Basic {pair}" for pair in pairs]:
            self._refuse(401, "invalid_client", "Client authentication failed")
        else:
            form = dict(parse_qsl(body.decode()))
            kind = form.get("grant_type")
            if kind == "client_credentials":
                self._json(200, self.token_answer())
            elif kind == "refresh_token":
                self._user(form.get("refresh_token", ""), state.refresh_tokens)
            elif kind == "authorization_code" and form.get("client_id") == state.client_id:
                self._user(form.get("code", "") + form.get("redirect_uri", ""), state.codes)
            else:
                self._refuse(400, "invalid_request", "Missing grant type")

    def _user(self, presented: str, known: dict[str, str | None]) -> None:
        """Issue tokens of a user for a refresh token or a code, each of which serves once, and end the one before."""
        state = self.server.state
        if presented not in known:
            self._refuse(400, "invalid_grant", presented)
            return
        state.tokens.pop(known.pop(presented) or "", None)
        answer, refresh = self.token_answer(), secrets.token_urlsafe(24)
        state.refresh_tokens[refresh] = str(answer["access_token"])
        self._json(200, {**answer, "refresh_token": refresh, "refresh_token_expires_in": 628_639_555})

    def token_answer(self) -> dict[str, object]:
        """Issue a token."""
        state, token = self.server.state, secrets.token_urlsafe(40)
        ends = time.time() + state.token_life
        state.tokens[token] = ends
        return {
            "access_token": token,
            "token_type": "bearer",
            "expires_in": state.token_life,
            "expires_at": time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(ends)),
            "scope": state.scope,
        }

    def _api(self, body: bytes) -> None:
        if self.path == "/v1/authenticated/playground":
            self._json(200, {"message": "authenticated"})
        elif self.path == "/v2/profiles":
            self._json(200, [{"id": 14575282, "type": "BUSINESS"}])
        elif self.path == "/v3/quotes" and self.command == "POST":
            self._json(200, {"id": str(uuid.uuid4()), "rate": 1.0852, "received": len(body)})
        else:
            self._json(404, {"errors": [{"code": "NOT_FOUND"}]})

    def _refuse(self, status: int, error: str, description: str) -> None:
        self._json(status, {"error": error, "error_description": description})

    def _json(self, status: int, content: object) -> None:
        self.answer(status, "application/json", json.dumps(content).encode())

    def answer(self, status: int, kind: str, body: bytes, **headers: str) -> None:
        """Send a whole answer."""
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), "x-trace-id": uuid.uuid4().hex,
                            **headers}.items():  # fmt: skip
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def altered(self, **changes: object) -> None:
        """Send a token answer with some fields changed; None leaves one out."""
        answer = {**self.token_answer(), **changes}
        self._json(200, {name: value for name, value in answer.items() if value is not None})

    def hang(self) -> None:
        """Say nothing until the server stops."""
        self.server.state.stopped.wait(60)

    def drip(self) -> None:
        """Send one byte at a time until the server stops."""
        self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        while not self.server.state.stopped.wait(0.1):
            self.wfile.write(b"x")

    def huge(self) -> None:
        """Send 50 MB, as far as anybody reads."""
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.close_connection = True
        for _ in range(800):  # pragma: no branch  nobody reads to the end
            self.wfile.write(b" " * 65_536)

    def cut(self) -> None:
        """Send half of a token answer, well framed."""
        body = json.dumps(self.token_answer()).encode()
        self.answer(200, "application/json", body[: len(body) // 2])

    def drop(self) -> None:
        """Close the connection without an answer."""
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)


def _refusal(status: int, error: str) -> Callable[[Handler], None]:
    return lambda handler: handler.answer(
        status,
        "application/json",
        json.dumps({"error": error, "error_description": "see the documentation"}).encode(),
    )


FAULTS: dict[str, Callable[[Handler], None]] = {
    "invalid_client": _refusal(401, "invalid_client"),
    "invalid_request": _refusal(400, "invalid_request"),
    "forbidden": _refusal(403, "access_denied"),
    "rate_limited": lambda handler: handler.answer(429, "application/json", b"{}", Retry_After="1"),
    "server_error": lambda handler: handler.answer(500, HTML, b"<h1>Internal Server Error</h1>"),
    "unavailable": lambda handler: handler.answer(503, HTML, b"<h1>Service Unavailable</h1>"),
    "certificate_refused": lambda handler: handler.answer(400, HTML, _NGINX),
    "redirect": lambda handler: handler.answer(307, HTML, b"", Location="https://127.0.0.1:1/oauth/token"),
    "html": lambda handler: handler.answer(200, HTML, b"<h1>Welcome</h1>"),
    "truncated": Handler.cut,
    "huge": Handler.huge,
    "empty_token": lambda handler: handler.altered(access_token=""),
    "no_expires_in": lambda handler: handler.altered(expires_in=None),
    "no_token_type": lambda handler: handler.altered(token_type=None),
    "hang": Handler.hang,
    "drip": Handler.drip,
    "reset": Handler.drop,
}
