"""What is wrong with keys and values of a configuration, in our words: never an input, always a place."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from wise_creds.errors import ConfigError, WiseCredsError, printable

_MANUAL = "docs/configuration.md has all keys; wise-creds schema prints them with their types"
_SECRET_KEY = r"(.*_)?(secret|password|passphrase|token|private_key|pkcs12|secret_id|api_key)"  # noqa: S105  names, no value


def unknown_key(key: str, known: Sequence[str], place: str) -> ConfigError:
    """Say that a key is unknown, or that it holds what no configuration may hold."""
    if re.fullmatch(_SECRET_KEY, key):
        return ConfigError("a secret does not stand in the configuration", code="WC107",
                           location=f"{place}.{printable(key)}",
                           hint="keep it in the store, or name a file or variable with *_file or *_env; "
                           "change it if this file was shared")  # fmt: skip
    return ConfigError("unknown key", code="WC103", location=f"{place}.{printable(key)}",
                       hint=did_you_mean(key, known) or _MANUAL)  # fmt: skip


def did_you_mean(key: str, known: Sequence[str], cutoff: float = 0.6) -> str | None:
    """Suggest the known name that is most like a key, at least so much (0 to 1) like it."""
    import difflib

    near = difflib.get_close_matches(key, known, n=1, cutoff=cutoff)
    return f"did you mean {near[0]}?" if near else None


def model_problems(
    invalid: ValidationError, model: type[BaseModel], place: str, *, beside: Sequence[str] = ()
) -> list[WiseCredsError]:
    """
    Tell pydantic's findings in our words: keys, kinds and limits of the model, never an input.

    Args:
        invalid: what pydantic found.
        model: whose keys are known.
        place: where the table stands.
        beside: further keys that may stand in the same table.
    """
    problems: list[WiseCredsError] = []
    for finding in invalid.errors(include_url=False, include_input=False):
        kind, path = finding["type"], _without_tag(finding["loc"], model)
        where = place + "".join(f"[{part}]" if isinstance(part, int) else f".{printable(part)}" for part in path)
        context: dict[str, Any] = finding.get("ctx", {})
        if kind == "extra_forbidden":
            known = [*model.model_fields, *beside] if len(path) == 1 else []
            problems.append(unknown_key(str(path[-1]), known, where.removesuffix(f".{printable(path[-1])}")))
        elif kind == "missing":
            problems.append(ConfigError("is missing", code="WC104", location=where, hint=_MANUAL))
        elif kind == "wise_creds":
            problems.append(ConfigError(context["message"], code=context["code"], location=where,
                                        hint=context["hint"] or None))  # fmt: skip
        else:
            problems.append(ConfigError(_wording(kind, context), code="WC105", location=where, hint=_MANUAL))
    return problems


def _without_tag(path: tuple[int | str, ...], model: type[BaseModel]) -> tuple[int | str, ...]:
    """Drop what pydantic puts behind a field that may be one of several models: the name of the one."""
    field = model.model_fields.get(str(path[0])) if path else None
    return path[:1] + path[2:] if field is not None and field.discriminator is not None else path


def _wording(kind: str, context: Mapping[str, Any]) -> str:
    if kind == "literal_error":
        return f"must be {context['expected']}"
    if kind == "union_tag_invalid":
        return f"{context['discriminator']} must be one of {context['expected_tags']}"
    if kind == "union_tag_not_found":
        return f"{context['discriminator']} is missing"
    limits = [f"{word} {context[key]}" for key, word in (("gt", "above"), ("ge", "at least"), ("lt", "below"),
                                                         ("le", "at most")) if key in context]  # fmt: skip
    if limits:
        return f"must be {limits[0]}"
    if kind == "string_pattern_mismatch":
        return f"must look like {context['pattern']}"
    return f"has the wrong type or form ({kind.replace('_', ' ')})"
