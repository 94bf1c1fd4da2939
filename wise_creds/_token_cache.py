"""
The tokens of one fetcher and their three states: fresh, due, expired.

Fresh: handed out after one comparison. Due: still handed out at once, while one background thread renews. Expired:
callers wait for one shared fetch. An expired token is never handed out, a valid one never withheld.
"""

from __future__ import annotations

import copy
import logging
import math
import random
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from wise_creds._engine import Job
from wise_creds._fork import reset_in_child
from wise_creds._retry import ATTEMPTS, Ask, BackOff, closed, late, persistently, unforeseen
from wise_creds._slots import WALL_LOOK, Policy, Slot, Slots, Snapshot, Watcher, due, taken
from wise_creds.clock import Clock
from wise_creds.errors import TokenError
from wise_creds.shield import Outcome
from wise_creds.token import Token

log = logging.getLogger("wise_creds")

_EARLIEST = 0.94  # the renewal point is refresh_at times uniform(0.94, 1): workers started together spread out
_AFTER_401 = 10.0  # seconds between two renewals because of refusals


class TokenCache:
    """
    The tokens of one fetcher.

    Args:
        ask: one token request; runs within the shield.
        clock: time.
        policy: scope, renewal point and deadline.
        uniform: randomness, `random.uniform`.
        watcher: is told of use, about once a second and thread, and of refusals that a renewal meets.
    """

    def __init__(
        self, ask: Ask, *, clock: Clock, policy: Policy, watcher: Watcher | None = None,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:  # fmt: skip
        self._watcher = watcher or Watcher()
        self._ask = ask
        self._clock = clock
        self._policy = policy
        self._uniform = uniform
        self._slots = Slots(policy.scope)
        self._mine = self._slots.mine
        self.error: TokenError | None = None
        self.closed = False
        self.reset()
        reset_in_child(self)

    def reset(self) -> None:
        """Start clean: no token, no lock, nothing under way; also called in the child of a fork."""
        self._slots.reset()
        self._renewal: Job[None] | None = None
        self._rest = BackOff(self._uniform)
        self._renew_not_before = 0.0
        self._refused_at = -math.inf
        self._replaced: Slot | None = None
        self._lock = threading.Lock()

    def close(self) -> None:
        """Forget all tokens for good; further calls raise a TokenError (WC513)."""
        self.closed = True
        self.reset()

    def header_source(self) -> Callable[[], str]:
        """Make what gives the header of the caller's token, waiting for one if need be: the path that must be fast."""
        mine, boot = self._mine, self._clock.boot

        def authorization() -> str:
            try:
                snapshot: Snapshot = mine.slot.snapshot
                if boot() < snapshot.look_at:
                    return snapshot.bearer()
            except AttributeError:  # the caller has no slot, or its slot no token yet
                pass
            return (self.current() or self.obtain()).authorization()

        return authorization

    def current(self) -> Token | None:
        """Give the caller's token if it has a valid one; one comparison while it is fresh."""
        try:
            slot: Slot = self._mine.slot
        except AttributeError:
            return None
        snapshot = slot.snapshot
        if snapshot is not None and self._clock.boot() < snapshot.look_at:
            return snapshot.token
        return self._second_look(slot)

    def _second_look(self, slot: Slot) -> Token | None:
        self._watcher.pulse()
        snapshot, now, wall = slot.snapshot, self._clock.boot(), self._clock.wall()
        if snapshot is None or now >= snapshot.expires_at or wall >= snapshot.expires_wall:
            return None
        if now >= snapshot.renew_at:
            self._renew_soon(now)
        else:
            slot.snapshot = replace(snapshot, look_at=min(snapshot.renew_at, now + WALL_LOOK))
        return snapshot.token

    def obtain(self) -> Token:
        """Give a valid token, waiting for one if need be; a TokenError if none can be had before the deadline."""
        deadline = self._clock.boot() + self._policy.deadline
        slot = self._slot()
        while True:
            token, job = self._token_or_job(slot)
            if job is None:
                return token  # type: ignore[return-value]  # it is one or the other
            settled = self._settled(slot, job, job.wait(self._clock, deadline), deadline)
            if settled is not None:
                return settled.unwrap()

    async def obtain_async(self) -> Token:
        """Do the same as `obtain` without blocking the event loop."""
        deadline = self._clock.boot() + self._policy.deadline
        slot = self._slot()
        while True:
            token, job = self._token_or_job(slot)
            if job is None:
                return token  # type: ignore[return-value]  # it is one or the other
            settled = self._settled(slot, job, await job.wait_async(self._clock, deadline), deadline)
            if settled is not None:
                return settled.unwrap()

    def fetch(self) -> Token:
        """Ask for a new token whatever is held, and keep it."""
        job, deadline = self._job(self._slot()), self._clock.boot() + self._policy.deadline
        return self._fetched(job, job.wait(self._clock, deadline)).unwrap()

    async def fetch_async(self) -> Token:
        """Do the same as `fetch` without blocking the event loop."""
        job, deadline = self._job(self._slot()), self._clock.boot() + self._policy.deadline
        return self._fetched(job, await job.wait_async(self._clock, deadline)).unwrap()

    def invalidate(self, token: Token) -> bool:
        """Drop a token wherever it is still the current one; whether it was."""
        holders = self._holders(token)
        for slot in holders:
            slot.snapshot = slot.job = None
        return bool(holders)

    def refused(self, token: Token) -> bool:
        """
        Take note of a 401 that a token met; whether sending again with another one is worth it.

        However many tokens are refused at once, one request for a new one is made, and all go on with that.
        """
        now = self._clock.boot()
        with self._lock:
            holders = self._holders(token)
            if not holders:
                return True
            if now - self._refused_at >= _AFTER_401:
                slot = self._replaced = holders[0]
                slot.snapshot, slot.job, self._refused_at = None, self._job(slot), now
                return True
            replaced = self._replaced
            if replaced is None or replaced in holders:
                return False
            fresh, job = replaced.snapshot, replaced.job
            if fresh is None and (job is None or job.done):
                return False
            for slot in holders:
                slot.snapshot, slot.job = fresh, job
            return True

    def _holders(self, token: Token) -> list[Slot]:
        """Find who holds a token that is not good any more; nobody starts on it from now on."""
        if self._slots.shared is token:
            self._slots.shared = None
        return [slot for slot, snapshot in self._slots.everyone() if snapshot.token is token]

    def share(self, token: Token) -> None:
        """Let every thread without a token start on this one, which is due at once: nobody waits."""
        self._slots.shared = token

    def longest_lived(self) -> Token | None:
        """Give the valid token that ends last; None without one."""
        tokens = [snapshot.token for _, snapshot in self._slots.everyone() if snapshot.token.remaining() > 0]
        return max(tokens, key=Token.remaining, default=None)

    def _slot(self) -> Slot:
        if self.closed:
            raise closed()
        return self._slots.take()

    def _token_or_job(self, slot: Slot) -> tuple[Token | None, Job[Token] | None]:
        with slot.lock:
            token = self._second_look(slot)
            if token is not None:
                return token, None
            shared = self._slots.shared
            if slot.snapshot is None and shared is not None and shared.remaining() > 0:
                slot.snapshot = due(self._snapshot(shared), self._clock.boot())
                return shared, None
            job = slot.job
            if job is not None and job.done and slot.snapshot is None:
                # After a 401 the job may be another slot's, whose token serves here as well.
                token = job.value
                if token is not None and token.remaining() > 0:
                    slot.snapshot = self._snapshot(token)
                    return token, None
            if job is None or job.done or job.abandoned.is_set():
                job = slot.job = self._job(slot)
            return None, job

    def _job(self, slot: Slot, *, attempts: int = ATTEMPTS) -> Job[Token]:
        deadline = self._clock.boot() + self._policy.deadline
        return Job(lambda job: self._filled(slot, job, deadline, attempts=attempts), name="token", translate=unforeseen)

    def _settled(
        self, slot: Slot, job: Job[Token], outcome: Outcome[Token] | None, deadline: float
    ) -> Outcome[Token] | None:
        """Say what a waiter does with what it waited for; None: the fetch it had joined was given up, try again."""
        given_up = job.abandoned.is_set() and (outcome is None or outcome.error is not None)
        if given_up and self._clock.boot() < deadline:
            return None
        fetched = self._fetched(job, outcome)
        if fetched.error is None or not isinstance(fetched.error, TokenError) or self._policy.scope == "process":
            return fetched
        for other, _ in self._slots.everyone():
            token, lent = self._second_look(other), other.snapshot
            if token is not None and lent is not None:
                log.warning("%s; a token of another thread serves meanwhile", fetched.error)
                # Due from the start: further calls do not wait, and the background gets this thread its own.
                now = self._clock.boot()
                slot.snapshot = due(lent, now)
                self._back_off(now)
                return Outcome(value=token)
        return fetched

    def _fetched(self, job: Job[Token], outcome: Outcome[Token] | None) -> Outcome[Token]:
        if outcome is None:
            before = job.last_failure
            job.abandon()
            return Outcome(error=copy.copy(before) or late(self._policy))
        if self.closed:  # meanwhile: not even a token that came is to be used
            return Outcome(error=closed())
        # Each waiter raises an error of its own: one object in several threads would collect all their tracebacks.
        return Outcome(outcome.value, None if outcome.error is None else copy.copy(outcome.error))

    def _filled(self, slot: Slot, job: Job[Any], deadline: float, *, attempts: int) -> Token:
        """Ask, and put the token into its slot."""
        outcome = persistently(self._ask, job, deadline, clock=self._clock, uniform=self._uniform, attempts=attempts)
        if outcome.error is None:
            slot.snapshot = self._snapshot(outcome.unwrap())
            if self.closed:  # meanwhile; whoever closed it has emptied all slots, or will after this
                slot.snapshot = None
            self.error = None
            self._rest.end()
        elif not job.abandoned.is_set():  # whoever gave it up has said so already
            self.error = outcome.error if isinstance(outcome.error, TokenError) else None
        return outcome.unwrap()

    def _snapshot(self, token: Token) -> Snapshot:
        return taken(token, self._clock.boot(), self._policy.refresh_at * self._uniform(_EARLIEST, 1.0))

    def _renew_soon(self, now: float) -> None:
        """Have the background thread renew what is due, unless it is at work or backing off."""
        if now < self._renew_not_before:
            return
        with self._lock:
            if now >= self._renew_not_before and (self._renewal is None or self._renewal.done):
                try:
                    self._renewal = Job(self._renew_due, name="renewal")
                except RuntimeError:  # no thread can be started now; the present token serves on
                    self._back_off(now)

    def _renew_due(self, _job: Job[None]) -> None:
        for slot, snapshot in self._slots.everyone():
            now = self._clock.boot()
            if now < snapshot.renew_at:
                continue
            job = self._job(slot, attempts=1)
            outcome = self._fetched(job, job.wait(self._clock, now + self._policy.deadline))
            if outcome.error is not None:
                self.error = outcome.error if isinstance(outcome.error, TokenError) else None
                self._back_off(self._clock.boot())
                log.warning("renewal failed, the present token serves on: %s", outcome.error)
                self._watcher.refused(outcome.error)
                break

    def _back_off(self, now: float) -> None:
        """Let the background rest, longer after each failure; shared by all tokens, whatever the scope."""
        if now >= self._renew_not_before:
            self._renew_not_before = now + self._rest.pause()
