"""Reading one secret of a KV engine."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, TypeVar

from wise_creds import Namespace, Notice, SecretDocument, WiseCredsError
from wise_creds.clock import Clock
from wise_creds.documents import fingerprint, pick_fields
from wise_creds.errors import AccessDeniedError, ConfigError, ProviderError, SecretNotFoundError
from wise_creds_vault._errors import gone, instant, missing
from wise_creds_vault._login import Lease, Login
from wise_creds_vault._options import VaultOptions
from wise_creds_vault._wire import Uniform, Wire, opened, place

T = TypeVar("T")
_AGAIN = 30.0  # seconds until a login that failed is tried again while the token lasts
_FAREWELL = 2.0  # seconds for revoking a token that is not needed any more


class VaultReader:
    """
    The reading half of the provider.

    Args:
        options: `VaultOptions`.
        namespace: a person's token is for sandbox only.
        environ: where `*_env` options look.
        clock: time, for the deadline and the Vault token's life.

    Raises:
        ConfigError: a person's token in production (WC209).
    """

    Options = VaultOptions
    watch = 60.0
    uniform: Uniform = staticmethod(random.SystemRandom().uniform)

    def __init__(
        self, options: VaultOptions, *, namespace: Namespace, environ: Mapping[str, str], clock: Clock
    ) -> None:
        self._options = options
        self._clock = clock
        self._login = Login(options.auth, namespace=namespace, environ=environ, clock=clock)
        self._lease: Lease | None = None
        self._pid, self._lock, self._closings = os.getpid(), threading.Lock(), 0
        self._blind = False
        self._first_made: dict[tuple[str, int], str] = {}

    def fetch(self, *, deadline: float, version: str | None = None) -> SecretDocument:
        """Read the current version, the pinned one, or the one named."""
        return self._with(deadline, lambda wire: self._read(wire, numbered(version)))

    def probe(self, *, deadline: float) -> str | None:
        """Give the current version by its metadata; where that is denied, by a read; None for KV version 1."""
        if self._options.kv_version == 1:
            return None
        if self._options.version is not None:
            return str(self._options.version)
        if not self._blind:
            try:
                return self._with(deadline, self._current)
            except AccessDeniedError as problem:
                if problem.code != "WC302":
                    raise
                self._blind = True
        return self.fetch(deadline=deadline).version

    def close(self) -> None:
        """Revoke the Vault token, if this process got it by a login of its own."""
        lease, self._lease = self._lease, None
        self._closings += 1
        if lease is not None and lease.own and lease.process == os.getpid():
            with self._opened(self._clock.boot() + _FAREWELL) as wire:
                self._revoke(wire, lease)

    @staticmethod
    def _revoke(wire: Wire, lease: Lease) -> None:
        if lease.own:
            wire.identity = lease.token
            with suppress(WiseCredsError):  # it ends by itself
                wire.post("/v1/auth/token/revoke-self")

    def _with(self, deadline: float, call: Callable[[Wire], T]) -> T:
        with self._opened(deadline) as wire:
            fresh = self._identify(wire, deadline)
            try:
                return call(wire)
            except AccessDeniedError as problem:
                # An expired token and a missing right look alike. A token that may look at itself is no expired one.
                if fresh or problem.code != "WC302" or self._good(wire):
                    raise
                refused = problem
            try:
                self._identify(wire, deadline, anew=True)
            except AccessDeniedError:
                raise refused from None
            return call(wire)

    @staticmethod
    def _good(wire: Wire) -> bool:
        try:
            wire.get("/v1/auth/token/lookup-self")
        except ProviderError:
            return False
        return True

    def _opened(self, deadline: float) -> AbstractContextManager[Wire]:
        return opened(self._options, clock=self._clock, deadline=deadline, uniform=self.uniform)

    def _identify(self, wire: Wire, deadline: float, *, anew: bool = False) -> bool:
        """Give the wire a token that is good; whether it was made just now."""
        if self._pid != os.getpid():  # the parent's token is not ours, and its lock may be held for ever
            self._pid, self._lock, self._lease = os.getpid(), threading.Lock(), None
        if not self._lock.acquire(timeout=max(0.0, deadline - self._clock.boot())):
            raise missing("slow", place=wire.place, login="")
        try:
            lease = self._lease
            fresh = anew or lease is None
            if lease is not None and not anew and self._clock.boot() >= lease.due:
                fresh, lease = self._prolonged(wire, lease)
            elif lease is None or anew:
                lease = self._logged_in(wire, lease)
            self._lease, wire.identity = lease, lease.token
            return fresh
        finally:
            self._lock.release()

    def _prolonged(self, wire: Wire, lease: Lease) -> tuple[bool, Lease]:
        """Renew a lease, or log in anew; while it lasts, a failure of both changes nothing."""
        wire.identity = lease.token
        longer = self._login.renewed(wire, lease)
        if longer is not None:
            return False, longer
        try:
            return True, self._logged_in(wire, lease)
        except WiseCredsError:
            if self._clock.boot() >= lease.ends:
                raise
            return False, replace(lease, due=self._clock.boot() + _AGAIN)

    def _logged_in(self, wire: Wire, old: Lease | None) -> Lease:
        closings = self._closings
        lease = self._login.lease(wire)
        if closings != self._closings:
            self._revoke(wire, lease)
            raise missing("slow", place=wire.place, login="")
        if old is not None:
            self._revoke(wire, old)
        return lease

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock.wall(), UTC)

    def _current(self, wire: Wire) -> str:
        metadata = self._metadata(wire, self._options.path)
        number = metadata["current_version"]
        about = metadata["versions"].get(str(number))
        ended = gone(about, self._now()) if isinstance(about, dict) else "absent"
        if ended is not None:
            raise missing(ended, place=wire.place, login="")
        return self._named(self._options.path, number, about)

    def _metadata(self, wire: Wire, path: str) -> dict[str, Any]:
        from hvac.api.secrets_engines import KvV2

        found = KvV2(wire).read_secret_metadata(path, mount_point=self._options.mount).get("data")
        whole = isinstance(found, dict) and isinstance(found.get("current_version"), int)
        if not whole or not isinstance(found.get("versions"), dict):
            raise missing("foreign", place=wire.place, login="")
        return dict(found)

    def _version(self, wire: Wire, path: str, number: int | None) -> tuple[dict[str, Any], dict[str, Any]]:
        """Read one version of a path: its data and its metadata."""
        from hvac.api.secrets_engines import KvV2

        answer = KvV2(wire).read_secret_version(
            path, number, mount_point=self._options.mount, raise_on_deleted_version=True
        )
        data = answer.get("data")
        content, metadata = (data.get("data"), data.get("metadata")) if isinstance(data, dict) else (None, None)
        if (
            not isinstance(content, dict)
            or not isinstance(metadata, dict)
            or not isinstance(metadata.get("version"), int)
        ):
            raise missing("foreign", place=wire.place, login="")
        return content, metadata

    def _read(self, wire: Wire, number: int | None) -> SecretDocument:
        if self._options.kv_version == 1:
            return self._first_engine(wire)
        try:
            return self._document(
                self._options.path, *self._version(wire, self._options.path, number or self._options.version)
            )
        except SecretNotFoundError as problem:
            if problem.code != "WC301":
                raise
        raise self._absent(wire)

    def _document(self, path: str, content: Mapping[str, object], metadata: Mapping[str, Any]) -> SecretDocument:
        where = place(self._options, path)
        fields, names = pick_fields(content, self._options.fields, location=where)
        made = instant(metadata.get("created_time"))
        return SecretDocument(
            fields=fields,
            version=self._named(path, metadata["version"], metadata),
            location=where,
            changed_at=made,
            notices=self._notices(metadata, where),
            names=names,
        )

    def _first_engine(self, wire: Wire) -> SecretDocument:
        from hvac.api.secrets_engines import KvV1

        content = KvV1(wire).read_secret(self._options.path, mount_point=self._options.mount).get("data")
        if not isinstance(content, dict):
            raise missing("foreign", place=wire.place, login="")
        fields, names = pick_fields(content, self._options.fields, location=wire.place)
        return SecretDocument(fields=fields, version=fingerprint(fields), location=wire.place, names=names)

    def _absent(self, wire: Wire) -> WiseCredsError:
        """Tell an absent secret from an engine of version 1, which answers the same."""
        kind = "absent"
        try:
            engine = wire.get(f"/v1/sys/internal/ui/mounts/{self._options.mount.strip('/')}/{self._options.path}").get(
                "data"
            )
        except (AccessDeniedError, SecretNotFoundError, ConfigError):
            kind = "absent?"
        else:
            options = engine.get("options") if isinstance(engine, dict) else {}
            if isinstance(engine, dict) and (options is None or options.get("version") == "1"):
                kind = "version 1"
        return missing(kind, place=wire.place, login="")

    def _named(self, path: str, number: int, about: Mapping[str, object]) -> str:
        """Name a version by its number; with its time where the number was given twice, for then all was deleted between."""
        if self._options.version is not None:
            return str(number)
        made = str(about.get("created_time"))
        first = self._first_made.setdefault((path, number), made)
        return str(number) if made == first else f"{number}@{made}"

    def _notices(self, metadata: Mapping[str, object], where: str) -> tuple[Notice, ...]:
        notices = []
        ends = instant(metadata.get("deletion_time"))
        if ends is not None:
            notices.append(Notice(code="WC349", location=where, hint="see delete_version_after in the metadata",
                                  message=f"this version deletes itself on {ends:%Y-%m-%d %H:%M} UTC"))  # fmt: skip
        if self._blind:
            notices.append(Notice(code="WC332", location=where, hint='allow "read" on the metadata of the path',
                                  message="the version cannot be probed; each look reads the secret"))  # fmt: skip
        return tuple(notices)


def numbered(version: str | None) -> int | None:
    """Read the name of a version; None for none."""
    if version is None:
        return None
    digits = version.partition("@")[0]
    # A name that Vault never gave: no version has this number.
    return int(digits) if digits.isascii() and digits.isdigit() else 2**31
