"""`y.parts(i, 64, into=heap)`: each part of a compaction by itself, with its count; put together they are what the op says."""

from __future__ import annotations

import pytest

from tests.schedule.test_lines import same, scheduled
from tridsl.diagnostics import TriError
from tridsl.ir.printer import print_kernel

KEPT = "op f(x: {t}[N], t: {t}) -> (y: {t}[..N]) {{ y = compact[i](x[i], x[i] >= t) }}\n"
BOTH = """op f(x: f32[N], t: f32) -> (y: f32[..N], pos: i32[..N]) {
  y   = compact[i](x[i], x[i] >= t)
  pos = compact[i](i, x[i] >= t)
}
"""


@pytest.mark.parametrize("dtype", ["f32", "i8", "u8", "i16", "bf16"])
@pytest.mark.parametrize("length", [1, 63, 64, 200])
def test_parts_with_their_counts(dtype: str, length: int) -> None:
    same(KEPT.format(t=dtype), "y.parts(i, 64, into=heap)", N=length)


def test_a_count_of_two_digits() -> None:
    same(KEPT.format(t="i8").replace("x[i] >= t", "x[i] != t"), "y.parts(i, 512, into=heap)", N=700)


@pytest.mark.parametrize("length", [5, 300])
def test_values_and_places_have_a_heap_each(length: int) -> None:
    kernel = same(BOTH, "pos.beside(y, i)\n  y.parts(i, 64, into=heap)", N=length)
    assert [b.name for b in kernel.scratch] == ["y.heap.y", "y.heap.pos"] and [p.name for p in kernel.phases] == ["y.heap", "y"]


def test_loops_of_the_first_pass_have_its_name() -> None:
    _, kernel = scheduled(KEPT.format(t="f32"), "y.parts(i, 64, into=heap)\n  y.heap.vector(i.i)\n  y.heap.parallel(i.o)", N=300)
    assert "parallel i.o < 5" in print_kernel(kernel)


@pytest.mark.parametrize(
    ("op", "directives", "sizes", "why"),
    [
        (KEPT.format(t="f32"), "y.parts(i, 64, into=pile)", {"N": 99}, "no `pile`"),
        (KEPT.format(t="f32"), "y.parts(i, 64, into=heap)", {}, "in advance"),
        (KEPT.format(t="f32"), "y.parts(i, 20000, into=heap)", {"N": 99}, "16383"),
        ("op f(x: f32[N]) -> y: f32 { y = sum[i](x[i]) }\n", "y.parts(i, 64, into=heap)", {"N": 99}, "no compaction"),
    ],
)
def test_what_goes_into_no_heap(op: str, directives: str, sizes: dict[str, int], why: str) -> None:
    with pytest.raises(TriError, match=f"E0424.*{why}"):
        scheduled(op, directives, **sizes)
