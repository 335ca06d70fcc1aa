"""Reduction of an angle to its quadrant."""

from __future__ import annotations

from tridsl.backends.cpu.functions.arithmetic import Value, fma, two_product, two_sum
from tridsl.backends.cpu.functions.constants import HALF_PI, TWO_OVER_PI
from tridsl.backends.cpu.functions.exponential import whole_bits


def quadrant(x: Value) -> tuple[Value, Value, Value]:
    """(q, r, rest): x = q pi/2 + r + rest, |r| <= pi/4, q an integer modulo 4."""
    first, second, third = HALF_PI[x.kind][:3]
    n = (x * TWO_OVER_PI[x.kind]).round()
    product, product_error = two_product(n, second)
    r, error = two_sum(fma(n, -first, x), -product)
    return whole_bits(n), r, fma(n, -third, error - product_error)
