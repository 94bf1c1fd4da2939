"""
Process start to first token, beside a hand-written script that does the same work with the same libraries.

Both read the same wise-creds.toml and the same files, check the same things, load the key through memory and ask the
same stand-in for a token over mTLS.
"""

from __future__ import annotations

import subprocess
import sys

from _startup import compare

OURS = """
import sys, wise_creds
wise = wise_creds.connect("sandbox", config=sys.argv[1])
assert wise.authorization()
"""

BY_HAND = """
import datetime, hashlib, os, re, ssl, sys, tomllib, mmap
from pathlib import Path
from typing import Literal
import httpx
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from cryptography.x509.oid import NameOID
from pydantic import BaseModel, ConfigDict, SecretStr

class Sandbox(BaseModel):
    model_config = ConfigDict(extra="forbid")
    provider: Literal["files"]
    directory: Path
    base_url: str

class Config(BaseModel):
    sandbox: Sandbox

path = Path(sys.argv[1])
config = Config(**tomllib.loads(path.read_text())).sandbox
folder = path.parent / config.directory
fields = {}
for name in ("client_id", "client_secret", "certificate", "private_key", "ca_bundle", "environment"):
    assert (folder / name).stat().st_mode & 0o077 == 0
    fields[name] = SecretStr((folder / name).read_text().removesuffix("\\n"))
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


def main() -> None:
    """Print the medians and their ratios."""
    child = subprocess.Popen(
        [sys.executable, "-m", "wise_creds.testing"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    config = child.stdout.readline().strip()
    scripts = {"by hand": BY_HAND, "wise-creds": OURS}
    try:
        compare("process start to first token, files", scripts, config, floor="by hand", rounds=40)
    finally:
        child.communicate("")


if __name__ == "__main__":
    main()
