"""What `help` and `inspect.signature` show of an op."""

from __future__ import annotations

import inspect
from ast import literal_eval

from tridsl.api.signatures import OPTIONS, OpSummary, signature_line


def python_signature(summary: OpSummary) -> inspect.Signature:
    """The signature of calls. With several overloads: the first's, without annotations where they differ."""
    first = summary.overloads[0]
    kind = inspect.Parameter
    parameters = []
    needs_keyword = False
    for position, parameter in enumerate(first.parameters):
        annotations = {
            o.parameters[position].text.partition(":")[2].strip()
            for o in summary.overloads
            if position < len(o.parameters)
        }
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
    parameters += [
        kind(o, kind.KEYWORD_ONLY, default=literal_eval(default)) for o, default in OPTIONS if o not in used
    ]
    results = first.results[0].partition(":")[2].strip() if len(first.results) == 1 else f"({', '.join(first.results)})"
    return inspect.Signature(parameters, return_annotation=results)


def help_text(summary: OpSummary) -> str:
    """What `help(op)` shows: the calls, their dtypes and shapes, and the ops' text."""
    out: list[str] = []
    for overload in summary.overloads:
        out.append(signature_line(summary.name, overload))
        out += [
            f"    {t.name} in {{{', '.join(t.choices)}}}" + (f" = {t.default}" if t.default else "")
            for t in overload.types
        ]
    out += [
        "",
        "Options: out=array (or a tuple), device='auto', threads=None, tune=False. Extra leading axes are mapped with NumPy's broadcasting.",
        "",
    ]
    for overload in summary.overloads:
        out += [overload.doc] if overload.doc else []
        out += [overload.text, ""]
    return "\n".join(out).rstrip()
