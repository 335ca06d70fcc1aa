"""AMX: what instructions for blocks compute, stage by stage, and what is emitted for them."""

from __future__ import annotations

import re

import numpy as np
import pytest

from tests.backends.cpu.test_emit_targets import inner_loop
from tests.schedule.programs import steps_of
from tests.stdlib.calling import prepared
from tridsl import pipeline
from tridsl.backend import load_backend
from tridsl.backends.cpu import amx
from tridsl.backends.cpu.build import assembly
from tridsl.devices.spec import DeviceSpec, load_chip
from tridsl.diagnostics import TriError
from tridsl.dtypes import BF16, F16, NUMPY_TYPES
from tridsl.ir.evaluate import evaluate_kernel, evaluate_op
from tridsl.ir.loop import Kernel
from tridsl.ir.op import Op
from tridsl.ir.printer import print_kernel
from tridsl.ir.verify import LOWERED, SCHEDULED, verify
from tridsl.passes.specialise import Specialisation
from tridsl.pipeline import Build
from tridsl.schedule.automatic import choose
from tridsl.schedule.steps import Pack
from tridsl.structs import replace

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
    "f16": TEXT.format(a="f16", b="f16", c="f32", acc="f32", left="A[i, k]", right="B[k, j]"),
    "narrowed": TEXT.format(a="bf16", b="bf16", c="bf16", acc="f32", left="A[i, k]", right="B[k, j]").replace("sum[", "bf16(sum[").replace("])\n", "]))\n"),
}
CASES = [
    ("i8", (32, 32, 128)), ("i8", (32, 16, 64)), ("i8", (33, 47, 100)), ("bf16", (40, 33, 66)), ("turned", (33, 40, 100)),
    ("both turned", (40, 33, 65)), ("narrowed", (33, 47, 70)), ("bf16", (32, 33, 1100)),
]  # fmt: skip
"""Rows, columns and terms: whole tiles, one column of tiles, tails of every axis, sums that come and go."""


def product(kind: str, m: int, n: int, k: int) -> tuple[Op, dict[str, np.ndarray], dict[str, int]]:
    rng = np.random.default_rng(m + n + k)
    shapes = {"A": (k, m) if kind == "both turned" else (m, k), "B": (n, k) if kind == "turned" else (k, n)}
    if "f16" in KINDS[kind]:
        args = [rng.integers(-8, 8, shape).astype(NUMPY_TYPES[F16 if kind == "f16" else BF16]) for shape in shapes.values()]  # whose sums are exact in any order
    else:
        args = [rng.integers(-128, 128, shape).astype(np.int8) for shape in shapes.values()]
    return prepared(KINDS[kind], tuple(args), {}, {})


def build_for(sizes: dict[str, int], spec: DeviceSpec = CHIP) -> Build:
    return Build(spec=spec, backend=load_backend("cpu"), facts=Specialisation(sizes=tuple(sizes.items())))


@pytest.mark.parametrize(("kind", "shape"), CASES, ids=str)
def test_every_stage_means_the_same(kind: str, shape: tuple[int, int, int]) -> None:
    op, arguments, sizes = product(kind, *shape)
    want = evaluate_op(op, arguments, sizes)["C"]
    seen = []

    def judge(name: str, value: object, seconds: float) -> None:
        if isinstance(value, Kernel) and name in ("schedule", "tiles"):
            assert not verify(value, LOWERED if name == "tiles" else SCHEDULED), name
            got = evaluate_kernel(value, arguments, {s: sizes[s] for s in value.sizes})["C"]
            np.testing.assert_array_equal(got, want, err_msg=name)
            seen.append("fragment" in print_kernel(value))

    pipeline.lower(op, build_for(sizes), until="accepts", on_stage=judge)
    assert seen[-1], "nothing is in tiles"


def instructions(text: str) -> list[str]:
    return [line.split()[0] for line in text.splitlines() if line.startswith("\t") and not line.startswith("\t.")]


@pytest.mark.parametrize(
    ("kind", "spec", "instruction"), [("i8", CHIP, "tdpbssd"), ("narrowed", CHIP, "tdpbf16ps"), ("f16", load_chip("granite_rapids"), "tdpfp16ps")],
    ids=("i8", "bf16", "f16"),
)
def test_the_inner_loop(kind: str, spec: DeviceSpec, instruction: str) -> None:
    """Two by two tiles: four loads for four products, nothing kept in memory, and the tiles configured and released once a function."""
    op, _, sizes = product(kind, 64, 64, 512)
    text = assembly(pipeline.lower(op, build_for(sizes, spec)), spec)
    inner = [line.split()[0] for line in inner_loop(text, instruction)]
    assert inner.count(instruction) == inner.count("tileloadd") == 4 and "tilestored" not in inner
    assert not [name for name in inner if name.startswith("v")], inner
    assert text.count("tilezero") == 4 and text.count("tilestored") == 4
    functions = [instructions(body) for body in re.split(r"^tridsl\S*:.*$", text, flags=re.MULTILINE)]
    users = [f for f in functions if instruction in f]
    assert all(f.count("ldtilecfg") == f.count("tilerelease") == 1 for f in users) and sum(f.count("ldtilecfg") for f in functions) == len(users)


def test_without_an_own_tile_sums_pass_through_memory() -> None:
    """Nine tiles of sums are more than there are registers."""
    text = """C.split(j, 48).split(i, 48).split(k, 64).split(j.i, 16).split(i.i, 16).order(j.o, i.o, k.o, i.i.o, j.i.o, i.i.i, j.i.i, k.i)
  C.unroll(i.i.o).unroll(j.i.o).unroll(i.i.i).vector(j.i.i)
  A.pack(at=i.o)
  B.pack(at=i.o, interleave=4)
  C.intrin("tdpbssd")"""
    op, arguments, sizes = prepared(KINDS["i8"], (np.ones((48, 64), np.int8), np.full((64, 50), -3, np.int8)), {}, {})
    build = replace(build_for(sizes), schedule=steps_of(op, text, CHIP))
    kernel = pipeline.lower(op, build, until="accepts")
    np.testing.assert_array_equal(evaluate_kernel(kernel, arguments, {})["C"], np.full((48, 50), -192, np.int32))
    made = assembly(pipeline.lower(op, build), CHIP)
    assert made.count("tdpbssd") == 9 and "tmm3" not in made


def test_blocks_that_do_not_lie_in_rows_are_refused() -> None:
    text = """C.split(j, 16).split(i, 16).split(k, 64).order(j.o, i.o, k.o, i.i, j.i, k.i).vector(j.i)
  A.pack(at=i.o)
  B.pack(at=i.o)
  C.intrin("tdpbssd")"""
    op, _, sizes = prepared(KINDS["i8"], (np.ones((32, 64), np.int8), np.ones((64, 32), np.int8)), {}, {})
    with pytest.raises(TriError, match="E0491") as caught:
        pipeline.lower(op, replace(build_for(sizes), schedule=steps_of(op, text, CHIP)))
    assert "interleave=4" in (caught.value.diagnostics[0].help or "")


def test_a_process_that_may_not_use_tiles_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    features = frozenset({"amx-int8", "amx-tile", "avx2"})
    monkeypatch.setattr(amx, "permitted", lambda: False)
    assert amx.usable(features) == {"avx2"}
    monkeypatch.setattr(amx, "permitted", lambda: True)
    assert amx.usable(features) == features


def test_rows_that_are_loaded_where_they_are() -> None:
    """Whole blocks of the left factor need no panel."""
    op, arguments, sizes = product("narrowed", 64, 48, 128)
    steps = choose(op, CHIP, sizes, {"C.sum.pack_rows": False})
    assert [s.stage for s in steps if isinstance(s, Pack)] == ["B"]
    kernel = pipeline.lower(op, replace(build_for(sizes), schedule=steps), until="accepts")
    assert "fragment" in print_kernel(kernel)
    np.testing.assert_array_equal(evaluate_kernel(kernel, arguments, {})["C"], evaluate_op(op, arguments, sizes)["C"])
    with pytest.raises(TriError, match="E0950"):
        choose(op, CHIP, {**sizes, "M": 60}, {"C.sum.pack_rows": False})


def test_few_rows_stay_with_vectors() -> None:
    for shape in ((8, 512, 512), (512, 8, 512), (512, 512, 16)):
        op, _, sizes = product("i8", *shape)
        assert "tdp" not in pipeline.lower(op, build_for(sizes)).text, shape
