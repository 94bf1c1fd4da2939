"""
The one way to wait: a call in a short-lived daemon thread, its outcome awaited by threads and tasks alike.

So a deadline is wall time, whatever a resolver, a handshake or a mount does, and an event loop never blocks. A call
that is given up is told so (`Job.abandoned`, `Job.on_abandon`) and its late outcome is dropped.
"""

from __future__ import annotations

import contextvars
import math
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

from wise_creds.clock import Clock
from wise_creds.shield import Outcome, Translate, attempt, unexpected

T = TypeVar("T")


class Job(Generic[T]):
    """
    One call under way.

    Args:
        call: gets the job; runs within the shield.
        name: the thread's name.
        translate: makes our error out of a foreign exception.

    Attributes:
        abandoned: set when nobody waits any more.
        last_failure: what a call that tries several times met last; it says more than a deadline.
    """

    def __init__(self, call: Callable[[Job[T]], T], *, name: str, translate: Translate = unexpected) -> None:
        self._future: Future[Outcome[T]] = Future()
        self._finished = threading.Event()
        self._cancellers: list[Callable[[], None]] = []
        self._lock = threading.Lock()
        self.abandoned = threading.Event()
        self.last_failure: BaseException | None = None
        context = contextvars.copy_context()

        def work() -> None:
            self._future.set_result(context.run(lambda: attempt(lambda: call(self), translate)))
            self._finished.set()

        threading.Thread(target=work, name=f"wise-creds {name}", daemon=True).start()

    @property
    def done(self) -> bool:
        """Whether the outcome is there."""
        return self._future.done()

    @property
    def value(self) -> T | None:
        """What the call gave; None while it runs, and if it failed."""
        return self._future.result().value if self._future.done() else None

    def wait(self, clock: Clock, deadline: float) -> Outcome[T] | None:
        """Wait until the outcome is there (None: the deadline, a point on `clock.boot()`, came first)."""
        clock.wait(self._finished, max(0.0, deadline - clock.boot()))
        return self._future.result() if self._future.done() else None

    async def wait_async(self, clock: Clock, deadline: float) -> Outcome[T] | None:
        """Do the same as `wait` without blocking the event loop."""
        import asyncio  # takes longer to import than a token to arrive, and services without it need none

        waiter = asyncio.wrap_future(self._future)
        left = None if deadline == math.inf else max(0.0, deadline - clock.boot())
        await asyncio.wait({waiter}, timeout=left)
        if waiter.done():
            return waiter.result()
        return None

    def on_abandon(self, cancel: Callable[[], None]) -> None:
        """Have `cancel` called, in the waiter's thread, if the job is given up."""
        with self._lock:
            if not self.abandoned.is_set():
                self._cancellers.append(cancel)
                return
        cancel()

    def abandon(self) -> None:
        """Give the job up."""
        with self._lock:
            self.abandoned.set()
            cancellers, self._cancellers = self._cancellers, []
        for cancel in cancellers:
            cancel()
