"""
The contract between wise-creds and a provider: all that the author of a plug-in has to read.

A distribution offers a provider by an entry point of the group `wise_creds.providers`, whose name is what users write
as `provider = "…"` and whose object is a class like `Provider`. The core calls it within the shield, so foreign
exceptions and log records of an SDK never reach anybody: raise errors of `wise_creds.errors` for what you foresee, import
the SDK inside the method that needs it (a missing one is then reported with the install command), and give every value
as a `Secret`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Protocol, runtime_checkable

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationInfo
from pydantic_core import PydanticCustomError

from wise_creds.clock import Clock
from wise_creds.errors import Notice
from wise_creds.namespace import Namespace
from wise_creds.secret import Secret

CANONICAL_FIELDS = (
    "client_id",
    "client_secret",
    "certificate",
    "private_key",
    "private_key_password",
    "pkcs12",
    "pkcs12_password",
    "ca_bundle",
    "environment",
    "personal_token",
)
"""The names that the core knows; any further field is kept as `credentials.extra[name]`."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SecretDocument:
    """
    What one source gave.

    Args:
        fields: canonical (or further) names to values.
        version: changes whenever the content does; no fingerprint that outsiders could recompute.
        location: where it came from, for messages: a store's own name for the place, never a value.
        changed_at: when this version was made, aware UTC, where the store knows.
        notices: what the source wants to say beside it.
        names: all names seen in the store, so that a missing field can be matched with a likely spelling.
    """

    fields: Mapping[str, Secret]
    version: str
    location: str
    changed_at: datetime | None = None
    notices: tuple[Notice, ...] = ()
    names: tuple[str, ...] = ()


class Options(BaseModel):
    """The base of a provider's options: unknown keys are errors, and pydantic never quotes an input."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, arbitrary_types_allowed=True)


class Provider(Protocol):
    """
    One source. Constructing it does no I/O.

    Args:
        options: an instance of the class's `Options`.
        namespace: whose source it is.
        environ: the process environment, to be used instead of `os.environ`.
        clock: time; `deadline` below is a point on its `boot()`, in seconds.

    A class may say by an attribute `watch` how many seconds there should be between two probes (60 otherwise).
    """

    Options: Any
    """A pydantic model, best derived from `wise_creds.Options`; Any, so that each class may name its own."""

    def __init__(
        self,
        options: Any,  # noqa: ANN401  an instance of the class's own Options
        *,
        namespace: Namespace,
        environ: Mapping[str, str],
        clock: Clock,
    ) -> None: ...

    def fetch(self, *, deadline: float, version: str | None = None) -> SecretDocument:
        """
        Read the secret: the current version, or the one named where the store keeps several.

        Raises:
            SecretNotFoundError: asked, and there is none.
            AccessDeniedError: asked, and refused.
            ProviderUnavailableError: could not ask.
            CredentialsError: what is there has not the shape that the options promise.
        """
        ...

    def probe(self, *, deadline: float) -> str | None:
        """Give the current version without reading values; None where only `fetch` can tell."""
        ...

    def close(self) -> None:
        """Let go of connections; may be called twice."""
        ...


@runtime_checkable
class Staging(Protocol):
    """
    What a provider adds if its store can hold a pending version beside the current one.

    `expected` is the version that must still be current, else `RotationError`.
    """

    def stage(self, fields: Mapping[str, Secret], *, deadline: float) -> str:
        """Write the pending version and give its name."""
        ...

    def fetch_staged(self, *, deadline: float) -> SecretDocument | None:
        """Read the pending version; None if nothing is staged."""
        ...

    def promote(self, expected: str, *, deadline: float) -> None:
        """Make the pending version the current one."""
        ...

    def rollback(self, expected: str, *, deadline: float) -> None:
        """Make the previous version the current one again."""
        ...

    def discard(self, *, deadline: float) -> None:
        """Drop the pending version."""
        ...


def _anchored(path: Path, info: ValidationInfo) -> Path:
    base = (info.context or {}).get("base", ".")
    return Path(os.path.abspath(Path(base) / path))  # noqa: PTH100  resolve() would follow links


ConfigPath = Annotated[Path, AfterValidator(_anchored)]
"""A path in options: relative ones start at the folder of wise-creds.toml."""


def option_problem(message: str, *, code: str = "WC105", hint: str = "") -> PydanticCustomError:
    """Make the exception by which a validator of `Options` refuses; the message must not hold the value."""
    return PydanticCustomError("wise_creds", "{message}", {"message": message, "code": code, "hint": hint})
