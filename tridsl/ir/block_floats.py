"""Numbers that share an exponent: what `Intrinsic.shares_exponent` makes of its operands before it multiplies them.

A block of bfp16 (AMD, `bfp16ebs8`) has one exponent of 8 bits and for each of 8 numbers a signed mantissa of 8 bits. The largest number decides the
exponent; the others lose what lies below its seventh binary place. Rounding is to nearest even, and what would be rounded up beyond the largest
mantissa stays there. Blocks with a number that is not finite are left as they are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

MANTISSA_BITS = 8


def shared_exponent(values: Sequence[Any]) -> list[Any]:
    """One block, as its numbers read after it was stored."""
    greatest = max(abs(float(v)) for v in values)
    if greatest == 0 or not all(math.isfinite(v) for v in values):
        return list(values)
    step = math.ldexp(1.0, math.frexp(greatest)[1] - (MANTISSA_BITS - 1))
    low, high = -(1 << (MANTISSA_BITS - 1)), (1 << (MANTISSA_BITS - 1)) - 1
    return [type(v)(min(high, max(low, round(float(v) / step))) * step) for v in values]
