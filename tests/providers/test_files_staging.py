"""The provider `files` as a store that rotates: every step, cut at every system call that changes the disk."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support import leaks, write_fields

import wise_creds
from wise_creds import Namespace, RotationError, Secret, SecretDocument, SecretNotFoundError, Staging
from wise_creds.clock import SYSTEM_CLOCK, Clock
from wise_creds.testing import FakeClock, ProviderContract
from wise_creds_files import FilesProvider, _layout

S, P = Namespace.SANDBOX, Namespace.PRODUCTION
OLD = {"client_id": "canary-client-id", "client_secret": "canary-secret-old"}
NEW = {"client_id": "canary-client-id", "client_secret": "canary-secret-new", "private_key_password": "canary-password"}
CHANGE = {"client_secret": "canary-secret-new", "private_key_password": "canary-password"}
SOON = SYSTEM_CLOCK.boot() + 600


class Operator:
    """One provider on one directory, spoken to in plain values."""

    def __init__(self, directory: Path, *, namespace: Namespace = S, clock: Clock = SYSTEM_CLOCK,
                 environ: dict[str, str] | None = None, file: Path | None = None, **options: Any) -> None:  # fmt: skip
        self.directory = directory
        place = {"directory": directory} if file is None else {"file": file}
        chosen = FilesProvider.Options.model_validate({**place, **options})
        self.provider = FilesProvider(chosen, namespace=namespace, environ=environ or {}, clock=clock)

    def stage(self, **fields: str | bytes) -> str:
        return content(self.provider.stage({name: Secret(value) for name, value in fields.items()}, deadline=SOON))

    def staged(self) -> dict[str, str] | None:
        document = self.provider.fetch_staged(deadline=SOON)
        return None if document is None else _values(document)

    def promote(self, expected: str) -> None:
        self.provider.promote(expected, deadline=SOON)

    def rollback(self, expected: str) -> None:
        self.provider.rollback(expected, deadline=SOON)

    def discard(self) -> None:
        self.provider.discard(deadline=SOON)

    def previous(self) -> str | None:
        previous = self.provider.previous(deadline=SOON)
        return None if previous is None else content(previous)

    def version(self) -> str:
        return content(self.provider.fetch(deadline=SOON).version)

    def values(self) -> dict[str, str]:
        return _values(self.provider.fetch(deadline=SOON))

    def rotate(self, **fields: str) -> str:
        """Stage and promote."""
        before = self.version()
        after = self.stage(**fields)
        self.promote(before)
        return after


def content(version: str) -> str:
    """Take the number off a version's name: a set of the same content may have another one."""
    return version.rpartition(".")[2]


def _values(document: SecretDocument) -> dict[str, str]:
    return {name: value.reveal() for name, value in document.fields.items()}


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A plain directory, in a folder of its own."""
    return write_fields(tmp_path / "safe" / "store", OLD)


def tree(directory: Path) -> dict[str, str]:
    """Everything in the folder above the directory: kind and mode, and the content or the target."""
    found = {}
    for path in sorted(directory.parent.rglob("*")):
        mode = f"{path.lstat().st_mode:o}"
        inside = str(path.readlink()) if path.is_symlink() else "" if path.is_dir() else path.read_text()
        found[str(path.relative_to(directory.parent))] = f"{mode} {inside}"
    return found


def refusal(call: Callable[..., object], *args: Any, **kwargs: Any) -> RotationError:
    """The error that a step ends in."""
    with pytest.raises(RotationError) as caught:
        call(*args, **kwargs)
    assert (bool(caught.value.hint), caught.value.__context__) == (True, None) or caught.value.__suppress_context__
    return caught.value


class TestContract(ProviderContract):
    """A directory whose every change is a rotation."""

    provider_class = FilesProvider

    @pytest.fixture(autouse=True)
    def _store(self, tmp_path: Path) -> None:
        self.path = tmp_path / "store"

    def options(self, values: dict[str, str]) -> dict[str, Any]:
        write_fields(self.path, dict.fromkeys(values, "before"))
        self.change(values)
        return {"directory": self.path}

    def change(self, values: dict[str, str]) -> None:
        Operator(self.path).rotate(**values)

    def absent(self) -> dict[str, Any]:
        return {"directory": self.path / "nowhere"}


def test_the_provider_can_stage() -> None:
    """By the protocol that the core asks for."""
    assert issubclass(FilesProvider, Staging)


def test_a_rotation_goes_from_stage_to_rollback_and_forward_again(store: Path) -> None:
    """Readers see the current set only; both the provider's and those that open one file."""
    operator = Operator(store)
    first = operator.version()
    assert (operator.staged(), operator.previous()) == (None, None)
    second = operator.stage(**CHANGE)
    assert (operator.values(), operator.staged(), second == first) == (OLD, NEW, False)
    operator.promote(first)
    assert (operator.values(), operator.version(), operator.previous()) == (NEW, second, first)
    assert {name: (store / name).read_text() for name in NEW} == NEW
    assert operator.staged() is None
    operator.rollback(second)
    assert (operator.values(), operator.previous()) == (OLD, None)
    assert not os.path.lexists(store / "private_key_password")
    operator.rollback(first)
    assert (operator.values(), operator.previous()) == (NEW, first)
    third = operator.rotate(client_secret="canary-secret-third")
    assert (operator.version(), operator.previous(), operator.staged()) == (third, second, None)


def test_on_the_disk_stands_the_kubelets_layout_for_its_owner_alone(store: Path) -> None:
    """0700 and 0600, relative links, and whatever the directory's own mode was before."""
    store.chmod(0o755)
    operator = Operator(store)
    operator.stage(**CHANGE)
    assert tree(store) == {
        "store": "40755 ",
        "store/..pending": "120777 ..v2",
        "store/..v2": "40700 ",
        **{f"store/..v2/{name}": f"100600 {value}" for name, value in NEW.items()},
        **{f"store/{name}": f"100600 {value}" for name, value in OLD.items()},
    }
    operator.promote(operator.version())
    assert tree(store) == {
        "store": "40700 ",
        "store/..data": "120777 ..v2",
        "store/..v1": "40700 ",
        **{f"store/..v1/{name}": f"100600 {value}" for name, value in OLD.items()},
        "store/..v2": "40700 ",
        "store/..v2/..previous": "120777 ../..v1",
        **{f"store/..v2/{name}": f"100600 {value}" for name, value in NEW.items()},
        **{f"store/{name}": f"120777 ..data/{name}" for name in NEW},
    }


def test_the_same_content_again_changes_nothing(store: Path) -> None:
    """Staged twice, promoted twice, rolled back twice, discarded twice."""
    operator = Operator(store)
    first = operator.version()
    steps: list[Callable[[], object]] = [
        lambda: operator.stage(**CHANGE),
        lambda: operator.promote(first),
        lambda: operator.rollback(operator.version() if operator.values() == NEW else second),
        lambda: operator.rollback(first),
        lambda: operator.stage(client_secret="canary-secret-third"),
        operator.discard,
    ]
    second = operator.stage(**CHANGE)
    for number, step in enumerate(steps):
        once, seen = step(), tree(store)
        assert (step(), tree(store)) == (once, seen), number


def test_what_is_not_given_is_kept_from_pending_else_from_current(store: Path) -> None:
    """So that secret and certificate can be staged one after the other."""
    operator = Operator(store)
    operator.stage(client_secret="canary-secret-new")
    operator.stage(private_key_password="canary-password")
    assert operator.staged() == NEW
    operator.discard()
    operator.stage(private_key_password="canary-password")
    assert operator.staged() == {**OLD, "private_key_password": "canary-password"}


def test_current_and_previous_are_kept_and_older_ones_removed(store: Path) -> None:
    """Also after a rollback, when the newest is the one to go."""
    operator = Operator(store)
    versions = [operator.version()] + [operator.rotate(client_secret=f"canary-secret-{n}") for n in range(3)]
    assert (operator.previous(), _sets(store)) == (versions[2], ["..v3", "..v4"])
    operator.rollback(versions[3])
    operator.rotate(client_secret="canary-secret-9")
    assert (operator.previous(), _sets(store)) == (versions[2], ["..v3", "..v5"])


def test_versions_are_numbered_for_people(store: Path) -> None:
    """What follows the number differs between processes."""
    provider = Operator(store).provider
    plain = provider.fetch(deadline=SOON).version
    staged = provider.stage({"client_secret": Secret("canary-secret-new")}, deadline=SOON)
    provider.promote(plain, deadline=SOON)
    current, previous = provider.fetch(deadline=SOON).version, provider.previous(deadline=SOON)
    assert (plain.startswith("v1."), staged, current, previous) == (True, current, f"v2.{content(staged)}", plain)


@pytest.mark.parametrize("rotated", [False, True])
def test_what_was_staged_before_a_file_was_written_by_hand_is_never_promoted(store: Path, rotated: bool) -> None:
    """It would undo that; only `discard` takes it away."""
    operator = Operator(store)
    if rotated:
        operator.rotate(client_secret="canary-secret-first")
    operator.stage(client_secret="canary-secret-new")
    by_hand = store / "..data" / "client_id" if rotated else store / "client_id"
    by_hand.write_text("canary-by-hand")
    while by_hand.stat().st_ctime_ns <= max(path.stat().st_ctime_ns for path in (store / "..pending").iterdir()):
        by_hand.write_text("canary-by-hand")  # the kernel's clock has ticks of some milliseconds
    codes = [refusal(operator.promote, operator.version()).code, refusal(operator.stage, client_id="x").code]
    assert (codes, operator.values()["client_id"]) == (["WC750", "WC750"], "canary-by-hand")
    operator.discard()
    operator.rotate(client_secret="canary-secret-new")
    assert (operator.values()["client_id"], operator.values()["client_secret"]) == (
        "canary-by-hand",
        "canary-secret-new",
    )


def test_after_a_promotion_that_was_killed_at_its_end_staging_goes_on(store: Path) -> None:
    """Current and pending are one set then, whose files were written one after the other: nothing is stale."""
    operator = Operator(store)
    operator.rotate(client_secret="canary-secret-first")
    current = (store / "..data").readlink()
    (store / "..pending").symlink_to(current)
    last = max((store / current).iterdir(), key=lambda path: path.stat().st_ctime_ns)
    while last.stat().st_ctime_ns <= min(path.stat().st_ctime_ns for path in (store / current).iterdir()):
        last.chmod(0o600)
    operator.rotate(client_secret="canary-secret-second")
    assert operator.values()["client_secret"] == "canary-secret-second"


def test_only_what_was_looked_at_is_promoted(store: Path) -> None:
    """Another operator's pending set was not checked."""
    mine, other = Operator(store), Operator(store)
    first = mine.version()
    mine.stage(client_secret="canary-secret-tested")
    other.stage(client_secret="canary-secret-untested")
    assert refusal(mine.promote, first).code == "WC702"
    assert mine.staged() is not None
    mine.promote(first)
    assert mine.values()["client_secret"] == "canary-secret-untested"


def _sets(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir() if path.name.startswith("..v"))


def test_a_discarded_set_is_gone_from_the_disk(store: Path) -> None:
    """Nothing of it stays, and promote has nothing to do."""
    operator = Operator(store)
    before = tree(store)
    operator.stage(**CHANGE)
    operator.discard()
    assert (tree(store), refusal(operator.promote, operator.version()).code) == (before, "WC701")


def test_a_step_that_does_not_fit_the_state_is_refused(store: Path) -> None:
    """Nothing staged, no previous version, another current one; and nothing is changed by it."""
    operator = Operator(store)
    first = operator.version()
    assert refusal(operator.rollback, first).code == "WC703"
    second = operator.rotate(**CHANGE)
    operator.stage(client_secret="canary-secret-third")
    before = tree(store)
    assert [refusal(operator.promote, first).code, refusal(operator.promote, "another").code] == ["WC702"] * 2
    # A promote by somebody else is not a rollback of ours, although the expected version is the previous one now.
    assert [refusal(operator.rollback, first).code, refusal(operator.rollback, "another").code] == ["WC702"] * 2
    assert tree(store) == before
    operator.discard()
    operator.rollback(second)
    assert refusal(operator.promote, second).code == "WC701"


def test_unknown_files_are_copied_along_unchanged(store: Path) -> None:
    """With folders, links inside, any size; the layout's own names excepted."""
    write_fields(store, {"README.md": "for people\n", "dump": "x" * 70_000, ".hidden": "h"})
    write_fields(store / "sub", {"both.pem": "PEM", "..odd": "o"})
    (store / "linked").symlink_to("sub/both.pem")
    operator = Operator(store)
    operator.rotate(**CHANGE)
    expected = {"README.md": "for people\n", "dump": "x" * 70_000, ".hidden": "h", "sub/both.pem": "PEM",
                "sub/..odd": "o", "linked": "PEM"}  # fmt: skip
    assert {name: (store / name).read_text() for name in expected} == expected


@pytest.mark.parametrize(
    ("before", "value", "after"),
    [
        (b"v", b"w", b"w"), (b"v\n", b"w", b"w\n"), (b"v\r\n", b"w", b"w\r\n"), (b"v\n\n", b"w", b"w\n"),
        (None, b"w", b"w"), (b"v", b"w\n", b"w\n\n"), (b"v\n", b"w\n", b"w\n\n"), (b"v\n", b"w\r", b"w\r\r\n"),
        (b"v", b"", b""),
    ],
)  # fmt: skip
def test_a_value_reads_as_given_and_the_file_keeps_its_line_end(
    store: Path, before: bytes | None, value: bytes, after: bytes
) -> None:
    """Whatever either ends in; a PKCS#12 is written as it is."""
    write_fields(store, {} if before is None else {"ca_bundle": before, "pkcs12": before})
    operator = Operator(store)
    operator.stage(ca_bundle=value, pkcs12=value)
    document = operator.provider.fetch_staged(deadline=SOON)
    assert document is not None
    assert [document.fields[name].reveal_bytes() for name in ("ca_bundle", "pkcs12")] == [value, value]
    assert [(store / "..v2" / name).read_bytes() for name in ("ca_bundle", "pkcs12")] == [after, value]


def test_renamed_fields_are_written_to_their_files(store: Path) -> None:
    """Also inside a folder."""
    write_fields(store / "tls", {"tls.crt": "CERT\n"})
    operator = Operator(store, fields={"certificate": "tls/tls.crt", "client_id": "client_id"})
    operator.rotate(certificate="OTHER")
    assert operator.values() == {"certificate": "OTHER", "client_id": OLD["client_id"]}
    assert (store / "tls" / "tls.crt").read_text() == "OTHER\n"


@pytest.mark.parametrize(
    ("field", "fields", "code"),
    [
        ("certificate", {"client_id": "client_id"}, "WC704"),
        ("../x", None, "WC704"),
        ("README.md", None, "WC704"),
        ("certificate", {"certificate": "both.pem", "private_key": "./both.pem"}, "WC705"),
        ("certificate", {"certificate": "..data/tls.crt"}, "WC705"),
    ],
)
def test_a_field_without_a_file_of_its_own_is_refused(
    store: Path, field: str, fields: dict[str, str] | None, code: str
) -> None:
    """It is not the source's, or it shares its file with another."""
    options: dict[str, Any] = {"fields": fields} if fields else {}
    operator = Operator(store, **options)
    before = tree(store)
    assert (refusal(operator.stage, **{field: "canary-value"}).code, tree(store)) == (code, before)


def _document(store: Path) -> Operator:
    write_fields(store, {"s.json": "{}"})
    return Operator(store, file=store / "s.json")


def _shared(store: Path) -> Operator:
    return Operator(store, allow_readable_by="group")


def _managed(store: Path) -> Operator:
    return Operator(store, environ={"CREDENTIALS_DIRECTORY": str(store.parent)})


def _kubelet(store: Path) -> Operator:
    (store / "..2026_01_01").mkdir()
    (store / "..data").symlink_to("..2026_01_01")
    return Operator(store)


def _broken(store: Path) -> Operator:
    (store / "..data").symlink_to("..v9")
    return Operator(store)


@pytest.mark.parametrize("make", [_document, _shared, _managed, _kubelet, _broken])
def test_what_is_not_ours_to_write_is_refused_by_every_step(store: Path, make: Callable[[Path], Operator]) -> None:
    """A document, a directory that others read or fill, one whose current set is gone; no file is touched."""
    operator = make(store)
    (store / "..v3").mkdir()
    (store / "..pending").symlink_to("..v3")
    before = tree(store)
    steps = (lambda: operator.stage(**CHANGE), operator.staged, lambda: operator.promote("x"),
             lambda: operator.rollback("x"), operator.discard, operator.previous)  # fmt: skip
    assert [refusal(step).code for step in steps] == ["WC705"] * 6
    assert tree(store) == before


def test_a_directory_that_is_not_there_is_not_found(tmp_path: Path) -> None:
    """Staging makes none."""
    with pytest.raises(SecretNotFoundError) as caught:
        Operator(tmp_path / "nowhere").stage(**CHANGE)
    assert caught.value.code == "WC301"


@pytest.mark.parametrize("target", ["../outside", "sub", "nowhere", None])
def test_what_cannot_be_copied_stops_the_stage(store: Path, target: str | None) -> None:
    """A link out of the directory, to a folder or to nothing; a FIFO."""
    write_fields(store.parent, {"outside": "canary-outside"})
    write_fields(store / "sub", {"x": "x"})
    os.mkfifo(store / "odd") if target is None else (store / "odd").symlink_to(target)
    failed = refusal(Operator(store).stage, **CHANGE)
    assert (failed.code, failed.location, _sets(store)) == ("WC705", str(store / "odd"), [])


def test_files_of_another_user_are_left_to_that_user(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What root writes for itself, the service could not read."""
    before = tree(store)
    other = os.geteuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: other)
    assert (refusal(Operator(store).stage, **CHANGE).code, tree(store)) == ("WC707", before)


def test_a_file_where_a_link_must_stand_stops_the_promotion(store: Path) -> None:
    """Somebody put it beside the layout: it is not overwritten."""
    operator = Operator(store)
    operator.rotate(client_secret="canary-secret-new")
    write_fields(store, {"private_key_password": "by hand"})
    operator.stage(private_key_password="canary-password")
    before = tree(store)
    failed = refusal(operator.promote, operator.version())
    assert (failed.code, failed.location) == ("WC705", str(store / "private_key_password"))
    assert tree(store) == before


def test_a_directory_reached_by_a_link_is_rotated_where_it_is(store: Path) -> None:
    """The link stays."""
    (store.parent / "link").symlink_to("store")
    operator = Operator(store.parent / "link")
    operator.rotate(**CHANGE)
    assert (operator.values(), (store.parent / "link").is_symlink()) == (NEW, True)


def test_a_value_too_large_to_be_read_again_is_never_staged(store: Path) -> None:
    """The reader's refusal comes before anything counts."""
    before = tree(store)
    with pytest.raises(wise_creds.CredentialsError) as caught:
        Operator(store).stage(client_secret="x" * 65_537)
    assert (caught.value.code, tree(store)) == ("WC308", before)


def test_production_finds_nothing_to_object_to(store: Path) -> None:
    """The modes are right, also of the set that was plain before; a set that somebody opened is objected to."""
    operator = Operator(store, namespace=P)
    operator.rotate(**CHANGE)
    assert operator.provider.fetch(deadline=SOON).notices == ()
    (store / "client_secret").chmod(0o644)
    with pytest.raises(wise_creds.AccessDeniedError) as caught:
        operator.values()
    assert caught.value.code == "WC305"


# The disk


class Killed(BaseException):
    """The process is gone: no `except Exception` sees this, and nothing can be written after it."""


class Disk:
    """
    Every call that changes the disk, counted; from the n-th on nothing works (killed), or only the n-th fails.

    Nothing is flushed for real: these tests make some thousand files.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls, self.fatal, self.after = 0, 0, False
        self.error: BaseException = Killed()
        self.watch: Callable[[], object] = lambda: None
        self.log: list[str] = []
        for name in ("rename", "replace", "symlink", "mkdir", "unlink", "rmdir", "open", "fsync"):
            real = getattr(os, name) if name != "fsync" else lambda _fd: None
            monkeypatch.setattr(os, name, self._counted(name, real))
        monkeypatch.setattr(_layout, "exchange", self._counted("exchange", _layout.exchange))

    def _counted(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            flags = args[1] if len(args) > 1 and isinstance(args[1], int) else 0
            if real is _OPEN and not flags & os.O_CREAT:
                return real(*args, **kwargs)
            self.calls += 1
            where = Path(f"/proc/self/fd/{args[0]}").readlink() if name == "fsync" else Path(args[0])
            self.log.append(f"{name} {'/'.join(where.parts[-2:])}")
            self.watch()
            dies = isinstance(self.error, Killed)
            now = self.calls == self.fatal
            if self.fatal and ((now and not self.after) or (self.calls > self.fatal and dies)):
                raise self.error
            given = real(*args, **kwargs)
            self.watch()
            if now:
                raise self.error
            return given

        return call

    @contextmanager
    def failing(self, at: int, error: BaseException, *, after: bool) -> Iterator[None]:
        self.calls, self.fatal, self.after, self.error = 0, at, after, error
        try:
            yield
        finally:
            self.fatal = 0


_OPEN = os.open


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    """The disk under test."""
    return Disk(monkeypatch)


def _nothing(_: Operator) -> None:
    pass


def _stage(operator: Operator) -> None:
    operator.stage(**CHANGE)


def _rotate(operator: Operator) -> None:
    operator.rotate(client_secret="canary-secret-0")


def _rotate_and_stage(operator: Operator) -> None:
    operator.rotate(client_secret="canary-secret-0")
    operator.rotate(client_secret="canary-secret-old")
    operator.stage(**CHANGE)


def _rotate_twice(operator: Operator) -> None:
    operator.rotate(client_secret="canary-secret-new", private_key_password="canary-password")
    operator.rotate(client_secret="canary-secret-old")


def _go_back(operator: Operator) -> None:
    _rotate_twice(operator)
    operator.rollback(operator.version())


STEPS: dict[str, tuple[Callable[[Operator], None], Callable[[Operator, str], object]]] = {
    "stage in a plain directory": (_nothing, lambda operator, _: operator.stage(**CHANGE)),
    "stage over what is staged": (
        _rotate_and_stage,
        lambda operator, _: operator.stage(client_secret="canary-secret-3"),
    ),
    "promote a plain directory": (_stage, lambda operator, expected: operator.promote(expected)),
    "promote": (_rotate_and_stage, lambda operator, expected: operator.promote(expected)),
    "rollback": (_rotate_twice, lambda operator, expected: operator.rollback(expected)),
    "roll forward": (_go_back, lambda operator, expected: operator.rollback(expected)),
    "discard": (_rotate_and_stage, lambda operator, _: operator.discard()),
}


@pytest.fixture(params=STEPS)
def scene(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], tuple[Operator, Callable[[], object]]]:
    """Make the state before a step, each time anew, and give the step; both times with the version expected."""
    prepare, step = STEPS[request.param]
    count = iter(range(10_000))

    def make() -> tuple[Operator, Callable[[], object]]:
        operator = Operator(write_fields(tmp_path / str(next(count)) / "store", OLD))
        prepare(operator)
        expected = operator.version()
        return operator, lambda: step(operator, expected)

    return make


Scene = Callable[[], tuple[Operator, Callable[[], object]]]


def seen(operator: Operator) -> list[dict[str, str]]:
    """What a reader through the provider sees, and one that opens the files by their names."""
    named = {n: (operator.directory / n).read_text() for n in NEW if (operator.directory / n).exists()}
    return [operator.values(), named]


def test_at_every_cut_readers_see_one_complete_set(scene: Scene, disk: Disk) -> None:
    """Before and after each call of a step that changes the disk."""
    operator, step = scene()
    found: list[list[dict[str, str]]] = []
    first = seen(operator)

    def look() -> None:
        found.append(seen(operator))
        # And nobody else can begin, not even where the directory has just been exchanged for another.
        with pytest.raises(BlockingIOError):
            os.close(_locked(operator.directory, fcntl.LOCK_NB))

    disk.watch = look
    step()
    last = seen(operator)
    assert len(found) > 4
    assert [views for views in found if views not in (first, last)] == []


def test_everything_reaches_the_disk_before_a_link_names_it(store: Path, disk: Disk) -> None:
    """The files, their folders, then the link and the folder that holds it; the same beside a plain directory."""
    operator = Operator(write_fields(store.parent / "one", {"client_id": "canary-client-id"}))
    expected = operator.version()
    disk.log.clear()
    operator.stage(client_id="canary-other-id")
    assert disk.log == [
        "mkdir one/..tmp-set",
        "open ..tmp-set/client_id",
        "fsync ..tmp-set/client_id",
        "fsync one/..tmp-set",
        "rename one/..tmp-set",
        "symlink ..v2",
        "rename one/..tmp-link",
        "fsync safe/one",
    ]
    disk.log.clear()
    operator.promote(expected)
    done = disk.log.index("fsync safe/..tmp-one")
    written = [entry for entry in disk.log[:done] if entry.startswith(("open", "fsync"))]
    assert written == [
        "open ..v1/client_id",
        "fsync ..v1/client_id",
        "fsync ..tmp-one/..v1",
        "open ..v2/client_id",
        "fsync ..v2/client_id",
        "fsync ..tmp-one/..v2",
        "fsync ..tmp-one/..v2",
    ]
    above = f"fsync {store.parent.parent.name}/safe"
    assert disk.log[done + 1 : done + 4] == [above, "exchange safe/one", above]


@pytest.mark.parametrize("after", [False, True])
def test_a_step_killed_at_any_call_is_completed_by_the_next_try(scene: Scene, disk: Disk, after: bool) -> None:
    """Before and after the call: a complete set stays readable, and the end is the same as without the crash."""
    operator, step = scene()
    first = seen(operator)
    step()
    last, end = seen(operator), tree(operator.directory)
    at, killed = 0, True
    while killed:
        at, killed = at + 1, False
        operator, step = scene()
        try:
            with disk.failing(at, Killed(), after=after):
                step()
        except Killed:
            killed = True
        assert seen(operator) in (first, last), at
        step()
        assert (at, tree(operator.directory)) == (at, end)
    assert at > 3


def test_a_rollback_is_offered_until_it_is_done_and_not_again(store: Path, disk: Disk) -> None:
    """Wherever it was killed: so that an operator who repeats it never swings back to what was rolled back."""
    operator = Operator(store)
    first = operator.version()
    second, at = operator.rotate(**CHANGE), 0
    while operator.version() == second:
        assert operator.previous() == first
        at += 1
        with pytest.raises(Killed), disk.failing(at, Killed(), after=True):
            operator.rollback(second)
    assert (operator.version(), operator.previous(), at > 3) == (first, None, True)


def test_a_call_that_the_system_refuses_is_an_error_and_can_be_tried_again(scene: Scene, disk: Disk) -> None:
    """A full disk, a missing right: the set stays readable, and the next try ends as the first would have."""
    operator, step = scene()
    first = seen(operator)
    step()
    last, end = seen(operator), tree(operator.directory)
    at, refused = 0, True
    while refused:
        at += 1
        operator, step = scene()
        codes: list[str] = []
        with disk.failing(at, OSError(errno.ENOSPC, "canary-secret-old"), after=False):
            try:
                step()
            except RotationError as failed:
                codes = [failed.code, str("ENOSPC" in failed.message)]
        refused = disk.calls >= at
        assert codes == (["WC706", "True"] if refused else []), at
        assert seen(operator) in (first, last), at
        step()
        assert (at, tree(operator.directory)) == (at, end)
    assert at > 3


def test_a_full_disk_leaves_the_directory_as_it_was(store: Path) -> None:
    """The kernel refuses to write more than eight bytes."""
    before = tree(store)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8, limits[1]))
    try:
        failed = refusal(Operator(store).stage, **CHANGE)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (failed.code, "EFBIG" in failed.message, tree(store)) == ("WC706", True, before)


@pytest.mark.parametrize("refuses", ["no exchange", "no such call", "no right above"])
def test_where_the_exchange_is_impossible_nothing_is_changed(
    store: Path, monkeypatch: pytest.MonkeyPatch, refuses: str
) -> None:
    """An old kernel or C library, a file system without it, a folder above that may not be written."""
    operator = Operator(store)
    operator.stage(**CHANGE)
    before, expected, mkdir = tree(store), operator.version(), os.mkdir

    class OldKernel:
        def renameat2(self, *_: object) -> int:
            ctypes.set_errno(errno.EINVAL)
            return -1

    def denied(path: Any, *args: Any) -> None:
        if Path(path).parent == store.parent:
            raise PermissionError(errno.EACCES, "EACCES")
        mkdir(path, *args)

    library = OldKernel() if refuses == "no exchange" else object()
    if refuses == "no right above":
        monkeypatch.setattr(os, "mkdir", denied)
    else:
        monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: library)
    failed = refusal(operator.promote, expected)
    name = {"no exchange": "EINVAL", "no such call": "ENOSYS", "no right above": "EACCES"}[refuses]
    assert (failed.code, name in failed.message, tree(store)) == ("WC706", True, before)
    monkeypatch.undo()
    operator.promote(expected)
    assert operator.values() == NEW


def test_the_kernel_exchanges_two_names_or_says_why_not(tmp_path: Path) -> None:
    """In one step; the error carries the system's number."""
    for name in ("one", "other"):
        write_fields(tmp_path / name, {"name": name})
    _layout.exchange(tmp_path / "one", tmp_path / "other")
    assert [(tmp_path / name / "name").read_text() for name in ("one", "other")] == ["other", "one"]
    with pytest.raises(OSError) as caught:
        _layout.exchange(tmp_path / "one", tmp_path / "nowhere")
    assert caught.value.errno == errno.ENOENT


@pytest.mark.parametrize("step", ["promote", "promote in a new process", "discard", "rollback"])
def test_a_promotion_that_was_cut_behind_its_swap_can_be_completed_by_any_step(
    store: Path, disk: Disk, step: str
) -> None:
    """The link `..pending` had stayed on the current set: it goes, the set stays."""
    operator = Operator(store)
    operator.rotate(client_secret="canary-secret-old")
    operator.stage(**CHANGE)
    expected, at = operator.version(), 0
    while operator.version() == expected:
        at += 1
        with pytest.raises(Killed), disk.failing(at, Killed(), after=True):
            operator.promote(expected)
    assert operator.staged() == operator.values() == NEW
    steps: dict[str, Callable[[], object]] = {
        "promote": lambda: operator.promote(expected),
        "promote in a new process": lambda: operator.promote(operator.version()),
        "discard": operator.discard,
        "rollback": lambda: operator.rollback(operator.version()),
    }
    steps[step]()
    assert (operator.staged(), operator.values()) == (None, OLD if step == "rollback" else NEW)


# Others at the same time


def _locked(directory: Path, how: int = 0) -> int:
    fd = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | how)
    except BlockingIOError:
        os.close(fd)
        raise
    return fd


def test_a_lock_that_is_not_released_by_the_deadline_is_an_error(store: Path) -> None:
    """Which may be tried again."""
    fd = _locked(store)
    operator = Operator(store, clock=FakeClock())
    try:
        failed = refusal(operator.provider.stage, {}, deadline=0.0)
    finally:
        os.close(fd)
    assert (failed.code, failed.retryable) == ("WC708", True)


def test_whoever_waits_for_the_lock_goes_on_in_the_directory_that_took_its_place(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another operator made the layout meanwhile: what was opened before is not the directory any more."""
    released: list[int] = [_locked(store)]
    flock, waits = fcntl.flock, list[float]()

    class Releasing(Clock):
        def wait(self, event: threading.Event, seconds: float) -> bool:
            waits.append(seconds)
            for fd in released:
                os.close(fd)
            released.clear()
            return False

    def overtaken(fd: int, how: int) -> None:
        if not released and not (store / "..data").exists():
            monkeypatch.undo()
            Operator(store).rotate(**CHANGE)
        flock(fd, how)

    monkeypatch.setattr(fcntl, "flock", overtaken)
    operator = Operator(store, clock=Releasing())
    operator.stage(client_id="canary-other-id")
    assert (operator.values(), operator.staged()) == (NEW, {**NEW, "client_id": "canary-other-id"})
    assert len(waits) == 2


@pytest.mark.parametrize("layout", [False, True])
def test_of_two_who_rotate_at_once_one_wins_and_the_other_is_told(store: Path, layout: bool) -> None:
    """Both began at the same version; what the loser staged stays pending, over what the winner made current."""
    if layout:
        Operator(store).rotate(client_id="canary-client-id")
    expected = Operator(store).version()
    names, ready, told = ("client_secret", "private_key_password"), threading.Barrier(2), dict[str, str]()

    def rotate(name: str) -> None:
        operator = Operator(store)
        ready.wait(10)
        try:
            operator.stage(**{name: "canary-of-mine"})
            operator.promote(expected)
            told[name] = "done"
        except RotationError as failed:
            told[name] = failed.code

    threads = [threading.Thread(target=rotate, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    operator = Operator(store)
    current, staged = operator.values(), operator.staged() or {}
    assert sorted(told) == sorted(names)
    assert "done" in told.values()
    for name, outcome in told.items():
        # Whoever is told that it is done finds it current, be it that the other one's step took it along.
        assert (outcome, (current if outcome == "done" else staged).get(name)) in (
            ("done", "canary-of-mine"), ("WC702", "canary-of-mine"),
        )  # fmt: skip


def test_the_second_of_two_promotions_from_one_version_is_refused(store: Path) -> None:
    """Each staged its own change, one after the other."""
    one, other = Operator(store), Operator(store)
    expected = one.version()
    one.rotate(client_secret="canary-of-one")
    other.stage(client_secret="canary-of-other")
    assert (refusal(other.promote, expected).code, one.values()["client_secret"]) == ("WC702", "canary-of-one")
    other.promote(other.version())
    assert one.values()["client_secret"] == "canary-of-other"


def test_a_directory_that_becomes_a_layout_during_a_read_is_read_anew(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise one field would be of the old set and the next of the new one; or a file would be a link all at once."""
    real = os.open
    operator = Operator(store)
    expected = operator.version()
    operator.stage(client_id="canary-new-id", client_secret="canary-secret-new")
    seen_open: list[str] = []

    def promotes(path: Any, *args: Any, **kwargs: Any) -> int:
        if str(path) == str(store / "client_secret"):
            monkeypatch.undo()
            operator.promote(expected)
        seen_open.append(Path(str(path)).name)
        return real(path, *args, **kwargs)

    monkeypatch.setattr(os, "open", promotes)
    assert operator.values() == {"client_id": "canary-new-id", "client_secret": "canary-secret-new"}
    assert seen_open == ["client_id", "client_secret"]


def test_a_directory_that_becomes_a_layout_after_the_last_read_is_read_anew(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No file failed, but nobody knows which of them were new."""
    real = os.close
    operator = Operator(store)
    expected = operator.version()
    operator.stage(**CHANGE)
    closed: list[int] = []

    def promotes(fd: int) -> None:
        real(fd)
        closed.append(fd)
        if len(closed) == len(OLD):
            monkeypatch.undo()
            operator.promote(expected)

    monkeypatch.setattr(os, "close", promotes)
    assert operator.values() == NEW


CHILD = """
import sys
from pathlib import Path
from wise_creds import Namespace, Secret
from wise_creds.clock import SYSTEM_CLOCK
from wise_creds_files import FilesProvider

options = FilesProvider.Options(directory=Path(sys.argv[1]))
provider = FilesProvider(options, namespace=Namespace.SANDBOX, environ={}, clock=SYSTEM_CLOCK)
deadline = SYSTEM_CLOCK.boot() + 60
print("ready", flush=True)
for number in range(1, 100_000):
    expected = provider.fetch(deadline=deadline).version
    values = {name: Secret(f"{name}-{number}") for name in ("client_id", "client_secret")}
    provider.stage(values, deadline=deadline)
    provider.promote(expected, deadline=deadline)
    if number % 3 == 0:
        provider.rollback(provider.fetch(deadline=deadline).version, deadline=deadline)
"""


def test_a_process_that_is_killed_at_any_moment_leaves_a_complete_set(tmp_path: Path) -> None:
    """Really killed, with a reader beside it; the next operator goes on, and cleans up."""
    for kills in range(8):
        store = write_fields(
            tmp_path / str(kills) / "store", {"client_id": "client_id-0", "client_secret": "client_secret-0"}
        )
        operator = Operator(store)
        with subprocess.Popen([sys.executable, "-c", CHILD, str(store)], stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            child.stdout.readline()
            versions = set[str]()
            while len(versions) <= kills and child.poll() is None and SYSTEM_CLOCK.boot() < SOON:
                versions.add(_number(operator))
            child.send_signal(signal.SIGKILL)
        assert child.returncode == -signal.SIGKILL
        _number(operator)
        operator.rotate(client_id="client_id-x", client_secret="client_secret-x")
        assert _number(operator) == "x"
        assert [name for name in os.listdir(tmp_path / str(kills)) + os.listdir(store) if "..tmp" in name] == []
        assert len(_sets(store)) == 2


def _number(operator: Operator) -> str:
    values = operator.values()
    numbers = {value.rpartition("-")[2] for value in values.values()}
    assert (sorted(values), len(numbers)) == (["client_id", "client_secret"], 1)
    return numbers.pop()


def test_no_message_holds_a_value(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither of the sets nor of what was to be staged."""
    operator = Operator(store)
    failures = [
        refusal(operator.promote, "x"),
        refusal(operator.rollback, "x"),
        refusal(_shared(store).stage, **CHANGE),
    ]
    operator.stage(**CHANGE)
    failures.append(refusal(operator.promote, "x"))
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: object())
    failures.append(refusal(operator.promote, operator.version()))
    texts = [f"{failed} {failed!r} {vars(failed)!r}" for failed in failures]
    assert [failed.code for failed in failures] == ["WC701", "WC703", "WC705", "WC702", "WC706"]
    assert leaks({**OLD, **{f"new {name}": value for name, value in CHANGE.items()}}, *texts) == []
    assert leaks(CHANGE, f"{texts} {CHANGE}") == list(CHANGE)
