"""validate: levels, statuses, verdicts, exit codes; through the same code as connect."""

from __future__ import annotations

import json
from datetime import timedelta
from itertools import product
from pathlib import Path
from typing import Any, get_args

import pytest
from support import CLIENT_ID, CLIENT_SECRET, Material, leaks, write_fields

import wise_creds
from wise_creds import ConfigError, Report, validate
from wise_creds.testing import MockWise
from wise_creds.validation import Result
from wise_creds.validation._report import Status


def told(report: Report) -> list[tuple[str, str, bool]]:
    return [(result.code, result.status, result.asked) for result in report.results]


def test_offline_says_what_it_did_not_try(mock_wise: MockWise) -> None:
    """Present is not verified; nothing is read and no socket is opened."""
    report = validate(config=mock_wise.config)
    assert told(report) == [
        ("WC100", "ok", True), ("WC200", "ok", True), ("WC300", "unverified", False), ("WC400", "unverified", False),
        ("WC500", "unverified", False),
    ]  # fmt: skip
    assert [result.hint for result in report.results[2:]] == ["--secrets", "--secrets", "--live"]
    assert (report.verdict, report.exit_code, mock_wise.requests) == ("ok", 0, [])


def test_secrets_reads_and_checks(mock_wise: MockWise) -> None:
    """And prints the pin to paste, and the certificate's facts."""
    report = validate("sandbox", config=mock_wise.config, level="secrets")
    assert told(report)[2:] == [("WC300", "ok", True), ("WC400", "ok", True), ("WC500", "unverified", False)]
    assert 'expect_client_id = "sha256:' in report.results[3].message
    assert "certificate ec-p256, 364 days left" in report.results[3].message
    assert (report.exit_code, mock_wise.requests) == (0, [])


def test_live_requests_a_token_and_drops_it(mock_wise: MockWise) -> None:
    """The last step of startup."""
    report = validate(config=mock_wise.config, level="live")
    assert told(report)[-1] == ("WC500", "ok", True)
    assert (report.exit_code, mock_wise.token_requests) == (0, 1)
    canaries = {
        "id": mock_wise.client_id,
        "secret": mock_wise.client_secret,
        "token": next(iter(mock_wise.state.tokens)),
    }
    assert leaks(canaries, report.as_text(), report.as_json(), repr(report)) == []


def test_a_refusal_is_a_finding_and_a_dead_network_is_undecided(mock_wise: MockWise) -> None:
    """1 means wrong, 3 means try again."""
    mock_wise.fail("invalid_client")
    refused = validate(config=mock_wise.config, level="live")
    mock_wise.fail("unavailable", times=9)
    dead = validate(config={"sandbox": {**mock_wise.table, "deadline": 0.5}}, level="live")
    assert (told(refused)[-1], refused.verdict, refused.exit_code) == (("WC501", "error", True), "findings", 1)
    assert (told(dead)[-1], dead.verdict, dead.exit_code) == (("WC505", "unverified", True), "unverified", 3)


def test_a_scope_other_than_expected_is_a_finding(mock_wise: MockWise) -> None:
    """More or fewer."""
    for scope, codes in ((["transfers"], "WC500"), (["transfers", "more"], "WC520"), ([], "WC520")):
        report = validate(config={"sandbox": {**mock_wise.table, "expect_scope": scope}}, level="live")
        assert report.results[-1].code == codes


@pytest.mark.parametrize("level", ["config", "secrets", "live"])
def test_steps_after_a_failed_one_are_skipped_within_the_level_asked_for(level: Any) -> None:
    """And unverified beyond it."""
    report = validate(config={"sandbox": {"provider": "nope"}}, level=level)
    asked = {"config": 0, "secrets": 2, "live": 3}[level]
    assert told(report) == [
        ("WC121", "error", True),
        *((code, "skipped" if at < asked else "unverified", at < asked)
          for at, code in enumerate(["WC300", "WC400", "WC500"])),
    ]  # fmt: skip
    assert report.exit_code == 1


def test_an_unreadable_source_and_bad_material_stop_the_next_step(tmp_path: Path) -> None:
    """With everything that was found until then."""
    table = {"provider": "files", "directory": "s"}
    missing = validate(config={"sandbox": table}, level="live")
    assert told(missing)[2:] == [("WC301", "error", True), ("WC400", "skipped", True), ("WC500", "skipped", True)]
    material = Material(ends=timedelta(days=5))
    write_fields(tmp_path / "s", {**material.fields, "client_secret": ""})
    bad = validate(config={"sandbox": table}, level="live")
    assert told(bad)[2:] == [
        ("WC300", "ok", True), ("WC402", "error", True), ("WC425", "warning", True), ("WC500", "skipped", True),
    ]  # fmt: skip
    assert leaks({"id": CLIENT_ID, "secret": CLIENT_SECRET}, bad.as_text(), bad.as_json()) == []


def test_strict_makes_warnings_findings() -> None:
    """For CI."""
    table = {"provider": "files", "directory": "s", "base_url": "https://api.wise-sandbox.com"}
    assert [validate(config={"sandbox": table}, strict=strict).exit_code for strict in (False, True)] == [0, 1]
    assert told(validate(config={"sandbox": table}))[2] == ("WC211", "warning", True)
    broken = validate(config={"sandbox": {**table, "provider": "nope"}})
    assert ("WC211", "warning", True) in told(broken)


def test_all_namespaces_of_the_file_are_checked_unless_some_are_named() -> None:
    """Once each, in a fixed order."""
    source = {"provider": "files", "directory": "s"}
    config = {"production": source, "sandbox": source}
    namespaces = [result.namespace for result in validate(config=config).results]
    assert list(dict.fromkeys(namespaces)) == ["sandbox", "production"]
    assert {result.namespace for result in validate(["production", "production"], config=config).results} == {
        "production"
    }
    assert {result.namespace for result in validate("production", config=config).results} == {"production"}


def test_unknown_tables_are_told_once() -> None:
    """Not once per namespace."""
    source = {"provider": "files", "directory": "s"}
    report = validate(config={"production": source, "sandbox": source, "stagin": {}})
    assert [result.code for result in report.results if result.status == "error"] == ["WC103"]
    assert told(validate(config={}))[0] == ("WC109", "error", True)


def test_a_configuration_that_cannot_be_read_is_reported_in_the_same_form(tmp_path: Path) -> None:
    """Exit 2."""
    report = validate(config=tmp_path / "no.toml")
    assert (told(report), report.verdict, report.exit_code) == ([("WC101", "error", True)], "findings", 2)


def test_wrong_arguments_are_errors() -> None:
    """An unknown namespace or level."""
    for arguments in ({"namespace": "prod"}, {"level": "deep"}):
        with pytest.raises(ConfigError):
            validate(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("statuses", [list(pair) for pair in product(get_args(Status), repeat=2)], ids=str)
@pytest.mark.parametrize("strict", [False, True])
def test_the_exit_code_is_computed_from_every_pair_of_statuses(statuses: list[Status], strict: bool) -> None:
    """A finding wins over an undecided check; what was not asked for never counts."""
    results = [Result(code="WC100", status=status, message="m") for status in statuses]
    ignored = [Result(code="WC100", status=status, message="m", asked=False) for status in get_args(Status)]
    found = "error" in statuses or (strict and "warning" in statuses)
    expected = 1 if found else 3 if "unverified" in statuses else 0
    report = Report((*results, *ignored), strict)
    assert (report.exit_code, report.verdict) == (expected, {0: "ok", 1: "findings", 3: "unverified"}[expected])


def test_the_json_form_is_versioned_and_whole() -> None:
    """Every key of every result."""
    report = validate(config={"sandbox": {"provider": "nope"}})
    data = json.loads(report.as_json())
    assert (data["version"], data["verdict"], data) == (
        1,
        "findings",
        report.as_dict() | {"results": data["results"]},
    )
    assert data["results"][0] == {
        "code": "WC121", "status": "error", "message": "no provider is called nope", "asked": True,
        "namespace": "sandbox", "source": "config: sandbox.provider", "hint": "installed: aws, files, vault",
    }  # fmt: skip


HOSTILE = "a\nb\r\x1b[31m::error::]]>\u202e"


def test_hostile_names_break_no_format(tmp_path: Path, mock_wise: MockWise, monkeypatch: pytest.MonkeyPatch) -> None:
    """A config key, a CN, a file name, a trace id."""
    material = Material(common_name=HOSTILE)
    write_fields(tmp_path / "s", material.fields)
    write_fields(tmp_path / f"x{HOSTILE}", {})
    import uuid

    class Id:
        hex = "trace\x1b::error::"

        def __str__(self) -> str:
            return "trace"

    monkeypatch.setattr(uuid, "uuid4", Id)
    mock_wise.fail("invalid_client")
    reports = [
        validate(config={"sandbox": {"source": [{"provider": "files", "directory": "s"}], HOSTILE: 1}}),
        validate(config={"sandbox": {"provider": HOSTILE}, HOSTILE: {}}),
        validate(config={"sandbox": {"provider": "files", "directory": "s"}}, level="secrets"),
        validate(config={"sandbox": {"provider": "files", "directory": f"x{HOSTILE}"}}, level="secrets"),
        validate(config=mock_wise.config, level="live"),
    ]
    for report in reports:
        assert report.exit_code == 1
        text = report.as_text()
        assert text.isascii()
        assert "\x1b" not in text
        assert not any(line.lstrip().startswith("::") for line in text.splitlines())
        assert json.loads(report.as_json())["verdict"] == "findings"


def test_the_text_ends_with_the_count() -> None:
    """N of M, and the verdict."""
    text = validate(
        config={"sandbox": {"provider": "nope"}, "production": {"provider": "files", "directory": "s"}}
    ).as_text()
    assert text.splitlines()[-1] == "findings: 2 of 3 checks passed (1 error); 6 not asked for"
    assert "  error      WC121  config: sandbox.provider: no provider is called nope" in text
    assert "hint: installed: aws, files, vault" in text


def test_a_personal_token_has_no_certificate_to_speak_of(tmp_path: Path) -> None:
    """The facts are those that there are."""
    write_fields(tmp_path / "s", {"personal_token": "canary-personal-token"})
    table = {"provider": "files", "directory": "s", "grant": "personal_token"}
    report = validate(config={"sandbox": table}, level="secrets")
    assert report.results[3].message == "material complete"
    assert wise_creds.load("sandbox", config={"sandbox": table}).client_id is None
