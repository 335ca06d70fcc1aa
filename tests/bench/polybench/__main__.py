"""PolyBench and NumPy kernels that are not in the library, untuned, beside Numba and JAX on one core.

    OMP_NUM_THREADS=1 taskset -c 1 python -m tests.bench.polybench [--only atax,bicg] [--sizes 3] [--part 1/4] [--samples 11] [--json]

Not part of the suite; about four minutes in all, most of it compiling. `kernels.tri` says what is computed, `products.py` and `loops.py`
say it as a user of Numba does (`njit`: no fast mathematics, no threads), `formulas.py` as one of JAX (`jit`). Everybody writes or makes
arrays of the same types; ours and Numba's results are written into arrays that are there, XLA allocates. Our answer and Numba's are
compared with the formula in NumPy and f64 before anything is timed; then one sample of each in turn.

The table has everybody's median, and the peers' times over ours: above 1 we are faster. `--markdown` writes it for RESULTS.md.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"

import jax
import numba
import numpy as np
from rich.console import Console
from rich.table import Table

import tridsl
from tests.bench.polybench import formulas, loops, products
from tests.bench.polybench.cases import Case, cases
from tridsl.cli.bench.sampling import interleave
from tridsl.structs import dataclass

KERNELS = Path(__file__).with_name("kernels.tri")
BEHIND = 0.8
"""Points at which the better peer takes less than this part of our time are listed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """Medians in seconds; `compiled`: of our first call."""

    kernel: str
    size: str
    ours: float
    numba: float
    jax: float
    compiled: float

    @property
    def over(self) -> float:
        """The better peer's time over ours."""
        return min(self.numba, self.jax) / self.ours


def _loops(kernel: str, compiled: dict[str, Any] = {}) -> Any:  # noqa: B006 (the table of what is compiled)
    if kernel not in compiled:
        compiled[kernel] = numba.njit(getattr(products, kernel, None) or getattr(loops, kernel))
    return compiled[kernel]


def _formula(kernel: str) -> Callable[..., Any]:
    function = getattr(formulas, kernel)
    return jax.jit(lambda *arguments: function(jax.numpy, *arguments))


def _exact(kernel: str, arguments: Sequence[Any]) -> tuple[Any, ...]:
    wide = [np.asarray(a, np.float64) if np.asarray(a).dtype.kind == "f" else a for a in arguments]
    return _several(getattr(formulas, kernel)(np, *wide))


def _several(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


def _check(who: str, case: Case, got: Sequence[Any], wanted: Sequence[Any]) -> None:
    """Integers exactly, floats to a few hundred roundings of the largest result."""
    for one, exact in zip(got, wanted, strict=True):
        array, exact = np.asarray(one), np.asarray(exact)
        if array.dtype.kind != "f":
            right = np.array_equal(array, exact)
        else:
            right = np.allclose(array, exact, rtol=0, atol=400 * np.finfo(array.dtype).eps * max(1.0, float(np.abs(exact).max())))
        if not right:
            raise SystemExit(f"{case.kernel} {case.size}: the answer of {who} is wrong")


def measure(case: Case, op: Any, samples: int) -> Point:
    arguments = case.make(np.random.default_rng(0))
    start = time.perf_counter()
    got = op(*arguments)
    compiled = time.perf_counter() - start
    mine = tuple(np.empty(np.shape(g), np.asarray(g).dtype) for g in _several(got))
    theirs = tuple(map(np.empty_like, mine))
    out = mine if isinstance(got, tuple) else mine[0]
    by_loops, by_formula = _loops(case.kernel), _formula(case.kernel)
    given = [jax.numpy.asarray(a) for a in arguments]
    op(*arguments, out=out)
    by_loops(*arguments, *theirs)
    exact = _exact(case.kernel, arguments)
    _check("tridsl", case, mine, exact)
    _check("Numba", case, theirs, exact)
    jax.block_until_ready(by_formula(*given))
    found = interleave(
        {
            "ours": lambda number: op(*arguments, out=out),
            "numba": lambda number: by_loops(*arguments, *theirs),
            "jax": lambda number: jax.block_until_ready(by_formula(*given)),
        },
        samples,
    )
    return Point(kernel=case.kernel, size=case.size, compiled=compiled, **{name: r.median for name, r in found.items()})


def geometric_mean(values: Sequence[float]) -> float:
    return math.exp(sum(map(math.log, values)) / len(values)) if values else math.nan


def summary(points: Sequence[Point]) -> str:
    means = ((who, geometric_mean([f(p) for p in points])) for who, f in WHO.items())
    behind = sorted((p for p in points if p.over < BEHIND), key=lambda p: p.over)
    text = f"{len(points)} points; geometric means of the peers' times over ours: " + ", ".join(f"{who} {mean:.2f}" for who, mean in means)
    return text + f"; {len(behind)} below {BEHIND:g}: " + (", ".join(f"{p.kernel} {p.size} {p.over:.2f}" for p in behind) or "none")


WHO: dict[str, Callable[[Point], float]] = {
    "Numba": lambda p: p.numba / p.ours, "JAX": lambda p: p.jax / p.ours, "the better of both": lambda p: p.over,
}  # fmt: skip


def _row(p: Point) -> tuple[str, ...]:
    times = (f"{1e6 * t:.2f}" for t in (p.ours, p.numba, p.jax))
    return (p.kernel, p.size, *times, f"{p.numba / p.ours:.2f}", f"{p.jax / p.ours:.2f}", f"{1e3 * p.compiled:.0f}")


COLUMNS = ("kernel", "size", "ours µs", "Numba µs", "JAX µs", "Numba / ours", "JAX / ours", "first call ms")


def show(points: Sequence[Point]) -> None:
    table = Table(*COLUMNS, box=None, pad_edge=False)
    for p in points:
        table.add_row(*_row(p), style="" if p.over >= 1 else "yellow" if p.over >= BEHIND else "red")
    Console(width=None if sys.stdout.isatty() else 160).print(table, summary(points) + ". All figures are measured.")


def markdown(points: Sequence[Point]) -> None:
    print("| " + " | ".join(COLUMNS) + " |\n|" + "---|" * len(COLUMNS))
    for p in points:
        print("| " + " | ".join(_row(p)) + " |")
    print(f"\n{summary(points)} (*measured*).")


def main(given: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="tests.bench.polybench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="kernels whose names contain one of these, by commas")
    parser.add_argument("--sizes", default="123", help="which of the three sizes")
    parser.add_argument("--part", default="1/1", help="the first of four parts: 1/4")
    parser.add_argument("--samples", type=int, default=11)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--markdown", action="store_true")
    options = parser.parse_args(given)
    jax.config.update("jax_enable_x64", True)
    ops = tridsl.load(KERNELS)
    wanted = [name for name in options.only.split(",") if name]
    number, parts = map(int, options.part.split("/"))
    every = [c for n, c in enumerate(cases()) if str(n % 3 + 1) in options.sizes]
    chosen = [c for c in every if not wanted or any(name in c.kernel for name in wanted)]
    kernels = list(dict.fromkeys(c.kernel for c in chosen))[number - 1 :: parts]
    points = []
    for case in chosen:
        if case.kernel in kernels:
            points.append(measure(case, getattr(ops, case.kernel), options.samples))
            print(*_row(points[-1]), file=sys.stderr, flush=True)
    if options.json:
        print(json.dumps({"label": "measured", "points": [{f: getattr(p, f) for f in p.__struct_fields__} for p in points]}, indent=2))
    else:
        (markdown if options.markdown else show)(points)
    return 0


if __name__ == "__main__":
    sys.exit(main())
