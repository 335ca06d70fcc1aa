"""Small ops to tune."""

from __future__ import annotations

from tridsl.backend import Device, load_backend
from tridsl.check.resolve import BoundModule, bind
from tridsl.check.types import check_op
from tridsl.diagnostics import SourceFile
from tridsl.ir.op import Op
from tridsl.syntax.parse import parse

SAXPY = "op f(a: f32, x: f32[N], y: f32[N]) -> z: f32[N] {\n  z[i] = a * x[i] + y[i]\n}\n"
MATMUL = "op f(A: f32[M, K], B: f32[K, N]) -> C: f32[M, N] {\n  C[i, j] = sum[k](A[i, k] * B[k, j])\n}\n"
UPDATE = "op f(inout x: f32[N]) {\n  x[i] = x[i] * 2.0\n}\n"
SELECTED = "op f(x: i32[N], t: i32) -> y: i32[..N] {\n  y = compact[i](x[i], x[i] > t)\n}\n"
TEXT = """op f(x: f32[M, N]) -> y: f32[M, N] {
  y[i, j] = x[i, j] * 2.0
}
schedule f for cpu {
  param rows in {1, 2, 4, 8} = 2
  param width in pow2(8, 64)
  require rows * width <= 128
  y.tile(i=rows, j=width).vector(j.i)
}
"""


def module(text: str) -> BoundModule:
    return bind(parse(SourceFile(name="kernels.tri", text=text)), lambda name, importing: None)


def op(text: str) -> Op:
    bound = module(text)
    return check_op(bound, bound.operations["f"][0], {})


def cpu() -> Device:
    return load_backend("cpu").driver().devices()[0]
