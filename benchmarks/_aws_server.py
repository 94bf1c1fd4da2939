"""
Secrets Manager (moto) with MockWise's credentials in it, and MockWise, in a process of its own.

The first line on stdout is the path of a wise-creds.toml, the second the identity to use; ends with stdin.
"""

from __future__ import annotations

import json
import logging
import os
import sys

import boto3
from moto.server import ThreadedMotoServer

from wise_creds.testing import MockWise

IDENTITY = {
    "AWS_ACCESS_KEY_ID": "AKIAEXAMPLE",
    "AWS_SECRET_ACCESS_KEY": "example",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
}


def main() -> None:
    """Serve until stdin ends."""
    os.environ.update(IDENTITY)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    store = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    store.start()
    with MockWise() as wise:
        host, port = store.get_host_and_port()
        endpoint = f"http://{host}:{port}"
        secret = {path.name: path.read_text() for path in wise.directory.iterdir()}
        boto3.client("secretsmanager", region_name="eu-west-1", endpoint_url=endpoint).create_secret(
            Name="wise/sandbox", SecretString=json.dumps(secret)
        )
        wise.config.write_text(
            '[sandbox]\nprovider = "aws"\nsecret = "wise/sandbox"\nregion = "eu-west-1"\n'
            f'endpoint_url = "{endpoint}"\nbase_url = "{wise.base_url}"\n'
        )
        print(wise.config, json.dumps(IDENTITY), sep="\n", flush=True)
        sys.stdin.read()
    store.stop()


if __name__ == "__main__":
    main()
