"""`unit`: a vector as a matrix of one row; the kernel means what the op means, and takes what takes matrices."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.schedule.programs import CPU, op_of, steps_of
from tridsl.diagnostics import TriError
from tridsl.ir.evaluate import evaluate_kernel, evaluate_op
from tridsl.ir.loop import Kernel
from tridsl.ir.op import Tensor
from tridsl.ir.printer import print_kernel
from tridsl.ir.verify import LOWERED, SCHEDULED, describe, verify
from tridsl.passes.specialise import Specialisation
from tridsl.pipeline import LOWER, SCHEDULE, TO_KERNEL, Build, run

VECTOR = """op scaled(W: i8[M, K], x: i8[K], s: f32[M]) -> y: f32[M] {
  y[m] = f32(sum[k; acc=i32](W[m, k] * x[k])) * s[m]
}
"""
KEEPS = """op keeps(x: f32[N], y: f32[N]) -> z: f32[..N] {
  z = compact[i](x[i], x[i] > y[i])
}
"""


def lowered(text: str, directives: str, **sizes: int) -> tuple[Kernel, dict[str, Any], dict[str, Any]]:
    op = op_of(text)
    build = Build(spec=CPU, backend=None, schedule=steps_of(op, directives), facts=Specialisation(sizes=tuple(sizes.items())))  # type: ignore[arg-type]  # stages are asked for, not built
    kernel = run(op, (*TO_KERNEL, *SCHEDULE), build)
    assert not verify(kernel, SCHEDULED), f"{describe(verify(kernel, SCHEDULED))}\n{print_kernel(kernel)}"
    kernel = run(kernel, LOWER, build)
    assert not verify(kernel, LOWERED), print_kernel(kernel)
    random = np.random.default_rng(0)
    given = {
        "W": random.integers(-128, 128, (sizes["M"], sizes["K"])).astype(np.int8), "x": random.integers(-128, 128, sizes["K"]).astype(np.int8),
        "s": random.standard_normal(sizes["M"]).astype(np.float32),
    }  # fmt: skip
    return kernel, given, evaluate_op(op, given, sizes)


@pytest.mark.parametrize("directives", [
    "x.unit(n)",
    "x.unit(n)\ny.split(n, 4)\ny.order(m, n.o, n.i)\ny.sum.at(y, m)",
    "x.unit(n)\ny.split(m, 8)\ny.sum.at(y, m.o)\ny.vector(m.i)",
])  # fmt: skip
def test_one_row_means_the_vector(directives: str) -> None:
    kernel, given, want = lowered(VECTOR, directives, M=13, K=21)
    shapes = {p.name: len(p.shape) for p in kernel.params if isinstance(p, Tensor)}
    assert shapes == {"W": 2, "x": 2, "s": 1, "y": 2}  # what is not made of x stays as it is
    found = evaluate_kernel(kernel, {**given, "x": given["x"][None]}, {})
    np.testing.assert_array_equal(found["y"][0], want["y"])


@pytest.mark.parametrize(("directives", "code"), [
    ("w.unit(n)", "E0401"),  # no such input
    ("y.unit(n)", "E0401"),  # a result
    ("x.unit(k)", "E0498"),  # a loop of that name
    ("y.sum.at(y, m)\nx.unit(n)", "E0498"),  # computed inside another stage
])  # fmt: skip
def test_what_has_no_unit_axis(directives: str, code: str) -> None:
    with pytest.raises(TriError, match=code):
        lowered(VECTOR, directives, M=8, K=8)


def test_no_unit_axis_of_what_is_packed() -> None:
    op = op_of(KEEPS)
    build = Build(spec=CPU, backend=None, schedule=steps_of(op, "x.unit(n)"), facts=Specialisation(sizes=(("N", 8),)))  # type: ignore[arg-type]  # stages are asked for, not built
    with pytest.raises(TriError, match="E0498"):
        run(op, (*TO_KERNEL, *SCHEDULE), build)
