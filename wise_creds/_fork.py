"""What must not outlive a fork: locks that another thread held, threads that did not come along."""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class Resettable(Protocol):
    """Something that starts clean in a forked child."""

    def reset(self) -> None:
        """Start clean."""
        ...


_known: weakref.WeakSet[Resettable] = weakref.WeakSet()


def reset_in_child(thing: Resettable) -> None:
    """Have a thing reset in every child that is forked from now on, as long as it lives."""
    _known.add(thing)


def _after_fork() -> None:
    for thing in list(_known):
        thing.reset()


os.register_at_fork(after_in_child=_after_fork)
