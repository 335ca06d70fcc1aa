"""Syntax nodes, one class per grammar rule, every one with its span. Untyped: meaning is `check`'s business.

`parse(format(module)) == module` (spans are outside equality).
"""

from __future__ import annotations

from dataclasses import field
from typing import Literal, TypeAlias

from tridsl.diagnostics import SourceFile, Span
from tridsl.structs import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Syntax:
    """Base. `span` is absent only on nodes that a program builds."""

    span: Span | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Name(Syntax):
    """An identifier used as an expression, or where only its span matters (axes, labels)."""

    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Number(Syntax):
    """A literal: int (decimal or 0x…) or float. `text` keeps how it was written; equality is by value and kind."""

    value: int | float
    text: str = field(default="", compare=False)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Number):
            return NotImplemented
        return type(self.value) is type(other.value) and self.value == other.value  # 1 and 1.0 are equal to Python only

    def __hash__(self) -> int:
        return hash((type(self.value), self.value))


@dataclass(frozen=True, slots=True, kw_only=True)
class Word(Syntax):
    """A literal word: true, false, inf, nan, lowest, highest."""

    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Text(Syntax):
    """A double-quoted string (schedules only)."""

    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Prefix(Syntax):
    """`-x`, `+x`, `~x`, `not x`."""

    operator: str
    operand: Expression


@dataclass(frozen=True, slots=True, kw_only=True)
class Infix(Syntax):
    """`a op b` with op one of + - * / // % & | ^ << >> == != < <= > >= and or. `operator_span` is the operator's."""

    operator: str
    left: Expression
    right: Expression
    operator_span: Span | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditional(Syntax):
    """`if condition then a else b`."""

    condition: Expression
    then: Expression
    otherwise: Expression


@dataclass(frozen=True, slots=True, kw_only=True)
class Field(Syntax):
    """`a.m`, `chip.lanes`, `k.o`."""

    value: Expression
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Keyword(Syntax):
    """`name=value` in an argument or option list. An option without a value (`exclusive`) has value None."""

    name: str
    value: Expression | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Invoke(Syntax):
    """`f(x, y, k=v)`: a function, a cast (`f32(x)`), another op, a set like `pow2(64, 512)`."""

    function: str
    args: tuple[Expression, ...]
    keywords: tuple[Keyword, ...] = ()
    name_span: Span | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Range(Syntax):
    """Half-open `low..high`."""

    low: Expression
    high: Expression


@dataclass(frozen=True, slots=True, kw_only=True)
class Index(Syntax):
    """An index name, with its range where written: `i` or `d in -1..2`."""

    name: str
    range: Range | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Access(Syntax):
    """`T[i, j; pad=0]`."""

    tensor: str
    index: tuple[Expression, ...]
    options: tuple[Keyword, ...] = ()
    name_span: Span | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reduction(Syntax):
    """`sum[k; acc=f32](x[k])`, and with `scan`: `scan sum[i; exclusive](x[i])`; also compact, topk, user monoids."""

    reducer: str
    axes: tuple[Index, ...]
    options: tuple[Keyword, ...]
    args: tuple[Expression, ...]
    scan: bool = False
    name_span: Span | None = field(default=None, repr=False)


Expression: TypeAlias = (
    Name | Number | Word | Text | Prefix | Infix | Conditional | Field | Invoke | Range | Access | Reduction
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Type(Syntax):
    """`f32`, `T[M, K]`, `f32[..N]`. `upto` is true for a first dimension written `..N`; `dims` None for a scalar."""

    dtype: str
    dims: tuple[Expression, ...] | None = None
    upto: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter(Syntax):
    """`name: type = default`, with `const` or `inout` in front; also results and monoid parameters."""

    name: str
    type: Type
    qualifier: Literal["", "const", "inout"] = ""
    default: Expression | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TypeParameter(Syntax):
    """`T in {f32, f16}`, `U in {T, f32} = T`; `choices` are dtype or type-parameter names."""

    name: str
    choices: tuple[Name, ...]
    default: Name | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement(Syntax):
    """`C[i, j] = value`, `m = max[n](x[n])`, `v, i = topk[n; k=K](x[n])`. `indices` None where no brackets stand."""

    targets: tuple[Name, ...]
    indices: tuple[Index, ...] | None
    value: Expression


@dataclass(frozen=True, slots=True, kw_only=True)
class DynamicSize(Syntax):
    """`dyn T` in front of a parameter list's sizes: `op f(dyn N, x: f32[N])`."""

    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation(Syntax):
    """`op name[types](parameters) -> results where … { statements }`. `comments` directly above are its documentation."""

    name: str
    type_parameters: tuple[TypeParameter, ...]
    dynamic: tuple[DynamicSize, ...]
    parameters: tuple[Parameter, ...]
    results: tuple[Parameter, ...]
    where: tuple[Expression, ...]
    body: tuple[Statement, ...]
    name_span: Span | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class StateVariable(Syntax):
    """`m: f32 = lowest` in a monoid's `state`."""

    name: str
    type: Type
    identity: Expression


@dataclass(frozen=True, slots=True, kw_only=True)
class Monoid(Syntax):
    """`monoid name[types](parameters) -> type { state … lift {…} merge a, b {…} result … }`."""

    name: str
    type_parameters: tuple[TypeParameter, ...]
    parameters: tuple[Parameter, ...]
    result_type: Type
    state: tuple[StateVariable, ...]
    lift: tuple[Statement, ...]
    merge_names: tuple[str, str]
    merge: tuple[Statement, ...]
    result: Expression
    name_span: Span | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tunable(Syntax):
    """`param ti in {6, 8, 12} = 12`; `space` is a `Choices`, a call (`pow2(64, 512)`) or a `Range`."""

    name: str
    space: Choices | Invoke | Range
    default: Expression | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices(Syntax):
    """`{a, b, c}`."""

    items: tuple[Expression, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Require(Syntax):
    condition: Expression


@dataclass(frozen=True, slots=True, kw_only=True)
class VerbCall(Syntax):
    """`.tile(i=64, j=64)`: one step of a directive, applied to its tensor."""

    verb: str
    args: tuple[Expression, ...]
    keywords: tuple[Keyword, ...] = ()
    verb_span: Span | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Directive(Syntax):
    """`C.tile(…).split(…)`: `tensor` may be a dotted stage name (`y.sum`)."""

    tensor: str
    calls: tuple[VerbCall, ...]
    tensor_span: Span | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleBlock(Syntax):
    """`schedule op for device when … { … }`; device is cpu, gpu, npu or any."""

    op: str
    device: str
    when: Expression | None
    items: tuple[Tunable | Require | Directive, ...]
    op_span: Span | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchBlock(Syntax):
    """`bench matmul { M = 1024, N = 1024 }`; a dtype parameter may be set too (`T = f32`)."""

    op: str
    values: tuple[Keyword, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Use(Syntax):
    """`use stdlib: rmsnorm, softmax`: names from another module."""

    module: str
    names: tuple[Name, ...]


Item: TypeAlias = Operation | Monoid | ScheduleBlock | BenchBlock | Use


@dataclass(frozen=True, slots=True, kw_only=True)
class Module(Syntax):
    """A whole file."""

    items: tuple[Item, ...]
    source: SourceFile | None = field(default=None, compare=False, repr=False)
