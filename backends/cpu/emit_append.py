"""Compaction: `Append` packs the kept lanes of a register to its front and stores them behind what was appended before."""

from __future__ import annotations

from tridsl.backends.cpu.emit_cast import emit_cast, to_stored
from tridsl.backends.cpu.emit_frame import Frame, Place, allocate_on_stack, emit_branches, emit_if
from tridsl.backends.cpu.emit_llvm import (
    INDEX_TYPE,
    POINTER,
    STORED,
    VOID,
    WORD,
    Value,
    constant,
    declare,
    index_constant,
    intrinsic,
    ir,
    lane,
    lanes_of,
    mangle,
    shuffle,
    splat,
    vector_constant,
)
from tridsl.backends.cpu.emit_memory import conjunction, emit_load, emit_store
from tridsl.dtypes import INDEX
from tridsl.ir.expr import Load
from tridsl.ir.loop import Append, Ref


def emit_append(frame: Frame, statement: Append) -> None:
    """`if keep: tensors[n][count] = values[n]; count += 1`, in lane order."""
    keep = frame.evaluate(statement.keep)
    places = [frame.places[tensor] for tensor in statement.tensors]
    stored = [
        to_stored(frame.builder, emit_cast(frame.builder, frame.evaluate(value), value.dtype, place.dtype), place.dtype)
        for place, value in zip(places, statement.values)
    ]
    if frame.lane is None:
        with emit_if(frame, keep):
            count = _count(frame, statement.count)
            for place, value in zip(places, stored):
                frame.builder.store(value, _element(frame, place, count), align=place.dtype.storage_bytes)
            emit_store(frame, statement.count, frame.builder.add(count, index_constant(1), flags=("nsw",)))
        return
    lane_state = frame.lane
    keep = splat(frame.builder, keep, lane_state.count)
    active = conjunction(frame, keep, lane_state.tail, lane_state.condition)
    stored = [splat(frame.builder, value, lane_state.count) for value in stored]
    frame.lane = None
    count = _count(frame, statement.count)
    if all(_compresses(frame, place) for place in places):
        after = _compressed(frame, places, stored, active, count, _limit(frame, statement, places))
    else:
        after = _one_by_one(frame, places, stored, active, count)
    emit_store(frame, statement.count, after)
    frame.lane = lane_state


def _count(frame: Frame, count: Ref) -> Value:
    return emit_load(frame, Load(tensor=count.tensor, index=count.index, dtype=INDEX))


def _limit(frame: Frame, statement: Append, places: list[Place]) -> Value:
    """Where the elements end that may be written."""
    limits = [frame.evaluate(place.shape[0]) for place in places]
    if statement.limit is not None:
        limits.append(frame.evaluate(statement.limit))
    low = limits[0]
    for limit in limits[1:]:
        low = intrinsic(frame.builder, "smin", INDEX_TYPE, [low, limit])
    return low


def _element(frame: Frame, place: Place, position: Value) -> Value:
    step = frame.evaluate(place.strides[0])
    offset = position if isinstance(step, ir.Constant) and step.constant == 1 else frame.builder.mul(position, step, flags=("nsw",))
    return frame.builder.gep(place.pointer, [offset], source_etype=STORED[place.dtype])


def _compresses(frame: Frame, place: Place) -> bool:
    """Whether the processor has an instruction that compresses elements of this width."""
    return ("avx512f" if place.dtype.storage_bits >= 32 else "avx512vbmi2") in frame.chip.features


def _compressed(frame: Frame, places: list[Place], stored: list[Value], active: Value, count: Value, limit: Value) -> Value:
    """Compress to a register, one register at a time, then store; the new count.

    Not `masked.compressstore`: its x86 instruction is microcoded on Zen 4. What lies past the count is unspecified, so a
    register is stored whole wherever it does not run past `limit`. The widest element decides how many lanes are
    taken together, so that all tensors advance by one count.
    """
    builder = frame.builder
    lanes = lanes_of(active)
    step = max(1, min(lanes, *(frame.chip.vector_bits // place.dtype.storage_bits for place in places)))
    for start in range(0, lanes, step):
        part = list(range(start, min(start + step, lanes)))
        # LLVM compresses whole registers only: the missing lanes are switched off.
        size = max(*(128 // place.dtype.storage_bits for place in places), 1 << (len(part) - 1).bit_length())
        fill = size - len(part)
        mask = shuffle(builder, active, [*part, *[lanes] * fill], constant(active.type, 0) if fill else None)
        packed = [_packed(builder, shuffle(builder, value, [*part, *[-1] * fill]), mask) for value in stored]
        bits = builder.bitcast(mask, ir.IntType(size))
        number = intrinsic(builder, "ctpop", bits.type, [bits])  # at most `size`, which fits `size` >= 2 bits
        kept = builder.zext(number, INDEX_TYPE) if size < 64 else number
        pointers = [_element(frame, place, count) for place in places]

        def whole(packed: list[Value] = packed, pointers: list[Value] = pointers) -> None:
            for place, value, pointer in zip(places, packed, pointers):
                builder.store(value, pointer, align=place.dtype.storage_bytes)

        def exact(packed: list[Value] = packed, pointers: list[Value] = pointers, kept: Value = kept, size: int = size) -> None:
            below = builder.icmp_signed("<", vector_constant(WORD, range(size)), splat(builder, builder.trunc(kept, WORD), size))
            for place, value, pointer in zip(places, packed, pointers):
                name = f"llvm.masked.store.{mangle(value.type)}.p0"
                function = declare(builder.module, name, VOID, [value.type, POINTER, WORD, below.type])
                builder.call(function, [value, pointer, constant(WORD, place.dtype.storage_bytes), below])

        end = builder.add(count, index_constant(size), flags=("nsw",))
        emit_branches(frame, builder.icmp_signed("<=", end, limit), whole, exact)
        count = builder.add(count, kept, flags=("nsw",))
    return count


def _packed(builder: ir.IRBuilder, values: Value, mask: Value) -> Value:
    """The lanes of `mask` side by side, zeros behind them."""
    vector = values.type
    if isinstance(vector.element, ir.HalfType):  # LLVM 22 cannot compress halves; the bits are all that matters
        vector = ir.VectorType(ir.IntType(16), lanes_of(values))
        values = builder.bitcast(values, vector)
    return intrinsic(builder, "experimental.vector.compress", vector, [values, mask, constant(vector, 0)])


def _one_by_one(frame: Frame, places: list[Place], stored: list[Value], active: Value, count: Value) -> Value:
    """Without a compress instruction: each lane stores, to its place or to a slot nobody reads, and nothing branches."""
    builder = frame.builder
    nowhere = [allocate_on_stack(frame, STORED[place.dtype], 1, place.dtype.storage_bytes) for place in places]
    for number in range(lanes_of(active)):
        kept = lane(builder, active, number)
        for place, value, slot in zip(places, stored, nowhere):
            pointer = builder.select(kept, _element(frame, place, count), slot)
            builder.store(lane(builder, value, number), pointer, align=place.dtype.storage_bytes)
        count = builder.add(count, builder.zext(kept, INDEX_TYPE), flags=("nsw",))
    return count
