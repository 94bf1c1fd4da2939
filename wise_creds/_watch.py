"""Looking at the source now and then: a daemon thread from the first use on; use itself where that thread is frozen."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from contextlib import suppress

from wise_creds._engine import Job
from wise_creds.clock import Clock

_SPREAD = (0.8, 1.2)  # of the interval between two looks, so that a fleet does not ask in step
_LATE = 1.0  # seconds after which the thread is taken to be frozen, or gone with a fork


class Watch:
    """
    When to look.

    Args:
        interval: seconds between two looks, more or less a fifth; 0 for none.
        look: what to do; held weakly, so that watching keeps nothing alive.
        clock: time.
        uniform: randomness.
    """

    def __init__(
        self,
        interval: float,
        look: weakref.WeakMethod[Callable[[], None]],
        *,
        clock: Clock,
        uniform: Callable[[float, float], float],
    ) -> None:
        self._interval = interval
        self._look = look
        self._clock = clock
        self._uniform = uniform
        self._closed = False
        self._begun = False
        self.reset()

    def reset(self) -> None:
        """Start anew: nobody watches yet; also in the child of a fork."""
        self._lock = threading.Lock()
        self._woken = threading.Event()
        self._watching = False
        self._next()

    def begin(self) -> None:
        """Let use count from now on: what `connect` itself does would start a thread that a fork leaves behind."""
        self._begun = True
        self._next()

    def set(self, interval: float) -> None:
        """Change the interval."""
        self._interval, self._begun = interval, True
        self._next()
        self._woken.set()
        self.pulse()

    def pulse(self) -> None:
        """Take note of use: have the thread started, or look in its stead."""
        if not (self._interval and self._begun) or (self._watching and self._clock.boot() <= self._at + _LATE):
            return
        with self._lock:
            if self._closed:
                return
            # Where no thread can be started now, whoever uses a token is not to suffer from that.
            if not self._watching:
                self._watching = True
                try:
                    Job(self._watch, name="watch")
                except RuntimeError:
                    self._watching = False
            elif self._clock.boot() > self._at + _LATE:  # pragma: no branch  else another thread was first
                self._next()
                with suppress(RuntimeError):
                    Job(lambda _job: self._looked(), name="probe")

    def close(self) -> None:
        """Look no more."""
        self._closed = True
        self._woken.set()

    def _next(self) -> None:
        self._at = self._clock.boot() + self._interval * self._uniform(*_SPREAD)

    def _looked(self) -> bool:
        look = self._look()
        if look is not None:
            look()
        return look is not None

    def _watch(self, _job: Job[None]) -> None:
        woken = self._woken
        while self._interval and not self._closed:
            self._clock.wait(woken, max(0.0, self._at - self._clock.boot()))
            if not self._closed:
                woken.clear()
            if self._clock.boot() >= self._at and self._interval and not self._closed:
                self._next()
                if not self._looked():
                    break
        self._watching = False
