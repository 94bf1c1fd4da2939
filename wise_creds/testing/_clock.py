"""A clock that tests move by hand."""

from __future__ import annotations

import threading

from wise_creds.clock import Clock


class FakeClock(Clock):
    """
    Time that stands still until a test moves it; waiting wakes when the event is set or the time has come.

    Args:
        wall: seconds since 1970 UTC at the beginning.
    """

    def __init__(self, wall: float = 1_800_000_000.0) -> None:
        self._boot = 1_000.0
        self._wall = wall
        self._moved = threading.Condition()

    def boot(self) -> float:
        """Seconds since boot."""
        return self._boot

    def wall(self) -> float:
        """Seconds since 1970 UTC."""
        return self._wall

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """Wait for the event or for the fake time to pass; real time does not count."""
        until = self._boot + seconds
        with self._moved:
            # Whoever sets the event does not know of this condition, hence the short real pauses.
            while not event.is_set() and self._boot < until:
                self._moved.wait(0.001)
        return event.is_set()

    def advance(self, seconds: float) -> None:
        """Let time pass on both clocks."""
        with self._moved:
            self._boot += seconds
            self._wall += seconds
            self._moved.notify_all()

    def step_wall(self, seconds: float) -> None:
        """Set the wall clock forward or back, as an administrator or NTP does."""
        self._wall += seconds

    def suspend(self, seconds: float) -> None:
        """Let the machine sleep: both clocks have moved when it wakes, and nobody was told meanwhile."""
        self._boot += seconds
        self._wall += seconds
