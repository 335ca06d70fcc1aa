"""A schedule is a tuple of these frozen steps. Text, the Python builder and the tuner all make the same tuple.

`stage` names the stage whose loop nest is meant; axes are the stage's own names, `i.o`/`i.i` after a split of `i`.
"""

from __future__ import annotations

from dataclasses import field
from typing import TypeAlias

from tridsl.diagnostics import Span
from tridsl.dtypes import DType
from tridsl.structs import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class StepBase:
    """`span`: where a text schedule wrote it (outside equality, so tuned and written schedules compare equal)."""

    stage: str
    span: Span | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile(StepBase):
    """`tile(i=12, j=32)`: split each axis, the outer loops first. Halide: tile."""

    sizes: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Split(StepBase):
    """`split(k, 256)`: loop `k` becomes `k.o` over `k.i`. Exo: divide_loop. `tail=shift`: the last 256 begin early enough to be whole, and
    some iterations run twice. Halide: TailStrategy::ShiftInwards."""

    axis: str
    factor: int
    tail: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pad(StepBase):
    """`pad(i, 128)`: loop `i` of a sum runs over whole multiples of 128; beyond the end zeros are read and nothing is written.
    `kept`: what is made there is written, too, where a stage that is no result has room for it."""

    axis: str
    factor: int
    kept: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts(StepBase):
    """`parts(i, 4096)`: what is reduced, scanned or compacted over `i` becomes independent parts, put together afterwards.
    `into=heap`: each part of a compaction goes to a place of its own, with its count, and a second pass puts them together; `into=ranks`:
    the greatest of each part of a top-k are found by counting what comes before each; `into=best`: parts whose best element is not
    among the greatest are left out; `into=block`: each part of a softmax is one block; `inside=q`: of all rows `q` together.
    Halide: rfactor."""

    axis: str
    factor: int
    into: str | None = None
    inside: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Fuse(StepBase):
    """`fuse(i, j)`: two directly nested loops become `i.j`. Exo: mult_loops."""

    outer: str
    inner: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Order(StepBase):
    """`order(j, i, k)`: the named loops in this nesting order. Halide: reorder."""

    axes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parallel(StepBase):
    axis: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Vector(StepBase):
    """`vector(j.i)`: lanes in lock step; `v.vector(slot)`: those of a top-k's list in a core's memory. Halide: vectorize."""

    axis: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Unroll(StepBase):
    """`unroll(i.i)`: every iteration a copy of the body; `unroll(k, 4)`: four in one turn of the loop. Halide: unroll."""

    axis: str
    factor: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Bind(StepBase):
    """`bind(r="group.x")`: loops to hardware axes."""

    axes: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class At(StepBase):
    """`e.at(y, r)`: compute stage `e` inside loop `r` of stage `y`, only the part needed there. Halide: compute_at."""

    consumer: str
    axis: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Slide(StepBase):
    """`gray.slide(edge, y)`: compute in each iteration of loop `y` of stage `edge` only the rows of `gray` that it reads and no
    earlier one has, into a ring of rows. Halide: a sliding window in folded storage."""

    consumer: str
    axis: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Lines(StepBase):
    """`gray.lines(edge, y)`: as `slide`, but each iteration of loop `y` makes exactly one row, with what lies around the tensor: the loop is
    the same from its first iteration to its last. Of a parameter the rows are copied, a fifo of lines. Halide: no such thing."""

    consumer: str
    axis: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside(StepBase):
    """`pos.beside(y, i)`: stage `pos` shares the outermost loop `i` of stage `y`, point by point. Halide: compute_with."""

    other: str
    axis: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Inline(StepBase):
    """`gx.inline()`: substitute the stage's value into its readers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreIn(StepBase):
    """`e.store(l1)`: the space of the stage's tensor, or, for a parameter, a staged copy in that space; `at` a loop of
    the stage that reads it. `type`: a wider integer type to keep the stage's values in, or the narrower one that sums are converted to.
    `piece`: iterations of `at` whose parts a memory in between (of an array's column) gets together; `kept`: the tensor that this memory keeps for
    the loops that read the same of it again; `strips`: the loop inside `at` that takes what moves with it a strip at a time. `turned`: a copy in
    `shared` lies there the other way round, columns as rows; `buffers` copies there take turns, so that one is filled while another is read. Halide: store_in."""

    space: str
    at: str | None = None
    buffers: int = 1
    pad: int = 0
    type: DType | None = None
    piece: int = 1
    kept: str | None = None
    turned: bool = False
    strips: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pack(StepBase):
    """`A.pack(at=i.o)`: copy the part of parameter (or local stage) `A` that the loops inside `at` read into one contiguous panel, laid
    out in the order in which those loops walk it; `reader` is the stage that reads it (when several do), `type` that of the panel's
    elements, where it is another, `place` the number of the access, when it reads at several places. `interleave=4`: elements of the innermost
    axis that stay together while the axis before it walks on. `rows=true`: its axes lie as the tensor's. TVM: cache_read."""

    at: str
    reader: str | None = None
    type: DType | None = None
    place: int | None = None
    interleave: int = 1
    rows: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Planes(StepBase):
    """`y.sum.planes(4)`: a sum of products with packed trits works on the bytes that hold them, with `parts` partial sums of each result."""

    parts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit(StepBase):
    """`x.unit(n)`: parameter `x`, and what is made of it, has an axis of length 1 in front."""

    axis: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Intrin(StepBase):
    """`intrin("vpdpbusd")`: the innermost loops become a matrix instruction. Halide/TVM: tensorize."""

    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Pipeline(StepBase):
    """`pipeline(1)`: staged copies of the innermost staged loop are fetched `depth` iterations ahead. On a parameter,
    `x.pipeline(1, at=r)`: what iteration `r + depth` will read is prefetched while iteration `r` computes. `around`: behind the last one,
    what the first ones of that outer loop's next iteration will read. `stagger`: each iteration of that inner loop one further ahead."""

    depth: int
    at: str | None = None
    reader: str | None = None
    around: str | None = None
    stagger: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockBy(StepBase):
    """`block(t, 64)`: a monoid merges 64 elements of its reduced axis at a time; `at`: inside that loop of its own, each iteration of which
    begins anew; `tail=shift`: the last block is whole, and what it has again is hidden. FlashAttention's block of keys."""

    axis: str
    factor: int
    at: str | None = None
    tail: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout(StepBase):
    """`w.layout(t, q)`: how the stage's tensor lies in memory, the innermost axis last. Halide: reorder_storage."""

    axes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid(StepBase):
    """`grid(columns=4, rows=4)`: the outermost loops go to the device array."""

    axes: tuple[tuple[str, int], ...]


Step: TypeAlias = (
    Tile | Split | Pad | Parts | Fuse | Order | Parallel | Vector | Unroll | Bind | At | Slide | Lines | Beside | Inline | StoreIn | Pack
    | Planes | Unit | Intrin | Pipeline | BlockBy | Layout | Grid
)
Schedule: TypeAlias = tuple[Step, ...]
