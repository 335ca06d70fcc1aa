"""From syntax to what the call layer keeps of it. Imported only when a text is parsed."""

from __future__ import annotations

import math

from tridsl.api.signatures import ModuleSummary, OpSummary, Overload, Parameter, Role, TypeChoice
from tridsl.diagnostics import Span
from tridsl.syntax import nodes


def summarise(module: nodes.Module, uses: tuple[tuple[str, str, str], ...] = ()) -> ModuleSummary:
    """The summary of a parsed module, ops in the order of their first appearance."""
    overloads: dict[str, list[Overload]] = {}
    for item in module.items:
        if isinstance(item, nodes.Operation):
            overloads.setdefault(item.name, []).append(_overload(item))
    return ModuleSummary(
        ops=tuple(OpSummary(name=name, overloads=tuple(found)) for name, found in overloads.items()), uses=uses
    )


def _overload(operation: nodes.Operation) -> Overload:
    return Overload(
        parameters=tuple(_parameter(p) for p in operation.parameters),
        results=tuple(_written(p.span) for p in operation.results),
        result_names=tuple(p.name for p in operation.results),
        types=tuple(
            TypeChoice(
                name=t.name, choices=tuple(c.name for c in t.choices), default=t.default.name if t.default else None
            )
            for t in operation.type_parameters
        ),
        text=_written(operation.span),
        doc=_comment_above(operation.span),
    )


def _parameter(parameter: nodes.Parameter) -> Parameter:
    dims = parameter.type.dims
    if parameter.qualifier == "const":
        role: Role = "const"
    elif dims is None:
        role = "scalar"
    else:
        role = "inout" if parameter.qualifier == "inout" else "input"
    return Parameter(
        name=parameter.name,
        text=_written(parameter.span),
        dtype=parameter.type.dtype,
        role=role,
        rank=len(dims or ()),
        optional=parameter.default is not None,
        default=_literal(parameter.default),
    )


def _written(span: Span | None) -> str:
    return "" if span is None else span.source.text[span.start : span.end]


def _comment_above(span: Span | None) -> str:
    if span is None:
        return ""
    lines = span.source.text[: span.start].split("\n")[:-1]
    comments: list[str] = []
    while lines and lines[-1].lstrip().startswith("#"):
        comments.append(lines.pop().lstrip()[1:].strip())
    return "\n".join(reversed(comments))


_WORDS: dict[str, bool | float] = {"true": True, "false": False, "inf": math.inf, "nan": math.nan}


def _literal(expression: nodes.Expression | None) -> bool | int | float | None:
    """The value of a default, for help texts; None where it depends on a type (`lowest`) or on other parameters."""
    match expression:
        case nodes.Number():
            return expression.value
        case nodes.Word():
            return _WORDS.get(expression.name)
        case nodes.Prefix(operator="-"):
            value = _literal(expression.operand)
            return None if value is None else -value
    return None
