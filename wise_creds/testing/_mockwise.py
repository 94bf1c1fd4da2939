"""MockWise: a local stand-in for Wise's API, with credentials that work with it."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import ssl
import tempfile
import threading
import uuid
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from wise_creds.testing._pki import Authority, Issued
from wise_creds.testing._server import FAULTS, Recorded, Server, State
from wise_creds.tls import load_pair


class MockWise:
    """
    Wise's token endpoint and a few API routes on loopback, over real TLS with client certificates required.

    ```python
    with MockWise() as wise, wise_creds.connect("sandbox", config=wise.config) as connection:
        ...
    ```

    Args:
        mtls: False for plain http without certificates, as `mtls = "off"` in sandbox needs it.
        tls: the only TLS version to speak, or None for 1.2 and 1.3.
        key_type: of the client certificate, `"ec-p256"`, `"ec-p384"`, `"rsa-2048"` …

    Attributes:
        directory: the credentials, one file per field, for the files provider.
        config: a ready wise-creds.toml for it.
        state: what the server knows: `token_life`, `scope`, `delay` (seconds before a token is given) …
    """

    def __init__(
        self, *, mtls: bool = True, tls: Literal["1.2", "1.3"] | None = None, key_type: str = "ec-p256"
    ) -> None:
        self._mtls = mtls
        self._tls = tls
        self._key_type = key_type
        self.authority = Authority()
        self.state = State(client_id=str(uuid.uuid4()), secrets=[secrets.token_urlsafe(24)])
        self._revoked: list[Issued] = []

    def __enter__(self) -> Self:
        self.root = Path(tempfile.mkdtemp(prefix="wise-creds-mock-"))
        self.directory = self.root / "sandbox"
        self.config = self.root / "wise-creds.toml"
        self._server = Server(self.state, self._context() if self._mtls else None)
        self.base_url = f"http{'s' if self._mtls else ''}://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), name="MockWise", daemon=True).start()
        self.rotate_certificate(self._key_type)
        self.config.write_text(_toml(self.table))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.stop()
        shutil.rmtree(self.root)

    @property
    def client_id(self) -> str:
        """The only client."""
        return self.state.client_id

    @property
    def client_secret(self) -> str:
        """Its present secret."""
        return self.state.secrets[0]

    @property
    def table(self) -> dict[str, object]:
        """The `[sandbox]` table, for a configuration given as a mapping."""
        table: dict[str, object] = {"provider": "files", "directory": str(self.directory), "base_url": self.base_url}
        return table if self._mtls else {**table, "mtls": "off"}

    @property
    def requests(self) -> list[Recorded]:
        """What arrived so far."""
        return self.state.requests

    @property
    def token_requests(self) -> int:
        """How many token requests arrived so far."""
        return sum(request.path.endswith("/oauth/token") for request in self.requests)

    def fail(self, name: str, times: int = 1) -> None:
        """Let the next token requests fail in a way that `wise_creds.testing.FAULTS` names."""
        if name not in FAULTS:
            raise ValueError(f"no fault is called {name!r}; there are {', '.join(FAULTS)}")
        self.state.faults.extend([name] * times)

    def expire_tokens(self) -> None:
        """Let no token that was given so far be valid any more."""
        self.state.tokens.clear()

    def authorise(self, redirect_uri: str = "") -> str:
        """Let a user authorise the client: gives a code for `redirect_uri`, or without one a refresh token."""
        given = secrets.token_urlsafe(24)
        known = self.state.codes if redirect_uri else self.state.refresh_tokens
        known[given + redirect_uri] = None
        return given

    def rotate_secret(self, *, overlap: bool = False) -> None:
        """Issue a new client secret and put it into `directory`; the old one is dead unless they overlap."""
        self.state.secrets = [secrets.token_urlsafe(24), *(self.state.secrets if overlap else [])]
        self.write_credentials(self.directory)

    def rotate_certificate(self, key_type: str = "ec-p256") -> None:
        """Issue a new client certificate and put it into `directory`; the old one stays good."""
        self.issued = self.authority.client(self.client_id, kind=key_type)
        self.write_credentials(self.directory)

    def revoke_certificate(self) -> None:
        """Refuse the present client certificate from the next connection on, by a TLS alert."""
        self._revoked.append(self.issued)
        self._server.context = self._context()

    def write_credentials(
        self, directory: Path, *, client_secret: str | None = None, issued: Issued | None = None
    ) -> Path:
        """Write a set of credentials as the files provider reads it, by default the set that works."""
        issued = issued or self.issued
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        fields = {
            "client_id": self.client_id.encode(),
            "client_secret": (client_secret or self.client_secret).encode(),
            "certificate": issued.pem,
            "private_key": issued.key_pem,
            "ca_bundle": self.authority.issued.pem,
            "environment": b"sandbox",
        }
        for name, content in fields.items():
            beside = directory / f".{name}.new"
            beside.touch(mode=0o600)
            beside.write_bytes(content)
            os.replace(beside, directory / name)  # noqa: PTH105  atomic, said plainly
        return directory

    def write_samples(self) -> None:
        """Write credentials that do not work, beside `directory`, for looking at the errors they make."""
        broken = self.root / "broken"
        self.write_credentials(broken / "wrong-secret", client_secret=secrets.token_urlsafe(24))
        expired = self.authority.client(self.client_id, begins=timedelta(days=-366), ends=timedelta(days=-1))
        self.write_credentials(broken / "expired-certificate", issued=expired)

    def _context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3 if self._tls == "1.3" else ssl.TLSVersion.TLSv1_2
        context.maximum_version = ssl.TLSVersion.TLSv1_2 if self._tls == "1.2" else ssl.TLSVersion.TLSv1_3
        server = self.authority.server()
        load_pair(context, server.pem, server.key_pem)
        context.verify_mode = ssl.CERT_REQUIRED
        trusted = self.root / "trusted.pem"
        revoked = (one.certificate for one in self._revoked)
        trusted.write_bytes(self.authority.issued.pem + self.authority.revocation_list(*revoked))
        context.load_verify_locations(cafile=trusted)
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
        return context


def _toml(table: dict[str, object]) -> str:
    relative = {**table, "directory": "sandbox"}
    return "[sandbox]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in relative.items())
