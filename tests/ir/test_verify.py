"""Well-formed values pass; each way of being malformed is named."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.ir import handmade as h
from tridsl.dtypes import BOOL, F16, F32, F64, I32, I64
from tridsl.ir import loop
from tridsl.ir.expr import Binary, Boundary, Call, Const, Expr, Load, Select, Unary, Var, index
from tridsl.ir.op import Compact, Map, Op, Reduce, Target, Tensor
from tridsl.ir.verify import LOOPS, LOWERED, OP, SCHEDULED, Spec, describe, verify

i, j, k = (Var(name=f"C:{n}") for n in "ijk")


def load(name: str, *position: Expr, **more: object) -> Load:
    return Load(tensor=name, index=position, dtype=F32, **more)  # type: ignore[arg-type]


def accumulate(**changes: object) -> loop.Accumulate:
    product = Binary(op="mul", a=load("A", i, k), b=load("B", k, j), dtype=F32)
    value = loop.Accumulate(
        targets=(loop.Ref(tensor="C", index=(i, j)),), reducer=h.reducer("add", F32, 0), values=(product,), init=True
    )
    return replace(value, **changes)  # type: ignore[arg-type]


def matmul(statement: loop.Stmt | None = None, **loops: dict[str, object]) -> loop.Kernel:
    body: loop.Stmt = statement or accumulate()
    for name, extent, reduce in (("k", "K", True), ("j", "N", False), ("i", "M", False)):
        body = replace(
            loop.For(var=f"C:{name}", extent=Var(name=extent), body=(body,), reduce=reduce), **loops.get(name, {})
        )  # type: ignore[arg-type]
    return loop.Kernel(
        name="matmul", params=h.matmul().params, sizes=("M", "K", "N"), phases=(loop.Phase(name="C", body=(body,)),)
    )


def stored(value: Expr, mask: Expr | None = None) -> loop.Kernel:
    return matmul(loop.Store(target=loop.Ref(tensor="C", index=(i, j)), value=value, mask=mask))


def alloc(**more: object) -> loop.Kernel:
    buffer = loop.Buffer(name="t", dtype=F32, shape=(index(4),), space="reg")
    return matmul(loop.Alloc(buffer=replace(buffer, **more)))  # type: ignore[arg-type]


one, truth = h.const(1.0), Const(value=True, dtype=BOOL)
half = Load(tensor="h", index=(), dtype=F16)


def test_well_formed_values_pass() -> None:
    for op in (h.matmul(), h.attention(), h.stencil(Boundary(mode="edge"))):
        assert not verify(op, OP), describe(verify(op, OP))
    assert not verify(matmul(), LOOPS)
    assert not verify(matmul(), SCHEDULED)


@pytest.mark.parametrize(
    ("kernel", "message"),
    [
        (matmul(i={"var": "C:j"}), "bound twice"),
        (stored(Var(name="z", dtype=F32)), "z is not bound"),
        (stored(Var(name="M", dtype=F32)), "M is i64 and is read as f32"),
        (stored(load("Z", i)), "Z is used where it is not declared"),
        (stored(load("A", i)), "A has 2 axes and is used with 1"),
        (stored(load("A", i, Const(value=0, dtype=I32))), "A is indexed with the i32 0"),
        (stored(Load(tensor="A", index=(i, k), dtype=F64)), "A holds f32 and is read as f64"),
        (stored(load("A", i, k, mask=one, other=one)), "mask of a load 1 is f32"),
        (stored(load("A", i, k, mask=truth, other=Const(value=1, dtype=I32))), "load of f32 has the i32 1"),
        (stored(load("A", i, k, boundary=Boundary(mode="value"))), "without a value"),
        (stored(load("A", i, k, boundary=Boundary(mode="value", value=Const(value=1, dtype=I32)))), "padded with the i32"),
        (stored(Binary(op="add", a=one, b=h.const(1, I32), dtype=F32)), "operands of add are f32 and i32"),
        (stored(Binary(op="lt", a=one, b=one, dtype=F32)), "lt of f32 is marked f32"),
        (stored(Binary(op="div", a=i, b=j, dtype=I64)), "div is not for i64"),
        (stored(Binary(op="shl", a=one, b=one, dtype=F32)), "shl is not for f32"),
        (stored(Binary(op="mul", a=h.const(1.0, F16), b=h.const(1.0, F16), dtype=F16)), "mul is done in f16"),
        (stored(Unary(op="not", a=one, dtype=F32)), "not is not for f32"),
        (stored(Unary(op="neg", a=one, dtype=F64)), "neg of f32 is marked f64"),
        (stored(Select(condition=one, a=one, b=one, dtype=F32)), "condition of a choice 1 is f32"),
        (stored(Select(condition=truth, a=one, b=h.const(1.0, F64), dtype=F32)), "a choice of f32 is between f32 and f64"),
        (stored(Call(function="sinc", args=(one,), dtype=F32)), "no function sinc"),
        (stored(Call(function="exp", args=(one, one), dtype=F32)), "exp takes 1 arguments"),
        (stored(Call(function="exp", args=(i,), dtype=I64)), "exp is called with i64"),
        (stored(Call(function="isnan", args=(one,), dtype=F32)), "isnan is marked f32"),
        (stored(h.const(1.5, I32)), "the constant 1.5 is not a i32"),
        (stored(h.const(1 << 40, I32)), "is not a i32"),
        (stored(truth), "C of f32 is given the bool true"),
        (stored(one, mask=one), "mask of a store 1 is f32"),
        (matmul(loop.Store(target=loop.Ref(tensor="A", index=(i, k)), value=one)), "the input A is written"),
        (matmul(k={"reduce": False}), "C:k repeats an accumulation into C"),
        (matmul(j={"reduce": True}), "C is indexed with C:j, which is marked as reduced"),
        (matmul(accumulate(values=())), "1 targets and 0 values"),
        (matmul(accumulate(values=(h.const(1.0, F64),))), "sum combines f32 and is given the f64"),
        (matmul(accumulate(reducer=h.reducer("add", F64, 0), values=(h.const(1.0, F64),))), "sum combines f64 in C of f32"),
        (matmul(accumulate(reducer=replace(h.reducer("add", F32, 0), op="mul"))), "says it is mul and merges otherwise"),
        (matmul(accumulate(reducer=replace(h.reducer("add", F32, 0), identity=(h.const(0, I32),)))), "starts as i32"),
        (matmul(i={"kind": "vector"}, j={"kind": "vector"}), "C:j stands inside another"),
        (matmul(i={"kind": "vector"}, j={"kind": "parallel"}), "C:j stands inside lanes"),
        (matmul(i={"extent": index(9), "bound": 8}), "past its bound 8"),
        (matmul(i={"binding": "group.x"}), "the serial loop C:i is bound to group.x"),
        (matmul(i={"extent": one}), "the extent of C:i is f32"),
        (alloc(name="A"), "A is declared twice"),
        (alloc(shape=(Var(name="M"),)), "t in reg has an extent that is not constant"),
        (alloc(padded=(True, False)), "1 axes and 2 paddings"),
        (alloc(align=48), "aligned to 48"),
        (matmul(loop.Check(condition=truth, number=0)), "check 0 has no message"),
        (matmul(loop.If(condition=one, then=())), "the condition 1 is f32"),
        (matmul(loop.Barrier()), "outside a group"),
        (matmul(loop.Append(tensors=("C",), count=loop.Ref(tensor="C", index=(i, j)), values=(one,), keep=one)), "C is appended to and has 2 axes"),
        (matmul(loop.Copy(axes=(loop.CopyAxis(var="C:i", extent=index(1)),), target=loop.Ref(tensor="C", index=(i, j)), source=load("A", i, k))), "C:i is bound twice"),
        (matmul(loop.Copy(axes=(), target=loop.Ref(tensor="C", index=(i, j)), source=load("A", i, k), pad=truth)), "padded with the bool"),
        (matmul(loop.Mma(intrinsic="fma", axes=(("t:m", 0),), target=loop.Ref(tensor="C", index=(i, j)), a=load("A", i, k), b=load("B", k, j))), "fma has an empty axis"),
    ],
)  # fmt: skip
def test_malformed_kernels_are_named(kernel: loop.Kernel, message: str) -> None:
    found = verify(kernel, SCHEDULED) or verify(kernel, LOOPS)
    assert any(message in d.message for d in (*verify(kernel, SCHEDULED), *verify(kernel, LOOPS))), describe(found)


@pytest.mark.parametrize(
    ("kernel", "spec", "message"),
    [
        (matmul(i={"kind": "parallel"}), LOOPS, "naive loop C:i is parallel"),
        (stored(load("A", i, k, boundary=Boundary(mode="edge"))), SCHEDULED, "still has the boundary 'edge'"),
        (matmul(k={"kind": "parallel"}), SCHEDULED, "parallel loop C:k is reduced over"),
        (matmul(), LOWERED, "still starts from its identity implicitly"),
    ],
)
def test_each_stage_adds_its_own_rules(kernel: loop.Kernel, spec: Spec, message: str) -> None:
    assert any(message in d.message for d in verify(kernel, spec))


def test_a_buffer_is_in_scope_only_behind_its_declaration() -> None:
    declare = loop.Alloc(buffer=loop.Buffer(name="t", dtype=F32, shape=(), space="reg"))
    use = loop.Store(target=loop.Ref(tensor="t", index=()), value=one)
    kernel = matmul()
    assert not verify(replace(kernel, phases=(loop.Phase(name="C", body=(declare, use)),)), SCHEDULED)
    for body in ((use, declare), (loop.For(var="C:z", extent=index(1), body=(declare,)), use)):
        assert verify(replace(kernel, phases=(loop.Phase(name="C", body=body),)), SCHEDULED)


def rename(op: Op, **changes: object) -> Op:
    return replace(op, **changes)  # type: ignore[arg-type]


def broken_ops() -> list[tuple[Op, str]]:
    base, attention = h.matmul(), h.attention()
    reduce = base.stages[0]
    assert isinstance(reduce, Reduce)
    swapped = rename(attention, stages=(attention.stages[1], attention.stages[0], attention.stages[2]))
    compact = Compact(name="C", dtype=F32, along=h.axis("n", 3), value=one, keep=one, length="C.len")
    return [
        (swapped, "s is used where it is not declared"),
        (rename(base, stages=()), "the result C is never written"),
        (rename(base, stages=(replace(reduce, over=()),)), "reduces over nothing"),
        (rename(base, stages=(replace(reduce, over=(h.axis("i", "K"),)),)), "binds an index twice"),
        (
            rename(base, stages=(replace(reduce, targets=(Target(name="C", dtype=F32, axes=("i", "k")),)),)),
            "not all indices of the stage",
        ),
        (
            rename(base, stages=(replace(reduce, targets=(Target(name="C", dtype=F32, axes=("i",)),)),)),
            "C has 2 axes and is written with 1",
        ),
        (
            rename(base, stages=(replace(reduce, targets=(Target(name="A", dtype=F32, axes=("i", "j")),)),)),
            "writes the input A",
        ),
        (
            rename(base, stages=(replace(reduce, targets=(Target(name="D", dtype=F32, axes=("i", "j")),)),)),
            "writes D, which is not declared",
        ),
        (
            rename(base, stages=(Map(name="C", dtype=F32, axes=(h.axis("i", "M"), h.axis("j", "N")), value=truth),)),
            "C of f32 is given the bool",
        ),
        (
            rename(
                base,
                stages=(Map(name="C", dtype=F64, axes=(h.axis("i", "M"), h.axis("j", "N")), value=h.const(1.0, F64)),),
            ),
            "C is f32 and is written as f64",
        ),
        (rename(base, stages=(compact,)), "condition of a compaction"),
        (
            rename(
                base,
                params=(*base.params[:2], Tensor(name="C", dtype=F32, shape=(h.var("Q"), h.var("N")), role="output")),
            ),
            "Q is not bound",
        ),
    ]


@pytest.mark.parametrize(("op", "message"), broken_ops())
def test_malformed_ops_are_named(op: Op, message: str) -> None:
    assert any(message in d.message for d in verify(op, OP)), describe(verify(op, OP))


def test_the_naive_kernels_of_the_real_pass_are_well_formed() -> None:
    to_loops: Callable[[Op], loop.Kernel] = pytest.importorskip("tridsl.passes.to_loops").to_loops
    for op in (h.matmul(), h.attention(), h.stencil(Boundary(mode="wrap"))):
        assert not verify(to_loops(op), LOOPS), describe(verify(to_loops(op), LOOPS))
