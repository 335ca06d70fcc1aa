"""Synthetic recordings with a known best point: the shapes that real spaces have, one at a time."""

from __future__ import annotations

import math
from itertools import product
from random import Random

from tridsl.autotune.replay import Header, Recording
from tridsl.autotune.space import Point

ROWS, COLUMNS, DEPTHS = tuple(range(1, 17)), (1, 2, 3, 4), (64, 128, 256, 512)


def recording(kind: str, seed: int = 0, *, noise: float = 0.03, prediction: float = 0.15) -> Recording:
    """`rugged`: neighbours differ by chance; `plateau`: most points are equal and the best are few; `cliff`: one step beyond the
    registers costs half the speed; `noisy`: as cliff, with five times the noise. `prediction`: the error of the ranking."""
    random = Random(f"{kind}{seed}")
    jump = {(r, c): random.gauss(0, 0.15) for r in ROWS for c in COLUMNS}
    good = Random(seed).choice([8, 10, 12]), 2
    truth: dict[Point, float] = {}
    for pack, rows, columns, depth in product((True, False), ROWS, COLUMNS, DEPTHS):
        if not pack and depth != 64:
            continue
        point: Point = (("pack", pack), ("rows", rows), ("vectors", columns))
        if pack:
            point += (("depth", depth),)
        tile = rows * columns
        smooth = 0.5 * abs(math.log2(tile / (good[0] * good[1]))) + 0.06 * abs(math.log2(depth / 256)) + (0.0 if pack else 0.4)
        spilt = 0.7 if tile + columns + 1 > 32 else 0.0
        if kind == "plateau":
            smooth = min(smooth, 0.5) if tile < 0.8 * good[0] * good[1] else smooth
        truth[point] = {"rugged": smooth + jump[rows, columns], "plateau": smooth, "cliff": smooth + spilt, "noisy": smooth + spilt}[kind]
    scale = noise * (5 if kind == "noisy" else 1)
    default = next(p for p in truth if dict(p)["rows"] == 4)
    base = truth[default]
    return Recording(
        header=Header(format=1, name=f"{kind}{seed}", default=dict(default)),
        ratios={p: _samples(t - base, scale, random) for p, t in truth.items()},
        predicted={p: 1e-3 * math.exp(t + random.gauss(0, prediction)) for p, t in truth.items()},
    )


def _samples(middle: float, scale: float, random: Random) -> tuple[float, ...]:
    """Fifteen samples around a middle, one in twelve of them in a burst."""
    noise = [random.gauss(0, scale) + (random.choice((-1, 1)) * random.expovariate(2) if random.random() < 1 / 12 else 0.0) for _ in range(15)]
    centre = sorted(noise)[7]
    return tuple(middle + n - centre for n in noise)
