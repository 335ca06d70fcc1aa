"""Recognising a running combination: the one kind of carried loop whose iterations lanes can share."""

from __future__ import annotations

from tridsl.ir.expr import Load
from tridsl.ir.loop import Accumulate, Append, Block, For, Store
from tridsl.ir.walk import variables, walk
from tridsl.structs import dataclass


def scan_of(loop: For) -> Accumulate | None:
    """The accumulation of `for i carried: run += x[i]; y[i] = run`, None for any other loop.

    The body is that accumulation, into places that are the same in all iterations, and stores that may read them from before
    or behind it; nothing else goes from one iteration to the next. The combination is associative, so lanes may combine first
    among themselves.
    """
    found = [s for s in loop.body if isinstance(s, Accumulate)]
    stores = [s for s in loop.body if isinstance(s, Store)]
    if not loop.carried or loop.reduce or len(found) != 1 or len(found) + len(stores) != len(loop.body):
        return None
    step = found[0]
    running = {t.tensor for t in step.targets}
    written = {s.target.tensor for s in stores}
    if step.mask is not None or step.init or any(loop.var in variables(t) for t in step.targets) or running & written:
        return None
    if _loads(step.values) & (running | written):
        return None
    read = set().union(*(_loads(s) for s in stores))
    return step if read & running and not read & written and all(loop.var in variables(s.target) for s in stores) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """What a loop carries: the combination or compaction `step` among the statements `body`, whose other ones are `stores`. `inner`: the
    loop in it that they stand in, where there is one."""

    step: Accumulate | Append
    body: Block
    stores: tuple[Store, ...]
    inner: For | None


def running_of(loop: For) -> Running | None:
    """The one running combination (with or without stores of what has run so far) or compaction of a carried loop, or of a loop in it
    that is all it holds; None for any other.

    The iterations' contributions do not depend on each other and are combined associatively, so they may be combined first.
    """
    inner = loop.body[0] if len(loop.body) == 1 and isinstance(loop.body[0], For) else None
    nest = (loop,) if inner is None else (loop, inner)
    if any(not l.carried or l.reduce for l in nest):
        return None
    body = nest[-1].body
    steps = [s for s in body if isinstance(s, Accumulate | Append)]
    stores = tuple(s for s in body if isinstance(s, Store))
    if len(steps) != 1 or len(stores) + 1 != len(body):
        return None
    (step,) = steps
    whole = [For(var=l.var, extent=l.extent, body=body, carried=True) for l in nest]
    if not all(_runs(one, step, stores) for one in whole):
        return None
    return Running(step=step, body=body, stores=stores, inner=inner)


def _runs(loop: For, step: Accumulate | Append, stores: tuple[Store, ...]) -> bool:
    if isinstance(step, Accumulate) and stores:
        return scan_of(loop) is not None
    written = {s.target.tensor for s in stores}
    places = (step.count,) if isinstance(step, Append) else step.targets
    names = {p.tensor for p in places} | written | (set(step.tensors) if isinstance(step, Append) else set())
    once = step.mask is None and not step.init if isinstance(step, Accumulate) else True
    still = not any(loop.var in variables(p) for p in places) and all(loop.var in variables(s.target) for s in stores)
    values = (step.keep, *step.values) if isinstance(step, Append) else step.values
    return once and still and not _loads(values) & names and not any(_loads(s) & names for s in stores)


def _loads(node: object) -> set[str]:
    return {n.tensor for n in walk(node) if isinstance(n, Load)}  # type: ignore[arg-type]
