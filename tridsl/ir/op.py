"""`Op`: what is computed. Sizes are symbolic `Var`s; every reducer is a stage of its own, in dependence order.

Names. A stage's tensors are addressed by `Load.tensor`. The anonymous reducer inside `y[n] = …` is the stage `y.sum`
(`y.sum2` for the second of its kind); stages of an op called as stage `h` are `h.<name>`; a monoid's states are
`O.m`, `O.l`, … and its result is the ordinary `Map` that reads them. A run-time length is the 0-d i64 tensor
`<name>.len`, written by the `Compact` and read like any other. A stage writes a parameter when it has its name.
"""

from __future__ import annotations

from dataclasses import field
from typing import Literal, TypeAlias

from tridsl.dtypes import DType
from tridsl.ir.expr import Const, Expr, Node
from tridsl.structs import dataclass

Role = Literal["input", "inout", "output"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis(Node):
    """Index `name` ranges over the half-open `lo..hi`."""

    name: str
    lo: Expr
    hi: Expr


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor(Node):
    """A tensor parameter. `shape` are i64 expressions over sizes and const parameters.

    `length` names the 0-d i64 tensor with the run-time extent of axis 0 of a `..N` tensor (its `shape` is the capacity).
    `strides`, in elements, one per axis, may be negative or zero; None is row-major contiguous. `layout` is `row` or the
    name of a codec (`t16`, …), whose bytes `passes.decode_packings` reads (`ir.packings`).
    """

    name: str
    dtype: DType
    shape: tuple[Expr, ...]
    role: Role = "input"
    length: str | None = None
    strides: tuple[Expr, ...] | None = None
    layout: str = "row"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scalar(Node):
    """A scalar parameter. `const` ones are specialised. `default` is used when the call leaves it out."""

    name: str
    dtype: DType
    const: bool = False
    default: Const | None = None


Param: TypeAlias = Tensor | Scalar


@dataclass(frozen=True, slots=True, kw_only=True)
class Contract(Node):
    """A condition over sizes and scalars that each call must meet: a `where`, a non-empty `max`, `K <= N` of topk.

    `late`: where it is false the stages still touch nothing outside their tensors, so that a length which is known at run
    time only may decide it (`Op.checks`).
    """

    condition: Expr
    message: str
    late: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Reducer(Node):
    """An associative combination of tuple states.

    `states` are names, `dtypes` their types, `identity` their neutral constants; `merge` gives each new state over
    `Var("a.<state>")` (earlier) and `Var("b.<state>")` (later), typed. `op` is set for a one-state builtin: the Binary op that
    merges (`add mul max min and or`). `commutative` is false where order matters (user monoids unless declared).
    """

    name: str
    states: tuple[str, ...]
    dtypes: tuple[DType, ...]
    identity: tuple[Const, ...]
    merge: tuple[Expr, ...]
    op: Literal["add", "mul", "max", "min", "and", "or"] | None = None
    commutative: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Target(Node):
    """One tensor a stage writes, over the named subset of the stage's axes, in that order."""

    name: str
    dtype: DType
    axes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Map(Node):
    """`name[axes] = value`; `value` has the compute type of `dtype` and is rounded to `dtype` once, at the store.

    For an `inout` parameter the axes may cover a part of it (`in a..b`); the rest keeps its contents.
    """

    name: str
    dtype: DType
    axes: tuple[Axis, ...]
    value: Expr


@dataclass(frozen=True, slots=True, kw_only=True)
class Reduce(Node):
    """Each target = the combination of `values` (one per state, in the state's dtype) over all points of `over`.

    `axes` are the output axes; a target names the subset it varies over: in attention `m` and `l` have (h, q), `o` has
    (h, q, e). A state whose merge reads only states over fewer axes is therefore computed once (hoisting). `ordered`: from
    the first point of `over` to the last, no reassociation (`order=seq`).
    """

    name: str
    targets: tuple[Target, ...]
    axes: tuple[Axis, ...]
    over: tuple[Axis, ...]
    reducer: Reducer
    values: tuple[Expr, ...]
    ordered: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan(Node):
    """targets[axes with `along`] = running combination of `values` along `along`, up to and with (or without) each point."""

    name: str
    targets: tuple[Target, ...]
    axes: tuple[Axis, ...]
    along: Axis
    reducer: Reducer
    values: tuple[Expr, ...]
    exclusive: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Compact(Node):
    """Stable left-pack: `name[0..length]` = `value` at the points of `along` where `keep`; `length` is the count.

    Elements past the count are unspecified. Several compactions with one (`along`, `keep`) are separate stages.
    """

    name: str
    dtype: DType
    along: Axis
    value: Expr
    keep: Expr
    length: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TopK(Node):
    """The `k` greatest of `value` along `along`, descending, ties by lower index, NaN greater than all (NumPy's sort).

    `values` and `indices` (i32, or i64 as declared) have shape axes + (k,). Either may be unused.
    """

    name: str
    values: Target
    indices: Target
    axes: tuple[Axis, ...]
    along: Axis
    k: Expr
    value: Expr


Stage: TypeAlias = Map | Reduce | Scan | Compact | TopK


@dataclass(frozen=True, slots=True, kw_only=True)
class Op(Node):
    """A checked operation of concrete dtypes. Ready to be evaluated (`ir.evaluate`) or lowered (`passes.to_loops`).

    `types` are the chosen type parameters; `sizes` the symbolic size names in order of first appearance, `dynamic` those
    declared `dyn`; `intermediates` declares every stage tensor that is not a parameter (role is ignored). `checks` are
    contracts over run-time lengths: the kernel looks at them, and a call that breaks one raises IndexError.
    """

    name: str
    types: tuple[tuple[str, DType], ...]
    params: tuple[Param, ...]
    sizes: tuple[str, ...]
    stages: tuple[Stage, ...]
    intermediates: tuple[Tensor, ...] = ()
    contracts: tuple[Contract, ...] = ()
    checks: tuple[Contract, ...] = ()
    dynamic: tuple[str, ...] = ()
    doc: str = field(default="", compare=False)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return tuple(p for p in self.params if isinstance(p, Tensor))

    @property
    def inputs(self) -> tuple[Param, ...]:
        """Parameters a call passes, in order: scalars, input and inout tensors."""
        return tuple(p for p in self.params if isinstance(p, Scalar) or p.role != "output")

    @property
    def outputs(self) -> tuple[Tensor, ...]:
        return tuple(p for p in self.tensors if p.role == "output")
