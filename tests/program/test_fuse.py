"""Joined ops against op by op, on the oracle; and what must not be joined."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pytest

from tridsl.dtypes import F32
from tridsl.ir.evaluate_op import evaluate_op
from tridsl.ir.expr import Binary, Call, Const, Expr, Load, Var, index
from tridsl.ir.op import Axis, Map, Op, Reduce, Reducer, Scalar, Target, Tensor
from tridsl.program.fuse import fuse
from tridsl.program.graph import Graph, Node, Operand, Value
from tridsl.program.planning import plan

ADD = Reducer(
    name="sum", states=("s",), dtypes=(F32,), identity=(Const(value=0.0, dtype=F32),),
    merge=(Binary(op="add", a=Var(name="a.s", dtype=F32), b=Var(name="b.s", dtype=F32), dtype=F32),), op="add",
)  # fmt: skip
SHAPE = (3, 5)


def axis(name: str, extent: int) -> Axis:
    return Axis(name=name, lo=index(0), hi=index(extent))


def at(tensor: str, *names: str) -> Load:
    return Load(tensor=tensor, index=tuple(Var(name=n) for n in names), dtype=F32)


def tensor(name: str, shape: tuple[int, ...], role: str = "input") -> Tensor:
    return Tensor(name=name, dtype=F32, shape=tuple(map(index, shape)), role=role)  # type: ignore[arg-type]


def elementwise(value: Callable[..., Expr], inputs: Mapping[str, tuple[int, ...]], scalars: tuple[str, ...] = ()) -> Op:
    """y[i, j] = value(loads at [i, j] …)."""
    params = (
        *(Scalar(name=s, dtype=F32) for s in scalars),
        *(tensor(n, s) for n, s in inputs.items()),
        tensor("y", SHAPE, "output"),
    )
    body = value(*(Var(name=s, dtype=F32) for s in scalars), *(at(n, "i", "j") for n in inputs))
    return Op(
        name="map",
        types=(),
        params=params,
        sizes=(),
        stages=(Map(name="y", dtype=F32, axes=(axis("i", 3), axis("j", 5)), value=body),),
    )


SCALE = elementwise(lambda s, x: Binary(op="mul", a=s, b=x, dtype=F32), {"x": SHAPE}, ("s",))
PLUS = elementwise(lambda x, z: Binary(op="add", a=x, b=z, dtype=F32), {"x": SHAPE, "z": SHAPE})
EXP = elementwise(lambda x: Call(function="exp", args=(x,), dtype=F32), {"x": SHAPE})
CENTRE = Op(  # y[i, j] = x[i, j] - sum over j of x[i, j]
    name="centre", types=(), sizes=(), params=(tensor("x", SHAPE), tensor("y", SHAPE, "output")), intermediates=(tensor("m", (3,)),),
    stages=(
        Reduce(name="m", targets=(Target(name="m", dtype=F32, axes=("i",)),), axes=(axis("i", 3),), over=(axis("j", 5),), reducer=ADD, values=(at("x", "i", "j"),)),
        Map(name="y", dtype=F32, axes=(axis("i", 3), axis("j", 5)), value=Binary(op="sub", a=at("x", "i", "j"), b=at("m", "i"), dtype=F32)),
    ),
)  # fmt: skip
GRAM = Op(  # y[i, j] = sum over k of x[i, k] x[j mod 3, k]: every element is read many times
    name="gram", types=(), sizes=(), params=(tensor("x", SHAPE), tensor("y", SHAPE, "output")),
    stages=(
        Reduce(
            name="y", targets=(Target(name="y", dtype=F32, axes=("i", "j")),), axes=(axis("i", 3), axis("j", 5)), over=(axis("k", 5),), reducer=ADD,
            values=(Binary(op="mul", a=at("x", "i", "k"), b=Load(tensor="x", index=(Binary(op="mod", a=Var(name="j"), b=index(3), dtype=index(0).dtype), Var(name="k")), dtype=F32), dtype=F32),),
        ),
    ),
)  # fmt: skip


def graph(
    inputs: Mapping[str, tuple[int, ...]],
    calls: list[tuple[str, Op, tuple[str | float, ...]]],
    outputs: tuple[str, ...],
    **options: str,
) -> Graph:
    shapes = {**inputs, **{name: SHAPE for name, _, _ in calls}}
    nodes = tuple(
        Node(
            label=name, op=op, outputs=(name,), device=options.get(name),
            inputs=tuple(Operand(value=a, shape=SHAPE) if isinstance(a, str) else a for a in given),
        )
        for name, op, given in calls
    )  # fmt: skip
    return Graph(
        inputs=tuple(inputs),
        outputs=outputs,
        nodes=nodes,
        values=tuple(Value(name=n, dtype=F32, shape=s) for n, s in shapes.items()),
    )


def run(program: Graph, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    table = dict(arrays)
    for node in program.nodes:
        given = {
            p.name: np.broadcast_to(table[g.value], g.shape) if isinstance(g, Operand) else g
            for p, g in zip(node.op.inputs, node.inputs)
        }
        found = evaluate_op(node.op, given, {})
        table |= {name: found[t.name] for name, t in zip(node.outputs, node.op.outputs)}
    return {name: table[name] for name in program.outputs}


X = {"x": SHAPE}
PROGRAMS = {
    "chain": (graph(X, [("a", SCALE, (2.0, "x")), ("b", SCALE, (3.0, "a")), ("c", EXP, ("b",))], ("c",)), 1),
    "around a reduction": (graph(X, [("a", EXP, ("x",)), ("b", CENTRE, ("a",)), ("c", SCALE, (3.0, "b"))], ("c",)), 1),
    "two reductions": (graph(X, [("a", CENTRE, ("x",)), ("b", CENTRE, ("a",))], ("b",)), 2),
    "kept": (graph(X, [("a", SCALE, (2.0, "x")), ("b", EXP, ("a",))], ("b", "a")), 1),
    "diamond": (
        graph(
            X, [("a", EXP, ("x",)), ("b", SCALE, (2.0, "a")), ("c", SCALE, (3.0, "a")), ("d", PLUS, ("b", "c"))], ("d",)
        ),
        1,
    ),
    "twice the same": (graph(X, [("a", EXP, ("x",)), ("b", PLUS, ("a", "a"))], ("b",)), 1),
    "broadcast": (
        graph({"x": SHAPE, "r": (1, 5), "v": (5,)}, [("a", PLUS, ("r", "x")), ("b", PLUS, ("a", "v"))], ("b",)),
        1,
    ),
    "contraction": (graph(X, [("a", EXP, ("x",)), ("b", GRAM, ("a",)), ("c", SCALE, (2.0, "b"))], ("c",)), 3),
    "a reduction between": (
        graph(X, [("a", EXP, ("x",)), ("b", CENTRE, ("a",)), ("c", CENTRE, ("b",)), ("d", PLUS, ("a", "c"))], ("d",)),
        2,
    ),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_fused_programs_compute_the_same(name: str) -> None:
    program, launches = PROGRAMS[name]
    random = np.random.default_rng(3)
    arrays = {
        v.name: random.standard_normal(v.shape).astype(np.float32) for v in program.values if v.name in program.inputs
    }
    fused = fuse(program)
    assert len(fused.nodes) == launches, str(fused)
    want, got = run(program, arrays), run(fused, arrays)
    for result in program.outputs:
        assert np.allclose(got[result], want[result], rtol=1e-5, atol=1e-6)
    assert fuse(fused) == fused and fuse(program) == fused


def test_calls_on_different_devices_are_not_joined() -> None:
    program = graph(X, [("a", SCALE, (2.0, "x")), ("b", EXP, ("a",))], ("b",), a="cpu", b="gpu:0")
    assert len(fuse(program).nodes) == 2


def test_fences_stand_where_a_value_changes_hands() -> None:
    program = graph(X, [("a", EXP, ("x",)), ("b", EXP, ("a",)), ("c", PLUS, ("a", "b")), ("d", EXP, ("c",))], ("d",))
    found = plan(program, ("gpu:0", "cpu", "cpu", "gpu:0"), {"cpu"})
    assert [(f.finishing, f.waiting, f.values) for f in found.fences] == [
        ("gpu:0", "cpu", ("a",)),
        ("cpu", "gpu:0", ("c",)),
    ]
    assert [launch.moved_bytes for launch in found.launches] == [120, 0, 0, 120]
    assert plan(program, ("cpu",) * 4, {"cpu"}).fences == ()
    homes = {p.name: p.home for p in found.places}
    assert homes == {"x": "argument", "a": "arena", "b": "arena", "c": "arena", "d": "result"}
