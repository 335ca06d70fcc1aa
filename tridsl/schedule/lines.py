"""`gray.lines(edge, y)`: rows in a ring, one new one in each iteration, borders included. Halide: a sliding window over a padded image."""

from __future__ import annotations

from tridsl.devices.spec import DeviceSpec
from tridsl.dtypes import compute_type
from tridsl.ir.affine import Interval, fold_ranges, simplify_index
from tridsl.ir.expr import Boundary, Const, Expr, Load, Select, Var, add, binary, index, sub
from tridsl.ir.loop import Accumulate, Alloc, Block, Buffer, Copy, CopyAxis, For, Kernel, Ref, Stmt, Store
from tridsl.ir.op import Tensor
from tridsl.ir.walk import rewrite, substitute, walk
from tridsl.passes.fresh import fresh
from tridsl.schedule.at import local_buffers, take
from tridsl.schedule.frames import Frame, Window, frame_of, refused, window_of
from tridsl.schedule.nest import enclosing, find_loop, loop_ranges, replace_loop, require_serial, stage_of, written
from tridsl.schedule.regions import declared_as, reads_of, targets_of
from tridsl.schedule.steps import At, Lines
from tridsl.structs import replace

FIRST = ".first"
"""Behind the name of a loop: the loop in front of it that makes the rows which its first iteration finds there."""


def lines(kernel: Kernel, step: Lines, spec: DeviceSpec) -> Kernel:
    """
    before:  for y: for x: gray[y, x] = f(rgba[y, x])        after:  alloc gray.lines: u8[4, W + 2]
             for y: for x: edge[y, x] = gray[y - 1, x]               for r < 2: for x: gray.lines[r % 4, x] = f(rgba[clamp(r - 1), clamp(x - 1)])
                                      + gray[y + 1, x]               for y: for x: gray.lines[(y + 2) % 4, x] = f(rgba[clamp(y + 1), clamp(x - 1)])
                                                                            for x: edge[y, x] = gray.lines[y % 4, x + 1] + gray.lines[(y + 2) % 4, x + 1]

    Every iteration makes one row and reads the last few; those that the first iteration reads besides are made in a loop in front of it. Rows
    and columns outside the tensor are kept too, with the value that the boundary of the reads gives them, so that all iterations do the
    same. (`slide` keeps only what there is.) Rows are rounded up to whole vectors. On a parameter (and on a stage that columns or rows of an array
    make) the rows are copied: a fifo of lines. The loops keep their order from then on.

    E0458: the reads do not move by one row with the loop, their boundary is no repeated edge and no constant, the rows that are made in front do
    not suffice, or the stage makes several tensors, is a result, or is read elsewhere.
    """
    target = find_loop(kernel, step.consumer, step.axis, step.span)
    require_serial(target, "lines", step.span)
    if any(isinstance(p, Tensor) and p.name == step.stage for p in kernel.params):
        if any(step.stage in written(s) for p in kernel.phases for s in p.body):
            raise refused(step, "it is a result of the op and is computed whole")
        return _placed(kernel, kernel, step, target, None)
    if _on_the_array(kernel, step.stage):
        return _placed(kernel, kernel, step, target, None)
    block, without, _ = take(kernel, At(stage=step.stage, consumer=step.consumer, axis=step.axis, span=step.span))
    names = frozenset[str]().union(*(written(s) for s in block)) - local_buffers(block)
    if names != {step.stage}:
        raise refused(step, "it makes several tensors")
    if step.stage in {p.name for p in kernel.params}:
        raise refused(step, "it is a result of the op and is computed whole")
    placed = _placed(kernel, without, step, find_loop(without, step.consumer, step.axis, step.span), block)
    return replace(placed, scratch=tuple(b for b in placed.scratch if b.name != step.stage))


def _on_the_array(kernel: Kernel, stage: str) -> bool:
    """Whether a stage is made by a launch of its own, so that its rows come from the device's memory as a parameter's do."""
    own = [n for p in kernel.phases if p.name == stage for n in walk(p)]
    return any(isinstance(n, For) and n.kind in ("column", "row") for n in own)


def _placed(before: Kernel, kernel: Kernel, step: Lines, target: For, block: Block | None) -> Kernel:
    """`block` makes the rows (None: they are copied) in the loop `target` of `kernel`, and in the loop in front of it."""
    name = step.stage
    path = enclosing(kernel, target.var)
    if any(stage_of(loop.var) == name for loop in (*path, target)) or target.reduce:
        raise refused(step, f"`{step.axis}` of `{step.consumer}` is no loop over points of another stage")
    leading = next((n for p in kernel.phases for n in walk(p) if isinstance(n, For) and n.var == target.var + FIRST), None)
    inside = reads_of(target.body, frozenset({name}))
    earlier = reads_of(leading.body, frozenset({name})) if leading is not None else []
    total = sum(1 for p in kernel.phases for n in walk(p) if isinstance(n, Load) and n.tensor == name)
    if not inside or len(inside) + len(earlier) != total:
        raise refused(step, f"it is not read, or also outside the loop `{step.axis}` of `{step.consumer}`")
    declared = declared_as(before, name)
    shape = tuple(int(n.value) for n in declared.shape if isinstance(n, Const))  # type: ignore[union-attr]
    if len(shape) != len(declared.shape):  # type: ignore[union-attr]
        raise refused(step, "its shape is not known")
    frame = frame_of(step, shape, declared.dtype, [*inside, *earlier], path, (target.var, target.var + FIRST))
    main = window_of(step, frame, inside, target.var)
    first = window_of(step, frame, earlier, target.var + FIRST) if leading is not None and earlier else None
    ring = _Ring(before, step, frame, main, first, _count(leading), block is None, path, target)
    made = ring.rows(block, target.var, ring.offset)
    loop = replace(target, carried=True, body=_before_reader(ring.moved(target.body), made, ring.buffer.name))
    front: Block = ()
    if ring.count and ring.everywhere:
        variable = target.var + FIRST
        own = fresh(ring.rows(block, variable, 0), FIRST)
        if leading is None:
            front = (For(var=variable, extent=index(ring.count), bound=ring.count, body=own, carried=True, span=target.span),)
        else:
            body = ring.moved(leading.body) if first is not None else leading.body
            front = (replace(leading, body=_before_reader(body, own, ring.buffer.name)),)
    elif leading is not None:
        front = (leading,)
    if leading is not None:
        kernel = replace_loop(kernel, leading.var, lambda _: ())
    return replace_loop(kernel, target.var, lambda _: (Alloc(buffer=ring.buffer), *front, loop))


def _count(leading: For | None) -> int:
    return int(leading.extent.value) if leading is not None and isinstance(leading.extent, Const) else 0


def _before_reader(body: Block, made: Block, name: str) -> Block:
    """`made` in front of the first statement that reads it; at the end where none does."""
    position = next((n for n, s in enumerate(body) if any(isinstance(m, Load) and m.tensor == name for m in walk(s))), len(body))
    return (*body[:position], *made, *body[position:])


class _Ring:
    """Rows of one tensor. `count`: iterations of the loop in front; `everywhere`: rows are made in it too; `offset`: what the number of the
    newest row is ahead of the main loop's variable; `newest`: the row of number 0, from the frame's base."""

    def __init__(
        self, kernel: Kernel, step: Lines, frame: Frame, main: Window, first: Window | None, count: int, copied: bool, path: tuple[For, ...], target: For
    ) -> None:  # fmt: skip
        rows = main.high - main.low + 1
        self.step, self.frame, self.copied = step, frame, copied
        self.count = count or rows - 1
        self.everywhere = rows > 1 or first is not None
        self.offset = self.count if self.everywhere else 0
        self.newest = main.high - self.offset
        if rows - 1 > self.count:
            raise refused(step, f"it needs {rows - 1} rows in front of the loop, where {self.count} are made; begin with the widest window")
        if first is not None and (first.high != self.newest or first.low != first.high or rows > 1):
            raise refused(step, "the loop in front reads other rows than the one that it makes")
        held = self.count + 1 if rows > 1 else 1
        self.depth = 1 << (held.bit_length() if copied else (held - 1).bit_length())  # a copied row may come while `held` are in use
        declared = declared_as(kernel, step.stage)
        sizes = (self.depth, *(n for d, n in enumerate(frame.counts) if d != frame.moving))
        name = f"{step.stage}.lines"
        self.buffer = Buffer(name=name, dtype=declared.dtype, shape=tuple(map(index, sizes)), space="l1", padded=(True,) * len(sizes), span=declared.span)
        self.ranges: dict[str, Interval] = loop_ranges((*path, target)) | {target.var + FIRST: (0, max(0, self.count - 1))}

    def place(self, row: Expr, others: tuple[Expr, ...]) -> tuple[Expr, ...]:
        return (simplify_index(binary("mod", simplify_index(row), index(self.depth))), *others)

    def moved(self, body: Block) -> Block:
        """Reads of the tensor as reads of the ring."""
        frame = self.frame

        def load(node: Load) -> Load:
            if node.tensor != self.step.stage:
                return node
            places = [frame.inner(self.step, d, i) for d, i in enumerate(node.index)]
            row = sub(places[frame.moving], add(frame.bases[frame.moving], index(self.newest)))
            others = tuple(
                simplify_index(sub(i, add(frame.bases[d], index(frame.lows[d])))) for d, i in enumerate(places) if d != frame.moving
            )  # fmt: skip
            return replace(node, tensor=self.buffer.name, index=self.place(row, others), mask=None, other=None)

        return rewrite(body, {Load: load})

    def rows(self, block: Block | None, variable: str, ahead: int) -> Block:
        """Statements that make row `variable + ahead`."""
        frame = self.frame
        number = simplify_index(add(Var(name=variable), index(ahead)))
        row = simplify_index(add(add(frame.bases[frame.moving], index(self.newest)), number))
        if block is None:
            return (self._copy(row, number),)
        targets = targets_of(block, self.step.stage)
        target = targets[0]
        names = [v.name if isinstance(v, Var) and stage_of(v.name) == self.step.stage else "" for v in target]
        if "" in names or any(t != target for t in targets):
            raise refused(self.step, "its loops were reshaped before; put `.lines` first")
        own = {v: v + "#" for v in names}
        corners = [row if d == frame.moving else simplify_index(add(add(frame.bases[d], index(frame.lows[d])), Var(name=own[v]))) for d, v in enumerate(names)]
        made = [frame.made(d, self.ranges) for d in range(len(names))]
        ranges = self.ranges | {own[v]: (0, made[d] - 1) for d, v in enumerate(names)}
        place = self.place(number, tuple(Var(name=own[v]) for d, v in enumerate(names) if d != frame.moving))

        def ref(node: Ref) -> Ref:
            return replace(node, tensor=self.buffer.name, index=place) if node.tensor == self.step.stage else node

        def loop(node: For) -> For | Block:
            if node.var == names[frame.moving]:
                return node.body
            d = names.index(node.var) if node.var in names else -1
            return node if d < 0 else replace(node, extent=index(made[d]), bound=None)

        inside = frame.inside(corners, ranges) if frame.other is not None else None

        def store(node: Store) -> Store:
            if node.target.tensor != self.buffer.name or inside is None or frame.other is None:
                return node
            other = frame.other if node.value.dtype == frame.other.dtype else Const(value=frame.other.value, dtype=node.value.dtype)
            return replace(node, value=Select(condition=inside, a=node.value, b=other, dtype=node.value.dtype))

        # (a row that its clamp makes constant still moves, for whoever keeps the rows of what the stage reads)
        clamped = {v: frame.clamped(d, corners[d]) if d == frame.moving else fold_ranges(frame.clamped(d, corners[d]), ranges) for d, v in enumerate(names)}
        rows = substitute(rewrite(block, {Ref: ref, Load: lambda l: self._itself(l, place)}), clamped)
        if inside is not None and any(isinstance(n, Accumulate) and n.targets[0].tensor == self.buffer.name for s in rows for n in walk(s)):
            raise refused(self.step, "it is a reduction, and outside its reads ask for a constant")
        return substitute(rewrite(rows, {For: loop, Store: store}), {mark: Var(name=v) for v, mark in own.items()})

    def _itself(self, load: Load, place: tuple[Expr, ...]) -> Load:
        return replace(load, tensor=self.buffer.name, index=place) if load.tensor == self.step.stage else load

    def _copy(self, row: Expr, number: Expr) -> Stmt:
        frame = self.frame
        names = [f"{self.buffer.name}.d{d}" for d in range(len(frame.counts))]
        corners = [
            simplify_index(add(row if d == frame.moving else add(frame.bases[d], index(frame.lows[d])), Var(name=v))) for d, v in enumerate(names)
        ]  # fmt: skip
        counts = [1 if d == frame.moving else n for d, n in enumerate(frame.counts)]
        dtype = self.buffer.dtype
        value = 0 if frame.other is None else frame.other.value
        outside = Const(value=float(value) if dtype.is_float else value, dtype=compute_type(dtype))
        boundary = Boundary(mode="edge") if frame.edge else Boundary(mode="value", value=outside)
        source = Load(tensor=self.step.stage, index=tuple(corners), dtype=dtype, boundary=boundary)
        place = self.place(number, tuple(Var(name=v) for d, v in enumerate(names) if d != frame.moving))
        return Copy(
            axes=tuple(CopyAxis(var=v, extent=index(n)) for v, n in zip(names, counts)), target=Ref(tensor=self.buffer.name, index=place), source=source,
            buffers=self.depth, span=self.step.span,
        )  # fmt: skip
