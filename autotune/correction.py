"""What measurements say about the predicted ranking: a Gaussian process over the difference between the two.

log(measured) = offset + slope * log(predicted) + something smooth in the choices + noise. With no measurements the ranking is the
analytic one; with some, points like those that were slower than predicted sink. Rasmussen and Williams, "Gaussian Processes
for Machine Learning", 2006, chapters 2 and 5.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tridsl.autotune.space import Point
from tridsl.structs import dataclass

Array = NDArray[np.float64]

SLOPES, SLOPE_SPREAD = (0.0, 0.5, 1.0), 0.3
"""How far the prediction is trusted: chosen by likelihood, with some freedom around it."""
LENGTHS, SIZES = (1.0, 3.0, 8.0), (0.15, 0.35, 0.8)
"""Distances (in octaves or changed names) over which points are alike, and how far they stray from the prediction."""
OFFSET_SPREAD = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Encoding:
    """Points as rows of numbers: octaves for numbers, 0 or 1 for every other value, a column for "is not asked here"."""

    row: Mapping[Point, int]
    features: Array
    predicted: Array

    @staticmethod
    def of(predicted: Mapping[Point, float]) -> Encoding:
        values: dict[str, dict[Any, None]] = {}
        for point in predicted:
            for name, value in point:
                values.setdefault(name, {})[value] = None
        columns: list[Array] = []
        given = [dict(p) for p in predicted]
        for name, seen in values.items():
            here = np.array([name in g for g in given])
            if not here.all():
                columns.append(here.astype(np.float64))
            if all(isinstance(v, int | float) and not isinstance(v, bool) for v in seen):
                octaves = np.array([_octave(g[name]) if name in g else np.nan for g in given])
                columns.append(np.where(here, octaves, np.nanmedian(octaves)))
            elif len(seen) > 1:
                columns += [np.array([0.5 * (g.get(name) == v and name in g) for g in given]) for v in seen]
        features = np.stack(columns, axis=1) if columns else np.zeros((len(given), 1))
        return Encoding({p: n for n, p in enumerate(predicted)}, features, np.array(list(predicted.values())))


@dataclass(frozen=True, slots=True, eq=False)
class Correction:
    """A fitted process."""

    encoding: Encoding
    rows: Array
    slope: float
    length: float
    size: float
    centre: float
    offset: float
    factor: NDArray[Any]
    weights: NDArray[Any]

    @staticmethod
    def fit(encoding: Encoding, measured: Sequence[tuple[Point, float, int]], noise: float) -> Correction:
        """From (point, log-ratio, blocks), with the most likely of a few settings. `noise`: deviation of one block."""
        rows = np.array([encoding.row[p] for p, _, _ in measured if p in encoding.row])
        known = [(y, n) for p, y, n in measured if p in encoding.row]
        y = np.array([v for v, _ in known])
        x = encoding.predicted[rows]
        centre = float(x.mean())
        wobble = np.diag([noise**2 / n + 1e-6 for _, n in known])
        best: tuple[float, Correction] | None = None
        distances = _distances(encoding.features[rows], encoding.features[rows])
        for slope, length, size in product(SLOPES, LENGTHS, SIZES):
            residual = y - slope * (x - centre)
            offset = float(np.median(residual))
            residual = residual - offset
            covariance = _kernel(distances, x - centre, x - centre, length, size) + wobble
            factor = np.linalg.cholesky(covariance)
            weights = np.linalg.solve(factor.T, np.linalg.solve(factor, residual))
            likelihood = -0.5 * float(residual @ weights) - float(np.log(np.diag(factor)).sum())
            if best is None or likelihood > best[0]:
                best = likelihood, Correction(encoding, rows, slope, length, size, centre, offset, factor, weights)
        assert best is not None
        return best[1]

    def expect(self, points: Sequence[Point]) -> tuple[Array, Array]:
        """Expected log-ratio of each point, and its standard deviation."""
        at = np.array([self.encoding.row[p] for p in points])
        x = self.encoding.predicted[at] - self.centre
        distances = _distances(self.encoding.features[at], self.encoding.features[self.rows])
        cross = _kernel(distances, x, self.encoding.predicted[self.rows] - self.centre, self.length, self.size)
        mean = self.offset + self.slope * x + cross @ self.weights
        solved = np.linalg.solve(self.factor, cross.T)
        own = self.size**2 + SLOPE_SPREAD**2 * x * x * 0.25 + 0.01 * OFFSET_SPREAD
        return mean, np.sqrt(np.maximum(own - (solved * solved).sum(axis=0), 1e-10))

    def choose(self, points: Sequence[Point], best: float, count: int) -> tuple[tuple[Point, ...], float]:
        """The points of greatest expected improvement on the log-ratio `best`, unlike each other, and the greatest improvement."""
        mean, deviation = self.expect(points)
        gain = _improvement(mean, deviation, best)
        top = float(gain.max())
        chosen: list[int] = []
        features = self.encoding.features[[self.encoding.row[p] for p in points]]
        weight = gain.copy()
        for _ in range(min(count, len(points))):
            place = int(np.argmax(weight))
            chosen.append(place)
            apart = np.abs(features - features[place]).sum(axis=1)
            weight = weight * (1 - np.exp(-apart / self.length))
            weight[place] = -1.0
        return tuple(points[n] for n in chosen), top

    def best_of(self, points: Sequence[Point]) -> Point:
        mean, _ = self.expect(points)
        return points[int(np.argmin(mean))]


def _octave(value: Any) -> float:
    return math.log2(max(abs(float(value)), 0.5))


def _distances(a: Array, b: Array) -> Array:
    found: Array = np.abs(a[:, None, :] - b[None, :, :]).sum(axis=2)
    return found


def _kernel(distances: Array, x: Array, z: Array, length: float, size: float) -> Array:
    """Smooth in the choices, plus freedom of slope and offset."""
    found: Array = size**2 * np.exp(-distances / length) + SLOPE_SPREAD**2 * 0.25 * np.outer(x, z) + 0.01 * OFFSET_SPREAD
    return found


def _improvement(mean: Array, deviation: Array, best: float) -> Array:
    """Expected amount by which a normal variable falls below `best`."""
    z = (best - mean) / deviation
    density = np.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)
    below = np.array([0.5 * math.erfc(-v / math.sqrt(2)) for v in z])
    found: Array = deviation * (z * below + density)
    return found
