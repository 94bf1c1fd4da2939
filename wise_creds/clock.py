"""Time as a parameter."""

from __future__ import annotations

import threading
import time
from functools import partial
from typing import TYPE_CHECKING

_BOOT_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class Clock:
    """The machine's clocks; `wise_creds.testing.FakeClock` stands in for it in tests."""

    if TYPE_CHECKING:

        def boot(self) -> float:
            """Seconds since boot, suspend included where the system counts it; no step of the wall clock moves it."""
            ...

    else:  # without a Python frame of its own, for it is most of what a cached token costs
        boot = staticmethod(partial(time.clock_gettime, _BOOT_CLOCK))

    def wall(self) -> float:
        """Seconds since 1970-01-01 UTC."""
        return time.time()

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """Wait until the event is set, at most so many seconds; whether it is set."""
        return event.wait(seconds)


SYSTEM_CLOCK = Clock()
