"""Products of words: four bytes of a codec at a time, as operations on the 32 bits that hold them.

Where a carry could leave its byte, the even and the odd bytes are worked on apart, as two halves of 16 bits each.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

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

BITS, BYTE = 8, 0xFF
HALVES = "0x00ff00ffu"
"""The even bytes of a word."""
ODD = "0xff00ff00u"


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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bytes:
    """Texts of a word of four bytes, or (`odd`) of two words, whose halves of 16 bits hold the even and the odd bytes: in their low bits, or
    (`high`) in their high ones, with anything below. `most`: no byte is greater."""

    even: str
    odd: str = ""
    high: bool = False
    most: int = BYTE

    @property
    def word(self) -> str:
        if self.high:
            return f"((({self.even} >> 8) & {HALVES}) | ({self.odd} & {ODD}))"
        return f"({self.even} | ({self.odd} << 8))" if self.odd else self.even

    @property
    def halves(self) -> _Bytes:
        if self.high:
            return replace(self.map(f"(({{}} >> 8) & {HALVES})", most=self.most), high=False)
        return self if self.odd else replace(self, even=f"({self.even} & {HALVES})", odd=f"(({self.even} >> 8) & {HALVES})")

    @property
    def low(self) -> _Bytes:
        """The bytes with nothing beside them."""
        return self.halves if self.high else self

    def map(self, function: str, *, most: int = BYTE) -> _Bytes:
        """`function` of both, which must keep to their halves."""
        return replace(self, even=function.format(self.even), odd=function.format(self.odd) if self.odd else "", most=most)


def _text(node: Expr, words: dict[Load, str]) -> str:
    return _bytes(node, words).word


def _bytes(node: Expr, words: dict[Load, str]) -> _Bytes:
    match node:
        case Load():
            return _Bytes(even=words[node])
        case Binary(op="ge", a=a, b=b):
            return _at_least(_bytes(a, words), _amount(b) or 0)
        case Cast(a=a) if _amount(node) is None:
            return _bytes(a, words)
        case Binary(op=op, a=a, b=b):
            amount, steps = _amount(b), _steps(node)
            if steps is not None:
                return _in_steps(_bytes(steps[0], words), steps[1])
            if op in _BY_CONSTANT and amount is not None:
                return _BY_CONSTANT[op](_bytes(a, words), amount)
            if op == "and" and amount is not None:
                return _masked(a, amount, words)
            return _together(op, _bytes(a, words), _bytes(b, words))
    return _Bytes(even=_splat(_amount(node) or 0), most=_amount(node) or 0)


def _splat(byte: int) -> str:
    return f"{byte * 0x01010101:#010x}u"


def _pair(value: int) -> str:
    """The same number in both halves."""
    return f"{value * 0x00010001:#010x}u"


def _mask(value: _Bytes, mask: int) -> str:
    return _pair(mask) if value.odd else _splat(mask)


def _masked(node: Expr, mask: int, words: dict[Load, str]) -> _Bytes:
    """Bits of each byte; what a shift brings in from its neighbour is none of them."""
    amount = _amount(node.b) if isinstance(node, Binary) else None
    if isinstance(node, Binary) and node.op == "shr" and amount is not None and mask & ~(BYTE >> amount) == 0:
        inner = _bytes(node.a, words).low
        return inner.map(f"(({{}} >> {amount}) & {_mask(inner, mask)})" if amount else f"({{}} & {_mask(inner, mask)})", most=mask)
    inner = _bytes(node, words).low
    return inner.map(f"({{}} & {_mask(inner, mask)})", most=mask)


def _shifted(a: _Bytes, amount: int, sign: str, left: int) -> _Bytes:
    if not 0 < amount < 8:
        return a if not amount else _Bytes(even="0u", most=0)
    if sign == "<<" and a.most << amount <= BYTE:
        return a.low.map(f"({{}} << {amount})", most=a.most << amount)
    return a.low.map(f"(({{}} {sign} {amount}) & {_mask(a, left)})")


def _times(a: _Bytes, factor: int) -> _Bytes:
    """By one prime after the other: what is multiplied by 9 is by 3, too, for whoever asks for that."""
    while factor > 1:
        prime = next(n for n in range(2, factor + 1) if factor % n == 0)
        carries = a.most * prime > BYTE
        a = a.halves.map(f"(({{}} * {prime}u) & {HALVES})") if carries else _Bytes(even=f"({a.word} * {prime}u)", most=a.most * prime)
        factor //= prime
    return a


def _at_least(a: _Bytes, least: int) -> _Bytes:
    """1 in each byte that is at least `least`: adding what is left to 256 carries."""
    return a.halves.map(f"((({{}} + {_pair(256 - least)}) >> 8) & {_pair(1)})", most=1)


def _steps(node: Binary) -> tuple[Expr, int] | None:
    """(x, n) of a sum of `x >= 256 j / n` for all j from 1 to n - 1: how often the n-th part of 256 fits into x, x n // 256."""
    terms: list[Expr] = [node]
    flags: list[Binary] = []
    while terms:
        term = terms.pop()
        while isinstance(term, Cast):
            term = term.a
        if isinstance(term, Binary) and term.op == "add" and term.dtype == U8:
            terms += [term.a, term.b]
        elif isinstance(term, Binary) and term.op == "ge":
            flags.append(term)
        else:
            return None
    count = len(flags) + 1
    found = sorted(_amount(flag.b) or 0 for flag in flags)
    same = all(flag.a == flags[0].a for flag in flags) and found == [-(-256 * j // count) for j in range(1, count)]
    return (flags[0].a, count) if same and count > 2 else None


def _in_steps(a: _Bytes, count: int) -> _Bytes:
    return replace(a.halves.map(f"({{}} * {count}u)", most=count - 1), high=True)


def _reciprocal(divisor: int, most: int, bits: int) -> tuple[int, int] | None:
    """(m, s) with x // divisor = x * m >> s for every x up to `most`, within so many bits; all 8 of them go first, if they may."""
    shifts = sorted(range(1, bits), key=lambda s: (s != BITS, s))
    found = ((m, s) for s in shifts for m in (-(-(1 << s) // divisor),) if most * m < 1 << bits)
    return next(((m, s) for m, s in found if all(x * m >> s == x // divisor for x in range(most + 1))), None)


def _over(a: _Bytes, divisor: int) -> _Bytes:
    """By one prime after the other, as `_times`."""
    if divisor < 1:
        return _Bytes(even="0u", most=0)
    while divisor > 1:
        prime = next(n for n in range(2, divisor + 1) if divisor % n == 0)
        a = _over_prime(a, prime)
        divisor //= prime
    return a


def _over_prime(a: _Bytes, prime: int) -> _Bytes:
    most = a.most // prime
    inside = _reciprocal(prime, a.most, BITS)
    if inside is not None:  # no byte's product leaves it
        factor, amount = inside
        return _Bytes(even=f"((({a.word} * {factor}u) >> {amount}) & {_splat(BYTE >> amount)})", most=most)
    found = _reciprocal(prime, a.most, 2 * BITS)
    assert found is not None, f"no byte is divided by {prime}"
    factor, amount = found
    if amount == BITS:
        return replace(a.halves.map(f"({{}} * {factor}u)", most=most), high=True)
    return a.halves.map(f"((({{}} * {factor}u) >> {amount}) & {_pair(0xFFFF >> amount)})", most=most)


def _rest(a: _Bytes, divisor: int) -> _Bytes:
    if divisor < 2:
        return _Bytes(even="0u", most=0)
    return _Bytes(even=f"({a.word} - {_over(a, divisor).word} * {divisor}u)", most=divisor - 1)  # no byte borrows from another


def _together(op: str, a: _Bytes, b: _Bytes) -> _Bytes:
    most = a.most + b.most if op == "add" else (1 << max(a.most.bit_length(), b.most.bit_length())) - 1
    carries = op == "add" and most > BYTE
    if a.odd or b.odd or carries:
        a, b = a.halves, b.halves
    sides = [(a.even, b.even), *([(a.odd, b.odd)] if a.odd else [])]
    found = [f"(({x} + {y}) & {HALVES})" if carries else f"({x} {_BYTEWISE[op]} {y})" for x, y in sides]
    return _Bytes(even=found[0], odd=found[1] if a.odd else "", most=min(most, BYTE))


_BY_CONSTANT: dict[str, Callable[[_Bytes, int], _Bytes]] = {
    "shr": lambda a, amount: _shifted(a, amount, ">>", BYTE >> amount),
    "shl": lambda a, amount: _shifted(a, amount, "<<", BYTE << amount & BYTE),
    "mul": _times,
    "floordiv": _over,
    "mod": _rest,
}
_BYTEWISE = {"and": "&", "or": "|", "xor": "^", "add": "+"}
