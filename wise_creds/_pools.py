"""Connection pools of one client: the one in use, and older ones until their last answer is read."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from wise_creds._generation import Generation

Pool = TypeVar("Pool")


class Pinned(Generic[Pool]):
    """A pool of one generation and the number of responses under way on it."""

    def __init__(self, pool: Pool, owner: tuple[object, ...]) -> None:
        self.pool = pool
        self.owner = owner
        self.in_flight = 0
        self.retired = False


class Pools(Generic[Pool]):
    """The pool in use, and older ones until their last response is read."""

    def __init__(self, make: Callable[[Generation], Pool]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._held: Pinned[Pool] | None = None
        self._pid = os.getpid()

    def pin(self, generation: Generation, loop: object = None) -> tuple[Pinned[Pool], Pool | None]:
        """Give the pool for a request, and an older one that may be closed now."""
        if os.getpid() != self._pid:  # the parent's connections are not ours to use or to close
            self._lock, self._held, self._pid = threading.Lock(), None, os.getpid()
        owner = (generation, loop)
        with self._lock:
            idle = None
            held = self._held
            if held is not None and held.owner != owner:
                held.retired = True
                idle = held.pool if held.in_flight == 0 and held.owner[1] is loop else None
                held = None
            if held is None:
                held = self._held = Pinned(self._make(generation), owner)
            held.in_flight += 1
            return held, idle

    def release(self, pinned: Pinned[Pool]) -> Pool | None:
        """Note that a response is done; give the pool if it may be closed now."""
        with self._lock:
            pinned.in_flight -= 1
            return pinned.pool if pinned.retired and pinned.in_flight == 0 else None

    def take(self) -> Pool | None:
        """Give the pool in use to whoever closes the client."""
        with self._lock:
            held, self._held = self._held, None
            return None if held is None or os.getpid() != self._pid else held.pool
