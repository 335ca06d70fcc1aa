"""`planes`: sums of products with packed trits on their bytes, written out and automatic; every stage means what the op means."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.schedule.programs import CPU, SMALL, op_of, steps_of
from tridsl.buffer import pack
from tridsl.diagnostics import TriError
from tridsl.dtypes import TRIT
from tridsl.ir.evaluate import evaluate_kernel, evaluate_op
from tridsl.ir.loop import Kernel, Mma, Prefetch
from tridsl.ir.op import Op, Tensor
from tridsl.ir.printer import print_kernel
from tridsl.ir.verify import LOWERED, SCHEDULED, describe, verify
from tridsl.ir.walk import walk
from tridsl.passes.specialise import Specialisation
from tridsl.pipeline import LOWER, SCHEDULE, TO_KERNEL, Build, run
from tridsl.schedule.automatic import automatic, choices, choose
from tridsl.schedule.steps import Planes, Schedule

VNNI = replace(CPU, features=frozenset({"avx512vnni", "avx512bw", "gfni", "avx512vbmi"}))
PLAIN = replace(VNNI, features=frozenset({"avx512vnni", "avx512bw"}))
DOTS = """op dots(W: trit[M, K], x: i8[K]) -> y: i32[M] {
  y[m] = sum[k; acc=i32](W[m, k] * x[k])
}
"""
MANY = """op many(W: trit[M, K], X: i8[N, K]) -> Y: f32[N, M] {
  Y[n, m] = f32(sum[k; acc=i32](W[m, k] * X[n, k])) * 0.5
}
"""
BLOCKS = """op blocks(W: trit[M, K], x: i8[K]) -> y: i32[K // 32, M] where K % 32 == 0 {
  y[b in 0..K // 32, m] = sum[k in 0..32; acc=i32](W[m, 32 * b + k] * x[32 * b + k])
}
"""
TILED = """y.planes(2).split(m.o, 2)
y.planes.at(y, m.o.o)
y.planes.order(k.o, k.g, k.p, m.o, m.i, k.i).unroll(k.g).unroll(k.p).unroll(m.o).vector(m.i)
x.pack(at=m.o.o, reader=y)
y.planes.intrin("vpdpbusd")
W.pipeline(8, at=k.o, reader=y.planes)
y.vector(m.i)"""


def packed(text: str, layout: str) -> Op:
    op = op_of(text)
    return replace(op, params=tuple(replace(p, layout=layout) if isinstance(p, Tensor) and p.dtype == TRIT else p for p in op.params))


def build_of(schedule: Schedule, sizes: dict[str, int], spec: Any) -> Build:
    return Build(spec=spec, backend=None, schedule=schedule, facts=Specialisation(sizes=tuple(sizes.items())))  # type: ignore[arg-type]


def values(op: Op, sizes: dict[str, int], extreme: bool = False) -> dict[str, Any]:
    random = np.random.default_rng(3)
    x = (sizes["N"], sizes["K"]) if "N" in sizes else (sizes["K"],)
    w = np.ones((sizes["M"], sizes["K"]), np.int8) if extreme else random.integers(-1, 2, (sizes["M"], sizes["K"])).astype(np.int8)
    low = random.choice(np.array([-128, 127], np.int8), x) if extreme else random.integers(-128, 128, x).astype(np.int8)
    names = [p.name for p in op.params if isinstance(p, Tensor) and p.role == "input"]
    return dict(zip(names, (w, low)))


def check(op: Op, schedule: Schedule, sizes: dict[str, int], spec: Any, *, known: bool = True, extreme: bool = False) -> Kernel:
    """Every stage from the schedule on is well formed and gives the op's own answer. The lowered kernel."""
    given = values(op, sizes, extreme)
    layout = next(p.layout for p in op.params if isinstance(p, Tensor) and p.layout != "row")
    want = evaluate_op(replace(op, params=tuple(replace(p, layout="row") if isinstance(p, Tensor) else p for p in op.params)), given, sizes)
    kernel = run(op, TO_KERNEL, build_of(schedule, sizes if known else {}, spec))
    for stages, level in ((SCHEDULE, SCHEDULED), (LOWER, LOWERED)):
        kernel = run(kernel, stages, build_of(schedule, sizes if known else {}, spec))
        problems = verify(kernel, level)
        assert not problems, f"{describe(problems)}\n{print_kernel(kernel)}"
        passed = dict(given)
        for p in kernel.params:
            if isinstance(p, Tensor) and p.role == "input" and p.name == "W" and p.dtype != TRIT:
                passed["W"] = pack(given["W"], layout).array
        got = evaluate_kernel(kernel, passed, {n: sizes[n] for n in kernel.sizes})
        for name, value in want.items():
            np.testing.assert_array_equal(got[name], value, err_msg=print_kernel(kernel))
    assert isinstance(kernel, Kernel)
    return kernel


def test_before_and_after() -> None:
    op = packed(DOTS, "t16")
    kernel = run(op, (*TO_KERNEL, *SCHEDULE[:1]), build_of(steps_of(op, "y.planes(4)"), {"M": 20, "K": 40}, CPU))
    assert print_kernel(kernel) == """\
kernel dots(W: u8[2, 3, 16, 4], x: i8[40]) -> y: i32[20]
  alloc y.offset: i32 in global
  alloc y.planes: i32[2, 4, 16] in global
  phase y.offset
    for k < 40 reduce
      y.offset[] += i32(x[k]) from 0
  phase y.planes
    for m.o < 2
      for k.p < 4
        for m.i < 16
          for k.o < 3 reduce
            for k.g < 1 reduce
              for k.i < max(0, min(4, 40 - (k.o*16 + (k.g*4 + k.p)*4))) bound 4 reduce
                y.planes[m.o, k.p, m.i] += i32(W[m.o, k.o, m.i, k.i] >> u8(k.g*8) & 3 << u8(k.p*2)) * i32(x[k.o*16 + (k.g*4 + k.p)*4 + k.i]) from 0
  phase y
    for m.o < 2
      for m.i < 16
        y[m.o*16 + m.i] = y.planes[m.o, 0, m.i] + (y.planes[m.o, 1, m.i] >> 2) + (y.planes[m.o, 2, m.i] >> 4) + (y.planes[m.o, 3, m.i] >> 6) - y.offset[] if m.o*16 + m.i < 20
"""


@pytest.mark.parametrize("parts", [1, 2, 4])
@pytest.mark.parametrize("known", [False, True])
def test_bit_pairs_in_so_many_parts(parts: int, known: bool) -> None:
    op = packed(DOTS, "t16")
    if parts > 1 and not known:
        with pytest.raises(TriError, match="E0427"):
            check(op, steps_of(op, f"y.planes({parts})"), {"M": 20, "K": 40}, CPU, known=False)
        return
    for sizes in ({"M": 20, "K": 40}, {"M": 0, "K": 5}, {"M": 3, "K": 0}, {"M": 1, "K": 1}):
        check(op, steps_of(op, f"y.planes({parts})"), sizes, CPU, known=known)


@pytest.mark.parametrize("layout", ["t16", "t20", "t96"])
def test_values_instead_of_codes(layout: str) -> None:
    op = packed(DOTS, layout)
    for sizes in ({"M": 20, "K": 100}, {"M": 16, "K": 1}, {"M": 3, "K": 0}):
        kernel = check(op, steps_of(op, "y.planes(0)"), sizes, CPU, extreme=True)
        assert not any("offset" in phase.name for phase in kernel.phases)


def test_the_sum_in_the_map_that_reads_it() -> None:
    op, sizes = packed(MANY, "t16"), {"M": 40, "K": 48, "N": 2}
    kernel = check(op, steps_of(op, "Y.sum.planes(0)\nY.sum.inline()\nY.split(m, 16)\nY.sum.planes.at(Y, m.o)", **sizes), sizes, CPU)
    assert len(kernel.phases) == 1 and not kernel.scratch


@pytest.mark.parametrize("layout", ["t16", "t20", "t96"])
@pytest.mark.parametrize(("text", "sizes"), [(DOTS, {"M": 33, "K": 100}), (MANY, {"M": 17, "K": 21, "N": 3}), (MANY, {"M": 16, "K": 20, "N": 0})])
def test_every_layout(layout: str, text: str, sizes: dict[str, int]) -> None:
    op = packed(text, layout)
    stage = "y" if text is DOTS else "Y.sum"
    check(op, steps_of(op, f"{stage}.planes(1)"), sizes, CPU)
    check(op, (), sizes, CPU)  # element by element


def test_a_register_tile_of_instructions() -> None:
    op = packed(DOTS, "t16")
    for sizes in ({"M": 64, "K": 64}, {"M": 40, "K": 37}, {"M": 5, "K": 3}):
        kernel = check(op, steps_of(op, TILED, VNNI, **sizes), sizes, VNNI)
        if sizes["M"] == 64:
            found = [n for phase in kernel.phases for n in walk(phase) if isinstance(n, Mma | Prefetch)]
            assert [type(n) for n in found] == [Mma, Prefetch]


@pytest.mark.parametrize("extreme", [False, True])
@pytest.mark.parametrize("spec", [VNNI, PLAIN, SMALL])
@pytest.mark.parametrize(
    ("text", "layout", "sizes"),
    [
        (DOTS, "t16", {"M": 64, "K": 64}),
        (DOTS, "t16", {"M": 21, "K": 37}),
        (DOTS, "t20", {"M": 16, "K": 41}),
        (MANY, "t16", {"M": 33, "K": 35, "N": 7}),
        (MANY, "t16", {"M": 16, "K": 32, "N": 13}),
        (MANY, "t16", {"M": 16, "K": 17, "N": 1}),
        (MANY, "t16", {"M": 16, "K": 17, "N": 0}),
        (BLOCKS, "t16", {"M": 18, "K": 64}),
        (BLOCKS, "t20", {"M": 18, "K": 64}),
    ],
)
def test_automatic(text: str, layout: str, sizes: dict[str, int], spec: Any, extreme: bool) -> None:
    op = packed(text, layout)
    schedule = automatic(op, spec, sizes)
    on_bytes = spec is not SMALL and not (text is BLOCKS and layout == "t20")  # 32 columns are no whole blocks of 20
    assert any(isinstance(step, Planes) for step in schedule) == on_bytes
    kernel = check(op, schedule, sizes, spec, extreme=extreme)
    instructions = [n for phase in kernel.phases for n in walk(phase) if isinstance(n, Mma)]
    assert bool(instructions) == (on_bytes and sizes.get("N") != 0)


def test_every_decision_of_the_tuner_is_legal() -> None:
    op, sizes = packed(MANY, "t16"), {"M": 32, "K": 20, "N": 3}
    asked = {choice.name: choice.values for choice in choices(op, VNNI, sizes, {})}
    assert {"Y.sum.parts", "Y.sum.tokens", "Y.sum.blocks", "Y.sum.block_tokens", "Y.sum.ahead"} <= asked.keys()
    for choice in choices(op, VNNI, sizes, {}):
        for value in choice.values[-1:]:
            check(op, choose(op, VNNI, sizes, {choice.name: value}), sizes, VNNI)


def test_sizes_that_stay_arguments() -> None:
    op = packed(MANY, "t16")
    assert not any(isinstance(step, Planes) for step in automatic(op, VNNI, {"N": 4}))
    sizes = {"M": 32, "K": 40, "N": 9}
    schedule = automatic(op, VNNI, {"M": 32, "K": 40})
    kernel = run(op, (*TO_KERNEL, *SCHEDULE, *LOWER), build_of(schedule, {"M": 32, "K": 40}, VNNI))
    given = values(op, sizes)
    want = (given["X"].astype(np.int64) @ given["W"].T.astype(np.int64)).astype(np.float32) * np.float32(0.5)
    got = evaluate_kernel(kernel, {**given, "W": pack(given["W"], "t16").array}, {"N": 9})
    assert np.array_equal(got["Y"], want) and any(isinstance(n, Mma) for phase in kernel.phases for n in walk(phase))


@pytest.mark.parametrize(
    ("text", "layout", "directives", "sizes"),
    [
        (DOTS, "row", "y.planes(4)", {"M": 16, "K": 16}),
        (DOTS, "t16", "y.planes(3)", {"M": 16, "K": 16}),
        (DOTS, "t20", "y.planes(2)", {"M": 16, "K": 20}),
        (DOTS, "t16", "y.split(k, 16).planes(4)", {"M": 16, "K": 16}),
        (DOTS, "t16", "y.planes(4)", {"M": 1, "K": 524288}),
        (BLOCKS, "t20", "y.planes(1)", {"M": 16, "K": 64}),
        ("op f(W: trit[M, K], x: i16[K]) -> y: i32[M] {\n  y[m] = sum[k; acc=i32](W[m, k] * x[k])\n}\n", "t16", "y.planes(1)", {"M": 4, "K": 4}),
        ("op f(W: trit[K, M], x: i8[K]) -> y: i32[M] {\n  y[m] = sum[k; acc=i32](W[k, m] * x[k])\n}\n", "t16", "y.planes(1)", {"M": 4, "K": 4}),
        ("op f(W: trit[M, K], x: i8[K]) -> y: i32[M] {\n  y[m] = max[k](i32(W[m, k]) * i32(x[k]))\n}\n", "t16", "y.planes(1)", {"M": 4, "K": 4}),
    ],
)
def test_what_planes_refuses(text: str, layout: str, directives: str, sizes: dict[str, int]) -> None:
    op = packed(text, layout)
    with pytest.raises(TriError, match="E0427"):
        run(op, (*TO_KERNEL, *SCHEDULE), build_of(steps_of(op, directives, VNNI, **sizes), sizes, VNNI))


def test_a_hint_too_far_ahead() -> None:
    op = packed(DOTS, "t16")
    with pytest.raises(TriError, match="E0403"):
        run(op, (*TO_KERNEL, *SCHEDULE), build_of(steps_of(op, TILED.replace("pipeline(8", "pipeline(300"), VNNI), {"M": 64, "K": 64}, VNNI))


def test_no_shared_panel_of_a_packed_matrix() -> None:
    op = packed(DOTS, "t16")
    directives = 'y.split(m, 4).split(k, 4).order(m.o, k.o, m.i, k.i).bind(m.o="group.x", m.i="lane.x")\nW.store(shared, at=k.o)'
    gpu = replace(CPU, kind="gpu", subgroup_sizes=(32,), shared_bytes=1 << 15, max_group_lanes=1024)
    with pytest.raises(TriError, match="E0412"):
        run(op, (*TO_KERNEL, *SCHEDULE), build_of(steps_of(op, directives, gpu), {"M": 64, "K": 64}, gpu))
