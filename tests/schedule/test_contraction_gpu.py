"""Products on a GPU whose results are made of the sums: one kernel, and no sum goes to memory."""

from __future__ import annotations

import numpy as np
import pytest

from tests.schedule.test_block_gpu import MATRICES, build_of
from tests.stdlib.calling import prepared
from tridsl.ir.evaluate import evaluate_kernel, evaluate_op
from tridsl.ir.loop import Kernel
from tridsl.ir.verify import LOWERED, SCHEDULED, describe, verify
from tridsl.pipeline import LOWER, SCHEDULE, TO_KERNEL, lower, run
from tridsl.schedule.automatic import automatic, choose

HALVES = np.float16
GATE = """
op gate(A: f16[M, K], B: f16[K, N], scale: f32) -> C: f16[M, N] {
  C[i, j] = f16(max(sum[k; acc=f32](A[i, k] * B[k, j]) * scale, 0))
}
"""
BIAS = """
op biased(A: f16[M, K], B: f16[K, N], b: f32[N]) -> C: f16[M, N] {
  C[i, j] = f16(sum[k; acc=f32](A[i, k] * B[k, j]) + b[j])
}
"""


def halves(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(HALVES)


@pytest.mark.parametrize("shape", [(32, 32, 32), (72, 40, 48), (100, 40, 200), (16, 24, 136)], ids=str)
@pytest.mark.parametrize("op", ["matmul", GATE], ids=["matmul", "gate"])
def test_every_stage_is_the_product(op: str, shape: tuple[int, int, int]) -> None:
    """Tiles that divide the results, and tiles of which the last begin early."""
    m, k, n = shape
    scale = (np.float32(0.5),) if op == GATE else ()
    op_, given, sizes = prepared(op, (halves(m, k), halves(k, n), *scale), {}, {})
    build = build_of(op_, given, sizes, choose(op_, MATRICES, sizes, {"C.sum.with": True}))
    kernel: Kernel = run(op_, TO_KERNEL, build)
    wanted = evaluate_op(op_, given, sizes)["C"].astype(np.float64)
    for stages, level in ((SCHEDULE, SCHEDULED), (LOWER, LOWERED)):
        kernel = run(kernel, stages, build)
        assert not verify(kernel, level), describe(verify(kernel, level))
        np.testing.assert_allclose(evaluate_kernel(kernel, given, {})["C"].astype(np.float64), wanted, rtol=2e-3, atol=2e-3)
    assert len(kernel.phases) == 1 and not kernel.scratch
    text = lower(op_, build, until="emit").text
    assert "coopMatStore(coopmat<float16_t, " in text and text.count("coopMatMulAdd(") == 1


def test_tiles_that_begin_early_are_read_in_whole_words() -> None:
    op, given, sizes = prepared("matmul", (halves(72, 40), halves(40, 136)), {}, {})
    text = lower(op, build_of(op, given, sizes, choose(op, MATRICES, sizes, {"C.sum.with": True})), until="emit").text
    assert "min(" in text and "shared uvec4 b_A_shared" in text and "shared uvec4 b_B_shared" in text


def test_a_batch_is_one_kernel_too() -> None:
    op, given, sizes = prepared("matmul", (halves(3, 32, 16), halves(3, 16, 32)), {}, {})
    build = build_of(op, given, sizes, automatic(op, MATRICES, sizes))
    kernel = run(op, (*TO_KERNEL, *SCHEDULE, *LOWER), build)
    assert len(kernel.phases) == 1
    found, wanted = evaluate_kernel(kernel, given, {})["C"], evaluate_op(op, given, sizes)["C"]
    np.testing.assert_allclose(found.astype(np.float64), wanted.astype(np.float64), rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize(
    ("op", "more", "decisions"), [(BIAS, (np.ones(32, np.float32),), {}), ("matmul", (), {"C.sum.with": False})], ids=["reads more", "answer"]
)
def test_other_results_are_made_afterwards(op: str, more: tuple[np.ndarray, ...], decisions: dict[str, bool]) -> None:
    """Which row or column an element of a fragment is in, no lane knows."""
    op_, given, sizes = prepared(op, (halves(32, 32), halves(32, 32), *more), {}, {})
    kernel = run(op_, (*TO_KERNEL, *SCHEDULE), build_of(op_, given, sizes, choose(op_, MATRICES, sizes, decisions)))
    assert [phase.name for phase in kernel.phases] == ["C.sum", "C"]
