"""Derive the tables in `tridsl/backends/cpu/functions/pieces.py`.

    python tests/bench/derive_pieces.py > backends/cpu/functions/pieces.py      (some minutes; needs mpmath)

An odd function that ends at 1 is, over |x| up to there, one polynomial of degree 4 for each piece. A piece is named by the leading
bits of |x| + offset: eight to each power of two, so that they are short where the function bends. With v = |x| - centre,

    c0 + |x| (c1 + v (c2 + v (c3 + v c4)))

keeps what is small small (the last step is in |x|, and c0 = 0 in the first piece), and cancels little where the function bends, if it
bends no more than tanh. Else each piece has its own centre, 0 the first, which is looked up like a coefficient: u = |x| - centre is so
small that with w = |x| + offset, which is there already, the inner steps may cancel:

    c0 + u (c1 + w (c2 + w (c3 + w c4)))

The start is a weighted minimax fit by Lawson's iteration (C. L. Lawson, thesis, UCLA 1961), rounded from the highest degree down, each
time solved again for the rest. What then remains is the rounding of every step as the processor does it: single coefficients are moved by
a few last places at random wherever that lessens the greatest error over the numbers of the piece.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import mpmath as mp
import numpy as np

Array = np.ndarray
STEPS_BITS = 3  # eight pieces to a power of two
ENTRIES = 32  # of two registers of 512 bits
DEGREE = 4
NODES = 160
ROUNDS = 80
SAMPLES = 40_000
LOWEST = 2.0**-12  # below, the first piece is its slope


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """`limit`: from here on the function rounds to 1; inside of a piece. `offset` and `centre`: found by trying the multiples of 1/16;
    no `centre`: each piece has its own. `trials`: of other last places, for each piece."""

    name: str
    about: str
    function: Callable[[mp.mpf], mp.mpf]
    wide: Callable[[Array], Array]
    limit: float
    offset: float
    centre: float | None
    trials: int

    def variables(self, a: Array, low: float, high: float) -> tuple[Array, Array]:
        """What the inner steps and the last one multiply by."""
        real = a.dtype.type
        return (a + real(self.offset), a - real(middle(low, high))) if self.centre is None else (a - real(self.centre), a)


PROBLEMS = (
    Problem(name="TANH", about="tanh", function=mp.tanh, wide=np.tanh, limit=9.125, offset=0.75, centre=1.3125, trials=5_000),
    Problem(name="ERF", about="erf", function=mp.erf, wide=np.vectorize(math.erf, otypes=[np.float64]), limit=3.9375, offset=0.5, centre=None, trials=1_500),
)  # fmt: skip


def pieces(problem: Problem) -> Iterator[tuple[int, float, float]]:
    """(entry, from, to) of each."""
    shift = 23 - STEPS_BITS
    first, last = (int(np.float32(a + problem.offset).view(np.int32)) >> shift for a in (0.0, problem.limit))
    for name in range(first, last + 1):
        low, high = (float(np.int32(bits << shift).view(np.float32)) - problem.offset for bits in (name, name + 1))
        yield name % ENTRIES, max(low, 0.0), min(high, problem.limit)


def middle(low: float, high: float) -> float:
    """The centre of a piece; the first keeps what is small small."""
    return (low + high) / 2 if low else 0.0


def unit(values: Array) -> Array:
    """The unit in the last place, of 1 as of what is below."""
    return np.exp2(np.floor(np.log2(np.minimum(values, 1 - 2.0**-30))) - 23)


def fitted(problem: Problem, low: float, high: float) -> Array:
    """Coefficients in f32 whose exact polynomial errs little."""
    x = (low + high) / 2 - (high - low) / 2 * np.cos(np.pi * (2 * np.arange(NODES) + 1) / (2 * NODES))
    true = np.array([float(problem.function(mp.mpf(float(at)))) for at in x])
    weight = 1 / unit(true)
    v, u = problem.variables(x, low, high)
    basis = [np.ones(NODES), *(u * v**k for k in range(DEGREE))]
    found: dict[int, float] = {} if low else {0: 0.0}
    for k in range(DEGREE, -1, -1):
        if k in found:
            continue
        free = [j for j in range(k + 1) if j not in found]
        wanted = (true - sum((c * basis[j] for j, c in found.items()), np.zeros(NODES))) * weight
        columns = np.stack([basis[j] for j in free], 1) * weight[:, None]
        size, share = np.abs(columns).max(0), np.ones(NODES)
        for _ in range(ROUNDS):
            root = np.sqrt(share)
            solution = np.linalg.lstsq(columns / size * root[:, None], wanted * root, rcond=None)[0] / size
            share = share * (np.abs(columns @ solution - wanted) + 1e-15)
            share /= share.sum()
        found[k] = float(np.float32(solution[free.index(k)]))
    return np.array([found[k] for k in range(DEGREE + 1)], np.float32)


def fused(a: Array, b: Array, c: np.float32) -> Array:
    """a * b + c of f32, rounded once (but for ties of f64)."""
    return (a.astype(np.float64) * b + np.float64(c)).astype(np.float32)


def error(c: Array, v: Array, u: Array, true: Array, per_unit: Array) -> float:
    """The greatest, in units in the last place, as the processor computes."""
    p = np.full_like(v, c[DEGREE])
    for k in range(DEGREE - 1, 0, -1):
        p = fused(p, v, c[k])
    return float((np.abs(fused(p, u, c[0]) - true) * per_unit).max())


def moved(c: Array, first: int, rng: np.random.Generator) -> Array:
    """One to three coefficients by some last places: high ones, whose places are worth less, by more."""
    bits = c.copy().view(np.int32)
    for k in rng.integers(first, DEGREE + 1, rng.integers(1, 4)):
        reach = 4 if k < 3 else 1000
        bits[k] += rng.integers(-reach, reach + 1)
    return bits.view(np.float32)


def derive(problem: Problem) -> Iterator[tuple[int, float, Array, float]]:
    """(entry, centre, coefficients, greatest error) of each piece."""
    for entry, low, high in pieces(problem):
        ends = [int(np.float32(a).view(np.int32)) for a in (max(low, LOWEST), high)]
        stride = max(1, (ends[1] - ends[0]) // SAMPLES) | 1
        a = np.arange(*ends, stride, dtype=np.int32).view(np.float32)
        true = problem.wide(a.astype(np.float64))
        at = *problem.variables(a, low, high), true, 1 / unit(true)
        c, rng = fitted(problem, low, high), np.random.default_rng(entry)
        least = error(c, *at)
        for _ in range(problem.trials):
            other = moved(c, 0 if low else 1, rng)
            greatest = error(other, *at)
            if greatest < least:
                c, least = other, greatest
        yield entry, middle(low, high), c, least


def main() -> None:
    print('"""Tables of the functions that are computed by pieces (`piecewise.py`): by coefficient, of c0 first, then by piece.\n')
    print('Made by tests/bench/derive_pieces.py; do not edit.\n"""\n')
    print("from tridsl.backends.cpu.functions.piecewise import Pieces\n")
    for problem in PROBLEMS:
        table, centres, worst = np.zeros((DEGREE + 1, ENTRIES), np.float32), [0.0] * ENTRIES, 0.0
        for entry, centre, c, greatest in derive(problem):
            table[:, entry], centres[entry], worst = c, centre, max(worst, greatest)
        print(f"{problem.name} = Pieces(")
        print(f"    limit={problem.limit}, offset={problem.offset}, shift={23 - STEPS_BITS},")
        print(f"    centre={problem.centre or tuple(centres)},")
        print(f"    # {problem.about}: {math.ceil(worst * 100) / 100} units in the last place on the numbers that were tried")
        print("    coefficients=(")
        for row in table:
            print(f"        ({', '.join(repr(float(c)) for c in row)}),")
        print("    ),\n)  # fmt: skip\n", flush=True)


if __name__ == "__main__":
    main()
