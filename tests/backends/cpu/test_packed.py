"""Kernels on packed trits: exact at every size, code of every kind of instruction, and what the machine code is made of."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import tridsl
from tests.backends.cpu.kernels import const, host, kernel, loop, tensor
from tests.differential.guarded import Guarded
from tests.schedule.programs import op_of
from tridsl import pipeline, stdlib
from tridsl.backends.cpu import BACKEND
from tridsl.backends.cpu.build import assembly, build
from tridsl.backends.cpu.dispatch import abi_problem
from tridsl.backends.cpu.driver import CpuExecutable
from tridsl.backends.cpu.emit import emit
from tridsl.devices.intrinsics import BYTE_FUNCTIONS
from tridsl.devices.spec import DeviceSpec, load_chip
from tridsl.dtypes import I8, I32, TRIT, U8
from tridsl.ir.evaluate_kernel import evaluate_kernel
from tridsl.ir.expr import Binary, Const, Expr, Load, Var
from tridsl.ir.loop import Mma, Ref, Store
from tridsl.ir.op import Op, Tensor
from tridsl.passes.specialise import Specialisation

VNNI = "avx512vnni"
needs_vnni = pytest.mark.skipif(VNNI not in host().features, reason="this processor has no AVX-512 VNNI")
DOTS = """op dots(W: trit[M, K], X: i8[N, K]) -> Y: i32[N, M] {
  Y[n, m] = sum[k; acc=i32](W[m, k] * X[n, k])
}
"""


def trits(m: int, k: int, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).integers(-1, 2, (m, k)).astype(np.int8)


@pytest.mark.parametrize("layout", ["t16", "t20", "t96"])
@pytest.mark.parametrize(("m", "k", "n"), [(16, 16, 1), (1, 1, 1), (5, 3, 7), (64, 256, 8), (40, 129, 0), (33, 100, 13), (0, 7, 3), (7, 0, 3), (208, 48, 2)])
def test_products_are_exact(m: int, k: int, n: int, layout: str) -> None:
    w, x = trits(m, k), np.random.default_rng(1).integers(-128, 128, (n, k)).astype(np.int8)
    sw, sx = np.linspace(-1, 2, m, dtype=np.float32), np.linspace(0.5, 3, n, dtype=np.float32)
    dots = x.astype(np.int64) @ w.T.astype(np.int64)
    packed = tridsl.pack(w, layout)
    assert np.array_equal(stdlib.tgemm(packed, x, sw, sx), dots.astype(np.float32) * sw * sx[:, None])
    if n == 1:
        assert np.array_equal(stdlib.tgemv(packed, x[0], sw, 0.75), dots[0].astype(np.float32) * sw * np.float32(0.75))


@pytest.mark.parametrize("value", [127, -128])
@pytest.mark.parametrize("trit", [1, -1])
def test_nothing_saturates(value: int, trit: int) -> None:
    """Sums of 16-bit products of such rows would not fit 16 bits."""
    m, k = 48, 6912
    packed, x, sw = tridsl.pack(np.full((m, k), trit, np.int8), "t16"), np.full((3, k), value, np.int8), np.ones(m, np.float32)
    assert np.array_equal(stdlib.tgemv(packed, x[0], sw, 1.0), np.full(m, float(trit * value * k), np.float32))
    assert np.array_equal(stdlib.tgemm(packed, x, sw, np.ones(3, np.float32)), np.full((3, m), float(trit * value * k), np.float32))


def test_threads_and_both_paths_agree() -> None:
    m, k, n = 320, 1024, 5
    w, x, sw, sx = trits(m, k), np.random.default_rng(2).integers(-128, 128, (n, k)).astype(np.int8), np.ones(m, np.float32), np.ones(n, np.float32)
    want = (x.astype(np.int64) @ w.T.astype(np.int64)).astype(np.float32)
    packed = tridsl.pack(w, "t16")
    for threads in (1, 2, 3):
        for _ in range(3):  # the third call is the native dispatcher's
            assert np.array_equal(stdlib.tgemm(packed, x, sw, sx, threads=threads), want)
    other = tridsl.pack(-w, "t16")
    assert np.array_equal(stdlib.tgemm(other, x, sw, sx, threads=2), -want)
    with pytest.raises(tridsl.TriError, match="E0504"):
        stdlib.tgemm(tridsl.pack(w[:, :-1], "t16"), x, sw, sx, threads=2)  # as many bytes, fewer columns


@pytest.mark.parametrize("layout", ["t16", "t96"])
def test_a_schedule_for_elements_serves_packed_ones(layout: str) -> None:
    """Panels of a packed matrix hold its elements."""
    directives = """Y.split(n, 8).split(m, 32).split(k, 64).split(k.i, 4).order(k.o, m.o, n.o, k.i.o, n.i, m.i, k.i.i).unroll(n.i).vector(m.i)
    W.pack(at=m.o)
    X.pack(at=n.o)"""
    ops = tridsl.compile(f"{DOTS}schedule dots for cpu {{\n{directives}\n}}\n")
    for m, k, n in ((64, 128, 16), (33, 50, 9)):
        w, x = trits(m, k), np.random.default_rng(6).integers(-128, 128, (n, k)).astype(np.int8)
        assert np.array_equal(ops.dots(tridsl.pack(w, layout), x), x.astype(np.int32) @ w.T.astype(np.int32))


def packed_op(layout: str) -> Op:
    op = op_of(DOTS)
    return replace(op, params=tuple(replace(p, layout=layout) if isinstance(p, Tensor) and p.dtype == TRIT else p for p in op.params))


def built(layout: str, sizes: dict[str, int], spec: DeviceSpec) -> pipeline.Build:
    return pipeline.Build(spec=spec, backend=BACKEND, facts=Specialisation(sizes=tuple(sizes.items())))


def lean(*without: str) -> DeviceSpec:
    return replace(host(), features=host().features - {*without})


@needs_vnni
@pytest.mark.parametrize("without", [(), ("gfni",), ("gfni", "avx512vbmi"), ("avx512bw", "gfni", "avx512vbmi"), (VNNI,)])
@pytest.mark.parametrize("layout", ["t16", "t20", "t96"])
def test_every_recipe_on_guarded_memory(layout: str, without: tuple[str, ...]) -> None:
    sizes = {"M": 37, "K": 203, "N": 3}
    spec = lean(*without)
    binary = pipeline.build(packed_op(layout), built(layout, sizes, spec))
    w, x = trits(37, 203, 4), np.random.default_rng(5).integers(-128, 128, (3, 203)).astype(np.int8)
    for high in (False, True):
        places = []
        for array in (tridsl.pack(w, layout).array, x, np.empty((3, 37), np.int32)):
            steps = tuple(s // array.itemsize for s in array.strides)
            places.append(Guarded(array.shape, steps, array.dtype, high=high))
        places[0].array[:], places[1].array[:] = tridsl.pack(w, layout).array, x
        CpuExecutable(binary)([p.array for p in places], 1)
        assert np.array_equal(places[2].array, x.astype(np.int32) @ w.T.astype(np.int32))
        assert all(p.untouched() for p in places)
        for p in places:
            p.close()


@pytest.mark.parametrize("chip", ["zen4", "x86_64_v3", "cortex_a76"])
@pytest.mark.parametrize(("layout", "n"), [("t16", 1), ("t16", 8), ("t20", 2), ("t96", 2)])
def test_code_for_other_chips(chip: str, layout: str, n: int) -> None:
    sizes, spec = {"M": 64, "K": 480, "N": n}, load_chip(chip)
    op = packed_op(layout)
    text = assembly(pipeline.lower(op, built(layout, sizes, spec), until="emit"), spec)
    assert ("vpdpbusd" in text) == (chip == "zen4") and ("zmm" in text) == (chip == "zen4")
    assert "vpmaddubsw" not in text or chip != "x86_64_v3"  # it saturates


@needs_vnni
def test_unpacking_is_an_and_a_code() -> None:
    """Four partial sums a result, none of them in memory; terms are broadcast from memory."""
    spec = load_chip("zen4")
    text = assembly(pipeline.lower(packed_op("t16"), built("t16", {"M": 64, "K": 1600, "N": 1}, spec), until="emit"), spec)
    blocks = re.split(r"^\.?L\w+:.*$|^\s+j[a-z]+\s.*$", text, flags=re.MULTILINE)
    inner = max(blocks, key=lambda block: block.count("vpdpbusd"))
    count = inner.count("vpdpbusd")
    assert count >= 16 and len(re.findall(r"\bvpand", inner)) == count
    assert not re.search(r"\bvps[rl]l|\bvpermb|%rsp", inner)


FUNCTIONS = {
    "and": lambda b: Binary(op="and", a=b, b=const(0x5A, U8), dtype=U8),
    "affine": lambda b: Binary(op="xor", a=Binary(op="shr", a=b, b=const(3, U8), dtype=U8), b=const(0xC1, U8), dtype=U8),
    "small table": lambda b: Binary(op="mod", a=Binary(op="and", a=b, b=const(63, U8), dtype=U8), b=const(7, U8), dtype=U8),
    "table": lambda b: Binary(op="floordiv", a=b, b=const(11, U8), dtype=U8),
    "two bytes": lambda b: Binary(op="or", a=Binary(op="and", a=b, b=const(15, U8), dtype=U8), b=Binary(op="shl", a=Load(tensor="B", index=b.index, dtype=U8), b=const(4, U8), dtype=U8), dtype=U8),
}  # fmt: skip


@needs_vnni
@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("without", [(), ("gfni",), ("gfni", "avx512vbmi")])
def test_codecs_are_byte_functions(name: str, without: tuple[str, ...]) -> None:
    """All 256 bytes through a codec, against its meaning; each lane's sum picks out one of its four bytes."""
    byte = Load(tensor="A", index=(Var(name="r"), Var(name="i"), Var(name="k")), dtype=U8)
    code: Expr = FUNCTIONS[name](byte)
    place = Ref(tensor="y", index=(Var(name="q"), Var(name="r"), Var(name="i")))
    zero = Store(target=replace(place, index=(Var(name="qz"), Var(name="rz"), Var(name="iz"))), value=Const(value=0, dtype=I32))
    mma = Mma(intrinsic="vpdpbusd", axes=(("i", 16), ("k", 4)), target=place, a=code, b=Load(tensor="x", index=(Var(name="q"), Var(name="k")), dtype=I8))
    made = kernel(
        "codec", [tensor("A", U8, 4, 16, 4), tensor("B", U8, 4, 16, 4), tensor("x", I8, 4, 4), tensor("y", I32, 4, 4, 16, role="output")],
        loop("qz", 4, loop("rz", 4, loop("iz", 16, zero))), loop("q", 4, loop("r", 4, mma)),
    )  # fmt: skip
    arrays = {"A": np.arange(256, dtype=np.uint8).reshape(4, 16, 4), "B": np.arange(256, dtype=np.uint8)[::-1].reshape(4, 16, 4).copy(), "x": np.eye(4, dtype=np.int8)}
    want = evaluate_kernel(made, arrays, {})["y"]
    spec = lean(*without)
    y = np.zeros((4, 4, 16), np.int32)
    CpuExecutable(build(emit(made, spec), spec))([*arrays.values(), y], 1)
    assert np.array_equal(y, want)


def test_rows_of_byte_functions() -> None:
    """Cheapest first: what keeps bits, what is linear over them, tables by their size."""
    assert [(row.name, row.affine, row.entries) for row in BYTE_FUNCTIONS if row.affine] == [("vpandd", True, 256), ("vgf2p8affineqb", True, 256)]
    assert [row.entries for row in BYTE_FUNCTIONS if not row.affine] == [64, 128]


@pytest.mark.skipif(abi_problem() is not None, reason=f"no native dispatch here: {abi_problem()}")
def test_native_calls_look_into_buffers() -> None:
    """The array in a buffer is found without Python, is held while the kernel runs, and anything unusual takes the long way."""
    w, x, sw = trits(37, 64), np.ones(64, np.int8), np.ones(37, np.float32)
    ops = tridsl.compile("use stdlib: tgemv\nop f(W: trit[M, K], x: i8[K], s: f32[M]) -> y: f32[M] {\n  y = tgemv(W, x, s, 1.0)\n}\n")
    packed, want = tridsl.pack(w, "t16"), w.sum(1).astype(np.float32)
    for _ in range(3):
        assert np.array_equal(ops.f(packed, x, sw), want)
    assert ops.f._fast.native
    before = sys.getrefcount(packed.array), sys.getrefcount(packed)
    for _ in range(100):
        ops.f(packed, x, sw)
    assert (sys.getrefcount(packed.array), sys.getrefcount(packed)) == before

    copied = tridsl.Buffer(dtype=packed.dtype, shape=packed.shape, array=packed.array.copy(), layout="_t16"[1:])  # equal, and another object
    assert np.array_equal(ops.f(copied, x, sw), want)
    packed.array = tridsl.pack(-w, "t16").array
    assert np.array_equal(ops.f(packed, x, sw), -want)
    wider = tridsl.pack(trits(48, 64), "t16")  # as many bytes: three blocks of rows
    assert wider.array.shape == packed.array.shape
    with pytest.raises(tridsl.TriError, match="E0504"):
        ops.f(wider, x, sw)
