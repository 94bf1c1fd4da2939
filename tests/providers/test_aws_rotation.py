"""The Lambda's four steps, against moto with AWS's own rules around them, and a Wise that knows the new secret."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import traceback
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.httpsession import URLLib3Session
from moto.server import ThreadedMotoServer
from support import leaks

import wise_creds
from wise_creds import (
    AccessDeniedError,
    ConfigError,
    LoadError,
    Namespace,
    RotationError,
    Secret,
    SecretNotFoundError,
    TokenRejectedError,
    TokenUnavailableError,
    WiseCredsError,
)
from wise_creds.clock import SYSTEM_CLOCK
from wise_creds.testing import MockWise
from wise_creds_aws import AwsProvider
from wise_creds_aws._options import AwsOptions
from wise_creds_aws.rotation import handler

ROOT = Path(__file__).parent.parent.parent
REGION, ACCOUNT, NAME = "eu-west-1", "123456789012", "wise/sandbox"
STEPS = ("createSecret", "setSecret", "testSecret", "finishSecret")
KEY = "canary-aws-secret-access-key"
PAIR = ("certificate", "private_key", "ca_bundle")
WRITES = ("PutSecretValue", "UpdateSecretVersionStage")


class Killed(BaseException):
    """What a Lambda that is gone would not have gone on from."""


class Bench:
    """Secrets Manager with the credentials of a MockWise, the configuration of the Lambda, and AWS beginning rotations."""

    def __init__(self, endpoint: str, wise: MockWise, home: Path, patch: pytest.MonkeyPatch) -> None:
        urllib.request.urlopen(urllib.request.Request(f"{endpoint}/moto-api/reset", method="POST")).close()
        self.wise, self.home, self.endpoint = wise, home, endpoint
        self.on_call: Callable[[str, bytes, Callable[[], Any]], Any] | None = None
        patch.setenv("WISE_CREDS_CONFIG", str(home / "lambda.toml"))
        self.client: Any = boto3.client("secretsmanager", region_name=REGION, endpoint_url=endpoint)
        self.old = self.new_secret(self.fields())
        self.arn: str = self.client.describe_secret(SecretId=NAME)["ARN"]
        self.configure()
        send = URLLib3Session.send

        def handle(session: URLLib3Session, request: Any) -> Any:
            name = str(request.headers.get("X-Amz-Target")).rpartition(".")[2].strip("'")
            hook = self.on_call
            return send(session, request) if hook is None else hook(name, request.body, lambda: send(session, request))

        patch.setattr(URLLib3Session, "send", handle)

    def fields(self) -> dict[str, str]:
        return {path.name: path.read_text() for path in self.wise.directory.iterdir()}

    def new_secret(self, fields: dict[str, str], name: str = NAME) -> str:
        version: str = self.client.create_secret(Name=name, SecretString=json.dumps(fields))["VersionId"]
        return version

    def configure(self, *, top: dict[str, Any] | None = None, **changes: Any) -> None:
        source = {"provider": "aws", "secret": NAME, "region": REGION, "endpoint_url": self.endpoint, **changes}
        table = {"base_url": self.wise.base_url, "deadline": 30, **(top or {})}
        self.write({"sandbox": {**source, **table}})

    def write(self, tables: dict[str, dict[str, object]]) -> None:
        lines = []
        for name, table in tables.items():
            lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in table.items() if key != "source")]
            for source in table.get("source", ()):  # type: ignore[attr-defined]
                lines += [f"[[{name}.source]]", *(f"{key} = {json.dumps(value)}" for key, value in source.items())]
        (self.home / "lambda.toml").write_text("\n".join(lines))

    def stage(self, secret: str | None = None, **more: str) -> str:
        """Do as the operator does; by default with the secret that Wise knows now."""
        options = AwsOptions.model_validate({"secret": NAME, "region": REGION, "endpoint_url": self.endpoint})
        provider = AwsProvider(options, namespace=Namespace.SANDBOX, environ={}, clock=SYSTEM_CLOCK)
        values = {"client_secret": secret or self.wise.client_secret, **more}
        return provider.stage(
            {name: Secret(value) for name, value in values.items()}, deadline=SYSTEM_CLOCK.boot() + 10
        )

    def begin(self, **content: str) -> str:
        """Do as RotateSecret does: an empty pending version, refused while another one is pending."""
        assert self.holder("AWSPENDING") in (None, self.holder("AWSCURRENT")), "A previous rotation isn't complete"
        token, secret = str(uuid.uuid4()), self.moto()
        secret.rotation_requested = secret.rotation_enabled = True
        created = max(version["createdate"] for version in secret.versions.values())
        made = {"createdate": created, "version_id": token, "version_stages": ["AWSPENDING"]}
        secret.versions[token] = made | content
        return token

    def moto(self) -> Any:
        from moto.secretsmanager.models import secretsmanager_backends

        return secretsmanager_backends[ACCOUNT][REGION].secrets[NAME]

    def age(self, seconds: int = 60) -> None:
        """Let what there is be older; moto counts whole seconds."""
        for version in self.moto().versions.values():
            version["createdate"] -= seconds

    def step(self, step: str, token: str, **more: str) -> None:
        handler({"Step": step, "SecretId": self.arn, "ClientRequestToken": token, **more}, None)

    def failure(self, step: str, token: str, **more: str) -> WiseCredsError:
        with pytest.raises(WiseCredsError) as caught:
            self.step(step, token, **more)
        return caught.value

    def labels(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = self.client.describe_secret(SecretId=NAME)["VersionIdsToStages"]
        return {version: sorted(labels) for version, labels in found.items() if labels}

    def holder(self, label: str) -> str | None:
        return next((version for version, labels in self.labels().items() if label in labels), None)

    def value(self, version: str) -> dict[str, str]:
        found: dict[str, str] = json.loads(
            self.client.get_secret_value(SecretId=NAME, VersionId=version)["SecretString"]
        )
        return found

    def operator_promotes(self, version: str) -> None:
        self.client.update_secret_version_stage(
            SecretId=NAME, VersionStage="AWSCURRENT", MoveToVersionId=version, RemoveFromVersionId=self.old
        )


@pytest.fixture(scope="session")
def moto_server() -> Iterator[str]:
    """A moto server on a free port; stopped at the end of the session."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bench(moto_server: str, mock_wise: MockWise, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    for name in [name for name in os.environ if name.startswith(("AWS_", "BOTO"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIACANARY0000000000")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", KEY)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "no-config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "no-credentials"))
    return Bench(moto_server, mock_wise, tmp_path, monkeypatch)


# The whole way


@pytest.mark.parametrize("times", [1, 2])
def test_what_a_person_staged_becomes_current_in_four_steps(bench: Bench, times: int) -> None:
    """Each done once, or twice over; Wise is asked for one token per test, and knows the new secret only."""
    bench.wise.rotate_secret()
    staged = bench.stage()
    token = bench.begin()
    for step in STEPS:
        for _ in range(times):
            bench.step(step, token)
        if step == "createSecret":
            assert bench.labels() == {
                bench.old: ["AWSCURRENT"], staged: ["WISE_STAGED"], token: ["AWSPENDING"],
            }  # fmt: skip
    assert bench.labels() == {token: ["AWSCURRENT"], bench.old: ["AWSPREVIOUS"]}
    assert (bench.value(token)["client_secret"], bench.wise.token_requests) == (bench.wise.client_secret, times)
    with wise_creds.connect("sandbox") as wise, wise.client() as http:
        assert http.get("/v2/profiles").status_code == 200


def test_a_finished_rotation_is_left_alone(bench: Bench) -> None:
    """Each step again, in any order, for the version that is current: nothing is written, Wise is not asked."""
    bench.stage(bench.wise.client_secret, private_note="1")
    token = bench.begin()
    for step in STEPS:
        bench.step(step, token)
    asked = bench.wise.token_requests
    seen: list[str] = []

    def note(name: str, _body: bytes, call: Callable[[], Any]) -> Any:
        seen.append(name)
        return call()

    bench.on_call = note
    for step in reversed(STEPS):
        bench.step(step, token)
    assert (set(seen) & set(WRITES), bench.wise.token_requests) == (set(), asked)


@pytest.mark.parametrize("at", range(1, 5))
@pytest.mark.parametrize("before", [True, False])
def test_a_step_that_died_at_any_write_is_repeated(bench: Bench, at: int, before: bool) -> None:
    """Before the write, or before its answer was seen; the current version is one of the two throughout."""
    bench.wise.rotate_secret()
    bench.stage()
    token, count = bench.begin(), 0
    killed: list[str] = []

    def die(name: str, _body: bytes, call: Callable[[], Any]) -> Any:
        nonlocal count
        count += name in WRITES
        if count == at and name in WRITES and before:
            raise Killed
        answer = call()
        if count == at and name in WRITES:
            raise Killed
        return answer

    for step in STEPS:
        bench.on_call = None if killed else die
        try:
            bench.step(step, token)
        except Killed:
            killed.append(step)
            bench.on_call = None
            assert bench.holder("AWSCURRENT") in (bench.old, token)
            bench.step(step, token)
    assert killed == ["createSecret" if at == 1 else "finishSecret"]
    assert bench.labels() == {token: ["AWSCURRENT"], bench.old: ["AWSPREVIOUS"]}


def test_the_trial_at_setting_up_needs_nothing_staged(bench: Bench) -> None:
    """With RotateImmediately off AWS runs testSecret alone, on a copy of the current value."""
    token = bench.begin(secret_string=json.dumps(bench.fields()))
    before = bench.labels()
    bench.step("testSecret", token)
    assert (bench.wise.token_requests, bench.labels()) == (1, before)


@pytest.mark.parametrize("named", ["the name", "the full ARN", "the ARN without its end"])
def test_the_configuration_may_name_the_secret_in_each_way(bench: Bench, named: str) -> None:
    """AWS's event has the full ARN always."""
    names = {"the name": NAME, "the full ARN": bench.arn, "the ARN without its end": bench.arn[:-7]}
    bench.configure(secret=names[named])
    bench.stage(private_note="1")
    token = bench.begin()
    bench.step("createSecret", token)
    assert bench.value(token)["private_note"] == "1"


def test_the_rotation_token_of_another_account_is_passed_on(bench: Bench) -> None:
    """To PutSecretValue, which alone takes it; it stays out where there is none."""
    seen: list[dict[str, Any]] = []

    def note(name: str, body: bytes, call: Callable[[], Any]) -> Any:
        seen.append({**json.loads(body), "call": name})
        return call()

    bench.stage(private_note="1")
    token = bench.begin()
    bench.on_call = note
    rotation_token = str(uuid.uuid4())
    bench.step("createSecret", token, RotationToken=rotation_token)
    given = {call["call"]: call.get("RotationToken") for call in seen}
    assert given == {"DescribeSecret": None, "GetSecretValue": None, "PutSecretValue": rotation_token}


# Several sources


def _two_sources(bench: Bench, first: str, second: str) -> None:
    common = {"provider": "aws", "region": REGION, "endpoint_url": bench.endpoint}
    sources = [{**common, "secret": first}, {**common, "secret": second}]
    bench.write({"sandbox": {"base_url": bench.wise.base_url, "deadline": 30, "source": sources}})


def test_other_sources_are_read_as_they_are(bench: Bench) -> None:
    """The pair from a second secret, whose staged values are nobody's business here."""
    fields = bench.fields()
    bench.client.put_secret_value(
        SecretId=NAME, SecretString=json.dumps({name: fields[name] for name in fields if name not in PAIR})
    )
    bench.new_secret({name: fields[name] for name in PAIR}, "wise/pair")
    bench.client.put_secret_value(SecretId="wise/pair", SecretString="{}", VersionStages=["WISE_STAGED"])
    _two_sources(bench, "wise/pair", NAME)
    bench.wise.rotate_secret()
    bench.stage()
    token = bench.begin()
    for step in STEPS:
        bench.step(step, token)
    assert bench.holder("AWSCURRENT") == token
    assert wise_creds.load("sandbox").client_secret == Secret(bench.wise.client_secret)


# Nothing staged


def test_a_rotation_with_nothing_staged_ends_and_says_so(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """As a schedule begins one: nothing moves, nothing stays pending, and the next one can begin."""
    before = bench.labels()
    token = bench.begin()
    error = bench.failure("createSecret", token)
    assert (type(error), error.code, error.namespace, bench.labels()) == (RotationError, "WC701", "sandbox", before)
    assert [record.getMessage() for record in caplog.records if record.name == "wise_creds"] == [
        f"the rotation has ended: version {token} is no longer AWSPENDING"
    ]
    assert [bench.failure(step, token).code for step in STEPS] == ["WC723"] * 4
    bench.stage(private_note="1")
    token = bench.begin()
    for step in STEPS:
        bench.step(step, token)
    assert bench.holder("AWSCURRENT") == token


def test_what_is_current_already_is_nothing_staged(bench: Bench) -> None:
    """Or the version before would be lost to a copy, and with it the way back."""
    content = json.dumps(bench.fields())
    bench.client.put_secret_value(SecretId=NAME, SecretString=content, VersionStages=["WISE_STAGED"])
    before = bench.labels()
    assert bench.failure("createSecret", bench.begin()).code == "WC701"
    assert bench.labels() == before


def test_a_label_on_a_version_that_is_gone_is_nothing_staged(bench: Bench) -> None:
    """A version may be registered without a value."""
    token = bench.begin()
    other = str(uuid.uuid4())
    bench.moto().versions[other] = {"createdate": 0, "version_id": other, "version_stages": ["WISE_STAGED"]}
    assert bench.failure("createSecret", token).code == "WC701"


def test_what_was_staged_before_the_current_version_is_refused(bench: Bench) -> None:
    """It does not know what that changed."""
    bench.stage(private_note="stale")
    bench.age()
    newer = bench.client.put_secret_value(SecretId=NAME, SecretString=json.dumps(bench.fields()))["VersionId"]
    assert bench.failure("createSecret", bench.begin()).code == "WC750"
    assert (bench.holder("AWSCURRENT"), bench.holder("AWSPENDING")) == (newer, None)


# What is staged does not serve


def test_material_that_is_not_whole_ends_the_rotation(bench: Bench) -> None:
    """At setSecret, with everything wrong told; what was staged stays for the operator, and a better one goes through."""
    other = bench.wise.authority.client(bench.wise.client_id)
    staged = bench.stage(private_key=other.key_pem.decode())
    token = bench.begin()
    bench.step("createSecret", token)
    error = bench.failure("setSecret", token)
    assert (type(error), error.retryable, bench.wise.token_requests) == (LoadError, False, 0)
    assert bench.labels() == {bench.old: ["AWSCURRENT"], staged: ["WISE_STAGED"]}
    bench.stage(private_key=other.key_pem.decode(), certificate=other.pem.decode())
    token = bench.begin()
    for step in STEPS:
        bench.step(step, token)
    assert bench.holder("AWSCURRENT") == token


def test_a_staged_value_that_is_not_json_ends_the_rotation(bench: Bench) -> None:
    """As somebody's hand may have left it."""
    bench.client.put_secret_value(SecretId=NAME, SecretString="canary-not-json", VersionStages=["WISE_STAGED"])
    token = bench.begin()
    bench.step("createSecret", token)
    assert (bench.failure("setSecret", token).code, bench.holder("AWSPENDING")) == ("WC309", None)


def test_a_secret_that_wise_refuses_ends_the_rotation(bench: Bench) -> None:
    """At testSecret; the current one still works."""
    bench.stage("canary-mistyped-secret")
    token = bench.begin()
    for step in STEPS[:2]:
        bench.step(step, token)
    error = bench.failure("testSecret", token)
    assert (type(error), error.code) == (TokenRejectedError, "WC501")
    assert (bench.holder("AWSCURRENT"), bench.holder("AWSPENDING")) == (bench.old, None)
    wise_creds.connect("sandbox").close()


def test_a_wise_that_cannot_answer_leaves_the_rotation_to_be_repeated(bench: Bench) -> None:
    """AWS tries the step again."""
    bench.wise.rotate_secret()
    bench.configure(top={"deadline": 5})
    bench.stage()
    token = bench.begin()
    for step in STEPS[:2]:
        bench.step(step, token)
    bench.wise.fail("unavailable", 4)
    error = bench.failure("testSecret", token)
    assert (type(error), bench.holder("AWSPENDING")) == (TokenUnavailableError, token)
    for step in STEPS[2:]:
        bench.step(step, token)
    assert bench.labels() == {token: ["AWSCURRENT"], bench.old: ["AWSPREVIOUS"]}


def test_finish_makes_nothing_current_that_is_not_whole(bench: Bench) -> None:
    """Called out of turn, as by hand."""
    bench.stage(environment="production")
    token = bench.begin()
    bench.step("createSecret", token)
    assert type(bench.failure("finishSecret", token)) is LoadError
    assert bench.holder("AWSCURRENT") == bench.old


# Out of order, and beside somebody else


@pytest.mark.parametrize("step", STEPS[1:])
def test_a_step_before_the_first_one_is_out_of_turn(bench: Bench, step: str) -> None:
    """The version is registered but has no value; that ends nothing."""
    bench.stage(private_note="1")
    token = bench.begin()
    before = bench.labels()
    error = bench.failure(step, token)
    assert (error.code, error.retryable, bench.labels()) == ("WC724", True, before)


def test_what_is_staged_meanwhile_is_kept(bench: Bench) -> None:
    """For the next rotation, which takes it."""
    bench.stage(private_note="first")
    token = bench.begin()
    for step in STEPS[:3]:
        bench.step(step, token)
    later = bench.stage(private_note="second")
    bench.step("createSecret", token)
    bench.step("finishSecret", token)
    assert bench.labels() == {token: ["AWSCURRENT"], bench.old: ["AWSPREVIOUS"], later: ["WISE_STAGED"]}
    assert bench.value(token)["private_note"] == "first"
    second = bench.begin()
    for step in STEPS:
        bench.step(step, second)
    assert bench.value(bench.holder("AWSCURRENT") or "")["private_note"] == "second"


def test_a_newer_current_version_is_not_overwritten(bench: Bench) -> None:
    """An operator has promoted by hand while the rotation ran; the rotation ends."""
    bench.stage(private_note="1")
    token = bench.begin()
    for step in STEPS[:3]:
        bench.step(step, token)
    bench.age()
    newer = bench.client.put_secret_value(SecretId=NAME, SecretString=json.dumps(bench.fields()))["VersionId"]
    assert bench.failure("finishSecret", token).code == "WC750"
    assert (bench.holder("AWSCURRENT"), bench.holder("AWSPENDING")) == (newer, None)
    assert bench.failure("finishSecret", token).code == "WC723"


def test_a_lost_race_for_the_current_version_is_told(bench: Bench) -> None:
    """Between the look and the move: the move names what it takes the label from."""
    bench.stage(private_note="1")
    token = bench.begin()
    others: list[str] = []
    bench.step("createSecret", token)

    def race(name: str, body: bytes, call: Callable[[], Any]) -> Any:
        if name == "UpdateSecretVersionStage" and b"AWSCURRENT" in body and not others:
            bench.on_call = None
            content = json.dumps(bench.fields())
            others.append(bench.client.put_secret_value(SecretId=NAME, SecretString=content)["VersionId"])
        return call()

    bench.on_call = race
    assert bench.failure("finishSecret", token).code == "WC702"
    assert (bench.holder("AWSCURRENT"), bench.holder("AWSPENDING")) == (others[0], None)


def test_awspending_may_be_gone_by_itself(bench: Bench) -> None:
    """Which AWS does, as it says; the function sees to it, as AWS says too."""
    bench.stage(private_note="1")
    token = bench.begin()
    bench.step("createSecret", token)

    def clear(name: str, body: bytes, call: Callable[[], Any]) -> Any:
        answer = call()
        if name == "UpdateSecretVersionStage" and b"AWSCURRENT" in body:
            bench.moto().versions[token]["version_stages"].remove("AWSPENDING")
        return answer

    bench.on_call = clear
    bench.step("finishSecret", token)
    bench.on_call = None
    assert bench.labels() == {token: ["AWSCURRENT"], bench.old: ["AWSPREVIOUS"]}


def test_a_rotation_without_anything_staged_any_more_is_finished(bench: Bench) -> None:
    """The operator has discarded it after it was copied."""
    staged = bench.stage(private_note="1")
    token = bench.begin()
    bench.step("createSecret", token)
    bench.client.update_secret_version_stage(SecretId=NAME, VersionStage="WISE_STAGED", RemoveFromVersionId=staged)
    bench.step("finishSecret", token)
    assert bench.labels() == {token: ["AWSCURRENT"], bench.old: ["AWSPREVIOUS"]}


# Refusals


@pytest.mark.parametrize("step", STEPS)
def test_versions_that_are_not_being_rotated_to_are_refused(bench: Bench, step: str) -> None:
    """Unknown, and one that was current once."""
    bench.begin()
    previous = bench.old
    bench.client.put_secret_value(SecretId=NAME, SecretString=json.dumps(bench.fields()))
    before = bench.labels()
    assert [bench.failure(step, token).code for token in (str(uuid.uuid4()), previous)] == ["WC723", "WC723"]
    assert bench.labels() == before


def test_a_secret_that_does_not_rotate_is_refused(bench: Bench) -> None:
    """Cancelled in between, or never configured; nothing is touched."""
    bench.stage(private_note="1")
    token = bench.begin()
    before = bench.labels()
    bench.moto().rotation_enabled = False
    cancelled = bench.failure("createSecret", token)
    bench.moto().rotation_requested = False
    never = bench.failure("createSecret", token)
    assert (cancelled.code, never.code, bench.labels()) == ("WC722", "WC722", before)


@pytest.mark.parametrize(
    "wrong",
    [
        {"SecretId": NAME},
        {"SecretId": f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:{NAME}"},
        {"SecretId": None},
        {"ClientRequestToken": ""},
        {"Step": "create_secret"},
        {"Step": None},
    ],
    ids=str,
)
def test_another_event_is_refused(bench: Bench, wrong: dict[str, Any]) -> None:
    """A test event of the console, for instance."""
    with pytest.raises(RotationError) as caught:
        handler({"Step": "createSecret", "SecretId": bench.arn, "ClientRequestToken": "x" * 36, **wrong}, None)
    assert caught.value.code == "WC720"


@pytest.mark.parametrize(
    "changes",
    [
        {"secret": "wise/other"},
        {"secret": f"{NAME}x"},
        {"region": "us-east-1"},
        {"account_id": "999999999999"},
        {"provider": "vault"},
    ],
    ids=str,
)
def test_a_secret_of_no_namespace_is_refused(bench: Bench, changes: dict[str, Any]) -> None:
    """The name alone is not enough."""
    bench.configure(**changes)
    assert bench.failure("createSecret", bench.begin()).code == "WC721"


def test_a_secret_of_several_sources_is_refused(bench: Bench) -> None:
    """Sandbox and production share nothing, and no field is given twice."""
    source: dict[str, object] = {"provider": "aws", "secret": NAME}
    bench.write({"sandbox": source, "production": source})
    namespaces = bench.failure("createSecret", bench.begin())
    _two_sources(bench, NAME, bench.arn)
    sources = bench.failure("createSecret", "x")
    assert [(error.code, error.message) for error in (namespaces, sources)] == [
        ("WC721", "several sources of the configuration are this secret"),
    ] * 2


def test_a_wrong_configuration_is_told(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before AWS is asked: of the namespace, of the source, of a pinned one; or that there is none."""
    token = bench.begin()
    bench.configure(top={"deadline": -1})
    namespace = bench.failure("createSecret", token)
    bench.configure(endpoint_url="canary://nowhere")
    source = bench.failure("createSecret", token)
    bench.configure(stage="OTHER")
    pinned = bench.failure("createSecret", token)
    bench.configure(profile="mine")
    bench.write({"production": {"provider": "aws", "secret": NAME, "profile": "mine"}})
    profile = bench.failure("createSecret", token)
    monkeypatch.delenv("WISE_CREDS_CONFIG")
    missing = bench.failure("createSecret", token)
    assert [(type(error), error.code) for error in (namespace, source, pinned, profile, missing)] == [
        (LoadError, "WC105"), (ConfigError, "WC105"), (RotationError, "WC705"), (ConfigError, "WC209"),
        (ConfigError, "WC101"),
    ]  # fmt: skip
    assert leaks({"url": "canary://nowhere"}, str(source)) == []


def test_a_failure_to_end_the_rotation_is_logged_beside_its_cause(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    """The cause is what is raised."""
    token = bench.begin()

    def refuse(name: str, _body: bytes, call: Callable[[], Any]) -> Any:
        answer = call()
        if name == "UpdateSecretVersionStage":
            answer.status_code, answer._content = 400, b'{"__type": "AccessDeniedException", "message": "canary-text"}'
        return answer

    bench.on_call = refuse
    assert bench.failure("createSecret", token).code == "WC701"
    (warning,) = (record.getMessage() for record in caplog.records if record.name == "wise_creds")
    assert warning.startswith(f"AWSPENDING stays on version {token}: WC302 sandbox: ")
    assert leaks({"server": "canary-text"}, warning) == []


def test_a_failure_after_the_move_leaves_the_rest_to_a_repetition(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    """The version is current, so nothing is taken back, and no rotation is said to have ended."""
    bench.stage(private_note="1")
    token = bench.begin()
    bench.step("createSecret", token)

    def refuse(name: str, body: bytes, call: Callable[[], Any]) -> Any:
        answer = call()
        if name == "UpdateSecretVersionStage" and b"AWSCURRENT" not in body:
            answer.status_code, answer._content = 400, b'{"__type": "AccessDeniedException", "message": "x"}'
        return answer

    bench.on_call = refuse
    assert bench.failure("finishSecret", token).code == "WC302"
    bench.on_call = None
    assert bench.labels()[token] == ["AWSCURRENT", "AWSPENDING"]
    assert [record for record in caplog.records if record.name == "wise_creds"] == []
    bench.step("finishSecret", token)
    assert bench.labels() == {token: ["AWSCURRENT"], bench.old: ["AWSPREVIOUS"]}


def test_a_failure_of_aws_is_its_own(bench: Bench) -> None:
    """A missing value is not the only thing that a read may come to."""
    bench.stage(private_note="1")
    token = bench.begin()

    def deleted(name: str, _body: bytes, call: Callable[[], Any]) -> Any:
        answer = call()
        if name == "GetSecretValue":
            answer.status_code, answer._content = (
                400,
                b'{"__type": "InvalidRequestException", "message": "marked for deletion"}',
            )
        return answer

    def denied(name: str, _body: bytes, call: Callable[[], Any]) -> Any:
        answer = call()
        answer.status_code, answer._content = 400, b'{"__type": "AccessDeniedException", "message": "x"}'
        return answer

    bench.on_call = denied
    first = bench.failure("createSecret", token)
    bench.on_call = deleted
    second = bench.failure("createSecret", token)
    assert [(type(error), error.code) for error in (first, second)] == [
        (AccessDeniedError, "WC302"), (SecretNotFoundError, "WC322"),
    ]  # fmt: skip


# Leaks


def _told(caught: BaseException) -> str:
    """What a Lambda's log, and a tool that prints the variables of each frame, would show."""
    assert caught.__traceback__ is not None
    caught.__traceback__ = caught.__traceback__.tb_next  # without the test's own frame, which has the canaries
    return "".join(traceback.TracebackException.from_exception(caught, capture_locals=True).format())


def test_what_leaves_the_handler_is_safe_to_log(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """Two failures with each variable of their frames, and each record at DEBUG, of those and of a good rotation."""
    canaries = {
        "id": bench.wise.client_id,
        "secret": bench.wise.client_secret,
        "aws": KEY,
        "mistyped": "canary-mistyped",
    }
    other = bench.wise.authority.client(bench.wise.client_id)
    caplog.set_level(logging.DEBUG)
    good = {"secret": bench.wise.client_secret, "private_key": bench.fields()["private_key"], "private_note": "1"}
    told, logged = [], []
    for values in ({"secret": "canary-mistyped"}, {"private_key": other.key_pem.decode()}, good):
        bench.stage(**values)
        token = bench.begin()
        caplog.clear()
        try:
            for step in STEPS:
                bench.step(step, token)
        except WiseCredsError as problem:
            told.append(_told(problem))
        logged.append(caplog.text)
    assert (len(told), bench.holder("AWSCURRENT")) == (2, token)
    assert leaks(canaries, *told, *logged) == []


def test_the_control_leaks(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """The naive step, seen by the same detectors."""
    canaries = {"secret": bench.wise.client_secret}
    caplog.set_level(logging.DEBUG)
    with pytest.raises(AssertionError) as caught:
        _naive_check(bench)
    assert [leaks(canaries, _told(caught.value)), leaks(canaries, caplog.text)] == [["secret"], ["secret"]]


def _naive_check(bench: Bench) -> None:
    text = bench.client.get_secret_value(SecretId=NAME)["SecretString"]
    raise AssertionError(f"{len(text)} characters are not what was expected")


# The document


def test_the_terraform_of_the_document_is_well_formed() -> None:
    """Parsed and laid out as Terraform has it; `validate` would need its registry."""
    terraform = shutil.which("terraform")
    if terraform is None:
        pytest.skip("terraform is not installed")
    done = subprocess.run([terraform, "fmt", "-check", "-"], input=(ROOT / "docs/rotation-aws.tf").read_bytes(),
                          capture_output=True, timeout=60, check=False)  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
