"""The schedules that ops get on a GPU when they have none, against the oracle: shapes that fit and shapes that do not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.stdlib.calling import call, prepared
from tridsl.backend import Device
from tridsl.backends.vulkan import BACKEND
from tridsl.backends.vulkan.driver import VulkanDriver
from tridsl.diagnostics import TriError
from tridsl.dtypes import NUMPY_TYPES
from tridsl.ir.op import Scalar, Tensor
from tridsl.passes.specialise import Specialisation
from tridsl.pipeline import Build, build, complete
from tridsl.schedule.automatic import choose
from tridsl.schedule.automatic_gpu import ROW_REGISTERS
from tridsl.schedule.steps import Bind, BlockBy, Pad, Parts, Pipeline, Schedule, Step, StoreIn, Vector

RNG = np.random.default_rng(23)


def random(dtype: str, *shape: int) -> Any:
    numpy_type = NUMPY_TYPES[next(t for t in NUMPY_TYPES if t.name == dtype)]
    if np.issubdtype(numpy_type, np.integer):
        info = np.iinfo(numpy_type)
        return RNG.integers(info.min, info.max, shape, endpoint=True).astype(numpy_type)
    return RNG.normal(size=shape).astype(numpy_type)


def on_device(
    driver: VulkanDriver, device: Device, name: str, *arguments: Any, decisions: Mapping[str, Any] | None = None,
    keywords: Mapping[str, Any] | None = None, edit: Callable[[Step], Step] | None = None,
) -> tuple[Schedule, tuple[np.ndarray, ...]]:
    """The automatic schedule, with other answers where given and its steps edited, and the op's results."""
    op, given, sizes = prepared(name, arguments, {}, dict(keywords or {}))
    given |= {p.name: p.default.value for p in op.inputs if isinstance(p, Scalar) and p.name not in given and p.default}
    constants = tuple((p.name, given[p.name]) for p in op.inputs if isinstance(p, Scalar) and p.const)
    schedule = choose(op, device.spec, sizes, dict(decisions or {})) if decisions or edit else None
    schedule = tuple(map(edit, schedule)) if edit and schedule else schedule
    facts = Specialisation(sizes=tuple(sizes.items()), constants=constants)
    made = complete(op, Build(spec=device.spec, backend=BACKEND, schedule=schedule, facts=facts))
    binary = build(op, made)
    results = []
    slots: list[Any] = []
    for param in binary.signature.params:
        if isinstance(param, Tensor) and param.role == "output":
            results.append(np.full([n.value for n in param.shape], 77, NUMPY_TYPES[param.dtype]))  # type: ignore[union-attr]
            slots.append(results[-1])
        else:
            slots.append(np.ascontiguousarray(given[param.name]) if isinstance(param, Tensor) else given[param.name])
    before = len(driver.messages)
    driver.load(binary, device)(slots, 1)
    assert driver.messages[before:] == ()
    return made.schedule or (), tuple(results)


def in_turns(depth: int, panels: int) -> Callable[[Step], Step]:
    """Panels fetched `depth` iterations ahead, `panels` of them in shared memory."""

    def edit(step: Step) -> Step:
        if isinstance(step, Pipeline):
            return replace(step, depth=depth)
        return replace(step, buffers=panels) if isinstance(step, StoreIn) and step.space == "shared" else step

    return edit


def close(found: np.ndarray, wanted: np.ndarray) -> None:
    tolerance = {4: 1e-5, 2: 1e-2, 8: 1e-12}[found.dtype.itemsize]
    np.testing.assert_allclose(found.astype(np.float64), wanted.astype(np.float64), rtol=tolerance, atol=1e-5)


def bindings(schedule: Schedule) -> set[str]:
    return {binding for step in schedule if isinstance(step, Bind) for _, binding in step.axes}


@pytest.mark.parametrize("columns", [1, 2, 3, 4, 31, 32, 96, 100, 128, 250, 1000, 1024, 3001, 4096])
def test_a_row_stays_in_registers(driver: VulkanDriver, device: Device, columns: int) -> None:
    x = random("f32", 3, columns)
    schedule, (y,) = on_device(driver, device, "softmax", x)
    assert StoreIn(stage="x", space="reg") in schedule and bindings(schedule) == {"group.x", "lane.x"}
    close(y, call("softmax", x))


@pytest.mark.parametrize("dtype", ["f16", "bf16", "f32"])
@pytest.mark.parametrize("columns", [24, 257, 768])
@pytest.mark.parametrize("name", ["layernorm", "rmsnorm"])
def test_norms(driver: VulkanDriver, device: Device, name: str, dtype: str, columns: int) -> None:
    scales = [random(dtype, columns) for _ in range({"layernorm": 2, "rmsnorm": 1}[name])]
    x = random(dtype, 2, 3, columns)
    schedule, (y,) = on_device(driver, device, name, x, *scales)
    assert any(isinstance(step, Vector) for step in schedule) == (columns % 2 == 0)
    close(y, call(name, x, *scales))


def test_rows_too_long_for_registers(driver: VulkanDriver, device: Device) -> None:
    x = random("f32", 2, ROW_REGISTERS * (device.spec.max_group_lanes or 0) + 4)
    schedule, (y,) = on_device(driver, device, "softmax", x)
    assert StoreIn(stage="x", space="reg") not in schedule
    close(y, call("softmax", x))


@pytest.mark.parametrize("size", [1, 3, 64, 1023, 1024, 4099])
@pytest.mark.parametrize("dtype", ["f16", "bf16", "f32", "f64"])
def test_elementwise(driver: VulkanDriver, device: Device, dtype: str, size: int) -> None:
    if dtype == "f64" and "float64" not in device.spec.features:
        pytest.skip("no f64")
    x, y = random(dtype, size), random(dtype, size)
    _, (z,) = on_device(driver, device, "saxpy", x.dtype.type(1.5), x, y)
    close(z, call("saxpy", x.dtype.type(1.5), x, y))


def test_maps_that_broadcast_or_move(driver: VulkanDriver, device: Device) -> None:
    x, b = random("f32", 5, 64), random("f32", 5, 64)
    _, (y,) = on_device(driver, device, "silu_mul", x, b[0])
    close(y, call("silu_mul", x, b[0]))
    for shape in ((7, 12), (64, 33), (16, 128)):
        x = random("f32", *shape)
        _, (y,) = on_device(driver, device, "transpose", x)
        np.testing.assert_array_equal(y, x.T)


@pytest.mark.parametrize("dtype", ["f32", "i8", "i16", "f16"])
@pytest.mark.parametrize("shape", [(128, 128, 32), (32, 64, 16), (256, 32, 48), (96, 160, 8), (2, 64, 128, 64)], ids=str)
def test_tiled_products(driver: VulkanDriver, device: Device, dtype: str, shape: tuple[int, ...]) -> None:
    *batch, m, n, k = shape
    a, b = random(dtype, *batch, m, k), random(dtype, *batch, k, n)
    schedule, (c,) = on_device(driver, device, "matmul", a, b)
    assert any(isinstance(step, StoreIn) and step.space == "shared" for step in schedule)
    wanted = call("matmul", a, b)
    if c.dtype == np.int32:
        np.testing.assert_array_equal(c, wanted)
    else:
        np.testing.assert_allclose(c.astype(np.float64), wanted.astype(np.float64), rtol=1e-2 if dtype == "f16" else 1e-4, atol=1e-3)


@pytest.mark.parametrize(("depth", "panels"), [(2, 1), (1, 2), (3, 2)], ids=str)
@pytest.mark.parametrize("k", [32, 64, 160], ids=str)
def test_panels_take_turns(driver: VulkanDriver, device: Device, depth: int, panels: int, k: int) -> None:
    a, b = (RNG.integers(-8, 8, shape).astype(np.float32) for shape in ((64, k), (k, 64)))  # exact in any order
    schedule, (c,) = on_device(driver, device, "matmul", a, b, edit=in_turns(depth, panels))
    assert {step.depth for step in schedule if isinstance(step, Pipeline)} == {depth}
    np.testing.assert_array_equal(c, call("matmul", a, b))


@pytest.mark.parametrize(
    ("shape", "answers"),
    [
        ((32, 64, 128), {"share": 4}), ((64, 32, 256), {"side": 16, "share": 16}), ((16, 48, 64), {"side": 16, "share": 8, "ahead": False}),
        ((37, 41, 64), {"side": 16, "share": 8}), ((33, 48, 64), {"share": 2, "depth": 64}), ((2, 32, 32, 64), {"share": 4}),
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("dtype", ["f32", "i16"])
def test_lanes_share_the_sums_of_small_products(
    driver: VulkanDriver, device: Device, dtype: str, shape: tuple[int, ...], answers: dict[str, int]
) -> None:
    *batch, m, n, k = shape
    a, b = random(dtype, *batch, m, k), random(dtype, *batch, k, n)
    schedule, (c,) = on_device(driver, device, "matmul", a, b, decisions={f"C.{name}": answer for name, answer in answers.items()})
    assert "lane.z" in bindings(schedule)
    if dtype == "i16":
        np.testing.assert_array_equal(c, call("matmul", a, b))
    else:
        np.testing.assert_allclose(c, call("matmul", a, b), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(
    ("dtype", "shape"),
    [
        ("f32", (129, 130, 33)), ("f32", (300, 204, 100)), ("f32", (17, 1000, 7)), ("f32", (2, 50, 70, 30)), ("i8", (100, 101, 102)), ("i8", (64, 64, 60)),
        ("i16", (35, 131, 65)), ("f16", (99, 257, 40)), ("bf16", (77, 90, 51)),
    ],
    ids=str,
)  # fmt: skip
def test_products_that_no_tile_divides(driver: VulkanDriver, device: Device, dtype: str, shape: tuple[int, ...]) -> None:
    """Tiles all the same: what lies beyond a matrix is zeros in the panels, and no result is written there."""
    *batch, m, n, k = shape
    a, b = random(dtype, *batch, m, k), random(dtype, *batch, k, n)
    schedule, (c,) = on_device(driver, device, "matmul", a, b)
    tiled = [{"group.x", "group.y", f"{kind}.x", f"{kind}.y"} <= bindings(schedule) for kind in ("lane", "subgroup")]  # or by matrix instructions
    assert any(tiled) and any(isinstance(step, Pad) for step in schedule)
    if c.dtype.kind == "i":
        np.testing.assert_array_equal(c, call("matmul", a, b))
    else:
        np.testing.assert_allclose(c.astype(np.float64), call("matmul", a, b).astype(np.float64), rtol={4: 1e-5, 2: 2e-2}[c.itemsize], atol={4: 1e-4, 2: 0.2}[c.itemsize])


def test_zeros_beyond_the_end_meet_no_infinity(driver: VulkanDriver, device: Device) -> None:
    a, b = np.full((33, 35), np.inf, np.float32), np.ones((35, 37), np.float32)
    _, (c,) = on_device(driver, device, "matmul", a, b)
    assert np.isposinf(c).all()


def test_the_device_tells_its_own_time(driver: VulkanDriver, device: Device) -> None:
    op, _, sizes = prepared("gelu", (random("f32", 4096),), {}, {})
    executable = driver.load(build(op, Build(spec=device.spec, backend=BACKEND, facts=Specialisation(sizes=tuple(sizes.items())))), device)
    memory = driver.open(device.name).memory
    arrays = [memory.allocate(4 * 4096) for _ in range(2)]
    times = executable.device_seconds(arrays, 3)
    for array in arrays:
        memory.release(array)
    assert len(times) == 3 and all(0 < seconds < 10 for seconds in times)


def test_a_written_parameter_is_not_kept(device: Device) -> None:
    op, _, sizes = prepared("gelu", (random("f32", 64),), {}, {})
    made = Build(spec=device.spec, backend=BACKEND, facts=Specialisation(sizes=tuple(sizes.items())), schedule=(StoreIn(stage="y", space="reg"),))
    with pytest.raises(TriError) as caught:
        build(op, made)
    assert caught.value.diagnostics[0].code == "E0417"


TILED = [("f32", (2, 1, 32, 64, 16, 32)), ("bf16", (1, 1, 16, 32, 8, 16)), ("f16", (2, 2, 64, 64, 32, 16)), ("f32", (1, 1, 37, 45, 16, 16)), ("f16", (1, 1, 21, 35, 16, 16))]
SHARED = [("f16", (2, 1, 1, 600, 24, 40)), ("f32", (2, 2, 3, 37, 5, 7))]


@pytest.mark.parametrize(("dtype", "shape"), [*TILED, *SHARED], ids=str)
def test_attention_in_blocks(driver: VulkanDriver, device: Device, dtype: str, shape: tuple[int, ...]) -> None:
    heads, groups, rows, keys, width, own = shape
    arrays = [random(dtype, *s) for s in ((heads, rows, width), (groups, keys, width), (groups, keys, own))]
    schedule, (o,) = on_device(driver, device, "attention", *arrays, np.float32(width**-0.5), np.bool_(True))
    assert any(isinstance(step, Parts if (dtype, shape) in SHARED else BlockBy) for step in schedule)
    wanted = call("attention", *arrays, np.float32(width**-0.5), np.bool_(True))
    np.testing.assert_allclose(o.astype(np.float64), wanted.astype(np.float64), rtol=2e-2, atol={"f32": 1e-5, "bf16": 2e-2, "f16": 2e-3}[dtype])
