"""Loops, memory and combining statements against the kernel oracle: tails, masks, strides, gathers, reductions, compaction."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests.backends.cpu.kernels import (
    accumulate,
    agrees,
    buffer,
    const,
    host,
    kernel,
    load,
    loop,
    op,
    reducer,
    ref,
    run,
    scalar,
    store,
    tensor,
    values,
)
from tests.schedule.programs import op_of, scheduled, steps_of
from tridsl.devices.spec import DeviceSpec, load_chip
from tridsl.dtypes import BOOL, DTYPES, F32, F64, I8, I32, I64, U8, DType
from tridsl.ir.expr import Binary, Cast, Expr, Select, Var, add, ceildiv, minimum, mul, sub
from tridsl.ir.loop import Accumulate, Append, Buffer, Check, For, If, Kernel, Stmt
from tridsl.ir.op import Reducer
from tridsl.structs import replace

N = Var(name="N")
SUM = reducer("add", F32, 0.0)


def vector(var: str, extent: Expr | int | str, *body: Stmt, bound: int | None = None, **more: bool) -> For:
    return loop(var, extent, *body, kind="vector", bound=bound, **more)


def strip(outer: str, inner: str, length: Expr, lanes: int) -> Expr:
    return minimum(const(lanes), sub(length, mul(Var(name=outer), const(lanes))))


def at(outer: str, inner: str, lanes: int) -> Expr:
    return add(mul(Var(name=outer), const(lanes)), Var(name=inner))


def without_masks() -> DeviceSpec:
    """AVX2: no masks in hardware, so tails are written twice and lowered by LLVM."""
    return load_chip("x86_64_v3")


@pytest.mark.parametrize("length", [0, 1, 15, 16, 17, 100])
@pytest.mark.parametrize("dtype", DTYPES.values(), ids=str)
def test_copy_of_every_type_and_tail(dtype: DType, length: int) -> None:
    i = at("o", "v", 16)
    copy = vector("v", strip("o", "v", N, 16), store("y", i, value=load("x", dtype, i)), bound=16)
    what = kernel("copy", [tensor("x", dtype, "N"), tensor("y", dtype, "N", role="output")], loop("o", ceildiv(N, const(16)), copy), sizes=("N",))
    for spec in (None, without_masks()):
        agrees(what, {"x": values(dtype, length)}, {"N": length}, spec=spec)


@pytest.mark.parametrize("lanes", [1, 2, 3, 7, 16, 30, 64, 100, 256])
def test_any_number_of_lanes(lanes: int) -> None:
    x, y = tensor("x", F32, "N"), tensor("y", F32, "N", role="output")
    for extent in (0, 1, lanes - 1, lanes):
        what = kernel("lanes", [x, y], vector("v", "N", store("y", "v", value=op("add", load("x", F32, "v"), const(1.0, F32))), bound=lanes), sizes=("N",))
        agrees(what, {"x": values(F32, extent)}, {"N": extent})


@pytest.mark.parametrize("dtype", [U8, F32, BOOL], ids=str)
@pytest.mark.parametrize("stride", [-1, 0, 2, 3, 4, 7])
def test_strided_loads_and_stores(stride: int, dtype: DType) -> None:
    """Channels of an image and reversed rows: one wide load and a shuffle, or a gather; stores scatter."""
    length, start = 41, 40 * 7 if stride < 0 else 0
    extent = 41 * 7
    position = add(const(start), mul(Var(name="v"), const(stride)))
    for bound in (length, 64):
        params = [tensor("x", dtype, extent), tensor("y", dtype, length, role="output"), tensor("z", dtype, extent, role="inout")]
        body: list[Stmt] = [store("y", "v", value=load("x", dtype, position))]
        if stride:
            body.append(store("z", position, value=load("x", dtype, "v")))
        what = kernel("strided", params, vector("v", length, *body, bound=bound))
        agrees(what, {"x": values(dtype, extent), "z": values(dtype, extent, 1)})


def test_strides_of_a_view_and_symbolic_strides() -> None:
    x = values(F32, (6, 40))
    view = tensor("x", F32, 3, 20, strides=(80, 2))
    what = kernel("view", [view, tensor("y", F32, 3, 20, role="output")], loop("i", 3, vector("v", 20, store("y", "i", "v", value=load("x", F32, "i", "v")))))
    assert run(what, {"x": x[::2, ::2]})["y"].tolist() == x[::2, ::2].tolist()
    params = [tensor("x", F32, "N", "N"), tensor("y", F32, "N", "N", role="output")]
    transpose = kernel("transpose", params, loop("i", "N", vector("v", "N", store("y", "i", "v", value=load("x", F32, "v", "i")), bound=16)), sizes=("N",))
    agrees(transpose, {"x": values(F32, (13, 13))}, {"N": 13})


def test_grouped_positions_are_constant_patterns() -> None:
    """`(o*32 + v) // 4` and `% 4`: scales of blocks and unpacked codes."""
    i = at("o", "v", 32)
    group, inside = op("floordiv", i, const(4)), op("mod", i, const(4))
    value = op("add", load("x", F32, group), load("t", F32, inside))
    params = [tensor("x", F32, 24), tensor("t", F32, 4), tensor("y", F32, 96, role="output")]
    what = kernel("groups", params, loop("o", 3, vector("v", 32, store("y", i, value=value))))
    agrees(what, {"x": values(F32, 24), "t": values(F32, 4)})


@pytest.mark.parametrize("dtype", [U8, F32, I64], ids=str)
def test_data_dependent_gather_and_scatter(dtype: DType) -> None:
    index = load("ids", I32, "v")
    inside = Binary(op="and", a=op("ge", index, const(0, I32)), b=op("lt", index, const(10, I32)), dtype=BOOL)
    position = Cast(a=index, dtype=I64)
    other = const(7.0 if dtype.is_float else 7, dtype)
    params = [tensor("x", dtype, 10), tensor("ids", I32, 21), tensor("y", dtype, 21, role="output"), tensor("z", dtype, 10, role="inout")]
    body = [store("y", "v", value=load("x", dtype, position, mask=inside, other=other)), store("z", position, value=const(3.0 if dtype.is_float else 3, dtype), mask=inside)]
    ids = np.array([-1, 0, 9, 10, 5, 2**31 - 1, -(2**31), *range(14)], np.int32)
    for kind, bound in (("serial", None), ("vector", 21), ("vector", 32)):
        what = kernel("gather", params, loop("v", 21, *body, kind=kind, bound=bound))  # type: ignore[arg-type]
        agrees(what, {"x": values(dtype, 10), "ids": ids, "z": values(dtype, 10, 1)})


def test_masked_loads_read_the_other_value() -> None:
    """A pad: three neighbours with zeros outside, uniform and lane-varying masks."""
    def neighbour(shift: int) -> Expr:
        position = add(Var(name="v"), const(shift))
        inside = Binary(op="and", a=op("ge", position, const(0)), b=op("lt", position, const(20)), dtype=BOOL)
        return load("x", F32, "r", position, mask=inside, other=const(0.5, F32))

    row = load("x", F32, op("sub", Var(name="r"), const(1)), 0, mask=op("gt", Var(name="r"), const(0)), other=const(-1.0, F32))
    value = op("add", op("add", neighbour(-1), neighbour(1)), op("add", neighbour(0), row))
    for kind in ("serial", "vector"):
        what = kernel("pad", [tensor("x", F32, 3, 20), tensor("y", F32, 3, 20, role="output")], loop("r", 3, loop("v", 20, store("y", "r", "v", value=value), kind=kind)))  # type: ignore[arg-type]
        agrees(what, {"x": values(F32, (3, 20))})


def test_conditions_that_differ_between_lanes() -> None:
    positive = op("gt", load("x", F32, "v"), const(0.0, F32))
    inner = If(condition=op("gt", load("x", F32, "v"), const(1.0, F32)), then=(store("y", "v", value=const(2.0, F32)),))
    outer = If(condition=positive, then=(store("y", "v", value=const(1.0, F32)), inner), otherwise=(store("y", "v", value=const(-1.0, F32)),))
    uniform = If(condition=op("lt", Var(name="s", dtype=I32), const(0, I32)), then=(store("y", "v", value=const(9.0, F32)),))
    for kind, bound in (("serial", None), ("vector", 33), ("vector", 48)):
        params = [scalar("s", I32), tensor("x", F32, 33), tensor("y", F32, 33, role="output")]
        what = kernel("branches", params, loop("v", 33, outer, uniform, kind=kind, bound=bound))  # type: ignore[arg-type]
        for s in (-1, 1):
            agrees(what, {"s": s, "x": values(F32, 33)})


def test_registers_private_to_a_lane() -> None:
    """A buffer made inside a vector loop: each lane has its own, also under conditions and in serial loops."""
    body = [
        buffer("t", F32, 4), loop("k", 4, store("t", "k", value=load("x", F32, "k", "v"))),
        If(condition=op("gt", load("x", F32, 0, "v"), const(0.0, F32)), then=(store("t", 2, value=const(5.0, F32)),)),
        buffer("s", F32), store("s", value=const(0.0, F32)), loop("q", 4, accumulate(ref("s"), SUM, load("t", F32, "q"))),
        store("y", "v", value=load("s", F32)),
    ]  # fmt: skip
    for kind in ("serial", "vector"):
        what = kernel("private", [tensor("x", F32, 4, 19), tensor("y", F32, 19, role="output")], loop("v", 19, *body, kind=kind))  # type: ignore[arg-type]
        agrees(what, {"x": values(F32, (4, 19))})


@pytest.mark.parametrize("name", ["add", "mul", "max", "min"])
@pytest.mark.parametrize("dtype", [F32, F64, I8, I32, U8], ids=str)
@pytest.mark.parametrize("carried", [False, True])
def test_reductions_across_lanes(name: str, dtype: DType, carried: bool) -> None:
    low, high = (-math.inf, math.inf) if dtype.is_float else (dtype.low, dtype.high)
    combine = reducer(name, dtype, {"add": 0, "mul": 1, "max": low, "min": high}[name])  # type: ignore[dict-item]
    for lanes, extent in ((16, 16), (16, 5), (7, 7), (64, 64), (3, 0)):
        body = vector("v", "N", accumulate(ref("y"), combine, load("x", dtype, "v")), bound=lanes, carried=carried)
        what = kernel("reduce", [tensor("x", dtype, "N"), tensor("y", dtype, role="output")], store("y", value=combine.identity[0]), body, sizes=("N",))
        x = values(dtype, extent)
        agrees(what, {"x": x}, {"N": extent}, rtol=1e-5)
        if dtype.is_float and name in ("max", "min") and extent:
            for place in {0, extent // 2, extent - 1}:
                x[place] = math.nan
                assert np.isnan(run(what, {"x": x}, {"N": extent})["y"])
                x[place] = 0


@pytest.mark.parametrize("extent", [12, 16])
def test_lanes_that_meet_in_one_target_take_turns(extent: int) -> None:
    params = [tensor("x", F32, 16), tensor("y", F32, 4, role="inout"), tensor("z", F32, role="inout")]
    group = op("floordiv", Var(name="v"), const(4))
    private = [buffer("t", F32), store("t", value=load("x", F32, "v"))]
    body = [*private, accumulate(ref("y", group), SUM, load("t", F32)), accumulate(ref("z"), SUM, load("t", F32))]
    for kind in ("serial", "vector"):
        what = kernel("meet", params, loop("v", extent, *body, kind=kind, bound=16))  # type: ignore[arg-type]
        agrees(what, {"x": values(F32, 16), "y": values(F32, 4, 1), "z": np.zeros((), np.float32)}, rtol=1e-5)


def argmax() -> Reducer:
    a, b = (Var(name=f"{side}.v", dtype=F32) for side in "ab")
    ia, ib = (Var(name=f"{side}.i", dtype=I32) for side in "ab")
    later = op("gt", b, a)
    return Reducer(
        name="argmax", states=("v", "i"), dtypes=(F32, I32), identity=(const(-math.inf, F32), const(0, I32)), commutative=False,
        merge=(Select(condition=later, a=b, b=a, dtype=F32), Select(condition=later, a=ib, b=ia, dtype=I32)),
    )  # fmt: skip


@pytest.mark.parametrize("carried", [False, True])
@pytest.mark.parametrize("lanes", [16, 13, 64])
def test_ordered_states_keep_the_first_of_equals(lanes: int, carried: bool) -> None:
    x = np.array([1, 5, 5, 2, 5, 0, 0, 0, 0, 0, 5, 1], np.float32)
    step = Accumulate(targets=(ref("v"), ref("i")), reducer=argmax(), values=(load("x", F32, "n"), Cast(a=Var(name="n"), dtype=I32)))
    start = [store("v", value=const(-math.inf, F32)), store("i", value=const(0, I32))]
    params = [tensor("x", F32, 12), tensor("v", F32, role="output"), tensor("i", I32, role="output")]
    what = kernel("argmax", params, *start, vector("n", 12, step, bound=lanes, carried=carried))
    got = run(what, {"x": x})
    assert (got["v"], got["i"]) == (5, 1)


def test_carried_float_sum_is_the_sum_in_order() -> None:
    x = values(F32, 50) * np.float32(1e3)
    total = np.float32(0)
    for number in x:
        total = np.float32(total + number)
    what = kernel("ordered", [tensor("x", F32, 50), tensor("y", F32, role="output")], store("y", value=const(0.0, F32)), vector("n", 50, accumulate(ref("y"), SUM, load("x", F32, "n")), bound=64, carried=True))
    assert run(what, {"x": x})["y"] == total


def test_masked_accumulate_and_lanes_in_place() -> None:
    mask = op("gt", load("x", F32, "k", "v"), const(0.0, F32))
    inner = vector("v", 20, accumulate(ref("acc", "v"), SUM, load("x", F32, "k", "v"), mask=mask), bound=32)
    total = vector("w", 20, accumulate(ref("s"), SUM, load("x", F32, 0, "w"), mask=op("gt", load("x", F32, 0, "w"), const(0.0, F32))), bound=32)
    params = [tensor("x", F32, 5, 20), tensor("y", F32, 20, role="output"), tensor("s", F32, role="output")]
    what = kernel(
        "masked", params, buffer("acc", F32, 32, padded=(True,)), vector("z", 32, store("acc", "z", value=const(0.0, F32))), loop("k", 5, inner),
        store("s", value=const(0.0, F32)), total, vector("u", 20, store("y", "u", value=load("acc", F32, "u")), bound=32),
    )  # fmt: skip
    agrees(what, {"x": values(F32, (5, 20))}, rtol=1e-5)


@pytest.mark.parametrize("extent", [1, 2, 3, 7, 15])
def test_short_last_vector_leaves_the_other_lanes_alone(extent: int) -> None:
    """What strip-mining leaves over: a few lanes of a partial result that is a register wide, or just as wide as they are."""
    for width, bound in ((16, None), (extent, None), (16, 16)):
        private = [buffer("t", F32), store("t", value=load("x", F32, "v")), accumulate(ref("part", 1, "v"), SUM, load("t", F32))]
        params = [tensor("x", F32, extent), tensor("y", F32, 2, width, role="output")]
        what = kernel(
            "rest", params, buffer("part", F32, 2, width, padded=(False, True)),
            loop("u", 2, vector("z", width, store("part", "u", "z", value=const(1.0, F32))), kind="unroll"), vector("v", extent, *private, bound=bound),
            loop("r", 2, vector("w", width, store("y", "r", "w", value=load("part", F32, "r", "w"))), kind="unroll"),
        )  # fmt: skip
        agrees(what, {"x": values(F32, extent)})


@pytest.mark.parametrize("dtype", [F32, U8, I64, BOOL], ids=str)
@pytest.mark.parametrize("lanes", [0, 16, 64, 5])
def test_append_packs_in_order(lanes: int, dtype: DType) -> None:
    length = 150
    keep = op("gt", load("k", I32, "n"), const(0, I32))
    body = Append(tensors=("y",), count=ref("y.len"), values=(load("x", dtype, "n"),), keep=keep)
    params = [tensor("x", dtype, length), tensor("k", I32, length), tensor("y", dtype, length, role="output"), tensor("y.len", I64, role="output")]
    if lanes:
        from tridsl.ir.walk import substitute

        body = substitute(body, {"n": at("o", "v", lanes)})
        loops = loop("o", -(-length // lanes), vector("v", strip("o", "v", const(length), lanes), body, bound=lanes, carried=True), carried=True)
    else:
        loops = loop("n", length, body, carried=True)
    what = kernel("compact", params, store("y.len", value=const(0)), loops)
    x = values(dtype, length)
    for seed, kept in ((1, None), (2, -1), (3, 1)):
        k = values(I32, length, seed) if kept is None else np.full(length, kept, np.int32)
        got = run(what, {"x": x, "k": k})
        count = int(got["y.len"])
        assert count == int((k > 0).sum())
        np.testing.assert_array_equal(got["y"][:count], x[k > 0])


def test_checks_report_the_lowest_number() -> None:
    checks = [Check(condition=op("lt", load("x", I32, "v"), const(limit, I32)), number=n) for n, limit in ((1, 10), (0, 20))]
    messages = ("below 20", "below 10")
    for kind in ("serial", "vector"):
        what = kernel("checks", [tensor("x", I32, 30)], loop("v", 30, *checks, kind=kind, bound=32), messages=messages)  # type: ignore[arg-type]
        x = np.zeros(30, np.int32)
        run(what, {"x": x})
        x[29] = 15
        with pytest.raises(IndexError, match="below 10"):
            run(what, {"x": x})
        x[3] = 25
        with pytest.raises(IndexError, match="below 20"):
            run(what, {"x": x})


def test_unrolled_loops_with_a_symbolic_extent() -> None:
    body = loop("u", minimum(const(5), N), store("y", "u", value=load("x", F32, "u")), kind="unroll", bound=5)
    for length in range(6):
        what = kernel("unroll", [tensor("x", F32, "N"), tensor("y", F32, "N", role="output")], body, sizes=("N",))
        agrees(what, {"x": values(F32, length)}, {"N": length})


def test_turns_of_several_iterations_with_a_symbolic_extent() -> None:
    body = replace(loop("u", N, store("y", "u", value=load("x", F32, "u"))), unrolled=4)
    for length in range(10):
        what = kernel("turns", [tensor("x", F32, "N"), tensor("y", F32, "N", role="output")], body, sizes=("N",))
        agrees(what, {"x": values(F32, length)}, {"N": length})


def rows(threads_extent: Expr | int, shared: tuple[Stmt, ...] = ()) -> Kernel:
    """Row sums through a buffer of N elements, which is too large for the stack when N is unknown."""
    body = (
        buffer("e", F32, "N", space="l1"), buffer("s", F32),
        vector("v", "N", store("e", "v", value=op("mul", load("x", F32, "r", "v"), Var(name="f", dtype=F32))), bound=64),
        store("s", value=const(0.0, F32)), vector("w", "N", accumulate(ref("s"), SUM, load("e", F32, "w")), bound=64),
        If(condition=op("gt", load("s", F32), const(1e30, F32)), then=(Check(condition=const(False, BOOL), number=0),)),
        store("y", "r", value=load("s", F32)),
    )  # fmt: skip
    params = [scalar("f", F32), tensor("x", F32, "M", "N"), tensor("y", F32, "M", role="output")]
    return kernel("rows", params, *shared, loop("r", threads_extent, *body, kind="parallel"), sizes=("M", "N"), messages=("too large",))


def test_threads_give_the_same_bits() -> None:
    what = rows(Var(name="M"))
    for m in (0, 1, 2, 3, 10):
        x = values(F32, (m, 60))
        results = [run(what, {"f": 1.5, "x": x}, {"M": m, "N": 60}, threads=t)["y"].tobytes() for t in (1, 2, 3, 16)]
        assert len(set(results)) == 1
        agrees(what, {"f": 1.5, "x": x}, {"M": m, "N": 60}, rtol=1e-4, threads=2)


def test_failures_in_threads_reach_the_caller() -> None:
    what = rows(Var(name="M"))
    x = np.full((8, 60), 1e30, np.float32)
    for threads in (1, 3):
        with pytest.raises(IndexError, match="too large"):
            run(what, {"f": 1.5, "x": x}, {"M": 8, "N": 60}, threads=threads)


def test_no_memory_is_an_error() -> None:
    """A scratch buffer of more bytes than there are, and of more than 64 bits can say."""
    for size in (2**50, 2**62):
        scratch = (Buffer(name="big", dtype=F32, shape=(N, const(4)), space="global"),)
        what = kernel("greedy", [tensor("y", F32, 1, role="output")], store("y", 0, value=const(1.0, F32)), sizes=("N",), scratch=scratch)
        with pytest.raises(MemoryError):
            run(what, {}, {"N": size})


def test_large_and_dynamic_buffers() -> None:
    big = 40_000
    params = [tensor("x", F32, big), tensor("y", F32, big, role="output")]
    fill = vector("v", 16, store("t", at("o", "v", 16), value=op("add", load("x", F32, at("o", "v", 16)), const(1.0, F32))))
    empty = vector("w", 16, store("y", at("p", "w", 16), value=load("t", F32, at("p", "w", 16))))
    what = kernel("big", params, buffer("t", F32, big, space="l2"), loop("o", big // 16, fill), loop("p", big // 16, empty))
    x = values(F32, big)
    np.testing.assert_array_equal(run(what, {"x": x})["y"], x + 1)


def test_phases_follow_each_other() -> None:
    from tridsl.ir.loop import Phase

    t = Buffer(name="t", dtype=F32, shape=(const(100),), space="global")
    first = loop("i", 100, store("t", "i", value=op("add", load("x", F32, "i"), const(1.0, F32))), kind="parallel")
    second = loop("j", 100, store("y", "j", value=load("t", F32, op("sub", const(99), Var(name="j")))), kind="parallel")
    what = Kernel(
        name="two", params=(tensor("x", F32, 100), tensor("y", F32, 100, role="output")), sizes=(), scratch=(t,),
        phases=(Phase(name="t", body=(first,)), Phase(name="y", body=(second,))),
    )  # fmt: skip
    for threads in (1, 2, 3):
        agrees(what, {"x": values(F32, 100)}, threads=threads)


def test_lane_varying_value_to_one_place_leaves_the_last() -> None:
    what = kernel("last", [tensor("x", F32, 20), tensor("y", F32, role="output")], vector("v", 20, store("y", value=load("x", F32, "v")), bound=32))
    x = values(F32, 20)
    assert run(what, {"x": x})["y"] == x[19]


@pytest.mark.parametrize("lanes", [4, 8, 16, 32, 64])
@pytest.mark.parametrize("value", ["sum[k; acc=i32](x[k] * y[k])", "sum[k; acc=i32](y[k] * x[k])", "sum[k](abs(i32(x[k]) - i32(z[k])))",
                                   "sum[k](abs(i64(x[k]) - i64(z[k])))", "sum[k](i32(y[k]) * i32(y[k]))"])  # fmt: skip
def test_sums_of_bytes_across_lanes(value: str, lanes: int) -> None:
    """LLVM knows instructions for such sums, and leaves out a part of some."""
    length = 2 * lanes + 3
    result = "i64" if "i64" in value else "i32"
    summed = op_of(f"op f(x: u8[K], y: i8[K], z: u8[K]) -> s: {result} {{\n s = {value}\n}}")
    steps = steps_of(summed, f"s.split(k, {lanes})\n s.vector(k.i)", host())
    arrays = {"x": values(U8, length, 1), "y": values(I8, length, 2), "z": values(U8, length, 3)}
    for sizes in ({"K": length}, {}):
        agrees(scheduled(summed, steps, sizes, host(), lowered=True), arrays, {} if sizes else {"K": length})
