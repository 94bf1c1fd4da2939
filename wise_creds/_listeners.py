"""Callbacks that are told of each new generation: in order, one at a time, off the request path."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable

from wise_creds._generation import Generation
from wise_creds.shield import described

log = logging.getLogger("wise_creds")

Callback = Callable[[Generation], object]


class Listeners:
    """The subscribers of one connection."""

    def __init__(self) -> None:
        self._callbacks: list[tuple[Callback]] = []
        self.reset()

    def reset(self) -> None:
        """Start clean; also in the child of a fork, where whoever was telling does not exist."""
        self._news: deque[Generation] = deque()
        self._telling = False
        self._lock = threading.Lock()

    def add(self, callback: Callback) -> Callable[[], None]:
        """Subscribe; gives what unsubscribes."""
        entry = (callback,)  # of its own, for the same callback may be added twice
        with self._lock:
            self._callbacks = [*self._callbacks, entry]

        def remove() -> None:
            with self._lock:
                self._callbacks = [one for one in self._callbacks if one is not entry]

        return remove

    def tell(self, generation: Generation) -> None:
        """Have all subscribers called, in a thread of its own: their time is not the rotation's."""
        with self._lock:
            if not self._callbacks:
                return
            self._news.append(generation)
            if self._telling:
                return
            self._telling = True
        try:
            threading.Thread(target=self._tell_all, name="wise-creds on_rotate", daemon=True).start()
        except RuntimeError:  # no thread can be started now; the next news brings this along
            self._telling = False

    def _tell_all(self) -> None:
        while True:
            with self._lock:
                if not self._news:
                    self._telling = False
                    return
                generation = self._news.popleft()
            for (callback,) in self._callbacks:
                try:
                    callback(generation)
                except BaseException as caught:  # noqa: BLE001  it is the caller's code; an exit there ends nothing here
                    log.warning("an on_rotate callback failed: %s", described(caught))
