"""Results that read their neighbours, through fifos of lines: whole, against the oracle; and what the design does with the rows."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from msgspec.structs import replace

import tridsl
from tests.backends.npu.designs import GENERATIONS, Subject, agree, subject
from tests.backends.npu.test_planted import without_release
from tridsl.backends.npu.design import Acquire, Invoke, Release, Repeat
from tridsl.backends.npu.emit_mlir import design_text
from tridsl.backends.npu.simulate import Deadlock, Race
from tridsl.diagnostics import TriError

RANDOM = np.random.default_rng(11)
BF16 = ml_dtypes.bfloat16
KINDS = {"f32": np.float32, "bf16": BF16, "i16": np.int16, "u8": np.uint8, "i8": np.int8}
SUM = {"f32": ("f32", "*", 0.0625), "bf16": ("f32", "*", 0.0625), "i16": ("i16", ">>", 4), "u8": ("i16", ">>", 4), "i8": ("i16", ">>", 4)}


def blur(kind: str, pad: str) -> str:
    """1 2 1 / 2 4 2 / 1 2 1, divided by 16."""
    wide, operator, by = SUM[kind]
    taps = [
        f"{(2 - abs(dy)) * (2 - abs(dx))} * {wide}(x[i {'+' if dy >= 0 else '-'} {abs(dy)}, j {'+' if dx >= 0 else '-'} {abs(dx)}; pad={pad}])"
        for dy in (-1, 0, 1) for dx in (-1, 0, 1)
    ]  # fmt: skip
    return f"op blur(x: {kind}[H, W]) -> y: {kind}[H, W] {{ y[i in 0..H, j in 0..W] = {kind}(({' + '.join(taps)}) {operator} {by}) }}\n"


SEPARATE = """op blur(x: f32[H, W]) -> y: f32[H, W] {
  s[i, j in 0..W] = 0.25 * x[i, j - 1; pad=edge] + 0.5 * x[i, j] + 0.25 * x[i, j + 1; pad=edge]
  y[i, j] = 0.25 * s[i - 1, j; pad=edge] + 0.5 * s[i, j] + 0.25 * s[i + 1, j; pad=edge]
}
"""
LAPLACIAN = """op laplacian(x: i16[B, H, W]) -> y: i16[B, H, W] {
  y[b, i, j] = x[b, i - 1, j; pad=0] + x[b, i + 1, j; pad=0] + x[b, i, j - 1; pad=0] + x[b, i, j + 1; pad=0] - 4 * x[b, i, j]
}
"""


def image(kind: str, *shape: int) -> Any:
    if kind in ("f32", "bf16"):
        return RANDOM.standard_normal(shape).astype(KINDS[kind])
    info = np.iinfo(KINDS[kind])
    return RANDOM.integers(info.min, info.max, shape, endpoint=True).astype(KINDS[kind]) // (16 if kind == "i16" else 1)


TURNS = [
    pytest.param(kind, pad, generation, marks=[] if turn == m == n % 2 and kind != "i8" else [pytest.mark.full])
    for n, kind in enumerate(KINDS) for m, pad in enumerate(("edge", "0")) for turn, generation in enumerate(GENERATIONS)
]  # fmt: skip


@pytest.mark.parametrize(("kind", "pad", "generation"), TURNS)
def test_a_blur_of_every_type(kind: str, pad: str, generation: str) -> None:
    given = subject("blur", image(kind, 21, 77), text=blur(kind, pad), generation=generation)
    agree(given.results(dispatches=2), given.want())


@pytest.mark.parametrize("shape", [(2, 1), pytest.param((3, 64), marks=pytest.mark.full), (70, 65)])
@pytest.mark.parametrize("op", ["edges", "sobel_edges"])
def test_edges_of_images(op: str, shape: tuple[int, int]) -> None:
    given = subject(op, image("u8", *shape, 4), 100, generation=GENERATIONS[shape[0] % 2])
    agree(given.results(dispatches=2), given.want())


@pytest.mark.full
@pytest.mark.parametrize("generation", GENERATIONS)
@pytest.mark.parametrize("columns", [1, 2, 4])
def test_edges_on_every_number_of_columns(generation: str, columns: int) -> None:
    for shape in ((2, 3), (17, 128), (64, 300)):
        given = subject("edges", image("u8", *shape, 4), 100, generation=generation, decisions={"edge.columns": columns})
        agree(given.results(), given.want())


def test_several_images_and_another_constant_outside() -> None:
    for outside in ("0", "-7"):
        given = subject("laplacian", image("i16", 3, 9, 33), text=LAPLACIAN.replace("pad=0", f"pad={outside}"), generation="aie2")
        agree(given.results(dispatches=2), given.want())


def test_rows_of_a_stage_in_between() -> None:
    given = subject("blur", image("f32", 19, 50), text=SEPARATE, generation="aie2")
    agree(given.results(dispatches=2), given.want())
    assert any(b.name.startswith("s_lines") and b.shape[0] == 4 for b in given.design.buffers)


def test_rows_that_are_too_long_are_cut_into_strips() -> None:
    given = subject("blur", image("f32", 4, 7000), text=blur("f32", "edge"), generation="aie2", decisions={"y.columns": 1})
    assert max(b.bytes for b in given.design.buffers if b.tile == (0, 2)) < 16384
    agree(given.results(), given.want())


def narrow() -> Subject:
    return subject("blur", image("f32", 24, 40), text=blur("f32", "0"), generation="aie2", decisions={"y.columns": 1})


def test_a_core_holds_three_rows_of_a_fifo_of_four_and_gives_back_one_a_step() -> None:
    core = narrow().design.cores[0]
    port = next(p for p in core.ports if p.name == "x.lines")
    assert len(port.buffers) == 4
    front, main, *after = core.program
    assert isinstance(front, Repeat) and front.count == 2 and front.body == (Acquire(port="x.lines"),)
    assert isinstance(main, Repeat) and [type(s).__name__ for s in main.body] == ["Acquire", "Acquire", "Invoke", "Release", "Release"]
    assert after == [Release(port="x.lines")] * 2
    call = main.body[2]
    assert [a.ahead for a in call.arguments if a.port == "x.lines"] == [0, 1, 2]  # type: ignore[union-attr]


def test_every_row_is_moved_once_but_for_the_two_around_a_cores_part() -> None:
    design = narrow().design
    (x,) = (t for t in design.tensors if t.role == "input")
    assert x.before == (1, 1) and not x.edge
    (moved,) = (c for c in design.sequence if type(c).__name__ == "Task" and c.tensor == "x")  # type: ignore[union-attr]
    rows = 1
    for d in moved.dimensions[:-1]:  # type: ignore[union-attr]
        rows *= d.size
    assert rows == 24 + 2 * len(design.cores)


def test_the_text_of_the_design_takes_its_rows_in_turn() -> None:
    text = design_text(narrow().design)
    assert text.count("arith.remui") >= 3 and "func.call @blur_0(" in text


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (SEPARATE.replace("pad=edge", "pad=wrap"), "no step of its schedule stages"),
        (SEPARATE.replace("0.5 * x[i, j] ", "0.5 * x[i, j] + x[i, j + 1; pad=0] "), "different boundaries"),
    ],
)
def test_what_cannot_be_done_in_lines_is_refused(text: str, why: str) -> None:
    with pytest.raises(TriError, match=f"{why}|phases"):
        subject("blur", image("f32", 9, 40), text=text)


VISION = """op gray(rgba: u8[H, W, 4]) -> g: u8[H, W] {
  g[y, x] = u8((4899 * i32(rgba[y, x, 0]) + 9617 * i32(rgba[y, x, 1]) + 1868 * i32(rgba[y, x, 2]) + 8192) >> 14)
}
op blur(g: u8[H, W]) -> b: u8[H, W] {
  b[y, x] = u8((i16(g[y - 1, x; pad=edge]) + i16(g[y + 1, x; pad=edge]) + i16(g[y, x - 1; pad=edge]) + i16(g[y, x + 1; pad=edge]) + 4 * i16(g[y, x])) >> 3)
}
op laplacian(b: u8[H, W]) -> l: i16[H, W] {
  l[y, x] = i16(b[y - 1, x; pad=edge]) + i16(b[y + 1, x; pad=edge]) + i16(b[y, x - 1; pad=edge]) + i16(b[y, x + 1; pad=edge]) - 4 * i16(b[y, x])
}
op threshold(l: i16[H, W], t: i16) -> e: u8[H, W] { e[y, x] = if abs(l[y, x]) > t then u8(255) else u8(0) }
"""


def test_a_pipeline_of_designs_one_after_the_other() -> None:
    """Grey, blurred, its edges, where they are strong: a program of four ops, each a design of its own, exact on the array as on the CPU."""
    ops = tridsl.compile(VISION)

    def pipeline(rgba, t):  # type: ignore[no-untyped-def]
        return ops.threshold(ops.laplacian(ops.blur(ops.gray(rgba))), t)

    rgba = image("u8", 24, 50, 4)
    found = tridsl.jit(device="npu:sim")(pipeline)(rgba, 20)
    np.testing.assert_array_equal(found, tridsl.jit(device="cpu")(pipeline)(rgba, 20))
    assert 0 < np.count_nonzero(found) < found.size


def test_channels_that_lie_together_are_taken_apart() -> None:
    text = "op planes(rg: f32[H, W, 2]) -> g: f32[H, W] { g[y, x] = rg[y, x, 0] - rg[y, x, 1] }\n"
    given = subject("planes", image("f32", 9, 40, 2), text=text, generation="aie2")
    agree(given.results(), given.want())


def test_faults_planted_into_a_fifo_of_lines() -> None:
    """A row that is not given back stops the fifo; a row that was not taken yet is nobody's to read; rows of another edge are other numbers."""
    given = narrow()
    agree(given.results(), given.want())
    with pytest.raises(Deadlock):
        given.results(given.simulator(without_release(given.design, "x.lines")))

    def ahead(steps: Any) -> Any:
        def changed(step: Any) -> Any:
            if isinstance(step, Repeat):
                return replace(step, body=ahead(step.body))
            if isinstance(step, Invoke):
                return replace(step, arguments=tuple(replace(a, ahead=a.ahead + 1) if a.port == "x.lines" else a for a in step.arguments))
            return step

        return tuple(map(changed, steps))

    cores = tuple(replace(core, program=ahead(core.program)) for core in given.design.cores)
    with pytest.raises(Race, match="without having acquired it"):
        given.results(given.simulator(replace(given.design, cores=cores)))
    tensors = tuple(replace(t, edge=True) if t.role == "input" else t for t in given.design.tensors)
    with pytest.raises(AssertionError):
        agree(given.results(given.simulator(replace(given.design, tensors=tensors))), given.want())
