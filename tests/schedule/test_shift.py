"""`split(k, 4, tail=shift)`, `block(t, 16, tail=shift)`: the last tile begins early enough to be whole."""

from __future__ import annotations

import pytest

from tests.schedule.test_lines import same, scheduled
from tridsl.diagnostics import TriError
from tridsl.ir.loop import For
from tridsl.ir.walk import walk

TWICE = "op f(x: f32[N]) -> y: f32[N] {\n  t[i] = 2 * x[i]\n  y[i] = t[i] + 1\n}\n"


@pytest.mark.parametrize("length", [4, 5, 7, 8, 23])
def test_every_tile_is_whole(length: int) -> None:
    kernel = same(TWICE, "y.split(i, 4, tail=shift)\n  y.parallel(i.o)", N=length)
    inner = [n for p in kernel.phases for n in walk(p) if isinstance(n, For) and n.var == "y:i.i"]
    assert [str(n.extent) for n in inner] == [str(inner[0].extent)] and inner[0].bound == 4


@pytest.mark.parametrize(
    ("op", "directives", "why"),
    [
        (TWICE, "y.split(i, 64, tail=shift)", "only 23"),
        (TWICE, "y.split(i, 4, tail=pad)", "no tail `pad`"),
        (TWICE, "t.split(i, 4, tail=shift)", "read `x`"),
        ("op f(x: f32[N]) -> y: f32 { y = sum[i](x[i]) }\n", "y.split(i, 4, tail=shift)", "cannot run twice"),
    ],
)
def test_what_cannot_begin_earlier(op: str, directives: str, why: str) -> None:
    with pytest.raises(TriError, match=f"E0495.*{why}"):
        scheduled(op, directives, N=23)


def test_lengths_that_nobody_knows() -> None:
    with pytest.raises(TriError, match=r"E0495.*is not known"):
        scheduled(TWICE, "y.split(i, 4, tail=shift)")
