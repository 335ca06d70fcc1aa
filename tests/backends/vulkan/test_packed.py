"""Packed trits on a GPU: words of four bytes, a workgroup for each block row; exact on every path."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import tridsl
from tests.backends.vulkan.test_schedules import bindings
from tests.backends.vulkan.texts import with_sizes
from tests.stdlib.calling import Trits, prepared
from tridsl.backend import Code, Device
from tridsl.backends.vulkan import BACKEND
from tridsl.backends.vulkan.driver import VulkanDriver
from tridsl.backends.vulkan.emit_packed import _at_least, _Bytes, _in_steps, _over, _rest, _times
from tridsl.devices.spec import DeviceSpec
from tridsl.dtypes import TRIT
from tridsl.ir.op import Tensor
from tridsl.passes.specialise import Specialisation
from tridsl.pipeline import Build, build, complete, lower
from tridsl.schedule.automatic import choices, choose
from tridsl.schedule.steps import Intrin, Planes

RNG = np.random.default_rng(5)


def product(layout: str, m: int, k: int, tokens: int | None, spec: DeviceSpec) -> tuple[Build, Any, dict[str, Any]]:
    """The build of `tgemv` or `tgemm` with its automatic schedule, the op, and arguments."""
    w = RNG.integers(-1, 2, (m, k)).astype(np.int8).view(Trits)
    x = RNG.integers(-128, 128, (k,) if tokens is None else (tokens, k)).astype(np.int8)
    sw = RNG.normal(size=m).astype(np.float32)
    sx = np.float32(0.5) if tokens is None else np.full(tokens, 0.5, np.float32)
    op, given, sizes = prepared("tgemv" if tokens is None else "tgemm", (w, x, sw, sx), {}, {})
    op = replace(op, params=tuple(replace(p, layout=layout) if isinstance(p, Tensor) and p.dtype == TRIT else p for p in op.params))
    return complete(op, Build(spec=spec, backend=BACKEND, facts=Specialisation(sizes=tuple(sizes.items())))), op, given


def check(driver: VulkanDriver, device: Device, made: Build, op: Any, given: dict[str, Any]) -> None:
    binary = build(op, made)
    w, x = (np.asarray(v, np.int64) for v in list(given.values())[:2])
    wanted = (x @ w.T).astype(np.float32) * given["sw"] * np.float32(0.5)
    found = np.full(wanted.shape, 77, np.float32)
    layout = next(p.layout for p in op.params if isinstance(p, Tensor) and p.dtype == TRIT)
    values = {**given, "W": tridsl.pack(np.asarray(given["W"]), layout).array}
    before = len(driver.messages)
    driver.load(binary, device)([found if p.name in "yY" else values[p.name] for p in binary.signature.params], 1)
    assert driver.messages[before:] == ()
    np.testing.assert_array_equal(found, wanted)


def text(made: Build, op: Any) -> str:
    code = lower(op, made, until="emit")
    assert isinstance(code, Code)
    return with_sizes(code.text)


@pytest.mark.parametrize(("m", "k", "tokens"), [(32, 960, None), (33, 92, None), (1, 1, None), (17, 960, 6)], ids=str)
@pytest.mark.parametrize("layout", ["t16", "t20", "t96"])
def test_products_of_words(driver: VulkanDriver, device: Device, layout: str, m: int, k: int, tokens: int | None) -> None:
    made, op, given = product(layout, m, k, tokens, device.spec)
    assert made.schedule is not None and any(isinstance(step, Planes) for step in made.schedule)
    whole = k % {"t16": 16, "t20": 20, "t96": 96}[layout] == 0
    assert any(isinstance(step, Intrin) for step in made.schedule) == whole
    assert bindings(made.schedule) >= {"group.x", "lane.x", "lane.y"}
    assert text(made, op).count("// ---- phase") == 1 and ("dot4(" in text(made, op)) == whole
    check(driver, device, made, op, given)


@pytest.mark.parametrize("missing", ["integer_dot_product", "subgroup_arithmetic"])
def test_devices_that_lack_something(driver: VulkanDriver, device: Device, missing: str) -> None:
    spec = replace(device.spec, features=device.spec.features - {missing})
    made, op, given = product("t16", 32, 256, None, spec)
    assert ("spirv_instruction" in text(made, op)) == ("integer_dot_product" in spec.features)
    check(driver, device, made, op, given)


def test_weights_come_sixteen_bytes_at_a_time(device: Device) -> None:
    made, op, _ = product("t16", 64, 6912, None, device.spec)
    written = text(made, op)
    assert "Pointer_u8(push" in written and ".v[" not in written.split("b_y_sum_planes_acc")[2].split("for (")[0]
    assert "uvec4 b_W_16" in written and "uvec4 b_x_16" in written


def test_every_answer_of_the_tuner_is_exact(driver: VulkanDriver, device: Device) -> None:
    made, op, given = product("t16", 20, 1920, 4, device.spec)
    sizes = dict(made.facts.sizes)
    asked = choices(op, device.spec, sizes, {})
    assert {"Y.sum.lanes", "Y.sum.tokens", "Y.sum.ahead"} <= {choice.name for choice in asked}
    for choice in asked:
        for value in (choice.values[0], choice.values[-1]):
            check(driver, device, replace(made, schedule=choose(op, device.spec, sizes, {choice.name: value})), op, given)


def few(a: _Bytes) -> _Bytes:
    """Bytes that are known to be small."""
    return _Bytes(even=f"({a.even} & 0x1f1f1f1fu)", most=31)


@pytest.mark.parametrize(
    ("written", "meant"),
    [(lambda a: _times(a, 27), lambda x: x * 27 & 255), (lambda a: _at_least(a, 86), lambda x: x >= 86), (lambda a: _over(a, 3), lambda x: x // 3),
     (lambda a: _over(a, 9), lambda x: x // 9), (lambda a: _rest(a, 3), lambda x: x % 3), (lambda a: _in_steps(a, 3), lambda x: (x >= 86) + (x >= 171)),
     (lambda a: _rest(_over(a, 9), 3), lambda x: x // 9 % 3), (lambda a: _rest(_over(few(a), 3), 3), lambda x: (x & 31) // 3 % 3),
     (lambda a: _over(_over(few(a), 3), 3), lambda x: (x & 31) // 9),
     (lambda a: _rest(_over(few(a), 9), 3), lambda x: (x & 31) // 9 % 3), (lambda a: _over(a, 5), lambda x: x // 5), (lambda a: _over(a, 255), lambda x: x // 255), (lambda a: _times(few(a), 6), lambda x: (x & 31) * 6),
     (lambda a: _in_steps(_times(a, 9), 3), lambda x: (x * 9 & 255) * 3 >> 8), (lambda a: _times(_in_steps(a, 3), 81), lambda x: (x * 3 >> 8) * 81)],
    ids=["times", "at least", "over 3", "over 9", "rest", "steps", "digit", "few, digit", "few, over twice", "few, last", "over 5", "over 255", "few, times", "front", "times steps"],
)  # fmt: skip
def test_bytes_of_a_word_do_not_meet(written: Any, meant: Any) -> None:
    """The text, with every literal's `u` taken off, is Python's arithmetic too."""
    code = compile(written(_Bytes(even="a")).word.replace("u", ""), "word", "eval")
    for first in range(256):
        a = first | (255 - first) << 8 | 255 << 16 | (first ^ 0x55) << 24
        found = eval(code, {"a": a}) & 0xFFFFFFFF
        assert [found >> s & 255 for s in (0, 8, 16, 24)] == [int(meant(a >> s & 255)) for s in (0, 8, 16, 24)]
