"""The strict reading of Wise's answers."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support import leaks

from wise_creds import TokenError, TokenRejectedError, TokenResponseError, TokenUnavailableError
from wise_creds._token_request import judged, retry_after
from wise_creds.token import LONGEST_LIFE, read_token_answer

GOOD: dict[str, Any] = {"access_token": "t" * 40, "token_type": "bearer", "expires_in": 43199, "scope": "transfers"}
BAD_TOKENS: list[Any] = ["", None, 5, ["t"], "a\r\nb", "a\tb", " a", "a ", "é", "\x7f"]
BAD_LIVES: list[Any] = [None, 0, -1, "43199", 43199.0, True, 10**18, LONGEST_LIFE + 1, []]
HTML = b"<html><body>canary-body-1234</body></html>"


@pytest.mark.parametrize(
    ("changes", "life", "scope"),
    [
        ({}, 43199, "transfers"),
        ({"token_type": "Bearer"}, 43199, "transfers"),
        ({"scope": None}, 43199, None),
        ({"expires_in": 1}, 1, "transfers"),
        ({"expires_in": LONGEST_LIFE}, LONGEST_LIFE, "transfers"),
        ({"expires_at": "nonsense", "more": [1]}, 43199, "transfers"),
    ],
)
def test_a_good_answer_is_read(changes: dict[str, Any], life: int, scope: str | None) -> None:
    """Token, life and scope; anything else is ignored."""
    answer = read_token_answer(json.dumps({**GOOD, **changes}).encode())
    assert (answer.access_token.reveal(), answer.expires_in, answer.scope) == (GOOD["access_token"], life, scope)


@pytest.mark.parametrize("token", ["x", "a b", "~" * 100_000, "eyJ.eyJ.sig", "a=b/+c"])
def test_a_token_is_opaque(token: str) -> None:
    """Neither length nor form is assumed, only that a header can carry it."""
    assert read_token_answer(json.dumps({**GOOD, "access_token": token}).encode()).access_token.reveal() == token


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        *(({"access_token": bad}, "access_token") for bad in BAD_TOKENS),
        *(({"token_type": bad}, "token_type") for bad in (None, "mac", 1, "")),
        *(({"expires_in": bad}, "expires_in") for bad in BAD_LIVES),
        ({"scope": 5}, "scope"),
        *(({"refresh_token": bad}, "refresh_token") for bad in (5, "")),
    ],
)  # fmt: skip
def test_anything_odd_is_refused_by_the_name_of_its_field(changes: dict[str, Any], field: str) -> None:
    """Nothing is cached that did not pass."""
    with pytest.raises(TokenResponseError, match=f"WC509 {field}"):
        read_token_answer(json.dumps({**GOOD, **changes}).encode())


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b'"token"', b"null", HTML, b"\xff", b"[" * 100_000, b'{"expires_in": ' + b"9" * 5_000 + b"}"],
    ids=["empty", "cut", "list", "string", "null", "html", "binary", "deep", "long number"],
)
def test_what_is_not_a_json_object_is_refused(body: bytes) -> None:
    """With the answer's status and without its text."""
    with pytest.raises(TokenResponseError) as caught:
        judged(200, {"x-trace-id": "t1"}, body, now=0)
    assert (caught.value.code, caught.value.status, caught.value.trace_id) == ("WC509", 200, "t1")
    assert leaks({"body": "canary-body-1234"}, str(caught.value)) == []


def _error(error: str) -> bytes:
    return json.dumps({"error": error, "error_description": "canary-described-token"}).encode()


@pytest.mark.parametrize(
    ("status", "body", "kind", "code"),
    [
        (401, _error("invalid_client"), TokenRejectedError, "WC501"),
        (400, _error("invalid_client"), TokenRejectedError, "WC501"),
        (400, _error("invalid_request"), TokenRejectedError, "WC503"),
        (401, _error("invalid_grant"), TokenRejectedError, "WC515"),
        (403, _error("canary-described-token"), TokenRejectedError, "WC503"),
        (401, b"{}", TokenRejectedError, "WC503"),
        (400, b'{"error": ["invalid_client"]}', TokenRejectedError, "WC503"),
        (400, HTML, TokenRejectedError, "WC502"),
        (403, HTML, TokenRejectedError, "WC502"),
        (401, b"", TokenRejectedError, "WC502"),
        (400, b"[]", TokenRejectedError, "WC502"),
        (429, b"{}", TokenUnavailableError, "WC504"),
        (429, _error("invalid_client"), TokenUnavailableError, "WC504"),
        (500, HTML, TokenUnavailableError, "WC505"),
        (503, _error("invalid_client"), TokenUnavailableError, "WC505"),
        (302, b"", TokenResponseError, "WC511"),
        (404, HTML, TokenResponseError, "WC512"),
        (204, b"", TokenResponseError, "WC512"),
        (422, _error("unauthorized_client"), TokenRejectedError, "WC503"),
    ],
)
def test_each_refusal_has_its_class_and_code(status: int, body: bytes, kind: type[TokenError], code: str) -> None:
    """By the `error` of RFC 6749 first, the status second; the description, which may hold a token, never."""
    with pytest.raises(kind) as caught:
        judged(status, {"x-trace-id": "t1"}, body, now=0)
    assert (caught.value.code, caught.value.status, caught.value.trace_id) == (code, status, "t1")
    assert leaks({"text": "canary-described-token", "html": "canary-body-1234"}, str(caught.value)) == []


def test_retry_after_is_read_as_seconds_or_as_a_date() -> None:
    """Anything else is no advice, and a date in the past is now."""
    now = 1_800_000_000.0
    values = [
        "5",
        "0",
        "Fri, 15 Jan 2027 08:00:10 GMT",
        "Fri, 15 Jan 2021 08:00:10 GMT",
        None,
        "",
        "-1",
        "soon",
        "9999999",
    ]
    assert [retry_after(value, now) for value in values] == [5.0, 0.0, 10.0, 0.0, None, None, None, None, None]
    with pytest.raises(TokenUnavailableError) as caught:
        judged(429, {"retry-after": "7"}, b"{}", now=0)
    assert caught.value.retry_after == 7.0
