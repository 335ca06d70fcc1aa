"""Elements that change their places: blocks whose sides the core exchanges, in runs of whole tiles."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from tests.backends.npu.designs import GENERATIONS, agree, subject
from tests.backends.npu.test_kernels import normal, whole
from tridsl.backends.npu.cost import run_bytes

BF16 = ml_dtypes.bfloat16
MAKERS: dict[str, Any] = {
    "f32": normal, "bf16": lambda *s: normal(*s, dtype=BF16), "i8": lambda *s: whole(np.int8, *s), "i16": lambda *s: whole(np.int16, *s),
}  # fmt: skip
TURNED = "op f(x: {t}[A, B, C]) -> y: {t}[C, A, B] {{\n  y[c, a, b] = x[a, b, c]\n}}\n"


@pytest.mark.parametrize("generation", GENERATIONS)
@pytest.mark.parametrize("t", MAKERS)
def test_rows_become_columns(t: str, generation: str) -> None:
    """Neither the host nor a transfer exchanges elements."""
    for m, n in ((33, 70), (1, 5)):
        given = subject("transpose", MAKERS[t](m, n), generation=generation)
        agree(given.results(dispatches=2), given.want())
        assert "aie::transpose(" in given.kernels and all(x.axes == (0, 1) for x in given.design.tensors)


@pytest.mark.parametrize("t", ["bf16", "i8"])
def test_the_last_axis_becomes_the_first(t: str) -> None:
    given = subject(TURNED.format(t=t), MAKERS[t](3, 20, 37))
    agree(given.results(), given.want())


def test_large_tiles_are_read_and_written_in_long_runs() -> None:
    design = subject("transpose", normal(256, 512, dtype=BF16)).design
    runs = [2 * run_bytes(t.dimensions) for t in design.sequence if hasattr(t, "dimensions")]
    assert min(runs) >= 128


@pytest.mark.full
@pytest.mark.parametrize("columns", [1, 2, 4])
def test_on_every_number_of_columns(columns: int) -> None:
    for make in MAKERS.values():
        given = subject("transpose", make(100, 90), generation="aie2", decisions={"y.columns": columns})
        agree(given.results(), given.want())
