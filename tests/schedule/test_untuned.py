"""What the automatic scheduler decides for ordinary ops that nobody tuned, and that the decision keeps their meaning."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

import tridsl
from tests.schedule.programs import CPU, SMALL, arguments, check_same, op_of, scheduled
from tridsl.devices.spec import DeviceSpec
from tridsl.ir.evaluate import evaluate_kernel, evaluate_op
from tridsl.ir.expr import Var, index
from tridsl.ir.loop import Copy
from tridsl.ir.op import Tensor
from tridsl.ir.walk import walk
from tridsl.schedule.automatic import automatic
from tridsl.schedule.steps import At, Inline, Order, Pack, Split, Step, StoreIn, Unroll, Vector
from tridsl.structs import replace

STENCIL = """op f(x: f32[M, N]) -> y: f32[M - 2, N - 2] {
  y[i, j] = x[i, j] + x[i + 1, j + 1] + x[i + 2, j + 2]
}
"""
COLUMNS = """op f(x: i32[M, N]) -> y: i32[M, N] {
  y[i, j] = scan sum[i](x[i, j])
}
"""
CONVOLUTION = """op f(x: {T}[C, H, W], w: {T}[O, C, R, S]) -> y: f32[O, H - R + 1, W - S + 1] {{
  y[o, i, j] = sum[c, r, s; acc=f32](x[c, i + r, j + s] * w[o, c, r, s])
}}
"""
TWO_PRODUCTS = """op f(A: i32[N, K], B: i32[N, K]) -> y: i32[N, N] {
  y[i, j] = sum[k](A[j, k] * B[i, k] + B[j, k] * A[i, k])
}
"""
SPECS = (CPU, SMALL)


def untuned(text: str, spec: DeviceSpec = CPU, **sizes: int) -> tuple[Step, ...]:
    return automatic(op_of(text), spec, sizes)


@pytest.mark.parametrize(("columns", "streamed"), [(120, False), (130, True), (2050, True), (240, False)])
def test_only_unbroken_lines_go_around_the_caches(columns: int, streamed: bool) -> None:
    """Rows of 118 and 238 floats end within a line, which the next row completes; 128 floats are whole lines, 2048 hardly any break."""
    found = untuned(STENCIL, replace(CPU, stream_bytes=1 << 16), M=1026, N=columns)
    assert (StoreIn(stage="y", space="stream") in found) is streamed


@pytest.mark.parametrize("spec", SPECS)
def test_scans_run_side_by_side_in_several_registers(spec: DeviceSpec) -> None:
    steps = untuned(COLUMNS, spec, M=20, N=1000)
    width = next(s.factor for s in steps if isinstance(s, Split) and s.axis == "j")
    assert Vector(stage="y", axis="j.i") in steps and width * 32 == (spec.vector_bits or 0) * (spec.vector_registers or 0) // 2
    for sizes in ({"M": 5, "N": 1}, {"M": 3, "N": 300}, {"M": 0, "N": 7}, {"M": 1, "N": 257}):
        check_same(op_of(COLUMNS), untuned(COLUMNS, spec, **sizes), sizes, spec)


@pytest.mark.parametrize("spec", SPECS)
def test_large_scans_run_along_whole_rows(spec: DeviceSpec) -> None:
    steps = untuned(COLUMNS, spec, M=1000, N=1000)
    assert Order(stage="y", axes=("i", "j.i")) in steps
    for sizes in ({"M": 3, "N": 1100}, {"M": 1, "N": 9}, {"M": 0, "N": 4}):
        op = op_of(COLUMNS)
        check_same(op, steps, sizes, spec)
        check_same(op, (*steps, StoreIn(stage="y", space="stream")), sizes, spec)


@pytest.mark.parametrize("dtype", ["f32", "bf16"])
def test_filters_are_packed_once_without_a_batch_of_images(dtype: str) -> None:
    text = CONVOLUTION.format(T=dtype)
    sizes = {"C": 3, "H": 7, "W": 11, "O": 5, "R": 3, "S": 2}
    steps = untuned(text, **sizes)
    packed = {s.stage: str(s.type) for s in steps if isinstance(s, Pack)}
    assert packed == dict.fromkeys(("w", "x"), "None" if dtype == "f32" else "f32")  # widened once each
    op = op_of(text)
    given = arguments(op, sizes)
    got = evaluate_kernel(scheduled(op, steps, sizes, lowered=True), given, sizes)  # type: ignore[arg-type]
    np.testing.assert_array_equal(got["y"], evaluate_op(op, given, sizes)["y"])  # type: ignore[arg-type]


def test_both_places_of_a_tensor_have_panels() -> None:
    sizes = {"N": 65, "K": 70}
    steps = untuned(TWO_PRODUCTS, **sizes)
    assert [(s.stage, s.place) for s in steps if isinstance(s, Pack)] == [("B", 1), ("A", 0)]
    check_same(op_of(TWO_PRODUCTS), steps, sizes)


TRANSPOSE = """op f(x: {T}[M, N], z: {T}[N, M]) -> y: {T}[N, M] {{
  y[j, i] = x[i, j] + z[j, i]
}}
"""


def test_registers_transpose_what_lies_across() -> None:
    """A line of each of many rows is read, and made into long stretches of the result."""
    text = TRANSPOSE.format(T="i32")
    steps = untuned(text, M=1000, N=300)
    assert Pack(stage="x", at="i.o", reader="y") in steps
    assert {s.axis: s.factor for s in steps if isinstance(s, Split)} == {"j": 16, "i": 336}  # even parts of 1000
    sizes = {"M": 37, "N": 19}
    kernel = scheduled(op_of(text), untuned(text, **sizes), sizes, lowered=True)
    assert any(isinstance(n, Copy) and n.transposed for p in kernel.phases for n in walk(p))
    check_same(op_of(text), untuned(text, **sizes), sizes)


def test_short_sides_are_not_copied_first() -> None:
    assert not [s for s in untuned(TRANSPOSE.format(T="u8"), M=1000, N=3) if isinstance(s, Pack)]


@pytest.mark.parametrize(("name", "dtype"), [("u8", np.uint8), ("f16", np.float16), ("f32", np.float32), ("f64", np.float64)])
@pytest.mark.parametrize("shape", [(1, 9), (65, 130), (300, 70)])
def test_transposes_run(name: str, dtype: type, shape: tuple[int, int]) -> None:
    x = np.random.default_rng(0).integers(0, 100, shape).astype(dtype)
    z = np.ones(shape[::-1], dtype)
    np.testing.assert_array_equal(tridsl.compile(TRANSPOSE.format(T=name)).f(x, z), x.T + z)


ROWS = """op f(x: {T}[M, N], z: f32[M, N]) -> (y: f32[M, N], s: f32[M], w: f32[M, N]) {{
  m[i]    = max[j](f32(x[i, j]))
  e[i, j] = exp(f32(x[i, j]) - m[i])
  y[i, j] = e[i, j] / sum[k](e[i, k])
  s[i]    = sum[j](z[i, j])
  w[i, j] = z[i, j] * 2 - 1
}}
"""
VIEWS = {
    "column-major": lambda x: np.asfortranarray(x),
    "strided": lambda x: np.repeat(x, 2, axis=1)[:, ::2],
    "reversed": lambda x: np.ascontiguousarray(x[:, ::-1])[:, ::-1],
    "broadcast": lambda x: np.broadcast_to(x[:, :1], x.shape),
}


@pytest.mark.parametrize("dtype", ["f32", "bf16"])
@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("shape", [(9, 33), (40, 300), (3, 5)])
def test_inputs_of_any_layout(dtype: str, view: str, shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    x, z = (VIEWS[view](rng.integers(-4, 5, shape).astype(t)) for t in (ml_dtypes.bfloat16 if dtype == "bf16" else np.float32, np.float32))
    y, s, w = tridsl.compile(ROWS.format(T=dtype)).f(x, z)
    wide = np.asarray(x, np.float64)
    e = np.exp(wide - wide.max(1, keepdims=True))
    np.testing.assert_allclose(y, e / e.sum(1, keepdims=True), rtol=1e-5)
    np.testing.assert_array_equal(s, z.sum(1))
    np.testing.assert_array_equal(w, z * 2 - 1)


def test_rows_of_a_column_major_matrix_are_turned_a_strip_at_a_time() -> None:
    op = op_of("op f(x: f32[M, N]) -> y: f32[M, N] { y[i, j] = x[i, j] / sum[k](x[i, k]) }")
    assert not any(isinstance(s, StoreIn) for s in automatic(op, CPU, {"M": 512, "N": 512}))
    (x, *rest) = op.params
    assert isinstance(x, Tensor)
    turned = replace(op, params=(replace(x, strides=(index(1), Var(name="M"))), *rest))
    assert StoreIn(stage="x", space="reg") not in automatic(turned, CPU, {"M": 512, "N": 512})  # a step that is not known
    turned = replace(op, params=(replace(x, strides=(index(1), index(512))), *rest))
    steps = automatic(turned, CPU, {"M": 512, "N": 512})
    assert [s for s in steps if isinstance(s, StoreIn | Pack)] == [StoreIn(stage="x", space="reg"), Pack(stage="x", at="d1.o", reader="x.reg")]


@pytest.mark.parametrize("known", [True, False])
def test_columns_that_are_read_as_rows_are_copied_a_strip_at_a_time(known: bool) -> None:
    """There is no panel: with sizes that are not known, it would have no bound."""
    op = op_of("op f(x: f32[N, M]) -> y: f32[M, N] { m[i] = max[k](x[k, i])\n y[i, j] = x[j, i] - m[i] + sum[k](x[k, i]) }")
    for sizes in ({"M": 37, "N": 19}, {"M": 16, "N": 1}, {"M": 5, "N": 33}):
        steps = automatic(op, CPU, sizes if known else {})
        assert (StoreIn(stage="x", space="reg") in steps) is (not known or sizes["M"] >= 16)
        assert not any(isinstance(s, Pack) for s in steps)
        check_same(op, steps, sizes)


WINDOW = """op f(x: {T}[C, M, N], z: {T}[C, M - 2, N - 1]) -> y: {T}[C, M - 2, N - 1] {{
  y[c, i, j] = sum[a in 0..3, b in 0..2{acc}](x[c, i + a, j + b]) * 2 + z[c, i, j]
}}
"""


def test_a_window_s_sums_become_results_in_registers() -> None:
    steps = untuned(WINDOW.format(T="f32", acc=""), C=2, M=100, N=200)
    assert At(stage="y.sum", consumer="y", axis="j.o") in steps and Unroll(stage="y", axis="i.i") in steps
    for sizes in ({"C": 2, "M": 9, "N": 40}, {"C": 1, "M": 12, "N": 70}, {"C": 3, "M": 3, "N": 5}):
        op = op_of(WINDOW.format(T="i32", acc="; acc=i32"))
        check_same(op, automatic(op, CPU, sizes), sizes)


def test_lanes_two_elements_apart() -> None:
    """Pooling lies along the axis that memory is contiguous in, although each lane skips an element."""
    text = "op f(x: f32[C, 2*H, 2*W]) -> y: f32[C, H, W] { y[c, i, j] = max[a in 0..2, b in 0..2](x[c, 2*i + a, 2*j + b]) }"
    steps = untuned(text, C=64, H=56, W=56)
    assert any(isinstance(s, Vector) and s.axis == "j.i" for s in steps)
    x = np.random.default_rng(0).standard_normal((3, 14, 46)).astype(np.float32)
    np.testing.assert_array_equal(tridsl.compile(text).f(x), x.reshape(3, 7, 2, 23, 2).max((2, 4)))


def test_panels_of_maps_are_filled_where_there_is_something() -> None:
    """Nobody adds up what lies beyond the tail of a block that is only turned."""
    sizes = {"M": 100, "N": 50}
    op = op_of(TRANSPOSE.format(T="f32"))
    kernel = scheduled(op, automatic(op, CPU, sizes), sizes)
    assert [n.pad for p in kernel.phases for n in walk(p) if isinstance(n, Copy)] == [None]


def test_matrix_times_vector_either_way() -> None:
    """A factor that no row of a tile shares has no panels."""
    text = """op f(A: i32[M, N], p: i32[N], r: i32[M]) -> (q: i32[M], s: i32[N]) {
  q[i] = sum[j](A[i, j] * p[j])
  s[j] = sum[i](A[i, j] * r[i])
}"""
    for sizes in ({"M": 64, "N": 64}, {"M": 9, "N": 300}, {"M": 300, "N": 1}):
        check_same(op_of(text), untuned(text, **sizes), sizes)


def test_products_of_rows_have_turned_panels() -> None:
    """Of A times B transposed no factor lies in vectors; few rows of a deep sum are dot products."""
    text = "op f(A: f32[M, K], B: f32[N, K]) -> C: f32[M, N] { C[i, j] = sum[k](A[i, k] * B[j, k]) }"
    assert Pack(stage="B", at="k.o", reader="C") in untuned(text, M=32, N=64, K=64)
    assert Vector(stage="C", axis="k") in untuned(text, M=8, N=512, K=2048)
    sizes = {"M": 17, "N": 18, "K": 19}
    check_same(op_of(text), untuned(text, **sizes), sizes)


@pytest.mark.parametrize("sizes", [{}, {"N": 40, "M": 24}])
def test_a_scan_down_columns_is_not_run_anew_for_every_row(sizes: dict[str, int]) -> None:
    """The first axis of what it makes is the one it runs along: no row, and no strip of rows, can be made alone."""
    op = op_of("op f(x: i32[N, M]) -> y: i32[N, M] {\n  y[i, j] = scan sum[i](x[i, j]) * 2\n}\n")
    steps = automatic(op, CPU, sizes)
    assert not any(isinstance(step, At) and step.stage == "y.sum" for step in steps)
    check_same(op, steps, {"N": 40, "M": 24})


@pytest.mark.parametrize("read", ["t[j, i] + x[j, i]", "t[j, i] + i32(i)"])
def test_what_is_computed_in_the_loops_has_no_panel(read: str) -> None:
    """`t` is computed where it is read, and reads `x` at a place of its own."""
    op = op_of(f"op f(x: i32[M, N], p: i32[M]) -> y: i32[N, M] {{\n  t[i in 0..M, j in 0..N] = x[p[i], j; pad=0]\n  y[i, j] = {read}\n}}\n")
    sizes = {"M": 40, "N": 33}
    check_same(op, automatic(op, CPU, sizes), sizes)


def test_cheap_differences_are_computed_at_each_neighbour() -> None:
    """Three places of a difference cost three loads and operations more; those of a sum of three are worth a ring."""
    text = "op f(x: i32[M, N]) -> y: i32[M - 2, N - 2] {{ d[i, j in 0..N-2] = {0}\n y[i, j] = d[i, j] + 2 * d[i + 1, j] + d[i + 2, j] }}"
    for value, inlined in (("x[i, j + 2] - x[i, j]", True), ("x[i, j] + 2 * x[i, j + 1] + x[i, j + 2]", False)):
        steps = untuned(text.format(value), M=60, N=70)
        assert (Inline(stage="d") in steps) is inlined
        for sizes in ({"M": 5, "N": 40}, {"M": 70, "N": 3}):
            check_same(op_of(text.format(value)), steps, sizes)


def test_sums_of_two_products_of_rows_are_made_ahead_of_what_reads_them() -> None:
    """One dot product after the other would read both matrices anew for every row; panels of them serve a register tile."""
    text = """op f(A: i32[N, K], B: i32[N, K], C: i32[N, N]) -> D: i32[N, N] {
  D[i, j] = if j <= i then 2 * sum[k](A[j, k] * B[i, k] + B[j, k] * A[i, k]) + C[i, j] else C[i, j]
}
"""
    steps = untuned(text, N=300, K=300)
    assert [s.stage for s in steps if isinstance(s, Pack)] == ["B", "A"] and not any(isinstance(s, At) for s in steps)
    sizes = {"N": 20, "K": 33}
    check_same(op_of(text), steps, sizes)


@pytest.mark.parametrize("dtype", ["u8", "i16", "f32", "f64"])
@pytest.mark.parametrize("shape", [(8, 8), (9, 15), (17, 33), (100, 30), (31, 258)])
def test_short_blocks_of_a_transpose(dtype: str, shape: tuple[int, int]) -> None:
    x = np.random.default_rng(0).integers(0, 100, shape).astype({"u8": "u1", "i16": "i2", "f32": "f4", "f64": "f8"}[dtype])
    memory = np.full(x.size + 64, 77, x.dtype)
    y = memory[: x.size].reshape(shape[::-1])
    tridsl.compile(f"op f(x: {dtype}[M, N]) -> y: {dtype}[N, M] {{ y[j, i] = x[i, j] }}").f(x, out=y)
    np.testing.assert_array_equal(y, x.T)
    assert (memory[x.size :] == 77).all()
