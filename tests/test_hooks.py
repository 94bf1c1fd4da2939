"""docs/hooks.md and examples/hooks: each file is read by its tool, each command line is run, the service reloads."""

from __future__ import annotations

import base64
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support import until
from vault_servers import KINDS, PROGRAM, running

import wise_creds
from wise_creds.testing import MockWise

ROOT = Path(__file__).parent.parent
HOOKS = ROOT / "examples" / "hooks"
DOCS = (ROOT / "docs" / "hooks.md").read_text()
CONSOLE = str(Path(sys.executable).parent / "wise-creds")
FIELDS = ("client_id", "client_secret", "certificate", "private_key", "ca_bundle")
GOES_ON = "try-reload-or-restart payments.service\n"

needs_kubectl = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")


def _blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", DOCS, re.DOTALL)


def _unit(key: str) -> list[str]:
    """The values of a key of the unit, in order."""
    return re.findall(rf"^{key}=(.*)$", (HOOKS / "payments.service").read_text(), re.MULTILINE)


def _manifest() -> list[Any]:
    """The objects of the manifest; PyYAML comes with moto."""
    return list(pytest.importorskip("yaml").safe_load_all((HOOKS / "payments.yaml").read_text()))


def _agent(key: str) -> Any:
    """A value that stands once in Agent's configuration; what is used there of HCL looks like JSON."""
    (value,) = re.findall(rf"^ +{key} += (.*?) *(?:#.*)?$", (HOOKS / "agent.hcl").read_text(), re.MULTILINE)
    return json.loads(value)


def _init_container() -> list[str]:
    (container,) = _manifest()[1]["spec"]["template"]["spec"]["initContainers"]
    command: list[str] = container["command"]
    return command


COMMANDS: dict[str, Callable[[], list[str]]] = {
    "ExecStartPre": lambda: shlex.split(_unit("ExecStartPre")[0]),
    "ExecReload": lambda: shlex.split(_unit("ExecReload")[0]),
    "init container": _init_container,
    "Agent's exec": lambda: list(_agent("command")),
}


def _configure(wise: MockWise, **changes: object) -> Path:
    """Write a configuration of production that leads to the stand-in; without the marker, which says sandbox."""
    table: dict[str, object] = {
        "provider": "files", "directory": str(wise.directory), "base_url": wise.base_url,
        "allow_hosts": ["127.0.0.1"], "watch": 0, **changes,
    }  # fmt: skip
    path = wise.root / "production.toml"
    path.write_text("[production]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in table.items()
                                               if value is not None)
                    + "fields = { " + ", ".join(f'{name} = "{name}"' for name in FIELDS) + " }\n")  # fmt: skip
    return path


def _run(command: list[str], config: Path, path: str = os.environ["PATH"]) -> subprocess.CompletedProcess[str]:
    """Run a command line of an example as it stands, but for where the program and the configuration are."""
    words = [CONSOLE if word == "wise-creds" else word for word in command]
    line = "\0".join(words)
    found = re.findall(r"/etc/\S+?/wise-creds\.toml", line)
    assert len(found) == 1
    words = line.replace(found[0], str(config)).replace("/opt/payments/bin/wise-creds", CONSOLE).split("\0")
    return subprocess.run(
        words, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False, timeout=60
    )


def _systemctl(folder: Path) -> Path:
    """Put a program of that name, which notes what it is told, into a folder for PATH; gives its notes."""
    folder.mkdir(exist_ok=True)
    (folder / "systemctl").write_text(f'#!/bin/sh\necho "$@" >> {shlex.quote(str(folder / "told"))}\n')
    (folder / "systemctl").chmod(0o755)
    return folder / "told"


# The command lines


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_line_lets_good_credentials_pass_and_no_wrong_secret(
    name: str, mock_wise: MockWise, tmp_path: Path
) -> None:
    """By its exit status, after a token request; the service is told in the first case only."""
    command, told = COMMANDS[name](), _systemctl(tmp_path / "bin")
    path = f"{told.parent}:{os.environ['PATH']}"
    good = _run(command, _configure(mock_wise), path)
    assert (good.returncode, good.stdout.splitlines()[-1][:3], mock_wise.token_requests) == (0, "ok:", 1)
    notes = told.read_text() if told.exists() else ""
    assert notes == (GOES_ON if name == "Agent's exec" else "")
    mock_wise.write_samples()
    wrong = _run(command, _configure(mock_wise, directory=str(mock_wise.root / "broken" / "wrong-secret")), path)
    assert (wrong.returncode, "WC501" in wrong.stdout, mock_wise.token_requests) == (1, True, 2)
    assert (told.read_text() if told.exists() else "") == notes


def test_a_start_waits_for_wise(mock_wise: MockWise) -> None:
    """What could not be asked is no yes."""
    mock_wise.fail("unavailable", times=99)
    assert _run(COMMANDS["ExecStartPre"](), _configure(mock_wise, deadline=0.5)).returncode == 3


# systemd


def _verified(text: str, folder: Path) -> tuple[int, list[str]]:
    """What systemd says about a unit, with programs that exist in the place of the service's own."""
    programs = folder / "bin"
    programs.mkdir(exist_ok=True)
    for name in ("wise-creds", "python"):
        (programs / name).write_text("#!/bin/sh\n")
        (programs / name).chmod(0o755)
    unit = folder / "payments.service"
    unit.write_text(text.replace("/opt/payments/bin", str(programs)))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True, check=False, timeout=60
    )
    # Units of this machine, which it reads too, are not the example's business.
    return done.returncode, [line for line in done.stderr.splitlines() if "payments.service" in line]


@needs_systemd
def test_systemd_reads_the_unit_without_a_remark(tmp_path: Path) -> None:
    """Keys, values, and programs."""
    assert _verified((HOOKS / "payments.service").read_text(), tmp_path) == (0, [])


@needs_systemd
@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("ExecStartPre=", "ExecStartpre="),
        ("RestartSec=1min", "RestartSec=soon"),
        ("bin/python ", "bin/no-such-python "),
    ],
)
def test_a_mistake_in_the_unit_would_be_found(right: str, wrong: str, tmp_path: Path) -> None:
    """A control: a key, a value, a program; of several commands under one key, only the first is looked at."""
    text = (HOOKS / "payments.service").read_text()
    assert right in text
    assert _verified(text.replace(right, wrong), tmp_path)[1] != []


def test_the_unit_stops_at_a_failure_and_signals_last() -> None:
    """No command is marked as one that may fail; the reload validates as the start does."""
    assert [line[0] for line in _unit("ExecStartPre") + _unit("ExecReload")] == ["/"] * 3
    assert _unit("ExecReload") == [*_unit("ExecStartPre"), "/bin/kill -HUP $MAINPID"]
    assert f"WISE_CREDS_CONFIG={shlex.split(_unit('ExecStartPre')[0])[-1]}" in _unit("Environment")


# Kubernetes


def _kubectl(*arguments: str | Path) -> str:
    """Run without a cluster and without anybody's configuration."""
    return subprocess.run(
        ["kubectl", *arguments], env={**os.environ, "KUBECONFIG": os.devnull},
        capture_output=True, text=True, check=True, timeout=60,
    ).stdout  # fmt: skip


def _lost(given: Any, known: Any) -> bool:
    """Whether something of an object is not in what kubectl's own types keep of it."""
    if isinstance(given, dict):
        return not isinstance(known, dict) or any(_lost(value, known.get(name)) for name, value in given.items())
    if isinstance(given, list):
        return not isinstance(known, list) or len(given) != len(known) or any(map(_lost, given, known))
    return bool(given != known)


def _unknown(deployment: Any, folder: Path) -> bool:
    path = folder / "deployment.json"
    path.write_text(json.dumps(deployment))
    # Adds a field, and needs kubectl's own types for it; what those do not have is lost.
    return _lost(deployment, json.loads(_kubectl("set", "serviceaccount", "--local", "-o", "json", "-f", path, "any")))


@needs_kubectl
def test_kubectl_knows_every_field_of_the_manifest(tmp_path: Path) -> None:
    """Also with the volume of the CSI driver in the place of the Secret."""
    read = _kubectl("annotate", "--local", "-o", "name", "-f", HOOKS / "payments.yaml", "any=thing")
    assert read.split() == ["configmap/wise-creds", "deployment.apps/payments"]
    _, deployment = _manifest()
    assert not _unknown(deployment, tmp_path)
    (driver,) = pytest.importorskip("yaml").safe_load(_blocks("yaml")[0])
    volumes = deployment["spec"]["template"]["spec"]["volumes"]
    assert volumes[1]["name"] == driver["name"]
    volumes[1] = driver
    assert not _unknown(deployment, tmp_path)


@needs_kubectl
def test_a_mistake_in_the_manifest_would_be_found(tmp_path: Path) -> None:
    """A control: a field that no pod has."""
    _, deployment = _manifest()
    pod = deployment["spec"]["template"]["spec"]
    pod["initContainer"] = pod.pop("initContainers")
    assert _unknown(deployment, tmp_path)


def test_both_containers_see_the_same_files(tmp_path: Path) -> None:
    """Whole volumes at the places that the configuration and the command name; that configuration is a good one."""
    config, deployment = _manifest()
    pod = deployment["spec"]["template"]["spec"]
    (first,), (service,) = pod["initContainers"], pod["containers"]
    assert (first["image"], first["volumeMounts"]) == (service["image"], service["volumeMounts"])
    places = {mount["name"]: mount["mountPath"] for mount in first["volumeMounts"]}
    assert [set(mount) for mount in first["volumeMounts"]] == [{"name", "mountPath", "readOnly"}] * 2
    assert set(places) == {volume["name"] for volume in pod["volumes"]}
    ((name, text),) = config["data"].items()
    assert first["command"][-1] == f"{places['config']}/{name}"
    assert {"name": "WISE_CREDS_CONFIG", "value": first["command"][-1]} in service["env"]
    assert f'"{places["wise"]}"' in text
    assert pod["volumes"][1]["secret"]["defaultMode"] == 0o440
    _valid(text, tmp_path)


def _valid(text: str, folder: Path) -> None:
    """Check a configuration offline."""
    path = folder / "wise-creds.toml"
    path.touch(mode=0o600)
    path.write_text(text)
    report = wise_creds.validate(config=path, level="config", environ={})
    assert [one for one in report.results if one.status in ("error", "warning")] == []
    assert report.exit_code == 0


@needs_kubectl
def test_the_init_container_takes_the_secret_that_kubectl_makes(mock_wise: MockWise) -> None:
    """From a folder with one file per field, in the layout of the kubelet."""
    (line,) = re.findall(r"^kubectl (create secret .*)$", DOCS, re.MULTILINE)
    *words, source = shlex.split(line)
    assert source == "--from-file=secrets/production"
    made = json.loads(_kubectl(*words, f"--from-file={mock_wise.directory}", "--dry-run=client", "-o", "json"))
    volume = mock_wise.root / "volume"
    (volume / "..2026").mkdir(parents=True)
    (volume / "..data").symlink_to("..2026")
    for name, value in made["data"].items():
        (volume / "..2026" / name).write_bytes(base64.b64decode(value))
        (volume / "..2026" / name).chmod(0o440)
        (volume / name).symlink_to(Path("..data") / name)
    assert {volume["secret"]["secretName"] for volume in _manifest()[1]["spec"]["template"]["spec"]["volumes"][1:]} == {
        made["metadata"]["name"]
    }
    done = _run(_init_container(), _configure(mock_wise, directory=str(volume)))
    assert (done.returncode, mock_wise.token_requests) == (0, 1)


# Vault Agent


def test_agent_writes_a_file_for_its_owner_alone_and_no_copy(tmp_path: Path) -> None:
    """Where the documented configuration reads it; folders with Agent's own mode are not made."""
    told = {key: _agent(key) for key in ("perms", "backup", "create_dest_dirs", "error_on_missing_key")}
    assert told == {"perms": "0600", "backup": False, "create_dest_dirs": False, "error_on_missing_key": True}
    (text,) = _blocks("toml")
    assert f'"{_agent("destination")}"' in text
    _valid(text, tmp_path)


@pytest.mark.skipif(PROGRAM is None, reason="neither bao nor vault is installed")
def test_an_agent_validates_what_it_has_written_and_then_tells_the_service(mock_wise: MockWise, tmp_path: Path) -> None:
    """A real one: mode, no copy; a wrong secret stays without a signal, the next good one is told."""
    told, written = _systemctl(tmp_path / "bin"), tmp_path / "wise.json"
    config = _configure(mock_wise, directory=None, file=str(written))
    with (told.parent / "systemctl").open("a") as script:
        script.write(f"grep -o canary-wrong {shlex.quote(str(written))} >> {shlex.quote(str(told))}; true\n")
    fields = {name: (mock_wise.directory / name).read_text() for name in FIELDS}
    with running(KINDS[-1]) as vault:
        role = vault.approle()
        vault.put(fields, "wise/production")
        (tmp_path / "role-id").write_text(role["role_id"])
        (tmp_path / "secret-id").write_text(vault.secret_id())
        text = (HOOKS / "agent.hcl").read_text()
        for example, real in {
            "https://vault.example:8200": vault.address, "kv/data/": f"{vault.mount}/data/", '"1m"   #': '"1s"   #',
            "/etc/payments/role-id": tmp_path / "role-id", "/run/payments/secret-id": tmp_path / "secret-id",
            "/run/payments/wise.json": written, "/opt/payments/bin/wise-creds": CONSOLE,
            "/etc/payments/wise-creds.toml": config,
        }.items():  # fmt: skip
            assert text.count(example) == 1
            text = text.replace(example, str(real))
        (tmp_path / "agent.hcl").write_text(text)
        environ = {**os.environ, "PATH": f"{told.parent}:{os.environ['PATH']}"}
        assert PROGRAM is not None
        agent = subprocess.Popen(
            [PROGRAM, "agent", f"-config={tmp_path / 'agent.hcl'}"], env=environ,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            until(told.exists)
            assert (json.loads(written.read_text()), written.stat().st_mode & 0o777) == (fields, 0o600)
            vault.put({**fields, "client_secret": "canary-wrong"}, "wise/production")
            until(lambda: mock_wise.token_requests == 2)
            vault.put(fields, "wise/production")
            until(lambda: mock_wise.token_requests == 3)
            until(lambda: told.read_text() != GOES_ON)
            assert told.read_text() == GOES_ON * 2
            assert list(tmp_path.glob("wise.json*")) == [written]
        finally:
            agent.terminate()
            agent.wait(10)


# The service


class Service:
    """The example as systemd would run it."""

    def __init__(self, config: Path, notify: socket.socket) -> None:
        settings = {name: value for line in _unit("Environment") for name, _, value in [line.partition("=")]}
        environ = {**settings, "WISE_CREDS_CONFIG": str(config), "NOTIFY_SOCKET": str(notify.getsockname())}
        self.process = subprocess.Popen(
            [sys.executable, HOOKS / "service.py"], env={**os.environ, **environ},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._end = threading.Timer(60, self.process.kill)
        self._end.start()

    def status(self) -> dict[str, Any]:
        """The next status that it prints."""
        assert self.process.stdout is not None
        told: dict[str, Any] = json.loads(self.process.stdout.readline())
        return told

    def reload(self) -> dict[str, Any]:
        """Run the last command of ExecReload; gives the status that follows."""
        line = _unit("ExecReload")[-1]
        if not Path("/bin/kill").exists():
            line = line.replace("/bin/kill", "kill")
        environ = {**os.environ, "MAINPID": str(self.process.pid)}
        subprocess.run(["/bin/sh", "-c", line], env=environ, check=True, timeout=10)
        return self.status()

    def end(self) -> str:
        """End it; gives what it said on stderr."""
        self._end.cancel()
        self.process.terminate()
        return self.process.communicate(timeout=10)[1]


@contextmanager
def _notified(path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(str(path))
        notify.settimeout(30)
        yield notify


def test_the_service_goes_over_to_new_credentials_when_it_is_reloaded(mock_wise: MockWise, tmp_path: Path) -> None:
    """A real process: it says when it is ready, stays on good credentials when bad ones come, and takes the next good."""
    with _notified(tmp_path / "notify") as notify:
        service = Service(_configure(mock_wise), notify)
        try:
            first = service.status()
            assert notify.recv(64) == b"READY=1"
            mock_wise.rotate_certificate("ec-p384")
            mock_wise.rotate_secret()
            second = service.reload()
            sent = mock_wise.requests[-1].certificate_sha256
            mock_wise.write_credentials(mock_wise.directory, client_secret="canary-wrong-secret")
            third = service.reload()
            mock_wise.rotate_secret()
            fourth = service.reload()
        finally:
            said = service.end()
    assert [(one["generation"], one["ready"]) for one in (first, second, third, fourth)] == [
        (1, True), (2, True), (2, True), (3, True),
    ]  # fmt: skip
    assert second["certificate_sha256"] == sent != first["certificate_sha256"]
    assert [one["rejected"] and one["rejected"]["code"] for one in (first, second, third, fourth)] == [
        None, None, "WC501", None,
    ]  # fmt: skip
    assert "WC501" in said
    assert "Traceback" not in said
    assert service.process.returncode == -signal.SIGTERM


def test_the_service_does_not_start_with_a_wrong_secret(mock_wise: MockWise, tmp_path: Path) -> None:
    """Even where nobody validates before it: it ends, and is never ready."""
    mock_wise.write_credentials(mock_wise.directory, client_secret="canary-wrong-secret")
    with _notified(tmp_path / "notify") as notify:
        service = Service(_configure(mock_wise), notify)
        assert service.process.wait(30) == 1
        assert "WC501" in service.end()
        notify.setblocking(False)
        with pytest.raises(BlockingIOError):
            notify.recv(64)


# Pre-fork

MASTER = """
import json, os, sys, threading, wise_creds
wise = wise_creds.connect(config=sys.argv[1])
print(len(threading.enumerate()), flush=True)
sys.stdin.readline()
if os.fork() == 0:
    before = [thread.name for thread in threading.enumerate()]
    with wise.client() as http:
        code = http.get("/v2/profiles").status_code
    watched = "wise-creds watch" in {thread.name for thread in threading.enumerate()}
    print(json.dumps([before, code, wise.status()["generation"], watched]), flush=True)
    os._exit(0)
os.wait()
print(wise.status()["generation"])
"""


def test_a_worker_forked_long_after_the_load_serves_on_what_is_good_then(mock_wise: MockWise) -> None:
    """Without a watcher in the master, and with a secret that was replaced meanwhile: its first request succeeds."""
    master = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", MASTER, str(_configure(mock_wise, watch=30))], text=True,
        env={**os.environ, "WISE_CREDS_NAMESPACE": "production"}, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert master.stdout is not None
    threads = int(master.stdout.readline())
    mock_wise.rotate_secret()
    told, _ = master.communicate("\n", timeout=60)
    worker, own = told.splitlines()
    assert (threads, json.loads(worker), own) == (1, [["MainThread"], 200, 2, True], "1")


# The text


def test_the_text_leads_to_every_example() -> None:
    """By a link; test_project.py follows those."""
    assert {path.name for path in HOOKS.iterdir() if path.is_file()} == set(
        re.findall(r"examples/hooks/(\S+?)\)", DOCS)
    )
