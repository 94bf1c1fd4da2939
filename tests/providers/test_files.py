"""The provider `files`: every layout, every kind of bad file, every mode."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from support import leaks, write_fields

from wise_creds import (
    AccessDeniedError,
    CredentialsError,
    Namespace,
    ProviderUnavailableError,
    SecretDocument,
    SecretNotFoundError,
    WiseCredsError,
)
from wise_creds.clock import SYSTEM_CLOCK
from wise_creds.testing import ProviderContract
from wise_creds_files import FilesProvider, _reading

S, P = Namespace.SANDBOX, Namespace.PRODUCTION
FIELDS = {"client_id": "canary-client-id", "client_secret": "canary-secret-1a2b"}


class TestDirectoryContract(ProviderContract):
    """A plain directory."""

    provider_class = FilesProvider

    @pytest.fixture(autouse=True)
    def _store(self, tmp_path: Path) -> None:
        self.path = tmp_path / "store"

    def options(self, values: dict[str, str]) -> dict[str, Any]:
        self.change(values)
        return {"directory": self.path}

    def change(self, values: dict[str, str]) -> None:
        write_fields(self.path, values)

    def absent(self) -> dict[str, Any]:
        return {"directory": self.path / "nowhere"}


class TestDocumentContract(TestDirectoryContract):
    """One JSON document."""

    def options(self, values: dict[str, str]) -> dict[str, Any]:
        self.change(values)
        return {"file": self.path / "s.json"}

    def change(self, values: dict[str, str]) -> None:
        write_fields(self.path, {"s.json": json.dumps(values)})

    def absent(self) -> dict[str, Any]:
        return {"file": self.path / "nowhere.json"}


class TestKubernetesContract(TestDirectoryContract):
    """The kubelet's layout, changed as the kubelet does it."""

    def change(self, values: dict[str, str]) -> None:
        kubelet(self.path, values)


def kubelet(directory: Path, values: dict[str, str]) -> None:
    """Write a new snapshot and swap the link."""
    snapshot = write_fields(directory / f"..{os.urandom(4).hex()}", values)
    for name in values:
        (snapshot / name).chmod(0o644)
        if not (directory / name).is_symlink():
            (directory / name).symlink_to(f"..data/{name}")
    link = directory / "..data_tmp"
    link.symlink_to(snapshot.name)
    link.rename(directory / "..data")


def fetch(namespace: Namespace = S, environ: dict[str, str] | None = None, **options: Any) -> SecretDocument:
    chosen = FilesProvider.Options.model_validate(options, context={"base": "."})
    provider = FilesProvider(chosen, namespace=namespace, environ=environ or {}, clock=SYSTEM_CLOCK)
    return provider.fetch(deadline=SYSTEM_CLOCK.boot() + 10)


def _values(document: SecretDocument) -> dict[str, str]:
    return {name: value.reveal() for name, value in document.fields.items()}


def test_only_what_looks_like_a_field_is_read(tmp_path: Path) -> None:
    """Canonical names, and further ones of small letters; the rest is left alone."""
    write_fields(tmp_path, {**FIELDS, "jws_kid": "k", "README.md": "x", ".hidden": "x", "UPPER": "x"})
    (tmp_path / "subdir").mkdir()
    os.mkfifo(tmp_path / "pipe")
    assert _values(fetch(directory=tmp_path)) == {**FIELDS, "jws_kid": "k"}


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        (b"v\n", b"v"),
        (b"v\r\n", b"v"),
        (b"v\n\n", b"v\n"),
        (b"v ", b"v "),
        (b"", b""),
        (b"\n", b""),
        (b"v\r", b"v\r"),
    ],
)
def test_exactly_one_line_end_is_stripped(tmp_path: Path, raw: bytes, value: bytes) -> None:
    """A secret may end in anything else."""
    write_fields(tmp_path, {"client_secret": raw, "pkcs12": raw})
    fields = fetch(directory=tmp_path).fields
    assert (fields["client_secret"].reveal_bytes(), fields["pkcs12"].reveal_bytes()) == (value, raw)


def test_fields_name_files_and_then_only_those_are_read(tmp_path: Path) -> None:
    """Two may name one file: a combined PEM."""
    write_fields(tmp_path / "sub", {"both.pem": "PEM"})
    write_fields(tmp_path, FIELDS)
    named = {"certificate": "sub/both.pem", "private_key": "sub/both.pem"}
    assert _values(fetch(directory=tmp_path, fields=named)) == {"certificate": "PEM", "private_key": "PEM"}


def test_only_the_present_version_can_be_had(tmp_path: Path) -> None:
    """Files keep no other."""
    write_fields(tmp_path, FIELDS)
    provider = FilesProvider(FilesProvider.Options(directory=tmp_path), namespace=S, environ={}, clock=SYSTEM_CLOCK)
    deadline = SYSTEM_CLOCK.boot() + 10
    version = provider.fetch(deadline=deadline).version
    assert provider.fetch(deadline=deadline, version=version).version == version
    with pytest.raises(SecretNotFoundError):
        provider.fetch(deadline=deadline, version="another")


def test_the_names_seen_go_with_the_document(tmp_path: Path) -> None:
    """So that a likely spelling can be suggested."""
    write_fields(tmp_path, {"tls.crt": "x", "client_id": "y"})
    assert fetch(directory=tmp_path).names == ("client_id", "tls.crt")


def test_json_and_toml_documents_are_read(tmp_path: Path) -> None:
    """Names as they are, renamed, with a dot, or nested."""
    content = {
        "clientId": "a",
        "mtls.key": "b",
        "mtls": {"crt": "c"},
        "client_secret": "d",
        "number": 5,
        "none": None,
    }
    write_fields(tmp_path, {"s.json": json.dumps(content), "s.toml": '"client_secret" = "d"\n'})
    renamed = {"client_id": "clientId", "private_key": "mtls.key", "certificate": "mtls.crt", "ca_bundle": "no.where"}
    assert _values(fetch(file=tmp_path / "s.json", fields=renamed)) == {
        "client_id": "a", "private_key": "b", "certificate": "c", "client_secret": "d",
    }  # fmt: skip
    assert _values(fetch(file=tmp_path / "s.toml")) == {"client_secret": "d"}


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        ("s.json", b"[]", "WC310"),
        ("s.json", b'"text"', "WC310"),
        ("s.json", b'{"client_id": 5}', "WC310"),
        ("s.json", b'{"client_id": {"a": 1}}', "WC310"),
        ("s.json", b'{"a": "1", "a": "2"}', "WC310"),
        ("s.json", b'{"a": ', "WC309"),
        ("s.json", b"\xff\xfe", "WC309"),
        ("s.json", b"", "WC309"),
        ("s.json", b"[" * 60_000, "WC309"),
        ("s.toml", b"a = ", "WC309"),
        ("s.json", b"{" + b" " * 65_536, "WC308"),
    ],
)
def test_a_document_of_another_shape_is_refused(tmp_path: Path, name: str, content: bytes, code: str) -> None:
    """With the place, without the content."""
    write_fields(tmp_path, {name: content})
    with pytest.raises(CredentialsError) as caught:
        fetch(file=tmp_path / name)
    assert caught.value.code == code
    assert name in (caught.value.location or "")


@pytest.mark.parametrize(
    "options",
    [
        {}, {"directory": "a", "file": "b.json"}, {"file": "a.yaml"}, {"directory": "a", "colour": 1},
        {"directory": "a", "fields": {"client_id": "../x"}}, {"directory": "a", "fields": {"client_id": "/x"}},
        {"directory": "a", "fields": {"client_id": ""}}, {"directory": "a", "allow_readable_by": "me"},
    ],
)  # fmt: skip
def test_options_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    """Before any file is touched."""
    with pytest.raises(ValidationError):
        FilesProvider.Options.model_validate(options)


def test_relative_paths_start_at_the_given_folder() -> None:
    """Which is the configuration's."""
    options = FilesProvider.Options.model_validate({"directory": "a/../b"}, context={"base": "/etc/wise"})
    assert options.directory == Path("/etc/wise/b")


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _directory(path: Path) -> None:
    path.mkdir()


def _escaping(path: Path) -> None:
    outside = path.parent.parent / "outside"
    outside.write_text("canary-outside")
    path.symlink_to(outside)


def _dangling(path: Path) -> None:
    path.symlink_to("nothing")


def _device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def _large(path: Path) -> None:
    path.write_bytes(b"x" * 65_537)


def _loop(path: Path) -> None:
    path.symlink_to(path.name)


@pytest.mark.parametrize(
    ("make", "kind", "code"),
    [
        (_fifo, CredentialsError, "WC307"),
        (_directory, CredentialsError, "WC307"),
        (_escaping, AccessDeniedError, "WC306"),
        (_device, AccessDeniedError, "WC306"),
        (_dangling, SecretNotFoundError, "WC301"),
        (_large, CredentialsError, "WC308"),
        (_loop, ProviderUnavailableError, "WC303"),
    ],
)
def test_what_only_looks_like_a_secret_is_refused(
    tmp_path: Path, make: Any, kind: type[WiseCredsError], code: str
) -> None:
    """At once, whatever stands under a field's name."""
    directory = write_fields(tmp_path / "store", FIELDS)
    make(directory / "certificate")
    with pytest.raises(kind) as caught:
        fetch(directory=directory)
    assert (caught.value.code, caught.value.location) == (code, str(directory / "certificate"))
    assert leaks({**FIELDS, "outside": "canary-outside"}, str(caught.value)) == []


def test_an_unknown_file_that_cannot_be_a_field_is_left_out_with_a_warning(tmp_path: Path) -> None:
    """It may belong to somebody else."""
    write_fields(tmp_path, {**FIELDS, "dump": "x" * 65_537})
    document = fetch(directory=tmp_path)
    assert set(document.fields) == set(FIELDS)
    assert [(n.code, n.level, n.location) for n in document.notices] == [("WC312", "warning", str(tmp_path / "dump"))]


@pytest.mark.parametrize(("target", "code"), [("nowhere", "WC301"), ("file", "WC301")])
def test_a_directory_that_is_none_is_said(tmp_path: Path, target: str, code: str) -> None:
    """Missing, or a file."""
    (tmp_path / "file").touch()
    with pytest.raises(SecretNotFoundError) as caught:
        fetch(directory=tmp_path / target)
    assert caught.value.code == code


def test_a_file_that_may_not_be_read_names_who_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel's refusal, with the user and group of the process."""
    write_fields(tmp_path, FIELDS)

    def refuses(*_: object) -> int:
        raise PermissionError(13, "EACCES")

    monkeypatch.setattr(os, "open", refuses)
    with pytest.raises(AccessDeniedError) as caught:
        fetch(directory=tmp_path)
    assert (caught.value.code, f"user {os.geteuid()}" in (caught.value.hint or "")) == ("WC302", True)


def test_a_read_that_fails_half_way_is_unavailable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dying disk or mount."""
    path = write_fields(tmp_path, FIELDS) / "client_id"

    def fails(*_: object) -> bytes:
        raise OSError(5, "EIO")

    monkeypatch.setattr(os, "read", fails)
    with pytest.raises(ProviderUnavailableError) as caught:
        _reading.read(path)
    assert (caught.value.code, caught.value.retryable) == ("WC303", True)
    assert isinstance(_reading.denied(IsADirectoryError(), path), CredentialsError)


@pytest.mark.parametrize(
    ("mode", "namespace", "allowed", "expected"),
    [
        (0o600, P, None, []),
        (0o400, P, None, []),
        (0o644, P, None, "WC305"),
        (0o640, P, None, "WC305"),
        (0o640, P, "group", []),
        (0o644, P, "group", "WC305"),
        (0o644, P, "all", []),
        (0o644, S, None, ["warning"] * 2),
        (0o644, S, "all", []),
    ],
)
def test_others_access_is_an_error_in_production_and_a_warning_in_sandbox(
    tmp_path: Path, mode: int, namespace: Namespace, allowed: str | None, expected: Any
) -> None:
    """For files of our own."""
    for name in write_fields(tmp_path, FIELDS).iterdir():
        name.chmod(mode)
    options: dict[str, Any] = {"directory": tmp_path, **({"allow_readable_by": allowed} if allowed else {})}
    if isinstance(expected, str):
        with pytest.raises(AccessDeniedError) as caught:
            fetch(namespace, **options)
        assert caught.value.code == expected
    else:
        assert [notice.level for notice in fetch(namespace, **options).notices] == expected


def test_a_readable_document_is_judged_as_well(tmp_path: Path) -> None:
    """The same rule for one file."""
    path = write_fields(tmp_path, {"s.json": json.dumps(FIELDS)}) / "s.json"
    path.chmod(0o644)
    with pytest.raises(AccessDeniedError):
        fetch(P, file=path)


def test_managed_mounts_are_information_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kubelet's 0644, systemd's directory, and files that another user owns."""
    kubelet(tmp_path / "pod", FIELDS)
    for name in write_fields(tmp_path / "creds", FIELDS).iterdir():
        name.chmod(0o440)
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path / "creds")}
    levels = [notice.level for notice in fetch(P, directory=tmp_path / "pod").notices]
    levels += [notice.level for notice in fetch(P, environ, directory=tmp_path / "creds").notices]
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    levels += [notice.level for notice in fetch(P, directory=tmp_path / "creds").notices]
    assert levels == ["information"] * 6


def test_a_swap_during_the_read_is_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kubelet removes the old snapshot: the read begins anew, and both fields are of one version."""
    directory = tmp_path / "pod"
    kubelet(directory, {"client_id": "old-id", "client_secret": "old-secret"})
    real = os.open
    swapped: list[object] = []

    def swaps(path: Any, *args: Any, **kwargs: Any) -> int:
        if str(path).endswith("client_secret") and not swapped:
            swapped.append(path)
            old = directory / os.readlink(directory / "..data")  # noqa: PTH115
            kubelet(directory, {"client_id": "new-id", "client_secret": "new-secret"})
            for name in old.iterdir():
                name.unlink()
        return real(path, *args, **kwargs)

    monkeypatch.setattr(os, "open", swaps)
    assert _values(fetch(directory=directory)) == {"client_id": "new-id", "client_secret": "new-secret"}


def test_a_file_missing_from_the_present_snapshot_is_missing(tmp_path: Path) -> None:
    """No endless retry."""
    kubelet(tmp_path / "pod", FIELDS)
    with pytest.raises(SecretNotFoundError):
        fetch(directory=tmp_path / "pod", fields={"client_id": "nowhere"})


def test_a_snapshot_outside_the_directory_is_refused(tmp_path: Path) -> None:
    """`..data` may not lead elsewhere."""
    (tmp_path / "pod").mkdir()
    write_fields(tmp_path / "other", FIELDS)
    (tmp_path / "pod" / "..data").symlink_to("../other")
    with pytest.raises(AccessDeniedError) as caught:
        fetch(directory=tmp_path / "pod")
    assert caught.value.code == "WC306"


def test_a_link_inside_the_directory_is_fine(tmp_path: Path) -> None:
    """And so is a directory that is a link itself."""
    write_fields(tmp_path / "store", {"v2": "id"})
    (tmp_path / "store" / "client_id").symlink_to("v2")
    (tmp_path / "link").symlink_to("store")
    assert _values(fetch(directory=tmp_path / "link"))["client_id"] == "id"


def test_the_version_is_no_fingerprint_that_others_could_recompute(tmp_path: Path) -> None:
    """Its key stays in this process; field borders count."""
    import hashlib

    write_fields(tmp_path, FIELDS)
    version = fetch(directory=tmp_path).version
    plain = [hashlib.sha256(value.encode()).hexdigest()[:16] for value in FIELDS.values()]
    assert version not in plain
    write_fields(tmp_path, {"client_id": "ab", "client_secret": "c"})
    first = fetch(directory=tmp_path).version
    write_fields(tmp_path, {"client_id": "a", "client_secret": "bc"})
    assert fetch(directory=tmp_path).version != first
