"""Where an access goes: the affine form of a position, and what it is over the lanes.

Positions are sums of multiples of products of loop variables (`ir.affine`). An unrolled variable is a number, so it moves into
the constant; the lane variable's multiple says how lanes lie in memory; the rest is the same for all lanes and is written with
the terms of outer loops first, so that each inner loop adds only what changes in it.
"""

from __future__ import annotations

from functools import partial
from math import gcd

from tridsl.backends.cpu.emit_frame import Frame, Place, once
from tridsl.backends.cpu.emit_llvm import (
    INDEX_TYPE,
    STORED,
    Value,
    index_constant,
    ir,
    lanes_of,
    together,
    vector_constant,
)
from tridsl.dtypes import INDEX
from tridsl.ir.affine import Monomial, Polynomial, normal_form
from tridsl.ir.expr import Expr, Var, add, index, mul
from tridsl.ir.walk import substitute, variables
from tridsl.structs import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Element offsets of one access: `base` (a scalar i64 or None for 0) plus `constant`, plus per lane `offsets` or `varying`.

    `offsets`: constants, one per lane, smallest first known at compile time; empty for a lane-uniform access.
    `varying`: a vector of i64, where offsets are not constant. `align`: bytes that the address of offset `constant` is a
    multiple of. `plain`: made of loop variables and sizes only, so it cannot wrap.
    """

    base: Value | None
    constant: int
    offsets: tuple[int, ...] = ()
    varying: Value | None = None
    align: int = 1

    @property
    def lanes(self) -> int:
        """Lanes of a varying access, 0 of a uniform one."""
        return len(self.offsets) if self.varying is None else lanes_of(self.varying)

    @property
    def uniform(self) -> bool:
        return not self.offsets and self.varying is None


_NUMBERS = Place(
    pointer=None, dtype=INDEX, shape=(index(1),), strides=(index(1),), space="reg", role=None, align=1
)
"""What is numbered one by one."""


def access_of(frame: Frame, place: Place, position: tuple[Expr, ...]) -> Access:
    """Classify `place[position]` in the current loops."""
    polynomial = _known(frame, _linear(frame, place, position))
    lane = frame.lane
    lane_offsets: tuple[int, ...] = ()
    if lane:
        step = polynomial.coefficient(lane.variable)
        if step is None:
            constants = _lane_constants(polynomial, lane.variable, lane.count)
            if constants is None:
                return _varying(frame, place, polynomial)
            polynomial, lane_offsets = constants
        elif step:
            polynomial = polynomial.without((lane.variable,))
            lane_offsets = tuple(step * n for n in range(lane.count))
        if place.private:
            lane_offsets = tuple(o * place.private + n for n, o in enumerate(lane_offsets or (0,) * lane.count))
    if place.private:
        number = 0 if lane else frame.lane_number
        terms = tuple((m, c * place.private) for m, c in polynomial.terms)
        polynomial = Polynomial(terms=terms, constant=polynomial.constant * place.private + number)
    if lane_offsets and len(set(lane_offsets)) == 1:
        polynomial = Polynomial(terms=polynomial.terms, constant=polynomial.constant + lane_offsets[0])
        lane_offsets = () if not place.private else lane_offsets
    return Access(
        base=emit_polynomial(frame, polynomial.terms),
        constant=polynomial.constant,
        offsets=lane_offsets,
        align=_alignment(place, polynomial),
    )


def steps_of(frame: Frame, position: Expr) -> Access:
    """The number `position` itself over the lanes."""
    return access_of(frame, _NUMBERS, (position,))


def _linear(frame: Frame, place: Place, position: tuple[Expr, ...]) -> Polynomial:
    """The row-major (or strided) offset; cached by the identity of the node's index tuple, which lives as long as the kernel."""
    found = frame.polynomials.get(id(position))
    if found is not None and found[0] is position:
        return found[1]
    offset: Expr = index(0)
    for coordinate, stride in zip(position, place.strides):
        offset = add(offset, mul(coordinate, stride))
    polynomial = normal_form(offset)
    frame.polynomials[id(position)] = (position, polynomial)
    return polynomial


def _known(frame: Frame, polynomial: Polynomial) -> Polynomial:
    """Put in the numbers of unrolled loops."""
    if not frame.known or not polynomial.terms:
        return polynomial
    total: dict[Monomial, int] = {}
    moved = polynomial.constant
    for monomial, factor in polynomial.terms:
        rest: list[Expr] = []
        for atom in monomial:
            if isinstance(atom, Var):
                if atom.name in frame.known:
                    factor *= frame.known[atom.name]
                else:
                    rest.append(atom)
            elif variables(atom) & frame.known.keys():
                return normal_form(substitute(_expression(polynomial), {n: index(v) for n, v in frame.known.items()}))
            else:
                rest.append(atom)
        if rest:
            total[tuple(rest)] = total.get(tuple(rest), 0) + factor
        else:
            moved += factor
    return Polynomial(terms=tuple((m, c) for m, c in total.items() if c), constant=moved)


def _expression(polynomial: Polynomial) -> Expr:
    result: Expr = index(polynomial.constant)
    for monomial, factor in polynomial.terms:
        product: Expr = index(factor)
        for atom in monomial:
            product = mul(product, atom)
        result = add(result, product)
    return result


def _lane_constants(polynomial: Polynomial, variable: str, count: int) -> tuple[Polynomial, tuple[int, ...]] | None:
    """Offsets such as `lane // 4` of `(j*32 + lane) // 4`: the lane's number put in, the rest the same for all lanes."""
    touched = tuple((m, c) for m, c in polynomial.terms if any(variable in variables(atom) for atom in m))
    rest = tuple((m, c) for m, c in polynomial.terms if (m, c) not in touched)
    expression = _expression(Polynomial(terms=touched, constant=polynomial.constant))
    common: tuple[tuple[Monomial, int], ...] | None = None
    offsets = []
    for number in range(count):
        at_lane = normal_form(substitute(expression, {variable: index(number)}))
        if common is None:
            common = at_lane.terms
        if at_lane.terms != common:
            return None
        offsets.append(at_lane.constant)
    first = offsets[0]
    merged = _merge(rest, common or ())
    return Polynomial(terms=merged, constant=first), tuple(o - first for o in offsets)


def _merge(a: tuple[tuple[Monomial, int], ...], b: tuple[tuple[Monomial, int], ...]) -> tuple[tuple[Monomial, int], ...]:
    total = dict(a)
    for monomial, factor in b:
        total[monomial] = total.get(monomial, 0) + factor
    return tuple((m, c) for m, c in total.items() if c)


def _varying(frame: Frame, place: Place, polynomial: Polynomial) -> Access:
    """Positions that only the lanes themselves know: a vector of offsets."""
    assert frame.lane is not None
    offsets: Value = emit_polynomial(frame, polynomial.terms)
    builder = frame.builder
    if place.private:
        width = index_constant(place.private)
        offsets, factor, numbers = together(builder, offsets, width, vector_constant(INDEX_TYPE, range(frame.lane.count)))
        offsets = builder.add(builder.mul(offsets, factor), numbers)
        return Access(base=None, constant=polynomial.constant * place.private, varying=offsets, align=1)
    if not isinstance(offsets.type, ir.VectorType):
        return Access(base=offsets, constant=polynomial.constant, align=_alignment(place, polynomial))
    return Access(base=None, constant=polynomial.constant, varying=offsets, align=1)


def emit_polynomial(frame: Frame, terms: tuple[tuple[Monomial, int], ...]) -> Value | None:
    """The sum of the terms, outer loops first; None for no terms."""
    builder = frame.builder
    total: Value | None = None
    for monomial, factor in sorted(terms, key=lambda term: _depth(frame, term[0])):
        plain = all(isinstance(atom, Var) for atom in monomial)
        flags = ("nsw",) if plain else ()
        value = frame.evaluate(monomial[0])
        for atom in monomial[1:]:
            value, other = together(builder, value, frame.evaluate(atom))
            value = once(frame, ("mul", flags), (value, other), partial(builder.mul, flags=flags))
        if factor != 1:
            value, scale = together(builder, value, index_constant(factor))
            value = once(frame, ("mul", flags), (value, scale), partial(builder.mul, flags=flags))
        if total is None:
            total = value
        else:
            total, value = together(builder, total, value)
            total = once(frame, ("add", flags), (total, value), partial(builder.add, flags=flags))
    return total


def _depth(frame: Frame, monomial: Monomial) -> tuple[int, tuple[str, ...]]:
    names = [name for atom in monomial for name in variables(atom)]
    return max((frame.depth.get(name, 0) for name in names), default=0), tuple(sorted(names))


def _alignment(place: Place, polynomial: Polynomial) -> int:
    size = STORED_BYTES[STORED[place.dtype]]
    found = gcd(place.align, *(c * size for _, c in polynomial.terms), polynomial.constant * size)
    return max(found, 1)


STORED_BYTES = {kind: (kind.width // 8 if isinstance(kind, ir.IntType) else {"half": 2, "float": 4, "double": 8}[str(kind)]) for kind in STORED.values()}
"""Bytes of an element in memory."""
