"""The loop nest of a phase as numbers: for each innermost statement its loops with their trips, and what it reads and writes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from tridsl.devices.intrinsics import INTRINSICS
from tridsl.dtypes import BOOL, F32, INDEX, DType, compute_type
from tridsl.ir.affine import evaluate_index, normal_form
from tridsl.ir.expr import Binary, Boundary, Call, Cast, Const, Expr, Load, Node, Var
from tridsl.ir.loop import Accumulate, Alloc, Append, Block, Copy, For, If, Kernel, Mma, Ref, Store
from tridsl.ir.op import Tensor
from tridsl.ir.walk import children, variables, walk

LINE_BYTES = 64
CALL_WEIGHT, DIVISION_WEIGHT = 20.0, 8.0
"""Issue slots of a function of the library and of a division, of one vector."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loop:
    """`trips` on average (tails are shorter), `bound` whole trips where tails are masked or padded."""

    var: str
    trips: float
    bound: int
    kind: str
    reduce: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """A place read or written: bytes per element, and per axis its extent and the stride of each variable (None: any place)."""

    tensor: str
    space: str
    item: int
    shape: tuple[int, ...]
    steps: tuple[Mapping[str, int] | None, ...] = field(compare=False)
    index: tuple[Expr, ...] = ()
    stream: bool = False

    @property
    def variables(self) -> frozenset[str]:
        return frozenset(v for i in self.index for v in variables(i))

    def unit_stride(self, var: str) -> bool:
        """Whether `var` advances by one element in memory."""
        if not self.steps or self.steps[-1] is None:
            return False
        return self.steps[-1].get(var) == 1 and all(s is not None and var not in s for s in self.steps[:-1])

    def footprint(self, inside: tuple[Loop, ...]) -> float:
        """Bytes of the lines touched while `inside` run once."""
        elements = 1.0
        last = float(self.item)
        for n, (extent, steps) in enumerate(zip(self.shape, self.steps)):
            reach = 1.0
            for loop in inside:
                if steps is None:
                    reach = float(extent)
                elif loop.var in steps:
                    reach += abs(steps[loop.var]) * (loop.trips - 1)
            reach = max(1.0, min(reach, float(extent)))
            if n == len(self.shape) - 1:
                last = max(reach * self.item, LINE_BYTES if elements > 1 and extent * self.item >= LINE_BYTES else reach * self.item)
            else:
                elements *= reach
        return elements * last


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaf:
    """One innermost statement. `loops` from the outermost; `inner` are the trailing unrolled and vector loops (the register tile),
    `outer` the others. `weight`: issue slots of one vector's arithmetic."""

    stage: str
    loops: tuple[Loop, ...]
    dtype: DType
    weight: float
    reads: tuple[Access, ...]
    writes: tuple[Access, ...]
    accumulates: bool = False

    @property
    def inner(self) -> tuple[Loop, ...]:
        count = 0
        for loop in reversed(self.loops):
            if loop.kind not in ("vector", "unroll"):
                break
            count += 1
        return self.loops[len(self.loops) - count :]

    @property
    def outer(self) -> tuple[Loop, ...]:
        return self.loops[: len(self.loops) - len(self.inner)]

    @property
    def points(self) -> float:
        return math.prod(l.trips for l in self.loops)

    @property
    def chained(self) -> bool:
        """Whether the loop around the register tile is a reduction."""
        return bool(self.outer) and self.outer[-1].reduce

    @property
    def registered(self) -> bool:
        return bool(self.inner)

    def vectors(self, lanes: int) -> float:
        """Vector operations of one register tile, tails whole."""
        return math.prod(math.ceil(l.bound / lanes) if l.kind == "vector" else l.bound for l in self.inner)

    def columns(self, lanes: int) -> float:
        """Vectors in a row of the register tile."""
        return math.prod(math.ceil(l.bound / lanes) for l in self.inner if l.kind == "vector")

    def issues(self, access: Access, lanes: int) -> float:
        """Loads (or stores) of `access` in one register tile: what no loop of the tile changes is held."""
        count = 1.0
        for loop in self.inner:
            if loop.var in access.variables:
                vector = loop.kind == "vector" and access.unit_stride(loop.var)
                count *= math.ceil(loop.bound / lanes) if vector else loop.bound
        return 0.0 if access.space == "reg" else count

    def visits(self, access: Access) -> float:
        """How often a register tile's writes go to memory: once per run of the reductions directly around it."""
        kept = list(self.outer)
        while self.accumulates and kept and kept[-1].reduce:
            kept.pop()
        return 2 * math.prod(l.trips for l in kept) if self.accumulates else math.prod(l.trips for l in kept)


def leaves(body: Block, kernel: Kernel, sizes: Mapping[str, int]) -> tuple[Leaf, ...]:
    """The statements of a phase. Sizes that are not known count as 1024."""
    known = {**dict.fromkeys(kernel.sizes, 1024), **sizes}
    places: dict[str, tuple[str, int, tuple[int, ...]]] = {}
    for param in kernel.params:
        if isinstance(param, Tensor):
            places[param.name] = ("global", param.dtype.storage_bytes, tuple(_number(n, known) for n in param.shape))
    for buffer in kernel.scratch:
        places[buffer.name] = (buffer.space, buffer.dtype.storage_bytes, tuple(_number(n, known) for n in buffer.shape))
    return tuple(_visit(body, (), {}, known, places))


def _visit(
    body: Block, around: tuple[Loop, ...], ranges: dict[str, float], known: Mapping[str, int],
    places: dict[str, tuple[str, int, tuple[int, ...]]],
) -> Iterator[Leaf]:  # fmt: skip
    for statement in body:
        match statement:
            case Alloc(buffer=buffer):
                shape = tuple(_number(n, known, ranges) for n in buffer.shape)
                places[buffer.name] = (buffer.space, buffer.dtype.storage_bytes, shape)
            case For():
                trips = _trips(statement.extent, known, ranges)
                loop = Loop(
                    var=statement.var, trips=max(trips, 0.0), bound=statement.bound or max(1, math.ceil(trips)),
                    kind=statement.kind, reduce=statement.reduce or statement.carried,
                )  # fmt: skip
                yield from _visit(statement.body, (*around, loop), {**ranges, statement.var: trips}, known, places)
            case If():
                yield from _visit(statement.then, around, ranges, known, places)
                yield from _visit(statement.otherwise, around, ranges, known, places)
            case Copy():
                loops, inside = list(around), dict(ranges)
                for position, axis in enumerate(statement.axes):
                    inside[axis.var] = trips = _trips(axis.extent, known, inside)
                    kind = "vector" if position == len(statement.axes) - 1 else "serial"
                    loops.append(Loop(var=axis.var, trips=trips, bound=axis.bound or max(1, math.ceil(trips)), kind=kind))
                yield _leaf(statement.source.tensor, tuple(loops), places, [statement.source], [statement.target], 1.0, F32)
            case Store(target=target, value=value, stream=stream):
                weight = slots_of((value,), varying=_innermost(around))
                yield _leaf(target.tensor, around, places, _loads((value,)), [target], weight, value.dtype, stream=stream)
            case Accumulate(targets=targets, values=values, reducer=reducer, intrinsic=intrinsic):
                leaf = _leaf(
                    targets[0].tensor, around, places, _loads(values), list(targets), slots_of(values, reducer.merge, _innermost(around)),
                    reducer.dtypes[0], accumulates=True,
                )  # fmt: skip
                yield _in_one_instruction(leaf, INTRINSICS[intrinsic].k) if intrinsic else leaf
            case Append(tensor=tensor, count=count, value=value, keep=keep):
                yield _leaf(tensor, around, places, _loads((value, keep)), [count], slots_of((value, keep), varying=_innermost(around)), value.dtype)
            case Mma(target=target, a=a, b=b):
                yield _leaf(target.tensor, around, places, [a, b], [target], 1.0, compute_type(a.dtype), accumulates=True)


def _leaf(
    stage: str, loops: tuple[Loop, ...], places: Mapping[str, tuple[str, int, tuple[int, ...]]], reads: list[Load],
    writes: list[Ref], weight: float, dtype: DType, *, accumulates: bool = False, stream: bool = False,
) -> Leaf:  # fmt: skip
    return Leaf(
        stage=stage,
        loops=loops,
        dtype=F32 if dtype in (BOOL, INDEX) else dtype,
        weight=weight,
        reads=tuple(dict.fromkeys(_access(l, places, False) for l in reads)),
        writes=tuple(dict.fromkeys(_access(w, places, stream) for w in writes)),
        accumulates=accumulates,
    )


def _in_one_instruction(leaf: Leaf, depth: int) -> Leaf:
    """An instruction that adds `depth` products takes the innermost loop over them with it, and reads as many elements at once."""
    *others, last = leaf.loops
    if depth == 1 or not last.reduce or last.bound != depth:
        return replace(leaf, weight=1.0)

    def wider(access: Access) -> Access:
        if last.var not in access.variables:
            return access
        if access.steps[-1] == {last.var: 1} and access.shape[-1] == depth:  # packed for the instruction: the next axis is the unit
            return replace(access, item=access.item * depth, shape=access.shape[:-1], steps=access.steps[:-1], index=access.index[:-1])
        steps = tuple(None if s is None else {v: n for v, n in s.items() if v != last.var} for s in access.steps)
        return replace(access, item=access.item * depth, steps=steps)

    return replace(leaf, loops=tuple(others), weight=1.0, reads=tuple(map(wider, leaf.reads)))


def _loads(values: tuple[Expr, ...]) -> list[Load]:
    return [n for n in walk(values) if isinstance(n, Load)]


def _access(place: Load | Ref, places: Mapping[str, tuple[str, int, tuple[int, ...]]], stream: bool) -> Access:
    space, item, shape = places.get(place.tensor, ("global", 4, (1,) * len(place.index)))
    return Access(tensor=place.tensor, space=space, item=item, shape=shape, steps=tuple(map(_steps, place.index)), index=place.index, stream=stream)


def _steps(expression: Expr) -> dict[str, int] | None:
    """Variables and what they are multiplied with; None where the place depends on something else (a load, say).

    A clamp at the edge of a tensor changes few places, so it counts as what it clamps.
    """
    steps: dict[str, int] = {}
    for monomial, factor in normal_form(expression).terms:
        atom = monomial[0]
        if len(monomial) != 1:
            return None
        if isinstance(atom, Var):
            steps[atom.name] = steps.get(atom.name, 0) + factor
            continue
        if not isinstance(atom, Binary) or atom.op not in ("min", "max"):
            return None
        inside = [_steps(arm) for arm in (atom.a, atom.b) if variables(arm)]
        if len(inside) != 1 or inside[0] is None:
            return None
        for name, step in inside[0].items():
            steps[name] = steps.get(name, 0) + factor * step
    return steps


def slots_of(values: tuple[Expr, ...], merge: tuple[Expr, ...] = (), varying: frozenset[str] = frozenset()) -> float:
    """Issue slots of one vector of a statement: a product and the sum it goes into are one instruction. What mentions none of
    `varying` (the innermost loops; none: everything counts) is computed before them."""
    fused = any(isinstance(n, Binary) and n.op == "mul" for n in values) and len(merge) == 1
    return max(1.0, _weight(values, varying) + _weight(merge, frozenset()) - (1.0 if fused else 0.0))


def _innermost(around: tuple[Loop, ...]) -> frozenset[str]:
    """The trailing unrolled and vector loops, or the last one."""
    found: list[str] = []
    for loop in reversed(around):
        if loop.kind not in ("vector", "unroll"):
            break
        found.append(loop.var)
    return frozenset(found or [l.var for l in around[-1:]])


def _weight(values: tuple[Expr, ...], varying: frozenset[str]) -> float:
    """Issue slots. Addresses, and conditions on places (they hold for whole stretches), cost nothing."""
    total = 0.0
    stack: list[Node] = list(values)
    while stack:
        node = stack.pop()
        if varying and isinstance(node, Binary | Call | Cast) and not variables(node) & varying:
            continue
        if isinstance(node, Binary) and node.a.dtype == INDEX and not any(isinstance(n, Load) for n in walk(node)):
            continue
        match node:
            case Load() | Const() | Var() | Boundary():
                continue
            case Call():
                total += CALL_WEIGHT
            case Binary(op="div" | "floordiv" | "mod"):
                total += DIVISION_WEIGHT
            case Cast(a=a, dtype=dtype) if a.dtype == dtype:
                pass
            case _:
                total += 1.0
        stack.extend(children(node))
    return total


def operations(values: tuple[Expr, ...]) -> int:
    """Arithmetic operations as a peak counts them: a sum or product is one, a function is one, moving and converting is none."""
    found, stack = 0, list[Node](values)
    while stack:
        node = stack.pop()
        if isinstance(node, Binary) and node.a.dtype == INDEX and not any(isinstance(n, Load) for n in walk(node)):
            continue
        found += isinstance(node, Binary | Call)
        stack.extend(children(node))
    return found


def loaded(values: tuple[Expr, ...]) -> set[DType]:
    """Element types that are read."""
    return {node.dtype for value in values for node in walk(value) if isinstance(node, Load)}


def _number(expression: Expr, known: Mapping[str, int], ranges: Mapping[str, float] | None = None) -> int:
    """An extent at its largest: loop variables at 0."""
    try:
        return max(0, evaluate_index(expression, {**dict.fromkeys(ranges or {}, 0), **known}))
    except (KeyError, TypeError, ValueError):
        return 1024


def _trips(extent: Expr, known: Mapping[str, int], ranges: Mapping[str, float]) -> float:
    """Trips on average: those of the first iteration of the outer loops, and those of the last, once in a while."""
    mentioned = [v for v in variables(extent) if v in ranges]
    first = float(_number(extent, known, ranges))
    if not mentioned:
        return first
    last = {v: max(0, math.ceil(ranges[v]) - 1) for v in mentioned}
    try:
        tail = float(max(0, evaluate_index(extent, {**dict.fromkeys(ranges, 0), **known, **last})))
    except (KeyError, TypeError, ValueError):
        return first
    often = max(1.0, max(ranges[v] for v in mentioned))
    return first + (tail - first) / often
