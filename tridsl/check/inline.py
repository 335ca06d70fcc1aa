"""An op's call as a stage: `h = rmsnorm(x, g, 1e-6)` becomes the stages of `rmsnorm`, named `h.<stage>`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from tridsl.check.bounds import shown_index
from tridsl.check.expressions import evaluate
from tridsl.check.lift import lift
from tridsl.check.names import counted, listing, suggestion, written
from tridsl.check.operands import adapt
from tridsl.check.overloads import select, signature_text
from tridsl.check.prove import Prover
from tridsl.check.resolve import BoundModule, Overload
from tridsl.check.scope import Known, Place, Scope, length_of
from tridsl.check.statements import finish
from tridsl.check.values import Value
from tridsl.diagnostics import TriError, error
from tridsl.dtypes import BOOL, DType, compute_type
from tridsl.ir.expr import Binary, Cast, Const, Expr, Load, Node, Var, index, sub
from tridsl.ir.op import Axis, Compact, Contract, Map, Op, Reduce, Scalar, Scan, Stage, Target, Tensor, TopK
from tridsl.ir.walk import rewrite, substitute, variables, walk
from tridsl.structs import dataclass, replace
from tridsl.syntax.nodes import Expression, Invoke, Name, Operation, Statement

N = TypeVar("N", bound=Node)

Elaborate = Callable[[Overload, Mapping[str, DType]], Op]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Argument:
    """A tensor of the caller, or the checked value for a scalar."""

    syntax: Expression
    tensor: Known | None = None
    value: Value | None = None

    @property
    def dtype(self) -> DType | None:
        return self.tensor.dtype if self.tensor else self.value.type if self.value else None

    @property
    def rank(self) -> int:
        return self.tensor.rank if self.tensor else 0


def called(scope: Scope, statement: Statement, node: Invoke, home: BoundModule, elaborate: Elaborate) -> None:
    """Adds the callee's stages to the scope, with the statement's names for its results."""
    if statement.indices is not None:
        raise error("E0232", f"the result of '{node.function}' is a whole tensor", statement.span,
                    help=f"name it without indices: {statement.targets[0].name} = {written(node)}")  # fmt: skip
    for target in statement.targets:
        scope.define(target.name, target.span)
    positional = [_argument(scope, a) for a in node.args]
    types, by_name = _keywords(scope, node, home)
    overload, chosen = select(
        home, node.function, [a.dtype for a in positional], [a.rank for a in positional], types,
        keywords={k: (a.dtype, a.rank) for k, a in by_name.items()}, span=node.span,
    )  # fmt: skip
    operation = overload.operation
    if len(statement.targets) != len(operation.results):
        raise error("E0232", f"'{node.function}' has {counted(len(operation.results), 'result')}, but {counted(len(statement.targets), 'name')} on the left",
                    statement.span, help=f"its results are {listing(r.name for r in operation.results)}")  # fmt: skip
    try:
        op = elaborate(overload, chosen)
    except TriError as problem:
        raise _inside(problem, node) from None
    arguments = dict(zip((p.name for p in operation.parameters), positional)) | by_name
    batch = tuple(arguments[t.name].rank - len(t.shape) for t in op.tensors if t.role != "output")
    try:
        op = lift(op, batch)
    except TriError as problem:
        raise TriError(*(replace(d, span=node.span) for d in problem.diagnostics)) from None
    values = _bind(scope, op, arguments, node)
    _add(scope, op, arguments, values, statement, operation)


def _argument(scope: Scope, node: Expression) -> _Argument:
    if isinstance(node, Name) and node.name in scope.tensors and scope.tensors[node.name].rank:
        scope.used.add(node.name)
        return _Argument(syntax=node, tensor=scope.tensors[node.name])
    return _Argument(syntax=node, value=evaluate(scope, node, Place()))


def _keywords(scope: Scope, node: Invoke, home: BoundModule) -> tuple[dict[str, DType], dict[str, _Argument]]:
    """Type parameters and arguments passed by name."""
    generic = {t.name for o in home.operations[node.function] for t in o.operation.type_parameters}
    named = {p.name for o in home.operations[node.function] for p in o.operation.parameters}
    types: dict[str, DType] = {}
    arguments: dict[str, _Argument] = {}
    for keyword in node.keywords:
        if keyword.name in generic and isinstance(keyword.value, Name):
            types[keyword.name] = scope.dtype(keyword.value.name, keyword.value.span)
        elif keyword.name in named and keyword.value is not None:
            arguments[keyword.name] = _argument(scope, keyword.value)
        else:
            raise error("E0503", f"'{node.function}' has no parameter '{keyword.name}'", keyword.span,
                        help=suggestion(keyword.name, generic | named)
                        or "; ".join(signature_text(o.operation) for o in home.operations[node.function]))  # fmt: skip
    return types, arguments


def _inside(problem: TriError, node: Invoke) -> TriError:
    first = problem.diagnostics[0]
    if first.code == "E0224":  # recursion is no mistake of the callee alone
        return problem
    return error("E0508", f"the op '{node.function}' that is called here has a mistake of its own: {first.message}", node.name_span or node.span,
                 help="correct it there first")  # fmt: skip


def _bind(scope: Scope, op: Op, arguments: Mapping[str, _Argument], node: Invoke) -> dict[str, Expr]:
    """What the callee's sizes and scalars are in the caller's terms; extents that must agree become contracts."""
    values: dict[str, Expr] = {}
    for p in op.params:
        if isinstance(p, Scalar):
            values[p.name] = _scalar(scope, p, arguments.get(p.name), node)
    pending: list[tuple[Expr, Expr, Tensor]] = []
    for tensor in op.tensors:
        if tensor.role == "output":
            continue
        given = arguments[tensor.name].tensor
        if given is None:
            raise error("E0503", f"'{tensor.name}' of '{op.name}' is a tensor", arguments[tensor.name].syntax.span,
                        help="pass a parameter or a stage by its name")  # fmt: skip
        if tensor.role == "inout" and given.role != "inout":
            raise error("E0233", f"'{op.name}' updates '{tensor.name}' in place, but '{given.name}' is no inout parameter",
                        arguments[tensor.name].syntax.span, help=f"declare it inout {given.name}")  # fmt: skip
        for dimension, (lo, hi) in zip(tensor.shape, given.ranges):
            extent = sub(hi, lo)
            if isinstance(dimension, Var) and dimension.name in op.sizes and dimension.name not in values:
                values[dimension.name] = extent
            else:
                pending.append((dimension, extent, tensor))
    for dimension, extent, tensor in pending:
        missing = [n for n in sorted(variables(dimension)) if n not in values]
        if missing:
            raise error("E0504", f"the shapes given to '{op.name}' do not tell its size {missing[0]}", node.span,
                        help=f"'{tensor.name}' is declared with {shown_index(dimension)}")  # fmt: skip
        _require_same(scope, substitute(dimension, values), extent, f"'{tensor.name}' of '{op.name}'", node)
    return values


def _require_same(scope: Scope, declared: Expr, extent: Expr, what: str, node: Invoke) -> None:
    if Prover(scope.facts).same(declared, extent):
        return
    fixed = isinstance(declared, Const) and isinstance(extent, Const)
    if fixed or any(isinstance(n, Load) for e in (declared, extent) for n in walk(e)):
        raise error("E0504", f"{what} has {shown_index(extent)} elements along an axis where {shown_index(declared)} are needed", node.span,
                    help="give tensors of matching sizes")  # fmt: skip
    scope.require(Binary(op="eq", a=declared, b=extent, dtype=BOOL),
                  f"{what} needs {shown_index(declared)} == {shown_index(extent)}", node.span)  # fmt: skip


def _scalar(scope: Scope, parameter: Scalar, argument: _Argument | None, node: Invoke) -> Expr:
    """The value of a scalar parameter, of the dtype its `Var` has in the callee."""
    if argument is None:
        assert parameter.default is not None
        default = parameter.default
        return index(int(default.value)) if parameter.const and parameter.dtype.is_integer else default
    if argument.value is None:
        raise error("E0503", f"'{parameter.name}' of '{node.function}' is a number, '{written(argument.syntax)}' is a tensor",
                    argument.syntax.span, help="pass one element, computed by a stage without indices")  # fmt: skip
    if parameter.const and parameter.dtype.is_integer:
        adapt(scope, argument.value, parameter.dtype, Place())
        value = evaluate(scope, argument.syntax, Place(indexing=True)).ir
    else:
        value = adapt(scope, argument.value, parameter.dtype, Place())
        if compute_type(parameter.dtype) != parameter.dtype:  # the callee casts the stored type up by itself
            value = Cast(a=value, dtype=parameter.dtype)
    runtime = [
        n
        for n in walk(value)
        if isinstance(n, Load) or (isinstance(n, Var) and n.name in scope.scalars and not scope.scalars[n.name].const)
    ]
    if parameter.const and runtime:
        raise error("E0507", f"'{parameter.name}' of '{node.function}' is const, '{written(argument.syntax)}' is known at run time only",
                    argument.syntax.span, help="pass a literal, a size or a const parameter")  # fmt: skip
    return value


def _add(scope: Scope, op: Op, arguments: Mapping[str, _Argument], values: Mapping[str, Expr], statement: Statement,
         operation: Operation) -> None:  # fmt: skip
    prefix = statement.targets[0].name
    names = {t.name: arguments[t.name].tensor.name for t in op.tensors if t.role != "output"}  # type: ignore[union-attr]
    names |= {r.name: t.name for r, t in zip(operation.results, statement.targets)}
    for tensor in op.intermediates:
        names[tensor.name] = scope.unique(f"{prefix}.{tensor.name}")
    for output in op.outputs:
        if output.length:
            names[output.length] = f"{names[output.name]}.len"
    renaming = _Renaming(names=names, values=dict(values), axes=_axis_names(op, values), prefix=prefix)
    for tensor in op.tensors:
        if tensor.role == "inout":
            _define_update(scope, names[tensor.name], statement)
    for contract in op.contracts:
        _add_contract(scope, contract, values, op, statement)
    for tensor in op.intermediates:
        shape = tuple(scope.capacity(substitute(d, values)) for d in tensor.shape)
        length = names.get(tensor.length, tensor.length) if tensor.length else None
        scope.intermediates[names[tensor.name]] = replace(tensor, name=names[tensor.name], shape=shape, length=length)
        if tensor.name.endswith(".len") and not shape:
            owner = next(
                (t for t in op.intermediates if t.length == tensor.name and f"{t.name}.len" == tensor.name), None
            )
            if owner is not None:
                scope.lengths[names[tensor.name]] = scope.capacity(substitute(owner.shape[0], values))
    for check in op.checks:
        message = f"{op.name}: {check.message}"
        scope.checks.append(replace(check, condition=renaming.renamed(check.condition), message=message))
    scope.stages += [renaming.stage(s) for s in op.stages]
    for result, target in zip(op.outputs, statement.targets):
        _define_result(scope, result, target, values, statement)


def _axis_names(op: Op, values: Mapping[str, Expr]) -> dict[str, str]:
    """New names for axes that would capture a name of the caller."""
    free = {n for v in values.values() for n in variables(v)}
    axes = {n.name for n in walk(op.stages) if isinstance(n, Axis)}
    renamed = {}
    for name in sorted(axes & free):
        fresh = name
        while fresh in axes or fresh in free:
            fresh += "_"
        renamed[name] = fresh
    return renamed


@dataclass(frozen=True, slots=True, kw_only=True)
class _Renaming:
    names: Mapping[str, str]
    values: Mapping[str, Expr]
    axes: Mapping[str, str]
    prefix: str

    def renamed(self, node: N) -> N:
        """`node` with its tensors, indices and values as the caller calls them."""
        variables_ = {**self.values, **{old: Var(name=new) for old, new in self.axes.items()}}
        bound = {n.name for n in walk(node) if isinstance(n, Axis)}
        inner = {k: v for k, v in variables_.items() if k not in bound or k in self.axes}
        return rewrite(
            node,
            {
                Var: lambda v: inner.get(v.name, v),
                Load: lambda load: replace(load, tensor=self.names.get(load.tensor, load.tensor)),
                Axis: lambda a: replace(a, name=self.axes.get(a.name, a.name)),
                Target: lambda t: replace(t, name=self.names[t.name], axes=tuple(self.axes.get(a, a) for a in t.axes)),
            },
        )

    def stage(self, stage: Stage) -> Stage:
        renamed = self.renamed(stage)
        name = self.names.get(stage.name) or f"{self.prefix}.{stage.name}"
        if isinstance(renamed, Compact):
            return replace(renamed, name=name, length=self.names[renamed.length])
        if isinstance(renamed, Map | Reduce | Scan | TopK):
            return replace(renamed, name=name)
        raise TypeError(stage)


def _define_update(scope: Scope, name: str, statement: Statement) -> None:
    if name in scope.assigned:
        raise error("E0207", f"'{name}' is updated twice", statement.span, help="one stage updates an inout parameter")
    scope.assigned[name] = statement.span


def _add_contract(scope: Scope, contract: Contract, values: Mapping[str, Expr], op: Op, statement: Statement) -> None:
    condition: Expr = substitute(contract.condition, values)
    if Prover(scope.facts).holds(condition):
        return
    if not contract.late and any(isinstance(n, Load) for n in walk(condition)):
        raise error("E0507", f"'{op.name}' needs '{contract.message}', which here depends on a value known at run time only", statement.span,
                    help="pass sizes and numbers that the call knows")  # fmt: skip
    scope.require(condition, f"{op.name}: {contract.message}", statement.span, late=contract.late)


def _define_result(
    scope: Scope, result: Tensor, target: Name, values: Mapping[str, Expr], statement: Statement
) -> None:
    """The result is a stage of the caller, or its own result of just this shape."""
    shape = tuple(substitute(d, values) for d in result.shape)
    parameter = scope.parameters.get(target.name)
    if parameter is not None:
        if parameter.role == "inout":
            raise error(
                "E0233",
                f"a call cannot write the inout parameter '{target.name}'",
                statement.span,
                help="write a stage and copy it",
            )
        prover = Prover(scope.facts)
        late = parameter.length is not None and result.length is None and bool(shape) and length_of(shape[0]) is not None
        room = late and prover.at_least(parameter.shape[0], shape[0])
        same = len(parameter.shape) == len(shape) and all(
            prover.same(a, b) for a, b in list(zip(parameter.shape, shape))[1 if room else 0 :]
        )
        if parameter.dtype != result.dtype or not same or bool(parameter.length) != (bool(result.length) or room):
            dots = ".." if result.length or (shape and length_of(shape[0])) else ""
            given = f"{result.dtype}[{dots}{', '.join(shown_index(scope.capacity(d)) for d in shape)}]"
            extents = ", ".join(shown_index(d) for d in parameter.shape)
            declared = f"{parameter.dtype}[{'..' if parameter.length else ''}{extents}]"
            raise error(
                "E0308",
                f"the call gives {given}, but '{target.name}' is declared {declared}",
                statement.span,
                help=f"declare {target.name}: {given}",
            )
    axes = tuple(Axis(name=f"i{k}", lo=index(0), hi=extent) for k, extent in enumerate(shape))
    if result.length:
        length = scope.declare_length(target.name, scope.capacity(shape[0]))
        axes = (replace(axes[0], hi=length), *axes[1:])
        scope.declare(target.name, result.dtype, axes, statement.span)
    else:
        finish(scope, target.name, result.dtype, axes, statement)
