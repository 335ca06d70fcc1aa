"""What the call layer knows of a module without parsing it again: names, parameters, defaults, texts.

A `ModuleSummary` is made from syntax once and kept beside the compiled kernels, so that a warm process binds arguments,
prints help and answers `inspect.signature` without the parser.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tridsl.diagnostics import Span, TriError, error
from tridsl.syntax import nodes

Role = Literal["scalar", "const", "input", "inout"]
OPTIONS: tuple[tuple[str, str], ...] = (("out", "None"), ("device", "'auto'"), ("threads", "None"))
"""Keywords every call takes beside the op's own, with their defaults as help shows them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """`text` is the declaration as written (`A: T[M, K]`); `rank` counts core axes, 0 for scalars."""

    name: str
    text: str
    dtype: str
    role: Role
    rank: int = 0
    optional: bool = False
    default: bool | int | float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TypeChoice:
    """`T in {f32, f16} = f32`."""

    name: str
    choices: tuple[str, ...]
    default: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Overload:
    """One `op` of a name. `text` is its whole source, `doc` the comment lines directly above it."""

    parameters: tuple[Parameter, ...]
    results: tuple[str, ...]
    result_names: tuple[str, ...]
    types: tuple[TypeChoice, ...]
    text: str
    doc: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpSummary:
    name: str
    overloads: tuple[Overload, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleSummary:
    """`uses`: (module, name, digest of the text) of everything the text uses, directly or not."""

    ops: tuple[OpSummary, ...]
    uses: tuple[tuple[str, str, str], ...] = ()


def summarise(module: nodes.Module, uses: tuple[tuple[str, str, str], ...] = ()) -> ModuleSummary:
    """The summary of a parsed module, ops in the order of their first appearance."""
    overloads: dict[str, list[Overload]] = {}
    for item in module.items:
        if isinstance(item, nodes.Operation):
            overloads.setdefault(item.name, []).append(_overload(item))
    return ModuleSummary(ops=tuple(OpSummary(name=name, overloads=tuple(found)) for name, found in overloads.items()), uses=uses)


def _overload(operation: nodes.Operation) -> Overload:
    return Overload(
        parameters=tuple(_parameter(p) for p in operation.parameters),
        results=tuple(_written(p.span) for p in operation.results),
        result_names=tuple(p.name for p in operation.results),
        types=tuple(
            TypeChoice(name=t.name, choices=tuple(c.name for c in t.choices), default=t.default.name if t.default else None)
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


def bind(name: str, overloads: Sequence[Overload], args: Sequence[Any], keywords: Mapping[str, Any]) -> list[tuple[Overload, dict[str, Any]]]:
    """The overloads that accept these arguments by position and name, each with its arguments in declaration order.

    Left-out optional parameters are absent from the dictionary. Raises E0521 when no overload accepts them.
    """
    accepted: list[tuple[Overload, dict[str, Any]]] = []
    problem: TriError | None = None
    for overload in overloads:
        try:
            accepted.append((overload, _bind_one(name, overload, args, keywords)))
        except TriError as mistake:
            problem = problem or mistake
    if not accepted:
        assert problem is not None
        raise problem
    return accepted


def _bind_one(name: str, overload: Overload, args: Sequence[Any], keywords: Mapping[str, Any]) -> dict[str, Any]:
    parameters = overload.parameters
    usage = f"the call is {signature_line(name, overload)}"
    if len(args) > len(parameters):
        raise error("E0521", f"{name}() takes {_count(len(parameters), 'argument')}, got {len(args)}", help=usage)
    bound = {p.name: value for p, value in zip(parameters, args)}
    known = {p.name for p in parameters}
    for keyword, value in keywords.items():
        if keyword not in known:
            near = _nearest(keyword, (*known, *(t.name for t in overload.types), *(option for option, _ in OPTIONS)))
            raise error("E0521", f"{name}() has no parameter `{keyword}`{near}", help=usage)
        if keyword in bound:
            raise error("E0521", f"{name}() got `{keyword}` twice, by position and by name", help=usage)
        bound[keyword] = value
    missing = [p.name for p in parameters if p.name not in bound and not p.optional]
    if missing:
        listed = ", ".join(f"`{m}`" for m in missing)
        raise error("E0521", f"{name}() is missing {_count(len(missing), 'argument')}: {listed}", help=usage)
    return {p.name: bound[p.name] for p in parameters if p.name in bound}


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _nearest(word: str, known: Iterable[str]) -> str:
    from difflib import get_close_matches  # start-up time: needed only to phrase an error

    found = get_close_matches(word, tuple(known), n=1)
    return f"; did you mean `{found[0]}`?" if found else ""


def signature_line(name: str, overload: Overload) -> str:
    """`matmul(A: T[M, K], B: T[K, N]) -> C: U[M, N]`."""
    parameters = ", ".join(p.text for p in overload.parameters)
    results = overload.results[0] if len(overload.results) == 1 else f"({', '.join(overload.results)})"
    return f"{name}({parameters})" + (f" -> {results}" if overload.results else "")


def python_signature(summary: OpSummary) -> inspect.Signature:
    """The signature of calls. With several overloads: the first's, without annotations where they differ."""
    first = summary.overloads[0]
    kind = inspect.Parameter
    parameters = []
    needs_keyword = False
    for position, parameter in enumerate(first.parameters):
        annotations = {o.parameters[position].text.partition(":")[2].strip() for o in summary.overloads if position < len(o.parameters)}
        default = (parameter.default if parameter.default is not None else ...) if parameter.optional else kind.empty
        needs_keyword = needs_keyword or parameter.optional
        parameters.append(
            kind(
                parameter.name,
                kind.KEYWORD_ONLY if needs_keyword and not parameter.optional else kind.POSITIONAL_OR_KEYWORD,
                default=default,
                annotation=annotations.pop().partition("=")[0].strip() if len(annotations) == 1 else kind.empty,
            )
        )
    parameters.sort(key=lambda p: p.kind)
    types = dict.fromkeys(t.name for o in summary.overloads for t in o.types)
    used = {p.name for p in parameters}
    parameters += [kind(t, kind.KEYWORD_ONLY, default=None) for t in types if t not in used]
    parameters += [kind(o, kind.KEYWORD_ONLY, default="auto" if o == "device" else None) for o, _ in OPTIONS if o not in used]
    results = first.results[0].partition(":")[2].strip() if len(first.results) == 1 else f"({', '.join(first.results)})"
    return inspect.Signature(parameters, return_annotation=results)


def help_text(summary: OpSummary) -> str:
    """What `help(op)` shows: the calls, their dtypes and shapes, and the ops' text."""
    out: list[str] = []
    for overload in summary.overloads:
        out.append(signature_line(summary.name, overload))
        out += [f"    {t.name} in {{{', '.join(t.choices)}}}" + (f" = {t.default}" if t.default else "") for t in overload.types]
    out += ["", "Options: out=array (or a tuple), device='auto', threads=None. Extra leading axes are mapped with NumPy's broadcasting.", ""]
    for overload in summary.overloads:
        out += [overload.doc] if overload.doc else []
        out += [overload.text, ""]
    return "\n".join(out).rstrip()
