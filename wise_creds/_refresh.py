"""
Replacing the generation of a connection: read, check, prove with a token, swap in one assignment, let the old one drain.

Whatever fails before the swap leaves the last good generation in its place.
"""

from __future__ import annotations

import copy
import logging
import random
import threading
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from wise_creds._engine import Job
from wise_creds._fork import reset_in_child
from wise_creds._generation import Generation, build
from wise_creds._listeners import Listeners
from wise_creds._loader import Loader, announce
from wise_creds._retry import BackOff, closed
from wise_creds._slots import Watcher
from wise_creds._watch import Watch
from wise_creds.clock import Clock
from wise_creds.credentials import Credentials
from wise_creds.documents import fingerprint
from wise_creds.errors import (
    LoadError,
    ProviderError,
    ProviderUnavailableError,
    WiseCredsError,
)
from wise_creds.secret import Secret
from wise_creds.shield import Outcome

log = logging.getLogger("wise_creds")

MAX_DRAIN = 60.0  # seconds that a response may take to be read after its generation was replaced


class Drains(Protocol):
    """Something with connections of older generations."""

    def retire(self, number: int) -> int:
        """Let idle ones go; how many of generations up to this one are still at work."""
        ...

    def end(self, number: int) -> None:
        """Let those go too."""
        ...


@dataclass(frozen=True)
class Rejected:
    """A version that was read and is not used: its error's code, when, and when it is tried again (seconds, 1970 UTC)."""

    version: str | None
    code: str
    at: float
    retry_at: float


class Refresher(Watcher):
    """
    The present generation, and what replaces it.

    Args:
        loader: the opened sources.
        credentials: what the first generation is made of.
        clock: time.
        environ: the process environment, for messages.
        uniform: randomness.
    """

    def __init__(
        self, loader: Loader, credentials: Credentials, *, clock: Clock, environ: Mapping[str, str],
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:  # fmt: skip
        self.loader = loader
        self.clock = clock
        self.uniform = uniform
        self._environ = environ
        self.listeners = Listeners()
        self.version = credentials.version
        self.checked_at = clock.wall()
        self.source_error: str | None = None
        self.rejected: Rejected | None = None
        self._probed: str | None = None
        self._drains: weakref.WeakSet[Drains] = weakref.WeakSet()
        self.watch = Watch(loader.interval(), weakref.WeakMethod(self.look), clock=clock, uniform=uniform)
        self._closed = False
        self.generation = self._built(1, credentials)
        self.reset()
        reset_in_child(self)

    def reset(self) -> None:
        """Start clean: nothing under way; also in the child of a fork."""
        # Reentrant for the sake of those who call `refresh` in a signal handler.
        self._lock, self._work = threading.RLock(), threading.Lock()
        self._job: Job[bool] | None = None
        self._joinable = False
        self._rest = BackOff(self.uniform)
        self.listeners.reset()
        self.watch.reset()

    def join(self, drain: Drains) -> None:
        """Have connections of older generations let go at each swap."""
        with self._lock:
            self._drains.add(drain)

    def running(self) -> Job[bool] | None:
        """Give the refresh under way."""
        with self._lock:
            return None if self._job is None or self._job.done else self._job

    def refresh(self, *, discard: bool) -> bool:
        """Read the source now; whether there is a new generation."""
        before = self.generation
        self._told(self.start(discard=discard, explicit=True).wait(self.clock, self.deadline()))
        return self.generation is not before

    async def arefresh(self, *, discard: bool) -> bool:
        """Do the same as `refresh` without blocking the event loop."""
        before = self.generation
        self._told(await self.start(discard=discard, explicit=True).wait_async(self.clock, self.deadline()))
        return self.generation is not before

    def _told(self, outcome: Outcome[bool] | None) -> None:
        if outcome is None:
            raise LoadError([ProviderUnavailableError("the refresh did not end in time", code="WC304",
                                                      namespace=self.loader.config.namespace,
                                                      hint="is the store reachable from here?")])  # fmt: skip
        # Each waiter raises an error of its own: one object in several threads would collect all their tracebacks.
        Outcome(outcome.value, copy.copy(outcome.error)).unwrap()

    def deadline(self) -> float:
        """Give the point on the boot clock by which a refresh that begins now has ended."""
        # One for what may be under way, one for the sources, one for the token; each ends by itself.
        return self.clock.boot() + 3 * self.loader.config.options.deadline

    def start(self, *, discard: bool = False, explicit: bool = False) -> Job[bool]:
        """
        Begin to read the source, or join in.

        Args:
            discard: let old tokens and connections go at once, even if nothing has changed.
            explicit: somebody has asked: what is there now counts, not what a reading under way may have missed, and a
                version that was rejected is tried again.
        """
        with self._lock:
            if self._closed:
                raise closed()
            if discard or self._job is None or self._job.done or (explicit and not self._joinable):
                self._joinable = True
                self._job = Job(lambda _job: self._refreshed(discard=discard, explicit=explicit), name="refresh")
            return self._job

    def _refreshed(self, *, discard: bool, explicit: bool) -> bool:
        with self._work:
            self._joinable = False
            version = None
            try:
                fields = self.loader.read()
                version = fields.version
                self.checked_at, self.source_error = self.clock.wall(), None
                if not (discard or explicit) and self._rests(version):
                    return False
                checked = self.loader.check(fields)
                if checked.credentials is None:
                    raise LoadError(checked.errors)
                if not discard and _content(checked.credentials) == _content(self.generation.credentials):
                    self._good(version)
                    return False
                new = self._proved(checked.credentials)
            except WiseCredsError as problem:
                self._failed(problem, version)
                raise
            old, self.generation = self.generation, new
            self._good(version)
            if self._closed:  # meanwhile
                new.cache.close()
                raise closed()
            announce(checked.notices)
            log.info("generation %d of %s serves now", new.number, new.credentials.namespace)
            self._drain(old, at_once=discard)
            self.listeners.tell(new)
        return True

    def _rests(self, version: str) -> bool:
        """Whether a version was rejected so lately that it is not tried again."""
        rejected = self.rejected
        return rejected is not None and rejected.version == version and self.clock.wall() < rejected.retry_at

    def _good(self, version: str) -> None:
        self.version, self.rejected = version, None
        self._rest.end()

    def _built(self, number: int, credentials: Credentials) -> Generation:
        return build(number, credentials, self.loader.config, clock=self.clock, environ=self._environ, watcher=self)

    def _proved(self, credentials: Credentials) -> Generation:
        unusable: WiseCredsError | None = None
        try:
            new = self._built(self.generation.number + 1, credentials)
        except WiseCredsError as problem:
            unusable = problem
        if unusable is not None:
            raise LoadError([unusable])
        new.cache.share(new.cache.fetch())
        return new

    def _failed(self, problem: WiseCredsError, version: str | None) -> None:
        """Remember what was wrong: with the source, or with what it gave."""
        told = problem.errors if isinstance(problem, LoadError) else (problem,)
        broken = next((error for error in told if not isinstance(error, ProviderError)), None)
        if broken is None:
            self.source_error = problem.code
        else:
            now = self.clock.wall()
            self.rejected = Rejected(version or self._probed, broken.code, now, now + self._rest.pause())
        log.warning("no new generation, the present one serves on: %s", problem)

    def _drain(self, old: Generation, *, at_once: bool) -> None:
        if at_once:
            old.cache.close()
        busy = self._busy(old.number)
        if at_once:
            self._end(old.number)
        elif busy:
            Job(lambda _job: self._drained(old.number), name="drain")

    def _drained(self, number: int) -> None:
        end = self.clock.boot() + MAX_DRAIN
        while self._busy(number):
            left = end - self.clock.boot()
            if left <= 0 or self._closed:
                self._end(number)
                return
            self.clock.wait(threading.Event(), min(1.0, left))

    def _busy(self, number: int) -> int:
        return sum([drain.retire(number) for drain in self._joined()])

    def _end(self, number: int) -> None:
        for drain in self._joined():
            drain.end(number)

    def _joined(self) -> list[Drains]:
        with self._lock:
            return list(self._drains)

    def look(self) -> None:
        """Probe, and refresh if there is another version; failures are in `status()` and in the log."""
        versions, problem = self.loader.probe()
        if problem is not None:
            if self.source_error != problem.code:
                log.warning("the source cannot be probed, the present generation serves on: %s", problem)
            self.source_error = problem.code
            return
        self.checked_at, self.source_error = self.clock.wall(), None
        known = self._probed = None if None in versions else "+".join(map(str, versions))
        rejected = self.rejected
        if known is not None and known == self.version:
            self.rejected = None
        elif rejected is None or self.clock.wall() >= rejected.retry_at or known not in (None, rejected.version):
            self.start().wait(self.clock, self.deadline())

    def close(self) -> None:
        """End everything."""
        self._closed = True
        self.watch.close()
        self.generation.cache.close()
        self.loader.close()


def _content(credentials: Credentials) -> str:
    """Tell whether two sets of credentials are the same, wherever they came from."""
    certificate = credentials.certificate
    values = {
        "client_id": credentials.client_id,
        "client_secret": credentials.client_secret,
        "certificate": None if certificate is None else Secret(certificate.pem),
        "private_key": credentials.private_key,
        "ca_bundle": credentials.ca_bundle,
        **{f"extra {name}": value for name, value in credentials.extra.items()},
    }
    return fingerprint({name: value for name, value in values.items() if value is not None})
