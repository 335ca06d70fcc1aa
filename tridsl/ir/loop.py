"""`Kernel`: how it is computed. One loop language for three machines.

A kernel is a tuple of phases with device-wide synchronisation between them. Loops run from 0 to `extent`; a loop variable's
`Var.name` is `For.var`, unique in the kernel and written `<stage>:<axis>` (`C:i.o`). `bound` is a constant upper bound of
`extent` where one is known: the tail of a split is `extent = min(12, M - i.o*12)`, `bound = 12`, so a kernel is right for any
size at every moment, and whoever vectorises turns `extent < bound` into a mask.

`Copy` and `Mma` are whole loop nests in one node, with a meaning in terms of simple statements; a backend that has
nothing better expands them (`passes.expand_copies`, `passes.expand_mma`).
"""

from __future__ import annotations

from typing import Literal, TypeAlias

from tridsl.dtypes import DType, compute_type
from tridsl.ir.expr import Cast, Expr, Load, Node
from tridsl.ir.op import Param, Reducer
from tridsl.structs import dataclass

LoopKind = Literal["serial", "parallel", "vector", "unroll", "group", "subgroup", "lane", "column", "row"]
Space = Literal["global", "l2", "l1", "reg", "shared", "fragment", "memtile"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Buffer(Node):
    """Storage made by `Alloc`, row-major over `shape`; undefined until written.

    `reg`: one per innermost execution context (thread; per lane when indexed by a vector or lane variable). `shape` of `reg`
    and `shared` buffers is constant. `padded[d]`: axis d was rounded up to its loops' bounds, so reading or writing past the
    valid part is harmless.
    """

    name: str
    dtype: DType
    shape: tuple[Expr, ...]
    space: Space
    align: int = 64
    padded: tuple[bool, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Ref(Node):
    """A place: `tensor[index]`."""

    tensor: str
    index: tuple[Expr, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class For(Node):
    """`for var < extent: body`.

    kinds: serial; parallel (CPU threads); vector (lanes in lock step, no order between them except where a statement says
    so); unroll; group/subgroup/lane (GPU, `binding` = `group.x`, `lane.x`, …); column/row (NPU).
    `reduce`: the variable is reduced over by the stage's `Accumulate`. `carried`: iterations depend on earlier ones and keep
    their order (scan, compaction, top-k, ordered reduction).
    `unrolled`: iterations of a serial loop that one turn of it should make; a hint, whatever the extent is.
    """

    var: str
    extent: Expr
    body: Block
    kind: LoopKind = "serial"
    bound: int | None = None
    binding: str | None = None
    reduce: bool = False
    carried: bool = False
    unrolled: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Alloc(Node):
    """Storage for the rest of the enclosing block."""

    buffer: Buffer


@dataclass(frozen=True, slots=True, kw_only=True)
class Store(Node):
    """`target = value`. `value` has the compute type of the tensor's dtype; rounding to the dtype happens here.

    `stream`: nobody reads the element again soon, so it may go around the caches (a hint, never a change of meaning). `again`: other
    iterations of parallel loops may store the element, too, with the very same value.
    """

    target: Ref
    value: Expr
    mask: Expr | None = None
    stream: bool = False
    again: bool = False

    def copied(self, dtype: DType) -> Load | None:
        """The element that is stored as it is, where the target holds `dtype`: its conversions there and back change nothing."""
        source = self.value.a if isinstance(self.value, Cast) else self.value
        wide = isinstance(source, Load) and source.dtype == dtype and self.value.dtype in (dtype, compute_type(dtype))
        return source if wide and isinstance(source, Load) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Accumulate(Node):
    """`targets[s] = reducer.merge[s](a = targets, b = values)`, all read before any is written.

    `init`: the targets start from the reducer's identity, for every element the loops cover, before the outermost `reduce`
    loop around this statement (also when that loop runs zero times); `passes.place_init` makes it explicit.
    Inside a vector or lane loop whose variable no target mentions it is a reduction across the lanes. `intrinsic`: the
    innermost loops are to become this matrix instruction (`passes.form_mma`).
    """

    targets: tuple[Ref, ...]
    reducer: Reducer
    values: tuple[Expr, ...]
    init: bool = False
    mask: Expr | None = None
    intrinsic: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Append(Node):
    """If `keep`: `tensors[n][count] = values[n]` for every n; `count += 1`. In a vector loop the lanes append in lane order
    (compress).

    `count` is a 0-d i64 place, stored before the loop. What lies past the count is unspecified up to `limit` (None: the end of
    the tensor); from there on it belongs to somebody else.
    """

    tensors: tuple[str, ...]
    count: Ref
    values: tuple[Expr, ...]
    keep: Expr
    limit: Expr | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyAxis(Node):
    """Variable `var` of a copy: points `0..extent` are copied, `extent..bound` (if `bound` is set) are filled with the pad."""

    var: str
    extent: Expr
    bound: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy(Node):
    """For all points of `axes`: `target = source` (or `pad` outside the extents; no pad: nothing is written there).

    The index expressions of `target` and `source` mention the axes' variables: that is the layout. `cooperative`: all
    lanes of the group share the work and a barrier follows. `buffers` > 1: staged ahead of use (double buffering). `panels` > 1: so
    many copies in the target's memory take turns.
    `source.mask`/`other` express what lies outside the source tensor, or `source.boundary` (a panel with borders). `transposed`: the axes `t, s` (or `t, s, g`: groups of g that
    stay together) are constant, whole and few; the source is contiguous along s, the target along t, so the elements change their places
    in registers. `piece` > 1: a memory in between (of an array's column) is given what so many iterations copy at once; `kept`: it keeps
    all that the loops inside those that read the same again copy, until those are done; `strips`: it is given what all
    iterations of the innermost loop copy at once. `flipped`: the sign bits of signed elements (and of the pad) are flipped, which makes each the unsigned number that is
    greater by half the range.
    """

    axes: tuple[CopyAxis, ...]
    target: Ref
    source: Load
    pad: Expr | None = None
    cooperative: bool = False
    buffers: int = 1
    panels: int = 1
    piece: int = 1
    kept: bool = False
    strips: bool = False
    transposed: bool = False
    flipped: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Mma(Node):
    """For all points m, n, k of the intrinsic's shape: `target += cast(a) * cast(b)`, in the accumulator's type.

    `intrinsic` is a row of `devices.intrinsics`; the operands' index expressions mention `axes` (variable, constant extent). An
    operand is an element, or what a codec makes of the bytes at one place of a few arrays: `W[…] >> 4 & 3`.
    """

    intrinsic: str
    axes: tuple[tuple[str, int], ...]
    target: Ref
    a: Expr
    b: Expr


@dataclass(frozen=True, slots=True, kw_only=True)
class If(Node):
    condition: Expr
    then: Block
    otherwise: Block = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Barrier(Node):
    """All lanes of the group have done what stands before, and see it."""

    scope: Literal["group", "subgroup"] = "group"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check(Node):
    """Where `condition` is false the call fails after the kernel with message number `number` of `Kernel.messages`."""

    condition: Expr
    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Prefetch(Node):
    """A hint: `tensor[index]` will be read soon. Never fails, wherever the index points; a device may ignore it."""

    tensor: str
    index: tuple[Expr, ...]


Stmt: TypeAlias = For | Alloc | Store | Accumulate | Append | Copy | Mma | If | Barrier | Check | Prefetch
Block: TypeAlias = tuple[Stmt, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase(Node):
    """Work between two device-wide synchronisations; `name` is the stage it computes."""

    name: str
    body: Block


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel(Node):
    """`params` in call order, then the outputs; a run-time length is an output `Tensor` of rank 0 and dtype i64.

    `sizes` are the i64 values that are still symbolic (`dyn`, or all before `specialise`), passed behind the params.
    `scratch` are global buffers that outlive a phase. `aliases`: inout parameters need nothing, they are written in place.
    """

    name: str
    params: tuple[Param, ...]
    sizes: tuple[str, ...]
    phases: tuple[Phase, ...]
    scratch: tuple[Buffer, ...] = ()
    messages: tuple[str, ...] = ()
