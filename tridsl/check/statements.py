"""One statement of an op: which axes it runs over, what it computes, the stage that comes of it."""

from __future__ import annotations

from tridsl.check.bounds import settle, shown_index
from tridsl.check.expressions import evaluate
from tridsl.check.names import cast, counted, written
from tridsl.check.operands import adapt
from tridsl.check.prove import Prover
from tridsl.check.ranges import axis_of, check_index_name
from tridsl.check.reductions import refuse_packing
from tridsl.check.scope import Place, Scope
from tridsl.check.values import Value, operand_type, stored
from tridsl.diagnostics import error
from tridsl.dtypes import DTYPES, INDEX, DType
from tridsl.ir.expr import Expr, Load, Var, index
from tridsl.ir.op import Axis, Map, Reduce, Scan, Tensor
from tridsl.structs import replace
from tridsl.syntax.nodes import Index, Statement


def computed(scope: Scope, statement: Statement) -> None:
    """`name[i, j] = expression`: a Map, or a reducer's own stage where the expression is nothing else."""
    target = statement.targets[0]
    if len(statement.targets) > 1:
        raise error("E0232", "several names on the left need a right-hand side with several results", statement.span,
                    help="topk and calls of ops with several results have them", example="v, p = topk[n; k=4](x[n])")  # fmt: skip
    refuse_packing(statement.value)
    scope.define(target.name, target.span)
    parameter = scope.parameters.get(target.name)
    indices = statement.indices or ()
    if parameter is not None and len(indices) != len(parameter.shape):
        raise error("E0210", f"'{target.name}' is declared with {counted(len(parameter.shape), 'axis', 'axes')}, but written with {counted(len(indices), 'index', 'indices')}",
                    statement.span if not indices else target.span,
                    help=f"write one index for each axis on the left: {_element(target.name, len(parameter.shape))} = …")  # fmt: skip
    axes = _axes(scope, statement, indices, parameter)
    updates = parameter is not None and parameter.role == "inout"
    written_at: tuple[Expr, ...] = tuple(Var(name=a.name) for a in axes)
    place = Place(target=target.name, axes=axes, writes=(target.name, written_at) if updates else None)
    before = len(scope.stages)
    value = evaluate(scope, statement.value, place)
    dtype = target_type(value, parameter)
    result = stored(adapt(scope, value, dtype, place), dtype)
    if not updates and len(scope.stages) > before and _write_directly(scope, target.name, dtype, axes, result):
        pass
    else:
        stage = Map(name=target.name, dtype=dtype, axes=axes, value=result, span=statement.span)
        scope.stages.append(settle(scope, stage))
    finish(scope, target.name, dtype, axes, statement)


def _element(name: str, rank: int) -> str:
    return f"{name}[{', '.join('ijklmnop'[:rank])}]" if rank else name


def finish(scope: Scope, name: str, dtype: DType, axes: tuple[Axis, ...], statement: Statement) -> None:
    """The stage's tensor is known from here on; a `..N` result takes its length."""
    scope.declare(name, dtype, axes, statement.span)
    parameter = scope.parameters.get(name)
    if parameter is not None and parameter.length is not None:
        scope.declare_length(name, parameter.shape[0])
        scope.stages.append(Map(name=parameter.length, dtype=INDEX, axes=(), value=axes[0].hi, span=statement.span))


def target_type(value: Value, parameter: Tensor | None) -> DType:
    """The element type of what a statement defines."""
    if parameter is not None:
        dtype = parameter.dtype
        if value.type is not None and value.type != dtype and operand_type(value.type) != dtype:
            raise error("E0221", f"'{written(value.syntax)}' is {value.type}, but '{parameter.name}' is declared {dtype}", value.syntax.span,
                        label=str(value.type), help=f"write {cast(dtype, value.syntax)}")  # fmt: skip
        return dtype
    if value.type is not None:
        return value.type
    if value.floating:
        raise error("E0215", f"the type of '{written(value.syntax)}' is not known", value.syntax.span,
                    help=f"say it: {cast(DTYPES['f32'], value.syntax)}", example="c = f32(0.5)")  # fmt: skip
    return INDEX


def _axes(scope: Scope, statement: Statement, indices: tuple[Index, ...], parameter: Tensor | None) -> tuple[Axis, ...]:
    axes: tuple[Axis, ...] = ()
    outer = Place(target=statement.targets[0].name)
    for position, node in enumerate(indices):
        if any(a.name == node.name for a in axes):
            raise error(
                "E0218", f"the index '{node.name}' is bound twice", node.span, help="give each axis an index of its own"
            )
        if parameter is None or (parameter.length is not None and position == 0):
            axis = axis_of(scope, node, (statement.value,), outer, evaluate)
            if parameter is not None:
                _check_capacity(scope, axis, parameter)
        elif node.range is not None:
            axis = axis_of(scope, node, (), outer, evaluate)
            _check_part(scope, axis, position, parameter)
        else:
            check_index_name(scope, node)
            axis = Axis(name=node.name, lo=index(0), hi=parameter.shape[position], span=node.span)
        axes += (axis,)
    return axes


def _check_part(scope: Scope, axis: Axis, position: int, parameter: Tensor) -> None:
    """A written range on the left: all of a result, any part of an inout parameter."""
    prover = Prover(scope.facts)
    extent = parameter.shape[position]
    shown = f"{shown_index(axis.lo)}..{shown_index(axis.hi)}"
    if parameter.role == "output":
        if not (prover.same(axis.lo, index(0)) and prover.same(axis.hi, extent)):
            raise error("E0308", f"the result '{parameter.name}' must be written as a whole, 0..{shown_index(extent)}, not {shown}", axis.span,
                        help="leave the range out and select inside: if i < n then … else 0; or make the parameter inout")  # fmt: skip
    elif not (prover.at_least(axis.lo, index(0)) and prover.at_least(extent, axis.hi)):
        raise error("E0303", f"{shown} may be outside '{parameter.name}', whose axis {position} is 0..{shown_index(extent)}", axis.span,
                    label="not provably inside", help=f"state it: where {shown_index(axis.lo)} >= 0 and {shown_index(axis.hi)} <= {shown_index(extent)}")  # fmt: skip


def _check_capacity(scope: Scope, axis: Axis, parameter: Tensor) -> None:
    prover = Prover(scope.facts)
    if not (prover.same(axis.lo, index(0)) and prover.at_least(parameter.shape[0], axis.hi)):
        raise error("E0305", f"'{parameter.name}' holds up to {shown_index(parameter.shape[0])} elements, which may be too few for "
                    f"{shown_index(axis.lo)}..{shown_index(axis.hi)}", axis.span, help="declare it ..N with the N of what it is computed from")  # fmt: skip


def _write_directly(scope: Scope, name: str, dtype: DType, axes: tuple[Axis, ...], result: Expr) -> bool:
    """When the whole right-hand side is the reducer just made, over just these axes and of this type, it writes `name`."""
    stage = scope.stages[-1]
    if not isinstance(result, Load) or not isinstance(stage, Reduce | Scan) or len(stage.targets) != 1:
        return False
    target = stage.targets[0]
    if target.name != result.tensor or target.dtype != dtype or target.axes != tuple(a.name for a in axes):
        return False
    scope.stages[-1] = replace(stage, name=name, targets=(replace(target, name=name),))
    del scope.intermediates[target.name], scope.tensors[target.name]
    loads = tuple((name if t == target.name else t, low, high) for t, low, high in scope.facts.loads)
    scope.facts = replace(scope.facts, loads=loads)
    return True
