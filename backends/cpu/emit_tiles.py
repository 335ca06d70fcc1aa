"""Tiles of AMX: eight registers of sixteen rows of 64 bytes, named by numbers in the instructions (Intel SDM vol. 1, chapter 18).

LLVM's intrinsics with explicit numbers are used, not those with values of its type `x86_amx`: which tile holds what was decided by
`lower_tiles`, so nothing is left to allocate, and nothing is spilled. Every function that has tiles configures all eight alike, and
releases them at its end: what the system saves of a thread is small again.
"""

from __future__ import annotations

from math import prod

from tridsl.backends.cpu.amx import CONFIGURATION, REGISTERS, ROW_BYTES, ROWS
from tridsl.backends.cpu.blocks import is_block
from tridsl.backends.cpu.emit_frame import Frame, Place, allocate_on_stack, known_numbers
from tridsl.backends.cpu.emit_index import access_of
from tridsl.backends.cpu.emit_llvm import INDEX_TYPE, POINTER, VOID, Value, constant, declare, ir
from tridsl.backends.cpu.emit_memory import address
from tridsl.dtypes import DType
from tridsl.ir.affine import constant as constant_of
from tridsl.ir.affine import simplify_index
from tridsl.ir.expr import Const, Expr, Load, index
from tridsl.ir.loop import Block, Buffer, Copy, For, If, Mma
from tridsl.ir.walk import substitute
from tridsl.passes.whole_fragments import whole_load, whole_use

BYTE = ir.IntType(8)


def has_tiles(block: Block) -> bool:
    """Whether the function that runs the block needs tiles; parallel loops are functions of their own."""
    for statement in block:
        match statement:
            case Mma():
                found = is_block(statement)
            case For(kind=kind, body=body):
                found = kind != "parallel" and has_tiles(body)
            case If(then=then, otherwise=otherwise):
                found = has_tiles(then) or has_tiles(otherwise)
            case _:
                found = False
        if found:
            return True
    return False


def start_tiles(frame: Frame, block: Block) -> None:
    """At the start of the function that runs the block."""
    frame.has_tiles = has_tiles(block)
    configure(frame)


def configure(frame: Frame) -> None:
    """All tiles, where the function has any: at its start, and behind calls of others, which release them."""
    if not frame.has_tiles:
        return
    builder = frame.builder
    kind = ir.VectorType(BYTE, len(CONFIGURATION))
    facts = allocate_on_stack(frame, BYTE, len(CONFIGURATION), 64)
    builder.store(ir.Constant(kind, list(CONFIGURATION)), facts, align=64)
    builder.call(declare(builder.module, "llvm.x86.ldtilecfg", VOID, [POINTER]), [facts])


def release(frame: Frame) -> None:
    if frame.has_tiles:
        frame.builder.call(declare(frame.builder.module, "llvm.x86.tilerelease", VOID, []), [])


def bind_tiles(frame: Frame, buffer: Buffer) -> None:
    """The next free registers, until the body of the loop around ends; the same ones in each copy of an unrolled body."""
    if buffer.name in frame.tiles:
        return
    count = prod(constant_of(n) or 1 for n in buffer.shape[: _leading(buffer.shape, buffer.dtype)])
    first = sum(len(numbers) for numbers in frame.tiles.values())
    assert first + count <= REGISTERS, f"no tile registers are left for {buffer.name}"
    frame.tiles[buffer.name] = range(first, first + count)
    frame.places[buffer.name] = Place(
        pointer=None, dtype=buffer.dtype, shape=buffer.shape, strides=(), space="fragment", role=None, align=ROW_BYTES
    )  # fmt: skip


def emit_whole(frame: Frame, loop: For) -> bool:
    """A nest that empties, loads or stores one tile."""
    use = (whole_use(loop) or whole_load(loop)) if frame.tiles else None
    if use is None:
        return False
    if use.tensor in frame.tiles:
        number = _number(frame, use.tensor, use.index)
        if isinstance(use.value, Load):
            _call(frame, "tileloadd64", number, *_rows(frame, frame.places[use.value.tensor], use.value.index, (use.rows, use.columns)))
        else:
            assert isinstance(use.value, Const) and not use.value.value, f"a tile of {use.tensor} is filled with something"
            _call(frame, "tilezero", number)
        return True
    if not isinstance(use.value, Load) or use.value.tensor not in frame.tiles:
        return False
    start, stride = _rows(frame, frame.places[use.tensor], use.index, (use.rows, use.columns))
    _call(frame, "tilestored64", _number(frame, use.value.tensor, use.value.index), start, stride)
    return True


def emit_tile_load(frame: Frame, copy: Copy) -> None:
    axes = tuple(axis.var for axis in copy.axes)
    start, stride = _rows(frame, frame.places[copy.source.tensor], copy.source.index, axes)
    _call(frame, "tileloadd64", _number(frame, copy.target.tensor, copy.target.index), start, stride)


def emit_block_mma(frame: Frame, statement: Mma) -> None:
    assert isinstance(statement.a, Load) and isinstance(statement.b, Load), "an operand of a block instruction is no element"
    used = ((n.tensor, n.index) for n in (statement.target, statement.a, statement.b))
    _call(frame, statement.intrinsic, *(_number(frame, *place) for place in used))


def _number(frame: Frame, tensor: str, place: tuple[Expr, ...]) -> Value:
    """The register of `tensor[place]`, the axes in front of the tile's own being known."""
    place_of = frame.places[tensor]
    outer = place_of.shape[: _leading(place_of.shape, place_of.dtype)]
    known = {name: index(number) for name, number in frame.known.items()}
    number = 0
    for extent, here in zip(outer, place):
        position = constant_of(simplify_index(substitute(here, known)))
        assert position is not None, f"it is not known which tile of {tensor} is meant"
        number = number * (constant_of(extent) or 1) + position
    return constant(BYTE, frame.tiles[tensor][number])


def _leading(shape: tuple[Expr, ...], dtype: DType) -> int:
    """Axes in front of those of one tile."""
    left, axes = ROWS * ROW_BYTES // dtype.storage_bytes, len(shape)
    while left > 1:
        axes -= 1
        left //= constant_of(shape[axes]) or left
    return axes


def _rows(frame: Frame, place: Place, position: tuple[Expr, ...], axes: tuple[str, ...]) -> tuple[Value, Value]:
    """Where the first row of a block lies in memory, and bytes from one row to the next; `axes`: of its rows, then along a row."""
    pointers = []
    for row in (0, 1):
        with known_numbers(frame, ((axis, row if axis == axes[0] else 0) for axis in axes)):
            pointers.append(address(frame, place, access_of(frame, place, position)))
    first, second = (frame.builder.ptrtoint(pointer, INDEX_TYPE) for pointer in pointers)
    return pointers[0], frame.builder.sub(second, first)


def _call(frame: Frame, name: str, *arguments: Value) -> None:
    function = declare(frame.builder.module, f"llvm.x86.{name}", VOID, [a.type for a in arguments])
    frame.builder.call(function, list(arguments))
