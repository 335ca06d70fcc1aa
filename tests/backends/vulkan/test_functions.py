"""Elementary functions: errors over the f32 range, and every special value as NumPy has it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tests.backends.vulkan.conftest import Run
from tests.backends.vulkan.kernels import call, elementwise
from tridsl.backend import Device
from tridsl.dtypes import BOOL, F32, F64
from tridsl.ir import scalar
from tridsl.ir.expr import FUNCTIONS, Binary, index

RNG = np.random.default_rng(0)
SPECIAL = np.array(
    [
        0.0, -0.0, 1, -1, np.inf, -np.inf, np.nan, 1e-45, -1e-45, 1e-40, 1.2e-38, 3.4e38, -3.4e38, 0.5, -0.5, 1.5, 2.5, -2.5, 0.49999997,
        88.72, 88.73, 89.4, 89.5, -87.4, -103.9, -104.1, 127.99, 128, -149, -150.1, 1e-5, 1e-10, np.pi, np.pi / 2, 1e6, 1e10, 1e38,
        16777216, 8388609, 0.70710677, 1.4142135, 0.625, 2.4142137,
    ],
    np.float32,
)  # fmt: skip


def spread(low: float, high: float, count: int = 20000) -> np.ndarray:
    """Of both signs, evenly in the logarithm, between e^low and e^high."""
    return np.exp(RNG.uniform(low, high, count)) * RNG.choice([-1, 1], count)


def line(low: float, high: float, count: int = 20000) -> np.ndarray:
    return RNG.uniform(low, high, count)


POSITIVE = (np.abs(spread(-100, 88)), line(0.5, 2), line(0.9, 1.1))
ANGLES = (line(-10, 10), spread(-20, 80), line(-1e5, 1e5), np.arange(-2000, 2000) * np.pi / 2)
DOMAINS = {
    **dict.fromkeys(("log", "log2", "log10", "sqrt", "rsqrt"), POSITIVE),
    **dict.fromkeys(("sin", "cos", "tan"), ANGLES),
    **dict.fromkeys(("asin", "acos"), (line(-1, 1), spread(-20, 0))),
    "log1p": (line(-1, 1), np.abs(spread(-80, 88)), line(-0.01, 0.01)),
}
USUAL = (line(-3, 3), spread(-80, 80), line(-100, 100))
ULP = {"tan": 4.0, "sqrt": 1.0, "floor": 0.0, "ceil": 0.0, "trunc": 0.0, "round_even": 0.0, "round_away": 0.0}
ONE_ARGUMENT = [name for name, count in FUNCTIONS.items() if count == 1 and name not in ("isnan", "isinf")]


def assert_within(found: np.ndarray, exact: np.ndarray, ulp: float) -> None:
    """|found - exact| ≤ `ulp` units in the last place; NaN, infinities and the signs of zeros as in `exact`."""
    with np.errstate(all="ignore"):
        wanted = exact.astype(np.float32)
    np.testing.assert_array_equal(np.isnan(found), np.isnan(wanted))
    np.testing.assert_array_equal(np.isinf(found), np.isinf(wanted))
    zero = exact == 0
    np.testing.assert_array_equal(found[zero], wanted[zero])
    np.testing.assert_array_equal(np.signbit(found[zero]), np.signbit(wanted[zero]))
    finite = np.isfinite(wanted)
    error = np.abs(found[finite].astype(np.float64) - exact[finite]) / np.spacing(np.abs(wanted[finite])).astype(
        np.float64
    )
    assert error.max(initial=0.0) <= ulp


@pytest.fixture
def usual(device: Device) -> Callable[..., np.ndarray]:
    """Where all values are ones that the device promises to keep: some have no f32 denormals."""
    keeps = device.spec.software or "denorm_preserve32" in device.spec.features
    least = np.finfo(np.float32).tiny

    def mask(*values: np.ndarray) -> np.ndarray:
        return np.logical_and.reduce([keeps | (value == 0) | ~(np.abs(value) < least) for value in values])

    return mask


@pytest.mark.parametrize("name", ONE_ARGUMENT)
def test_functions_of_one_argument(run: Run, usual: Callable[..., np.ndarray], name: str) -> None:
    x = np.concatenate([SPECIAL, *DOMAINS.get(name, USUAL)]).astype(np.float32)
    y = np.zeros_like(x)
    run(elementwise(index(len(x)), (F32,), F32, lambda a: call(name, a)), x, y)
    with np.errstate(all="ignore"):
        exact = scalar.FUNCTION[name](x.astype(np.float64))
    kept = usual(x, exact)
    assert_within(y[kept], exact[kept], ULP.get(name, 3.0))


def test_exp_of_a_difference_is_as_exact_as_the_difference(run: Run, usual: Callable[..., np.ndarray]) -> None:
    """Devices with an `exp2` of their own take one power of two: |x| 2^-24 of the result is what x itself may be off by, and half as much again."""
    a, b = (np.concatenate([SPECIAL, part]).astype(np.float32) for part in (line(-60, 40), line(-40, 60)))
    b[-5000:] = 0  # differences that did not round
    y = np.zeros_like(a)
    run(elementwise(index(len(a)), (F32, F32), F32, lambda p, q: call("exp", Binary(op="sub", a=p, b=q, dtype=F32))), a, b, y)
    with np.errstate(all="ignore"):
        x = (a - b).astype(np.float64)
        exact = np.exp(x)
        allowed = 3.0 * np.spacing(exact.astype(np.float32)).astype(np.float64) + 1.5 * np.abs(x) * 2.0**-24 * exact
        clear = usual(exact) & ~((exact + allowed > np.finfo(np.float32).max) & np.isfinite(exact) & (exact < 3.5e38))
    y, exact, allowed = y[clear].astype(np.float64), exact[clear], allowed[clear]
    with np.errstate(over="ignore"):
        wanted = exact.astype(np.float32)
    np.testing.assert_array_equal(np.isnan(y), np.isnan(wanted))
    np.testing.assert_array_equal(np.isinf(y), np.isinf(wanted))
    finite = np.isfinite(wanted)
    assert (np.abs(y[finite] - exact[finite]) <= allowed[finite]).all()


@pytest.mark.parametrize("name", ["pow", "atan2"])
def test_functions_of_two_arguments(run: Run, usual: Callable[..., np.ndarray], name: str) -> None:
    a, b = (part.ravel() for part in np.meshgrid(SPECIAL, SPECIAL))
    a = np.concatenate([a, line(-3, 3), np.abs(spread(-80, 80)), spread(-3, 3)]).astype(np.float32)
    b = np.concatenate([b, line(-20, 20), line(-1, 1), np.round(line(-10, 10))]).astype(np.float32)
    y = np.zeros_like(a)
    run(elementwise(index(len(a)), (F32, F32), F32, lambda p, q: call(name, p, q)), a, b, y)
    with np.errstate(all="ignore"):
        exact = scalar.FUNCTION[name](a.astype(np.float64), b.astype(np.float64))
    kept = usual(a, b, exact)
    assert_within(y[kept], exact[kept], 3.0)


@pytest.mark.parametrize("name", ["isnan", "isinf"])
def test_classification(run: Run, name: str) -> None:
    y = np.zeros(len(SPECIAL), np.bool_)
    run(elementwise(index(len(SPECIAL)), (F32,), BOOL, lambda a: call(name, a)), SPECIAL, y)
    np.testing.assert_array_equal(y, scalar.FUNCTION[name](SPECIAL))


@pytest.mark.parametrize(
    "name", ["sqrt", "rsqrt", "floor", "ceil", "trunc", "round_even", "round_away", "isnan", "isinf"]
)
def test_functions_of_double(run: Run, name: str) -> None:
    x = np.concatenate([SPECIAL, line(-1e6, 1e6, 1000)]).astype(np.float64)
    out = BOOL if name in ("isnan", "isinf") else F64
    y = np.zeros(len(x), np.bool_ if out == BOOL else np.float64)
    run(elementwise(index(len(x)), (F64,), out, lambda a: call(name, a)), x, y)
    with np.errstate(all="ignore"):
        np.testing.assert_allclose(y, scalar.FUNCTION[name](x), rtol=1e-15)


def test_fused_multiply_add(run: Run) -> None:
    x = line(-1, 1, 100).astype(np.float32)
    y = np.zeros_like(x)
    run(elementwise(index(100), (F32,), F32, lambda a: call("fma", a, a, a)), x, y)
    np.testing.assert_allclose(y, x.astype(np.float64) ** 2 + x, rtol=1e-6, atol=1e-7)
