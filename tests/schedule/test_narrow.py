"""`C.sum.store(l1, type=i8)`: sums kept in the type that they are converted to; and pieces of a memory in between."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from tests.schedule.test_panels import copies, staged
from tridsl.diagnostics import TriError
from tridsl.ir.evaluate import evaluate_kernel
from tridsl.ir.loop import Alloc, Kernel
from tridsl.ir.printer import print_kernel
from tridsl.ir.walk import walk
from tridsl.passes.place_init import place_init
from tridsl.passes.register_tiles import register_tiles

PRODUCT = """op f(A: {a}[M, K], B: {a}[K, N]) -> C: {c}[M, N] {{
  s[i, j] = sum[k; acc={acc}](A[i, k] * B[k, j])
  C[i, j] = {c}(s[i, j])
}}
"""
TILED = """C.tile(i=16, j=16)
  s.at(C, j.o)
  s.split(k, 16)
  s.split(i, {m})
  s.split(j, {n})
  s.split(k.i, {k})
  s.order(k.o, i.o, j.o, k.i.o, i.i, j.i, k.i.i)
  s.intrin("{row}")
  s.store(l1{more})
"""
INTEGERS = {"row": "mmul_i8_8x8x8", "m": 8, "n": 8, "k": 8}


def product(a: str, c: str, acc: str, more: str, behind: str = "", **sizes: int) -> Kernel:
    return staged(PRODUCT.format(a=a, c=c, acc=acc), TILED.format(**INTEGERS, more=more) + behind, **sizes)


def sums(kernel: Kernel) -> list[str]:
    return [str(n.buffer.dtype) for p in kernel.phases for n in walk(p) if isinstance(n, Alloc) and n.buffer.name == "s"]


@pytest.mark.parametrize("narrow", ["i8", "i16"])
def test_integer_sums_in_the_results_type_are_exact(narrow: str) -> None:
    kernel = product("i8", narrow, "i32", f", type={narrow}", M=16, N=16, K=48)
    assert sums(kernel) == [narrow]
    random = np.random.default_rng(3)
    a, b = (random.integers(-128, 127, shape, np.int8, endpoint=True) for shape in ((16, 48), (48, 16)))
    found = evaluate_kernel(place_init(register_tiles(kernel, joining=False)), {"A": a, "B": b}, {})["C"]
    np.testing.assert_array_equal(found, (a.astype(np.int64) @ b.astype(np.int64)).astype(narrow.replace("i", "int")))


def test_float_sums_are_rounded_once_a_round() -> None:
    text = TILED.format(row="mmul_bf16_8x8x8", m=8, n=8, k=8, more=", type=bf16")
    kernel = staged(PRODUCT.format(a="bf16", c="bf16", acc="f32"), text, M=16, N=16, K=32)
    random = np.random.default_rng(3)
    a, b = (random.standard_normal(shape).astype(ml_dtypes.bfloat16) for shape in ((16, 32), (32, 16)))
    wide = [(a[:, k : k + 16].astype(np.float32) @ b[k : k + 16].astype(np.float32)) for k in (0, 16)]
    want = (wide[0].astype(ml_dtypes.bfloat16).astype(np.float32) + wide[1]).astype(ml_dtypes.bfloat16)
    found = evaluate_kernel(place_init(register_tiles(kernel, joining=False)), {"A": a, "B": b}, {})["C"]
    assert np.mean(found == want) > 0.97  # sums of 16 products in another order


@pytest.mark.parametrize(("c", "more"), [("i16", ", type=i8"), ("i32", ", type=i16")])
def test_sums_of_which_more_is_read_keep_their_type(c: str, more: str) -> None:
    with pytest.raises(TriError, match="E0467"):
        product("i8", c, "i32", more, M=16, N=16, K=16)


def test_sums_without_an_instruction_keep_their_type() -> None:
    with pytest.raises(TriError, match="E0467"):
        staged("op f(x: i32[R, N]) -> y: i8[R] {\n  s[r] = sum[n](x[r, n])\n  y[r] = i8(s[r])\n}\n", "s.at(y, r).store(l1, type=i8)", R=4, N=8)


def test_what_several_iterations_read_comes_in_one_piece() -> None:
    kernel = product("i8", "i32", "i32", "", "s.store(l1, at=k.o, buffers=2, piece=3)\n", M=16, N=16, K=48)
    found = copies(kernel)
    assert {name: copy.piece for name, copy in found.items()} == {"A.l1": 3, "B.l1": 3, "C.l1": 1}
    assert "pieces of 3" in print_kernel(kernel)


@pytest.mark.parametrize("piece", [0, 2, 5])
def test_iterations_are_whole_pieces(piece: int) -> None:
    with pytest.raises(TriError, match="E0457"):
        product("i8", "i32", "i32", "", f"s.store(l1, at=k.o, piece={piece})\n", M=16, N=16, K=48)


def test_a_memory_in_between_may_keep_a_factor() -> None:
    """What k.o reads of A is the same for every tile of columns."""
    kernel = product("i8", "i32", "i32", "", "s.store(l1, at=k.o, buffers=2, kept=A)\n", M=32, N=32, K=48)
    assert [name for name, copy in copies(kernel).items() if copy.kept] == ["A.l1"]
    assert print_kernel(kernel).count(", kept") == 1


@pytest.mark.parametrize("kept", ["B", "C", "nothing"])
def test_what_is_not_read_again_is_not_kept(kept: str) -> None:
    with pytest.raises(TriError, match="E0499"):
        product("i8", "i32", "i32", "", f"s.store(l1, at=k.o, buffers=2, kept={kept})\n", M=32, N=32, K=48)


def test_panels_in_strips_have_buffers_at_both_loops() -> None:
    """A moves with the loop of strips, B with the one around it, and the result with neither."""
    loops = TILED.format(**INTEGERS, more="").replace("k.o, i.o, j.o, k.i.o", "k.o, i.o, k.i.o, j.o")
    kernel = staged(PRODUCT.format(a="i8", c="i32", acc="i32"), loops + "s.store(l1, at=k.o, buffers=2, strips=i.o)\n", M=16, N=16, K=48)
    found = copies(kernel)
    assert {name: (copy.strips, copy.buffers) for name, copy in found.items()} == {"A.l1": (True, 2), "B.l1": (False, 2), "C.l1": (False, 1)}
    assert print_kernel(kernel).count("in strips") == 1


def test_strips_are_of_the_next_loop() -> None:
    with pytest.raises(TriError, match="E0885"):
        product("i8", "i32", "i32", "", "s.store(l1, at=k.o, buffers=2, strips=j.o)\n", M=16, N=16, K=48)
