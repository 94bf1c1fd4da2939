"""The command line: forms, exit codes, and what no command does."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import click
import pytest
from support import leaks, until

from wise_creds import __version__
from wise_creds.cli import cli, main
from wise_creds.testing import MockWise

CONSOLE = Path(sys.executable).parent / "wise-creds"


def test_validate_prints_the_report_and_exits_with_its_code(
    mock_wise: MockWise, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each level, text and JSON."""
    for flags, code in (([], 0), (["--secrets"], 0), (["--live"], 0), (["--live", "--strict"], 0)):
        assert main(["validate", "sandbox", "--config", str(mock_wise.config), *flags]) == code
        assert capsys.readouterr().out.splitlines()[-1].startswith("ok: ")
    assert main(["validate", "--config", str(mock_wise.config), "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["verdict"] == "ok"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["validate"], 2),
        (["validate", "--config", "nowhere.toml"], 2),
        (["validate", "prod"], 2),
        (["validate", "--deep"], 2),
        (["validate", "--format", "xml"], 2),
        (["explode"], 2),
    ],
)
def test_wrong_usage_is_exit_2_in_every_form(
    arguments: list[str], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """With JSON asked for, JSON is what comes."""
    assert main(arguments) == code
    capsys.readouterr()
    if "--format" not in arguments and arguments[0] == "validate":
        for form in (["--format", "json"], ["--format=json"]):
            assert main([*arguments, *form]) == code
            assert json.loads(capsys.readouterr().out)["verdict"] == "findings"


def test_findings_and_undecided_checks_have_their_codes(mock_wise: MockWise) -> None:
    """The installed console script, not only the function."""
    mock_wise.fail("invalid_client")
    arguments = [str(CONSOLE), "validate", "--live", "--config", str(mock_wise.config)]
    codes = [subprocess.run(arguments, capture_output=True, check=False).returncode for _ in range(2)]
    mock_wise.fail("unavailable", times=99)
    table = mock_wise.config.read_text() + "deadline = 0.5\n"
    mock_wise.config.write_text(table)
    codes.append(subprocess.run(arguments, capture_output=True, check=False).returncode)
    assert codes == [1, 0, 3]


def test_no_command_takes_or_prints_a_secret(mock_wise: MockWise, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither by an option nor in its output."""
    options = [parameter for command in cli.commands.values() for parameter in command.params]
    typed = [option for option in options if not isinstance(option.type, click.Choice)]
    names = {name for option in typed if isinstance(option, click.Option) for name in option.opts}
    assert not {name for name in names if re.search(r"secret$|token|password|key", name)}
    main(["validate", "--live", "--config", str(mock_wise.config)])
    streams = capsys.readouterr()
    canaries = {
        "id": mock_wise.client_id,
        "secret": mock_wise.client_secret,
        "token": next(iter(mock_wise.state.tokens)),
    }
    assert leaks(canaries, streams.out, streams.err) == []


def test_providers_and_schema_name_the_installed_plug_ins(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broken one is left out with a word on stderr."""
    assert main(["providers"]) == 0
    assert capsys.readouterr().out.split() == ["aws", "wise-creds", "files", "wise-creds", "vault", "wise-creds"]
    info = tmp_path / "site" / "broken-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[wise_creds.providers]\nbroken = no_such_module:P\n")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    assert main(["schema"]) == 0
    streams = capsys.readouterr()
    schema = json.loads(streams.out)
    assert "deadline" in schema["namespace"]["properties"]
    assert set(schema["providers"]["files"]["properties"]) == {"directory", "file", "fields", "allow_readable_by"}
    assert streams.err.startswith("left out: WC123")


def test_init_writes_a_starter_that_validates(capsys: pytest.CaptureFixture[str]) -> None:
    """Once: an existing file is left alone."""
    assert main(["init"]) == 0
    assert main(["validate"]) == 0
    Path("wise-creds.toml").write_text("mine")
    assert main(["init"]) == 1
    assert Path("wise-creds.toml").read_text() == "mine"
    assert "cannot write wise-creds.toml: File exists" in capsys.readouterr().err


def test_version_and_help_are_exit_0(capsys: pytest.CaptureFixture[str]) -> None:
    """On stdout."""
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"{__version__}\n"
    assert main(["validate", "-h"]) == 0
    assert "--live" in capsys.readouterr().out


def test_our_own_errors_are_one_line_on_stderr(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No traceback for a user's mistake; Ctrl-C is 130."""

    def fails(*_: object, **__: object) -> None:
        from wise_creds import ConfigError

        raise ConfigError("bad", code="WC105", hint="mend it")

    monkeypatch.setattr("wise_creds.validation.validate", fails)
    assert main(["validate"]) == 1
    assert capsys.readouterr().err == "error: WC105 bad (hint: mend it)\n"

    def interrupted(*_: object, **__: object) -> None:
        raise click.Abort

    monkeypatch.setattr("wise_creds.validation.validate", interrupted)
    assert main(["validate"]) == 130


def test_mock_serves_until_it_is_told_to_stop() -> None:
    """The first line is the path of a ready configuration; the folder is gone afterwards."""
    child = subprocess.Popen([CONSOLE, "mock"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert child.stdout is not None
    config = Path(child.stdout.readline().strip())
    try:
        done = subprocess.run([CONSOLE, "validate", "--live", "--config", config], capture_output=True, check=False)
        broken = sorted(path.name for path in (config.parent / "broken").iterdir())
    finally:
        child.send_signal(signal.SIGTERM)
        _, said = child.communicate(timeout=20)
    assert (done.returncode, child.returncode, config.parent.exists()) == (0, 0, False)
    assert (broken, "serving https://127.0.0.1:" in said) == (["expired-certificate", "wrong-secret"], True)


def test_mock_ends_in_process_as_well(capsys: pytest.CaptureFixture[str]) -> None:
    """The same, for the coverage gate: the interrupt comes as soon as there is a handler for it."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    handlers = [signal.getsignal(number) for number in numbers]

    def interrupt() -> None:
        until(lambda: signal.getsignal(signal.SIGTERM) is not handlers[1])
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        assert main(["mock"]) == 0
    finally:
        thread.join(10)
        for number, handler in zip(numbers, handlers, strict=True):
            signal.signal(number, handler)
    assert capsys.readouterr().out.splitlines()[0].endswith("wise-creds.toml")


def test_python_m_is_the_same_command() -> None:
    """For where the script is not on the path."""
    done = subprocess.run([sys.executable, "-m", "wise_creds", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"{__version__}\n"


def test_starting_the_command_line_imports_no_heavy_library() -> None:
    """Help comes at once."""
    code = (
        "import sys; from wise_creds.cli import main; main(['--help']); "
        "print(sorted({'httpx', 'pydantic', 'cryptography'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
