"""Products of words: four bytes of a codec at a time, as operations on the 32 bits that hold them.

Where a carry could leave its byte, the even and the odd bytes are worked on apart, as two halves of 16 bits each.
"""

from __future__ import annotations

from collections.abc import Callable

from tridsl.backends.vulkan.contiguous import MAX_BYTES, WORD_BYTES
from tridsl.backends.vulkan.emit_expr import element_text
from tridsl.backends.vulkan.emit_frame import Frame
from tridsl.backends.vulkan.emit_wide import word_text
from tridsl.devices.intrinsics import INTRINSICS
from tridsl.dtypes import I8, U8
from tridsl.ir.affine import normal_form
from tridsl.ir.expr import Binary, Cast, Const, Expr, Load
from tridsl.ir.loop import Mma
from tridsl.ir.value_ranges import fits
from tridsl.ir.walk import walk

BYTE = 0xFF
HALVES = "0x00ff00ffu"
"""The even bytes of a word."""


def is_packed_product(mma: Mma) -> bool:
    """Whether `mma` multiplies words of four bytes, and its factors are made of operations that words have."""
    row = INTRINSICS[mma.intrinsic]
    sides = (unshifted(mma.a)[0], mma.b)
    return not row.lanes and not row.is_matrix and row.k == WORD_BYTES and all(_has_words(side) and fits(side, I8) for side in sides)


def unshifted(factor: Expr) -> tuple[Expr, int]:
    """(u, c) of the factor u - c, as bytes without a sign; c is 0 for any other."""
    if isinstance(factor, Binary) and factor.op == "sub" and factor.dtype == I8 and isinstance(factor.a, Cast) and factor.a.a.dtype == U8:
        amount = _amount(factor.b)
        return (factor.a.a, amount) if amount is not None else (factor, 0)
    return factor, 0


def _has_words(node: Expr) -> bool:
    match node:
        case Load(mask=mask, dtype=dtype):
            return mask is None and dtype in (U8, I8)
        case Const(dtype=dtype):
            return dtype == U8
        case Cast(a=a, dtype=dtype):
            return dtype == U8 and (_has_words(a) or _is_flag(a) or _amount(node) is not None)
        case Binary(op=op, a=a, b=b, dtype=dtype):
            by_amount = op in _BY_CONSTANT and dtype == U8 and _has_words(a)
            return by_amount or (op in _BYTEWISE and dtype == U8 and _has_words(a) and _has_words(b))
    return False


def _is_flag(node: Expr) -> bool:
    return isinstance(node, Binary) and node.op == "ge" and node.a.dtype == U8 and _has_words(node.a) and _amount(node.b) is not None


def _amount(node: Expr) -> int | None:
    """The value of a constant, through its casts."""
    while isinstance(node, Cast):
        node = node.a
    return int(node.value) & BYTE if isinstance(node, Const) else None


def emit_packed_product(frame: Frame, mma: Mma) -> bool:
    """`target += dot(a, b)` of one word each; False, with nothing emitted, where the operands do not lie so."""
    if not is_packed_product(mma):
        return False
    ((k, _),) = mma.axes
    words = {load: _word(frame, load, k) for side in (mma.a, mma.b) for load in walk(side) if isinstance(load, Load)}
    if any(text is None for text in words.values()) or not is_written_out(mma):
        return False
    loaded = {load: text for load, text in words.items() if text is not None}
    a, b = (_text(side, loaded) for side in (mma.a, mma.b))
    frame.helpers.add("dot4")
    if "integer_dot_product" in frame.features:
        frame.extensions.add("GL_EXT_spirv_intrinsics")
    place = frame.places[mma.target.tensor]
    target = element_text(frame, place, mma.target.index)
    frame.line(f"{target} = {target} + dot4({a}, {b});")
    return True


def _word(frame: Frame, load: Load, k: str) -> str | None:
    """The four bytes that `load` walks with `k`."""
    place = frame.places[load.tensor]
    if not place.words:
        return word_text(frame, place, load.index, k)
    position = normal_form(load.index[-1]).without([k])
    if len(load.index) != 1 or position.terms or position.constant % WORD_BYTES:
        return None
    return f"{place.name}[{position.constant // MAX_BYTES}].{'xyzw'[position.constant % MAX_BYTES // WORD_BYTES]}"


def is_written_out(mma: Mma) -> bool:
    """Whether what bytes are shifted, multiplied or divided by is a number by now."""
    amounts = (n.b for n in walk(mma) if isinstance(n, Binary) and n.op in _BY_CONSTANT and n.dtype == U8)
    return all(_amount(amount) is not None for amount in amounts)


def _text(node: Expr, words: dict[Load, str]) -> str:
    match node:
        case Load():
            return words[node]
        case Binary(op="ge", a=a, b=b):
            return _at_least(_text(a, words), _amount(b) or 0)
        case Cast(a=a) if _amount(node) is None:
            return _text(a, words)
        case Binary(op=op, a=a, b=b):
            amount = _amount(b)
            if op in _BY_CONSTANT and amount is not None:
                return _BY_CONSTANT[op](_text(a, words), amount)
            if op == "and" and amount is not None:
                return _masked(a, amount, words)
            return _BYTEWISE[op](_text(a, words), _text(b, words))
    return _splat(_amount(node) or 0)


def _splat(byte: int) -> str:
    return f"{byte * 0x01010101:#010x}u"


def _masked(node: Expr, mask: int, words: dict[Load, str]) -> str:
    """Bits of each byte; what a shift brings in from its neighbour is none of them."""
    amount = _amount(node.b) if isinstance(node, Binary) else None
    if isinstance(node, Binary) and node.op == "shr" and amount is not None and mask & ~(BYTE >> amount) == 0:
        inner = _text(node.a, words)
        return f"(({inner} >> {amount}) & {_splat(mask)})" if amount else f"({inner} & {_splat(mask)})"
    return f"({_text(node, words)} & {_splat(mask)})"


def _shifted_right(a: str, amount: int) -> str:
    return f"(({a} >> {amount}) & {_splat(BYTE >> amount)})" if 0 < amount < 8 else a if not amount else "0u"


def _shifted_left(a: str, amount: int) -> str:
    return f"(({a} << {amount}) & {_splat(BYTE << amount & BYTE)})" if 0 < amount < 8 else a if not amount else "0u"


def _in_halves(a: str, function: str) -> str:
    """`function` of the even and of the odd bytes, each 16 bits wide; the low byte of what it gives counts."""
    even, odd = (function.format(part) for part in (f"({a} & {HALVES})", f"(({a} >> 8) & {HALVES})"))
    return f"(({even} & {HALVES}) | (({odd} & {HALVES}) << 8))"


def _times(a: str, factor: int) -> str:
    return a if factor == 1 else _in_halves(a, f"({{}} * {factor}u)")


def _at_least(a: str, least: int) -> str:
    """1 in each byte that is at least `least`: adding what is left to 256 carries."""
    return _in_halves(a, f"((({{}} + {(256 - least) * 0x00010001:#010x}u) >> 8) & 0x00010001u)")


def _reciprocal(divisor: int) -> tuple[int, int]:
    """(m, s) with x // divisor = x * m >> s for every byte x, within 16 bits."""
    found = ((m, s) for s in range(8, 16) for m in (-(-(1 << s) // divisor),) if BYTE * m < 1 << 16)
    return next((m, s) for m, s in found if all(x * m >> s == x // divisor for x in range(BYTE + 1)))


def _over(a: str, divisor: int) -> str:
    if divisor < 2:
        return a if divisor else "0u"
    factor, amount = _reciprocal(divisor)
    return _in_halves(a, f"((({{}} * {factor}u) >> {amount}) & {(0xFFFF >> amount) * 0x00010001:#010x}u)")


def _rest(a: str, divisor: int) -> str:
    return f"({a} - {_times(_over(a, divisor), divisor)})" if divisor > 1 else "0u"


_BY_CONSTANT: dict[str, Callable[[str, int], str]] = {
    "shr": _shifted_right, "shl": _shifted_left, "mul": _times, "floordiv": _over, "mod": _rest,
}  # fmt: skip
_BYTEWISE: dict[str, Callable[[str, str], str]] = {
    "and": lambda a, b: f"({a} & {b})",
    "or": lambda a, b: f"({a} | {b})",
    "xor": lambda a, b: f"({a} ^ {b})",
    "add": lambda a, b: f"((({a} & 0x7f7f7f7fu) + ({b} & 0x7f7f7f7fu)) ^ (({a} ^ {b}) & 0x80808080u))",
}
