"""The oracle against formulas written in NumPy."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from tests.ir import handmade as h
from tridsl.dtypes import BF16, F16, F32, F64, I8, I32, I64
from tridsl.ir.evaluate_op import evaluate_op, infer_sizes
from tridsl.ir.expr import Boundary, Cast, Load, Var
from tridsl.ir.op import Compact, Contract, Map, Op, Reduce, Scan, Target, Tensor, TopK


def run(op: Op, exact: bool = False, **arguments: np.ndarray) -> dict[str, np.ndarray]:
    return evaluate_op(op, arguments, infer_sizes(op, arguments), exact=exact)


@pytest.mark.parametrize("shape", [(3, 5, 7), (1, 1, 1), (0, 4, 3), (3, 0, 5), (64, 300, 130)])
def test_matmul_f32_is_within_the_bound_of_any_order(shape: tuple[int, int, int]) -> None:
    m, k, n = shape
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(m, k)).astype(np.float32), rng.normal(size=(k, n)).astype(np.float32)
    got = run(h.matmul(), A=a, B=b)["C"]
    want = a.astype(np.float64) @ b.astype(np.float64)
    assert got.dtype == np.float32 and got.shape == (m, n)
    assert (np.abs(got - want) <= 2 * max(1, k) * 2.0**-24 * (np.abs(a).astype(np.float64) @ np.abs(b)) + 1e-40).all()
    np.testing.assert_allclose(run(h.matmul(), exact=True, A=a, B=b)["C"], want, rtol=1e-12, atol=1e-12)


def test_integer_matmul_wraps_exactly() -> None:
    a = np.full((3, 140_000), -128, np.int8)
    b = np.full((140_000, 2), -128, np.int8)
    want = (a.astype(np.int64) @ b.astype(np.int64)).astype(np.int32)
    assert want[0, 0] < 0, "the sum must overflow"
    np.testing.assert_array_equal(run(h.matmul(I8, I32), A=a, B=b)["C"], want)


@pytest.mark.parametrize("dtype", [F16, BF16])
def test_narrow_floats_round_once_at_the_store(dtype: object) -> None:
    numpy_type = {F16: np.float16, BF16: ml_dtypes.bfloat16}[dtype]  # type: ignore[index]
    x = np.linspace(-3, 3, 101).astype(numpy_type)
    value = h.arithmetic("mul", h.arithmetic("mul", h.load("x", "n", dtype=dtype), h.const(1 / 3)), h.const(3.0))  # type: ignore[arg-type]
    op = h.op(
        "f",
        (h.tensor("x", "N", dtype=dtype), h.tensor("y", "N", dtype=dtype, role="output")),
        (Map(name="y", dtype=dtype, axes=(h.axis("n", "N"),), value=value),),
        "N",
    )  # type: ignore[arg-type]
    want = (x.astype(np.float32) * np.float32(1 / 3) * np.float32(3)).astype(numpy_type)
    np.testing.assert_array_equal(run(op, x=x)["y"], want)


@pytest.mark.parametrize("length", [1, 2, 3, 7])
@pytest.mark.parametrize("mode", ["edge", "reflect", "symmetric", "wrap", "constant"])
def test_boundaries_are_numpys(mode: str, length: int) -> None:
    x = np.arange(1, length + 1, dtype=np.float32)
    boundary = Boundary(mode="value", value=h.const(-5.0)) if mode == "constant" else Boundary(mode=mode)  # type: ignore[arg-type]
    padded = np.pad(x, 3, mode=mode, **({"constant_values": -5} if mode == "constant" else {}))  # type: ignore[call-overload]
    want = np.lib.stride_tricks.sliding_window_view(padded, 7)
    np.testing.assert_array_equal(run(h.stencil(boundary), x=x)["y"], want)


def gather(boundary: Boundary | None) -> Op:
    row = Cast(a=h.load("ids", "n", dtype=I32), dtype=I64)
    value = Load(tensor="T", index=(row, Var(name="d")), dtype=F32, boundary=boundary)
    params = (h.tensor("T", "V", "D"), h.tensor("ids", "N", dtype=I32), h.tensor("E", "N", "D", role="output"))
    return h.op(
        "gather", params, (Map(name="E", dtype=F32, axes=(h.axis("n", "N"), h.axis("d", "D")), value=value),), "V D N"
    )


def test_gather_raises_or_pads() -> None:
    table = np.arange(12, dtype=np.float32).reshape(4, 3)
    inside, outside = np.array([3, 0], np.int32), np.array([3, -1], np.int32)
    np.testing.assert_array_equal(run(gather(Boundary(mode="raise")), T=table, ids=inside)["E"], table[inside])
    with pytest.raises(IndexError, match="`T` is outside its shape"):
        run(gather(Boundary(mode="raise")), T=table, ids=outside)
    padded = run(gather(Boundary(mode="value", value=h.const(9.0))), T=table, ids=outside)["E"]
    np.testing.assert_array_equal(padded, [[9, 10, 11], [9, 9, 9]])
    with pytest.raises(IndexError, match="not well formed"):
        run(gather(None), T=table, ids=outside)


def test_monoid_with_hoisted_states_is_softmax_attention() -> None:
    rng = np.random.default_rng(2)
    q, k, v = (rng.normal(size=s).astype(np.float32) for s in ((5, 8), (37, 8), (37, 3)))
    s = q.astype(np.float64) @ k.T.astype(np.float64)
    p = np.exp(s - s.max(axis=1, keepdims=True))
    want = p / p.sum(axis=1, keepdims=True) @ v
    np.testing.assert_allclose(run(h.attention(), Q=q, K=k, V=v)["O"], want, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(run(h.attention(), exact=True, Q=q, K=k, V=v)["O"], want, rtol=1e-12)


def argmax_op() -> Op:
    reduce = Reduce(
        name="a", targets=(Target(name="v", dtype=F32, axes=("r",)), Target(name="i", dtype=I32, axes=("r",))), axes=(h.axis("r", "R"),), over=(h.axis("n", "N"),),
        reducer=h.argmax(), values=(h.load("x", "r", "n"), Cast(a=h.var("n"), dtype=I32)),
    )  # fmt: skip
    return h.op(
        "argmax",
        (h.tensor("x", "R", "N"), h.tensor("v", "R", role="output"), h.tensor("i", "R", dtype=I32, role="output")),
        (reduce,),
        "R N",
    )


@pytest.mark.parametrize("length", [1, 2, 3, 64, 1001])
def test_two_state_reducer(length: int) -> None:
    x = np.random.default_rng(3).integers(0, 9, (4, length)).astype(np.float32)
    got = run(argmax_op(), x=x)
    np.testing.assert_array_equal(got["i"], x.argmax(axis=1))
    np.testing.assert_array_equal(got["v"], x.max(axis=1))


@pytest.mark.parametrize("exclusive", [False, True])
@pytest.mark.parametrize("length", [0, 1, 5, 33])
def test_scan(exclusive: bool, length: int) -> None:
    x = np.random.default_rng(4).integers(-(2**31), 2**31, (3, length)).astype(np.int32)
    scan = Scan(
        name="y", targets=(Target(name="y", dtype=I32, axes=("r", "n")),), axes=(h.axis("r", "R"),), along=h.axis("n", "N"),
        reducer=h.reducer("add", I32, 0), values=(h.load("x", "r", "n", dtype=I32),), exclusive=exclusive,
    )  # fmt: skip
    op = h.op(
        "cumsum",
        (h.tensor("x", "R", "N", dtype=I32), h.tensor("y", "R", "N", dtype=I32, role="output")),
        (scan,),
        "R N",
    )
    want = np.cumsum(x, axis=1, dtype=np.int32)
    if exclusive:
        want = np.concatenate([np.zeros((3, 1), np.int32), want], axis=1)[:, :length]
    np.testing.assert_array_equal(run(op, x=x)["y"], want)


@pytest.mark.parametrize("length", [1, 2, 5, 64])
@pytest.mark.parametrize("exclusive", [False, True])
def test_scan_of_a_monoid(length: int, exclusive: bool) -> None:
    x = np.random.default_rng(4).integers(0, 5, length).astype(np.float32)
    targets = (Target(name="v", dtype=F32, axes=("n",)), Target(name="i", dtype=I32, axes=("n",)))
    scan = Scan(
        name="a",
        targets=targets,
        axes=(),
        along=h.axis("n", "N"),
        reducer=h.argmax(),
        values=(h.load("x", "n"), Cast(a=h.var("n"), dtype=I32)),
        exclusive=exclusive,
    )
    op = h.op(
        "running",
        (h.tensor("x", "N"), h.tensor("v", "N", role="output"), h.tensor("i", "N", dtype=I32, role="output")),
        (scan,),
        "N",
    )
    heads = [x[: n + (not exclusive)] for n in range(length)]
    np.testing.assert_array_equal(run(op, x=x)["i"], [head.argmax() if len(head) else 0 for head in heads])
    np.testing.assert_array_equal(run(op, x=x)["v"], [head.max() if len(head) else -np.inf for head in heads])


def test_compact_drops_nan_and_keeps_order() -> None:
    keep = h.compare("ge", h.load("x", "n"), h.const(0.0))
    y = Tensor(name="y", dtype=F32, shape=(h.var("N"),), role="output", length="y.len")
    total = Reduce(
        name="s", targets=(Target(name="s", dtype=F32, axes=()),), axes=(), over=(h.axis("j", Load(tensor="y.len", index=(), dtype=I64)),),
        reducer=h.reducer("add", F32, 0), values=(h.load("y", "j"),),
    )  # fmt: skip
    compact = Compact(name="y", dtype=F32, along=h.axis("n", "N"), value=h.load("x", "n"), keep=keep, length="y.len")
    op = h.op("above", (h.tensor("x", "N"), y, h.tensor("s", role="output")), (compact, total), "N")
    got = run(op, x=np.array([1, -1, np.nan, 0, 5], np.float32))
    assert got["y.len"] == 3
    np.testing.assert_array_equal(got["y"], [1, 0, 5, 0, 0])
    assert got["s"] == 6


@pytest.mark.parametrize("count", [0, 1, 3, 6])
def test_topk_descends_breaks_ties_by_index_and_puts_nan_first(count: int) -> None:
    top = TopK(
        name="t", values=Target(name="v", dtype=F32, axes=()), indices=Target(name="i", dtype=I32, axes=()), axes=(), along=h.axis("n", "N"),
        k=h.index(count), value=h.load("x", "n"),
    )  # fmt: skip
    op = h.op(
        "best",
        (h.tensor("x", "N"), h.tensor("v", count, role="output"), h.tensor("i", count, dtype=I32, role="output")),
        (top,),
        "N",
    )
    got = run(op, x=np.array([1, 3, np.nan, 3, -np.inf, 0], np.float32))
    np.testing.assert_array_equal(got["i"], [2, 1, 3, 0, 5, 4][:count])
    np.testing.assert_array_equal(got["v"], np.array([np.nan, 3, 3, 1, 0, -np.inf], np.float32)[:count])


def test_ordered_sum_is_sequential() -> None:
    x = np.array([1e8, 1.0, 1.0, 1.0, -1e8] * 100, np.float32)
    reduce = Reduce(
        name="s",
        targets=(Target(name="s", dtype=F32, axes=()),),
        axes=(),
        over=(h.axis("n", "N"),),
        reducer=h.reducer("add", F32, 0),
        values=(h.load("x", "n"),),
        ordered=True,
    )
    op = h.op("total", (h.tensor("x", "N"), h.tensor("s", role="output")), (reduce,), "N")
    want = np.float32(0)
    for value in x:
        want += value
    assert run(op, x=x)["s"] == want


def test_inout_keeps_what_is_not_written_and_arguments_are_untouched() -> None:
    part = Map(
        name="x", dtype=F32, axes=(h.axis("n", 4, lo=2),), value=h.arithmetic("mul", h.load("x", "n"), h.const(2.0))
    )
    op = h.op("double", (h.tensor("x", "N", role="inout"),), (part,), "N")
    x = np.arange(6, dtype=np.float32)
    np.testing.assert_array_equal(run(op, x=x)["x"], [0, 1, 4, 6, 4, 5])
    np.testing.assert_array_equal(x, np.arange(6))


def test_contracts_and_wrong_arguments_are_refused() -> None:
    op = h.op(
        "f",
        h.matmul().params,
        h.matmul().stages,
        "M K N",
        contracts=(Contract(condition=h.compare("ge", h.var("K"), h.index(1)), message="K must be positive"),),
    )  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="K must be positive"):
        run(op, A=np.zeros((2, 0), np.float32), B=np.zeros((0, 2), np.float32))
    with pytest.raises(ValueError, match="`A` is float64"):
        run(op, A=np.zeros((2, 1)), B=np.zeros((1, 2), np.float32))


def test_large_grids_go_in_pieces_without_changing_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(5)
    q, k, v = (rng.normal(size=s).astype(np.float32) for s in ((5, 8), (37, 8), (37, 3)))
    whole = run(h.attention(), exact=True, Q=q, K=k, V=v)["O"]
    for points in (1, 2, 7, 50):
        monkeypatch.setattr("tridsl.ir.evaluate_op._GRID_POINTS", points)
        np.testing.assert_allclose(run(h.attention(), exact=True, Q=q, K=k, V=v)["O"], whole, rtol=1e-12)


def test_f64_stays_f64() -> None:
    a = np.full((1, 1), 1 / 3)
    assert run(h.matmul(F64, F64), A=a, B=a)["C"][0, 0] == 1 / 3 * (1 / 3)


def test_nothing_is_read_where_there_is_nothing_to_write() -> None:
    boundary = Boundary(mode="value", value=h.const(0.0))
    value = h.load("x", "n", h.index(1), boundary=boundary)  # type: ignore[arg-type]
    op = h.op(
        "f",
        (h.tensor("x", "N", "M"), h.tensor("y", "N", role="output")),
        (Map(name="y", dtype=F32, axes=(h.axis("n", "N"),), value=value),),
        "N M",
    )
    assert run(op, x=np.zeros((0, 0), np.float32))["y"].shape == (0,)
    np.testing.assert_array_equal(run(op, x=np.zeros((2, 0), np.float32))["y"], [0, 0])
