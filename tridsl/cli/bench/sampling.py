"""How time is taken: contestants in turn, each sample long enough for the clock, medians with their spread."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from random import Random
from resource import RUSAGE_SELF, getrusage
from time import perf_counter_ns, process_time_ns

import numpy as np

from tridsl.structs import dataclass

SAMPLES = 30
LEAST_NANOSECONDS = 300_000
"""A sample repeats its call until it lasts this long: some thousand times the clock's own cost, and a hundred times a timer's tick."""
WARM_UP_NANOSECONDS = 20_000_000
WARMED_NANOSECONDS = 30_000_000
"""Calls up to this long are made before their sample, too: to fill the caches of a core again (2 MiB at 15 GB/s: 0.14 ms) is a
noticeable part of them (i8 matmul 512, 1.5 MiB: 0.46 ms behind others, 0.38 ms behind itself; 1024, which takes 3 ms: 1.04 times as long behind
others, so that a limit near it would decide the reading)."""
SETTLED_NANOSECONDS = 1_000_000
"""How long short calls are repeated before their sample: behind a stream through memory the clock of a core takes a part of it to come up."""
REFILLED_NANOSECONDS = 20_000_000
"""How long those are that last longer than that. What they move lies in the last cache or nowhere, and one pass does not bring it back
there (64 MiB read on an Emerald Rapids, behind other programs' products: 5.2, 5.1, 4.8, 4.2, 3.4, 3.2, then 2.4 ms): what ran before would decide."""

Call = Callable[[int], object]
"""What is timed; the argument counts the calls of everybody, so that rotated buffers were used by nobody for a whole round."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """Seconds per call: median, 10th and 90th percentile of `samples` samples; the process was put off its core in `disturbed` of them."""

    median: float
    p10: float
    p90: float
    samples: int
    disturbed: int = 0

    def over(self, calls: int) -> Reading:
        """Of one call, where a sample was `calls` of them."""
        return Reading(median=self.median / calls, p10=self.p10 / calls, p90=self.p90 / calls, samples=self.samples, disturbed=self.disturbed)

    def data(self) -> dict[str, float | int | str]:
        return {"median_seconds": self.median, "p10_seconds": self.p10, "p90_seconds": self.p90, "samples": self.samples, "disturbed": self.disturbed, "label": "measured"}


def once(call: Callable[[], object]) -> float:
    """Seconds of one call; without what other programs took of them, where the process has one core."""
    ran = process_time_ns()
    start = perf_counter_ns()
    call()
    elapsed = perf_counter_ns() - start
    ran = process_time_ns() - ran
    return (min(elapsed, ran) if len(os.sched_getaffinity(0)) == 1 else elapsed) / 1e9


def interleave(calls: Mapping[str, Call], samples: int = SAMPLES, *, warm: bool = True) -> dict[str, Reading]:
    """One sample of each call in turn, `samples` times, so that a change of the machine's speed meets everybody alike. Each round has an order of
    its own (the same ones every time): what ran before leaves the clocks of the cores and of the mesh behind. `warm`: all but long calls
    are made before their sample, so that it does not pay for what the one before has put out of the cache, or for its clock (on an Emerald
    Rapids the same product of 8 x 4096 x 4096 took 4.4 ms behind others, as from memory, and 3.1 ms behind itself, beside a probe of
    reading that was in the cache both times).

    Where somebody else's program was given the core during a sample, the time that it ran is not the contestant's: such a sample counts
    the processor time of this process instead (on one core only; on several that is no duration).
    """
    count = 0
    alone = len(os.sched_getaffinity(0)) == 1
    disturbed = dict.fromkeys(calls, 0)
    repeats: dict[str, int] = {}
    refill = dict.fromkeys(calls, 0)
    warm = warm and len(calls) > 1  # who is alone has nobody before itself

    def sample(name: str, times: int) -> int:
        nonlocal count
        call = calls[name]
        if warm and refill[name]:
            settled = perf_counter_ns() + refill[name]
            while True:
                call(count)
                count += 1
                if perf_counter_ns() >= settled:
                    break
        switched, ran = getrusage(RUSAGE_SELF).ru_nivcsw, process_time_ns()
        start = perf_counter_ns()
        for number in range(count, count + times):
            call(number)
        elapsed = perf_counter_ns() - start
        ran = process_time_ns() - ran
        count += times
        if alone and getrusage(RUSAGE_SELF).ru_nivcsw != switched:
            disturbed[name] += 1
            return min(elapsed, ran)
        return elapsed

    for name in calls:
        spent = best = 0
        while spent < WARM_UP_NANOSECONDS:
            one = sample(name, 1)
            spent += one
            best = min(best or one, one)
        repeats[name] = max(1, -(-LEAST_NANOSECONDS // max(1, best)))
        if best <= WARMED_NANOSECONDS:
            refill[name] = SETTLED_NANOSECONDS if best < SETTLED_NANOSECONDS else REFILLED_NANOSECONDS
    taken: dict[str, list[float]] = {name: [] for name in calls}
    disturbed.update(dict.fromkeys(calls, 0))  # those of the warm-up do not count
    drawn = Random(0)
    for _ in range(samples):
        for name in drawn.sample(list(calls), len(calls)):
            taken[name].append(sample(name, repeats[name]) / repeats[name] / 1e9)
    return {name: reading(times, disturbed[name]) for name, times in taken.items()}


def reading(seconds: list[float], disturbed: int = 0) -> Reading:
    """The summary of some samples."""
    p10, median, p90 = np.percentile(seconds, (10, 50, 90))
    return Reading(median=float(median), p10=float(p10), p90=float(p90), samples=len(seconds), disturbed=disturbed)


def start_with(environment: Mapping[str, str], command: Sequence[str]) -> None:
    """Libraries read their number of threads when they are loaded, so a program with another environment is started anew as
    `python *command`. Returns only when the variables are as wanted."""
    if any(os.environ.get(name) != value for name, value in environment.items()):
        sys.stdout.flush()
        os.execve(sys.executable, [sys.executable, *command], {**os.environ, **environment})


def pin(threads: int) -> tuple[int, ...]:
    """Keep this process on `threads` of its cores; which ones."""
    cores = tuple(sorted(os.sched_getaffinity(0)))[-threads:]  # the first core serves most interrupts
    os.sched_setaffinity(0, cores)
    return cores
