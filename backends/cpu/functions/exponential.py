"""exp and its relatives: x = n ln(2) + r with whole n and |r| <= ln(2)/2; exp(x) = 2**n exp(r).

The reduction is W. J. Cody and W. Waite's (*Software Manual for the Elementary Functions*, 1980, ch. 6) with fused
multiply-adds, which make its first step exact. Overflow, underflow and denormal results come from the last
multiplication by 2**n, which rounds once; arguments are limited first so that n stays small. NaN passes through.
"""

from __future__ import annotations

import math

from tridsl.backends.cpu.functions import coefficients as table
from tridsl.backends.cpu.functions import pieces
from tridsl.backends.cpu.functions.arithmetic import (
    BIAS,
    FLOATS,
    SIGNIFICAND,
    Value,
    fma,
    paired_polynomial,
    polynomial,
    select,
)
from tridsl.backends.cpu.functions.constants import LN2, LOG2_E
from tridsl.backends.cpu.functions.piecewise import odd

_EXP_RANGE = {"f32": (-104.0, 89.0), "f64": (-746.0, 710.0)}
"""exp is 0 below (less than half the smallest denormal) and inf above."""

_REDUCED = 0.5
"""More than any |r| of a result between 0 and inf."""

_NO_DENORMAL = {"f32": 2.0**-40, "f64": 2.0**-80}
"""Added to an argument of exp it changes no result, and leaves no sum that is denormal: processors multiply those in microcode (measured on an
Emerald Rapids: exp of denormal numbers 57 ns each instead of 0.17)."""

_EXP2_RANGE = {"f32": (-151.0, 129.0), "f64": (-1076.0, 1025.0)}

_TANH_LIMIT = {"f32": 9.25, "f64": 19.5}
"""tanh rounds to 1 from here on."""

_ERF_LIMIT = {"f32": 4.0, "f64": 6.0}
"""erf rounds to 1 from here on; the f32 and f64 polynomials ERFC end here."""


def _unit_shift(x: Value) -> float:
    """1.5 * 2**p: added to a number below 2**(p - 1), it leaves no bits for a fraction."""
    return 1.5 * 2.0 ** (SIGNIFICAND[x.kind] - 1)


def whole_bits(n: Value) -> Value:
    """The bits of 1.5 * 2**p + n: their low part is n in two's complement. Defined for NaN too, unlike a conversion."""
    return (n + _unit_shift(n)).bitcast()


def _biased_shift(x: Value) -> float:
    """`_unit_shift` and the exponent's bias: the low bits of what it is added to are an exponent."""
    return _unit_shift(x) + BIAS[x.kind]


def nearest(x: Value, factor: float) -> tuple[Value, Value]:
    """The whole number n nearest to x * factor, and its `exponent_bits`, for products below 2**(p - 1). A fused multiply-add rounds in half
    the instructions that a product and a rounding take (x86: the rounding alone is two)."""
    shifted = fma(x, factor, _biased_shift(x))
    return shifted - _biased_shift(x), shifted.bitcast()


def exponent_bits(n: Value) -> Value:
    """Bits whose low part is the biased exponent of 2**n."""
    return (n + _biased_shift(n)).bitcast()


def power_of_two(bits: Value) -> Value:
    """2**n from its `exponent_bits`, for whole n from the smallest to the greatest normal exponent."""
    return (bits << SIGNIFICAND[FLOATS[bits.bits]] - 1).bitcast()


def scale(a: Value, n: Value) -> Value:
    """a * 2**n, rounded once, for a in (1/2, 2) and whole n within twice the exponent range; NaN in, NaN out.

    Without an instruction for it: times 2**floor(n/2), which is exact, times 2**ceil(n/2).
    """
    raw = a.target.scale(a.kind, a.raw, n.raw)
    if raw is not None:
        return a.of(raw)
    shift, one = SIGNIFICAND[a.kind] - 1, BIAS[a.kind] << SIGNIFICAND[a.kind] - 1
    whole = whole_bits(n)
    half = whole.logical_shift_right(1)
    return a * ((half << shift) + one).bitcast() * (((whole - half) << shift) + one).bitcast()


def reduce(x: Value) -> tuple[Value, Value, Value]:
    """(n, its `exponent_bits`, r) with x = n ln(2) + r, for x so far from overflow that n is small."""
    high, low = LN2[x.kind]
    raw = x.target.negated(x.raw)  # of exp(-t) with t read directly: multiply-adds negate for nothing
    n, bits = nearest(x, LOG2_E[x.kind][0]) if raw is None else nearest(x.of(raw), -LOG2_E[x.kind][0])
    return n, bits, fma(n, -low, fma(n, -high, x))


def _exp(x: Value, shift: int = 0) -> Value:
    """exp(x) * 2**shift for x within the range limits."""
    n, _, r = reduce(x)
    return scale(polynomial(r, (1.0, 1.0, *table.EXP[x.bits])), n + shift if shift else n)


def exp(x: Value) -> Value:
    """Where one instruction limits r and another scales by any 2**n, x itself needs no limits: whatever r an infinite or huge x has,
    2**n makes it 0, inf or NaN as it must be. f32 has a polynomial of its own, one degree less, whose error is spread as the units
    in the last place are."""
    x = x + _NO_DENORMAL[x.kind]
    n, _, r = reduce(x)
    limited = x.target.bound(x.kind, r.raw, _REDUCED)
    if limited is None:
        n, _, r = reduce(x.clamp(*_EXP_RANGE[x.kind]))
    else:
        r = r.of(limited)
    coefficients = (1.0, *table.EXP_SHORT[32]) if x.kind == "f32" else (1.0, 1.0, *table.EXP[64])
    return scale(polynomial(r, coefficients), n)


def exp2(x: Value) -> Value:
    """Limits only where no one instruction takes the whole number away: without them infinities would leave NaN."""
    unlimited = _exp2_unlimited(x)
    if unlimited is not None:
        return unlimited
    x = x.clamp(*_EXP2_RANGE[x.kind])
    n = x.round()
    return scale(_exp2_reduced(x - n), n)


def _exp2_reduced(r: Value) -> Value:
    return polynomial(r, (1.0, *(table.EXP2_SHORT[32] if r.kind == "f32" else table.EXP2[64])))


def _exp2_unlimited(x: Value) -> Value | None:
    raw = x.target.fraction(x.kind, x.raw)
    if raw is None:
        return None
    r = x.of(raw)
    return scale(_exp2_reduced(r), x - r)


def exp_of_rounded(x: Value) -> Value:
    """exp of a number that was rounded itself, as differences and products are: f32 is 2**(x log2(e)), whose product is rounded once more. That
    adds |x| 2**-24 of the result, about what the argument's own rounding may, and spares two of eleven instructions."""
    if x.kind == "f64":
        return exp(x)
    raw, tiny = x.target.negated(x.raw), _NO_DENORMAL[x.kind]
    result = _exp2_unlimited(fma(x, LOG2_E[x.kind][0], tiny) if raw is None else fma(x.of(raw), -LOG2_E[x.kind][0], tiny))
    return exp(x) if result is None else result


def _expm1_reduced(r: Value) -> Value:
    return fma(polynomial(r, table.EXPM1[r.bits]), r * r, r)


def expm1(x: Value) -> Value:
    """2**n q + (2**n - 1) with q = exp(r) - 1, at half the size so that 2**n may overflow when the sum does not.

    Tiny arguments are their own result (halving a denormal would lose a bit, and a sum the sign of -0).
    """
    low = -(SIGNIFICAND[x.kind] + 2) * math.log(2)  # -1 from here on
    n, _, r = reduce(x.clamp(low, _EXP_RANGE[x.kind][1]))
    half = power_of_two(exponent_bits(n - 1.0))
    result = fma(_expm1_reduced(r), half, half - 0.5) * 2.0
    return select(x.abs() < 2.0 ** -(SIGNIFICAND[x.kind] + 3), x, result)


def sinh(x: Value) -> Value:
    """A polynomial up to 1; then (e - 1/e) / 2, where e/2 = exp|x| / 2 is formed in the exponent: no early overflow."""
    a = x.abs()
    half = _exp(a.clamp(high=_EXP_RANGE[x.kind][1] + 1), -1)
    small = fma(a * (a * a), polynomial(a * a, table.SINH[x.bits]), a)
    return select(a < 1.0, small, half - 0.25 / half).copysign(x)


def cosh(x: Value) -> Value:
    half = _exp(x.abs().clamp(high=_EXP_RANGE[x.kind][1] + 1), -1)
    return half + 0.25 / half


def tanh(x: Value) -> Value:
    looked_up = odd(x, pieces.TANH) if x.kind == "f32" else None
    if looked_up is not None:
        return looked_up
    return (_tanh_f32 if x.kind == "f32" else _tanh_f64)(x, x.abs().clamp(high=_TANH_LIMIT[x.kind]))


def _tanh_f32(x: Value, a: Value) -> Value:
    """h / (1 - h) with h = (1 - exp(-2a)) / 2, which has all its digits also where it is tiny.

    a = r - n ln(2)/2 for a whole n <= 0, so h = 2**n (1 - exp(-2r))/2 + (1 - 2**n)/2; 1 - h is not made from the rounded h. The f32
    nearest to ln(2) is so good that its second part does not matter: as -n grows so does the error, but h needs the power less.
    The numerator takes the sign: nothing but who uses it waits for the quotient. (Without the absolute value a = |x|, h and 1 - h would be
    large of one sign, and their errors 2.8 ulp of the quotient.)
    """
    n, bits = nearest(a, -2.0 * LOG2_E[a.kind][0])
    r = fma(n, 0.5 * LN2[a.kind][0], a)
    square = r * r
    tail = paired_polynomial(r, square, [-c * (-2.0) ** k * 2.0 for k, c in enumerate(table.EXPM1[a.bits])])
    power = power_of_two(bits)
    g = fma(tail, square, r)
    return fma(g, power, fma(power, -0.5, 0.5)).copysign(x) / fma(-g, power, fma(power, 0.5, 0.5))


def _tanh_f64(x: Value, a: Value) -> Value:
    """An odd polynomial up to 0.55; then 1 - 2 / (exp(2a) + 1). The form of f32 is shorter, and worse than 2 ulp in f64."""
    z = a * a
    small = fma(a * z, polynomial(z, table.TANH[a.bits]), a)
    _, bits, r = reduce(a * 2.0)
    large = 1.0 - 2.0 / fma(polynomial(r, (1.0, 1.0, *table.EXP[a.bits])), power_of_two(bits), 1.0)
    return select(a > 0.55, large, small).copysign(x)


def erf(x: Value) -> Value:
    """By pieces, or x + x P(x**2) up to 1, then 1 - exp(Q(|x| - 1)), where Q approximates log(erfc)."""
    looked_up = odd(x, pieces.ERF) if x.kind == "f32" else None
    if looked_up is not None:
        return looked_up
    a = x.abs()
    z = a * a
    small = fma(a, polynomial(z, table.ERF[x.bits]), a)
    _, bits, r = reduce(polynomial(a.clamp(high=_ERF_LIMIT[x.kind]) - 1.0, table.ERFC[x.bits]))
    large = fma(polynomial(r, (1.0, 1.0, *table.EXP[x.bits])), -power_of_two(bits), 1.0)
    return select(a < 1.0, small, large).copysign(x)
