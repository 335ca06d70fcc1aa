"""Loads and stores: one value, a whole vector, a strided span that is shuffled, or gather and scatter.

A lane that is switched off writes nothing, and reads nothing but registers' buffers and the padded part of buffers, where that
is harmless. (Loops that may also write there were widened to their bound before: `passes.pad_tiles`.)
"""

from __future__ import annotations

from typing import Any

from tridsl.backends.cpu.emit_cast import from_stored, to_stored
from tridsl.backends.cpu.emit_frame import Frame, Lane, Place, allocate_on_stack, emit_if, once
from tridsl.backends.cpu.emit_group import channel_of, first_group, load_channel
from tridsl.backends.cpu.emit_index import STORED_BYTES, Access, access_of
from tridsl.backends.cpu.emit_llvm import (
    BIT,
    INDEX_TYPE,
    POINTER,
    STORED,
    VOID,
    WORD,
    Value,
    any_lane,
    constant,
    declare,
    index_constant,
    ir,
    lanes_of,
    mangle,
    shuffle,
    splat,
    together,
    vector_constant,
)
from tridsl.ir.affine import constant as constant_of
from tridsl.ir.affine import normal_form
from tridsl.ir.expr import Expr, Lead, Load, index
from tridsl.ir.loop import Ref
from tridsl.ir.walk import substitute, variables

MOST_READERS = 4
"""Lanes that read one element (a pixel's channels its weight) up to which their masks are put together."""
WIDEST_SPAN = 4
"""Bytes read per byte used, up to which a strided access is one wide load and a shuffle instead of a gather."""


def emit_load(frame: Frame, node: Load) -> Value:
    """`tensor[index]`, or `other` where the load's own mask is false."""
    if node.tensor in frame.scanned:
        return frame.scanned[node.tensor]
    place = frame.places[node.tensor]
    access = access_of(frame, place, node.index)
    own = None if node.mask is None else frame.evaluate(node.mask)
    other = None if node.other is None else frame.evaluate(node.other)
    if access.uniform and not (own is not None and lanes_of(own) and frame.lane):
        return _load_scalar(frame, place, access, own, other, node)
    if access.uniform:
        assert frame.lane is not None and own is not None
        loaded = _load_scalar(frame, place, access, any_lane(frame.builder, own), None, node)
        return _choose(frame, own, loaded, other)
    mask, channel = lane_mask(frame, place, node.index, own), channel_of(place, node.index, access)
    if channel is None:
        stored = load_lanes(frame, place, access, mask)
    else:
        stored = load_channel(frame, place, address(frame, place, first_group(access, channel)), access.lanes, channel, mask)
    value = from_stored(frame.builder, stored, place.dtype)
    return _choose(frame, own, value, other) if own is not None and other is not None else value


def emit_lead(frame: Frame, node: Lead) -> Value:
    """From the pointer's low bits: what is missing to the next multiple, in elements."""
    place, builder = frame.places[node.tensor], frame.builder
    size = STORED_BYTES[STORED[place.dtype]]
    missing = builder.and_(builder.neg(builder.ptrtoint(place.pointer, INDEX_TYPE)), constant(INDEX_TYPE, node.count * size - 1))
    return builder.lshr(missing, constant(INDEX_TYPE, size.bit_length() - 1))


def _choose(frame: Frame, mask: Value, value: Value, other: Value | None) -> Value:
    if other is None:
        other = constant(value.type, 0)
    mask, value, other = together(frame.builder, mask, value, other)
    return frame.builder.select(mask, value, other)


def lane_mask(frame: Frame, place: Place, position: tuple[Expr, ...], own: Value | None) -> Value | None:
    """Lanes that may read `place[position]`: all of the loop's masks, without those that are provably not needed."""
    lane = frame.lane
    assert lane is not None
    masks = [] if own is None else [splat(frame.builder, own, lane.count)]
    if lane.tail is not None and not (in_padding(place, position, lane) or has_room(place, position, lane)):
        masks.append(lane.tail)
    if lane.condition is not None and place.space != "reg":
        masks.append(lane.condition)
    return conjunction(frame, *masks)


def has_room(place: Place, position: tuple[Expr, ...], lane: Lane) -> bool:
    """Whether a register's buffer holds an element for every lane, also for the idle ones."""
    if place.space != "reg" or place.private or lane.widened:
        return place.space == "reg"
    touched = [d for d, coordinate in enumerate(position) if lane.variable in variables(coordinate)]
    return all(_fits(place, position[d], d, lane) for d in touched)


def conjunction(frame: Frame, *masks: Value | None) -> Value | None:
    """All of the masks; None is true."""
    given = [m for m in masks if m is not None]
    if not given:
        return None
    given = list(together(frame.builder, *given))
    total = given[0]
    for mask in given[1:]:
        total = frame.builder.and_(total, mask)
    return total


def in_padding(place: Place, position: tuple[Expr, ...], lane: Lane) -> bool:
    """Whether the lane variable occurs only in axes that were rounded up to the loop's bound."""
    if place.private:
        return True
    if lane.widened:
        return False
    touched = [d for d, coordinate in enumerate(position) if lane.variable in variables(coordinate)]
    return bool(touched) and bool(place.padded) and all(place.padded[d] and _fits(place, position[d], d, lane) for d in touched)


def _fits(place: Place, position: Expr, axis: int, lane: Lane) -> bool:
    """Whether all lanes, the idle ones too, stay inside the axis: its extent covers the loop's bound, not any bound."""
    extent = constant_of(place.shape[axis])
    start = constant_of(substitute(position, {lane.variable: index(0)}))
    return extent is not None and start is not None and normal_form(position).coefficient(lane.variable) == 1 and start + lane.count <= extent


def address(frame: Frame, place: Place, access: Access, offset: int = 0) -> Value:
    """The pointer to the access's first element plus `offset` elements."""
    kind = STORED[place.dtype]

    def moved(pointer: Value, elements: Value) -> Value:
        return frame.builder.gep(pointer, [elements], source_etype=kind)

    pointer = place.pointer
    if access.base is not None:
        pointer = once(frame, kind, (pointer, access.base), moved)
    rest = access.constant + offset
    return once(frame, kind, (pointer, index_constant(rest)), moved) if rest else pointer


def _load_scalar(frame: Frame, place: Place, access: Access, own: Value | None, other: Value | None, node: Load) -> Value:
    """One element for all lanes; where nothing may be read, a stack slot is read in its stead."""
    builder, kind = frame.builder, STORED[place.dtype]
    guard = own
    if frame.lane and frame.lane.condition is not None and place.space != "reg":
        guard = conjunction(frame, guard, any_lane(builder, frame.lane.condition))
    pointer = address(frame, place, access)
    if guard is not None:
        pointer = builder.select(guard, pointer, _nothing(frame))
    loaded = builder.load(pointer, align=STORED_BYTES[kind], typ=kind)
    value = from_stored(builder, loaded, place.dtype)
    return value if own is None or other is None else _choose(frame, own, value, other)


def _nothing(frame: Frame) -> Value:
    """Eight bytes of zeros that may always be read: one slot a function."""
    if frame.zeros is None:
        frame.zeros = allocate_on_stack(frame, INDEX_TYPE, 1, 8)
        frame.entry.store(constant(INDEX_TYPE, 0), frame.zeros)
    return frame.zeros


def load_lanes(frame: Frame, place: Place, access: Access, mask: Value | None) -> Value:
    """The stored elements of all lanes of a lane-varying access; lanes outside `mask` are not read and are 0."""
    kind, lanes = STORED[place.dtype], access.lanes
    if access.offsets:
        low, high = min(access.offsets), max(access.offsets)
        span = high - low + 1
        relative = [o - low for o in access.offsets]
        if relative == list(range(lanes)):
            return _load_vector(frame, place, access, low, lanes, mask)
        # All lanes active: the first and the last element are inside, so is everything between them.
        if mask is None and span <= WIDEST_SPAN * lanes:
            wide = _load_vector(frame, place, access, low, span, None)
            return shuffle(frame.builder, wide, relative)
        readers = [[lane for lane, offset in enumerate(relative) if offset == element] for element in range(span)] if mask is not None else []
        if mask is not None and frame.chip.masks and span <= WIDEST_SPAN * lanes and max(map(len, readers)) <= MOST_READERS:
            # Of the span only the lanes' own elements are read.
            turns = [[found[turn] if turn < len(found) else lanes for found in readers] for turn in range(max(map(len, readers)))]
            own = shuffle(frame.builder, mask, turns[0], constant(mask.type, 0))
            for lane_of in turns[1:]:
                own = frame.builder.or_(own, shuffle(frame.builder, mask, lane_of, constant(mask.type, 0)))
            return shuffle(frame.builder, _load_vector(frame, place, access, low, span, own), relative)
    pointers = _lane_pointers(frame, place, access)
    every = mask if mask is not None else constant(ir.VectorType(BIT, lanes), 1)
    vector = ir.VectorType(kind, lanes)
    function = declare(
        frame.builder.module, f"llvm.masked.gather.{mangle(vector)}.{mangle(pointers.type)}", vector, [pointers.type, WORD, every.type, vector]
    )
    return frame.builder.call(function, [pointers, constant(WORD, STORED_BYTES[kind]), every, constant(vector, 0)])


def _load_vector(frame: Frame, place: Place, access: Access, offset: int, lanes: int, mask: Value | None) -> Value:
    kind = STORED[place.dtype]
    vector = ir.VectorType(kind, lanes)
    pointer = address(frame, place, access, offset)
    align = access.align if not offset else STORED_BYTES[kind]
    if mask is None:
        return frame.builder.load(pointer, align=align, typ=vector)
    function = declare(frame.builder.module, f"llvm.masked.load.{mangle(vector)}.p0", vector, [POINTER, WORD, mask.type, vector])
    return frame.builder.call(function, [pointer, constant(WORD, align), mask, constant(vector, 0)])


def _lane_pointers(frame: Frame, place: Place, access: Access) -> Value:
    """A vector of addresses."""
    builder, kind = frame.builder, STORED[place.dtype]
    lanes = access.lanes or (frame.lane.count if frame.lane else 1)
    if access.varying is not None:
        start = address(frame, place, Access(base=None, constant=access.constant))
        return builder.gep(splat(builder, start, lanes), [access.varying], source_etype=kind)
    start = splat(builder, address(frame, place, access), lanes)
    offsets = access.offsets or (0,) * lanes
    result = ir.instructions.GEPInstr(builder.block, start, [vector_constant(INDEX_TYPE, offsets)], inbounds=False, name="", source_etype=kind)
    builder._insert(result)
    return result


def emit_store(frame: Frame, target: Ref, value: Value, own: Value | None = None) -> None:
    """`target = value` (held form of the target's dtype) in the lanes that are on.

    A lane-varying value stored to one place for all lanes leaves the last active lane's.
    """
    place = frame.places[target.tensor]
    access = access_of(frame, place, target.index)
    stored = to_stored(frame.builder, value, place.dtype)
    if frame.lane is None:
        if own is None:
            _store_scalar(frame, place, access, stored)
        else:
            with emit_if(frame, own):
                _store_scalar(frame, place, access, stored)
    elif access.uniform and not lanes_of(stored) and (own is None or not lanes_of(own)):
        _store_for_any(frame, place, access, stored, own)
    else:
        blended = place.space == "reg" and (frame.lane.tail is None or has_room(place, target.index, frame.lane))
        _store_lanes(frame, place, access, splat(frame.builder, stored, frame.lane.count), own, blended)


def _unknown(frame: Frame, kind: Any, mask: Value) -> Value:
    """The mask, hidden from LLVM where that is needed.

    With one lane on, LLVM's X86 backend (20 to 22) makes a masked store of truncated integers a store of one element, and that
    of the wide integer: it writes past the element. An empty `asm` keeps it from knowing how many lanes are on.
    """
    builder, lanes = frame.builder, lanes_of(mask)
    if not (frame.chip.x86 and frame.chip.masks and isinstance(kind, ir.IntType) and kind.width < 64 and lanes <= 64):
        return mask
    word = ir.IntType(max(32, lanes))
    bits = builder.bitcast(mask, ir.IntType(lanes))
    hidden = builder.asm(ir.FunctionType(word, [word]), "", "=r,0", [builder.zext(bits, word) if lanes < word.width else bits], False)
    return builder.bitcast(builder.trunc(hidden, bits.type) if lanes < word.width else hidden, mask.type)


def _store_scalar(frame: Frame, place: Place, access: Access, stored: Value) -> None:
    stored = splat(frame.builder, stored, place.spread)
    frame.builder.store(stored, address(frame, place, access), align=STORED_BYTES[STORED[place.dtype]])


def _store_for_any(frame: Frame, place: Place, access: Access, stored: Value, own: Value | None) -> None:
    """One value, the same in all lanes: stored once if any lane is on (the tail always has its first lane)."""
    assert frame.lane is not None
    condition = frame.lane.condition
    guard = conjunction(frame, own, None if condition is None else any_lane(frame.builder, condition))
    if guard is None:
        _store_scalar(frame, place, access, stored)
    else:
        with emit_if(frame, guard):
            _store_scalar(frame, place, access, stored)


def _store_lanes(frame: Frame, place: Place, access: Access, stored: Value, own: Value | None, blended: bool) -> None:
    builder, lane, kind = frame.builder, frame.lane, STORED[place.dtype]
    assert lane is not None
    contiguous = access.offsets == tuple(range(lane.count))
    if blended and contiguous:
        # A whole vector in a register: blending keeps it there, a masked store would force it into memory.
        mask = conjunction(frame, own, lane.condition, None if place.private else lane.tail)
        pointer = address(frame, place, access)
        if mask is not None:
            before = builder.load(pointer, align=access.align, typ=stored.type)
            stored = builder.select(splat(builder, mask, lane.count), stored, before)
        builder.store(stored, pointer, align=access.align)
        return
    mask = conjunction(frame, own, lane.condition, lane.tail)
    if contiguous and mask is None:
        builder.store(stored, address(frame, place, access), align=access.align)
        return
    every = constant(ir.VectorType(BIT, lane.count), 1) if mask is None else splat(builder, mask, lane.count)
    if contiguous:
        every = _unknown(frame, kind, every)
        function = declare(builder.module, f"llvm.masked.store.{mangle(stored.type)}.p0", VOID, [stored.type, POINTER, WORD, every.type])
        builder.call(function, [stored, address(frame, place, access), constant(WORD, access.align), every])
        return
    pointers = _lane_pointers(frame, place, access)
    name = f"llvm.masked.scatter.{mangle(stored.type)}.{mangle(pointers.type)}"
    function = declare(builder.module, name, VOID, [stored.type, pointers.type, WORD, every.type])
    builder.call(function, [stored, pointers, constant(WORD, STORED_BYTES[kind]), every])


