"""`registers`: what each lane writes and reads alone is its own, however large the whole is.

    alloc e: f32[4096] in l1                                       alloc e: f32[16] in reg          # of each lane
    lane l < 256: for c < 4: for v < 4: e[c*1024 + l*4 + v] = …  →  lane l < 256: for c < 4: for v < 4: e[c*4 + v] = …
    lane l < 256: for c < 4: for v < 4: … e[c*1024 + l*4 + v]       lane l < 256: for c < 4: for v < 4: … e[c*4 + v]
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from tridsl.backends.vulkan.contiguous import offset_of, row_major
from tridsl.devices.spec import DeviceSpec
from tridsl.ir.affine import Interval, Polynomial, interval, normal_form, to_expression
from tridsl.ir.expr import Const, Expr, Load, add, index
from tridsl.ir.loop import Alloc, Block, Buffer, Copy, For, If, Kernel, Ref, Stmt
from tridsl.ir.walk import rewrite, walk
from tridsl.schedule.nest import loop_ranges

MAX_ELEMENTS = 128
"""Elements of one buffer that a lane keeps; drivers put larger arrays into memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Share:
    """Lane l owns the elements `c*step*lanes + l*step + v` with v < step."""

    step: int
    lanes: int


def registers(kernel: Kernel, spec: DeviceSpec) -> Kernel:
    """Buffers around loops over lanes that every lane uses for itself alone."""
    return replace(kernel, phases=tuple(replace(p, body=_block(p.body, False)) for p in kernel.phases))


def _block(block: Block, inside: bool) -> Block:
    out: list[Stmt] = []
    rest = block
    while rest:
        statement, rest = rest[0], rest[1:]
        match statement:
            case Alloc(buffer=buffer) if not inside and buffer.shape and buffer.space != "shared":
                found = _owned(buffer, rest)
                if found is not None:
                    own, rest = found
                    statement = replace(statement, buffer=own)
            case For(body=body):
                statement = replace(statement, body=_block(body, inside or statement.kind == "lane"))
            case If(then=then, otherwise=otherwise):
                statement = replace(statement, then=_block(then, inside), otherwise=_block(otherwise, inside))
        out.append(statement)
    return tuple(out)


def _owned(buffer: Buffer, block: Block) -> tuple[Buffer, Block] | None:
    """The lane's part of `buffer`, and the statements that use it so."""
    if not all(isinstance(size, Const) for size in buffer.shape):
        return None
    count = 1
    for size in buffer.shape:
        count *= int(size.value) if isinstance(size, Const) else 0
    strides = row_major(buffer.shape)
    shares: set[_Share | None] = set()
    places: dict[tuple[Expr, ...], Expr] = {}

    def visit(statements: Block, around: tuple[For, ...]) -> None:
        for statement in statements:
            match statement:
                case For(body=body):
                    visit(body, (*around, statement))
                case If(condition=condition, then=then, otherwise=otherwise):
                    shares.update(None for node in walk(condition) if isinstance(node, Load) and node.tensor == buffer.name)
                    visit(then, around)
                    visit(otherwise, around)
                case _:
                    axes = loop_ranges(around)
                    if isinstance(statement, Copy):
                        axes |= {a.var: (0, int(a.extent.value) - 1) for a in statement.axes if isinstance(a.extent, Const)}
                    for node in walk(statement):
                        if isinstance(node, Load | Ref) and node.tensor == buffer.name:
                            share, place = _share(offset_of(node.index, strides), around, axes)
                            shares.add(share)
                            places[node.index] = place

    visit(block, ())
    (share,) = shares if len(shares) == 1 else (None,)
    if share is None or -(-count // (share.step * share.lanes)) * share.step > MAX_ELEMENTS:
        return None
    held = -(-count // (share.step * share.lanes)) * share.step

    def own(node: Load | Ref) -> Load | Ref:
        return replace(node, index=(places[node.index],)) if node.tensor == buffer.name else node

    local = replace(buffer, shape=(index(held),), space="reg", padded=(False,))
    return local, rewrite(block, {Load: own, Ref: own})


def _share(offset: Expr, around: tuple[For, ...], ranges: Mapping[str, Interval]) -> tuple[_Share | None, Expr]:
    """Which lane an access belongs to, and where in the lane's part it is."""
    polynomial = normal_form(offset)
    lanes = [loop for loop in around if loop.kind == "lane"]
    if len(lanes) != 1 or not isinstance(lanes[0].extent, Const):
        return None, offset
    step, width = polynomial.coefficient(lanes[0].var), int(lanes[0].extent.value)
    if not step or step < 1:
        return None, offset
    rest = polynomial.without([lanes[0].var])
    whole = tuple((m, c) for m, c in rest.terms if c % (step * width) == 0)
    part = Polynomial(terms=tuple(t for t in rest.terms if t not in whole), constant=rest.constant % (step * width))
    low, high = interval(to_expression(part), ranges)
    if low is None or high is None or low < 0 or high >= step:
        return None, offset
    chunk = Polynomial(terms=tuple((m, c // width) for m, c in whole), constant=rest.constant // (step * width) * step)
    return _Share(step=step, lanes=width), add(to_expression(chunk), to_expression(part))
