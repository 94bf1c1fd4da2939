"""
Calls through `client()` and `async_client()` while secret and certificate rotate twenty times.

How many fail, and how long our own code takes in the second after a swap; then the same calls with the store down.
Wise and the store are stand-ins in another process. Load is paced, for two cores have to serve both sides.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import statistics
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import httpx

import wise_creds
from wise_creds import Connection, WiseCredsError
from wise_creds._pools import Pools
from wise_creds._wiring import Wiring

THREADS, TASKS, ROTATIONS = 8, 50, 20
KINDS = ("ec-p256", "ec-p384", "rsa-2048")
PAUSE, LONG_PAUSE = 0.05, 0.5  # seconds between two calls of a thread, and of a task

Timed = list[tuple[float, float]]


def timed(owner: type, name: str, into: Timed) -> Callable[[], None]:
    """Take down when and how long a method runs; gives what ends that."""
    original = getattr(owner, name)

    async def awaited(*arguments: Any) -> Any:
        began = time.perf_counter()
        try:
            return await original(*arguments)
        finally:
            into.append((began, time.perf_counter() - began))

    def wrapped(*arguments: Any) -> Any:
        began = time.perf_counter()
        try:
            return original(*arguments)
        finally:
            into.append((began, time.perf_counter() - began))

    setattr(owner, name, awaited if asyncio.iscoroutinefunction(original) else wrapped)
    return lambda: setattr(owner, name, original)


class Load:
    """Threads and tasks that call until they are told to stop."""

    def __init__(self, wise: Connection) -> None:
        self.wise = wise
        self.stop = threading.Event()
        self.calls = 0
        self.slowest = 0.0
        self.failures: list[str] = []
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._thread) for _ in range(THREADS)]
        self._threads.append(threading.Thread(target=lambda: asyncio.run(self._loop())))

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        for thread in self._threads:
            thread.join()

    def _count(self, began: float, problem: str | None) -> None:
        with self._lock:
            self.calls += 1
            self.slowest = max(self.slowest, time.perf_counter() - began)
            if problem is not None:
                self.failures.append(problem)

    def _thread(self) -> None:
        with self.wise.client() as http:
            while not self.stop.wait(PAUSE):
                began = time.perf_counter()
                try:
                    status = http.get("/v2/profiles").status_code
                    self._count(began, None if status == 200 else str(status))
                except (httpx.HTTPError, WiseCredsError) as problem:
                    self._count(began, f"{type(problem).__name__} {problem}")

    async def _loop(self) -> None:
        async with self.wise.async_client() as http:
            await asyncio.gather(*(self._task(http) for _ in range(TASKS)))

    async def _task(self, http: httpx.AsyncClient) -> None:
        while not self.stop.is_set():
            began = time.perf_counter()
            try:
                status = (await http.get("/v2/profiles")).status_code
                self._count(began, None if status == 200 else str(status))
            except (httpx.HTTPError, WiseCredsError) as problem:
                self._count(began, f"{type(problem).__name__} {problem}")
            await asyncio.sleep(LONG_PAUSE)


def leftovers() -> tuple[int, int]:
    """Count threads and descriptors."""
    gc.collect()
    return threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))


def measure(provider: str) -> None:
    """Print one provider's line."""
    here = Path(__file__).with_name("_rotating.py")
    child = subprocess.Popen([sys.executable, here, provider], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdin is not None
    assert child.stdout is not None
    stdin, stdout = child.stdin, child.stdout

    def order(**what: object) -> dict[str, int]:
        stdin.write(json.dumps(what) + "\n")
        stdin.flush()
        answer: dict[str, int] = json.loads(stdout.readline())
        return answer

    try:
        given = json.loads(stdout.readline())
        os.environ.update(given["environ"])
        with wise_creds.connect("sandbox", config={"sandbox": given["table"]}) as wise:
            _rotations(provider, wise, order)
            with Load(wise) as load:
                order(do="down")
                time.sleep(15)
            down = wise.status()
            print(f"{'':8} store down for 15 s: {load.calls} calls, {len(load.failures)} failed; "
                  f"source_error {down['source_error']}, ready {down['ready']}")  # fmt: skip
            _tell(load)
    finally:
        child.communicate("")


def _rotations(provider: str, wise: Connection, order: Callable[..., dict[str, int]]) -> None:
    ours: Timed = []
    swaps: list[float] = []
    contexts: list[weakref.ref[Any]] = []

    def swapped(generation: wise_creds.Generation) -> None:
        swaps.append(time.perf_counter())
        contexts.append(weakref.ref(generation.ssl_context))

    unsubscribe = wise.on_rotate(swapped)
    ends = [timed(Wiring, "ready", ours), timed(Wiring, "aready", ours), timed(Pools, "pin", ours)]
    before = leftovers()
    with Load(wise) as load:
        for number in range(ROTATIONS):
            seen = len(swaps)
            if number == ROTATIONS // 2:
                order(do="spoil")
                time.sleep(1.5)
            order(do="rotate", kind=KINDS[number % 3], overlap=number % 2 == 0, late=0 if number % 2 == 0 else 2)
            until = time.monotonic() + 10
            while len(swaps) == seen and time.monotonic() < until:
                time.sleep(0.02)
            time.sleep(1.0)
        while load.calls < 10_000:
            time.sleep(0.1)
    for end in ends:
        end()
    unsubscribe()
    time.sleep(1.5)
    after = leftovers()
    alive = sum(context() is not None for context in contexts[:-1])
    near = sorted(took for began, took in ours if any(0 <= began - swap <= 1 for swap in swaps))
    print(f"{provider:8} {load.calls} calls over {len(swaps)} swaps: {len(load.failures)} failed; our code in the second after "
          f"a swap: median {1000 * statistics.median(near):.2f} ms, p99 {1000 * near[int(len(near) * 0.99)]:.2f} ms, most "
          f"{1000 * near[-1]:.1f} ms; slowest whole call {1000 * load.slowest:.0f} ms (handshake included); left over: "
          f"{after[0] - before[0]} threads, {after[1] - before[1]} descriptors, {alive} contexts")  # fmt: skip
    _tell(load)


def _tell(load: Load) -> None:
    for problem in sorted(set(load.failures))[:5]:
        print(f"{'':8} {load.failures.count(problem)} x {problem}")


def main() -> None:
    """Measure all providers, or those named."""
    print(f"{THREADS} threads and {TASKS} tasks, {ROTATIONS} rotations of secret and certificate ({', '.join(KINDS)}), every "
          "other without overlap and the store 2 s late, one spoilt version in between")  # fmt: skip
    for provider in sys.argv[1:] or ("files", "aws", "vault"):
        measure(provider)


if __name__ == "__main__":
    main()
