"""Random legal schedules: steps drawn blindly and kept when the compiler takes them.

A `TriError` means "not legal here, draw another"; any other exception is a bug of the compiler. So the generator needs no
knowledge of what is legal, and reaches combinations that nobody wrote a test for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from random import Random

from tridsl.devices.intrinsics import INTRINSICS
from tridsl.devices.spec import DeviceSpec
from tridsl.diagnostics import TriError
from tridsl.ir.affine import evaluate_index
from tridsl.ir.expr import Load
from tridsl.ir.loop import Alloc, Copy, For, If, Kernel
from tridsl.ir.op import Tensor
from tridsl.ir.walk import walk
from tridsl.schedule.apply import apply_schedule
from tridsl.schedule.nest import axis_of, loops_of, stage_of, stages, trip_bound
from tridsl.schedule.steps import (
    At,
    Beside,
    Bind,
    BlockBy,
    Fuse,
    Grid,
    Inline,
    Intrin,
    Layout,
    Lines,
    Order,
    Pack,
    Pad,
    Parallel,
    Parts,
    Pipeline,
    Planes,
    Schedule,
    Slide,
    Split,
    Step,
    StoreIn,
    Tile,
    Unit,
    Unroll,
    Vector,
)

FACTORS = (1, 2, 3, 4, 4, 5, 7, 8, 8, 13, 16, 16, 32, 64)
MOST_COPIES = 64
"""Product of the unrolled iterations in one nest: more is legal and only costs the test's time."""
MOST_NODES = 3000
"""Nodes of a kernel beyond which no further step is drawn."""
MOST_WORK = 40_000
"""Statements that a schedule may execute beyond what the loops of the text do: computing a stage again and again is legal too."""


@dataclass(frozen=True, slots=True)
class _Nests:
    """What a step may name."""

    kernel: Kernel
    random: Random

    def stage(self) -> str | None:
        return self.pick(stages(self.kernel))

    def loop(self, stage: str) -> For | None:
        return self.pick(loops_of(self.kernel, stage))

    def pick(self, items: object) -> object:  # type: ignore[override]
        found = list(items)  # type: ignore[call-overload]
        return self.random.choice(found) if found else None

    def all_loops(self) -> Iterator[For]:
        for stage in stages(self.kernel):
            yield from loops_of(self.kernel, stage)

    def inputs(self) -> list[str]:
        return [p.name for p in self.kernel.params if isinstance(p, Tensor) and p.role == "input"]

    def reading(self, tensor: str) -> list[For]:
        """Loops in which `tensor` is read."""
        return [l for l in self.all_loops() if any(isinstance(n, Load) and n.tensor == tensor for s in l.body for n in walk(s))]


Draft = tuple[Step, ...]


def _tile(n: _Nests, stage: str, loops: list[str]) -> Draft:
    axes = n.random.sample(loops, min(len(loops), n.random.randint(1, 3)))
    return (Tile(stage=stage, sizes=tuple((a, n.random.choice(FACTORS)) for a in axes)),)


def _split(n: _Nests, stage: str, loops: list[str]) -> Draft:
    return (Split(stage=stage, axis=n.random.choice(loops), factor=n.random.choice(FACTORS)),)


def _parts(n: _Nests, stage: str, loops: list[str]) -> Draft:
    return (Parts(stage=stage, axis=n.random.choice(loops), factor=n.random.choice(FACTORS)),)


def _pad(n: _Nests, stage: str, loops: list[str]) -> Draft:
    return (Pad(stage=stage, axis=n.random.choice(loops), factor=n.random.choice(FACTORS), kept=n.random.random() < 0.5),)


def _fuse(n: _Nests, stage: str, loops: list[str]) -> Draft:
    at = n.random.randrange(len(loops))
    return (Fuse(stage=stage, outer=loops[at], inner=loops[(at + 1) % len(loops)]),)


def _order(n: _Nests, stage: str, loops: list[str]) -> Draft:
    if len(loops) < 2:
        return ()
    return (Order(stage=stage, axes=tuple(n.random.sample(loops, n.random.randint(2, len(loops))))),)


def _turns(n: _Nests, stage: str, loops: list[str]) -> Draft:
    return (Unroll(stage=stage, axis=n.random.choice(loops), factor=n.random.choice((2, 3, 4, 8))),)


def _one(kind: type[Parallel | Vector | Unroll]) -> Callable[[_Nests, str, list[str]], Draft]:
    def draft(n: _Nests, stage: str, loops: list[str]) -> Draft:
        return (kind(stage=stage, axis=n.random.choice(loops)),)

    return draft


def _split_and_vector(n: _Nests, stage: str, loops: list[str]) -> Draft:
    axis = n.random.choice(loops)
    factor = n.random.choice((4, 8, 16, 16, 32, 64))
    return Split(stage=stage, axis=axis, factor=factor), Vector(stage=stage, axis=f"{axis}.i")


def _split_and_unroll(n: _Nests, stage: str, loops: list[str]) -> Draft:
    axis = n.random.choice(loops)
    return Split(stage=stage, axis=axis, factor=n.random.choice((2, 3, 4, 6))), Unroll(stage=stage, axis=f"{axis}.i")


def _at(n: _Nests, stage: str, loops: list[str]) -> Draft:
    written = {stage} | {b.name for b in n.kernel.scratch if b.name == stage or b.name.startswith(f"{stage}.")}
    readers = [l for name in sorted(written) for l in n.reading(name) if stage_of(l.var) != stage]
    target = n.pick(readers if n.random.random() < 0.9 else n.all_loops())
    if not isinstance(target, For):
        return ()
    return (At(stage=stage, consumer=stage_of(target.var), axis=axis_of(target.var)),)


def _inline(n: _Nests, stage: str, loops: list[str]) -> Draft:
    return (Inline(stage=stage),)


def _store(n: _Nests, stage: str, loops: list[str]) -> Draft:
    local = [x.buffer.name for p in n.kernel.phases for x in walk(p) if isinstance(x, Alloc)]
    name = n.pick([*(stage_of(b) for b in local), stage])
    return (StoreIn(stage=str(name), space=n.random.choice(("reg", "l1", "l2", "stream"))),)


def _copied(n: _Nests) -> tuple[str, For] | None:
    tensor = n.pick(n.inputs())
    if not isinstance(tensor, str):
        return None
    loop = n.pick(n.reading(tensor))
    return (tensor, loop) if isinstance(loop, For) else None


def _slide(n: _Nests, stage: str, loops: list[str]) -> Draft:
    return tuple(Slide(stage=s.stage, consumer=s.consumer, axis=s.axis) for s in _at(n, stage, loops) if isinstance(s, At))


def _beside(n: _Nests, stage: str, loops: list[str]) -> Draft:
    loop = n.random.choice([l for p in n.kernel.phases for l in p.body if isinstance(l, For)] or [None])
    return () if loop is None else (Beside(stage=stage, other=stage_of(loop.var), axis=axis_of(loop.var)),)


def _pack(n: _Nests, stage: str, loops: list[str]) -> Draft:
    found = _copied(n)
    if found is None:
        return ()
    tensor, loop = found
    reader = stage_of(loop.var) if n.random.random() < 0.8 else None
    return (Pack(stage=tensor, at=axis_of(loop.var), reader=reader, rows=n.random.random() < 0.3),)


def _store_copy(n: _Nests, stage: str, loops: list[str]) -> Draft:
    found = _copied(n)
    if found is None:
        return ()
    tensor, loop = found
    space, buffers, pad = n.random.choice(("l1", "l2", "reg")), n.random.choice((1, 1, 2)), n.random.choice((0, 0, 1, 8))
    return (StoreIn(stage=tensor, space=space, at=axis_of(loop.var), buffers=buffers, pad=pad),)


def _store_shared(n: _Nests, stage: str, loops: list[str]) -> Draft:
    turned = n.random.choice((False, True))
    return tuple(StoreIn(stage=s.stage, space="shared", at=s.at, pad=s.pad, turned=turned) for s in _store_copy(n, stage, loops) if isinstance(s, StoreIn))


def _pipeline(n: _Nests, stage: str, loops: list[str]) -> Draft:
    return (Pipeline(stage=stage, depth=n.random.randint(1, 3)),)


def _prefetch(n: _Nests, stage: str, loops: list[str]) -> Draft:
    found = _copied(n)
    if found is None:
        return ()
    tensor, loop = found
    others = [None, *(axis_of(other.var) for other in loops_of(n.kernel, stage_of(loop.var)))]
    around, stagger = n.random.choice(others), n.random.choice(others)
    return (Pipeline(stage=tensor, depth=n.random.randint(1, 3), at=axis_of(loop.var), reader=stage_of(loop.var), around=around, stagger=stagger),)


def _intrin(n: _Nests, stage: str, loops: list[str]) -> Draft:
    """The shape that a matrix instruction wants: lanes outside, its `k` innermost."""
    row = INTRINSICS[n.random.choice([r for r in INTRINSICS if INTRINSICS[r].lanes])]
    reduced = [l for l in loops_of(n.kernel, stage) if l.reduce and l.kind == "serial"]
    free = [l for l in loops_of(n.kernel, stage) if not l.reduce and l.kind == "serial"]
    if not reduced or not free:
        return ()
    k, lanes = axis_of(n.random.choice(reduced).var), axis_of(n.random.choice(free).var)
    width = n.random.choice((4, 8, 16, 16, 32))
    steps: list[Step] = [Split(stage=stage, axis=k, factor=row.k), Split(stage=stage, axis=lanes, factor=width)]
    kept = [a for a in loops if a not in (k, lanes)]
    rest = [*kept, f"{k}.o", f"{lanes}.o"]
    n.random.shuffle(rest)
    steps += [Order(stage=stage, axes=(*rest, f"{lanes}.i", f"{k}.i")), Vector(stage=stage, axis=f"{lanes}.i")]
    return (*steps, Intrin(stage=stage, name=row.name))


def _bind(n: _Nests, stage: str, loops: list[str]) -> Draft:
    axes = n.random.sample(loops, min(len(loops), n.random.randint(1, 3)))
    names = ("group.x", "group.y", "lane.x", "lane.x", "lane.y", "subgroup")
    return (Bind(stage=stage, axes=tuple((a, n.random.choice(names)) for a in axes)),)


def _split_and_bind(n: _Nests, stage: str, loops: list[str]) -> Draft:
    axis = n.random.choice(loops)
    lane = n.random.choice(("lane.x", "lane.y"))
    split = Split(stage=stage, axis=axis, factor=n.random.choice((2, 4, 8, 32)))
    return (split, Bind(stage=stage, axes=((f"{axis}.o", "group.x"), (f"{axis}.i", lane))))


def _grid(n: _Nests, stage: str, loops: list[str]) -> Draft:
    return (Grid(stage=stage, axes=tuple((a, n.random.choice((1, 2, 4))) for a in n.random.sample(("columns", "rows"), 1))),)


Maker = Callable[[_Nests, str, list[str]], Draft]
_SHAPES: tuple[tuple[Maker, int], ...] = ((_tile, 2), (_split, 4), (_parts, 3), (_pad, 2), (_fuse, 2), (_order, 4), (_at, 6), (_slide, 3), (_beside, 2), (_inline, 1), (_store, 1))
_COPIES: tuple[tuple[Maker, int], ...] = ((_pack, 2), (_store_copy, 1), (_pipeline, 1), (_prefetch, 1))
VERBS: dict[str, tuple[tuple[Maker, int], ...]] = {
    "cpu": (
        *_SHAPES, *_COPIES, (_one(Parallel), 2), (_one(Vector), 3), (_one(Unroll), 1), (_turns, 1), (_split_and_vector, 3),
        (_split_and_unroll, 2), (_intrin, 2),
    ),
    "gpu": (*_SHAPES, *_COPIES, (_store_shared, 2), (_bind, 4), (_split_and_bind, 3), (_split_and_unroll, 1), (_grid, 1)),
}  # fmt: skip


def random_schedule(
    kernel: Kernel, spec: DeviceSpec, random: Random, sizes: Mapping[str, int], *, attempts: int = 24
) -> tuple[Schedule, Kernel]:
    """A legal schedule for `kernel` (which has no boundaries any more) on `spec`, and the scheduled kernel.

    Every draft is applied as a whole or not at all.
    """
    makers = VERBS[spec.kind]
    most = work(kernel, sizes) + MOST_WORK
    taken: list[Step] = []
    for _ in range(random.randint(1, attempts)):
        nests = _Nests(kernel, random)
        stage = nests.stage()
        if stage is None or sum(1 for p in kernel.phases for _ in walk(p)) > MOST_NODES:
            break
        loops = [axis_of(l.var) for l in loops_of(kernel, stage)]
        if not loops:
            continue
        maker = random.choices([m for m, _ in makers], [w for _, w in makers])[0]
        draft = maker(nests, stage, loops)
        try:
            found = apply_schedule(kernel, draft, spec)
        except TriError:
            continue
        if draft and _copies(found) <= MOST_COPIES and work(found, sizes) <= most:
            kernel = found
            taken += draft
    return tuple(taken), kernel


def work(kernel: Kernel, sizes: Mapping[str, int]) -> int:
    """About how many statements run: loops of varying length are taken as in the first iteration of those around them."""

    def count(block: tuple[object, ...], values: dict[str, int]) -> int:
        total = 0
        for statement in block:
            if isinstance(statement, For):
                try:
                    trips = evaluate_index(statement.extent, values)
                except (KeyError, TypeError):
                    trips = statement.bound or 1
                total += max(0, trips) * count(statement.body, {**values, statement.var: 0})
            elif isinstance(statement, If):
                total += count(statement.then, values) + count(statement.otherwise, values)
            elif isinstance(statement, Copy):
                total += prod(axis.bound or 1 for axis in statement.axes)
            else:
                total += 1
        return total

    return sum(count(p.body, dict(sizes)) for p in kernel.phases)


def _copies(kernel: Kernel) -> int:
    """The greatest number of copies of one statement that unrolling makes."""

    def most(block: tuple[object, ...]) -> int:
        best = 1
        for statement in block:
            if isinstance(statement, For):
                trips = trip_bound(statement)
                own = 1 if statement.kind != "unroll" else MOST_COPIES if trips is None else max(1, trips)
                best = max(best, own * most(statement.body))
        return best

    return max((most(p.body) for p in kernel.phases), default=1)


def schedule_text(steps: Schedule) -> str:
    """The lines of a schedule block that parse to `steps`."""
    return "\n".join(f"  {step.stage}.{_TEXTS[type(step)](step)}" for step in steps)


def _pairs(pairs: tuple[tuple[str, object], ...]) -> str:
    return ", ".join(f'{name}="{value}"' if isinstance(value, str) else f"{name}={value}" for name, value in pairs)


def _stored(s: StoreIn) -> str:
    options = "".join((
        f", at={s.at}" if s.at else "", f", buffers={s.buffers}" if s.buffers != 1 else "", f", pad={s.pad}" if s.pad else "", f", type={s.type}" if s.type else "",
        f", piece={s.piece}" if s.piece != 1 else "", f", kept={s.kept}" if s.kept else "", ", turned=true" if s.turned else "",
        f", strips={s.strips}" if s.strips else "",
    ))  # fmt: skip
    return f"store({s.space}{options})"


def _packed(s: Pack) -> str:
    reader = f", reader={s.reader}" if s.reader else ""
    place = "" if s.place is None else f", place={s.place}"
    group = f", interleave={s.interleave}" if s.interleave != 1 else ""
    return f"pack(at={s.at}{reader}{place}{f', type={s.type}' if s.type else ''}{group}{', rows=true' if s.rows else ''})"


_TEXTS: dict[type, Callable[[Step], str]] = {
    Tile: lambda s: f"tile({_pairs(s.sizes)})",
    Split: lambda s: f"split({s.axis}, {s.factor}{f', tail={s.tail}' if s.tail else ''})",
    Pad: lambda s: f"pad({s.axis}, {s.factor}{', kept=true' if s.kept else ''})",
    Parts: lambda s: f"parts({s.axis}, {s.factor}{f', into={s.into}' if s.into else ''}{f', inside={s.inside}' if s.inside else ''})",
    Fuse: lambda s: f"fuse({s.outer}, {s.inner})",
    Order: lambda s: f"order({', '.join(s.axes)})",
    Parallel: lambda s: f"parallel({s.axis})",
    Vector: lambda s: f"vector({s.axis})",
    Unroll: lambda s: f"unroll({s.axis}{f', {s.factor}' if s.factor else ''})",
    Bind: lambda s: f"bind({_pairs(s.axes)})",
    At: lambda s: f"at({s.consumer}, {s.axis})",
    Lines: lambda s: f"lines({s.consumer}, {s.axis})",
    Slide: lambda s: f"slide({s.consumer}, {s.axis})",
    Beside: lambda s: f"beside({s.other}, {s.axis})",
    Inline: lambda s: "inline()",
    StoreIn: _stored,
    Pack: _packed,
    Intrin: lambda s: f'intrin("{s.name}")',
    Pipeline: lambda s: f"pipeline({s.depth}{''.join(f', {n}={v}' for n in ('at', 'reader', 'around', 'stagger') if (v := getattr(s, n)))})",
    Grid: lambda s: f"grid({_pairs(s.axes)})",
    BlockBy: lambda s: f"block({s.axis}, {s.factor}{f', at={s.at}' if s.at else ''}{f', tail={s.tail}' if s.tail else ''})",
    Layout: lambda s: f"layout({', '.join(s.axes)})",
    Planes: lambda s: f"planes({s.parts})",
    Unit: lambda s: f"unit({s.axis})",
}  # type: ignore[dict-item]
