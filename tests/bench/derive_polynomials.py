"""Derive the coefficients in `tridsl/backends/cpu/functions/coefficients.py`.

    python tests/bench/derive_polynomials.py > backends/cpu/functions/coefficients.py      (a few minutes; needs mpmath)

Each row of `PROBLEMS` is a weighted minimax problem: find the polynomial p of the given degree for which the largest
|weight(x) * (p(x) - target(x))| on an interval is least. `weight` turns the error of p into the relative error of the function that is
built from it. Solved by the second Remez algorithm (E. W. Cheney, *Introduction to Approximation Theory*, ch. 3;
J.-M. Muller, *Elementary Functions*, ch. 3) on a dense Chebyshev grid in 60-digit arithmetic, started from the
Chebyshev extrema. Coefficients of f32 are rounded one after the other from the lowest degree, the rest being solved again each time,
for as many as that helps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import mpmath as mp
import numpy as np

mp.mp.dps = 60
Function = Callable[[mp.mpf], mp.mpf]
GRID = 1200  # even: no point falls on the removable singularity at 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """`degrees`: of the polynomial for f32 and f64 (None: not needed); `high`: end of the interval for each."""

    name: str
    about: str
    target: Function
    weight: Function
    low: float
    high: tuple[float, float]
    degrees: tuple[int | None, int | None]


def even(function: Function) -> Function:
    """A function of z = x**2."""
    return lambda z: function(mp.sqrt(z))


def log_erfc_weight(a: mp.mpf) -> mp.mpf:
    return mp.erfc(a) / mp.erf(a)


HALF_LN2 = 0.34658
TAN_EIGHTH = 0.1716  # (sqrt(2) - 1) / (sqrt(2) + 1)
QUARTER_PI = 0.78540

PROBLEMS = (
    Problem(name="EXP", about="(exp(r) - 1 - r) / r**2, |r| <= ln(2)/2", low=-HALF_LN2, high=(HALF_LN2, HALF_LN2), degrees=(4, 9),
            target=lambda r: (mp.expm1(r) - r) / r**2, weight=lambda r: r**2 / mp.exp(r)),
    Problem(name="EXP_SHORT", about="(exp(r) - 1) / r, |r| <= ln(2)/2; below 0, where a unit in the last place is half as large, so is the error",
            low=-HALF_LN2, high=(HALF_LN2, HALF_LN2), degrees=(4, None), target=lambda r: mp.expm1(r) / r, weight=lambda r: r * (2 if r < 0 else 1)),
    Problem(name="EXPM1", about="(exp(r) - 1 - r) / r**2, |r| <= ln(2)/2, for exp(r) - 1", low=-HALF_LN2, high=(HALF_LN2, HALF_LN2), degrees=(4, 10),
            target=lambda r: (mp.expm1(r) - r) / r**2, weight=lambda r: r**2 / mp.expm1(r)),
    Problem(name="EXP2", about="(2**r - 1) / r, |r| <= 1/2", low=-0.5, high=(0.5, 0.5), degrees=(None, 11),
            target=lambda r: (mp.power(2, r) - 1) / r, weight=lambda r: r / mp.power(2, r)),
    Problem(name="EXP2_SHORT", about="(2**r - 1) / r, |r| <= 1/2; weighted as EXP_SHORT", low=-0.5, high=(0.5, 0.5), degrees=(4, None),
            target=lambda r: (mp.power(2, r) - 1) / r, weight=lambda r: r * (2 if r < 0 else 1)),
    Problem(name="LOG_DIRECT", about="(log1p(f) - f + f**2/2) / f**3, sqrt(1/2) - 1 <= f <= sqrt(2) - 1", low=-0.29290, high=(0.41422, 0.41422), degrees=(7, None),
            target=lambda f: (mp.log1p(f) - f + f**2 / 2) / f**3, weight=lambda f: f**3 / mp.log1p(f)),
    Problem(name="LOG", about="(log((1 + s) / (1 - s)) / s - 2) / z, z = s**2, s = f / (2 + f)", low=0.0, high=(TAN_EIGHTH**2, TAN_EIGHTH**2), degrees=(None, 6),
            target=even(lambda s: (2 * mp.atanh(s) / s - 2) / s**2), weight=even(lambda s: s**2)),
    Problem(name="LOG_TAIL", about="(log((1 + s) / (1 - s)) / s - 2 - 2/3 z) / z**2, z = s**2", low=0.0, high=(TAN_EIGHTH**2, TAN_EIGHTH**2), degrees=(None, 7),
            target=even(lambda s: (2 * mp.atanh(s) / s - 2 - s**2 * 2 / 3) / s**4), weight=even(lambda s: s**4)),
    Problem(name="SIN", about="(sin(r) / r - 1) / z, z = r**2, |r| <= pi/4", low=0.0, high=(QUARTER_PI**2, QUARTER_PI**2), degrees=(2, 5),
            target=even(lambda r: (mp.sin(r) / r - 1) / r**2), weight=even(lambda r: r**3 / mp.sin(r))),
    Problem(name="COS", about="(cos(r) - 1 + z/2) / z**2, z = r**2, |r| <= pi/4", low=0.0, high=(QUARTER_PI**2, QUARTER_PI**2), degrees=(2, 5),
            target=even(lambda r: (mp.cos(r) - 1 + r**2 / 2) / r**4), weight=even(lambda r: r**4 / mp.cos(r))),
    Problem(name="ASIN", about="(asin(s) / s - 1) / z, z = s**2, s <= 1/2", low=0.0, high=(0.25, 0.25), degrees=(5, 12),
            target=even(lambda s: (mp.asin(s) / s - 1) / s**2), weight=even(lambda s: s**3 / mp.asin(s))),
    Problem(name="ATAN", about="(atan(t) / t - 1) / z, z = t**2, t <= 1", low=0.0, high=(1.0, 1.0), degrees=(8, 19),
            target=even(lambda t: (mp.atan(t) / t - 1) / t**2), weight=even(lambda t: t**3 / mp.atan(t))),
    Problem(name="SINH", about="(sinh(a) / a - 1) / z, z = a**2, a <= 1", low=0.0, high=(1.0, 1.0), degrees=(3, 6),
            target=even(lambda a: (mp.sinh(a) / a - 1) / a**2), weight=even(lambda a: a**3 / mp.sinh(a))),
    Problem(name="TANH", about="(tanh(a) / a - 1) / z, z = a**2, a <= 0.55", low=0.0, high=(0.3026, 0.3026), degrees=(None, 9),
            target=even(lambda a: (mp.tanh(a) / a - 1) / a**2), weight=even(lambda a: a**3 / mp.tanh(a))),
    Problem(name="ERF", about="erf(a) / a - 1, z = a**2, a <= 1", low=0.0, high=(1.0, 1.0), degrees=(6, 11),
            target=even(lambda a: mp.erf(a) / a - 1), weight=even(lambda a: a / mp.erf(a))),
    Problem(name="ERFC", about="log(erfc(1 + t)), 0 <= t <= 3 (f32) or 5 (f64)", low=0.0, high=(3.0, 5.0), degrees=(7, 18),
            target=lambda t: mp.log(mp.erfc(1 + t)), weight=lambda t: log_erfc_weight(1 + t)),
)  # fmt: skip


def remez(problem: Problem, low: float, high: float, degree: int, fixed: tuple[mp.mpf, ...] = ()) -> tuple[list[mp.mpf], mp.mpf]:
    """Minimax coefficients c[0..degree] and their weighted error; the first ones may be `fixed`."""
    middle, half = (mp.mpf(low) + high) / 2, (mp.mpf(high) - low) / 2
    points = [middle - half * mp.cos(mp.pi * (2 * i + 1) / (2 * GRID)) for i in range(GRID)]
    weights = [abs(problem.weight(x)) for x in points]
    wanted = [problem.target(x) - sum((c * x**k for k, c in enumerate(fixed)), mp.mpf(0)) for x in points]
    first, count = len(fixed), degree + 1 - len(fixed)
    reference = [round((GRID - 1) * i / count) for i in range(count + 1)]  # the grid is already Chebyshev
    coefficients: list[mp.mpf] = []
    level = mp.mpf(0)
    for _ in range(40):
        matrix = mp.matrix(count + 1, count + 1)
        right = mp.matrix(count + 1, 1)
        for row, i in enumerate(reference):
            for column in range(count):
                matrix[row, column] = (points[i] / high) ** (first + column)
            matrix[row, count] = (-1) ** row / weights[i]
            right[row] = wanted[i]
        solution = mp.lu_solve(matrix, right)
        coefficients = [solution[k] for k in range(count)]
        level = abs(solution[count])
        errors = []
        for i, x in enumerate(points):
            value, t = mp.mpf(0), x / high
            for c in reversed(coefficients):
                value = value * t + c
            errors.append(weights[i] * (value * t**first - wanted[i]))
        extrema = _alternation(errors, count + 1)
        largest = max(abs(errors[i]) for i in range(GRID))
        if largest <= level * (1 + mp.mpf("1e-4")) or extrema == reference:
            break
        reference = extrema
    return [*fixed, *(c / mp.mpf(high) ** (first + k) for k, c in enumerate(coefficients))], largest


def _alternation(errors: list[mp.mpf], count: int) -> list[int]:
    """`count` grid points of alternating sign with large errors."""
    runs: list[int] = []
    for i, e in enumerate(errors):
        if runs and (e > 0) == (errors[runs[-1]] > 0):
            if abs(e) > abs(errors[runs[-1]]):
                runs[-1] = i
        else:
            runs.append(i)
    while len(runs) > count:  # drop the weakest end, or the weakest neighbouring pair
        if len(runs) == count + 1:
            runs.pop(0 if abs(errors[runs[0]]) < abs(errors[runs[-1]]) else -1)
            continue
        pair = min(range(len(runs) - 1), key=lambda k: max(abs(errors[runs[k]]), abs(errors[runs[k + 1]])))
        del runs[pair : pair + 2]
    if len(runs) < count:
        raise ArithmeticError("the error does not alternate often enough; use another degree")
    return runs


def derive(problem: Problem, precision: int) -> tuple[list[float], float]:
    """Coefficients rounded to f32 (precision 0) or f64 (1), and the weighted error they give."""
    degree, high = problem.degrees[precision], problem.high[precision]
    assert degree is not None
    exact, _ = remez(problem, problem.low, high, degree)
    if precision:
        rounded = [float(c) for c in exact]
        return rounded, weighted_error(problem, high, rounded)
    candidates = []
    for fixed_ones in range(degree + 1):  # round some leading ones first and let the others make up for it
        coefficients = exact
        for k in range(fixed_ones):
            fixed = tuple(mp.mpf(float(np.float32(float(c)))) for c in coefficients[: k + 1])
            coefficients, _ = remez(problem, problem.low, high, degree, fixed)
        rounded = [float(np.float32(float(c))) for c in coefficients]
        candidates.append((weighted_error(problem, high, rounded), rounded))
    error, rounded = min(candidates)
    return rounded, error


def weighted_error(problem: Problem, high: float, coefficients: list[float]) -> float:
    """Greatest |weight * (p - target)| on 400 points."""
    points = [problem.low + (mp.mpf(high) - problem.low) * (i + mp.mpf(1) / 3) / 400 for i in range(400)]
    powers = [mp.mpf(c) for c in coefficients]
    return float(max(abs(problem.weight(x) * (mp.polyval(powers[::-1], x) - problem.target(x))) for x in points))


def main() -> None:
    print('"""Coefficients of the vector functions, lowest degree first, by element width in bits.\n')
    print("Made by tests/bench/derive_polynomials.py; do not edit. The comment gives what is approximated and the greatest")
    print('relative error of the function, as a power of two, in exact arithmetic with these coefficients.\n"""\n')
    for problem in PROBLEMS:
        print(f"# {problem.about}")
        print(f"{problem.name}: dict[int, tuple[float, ...]] = {{")
        for precision, bits in enumerate((32, 64)):
            if problem.degrees[precision] is None:
                continue
            coefficients, error = derive(problem, precision)
            print(f"    {bits}: (  # 2**{np.log2(error):.1f}")
            for c in coefficients:
                print(f"        {c!r},")
            print("    ),")
        print("}\n", flush=True)


if __name__ == "__main__":
    main()
