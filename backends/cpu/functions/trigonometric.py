"""sin, cos, tan and their inverses."""

from __future__ import annotations

from tridsl.backends.cpu.functions import coefficients as table
from tridsl.backends.cpu.functions.arithmetic import Value, fast_two_sum, fma, polynomial, select
from tridsl.backends.cpu.functions.constants import HALF_PI
from tridsl.backends.cpu.functions.quadrants import quadrant


def _sine(r: Value, rest: Value) -> tuple[Value, Value]:
    """sin(r + rest) for |r| <= pi/4, as (lead, tail) to be added."""
    z = r * r
    return r, fma(r * z, polynomial(z, table.SIN[r.bits]), fma(rest * z, -0.5, rest))


def _cosine(r: Value, rest: Value) -> tuple[Value, Value]:
    """cos(r + rest) for |r| <= pi/4, as (lead, tail): 1 - z/2 is taken in two parts (fdlibm, k_cos.c)."""
    z = r * r
    half = z * 0.5
    lead = 1.0 - half
    return lead, ((1.0 - lead) - half) + fma(z * z, polynomial(z, table.COS[r.bits]), -(r * rest))


def _odd(q: Value) -> Value:
    return (q & 1).equals(1)


def _negated_if(x: Value, bit: Value) -> Value:
    """x with its sign flipped where bit 1 of the integer `bit` is set."""
    return (x.bitcast() ^ ((bit & 2) << (x.bits - 2))).bitcast()


def _sine_or_cosine(x: Value, shift: int) -> Value:
    """sin(x + shift pi/2)."""
    q, r, rest = quadrant(x)
    q = q + shift if shift else q
    sine, cosine, odd = _sine(r, rest), _cosine(r, rest), _odd(q)
    return _negated_if(select(odd, cosine[0], sine[0]) + select(odd, cosine[1], sine[1]), q)


def sin(x: Value) -> Value:
    return select(x.equals(0.0), x, _sine_or_cosine(x, 0))


def cos(x: Value) -> Value:
    return _sine_or_cosine(x, 1)


def tan(x: Value) -> Value:
    """sin / cos or -cos / sin. Both are known better than to their last place; one correction of the quotient uses it."""
    q, r, rest = quadrant(x)
    sine, cosine, odd = fast_two_sum(*_sine(r, rest)), fast_two_sum(*_cosine(r, rest)), _odd(q)
    top, top_tail = select(odd, cosine[0], sine[0]), select(odd, cosine[1], sine[1])
    bottom, bottom_tail = select(odd, sine[0], cosine[0]), select(odd, sine[1], cosine[1])
    inverse = 1.0 / bottom
    quotient = top * inverse
    residue = fma(-quotient, bottom, top) + fma(-quotient, bottom_tail, top_tail)
    result = fma(residue, inverse, quotient)
    return select(x.equals(0.0), x, _negated_if(result, (q & 1) << 1))


def _asin_tail(s: Value, z: Value) -> Value:
    """asin(s) - s for 0 <= s <= 1/2, z = s**2."""
    return s * z * polynomial(z, table.ASIN[s.bits])


def asin(x: Value) -> Value:
    """Above 1/2: pi/2 - 2 asin(sqrt((1 - |x|) / 2)). NaN outside [-1, 1] comes from the root."""
    a = x.abs()
    upper = a > 0.5
    z = select(upper, fma(a, -0.5, 0.5), a * a)
    s = select(upper, z.intrinsic("sqrt"), a)
    tail = _asin_tail(s, z)
    high, low = HALF_PI[x.kind][:2]
    lead, error = fast_two_sum(x.constant(high), s * -2.0)
    return select(upper, lead + (fma(tail, -2.0, low) + error), s + tail).copysign(x)


def acos(x: Value) -> Value:
    """pi/2 - asin(x) in the middle; 2 asin(sqrt((1 - |x|) / 2)) outside, from pi for negative x."""
    a = x.abs()
    upper = a > 0.5
    z = select(upper, fma(a, -0.5, 0.5), a * a)
    s = select(upper, z.intrinsic("sqrt"), x)
    tail = _asin_tail(s, z)
    high, low = HALF_PI[x.kind][:2]
    middle_lead, middle_error = fast_two_sum(x.constant(high), -s)
    middle = middle_lead + (middle_error + (low - tail))
    left_lead, left_error = fast_two_sum(x.constant(2.0 * high), s * -2.0)
    left = left_lead + (left_error + fma(tail, -2.0, 2.0 * low))
    right = (s + tail) * 2.0
    return select(upper, select(x < 0.0, left, right), middle)


def _atan_octant(t: Value) -> tuple[Value, Value]:
    """atan(t) for 0 <= t <= 1 as (t, rest)."""
    z = t * t
    return t, t * z * polynomial(z, table.ATAN[t.bits])


def atan(x: Value) -> Value:
    """Above 1: pi/2 - atan(1/|x|)."""
    a = x.abs()
    upper = a > 1.0
    t, tail = _atan_octant(select(upper, 1.0 / a, a))
    high, low = HALF_PI[x.kind][:2]
    lead, error = fast_two_sum(x.constant(high), -t)
    return select(upper, lead + (error + (low - tail)), t + tail).copysign(x)


def atan2(y: Value, x: Value) -> Value:
    """The angle of (x, y), by octants. Signed zeros and infinities as in C99 annex F."""
    tall, wide = y.abs(), x.abs()
    steep = tall > wide
    small, large = select(steep, wide, tall), select(steep, tall, wide)
    ratio = small / large
    equal = small.equals(large)  # 0/0 and inf/inf as well
    ratio = select(equal, select(large.equals(0.0), 0.0, ratio.constant(1.0)), ratio)
    t, tail = _atan_octant(ratio)
    left = x.bitcast() < 0
    high, low = HALF_PI[x.kind][:2]
    # angle = base + sign * (t + tail): base 0, pi/2 or pi
    flat_lead, flat_error = fast_two_sum(x.constant(2.0 * high), -t)
    flat = select(left, flat_lead + (flat_error + (2.0 * low - tail)), t + tail)
    signed_t, signed_tail = select(left, t, -t), select(left, tail, -tail)
    lead, error = fast_two_sum(x.constant(high), signed_t)
    result = select(steep, lead + (error + (signed_tail + low)), flat)
    return select(x.compare("uno", y), x + y, result.copysign(y))
