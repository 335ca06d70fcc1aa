"""`y.parts(i, 4096)`; for reductions Halide: rfactor, elsewhere split-k; for scans Blelloch 1990, "Prefix sums and their applications"."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import count

from tridsl.devices.spec import DeviceSpec
from tridsl.diagnostics import error
from tridsl.dtypes import INDEX, DType, compute_type
from tridsl.ir.affine import simplify_index
from tridsl.ir.expr import Cast, Const, Expr, Load, Var, add, binary, index, minimum, mul, sub
from tridsl.ir.insertion import insertion_of
from tridsl.ir.loop import Accumulate, Alloc, Append, Block, Buffer, For, Kernel, Phase, Ref, Store
from tridsl.ir.op import Reducer
from tridsl.ir.walk import rewrite, substitute, variables, walk
from tridsl.schedule.best_parts import BEST, best_parts
from tridsl.schedule.heaps import HEAP, MOST, heaps
from tridsl.schedule.nest import axis_of, find_loop, require_serial, stage_of
from tridsl.schedule.parts_monoid import parted_monoid
from tridsl.schedule.ranks import RANKS, ranked
from tridsl.schedule.rescaled_parts import BLOCK, merged_blocks
from tridsl.schedule.split import divide
from tridsl.schedule.steps import Parts
from tridsl.structs import dataclass, replace


def parts(kernel: Kernel, step: Parts, spec: DeviceSpec) -> Kernel:
    """
    before:  scan y over i < N                          after:  y.part:   for p < ceil(N / 4096): part[p] = all of part p
                                                                y.carry:  scan part over p, without its own: carry[p]
                                                                y:        for p: scan y over part p, from carry[p] on

    The parts of an axis are independent, whatever runs over it: a reduction (`y.part`, then `y` combines the parts in order), a
    scan, a compaction (the parts are counted first, so each knows where its elements go; `y.total` is their number), or a top-k (each part's
    k greatest, then the greatest of these), or a monoid of sums rescaled by a running key (`schedule.parts_monoid`). `into=heap` packs each
    part of a compaction by itself (`schedule.heaps`); `into=ranks` counts for each element of a part of a top-k how many come before it
    (`schedule.ranks`), and what is left to merge can be divided again (`y.part2`, …), at last into one part, which is the stage itself;
    `into=best` leaves out the parts that cannot hold any of the greatest (`schedule.best_parts`);
    `into=block` merges the parts of a rescaled monoid each as one block, and what they came to as another (`schedule.rescaled_parts`); with
    `inside=q` every stage of a part has the loop over `q` itself, so that one part serves all of these rows. The loops
    over parts are `i.o` of all these stages, the loops inside them `i.i`; `y.carry` is a scan that can be divided again. The
    parts depend on the factor alone, so results repeat bit for bit on any number of threads.
    Legal for the outermost loop over the axis in a nest that no other step has reached into, of an extent that is known before
    the kernel runs. E0403: the factor is not a positive integer. E0404: the loop is no longer serial. E0424: not such a loop.
    """
    loop = find_loop(kernel, step.stage, step.axis, step.span)
    require_serial(loop, "parts", step.span)
    if step.factor < 1:
        raise error("E0403", f"cannot divide `{step.axis}` into parts of {step.factor}", step.span, help="a factor is a positive integer")
    phase = next((p for p in kernel.phases if p.name == step.stage), None)
    nest = None if phase is None else _nest_of(phase.body, loop)
    if phase is None or nest is None:
        raise _refused(step, "other steps have reshaped its loops, or moved it into another stage")
    for around in (*nest.path, loop):
        if any(isinstance(n, Load) for n in walk(around.extent)) or any(":" in name for name in variables(around.extent)):
            raise _refused(step, f"the length of `{axis_of(around.var)}` is known at run time only")
    if step.inside is not None and step.into != BLOCK:
        raise _refused(step, "only parts that are merged as blocks have loops `inside`")
    how = _INTO.get(step.into) if step.into else _in_parts
    if how is None:
        raise _refused(step, f"there is no `{step.into}` to put its parts in")
    made = how(kernel, nest, step)
    if made is None:
        raise _refused(step, "nothing is reduced, scanned, compacted or ranked over it")
    scratch, phases = made
    if any(":" in name for buffer in scratch for extent in buffer.shape for name in variables(extent)):
        raise _refused(step, "other steps have split the loops that its parts have values for")
    taken = {b.name for b in kernel.scratch} | {n.buffer.name for p in kernel.phases for n in walk(p) if isinstance(n, Alloc)}
    if taken & {b.name for b in scratch}:
        raise _refused(step, f"`{step.stage}` is divided already")
    position = kernel.phases.index(phase)
    return replace(
        kernel,
        scratch=(*kernel.scratch, *scratch),
        phases=(*kernel.phases[:position], *(replace(p, span=phase.span) for p in phases), *kernel.phases[position + 1 :]),
    )


Made = tuple[tuple[Buffer, ...], tuple[Phase, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Nest:
    """The loops `path` around `loop`, and what stands right before and behind it."""

    path: tuple[For, ...]
    before: Block
    loop: For
    after: Block

    @property
    def point(self) -> tuple[Expr, ...]:
        return tuple(Var(name=l.var) for l in self.path)

    def around(self, body: Block) -> Block:
        for loop in reversed(self.path):
            body = (replace(loop, body=body),)
        return body


def _nest_of(block: Block, loop: For) -> _Nest | None:
    """None where the way to the loop is not one plain loop after the other."""
    path: list[For] = []
    while not any(statement is loop for statement in block):
        if len(block) != 1 or not isinstance(block[0], For) or block[0].kind != "serial" or block[0].reduce or block[0].carried:
            return None
        path.append(block[0])
        block = block[0].body
    position = next(n for n, statement in enumerate(block) if statement is loop)
    return _Nest(path=tuple(path), before=block[:position], loop=loop, after=block[position + 1 :])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Partials:
    """One value for each state, each point of the path and each part (`over`: the loop over parts, without its body)."""

    buffers: tuple[Buffer, ...]
    over: For
    point: tuple[Expr, ...]

    @property
    def part(self) -> Var:
        return Var(name=self.over.var)

    def refs(self, part: Expr) -> tuple[Ref, ...]:
        return tuple(Ref(tensor=b.name, index=(*self.point, part)) for b in self.buffers)

    def values(self, part: Expr) -> tuple[Expr, ...]:
        return tuple(read_element(ref, b.dtype) for ref, b in zip(self.refs(part), self.buffers))


def read_element(ref: Ref, dtype: DType) -> Expr:
    """The element in its compute type."""
    load = Load(tensor=ref.tensor, index=ref.index, dtype=dtype)
    return load if compute_type(dtype) == dtype else Cast(a=load, dtype=compute_type(dtype))


def _in_parts(kernel: Kernel, nest: _Nest, step: Parts) -> Made | None:
    return _compaction(nest, step) or _reduction(nest, step) or _scan(nest, step) or _greatest(nest, step) or _monoid(nest, step)


def _partials(nest: _Nest, step: Parts, what: str, dtypes: Sequence[DType], names: Sequence[str]) -> _Partials:
    outer = divide(nest.loop, step.factor)
    shape = (*(l.extent for l in nest.path), outer.extent)
    plural = len(names) > 1
    buffers = tuple(
        Buffer(name=f"{step.stage}.{what}.{name}" if plural else f"{step.stage}.{what}", dtype=dtype, shape=shape, space="global", span=step.span)
        for name, dtype in zip(names, dtypes)
    )
    over = replace(outer, body=(), reduce=False, carried=False)
    return _Partials(buffers=buffers, over=over, point=nest.point)


def _stage(block: Block, stage: str, name: str) -> Block:
    """`block` of `stage` as one of the stage `name`: its loops and buffers are called by it."""

    def called(old: str) -> str:
        return f"{name}:{axis_of(old)}" if stage_of(old) == stage and ":" in old else old

    return rewrite(
        block,
        {
            Var: lambda v: replace(v, name=called(v.name)),
            For: lambda l: replace(l, var=called(l.var)),
            Load: lambda l: replace(l, tensor=called(l.tensor)),
            Ref: lambda r: replace(r, tensor=called(r.tensor)),
            Alloc: lambda a: replace(a, buffer=replace(a.buffer, name=called(a.buffer.name))),
        },
    )


def _reduction(nest: _Nest, step: Parts) -> Made | None:
    found = [n for n in walk(nest.loop) if isinstance(n, Accumulate)]
    inner = [n for n in walk(nest.loop) if isinstance(n, For)]
    if not nest.loop.reduce or nest.before or nest.after or len(found) != 1 or not found[0].init:
        return None
    if any(not l.reduce for l in inner) or any(isinstance(n, Store | Alloc | Append) for n in walk(nest.loop)):
        return None
    if nest.loop.carried:
        raise _refused(step, "its elements are combined one after the other, in order")
    whole, reducer = found[0], found[0].reducer
    partials = _partials(nest, step, "part", reducer.dtypes, reducer.states)
    (inside,) = divide(nest.loop, step.factor).body
    assert isinstance(inside, For)
    asked = whole.mask is not None and variables(whole.mask) & {l.var for l in (nest.loop, *inner)}  # which terms count, or which results there are
    terms, results = (whole.mask, None) if asked else (None, whole.mask)
    first = replace(inside, body=rewrite(inside.body, {Accumulate: lambda a: replace(a, targets=partials.refs(partials.part), mask=terms)}))
    combine = Accumulate(targets=whole.targets, reducer=reducer, values=partials.values(partials.part), init=True, mask=results, span=whole.span)
    second = replace(partials.over, body=(combine,), reduce=True)
    return partials.buffers, (
        _phase(nest, step, "part", (replace(partials.over, body=(first,)),)),
        Phase(name=step.stage, body=nest.around((second,))),
    )


def _scan(nest: _Nest, step: Parts) -> Made | None:
    """Running values in registers, made before the loop; one step a point, and stores of what has run so far."""
    running = [s.buffer for s in nest.before if isinstance(s, Alloc)]
    steps = [s for s in nest.loop.body if isinstance(s, Accumulate)]
    rest = [s for s in nest.loop.body if not isinstance(s, Accumulate | Store)]
    if not nest.loop.carried or nest.after or len(steps) != 1 or rest:
        return None
    (run,) = steps
    begun = [s for s in nest.before if isinstance(s, Store)]
    if [t.tensor for t in run.targets] != [b.name for b in running] or len(begun) + len(running) != len(nest.before):
        return None
    partials = _partials(nest, step, "part", run.reducer.dtypes, run.reducer.states)
    carry = _partials(nest, step, "carry", run.reducer.dtypes, run.reducer.states)
    outer = divide(nest.loop, step.factor)
    (inside,) = outer.body
    assert isinstance(inside, For)
    (single,) = (s for s in inside.body if isinstance(s, Accumulate))
    all_of_it = replace(single, targets=partials.refs(partials.part), init=True)
    reduced: Block = (replace(inside, body=(all_of_it,), reduce=True, carried=False),)
    if not run.reducer.commutative:  # from the part's first element on, in order
        starts = tuple(Store(target=ref, value=value) for ref, value in zip(partials.refs(partials.part), run.reducer.identity))
        reduced = (*starts, replace(inside, body=(replace(all_of_it, init=False),)))
    values = iter(carry.values(carry.part))
    resumed = tuple(replace(s, value=next(values)) if isinstance(s, Store) else s for s in nest.before)
    return (*partials.buffers, *carry.buffers), (
        _phase(nest, step, "part", (replace(partials.over, body=reduced),)),
        _phase(nest, step, "carry", (*nest.before, _exclusive(run, partials, carry))),
        Phase(name=step.stage, body=nest.around((replace(partials.over, body=(*resumed, inside)),))),
    )


def _exclusive(run: Accumulate, partials: _Partials, carry: _Partials) -> For:
    """carry[p] = what the parts before p come to."""
    so_far = tuple(
        Store(target=ref, value=read_element(target, b.dtype))
        for ref, target, b in zip(carry.refs(carry.part), run.targets, carry.buffers)
    )
    ahead = replace(run, values=partials.values(partials.part))
    return replace(partials.over, body=(*so_far, ahead), carried=True)


COUNT = Reducer(
    name="sum", states=("s",), dtypes=(INDEX,), identity=(index(0),), merge=(add(Var(name="a.s"), Var(name="b.s")),), op="add"
)


def _heap(kernel: Kernel, nest: _Nest, step: Parts) -> Made:
    append = _only_append(nest, step)
    if append is None:
        raise _refused(step, "it is no compaction, whose parts have any length")
    if not isinstance(nest.loop.extent, Const) or step.factor > MOST or len(nest.loop.body) > 1:
        raise _refused(step, f"a heap is laid out in advance, for parts of at most {MOST} elements")
    types = {p.name: p.dtype for p in kernel.params}
    return heaps(step.stage, nest.before, nest.loop, nest.after, append, tuple(types[t] for t in append.tensors), step.factor)


def _only_append(nest: _Nest, step: Parts) -> Append | None:
    """The compaction that the loop makes; None where it makes something else."""
    appends = [s for s in nest.loop.body if isinstance(s, Append)]
    if not appends:
        return None
    if len(appends) > 1 or nest.path or any(isinstance(n, For) for s in nest.loop.body for n in walk(s)):
        raise _refused(step, "several compactions with conditions of their own share it")
    (append,) = appends
    if any(not isinstance(s, Append | Store) for s in nest.loop.body):
        raise _refused(step, "other steps have put copies into it")
    return append


def _compaction(nest: _Nest, step: Parts) -> Made | None:
    append = _only_append(nest, step)
    if append is None:
        return None
    if any(isinstance(n, Load) and n.tensor == append.count.tensor for s in nest.loop.body if s is not append for n in walk(s)):
        raise _refused(step, f"`{append.count.tensor}` is read inside it")
    partials = _partials(nest, step, "part", (INDEX,), ("s",))
    carry = _partials(nest, step, "carry", (INDEX,), ("s",))
    (inside,) = divide(nest.loop, step.factor).body
    assert isinstance(inside, For)
    (kept,) = (s for s in inside.body if isinstance(s, Append))
    one = Cast(a=kept.keep, dtype=INDEX)
    counted = Accumulate(targets=partials.refs(partials.part), reducer=COUNT, values=(one,), init=True, span=append.span)
    running, limit = (
        Buffer(name=f"{step.stage}:{what}", dtype=INDEX, shape=(), space="reg", span=step.span) for what in ("count", "limit")
    )
    here, end = Ref(tensor=running.name, index=()), Ref(tensor=limit.name, index=())
    run = Accumulate(targets=(here,), reducer=COUNT, values=(index(0),), span=append.span)
    start: Block = (Alloc(buffer=running), Store(target=here, value=index(0)))
    own = replace(kept, count=here, limit=read_element(end, INDEX))
    (first,), (before,) = partials.values(partials.part), carry.values(carry.part)
    part = (
        Alloc(buffer=running),
        Store(target=here, value=before),
        Alloc(buffer=limit),
        Store(target=end, value=add(before, first)),
        replace(inside, body=tuple(own if s is kept else s for s in inside.body)),
    )
    last = sub(partials.over.extent, index(1))
    some = binary("gt", partials.over.extent, index(0))
    sums = [replace(value, mask=some, other=index(0)) for made in (carry, partials) for value in made.values(last) if isinstance(value, Load)]
    starts = [s for s in nest.before if isinstance(s, Store) and s.target == append.count]
    others = tuple(s for s in nest.before if s not in starts)
    total = Store(target=append.count, value=add(*sums), span=append.span)
    return (*partials.buffers, *carry.buffers), (
        _phase(nest, step, "part", (replace(partials.over, body=(replace(inside, body=(counted,), reduce=True, carried=False),)),)),
        _phase(nest, step, "carry", (*start, _exclusive(run, partials, carry))),
        Phase(name=f"{step.stage}.total", body=(*others, total, *nest.after)),
        Phase(name=step.stage, body=(replace(partials.over, body=part),)),
    )


def _greatest(nest: _Nest, step: Parts, what: str = "part", *, by_rank: bool = False) -> Made | None:
    """The k greatest of each part are candidates for the whole, in the order of the parts: of equals the earlier stays in front."""
    found = insertion_of(step.stage, nest.loop)
    if found is None or nest.before or nest.after:
        return None
    if not isinstance(found.k, Const) or int(found.k.value) > step.factor:
        raise _refused(step, "a part is smaller than what is kept of it")
    outer = divide(nest.loop, step.factor)
    (inside,) = outer.body
    assert isinstance(inside, For)
    part = Var(name=outer.var)
    here = {nest.loop.var: add(mul(part, index(step.factor)), Var(name=inside.var))}
    shape = (*(l.extent for l in nest.path), outer.extent, found.k)
    names = (f"{step.stage}.{what}.values", f"{step.stage}.{what}.indices")
    buffers = tuple(Buffer(name=name, dtype=dtype, shape=shape, space="global", span=step.span) for name, dtype in zip(names, found.dtypes))
    slot = found.values.index[-1]
    places = tuple(Ref(tensor=name, index=(*nest.point, part, slot)) for name in names)
    own = replace(found, values=places[0], indices=places[1], value=substitute(found.value, here), position=substitute(found.position, here), point=Var(name=inside.var))
    best = ranked(own, inside) if by_rank else replace(inside, body=own.body())
    whole = sub(outer.extent, index(1))
    rest = minimum(found.k, sub(nest.loop.extent, mul(whole, index(step.factor))))
    number = Var(name=f"{step.stage}:{axis_of(nest.loop.var)}.o")
    at = (*nest.point, binary("floordiv", number, found.k), binary("mod", number, found.k))
    value, position = (read_element(Ref(tensor=name, index=at), dtype) for name, dtype in zip(names, found.dtypes))
    merged = replace(found, value=value, position=position, point=number).body()
    some = binary("max", index(0), add(mul(whole, found.k), rest))
    last = replace(nest.loop, var=number.name, extent=simplify_index(some), bound=None, body=merged)
    return buffers, (_phase(nest, step, what, (replace(outer, body=(best,), carried=False),)), Phase(name=step.stage, body=nest.around((last,))))


def _ranks(kernel: Kernel, nest: _Nest, step: Parts) -> Made | None:
    """`_greatest`, each part by counting; one part is the whole."""
    found = insertion_of(step.stage, nest.loop)
    if found is None:
        raise _refused(step, "it is no top-k, whose elements have ranks")
    if nest.before or nest.after:
        return None
    if not isinstance(nest.loop.extent, Const) or step.factor < int(nest.loop.extent.value):
        names = {p.name for p in kernel.phases}
        number = next(n for n in count(1) if f"{step.stage}.part{n if n > 1 else ''}" not in names)
        return _greatest(nest, step, f"part{number if number > 1 else ''}", by_rank=True)
    return (), (Phase(name=step.stage, body=nest.around((ranked(found, nest.loop),))),)


def _blocks(kernel: Kernel, nest: _Nest, step: Parts) -> Made:
    """Every part merged as one block, and what the parts came to as another."""
    rows = tuple(loop for loop in nest.path if axis_of(loop.var) == step.inside)
    if step.inside is not None and not rows:
        raise _refused(step, f"`{step.inside}` is no loop around it that could go into its parts")
    made = None if nest.after else merged_blocks(nest.path, rows, nest.before, nest.loop, step)
    if made is None:
        raise _refused(step, "its states are not sums rescaled by a running max or min")
    outer = replace(nest, path=tuple(loop for loop in nest.path if loop not in rows))
    return made.buffers, (_phase(outer, step, "part", (made.part,)), Phase(name=step.stage, body=nest.around(made.whole)))


def _best(kernel: Kernel, nest: _Nest, step: Parts) -> Made:
    """Parts that cannot hold any of the greatest are left out."""
    found = None if nest.before or nest.after else insertion_of(step.stage, nest.loop)
    if found is None:
        raise _refused(step, "it is no top-k, whose parts have a best element")
    lengths = (found.k, nest.loop.extent)
    if not all(isinstance(n, Const) for n in lengths) or int(found.k.value) > -(-int(nest.loop.extent.value) // step.factor):  # type: ignore[union-attr]  # asked for just before
        raise _refused(step, "it has fewer parts than elements are kept")
    made = best_parts(found, nest.loop, step.factor, nest.path)
    phases = tuple(_phase(nest, step, what, block) for what, block in ((BEST, made.best), ("part", made.part), ("order", made.order), ("left", made.left)))
    return made.buffers, (*phases, Phase(name=step.stage, body=nest.around(made.whole)))


_INTO: Mapping[str, Callable[[Kernel, _Nest, Parts], Made | None]] = {HEAP: _heap, RANKS: _ranks, BLOCK: _blocks, BEST: _best}


def _monoid(nest: _Nest, step: Parts) -> Made | None:
    """States with different axes, which share the nest's path."""
    found = None if nest.after else parted_monoid(nest.path, nest.before, nest.loop, step)
    if found is None:
        return None
    whole = Phase(name=step.stage, body=nest.around((*nest.before, found.whole)))
    return found.buffers, (_phase(nest, step, "part", (found.part,)), whole)


def _phase(nest: _Nest, step: Parts, what: str, body: Block) -> Phase:
    name = f"{step.stage}.{what}"
    return Phase(name=name, body=_stage(nest.around(body), step.stage, name))


def _refused(step: Parts, why: str) -> Exception:
    return error(
        "E0424", f"`{step.axis}` of `{step.stage}` cannot be divided into parts: {why}", step.span,
        help="name the outermost loop that the stage reduces, scans or compacts over, before any other step on it",
    )  # fmt: skip
