"""`tiles`: what a schedule keeps in fragments gets the shape of the instruction that adds to it, and each subgroup has its own part.

    alloc o: f32[128, 64] in fragment                               alloc o: f32[2, 4, 16, 16] in fragment
    subgroup s < 4: unroll i < 2: unroll j < 4:                     subgroup s < 4: unroll i < 2: unroll j < 4:
      mma coopmat_16x16x16 o[s*32 + i*16 + m, j*16 + n] += …          mma coopmat_16x16x16 o[i, j, m, n] += …

Where a part is not the subgroup's alone, or no whole fragment, the buffer goes to shared memory.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from tridsl.devices.intrinsics import FRAGMENTS_BETWEEN, INTRINSICS
from tridsl.devices.spec import DeviceSpec
from tridsl.ir.affine import Interval, Polynomial, interval, normal_form, to_expression
from tridsl.ir.expr import Const, Expr, Load, index
from tridsl.ir.loop import Alloc, Block, Buffer, For, If, Kernel, Mma, Phase, Ref
from tridsl.ir.walk import rewrite, walk
from tridsl.schedule.nest import loop_ranges

Places = dict[tuple[Expr, ...], tuple[Expr, ...]]


def tiles(kernel: Kernel, spec: DeviceSpec) -> Kernel:
    """Every buffer of two axes or more in fragments."""
    return replace(kernel, phases=tuple(_phase(p, spec.features >= FRAGMENTS_BETWEEN) for p in kernel.phases))


def _phase(phase: Phase, between: bool) -> Phase:
    for alloc in [n for n in walk(phase.body) if isinstance(n, Alloc) and n.buffer.space == "fragment"]:
        phase = replace(phase, body=_tiled(phase.body, alloc.buffer, between))
    return phase


def _tiled(block: Block, buffer: Buffer, between: bool) -> Block:
    sizes = _sizes(block, buffer.name, between)
    shape = [int(n.value) for n in buffer.shape if isinstance(n, Const)]
    found = None
    if sizes is not None and len(shape) == len(buffer.shape) >= 2:
        found = _parts(block, buffer, shape, sizes)
    if found is None or sizes is None:
        moved = replace(buffer, space="l1")
        return rewrite(block, {Alloc: lambda a: replace(a, buffer=moved) if a.buffer == buffer else a})
    counts, places = found
    own = replace(buffer, shape=tuple(index(n) for n in (*shape[:-2], *counts, *sizes)), padded=())

    def access(node: Load | Ref) -> Load | Ref:
        return replace(node, index=places[node.index]) if node.tensor == buffer.name else node

    return rewrite(block, {Alloc: lambda a: replace(a, buffer=own) if a.buffer == buffer else a, Load: access, Ref: access})


def _sizes(block: Block, name: str, between: bool) -> tuple[int, int] | None:
    """Rows and columns of the fragments that instructions add to in `name`; where the device works on fragments `between` products, also of those
    that they take as factors, and of what none of them works on, those of their results."""
    instructions = [(n, INTRINSICS[n.intrinsic]) for n in walk(block) if isinstance(n, Mma)]
    found: set[tuple[int, int]] = set()
    for mma, row in instructions:
        parts = ((mma.target, (row.m, row.n)), (mma.a, (row.m, row.k)), (mma.b, (row.k, row.n)))
        found |= {sizes for part, sizes in (parts if between else parts[:1]) if isinstance(part, Load | Ref) and part.tensor == name}
    if between and not found:
        found = {(row.m, row.n) for _, row in instructions if row.is_matrix}
    return next(iter(found)) if len(found) == 1 else None


def _parts(block: Block, buffer: Buffer, shape: list[int], sizes: tuple[int, int]) -> tuple[tuple[int, int], Places] | None:
    """Fragments of a subgroup along both axes, and where each access is in them."""
    found: set[tuple[int, int] | None] = set()
    places: Places = {}

    def visit(statements: Block, around: tuple[For, ...]) -> None:
        for statement in statements:
            match statement:
                case For(body=body):
                    visit(body, (*around, statement))
                case If(then=then, otherwise=otherwise):
                    visit((*then, *otherwise), around)
                case _:
                    ranges = loop_ranges(around)
                    if isinstance(statement, Mma):
                        ranges |= {v: (0, n - 1) for v, n in statement.axes}
                    for node in walk(statement):
                        if isinstance(node, Load | Ref) and node.tensor == buffer.name:
                            axes = [_axis(node.index[k], shape[k], size, around, ranges) for k, size in zip((-2, -1), sizes)]
                            if any(a is None for a in axes):
                                found.add(None)
                                continue
                            known = [a for a in axes if a is not None]
                            found.add((known[0].count, known[1].count))
                            places[node.index] = (*node.index[:-2], *(a.outer for a in known), *(a.inner for a in known))

    visit(block, ())
    (counts,) = found if len(found) == 1 else (None,)
    return None if counts is None else (counts, places)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Axis:
    """`count` fragments, which of them an access is in, and where in it."""

    count: int
    outer: Expr
    inner: Expr


def _axis(place: Expr, extent: int, size: int, around: tuple[For, ...], ranges: dict[str, Interval]) -> _Axis | None:
    polynomial = normal_form(place)
    teams = [loop for loop in around if loop.kind == "subgroup"]
    steps = [(loop, step) for loop in teams if (step := polynomial.coefficient(loop.var))]
    if not teams or len(steps) > 1 or any(not isinstance(loop.extent, Const) for loop, _ in steps):
        return None
    part = extent
    for loop, step in steps:
        part = step
        if step * int(loop.extent.value) != extent:  # type: ignore[union-attr]  # only loops of constant extent are steps
            return None
    rest = polynomial.without([loop.var for loop in teams])
    whole = Polynomial(terms=tuple((m, c // size) for m, c in rest.terms if c % size == 0), constant=rest.constant // size)
    inside = Polynomial(terms=tuple(t for t in rest.terms if t[1] % size), constant=rest.constant % size)
    low, high = interval(to_expression(inside), ranges)
    if part % size or low is None or high is None or low < 0 or high >= size:
        return None
    return _Axis(count=part // size, outer=to_expression(whole), inner=to_expression(inside))
