"""Sandbox and production, their hosts, and the guard between them."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal
from urllib.parse import SplitResult, urlsplit

from wise_creds.errors import NamespaceError, Notice, printable


class Namespace(StrEnum):
    """Wise's two worlds. Each has its own hosts, sources and credentials; nothing falls back to the other."""

    SANDBOX = "sandbox"
    PRODUCTION = "production"


# https://docs.wise.com/guides/developer/environments.md and .../auth-and-security/mtls. The names follow no common
# rule, so neither is ever derived from the other.
MTLS_BASE = {
    Namespace.SANDBOX: "https://api-mtls.wise-sandbox.com",
    Namespace.PRODUCTION: "https://api-mtls.transferwise.com",
}
TLS_BASE = {
    Namespace.SANDBOX: "https://api.wise-sandbox.com",
    Namespace.PRODUCTION: "https://api.wise.com",
}
_Kind = Literal["mtls", "tls"]
_HOSTS: dict[str, tuple[Namespace, _Kind, str]] = {
    "api-mtls.wise-sandbox.com": (Namespace.SANDBOX, "mtls", ""),
    "api.wise-sandbox.com": (Namespace.SANDBOX, "tls", ""),
    "api-mtls.transferwise.com": (Namespace.PRODUCTION, "mtls", ""),
    "api.wise.com": (Namespace.PRODUCTION, "tls", ""),
    "api.transferwise.com": (Namespace.PRODUCTION, "tls", "is the old name of api.wise.com"),
    "api-mtls.wise.com": (Namespace.PRODUCTION, "mtls", "is not a name that Wise documents"),
}
_RETIRED = ("sandbox.transferwise.tech", "sandbox.wise.tech")
# Whatever ends so belongs to that namespace and may not be allowed in the other.
_DOMAINS = {
    "wise-sandbox.com": Namespace.SANDBOX,
    "sandbox.transferwise.tech": Namespace.SANDBOX,
    "sandbox.wise.tech": Namespace.SANDBOX,
    "wise.com": Namespace.PRODUCTION,
    "transferwise.com": Namespace.PRODUCTION,
}
_NAME = re.compile(r"(?=.{1,253}\Z)[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*")
_PORTS = {"https": 443, "http": 80}


def _within(host: str, domain: str) -> bool:
    return host == domain or host.endswith(f".{domain}")


def _owner(host: str) -> Namespace | None:
    return next((owner for domain, owner in _DOMAINS.items() if _within(host.rstrip("."), domain)), None)


def is_loopback(host: str) -> bool:
    """Whether a host is this machine by its form alone; nothing is resolved."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def legal_port(parts: SplitResult) -> bool:
    """Whether a URL has a port that can be, or none."""
    try:
        return parts.port != 0
    except ValueError:
        return False


def legal_host(host: str) -> bool:
    """Whether this is an exact host name or an IP literal, as `allow_hosts` takes it."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        # All-numeric names are other spellings of an address (127.1, 2130706433), which resolvers read as such.
        return _NAME.fullmatch(host) is not None and not re.fullmatch(r"[0-9.]+|0x[0-9a-f.x]*", host)
    return True


@dataclass(frozen=True, eq=False)
class Endpoints:
    """Where one namespace talks to: two URLs, the hosts allowed beside them, and the guard."""

    namespace: Namespace
    base_url: str
    token_url: str
    allow_hosts: frozenset[str] = frozenset()

    def check(self, scheme: str, host: str, port: int | None, *, userinfo: bool = False) -> None:
        """
        Refuse a request that would leave the namespace, before its host is even resolved.

        Raises:
            NamespaceError: not an origin of `base_url` or `token_url`, and not in `allow_hosts` (WC205).
        """
        host = host.lower()
        origin = (scheme, host, port or _PORTS.get(scheme))
        allowed = origin in (_origin(self.base_url), _origin(self.token_url))
        if not userinfo and (allowed or (scheme == "https" and host in self.allow_hosts)):
            return
        raise NamespaceError(
            f"no token goes to {printable(scheme)}://{printable(host)}:{origin[2]}"
            + (" with a user name in the URL" if userinfo else ""),
            code="WC205",
            namespace=self.namespace,
            hint="use a path below base_url, or add the host to allow_hosts if it is yours",
        )


def _origin(url: str) -> tuple[str, str, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or _PORTS.get(parts.scheme)


def endpoints(
    namespace: Namespace,
    *,
    base_url: str | None = None,
    token_url: str | None = None,
    allow_hosts: Iterable[str] = (),
    mtls: bool = True,
    report: Callable[[NamespaceError | Notice], None],
) -> Endpoints:
    """
    Check the addresses of a namespace; every problem is reported, none is raised.

    Args:
        namespace: whose addresses these are.
        base_url: default: Wise's mTLS host of the namespace, or the TLS-only one without mTLS.
        token_url: default: `base_url` + `/oauth/token`.
        allow_hosts: exact names or IP literals, any port.
        mtls: whether a client certificate is used.
        report: gets each problem and each notice.
    """
    allowed = set()
    for host in allow_hosts:
        lowered = host.lower()
        if not legal_host(lowered):
            report(_problem(namespace, "allow_hosts", "WC204", f"{printable(host)} is not a host name or an address",
                            "write a name without scheme, port or wildcard"))  # fmt: skip
        elif _owner(lowered) not in (None, namespace):
            report(_foreign(namespace, "allow_hosts", lowered))
        else:
            allowed.add(lowered)
    base = (base_url or (MTLS_BASE if mtls else TLS_BASE)[namespace]).rstrip("/")
    token = token_url or f"{base}/oauth/token"
    for key, url in (("base_url", base), ("token_url", token)) if token_url else (("base_url", base),):
        for told in _examined(namespace, key, url, allowed, mtls=mtls):
            report(told)
    return Endpoints(namespace, base, token, frozenset(allowed))


def _examined(
    namespace: Namespace, key: str, url: str, allowed: set[str], *, mtls: bool
) -> Iterable[NamespaceError | Notice]:
    parts, host = _parsed(url)
    if parts is None:
        yield _problem(namespace, key, "WC204", "not a plain URL",
                       "write https://host[:port][/path] without user name, query or fragment")  # fmt: skip
        return
    owner = _owner(host)
    loopback = namespace is Namespace.SANDBOX and is_loopback(host)
    if owner not in (None, namespace):
        yield _foreign(namespace, key, host)
        return
    if any(_within(host, domain) for domain in _RETIRED):
        yield _problem(namespace, key, "WC210", f"{printable(host)} belongs to Wise's retired sandbox",
                       f"use {(MTLS_BASE if mtls else TLS_BASE)[namespace]}")  # fmt: skip
        return
    known = _HOSTS.get(host)
    if known is None and not loopback and host not in allowed:
        yield _problem(namespace, key, "WC202", f"{printable(host)} is not a host of {namespace}",
                       "add it to allow_hosts if it is yours (a gateway, a test server)")  # fmt: skip
        return
    if parts.scheme != "https" and not (loopback and not mtls):
        yield _problem(namespace, key, "WC203", "plain http",
                       'use https; http is for sandbox, to loopback, with mtls = "off"')  # fmt: skip
    if known is not None and known[2]:
        yield Notice(code="WC212", message=f"{printable(host)} {known[2]}", namespace=namespace, location=key)
    if known is not None and (known[1] == "mtls") is not mtls:
        said = "takes no client certificate" if mtls else "wants a client certificate"
        yield Notice(code="WC211", message=f"{printable(host)} {said}", namespace=namespace, location=key,
                     hint=f"Wise's host for this is {(MTLS_BASE if mtls else TLS_BASE)[namespace]}")  # fmt: skip


def _parsed(url: str) -> tuple[SplitResult | None, str]:
    if not re.fullmatch(r"[\x21-\x7e]+", url) or set(url) & set("\\?#@"):
        return None, ""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        return None, ""
    if parts.scheme not in _PORTS or not legal_host(host):
        return None, ""
    return parts, host


def _problem(namespace: Namespace, key: str, code: str, message: str, hint: str) -> NamespaceError:
    return NamespaceError(message, code=code, namespace=namespace, location=key, hint=hint)


def _foreign(namespace: Namespace, key: str, host: str) -> NamespaceError:
    return _problem(namespace, key, "WC201", f"{printable(host)} is not a host of {namespace} but of the other one",
                    "sandbox and production never share a host; check which one is meant")  # fmt: skip
