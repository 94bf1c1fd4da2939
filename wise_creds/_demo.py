"""`wise-creds demo`: the main job on this machine, with MockWise in a child process."""

from __future__ import annotations

import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click

T = TypeVar("T")


def run() -> int:
    """Show everything, clean up, and give the exit status."""
    import wise_creds

    say = click.echo
    say("wise-creds demo: a local stand-in for Wise, throw-away credentials, real mTLS\n")
    with _mock() as config:
        table: dict[str, Any] = tomllib.loads(config.read_text())["sandbox"]
        broken = config.parent / "broken"
        say(f"     stand-in for Wise   {table['base_url']}, in a child process")
        say(f"     configuration       {config}\n")
        report = _step("validate --live", lambda: wise_creds.validate(config=config, level="live"))
        say(_indented(report.as_text()))
        wise = _step('connect("sandbox")', lambda: wise_creds.connect("sandbox", config=config))
        certificate = wise.current().credentials.certificate
        assert certificate is not None  # noqa: S101  the stand-in requires one
        say(f"     credentials   checked; certificate {certificate.key_type}, ends {certificate.not_after:%Y-%m-%d}")
        say(f"     access token  {wise.token()!r}: in memory only\n")
        with wise, wise.client() as http:
            profiles = _step("GET /v2/profiles", lambda: http.get("/v2/profiles"))
            say(f"     {profiles.status_code} {profiles.json()}\n")
        problems = [
            _refused(name, {"sandbox": {**table, "directory": str(broken / name)}})
            for name in ("wrong-secret", "expired-certificate")
        ]
    say("stopped and removed: the stand-in and its credentials")
    say("next: wise-creds init writes a configuration; wise-creds mock keeps the stand-in running")
    return 0 if report.exit_code == 0 and profiles.is_success and all(problems) else 1


@contextmanager
def _mock() -> Iterator[Path]:
    child = subprocess.Popen(
        [sys.executable, "-m", "wise_creds.testing"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdin is not None  # noqa: S101  both are pipes
    assert child.stdout is not None  # noqa: S101
    try:
        yield Path(child.stdout.readline().strip())
    finally:
        # The end of its stdin ends it, also if this process dies.
        child.stdin.close()
        child.stdout.close()
        child.wait(10)


def _step(title: str, call: Callable[[], T]) -> T:
    began = time.perf_counter()
    result = call()
    click.echo(f"{1000 * (time.perf_counter() - began):7.1f} ms  {title}")
    return result


def _refused(name: str, config: dict[str, Any]) -> bool:
    import wise_creds

    def attempt() -> wise_creds.WiseCredsError | None:
        try:
            wise_creds.connect("sandbox", config=config).close()
        except wise_creds.WiseCredsError as problem:
            return problem
        return None

    problem = _step(f"what a mistake looks like: {name}", attempt)
    if problem is None:
        return False
    click.echo(f"     {type(problem).__name__} {problem.code}: {problem.message}")
    click.echo(f"     hint: {problem.hint}\n")
    return True


def _indented(text: str) -> str:
    return "".join(f"     {line}\n" for line in text.splitlines() if line)
