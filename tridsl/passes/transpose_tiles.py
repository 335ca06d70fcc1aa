"""A register tile that is stored lane by lane, each to a row of its own, changes rows with columns on the way out.

    unroll i < 8: vector j < 16: y[j, i] = tile[i, j]     ->     copy tile -> y for i < 8, j < 16, transposed

Sixteen stores of eight elements instead of 128 of one.
"""

from __future__ import annotations

from tridsl.devices.spec import DeviceSpec
from tridsl.dtypes import compute_type
from tridsl.ir.affine import constant, normal_form
from tridsl.ir.expr import Cast, Load, Var, add, index
from tridsl.ir.loop import Alloc, Block, Copy, CopyAxis, For, Kernel, Store
from tridsl.ir.op import Tensor
from tridsl.ir.strides import contiguous_axis
from tridsl.ir.walk import rewrite, substitute, variables, walk
from tridsl.structs import replace

ROWS = (4, 16)
"""Rows of a tile that make stores of at least four elements, and those whose places in a register are known to fit."""


def transpose_tiles(kernel: Kernel, spec: DeviceSpec) -> Kernel:
    """Turns whole tiles; those with tails are stored as they were."""
    if not spec.vector_bits:
        return kernel
    tensors = {p.name: p for p in kernel.params if isinstance(p, Tensor)}
    registers = {n.buffer.name: n.buffer.dtype for p in kernel.phases for n in walk(p) if isinstance(n, Alloc) and n.buffer.space == "reg"}

    def visit(loop: For) -> For | Block:
        rows = constant(loop.extent)
        if loop.kind != "unroll" or rows is None or not ROWS[0] <= rows <= ROWS[1] or len(loop.body) != 1:
            return loop
        vector = loop.body[0]
        if not isinstance(vector, For) or vector.kind != "vector" or len(vector.body) != 1 or not isinstance(vector.body[0], Store):
            return loop
        store = vector.body[0]
        source = _element(store)
        columns = constant(vector.extent)
        if source is None or source.tensor not in registers or columns is None or source.index != (Var(name=loop.var), Var(name=vector.var)):
            return loop
        lanes = spec.lanes(registers[source.tensor])
        if columns % lanes or not _crosses(store, tensors.get(store.target.tensor), loop.var, vector.var):
            return loop
        return tuple(_part(store, source, loop.var, vector.var, rows, start, lanes) for start in range(0, columns, lanes))

    return replace(kernel, phases=rewrite(kernel.phases, {For: visit}))


def _element(store: Store) -> Load | None:
    """What is stored, where it is an element of a buffer as it is, or rounded to the target's type."""
    value = store.value
    if isinstance(value, Cast) and isinstance(value.a, Load) and value.dtype == compute_type(value.a.dtype):
        value = value.a
    plain = isinstance(value, Load) and value.mask is None and store.mask is None and not store.stream
    return value if plain and isinstance(value, Load) else None


def _crosses(store: Store, tensor: Tensor | None, row: str, lane: str) -> bool:
    """Whether the rows of the tile lie side by side in the target, and its lanes apart."""
    place = store.target.index
    axis = len(place) - 1 if tensor is None else contiguous_axis(tensor)
    if axis is None or not place or lane in variables(place[axis]):
        return False
    elsewhere = any(row in variables(i) for n, i in enumerate(place) if n != axis)
    return normal_form(place[axis]).coefficient(row) == 1 and not elsewhere and any(lane in variables(i) for i in place)


def _part(store: Store, source: Load, row: str, lane: str, rows: int, start: int, lanes: int) -> Copy:
    along, across = CopyAxis(var=f"{row}.t{start or ''}", extent=index(rows)), CopyAxis(var=f"{lane}.t{start or ''}", extent=index(lanes))
    places = {row: Var(name=along.var), lane: add(Var(name=across.var), index(start))}
    return Copy(
        axes=(along, across), target=substitute(store.target, places), source=substitute(source, places), transposed=True, span=store.span
    )
