"""pow(x, y) = 2**(y log2|x|), signed, with the special cases of C99 annex F.9.4.4."""

from __future__ import annotations

import math

from tridsl.backends.cpu.functions import coefficients as table
from tridsl.backends.cpu.functions.arithmetic import Value, fast_two_sum, fma, polynomial, select, two_product, two_sum
from tridsl.backends.cpu.functions.constants import LN2, LN2_PARTS, LOG2_E
from tridsl.backends.cpu.functions.exponential import exponent_bits, power_of_two, scale
from tridsl.backends.cpu.functions.logarithm import log1p_pair, split, split_any


def _magnitude_through_f64(a: Value, y: Value) -> Value:
    """a**y for f32 a > 0 by way of f64, whose last conversion rounds, overflows and underflows."""
    e, f = split(a.convert("fpext", "f64"))
    lead, rest = log1p_pair(f)
    exponent = (fma(lead + rest, LOG2_E["f64"][0], e) * y.convert("fpext", "f64")).clamp(-200.0, 200.0)
    n = exponent.round()
    power = polynomial(exponent - n, (1.0, *table.EXP2[64])) * power_of_two(exponent_bits(n))
    return power.convert("fptrunc", "f32")


def _log_pair(a: Value) -> tuple[Value, Value]:
    """log(a) to about 2**-66 relative, for positive f64 `a`, as an unevaluated sum.

    log1p(f) = 2 atanh(s), s = f / (2 + f) in two parts; the series' first two terms in two parts, the rest in one.
    """
    e, f = split_any(a)
    divisor, divisor_error = fast_two_sum(a.constant(2.0), f)
    s = f / divisor
    s_error = fma(s, -divisor_error, fma(-s, divisor, f)) / divisor
    z, z_error = two_product(s, s)
    z_error = fma(s * 2.0, s_error, z_error)
    # 2 s + s z (2/3 + z P(z))
    third, third_error = 2.0 / 3.0, 3.700743415417188e-17
    factor = z * polynomial(z, table.LOG_TAIL[64])
    inner, inner_error = fast_two_sum(a.constant(third), factor)
    inner_error = inner_error + third_error
    cube, cube_error = two_product(s, z)
    cube_error = cube_error + fma(s, z_error, s_error * z)
    term, term_error = two_product(cube, inner)
    term_error = term_error + fma(cube, inner_error, cube_error * inner)
    lead, rest = fast_two_sum(s * 2.0, term)
    rest = rest + fma(s_error, 2.0, term_error)
    high, middle, low = LN2_PARTS  # e * high is exact
    base, base_error = two_sum(e * high, lead)
    more, more_error = two_product(e, middle)
    total, total_error = two_sum(base, more)
    return fast_two_sum(total, total_error + (base_error + (rest + fma(e, low, more_error))))


def _magnitude_in_pairs(a: Value, y: Value) -> Value:
    """a**y for f64 a > 0: exp of y log(a) carried in two parts."""
    lead, rest = _log_pair(a)
    # beyond these the answer is 0 or inf whatever the rest: keeps products finite
    exponent, error = two_product(lead, y)
    error = fma(rest, y, error)
    inside = exponent.abs() < 800.0
    exponent = exponent.clamp(-800.0, 800.0)
    error = select(inside, error, 0.0)
    n = (exponent * LOG2_E["f64"][0]).round()
    high, low = LN2["f64"]
    reduced = fma(n, -high, exponent)
    r, r_error = two_sum(reduced, fma(n, -low, error))
    power = polynomial(r, (1.0, 1.0, *table.EXP[64]))
    return scale(fma(power, r_error, power), n)


def pow(x: Value, y: Value) -> Value:
    """Within 1 ulp in the tests. pow(x, +-0) = pow(1, y) = 1 even for NaN; pow(-1, +-inf) = 1."""
    a = x.abs()
    finite = (a > 0.0) & (a < math.inf) & (y.abs() < math.inf)
    magnitude = (_magnitude_through_f64 if x.kind == "f32" else _magnitude_in_pairs)(a, y)
    # 0, inf and infinite y: grows where (a > 1) == (y > 0)
    grows = ~((a > 1.0) ^ (y > 0.0))
    extreme = select(grows, math.inf, x.constant(0.0))
    extreme = select(a.equals(1.0), 1.0, extreme)
    result = select(finite, magnitude, extreme)
    whole = y.intrinsic("trunc").equals(y)
    halved = y * 0.5
    odd = whole & halved.intrinsic("trunc").compare("one", halved)
    negative = x.bitcast() < 0
    result = select(odd & negative, -result, result)
    undefined = (x < 0.0) & (a < math.inf) & ~whole
    result = select(undefined | x.compare("uno", y), math.nan, result)
    return select(x.equals(1.0) | y.equals(0.0), 1.0, result)
