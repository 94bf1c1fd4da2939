"""One token request: POST over mTLS on a connection of its own, and what each answer means."""

from __future__ import annotations

import base64
import json
import re
import socket
import ssl
import sys
import uuid
from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote_plus, urlencode, urlsplit

from wise_creds._engine import Job
from wise_creds.clock import Clock
from wise_creds.credentials import Credentials
from wise_creds.errors import TokenError, TokenRejectedError, TokenResponseError, TokenUnavailableError, printable
from wise_creds.namespace import Endpoints
from wise_creds.secret import Secret
from wise_creds.shield import described, ssl_reason
from wise_creds.token import LONGEST_LIFE, Token, TokenAnswer, read_token_answer

if TYPE_CHECKING:
    import httpx

LARGEST_ANSWER = 1_048_576  # bytes; a token is opaque and may be long, but not that long
_OAUTH_ERRORS = frozenset(  # RFC 6749 section 5.2; anything else is a server's free text
    ("invalid_request", "invalid_client", "invalid_grant", "unauthorized_client", "unsupported_grant_type",
     "invalid_scope")
)  # fmt: skip
# TLS alerts by which a server refuses a client certificate (RFC 8446 section 6.2), as OpenSSL names them.
ABOUT_US = frozenset(
    ("CERTIFICATE_REQUIRED", "UNKNOWN_CA", "CERTIFICATE_EXPIRED", "CERTIFICATE_REVOKED", "BAD_CERTIFICATE",
     "CERTIFICATE_UNKNOWN", "UNSUPPORTED_CERTIFICATE", "HANDSHAKE_FAILURE", "ACCESS_DENIED", "NO_CERTIFICATE")
)  # fmt: skip
_NAMED = {
    "invalid_client": ("WC501", "client ID and secret",
                       "was the secret rotated in Developer Hub? is it the secret of this namespace?"),
    "invalid_grant": ("WC515", "the user's grant",
                      "refresh token or code was used, expired or revoked: have the user authorise you again"),
}  # fmt: skip
_PROXY_VARIABLES = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")
_OK, _REDIRECTS, _REFUSALS, _TOO_MANY, _SERVER_ERROR = 200, range(300, 400), (400, 401, 403), 429, 500


@dataclass(frozen=True, eq=False)
class TokenRequest:
    """
    How to ask for a token.

    Args:
        credentials: whose.
        endpoints: where.
        context: the mTLS context of the same generation.
        basic_auth: `"raw"`, or `"form"` to encode both halves first (RFC 6749 section 2.3.1).
        proxy: an HTTP proxy that is asked to CONNECT.
        environ: the process environment, only to say that a proxy named there is not used.
        clock: time.
    """

    credentials: Credentials
    endpoints: Endpoints
    context: ssl.SSLContext
    clock: Clock
    environ: Mapping[str, str]
    basic_auth: Literal["raw", "form"] = "raw"
    proxy: str | None = None

    def __call__(self, job: Job[Any], deadline: float) -> Token:
        """Ask for a token of the client itself (RFC 6749 section 4.4); see `grant`."""
        return self.grant({"grant_type": "client_credentials"}, job, deadline)[0]

    def grant(self, form: Mapping[str, str], job: Job[Any] | None, deadline: float) -> tuple[Token, Secret | None]:
        """
        Ask once; runs within the shield, in the job's thread.

        Args:
            form: the body's fields.
            job: may be abandoned, which ends the connection; None if nothing may cut it off.
            deadline: a point on the boot clock.

        Returns:
            The access token, and a refresh token if there is one.

        Raises:
            TokenRejectedError: Wise refuses the client (WC501), its certificate (WC502), the request (WC503), a user's
                grant (WC515).
            TokenUnavailableError: rate limit (WC504), 5xx (WC505), network (WC506), untrusted server (WC507).
            TokenResponseError: not a token answer (WC509), too large (WC510), a redirect (WC511), else (WC512).
        """
        personal = self.credentials.extra.get("personal_token")
        boot, wall = self.clock.boot(), self.clock.wall()
        if personal is not None and self.credentials.client_id is None:
            answer = TokenAnswer(personal, LONGEST_LIFE, None)
        else:
            host = urlsplit(self.endpoints.token_url).hostname
            sys.audit("wise_creds.token", self.credentials.namespace.value, host)
            try:
                answer = judged(*self._exchange(urlencode(form).encode(), job, deadline), now=wall)
            except TokenError as problem:
                problem.namespace = self.credentials.namespace
                problem.location = printable(self.endpoints.token_url)
                raise
        token = Token(
            answer.access_token,
            scope=answer.scope,
            expires_boot=boot + answer.expires_in,
            expires_wall=wall + answer.expires_in,
            clock=self.clock,
        )
        return token, answer.refresh_token

    def _exchange(self, body: bytes, job: Job[Any] | None, deadline: float) -> tuple[int, Mapping[str, str], bytes]:
        import httpx

        # A little beyond the deadline, at which whoever waits gives the job up: that ends slow bytes as well as none.
        left = max(0.001, deadline - self.clock.boot()) + 1.0
        handles: list[socket.socket] = []

        def trace(event: str, info: Mapping[str, object]) -> None:
            # A second handle on the socket, so that a deadline can end a handshake or a server that drips bytes:
            # shutting down is safe from another thread, closing would free the number for another socket.
            if job is not None and event == "connection.connect_tcp.complete":
                stream: Any = info["return_value"]
                handles.append(stream.get_extra_info("socket").dup())
                if job.abandoned.is_set():
                    stream.close()
                    raise _GivenUpError
                job.on_abandon(lambda: _shut(handles))

        request = httpx.Request(
            "POST",
            self.endpoints.token_url,
            content=body,
            headers={
                "Authorization": self._basic(),
                "Content-Type": "application/x-www-form-urlencoded",
                "Accept": "application/json",
                "Accept-Encoding": "identity",
                "User-Agent": "wise-creds",
                "X-External-Correlation-Id": str(uuid.uuid4()),
            },
            extensions={"timeout": httpx.Timeout(left).as_dict(), "trace": trace},
        )
        transport = httpx.HTTPTransport(verify=self.context, trust_env=False, proxy=self.proxy)
        try:
            with transport, closing(transport.handle_request(request)) as response:
                return response.status_code, dict(response.headers), _capped(response)
        except httpx.HTTPError as caught:
            problem = self._unreachable(caught)
        finally:
            for handle in handles:
                handle.close()
        raise problem

    def _basic(self) -> str:
        client_id, client_secret = self.credentials.client_id, self.credentials.client_secret
        assert client_id is not None  # noqa: S101  the material check saw to both
        assert client_secret is not None  # noqa: S101
        halves = (client_id.reveal(), client_secret.reveal())
        if self.basic_auth == "form":
            halves = (quote_plus(halves[0]), quote_plus(halves[1]))
        return "Basic " + base64.b64encode(":".join(halves).encode()).decode()

    def _unreachable(self, caught: Exception) -> TokenError:
        import httpx

        reason = ssl_reason(caught)
        if reason.partition("_ALERT_")[2] in ABOUT_US:
            return TokenRejectedError(f"the server refuses the client certificate ({reason})", code="WC502",
                                      hint=_CERTIFICATE_HINT)  # fmt: skip
        if reason == "CERTIFICATE_VERIFY_FAILED":
            return TokenUnavailableError("the server's certificate is not trusted", code="WC507",
                                         retryable=False, hint="is ca_bundle Wise's certificate for this namespace? "
                                         "is there a TLS-inspecting proxy?")  # fmt: skip
        hint = "is the host reachable from here?"
        if self.proxy is not None:
            hint = "does the proxy allow CONNECT to this host?"
        elif ignored := next((name for name in _PROXY_VARIABLES if self.environ.get(name)), None):
            hint = f'{ignored} is set but never used silently: if it is needed, set proxy = "http://host:port"'
        slow = isinstance(caught, httpx.TimeoutException)
        return TokenUnavailableError(
            f"no answer: {described(caught, place=False)}", code="WC508" if slow else "WC506", hint=hint
        )


class _GivenUpError(Exception):
    """Nobody waits for this request any more; it ends before anything is sent."""


_CERTIFICATE_HINT = (
    "is the certificate active in Developer Hub, and is this its host? wise-creds validate shows its dates"
)


def _shut(handles: list[socket.socket]) -> None:
    for handle in handles:
        with suppress(OSError):
            handle.shutdown(socket.SHUT_RDWR)


def _capped(response: httpx.Response) -> bytes:
    body = b""
    for chunk in response.iter_raw():
        body += chunk
        if len(body) > LARGEST_ANSWER:
            raise TokenResponseError(
                "the answer is larger than 1 MiB", code="WC510", status=response.status_code,
                trace_id=response.headers.get("x-trace-id"), hint="check token_url",
            )  # fmt: skip
    return body


def judged(status: int, headers: Mapping[str, str], body: bytes, *, now: float) -> TokenAnswer:
    """
    Tell what an answer of the token endpoint means (RFC 6749 section 5.2; by its `error` first, the status second).

    Raises:
        TokenError: anything but a token; no text of the server is in it.
    """
    trace_id = headers.get("x-trace-id")
    if status == _OK:
        try:
            return read_token_answer(body)
        except TokenResponseError as problem:
            problem.trace_id = None if trace_id is None else printable(trace_id)
            raise
    error, is_json = _oauth_error(body)
    refusal = _refusal(status, error, is_json=is_json)
    if refusal is not None:
        code, message, hint = refusal
        raise TokenRejectedError(message, code=code, status=status, trace_id=trace_id, hint=hint)
    if status == _TOO_MANY or status >= _SERVER_ERROR:
        code, message, hint = (
            ("WC504", "Wise limits the rate (429)", 'fewer processes, or token_scope = "process"')
            if status == _TOO_MANY
            else ("WC505", f"Wise cannot serve now ({status})", "see Wise's status page")
        )
        unavailable = TokenUnavailableError(message, code=code, status=status, trace_id=trace_id, hint=hint)
        unavailable.retry_after = retry_after(headers.get("retry-after"), now)
        raise unavailable
    if status in _REDIRECTS:
        raise TokenResponseError(f"the token URL redirects ({status}), which is never followed", code="WC511",
                                 status=status, trace_id=trace_id, hint="check token_url")  # fmt: skip
    raise TokenResponseError(f"unexpected status {status}", code="WC512", status=status, trace_id=trace_id,
                             hint="check token_url")  # fmt: skip


def retry_after(value: str | None, now: float) -> float | None:
    """Read `Retry-After`, seconds or a date (RFC 9110 section 10.2.3), as seconds from `now`; None for anything else."""
    if value is None:
        return None
    if re.fullmatch(r"[0-9]{1,6}", value):
        return float(value)
    from email.utils import parsedate_to_datetime

    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - now)
    except ValueError:
        return None


def _oauth_error(body: bytes) -> tuple[str | None, bool]:
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return None, False
    error = answer.get("error") if isinstance(answer, dict) else None
    return (error if isinstance(error, str) and error in _OAUTH_ERRORS else None), isinstance(answer, dict)


def _refusal(status: int, error: str | None, *, is_json: bool) -> tuple[str, str, str] | None:
    if status >= _SERVER_ERROR or status == _TOO_MANY:
        return None
    if error in _NAMED:
        code, whom, hint = _NAMED[error]
        return code, f"Wise refuses {whom} ({status} {error})", hint
    if error is not None:
        return "WC503", f"Wise refuses the request ({status} {error})", "is the client set up for client_credentials?"
    if status not in _REFUSALS:
        return None
    if not is_json:
        return (
            "WC502",
            f"the request was refused before it reached the token service ({status}, not JSON)",
            (_CERTIFICATE_HINT + "; an address allow-list or a gateway answers so as well"),
        )
    return ("WC503", f"Wise refuses the request ({status})",
            "check the credentials; an address allow-list is possible as well")  # fmt: skip
