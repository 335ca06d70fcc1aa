"""How time is taken: contestants in turn, each sample long enough for the clock, medians with their spread."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter_ns

import numpy as np

SAMPLES = 30
LEAST_NANOSECONDS = 100_000
"""A sample repeats its call until it lasts this long: a thousand times the clock's own cost."""
WARM_UP_NANOSECONDS = 20_000_000

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")

Call = Callable[[int], object]
"""What is timed; the argument counts its calls, for whoever rotates buffers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """Seconds per call: median, 10th and 90th percentile of `samples` samples."""

    median: float
    p10: float
    p90: float
    samples: int

    def data(self) -> dict[str, float | int | str]:
        return {"median_seconds": self.median, "p10_seconds": self.p10, "p90_seconds": self.p90, "samples": self.samples, "label": "measured"}


def interleave(calls: Mapping[str, Call], samples: int = SAMPLES) -> dict[str, Reading]:
    """One sample of each call in turn, `samples` times, so that a change of the machine's speed meets everybody alike."""
    counts = dict.fromkeys(calls, 0)
    repeats: dict[str, int] = {}

    def sample(name: str, times: int) -> int:
        call, first = calls[name], counts[name]
        start = perf_counter_ns()
        for number in range(first, first + times):
            call(number)
        elapsed = perf_counter_ns() - start
        counts[name] += times
        return elapsed

    for name in calls:
        spent = best = 0
        while spent < WARM_UP_NANOSECONDS:
            one = sample(name, 1)
            spent += one
            best = min(best or one, one)
        repeats[name] = max(1, -(-LEAST_NANOSECONDS // max(1, best)))
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(samples):
        for name in calls:
            taken[name].append(sample(name, repeats[name]) / repeats[name] / 1e9)
    return {name: reading(times) for name, times in taken.items()}


def reading(seconds: list[float]) -> Reading:
    """The summary of some samples."""
    p10, median, p90 = np.percentile(seconds, (10, 50, 90))
    return Reading(median=float(median), p10=float(p10), p90=float(p90), samples=len(seconds))


def start_with_threads(threads: int, command: Sequence[str]) -> None:
    """BLAS libraries read their number of threads when they are loaded, so a program that has other numbers in its environment is
    started anew as `python *command`. Returns only when the numbers are right."""
    if any(os.environ.get(name) != str(threads) for name in THREAD_VARIABLES):
        sys.stdout.flush()
        os.execve(sys.executable, [sys.executable, *command], os.environ | dict.fromkeys(THREAD_VARIABLES, str(threads)))


def pin(threads: int) -> tuple[int, ...]:
    """Keep this process on `threads` of its cores; which ones."""
    cores = tuple(sorted(os.sched_getaffinity(0)))[-threads:]  # the first core serves most interrupts
    os.sched_setaffinity(0, cores)
    return cores
