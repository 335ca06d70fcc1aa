"""Which local buffers may hold 16-byte words instead of elements: those that are only ever moved in whole words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from tridsl.backends.vulkan.contiguous import (
    MAX_BYTES,
    WORD_BYTES,
    Strides,
    is_multiple,
    offset_of,
    row_major,
    run_start,
)
from tridsl.backends.vulkan.emit_packed import is_packed_product
from tridsl.backends.vulkan.zeros import zero_fill
from tridsl.dtypes import DType
from tridsl.ir.affine import normal_form, to_expression
from tridsl.ir.expr import Const, Expr, Load
from tridsl.ir.loop import Alloc, Block, Buffer, Copy, For, Mma, Ref
from tridsl.ir.walk import walk


def word_buffers(block: Block, tensors: Mapping[str, tuple[DType, Strides]]) -> frozenset[str]:
    """Names of shared and register buffers of `block` that only copies of whole words, zeros in whole words, loads of fragments and products
    of words touch."""
    buffers = {n.buffer.name: n.buffer for n in walk(block) if isinstance(n, Alloc)}
    found = {name for name, buffer in buffers.items() if buffer.space in ("reg", "shared") and _is_even(buffer)}
    copies = [n for n in walk(block) if isinstance(n, Copy)]
    inside = {id(side) for copy in copies for side in (copy.target, copy.source)}
    products = [n for n in walk(block) if isinstance(n, Mma) and is_packed_product(n)]
    inside |= {id(n) for mma in products for side in (mma.a, mma.b) for n in walk(side) if isinstance(n, Load)}
    fills = [n for n in (zero_fill(loop) for loop in walk(block) if isinstance(loop, For)) if n is not None]
    inside |= {id(target) for target, variable, count in fills if target.tensor in found and _in_words(target, variable, count, buffers[target.tensor])}
    found -= {n.tensor for n in walk(block) if isinstance(n, Load | Ref) and id(n) not in inside}
    found -= {name for copy in copies for name in _split(copy, buffers)}
    lone = {copy for copy in copies if _moves_single_words(copy, buffers)}
    while True:
        # single words come from words and go to words; elements in shared memory come from and go to elements
        lost = {
            a
            for copy in copies
            for a, b in ((copy.target.tensor, copy.source.tensor), (copy.source.tensor, copy.target.tensor))
            if a in found and b not in found and b not in tensors and (buffers[b].space == "shared" or copy in lone)
        }
        if not lost:
            return frozenset(found)
        found -= lost


def _in_words(target: Ref, variable: str, count: int, buffer: Buffer) -> bool:
    whole = count * buffer.dtype.storage_bytes % MAX_BYTES == 0
    return whole and run_start(target.index, row_major(buffer.shape), variable, count) is not None


def _is_even(buffer: Buffer) -> bool:
    count = 1
    for size in buffer.shape:
        count *= int(size.value) if isinstance(size, Const) else 0
    return bool(buffer.shape) and count > 0 and count * buffer.dtype.storage_bytes % MAX_BYTES == 0


def _split(copy: Copy, buffers: Mapping[str, Buffer]) -> set[str]:
    """Buffers that `copy` does not move in whole words."""
    sides = (copy.target, copy.source)
    names = {side.tensor for side in sides if side.tensor in buffers}
    plain = not copy.cooperative and copy.pad is None and copy.source.mask is None and bool(copy.axes)
    if not plain or len({_dtype(copy, buffers, side.tensor) for side in sides}) > 1:
        return names
    if copy.target.tensor in buffers and buffers[copy.target.tensor].space == "fragment":
        return {copy.source.tensor} if copy.source.tensor in buffers and not _has_word_rows(copy, buffers) else set()
    (*_, last) = copy.axes
    if not isinstance(last.extent, Const) or last.bound is not None:
        return names
    count = int(last.extent.value)
    if _takes_one_word(copy, last.var, count, buffers) or turns_words(copy, last.var, count, buffers):
        return set()
    whole = count * buffers[next(iter(names))].dtype.storage_bytes % MAX_BYTES == 0
    runs = all(run_start(side.index, row_major(buffers[side.tensor].shape), last.var, count) is not None for side in sides if side.tensor in names)
    return set() if (whole and runs) or _moves_single_words(copy, buffers) else names


def _moves_single_words(copy: Copy, buffers: Mapping[str, Buffer]) -> bool:
    """Whether both sides may hold words, of which one after the other is moved: to a panel that lies the other way round than its source."""
    sides = (copy.target.tensor, copy.source.tensor)
    if not copy.axes or not all(name in buffers for name in sides) or buffers[sides[0]].space != "shared":
        return False
    (*_, last) = copy.axes
    to = normal_form(offset_of(copy.target.index, row_major(buffers[sides[0]].shape)))
    return {buffers[name].dtype.storage_bytes for name in sides} == {WORD_BYTES} and to.coefficient(last.var) != 1


def _takes_one_word(copy: Copy, variable: str, count: int, buffers: Mapping[str, Buffer]) -> bool:
    """Whether a word of global memory becomes one of the words of a register buffer, to be turned (`turns_words`)."""
    target = buffers.get(copy.target.tensor)
    if target is None or target.space != "reg" or copy.source.tensor in buffers or count * target.dtype.storage_bytes != WORD_BYTES:
        return False
    return count > 1 and run_start(copy.target.index, row_major(target.shape), variable, count) is not None


def turns_words(copy: Copy, variable: str, count: int, buffers: Mapping[str, Buffer]) -> bool:
    """Whether narrow elements of words, one of each, become 16 bytes of a panel: a column of what is in registers."""
    target, source = buffers.get(copy.target.tensor), buffers.get(copy.source.tensor)
    if target is None or source is None or (target.space, source.space) != ("shared", "reg") or target.dtype != source.dtype:
        return False
    size = target.dtype.storage_bytes
    if size >= WORD_BYTES or count * size != MAX_BYTES or run_start(copy.target.index, row_major(target.shape), variable, count) is None:
        return False
    return column_start(copy.source.index, row_major(source.shape), variable, size) is not None


def column_start(at: tuple[Expr, ...], strides: Strides, variable: str, size: int) -> tuple[Expr, int] | None:
    """Where the first begins, in elements of `size` bytes, of the words of which `variable` walks one element each, and which one it is: a
    multiple of 16 bytes and a constant."""
    each = WORD_BYTES // size
    polynomial = normal_form(offset_of(at, strides))
    rest = polynomial.without([variable])
    which = rest.constant % each
    words = replace(rest, constant=rest.constant - which)
    fits = polynomial.coefficient(variable) == each and is_multiple(words, MAX_BYTES // size)
    return (to_expression(words), which) if fits else None


def _dtype(copy: Copy, buffers: Mapping[str, Buffer], name: str) -> DType:
    return buffers[name].dtype if name in buffers else copy.source.dtype


def _has_word_rows(copy: Copy, buffers: Mapping[str, Buffer]) -> bool:
    return matrix_layout(copy, row_major(buffers[copy.source.tensor].shape), MAX_BYTES // copy.source.dtype.storage_bytes) is not None


def matrix_layout(copy: Copy, strides: Strides, width: int) -> tuple[Expr, int, bool] | None:
    """Start, stride (elements) and whether rows are contiguous, of a fragment's source; None where start or stride is no multiple
    of `width` elements."""
    return layout_of(copy.source.index, strides, copy.axes[-2].var, copy.axes[-1].var, width)


def layout_of(at: tuple[Expr, ...], strides: Strides, rows: str, columns: str, width: int) -> tuple[Expr, int, bool] | None:
    """The same for any access that walks a matrix with two variables."""
    polynomial = normal_form(offset_of(at, strides))
    steps = polynomial.coefficient(rows), polynomial.coefficient(columns)
    rest = polynomial.without([rows, columns])
    if 1 not in steps or None in steps or not is_multiple(rest, width):
        return None
    by_row = steps[1] == 1
    stride = (steps[0] if by_row else steps[1]) or 0
    return (to_expression(rest), stride, by_row) if stride > 0 and stride % width == 0 else None
