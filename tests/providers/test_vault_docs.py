"""What docs/vault.md says: examples that pass the check, policies that are enough and not more."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import pytest
from vault_servers import FIELDS, Vault, fetched, revealed, running, soon
from vault_standin import rules

import wise_creds
from wise_creds import Secret, WiseCredsError
from wise_creds_vault import VaultProvider
from wise_creds_vault._options import Auth, VaultOptions

TEXT = (Path(__file__).parents[2] / "docs" / "vault.md").read_text()
ENVIRON = {"PAYMENTS_ROLE_ID": "role-id", "OPERATOR_VAULT_TOKEN": "token"}
SECRET = {**FIELDS, "environment": "production"}
NEW = {"client_secret": Secret("canary-new")}


def _blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


def _policy(name: str) -> dict[str, frozenset[str]]:
    """The rights that a policy gives, with `%` for the mount."""
    (text,) = (block for block in _blocks("hcl") if block.startswith(f"# vault policy write {name} -\n"))
    found = rules(text)
    assert text.count("path ") == len(found)
    assert all(path.startswith("kv/") for path in found)
    return {f"%/{path.removeprefix('kv/')}": rights for path, rights in found.items()}


def _written(policy: dict[str, frozenset[str]]) -> str:
    blocks = []
    for path, rights in policy.items():
        listed = ", ".join(f'"{right}"' for right in sorted(rights))
        blocks.append(f'path "{path}" {{ capabilities = [{listed}] }}')
    return "\n".join(blocks)


# Examples


@pytest.mark.parametrize("text", _blocks("toml"))
def test_every_example_passes_the_offline_check(text: str, tmp_path: Path) -> None:
    """As a file, without a warning."""
    config = tmp_path / "wise-creds.toml"
    config.touch(mode=0o600)
    config.write_text(text)
    report = wise_creds.validate(config=config, level="config", environ=ENVIRON)
    assert [result for result in report.results if result.status in ("error", "warning")] == []
    assert report.exit_code == 0


def test_the_check_would_find_a_mistake_in_an_example(tmp_path: Path) -> None:
    """A control for the test above."""
    config = tmp_path / "wise-creds.toml"
    config.touch(mode=0o600)
    config.write_text(_blocks("toml")[0].replace("mount ", "mounted "))
    assert wise_creds.validate(config=config, level="config", environ=ENVIRON).exit_code == 1


def test_every_method_has_an_example() -> None:
    """Those of the code, and no other."""
    offered = {get_args(one.model_fields["method"].annotation)[0] for one in get_args(Auth)}
    assert set(re.findall(r'method += "([a-z]+)"', "".join(_blocks("toml")))) == offered


def test_every_option_stands_in_the_table_with_its_default() -> None:
    """Those of the code, and no other."""
    rows = re.findall(r"^\| (`.*?`) \|.*\| (.*?) ?\|$", TEXT.partition("## Logging in")[0], re.MULTILINE)
    documented = {name: default for names, default in rows for name in re.findall(r"`(\w+)`", names)}
    assert set(documented) == set(VaultOptions.model_fields)
    for name, field in VaultOptions.model_fields.items():
        if field.is_required():
            assert documented[name] == ""
        elif field.default is not None:
            assert documented[name] == f"`{field.default}`"
        else:
            assert documented[name] != ""


# Policies


@dataclass
class Outcome:
    """What came of some steps: an error's code where one failed, and what the server holds afterwards."""

    steps: dict[str, object]
    current: object
    pending: object
    requests: list[str]


@pytest.fixture
def vault() -> Iterator[Vault]:
    with running("stand-in") as server:
        yield server


def _run(
    vault: Vault, policy: dict[str, frozenset[str]], work: Callable[[VaultProvider, Callable[..., None]], None]
) -> Outcome:
    """Work on a secret just made, under a token with this policy."""
    for path in ("wise/production", "wise/production-pending"):
        vault.ask("DELETE", f"{vault.mount}/metadata/{path}")
    vault.put({**SECRET, "client_secret": "canary-older"}, "wise/production")
    vault.put(SECRET, "wise/production")
    provider = vault.provider(path="wise/production", environ={"TOKEN": vault.allow(_written(policy))})
    vault.seen()
    done: dict[str, object] = {}

    def step(name: str, call: Callable[[], Any]) -> None:
        try:
            done[name] = call()
        except WiseCredsError as problem:
            done[name] = problem.code

    work(provider, step)
    current, pending = (vault.content(path) for path in ("wise/production", "wise/production-pending"))
    return Outcome(done, current, pending, vault.seen())


def _serve(provider: VaultProvider, step: Callable[..., None]) -> None:
    """Do what a service does."""
    step("probe", lambda: provider.probe(deadline=soon()))
    step("fetch", lambda: revealed(fetched(provider)))
    step("notices", lambda: [notice.code for notice in fetched(provider).notices])


def _operate(provider: VaultProvider, step: Callable[..., None]) -> None:
    """Do all that an operator may do."""

    def staged() -> dict[str, str] | None:
        document = provider.fetch_staged(deadline=soon())
        return None if document is None else revealed(document)

    step("stage", lambda: provider.stage(NEW, deadline=soon()))
    step("stage more", lambda: provider.stage({"client_id": Secret("canary-new-id")}, deadline=soon()))
    step("fetch_staged", staged)
    step("promote", lambda: provider.promote("2", deadline=soon()))
    step("previous", lambda: provider.previous(deadline=soon()))
    step("nothing staged", staged)
    step("rollback", lambda: provider.rollback("3", deadline=soon()))
    step("stage again", lambda: provider.stage(NEW, deadline=soon()))
    step("discard", lambda: provider.discard(deadline=soon()))


def test_the_services_policy_is_enough(vault: Vault) -> None:
    """The probe reads metadata only, and nothing is remarked on."""
    outcome = _run(vault, _policy("wise-service"), _serve)
    assert outcome == Outcome(
        {"probe": "2", "fetch": SECRET, "notices": []}, SECRET, None,
        ["GET auth/token/lookup-self", "GET kv/metadata/wise/production", *["GET kv/data/wise/production"] * 2],
    )  # fmt: skip


def test_the_operators_policy_is_enough(vault: Vault) -> None:
    """For each step, one after the other."""
    staged = {**SECRET, "client_secret": "canary-new", "client_id": "canary-new-id"}
    outcome = _run(vault, _policy("wise-operator"), _operate)
    assert outcome.steps == {
        "stage": "1", "stage more": "2", "fetch_staged": staged, "promote": None, "previous": "2",
        "nothing staged": None, "rollback": None, "stage again": "1", "discard": None,
    }  # fmt: skip
    assert (outcome.current, outcome.pending) == (SECRET, None)


def test_the_table_of_steps_tells_what_each_asks_for(vault: Vault) -> None:
    """Seen at the server; a step that reads both versions of the secret reads the secret."""
    table = re.findall(r"^\| `(\w+)` \| ?(.*?) ?\| ?(.*?) ?\| ?(.*?) ?\|$", TEXT.partition("| step |")[2], re.MULTILINE)
    places = {"wise/production": "the secret", "wise/production-pending": "pending"}
    kinds = {"GET data": 0, "POST data": 1, "DELETE metadata": 2}
    for path in places:
        vault.put(SECRET, path)
    vault.put({**SECRET, "client_id": "canary-newer"}, "wise/production")
    vault.ask("DELETE", f"{vault.mount}/data/wise/production-pending")
    provider = vault.provider(path="wise/production")
    calls: dict[str, Callable[[], object]] = {
        "stage": lambda: provider.stage(NEW, deadline=soon()),
        "fetch_staged": lambda: provider.fetch_staged(deadline=soon()),
        "promote": lambda: provider.promote("2", deadline=soon()),
        "rollback": lambda: provider.rollback("3", deadline=soon()),
        "previous": lambda: provider.previous(deadline=soon()),
        "discard": lambda: provider.discard(deadline=soon()),
    }
    fetched(provider)
    vault.seen()
    for name, *cells in table:
        calls.pop(name)()
        asked: list[set[str]] = [set(), set(), set()]
        for request in vault.seen():
            method, kind, path = re.fullmatch(r"(\w+) kv/(\w+)/([^?]+).*", request).groups()  # type: ignore[union-attr]
            asked[kinds[f"{method} {kind}"]].add(places[path])
        told = [set(places.values()) if cell == "both" else {one for one in places.values() if cell.startswith(one)}
                for cell in cells]  # fmt: skip
        assert (name, asked) == (name, told)
    assert calls == {}


CASES = [
    (name, work, path, right)
    for name, work in (("wise-service", _serve), ("wise-operator", _operate))
    for path, rights in _policy(name).items()
    for right in ["", *sorted(rights)]
]


@pytest.mark.parametrize(
    ("name", "work", "path", "right"), CASES, ids=[f"{c[0]}-{c[2][2:]}-{c[3] or 'all'}" for c in CASES]
)
def test_no_policy_gives_more_than_is_needed(
    vault: Vault, name: str, work: Callable[[VaultProvider, Callable[..., None]], None], path: str, right: str
) -> None:
    """Without any one of its blocks, and without any one right in a block, some step fails or costs more."""
    whole = _policy(name)
    kept = whole[path] - {right} if right else frozenset[str]()
    less = {**whole, path: kept} if kept else {other: rights for other, rights in whole.items() if other != path}
    assert _run(vault, less, work) != _run(vault, whole, work)


def test_a_block_that_is_not_needed_would_be_found(vault: Vault) -> None:
    """A control: the metadata of the secret, which no step of a rotation reads."""
    whole = _policy("wise-operator")
    assert _run(vault, {**whole, "%/metadata/wise/production": frozenset({"read"})}, _operate) == _run(
        vault, whole, _operate
    )


def test_without_the_right_to_the_metadata_each_look_reads_the_secret(vault: Vault) -> None:
    """As the text says."""
    less = {path: rights for path, rights in _policy("wise-service").items() if "/data/" in path}
    outcome = _run(vault, less, _serve)
    assert outcome.steps == {"probe": "2", "fetch": SECRET, "notices": ["WC332"]}


def test_what_the_policy_default_gives_is_not_needed(vault: Vault) -> None:
    """A token that may not even look at itself reads the secret."""
    vault.put(SECRET, "wise/production")
    token = vault.allow(_written(_policy("wise-service")), no_default_policy=True)
    with pytest.raises(AssertionError, match="403"):
        vault.ask("GET", "auth/token/lookup-self", **{"X-Vault-Token": token})
    assert revealed(fetched(vault.provider(path="wise/production", environ={"TOKEN": token}))) == SECRET


@pytest.mark.parametrize(
    ("kv_version", "code", "hint"), [(2, "WC301", "check mount, path"), (1, "WC340", "kv_version = 2")]
)
def test_the_look_at_the_engine_needs_no_right_of_its_own(vault: Vault, kv_version: int, code: str, hint: str) -> None:
    """The service's policy is enough for an exact hint, where it lets the request through at all."""
    policy = {**_policy("wise-service"), "%/wise/production": frozenset({"read"})}
    provider = vault.provider(
        path="wise/production", kv_version=kv_version, environ={"TOKEN": vault.allow(_written(policy))}
    )
    with pytest.raises(WiseCredsError) as caught:
        fetched(provider)
    assert (caught.value.code, (caught.value.hint or "").startswith(hint)) == (code, True)


def test_every_code_in_the_text_exists() -> None:
    """In docs/errors.md."""
    known = set(
        re.findall(r"^\| (WC\d{3}) \|", (Path(__file__).parents[2] / "docs" / "errors.md").read_text(), re.MULTILINE)
    )
    assert set(re.findall(r"WC\d{3}", TEXT)) - known == set()
