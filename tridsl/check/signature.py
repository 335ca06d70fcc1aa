"""The head of an op: parameters, results, sizes and contracts for chosen type parameters."""

from __future__ import annotations

from collections.abc import Iterator

from tridsl.check.expressions import evaluate, index_expression
from tridsl.check.names import suggestion, written
from tridsl.check.operands import adapt, truth
from tridsl.check.prove import Prover
from tridsl.check.ranges import parts
from tridsl.check.scope import Known, Place, Scope
from tridsl.diagnostics import Span, error
from tridsl.dtypes import BOOL, DTYPES, INDEX, DType
from tridsl.ir.expr import Binary, Call, Const, Expr, Load, Var, index
from tridsl.ir.op import Param, Role, Scalar, Tensor
from tridsl.ir.walk import walk
from tridsl.structs import replace
from tridsl.syntax.nodes import Expression, Monoid, Name, Operation, Parameter, Syntax, TypeParameter


def type_choices(operation: Operation | Monoid) -> Iterator[dict[str, DType]]:
    """Every combination of type parameters, in the order written."""

    def choose(rest: tuple[TypeParameter, ...], chosen: dict[str, DType]) -> Iterator[dict[str, DType]]:
        if not rest:
            yield dict(chosen)
            return
        seen = set()
        for choice in rest[0].choices:
            dtype = chosen.get(choice.name) or DTYPES.get(choice.name)
            if dtype is None:
                raise error(
                    "E0204",
                    f"'{choice.name}' is not a type",
                    choice.span,
                    help=suggestion(choice.name, [*chosen, *DTYPES])
                    or "choices are element types and type parameters before this one",
                )
            if dtype not in seen:
                seen.add(dtype)
                yield from choose(rest[1:], {**chosen, rest[0].name: dtype})

    yield from choose(operation.type_parameters, {})


def check_type_parameters(operation: Operation) -> None:
    """Names and defaults of the type parameters."""
    seen: set[str] = set()
    for parameter in operation.type_parameters:
        if parameter.name in DTYPES or parameter.name in seen:
            raise error(
                "E0202",
                f"the type parameter '{parameter.name}' is defined already",
                parameter.span,
                help="choose another name",
            )
        seen.add(parameter.name)
        default = parameter.default
        if default is not None and default.name not in {c.name for c in parameter.choices}:
            raise error("E0205", f"the default {default.name} of '{parameter.name}' is none of its choices", default.span,
                        help=f"choose from {', '.join(c.name for c in parameter.choices)}")  # fmt: skip


def declare(scope: Scope, operation: Operation) -> tuple[Param, ...]:
    """Fills the scope from the head; the op's parameters in call order, then its results. Raises E02xx."""
    _check_names(operation)
    _collect_sizes(scope, operation)
    params: list[Param] = []
    for parameter in operation.parameters:
        params.append(
            _scalar(scope, parameter) if parameter.type.dims is None else _tensor(scope, parameter, operation, None)
        )
        if isinstance(params[-1], Scalar):
            scope.scalars[parameter.name] = params[-1]
    for position, param in enumerate(params):  # shapes may mention a const parameter that stands further right
        if isinstance(param, Tensor):
            parameter = operation.parameters[position]
            params[position] = _tensor(
                scope, parameter, operation, "inout" if parameter.qualifier == "inout" else "input"
            )
    params += [_tensor(scope, result, operation, "output") for result in operation.results]
    for param in params:
        if isinstance(param, Tensor):
            scope.parameters[param.name] = param
            if param.role != "output":
                ranges = tuple((index(0), extent) for extent in param.shape)
                scope.tensors[param.name] = Known(
                    name=param.name, dtype=param.dtype, ranges=ranges, role=param.role, span=param.span
                )
    _learn_contracts(scope, operation, params)
    return tuple(params)


def _check_names(operation: Operation) -> None:
    seen: dict[str, Span | None] = {t.name: t.span for t in operation.type_parameters}
    for item in (*operation.parameters, *operation.results):
        if item.name in seen:
            raise error("E0202", f"'{item.name}' is declared twice", item.span, help="rename one of the two")
        seen[item.name] = item.span
    for result in operation.results:
        if result.qualifier or result.default is not None:
            raise error(
                "E0205",
                f"the result '{result.name}' takes no {result.qualifier or 'default'}",
                result.span,
                help=f"write {result.name}: {result.type.dtype}[…]",
            )


def _collect_sizes(scope: Scope, operation: Operation) -> None:
    """Names in the dimensions of tensors that are no scalar parameters, in order of first appearance."""
    scalars = {p.name for p in operation.parameters if p.type.dims is None}
    tensors = {p.name: p.span for p in (*operation.parameters, *operation.results) if p.type.dims is not None}
    given: set[str] = set()
    for parameter in operation.parameters:
        for dimension in parameter.type.dims or ():
            given |= {n.name for n in _names(dimension)} - scalars
    for parameter in (*operation.parameters, *operation.results):
        for dimension in parameter.type.dims or ():
            for name in _names(dimension):
                if name.name in scalars or name.name in scope.sizes:
                    continue
                if name.name in tensors:
                    raise error(
                        "E0203",
                        f"'{name.name}' is a tensor; a tensor and a size may not share a name",
                        name.span,
                        help="rename one of the two",
                    )
                if name.name in scope.types:
                    raise error(
                        "E0203",
                        f"'{name.name}' is a type parameter, not a size",
                        name.span,
                        help="rename one of the two",
                    )
                if name.name not in given:
                    raise error("E0216", f"the size '{name.name}' occurs in results only, so no call can tell it", name.span,
                                help=suggestion(name.name, [*scope.sizes, *scalars]) or f"add a parameter: const {name.name}: i32")  # fmt: skip
                scope.sizes.append(name.name)
    for dynamic in operation.dynamic:
        if dynamic.name not in scope.sizes:
            raise error("E0201", f"dyn {dynamic.name}: no parameter has a size of this name", dynamic.span,
                        help=suggestion(dynamic.name, scope.sizes) or "name a size that stands in a shape")  # fmt: skip
    scope.facts = replace(scope.facts, sizes=frozenset(scope.sizes))


def _names(node: Syntax) -> Iterator[Name]:
    if isinstance(node, Name):
        yield node
    for child in parts(node):
        yield from _names(child)


def _scalar(scope: Scope, parameter: Parameter) -> Scalar:
    if parameter.qualifier == "inout":
        raise error(
            "E0205",
            f"the scalar '{parameter.name}' cannot be inout",
            parameter.span,
            help=f"make it a tensor of one element: {parameter.type.dtype}[1]",
        )
    dtype = scope.type_dtype(parameter.type)
    default: Const | None = None
    if parameter.default is not None:
        value = adapt(scope, evaluate(scope, parameter.default, Place()), dtype, Place())
        if not isinstance(value, Const):
            raise error(
                "E0205",
                f"the default of '{parameter.name}' is not a literal",
                parameter.default.span,
                help="write a number, true or false",
            )
        default = Const(value=value.value, dtype=dtype)
    return Scalar(
        name=parameter.name, dtype=dtype, const=parameter.qualifier == "const", default=default, span=parameter.span
    )


def _tensor(scope: Scope, parameter: Parameter, operation: Operation, role: Role | None) -> Tensor:
    """`role` None: only the element type is looked at yet."""
    type_ = parameter.type
    dtype = scope.type_dtype(type_)
    if role is None:
        return Tensor(name=parameter.name, dtype=dtype, shape=())
    if parameter.qualifier == "const" or parameter.default is not None:
        what = "const" if parameter.qualifier == "const" else "a default"
        raise error(
            "E0205", f"the tensor '{parameter.name}' cannot have {what}", parameter.span, help="only scalars can"
        )
    if type_.upto and role != "output":
        raise error("E0205", f"the parameter '{parameter.name}' is declared ..N; run-time lengths are made by results only", type_.span,
                    help="write N: a call takes the length from its argument")  # fmt: skip
    shape = tuple(_dimension(scope, d) for d in type_.dims or ())
    length = f"{parameter.name}.len" if type_.upto else None
    return Tensor(name=parameter.name, dtype=dtype, shape=shape, role=role, length=length, span=parameter.span)


def _dimension(scope: Scope, node: Expression) -> Expr:
    extent = index_expression(scope, node, Place())
    for name in _names(node):
        scalar = scope.scalars.get(name.name)
        if scalar is not None and not (scalar.const and scalar.dtype.is_integer):
            raise error(
                "E0205",
                f"the shape depends on '{name.name}', which is not a const integer",
                name.span,
                help=f"declare it const {name.name}: i32",
            )
    if any(isinstance(n, Load) for n in walk(extent)):
        raise error(
            "E0205",
            f"'{written(node)}' is no size",
            node.span,
            help="shapes are made of sizes, const integers and literals",
        )
    if isinstance(extent, Const) and int(extent.value) < 0:
        raise error("E0205", f"a size cannot be {int(extent.value)}", node.span, help="sizes are 0 or more")
    return extent


def _learn_contracts(scope: Scope, operation: Operation, params: list[Param]) -> None:
    conditions: list[tuple[Expr, Expression]] = []
    for clause in operation.where:
        condition = truth(evaluate(scope, clause, Place(indexing=True)))
        if any(isinstance(n, Call | Load) for n in walk(condition)):
            raise error("E0205", f"the contract '{written(clause)}' calls a function that contracts do not know", clause.span,
                        help="contracts are made of sizes, scalar parameters, operators, min, max and abs")  # fmt: skip
        conditions.append((condition, clause))
    divided = [e for e, _ in conditions] + [d for p in params if isinstance(p, Tensor) for d in p.shape]
    scope.facts = replace(scope.facts, conditions=tuple(e for e, _ in conditions))
    for expression in divided:
        for node in walk(expression):
            if isinstance(node, Binary) and node.op in ("floordiv", "mod") and node.dtype == INDEX:
                _require_divisor(scope, node.b, operation)
    for condition, clause in conditions:
        scope.require(condition, written(clause), clause.span)


def _require_divisor(scope: Scope, divisor: Expr, operation: Operation) -> None:
    """`x // 0` is 0, which would make a contract such as H % G == 0 hold for G = 0: a divisor of a contract or shape is at least 1."""
    prover = Prover(scope.facts)
    if isinstance(divisor, Const) or prover.at_least(divisor, index(1)):
        return
    positive = prover.at_least(divisor, index(0))
    condition = Binary(op="ge" if positive else "ne", a=divisor, b=index(1 if positive else 0), dtype=BOOL)
    name = divisor.name if isinstance(divisor, Var) else "a divisor"
    scope.require(condition, f"{name} divides a size, so it must not be 0", operation.name_span)
    scope.facts = replace(scope.facts, conditions=(*scope.facts.conditions, condition))
