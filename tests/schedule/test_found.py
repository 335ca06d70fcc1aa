"""Schedules that random search found to be wrong once: legal ones keep the op's meaning, the others are refused."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.schedule.programs import BLUR, CPU, MATMUL, SOFTMAX, check_same, op_of, scheduled, steps_of
from tridsl.devices.spec import DeviceSpec
from tridsl.diagnostics import TriError
from tridsl.ir.printer import print_kernel
from tridsl.schedule.automatic import automatic

GPU = DeviceSpec(name="gpu", kind="gpu", subgroup_sizes=(32,), shared_bytes=1 << 15, max_group_lanes=1024)
MIXED = """op mixed(x: i32[H, W]) -> y: i32[H, W] {
  g[i, j] = x[i, j] * 3 + 1
  h[i, j] = g[i - 1, j; pad=edge] + g[i + 1, j; pad=edge] - g[i, j]
  y[i, j] = h[i, j - 1; pad=0] + h[i, j + 1; pad=reflect] * 2 + g[i, j; pad=wrap]
}
"""
CHAIN = """op chain(a: i32[M, K], b: i32[K, N], c: i32[N, M]) -> y: i32[M, M] {
  p[i, j] = sum[k](a[i, k] * b[k, j])
  y[i, l] = sum[j](p[i, j] * c[j, l]) + p[i, 0; pad=0]
}
"""
SCANS = """op scans(x: i32[R, N]) -> y: i32[R, N] {
  c[r, n] = scan sum[n](x[r, n])
  y[r, n] = c[r, n] - scan sum[n; exclusive](c[r, n])
}
"""
SHIFTED = """op shifted(x: i32[N], z: i32[M]) -> y: i32[M] {
  y[i] = x[i - 3; pad=7] + z[i]
}
"""
GATHER = """op gather(t: i32[V], ids: i32[N]) -> y: i32[N] {
  y[n] = t[ids[n]; pad=0]
}
"""
LAST = """op last(x: i32[N], z: i32[N]) -> y: i32 {
  y = sum[n](x[N - 1] * z[n])
}
"""
ROWS = """op rows(x: i32[R, N]) -> y: i32[R, N] {
  m[r]    = max[n](x[r, n])
  e[r, n] = (x[r, n] - m[r]) * 3
  y[r, n] = e[r, n] + sum[k](e[r, k] & 7)
}
"""
TURNED = """op turned(a: i32[K, N], b: i32[N, N]) -> y: i32[K, N] {
  y[i, j] = sum[k](a[i, k] * b[k, j]) * 2
}
"""
TABLES = """op tables(x: i32[N], const stride: i32) -> y: i32[N // stride] where stride > 0 {
  y[i] = x[i * stride]
}
"""
THRICE = """op thrice(x: i32[M, N]) -> y: i32[M] {
  y[i] = sum[r in 0..3, s in 0..N](x[i, s] * i32(r))
}
"""
SUMS = """op sums(x: i32[M, N]) -> z: i32[M] {
  z[i] = sum[j](x[i, j] ^ 5) * 2
}
"""
PARTS = """op parts(x: i32[M, B, K]) -> y: i32[M] {
  s[i, b] = sum[k](x[i, b, k])
  y[i]    = sum[b](s[i, b] * 3)
}
"""
SQUARE = [{"M": m, "N": n, "K": k} for m, n, k in ((7, 13, 5), (4, 1, 16), (3, 33, 0), (0, 5, 3))]
IMAGE = [{"H": h, "W": w} for h, w in ((1, 1), (2, 7), (13, 33), (17, 5))]
LINES = [{"R": r, "N": n} for r, n in ((1, 1), (3, 37), (13, 2), (2, 64))]
SHARED = """C.split(i, 4).split(j, 8).split(k, 4).order(i.o, j.o, i.i, j.i, k.o, k.i)
C.bind(i.o="group.y", j.o="group.x", i.i="lane.y", j.i="lane.x")
A.store(shared, at=k.o, pad=1)
B.store(shared, at=k.o)"""

LEGAL = [
    (MATMUL, "C.vector(k).order(j, k, i)", SQUARE, CPU),
    (MATMUL, "C.vector(i)", SQUARE, CPU),
    (MATMUL, "C.split(j, 2).vector(j.o)", SQUARE, CPU),
    (MATMUL, "C.split(k, 3).order(k.o, i, k.i, j).vector(k.o)", SQUARE, CPU),
    (MATMUL, "C.split(k, 4).vector(j)\n A.pack(at=k.o)", SQUARE, CPU),
    (MATMUL, "C.unroll(k)", SQUARE, CPU),
    (THRICE, "y.split(s, 4)\n y.order(r, s.o, i, s.i)", [{"M": 3, "N": 0}, {"M": 3, "N": 9}], CPU),
    (MATMUL, SHARED, SQUARE, GPU),
    (MATMUL, 'C.split(i, 4).bind(i.i="lane.x")\n A.store(shared, at=k)', SQUARE, GPU),
    (MATMUL, 'C.parts(k, 7)\n C.part.split(i, 2)\n C.part.bind(i.i="lane.y", k.i="lane.x")\n B.store(shared, at=k.i)', [{"M": 2, "N": 4, "K": 16}, {"M": 5, "N": 3, "K": 9}], GPU),
    (MIXED, "h.at(y, j)", IMAGE, CPU),
    (MIXED, "h.at(y, i)\n y.split(i, 8).vector(i.i)", IMAGE, CPU),
    (MIXED, "h.at(y, i)", IMAGE, GPU),
    (CHAIN, "y.split(i, 32)\n y.sum.at(y, i.o)\n p.at(y, i.o)", [*SQUARE, {"M": 16, "N": 0, "K": 17}], CPU),
    (SCANS, "y.sum.at(y, n)", LINES, CPU),
    (SHIFTED, "y.split(i, 4)\n x.pack(at=i.o)", [{"N": 9, "M": 14}, {"N": 0, "M": 5}], CPU),
    (LAST, "x.pack(at=n)", [{"N": 0}, {"N": 7}], CPU),
    (ROWS, "x.pack(at=n, reader=m)\n e.split(n, 8)\n m.at(e, n.i)\n x.pack(at=n.o)", [{"R": 8, "N": 31}], CPU),
    (ROWS, "y.sum.tile(r=4, k=8)\n e.split(r, 5)\n m.at(e, r.i)", LINES, CPU),
    (TURNED, "y.order(j, i)\n y.split(i, 4)\n y.sum.at(y, j)", [{"K": 5, "N": 5}, {"K": 9, "N": 3}, {"K": 0, "N": 2}], CPU),
    (SUMS, "z.split(i, 8)\n z.sum.slide(z, i.o)\n z.sum.split(i, 64)", [{"M": 5, "N": 7}, {"M": 19, "N": 2}], CPU),
    (CHAIN, 'y.sum.split(i, 4).bind(i.i="lane.y")\n y.sum.split(j, 2)\n y.sum.order(i.o, i.i, j.o, l, j.i)\n p.store(shared, at=j.o)', [{"M": 5, "N": 3, "K": 2}], GPU),
    (PARTS, "s.at(y, b)\n y.split(b, 4)\n y.vector(b.i)", [{"M": 2, "B": 8, "K": 1}, {"M": 3, "B": 7, "K": 5}], CPU),
    ("op f(x: f32[K], z: f32[M]) -> y: f32[M] {\n y[i in 0..M] = sum[k in 0..K](x[i + k; pad=edge])\n}", "y.pad(k, 8).split(k, 8)", [{"K": 5, "M": 3}, {"K": 16, "M": 2}], CPU),
    (GATHER, "ids.pack(at=n)\n t.pack(at=n)", [{"V": 5, "N": 7}], CPU),
]


@pytest.mark.parametrize(("text", "directives", "sizes", "spec"), LEGAL, ids=[d.split("\n")[0] for _, d, _, _ in LEGAL])
def test_keeps_meaning(text: str, directives: str, sizes: list[dict[str, int]], spec: DeviceSpec) -> None:
    op = op_of(text)
    for known in sizes:
        check_same(op, steps_of(op, directives, spec, **known), known, spec)


COMPOSE = """monoid compose(p: i32, q: i32) -> i32 {
  state a: i32 = 1, c: i32 = 0
  lift {
    a = p
    c = q
  }
  merge x, y {
    a = x.a * y.a
    c = x.c * y.a + y.c
  }
  result c
}
op composed(x: i32[N], z: i32[M]) -> y: i32[N, M] {
  y[i, j] = scan compose[i](x[i], z[j])
}
"""
KEPT = """op kept(x: i32[N]) -> y: i32[..N] {
  y = compact[i](x[i], x[i] > 0)
}
"""
ILLEGAL = [
    (BLUR, "g.split(j, 4)\n g.inline()", "E0415"),
    (MATMUL, "C.parallel(i).vector(j).order(j, i)", "E0405"),
    (MATMUL, 'C.split(i, 4).bind(i.i="lane.x", j="group.x")', "E0405"),
    (MATMUL, 'A.store(shared, at=k)\n C.split(i, 4).bind(i.i="lane.x")', "E0412"),
    (MATMUL, 'C.split(i, 4).split(j, 8).bind(i.i="lane.x")\n C.order(j.o, i.o, i.i, j.i, k)\n B.store(shared, at=k)\n C.bind(j.o="lane.y")', "E0403"),
    (SOFTMAX, "y.sum.vector(k)\n y.split(n, 4).vector(n.i)\n y.sum.at(y, n.i)", "E0405"),
    (SOFTMAX, "y.split(r, 4)\n y.sum.at(y, r.i)\n y.sum.at(y, r.o)", "E0411"),
    (SCANS, "c.at(y.sum, n)", "E0410"),
    (GATHER, "y.split(n, 4)\n ids.store(l1, at=n.i)\n t.pack(at=n.o)", "E0412"),
    (GATHER, 'y.split(n, 4).bind(n.i="lane.x")\n ids.store(l1, at=n.i)\n t.store(shared, at=n.i)', "E0412"),
    (GATHER, "t.pipeline(1, at=n)", "E0418"),
    (MATMUL, "C.split(k, 4)\n B.pack(at=k.o)\n B.pipeline(2, at=j)", "E0418"),
    (SUMS, 'z.split(i, 2)\n z.bind(i.o="group.x", i.i="lane.y")\n x.store(shared, at=i)\n z.sum.at(z, i.i)', "E0412"),
    (COMPOSE, "y.compose.parallel(j)", "E0408"),
    (KEPT, "y.split(i, 4)\n y.vector(i.o)", "E0408"),
]


@pytest.mark.parametrize(("text", "directives", "code"), ILLEGAL, ids=[f"{c} {d.splitlines()[-1]}" for _, d, c in ILLEGAL])
def test_refused(text: str, directives: str, code: str) -> None:
    op = op_of(text)
    with pytest.raises(TriError) as caught:
        scheduled(op, steps_of(op, directives))
    assert caught.value.code == code
    assert caught.value.diagnostics[0].span is not None and caught.value.diagnostics[0].help


def test_panels_of_two_readers_have_names_of_their_own() -> None:
    op = op_of(ROWS)
    text = print_kernel(scheduled(op, steps_of(op, "x.pack(at=n, reader=m)\n x.pack(at=r, reader=e)"), {"R": 2, "N": 5}))
    assert "alloc x.pack: i32 in l2" in text and "alloc x.pack2: i32[5] in l2" in text


def test_lanes_wait_before_a_shared_panel_is_filled_again() -> None:
    op = op_of(MATMUL)
    text = print_kernel(scheduled(op, steps_of(op, SHARED), spec=GPU))
    lines = [line.strip() for line in text.splitlines()]
    assert lines.count("barrier") == 2
    assert all(lines[n + 1].startswith("copy") for n, line in enumerate(lines) if line == "barrier")
    assert lines.index("lane.y i.i < min(4, M - i.o*4)") > lines.index("alloc A.shared: f32[4, 5] in shared padded")


def test_constants_in_indices_are_indices() -> None:
    op = op_of(TABLES)
    assert replace(op, name="t") != op  # a const parameter is no size
    check_same(op, steps_of(op, "y.split(i, 4)", N=9), {"N": 9, "stride": 2})


DIAGONAL = """op f(x: f32[N, N]) -> y: f32[N] {
  t[i, j] = sqrt(x[i, j] * x[j, i] + 1) / (x[i, 0] * x[i, 0] + 1)
  y[i]    = t[i, i] * 2
}
"""
CARRIED = """monoid compose(p: f32, q: f32) -> f32 {
  state a: f32 = 1, c: f32 = 0
  lift {
    a = p
    c = q
  }
  merge x, y {
    a = x.a * y.a
    c = x.c * y.a + y.c
  }
  result c
}
op f(x: f32[N, M], z: f32[N]) -> y: f32[N, N] {
  t[i, j, k]       = (x[i, k] + x[i, k]) * (x[j, k] + x[i, k]) + (x[i, k] - x[j, k]) * x[i, k]
  y[i, j in 0..N]  = scan compose[i](z[N - 1 - i], t[i, i, 0; pad=1])
}
"""


@pytest.mark.parametrize("text", [DIAGONAL, CARRIED], ids=["diagonal", "carried"])
@pytest.mark.parametrize("known", [{"N": 5, "M": 3}, {"N": 40, "M": 40}, {"N": 1, "M": 0}], ids=str)
def test_a_diagonal_of_what_is_made_before_is_read_by_default(text: str, known: dict[str, int]) -> None:
    """It has no axis of its own for a vector, and a scan along the rows needs all of it."""
    op = op_of(text)
    sizes = {name: known[name] for name in op.sizes}
    check_same(op, automatic(op, CPU, sizes), sizes, CPU)
