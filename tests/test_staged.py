"""A namespace with values that are not current yet."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from support import CLIENT_ID, CLIENT_SECRET, Material, leaks, write_fields

from wise_creds import ConfigError, LoadError, Secret, SecretDocument, TokenRejectedError
from wise_creds.config import NamespaceConfig
from wise_creds.staged import check_with, configured, token_with
from wise_creds.testing import MockWise

MATERIAL = Material()
NEW = "canary-new-secret-77aa"
PAIR = ("certificate", "private_key", "ca_bundle")


def document(**fields: str) -> SecretDocument:
    values = {name: Secret(value, name=name) for name, value in fields.items()}
    return SecretDocument(fields=values, version="pending-1", location="the store")


def of(table: Mapping[str, Any]) -> NamespaceConfig:
    (config,) = configured({"sandbox": table})
    return config


@pytest.fixture
def two(tmp_path: Path) -> NamespaceConfig:
    """Client ID and secret in one directory, the pair in another."""
    fields = MATERIAL.fields
    write_fields(tmp_path / "client", {name: fields[name] for name in ("client_id", "client_secret", "environment")})
    write_fields(tmp_path / "pair", {name: fields[name] for name in PAIR})
    return of({"source": [{"provider": "files", "directory": name} for name in ("client", "pair")]})


def test_each_namespace_of_the_configuration_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Found as `load` finds it, with what is wrong with each."""
    path = tmp_path / "there.toml"
    path.write_text('[sandbox]\nprovider = "files"\ndirectory = "a"\n[production]\nprovider = "files"\nmtls = "off"\n')
    monkeypatch.setenv("WISE_CREDS_CONFIG", str(path))
    found = {config.namespace.value: [error.code for error in config.errors] for config in configured()}
    assert found == {"sandbox": [], "production": ["WC209"]}
    monkeypatch.delenv("WISE_CREDS_CONFIG")
    with pytest.raises(ConfigError) as caught:
        configured()
    assert caught.value.code == "WC101"


def test_a_document_stands_in_for_a_source_and_the_others_are_read(two: NamespaceConfig) -> None:
    """The whole set is checked as it would be."""
    made = check_with(two, {0: document(client_id=CLIENT_ID, client_secret=NEW)})
    assert made.client_secret is not None
    assert (made.client_secret.reveal(), made.version.startswith("pending-1+")) == (NEW, True)
    assert (made.sources[0], Path(made.sources[1]).name) == ("the store", "pair")


def test_what_is_replaced_is_not_read(two: NamespaceConfig, tmp_path: Path) -> None:
    """Its source may be broken; with every document given nothing is read at all."""
    for name in ("client", "pair"):
        (tmp_path / name).rename(tmp_path / f"no-{name}")
    with pytest.raises(LoadError) as caught:
        check_with(two, {0: document(client_id=CLIENT_ID, client_secret=NEW)})
    assert [(error.code, Path(error.location or "").name) for error in caught.value.errors] == [("WC301", "pair")]
    pair = {name: str(MATERIAL.joined().values[name].reveal()) for name in PAIR}
    made = check_with(two, {1: document(**pair), 0: document(client_id=CLIENT_ID, client_secret=NEW)})
    assert made.version == "pending-1+pending-1"


def test_everything_wrong_with_the_set_is_told(two: NamespaceConfig) -> None:
    """The same checks as for a load; no value in the words."""
    with pytest.raises(LoadError) as caught:
        check_with(two, {0: document(client_secret=NEW, certificate="x")})
    assert {error.code for error in caught.value.errors} == {"WC311"}
    with pytest.raises(LoadError) as caught:
        check_with(two, {0: document(client_id="another", client_secret=NEW)})
    assert {(error.code, error.namespace) for error in caught.value.errors} == {("WC416", "sandbox")}
    assert leaks({"new": NEW, "old": CLIENT_SECRET}, str(caught.value)) == []


def test_a_wrong_configuration_is_told() -> None:
    """Also where a document stands in."""
    with pytest.raises(LoadError) as caught:
        check_with(of({"provider": "files", "directory": "a", "deadlin": 3}), {0: document()})
    assert [error.code for error in caught.value.errors] == ["WC103"]


def test_a_token_is_got_with_exactly_these_credentials(mock_wise: MockWise) -> None:
    """Over mTLS, once, where the namespace gets its own; a refusal is a token error."""
    config = of(mock_wise.table)
    fields = {path.name: path.read_text() for path in mock_wise.directory.iterdir()}
    token_with(config, check_with(config, {0: document(**fields)}))
    assert mock_wise.token_requests == 1
    with pytest.raises(TokenRejectedError) as caught:
        token_with(config, check_with(config, {0: document(**{**fields, "client_secret": NEW})}))
    assert (caught.value.code, mock_wise.token_requests) == ("WC501", 2)
    assert leaks({"new": NEW}, str(caught.value)) == []
