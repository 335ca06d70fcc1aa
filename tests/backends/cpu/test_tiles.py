"""AMX: what instructions for blocks compute, stage by stage, and what is emitted for them."""

from __future__ import annotations

import numpy as np
import pytest

from tests.stdlib.calling import prepared
from tridsl import pipeline
from tridsl.backend import load_backend
from tridsl.devices.spec import load_chip
from tridsl.dtypes import BF16, NUMPY_TYPES
from tridsl.ir.evaluate import evaluate_kernel, evaluate_op
from tridsl.ir.loop import Kernel
from tridsl.ir.op import Op
from tridsl.ir.printer import print_kernel
from tridsl.ir.verify import LOWERED, SCHEDULED, verify
from tridsl.passes.specialise import Specialisation
from tridsl.pipeline import Build

CHIP = load_chip("sapphire_rapids")
TEXT = """op product(A: {a}[M, K], B: {b}[K, N]) -> C: {c}[M, N] {{
  C[i, j] = sum[k; acc={acc}]({left} * {right})
}}
"""
KINDS = {
    "i8": TEXT.format(a="i8", b="i8", c="i32", acc="i32", left="A[i, k]", right="B[k, j]"),
    "bf16": TEXT.format(a="bf16", b="bf16", c="f32", acc="f32", left="A[i, k]", right="B[k, j]"),
    "turned": TEXT.format(a="i8", b="i8", c="i32", acc="i32", left="A[i, k]", right="B[j, k]").replace("B: i8[K, N]", "B: i8[N, K]"),
    "both turned": TEXT.format(a="i8", b="i8", c="i32", acc="i32", left="A[k, i]", right="B[k, j]").replace("A: i8[M, K]", "A: i8[K, M]"),
    "narrowed": TEXT.format(a="bf16", b="bf16", c="bf16", acc="f32", left="A[i, k]", right="B[k, j]").replace("sum[", "bf16(sum[").replace("])\n", "]))\n"),
}
SIZES = [(32, 32, 128), (32, 16, 64), (33, 47, 100), (40, 100, 65), (100, 20, 190)]
"""Rows, columns and terms: whole tiles; one column of tiles; tails of every axis."""


def product(kind: str, m: int, n: int, k: int) -> tuple[Op, dict[str, np.ndarray], dict[str, int]]:
    rng = np.random.default_rng(m + n + k)
    shapes = {"A": (k, m) if kind == "both turned" else (m, k), "B": (n, k) if kind == "turned" else (k, n)}
    if "bf16" in KINDS[kind]:
        args = [rng.integers(-8, 8, shape).astype(NUMPY_TYPES[BF16]) for shape in shapes.values()]  # whose sums are exact in any order
    else:
        args = [rng.integers(-128, 128, shape).astype(np.int8) for shape in shapes.values()]
    return prepared(KINDS[kind], tuple(args), {}, {})


def build_for(sizes: dict[str, int], known: bool) -> Build:
    facts = Specialisation(sizes=tuple(sizes.items()) if known else ())
    return Build(spec=CHIP, backend=load_backend("cpu"), facts=facts)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("m", "n", "k"), SIZES)
def test_every_stage_means_the_same(kind: str, m: int, n: int, k: int) -> None:
    op, arguments, sizes = product(kind, m, n, k)
    want = evaluate_op(op, arguments, sizes)["C"]
    seen = []

    def judge(name: str, value: object, seconds: float) -> None:
        if isinstance(value, Kernel) and name in ("schedule", "form_mma", "finish", "tiles"):
            assert not verify(value, LOWERED if name == "tiles" else SCHEDULED), name
            got = evaluate_kernel(value, arguments, {s: sizes[s] for s in value.sizes})["C"]
            np.testing.assert_array_equal(got, want, err_msg=name)
            seen.append("fragment" in print_kernel(value))

    pipeline.lower(op, build_for(sizes, known=True), until="accepts", on_stage=judge)
    assert seen[-1], "nothing is in tiles"
