"""A mapping that cannot be changed and shows nothing of itself."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import TypeVar

T = TypeVar("T")


class Quiet(Mapping[str, T]):
    """
    A read-only view whose `repr` tells only how many values there are; a copy is the same object.

    The process environment is passed about in one: it holds more secrets than ours, and a traceback with locals would
    print them all.
    """

    def __init__(self, values: Mapping[str, T]) -> None:
        self._values = values

    def __getitem__(self, name: str) -> T:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"<{len(self)} values>"

    def __deepcopy__(self, _memo: object) -> Quiet[T]:
        return self


def process_environ() -> Quiet[str]:
    """Give the environment of this process."""
    return Quiet(os.environ)
