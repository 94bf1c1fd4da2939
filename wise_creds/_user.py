"""
Tokens of a user who has authorised the partner: the same cache, another grant (RFC 6749 sections 4.1 and 6).

Wise ends a user's access token the moment a new one is issued, so a user has one source, whatever the token scope.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from wise_creds._engine import Job
from wise_creds._generation import Generation
from wise_creds._slots import Policy
from wise_creds._token_cache import TokenCache
from wise_creds.errors import CredentialsError, TokenError, TokenRejectedError, TokenUnavailableError, printable
from wise_creds.secret import Secret
from wise_creds.shield import described
from wise_creds.token import Token

if TYPE_CHECKING:
    import httpx

    from wise_creds._rotator import Rotator
    from wise_creds._wiring import Wiring

NOT_STORED = "WC517"
_LATE = 30.0  # seconds after a waiter's deadline until which a server may be silent
Store = Callable[[Secret], object]
RefreshToken = Secret | str | Callable[[], Secret]
"""A user's refresh token, or the name of a field of the secret, or what gives it."""


class UserGrant:
    """
    What asks for a user's tokens; one request at a time, for each may end the token of the one before.

    Args:
        current: gives the partner's own credentials.
        refresh_token: where it comes from; None if a code stands for it.
        store: gets each new refresh token.
        code: an authorization code's form, which serves once instead of the refresh token.
    """

    def __init__(
        self,
        current: Callable[[], Generation],
        refresh_token: RefreshToken | None,
        store: Store,
        code: Mapping[str, Secret] | None = None,
    ) -> None:
        self._current = current
        self._source = refresh_token
        self._store = store
        self._code = code
        self._newest: Secret | None = None
        self._unstored: Token | None = None
        self._last: Token | None = None
        self._pid, self._lock = os.getpid(), threading.Lock()

    def __call__(self, _job: Job[Any], deadline: float) -> Token:
        """Give a new access token, its refresh token stored first; runs within the shield."""
        before = self._last
        if self._pid != os.getpid():  # a thread that held it may not have come along
            self._pid, self._lock = os.getpid(), threading.Lock()
        with self._lock:
            if self._last is not None and self._last is not before:
                return self._last
            while True:
                token = self._unstored or self._asked(deadline)
                if self._unstored is not None:
                    self._offer()
                if token.remaining() > 0:  # it may take longer than its life until the store works again
                    self._last = token
                    return token

    def _asked(self, deadline: float) -> Token:
        form, used = self._form()
        try:
            # Not cut off when its waiters give up: an answer that comes late may hold the only good refresh token.
            token, fresh = self._current().ask.grant(form, None, deadline + _LATE)
        except TokenRejectedError:
            self._newest = None  # the source may know better by now
            raise
        self._code = None
        if fresh is not None and fresh != used:
            self._newest, self._unstored = fresh, token
        return token

    def _offer(self) -> None:
        assert self._newest is not None  # noqa: S101  set together with the token that waits for it
        try:
            self._store(self._newest)
        except Exception as caught:  # noqa: BLE001  it is the caller's code
            raise _trouble("could not be stored and will be offered again", NOT_STORED, caught) from None
        self._unstored = None

    def _form(self) -> tuple[dict[str, str], Secret | None]:
        if self._code is not None:
            own = self._current().credentials.client_id
            form = {"grant_type": "authorization_code", "client_id": own.reveal() if own else ""}
            return form | {name: value.reveal() for name, value in self._code.items()}, None
        used = self._newest or self._read()
        return {"grant_type": "refresh_token", "refresh_token": used.reveal()}, used

    def _read(self) -> Secret:
        source = self._source
        if isinstance(source, Secret):
            return source
        if isinstance(source, str):
            found = self._current().credentials.extra.get(source)
            if found is None:
                raise CredentialsError("the secret has no such field", code="WC401", location=printable(source),
                                       hint="add the user's refresh token to it, or name its field")  # fmt: skip
            return found
        if source is None:
            raise TokenRejectedError("no refresh token came with the code", code="WC515",
                                     hint="send the user through the authorisation again")  # fmt: skip
        try:
            given = source()
        except Exception as caught:  # noqa: BLE001  it is the caller's code
            raise _trouble("cannot be read", "WC516", caught) from None
        if not isinstance(given, Secret):
            raise _trouble("cannot be read", "WC516", TypeError())
        return given


def _trouble(what: str, code: str, caught: Exception) -> TokenError:
    return TokenUnavailableError(f"the user's refresh token {what}: {described(caught)}", code=code,
                                 hint="the callable given for it failed")  # fmt: skip


class UserTokens:
    """
    A user's tokens and clients. Made by `Connection.user` and `Connection.exchange_code`.

    One per user and process: Wise ends the previous access token of a user when it issues the next.
    """

    def __init__(
        self, grant: UserGrant, policy: Policy, *, watcher: Rotator,
        wiring: Callable[[dict[str, Any], TokenCache], Wiring],
    ) -> None:  # fmt: skip
        self._cache = TokenCache(grant, clock=watcher.clock, policy=replace(policy, scope="process"), watcher=watcher)
        self._wiring = wiring

    def token(self) -> Token:
        """
        Give the user's access token, at once while it is valid.

        Raises:
            TokenError: there is none; WC515 wants the user's authorisation anew.
            CredentialsError: the secret has no field of the name given.
        """
        return self._cache.current() or self._wiring({}, self._cache).ready()[2]

    def authorization(self) -> str:
        """Give the value of an `Authorization` header."""
        return self.token().authorization()

    async def atoken(self) -> Token:
        """Do the same as `token` without blocking the event loop."""
        return self._cache.current() or (await self._wiring({}, self._cache).aready())[2]

    async def aauthorization(self) -> str:
        """Give the value of an `Authorization` header."""
        return (await self.atoken()).authorization()

    def client(self, **options: Any) -> httpx.Client:  # noqa: ANN401  httpx's own arguments
        """Make an `httpx.Client` that calls the API for the user; otherwise as `Connection.client`."""
        from wise_creds._clients import client

        return client(self._wiring(options, self._cache), options)

    def async_client(self, **options: Any) -> httpx.AsyncClient:  # noqa: ANN401  httpx's own arguments
        """Make an `httpx.AsyncClient` that calls the API for the user."""
        from wise_creds._clients import async_client

        return async_client(self._wiring(options, self._cache), options)

    def discard(self) -> None:
        """Forget the access token; the next one is asked for when it is needed."""
        self._cache.reset()

    def close(self) -> None:
        """Forget the tokens; a refresh token that could not be stored is lost with them."""
        self._cache.close()
