"""The reading half of the provider: from a directory or a document to a SecretDocument."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Literal, Self

from pydantic import field_validator, model_validator

from wise_creds import Namespace, Notice, Secret, SecretDocument, WiseCredsError
from wise_creds import Options as BaseOptions
from wise_creds.clock import Clock
from wise_creds.documents import fingerprint, pick_fields, read_document
from wise_creds.errors import AccessDeniedError, SecretNotFoundError, printable
from wise_creds.provider import CANONICAL_FIELDS, ConfigPath, option_problem
from wise_creds_files._layout import CURRENT, names_in, numbered
from wise_creds_files._reading import Content, denied, read, without_newline

FIELD = re.compile(r"[a-z][a-z0-9_]*")
_ALLOWED = {None: 0o700, "group": 0o770, "all": 0o777}


class FilesOptions(BaseOptions):
    """Options of the provider `files`: exactly one of `directory` and `file`."""

    directory: ConfigPath | None = None
    """One file per field; Kubernetes' `..data` layout, `/run/secrets`, `$CREDENTIALS_DIRECTORY` as they are."""
    file: ConfigPath | None = None
    """One `.json` or `.toml` document."""
    fields: dict[str, str] | None = None
    """Canonical names to file names (then only those files are read) or to keys of the document."""
    allow_readable_by: Literal["group", "all"] | None = None
    """Whose access to the files is no finding."""

    @field_validator("fields")
    @classmethod
    def _names(cls, fields: dict[str, str] | None) -> dict[str, str] | None:
        for name in (fields or {}).values():
            if not name or "\0" in name or ".." in PurePosixPath(name).parts or PurePosixPath(name).is_absolute():
                raise option_problem("a name in fields leads out of the directory", hint="name files inside it")
        return fields

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.directory is None) == (self.file is None):
            raise option_problem(
                "needs exactly one of directory and file", code="WC104", hint="docs/configuration.md has both"
            )
        if self.file is not None and self.file.suffix not in (".json", ".toml"):
            raise option_problem("file must end in .json or .toml", hint="for single files, name their directory")
        return self


class FilesReader:
    """
    The reading half of the provider: no permission but to read, no environment but `$CREDENTIALS_DIRECTORY`.

    Args:
        options: `FilesOptions`.
        namespace: decides how strict file modes are.
        environ: the process environment.
        clock: time, for the deadline.
    """

    Options = FilesOptions
    watch = 30.0

    def __init__(
        self, options: FilesOptions, *, namespace: Namespace, environ: Mapping[str, str], clock: Clock
    ) -> None:
        self._options = options
        self._namespace = namespace
        self._clock = clock
        self._managed = [Path("/run/secrets")]
        if environ.get("CREDENTIALS_DIRECTORY"):
            self._managed.append(Path(environ["CREDENTIALS_DIRECTORY"]))

    def fetch(self, *, deadline: float, version: str | None = None) -> SecretDocument:
        """Read the fields; the version is a fingerprint of the content under a key of this process."""
        if self._options.file is not None:
            document = self._from_document(self._options.file)
        else:
            assert self._options.directory is not None  # noqa: S101  the options hold exactly one
            document = self._from_directory(self._options.directory, deadline)
        if version not in (None, document.version):
            raise SecretNotFoundError("this version is gone; files keep the present one only", code="WC301",
                                      location=document.location, hint="read without a version")  # fmt: skip
        return document

    def probe(self, *, deadline: float) -> str | None:
        """Read everything and give the version: content decides, times and inodes do not."""
        return self.fetch(deadline=deadline).version

    def close(self) -> None:
        """Nothing is held open."""

    def _from_document(self, path: Path) -> SecretDocument:
        content = read(path)
        where = printable(path)
        document = read_document(content.raw, "TOML" if path.suffix == ".toml" else "JSON", location=where)
        fields, names = pick_fields(document, self._options.fields, location=where)
        notices = self._judge_mode(path, content)
        return SecretDocument(fields=fields, version=fingerprint(fields), location=where, notices=tuple(notices),
                              names=names)  # fmt: skip

    def _from_directory(self, directory: Path, deadline: float) -> SecretDocument:
        while True:
            # Whoever swaps the link `..data`, or turns a plain directory into that layout, is noticed by looking twice.
            base = self._snapshot(directory)
            try:
                document = self._document(directory, base)
            except WiseCredsError:
                if self._stands(directory, base, deadline):
                    raise
            else:
                if self._stands(directory, base, deadline):
                    return document

    def _stands(self, directory: Path, base: Path, deadline: float) -> bool:
        return base == self._snapshot(directory) or self._clock.boot() > deadline

    @staticmethod
    def _snapshot(directory: Path) -> Path:
        link = directory / CURRENT
        base = Path(os.path.realpath(link if os.path.lexists(link) else directory))
        if not base.is_relative_to(os.path.realpath(directory)):
            raise AccessDeniedError("..data leads out of the directory", code="WC306", location=printable(directory),
                                    hint="is this a volume that the kubelet wrote?")  # fmt: skip
        return base

    def _document(self, directory: Path, base: Path) -> SecretDocument:
        """Read the set that stands in one folder of the directory, or in the directory itself."""
        try:
            names = names_in(base)
        except OSError as caught:
            raise denied(caught, directory) from None
        fields, notices = self._read_all(directory, base, names)
        # The number is for people: the rest differs from process to process, and it is the content that counts.
        # A plain directory is what becomes the first set.
        number = 1 if base == Path(os.path.realpath(directory)) else numbered(base)
        version = (f"v{number}." if number else "") + fingerprint(fields)
        return SecretDocument(fields=fields, version=version, location=printable(directory), notices=tuple(notices),
                              names=names)  # fmt: skip

    def _read_all(self, directory: Path, base: Path, names: tuple[str, ...]) -> tuple[dict[str, Secret], list[Notice]]:
        fields: dict[str, Secret] = {}
        notices: list[Notice] = []
        inside = Path(os.path.realpath(directory))
        kubelet = base != inside and not numbered(base)
        chosen = self._options.fields or {name: name for name in names if FIELD.fullmatch(name)}
        for field, name in chosen.items():
            path = base / name
            known = self._options.fields is not None or field in CANONICAL_FIELDS
            if not known and not path.is_file():
                continue
            try:
                content = read(path, inside=inside)
            except WiseCredsError as problem:
                if known:
                    problem.location = printable(directory / name)
                    raise
                notices.append(Notice(code="WC312", message=f"not read as a field: {problem.message}",
                                      location=printable(directory / name)))  # fmt: skip
                continue
            raw = content.raw if field == "pkcs12" else without_newline(content.raw)
            fields[field] = Secret(raw, name=printable(field))
            notices += self._judge_mode(directory / name, content, kubelet=kubelet)
        return fields, notices

    def _is_managed(self, path: Path) -> bool:
        return any(path.is_relative_to(place) for place in self._managed)

    def _judge_mode(self, path: Path, content: Content, *, kubelet: bool = False) -> list[Notice]:
        if not content.mode & ~_ALLOWED[self._options.allow_readable_by] & 0o777:
            return []
        where, said = printable(path), f"others than its owner may access it (mode {content.mode:04o})"
        ours = content.owner == os.geteuid()
        if kubelet or not ours or self._is_managed(path):
            return [Notice(code="WC305", message=said, level="information", location=where)]
        hint = 'chmod 600, or allow_readable_by = "group"'
        if self._namespace is Namespace.PRODUCTION:
            raise AccessDeniedError(said, code="WC305", location=where, hint=hint)
        return [Notice(code="WC305", message=said, location=where, hint=hint)]
