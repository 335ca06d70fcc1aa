"""`x.lines(y, i)`: every iteration makes one row, borders and all; whatever the shape, the kernel means what the op does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tridsl.check.resolve import bind
from tridsl.check.types import check_op
from tridsl.devices.spec import load_chip
from tridsl.diagnostics import SourceFile, TriError
from tridsl.dtypes import NUMPY_TYPES
from tridsl.ir.affine import evaluate_index
from tridsl.ir.evaluate import evaluate_op
from tridsl.ir.evaluate_kernel import evaluate_kernel
from tridsl.ir.expr import index
from tridsl.ir.loop import Copy, For, Kernel
from tridsl.ir.op import Op, Tensor
from tridsl.ir.walk import walk
from tridsl.passes.boundaries import boundaries
from tridsl.passes.specialise import Specialisation, specialise
from tridsl.passes.to_loops import to_loops
from tridsl.schedule.apply import apply_schedule
from tridsl.schedule.text import text_schedule
from tridsl.syntax.parse import parse

TAPS = "op f(x: {t}[H, W]) -> y: {t}[H, W] {{ y[i, j] = {t}(x[i - 1, j; pad={p}] + 2 * x[i, j] + x[i + 1, j - 1; pad={p}] + x[i, j + 2; pad={p}]) }}\n"
CHAIN = """op f(rgb: u8[H, W, 4], t: i16) -> y: u8[H, W] {
  g[i, j] = u8((i32(rgb[i, j, 0]) + 2 * i32(rgb[i, j, 1]) + i32(rgb[i, j, 2])) >> 2)
  y[i, j] = if i16(g[i - 1, j; pad=PAD]) - i16(g[i + 1, j + 1; pad=PAD]) > t then g[i, j] else u8(0)
}
"""
SUMS = "op f(X: f32[C, H, W], F: f32[C, 3, 3]) -> Y: f32[H, W] { Y[i, j] = sum[c, r, s](X[c, i + r - 1, j + s - 1; pad=0] * F[c, r, s]) }\n"
SHARP = """op f(x: f32[H, W]) -> y: f32[H, W] {
  s[i, j] = x[i, j] * 0.25
  y[i, j] = x[i, j] - s[i - 1, j; pad=edge] + s[i + 1, j; pad=edge]
}
"""


def scheduled(op: str, directives: str, **sizes: int) -> tuple[Op, Kernel]:
    text = f"{op}schedule f for npu {{\n  {directives}\n}}\n"
    bound = bind(parse(SourceFile(name="<test>", text=text)), lambda module, name: None)
    checked = check_op(bound, bound.operations["f"][0], {})
    spec = load_chip("aie2p")
    steps = text_schedule(bound.schedules["f"], checked, spec, sizes)
    assert steps is not None
    return checked, apply_schedule(boundaries(specialise(to_loops(checked), Specialisation(sizes=tuple(sizes.items())))), steps, spec)


def same(op: str, directives: str, **sizes: int) -> Kernel:
    """The kernel, which was compared with its op."""
    checked, kernel = scheduled(op, directives, **sizes)
    random = np.random.default_rng(1)
    arguments: dict[str, Any] = {}
    for param in checked.inputs:
        shape = tuple(evaluate_index(n, sizes) for n in param.shape) if isinstance(param, Tensor) else ()
        arguments[param.name] = random.integers(0, 99, shape).astype(NUMPY_TYPES[param.dtype]) if shape else 3
    want = evaluate_op(checked, arguments, sizes)
    got = evaluate_kernel(kernel, arguments, {})
    for name, value in got.items():
        np.testing.assert_allclose(value.astype(np.float64), np.asarray(want[name]).astype(np.float64), rtol=1e-5, err_msg=name)
    return kernel


def copies(kernel: Kernel) -> list[Copy]:
    return [n for p in kernel.phases for n in walk(p) if isinstance(n, Copy)]


@pytest.mark.parametrize("pad", ["edge", "0", "7"])
@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (3, 70), (9, 64), (13, 65)])
@pytest.mark.parametrize("dtype", ["f32", "i16"])
def test_a_stencil_over_a_fifo_of_lines(pad: str, shape: tuple[int, int], dtype: str) -> None:
    kernel = same(TAPS.format(t=dtype, p=pad), "y.vector(j)\n  y.split(i, 4)\n  x.lines(y, i.i)", H=shape[0], W=shape[1])
    assert [c.buffers for c in copies(kernel)] == [4, 4]
    assert [n.extent for n in walk(kernel.phases[0]) if isinstance(n, For) and n.var.endswith(".first")] == [index(2)]


@pytest.mark.parametrize("pad", ["edge", "0"])
@pytest.mark.parametrize("shape", [(1, 1), (5, 66), (8, 20)])
def test_lines_of_a_stage_and_of_what_it_reads(pad: str, shape: tuple[int, int]) -> None:
    directives = "y.vector(j)\n  g.vector(j)\n  y.split(i, 3)\n  g.lines(y, i.i)\n  rgb.lines(y, i.i)"
    kernel = same(CHAIN.replace("PAD", pad), directives, H=shape[0], W=shape[1])
    assert len(copies(kernel)) == 2  # a row at a time, in front of the loop and in it
    assert shape[1] == 1 or all(c.axes[2].extent == index(4) for c in copies(kernel))  # whole pixels, although one byte of each is not read


def test_a_window_of_sums() -> None:
    same(SUMS, "X.lines(Y, i)", C=3, H=6, W=11)


def test_rows_of_both_a_stage_and_its_reader() -> None:
    same(SHARP, "s.inline()\n  x.lines(y, i)", H=7, W=9)


@pytest.mark.parametrize(
    ("op", "directives", "why"),
    [
        (TAPS.format(t="f32", p="wrap"), "x.lines(y, i)", "clamped to something else|two|size|move"),
        (TAPS.format(t="f32", p="edge").replace("2 * x[i, j]", "x[i, j + 1; pad=0]"), "x.lines(y, i)", "different boundaries"),
        ("op f(x: f32[H, W]) -> y: f32[H, W] { y[i, j] = x[i, j] + x[H - 1 - i, j] }\n", "x.lines(y, i)", "one row"),
        ("op f(x: f32[H, W]) -> y: f32[H, W] { y[i, j] = x[i, j] }\n", "y.lines(y, i)", "result"),
        ("op f(x: f32[H]) -> y: f32[H] { y[i] = x[i] }\n", "x.lines(y, q)", "no loop"),
        (CHAIN.replace("PAD", "edge"), "y.vector(j)\n  y.split(i, 3)\n  rgb.lines(y, i.i)", "not read"),
        (SHARP, "s.lines(y, i)\n  x.lines(y, i)", "other rows|begin with the widest"),
    ],
)
def test_what_cannot_be_kept_in_lines(op: str, directives: str, why: str) -> None:
    with pytest.raises(TriError, match=why):
        scheduled(op, directives, H=9, W=20)
