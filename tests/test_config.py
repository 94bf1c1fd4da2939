"""wise-creds.toml: what is accepted, what is refused, and in which words."""

from __future__ import annotations

import os
import traceback
from pathlib import Path
from typing import Any

import pytest
from support import leaks

from wise_creds import ConfigError, Namespace, WiseCredsError
from wise_creds.config import choose_namespace, namespace_config, read_config

S, P = Namespace.SANDBOX, Namespace.PRODUCTION
SOURCE = {"provider": "files", "directory": "secrets"}


def _errors(table: Any, namespace: Namespace = S, environ: dict[str, str] | None = None) -> list[WiseCredsError]:
    return list(namespace_config(read_config({namespace.value: table}, environ or {}), namespace).errors)


def _told(table: Any, **kwargs: Any) -> list[tuple[str, str | None, str | None]]:
    return [(error.code, error.location, error.hint) for error in _errors(table, **kwargs)]


def test_the_shortest_configuration_is_a_provider_and_its_place() -> None:
    """Everything else has a default."""
    found = namespace_config(read_config({"sandbox": SOURCE}, {}), S)
    assert (found.errors, found.notices, found.mtls) == ((), (), True)
    assert [(source.provider, dict(source.options)) for source in found.sources] == [
        ("files", {"directory": "secrets"})
    ]
    assert (found.options.refresh_at, found.options.deadline, found.options.token_scope) == (0.8, 10.0, "thread")


def test_several_sources_stand_in_tables_of_their_own() -> None:
    """Instead of `provider`, not beside it."""
    table = {"source": [{"provider": "a", "x": 1}, {"provider": "b"}]}
    found = namespace_config(read_config({"sandbox": table}, {}), S)
    assert [(source.provider, source.place) for source in found.sources] == [
        ("a", "config: sandbox.source[0]"), ("b", "config: sandbox.source[1]"),
    ]  # fmt: skip
    beside = _told({"provider": "files", **table})
    assert [(code, where) for code, where, _ in beside] == [("WC103", "config: sandbox.provider")]


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        (None, [("WC109", "config")]),
        (7, [("WC109", "config")]),
        ({}, [("WC110", "config: sandbox")]),
        ({"source": []}, [("WC110", "config: sandbox")]),
        ({"source": {"provider": "files"}}, [("WC110", "config: sandbox")]),
        ({"source": [3]}, [("WC110", "config: sandbox.source[0]")]),
        ({"source": [{"provider": ""}]}, [("WC110", "config: sandbox.source[0]")]),
        ({"source": [{"provider": 5}]}, [("WC110", "config: sandbox.source[0]")]),
        ({**SOURCE, "deadline": 0}, [("WC105", "config: sandbox.deadline")]),
        ({**SOURCE, "deadline": "soon"}, [("WC105", "config: sandbox.deadline")]),
        ({**SOURCE, "refresh_at": 1.0}, [("WC105", "config: sandbox.refresh_at")]),
        ({**SOURCE, "watch": -1}, [("WC105", "config: sandbox.watch")]),
        ({**SOURCE, "mtls": "maybe"}, [("WC105", "config: sandbox.mtls")]),
        ({**SOURCE, "allow_hosts": "x"}, [("WC105", "config: sandbox.allow_hosts")]),
        ({**SOURCE, "allow_hosts": ["x", 1]}, [("WC105", "config: sandbox.allow_hosts[1]")]),
        ({**SOURCE, "proxy": "http://user:pass@proxy:1"}, [("WC105", "config: sandbox.proxy")]),
        ({**SOURCE, "proxy": "https://proxy:1"}, [("WC105", "config: sandbox.proxy")]),
        ({**SOURCE, "expect_client_id": "sha256:abc"}, [("WC105", "config: sandbox.expect_client_id")]),
        ({**SOURCE, "base_url": "https://api.wise.com"}, [("WC201", "config: sandbox.base_url")]),
        (
            {**SOURCE, "base_url": "http://localhost:1", "mtls": "off", "proxy": "http://proxy:1"},
            [("WC213", "config: sandbox.proxy")],
        ),
        (
            {**SOURCE, "base_url": "https://${A b}"},
            [("WC106", "config: sandbox.base_url"), ("WC204", "config: sandbox.base_url")],
        ),
    ],
)
def test_what_is_wrong_is_named_by_code_and_place(table: Any, expected: list[tuple[str, str]]) -> None:
    """Every kind of mistake in the namespace's own keys."""
    assert [(code, where) for code, where, _ in _told(table)] == expected


def test_all_problems_come_at_once() -> None:
    """Nobody likes to mend one at a time."""
    table = {"source": [{}], "mtls": 1, "deadline": -1, "colour": "red", "base_url": "https://api.wise.com"}
    assert sorted(error.code for error in _errors(table)) == ["WC103", "WC105", "WC105", "WC110"]


def test_a_misspelt_key_is_recognised() -> None:
    """The remedy is in the hint."""
    several = {"source": [SOURCE], "refresh_att": 0.5}
    assert _told(several) == [("WC103", "config: sandbox.refresh_att", "did you mean refresh_at?")]
    config = read_config({"sandbox": SOURCE, "prodution": {}}, {})
    assert [(e.code, e.location, e.hint) for e in namespace_config(config, S).errors] == [
        ("WC103", "config: prodution", "did you mean production?")
    ]


@pytest.mark.parametrize("key", ["client_secret", "private_key", "password", "token", "pkcs12_password", "secret_id"])
def test_a_secret_in_the_configuration_is_refused_and_not_repeated(key: str) -> None:
    """Whatever it is called, and wherever it stands."""
    canary = {"value": "canary-inline-3e8a"}
    errors = _errors({"source": [SOURCE], key: canary["value"]})
    assert [(error.code, error.location) for error in errors] == [("WC107", f"config: sandbox.{key}")]
    assert leaks(canary, *map(str, errors)) == []


@pytest.mark.parametrize(("key", "value"), [("mtls", "off"), ("private_key_loading", "encrypted-file")])
def test_relaxations_are_for_sandbox_only(key: str, value: str) -> None:
    """Production has no switch that weakens it."""
    assert [error.code for error in _errors({**SOURCE, key: value}, namespace=P)] == ["WC209"]
    assert _errors({**SOURCE, key: value}) == []


def test_variables_are_expanded_once_in_strings() -> None:
    """At any depth; a value that looks like a reference stays as it is."""
    table = {
        "provider": "files", "directory": "${HOME}/${SUB:-secrets}", "deadline": "${SECONDS}",
        "fields": {"client_id": "${NAME:-id}"}, "list": ["${HOME}", 3],
    }  # fmt: skip
    environ = {"HOME": "/home/${SUB}", "SECONDS": "2.5", "NAME": ""}
    found = namespace_config(read_config({"sandbox": table}, environ), S)
    assert (found.errors, found.options.deadline) == ((), 2.5)
    assert dict(found.sources[0].options) == {
        "directory": "/home/${SUB}/secrets", "fields": {"client_id": "id"}, "list": ["/home/${SUB}", 3],
    }  # fmt: skip


def test_an_unset_variable_is_an_error_with_the_remedy() -> None:
    """Empty is not unset."""
    assert _told({**SOURCE, "directory": "${NOWHERE}"}) == [
        ("WC106", "config: sandbox.directory", "set it, or write ${NOWHERE:-default}")
    ]
    assert _errors({**SOURCE, "directory": "x${EMPTY}"}, environ={"EMPTY": ""}) == []


def test_pins_and_names_are_never_expanded() -> None:
    """An expansion there could turn a pin into what it should catch."""
    environ = {"X": "sha256:0123456789abcdef", "P": "files"}
    assert [error.code for error in _errors({**SOURCE, "expect_client_id": "${X}"}, environ=environ)] == ["WC105"]
    assert [error.code for error in _errors({**SOURCE, "allow_hosts": ["${P}"]}, environ=environ)] == ["WC204"]
    found = namespace_config(read_config({"sandbox": {"provider": "${P}", "token_env": "${X}"}}, environ), S)
    assert (found.sources[0].provider, dict(found.sources[0].options)) == ("${P}", {"token_env": "${X}"})


def test_messages_show_the_template_and_not_what_it_became() -> None:
    """An environment may hold more than its user thinks."""
    canary = {"value": "canary-host.example"}
    table = {**SOURCE, "base_url": "https://${GATEWAY}/x"}
    (error,) = _errors(table, environ={"GATEWAY": canary["value"]})
    assert (error.code, leaks(canary, str(error))) == ("WC202", [])
    assert error.message.startswith("${GATEWAY} is not a host of sandbox")
    short = _errors(table, environ={"GATEWAY": "x"})
    assert "x is not a host" in short[0].message


def test_a_hostile_key_breaks_no_line() -> None:
    """Keys are foreign text."""
    table = {"source": [SOURCE], "a\nb\x1b[0m::error::\u202e]]>": 1}
    (error,) = _errors(table)
    assert error.location == "config: sandbox.a\\nb\\x1b[0m::error::\\u202e]]>"


def test_the_namespace_is_never_guessed() -> None:
    """Argument first, then the variable, else an error."""
    assert choose_namespace("sandbox", {"WISE_CREDS_NAMESPACE": "production"}) is S
    assert choose_namespace(None, {"WISE_CREDS_NAMESPACE": "production"}) is P
    for given, hint in ((None, "say "), ("", "say "), ("prod", "did you mean production?"), ("xyzzy", "say sandbox")):
        with pytest.raises(ConfigError) as caught:
            choose_namespace(given, {})
        assert caught.value.code == "WC108"
        assert (caught.value.hint or "").startswith(hint)


def test_the_file_is_found_by_argument_variable_or_place(tmp_path: Path) -> None:
    """In this order; relative paths inside start at the file's folder."""
    for name in ("argument.toml", "variable.toml", "wise-creds.toml"):
        (tmp_path / name).write_text("[sandbox]\n")
    environ = {"WISE_CREDS_CONFIG": str(tmp_path / "variable.toml")}
    assert read_config(tmp_path / "argument.toml", environ).name.endswith("argument.toml")
    assert read_config(None, environ).name.endswith("variable.toml")
    assert read_config(None, {}).name == "wise-creds.toml"
    assert read_config(None, {}).base == Path.cwd()
    assert read_config({}, {}).base == Path.cwd()


@pytest.mark.parametrize(
    ("content", "code", "place"),
    [
        (b"[sandbox\n", "WC102", ":1"),
        (b"[sandbox]\nx = 1\ny = = 2\n", "WC102", ":3"),
        (b"\xff\xfe", "WC102", ":1"),
        (b"#" * 1_048_577, "WC101", ""),
    ],
    ids=["open", "third line", "binary", "large"],
)
def test_a_file_that_is_not_toml_is_said_to_be_none(tmp_path: Path, content: bytes, code: str, place: str) -> None:
    """With the line, without the text."""
    path = tmp_path / "c.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        read_config(path, {})
    assert caught.value.code == code
    assert (caught.value.location or "").endswith(f"c.toml{place}")
    assert caught.value.__context__ is None


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """Missing, a directory, a device, a FIFO that nobody fills, or an impossible name."""
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "no.toml", tmp_path, "a\0b", "/dev/null", tmp_path / "pipe"):
        with pytest.raises(ConfigError) as caught:
            read_config(path, {})
        assert caught.value.code == "WC101"


def test_a_broken_file_with_a_secret_in_it_is_not_shown(tmp_path: Path) -> None:
    """Not even by a traceback with locals."""
    path = tmp_path / "c.toml"
    path.write_text('[sandbox]\nclient_secret = "canary-inline-5b5b\n')
    with pytest.raises(ConfigError) as caught:
        read_config(path, {})
    rendered = "".join(traceback.TracebackException.from_exception(caught.value, capture_locals=True).format())
    assert (caught.value.code, leaks({"inline": "canary-inline-5b5b"}, rendered)) == ("WC102", [])


def test_a_byte_order_mark_is_forgiven(tmp_path: Path) -> None:
    """Some editors write one."""
    (tmp_path / "c.toml").write_bytes(b"\xef\xbb\xbf[sandbox]\n")
    assert read_config(tmp_path / "c.toml", {}).namespaces() == [S]


def test_a_file_that_others_may_write_is_an_error_in_production(tmp_path: Path) -> None:
    """Whoever writes it decides where the secret goes."""
    path = tmp_path / "c.toml"
    path.write_text("".join(f'[{name}]\nprovider = "files"\ndirectory = "x"\n' for name in Namespace))
    os.chmod(path, 0o666)  # noqa: PTH101
    config = read_config(path, {})
    assert [[e.code for e in namespace_config(config, one).errors] for one in (S, P)] == [[], ["WC111"]]


def test_a_personal_token_goes_without_mtls_in_either_namespace() -> None:
    """To the TLS-only host."""
    found = namespace_config(read_config({"production": {**SOURCE, "grant": "personal_token"}}, {}), P)
    assert (found.errors, found.mtls, found.endpoints.base_url) == ((), False, "https://api.wise.com")
