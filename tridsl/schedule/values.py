"""Expressions of schedule blocks: tunables, sizes, dtypes and facts of the chip, evaluated to plain Python values."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any

from tridsl.devices.spec import DeviceSpec
from tridsl.diagnostics import Span, error
from tridsl.dtypes import DTYPES, DType
from tridsl.structs import declared
from tridsl.syntax.nodes import Conditional, Expression, Field, Infix, Invoke, Name, Number, Prefix, Text, Word

Value = int | float | bool | str | DType


class Unknown(Exception):
    """The value depends on a size that is not known (a `when` that asks for it does not hold)."""


def _floor_divide(a: Any, b: Any) -> Any:
    return a // b if b else 0


INFIX: dict[str, Callable[[Any, Any], Any]] = {
    "+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv, "//": _floor_divide,
    "%": lambda a, b: a % b if b else 0, "&": operator.and_, "|": operator.or_, "^": operator.xor, "<<": operator.lshift,
    ">>": operator.rshift, "==": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt,
    ">=": operator.ge,
}  # fmt: skip
PREFIX: dict[str, Callable[[Any], Any]] = {"-": operator.neg, "+": operator.pos, "~": operator.invert, "not": operator.not_}
FUNCTIONS: dict[str, Callable[..., Any]] = {"min": min, "max": max, "abs": abs}


def evaluate(node: Expression, names: Mapping[str, Value | None], spec: DeviceSpec) -> Value:
    """The value of `node`. `names` maps tunables, sizes, const parameters and type parameters; None: not known (raises Unknown).

    `chip.<fact>` reads `DeviceSpec`, `chip.lanes(T)` calls it; an absent fact is Unknown. E0431: unknown name or operation.
    """

    def visit(part: Expression) -> Any:
        match part:
            case Number(value=value):
                return value
            case Text(value=value):
                return value
            case Word(name="true" | "false" as word):
                return word == "true"
            case Name(name=name):
                return _look_up(name, names, part.span)
            case Field(value=Name(name="chip"), name=fact):
                return _fact(fact, spec, part.span)
            case Prefix(operator=op, operand=operand):
                return PREFIX[op](visit(operand))
            case Infix(operator="and", left=left, right=right):
                return bool(visit(left)) and bool(visit(right))
            case Infix(operator="or", left=left, right=right):
                return bool(visit(left)) or bool(visit(right))
            case Infix(operator=op, left=left, right=right) if op in INFIX:
                return _apply(INFIX[op], (visit(left), visit(right)), part.operator_span or part.span)
            case Conditional(condition=condition, then=then, otherwise=otherwise):
                return visit(then) if visit(condition) else visit(otherwise)
            case Invoke(function="chip.lanes", args=(argument,)):
                dtype = visit(argument)
                if not isinstance(dtype, DType):
                    raise error("E0431", "`chip.lanes` takes a dtype", part.span, help="write chip.lanes(f32) or chip.lanes(T)")
                return spec.lanes(dtype)
            case Invoke(function=function, args=args) if function in FUNCTIONS:
                return _apply(FUNCTIONS[function], tuple(visit(a) for a in args), part.span)
        raise error(
            "E0431", "this expression has no value in a schedule", part.span,
            help="use numbers, sizes, tunables, dtypes and chip facts",
        )  # fmt: skip

    result: Value = visit(node)
    return result


def _apply(function: Callable[..., Any], args: tuple[Any, ...], span: Span | None) -> Any:
    try:
        return function(*args)
    except (TypeError, ValueError, OverflowError):
        shown = " and ".join(str(a) for a in args)
        raise error("E0431", f"these values cannot be combined: {shown}", span, help="use numbers on both sides") from None


def _look_up(name: str, names: Mapping[str, Value | None], span: Span | None) -> Value:
    if name in names:
        value = names[name]
        if value is None:
            raise Unknown(name)
        return value
    if name in DTYPES:
        return DTYPES[name]
    near = get_close_matches(name, [*names, *DTYPES], 1)
    raise error(
        "E0431", f"unknown name `{name}` in a schedule", span,
        help=f"did you mean `{near[0]}`?" if near else f"known here: {', '.join(names) or 'nothing'}",
    )  # fmt: skip


def _fact(name: str, spec: DeviceSpec, span: Span | None) -> Value:
    known = list(declared(type(spec)))
    if name not in known:
        near = get_close_matches(name, known, 1)
        raise error("E0431", f"a chip has no fact `{name}`", span, help=f"did you mean `chip.{near[0]}`?" if near else "see `tridsl devices`")
    value = getattr(spec, name)
    if value is None:
        raise Unknown(f"chip.{name}")
    return value  # type: ignore[no-any-return]
