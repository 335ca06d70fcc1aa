"""Lanes that scan, compact and reduce in order: by shuffles, by shared memory, and as the interpreter understands the kernel."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import tridsl
from tests.stdlib.calling import dtype_of
from tridsl.api.library import resolver_for
from tridsl.backend import Device
from tridsl.backends.vulkan import BACKEND
from tridsl.backends.vulkan.driver import VulkanDriver
from tridsl.backends.vulkan.lower_running import running
from tridsl.check.overloads import select
from tridsl.check.resolve import bind
from tridsl.check.types import check_op
from tridsl.diagnostics import SourceFile, TriError
from tridsl.dtypes import NUMPY_TYPES
from tridsl.ir.evaluate import evaluate_kernel, evaluate_op
from tridsl.ir.loop import Append, For, Kernel
from tridsl.ir.op import Op, Scalar
from tridsl.ir.scans import running_of
from tridsl.ir.verify import SCHEDULED, describe, verify
from tridsl.ir.walk import walk
from tridsl.passes.specialise import Specialisation
from tridsl.pipeline import Build, build, lower
from tridsl.schedule.automatic import automatic
from tridsl.schedule.steps import Bind, Parts
from tridsl.stdlib import source
from tridsl.syntax.parse import parse

LINE = """monoid line(a: i32, b: i32) -> i32 {
  state p: i32 = 1, q: i32 = 0
  lift {
    p = a
    q = b
  }
  merge a, b {
    p = a.p * b.p
    q = b.p * a.q + b.q
  }
  result q
}
"""
SUMS = "op f[T in {i8, u8, i16, i32, i64, f32, f64, f16}](x: T[N]) -> y: T[N] {\n  y[i] = scan max[i](x[i])\n}\n"
EXCLUSIVE = "op f(x: i32[B, N]) -> y: i32[B, N] {\n  y[b, i] = scan sum[i; exclusive](x[b, i] * 3)\n}\n"
IN_ORDER = LINE + "op f(x: i32[N]) -> y: i32[N] {\n  y[i] = scan line[i](x[i], i32(i))\n}\n"
MASKED = "op f(x: f32[N], t: f32) -> (y: f32[..N], pos: i64[..N]) {\n  y   = compact[i](x[i] * 2, x[i] >= t)\n  pos = compact[i](i, x[i] >= t)\n}\n"
ACROSS = "op f(x: i32[N, M]) -> y: i32[N, M] {\n  y[i, j] = scan sum[i](x[i, j])\n}\n"


def checked(text: str, *arguments: Any) -> Op:
    bound = bind(parse(SourceFile(name="f.tri", text=text)), resolver_for(source, None))
    overload, types = select(bound, "f", [dtype_of(a) for a in arguments], [np.ndim(a) for a in arguments], {})
    return check_op(bound, overload, types)


def sizes_of(op: Op, given: dict[str, Any]) -> dict[str, int]:
    return {n.name: e for t in op.tensors if t.role == "input" for n, e in zip(t.shape, given[t.name].shape)}  # type: ignore[union-attr]


def results(op: Op, driver: VulkanDriver, device: Device, *arguments: Any, features: frozenset[str] = frozenset()) -> dict[str, Any]:
    """What the device makes of the op, without the features named."""
    given = dict(zip([p.name for p in op.inputs], arguments))
    sizes = sizes_of(op, given)
    spec = replace(device.spec, features=device.spec.features - features)
    binary = build(op, Build(spec=spec, backend=BACKEND, facts=Specialisation(sizes=tuple(sizes.items()))))
    slots, found = [], {}
    for param in binary.signature.params:
        if isinstance(param, Scalar) or param.role == "input":
            slots.append(given[param.name])
            continue
        found[param.name] = np.full([n.value for n in param.shape], 77, NUMPY_TYPES[param.dtype])  # type: ignore[union-attr]
        slots.append(found[param.name])
    before = len(driver.messages)
    driver.load(binary, device)(slots, 1)
    assert driver.messages[before:] == ()
    return found


def same(op: Op, found: dict[str, Any], *arguments: Any) -> None:
    given = dict(zip([p.name for p in op.inputs], arguments))
    want = evaluate_op(op, given, sizes_of(op, given))
    for tensor in op.outputs:
        length = int(want[tensor.length]) if tensor.length else None
        assert length is None or int(found[tensor.length]) == length
        np.testing.assert_array_equal(found[tensor.name][:length], want[tensor.name][:length])


RNG = np.random.default_rng(5)
WAYS = pytest.mark.parametrize("without", [frozenset(), frozenset({"subgroup_shuffle_relative"})], ids=["shuffles", "memory"])


@WAYS
@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "int32", "int64", "float32", "float64", "float16"])
def test_scans_of_every_type(driver: VulkanDriver, device: Device, dtype: str, without: frozenset[str]) -> None:
    for length in (257, 9001):
        x = (RNG.standard_normal(length) * 100).astype(dtype)
        op = checked(SUMS, x)
        same(op, results(op, driver, device, x, features=without), x)


@WAYS
@pytest.mark.parametrize("shape", [(1, 300), (3, 4096), (5, 4099), (2, 17001)], ids=str)
def test_rows_that_are_scanned_side_by_side(driver: VulkanDriver, device: Device, shape: tuple[int, int], without: frozenset[str]) -> None:
    x = RNG.integers(-(1 << 31), 1 << 31, shape).astype(np.int32)  # sums wrap
    op = checked(EXCLUSIVE, x)
    same(op, results(op, driver, device, x, features=without), x)


@WAYS
@pytest.mark.parametrize("length", [258, 5003])
def test_what_does_not_commute_keeps_its_order(driver: VulkanDriver, device: Device, length: int, without: frozenset[str]) -> None:
    x = RNG.integers(-3, 4, length).astype(np.int32)
    op = checked(IN_ORDER, x)
    same(op, results(op, driver, device, x, features=without), x)


@WAYS
@pytest.mark.parametrize(("length", "threshold"), [(300, 0.0), (4097, 9.0), (8192, -9.0), (20001, 0.3)])
def test_compactions(driver: VulkanDriver, device: Device, length: int, threshold: float, without: frozenset[str]) -> None:
    x = RNG.standard_normal(length).astype(np.float32)
    op = checked(MASKED, x, np.float32(threshold))
    same(op, results(op, driver, device, x, np.float32(threshold), features=without), x, np.float32(threshold))


def test_scans_across_rows_take_a_lane_for_each_column(driver: VulkanDriver, device: Device) -> None:
    x = RNG.integers(-9, 9, (700, 33)).astype(np.int32)
    op = checked(ACROSS, x)
    same(op, results(op, driver, device, x), x)


@pytest.mark.parametrize(("shape", "kept"), [((2049,), 1), ((5000,), 16), ((2, 3001), 7), ((4097,), 0), ((3, 2, 300), 2), ((3000,), 300), ((5,), 5)], ids=str)
def test_the_greatest_of_every_part(driver: VulkanDriver, device: Device, shape: tuple[int, ...], kept: int) -> None:
    """Ties go to the lower index across parts, and NaN is the greatest."""
    x = RNG.integers(-40, 40, shape).astype(np.float32)
    x.reshape(-1)[RNG.integers(0, x.size, 5)] = np.nan
    text = f"op f(x: f32[N]) -> (v: f32[{kept}], i: i32[{kept}]) {{\n  v, i = topk[n; k={kept}](x[n])\n}}\n"
    (values, places), steps = tridsl.compile(text).f(x, device=str(device)), automatic(checked(text, x.reshape(-1)), device.spec, {"N": shape[-1]})
    assert any(isinstance(s, Parts) for s in steps) == (kept > 0)
    order = np.argsort(np.where(np.isnan(x), -np.inf, -x), axis=-1, kind="stable")[..., :kept]
    np.testing.assert_array_equal(places, order)
    np.testing.assert_array_equal(values, np.take_along_axis(x, order, -1))


def test_floats_repeat_bit_for_bit(driver: VulkanDriver, device: Device) -> None:
    x = RNG.standard_normal(30_000).astype(np.float32)
    op = checked(SUMS.replace("max", "sum"), x)
    first = results(op, driver, device, x)["y"]
    assert np.array_equal(first, results(op, driver, device, x)["y"])
    exact = np.cumsum(x.astype(np.float64))
    assert np.abs(first - exact).max() < 1e-3


@pytest.mark.parametrize(("text", "length"), [(EXCLUSIVE, 2100), (IN_ORDER, 1100), (MASKED, 1100)])
def test_every_stage_means_the_same(device: Device, text: str, length: int) -> None:
    """Also behind `running`, where lanes that run one after the other find what ran before them."""
    x = RNG.integers(-9, 9, (2, length) if text is EXCLUSIVE else length).astype(np.float32 if text is MASKED else np.int32)
    arguments = (x, np.float32(0.5)) if text is MASKED else (x,)
    op = checked(text, *arguments)
    given = dict(zip([p.name for p in op.inputs], arguments))
    sizes = sizes_of(op, given)
    seen: list[str] = []

    def on_stage(name: str, value: Any, seconds: float) -> None:
        if not isinstance(value, Kernel) or name in ("loops", "specialise", "boundaries"):
            return
        seen.append(name)
        assert not verify(value, SCHEDULED), f"{name}: {describe(verify(value, SCHEDULED))}"
        if name in ("schedule", "bind", "running", "barriers"):
            found = evaluate_kernel(value, given, {}, check_races=False)
            same(op, found, *arguments)

    lower(op, Build(spec=device.spec, backend=BACKEND, facts=Specialisation(sizes=tuple(sizes.items()))), on_stage=on_stage)
    assert "running" in seen


def test_lanes_take_neighbours(device: Device) -> None:
    """A part for each workgroup, and its lanes read 16 bytes next to each other."""
    x = np.zeros(10_000, np.float32)
    op = checked(MASKED, x, np.float32(0))
    steps = automatic(op, device.spec, {"N": 100_000})
    assert any(isinstance(s, Parts) for s in steps) and {b for s in steps if isinstance(s, Bind) for _, b in s.axes} == {"group.x", "lane.x"}
    kernel = lower(op, Build(spec=device.spec, backend=BACKEND, facts=Specialisation(sizes=(("N", 100_000),))), until="barriers")
    lanes = [n for p in kernel.phases for n in walk(p) if isinstance(n, For) and n.kind == "lane"]
    assert lanes and all(any(getattr(n, "extent", None) is not None for n in walk(lane)) for lane in lanes)
    copies = [n for lane in lanes for n in walk(lane) if type(n).__name__ == "Copy"]
    assert any(copy.source.tensor == "x" for copy in copies)


def test_what_lanes_cannot_carry_is_refused(device: Device) -> None:
    x = np.zeros(100, np.float32)
    op = checked(MASKED, x, np.float32(0))
    build_ = Build(spec=device.spec, backend=BACKEND, facts=Specialisation(sizes=(("N", 100),)))
    kernel = lower(op, replace(build_, schedule=()), until="simplify")
    (loop,) = (n for n in walk(kernel.phases[0]) if isinstance(n, For))
    assert running_of(loop) is not None
    twice = replace(loop, kind="lane", binding="lane.x", body=(*loop.body, *(s for s in loop.body if isinstance(s, Append))))
    assert running_of(twice) is None
    with pytest.raises(TriError) as caught:
        running(replace(kernel, phases=(replace(kernel.phases[0], body=(twice,)),)), device.spec)
    assert caught.value.code == "E0707"
