"""Convolutions and patches by matrix instructions: neighbours along a row times channels, wherever a window begins."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from tests.backends.npu.designs import GENERATIONS, agree, chip, subject
from tests.backends.npu.test_kernels import normal
from tests.stdlib.calling import prepared
from tridsl import pipeline
from tridsl.backends.npu import BACKEND
from tridsl.backends.npu.design import MEMTILE
from tridsl.backends.npu.lower_array import Laid
from tridsl.ir.op import Scalar
from tridsl.passes.specialise import Specialisation
from tridsl.program.compose import with_constants
from tridsl.schedule.automatic import choose

BF16 = ml_dtypes.bfloat16
STRIDED = """op f(X: {t}[B, C, H, W], F: {t}[O, C, R, S]) -> Y: {t}[B, O, (H + 2 - R) // 2 + 1, (W + 2 - S) // 2 + 1] where R <= H + 2, S <= W + 2 {{
  Y[b, o, y, x] = {t}(sum[c, r, s; acc=f32](X[b, c, 2*y + r - 1, 2*x + s - 1; pad=0] * F[o, c, r, s]))
}}
"""
PADDED = """op f(X: {t}[B, C, H, W], F: {t}[O, C, R, S], b: {t}[O]) -> Y: {t}[B, O, H + 2 - R + 1, W + 2 - S + 1] where R <= H + 2, S <= W + 2 {{
  Y[n, o, y, x] = {t}(max(sum[c, r, s; acc=f32](X[n, c, y + r - 1, x + s - 1; pad=0] * F[o, c, r, s]) + f32(b[o]), 0))
}}
"""


def laid(name: str, generation: str, *arguments: Any) -> Laid:
    op, _, sizes = prepared(name, arguments, {}, {})
    op = with_constants(op, {p.name: p.default.value for p in op.inputs if isinstance(p, Scalar) and p.const and p.default is not None})
    spec = chip(generation)
    build = pipeline.Build(spec=spec, backend=BACKEND, schedule=choose(op, spec, sizes, {}), facts=Specialisation(sizes=tuple(sorted(sizes.items()))))
    found = pipeline.lower(op, build, until="array")
    assert isinstance(found, Laid)
    return found


CASES = [
    ("1x1", "conv2d", ((2, 5, 7, 9), (10, 5, 1, 1))),
    ("3x3", "conv2d", ((1, 20, 9, 23), (18, 20, 3, 3))),
    ("5x2", "conv2d", ((1, 8, 12, 17), (9, 8, 5, 2))),
    ("strided", STRIDED, ((1, 16, 9, 14), (12, 16, 3, 3))),
    ("fused", PADDED, ((1, 12, 8, 11), (20, 12, 3, 3), (20,))),
    ("patches", "patch_embed", ((2, 3, 24, 40), (20, 3, 8, 8), (20,))),
    ("large patches", "patch_embed", ((1, 3, 32, 50), (40, 3, 16, 16), (40,))),
]


@pytest.mark.parametrize(("place", "text", "shapes"), [(n, *case[1:]) for n, case in enumerate(CASES)], ids=[case[0] for case in CASES])
def test_sums_over_windows_by_matrices(place: int, text: str, shapes: tuple[tuple[int, ...], ...]) -> None:
    """Results between channels of every number, and rows of every length; each case with one generation and one type."""
    generation, dtype = GENERATIONS[place % 2], (np.float32, BF16)[place // 2 % 2]
    text = text.format(t="f32" if dtype is np.float32 else "bf16") if "\n" in text else text
    given = subject(text, *(normal(*s, dtype=dtype) for s in shapes), generation=generation)
    assert "mmul" in given.kernels
    agree(given.results(dispatches=2), given.want())


@pytest.mark.full
@pytest.mark.parametrize("generation", GENERATIONS)
@pytest.mark.parametrize("dtype", [np.float32, BF16])
@pytest.mark.parametrize(("text", "shapes"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_every_case_with_both_types_on_both_generations(text: str, shapes: tuple[tuple[int, ...], ...], dtype: Any, generation: str) -> None:
    text = text.format(t="f32" if dtype is np.float32 else "bf16") if "\n" in text else text
    given = subject(text, *(normal(*s, dtype=dtype) for s in shapes), generation=generation)
    agree(given.results(), given.want())


def test_windows_begin_anywhere_in_a_row() -> None:
    """Blocks of neighbours are loaded where they begin; no windows are copied, and the filters' blocks lie where accesses may begin."""
    given = subject("conv2d", normal(1, 16, 6, 12, dtype=BF16), normal(8, 16, 3, 3, dtype=BF16), generation="aie2")
    product = given.kernels[given.kernels.index(".mac(") :].split("\n")[0]
    assert product.count("load_unaligned_v") == 1 and "load_v<mmul_bf16_4x8x4::size_B>" in product


def test_a_window_sees_what_lies_in_it_alone() -> None:
    """What is not finite stays in the windows that hold it, channels and rows that fill blocks up with nothing included."""
    x, f = normal(1, 5, 8, 13, dtype=np.float32), normal(6, 5, 3, 3, dtype=np.float32)
    x[0, 3, 4, 6], x[0, 0, 0, 12] = np.nan, np.inf
    given = subject("conv2d", x, f, generation="aie2p")
    assert "mmul" in given.kernels
    found, want = given.results()["Y"], given.want()["Y"]
    np.testing.assert_array_equal(np.isfinite(found), np.isfinite(want))


@pytest.mark.parametrize("generation", GENERATIONS)
@pytest.mark.parametrize("dtype", [np.float32, BF16])
def test_sizes_of_the_librarys_benchmarks_have_designs(dtype: Any, generation: str) -> None:
    """And cores reach a good part of the instruction's rate."""
    def of(*shape: int) -> Any:
        return np.broadcast_to(np.zeros(1, dtype), shape)

    spec = chip(generation)
    assert spec.array is not None
    macs = dict(spec.array.macs_per_cycle)["f32" if dtype is np.float32 else "bf16"]
    found = laid("conv2d", generation, of(1, 64, 56, 56), of(64, 64, 3, 3))
    least = 64 * 64 * 9 * 54 * 54 / (macs * (spec.columns or 1) * spec.array.rows * spec.array.clock_hz)
    assert found.prediction.cores < 2.2 * least
    laid("conv2d", generation, of(1, 64, 56, 56), of(64, 64, 1, 1))
    laid("patch_embed", generation, of(1, 3, 224, 224), of(768, 3, 16, 16), of(768))


def test_few_channels_stay_vectors() -> None:
    """Less than half of a block: the lanes of vectors along a row are all there."""
    given = subject("conv2d", normal(1, 3, 8, 12, dtype=BF16), normal(4, 3, 3, 3, dtype=BF16))
    assert "mmul" not in given.kernels


def test_a_memory_tile_keeps_filters() -> None:
    """Of many channels, whose filters come in several panels for every row."""
    given = subject("conv2d", normal(1, 96, 24, 9, dtype=BF16), normal(64, 96, 3, 3, dtype=BF16), generation="aie2", decisions={"Y.columns": 1})
    agree(given.results(), given.want())
    counts = [d.count for c in given.design.chains if c.tile[1] == MEMTILE and c.direction == "in" for d in c.descriptors if d.buffer.startswith("F_")]
    assert min(counts) > 1
