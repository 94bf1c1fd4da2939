"""The command `wise-creds`: data on stdout, the rest on stderr, one exit path, no traceback for a user's mistake."""

from __future__ import annotations

import json
import logging
import signal
import sys
import threading
from itertools import pairwise
from pathlib import Path
from typing import Literal

import click

from wise_creds import __version__
from wise_creds._rotate_cli import csr, rotate
from wise_creds.errors import WiseCredsError, printable

_NAMESPACES = click.Choice(["sandbox", "production"])
_config_option = click.option(
    "--config", metavar="PATH", help="Configuration file; default: $WISE_CREDS_CONFIG, else ./wise-creds.toml."
)
_NO_CONFIG = ("WC101", "WC102")
_STARTER = """\
# wise-creds.toml: where the credentials are. A secret itself never stands in this file.

[sandbox]
provider = "files"
directory = "secrets/sandbox"      # one file per field: client_id, client_secret, certificate, private_key, ca_bundle

# [production]
# provider = "files"
# directory = "/run/secrets"
# expect_client_id = "sha256:…"    # wise-creds validate --secrets prints this line
"""


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="%(version)s")
def cli() -> None:
    """Load, check and use credentials for the Wise Platform, and write them nowhere."""


@cli.command()
@click.argument("namespaces", metavar="[NAMESPACE]...", nargs=-1, type=_NAMESPACES)
@_config_option
@click.option("--secrets", "level", flag_value="secrets", help="Read the sources and check the material as well.")
@click.option("--live", "level", flag_value="live", help="Request a token as well; it is dropped at once.")
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", help="Form of the report.")
@click.option("--strict", is_flag=True, help="Warnings are findings.")
def validate(
    namespaces: tuple[str, ...],
    config: str | None,
    level: Literal["secrets", "live"] | None,
    form: str,
    strict: bool,
) -> int:
    """
    Check a configuration; offline, unless asked for more.

    Exit status: 0 ok, 1 findings, 2 wrong usage or no readable configuration, 3 could not be verified.
    """
    from wise_creds.validation import validate as run

    report = run(namespaces or None, config=config, level=level or "config", strict=strict)
    click.echo(report.as_json() if form == "json" else report.as_text())
    return report.exit_code


@cli.command()
def providers() -> int:
    """List the installed providers."""
    from wise_creds._registry import installed, owners

    for name, entries in sorted(installed().items()):
        click.echo(f"{printable(name):<12} {owners(entries)}")
    return 0


@cli.command()
def schema() -> int:
    """Print the JSON schema of the configuration, with the options of every installed provider."""
    from wise_creds._registry import find, installed
    from wise_creds.config import NamespaceOptions

    options = {}
    for name in sorted(installed()):
        try:
            options[name] = find(name).Options.model_json_schema()
        except WiseCredsError as problem:
            click.echo(f"left out: {problem}", err=True)
    click.echo(json.dumps({"namespace": NamespaceOptions.model_json_schema(), "providers": options}, indent=2))
    return 0


@cli.command()
@click.argument("path", default="wise-creds.toml")
def init(path: str) -> int:
    """Write a starter configuration to PATH; an existing file is left alone."""
    try:
        with Path(path).open("x", encoding="utf-8") as file:
            file.write(_STARTER)
    except OSError as caught:
        raise click.ClickException(f"cannot write {printable(path)}: {caught.strerror}") from None
    click.echo(f"written: {printable(path)}", err=True)
    return 0


@cli.command()
def mock() -> int:
    """
    Run a local stand-in for Wise until interrupted.

    The first line on stdout is the path of a ready configuration for it, with throw-away credentials that are removed
    at the end. Beside it, the folder broken/ holds credentials that do not work.
    """
    from wise_creds.testing import MockWise

    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    with MockWise() as wise:
        wise.write_samples()
        click.echo(wise.config)
        click.echo(f"serving {wise.base_url}; Ctrl-C ends it", err=True)
        sys.stdout.flush()
        ended.wait()
    return 0


@cli.command()
def demo() -> int:
    """Show the whole way on this machine: validate, connect, fetch a token over mTLS, call the API, see two errors."""
    from wise_creds._demo import run

    return run()


cli.add_command(rotate)
cli.add_command(csr)


def main(argv: list[str] | None = None) -> int:
    """Run the command line and give its exit status."""
    given = sys.argv[1:] if argv is None else argv
    logger, handler = logging.getLogger("wise_creds"), logging.StreamHandler()
    logger.addHandler(handler)
    try:
        result = cli.main(args=given, prog_name="wise-creds", standalone_mode=False)
    except click.UsageError as wrong:
        return _wrong_usage(wrong, given)
    except click.Abort:
        return 130
    except click.ClickException as problem:
        click.echo(f"error: {problem.format_message()}", err=True)
        return problem.exit_code
    except WiseCredsError as problem:
        click.echo(f"error: {problem}", err=True)
        return 2 if problem.code in _NO_CONFIG else 3 if problem.retryable else 1
    finally:
        logger.removeHandler(handler)
    return result if isinstance(result, int) else 0


def _wrong_usage(wrong: click.UsageError, given: list[str]) -> int:
    asked_for_json = "--format=json" in given or ("--format", "json") in pairwise(given)
    if asked_for_json:
        from wise_creds.validation import Report, Result

        message = printable(wrong.format_message())
        click.echo(Report((Result(code="WC112", status="error", message=message),), unusable=True).as_json())
    else:
        wrong.show()
    return 2


if __name__ == "__main__":  # pragma: no cover  the console script and `python -m` are run by tests in a process
    sys.exit(main())
