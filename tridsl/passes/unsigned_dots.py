"""Products of signed bytes on devices whose instruction takes one operand unsigned.

    copy A -> A.pack: i8                                    copy A -> A.pack: u8, sign bits flipped (a + 128)
    copy B -> B.pack                                        copy B -> B.pack;  for j: B.pack.sum[j] = Σ_k B.pack[k, j]
    acc[i, j] = 0                                     ->    acc[i, j] = -128 * B.pack.sum[j]
    for k: mma vpdpbssd acc += A.pack * B.pack              for k: mma vpdpbusd acc += A.pack * B.pack

Σ a b = Σ (a + 128) b - 128 Σ b, exactly, because i32 wraps. The sums are taken once for a panel, with the instruction itself. Where the
operands are no panels of their own, or the tile does not start at nothing, the backend corrects every step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from tridsl.devices.intrinsics import INTRINSICS, Intrinsic
from tridsl.ir.expr import Binary, Const, Expr, Load, Var, index
from tridsl.ir.loop import Alloc, Block, Buffer, Copy, For, If, Kernel, Mma, Ref, Stmt, Store
from tridsl.ir.walk import rewrite, variables, walk
from tridsl.structs import dataclass, replace


@dataclass(frozen=True, slots=True, kw_only=True)
class _Dot:
    """One instruction: its panels, and the axes of `b` that it and the loops around it sum over."""

    mma: Mma
    left: Load
    right: Load
    a: Buffer
    b: Buffer
    depth: frozenset[str]

    @property
    def row(self) -> Intrinsic:
        return INTRINSICS[INTRINSICS[self.mma.intrinsic].shifted or ""]

    @property
    def kept(self) -> tuple[int, ...]:
        """Axes of `b` along which the sums lie."""
        return tuple(n for n, place in enumerate(self.right.index) if not variables(place) & self.depth)

    @property
    def sums(self) -> Buffer:
        shape = tuple(self.b.shape[n] for n in self.kept)
        return Buffer(name=f"{self.b.name}.sum", dtype=self.row.acc, shape=shape, space=self.b.space, padded=(True,) * len(shape))


def unsigned_dots(kernel: Kernel) -> Kernel:
    """Every such instruction between panels."""
    panels = _panels(kernel)
    for dot in _dots(kernel, panels):
        kernel = _rewritten(kernel, dot)
    return kernel


def _panels(kernel: Kernel) -> dict[str, Buffer]:
    """Local buffers that one whole copy fills and nothing else writes."""
    local = {n.buffer.name: n.buffer for p in kernel.phases for n in walk(p) if isinstance(n, Alloc)}
    written = [n.tensor for p in kernel.phases for n in walk(p) if isinstance(n, Ref)]
    filled = [n.target.tensor for p in kernel.phases for n in walk(p) if isinstance(n, Copy) and not n.cooperative]
    return {name: b for name, b in local.items() if filled.count(name) == 1 and written.count(name) == 1}


def _dots(kernel: Kernel, panels: dict[str, Buffer]) -> Iterator[_Dot]:
    reads = [n.tensor for p in kernel.phases for n in walk(p) if isinstance(n, Load)]
    for loop, above in _loops(kernel):
        found = [n for n in walk(loop) if isinstance(n, Mma) and INTRINSICS[n.intrinsic].shifted]
        if not loop.reduce or len(found) != 1:
            continue
        mma = found[0]
        if not isinstance(mma.a, Load) or not isinstance(mma.b, Load):
            continue  # operands with a codec have a sign of their own
        a, b = panels.get(mma.a.tensor), panels.get(mma.b.tensor)
        depth = frozenset({loop.var, *(v for v, _ in mma.axes if v not in variables(mma.target))})
        if a is None or b is None or a == b or reads.count(a.name) != 1 or reads.count(b.name) != 1:
            continue
        plain = all(isinstance(place, Var) for place in (*mma.b.index, *mma.target.index))
        groups = [v for v in variables(mma.b) if v in depth]
        if variables(mma.b) - depth - above - variables(mma.target):
            continue  # loops between sum over it, too
        if plain and len(groups) == 2 and loop.var in groups and not {v for v in variables(mma.b) if v in above} & depth and _start_of(kernel, loop, mma) is not None:
            yield _Dot(mma=mma, left=mma.a, right=mma.b, a=a, b=b, depth=depth)


def _loops(kernel: Kernel) -> Iterator[tuple[For, frozenset[str]]]:
    def visit(block: Block, above: frozenset[str]) -> Iterator[tuple[For, frozenset[str]]]:
        for statement in block:
            if isinstance(statement, For):
                yield statement, above
                yield from visit(statement.body, above | {statement.var})
            elif isinstance(statement, If):
                yield from visit((*statement.then, *statement.otherwise), above)

    for phase in kernel.phases:
        yield from visit(phase.body, frozenset())


def _start_of(kernel: Kernel, loop: For, mma: Mma) -> Store | None:
    """The only store to the instruction's target beside the loop and before it, of nothing."""
    for node in (n for p in kernel.phases for n in walk(p) if isinstance(n, For | If) or n is p):
        for block in _blocks(node):
            if loop not in block:
                continue
            before = [n for s in block[: block.index(loop)] for n in walk(s)]
            writes = [n for n in before if isinstance(n, Ref) and n.tensor == mma.target.tensor]
            stores = [n for n in before if isinstance(n, Store) and n.target in writes]
            if len(writes) == len(stores) == 1:
                store = stores[0]
                empty = isinstance(store.value, Const) and store.value.value == 0 and store.mask is None
                return store if empty and all(isinstance(place, Var) for place in store.target.index) else None
    return None


def _blocks(node: object) -> tuple[Block, ...]:
    return (node.then, node.otherwise) if isinstance(node, If) else (node.body,)  # type: ignore[attr-defined]


def _rewritten(kernel: Kernel, dot: _Dot) -> Kernel:
    row, sums = dot.row, dot.sums
    changed = replace(dot.mma, intrinsic=row.name, a=replace(dot.left, dtype=row.a))

    def start(store: Store) -> Store:
        if store.target.tensor != dot.mma.target.tensor or not isinstance(store.value, Const):
            return store
        names = {place.name: here for place, here in zip(dot.mma.target.index, store.target.index) if isinstance(place, Var)}
        where = tuple(names.get(place.name, place) for place in (dot.right.index[n] for n in dot.kept) if isinstance(place, Var))
        total = Load(tensor=sums.name, index=where, dtype=row.acc)
        return replace(store, value=Binary(op="mul", a=total, b=Const(value=-128, dtype=row.acc), dtype=row.acc))

    def fill(copy: Copy) -> Copy | Block:
        if copy.target.tensor == dot.a.name:
            return replace(copy, flipped=True)
        return (copy, *_sum_up(dot)) if copy.target.tensor == dot.b.name else copy

    def alloc(node: Alloc) -> Alloc | Block:
        if node.buffer.name == dot.a.name:
            return replace(node, buffer=replace(node.buffer, dtype=row.a))
        return (node, Alloc(buffer=sums)) if node.buffer.name == dot.b.name else node

    rules: dict[type, Callable[[Any], Any]] = {
        Store: start, Copy: fill, Alloc: alloc, Mma: lambda m: changed if m == dot.mma else m,
    }
    phases = rewrite(kernel.phases, rules)
    return replace(kernel, phases=rewrite(phases, {For: lambda loop: _shared(loop, dot)}))


def _sum_up(dot: _Dot) -> Block:
    """`sums[j] = Σ_k 1 * b[k, j]`, a register of lanes at a time."""
    sums, row, b = dot.sums, dot.row, dot.right
    names = {place.name: f"{sums.name}:{place.name.replace(':', '.')}" for place in b.index if isinstance(place, Var)}
    shape = dict(zip((place.name for place in b.index if isinstance(place, Var)), dot.b.shape))
    axes = tuple((names[v], n) for v, n in dot.mma.axes if v in names)
    lanes = [v for v, _ in dot.mma.axes if v in names and v not in dot.depth]
    depth, group = (next(v for v in names if v in dot.depth and (v in dict(dot.mma.axes)) is own) for own in (False, True))
    ones = Buffer(name=f"{sums.name}.one", dtype=row.a, shape=(index(row.k),), space="reg")
    one = For(var=f"{ones.name}:k", extent=index(row.k), bound=row.k, kind="unroll", body=(
        Store(target=Ref(tensor=ones.name, index=(Var(name=f"{ones.name}:k"),)), value=Const(value=1, dtype=row.a)),
    ))  # fmt: skip
    width = dict(dot.mma.axes)[lanes[0]]
    acc = Buffer(name=f"{sums.name}.acc", dtype=row.acc, shape=(index(width),), space="reg", padded=(True,))

    def over(suffix: str, store: Stmt) -> For:
        return For(var=f"{names[lanes[0]]}{suffix}", extent=index(width), bound=width, kind="vector", body=(store,))

    zero = Store(target=Ref(tensor=acc.name, index=(Var(name=f"{names[lanes[0]]}.zero"),)), value=Const(value=0, dtype=row.acc))
    place = tuple(Var(name=names[p.name]) for p in b.index if isinstance(p, Var))
    step = Mma(
        intrinsic=row.name, axes=axes, target=Ref(tensor=acc.name, index=(Var(name=names[lanes[0]]),)),
        a=Load(tensor=ones.name, index=(Var(name=names[group]),), dtype=row.a), b=Load(tensor=b.tensor, index=place, dtype=row.b),
    )  # fmt: skip
    out = Var(name=f"{names[lanes[0]]}.out")
    where = tuple(out if p.name == lanes[0] else Var(name=names[p.name]) for p in (b.index[n] for n in dot.kept) if isinstance(p, Var))
    keep = Store(target=Ref(tensor=sums.name, index=where), value=Load(tensor=acc.name, index=(out,), dtype=row.acc))
    deep = For(var=names[depth], extent=shape[depth], body=(step,), reduce=True)
    body: Block = (Alloc(buffer=acc), over(".zero", zero), deep, over(".out", keep))
    for place_of in reversed([p for p in (b.index[n] for n in dot.kept) if isinstance(p, Var) and p.name != lanes[0]]):
        body = (For(var=names[place_of.name], extent=shape[place_of.name], body=body),)
    return (Alloc(buffer=ones), one, *body)


def _shared(loop: For, dot: _Dot) -> For:
    """Sums in front of a loop that threads share are taken by the same threads."""
    mine = [n for n, s in enumerate(loop.body) if isinstance(s, For) and s.var.startswith(f"{dot.sums.name}:")]
    if not mine or not any(isinstance(s, For) and s.kind == "parallel" for s in loop.body[mine[-1] + 1 :]):
        return loop
    body: list[Expr | Stmt] = list(loop.body)
    for n in mine:
        inner = loop.body[n]
        assert isinstance(inner, For)
        if inner.kind == "serial" and not inner.reduce:
            body[n] = replace(inner, kind="parallel")
    return replace(loop, body=tuple(body))  # type: ignore[arg-type]
