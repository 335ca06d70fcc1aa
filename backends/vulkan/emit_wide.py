"""Copies of whole words between global memory and a lane's registers → one access of 4, 8 or 16 bytes each."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tridsl.backends.vulkan.contiguous import MAX_BYTES, WORD_BYTES, fits_words, offset_of, run_start
from tridsl.backends.vulkan.emit_expr import emit_value
from tridsl.backends.vulkan.emit_frame import Frame, Place
from tridsl.backends.vulkan.glsl_types import HALF_BY_BITS, INT64
from tridsl.backends.vulkan.zeros import zero_fill
from tridsl.dtypes import BF16, BOOL, F16, F32, F64, I8, I16, I32, I64, U8, U16, U32, DType
from tridsl.ir.affine import simplify_index
from tridsl.ir.expr import Const, Expr, add, binary, mul
from tridsl.ir.expr import index as constant
from tridsl.ir.loop import Copy, For
from tridsl.ir.walk import substitute

_TYPES = {1: "uint", 2: "uvec2", 4: "uvec4"}


def emit_wide(frame: Frame, copy: Copy) -> bool:
    """Emit `copy` as wide accesses; False, with nothing emitted, where it is none."""
    target, source = frame.places[copy.target.tensor], frame.places[copy.source.tensor]
    if len(copy.axes) != 1 or copy.pad is not None or copy.source.mask is not None or copy.cooperative:
        return False
    (axis,) = copy.axes
    if not isinstance(axis.extent, Const) or axis.bound is not None:
        return False
    count = int(axis.extent.value)
    into = _words(frame, target, copy.target.index, axis.var, count)
    out_of = _words(frame, source, copy.source.index, axis.var, count)
    if target.dtype == source.dtype and into is not None and out_of is not None:
        for (left, _), (right, _) in zip(_accesses(frame, target, into, count), _accesses(frame, source, out_of, count)):
            frame.line(f"{left} = {right};")
        return True
    if target.dtype == source.dtype and target.words and source.words:  # single words (`words.word_buffers`)
        for k in range(count):
            sides = ((target, copy.target.index), (source, copy.source.index))
            left, right = (_lone(frame, place, offset_of(substitute(at, {axis.var: constant(k)}), place.strides)) for place, at in sides)
            frame.line(f"{left} = {right};")
        return True
    if (into is None) == (out_of is None):
        return False
    near, place = (target, copy.target.index) if into is None else (source, copy.source.index)
    first = run_start(place, near.strides, axis.var, 1) if near.kind == "reg" and not near.words else None
    if first is None:
        return False
    with frame.indexing(near):
        elements = [f"{near.name}[{emit_value(frame, add(first, constant(k))).text}]" for k in range(count)]
    if out_of is not None:
        _load(frame, source, out_of, elements)
    elif into is not None:
        _store(frame, target, into, elements)
    return True


def _lone(frame: Frame, place: Place, start: Expr) -> str:
    """One word of a local buffer that holds them: the one that begins with element `start`."""
    size = place.dtype.storage_bytes
    part = simplify_index(binary("floordiv", binary("mod", start, constant(MAX_BYTES // size)), constant(WORD_BYTES // size)))
    with frame.indexing(place):
        return f"{place.name}[{whole_text(frame, place, start)}][{emit_value(frame, part).text}]"


def whole_text(frame: Frame, place: Place, start: Expr) -> str:
    """Which 16 bytes of a local buffer element `start` is in."""
    with frame.indexing(place):
        return emit_value(frame, simplify_index(binary("floordiv", start, constant(MAX_BYTES // place.dtype.storage_bytes)))).text


def emit_zeros(frame: Frame, loop: For) -> bool:
    """Emit a loop that fills whole words with zeros as stores of words; False, with nothing emitted, where it is none."""
    fill = zero_fill(loop)
    place = frame.places.get(fill[0].tensor) if fill is not None else None
    if fill is None or place is None or not place.words:
        return False
    target, variable, count = fill
    start = _words(frame, place, target.index, variable, count)
    if start is None:
        raise RuntimeError(f"zeros for {target.tensor}, which holds words, are not whole words of it")
    for text, width in _accesses(frame, place, start, count):
        frame.line(f"{text} = {_TYPES[width]}(0u);")
    return True


def word_text(frame: Frame, place: Place, at: tuple[Expr, ...], variable: str) -> str | None:
    """The aligned word of global memory that an access to bytes walks with `variable`."""
    start = _words(frame, place, at, variable, WORD_BYTES) if place.dtype.storage_bytes == 1 and not place.words else None
    return None if start is None else _accesses(frame, place, start, WORD_BYTES)[0][0]


def _words(frame: Frame, place: Place, at: tuple[Expr, ...], variable: str, count: int) -> Expr | None:
    """The first of `count` elements that lie in whole words of `place`."""
    if not (place.words or (place.kind == "pointer" and place.aligned)) or place.dtype not in _UNPACK or not fits_words(place.dtype, count):
        return None
    return run_start(at, place.strides, variable, count)


def _load(frame: Frame, far: Place, start: Expr, elements: Sequence[str]) -> None:
    texts = []
    for text, width in _accesses(frame, far, start, len(elements)):
        name = frame.fresh("words")
        frame.line(f"{_TYPES[width]} {name} = {text};")
        texts += [f"{name}.{c}" for c in "xyzw"[:width]] if width > 1 else [name]
    for position, element in enumerate(elements):
        frame.line(f"{element} = {_UNPACK[far.dtype](texts, position)};")


def _store(frame: Frame, far: Place, start: Expr, elements: Sequence[str]) -> None:
    done = 0
    for text, width in _accesses(frame, far, start, len(elements)):
        count = width * WORD_BYTES // far.dtype.storage_bytes
        words = _PACK[far.dtype](frame, elements[done : done + count])
        frame.line(f"{text} = {_TYPES[width]}({', '.join(words)});")
        done += count


def _accesses(frame: Frame, far: Place, start: Expr, count: int) -> list[tuple[str, int]]:
    """Lvalues of the words from element `start` on, each with its number of words."""
    size = far.dtype.storage_bytes
    left, position, found = count * size // WORD_BYTES, 0, []
    if far.words:
        if count * size == WORD_BYTES:
            return [(_lone(frame, far, start), 1)]
        first = whole_text(frame, far, start)
        return [(f"{far.name}[{first} + {k}]", MAX_BYTES // WORD_BYTES) for k in range(count * size // MAX_BYTES)]
    frame.extensions.add(INT64)
    with frame.indexing(far):
        where = emit_value(frame, mul(start, constant(size)))
    base = frame.fresh("base")
    frame.line(f"uint64_t {base} = uint64_t({far.name}) + uint64_t(int64_t({where.text}));")
    while left:
        width = min(left, MAX_BYTES // WORD_BYTES)
        frame.words.add(width)
        found.append((f"Words{width}({base} + {position * WORD_BYTES}UL).v", width))
        position, left = position + width, left - width
    return found


def words_declaration(width: int) -> str:
    """The block type behind the pointers of `_accesses`."""
    align = width * WORD_BYTES
    return f"layout(buffer_reference, scalar, buffer_reference_align = {align}) buffer Words{width} {{ {_TYPES[width]} v; }};"


def _small(kind: str, bits: int) -> Callable[[Sequence[str], int], str]:
    per = 32 // bits
    return lambda words, k: f"bitfieldExtract({kind}({words[k // per]}), {bits * (k % per)}, {bits})"


def _high_or_low(words: Sequence[str], k: int) -> str:
    return f"uintBitsToFloat({words[k // 2]}{' & 0xffff0000u' if k % 2 else ' << 16'})"


_UNPACK: dict[DType, Callable[[Sequence[str], int], str]] = {
    F32: lambda words, k: f"uintBitsToFloat({words[k]})",
    I32: lambda words, k: f"int({words[k]})",
    U32: lambda words, k: words[k],
    F16: lambda words, k: f"unpackHalf2x16({words[k // 2]}).{'xy'[k % 2]}",
    BF16: _high_or_low,
    I16: _small("int", 16),
    U16: _small("uint", 16),
    I8: _small("int", 8),
    U8: _small("uint", 8),
    BOOL: lambda words, k: f"({_small('uint', 8)(words, k)} != 0u)",
    I64: lambda words, k: f"packInt2x32(ivec2({words[2 * k]}, {words[2 * k + 1]}))",
    F64: lambda words, k: f"packDouble2x32(uvec2({words[2 * k]}, {words[2 * k + 1]}))",
}


def _joined(values: Sequence[str], bits: int) -> list[str]:
    """Values that fit `bits` each, lowest first."""
    per, mask = 32 // bits, (1 << bits) - 1
    return [
        " | ".join(f"((uint({value}) & {mask}u) << {bits * k})" for k, value in enumerate(values[start : start + per]))
        for start in range(0, len(values), per)
    ]


def _halves(frame: Frame, values: Sequence[str]) -> list[str]:
    if frame.row(F16) is HALF_BY_BITS or "float16" not in frame.features:
        frame.helpers.add("f16_pair")
        return [f"f16_pair({a}, {b})" for a, b in zip(values[::2], values[1::2])]
    frame.extensions.add("GL_EXT_shader_explicit_arithmetic_types_float16")
    return [f"packFloat2x16(f16vec2({a}, {b}))" for a, b in zip(values[::2], values[1::2])]


def _brain(frame: Frame, values: Sequence[str]) -> list[str]:
    frame.helpers.add("bf16_bits")
    return _joined([f"bf16_bits({value})" for value in values], 16)


def _pairs(function: str) -> Callable[[Frame, Sequence[str]], list[str]]:
    return lambda frame, values: [f"uint({function}({value}).{c})" for value in values for c in "xy"]


_PACK: dict[DType, Callable[[Frame, Sequence[str]], list[str]]] = {
    F32: lambda frame, values: [f"floatBitsToUint({value})" for value in values],
    I32: lambda frame, values: [f"uint({value})" for value in values],
    U32: lambda frame, values: list(values),
    F16: _halves,
    BF16: _brain,
    **dict.fromkeys((I16, U16), lambda frame, values: _joined(values, 16)),
    **dict.fromkeys((I8, U8, BOOL), lambda frame, values: _joined(values, 8)),
    I64: _pairs("unpackInt2x32"),
    F64: _pairs("unpackDouble2x32"),
}
