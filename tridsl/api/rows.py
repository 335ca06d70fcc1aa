"""`tridsl.pack_rows`: matrices of trits from the bytes of model files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from tridsl.buffer import Buffer, pack
from tridsl.diagnostics import error
from tridsl.dtypes import I8
from tridsl.row_formats import ROW_FORMATS, RowFormat
from tridsl.runtime.memory import require

if TYPE_CHECKING:
    from numpy.typing import NDArray  # 5 ms of start-up time

Scales = Literal["row", "block"]


class PackedRows(NamedTuple):
    """`weights[m, k] * scales[m]` (or `* scales[m, k // block]`) are the matrix. Both are arguments of `stdlib.tgemv` and `tgemm`."""

    weights: Buffer
    scales: NDArray[np.float32]


def pack_rows(data: Any, format: str, shape: tuple[int, int], *, layout: str = "t16", scales: Scales = "row") -> PackedRows:
    """The matrix (M, K) whose rows are `data`, bytes in `format` (`tq1_0`, `tq2_0`, `i2_s`), packed once in `layout`.

    `scales="row"`: one f32 for each row, which is what files of ternary models hold (blocks of nothing but zeros have no scale of
    their own); `scales="block"`: one for each 256 columns, for any file. A scale of 0 makes its trits 0. Errors: E0540 unknown format
    or layout, E0542 a shape or a number of bytes that does not fit, E0543 bytes that are no trits or no finite scale, E0544 several
    scales in a row, E0602 not enough memory.
    """
    row = ROW_FORMATS.get(format)
    if row is None:
        raise error("E0540", f"there is no format `{format}`", help=f"formats: {', '.join(ROW_FORMATS)}")
    if scales not in ("row", "block"):
        raise error("E0540", f"scales={scales!r} is not known", help='write scales="row" or scales="block"')
    content, (m, k) = _bytes(data), _shape(shape, row, scales)
    wanted = m * k // row.elements * row.size + row.trailer
    if content.size != wanted:
        raise error(
            "E0542", f"{format} rows of shape ({m}, {k}) are {wanted} bytes, {content.size} were given",
            help=f"{row.elements} elements take {row.size} bytes" + (f", and {row.trailer} bytes follow" if row.trailer else ""),
        )  # fmt: skip
    require((("the unpacked trits", (m, k), I8), ("their codes", (m, k), I8)))
    blocks = content[: wanted - row.trailer].reshape(-1, row.size)
    codes = row.codes(blocks)
    if codes.size and codes.max() > 2:
        where = int(np.argmax(codes.ravel() > 2))
        raise error("E0543", f"element {where} of the {format} rows has the code 3, which is no trit", help="is this the right format and offset?")
    trits = codes.view(np.int8) - np.int8(1)
    if row.scales is None:
        found = np.full(m if scales == "row" else (m, k // SCALED), _finite(content[wanted - row.trailer :][:4].view("<f4"), row)[0])
    else:
        each = _finite(row.scales(blocks), row)
        trits[each == 0] = 0
        each = each.reshape(m, k // row.elements)
        found = each if scales == "block" else _of_rows(each, trits.reshape(m, k // row.elements, row.elements), format)
    return PackedRows(pack(trits.reshape(m, k), layout), np.ascontiguousarray(found, np.float32))


def _bytes(data: Any) -> NDArray[np.uint8]:
    """Any contiguous memory as bytes."""
    try:
        return np.frombuffer(data, np.uint8)
    except (TypeError, ValueError, BufferError) as problem:
        raise error("E0542", f"the rows are not given as bytes: {problem}", help="pass bytes, a memoryview or a contiguous array") from None


def _shape(shape: Any, row: RowFormat, scales: Scales) -> tuple[int, int]:
    try:
        m, k = (int(extent) for extent in shape)
    except (TypeError, ValueError):
        raise error("E0542", f"{shape!r} is not the shape of a matrix", help="write (M, K)") from None
    whole = row.elements if row.scales is not None else SCALED if scales == "block" else 1
    if max(m, k) > LARGEST:
        raise error("E0542", f"no memory holds a matrix of shape ({m}, {k})", help=f"extents are at most {LARGEST}")
    if m < 0 or k < 0 or k % whole or m * k % row.elements:
        raise error(
            "E0542", f"{row.name} has no matrix of shape ({m}, {k})",
            help=f"rows are multiples of {whole} elements" if whole > 1 else f"a matrix is a multiple of {row.elements} elements",
        )  # fmt: skip
    return m, k


LARGEST = 1 << 48
"""Rows, or columns: also of an empty matrix, whose blocks NumPy counts in 63 bits."""

SCALED = 256
"""Columns that share a scale in `tgemv` and `tgemm` with scales of blocks."""


def _finite(scales: NDArray[np.float32], row: RowFormat) -> NDArray[np.float32]:
    bad = ~np.isfinite(scales)
    if bad.any():
        number = int(np.argmax(bad))
        raise error("E0543", f"scale {number} of the {row.name} rows is {scales[number]}", help="is this the right format and offset?")
    return scales


def _of_rows(each: NDArray[np.float32], blocks: NDArray[np.int8], format: str) -> NDArray[np.float32]:
    """The one scale of each row, of its blocks' scales (M, B) and trits (M, B, elements); blocks of zeros agree with any."""
    used: NDArray[np.bool_] = (blocks != 0).any(axis=2)
    if not used.size:
        return np.zeros(len(each), np.float32)
    first = np.take_along_axis(each, used.argmax(axis=1)[:, None], 1)
    differ = used & (each != first)
    if bool(differ.any()):
        r, b = (int(i) for i in np.argwhere(differ)[0])
        raise error(
            "E0544", f"row {r} of the {format} rows has several scales: {first[r, 0]} and, in block {b}, {each[r, b]}",
            help='ask for all of them: scales="block"',
        )  # fmt: skip
    return np.where(used.max(axis=1), first[:, 0], np.float32(0))
