"""`A.pack(at=i.o)`; TVM: cache_read, with the layout chosen by the loops that read."""

from __future__ import annotations

from itertools import count

from tridsl.devices.spec import DeviceSpec
from tridsl.diagnostics import Span, error
from tridsl.dtypes import DType, compute_type
from tridsl.ir.affine import interval
from tridsl.ir.expr import Binary, Cast, Const, Expr, Load, Node, Var, binary, index
from tridsl.ir.loop import (
    Accumulate,
    Alloc,
    Barrier,
    Block,
    Buffer,
    Copy,
    CopyAxis,
    For,
    If,
    Kernel,
    Mma,
    Ref,
    Space,
    Stmt,
)
from tridsl.ir.op import Tensor
from tridsl.ir.packings import is_packed
from tridsl.ir.walk import map_children, substitute, variables, walk
from tridsl.schedule.interleave import interleave
from tridsl.schedule.nest import (
    axis_of,
    enclosing,
    find_loop,
    follows_loops,
    nested_loops,
    out_of_scope,
    replace_loop,
    stage_of,
    trip_bound,
    written,
)
from tridsl.schedule.steps import Pack
from tridsl.structs import replace

LANES = ("lane", "subgroup")


def pack(kernel: Kernel, step: Pack, spec: DeviceSpec) -> Kernel:
    """
    before:  for k.o: for i.o: for k.i < 256: for i.i < 12: … A[i.o*12 + i.i, k.o*256 + k.i] …       A.pack(at=i.o)
    after:   for k.o: for i.o:
               alloc A.pack: f32[256, 12] in l2
               copy A -> A.pack, zero beyond the tails
               for k.i: for i.i: … A.pack[k.i, i.i] …

    The panel has one axis per loop inside `at` that the access mentions, in nesting order, so it is read front to back.
    Tails are filled with zeros up to the loops' bounds where sums are made of the panel. E0401/E0402: no such tensor or loop. E0412: the accesses inside
    differ, or a loop inside has no constant bound, so there is no one panel; or the tensor of a stage is written in the loop.
    `place=0`: the first of several places at which the tensor is read there (both factors of A times A transposed).

    `type`: the panel's elements. A wider one holds every value; a narrower one rounds, which is legal where each element read is
    multiplied by an element of that very type, whose products then are what an instruction for the type computes (E0429). `rows`: its axes lie as
    the tensor's do, `A.pack[i.i, k.i]`. `interleave`: how the elements of the two innermost axes take turns (`schedule.interleave`).
    """
    filled = stage_copy(kernel, step.stage, step.reader, step.at, "l2", step.span, kind=step.type, place=step.place, rows=step.rows)
    return filled if step.interleave == 1 else interleave(filled, _free_name(kernel, f"{step.stage}.pack"), step)


def stage_copy(
    kernel: Kernel, tensor: str, reader: str | None, axis: str, space: Space, span: Span | None, *,
    cooperative: bool = False, buffers: int = 1, pad: int = 0, kind: DType | None = None, place: int | None = None, turned: bool = False, rows: bool = False,
) -> Kernel:  # fmt: skip
    """Copy what the loop `axis` reads of parameter (or stage) `tensor` into `space`, in traversal order.

    A cooperative copy inside lanes is one panel for all of them: it has an axis for each lane loop that the access mentions,
    its storage stands around the lanes, and they wait for each other before it is filled again. `buffers`: so many of these take turns (`Copy.panels`). `turned`: its axes lie the other way round;
    `rows`: as those of the tensor.
    """
    source = _element_type(kernel, tensor)
    if source is None:
        have = ", ".join(p.name for p in kernel.params if isinstance(p, Tensor) and p.role == "input")
        raise error("E0401", f"there is no input tensor `{tensor}` to copy", span, help=f"the input tensors are: {have}")
    if cooperative and any(isinstance(p, Tensor) and p.name == tensor and is_packed(p) for p in kernel.params):
        raise error(
            "E0412", f"`{tensor}` is packed: its lanes read bytes, so they share no panel of elements", span,
            help="leave the step out, or pass the matrix unpacked: np.asarray(buffer)",
        )  # fmt: skip
    stage = reader or _reader(kernel, tensor, axis, span)
    target = find_loop(kernel, stage, axis, span)
    reads = _reads(target.body, tensor)
    if any(tensor in written(s) for s in target.body):
        raise error("E0412", f"`{tensor}` is written inside the loop `{axis}` of `{stage}`", span, help="copy it at a loop behind the one that writes it")
    if not reads:
        raise error("E0412", f"the loop `{axis}` of `{stage}` does not read `{tensor}`", span, help="name a loop around the access")
    places = list(dict.fromkeys((read.index, read.mask, read.other) for read, _ in reads))
    if place is None and len(places) > 1:
        raise error(
            "E0412", f"`{tensor}` is read at different places inside `{axis}`", span,
            help=f"copy it at an inner loop that reads one place, or say which: place=0 to {len(places) - 1}",
        )  # fmt: skip
    if place is not None and not 0 <= place < len(places):
        raise error(
            "E0412", f"`{tensor}` is not read at {place + 1} different places inside `{axis}`", span,
            help=f"the places there are 0 to {len(places) - 1}",
        )  # fmt: skip
    here = places[place or 0]
    load, around = next((read, loops) for read, loops in reads if (read.index, read.mask, read.other) == here)
    dtype = source if kind is None else kind
    if dtype != source and not _exact(source, dtype):
        _check_rounding(target, tensor, dtype, span)
    lanes = _lanes_around(kernel, target, axis, span) if cooperative else ()
    used = [loop for loop in (*lanes, *around) if loop.var in variables(load)]
    bounds = [_bound(loop, lanes, around, used, tensor, span) for loop in used]
    name = _free_name(kernel, f"{tensor}.{space if cooperative else 'pack'}")
    laid = _laid_out(used, load, turned=turned, rows=rows)
    lengths = [bounds[used.index(loop)] for loop in laid]
    shape = [*lengths[:-1], lengths[-1] + pad] if lengths else []
    axes = [axis_of(loop.var) for loop in used]
    prefix = f"{stage}:{name}."
    renamed = {
        loop.var: Var(name=prefix + (a if axes.count(a) == 1 else loop.var.replace(":", "."))) for loop, a in zip(used, axes)
    }
    combines = any(isinstance(n, Accumulate | Mma) for n in walk(target))  # a tile may combine what lies beyond the tails, too
    copy = Copy(
        axes=tuple(
            CopyAxis(var=renamed[loop.var].name, extent=substitute(loop.extent, renamed), bound=bound)
            for loop, bound in zip(used, bounds)
        ),
        target=Ref(tensor=name, index=tuple(renamed[loop.var] for loop in laid)),
        source=substitute(load, renamed),
        pad=Const(value=_nothing(dtype), dtype=dtype) if combines else None,
        cooperative=cooperative,
        buffers=1 if cooperative else buffers,
        panels=buffers if cooperative else 1,
        span=span,
    )
    first = next(n for n, s in enumerate(target.body) if _reads((s,), tensor))  # behind panels that say where to read
    missing = out_of_scope(kernel, (*enclosing(kernel, target.var), target), first, (copy,)) or _private(lanes, copy)
    if missing is not None:
        raise error(
            "E0412", f"where `{tensor}` is read depends on `{missing}`, which is not known at the start of `{axis}`", span,
            help=f"copy it inside `{missing}`, or before the step that makes `{missing}`",
        )  # fmt: skip
    fetch: Stmt = copy
    for loop in _deciding(load, around, used):
        fetch = If(condition=binary("gt", substitute(loop.extent, renamed), index(0)), then=(fetch,))
    alloc = Alloc(
        buffer=Buffer(name=name, dtype=dtype, shape=tuple(index(n) for n in shape), space=space, padded=(True,) * len(shape), span=span)
    )

    def read(node: Node) -> Node:
        if isinstance(node, Load) and node.tensor == tensor and (node.index, node.mask, node.other) == here:
            load = Load(tensor=name, index=tuple(Var(name=l.var) for l in laid), dtype=dtype, span=node.span)
            return load if dtype == source or dtype == compute_type(source) else Cast(a=load, dtype=compute_type(source))
        if isinstance(node, Copy):
            return node  # other panels are filled from where they were
        inner = map_children(node, read)
        return inner.a if isinstance(inner, Cast) and inner.a.dtype == inner.dtype and inner is not node else inner

    path = (*enclosing(kernel, target.var), target)
    again = bool(lanes) and any(loop not in lanes for loop in path[path.index(lanes[0]) :])  # the lanes come by more than once

    def placed(loop: For) -> For:
        before, behind = loop.body[:first], tuple(read(s) for s in loop.body[first:])
        start: Block = () if lanes else (alloc,)
        if again:
            start = (Barrier(),)  # all lanes are done with what the panel held
        return replace(loop, body=(*before, *start, fetch, *behind))  # type: ignore[arg-type]

    filled = replace_loop(kernel, target.var, placed)
    return replace_loop(filled, lanes[0].var, lambda loop: (alloc, loop)) if lanes else filled


def _laid_out(used: list[For], load: Load, *, turned: bool, rows: bool) -> list[For]:
    """The loops whose axes the panel has, in the order in which they lie."""
    if rows:
        return sorted(used, key=lambda loop: next(n for n, place in enumerate(load.index) if loop.var in variables(place)))
    return used[::-1] if turned else used


def _element_type(kernel: Kernel, tensor: str) -> DType | None:
    """Of a tensor parameter, or of a stage's tensor."""
    parameters = {p.name: p.dtype for p in kernel.params if isinstance(p, Tensor)} | {b.name: b.dtype for b in kernel.scratch}
    local = {n.buffer.name: n.buffer.dtype for p in kernel.phases for n in walk(p) if isinstance(n, Alloc)}
    return (local | parameters).get(tensor)


def _exact(source: DType, panel: DType) -> bool:
    return panel == compute_type(source)


def _check_rounding(target: For, tensor: str, panel: DType, span: Span | None) -> None:
    """E0429 unless every element of `tensor` read in the loop is a factor beside an element of the panel's type."""
    loads = [n for n in walk(target) if isinstance(n, Load) and n.tensor == tensor]
    products = [n for n in walk(target) if isinstance(n, Binary) and n.op == "mul"]
    beside = 0
    for product in products:
        factors = [element(f) for f in (product.a, product.b)]
        beside += any(a is not None and a.tensor == tensor and b is not None and b.dtype == panel for a, b in (factors, factors[::-1]))
    if beside < len(loads) or compute_type(panel) != loads[0].dtype:
        raise error(
            "E0429", f"a panel of {panel} would round `{tensor}`, which is not only multiplied by elements of that type", span,
            help=f"leave `type={panel}` out",
        )  # fmt: skip


def element(factor: Expr) -> Load | None:
    """The element that a factor is, whatever type it is widened to."""
    while isinstance(factor, Cast):
        factor = factor.a
    return factor if isinstance(factor, Load) else None


def _private(lanes: tuple[For, ...], copy: Copy) -> str | None:
    """Storage of a single lane that the copy for all of them would read."""
    own = {n.buffer.name for n in walk(lanes) if isinstance(n, Alloc) and n.buffer.space != "shared"}
    return next((n.tensor for n in walk(copy.source) if isinstance(n, Load) and n.tensor in own), None)


def _free_name(kernel: Kernel, name: str) -> str:
    """`name`, or with a number behind it where another stage has a panel of that name."""
    taken = {n.buffer.name for p in kernel.phases for n in walk(p) if isinstance(n, Alloc)}
    names = (f"{name}{number if number > 1 else ''}" for number in count(1))
    return next(n for n in names if n not in taken)


def _nothing(dtype: DType) -> bool | int | float:
    return False if dtype.kind == "bool" else 0.0 if dtype.is_float else 0


def _bound(
    loop: For, lanes: tuple[For, ...], around: tuple[For, ...], used: list[For], tensor: str, span: Span | None
) -> int:  # fmt: skip
    """The constant number of elements along the axis that `loop` gives to the panel."""
    bound = trip_bound(loop)
    if bound is None:
        raise error(
            "E0412", f"the panel of `{tensor}` would have no constant size: `{axis_of(loop.var)}` has no bound", span,
            help=f"`.split({axis_of(loop.var)}, 64)` first, or copy at an inner loop",
        )  # fmt: skip
    other = next((l for l in (*lanes, *around) if l not in used and l.var in variables(loop.extent)), None)
    if other is not None:
        raise error(
            "E0412", f"the part of `{tensor}` that is read depends on `{axis_of(other.var)}`", span,
            help=f"copy it inside `{axis_of(other.var)}`",
        )  # fmt: skip
    return bound


def _lanes_around(kernel: Kernel, target: For, axis: str, span: Span | None) -> tuple[For, ...]:
    """Lane and subgroup loops around (and with) the target; all lanes must reach the copy together."""
    path = (*enclosing(kernel, target.var), target)
    lanes = tuple(loop for loop in path if loop.kind in LANES)
    if not lanes:
        return ()
    names = {loop.var for loop in lanes}
    within = path[path.index(lanes[0]) :]
    apart = next((loop for loop in within if loop not in lanes and (loop.kind == "group" or names & variables(loop.extent))), None)
    alone = [n for n in walk(lanes[0]) if isinstance(n, If) and any(isinstance(m, For) and m.var == target.var for m in walk(n))]
    if apart is not None or alone:
        raise error(
            "E0412", f"not all lanes reach the loop `{axis}` together, so they cannot share a panel there", span,
            help="copy at a loop around the lanes, or at one that runs equally often in every lane",
        )  # fmt: skip
    return lanes


def _deciding(load: Load, around: tuple[For, ...], used: list[For]) -> list[For]:
    """Loops without an iteration of which nothing would be read, where that may happen and the place may then be no element."""
    if all(map(follows_loops, load.index)):
        return []
    names = {loop.var for loop in around}
    return [l for l in around if l not in used and not names & variables(l.extent) and (interval(l.extent, {})[0] or 0) < 1]


def _reads(block: Block, tensor: str) -> list[tuple[Load, tuple[For, ...]]]:
    """Accesses with the loops around them. What a copy reads is not read again, so it does not count."""
    found: list[tuple[Load, tuple[For, ...]]] = []

    def visit(block: Block, around: tuple[For, ...]) -> None:
        for statement in block:
            if isinstance(statement, For):
                visit(statement.body, (*around, statement))
                continue
            if isinstance(statement, If):
                visit((*statement.then, *statement.otherwise), around)
            searched = statement.condition if isinstance(statement, If) else statement
            if not isinstance(searched, Copy):
                found.extend((n, around) for n in walk(searched) if isinstance(n, Load) and n.tensor == tensor)

    visit(block, ())
    return found


def _reader(kernel: Kernel, tensor: str, axis: str, span: Span | None) -> str:
    """The one stage that reads `tensor` and has the loop."""
    readers = dict.fromkeys(
        stage_of(loop.var)
        for phase in kernel.phases
        for loop, _ in nested_loops(phase.body)
        if axis_of(loop.var) == axis and _reads(loop.body, tensor)
    )
    if len(readers) == 1:
        return next(iter(readers))
    if not readers:
        raise error("E0402", f"no stage reads `{tensor}` inside a loop `{axis}`", span, help="name a loop of the stage that reads it")
    raise error(
        "E0412", f"several stages read `{tensor}` inside a loop `{axis}`", span,
        help=f"add `reader={next(iter(readers))}` (or {', '.join(list(readers)[1:])})",
    )  # fmt: skip
