"""Expressions as vectors of the AIE API. A value is `lanes` neighbours, or one number in all lanes; a truth value is a mask."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from tridsl.backends.npu.emit_functions import (
    CALLS,
    CASTS,
    COMPARE,
    ELEMENTS,
    FLOAT_BINARY,
    INTEGER_BINARY,
    MASK_BINARY,
    SHIFTS,
    UNARY,
    Rule,
)
from tridsl.backends.npu.emit_places import Frame, Lanes, along, cannot, chosen, index_condition, index_text, load
from tridsl.backends.npu.lower_program import identifier
from tridsl.dtypes import BF16, BOOL, F32, I32, INDEX, U8, DType, compute_type
from tridsl.ir.expr import Binary, Call, Cast, Const, Expr, Load, Select, Unary, Var, add, index, sub
from tridsl.ir.op import Reducer
from tridsl.ir.walk import variables, walk
from tridsl.structs import replace


def value(frame: Frame, node: Expr, lanes: Lanes) -> str:
    """C++ of `node` as a vector (or mask) of `frame.lanes`."""
    return _RULES[type(node)](frame, node, lanes)


def _rule(frame: Frame, rule: Rule | None, what: str, node: Expr, **operands: str) -> str:
    if rule is None:
        raise cannot(what, node)
    text, helper = rule
    if helper:
        frame.used.add(helper)
    return text.format(**operands)


def _load(frame: Frame, node: Load, lanes: Lanes) -> str:
    mask, other = node.mask, node.other or Const(value=0, dtype=node.dtype)
    condition = None if mask is None else same_for_all(chosen(frame, (mask,), lanes)[0], lanes)
    if mask is None or not isinstance(other, Const):
        return load(frame, node, lanes)
    outside = stored(frame, _const(frame, replace(other, dtype=compute_type(node.dtype)), lanes), node.dtype)
    if condition is None:  # what lies there in a core's memory is read, and not taken
        return f"aie::select({outside}, {load(frame, replace(node, mask=None, other=None), lanes)}, {value(frame, mask, lanes)})"
    return f"({condition} ? {load(frame, replace(node, mask=None, other=None), lanes)} : {outside})"


def same_for_all(condition: Expr, lanes: Lanes) -> str | None:
    """A condition over places that does not change from lane to lane, as C++; None for any other."""
    return None if variables(condition) & {name for name, _ in lanes.variables} else index_condition(condition)


def truth(frame: Frame, node: Expr) -> str:
    """A condition that is one for all lanes as C++. What stands behind an `and` or an `or` is looked at only where it decides."""
    still = Lanes(active=frame.lanes)
    if (places := same_for_all(node, still)) is not None:
        return places
    match node:
        case Binary(op="and" | "or" as op, a=a, b=b):
            return f"({truth(frame, a)} {'&&' if op == 'and' else '||'} {truth(frame, b)})"
        case Unary(op="not", a=a):
            return f"(!{truth(frame, a)})"
    return f"(({value(frame, node, still)}).test(0))"


def number_text(number: bool | float, dtype: DType) -> str:
    """A constant of C++. Floats are written so that they are read back exactly."""
    if not dtype.is_float:
        return f"{int(number)}u" if dtype.kind == "uint" else str(int(number)) if int(number) > -(1 << 31) else "(-2147483647 - 1)"
    if math.isinf(number):
        return "__builtin_inff()" if number > 0 else "-__builtin_inff()"
    if math.isnan(number):
        return '__builtin_nanf("")'
    try:
        rounded = struct.unpack("<f", struct.pack("<f", number))[0]
    except OverflowError:
        return "__builtin_inff()" if number > 0 else "-__builtin_inff()"
    return f"{rounded!r}f" if "e" in repr(rounded) or "." in repr(rounded) else f"{rounded!r}.0f"


def _const(frame: Frame, node: Const, lanes: Lanes) -> str:
    if node.dtype == BOOL:
        return f"aie::mask<{frame.lanes}>::from_uint64({'~0ull' if node.value else '0'})"
    if node.dtype == INDEX:
        return f"aie::broadcast<int32, {frame.lanes}>({number_text(max(-(1 << 31), min(int(node.value), (1 << 31) - 1)), I32)})"
    if node.dtype not in ELEMENTS:
        raise cannot(f"numbers of type {node.dtype}", node)
    return f"aie::broadcast<{ELEMENTS[node.dtype]}, {frame.lanes}>({number_text(node.value, node.dtype)})"


def _var(frame: Frame, node: Var, lanes: Lanes) -> str:
    if node.name in frame.bound:
        return frame.bound[node.name]
    found = frame.scalars.get(node.name)
    if found is None:
        return _position(frame, node, lanes)
    word, dtype = found
    text = f"scalars[{word}]"
    if dtype == F32:
        frame.used.add("as_float")
        text = f"as_float({text})"
    elif dtype == BF16:
        frame.used.add("as_bfloat16")
        text = f"as_bfloat16({text})"
    return f"aie::broadcast<{ELEMENTS[dtype]}, {frame.lanes}>({text})"


def _unary(frame: Frame, node: Unary, lanes: Lanes) -> str:
    kind = "float" if node.dtype.is_float else "bool" if node.dtype == BOOL else "int"
    return _rule(frame, UNARY.get((node.op, kind)), f"`{node.op}` of {node.dtype}", node, a=value(frame, node.a, lanes))


def _binary(frame: Frame, node: Binary, lanes: Lanes) -> str:
    kind = node.a.dtype
    if node.op in SHIFTS and kind.is_integer and isinstance(node.b, Const):
        bits = kind.storage_bits
        by = int(node.b.value) if 0 <= int(node.b.value) < bits else None
        rule = SHIFTS[node.op] if by is not None else None
        return _rule(frame, rule, f"`{node.op}` of {kind} by {node.b.value}", node, a=value(frame, node.a, lanes), b=str(by))
    if kind == INDEX and not _is_value(frame, node):
        return _positions(frame, node, lanes) if node.op in COMPARE else _position(frame, node, lanes)
    if node.op in ("floordiv", "mod") and kind == U8 and isinstance(node.b, Const) and int(node.b.value) > 0:
        return _divided(frame, node, int(node.b.value), lanes)
    if node.op in COMPARE:
        rule = COMPARE.get(node.op) if kind != BOOL else None
    elif kind == BOOL:
        rule = MASK_BINARY.get(node.op)
    else:
        rule = (FLOAT_BINARY if kind.is_float else INTEGER_BINARY).get(node.op)
    if kind not in ELEMENTS and kind not in (BOOL, INDEX):
        rule = None
    if node.op == "mul" and (narrow := _both_narrow(node)) is not None:
        frame.used.add("product_of_narrow")
        return f"product_of_narrow({', '.join(value(frame, side, lanes) for side in narrow)})"
    return _rule(frame, rule, f"`{node.op}` of {kind}", node, a=value(frame, node.a, lanes), b=value(frame, node.b, lanes))


def _divided(frame: Frame, node: Binary, divisor: int, lanes: Lanes) -> str:
    """A byte by a constant, or what is left of it: a product of 16 bits has the quotient in front."""
    found = _reciprocal(divisor)
    if found is None:
        raise cannot(f"`{node.op}` of u8 by {divisor}", node)
    factor, shift = found
    text = value(frame, node.a, lanes)
    name = f"byte_{len(frame.lines)}"
    frame.line(f"const auto {name} = {text};")
    frame.used.add("product")
    quotient = f"aie::downshift(product({name}.unpack(), aie::broadcast<uint16, {frame.lanes}>({factor}u)), {shift}).pack()" if divisor > 1 else name
    if node.op == "floordiv":
        return quotient
    return f"aie::sub({name}, product({quotient}, aie::broadcast<uint8, {frame.lanes}>({divisor}u)))"


@cache
def _reciprocal(divisor: int) -> tuple[int, int] | None:
    """(factor, shift) such that n * factor >> shift is n // divisor for every byte n, in 16 bits; None where there are none (7 is the first)."""
    found = ((-(-(1 << shift) // divisor), shift) for shift in range(16))
    return next(((f, s) for f, s in found if 255 * f < 1 << 16 and all(n * f >> s == n // divisor for n in range(256))), None)


def _both_narrow(node: Binary) -> tuple[Expr, Expr] | None:
    """The bf16 operands of a product in f32: the hardware multiplies them as they are, and exactly."""
    sides = [side.a for side in (node.a, node.b) if isinstance(side, Cast) and side.a.dtype == BF16 and isinstance(side.a, Load)]
    return (sides[0], sides[1]) if len(sides) == 2 and node.dtype == F32 else None


def merged(frame: Frame, reducer: Reducer, a: Sequence[str], b: Sequence[str]) -> tuple[str, ...]:
    """The states of `a` and `b` as one: names of vectors."""
    number = len(frame.lines)
    texts: dict[str, str] = {}
    for side, values in (("a", a), ("b", b)):
        for state, text in zip(reducer.states, values):
            texts[f"{side}.{state}"] = name = f"{side}_{number}_{identifier(state)}"
            frame.line(f"const auto {name} = {text};")
    before, frame.bound = frame.bound, {**frame.bound, **texts}
    found = []
    for state, expression in zip(reducer.states, reducer.merge):
        found.append(f"merged_{number}_{identifier(state)}")
        frame.line(f"const auto {found[-1]} = {value(frame, expression, Lanes(active=frame.lanes))};")
    frame.bound = before
    return tuple(found)


def combine(frame: Frame, op: str, a: str, b: str, dtype: DType) -> str:
    """Two values of a reduction."""
    rule = MASK_BINARY.get(op) if dtype == BOOL else (FLOAT_BINARY if dtype.is_float else INTEGER_BINARY).get(op)
    return _rule(frame, rule, f"reductions by `{op}` of {dtype}", Const(value=0, dtype=dtype), a=a, b=b)


def _select(frame: Frame, node: Select, lanes: Lanes) -> str:
    if (places := same_for_all(node.condition, lanes)) is not None:
        return f"({places} ? {value(frame, node.a, lanes)} : {value(frame, node.b, lanes)})"
    condition, a, b = (value(frame, e, lanes) for e in (node.condition, node.a, node.b))
    if node.dtype == BOOL:
        return f"(({condition} & {a}) | (~{condition} & {b}))"
    return f"aie::select({b}, {a}, {condition})"


def _cast(frame: Frame, node: Cast, lanes: Lanes) -> str:
    source = node.a.dtype
    if isinstance(node.a, Const):
        number = node.a.value
        return _const(frame, Const(value=float(number) if node.dtype.is_float else int(number), dtype=node.dtype), lanes)
    if source == node.dtype:
        return value(frame, node.a, lanes)
    if source == BOOL and node.dtype in ELEMENTS:
        one, zero = (_const(frame, Const(value=n, dtype=node.dtype), lanes) for n in (1, 0))
        return f"aie::select({zero}, {one}, {value(frame, node.a, lanes)})"
    if node.dtype == INDEX:
        return cast(frame, value(frame, node.a, lanes), source, I32)
    if source == INDEX and _is_value(frame, node.a):
        return cast(frame, value(frame, node.a, lanes), I32, node.dtype)
    if source == INDEX:
        return cast(frame, _position(frame, node.a, lanes), I32, node.dtype)
    return cast(frame, value(frame, node.a, lanes), source, node.dtype)


def _is_value(frame: Frame, node: Expr) -> bool:
    """Whether an index is kept in vectors, not made of loops and counters."""
    return any((isinstance(n, Load) and n.tensor not in frame.counters) or (isinstance(n, Var) and n.name in frame.bound) for n in walk(node))


def _position(frame: Frame, place: Expr, lanes: Lanes) -> str:
    """A place, or a counter, as a number in 32 bits."""
    step, base = along(place, lanes)
    if step == 0:
        return f"aie::broadcast<int32, {frame.lanes}>({index_text(base)})"
    if step != 1:
        raise cannot("places that are not neighbours as values", place)
    frame.used.add("counting")
    return f"counting<{frame.lanes}>({index_text(add(base, index(lanes.first)))})"


_BELOW = {"lt": ("", 0), "le": ("", 1), "ge": ("~", 0), "gt": ("~", 1)}
"""A comparison of a place by how many lanes are in front of the other side (and whether these are the others)."""


def _positions(frame: Frame, node: Binary, lanes: Lanes) -> str:
    """A comparison of places: the lanes in front of a place, or behind it."""
    if (same := same_for_all(node, lanes)) is not None:
        return f"aie::mask<{frame.lanes}>::from_uint64({same} ? ~0ull : 0)"
    step, base = along(node.a, lanes)
    if node.op not in _BELOW or step != 1 or along(node.b, lanes)[0] != 0:
        raise cannot("this comparison of places", node)
    sign, more = _BELOW[node.op]
    frame.used.add("leading")
    return f"({sign}leading<{frame.lanes}>({index_text(sub(add(node.b, index(more)), add(base, index(lanes.first))))}))"


def cast(frame: Frame, text: str, source: DType, target: DType) -> str:
    """`text` of type `source` as `target`."""
    if source == target:
        return text
    return _rule(frame, CASTS.get((source, target)), f"the conversion of {source} to {target}", Const(value=0, dtype=target), a=text)


def stored(frame: Frame, text: str, dtype: DType) -> str:
    """A value of the compute type of `dtype` as what memory holds."""
    return cast(frame, text, compute_type(dtype), dtype)


def _call(frame: Frame, node: Call, lanes: Lanes) -> str:
    if node.args[0].dtype != F32:
        raise cannot(f"`{node.function}` of {node.args[0].dtype}", node)
    operands = dict(zip("abc", (value(frame, a, lanes) for a in node.args)))
    return _rule(frame, CALLS.get(node.function), f"`{node.function}`", node, **operands)


_RULES: dict[type, Callable[[Frame, Any, Lanes], str]] = {
    Load: _load,
    Const: _const,
    Var: _var,
    Unary: _unary,
    Binary: _binary,
    Select: _select,
    Cast: _cast,
    Call: _call,
}
