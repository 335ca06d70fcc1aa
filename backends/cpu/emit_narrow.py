"""Narrowing integers that are known to fit: two registers packed into one.

LLVM narrows by `vpmovdw` and its kin, two instructions of the shuffle port for each register. Values that fit the narrow type
are packed by one saturating instruction for two registers; packing goes by 128-bit parts, which one more shuffle puts in order.
"""

from __future__ import annotations

from tridsl.backends.cpu.emit_frame import Frame
from tridsl.backends.cpu.emit_llvm import INDEX_TYPE, SHORT, WORD, Value, declare, ir, joined, lanes_of, shuffle
from tridsl.dtypes import I16, U16
from tridsl.ir.expr import Cast
from tridsl.ir.value_ranges import fits

PACK = {
    (512, "int"): ("avx512bw", "llvm.x86.avx512.packssdw.512"),
    (512, "uint"): ("avx512bw", "llvm.x86.avx512.packusdw.512"),
    (256, "int"): ("avx2", "llvm.x86.avx2.packssdw"),
    (256, "uint"): ("avx2", "llvm.x86.avx2.packusdw"),
}
"""Register width and the kind of the words whose range the values must have: the feature that has the instruction, and its name."""


def emit_packed(frame: Frame, node: Cast, value: Value) -> Value | None:
    """A 32-bit integer vector cast to 16 bits without a loss, by packing; None where that does not apply."""
    if node.a.dtype.bits != 32 or node.dtype.bits != 16 or not (node.a.dtype.is_integer and node.dtype.is_integer):
        return None
    bits = frame.chip.vector_bits
    kind = "int" if fits(node.a, I16) else "uint" if fits(node.a, U16) else ""
    feature, name = PACK.get((bits, kind), ("", ""))
    wide = bits // 32
    if not name or not frame.chip.x86 or feature not in frame.chip.features or not lanes_of(value) or lanes_of(value) % (2 * wide):
        return None
    builder = frame.builder
    words = ir.VectorType(SHORT, 2 * wide)
    quarters = ir.VectorType(INDEX_TYPE, bits // 64)
    function = declare(builder.module, name, words, [ir.VectorType(WORD, wide)] * 2)
    order = [*range(0, bits // 64, 2), *range(1, bits // 64, 2)]  # 64-bit pieces: first, second, first, second, …
    parts = []
    for start in range(0, lanes_of(value), 2 * wide):
        first, second = (shuffle(builder, value, list(range(s, s + wide))) for s in (start, start + wide))
        packed = builder.bitcast(builder.call(function, [first, second]), quarters)
        parts.append(builder.bitcast(shuffle(builder, packed, order), words))
    return joined(builder, parts)
