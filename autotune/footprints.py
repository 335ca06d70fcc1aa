"""The loop nest of a phase as numbers: for each innermost statement its loops with their trips, and what it reads and writes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import field

from tridsl.devices.intrinsics import INTRINSICS
from tridsl.dtypes import BOOL, F32, INDEX, DType, compute_type
from tridsl.ir.affine import evaluate_index, normal_form
from tridsl.ir.expr import Binary, Boundary, Call, Cast, Const, Expr, Lead, Load, Node, Var
from tridsl.ir.loop import Accumulate, Alloc, Append, Block, Copy, For, If, Kernel, Mma, Ref, Store
from tridsl.ir.op import Tensor
from tridsl.ir.walk import children, variables, walk
from tridsl.structs import dataclass, replace

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
    `outer` the others. `terms`: the arithmetic of one vector."""

    stage: str
    loops: tuple[Loop, ...]
    dtype: DType
    terms: tuple[Term, ...]
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

    def slots(self, lanes: int) -> float:
        """Issue slots of the arithmetic of one register tile: what depends on some of its loops only is computed once for the others, what
        depends on none of them (or of the innermost loop, where there is no tile) before it."""
        innermost = frozenset(l.var for l in self.inner or self.loops[-1:])
        total = 0.0
        for cost, over in self.terms:
            if over is None:
                total += cost * self.vectors(lanes)
            elif over & innermost:
                total += cost * math.prod(
                    math.ceil(l.bound / lanes) if l.kind == "vector" else l.bound for l in self.inner if l.var in over
                )
        return max(total, self.vectors(lanes))

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
                yield _leaf(statement.source.tensor, tuple(loops), places, [statement.source], [statement.target], (), F32)
            case Store(target=target, value=value, stream=stream):
                yield _leaf(target.tensor, around, places, _loads((value,)), [target], terms_of((value,)), value.dtype, stream=stream)
            case Accumulate(targets=targets, values=values, reducer=reducer, intrinsic=intrinsic):
                leaf = _leaf(
                    targets[0].tensor, around, places, _loads(values), list(targets), terms_of(values, reducer.merge),
                    reducer.dtypes[0], accumulates=True,
                )  # fmt: skip
                yield _in_one_instruction(leaf, INTRINSICS[intrinsic].k) if intrinsic else leaf
            case Append(tensors=tensors, count=count, values=values, keep=keep):
                yield _leaf(tensors[0], around, places, _loads((*values, keep)), [count], terms_of((*values, keep)), values[0].dtype)
            case Mma(target=target, a=a, b=b):
                yield _leaf(target.tensor, around, places, _loads((a, b)), [target], (), compute_type(a.dtype), accumulates=True)


def _leaf(
    stage: str, loops: tuple[Loop, ...], places: Mapping[str, tuple[str, int, tuple[int, ...]]], reads: list[Load],
    writes: list[Ref], terms: tuple[Term, ...], dtype: DType, *, accumulates: bool = False, stream: bool = False,
) -> Leaf:  # fmt: skip
    return Leaf(
        stage=stage,
        loops=loops,
        dtype=F32 if dtype in (BOOL, INDEX) else dtype,
        terms=terms,
        reads=tuple(dict.fromkeys(_access(l, places, False) for l in reads)),
        writes=tuple(dict.fromkeys(_access(w, places, stream) for w in writes)),
        accumulates=accumulates,
    )


def _in_one_instruction(leaf: Leaf, depth: int) -> Leaf:
    """An instruction that adds `depth` products takes the innermost loop over them with it, and reads as many elements at once."""
    *others, last = leaf.loops
    if depth == 1 or not last.reduce or last.bound != depth:
        return replace(leaf, terms=())

    def wider(access: Access) -> Access:
        if last.var not in access.variables:
            return access
        if access.steps[-1] == {last.var: 1} and access.shape[-1] == depth:  # packed for the instruction: the next axis is the unit
            return replace(access, item=access.item * depth, shape=access.shape[:-1], steps=access.steps[:-1], index=access.index[:-1])
        steps = tuple(None if s is None else {v: n for v, n in s.items() if v != last.var} for s in access.steps)
        return replace(access, item=access.item * depth, steps=steps)

    return replace(leaf, loops=tuple(others), terms=(), reads=tuple(map(wider, leaf.reads)))


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


Term = tuple[float, frozenset[str] | None]
"""Issue slots of one vector, and the variables they are computed for; None: for every element of the tile."""


def terms_of(values: tuple[Expr, ...], merge: tuple[Expr, ...] = ()) -> tuple[Term, ...]:
    """The arithmetic of a statement, equal parts together. A product and the sum it goes into are one instruction. Addresses, and
    conditions on places (they hold for whole stretches), cost nothing."""
    found: dict[frozenset[str] | None, float] = {}
    stack: list[Node] = list(values)
    seen: set[Node] = set()
    while stack:
        node = stack.pop()
        if node in seen or (isinstance(node, Binary) and node.a.dtype == INDEX and not any(isinstance(n, Load) for n in walk(node))):
            continue
        seen.add(node)
        stack.extend(children(node))
        cost = _slots(node)
        if cost:
            over = variables(node)
            found[over] = found.get(over, 0.0) + cost
    merged = sum(_slots(n) for value in merge for n in walk(value))
    if merged:
        fused = len(merge) == 1 and any(isinstance(n, Binary) and n.op == "mul" for n in values)
        found[None] = max(0.0, merged - (1.0 if fused else 0.0))
    return tuple((cost, over) for over, cost in found.items())


def _slots(node: Node) -> float:
    match node:
        case Load() | Const() | Var() | Boundary() | Lead():
            return 0.0
        case Call():
            return CALL_WEIGHT
        case Binary(op="div" | "floordiv" | "mod"):
            return DIVISION_WEIGHT
        case Cast(a=a, dtype=dtype) if a.dtype == dtype:
            return 0.0
    return 1.0


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
