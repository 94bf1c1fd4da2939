"""
hvac over an HTTP client of our own.

hvac builds paths and bodies; what it would send through requests goes through httpx instead, which prints nothing, reads
no environment and no netrc, follows no redirect, speaks over unix sockets, and takes an SSL context
(docs/decisions/0003-hvac-over-httpx.md).
"""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NoReturn
from urllib.parse import urlsplit

import httpx
from hvac.adapters import Adapter

from wise_creds import Secret, WiseCredsError
from wise_creds.clock import Clock
from wise_creds.errors import ConfigError, ProviderUnavailableError, printable
from wise_creds.shield import described, ssl_reason
from wise_creds.tls import client_context
from wise_creds_vault._errors import Answer, Step, explained, missing
from wise_creds_vault._options import VaultOptions

Uniform = Callable[[float, float], float]
_CONNECT = 3.0  # seconds at most
_BASE, _CAP, _ATTEMPTS = 0.2, 5.0, 4
_LARGEST = 131_072  # bytes of an answer; Vault itself has no useful limit


class Wire(Adapter):  # type: ignore[type-arg]  # generic for type checkers only
    """
    What hvac calls for each request; gives the parsed body of a success and raises our errors.

    Args:
        http: an open client.
        options: the source's.
        clock: time.
        deadline: a point on the boot clock.
        uniform: randomness, for pauses.
    """

    def __init__(
        self, http: httpx.Client, options: VaultOptions, *, clock: Clock, deadline: float, uniform: Uniform
    ) -> None:
        # Not the base's: it takes requests' attributes for granted.
        self._http = http
        self._options = options
        self._clock = clock
        self._deadline = deadline
        self._uniform = uniform
        self.place = place(options)
        self.identity: Secret | None = None
        """The Vault token to send."""

    def request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None = None,
        raise_exception: bool = True,
        **asked: Any,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401  parsed JSON
        """Ask; after a failure that may pass, again."""
        del raise_exception
        step = step_of(method, url)
        namespace = self._options.vault_namespace if step in ("read", "write") else self._options.login_namespace
        sent = {"X-Vault-Request": "true", **(headers or {})}
        if namespace:
            sent["X-Vault-Namespace"] = namespace
        number = 0
        while True:
            answer = self._asked(method, url, sent, asked)
            problem = answer if isinstance(answer, WiseCredsError) else self._judged(answer, step)
            if problem is None:
                return answer.body  # type: ignore[union-attr]  # no problem, so an answer
            number += 1
            waits = 0.0 if isinstance(answer, WiseCredsError) else answer.retry_after
            pause = waits + self._uniform(0, min(_CAP, _BASE * 2**number))
            if number == _ATTEMPTS or not problem.retryable or self._clock.boot() + pause >= self._deadline:
                raise problem
            self._clock.wait(threading.Event(), pause)

    def get_login_token(self, response: object) -> NoReturn:
        """Not asked for: tokens are taken out of answers in one place."""
        raise NotImplementedError

    def login_place(self) -> str:
        """Name method, mount and namespace, for hints."""
        auth = self._options.auth
        return printable(f"auth.method {auth.method}, mount {getattr(auth, 'mount', 'token')}, "
                         f"namespace {self._options.login_namespace or 'root'}")  # fmt: skip

    def _judged(self, answer: Answer, step: Step) -> WiseCredsError | None:
        problem = explained(answer, step=step, place=self.place, login=self.login_place())
        if problem is not None and problem.code == "WC344":
            # A server that was never initialised calls itself sealed too.
            health = self._asked("GET", "/v1/sys/health", {"X-Vault-Request": "true"}, {})
            if isinstance(health, Answer) and health.at("initialized") is False:
                return missing("uninitialised", place=self.place, login="")
        return problem

    def _asked(self, method: str, url: str, headers: dict[str, str], asked: dict[str, Any]) -> Answer | WiseCredsError:
        left = min(self._options.timeout, self._deadline - self._clock.boot())
        if left <= 0:
            return missing("slow", place=self.place, login="")
        if self.identity is not None and "X-Vault-Token" not in headers:
            headers = {**headers, "X-Vault-Token": self.identity.reveal()}
        times = httpx.Timeout(left, connect=min(_CONNECT, left))
        try:
            with self._http.stream(method.upper(), url, headers=headers, timeout=times, **asked) as response:
                raw = b""
                for part in response.iter_bytes():
                    raw += part
                    if len(raw) > _LARGEST:
                        return missing("large", place=self.place, login="")
                    if self._clock.boot() >= self._deadline:  # a server that trickles
                        return missing("slow", place=self.place, login="")
        except httpx.TimeoutException:
            return missing("slow", place=self.place, login="")
        except httpx.HTTPError as caught:
            return self._unreached(caught)
        return Answer(response.status_code, _parsed(raw), _seconds(response.headers.get("Retry-After", "")))

    def _unreached(self, caught: Exception) -> WiseCredsError:
        what, reason = described(caught, place=False), ssl_reason(caught)
        if reason:
            problem = ProviderUnavailableError(
                f"TLS with Vault failed ({what})", code="WC347", location=self.place,
                hint="ca_bundle names Vault's CA; certificate_file the client certificate, if it wants one",
            )  # fmt: skip
            problem.retryable = False
            return problem
        return ProviderUnavailableError(f"Vault cannot be reached ({what})", code="WC303", location=self.place,
                                        hint="is address right, and is there a route?")  # fmt: skip


@contextmanager
def opened(options: VaultOptions, *, clock: Clock, deadline: float, uniform: Uniform) -> Iterator[Wire]:
    """Give a wire whose connections end with the block: none is left for a forked child to share."""
    socket = options.address.removeprefix("unix://") if options.address.startswith("unix:") else None
    transport = httpx.HTTPTransport(verify=_context(options), trust_env=False, uds=socket, proxy=options.proxy)
    base = "http://localhost" if socket else options.address
    with httpx.Client(transport=transport, base_url=base, trust_env=False, follow_redirects=False) as http:
        yield Wire(http, options, clock=clock, deadline=deadline, uniform=uniform)


def step_of(method: str, url: str) -> Step:
    """Tell what a request is for."""
    parts = url.split("/")[2:4]  # "", "v1", ...
    if parts == ["auth", "token"]:
        return "token"
    if parts[0] == "auth":
        return "login"
    if parts == ["sys", "wrapping"]:
        return "unwrap"
    return "read" if method.upper() == "GET" else "write"


def place(options: VaultOptions, path: str | None = None) -> str:
    """Name the secret: host, namespace, mount, path."""
    parts = urlsplit(options.address)
    names = (options.vault_namespace, options.mount, path or options.path)
    return printable(f"vault:{parts.netloc or parts.path}:{'/'.join(name.strip('/') for name in names if name)}")


def _context(options: VaultOptions) -> ssl.SSLContext:
    ca = options.ca_bundle
    try:
        context = client_context(ca.read_bytes().decode("ascii", "ignore") if ca is not None else None)
    except (OSError, ValueError):  # ssl.SSLError is an OSError
        raise ConfigError("no certificate can be read from it", code="WC348", location=f"ca_bundle {printable(ca)}",
                               hint="a PEM file with the CA of Vault's certificate") from None  # fmt: skip
    if options.key_pair is not None:
        certificate, key = options.key_pair
        try:
            context.load_cert_chain(certificate, key, password=_no_prompt)
        except OSError:
            raise ConfigError("certificate and key cannot be used", code="WC348",
                                   location=f"certificate_file {printable(certificate)}",
                                   hint="PEM, the key unencrypted and readable") from None  # fmt: skip
    return context


def _no_prompt() -> bytes:
    # Without an answer OpenSSL would ask on the terminal; with an empty one it refuses.
    return b""


def _parsed(raw: bytes) -> object:
    try:
        return json.loads(raw) if raw else None
    except (ValueError, RecursionError):
        return None


def _seconds(text: str) -> float:
    return float(text) if text.isascii() and text.isdigit() and len(text) <= 3 else 0.0  # noqa: PLR2004
