"""Mapping an op over extra leading axes, with NumPy's broadcasting.

`softmax(x: f32[N])` with one batch axis becomes `softmax(x: f32[B0, N])`: every stage that depends on a batched parameter
runs over the batch axes too; a stage that depends on none is computed once.
"""

from __future__ import annotations

from tridsl.diagnostics import error
from tridsl.ir.expr import Expr, Load, Var, index
from tridsl.ir.op import Axis, Compact, Map, Op, Reduce, Scan, Stage, Target, Tensor, TopK
from tridsl.ir.walk import rewrite, variables, walk
from tridsl.structs import dataclass, replace


@dataclass(slots=True, kw_only=True)
class _Lifting:
    """`depth`: how many batch axes (the innermost ones) a tensor has so far."""

    axes: tuple[Axis, ...]
    depth: dict[str, int]
    outputs: frozenset[str]

    def inner(self, depth: int) -> tuple[Axis, ...]:
        return self.axes[len(self.axes) - depth :]

    def read_by(self, *expressions: Expr) -> int:
        return max(
            (self.depth.get(n.tensor, 0) for e in expressions for n in walk(e) if isinstance(n, Load)), default=0
        )

    def written(self, name: str, depth: int) -> int:
        """The depth of a tensor that a stage writes: outputs have every batch axis."""
        self.depth[name] = len(self.axes) if name in self.outputs else depth
        return self.depth[name]

    def index(self, node: Expr) -> Expr:
        def visit(load: Load) -> Load:
            depth = self.depth.get(load.tensor, 0)
            return replace(load, index=(*(Var(name=a.name) for a in self.inner(depth)), *load.index)) if depth else load

        return rewrite(node, {Load: visit})

    def shape(self, tensor: Tensor) -> Tensor:
        extents = tuple(a.hi for a in self.inner(self.depth.get(tensor.name, 0)))
        return replace(tensor, shape=(*extents, *tensor.shape)) if extents else tensor

    def target(self, target: Target) -> Target:
        names = tuple(a.name for a in self.inner(self.depth[target.name]))
        return replace(target, axes=(*names, *target.axes))


def lift(op: Op, batch: tuple[int, ...]) -> Op:
    """`op` over extra leading axes; `batch` gives their number for each input and inout tensor, in order.

    Batch axes align to the right; they are called `b0`, `b1`, … (outermost first) of sizes `B0`, `B1`, …. A parameter with
    fewer lacks the outer ones; outputs have all. Every batch axis has its full size in every parameter that has it (a caller
    broadcasts an extent of 1 by a stride of 0). Raises E0510 for compaction, whose length would differ along the axes, and
    E0511 for an inout parameter that lacks an axis.
    """
    inputs = tuple(t for t in op.tensors if t.role != "output")
    if len(batch) != len(inputs):
        raise ValueError(f"{op.name} has {len(inputs)} input tensors, not {len(batch)}")
    count = max(batch, default=0)
    if count == 0:
        return op
    for tensor, extra in zip(inputs, batch):
        if tensor.role == "inout" and extra != count:
            raise error("E0511", f"{op.name}: '{tensor.name}' is updated in place and needs all {count} leading axes of the call, it has {extra}",
                        help="give it the leading axes too: what is written must have a place for each")  # fmt: skip
    if any(isinstance(s, Compact) for s in op.stages) or any(t.length for t in op.tensors):
        raise error("E0510", f"{op.name}: compaction cannot be mapped over leading axes: each row would have a length of its own",
                    help="call it once per row")  # fmt: skip
    lifting = _Lifting(
        axes=_batch_axes(op, count),
        depth={t.name: extra for t, extra in zip(inputs, batch)} | {t.name: count for t in op.outputs},
        outputs=frozenset(t.name for t in op.tensors if t.role != "input"),
    )
    stages = tuple(_stage(lifting, s) for s in op.stages)
    sizes = tuple(a.hi.name for a in lifting.axes if isinstance(a.hi, Var))
    return replace(
        op,
        params=tuple(lifting.shape(p) if isinstance(p, Tensor) else p for p in op.params),
        sizes=sizes + op.sizes,
        stages=stages,
        intermediates=tuple(lifting.shape(t) for t in op.intermediates),
    )


def _batch_axes(op: Op, count: int) -> tuple[Axis, ...]:
    taken = {*op.sizes, *(p.name for p in op.params), *variables(op.stages)}
    taken |= {n.name for n in walk(op.stages) if isinstance(n, Axis)}

    def free(name: str) -> str:
        while name in taken:
            name += "_"
        return name

    return tuple(Axis(name=free(f"b{k}"), lo=index(0), hi=Var(name=free(f"B{k}"))) for k in range(count))


def _stage(lifting: _Lifting, stage: Stage) -> Stage:
    match stage:
        case Map():
            depth = lifting.written(stage.name, lifting.read_by(stage.value))
            return replace(stage, axes=lifting.inner(depth) + stage.axes, value=lifting.index(stage.value))
        case Reduce() | Scan():
            depths = _state_depths(lifting, stage)
            values = tuple(lifting.index(v) for v in stage.values)
            most = max(lifting.written(t.name, d) for t, d in zip(stage.targets, depths))
            targets = tuple(lifting.target(t) for t in stage.targets)
            return replace(stage, axes=lifting.inner(most) + stage.axes, targets=targets, values=values)
        case TopK():
            depth = lifting.read_by(stage.value)
            depth = max(
                depth, *(len(lifting.axes) for t in (stage.values, stage.indices) if t.name in lifting.outputs), 0
            )
            value = lifting.index(stage.value)
            lifting.depth[stage.values.name] = lifting.depth[stage.indices.name] = depth
            return replace(stage, axes=lifting.inner(depth) + stage.axes, values=lifting.target(stage.values),
                           indices=lifting.target(stage.indices), value=value)  # fmt: skip
    raise TypeError(stage)


def _state_depths(lifting: _Lifting, stage: Reduce | Scan) -> list[int]:
    """A state has the batch axes of its operand and of the states its merge reads."""
    depths = [lifting.read_by(v) for v in stage.values]
    for _ in depths:
        for s, merge in enumerate(stage.reducer.merge):
            names = variables(merge)
            reads = [d for state, d in zip(stage.reducer.states, depths) if {f"a.{state}", f"b.{state}"} & names]
            depths[s] = max(depths[s], *reads, 0)
    return depths
