"""Reduction of an angle to its quadrant: x = q pi/2 + r + rest, |r| <= pi/4 (about), q modulo 4.

Ordinary angles: pi/2 as a sum of three rounded parts; with fused multiply-adds x - n*first is exact (W. J. Cody and
W. Waite, *Software Manual for the Elementary Functions*, 1980, ch. 8). Huge angles: x times the digits of 2/pi that
matter for this exponent (M. Payne and R. Hanek, SIGNUM Newsletter 18, 1983), 26 bits at a time so that every product is
exact; products are taken modulo 4. That code is long: it stands behind the one branch, taken when some lane needs it.
"""

from __future__ import annotations

from tridsl.backends.cpu.functions.arithmetic import Value, fast_two_sum, fma, select, two_product, two_sum
from tridsl.backends.cpu.functions.constants import HALF_PI, TWO_OVER_PI, TWO_OVER_PI_DIGITS
from tridsl.backends.cpu.functions.exponential import exponent_bits, power_of_two, whole_bits

_ORDINARY = {"f32": 2.0**17, "f64": 2.0**30}
_DIGIT = 26
_WINDOW = 8
"""Digits that matter: 8 * 26 bits reach 2**-120 of a quadrant for 53-bit x; no f64 is nearer to one than 2**-62."""


def quadrant(x: Value) -> tuple[Value, Value, Value]:
    """(q, r, rest), q of the integer kind as wide as x. NaN for infinities."""
    first, second, third = HALF_PI[x.kind][:3]
    n = (x * TWO_OVER_PI[x.kind]).round()
    product, product_error = two_product(n, second)
    r, error = two_sum(fma(n, -first, x), -product)
    rest = fma(n, -third, error - product_error)
    huge = x.abs() > _ORDINARY[x.kind]
    q, r, rest = x.rarely(f"quadrant.{x.kind}", huge, _huge, (whole_bits(n), r, rest))
    return q, r, rest


def _huge(x: Value) -> tuple[Value, Value, Value]:
    if x.kind == "f64":
        return _payne_hanek(x)
    q, r, rest = _payne_hanek(x.convert("fpext", "f64"))
    narrow = (r + rest).convert("fptrunc", "f32")
    return q.convert("trunc", "i32"), narrow, ((r - narrow.convert("fpext", "f64")) + rest).convert("fptrunc", "f32")


def _digits(x: Value, skipped: Value) -> list[Value]:
    """Digits `skipped`, `skipped + 1`, … of 2/pi: a barrel shifter over the constants, no gathers."""
    found = [x.constant(d) for d in TWO_OVER_PI_DIGITS]
    for bit in reversed(range((len(found) - _WINDOW).bit_length())):
        step = 1 << bit
        moved = (skipped & step).equals(step)
        zero = x.constant(0.0)
        found += [zero] * (_WINDOW + 2 * step - 1 - len(found))
        found = [select(moved, found[i + step], found[i]) for i in range(_WINDOW + step - 1)]
    return found


def _payne_hanek(x: Value) -> tuple[Value, Value, Value]:
    """The reduction for f64 |x| >= 2**17."""
    biased = (x.bitcast() & 0x7FF << 52).logical_shift_right(52)
    exponent = (biased | whole_bits(x.constant(0.0))).bitcast() - (1.5 * 2.0**52 + 1023)
    # a digit is skipped when its product with the last bit of x is a multiple of 4
    skipped = ((exponent - 53.5) * (1.0 / _DIGIT)).intrinsic("floor").clamp(low=0.0)
    scaled = x * power_of_two(exponent_bits(skipped * -_DIGIT))
    high = (scaled.bitcast() & -(1 << 27)).bitcast()
    halves = high, scaled - high
    total = middle = low = x.constant(0.0)
    for i, digit in enumerate(_digits(x, whole_bits(skipped))):
        for half in halves:
            product = half * (digit * 2.0 ** (-_DIGIT * (i + 1)))
            if i <= 3:
                product = fma((product * 0.25).round(), -4.0, product)
            total, error = two_sum(total, product)
            middle, error = two_sum(middle, error)
            low = low + error
    n = total.round()
    lead, rest = two_sum(total - n, middle)
    lead, rest = fast_two_sum(lead, rest + low)
    first, second = HALF_PI["f64"][:2]
    r, error = two_product(lead, first)
    return whole_bits(n), r, fma(rest, first, fma(lead, second, error))
