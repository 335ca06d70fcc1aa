"""Where the text of a function keeps what: memory, registers and numbers, and accesses to them. A value is a vector of the AIE API."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tridsl.backends.npu.emit_functions import ELEMENTS, element
from tridsl.backends.npu.lower_program import identifier
from tridsl.diagnostics import TriError, error
from tridsl.dtypes import INDEX, DType
from tridsl.ir.affine import normal_form, simplify_index, to_expression
from tridsl.ir.expr import Binary, Cast, Const, Expr, Load, Unary, Var, add, index, mul, sub
from tridsl.ir.walk import rewrite, substitute, variables, walk


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
_COMPARISONS = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
_JOINED = {"and": "&&", "or": "||"}


def index_condition(node: Expr) -> str | None:
    """A condition over places as C++; None where it asks for values."""
    match node:
        case Binary(op="and" | "or" as op, a=a, b=b):
            sides = [index_condition(a), index_condition(b)]
            return None if None in sides else f"({sides[0]} {_JOINED[op]} {sides[1]})"
        case Unary(op="not", a=a):
            inner = index_condition(a)
            return None if inner is None else f"(!{inner})"
        case Binary(op=op, a=a, b=b) if op in _COMPARISONS and a.dtype == INDEX and not any(isinstance(n, Load) and n.index for n in walk(node)):
            return f"({index_text(a)} {_COMPARISONS[op]} {index_text(b)})"
    return None


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


def chosen(frame: Frame, at: tuple[Expr, ...], lanes: Lanes) -> tuple[Expr, ...]:
    """Places in which what memory says has become a number of the core: `x[order[j]]` reads `order[j]` first."""

    def number(cast: Cast) -> Expr:
        inner = cast.a
        if cast.dtype != INDEX or not isinstance(inner, Load):
            return cast
        place = frame.places.get(inner.tensor)
        if place is None or place.kind != "memory" or not place.dtype.is_integer or inner.mask is not None:
            raise cannot("a place that is chosen by what is no integer in memory", inner)
        if variables(inner) & {name for name, _ in lanes.variables}:
            raise cannot("places that are chosen anew for each lane", inner)
        name = f"chosen_{len(frame.lines)}"
        frame.line(f"const int32_t {name} = {place.name}[{index_text(address(place, inner.index))}];")
        return Var(name=name)

    return rewrite(at, {Cast: number}) if any(isinstance(n, Load) and n.index for i in at for n in walk(i)) else at


def load(frame: Frame, node: Load, lanes: Lanes) -> str:
    place = frame.places.get(node.tensor)
    if place is None or node.mask is not None or node.boundary is not None:
        raise cannot(f"this access to `{node.tensor}`", node)
    if place.kind == "number":
        return place.name
    if place.kind == "blocks":
        raise cannot(f"single elements of the accumulators `{node.tensor}`", node)
    step, base = along(address(place, chosen(frame, node.index, lanes)), lanes)
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
    if not can_load(step, place.dtype, frame.lanes):
        raise cannot(f"every element of `{place.name}` {step} apart")
    whole, which = whole_of(place, first, step)
    function = "load_v" if is_aligned(frame, place, whole, step) else "load_unaligned_v"
    text = f"aie::{function}<{frame.lanes * step}>({pointer(place, whole)})"
    while step > 1:
        text = f"aie::{'filter_odd' if which % 2 else 'filter_even'}({text}, 1)"
        step, which = step // 2, which // 2
    return text


def whole_of(place: Place, first: Expr, step: int) -> tuple[Expr, int]:
    """Where the vectors begin of which every `step`-th element is meant, and which of so many."""
    poly = normal_form(first)
    if any(f % step for _, f in poly.terms):
        raise cannot(f"every element of `{place.name}` {step} apart")
    which = poly.constant % step
    return to_expression(type(poly)(terms=poly.terms, constant=poly.constant - which)), which


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
