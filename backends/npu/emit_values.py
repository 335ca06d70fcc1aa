"""Expressions as vectors of the AIE API. A value is `lanes` neighbours, or one number in all lanes; a truth value is a mask."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
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
    element,
)
from tridsl.backends.npu.lower_program import identifier
from tridsl.diagnostics import TriError, error
from tridsl.dtypes import BF16, BOOL, F32, I32, INDEX, DType, compute_type
from tridsl.ir.affine import normal_form, simplify_index, to_expression
from tridsl.ir.expr import Binary, Call, Cast, Const, Expr, Load, Select, Unary, Var, add, index, mul, sub
from tridsl.ir.op import Reducer
from tridsl.ir.walk import substitute, walk


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a buffer is: `memory` (a pointer), `registers` (an array of vectors along the last axis), `number` (one vector with the same value in
    all lanes), `blocks` (accumulators of a matrix instruction, named by their leading indices)."""

    name: str
    kind: str
    dtype: DType
    shape: tuple[int, ...]
    block: str = ""

    @property
    def strides(self) -> tuple[int, ...]:
        found: list[int] = []
        step = 1
        for n in reversed(self.shape):
            found.insert(0, step)
            step *= n
        return tuple(found)

    @property
    def count(self) -> int:
        return math.prod(self.shape)


@dataclass(slots=True, kw_only=True)
class Lanes:
    """The lane loops around a statement, outermost first, and which chunk of their points is being written out: `active` of `width` lanes."""

    variables: tuple[tuple[str, int], ...] = ()
    first: int = 0
    active: int = 0


@dataclass(slots=True, kw_only=True)
class Frame:
    """What the emission of one function knows. `align`: widest access of a core in bytes; `lanes`: elements of every vector; `counters`: what
    compactions count with; `bound`: texts of the names of a reducer's states."""

    lanes: int
    align: int
    places: dict[str, Place] = field(default_factory=dict)
    scalars: Mapping[str, tuple[int, DType]] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    blocks: set[str] = field(default_factory=set)
    counters: frozenset[str] = frozenset()
    bound: Mapping[str, str] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    depth: int = 1

    def line(self, text: str) -> None:
        self.lines.append("  " * self.depth + text)


def cannot(what: str, node: Any = None) -> TriError:
    """A construct that the kernel text has no words for."""
    return error(
        "E0774", f"the NPU backend has no AIE code for {what}", getattr(node, "span", None),
        help="run this operation on another device",
    )  # fmt: skip


def index_text(place: Expr) -> str:
    """An index as C++."""
    return _index(simplify_index(place))


_SIGNS = {"add": "+", "sub": "-", "mul": "*"}


def _index(e: Expr) -> str:
    match e:
        case Const(value=value):
            return str(int(value))
        case Var(name=name):
            return identifier(name)
        case Load(tensor=name, index=()):  # a counter
            return identifier(name)
        case Binary(op="floordiv", a=a, b=b):  # places are never negative
            return f"({_index(a)} / {_index(b)})"
        case Binary(op="mod", a=a, b=b):
            return f"({_index(a)} % {_index(b)})"
        case Binary(op="add" | "sub" | "mul" as op, a=a, b=b):
            return f"({_index(a)} {_SIGNS[op]} {_index(b)})"
        case Binary(op="min" | "max" as op, a=a, b=b):
            x, y = _index(a), _index(b)
            return f"({x} {'<' if op == 'min' else '>'} {y} ? {x} : {y})"
    raise cannot("an index of this kind", e)


def address(place: Place, at: tuple[Expr, ...]) -> Expr:
    """Elements from the first of `place`."""
    total: Expr = index(0)
    for i, stride in zip(at, place.strides):
        total = add(total, mul(i, index(stride)))
    return simplify_index(total)


def along(total: Expr, lanes: Lanes) -> tuple[int, Expr]:
    """How far an address moves from lane to lane (0: not at all), and where its first point is."""
    zero = {name: index(0) for name, _ in lanes.variables}
    base = simplify_index(substitute(total, zero))
    step = step_of(total, lanes)
    if step is None:
        raise cannot("vectors whose elements do not lie side by side")
    return step, base


def step_of(total: Expr, lanes: Lanes) -> int | None:
    """By how much an address moves from lane to lane; None where that is not the same for all lanes."""
    poly = normal_form(total)
    factors = [poly.coefficient(name) for name, _ in lanes.variables]
    if not factors or all(f == 0 for f in factors):
        return 0
    own = step = factors[-1]
    for (_, extent), factor in zip(reversed(lanes.variables), reversed(factors)):
        if factor != step or step is None:
            return None
        step *= extent
    return own


def can_load(step: int | None, dtype: DType, lanes: int) -> bool:
    """Whether elements `step` apart make a vector: neighbours in either direction, every second or fourth of a register's."""
    return step in (-1, 0, 1) or (step in (2, 4) and lanes * step * dtype.storage_bits <= WIDEST_BITS)


WIDEST_BITS = 1024
"""Of a vector of the AIE API."""


def pointer(place: Place, first: Expr) -> str:
    text = index_text(first)
    return place.name if text == "0" else f"{place.name} + {text}"


def is_aligned(frame: Frame, place: Place, first: Expr, vectors: int = 1) -> bool:
    """Whether that many whole vectors at `first` begin where an access of their size may."""
    size = place.dtype.storage_bytes
    unit = min(vectors * frame.lanes * size, frame.align)
    poly = normal_form(first)
    return all(f * size % unit == 0 for _, f in poly.terms) and poly.constant * size % unit == 0


def load(frame: Frame, node: Load, lanes: Lanes) -> str:
    place = frame.places.get(node.tensor)
    if place is None or node.mask is not None or node.boundary is not None:
        raise cannot(f"this access to `{node.tensor}`", node)
    if place.kind == "number":
        return place.name
    if place.kind == "blocks":
        raise cannot(f"single elements of the accumulators `{node.tensor}`", node)
    step, base = along(address(place, node.index), lanes)
    if place.kind == "registers":
        if step == 0:
            chunk, lane = lane_of(frame, place, base)
            return f"aie::broadcast<{element(place.dtype)}, {frame.lanes}>({place.name}[{chunk}].get({lane}))"
        return f"{place.name}[{index_text(_divided(base, frame.lanes, lanes))}]"
    if step == 0:
        return f"aie::broadcast<{ELEMENTS[place.dtype]}, {frame.lanes}>({place.name}[{index_text(base)}])"
    if step == -1:
        return _backwards(frame, place, base, lanes)
    if step != 1:
        return _apart(frame, place, add(base, index(lanes.first * step)), step)
    first = add(base, index(lanes.first))
    function = "load_v" if is_aligned(frame, place, first) else "load_unaligned_v"
    return f"aie::{function}<{frame.lanes}>({pointer(place, first)})"


def _backwards(frame: Frame, place: Place, last: Expr, lanes: Lanes) -> str:
    """Elements from `last` down. A vector that is not full begins at its first element, not in front of it."""
    idle = frame.lanes - lanes.active
    start = simplify_index(sub(last, index(lanes.first + lanes.active - 1)))
    text = f"aie::reverse(aie::load_unaligned_v<{frame.lanes}>({pointer(place, start)}))"
    return f"aie::shuffle_down({text}, {idle})" if idle else text


def _apart(frame: Frame, place: Place, first: Expr, step: int) -> str:
    """Every `step`-th element: whole vectors, of which the even or the odd elements are taken again and again."""
    poly = normal_form(first)
    if not can_load(step, place.dtype, frame.lanes) or any(f % step for _, f in poly.terms):
        raise cannot(f"every element of `{place.name}` {step} apart")
    which = poly.constant % step
    whole = to_expression(type(poly)(terms=poly.terms, constant=poly.constant - which))
    function = "load_v" if is_aligned(frame, place, whole, step) else "load_unaligned_v"
    text = f"aie::{function}<{frame.lanes * step}>({pointer(place, whole)})"
    while step > 1:
        text = f"aie::{'filter_odd' if which % 2 else 'filter_even'}({text}, 1)"
        step, which = step // 2, which // 2
    return text


def lane_of(frame: Frame, place: Place, base: Expr) -> tuple[int, int]:
    """Vector and lane of one element in registers."""
    poly = normal_form(base)
    if poly.terms:
        raise cannot(f"a lane of `{place.name}` that is chosen as the code runs")
    return divmod(poly.constant, frame.lanes)


def _divided(base: Expr, lanes: int, chunk: Lanes) -> Expr:
    poly = normal_form(base)
    if any(f % lanes for _, f in poly.terms) or poly.constant % lanes:
        raise cannot("registers that begin inside a vector")
    whole = type(poly)(terms=tuple((m, f // lanes) for m, f in poly.terms), constant=poly.constant // lanes + chunk.first // lanes)
    return to_expression(whole)


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
    return load(frame, node, lanes)


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
        raise cannot("positions as values", node)
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
        return _positions(frame, node, lanes)
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
