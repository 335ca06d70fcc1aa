"""What is known while one op is checked: its names, the stages made so far, the facts that bounds are proved from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import field
from typing import TYPE_CHECKING

from tridsl.check.names import suggestion
from tridsl.check.prove import Facts, Prover
from tridsl.check.values import Value
from tridsl.diagnostics import Diagnostic, Label, Span, error
from tridsl.dtypes import DTYPES, INDEX, DType
from tridsl.ir.expr import Expr, Load, Var, binary, index, sub
from tridsl.ir.op import Axis, Contract, Role, Scalar, Stage, Tensor
from tridsl.ir.walk import rewrite, walk
from tridsl.structs import dataclass, replace
from tridsl.syntax.nodes import Syntax, Type

if TYPE_CHECKING:
    from tridsl.check.monoids import MonoidForm


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """A tensor that expressions may read. `ranges` (lo, hi) are what its indices mean; element (lo, …) is stored first."""

    name: str
    dtype: DType
    ranges: tuple[tuple[Expr, Expr], ...]
    role: Role | None = None  # None: an intermediate
    span: Span | None = None

    @property
    def rank(self) -> int:
        return len(self.ranges)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where an expression stands.

    `axes`: indices in force, outermost first. `widen`: the accumulator type that operands are widened to. `indexing`: inside
    index arithmetic, where integers are i64. `locals`: names of a monoid's body. `target`: the statement's name, after which
    anonymous stages are called. `writes`: the inout parameter the statement updates, and its index.
    """

    target: str = ""
    axes: tuple[Axis, ...] = ()
    widen: DType | None = None
    indexing: bool = False
    locals: Mapping[str, Value] = field(default_factory=dict)
    writes: tuple[str, tuple[Expr, ...]] | None = None

    def inside(self, axes: tuple[Axis, ...]) -> Place:
        return replace(self, axes=self.axes + axes)

    def axis(self, name: str) -> Axis | None:
        return next((a for a in self.axes if a.name == name), None)


class Broken(Exception):
    """Uses something whose own mistake has been reported already; says nothing more."""


@dataclass(slots=True, kw_only=True)
class Scope:
    """The one mutable object of checking; it lives as long as the checking of one op (or monoid)."""

    types: Mapping[str, DType]
    sizes: list[str] = field(default_factory=list)
    scalars: dict[str, Scalar] = field(default_factory=dict)
    tensors: dict[str, Known] = field(default_factory=dict)
    parameters: dict[str, Tensor] = field(default_factory=dict)  # tensor parameters and results
    assigned: dict[str, Span | None] = field(default_factory=dict)  # names that a statement has defined, and where
    lengths: dict[str, Expr] = field(default_factory=dict)  # run-time length tensor -> capacity
    stages: list[Stage] = field(default_factory=list)
    intermediates: dict[str, Tensor] = field(default_factory=dict)
    contracts: list[Contract] = field(default_factory=list)
    checks: list[Contract] = field(default_factory=list)
    facts: Facts = field(default_factory=Facts)
    later: frozenset[str] = frozenset()  # stages further down
    broken: set[str] = field(default_factory=set)
    used: set[str] = field(default_factory=set)
    reductions: dict[Stage, tuple[str, ...]] = field(
        default_factory=dict
    )  # of this statement: nameless stage -> target names
    diagnostics: list[Diagnostic] = field(default_factory=list)
    monoids: Callable[[str, tuple[Value, ...], Syntax], MonoidForm | None] = lambda name, arguments, syntax: None
    known_reducers: tuple[str, ...] = ()
    known_ops: tuple[str, ...] = ()

    def dtype(self, name: str, span: Span | None) -> DType:
        """The element type a name stands for: a type parameter or a type of the language."""
        found = self.types.get(name) or DTYPES.get(name)
        if found is None:
            raise error("E0204", f"'{name}' is not a type", span, help=suggestion(name, [*self.types, *DTYPES])
                        or f"types are {', '.join(DTYPES)}")  # fmt: skip
        return found

    def type_dtype(self, type_: Type) -> DType:
        return self.dtype(type_.dtype, type_.span)

    def unique(self, name: str) -> str:
        """`name`, or `name2`, `name3`, … when it is taken."""
        taken = {*self.tensors, *self.intermediates, *(s.name for s in self.stages)}
        number = 2
        candidate = name
        while candidate in taken:
            candidate = f"{name}{number}"
            number += 1
        return candidate

    def require(self, condition: Expr, message: str, span: Span | None, *, late: bool = False) -> None:
        """A contract of the op, or a check of the kernel where a run-time length decides; stated once."""
        lengths = sorted({f"'{n.tensor.removesuffix('.len')}'" for n in walk(condition) if isinstance(n, Load)})
        found = self.checks if lengths else self.contracts
        if lengths:
            message = f"{message}, and {' or '.join(lengths)} is too short"
        if all(c.condition != condition for c in found):
            found.append(Contract(condition=condition, message=message, late=late, span=span))

    def declare(self, name: str, dtype: DType, axes: tuple[Axis, ...], span: Span | None = None) -> None:
        """A stage's tensor becomes known, with storage unless it is a parameter."""
        parameter = self.parameters.get(name)
        ranges = tuple((a.lo, a.hi) for a in axes)
        if parameter is not None and parameter.role == "inout":  # it keeps its own extents
            return
        self.tensors[name] = Known(
            name=name, dtype=dtype, ranges=ranges, role=parameter.role if parameter else None, span=span
        )
        if parameter is None:
            shape = tuple(self._extent(a) for a in axes)
            length = length_of(axes[0].hi) if axes else None
            self.intermediates[name] = Tensor(name=name, dtype=dtype, shape=shape, length=length, span=span)

    def _extent(self, axis: Axis) -> Expr:
        """The storage an axis takes: `1..N` is one element less than N, but not -1 for N = 0."""
        extent = self.capacity(sub(axis.hi, axis.lo))
        return extent if Prover(self.facts).at_least(extent, index(0)) else binary("max", extent, index(0))

    def capacity(self, extent: Expr) -> Expr:
        """The extent with every run-time length replaced by the most it can be."""
        return rewrite(extent, {Load: lambda load: self.lengths.get(load.tensor, load)})

    def declare_length(self, name: str, capacity: Expr) -> Load:
        """The 0-d run-time length of tensor `name`; what reads it."""
        length = f"{name}.len"
        self.lengths[length] = capacity
        self.tensors[length] = Known(name=length, dtype=INDEX, ranges=())
        if name not in self.parameters:
            self.intermediates[length] = Tensor(name=length, dtype=INDEX, shape=())
        self.know_range(length, index(0), capacity)
        return Load(tensor=length, index=(), dtype=INDEX)

    def know_range(self, tensor: str, low: Expr, high: Expr) -> None:
        """Every element of a tensor is within closed `low..high`."""
        if all(name != tensor for name, _, _ in self.facts.loads):
            self.facts = replace(self.facts, loads=(*self.facts.loads, (tensor, low, high)))

    def define(self, name: str, span: Span | None) -> None:
        """A statement defines `name`. Raises where the name is not free for that."""
        parameter = self.parameters.get(name)
        if name in self.scalars or (parameter is not None and parameter.role == "input"):
            raise error(
                "E0221",
                f"'{name}' is an input and cannot be assigned",
                span,
                help="give the stage another name, or declare the parameter inout",
            )
        if name in self.sizes:
            raise error(
                "E0203",
                f"'{name}' is a size; a tensor and a size may not share a name",
                span,
                help="give the stage another name",
            )
        if name in self.assigned:
            first = self.assigned[name]
            raise error("E0207", f"'{name}' is assigned twice", span, others=(Label(span=first, text="first here"),) if first else (),
                        help="a stage is written once, as a whole; give the second one another name")  # fmt: skip
        self.assigned[name] = span

    def read(self, name: str, axes: tuple[Axis, ...], span: Span | None = None) -> Load:
        """`name[axes]` of a tensor that was declared over just these axes."""
        known = self.tensors[name]
        return Load(tensor=name, index=tuple(sub(Var(name=a.name), a.lo) for a in axes), dtype=known.dtype, span=span)


def length_of(extent: Expr) -> str | None:
    """The length tensor an extent reads, when it is just that."""
    return (
        extent.tensor if isinstance(extent, Load) and extent.tensor.endswith(".len") and extent.dtype == INDEX else None
    )
