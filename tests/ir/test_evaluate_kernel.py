"""The kernel oracle: right on naive kernels, exact about `init`, and able to catch what passes may get wrong."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tests.ir import handmade as h
from tests.schedule.programs import op_of
from tridsl.dtypes import BOOL, F16, F32, I8, I32, I64
from tridsl.ir import loop
from tridsl.ir.evaluate import KernelFault, evaluate_kernel, evaluate_op, infer_sizes
from tridsl.ir.expr import (
    Binary,
    Boundary,
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
from tridsl.ir.op import Param, Tensor
from tridsl.passes.to_loops import to_loops


def kernel(body: loop.Block, params: tuple[Param, ...], sizes: str = "", **more: object) -> loop.Kernel:
    return loop.Kernel(
        name="k", params=params, sizes=tuple(sizes.split()), phases=(loop.Phase(name="p", body=body),), **more
    )  # type: ignore[arg-type]


def ref(name: str, *position: Expr) -> loop.Ref:
    return loop.Ref(tensor=name, index=position)


def at(name: str, *position: Expr, **more: Expr) -> Load:
    return Load(tensor=name, index=position, dtype=F32, **more)


def store(name: str, *position: Expr, value: Expr, mask: Expr | None = None) -> loop.Store:
    return loop.Store(target=ref(name, *position), value=value, mask=mask)


def loop_over(name: str, extent: Expr | int, *body: loop.Stmt, **more: object) -> loop.For:
    return loop.For(var=name, extent=index(extent) if isinstance(extent, int) else extent, body=body, **more)  # type: ignore[arg-type]


def alloc(name: str, *shape: int, space: str = "l1", padded: tuple[bool, ...] = ()) -> loop.Alloc:
    return loop.Alloc(
        buffer=loop.Buffer(name=name, dtype=F32, shape=tuple(index(n) for n in shape), space=space, padded=padded)
    )  # type: ignore[arg-type]


i, j, k = (Var(name=f"C:{n}") for n in "ijk")
M, N, K = (Var(name=n) for n in "MNK")
x = np.arange(1, 9, dtype=np.float32)
X, Y = h.tensor("x", 8), h.tensor("y", 8, role="output")


def matmul(*loops: tuple[str, Expr, bool], init: bool = True) -> loop.Kernel:
    product = Binary(op="mul", a=at("A", i, k), b=at("B", k, j), dtype=F32)
    body: loop.Stmt = loop.Accumulate(
        targets=(ref("C", i, j),), reducer=h.reducer("add", F32, 0), values=(product,), init=init
    )
    for name, extent, reduce in reversed(loops):
        body = loop_over(name, extent, body, reduce=reduce)
    return kernel((body,), h.matmul().params, "M K N")


ORDERS = {
    "ijk": (("C:i", M, False), ("C:j", N, False), ("C:k", K, True)),
    "kij": (("C:k", K, True), ("C:i", M, False), ("C:j", N, False)),
    "ikj": (("C:i", M, False), ("C:k", K, True), ("C:j", N, False)),
}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("shape", [(3, 5, 4), (2, 0, 3), (0, 2, 2), (1, 1, 1)])
def test_init_comes_before_the_outermost_reduce_loop(order: str, shape: tuple[int, int, int]) -> None:
    m, kk, n = shape
    a, b = np.arange(m * kk, dtype=np.float32).reshape(m, kk), np.arange(kk * n, dtype=np.float32).reshape(kk, n)
    got = evaluate_kernel(matmul(*ORDERS[order]), {"A": a, "B": b}, {"M": m, "K": kk, "N": n})["C"]
    np.testing.assert_array_equal(got, a @ b)


def test_accumulating_without_a_start_is_caught() -> None:
    ones = np.ones((1, 1), np.float32)
    with pytest.raises(KernelFault, match=r"C\[0, 0\] is read but was never written"):
        evaluate_kernel(matmul(*ORDERS["ijk"], init=False), {"A": ones, "B": ones}, {"M": 1, "K": 1, "N": 1})


def test_init_of_an_inner_stage_belongs_to_its_own_loops() -> None:
    """y[i] = sum_t (sum_d x[d]) with the inner stage computed inside the outer reduction."""
    s, t, d = "s", Var(name="y:t"), Var(name="s:d")
    inner = loop_over(
        "s:d",
        8,
        loop.Accumulate(targets=(ref(s),), reducer=h.reducer("add", F32, 0), values=(at("x", d),), init=True),
        reduce=True,
    )
    outer = loop.Accumulate(
        targets=(ref("y", index(0)),),
        reducer=h.reducer("add", F32, 0),
        values=(Binary(op="mul", a=at(s), b=at("x", t), dtype=F32),),
        init=True,
    )
    body = loop_over("y:t", 8, alloc(s), inner, outer, reduce=True)
    got = evaluate_kernel(kernel((body,), (X, h.tensor("y", 1, role="output"))), {"x": x}, {})["y"]
    assert got.tolist() == [36 * 36]


def test_split_loops_with_tails_and_fused_order() -> None:
    tail = minimum(index(4), sub(N, mul(Var(name="C:i.o"), index(4))))
    position = add(mul(Var(name="C:i.o"), index(4)), Var(name="C:i.i"))
    body = loop_over(
        "C:i.o",
        ceildiv(N, index(4)),
        loop_over("C:i.i", tail, store("y", position, value=at("x", position)), kind="vector", bound=4),
        kind="parallel",
    )
    params = (h.tensor("x", "N"), h.tensor("y", "N", role="output"))
    for n in (0, 1, 4, 7, 8):
        np.testing.assert_array_equal(evaluate_kernel(kernel((body,), params, "N"), {"x": x[:n]}, {"N": n})["y"], x[:n])


def test_out_of_bounds_is_caught_on_both_sides() -> None:
    for shift in (1, -1):
        body = loop_over("C:i", 8, store("y", i, value=at("x", add(i, index(shift)))))
        with pytest.raises(KernelFault, match=r"x\[(8|-1)\] is outside"):
            evaluate_kernel(kernel((body,), (X, Y)), {"x": x}, {})
        body = loop_over("C:i", 8, store("y", add(i, index(shift)), value=at("x", i)))
        with pytest.raises(KernelFault, match=r"y\[(8|-1)\] is outside"):
            evaluate_kernel(kernel((body,), (X, Y)), {"x": x}, {})


@pytest.mark.parametrize("wrap", [
    lambda there, read: Select(condition=there, a=read, b=Const(value=0.0, dtype=F32), dtype=F32),
    lambda there, read: Select(condition=Unary(op="not", a=there, dtype=BOOL), a=Const(value=0.0, dtype=F32), b=read, dtype=F32),
    lambda there, read: Cast(a=Binary(op="and", a=there, b=binary("gt", read, Const(value=0.0, dtype=F32)), dtype=BOOL), dtype=F32),
    lambda there, read: at("x", index(0), mask=Binary(op="and", a=there, b=binary("gt", read, Const(value=0.0, dtype=F32)), dtype=BOOL)),
], ids=["then", "else", "and", "mask"])  # fmt: skip
def test_a_condition_is_no_mask(wrap: Callable[[Expr, Expr], Expr]) -> None:
    """Backends may evaluate what a condition does not choose: only a mask keeps a read from being made."""
    there = binary("lt", Var(name="i"), index(8))
    masked = at("x", Var(name="i"), mask=there, other=Const(value=0.0, dtype=F32))
    for read, legal in ((masked, True), (at("x", Var(name="i")), False)):
        k = kernel((loop_over("i", 9, store("y", Var(name="i"), value=wrap(there, read))),), (h.tensor("x", 8), h.tensor("y", 9, role="output")))
        if legal:
            evaluate_kernel(k, {"x": np.ones(8, np.float32)}, {})
            continue
        with pytest.raises(KernelFault, match=r"x\[8\] is outside"):
            evaluate_kernel(k, {"x": np.ones(8, np.float32)}, {})


def test_masked_access_touches_nothing() -> None:
    inside = binary("lt", add(i, index(1)), index(8))
    load = at("x", add(i, index(1)), mask=inside, other=Const(value=-1.0, dtype=F32))
    got = evaluate_kernel(kernel((loop_over("C:i", 8, store("y", i, value=load)),), (X, Y)), {"x": x}, {})["y"]
    np.testing.assert_array_equal(got, [*x[1:], -1])


def test_unwritten_outputs_and_buffers_are_caught() -> None:
    with pytest.raises(KernelFault, match="element 7 of y"):
        evaluate_kernel(kernel((loop_over("C:i", 7, store("y", i, value=at("x", i))),), (X, Y)), {"x": x}, {})
    body = loop_over("C:i", 8, alloc("b", 8), store("y", i, value=at("b", i)))
    with pytest.raises(KernelFault, match=r"b\[0\] is read but was never written"):
        evaluate_kernel(kernel((body,), (X, Y)), {"x": x}, {})


def test_padded_buffers_may_be_computed_with_but_not_stored_from() -> None:
    fill = loop_over("C:i", 8, store("b", i, value=at("x", i), mask=binary("lt", i, index(6))))
    double = loop_over(
        "C:j",
        8,
        store(
            "b",
            j,
            value=Binary(op="max", a=Binary(op="add", a=at("b", j), b=at("b", j), dtype=F32), b=at("x", j), dtype=F32),
        ),
    )
    for valid in (6, 8):
        out = loop_over("C:k", valid, store("y", k, value=at("b", k)))
        rest = loop_over("C:r", 8 - valid, store("y", add(Var(name="C:r"), index(valid)), value=h.const(0.0)))
        body = (alloc("b", 8, padded=(True,)), fill, double, out, rest)
        if valid == 6:
            np.testing.assert_array_equal(
                evaluate_kernel(kernel(body, (X, Y)), {"x": x}, {})["y"], [*(2 * x[:6]), 0, 0]
            )
        else:
            with pytest.raises(KernelFault, match="never written is stored to y"):
                evaluate_kernel(kernel(body, (X, Y)), {"x": x}, {})


@pytest.mark.parametrize("kind", ["parallel", "group", "column"])
def test_races_are_caught(kind: str) -> None:
    same = loop_over("C:i", 8, store("y", index(0), value=at("x", i)), kind=kind)
    with pytest.raises(KernelFault, match="written by two iterations"):
        evaluate_kernel(kernel((same,), (X, h.tensor("y", 1, role="output"))), {"x": x}, {})
    assert (
        evaluate_kernel(kernel((same,), (X, h.tensor("y", 1, role="output"))), {"x": x}, {}, check_races=False)["y"]
        == 8
    )
    neighbour = at("y", sub(i, index(1)), mask=binary("gt", i, index(0)), other=h.const(0.0))
    carried = loop_over(
        "C:i", 8, store("y", i, value=Binary(op="add", a=neighbour, b=at("x", i), dtype=F32)), kind=kind
    )
    with pytest.raises(KernelFault, match="read by one iteration"):
        evaluate_kernel(kernel((carried,), (X, Y)), {"x": x}, {})


def test_what_follows_a_parallel_loop_may_touch_the_same_elements() -> None:
    twice = tuple(
        loop_over(
            f"C:i{n}",
            8,
            loop_over(f"C:j{n}", 3, store("y", Var(name=f"C:i{n}"), value=at("x", Var(name=f"C:i{n}")))),
            kind="parallel",
        )
        for n in range(2)
    )
    np.testing.assert_array_equal(evaluate_kernel(kernel(twice, (X, Y)), {"x": x}, {})["y"], x)


def test_lanes_wait_for_each_other_at_barriers() -> None:
    """Each lane reads what its neighbour wrote before the barrier."""
    lane = Var(name="C:l")
    before = store("b", lane, value=at("x", lane))
    after = store("y", lane, value=at("b", binary("mod", add(lane, index(1)), index(8))))
    for barrier in ((loop.Barrier(),), ()):
        body = loop_over(
            "C:g",
            1,
            alloc("b", 8, space="shared"),
            loop_over("C:l", 8, before, *barrier, after, kind="lane", binding="lane.x"),
            kind="group",
            binding="group.x",
        )
        if barrier:
            np.testing.assert_array_equal(evaluate_kernel(kernel((body,), (X, Y)), {"x": x}, {})["y"], np.roll(x, -1))
        else:
            with pytest.raises(KernelFault, match="never written"):
                evaluate_kernel(kernel((body,), (X, Y)), {"x": x}, {})


def test_barriers_across_subgroups_and_within_them() -> None:
    warp, lane = Var(name="C:w"), Var(name="C:l")
    me = add(mul(warp, index(2)), lane)
    body = (
        alloc("b", 8, space="shared"),
        loop_over("C:w", 4, loop_over("C:l", 2, store("b", me, value=at("x", me)), loop.Barrier(scope="subgroup"), loop.Barrier(), store("y", me, value=at("b", sub(index(7), me))), kind="lane"), kind="subgroup"),
    )  # fmt: skip
    np.testing.assert_array_equal(evaluate_kernel(kernel(body, (X, Y)), {"x": x}, {})["y"], x[::-1])


def test_divergent_barriers_are_caught() -> None:
    lane = Var(name="C:l")
    body = loop_over(
        "C:l",
        8,
        loop.If(condition=binary("lt", lane, index(4)), then=(loop.Barrier(),)),
        store("y", lane, value=at("x", lane)),
        kind="lane",
    )
    with pytest.raises(KernelFault, match="not all lanes"):
        evaluate_kernel(kernel((body,), (X, Y)), {"x": x}, {})


def test_cooperative_copy_pads_and_is_seen_by_all_lanes() -> None:
    lane, c = Var(name="C:l"), Var(name="b:c")
    copy = loop.Copy(
        axes=(loop.CopyAxis(var="b:c", extent=index(5), bound=8),),
        target=ref("b", c),
        source=at("x", c),
        pad=h.const(-7.0),
        cooperative=True,
    )
    body = loop_over(
        "C:g",
        1,
        alloc("b", 8),
        loop_over("C:l", 8, copy, store("y", lane, value=at("b", sub(index(7), lane))), kind="lane"),
        kind="group",
    )
    np.testing.assert_array_equal(evaluate_kernel(kernel((body,), (X, Y)), {"x": x}, {})["y"], [-7, -7, -7, *x[4::-1]])


def test_copy_may_transpose_and_without_pad_leaves_the_rest() -> None:
    a, b = Var(name="t:a"), Var(name="t:b")
    copy = loop.Copy(
        axes=(loop.CopyAxis(var="t:a", extent=index(2), bound=4), loop.CopyAxis(var="t:b", extent=index(4))),
        target=ref("t", b, a),
        source=at("x", add(mul(a, index(4)), b)),
    )
    read = loop_over(
        "C:i", 8, store("y", i, value=at("t", binary("mod", i, index(4)), binary("floordiv", i, index(4))))
    )
    body = (alloc("t", 4, 4), copy, read)
    np.testing.assert_array_equal(evaluate_kernel(kernel(body, (X, Y)), {"x": x}, {})["y"], x)


def test_mma_widens_and_adds_in_the_accumulator() -> None:
    m, n, d = (Var(name=f"t:{c}") for c in "mnd")
    a, b = np.array([[-128, 127], [1, 2]], np.int8), np.array([[-128, 3], [127, 4]], np.int8)
    mma = loop.Mma(
        intrinsic="vpdpbssd", axes=(("t:m", 2), ("t:n", 2), ("t:d", 2)), target=ref("C", m, n),
        a=Load(tensor="A", index=(m, d), dtype=I8), b=Load(tensor="B", index=(d, n), dtype=I8),
    )  # fmt: skip
    params = (
        h.tensor("A", 2, 2, dtype=I8),
        h.tensor("B", 2, 2, dtype=I8),
        h.tensor("C", 2, 2, dtype=I32, role="inout"),
    )
    start = np.full((2, 2), 2**31 - 1, np.int32)
    want = (start.astype(np.int64) + a.astype(np.int64) @ b.astype(np.int64)).astype(np.int32)
    np.testing.assert_array_equal(evaluate_kernel(kernel((mma,), params), {"A": a, "B": b, "C": start}, {})["C"], want)


def test_append_counts_and_leaves_the_tail_unspecified() -> None:
    y = Tensor(name="y", dtype=F32, shape=(index(8),), role="output", length="y.len")
    length = h.tensor("y.len", dtype=I64, role="output")
    append = loop.Append(tensors=("y",), count=ref("y.len"), values=(at("x", i),), keep=binary("gt", at("x", i), h.const(5.0)))
    body = (loop.Store(target=ref("y.len"), value=index(0)), loop_over("C:i", 8, append, carried=True))
    got = evaluate_kernel(kernel(body, (X, y, length)), {"x": x}, {})
    assert got["y.len"] == 3 and got["y"][:3].tolist() == [6, 7, 8]


def test_checks_fail_after_the_kernel() -> None:
    body = loop_over(
        "C:i", 8, loop.Check(condition=binary("lt", i, index(5)), number=1), store("y", i, value=at("x", i))
    )
    with pytest.raises(IndexError, match="second"):
        evaluate_kernel(kernel((body,), (X, Y), messages=("first", "second")), {"x": x}, {})


@pytest.mark.parametrize("mode", ["edge", "reflect", "symmetric", "wrap", "value"])
@pytest.mark.parametrize("length", [1, 2, 5])
def test_boundaries_agree_with_the_op_oracle(mode: str, length: int) -> None:
    boundary = Boundary(mode=mode, value=h.const(-5.0) if mode == "value" else None)  # type: ignore[arg-type]
    op = h.stencil(boundary)
    n, d = Var(name="y:n"), Var(name="y:d")
    load = at("x", add(add(n, d), index(-3)), boundary=boundary)  # type: ignore[arg-type]
    body = loop_over("y:n", N, loop_over("y:d", 7, store("y", n, d, value=load)))
    arguments = {"x": x[:length]}
    want = evaluate_op(op, arguments, {"N": length})["y"]
    np.testing.assert_array_equal(evaluate_kernel(kernel((body,), op.params, "N"), arguments, {"N": length})["y"], want)


def test_half_stores_round_and_loads_are_wide() -> None:
    hx, hy = h.tensor("x", 8, dtype=F16), h.tensor("y", 8, dtype=F16, role="output")
    load = Cast(a=Load(tensor="x", index=(i,), dtype=F16), dtype=F32)
    body = loop_over("C:i", 8, store("y", i, value=Binary(op="div", a=load, b=h.const(3.0), dtype=F32)))
    data = x.astype(np.float16)
    want = (data.astype(np.float32) / np.float32(3)).astype(np.float16)
    np.testing.assert_array_equal(evaluate_kernel(kernel((body,), (hx, hy)), {"x": data}, {})["y"], want)


def test_deep_nests_and_long_expressions() -> None:
    value: Expr = at("x", i)
    for _ in range(250):
        value = Binary(op="add", a=value, b=h.const(1.0), dtype=F32)
    body: loop.Stmt = loop_over("C:i", 8, store("y", i, value=value))
    for n in range(30):
        body = loop_over(f"C:z{n}", 1, body)
    np.testing.assert_array_equal(evaluate_kernel(kernel((body,), (X, Y)), {"x": x}, {})["y"], x + 250)


def test_naive_kernels_of_the_real_pass_agree_with_the_op_oracle() -> None:
    to_loops = pytest.importorskip("tridsl.passes.to_loops", reason="passes are not there").to_loops
    rng = np.random.default_rng(7)
    for op, shapes in (
        (h.matmul(), {"A": (5, 7), "B": (7, 3)}),
        (h.attention(), {"Q": (3, 4), "K": (5, 4), "V": (5, 2)}),
    ):
        arguments = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
        sizes = infer_sizes(op, arguments)
        got, want = evaluate_kernel(to_loops(op), arguments, sizes), evaluate_op(op, arguments, sizes)
        for name in want:
            np.testing.assert_allclose(got[name], want[name], rtol=1e-5, atol=1e-6)


WIDE_STATES = """monoid spread(x: i64) -> i64 {
  state low: i64 = 0, high: i64 = 0
  lift {
    low  = x
    high = x * 3
  }
  merge a, b {
    low  = a.low + b.low
    high = a.high + b.high
  }
  result low // 7 + high // 7
}
op f(x: i64[N]) -> y: i64 { y = spread[n](x[n]) }
"""


def test_states_of_a_monoid_wrap() -> None:
    """They are numbers of i64, not indices, which never leave it."""
    op = op_of(WIDE_STATES)
    given = {"x": np.full(5, (1 << 62) + 12345, np.int64)}
    with np.errstate(over="ignore"):
        want = given["x"].sum() // 7 + (given["x"] * 3).sum() // 7
    assert evaluate_op(op, given, {"N": 5})["y"] == want
    assert evaluate_kernel(to_loops(op), given, {"N": 5})["y"] == want
