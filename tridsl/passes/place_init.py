"""Reductions that work in memory: their targets get the reducer's identity before the outermost reduce loop.

    for k: for j: C[j] += …  (init)      ->      for j: C[j] = 0
                                                 for k: for j: C[j] += …
"""

from __future__ import annotations

from tridsl.ir.expr import Var
from tridsl.ir.loop import Accumulate, Block, For, If, Kernel, Stmt, Store
from tridsl.ir.walk import substitute, variables
from tridsl.schedule.nest import stage_of
from tridsl.structs import replace


def place_init(kernel: Kernel) -> Kernel:
    """Makes every `Accumulate.init` explicit."""
    return replace(kernel, phases=tuple(replace(p, body=_block(p.body, frozenset())) for p in kernel.phases))


def _block(block: Block, reducing: frozenset[str]) -> Block:
    """`reducing`: stages whose outermost reduce loop is around this block, so that their start is already placed."""
    out: list[Stmt] = []
    for statement in block:
        if isinstance(statement, For):
            stage = stage_of(statement.var)
            if statement.reduce and stage not in reducing:
                for path, accumulate in _accumulations((statement,), stage):
                    out += start_nest(path, accumulate)
                inner = _block(statement.body, reducing | {stage})
            else:
                inner = _block(statement.body, reducing)
            out.append(replace(statement, body=inner))
        elif isinstance(statement, If):
            out.append(replace(statement, then=_block(statement.then, reducing), otherwise=_block(statement.otherwise, reducing)))
        elif isinstance(statement, Accumulate) and statement.init:
            if not reducing:
                out += start_nest((), statement)
            out.append(replace(statement, init=False))
        else:
            out.append(statement)
    return tuple(out)


def _accumulations(block: Block, stage: str, loops: tuple[For, ...] = ()) -> list[tuple[tuple[For, ...], Accumulate]]:
    found: list[tuple[tuple[For, ...], Accumulate]] = []
    for statement in block:
        if isinstance(statement, For):
            found += _accumulations(statement.body, stage, (*loops, statement))
        elif isinstance(statement, If):
            found += _accumulations(statement.then, stage, loops) + _accumulations(statement.otherwise, stage, loops)
        elif isinstance(statement, Accumulate) and statement.init and (not loops or stage_of(loops[-1].var) == stage):
            found.append((loops, statement))
    return found


def start_nest(path: tuple[For, ...], accumulate: Accumulate) -> Block:
    """Stores of the identity to every element that `accumulate` reaches through the loops of `path`."""
    free = [loop for loop in path if not loop.reduce]
    names = {loop.var: Var(name=f"{loop.var}.start") for loop in free}
    asked = accumulate.mask is not None and variables(accumulate.mask) & {loop.var for loop in path if loop.reduce}
    mask = None if asked else accumulate.mask
    body: Block = tuple(
        Store(target=substitute(target, names), value=identity, mask=mask if mask is None else substitute(mask, names))
        for target, identity in zip(accumulate.targets, accumulate.reducer.identity)
    )
    for loop in reversed(free):
        body = (replace(loop, var=f"{loop.var}.start", extent=substitute(loop.extent, names), body=body),)
    return body
