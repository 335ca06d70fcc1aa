"""Every verb: legal uses keep the op's meaning for awkward sizes; each illegal use has its error."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from tridsl.diagnostics import TriError

_spec = importlib.util.spec_from_file_location("schedule_programs", Path(__file__).with_name("programs.py"))
assert _spec and _spec.loader
programs = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(programs)

MATMUL, SOFTMAX, BLUR = programs.MATMUL, programs.SOFTMAX, programs.BLUR

UPDATED = """op step(inout K: f32[N], x: f32[N]) -> y: f32[N] {
  e[i] = exp(K[i])
  K[i] = x[i]
  y[i] = e[i] * 2
}
"""
IN_PLACE = """op blur(inout K: f32[N]) {
  c[i] = K[i] * 2
  K[i] = c[i - 1; pad=edge] + c[i + 1; pad=edge]
}
"""
ROWS_IN_PLACE = """op softmax(inout K: f32[R, N]) {
  m[r]    = max[n](K[r, n])
  e[r, n] = exp(K[r, n] - m[r])
  K[r, n] = e[r, n] / sum[k](e[r, k])
}
"""

SCANS = """monoid line(a: f32, b: f32) -> f32 {
  state p: f32 = 1, q: f32 = 0
  lift {
    p = a
    q = b
  }
  merge a, b {
    p = a.p * b.p
    q = b.p * a.q + b.q
  }
  result q
}
op scans(x: i32[R, N], f: f32[R, N]) -> (y: i32[R, N], before: i32[R, N], most: i32[R, N], down: i32[R, N], v: f32[R, N]) {
  y[r, n]      = scan sum[n](x[r, n])
  before[r, n] = scan prod[n; exclusive](x[r, n])
  most[r, n]   = scan max[n](x[r, n])
  down[r, n]   = scan sum[r](x[r, n])
  v[r, n]      = scan line[n](0.5, f[r, n])
}
"""
NARROW = """op narrow(x: i32[H, W]) -> y: i16[H, W] {
  g[i, j] = u8(x[i, j] * 3 >> 1)
  y[i, j] = i16(g[i - 1, j; pad=edge]) - 2 * i16(g[i, j + 1; pad=7])
}
"""
BOTH = """op both(x: f32[N], t: f32) -> (y: f32[..N], pos: i32[..N], z: f32[N], w: f32[N]) {
  y    = compact[i](x[i], x[i] >= t)
  z[i] = 2 * x[i]
  w[i] = z[N - 1 - i]
  pos  = compact[i](i, x[i] >= t)
}
"""

SUMS = """op sums(x: f32[R, N], y: f32[R, N]) -> (a: f32[R], b: f32[R], m: f32[R], u: f32, v: f32, t: f32) {
  a[i] = sum[j](x[i, j] * y[i, j])
  b[i] = sum[j](x[i, j] - y[i, j])
  m[i] = prod[j](x[i, j])
  u    = sum[i, j](x[i, j])
  v    = sum[i, j](y[i, j])
  t    = sum[i](a[i])
}
"""

GRAM = """op gram(A: f32[R, N]) -> (C: f32[R, R], S: f32[R, R]) {
  C[i, j] = sum[k](A[i, k] * A[j, k])
  S[i, j] = sum[k in 0..R](C[i, k] * C[k, j])
}
"""

RUNNING = """op running(x: f32[R, N]) -> (s: f32[R, N], m: f32[R, N], e: f32[R, N]) {
  s[r, i] = scan sum[i](x[r, i])
  m[r, i] = scan max[i](x[r, i])
  e[r, i] = scan sum[i; exclusive](x[r, i])
}
"""

BEST = """op best(x: f32[N]) -> (v: f32[3], i: i32[3]) {
  v, i = topk[n in 0..N + 3; k=3](x[n; pad=0])
}
"""
IN_ORDER = """op total(x: f32[N]) -> y: f32 {
  y = sum[i; order=seq](x[i])
}
"""
HALVES = """op halves(x: f32[N], t: f32) -> (low: f32[..N], high: f32[..N]) {
  low  = compact[i](x[i], x[i] < t)
  high = compact[i](x[i], x[i] >= t)
}
"""

LEGAL = [
    (MATMUL, "C.pad(i, 4)"),
    (MATMUL, "C.pad(k, 4).split(k, 4)\n C.pad(j, 8).vector(j)"),
    (MATMUL, "C.pad(i, 4).pad(j, 8).pad(k, 3).split(i, 4).split(j, 8).split(k, 3).order(i.o, j.o, k.o, k.i, i.i, j.i).unroll(i.i).vector(j.i)\n A.pack(at=k.o)\n B.pack(at=k.o)"),
    (BEST, "v.parts(n, 8)"),
    (BEST, "v.parts(n, 3)\n v.part.parallel(n.o)"),
    (MATMUL, "C.parts(k, 2)"),
    (MATMUL, "C.parts(k, 2)\n C.part.order(k.o, i, k.i, j).vector(j)\n C.vector(j)"),
    (SOFTMAX, "m.parts(n, 5)\n y.sum.parts(k, 16)\n m.part.parallel(n.o)\n y.sum.part.vector(k.i)"),
    (RUNNING, "s.parts(i, 4)\n m.parts(i, 1).parallel(r)\n e.parts(i, 16).parallel(i.o)"),
    (RUNNING, "s.parts(i, 3)\n s.carry.parts(i.o, 4)\n s.part.parallel(i.o)"),
    (BOTH, "y.parts(i, 4).parallel(i.o)\n y.part.vector(i.i)\n pos.parts(i, 7).vector(i.i)"),
    (BOTH, "pos.beside(y, i)\n y.parts(i, 20).parallel(i.o).vector(i.i)\n y.carry.parts(i.o, 2)"),
    (BOTH, "z.beside(y, i)\n y.parts(i, 16).parallel(i.o)"),
    (BOTH, "pos.beside(y, i)\n y.vector(i)"),
    (SUMS, "b.beside(a, i)\n a.vector(j)"),
    (SUMS, "b.beside(a, i)\n a.parallel(i).split(j, 3).unroll(j.i)"),
    (SUMS, "b.beside(a, i)\n m.beside(a, i)\n a.vector(j)"),
    (SUMS, "a.beside(m, i)\n m.split(i, 4).order(i.o, j, i.i).unroll(i.i)"),
    (SUMS, "v.beside(u, i)\n u.vector(j)"),
    (GRAM, "C.tile(i=4, j=16).split(k, 4).order(i.o, j.o, k.o, k.i, i.i, j.i).vector(j.i).unroll(i.i)\n A.pack(at=k.o, place=1)\n A.pack(at=k.o)"),
    (GRAM, "C.tile(i=4, j=16).split(k, 4).order(i.o, j.o, k.o, k.i, i.i, j.i).vector(j.i).unroll(i.i)\n A.pack(at=k.o, place=0)\n A.pack(at=k.o)"),
    (GRAM, "S.tile(i=4, j=8).split(k, 4).order(i.o, j.o, k.o, k.i, i.i, j.i).vector(j.i)\n C.pack(at=k.o, place=1)\n C.pack(at=k.o)"),
    (BOTH, "y.beside(pos, i)"),
    (BOTH, "z.beside(y, i)\n y.split(i, 5)"),
    (BOTH, "z.beside(y, i)\n pos.beside(y, i)"),
    (BOTH, "y.beside(z, i)"),
    (MATMUL, "C.split(i, 4)"),
    (MATMUL, "C.split(k, 5)"),
    (MATMUL, "C.tile(i=4, j=3)"),
    (MATMUL, "C.tile(i=4, j=3).tile(i.i=2, j.i=2)"),
    (MATMUL, "C.order(k, i, j)"),
    (MATMUL, "C.order(j, i)"),
    (MATMUL, "C.fuse(i, j)"),
    (MATMUL, "C.fuse(i, j).split(i.j, 7).parallel(i.j.o)"),
    (MATMUL, "C.parallel(i).vector(j)"),
    (MATMUL, "C.vector(k)"),
    (MATMUL, "C.order(k, i, j).vector(j)"),
    (MATMUL, "C.split(j, 8).order(i, j.o, k, j.i).vector(j.i)"),
    (MATMUL, "C.split(i, 3).unroll(i.i)"),
    (MATMUL, "C.unroll(k, 4)"),
    (MATMUL, "C.tile(i=6, j=32).split(k, 5).order(i.o, j.o, k.o, k.i, i.i, j.i).unroll(i.i).vector(j.i).unroll(k.i, 2).unroll(k.o, 64)"),
    (MATMUL, "C.tile(i=6, j=32).split(k, 4).order(j.o, k.o, i.o, k.i, i.i, j.i).parallel(j.o).vector(j.i).unroll(i.i)\n A.pack(at=i.o)\n B.pack(at=k.o)"),
    (MATMUL, "C.tile(i=6, j=32).order(i.o, j.o, k, i.i, j.i).vector(j.i).unroll(i.i)"),
    (MATMUL, 'C.split(i, 4).bind(i.o="group.x", j="group.y")'),
    (MATMUL, 'C.split(j, 16).order(i, j.o, j.i, k).bind(i="group.y", j.o="group.x", j.i="lane.x")'),
    (MATMUL, "C.split(k, 4).split(j, 8).order(i, j.o, k.o, j.i, k.i)\n B.pack(at=k.o, interleave=2)"),
    (MATMUL, "C.tile(i=4, j=16).split(k, 8).split(k.i, 2).order(j.o, k.o, i.o, k.i.o, i.i, j.i, k.i.i)\n A.pack(at=i.o, rows=true)\n B.pack(at=k.o, rows=true)"),
    (MATMUL, "C.tile(i=4, j=16).split(k, 8).order(j.o, k.o, i.o, i.i, j.i, k.i).vector(j.i)\n A.pack(at=i.o)\n B.pack(at=k.o, interleave=4)"),
    (MATMUL, "C.split(k, 4)\n A.store(l1, at=k.o)"),
    (MATMUL, "C.split(k, 4)\n A.store(l1, at=k.o)\n C.pipeline(2)"),
    (MATMUL, "C.split(j, 16).split(i, 3).order(j.o, i.o, k, i.i, j.i).unroll(i.i).vector(j.i)\n B.pipeline(2, at=j.o)\n A.pipeline(1, at=i.o)"),
    (MATMUL, 'C.intrin("fma")'),
    (SOFTMAX, "m.at(y, r)\n e.at(y, r)\n y.sum.at(y, r)\n x.pipeline(1, at=r, reader=y)\n y.vector(n)\n m.vector(n)"),
    (SOFTMAX, "m.at(y, r)\n e.at(y, r)\n y.sum.at(y, r)"),
    (SOFTMAX, "y.sum.at(y, r)\n e.at(y, r)\n m.at(y, r)\n e.at(y.sum, k)\n y.parallel(r).vector(n)\n m.vector(n)\n y.sum.vector(k)"),
    (SOFTMAX, "e.inline()"),
    (SOFTMAX, "m.at(y, r)\n e.at(y, r).store(l2)\n y.sum.at(y, r)"),
    (SOFTMAX, "y.sum.vector(k)\n m.vector(n).parallel(r)"),
    (ROWS_IN_PLACE, "m.at(K, r)\n e.at(K, r)\n K.sum.at(K, r)\n K.vector(n)"),
    (ROWS_IN_PLACE, "m.at(K, r)\n e.at(K, r)\n K.sum.at(K, r)\n e.at(K.sum, k)"),
    (BLUR, "g.inline()"),
    (BLUR, "y.split(i, 3)\n g.at(y, i.o).vector(j)\n y.parallel(i.o).vector(j)"),
    (BLUR, "g.at(y, i)"),
    (BLUR, "g.at(y, j)"),
    (BLUR, "y.fuse(i, j).vector(i.j)"),
    (BLUR, "g.slide(y, i).vector(j)\n y.vector(j)"),
    (BLUR, "g.slide(y, j)"),
    (BLUR, "y.split(i, 3)\n g.slide(y, i.i).vector(j)\n y.parallel(i.o).vector(j)"),
    (BLUR, "y.split(i, 3)\n g.slide(y, i.o)\n y.split(i.i, 2)"),
    (BLUR, "y.tile(i=4, j=8)\n g.slide(y, i.i)\n y.vector(j.i)"),
    (BLUR, "g.slide(y, i)\n y.split(i, 2).unroll(i.i)"),
    (SCANS, "y.vector(n)\n before.vector(n)\n most.vector(n)\n down.vector(n)\n v.vector(n)"),
    (SCANS, "y.vector(n)\n x.pack(at=n, reader=y)"),
    (BOTH, "pos.beside(y, i)\n y.vector(i).store(stream)"),
    (BOTH, "y.store(stream)\n pos.store(stream)"),
    (SCANS, "y.vector(r)\n before.parallel(r).vector(n)\n v.parallel(r)"),
    (SCANS, "down.split(n, 16).order(r, n.i).vector(n.i.init).vector(n.i)"),
    (SCANS, "y.split(r, 2).order(n, r.i)\n v.split(r, 4).order(n, r.i).vector(r.i)\n before.split(r, 8).order(n, r.i).unroll(r.i)"),
    (NARROW, "g.slide(y, i).store(l1, type=i16).vector(j)\n y.vector(j)"),
    (NARROW, "y.split(i, 2)\n g.at(y, i.o).store(l2, type=i32)"),
]
SIZES = [{"M": 1, "N": 1, "K": 1}, {"M": 7, "N": 13, "K": 5}, {"M": 12, "N": 64, "K": 8}, {"M": 3, "N": 33, "K": 0}]
OTHER = [{"R": 1, "N": 1, "H": 1, "W": 1}, {"R": 3, "N": 37, "H": 7, "W": 19}, {"R": 2, "N": 64, "H": 6, "W": 32}]


@pytest.mark.parametrize(("text", "directives"), LEGAL, ids=[d.split("\n")[0] for _, d in LEGAL])
def test_keeps_meaning(text: str, directives: str) -> None:
    op = programs.op_of(text)
    for sizes in SIZES if op.name == "matmul" else OTHER:
        known = {name: sizes[name] for name in op.sizes}
        programs.check_same(op, programs.steps_of(op, directives, **known), known)


@pytest.mark.parametrize("value", ["x[0] + x[i]", "t[x[i]; pad=0]", "t[x[i & 0; pad=0]; pad=0]"])
def test_inlined_reads_of_a_stage_without_iterations(value: str) -> None:
    """Only its iterations prove that `x[0]` is there, and where they are read outside of it none is made."""
    op = programs.op_of(f"op f(t: i32[N], x: i32[M], z: i32[N]) -> y: i32[N] {{\n a[i in 0..M] = {value}\n y[i] = a[1; pad=3] + a[i; pad=5] + z[i]\n}}")
    for sizes in ({"M": 0, "N": 5}, {"M": 1, "N": 17}, {"M": 3, "N": 20}):
        programs.check_same(op, programs.steps_of(op, "a.inline()\n y.vector(i)", **sizes), sizes)


@pytest.mark.parametrize("after", ["", "\n y.split(k, 4)\n a.at(y, k.i)", "\n a.unroll(j, 4)\n a.at(y, k)"])
def test_at_again_computes_no_more_than_there_is(after: str) -> None:
    """The first `at` leaves an element of room and as many iterations as there are elements: none, of an empty stage."""
    op = programs.op_of("op f(t: i32[N, L], x: i32[M], z: i32[K]) -> y: i32[K] {\n a[i in 0..M, j in 0..L] = t[x[i], j; pad=-1]\n y[k] = a[1, k; pad=3] ^ z[k]\n}")
    for sizes in ({"N": 2, "L": 1, "M": 0, "K": 7}, {"N": 2, "L": 3, "M": 1, "K": 7}, {"N": 3, "L": 9, "M": 4, "K": 9}):
        programs.check_same(op, programs.steps_of(op, f"a.at(y, k){after}", **sizes), sizes)


def test_pack_on_narrow_vectors() -> None:
    op = programs.op_of(MATMUL)
    steps = programs.steps_of(op, "C.tile(i=4, j=8).order(i.o, j.o, k, i.i, j.i).vector(j.i).unroll(i.i)")
    programs.check_same(op, steps, {"M": 9, "N": 21, "K": 4}, programs.SMALL)


ILLEGAL = [
    (MATMUL, "C.split(k, 6).split(j, 8).order(i, j.o, k.o, j.i, k.i)\n B.pack(at=k.o, interleave=4)", "E0490"),
    (MATMUL, "C.split(k, 4)\n A.pack(at=k.o, interleave=2)", "E0490"),
    (MATMUL, "C.split(k, 4).split(j, 8).order(i, j.o, k.o, j.i, k.i)\n B.pack(at=k.o, interleave=2, rows=true)", "E0490"),
    (MATMUL, "C.split(k, 4).split(j, 8).order(i, j.o, k.o, j.i, k.i)\n B.pack(at=k.o, interleave=0)", "E0490"),
    (MATMUL, "C.pad(i, 0)", "E0403"),
    (MATMUL, "C.vector(j).pad(j, 4)", "E0404"),
    (MATMUL, "C.pad(z, 4)", "E0402"),
    (SOFTMAX, "m.pad(n, 4)", "E0450"),
    (SOFTMAX, "y.pad(n, 4)", "E0450"),
    (SOFTMAX, "y.sum.at(y, r)\n y.sum.pad(k, 4)", "E0450"),
    ("op f(A: f32[M, K], s: f32[M]) -> y: f32[M] {\n y[i] = sum[k](A[i, k] * s[i])\n}", "y.pad(k, 4)", "E0450"),
    ("op f(x: f32[K], z: f32[M]) -> y: f32[M] {\n y[i in 0..M] = sum[k in 0..K](x[i + k; pad=3])\n}", "y.pad(k, 64)", "E0450"),
    (SOFTMAX, "y.pad(n, 4, kept=true)", "E0450"),
    (SOFTMAX, "m.pad(n, 4, kept=true)", "E0450"),
    (SOFTMAX, "y.sum.pad(r, 4, kept=true)", "E0450"),
    (MATMUL, "C.parts(k, 0)", "E0403"),
    (BEST, "v.parts(n, 2)", "E0424"),
    (MATMUL, "C.parts(i, 4)", "E0424"),
    (MATMUL, "C.parts(k, 4).parts(k.o, 2)", "E0424"),
    (BOTH, "x.pack(at=i, reader=pos)\n pos.parts(i, 4)", "E0424"),
    (IN_ORDER, "y.parts(i, 4)", "E0424"),
    (MATMUL, "C.split(k, 4).parts(k.i, 2)", "E0424"),
    (MATMUL, "C.order(k, i, j).parts(k, 2)", "E0424"),
    (MATMUL, "C.vector(k).parts(k, 2)", "E0404"),
    (MATMUL, "D.parts(k, 2)", "E0401"),
    (MATMUL, "C.parts(z, 2)", "E0402"),
    (SOFTMAX, "y.sum.at(y, r)\n e.at(y, r)\n m.at(y, r)\n m.parts(n, 4)", "E0424"),
    (SOFTMAX, "y.parts(n, 4)", "E0424"),
    (HALVES, "high.beside(low, i)\n low.parts(i, 4)", "E0424"),
    (RUNNING, "s.parts(r, 4)", "E0424"),
    (MATMUL, "D.split(i, 4)", "E0401"),
    (MATMUL, "D.at(C, i)", "E0401"),
    (MATMUL, "D.inline()", "E0401"),
    (MATMUL, "D.store(l1)", "E0401"),
    (MATMUL, "D.pipeline(1)", "E0401"),
    (MATMUL, "D.pack(at=k)", "E0401"),
    (MATMUL, "D.grid(columns=2)", "E0401"),
    (MATMUL, 'D.intrin("vpdpbusd")', "E0710"),
    (MATMUL, "C.split(z, 4)", "E0402"),
    (MATMUL, "C.split(i, 4).parallel(i)", "E0402"),
    (MATMUL, "A.pack(at=z)", "E0402"),
    (MATMUL, "C.split(i, 0)", "E0403"),
    (MATMUL, "C.split(i, 0 - 3)", "E0403"),
    (MATMUL, "C.split(i, 128).unroll(i.i)", "E0403"),
    (MATMUL, "C.unroll(k, 1)", "E0403"),
    (MATMUL, "C.unroll(k, 65)", "E0403"),
    (MATMUL, "C.pipeline(7)", "E0403"),
    (MATMUL, "C.grid(columns=0)", "E0403"),
    (MATMUL, 'C.bind(i="lane.x")', "E0403"),
    (MATMUL, "C.vector(j).split(j, 4)", "E0404"),
    (MATMUL, "C.parallel(i).fuse(i, j)", "E0404"),
    (MATMUL, "C.split(i, 4).unroll(i.i).parallel(i.i)", "E0404"),
    (MATMUL, "C.vector(i).vector(j)", "E0405"),
    (MATMUL, "C.parallel(i).parallel(j)", "E0405"),
    (MATMUL, "C.vector(i).parallel(j)", "E0405"),
    (MATMUL, 'C.bind(i="group.x", j="group.x")', "E0405"),
    (MATMUL, "C.fuse(i, k)", "E0406"),
    (MATMUL, "C.order(i, i)", "E0406"),
    (MATMUL, "C.split(k, 4)\n A.pack(at=k.o)\n C.order(k.i, i)", "E0406"),
    (SCANS, "down.order(r, n)", "E0406"),
    (SCANS, "down.split(n, 16).order(r, n.o)", "E0406"),
    (MATMUL, "C.split(k, 4).order(k.i, k.o)", "E0407"),
    (MATMUL, "C.split(k, 4).fuse(k.o, k.i)", "E0407"),
    (MATMUL, "C.parallel(k)", "E0408"),
    (MATMUL, 'C.bind(k="group.x")', "E0408"),
    (MATMUL, "C.fuse(j, k)", "E0409"),
    (SOFTMAX, "m.at(y, r)", "E0410"),
    (SOFTMAX, "e.at(m, r)", "E0410"),
    (SOFTMAX, "e.at(e, r)", "E0410"),
    (SOFTMAX, "e.split(n, 4)\n m.at(y, r)\n y.sum.at(y, r)\n e.at(y, r)", "E0411"),
    (UPDATED, "e.at(y, i)", "E0410"),
    (UPDATED, "e.inline()", "E0410"),
    (IN_PLACE, "c.at(K, i)", "E0410"),
    (IN_PLACE, "c.inline()", "E0410"),
    (MATMUL, "A.pack(at=i)", "E0412"),
    (MATMUL, "A.pack(at=k)\n B.pack(at=k)\n A.pack(at=k)", "E0402"),
    (MATMUL, 'C.bind(i="warp")', "E0413"),
    (MATMUL, "C.grid(planes=2)", "E0413"),
    (SOFTMAX, "y.inline()", "E0414"),
    (SOFTMAX, "y.at(m, r)", "E0414"),
    (SOFTMAX, "m.inline()", "E0415"),
    (MATMUL, "A.store(cache, at=k)", "E0416"),
    (MATMUL, "A.store(shared)", "E0417"),
    (SOFTMAX, "e.store(l1)", "E0417"),
    (MATMUL, "A.store(l1, at=k, turned=true)", "E0417"),
    (MATMUL, "A.store(shared, at=k, turned=3)", "E0435"),
    (MATMUL, "C.pipeline(1)", "E0418"),
    (MATMUL, "A.pipeline(1)", "E0418"),
    (SOFTMAX, "x.pipeline(1, at=k)", "E0418"),
    (SOFTMAX, "x.pipeline(1, at=z)", "E0418"),
    (MATMUL, "C.grid(columns=4)", "E0419"),
    (MATMUL, "C.grid(columns=2, rows=2, columns=2)", "E0419"),
    (MATMUL, 'C.split(i, 8).bind(i.i="lane.x").bind(j="column")', "E0405"),
    (MATMUL, 'C.split(i, 8).bind(i.i="subgroup").bind(j="row")', "E0405"),
    (MATMUL, 'C.split(i, 8).split(j, 8).bind(i.i="subgroup").bind(j.i="subgroup.x")', "E0405"),
    (MATMUL, 'C.bind(i="subgroup")', "E0403"),
    (MATMUL, 'C.split(i, 8).split(j, 8).bind(i.i="subgroup").bind(j.i="lane.x")', "E0405"),
    (MATMUL, 'C.split(i, 8).split(j, 8).bind(i.i="lane.x").bind(j.i="subgroup")', "E0405"),
    (MATMUL, 'C.split(k, 32).split(k.i, 8).bind(k.i.i="lane.x")\n B.store(shared, at=k.i.i)\n C.order(k.i.o, k.i.i)', "E0406"),
    (MATMUL, 'C.intrin("dot")', "E0420"),
    (BOTH, "w.beside(z, i)", "E0430"),
    (NARROW, "g.at(y, i).store(l1, type=i8)", "E0425"),
    (NARROW, "g.at(y, i).store(l1, type=f32)", "E0425"),
    (NARROW, "g.at(y, i).store(l1, type=3)", "E0435"),
    (SOFTMAX, "e.at(y, r)\n y.sum.at(y, r)\n m.at(y, r).store(reg, type=i64)", "E0425"),
    (SCANS, "y.parallel(n)", "E0408"),
    ("op f(x: f32[N]) -> y: f32[..N] {\n y = compact[i](x[i], x[i] > 0)\n}", "y.parts(i, 16).split(i.o, 4).vector(i.o.i)", "E0408"),
    (SCANS, "down.vector(r)\n down.vector(n)", "E0405"),
    (BLUR, "g.slide(y, k)", "E0402"),
    (BLUR, "h.slide(y, i)", "E0401"),
    (BLUR, "y.slide(y, i)", "E0414"),
    (BLUR, "g.slide(y, i)\n y.parallel(i)", "E0408"),
    (BLUR, "y.parallel(i)\n g.slide(y, i)", "E0404"),
    (BLUR, "g.split(i, 4)\n g.slide(y, i)", "E0411"),
    (SOFTMAX, "e.slide(y, r)", "E0426"),
    (SOFTMAX, "y.sum.at(y, r)\n m.slide(e, n)", "E0426"),
    (BOTH, "z.slide(w, i)", "E0414"),
    (BOTH, "z.beside(w, i)", "E0430"),
    (BOTH, "z.beside(z, i)", "E0430"),
    (SUMS, "u.beside(a, i)", "E0430"),
    (SUMS, "t.beside(u, i)", "E0430"),
    (GRAM, "C.split(k, 4).order(k.o, i, j, k.i)\n A.pack(at=k.o)", "E0412"),
    (GRAM, "C.tile(i=4, j=16).split(k, 4).order(i.o, j.o, k.o, k.i, i.i, j.i)\n A.pack(at=k.o, place=2)", "E0412"),
    (BOTH, "q.beside(y, i)", "E0401"),
    (BOTH, "z.beside(y, k)", "E0402"),
    (BOTH, "y.vector(i)\n z.beside(y, i)", "E0404"),
    (MATMUL, "C.beside(C, i)", "E0430"),
    (BLUR, "g.beside(y, j)", "E0430"),
    (SOFTMAX, "y.sum.beside(m, r)", "E0430"),
    (MATMUL, "C.split(k, wide)", "E0431"),
    (MATMUL, "C.split(k, chip.wings)", "E0431"),
    (MATMUL, "param t in {4, 8} = 5\n C.split(k, t)", "E0432"),
    (MATMUL, "param t in {4, 8} = 8\n require t > 8\n C.split(k, t)", "E0433"),
    (MATMUL, "C.vectorise(j)", "E0434"),
    (MATMUL, "C.split(k)", "E0435"),
    (MATMUL, "C.split(k, 2.5)", "E0435"),
    (MATMUL, "C.parallel(i, j)", "E0435"),
    (MATMUL, "A.pack(near=k)", "E0435"),
]


@pytest.mark.parametrize(("text", "directives", "code"), ILLEGAL, ids=[f"{c} {d.splitlines()[-1]}" for _, d, c in ILLEGAL])
def test_illegal(text: str, directives: str, code: str) -> None:
    op = programs.op_of(text)
    with pytest.raises(TriError) as caught:
        programs.scheduled(op, programs.steps_of(op, directives))
    assert caught.value.code == code
    first = caught.value.diagnostics[0]
    assert first.span is not None and first.help


CARRIED = [
    ("op f(x: f32[N]) -> y: f32[N] {\n y[i] = scan sum[i](x[i])\n}", "y.parallel(i)", "E0408"),
    ("op f(x: f32[N]) -> y: f32[N] {\n y[i] = scan sum[i](x[i])\n}", 'y.bind(i="group.x")', "E0408"),
    ("op f(x: f32[R, N]) -> y: f32[R] {\n y[r] = sum[n; order=seq](x[r, n])\n}", "y.vector(n)", "E0408"),
    ("op f(x: f32[R, N, M]) -> y: f32[R] {\n y[r] = sum[n, m; order=seq](x[r, n, m])\n}", "y.order(m, n)", "E0408"),
]


@pytest.mark.parametrize(("text", "directives", "code"), CARRIED)
def test_order_is_kept(text: str, directives: str, code: str) -> None:
    op = programs.op_of(text)
    with pytest.raises(TriError) as caught:
        programs.scheduled(op, programs.steps_of(op, directives))
    assert caught.value.code == code
