"""Places of extremes are not compared where each is later than the one before."""

from __future__ import annotations

import numpy as np
import pytest

import tridsl
from tests.passes.golden import body
from tests.schedule.programs import check_same, op_of, steps_of

COLUMNS = """op f(x: {T}[M, N]) -> (y: i64[N], z: i32[N]) where M > 0 {{
  y[j] = argmax[i](x[i, j])
  z[j] = i32(argmin[i](x[i, j]))
}}
"""
LATER = "later_argmax"


@pytest.mark.parametrize(
    ("directives", "simple"),
    [
        ("y.argmax.order(i, j).vector(j)", True),
        ("y.argmax.split(i, 8).order(i.o, j, i.i).unroll(i.i).vector(j)", True),
        ("y.argmax.vector(i)", False),  # lanes have places of their own
        ("y.argmax.parts(i, 16)", False),  # a part begins at a place that its number decides
    ],
)
def test_the_order_of_places_decides(directives: str, simple: bool) -> None:
    text = COLUMNS.format(T="f32")
    assert (LATER in body("later_places", text, directives, sizes={"M": 40, "N": 9})) is simple
    for sizes in ({"M": 40, "N": 9}, {"M": 1, "N": 1}, {"M": 17, "N": 33}):
        check_same(op_of(text), steps_of(op_of(text), directives), sizes)


def test_places_that_go_back() -> None:
    """0, 8, 16, … and then 1, 9, …: of equal values the lower place still has to be found."""
    assert LATER not in body("later_places", COLUMNS.format(T="f32"), "y.argmax.split(i, 8).order(i.i, j, i.o)", sizes={"M": 40, "N": 9})


@pytest.mark.parametrize("dtype", ["f32", "i32", "f64"])
@pytest.mark.parametrize("shape", [(1, 7), (9, 40), (64, 130), (300, 17)])
def test_ties_and_not_a_number(dtype: str, shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    kind = {"f32": np.float32, "i32": np.int32, "f64": np.float64}[dtype]
    x = rng.integers(-3, 4, shape).astype(kind)
    if dtype != "i32":
        x[rng.random(shape) < 0.02] = np.nan
        x[:, 0], x[:, 1] = -np.inf, np.inf
    y, z = tridsl.compile(COLUMNS.format(T=dtype)).f(x)
    np.testing.assert_array_equal(y, x.argmax(0))
    np.testing.assert_array_equal(z, x.argmin(0))
