"""Kernels as schedule application makes them, written by hand: nothing here depends on passes or schedules."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from tridsl.dtypes import BOOL, F32, DType, compute_type
from tridsl.ir.expr import Binary, Call, Cast, Const, Expr, Load, Var, add, ceildiv, index, minimum, mul, sub
from tridsl.ir.loop import Accumulate, Alloc, Block, Buffer, Copy, CopyAxis, For, Kernel, Phase, Ref, Stmt, Store
from tridsl.ir.op import Param, Reducer, Role, Tensor
from tridsl.ir.walk import rewrite


def var(name: str) -> Var:
    return Var(name=name)


def tensor(name: str, dtype: DType, *shape: int | Expr, role: Role = "input") -> Tensor:
    return Tensor(name=name, dtype=dtype, shape=tuple(index(s) if isinstance(s, int) else s for s in shape), role=role)


def load(name: str, dtype: DType, *at: Expr, mask: Expr | None = None, other: Expr | None = None) -> Expr:
    """A read in the compute type."""
    element = Load(tensor=name, index=at, dtype=dtype, mask=mask, other=other)
    return element if compute_type(dtype) == dtype else Cast(a=element, dtype=compute_type(dtype))


def store(name: str, value: Expr, *at: Expr, mask: Expr | None = None) -> Store:
    return Store(target=Ref(tensor=name, index=at), value=value, mask=mask)


def reg(name: str, dtype: DType, *shape: int) -> Alloc:
    return Alloc(buffer=Buffer(name=name, dtype=dtype, shape=tuple(index(s) for s in shape), space="reg"))


def shared(name: str, dtype: DType, *shape: int) -> Alloc:
    return Alloc(buffer=Buffer(name=name, dtype=dtype, shape=tuple(index(s) for s in shape), space="shared"))


def group(name: str, extent: Expr, *body: Stmt, axis: str = "x") -> For:
    return For(var=name, extent=extent, body=body, kind="group", binding=f"group.{axis}")


def lane(name: str, extent: Expr, *body: Stmt, axis: str = "x", bound: int | None = None) -> For:
    return For(var=name, extent=extent, body=body, kind="lane", binding=f"lane.{axis}", bound=bound)


def serial(
    name: str, extent: Expr, *body: Stmt, bound: int | None = None, unroll: bool = False, reduce: bool = False
) -> For:
    return For(var=name, extent=extent, body=body, kind="unroll" if unroll else "serial", bound=bound, reduce=reduce)


def reducer(op: str, dtype: DType, identity: float) -> Reducer:
    """A one-state builtin."""
    a, b = Var(name="a.s", dtype=dtype), Var(name="b.s", dtype=dtype)
    return Reducer(
        name=op,
        states=("s",),
        dtypes=(dtype,),
        identity=(Const(value=identity, dtype=dtype),),
        merge=(Binary(op=op, a=a, b=b, dtype=dtype),),
        op=op,
    )


SUM = reducer("add", F32, 0.0)
MAX = reducer("max", F32, float("-inf"))


def accumulate(name: str, with_reducer: Reducer, value: Expr, *at: Expr) -> Accumulate:
    return Accumulate(targets=(Ref(tensor=name, index=at),), reducer=with_reducer, values=(value,))


def kernel(name: str, params: tuple[Param, ...], *body: Stmt, sizes: tuple[str, ...] = ()) -> Kernel:
    return Kernel(name=name, params=params, sizes=sizes, phases=(Phase(name=name, body=body),))


def elementwise(
    size: Expr, types: tuple[DType, ...], outs: DType | tuple[DType, ...], function: Callable[..., Any], lanes: int = 64
) -> Kernel:
    """`y[i] = function(x0[i], x1[i], …)`, or `y0, y1, … = …` for several `outs`; a workgroup has `lanes` lanes."""
    several = outs if isinstance(outs, tuple) else (outs,)
    names = [f"y{n}" for n in range(len(several))] if isinstance(outs, tuple) else ["y"]
    position = add(mul(var("y:i.o"), index(lanes)), var("y:i.i"))
    found = function(*(load(f"x{n}", dtype, position) for n, dtype in enumerate(types)))
    stores = [
        store(name, value, position) for name, value in zip(names, found if isinstance(outs, tuple) else (found,))
    ]
    rest = minimum(index(lanes), sub(size, mul(var("y:i.o"), index(lanes))))
    nest = group("y:i.o", ceildiv(size, index(lanes)), lane("y:i.i", rest, *stores, bound=lanes))
    inputs = (tensor(f"x{n}", dtype, size) for n, dtype in enumerate(types))
    outputs = (tensor(name, dtype, size, role="output") for name, dtype in zip(names, several))
    return kernel("elementwise", (*inputs, *outputs), nest, sizes=_symbols(size))


def call(function: str, *args: Expr) -> Call:
    return Call(function=function, args=args, dtype=BOOL if function in ("isnan", "isinf") else args[0].dtype)


def matmul(m: Expr, n: Expr, k: Expr, dtype: DType = F32, acc: DType = F32, tile: int = 64, depth: int = 16) -> Kernel:
    """C = A @ B: `tile` x `tile` of C a workgroup, 4 x 4 a lane, `tile` x `depth` of A and `depth` x `tile` of B staged."""
    lanes = tile // 4
    group_row, group_column, chunk = (
        mul(var(v), index(s)) for v, s in (("C:i.o", tile), ("C:j.o", tile), ("C:k.o", depth))
    )
    lane_row, lane_column = mul(var("C:i.i.o"), index(4)), mul(var("C:j.i.o"), index(4))
    rows_left, columns_left, depth_left = sub(m, group_row), sub(n, group_column), sub(k, chunk)
    nothing = 0 if acc.is_integer else 0.0
    r, c, inner = var("C:i.i.i"), var("C:j.i.i"), var("C:k.i")

    def staged(source: str, first: tuple[str, Expr, int, Expr], second: tuple[str, Expr, int, Expr]) -> Copy:
        rows = [(var(f"{source}:{name}"), left, bound, start) for name, left, bound, start in (first, second)]
        return Copy(
            axes=tuple(
                CopyAxis(var=v.name, extent=minimum(index(bound), left), bound=bound) for v, left, bound, _ in rows
            ),
            target=Ref(tensor=f"{source}.s", index=tuple(v for v, _, _, _ in rows)),
            source=Load(tensor=source, index=tuple(add(start, v) for v, _, _, start in rows), dtype=dtype),
            pad=Const(value=0 if dtype.is_integer else 0.0, dtype=compute_type(dtype)),
            cooperative=True,
        )

    def register_tile(rows: Expr, columns: Expr, body: Stmt, unroll: bool = True) -> For:
        return serial(r.name, rows, serial(c.name, columns, body, bound=4, unroll=unroll), bound=4, unroll=unroll)

    def operand(name: str, *at: Expr) -> Expr:
        value = load(name, dtype, *at)
        return value if value.dtype == acc else Cast(a=value, dtype=acc)

    row, column = add(lane_row, r), add(lane_column, c)
    product = Binary(op="mul", a=operand("A.s", row, inner), b=operand("B.s", inner, column), dtype=acc)
    four = index(4)
    body: Block = (
        reg("acc", acc, 4, 4),
        register_tile(four, four, store("acc", Const(value=nothing, dtype=acc), r, c)),
        serial(
            "C:k.o",
            ceildiv(k, index(depth)),
            staged("A", ("i", rows_left, tile, group_row), ("k", depth_left, depth, chunk)),
            staged("B", ("k", depth_left, depth, chunk), ("j", columns_left, tile, group_column)),
            serial(
                "C:k.i",
                index(depth),
                register_tile(four, four, accumulate("acc", reducer("add", acc, nothing), product, r, c)),
                reduce=True,
            ),
            reduce=True,
        ),
        register_tile(
            minimum(four, sub(rows_left, lane_row)),
            minimum(four, sub(columns_left, lane_column)),
            store("C", Load(tensor="acc", index=(r, c), dtype=acc), add(group_row, row), add(group_column, column)),
            unroll=False,
        ),
    )
    columns = lane("C:j.i.o", minimum(index(lanes), ceildiv(columns_left, four)), *body, bound=lanes)
    rows = lane("C:i.i.o", minimum(index(lanes), ceildiv(rows_left, four)), columns, axis="y", bound=lanes)
    tiles = group(
        "C:j.o", ceildiv(n, index(tile)), shared("A.s", dtype, tile, depth), shared("B.s", dtype, depth, tile), rows
    )
    params = (tensor("A", dtype, m, k), tensor("B", dtype, k, n), tensor("C", acc, m, n, role="output"))
    nest = group("C:i.o", ceildiv(m, index(tile)), tiles, axis="y")
    return kernel("matmul", params, nest, sizes=_symbols(m, n, k))


def softmax(rows: Expr, columns: Expr, lanes: int = 128, chunked: bool = False) -> Kernel:
    """y[r] = softmax(x[r]): a row a workgroup. Each lane makes a partial result that lanes then combine; `chunked`: lanes
    combine once for every `lanes` elements instead."""
    r = var("y:r")

    def over_row(stage: str, body: Callable[[Expr], Stmt], partial: tuple[str, Reducer] | None) -> For:
        outer, inner = var(f"{stage}:n.o"), var(f"{stage}:n.i")
        at = add(mul(outer, index(lanes)), inner)
        if chunked:
            rest = minimum(index(lanes), sub(columns, mul(outer, index(lanes))))
            return serial(outer.name, ceildiv(columns, index(lanes)), lane(inner.name, rest, body(at), bound=lanes))
        walk_row = serial(outer.name, ceildiv(sub(columns, inner), index(lanes)), body(at))
        if partial is None:
            return lane(inner.name, index(lanes), walk_row)
        name, with_reducer = partial
        own = f"{name}.p"
        return lane(
            inner.name,
            index(lanes),
            reg(own, F32),
            store(own, with_reducer.identity[0]),
            substitute_target(walk_row, name, own),
            accumulate(name, with_reducer, Load(tensor=own, index=(), dtype=F32)),
        )

    def exponential(at: Expr) -> Expr:
        x = Load(tensor="x", index=(r, at), dtype=F32)
        return call("exp", Binary(op="sub", a=x, b=Load(tensor="m", index=(), dtype=F32), dtype=F32))

    total = Load(tensor="s", index=(), dtype=F32)
    body: Block = (
        reg("m", F32),
        reg("s", F32),
        store("m", MAX.identity[0]),
        over_row("m", lambda at: accumulate("m", MAX, Load(tensor="x", index=(r, at), dtype=F32)), ("m", MAX)),
        store("s", SUM.identity[0]),
        over_row("s", lambda at: accumulate("s", SUM, exponential(at)), ("s", SUM)),
        over_row("y", lambda at: store("y", Binary(op="div", a=exponential(at), b=total, dtype=F32), r, at), None),
    )
    params = (tensor("x", F32, rows, columns), tensor("y", F32, rows, columns, role="output"))
    return kernel("softmax", params, group("y:r", rows, *body), sizes=_symbols(rows, columns))


def substitute_target(loop: For, old: str, new: str) -> For:
    """`loop` with its accumulations into `old` going into `new`."""

    def turn(statement: Accumulate) -> Accumulate:
        targets = tuple(Ref(tensor=new if t.tensor == old else t.tensor, index=t.index) for t in statement.targets)
        return replace(statement, targets=targets)

    return rewrite(loop, {Accumulate: turn})


def _symbols(*sizes: Expr) -> tuple[str, ...]:
    return tuple(size.name for size in sizes if isinstance(size, Var))
