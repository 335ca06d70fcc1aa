"""What the emitter knows while it writes one LLVM function.

The kernel's values are frozen; a `Frame` is the writer's desk and changes as the function grows.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import field
from functools import cached_property
from itertools import count
from typing import Any

from tridsl.backends.cpu.emit_llvm import BIT, INDEX_TYPE, VOID, WORD, Value, constant, ir, stack_slot, unroll_count
from tridsl.devices.spec import DeviceSpec
from tridsl.dtypes import DType
from tridsl.ir.affine import Interval, Polynomial, interval
from tridsl.ir.expr import Expr
from tridsl.ir.loop import Accumulate, Alloc, Block, For, Space
from tridsl.ir.op import Role
from tridsl.ir.walk import walk
from tridsl.structs import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A tensor or buffer in scope: where element 0 is and how positions become offsets.

    `strides`: elements per step of each axis. `private` > 0: the buffer was made inside a vector loop of that many lanes,
    each of which has its own copy, lane by lane next to each other. `spread` > 0: one element, kept in that many lanes. `align`: bytes that `pointer` is a multiple of.
    """

    pointer: Value
    dtype: DType
    shape: tuple[Expr, ...]
    strides: tuple[Expr, ...]
    space: Space
    role: Role | None
    align: int
    padded: tuple[bool, ...] = ()
    private: int = 0
    spread: int = 0


@dataclass(slots=True, kw_only=True)
class Lane:
    """The vector loop around the current statement.

    `tail`: lanes inside the loop's extent; `condition`: lanes that the `If`s around let through; None is all of them.
    `widened`: there are more lanes than the loop's bound, so padding does not cover those past the tail.
    """

    variable: str
    count: int
    tail: Value | None = None
    condition: Value | None = None
    widened: bool = False


class Chip:
    """The facts of a `DeviceSpec` that change what is emitted."""

    def __init__(self, spec: DeviceSpec) -> None:
        self.spec = spec
        self.features = spec.features

    @cached_property
    def architecture(self) -> str:
        return self.spec.target_triple.partition("-")[0] or "x86_64"

    @cached_property
    def x86(self) -> bool:
        return self.architecture in ("x86_64", "amd64")

    @cached_property
    def masks(self) -> bool:
        return self.spec.has_masks

    @cached_property
    def vector_bits(self) -> int:
        return self.spec.vector_bits or 128


@dataclass(slots=True, kw_only=True)
class Frame:
    """One function being written.

    `values`: loop variables, sizes, scalars and a reducer's bound names by `Var.name`; `known`: those that are numbers
    (unrolled loops); `depth`: nesting depth of the loop that binds a variable, so that sums start with what changes least.
    `lane_number`: the lane whose private buffers are meant while lanes take turns. `ranges`: inclusive bounds of loop variables in scope.
    `scanned`: running values of a scan, one a lane, while what stores them is written; `spread`: lanes that the scans of the
    function have, by the register that they run in.
    `tiles`: the registers of buffers that are AMX tiles; `has_tiles`: whether the function configures them.
    `made`: sums, products and addresses by the block that has them (`once`), with what they were made of.
    `streams`: some stores went around the caches. `entry` writes into the function's first block: everything that must exist once, not once an iteration.
    """

    chip: Chip
    expressions: Mapping[type, Callable[[Any, Any], Value]]
    statements: Mapping[type, Callable[[Any, Any], None]]
    builder: Any
    entry: Any
    name: str
    status: Value
    threads: Value
    values: dict[str, Value] = field(default_factory=dict)
    known: dict[str, int] = field(default_factory=dict)
    depth: dict[str, int] = field(default_factory=dict)
    places: dict[str, Place] = field(default_factory=dict)
    lane: Lane | None = None
    lane_number: int = 0
    zeros: Value | None = None
    scanned: dict[str, Value] = field(default_factory=dict)
    spread: dict[str, int] = field(default_factory=dict)
    streams: bool = False
    tiles: dict[str, range] = field(default_factory=dict)
    has_tiles: bool = False
    ordered: bool = False
    level: int = 0
    ranges: dict[str, Interval] = field(default_factory=dict)
    polynomials: dict[int, tuple[Any, Polynomial]] = field(default_factory=dict)
    numbering: Iterator[int] = field(default_factory=count)
    made: dict[Hashable, tuple[Value, ...]] = field(default_factory=dict)

    def evaluate(self, expression: Expr) -> Value:
        """The LLVM value of an expression, in the held form of its dtype."""
        return self.expressions[type(expression)](self, expression)

    def run(self, block: Block) -> None:
        """Write the statements of a block."""
        for statement in block:
            self.statements[type(statement)](self, statement)

    @contextmanager
    def inside(self, loop: For) -> Iterator[None]:
        """While the body of `loop` is written. A reduction that keeps no order has none inside a loop that does either."""
        ordered, self.ordered = self.ordered, _keeps_order(loop) or (self.ordered and not loop.reduce)
        self.level += 1
        self.depth[loop.var] = self.level
        last = interval(loop.extent, self.ranges)[1]
        self.ranges[loop.var] = (0, None if last is None else last - 1)
        tiles = dict(self.tiles)
        yield
        self.tiles = tiles
        self.level -= 1
        self.ordered = ordered

    @property
    def contraction(self) -> tuple[str, ...]:
        """Flags of float arithmetic: fusing into FMA is allowed, except where the order of operations is promised."""
        return () if self.ordered else ("contract",)


def once(frame: Frame, kind: Hashable, operands: tuple[Value, ...], make: Callable[..., Value]) -> Value:
    """`make(*operands)`, or what the block at hand has of that kind and those operands: accesses next to each other share most of their
    positions, and what is written once is printed, parsed and simplified once."""
    number = tuple(o.constant if isinstance(o, ir.Constant) and isinstance(o.constant, int) else o for o in operands)
    key = (id(frame.builder.block), kind, *(n if isinstance(n, int) else (id(n),) for n in number))
    found = frame.made.get(key)
    if found is None:
        found = frame.made[key] = (make(*operands), *operands)  # operands live on: their ids stay theirs
    return found[0]


@contextmanager
def known_numbers(frame: Frame, values: Iterable[tuple[str, int]]) -> Iterator[None]:
    """Some loop variables as numbers, while something is written."""
    known = dict(frame.known)
    frame.known.update(values)
    yield
    frame.known = known


def emit_loop(frame: Frame, begin: Value, end: Value, body: Callable[[Value], None], unrolled: int = 1) -> None:
    """`for counter in begin..end: body(counter)`, tested at the bottom and guarded unless it surely runs; `unrolled` iterations are one turn."""
    builder = frame.builder
    sure = all(isinstance(v, ir.Constant) for v in (begin, end)) and begin.constant < end.constant
    if not sure and all(isinstance(v, ir.Constant) for v in (begin, end)):
        return
    before = builder.block
    inside, after = builder.append_basic_block("loop"), builder.append_basic_block("done")
    if sure:
        builder.branch(inside)
    else:
        builder.cbranch(builder.icmp_signed("<", begin, end), inside, after)
    builder.position_at_end(inside)
    counter = builder.phi(INDEX_TYPE)
    counter.add_incoming(begin, before)
    body(counter)
    following = builder.add(counter, ir.Constant(INDEX_TYPE, 1), flags=("nuw", "nsw"))
    counter.add_incoming(following, builder.block)
    again = builder.cbranch(builder.icmp_signed("<", following, end), inside, after)
    if unrolled != 1:
        again.set_metadata("llvm.loop", unroll_count(builder.module, unrolled))
    builder.position_at_end(after)


def _keeps_order(loop: For) -> bool:
    """Whether the order of the loop's iterations decides a result: they combine values. (Those of a sliding window only come
    after one another.)"""
    return loop.carried and any(not isinstance(s, For | Alloc) or any(isinstance(n, Accumulate) for n in walk(s)) for s in loop.body)


@contextmanager
def emit_if(frame: Frame, condition: Value) -> Iterator[None]:
    """What is emitted inside runs where the scalar `condition` is true."""
    builder = frame.builder
    inside, after = builder.append_basic_block("then"), builder.append_basic_block("after")
    builder.cbranch(condition, inside, after)
    builder.position_at_end(inside)
    yield
    builder.branch(after)
    builder.position_at_end(after)


def emit_branches(frame: Frame, condition: Value, then: Callable[[], None], otherwise: Callable[[], None]) -> None:
    builder = frame.builder
    yes, no, after = (builder.append_basic_block(name) for name in ("then", "else", "after"))
    builder.cbranch(condition, yes, no)
    for block, write in ((yes, then), (no, otherwise)):
        builder.position_at_end(block)
        write()
        builder.branch(after)
    builder.position_at_end(after)


def emit_failure(frame: Frame, code: int) -> None:
    """Record a failure; of several the lowest code stays, whichever thread meets it first."""
    frame.builder.atomic_rmw("umin", frame.status, constant(WORD, code), "monotonic")


def allocate_on_stack(frame: Frame, element: Any, count: int, align: int) -> Value:
    """An array that lives as long as the function, made in its entry block."""
    return stack_slot(frame.entry, ir.ArrayType(element, count), align)


TUNINGS = {"avx512vnni": "+fast-dpwssd"}
"""What LLVM is told about a processor that has a feature. vpdpwssd is to stay one instruction: in a chain of two it would be taken apart into a
multiplication and an addition, which wait less for each other, but are two where many chains fill the units (measured on a Golden Cove,
products of i16, two terms a turn of the loop: 1.6 times as long)."""


def new_function(module: Any, name: str, arguments: list[Any], spec: DeviceSpec, returns: Any = VOID) -> Any:
    """An empty function with the attributes that make LLVM use the whole vector unit."""
    function = ir.Function(module, ir.FunctionType(returns, arguments), name)
    # llvmlite checks attribute names against a list of its own; `set.add` is the way to a string attribute.
    set.add(function.attributes, f'"prefer-vector-width"="{spec.vector_bits or 128}"')
    if spec.target_cpu:
        set.add(function.attributes, f'"target-cpu"="{spec.target_cpu}"')
    features = [spec.target_features, *(tuning for feature, tuning in TUNINGS.items() if feature in spec.features)]
    if any(features):
        set.add(function.attributes, f'"target-features"="{",".join(filter(None, features))}"')
    function.attributes.add("nounwind")
    return function


ALWAYS = ir.Constant(BIT, 1)
