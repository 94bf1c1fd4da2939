"""
A fleet of workers and its token endpoint: a seeded simulation, with a table and a plot.

Simulated time. Each worker asks as the token cache does, with its constants; each variant also without jitter, where
every pause is as long as it can be. The endpoint answers 429 with `Retry-After: 5` beyond 100 requests a second or 1000
a minute, and 503 during an outage. What is refused counts as a request but not against the limits.

    python benchmarks/fleet.py [PLOT.png]
"""

from __future__ import annotations

import heapq
import random
import sys
from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

from wise_creds._retry import _BASE, _CAP, _REST, ATTEMPTS
from wise_creds._token_cache import _EARLIEST

LIFE, REFRESH_AT, DEADLINE = 43_199.0, 0.8, 10.0
PER_SECOND, PER_MINUTE, RETRY_AFTER = 100, 1000, 5.0
LATENCY, THREADS = 0.05, 4
WAVE = 60.0  # seconds over which the workers start
OUTAGE = (68_900, 69_500)  # when the second renewal is due, without jitter all at once
RESTART, END = 90_000, 100_000


@dataclass
class Endpoint:
    """The model of Wise's limits."""

    asked: Counter[int] = field(default_factory=Counter)
    given_second: Counter[int] = field(default_factory=Counter)
    given_minute: Counter[int] = field(default_factory=Counter)

    def ask(self, now: float) -> Literal["token", "limited", "down"]:
        """Answer one request."""
        second, minute = int(now), int(now // 60)
        self.asked[second] += 1
        if OUTAGE[0] <= now < OUTAGE[1]:
            return "down"
        if self.given_second[second] >= PER_SECOND or self.given_minute[minute] >= PER_MINUTE:
            return "limited"
        self.given_second[second] += 1
        self.given_minute[minute] += 1
        return "token"


@dataclass
class Worker:
    """One process; a token is the time at which it ends, or None."""

    ends: list[float]
    renew: list[float]
    failures: int = 0
    rest_until: float = 0.0


class Fleet:
    """Workers and endpoint on one queue of events."""

    def __init__(self, workers: int, tokens: int, *, jitter: bool, seed: int = 1) -> None:
        self.random = random.Random(seed)
        self.jitter = jitter
        self.endpoint = Endpoint()
        self.workers = [Worker([0.0] * tokens, [0.0] * tokens) for _ in range(workers)]
        self.queue: list[tuple[float, int, str, int, int, int, float]] = []
        self.count = 0
        self.all_have: dict[str, float] = {}
        self.expired = 0

    def uniform(self, low: float, high: float) -> float:
        """Draw; without jitter the longest pause, as a program without it would choose."""
        return self.random.uniform(low, high) if self.jitter else high

    def at(self, when: float, what: str, worker: int, token: int = 0, attempt: int = 0, deadline: float = 0.0) -> None:
        """Queue an event."""
        self.count += 1
        heapq.heappush(self.queue, (when, self.count, what, worker, token, attempt, deadline))

    def run(self) -> None:
        """Live through it all."""
        for number, worker in enumerate(self.workers):
            begin = self.random.uniform(0, WAVE)
            for token in range(len(worker.ends)):
                self.at(begin, "cold", number, token, 0, begin + DEADLINE)
        self.at(RESTART, "restart", 0)
        waiting, phase = len(self.workers), "start-up"
        while self.queue and self.queue[0][0] < END:
            now, _, what, number, token, attempt, deadline = heapq.heappop(self.queue)
            if what == "restart":
                self.queue = []
                for index, worker in enumerate(self.workers):
                    worker.ends, worker.failures = [0.0] * len(worker.ends), 0
                    for place in range(len(worker.ends)):
                        self.at(now, "cold", index, place, 0, now + DEADLINE)
                waiting, phase = len(self.workers), "restart"
                continue
            worker = self.workers[number]
            without = waiting and max(worker.ends) <= now
            (self.cold if what == "cold" else self.due)(now, number, token, attempt, deadline)
            if without and max(worker.ends) > now:
                waiting -= 1
                if not waiting:
                    self.all_have[phase] = now - (0.0 if phase == "start-up" else RESTART)

    def cold(self, now: float, number: int, token: int, attempt: int, deadline: float) -> None:
        """A caller without a token: attempts inside its deadline, a borrowed token, or its next try."""
        worker = self.workers[number]
        answer = self.endpoint.ask(now)
        if answer == "token":
            self.keep(worker, number, token, now)
            return
        pause = (RETRY_AFTER if answer == "limited" else 0.0) + self.uniform(0, min(_CAP, _BASE * 2 ** (attempt + 1)))
        if attempt + 1 < ATTEMPTS and now + pause < deadline:
            self.at(now + pause, "cold", number, token, attempt + 1, deadline)
        elif max(worker.ends) > now:
            worker.ends[token], worker.renew[token] = max(worker.ends), now
            self.back_off(worker, now)
            self.at(worker.rest_until, "due", number)
        else:
            self.at(now + 1.0, "cold", number, token, 0, now + 1.0 + DEADLINE)

    def due(self, now: float, number: int, *_: object) -> None:
        """The background of one worker: all that is due, one after the other, until a failure."""
        worker = self.workers[number]
        for token, renew in enumerate(worker.renew):
            if renew > now:
                continue
            if self.endpoint.ask(now) != "token":
                if worker.ends[token] <= now:
                    self.expired += 1
                self.back_off(worker, now)
                self.at(worker.rest_until, "due", number)
                return
            self.keep(worker, number, token, now)
            worker.failures = 0

    def keep(self, worker: Worker, number: int, token: int, now: float) -> None:
        """Note a token."""
        worker.ends[token] = now + LIFE
        worker.renew[token] = now + LIFE * REFRESH_AT * self.uniform(_EARLIEST, 1.0)
        self.at(worker.renew[token], "due", number)

    def back_off(self, worker: Worker, now: float) -> None:
        """Rest after a failure."""
        if now >= worker.rest_until:
            pause = min(_REST[1], _REST[0] * 2**worker.failures)
            worker.failures += 1
            worker.rest_until = now + self.uniform(pause / 2, pause)

    def peak(self, begin: float, end: float) -> int:
        """Most requests in a second."""
        return max((count for second, count in self.endpoint.asked.items() if begin <= second < end), default=0)

    def row(self) -> str:
        """One line of the table."""
        steady = self.peak(2 * 3600, OUTAGE[0])
        return " | ".join(
            (
                f"{self.peak(0, 3600):,} | {self.all_have.get('start-up', -60) / 60:.1f}",
                f"{steady:,}",
                f"{self.peak(*OUTAGE):,} | {self.peak(OUTAGE[1], OUTAGE[1] + 3600):,} | {self.expired:,}",
                f"{self.peak(RESTART, RESTART + 7200):,} | {self.all_have.get('restart', -60) / 60:.1f}",
            )
        )


def main(plot: str | None) -> None:
    """Print the table, and draw the largest fleet."""
    print("| workers | scope | jitter | start: peak/s | start: minutes | steady: peak/s "
          "| outage: peak/s | after it: peak/s | expired | restart: peak/s | restart: minutes |")  # fmt: skip
    print("|--:|---|---|" + "--:|" * 8)
    drawn = {}
    for workers in (100, 1000, 10_000):
        for scope, tokens in (("process", 1), ("thread", THREADS)):
            for jitter in (True, False):
                fleet = Fleet(workers, tokens, jitter=jitter)
                fleet.run()
                print(f"| {workers:,} | {scope} | {'yes' if jitter else 'no'} | {fleet.row()} |", flush=True)
                if workers == 10_000:
                    drawn[f"{scope}, {'with' if jitter else 'without'} jitter"] = fleet.endpoint.asked
    if plot is not None:
        draw(drawn, plot)


def draw(fleets: dict[str, Counter[int]], path: str) -> None:
    """One panel a variant: the most requests in a second of each minute."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(len(fleets), 1, sharex=True, figsize=(9, 9), layout="constrained")
    for panel, (name, asked) in zip(panels, fleets.items(), strict=True):
        minutes: Counter[int] = Counter()
        for second, count in asked.items():
            minutes[second // 60] = max(minutes[second // 60], count)
        hours = range(int(END // 60))
        panel.fill_between([minute / 60 for minute in hours], [minutes[minute] for minute in hours], step="post")
        panel.axhline(PER_SECOND, color="tab:red", linewidth=0.8, linestyle="--")
        panel.axvspan(OUTAGE[0] / 3600, OUTAGE[1] / 3600, color="tab:orange", alpha=0.3)
        panel.set_yscale("symlog", linthresh=1)
        panel.set_ylim(bottom=0)
        panel.set_ylabel("peak requests/s")
        panel.set_title(f"10,000 workers, one token a {name}", fontsize=10)
    panels[-1].set_xlabel("hours (start; shaded: endpoint down for 10 minutes; at 25 h all restart at once)")
    figure.savefig(path, dpi=90)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else None)
