"""Calls in threads of their own, awaited until a deadline."""

from __future__ import annotations

import asyncio
import threading

from support import finished

from wise_creds._engine import Job
from wise_creds.clock import SYSTEM_CLOCK, Clock
from wise_creds.shield import Outcome
from wise_creds.testing import FakeClock


def test_an_outcome_is_shared_by_threads_and_tasks() -> None:
    """Both see the same object."""
    job = finished([1])
    waited = job.wait(SYSTEM_CLOCK, 0)

    async def awaited() -> Outcome[object] | None:
        return await job.wait_async(SYSTEM_CLOCK, SYSTEM_CLOCK.boot() + 10)

    assert waited is not None
    assert asyncio.run(awaited()) is waited


def test_a_deadline_ends_the_wait_and_not_the_caller() -> None:
    """Whatever the call does; it is told that nobody waits any more."""
    release, told = threading.Event(), threading.Event()
    job: Job[bool] = Job(lambda _job: release.wait(10), name="slow")
    job.on_abandon(told.set)

    async def awaited() -> object:
        return await job.wait_async(SYSTEM_CLOCK, SYSTEM_CLOCK.boot() + 0.01)

    assert job.wait(SYSTEM_CLOCK, SYSTEM_CLOCK.boot() + 0.01) is None
    assert asyncio.run(awaited()) is None
    assert not job.done
    job.abandon()
    late = threading.Event()
    job.on_abandon(late.set)
    assert (told.is_set(), late.is_set(), job.abandoned.is_set()) == (True, True, True)
    release.set()


def test_the_fake_clock_ends_a_wait_by_its_own_time() -> None:
    """Real time does not count."""
    clock, event = FakeClock(), threading.Event()
    ends: list[bool] = []
    waiter = threading.Thread(target=lambda: ends.append(clock.wait(event, 100)))
    waiter.start()
    clock.advance(99)
    waiter.join(0.01)
    assert waiter.is_alive()
    clock.advance(1)
    waiter.join(10)
    event.set()
    assert (ends, clock.wait(event, 100)) == ([False], True)


def test_the_fake_clock_steps_and_sleeps(fake_clock: FakeClock) -> None:
    """Boot time counts suspend and ignores steps."""
    clock = fake_clock
    clock.step_wall(100.0 - clock.wall())
    boot = clock.boot()
    clock.step_wall(-50)
    assert (clock.boot() - boot, clock.wall()) == (0, 50)
    clock.suspend(10)
    assert (clock.boot() - boot, clock.wall()) == (10, 60)


def test_the_system_clock_is_the_machines() -> None:
    """Boot time moves on, waiting waits for the event."""
    clock, event = Clock(), threading.Event()
    before = clock.boot()
    assert clock.wait(event, 0) is False
    event.set()
    assert (clock.wait(event, 10), clock.boot() >= before, clock.wall() > 1.7e9) == (True, True, True)
