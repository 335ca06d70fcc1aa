"""`C.store(l1, at=k.o)` on a stage: a core's own memory holds what one iteration needs. Halide: no such thing; TVM: cache_read and cache_write."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import field

from tridsl.devices.spec import DeviceSpec
from tridsl.diagnostics import error
from tridsl.dtypes import DType, compute_type
from tridsl.ir.affine import Interval, equal, fold_ranges, interval, normal_form, simplify_index, to_expression
from tridsl.ir.expr import Boundary, Const, Expr, Load, Var, add, binary, index, sub
from tridsl.ir.loop import (
    Alloc,
    Block,
    Buffer,
    Copy,
    CopyAxis,
    For,
    If,
    Kernel,
    Phase,
    Ref,
    Space,
    Stmt,
)
from tridsl.ir.op import Tensor
from tridsl.ir.packings import is_packed
from tridsl.ir.walk import rewrite, substitute, variables, walk
from tridsl.schedule.nest import axis_of, enclosing, find_loop, loop_ranges, trip_bound
from tridsl.schedule.packed_panels import on_bytes
from tridsl.schedule.panel_accesses import (
    Access,
    accesses_of,
    adds_zeros,
    goes_on,
    is_chosen,
    is_fused,
    nothing_beyond,
    one_place,
    overrun,
    unfilled,
    vectors_last,
)
from tridsl.schedule.panel_blocks import blocks_last, blocks_of
from tridsl.schedule.panel_places import ROW_BYTES, delinear, linear, pitch_of, product, words
from tridsl.schedule.steps import StoreIn
from tridsl.structs import dataclass, replace

SPACE: Space = "l1"


@dataclass(slots=True)
class _Panel:
    """The part of `tensor` that one iteration touches: `base` of its first point, `extents` of the box, `blocks` by axis, in the order in
    which a matrix instruction wants its operand's axes. `order`: its axes, that along which vectors lie last. `pitch` elements are kept of axis `along`."""

    name: str
    tensor: str
    dtype: DType
    shape: tuple[int, ...]
    flat: bool
    base: tuple[Expr, ...] = ()
    extents: tuple[int, ...] = ()
    level: int = -1
    reads: bool = False
    writes: bool = False
    blocks: dict[int, int] = field(default_factory=dict)
    pitch: int = 0
    along: int = -1
    order: tuple[int, ...] = ()

    def sizes(self) -> tuple[int, ...]:
        order = self.order or tuple(range(len(self.extents)))
        outer = [-(-self.extents[d] // self.blocks.get(d, 1)) for d in order]
        if not self.blocks and self.pitch:
            outer[self.along] = self.pitch
        return (*outer, *self.blocks.values())

    def point(self, place: tuple[Expr, ...], ranges: Mapping[str, Interval]) -> tuple[Expr, ...]:
        """Where the point `place` (relative to the base) lies in the panel."""
        def part(op: str, d: int) -> Expr:
            divided = place[d] if self.blocks.get(d, 1) == 1 else binary(op, place[d], index(self.blocks[d]))  # type: ignore[arg-type]
            return simplify_index(fold_ranges(simplify_index(divided), ranges))

        return (*(part("floordiv", d) for d in self.order or range(len(place))), *(part("mod", d) for d in self.blocks))


def panels(kernel: Kernel, step: StoreIn, spec: DeviceSpec) -> Kernel:
    """
    before:  column c: row r: for t < 8: vector i < 64: z[c*1024 + r*512 + t*64 + i] = x[c*1024 + r*512 + t*64 + i] * 2
    after:   column c: row r: for t < 8: alloc x.l1: f32[64] in l1; copy x[c*1024 + …, i] -> x.l1[i]; alloc z.l1: f32[64] in l1
                                         vector i < 64: z.l1[i] = x.l1[i] * 2
                                         copy z.l1[i] -> z[c*1024 + …]

    Everything outside a core's memory that the loops around and inside `at` touch is staged: read into a panel before, written from one behind. A
    panel is made in the innermost loop around the iteration that its place depends on; there are `buffers` of those made in `at` itself, so that one
    is filled while another is used, and what `piece` iterations read comes in one piece where it lies together. Operands of a matrix instruction are laid out in its blocks. Iterations run over whole tiles: what lies outside
    a tensor reads as 0 and is not written, and what one iteration reduces ends where the tensor does; a loop whose iterations go on from one another
    does nothing in those that its extent leaves out, for which tiles come none the less. An axis along which other elements choose is
    staged as a whole. `kept=B`: a memory in between keeps what the innermost loops read of `B` for those around them that read it again. E0441: an access
    is no sum of multiples of loops, or a part depends on more than one place. E0442: a reduction that goes on from one iteration to the next, and whose
    last part is smaller, would reduce what lies outside. E0457: the iterations of `at` are no whole number of pieces.
    E0499: nothing is kept, since no loop reads the same of it again.

    `strips=i.o`: the loop directly inside `at` takes what moves with it a strip at a time, so that a core holds a few strips in place of two panels; the
    memory in between gets all strips of an iteration of `at` together. E0885: it is not directly inside.
    """
    if step.at is None:
        return _staged(kernel, step, next(p for p in kernel.phases if p.name == step.stage), None)
    loop = find_loop(kernel, step.stage, step.at, step.span)
    trips = trip_bound(loop)
    if step.piece != 1 and (step.piece < 1 or trips is None or trips % step.piece):
        raise error(
            "E0457", f"`{step.at}` has {trips if trips is not None else 'an unknown number of'} iterations, which are not pieces of {step.piece}", step.span,
            help="choose a `piece` that divides the iterations, or leave it out",
        )  # fmt: skip
    inner = loop if step.strips is None else find_loop(kernel, step.stage, step.strips, step.span)
    if inner is not loop and inner not in loop.body:
        raise error(
            "E0885", f"`{step.strips}` is not directly inside `{step.at}`", step.span,
            help=f"`.order(…)` the stage such that `{step.strips}` follows `{step.at}`, or leave `strips` out",
        )  # fmt: skip
    return _staged(kernel, step, next(p for p in kernel.phases if any(isinstance(m, For) and m.var == loop.var for m in walk(p))), inner.var)


def is_number(kernel: Kernel, stage: str) -> bool:
    """Whether the stage is a phase without a loop."""
    return any(p.name == stage and not any(isinstance(n, For) for n in walk(p)) for p in kernel.phases)


def _staged(kernel: Kernel, step: StoreIn, phase: Phase, loop: str | None) -> Kernel:
    """The phase with panels around the iterations of `loop` (None: around all of it)."""
    number = kernel.phases.index(phase)
    packed = frozenset(p.name for p in kernel.params if is_packed(p))
    kernel = on_bytes(kernel)
    path = () if loop is None else (*enclosing(kernel, loop), find_loop(kernel, step.stage, step.strips or step.at or "", step.span))
    stager = _Stager(kernel=kernel, step=step, path=path, packed=packed)
    staged = stager.stage(kernel.phases[number])
    if step.kept is not None and not stager.keeps(step.kept):
        raise error(
            "E0499", f"what the loops inside `{step.at}` read of `{step.kept}` is not read again by the loops around them", step.span,
            help="leave `kept` out, or order the loops such that one that does not move the tensor is directly around those that do",
        )  # fmt: skip
    return replace(kernel, phases=(*kernel.phases[:number], staged, *kernel.phases[number + 1 :]))


@dataclass(slots=True)
class _Stager:
    kernel: Kernel
    step: StoreIn
    path: tuple[For, ...]
    packed: frozenset[str]
    panels: dict[str, _Panel] = field(default_factory=dict)
    ranges: dict[str, Interval] = field(default_factory=dict)

    def stage(self, phase: Phase) -> Phase:
        phase = replace(phase, body=one_place(phase.body))
        names = {loop.var for loop in self.path}
        body = self._whole(phase.body)
        once: dict[str, Expr] = {n.var: index(0) for s in body for n in walk(s) if isinstance(n, For) and n.var in names and n.extent == index(1)}
        phase = replace(phase, body=substitute(body, once))
        self.path = tuple(n for n in walk(phase) if isinstance(n, For) and n.var in {loop.var for loop in self.path})
        loops = tuple(n for n in walk(phase) if isinstance(n, For))
        self.ranges = loop_ranges(loops)
        shapes = self.tensors()
        local = {n.buffer.name: n.buffer for n in walk(phase) if isinstance(n, Alloc)}
        accesses = list(accesses_of(phase.body))
        blocks = blocks_of(phase, accesses)
        for name, tensor in shapes.items():
            mine = [a for t, a in accesses if t == name]
            if mine:
                self.panels[name] = self._panel(tensor, mine, blocks.get(name, {}))
        for name, buffer in local.items():
            whole = bool(buffer.padded) and all(buffer.padded) and not name.startswith(f"{self.step.stage}.")
            if buffer.space == "reg" or whole or not all(isinstance(n, Const) for n in buffer.shape):
                continue
            shape = self._reach(buffer, [a for t, a in accesses if t == name])
            along = max((d for d, n in enumerate(shape) if n > 1), default=len(shape) - 1)  # behind it is nothing
            self.panels[name] = _Panel(
                name=name, tensor=name, dtype=buffer.dtype, shape=shape, flat=False, base=(index(0),) * len(shape), extents=shape,
                blocks=blocks.get(name, {}), pitch=pitch_of(shape[: along + 1], buffer.dtype), along=along,
            )  # fmt: skip
        body = rewrite(phase.body, {Load: self._load, Ref: self._ref, Alloc: lambda a: self._alloc(a, local)})
        outside = {n: p for n, p in self.panels.items() if n in shapes}
        return replace(phase, body=self._placed(body, -1, tuple(outside.values())))

    def keeps(self, tensor: str) -> bool:
        """Whether the loop around the innermost reads the same of `tensor` in each iteration, panel by panel."""
        panel = self.panels.get(tensor)
        if panel is None or not panel.reads or panel.writes:
            return False
        moving = [loop.var in variables(panel.base) for loop in self.path[self._grid() + 1 :] if loop.extent != index(1)]
        return moving[-2:] == [False, True]

    def tensors(self) -> dict[str, Tensor]:
        """What is outside of a core's memory: parameters, and what other phases make or read."""
        between = (Tensor(name=b.name, dtype=b.dtype, shape=b.shape, role="output") for b in self.kernel.scratch)
        return {t.name: t for t in (*(p for p in self.kernel.params if isinstance(p, Tensor)), *between)}

    # Loops over whole tiles.

    def _whole(self, block: Block) -> Block:
        on_the_way = {loop.var for loop in self.path}

        def extend(loop: For) -> For:
            if isinstance(loop.extent, Const) or loop.bound is None:
                return loop
            if goes_on(loop):
                inside = binary("lt", Var(name=loop.var), loop.extent)
                return replace(loop, extent=index(loop.bound), body=(If(condition=inside, then=loop.body),)) if loop.var in on_the_way else loop
            if loop.reduce and not adds_zeros(loop) and not self.ends_inside():
                raise error(
                    "E0442", f"the last part of `{axis_of(loop.var)}` is smaller, and the reduction would go on over what lies outside", self.step.span,
                    help=f"split `{axis_of(loop.var)}` into equal parts, or not at all",
                )  # fmt: skip
            return replace(loop, extent=index(loop.bound), body=nothing_beyond(loop) if loop.reduce else loop.body)

        return rewrite(block, {For: extend})

    def ends_inside(self) -> bool:
        """Whether what a loop reduces is whole in each iteration of `at`."""
        return not any(outer.reduce for outer in self.path)

    # What is accessed where.

    def _panel(self, tensor: Tensor, accesses: list[Access], blocks: dict[int, int]) -> _Panel:
        shape = tuple(int(n.value) if isinstance(n, Const) else -1 for n in tensor.shape)
        if -1 in shape or tensor.strides is not None or tensor.layout != "row":
            raise self._no(tensor.name, "its shape is not known, or its elements do not lie one behind another")
        path = self.path[:-1] if self.step.strips is not None and any(a.writes for a in accesses) else self.path  # results stay whole
        inner = [tuple(l for l in a.around if l not in path) for a in accesses]
        places = [a.place for a in accesses]
        flat = not shape or not all(self._affine(i) for place in places for i in place) or any(map(is_fused, accesses))  # (a single number is a row of one)
        if flat:
            places = [(simplify_index(linear(place, shape)),) for place in places]
            if not all(self._affine(i) for place in places for i in place):
                raise self._no(tensor.name, "the place of an access is no sum of multiples of loops")
        names = [loop.var for loop in path]
        base: list[Expr] = []
        extents: list[int] = []
        ends: list[list[int]] = []
        moving: set[str] = set()
        for d in range(len(places[0])):
            low: list[int] = []
            high: list[int] = []
            bases: list[Expr] = []
            for place, loops in zip(places, inner):
                if is_chosen(place[d]):
                    bases.append(index(0))
                    low.append(0)
                    high.append(shape[d] - 1)
                    continue
                poly = normal_form(place[d])
                fixed = poly.without(n for m, _ in poly.terms for n in variables(m) if n not in names)
                bases.append(to_expression(replace(fixed, constant=0)))
                rest = sub(place[d], bases[-1])
                least, most = interval(simplify_index(rest), self._inner_ranges(loops))
                if least is None or most is None:
                    raise self._no(tensor.name, "the part that is needed has no constant size")
                low.append(least)
                high.append(most)
            if not all(equal(bases[0], other) for other in bases[1:]):
                raise self._no(tensor.name, "it is read at places that move differently")
            base.append(add(bases[0], index(min(low))))
            extents.append(max(high) - min(low) + 1)
            ends.append(high)
            moving |= variables(bases[0])
        level = max((n for n, loop in enumerate(self.path) if loop.var in moving), default=-1)
        writes = any(a.writes for a in accesses)
        order = () if flat else blocks_last(blocks, extents) if blocks else vectors_last(accesses)
        last = order[-1] if order else -1
        fixed_row = bool(base) and not (variables(base[last]) & set(names))
        laid = tuple(extents[d] for d in order) if order else tuple(extents)
        if laid and not flat:
            laid = (*laid[:-1], laid[-1] + overrun(accesses, ends[last], last, ROW_BYTES // tensor.dtype.storage_bytes))
        pitch = pitch_of(laid, tensor.dtype) if (fixed_row or order) and not flat else 0 if shape else words(tensor.dtype)
        panel = _Panel(
            name=f"{tensor.name}.l1", tensor=tensor.name, dtype=tensor.dtype, shape=(product(shape),) if flat else shape, flat=flat,
            base=tuple(base), extents=tuple(extents), level=max(level, self._grid()), reads=any(not a.writes for a in accesses), writes=writes,
            blocks=blocks, pitch=0 if tensor.name in self.packed else pitch, order=order,
        )  # fmt: skip
        if any(n % panel.blocks.get(d, 1) for d, n in enumerate(extents)):
            raise self._no(tensor.name, "its part is no whole number of the instruction's blocks")
        if any(is_chosen(i) for a in accesses if a.writes for i in a.place):
            raise self._no(tensor.name, "elements choose where it is written")
        if writes and tensor.role == "inout":
            raise self._no(tensor.name, "it is updated in place")
        return panel

    def _reach(self, buffer: Buffer, accesses: list[Access]) -> tuple[int, ...]:
        """The shape of a local buffer when loops over whole tiles use it."""
        shape = [int(n.value) for n in buffer.shape if isinstance(n, Const)]
        for access in accesses:
            for d, place in enumerate(access.place):
                shape[d] = max(shape[d], (interval(place, self.ranges)[1] or 0) + 1)
        return tuple(shape)

    def _grid(self) -> int:
        """The innermost of the loops over columns and rows: inside it a core works alone."""
        return max((n for n, loop in enumerate(self.path) if loop.kind in ("column", "row")), default=-1)

    def _affine(self, place: Expr) -> bool:
        """Whether the loops of the path move the place by multiples of themselves; what moves inside an iteration may be anything."""
        names = {loop.var for loop in self.path}
        return is_chosen(place) or all(not names & variables(m) or (len(m) == 1 and isinstance(m[0], Var)) for m, _ in normal_form(place).terms)

    def _inner_ranges(self, loops: tuple[For, ...]) -> dict[str, Interval]:
        return {loop.var: (0, (trip_bound(loop) or 1) - 1) for loop in loops if trip_bound(loop) is not None}

    def _no(self, tensor: str, why: str) -> Exception:
        return error(
            "E0441", f"`{tensor}` cannot be staged in a core's memory at `{self.step.at}`: {why}", self.step.span,
            help="a core reads and writes boxes that move with the loops around it; run this operation on another device",
        )  # fmt: skip

    # Rewriting.

    def _point(self, panel: _Panel, place: tuple[Expr, ...]) -> tuple[Expr, ...]:
        if panel.flat:
            place = (linear(place, next(self._shape(panel.tensor))),)
        relative = tuple(simplify_index(sub(i, b)) for i, b in zip(place, panel.base))
        return panel.point(relative, self.ranges)

    def _shape(self, tensor: str) -> Iterator[tuple[int, ...]]:
        yield tuple(int(n.value) for n in self.tensors()[tensor].shape if isinstance(n, Const))

    def _load(self, load: Load) -> Load:
        panel = self.panels.get(load.tensor)
        if panel is None:
            return load
        mask = unfilled(load, panel.shape)
        return replace(load, tensor=panel.name, index=self._point(panel, load.index), mask=mask, other=None if mask is None else load.other)

    def _ref(self, ref: Ref) -> Ref:
        panel = self.panels.get(ref.tensor)
        return ref if panel is None else replace(ref, tensor=panel.name, index=self._point(panel, ref.index))

    def _alloc(self, alloc: Alloc, local: Mapping[str, Buffer]) -> Alloc:
        panel = self.panels.get(alloc.buffer.name)
        if panel is None or alloc.buffer.name not in local:
            return alloc
        sizes = panel.sizes()
        return replace(alloc, buffer=replace(alloc.buffer, shape=tuple(map(index, sizes)), padded=(True,) * len(sizes)))

    def _placed(self, block: Block, level: int, outside: tuple[_Panel, ...]) -> Block:
        """`block` is the body of path loop `level` (-1: of the phase): the panels of that loop around what it does."""
        following = self.path[level + 1].var if level + 1 < len(self.path) else ""

        def inside(statement: Stmt) -> Stmt:
            if isinstance(statement, For) and statement.var == following:
                return replace(statement, body=self._placed(statement.body, level + 1, outside))
            if isinstance(statement, If):
                return replace(statement, then=tuple(map(inside, statement.then)), otherwise=tuple(map(inside, statement.otherwise)))
            return statement

        own = [p for p in outside if p.level == level]
        innermost = level >= len(self.path) - (2 if self.step.strips is not None else 1)
        before: list[Stmt] = []
        behind: list[Stmt] = []
        for panel in own:
            sizes = panel.sizes()
            before.append(Alloc(buffer=Buffer(name=panel.name, dtype=panel.dtype, shape=tuple(map(index, sizes)), space=SPACE, padded=(True,) * len(sizes))))
            if panel.reads and not panel.writes:
                before.append(self._copy(panel, innermost, into=True))
            if panel.writes:
                behind.append(self._copy(panel, innermost, into=False))
        return (*before, *map(inside, block), *behind)

    def _copy(self, panel: _Panel, innermost: bool, into: bool) -> Copy:
        names = [f"{panel.name}.d{d}" for d in range(len(panel.extents))]
        ranges = self.ranges | {name: (0, n - 1) for name, n in zip(names, panel.extents)}
        axes = []
        for name, extent, first, whole in zip(names, panel.extents, panel.base, panel.shape):
            left = binary("max", index(0), binary("min", index(extent), sub(index(whole), first)))
            axes.append(CopyAxis(var=name, extent=simplify_index(fold_ranges(simplify_index(left), self.ranges)), bound=extent))
        place = tuple(simplify_index(add(b, Var(name=name))) for b, name in zip(panel.base, names))
        if panel.flat:
            place = delinear(place[0], next(self._shape(panel.tensor)))
        point = panel.point(tuple(Var(name=name) for name in names), ranges)
        source, target = (panel.tensor, place), (panel.name, point)
        if not into:
            source, target = target, source
        nothing: bool | int | float = False if panel.dtype.kind == "bool" else 0.0 if panel.dtype.is_float else 0
        in_front = into and not panel.flat and any((interval(b, self.ranges)[0] or 0) < 0 for b in panel.base)
        border = Boundary(mode="value", value=Const(value=nothing, dtype=compute_type(panel.dtype))) if in_front else None
        return Copy(
            axes=tuple(axes), target=Ref(tensor=target[0], index=target[1]),
            source=Load(tensor=source[0], index=source[1], dtype=panel.dtype, boundary=border),
            pad=Const(value=nothing, dtype=panel.dtype) if into else None, buffers=self.step.buffers if innermost else 1,
            piece=self.step.piece if innermost and into else 1, kept=into and panel.tensor == self.step.kept,
            strips=into and self.step.strips is not None and panel.level == len(self.path) - 1, span=self.step.span,
        )  # fmt: skip
