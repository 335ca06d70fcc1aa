"""The oracle for `Op`: NumPy over whole index grids, one stage after another.

Each axis is one dimension of the grid; expressions broadcast, so a value that does not mention an axis is computed once
along it. Grids are walked in pieces of at most `_GRID_POINTS`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tridsl.diagnostics import CheckFailed
from tridsl.dtypes import INDEX, NUMPY_TYPES
from tridsl.ir import scalar
from tridsl.ir.expr import Expr, Var
from tridsl.ir.op import Axis, Compact, Map, Op, Reduce, Reducer, Scalar, Scan, Stage, Target, Tensor, TopK
from tridsl.ir.op_values import Argument, Array, World

_GRID_POINTS = 1 << 21


def evaluate_op(
    op: Op,
    arguments: Mapping[str, Argument],
    sizes: Mapping[str, int],
    *,
    exact: bool = False,
    stages: bool = False,
) -> dict[str, Array]:
    """What `op` computes, by name of output and inout parameter; nothing passed in is changed.

    `arguments` are arrays of the parameters' NumPy types (`dtypes.NUMPY_TYPES`) and Python numbers; scalars with a
    default may be absent. A `..N` result is its capacity, zero past the run-time length `<name>.len`. `exact` computes
    every float stage in f64 from the arguments as they are and returns f64: the reference for tolerances. `stages` adds
    every intermediate. Raises ValueError where a contract of the op does not hold or an array has another shape or type
    than declared, CheckFailed (an IndexError) for a data-dependent index outside its tensor or a broken check.
    """
    world = World(op=op, exact=exact)
    world.scalars.update({name: (np.asarray(sizes[name], dtype=np.int64), INDEX) for name in op.sizes})
    for parameter in op.params:
        if isinstance(parameter, Scalar):
            world.bind_scalar(parameter, arguments)
    for contract in op.contracts:
        if not world.value(contract.condition, {}):
            raise ValueError(contract.message)
    for parameter in op.params:
        if isinstance(parameter, Tensor) and parameter.role != "output":
            world.bind_tensor(parameter, arguments)
    for stage in op.stages:
        with np.errstate(all="ignore"):
            _STAGES[type(stage)](world, stage)
    world.outside += [f"{op.name}: {check.message}" for check in op.checks if not world.value(check.condition, {})]
    if world.outside:
        raise CheckFailed(world.outside[0])
    wanted = {p.name for p in op.tensors if p.role != "input"} | {p.length for p in op.outputs if p.length}
    found = {n: a for n, a in world.tensors.items() if stages or n in wanted}
    return {
        n: a if exact and world.types[n].is_float else a.astype(NUMPY_TYPES[world.types[n]]) for n, a in found.items()
    }


def infer_sizes(op: Op, arguments: Mapping[str, Argument]) -> dict[str, int]:
    """The sizes that stand alone as a dimension of an array argument."""
    found: dict[str, int] = {}
    for parameter in op.params:
        if isinstance(parameter, Tensor) and parameter.name in arguments:
            for dimension, length in zip(parameter.shape, np.shape(arguments[parameter.name]), strict=True):
                if isinstance(dimension, Var):
                    found.setdefault(dimension.name, length)
    return found


# Grids.

Range = tuple[int, int]


def _pieces(ranges: Sequence[Range], points: int) -> Iterator[tuple[Range, ...]]:
    """Boxes of at most about `points` points that tile the box `ranges`, in row-major order."""
    lengths = [high - low for low, high in ranges]
    steps = list(lengths)
    for axis in range(len(steps)):
        rest = int(np.prod([max(1, s) for s in steps[axis + 1 :]], dtype=np.int64))
        steps[axis] = max(1, min(steps[axis], points // max(1, rest)))
        if rest <= points:
            break
    cuts = [
        [(s, min(s + step, high)) for s in range(low, high, step)]
        for (low, high), step in zip(ranges, (max(1, s) for s in steps))
    ]
    return itertools.product(*cuts)


def _grid(axes: Sequence[Axis], box: Sequence[Range], rank: int, first: int = 0) -> dict[str, Array]:
    """The index of each axis as an array that varies along its own dimension (`first` on) of `rank` dimensions."""
    return {
        axis.name: np.arange(low, high, dtype=np.int64).reshape([-1 if d == first + n else 1 for d in range(rank)])
        for n, (axis, (low, high)) in enumerate(zip(axes, box, strict=True))
    }


def _full(value: Array, shape: Sequence[int]) -> Array:
    return np.broadcast_to(value, tuple(shape))


def _lengths(box: Sequence[Range]) -> tuple[int, ...]:
    return tuple(high - low for low, high in box)


def _store(
    world: World, target: Target, axes: Sequence[Axis], bounds: Sequence[Range], box: Sequence[Range], value: Array
) -> None:
    """Writes `value` (one dimension per axis) over `box`: parameters at the index itself, intermediates from 0."""
    places = {
        a.name: (b if world.is_parameter(target.name) else (b[0] - full[0], b[1] - full[0]))
        for a, full, b in zip(axes, bounds, box, strict=True)
    }
    array = world.target(
        target.name, target.dtype, tuple(high - low for a, (low, high) in zip(axes, bounds) if a.name in target.axes)
    )
    value = value[tuple(slice(None) if a.name in target.axes else 0 for a in axes)]
    kept = [a.name for a in axes if a.name in target.axes]
    value = np.transpose(value, [kept.index(name) for name in target.axes])
    if not world.exact or not target.dtype.is_float:
        value = scalar.round_to(value, target.dtype) if target.dtype.is_float else scalar.narrow(value, target.dtype)
    array[tuple(slice(*places[name]) for name in target.axes)] = value


# Stages.


def _map(world: World, stage: Map) -> None:
    bounds = [world.bounds(a) for a in stage.axes]
    target = Target(name=stage.name, dtype=stage.dtype, axes=tuple(a.name for a in stage.axes))
    world.target(stage.name, stage.dtype, _lengths(bounds))
    for box in _pieces(bounds, _GRID_POINTS):
        value = _full(world.value(stage.value, _grid(stage.axes, box, len(box))), _lengths(box))
        _store(world, target, stage.axes, bounds, box, value)


def _lifted(
    world: World,
    reducer: Reducer,
    values: Sequence[Expr],
    variables: Mapping[str, Array],
    over: Sequence[int],
    rank: int,
) -> list[Array]:
    """Each state's lifted values with every reduced dimension at full length; other dimensions may still be 1."""
    out = []
    for expr in values:
        value = world.value(expr, variables)
        value = value.reshape((1,) * (rank - value.ndim) + value.shape)
        first = rank - len(over)
        out.append(np.broadcast_to(value, value.shape[:first] + tuple(over)))
    return out


def merge(world: World, reducer: Reducer, a: Sequence[Array], b: Sequence[Array]) -> list[Array]:
    """`reducer.merge` of two tuples of states."""
    if reducer.op is not None:
        return [_ufunc(reducer)(a[0], b[0])]
    variables = {f"a.{n}": v for n, v in zip(reducer.states, a)} | {f"b.{n}": v for n, v in zip(reducer.states, b)}
    return [world.value(e, variables) for e in reducer.merge]


def _ufunc(reducer: Reducer) -> Any:
    on_bool, on_rest = scalar.REDUCE[reducer.op or ""]
    return on_bool if reducer.dtypes[0].kind == "bool" else on_rest


def _identity(world: World, reducer: Reducer) -> list[Array]:
    return [scalar.constant(c, world.exact) for c in reducer.identity]


def _combine(world: World, stage: Reduce, states: list[Array], first: int) -> list[Array]:
    """All points of the dimensions from `first` on combined, in order; each state keeps the dimensions before `first`."""
    flat = [s.reshape(s.shape[:first] + (-1,)) for s in states]
    count = flat[0].shape[-1]
    if stage.reducer.op is not None:
        ufunc, value = _ufunc(stage.reducer), flat[0]
        if stage.ordered:
            return [ufunc.accumulate(value, axis=-1, dtype=value.dtype)[..., -1]]
        return [ufunc.reduce(value, axis=-1, dtype=value.dtype)]
    if stage.ordered:
        total = [s[..., 0] for s in flat]
        for point in range(1, count):
            total = merge(world, stage.reducer, total, [s[..., point] for s in flat])
        return total
    while count > 1:  # neighbours pairwise, so the order is kept
        even = count // 2 * 2
        merged = merge(world, stage.reducer, [s[..., 0:even:2] for s in flat], [s[..., 1:even:2] for s in flat])
        flat = merged if even == count else [_append_last(m, s) for m, s in zip(merged, flat)]
        count = flat[0].shape[-1]
    return [s[..., 0] for s in flat]


def _append_last(merged: Array, states: Array) -> Array:
    last = np.broadcast_to(states[..., -1:], merged.shape[:-1] + (1,))
    return np.concatenate([merged, last], axis=-1)


def _reduce(world: World, stage: Reduce) -> None:
    bounds, over = [world.bounds(a) for a in stage.axes], [world.bounds(a) for a in stage.over]
    rank, first = len(bounds) + len(over), len(bounds)
    for target in stage.targets:
        world.target(
            target.name, target.dtype, tuple(h - lo for a, (lo, h) in zip(stage.axes, bounds) if a.name in target.axes)
        )
    inner = max(1, int(np.prod(_lengths(over), dtype=np.int64)))
    for box in _pieces(bounds, max(1, _GRID_POINTS // inner)):
        outer = _grid(stage.axes, box, rank)
        total: list[Array] | None = None
        for part in _pieces(over, _GRID_POINTS):
            variables = outer | _grid(stage.over, part, rank, first)
            states = _combine(
                world, stage, _lifted(world, stage.reducer, stage.values, variables, _lengths(part), rank), first
            )
            total = states if total is None else merge(world, stage.reducer, total, states)
        for target, value in zip(stage.targets, total or _identity(world, stage.reducer), strict=True):
            shape = tuple(n if a.name in target.axes else 1 for a, n in zip(stage.axes, _lengths(box)))
            _store(world, target, stage.axes, bounds, box, _full(value, shape))


def _scan(world: World, stage: Scan) -> None:
    axes, bounds = (*stage.axes, stage.along), [world.bounds(a) for a in (*stage.axes, stage.along)]
    rank, length = len(axes), bounds[-1][1] - bounds[-1][0]
    lifted = _lifted(world, stage.reducer, stage.values, _grid(axes, bounds, rank), (length,), rank)
    shapes = [[n if a.name in t.axes else 1 for a, n in zip(axes, _lengths(bounds))] for t in stage.targets]
    values = [_full(value, shape) for value, shape in zip(lifted, shapes, strict=True)]
    running = _running(world, stage.reducer, values, length)
    for target, value, identity in zip(stage.targets, running, _identity(world, stage.reducer), strict=True):
        if stage.exclusive:
            value = np.concatenate([np.broadcast_to(identity, value.shape[:-1] + (1,)), value], axis=-1)[
                ..., :length
            ].astype(value.dtype)
        _store(world, target, axes, bounds, bounds, value)


def _running(world: World, reducer: Reducer, values: list[Array], length: int) -> list[Array]:
    if reducer.op is not None:
        return [_ufunc(reducer).accumulate(values[0], axis=-1, dtype=values[0].dtype)] if length else values
    step = 1
    while step < length:  # Hillis and Steele: each point takes in the run of `step` points that ends before its own
        merged = merge(world, reducer, [v[..., :-step] for v in values], [v[..., step:] for v in values])
        values = [
            np.concatenate([v[..., :step], np.broadcast_to(m, v[..., step:].shape)], axis=-1)
            for v, m in zip(values, merged)
        ]
        step *= 2
    return values


def _compact(world: World, stage: Compact) -> None:
    box = [world.bounds(stage.along)]
    grid, lengths = _grid((stage.along,), box, 1), _lengths(box)
    keep = _full(world.value(stage.keep, grid), lengths)
    kept = _full(world.value(stage.value, grid), lengths)[keep]
    array = world.target(stage.name, stage.dtype, lengths)
    array[: len(kept)] = scalar.round_to(kept, stage.dtype) if stage.dtype.is_float and not world.exact else kept
    world.tensors[stage.length] = np.asarray(len(kept), dtype=np.int64)
    world.types[stage.length] = INDEX


def _topk(world: World, stage: TopK) -> None:
    axes, bounds = (*stage.axes, stage.along), [world.bounds(a) for a in (*stage.axes, stage.along)]
    count = int(world.value(stage.k, {}))
    value = _full(world.value(stage.value, _grid(axes, bounds, len(axes))), _lengths(bounds))
    ranks = np.unique(value, return_inverse=True)[1].reshape(value.shape)  # NaN is one value, the greatest
    order = np.argsort(-ranks, axis=-1, kind="stable")[..., :count]
    found = {stage.values.name: np.take_along_axis(value, order, axis=-1), stage.indices.name: order}
    for target in (stage.values, stage.indices):
        array = world.target(target.name, target.dtype, found[target.name].shape)
        array[...] = (
            scalar.round_to(found[target.name], target.dtype)
            if target.dtype.is_float and not world.exact
            else found[target.name]
        )


_STAGES: dict[type[Stage], Callable[[World, Any], None]] = {
    Map: _map,
    Reduce: _reduce,
    Scan: _scan,
    Compact: _compact,
    TopK: _topk,
}
