"""Asking for a token again where that may help: for callers who wait, inside their deadline."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from wise_creds._engine import Job
from wise_creds._slots import Policy
from wise_creds.clock import Clock
from wise_creds.errors import TokenError, TokenUnavailableError
from wise_creds.shield import Outcome, attempt, described
from wise_creds.token import Token

_BASE, _CAP, ATTEMPTS = 0.2, 5.0, 4
_REST = (30.0, 300.0)

Ask = Callable[[Job[Any], float], Token]
"""One token request until a point on the boot clock; runs within the shield."""


def persistently(
    ask: Ask,
    job: Job[Any],
    deadline: float,
    *,
    clock: Clock,
    uniform: Callable[[float, float], float],
    attempts: int,
) -> Outcome[Token]:
    """
    Ask; after a failure that may pass, again: what `Retry-After` says, plus exponential back-off with full jitter.

    Args:
        ask: the request.
        job: the thread that this runs in; its `last_failure` is kept up to date.
        deadline: a point on the boot clock that no pause reaches.
        clock: time.
        uniform: randomness.
        attempts: how many requests at most.
    """
    number = 0
    while True:
        outcome = attempt(lambda: ask(job, deadline), unforeseen)
        error = outcome.error
        if error is None:
            return outcome
        number, job.last_failure = number + 1, error
        if number == attempts or not (isinstance(error, TokenUnavailableError) and error.retryable):
            return outcome
        # On top of `Retry-After`, not instead: a fleet that was told the same number must not come back at once.
        pause = (error.retry_after or 0.0) + uniform(0, min(_CAP, _BASE * 2**number))
        if clock.boot() + pause >= deadline or clock.wait(job.abandoned, pause):
            return outcome


class BackOff:
    """How long the background rests after a failure: 30 s to 5 min, longer each time, jittered."""

    def __init__(self, uniform: Callable[[float, float], float]) -> None:
        self._uniform = uniform
        self._failures = 0

    def pause(self) -> float:
        """Count a failure and give the seconds to rest."""
        pause = min(_REST[1], _REST[0] * 2**self._failures)
        self._failures += 1
        return self._uniform(pause / 2, pause)

    def end(self) -> None:
        """Take note of a success."""
        self._failures = 0


def late(policy: Policy) -> TokenError:
    """Make the error of whoever has waited to the deadline."""
    return TokenUnavailableError(
        f"no token within {policy.deadline:g} s", code="WC508", namespace=policy.namespace, location=policy.place,
        hint="is the token endpoint reachable from here? a larger deadline gives it longer",
    )  # fmt: skip


def closed() -> TokenError:
    """Make the error of whoever asks something that was closed."""
    return TokenUnavailableError("closed", code="WC513", retryable=False, hint="make a new one")


def unforeseen(caught: BaseException) -> TokenError:
    """Make our error out of one that nobody expected."""
    return TokenError(f"the token request failed: {described(caught)}", code="WC514", hint="please report this")
