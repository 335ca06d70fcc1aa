"""Monoids merged in blocks on a GPU: what every stage means, which groups are taken, and what the steps refuse."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.stdlib.calling import prepared
from tridsl.backends.vulkan import BACKEND
from tridsl.backends.vulkan.lower_decided import decided
from tridsl.backends.vulkan.lower_rows import rows
from tridsl.devices.spec import DeviceSpec
from tridsl.diagnostics import TriError
from tridsl.dtypes import INDEX
from tridsl.ir.affine import evaluate_index
from tridsl.ir.evaluate import evaluate_kernel, evaluate_op
from tridsl.ir.expr import Binary, Select
from tridsl.ir.loop import Alloc, Block, Copy, For, If, Kernel, Mma
from tridsl.ir.op import Op, Scalar
from tridsl.ir.verify import LOWERED, SCHEDULED, describe, verify
from tridsl.ir.walk import walk
from tridsl.passes.specialise import Specialisation
from tridsl.pipeline import LOWER, SCHEDULE, TO_KERNEL, Build, lower, run
from tridsl.schedule.automatic import automatic, choices, choose
from tridsl.schedule.steps import BlockBy, Parts, Schedule, StoreIn

MATRICES = DeviceSpec(
    name="matrices", kind="gpu", subgroup_sizes=(32,), shared_bytes=49152, max_group_lanes=1024, max_push_bytes=256,
    features=frozenset({"cooperative_matrix", "float16", "round_even16", "round_even32", "nan_preserve32", "subgroup_arithmetic", "int8", "int16"}),
)  # fmt: skip
HOLDING = replace(MATRICES, features=MATRICES.features | {"matrix_reductions", "matrix_conversions", "matrix_places"})
"""A device that reduces fragments, takes results as factors, and says where their elements are."""
TOLERANCE = 4e-3
"""Of f16 results whose weights are rounded to f16."""


def attention(shape: tuple[int, ...], dtype: Any = np.float16, causal: bool = False) -> tuple[Op, dict[str, Any], dict[str, int]]:
    heads, groups, rows, keys, width, own = shape
    random = np.random.default_rng(7)
    arrays = (random.standard_normal(s).astype(dtype) for s in ((heads, rows, width), (groups, keys, width), (groups, keys, own)))
    return prepared("attention", (*arrays, np.float32(width**-0.5)), {}, {"causal": causal})


def build_of(op: Op, given: dict[str, Any], sizes: dict[str, int], schedule: Schedule | None = None) -> Build:
    constants = tuple((p.name, given[p.name]) for p in op.inputs if isinstance(p, Scalar) and p.const)
    return Build(spec=MATRICES, backend=BACKEND, schedule=schedule, facts=Specialisation(sizes=tuple(sizes.items()), constants=constants))


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("shape", [(2, 1, 128, 32, 16, 16), (1, 1, 48, 80, 32, 16), (2, 2, 16, 64, 16, 48), (1, 1, 21, 35, 16, 16), (2, 1, 131, 17, 16, 32)], ids=str)
def test_every_stage_is_attention(shape: tuple[int, ...], causal: bool) -> None:
    op, given, sizes = attention(shape, causal=causal)
    schedule = automatic(op, MATRICES, sizes)
    assert sum(isinstance(step, BlockBy) for step in schedule) == 1
    build = build_of(op, given, sizes, schedule)
    kernel: Kernel = run(op, TO_KERNEL, build)
    wanted = evaluate_op(op, given, sizes)["O"]
    for stages, level in ((SCHEDULE, SCHEDULED), (LOWER, LOWERED)):
        kernel = run(kernel, stages, build)
        assert not verify(kernel, level), describe(verify(kernel, level))
        found = evaluate_kernel(kernel, given, {})["O"]
        np.testing.assert_allclose(found.astype(np.float64), wanted.astype(np.float64), rtol=TOLERANCE, atol=TOLERANCE)
    assert len(kernel.phases) == 1 and not kernel.scratch
    assert sum(isinstance(n, Mma) for n in walk(kernel.phases)) in (2, 4)  # under a mask, the last block may have a body of its own


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("shape", [(2, 1, 128, 64, 16, 16), (1, 1, 21, 35, 32, 16)], ids=str)
def test_scores_and_weights_stay_in_fragments(shape: tuple[int, ...], causal: bool) -> None:
    """What rows have is kept in fragments of equal columns: the same meaning before and behind that pass, and nothing of it in memory."""
    op, given, sizes = attention(shape, causal=causal)
    schedule = automatic(op, HOLDING, sizes)
    build = replace(build_of(op, given, sizes, schedule), spec=HOLDING)
    kernel: Kernel = run(op, (*TO_KERNEL, *SCHEDULE, *LOWER), build)
    wanted = evaluate_op(op, given, sizes)["O"]
    for made in (kernel, rows(kernel, HOLDING)):
        assert not verify(made, LOWERED), describe(verify(made, LOWERED))
        found = evaluate_kernel(made, given, {})["O"]
        np.testing.assert_allclose(found.astype(np.float64), wanted.astype(np.float64), rtol=TOLERANCE, atol=TOLERANCE)
    spaces = {n.buffer.name: n.buffer.space for n in walk(lower(op, build, until="barriers").phases) if isinstance(n, Alloc)}
    shared = {name for name, space in spaces.items() if space == "shared"}
    assert {name[:8] for name in shared} == {"K.shared", "V.shared"} and spaces["O.m"] == spaces["s.sum"] == spaces["O.softmax_wsum.weight"] == "fragment"
    text = lower(op, build, until="emit").text
    assert text.count("coopMatReduceNV(") >= 2 and "gl_MatrixUseA>(coopmat<float16_t" in text
    assert ("coopMatPerElementNV" in text) == (causal or shape[3] % 16 > 0)  # only a mask asks where an element is


def masks(block: Block) -> list[Select]:
    """What is chosen by where it is."""
    choices = (n for s in block for n in walk(s) if isinstance(n, Select))
    return [n for n in choices if isinstance(n.condition, Binary) and n.condition.a.dtype == INDEX]


@pytest.mark.parametrize("shape", [(1, 1, 128, 128, 16, 16), (1, 1, 131, 147, 16, 16)], ids=["whole", "tails"])
def test_fragments_off_the_diagonal_are_worked_on_without_the_mask(shape: tuple[int, ...]) -> None:
    """Where the last block begins early, either of two comparisons leaves the mask."""
    op, given, sizes = attention(shape, causal=True)
    schedule = automatic(op, HOLDING, sizes)
    build = replace(build_of(op, given, sizes, schedule), spec=HOLDING)
    kernel: Kernel = decided(rows(run(op, (*TO_KERNEL, *SCHEDULE, *LOWER), build), HOLDING), HOLDING)
    found = [n for n in walk(kernel.phases) if isinstance(n, If) and masks(n.otherwise)]
    assert len(found) >= 2 and not any(masks(choice.then) for choice in found)  # keys, weights
    assert sum(isinstance(n, Binary) and n.op == "and" for choice in found for n in walk(choice.condition)) == (len(found) if shape[3] % 64 else 0)
    wanted, made = evaluate_op(op, given, sizes)["O"], evaluate_kernel(kernel, given, {})["O"]
    np.testing.assert_allclose(made.astype(np.float64), wanted.astype(np.float64), rtol=TOLERANCE, atol=TOLERANCE)


def test_devices_that_but_multiply_fragments_refuse_to_hold_rows_there() -> None:
    op, given, sizes = attention((1, 1, 128, 64, 16, 16))
    with pytest.raises(TriError, match="matrix_conversions, matrix_places, matrix_reductions") as caught:
        lower(op, build_of(op, given, sizes, automatic(op, HOLDING, sizes)), until="emit")
    assert caught.value.code == "E0706" and "store(shared)" in (caught.value.diagnostics[0].help or "")


@pytest.mark.parametrize("lacking", ["matrix_reductions", "matrix_conversions", "matrix_places"])
def test_without_these_operations_they_go_through_shared_memory(lacking: str) -> None:
    op, _, sizes = attention((1, 1, 128, 64, 16, 16))
    asked = {choice.name for choice in choices(op, HOLDING, sizes, {})} - {choice.name for choice in choices(op, MATRICES, sizes, {})}
    assert asked == {"O.softmax_wsum.held"}
    assert "O.softmax_wsum.held" not in {c.name for c in choices(op, replace(HOLDING, features=HOLDING.features - {lacking}), sizes, {})}


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-5), (np.float16, TOLERANCE)])
@pytest.mark.parametrize("shape", [(2, 1, 32, 64, 8, 32), (1, 1, 37, 45, 4, 16)], ids=str)
def test_without_matrices(shape: tuple[int, ...], dtype: Any, tolerance: float) -> None:
    op, given, sizes = attention(shape, dtype, causal=True)
    build = replace(build_of(op, given, sizes), spec=replace(MATRICES, features=MATRICES.features - {"cooperative_matrix"}))
    kernel: Kernel = lower(op, build, until="finish")
    assert not verify(kernel, LOWERED), describe(verify(kernel, LOWERED))
    wanted, found = evaluate_op(op, given, sizes)["O"], evaluate_kernel(kernel, given, {})["O"]
    np.testing.assert_allclose(found.astype(np.float64), wanted.astype(np.float64), rtol=tolerance, atol=tolerance)
    assert len(kernel.phases) == 1 and not kernel.scratch
    spaces = {n.buffer.name: n.buffer.space for n in walk(lower(op, build, until="barriers").phases) if isinstance(n, Alloc)}
    assert spaces["O.o"] == "reg" and spaces["O.softmax_wsum.weight"] == "shared"


def test_sums_stay_in_fragments_and_the_next_block_is_under_way() -> None:
    op, given, sizes = attention((2, 1, 256, 128, 64, 64), causal=True)
    build = build_of(op, given, sizes)
    kernel = lower(op, build, until="barriers")
    spaces = {n.buffer.name: n.buffer.space for n in walk(kernel.phases) if isinstance(n, Alloc)}
    assert spaces["O.o"] == "fragment" and spaces["O.m"] == "reg" and spaces["s.sum"] == spaces["O.softmax_wsum.weight"] == "shared"
    assert not any(n.cooperative for n in walk(kernel.phases) if isinstance(n, Copy))  # all are of lanes, 16 bytes each
    (text,) = lower(op, build, until="emit").text.split("// ---- phase")[1:]
    assert text.count("coopMatMulAdd(") == 2 and "0u, gl_CooperativeMatrixLayoutColumnMajor" in text
    assert "uvec4 b_K_shared" in text and "float16_t b_O_softmax_wsum_weight" in text and ".length()" in text


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((1, 1, 32, 40, 16, 24), np.float16), ((1, 1, 32, 32, 17, 16), np.float32), ((1, 1, 1, 32, 16, 16), np.float16)],
    ids=["columns", "terms", "one row"],
)
def test_what_no_tile_divides_is_shared_by_workgroups(shape: tuple[int, ...], dtype: Any) -> None:
    op, _, sizes = attention(shape, dtype)
    steps = automatic(op, MATRICES, sizes)
    assert not any(isinstance(step, BlockBy) for step in steps) and any(isinstance(step, Parts) and step.into == "block" for step in steps)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("shape", [(2, 1, 5, 128, 16, 32), (1, 1, 32, 256, 32, 64)], ids=["padded", "whole"])
def test_some_rows_share_parts_of_many_elements(shape: tuple[int, ...], causal: bool) -> None:
    op, given, sizes = attention(shape, causal=causal)
    schedule = automatic(op, MATRICES, sizes)
    assert any(isinstance(step, Parts) and step.inside for step in schedule)
    build = build_of(op, given, sizes, schedule)
    kernel: Kernel = run(op, (*TO_KERNEL, *SCHEDULE, *LOWER), build)
    assert not verify(kernel, LOWERED), describe(verify(kernel, LOWERED))
    wanted, found = evaluate_op(op, given, sizes)["O"], evaluate_kernel(kernel, given, {})["O"]
    np.testing.assert_allclose(found.astype(np.float64), wanted.astype(np.float64), rtol=TOLERANCE, atol=TOLERANCE)
    first = lower(op, build, until="emit").text.split("// ---- phase")[1]
    assert first.count("coopMatMulAdd(") == 2


@pytest.mark.parametrize(
    ("shape", "names"),
    [((1, 1, 128, 64, 32, 32), ("blocks", "block_rows", "block", "high", "ahead")), ((1, 1, 8, 512, 32, 32), ("blocks", "shared", "part"))], ids=["many", "some"],
)  # fmt: skip
def test_every_answer_of_the_tuner_is_legal(shape: tuple[int, ...], names: tuple[str, ...]) -> None:
    op, given, sizes = attention(shape)
    asked = choices(op, MATRICES, sizes, {})
    assert {f"O.softmax_wsum.{name}" for name in names} <= {choice.name for choice in asked}
    for choice in asked:
        for value in choice.values:
            lower(op, build_of(op, given, sizes, choose(op, MATRICES, sizes, {choice.name: value})), until="accepts")


@pytest.mark.parametrize(("dtype", "stage"), [("bf16", "O.softmax_wsum.weight"), ("f16", "s.sum")])
def test_only_weights_of_that_type_are_rounded(dtype: str, stage: str) -> None:
    from tridsl.dtypes import DTYPES

    op, given, sizes = attention((1, 1, 32, 32, 16, 16))
    whole = automatic(op, MATRICES, sizes)
    position = next(n for n, step in enumerate(whole) if isinstance(step, StoreIn))
    wrong = StoreIn(stage=stage, space="shared", type=DTYPES[dtype])
    with pytest.raises(TriError) as caught:
        run(op, (*TO_KERNEL, *SCHEDULE), build_of(op, given, sizes, (*whole[:position], wrong)))
    assert caught.value.diagnostics[0].code in ("E0425", "E0467") and caught.value.diagnostics[0].help


def test_rows_that_see_the_most_start_first() -> None:
    op, given, sizes = attention((1, 1, 256, 256, 16, 16), causal=True)
    (text,) = lower(op, build_of(op, given, sizes), until="emit").text.split("// ---- phase")[1:]
    loops = [line for line in text.splitlines() if "for (int i_O_softmax_wsum_t_o" in line]
    assert len(loops) == 1 and "(1 - i_O_q_o)" in loops[0]


def test_blocks_that_no_row_sees_are_left_out_whatever_the_lengths() -> None:
    op, given, sizes = attention((1, 1, 250, 264, 16, 16), causal=True)
    kernel = lower(op, build_of(op, given, sizes), until="schedule")
    (blocks,) = (n for n in walk(kernel.phases) if isinstance(n, For) and n.var == "O.softmax_wsum:t.o")
    visited = {first: evaluate_index(blocks.extent, {"O:q.o": first}) for first in (0, 1)}
    assert visited == {0: -(-(128 + 14) // 16), 1: -(-264 // 16)}  # tiles of 128 rows; the first row sees 15 elements
