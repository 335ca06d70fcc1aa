"""Transposed copies: a register is loaded for each row of a block, the rows change places with the columns by interleaving, and the
columns are stored.

Interleaving the first half of the registers with the second moves the highest bit of an element's register number below its lane
number. After as many rounds as that number has bits (four for sixteen registers) it has become the low part of the place: the transpose.
"""

from __future__ import annotations

from collections.abc import Sequence

from tridsl.backends.cpu.emit_cast import emit_cast, from_stored, to_stored
from tridsl.backends.cpu.emit_frame import Frame, Place, known_numbers
from tridsl.backends.cpu.emit_index import STORED_BYTES, access_of
from tridsl.backends.cpu.emit_llvm import (
    BIT,
    POINTER,
    STORED,
    VOID,
    WORD,
    Value,
    constant,
    declare,
    index_constant,
    ir,
    lanes_of,
    mangle,
    shuffle,
    splat,
    undefined,
    vector_constant,
)
from tridsl.backends.cpu.emit_memory import address
from tridsl.backends.cpu.emit_vector import tail_mask
from tridsl.ir.affine import constant as constant_of
from tridsl.ir.expr import Const, Expr
from tridsl.ir.loop import Copy
from tridsl.structs import dataclass


def emit_transpose(frame: Frame, copy: Copy) -> None:
    assert copy.transposed, "a copy is expanded before it is emitted"
    (along, rows), (across, lanes), *group = [(axis.var, axis.bound or constant_of(axis.extent) or 0) for axis in copy.axes]
    names, width = [along, across, *(name for name, _ in group)], group[0][1] if group else 1
    short = _Short.of(frame, copy) if any(axis.bound is not None for axis in copy.axes) else None
    registers = [_load(frame, copy, dict(zip(names, (row, 0, 0))), lanes * width, short and short.of_row(frame, row, lanes)) for row in range(rows)]
    if width > 1:
        word = ir.IntType(width * 8 * STORED_BYTES[registers[0].type.element])
        registers = [frame.builder.bitcast(r, ir.VectorType(word, lanes)) for r in registers]
    height = 1 << (rows - 1).bit_length()
    transposed = _interleaved(frame, [*registers, *[undefined(registers[0].type)] * (height - rows)])
    place = frame.places[copy.target.tensor]
    if copy.pad is not None:
        assert copy.pad == Const(value=0, dtype=copy.source.dtype), "what is not read is 0"
        short = None  # all of the block is written
    dense = short is None and _is_dense(frame, copy, place, names, rows * width)
    for first, values in _columns(frame, transposed, rows, height, lanes, dense):
        with known_numbers(frame, zip(names, (first[0], first[1], 0))):
            _store(frame, place, copy.target.index, values, width, short and short.of_column(frame, *first, lanes_of(values)))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Short:
    """The rows and columns that there are of a block, as values."""

    rows: Value
    columns: Value

    @classmethod
    def of(cls, frame: Frame, copy: Copy) -> _Short:
        rows, columns = (frame.evaluate(axis.extent) for axis in copy.axes)
        return cls(rows=rows, columns=columns)

    def of_row(self, frame: Frame, row: int, lanes: int) -> Value:
        """Elements of a row of the source."""
        return self._mask(frame, self.columns, 0, lanes, row, self.rows)

    def of_column(self, frame: Frame, row: int, column: int, lanes: int) -> Value:
        """Elements from `row` on of a row of the target."""
        return self._mask(frame, self.rows, row, lanes, column, self.columns)

    def _mask(self, frame: Frame, extent: Value, start: int, lanes: int, other: int, limit: Value) -> Value:
        there = frame.builder.icmp_signed("<", index_constant(other), limit)
        return frame.builder.and_(tail_mask(frame, extent, start, lanes), splat(frame.builder, there, lanes))


def _load(frame: Frame, copy: Copy, at: dict[str, int], count: int, mask: Value | None) -> Value:
    """`count` elements from one row, as the target holds them; those outside `mask` are not read."""
    place, target = frame.places[copy.source.tensor], frame.places[copy.target.tensor]
    with known_numbers(frame, at.items()):
        access = access_of(frame, place, copy.source.index)
    kind, pointer = ir.VectorType(STORED[place.dtype], count), address(frame, place, access)
    if mask is None:
        stored = frame.builder.load(pointer, align=access.align, typ=kind)
    else:
        function = declare(frame.builder.module, f"llvm.masked.load.{mangle(kind)}.p0", kind, [POINTER, WORD, mask.type, kind])
        stored = frame.builder.call(function, [pointer, constant(WORD, STORED_BYTES[STORED[place.dtype]]), mask, constant(kind, 0)])
    if copy.flipped:
        return frame.builder.xor(stored, constant(stored.type, 1 << place.dtype.bits - 1))
    if place.dtype == target.dtype:
        return stored
    held = from_stored(frame.builder, stored, place.dtype)
    return to_stored(frame.builder, emit_cast(frame.builder, held, place.dtype, target.dtype), target.dtype)


def _interleaved(frame: Frame, registers: Sequence[Value]) -> list[Value]:
    count, lanes = len(registers), lanes_of(registers[0])
    low = [n // 2 + (n % 2) * lanes for n in range(lanes)]
    high = [n + lanes // 2 for n in low]
    found = list(registers)
    for _ in range(count.bit_length() - 1):
        pairs = list(zip(found[: count // 2], found[count // 2 :]))
        found = [shuffle(frame.builder, a, order, b) for a, b in pairs for order in (low, high)]
    return found


def _is_dense(frame: Frame, copy: Copy, place: Place, names: Sequence[str], step: int) -> bool:
    """Whether one column of the block follows the other in the target."""
    starts = []
    for column in (0, 1):
        with known_numbers(frame, zip(names, (0, column, 0))):
            starts.append(access_of(frame, place, copy.target.index).constant)
    return starts[1] - starts[0] == step


def _columns(
    frame: Frame, registers: Sequence[Value], rows: int, height: int, lanes: int, dense: bool
) -> list[tuple[tuple[int, int], Value]]:
    """((row, column) of the first element, elements) of each store. The registers hold column after column, `height` elements each."""
    if rows == height and (dense or height >= lanes):
        return [((n * lanes % height, n * lanes // height), value) for n, value in enumerate(registers)]
    if height > lanes:
        wide = height // lanes
        parts = [(n % wide * lanes, n // wide, value) for n, value in enumerate(registers)]
        return [((row, column), _first(frame, value, min(lanes, rows - row))) for row, column, value in parts if row < rows]
    each = lanes // height
    return [
        ((0, n * each + part), _first(frame, shuffle(frame.builder, value, range(part * height, (part + 1) * height)), rows))
        for n, value in enumerate(registers)
        for part in range(each)
    ]


def _first(frame: Frame, value: Value, count: int) -> Value:
    return shuffle(frame.builder, value, range(count))


def _store(frame: Frame, place: Place, position: tuple[Expr, ...], value: Value, width: int, own: Value | None) -> None:
    access = access_of(frame, place, position)
    pointer, count = address(frame, place, access), lanes_of(value)
    full = 1 << (count - 1).bit_length()
    bits = value.type.element.width if isinstance(value.type.element, ir.IntType) else 8 * STORED_BYTES[value.type.element]
    if own is not None:
        _masked_store(frame, place, pointer, value, own)
        return
    if count == full or not frame.chip.masks or bits < 32:
        frame.builder.store(value, pointer, align=STORED_BYTES[STORED[place.dtype]])
        return
    wide = shuffle(frame.builder, value, [*range(count), *[-1] * (full - count)])
    _masked_store(frame, place, pointer, wide, vector_constant(BIT, [int(n < count) for n in range(full)]))


def _masked_store(frame: Frame, place: Place, pointer: Value, value: Value, mask: Value) -> None:
    function = declare(frame.builder.module, f"llvm.masked.store.{mangle(value.type)}.p0", VOID, [value.type, POINTER, WORD, mask.type])
    frame.builder.call(function, [value, pointer, constant(WORD, STORED_BYTES[STORED[place.dtype]]), mask])
