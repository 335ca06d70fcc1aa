"""Logarithms: x = 2**e (1 + f) with sqrt(1/2) <= 1 + f < sqrt(2); log(x) = e ln(2) + log1p(f).

f64 follows the scheme of Sun's fdlibm (K. C. Ng, e_log.c): with s = f / (2 + f) and h = f**2/2,
log1p(f) = f - h + s (h + R(s**2)). f32 uses a polynomial in f, which needs no division.
"""

from __future__ import annotations

import math

from tridsl.backends.cpu.functions import coefficients as table
from tridsl.backends.cpu.functions.arithmetic import (
    BIAS,
    SIGNIFICAND,
    Value,
    fast_two_sum,
    fma,
    polynomial,
    select,
    two_product,
    two_sum,
)
from tridsl.backends.cpu.functions.constants import LN2, LOG2_E, LOG10_2, LOG10_E, bits_of


def split(x: Value) -> tuple[Value, Value]:
    """(e, f) of a positive normal x; anything defined for other x."""
    shift = SIGNIFICAND[x.kind] - 1
    root = bits_of(math.sqrt(0.5), x.kind)
    shifted = x.bitcast() + ((BIAS[x.kind] << shift) - root)
    magic = 1.5 * 2.0**shift
    e = (shifted.logical_shift_right(shift) | bits_of(magic, x.kind)).bitcast() - (magic + BIAS[x.kind])
    return e, ((shifted & ((1 << shift) - 1)) + root).bitcast() - 1.0


def split_any(x: Value) -> tuple[Value, Value]:
    """`split` for denormals too."""
    digits = SIGNIFICAND[x.kind]
    denormal = x < 2.0 ** (1 - BIAS[x.kind])
    e, f = split(select(denormal, x * 2.0**digits, x))
    return select(denormal, e - float(digits), e), f


def log1p_pair(f: Value) -> tuple[Value, Value]:
    """log(1 + f) as an unevaluated sum of a rounded leading part and a small rest."""
    square = f * f
    half = square * 0.5
    half_error = fma(f * 0.5, f, -half)
    if f.kind == "f32":
        tail = square * f * polynomial(f, table.LOG_DIRECT[32])
    else:
        s = f / (f + 2.0)
        z = s * s
        tail = s * fma(z, polynomial(z, table.LOG[64]), half)
    high, low = fast_two_sum(f, -half)
    return high, low - half_error + tail


def finish(x: Value, result: Value) -> Value:
    """Logarithm at 0 (-inf), below (NaN), at inf and NaN (themselves)."""
    special = select(x.equals(0.0), -math.inf, select(x < 0.0, math.nan, x))
    return select((x > 0.0) & (x < math.inf), result, special)


def log(x: Value) -> Value:
    e, f = split_any(x)
    high, low = LN2[x.kind]
    if x.kind == "f32":
        reduced = fma(f * f, fma(f, polynomial(f, table.LOG_DIRECT[32]), -0.5), fma(e, low, f))
    else:
        lead, rest = log1p_pair(f)
        reduced = lead + fma(e, low, rest)
    return finish(x, fma(e, high, reduced))


def _in_base(x: Value, factor: tuple[float, float], unit: tuple[float, float]) -> Value:
    """e * unit + log1p(f) * factor, each constant a (leading, rest) pair, summed with twice the working precision."""
    e, f = split_any(x)
    lead, rest = log1p_pair(f)
    product, product_error = two_product(lead, factor[0])
    whole, whole_error = two_product(e, unit[0])
    total, total_error = fast_two_sum(whole, product)
    small = fma(rest, factor[0], fma(lead, factor[1], fma(e, unit[1], product_error + whole_error)))
    return finish(x, total + (total_error + small))


def log2(x: Value) -> Value:
    return _in_base(x, LOG2_E[x.kind], (1.0, 0.0))


def log10(x: Value) -> Value:
    return _in_base(x, LOG10_E[x.kind], LOG10_2[x.kind])


def log1p(x: Value) -> Value:
    """log(u) + c / u, where u = 1 + x rounded and c its rounding error (W. Kahan)."""
    u, c = two_sum(x, 1.0)
    e, f = split(u)
    high, low = LN2[x.kind]
    lead, rest = log1p_pair(f)
    result = fma(e, high, lead + (rest + fma(e, low, c / u)))
    special = select(x.equals(-1.0), -math.inf, select(x < -1.0, math.nan, x))
    return select((x > -1.0) & (x < math.inf) & x.compare("une", 0.0), result, special)
