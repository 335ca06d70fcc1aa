"""Expressions of a kernel as Python text of one value, every access checked (see `ir.kernel_source`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tridsl.dtypes import BOOL, INDEX, DType
from tridsl.ir import kernel_values as kv
from tridsl.ir import scalar
from tridsl.ir.expr import COMPARE, Binary, Call, Cast, Const, Expr, Lead, Load, Select, Unary, Var
from tridsl.ir.kernel_writer import Place, Writer
from tridsl.ir.walk import walk

_MAX_DEPTH = 30  # CPython refuses more than 200 nested parentheses


def expression(w: Writer, e: Expr, depth: int = 0) -> str:
    if depth < _MAX_DEPTH:
        return _EXPRESSIONS[type(e)](w, e, depth + 1)
    name = w.fresh("e")
    text = expression(w, e, 0)
    w.line(f"{name} = lambda: {text}")
    return f"{name}()"


def _const(w: Writer, e: Const, depth: int) -> str:
    if e.dtype == BOOL:
        return str(bool(e.value))
    if e.dtype.is_integer:
        return f"({int(e.value)})" if e.value < 0 else str(int(e.value))
    name = w.fresh("c")
    w.values[name] = scalar.constant(e)[()]
    return name


def _var(w: Writer, e: Var, depth: int) -> str:
    return w.names[e.name]


def _plain_index(w: Writer, e: Expr) -> bool:
    """Made of loop variables, sizes and small constants only: cannot leave i64."""
    match e:
        case Var():
            return e.name in w.kernel.sizes or ":" in e.name  # parameters and states of a monoid are any numbers of their type
        case Const():
            return e.dtype == INDEX and abs(int(e.value)) < 1 << 31
        case Binary():
            return e.op not in ("shl", "shr") and _plain_index(w, e.a) and _plain_index(w, e.b)
    return False


def _wrap(text: str, dtype: DType) -> str:
    if dtype.kind == "uint":
        return f"({text} & {dtype.high})"
    return f"(({text} - ({dtype.low}) & {(1 << dtype.bits) - 1}) + ({dtype.low}))"


_SIGN = {"add": "+", "sub": "-", "mul": "*", "eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
_BITS = {"and": "&", "or": "|", "xor": "^"}
_BOOLS = {"and": "and", "or": "or", "xor": "!="}
_INTEGER_CALLS: Mapping[str, Callable[..., Any]] = {
    "floordiv": kv.wrapped_quotient, "mod": kv.wrapped_remainder, "min": min, "max": max,
    "shl": kv.shifted_left, "shr": kv.shifted_right,
}  # fmt: skip
_FLOAT_CALLS: Mapping[str, Callable[..., Any]] = {
    "floordiv": kv.float_quotient, "mod": kv.float_remainder, "min": kv.float_minimum, "max": kv.float_maximum,
}  # fmt: skip


def operation(w: Writer, op: str, a: str, b: str, dtype: DType, plain: bool = False) -> str:
    """`a op b` where the operands have `dtype`; `plain` when an integer result cannot leave its type."""
    if op in COMPARE:
        return f"({a} {_SIGN[op]} {b})"
    if dtype == BOOL:
        return f"({a} {_BOOLS.get(op) or {'min': 'and', 'max': 'or', 'mul': 'and', 'add': 'or'}[op]} {b})"
    if dtype.is_float:
        if op in _FLOAT_CALLS:
            return f"{w.call('float_' + op, lambda: _FLOAT_CALLS[op])}({a}, {b})"
        return f"({a} {'/' if op == 'div' else _SIGN[op]} {b})"
    if op in _BITS:
        return f"({a} {_BITS[op]} {b})"
    if op in _INTEGER_CALLS:
        bits = f", {dtype.bits}" if op in ("shl", "shr") else ""
        text = f"{w.call('integer_' + op, lambda: _INTEGER_CALLS[op])}({a}, {b}{bits})"
        return _wrap(text, dtype) if op in ("floordiv", "shl") and not plain else text
    text = f"({a} {_SIGN[op]} {b})"
    return text if plain else _wrap(text, dtype)


def _binary(w: Writer, e: Binary, depth: int) -> str:
    text = operation(w, e.op, expression(w, e.a, depth), expression(w, e.b, depth), e.a.dtype, _plain_index(w, e))
    return _touching(w, (e.b,), text, depth) if e.a.dtype == BOOL else text


def _unary(w: Writer, e: Unary, depth: int) -> str:
    a = expression(w, e.a, depth)
    if e.op == "not" or e.dtype == BOOL:
        return f"(not {a})"
    if e.op == "invert":
        return f"({a} ^ {e.dtype.high})" if e.dtype.kind == "uint" else f"(~{a})"
    text = f"abs({a})" if e.op == "abs" else f"(-{a})"
    return text if e.dtype.is_float else _wrap(text, e.dtype)


def _touching(w: Writer, parts: Sequence[Expr], text: str, depth: int) -> str:
    """`text`, which may leave `parts` out, when their loads have been looked at: backends read before they know a condition, which is no mask.
    What they find there may be anything."""
    loads = dict.fromkeys(n for part in parts for n in walk(part) if isinstance(n, Load))
    if not loads:
        return text
    w.values.setdefault("touch", kv.touch)
    looks = ", ".join(f"lambda: {expression(w, load, depth)}" for load in loads)
    return f"({text} if touch({looks}) else None)"


def _select(w: Writer, e: Select, depth: int) -> str:
    condition, a, b = (expression(w, part, depth) for part in (e.condition, e.a, e.b))
    return _touching(w, (e.a, e.b), f"({a} if {condition} else {b})", depth)


def _cast(w: Writer, e: Cast, depth: int) -> str:
    return converted(w, expression(w, e.a, depth), e.a.dtype, e.dtype)


def converted(w: Writer, text: str, source: DType, target: DType) -> str:
    if source == target:
        return text
    if target == BOOL:
        return f"({text} != 0)"
    if (
        source.is_float
        and scalar.HELD[source] == scalar.HELD[target]
        and target.bits >= source.bits
        and target.bits > 16
    ):
        return text
    if source.is_float or target.is_float:
        return f"{w.call(f'{source}_to_{target}', lambda: kv.converter(source, target))}({text})"
    if source == BOOL:
        return f"int({text})"
    assert source.low is not None and source.high is not None and target.low is not None and target.high is not None
    return text if target.low <= source.low and source.high <= target.high else _wrap_bits(text, target)


def _wrap_bits(text: str, dtype: DType) -> str:
    """Wraps to the two's complement of `dtype.bits` bits (trit keeps two bits, as `ir.scalar` says)."""
    half = 1 << (dtype.bits - 1)
    return f"({text} & {2 * half - 1})" if dtype.kind == "uint" else f"(({text} + {half} & {2 * half - 1}) - {half})"


def _call(w: Writer, e: Call, depth: int) -> str:
    name = w.call(f"call_{e.function}_{e.dtype}", lambda: kv.function(e.function, e.dtype))
    return f"{name}({', '.join(expression(w, a, depth) for a in e.args)})"


def _zero(w: Writer, dtype: DType) -> str:
    return _const(w, Const(value=0.0 if dtype.is_float else 0, dtype=dtype), 0)


def load(w: Writer, e: Load, depth: int) -> str:
    place = w.places[e.tensor]
    indices, tests = [], []
    for position, extent in zip(e.index, place.extents, strict=True):
        text = expression(w, position, depth)
        if e.boundary is not None and e.boundary.mode not in ("value", "raise"):
            mode = e.boundary.mode
            text = f"{w.call('index_' + mode, lambda mode=mode: kv.boundary_index(mode))}({text}, {extent})"  # type: ignore[misc]
        indices.append(w.fresh("i"))
        tests.append(f"0 <= ({indices[-1]} := {text}) < {extent}")
    inside = _read(w, place, indices)
    where = f"{place.name!r}{''.join(', ' + i for i in indices)}"
    otherwise = f"out_of_bounds({where})"
    if e.boundary is not None:
        pad = e.boundary.value
        otherwise = (
            converted(w, expression(w, pad, depth), pad.dtype, e.dtype) if pad is not None else _zero(w, e.dtype)
        )
        if e.boundary.mode == "raise":
            otherwise = f"(outside({place.name!r}), {otherwise})[1]"
    # a later index is not evaluated once an earlier one is outside, so the fault names what is known
    text = inside if not tests else f"({inside} if {' and '.join(tests)} else {otherwise})"
    if len(tests) > 1 and e.boundary is None:
        text = f"({inside} if {' & '.join(f'({t})' for t in tests)} else {otherwise})"
    if e.mask is None:
        return text
    other = expression(w, e.other, depth) if e.other is not None else _zero(w, e.dtype)
    return f"({text} if {expression(w, e.mask, depth)} else {other})"


def flat(place: Place, indices: list[str]) -> str:
    text = "0" if not indices else indices[0]
    for index, extent in zip(indices[1:], place.extents[1:]):
        text = f"({text}) * {extent} + {index}"
    return text


def _read(w: Writer, place: Place, indices: list[str]) -> str:
    position = flat(place, indices)
    text = f"{place.memory}[{position}]"
    if shared(w, place) and place.may_be_unwritten:
        text = f"{place.memory}.read({position}, {w.path})"
    if not place.may_be_unwritten:
        return text
    name = w.fresh("x")
    unwritten = "POISON" if place.padded else f"never_written({place.name!r}{''.join(', ' + i for i in indices)})"
    return f"({name} if ({name} := {text}) is not None else {unwritten})"


def shared(w: Writer, place: Place) -> bool:
    return w.check_races and place.depth < w.parallel_depth and place.space != "reg"


def _lead(w: Writer, e: Lead, depth: int) -> str:
    return str(sum(map(ord, e.tensor)) % e.count)  # any number will do: no result may depend on it


_EXPRESSIONS: Mapping[type, Callable[[Writer, Any, int], str]] = {
    Const: _const, Var: _var, Binary: _binary, Unary: _unary, Select: _select, Cast: _cast, Call: _call, Load: load,
    Lead: _lead,
}  # fmt: skip
