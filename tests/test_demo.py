"""The demonstration, and the proof that its client process writes no secret anywhere."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support import forms

from wise_creds import _demo
from wise_creds.cli import main
from wise_creds.testing import MockWise

WRITES = "write,pwrite64,writev,pwritev,pwritev2,sendto,sendmsg,sendmmsg"
FILES = "open,openat,openat2,creat,mkdir,mkdirat,mknod,mknodat,rename,renameat,renameat2,link,linkat,symlink,symlinkat"


def test_the_demo_tells_what_was_done_and_cleans_up(capsys: pytest.CaptureFixture[str]) -> None:
    """Validation, token, API call, two errors; nothing is left."""
    assert main(["demo"]) == 0
    said = capsys.readouterr().out
    config = re.search(r"configuration +(\S+)", said)
    assert config is not None
    assert not Path(config[1]).parent.exists()
    for line in (
        "ok: 5 of 5 checks passed",
        "in memory only",
        "200 [{",
        "TokenRejectedError WC501",
        "LoadError WC414",
    ):
        assert line in said


def test_the_demo_fails_when_an_error_does_not_come(monkeypatch: pytest.MonkeyPatch) -> None:
    """It does not call a success what was none."""
    with MockWise() as wise:
        assert _demo._refused("works", {"sandbox": wise.table}) is False


def _traced(prefix: Path, command: list[str]) -> dict[int, str]:
    """Run under strace and give each task's calls, without those of a program that it started."""
    environ = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    subprocess.run(
        ["strace", "-ff", "-xx", "-s", "1000000", "-o", prefix, "-e", f"trace={WRITES},{FILES},execve,clone,clone3,vfork,fork",
         *command], check=True, capture_output=True, env=environ, timeout=120,
    )  # fmt: skip
    logs = {int(path.suffix[1:]): path.read_text() for path in prefix.parent.glob(f"{prefix.name}.*")}
    children = {
        pid: [int(found) for found in re.findall(r"^(?:clone3?|vfork|fork)\(.*= (\d+)$", log, re.MULTILINE)]
        for pid, log in logs.items()
    }
    root = next(pid for pid in logs if all(pid not in started for started in children.values()))
    waiting, ours = [root], {}
    while waiting:
        pid = waiting.pop()
        log = logs.get(pid, "")
        if pid != root and "execve(" in log:
            continue
        ours[pid] = log
        waiting += children.get(pid, [])
    return ours


def _written(logs: dict[int, str]) -> bytes:
    payload = b""
    for log in logs.values():
        for line in log.splitlines():
            if re.match(rf"(?:{WRITES.replace(',', '|')})\(", line):
                payload += (
                    b"\n".join(
                        bytes.fromhex(text.replace("\\x", "")) for text in re.findall(r'"((?:\\x[0-9a-f]{2})*)"', line)
                    )
                    + b"\n"
                )
    return payload


def _made(logs: dict[int, str]) -> list[str]:
    """The calls that make a file, with names in clear."""
    made = []
    for line in "\n".join(logs.values()).splitlines():
        call = line.partition("(")[0]
        if (call in FILES.split(",") and ("O_CREAT" in line or "O_TMPFILE" in line or not call.startswith("open"))
                and "= -1" not in line):  # fmt: skip
            made.append(re.sub(r"\\x([0-9a-f]{2})", lambda found: chr(int(found[1], 16)), line))
    return made


CLIENT = """
import sys, wise_creds
with wise_creds.connect("sandbox", config=sys.argv[1]) as wise, wise.client() as http:
    assert http.get("/v2/profiles").status_code == 200
"""
NAIVE = """
import os, ssl, sys, tempfile, pathlib
folder = pathlib.Path(sys.argv[1]).parent / "sandbox"
with tempfile.NamedTemporaryFile() as file:
    file.write((folder / "certificate").read_bytes() + (folder / "private_key").read_bytes())
    file.flush()
    ssl.create_default_context().load_cert_chain(file.name)
print((folder / "client_secret").read_text())
"""


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_no_write_carries_a_secret_and_no_file_is_made(tmp_path: Path, mock_wise: MockWise) -> None:
    """A client process from start to API call; the usual temporary file is the control that is caught."""

    def canaries() -> dict[str, bytes]:
        key = (mock_wise.directory / "private_key").read_bytes().splitlines()
        tokens = {f"token {n}": token.encode() for n, token in enumerate(mock_wise.state.tokens)}
        return {"key 1": key[1], "key 2": key[2], "secret": mock_wise.client_secret.encode(), **tokens}

    def seen(logs: dict[int, str]) -> list[str]:
        payload = _written(logs)
        return [name for name, value in canaries().items() if any(form in payload for form in forms(value))]

    ours = _traced(tmp_path / "ours", [sys.executable, "-c", CLIENT, str(mock_wise.config)])
    naive = _traced(tmp_path / "naive", [sys.executable, "-c", NAIVE, str(mock_wise.config)])
    assert "token 0" in canaries()
    assert (seen(ours), _made(ours)) == ([], [])
    assert (seen(naive), len(_made(naive)) > 0) == (["key 1", "key 2", "secret"], True)


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_the_demos_client_process_makes_no_file_and_writes_no_key(tmp_path: Path) -> None:
    """Server and throw-away credentials live in its child process, which is not looked at."""
    logs = _traced(tmp_path / "demo", [sys.executable, "-m", "wise_creds", "demo"])
    payload = _written(logs)
    assert b"wise-creds demo" in payload
    assert _made(logs) == []
    assert b"PRIVATE KEY" not in payload
    assert b"Bearer" not in payload


def test_the_child_ends_with_its_parents_pipe() -> None:
    """No orphan: the end of stdin is the end of the server."""
    child = subprocess.Popen(
        [sys.executable, "-m", "wise_creds.testing"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    config = Path(child.stdout.readline().strip())
    assert config.exists()
    child.communicate("")
    assert (child.returncode, config.exists()) == (0, False)
