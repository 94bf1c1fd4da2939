"""Secret and Token show nothing but what they are asked to reveal."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import inspect
import json
import pickle
import sys
import traceback
from collections.abc import Callable
from typing import Any

import pytest
from support import leaks

from wise_creds import CredentialsError, Secret, Token
from wise_creds.clock import SYSTEM_CLOCK
from wise_creds.secret import inside_shield

VALUE = "canary-value-7f3a"
CANARY = {"value": VALUE}


@dataclasses.dataclass
class _Naive:
    """What everybody writes first: the control in which the detector must fire."""

    value: str

    def __format__(self, spec: str) -> str:
        return repr(self)


@dataclasses.dataclass
class _Holder:
    secret: object


def _token() -> Token:
    return Token(Secret(VALUE), scope=None, expires_boot=1e12, expires_wall=2e9, clock=SYSTEM_CLOCK)


def _fails(subject: object) -> str:
    def failing(_subject: object) -> None:
        raise ValueError

    try:
        failing(subject)
    except ValueError as error:
        return "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
    raise AssertionError


async def _task(subject: object) -> str:
    async def same(it: object) -> object:
        return it

    task = asyncio.ensure_future(same(subject))
    await task
    return repr(task)


RENDERINGS: dict[str, Callable[[Any], str]] = {
    "repr": repr,
    "str": str,
    "format": lambda it: f"{it} {it:>40} {it!r} {it!s}",
    "percent": lambda it: "%s %r" % (it, it),  # noqa: UP031  a form of its own
    "attributes": lambda it: f"{it.__class__} {it.__slots__}" if hasattr(it, "__slots__") else str(vars(it)),
    "vars of a holder": lambda it: str(vars(_Holder(it))),
    "asdict": lambda it: str(dataclasses.asdict(_Holder(it))),
    "getmembers": lambda it: str([pair for pair in inspect.getmembers(it) if not callable(pair[1])]),
    "json": lambda it: json.dumps({"it": it}, default=str),
    "locals in a traceback": _fails,
    "task": lambda it: asyncio.run(_task(it)),
    "copy": lambda it: repr(copy.deepcopy([copy.copy(it)])),
}


@pytest.mark.parametrize("name", RENDERINGS)
@pytest.mark.parametrize("make", [lambda: Secret(VALUE, name="client_secret"), _token], ids=["Secret", "Token"])
def test_no_rendering_shows_the_value(make: Callable[[], object], name: str) -> None:
    """Masked in every way in which objects end up in logs."""
    assert leaks(CANARY, RENDERINGS[name](make())) == []


@pytest.mark.parametrize("name", [name for name in RENDERINGS if name != "attributes"])
def test_the_detector_fires_for_a_naive_class(name: str) -> None:
    """The control: the same renderings of a dataclass do show it."""
    assert leaks(CANARY, RENDERINGS[name](_Naive(VALUE))) == ["value"]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("subject", [Secret(VALUE), _token()], ids=["Secret", "Token"])
def test_it_is_never_pickled(subject: object, protocol: int) -> None:
    """Neither by pickle nor by what builds upon it."""
    with pytest.raises(TypeError, match="never pickled"):
        pickle.dumps(subject, protocol)
    with pytest.raises(TypeError, match="never pickled"):
        subject.__getstate__()


def test_the_value_has_no_attribute_name() -> None:
    """The slot works, but nothing leads to it by name."""
    secret = Secret(VALUE, name="n")
    for name in ("_value", "_name", "_Secret__value", "__dict__"):
        assert not hasattr(secret, name)
    with pytest.raises(AttributeError):
        secret._value = b"other"  # type: ignore[attr-defined]
    assert secret.reveal() == VALUE


def test_it_gives_text_and_bytes_back_whole() -> None:
    """No stripping, no decoding."""
    assert Secret(" a\n").reveal() == " a\n"
    assert Secret(b"\xff\x00").reveal_bytes() == b"\xff\x00"
    assert Secret("é").reveal_bytes() == "é".encode()


def test_bytes_that_are_no_text_are_an_error_without_the_bytes() -> None:
    """A binary secret asked for as text says what it is, not what it holds."""
    with pytest.raises(CredentialsError, match="pkcs12 is not UTF-8") as caught:
        Secret(b"\xff" + VALUE.encode(), name="pkcs12").reveal()
    rendered = "".join(traceback.TracebackException.from_exception(caught.value, capture_locals=True).format()).replace(
        f"VALUE = '{VALUE}'", ""
    )
    assert (caught.value.code, caught.value.__context__) == ("WC405", None)
    assert "raw =" not in rendered


def test_it_compares_with_secrets_only() -> None:
    """Equality works between Secrets, says no to anything else, and there is no hash."""
    assert Secret("a") == Secret(b"a", name="other")
    assert Secret("a") != Secret("b")
    assert Secret("a") != "a"
    with pytest.raises(TypeError):
        hash(Secret("a"))


def test_it_takes_text_or_bytes_only() -> None:
    """A wrong type is refused without being quoted."""
    with pytest.raises(TypeError, match="holds str or bytes"):
        Secret(12345678)  # type: ignore[arg-type]


def test_it_cannot_be_subclassed() -> None:
    """A subclass could show the value."""
    with pytest.raises(TypeError, match="subclassed"):
        type("Open", (Secret,), {})


def test_copies_are_the_same_object() -> None:
    """Nothing is duplicated in memory."""
    for subject in (Secret(VALUE), _token()):
        assert copy.copy(subject) is subject
        assert copy.deepcopy(subject) is subject


def test_revealing_is_audited_outside_the_shield_only() -> None:
    """Whoever wants to know who reads secrets installs an audit hook; our own work makes no noise."""
    heard: list[tuple[str, object]] = []
    listening = True

    def hook(event: str, args: tuple[object, ...]) -> None:
        if listening and event == "wise_creds.reveal":
            heard.append((event, args))

    sys.addaudithook(hook)
    Secret(VALUE, name="client_secret").reveal()
    inside = inside_shield.set(True)
    Secret(VALUE, name="other").reveal()
    inside_shield.reset(inside)
    listening = False
    assert heard == [("wise_creds.reveal", ("client_secret",))]


def test_a_foreign_name_breaks_no_line() -> None:
    """Names come from stores."""
    assert repr(Secret("v", name="a\nb\x1b\u202e")) == "<Secret a\\nb\\x1b\\u202e **********>"


def test_a_token_gives_what_it_is_asked_for() -> None:
    """Header, value and seconds left."""
    token = _token()
    assert (token.authorization(), token.reveal(), token.token_type) == (f"Bearer {VALUE}", VALUE, "bearer")
    assert token.remaining() > 0
    assert repr(token) == "<Token ********** expires_at=2033-05-18T03:33:20Z>"
