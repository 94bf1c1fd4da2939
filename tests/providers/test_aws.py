"""The provider `aws`: boto3 against moto's server over HTTP, and against answers that moto does not give."""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import botocore.exceptions
import pytest
from botocore.exceptions import BotoCoreError, ClientError
from moto.server import ThreadedMotoServer
from pydantic import ValidationError
from support import leaks, tcp_server

import wise_creds
from wise_creds import (
    AccessDeniedError,
    ConfigError,
    CredentialsError,
    LoadError,
    Namespace,
    ProviderUnavailableError,
    RotationError,
    Secret,
    SecretDocument,
    SecretNotFoundError,
    Staging,
    WiseCredsError,
)
from wise_creds.clock import SYSTEM_CLOCK
from wise_creds.testing import FakeClock, MockWise, ProviderContract
from wise_creds_aws import AwsProvider
from wise_creds_aws._errors import translated
from wise_creds_aws._options import AwsOptions
from wise_creds_aws._provider import STAGED

REGION, ACCOUNT = "eu-west-1", "123456789012"
FIELDS = {"client_id": "canary-client-id", "client_secret": "canary-secret-1a2b"}
KEY = "canary-aws-secret-access-key"


@pytest.fixture(scope="session")
def moto_server() -> Iterator[str]:
    """A moto server on a free port; stopped at the end of the session."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(autouse=True)
def _identity(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith(("AWS_", "BOTO"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIACANARY0000000000")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", KEY)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "no-config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "no-credentials"))


class Store:
    """Secrets Manager with one secret, through a boto3 client of the test's own."""

    def __init__(self, endpoint: str) -> None:
        urllib.request.urlopen(urllib.request.Request(f"{endpoint}/moto-api/reset", method="POST")).close()
        self.endpoint = endpoint
        self.client: Any = boto3.client("secretsmanager", region_name=REGION, endpoint_url=endpoint)

    def put(self, content: object = FIELDS, name: str = "wise/sandbox") -> str:
        """Create the secret, or give it a new current version."""
        text = content if isinstance(content, str) else json.dumps(content)
        try:
            made = self.client.create_secret(Name=name, SecretString=text)
        except self.client.exceptions.ResourceExistsException:
            made = self.client.put_secret_value(SecretId=name, SecretString=text)
        version: str = made["VersionId"]
        return version

    def options(self, **changes: Any) -> dict[str, Any]:
        return {"secret": "wise/sandbox", "region": REGION, "endpoint_url": self.endpoint, **changes}

    def provider(
        self, *, namespace: Namespace = Namespace.SANDBOX, clock: Any = SYSTEM_CLOCK, **changes: Any
    ) -> AwsProvider:
        chosen = AwsOptions.model_validate(self.options(**changes), context={"base": "."})
        return AwsProvider(chosen, namespace=namespace, environ={}, clock=clock)

    def labels(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = self.client.describe_secret(SecretId="wise/sandbox")["VersionIdsToStages"]
        return {version: sorted(labels) for version, labels in found.items() if labels}

    def holder(self, label: str) -> str | None:
        return next((version for version, labels in self.labels().items() if label in labels), None)

    def value(self, version: str) -> Any:
        return json.loads(self.client.get_secret_value(SecretId="wise/sandbox", VersionId=version)["SecretString"])

    def age(self, version: str, seconds: int) -> None:
        """Let a version be older than moto, which counts whole seconds, would have it."""
        from moto.secretsmanager.models import secretsmanager_backends

        secret = secretsmanager_backends[ACCOUNT][REGION].secrets["wise/sandbox"]
        secret.versions[version]["createdate"] -= seconds


@pytest.fixture
def store(moto_server: str) -> Store:
    return Store(moto_server)


def fetched(provider: AwsProvider, **arguments: Any) -> SecretDocument:
    return provider.fetch(deadline=SYSTEM_CLOCK.boot() + 10, **arguments)


def soon() -> float:
    return SYSTEM_CLOCK.boot() + 10


class TestContract(ProviderContract):
    """What every provider does."""

    provider_class = AwsProvider

    @pytest.fixture(autouse=True)
    def _store(self, store: Store) -> None:
        self.store = store

    def options(self, values: dict[str, str]) -> dict[str, Any]:
        self.store.put(values)
        return self.store.options()

    def change(self, values: dict[str, str]) -> None:
        self.store.put(values)

    def absent(self) -> dict[str, Any]:
        return self.store.options(secret="nowhere")


def answering(
    status: int, body: object, *, then: Callable[[bytes], None] | None = None
) -> Callable[[socket.socket], None]:
    """Serve one canned answer a connection, in the form of AWS."""

    def serve(connection: socket.socket) -> None:
        received = b""
        while b"\r\n\r\n" not in received:
            received += connection.recv(65_536)
        head, _, rest = received.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].split()[0])
        while len(rest) < length:
            rest += connection.recv(65_536)
        if then is not None:
            then(rest)
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        top = f"HTTP/1.1 {status} X\r\nContent-Length: {len(content)}\r\nConnection: close\r\n\r\n"
        connection.sendall(top.encode() + content)

    return serve


def refusal(status: int, code: str, message: str = "canary-server-text") -> Callable[[socket.socket], None]:
    return answering(status, {"__type": code, "message": message})


def failure(store: Store, serve: Callable[[socket.socket], None], **changes: Any) -> WiseCredsError:
    with tcp_server(serve) as port, pytest.raises(WiseCredsError) as caught:
        fetched(store.provider(endpoint_url=f"http://127.0.0.1:{port}", **changes))
    return caught.value


# Reading


def test_the_whole_way_from_aws_to_a_token(store: Store, mock_wise: MockWise) -> None:
    """connect() with this provider, and a version and a date for messages."""
    names = ("client_id", "client_secret", "certificate", "private_key", "ca_bundle", "environment")
    version = store.put({name: (mock_wise.directory / name).read_text() for name in names})
    table = {**store.options(), "provider": "aws", "base_url": mock_wise.base_url}
    with wise_creds.connect("sandbox", config={"sandbox": table}) as wise, wise.client() as http:
        assert http.get("/v2/profiles").status_code == 200
        assert (wise.current().version, wise.current().credentials.sources) == (
            version,
            (f"aws:{REGION}:{ACCOUNT}:wise/sandbox",),
        )
        report = wise_creds.validate("sandbox", config={"sandbox": table}, level="live")
        assert report.exit_code == 0, report


def test_the_change_date_is_the_versions_own(store: Store) -> None:
    """Aware, so that a report can tell its age."""
    store.put()
    changed = fetched(store.provider()).changed_at
    assert changed is not None
    assert abs(changed - datetime.now(UTC)) < timedelta(minutes=5)


def test_arns_stages_versions_and_names(store: Store) -> None:
    """Each leads to what it names; the region may come from the ARN or the session."""
    first = store.put()
    arn = store.client.describe_secret(SecretId="wise/sandbox")["ARN"]
    second = store.put({"client_id": "another"})
    assert fetched(store.provider(secret=arn, region=None)).version == second
    assert fetched(store.provider(stage="AWSPREVIOUS")).version == first
    assert fetched(store.provider(version_id=first)).version == first
    assert fetched(store.provider(), version=first).version == first
    assert store.provider(version_id=first).probe(deadline=soon()) == first
    assert store.provider(stage="AWSPREVIOUS").probe(deadline=soon()) == first
    session = boto3.Session(region_name=REGION)
    assert fetched(store.provider(region=None, session=session)).version == second


def test_the_stage_is_always_sent(store: Store) -> None:
    """IAM conditions on the stage refuse a request that leaves it out."""
    seen: list[bytes] = []
    failure(store, answering(200, {}, then=seen.append))
    assert b'"VersionStage": "AWSCURRENT"' in seen[0]


def test_plain_and_binary_secrets(store: Store) -> None:
    """A value alone is the field named; bytes are a PKCS#12 store."""
    store.put("only-the-secret")
    store.client.create_secret(Name="p12", SecretBinary=b"\x30\x82\xff")
    plain = fetched(store.provider(field="client_secret"))
    assert {name: value.reveal() for name, value in plain.fields.items()} == {"client_secret": "only-the-secret"}
    assert fetched(store.provider(secret="p12")).fields["pkcs12"].reveal_bytes() == b"\x30\x82\xff"
    assert list(fetched(store.provider(secret="p12", field="jws_key")).fields) == ["jws_key"]


def test_fields_are_renamed_and_nested(store: Store) -> None:
    """A key with the dot itself comes first."""
    store.put({"wise": {"id": "nested"}, "wise.secret": "literal", "wise_x": "1"})
    document = fetched(store.provider(fields={"client_id": "wise.id", "client_secret": "wise.secret"}))
    assert (document.fields["client_id"].reveal(), document.fields["client_secret"].reveal()) == ("nested", "literal")


def test_a_secret_of_64_kib_is_read(store: Store) -> None:
    """AWS's own limit, counted in bytes."""
    store.put("x" * 65_536)
    assert len(fetched(store.provider(field="pkcs12")).fields["pkcs12"].reveal()) == 65_536
    answer = {
        "ARN": f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:a-123456",
        "VersionId": "v",
        "SecretString": "x" * 65_537,
    }
    assert failure(store, answering(200, answer)).code == "WC308"


@pytest.mark.parametrize(
    ("text", "code"),
    [("not json", "WC309"), ("[]", "WC310"), ('{"a": "1", "a": "2"}', "WC310"), ('{"client_id": 7}', "WC310")],
)
def test_a_secret_of_the_wrong_shape_is_told(store: Store, text: str, code: str) -> None:
    """Without any of its content."""
    store.put(text)
    with pytest.raises(CredentialsError) as caught:
        fetched(store.provider())
    assert caught.value.code == code


def test_an_assumed_role_reads_and_is_kept(store: Store) -> None:
    """Role after role, with the external ID for the last; another look needs no STS until near the end."""
    store.put()
    roles = [f"arn:aws:iam::{ACCOUNT}:role/{name}" for name in ("first", "second")]
    clock = FakeClock()
    clock.step_wall(SYSTEM_CLOCK.wall() - clock.wall())
    provider = store.provider(role_arn=roles, external_id="canary-external", clock=clock)
    deadline = clock.boot() + 10
    provider.fetch(deadline=deadline)
    held = provider._roles
    provider.fetch(deadline=deadline)
    assert provider._roles is held
    clock.step_wall(3_500)
    provider.fetch(deadline=deadline)
    assert provider._roles is not held
    provider.close()
    assert provider._roles is None
    assert fetched(store.provider(role_arn=roles[0])).version


def test_the_account_is_pinned(store: Store) -> None:
    """Before the value is used, whoever's credentials these are."""
    store.put()
    assert fetched(store.provider(account_id=ACCOUNT)).version
    with pytest.raises(ConfigError) as caught:
        fetched(store.provider(account_id="999999999999"))
    assert (caught.value.code, caught.value.location) == ("WC328", f"aws:{REGION}:{ACCOUNT}:wise/sandbox")


def test_an_ambiguous_reference_is_a_warning(store: Store) -> None:
    """A name that ends as ARNs do, or an ARN without that end."""
    store.put(name="wise-sandbx")
    (notice,) = fetched(store.provider(secret="wise-sandbx")).notices
    assert (notice.code, notice.level) == ("WC330", "warning")


# The version probe


def test_a_denied_probe_falls_back_to_a_read(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """And says so in the document, which is where `validate` shows it."""
    version = store.put()
    provider, calls = store.provider(), []
    real = AwsProvider._call

    def denied(self: AwsProvider, client: Any, method: str, action: str, **arguments: Any) -> dict[str, Any]:
        calls.append(method)
        if method == "describe_secret":
            raise AccessDeniedError("refused", code="WC302")
        return real(self, client, method, action, **arguments)

    monkeypatch.setattr(AwsProvider, "_call", denied)
    assert [provider.probe(deadline=soon()), provider.probe(deadline=soon())] == [version, version]
    assert calls == ["describe_secret", "get_secret_value", "get_secret_value"]
    assert [notice.code for notice in fetched(provider).notices] == ["WC332"]


def test_other_failures_of_the_probe_are_its_own(store: Store) -> None:
    """No label, no key."""
    store.put()
    with pytest.raises(SecretNotFoundError) as caught:
        store.provider(stage="NOT_THERE").probe(deadline=soon())
    with tcp_server(refusal(400, "DecryptionFailure")) as port, pytest.raises(AccessDeniedError) as key:
        store.provider(endpoint_url=f"http://127.0.0.1:{port}").probe(deadline=soon())
    assert (caught.value.code, key.value.code) == ("WC321", "WC323")


# Errors


@pytest.mark.parametrize(
    ("status", "code", "text", "ours", "kind"),
    [
        (400, "ResourceNotFoundException", "Secrets Manager can't find the specified secret.", "WC301", SecretNotFoundError),
        (400, "ResourceNotFoundException", "can't find the value for staging label: X", "WC321", SecretNotFoundError),
        (400, "ResourceNotFoundException", "can't find the value for VersionId: X", "WC321", SecretNotFoundError),
        (400, "InvalidRequestException", "because it was marked for deletion", "WC322", SecretNotFoundError),
        (400, "InvalidParameterException", "was deleted", "WC322", SecretNotFoundError),
        (400, "InvalidParameterException", "canary", "WC334", ConfigError),
        (400, "ValidationException", "canary", "WC334", ConfigError),
        (400, "AccessDeniedException", "is not authorized to perform", "WC302", AccessDeniedError),
        (400, "AccessDeniedException", "Access to KMS is not allowed", "WC323", AccessDeniedError),
        (400, "DecryptionFailure", "", "WC323", AccessDeniedError),
        (400, "ExpiredTokenException", "", "WC325", AccessDeniedError),
        (400, "UnrecognizedClientException", "", "WC325", AccessDeniedError),
        (403, "InvalidSignatureException", "", "WC325", AccessDeniedError),
        (400, "ThrottlingException", "", "WC327", ProviderUnavailableError),
        (500, "InternalServiceError", "", "WC303", ProviderUnavailableError),
        (503, "canary<html>", "", "WC303", ProviderUnavailableError),
        (400, "PolicyNotFoundException", "", "WC335", wise_creds.ProviderError),
    ],
)  # fmt: skip
def test_each_answer_of_aws_has_its_code(
    store: Store, status: int, code: str, text: str, ours: str, kind: type[WiseCredsError]
) -> None:
    """With the place, and none of the server's text."""
    problem = failure(store, refusal(status, code, f"canary-server-text {text}"))
    assert (problem.code, type(problem)) == (ours, kind)
    assert problem.location == f"aws:{REGION}:?:wise/sandbox"
    assert problem.hint
    assert "canary" not in f"{problem!r} {problem}"


def test_the_missing_iam_action_is_named(store: Store) -> None:
    """In the hint, ready to be put into a policy."""
    problem = failure(store, refusal(400, "AccessDeniedException"))
    assert "secretsmanager:GetSecretValue" in str(problem.hint)
    role = failure(store, answering(403, b"<ErrorResponse><Error><Code>AccessDenied</Code></Error></ErrorResponse>"),
                   role_arn=f"arn:aws:iam::{ACCOUNT}:role/x")  # fmt: skip
    assert (role.code, "sts:AssumeRole" in str(role.hint)) == ("WC302", True)


def test_no_modelled_exception_falls_through(store: Store) -> None:
    """Neither those of the service's model nor any class of botocore."""
    modelled = [shape.name for shape in store.client.meta.service_model.error_shapes]
    for code in modelled:
        response: Any = {"Error": {"Code": code, "Message": "canary"}, "ResponseMetadata": {"HTTPStatusCode": 400}}
        made = translated(ClientError(response, "GetSecretValue"), action="a", place="p")
        assert made is not None, code
        assert (made.code[:3], "canary" in str(made)) == ("WC3", False)
    classes = [
        kind
        for kind in vars(botocore.exceptions).values()
        if isinstance(kind, type) and issubclass(kind, BotoCoreError)
    ]
    for kind in classes:
        raised = kind.__new__(kind)
        made = translated(raised, action="a", place="p")
        assert made is not None, kind
        assert made.hint, kind
    assert (len(modelled) > 10, len(classes) > 50) == (True, True)
    assert translated(KeyError("x"), action="a", place="p") is None


def test_an_exception_that_is_not_botocores_is_the_cores_to_translate(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It passes, within the shield of the core."""
    store.put()
    monkeypatch.setattr(AwsProvider, "_opened", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        fetched(store.provider())


def test_identity_region_and_profile_are_told_apart(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each with what to do."""
    with pytest.raises(ConfigError) as region:
        fetched(store.provider(region=None))
    with pytest.raises(ConfigError) as profile:
        fetched(store.provider(profile="not-there"))
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(AccessDeniedError) as partial:
        fetched(store.provider())
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    with pytest.raises(AccessDeniedError) as nobody:
        fetched(store.provider())
    assert [caught.value.code for caught in (region, profile, partial, nobody)] == ["WC326", "WC333", "WC324", "WC324"]


@pytest.mark.parametrize("body", [b"", b"{}", b'{"ARN": "x"}', b"<html>"])
def test_what_is_no_answer_is_told(store: Store, body: bytes) -> None:
    """Botocore gives a dictionary without the value, and no exception."""
    assert failure(store, answering(200, body)).code in ("WC336", "WC335")


@pytest.mark.parametrize("answer", [{"VersionId": "v"}, {"SecretString": "{}"}])
def test_half_an_answer_is_none(store: Store, answer: dict[str, str]) -> None:
    """Neither a value without a version nor a version without a value."""
    arn = f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:a-123456"
    assert failure(store, answering(200, {"ARN": arn, **answer})).code == "WC336"


def test_a_dead_endpoint_fails_inside_the_deadline(store: Store) -> None:
    """Refused, silent, or trickling: seconds, not minutes, through the whole of load()."""

    def silent(connection: socket.socket) -> None:
        connection.recv(65_536)
        connection.recv(65_536)
        connection.recv(65_536)

    def trickling(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        while True:
            connection.sendall(b"x")
            threading.Event().wait(0.05)

    for serve, code in ((silent, "WC304"), (trickling, "WC304")):
        with tcp_server(serve) as port:
            table = {**store.options(endpoint_url=f"http://127.0.0.1:{port}"), "provider": "aws", "deadline": 1.0}
            began = SYSTEM_CLOCK.boot()
            with pytest.raises(LoadError) as caught:
                wise_creds.load("sandbox", config={"sandbox": table})
            assert (caught.value.code, SYSTEM_CLOCK.boot() - began < 3) == (code, True)
    free = socket.create_server(("127.0.0.1", 0))
    port = free.getsockname()[1]
    free.close()
    with pytest.raises(ProviderUnavailableError) as refused:
        store.provider(endpoint_url=f"http://127.0.0.1:{port}").fetch(deadline=SYSTEM_CLOCK.boot() + 3)
    assert refused.value.code == "WC303"


@pytest.mark.parametrize("ca_bundle", [None, "/nowhere.pem"])
def test_an_untrusted_endpoint_is_named(store: Store, mock_wise: MockWise, ca_bundle: str | None) -> None:
    """A TLS-inspecting proxy looks like this; so does a CA file that is not there."""
    with pytest.raises(ProviderUnavailableError) as caught:
        fetched(store.provider(endpoint_url=mock_wise.base_url, ca_bundle=ca_bundle))
    assert (caught.value.code, "ca_bundle" in str(caught.value.hint)) == ("WC303", True)


# Options


@pytest.mark.parametrize(
    "wrong",
    [
        {"secret": ""},
        {"secret": "arn:aws:secretsmanager:eu-west-1:1:secret:x"},
        {"secret": f"arn:aws:secretsmanager:us-east-1:{ACCOUNT}:secret:x-123456"},
        {"secret": f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:x-123456", "account_id": "999999999999"},
        {"stage": "A", "version_id": "B"},
        {"field": "a", "fields": {}},
        {"profile": "p", "session": object()},
        {"role_arn": "role"},
        {"role_arn": ["role"]},
        {"account_id": "12"},
        {"region": "Ireland!"},
        {"endpoint_url": "http://aws.example"},
        {"endpoint_url": "https://user@aws.example"},
        {"endpoint_url": "ftp://127.0.0.1"},
        {"endpoint_url": "nothing"},
        {"proxy": "socks5://x"},
        {"secret_key": "x"},
    ],
    ids=str,
)
def test_wrong_options_are_refused_before_any_call(store: Store, wrong: dict[str, Any]) -> None:
    """By the model."""
    with pytest.raises(ValidationError):
        store.provider(**wrong)


def test_good_options_are_taken(store: Store) -> None:
    """Endpoints, proxies, FIPS."""
    goods: list[dict[str, Any]] = [
        {"endpoint_url": "http://localhost:4566"},
        {"proxy": "http://proxy.example:3128"},
        {"fips": True, "dualstack": True},
        {"endpoint_url": None, "sts_endpoint_url": "https://sts.example"},
    ]
    for good in goods:
        store.provider(**good)


def test_a_profile_is_for_sandbox(store: Store) -> None:
    """A service has a role."""
    with pytest.raises(ConfigError) as caught:
        store.provider(namespace=Namespace.PRODUCTION, profile="mine")
    assert caught.value.code == "WC209"


# Several sources


def test_twenty_sources_are_read_together(store: Store) -> None:
    """In parallel, each its own secret."""
    for number in range(20):
        store.put({f"extra_{number}": f"value-{number}"}, name=f"part/{number}")
    sources = [{"provider": "aws", **store.options(secret=f"part/{number}")} for number in range(20)]
    with pytest.raises(LoadError) as caught:
        wise_creds.load("sandbox", config={"sandbox": {"source": sources, "deadline": 60}})
    assert {error.code for error in caught.value.errors} == {"WC401"}


def test_parts_come_from_one_point_in_time(store: Store, mock_wise: MockWise, monkeypatch: pytest.MonkeyPatch) -> None:
    """A secret that moves while another is read is read again."""
    names = ("client_id", "certificate", "private_key", "ca_bundle", "environment")
    store.put({"client_secret": "before"}, name="part/secret")
    store.put({name: (mock_wise.directory / name).read_text() for name in names}, name="part/rest")
    real, moves = AwsProvider.fetch, [1]

    def moving(self: AwsProvider, **arguments: Any) -> SecretDocument:
        document = real(self, **arguments)
        if "client_secret" in document.fields and moves[0]:
            moves[0] -= 1
            store.put({"client_secret": "after"}, name="part/secret")
        return document

    monkeypatch.setattr(AwsProvider, "fetch", moving)
    sources = [{"provider": "aws", **store.options(secret=f"part/{part}")} for part in ("secret", "rest")]
    table = {"source": sources, "base_url": mock_wise.base_url, "deadline": 30}
    loaded = wise_creds.load("sandbox", config={"sandbox": table})
    assert loaded.client_secret is not None
    assert (loaded.client_secret.reveal(), moves) == ("after", [0])
    moves[0] = 100
    with pytest.raises(LoadError) as caught:
        wise_creds.load("sandbox", config={"sandbox": table})
    assert (caught.value.code, caught.value.retryable) == ("WC314", True)


# Leaks


def test_nothing_is_logged_or_keyed_or_sent_elsewhere(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str], mock_wise: MockWise,
) -> None:  # fmt: skip
    """DEBUG everywhere, http.client's output on, every variable of the environment set against us."""
    import http.client

    names = ("client_id", "client_secret", "certificate", "private_key", "ca_bundle", "environment")
    store.put({name: (mock_wise.directory / name).read_text() for name in names})
    store.client.get_secret_value(SecretId="wise/sandbox")
    sunk: list[bytes] = []
    with tcp_server(lambda connection: sunk.append(connection.recv(65_536))) as sink:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_SECRETS_MANAGER"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{sink}")
        monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "nothing.pem"))
        monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys.log"))
        monkeypatch.setattr(http.client.HTTPConnection, "debuglevel", 1)
        caplog.set_level(logging.DEBUG)
        boto3.set_stream_logger("")
        try:
            wise_creds.load(
                "sandbox", config={"sandbox": {**store.options(), "provider": "aws", "base_url": mock_wise.base_url}}
            )
        finally:
            for handler in logging.getLogger("").handlers[:]:
                if type(handler) is logging.StreamHandler:
                    logging.getLogger("").removeHandler(handler)
    out, err = capfd.readouterr()
    canaries = {"id": mock_wise.client_id, "secret": mock_wise.client_secret, "aws": KEY}
    assert leaks(canaries, out, err, caplog.text, *sunk) == []
    # OpenSSL's own comment is in the file as soon as botocore names it; a key never is.
    assert (sunk, (tmp_path / "keys.log").read_text().splitlines()[1:]) == ([], [])


def test_the_control_leaks(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    """The naive call, seen by the same detector."""
    store.put()
    caplog.set_level(logging.DEBUG)
    store.client.get_secret_value(SecretId="wise/sandbox")
    assert leaks({"secret": FIELDS["client_secret"]}, caplog.text) == ["secret"]


def test_the_key_log_is_off_in_every_context(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also in those that a proxy gets; botocore's own are the control."""
    from botocore.httpsession import URLLib3Session

    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys.log"))
    naive: Any = URLLib3Session()
    assert naive._manager.connection_pool_kw["ssl_context"].keylog_filename is not None
    http = store.provider(proxy="http://127.0.0.1:9")._client(soon())._endpoint.http_session
    manager = http._get_proxy_manager("http://127.0.0.1:9")
    for kept in (http._manager, manager):
        assert kept.connection_pool_kw["ssl_context"].keylog_filename is None
        assert {pool.ConnectionCls.debuglevel for pool in kept.pool_classes_by_scheme.values()} == {0}


# Staging


def changed(value: str = "canary-new-secret") -> dict[str, Secret]:
    return {"client_secret": Secret(value)}


def test_a_new_secret_is_staged_beside_the_current_one(store: Store) -> None:
    """Under our own label; what is not given is kept; the current version does not move."""
    assert isinstance(store.provider(), Staging)
    current = store.put({**FIELDS, "nested": {"n": 1}})
    provider = store.provider()
    assert provider.fetch_staged(deadline=soon()) is None
    staged = provider.stage(changed(), deadline=soon())
    assert store.labels() == {current: ["AWSCURRENT"], staged: [STAGED]}
    assert store.value(staged) == {**FIELDS, "client_secret": "canary-new-secret", "nested": {"n": 1}}
    document = provider.fetch_staged(deadline=soon())
    assert document is not None
    assert (document.version, document.fields["client_secret"].reveal()) == (staged, "canary-new-secret")


def test_staging_the_same_again_is_a_no_op_and_more_is_added(store: Store) -> None:
    """A repeated step makes no version; a second field joins the first."""
    store.put()
    provider = store.provider()
    first = provider.stage(changed(), deadline=soon())
    assert provider.stage(changed(), deadline=soon()) == first
    second = provider.stage({"client_id": Secret("canary-new-id")}, deadline=soon())
    assert store.value(second) == {"client_id": "canary-new-id", "client_secret": "canary-new-secret"}
    assert store.holder(STAGED) == second


def test_promote_moves_the_label_and_takes_ours_away(store: Store) -> None:
    """And done again it changes nothing."""
    old = store.put()
    provider = store.provider()
    new = provider.stage(changed(), deadline=soon())
    for _ in range(2):
        provider.promote(old, deadline=soon())
        assert store.labels() == {new: ["AWSCURRENT"], old: ["AWSPREVIOUS"]}
    assert provider.probe(deadline=soon()) == new


def test_a_crash_between_the_two_calls_of_promote_is_recovered(store: Store) -> None:
    """By repeating it."""
    old = store.put()
    provider = store.provider()
    new = provider.stage(changed(), deadline=soon())
    store.client.update_secret_version_stage(
        SecretId="wise/sandbox", VersionStage="AWSCURRENT", MoveToVersionId=new, RemoveFromVersionId=old
    )
    provider.promote(old, deadline=soon())
    assert store.labels() == {new: ["AWSCURRENT"], old: ["AWSPREVIOUS"]}


def test_promote_is_compare_and_set(store: Store) -> None:
    """Whoever comes second is told; the current version stays whole."""
    old = store.put()
    provider = store.provider()
    provider.stage(changed(), deadline=soon())
    other = store.put({"client_id": "x", "client_secret": "other"})
    with pytest.raises(RotationError) as caught:
        provider.promote(old, deadline=soon())
    assert (caught.value.code, store.holder("AWSCURRENT")) == ("WC702", other)


@pytest.mark.parametrize("won", [True, False])
def test_a_refused_move_is_looked_at_again(store: Store, monkeypatch: pytest.MonkeyPatch, won: bool) -> None:
    """It may have been won by an attempt whose answer was lost; else somebody was faster."""
    old = store.put()
    provider = store.provider()
    new = provider.stage(changed(), deadline=soon())
    real = AwsProvider._call

    def twice(self: AwsProvider, client: Any, method: str, action: str, **arguments: Any) -> dict[str, Any]:
        if arguments.get("VersionStage") == "AWSCURRENT":
            if won:
                real(self, client, method, action, **arguments)
            else:
                store.put({"client_id": "x", "client_secret": "other"})
        return real(self, client, method, action, **arguments)

    monkeypatch.setattr(AwsProvider, "_call", twice)
    if won:
        provider.promote(old, deadline=soon())
        assert store.holder("AWSCURRENT") == new
    else:
        with pytest.raises(RotationError) as caught:
            provider.promote(old, deadline=soon())
        assert caught.value.code == "WC702"


def test_a_move_into_another_account_is_its_own_error(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not every refusal is a lost race."""
    old = store.put()
    provider = store.provider()
    provider.stage(changed(), deadline=soon())
    real = AwsProvider._call

    def elsewhere(self: AwsProvider, client: Any, method: str, action: str, **arguments: Any) -> dict[str, Any]:
        if arguments.get("VersionStage") == "AWSCURRENT":
            raise ConfigError("another account", code="WC328")
        return real(self, client, method, action, **arguments)

    monkeypatch.setattr(AwsProvider, "_call", elsewhere)
    with pytest.raises(ConfigError) as caught:
        provider.promote(old, deadline=soon())
    assert caught.value.code == "WC328"


def test_rollback_makes_the_previous_version_current_once(store: Store) -> None:
    """Repeating it does not swing back; a promotion of somebody else's is not taken for it."""
    old = store.put()
    store.age(old, 60)
    provider = store.provider()
    new = provider.stage(changed(), deadline=soon())
    provider.promote(old, deadline=soon())
    for _ in range(2):
        provider.rollback(new, deadline=soon())
        assert (store.holder("AWSCURRENT"), store.holder("AWSPREVIOUS")) == (old, new)
    store.age(new, 30)
    other = store.put({"client_id": "x", "client_secret": "other"})
    with pytest.raises(RotationError) as caught:
        provider.rollback(old, deadline=soon())
    assert (caught.value.code, store.holder("AWSCURRENT")) == ("WC702", other)


def test_nothing_to_do_is_told(store: Store) -> None:
    """Nothing staged, nothing before; discard is content with that."""
    old = store.put()
    provider = store.provider()
    with pytest.raises(RotationError) as staged:
        provider.promote(old, deadline=soon())
    with pytest.raises(RotationError) as previous:
        provider.rollback(old, deadline=soon())
    provider.discard(deadline=soon())
    provider.stage(changed(), deadline=soon())
    provider.discard(deadline=soon())
    assert (staged.value.code, previous.value.code, store.holder(STAGED)) == ("WC701", "WC703", None)


def test_a_rollback_that_never_had_a_current_version_is_refused(store: Store) -> None:
    """No dates to compare, so no guess."""
    assert store.provider()._newer(None, None, "x") is False


def test_other_forms_of_secrets_are_staged_in_their_form(store: Store) -> None:
    """One plain value, bytes, nested and renamed keys."""
    store.put("plain")
    plain = store.provider(field="client_secret")
    version = plain.stage(changed(), deadline=soon())
    assert (
        store.client.get_secret_value(SecretId="wise/sandbox", VersionId=version)["SecretString"] == "canary-new-secret"
    )
    with pytest.raises(RotationError) as caught:
        plain.stage({"certificate": Secret("x")}, deadline=soon())
    assert caught.value.code == "WC704"
    store.client.create_secret(Name="p12", SecretBinary=b"\xff")
    binary = store.provider(secret="p12")
    version = binary.stage({"pkcs12": Secret(b"\xfe")}, deadline=soon())
    assert store.client.get_secret_value(SecretId="p12", VersionId=version)["SecretBinary"] == b"\xfe"
    store.put({"wise": {"id": "1", "secret": "2"}}, name="nested")
    nested = store.provider(secret="nested", fields={"client_secret": "wise.secret", "new": "a.b"})
    version = nested.stage(changed() | {"new": Secret("x")}, deadline=soon())
    found = store.client.get_secret_value(SecretId="nested", VersionId=version)["SecretString"]
    assert json.loads(found) == {"wise": {"id": "1", "secret": "canary-new-secret"}, "a.b": "x"}


def test_a_secret_without_any_value_cannot_be_staged(store: Store) -> None:
    """There is nothing to keep from."""
    store.client.create_secret(Name="empty")
    with pytest.raises(SecretNotFoundError) as caught:
        store.provider(secret="empty").stage(changed(), deadline=soon())
    assert caught.value.code == "WC321"


def test_our_label_is_never_awspending(store: Store) -> None:
    """AWS refuses RotateSecret while AWSPENDING sits on another version; moto does not, so only this holds it."""
    store.put()
    store.provider().stage(changed(), deadline=soon())
    assert (STAGED, store.holder("AWSPENDING")) == ("WISE_STAGED", None)


def test_what_was_staged_before_the_current_version_is_never_promoted_and_not_built_upon(store: Store) -> None:
    """It would undo what came in between; only `discard` takes it away."""
    store.put()
    provider = store.provider()
    staged = provider.stage(changed(), deadline=soon())
    store.age(staged, 60)
    current = store.put({"client_id": "x", "client_secret": "other"})
    for step in (
        lambda: provider.promote(current, deadline=soon()),
        lambda: provider.stage({"client_id": Secret("y")}, deadline=soon()),
    ):
        with pytest.raises(RotationError, match="WC750"):
            step()
    assert (store.holder("AWSCURRENT"), store.holder(STAGED)) == (current, staged)
    provider.discard(deadline=soon())
    provider.stage(changed(), deadline=soon())
    provider.promote(current, deadline=soon())
    assert store.value(store.holder("AWSCURRENT") or "") == {"client_id": "x", "client_secret": "canary-new-secret"}


def before(monkeypatch: pytest.MonkeyPatch, method: str, then: Callable[[], object], **arguments: object) -> None:
    """Let something happen once just before the provider makes a call."""
    real = AwsProvider._call
    left = [then]

    def intruded(self: AwsProvider, client: Any, called: str, action: str, **given: Any) -> dict[str, Any]:
        if called == method and arguments.items() <= given.items() and left:
            left.pop()()
        return real(self, client, called, action, **given)

    monkeypatch.setattr(AwsProvider, "_call", intruded)


def test_staging_over_a_current_version_that_moves_meanwhile_is_refused(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The copy would be of the old one; its label goes."""
    store.put()
    before(monkeypatch, "put_secret_value", lambda: store.put({"client_id": "x", "client_secret": "other"}))
    with pytest.raises(RotationError, match="WC702"):
        store.provider().stage(changed(), deadline=soon())
    assert store.holder(STAGED) is None


def test_of_two_operators_who_stage_at_once_the_second_is_refused(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`PutSecretValue` with our label would take it from the first, whose version AWS might delete then.

    AWS refuses the move also where nothing was staged before; moto does not.
    """
    store.put()
    store.provider().stage({"client_id": Secret("first")}, deadline=soon())
    first: list[str] = []

    def other() -> None:
        first.append(store.provider().stage(changed("canary-of-the-other"), deadline=soon()))

    before(monkeypatch, "put_secret_value", other)
    with pytest.raises(RotationError, match="WC702"):
        store.provider().stage(changed(), deadline=soon())
    assert [store.holder(STAGED)] == first
    assert sum(len(labels) for labels in store.labels().values()) == 2


def test_labels_of_a_killed_run_are_swept(store: Store) -> None:
    """They would keep their versions for good."""
    store.put()
    store.client.put_secret_value(SecretId="wise/sandbox", SecretString="{}", VersionStages=["WISE_STAGED_0badcafe"])
    store.provider().stage(changed(), deadline=soon())
    assert store.holder("WISE_STAGED_0badcafe") is None


def test_only_what_was_looked_at_is_promoted(store: Store) -> None:
    """Another operator's pending version was not checked; and his promotion is not ours."""
    old = store.put()
    mine, other = store.provider(), store.provider()
    mine.stage(changed("canary-tested"), deadline=soon())
    other.stage(changed("canary-untested"), deadline=soon())
    with pytest.raises(RotationError, match="WC702"):
        mine.promote(old, deadline=soon())
    other.promote(old, deadline=soon())
    with pytest.raises(RotationError, match="WC701"):
        mine.promote(old, deadline=soon())
    assert store.provider().fetch_staged(deadline=soon()) is None


@pytest.mark.parametrize("step", ["promote", "discard"])
def test_a_label_that_is_gone_already_is_no_error(store: Store, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """Taken away by somebody else, or by an attempt whose answer was lost."""
    old = store.put()
    provider = store.provider()
    new = provider.stage(changed(), deadline=soon())

    def gone() -> None:
        store.client.update_secret_version_stage(SecretId="wise/sandbox", VersionStage=STAGED, RemoveFromVersionId=new)

    before(monkeypatch, "update_secret_version_stage", gone, VersionStage=STAGED)
    provider.promote(old, deadline=soon()) if step == "promote" else provider.discard(deadline=soon())
    assert store.holder("AWSCURRENT") == (new if step == "promote" else old)


@pytest.mark.parametrize("step", ["stage", "discard"])
def test_a_move_of_our_label_that_is_refused_for_another_reason_is_told(
    store: Store, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Not every refusal is a lost race."""
    store.put()
    provider = store.provider()
    provider.stage({"client_id": Secret("first")}, deadline=soon())

    def elsewhere() -> None:
        raise ConfigError("another account", code="WC328")

    before(monkeypatch, "update_secret_version_stage", elsewhere, VersionStage=STAGED)
    with pytest.raises(ConfigError, match="WC328"):
        provider.stage(changed(), deadline=soon()) if step == "stage" else provider.discard(deadline=soon())


@pytest.mark.parametrize("changes", [{"version_id": "x" * 32}, {"stage": "AWSPREVIOUS"}])
def test_a_pinned_source_cannot_be_rotated(store: Store, changes: dict[str, Any]) -> None:
    """It would go on reading the old version."""
    store.put()
    provider = store.provider(**changes)
    for step in (
        lambda: provider.stage(changed(), deadline=soon()),
        lambda: provider.fetch_staged(deadline=soon()),
        lambda: provider.promote("x", deadline=soon()),
        lambda: provider.rollback("x", deadline=soon()),
        lambda: provider.discard(deadline=soon()),
    ):
        with pytest.raises(RotationError, match="WC705"):
            step()


# What a review found


def test_a_secret_marked_for_deletion_is_no_healthy_one(store: Store) -> None:
    """Its labels are still there; its values are not."""
    store.put()
    provider = store.provider()
    store.client.delete_secret(SecretId="wise/sandbox", RecoveryWindowInDays=7)
    with pytest.raises(SecretNotFoundError, match="WC322"):
        provider.probe(deadline=soon())


@pytest.mark.parametrize(
    ("code", "message", "expected"),
    [
        ("AccessDeniedException", "not authorized to perform: secretsmanager:DescribeSecret on wise/kms-test", "WC302"),
        ("AccessDeniedException", "Access to KMS is not allowed", "WC323"),
        ("AccessDeniedException", "not authorized to perform: kms:Decrypt", "WC323"),
        ("InvalidParameterException", "the staging label AWSCURRENT of undeletable is on another version", "WC334"),
        ("InvalidRequestException", "You can't perform this operation: secret was marked for deletion", "WC322"),
        ("ValidationError", "the role session name is too long", "WC334"),
        ("IDPCommunicationError", "try again", "WC303"),
    ],
)
def test_names_in_a_text_do_not_decide(code: str, message: str, expected: str) -> None:
    """Only whole phrases of AWS do."""
    problem = translated(ClientError({"Error": {"Code": code, "Message": message}}, "x"), action="a", place="p")
    assert (problem and problem.code) == expected


@pytest.mark.parametrize(
    "answer",
    [
        (200, b"<html>a login page</html>"),
        (404, b"<html>not found</html>"),
        (200, b"<AssumeRoleResponse><AssumeRoleResult/></AssumeRoleResponse>"),
        (200, b"no xml"),
    ],
)
def test_what_is_no_answer_of_sts_is_named_so(store: Store, answer: tuple[int, bytes]) -> None:
    """A wrong `sts_endpoint_url`."""
    with tcp_server(answering(*answer)) as port, pytest.raises(WiseCredsError) as caught:
        fetched(store.provider(role_arn=f"arn:aws:iam::{ACCOUNT}:role/reader",
                               sts_endpoint_url=f"http://127.0.0.1:{port}"))  # fmt: skip
    assert caught.value.code == "WC336"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"external_id": "x"}, "WC104"),
        ({"role_arn": []}, "WC104"),
        ({"proxy": "http://:pw@proxy:3128"}, "WC204"),
        ({"endpoint_url": "https://host:99999"}, "WC204"),
        ({"stage": ""}, "string_too_short"),
        ({"version_id": ""}, "string_too_short"),
    ],
)
def test_options_without_effect_or_with_a_password_are_refused(changes: dict[str, Any], code: str) -> None:
    """A dropped `role_arn` would read with the base identity."""
    with pytest.raises(ValidationError) as caught:
        AwsOptions.model_validate({"secret": "wise/sandbox", **changes}, context={"base": "."})
    assert code in [(one.get("ctx") or {}).get("code") or one["type"] for one in caught.value.errors()]


def test_the_region_may_come_from_aws_region(store: Store) -> None:
    """As containers and Lambda name it; boto3 itself reads only `$AWS_DEFAULT_REGION`."""
    store.put()
    options = {name: value for name, value in store.options().items() if name != "region"}
    chosen = AwsOptions.model_validate(options, context={"base": "."})
    provider = AwsProvider(chosen, namespace=Namespace.SANDBOX, environ={"AWS_REGION": REGION}, clock=SYSTEM_CLOCK)
    assert fetched(provider).location == f"aws:{REGION}:{ACCOUNT}:wise/sandbox"


def test_the_clients_that_get_an_identity_are_as_quiet_as_the_others(
    store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A pod's token goes where the options say, and nowhere else; boto3 by itself sends it where the environment says."""
    import http.client

    store.put()
    (tmp_path / "jwt").write_text("canary-web-identity-token")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "jwt"))
    monkeypatch.setenv("AWS_ROLE_ARN", f"arn:aws:iam::{ACCOUNT}:role/pod")
    monkeypatch.setattr(http.client.HTTPConnection, "debuglevel", 1)
    canary = {"jwt": "canary-web-identity-token"}
    arrived: list[bytes] = []
    with tcp_server(answering(200, b"<x/>", then=arrived.append)) as port:
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", f"http://127.0.0.1:{port}")
        with pytest.raises(Exception):  # noqa: B017  whatever comes of that answer
            boto3.Session().client("secretsmanager", region_name=REGION).get_secret_value(SecretId="x")
        assert leaks(canary, *arrived) == leaks(canary, capfd.readouterr().out) == ["jwt"]
        arrived.clear()
        document = fetched(store.provider(sts_endpoint_url=store.endpoint))
    assert (document.fields["client_secret"].reveal(), arrived) == (FIELDS["client_secret"], [])
    assert leaks(canary, *capfd.readouterr()) == []
