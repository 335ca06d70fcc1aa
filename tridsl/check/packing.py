"""`compact` and `topk`: reducers whose result is a tensor, each a whole right-hand side."""

from __future__ import annotations

from tridsl.check.bounds import settle, shown_index
from tridsl.check.expressions import evaluate, index_expression
from tridsl.check.operands import adapt, truth
from tridsl.check.prove import Prover
from tridsl.check.ranges import axis_of
from tridsl.check.scope import Place, Scope
from tridsl.check.statements import target_type
from tridsl.check.values import integer, stored
from tridsl.diagnostics import error
from tridsl.dtypes import BOOL, I32, I64, INDEX, DType
from tridsl.ir.expr import Binary, Expr, Load, Var, index, sub
from tridsl.ir.op import Axis, Compact, Target, Tensor, TopK
from tridsl.ir.walk import walk
from tridsl.structs import replace
from tridsl.syntax.nodes import Reduction, Statement


def packed(scope: Scope, statement: Statement, node: Reduction) -> None:
    """The stage of `y = compact[i](value, keep)` or `v, p = topk[n; k=K](x[n])`."""
    if node.scan:
        raise error(
            "E0229", f"'{node.reducer}' cannot be scanned", node.span, help="scan takes sum, max, … and monoids"
        )
    if len(node.axes) != 1:
        raise error(
            "E0228",
            f"'{node.reducer}' runs along one index, not {len(node.axes)}",
            node.span,
            help=f"write {node.reducer}[i](…)",
        )
    (_compact if node.reducer == "compact" else _topk)(scope, statement, node)


def _compact(scope: Scope, statement: Statement, node: Reduction) -> None:
    if len(statement.targets) != 1 or statement.indices is not None:
        raise error("E0232", "compact defines one tensor of run-time length, named without indices", statement.span,
                    help="write y = compact[i](x[i], x[i] > 0)", example="y = compact[i](x[i], x[i] > 0)")  # fmt: skip
    if node.options:
        raise error(
            "E0227",
            f"'{node.options[0].name}' is no option of compact",
            node.options[0].span,
            help="compact takes none",
        )
    if len(node.args) != 2:
        raise error("E0228", f"'compact' takes a value and a condition, not {len(node.args)} values", node.span,
                    help="write compact[i](x[i], x[i] > 0)", example="y = compact[i](x[i], x[i] > 0)")  # fmt: skip
    target = statement.targets[0]
    scope.define(target.name, target.span)
    axis = axis_of(scope, node.axes[0], node.args, Place(target=target.name), evaluate)
    place = Place(target=target.name, axes=(axis,))
    value = evaluate(scope, node.args[0], place)
    keep = truth(evaluate(scope, node.args[1], place))
    parameter = scope.parameters.get(target.name)
    extent = scope.capacity(sub(axis.hi, axis.lo))
    if parameter is not None:
        _check_result(scope, parameter, extent, statement)
    dtype = target_type(value, parameter)
    result = stored(adapt(scope, value, dtype, place), dtype)
    stage = Compact(
        name=target.name,
        dtype=dtype,
        along=axis,
        value=result,
        keep=keep,
        length=f"{target.name}.len",
        span=statement.span,
    )
    stage = settle(scope, stage)
    length = scope.declare_length(target.name, parameter.shape[0] if parameter else extent)
    for earlier in scope.stages:  # what is kept by one condition has one length
        if isinstance(earlier, Compact) and (earlier.along, earlier.keep) == (stage.along, stage.keep):
            length = replace(length, tensor=earlier.length)
            break
    scope.stages.append(stage)
    packed_axis = Axis(name=axis.name, lo=index(0), hi=length, span=node.span)
    scope.declare(target.name, dtype, (packed_axis,), statement.span)


def _check_result(scope: Scope, parameter: Tensor, extent: Expr, statement: Statement) -> None:
    shape = ", ".join(shown_index(d) for d in parameter.shape)
    if parameter.role == "inout":
        raise error(
            "E0233",
            f"compact cannot write the inout parameter '{parameter.name}'",
            statement.span,
            help="write a result and copy it back",
        )
    if parameter.length is None or len(parameter.shape) != 1:
        raise error("E0305", f"compact gives a run-time length, but '{parameter.name}' is declared {parameter.dtype}[{shape}]", statement.span,
                    help=f"declare it {parameter.name}: {parameter.dtype}[..{shape}]")  # fmt: skip
    if not Prover(scope.facts).at_least(parameter.shape[0], extent):
        raise error("E0305", f"'{parameter.name}' holds up to {shape} elements, compact may give {shown_index(extent)}", statement.span,
                    help=f"declare it {parameter.name}: {parameter.dtype}[..{shown_index(extent)}]")  # fmt: skip


def _topk(scope: Scope, statement: Statement, node: Reduction) -> None:
    if len(statement.targets) > 2:
        raise error("E0232", "topk has two results, values and positions", statement.span, help="write v, p = topk[n; k=4](x[n])",
                    example="v, p = topk[n; k=4](x[n])")  # fmt: skip
    if len(node.args) != 1:
        raise error(
            "E0228", f"'topk' takes one value, not {len(node.args)}", node.span, help="write topk[n; k=4](x[n])"
        )
    count = next((o.value for o in node.options if o.name == "k"), None)
    if count is None or len(node.options) != 1:
        raise error("E0227", "topk needs the option k=… and takes no other", node.span, help="write topk[n; k=4](x[n])",
                    example="v, p = topk[n; k=4](x[n])")  # fmt: skip
    for i in statement.indices or ():
        if i.name == node.axes[0].name:
            raise error("E0218", f"the index '{i.name}' is bound twice", i.span,
                        help=f"the results of topk have an axis of k elements behind the indices on the left: leave out {i.name}",
                        example="v, p = topk[n; k=4](x[n])")  # fmt: skip
    for target in statement.targets:
        scope.define(target.name, target.span)
    first = statement.targets[0].name
    outer = Place(target=first)
    axes: tuple[Axis, ...] = ()
    for i in statement.indices or ():
        axes += (axis_of(scope, i, (statement.value,), outer, evaluate),)
    along = axis_of(scope, node.axes[0], node.args, outer, evaluate)
    place = Place(target=first, axes=(*axes, along))
    value = evaluate(scope, node.args[0], place)
    if value.type == BOOL:
        raise error("E0213", "topk does not take bools", value.syntax.span, help="cast them: i32(…)")
    if along.lo != index(0):
        raise error("E0304", f"topk runs along an index from 0, not from {shown_index(along.lo)}", node.axes[0].span,
                    help="shift the access inside: topk[n in 0..N - 1; k=4](x[n + 1])")  # fmt: skip
    k = index_expression(scope, count, outer)
    extent = sub(along.hi, along.lo)
    if any(isinstance(n, Load) for n in (*walk(k), *walk(extent))):
        raise error(
            "E0305",
            "topk needs a size that is known at the call, not a run-time length",
            node.span,
            help="take the topk before compacting",
        )
    _require_enough(scope, k, extent, node)
    dtype = target_type(value, scope.parameters.get(first))
    positions = _position_type(scope, statement)
    result = stored(adapt(scope, value, dtype, place), dtype)
    names = tuple(a.name for a in axes)
    second = statement.targets[1].name if len(statement.targets) == 2 else scope.unique(f"{first}.index")
    stage = TopK(
        name=first,
        values=Target(name=first, dtype=dtype, axes=names),
        indices=Target(name=second, dtype=positions, axes=names),
        axes=axes,
        along=along,
        k=k,
        value=result,
        span=statement.span,
    )
    scope.stages.append(settle(scope, stage))
    last = Axis(name=along.name, lo=index(0), hi=k)
    for name, of in ((first, dtype), (second, positions)):
        _check_shape(scope, name, (*axes, last), statement)
        scope.declare(name, of, (*axes, last), statement.span)
    scope.know_range(second, along.lo, sub(along.hi, index(1)))
    if positions != INDEX:
        here = replace(place, axes=(along,))
        adapt(scope, integer(Var(name=along.name), node), positions, here)


def _require_enough(scope: Scope, k: Expr, extent: Expr, node: Reduction) -> None:
    prover = Prover(scope.facts)
    if not prover.at_least(extent, k):
        scope.require(Binary(op="le", a=k, b=extent, dtype=BOOL), f"topk: k = {shown_index(k)} must not exceed the {shown_index(extent)} elements",
                      node.span)  # fmt: skip
    if not prover.at_least(k, index(0)):
        scope.require(
            Binary(op="ge", a=k, b=index(0), dtype=BOOL), f"topk: k = {shown_index(k)} must not be negative", node.span
        )


def _position_type(scope: Scope, statement: Statement) -> DType:
    if len(statement.targets) < 2:
        return I32
    target = statement.targets[1]
    parameter = scope.parameters.get(target.name)
    if parameter is None:
        return I32
    if parameter.dtype not in (I32, I64):
        raise error(
            "E0221",
            f"positions are i32 or i64, but '{target.name}' is declared {parameter.dtype}",
            target.span,
            help=f"declare {target.name}: i32[…]",
        )
    return parameter.dtype


def _check_shape(scope: Scope, name: str, axes: tuple[Axis, ...], statement: Statement) -> None:
    parameter = scope.parameters.get(name)
    if parameter is None:
        return
    if parameter.role == "inout":
        raise error(
            "E0233",
            f"topk cannot write the inout parameter '{name}'",
            statement.span,
            help="write a result and copy it back",
        )
    prover = Prover(scope.facts)
    same = (
        len(parameter.shape) == len(axes)
        and parameter.length is None
        and all(prover.same(declared, sub(a.hi, a.lo)) for declared, a in zip(parameter.shape, axes))
    )
    if not same:
        declared = ", ".join(shown_index(d) for d in parameter.shape)
        given = ", ".join(shown_index(sub(a.hi, a.lo)) for a in axes)
        raise error("E0308", f"'{name}' is declared {parameter.dtype}[{declared}], topk gives [{given}]", statement.span,
                    help=f"declare {name}: {parameter.dtype}[{given}]")  # fmt: skip
