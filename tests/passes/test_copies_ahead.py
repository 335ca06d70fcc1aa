"""Copies of more than the nearest cache holds fetch what their outermost axis reads next, line by line."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.passes.golden import MATMUL, body
from tests.schedule.programs import CPU
from tridsl.ir.expr import Expr, Var, add, index, mul
from tridsl.ir.loop import CopyAxis
from tridsl.passes.copies_ahead import side_by_side

PANEL = "C.split(k, 256).split(j, 64).split(j.i, 32).order(j.o, k.o, i, j.i.o, k.i, j.i.i)\nB.pack(at=k.o)"


def hints(**facts: int) -> list[str]:
    lines = body("expand_copies", MATMUL, PANEL, sizes={"M": 4, "K": 512, "N": 128}, spec=replace(CPU, **facts)).splitlines()  # type: ignore[arg-type]  # fields by name
    return [line.strip() for line in lines if "prefetch" in line or ".ahead <" in line]


def test_a_panel_is_fetched_ahead_along_its_outermost_axis() -> None:
    """256 bytes of each row of B are copied, so that 2 KiB are eight rows."""
    ahead = ["unroll B.pack.j.i.i.ahead < 2", "prefetch B[B.pack.k.i + 8 + k.o*256, B.pack.j.i.i.ahead*16 + B.pack.j.i.o*32 + j.o*64]"]
    assert hints(l1_bytes=32768) == ahead


@pytest.mark.parametrize("facts", [{"l1_bytes": 1 << 20}, {"l1_bytes": 32768, "vector_bits": 0}])
def test_what_is_near_or_has_no_vectors_is_not(facts: dict[str, int]) -> None:
    assert hints(**facts) == []


def test_axes_side_by_side() -> None:
    """The nearest elements first; an axis whose step is no continuation is a row of its own."""
    a, b, c = (CopyAxis(var=name, extent=index(n)) for name, n in (("a", 8), ("b", 4), ("c", 3)))

    def place(*steps: int) -> Expr:
        total: Expr = index(7)
        for axis, step in zip((a, b, c), steps):
            total = add(total, mul(Var(name=axis.var), index(step)))
        return total

    assert side_by_side((a, b, c), place(4, 1, 100)) == ((b, a), 32)
    assert side_by_side((a, b, c), place(5, 1, 4)) == ((b, c), 12)
    assert side_by_side((a, b, c), place(8, 2, 3)) == ((), 1)
