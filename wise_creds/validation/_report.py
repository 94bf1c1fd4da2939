"""What `validate` found, and how it is told."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Literal

from wise_creds.errors import Notice, WiseCredsError

Status = Literal["ok", "warning", "error", "skipped", "unverified"]


@dataclass(frozen=True, kw_only=True)
class Result:
    """
    One check.

    Attributes:
        code: stable, `WC…`, explained in docs/errors.md.
        status: `skipped`: its precondition failed; `unverified`: it could not be decided, or was not asked for.
        asked: False for what lies beyond the level asked for; such a result is shown but never counted.
        namespace: whose, None for the file as a whole.
        source: where.
        message: what was found.
        hint: what to do.
    """

    code: str
    status: Status
    message: str
    asked: bool = True
    namespace: str | None = None
    source: str | None = None
    hint: str | None = None


def from_error(error: WiseCredsError) -> Result:
    """Make a result of an error; what may succeed later by itself is not decided."""
    return Result(code=error.code, status="unverified" if error.retryable else "error", message=error.message,
                  namespace=error.namespace, source=error.location, hint=error.hint)  # fmt: skip


def from_notice(notice: Notice) -> Result:
    """Make a result of a notice; mere information passes."""
    return Result(code=notice.code, status="warning" if notice.level == "warning" else "ok", message=notice.message,
                  namespace=notice.namespace, source=notice.location, hint=notice.hint)  # fmt: skip


@dataclass(frozen=True)
class Report:
    """All results of one validation; the verdict and the exit code are computed from them."""

    results: tuple[Result, ...]
    strict: bool = False
    unusable: bool = False
    """The configuration could not even be read."""

    @property
    def verdict(self) -> Literal["ok", "findings", "unverified"]:
        """`findings` wins over `unverified`."""
        asked = {result.status for result in self.results if result.asked}
        if "error" in asked or (self.strict and "warning" in asked):
            return "findings"
        return "unverified" if "unverified" in asked else "ok"

    @property
    def exit_code(self) -> int:
        """0 ok, 1 findings, 2 no usable configuration, 3 could not be verified."""
        return 2 if self.unusable else {"ok": 0, "findings": 1, "unverified": 3}[self.verdict]

    def as_dict(self) -> dict[str, object]:
        """Give the report as JSON-safe data, version 1."""
        return {"version": 1, "verdict": self.verdict, "results": [asdict(result) for result in self.results]}

    def as_json(self) -> str:
        """Give the report as JSON."""
        return json.dumps(self.as_dict(), indent=2)

    def as_text(self) -> str:
        """Give the report for a person; readable without colour."""
        lines: list[str] = []
        for namespace in dict.fromkeys(result.namespace for result in self.results):
            lines.append(namespace or "configuration")
            for result in self.results:
                if result.namespace == namespace:
                    lines += _told(result)
            lines.append("")
        counted = Counter(result.status for result in self.results if result.asked)
        beyond = sum(not result.asked for result in self.results)
        rest = ", ".join(f"{counted[status]} {status}" for status in ("warning", "error", "skipped", "unverified")
                         if counted[status])  # fmt: skip
        lines.append(f"{self.verdict}: {counted['ok']} of {sum(counted.values())} checks passed"
                     + (f" ({rest})" if rest else "") + (f"; {beyond} not asked for" if beyond else ""))  # fmt: skip
        return "\n".join(lines)


def _told(result: Result) -> list[str]:
    place = f"{result.source}: " if result.source else ""
    said = [f"  {result.status:<10} {result.code}  {place}{result.message}"]
    return said if not result.hint or result.status == "ok" else [*said, f"                     hint: {result.hint}"]
