"""The provider `vault` as its users see it: against the stand-in, and against a real server where there is one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import leaks
from vault_servers import FIELDS, KINDS, Vault, fetched, refused, revealed, running, soon

import wise_creds
from wise_creds import (
    AccessDeniedError,
    ConfigError,
    Namespace,
    RotationError,
    Secret,
    SecretNotFoundError,
    Staging,
)
from wise_creds.testing import MockWise, ProviderContract
from wise_creds_vault import VaultProvider


@pytest.fixture(params=KINDS)
def vault(request: pytest.FixtureRequest) -> Iterator[Vault]:
    with running(request.param) as server:
        yield server


@pytest.mark.parametrize("_server", KINDS, indirect=True)
class TestContract(ProviderContract):
    """What every provider does."""

    provider_class = VaultProvider

    @pytest.fixture(autouse=True)
    def _server(
        self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> Iterator[None]:
        with running(request.param) as server:
            self.server, self.token_file = server, tmp_path / "token"
            self.token_file.write_text(server.token)
            yield

    def options(self, values: dict[str, str]) -> dict[str, Any]:
        self.server.put(values)
        return self.server.options(auth={"method": "token", "token_file": str(self.token_file)})

    def change(self, values: dict[str, str]) -> None:
        self.server.put(values)

    def absent(self) -> dict[str, Any]:
        return self.server.options(path="nowhere", auth={"method": "token", "token_file": str(self.token_file)})


# Reading


def test_the_whole_way_from_vault_to_a_token(
    vault: Vault, mock_wise: MockWise, monkeypatch: pytest.MonkeyPatch
) -> None:
    """connect() with this provider, and a clean report."""
    names = ("client_id", "client_secret", "certificate", "private_key", "ca_bundle", "environment")
    vault.put({name: (mock_wise.directory / name).read_text() for name in names})
    monkeypatch.setenv("SECRET_ID", "")
    auth = vault.approle()
    monkeypatch.setenv("SECRET_ID", vault.secret_id())
    table = {**vault.options(auth=auth), "provider": "vault", "base_url": mock_wise.base_url}
    with wise_creds.connect("sandbox", config={"sandbox": table}) as wise, wise.client() as http:
        assert http.get("/v2/profiles").status_code == 200
        host = vault.address.partition("://")[2]
        assert wise.current().credentials.sources == (f"vault:{host}:{vault.mount}/wise/sandbox",)
    assert wise_creds.validate("sandbox", config={"sandbox": table}, level="live").exit_code == 0


def test_the_current_version_is_read_with_its_number_and_its_time(vault: Vault) -> None:
    """Vault's own number names it."""
    vault.put({**FIELDS, "client_secret": "canary-older"})
    vault.put(FIELDS)
    document = fetched(vault.provider())
    assert (revealed(document), document.version, document.changed_at is not None) == (FIELDS, "2", True)


def test_a_version_is_read_by_name_and_by_pin(vault: Vault) -> None:
    """`fetch(version=…)` and the option, whose probe asks nobody."""
    vault.put({**FIELDS, "client_secret": "canary-older"})
    vault.put(FIELDS)
    pinned = vault.provider(version=1)
    read = [fetched(vault.provider(), version="1"), fetched(pinned)]
    assert [revealed(one)["client_secret"] for one in read] == ["canary-older"] * 2
    assert (pinned.probe(deadline=soon()), refused(vault.provider(), version="x").code) == ("1", "WC301")


def test_fields_are_renamed_and_found_in_nested_objects(vault: Vault) -> None:
    """Names of the store stay the store's."""
    vault.put({"oauth": {"id": "canary-client-id"}, "secret": "canary-secret-1a2b", "n": 5, "z": None})
    names = {"client_id": "oauth.id", "client_secret": "secret"}
    assert revealed(fetched(vault.provider(fields=names))) == FIELDS


def test_the_probe_reads_metadata_only_and_sees_a_new_version(vault: Vault) -> None:
    """The cheap look."""
    vault.put(FIELDS)
    provider = vault.provider()
    before = provider.probe(deadline=soon())
    vault.put(FIELDS)
    assert (before, provider.probe(deadline=soon())) == ("1", "2")


def test_a_secret_deleted_for_good_and_written_anew_is_another_version(vault: Vault) -> None:
    """Vault counts from 1 again: the number alone would hide the change."""
    vault.put(FIELDS)
    provider = vault.provider()
    first = fetched(provider).version
    vault.ask("DELETE", f"{vault.mount}/metadata/wise/sandbox")
    vault.put({**FIELDS, "client_secret": "canary-written-anew"})
    probed = provider.probe(deadline=soon())
    again = fetched(provider, version=probed)
    assert (first, probed == again.version, first == probed) == ("1", True, False)
    assert revealed(again)["client_secret"] == "canary-written-anew"


def test_where_the_metadata_is_denied_a_read_serves_and_the_document_says_so(vault: Vault) -> None:
    """A policy for data/ only."""
    vault.put(FIELDS)
    token = vault.allow('path "%/data/*" { capabilities = ["read"] }')
    provider = vault.provider(environ={"TOKEN": token})
    assert [provider.probe(deadline=soon()), provider.probe(deadline=soon())] == ["1", "1"]
    assert [notice.code for notice in fetched(provider).notices] == ["WC332"]


def test_version_one_of_the_engine_is_read_and_named_by_a_fingerprint(vault: Vault) -> None:
    """No versions, no metadata: only a read can tell."""
    vault.mount = "kv1-own"
    vault.ask("POST", f"sys/mounts/{vault.mount}", {"type": "kv", "options": {"version": "1"}})
    vault.ask("POST", f"{vault.mount}/wise/sandbox", FIELDS)
    provider = vault.provider(kv_version=1)
    before = fetched(provider)
    vault.ask("POST", f"{vault.mount}/wise/sandbox", {**FIELDS, "client_secret": "canary-other"})
    assert (revealed(before), provider.probe(deadline=soon())) == (FIELDS, None)
    assert fetched(provider).version != before.version
    vault.ask("DELETE", f"sys/mounts/{vault.mount}")


# What is not there


def test_absent_deleted_and_destroyed_are_told_apart(vault: Vault) -> None:
    """Three kinds of 404, for the read and for the probe."""
    provider = vault.provider()
    codes = [refused(provider).code]
    vault.put(FIELDS)
    vault.ask("DELETE", f"{vault.mount}/data/wise/sandbox")
    codes.append(refused(provider).code)
    with pytest.raises(SecretNotFoundError, match="WC337"):
        provider.probe(deadline=soon())
    vault.ask("PUT", f"{vault.mount}/destroy/wise/sandbox", {"versions": [1]})
    codes.append(refused(provider).code)
    with pytest.raises(SecretNotFoundError, match="WC338"):
        provider.probe(deadline=soon())
    assert codes == ["WC301", "WC337", "WC338"]


def test_metadata_without_a_version_is_absent(vault: Vault) -> None:
    """Settings may be there before the secret is."""
    vault.ask("POST", f"{vault.mount}/metadata/wise/sandbox", {"cas_required": True})
    with pytest.raises(SecretNotFoundError, match="WC301"):
        vault.provider().probe(deadline=soon())


def test_a_wrong_mount_is_named(vault: Vault) -> None:
    """With the right to see it."""
    assert isinstance(refused(vault.provider(mount="nowhere")), ConfigError)
    assert refused(vault.provider(mount="nowhere")).code == "WC339"


@pytest.mark.parametrize(("real", "asked"), [("1", 2), ("2", 1)])
def test_the_other_version_of_the_engine_is_named(vault: Vault, real: str, asked: int) -> None:
    """Both ways round; the hint is the line to write."""
    vault.ask("POST", f"sys/mounts/kv-other-{real}", {"type": "kv", "options": {"version": real}})
    vault.mount = f"kv-other-{real}"
    _ = vault.put(FIELDS) if real == "2" else vault.ask("POST", f"{vault.mount}/wise/sandbox", FIELDS)
    problem = refused(vault.provider(kv_version=asked))
    vault.ask("DELETE", f"sys/mounts/{vault.mount}")
    assert (problem.code, problem.hint) == ("WC340", f"kv_version = {real}")


def test_where_the_engine_may_not_be_looked_at_the_hint_says_so(vault: Vault) -> None:
    """An absent secret, and no right to ask for the mount."""
    vault.put(FIELDS)
    token = vault.allow('path "%/data/*" { capabilities = ["read"] }')
    provider = vault.provider(environ={"TOKEN": token}, path="nothing")
    problem = refused(provider)
    # The right to read below a mount is the right to see its version, so an administrator's denial is needed for this.
    assert (problem.code, type(problem)) == ("WC301", SecretNotFoundError)


def test_without_the_right_it_is_access_denied(vault: Vault) -> None:
    """A good token with another policy."""
    vault.put(FIELDS)
    token = vault.allow('path "elsewhere/*" { capabilities = ["read"] }')
    problem = refused(vault.provider(environ={"TOKEN": token}))
    assert (type(problem), problem.code, leaks({"token": token}, problem)) == (AccessDeniedError, "WC302", [])


# Logging in


def test_a_token_that_vault_does_not_know_is_named_as_such(vault: Vault) -> None:
    """Not as a missing right."""
    vault.put(FIELDS)
    problem = refused(vault.provider(environ={"TOKEN": "s.canary-unknown-token"}))
    assert (problem.code, leaks({"token": "s.canary-unknown-token"}, problem)) == ("WC343", [])


def test_a_token_comes_from_a_file_a_variable_or_in_sandbox_from_vault_login(vault: Vault, tmp_path: Path) -> None:
    """A line end behind it does no harm."""
    vault.put(FIELDS)
    (tmp_path / ".vault-token").write_text(vault.token + "\n")
    for auth in ({"token_file": str(tmp_path / ".vault-token")}, {"token_env": "TOKEN"}, {}):
        provider = vault.provider(auth={"method": "token", **auth}, environ={"HOME": str(tmp_path)})
        assert revealed(fetched(provider)) == FIELDS


@pytest.mark.parametrize("auth", [{}, {"token_file": "/home/me/.vault-token"}])
def test_the_token_of_a_person_is_refused_in_production(vault: Vault, auth: dict[str, str]) -> None:
    """Before anything is read."""
    with pytest.raises(ConfigError, match="WC209"):
        vault.provider(auth={"method": "token", **auth}, namespace=Namespace.PRODUCTION)


def test_approle_logs_in_reads_and_revokes_its_token_when_closed(vault: Vault) -> None:
    """And the closed provider logs in again."""
    vault.put(FIELDS)
    provider = vault.provider(auth=vault.approle(), environ={"SECRET_ID": vault.secret_id()})
    assert revealed(fetched(provider)) == FIELDS
    assert provider._lease is not None
    assert provider._lease.token is not None
    token = provider._lease.token.reveal()
    provider.close()
    with pytest.raises(AssertionError, match="403"):
        vault.ask("GET", "auth/token/lookup-self", **{"X-Vault-Token": token})
    assert revealed(fetched(provider)) == FIELDS
    provider.close()


def test_a_wrapped_secret_id_serves_once(vault: Vault) -> None:
    """The second unwrapping is an alarm, and shows no token."""
    vault.put(FIELDS)
    auth = {**vault.approle(), "secret_id_wrapped": True}
    wrapping = vault.secret_id(wrapped=True)
    assert revealed(fetched(vault.provider(auth=auth, environ={"SECRET_ID": wrapping}))) == FIELDS
    problem = refused(vault.provider(auth=auth, environ={"SECRET_ID": wrapping}))
    assert (type(problem), problem.code, leaks({"wrapping": wrapping}, problem)) == (AccessDeniedError, "WC342", [])


def test_a_wrapping_token_of_something_else_is_not_unwrapped(vault: Vault) -> None:
    """Somebody has put it there: it must stay good as evidence."""
    auth = {**vault.approle(), "secret_id_wrapped": True}
    made = vault.ask("GET", "sys/health") and vault.ask(
        "POST", "auth/token/create", {"policies": ["default"]}, **{"X-Vault-Wrap-TTL": "60s"}
    )
    wrapping = made["wrap_info"]["token"]
    assert refused(vault.provider(auth=auth, environ={"SECRET_ID": wrapping})).code == "WC342"
    assert vault.ask("POST", "sys/wrapping/lookup", {"token": wrapping})["data"]["creation_ttl"] == 60


@pytest.mark.parametrize(("role", "secret"), [("canary-wrong-role", None), (None, "canary-wrong-secret")])
def test_a_refused_login_names_mount_and_namespace(vault: Vault, role: str | None, secret: str | None) -> None:
    """Vault does not say which of the two was wrong, nor do we guess."""
    auth = vault.approle()
    environ = {"SECRET_ID": secret or vault.secret_id()}
    problem = refused(vault.provider(auth={**auth, "role_id": role or auth["role_id"]}, environ=environ))
    assert (problem.code, problem.retryable) == ("WC325", False)
    assert "mount approle, namespace root" in (problem.hint or "")
    assert leaks({"secret": environ["SECRET_ID"]}, problem) == []


@pytest.mark.parametrize("given", ["", "two words", '{"token": "s.x"}', "caf\N{LATIN SMALL LETTER E WITH ACUTE}"])
def test_what_is_no_bare_value_is_refused_before_the_network(vault: Vault, tmp_path: Path, given: str) -> None:
    """From a file and from a variable."""
    (tmp_path / "token").write_text(given)
    for auth in ({"token_file": str(tmp_path / "token")}, {"token_env": "GIVEN"}):
        problem = refused(vault.provider(auth={"method": "token", **auth}, environ={"GIVEN": given}))
        assert (type(problem), problem.code) == (AccessDeniedError, "WC324")


def test_a_file_that_is_not_there_is_named(vault: Vault) -> None:
    """With its path."""
    problem = refused(vault.provider(auth={"method": "token", "token_file": "/nonexistent/token"}))
    assert (problem.code, problem.location) == ("WC324", "/nonexistent/token")


def test_a_revoked_token_is_replaced_by_one_login(vault: Vault) -> None:
    """And a token that was renewed by hand is read anew from its file."""
    vault.put(FIELDS)
    provider = vault.provider(auth=vault.approle(), environ={"SECRET_ID": vault.secret_id()})
    fetched(provider)
    assert provider._lease is not None
    assert provider._lease.token is not None
    first = provider._lease.token.reveal()
    vault.ask("POST", "auth/token/revoke", {"token": first})
    assert revealed(fetched(provider)) == FIELDS
    assert provider._lease.token.reveal() != first
    provider.close()


def test_a_forked_child_neither_uses_nor_revokes_its_parents_token(vault: Vault) -> None:
    """It logs in by itself."""
    vault.put(FIELDS)
    provider = vault.provider(auth=vault.approle(), environ={"SECRET_ID": vault.secret_id()})
    fetched(provider)
    parents = provider._lease
    child = os.fork()
    if child == 0:  # what fails in here shows as another exit status
        status = 1
        try:
            provider.close()
            fetched(provider)
            inherited = provider._lease is not None and parents is not None and provider._lease.token == parents.token
            provider.close()
            status = 2 if inherited else 0
        finally:
            os._exit(status)
    _, ended = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(ended) == 0
    assert parents is not None
    assert parents.token is not None
    assert vault.ask("GET", "auth/token/lookup-self", **{"X-Vault-Token": parents.token.reveal()})
    provider.close()


# Staging


def test_it_stages() -> None:
    """The protocol is there."""
    assert issubclass(VaultProvider, Staging)


def test_stage_keeps_what_is_not_given_and_is_idempotent(vault: Vault) -> None:
    """First from the current version, then from the pending one."""
    vault.put({**FIELDS, "other": "kept", "nested": {"n": 1}})
    provider = vault.provider()
    one = provider.stage({"client_secret": Secret("canary-new")}, deadline=soon())
    same = provider.stage({"client_secret": Secret("canary-new")}, deadline=soon())
    two = provider.stage({"client_id": Secret("canary-new-id")}, deadline=soon())
    assert (one, same, two) == ("1", "1", "2")
    assert vault.content("wise/sandbox-pending") == {
        "client_id": "canary-new-id", "client_secret": "canary-new", "other": "kept", "nested": {"n": 1},
    }  # fmt: skip
    assert vault.content() == {**FIELDS, "other": "kept", "nested": {"n": 1}}


def test_staged_fields_go_where_they_were_found(vault: Vault) -> None:
    """Renamed and nested ones too."""
    vault.put({"oauth": {"id": "canary-client-id"}, "secret": "canary-secret-1a2b"})
    provider = vault.provider(fields={"client_id": "oauth.id", "client_secret": "secret"}, pending_path="wise/next")
    provider.stage({"client_id": Secret("canary-new-id"), "client_secret": Secret("canary-new")}, deadline=soon())
    assert vault.content("wise/next") == {"oauth": {"id": "canary-new-id"}, "secret": "canary-new"}
    assert revealed(provider.fetch_staged(deadline=soon())) == {
        "client_id": "canary-new-id",
        "client_secret": "canary-new",
    }


def test_nothing_staged_is_nothing(vault: Vault) -> None:
    """Never, and after a discard, which leaves no history."""
    vault.put(FIELDS)
    provider = vault.provider()
    assert provider.fetch_staged(deadline=soon()) is None
    provider.stage({"client_secret": Secret("canary-new")}, deadline=soon())
    provider.discard(deadline=soon())
    provider.discard(deadline=soon())
    assert provider.fetch_staged(deadline=soon()) is None
    with pytest.raises(AssertionError, match="404"):
        vault.ask("GET", f"{vault.mount}/metadata/wise/sandbox-pending")


def test_a_pending_version_deleted_by_hand_is_not_in_the_way(vault: Vault) -> None:
    """Vault would go on counting, and refuse cas 0."""
    vault.put(FIELDS)
    provider = vault.provider()
    provider.stage({"client_secret": Secret("canary-dropped")}, deadline=soon())
    vault.ask("DELETE", f"{vault.mount}/data/wise/sandbox-pending")
    provider.stage({"client_id": Secret("canary-new-id")}, deadline=soon())
    assert vault.content("wise/sandbox-pending") == {**FIELDS, "client_id": "canary-new-id"}


@pytest.mark.parametrize("cas_required", [False, True])
def test_promote_makes_the_pending_content_current_and_removes_it(vault: Vault, cas_required: bool) -> None:
    """With `custom_metadata` where it was; a second time is no error."""
    vault.put(FIELDS)
    vault.ask("POST", f"{vault.mount}/metadata/wise/sandbox",
              {"custom_metadata": {"owner": "payments"}, "cas_required": cas_required})  # fmt: skip
    provider = vault.provider()
    provider.stage({"client_secret": Secret("canary-new")}, deadline=soon())
    provider.promote("1", deadline=soon())
    provider.promote("1", deadline=soon())
    assert (vault.content(), vault.versions()) == ({**FIELDS, "client_secret": "canary-new"}, 2)
    assert vault.content("wise/sandbox-pending") is None
    about = vault.ask("GET", f"{vault.mount}/metadata/wise/sandbox")["data"]
    assert about["custom_metadata"] == {"owner": "payments"}


def test_promote_loses_to_whoever_was_first(vault: Vault) -> None:
    """The staged content stays for another try."""
    vault.put(FIELDS)
    provider = vault.provider()
    provider.stage({"client_secret": Secret("canary-new")}, deadline=soon())
    vault.put({**FIELDS, "client_secret": "canary-of-somebody-else"})
    for expected in ("1", "7"):
        with pytest.raises(RotationError, match="WC702"):
            provider.promote(expected, deadline=soon())
    assert revealed(provider.fetch_staged(deadline=soon()))["client_secret"] == "canary-new"
    assert vault.content() == {**FIELDS, "client_secret": "canary-of-somebody-else"}


def test_promote_without_anything_staged_is_an_error(vault: Vault) -> None:
    """Nothing changes."""
    vault.put(FIELDS)
    with pytest.raises(RotationError, match="WC701"):
        vault.provider().promote("1", deadline=soon())
    assert vault.versions() == 1


def test_rollback_writes_the_version_before_anew_and_is_idempotent(vault: Vault) -> None:
    """And the rollback of the rollback goes forward."""
    vault.put(FIELDS)
    provider = vault.provider()
    provider.stage({"client_secret": Secret("canary-new")}, deadline=soon())
    provider.promote("1", deadline=soon())
    provider.rollback("2", deadline=soon())
    provider.rollback("2", deadline=soon())
    assert (vault.content(), vault.versions()) == (FIELDS, 3)
    provider.rollback("3", deadline=soon())
    assert vault.content() == {**FIELDS, "client_secret": "canary-new"}


def test_rollback_needs_a_version_before_and_the_expected_one(vault: Vault) -> None:
    """Never, destroyed, or moved on."""
    vault.put(FIELDS)
    provider = vault.provider()
    with pytest.raises(RotationError, match="WC703"):
        provider.rollback("1", deadline=soon())
    vault.put({**FIELDS, "client_secret": "canary-second"})
    with pytest.raises(RotationError, match="WC702"):
        provider.rollback("1", deadline=soon())
    vault.ask("PUT", f"{vault.mount}/destroy/wise/sandbox", {"versions": [1]})
    with pytest.raises(RotationError, match="WC703"):
        provider.rollback("2", deadline=soon())
    assert vault.versions() == 2


@pytest.mark.parametrize("changes", [{"kv_version": 1}, {"version": 1}])
def test_what_cannot_be_rotated_says_so(vault: Vault, changes: dict[str, Any]) -> None:
    """The first engine has no versions, and a pin would hide the new one."""
    provider = vault.provider(**changes)
    for step in (
        lambda: provider.stage({}, deadline=soon()),
        lambda: provider.fetch_staged(deadline=soon()),
        lambda: provider.promote("1", deadline=soon()),
        lambda: provider.rollback("1", deadline=soon()),
        lambda: provider.discard(deadline=soon()),
    ):
        with pytest.raises(RotationError, match="WC705"):
            step()
