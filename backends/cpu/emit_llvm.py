"""How element types, constants and intrinsics are spelled in LLVM IR.

Two forms of each type. *Stored*: what an array element takes in memory (a bool is a byte, 4-bit and ternary values are a byte
each, bf16 is its 16 bits). *Held*: what an expression of that dtype is in a register (a bool is i1); a lane-varying value is a
vector of the held type, a lane-uniform one a plain scalar.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import llvmlite.ir as _llvm

from tridsl.dtypes import BF16, BOOL, F16, F32, F64, I4, I8, I16, I32, I64, TRIT, U4, U8, U16, U32, DType

ir: Any = _llvm
"""llvmlite's builder is untyped; what comes out of it is `Value`."""
Value: TypeAlias = Any
LLVMType: TypeAlias = Any

VOID, POINTER = ir.VoidType(), ir.PointerType()
BIT, BYTE, SHORT, WORD, INDEX_TYPE = (ir.IntType(bits) for bits in (1, 8, 16, 32, 64))
HALF, FLOAT, DOUBLE = ir.HalfType(), ir.FloatType(), ir.DoubleType()

STORED: dict[DType, LLVMType] = {
    BOOL: BYTE, I8: BYTE, U8: BYTE, I16: SHORT, U16: SHORT, I32: WORD, U32: WORD, I64: INDEX_TYPE,
    F16: HALF, BF16: SHORT, F32: FLOAT, F64: DOUBLE, TRIT: BYTE, I4: BYTE, U4: BYTE,
}  # fmt: skip
HELD: dict[DType, LLVMType] = {**STORED, BOOL: BIT}

CONTRACT = ("contract",)


class _BrainFloat(ir.Type):  # type: ignore[misc]  # llvmlite is untyped
    """`bfloat`, which llvmlite has no class for; only operands of matrix instructions have this type."""

    intrinsic_name = "bf16"

    def __str__(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _BrainFloat)

    def __hash__(self) -> int:
        return hash(_BrainFloat)


BRAIN = _BrainFloat()


class TextConstant(ir.Constant):  # type: ignore[misc]  # llvmlite is untyped
    """A constant given as LLVM text; `number` is the integer in all lanes, where it is one."""

    def __init__(self, kind: LLVMType, text: str, number: int | None = None) -> None:
        self.type, self.constant, self.number = kind, text, number

    def _to_string(self) -> str:
        return f"{self.type} {self.constant}"

    def _get_reference(self) -> str:
        return str(self.constant)


def lanes_of(value: Value) -> int:
    """Number of lanes of a lane-varying value, 0 for a scalar."""
    return value.type.count if isinstance(value.type, ir.VectorType) else 0


def element_of(kind: LLVMType) -> LLVMType:
    return kind.element if isinstance(kind, ir.VectorType) else kind


def shaped(element: LLVMType, lanes: int) -> LLVMType:
    """`element` itself for 0 lanes, else the vector."""
    return ir.VectorType(element, lanes) if lanes else element


def scalar_constant(kind: LLVMType, value: bool | float) -> Value:
    if isinstance(kind, ir.IntType):
        bits = int(value) & ((1 << kind.width) - 1)
        return ir.Constant(kind, bits - (1 << kind.width) if kind.width > 1 and bits >> (kind.width - 1) else bits)
    return ir.Constant(kind, float(value))


def constant(kind: LLVMType, value: bool | float) -> Value:
    """A scalar, or the same in all lanes."""
    if isinstance(kind, ir.VectorType):
        scalar = scalar_constant(kind.element, value)
        number = scalar.constant if isinstance(kind.element, ir.IntType) else None
        return TextConstant(kind, f"splat ({kind.element} {scalar.get_reference()})", number)
    return scalar_constant(kind, value)


def index_constant(value: int) -> Value:
    return ir.Constant(INDEX_TYPE, value)


def vector_constant(element: LLVMType, values: Iterable[int]) -> Value:
    return ir.Constant(ir.VectorType(element, len(listed := list(values))), listed)


def undefined(kind: LLVMType) -> Value:
    return TextConstant(kind, "poison")


def mangle(kind: LLVMType) -> str:
    """The suffix by which an overloaded intrinsic names `kind`."""
    if isinstance(kind, ir.VectorType):
        return f"v{kind.count}{mangle(kind.element)}"
    if isinstance(kind, ir.PointerType):
        return "p0"
    return kind.intrinsic_name if not isinstance(kind, ir.IntType) else f"i{kind.width}"


def number_of(value: Value) -> int | None:
    """The number of an integer constant, scalar or the same in all lanes."""
    if isinstance(value, TextConstant):
        return value.number
    return value.constant if isinstance(value, ir.Constant) and isinstance(value.type, ir.IntType) else None


def declare(module: Any, name: str, returns: LLVMType, arguments: Sequence[LLVMType]) -> Value:
    """The function `name` of `module`, declared on first use."""
    found = module.globals.get(name)
    return found if found is not None else ir.Function(module, ir.FunctionType(returns, list(arguments)), name)


def intrinsic(builder: Any, name: str, returns: LLVMType, args: Sequence[Value], overload: Sequence[LLVMType] | None = None) -> Value:
    """Call `llvm.<name>.<overload types>`; the overload is the result's type unless given."""
    suffix = "".join(f".{mangle(kind)}" for kind in ((returns,) if overload is None else overload))
    function = declare(builder.module, f"llvm.{name}{suffix}", returns, [a.type for a in args])
    return builder.call(function, args)


class _Shuffle(ir.instructions.ShuffleVector):  # type: ignore[misc]  # llvmlite is untyped
    """`shufflevector` with its mask as text: llvmlite's own class walks every lane number of every mask."""

    def __init__(self, parent: Any, first: Value, second: Value, lanes: int, mask: str) -> None:
        kind = ir.VectorType(WORD, lanes)
        operands = [first, second, TextConstant(kind, mask)]
        ir.Instruction.__init__(self, parent, ir.VectorType(first.type.element, lanes), "shufflevector", operands)


def _shuffled(builder: Any, first: Value, second: Value, lanes: int, mask: str) -> Value:
    result = _Shuffle(builder.block, first, second, lanes, mask)
    builder._insert(result)
    return result


def stack_slot(builder: Any, kind: LLVMType, align: int) -> Value:
    """`alloca`, as the untyped pointer that every other pointer of ours is."""
    slot = builder.alloca(kind)
    slot.type, slot.align = POINTER, align
    return slot


def splat(builder: Any, value: Value, lanes: int) -> Value:
    """`value` in all lanes; a value that already varies over the lanes is returned as it is."""
    if not lanes or lanes_of(value):
        return value
    kind = ir.VectorType(value.type, lanes)
    if isinstance(value, ir.Constant) and not isinstance(value, TextConstant) and value.constant is not None:
        return constant(kind, value.constant)
    one = builder.insert_element(undefined(kind), value, ir.Constant(WORD, 0))
    return _shuffled(builder, one, undefined(kind), lanes, "zeroinitializer")


def together(builder: Any, *values: Value) -> tuple[Value, ...]:
    """All values with the lanes of the widest: scalars are broadcast where any value varies."""
    lanes = max(map(lanes_of, values))
    return tuple(splat(builder, value, lanes) for value in values)


def shuffle(builder: Any, value: Value, lanes: Sequence[int], other: Value | None = None) -> Value:
    """Lane i of the result is lane `lanes[i]` of `value` (then `other`); -1 leaves it undefined."""
    if other is None and list(lanes) == list(range(lanes_of(value))):
        return value
    numbers = ", ".join(f"i32 {n}" if n >= 0 else "i32 poison" for n in lanes)
    return _shuffled(builder, value, undefined(value.type) if other is None else other, len(lanes), f"<{numbers}>")


def joined(builder: Any, parts: list[Value]) -> Value:
    """Vectors of one type, a power of two of them, as one long vector."""
    while len(parts) > 1:
        count = lanes_of(parts[0])
        parts = [shuffle(builder, a, list(range(2 * count)), b) for a, b in zip(parts[::2], parts[1::2])]
    return parts[0]


def lane(builder: Any, value: Value, number: int) -> Value:
    return builder.extract_element(value, ir.Constant(WORD, number)) if lanes_of(value) else value


def unroll_count(module: Any, turns: int) -> Any:
    """What the branch back of a loop says to have so many iterations made in one turn. LLVM knows a loop's own node by its first operand, the node itself."""
    count = module.add_metadata(["llvm.loop.unroll.count", constant(WORD, turns)])
    own = ir.MDValue(module, (), name=str(len(module.metadata)))
    own.operands = (own, count)
    return own


def any_lane(builder: Any, mask: Value) -> Value:
    """Whether a scalar i1 is true, or a vector of i1 is true in any lane."""
    return intrinsic(builder, "vector.reduce.or", BIT, [mask], [mask.type]) if lanes_of(mask) else mask
