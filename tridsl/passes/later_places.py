"""The place of an extreme, where places only grow: a later element wins only if it is better, so nobody compares places.

    for i: vector j: best[j], at[j] argmax= x[i, j], i        from -inf, highest; of equal values the lower place
    ->                                                        from -inf, 0; only a better value wins

(`passes.partials` does the same for lanes that share one result, which each lane begins where it stands.)
"""

from __future__ import annotations

from tridsl.check.reducers import BUILTINS
from tridsl.dtypes import BOOL
from tridsl.ir.affine import constant, normal_form
from tridsl.ir.expr import Binary, Const, Expr, Select, Unary, Var, index
from tridsl.ir.loop import Accumulate, Block, For, If, Kernel, Stmt
from tridsl.ir.op import Reducer
from tridsl.ir.walk import substitute, variables
from tridsl.passes.partials import POSITIONS, ordered
from tridsl.schedule.nest import trip_bound
from tridsl.structs import replace


def later_places(kernel: Kernel) -> Kernel:
    """Simplifies what is combined one after the other in the order of the places, from the first one on."""
    return replace(kernel, phases=tuple(replace(p, body=_block(p.body, ())) for p in kernel.phases))


def _block(block: Block, around: tuple[For, ...]) -> Block:
    return tuple(_statement(s, around) for s in block)


def _statement(statement: Stmt, around: tuple[For, ...]) -> Stmt:
    if isinstance(statement, For):
        return replace(statement, body=_block(statement.body, (*around, statement)))
    if isinstance(statement, If):
        return replace(statement, then=_block(statement.then, around), otherwise=_block(statement.otherwise, around))
    return _later(statement, around) if isinstance(statement, Accumulate) else statement


def _later(statement: Accumulate, around: tuple[For, ...]) -> Accumulate:
    reducer = statement.reducer
    if reducer.name not in POSITIONS or reducer != BUILTINS[reducer.name].make(reducer.dtypes[0]) or statement.mask is not None:
        return statement
    first = _first(statement.values[1], [loop for loop in around if loop.reduce], {loop.var: trip_bound(loop) for loop in around})
    if first is None or not statement.init:
        return statement
    wins, loses = POSITIONS[reducer.name]
    (value, place), (dtype, kind) = reducer.states, reducer.dtypes
    a, b = Var(name=f"a.{value}", dtype=dtype), Var(name=f"b.{value}", dtype=dtype)
    here, there = Var(name=f"a.{place}", dtype=kind), Var(name=f"b.{place}", dtype=kind)
    better: Expr = Binary(op=wins, a=b, b=a, dtype=BOOL)
    if dtype.is_float:  # a NaN beats every number but not an earlier NaN
        beaten = Unary(op="not", a=Binary(op=loses, a=b, b=a, dtype=BOOL), dtype=BOOL)
        better = Binary(op="and", a=beaten, b=ordered(a), dtype=BOOL)
    later = Reducer(
        name=f"later_{reducer.name}",
        states=reducer.states,
        dtypes=reducer.dtypes,
        identity=(reducer.identity[0], Const(value=first, dtype=kind)),
        merge=(Select(condition=better, a=b, b=a, dtype=dtype), Select(condition=better, a=there, b=here, dtype=kind)),
    )
    return replace(statement, reducer=later)


def _first(place: Expr, loops: list[For], bounds: dict[str, int | None]) -> int | None:
    """The first place, where each later point of the loops has a greater one."""
    form, passed = normal_form(place), 0
    moving = {loop.var for loop in loops}
    if not loops or (variables(place) & bounds.keys()) - moving or any(loop.kind not in ("serial", "unroll") for loop in loops):
        return None
    for loop in reversed(loops):
        step, bound = form.coefficient(loop.var), bounds[loop.var]
        if step is None or bound is None or step <= passed:
            return None
        passed += step * (bound - 1)
    return constant(substitute(place, {name: index(0) for name in moving}))
