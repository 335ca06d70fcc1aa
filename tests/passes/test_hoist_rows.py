"""Rows that do not change are made once."""

from __future__ import annotations

import pytest

from tests.passes.golden import body
from tests.schedule.programs import CPU, check_same, op_of, steps_of

NORMAL = "op f(x: f32[M, N], m: f32[N], v: f32[N]) -> y: f32[M, N] { y[i, j] = (x[i, j] - m[j]) / sqrt(v[j] + 1) }"


def test_a_row() -> None:
    assert body("hoist_rows", NORMAL, "y.parallel(i).vector(j)", sizes={"N": 64}) == """\
alloc y.row: f32[64] in l1 padded
vector j.row < 64
  y.row[j.row] = sqrt(v[j.row] + 1)
parallel i < M
  vector j < 64
    y[i, j] = (x[i, j] - m[j]) / y.row[j]"""


@pytest.mark.parametrize(
    ("value", "rows"),
    [
        ("exp(m[j]) * x[i, j] + 1 / v[j]", 2),
        ("exp(m[j]) * x[i, j] + exp(m[j])", 1),
        ("exp(m[j] + x[i, j])", 0),
        ("sqrt(m[0]) * x[i, j]", 0),  # one value for all lanes
        ("m[j] * 2 + x[i, j]", 0),  # costs no more than the load
        ("if isnan(m[j]) then 0 else x[i, j] / 3", 0),
    ],
)
def test_what_is_worth_a_row(value: str, rows: int) -> None:
    text = f"op f(x: f32[M, N], m: f32[N], v: f32[N]) -> y: f32[M, N] where N > 0 {{ y[i, j] = {value} }}"
    assert body("hoist_rows", text, "y.vector(j)", sizes={"M": 9, "N": 40}).count("alloc") == rows
    op = op_of(text)
    for sizes in ({"M": 9, "N": 40}, {"M": 5, "N": 1}):
        check_same(op, steps_of(op, "y.vector(j)"), sizes)


@pytest.mark.parametrize(("rows", "columns"), [(3, 64), (9, (CPU.l1_bytes or 0) // 8 + 1)])
def test_few_iterations_and_long_rows_stay(rows: int, columns: int) -> None:
    assert "alloc" not in body("hoist_rows", NORMAL, "y.vector(j)", sizes={"M": rows, "N": columns})


def test_a_row_that_the_loop_writes_stays() -> None:
    text = """op f(x: f32[M, N]) -> y: f32[M, N] {
  e[i, j] = x[i, j] * 2
  y[i, j] = exp(e[i, j]) + 1
}"""
    assert "row" not in body("hoist_rows", text, "e.at(y, i).vector(j)\n y.vector(j)", sizes={"M": 9, "N": 40})
