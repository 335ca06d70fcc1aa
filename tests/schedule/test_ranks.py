"""`v.parts(n, 64, into=ranks)`: each element of a part of a top-k knows its place by what comes before it; parts of parts, to the last."""

from __future__ import annotations

import pytest

from tests.schedule.test_block_gpu import MATRICES
from tests.schedule.test_lines import same, scheduled
from tridsl.check.resolve import bind
from tridsl.check.types import check_op
from tridsl.diagnostics import SourceFile, TriError
from tridsl.ir.printer import print_kernel
from tridsl.passes.specialise import Specialisation, specialise
from tridsl.passes.to_loops import to_loops
from tridsl.schedule.apply import apply_schedule
from tridsl.schedule.decisions import Decider
from tridsl.schedule.ranked_gpu import ranked_parts
from tridsl.syntax.parse import parse

TOPK = "op f(x: {t}[N]) -> (v: {t}[{k}], i: i32[{k}]) {{ v, i = topk[n; k={k}](x[n]) }}\n"
LEVELS = "v.parts(n, 16, into=ranks)\n  v.parts(n.o, 12, into=ranks)\n  v.parts(n.o.o, 1000, into=ranks)"


@pytest.mark.parametrize("dtype", ["f32", "i32", "bf16", "f64"])
@pytest.mark.parametrize("length", [65, 100, 200])
def test_parts_of_parts(dtype: str, length: int) -> None:
    same(TOPK.format(t=dtype, k=3), LEVELS, N=length)


@pytest.mark.parametrize("k", [1, 5, 16])
def test_what_is_kept_of_each_part(k: int) -> None:
    same(TOPK.format(t="f32", k=k), "v.parts(n, 16, into=ranks)", N=70)
    for length in (16, 17, 70):
        same(TOPK.format(t="f32", k=k), "v.parts(n, 1000, into=ranks)", N=length)


def test_elements_are_lanes() -> None:
    """No element waits for another, so they may be anything but carried."""
    first = 'v.parts(n, 8, into=ranks)\n  v.part.bind(n.o="group.x", n.i="lane.x")'
    kernel = same(TOPK.format(t="f32", k=3), f'{first}\n  v.parts(n.o, 99, into=ranks)\n  v.bind(n.o="lane.x")', N=21)
    assert [p.name for p in kernel.phases] == ["v.part", "v"] and "lane.x n.o < 9" in print_kernel(kernel)


@pytest.mark.parametrize(
    ("op", "directives", "sizes", "why"),
    [
        (TOPK.format(t="f32", k=3), "v.parts(n, 2, into=ranks)", {"N": 99}, "smaller than what is kept"),
        (TOPK.format(t="f32", k=3), "v.parts(n, 99, into=ranks)\n  v.parts(n, 9, into=ranks)", {"N": 99}, "no top-k"),
        (TOPK.format(t="f32", k=3), "v.parts(n, 64, into=heap)", {"N": 99}, "no compaction"),
        ("op f(x: f32[N]) -> y: f32 { y = sum[i](x[i]) }\n", "y.parts(i, 64, into=ranks)", {"N": 99}, "no top-k"),
        ("op f(x: f32[N]) -> y: f32 { y = sum[i](x[i]) }\n", "y.parts(i, 64, into=best)", {"N": 99}, "no top-k"),
        (TOPK.format(t="f32", k=3), "v.parts(n, 64, into=best)", {"N": 99}, "fewer parts"),
    ],
)
def test_what_has_no_ranks(op: str, directives: str, sizes: dict[str, int], why: str) -> None:
    with pytest.raises(TriError, match=f"E0424.*{why}"):
        scheduled(op, directives, **sizes)


BEST = "v.parts(n, {c}, into=best)"


@pytest.mark.parametrize("dtype", ["f32", "i32", "f16"])
@pytest.mark.parametrize(("length", "k", "c"), [(100, 3, 8), (97, 3, 8), (64, 8, 8), (9, 2, 4), (50, 1, 16)])
def test_only_parts_with_the_best_elements(dtype: str, length: int, k: int, c: int) -> None:
    op = TOPK.format(t=dtype, k=k)
    kernel = same(op, BEST.format(c=c), N=length)
    assert [p.name for p in kernel.phases] == ["v.best", "v.part", "v.order", "v.left", "v"]
    same(op, f"{BEST.format(c=c)}\n  v.part.parts(n.o, 1000, into=ranks)\n  v.parts(n.o, 1000, into=ranks)", N=length)


def test_the_best_of_the_best() -> None:
    again = "v.part.parts(n.o, 4, into=best)\n  v.part.part.parts(n.o.o, 99, into=ranks)\n  v.part.parts(n.o.o, 99, into=ranks)\n  v.parts(n.o, 99, into=ranks)"
    same(TOPK.format(t="f32", k=3), f"{BEST.format(c=4)}\n  {again}", N=99)


@pytest.mark.parametrize(("length", "k"), [(1, 1), (5000, 300), (99_991, 16), (10**6, 1000), (10**7, 16), (10**7, 5000)])
def test_the_automatic_steps_apply_whatever_is_kept(length: int, k: int) -> None:
    bound = bind(parse(SourceFile(name="<test>", text=TOPK.format(t="f32", k=k))), lambda module, name: None)
    checked = check_op(bound, bound.operations["f"][0], {})
    naive = specialise(to_loops(checked), Specialisation(sizes=(("N", length),)))
    steps = ranked_parts(checked.stages[0], MATRICES, {"N": length}, Decider())  # type: ignore[arg-type]  # `typed` gave a top-k
    kernel = apply_schedule(naive, steps, MATRICES)
    assert kernel.phases[-1].name == "v" and (length < 5000 or kernel.phases[0].name == "v.best")
