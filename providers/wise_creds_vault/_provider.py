"""The provider: reading, and staging at a path beside the secret."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, TypeVar

from wise_creds import RotationError, Secret, SecretDocument
from wise_creds.documents import put_fields
from wise_creds.errors import SecretNotFoundError
from wise_creds_vault._errors import instant, missing
from wise_creds_vault._reading import VaultReader, numbered
from wise_creds_vault._wire import Wire, place

T = TypeVar("T")
Content = dict[str, Any]


class VaultProvider(VaultReader):
    """
    One secret of Vault or OpenBao.

    A write to KV is current at once, so a rotation stages at a path of its own and promotes by a write that Vault
    accepts only if the current version is still the expected one (`cas`).
    """

    _chosen: str | None = None
    """When the pending version was made that was staged or looked at; no other one is promoted."""

    def stage(self, fields: Mapping[str, Secret], *, deadline: float) -> str:
        """Write the pending path: what is there, else the current version, with these fields changed."""
        return self._staging(deadline, lambda wire: self._stage(wire, fields))

    def fetch_staged(self, *, deadline: float) -> SecretDocument | None:
        """Read the pending path."""

        def read(wire: Wire) -> SecretDocument | None:
            try:
                content, about = self._pending(wire)
            except SecretNotFoundError:
                return None
            self._chosen = about["created_time"]
            return self._document(self._options.pending, content, about)

        return self._staging(deadline, read)

    def promote(self, expected: str, *, deadline: float) -> None:
        """Write the staged content as the version after the expected one, then remove the pending path."""
        self._staging(deadline, lambda wire: self._promote(wire, numbered(expected) or 0))

    def rollback(self, expected: str, *, deadline: float) -> None:
        """Write the content of the version before the expected one as the version after it."""
        self._staging(deadline, lambda wire: self._rollback(wire, numbered(expected) or 0))

    def previous(self, *, deadline: float) -> str | None:
        """Name the version that a rollback would bring back; None also where the current one came by a rollback."""
        return self._staging(deadline, self._previous)

    def discard(self, *, deadline: float) -> None:
        """Remove the pending path, its history included."""
        self._staging(deadline, self._remove)

    def _staging(self, deadline: float, call: Callable[[Wire], T]) -> T:
        if self._options.kv_version == 1 or self._options.version is not None:
            raise RotationError("KV version 1, or a pinned version, cannot be rotated", code="WC705",
                                location=place(self._options), hint="use kv_version = 2 without version")  # fmt: skip
        return self._with(deadline, call)

    def _stage(self, wire: Wire, fields: Mapping[str, Secret]) -> str:
        current, made = self._version(wire, self._options.path, None)
        content, pending, number = copy.deepcopy(current), None, 0
        try:
            pending, about = self._pending(wire)
        except SecretNotFoundError as problem:
            if problem.code != "WC301":
                self._remove(wire)  # deleted by hand, and Vault would go on counting
        else:
            if pending != current:  # else a promotion was killed at its end
                self._refuse_stale(wire, about, made)
            content, number, self._chosen = copy.deepcopy(pending), about["version"], about["created_time"]
        put_fields(content, fields, self._options.fields)
        if content != pending:
            about = self._write(wire, self._options.pending, content, number)
            number, self._chosen = number + 1, about.get("created_time")
        return str(number)

    def _pending(self, wire: Wire) -> tuple[Content, Content]:
        return self._version(wire, self._options.pending, None)

    def _promote(self, wire: Wire, expected: int) -> None:
        current, made = self._version(wire, self._options.path, None)
        done = made["version"] == expected + 1
        try:
            pending, about = self._pending(wire)
        except SecretNotFoundError:
            if done:
                return
            raise RotationError(
                "nothing is staged", code="WC701", location=wire.place, hint="rotate stage first"
            ) from None
        if self._chosen not in (None, about["created_time"]):
            raise missing("restaged", place=wire.place, login="")
        if made["version"] == expected:
            self._refuse_stale(wire, about, made)
            self._write(wire, self._options.path, pending, expected)
        elif not done or current != pending:
            raise missing("moved", place=wire.place, login="")
        with suppress(SecretNotFoundError):
            if self._pending(wire)[1]["created_time"] == about["created_time"]:  # else somebody has staged meanwhile
                self._remove(wire)

    @staticmethod
    def _refuse_stale(wire: Wire, staged: Content, current: Content) -> None:
        """What was staged before the current version was made does not know what that changed."""
        first, second = instant(staged.get("created_time")), instant(current.get("created_time"))
        if first is not None and second is not None and first < second:
            raise missing("stale", place=wire.place, login="")

    def _rollback(self, wire: Wire, expected: int) -> None:
        current, about = self._version(wire, self._options.path, None)
        previous, _ = self._before(wire, expected)
        if about["version"] == expected + 1 and current == previous:
            return
        if about["version"] != expected:
            raise missing("moved", place=wire.place, login="")
        if previous is None:
            raise RotationError("there is no previous version", code="WC703", location=wire.place,
                                hint="stage and promote the old values instead")  # fmt: skip
        self._write(wire, self._options.path, previous, expected)

    def _previous(self, wire: Wire) -> str | None:
        current, about = self._version(wire, self._options.path, None)
        previous, when = self._before(wire, about["version"])
        rolled_back = current != previous and current == self._before(wire, about["version"] - 1)[0]
        return None if previous is None or rolled_back else self._named(self._options.path, about["version"] - 1, when)

    def _before(self, wire: Wire, number: int) -> tuple[Content | None, Content]:
        """Read the version before this one, if it is still there."""
        if number > 1:
            with suppress(SecretNotFoundError):
                return self._version(wire, self._options.path, number - 1)
        return None, {}

    def _write(self, wire: Wire, path: str, content: Content, number: int) -> Content:
        """Write the version after this one, if it is still the last; gives its metadata."""
        from hvac.api.secrets_engines import KvV2

        lost: RotationError | None = None
        try:
            answer = KvV2(wire).create_or_update_secret(path, content, cas=number, mount_point=self._options.mount)
        except RotationError as refused:
            lost = refused
        if lost is None:
            return dict(answer.get("data") or {})
        # Lost to somebody else; or won by an attempt whose answer was lost, and that was sent again.
        found, about = self._version(wire, path, None)
        if about["version"] != number + 1 or found != content:
            raise lost
        return about

    def _remove(self, wire: Wire) -> None:
        from hvac.api.secrets_engines import KvV2

        # With its metadata: a soft delete would leave the values readable.
        KvV2(wire).delete_metadata_and_all_versions(self._options.pending, mount_point=self._options.mount)
