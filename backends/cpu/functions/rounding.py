"""Functions that are one or two instructions: roots, roundings, classification."""

from __future__ import annotations

import math

from tridsl.backends.cpu.functions.arithmetic import Value
from tridsl.backends.cpu.functions.arithmetic import fma as fused


def sqrt(x: Value) -> Value:
    return x.intrinsic("sqrt")


def rsqrt(x: Value) -> Value:
    """1 / sqrt(x): two correct roundings, at most 1.5 ulp; rsqrt(+-0) = +-inf as in IEEE 754-2019."""
    return 1.0 / x.intrinsic("sqrt")


def fma(a: Value, b: Value, c: Value) -> Value:
    return fused(a, b, c)


def floor(x: Value) -> Value:
    return x.intrinsic("floor")


def ceil(x: Value) -> Value:
    return x.intrinsic("ceil")


def trunc(x: Value) -> Value:
    return x.intrinsic("trunc")


def round_even(x: Value) -> Value:
    return x.intrinsic("roundeven")


def round_away(x: Value) -> Value:
    """Nearest whole number, halves away from zero; on x86 LLVM adds the number before 1/2 and truncates."""
    return x.intrinsic("round")


def isnan(x: Value) -> Value:
    return x.is_nan()


def isinf(x: Value) -> Value:
    return x.abs().equals(math.inf)
