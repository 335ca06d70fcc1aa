"""What the automatic schedules of ordinary kernels look like: along which axis the lanes lie, what is a register tile, what is one sweep.

`pytest tests/schedule/test_shapes.py --update-golden` rewrites tests/golden/shapes; read the difference before committing it.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.differential.schedules import schedule_text
from tests.differential.trial import SPECS
from tests.schedule import programs
from tridsl.schedule.automatic import automatic
from tridsl.schedule.steps import Parallel, Split

GOLDEN = Path(__file__).parents[1] / "golden" / "shapes"
ONE_CORE = replace(SPECS["wide"], cores=1)

KERNELS: dict[str, tuple[str, dict[str, int]]] = {
    # a window: lanes along the row, several rows at a time, the window written out
    "window": ("op f(x: f32[N + 2, M + 2], w: f32[3, 3]) -> y: f32[N, M] { y[i, j] = sum[r in 0..3, s in 0..3](w[r, s] * x[i + r, j + s]) }", {"N": 200, "M": 300}),
    "window_max": ("op f(x: u8[N + 2, M + 2]) -> y: u8[N, M] { y[i, j] = max[r in 0..3, s in 0..3](x[i + r, j + s]) }", {"N": 200, "M": 300}),
    # sums of products with something more in them: a register tile all the same
    "masked_product": ("op f(A: f64[N, N], B: f64[N, M]) -> y: f64[N, M] { y[i, j] = sum[k](if k > i then A[k, i] * B[k, j] else 0) }", {"N": 64, "M": 64}),
    "three_factors": ("op f(A: f32[N, K], w: f32[K], B: f32[K, M]) -> y: f32[N, M] { y[i, j] = sum[k](A[i, k] * w[k] * B[k, j]) }", {"N": 64, "K": 64, "M": 64}),
    # neither factor is contiguous along a result: one is copied
    "distances": ("op f(x: f32[N, D], y: f32[M, D]) -> z: f32[N, M] { z[i, j] = sum[d](sqr(x[i, d] - y[j, d])) }", {"N": 200, "M": 200, "D": 8}),
    # what reads a product: a strip of its rows at a time; behind all of it where the product is large
    "scaled_product": ("op f(a: f64, b: f64, A: f64[N, K], B: f64[K, M], C: f64[N, M]) -> y: f64[N, M] { y[i, j] = a * sum[k](A[i, k] * B[k, j]) + b * C[i, j] }", {"N": 64, "K": 64, "M": 64}),
    "large_scaled_product": ("op f(a: f64, b: f64, A: f64[N, K], B: f64[K, M], C: f64[N, M]) -> y: f64[N, M] { y[i, j] = a * sum[k](A[i, k] * B[k, j]) + b * C[i, j] }", {"N": 300, "K": 300, "M": 300}),
    # few rows: the large factor is swept where it is, its rows fetched ahead; what changes its type or lies far apart is copied
    "few_rows": ("op f(A: f32[N, K], B: f32[K, M]) -> y: f32[N, M] { y[i, j] = sum[k](A[i, k] * B[k, j]) }", {"N": 6, "K": 600, "M": 700}),
    "several_tiles": ("op f(A: bf16[20, K], B: bf16[K, M]) -> y: f32[20, M] { y[i, j] = sum[k; acc=f32](A[i, k] * B[k, j]) }", {"K": 700, "M": 900}),
    # both factors are one tensor, and one that the op makes
    "covariance": ("op f(x: f64[N, M]) -> c: f64[M, M] {\n m[j] = sum[i](x[i, j]) / f64(N)\n d[i, j] = x[i, j] - m[j]\n c[p, q] = sum[i](d[i, p] * d[i, q])\n}", {"N": 300, "M": 300}),
    # two reduced axes: panels of one of them
    "two_axes": ("op f(A: f64[N, D, E], B: f64[D, M, E]) -> z: f64[N, M] { z[i, j] = sum[d, e](A[i, d, e] * B[d, j, e]) }", {"N": 64, "M": 64, "D": 64, "E": 64}),
    # several sums over the same rows: one sweep
    "one_sweep": ("op f(x: f32[N, M], y: f32[N, M]) -> z: f32[N] { z[i] = sum[j](x[i, j] * y[i, j]) / sqrt(sum[j](sqr(x[i, j])) * sum[j](sqr(y[i, j]))) }", {"N": 200, "M": 200}),
    # maps of maps: registers
    "chain": ("op f(x: f64[N], y: f64[N]) -> z: f64[N] {\n a[i] = x[i] * x[i] - y[i] * y[i] + x[i]\n b[i] = 2 * x[i] * y[i] + y[i]\n c[i] = a[i] * a[i] - b[i] * b[i] + x[i]\n z[i] = c[i] * c[i] + 2 * a[i] * b[i] * c[i]\n}", {"N": 30000}),
    # columns and rows of sums: lanes where memory is contiguous
    "column_sums": ("op f(x: f64[N, M]) -> y: f64[M] { y[j] = sum[i](x[i, j]) }", {"N": 100, "M": 200}),
    "row_sums": ("op f(x: f64[N, M]) -> y: f64[N] { y[i] = sum[j](x[i, j]) }", {"N": 100, "M": 200}),
    "middle_sums": ("op f(x: f32[A, B, C]) -> y: f32[A, C] { y[a, c] = sum[b](x[a, b, c]) }", {"A": 20, "B": 40, "C": 50}),
}  # fmt: skip


@pytest.mark.parametrize("name", KERNELS)
def test_shape(name: str, update_golden: bool) -> None:
    text, sizes = KERNELS[name]
    steps = schedule_text(automatic(programs.op_of(text), ONE_CORE, sizes)) + "\n"
    place = GOLDEN / f"{name}.schedule"
    if update_golden:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(steps, encoding="utf-8")
    assert steps == place.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("size", [1, 5, 19])
def test_small_sizes_keep_the_meaning(name: str, size: int) -> None:
    op = programs.op_of(KERNELS[name][0])
    sizes = {n: min(k, size + number) for number, (n, k) in enumerate(KERNELS[name][1].items())}
    programs.check_same(op, automatic(op, ONE_CORE, KERNELS[name][1]), sizes)
    programs.check_same(op, automatic(op, ONE_CORE, sizes), sizes)


def _shared(cores: int, columns: int) -> tuple[str, int]:
    """The loop that threads share in a packed product, and the columns of a block."""
    steps = automatic(programs.op_of(programs.MATMUL), replace(programs.CPU, cores=cores), {"M": 1024, "K": 1024, "N": columns})
    width = next(s.factor for s in steps if isinstance(s, Split) and s.axis == "j")
    return next(s.axis for s in steps if isinstance(s, Parallel)), width


def test_each_core_packs_blocks_of_its_own_where_they_are_wide() -> None:
    assert _shared(1, 1024) == ("i.o", 256)
    assert _shared(2, 1024) == ("j.o", 256)
    assert _shared(2, 768) == ("j.o", 192)  # four blocks, not three
    assert _shared(4, 1056) == ("i.o", 224)  # eight parts would be seven of 160: a core would wait
    assert _shared(16, 1024) == ("i.o", 256)  # 64 columns each


@pytest.mark.parametrize(("size", "tile"), [(64, (8, 32)), (512, (8, 32)), (1000, (10, 32)), (1021, (12, 32))])
def test_tiles_of_packed_bytes_are_two_vectors_wide_and_none_is_short(size: int, tile: tuple[int, int]) -> None:
    op = programs.op_of("op f(A: i8[N, N], B: i8[N, N]) -> y: i32[N, N] { y[i, j] = sum[k; acc=i32](A[i, k] * B[k, j]) }")
    spec = replace(ONE_CORE, features=frozenset({"avx512vnni"}))
    splits = {s.axis: s.factor for s in automatic(op, spec, {"N": size}) if isinstance(s, Split)}
    assert (splits["i"], splits["j.i"]) == tile
