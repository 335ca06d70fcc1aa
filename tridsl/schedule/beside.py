"""`pos.beside(y, i)`; Halide: compute_with."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

from tridsl.devices.spec import DeviceSpec
from tridsl.diagnostics import error
from tridsl.dtypes import INDEX
from tridsl.ir.affine import equal
from tridsl.ir.expr import Load, Var, index
from tridsl.ir.loop import Accumulate, Append, Block, For, Kernel, Phase, Stmt, Store
from tridsl.ir.op import Reducer
from tridsl.ir.walk import rewrite, substitute, walk
from tridsl.schedule.nest import axis_of, find_loop, require_serial, stages, unknown_stage, written
from tridsl.schedule.steps import Beside
from tridsl.structs import replace


def beside(kernel: Kernel, step: Beside, spec: DeviceSpec) -> Kernel:
    """
    before:  for y:i: append y[y.len++] = x[i] if x[i] >= t         after:  for y:i: append y[y.len], pos[y.len++] = x[i], i if …
             for pos:i: append pos[pos.len++] = i if x[i] >= t              pos.len = y.len

    Two stages that run over the same points share one loop, iteration by iteration; what they both read is read once.
    Compactions that keep the same elements become one, and so do reductions in the same loops throughout: one with the parts of
    both. (Reductions that share only some of the loops over which they combine would not know where they start.) Legal when both loops are the outermost of their stages, run over the
    same number of points in the same way, and neither stage (nor one between them) reads what the other writes.
    E0430: one of these is not so. E0401, E0402, E0404: as everywhere.
    """
    target = find_loop(kernel, step.other, step.axis, step.span)
    require_serial(target, "beside", step.span)
    if step.stage not in stages(kernel):
        raise unknown_stage(kernel, step.stage, step.span)
    here, there = (_home(kernel, name) for name in (step.stage, step.other))
    if here is None or there is None or here == there or not any(s is target for s in kernel.phases[there].body):
        raise _refused(step, f"`{step.axis}` is not the outermost loop of `{step.other}`, or `{step.stage}` has no loops of its own")
    moved, host = kernel.phases[here], kernel.phases[there]
    start, loop = moved.body[:-1], moved.body[-1]
    if not isinstance(loop, For) or any(not isinstance(s, Store) for s in start):
        raise _refused(step, f"`{step.stage}` is not one nest of loops")
    alike = equal(loop.extent, target.extent) and (loop.reduce, loop.kind) == (target.reduce, target.kind)
    if not alike:
        raise _refused(step, f"`{axis_of(loop.var)}` of `{step.stage}` and `{step.axis}` of `{step.other}` do not run over the same points")
    between = kernel.phases[min(here, there) + 1 : max(here, there)]
    for phase in (host, *between):
        shared = _touched(moved) & _written(phase) | _touched(phase) & _written(moved)
        if shared:
            raise _refused(step, f"`{step.stage}` and `{phase.name}` depend on each other through `{min(shared)}`")
    position = next(n for n, s in enumerate(host.body) if s is target)
    if target.reduce or not start:
        one = _one_reduction(target, loop)
        if one is None and target.reduce:
            raise _refused(step, f"`{step.stage}` and `{step.other}` do not combine in the same loops")
        if one is not None and not start:
            block = (*host.body[:position], one, *host.body[position + 1 :])
            return replace(kernel, phases=tuple(replace(p, body=block) if p is host else p for p in kernel.phases if p is not moved))
    body = substitute(loop.body, {loop.var: Var(name=target.var)})
    joined = replace(target, body=(*target.body, *body), carried=target.carried or loop.carried)
    before = (*host.body[:position], *start)
    block = _one_append(before, joined, host.body[position + 1 :])
    phases = [replace(p, body=block) if p is host else p for p in kernel.phases if p is not moved]
    return replace(kernel, phases=tuple(phases))


def _one_reduction(host: For, moved: For) -> For | None:
    """Two perfect nests of the same loops, each around one accumulation, as one nest around an accumulation of both."""
    outer, inner = _perfect(host), _perfect(moved)
    if outer is None or inner is None or len(outer[0]) != len(inner[0]):
        return None
    names = {b.var: Var(name=a.var) for a, b in zip(outer[0], inner[0])}
    for a, b in zip(outer[0], inner[0]):
        if not equal(a.extent, substitute(b.extent, names)) or (a.kind, a.reduce, a.carried) != (b.kind, b.reduce, b.carried):
            return None
    first, second = outer[1], substitute(inner[1], names)
    if (first.init, first.mask, first.intrinsic) != (second.init, None, None) or second.mask is not None:
        return None
    both = replace(
        first,
        targets=(*first.targets, *second.targets),
        reducer=_product(first.reducer, second.reducer),
        values=(*first.values, *second.values),
    )
    nest: Block = (both,)
    for loop in reversed(outer[0]):
        nest = (replace(loop, body=nest),)
    result = nest[0]
    assert isinstance(result, For)
    return result


def _perfect(loop: For) -> tuple[list[For], Accumulate] | None:
    nest = [loop]
    while len(nest[-1].body) == 1:
        inner = nest[-1].body[0]
        if isinstance(inner, Accumulate):
            return nest, inner
        if not isinstance(inner, For):
            break
        nest.append(inner)
    return None


def _product(a: Reducer, b: Reducer) -> Reducer:
    """Both combinations side by side; states of `b` that have a name of `a`'s get a number."""
    renamed: dict[str, str] = {}
    for state in b.states:
        taken = {*a.states, *renamed.values()}
        renamed[state] = next(n for n in (f"{state}{k if k > 1 else ''}" for k in count(1)) if n not in taken)
    sides = {f"{side}.{old}": f"{side}.{new}" for old, new in renamed.items() for side in "ab"}
    merge = tuple(rewrite(e, {Var: lambda v: replace(v, name=sides.get(v.name, v.name))}) for e in b.merge)
    return Reducer(
        name=a.name if a.name == b.name else f"{a.name}.{b.name}",
        states=(*a.states, *renamed.values()),
        dtypes=(*a.dtypes, *b.dtypes),
        identity=(*a.identity, *b.identity),
        merge=(*a.merge, *merge),
        commutative=a.commutative and b.commutative,
    )


def _home(kernel: Kernel, stage: str) -> int | None:
    return next((n for n, phase in enumerate(kernel.phases) if phase.name == stage), None)


def _written(phase: Phase) -> frozenset[str]:
    return frozenset[str]().union(*(written(s) for s in phase.body))


def _touched(phase: Phase) -> frozenset[str]:
    return _written(phase) | {n.tensor for n in walk(phase) if isinstance(n, Load)}


def _one_append(before: Block, loop: For, after: Block) -> Block:
    """Appends of the loop's body that keep the same elements, from the same count on, become one."""
    appends = [s for s in loop.body if isinstance(s, Append)]
    if len(appends) != 2 or appends[0].keep != appends[1].keep or not all(_counted(before, loop, a) for a in appends):
        return (*before, loop, *after)
    first, second = appends
    one = replace(first, tensors=(*first.tensors, *second.tensors), values=(*first.values, *second.values))
    body = tuple(one if s is first else s for s in loop.body if s is not second)
    kept = tuple(s for s in before if not (isinstance(s, Store) and s.target == second.count))
    number = Load(tensor=first.count.tensor, index=first.count.index, dtype=INDEX)
    return (*kept, replace(loop, body=body), Store(target=second.count, value=number, span=second.span), *after)


def _counted(before: Block, loop: For, append: Append) -> bool:
    """Whether the count starts at 0 right before the loop, and only the append touches it there."""
    count = append.count.tensor
    starts = [s for s in before if count in written(s)]
    touching = [s for s in loop.body if s is not append and count in _tensors(s)]
    return len(starts) == 1 and isinstance(starts[0], Store) and starts[0].value == index(0) and not touching


def _tensors(statement: Stmt) -> Iterator[str]:
    yield from written(statement)
    for node in walk(statement):
        if isinstance(node, Load):
            yield node.tensor
        elif isinstance(node, Accumulate):
            yield from (target.tensor for target in node.targets)


def _refused(step: Beside, why: str) -> Exception:
    return error(
        "E0430", f"`{step.stage}` cannot run beside `{step.other}`: {why}", step.span,
        help="name the outermost loop of a stage over the same points, before either is reshaped",
    )  # fmt: skip
