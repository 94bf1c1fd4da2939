"""
Process start to first token with AWS Secrets Manager, beside two scripts that do the same without wise-creds.

The store is a moto server, Wise a stand-in; all three make one `GetSecretValue` and one token request over mTLS.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from _startup import compare

OURS = """
import sys, wise_creds
wise = wise_creds.connect("sandbox", config=sys.argv[1])
assert wise.authorization()
"""

BY_HAND = """
import datetime, json, mmap, os, re, ssl, sys, tomllib
from typing import Literal
import boto3, httpx
from botocore.config import Config as Boto
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from cryptography.x509.oid import NameOID
from pydantic import BaseModel, ConfigDict, SecretStr

class Sandbox(BaseModel):
    model_config = ConfigDict(extra="forbid")
    provider: Literal["aws"]
    secret: str
    region: str
    endpoint_url: str
    base_url: str

class Config(BaseModel):
    sandbox: Sandbox

config = Config(**tomllib.loads(open(sys.argv[1]).read())).sandbox
boto = Boto(connect_timeout=3, read_timeout=5, retries={"mode": "standard", "total_max_attempts": 3})
store = boto3.client("secretsmanager", region_name=config.region, endpoint_url=config.endpoint_url, config=boto)
answer = store.get_secret_value(SecretId=config.secret, VersionStage="AWSCURRENT")
fields = {name: SecretStr(text) for name, text in json.loads(answer["SecretString"]).items()}
value = {name: secret.get_secret_value() for name, secret in fields.items()}
assert value["environment"] == "sandbox"
assert all(re.fullmatch("[ -~]+", value[name]) for name in ("client_id", "client_secret"))
leaf, *chain = x509.load_pem_x509_certificates(value["certificate"].encode())
key = load_pem_private_key(value["private_key"].encode(), None)
der = lambda public: public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
assert der(key.public_key()) == der(leaf.public_key())
now = datetime.datetime.now(datetime.UTC)
assert leaf.not_valid_before_utc <= now < leaf.not_valid_after_utc
assert leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == value["client_id"]
x509.load_pem_x509_certificates(value["ca_bundle"].encode())
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
context.minimum_version = ssl.TLSVersion.TLSv1_2
context.load_verify_locations(cadata=value["ca_bundle"])
pair = (value["certificate"] + "\\n" + value["private_key"]).encode()
fd = os.memfd_create("pair")
os.ftruncate(fd, len(pair))
with mmap.mmap(fd, len(pair)) as memory:
    memory[:] = pair
    context.load_cert_chain(f"/proc/self/fd/{fd}", password=lambda: b"")
    memory[:] = bytes(len(pair))
os.close(fd)
with httpx.Client(verify=context, trust_env=False, timeout=10) as http:
    answer = http.post(
        config.base_url + "/oauth/token",
        data={"grant_type": "client_credentials"},
        auth=(value["client_id"], value["client_secret"]),
    )
answer.raise_for_status()
token = answer.json()
assert token["token_type"] == "bearer" and 0 < token["expires_in"]
assert "Bearer " + token["access_token"]
"""

# As their documentation puts them together: the key goes through a file, nothing is checked.
PEERS = """
import os, ssl, sys, tempfile, tomllib
from authlib.integrations.httpx_client import OAuth2Client
from pydantic import SecretStr
from pydantic_settings import AWSSecretsManagerSettingsSource, BaseSettings

config = tomllib.loads(open(sys.argv[1]).read())["sandbox"]

class Settings(BaseSettings):
    client_id: str
    client_secret: SecretStr
    certificate: str
    private_key: SecretStr
    ca_bundle: str
    environment: str

    @classmethod
    def settings_customise_sources(cls, settings_cls, **sources):
        return (AWSSecretsManagerSettingsSource(
            settings_cls, config["secret"], region_name=config["region"], endpoint_url=config["endpoint_url"]),)

settings = Settings()
context = ssl.create_default_context(cadata=settings.ca_bundle)
with tempfile.NamedTemporaryFile("w") as pair:
    pair.write(settings.certificate + "\\n" + settings.private_key.get_secret_value())
    pair.flush()
    context.load_cert_chain(pair.name)
with OAuth2Client(
    settings.client_id, settings.client_secret.get_secret_value(), verify=context, trust_env=False, timeout=10
) as http:
    assert http.fetch_token(config["base_url"] + "/oauth/token")["access_token"]
"""


def main() -> None:
    """Print the medians and their ratios."""
    server = Path(__file__).with_name("_aws_server.py")
    child = subprocess.Popen([sys.executable, server], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    scripts = {"by hand": BY_HAND, "pydantic-settings + authlib": PEERS, "wise-creds": OURS}
    try:
        config, identity = child.stdout.readline().strip(), json.loads(child.stdout.readline())
        compare("process start to first token, AWS", scripts, config, floor="by hand", rounds=20, **identity)
    finally:
        child.communicate("")


if __name__ == "__main__":
    main()
