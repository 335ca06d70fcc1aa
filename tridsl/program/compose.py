"""Two calls as one op: the producer's results become stages that the consumer reads directly."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tridsl.ir.expr import Binary, Const, Expr, Load, Var, binary, index
from tridsl.ir.op import Compact, Map, Op, Param, Reduce, Scalar, Scan, Target, Tensor, TopK
from tridsl.ir.walk import rewrite
from tridsl.program.graph import Input, Node, Operand, Value
from tridsl.structs import replace


def with_constants(op: Op, values: Mapping[str, bool | int | float]) -> Op:
    """`op` with sizes and const scalars replaced by constants, index arithmetic folded, and the replaced names gone."""
    if not values:
        return op

    def constant(var: Var) -> Expr:
        return Const(value=values[var.name], dtype=var.dtype) if var.name in values else var

    fixed: Op = rewrite(op, {Var: constant, Binary: lambda b: binary(b.op, b.a, b.b) if b.a.dtype == b.b.dtype else b})
    return replace(
        fixed,
        params=tuple(p for p in fixed.params if not (isinstance(p, Scalar) and p.name in values)),
        sizes=tuple(s for s in fixed.sizes if s not in values),
        dynamic=tuple(s for s in fixed.dynamic if s not in values),
    )


def compose(producer: Node, consumer: Node, values: Mapping[str, Value], keep: frozenset[str]) -> Node:
    """The one node that does what `producer`, then `consumer` do.

    Results of `producer` named in `keep` stay results; the others become intermediates. Both ops have constant sizes.
    An input that several parameters read the same way becomes one parameter.
    """
    second = _apart(consumer.op, _names(producer.op))
    made = dict(zip(producer.outputs, producer.op.outputs))
    inputs: list[tuple[Param, Input]] = list(zip(producer.op.inputs, producer.inputs))
    seen = {(given, _look(p)): p.name for p, given in inputs if isinstance(p, Tensor) and isinstance(given, Operand)}
    redirect: dict[str, tuple[str, tuple[int, ...] | None]] = {}
    for parameter, given in zip(second.inputs, consumer.inputs):
        if isinstance(given, Operand) and given.value in made:
            source = values[given.value]
            redirect[parameter.name] = (made[given.value].name, _kept_axes(source.shape, given.shape))
        elif isinstance(given, Operand) and (given, _look(parameter)) in seen:
            redirect[parameter.name] = (seen[given, _look(parameter)], None)
        else:
            if isinstance(given, Operand):
                seen[given, _look(parameter)] = parameter.name
            inputs.append((parameter, given))
    second = rewrite(second, {Load: lambda load: _redirected(load, redirect)})
    kept = [(name, made[name]) for name in producer.outputs if name in keep]
    dropped = tuple(tensor for name, tensor in made.items() if name not in keep)
    op = Op(
        name=f"{producer.op.name}_{consumer.op.name}",
        types=(),
        params=(*(p for p, _ in inputs), *(t for _, t in kept), *second.outputs),
        sizes=(),
        stages=(*producer.op.stages, *second.stages),
        intermediates=(*producer.op.intermediates, *dropped, *second.intermediates),
        checks=(*producer.op.checks, *second.checks),
    )
    return Node(
        label=f"{producer.label} + {consumer.label}",
        op=op,
        inputs=tuple(given for _, given in inputs),
        outputs=(*(name for name, _ in kept), *consumer.outputs),
        device=producer.device or consumer.device,
    )


def _look(tensor: Param) -> tuple[Any, ...]:
    return (tensor.dtype, getattr(tensor, "role", ""), getattr(tensor, "layout", ""))


def _names(op: Op) -> frozenset[str]:
    """First words of every tensor, stage and scalar name: `C` of `C.sum`."""
    tensors = (*op.tensors, *op.intermediates)
    whole = (
        [p.name for p in op.params]
        + [t.name for t in tensors]
        + [t.length for t in tensors if t.length]
        + [s.name for s in op.stages]
    )
    return frozenset(name.partition(".")[0] for name in whole)


def _apart(op: Op, taken: frozenset[str]) -> Op:
    """`op` with the names that are in `taken` changed to new ones (`C` to `C_2`, `C.sum` to `C_2.sum`)."""
    own = _names(op)
    names: dict[str, str] = {}
    for name in sorted(own & taken):
        number = 2
        while f"{name}_{number}" in taken | own:
            number += 1
        names[name] = f"{name}_{number}"
    if not names:
        return op
    scalars = {p.name for p in op.params if isinstance(p, Scalar)}

    def new(name: str) -> str:
        first, dot, rest = name.partition(".")
        return names.get(first, first) + dot + rest

    def renamed(node: Any) -> Any:
        return replace(node, name=new(node.name))

    return rewrite(
        op,
        {
            Load: lambda n: replace(n, tensor=new(n.tensor)),
            Var: lambda n: renamed(n) if n.name in scalars else n,
            Tensor: lambda n: replace(n, name=new(n.name), length=None if n.length is None else new(n.length)),
            Scalar: renamed,
            Target: renamed,
            Map: renamed,
            Reduce: renamed,
            Scan: renamed,
            TopK: renamed,
            Compact: lambda n: replace(n, name=new(n.name), length=new(n.length)),
        },
    )


def _kept_axes(source: tuple[int, ...], seen: tuple[int, ...]) -> tuple[int, ...] | None:
    """Which axes of the broadcast shape `seen` index `source` (-1: always element 0); None when nothing is broadcast."""
    if source == seen:
        return None
    missing = len(seen) - len(source)
    return tuple(
        -1 if extent == 1 and seen[missing + axis] != 1 else missing + axis for axis, extent in enumerate(source)
    )


def _redirected(load: Load, redirect: Mapping[str, tuple[str, tuple[int, ...] | None]]) -> Load:
    if load.tensor not in redirect:
        return load
    tensor, axes = redirect[load.tensor]
    if axes is None:
        return replace(load, tensor=tensor)
    return replace(load, tensor=tensor, index=tuple(index(0) if axis < 0 else load.index[axis] for axis in axes))
