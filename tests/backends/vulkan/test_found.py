"""Found by use: each was once wrong on the software device."""

from __future__ import annotations

import numpy as np
import pytest

import tridsl
from tridsl import stdlib
from tridsl.dtypes import DTYPES, NUMPY_TYPES


@pytest.mark.parametrize("length", [1, 5, 31, 33, 70, 100, 257])
def test_partial_subgroups_add_nothing(gpu: str, length: int) -> None:
    x = np.random.default_rng(length).integers(-9, 9, length).astype(np.float32)
    assert stdlib.sum(x, device=gpu) == x.sum()
    np.testing.assert_allclose(stdlib.softmax(x, device=gpu), stdlib.softmax(x), rtol=1e-5)


@pytest.mark.usefixtures("software")
def test_loops_that_the_driver_would_cut_short_are_refused(gpu: str) -> None:
    ops = tridsl.compile("op f(x: f32[N]) -> y: f32 {\n  y = sum[i; order=seq](x[i])\n}\n")
    with pytest.raises(tridsl.TriError) as caught:
        ops.f(np.ones(70000, np.float32), device=gpu)
    assert caught.value.code == "E0712" and "65535" in str(caught.value)
    assert ops.f(np.ones(60000, np.float32), device=gpu) == 60000


def test_scans_and_compactions_run_in_parts(gpu: str) -> None:
    x = np.random.default_rng(1).integers(-9, 9, 300_001).astype(np.float32)
    np.testing.assert_array_equal(stdlib.cumsum(x, device=gpu), np.cumsum(x, dtype=np.float64))
    values, places = stdlib.above(x, 3.0, device=gpu)
    np.testing.assert_array_equal(places, np.flatnonzero(x >= 3))
    np.testing.assert_array_equal(values, x[x >= 3])
    assert stdlib.sum(x, device=gpu) == x.sum(dtype=np.float64)
    assert [len(a) for a in stdlib.above(np.zeros(0, np.float32), 3.0, device=gpu)] == [0, 0]


TOTAL = "op f(dyn N, x: i32[N]) -> y: i32 {\n  y = sum[i](x[i])\n}\n"
RUNNING = "op f(x: i32[R, N]) -> y: i32[R, N] {\n  y[r, i] = scan sum[i](x[r, i])\n}\n"
ROWS = """op f(dyn R, dyn N, x: i32[R, N]) -> y: i32[R, N] where N > 0 {
  m[r]    = max[i](x[r, i])
  s[r]    = sum[i](x[r, i] ^ m[r])
  y[r, n] = x[r, n] * s[r] - m[r]
}
"""


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        (TOTAL, "y.split(i, 3).unroll(i.i)"),
        (TOTAL, "y.split(i, 2).split(i.o, 4).unroll(i.o.i)"),
        (TOTAL, "x.store(shared, at=i)"),
        (TOTAL, "y.parts(i, 64)\n y.part.at(y, i.o)"),
        (ROWS, "s.split(i, 4).unroll(i.i)\n m.split(i, 5)"),
        (ROWS, "y.split(n, 8)\n x.store(shared, at=n.o, pad=1)"),
    ],
    ids=lambda text: text if "\n" not in text[:40] else "",
)
@pytest.mark.parametrize("length", [3, 300])
def test_a_schedule_that_binds_nothing(gpu: str, text: str, steps: str, length: int) -> None:
    """Loops that lanes leave at different times still combine lanes, and what is kept in shared memory is not shared by lanes bound later."""
    ops = tridsl.compile(f"{text}schedule f for gpu {{\n {steps}\n}}\n")
    x = np.random.default_rng(length).integers(-99, 99, (length,) if text == TOTAL else (5, length)).astype(np.int32)
    np.testing.assert_array_equal(ops.f(x, device=gpu), ops.f.reference(x))


@pytest.mark.parametrize("steps", ["y.split(i, 7).bind(i.i=\"subgroup\")", "y.tile(i=3, j=5).bind(i.i=\"subgroup.y\", j.i=\"subgroup.x\")"])
def test_subgroups_beyond_the_end_do_nothing(gpu: str, steps: str) -> None:
    ops = tridsl.compile(f"op f(x: i32[M, N]) -> y: i32[M, N] {{\n y[i, j] = x[i, N - 1 - j] * 2 + i\n}}\nschedule f for gpu {{\n {steps}\n}}\n")
    x = np.arange(16 * 9, dtype=np.int32).reshape(16, 9)
    np.testing.assert_array_equal(ops.f(x, device=gpu), ops.f.reference(x))


@pytest.mark.parametrize(
    ("text", "steps", "why"),
    [
        (TOTAL, "y.split(i, 4).bind(i.i=\"subgroup\")", "a sum over the subgroups of `i.i`"),
        (RUNNING, "y.split(r, 2).bind(r.i=\"lane.x\", i=\"lane.y\")", "a scan over the lanes of `i"),
    ],
    ids=["subgroups", "scan"],
)
def test_teams_that_cannot_come_together_are_refused(gpu: str, text: str, steps: str, why: str) -> None:
    ops = tridsl.compile(f"{text}schedule f for gpu {{\n {steps}\n}}\n")
    with pytest.raises(tridsl.TriError, match=why) as caught:
        ops.f(np.ones((40,) if text == TOTAL else (4, 8), np.int32), device=gpu)
    assert caught.value.code == "E0707"


def test_parts_of_workgroups_that_all_read_are_refused(gpu: str) -> None:
    """Each had its own, and nothing of the others."""
    text = "op f(x: i32[N]) -> y: i32[N, N] {\n  t[i] = x[i] * 2\n  y[r, j] = t[N - 1 - j] + r\n}\n"
    refused, right = (tridsl.compile(f"{text}schedule f for gpu {{\n t.at(y, r)\n {steps}\n}}\n") for steps in ('t.bind(i="group.x")', 'y.bind(r="group.x")\n t.bind(i="lane.x")'))
    x = np.arange(16, dtype=np.int32)
    np.testing.assert_array_equal(right.f(x, device=gpu), right.f.reference(x))
    with pytest.raises(tridsl.TriError, match="which workgroups make parts of") as caught:
        refused.f(x, device=gpu)
    assert caught.value.code == "E0707"


@pytest.mark.parametrize("axis", ["lane.x", "lane.y"])
def test_one_lane_scans_alone(gpu: str, axis: str) -> None:
    texts = ("op f(x: i32[N]) -> y: i32[..N] {\n  y = compact[i](x[i], x[i] < 3)\n}\n", "op f(x: i32[N]) -> y: i32[N] {\n  y[i] = scan sum[i](x[i])\n}\n")
    x = np.array([1, 2, 3], np.int32)
    for text in texts:
        ops = tridsl.compile(f"{text}schedule f for gpu {{\n y.split(i, 7).bind(i.o=\"{axis}\")\n}}\n")
        np.testing.assert_array_equal(ops.f(x, device=gpu), ops.f.reference(x))


@pytest.mark.parametrize(("lanes", "fits"), [(4, True), (7, False)])
def test_lanes_beside_subgroups_divide_them_or_are_refused(gpu: str, lanes: int, fits: bool) -> None:
    """Sums were counted once for every lane of the subgroup."""
    steps = f"y.split(j, 4).bind(i=\"group.x\", j.i=\"subgroup\")\n s.split(k, {lanes}).bind(k.i=\"lane.y\")\n s.at(y, i)"
    ops = tridsl.compile(f"op f(a: i32[M, K]) -> y: i32[M, K] {{\n s[i] = sum[k](a[i, k])\n y[i, j] = s[i] + a[i, j]\n}}\nschedule f for gpu {{\n {steps}\n}}\n")
    a = np.arange(256, dtype=np.int32).reshape(16, 16)
    if fits:
        np.testing.assert_array_equal(ops.f(a, device=gpu), ops.f.reference(a))
        return
    with pytest.raises(tridsl.TriError, match="`k.i` bound to lane.y beside the subgroups of `j.i`") as caught:
        ops.f(a, device=gpu)
    assert caught.value.code == "E0707"


@pytest.mark.usefixtures("software")
def test_symbolic_loops_check_themselves(gpu: str) -> None:
    ops = tridsl.compile("op f(dyn N, x: f32[N]) -> y: f32 {\n  y = sum[i; order=seq](x[i])\n}\n")
    assert ops.f(np.ones(100, np.float32), device=gpu) == 100
    with pytest.raises(IndexError, match="65535"):
        ops.f(np.ones(70000, np.float32), device=gpu)


def test_a_run_time_length_may_size_a_grid(gpu: str) -> None:
    ops = tridsl.compile("""op f(x: f32[N]) -> y: f32[..N] {
  t = compact[i](x[i], x[i] > 0)
  y[i] = t[i] * 2
}
""")
    x = np.random.default_rng(0).standard_normal(5000).astype(np.float32)
    np.testing.assert_array_equal(ops.f(x, device=gpu), x[x > 0] * 2)


@pytest.mark.parametrize("name", ["i8", "i16", "i32", "i64", "u8", "u16", "u32"])
def test_indices_that_the_data_give_are_checked(gpu: str, name: str) -> None:
    """Mesa 22.3.6 answers `int64_t(x) < 5` with false for every signed `x` of at most 32 bits."""
    ops = tridsl.compile(f"op f(T: f32[V], ids: {name}[N]) -> y: f32[N] {{\n  y[i] = T[ids[i]]\n}}\n")
    table = np.arange(5, dtype=np.float32)
    ids = (np.arange(100) % 5).astype(NUMPY_TYPES[DTYPES[name]])
    np.testing.assert_array_equal(ops.f(table, ids, device=gpu), table[ids])
    ids[50] = 5
    with pytest.raises(IndexError, match="outside") as caught:
        ops.f(table, ids, device=gpu)
    assert isinstance(caught.value, tridsl.TriError) and caught.value.code == "E0541"


@pytest.mark.parametrize("layout", ["t16", "t20", "t96"])
def test_packed_matrices_are_read_byte_by_byte(gpu: str, layout: str) -> None:
    for m, k, n in ((64, 128, 16), (33, 50, 9)):  # the first has tiles, of elements
        w = np.random.default_rng(m).integers(-1, 2, (m, k)).astype(np.int8)
        x = np.random.default_rng(k).integers(-128, 128, (n, k)).astype(np.int8)
        got = stdlib.tgemm(tridsl.pack(w, layout), x, np.ones(m, np.float32), np.ones(n, np.float32), device=gpu)
        np.testing.assert_array_equal(got, x.astype(np.int64) @ w.T.astype(np.int64))


def test_a_half_in_between_is_rounded(gpu: str) -> None:
    """NVIDIA's compiler (driver 580) answers `float(float16_t(x))` with `x`."""
    ops = tridsl.compile("op f(x: f32[N]) -> y: f32[N] {\n  y[i] = f32(f16(x[i])) * 2\n}\n")
    bits = np.random.default_rng(0).integers(0, 1 << 32, 100_000, np.uint32)
    bits = np.concatenate([bits, np.arange(0x33000000 - 4, 0x47800000, 0x37FF, np.uint32), [0x38800000 - 1, 0x477FEFFF, 0x477FF000, 0x80000000]])
    x = bits.astype(np.uint32).view(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        want = x.astype(np.float16).astype(np.float32) * 2
    np.testing.assert_array_equal(ops.f(x, device=gpu), want)


@pytest.mark.parametrize("name", ["i32", "u32", "i64"])
def test_least_and_greatest_of_what_does_not_change(gpu: str, name: str) -> None:
    """SPIRV-Tools' `ccp` answered with the start value, or with the other choice, where a shader has float controls."""
    values = (
        "min[i](x[i] * 0 + 3)", "max[i](x[i] * 0 + 3)", "sum[i](min(x[i] * 0 + 3, 7))", "sum[i](clamp(x[i] * 0 + 3, 1, 5))",
        "sum[i](if x[i] > 5 then min(x[i] * 0 + 3, 7) else 2)", "max[i; order=seq](min(x[i] * 0 + 3, 7))",
    )  # fmt: skip
    results = ", ".join(f"y{n}: {name}" for n in range(len(values)))
    ops = tridsl.compile(f"op f(x: {name}[N]) -> ({results}) {{\n" + "".join(f"  y{n} = {value}\n" for n, value in enumerate(values)) + "}\n")
    x = np.arange(40).astype(NUMPY_TYPES[DTYPES[name]])
    np.testing.assert_array_equal(ops.f(x, device=gpu), ops.f.reference(x))


def test_the_least_of_widened_numbers(gpu: str) -> None:
    """Mesa 22.3.6 compares them wrongly where a minimum is written as a comparison."""
    ops = tridsl.compile("op f(x: i8[N]) -> (y: i64[N], z: i64[N]) {\n  y[i] = min(i64(1), i64(x[i])) ^ i64(x[i])\n  z[i] = max(i64(x[i]), i64(x[N - 1 - i]))\n}\n")
    x = np.arange(-20, 20).astype(np.int8)
    np.testing.assert_array_equal(ops.f(x, device=gpu), ops.f.reference(x))
