"""Where tokens are kept: a slot a thread, handed on when the thread ends, or one slot for the process."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Literal

from wise_creds._engine import Job
from wise_creds.token import Token

WALL_LOOK = 1.0  # seconds of boot time between two looks at the wall clock


@dataclass(frozen=True)
class Policy:
    """
    How tokens are kept: their scope, the share of their life after which they are renewed, seconds to wait.

    Namespace and place are for messages.
    """

    scope: Literal["thread", "process"] = "thread"
    refresh_at: float = 0.8
    deadline: float = 10.0
    namespace: str | None = None
    place: str | None = None


@dataclass(slots=True, eq=False)  # not frozen: that doubles the cost of making one, and nobody else holds it
class Snapshot:
    """What a caller reads at one glance: the token, and the boot time until which nothing needs a second look."""

    look_at: float
    bearer: Callable[[], str]
    token: Token
    renew_at: float
    expires_at: float
    expires_wall: float


def taken(token: Token, now: float, share: float) -> Snapshot:
    """Take down a token at a point of boot time, to be renewed after a share of the life that is left."""
    left = token.remaining()
    # `remaining` began before the request, so what the request took is off the life already.
    renew_at = now + left * share
    look_at, ends = min(renew_at, now + WALL_LOOK), token.expires_at.timestamp()
    return Snapshot(look_at, token.bearer(), token, renew_at, now + left, ends)


def due(snapshot: Snapshot, now: float) -> Snapshot:
    """Give the same token, to be used at once and renewed in the background."""
    return replace(snapshot, look_at=now, renew_at=now)


class Watcher:
    """Whoever is told how the tokens of a cache fare; this one does not care."""

    def pulse(self) -> None:
        """Take note that tokens are in use; called about once a second and thread."""

    def refused(self, problem: BaseException) -> None:
        """Take note that a renewal in the background has failed."""


class Slot:
    """The place of one token."""

    __slots__ = ("job", "lock", "snapshot")

    def __init__(self) -> None:
        self.snapshot: Snapshot | None = None
        self.lock = threading.Lock()
        self.job: Job[Token] | None = None


class _Lease:
    """A thread's hold on a slot; when the thread ends, the slot goes to the next new thread."""

    def __init__(self, slot: Slot, free: deque[Slot]) -> None:
        self._slot = slot
        self._free = free

    def __del__(self) -> None:
        self._free.append(self._slot)


class Slots:
    """
    All slots of one cache.

    Attributes:
        mine: holds the caller's `slot`, once it has one; the same object for good, so that a closure may keep it.
        shared: a token that serves whoever has none yet.
    """

    def __init__(self, scope: Literal["thread", "process"]) -> None:
        self._one = scope == "process"
        self._all: list[Slot] = []
        self.mine: threading.local | SimpleNamespace = SimpleNamespace() if self._one else threading.local()
        self.reset()

    def reset(self) -> None:
        """Empty all slots and start anew, locks included."""
        for slot in self._all:
            slot.snapshot = None
        self.shared: Token | None = None
        self._free: deque[Slot] = deque()
        self._all = []
        self._lock = threading.Lock()
        vars(self.mine).clear()
        if self._one:
            self.take()

    def take(self) -> Slot:
        """Give the caller's slot: its own, one that an ended thread left, or a new one."""
        with contextlib.suppress(AttributeError):
            slot: Slot = self.mine.slot
            return slot
        with self._lock:
            if self._free:
                slot = self._free.popleft()
            else:
                slot = Slot()
                self._all.append(slot)
        self.mine.slot, self.mine.lease = slot, _Lease(slot, self._free)
        return slot

    def everyone(self) -> list[tuple[Slot, Snapshot]]:
        """Give all slots that hold a token, with what they hold."""
        return [(slot, snapshot) for slot in list(self._all) if (snapshot := slot.snapshot) is not None]
