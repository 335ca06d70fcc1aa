"""Small ops built by hand, for tests below the checker."""

from __future__ import annotations

from tridsl.dtypes import BOOL, F32, I32, DType, compute_type
from tridsl.ir.expr import Binary, Boundary, Call, Cast, Const, Expr, Load, Select, Var, binary, index
from tridsl.ir.op import Axis, Map, Op, Reduce, Reducer, Role, Stage, Target, Tensor

LOWEST = -3.4028234663852886e38


def const(value: float, dtype: DType = F32) -> Const:
    return Const(value=value, dtype=dtype)


def var(name: str) -> Var:
    return Var(name=name)


def load(tensor: str, *axes: Expr | str, dtype: DType = F32, boundary: Boundary | None = None) -> Expr:
    """`tensor[axes]` in its compute type."""
    index_ = tuple(var(a) if isinstance(a, str) else a for a in axes)
    node = Load(tensor=tensor, index=index_, dtype=dtype, boundary=boundary)
    wide = compute_type(dtype)
    return node if wide == dtype else Cast(a=node, dtype=wide)


def arithmetic(op: str, a: Expr, b: Expr) -> Binary:
    return Binary(op=op, a=a, b=b, dtype=a.dtype)  # type: ignore[arg-type]


def axis(name: str, hi: Expr | str | int, lo: int = 0) -> Axis:
    high = index(hi) if isinstance(hi, int) else var(hi) if isinstance(hi, str) else hi
    return Axis(name=name, lo=index(lo), hi=high)


def tensor(name: str, *shape: Expr | str | int, dtype: DType = F32, role: Role = "input") -> Tensor:
    dims = tuple(var(s) if isinstance(s, str) else index(s) if isinstance(s, int) else s for s in shape)
    return Tensor(name=name, dtype=dtype, shape=dims, role=role)


def reducer(op: str, dtype: DType, identity: float) -> Reducer:
    merge = Binary(op=op, a=Var(name="a.s", dtype=dtype), b=Var(name="b.s", dtype=dtype), dtype=dtype)  # type: ignore[arg-type]
    return Reducer(
        name={"add": "sum"}.get(op, op),
        states=("s",),
        dtypes=(dtype,),
        identity=(const(identity, dtype),),
        merge=(merge,),
        op=op,
    )  # type: ignore[arg-type]


def argmax() -> Reducer:
    """(v, i) of the greatest value, the first on ties; NaN not treated."""
    a, b = (Var(name=f"{side}.v", dtype=F32) for side in "ab")
    ia, ib = (Var(name=f"{side}.i", dtype=I32) for side in "ab")
    later = binary("gt", b, a)
    return Reducer(
        name="argmax", states=("v", "i"), dtypes=(F32, I32), identity=(const(float("-inf")), const(0, I32)),
        merge=(Select(condition=later, a=b, b=a, dtype=F32), Select(condition=later, a=ib, b=ia, dtype=I32)), commutative=False,
    )  # fmt: skip


def softmax_wsum() -> Reducer:
    """The monoid of attention in language.md."""
    am, bm, al, bl, ao, bo = (Var(name=n, dtype=F32) for n in ("a.m", "b.m", "a.l", "b.l", "a.o", "b.o"))
    m = arithmetic("max", am, bm)

    def scaled(x: Expr, of: Expr) -> Expr:
        return arithmetic("mul", x, Call(function="exp", args=(arithmetic("sub", of, m),), dtype=F32))

    return Reducer(
        name="softmax_wsum", states=("m", "l", "o"), dtypes=(F32, F32, F32), identity=(const(LOWEST), const(0.0), const(0.0)),
        merge=(m, arithmetic("add", scaled(al, am), scaled(bl, bm)), arithmetic("add", scaled(ao, am), scaled(bo, bm))),
    )  # fmt: skip


def op(name: str, params: tuple[Tensor, ...], stages: tuple[Stage, ...], sizes: str, **more: object) -> Op:
    return Op(name=name, types=(), params=params, sizes=tuple(sizes.split()), stages=stages, **more)  # type: ignore[arg-type]


def matmul(dtype: DType = F32, acc: DType = F32) -> Op:
    def wide(e: Expr) -> Expr:
        return e if e.dtype == acc else Cast(a=e, dtype=acc)

    product = arithmetic("mul", wide(load("A", "i", "k", dtype=dtype)), wide(load("B", "k", "j", dtype=dtype)))
    reduce = Reduce(
        name="C", targets=(Target(name="C", dtype=acc, axes=("i", "j")),), axes=(axis("i", "M"), axis("j", "N")), over=(axis("k", "K"),),
        reducer=reducer("add", acc, 0), values=(product,),
    )  # fmt: skip
    params = (
        tensor("A", "M", "K", dtype=dtype),
        tensor("B", "K", "N", dtype=dtype),
        tensor("C", "M", "N", dtype=acc, role="output"),
    )
    return op("matmul", params, (reduce,), "M K N")


def stencil(boundary: Boundary, lo: int = -3, hi: int = 4) -> Op:
    """y[n, d] = x[n + d - 3] with d in 0..hi-lo."""
    position = arithmetic("add", arithmetic("add", var("n"), var("d")), index(lo))
    shift = Map(
        name="y", dtype=F32, axes=(axis("n", "N"), axis("d", hi - lo)), value=load("x", position, boundary=boundary)
    )
    return op("stencil", (tensor("x", "N"), tensor("y", "N", hi - lo, role="output")), (shift,), "N")


def attention() -> Op:
    """Without scale, heads or causality: O[q, e] = softmax_wsum[t](Q.K, V)."""
    score = Reduce(
        name="s", targets=(Target(name="s", dtype=F32, axes=("q", "t")),), axes=(axis("q", "S"), axis("t", "L")), over=(axis("d", "D"),),
        reducer=reducer("add", F32, 0), values=(arithmetic("mul", load("Q", "q", "d"), load("K", "t", "d")),),
    )  # fmt: skip
    s = load("s", "q", "t")
    m = arithmetic("max", s, const(LOWEST))
    weight = Call(function="exp", args=(arithmetic("sub", s, m),), dtype=F32)
    combine = Reduce(
        name="O.w",
        targets=(Target(name="O.m", dtype=F32, axes=("q",)), Target(name="O.l", dtype=F32, axes=("q",)), Target(name="O.o", dtype=F32, axes=("q", "e"))),
        axes=(axis("q", "S"), axis("e", "E")), over=(axis("t", "L"),), reducer=softmax_wsum(),
        values=(m, weight, arithmetic("mul", weight, load("V", "t", "e"))),
    )  # fmt: skip
    total = load("O.l", "q")
    value = Select(
        condition=binary("eq", total, const(0.0)),
        a=const(0.0),
        b=arithmetic("div", load("O.o", "q", "e"), total),
        dtype=F32,
    )
    result = Map(name="O", dtype=F32, axes=(axis("q", "S"), axis("e", "E")), value=value)
    params = (tensor("Q", "S", "D"), tensor("K", "L", "D"), tensor("V", "L", "E"), tensor("O", "S", "E", role="output"))
    hidden = (tensor("s", "S", "L"), tensor("O.m", "S"), tensor("O.l", "S"), tensor("O.o", "S", "E"))
    return op("attention", params, (score, combine, result), "S D L E", intermediates=hidden)


def compare(op_: str, a: Expr, b: Expr) -> Expr:
    return Binary(op=op_, a=a, b=b, dtype=BOOL)  # type: ignore[arg-type]
