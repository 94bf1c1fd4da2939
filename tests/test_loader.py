"""From sources to credentials: in parallel, under one deadline, everything wrong at once."""

from __future__ import annotations

import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from support import CLIENT_ID, Material, leaks, write_fields

import wise_creds
from wise_creds import LoadError, Namespace, Options, PluginError, ProviderError, Secret, SecretDocument, _registry
from wise_creds.clock import Clock
from wise_creds.provider import ConfigPath, Staging, option_problem

MATERIAL = Material()


class Inner(Options):
    """Options may nest."""

    be_there: int


class StubOptions(Options):
    """What a foreign plug-in might ask for."""

    fields: dict[str, Any] = {}
    behave: str = ""
    place: ConfigPath | None = None
    even: int = 2
    must: Inner | None = None

    def model_post_init(self, _context: object) -> None:
        if self.even % 2:
            raise option_problem("must be even", hint="add one")


class StubProvider:
    """A foreign plug-in that does what its options say."""

    Options = StubOptions
    release = threading.Event()
    closed: list[str] = []

    def __init__(self, options: StubOptions, *, namespace: Namespace, environ: Mapping[str, str], clock: Clock) -> None:
        if options.behave == "cannot be made":
            raise ValueError("canary-from-the-sdk")
        if options.behave == "exits at once":
            raise SystemExit
        self._options = options

    def fetch(self, *, deadline: float, version: str | None = None) -> SecretDocument:
        behave = self._options.behave
        if behave == "hangs":
            StubProvider.release.wait(30)
        if behave == "fails":
            raise ValueError("canary-from-the-sdk")
        if behave == "misses":
            import no_such_sdk  # type: ignore[import-not-found]  # noqa: F401
        if behave == "exits":
            raise SystemExit
        fields = {name: Secret(value, name=name) for name, value in self._options.fields.items()}
        return SecretDocument(fields=fields, version="7", location=f"stub {self._options.place or ''}".strip())

    def probe(self, *, deadline: float) -> str | None:
        return None

    def close(self) -> None:
        StubProvider.closed.append(self._options.behave)
        if self._options.behave == "fails":
            raise ValueError("canary-from-the-sdk")


@pytest.fixture(autouse=True)
def _plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "site" / "stub-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: stub\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[wise_creds.providers]\nstub = stub_plugin:StubProvider [sdk]\n")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.setitem(sys.modules, "stub_plugin", sys.modules[__name__])
    StubProvider.release.clear()
    StubProvider.closed.clear()


def _failed(table: dict[str, Any]) -> LoadError:
    with pytest.raises(LoadError) as caught:
        wise_creds.load("sandbox", config={"sandbox": table})
    return caught.value


def test_fields_of_several_sources_make_one_set(tmp_path: Path) -> None:
    """Versions and places of both are kept."""
    write_fields(tmp_path / "pem", {"certificate": MATERIAL.issued.pem, "private_key": MATERIAL.issued.key_pem})
    stub = {"provider": "stub", "fields": {"client_id": CLIENT_ID, "client_secret": "s"}}
    made = wise_creds.load("sandbox", config={"sandbox": {"source": [stub, {"provider": "files", "directory": "pem"}]}})
    assert made.sources == ("stub", str(tmp_path / "pem"))
    assert made.version.startswith("7+")
    assert made.certificate is not None


def test_a_field_given_twice_names_both_places(tmp_path: Path) -> None:
    """Neither wins."""
    write_fields(tmp_path / "one", {"client_id": "a"})
    error = _failed(
        {"source": [{"provider": "stub", "fields": {"client_id": "b"}}, {"provider": "files", "directory": "one"}]}
    )
    assert (error.code, error.location, error.message) == (
        "WC311", f"{tmp_path / 'one'}: client_id", "also given by stub: client_id",
    )  # fmt: skip


def test_a_hanging_source_is_named_at_the_deadline_and_the_rest_is_told_as_well() -> None:
    """A hung mount, a dead server: wall time."""
    source = [{"provider": "stub", "behave": "hangs"}, {"provider": "files", "directory": "nowhere"}]
    error = _failed({"source": source, "deadline": 0.2})
    StubProvider.release.set()
    assert [(one.code, one.namespace) for one in error.errors] == [("WC304", "sandbox"), ("WC301", "sandbox")]
    assert error.errors[0].location == "config: sandbox.source[0]"
    assert (error.errors[0].retryable, error.retryable) == (True, False)


def test_a_foreign_failure_is_named_by_type_and_place_only() -> None:
    """And a provider that fails to close disturbs nobody."""
    error = _failed({"provider": "stub", "behave": "fails"})
    assert (error.code, type(error.errors[0])) == ("WC399", ProviderError)
    assert "ValueError at test_loader.py:" in str(error)
    assert leaks({"sdk": "canary-from-the-sdk"}, str(error)) == []
    assert StubProvider.closed == ["fails"]


def test_a_provider_that_cannot_be_made_is_named() -> None:
    """The same for its constructor."""
    error = _failed({"provider": "stub", "behave": "cannot be made"})
    assert (error.code, error.location, type(error.errors[0])) == ("WC124", "config: sandbox.provider", PluginError)
    assert leaks({"sdk": "canary-from-the-sdk"}, str(error)) == []
    with pytest.raises(SystemExit):
        wise_creds.load("sandbox", config={"sandbox": {"provider": "stub", "behave": "exits at once"}})


def test_an_sdk_that_is_missing_later_says_what_to_install() -> None:
    """The import stands inside the method."""
    error = _failed({"provider": "stub", "behave": "misses"})
    assert (error.code, error.hint, type(error.errors[0])) == ("WC123", "pip install 'stub[sdk]'", PluginError)


def test_a_provider_that_exits_does_not_end_the_caller_silently() -> None:
    """SystemExit keeps its type."""
    with pytest.raises(SystemExit):
        wise_creds.load("sandbox", config={"sandbox": {"provider": "stub", "behave": "exits"}})


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"colour": 1}, ("WC103", "config: sandbox.colour", None)),
        ({"behav": "x"}, ("WC103", "config: sandbox.behav", "did you mean behave?")),
        ({"refresh_att": 0.5}, ("WC103", "config: sandbox.refresh_att", "did you mean refresh_at?")),
        ({"base-url": "x"}, ("WC103", "config: sandbox.base-url", "did you mean base_url?")),
        ({"even": 3}, ("WC105", "config: sandbox", "add one")),
        ({"even": "x"}, ("WC105", "config: sandbox.even", None)),
        ({"must": {}}, ("WC104", "config: sandbox.must.be_there", None)),
        ({"must": {"be_there": 1, "no": 2}}, ("WC103", "config: sandbox.must.no", None)),
        ({"api_key": "canary-inline-key"}, ("WC107", "config: sandbox.api_key", None)),
    ],
)
def test_options_are_checked_against_the_plug_ins_model(
    options: dict[str, Any], expected: tuple[str, str, str | None]
) -> None:
    """In our words and with the key's place."""
    error = _failed({"provider": "stub", **options})
    assert (error.code, error.location) == expected[:2]
    assert expected[2] is None or error.hint == expected[2]
    assert leaks({"inline": "canary-inline-key"}, str(error)) == []


def test_required_and_exclusive_options_of_files_are_told() -> None:
    """The first plug-in uses the same door."""
    assert _failed({"provider": "files"}).message == "needs exactly one of directory and file"
    assert _failed({"provider": "files", "file": 5}).code == "WC105"
    assert _failed({"provider": "files", "directory": "x", "fields": {"client_id": "../x"}}).code == "WC105"


def test_a_field_that_fields_leaves_out_is_said_to_be_there(tmp_path: Path) -> None:
    """With a directory, `fields` names all that is read."""
    write_fields(tmp_path / "s", MATERIAL.fields)
    error = _failed({"provider": "files", "directory": "s", "fields": {"client_id": "client_id"}})
    assert error.hint == 'it is there, but fields names all that is read: add client_secret = "client_secret" to it'


def test_configuration_and_plug_in_problems_come_together() -> None:
    """Nothing is read then."""
    error = _failed({"source": [{"provider": "fils", "directory": "x"}, {"provider": "stub", "even": 1}], "mtls": "no"})
    assert [(one.code, one.location) for one in error.errors] == [
        ("WC105", "config: sandbox.mtls"),
        ("WC121", "config: sandbox.source[0].provider"),
        ("WC105", "config: sandbox.source[1]"),
    ]
    assert error.errors[1].hint == "did you mean files?"
    assert isinstance(error.errors[1], PluginError)


def test_places_show_the_template(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those that a provider or the material check names."""
    monkeypatch.setenv("WHERE", "canary-folder-77")
    write_fields(tmp_path / "canary-folder-77", {"client_id": ""})
    error = _failed({"provider": "files", "directory": "${WHERE}"})
    assert error.errors[0].location == f"{tmp_path}/${{WHERE}}: client_id"
    assert leaks({"folder": "canary-folder-77"}, str(error)) == []


def test_allow_readable_by_is_handed_to_sources_that_know_it(tmp_path: Path) -> None:
    """It stands beside the sources."""
    for path in write_fields(
        tmp_path / "pem", {k: v for k, v in MATERIAL.fields.items() if k != "environment"}
    ).iterdir():
        path.chmod(0o640)
    source = [
        {"provider": "files", "directory": "pem"},
        {"provider": "stub", "fields": {"environment": "production"}},
    ]
    with pytest.raises(LoadError):
        wise_creds.load("production", config={"production": {"source": source}})
    made = wise_creds.load("production", config={"production": {"source": source, "allow_readable_by": "group"}})
    assert made.namespace is Namespace.PRODUCTION


def test_a_defect_of_the_check_is_an_error_and_not_a_crash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Named by type and place."""
    write_fields(tmp_path / "good", MATERIAL.fields)

    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("canary-defect")

    monkeypatch.setattr("wise_creds.credentials.judge_pair", broken)
    error = _failed({"provider": "files", "directory": "good"})
    assert "unexpected ZeroDivisionError" in str(error)
    assert leaks({"defect": "canary-defect"}, str(error)) == []


def test_the_staging_half_of_the_contract_is_optional() -> None:
    """A provider says by its methods whether its store can hold a pending version."""
    assert not isinstance(StubProvider, Staging)
    assert _registry.find("stub") is StubProvider
