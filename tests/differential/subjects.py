"""What is tested: ops with arguments for one call. Random ones by batch and position, the library's by name and type, and a
few written here for what the generator of ops does not draw (updates in place, matrix instructions, stencils of stencils)."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from random import Random
from typing import Any

import ml_dtypes
import numpy as np
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import HypothesisWarning

from tests.properties.ops import Case, agree, ops
from tests.properties.test_ops import checked
from tests.stdlib.calling import module
from tridsl.check.resolve import bind
from tridsl.check.signature import type_choices
from tridsl.check.sizes import solve
from tridsl.check.types import check_op
from tridsl.diagnostics import SourceFile, TriError
from tridsl.dtypes import NUMPY_TYPES, TRIT
from tridsl.ir.affine import evaluate_index
from tridsl.ir.evaluate import evaluate_op
from tridsl.ir.op import Op, Param, Scalar, Tensor
from tridsl.stdlib import names
from tridsl.syntax.parse import parse

Array = np.ndarray[Any, Any]
Results = dict[str, Array]
TOLERANCE = {np.dtype(np.float64): 1e-12, np.dtype(np.float32): 1e-5, np.dtype(np.float16): 2e-3, np.dtype(ml_dtypes.bfloat16): 1.6e-2}
"""Relative, and absolute at the scale of one; `shared/reference`'s per op where it is wider than a rounding."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """`name` finds it again (`find`). `same(got, want)` raises where results differ by more than they may."""

    name: str
    op: Op
    arguments: dict[str, Any]
    sizes: dict[str, int]
    want: Results
    same: Callable[[Results, Results], None]
    text: str = ""

    @property
    def constants(self) -> tuple[tuple[str, Any], ...]:
        return tuple((p.name, self.arguments[p.name]) for p in self.op.params if isinstance(p, Scalar) and p.const)

    def with_arguments(self, arguments: dict[str, Any]) -> Subject:
        """The same call with other contents."""
        return replace(self, arguments=arguments, want=evaluate_op(self.op, arguments, self.sizes, exact=self.same is not same_bits))


def same_bits(got: Results, want: Results) -> None:
    """Identical, up to the payload of NaN and the sign of zero; compactions up to their length."""
    _each(got, want, lambda name, a, b: np.testing.assert_array_equal(a, b, err_msg=name))


def same_within(scale: float) -> Callable[[Results, Results], None]:
    """Floats within `scale` times the tolerance of their type, everything else exactly."""

    def compare(name: str, a: Array, b: Array, dtype: np.dtype[Any]) -> None:
        tolerance = scale * TOLERANCE.get(dtype, 0)
        if not tolerance:
            np.testing.assert_array_equal(a, b, err_msg=name)
        else:
            np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance, err_msg=name)

    return lambda got, want: _each(got, want, lambda name, a, b: compare(name, a, b, got[name].dtype))


def _each(got: Results, want: Results, compare: Callable[[str, Array, Array], None]) -> None:
    assert set(got) >= set(want), f"{sorted(want)} expected, {sorted(got)} given"
    for name, reference in want.items():
        length = int(want[f"{name}.len"]) if f"{name}.len" in want else None
        a, b = (x[:length] if length is not None else x for x in (got[name], reference))
        assert a.shape == b.shape, f"{name}: shape {a.shape}, expected {b.shape}"
        floating = a.dtype in TOLERANCE
        compare(name, a.astype(np.float64) if floating else a, b.astype(np.float64) if floating else b)


# Random ops.


@cache
def drawn(batch: int, count: int) -> tuple[Case, ...]:
    """The first `count` random ops of `batch`: the same ones whenever this version of hypothesis is asked."""
    found: list[Case] = []

    @seed(batch)
    @settings(max_examples=count, database=None, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    @given(ops())
    def collect(case: Case) -> None:
        found.append(case)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", HypothesisWarning)
        collect()
    return tuple(found)


BATCH = 100
"""Random ops of a batch; part of their names, since hypothesis draws later ones in view of earlier ones."""


def random_subject(batch: int, position: int) -> Subject:
    case = drawn(batch, BATCH)[position]
    op, sizes = checked(case)
    want = evaluate_op(op, case.arguments, sizes, exact=case.regime == "computed")
    same = (lambda got, want: agree(case, got, want)) if case.regime == "computed" else same_bits
    return Subject(name=f"random:{batch}:{position}", op=op, arguments=case.arguments, sizes=sizes, want=want, same=same, text=case.text)


# Written here.

WRITTEN: dict[str, str] = {
    "matmul_u8": "op f(A: u8[M, K], B: i8[K, N]) -> C: i32[M, N] {\n C[i, j] = sum[k; acc=i32](A[i, k] * B[k, j])\n}",
    "matmul_i8": "op f(A: i8[M, K], B: i8[N, K]) -> C: i32[M, N] {\n C[i, j] = sum[k; acc=i32](A[i, k] * B[j, k])\n}",
    "matmul_i16": "op f(A: i16[M, K], B: i16[K, N]) -> C: i32[M, N] {\n C[i, j] = sum[k; acc=i32](A[i, k] * B[k, j])\n}",
    "matmul_bf16": "op f(A: bf16[M, K], B: bf16[K, N]) -> C: f32[M, N] {\n C[i, j] = sum[k; acc=f32](A[i, k] * B[k, j])\n}",
    "blur": """op f(x: i32[H, W]) -> y: i32[H, W] {
  g[i, j] = x[i, j] * 3 + 1
  h[i, j] = g[i - 1, j; pad=edge] + g[i + 1, j; pad=edge] - g[i, j]
  y[i, j] = h[i, j - 1; pad=0] + h[i, j + 1; pad=reflect] * 2 + g[i, j; pad=wrap]
}""",
    "softmax_like": """op f(x: i32[R, N]) -> y: i32[R, N] where N > 0 {
  m[r]    = max[n](x[r, n])
  e[r, n] = (x[r, n] - m[r]) * 3
  s[r]    = sum[n](e[r, n])
  y[r, n] = e[r, n] - s[r] + sum[k](e[r, k] & 7)
}""",
    "chain": """op f(a: i32[M, K], b: i32[K, N], c: i32[N, M]) -> y: i32[M, M] {
  p[i, j] = sum[k](a[i, k] * b[k, j])
  y[i, l] = sum[j](p[i, j] * c[j, l]) + p[i, 0; pad=0]
}""",
    "update": """op f(inout cache: i32[T, D], x: i32[S, D], at: i32) where S <= T {
  cache[t in 0..S, d] = x[t, d] * at
}""",
    "scans": """op f(x: i32[R, N]) -> (y: i32[R, N], z: i32[R]) {
  c[r, n] = scan sum[n](x[r, n])
  y[r, n] = c[r, n] - scan sum[n; exclusive](c[r, n])
  z[r]    = sum[n](y[r, n] ^ c[r, n])
}""",
    "rows_and_columns": """op f(x: i32[M, N]) -> (r: i32[M], c: i32[N], y: i32[M, N]) {
  r[i] = sum[j](x[i, j])
  c[j] = sum[i](x[i, j])
  y[i, j] = x[i, j] * (r[i] + c[j])
}""",
    "convolution": """op f(x: i32[H + 4, W + 2], w: i32[5, 3]) -> y: i32[H, W] {
  y[i, j] = sum[r in 0..5, s in 0..3](x[i + r, j + s] * w[r, s])
}""",
    "window": "op f(x: u8[H + 2, W + 2]) -> y: u8[H, W] {\n y[i, j] = max[r in 0..3, s in 0..3](x[i + r, j + s])\n}",
    "masked_product": "op f(A: i32[K, M], B: i32[K, N]) -> y: i32[M, N] {\n y[i, j] = B[0, j; pad=0] * 3 + sum[k](if k > i then A[k, i] * B[k, j] else 0)\n}",
    "gram": "op f(A: i32[M, K]) -> y: i32[M, M] {\n d[i, k] = A[i, k] * 5 - A[0, k; pad=0]\n y[i, j] = sum[k](d[i, k] * d[j, k]) * 2 + d[i, 0; pad=1]\n}",
    "distances": "op f(x: i32[M, K], y: i32[N, K]) -> z: i32[M, N] {\n z[i, j] = sum[k](abs(x[i, k] - y[j, k]))\n}",
    "sweep": """op f(x: i32[M, N], y: i32[M, N]) -> (z: i32[M], t: i32) {
  z[i] = sum[j](x[i, j] * y[i, j]) + 3 * sum[j](x[i, j] ^ 5) - max[j in 0..N + 1](x[i, j; pad=0] & 7)
  t    = sum[i, j](x[i, j] & y[i, j]) - sum[i, j](x[i, j])
}""",
    "registers": """op f(x: i32[M, N], y: i32[N]) -> z: i32[M, N] {
  a[i, j] = x[i, j] * x[i, j] - y[j] * 3 + x[i, j]
  b[i, j] = a[i, j] * a[i, j] ^ x[i, j] + y[j] * a[i, j]
  z[i, j] = a[i, j] * b[i, j] + b[i, j] * b[i, j] - a[i, j]
}""",
    "maybe_empty": """op f(t: i32[N, L], x: i32[M], z: i32[K]) -> y: i32[K] {
  a[i in 0..M, j in 0..L] = t[x[i], j; pad=-1]
  y[k] = a[1, k; pad=3] ^ z[k]
}""",
    "negated_lowest": """op f(x: i8[N], y: u8[N], z: i32[N]) -> (a: i8[N], b: u8[N], c: i32[N]) {
  a[i] = -i8(lowest) + x[i]
  b[i] = -u8(5) + y[i]
  c[i] = -i32(lowest) ^ z[i]
}""",
    "selected_halves": "op f(x: f16[N], t: f16) -> y: f16[..N] {\n y = compact[i](x[i], x[i] < t)\n}",
    "selected": """op f(x: i32[N], t: i32) -> (y: i32[..N], s: i32) {
  y = compact[i](x[i] * 2, x[i] > t)
  s = sum[i](if x[i] > t then x[i] else 0)
}""",
}  # fmt: skip
EXTENTS = (0, 1, 2, 3, 5, 7, 8, 13, 16, 17, 31, 33, 64)


def written_subject(name: str, variant: int) -> Subject:
    """An op of `WRITTEN` at sizes drawn by `variant`."""
    text = WRITTEN[name]
    bound = bind(parse(SourceFile(name=name, text=text + "\n")), lambda module, name: None)
    op = check_op(bound, bound.operations["f"][0], {})
    random = Random(f"{name}:{variant}")
    while True:
        sizes = {n: random.choice(EXTENTS) for n in op.sizes}
        points = np.prod([max(1, v) for v in sizes.values()])
        if points <= 4000 and (name != "update" or sizes["S"] <= sizes["T"]) and (name not in ("softmax_like",) or sizes["N"]):
            if (name == "blur" and not min(sizes.values())) or (name == "maybe_empty" and (sizes["M"] > 1 or not sizes["K"])):
                continue
            break
    rng = np.random.default_rng(random.randrange(1 << 32))
    arguments = {p.name: _contents(p, sizes, rng) for p in op.inputs}
    same = same_within(1) if name == "matmul_bf16" else same_bits
    want = evaluate_op(op, arguments, sizes)
    return Subject(name=f"written:{name}:{variant}", op=op, arguments=arguments, sizes=sizes, want=want, same=same, text=text)


def _contents(param: Tensor | Scalar, sizes: dict[str, int], rng: np.random.Generator) -> Any:
    if isinstance(param, Scalar):
        return 3
    shape = [evaluate_index(n, sizes) for n in param.shape]
    if param.dtype.is_float:
        return rng.integers(-4, 5, shape).astype(NUMPY_TYPES[param.dtype])
    assert param.dtype.low is not None and param.dtype.high is not None
    wide = rng.integers(param.dtype.low, param.dtype.high, shape, dtype=np.int64, endpoint=True)
    extreme = rng.choice(np.array([param.dtype.low, param.dtype.high]), shape)
    return np.where(rng.random(shape) < 0.3, extreme, wide).astype(NUMPY_TYPES[param.dtype])


# The library.

LOOSE = {"attention": 8.0, "mla": 16.0, "mla_absorbed": 16.0, "conv2d": 8.0, "lora": 16.0, "matmul": 8.0, "linear": 8.0}
"""Sums of products: a few roundings more."""
MOVED = ("above", "topk", "argmax", "transpose", "max", "reverse", "collapse_at", "collapse_fixed")
"""Ops that round nothing: floats are compared like integers, and contents have NaN and infinities."""
SCALARS: dict[str, tuple[Any, ...]] = {"stride": (1, 2), "p": (0, 1, 2), "k": (0, 1, 3), "keep": (0, 1, 3), "q": (-64, 128), "causal": (False, True), "threshold": (40, 300), "eps": (1e-5,)}


@cache
def library_kinds() -> tuple[tuple[str, int, int], ...]:
    """(op, overload, choice of types) for everything in the library."""
    return tuple(
        (name, o, c)
        for name in names()
        for o, overload in enumerate(module(name).operations[name])
        for c, _ in enumerate(type_choices(overload.operation))
    )


def library_subject(name: str, overload: int, choice: int, variant: int) -> Subject:
    """The op at one choice of its types, at sizes and contents drawn by `variant`."""
    bound = module(name)
    found = bound.operations[name][overload]
    op = check_op(bound, found, list(type_choices(found.operation))[choice])
    key = f"library:{name}:{overload}:{choice}:{variant}"
    random = Random(key)
    rng = np.random.default_rng(random.randrange(1 << 32))
    for _ in range(1000):
        sizes = {n: random.choice((1, 2, 3, 4, 5, 7, 8, 16, 17, 33)) for n in op.sizes}
        if np.prod(list(sizes.values())) > 4000:
            continue
        arguments = {p.name: _argument(p, sizes, rng, random, special=name in MOVED) for p in op.inputs}
        tensors = {n: a.shape for n, a in arguments.items() if isinstance(a, np.ndarray)}
        try:
            sizes = solve(op, tensors, {n: a for n, a in arguments.items() if n not in tensors})
        except TriError:
            continue  # a contract that these sizes break
        break
    else:
        raise AssertionError(f"no sizes found for {key}")
    computed = any(t.dtype.is_float for t in op.tensors) and name not in MOVED
    same = _same_but_rounding if name.endswith("quantise") else same_within(LOOSE.get(name, 2.0)) if computed else same_bits
    want = evaluate_op(op, arguments, sizes, exact=computed)
    return Subject(name=key, op=op, arguments=arguments, sizes=sizes, want=want, same=same, text=f"stdlib:{name} {dict(op.types)}")


def _argument(param: Param, sizes: dict[str, int], rng: np.random.Generator, random: Random, *, special: bool) -> Any:
    if isinstance(param, Scalar):
        return random.choice(SCALARS.get(param.name, (0.5,) if param.dtype.is_float else (2,)))
    shape = [evaluate_index(n, sizes) for n in param.shape]
    if param.dtype.kind == "bool":
        return rng.integers(0, 2, shape).astype(np.bool_)
    if param.dtype == TRIT:
        return rng.integers(-1, 2, shape).astype(np.int8)
    if not param.dtype.is_float:
        return _contents(param, sizes, rng)
    array = rng.integers(-32, 33, shape) / 16  # exact in every type
    if special:
        array = np.where(rng.random(shape) < 0.2, rng.choice(np.array([np.nan, np.inf, -np.inf, 0.0, 2.0]), shape), array)
    return array.astype(NUMPY_TYPES[param.dtype])


def _same_but_rounding(got: Results, want: Results) -> None:
    """Integers rounded from computed floats may fall on the other side of a tie."""
    for name, reference in want.items():
        difference = np.abs(got[name].astype(np.float64) - reference.astype(np.float64))
        assert (difference <= (1 if reference.dtype == np.int8 else 1e-5 * np.abs(reference.astype(np.float64)) + 1e-6)).all(), name


def find(name: str) -> Subject:
    """The subject of that name."""
    kind, *rest = name.split(":")
    if kind == "random":
        return random_subject(int(rest[0]), int(rest[1]))
    if kind == "written":
        return written_subject(rest[0], int(rest[1]))
    return library_subject(rest[0], int(rest[1]), int(rest[2]), int(rest[3]))
