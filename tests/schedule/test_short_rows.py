"""Maps whose innermost axis is shorter than a register: lanes run on over the rows."""

from __future__ import annotations

import numpy as np
import pytest

import tridsl
from tests.schedule.programs import CPU, SMALL, check_same, op_of
from tridsl.devices.spec import DeviceSpec
from tridsl.schedule.automatic import automatic
from tridsl.schedule.steps import Fuse, Split, Vector
from tridsl.structs import replace

BLEND = """op f(a: u8[H, W, 3], b: u8[H, W, 3], m: u8[H, W]) -> y: u8[H, W, 3] {
  y[i, j, c] = u8((i32(a[i, j, c]) * i32(m[i, j]) + i32(b[i, j, c]) * (255 - i32(m[i, j])) + 127) // 255)
}
"""
OPS = {
    "blend": BLEND,
    "three": "op f(x: i32[N, 3], s: i32[3], w: i32[N]) -> y: i32[N, 3] { y[i, c] = x[i, c] * s[c] + w[i] }",
    "widened": "op f(x: u8[M, N, 4], s: i32[4]) -> y: i32[M, N, 4] { y[i, j, c] = i32(x[i, j, c]) * s[c] }",
    "long": "op f(x: i64[N, 6], w: i64[N]) -> y: i64[N, 6] { y[i, c] = x[i, c] + w[i] }",
    "product": "op f(w: i32[N], s: i32[5]) -> y: i32[N, 5] { y[i, c] = w[i] * s[c] + i32(c) }",
    "crossed": "op f(x: i32[3, N]) -> y: i32[N, 3] { y[i, c] = x[c, i] }",
}
TYPES = {"u8": np.uint8, "i32": np.int32, "i64": np.int64}
ONE_CORE = replace(CPU, cores=1)


def test_a_pixel_s_channels_share_registers() -> None:
    steps = automatic(op_of(BLEND), ONE_CORE, {"H": 20, "W": 30})
    assert steps == (
        Fuse(stage="y", outer="i", inner="j"), Fuse(stage="y", outer="i.j", inner="c"),
        Split(stage="y", axis="i.j.c", factor=96), Vector(stage="y", axis="i.j.c.i"),
    )  # fmt: skip


@pytest.mark.parametrize("name", ["product", "crossed"])
def test_rows_that_come_round_too_late_or_lie_elsewhere(name: str) -> None:
    """Five elements and a register of sixteen lanes come round after five registers."""
    assert not any(isinstance(s, Fuse) for s in automatic(op_of(OPS[name]), ONE_CORE, {"N": 100}))


@pytest.mark.parametrize("spec", [CPU, ONE_CORE, SMALL])
@pytest.mark.parametrize("name", OPS)
@pytest.mark.parametrize("size", [1, 7, 33])
def test_same(name: str, spec: DeviceSpec, size: int) -> None:
    op = op_of(OPS[name])
    sizes = {n: size + number for number, n in enumerate(op.sizes)}
    check_same(op, automatic(op, spec, sizes), sizes, spec)


@pytest.mark.parametrize("name", OPS)
@pytest.mark.parametrize("size", [1, 5, 33, 170])
def test_runs(name: str, size: int) -> None:
    rng = np.random.default_rng(size)
    compiled = tridsl.compile(OPS[name]).f
    arguments = []
    for p in op_of(OPS[name]).params:
        if getattr(p, "role", "input") == "input":
            shape = [int(n.value) if hasattr(n, "value") else size for n in p.shape]  # type: ignore[union-attr]  # sizes of tests are constants
            arguments.append(rng.integers(0, 256, shape).astype(TYPES[str(p.dtype)]))
    np.testing.assert_array_equal(compiled(*arguments), compiled.reference(*arguments))
