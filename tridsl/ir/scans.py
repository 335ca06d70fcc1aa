"""Recognising a running combination: the one kind of carried loop whose iterations lanes can share."""

from __future__ import annotations

from tridsl.ir.expr import Load
from tridsl.ir.loop import Accumulate, For, Store
from tridsl.ir.walk import variables, walk


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


def _loads(node: object) -> set[str]:
    return {n.tensor for n in walk(node) if isinstance(n, Load)}  # type: ignore[arg-type]
