"""The key/value engines of the Vault stand-in, and the shapes that all its answers share."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

SECOND = 1_000_000_000
DEFAULT_LEASE = 2_764_800
_OLD_PATH = (
    "Invalid path for a versioned K/V secrets engine. See the API docs for the appropriate API endpoints to use."
    " If using the OpenBao CLI, use 'bao kv get' for this operation."
)
_NOT_A_NUMBER = (
    'Field validation failed: error converting input for field "version":'
    " '' cannot parse value as 'int': strconv.ParseInt: invalid syntax"
)


@dataclass
class Answer:
    """What goes back: the usual envelope around `data`, `auth` and `warnings`, or a `body` as it is."""

    status: int = 200
    data: Mapping[str, Any] | None = None
    auth: Mapping[str, Any] | None = None
    warnings: list[str] | None = None
    lease_duration: int = 0
    wrap_info: Mapping[str, Any] | None = None
    body: object = None
    headers: Mapping[str, str] = field(default_factory=dict)


class RefusedError(Exception):
    """An answer whose body is a list of errors."""

    def __init__(self, status: int, *errors: str) -> None:
        super().__init__(status, *errors)
        self.answer = Answer(status, body={"errors": list(errors)})


def unsupported(what: str) -> RefusedError:
    """Refuse a path (404) or an operation (405) that a mount does not know."""
    return RefusedError(404 if what == "path" else 405, f"1 error occurred:\n\t* unsupported {what}\n\n")


def rfc3339(moment: int) -> str:
    """Write nanoseconds since 1970 as Go does, without trailing zeros."""
    whole, fraction = divmod(moment, SECOND)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole)) + f".{fraction:09}".rstrip("0").rstrip(".") + "Z"


def seconds(value: object) -> int:
    """Read a duration: a number of seconds, or Go's "1h30m"."""
    text = str(value or 0)
    units = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}
    return int(text) if text.isdigit() else sum(int(n) * units[unit] for n, unit in re.findall(r"(\d+)([dhms])", text))


def duration(value: int) -> str:
    """Write seconds as Go does."""
    minutes, rest = divmod(value, 60)
    hours, minutes = divmod(minutes, 60)
    return (f"{hours}h" if hours else "") + (f"{minutes}m" if hours or minutes else "") + f"{rest}s"


def listing(names: Iterable[str], folder: str) -> Answer:
    """List the names and folders right below a folder."""
    prefix = f"{folder.strip('/')}/".lstrip("/")
    below = (name.removeprefix(prefix) for name in names if name.startswith(prefix))
    keys = sorted({first + slash for first, slash, _ in (name.partition("/") for name in below)})
    if not keys:
        raise RefusedError(404)
    return Answer(data={"keys": keys})


class PlainStore:
    """KV version 1."""

    options: Mapping[str, str] = {"version": "1"}

    def __init__(self) -> None:
        self._values: dict[str, dict[str, Any]] = {}

    def exists(self, path: str) -> bool:
        """Tell whether a write would be an update."""
        return path in self._values

    def serve(self, operation: str, path: str, query: Mapping[str, str], body: dict[str, Any]) -> Answer:
        """Answer one request."""
        if operation == "list":
            return listing(self._values, path)
        if operation == "read":
            if path not in self._values:
                raise RefusedError(404)
            values = self._values[path]
            return Answer(data=values, lease_duration=seconds(values.get("ttl")) or DEFAULT_LEASE)
        if operation == "write":
            if not body:
                raise RefusedError(400, "missing data fields")
            self._values[path] = body
        elif operation == "delete":
            self._values.pop(path, None)
        else:
            raise unsupported("operation")
        return Answer(204)


@dataclass
class Version:
    """One version of a secret; `deleted` may lie in the future."""

    values: dict[str, Any] | None
    created: int
    deleted: int | None = None
    destroyed: bool = False

    def times(self) -> dict[str, Any]:
        """Give the fields that stand in every answer about a version."""
        return {
            "created_time": rfc3339(self.created),
            "deletion_time": rfc3339(self.deleted) if self.deleted else "",
            "destroyed": self.destroyed,
        }


@dataclass
class Limits:
    """What the mount's config and a key's metadata both set."""

    cas_required: bool = False
    delete_version_after: int = 0
    max_versions: int = 0

    def update(self, body: Mapping[str, Any]) -> None:
        """Take the settings that a request names."""
        self.cas_required = body.get("cas_required", self.cas_required)
        self.max_versions = body.get("max_versions", self.max_versions)
        self.delete_version_after = seconds(body.get("delete_version_after", self.delete_version_after))

    def shown(self) -> dict[str, Any]:
        """Give the settings as an answer has them."""
        return {
            "cas_required": self.cas_required,
            "delete_version_after": duration(self.delete_version_after),
            "max_versions": self.max_versions,
        }


@dataclass
class Key:
    """All versions of one secret, and its metadata."""

    created: int
    updated: int
    limits: Limits = field(default_factory=Limits)
    custom: dict[str, str] | None = None
    edits: int = 0
    current: int = 0
    oldest: int = 0
    versions: dict[int, Version] = field(default_factory=dict)

    def about(self, number: int) -> dict[str, Any]:
        """Give the metadata of one version."""
        return {**self.versions[number].times(), "custom_metadata": self.custom, "version": number}


class VersionedStore:
    """KV version 2; `now` gives nanoseconds."""

    options: Mapping[str, str] = {"version": "2"}

    def __init__(self, now: Callable[[], int]) -> None:
        self._now = now
        self._keys: dict[str, Key] = {}
        self._limits = Limits()

    def exists(self, path: str) -> bool:
        """Tell whether a write would be an update; only data and metadata are ever created."""
        kind, _, name = path.partition("/")
        return kind not in ("data", "metadata") or name in self._keys

    def serve(self, operation: str, path: str, query: Mapping[str, str], body: dict[str, Any]) -> Answer:
        """Answer one request."""
        kind, _, name = path.partition("/")
        if kind not in ("config", "data", "delete", "destroy", "metadata", "subkeys", "undelete"):
            return Answer(404, warnings=[_OLD_PATH])
        handler = getattr(self, f"_{operation}_{kind}", None)
        if handler is None:
            raise unsupported("operation")
        answer: Answer = handler(name, query if operation in ("read", "list") else body)
        return answer

    def _key(self, name: str) -> Key:
        if name not in self._keys:
            raise RefusedError(404)
        return self._keys[name]

    def _version(self, name: str, query: Mapping[str, str]) -> tuple[Key, int, bool]:
        """Find the version asked for, and whether it is alive."""
        text = query.get("version", "0")
        if not re.fullmatch(r"-?\d+", text):
            raise RefusedError(400, _NOT_A_NUMBER)
        key = self._key(name)
        number = int(text) or key.current
        if number not in key.versions:
            raise RefusedError(404)
        version = key.versions[number]
        return key, number, not version.destroyed and not 0 < (version.deleted or 0) <= self._now()

    def _read_data(self, name: str, query: Mapping[str, str]) -> Answer:
        key, number, alive = self._version(name, query)
        values = key.versions[number].values if alive else None
        return Answer(200 if alive else 404, data={"data": values, "metadata": key.about(number)})

    def _read_subkeys(self, name: str, query: Mapping[str, str]) -> Answer:
        def structure(value: object) -> object:
            return {name: structure(one) for name, one in value.items()} if isinstance(value, dict) and value else None

        key, number, alive = self._version(name, query)
        subkeys = (structure(key.versions[number].values) or {}) if alive else None
        return Answer(200 if alive else 404, data={"metadata": key.about(number), "subkeys": subkeys})

    def _write_data(self, name: str, body: Mapping[str, Any]) -> Answer:
        if not isinstance(body.get("data"), dict):
            raise RefusedError(400, "no data provided")
        now = self._now()
        key = self._keys.get(name) or Key(now, now)
        cas = (body.get("options") or {}).get("cas")
        if cas is None and (key.limits.cas_required or self._limits.cas_required):
            raise RefusedError(400, "check-and-set parameter required for this call")
        if cas not in (None, key.current):
            raise RefusedError(400, "check-and-set parameter did not match the current version")
        self._keys[name] = key
        lives = [limits.delete_version_after for limits in (key.limits, self._limits) if limits.delete_version_after]
        key.current, key.updated = key.current + 1, now
        key.versions[key.current] = Version(body["data"], now, now + min(lives) * SECOND if lives else None)
        kept = max(key.limits.max_versions, self._limits.max_versions) or 10
        if key.current - key.oldest >= kept:
            key.oldest = key.current - kept + 1
            key.versions = {number: one for number, one in key.versions.items() if number >= key.oldest}
        return Answer(data=key.about(key.current))

    def _patch_data(self, name: str, body: Mapping[str, Any]) -> Answer:
        key, number, alive = self._version(name, {})
        if not alive:
            raise RefusedError(404)
        merged = _merge(key.versions[number].values, body.get("data"))
        return self._write_data(name, {**body, "data": merged})

    def _delete_data(self, name: str, body: Mapping[str, Any]) -> Answer:
        return self._write_delete(name, {"versions": [self._keys[name].current] if name in self._keys else []})

    def _chosen(self, name: str, body: Mapping[str, Any]) -> list[Version]:
        key = self._keys.get(name)
        return [key.versions[int(one)] for one in body.get("versions", []) if key and int(one) in key.versions]

    def _write_delete(self, name: str, body: Mapping[str, Any]) -> Answer:
        now = self._now()
        for version in self._chosen(name, body):
            version.deleted = min(version.deleted or now, now)
        return Answer(204)

    def _write_undelete(self, name: str, body: Mapping[str, Any]) -> Answer:
        for version in self._chosen(name, body):
            version.deleted = version.deleted if version.destroyed else None
        return Answer(204)

    def _write_destroy(self, name: str, body: Mapping[str, Any]) -> Answer:
        for version in self._chosen(name, body):
            version.destroyed, version.values = True, None
        return Answer(204)

    def _read_metadata(self, name: str, query: Mapping[str, str]) -> Answer:
        key = self._key(name)
        return Answer(
            data={
                **key.limits.shown(),
                "created_time": rfc3339(key.created),
                "current_metadata_version": key.edits,
                "current_version": key.current,
                "custom_metadata": key.custom,
                "metadata_cas_required": False,
                "oldest_version": key.oldest,
                "updated_time": rfc3339(key.updated),
                "versions": {str(number): version.times() for number, version in key.versions.items()},
            }
        )

    def _list_metadata(self, name: str, query: Mapping[str, str]) -> Answer:
        return listing(self._keys, name)

    def _write_metadata(self, name: str, body: Mapping[str, Any]) -> Answer:
        now = self._now()
        key = self._keys.setdefault(name, Key(now, now))
        key.limits.update(body)
        key.custom = body.get("custom_metadata", key.custom)
        key.edits += 1
        return Answer(204)

    def _delete_metadata(self, name: str, body: Mapping[str, Any]) -> Answer:
        self._keys.pop(name, None)
        return Answer(204)

    def _read_config(self, name: str, query: Mapping[str, str]) -> Answer:
        return Answer(data=self._limits.shown())

    def _write_config(self, name: str, body: Mapping[str, Any]) -> Answer:
        self._limits.update(body)
        return Answer(204)


def _merge(old: object, new: object) -> object:
    """Merge as RFC 7396 has it: null takes a field away."""
    if not isinstance(new, dict):
        return new
    merged = dict(old) if isinstance(old, dict) else {}
    for name, value in new.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = _merge(merged.get(name), value)
    return merged
