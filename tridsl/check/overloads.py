"""Which overload a call means, from the element types and numbers of axes of its arguments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tridsl.check.names import counted, suggestion, text_of
from tridsl.check.resolve import BoundModule, Overload
from tridsl.diagnostics import Span, error
from tridsl.dtypes import DTYPES, I8, TRIT, DType
from tridsl.structs import dataclass
from tridsl.syntax.nodes import Operation, Parameter

_HELD_AS: dict[DType, DType] = {TRIT: I8}
"""What an array of a type without a NumPy type of its own is: int8 values of -1, 0, 1 serve a `trit` parameter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Match:
    overload: Overload
    types: dict[str, DType]
    cost: tuple[int, int]  # arguments that only stand in for the type, extra leading axes


def select(bound: BoundModule, name: str, dtypes: Sequence[DType | None], ranks: Sequence[int],
           types: Mapping[str, DType] | None = None, *, keywords: Mapping[str, tuple[DType | None, int]] | None = None,
           span: Span | None = None) -> tuple[Overload, dict[str, DType]]:  # fmt: skip
    """The overload of `name` and its type parameters for a call.

    `dtypes` and `ranks` are of the positional arguments (None: a Python number, which adapts); `keywords` of those passed by
    name; `types` are type parameters given by keyword. Arrays may have extra leading axes; the overload that leaves the
    fewest wins. Raises E0501 unknown op, E0502 ambiguous, E0503 no overload fits.
    """
    if name not in bound.operations:
        raise error(
            "E0501",
            f"unknown op '{name}'",
            span,
            help=suggestion(name, bound.operations) or "define it in the file or bring it in with use",
        )
    candidates = bound.operations[name]
    found: list[_Match] = []
    reasons: list[str] = []
    for overload in candidates:
        match = _match(overload, dtypes, ranks, types or {}, keywords or {})
        if isinstance(match, _Match):
            found.append(match)
        else:
            reasons.append(f"{signature_text(overload.operation)}: {match}")
    if not found:
        takes = f"'{name}' does not take" if len(candidates) == 1 else f"no overload of '{name}' takes"
        raise error("E0503", f"{takes} ({_arguments(dtypes, ranks, keywords or {})})", span, notes=tuple(reasons),
                    help="nothing is converted silently: cast an argument, as in f32(x) in .tri and x.astype(np.float32) in Python, or add an overload")  # fmt: skip
    best = min(m.cost for m in found)
    winners = [m for m in found if m.cost == best]
    if len(winners) > 1:
        raise error("E0502", f"the call {name}({_arguments(dtypes, ranks, keywords or {})}) fits {len(winners)} overloads", span,
                    notes=tuple(signature_text(m.overload.operation) for m in winners),
                    help="pass arrays of a definite element type in place of numbers, or give a type parameter by keyword")  # fmt: skip
    return winners[0].overload, winners[0].types


def _match(overload: Overload, dtypes: Sequence[DType | None], ranks: Sequence[int], types: Mapping[str, DType],
           keywords: Mapping[str, tuple[DType | None, int]]) -> _Match | str:  # fmt: skip
    """The match, or why there is none."""
    operation = overload.operation
    parameters = operation.parameters
    if len(dtypes) > len(parameters):
        return f"takes {counted(len(parameters), 'argument')}, got {len(dtypes)}"
    given = {p.name: (d, r) for p, d, r in zip(parameters, dtypes, ranks)}
    for name, argument in keywords.items():
        if name in given:
            return f"'{name}' is given twice"
        if all(p.name != name for p in parameters):
            return f"has no parameter '{name}'"
        given[name] = argument
    generic = {t.name: t for t in operation.type_parameters}
    unknown = [t for t in types if t not in generic]
    if unknown:
        return f"has no type parameter '{unknown[0]}'"
    chosen = dict(types)
    cost = extra = 0
    for parameter in parameters:
        if parameter.name not in given:
            if parameter.default is None:
                return f"'{parameter.name}' is missing"
            continue
        dtype, rank = given[parameter.name]
        core = len(parameter.type.dims or ())
        if parameter.type.dims is None and rank:
            return f"'{parameter.name}' must be a number, got an array of {counted(rank, 'axis', 'axes')}"
        if rank < core:
            return f"'{parameter.name}' needs {counted(core, 'axis', 'axes')}, got {f'an array of {rank}' if rank else 'a number'}"
        extra += rank - core
        if dtype is None:
            continue
        wanted = parameter.type.dtype
        if wanted in generic and wanted not in chosen:
            chosen[wanted] = dtype
        needed = chosen.get(wanted) or DTYPES.get(wanted)
        if dtype != needed:
            if needed is None or _HELD_AS.get(needed) != dtype:
                return f"'{parameter.name}' must be {needed or wanted}, got {dtype}"
            cost += 1
    problem = _complete(operation, chosen)
    if problem:
        return problem
    ordered = {name: chosen[name] for name in generic}
    return _Match(overload=overload, types=ordered, cost=(cost, extra))


def _complete(operation: Operation, chosen: dict[str, DType]) -> str | None:
    """Fills defaults into `chosen` and checks every choice; what is wrong, if anything is."""
    for parameter in operation.type_parameters:
        legal = [chosen.get(c.name) or DTYPES.get(c.name) for c in parameter.choices]
        if parameter.name not in chosen:
            default = parameter.default.name if parameter.default else ""
            found = chosen.get(default) or DTYPES.get(default)
            if found is None and len(parameter.choices) == 1:
                found = legal[0]
            if found is None:
                return f"{parameter.name} is not fixed by the arguments; give {parameter.name}= by keyword"
            chosen[parameter.name] = found
        if chosen[parameter.name] not in legal:
            if TRIT in legal and chosen[parameter.name] == I8:
                chosen[parameter.name] = TRIT
                continue
            return f"{parameter.name} must be one of {', '.join(str(t) for t in legal)}, got {chosen[parameter.name]}"
    return None


def _arguments(
    dtypes: Sequence[DType | None], ranks: Sequence[int], keywords: Mapping[str, tuple[DType | None, int]]
) -> str:
    def one(dtype: DType | None, rank: int) -> str:
        return ("number" if dtype is None else str(dtype)) + (f"[{', '.join(':' * rank)}]" if rank else "")

    return ", ".join(
        [*(one(d, r) for d, r in zip(dtypes, ranks)), *(f"{k}={one(d, r)}" for k, (d, r) in keywords.items())]
    )


def signature_text(operation: Operation) -> str:
    """`matmul[T in {f32, f64}](A: T[M, K], B: T[K, N]) -> C: T[M, N]`, for lists of candidates."""
    generic = ", ".join(
        f"{t.name} in {{{', '.join(c.name for c in t.choices)}}}" + (f" = {t.default.name}" if t.default else "")
        for t in operation.type_parameters
    )
    results = ", ".join(_parameter_text(r) for r in operation.results)
    arrow = f"({results})" if len(operation.results) > 1 else results
    inside = ", ".join(_parameter_text(p) for p in operation.parameters)
    return f"{operation.name}{f'[{generic}]' if generic else ''}({inside}) -> {arrow}"


def _parameter_text(parameter: Parameter) -> str:
    dims = parameter.type.dims
    shape = (
        ""
        if dims is None
        else f"[{'..' if parameter.type.upto else ''}{', '.join(text_of(d.span) or '?' for d in dims)}]"
    )
    default = f" = {text_of(parameter.default.span) or '?'}" if parameter.default is not None else ""
    return f"{parameter.qualifier + ' ' if parameter.qualifier else ''}{parameter.name}: {parameter.type.dtype}{shape}{default}"
