"""Library ops, whole: scheduled, laid out, emitted, compiled, run on the simulated array, and compared with the oracle."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from tests.backends.npu.designs import GENERATIONS, agree, subject
from tests.stdlib.calling import module
from tridsl import pipeline, stdlib
from tridsl.backend import load_backend
from tridsl.check.signature import type_choices
from tridsl.check.types import check_op
from tridsl.devices.spec import load_chip
from tridsl.diagnostics import TriError

BF16 = ml_dtypes.bfloat16
RANDOM = np.random.default_rng(7)


def normal(*shape: int, dtype: Any = np.float32) -> Any:
    return RANDOM.standard_normal(shape).astype(dtype)


def whole(dtype: Any, *shape: int) -> Any:
    """Integers of the type's whole range: sums of products wrap as they should."""
    info = np.iinfo(dtype)
    return RANDOM.integers(info.min, info.max, shape, dtype, endpoint=True)


CASES: dict[str, tuple[str, Callable[[], tuple[Any, ...]], Mapping[str, Any]]] = {
    "saxpy": ("saxpy", lambda: (2.5, normal(3001), normal(3001)), {}),
    "saxpy bf16": ("saxpy", lambda: (2.5, normal(1000, dtype=BF16), normal(1000, dtype=BF16)), {"z.columns": 2}),
    "silu": ("silu", lambda: (normal(3, 7, 33),), {}),
    "silu bf16, one column": ("silu", lambda: (normal(1025, dtype=BF16),), {"y.columns": 1}),
    "relu2_mul": ("relu2_mul", lambda: (normal(500), normal(500)), {"y.columns": 4}),
    "gelu": ("gelu", lambda: (4 * normal(700),), {}),
    "softmax": ("softmax", lambda: (normal(70, 333),), {}),
    "softmax, a lane left over": ("softmax", lambda: (3 * normal(5, 65),), {"y.columns": 2}),
    "softmax bf16": ("softmax", lambda: (normal(9, 100, dtype=BF16),), {"y.columns": 1}),
    "rmsnorm": ("rmsnorm", lambda: (normal(3, 50, 40), normal(40)), {"y.columns": 4}),
    "layernorm": ("layernorm", lambda: (normal(9, 77), normal(77), normal(77)), {"y.columns": 1}),
    "layernorm bf16": ("layernorm", lambda: (normal(20, 64, dtype=BF16), normal(64, dtype=BF16), normal(64, dtype=BF16)), {}),
    "collapse": ("collapse", lambda: (np.abs(normal(30, 75)), 0.5), {}),
    "collapse bf16, one column": ("collapse", lambda: (np.abs(normal(9, 40, dtype=BF16)), 0.7), {"y.columns": 1}),
    "collapse_at": ("collapse_at", lambda: (normal(1500), 0.25), {}),
    "collapse_at i16": ("collapse_at", lambda: (whole(np.int16, 700), 12), {"y.columns": 2}),
    "collapse_fixed bf16": ("collapse_fixed", lambda: (normal(700, dtype=BF16),), {}),
    "reverse": ("reverse", lambda: (normal(5003),), {"y.columns": 2}),
    "reverse i8": ("reverse", lambda: (whole(np.int8, 900),), {}),
    "reverse bf16, in rows": ("reverse", lambda: (normal(9, 77, dtype=BF16),), {}),
    "softmax of one row": ("softmax", lambda: (normal(300),), {}),
    "max of one row": ("max", lambda: (normal(165),), {}),
    "sum of one row": ("sum", lambda: (whole(np.int32, 90),), {}),
    "rmsnorm of one row": ("rmsnorm", lambda: (normal(100), normal(100)), {}),
    "collapse of one row": ("collapse", lambda: (np.abs(normal(333)), 0.5), {}),
    "conv2d": ("conv2d", lambda: (normal(1, 3, 9, 17), normal(4, 3, 3, 3), 1, 1), {}),
    "conv2d bf16, one by one": ("conv2d", lambda: (normal(2, 4, 8, 20, dtype=BF16), normal(3, 4, 1, 1, dtype=BF16), 1, 0), {}),
    "conv2d bf16": ("conv2d", lambda: (normal(1, 4, 8, 20, dtype=BF16), normal(3, 4, 3, 3, dtype=BF16), 1, 0), {"Y.columns": 2}),
    "conv2d, every second": ("conv2d", lambda: (normal(1, 3, 9, 17), normal(4, 3, 3, 3), 2, 1), {}),
    "depthwise bf16, every second": ("depthwise", lambda: (normal(1, 2, 12, 20, dtype=BF16), normal(2, 3, 3, dtype=BF16), 2, 0), {}),
    "patch_embed": ("patch_embed", lambda: (normal(1, 3, 16, 24), normal(32, 3, 4, 4), normal(32)), {}),
    "patch_embed bf16": ("patch_embed", lambda: (normal(2, 3, 17, 24, dtype=BF16), normal(40, 3, 4, 4, dtype=BF16), normal(40, dtype=BF16)), {"Y.columns": 1}),
    "patch_embed bf16, in parts": ("patch_embed", lambda: (normal(1, 3, 33, 64, dtype=BF16), normal(48, 3, 16, 16, dtype=BF16), normal(48, dtype=BF16)), {}),
    "matmul f32": ("matmul", lambda: (normal(9, 20), normal(20, 40)), {}),
    "transpose": ("transpose", lambda: (normal(20, 33),), {}),
    "depthwise": ("depthwise", lambda: (normal(1, 3, 12, 20), normal(3, 3, 3), 1, 1), {}),
    "depthwise bf16": ("depthwise", lambda: (normal(1, 2, 9, 33, dtype=BF16), normal(2, 3, 3, dtype=BF16), 1, 1), {}),
    "quantise": ("quantise", lambda: (normal(20, 75),), {}),
    "quantise bf16, one column": ("quantise", lambda: (normal(9, 130, dtype=BF16),), {"q.columns": 1}),
    "rmsnorm_quantise": ("rmsnorm_quantise", lambda: (normal(12, 64), normal(64)), {}),
    "rope": ("rope", lambda: (normal(20, 64), normal(20, 32), normal(20, 32)), {}),
    "rope bf16": ("rope", lambda: (normal(9, 40, dtype=BF16), normal(9, 20), normal(9, 20)), {"y.columns": 2}),
    "argmax": ("argmax", lambda: (np.where(whole(np.int8, 6, 70) % 19 == 0, np.nan, whole(np.int8, 6, 70)).astype(np.float32),), {}),
    "argmax i16": ("argmax", lambda: (whole(np.int16, 6, 33),), {}),
    "cumsum": ("cumsum", lambda: (normal(9, 70),), {}),
    "cumsum i32": ("cumsum", lambda: (whole(np.int32, 5, 130),), {"y.columns": 1}),
    "sum": ("sum", lambda: (normal(60, 90),), {}),
    "mean": ("mean", lambda: (normal(60, 100),), {}),
    "matmul i8": ("matmul", lambda: (whole(np.int8, 70, 130), whole(np.int8, 130, 90)), {}),
    "matmul i8, one column": ("matmul", lambda: (whole(np.int8, 33, 65), whole(np.int8, 65, 17)), {"C.columns": 1}),
    "matmul i8, two columns": ("matmul", lambda: (whole(np.int8, 33, 65), whole(np.int8, 65, 17)), {"C.columns": 2}),
    "matmul i8, deep": ("matmul", lambda: (whole(np.int8, 16, 500), whole(np.int8, 500, 16)), {"C.depth": 32}),
    "matmul i16": ("matmul", lambda: (whole(np.int16, 30, 41), whole(np.int16, 41, 50)), {}),
    "matmul i16, one row": ("matmul", lambda: (whole(np.int16, 1, 41), whole(np.int16, 41, 50)), {}),
    "matmul bf16": ("matmul", lambda: (normal(40, 200, dtype=BF16), normal(200, 50, dtype=BF16)), {}),
    "matmul bf16, batched": ("matmul", lambda: (normal(3, 20, 30, dtype=BF16), normal(3, 30, 40, dtype=BF16)), {"C.sum.columns": 2}),
    "a vector's product with a matrix": ("linear", lambda: (normal(300, dtype=BF16), normal(50, 300, dtype=BF16), normal(50, dtype=BF16)), {}),
    "a vector's product with long rows": ("linear", lambda: (normal(8192, dtype=BF16), normal(50, 8192, dtype=BF16)), {}),
    "linear bf16": ("linear", lambda: (normal(30, 40, dtype=BF16), normal(50, 40, dtype=BF16)), {}),
}
SELDOM = {
    "collapse bf16, one column", "collapse_at i16", "collapse_fixed bf16", "reverse i8", "rmsnorm of one row", "collapse of one row",
    "conv2d bf16, one by one", "depthwise bf16", "argmax i16", "cumsum", "depthwise bf16, every second", "patch_embed", "patch_embed bf16, in parts", "transpose",
    "depthwise", "rmsnorm_quantise", "sum of one row", "conv2d", "reverse bf16, in rows", "quantise bf16, one column", "rope bf16",
}  # fmt: skip
"""Cases that differ little from others: in the full run only."""
COLUMNS = (1, 2, 4, 8)
TURNS = [
    pytest.param(case, generation, marks=[] if (n + turn) % 2 == 0 and case not in SELDOM else [pytest.mark.full])
    for n, case in enumerate(CASES) for turn, generation in enumerate(GENERATIONS)
]  # fmt: skip
"""Each case on one generation in the ordinary run, on the other in the full one."""


@pytest.mark.parametrize(("case", "generation"), TURNS)
def test_the_simulated_result_is_the_oracles(case: str, generation: str) -> None:
    name, arguments, decisions = CASES[case]
    given = subject(name, *arguments(), generation=generation, decisions=decisions)
    agree(given.results(dispatches=2), given.want())


@pytest.mark.full
@pytest.mark.parametrize("generation", GENERATIONS)
@pytest.mark.parametrize("columns", COLUMNS)
def test_products_of_every_shape_on_every_number_of_columns(generation: str, columns: int) -> None:
    if generation == "aie2" and columns == 8:
        with pytest.raises(TriError, match="E0951"):
            subject("matmul", whole(np.int8, 8, 8), whole(np.int8, 8, 8), generation=generation, decisions={"C.columns": 8})
        return
    for dtype in (np.int8, np.int16, BF16):
        for m, k, n in ((1, 1, 1), (3, 7, 5), (17, 33, 65), (64, 64, 64), (5, 300, 2), (130, 129, 131)):
            make = (lambda *s: normal(*s, dtype=BF16)) if dtype is BF16 else (lambda *s, d=dtype: whole(d, *s))
            stage = "C.sum" if dtype is BF16 else "C"
            given = subject("matmul", make(m, k), make(k, n), generation=generation, decisions={f"{stage}.columns": columns})
            agree(given.results(), given.want())


@pytest.mark.full
@pytest.mark.parametrize("generation", GENERATIONS)
def test_rows_and_maps_of_every_length(generation: str) -> None:
    for n in (1, 2, 15, 16, 17, 63, 64, 65, 100, 1023, 1025, 4097):
        for dtype in (np.float32, BF16):
            for name, arguments in (("silu", (normal(n, dtype=dtype),)), ("softmax", (normal(3, n, dtype=dtype),))):
                given = subject(name, *arguments, generation=generation)
                agree(given.results(), given.want())


@pytest.mark.full
def test_a_product_of_512_cubed() -> None:
    given = subject("matmul", whole(np.int16, 512, 512), whole(np.int16, 512, 512), generation="aie2")
    agree(given.results(), given.want())


@pytest.mark.parametrize("generation", ["aie2p", pytest.param("aie2", marks=pytest.mark.full)])
def test_what_is_not_a_number_is_treated_as_the_oracle_does(generation: str) -> None:
    x = normal(4, 40)
    x[0, 3], x[1, 5], x[2, :], x[3, 0] = np.nan, np.inf, -np.inf, -np.inf
    for name in ("softmax", "silu"):
        given = subject(name, x, generation=generation)
        with np.errstate(invalid="ignore"):
            agree(given.results(), given.want())


@pytest.mark.parametrize("kind", ["i32", "i8", pytest.param("u8", marks=pytest.mark.full), pytest.param("i16", marks=pytest.mark.full)])
def test_floats_become_integers_as_the_oracle_says(kind: str) -> None:
    special = [0.5, 1.5, -2.5, 0.4999, 127.5, 128.5, -128.9, 255.7, 4194304.5, 8388607.5, 16777217.0, 2147483648.0, -2147483648.0, 3e9, -3e9]
    x = np.array([*special, *(-v for v in special), np.nan, np.inf, -np.inf, 0.0, *np.linspace(-9, 9, 60)], np.float32)
    text = f"op f(x: f32[N]) -> i: {kind}[N] {{ i[n] = max({kind}(x[n]), max({kind}(round_even(x[n])), max({kind}(floor(x[n])), {kind}(ceil(x[n]))))) }}\n"
    given = subject("f", x, text=text)
    agree(given.results(), given.want())


@pytest.mark.parametrize(
    "body", ["y: i32[R, N] { y[r, i] = scan sum[i; exclusive](x[r, i]) }", "y: i32[R, N] { y[r, i] = scan max[i](x[r, i]) }", "y: i32[R] { y[r] = prod[i](x[r, i]) }"]
)
def test_running_and_whole_combinations_of_every_kind(body: str) -> None:
    given = subject("f", RANDOM.integers(-9, 9, (5, 37)).astype(np.int32), text=f"op f(x: i32[R, N]) -> {body}\n")
    agree(given.results(), given.want())


def test_numbers_of_8_bits_become_floats_again() -> None:
    text = "op dequantise(q: i8[K], sx: f32) -> y: f32[K] { y[k] = f32(q[k]) * sx }\nop f(q: i8[R, K], sx: f32[R]) -> y: f32[R, K] { y[r, k] = f32(q[r, k]) * sx[r] }\n"
    given = subject("f", whole(np.int8, 13, 70), np.abs(normal(13)), text=text)
    agree(given.results(), given.want())


def test_what_does_not_fit_is_refused_with_the_limits_name() -> None:
    with pytest.raises(TriError, match="limit `core memory` of aie2"):
        subject("softmax", normal(2, 30000), generation="aie2")


def test_what_no_rule_schedules_is_refused_with_the_reason() -> None:
    with pytest.raises(TriError, match="E0770.*no step of its schedule stages"):
        subject("cumsum", normal(40))
    with pytest.raises(TriError, match="E0770.*no step of its schedule stages"):
        subject("matmul", normal(8, 8, dtype=np.float64), normal(8, 8, dtype=np.float64))


@pytest.mark.parametrize("call", [lambda d: stdlib.sum(np.arange(96), device=d), lambda d: stdlib.reverse(np.arange(48), device=d)])
def test_tiles_of_what_cores_keep_in_registers_are_refused(call: Callable[[str], Any]) -> None:
    with pytest.raises(TriError, match="E0770.*holds i64"):
        call("npu:sim")


@pytest.mark.parametrize("op", ["layernorm", "topk", "softmax", "argmax"])
def test_sizes_that_nobody_knows_are_a_diagnostic(op: str) -> None:
    """The rules of the schedule ask for sizes, too."""
    bound = module(op)
    checked = check_op(bound, bound.operations[op][0], next(iter(type_choices(bound.operations[op][0].operation))))
    with pytest.raises(TriError, match="E0770"):
        pipeline.lower(checked, pipeline.Build(spec=load_chip("aie2p"), backend=load_backend("npu")), until="emit")
