"""What is stored around the caches, and which rows are fetched ahead, follows from the chip's facts and the sizes alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import tridsl
from tests.differential.schedules import schedule_text
from tests.schedule.programs import CPU, MATMUL, check_same, op_of, scheduled, steps_of
from tridsl.devices.spec import DeviceSpec, load_chip
from tridsl.diagnostics import TriError
from tridsl.ir.affine import evaluate_index
from tridsl.ir.loop import For, Prefetch
from tridsl.ir.print_expressions import print_expr
from tridsl.ir.walk import walk
from tridsl.schedule.automatic import automatic
from tridsl.schedule.steps import Pipeline, StoreIn

SOFTMAX = """op f(x: f32[R, N]) -> y: f32[R, N] {
  m[r]    = max[n](x[r, n])
  e[r, n] = exp(x[r, n] - m[r])
  s[r]    = sum[n](e[r, n])
  y[r, n] = e[r, n] / s[r]
}
"""
MIB = 1 << 20


def steps(spec: DeviceSpec, size: int) -> tuple[bool, bool]:
    """Whether a result of `size` bytes is streamed, and whether the input's rows are fetched ahead."""
    found = automatic(op_of(SOFTMAX), spec, {"R": size // 4096, "N": 1024})
    streamed = any(isinstance(s, StoreIn) and s.stage == "y" and s.space == "stream" for s in found)
    return streamed, any(isinstance(s, Pipeline) and s.stage == "x" for s in found)


@pytest.mark.parametrize(
    ("facts", "size", "streamed"),
    [
        ({"l3_bytes": 32 * MIB}, 32 * MIB, False),
        ({"l3_bytes": 32 * MIB}, 33 * MIB, True),
        ({"l3_bytes": 260 * MIB, "stream_bytes": 4 * MIB}, 4 * MIB, True),  # a part of a cache that many cores share
        ({"l3_bytes": 260 * MIB, "stream_bytes": 4 * MIB}, 3 * MIB, False),
        ({"l3_bytes": None}, 64 * MIB, False),  # nothing is known: nothing is risked
    ],
)
def test_large_results_go_around_the_caches(facts: dict[str, int | None], size: int, streamed: bool) -> None:
    assert steps(replace(CPU, **facts), size)[0] is streamed  # type: ignore[arg-type]  # fields by name


def test_rows_beyond_the_nearest_cache_are_fetched_ahead() -> None:
    assert CPU.l1_bytes == 32768
    assert not steps(CPU, 32768)[1] and steps(CPU, 65536)[1]


BLUR = """op f(x: f32[H, W]) -> y: f32[H, W] {
  g[i, j] = exp(x[i, j]) * x[i, j]
  y[i, j] = g[i - 1, j; pad=edge] + g[i, j] + g[i + 1, j; pad=edge]
}
"""


@pytest.mark.parametrize(("rows", "fetched"), [(32, False), (128, True)])
def test_a_sliding_stage_fetches_its_next_row_where_the_nearest_cache_does_not_hold_the_image(rows: int, fetched: bool) -> None:
    op, sizes = op_of(BLUR), {"H": rows, "W": 256}
    found = automatic(op, CPU, sizes)
    assert (Pipeline(stage="x", depth=1, at="i.i", reader="y") in found) is fetched
    kernel = scheduled(op, found, sizes)
    assert any(isinstance(n, Prefetch) and n.tensor == "x" for p in kernel.phases for n in walk(p)) is fetched


def test_the_chip_file_of_a_shared_mesh_says_so() -> None:
    assert load_chip("sapphire_rapids").stream_bytes == 4 * MIB
    assert load_chip("zen4").stream_bytes is None


TILE = "C.split(j, 32).split(i, 3).order(j.o, i.o, k, i.i, j.i).unroll(i.i).vector(j.i)\n"


def hints(directives: str) -> list[tuple[str, str]]:
    """Each prefetch with the loop whose body it, or its own nest, stands in."""
    op = op_of(MATMUL)
    kernel = scheduled(op, steps_of(op, TILE + directives), {"M": 6, "K": 40, "N": 64})
    loops = [n for p in kernel.phases for n in walk(p) if isinstance(n, For)]
    own = {l.var for l in loops if l.var.endswith(".ahead")}
    return [
        (loop.var, ", ".join(map(print_expr, n.index)))
        for loop in loops if loop.var not in own
        for s in loop.body if isinstance(s, Prefetch) or (isinstance(s, For) and s.var in own)
        for n in walk(s) if isinstance(n, Prefetch)
    ]  # fmt: skip


def test_a_hint_stands_once_beside_an_unrolled_loop_that_reads_the_same() -> None:
    assert hints("B.pipeline(3, at=j.o)") == [("C:k", "C:k, C:j.i.ahead + C:j.o*32 + 96")]


def test_a_hint_moves_with_the_unrolled_loop_that_moves_what_is_read() -> None:
    assert hints("A.pipeline(1, at=i.o)") == [("C:j.i", "C:i.i + C:i.o*3 + 3, C:k")]


def test_a_hint_for_the_next_row_stands_in_the_last_loop_that_reads_this_one() -> None:
    """Which is the one that writes, not that of the second sum."""
    op = op_of("""op f(x: f32[R, N]) -> y: f32[R, N] {
  m[r]    = sum[k](x[r, k])
  v[r]    = sum[k](x[r, k] * m[r])
  y[r, n] = x[r, n] * v[r]
}
""")
    kernel = scheduled(op, steps_of(op, "m.at(y, r)\n v.at(y, r)\n x.pipeline(1, at=r, reader=y)"), {"R": 4, "N": 40})
    loops = [n for p in kernel.phases for n in walk(p) if isinstance(n, For) and any(isinstance(s, Prefetch) for s in n.body)]
    assert [loop.var for loop in loops] == ["y:n"]


PANELS = "C.split(k, 16).split(i, 3).split(j, 32).order(k.o, i.o, j.o, k.i, i.i, j.i).unroll(i.i).vector(j.i)\nA.pack(at=i.o)\n"


def test_hints_for_the_next_panel_are_dealt_out_to_the_loop_behind_the_copy() -> None:
    """A row of the panel is 16 f32, one line, or three, or eight."""
    op = op_of(MATMUL)

    def found(width: int, depth: int) -> list[str]:
        text = PANELS.replace("split(k, 16)", f"split(k, {width})") + f"A.pipeline({depth}, at=i.o)"
        kernel = scheduled(op, steps_of(op, text), {"M": 9, "K": 128, "N": 96})
        (turns,) = (n for p in kernel.phases for n in walk(p) if isinstance(n, For) and n.var == "C:j.o")
        return [", ".join(map(print_expr, n.index)) for s in turns.body[:1] for n in walk(s) if isinstance(n, Prefetch)]

    row = "C:A.pack.i.i.ahead + C:i.o*3 + "
    assert found(16, 1) == [f"{row}3, C:k.o*16"]
    assert found(48, 2) == [f"{row}6, C:j.o*16 + C:k.o*48"]  # three lines, three turns
    assert found(128, 1) == [f"{row}3, min(C:A.pack.k.i.ahead + C:j.o*3, 7)*16 + C:k.o*128"]  # eight lines: three, three and two


SWEEP = "C.split(k, 4).split(j, 16).order(k.o, j.o, k.i, i, j.i).unroll(i).vector(j.i)\n"


@pytest.mark.parametrize("columns", [64, 70, 16])
def test_what_is_fetched_in_a_sweep_is_what_comes_next_also_in_the_next_sweep(columns: int) -> None:
    """Every hint beside the read of so many iterations later, each row one further ahead than the row before."""
    op = op_of(MATMUL)
    kernel = scheduled(op, steps_of(op, SWEEP + "B.pipeline(2, at=j.o, around=k.o, stagger=k.i)"), {"M": 2, "K": 20, "N": columns})
    (hint,) = (n for p in kernel.phases for n in walk(p) if isinstance(n, Prefetch))
    tiles = -(-columns // 16)
    for sweep in range(5):
        for tile in range(tiles):
            for row in range(4):
                found = tuple(evaluate_index(n, {"C:k.o": sweep, "C:j.o": tile, "C:k.i": row, "C:j.i.ahead": 0}) for n in hint.index)
                passed = int(tile + 2 + row >= tiles)  # one sweep at most
                assert found == ((sweep + passed) * 4 + row, (tile + 2 + row - passed * tiles) * 16)
    check_same(op, steps_of(op, SWEEP + "B.pipeline(2, at=j.o, around=k.o, stagger=k.i)"), {"M": 2, "K": 20, "N": columns})


def test_rows_may_be_staggered_within_a_sweep_alone() -> None:
    assert hints("B.pipeline(3, at=j.o, stagger=k)") == [("C:k", "C:k, C:j.i.ahead + C:j.o*32 + C:k*32 + 96")]


@pytest.mark.parametrize(
    "wrong", ["at=j.o, around=k.i", "at=j.o, stagger=k.o", "at=j.o, around=j.o", "at=j.o, stagger=j.o", "at=k.o, around=i", "around=k.o", "stagger=k.i"]
)
def test_a_sweep_goes_on_in_a_loop_around_and_is_staggered_by_one_inside(wrong: str) -> None:
    op = op_of(MATMUL)
    with pytest.raises(TriError) as caught:
        scheduled(op, steps_of(op, f"{SWEEP}B.pipeline(2, {wrong})"), {"M": 2, "K": 20, "N": 64})
    assert caught.value.code == "E0493"


def test_panels_are_dealt_out_and_not_staggered() -> None:
    op = op_of(MATMUL)
    for more in ("around=k.o", "stagger=k.i"):
        with pytest.raises(TriError) as caught:
            scheduled(op, steps_of(op, f"{PANELS}A.pipeline(1, at=i.o, {more})"), {"M": 9, "K": 32, "N": 64})
        assert caught.value.code == "E0418"


def test_hints_for_panels_change_nothing() -> None:
    op = op_of(MATMUL)
    check_same(op, steps_of(op, PANELS + "A.pipeline(1, at=i.o)"), {"M": 7, "K": 37, "N": 45})


def test_the_next_rows_of_integers_are_fetched_where_there_are_more() -> None:
    op = op_of("op f(A: i8[M, K], B: i8[K, N]) -> y: i32[M, N] { y[i, j] = sum[k; acc=i32](A[i, k] * B[k, j]) }")
    spec = replace(CPU, features=frozenset({"avx512vnni"}))

    def ahead(rows: int) -> list[tuple[str, str | None]]:
        return [(s.stage, s.at) for s in automatic(op, spec, {"M": rows, "K": 512, "N": 512}) if isinstance(s, Pipeline)]

    assert ahead(512) == [("A", "i.o")] and ahead(8) == []


def test_a_large_factor_of_few_rows_is_fetched_ahead() -> None:
    def ahead(sizes: dict[str, int], **facts: int) -> list[Pipeline]:
        return [s for s in automatic(op_of(MATMUL), replace(CPU, **facts), sizes) if isinstance(s, Pipeline)]  # type: ignore[arg-type]  # fields by name

    few = {"M": 8, "K": 1024, "N": 1024}
    near = Pipeline(stage="B", depth=3, at="j.i.o", reader="C", around="k.o")  # 384 bytes: three tiles of 32 f32
    assert ahead(few) == [near]
    assert ahead(few, l1_bytes=48 << 10) == [replace(near, depth=2, stagger="k.i")]  # L1 holds what 16 rows are ahead, ten tiles of 128 bytes each
    assert not ahead(few, l2_bytes=4 * MIB)  # it stays there
    assert not ahead({"M": 512, "K": 1024, "N": 1024})  # panels are copied


MAP = "op f(x: f32[N], z: bf16[N]) -> y: f32[N] { y[n] = exp(x[n]) * f32(z[n]) }"


def test_the_inputs_of_a_long_map_are_fetched_a_stretch_ahead() -> None:
    def steps(size: int, cores: int) -> list[str]:
        found = automatic(op_of(MAP), replace(CPU, l3_bytes=4 * MIB, cores=cores), {"N": size})
        return schedule_text(found).split("\n")

    assert [line.strip() for line in steps(2 * MIB, 1)] == [
        "y.split(n, 16384)", "y.parallel(n.o)", "y.split(n.i, 2048)", "y.vector(n.i.i)",
        "x.pipeline(1, at=n.i.o, reader=y)", "z.pipeline(1, at=n.i.o, reader=y)", "y.store(stream)",
    ]  # fmt: skip
    assert not any("pipeline" in line for line in steps(MIB // 2, 1))  # it stays in the cache


def test_a_long_map_is_right_to_its_last_element() -> None:
    """Longer than any chip's caches keep; the last stretch is short, and what is fetched behind it is nobody's."""
    size = (64 * MIB + 12) // 4 + 3
    x = np.linspace(-3, 3, size, dtype=np.float32)
    ops = tridsl.compile("op f(x: f32[N]) -> y: f32[N] { y[n] = x[n] * x[n] - x[n] }")
    for threads in (1, 2):
        assert np.array_equal(ops.f(x, threads=threads), np.float32(x * x.astype(np.float64) - x))


def test_a_held_compaction_fetches_its_next_block() -> None:
    op = op_of("op f(x: f32[N], w: f32[N], t: i32[N]) -> y: f32[..N] { y = compact[i](x[i] + w[t[i]; pad=0], x[i] > 0) }")
    kernel = scheduled(op, steps_of(op, "y.vector(i).store(stream)"), {"N": 5000})
    found = [n for p in kernel.phases for n in walk(p) if isinstance(n, Prefetch)]
    assert {n.tensor for n in found} == {"x", "t"}  # where `w` is read depends on what is not there yet
    check_same(op, steps_of(op, "y.vector(i).store(stream)"), {"N": 5000})


@pytest.mark.parametrize(("rows", "streamed"), [(256, False), (448, True)])
def test_maps_whose_traffic_fills_the_second_cache_go_around_it_sooner(rows: int, streamed: bool) -> None:
    """A MiB of L2: 0.75 and 1.31 MiB are read and written. Not where nobody measured that going around is fast."""
    op = op_of("op f(x: f32[M, N], s: f32[M]) -> y: f32[M, N] { y[i, j] = x[i, j] * s[i] }")
    sizes = {"M": rows, "N": 384}
    for facts, found in (({"stream_bytes": 4 * MIB}, streamed), ({}, False)):
        assert (StoreIn(stage="y", space="stream") in automatic(op, replace(CPU, **facts), sizes)) is found  # type: ignore[arg-type]  # fields by name
