"""Ops from text and schedules from text, for tests of steps and passes."""

from __future__ import annotations

import numpy as np

from tridsl.check.resolve import bind
from tridsl.check.types import check_op
from tridsl.devices.spec import DeviceSpec
from tridsl.diagnostics import SourceFile
from tridsl.dtypes import NUMPY_TYPES
from tridsl.ir.affine import evaluate_index
from tridsl.ir.evaluate import evaluate_kernel, evaluate_op
from tridsl.ir.loop import Kernel
from tridsl.ir.op import Op, Scalar, Tensor
from tridsl.ir.verify import LOWERED, verify
from tridsl.passes.specialise import Specialisation
from tridsl.pipeline import LOWER, SCHEDULE, TO_KERNEL, Build, run
from tridsl.schedule.steps import Schedule
from tridsl.schedule.text import block_steps, known_names
from tridsl.schedule.tunables import first_point
from tridsl.syntax.nodes import ScheduleBlock
from tridsl.syntax.parse import parse

CPU = DeviceSpec(
    name="test512", kind="cpu", vector_bits=512, vector_registers=32, has_masks=True, cores=2,
    l1_bytes=32768, l2_bytes=1 << 20, l3_bytes=32 << 20,
)  # fmt: skip
SMALL = DeviceSpec(
    name="test128", kind="cpu", vector_bits=128, vector_registers=16, cores=2, l1_bytes=32768, l2_bytes=1 << 18, l3_bytes=1 << 20
)

MATMUL = """op matmul(A: f32[M, K], B: f32[K, N]) -> C: f32[M, N] {
  C[i, j] = sum[k](A[i, k] * B[k, j])
}
"""
SOFTMAX = """op softmax(x: f32[R, N]) -> y: f32[R, N] {
  m[r]    = max[n](x[r, n])
  e[r, n] = exp(x[r, n] - m[r])
  y[r, n] = e[r, n] / sum[k](e[r, k])
}
"""
BLUR = """op blur(x: f32[H, W]) -> y: f32[H, W] {
  g[i, j] = x[i, j] * 0.5 + 1
  y[i, j] = g[i - 1, j; pad=edge] + g[i + 1, j; pad=edge] + g[i, j - 1; pad=edge] + g[i, j + 1; pad=edge]
}
"""


def op_of(text: str) -> Op:
    """The one op of `text` (no type parameters)."""
    bound = bind(parse(SourceFile(name="test", text=text)), lambda module, name: None)
    overloads = next(iter(bound.operations.values()))
    return check_op(bound, overloads[0], {})


def steps_of(op: Op, directives: str, spec: DeviceSpec = CPU, **sizes: int) -> Schedule:
    """Steps of the lines of a schedule block for `op`."""
    module = parse(SourceFile(name="test", text=f"schedule {op.name} for any {{\n{directives}\n}}\n"))
    block = module.items[0]
    assert isinstance(block, ScheduleBlock)
    names = known_names(op, sizes)
    return block_steps(block, {**names, **first_point(block, names, spec)}, spec)


def scheduled(op: Op, steps: Schedule, sizes: dict[str, int] | None = None, spec: DeviceSpec = CPU, *, lowered: bool = False) -> Kernel:
    """The kernel behind the schedule stage, or behind all shared passes. Sizes left out stay symbolic."""
    build = Build(spec=spec, backend=None, schedule=steps, facts=Specialisation(sizes=tuple((sizes or {}).items())))  # type: ignore[arg-type]
    kernel: Kernel = run(op, (*TO_KERNEL, *SCHEDULE, *(LOWER if lowered else ())), build)
    return kernel


def arguments(op: Op, sizes: dict[str, int], seed: int = 0) -> dict[str, object]:
    """Small integers in every input, so that sums are exact in any order."""
    rng = np.random.default_rng(seed)
    values: dict[str, object] = {}
    for p in op.params:
        if isinstance(p, Scalar):
            values[p.name] = p.default.value if p.default else 2
        elif isinstance(p, Tensor) and p.role != "output":
            shape = [evaluate_index(n, sizes) for n in p.shape]
            values[p.name] = rng.integers(0 if p.dtype.kind == "uint" else -4, 5, shape).astype(NUMPY_TYPES[p.dtype])
    return values


def check_same(op: Op, steps: Schedule, sizes: dict[str, int], spec: DeviceSpec = CPU) -> None:
    """Scheduled and lowered kernels, symbolic and specialised, give what the op's own meaning gives."""
    given = arguments(op, sizes)
    expected = evaluate_op(op, given, sizes)  # type: ignore[arg-type]
    for known in (sizes, {}):
        for lowered in (False, True):
            kernel = scheduled(op, steps, known, spec, lowered=lowered)
            if lowered:
                problems = verify(kernel, LOWERED)
                assert not problems, "\n".join(p.render() for p in problems)
            got = evaluate_kernel(kernel, given, sizes)  # type: ignore[arg-type]
            for name, value in expected.items():
                np.testing.assert_allclose(got[name], value, rtol=1e-5, atol=1e-6, err_msg=f"{name}, {known}, lowered {lowered}")
