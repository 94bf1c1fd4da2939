"""The error tree: codes, hints, and messages that break no log."""

from __future__ import annotations

import copy
import pickle
import re
from pathlib import Path

import pytest

from wise_creds import errors
from wise_creds.errors import ConfigError, LoadError, Notice, TokenRejectedError, WiseCredsError, printable

ROOT = Path(__file__).parent.parent
CLASSES = [item for item in vars(errors).values() if isinstance(item, type) and issubclass(item, WiseCredsError)]


def test_a_message_names_code_place_matter_and_remedy() -> None:
    """One line says all that the person on call needs."""
    error = ConfigError("unknown key", code="WC103", namespace="sandbox", location="x.toml: a", hint="did you mean b?")
    assert str(error) == "WC103 sandbox: x.toml: a: unknown key (hint: did you mean b?)"
    assert str(ConfigError("no namespace", code="WC108")) == "WC108 no namespace"


def test_a_token_error_carries_status_and_trace_id() -> None:
    """Wise's support asks for the trace id."""
    error = TokenRejectedError("refused", code="WC501", status=401, trace_id="abc\n::error::")
    assert (error.status, error.trace_id) == (401, "abc\\n::error::")
    assert str(error) == "WC501 refused [x-trace-id abc\\n::error::]"


HOSTILE = ["a\nb", "a\rb", "\x1b[31mred", "::error::x", "]]>", "\u202egnirts", "\x00", "é", "\udcff", "x" * 500]


@pytest.mark.parametrize("text", HOSTILE)
def test_foreign_text_is_printable_ascii_of_bounded_length(text: str) -> None:
    """Whatever a store, a file name or a header holds."""
    shown = printable(text)
    assert re.fullmatch(r"[\x20-\x7e]{1,128}", shown)
    for error in (ConfigError(text, location=text, namespace=text, hint=text), LoadError([ConfigError(text)])):
        assert re.fullmatch(r"[\x20-\x7e]+", str(error))


def test_long_text_keeps_both_ends() -> None:
    """The end of a path says more than its middle."""
    assert printable("a" * 200 + "/client_id").endswith("/client_id")
    assert printable("a" * 128) == "a" * 128


def test_a_load_error_is_its_first_problem_and_lists_all() -> None:
    """Code, place and hint are the first one's; it is retryable only if each is."""
    first = errors.ProviderUnavailableError("down", code="WC303", namespace="sandbox", location="l", hint="h")
    both = LoadError([first, ConfigError("bad", code="WC105")])
    assert (both.code, both.location, both.hint, both.namespace) == ("WC303", "l", "h", "sandbox")
    assert (both.retryable, LoadError([first]).retryable) == (False, True)
    assert str(both) == "2 problems\n  WC303 sandbox: l: down (hint: h)\n  WC105 bad"
    assert str(LoadError([first])) == str(first)


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_errors_survive_copy_and_pickle(kind: type[WiseCredsError]) -> None:
    """They hold no value, so they may cross processes."""
    error = LoadError([ConfigError("m", code="WC105")]) if kind is LoadError else kind("m", code="WC105", hint="h")
    for again in (copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert (type(again), str(again), vars(again).keys()) == (kind, str(error), vars(error).keys())


def test_the_drawing_in_the_docstring_is_the_tree() -> None:
    """What is drawn is what there is."""
    drawn = set(re.findall(r"\b(\w+Error)\b", errors.__doc__ or ""))
    assert drawn == {kind.__name__ for kind in CLASSES}


def test_retryable_is_a_property_of_the_class_unless_said_otherwise() -> None:
    """Could not ask, against asked and refused."""
    assert [kind.__name__ for kind in CLASSES if kind.retryable] == [
        "ProviderUnavailableError", "TokenUnavailableError",
    ]  # fmt: skip
    assert errors.TokenUnavailableError("untrusted", retryable=False).retryable is False


def test_a_notice_reads_like_an_error() -> None:
    """The same order of words in logs."""
    assert str(Notice(code="WC425", message="ends soon", namespace="sandbox", location="c", hint="renew")) == (
        "WC425 sandbox: c: ends soon (hint: renew)"
    )


def test_every_code_in_the_sources_is_documented_once() -> None:
    """docs/errors.md and the code name the same codes."""
    used = set()
    for folder in ("wise_creds", "providers"):
        for path in (ROOT / folder).rglob("*.py"):
            used |= set(re.findall(r'"(WC\d{3})"', path.read_text()))
    documented = re.findall(r"^\| (WC\d{3}) ", (ROOT / "docs/errors.md").read_text(), re.MULTILINE)
    assert (sorted(used), len(documented)) == (sorted(documented), len(set(documented)))
