"""The provider `files`: what `_provider` reads, and a pending version beside the current one."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from wise_creds import RotationError, Secret, SecretDocument
from wise_creds.errors import printable
from wise_creds.shield import errno_name
from wise_creds_files._layout import Content, Layout, contents, numbered, opened
from wise_creds_files._provider import FIELD, FilesReader
from wise_creds_files._reading import denied, without_newline


class FilesProvider(FilesReader):
    """
    A directory with one file per field, or one document; only a directory can be rotated.

    To read it needs no more than that. To stage it needs a directory of its own user's, and to promote for the first
    time also the right to write in the folder above. What it writes is for this user alone (0700, 0600).
    """

    _chosen: str | None = None
    """The pending set that was staged or looked at; no other one is promoted."""

    def stage(self, fields: Mapping[str, Secret], *, deadline: float) -> str:
        """Write the fields over what is staged, else over a copy of the current set; the same again is a no-op."""
        with self._locked(deadline) as layout:
            base = layout.pending
            if base not in (
                None,
                layout.current,
            ):  # a promotion that was killed at its end leaves both names on one set
                self._refuse_stale(layout.current, base)
            before = contents(base or layout.current)
            after = self._changed(before, fields)
            if base is not None and after == before:
                self._chosen = self._version(layout, base)
                return self._chosen
            fresh = layout.write(after)
            self._version(layout, fresh)  # it can be read
            layout.stage(fresh)
            self._chosen = self._version(layout, layout.pending or fresh)
            return self._chosen

    def fetch_staged(self, *, deadline: float) -> SecretDocument | None:
        """Read the pending set."""
        with self._locked(deadline) as layout:
            found = None if layout.pending is None else self._document(layout.directory, layout.pending)
            self._chosen = None if found is None else found.version
            return found

    def promote(self, expected: str, *, deadline: float) -> None:
        """Let `..data` name the pending set if the current one is the expected one."""
        with self._locked(deadline) as layout:
            current, pending, origin = layout.current, layout.pending, _origin(layout)
            if pending is None:
                if origin is not None and _same(self._version(layout, origin), expected):
                    return  # done before
                raise RotationError("nothing is staged", code="WC701", location=self._place(),
                                    hint="rotate stage first")  # fmt: skip
            if self._chosen is not None and not _same(self._version(layout, pending), self._chosen):
                raise self._moved()
            if pending != current:
                if not _same(self._version(layout, current), expected):
                    raise self._moved()
                self._refuse_stale(current, pending)
                layout.make_current(pending)
            layout.unstage()

    def rollback(self, expected: str, *, deadline: float) -> None:
        """Let `..data` name the set that was current before, if the current one is the expected one."""
        with self._locked(deadline) as layout:
            current, previous = layout.current, layout.before(layout.current)
            if previous is None:
                raise RotationError("there is no previous version", code="WC703", location=self._place(),
                                    hint="stage and promote the old values instead")  # fmt: skip
            if not _same(self._version(layout, current), expected):
                # Two sets that name each other: the last step went back, or back and forth.
                if layout.before(previous) == current and _same(self._version(layout, previous), expected):
                    return
                raise self._moved()
            if layout.pending == current:
                layout.unstage()
            layout.make_current(previous)

    def discard(self, *, deadline: float) -> None:
        """Remove the pending set."""
        with self._locked(deadline) as layout:
            layout.unstage()

    def previous(self, *, deadline: float) -> str | None:
        """Name the version that a rollback would bring back; None also where the current one came by a rollback."""
        with self._locked(deadline) as layout:
            origin = _origin(layout)
            return None if origin is None else self._version(layout, origin)

    @contextmanager
    def _locked(self, deadline: float) -> Iterator[Layout]:
        directory = self._options.directory
        if directory is None or self._options.allow_readable_by is not None or self._is_managed(directory):
            raise RotationError("only a directory that is read by its owner alone can be rotated", code="WC705",
                                location=self._place(), hint="no allow_readable_by, no mount that others fill")  # fmt: skip
        try:
            if not directory.is_dir():
                raise denied(FileNotFoundError(), directory)
            with opened(Path(os.path.realpath(directory)), clock=self._clock, deadline=deadline) as layout:
                yield layout
        except OSError as caught:
            raise RotationError(f"the file system refuses this step ({errno_name(caught)})", code="WC706",
                                location=self._place(), hint="is there room, and may it be written, its parent too?"
                                ) from None  # fmt: skip

    def _changed(self, before: Content, fields: Mapping[str, Secret]) -> Content:
        after = dict(before)
        for field, value in fields.items():
            name, raw = self._file_of(field), value.reveal_bytes()
            after[name] = raw if field == "pkcs12" else _as_line(raw, before.get(name, b""))
        return after

    def _file_of(self, field: str) -> str:
        renamed = self._options.fields
        if field not in renamed if renamed is not None else not FIELD.fullmatch(field):
            raise RotationError(f"the source does not hold the field {printable(field)}", code="WC704",
                                location=self._place(), hint="stage it in the source that does")  # fmt: skip
        name = PurePosixPath((renamed or {}).get(field, field))
        shared = [PurePosixPath(other) for other in (renamed or {}).values()].count(name) > 1
        if shared or str(name).startswith(".."):
            raise RotationError(f"{printable(field)} has no file of its own", code="WC705", location=self._place(),
                                hint="give each field its own file")  # fmt: skip
        return str(name)

    def _version(self, layout: Layout, base: Path) -> str:
        return self._document(layout.directory, base).version

    def _refuse_stale(self, current: Path, staged: Path) -> None:
        """What was staged before a file of the current set was written does not know what that changed."""
        if max(_written(current), default=0) > min(_written(staged), default=0):
            raise RotationError("what is staged is older than the current version", code="WC750", location=self._place(),
                                hint="wise-creds rotate discard, then stage again")  # fmt: skip

    def _place(self) -> str:
        return printable(self._options.directory or self._options.file)

    def _moved(self) -> RotationError:
        return RotationError("somebody else has staged or rotated meanwhile", code="WC702",
                             location=self._place(), hint="look at its status, then decide anew")  # fmt: skip


def _written(base: Path) -> list[int]:
    """Give when each file of a set was last written, by the time that only the kernel sets."""
    return [entry.lstat().st_ctime_ns for entry in base.iterdir() if entry.is_file() and not entry.is_symlink()]


def _same(one: str, other: str) -> bool:
    """Compare two names of versions by content: a plain directory gets its number when it is turned into the layout."""
    return one.rpartition(".")[2] == other.rpartition(".")[2]


def _origin(layout: Layout) -> Path | None:
    """Give the set over which the current one was promoted; what was rolled back from is named too, but is younger."""
    base = layout.before(layout.current)
    return base if base is not None and numbered(base) < numbered(layout.current) else None


def _as_line(value: bytes, before: bytes) -> bytes:
    """Write a value so that it reads as it was given, with the line end that the file has already, if it has one."""
    kept = before[len(without_newline(before)) :]
    return next(raw for end in (kept, b"\n", b"\r\n") if without_newline(raw := value + end) == value)
