"""Statistics of paired measurements: log-ratios of times taken in turns, their median with an interval, and the noise floor.

Pure functions of numbers; nothing here knows what was measured. Times in one block see the same clock, temperature and
neighbours, so their ratio says more than either; medians of ratios do not mind a burst that hits one block.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from statistics import NormalDist, median

from tridsl.structs import dataclass

LEAST_FLOOR = 0.002
"""Differences below this (0.2%) are never called one: two links of the same code differ by as much."""
CONSISTENT = 1.4826
"""Median absolute deviation to standard deviation, for a normal distribution."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A log-ratio with a two-sided interval of `confidence` (which may be less than asked: few pairs cannot say more)."""

    middle: float
    low: float
    high: float
    pairs: int
    confidence: float

    @property
    def percent(self) -> str:
        """`-7.1% (-8.0 to -6.2)`: by how much the time differs."""
        return f"{_percent(self.middle):+.1f}% ({_percent(self.low):+.1f} to {_percent(self.high):+.1f})"


def log_ratios(times: Sequence[float], others: Sequence[float]) -> tuple[float, ...]:
    """Of times taken in pairs, in any one unit: log(time / other). Raises ValueError for unequal lengths or times <= 0."""
    if len(times) != len(others):
        raise ValueError(f"{len(times)} times cannot be paired with {len(others)}")
    if any(t <= 0 for t in (*times, *others)):
        raise ValueError("a time is not positive")
    return tuple(math.log(a / b) for a, b in zip(times, others))


def interval(ratios: Sequence[float], confidence: float = 0.95) -> Interval:
    """The pseudo-median of the ratios and its distribution-free interval.

    Hodges and Lehmann, "Estimates of location based on rank tests", 1963: the median of all means of two (Walsh averages); the
    interval comes from Wilcoxon's signed-rank distribution, exact up to 25 pairs. It assumes that ratios lie symmetrically,
    which blocks in random order bring about.
    """
    if not ratios:
        raise ValueError("no ratios")
    count = len(ratios)
    means = sorted((a + b) / 2 for i, a in enumerate(ratios) for b in ratios[i:])
    cut, reached = _cut(count, 1 - confidence)
    return Interval(middle=median(means), low=means[cut], high=means[-1 - cut], pairs=count, confidence=reached)


def _cut(count: int, alpha: float) -> tuple[int, float]:
    """Walsh averages to leave out at each end, and the confidence that is left with."""
    total = count * (count + 1) // 2
    if count > 25:
        spread = math.sqrt(count * (count + 1) * (2 * count + 1) / 24)
        cut = math.floor(total / 2 - NormalDist().inv_cdf(1 - alpha / 2) * spread)
        return max(0, cut), 1 - alpha
    cumulative = _signed_rank(count)
    cut = 0
    while cut + 1 < total // 2 and 2 * cumulative[cut + 1] <= alpha:
        cut += 1
    tail = 2 * cumulative[cut - 1] if cut else 0.0
    tail = 2 * cumulative[cut] if cut < len(cumulative) else tail
    return cut, max(0.0, 1 - tail)


@cache
def _signed_rank(count: int) -> tuple[float, ...]:
    """P(sum of the positive ranks <= w) for w = 0, 1, … when signs are fair coins."""
    ways = [1]
    for rank in range(1, count + 1):
        grown = ways + [0] * rank
        for w, n in enumerate(ways):
            grown[w + rank] += n
        ways = grown
    found, so_far = [], 0
    for n in ways:
        so_far += n
        found.append(so_far / 2**count)
    return tuple(found)


def spread(ratios: Sequence[float]) -> float:
    """Robust standard deviation of log-ratios; 0 of fewer than two."""
    if len(ratios) < 2:
        return 0.0
    middle = median(ratios)
    return CONSISTENT * median(abs(r - middle) for r in ratios)


def noise_floor(same: Sequence[float], pairs: int, confidence: float = 0.95) -> float:
    """The log-ratio that two equal candidates exceed in 1 - `confidence` of comparisons of `pairs` pairs.

    `same`: log-ratios of one candidate with itself, neighbouring turns. sqrt(pi / 2): the median's efficiency.
    """
    deviation = NormalDist().inv_cdf((1 + confidence) / 2) * spread(same) * math.sqrt(math.pi / 2 / max(1, pairs))
    return max(LEAST_FLOOR, deviation)


def against_itself(times: Sequence[float]) -> tuple[float, ...]:
    """Log-ratios of neighbours in a sequence of times of one candidate, each time used once."""
    return log_ratios(times[1::2], times[: len(times) // 2 * 2 : 2])


def ties(middles: Sequence[float], floor: float) -> tuple[int, ...]:
    """Positions of the log-ratios within `floor` of the least: nobody can tell them from the best."""
    least = min(middles)
    return tuple(n for n, m in enumerate(middles) if m - least <= floor)


def pairs_needed(difference: float, deviation: float, confidence: float = 0.95, power: float = 0.8) -> int:
    """Pairs that tell a log-ratio of `difference` from 0 when the log-ratios' deviation is this. Normal approximation."""
    normal = NormalDist()
    z = normal.inv_cdf((1 + confidence) / 2) + normal.inv_cdf(power)
    return max(2, math.ceil((z * deviation / difference) ** 2))


def _percent(ratio: float) -> float:
    return 100 * (math.exp(ratio) - 1)
