"""Matrix instructions: for each row of `devices.intrinsics` with lanes, what one register's worth of it is.

`target[.., n] += sum over k of a * b`, k as deep as the row says. Along one axis of the target (the lanes) one operand varies
and the other is broadcast; the lane-varying operand reads k fastest, then lanes, which a packed panel holds contiguously. The
remaining axes are unrolled.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

from tridsl.backends.cpu.blocks import is_block
from tridsl.backends.cpu.emit_cast import from_stored
from tridsl.backends.cpu.emit_codec import emit_codec
from tridsl.backends.cpu.emit_frame import Frame, Lane, Place, known_numbers
from tridsl.backends.cpu.emit_index import STORED_BYTES, Access, access_of
from tridsl.backends.cpu.emit_llvm import (
    BRAIN,
    STORED,
    WORD,
    Value,
    constant,
    declare,
    ir,
    lanes_of,
    shuffle,
    splat,
)
from tridsl.backends.cpu.emit_memory import address, load_lanes
from tridsl.backends.cpu.emit_tiles import emit_block_mma
from tridsl.devices.intrinsics import INTRINSICS, Intrinsic
from tridsl.ir.expr import Expr, Load, index
from tridsl.ir.loop import Mma
from tridsl.ir.walk import substitute, variables, walk
from tridsl.structs import dataclass, replace

Step = Callable[[Frame, Value, Value, Value], Value]
"""(accumulator lanes, a, b) -> new accumulator; a and b hold k elements for each lane, k fastest."""


def emit_mma(frame: Frame, statement: Mma) -> None:
    if is_block(statement):
        emit_block_mma(frame, statement)
        return
    assert frame.lane is None, "a matrix instruction stands in a vector loop"
    row = INTRINSICS[statement.intrinsic]
    step = STEPS[row.name]
    in_target = variables(statement.target)
    depth = [(v, n) for v, n in statement.axes if v not in in_target]
    across = [(v, n) for v, n in statement.axes if v in in_target]
    lane_axis = max(across, key=lambda axis: (axis[1], across.index(axis)))
    others = [axis for axis in across if axis != lane_axis]
    points = list(product(*(range(n) for _, n in depth)))
    width = max(4, frame.chip.vector_bits // row.acc.bits)
    for outer in product(*(range(n) for _, n in others)):
        with known_numbers(frame, zip((v for v, _ in others), outer)):
            place = frame.places[statement.target.tensor]
            target = _lanes(frame, lane_axis, place, statement.target.index)
            groups = [points[k : k + row.k] for k in range(0, len(points), row.k)]
            operands = [tuple(_operand(frame, statement, row, load, depth, group, lane_axis) for load in (statement.a, statement.b)) for group in groups]
            for start in range(0, lane_axis[1], width):
                count = min(width, lane_axis[1] - start)
                part = replace(target, offsets=target.offsets[start : start + count])
                total = _widen(frame, load_lanes(frame, place, _rebased(part), None), count)
                for a, b in operands:
                    total = step(frame, total, a(start, count), b(start, count))
                pointer = address(frame, place, _rebased(part))
                assert part.offsets == tuple(range(part.offsets[0], part.offsets[0] + count)), "the target's lanes are not contiguous"
                narrowed = shuffle(frame.builder, total, list(range(count)))
                frame.builder.store(narrowed, pointer, align=STORED_BYTES[STORED[place.dtype]])


def _lanes(frame: Frame, axis: tuple[str, int], place: Place, position: tuple[Expr, ...]) -> Access:
    """The access over the lanes of `axis`."""
    frame.lane = Lane(variable=axis[0], count=axis[1])
    access = access_of(frame, place, position)
    frame.lane = None
    assert access.varying is None, "an operand of a matrix instruction is not affine in its lanes"
    return access


def _rebased(access: Access) -> Access:
    """The same elements with the first lane's offset in the constant, where addresses are cheapest."""
    first = access.offsets[0]
    return replace(access, constant=access.constant + first, offsets=tuple(o - first for o in access.offsets), align=1)


def _operand(
    frame: Frame, statement: Mma, row: Intrinsic, operand: Expr, depth: list[tuple[str, int]], group: list[tuple[int, ...]], axis: tuple[str, int]
) -> Callable[[int, int], Value]:
    """A function of (first lane, lanes) that gives the operand's register."""
    assert len(group) == row.k, f"{row.name} needs a multiple of {row.k} products"
    offset = OFFSET.get(row.name, 0) if operand is statement.a else 0
    operand = substitute(operand, {name: index(number) for name, number in frame.known.items()})
    elements = {load: _elements(frame, load, depth, group, axis) for load in walk(operand) if isinstance(load, Load)}

    def register(start: int, count: int) -> Value:
        values = emit_codec(frame, operand, {load: read(start, count) for load, read in elements.items()})
        return frame.builder.xor(values, constant(values.type, offset)) if offset else values

    if all(read.uniform for read in elements.values()):
        values = register(0, 1)
        return lambda start, count: _repeat(frame, values, _full(count))
    return register


@dataclass(frozen=True, slots=True)
class _Elements:
    """The k elements of each lane, k fastest: `accesses` are those of the k steps over the lanes. `uniform`: the same in all lanes."""

    frame: Frame
    place: Place
    accesses: tuple[Access, ...]

    @property
    def uniform(self) -> bool:
        return self.accesses[0].uniform

    def __call__(self, start: int, count: int) -> Value:
        """Those of the lanes from `start`, filled up to a whole register."""
        base = self.accesses[0]
        shift = [a.constant - base.constant for a in self.accesses]
        if self.uniform:
            return self._read(shift, 1)
        offsets = [a.offsets[n] + s for n in range(start, start + count) for a, s in zip(self.accesses, shift)]
        values = self._read(offsets, count)
        lanes = _full(count) * len(self.accesses)
        return values if lanes_of(values) == lanes else shuffle(self.frame.builder, values, [*range(len(offsets)), *[-1] * (lanes - len(offsets))])

    def _read(self, offsets: list[int], lanes: int) -> Value:
        flat = replace(self.accesses[0], offsets=tuple(offsets), align=1)
        return from_stored(self.frame.builder, load_lanes(self.frame, self.place, _rebased(flat), None), self.place.dtype)


def _elements(frame: Frame, load: Load, depth: list[tuple[str, int]], group: list[tuple[int, ...]], axis: tuple[str, int]) -> _Elements:
    assert load.mask is None, "an operand of a matrix instruction is masked"
    place = frame.places[load.tensor]
    accesses = []
    for point in group:
        with known_numbers(frame, zip((v for v, _ in depth), point)):
            accesses.append(_lanes(frame, axis, place, load.index))
    return _Elements(frame, place, tuple(accesses))


def _full(count: int) -> int:
    """Lanes of the register that holds `count`: 4, 8 or 16 of 32 bits."""
    return max(4, 1 << (count - 1).bit_length())


def _widen(frame: Frame, value: Value, count: int) -> Value:
    return shuffle(frame.builder, value, [*range(count), *[-1] * (_full(count) - count)])


def _repeat(frame: Frame, group: Value, lanes: int) -> Value:
    """The k elements of `group` in each lane, as one broadcast of 32 bits where they fill them."""
    builder, depth = frame.builder, lanes_of(group)
    if depth == 1:
        return splat(builder, builder.extract_element(group, constant(WORD, 0)), lanes)
    word = builder.bitcast(group, WORD)
    return builder.bitcast(splat(builder, word, lanes), ir.VectorType(group.type.element, lanes * depth))


def _call(frame: Frame, name: str, total: Value, a: Value, b: Value) -> Value:
    function = declare(frame.builder.module, f"llvm.x86.{name}.{32 * lanes_of(total)}", total.type, [total.type, a.type, b.type])
    return frame.builder.call(function, [total, a, b])


def _words(frame: Frame, value: Value) -> Value:
    """As 32-bit lanes: the type that these intrinsics have had in every LLVM (newer ones upgrade it)."""
    lanes = lanes_of(value) * value.type.element.width // 32
    return frame.builder.bitcast(value, ir.VectorType(WORD, lanes))


def _fma(frame: Frame, total: Value, a: Value, b: Value) -> Value:
    return frame.builder.fadd(total, frame.builder.fmul(a, b, flags=("contract",)), flags=("contract",))


def _vpdpbusd(frame: Frame, total: Value, a: Value, b: Value) -> Value:
    return _call(frame, "avx512.vpdpbusd", total, _words(frame, a), _words(frame, b))


def _vpdpbssd(frame: Frame, total: Value, a: Value, b: Value) -> Value:
    """`a` comes as a + 128 (`OFFSET`); what that adds, 128 times the sum of b, is taken off beside it and shared by all rows."""
    builder = frame.builder
    excess = _call(frame, "avx512.vpdpbusd", constant(total.type, 0), constant(total.type, 0x80808080), _words(frame, b))
    return _call(frame, "avx512.vpdpbusd", builder.sub(total, excess), _words(frame, a), _words(frame, b))


def _vpdpwssd(frame: Frame, total: Value, a: Value, b: Value) -> Value:
    return _call(frame, "avx512.vpdpwssd", total, _words(frame, a), _words(frame, b))


def _vdpbf16ps(frame: Frame, total: Value, a: Value, b: Value) -> Value:
    kind = ir.VectorType(BRAIN, lanes_of(a))
    return _call(frame, "avx512bf16.dpbf16ps", total, frame.builder.bitcast(a, kind), frame.builder.bitcast(b, kind))


OFFSET = {"vpdpbssd": 0x80}
"""Instructions that take an unsigned `a` for a signed one: the sign bit is flipped, before broadcasting."""

STEPS: dict[str, Step] = {
    "fma": _fma,
    "vpdpbusd": _vpdpbusd,
    "vpdpbssd": _vpdpbssd,
    "vpdpwssd": _vpdpwssd,
    "vdpbf16ps": _vdpbf16ps,
}

