"""A nest that a comparison of places divides is written twice: once for where its place decides for all of its elements."""

from __future__ import annotations

import pytest

from tests.passes.golden import body
from tests.schedule.programs import CPU, check_same, op_of, steps_of
from tridsl.structs import replace

OP = """op f(x: i32[N, M], c: i32[N, M]) -> y: i32[N, M] {{
  y[i, j] = {0}
}}
"""
TILE = "y.split(i, 8).split(j, 16).order(i.o, j.o, i.i, j.i).vector(j.i)"
SIZES = {"N": 40, "M": 48}


@pytest.mark.parametrize(
    ("value", "condition"),
    [
        ("if j > i then 0 else x[i, j]", "if j.o*16 - i.o*8 + 15 <= 0"),
        ("if j >= i then 0 else x[i, j]", "if j.o*16 - i.o*8 + 15 < 0"),
        ("if j < i then 0 else x[i, j]", "if j.o*16 - i.o*8 - 7 >= 0"),
        ("if j <= i + 3 then 0 else x[i, j]", "if j.o*16 - i.o*8 - 10 > 0"),
        ("if j > i then x[i, j] else 7", "if j.o*16 - i.o*8 - 7 > 0"),
        ("if j >= i then x[i, j] else 7", "if j.o*16 - i.o*8 - 7 >= 0"),
        ("if j < i then x[i, j] else 7", "if j.o*16 - i.o*8 + 15 < 0"),
        ("if i + j <= 40 then x[i, j] else 7", "if i.o*8 + j.o*16 - 18 <= 0"),
        ("(if j > i then 0 else x[i, j]) + (if j > i then 1 else c[i, j])", "if j.o*16 - i.o*8 + 15 <= 0"),
    ],
)
def test_the_place_decides(value: str, condition: str) -> None:
    text = OP.format(value)
    found = body("finish", text, TILE, sizes=SIZES)
    decided = found.partition(condition)[2].partition("else\n")[0]
    assert decided and " if " not in decided, found
    check_same(op_of(text), steps_of(op_of(text), TILE, CPU), SIZES)


@pytest.mark.parametrize(
    ("value", "tile"),
    [
        ("if x[i, j] > 0 then 0 else c[i, j]", TILE),  # not the place
        ("if j > i then c[i, j] else x[i, j]", TILE),  # which of the two is the usual one?
        ("(if j > i then 0 else x[i, j]) + (if j > i + 9 then 1 else c[i, j])", TILE),
        ("if i > 5 then 0 else x[i, j]", TILE),  # the same for all lanes
        ("if i * j > 99 then 0 else x[i, j]", TILE.replace("i.i, j.i).vector(j.i)", "j.i, i.i).vector(i.i)")),  # not linear
        ("if j > i then 0 else x[i, j]", TILE.replace("(i, 8)", "(i, 2)")),  # asked as often as it is answered
    ],
)  # fmt: skip
def test_the_nest_stays(value: str, tile: str) -> None:
    text = OP.format(value)
    found = body("decide_nests", text, tile, sizes=SIZES)
    assert found == body("partition", text, tile, sizes=SIZES)
    check_same(op_of(text), steps_of(op_of(text), tile, CPU), SIZES)


def test_only_where_lanes_are_those_of_registers() -> None:
    text = OP.format("if j > i then 0 else x[i, j]")
    spec = replace(CPU, vector_bits=None)
    assert body("decide_nests", text, TILE, sizes=SIZES, spec=spec) == body("partition", text, TILE, sizes=SIZES, spec=spec)


@pytest.mark.parametrize("sizes", [{"N": 37, "M": 50}, {"N": 3, "M": 16}, {"N": 1, "M": 1}], ids=str)
def test_tails_mean_what_they_meant(sizes: dict[str, int]) -> None:
    """A clipped nest is decided like the whole one that it is a part of."""
    text = OP.format("if j > i then 0 else x[i, j]")
    assert ("i.decided" in body("decide_nests", text, TILE, sizes=sizes)) == (sizes["N"] > 8)
    check_same(op_of(text), steps_of(op_of(text), TILE, CPU), sizes)
