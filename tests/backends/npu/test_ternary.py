"""Packed trits on the simulated array: their bytes travel, cores decode them, sums are exact."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tridsl
from tests.backends.npu.designs import GENERATIONS, UNOPTIMISED, chip
from tests.stdlib.calling import Trits, prepared
from tridsl import pipeline, stdlib
from tridsl.backends.npu import BACKEND
from tridsl.backends.npu.build_sim import Library, compile_library
from tridsl.backends.npu.emit import KERNELS, files_of
from tridsl.backends.npu.emit_kernel import kernel_text
from tridsl.backends.npu.lower_array import Laid
from tridsl.backends.npu.memory import ELEMENTS, from_array_order, to_array_order
from tridsl.backends.npu.simulate import Simulator
from tridsl.dtypes import TRIT
from tridsl.ir.op import Tensor
from tridsl.passes.specialise import Specialisation
from tridsl.schedule.automatic import choose
from tridsl.structs import replace


def trits(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(-1, 1, shape, np.int8, endpoint=True)


def bytes_of(*shape: int) -> Any:
    """With both extremes."""
    return np.random.default_rng(1).choice(np.arange(-128, 128, dtype=np.int8), shape)


def laid(name: str, *arguments: Any, layout: str = "t16", generation: str = "aie2p", decisions: dict[str, Any] | None = None) -> tuple[Laid, str]:
    """The design of a call whose `Trits` come packed, and its kernel text."""
    op, _, sizes = prepared(name, arguments, {}, {})
    op = replace(op, params=tuple(replace(p, layout=layout) if isinstance(p, Tensor) and p.dtype == TRIT else p for p in op.params))
    spec = chip(generation)
    build = pipeline.Build(
        spec=spec, backend=BACKEND, schedule=choose(op, spec, sizes, decisions or {}), facts=Specialisation(sizes=tuple(sorted(sizes.items())))
    )
    seen: dict[str, Any] = {}
    pipeline.lower(op, build, until="emit", on_stage=lambda stage, value, seconds: seen.__setitem__(stage, value))
    return seen["array"], files_of(seen["emit"].text)[KERNELS]


def run(given: Laid, arguments: dict[str, Any], generation: str) -> Any:
    """`Y` of a design without scalars, as the simulator makes it."""
    facts = chip(generation).array
    assert facts is not None
    library = Library(compile_library(kernel_text(given, chip(generation)), generation, UNOPTIMISED))
    memory = {
        t.name: to_array_order(arguments[t.name], t) if t.role == "input" else np.zeros(int(np.prod(t.shape)), ELEMENTS[t.element_bytes])
        for t in given.design.tensors
    }  # fmt: skip
    Simulator(given.design, library, facts.lock_maximum, facts.shim_queue_tasks).run(memory, {})
    result = next(t for t in given.design.tensors if t.role == "output")
    found = np.empty(result.given, np.float32)
    from_array_order(memory[result.name], result, found)
    return found


def vector_of(m: int, k: int) -> tuple[Any, ...]:
    return trits(m, k).view(Trits), bytes_of(k), np.ones(m, np.float32), 0.5


CASES = [("t16", "aie2", 70, 100, 13), ("t16", "aie2p", 13, 5, 3), ("t16", "aie2", 300, 530, 1), ("t20", "aie2", 40, 130, 20), ("t20", "aie2p", 50, 90, 1), ("t96", "aie2p", 20, 200, 9)]


@pytest.mark.parametrize(("layout", "generation", "m", "k", "n"), CASES)
def test_products_are_those_of_the_oracle(layout: str, generation: str, m: int, k: int, n: int) -> None:
    """To the last bit: exact sums, then the op's own float operations."""
    w, x, sw, sx = trits(m, k), bytes_of(n, k), np.linspace(-2, 3, m, dtype=np.float32), np.linspace(0.1, 1, n, dtype=np.float32)
    packed = tridsl.pack(w, layout)
    got = stdlib.tgemm(packed, x, sw, sx, device=f"npu:sim:{generation}")
    np.testing.assert_array_equal(got, stdlib.tgemm.reference(w, x, sw, sx))
    if n == 1:
        got = stdlib.tgemv(packed, x[0], sw, 0.37, device=f"npu:sim:{generation}")
        np.testing.assert_array_equal(got, stdlib.tgemv.reference(w, x[0], sw, 0.37))


@pytest.mark.parametrize("generation", GENERATIONS)
def test_sums_of_extremes_are_exact(generation: str) -> None:
    w, x = np.ones((20, 600), np.int8), np.full(600, -128, np.int8)
    got = stdlib.tgemv(tridsl.pack(w, "t16"), x, np.ones(20, np.float32), 1.0, device=f"npu:sim:{generation}")
    np.testing.assert_array_equal(got, np.full(20, -128 * 600, np.float32))


def test_integer_sums_by_themselves() -> None:
    text = "op dots(W: trit[M, K], X: i8[N, K]) -> Y: i32[N, M] {\n  Y[n, m] = sum[k; acc=i32](W[m, k] * X[n, k])\n}\n"
    op = tridsl.compile(text).dots
    w, x = trits(35, 70), bytes_of(9, 70)
    np.testing.assert_array_equal(op(tridsl.pack(w, "t16"), x, device="npu:sim:aie2"), x.astype(np.int32) @ w.T.astype(np.int32))


@pytest.mark.parametrize(("layout", "bits"), [("t16", 2.0), ("t20", 1.6), ("t96", 5 / 3)])
@pytest.mark.parametrize("generation", GENERATIONS)
def test_bytes_travel(layout: str, bits: float, generation: str) -> None:
    """To the memory tiles and to the cores; a core decodes a panel in a function of its own, whose vectors are bytes."""
    given, text = laid("tgemv", *vector_of(960, 960), layout=layout, generation=generation)
    weights = next(t for t in given.design.tensors if t.name == "W")
    assert (weights.dtype, np.prod(weights.given)) == ("u8", 960 * 960 * bits / 8)
    coming = [b for b in given.design.buffers if b.name.startswith("W_l1")]
    decoded = [b for b in given.design.buffers if b.name.startswith("W_reg")]
    assert {b.dtype for b in coming} == {"u8"} and decoded[0].bytes == coming[0].bytes * 8 / bits
    own = text[text.index("extern") :].split("extern")[1]
    assert "interleave_zip" in own and "mmul" not in own
    assert text.count("interleave_zip") == own.count("interleave_zip")


@pytest.mark.parametrize("generation", GENERATIONS)
def test_a_vector_keeps_every_core_busy(generation: str) -> None:
    """Of one row all cores take columns; the memory of the host is what a product with a vector waits for, or what feeds the columns."""
    given, _ = laid("tgemv", *vector_of(2560, 6912), generation=generation)
    spec = chip(generation)
    assert spec.array is not None and len(given.design.cores) == (spec.columns or 0) * spec.array.rows
    prediction = given.prediction
    assert prediction.cores < 0.75 * max(prediction.memory, prediction.streams)
    least = 2560 * 6912 / 4 / spec.array.memory_bytes_per_second
    assert prediction.memory < 1.2 * least


def test_packed_weights_of_a_transposed_result_are_refused_or_right() -> None:
    """The result's rows along the weights' rows: the instruction's other side, whose blocks are half as high on XDNA1."""
    text = "op turned(W: trit[M, K], X: i8[N, K]) -> Y: i32[M, N] {\n  Y[m, n] = sum[k; acc=i32](W[m, k] * X[n, k])\n}\n"
    op = tridsl.compile(text).turned
    w, x = trits(20, 32), bytes_of(6, 32)
    try:
        got = op(tridsl.pack(w, "t16"), x, device="npu:sim:aie2")
    except tridsl.TriError as problem:
        assert problem.diagnostics[0].code in ("E0770", "E0774")
        return
    np.testing.assert_array_equal(got, w.astype(np.int32) @ x.T.astype(np.int32))


def test_trits_that_are_not_packed_are_bytes() -> None:
    w, x, sw = trits(20, 70), bytes_of(70), np.linspace(-2, 3, 20, dtype=np.float32)
    got = stdlib.tgemv(w, x, sw, 0.37, device="npu:sim:aie2")
    np.testing.assert_array_equal(got, stdlib.tgemv.reference(w, x, sw, 0.37))


@pytest.mark.parametrize("generation", GENERATIONS)
def test_leading_axes_are_tokens(generation: str) -> None:
    w, x, sw = trits(30, 40), bytes_of(3, 40), np.linspace(-2, 3, 30, dtype=np.float32)
    got = stdlib.tgemv(tridsl.pack(w, "t16"), x, sw, 0.37, device=f"npu:sim:{generation}")
    np.testing.assert_array_equal(got, stdlib.tgemv.reference(w, x, sw, 0.37))


@pytest.mark.full
@pytest.mark.parametrize("columns", [1, 2, 4, 8])
@pytest.mark.parametrize("generation", GENERATIONS)
@pytest.mark.parametrize(("m", "k", "n"), [(70, 100, 1), (200, 60, 5), (40, 90, 70)])
def test_every_number_of_columns(generation: str, columns: int, m: int, k: int, n: int) -> None:
    """As a program that chooses: the schedule with that answer, by the reference interpreter of kernels and on the array."""
    spec = chip(generation)
    if columns > (spec.columns or 1):
        return
    w, x, sw, sx = trits(m, k), bytes_of(n, k), np.linspace(-2, 3, m, dtype=np.float32), np.linspace(0.1, 1, n, dtype=np.float32)
    given, _ = laid("tgemm", w.view(Trits), x, sw, sx, generation=generation, decisions={"Y.sum.columns": columns})
    assert given.design.columns <= columns
    found = run(given, {"W": tridsl.pack(w, "t16").array, "X": x, "sw": sw, "sx": sx}, generation)
    np.testing.assert_array_equal(found, stdlib.tgemm.reference(w, x, sw, sx))
