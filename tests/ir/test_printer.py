"""The printed form: minimal parentheses, short loop names, every flag of a statement visible."""

from __future__ import annotations

import pytest

from tridsl.dtypes import BF16, BOOL, F16, F32, F64, I8, I32
from tridsl.ir import loop, op
from tridsl.ir.expr import (
    Binary,
    Boundary,
    Call,
    Cast,
    Const,
    Expr,
    Load,
    Select,
    Unary,
    Var,
    add,
    binary,
    ceildiv,
    index,
    minimum,
    mul,
    sub,
)
from tridsl.ir.print_expressions import print_expr
from tridsl.ir.printer import print_kernel, print_op

i, j, k, M, N, K = (Var(name=n) for n in "ijkMNK")


def f32(value: float) -> Const:
    return Const(value=value, dtype=F32)


def over(name: str, extent: Expr) -> op.Axis:
    return op.Axis(name=name, lo=index(0), hi=extent)


@pytest.mark.parametrize(
    ("expr", "text"),
    [
        (add(i, mul(j, index(32))), "i + j*32"),
        (mul(add(i, j), index(32)), "(i + j)*32"),
        (sub(i, sub(j, k)), "i - (j - k)"),
        (sub(sub(i, j), k), "i - j - k"),
        (mul(binary("floordiv", i, j), k), "(i // j)*k"),
        (binary("floordiv", mul(i, j), k), "i*j // k"),
        (binary("floordiv", i, binary("floordiv", H := Var(name="H"), Var(name="G"))), "i // (H // G)"),
        (ceildiv(N, index(32)), "ceil(N / 32)"),
        (ceildiv(add(N, M), index(32)), "ceil((N + M) / 32)"),
        (minimum(index(12), sub(M, mul(i, index(12)))), "min(12, M - i*12)"),
        (Unary(op="neg", a=add(i, j), dtype=F32), "-(i + j)"),
        (Unary(op="not", a=binary("lt", i, j), dtype=BOOL), "not i < j"),
        (Unary(op="abs", a=i, dtype=I32), "abs(i)"),
        (Binary(op="and", a=binary("lt", i, j), b=binary("ge", i, k), dtype=BOOL), "i < j and i >= k"),
        (Binary(op="and", a=i, b=Binary(op="or", a=j, b=k, dtype=I32), dtype=I32), "i & (j | k)"),
        (Cast(a=Load(tensor="x", index=(i,), dtype=F16), dtype=F32), "f32(x[i])"),
        (Load(tensor="x", index=(i,), dtype=F32, boundary=Boundary(mode="reflect")), "x[i; pad=reflect]"),
        (Load(tensor="x", index=(i,), dtype=F32, boundary=Boundary(mode="value", value=f32(0.0))), "x[i; pad=0]"),
        (Load(tensor="m", index=(), dtype=F32), "m[]"),
        (Call(function="exp", args=(f32(1.5),), dtype=F32), "exp(1.5)"),
        (
            Binary(
                op="add",
                a=Select(condition=binary("lt", i, j), a=f32(1.0), b=f32(float("-inf")), dtype=F32),
                b=f32(2.0),
                dtype=F32,
            ),
            "(if i < j then 1 else -inf) + 2",
        ),
    ],
)
def test_expressions_have_the_parentheses_they_need(expr: Expr, text: str) -> None:
    assert print_expr(expr) == text


@pytest.mark.parametrize(
    ("value", "dtype", "text"),
    [
        (0.1, F32, "0.1"), (0.1, F64, "0.1"), (-0.0, F32, "-0.0"), (float("nan"), F32, "nan"), (3.4028234663852886e38, F32, "highest"),
        (-3.4028234663852886e38, F32, "lowest"), (1e-5, F32, "1e-05"), (-(1 << 31), I32, "lowest"), (-128, I8, "-128"), (True, BOOL, "true"),
        (float("inf"), BF16, "inf"), (1e30, F32, "1e+30"),
    ],
)  # fmt: skip
def test_constants(value: float, dtype: object, text: str) -> None:
    assert print_expr(Const(value=value, dtype=dtype)) == text  # type: ignore[arg-type]


def matmul_kernel(first: str = "C:i", second: str = "C:j") -> loop.Kernel:
    a, b, c = (
        op.Tensor(name=n, dtype=F32, shape=s, role=r)
        for n, s, r in (("A", (M, K), "input"), ("B", (K, N), "input"), ("C", (M, N), "output"))
    )
    x, y, z = Var(name=first), Var(name=second), Var(name="C:k")
    product = Binary(
        op="mul", a=Load(tensor="A", index=(x, z), dtype=F32), b=Load(tensor="B", index=(z, y), dtype=F32), dtype=F32
    )
    plus = op.Reducer(
        name="sum", states=("s",), dtypes=(F32,), identity=(f32(0.0),), op="add",
        merge=(Binary(op="add", a=Var(name="a.s", dtype=F32), b=Var(name="b.s", dtype=F32), dtype=F32),),
    )  # fmt: skip
    update = loop.Accumulate(targets=(loop.Ref(tensor="C", index=(x, y)),), reducer=plus, values=(product,), init=True)
    inner = loop.For(var="C:k", extent=K, body=(update,), reduce=True)
    body = loop.For(var=first, extent=M, body=(loop.For(var=second, extent=N, body=(inner,)),), kind="parallel")
    return loop.Kernel(
        name="matmul", params=(a, b, c), sizes=("M", "K", "N"), phases=(loop.Phase(name="C", body=(body,)),)
    )


def test_kernel() -> None:
    assert print_kernel(matmul_kernel()) == (
        "kernel matmul(A: f32[M, K], B: f32[K, N]) -> C: f32[M, N]\n"
        "  sizes M, K, N\n"
        "  parallel i < M\n"
        "    for j < N\n"
        "      for k < K reduce\n"
        "        C[i, j] += A[i, k] * B[k, j] from 0\n"
    )


def test_loops_that_share_an_axis_name_keep_their_stage() -> None:
    text = print_kernel(matmul_kernel(first="S:i", second="C:i"))
    assert "parallel S:i < M" in text
    assert "for C:i < N" in text
    assert "for k < K" in text


def test_statements() -> None:
    x = Var(name="C:i")
    axis = loop.CopyAxis(var="A.l1:i", extent=minimum(index(12), M), bound=12)
    source = Load(tensor="A", index=(add(x, Var(name="A.l1:i")),), dtype=F32)
    body: loop.Block = (
        loop.Alloc(buffer=loop.Buffer(name="A.l1", dtype=F32, shape=(index(12),), space="l1", padded=(True,))),
        loop.Copy(axes=(axis,), target=loop.Ref(tensor="A.l1", index=(Var(name="A.l1:i"),)), source=source, pad=f32(0.0), cooperative=True, buffers=2),
        loop.Barrier(),
        loop.If(condition=binary("lt", x, M), then=(loop.Store(target=loop.Ref(tensor="C", index=(x,)), value=f32(1.0), mask=binary("lt", x, N)),), otherwise=(
            loop.Append(tensors=("y",), count=loop.Ref(tensor="y.len", index=()), values=(f32(2.0),), keep=binary("gt", x, N)),)),
        loop.Check(condition=binary("lt", x, N), number=0),
        loop.Mma(intrinsic="fma", axes=(("t:m", 4),), target=loop.Ref(tensor="C", index=(Var(name="t:m"),)), a=source, b=source),
    )  # fmt: skip
    kernel = loop.Kernel(
        name="f", params=(), sizes=(), messages=("outside",),
        phases=(loop.Phase(name="C", body=(loop.For(var="C:i", extent=minimum(index(8), M), bound=8, body=body, kind="group", binding="group.x"),)),),
    )  # fmt: skip
    text = print_kernel(kernel)
    for line in (
        "group.x C:i < min(8, M)",
        "alloc A.l1: f32[12] in l1 padded",
        "copy A[C:i + A.l1:i] -> A.l1[A.l1:i] for A.l1:i < min(12, M) of 12, pad 0, cooperative, buffers 2",
        "C[C:i] = 1 if C:i < N",
        "else",
        "append y[y.len[]++] = 2 if C:i > N",
        "check C:i < N else message 0",
        "mma fma C[m] += A[C:i + A.l1:i] * A[C:i + A.l1:i] for m < 4",
    ):
        assert line in [t.strip() for t in text.split("\n")], text


def test_op() -> None:
    x = op.Tensor(name="x", dtype=F32, shape=(N,))
    y = op.Tensor(name="y", dtype=F32, shape=(N,), role="output")
    largest = op.Reducer(
        name="max", states=("s",), dtypes=(F32,), identity=(f32(float("-inf")),), op="max",
        merge=(Binary(op="max", a=Var(name="a.s", dtype=F32), b=Var(name="b.s", dtype=F32), dtype=F32),),
    )  # fmt: skip
    load = Load(tensor="x", index=(Var(name="n"),), dtype=F32)
    stages = (
        op.Reduce(
            name="m",
            targets=(op.Target(name="m", dtype=F32, axes=()),),
            axes=(),
            over=(over("n", N),),
            reducer=largest,
            values=(load,),
        ),
        op.Map(
            name="y",
            dtype=F32,
            axes=(over("n", N),),
            value=Binary(op="sub", a=load, b=Load(tensor="m", index=(), dtype=F32), dtype=F32),
        ),
    )
    value = op.Op(
        name="shift", types=(("T", F32),), params=(x, y), sizes=("N",), stages=stages, intermediates=(op.Tensor(name="m", dtype=F32, shape=()),),
        contracts=(op.Contract(condition=binary("ge", N, index(1)), message="empty"),),
    )  # fmt: skip
    assert print_op(value) == (
        "op shift<T=f32>(x: f32[N]) -> y: f32[N]\n"
        "  where N >= 1\n"
        "  let m: f32[]\n"
        "  axes reduce n < N\n"
        "  m: f32 = max[n](x[n])\n"
        "  axes n < N\n"
        "  y[n]: f32 = x[n] - m[]\n"
    )
