"""Panels that come seldom ride along with those that come often, where a core has too few channels for all of them.

A channel's descriptors repeat one short order for ever, so streams that take turns in it (`turns`) have to come equally often.
"""

from __future__ import annotations

from dataclasses import replace

from tridsl.devices.spec import ArraySpec, DeviceSpec
from tridsl.dtypes import compute_type
from tridsl.ir.affine import evaluate_index
from tridsl.ir.expr import Cast, Load, Var, index
from tridsl.ir.loop import Alloc, Block, Buffer, Copy, CopyAxis, For, Kernel, Phase, Ref, Stmt, Store
from tridsl.ir.op import Tensor
from tridsl.ir.walk import substitute, variables, walk

KEPT = ".often"
"""Behind the name of the panel that comes again and again with the same content."""


def ride(kernel: Kernel, spec: DeviceSpec) -> Kernel:
    """
    before:  for j.o: copy b -> b.l1;  for k.o: copy x -> x.l1; copy W -> W.l1; sum += x.l1 * W.l1
                      y.l1 = sum + b.l1
    after:   for j.o: for k.o: copy b -> b.l1.often; copy x -> x.l1; copy W -> W.l1; b.l1 = b.l1.often; sum += x.l1 * W.l1
                      y.l1 = sum + b.l1

    Smallest panels first, until the channels suffice. Each rides with a panel that goes to the same cores: one that moves with the same of the
    array's loops. (Beside a fifo of lines none rides: its rows come in two loops.)
    """
    array = spec.array
    if array is None:
        return kernel
    tensors = {p.name for p in kernel.params if isinstance(p, Tensor)} | {b.name for b in kernel.scratch}
    return replace(kernel, phases=tuple(_riding(phase, tensors, array) for phase in kernel.phases))


def _riding(phase: Phase, tensors: set[str], array: ArraySpec) -> Phase:
    filled = [n.target.tensor for n in walk(phase) if isinstance(n, Copy)]
    if len(set(filled)) < len(filled):
        return phase
    grid = {n.var for n in walk(phase) if isinstance(n, For) and n.kind in ("column", "row")}
    while True:
        coming = [n for n in walk(phase) if isinstance(n, Copy) and n.target.tensor not in tensors]
        deepest = _innermost(phase.body, tensors)
        often = [c for c in coming if c in deepest]
        seldom = [c for c in coming if c not in deepest and any(_moving(c, grid) == _moving(o, grid) for o in often)]
        once = {_moving(c, grid) for c in seldom if _is_outermost(phase.body, c, tensors)}
        streams = len(often) + len(once) + sum(not _is_outermost(phase.body, c, tensors) for c in coming if c not in deepest)
        shared = len({_moving(c, grid) for c in often})
        turns = len({(_moving(c, grid), _depth(phase.body, c)) for c in coming})  # what goes the same way as often takes turns by itself
        if not seldom or min(streams, turns) <= array.core_in_channels or shared > array.core_in_channels:
            return phase
        phase = replace(phase, body=_moved(phase.body, min(seldom, key=_points), tensors))


def _moving(copy: Copy, grid: set[str]) -> frozenset[str]:
    """The loops over columns and rows that move what is copied."""
    return frozenset(name for i in copy.source.index for name in variables(i)) & grid


def _points(copy: Copy) -> int:
    total = 1
    for axis in copy.axes:
        total *= _whole(axis)
    return total


def _whole(axis: CopyAxis) -> int:
    """Points of the axis, with those that are filled."""
    return axis.bound if axis.bound is not None else evaluate_index(axis.extent, {})


def _copies_in(block: Block, tensors: set[str]) -> list[Copy]:
    return [s for s in block if isinstance(s, Copy) and s.target.tensor not in tensors]


def _staging(block: Block) -> For | None:
    """The loop of `block` in which tiles come."""
    return next((s for s in block if isinstance(s, For) and any(isinstance(n, Copy) for n in walk(s))), None)


def _innermost(block: Block, tensors: set[str]) -> list[Copy]:
    """Copies of the innermost loop in which tiles come."""
    inner = _staging(block)
    found = _innermost(inner.body, tensors) if inner is not None else []
    return found or _copies_in(block, tensors)


def _depth(block: Block, copy: Copy) -> int:
    """How many loops in which tiles come are around the copy."""
    inner = _staging(block)
    return 0 if copy in block or inner is None else 1 + _depth(inner.body, copy)


def _is_outermost(block: Block, copy: Copy, tensors: set[str]) -> bool:
    """Whether only loops over the array are around it: its panel comes once."""
    while (inner := _staging(block)) is not None and inner.kind in ("column", "row"):
        block = inner.body
    return copy in block


def _moved(block: Block, copy: Copy, tensors: set[str]) -> Block:
    buffer = next((s.buffer for s in block if isinstance(s, Alloc) and s.buffer.name == copy.target.tensor), None)
    inner = _staging(block)
    assert inner is not None
    if copy not in block or buffer is None:
        return tuple(replace(s, body=_moved(s.body, copy, tensors)) if s is inner else s for s in block)
    return tuple(replace(s, body=_joined(s.body, copy, buffer, tensors)) if s is inner else s for s in block if s != copy)


def _joined(block: Block, copy: Copy, buffer: Buffer, tensors: set[str]) -> Block:
    """The panel's copy among those of the innermost block, and behind them what keeps it for later."""
    inner = _staging(block)
    if inner is not None and _innermost(inner.body, tensors):
        return tuple(replace(s, body=_joined(s.body, copy, buffer, tensors)) if s is inner else s for s in block)
    name = f"{buffer.name}{KEPT}"
    depth = max(c.buffers for c in _copies_in(block, tensors))
    names = {axis.var: Var(name=f"{axis.var}.kept") for axis in copy.axes}
    again = {axis.var: Var(name=f"{axis.var}.often") for axis in copy.axes}
    often = replace(
        substitute(copy, again), axes=tuple(replace(a, var=f"{a.var}.often") for a in copy.axes), buffers=depth,
        target=Ref(tensor=name, index=substitute(copy.target.index, again)),
    )  # fmt: skip
    place = substitute(copy.target.index, names)
    value = Load(tensor=name, index=place, dtype=buffer.dtype)
    wide = compute_type(buffer.dtype)
    keep: Stmt = Store(target=Ref(tensor=buffer.name, index=place), value=value if wide == buffer.dtype else Cast(a=value, dtype=wide))
    for n, axis in enumerate(reversed(copy.axes)):
        kind = "vector" if n == 0 and place[-1] == names[axis.var] else "serial"
        keep = For(var=names[axis.var].name, extent=index(_whole(axis)), body=(keep,), kind=kind, bound=_whole(axis))  # type: ignore[arg-type]  # mypy widens the literals of `kind`
    last = max(n for n, s in enumerate(block) if isinstance(s, Copy) and s in _copies_in(block, tensors))
    return (*block[: last + 1], Alloc(buffer=replace(buffer, name=name)), often, keep, *block[last + 1 :])
