"""Alternating runs of short scripts, each a process of its own: time and peak memory."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from tempfile import TemporaryFile


def _run(code: str, argument: str, environ: Mapping[str, str]) -> tuple[float, float]:
    """Milliseconds, and the peak of resident memory in MiB."""
    with TemporaryFile() as said:
        began = time.perf_counter()
        child = subprocess.Popen([sys.executable, "-c", code, argument], env=environ, stderr=said)
        _, status, usage = os.wait4(child.pid, 0)
        taken = 1000 * (time.perf_counter() - began)
        child.returncode = os.waitstatus_to_exitcode(status)
        said.seek(0)
        assert child.returncode == 0, said.read().decode()
    return taken, usage.ru_maxrss / 1024


def compare(title: str, scripts: Mapping[str, str], argument: str, *, floor: str, rounds: int, **environ: str) -> None:
    """Print the medians of the scripts, and their ratios to the floor's; runs alternate, so that a busy machine slows all."""
    # Installed packages are byte-compiled; without this, ours, run from its source, might be compiled in each run.
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    scripts = {"interpreter alone": "pass", **scripts}
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in scripts}
    for number in range(rounds + 1):
        for name, code in scripts.items():
            measured = _run(code, argument, inherited | environ)
            if number:  # the first warms the caches of files and byte code
                taken[name].append(measured)
    times, peaks = (
        {name: statistics.median(pair[which] for pair in values) for name, values in taken.items()} for which in (0, 1)
    )
    print(f"{title}: medians of {rounds} alternating runs")
    for name, time_taken in times.items():
        print(f"  {name:<28} {time_taken:7.1f} ms   {time_taken / times[floor]:.2f} x {floor}   "
              f"{peaks[name]:6.1f} MiB   {peaks[name] / peaks[floor]:.2f} x {floor}")  # fmt: skip
