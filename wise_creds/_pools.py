"""Connection pools of one client: the one in use, and older ones until their last answer is read."""

from __future__ import annotations

import os
import socket
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Generic, TypeVar

from wise_creds._generation import Generation

Pool = TypeVar("Pool")


class Pinned(Generic[Pool]):
    """A pool of one generation, the event loop that it lives in, and the number of responses under way on it."""

    def __init__(self, pool: Pool, generation: Generation, loop: object) -> None:
        self.pool = pool
        self.generation = generation
        self.loop = loop
        self.in_flight = 0
        self.retired = False
        self.sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()


class Pools(Generic[Pool]):
    """
    The pool in use, and older ones until their last response is read.

    Args:
        make: makes a pool.
        current: gives the generation in use now.
        shut: closes a pool, from any thread.
    """

    def __init__(
        self,
        make: Callable[[Generation], Pool],
        current: Callable[[], Generation],
        shut: Callable[[Pinned[Pool]], None],
    ) -> None:
        self._make = make
        self._current = current
        self._shut = shut
        self._start()

    def _start(self) -> None:
        self._lock = threading.Lock()
        self._held: Pinned[Pool] | None = None
        self._leaving: set[Pinned[Pool]] = set()
        self._pid = os.getpid()

    def pin(self, generation: Generation, loop: object = None) -> Pinned[Pool]:
        """Give the pool for a request."""
        if self._foreign():  # the parent's connections are not ours to use or to close
            self._start()
        with self._lock:
            held = self._held
            if held is None or held.generation is not generation or held.loop is not loop:
                held = Pinned(self._make(generation), generation, loop)
                if generation is self._current():
                    self._retire()
                    self._held = held
                else:  # there was a swap on the way here: this pool is for one request
                    held.retired = True
                    self._leaving.add(held)
            held.in_flight += 1
            return held

    def release(self, pinned: Pinned[Pool]) -> Pool | None:
        """Note that a response is done; give the pool if it may be closed now."""
        if self._foreign():
            return None
        with self._lock:
            pinned.in_flight -= 1
            if not pinned.retired or pinned.in_flight or pinned not in self._leaving:
                return None
            self._leaving.discard(pinned)
            return pinned.pool

    def retire(self, number: int) -> int:
        """Take the pool of a replaced generation out of use, close it if it is idle; how many up to `number` still work."""
        if self._foreign():
            return 0
        with self._lock:
            if self._held is not None and self._held.generation is not self._current():
                self._retire()
            return sum(pinned.generation.number <= number for pinned in self._leaving)

    def end(self, number: int) -> None:
        """Close pools of generations up to `number`, whatever is under way on them."""
        if self._foreign():
            return
        with self._lock:
            ended = {pinned for pinned in self._leaving if pinned.generation.number <= number}
            self._leaving -= ended
        for pinned in ended:
            for one in list(pinned.sockets):
                with suppress(OSError):
                    # Closing alone would leave a thread that waits in recv() there.
                    socket.socket.shutdown(one, socket.SHUT_RDWR)
            self._shut(pinned)

    def _foreign(self) -> bool:
        """Whether this is a forked child that has no pool of its own yet; its parent's lock may be held for ever."""
        return os.getpid() != self._pid

    def _retire(self) -> None:
        held, self._held = self._held, None
        if held is None:
            return
        held.retired = True
        if held.in_flight:
            self._leaving.add(held)
        else:
            self._shut(held)

    def take(self) -> Pool | None:
        """Give the pool in use to whoever closes the client."""
        if self._foreign():
            return None
        with self._lock:
            held, self._held = self._held, None
            return None if held is None else held.pool
