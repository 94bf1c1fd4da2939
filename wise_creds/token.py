"""The access token: opaque, masked, in memory only; and the strict reading of Wise's answer."""

from __future__ import annotations

import json
import re
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NoReturn, cast, final

from wise_creds.clock import Clock
from wise_creds.errors import TokenResponseError
from wise_creds.secret import MASK, Secret

LONGEST_LIFE = 31_622_400  # 366 days; Wise says 43 200. More is a defect that would switch renewal off
_HEADER_VALUE = re.compile(r"[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?")


class _Bearer(str):
    """A header's value that can be referred to weakly."""

    __slots__ = ("__weakref__",)


@final
class Token:
    """
    An access token (RFC 6749 section 1.4), as masked as a Secret.

    Made by the token fetcher; its value comes out of `reveal` and `authorization` only, and it cannot be pickled.
    """

    __slots__ = ("_clock", "_expires_boot", "_header", "expires_at", "scope", "token_type")

    expires_at: datetime
    """When it ends, UTC, counted from before the request was sent."""
    scope: str | None
    """As Wise named it, or None."""
    token_type: str
    """`"bearer"`."""

    def __init__(
        self, value: Secret, *, scope: str | None, expires_boot: float, expires_wall: float, clock: Clock
    ) -> None:
        _HEADER.__set__(self, _Bearer(f"Bearer {value.reveal()}"))
        self.scope = scope
        self.token_type = "bearer"  # noqa: S105  the kind, not a token
        self.expires_at = datetime.fromtimestamp(expires_wall, UTC)
        self._expires_boot = expires_boot
        self._clock = clock

    def reveal(self) -> str:
        """Give the token itself."""
        return self.authorization().removeprefix("Bearer ")

    def authorization(self) -> str:
        """Give the value of an `Authorization` header, `"Bearer …"` (RFC 6750 section 2.1)."""
        header: str = _HEADER.__get__(self)
        return header

    def bearer(self) -> Callable[[], str]:
        """
        Give what gives `authorization`, for as long as this token is held; private to the token cache.

        A weak reference is the cheapest callable of CPython that shows nothing of what it leads to.
        """
        return cast("Callable[[], str]", weakref.ref(_HEADER.__get__(self)))

    def remaining(self) -> float:
        """Seconds until it ends, 0 when it has; on the boot clock, so that no step of the wall clock moves it."""
        return max(0.0, self._expires_boot - self._clock.boot())

    def __repr__(self) -> str:
        return f"<Token {MASK} expires_at={self.expires_at:%Y-%m-%dT%H:%M:%SZ}>"

    def __format__(self, _spec: str) -> str:
        return repr(self)

    def __reduce_ex__(self, _protocol: object) -> NoReturn:
        raise TypeError("a Token is never pickled")

    def __getstate__(self) -> NoReturn:
        raise TypeError("a Token is never pickled")

    def __copy__(self) -> Token:
        return self

    def __deepcopy__(self, _memo: object) -> Token:
        return self


_HEADER = Token.__dict__["_header"]
del Token._header  # type: ignore[attr-defined]  # noqa: SLF001


@dataclass(frozen=True, eq=False)
class TokenAnswer:
    """What a good answer of the token endpoint says; `expires_in` in seconds, a refresh token with users' grants."""

    access_token: Secret
    expires_in: int
    scope: str | None
    refresh_token: Secret | None = None


def read_token_answer(body: bytes) -> TokenAnswer:
    """
    Read the body of a 200 answer (RFC 6749 section 5.1); called within the shield.

    Raises:
        TokenResponseError: anything that is not exactly such an answer (WC509, the field is named).
    """
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        raise _unusable("the answer is not JSON") from None
    if not isinstance(answer, dict):
        raise _unusable("the answer is not a JSON object")
    token, kind, life, scope = (answer.get(key) for key in ("access_token", "token_type", "expires_in", "scope"))
    if not isinstance(token, str) or not token:
        raise _unusable("access_token is missing or empty")
    if not _HEADER_VALUE.fullmatch(token):
        raise _unusable("access_token holds a character that no header may carry")
    if not isinstance(kind, str) or kind.lower() != "bearer":
        raise _unusable("token_type is missing or not bearer")
    if type(life) is not int or not 1 <= life <= LONGEST_LIFE:
        raise _unusable(f"expires_in is not an integer from 1 to {LONGEST_LIFE}")
    if not (scope is None or isinstance(scope, str)):
        raise _unusable("scope is not a string")
    refresh = answer.get("refresh_token")
    if not (refresh is None or (isinstance(refresh, str) and refresh)):
        raise _unusable("refresh_token is not a string, or empty")
    return TokenAnswer(
        Secret(token, name="access_token"), life, scope, Secret(refresh, name="refresh_token") if refresh else None
    )


def scope_as_expected(token: Token, expected: Iterable[str] | None) -> bool:
    """Whether a token has exactly the scope that the configuration expects, if it expects one."""
    return expected is None or set(expected) == set((token.scope or "").split())


def _unusable(message: str) -> TokenResponseError:
    return TokenResponseError(
        message, code="WC509", status=200, hint="check token_url; if it is Wise's, report the trace id to Wise"
    )
