"""Products on the simulated array: what cores keep their sums in, where the result shares their memory, deep panels of memory tiles, orders of B."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from tests.backends.npu.designs import GENERATIONS, Subject, agree, chip, subject
from tests.backends.npu.test_kernels import normal, whole
from tests.stdlib.calling import prepared
from tridsl.backends.npu.design import MEMTILE, Task
from tridsl.ir.block_floats import shared_exponent
from tridsl.ir.evaluate import evaluate_kernel
from tridsl.schedule.automatic import choices

BF16 = ml_dtypes.bfloat16
NARROWED = "op f(A: i8[M, K], B: i8[K, N]) -> C: {c}[M, N] {{\n  C[i, j] = {c}(sum[k; acc=i32](A[i, k] * B[k, j]))\n}}\n"
TRANSPOSED = "op f(A: {t}[K, M], B: {t}[N, K]) -> C: {c}[M, N] {{\n  C[i, j] = {c}(sum[k; acc={acc}](A[k, i] * B[j, k]))\n}}\n"


def core_bytes(given: Subject, name: str) -> list[int]:
    """Of the buffers of core (0, 2) whose name begins so."""
    return [b.bytes for b in given.design.buffers if b.tile == (0, 2) and b.name.startswith(name)]


@pytest.mark.parametrize("generation", GENERATIONS)
@pytest.mark.parametrize("result", ["i8", "i16"])
def test_integer_sums_are_kept_in_the_results_type(generation: str, result: str) -> None:
    given = subject(NARROWED.format(c=result), whole(np.int8, 40, 96), whole(np.int8, 96, 40), generation=generation, decisions={"C.sum.depth": 16})
    agree(given.results(dispatches=2), given.want())
    assert "C_l1" not in given.kernels  # the result is where they are, and nothing is left to convert
    assert core_bytes(given, "C_sum") == [] and len(core_bytes(given, "C_l1")) == 1


@pytest.mark.parametrize("generation", GENERATIONS)
def test_a_result_shares_the_memory_of_wider_sums(generation: str) -> None:
    a, b = normal(40, 100, dtype=BF16), normal(100, 40, dtype=BF16)
    given = subject("matmul", a, b, generation=generation, decisions={"C.sum.depth": 16})
    agree(given.results(dispatches=2), given.want())
    shape = next(b.shape for b in given.design.buffers if b.name.startswith("C_l1"))
    assert core_bytes(given, "C_l1") == [4 * int(np.prod(shape))] and core_bytes(given, "C_sum") == []
    sent = next(d for c in given.design.chains if c.tile == (0, 2) and c.direction == "out" for d in c.descriptors)
    assert sent.length * 4 == 2 * int(np.prod(shape))  # words of the sums' buffer, of which the narrower result fills half
    assert "__restrict C_" not in given.kernels.rpartition("extern")[2]  # two pointers to one place


def test_a_fused_function_shares_it_too() -> None:
    text = "op f(A: bf16[M, K], B: bf16[K, N]) -> C: bf16[M, N] {\n  C[i, j] = bf16(max(sum[k; acc=f32](A[i, k] * B[k, j]), 0))\n}\n"
    given = subject(text, normal(40, 100, dtype=BF16), normal(100, 70, dtype=BF16), decisions={"C.sum.depth": 16})
    agree(given.results(dispatches=2), given.want())
    assert core_bytes(given, "C_sum") == []


def test_rounded_sums_are_a_decision() -> None:
    """Those of the published bf16 kernels: in bf16 between panels. Two digits fewer, by themselves."""
    a, b = normal(30, 400, dtype=BF16), normal(400, 30, dtype=BF16)
    given = subject("matmul", a, b, generation="aie2", decisions={"C.sum.depth": 16, "C.sum.sums": "bf16"})
    want = given.want()["C"].astype(np.float64)
    error = np.abs(given.results()["C"].astype(np.float64) - want).max() / np.abs(want).max()
    assert 1e-3 < error < 2e-2


@pytest.mark.parametrize("generation", GENERATIONS)
def test_panels_of_memory_tiles_are_several_of_a_cores(generation: str) -> None:
    """Long runs in the host's memory: four panels of A behind one another in each transfer, four of B where it is stored along K."""
    x, w = normal(40, 256, dtype=BF16), normal(48, 256, dtype=BF16)
    given = subject("linear", x, w, generation=generation, decisions={"y.sum.depth": 16, "y.sum.piece": 4})
    agree(given.results(dispatches=2), given.want())
    pieces = [(c, d) for c in given.design.chains if c.tile[1] == MEMTILE and c.direction == "in" for d in c.descriptors if d.count == 4]
    assert pieces
    whole_panels = {t.tensor: t.dimensions for t in given.design.sequence if hasattr(t, "tensor")}
    assert all(whole_panels[name][-1].size % 64 == 0 for name in "xW")
    single = subject("linear", x, w, generation=generation, decisions={"y.sum.depth": 16, "y.sum.piece": 1})
    assert given.laid.prediction.memory < single.laid.prediction.memory


@pytest.mark.parametrize("generation", GENERATIONS)
@pytest.mark.parametrize("order", ["K, N", "N, K"])
def test_a_memory_tile_keeps_a_factor(generation: str, order: str) -> None:
    """The host sends B once, however many tiles of rows a core has; part by part it is let go while the last of them needs the others."""
    place = {"K, N": "k, j", "N, K": "j, k"}[order]
    text = f"op f(A: bf16[M, K], B: bf16[{order}]) -> C: bf16[M, N] {{\n  C[i, j] = bf16(sum[k; acc=f32](A[i, k] * B[{place}]))\n}}\n"
    sizes = {"K": 250, "N": 70}
    a, b = normal(140, 250, dtype=BF16), normal(*(sizes[s] for s in order.split(", ")), dtype=BF16)
    given = subject(text, a, b, generation=generation, decisions={"C.sum.depth": 32, "C.sum.columns": 2, "C.sum.kept": True})
    agree(given.results(dispatches=2), given.want())
    sent = sum(int(np.prod([d.size for d in t.dimensions])) for t in given.design.sequence if isinstance(t, Task) and t.tensor == "B")
    assert sent == np.prod(next(t for t in given.design.tensors if t.name == "B").shape)
    filled = [d for c in given.design.chains if c.tile == (0, 1) and c.direction == "in" for d in c.descriptors if d.buffer.startswith("B_")]
    held = {d.buffer for d in filled}
    assert len(held) > 1 and min(d.count for d in filled) > 1 and sum(b.bytes for b in given.design.buffers if b.name in held) == 2 * sent // 2


@pytest.mark.parametrize("generation", GENERATIONS)
@pytest.mark.parametrize("t", [np.int8, BF16])
def test_panels_come_in_strips(generation: str, t: Any) -> None:
    """A core holds two strips of A, of which several make the panel that the memory tile gets; B is there for all of them."""
    a, b = (normal(300, 130, dtype=BF16), normal(130, 90, dtype=BF16)) if t is BF16 else (whole(np.int8, 300, 130), whole(np.int8, 130, 90))
    name = "C" if t is np.int8 else "C.sum"
    asked = {f"{name}.depth": 16, f"{name}.columns": 2}
    given = subject("matmul", a, b, generation=generation, decisions={**asked, f"{name}.strips": True})
    agree(given.results(dispatches=2), given.want())
    held = [buffer.bytes for buffer in given.design.buffers if buffer.tile == (0, 2) and buffer.name.startswith("A_l1")]
    filled = next(d.length for c in given.design.chains if c.tile == (0, MEMTILE) for d in c.descriptors if c.direction == "out" and d.buffer.startswith("A_"))
    assert len(held) == 2 and filled * a.itemsize >= 2 * held[0]
    assert len(core_bytes(given, "B_l1")) == 2


def test_what_a_memory_tile_cannot_keep() -> None:
    """All of B is more than it holds, or each row of cores has one tile."""
    many = [np.broadcast_to(np.zeros(1, BF16), shape) for shape in ((4096, 60000), (60000, 512))]
    op, _, sizes = prepared("matmul", tuple(many), {}, {})
    assert not any(c.name.endswith(".kept") for c in choices(op, chip("aie2p"), sizes, {}))
    op, _, sizes = prepared("matmul", (many[0][:64, :256], many[1][:256]), {}, {})
    assert not any(c.name.endswith(".kept") for c in choices(op, chip("aie2p"), sizes, {}))


@pytest.mark.parametrize("generation", GENERATIONS)
@pytest.mark.parametrize(("t", "c", "acc"), [("i8", "i32", "i32"), ("i16", "i32", "i32"), ("bf16", "bf16", "f32")])
def test_factors_in_either_order(generation: str, t: str, c: str, acc: str) -> None:
    """Blocks that lie the other way round have their sides exchanged in the core; no tensor is transposed by the host."""
    make: Any = (lambda *s: normal(*s, dtype=BF16)) if t == "bf16" else (lambda *s: whole(np.dtype(f"int{t[1:]}").type, *s))
    given = subject(TRANSPOSED.format(t=t, c=c, acc=acc), make(50, 30), make(20, 50), generation=generation)
    agree(given.results(), given.want())
    assert all(tensor.axes == (0, 1) for tensor in given.design.tensors)
    assert given.kernels.count("aie::transpose") > 0


@pytest.mark.parametrize("generation", GENERATIONS)
def test_products_of_f32(generation: str) -> None:
    """The AIE API makes them of products of bf16; the stand-in multiplies exactly."""
    given = subject("matmul", normal(33, 70), normal(70, 45), generation=generation)
    agree(given.results(dispatches=2), given.want())
    given = subject("linear", normal(20, 40), normal(30, 40), normal(30), generation=generation)
    agree(given.results(), given.want())


def test_shared_exponents_are_a_decision_whose_rounding_the_oracle_knows() -> None:
    """bf16 through bfp16, the fast way of XDNA2: what the stand-in answers is what the kernel means."""
    a, b = normal(20, 40, dtype=BF16), normal(40, 24, dtype=BF16)
    a[0, :8] = np.ldexp(np.ones(8), -np.arange(8))  # bits that do not fit behind one exponent
    given = subject("matmul", a, b, decisions={"C.sum.shared_exponents": True, "C.sum.columns": 1})
    assert given.kernels.index("#define AIE_API_EMULATE_BFLOAT16_MMUL_WITH_BFP16") < given.kernels.index("#include")
    exact = given.want()["C"].astype(np.float64)
    found = given.results()["C"].astype(np.float64)
    error = np.abs(found - exact).max() / np.abs(exact).max()
    assert 1e-3 < error < 3e-2
    meant = evaluate_kernel(given.kernel, {"A": a, "B": b}, {})["C"].astype(np.float64)
    np.testing.assert_allclose(found, meant, rtol=8e-3, atol=1e-4)
    assert given.laid.prediction.cores < subject("matmul", a, b, decisions={"C.sum.columns": 1}).laid.prediction.cores


def test_one_exponent_for_eight_numbers() -> None:
    assert shared_exponent([np.float32(v) for v in (1, 0.5, -1, 3 / 128, 1 / 64, 1 / 128, 1 / 256, 0)]) == [1, 0.5, -1, 1 / 32, 1 / 64, 0, 0, 0]
    assert shared_exponent([np.float32(255 / 128), np.float32(-1)]) == [np.float32(127 / 64), -1]  # no mantissa beyond the largest
    odd = [np.float32(np.inf), np.float32(1 / 256)]
    assert shared_exponent(odd) == odd and shared_exponent([np.float32(0)]) == [0]
