"""Short rows go through the stages of a row operation a few at a time."""

from __future__ import annotations

import numpy as np
import pytest

from tests.schedule.programs import CPU, check_same, op_of
from tridsl import stdlib
from tridsl.devices.spec import DeviceSpec
from tridsl.schedule.automatic import automatic, choices
from tridsl.schedule.steps import At, Parallel, Pipeline, Split
from tridsl.structs import replace

ONE_CORE = replace(CPU, cores=1, l1_bytes=48 << 10)
NORM = """op f(x: f32[R, N], g: f32[N]) -> y: f32[R, N] {
  m[r]    = sum[n](x[r, n]) / f32(N)
  v[r]    = sum[n](sqr(x[r, n] - m[r])) / f32(N)
  y[r, n] = (x[r, n] - m[r]) * rsqrt(v[r] + 1) * g[n]
}"""
SOFTMAX = """op f(x: f32[R, N]) -> y: f32[R, N] {
  m[r]    = max[n](x[r, n])
  e[r, n] = exp(x[r, n] - m[r])
  s[r]    = sum[k](e[r, k])
  y[r, n] = e[r, n] / s[r]
}"""
SPREAD = """op f(x: i32[R, N], w: i32[N]) -> y: i32[R, N] {
  least[r]    = min[n](x[r, n])
  greatest[r] = max[n](x[r, n])
  y[r, n]     = (x[r, n] - least[r]) * w[n] + greatest[r]
}"""
ALONE = "op f(x: i32[R, N]) -> y: i32[R, N] { y[r, n] = x[r, n] * x[r, n] + 1 }"
OF_COLUMNS = "op f(x: i32[R, N]) -> y: i32[R, N] {\n  t[n] = sum[r](x[r, n])\n  y[r, n] = x[r, n] - t[n]\n}"


def height(text: str, spec: DeviceSpec, rows: int, length: int) -> int:
    """Rows that go together, by the split of the result's first axis."""
    steps = automatic(op_of(text), spec, {"R": rows, "N": length})
    found = [s.factor for s in steps if isinstance(s, Split) and s.axis == "r"]
    return int(found[0]) if found else 1


def test_as_many_rows_as_the_nearest_cache_holds_and_as_leave_each_core_some() -> None:
    """A row of a norm is read and given: 4 KiB of 512 elements."""
    assert height(NORM, ONE_CORE, 64, 512) == 4
    assert height(NORM, ONE_CORE, 64, 1500) == 2
    assert height(NORM, ONE_CORE, 64, 4096) == 1
    assert height(NORM, replace(ONE_CORE, l1_bytes=16 << 10), 64, 512) == 2
    assert height(NORM, replace(ONE_CORE, cores=32), 64, 512) == 2
    assert height(NORM, ONE_CORE, 3, 512) == 2 and height(NORM, ONE_CORE, 1, 512) == 1


@pytest.mark.parametrize("text", [ALONE, OF_COLUMNS, SOFTMAX])
def test_where_no_value_of_a_row_is_waited_for_or_elements_are_made_in_the_loop_of_another(text: str) -> None:
    assert height(text, ONE_CORE, 64, 512) == 1


def test_stages_threads_and_hints_are_by_groups() -> None:
    steps = automatic(op_of(NORM), replace(CPU, cores=2, l1_bytes=48 << 10), {"R": 64, "N": 512})
    assert {s.axis for s in steps if isinstance(s, At) and s.consumer == "y"} == {"r.o"}
    assert [s.axis for s in steps if isinstance(s, Parallel)] == ["r.o"]
    assert [s.at for s in steps if isinstance(s, Pipeline)] == ["r.o"]


def test_it_is_a_choice() -> None:
    found = {c.name: c for c in choices(op_of(NORM), ONE_CORE, {"R": 64, "N": 512}, {})}
    assert found["y.rows_together"].values == (4, 1, 2)


@pytest.mark.parametrize("text", [SPREAD, NORM])
@pytest.mark.parametrize("rows", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("length", [1, 17, 130])
def test_same(text: str, rows: int, length: int) -> None:
    op, sizes = op_of(text), {"R": rows, "N": length}
    check_same(op, automatic(op, ONE_CORE, sizes), sizes, ONE_CORE)


@pytest.mark.parametrize("rows", [2, 5, 8, 9])
def test_a_row_of_nan_spoils_no_other(rows: int) -> None:
    x, ones = np.random.default_rng(rows).standard_normal((rows, 100)).astype(np.float32), np.ones(100, np.float32)
    whole = stdlib.layernorm(x, ones, ones)
    x[1, 37] = np.nan
    got = stdlib.layernorm(x, ones, ones)
    assert np.isnan(got[1]).all() and np.array_equal(np.delete(got, 1, 0), np.delete(whole, 1, 0))
