"""The token fetcher: client credentials in, access tokens out, nothing written anywhere."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cached_property
from types import TracebackType
from typing import Literal, Self

from wise_creds._quiet import process_environ
from wise_creds._slots import Policy
from wise_creds._token_cache import TokenCache
from wise_creds._token_request import TokenRequest
from wise_creds.clock import SYSTEM_CLOCK, Clock
from wise_creds.credentials import Credentials
from wise_creds.errors import CredentialsError, NamespaceError, Notice, printable
from wise_creds.namespace import Namespace, endpoints
from wise_creds.token import Token


class _Fetcher:
    """What the two fetchers share: the checked endpoints and the cache."""

    def __init__(
        self,
        credentials: Credentials,
        *,
        base_url: str | None = None,
        token_url: str | None = None,
        allow_hosts: Iterable[str] = (),
        mtls: Literal["required", "off"] = "required",
        basic_auth: Literal["raw", "form"] = "raw",
        token_scope: Literal["thread", "process"] = "thread",  # noqa: S107  a scope, not a secret
        refresh_at: float = 0.8,
        deadline: float = 10.0,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        wrong: list[NamespaceError] = []

        def report(told: NamespaceError | Notice) -> None:
            if isinstance(told, NamespaceError):
                wrong.append(told)

        personal = "personal_token" in credentials.extra and credentials.client_id is None
        where = endpoints(
            credentials.namespace,
            base_url=base_url,
            token_url=token_url,
            allow_hosts=allow_hosts,
            mtls=mtls == "required" and not personal,
            report=report,
        )
        if mtls == "off" and credentials.namespace is Namespace.PRODUCTION:
            wrong.append(NamespaceError('mtls = "off" is for sandbox only', code="WC209",
                                        namespace=credentials.namespace, location="mtls",
                                        hint="leave it out in production"))  # fmt: skip
        if wrong:
            raise wrong[0]
        if mtls == "required" and not personal and credentials.certificate is None:
            raise CredentialsError("no client certificate", code="WC401", namespace=credentials.namespace,
                                   location="certificate", hint='add it, or set mtls = "off" in sandbox')  # fmt: skip
        ask = TokenRequest(credentials, where, credentials.ssl_context(), clock, process_environ(), basic_auth)
        self._cache = TokenCache(
            ask,
            clock=clock,
            policy=Policy(token_scope, refresh_at, deadline, credentials.namespace, printable(where.token_url)),
        )

    def invalidate(self, token: Token) -> None:
        """Forget a token that an API refused, if it is still the one in use; the next caller gets a new one."""
        self._cache.invalidate(token)


class TokenFetcher(_Fetcher):
    """
    Fetch and keep access tokens for checked credentials, with no source behind them.

    Args:
        credentials: from `load`.
        base_url: default: Wise's host of the credentials' namespace.
        token_url: default: `base_url` + `/oauth/token`.
        allow_hosts: more hosts that may be named in the two.
        mtls: `"off"` in sandbox only.
        basic_auth: `"form"` encodes ID and secret first (RFC 6749 section 2.3.1).
        token_scope: one token per thread, as Wise advises, or one per process.
        refresh_at: share of a token's life after which it is renewed in the background.
        deadline: seconds of wall time that a caller waits at most.
        clock: time.

    Raises:
        NamespaceError: an address is not the namespace's.
        CredentialsError: mTLS is required and the credentials have no certificate.
    """

    def fetch(self) -> Token:
        """
        Ask for a new token, always (RFC 6749 section 4.4).

        Raises:
            TokenError: Wise refuses, cannot be reached, or answers something else.
        """
        return self._cache.fetch()

    def token(self) -> Token:
        """Give the thread's (or process's) token, fetched at first use and renewed in the background; see `fetch`."""
        return self._cache.current() or self._cache.obtain()

    @cached_property
    def authorization(self) -> Callable[[], str]:
        """Give, when called, the value of an `Authorization` header (RFC 6750 section 2.1)."""
        return self._cache.header_source()

    def close(self) -> None:
        """Forget all tokens; further calls raise a TokenError (WC513)."""
        self._cache.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncTokenFetcher(_Fetcher):
    """The same as `TokenFetcher` for asyncio; the object may be used in several event loops, one after the other."""

    async def fetch(self) -> Token:
        """Ask for a new token, always."""
        return await self._cache.fetch_async()

    async def token(self) -> Token:
        """Give the event loop's (or process's) token."""
        return self._cache.current() or await self._cache.obtain_async()

    async def authorization(self) -> str:
        """Give the value of an `Authorization` header."""
        return (self._cache.current() or await self._cache.obtain_async()).authorization()

    async def close(self) -> None:
        """Forget all tokens; further calls raise a TokenError (WC513)."""
        self._cache.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
