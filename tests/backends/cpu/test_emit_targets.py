"""What the machine code looks like on three chips: register tiles without spills, widening loads, no foreign instructions."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.backends.cpu.kernels import (
    accumulate,
    buffer,
    const,
    host,
    kernel,
    load,
    loop,
    op,
    raw,
    reducer,
    ref,
    run,
    store,
    tensor,
    values,
)
from tridsl.backends.cpu import BACKEND
from tridsl.backends.cpu.accepts import accepts
from tridsl.backends.cpu.build import SYMBOLS, assembly, build
from tridsl.backends.cpu.emit import emit
from tridsl.devices.intrinsics import INTRINSICS
from tridsl.devices.spec import DeviceSpec, load_chip
from tridsl.dtypes import BF16, F16, F32, I8, I32, I64, NUMPY_TYPES, U8, DType
from tridsl.ir.expr import Call, Cast, Expr, Var, add, ceildiv, minimum, mul, sub
from tridsl.ir.loop import Append, Check, Kernel, Mma, Stmt
from tridsl.ir.walk import substitute
from tridsl.passes.register_tiles import register_tiles
from tridsl.structs import replace

ZEN4, AVX2, NEON = (load_chip(n) for n in ("zen4", "x86_64_v3", "cortex_a76"))
CHIPS = pytest.mark.parametrize("spec", [ZEN4, AVX2, NEON], ids=lambda s: s.name)
SUM = reducer("add", F32, 0.0)
M, N = Var(name="M"), Var(name="N")
K = 64


def matmul(rows: int, columns: int, tile: int) -> Kernel:
    """Packed panels, a `rows` x `columns` register tile, tails by masks: what the schedule of the design document lowers to."""
    row, column = (add(mul(Var(name=o), const(n)), Var(name=i)) for o, n, i in (("i.o", rows, "i"), ("j.o", columns, "j")))
    here = minimum(const(columns), sub(N, mul(Var(name="j.o"), const(columns))))
    there = minimum(const(rows), sub(M, mul(Var(name="i.o"), const(rows))))

    def renamed(statement: Stmt, suffix: str) -> Stmt:
        return substitute(statement, {n: Var(name=n + suffix) for n in ("i", "j", "k")})

    zero = loop("i.z", rows, loop("j.z", columns, renamed(store("acc", "i", "j", value=const(0.0, F32)), ".z"), kind="vector"), kind="unroll")
    pack_b = loop("k.b", tile, loop("j.b", here, renamed(store("Bp", "k", "j", value=load("B", F32, "k", column)), ".b"), kind="vector", bound=columns))
    pack_a = loop("i.a", there, loop("k.a", tile, renamed(store("Ap", "k", "i", value=load("A", F32, row, "k")), ".a")))
    product = op("mul", load("Ap", F32, "k", "i"), load("Bp", F32, "k", "j"))
    inner = loop("k", tile, loop("i", rows, loop("j", columns, accumulate(ref("acc", "i", "j"), SUM, product), kind="vector"), kind="unroll"), reduce=True)
    write = loop("i.w", there, loop("j.w", here, renamed(store("C", row, column, value=load("acc", F32, "i", "j")), ".w"), kind="vector", bound=columns), kind="unroll", bound=rows)
    tile_loop = loop(
        "i.o", ceildiv(M, const(rows)), buffer("Ap", F32, tile, rows, space="l2", padded=(False, True)), pack_a,
        buffer("acc", F32, rows, columns, padded=(True, True)), zero, inner, write,
    )  # fmt: skip
    body = loop("j.o", ceildiv(N, const(columns)), buffer("Bp", F32, tile, columns, space="l1", padded=(False, True)), pack_b, tile_loop, kind="parallel")
    params = [tensor("A", F32, "M", tile), tensor("B", F32, tile, "N"), tensor("C", F32, "M", "N", role="output")]
    return kernel("matmul<f32>", params, body, sizes=("M", "N"))


def inner_loop(text: str, instruction: str) -> list[str]:
    """The basic block with the most of `instruction`: from a label or a jump to the next."""
    blocks = re.split(r"^\.?L\w+:.*$|^\s+(?:j[a-z]+|b|b\.\w+|cbn?z|tbn?z)\s.*$", text, flags=re.MULTILINE)
    best = max(blocks, key=lambda b: len(re.findall(rf"\b{instruction}", b)))
    return [line.strip() for line in best.splitlines() if line.strip() and not line.strip().startswith((".", "#", "//"))]


@pytest.mark.parametrize(
    ("spec", "rows", "columns", "instruction", "register", "tile"),
    [(ZEN4, 12, 32, "vfmadd231ps", "zmm", 24), (AVX2, 6, 16, "vfmadd231ps", "ymm", 12), (NEON, 8, 12, "fmla", "v", 24)],
    ids=["zen4", "x86_64_v3", "cortex_a76"],
)
def test_register_tile_stays_in_registers(spec: DeviceSpec, rows: int, columns: int, instruction: str, register: str, tile: int) -> None:
    block = inner_loop(assembly(emit(matmul(rows, columns, K), spec), spec), instruction)
    products = [line for line in block if line.startswith(instruction)]
    assert len(products) == tile and all(register in line for line in products)
    stack = [line for line in block if re.search(r"\(%rsp|\[sp", line)]
    assert not stack, stack


@pytest.mark.parametrize("deep", [K, Var(name="K")], ids=str)
def test_turns_of_a_register_tile(deep: int | Var) -> None:
    """The tile's sums stay in registers from one iteration of a turn to the next; a longer turn is not made of a loop that asks for none."""
    products = []
    for turn in (1, 4):
        sums = accumulate(ref("C", "i", "j"), SUM, op("mul", load("A", F32, "k", "i"), load("B", F32, "k", "j")))
        inner = replace(loop("k", deep, loop("i", 6, loop("j", 32, sums, kind="vector"), kind="unroll"), reduce=True), unrolled=turn)
        params = [tensor("A", F32, deep, 6), tensor("B", F32, deep, 32), tensor("C", F32, 6, 32, role="inout")]
        what = register_tiles(kernel("turns<f32>", params, inner, sizes=("K",) if deep == Var(name="K") else ()))
        block = inner_loop(assembly(emit(what, ZEN4), ZEN4), "vfmadd")
        products.append(sum(line.startswith("vfmadd") for line in block))
        assert not [line for line in block if "%rsp" in line]
    assert products == [12, 48]


@pytest.mark.parametrize(("m", "n"), [(1, 1), (12, 32), (25, 70), (13, 31), (0, 5)])
def test_matmul_with_tails(m: int, n: int) -> None:
    a, b = values(F32, (m, K)), values(F32, (K, n), 1)
    bits = set()
    for threads in (1, 2, 3):
        c = run(matmul(12, 32, K), {"A": a, "B": b}, {"M": m, "N": n}, threads=threads)["C"]
        np.testing.assert_allclose(c, a.astype(np.float64) @ b, rtol=1e-4, atol=1e-4)
        bits.add(c.tobytes())
    assert len(bits) == 1
    narrow = run(matmul(6, 16, K), {"A": a, "B": b}, {"M": m, "N": n}, spec=AVX2)["C"]
    np.testing.assert_allclose(narrow, a.astype(np.float64) @ b, rtol=1e-4, atol=1e-4)


def everything() -> Kernel:
    """One of each: conversions, functions, masks, gathers, reductions, compaction, checks."""
    i = add(mul(Var(name="o"), const(16)), Var(name="v"))
    inside = op("lt", load("ids", I32, i), const(9, I32))
    value = op("add", Call(function="exp", args=(load("h", F16, i),), dtype=F32), load("b", BF16, i))
    gathered = load("x", F32, Cast(a=load("ids", I32, i), dtype=I64), mask=inside, other=const(0.0, F32))
    body: list[Stmt] = [
        store("y", i, value=op("max", op("add", value, gathered), Cast(a=load("q", U8, i), dtype=F32))),
        store("z", i, value=Cast(a=op("floordiv", load("ids", I32, i), const(3, I32)), dtype=F32)),
        accumulate(ref("s"), reducer("max", F32, -1e30), value),
        Append(tensors=("p",), count=ref("p.len"), values=(load("x", F32, i),), keep=inside),
        Check(condition=op("gt", load("ids", I32, i), const(-100, I32)), number=0),
    ]
    params = [
        tensor("h", F16, "N"), tensor("b", BF16, "N"), tensor("x", F32, "N"), tensor("ids", I32, "N"), tensor("q", U8, "N"),
        tensor("y", F16, "N", role="output"), tensor("z", BF16, "N", role="output"), tensor("s", F32, role="output"),
        tensor("p", F32, "N", role="output"), tensor("p.len", I64, role="output"),
    ]  # fmt: skip
    extent = minimum(const(16), sub(N, mul(Var(name="o"), const(16))))
    loops = loop("o", ceildiv(N, const(16)), loop("v", extent, *body, kind="vector", bound=16))
    start = [store("s", value=const(-1e30, F32)), store("p.len", value=const(0))]
    return kernel("everything", params, *start, loops, sizes=("N",), messages=("too low",))


@CHIPS
def test_compiles_for_every_chip_without_foreign_parts(spec: DeviceSpec, tmp_path: Path) -> None:
    for what in (everything(), matmul(4, 8, 16)):
        code = emit(what, spec)
        if spec is NEON:
            assert "x86" not in code.text.replace("target-cpu", "")
        file = tmp_path / "kernel.o"
        file.write_bytes(build(code, spec).blob)
        listed = subprocess.run(["nm", "-u", file], check=False, capture_output=True, text=True)
        if listed.returncode == 0 and spec is not NEON:
            wanted = {line.split()[-1] for line in listed.stdout.splitlines()} - {"_GLOBAL_OFFSET_TABLE_"}
            assert wanted <= SYMBOLS
        called = set(re.findall(r"^\s(?:callq?|bl)\s+(\w+)", assembly(code, spec), re.MULTILINE))
        assert {name for name in called if not name.startswith("tridsl_")} <= SYMBOLS, called


def test_everything_runs_on_the_host_and_on_avx2() -> None:
    n = 37
    ids = np.arange(n, dtype=np.int32) % 12
    arguments = {"h": values(F16, n), "b": values(BF16, n), "x": values(F32, n), "ids": ids, "q": values(U8, n)}
    with_masks, without = (run(everything(), arguments, {"N": n}, spec=spec) for spec in (host(), AVX2))
    want = np.exp(arguments["h"].astype(np.float64)) + arguments["b"].astype(np.float64)
    gathered = np.where(ids < 9, arguments["x"][np.minimum(ids, n - 1)], 0)
    y = np.maximum(want + gathered, arguments["q"])
    for got in (with_masks, without):
        np.testing.assert_allclose(got["y"].astype(np.float64), y, rtol=2e-3)
        np.testing.assert_allclose(got["s"], want.max(), rtol=1e-6)
        count = int(got["p.len"])
        assert got["p"][:count].tolist() == arguments["x"][ids < 9].tolist()


@pytest.mark.parametrize(("source", "instruction"), [(U8, "vpmovzxbd"), (I8, "vpmovsxbd")], ids=["u8", "i8"])
def test_narrow_loads_widen_in_one_instruction(source: DType, instruction: str) -> None:
    what = kernel(
        "widen", [tensor("x", source, 64), tensor("y", I32, 64, role="output")],
        loop("v", 64, store("y", "v", value=Cast(a=load("x", source, "v"), dtype=I32)), kind="vector"),
    )  # fmt: skip
    assert len(re.findall(rf"{instruction}\s+[\w(%]", assembly(emit(what, ZEN4), ZEN4))) == 4


def test_names_of_functions_say_what_they_are() -> None:
    text = assembly(emit(matmul(12, 32, K), ZEN4), ZEN4)
    assert "tridsl_matmul_f32:" in text and "tridsl_matmul_f32.parallel0:" in text


MMA = {"fma": 1, "vpdpbusd": 4, "vpdpbssd": 4, "vpdpwssd": 2, "vdpbf16ps": 2}


def product(name: str, rows: int, columns: int, steps: int) -> Kernel:
    """C = A B by one matrix instruction; B packed k fastest."""
    row = INTRINSICS[name]
    m, n, k = "m", "n", "k"
    depth = add(mul(Var(name="k.o"), const(row.k)), Var(name=k))
    mma = Mma(intrinsic=name, axes=((m, rows), (n, columns), (k, row.k)), target=ref("acc", m, n), a=raw("A", row.a, m, depth), b=raw("B", row.b, "k.o", n, k))
    zero: Expr = const(0.0 if row.acc.is_float else 0, row.acc)
    return kernel(
        name, [tensor("A", row.a, rows, steps * row.k), tensor("B", row.b, steps, columns, row.k), tensor("C", row.acc, rows, columns, role="output")],
        buffer("acc", row.acc, rows, columns),
        loop("i", rows, loop("j", columns, store("acc", "i", "j", value=zero), kind="vector"), kind="unroll"),
        loop("k.o", steps, mma),
        loop("i.w", rows, loop("j.w", columns, store("C", "i.w", "j.w", value=load("acc", row.acc, "i.w", "j.w")), kind="vector"), kind="unroll"),
    )  # fmt: skip


@pytest.mark.parametrize("columns", [64, 32, 24, 16, 5])
@pytest.mark.parametrize("name", MMA)
def test_matrix_instructions(name: str, columns: int) -> None:
    row, rows, steps = INTRINSICS[name], 3, 5
    what = product(name, rows, columns, steps)
    if accepts(what, host()):
        pytest.skip(f"this processor has no {row.feature}")
    a, b = values(row.a, (rows, steps * row.k)), values(row.b, (steps, columns, row.k), 1)
    got = run(what, {"A": a, "B": b})["C"]
    flat = b.transpose(0, 2, 1).reshape(steps * row.k, columns)
    if row.acc.is_float:
        np.testing.assert_allclose(got, a.astype(np.float64) @ flat.astype(np.float64), rtol=1e-4, atol=1e-4)
    else:
        want = (a.astype(np.int64) @ flat.astype(np.int64)).astype(NUMPY_TYPES[row.acc])
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize(("name", "instruction"), [("vpdpbusd", "vpdpbusd"), ("vpdpwssd", "vpdpwssd"), ("vdpbf16ps", "vdpbf16ps"), ("fma", "vfmadd231ps")])
def test_matrix_tile_stays_in_registers(name: str, instruction: str) -> None:
    block = inner_loop(assembly(emit(product(name, 6, 64, 100), ZEN4), ZEN4), instruction)
    assert sum(line.startswith(instruction) for line in block) == 24
    assert not [line for line in block if "(%rsp" in line]


def test_a_missing_feature_is_named() -> None:
    (problem,) = BACKEND.accepts(product("vpdpbusd", 2, 16, 2), AVX2)
    assert problem.code == "E0710" and "avx512vnni" in problem.message and "fma" in problem.help
    assert not BACKEND.accepts(product("fma", 2, 16, 2), NEON)
    assert "zmm" not in assembly(emit(product("fma", 2, 16, 2), AVX2), AVX2)


GUARD = r"""
import ctypes, mmap, sys
import numpy as np
sys.path.insert(0, sys.argv[1])
from tests.backends.cpu import kernels
from tests.backends.cpu.test_emit_targets import everything, matmul, K
from tridsl.backends.cpu.driver import CpuExecutable
from tridsl.dtypes import NUMPY_TYPES
from tridsl.ir.affine import evaluate_index
from tridsl.ir.op import Tensor

libc = ctypes.CDLL(None, use_errno=True)
PAGE, KEPT = mmap.PAGESIZE, []

def guarded(array, at_end):
    '''The array between two pages that may not be touched, against the upper or the lower one.'''
    inner = -(-max(array.nbytes, 1) // PAGE) * PAGE
    area = mmap.mmap(-1, inner + 2 * PAGE)
    KEPT.append(area)
    start = ctypes.addressof(ctypes.c_char.from_buffer(area))
    for page in (start, start + PAGE + inner):
        assert libc.mprotect(ctypes.c_void_p(page), ctypes.c_size_t(PAGE), 0) == 0
    offset = PAGE + (inner - array.nbytes if at_end else 0)
    view = np.frombuffer(area, array.dtype, array.size, offset).reshape(array.shape)
    view[...] = array
    return view

def check(what, sizes, spec):
    for at_end in (True, False):
        slots = []
        for number, param in enumerate(what.params):
            shape = tuple(evaluate_index(e, sizes) for e in param.shape)
            array = kernels.values(param.dtype, shape, number) if param.role == "input" else np.zeros(shape, NUMPY_TYPES[param.dtype])
            if param.name == "ids":
                array = (array % 12).astype(array.dtype)
            slots.append(guarded(np.asarray(array), at_end))
        kernels.compiled(what, spec)([*slots, *(sizes[n] for n in what.sizes)], 1)

from tridsl.devices.spec import load_chip
for spec in (kernels.host(), load_chip("x86_64_v3")):
    for n in (9, 16, 17, 31, 33):
        check(everything(), {"N": n}, spec)
    for m, n in ((1, 1), (12, 32), (13, 33), (25, 31)):
        check(matmul(12, 32, K), {"M": m, "N": n}, spec)
for stride in (2, 3, 4):
    from tridsl.ir.expr import Var, mul
    what = kernels.kernel("channels", [kernels.tensor("x", kernels.I4 if False else kernels.F32, 20 * stride - stride + 1), kernels.tensor("y", kernels.F32, 20, role="output")],
        kernels.loop("v", 20, kernels.store("y", "v", value=kernels.load("x", kernels.F32, mul(Var(name="v"), kernels.const(stride)))), kind="vector", bound=20))
    check(what, {}, kernels.host())
print("untouched")
"""


def test_nothing_outside_the_arrays_is_touched() -> None:
    """Every array ends, then starts, at a page that may not be read: a stray access kills the child."""
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", GUARD, str(root)], check=False, capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "untouched", f"exit {done.returncode}: {done.stderr[-2000:]}"
