"""Copies become loops, for devices that have nothing better.

The outer loops walk the source as it lies in memory. The innermost runs where both sides are contiguous, as a vector loop (unless one
is around it already). When they are contiguous along different axes (a transposing pack) the middle of the copy goes through registers in
square blocks (`passes.transpose_blocks`), and what is over runs along the source, with scalar stores: strided reads would miss a cache line each.
Copies of more of a parameter than the nearest cache holds fetch ahead, along the outermost axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import TypeVar

from tridsl.devices.spec import DeviceSpec
from tridsl.dtypes import I32, DType, compute_type
from tridsl.ir.affine import normal_form
from tridsl.ir.expr import Binary, Cast, Const, Expr, Load, Var, add, index, sub
from tridsl.ir.loop import Alloc, Block, Copy, CopyAxis, For, Kernel, Phase, Stmt, Store
from tridsl.ir.op import Tensor
from tridsl.ir.packings import is_packed
from tridsl.ir.strides import contiguous_axis, memory_order
from tridsl.ir.walk import rewrite, substitute, variables, walk
from tridsl.passes.boundaries import boundaries
from tridsl.passes.copies_ahead import hints, most
from tridsl.passes.transpose_blocks import Blocking, blocking_of, transpose_blocks
from tridsl.structs import dataclass, replace

N = TypeVar("N", For, Phase)
SHARED_ELEMENTS = 1 << 16
"""Elements from which a copy takes longer than waking the threads (some microseconds)."""
AHEAD_BYTES = 2048
"""How far ahead a copy fetches: what it takes a core to move while a line comes from a far cache."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ahead:
    """Hints beside the innermost loops of a copy: for what `axis` reads `distance` iterations later, along the source's `contiguous` index."""

    axis: str
    distance: int
    contiguous: int


def expand_copies(kernel: Kernel, spec: DeviceSpec) -> Kernel:
    """Expands every copy that is not cooperative. Borders become index maps and masks first."""
    kernel = boundaries(kernel)
    tensors = {p.name: p for p in kernel.params if isinstance(p, Tensor)}
    types = {n.buffer.name: n.buffer.dtype for p in kernel.phases for n in walk(p) if isinstance(n, Alloc)}

    def expand(copy: Copy, in_lanes: bool) -> Copy | Block:
        if copy.cooperative or copy.transposed:
            return copy
        along = _contiguous_axis(copy, tensors.get(copy.source.tensor))
        dtype = types.get(copy.target.tensor)
        blocking = None if in_lanes or along is None or dtype is None else blocking_of(copy, along, dtype, spec)
        return _expand(copy, along, in_lanes, blocking, dtype or copy.source.dtype, tensors.get(copy.source.tensor), spec)

    def lanes(loop: For) -> For:
        """Copies inside a vector loop: each lane makes its own, one element at a time."""
        return rewrite(loop, {Copy: lambda copy: expand(copy, True)}) if loop.kind == "vector" else loop

    def share(node: N) -> N:
        """A copy in front of a loop that threads share is made by the same threads."""
        last: int = max((n for n, s in enumerate(node.body) if isinstance(s, For) and s.kind == "parallel"), default=0)
        body: list[Stmt] = []
        for statement in node.body[:last]:
            made = expand(statement, False) if isinstance(statement, Copy) and _elements(statement) >= SHARED_ELEMENTS else statement
            body += (replace(s, kind="parallel") if isinstance(s, For) else s for s in made) if isinstance(made, tuple) else (made,)
        return replace(node, body=(*body, *node.body[last:])) if last else node

    phases = rewrite(kernel.phases, {For: share, Phase: share})
    phases = rewrite(phases, {For: lanes})
    return replace(kernel, phases=rewrite(phases, {Copy: lambda copy: expand(copy, False)}))


def _elements(copy: Copy) -> int:
    """Elements of a copy at most; one where they are not known."""
    return prod(int(a.extent.value) if isinstance(a.extent, Const) else a.bound or 1 for a in copy.axes)


def _expand(
    copy: Copy, along: str | None, in_lanes: bool, blocking: Blocking | None, held: DType, tensor: Tensor | None, spec: DeviceSpec
) -> Block:  # fmt: skip
    order = range(len(copy.source.index)) if tensor is None else memory_order(tensor)
    last = copy.axes[-1].var if copy.axes else ""
    if blocking is not None:
        outer = _in_source_order([a for a in copy.axes if a not in blocking.axes], copy.source, order)
        ahead = _ahead(copy, [*outer, *blocking.axes], len(outer), tensor, spec)
        return _nest(copy, [*outer, *blocking.axes], False, {}, False, held, blocking, ahead)
    vector = along is not None and along == last and not in_lanes
    axes = _in_source_order(copy.axes, copy.source, order, last if vector else along)
    return _nest(copy, axes, vector, {}, False, held, ahead=_ahead(copy, axes, len(axes) - 1, tensor, spec) if vector else None)


def _ahead(copy: Copy, axes: Sequence[CopyAxis], outer: int, tensor: Tensor | None, spec: DeviceSpec) -> _Ahead | None:
    """Whether to fetch ahead in a nest whose first `outer` loops are around what is copied at once."""
    contiguous = None if tensor is None or is_packed(tensor) else contiguous_axis(tensor)
    sizes = [most(a) for a in axes]
    if not outer or contiguous is None or not spec.vector_bits or None in sizes:
        return None
    moved = copy.source.dtype.storage_bytes * prod(n or 1 for n in sizes[1:])
    if moved * (sizes[0] or 1) < (spec.l1_bytes or 1 << 15):
        return None
    return _Ahead(axis=axes[0].var, distance=max(1, -(-AHEAD_BYTES // moved)), contiguous=contiguous)


def _hinted(copy: Copy, axes: Sequence[CopyAxis], done: dict[str, Expr], ahead: _Ahead | None) -> Block:
    """The hints beside the loops over `axes`."""
    if ahead is None:
        return ()
    later = {**done, ahead.axis: add(done[ahead.axis], index(ahead.distance))}
    hint = hints(copy, axes, ahead.contiguous, later, lambda piece, pieces: (piece, pieces))
    return () if hint is None else (hint,)


def _contiguous_axis(copy: Copy, tensor: Tensor | None) -> str | None:
    """The copy variable along which the source advances from one element to the next in memory; of several (a window's) that of the
    target's last axis. Elements of packed parameters are not in memory: each is decoded by itself."""
    place = copy.source.index
    axis = len(place) - 1 if tensor is None else contiguous_axis(tensor)
    if not place or axis is None or (tensor is not None and is_packed(tensor)):
        return None
    poly = normal_form(place[axis])
    steps = [m[0].name for m, c in poly.terms if c == 1 and len(m) == 1 and isinstance(m[0], Var)]
    others = {v for n, i in enumerate(place) if n != axis for v in variables(i)}
    inner = [v for v in steps if v not in others]
    both = [i.name for i in copy.target.index[-1:] if isinstance(i, Var) and i.name in inner]
    return both[0] if both else inner[-1] if inner else None


def _in_source_order(axes: Sequence[CopyAxis], source: Load, order: Sequence[int], innermost: str | None = None) -> list[CopyAxis]:
    """The axes as the source lies in memory (`order`), but none before an axis that its extent mentions, and `innermost` last where that may be."""

    def distance(axis: CopyAxis) -> tuple[bool, int, int]:
        for number, place in enumerate(source.index[n] for n in order):
            if axis.var in variables(place):
                return axis.var == innermost, number, -(normal_form(place).coefficient(axis.var) or 0)
        return axis.var == innermost, len(source.index), 0

    left, arranged = list(axes), list[CopyAxis]()
    while left:
        names = {axis.var for axis in left}
        chosen = min((axis for axis in left if not names & variables(axis.extent)), key=distance)
        left.remove(chosen)
        arranged.append(chosen)
    return arranged


def _nest(
    copy: Copy, axes: list[CopyAxis], vector: bool, done: dict[str, Expr], filling: bool, held: DType, blocking: Blocking | None = None,
    ahead: _Ahead | None = None,
) -> Block:  # fmt: skip
    if not axes:
        value: Expr = copy.source
        if filling:
            assert copy.pad is not None
            value = copy.pad
        wide = compute_type(held)
        if copy.flipped:
            half = Const(value=1 << value.dtype.bits - 1, dtype=I32)
            value = Cast(a=Binary(op="add", a=Cast(a=value, dtype=I32), b=half, dtype=I32), dtype=held)
        elif isinstance(value, Const):
            value = replace(value, dtype=wide)
        elif value.dtype != wide:
            value = Cast(a=value, dtype=wide)
        return (substitute(Store(target=copy.target, value=value), done),)
    if blocking is not None and not filling and len(axes) == len(blocking.axes):
        blocks = transpose_blocks(substitute(copy, done), blocking.inside(done), lambda part: _nest(part, list(part.axes), False, {}, False, held))
        return (*blocks, *_hinted(copy, axes, done, ahead))
    axis, rest = axes[0], axes[1:]
    kind = "vector" if vector and not rest else "serial"
    suffix = ".fill" if filling else ""
    name = f"{axis.var}{suffix}"
    if filling:
        extent = index(axis.bound) if axis.bound is not None else substitute(axis.extent, done)
        inner = _nest(copy, rest, vector, {**done, axis.var: Var(name=name)}, True, held)
        return (For(var=name, extent=extent, bound=axis.bound, kind=kind, body=inner),)  # type: ignore[arg-type]
    extent = substitute(axis.extent, done)
    inner = _nest(copy, rest, vector, {**done, axis.var: Var(name=name)}, False, held, blocking, ahead)
    loops: list[Stmt] = [For(var=name, extent=extent, bound=axis.bound, kind=kind, body=inner)]  # type: ignore[arg-type]  # mypy widens the kinds to str
    if axis.bound is not None and copy.pad is not None and extent != index(axis.bound):
        tail = f"{axis.var}.pad"
        beyond = _nest(copy, [replace(a, var=a.var) for a in rest], vector, {**done, axis.var: add(extent, Var(name=tail))}, True, held)
        beyond = _renamed(beyond, f".{len(axes)}")
        loops.append(For(var=tail, extent=sub(index(axis.bound), extent), bound=axis.bound, kind=kind, body=beyond))  # type: ignore[arg-type]
    return (*loops, *(_hinted(copy, axes, done, ahead) if vector and not rest else ()))


def _renamed(block: Block, suffix: str) -> Block:
    """Fill loops of different tails need names of their own."""
    def rename(loop: For) -> For:
        return replace(loop, var=loop.var + suffix, body=substitute(loop.body, {loop.var: Var(name=loop.var + suffix)}))

    return rewrite(block, {For: rename})
