"""`pipeline(1)`; Halide: hoist + async, CUTLASS: stages."""

from __future__ import annotations

from typing import TypeGuard

from tridsl.devices.intrinsics import INTRINSICS
from tridsl.devices.spec import DeviceSpec
from tridsl.diagnostics import TriError, error
from tridsl.ir.expr import Expr, Load, Var, add, binary, index, minimum, mul, sub
from tridsl.ir.loop import Accumulate, Copy, For, If, Kernel, Prefetch
from tridsl.ir.op import Tensor
from tridsl.ir.packings import is_packed
from tridsl.ir.strides import contiguous_axis
from tridsl.ir.walk import rewrite, substitute, variables, walk
from tridsl.passes.copies_ahead import hints
from tridsl.schedule.nest import (
    axis_of,
    find_loop,
    loops_of,
    nested_loops,
    replace_loop,
    stages,
    trip_bound,
    unknown_stage,
)
from tridsl.schedule.steps import Pipeline
from tridsl.structs import replace

MOST_BUFFERS, MOST_AHEAD = 3, 256
"""Iterations ahead: copies need storage for each, hints do not."""


def pipeline(kernel: Kernel, step: Pipeline, spec: DeviceSpec) -> Kernel:
    """
    before:  for k.o: copy A -> A.shared; …                       pipeline(1)
    after:   for k.o: copy A -> A.shared (buffers = 2); …

    The copies of the innermost loop that has any are fetched `depth` iterations ahead; how (registers, a second buffer, a fifo)
    is the backend's choice. On a parameter:

    before:  for r: for n: m max= x[r, n]; for n: e[n] = exp(x[r, n] - m)               x.pipeline(1, at=r)
    after:   for r: for n: m max= x[r, n]; for n: e[n] = exp(x[r, n] - m); prefetch x[r + 1, n]

    in the last loop inside `at` that reads the parameter: the first one waits for memory, the last one mostly writes, and reads and writes
    overlap (layernorm of 4096 x 4096, whose second loop of three is the variance's: 0.88 of the time with the hint in that one). Beside an unrolled loop
    that reads the same elements again and again the hint is a nest of its own, once for all of them:

    before:  for j.o: for k: unroll i: vector j.i: C[i, j.o*32 + j.i] += A[i, k] * B[k, j.o*32 + j.i]                B.pipeline(3, at=j.o)
    after:   for j.o: for k: (unroll i: vector j.i: …), vector j.i: prefetch B[k, (j.o + 3)*32 + j.i]

    Where that loop is one of many short sweeps, `around` goes on with the next one behind the end of each, and `stagger` lets each row be fetched
    further ahead than the one before it: rows that are a multiple of a page apart do not come to the ends of their pages together, and what waits
    of them to be read does not need the same few lines of L1 (8 x 4096 x 4096 f32 on an Emerald Rapids: 0.86 of the time without):

    before:  for k.o: for j.o < J: for k.i: unroll i: vector j.i: … B[k.o*16 + k.i, j.o*32 + j.i]   B.pipeline(2, at=j.o, around=k.o, stagger=k.i)
    after:   … (unroll i: …), vector j.i: prefetch B[(k.o + p)*16 + k.i, (j.o + 2 + k.i - p*J)*32 + j.i] where p = 1 if j.o + 2 + k.i >= J else 0

    Where the loop `at` reads the parameter only to fill a panel, the hints for the next panel are dealt out to the loop that follows, so that
    they do not wait for each other:

    before:  for i.o: copy A[i.o*8 + i, k] -> A.pack for i < 8, k < 512; for j.o < 32: …                             A.pipeline(1, at=i.o)
    after:   for i.o: copy …; for j.o < 32: (for i < 8: prefetch A[(i.o + 1)*8 + i, min(j.o, 7)*64]), …

    So it is beside loops that are an instruction's (`.intrin` came before): one for each register that the instruction reads; and
    `depth` may be many short iterations. E0403: depth is not 1..3 (1..256 on a parameter). E0418: nothing is copied in the stage's
    loops; the loop does not read the parameter. E0493: `around` is no loop around `at`, or `stagger` none inside, on the way to where it is read.
    """
    parameters = {p.name for p in kernel.params if isinstance(p, Tensor)}
    if step.stage not in stages(kernel) and step.stage not in parameters:
        raise unknown_stage(kernel, step.stage, step.span)
    most = MOST_BUFFERS if step.at is None else MOST_AHEAD
    if not 1 <= step.depth <= most:
        raise error("E0403", f"cannot fetch {step.depth} iterations ahead", step.span, help=f"use a depth from 1 to {most}")
    if step.at is not None:
        return _prefetch(kernel, step, step.at)
    if step.around is not None or step.stagger is not None:
        raise error("E0493", "`around` and `stagger` say how far ahead of a loop to fetch", step.span, help="name the loop: at=…")
    holding = [l for l in loops_of(kernel, step.stage) if any(isinstance(s, Copy) for s in l.body)]
    if not holding:
        raise error(
            "E0418", f"no copy stands in the loops of `{step.stage}`", step.span, help="use `.pack(…)` or `.store(…)` on its inputs first"
        )
    innermost = holding[-1]

    def deepen(loop: For) -> For:
        if loop.var != innermost.var:
            return loop
        return replace(loop, body=tuple(replace(s, buffers=step.depth + 1) if isinstance(s, Copy) else s for s in loop.body))

    return replace(kernel, phases=rewrite(kernel.phases, {For: deepen}))


def _prefetch(kernel: Kernel, step: Pipeline, axis: str) -> Kernel:
    readers = [step.reader] if step.reader else [s for s in stages(kernel) if any(axis_of(l.var) == axis for l in loops_of(kernel, s))]
    loops = [find_loop(kernel, reader, axis, step.span) for reader in readers]
    reading = [loop for loop in loops if any(_reads(n, step.stage) for s in loop.body for n in walk(s))]
    if not reading:
        raise error(
            "E0418", f"no loop `{axis}` reads `{step.stage}`", step.span, help="name a loop of the stage that reads it, and the stage: reader=y"
        )
    target = reading[0]
    nests = [loop for loop, _ in nested_loops(target.body) if _direct(loop, step.stage)]
    dealt = None if nests or step.around or step.stagger else _dealt(kernel, target, step)
    if dealt is not None:
        return dealt
    if not nests:
        raise error("E0418", f"`{step.stage}` is not read in a loop inside `{axis}`", step.span, help="name an outer loop")
    chosen = nests[-1]
    load = _direct(chosen, step.stage)[0]
    if any(isinstance(n, Load) for i in load.index for n in walk(i)):
        raise error(
            "E0418", f"where `{step.stage}` is read depends on data that is not there yet", step.span, help="leave the step out"
        )  # fmt: skip
    row = next((INTRINSICS[n.intrinsic] for n in chosen.body if isinstance(n, Accumulate) and n.intrinsic), None)
    path = (*next(above for loop, above in nested_loops(target.body) if loop is chosen), chosen)
    ahead = _ahead(kernel, target, path, step)
    hint = Prefetch(tensor=step.stage, index=tuple(substitute(i, ahead) for i in load.index), span=step.span)
    if row is not None:
        own = 2 if row.lanes else 3
        inside, nest = target, _nest(path[:-own], path[-own:], hint)
    else:
        moving = variables(hint.index)
        again = next((n for n, loop in enumerate(path) if loop.kind == "unroll" and loop.var not in moving), len(path))
        inside = (target, *path)[again]
        nest = _nest(path[again:], (), hint)
    return replace_loop(kernel, inside.var, lambda loop: replace(loop, body=(*loop.body, nest)))


def _ahead(kernel: Kernel, target: For, path: tuple[For, ...], step: Pipeline) -> dict[str, Expr]:
    """Where the loops stand in the iteration that is fetched for. `path`: the loops inside `target` on the way to where it is read."""
    turn = add(Var(name=target.var), index(step.depth))
    if step.stagger is not None:
        row = next((loop for loop in path if axis_of(loop.var) == step.stagger), None)
        if row is None:
            raise _misplaced(step, "stagger", step.stagger, "inside", path)
        turn = add(turn, Var(name=row.var))
    if step.around is None:
        return {target.var: turn}
    above = next(above for phase in kernel.phases for loop, above in nested_loops(phase.body) if loop is target)
    outer = next((loop for loop in above if axis_of(loop.var) == step.around), None)
    if outer is None:
        raise _misplaced(step, "around", step.around, "around", above)
    passed = minimum(binary("max", sub(turn, sub(target.extent, index(1))), index(0)), index(1))
    return {target.var: sub(turn, mul(passed, target.extent)), outer.var: add(Var(name=outer.var), passed)}


def _misplaced(step: Pipeline, keyword: str, axis: str, where: str, loops: tuple[For, ...]) -> TriError:
    have = ", ".join(f"`{axis_of(loop.var)}`" for loop in loops) or "none"
    return error("E0493", f"`{keyword}={axis}` is no loop {where} `{step.at}` where `{step.stage}` is read", step.span, help=f"loops {where} it: {have}")


def _dealt(kernel: Kernel, target: For, step: Pipeline) -> Kernel | None:
    """Hints for the next panel in the first loop behind the copy that fills this one (none for rows that do not lie side by side); None where
    there are not both."""
    tensor = next(p for p in kernel.params if isinstance(p, Tensor) and p.name == step.stage)
    place = next((n for n, s in enumerate(target.body) if isinstance(s, Copy) and s.source.tensor == step.stage), None)
    behind = None if place is None else next((s for s in target.body[place + 1 :] if isinstance(s, For)), None)
    if place is None or behind is None:
        return None
    contiguous = contiguous_axis(tensor)
    if contiguous is None or is_packed(tensor):
        return kernel
    copy = target.body[place]
    assert isinstance(copy, Copy)
    turn, turns = Var(name=behind.var), trip_bound(behind)

    def deal(piece: Var, pieces: int) -> tuple[Expr, int]:
        each = -(-pieces // turns) if turns else 1
        which = turn if each == 1 else add(mul(turn, index(each)), piece)
        return (which if each * (turns or 0) == pieces else binary("min", which, index(pieces - 1))), each

    hint = hints(copy, copy.axes, contiguous, {target.var: add(Var(name=target.var), index(step.depth))}, deal)
    return kernel if hint is None else replace_loop(kernel, behind.var, lambda loop: replace(loop, body=(hint, *loop.body)))


def _nest(around: tuple[For, ...], own: tuple[For, ...], hint: Prefetch) -> For | Prefetch:
    """The hint in loops of its own, for those of `around` that it moves with; `own`: loops of which it needs the first iteration only."""
    suffix = ".ahead"
    places: dict[str, Expr] = {l.var: Var(name=l.var + suffix) for l in around}
    places.update((l.var, index(0)) for l in own)
    nest: For | Prefetch = replace(hint, index=substitute(hint.index, places))
    for loop in reversed(around):
        if loop.var + suffix in variables(nest):
            nest = replace(loop, var=loop.var + suffix, extent=substitute(loop.extent, places), body=(nest,), reduce=False)
    return nest


def _direct(loop: For, tensor: str) -> list[Load]:
    """Reads by the statements of the loop itself; a panel is copied whole, so what fills it is not fetched ahead."""
    return [n for s in loop.body if not isinstance(s, For | If | Copy) for n in walk(s) if _reads(n, tensor)]


def _reads(node: object, tensor: str) -> TypeGuard[Load]:
    return isinstance(node, Load) and node.tensor == tensor
