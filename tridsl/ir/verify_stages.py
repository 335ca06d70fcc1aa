"""Rules for the stages of an op, and the walk over them in order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from tridsl.dtypes import BOOL, INDEX, DType, compute_type
from tridsl.ir import op
from tridsl.ir.expr import Expr, Node
from tridsl.ir.print_expressions import print_expr
from tridsl.ir.verify_rules import Declared, Rule, Scope, check_reducer, condition

Apply = Callable[[Node, Scope], None]
Report = Callable[[Node, str], None]


def stage_axes(stage: op.Stage) -> tuple[op.Axis, ...]:
    """Every index a stage binds."""
    match stage:
        case op.Map():
            return stage.axes
        case op.Reduce():
            return (*stage.axes, *stage.over)
        case op.Scan() | op.TopK():
            return (*stage.axes, stage.along)
        case op.Compact():
            return (stage.along,)


def stage_values(stage: op.Stage) -> tuple[Expr, ...]:
    match stage:
        case op.Map() | op.TopK():
            return (stage.value,)
        case op.Reduce() | op.Scan():
            return stage.values
        case op.Compact():
            return (stage.value, stage.keep)


def written(stage: op.Stage) -> tuple[tuple[str, DType, int], ...]:
    """(name, dtype, rank) of each tensor a stage writes."""
    match stage:
        case op.Map():
            return ((stage.name, stage.dtype, len(stage.axes)),)
        case op.Reduce() | op.Scan():
            return tuple((t.name, t.dtype, len(t.axes)) for t in stage.targets)
        case op.Compact():
            return ((stage.name, stage.dtype, 1), (stage.length, INDEX, 0))
        case op.TopK():
            return tuple((t.name, t.dtype, len(stage.axes) + 1) for t in (stage.values, stage.indices))


def _stage(stage: op.Stage, scope: Scope) -> Iterator[str]:
    names = [a.name for a in stage_axes(stage)]
    if len(set(names)) != len(names):
        yield f"{stage.name} binds an index twice: {', '.join(names)}"
    for axis in stage_axes(stage):
        if not axis.lo.dtype == axis.hi.dtype == INDEX:
            yield f"the range of {axis.name} in {stage.name} is not i64"
    for name, dtype, rank in written(stage):
        declared = scope.tensors.get(name)
        if declared is None:
            yield f"{stage.name} writes {name}, which is not declared"
        elif not declared.writable:
            yield f"{stage.name} writes the input {name}"
        elif declared.rank != rank:
            yield f"{name} has {declared.rank} axes and is written with {rank}"
        elif declared.dtype != dtype:
            yield f"{name} is {declared.dtype} and is written as {dtype}"


def _map(stage: op.Map, scope: Scope) -> Iterator[str]:
    if stage.value.dtype != compute_type(stage.dtype):
        yield f"{stage.name} of {stage.dtype} is given the {stage.value.dtype} {print_expr(stage.value)}"


def _combination(stage: op.Reduce | op.Scan, scope: Scope) -> Iterator[str]:
    yield from check_reducer(stage.reducer)
    if not len(stage.targets) == len(stage.values) == len(stage.reducer.states):
        yield f"{stage.name}: {stage.reducer.name} has {len(stage.reducer.states)} states, {len(stage.targets)} targets and {len(stage.values)} values"
        return
    own = {a.name for a in stage.axes} | ({stage.along.name} if isinstance(stage, op.Scan) else set())
    for target, value, dtype in zip(stage.targets, stage.values, stage.reducer.dtypes):
        if value.dtype != dtype:
            yield f"{stage.name}: {stage.reducer.name} combines {dtype} and is given the {value.dtype} {print_expr(value)}"
        if compute_type(target.dtype) != dtype:
            yield f"{stage.name}: the {target.dtype} {target.name} cannot hold a state of {dtype}"
        if not set(target.axes) <= own:
            yield f"{stage.name}: {target.name} varies over {', '.join(target.axes)}, which are not all indices of the stage"
        if isinstance(stage, op.Scan) and stage.along.name not in target.axes:
            yield f"{stage.name}: {target.name} does not vary along {stage.along.name}"


def _reduce(stage: op.Reduce, scope: Scope) -> Iterator[str]:
    if not stage.over:
        yield f"{stage.name} reduces over nothing"


def _compact(stage: op.Compact, scope: Scope) -> Iterator[str]:
    yield from condition(stage.keep, "condition of a compaction")
    if stage.value.dtype != compute_type(stage.dtype):
        yield f"{stage.name} of {stage.dtype} is given the {stage.value.dtype} {print_expr(stage.value)}"


def _topk(stage: op.TopK, scope: Scope) -> Iterator[str]:
    if stage.k.dtype != INDEX:
        yield f"{stage.name}: k is {stage.k.dtype}"
    if stage.value.dtype != compute_type(stage.values.dtype):
        yield f"{stage.values.name} of {stage.values.dtype} is given the {stage.value.dtype} {print_expr(stage.value)}"
    if not stage.indices.dtype.is_integer:
        yield f"{stage.indices.name} holds indices and is {stage.indices.dtype}"


STAGE_RULES: Mapping[type, tuple[Rule, ...]] = {
    op.Map: (_stage, _map), op.Reduce: (_stage, _combination, _reduce), op.Scan: (_stage, _combination), op.Compact: (_stage, _compact),
    op.TopK: (_stage, _topk),
}  # fmt: skip


def verify_op(value: op.Op, apply: Apply, expression: Callable[[Expr, Scope], None], report: Report) -> None:
    """Walks the stages in order: a tensor may be read once all of it is written."""
    base = Scope()
    for name in value.sizes:
        base = base.with_variable(name)
    for param in value.params:
        if isinstance(param, op.Scalar):
            base = base.with_variable(param.name, param.dtype)
    places = {t.name: t for t in value.intermediates} | {t.name: t for t in value.tensors}
    lengths = {t.length for t in places.values() if t.length} - set(places)
    everything = base
    for tensor in places.values():
        writable = tensor.name not in {t.name for t in value.tensors if t.role == "input"}
        everything = everything.with_tensor(
            tensor.name, Declared(dtype=tensor.dtype, rank=len(tensor.shape), writable=writable)
        )
        for dimension in tensor.shape:
            expression(dimension, base)
    for name in lengths:
        everything = everything.with_tensor(name, Declared(dtype=INDEX, rank=0, writable=True))
    for contract in value.contracts:
        if contract.condition.dtype != BOOL:
            report(contract, f"the contract '{contract.message}' is {contract.condition.dtype}")
        expression(contract.condition, base)
    readable = {t.name for t in value.tensors if t.role != "output"}
    for stage in value.stages:
        apply(stage, everything)
        scope = base
        for name in readable:
            scope = scope.with_tensor(name, everything.tensors[name])
        inner = scope
        for axis in stage_axes(stage):
            expression(axis.lo, scope)
            expression(axis.hi, scope)
            inner = inner.with_variable(axis.name)
        for node in stage_values(stage):
            expression(node, inner)
        readable |= {name for name, _, _ in written(stage) if name in everything.tensors}
    for check in value.checks:
        if check.condition.dtype != BOOL:
            report(check, f"the check '{check.message}' is {check.condition.dtype}")
        expression(check.condition, everything)
    for tensor in value.outputs:
        if tensor.name not in readable:
            report(tensor, f"the result {tensor.name} is never written")
