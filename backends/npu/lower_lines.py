"""Fifos of lines: rings of rows that copies fill one by one (`schedule.lines`) become ports of which a core holds several buffers at a time.

    alloc x.lines: f32[4, W]                          ->   acquire x, acquire x
    for r < 2:  copy x[r - 1]  -> x.lines[r % 4]           repeat y: acquire x; f(x@0, x@1, x@2); release x
    for y < H:  copy x[y + 1]  -> x.lines[(y + 2) % 4]     release x, release x
                … x.lines[y % 4] … x.lines[(y + 2) % 4]

A function gets the held rows as pointers, the oldest as `x@0`.
"""

from __future__ import annotations

from collections.abc import Mapping

from tridsl.ir.affine import equal, normal_form, simplify_index
from tridsl.ir.expr import Binary, Const, Expr, Load, Var, add, index, sub
from tridsl.ir.loop import Alloc, Block, Buffer, Copy, For, Ref
from tridsl.ir.walk import rewrite, substitute, variables, walk
from tridsl.passes.fresh import fresh
from tridsl.structs import dataclass, replace

ROW = "@"
"""Between the name of a port and the number of the held row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """`row`: the buffer of one row; `held`: rows in use in an iteration of the loop `main`, of which `front` came before it. `copy` fills the
    rows in the order of its variable `main`, `count` of them each time. `kept`: rows stay from one iteration to the next."""

    row: Buffer
    depth: int
    front: int
    held: int
    main: str
    copy: Copy
    count: int

    @property
    def kept(self) -> bool:
        return self.held > 1


class NoLines(ValueError):
    """What keeps a ring from being a fifo of lines."""


def lines_of(block: Block) -> tuple[Block, dict[str, Line]]:
    """The block with its rings as rows. NoLines: a ring is filled in another way than `schedule.lines` does."""
    found: dict[str, Line] = {}
    for buffer in [s.buffer for s in block if isinstance(s, Alloc)]:
        fills = [n for s in block for n in walk(s) if isinstance(n, Copy) and n.target.tensor == buffer.name]
        loops = [s for s in block if isinstance(s, For) and any(isinstance(c, Copy) and c.target.tensor == buffer.name for c in s.body)]
        if not fills or any(s in block for s in fills):
            continue
        if len(loops) != len(fills) or len(loops) > 2 or not all(isinstance(n, Const) for n in (*buffer.shape, *(l.extent for l in loops))):
            raise NoLines(f"the rows of `{buffer.name}` do not come in one loop, with another in front of it")
        written = [_written_out(loop, buffer.name) for loop in loops]
        line, changed = _line(buffer, written)
        found[buffer.name] = line
        replaced = {id(loop): changed[id(other)] for loop, other in zip(loops, written)}
        block = tuple(replaced.get(id(s), s) for s in block)
    return block, found


def _line(buffer: Buffer, loops: list[For]) -> tuple[Line, Mapping[int, For]]:
    depth = int(buffer.shape[0].value)  # type: ignore[union-attr]  # a ring has a constant number of rows
    main = loops[-1]
    front = loops[0] if len(loops) > 1 else None
    before = int(front.extent.value) if front is not None else 0  # type: ignore[union-attr]  # sizes of designs are constants
    last = _fill(main, buffer.name)
    copy = last
    if front is not None:
        copy = _continued(_fill(front, buffer.name), last, front.var, main.var, before)
    distances = {loop.var: _distances(loop, buffer.name, depth) for loop in loops}
    kept = any(d for d in distances[main.var].values())
    if kept and front is not None and distances[front.var] or not kept and any(any(d.values()) for d in distances.values()):
        raise NoLines(f"the loop in front reads rows of `{buffer.name}` that stay")
    held = before + 1 if kept else 1
    if kept and max(distances[main.var].values()) > before:
        raise NoLines(f"rows of `{buffer.name}` are read that never came")
    row = replace(buffer, shape=buffer.shape[1:], padded=buffer.padded[1:])

    def pointed(loop: For) -> For:
        def load(node: Load) -> Load:
            if node.tensor != buffer.name:
                return node
            return replace(node, tensor=f"{buffer.name}{ROW}{held - 1 - distances[loop.var][node.index[0]]}", index=node.index[1:])

        return rewrite(loop, {Load: load, Copy: lambda c: _row(c, depth) if c.target.tensor == buffer.name else c})

    changed = {id(loop): pointed(loop) for loop in loops}
    count = before + int(main.extent.value)  # type: ignore[union-attr]  # as above
    return Line(row=row, depth=depth, front=before, held=held, main=main.var, copy=_row(copy, depth), count=count), changed


def _written_out(loop: For, name: str) -> For:
    """The loop with those inside it written out that choose a row."""

    def expand(inner: For) -> For | Block:
        chosen = any(inner.var in variables(n.index[0]) for n in walk(inner) if isinstance(n, Load) and n.tensor == name)
        if not chosen or not isinstance(inner.extent, Const) or inner.kind == "vector":
            return inner
        copies = (fresh(substitute(inner.body, {inner.var: index(n)}), f".{n}") for n in range(int(inner.extent.value)))
        return tuple(s for copy in copies for s in copy)

    return replace(loop, body=rewrite(loop.body, {For: expand}))


def _fill(loop: For, name: str) -> Copy:
    return next(s for s in loop.body if isinstance(s, Copy) and s.target.tensor == name)


def _row(copy: Copy, depth: int) -> Copy:
    return replace(copy, target=replace(copy.target, index=copy.target.index[1:]), buffers=depth)


def _continued(first: Copy, then: Copy, front: str, main: str, before: int) -> Copy:
    """`first` for all rows, counted by `main`, when `then` goes on where it ends."""
    names: dict[str, Expr] = {a.var: Var(name=b.var) for a, b in zip(first.axes, then.axes)}
    whole = substitute(first, {front: Var(name=main), **names})
    later = substitute(whole, {main: add(Var(name=main), index(before))})
    if not all(equal(a, b) for a, b in zip(later.source.index, then.source.index)):
        raise NoLines(f"the rows of `{then.source.tensor}` do not follow one another")
    return replace(whole, axes=then.axes)


def _distances(loop: For, name: str, depth: int) -> dict[Expr, int]:
    """By place in the ring: how many rows behind the one that comes in the iteration."""
    newest = _number(_fill(loop, name).target.index[0], depth)
    found: dict[Expr, int] = {}
    for node in walk(loop.body):
        if isinstance(node, Ref) and node.tensor == name and not any(isinstance(c, Copy) and c.target is node for c in loop.body):
            raise NoLines(f"`{name}` is written")
        if isinstance(node, Load) and node.tensor == name:
            apart = normal_form(sub(newest, _number(node.index[0], depth)))
            if apart.terms:
                raise NoLines(f"a row of `{name}` is chosen as the code runs")
            found[node.index[0]] = apart.constant % depth
    return found


def _number(place: Expr, depth: int) -> Expr:
    whole = place.a if isinstance(place, Binary) and place.op == "mod" and place.b == index(depth) else place
    return simplify_index(whole)
