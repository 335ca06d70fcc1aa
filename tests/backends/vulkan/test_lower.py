"""The target passes: what they make, and that the oracle finds the same meaning before and after each of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.backends.vulkan.conftest import Run
from tests.backends.vulkan.kernels import (
    SUM,
    accumulate,
    elementwise,
    group,
    kernel,
    lane,
    load,
    matmul,
    reducer,
    reg,
    serial,
    shared,
    softmax,
    store,
    tensor,
    var,
)
from tridsl.backend import Device
from tridsl.backends.vulkan import BACKEND
from tridsl.backends.vulkan.driver import VulkanDriver
from tridsl.backends.vulkan.lower_barriers import barriers
from tridsl.backends.vulkan.lower_bind import bind, is_parallel
from tridsl.backends.vulkan.lower_partials import partials
from tridsl.backends.vulkan.lower_spaces import spaces
from tridsl.devices.spec import DeviceSpec
from tridsl.dtypes import BOOL, F32, F64, I8, I32, I64, DType
from tridsl.ir.evaluate import evaluate_kernel
from tridsl.ir.expr import Binary, Cast, Const, Expr, Load, Select, Var, add, index, mul
from tridsl.ir.loop import Accumulate, Alloc, Append, Barrier, Buffer, For, Kernel, Mma, Phase, Ref
from tridsl.ir.op import Reducer
from tridsl.ir.walk import walk

SPEC = DeviceSpec(
    name="test", kind="gpu", max_group_lanes=1024, subgroup_sizes=(8,), shared_bytes=32768, max_push_bytes=128
)
I, J, K = var("C:i"), var("C:j"), var("C:k")


def loops(made: Kernel) -> list[tuple[str, str | None]]:
    return [(node.kind, node.binding) for node in walk(made.phases) if isinstance(node, For)]


def lowered(made: Kernel) -> Kernel:
    for stage in BACKEND.lower:
        made = stage.run(made, SPEC)
    return made


def assert_same_meaning(made: Kernel, **arguments: np.ndarray) -> None:
    """The oracle on the kernel and on what each pass makes of it."""
    before = evaluate_kernel(made, arguments, {}, check_races=False)
    for stage in BACKEND.lower:
        made = stage.run(made, SPEC)
        after = evaluate_kernel(made, arguments, {}, check_races=False)
        for name, array in before.items():
            np.testing.assert_allclose(after[name], array, rtol=1e-5, atol=1e-6, err_msg=f"{stage.name}: {name}")


def naive_matmul(m: int, n: int, k: int) -> Kernel:
    product = Binary(op="mul", a=load("A", F32, I, K), b=load("B", F32, K, J), dtype=F32)
    body = (
        store("C", Const(value=0.0, dtype=F32), I, J),
        serial(K.name, index(k), accumulate("C", SUM, product, I, J), reduce=True),
    )
    nest = serial(I.name, index(m), serial(J.name, index(n), *body))
    return kernel(
        "matmul", (tensor("A", F32, m, k), tensor("B", F32, k, n), tensor("C", F32, m, n, role="output")), nest
    )


def test_bind_spreads_independent_loops_over_groups_and_lanes() -> None:
    bound = bind(naive_matmul(30, 40, 5), SPEC)
    assert loops(bound) == [("group", "group.x"), ("lane", "lane.x"), ("serial", None)]
    outer = next(node for node in walk(bound.phases) if isinstance(node, For))
    assert outer.extent == index(5)  # 30 * 40 points, 256 to a group
    assert_same_meaning(naive_matmul(3, 4, 5), A=_normal(3, 5), B=_normal(5, 4))


def test_bind_gives_rows_with_long_reductions_a_workgroup_each() -> None:
    r, n = var("y:r"), var("y:n")
    body = (
        store("y", Const(value=0.0, dtype=F32), r),
        serial(n.name, index(100), accumulate("y", SUM, load("x", F32, r, n), r), reduce=True),
    )
    made = kernel(
        "sums", (tensor("x", F32, 3, 100), tensor("y", F32, 3, role="output")), serial(r.name, index(3), *body)
    )
    assert loops(bind(made, SPEC)) == [("group", "group.x"), ("lane", "lane.x"), ("serial", None)]
    assert_same_meaning(made, x=_normal(3, 100))
    across = replace(made.phases[0], body=(serial(r.name, index(3), body[0], replace(body[1], body=(_down(r, n),))),))
    assert [kind for kind, _ in loops(bind(replace(made, phases=(across,)), SPEC))] == ["group", "lane", "serial"]
    found = next(node for node in walk(bind(replace(made, phases=(across,)), SPEC).phases) if isinstance(node, For))
    assert found.extent == index(1)  # lanes are rows: down a column neighbours are in one row


def _down(r: Var, n: Var) -> Accumulate:
    return accumulate("y", SUM, load("x", F32, n, r), r)


def test_bind_leaves_bound_phases_alone() -> None:
    made = softmax(index(2), index(5))
    assert bind(made, SPEC) == made


def test_bind_gives_workgroups_a_phase_and_buffers_between_them_become_scratch() -> None:
    """Of the three statements the first two are one workgroup's, which has no wait between phases there."""
    total = Buffer(name="t", dtype=F32, shape=(), space="reg")
    made = kernel(
        "normalise",
        (tensor("x", F32, 300), tensor("y", F32, 300, role="output")),
        Alloc(buffer=total),
        store("t", Const(value=0.0, dtype=F32)),
        serial("s:n", index(300), accumulate("t", SUM, load("x", F32, var("s:n"))), reduce=True),
        serial(
            "y:n",
            index(300),
            store("y", Binary(op="div", a=load("x", F32, var("y:n")), b=load("t", F32), dtype=F32), var("y:n")),
        ),
    )
    bound = bind(made, SPEC)
    assert [len(phase.body) for phase in bound.phases] == [2, 1] and [b.name for b in bound.scratch] == ["t"]
    assert loops(bound) == [("lane", "lane.x"), ("serial", None), ("group", "group.x"), ("lane", "lane.x")]
    assert_same_meaning(made, x=_normal(300) + 3)


def test_what_one_workgroup_does_is_one_phase_and_its_numbers_are_registers() -> None:
    """A long sum, what is made of it, and what the next phase makes of that."""
    total = Buffer(name="t", dtype=F32, shape=(), space="reg")
    made = kernel(
        "mean",
        (tensor("x", F32, 300), tensor("y", F32, 1, role="output"), tensor("z", F32, 1, role="output")),
        Alloc(buffer=total),
        store("t", Const(value=0.0, dtype=F32)),
        serial("s:n", index(300), accumulate("t", SUM, load("x", F32, var("s:n"))), reduce=True),
        store("y", Binary(op="div", a=load("t", F32), b=Const(value=300.0, dtype=F32), dtype=F32), index(0)),
    )
    last = replace(made.phases[0], name="z", body=(store("z", load("y", F32, index(0)), index(0)),))
    made = replace(made, phases=(*made.phases, last))
    bound = bind(made, SPEC)
    assert len(bound.phases) == 1 and bound.scratch == () and isinstance(bound.phases[0].body[0], Alloc)
    assert loops(bound) == [("lane", "lane.x"), ("serial", None)]
    assert_same_meaning(made, x=_normal(300) + 3)


@pytest.mark.parametrize(
    ("loop", "parallel"),
    [
        (serial("n", index(9), store("y", load("x", F32, var("n")), var("n"))), True),
        (serial("n", index(9), store("y", load("y", F32, var("n")), var("n"))), True),
        (serial("n", index(9), store("y", load("y", F32, add(var("n"), index(1))), var("n"))), False),
        (serial("n", index(9), store("y", load("x", F32, var("n")), index(0))), False),
        (serial("n", index(9), accumulate("y", SUM, load("x", F32, var("n")), index(0)), reduce=True), False),
        (replace(serial("n", index(9), store("y", load("x", F32, var("n")), var("n"))), carried=True), False),
        (
            serial(
                "n", index(9), reg("t", F32), store("t", load("x", F32, var("n"))), store("y", load("t", F32), var("n"))
            ),
            True,
        ),
        (replace(serial("n", index(9), store("y", load("x", F32, var("n")), var("m"))), kind="parallel"), True),
    ],
)
def test_what_counts_as_parallel(loop: For, parallel: bool) -> None:
    assert is_parallel(loop) is parallel


def test_compaction_stays_in_one_lane(run: Run) -> None:
    """Order matters, so nothing is bound: right, and slow."""
    x = load("x", F32, var("n"))
    keep = Binary(op="gt", a=x, b=Const(value=0.0, dtype=F32), dtype=BOOL)
    append = Append(tensors=("y",), count=Ref(tensor="y.len", index=()), values=(x,), keep=keep)
    nest = replace(serial("n", index(100), append), carried=True)
    params = (tensor("x", F32, 100), tensor("y", F32, 100, role="output"), tensor("y.len", I64, role="output"))
    made = kernel("positive", params, store("y.len", index(0)), nest)
    assert [kind for kind, _ in loops(lowered(made))] == ["serial"]
    values, y, length = _normal(100), np.zeros(100, np.float32), np.zeros((), np.int64)
    run(made, values, y, length)
    np.testing.assert_array_equal(y[: int(length)], values[values > 0])


def test_spaces_follow_the_use() -> None:
    body = lane("l", index(8), store("e", load("x", F32, var("l")), var("l")), bound=8)
    use = lane(
        "k",
        index(8),
        store("y", load("e", F32, Binary(op="sub", a=index(7), b=var("k"), dtype=I64)), var("k")),
        bound=8,
    )
    near = Alloc(buffer=Buffer(name="e", dtype=F32, shape=(index(8),), space="l1"))
    params = (tensor("x", F32, 8), tensor("y", F32, 8, role="output"))
    made = kernel("reverse", params, group("g", index(1), near, body, use))
    assert [n.buffer.space for n in walk(spaces(made, SPEC).phases) if isinstance(n, Alloc)] == ["shared"]
    # one between the loops, one before the workgroup takes its next row
    assert sum(isinstance(n, Barrier) for n in walk(lowered(made).phases)) == 2
    assert_same_meaning(made, x=_normal(8))


@pytest.mark.parametrize(("shift", "axis", "stops"), [(0, "x", 0), (1, "x", 2), (0, "y", 2)], ids=["own", "neighbour's", "shared"])
def test_lanes_do_not_wait_for_themselves(shift: int, axis: str, stops: int) -> None:
    """Each lane reads what it wrote, or what the lane beside it did, or (groups are filled up along x) several stand in one place."""
    n = 64
    place = add(var("k"), index(shift))
    body = group(
        "g",
        index(1),
        shared("e", F32, n + 1),
        lane("l", index(n), store("e", load("x", F32, var("l")), var("l")), bound=n, axis=axis),
        lane("k", index(n), store("y", load("e", F32, place), var("k")), bound=n, axis=axis),
    )
    made = barriers(kernel("kept", (tensor("x", F32, n), tensor("y", F32, n, role="output")), body), SPEC)
    assert sum(isinstance(node, Barrier) for node in walk(made.phases)) == stops


def test_shared_buffers_between_lanes_are_fenced(run: Run) -> None:
    n = 200
    back = Binary(op="sub", a=index(n - 1), b=var("k"), dtype=I64)
    made = kernel(
        "reverse",
        (tensor("x", F32, n), tensor("y", F32, n, role="output")),
        group(
            "g",
            index(1),
            shared("e", F32, n),
            lane("l", index(n), store("e", load("x", F32, var("l")), var("l"))),
            lane("k", index(n), store("y", load("e", F32, back), var("k"))),
        ),
    )
    x, y = _normal(n), np.zeros(n, np.float32)
    run(made, x, y)
    np.testing.assert_array_equal(y, x[::-1])


def test_partials_combine_lanes_once() -> None:
    at = add(mul(var("s:o"), index(4)), var("s:l"))
    made = kernel(
        "total",
        (tensor("x", F32, 32), tensor("y", F32, role="output")),
        store("y", Const(value=0.0, dtype=F32)),
        lane("s:l", index(4), serial("s:o", index(8), accumulate("y", SUM, load("x", F32, at)), reduce=True)),
    )
    found = [node for node in walk(partials(made, SPEC).phases) if isinstance(node, Accumulate)]
    assert [node.targets[0].tensor for node in found] == ["y.lane", "y"]
    assert_same_meaning(made, x=_normal(32))


@pytest.mark.parametrize(("dtype", "registers"), [(F32, ["3"]), (I32, [])])
def test_a_lane_makes_sums_of_floats_side_by_side(dtype: DType, registers: list[str]) -> None:
    """A register for each iteration of the innermost short loop, joined before the lanes are; integers need none, their compilers regroup them."""
    at = add(mul(var("s:o"), index(12)), add(mul(var("s:l"), index(3)), var("s:i")))
    total = accumulate("y", reducer("add", dtype, 0), load("x", dtype, at))
    inner = replace(serial("s:i", index(3), total, reduce=True), kind="unroll")
    made = kernel(
        "total",
        (tensor("x", dtype, 96), tensor("y", dtype, role="output")),
        store("y", Const(value=0, dtype=dtype)),
        lane("s:l", index(4), serial("s:o", index(8), inner, reduce=True)),
    )
    after = partials(made, SPEC)
    assert [str(n.value) for b in walk(after.phases) if isinstance(b, Alloc) for n in b.buffer.shape if isinstance(n, Const)] == registers
    assert_same_meaning(made, x=_normal(96) if dtype == F32 else np.arange(96, dtype=np.int32))


def test_staged_copies_get_two_barriers_a_step() -> None:
    made = barriers(matmul(index(8), index(8), index(8), tile=8, depth=4), SPEC)
    steps = next(node for node in walk(made.phases) if isinstance(node, For) and node.var == "C:k.o")
    assert [type(statement).__name__ for statement in steps.body] == ["Barrier", "Copy", "Copy", "Barrier", "For"]
    a, b = _normal(9, 5), _normal(5, 7)
    found = evaluate_kernel(lowered(matmul(index(9), index(7), index(5), tile=8, depth=4)), {"A": a, "B": b}, {})
    np.testing.assert_allclose(found["C"], a @ b, rtol=1e-5, atol=1e-6)


def test_softmax_means_the_same_after_every_pass() -> None:
    for chunked in (False, True):
        assert_same_meaning(softmax(index(2), index(11), lanes=4, chunked=chunked), x=_normal(2, 11))


def argmax() -> Reducer:
    """The greatest value and its first position; NaN is not looked at here."""
    (av, ai), (bv, bi) = ((Var(name=f"{p}.v", dtype=F32), Var(name=f"{p}.i", dtype=I32)) for p in "ab")
    equal = Binary(op="eq", a=av, b=bv, dtype=BOOL)
    first = Binary(op="min", a=ai, b=bi, dtype=I32)
    larger = Select(condition=Binary(op="gt", a=av, b=bv, dtype=BOOL), a=ai, b=bi, dtype=I32)
    merge: tuple[Expr, ...] = (
        Binary(op="max", a=av, b=bv, dtype=F32),
        Select(condition=equal, a=first, b=larger, dtype=I32),
    )
    return Reducer(
        name="argmax",
        states=("v", "i"),
        dtypes=(F32, I32),
        identity=(Const(value=float("-inf"), dtype=F32), Const(value=2**31 - 1, dtype=I32)),
        merge=merge,
    )


@pytest.mark.parametrize("n", [1, 7, 64, 1000])
def test_a_monoid_of_two_states_is_combined_by_a_tree(run: Run, n: int) -> None:
    at = var("p:n")
    step = Accumulate(
        targets=(Ref(tensor="v", index=()), Ref(tensor="i", index=())),
        reducer=argmax(),
        values=(load("x", F32, at), Cast(a=at, dtype=I32)),
    )
    made = kernel(
        "argmax",
        (tensor("x", F32, n), tensor("v", F32, role="output"), tensor("i", I32, role="output")),
        store("v", argmax().identity[0]),
        store("i", argmax().identity[1]),
        serial(at.name, index(n), step, reduce=True),
    )
    x = np.round(_normal(n) * 3)  # many equal values
    v, i = np.zeros((), np.float32), np.zeros((), np.int32)
    run(made, x, v, i)
    assert v == x.max() and i == np.argmax(x)
    assert loops(lowered(made))[0] == ("lane", "lane.x")


@pytest.mark.parametrize(
    ("op", "dtype"), [("add", I32), ("max", I32), ("min", I64), ("mul", F32), ("and", I32), ("or", BOOL)]
)
def test_reducers_across_lanes(run: Run, op: str, dtype: DType) -> None:
    rng = np.random.default_rng(5)
    n = 777
    x = (
        rng.uniform(0.99, 1.01, n)
        if dtype == F32
        else rng.integers(0, 2, n)
        if dtype == BOOL
        else rng.integers(-(2**30), 2**30, n)
    ).astype({F32: np.float32, I32: np.int32, I64: np.int64, BOOL: np.bool_}[dtype])
    identity = {"add": 0, "max": -(2**31), "min": 2**63 - 1, "mul": 1.0, "and": -1, "or": False}[op]
    made = kernel(
        "reduce",
        (tensor("x", dtype, n), tensor("y", dtype, role="output")),
        store("y", Const(value=identity, dtype=dtype)),
        serial(
            "y:n", index(n), accumulate("y", reducer(op, dtype, identity), load("x", dtype, var("y:n"))), reduce=True
        ),
    )
    y = np.zeros((), x.dtype)
    run(made, x, y)
    ufunc = {
        "add": np.add,
        "max": np.maximum,
        "min": np.minimum,
        "mul": np.multiply,
        "and": np.bitwise_and,
        "or": np.logical_or,
    }[op]
    with np.errstate(all="ignore"):
        wanted = ufunc.reduce(x.astype(np.float64)) if dtype == F32 else ufunc.reduce(x, dtype=x.dtype)
    np.testing.assert_allclose(y, wanted, rtol=1e-5 if dtype == F32 else 0)


def test_rows_by_one_axis_of_lanes_columns_by_the_other(run: Run) -> None:
    """Sums over lanes along x for every lane along y: only a part of the group is combined."""
    m, n = 5, 48
    row, column = var("r"), var("c")
    made = kernel(
        "row_sums",
        (tensor("x", F32, m, n), tensor("y", F32, m, role="output")),
        group(
            "g",
            index(1),
            lane(
                row.name,
                index(m),
                reg("s", F32),
                store("s", Const(value=0.0, dtype=F32)),
                lane(column.name, index(n), accumulate("s", SUM, load("x", F32, row, column))),
                store("y", load("s", F32), row),
                axis="y",
            ),
        ),
    )
    x, y = _normal(m, n), np.zeros(m, np.float32)
    run(made, x, y)
    np.testing.assert_allclose(y, x.astype(np.float64).sum(axis=1), rtol=1e-5, atol=1e-5)


def test_multiply_accumulate_is_expanded(run: Run) -> None:
    i, j, k = var("m"), var("n"), var("k")
    a, b = (Load(tensor=name, index=at, dtype=I8) for name, at in (("A", (i, k)), ("B", (k, j))))
    step = Mma(intrinsic="fma", axes=(("m", 3), ("n", 4), ("k", 5)), target=Ref(tensor="acc", index=(i, j)), a=a, b=b)
    r, c = var("r"), var("c")
    body = (
        reg("acc", I32, 3, 4),
        serial("z", index(3), serial("w", index(4), store("acc", Const(value=7, dtype=I32), var("z"), var("w")))),
        step,
        serial(r.name, index(3), serial(c.name, index(4), store("C", load("acc", I32, r, c), r, c))),
    )
    params = (tensor("A", I8, 3, 5), tensor("B", I8, 5, 4), tensor("C", I32, 3, 4, role="output"))
    made = kernel("mma", params, group("g", index(1), lane("l", index(1), *body)))
    rng = np.random.default_rng(1)
    x, y = rng.integers(-128, 128, (3, 5)).astype(np.int8), rng.integers(-128, 128, (5, 4)).astype(np.int8)
    found = np.zeros((3, 4), np.int32)
    run(made, x, y, found)
    np.testing.assert_array_equal(found, 7 + x.astype(np.int32) @ y.astype(np.int32))


def test_refusals_name_the_construct() -> None:
    wide = elementwise(index(4), (F32,), F32, lambda x: x)
    column = replace(wide, phases=(Phase(name="y", body=(replace(serial("c", index(2)), kind="column"),)),))
    assert [d.code for d in BACKEND.accepts(column, SPEC)] == ["E0707"]
    huge = kernel(
        "huge",
        wide.params,
        group(
            "g", index(1), shared("s", F32, 10000), lane("l", index(4), store("s", load("x0", F32, var("l")), var("l")))
        ),
    )
    assert [d.code for d in BACKEND.accepts(huge, SPEC)] in (["E0709"], ["E0707"])
    double = elementwise(index(4), (F64,), F64, lambda x: x)
    assert {d.code for d in BACKEND.accepts(double, SPEC)} == {"E0706"}
    assert all(d.help for d in BACKEND.accepts(double, SPEC))


def _normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(7).normal(size=shape).astype(np.float32)


def test_combining_lanes_without_subgroup_arithmetic(driver: VulkanDriver, device: Device) -> None:
    """A device that has none combines in shared memory alone; the results are as close."""
    plain = replace(device.spec, features=device.spec.features - {"subgroup_arithmetic"})
    made = softmax(index(3), index(300))
    for stage in BACKEND.lower:
        made = stage.run(made, plain)
    code = BACKEND.emit(made, plain)
    assert "subgroup" not in code.text and "subgroupAdd" in BACKEND.emit(made, device.spec).text
    x, y = _normal(3, 300), np.zeros((3, 300), np.float32)
    driver.load(BACKEND.build(code, plain), device)((x, y), 1)
    e = np.exp(x.astype(np.float64))
    np.testing.assert_allclose(y, e / e.sum(axis=1, keepdims=True), rtol=2e-6)
