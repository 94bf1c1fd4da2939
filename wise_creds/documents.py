"""Documents that hold several fields (JSON, TOML), read the same way by every provider; for use within the shield."""

from __future__ import annotations

import hmac
import json
import os
import tomllib
from collections.abc import Mapping
from functools import cache
from hashlib import sha256

from wise_creds.errors import CredentialsError, printable
from wise_creds.provider import CANONICAL_FIELDS
from wise_creds.secret import Secret


class _TwiceError(ValueError):
    pass


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    if len({key for key, _ in pairs}) < len(pairs):
        raise _TwiceError
    return dict(pairs)


def read_document(raw: bytes, kind: str, *, location: str) -> dict[str, object]:
    """
    Parse a document.

    Args:
        raw: its bytes, UTF-8.
        kind: `"JSON"` or `"TOML"`.
        location: for messages.

    Raises:
        CredentialsError: not that kind (WC309), or not an object with each key once (WC310).
    """
    content: object
    try:
        text = raw.decode("utf-8-sig")
        content = tomllib.loads(text) if kind == "TOML" else json.loads(text, object_pairs_hook=_once)
    except _TwiceError:
        raise CredentialsError("a key stands there twice", code="WC310", location=location,
                               hint="keep one of the two") from None  # fmt: skip
    except (ValueError, RecursionError):
        raise CredentialsError(f"not {kind}", code="WC309", location=location,
                               hint=f"check it with a {kind} parser; it must be UTF-8") from None  # fmt: skip
    if not isinstance(content, dict):
        raise CredentialsError("not a JSON object", code="WC310", location=location,
                               hint='store {"client_id": "...", "client_secret": "..."}')  # fmt: skip
    return content


def pick_fields(
    document: Mapping[str, object], renamed: Mapping[str, str] | None, *, location: str
) -> tuple[dict[str, Secret], tuple[str, ...]]:
    """
    Take the fields out of a document.

    Args:
        document: names to values; a nested object is reached by a dotted name, unless a key has the dot itself.
        renamed: canonical names to the names used here; the rest is taken by its own name.
        location: for messages.

    Returns:
        The fields, and every name seen.

    Raises:
        CredentialsError: a field's value is not a string (WC310).
    """
    renamed = renamed or {}
    chosen = {name: _at(document, key) for name, key in renamed.items()}
    chosen |= {key: value for key, value in document.items() if key not in (*renamed, *renamed.values())}
    fields: dict[str, Secret] = {}
    for name, value in chosen.items():
        if isinstance(value, str):
            fields[name] = Secret(value, name=printable(name))
        elif value is not None and (name in renamed or name in CANONICAL_FIELDS):
            raise CredentialsError("the value is not a string", code="WC310", location=f"{location}: {printable(name)}",
                                   hint="put it in quotes")  # fmt: skip
    return fields, tuple(document)


def _at(document: Mapping[str, object], key: str) -> object:
    if key in document:
        return document[key]
    value: object = document
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def put_fields(document: dict[str, object], fields: Mapping[str, Secret], renamed: Mapping[str, str] | None) -> None:
    """Change fields of a document, where `pick_fields` found them or would find them."""
    for name, value in fields.items():
        key = (renamed or {}).get(name, name)
        place = document
        while key not in place and isinstance(inner := place.get(key.partition(".")[0]), dict):
            key, place = key.partition(".")[2], inner
        place[key] = value.reveal()


def fingerprint(fields: Mapping[str, Secret]) -> str:
    """
    Make a version for a store that has none.

    Nobody can test guesses of the content against it: its key never leaves the process.
    """
    mac = hmac.new(_process_key(), digestmod=sha256)
    for name in sorted(fields):
        for part in (name.encode(), fields[name].reveal_bytes()):
            mac.update(len(part).to_bytes(8, "big") + part)
    return mac.hexdigest()[:16]


@cache
def _process_key() -> bytes:
    return os.urandom(32)
