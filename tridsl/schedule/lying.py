"""An op as its inputs lie in memory, for whoever decides along which axes loops and lanes run."""

from __future__ import annotations

from tridsl.ir.expr import Load
from tridsl.ir.op import Op, Tensor
from tridsl.ir.strides import memory_order
from tridsl.ir.walk import rewrite
from tridsl.structs import replace


def in_memory_order(op: Op) -> Op:
    """
    op f(x: f32[M, N] strides [1, M]) … x[i, j]    ->    op f(x: f32[N, M]) … x[j, i]

    The axes of the stages are the same ones, so what is decided for this op holds for the other.
    """
    orders = {p.name: memory_order(p) for p in op.params if isinstance(p, Tensor) and p.role == "input"}
    turned = {name: order for name, order in orders.items() if order != tuple(range(len(order)))}
    if not turned:
        return op

    def laid(load: Load) -> Load:
        order = turned.get(load.tensor)
        return load if order is None else replace(load, index=tuple(load.index[axis] for axis in order))

    params = tuple(
        replace(p, shape=tuple(p.shape[axis] for axis in turned[p.name]), strides=None) if isinstance(p, Tensor) and p.name in turned else p
        for p in op.params
    )
    return replace(op, params=params, stages=rewrite(op.stages, {Load: laid}))
