"""
MockWise and a store that holds its credentials, in a process of their own; told by lines of JSON to rotate both.

The first line on stdout has the path of a wise-creds.toml and the environment to use; ends with stdin.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from wise_creds.testing import MockWise

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
LIFE = 12
IDENTITY = {
    "AWS_ACCESS_KEY_ID": "AKIAEXAMPLE",
    "AWS_SECRET_ACCESS_KEY": "example",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
}
NAMES = ("client_id", "client_secret", "certificate", "private_key", "ca_bundle", "environment")

Put = Callable[[dict[str, str]], object]
Down = Callable[[], object]


def aws(_wise: MockWise) -> tuple[dict[str, Any], dict[str, str], Put, Down]:
    """Secrets Manager, by a moto server."""
    import boto3
    from moto.server import ThreadedMotoServer

    os.environ.update(IDENTITY)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    client: Any = boto3.client("secretsmanager", region_name="eu-west-1", endpoint_url=f"http://{host}:{port}")
    client.create_secret(Name="wise/sandbox", SecretString="{}")
    options = {
        "provider": "aws",
        "secret": "wise/sandbox",
        "region": "eu-west-1",
        "endpoint_url": f"http://{host}:{port}",
    }

    def put(content: dict[str, str]) -> None:
        client.put_secret_value(SecretId="wise/sandbox", SecretString=json.dumps(content))

    return options, IDENTITY, put, server.stop


def vault(_wise: MockWise) -> tuple[dict[str, Any], dict[str, str], Put, Down]:
    """KV v2, by the tests' stand-in."""
    import httpx
    from vault_standin import VaultStandIn

    server = VaultStandIn().__enter__()
    options = {"provider": "vault", "address": server.address, "mount": "kv", "path": "wise/sandbox",
               "auth": {"method": "token", "token_env": "VAULT_TOKEN_OF_THIS_RUN"}}  # fmt: skip

    def put(content: dict[str, str]) -> None:
        httpx.post(f"{server.address}/v1/kv/data/wise/sandbox", json={"data": content}, trust_env=False,
                   headers={"X-Vault-Token": server.root_token}).raise_for_status()  # fmt: skip

    def down() -> None:
        server.sealed = True

    return options, {"VAULT_TOKEN_OF_THIS_RUN": server.root_token}, put, down


def files(wise: MockWise) -> tuple[dict[str, Any], dict[str, str], Put, Down]:
    """A plain directory, each file replaced by a rename: not all at one moment."""

    def put(content: dict[str, str]) -> None:
        for name, text in content.items():
            beside = wise.directory / f".{name}.new"
            beside.touch(mode=0o600)
            beside.write_text(text)
            beside.replace(wise.directory / name)

    def down() -> None:
        wise.directory.rename(wise.directory.with_name("away"))

    return {"provider": "files", "directory": str(wise.directory)}, {}, put, down


def main() -> None:
    """Serve until stdin ends."""
    with MockWise() as wise:
        wise.state.token_life = LIFE
        options, environ, put, down = {"aws": aws, "files": files, "vault": vault}[sys.argv[1]](wise)

        def content() -> dict[str, str]:
            return {name: (wise.directory / name).read_text() for name in NAMES}

        good = content()
        put(good)
        table = {**options, "base_url": wise.base_url, "watch": 0.4, "refresh_at": 0.6}
        print(json.dumps({"table": table, "environ": environ}), flush=True)
        for line in sys.stdin:
            order = json.loads(line)
            if order["do"] == "down":
                down()
            elif order["do"] == "spoil":
                put({**good, "private_key": "spoilt"})
            else:
                new = secrets.token_urlsafe(24)
                wise.issued = wise.authority.client(wise.client_id, kind=order["kind"])
                wise.state.secrets = [new, *(wise.state.secrets[:1] if order["overlap"] else [])]
                time.sleep(order["late"])
                good = {**good, "client_secret": new, "certificate": wise.issued.pem.decode(),
                        "private_key": wise.issued.key_pem.decode()}  # fmt: skip
                put(good)
            print(json.dumps({"token_requests": wise.token_requests}), flush=True)


if __name__ == "__main__":
    main()
