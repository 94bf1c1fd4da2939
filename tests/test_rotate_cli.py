"""`wise-creds rotate` and `wise-creds csr`: forms, exit codes, and where a secret may come in."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest
from cryptography import x509
from rotation_stores import Store, store_of
from support import leaks

from wise_creds import _rotate_cli
from wise_creds.cli import cli, main
from wise_creds.testing import MockWise

CONSOLE = Path(sys.executable).parent / "wise-creds"
NEW = "canary-new-client-secret-77aa"


@pytest.fixture
def store(tmp_path: Path, mock_wise: MockWise) -> Iterator[Store]:
    """A directory with MockWise's credentials, which the configuration names."""
    with store_of("files", tmp_path / "store") as opened:
        opened.put({path.name: path.read_text() for path in mock_wise.directory.iterdir()})
        (tmp_path / "wise-creds.toml").write_text(
            f'[sandbox]\nprovider = "files"\ndirectory = "{opened.table["directory"]}"\n'
            f'base_url = "{mock_wise.base_url}"\n'
        )
        yield opened


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], None]:
    """Put bytes on stdin, which is no terminal."""

    def put(raw: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(raw)))

    put(b"")
    return put


def pipe(raw: bytes) -> int:
    """Give a descriptor from which bytes can be read."""
    reading, writing = os.pipe()
    os.write(writing, raw)
    os.close(writing)
    return reading


def test_stage_verify_promote_rollback_and_status(
    store: Store, mock_wise: MockWise, typed: Callable[[bytes], None], capsys: pytest.CaptureFixture[str]
) -> None:
    """Each says on stdout what it did, on stderr what comes next, and nothing secret anywhere."""
    mock_wise.rotate_secret()
    typed(f"{mock_wise.client_secret}\n".encode())
    said = []
    for arguments in (["stage", "sandbox", "--client-secret-stdin"], ["verify", "sandbox"], ["promote", "sandbox"],
                      ["status", "sandbox"], ["rollback", "sandbox"]):  # fmt: skip
        assert main(["rotate", *arguments]) == 0
        streams = capsys.readouterr()
        said += streams.out.splitlines()
        assert leaks({"id": mock_wise.client_id, "secret": mock_wise.client_secret}, streams.out, streams.err) == []
        assert streams.err in (
            "",
            f"next: wise-creds rotate {'verify' if arguments[0] == 'stage' else 'promote'} sandbox\n",
        )
    old, new, place = said[-1].split()[2], said[1].split()[2], store.table["directory"]
    assert said == [
        f"sandbox: version {new} is staged beside version {old} at {place}",
        f"sandbox: version {new} is good: material checked, token received and dropped",
        f"sandbox: version {new} is current, version {old} is kept",
        "namespace  sandbox",
        f"source     {place}",
        f"current    {new}",
        "pending    none",
        f"previous   {old}",
        f"sandbox: version {old} is current",
    ]


def test_discard_drops_what_is_staged(
    store: Store, typed: Callable[[bytes], None], capsys: pytest.CaptureFixture[str]
) -> None:
    """Once; then there is nothing to drop."""
    typed(NEW.encode())
    assert main(["rotate", "stage", "sandbox", "--client-secret-stdin"]) == 0
    capsys.readouterr()
    assert [main(["rotate", "discard", "sandbox"]) for _ in range(2)] == [0, 1]
    assert (store.pending(), capsys.readouterr().out.startswith("sandbox: nothing is staged any more; ")) == (
        None,
        True,
    )


def test_run_is_all_three_in_one_go(
    store: Store, mock_wise: MockWise, typed: Callable[[bytes], None], capsys: pytest.CaptureFixture[str]
) -> None:
    """For the gap without overlap; what Wise refuses does not become current."""
    before = store.current()
    typed(NEW.encode())
    assert main(["rotate", "run", "sandbox", "--client-secret-stdin"]) == 1
    assert (store.current(), "WC5" in capsys.readouterr().err) == (before, True)
    mock_wise.rotate_secret()
    typed(mock_wise.client_secret.encode())
    assert main(["rotate", "run", "sandbox", "--client-secret-stdin"]) == 0
    assert store.current()["client_secret"] == mock_wise.client_secret
    assert [line.split()[1] for line in capsys.readouterr().out.splitlines()] == ["version", "material", "version"]


@pytest.mark.parametrize("command", ["stage", "run"])
def test_a_dry_run_says_what_would_happen(
    store: Store, typed: Callable[[bytes], None], capsys: pytest.CaptureFixture[str], command: str
) -> None:
    """And does none of it."""
    before = store.current()
    for beside in ("beside version", "over version"):
        typed(NEW.encode())
        assert main(["rotate", command, "sandbox", "--client-secret-stdin", "--dry-run"]) == 0
        assert capsys.readouterr().out.startswith(f"sandbox: would stage client_secret {beside} ")
        if beside == "beside version":
            assert (store.current(), store.pending()) == (before, None)
            typed(b"another")
            assert main(["rotate", "stage", "sandbox", "--client-secret-stdin"]) == 0
            capsys.readouterr()
    pending = store.pending()
    assert pending is not None
    assert pending["client_secret"] == "another"


@pytest.mark.parametrize(
    ("raw", "value"), [(b"a b\n", "a b"), (b"a\r\n", "a"), (b"a\n\n", "a\n"), (b"a\r", "a\r"), (b"a", "a")]
)
def test_exactly_one_line_end_is_taken_off(typed: Callable[[bytes], None], raw: bytes, value: str) -> None:
    """From stdin and from a descriptor alike."""
    typed(raw)
    assert _rotate_cli._from_stdin(asked=True).reveal() == value
    descriptor = pipe(raw)
    assert _rotate_cli._from_descriptor(descriptor, "--client-secret-fd", "client_secret").reveal() == value
    os.close(descriptor)


def test_secret_key_and_certificate_come_by_descriptors_and_a_file(
    store: Store, mock_wise: MockWise, tmp_path: Path
) -> None:
    """All at once; the certificate is no secret."""
    issue = mock_wise.authority.client(mock_wise.client_id)
    (tmp_path / "issued.pem").write_bytes(issue.pem)
    descriptors = [pipe(NEW.encode()), pipe(issue.key_pem)]
    given = [
        "--client-secret-fd",
        str(descriptors[0]),
        "--private-key-fd",
        str(descriptors[1]),
        "--certificate",
        "issued.pem",
    ]
    assert main(["rotate", "stage", "sandbox", *given]) == 0
    for descriptor in descriptors:
        os.close(descriptor)
    pending = store.pending()
    assert pending is not None
    assert {name: pending[name] for name in ("client_secret", "certificate", "private_key")} == {
        "client_secret": NEW, "certificate": issue.pem.decode().rstrip(), "private_key": issue.key_pem.decode().rstrip(),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--client-secret-stdin"], "--client-secret-stdin: empty"),
        (["--client-secret-stdin", "--client-secret-fd", "0"], "exclude each other"),
        (["--client-secret-fd", "991"], "descriptor 991 cannot be read"),
        (["--private-key-fd", "-1"], "descriptor -1 cannot be read"),
        (["--certificate", "nowhere.pem"], "does not exist"),
        (["--certificate", "key.pem"], "is not a certificate in PEM"),
        ([], "nothing to stage, and no terminal"),
    ],
)
def test_wrong_usage_is_exit_2_and_stages_nothing(
    store: Store, typed: Callable[[bytes], None], mock_wise: MockWise, capsys: pytest.CaptureFixture[str],
    arguments: list[str], said: str,
) -> None:  # fmt: skip
    """Nothing is read from a store for it."""
    Path("key.pem").write_bytes(mock_wise.issued.pem + mock_wise.issued.key_pem)
    typed(b"\n")
    assert main(["rotate", "stage", "sandbox", *arguments]) == 2
    assert said in capsys.readouterr().err
    assert store.pending() is None


def test_what_is_too_large_for_any_store_is_not_read_to_its_end(typed: Callable[[bytes], None]) -> None:
    """One byte more than 64 KiB."""
    typed(b"x" * 65_537)
    with pytest.raises(click.UsageError, match="larger than 65536"):
        _rotate_cli._from_stdin(asked=True)


def test_exit_codes_tell_what_is_the_matter(store: Store, mock_wise: MockWise, typed: Callable[[bytes], None]) -> None:
    """1: nothing to do it on. 2: no such namespace or configuration. 3: could not be reached."""
    for step in ("verify", "promote", "rollback"):
        assert main(["rotate", step, "sandbox"]) == 1
        assert main(["rotate", step, "prod"]) == 2
        assert main(["rotate", step, "sandbox", "--config", "nowhere.toml"]) == 2
    assert main(["rotate", "status", "production"]) == 1
    typed(NEW.encode())
    assert main(["rotate", "stage", "sandbox", "--client-secret-stdin"]) == 0
    config = Path("wise-creds.toml")
    config.write_text(config.read_text() + "deadline = 0.5\n")
    mock_wise.fail("unavailable", times=99)
    assert main(["rotate", "verify", "sandbox"]) == 3


def test_the_prompt_shows_nothing_of_what_is_typed(store: Store) -> None:
    """On a real terminal, with nothing given."""
    child, terminal = pty.fork()
    if child == 0:  # pragma: no cover
        os.execv(CONSOLE, [str(CONSOLE), "rotate", "stage", "sandbox"])
    shown = b""
    while b"Client secret:" not in shown:
        shown += os.read(terminal, 1024)
    os.write(terminal, NEW.encode() + b"\n")
    try:
        while part := os.read(terminal, 1024):
            shown += part
    except OSError:
        pass  # the terminal is gone with the child
    _, status = os.waitpid(child, 0)
    os.close(terminal)
    pending = store.pending()
    assert pending is not None
    assert (os.waitstatus_to_exitcode(status), pending["client_secret"]) == (0, NEW)
    assert (leaks({"secret": NEW}, shown), b"next: wise-creds rotate verify sandbox" in shown) == ([], True)


def test_a_terminal_is_asked_without_echo_even_if_stdin_was_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else what is typed would stand on the screen."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setattr("getpass.getpass", lambda prompt: NEW)
    assert [_rotate_cli._from_stdin(asked=asked).reveal() for asked in (True, False)] == [NEW, NEW]


def test_csr_puts_the_request_on_stdout_and_the_key_into_the_store(
    store: Store, mock_wise: MockWise, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing else goes to stdout; a second run says that it replaces the key."""
    before = store.current()
    keys = []
    for run in (1, 2):
        assert main(["csr", "sandbox", "--organisation", "Example Ltd", "--key", "ec-p256"]) == 0
        streams = capsys.readouterr()
        request = x509.load_pem_x509_csr(streams.out.encode())
        assert streams.out.startswith("-----BEGIN CERTIFICATE REQUEST-----\n")
        assert streams.out.endswith("-----END CERTIFICATE REQUEST-----\n")
        assert request.subject.rfc4514_string() == f"CN={mock_wise.client_id},O=Example Ltd"
        assert ("warning: a key was staged before; it is replaced" in streams.err) == (run == 2)
        pending = store.pending()
        assert pending is not None
        keys.append(pending["private_key"])
        assert leaks({"key": keys[-1].splitlines()[1][50:]}, streams.out, streams.err) == []
    assert (keys[0] == keys[1], store.current()) == (False, before)


def test_csr_without_what_it_needs_stages_nothing(store: Store) -> None:
    """Wrong usage, an impossible name, another kind of key."""
    assert main(["csr", "sandbox"]) == 2
    assert main(["csr", "sandbox", "--organisation", "Example Ltd", "--key", "dsa"]) == 2
    assert main(["csr", "sandbox", "--organisation", " "]) == 1
    assert store.pending() is None


def test_the_kinds_of_keys_are_those_that_the_maker_knows() -> None:
    """The command line lists them without importing it."""
    from wise_creds.rotation._csr import KINDS

    assert _rotate_cli._KINDS == KINDS


def test_no_option_takes_a_secret() -> None:
    """Those with such a name are flags, descriptors, files or a choice."""
    rotate = cli.commands["rotate"]
    assert isinstance(rotate, click.Group)
    options = [option for command in (*rotate.commands.values(), cli.commands["csr"]) for option in command.params]
    texts = {option.name for option in options if option.type is click.STRING}
    assert texts == {"config", "organisation"}


def test_a_leak_would_be_found() -> None:
    """The control of the searches above."""
    done = subprocess.run([sys.executable, "-c", f"print({NEW!r})"], capture_output=True, check=True)
    assert leaks({"secret": NEW}, done.stdout) == ["secret"]
