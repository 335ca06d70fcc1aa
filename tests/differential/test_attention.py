"""Attention in blocks, as it is served, against the interpreter: shapes that fill no block, tile or vector, and where heads share keys."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from tests.stdlib.calling import module
from tridsl import stdlib
from tridsl.api.devices import find
from tridsl.check.types import check_op
from tridsl.dtypes import BF16, F32, DType
from tridsl.ir.op import Op
from tridsl.schedule.automatic import choose
from tridsl.schedule.steps import Intrin, Parts
from tridsl.structs import replace

bf16 = ml_dtypes.bfloat16
SHAPES = [  # H, G, S, L, D, E
    (2, 1, 100, 130, 20, 33),  # rows in lanes: tails of rows, elements and columns
    (4, 2, 70, 35, 17, 64),  # fewer keys than queries: causal rows that see nothing
    (8, 2, 1, 150, 32, 48),  # a step of decoding: the heads of a group are rows
    (3, 3, 5, 40, 8, 130),
    (4, 1, 17, 1, 1, 1),
]


def arrays(shape: tuple[int, ...], dtype: Any) -> tuple[Any, ...]:
    h, g, s, l, d, e = shape
    rng = np.random.default_rng(0)
    return tuple(rng.standard_normal(size).astype(np.float32).astype(dtype) for size in ((h, s, d), (g, l, d), (g, l, e)))


def typed(name: str, **types: DType) -> Op:
    bound = module(name)
    return check_op(bound, bound.operations[name][0], types)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_f32(shape: tuple[int, ...], causal: bool) -> None:
    q, k, v = arrays(shape, np.float32)
    want = stdlib.attention.reference(q, k, v, 0.3, causal=causal)
    np.testing.assert_allclose(stdlib.attention(q, k, v, 0.3, causal=causal, device="cpu"), want, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("shape", [(1, 1, 1, 2500, 24, 24), (6, 2, 1, 2100, 16, 40), (1, 1, 3, 2500, 20, 20)], ids=str)
def test_a_long_key_axis_is_shared(shape: tuple[int, ...], causal: bool) -> None:
    """Few rows over many keys: parts of the keys are threads' work, and the bits are those of one thread."""
    op, sizes = typed("attention", T=F32), dict(zip(("H", "G", "S", "L", "D", "E"), shape))
    small = replace(find("cpu").device.spec, l2_bytes=1 << 18)  # whose parts are short
    steps = choose(op, small, {**sizes, "causal": causal}, {})
    assert any(isinstance(s, Parts) for s in steps)
    assert not any(isinstance(s, Parts) for s in choose(op, small, {**sizes, "H": 32, "G": 32, "causal": causal}, {})), "32 rows are shared as they are"
    q, k, v = arrays(shape, np.float32)
    attention = stdlib.attention.with_schedule(steps)
    one, *others = (attention(q, k, v, 0.3, causal=causal, device="cpu", threads=n) for n in (1, 2, 3))
    for other in others:
        np.testing.assert_array_equal(one, other)
    np.testing.assert_allclose(one, stdlib.attention.reference(q, k, v, 0.3, causal=causal), rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float16, 2e-3), (bf16, 1.6e-2)])
@pytest.mark.parametrize("shape", [SHAPES[0], SHAPES[2]], ids=str)
def test_narrow_types(shape: tuple[int, ...], dtype: Any, tolerance: float) -> None:
    q, k, v = arrays(shape, dtype)
    want = stdlib.attention.reference(q, k, v, 0.3, causal=True).astype(np.float32)
    got = stdlib.attention(q, k, v, 0.3, causal=True, device="cpu").astype(np.float32)
    np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance / 2)


@pytest.mark.parametrize("shape", [(4, 2, 70, 75, 20, 33), (2, 2, 64, 64, 32, 32)], ids=str)
def test_dot_products_of_bf16(shape: tuple[int, ...]) -> None:
    """The schedule of a chip on which they pay: weights are rounded, sums are not."""
    spec = find("cpu").device.spec
    if "avx512bf16" not in spec.features:
        pytest.skip("needs a processor with avx512bf16")
    op = typed("attention", T=BF16)
    sizes = dict(zip(("H", "G", "S", "L", "D", "E"), shape))
    steps = choose(op, spec, {**sizes, "causal": 1}, {"s.sum.instruction": True, "O.softmax_wsum.round_weights": True})
    assert {s.stage for s in steps if isinstance(s, Intrin)} == {"s.sum", "O.softmax_wsum.o"}
    q, k, v = arrays(shape, bf16)
    want = stdlib.attention.reference(q, k, v, 0.3, causal=True).astype(np.float32)
    got = stdlib.attention.with_schedule(steps)(q, k, v, 0.3, causal=True, device="cpu").astype(np.float32)
    np.testing.assert_allclose(got, want, rtol=1.6e-2, atol=1e-2)


@pytest.mark.parametrize("shape", [(2, 2, 40, 70, 16, 16), (8, 2, 1, 100, 16, 16)], ids=str)
def test_scores_far_apart_infinite_and_not_a_number(shape: tuple[int, ...]) -> None:
    q, k, v = arrays(shape, np.float32)
    k[0, 3] *= 1e4
    k[-1, 5, 0] = np.inf
    k[-1, 6] = np.nan
    q[0, 0] = 0
    with np.errstate(all="ignore"):
        want = stdlib.attention.reference(q, k, v, 1.0)
    np.testing.assert_allclose(stdlib.attention(q, k, v, 1.0, device="cpu"), want, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("shape", [(4, 4, 64, 100, 16, 16), (8, 2, 1, 200, 16, 16)], ids=str)
def test_repeats_bit_for_bit(shape: tuple[int, ...]) -> None:
    """The order of the sums is the schedule's, whoever runs which rows."""
    q, k, v = arrays(shape, np.float32)
    together = stdlib.attention(q, k, v, 0.25, device="cpu")
    np.testing.assert_array_equal(together, stdlib.attention(q, k, v, 0.25, device="cpu"))
