"""The operator's side of rotation, on the three stores, with a Wise that knows the new secret."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from rotation_stores import KINDS, Content, Killed, Store, VaultStore, store_of

import wise_creds
from wise_creds import LoadError, RotationError, Secret, WiseCredsError, rotation
from wise_creds.rotation import RotationStatus
from wise_creds.testing import MockWise


class Bench:
    """A store that holds MockWise's credentials, and the configuration that says so."""

    def __init__(self, store: Store, wise: MockWise) -> None:
        self.store, self.wise = store, wise
        self.content: Content = {path.name: path.read_text().removesuffix("\n") for path in wise.directory.iterdir()}
        self.store.put(self.content)
        self.store.age()
        self.config: dict[str, Any] = {"sandbox": {**store.table, "base_url": wise.base_url}}

    def renew_secret(self) -> Secret:
        """Have Wise issue a new client secret, which kills the old one."""
        self.wise.rotate_secret()
        return Secret(self.wise.client_secret)

    def stage(self, **given: Any) -> RotationStatus:
        return rotation.stage("sandbox", config=self.config, **given)

    def verify(self) -> RotationStatus:
        return rotation.verify("sandbox", config=self.config)

    def promote(self) -> RotationStatus:
        done = rotation.promote("sandbox", config=self.config)
        self.store.age()
        return done

    def rollback(self) -> RotationStatus:
        return rotation.rollback("sandbox", config=self.config)

    def status(self) -> RotationStatus:
        return rotation.status("sandbox", config=self.config)

    def with_secret(self, value: str) -> Content:
        return {**self.content, "client_secret": value}


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """Each of the three."""
    with store_of(request.param, tmp_path / "store") as opened:
        yield opened


@pytest.fixture
def bench(store: Store, mock_wise: MockWise) -> Bench:
    return Bench(store, mock_wise)


@pytest.fixture
def one(tmp_path: Path, mock_wise: MockWise) -> Iterator[Bench]:
    """Only one store, where the store does not matter."""
    with store_of("vault", tmp_path / "store") as opened:
        yield Bench(opened, mock_wise)


def refused(call: Any, *args: Any, **given: Any) -> WiseCredsError:
    with pytest.raises(WiseCredsError) as caught:
        call(*args, **given)
    return caught.value


def test_a_secret_is_staged_verified_promoted_and_rolled_back(bench: Bench) -> None:
    """The current version moves at the promotion and not before; the status names the versions."""
    before = bench.status()
    assert (before.namespace, before.pending, before.previous) == ("sandbox", None, None)
    new = bench.renew_secret()
    staged = bench.stage(client_secret=new)
    assert staged == RotationStatus("sandbox", before.source, before.current, staged.pending, None)
    assert (bench.store.current(), bench.store.pending()) == (bench.content, bench.with_secret(new.reveal()))
    asked = bench.wise.token_requests
    assert (bench.verify(), bench.wise.token_requests) == (staged, asked + 1)
    promoted = bench.promote()
    assert (promoted.previous, promoted.pending) == (before.current, None)
    assert (bench.store.current(), bench.store.pending()) == (bench.with_secret(new.reveal()), None)
    rolled_back = bench.rollback()
    assert (rolled_back.previous, rolled_back.pending, bench.store.current()) == (None, None, bench.content)


def test_repeating_a_rollback_does_not_swing_back(bench: Bench) -> None:
    """It is refused, and the current version stays; the next rotation can be rolled back again."""
    bench.stage(client_secret=Secret("second"))
    bench.promote()
    bench.rollback()
    problem = refused(bench.rollback)
    assert (problem.code, bench.store.current()) == ("WC703", bench.content)
    bench.stage(client_secret=Secret("third"))
    bench.promote()
    bench.rollback()
    assert bench.store.current() == bench.content


def test_a_certificate_joins_the_key_that_was_requested_with_it(bench: Bench) -> None:
    """The key is staged before the certificate exists; until then the pending set is not whole, and that is told."""
    made = rotation.request_certificate("sandbox", organisation="Example Ltd", kind="ec-p256", config=bench.config)
    assert (made.replaced, made.status.pending is None, bench.store.current()) == (False, False, bench.content)
    assert made.request.startswith("-----BEGIN CERTIFICATE REQUEST-----")
    problem = refused(bench.promote)
    assert (type(problem), problem.code, bench.store.current()) == (LoadError, "WC413", bench.content)
    certificate = issued(bench, made)
    bench.stage(certificate=certificate)
    bench.verify()
    bench.promote()
    assert (bench.store.current()["certificate"], bench.store.current()["client_secret"]) == (
        certificate.removesuffix("\n"), bench.content["client_secret"])  # fmt: skip


def test_another_request_replaces_the_staged_key_and_says_so(one: Bench) -> None:
    """The first request is void then."""
    first, second = (
        rotation.request_certificate("sandbox", organisation="Example Ltd", kind="ec-p256", config=one.config)
        for _ in range(2)
    )
    assert (first.replaced, second.replaced, first.request == second.request) == (False, True, False)


def test_staging_the_same_again_changes_nothing_and_more_is_added(bench: Bench) -> None:
    """What is not given is kept from what is staged."""
    issue = bench.wise.authority.client(bench.wise.client_id)
    first = bench.stage(client_secret=Secret("second"))
    assert bench.stage(client_secret=Secret("second")) == first
    bench.stage(certificate=issue.pem.decode(), private_key=Secret(issue.key_pem))
    staged = bench.store.pending()
    assert staged is not None
    assert (staged["client_secret"], staged["certificate"]) == ("second", issue.pem.decode().removesuffix("\n"))


def test_a_dry_run_writes_nothing(bench: Bench) -> None:
    """The store's own log shows reads only."""
    before = bench.status()
    with bench.store.watched() as seen:
        assert bench.stage(client_secret=Secret("second"), dry_run=True) == before
    assert [call for call in seen if bench.store.writes(call)] == []
    with bench.store.watched() as seen:
        bench.stage(client_secret=Secret("second"))
    assert [call for call in seen if bench.store.writes(call)] != []


def test_verify_and_promote_judge_the_material_and_change_nothing(bench: Bench) -> None:
    """A key without its certificate is no set; everything wrong is told."""
    other = bench.wise.authority.client("somebody else")
    bench.stage(certificate=other.pem.decode(), private_key=Secret(other.key_pem), client_secret=Secret(" "))
    staged, asked = bench.store.pending(), bench.wise.token_requests
    for step in (bench.verify, bench.promote):
        problem = refused(step)
        assert isinstance(problem, LoadError)
        assert sorted(error.code for error in problem.errors) == ["WC403", "WC416"]
    assert (bench.store.current(), bench.store.pending(), bench.wise.token_requests) == (bench.content, staged, asked)


def test_verify_tells_what_wise_says(one: Bench) -> None:
    """A secret that Wise does not know."""
    one.stage(client_secret=Secret("never-issued"))
    problem = refused(one.verify)
    assert (type(problem), one.store.current()) == (wise_creds.TokenRejectedError, one.content)


def test_what_is_staged_can_be_dropped(bench: Bench) -> None:
    """And the current version is as it was; there is nothing to drop then."""
    bench.stage(client_secret=Secret("second"))
    dropped = rotation.discard("sandbox", config=bench.config)
    assert (dropped, bench.store.pending(), bench.store.current()) == (bench.status(), None, bench.content)
    assert refused(rotation.discard, "sandbox", config=bench.config).code == "WC701"


def test_nothing_to_do_it_on_is_an_error(bench: Bench) -> None:
    """For each step; the status alone is content."""
    assert refused(bench.stage).code == "WC733"
    assert [refused(step).code for step in (bench.verify, bench.promote, bench.rollback)] == ["WC701", "WC701", "WC703"]
    assert bench.status().pending is None


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("step", ["stage", "promote", "rollback"])
def test_a_step_killed_at_any_call_is_mended_by_repeating_it(bench: Bench, step: str, before: bool) -> None:
    """The whole step, as an operator repeats it; the current version is one of the two sets throughout."""
    new = bench.with_secret("second")
    steps = {"stage": lambda: bench.stage(client_secret=Secret("second")), "promote": bench.promote,
             "rollback": bench.rollback}  # fmt: skip
    after = {"stage": (bench.content, new), "promote": (new, None), "rollback": (bench.content, None)}
    earlier = list(steps)[: list(steps).index(step)]

    def prepared() -> None:
        bench.store.put(bench.content)
        bench.store.age()
        for name in earlier:
            steps[name]()

    prepared()
    with bench.store.watched() as calls:
        steps[step]()
    writes = sum(map(bench.store.writes, calls))
    assert writes > 0
    for at in range(1, writes + 1):
        prepared()
        with bench.store.dying(at, before=before), pytest.raises(Killed):
            steps[step]()
        assert bench.store.current() in (bench.content, new)
        bench.store.age()
        with suppress(RotationError):  # it was done
            steps[step]()
        assert (bench.store.current(), bench.store.pending()) == after[step], at


def test_a_promotion_that_ended_halfway_leaves_a_version_to_roll_back_to(bench: Bench) -> None:
    """Repeating it does not promote the same content twice."""
    at = 0
    while bench.store.current() != bench.with_secret("second"):
        at += 1
        bench.store.put(bench.content)
        bench.store.age()
        bench.stage(client_secret=Secret("second"))
        with bench.store.dying(at, before=False), suppress(Killed):
            bench.promote()
    bench.store.age()
    with suppress(RotationError):  # a plain directory has it all in one step
        bench.promote()
    assert bench.store.pending() is None
    bench.rollback()
    assert bench.store.current() == bench.content


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("store", ["aws", "vault"], indirect=True)  # of files only one operator has the lock
def test_of_two_operators_one_wins(bench: Bench, late: bool) -> None:
    """Whoever has read the version before the other's promotion is refused after it, at the last write too."""
    winner = bench.with_secret("of somebody else")
    bench.stage(client_secret=Secret("second"))
    calls = 0

    def overtaken(name: str, call: Any) -> Any:
        nonlocal calls
        calls += 1
        if bench.store.writes(name) if late else calls == LOOKS + 1:
            bench.store.on_call = None
            bench.store.overwrite(winner)
        return call()

    bench.store.on_call = overtaken
    problem = refused(bench.promote)
    assert (problem.code, bench.store.current()) == ("WC702", winner)


LOOKS = 3  # requests before the first one of the promotion itself, on AWS and on Vault


def issued(bench: Bench, made: rotation.CertificateRequest) -> str:
    """Sign a request as Wise would: the subject's name is the client ID."""
    from datetime import UTC, datetime, timedelta

    from cryptography import x509
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.serialization import Encoding

    request, authority, now = (
        x509.load_pem_x509_csr(made.request.encode()),
        bench.wise.authority.issued,
        datetime.now(UTC),
    )
    builder = x509.CertificateBuilder(
        authority.certificate.subject, request.subject, request.public_key(), x509.random_serial_number(),
        now - timedelta(days=1), now + timedelta(days=365),
    )  # fmt: skip
    signed = builder.sign(authority.key, SHA256())
    return signed.public_bytes(Encoding.PEM).decode()


# Which source


def files(directory: Path, content: Content) -> dict[str, Any]:
    """A source of files that can be rotated."""
    directory.mkdir(mode=0o700)
    for name, value in content.items():
        (directory / name).touch(mode=0o600)
        (directory / name).write_text(value)
    return {"provider": "files", "directory": str(directory)}


@pytest.fixture
def two(tmp_path: Path, mock_wise: MockWise) -> Bench:
    """The client in one directory, the certificate in another."""
    found = object.__new__(Bench)
    found.wise = mock_wise
    content = {path.name: path.read_text().removesuffix("\n") for path in mock_wise.directory.iterdir()}
    client = {name: content.pop(name) for name in ("client_id", "client_secret")}
    sources = [files(tmp_path / "client", client), files(tmp_path / "mtls", content)]
    found.config = {"sandbox": {"source": sources, "base_url": mock_wise.base_url}}
    return found


def test_fields_of_two_sources_are_not_staged_together(two: Bench) -> None:
    """Each by itself is; and while one is under way, the other has to wait."""
    problem = refused(two.stage, client_secret=Secret("second"), certificate="x")
    assert (problem.code, problem.namespace) == ("WC730", "sandbox")
    staged = two.stage(client_secret=Secret("second"))
    assert (staged.source, two.status()) == (two.config["sandbox"]["source"][0]["directory"], staged)
    assert refused(two.stage, certificate="x").code == "WC731"
    assert refused(two.verify).code != "WC731"


def test_without_anything_staged_several_sources_are_not_guessed_between(two: Bench) -> None:
    """The error names them; verify and promote say what is missing."""
    for step in (two.status, two.rollback):
        problem = refused(step)
        assert problem.code == "WC731"
        assert [one["directory"] in problem.message for one in two.config["sandbox"]["source"]] == [True, True]
    assert [refused(step).code for step in (two.verify, two.promote)] == ["WC701", "WC701"]


def test_two_sources_with_something_staged_are_named(two: Bench, tmp_path: Path) -> None:
    """Somebody staged past us."""
    sources = two.config["sandbox"]["source"]
    two.stage(client_secret=Secret("second"))
    only = {"sandbox": {"base_url": two.wise.base_url, **sources[1]}}
    rotation.stage("sandbox", config=only, certificate="x")
    for step in (two.verify, two.promote, two.rollback, two.status):
        assert refused(step).code == "WC731"


def test_a_source_that_cannot_be_rotated_says_so(one: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A provider without staging, or a configuration that rules it out; beside a source that can, it is not in the way."""
    pinned = {"sandbox": {**one.config["sandbox"], "version": 1}}
    assert refused(rotation.status, "sandbox", config=pinned).code == "WC705"
    (tmp_path / "all.json").write_text(json.dumps(one.content))
    (tmp_path / "all.json").chmod(0o600)
    document = {"provider": "files", "file": str(tmp_path / "all.json")}
    base = {"base_url": one.wise.base_url}
    for config in (pinned, {"sandbox": {**base, **document}}):
        for step in (rotation.verify, rotation.promote, rotation.rollback, rotation.status):
            assert refused(step, "sandbox", config=config).code in ("WC701", "WC705")
        assert refused(rotation.stage, "sandbox", config=config, client_secret=Secret("x")).code == "WC705"


def test_a_provider_without_staging_is_named(one: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plug-in may read only; and one that does not tell its previous version is rolled back all the same."""
    info = tmp_path / "site" / "plug-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plug\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[wise_creds.providers]\nplug = plug_in_of_this_test:Plug\n")
    (tmp_path / "site" / "plug_in_of_this_test.py").write_text(PLUG)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    config = {"sandbox": {"provider": "plug", "base_url": one.wise.base_url}}
    problem = refused(rotation.stage, "sandbox", config=config, client_secret=Secret("second"))
    assert (type(problem), problem.code, problem.location) == (RotationError, "WC732", "plug")
    staging = {"sandbox": {**config["sandbox"], "staging": True}}
    assert rotation.rollback("sandbox", config=staging) == RotationStatus("sandbox", "plug", "rolled back from 1")
    busy = {"sandbox": {**config["sandbox"], "staging": True, "busy": True}}
    assert refused(rotation.status, "sandbox", config=busy).code == "WC708"
    slow = {"sandbox": {**config["sandbox"], "staging": True, "slow": True, "deadline": 0.2}}
    assert refused(rotation.rollback, "sandbox", config=slow).code == "WC304"
    problem = refused(rotation.request_certificate, "sandbox", organisation="Example Ltd", config=staging)
    assert (problem.code, problem.location) == ("WC401", "client_id")


PLUG = """
import threading

from wise_creds import Options, RotationError, SecretDocument


class Settings(Options):
    staging: bool = False
    busy: bool = False
    slow: bool = False


class Reading:
    Options = Settings

    def __init__(self, options, *, namespace, environ, clock):
        self.options, self.clock, self.version = options, clock, "1"

    def __new__(cls, options, **_):
        return object.__new__(Writing if options.staging and cls is not Writing else cls)

    def fetch(self, *, deadline, version=None):
        return SecretDocument(fields={}, version=self.version, location="plug")

    def probe(self, *, deadline):
        return self.version

    def close(self):
        pass


class Writing(Reading):
    def stage(self, fields, *, deadline): ...

    def fetch_staged(self, *, deadline):
        if self.options.busy:
            raise RotationError("busy", code="WC708", retryable=True)
        return None

    def promote(self, expected, *, deadline): ...

    def rollback(self, expected, *, deadline):
        if self.options.slow:
            threading.Event().wait(1)
        self.version = f"rolled back from {expected}"

    def discard(self, *, deadline): ...


Plug = Reading
"""


def test_the_operators_identity_replaces_the_services(one: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The service may read and no more; only the steps of a rotation use the other one."""
    assert isinstance(one.store, VaultStore)
    reader = one.store.vault.allow('path "%/data/wise/sandbox" { capabilities = ["read"] }')
    monkeypatch.setenv("READER", reader)
    service = {**one.config["sandbox"], "auth": {"method": "token", "token_env": "READER"}}
    operator = {"auth": {"method": "token", "token_env": "TOKEN"}}
    problem = refused(rotation.stage, "sandbox", config={"sandbox": service}, client_secret=Secret("second"))
    assert isinstance(problem, wise_creds.AccessDeniedError)
    config = {"sandbox": {**service, "operator": operator}}
    rotation.stage("sandbox", config=config, client_secret=Secret("second"))
    monkeypatch.delenv("TOKEN")
    assert wise_creds.load("sandbox", config=config).version == "1"
    assert isinstance(refused(rotation.promote, "sandbox", config=config), LoadError)


def test_what_no_source_knows_is_an_error_in_the_operators_table(one: Bench) -> None:
    """With the place, and the likely spelling; an unknown provider is told as ever."""
    for table, code, place in (
        ({"operator": {"auht": {}}}, "WC103", "operator.auht"),
        ({"operator": {}, "provider": "volt"}, "WC121", "provider"),
    ):
        problem = refused(rotation.status, "sandbox", config={"sandbox": {**one.config["sandbox"], **table}})
        assert (problem.code, str(problem.location).endswith(place)) == (code, True)


def test_sources_that_cannot_be_read_or_give_a_field_twice_are_told(two: Bench, tmp_path: Path) -> None:
    """All that is wrong, as a load would tell it."""
    both = tmp_path / "mtls" / "client_id"
    both.touch(mode=0o600)
    both.write_text(two.wise.client_id)
    two.stage(client_secret=Secret("second"))
    problem = refused(two.promote)
    assert (type(problem), problem.code) == (LoadError, "WC311")
    (tmp_path / "client" / "..data" / "client_id").unlink(missing_ok=True)
    sources = [{"provider": "files", "directory": str(tmp_path / "nowhere")}]
    problem = refused(
        rotation.status, "sandbox", config={"sandbox": {"source": sources, "base_url": two.wise.base_url}}
    )
    assert (type(problem), problem.code, problem.namespace) == (LoadError, "WC301", "sandbox")
