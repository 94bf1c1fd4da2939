"""The process environment as a parameter that shows nothing of itself."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping


class Environ(Mapping[str, str]):
    """
    Variables that a traceback with locals does not print.

    An environment holds more secrets than ours, and `repr(os.environ)` in any frame of ours would show them all.
    """

    def __init__(self, variables: Mapping[str, str] = os.environ) -> None:
        self._variables = variables

    def __getitem__(self, name: str) -> str:
        return self._variables[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._variables)

    def __len__(self) -> int:
        return len(self._variables)

    def __repr__(self) -> str:
        return f"<{len(self)} environment variables>"
