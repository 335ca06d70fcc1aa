"""`registers`: what each lane writes and reads alone is its own, however large the whole is.

    alloc e: f32[4096] in l1                                       alloc e: f32[16] in reg          # of each lane
    lane l < 256: for c < 4: for v < 4: e[c*1024 + l*4 + v] = …  →  lane l < 256: for c < 4: for v < 4: e[c*4 + v] = …
    lane l < 256: for c < 4: for v < 4: … e[c*1024 + l*4 + v]       lane l < 256: for c < 4: for v < 4: … e[c*4 + v]
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import prod

from tridsl.backends.vulkan.contiguous import offset_of, row_major
from tridsl.devices.spec import DeviceSpec
from tridsl.ir.affine import Interval, Polynomial, interval, normal_form, to_expression
from tridsl.ir.expr import Binary, Const, Expr, Load, add, index
from tridsl.ir.loop import Accumulate, Alloc, Block, Buffer, Copy, For, If, Kernel, Ref, Stmt, Store
from tridsl.ir.walk import rewrite, walk
from tridsl.schedule.nest import loop_ranges

MAX_ELEMENTS = 128
"""Elements of one buffer that a lane keeps; drivers put larger arrays into memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Share:
    """Lane l along `binding` owns the places `c*step*lanes + l*step + v` with v < step; without a binding, every lane all of them."""

    step: int
    lanes: int
    binding: str

    def held(self, count: int) -> int:
        """Places of a lane, of `count` in all."""
        return -(-count // (self.step * self.lanes)) * self.step if self.binding else count


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
    """The lane's part of `buffer`, and the statements that use it so: of the whole, or axis by axis."""
    sizes = [int(size.value) for size in buffer.shape if isinstance(size, Const)]
    if len(sizes) < len(buffer.shape):
        return None
    strides = row_major(buffer.shape)
    return _held(buffer, block, [prod(sizes)], lambda at: (offset_of(at, strides),)) or _held(buffer, block, sizes, lambda at: at)


def _held(buffer: Buffer, block: Block, sizes: list[int], view: Callable[[tuple[Expr, ...]], tuple[Expr, ...]]) -> tuple[Buffer, Block] | None:
    """The same where `view` says where each access is, along axes of `sizes` places."""
    shares: set[tuple[_Share, ...] | None] = set()
    places: dict[tuple[Expr, ...], tuple[Expr, ...]] = {}

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
                            found = _places(view(node.index), around, axes)
                            shares.add(None if found is None else found[0])
                            places[node.index] = () if found is None else found[1]

    visit(block, ())
    (share,) = shares if len(shares) == 1 else (None,)
    if share is None:
        return None
    held = [one.held(size) for one, size in zip(share, sizes)]
    if prod(held) > MAX_ELEMENTS:
        return None

    merges = [n for s in block for n in walk(s) if isinstance(n, Accumulate) and any(t.tensor == buffer.name for t in n.targets)]
    if any(n.reducer.op is None or n.init or n.mask is not None for n in merges):
        return None

    def own(node: Load | Ref) -> Load | Ref:
        return replace(node, index=places[node.index]) if node.tensor == buffer.name else node

    def merged(node: Accumulate) -> Accumulate | Store:
        """The lane's own sum, where no place says any more whose it is."""
        if node not in merges:
            return node
        (target,), (dtype,) = node.targets, node.reducer.dtypes
        old = Load(tensor=target.tensor, index=target.index, dtype=dtype)
        return Store(target=target, value=Binary(op=node.reducer.op, a=old, b=node.values[0], dtype=dtype))  # type: ignore[arg-type]  # `merges` has only reducers with an `op`

    block = rewrite(block, {Accumulate: merged})
    local = replace(buffer, shape=tuple(index(n) for n in held), space="reg", padded=(False,) * len(held))
    return local, rewrite(block, {Load: own, Ref: own})


def _places(
    at: tuple[Expr, ...], around: tuple[For, ...], ranges: Mapping[str, Interval]
) -> tuple[tuple[_Share, ...], tuple[Expr, ...]] | None:  # fmt: skip
    """Which lanes an access belongs to along each axis, and where in their parts it is. All loops over lanes decide one axis each."""
    lanes = [loop for loop in around if loop.kind == "lane"]
    found = [_share(place, lanes, ranges) for place in at]
    known = [one for one in found if one is not None]
    bindings = sorted(share.binding for share, _ in known if share.binding)
    if not lanes or len(known) < len(found) or bindings != sorted(loop.binding or "lane.x" for loop in lanes):
        return None
    return tuple(share for share, _ in known), tuple(place for _, place in known)


def _share(place: Expr, around: list[For], ranges: Mapping[str, Interval]) -> tuple[_Share, Expr] | None:
    polynomial = normal_form(place)
    lanes = [loop for loop in around if polynomial.coefficient(loop.var) != 0]
    if not lanes:
        return _Share(step=1, lanes=1, binding=""), place
    if len(lanes) > 1 or not isinstance(lanes[0].extent, Const):
        return None
    step, width = polynomial.coefficient(lanes[0].var), int(lanes[0].extent.value)
    if not step or step < 1:
        return None
    rest = polynomial.without([lanes[0].var])
    whole = tuple((m, c) for m, c in rest.terms if c % (step * width) == 0)
    part = Polynomial(terms=tuple(t for t in rest.terms if t not in whole), constant=rest.constant % (step * width))
    low, high = interval(to_expression(part), ranges)
    if low is None or high is None or low < 0 or high >= step:
        return None
    chunk = Polynomial(terms=tuple((m, c // width) for m, c in whole), constant=rest.constant // (step * width) * step)
    return _Share(step=step, lanes=width, binding=lanes[0].binding or "lane.x"), add(to_expression(chunk), to_expression(part))
