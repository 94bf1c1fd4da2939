"""The commands `wise-creds rotate` and `wise-creds csr`: no secret on the command line, on stdout or on stderr."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar

import click

from wise_creds.errors import printable
from wise_creds.secret import Secret

if TYPE_CHECKING:
    from wise_creds.rotation import RotationStatus

Command = TypeVar("Command", bound=Callable[..., object])
_LARGEST = 65_536  # bytes of one value: more than any store takes
_KINDS = ("rsa-4096", "rsa-3072", "rsa-2048", "ec-p256", "ec-p384")

_namespace = click.argument("namespace", type=click.Choice(["sandbox", "production"]))
_config = click.option(
    "--config", metavar="PATH", help="Configuration file; default: $WISE_CREDS_CONFIG, else ./wise-creds.toml."
)
_file = click.Path(exists=True, dir_okay=False, path_type=Path)
_GIVEN = (
    click.option("--client-secret-stdin", is_flag=True, help="Read the new client secret from stdin."),
    click.option("--client-secret-fd", metavar="N", type=int, help="Read it from this file descriptor."),
    click.option("--certificate", metavar="FILE", type=_file, help="The new certificate, PEM; joins a staged key."),
    click.option("--private-key-fd", metavar="N", type=int, help="Read the certificate's key from this descriptor."),
    click.option("--dry-run", is_flag=True, help="Say what would happen; write nothing."),
)


def _what_is_staged(command: Command) -> Command:
    for option in reversed(_GIVEN):
        command = option(command)
    return command


@click.group()
def rotate() -> None:
    """
    Bring in new credentials beside the current ones, prove them, and make them current.

    Each step may be repeated after a crash. Exit status: 0 done, 1 refused or nothing to do it on, 2 wrong usage or no
    readable configuration, 3 the store or Wise could not be reached.
    """


@rotate.command()
@_namespace
@_what_is_staged
@_config
def stage(namespace: str, config: str | None, **given: Any) -> None:  # noqa: ANN401  options
    """
    Put new values beside the current version.

    What is not given is kept from what is staged already, else from the current version. With nothing given, the
    client secret is asked for without echo.
    """
    _stage(namespace, config, **given)


@rotate.command()
@_namespace
@_config
def verify(namespace: str, config: str | None) -> None:
    """Check the staged material and get a token with it, which is dropped."""
    from wise_creds import rotation

    found = rotation.verify(namespace, config=config)
    click.echo(f"{found.namespace}: version {found.pending} is good: material checked, token received and dropped")
    click.echo(f"next: wise-creds rotate promote {namespace}", err=True)


@rotate.command()
@_namespace
@_config
def promote(namespace: str, config: str | None) -> None:
    """Make the staged version the current one, unless somebody else has changed that meanwhile."""
    from wise_creds import rotation

    _say_current(rotation.promote(namespace, config=config))


@rotate.command()
@_namespace
@_config
def rollback(namespace: str, config: str | None) -> None:
    """Make the previous version current again."""
    from wise_creds import rotation

    _say_current(rotation.rollback(namespace, config=config))


@rotate.command()
@_namespace
@_config
def discard(namespace: str, config: str | None) -> None:
    """Drop what is staged; the current version stays as it is."""
    from wise_creds import rotation

    found = rotation.discard(namespace, config=config)
    click.echo(f"{namespace}: nothing is staged any more; version {found.current} is current")


@rotate.command()
@_namespace
@_config
def status(namespace: str, config: str | None) -> None:
    """Show which versions the store has."""
    from wise_creds import rotation

    for name, value in rotation.status(namespace, config=config).as_dict().items():
        click.echo(f"{name:<10} {value or 'none'}")


@rotate.command()
@_namespace
@_what_is_staged
@_config
def run(namespace: str, config: str | None, dry_run: bool, **given: Any) -> None:  # noqa: ANN401  options
    """Stage, verify and promote in one go, for a secret that replaces the old one at once."""
    from wise_creds import rotation

    _stage(namespace, config, dry_run=dry_run, **given)
    if not dry_run:
        rotation.verify(namespace, config=config)
        click.echo(f"{namespace}: material checked, token received and dropped")
        _say_current(rotation.promote(namespace, config=config))


@click.command()
@_namespace
@click.option("--organisation", metavar="NAME", required=True, help="Your company, as Wise knows it.")
@click.option("--key", "kind", type=click.Choice(_KINDS), default=_KINDS[0], show_default=True, help="Kind of the key.")
@_config
def csr(namespace: str, organisation: str, kind: str, config: str | None) -> None:
    """
    Make a key and the certificate request for Developer Hub.

    The key goes into the staged version, the request (PEM) to stdout.
    """
    from wise_creds import rotation

    made = rotation.request_certificate(namespace, organisation=organisation, kind=kind, config=config)
    click.echo(made.request, nl=False)
    if made.replaced:
        click.echo("warning: a key was staged before; it is replaced, and a request made for it is void", err=True)
    click.echo(f"{namespace}: key staged as version {made.status.pending} at {made.status.source}", err=True)
    click.echo(f"next: wise-creds rotate stage {namespace} --certificate FILE", err=True)


def _stage(
    namespace: str,
    config: str | None,
    *,
    client_secret_stdin: bool,
    client_secret_fd: int | None,
    certificate: Path | None,
    private_key_fd: int | None,
    dry_run: bool,
) -> None:
    from wise_creds import rotation

    if client_secret_stdin and client_secret_fd is not None:
        raise click.UsageError("--client-secret-stdin and --client-secret-fd exclude each other")
    client_secret = private_key = text = None
    if client_secret_stdin or (client_secret_fd, certificate, private_key_fd) == (None, None, None):
        client_secret = _from_stdin(asked=client_secret_stdin)
    elif client_secret_fd is not None:
        client_secret = _from_descriptor(client_secret_fd, "--client-secret-fd", "client_secret")
    if private_key_fd is not None:
        private_key = _from_descriptor(private_key_fd, "--private-key-fd", "private_key")
    if certificate is not None:
        text = _certificate(certificate)
    found = rotation.stage(namespace, config=config, client_secret=client_secret, certificate=text,
                           private_key=private_key, dry_run=dry_run)  # fmt: skip
    if dry_run:
        given = {"client_secret": client_secret, "certificate": text, "private_key": private_key}
        names = ", ".join(name for name, value in given.items() if value is not None)
        beside = (
            f"over version {found.pending}, which is staged" if found.pending else f"beside version {found.current}"
        )
        click.echo(f"{namespace}: would stage {names} {beside}, at {found.source}; nothing is written")
        return
    click.echo(f"{namespace}: version {found.pending} is staged beside version {found.current} at {found.source}")
    click.echo(f"next: wise-creds rotate verify {namespace}", err=True)


def _say_current(found: RotationStatus) -> None:
    before = f", version {found.previous} is kept" if found.previous else ""
    click.echo(f"{found.namespace}: version {found.current} is current{before}")


def _from_stdin(*, asked: bool) -> Secret:
    if sys.stdin.isatty():
        return _value(str(click.prompt("Client secret", hide_input=True, err=True)).encode(), "prompt", "client_secret")
    if not asked:
        raise click.UsageError("nothing to stage, and no terminal to ask for the client secret")
    return _read(sys.stdin.buffer, "--client-secret-stdin", "client_secret")


def _from_descriptor(number: int, option: str, name: str) -> Secret:
    try:
        with open(number, "rb", closefd=False) as file:
            return _read(file, option, name)
    except (OSError, ValueError):
        pass  # its text names the number only, but a value might have been read in that frame
    raise click.UsageError(f"{option}: descriptor {number} cannot be read")


def _certificate(path: Path) -> str:
    with path.open("rb") as file:
        content = _read(file, "--certificate", "certificate")
    text = content.reveal_bytes().decode("ascii", "replace")
    if "-----BEGIN CERTIFICATE-----" not in text or "PRIVATE KEY" in text:
        raise click.UsageError(f"--certificate: {printable(path)} is not a certificate in PEM and nothing else")
    return text


def _read(file: IO[bytes], option: str, name: str) -> Secret:
    raw = file.read(_LARGEST + 1)
    if len(raw) > _LARGEST:
        raise click.UsageError(f"{option}: larger than {_LARGEST} bytes")
    return _value(raw, option, name)


def _value(raw: bytes, option: str, name: str) -> Secret:
    raw = raw.removesuffix(b"\n").removesuffix(b"\r") if raw.endswith(b"\n") else raw
    if not raw:
        raise click.UsageError(f"{option}: empty")
    return Secret(raw, name=name)
