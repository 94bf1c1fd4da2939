"""The three stores that can be rotated, seen by a test: what is in them, what is asked of them, and where they die."""

from __future__ import annotations

import json
import os
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest
from botocore.httpsession import URLLib3Session
from moto.server import ThreadedMotoServer
from vault_servers import running

KINDS = ["files", "aws", "vault"]
Content = dict[str, str]


class Killed(BaseException):
    """What a process that is gone would not have gone on from."""


class Store:
    """
    One store with one secret in it.

    Attributes:
        table: what its source looks like in wise-creds.toml.
    """

    table: dict[str, Any]
    on_call: Callable[[str, Callable[[], Any]], Any] | None = None
    """What stands between the provider and its store; gets the call's name, and how to make it."""

    def put(self, content: Mapping[str, str]) -> None:
        """Let there be this content, and no history."""
        raise NotImplementedError

    def overwrite(self, content: Mapping[str, str]) -> None:
        """Change the current version past everybody."""
        raise NotImplementedError

    def current(self) -> Content:
        """Give the content that services read."""
        raise NotImplementedError

    def pending(self) -> Content | None:
        """Give the content that is staged."""
        raise NotImplementedError

    def age(self) -> None:
        """Let some time pass between two versions."""

    def writes(self, call: str) -> bool:
        """Tell whether such a call changes the store."""
        raise NotImplementedError

    @contextmanager
    def watched(self) -> Iterator[list[str]]:
        """Collect what is asked of the store meanwhile."""
        seen: list[str] = []

        def note(name: str, call: Callable[[], Any]) -> Any:
            seen.append(name)
            return call()

        self.on_call = note
        try:
            yield seen
        finally:
            self.on_call = None

    @contextmanager
    def dying(self, at: int, *, before: bool) -> Iterator[None]:
        """Let the process end at the n-th write, before it is made or before its answer is seen."""
        count = 0

        def die(name: str, call: Callable[[], Any]) -> Any:
            nonlocal count
            count += self.writes(name)
            if count > at or (count == at and before):
                raise Killed
            answer = call()
            if count == at:
                raise Killed
            return answer

        self.on_call = die
        try:
            yield
        finally:
            self.on_call = None

    def between(self, name: str, call: Callable[[], Any]) -> Any:
        """Make a call of the provider's, or what the test wants instead."""
        return call() if self.on_call is None else self.on_call(name, call)


class VaultStore(Store):
    """Vault's stand-in."""

    def __init__(self, vault: Any, patch: pytest.MonkeyPatch) -> None:
        self.vault = vault
        patch.setenv("TOKEN", vault.token)
        self.table = {"provider": "vault", **vault.options()}
        send, port = httpx.HTTPTransport.handle_request, httpx.URL(vault.address).port

        def handle(transport: httpx.HTTPTransport, request: httpx.Request) -> httpx.Response:
            ours = request.url.port == port and "x-vault-request" in request.headers
            if not ours:
                return send(transport, request)
            answer: httpx.Response = self.between(request.method, lambda: send(transport, request))
            return answer

        patch.setattr(httpx.HTTPTransport, "handle_request", handle)

    def put(self, content: Mapping[str, str]) -> None:
        for path in ("wise/sandbox", "wise/sandbox-pending"):
            self.vault.ask("DELETE", f"{self.vault.mount}/metadata/{path}")
        self.vault.put(dict(content))

    def overwrite(self, content: Mapping[str, str]) -> None:
        self.vault.put(dict(content))

    def current(self) -> Content:
        return _bare(self.vault.content())

    def pending(self) -> Content | None:
        found = self.vault.content("wise/sandbox-pending")
        return None if found is None else _bare(found)

    def writes(self, call: str) -> bool:
        return call != "GET"


class AwsStore(Store):
    """Secrets Manager by moto."""

    def __init__(self, endpoint: str, patch: pytest.MonkeyPatch) -> None:
        for name in [name for name in os.environ if name.startswith(("AWS_", "BOTO"))]:
            patch.delenv(name)
        patch.setenv("AWS_ACCESS_KEY_ID", "AKIACANARY0000000000")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "canary-aws-secret-access-key")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.setenv("AWS_CONFIG_FILE", "no-config")
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", "no-credentials")
        self.endpoint = endpoint
        self.client: Any = boto3.client("secretsmanager", region_name="eu-west-1", endpoint_url=endpoint)
        self.table = {"provider": "aws", "secret": "wise/sandbox", "region": "eu-west-1", "endpoint_url": endpoint}
        send = URLLib3Session.send

        def handle(session: URLLib3Session, request: Any) -> Any:
            name = str(request.headers.get("X-Amz-Target")).rpartition(".")[2].strip("'")
            return self.between(name, lambda: send(session, self._as_aws_takes_it(name, request)))

        patch.setattr(URLLib3Session, "send", handle)

    def _as_aws_takes_it(self, name: str, request: Any) -> Any:
        """Have a label refused that another version has, unless that is named; moto gives it to both."""
        asked = json.loads(request.body) if name == "UpdateSecretVersionStage" else {}
        if asked.get("MoveToVersionId") and "RemoveFromVersionId" not in asked:
            on_call, self.on_call = self.on_call, None
            labels = self.client.describe_secret(SecretId="wise/sandbox")["VersionIdsToStages"]
            self.on_call = on_call
            if any(asked["VersionStage"] in some for some in labels.values()):
                request.body = json.dumps({**asked, "RemoveFromVersionId": asked["MoveToVersionId"]}).encode()
                request.headers["Content-Length"] = str(len(request.body))
        return request

    def put(self, content: Mapping[str, str]) -> None:
        urllib.request.urlopen(urllib.request.Request(f"{self.endpoint}/moto-api/reset", method="POST")).close()
        self.client.create_secret(Name="wise/sandbox", SecretString=json.dumps(dict(content)))

    def overwrite(self, content: Mapping[str, str]) -> None:
        self.client.put_secret_value(SecretId="wise/sandbox", SecretString=json.dumps(dict(content)))

    def current(self) -> Content:
        return _bare(json.loads(self._value("AWSCURRENT")))

    def pending(self) -> Content | None:
        labels = self.client.describe_secret(SecretId="wise/sandbox")["VersionIdsToStages"].values()
        staged = any("WISE_STAGED" in some for some in labels)
        return _bare(json.loads(self._value("WISE_STAGED"))) if staged else None

    def age(self) -> None:
        """Moto counts whole seconds."""
        from moto.secretsmanager.models import secretsmanager_backends

        secret = secretsmanager_backends["123456789012"]["eu-west-1"].secrets["wise/sandbox"]
        for version in secret.versions.values():
            version["createdate"] -= 60

    def writes(self, call: str) -> bool:
        return call not in ("DescribeSecret", "GetSecretValue")

    def _value(self, stage: str) -> str:
        found: str = self.client.get_secret_value(SecretId="wise/sandbox", VersionStage=stage)["SecretString"]
        return found


class FilesStore(Store):
    """A directory."""

    def __init__(self, directory: Path, patch: pytest.MonkeyPatch) -> None:
        import wise_creds_files._layout as layout

        self.root, self.directory = directory, directory / "sandbox"
        self.table = {"provider": "files", "directory": str(self.directory)}

        def stand_between(module: object, name: str) -> None:
            real = getattr(module, name)

            def handle(*args: Any, **keywords: Any) -> Any:
                return self.between(name, lambda: real(*args, **keywords))

            patch.setattr(module, name, handle)

        for name in ("rename", "mkdir", "symlink", "unlink", "rmdir", "fsync"):
            stand_between(os, name)
        stand_between(layout, "exchange")

    def put(self, content: Mapping[str, str]) -> None:
        import shutil

        shutil.rmtree(self.root)
        self.directory.mkdir(mode=0o700, parents=True)
        self._write(self.directory, content)

    def overwrite(self, content: Mapping[str, str]) -> None:
        self._write(self.directory / os.path.realpath(self.directory / "..data"), content)

    def current(self) -> Content:
        link = self.directory / "..data"
        return self._read(link if link.exists() else self.directory)

    def pending(self) -> Content | None:
        link = self.directory / "..pending"
        return self._read(link) if link.exists() else None

    def writes(self, call: str) -> bool:
        return True

    @staticmethod
    def _read(base: Path) -> Content:
        return _bare({path.name: path.read_text() for path in base.iterdir() if path.name[:2] != ".."})

    @staticmethod
    def _write(base: Path, content: Mapping[str, str]) -> None:
        for name, value in content.items():
            (base / name).touch(mode=0o600)
            (base / name).write_text(value)


def _bare(content: Mapping[str, str]) -> Content:
    """Leave out what a PEM file may end with or not."""
    return {name: value.rstrip("\n") for name, value in content.items()}


@contextmanager
def store_of(kind: str, directory: Path) -> Iterator[Store]:
    """Give a store of that kind, and take it away again."""
    with pytest.MonkeyPatch.context() as patch:
        if kind == "files":
            directory.mkdir(exist_ok=True)
            yield FilesStore(directory, patch)
        elif kind == "vault":
            with running("stand-in") as vault:
                yield VaultStore(vault, patch)
        else:
            server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
            server.start()
            host, port = server.get_host_and_port()
            try:
                yield AwsStore(f"http://{host}:{port}", patch)
            finally:
                server.stop()
