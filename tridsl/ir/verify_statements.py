"""Rules for statements of a kernel."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tridsl.dtypes import FLIPPED, INDEX, compute_type
from tridsl.ir import loop
from tridsl.ir.expr import Const, Load
from tridsl.ir.print_expressions import print_expr
from tridsl.ir.verify_rules import Rule, Scope, condition, place
from tridsl.ir.walk import variables, walk

_CONSTANT_SPACES = ("reg", "shared", "fragment")
_HARDWARE = ("group", "subgroup", "lane", "column", "row")


def _target(ref: loop.Ref, scope: Scope) -> Iterator[str]:
    yield from place(ref.tensor, ref.index, scope)
    declared = scope.tensors.get(ref.tensor)
    if declared is not None and not declared.writable:
        yield f"the input {ref.tensor} is written"


def _for(s: loop.For, scope: Scope) -> Iterator[str]:
    if s.extent.dtype != INDEX:
        yield f"the extent of {s.var} is {s.extent.dtype}"
    if s.bound is not None and (s.bound < 0 or (isinstance(s.extent, Const) and s.extent.value > s.bound)):
        yield f"{s.var} runs to {print_expr(s.extent)}, past its bound {s.bound}"
    if s.binding is not None and s.kind not in _HARDWARE:
        yield f"the {s.kind} loop {s.var} is bound to {s.binding}"
    outer = scope.loops[:-1]  # the scope is that of the body
    if s.kind == "vector" and any(f.kind == "vector" for f in outer):
        yield f"the vector loop {s.var} stands inside another"
    if s.kind == "parallel" and any(f.kind in ("vector", "lane", "subgroup") for f in outer):
        yield f"the parallel loop {s.var} stands inside lanes"


def _alloc(s: loop.Alloc, scope: Scope) -> Iterator[str]:
    b = s.buffer
    if b.name in scope.tensors:
        yield f"{b.name} is declared twice"
    if any(d.dtype != INDEX for d in b.shape):
        yield f"an extent of {b.name} is not i64"
    if b.space in _CONSTANT_SPACES and not all(isinstance(d, Const) for d in b.shape):
        yield f"{b.name} in {b.space} has an extent that is not constant"
    if b.padded and len(b.padded) != len(b.shape):
        yield f"{b.name} has {len(b.shape)} axes and {len(b.padded)} paddings"
    if b.align <= 0 or b.align & (b.align - 1):
        yield f"{b.name} is aligned to {b.align}"


def _store(s: loop.Store, scope: Scope) -> Iterator[str]:
    yield from _target(s.target, scope)
    yield from condition(s.mask, "mask of a store")
    declared = scope.tensors.get(s.target.tensor)
    if declared is not None and compute_type(declared.dtype) != s.value.dtype:
        yield f"{s.target.tensor} of {declared.dtype} is given the {s.value.dtype} {print_expr(s.value)}"


def _accumulate(s: loop.Accumulate, scope: Scope) -> Iterator[str]:
    yield from condition(s.mask, "mask of an accumulation")
    if not len(s.targets) == len(s.values) == len(s.reducer.states):
        yield f"{s.reducer.name} has {len(s.reducer.states)} states, {len(s.targets)} targets and {len(s.values)} values"
        return
    for target, value, dtype in zip(s.targets, s.values, s.reducer.dtypes):
        yield from _target(target, scope)
        if value.dtype != dtype:
            yield f"{s.reducer.name} combines {dtype} and is given the {value.dtype} {print_expr(value)}"
        declared = scope.tensors.get(target.tensor)
        if declared is not None and compute_type(declared.dtype) != dtype:
            yield f"{s.reducer.name} combines {dtype} in {target.tensor} of {declared.dtype}"


def _reduced_loops(s: loop.Accumulate, scope: Scope) -> Iterator[str]:
    """A loop repeats an accumulation into one place only when it says so."""
    for target in s.targets:
        declared = scope.tensors.get(target.tensor)
        mentioned = variables(target.index)
        for around in scope.loops[declared.loops if declared else 0 :]:
            most = around.extent.value if isinstance(around.extent, Const) else around.bound
            once = most is not None and most <= 1
            if around.var in mentioned and around.reduce and not _combines(around):
                yield f"{target.tensor} is indexed with {around.var}, which is marked as reduced"
            repeats = around.var not in mentioned and not (around.reduce or around.carried or once or _starts(around, target) or _chosen(around, s))
            if repeats and around.kind not in ("lane", "subgroup"):
                yield f"{around.var} repeats an accumulation into {target.tensor} and is neither reduced nor carried"


def _combines(around: loop.For) -> bool:
    """Whether a reduced loop combines into a place that does not move with it (beside targets of its own in each iteration)."""
    return any(around.var not in variables(t.index) for n in walk(around.body) if isinstance(n, loop.Accumulate) for t in n.targets)


def _chosen(around: loop.For, s: loop.Accumulate) -> bool:
    """Whether the loop's variable decides in which iterations the statement runs (the body of its own that a last tile has)."""
    asked = (n for n in walk(around.body) if isinstance(n, loop.If) and around.var in variables(n.condition))
    return any(m is s for n in asked for m in walk((*n.then, *n.otherwise)))


def _starts(around: loop.For, target: loop.Ref) -> bool:
    """Whether each iteration gives the target a first value (storage that was made in front of the loop)."""
    return any(isinstance(n, loop.Store) and n.target.tensor == target.tensor for n in walk(around.body))


def _prefetch(s: loop.Prefetch, scope: Scope) -> Iterator[str]:
    declared = scope.tensors.get(s.tensor)
    if declared is None:
        yield f"{s.tensor} is used where it is not declared"
    elif declared.rank != len(s.index):
        yield f"{s.tensor} has {declared.rank} axes and is prefetched with {len(s.index)} indices"


def _append(s: loop.Append, scope: Scope) -> Iterator[str]:
    yield from _target(s.count, scope)
    yield from condition(s.keep, "condition of an append")
    count = scope.tensors.get(s.count.tensor)
    if count is not None and count.dtype != INDEX:
        yield f"the count {s.count.tensor} is {count.dtype}"
    if len(s.tensors) != len(s.values) or not s.tensors:
        yield f"an append of {len(s.values)} values to {len(s.tensors)} tensors"
    for tensor, value in zip(s.tensors, s.values):
        declared = scope.tensors.get(tensor)
        if declared is None:
            yield f"{tensor} is used where it is not declared"
            continue
        if declared.rank != 1:
            yield f"{tensor} is appended to and has {declared.rank} axes"
        if not declared.writable:
            yield f"the input {tensor} is written"
        if compute_type(declared.dtype) != value.dtype:
            yield f"{tensor} of {declared.dtype} is given the {value.dtype} {print_expr(value)}"


def _copy(s: loop.Copy, scope: Scope) -> Iterator[str]:
    yield from _target(s.target, scope)
    declared = scope.tensors.get(s.target.tensor)
    for axis in s.axes:
        if axis.extent.dtype != INDEX:
            yield f"the extent of {axis.var} is {axis.extent.dtype}"
    if declared is not None:
        source = FLIPPED.get(s.source.dtype) if s.flipped else s.source.dtype
        if source is None or compute_type(declared.dtype) != compute_type(source):
            yield f"{s.target.tensor} of {declared.dtype} is a copy of {s.source.dtype}"
        if s.pad is not None and s.pad.dtype not in (declared.dtype, compute_type(declared.dtype)) and not s.flipped:
            yield f"{s.target.tensor} of {declared.dtype} is padded with the {s.pad.dtype} {print_expr(s.pad)}"
    for count, name in ((s.buffers, "buffers"), (s.panels, "panels")):
        if count < 1:
            yield f"the copy to {s.target.tensor} has {count} {name}"


def _mma(s: loop.Mma, scope: Scope) -> Iterator[str]:
    yield from _target(s.target, scope)
    if any(extent < 1 for _, extent in s.axes):
        yield f"{s.intrinsic} has an empty axis"


def _if(s: loop.If, scope: Scope) -> Iterator[str]:
    yield from condition(s.condition, "condition")


def _check(s: loop.Check, scope: Scope) -> Iterator[str]:
    yield from condition(s.condition, "check")
    if not 0 <= s.number < scope.messages:
        yield f"check {s.number} has no message"


def _barrier(s: loop.Barrier, scope: Scope) -> Iterator[str]:
    if not any(f.kind in ("group", "subgroup", "lane") for f in scope.loops):
        yield "a barrier stands outside a group"


STATEMENT_RULES: Mapping[type, tuple[Rule, ...]] = {
    loop.For: (_for,), loop.Alloc: (_alloc,), loop.Store: (_store,), loop.Accumulate: (_accumulate, _reduced_loops),
    loop.Append: (_append,), loop.Copy: (_copy,), loop.Mma: (_mma,), loop.If: (_if,), loop.Check: (_check,), loop.Barrier: (_barrier,), loop.Prefetch: (_prefetch,),
}  # fmt: skip


# Rules of single stages.


def serial_only(s: loop.For, scope: Scope) -> Iterator[str]:
    if s.kind != "serial":
        yield f"the naive loop {s.var} is {s.kind}"


def no_boundary(e: Load, scope: Scope) -> Iterator[str]:
    if e.boundary is not None:
        yield f"{e.tensor} still has the boundary '{e.boundary.mode}'"


def parallel_not_reduced(s: loop.For, scope: Scope) -> Iterator[str]:
    if s.reduce and s.kind in ("parallel", "group", "column", "row"):
        yield f"the {s.kind} loop {s.var} is reduced over"


def no_init(s: loop.Accumulate, scope: Scope) -> Iterator[str]:
    if s.init:
        yield f"the accumulation into {s.targets[0].tensor} still starts from its identity implicitly"
