"""Expressions: from syntax to a checked `Value`. Reducers become stages on the way (`check.reductions`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tridsl.check import reductions
from tridsl.check.accesses import access
from tridsl.check.functions import TABLE, WIDENED
from tridsl.check.names import cast, counted, suggestion, written
from tridsl.check.operands import adapt, as_index, combine, limit, literal, truth, widened
from tridsl.check.reducers import BUILTINS
from tridsl.check.scope import Broken, Place, Scope
from tridsl.check.values import Value, converted, floating, integer, operand_type, typed
from tridsl.diagnostics import error
from tridsl.dtypes import BOOL, DTYPES, F64, INDEX, DType, compute_type, wide
from tridsl.ir.expr import BinaryOp, Cast, Const, Expr, Select, Unary, Var, binary, index
from tridsl.structs import replace
from tridsl.syntax.nodes import (
    Access,
    Conditional,
    Expression,
    Field,
    Infix,
    Invoke,
    Name,
    Number,
    Prefix,
    Range,
    Reduction,
    Text,
    Word,
)

OPERATORS: dict[str, tuple[BinaryOp, str]] = {
    # operator: IR op, operands
    "+": ("add", "number"), "-": ("sub", "number"), "*": ("mul", "number"), "/": ("div", "float"),
    "//": ("floordiv", "integer"), "%": ("mod", "integer"),
    "&": ("and", "bits"), "|": ("or", "bits"), "^": ("xor", "bits"), "<<": ("shl", "bits"), ">>": ("shr", "bits"),
    "==": ("eq", "any"), "!=": ("ne", "any"), "<": ("lt", "number"), "<=": ("le", "number"), ">": ("gt", "number"),
    ">=": ("ge", "number"), "and": ("and", "bool"), "or": ("or", "bool"),
}  # fmt: skip
COMPARISONS = frozenset({"==", "!=", "<", "<=", ">", ">="})

LITERALS = ("true", "false", "inf", "nan", "lowest", "highest")

_ADVICE = {
    "number": "arithmetic takes numbers; for bools write and, or, not, or if b then 1 else 0",
    "float": "'/' divides floats; write '//' for the floor of an integer division, or cast both sides, as in f32(a) / f32(b)",
    "integer": "'//' and '%' take integers; for floats write floor(a / b), and a - b * floor(a / b) for the remainder",
    "bits": "this operator works on the bits of integers; for bools write and, or, not; for a power x * x or pow(x, y)",
    "bool": "'and' and 'or' take bools; compare first, as in x != 0, and write & | ^ for the bits of integers",
}


def evaluate(scope: Scope, node: Expression, place: Place) -> Value:
    """The checked value of an expression. Raises TriError for the first mistake in it."""
    if place.widen is not None and not _reached_by_widening(node):
        return widened(evaluate(scope, node, replace(place, widen=None)), place.widen)
    value = _RULES[type(node)](scope, node, place)
    if place.indexing and value.type is not None and value.type.is_integer:
        return integer(value.ir if value.ir.dtype == INDEX else Cast(a=value.ir, dtype=INDEX), node)
    return value


def index_expression(scope: Scope, node: Expression, place: Place) -> Expr:
    """An i64 expression: an index, an extent, an end of a range."""
    return as_index(evaluate(scope, node, replace(place, indexing=True, widen=None)))


def _reached_by_widening(node: Expression) -> bool:
    match node:
        case Infix():
            return node.operator in ("+", "-", "*")
        case Prefix():
            return node.operator in ("+", "-")
        case Invoke():
            return node.function in WIDENED
    return isinstance(node, Conditional)


def _number(scope: Scope, node: Number, place: Place) -> Value:
    if isinstance(node.value, int):
        if not INDEX.low <= node.value <= INDEX.high:  # type: ignore[operator]
            raise error(
                "E0212",
                f"{node.text or node.value} does not fit any integer type",
                node.span,
                help="the greatest is i64",
            )
        return integer(index(node.value), node)
    value = node.value
    return floating(lambda d: literal(value, d, node), node)


def _word(scope: Scope, node: Word, place: Place) -> Value:
    match node.name:
        case "true" | "false":
            return typed(Const(value=node.name == "true", dtype=BOOL), BOOL, node)
        case "lowest" | "highest":
            return floating(lambda d: limit(d, highest=node.name == "highest"), node)
    return floating(lambda d: literal(float(node.name), d, node), node)


def _name(scope: Scope, node: Name, place: Place) -> Value:
    name = node.name
    if name in place.locals:
        return replace(place.locals[name], syntax=node)
    if place.axis(name):
        return integer(Var(name=name, span=node.span), node)
    if name in scope.scalars:
        scalar = scope.scalars[name]
        scope.used.add(name)
        if scalar.const and scalar.dtype.is_integer:  # specialised like a size, so it adapts like one
            return integer(Var(name=name, span=node.span), node)
        variable = Var(name=name, dtype=scalar.dtype, span=node.span)
        compute = compute_type(scalar.dtype)
        return typed(variable if compute == scalar.dtype else Cast(a=variable, dtype=compute), scalar.dtype, node)
    if name in scope.sizes:
        return integer(Var(name=name, span=node.span), node)
    if name in scope.tensors:
        known = scope.tensors[name]
        if known.rank:
            indices = ", ".join("ijklmnop"[: known.rank])
            raise error("E0219", f"'{name}' is a tensor of {counted(known.rank, 'axis', 'axes')} and stands here without its indices",
                        node.span, help=f"write {name}[{indices}]")  # fmt: skip
        return access(scope, Access(tensor=name, index=(), span=node.span, name_span=node.span), place, evaluate)
    raise unknown_name(scope, node, place)


def unknown_name(scope: Scope, node: Name, place: Place) -> Exception:
    """Broken when its definition failed, else an error that tells what the name could have been."""
    name = node.name
    if name in scope.broken:
        return Broken()
    if name in scope.later:
        return error(
            "E0208",
            f"'{name}' is used before the stage that defines it",
            node.span,
            help="move the definition up: stages run in order",
        )
    known = [*place.locals, *(a.name for a in place.axes), *scope.scalars, *scope.tensors]
    if node.span is not None and node.span.source.text[: node.span.start].rstrip().endswith("//"):
        return error(
            "E0201", f"unknown name '{name}'", node.span, help="'//' divides integers; a comment begins with '#'"
        )
    if len(name) <= 2 and name.islower() and not suggestion(name, known) and not place.locals:
        return error("E0217", f"the index '{name}' is neither on the left of '=' nor bound by a reducer", node.span,
                     help=f"put it on the left, or reduce over it, as in sum[{name}](…)")  # fmt: skip
    return error(
        "E0201",
        f"unknown name '{name}'",
        node.span,
        help=suggestion(name, [*known, *scope.sizes, *LITERALS])
        or "it is no index, size, parameter or stage of this op",
    )


def _field(scope: Scope, node: Field, place: Place) -> Value:
    name = f"{node.value.name}.{node.name}" if isinstance(node.value, Name) else ""
    if name in place.locals:
        return replace(place.locals[name], syntax=node)
    raise error("E0201", f"unknown name '{written(node)}'", node.span,
                help=suggestion(name, place.locals) or "'a.m' names a state inside a monoid's merge")  # fmt: skip


def _prefix(scope: Scope, node: Prefix, place: Place) -> Value:
    if node.operator == "-" and isinstance(node.operand, Number):  # the least i64 has no positive twin
        negative = Number(value=-node.operand.value, text=written(node), span=node.span)
        return _number(scope, negative, place)
    value = evaluate(scope, node.operand, place)
    if node.operator == "not":
        return typed(Unary(op="not", a=truth(value), dtype=BOOL), BOOL, node)
    needs = "bits" if node.operator == "~" else "number"
    _require_kind((value,), needs, f"'{node.operator}'")
    match node.operator:
        case "-":
            return combine(scope, (value,), place, lambda e: _negated(e[0]), node, what="'-'")
        case "~":
            return combine(
                scope, (value,), place, lambda e: Unary(op="invert", a=e[0], dtype=e[0].dtype), node, what="'~'"
            )
    return replace(value, syntax=node)


def _negated(e: Expr) -> Expr:
    """A literal where its type has the number; integers wrap otherwise (`-i8(lowest)`)."""
    if isinstance(e, Const) and e.dtype != BOOL and (e.dtype.is_float or (e.dtype.low or 0) <= -e.value <= (e.dtype.high or 0)):
        return Const(value=-e.value, dtype=e.dtype)
    return Unary(op="neg", a=e, dtype=e.dtype)


def _infix(scope: Scope, node: Infix, place: Place) -> Value:
    op, needs = OPERATORS[node.operator]
    inner = (
        replace(place, indexing=False)
        if place.indexing and node.operator in COMPARISONS and _has_float(scope, node)
        else place
    )
    values = (evaluate(scope, node.left, inner), evaluate(scope, node.right, inner))
    what = f"'{node.operator}'"
    _require_kind(values, needs, what)
    if node.operator == "/" and all(v.adapts for v in values):  # 1 / N: a float of whatever type it meets
        return floating(lambda d: binary("div", *(adapt(scope, v, d, place) for v in values)), node)
    result = BOOL if node.operator in COMPARISONS or needs == "bool" else None
    return combine(scope, values, inner, lambda e: binary(op, e[0], e[1]), node, what=what, result=result)


def _has_float(scope: Scope, node: Infix) -> bool:
    """Whether a comparison in a `where` is about a float scalar, which index arithmetic does not touch."""
    return any(isinstance(side, Name) and side.name in scope.scalars and scope.scalars[side.name].dtype.is_float
               for side in (node.left, node.right))  # fmt: skip


def _require_kind(values: tuple[Value, ...], needs: str, what: str) -> None:
    for value in values:
        dtype = value.type
        if dtype is None:
            wrong = needs == "bool" or (needs in ("integer", "bits") and value.floating)
        else:
            wrong = {"number": dtype == BOOL, "float": not dtype.is_float, "integer": not dtype.is_integer, "bits": not dtype.is_integer, "bool": dtype != BOOL,
                     "any": False}[needs]  # fmt: skip
        if wrong:
            kind = str(dtype) if dtype else "a float" if value.floating else "a number"
            raise error("E0213", f"{what} does not take '{written(value.syntax)}', which is {kind}", value.syntax.span,
                        label=kind, help=_ADVICE[needs])  # fmt: skip


def _conditional(scope: Scope, node: Conditional, place: Place) -> Value:
    condition = truth(evaluate(scope, node.condition, replace(place, widen=None, indexing=False)))
    arms = (evaluate(scope, node.then, place), evaluate(scope, node.otherwise, place))
    return combine(scope, arms, place, lambda e: Select(condition=condition, a=e[0], b=e[1], dtype=e[0].dtype), node,
                   what="'if … then … else …'")  # fmt: skip


def _invoke(scope: Scope, node: Invoke, place: Place) -> Value:
    name = node.function
    if name in DTYPES or name in scope.types or name == "wide":
        return _cast(scope, node, place)
    function = TABLE.get(name)
    where = node.name_span or node.span
    if function is None:
        known = [*TABLE, *DTYPES, *scope.types]
        if name in scope.known_reducers or name in BUILTINS:
            raise error("E0220", f"'{name}' is a reducer and needs the indices it runs over", where,
                        help=f"write {name}[i](x[i]); an op of this name has to be brought in with use")  # fmt: skip
        if name in scope.known_ops:
            raise error("E0229", f"'{name}' is an op, so its call must be the whole right-hand side of a stage", where,
                        help=f"give it one: t = {written(node)}", example=f"t = {name}(x)")  # fmt: skip
        if name in scope.tensors:
            raise error(
                "E0220", f"'{name}' is a tensor, not a function", where, help=f"index it with brackets: {name}[…]"
            )
        raise error("E0220", f"unknown function '{name}'", where,
                    help=suggestion(name, known) or "a call of another op must be the whole right-hand side of a stage")  # fmt: skip
    if node.keywords:
        raise error(
            "E0214", f"'{name}' takes no keyword arguments", node.keywords[0].span, help="pass the values by position"
        )
    least, most = function.arity
    if len(node.args) < least or (most is not None and len(node.args) > most):
        count = f"{least}" if least == most else f"{least} or more"
        raise error("E0214", f"'{name}' takes {count} argument{'' if count == '1' else 's'}, not {len(node.args)}", node.span,
                    help=f"one index is reduced with brackets, as in {name}[i](x[i])" if name in ("min", "max") else f"write {name}({', '.join('xyz'[:least])})")  # fmt: skip
    inner = replace(place, indexing=False) if function.operands == "float" else place
    values = tuple(evaluate(scope, arg, inner) for arg in node.args)
    for value in values:
        wrong = value.type is not None and (
            not value.type.is_float if function.operands == "float" else value.type == BOOL
        )
        if wrong:
            kind = "floats" if function.operands == "float" else "numbers"
            raise error("E0214", f"'{name}' takes {kind}, '{written(value.syntax)}' is {value.type}", value.syntax.span,
                        label=str(value.type), help=f"write {name}({cast(DTYPES['f32'], value.syntax)})")  # fmt: skip
    if function.operands == "float" and all(v.adapts for v in values):
        if function.predicate:
            return typed(function.build([adapt(scope, v, F64, place) for v in values]), BOOL, node)
        return floating(lambda d: function.build([adapt(scope, v, d, place) for v in values]), node)
    return combine(
        scope, values, place, function.build, node, what=f"'{name}'", result=BOOL if function.predicate else None
    )


def _cast(scope: Scope, node: Invoke, place: Place) -> Value:
    if len(node.args) != 1 or node.keywords:
        raise error(
            "E0214", f"the cast {node.function}(…) takes one value", node.span, help=f"write {node.function}(x)"
        )
    value = evaluate(scope, node.args[0], replace(place, indexing=False))
    if node.function == "wide":
        if value.type is None or not value.type.is_float:
            raise error("E0214", f"wide(…) takes a float, '{written(node.args[0])}' is {value.type or 'a number'}", node.span,
                        help="it is f64 for f64 and f32 for the other floats")  # fmt: skip
        target = wide(value.type)
    else:
        target = scope.dtype(node.function, node.name_span)
    return typed(cast_to(scope, value, target, place), target, node)


def cast_to(scope: Scope, value: Value, target: DType, place: Place) -> Expr:
    """An explicit cast. A literal becomes the constant; an index is converted without a question whether it fits."""
    if value.type is None:
        if value.floating and not target.is_float:
            is_limit = isinstance(value.syntax, Word) and value.syntax.name in ("lowest", "highest")
            return (
                adapt(scope, value, target, place) if is_limit else converted(adapt(scope, value, F64, place), target)
            )
        if value.floating or isinstance(value.expr, Const) and target != BOOL:
            return adapt(scope, value, target, place)
        return converted(value.ir, target)
    if value.type == target:
        return value.ir
    if operand_type(value.type) == target:
        return value.ir
    return converted(value.ir, target)


def _access(scope: Scope, node: Access, place: Place) -> Value:
    if node.tensor not in scope.tensors:
        raise unknown_name(scope, Name(name=node.tensor, span=node.name_span or node.span), place)
    return access(scope, node, place, evaluate)


def _reduction(scope: Scope, node: Reduction, place: Place) -> Value:
    return reductions.reduction(scope, node, place, evaluate)


def _range(scope: Scope, node: Range, place: Place) -> Value:
    raise error(
        "E0213", "a range 'a..b' is not a value", node.span, help="ranges stand behind 'in', as in sum[k in 0..4](…)"
    )


def _text(scope: Scope, node: Text, place: Place) -> Value:
    raise error("E0213", "a text is not a value", node.span, help="texts stand only in schedules")


_RULES: dict[type, Callable[[Scope, Any, Place], Value]] = {
    Number: _number, Word: _word, Name: _name, Field: _field, Prefix: _prefix, Infix: _infix, Conditional: _conditional,
    Invoke: _invoke, Access: _access, Reduction: _reduction, Range: _range, Text: _text,
}  # fmt: skip
