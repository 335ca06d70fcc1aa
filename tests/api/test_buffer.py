"""Buffers, the packed layout bit by bit, and memory that is refused before it is allocated."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tridsl
from tridsl.buffer import LAYOUTS
from tridsl.diagnostics import TriError
from tridsl.dtypes import BF16, F32, I8, TRIT, U8
from tridsl.ir.evaluate_op import evaluate_op
from tridsl.ir.expr import Load, Var, index
from tridsl.ir.op import Axis, Map, Op, Tensor
from tridsl.ir.packings import PACKINGS
from tridsl.runtime.memory import ALIGNMENT, PAGE, allocate, available_bytes, require

BLOCKS = {"t16": (16, ()), "t20": (20, ()), "t96": (96, (5,))}


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(BLOCKS)), st.integers(0, 40), st.integers(0, 200), st.integers(0, 9))
def test_packing_gives_back_what_was_packed(layout: str, m: int, k: int, seed: int) -> None:
    w = np.random.default_rng(seed).integers(-1, 2, (m, k)).astype(np.int8)
    packed = tridsl.pack(w, layout)
    columns, stretches = BLOCKS[layout]
    assert packed.array.shape == (-(-m // 16), -(-k // columns), *stretches, 16, 4) and packed.shape == (m, k)
    assert np.array_equal(np.asarray(packed), w)


@pytest.mark.parametrize("layout", sorted(BLOCKS))
def test_kernels_read_the_bytes_that_were_packed(layout: str) -> None:
    """The codec as expressions (`ir.packings`) and in NumPy (`codecs`): every code in every group."""
    columns, _ = BLOCKS[layout]
    rows = np.array(list(product((-1, 0, 1), repeat=columns // 4 if columns < 96 else 3)), np.int8)
    groups = np.resize(rows, (len(rows), columns // 4)) if columns < 96 else np.tile(rows, (1, 8))
    w = np.repeat(groups[:, :, None], 4, axis=2).reshape(len(rows), -1)  # (243 or 81 or 27 rows, columns)
    raw = PACKINGS[layout]
    stretches = {"W": tridsl.pack(w, layout).array}
    m, k = Var(name="m"), Var(name="k")
    element = raw.element(Load(tensor="W", index=(m, k), dtype=TRIT))
    op = Op(
        name="f", types=(), sizes=(), intermediates=(), checks=(),
        params=(Tensor(name="W", dtype=U8, shape=tuple(map(index, stretches["W"].shape)), role="input"),
                Tensor(name="y", dtype=I8, shape=(index(len(rows)), index(columns)), role="output")),
        stages=(Map(name="y", dtype=I8, value=element, axes=(Axis(name="m", lo=index(0), hi=index(len(rows))), Axis(name="k", lo=index(0), hi=index(columns)))),),
    )  # fmt: skip
    assert np.array_equal(evaluate_op(op, stretches, {})["y"], w)


def test_t16_places_each_element_where_the_kernels_expect_it() -> None:
    w = np.zeros((32, 48), np.int8)
    w[17, 16 + 4 * 2 + 3] = 1  # block (1, 1), row 1, g = 2, kk = 3
    packed = LAYOUTS["t16"].encode(w)
    expected = np.full((2, 3, 16, 4), 0b01010101, np.uint8)  # a trit 0 is the code 1
    expected[1, 1, 1, 3] = 0b01100101
    assert np.array_equal(packed, expected)


def test_what_cannot_be_packed_is_refused() -> None:
    for wrong, code in (
        (np.zeros((2, 2), np.float32), "E0522"),
        (np.zeros(4, np.int8), "E0523"),
        (np.full((2, 2), 2, np.int8), "E0531"),
    ):
        with pytest.raises(TriError, match=code):
            tridsl.pack(wrong, "t16")


def test_buffers_are_views_where_memory_is_shared() -> None:
    buffer = tridsl.buffer((3, 4), "bf16", hint="prefer_gpu")
    assert buffer.dtype == BF16 and buffer.hint == "prefer_gpu" and len(buffer) == 3
    np.asarray(buffer)[1, 2] = 5
    assert float(np.asarray(buffer)[1, 2]) == 5 and np.asarray(buffer, copy=False) is not None
    assert np.array_equal(np.from_dlpack(tridsl.buffer(4, np.float32)), np.zeros(4, np.float32))
    packed = tridsl.pack(np.zeros((2, 2), np.int8), "t16")
    with pytest.raises(ValueError, match="copy"):
        np.asarray(packed, copy=False)
    with pytest.raises(BufferError):
        np.from_dlpack(packed)
    for wrong in ({"dtype": "f33"}, {"dtype": "f32", "hint": "fast"}, {"dtype": "f32", "shape": (-1,)}):
        with pytest.raises(TriError):
            tridsl.buffer(**{"shape": (2,), **wrong})  # type: ignore[arg-type]  # wrong on purpose


def test_results_start_on_a_cache_line() -> None:
    for shape in ((), (1,), (3, 5), (1000,)):
        assert allocate("y", shape, F32).ctypes.data % ALIGNMENT == 0 and allocate("y", shape, F32).shape == shape


def test_memory_is_refused_with_both_numbers() -> None:
    available = available_bytes()
    assert available is not None and available > 0
    with pytest.raises(TriError, match="E0602") as caught:
        require((("y", (available, 2), U8),))
    assert str(available * 2) in str(caught.value)
    with pytest.raises(TriError, match="E0601"):
        require((("y", (1 << 40, 1 << 30), F32),))
    with pytest.raises(TriError, match="E0602"):
        require((("a", (available * 2 // 3,), U8), ("b", (available * 2 // 3,), U8)))


@pytest.mark.parametrize("size", [1, 1000, 4096, 100_000])
def test_buffers_have_pages_of_their_own(size: int) -> None:
    """The page that a buffer's last byte is on ends inside what was allocated for it."""
    memory = np.asarray(tridsl.buffer(size, "u8"))
    block = memory
    while isinstance(block.base, np.ndarray):
        block = block.base
    (low, high), page = np.lib.array_utils.byte_bounds(memory), PAGE
    first, last = np.lib.array_utils.byte_bounds(block)
    assert low % page == 0 and first <= low and -(-high // page) * page <= last and not memory.any()
