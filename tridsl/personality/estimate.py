"""How fast candidates are, from paired trials: one weighted least-squares problem over the logarithms of times.

A paired trial says `log(candidate) - log(incumbent)`: the median over its pairs, with the variance of a median, pi/2 s²/n, where s is the
spread of single pairs (1.4826 MAD, drawn towards that of all trials when n is small). Because both ran in turns, what slows the
machine cancels. Incumbents change during a search; the network of all comparisons makes candidates comparable that never met.
Absolute medians are in it too, with a large variance, so that unpaired trials count for something and nothing is unconnected.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tridsl.personality.candidate import Candidate
from tridsl.personality.evidence import Trial
from tridsl.structs import dataclass

if TYPE_CHECKING:
    from numpy.typing import NDArray

USUAL_SPREAD = 0.05
"""Standard deviation of one log-ratio where nothing is known yet: a shared machine."""

BLOCK_SPREAD = 0.003
"""Standard deviation between blocks that more pairs in one block do not lessen (placement of code and data)."""

CLOCK_SPREAD = 0.10
"""Standard deviation between absolute medians taken at different times."""

_SETTINGS = ("governor", "power", "profile", "quota")
"""Facts of the operating point that move absolute times for long; load and temperature come and go within a block."""

_LOOSE = 10.0
"""Standard deviation of the guess that a clock's logarithm is 0: only there to make the problem solvable."""

Z95 = 1.96


class Interval(NamedTuple):
    """A ratio of times less one, with its 95% interval: 0.03 is 3% slower."""

    ratio: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Estimates:
    """`seconds`: median of a candidate's medians, as measured. `pairs`: single comparisons it took part in. `spread`: standard
    deviation of the logarithm of one. Candidates in the order of their identities."""

    candidates: tuple[Candidate, ...]
    seconds: tuple[float, ...]
    samples: tuple[int, ...]
    trials: tuple[int, ...]
    pairs: tuple[int, ...]
    spread: float
    _log: NDArray[Any]
    _covariance: NDArray[Any]

    def against(self, position: int, reference: int) -> Interval:
        """One candidate's time over another's."""
        middle = float(self._log[position] - self._log[reference])
        half = Z95 * self._deviation(position, reference)
        return Interval(*(math.expm1(min(value, 50.0)) for value in (middle, middle - half, middle + half)))

    def fastest(self, among: Sequence[int]) -> int:
        """Of these, the one whose 95% interval, against the best-known candidate, has the least upper end: a lucky sample of one is
        not the fastest."""
        anchor = max(among, key=lambda i: (self.pairs[i], self.samples[i], -i))
        return min(among, key=lambda i: (float(self._log[i]) + Z95 * self._deviation(i, anchor), i))

    def _deviation(self, one: int, other: int) -> float:
        c = self._covariance
        return math.sqrt(max(0.0, float(c[one, one] + c[other, other] - 2 * c[one, other])))


class _Equation(NamedTuple):
    """`log(plus) - log(minus)` (`minus` None: `log(plus)` alone) is `value`."""

    plus: int
    minus: int | None
    value: float
    variance: float


class _Comparison(NamedTuple):
    trial: Trial
    value: float
    spread: float
    pairs: int


def estimate(trials: Sequence[Trial]) -> Estimates | None:
    """The candidates of all `ok` trials and the incumbents they were paired with; None without any.

    The result does not depend on the order of the trials.
    """
    good = sorted((t for t in trials if t.outcome == "ok"), key=lambda t: t.id)
    if not good:
        return None
    named = {c.id: c for t in good for c in (t.candidate, *_incumbent(t))}
    order = sorted(named)
    position = {name: place for place, name in enumerate(order)}
    medians: list[list[float]] = [[] for _ in order]
    samples, counts, pairs = ([0] * len(order) for _ in range(3))
    compared = [c for t in good if (c := _compare(t)) is not None]
    spread = _pooled(compared)
    clocks = {clock: len(order) + place for place, clock in enumerate(sorted({_clock(t) for t in good}))}
    equations: list[_Equation] = []
    for trial in good:
        clock = clocks[_clock(trial)]
        sides = [(trial.candidate, trial.samples)]
        if trial.pairing is not None and trial.pairing.samples:
            sides.append((trial.pairing.incumbent, trial.pairing.samples))
        for who, taken in sides:
            place = position[who.id]
            median = float(np.median(taken))
            medians[place].append(median)
            samples[place] += len(taken)
            counts[place] += who is trial.candidate
            equations.append(_Equation(place, clock, math.log(median), CLOCK_SPREAD**2 + _of_median(spread, len(taken))))
    for comparison in compared:
        pairing = comparison.trial.pairing
        assert pairing is not None
        one, other = position[comparison.trial.candidate.id], position[pairing.incumbent.id]
        if one != other:
            pairs[one] += comparison.pairs
            pairs[other] += comparison.pairs
            variance = BLOCK_SPREAD**2 + _of_median(_shrunk(comparison, spread), comparison.pairs)
            equations.append(_Equation(one, other, comparison.value, variance))
    equations += [_Equation(place, None, 0.0, _LOOSE**2) for place in clocks.values()]
    log, covariance = _solve(equations, len(order) + len(clocks))
    return Estimates(
        candidates=tuple(named[name] for name in order),
        seconds=tuple(float(np.median(taken)) for taken in medians),
        samples=tuple(samples),
        trials=tuple(counts),
        pairs=tuple(pairs),
        spread=spread,
        _log=log,
        _covariance=covariance,
    )


def _incumbent(trial: Trial) -> tuple[Candidate, ...]:
    return (trial.pairing.incumbent,) if trial.pairing is not None and trial.pairing.samples else ()


def _clock(trial: Trial) -> str:
    """Trials whose absolute times can be compared: one unit, one software, one size, one way to run the clock."""
    place = trial.key.fingerprint
    setting = [fact for fact in trial.operating if fact[0] in _SETTINGS]
    return f"{place.family} {place.sku} {place.unit} {place.software} {sorted(trial.sizes)} {setting}"


def _compare(trial: Trial) -> _Comparison | None:
    """Sample i beside sample i; where one side has more, its last ones were taken alone."""
    if trial.pairing is None or not trial.pairing.samples:
        return None
    pairs = min(len(trial.samples), len(trial.pairing.samples))
    ratios = np.log(trial.samples[:pairs]) - np.log(trial.pairing.samples[:pairs])
    middle = float(np.median(ratios))
    return _Comparison(trial, middle, 1.4826 * float(np.median(np.abs(ratios - middle))), pairs)


def _pooled(compared: Sequence[_Comparison]) -> float:
    """Spread of single pairs over all trials: root of the weighted mean square; the usual one counts like four pairs."""
    weights = [4.0, *(float(c.pairs - 1) for c in compared)]
    squares = [USUAL_SPREAD**2, *(c.spread**2 for c in compared)]
    return math.sqrt(sum(w * s for w, s in zip(weights, squares)) / sum(weights))


def _shrunk(comparison: _Comparison, pooled: float) -> float:
    pairs = comparison.pairs - 1
    return math.sqrt((pairs * comparison.spread**2 + 4 * pooled**2) / (pairs + 4))


def _of_median(spread: float, samples: int) -> float:
    """Variance of the median of a normal sample: pi/2 of that of its mean."""
    return math.pi / 2 * spread**2 / samples


def _solve(equations: Sequence[_Equation], unknowns: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Normal equations; the matrix is a graph's Laplacian with something on its diagonal, so it is positive definite."""
    matrix, right = np.zeros((unknowns, unknowns)), np.zeros(unknowns)
    for equation in equations:
        weight = 1 / equation.variance
        matrix[equation.plus, equation.plus] += weight
        right[equation.plus] += weight * equation.value
        if equation.minus is not None:
            matrix[equation.minus, equation.minus] += weight
            matrix[equation.plus, equation.minus] -= weight
            matrix[equation.minus, equation.plus] -= weight
            right[equation.minus] -= weight * equation.value
    covariance = np.linalg.inv(matrix)
    return covariance @ right, covariance
