"""`tiles`: what instructions for blocks (AMX) add up stays in tile registers, and each block of a factor is loaded once for all that use it.

    alloc acc: i32[2, 2, 16, 16] in l1                          alloc acc: i32[2, 2, 16, 16] in fragment
    unroll i < 2: unroll j < 2: for m: for n: acc[…] = 0        …
    for k: unroll i < 2: unroll j < 2:                          for k: alloc A.tile: i8[2, 16, 64] in fragment;  copy A.pack -> A.tile;  likewise B
      mma tdpbssd acc[i, j, m, n] += A.pack[…] * B.pack[…]        unroll i < 2: unroll j < 2: mma tdpbssd acc[…] += A.tile[…] * B.tile[…]
    for m < rest: for n: C[…] = acc[i, j, m, n]                 if 16 <= rest: for m < 16: for n < 16: C[…] = acc[…]
                                                                else: acc.out = acc;  for m < rest: for n: C[…] = acc.out[…]

A tile is filled, loaded and stored whole. What wants some of its elements, or computes with them, finds them in memory.
"""

from __future__ import annotations

from functools import partial
from math import prod

from tridsl.backends.cpu.amx import REGISTERS
from tridsl.backends.cpu.blocks import BlockAxis, blocks_of, check_blocks, is_block
from tridsl.devices.intrinsics import INTRINSICS
from tridsl.devices.spec import DeviceSpec
from tridsl.dtypes import DType
from tridsl.ir.affine import constant, normal_form, simplify_index
from tridsl.ir.expr import Binary, Const, Expr, Load, Var, binary, both, index
from tridsl.ir.loop import Alloc, Block, Buffer, Copy, CopyAxis, For, If, Kernel, Mma, Ref, Stmt, Store
from tridsl.ir.op import Tensor
from tridsl.ir.strides import contiguous_axis
from tridsl.ir.walk import rewrite, substitute, variables, walk
from tridsl.passes.fresh import fresh
from tridsl.passes.simplify import simplify
from tridsl.passes.whole_fragments import WholeUse, whole_load, whole_use
from tridsl.structs import dataclass, replace

Rows = dict[str, tuple[DType, int | None]]
"""Element type of a tensor, and the axis along which its elements lie side by side."""


def tiles(kernel: Kernel, spec: DeviceSpec) -> Kernel:
    """Every accumulator of block instructions that fits the tile registers beside the blocks that are multiplied. E0491: a factor does
    not lie as it is loaded."""
    if not any(isinstance(n, Mma) and is_block(n) for p in kernel.phases for n in walk(p)):
        return kernel
    check_blocks(kernel)
    rows = {p.name: (p.dtype, contiguous_axis(p)) for p in kernel.params if isinstance(p, Tensor)}
    local = (n.buffer for p in kernel.phases for n in walk(p) if isinstance(n, Alloc))
    rows |= {b.name: (b.dtype, len(b.shape) - 1) for b in (*kernel.scratch, *local)}
    phases = tuple(replace(p, body=_visit(p.body, rows)) for p in kernel.phases)
    return kernel if phases == kernel.phases else simplify(replace(kernel, phases=phases))


def _visit(block: Block, rows: Rows) -> Block:
    for position, statement in enumerate(block):
        if isinstance(statement, Alloc):
            moved = _moved(statement.buffer, block[position + 1 :], rows)
            if moved is not None:
                return (*(made for s in block[:position] for made in _inside(s, rows)), *moved)
    return tuple(made for s in block for made in _inside(s, rows))


def _inside(statement: Stmt, rows: Rows) -> Block:
    match statement:
        case For():
            return (replace(statement, body=_visit(statement.body, rows)),)
        case If():
            return (replace(statement, then=_visit(statement.then, rows), otherwise=_visit(statement.otherwise, rows)),)
        case Mma() if is_block(statement):
            return _alone(statement)
    return (statement,)


def _alone(mma: Mma) -> Block:
    """One instruction whose sums are in memory before and behind it."""
    (m, rows), (n, columns), _ = mma.axes
    target = mma.target
    dtype = INTRINSICS[mma.intrinsic].acc
    tile = Buffer(name=f"{target.tensor}.tile@{m}", dtype=dtype, shape=(index(rows), index(columns)), space="fragment")
    before, behind = ({v: Var(name=f"{tile.name}{what}:{v.replace(':', '.')}") for v in (m, n)} for what in (".in", ".out"))
    loaded = Copy(
        axes=tuple(CopyAxis(var=before[v].name, extent=index(e)) for v, e in ((m, rows), (n, columns))),
        target=Ref(tensor=tile.name, index=tuple(before.values())),
        source=Load(tensor=target.tensor, index=substitute(target, before).index, dtype=dtype),
    )
    here = Load(tensor=tile.name, index=tuple(behind.values()), dtype=dtype)
    stored: Block = (Store(target=substitute(target, behind), value=here),)
    for variable, extent in ((n, columns), (m, rows)):
        stored = (For(var=behind[variable].name, extent=index(extent), bound=extent, kind="unroll", body=stored),)
    made = _factors([], replace(mma, target=Ref(tensor=tile.name, index=(Var(name=m), Var(name=n)))), REGISTERS - 1)
    assert made is not None, "an operand of a block instruction is no element"
    return (Alloc(buffer=tile), loaded, *made, *stored)


def _moved(buffer: Buffer, rest: Block, rows: Rows) -> Block | None:
    """The block behind the allocation with the buffer in tiles; None where it cannot be."""
    found = [n for s in rest for n in walk(s) if isinstance(n, Mma) and is_block(n)]
    if not found or any(n.target.tensor != buffer.name for n in found) or any(isinstance(n, For) and n.kind == "parallel" for s in rest for n in walk(s)):
        return None
    accumulators = prod(constant(n) or REGISTERS for n in buffer.shape[:-2])
    work = _Work(buffer=buffer, memory=replace(buffer, name=f"{buffer.name}.out"), rows=rows, free=REGISTERS - accumulators)
    if work.free < 2:
        return None
    body = work.block(rest)
    if body is None:
        return None
    kept: Block = (Alloc(buffer=replace(buffer, space="fragment")),)
    if any(isinstance(n, Load | Ref) and n.tensor == work.memory.name for s in body for n in walk(s)):
        kept = (*kept, Alloc(buffer=work.memory))
    return (*kept, *body)


def _at_bound(tail: For, loop: For) -> For:
    """The loop at its greatest extent, if it is `tail`."""
    return replace(loop, extent=index(tail.bound or 0)) if loop.var == tail.var else loop


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    """`memory`: where elements of the tiles of `buffer` are found; `free`: tile registers for factors."""

    buffer: Buffer
    memory: Buffer
    rows: Rows
    free: int

    def block(self, block: Block) -> Block | None:
        out: list[Stmt] = []
        for statement in block:
            made = self.statement(statement)
            if made is None:
                return None
            out += made
        return tuple(out)

    def statement(self, statement: Stmt) -> Block | None:
        name = self.buffer.name
        if not any(isinstance(n, Load | Ref) and n.tensor == name for n in walk(statement)):
            return (statement,)
        loops, inner = _tile(statement)
        if isinstance(inner, Mma):
            return _factors(loops, inner, self.free)
        if isinstance(statement, If):
            then, otherwise = self.block(statement.then), self.block(statement.otherwise)
            condition = any(isinstance(n, Load) and n.tensor == name for n in walk(statement.condition))
            return None if then is None or otherwise is None or condition else (replace(statement, then=then, otherwise=otherwise),)
        if isinstance(statement, For) and any(is_block(n) for n in walk(statement)):
            body = self.block(statement.body)
            return None if body is None else (replace(statement, body=body),)
        if any(isinstance(n, Ref) and n.tensor == name for n in walk(statement)):
            return (statement,) if self._whole(statement) is not None else self._loaded(statement)
        return self._stored(statement)

    def _loaded(self, statement: Stmt) -> Block | None:
        """From memory: whole where all of it is there, else by way of memory in which the rest is filled up."""
        loops, inner = _perfect(statement)
        if not isinstance(inner, Store) or not isinstance(inner.value, Load) or any(l.extent != index(l.bound or 0) for l in loops):
            return None
        elsewhere = (rewrite(statement, {Ref: self._to_memory}), *self._between(statement, self.memory, self.buffer))
        whole = rewrite(statement, {Load: lambda load: replace(load, mask=None, other=None)})
        if self._whole(whole) is None:
            return elsewhere
        last = {l.var: index((l.bound or 1) - 1) for l in loops}
        mask = inner.value.mask
        return (whole,) if mask is None else (If(condition=substitute(mask, last), then=(whole,), otherwise=fresh(elsewhere, ".edge")),)

    def _stored(self, statement: Stmt) -> Block:
        """Whole where all of it is there, by way of memory elsewhere."""
        elsewhere = (*self._between(statement, self.buffer, self.memory), rewrite(statement, {Load: self._from_memory}))
        loops, _ = _perfect(statement)
        tails = [l for l in loops if l.bound is not None and l.extent != index(l.bound)]
        full = statement
        condition: Expr | None = None
        for loop in tails:
            last = {l.var: index((l.bound or 1) - 1) for l in loops if l is not loop}
            condition = both(condition, binary("le", index(loop.bound or 0), simplify_index(substitute(loop.extent, last))))
            full = rewrite(full, {For: partial(_at_bound, loop)})
        if self._whole(full) is None:
            return elsewhere
        return (full,) if condition is None else (If(condition=condition, then=(full,), otherwise=fresh(elsewhere, ".edge")),)

    def _whole(self, statement: Stmt) -> WholeUse | None:
        """The use of one tile after the other that the nest is, if each is a block of memory, too."""
        while isinstance(statement, For) and statement.kind == "unroll" and len(statement.body) == 1 and isinstance(statement.extent, Const):
            use = whole_use(statement) or whole_load(statement)
            if use is not None:
                return use if self._is_block(use) else None
            (statement,) = statement.body
        return None

    def _is_block(self, use: WholeUse) -> bool:
        shape = tuple(constant(n) for n in self.buffer.shape[-2:])
        if use.extents != shape or use.mask is not None:
            return False
        if use.tensor == self.buffer.name and isinstance(use.value, Const):
            return not use.value.value
        if not isinstance(use.value, Load) or self.buffer.name not in (use.tensor, use.value.tensor):
            return False
        tensor, place = (use.value.tensor, use.value.index) if use.tensor == self.buffer.name else (use.tensor, use.index)
        dtype, along = self.rows.get(tensor, (None, None))
        return dtype == self.buffer.dtype and along is not None and _walks(place, along, use.columns)

    def _from_memory(self, load: Load) -> Load:
        return replace(load, tensor=self.memory.name) if load.tensor == self.buffer.name else load

    def _to_memory(self, place: Ref) -> Ref:
        return replace(place, tensor=self.memory.name) if place.tensor == self.buffer.name else place

    def _between(self, statement: Stmt, source: Buffer, target: Buffer) -> Block:
        """All tiles to memory, or from there."""
        own = next(n.var for n in walk(statement) if isinstance(n, For))
        place = tuple(Var(name=f"{self.memory.name}:{own.replace(':', '.')}.{axis}") for axis in range(len(self.buffer.shape)))
        value = Load(tensor=source.name, index=place, dtype=source.dtype)
        body: Block = (Store(target=Ref(tensor=target.name, index=place), value=value),)
        for variable, extent in reversed(list(zip(place, self.buffer.shape))):
            body = (For(var=variable.name, extent=extent, bound=constant(extent), kind="unroll", body=body),)
        return body


def _walks(place: tuple[Expr, ...], axis: int, variable: str) -> bool:
    """Whether the variable goes along the axis, element by element, and nowhere else."""
    elsewhere = any(variable in variables(p) for n, p in enumerate(place) if n != axis)
    return normal_form(place[axis]).coefficient(variable) == 1 and not elsewhere


def _perfect(statement: Stmt) -> tuple[list[For], Stmt | None]:
    loops: list[For] = []
    while isinstance(statement, For):
        loops.append(statement)
        if len(statement.body) != 1:
            return loops, None
        (statement,) = statement.body
    return loops, statement


def _tile(statement: Stmt) -> tuple[list[For], Stmt | None]:
    """Directly nested unrolled loops of constant extent, and the statement in them."""
    loops, inner = _perfect(statement)
    return loops, inner if all(l.kind == "unroll" and isinstance(l.extent, Const) for l in loops) else None


def _factors(loops: list[For], mma: Mma, free: int) -> Block | None:
    """The instructions of one step, behind the loads of the blocks that they multiply; None where there are too many, or it is not
    known which tile is meant."""
    known = {l.var for l in loops}
    if any(variables(place) - known for place in mma.target.index[:-2]):
        return None
    before: list[Stmt] = []
    operands: list[Load] = []
    for side, shape in zip((mma.a, mma.b), blocks_of(mma)):
        if not isinstance(side, Load):
            return None
        own = [l for l in loops if l.var in variables(side)]
        free -= prod(constant(l.extent) or REGISTERS for l in own)
        tile = f"{side.tensor}.tile@{mma.target.tensor}"
        before += _loaded(side, own, shape, tile)
        operands.append(replace(side, tensor=tile, index=(*(Var(name=l.var) for l in own), *(axis.place for axis in shape))))
    body: Block = (replace(mma, a=operands[0], b=operands[1]),)
    for loop in reversed(loops):
        body = (replace(loop, body=body),)
    return None if free < 0 else (*before, *body)


def _loaded(side: Load, own: list[For], shape: tuple[BlockAxis, ...], tile: str) -> Block:
    names = {l.var: Var(name=f"{tile}:{l.var.replace(':', '.')}") for l in own}
    axes = {axis.place: Var(name=f"{tile}:{axis.name.replace(':', '.')}") for axis in shape}
    source = rewrite(side, {Binary: lambda e: axes.get(e, e), Var: lambda v: axes.get(v, names.get(v.name, v))})
    extents = [constant(l.extent) or 1 for l in own]
    buffer = Buffer(
        name=tile, dtype=side.dtype, shape=(*(index(n) for n in extents), *(index(axis.extent) for axis in shape)), space="fragment"
    )  # fmt: skip
    body: Block = (
        Copy(
            axes=tuple(CopyAxis(var=axes[axis.place].name, extent=index(axis.extent)) for axis in shape),
            target=Ref(tensor=tile, index=(*names.values(), *axes.values())), source=source,
        ),
    )  # fmt: skip
    for loop, extent in reversed(list(zip(own, extents))):
        body = (For(var=names[loop.var].name, extent=index(extent), bound=extent, kind="unroll", body=body),)
    return (Alloc(buffer=buffer), *body)
