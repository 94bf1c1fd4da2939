"""`${NAME}` in the strings of a configuration, and the way back from what it became to what was written."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

from wise_creds.errors import ConfigError, Notice, WiseCredsError, printable

Told = TypeVar("Told", WiseCredsError, Notice)
_REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")
# Where an expansion could turn a pin into what it should catch, or hide which plug-in runs.
_LITERAL = re.compile(r"provider|allow_hosts|expect_.*|.*_env")
_SHORTEST = 3  # a shorter value would be found everywhere in a message


@dataclass
class Expansion:
    """Expands the values of one namespace and remembers, so that messages can show what was written."""

    environ: Mapping[str, str]
    report: Callable[[ConfigError], None]
    written: dict[str, str] = field(default_factory=dict, repr=False)

    def expand(self, value: object, place: str, key: str = "") -> object:
        """Expand every string below a value; each problem is reported with its place."""
        if _LITERAL.fullmatch(key):
            return value
        if isinstance(value, str):
            return self._string(value, place)
        if isinstance(value, Mapping):
            return {name: self.expand(inner, f"{place}.{printable(name)}", str(name)) for name, inner in value.items()}
        if isinstance(value, list | tuple):
            return [self.expand(inner, f"{place}[{at}]") for at, inner in enumerate(value)]
        return value

    def _string(self, text: str, place: str) -> str:
        if "${" in _REFERENCE.sub("", text):
            self.report(ConfigError("a ${ that is not ${NAME} or ${NAME:-default}", code="WC106", location=place,
                                    hint="names are letters, digits and underscores"))  # fmt: skip
            return text

        def one(found: re.Match[str]) -> str:
            name, default = found[1], found[2]
            value = self.environ.get(name)
            if value is None and default is None:
                self.report(ConfigError(f"${{{name}}} is not set", code="WC106", location=place,
                                        hint=f"set it, or write ${{{name}:-default}}"))  # fmt: skip
                return ""
            if default is not None and not value:
                return default
            assert value is not None  # noqa: S101  the two cases above
            self.written[value] = found[0]
            return value

        expanded = _REFERENCE.sub(one, text)
        if expanded != text:
            self.written[expanded] = text
        return expanded

    def as_written(self, text: str) -> str:
        """Put the templates back into a message."""
        for value in sorted(self.written, key=len, reverse=True):
            if len(value) >= _SHORTEST:
                text = text.replace(value, self.written[value])
        return text


def retold(told: Iterable[Told], *, namespace: str, rewrite: Callable[[str], str]) -> list[Told]:
    """Name the namespace in errors and notices, and let `rewrite` pass over their texts."""
    result: list[Told] = []
    for one in told:
        texts = {name: rewrite(text) for name in ("message", "location", "hint") if (text := getattr(one, name))}
        if isinstance(one, Notice):
            result.append(replace(one, **texts, namespace=one.namespace or namespace))  # type: ignore[arg-type]
        else:
            again = copy.copy(one)
            vars(again).update(texts, namespace=one.namespace or namespace)
            again.args = (again.message,)
            result.append(again)
    return result
