"""Kernels of small ops as text behind a stage of the pipeline."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tests.schedule.programs import CPU, MATMUL, SOFTMAX, op_of, steps_of
from tridsl.devices.spec import DeviceSpec
from tridsl.ir.loop import Kernel
from tridsl.ir.printer import print_kernel
from tridsl.passes.specialise import Specialisation
from tridsl.pipeline import LOWER, SCHEDULE, TO_KERNEL, Build, run

__all__ = ["DOTS", "MATMUL", "ROWS", "SOFTMAX", "VNNI", "body", "kernel_after"]

ROWS = """op f(x: f32[R, N]) -> y: f32[R] {
  y[r] = sum[n](x[r, n])
}
"""
DOTS = """op f(A: u8[M, K], B: i8[N, K]) -> C: i32[M, N] {
  C[i, j] = sum[k; acc=i32](A[i, k] * B[j, k])
}
"""
VNNI = replace(CPU, features=frozenset({"avx512vnni"}))


def kernel_after(
    stage: str, text: str, directives: str = "", *, sizes: dict[str, int] | None = None, spec: DeviceSpec = CPU, **facts: Any
) -> Kernel:
    """The kernel that `stage` gives for the op of `text` under the lines of a schedule; sizes left out stay symbolic."""
    op = op_of(text)
    steps = steps_of(op, directives, spec) if directives else ()
    known = Specialisation(sizes=tuple((sizes or {}).items()), **facts)
    build = Build(spec=spec, backend=None, schedule=steps, facts=known)  # type: ignore[arg-type]
    kernel: Kernel = run(op, (*TO_KERNEL, *SCHEDULE, *LOWER), build, until=stage)
    return kernel


def body(stage: str, text: str, directives: str = "", **more: Any) -> str:
    """Its printed statements, without the header and the sizes."""
    lines = print_kernel(kernel_after(stage, text, directives, **more)).splitlines()
    return "\n".join(line.removeprefix("  ") for line in lines[1:] if line.strip() and not line.startswith("  sizes "))
