"""What every test gets: a clean environment, and the shipped fixtures."""

from __future__ import annotations

from pathlib import Path

import pytest
from vault_servers import SAID

pytest_plugins = ["wise_creds.testing.fixtures"]

_CLEARED = (
    "WISE_CREDS_CONFIG", "WISE_CREDS_NAMESPACE", "CREDENTIALS_DIRECTORY", "SSLKEYLOGFILE", "SSL_CERT_FILE",
    "SSL_CERT_DIR", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy", "NETRC",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test depends on the machine's environment or working directory."""
    for name in _CLEARED:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def pytest_report_header() -> str:
    """Say which Vault the tests talk to."""
    return SAID
