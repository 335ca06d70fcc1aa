"""Columns of words in registers → 16 bytes of a panel that lies the other way round than its source.

    copy B.next[r*4 + 1] → B.s[j*4 + 1, k*16 + r], r < 16   →   b_B_s[…] = uvec4(byte_column(b_B_next[0], 8), byte_column(b_B_next[1], 8), …);
"""

from __future__ import annotations

from tridsl.backends.vulkan.contiguous import MAX_BYTES, WORD_BYTES, run_start
from tridsl.backends.vulkan.emit_frame import Frame
from tridsl.backends.vulkan.emit_wide import whole_text
from tridsl.backends.vulkan.words import column_start
from tridsl.ir.expr import Const
from tridsl.ir.loop import Copy

_COLUMNS = {1: "byte_column", 2: "half_column"}
"""Functions that take an element of each of four words, by its bytes."""


def emit_turned(frame: Frame, copy: Copy) -> bool:
    """Emit `copy` as one store; False, with nothing emitted, where it is none of these."""
    target, source = frame.places[copy.target.tensor], frame.places[copy.source.tensor]
    if len(copy.axes) != 1 or not (target.words and source.words) or target.dtype != source.dtype or target.kind != "shared":
        return False
    (axis,), size = copy.axes, target.dtype.storage_bytes
    count = MAX_BYTES // size
    if size >= WORD_BYTES or not isinstance(axis.extent, Const) or axis.extent.value != count:
        return False
    start, column = run_start(copy.target.index, target.strides, axis.var, count), column_start(copy.source.index, source.strides, axis.var, size)
    if start is None or column is None:
        return False
    first, which = whole_text(frame, source, column[0]), column[1]
    helper, words = _COLUMNS[size], count * WORD_BYTES // MAX_BYTES
    frame.helpers.add(helper)
    parts = [f"{helper}({source.name}[{first} + {k}], {8 * size * which})" for k in range(words)]
    frame.line(f"{target.name}[{whole_text(frame, target, start)}] = uvec4({', '.join(parts)});")
    return True
