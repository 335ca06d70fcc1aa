"""Products by cooperative matrices against the oracle, on a device that has them; what is emitted for them, on any machine."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.backends.vulkan.test_schedules import in_turns, on_device, random
from tests.backends.vulkan.texts import with_sizes
from tests.stdlib.calling import call, prepared
from tridsl.backend import Device
from tridsl.backends.vulkan import BACKEND
from tridsl.backends.vulkan.build import find_compiler, split_phases
from tridsl.backends.vulkan.driver import VulkanDriver
from tridsl.backends.vulkan.emit_matrix import TENSORS
from tridsl.backends.vulkan.spelling import compiler_knows, spelled
from tridsl.devices.intrinsics import INTRINSICS, Intrinsic
from tridsl.devices.spec import DeviceSpec
from tridsl.diagnostics import TriError
from tridsl.ir.loop import Accumulate
from tridsl.ir.op import Tensor
from tridsl.ir.walk import walk
from tridsl.passes.specialise import Specialisation
from tridsl.pipeline import Build, lower
from tridsl.schedule.automatic import choose
from tridsl.schedule.steps import Intrin, Order, Pad, Parts, Schedule, Split, StoreIn

SUBGROUPS_OF_8 = DeviceSpec(
    name="subgroups of eight", kind="gpu", features=frozenset({"cooperative_matrix_i8_8x8x8", "int8", "int64"}), subgroup_sizes=(8,),
    shared_bytes=32768, max_group_lanes=1024, max_push_bytes=128,
)  # fmt: skip


def row_of(spec: DeviceSpec, dtype: str) -> Intrinsic | None:
    """The device's matrix instruction for products of this type."""
    rows = [row for row in INTRINSICS.values() if row.feature.startswith("cooperative_matrix") and row.feature in spec.features]
    return next((row for row in rows if row.a.name == dtype), None)


def instruction(device: Device, dtype: str) -> Intrinsic:
    row = row_of(device.spec, dtype)
    if row is None:
        pytest.skip(f"this device has no cooperative matrices of {dtype}")
    return row


def by(schedule: Schedule) -> set[str]:
    return {step.name for step in schedule if isinstance(step, Intrin)}


BLOCKS = [(1, 1, 1), (3, 5, 2), (2, 4, 9)]


@pytest.mark.parametrize(
    ("dtype", "blocks"),
    [("f16", (2, 8, 2)), ("i8", (4, 8, 2)), ("bf16", (4, 8, 2)), *((dtype, blocks) for dtype in ("f16", "i8", "bf16") for blocks in BLOCKS)], ids=str,
)  # fmt: skip
def test_products_of_whole_blocks(driver: VulkanDriver, device: Device, dtype: str, blocks: tuple[int, int, int]) -> None:
    """Tiles of one and of several fragments, of one and of two subgroups, panels of one and of several steps of the sum. (Mesa takes 8 s for f16
    where each of two subgroups has 4 x 4 fragments.)"""
    row = instruction(device, dtype)
    m, n, k = (count * size for count, size in zip(blocks, (row.m, row.n, row.k)))
    a, b = random(dtype, m, k), random(dtype, k, n)
    schedule, (c,) = on_device(driver, device, "matmul", a, b)
    assert by(schedule) == {row.name}
    same(c, call("matmul", a, b))


@pytest.mark.parametrize("turned", [True, False])
def test_panels_of_bytes_that_lie_across_the_sum(driver: VulkanDriver, device: Device, turned: bool) -> None:
    """The other way round than the matrix, and as it lies."""
    row = instruction(device, "i8")
    a, b = random("i8", 4 * row.m, 6 * row.k), random("i8", 6 * row.k, 8 * row.n)
    schedule, (c,) = on_device(driver, device, "matmul", a, b, decisions={"C.turned": turned})
    assert [step.turned for step in schedule if isinstance(step, StoreIn) and step.stage == "B"] == [turned]
    same(c, call("matmul", a, b))


@pytest.mark.parametrize(("dtype", "depth", "panels"), [("f16", 2, 1), ("i8", 1, 2), ("f16", 3, 2)], ids=str)
def test_panels_of_fragments_take_turns(driver: VulkanDriver, device: Device, dtype: str, depth: int, panels: int) -> None:
    """Few fragments: a software device takes long to compile what is written out several times."""
    row = instruction(device, dtype)
    a, b = random(dtype, row.m, 5 * row.k), random(dtype, 5 * row.k, 2 * row.n)
    schedule, (c,) = on_device(driver, device, "matmul", a, b, edit=in_turns(depth, panels))
    assert {step.buffers for step in schedule if isinstance(step, StoreIn) and step.space == "shared"} == {panels}
    same(c, call("matmul", a, b))


def same(found: np.ndarray, wanted: np.ndarray) -> None:
    """Integers to the last bit; sums of f16 and bf16 in f32, rounded to what the result is made of."""
    if found.dtype.kind == "i":
        np.testing.assert_array_equal(found, wanted)
    else:
        np.testing.assert_allclose(found.astype(np.float64), wanted.astype(np.float64), rtol=1e-2, atol=2e-2)


@pytest.mark.parametrize("off", [(1, 0, 0), (-1, 16, 0), (5, 0, 16), (3, 16, -16)], ids=str)
@pytest.mark.parametrize("dtype", ["f16", "i8"])
def test_products_of_broken_blocks(driver: VulkanDriver, device: Device, dtype: str, off: tuple[int, int, int]) -> None:
    """Zeros beyond the matrices, and only those elements of a fragment are stored that are in the result."""
    row = instruction(device, dtype)
    m, n, k = (count * size + more for count, size, more in zip((3, 4, 4), (row.m, row.n, row.k), off))
    a, b = random(dtype, m, k), random(dtype, k, n)
    schedule, (c,) = on_device(driver, device, "matmul", a, b)
    assert by(schedule) == {row.name} and any(isinstance(step, Pad) for step in schedule)
    same(c, call("matmul", a, b))


@pytest.mark.parametrize("off", [(-1, 16, 0), (19, 16, -16)], ids=str)
@pytest.mark.parametrize("together", [True, False])
def test_results_made_with_their_sums_and_afterwards(driver: VulkanDriver, device: Device, off: tuple[int, int, int], together: bool) -> None:
    """Tiles that begin early, and sums that are padded in memory."""
    row = instruction(device, "f16")
    m, n, k = (count * size + more for count, size, more in zip((3, 4, 4), (row.m, row.n, row.k), off))
    a, b = random("f16", m, k), random("f16", k, n)
    schedule, (c,) = on_device(driver, device, "matmul", a, b, decisions={"C.sum.with": together})
    assert by(schedule) == {row.name} and any(isinstance(step, Split) and step.tail is not None for step in schedule) == together
    same(c, call("matmul", a, b))


@pytest.mark.parametrize("dtype", ["f16", "i8"])
def test_a_batch_of_products(driver: VulkanDriver, device: Device, dtype: str) -> None:
    row = instruction(device, dtype)
    a, b = random(dtype, 3, 2 * row.m, row.k), random(dtype, 3, row.k, row.n)
    schedule, (c,) = on_device(driver, device, "matmul", a, b)
    assert by(schedule) == {row.name}
    same(c, call("matmul", a, b))


@pytest.mark.parametrize("shape", [(2, 1, 3, 128, 16, 32), (1, 1, None, 128, 32, 16), (1, 1, 21, 256, 16, 64)], ids=str)
def test_some_rows_share_parts_of_many_elements(driver: VulkanDriver, device: Device, shape: tuple[Any, ...]) -> None:
    """Rows that are padded to whole fragments, and rows (None) that are one."""
    row = instruction(device, "f16")
    heads, groups, rows, keys, width, own = shape
    rows = rows or row.m
    arrays = random("f16", heads, rows, width), random("f16", groups, keys, width), random("f16", groups, keys, own)
    schedule, (found,) = on_device(driver, device, "attention", *arrays, np.float32(0.25))
    assert by(schedule) == {row.name} and any(isinstance(step, Parts) and step.inside for step in schedule)
    same(found, call("attention", *arrays, np.float32(0.25)))


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("shape", [(2, 1, 32, 64, 16, 16), (1, 1, 21, 43, 32, 16)], ids=str)
def test_what_stands_between_two_products_stays_in_fragments(driver: VulkanDriver, device: Device, shape: tuple[int, ...], causal: bool) -> None:
    instruction(device, "f16")
    if not {"matrix_reductions", "matrix_conversions", "matrix_places"} <= device.spec.features:
        pytest.skip("this device neither reduces fragments nor takes results as factors (VK_NV_cooperative_matrix2)")
    heads, groups, rows, keys, width, own = shape
    arrays = random("f16", heads, rows, width), random("f16", groups, keys, width), random("f16", groups, keys, own)
    schedule, (found,) = on_device(
        driver, device, "attention", *arrays, np.float32(0.25), keywords={"causal": causal}
    )
    assert any(isinstance(step, StoreIn) and step.stage == "O.m" for step in schedule)
    same(found, call("attention", *arrays, np.float32(0.25), causal=causal))


def test_rows_that_see_no_number_are_none(driver: VulkanDriver, device: Device) -> None:
    """The greatest score of a block is a number, whatever the scores are; sums are not."""
    instruction(device, "f16")
    q, k, v = random("f16", 1, 72, 16), random("f16", 1, 40, 16), random("f16", 1, 40, 16)
    k[0, 5, 3], v[0, 7, 2], q[0, 60, 1] = np.nan, np.inf, np.inf
    _, (found,) = on_device(driver, device, "attention", q, k, v, np.float32(0.25), keywords={"causal": True})
    with np.errstate(invalid="ignore"):
        wanted = call("attention", q, k, v, np.float32(0.25), causal=True)
    assert 0 < np.isnan(wanted).sum() < wanted.size
    np.testing.assert_allclose(found.astype(np.float32), wanted.astype(np.float32), rtol=4e-3, atol=4e-3)


@pytest.mark.parametrize("dtype", ["f16", "i8"])
def test_sizes_below_a_block_take_another_way(driver: VulkanDriver, device: Device, dtype: str) -> None:
    """Also rows that begin anywhere; others are padded (`test_products_of_broken_blocks`)."""
    row = instruction(device, dtype)
    for m, n, k in ((row.m - 1, 9, 5), (33, row.n - 1, 16), (16, 16, row.k - 1), (37, 39, 41)):
        a, b = random(dtype, m, k), random(dtype, k, n)
        schedule, (c,) = on_device(driver, device, "matmul", a, b)
        assert not by(schedule)
        same(c, call("matmul", a, b))


@pytest.mark.parametrize(("dtype", "depth"), [("f16", 16), ("i8", 32), ("bf16", 16)])
@pytest.mark.parametrize("tiles", [(1, 1, 1), (3, 1, 2)], ids=str)
def test_one_matrix_for_a_subgroups_tile(driver: VulkanDriver, device: Device, dtype: str, depth: int, tiles: tuple[int, int, int]) -> None:
    """`C.whole`, an answer that the tuner may give where matrices may have any extents: the result is that of the grid of fragments."""
    row = instruction(device, dtype)
    if f"cooperative_matrix2_{dtype}" not in device.spec.features:
        pytest.skip(f"this device has no matrices of {dtype} with any extents (VK_NV_cooperative_matrix2)")
    m, n, k = (count * size for count, size in zip(tiles, (2 * row.m, 2 * row.n, 2 * depth)))  # twice: so that the depth is a question
    a, b = random(dtype, m, k), random(dtype, k, n)
    stage = "C" if dtype == "i8" else "C.sum"
    schedule, (c,) = on_device(driver, device, "matmul", a, b, decisions={f"{stage}.whole": True, f"{stage}.depth": depth})
    assert by(schedule) == {{"f16": "coopmat2", "i8": "coopmat2_i8", "bf16": "coopmat2_bf16"}[dtype]}
    same(c, call("matmul", a, b))


@pytest.mark.parametrize("dtype", ["f16", "i8"])
@pytest.mark.parametrize(("tiles", "depth"), [((1, 1, 1), 32), ((2, 1, 3), 64)], ids=str)
def test_tiles_of_workgroups_on_nvidia(driver: VulkanDriver, device: Device, dtype: str, tiles: tuple[int, int, int], depth: int) -> None:
    """`C.together`: no other driver offers them yet."""
    if f"cooperative_matrix2_group_{dtype}" not in device.spec.features:
        pytest.skip(f"this device has no matrices of {dtype} for workgroups (VK_NV_cooperative_matrix2)")
    m, n, k = (count * size for count, size in zip(tiles, (128, 64, depth)))
    a, b = random(dtype, m, k), random(dtype, k, n)
    stage = "C" if dtype == "i8" else "C.sum"
    schedule, (c,) = on_device(driver, device, "matmul", a, b, decisions={f"{stage}.together": True})
    assert by(schedule) == {{"f16": "coopmat2_group", "i8": "coopmat2_group_i8"}[dtype]}
    same(c, call("matmul", a, b))


GROUPS = replace(SUBGROUPS_OF_8, features=frozenset({"cooperative_matrix2_group_i8", "int8", "int64"}))


def test_a_workgroups_matrix_is_read_by_its_layout() -> None:
    text = emitted(GROUPS, 256, 128, 192, {"C.together": True})
    assert "local_size_x = 256," in text and "coopmat<int, gl_ScopeWorkgroup, 128, 128, gl_MatrixUseAccumulator>" in text
    assert text.count("coopMatLoadTensorNV(") == 2 and "shared" not in text.replace("shared_", "")
    assert not re.search(r"coopMatLoadTensorNV\(\w+\[", text)  # on such a target glslang 15 ends the process
    assert "coopmat" not in emitted(GROUPS, 256, 128, 192)  # a choice, never the default


def test_shaders_of_workgroups_compile() -> None:
    if not compiler_knows(TENSORS):
        pytest.skip(f"the GLSL compiler here has no words for {TENSORS}")
    assert find_compiler()(split_phases(emitted(GROUPS, 256, 128, 192, {"C.together": True}))[0])


@pytest.mark.parametrize(("depth", "fits"), [(32, True), (96, True), (16, False), (48, False)])
def test_extents_are_multiples_or_refused(depth: int, fits: bool) -> None:
    spec = replace(SUBGROUPS_OF_8, features=SUBGROUPS_OF_8.features | {"cooperative_matrix2_i8"})
    op, _, sizes = prepared("matmul", (np.zeros((32, 96), np.int8), np.zeros((96, 48), np.int8)), {}, {})
    splits = (("i", 32), ("j", 48), ("k", depth))
    schedule = (
        *(Split(stage="C", axis=axis, factor=factor) for axis, factor in splits),
        Order(stage="C", axes=("i.o", "j.o", "k.o", "i.i", "j.i", "k.i")),
        Intrin(stage="C", name="coopmat2_i8"),
    )
    side = Build(spec=spec, backend=BACKEND, schedule=schedule, facts=Specialisation(sizes=tuple(sizes.items())))
    if fits:
        kernel = lower(op, side, until="schedule")
        assert [n.intrinsic for phase in kernel.phases for n in walk(phase) if isinstance(n, Accumulate)] == ["coopmat2_i8"]
        return
    with pytest.raises(TriError, match="multiples") as caught:
        lower(op, side, until="schedule")
    assert caught.value.code == "E0421"


def test_a_compiler_without_words_for_them_is_served_without() -> None:
    """Drivers offer matrices that an older glslc cannot spell."""
    have = frozenset({"cooperative_matrix", "cooperative_matrix_bf16", "cooperative_matrix2_i8", "int8"})
    spec = replace(SUBGROUPS_OF_8, features=have)
    assert spelled(spec, lambda extension: True) is spec
    assert spelled(spec, lambda extension: "bfloat16" not in extension).features == have - {"cooperative_matrix_bf16"}
    assert spelled(spec, lambda extension: "cooperative" not in extension).features == {"int8"}
    more = replace(spec, features=have | {"matrix_reductions", "matrix_places"})
    assert spelled(more, lambda extension: "matrix2" not in extension).features == have


def test_the_compiler_is_asked_for_its_words(driver: VulkanDriver) -> None:
    assert compiler_knows("GL_EXT_buffer_reference") and not compiler_knows("GL_EXT_of_no_compiler")


def emitted(spec: DeviceSpec, m: int, n: int, k: int, decisions: dict[str, Any] | None = None) -> str:
    """GLSL of a product of i8."""
    op, _, sizes = prepared("matmul", (np.zeros((m, k), np.int8), np.zeros((k, n), np.int8)), {}, {})
    assert all(isinstance(p, Tensor) for p in op.inputs)
    schedule = choose(op, spec, sizes, decisions or {})
    side = Build(spec=spec, backend=BACKEND, schedule=schedule, facts=Specialisation(sizes=tuple(sizes.items())))
    return with_sizes(lower(op, side, until="emit").text)


@pytest.mark.parametrize("k", [8, 16, 48])
def test_fragments_are_read_when_all_lanes_have_filled_the_panel(k: int) -> None:
    """Also where one panel is the whole sum, so that no loop over panels is left."""
    text = emitted(SUBGROUPS_OF_8, 32, 64, k)
    for name in "AB":
        loaded = text.index(f", b_{name}_shared, ")
        assert "barrier();" in text[text.rindex(f"b_{name}_shared[", 0, loaded) : loaded]


def test_the_next_panel_is_fetched_while_one_is_multiplied() -> None:
    """In registers, asked for only where there is a next one; a panel that is the whole sum has none."""
    text = emitted(SUBGROUPS_OF_8, 32, 64, 128)
    fetched = [text.index("shared_next[", text.index("for (int i_C_k_o")), text.index("barrier();", text.index("for (int i_C_k_o"))]
    assert re.search(r"if \(\(*i_C_k_o \+ 1\) < 8\)", text) and fetched[1] < fetched[0]
    assert "shared_next[" in emitted(SUBGROUPS_OF_8, 32, 64, 16) and "i_C_k_o" not in emitted(SUBGROUPS_OF_8, 32, 64, 16)


def test_zeros_beyond_the_end_are_whole_words() -> None:
    """So that what a lane fetches stays in words on its way to shared memory, elements nowhere."""
    spec = replace(SUBGROUPS_OF_8, subgroup_sizes=(32,), features=frozenset({"cooperative_matrix_i8_k16", "int8", "int64"}))
    text = emitted(spec, 40, 48, 128)
    assert "uvec4 b_A_shared_next[" in text and re.search(r"b_A_shared_next\[.*\] = uvec4\(0u\);", text)
    assert "bitfieldExtract" not in text


def test_a_device_without_the_instruction_is_served_without() -> None:
    assert "coopmat" not in emitted(replace(SUBGROUPS_OF_8, features=frozenset({"int8", "int64"})), 32, 64, 16)
