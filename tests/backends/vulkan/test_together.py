"""Values that lanes combine at places of their own: once for all of them, whichever subgroups there are; as the oracle."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.backends.vulkan.texts import with_sizes
from tests.stdlib.calling import call, prepared
from tridsl.backend import Code, Device
from tridsl.backends.vulkan import BACKEND
from tridsl.backends.vulkan.driver import VulkanDriver
from tridsl.backends.vulkan.emit_accumulate import MOST_TOGETHER
from tridsl.devices.spec import DeviceSpec
from tridsl.ir.op import Op
from tridsl.passes.specialise import Specialisation
from tridsl.pipeline import Build, build, lower
from tridsl.schedule.steps import Bind, Order, Schedule, Split, Unroll

RNG = np.random.default_rng(11)
WAIT = "barrier();"


def rows(reducer: str) -> str:
    return f"op rows(x: f32[M, K]) -> y: f32[M] {{\n  y[i] = {reducer}[k](x[i, k])\n}}\n"


def by_lanes(each: int, along: int) -> Schedule:
    """`each` rows of every lane, two lanes beside each other, `along` lanes along a row."""
    return (
        Split(stage="y", axis="i", factor=each), Split(stage="y", axis="i.o", factor=2), Split(stage="y", axis="k", factor=along),
        Order(stage="y", axes=("i.o.o", "i.o.i", "k.i", "k.o", "i.i")), Unroll(stage="y", axis="i.i"),
        Bind(stage="y", axes=(("i.o.o", "group.x"), ("i.o.i", "lane.x"), ("k.i", "lane.y"))),
    )  # fmt: skip


def made(op: Op, spec: DeviceSpec, sizes: dict[str, int], each: int) -> Build:
    return Build(spec=spec, backend=BACKEND, schedule=by_lanes(each, 8), facts=Specialisation(sizes=tuple(sizes.items())))


@pytest.mark.parametrize("special", [np.nan, np.inf, 3.0])
@pytest.mark.parametrize(("m", "k"), [(16, 64), (13, 48), (1, 8)], ids=str)
@pytest.mark.parametrize("reducer", ["sum", "max"])
def test_rows_of_a_lane(driver: VulkanDriver, device: Device, reducer: str, m: int, k: int, special: float) -> None:
    x = RNG.normal(size=(m, k)).astype(np.float32)
    x[m // 2, k // 2] = special
    op, given, sizes = prepared(rows(reducer), (x,), {}, {})
    found = np.full(m, 77, np.float32)
    before = len(driver.messages)
    driver.load(build(op, made(op, device.spec, sizes, 4)), device)([given["x"], found], 1)
    assert driver.messages[before:] == ()
    np.testing.assert_allclose(found, call(rows(reducer), x), rtol=1e-5, atol=1e-5)


def text_of(each: int, spec: DeviceSpec) -> str:
    op, _, sizes = prepared(rows("sum"), (np.zeros((4 * each, 64), np.float32),), {}, {})
    code = lower(op, made(op, spec, sizes, each), until="emit")
    assert isinstance(code, Code)
    return with_sizes(code.text)


def test_lanes_wait_once_for_all_of_them(device: Device) -> None:
    two, seven = text_of(2, device.spec), text_of(7, device.spec)
    assert two.count(WAIT) == seven.count(WAIT)
    assert "_add = 0" not in two + seven  # no loop of them is left


def test_they_wait_for_each_where_there_is_no_room_or_no_instruction(device: Device) -> None:
    plain = replace(device.spec, features=device.spec.features - {"subgroup_arithmetic"})
    for spec, each in ((device.spec, MOST_TOGETHER + 1), (plain, 7)):
        assert "_add = 0" in text_of(each, spec).partition(WAIT)[0]
