"""Channels: an access at a fixed place of a short innermost axis (`rgba[y, x, 1]`, `z[n, 0]` of a complex pair).

Each lane's whole group is one wider integer, read in one piece, shifted and cut. The group of an element that may be read lies
inside the tensor, so nothing is read that is not there; and the channels of one pixel are one load, not one each.
"""

from __future__ import annotations

from tridsl.backends.cpu.emit_frame import Frame, Place
from tridsl.backends.cpu.emit_index import STORED_BYTES, Access
from tridsl.backends.cpu.emit_llvm import STORED, WORD, Value, constant, declare, ir, mangle
from tridsl.ir.affine import constant as constant_of
from tridsl.ir.expr import Expr
from tridsl.structs import replace

GROUP_BYTES = (2, 4, 8)


def channel_of(place: Place, position: tuple[Expr, ...], access: Access) -> tuple[int, int] | None:
    """(channel, channels) when the lanes walk whole groups of a contiguous innermost axis and read one place of each."""
    if len(position) < 2 or place.role is None or not access.offsets or place.private:
        return None
    channels, channel = constant_of(place.shape[-1]), constant_of(position[-1])
    if channels is None or channel is None or channels < 2 or not 0 <= channel < channels:
        return None
    if channels * STORED_BYTES[STORED[place.dtype]] not in GROUP_BYTES or constant_of(place.strides[-1]) != 1:
        return None
    first = access.offsets[0]
    steps = [offset - first for offset in access.offsets]
    return (channel, channels) if steps == [channels * lane for lane in range(len(steps))] else None


def first_group(access: Access, channel: tuple[int, int]) -> Access:
    """Where the first lane's group starts."""
    return replace(access, constant=access.constant + access.offsets[0] - channel[0], offsets=())


def load_group(frame: Frame, place: Place, pointer: Value, lanes: int, channels: int, mask: Value | None) -> Value:
    """`lanes` groups from `pointer` on, each as one integer; lanes outside `mask` are not read and are 0."""
    builder, size = frame.builder, STORED_BYTES[STORED[place.dtype]]
    group = ir.VectorType(ir.IntType(8 * size * channels), lanes)
    if mask is None:
        return builder.load(pointer, align=size, typ=group)
    function = declare(builder.module, f"llvm.masked.load.{mangle(group)}.p0", group, [pointer.type, WORD, mask.type, group])
    return builder.call(function, [pointer, constant(WORD, size), mask, constant(group, 0)])


def load_channel(frame: Frame, place: Place, pointer: Value, lanes: int, channel: tuple[int, int], mask: Value | None) -> Value:
    """The stored elements of `lanes` groups from `pointer` on; lanes outside `mask` are not read and are 0."""
    builder, kind = frame.builder, STORED[place.dtype]
    number, channels = channel
    size = STORED_BYTES[kind]
    loaded = load_group(frame, place, pointer, lanes, channels, mask)
    moved = builder.lshr(loaded, constant(loaded.type, 8 * size * number)) if number else loaded
    narrow = builder.trunc(moved, ir.VectorType(ir.IntType(8 * size), lanes))
    return narrow if isinstance(kind, ir.IntType) else builder.bitcast(narrow, ir.VectorType(kind, lanes))
