"""Panels of products in shared memory: how they lie, how lanes fill them, what a lane reads of them; on any machine."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.backends.vulkan.test_schedules import in_turns
from tests.backends.vulkan.texts import with_sizes
from tests.stdlib.calling import prepared
from tridsl.backends.vulkan import BACKEND
from tridsl.backends.vulkan.panel_chunks import moves_of, panel_of
from tridsl.devices.spec import DeviceSpec
from tridsl.dtypes import I8
from tridsl.ir.affine import simplify_index
from tridsl.ir.evaluate import evaluate_kernel
from tridsl.ir.expr import Const, Load, Var, index
from tridsl.ir.loop import Buffer, Copy, CopyAxis, Ref
from tridsl.ir.walk import substitute, walk
from tridsl.passes.specialise import Specialisation
from tridsl.pipeline import LOWER, SCHEDULE, TO_KERNEL, Build, lower, run
from tridsl.schedule.automatic import choices, choose
from tridsl.schedule.steps import Pipeline, Schedule, StoreIn

GPU = DeviceSpec(
    name="lanes only", kind="gpu", features=frozenset({"int64", "packed_words"}), subgroup_sizes=(32,), shared_bytes=49152, max_group_lanes=1024,
    max_push_bytes=128, cores=128,
)  # fmt: skip


def product(
    m: int, n: int, k: int, answers: dict[str, Any], dtype: type = np.float32, spec: DeviceSpec = GPU
) -> tuple[Any, Build, dict[str, np.ndarray]]:
    random = np.random.default_rng(m + n + k)
    a, b = (random.integers(-8, 8, shape).astype(dtype) for shape in ((m, k), (k, n)))
    op, given, sizes = prepared("matmul", (a, b), {}, {})
    schedule = choose(op, spec, sizes, {f"C.{name}": answer for name, answer in answers.items()})
    return op, Build(spec=spec, backend=BACKEND, schedule=schedule, facts=Specialisation(sizes=tuple(sizes.items()))), given


def text(*product_of: Any, **more: Any) -> str:
    op, build, _ = product(*product_of, **more)
    return with_sizes(lower(op, build, until="emit").text)


def turned(schedule: Schedule) -> set[str]:
    return {step.stage for step in schedule if isinstance(step, StoreIn) and step.turned}


def test_rows_along_the_sum_lie_the_other_way_round() -> None:
    """A lane reads neighbours of both factors, 16 bytes each, for one step of the sum; the panel is filled word by word."""
    written = text(2048, 2048, 64, {"rows": 128})
    _, build, _ = product(256, 256, 64, {})
    assert turned(build.schedule or ()) == {"A"}
    assert "shared uvec4 b_A_shared[1056];" in written  # 32 rows of 128, four words of room behind each
    assert len(re.findall(r"b_A_shared\[[^=]*\]\[[^=]*\] = b_A_shared_next\[[^=]*\]\[[0-3]\];", written)) == 4
    assert re.search(r"float b_A_shared_r\w*\[8\];", written) and re.search(r"float b_B_shared_r\w*\[8\];", written)


def test_as_they_lie_a_lane_holds_several_steps_of_the_sum() -> None:
    written = text(2048, 2048, 64, {"turned": False})
    assert "shared uvec4 b_A_shared[1024];" in written and re.search(r"float b_A_shared_r\w*\[32\];", written)


def test_where_there_are_results_enough_a_lane_has_sixteen_by_eight() -> None:
    written = text(4096, 2048, 64, {})
    assert "float b_C_acc_sum[128];" in written and "shared uvec4 b_A_shared[1040];" in written  # 16 rows of 256
    assert "float b_C_acc_sum[64];" in text(2048 - 128, 2048, 64, {})


@pytest.mark.parametrize("shared", [16384, 32768, 49152])
def test_panels_fit_the_shared_memory_that_is_there(shared: int) -> None:
    """With the room behind the rows of one that lies the other way round, and whichever depth a search asks for."""
    small = replace(GPU, shared_bytes=shared)
    op, build, _ = product(1536, 1536, 1536, {}, spec=small)
    lower(op, build, until="accepts")
    for choice in choices(op, small, dict(build.facts.sizes), {}):
        if choice.name == "C.depth":
            assert choice.values
            for depth in choice.values:
                lower(*product(1536, 1536, 1536, {"depth": depth}, spec=small)[:2], until="accepts")


def test_a_tall_tile_means_the_product() -> None:
    small = replace(GPU, cores=1)
    op, build, given = product(256, 128, 32, {}, spec=small)
    kernel = run(op, (*TO_KERNEL, *SCHEDULE, *LOWER), build)
    for stage in BACKEND.lower:
        kernel = stage.run(kernel, small)
    assert "float b_C_acc_sum[128];" in text(256, 128, 32, {}, spec=small)
    np.testing.assert_array_equal(evaluate_kernel(kernel, given, {})["C"], given["A"] @ given["B"])


def test_narrow_elements_stay_as_they_are() -> None:
    """Words of four of them would be taken apart."""
    _, build, _ = product(256, 256, 64, {}, dtype=np.int8)
    assert not turned(build.schedule or ())


def test_a_panel_that_is_the_whole_sum_is_fetched_in_words() -> None:
    written = text(64, 64, 32, {})
    assert "uvec4 b_A_shared_next[" in written and "uvec4 b_B_shared_next[" in written and "i_C_k_o" not in written


@pytest.mark.parametrize("answers", [{}, {"turned": False}, {"share": 4}, {"side": 16, "share": 8}, {"ahead": False}], ids=str)
@pytest.mark.parametrize("shape", [(32, 32, 64), (48, 33, 64), (37, 41, 64), (64, 32, 96)], ids=str)
def test_every_stage_means_the_product(shape: tuple[int, int, int], answers: dict[str, Any]) -> None:
    op, build, given = product(*shape, answers)
    kernel = run(op, (*TO_KERNEL, *SCHEDULE, *LOWER), build)
    for stage in BACKEND.lower:
        kernel = stage.run(kernel, GPU)
    np.testing.assert_array_equal(evaluate_kernel(kernel, given, {})["C"], given["A"] @ given["B"])


MATRICES = replace(GPU, features=GPU.features | {"cooperative_matrix_i8_k32", "int8"})


def test_bytes_across_the_sum_are_turned_in_blocks() -> None:
    """A lane fetches words of sixteen rows, and stores the columns of their bytes; fragments are loaded by column."""
    written = text(128, 128, 256, {}, dtype=np.int8, spec=MATRICES)
    _, build, _ = product(128, 128, 256, {}, dtype=np.int8, spec=MATRICES)
    assert turned(build.schedule or ()) == {"B"}
    assert "shared uvec4 b_B_shared[640];" in written and "uvec4 b_B_shared_next[4];" in written  # 128 columns of 64 terms and 16 bytes of room
    assert re.findall(r"b_B_shared\[.*\] = uvec4\(byte_column\(.*, (\d+)\)\);", written) == ["0", "8", "16", "24"]
    assert len(re.findall(r"b_B_shared_next\[.*\]\[.*\] = Words1\(", written)) == 2  # the first panel's, the next one's
    assert re.search(r"coopMatLoad\(m_B.*, b_B_shared, .* 5u, gl_CooperativeMatrixLayoutColumnMajor\);", written)
    as_they_lie = text(128, 128, 256, {"turned": False}, dtype=np.int8, spec=MATRICES)
    assert "byte_column" not in as_they_lie and re.search(r"coopMatLoad\(m_B.*RowMajor\);", as_they_lie)


@pytest.mark.parametrize("shape", [(128, 128, 100), (120, 128, 128), (128, 100, 64)], ids=str)
def test_padded_panels_of_bytes_are_not_turned(shape: tuple[int, int, int]) -> None:
    _, build, _ = product(*shape, {}, dtype=np.int8, spec=MATRICES)
    assert not turned(build.schedule or ())


@pytest.mark.parametrize("answers", [{}, {"depth": 32}, {"ahead": False, "depth": 128}, {"broad": 32, "depth": 32}], ids=str)
def test_turned_bytes_mean_the_product(answers: dict[str, Any]) -> None:
    """Two blocks for each lane, one, four, and one for half of the lanes."""
    op, build, given = product(32, 64, 128, answers, dtype=np.int8, spec=MATRICES)
    assert turned(build.schedule or ()) == {"B"}
    means_the_product(op, build, given, given["A"].astype(np.int32) @ given["B"].astype(np.int32))


def test_a_left_factor_across_the_sum_is_turned_too() -> None:
    random = np.random.default_rng(0)
    a, b = (random.integers(-128, 128, (64, columns)).astype(np.int8) for columns in (64, 32))
    text = "op product(A: i8[K, M], B: i8[K, N]) -> C: i32[M, N] {\n  C[i, j] = sum[k; acc=i32](A[k, i] * B[k, j])\n}\n"
    op, given, sizes = prepared(text, (a, b), {}, {})
    schedule = choose(op, MATRICES, sizes, {})
    assert turned(schedule) == {"A", "B"}
    build = Build(spec=MATRICES, backend=BACKEND, schedule=schedule, facts=Specialisation(sizes=tuple(sizes.items())))
    means_the_product(op, build, given, a.T.astype(np.int32) @ b.astype(np.int32))


def test_halves_are_turned_where_a_schedule_says_so() -> None:
    """No automatic one does: loads from shared memory transpose them."""
    spec = replace(GPU, features=GPU.features | {"cooperative_matrix", "float16"})
    op, build, given = product(64, 64, 64, {}, dtype=np.float16, spec=spec)
    schedule = tuple(replace(s, turned=True) if isinstance(s, StoreIn) and s.stage == "B" else s for s in build.schedule or ())
    assert turned(build.schedule or ()) == set() != turned(schedule)
    build = replace(build, schedule=schedule)
    written = with_sizes(lower(op, build, until="emit").text)
    assert re.findall(r"b_B_shared\[.*\] = uvec4\(half_column\(.*, (\d+)\)\);", written) == ["0", "16"]
    means_the_product(op, build, given, given["A"].astype(np.float32) @ given["B"].astype(np.float32))


@pytest.mark.parametrize(("chunks", "pad"), [(2, 16), (4, 16), (4, 48), (8, 16)], ids=str)
def test_lanes_that_store_together_meet_all_banks(chunks: int, pad: int) -> None:
    """Eight at a time, 16 bytes each, in 128 bytes of banks."""
    axes = tuple(CopyAxis(var=name, extent=index(size)) for name, size in (("i", 64), ("k", 16 * chunks)))
    at = (Var(name="i"), Var(name="k"))
    copy = Copy(axes=axes, target=Ref(tensor="A.s", index=at), source=Load(tensor="A", index=at, dtype=I8))
    panel = Buffer(name="A.s", dtype=I8, shape=(index(64), index(16 * chunks + pad)), space="shared")
    found = panel_of(copy, 32, {"A": (I8, (index(4096), index(1)))}, {"A.s": panel})
    assert found is not None
    (moves,) = moves_of(found, (), copy, out=True)
    stored = [n.target.index for n in walk(moves) if isinstance(n, Copy)]
    assert len(stored) == 1
    met = []
    for number in range(64 * chunks):
        names = {f"A.s.next.{part}.out": index(value) for part, value in (("q", number // 32), ("t", number % 32), ("e", 0))}
        row, column = (simplify_index(place) for place in substitute(stored[0], names))
        assert isinstance(row, Const) and isinstance(column, Const)
        met.append((int(row.value), int(column.value)))
    assert len(set(met)) == 64 * chunks and {column % 16 for _, column in met} == {0}
    for first in range(0, len(met), 8):
        assert len({(row * (16 * chunks + pad) + column) // 16 % 8 for row, column in met[first : first + 8]}) == 8


@pytest.mark.parametrize(("depth", "panels"), [(2, 1), (3, 1), (1, 2), (3, 2)], ids=str)
@pytest.mark.parametrize("k", [32, 96, 160])
def test_panels_take_turns_as_a_schedule_says(depth: int, panels: int, k: int) -> None:
    """Also where the sum ends within a turn, or has fewer panels than would take turns."""
    op, build, given = product(32, 64, k, {}, dtype=np.int8, spec=MATRICES)
    build = replace(build, schedule=tuple(map(in_turns(depth, panels), build.schedule or ())))
    means_the_product(op, build, given, given["A"].astype(np.int32) @ given["B"].astype(np.int32))
    written, steps = with_sizes(lower(op, build, until="emit").text), k // 32
    there = min(panels, steps)
    assert len(re.findall(r"uvec4 b_A_shared_next\d?\[2\];", written)) == min(depth, max(1, steps - there + 1))
    assert written.count("shared uvec4") == 2 * there


def test_how_far_ahead_and_how_many_panels_are_choices() -> None:
    """Two panels where shared memory has room for them."""
    _, build, _ = product(256, 256, 512, {"depth": 32, "far": 3, "turns": 2}, dtype=np.int8, spec=MATRICES)
    assert [step.depth for step in build.schedule or () if isinstance(step, Pipeline)] == [3]
    assert [step.buffers for step in build.schedule or () if isinstance(step, StoreIn)] == [2, 2]
    op, build, _ = product(256, 256, 512, {}, dtype=np.int8, spec=MATRICES)
    asked = {spec: {c.name for c in choices(op, spec, dict(build.facts.sizes), {})} for spec in (MATRICES, replace(MATRICES, shared_bytes=32768))}
    assert [{"C.far", "C.turns"} & names for names in asked.values()] == [{"C.far", "C.turns"}, {"C.far"}]


@pytest.mark.parametrize(("side", "far"), [(1024, 2), (2048, 1), (4096, 1)], ids=str)
def test_a_workgroup_alone_on_its_processor_fetches_further_ahead(side: int, far: int) -> None:
    """While it waits no other one computes. Sixteen by eight results leave a lane no registers for it."""
    op, _, sizes = prepared("matmul", (np.zeros((side, side), np.float32), np.zeros((side, side), np.float32)), {}, {})
    assert [step.depth for step in choose(op, GPU, sizes, {}) if isinstance(step, Pipeline)] == [far]


def test_lanes_wait_once_an_iteration_for_panels_that_take_turns() -> None:
    def waits(panels: int) -> int:
        op, build, _ = product(32, 64, 384, {}, dtype=np.int8, spec=MATRICES)
        written = lower(op, replace(build, schedule=tuple(map(in_turns(2, panels), build.schedule or ()))), until="emit").text
        loop = written[written.index("for (int i_C_k_o") :]
        assert loop.count("coopMatMulAdd(") == 2  # two iterations written out
        return loop.count("barrier();")

    assert (waits(1), waits(2)) == (4, 2)


def means_the_product(op: Any, build: Build, given: dict[str, np.ndarray], wanted: np.ndarray) -> None:
    """Until the lanes' chunks are written out: what registers keep around loops over lanes is for the device to judge (`test_matrices`)."""
    kernel = run(op, (*TO_KERNEL, *SCHEDULE, *LOWER), build)
    for stage in BACKEND.lower:
        kernel = stage.run(kernel, build.spec)
        if stage.name == "stage":
            break
    np.testing.assert_array_equal(evaluate_kernel(kernel, given, {})["C"], wanted)
