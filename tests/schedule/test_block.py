"""A monoid merged a block at a time means what it means element by element, and only what can be is."""

from __future__ import annotations

import importlib.util
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from tridsl.diagnostics import TriError
from tridsl.ir.evaluate import evaluate_kernel, evaluate_op
from tridsl.ir.loop import For
from tridsl.ir.printer import print_kernel
from tridsl.ir.walk import walk
from tridsl.structs import replace

_spec = importlib.util.spec_from_file_location("schedule_programs", Path(__file__).with_name("programs.py"))
assert _spec and _spec.loader
programs = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(programs)

MONOID = """monoid wsum(s: f32, v: f32) -> f32 {{
  state m: f32 = {start}, l: f32 = 0, o: f32 = 0
  lift {{
    {lift}
  }}
  merge a, b {{
    m = {op}(a.m, b.m)
    l = {l}
    o = a.o * {f}(a.m - m) + b.o * {f}(b.m - m)
  }}
  result if l == 0 then 0 else o / l
}}
"""
CLAMPED = "m = max(s, lowest)\n    l = exp(s - m)\n    o = l * v"
MERGED = "a.l * exp(a.m - m) + b.l * exp(b.m - m)"
SOFTMAX = MONOID.format(start="lowest", lift=CLAMPED, op="max", l=MERGED, f="exp")
PLAIN = MONOID.format(start="lowest", lift="m = s\n    l = 1\n    o = v", op="max", l="exp(b.m - m) * b.l + exp(a.m - m) * a.l", f="exp")
HALF = MONOID.format(start="lowest", lift="m = max(s, lowest)\n    l = 2\n    o = exp2(s - m) * v", op="max", l=MERGED.replace("exp", "exp2"), f="exp2")
LEAST = MONOID.format(start="highest", lift="m = min(s, highest)\n    l = exp(m - s)\n    o = l * v", op="min", l=MERGED, f="exp")
ROWS = """op rows(w: f32[H, Q, T], V: f32[H, T, E]) -> O: f32[H, Q, E] {
  O[h, q, e] = wsum[t](w[h, q, t], V[h, t, e])
}
"""
ONE = """op one(w: f32[T], V: f32[T, E]) -> O: f32[E] {
  O[e] = wsum[t](w[t], V[t, e])
}
"""
CAUSAL = """op causal(x: f32[Q, T], V: f32[T, E]) -> O: f32[Q, E] {
  w[q, t] = if t > q + (T - Q) then -inf else x[q, t]
  O[q, e] = wsum[t](w[q, t], V[t, e])
}
"""
SHAPES = [
    "O.wsum.block(t, 4)",
    "O.split(q, 3)\n O.wsum.at(O, q.o)\n O.wsum.block(t, 4)",
    "O.wsum.at(O, h)\n O.wsum.block(t, 4)\n O.wsum.weight.layout(t, q).order(t.i, q).vector(q)\n O.wsum.key.order(t.i, q).vector(q)\n O.wsum.scale.vector(q)",
    "O.wsum.at(O, q)\n O.wsum.block(t, 4)\n O.wsum.key.vector(t.i)\n O.wsum.weight.vector(t.i)\n O.wsum.o.scale.vector(e)\n O.wsum.o.order(h, q, t.i, e).vector(e)",
    "O.wsum.at(O, h)\n O.wsum.block(t, 4)\n O.wsum.o.split(q, 2).split(e, 4).order(h, e.o, q.o, t.i, q.i, e.i).unroll(q.i).vector(e.i)",
    "O.wsum.parts(t, 5)",
    "O.wsum.parts(t, 5)\n O.wsum.part.block(t.i, 2, at=t.o)",
    "O.wsum.parts(t, 6)\n O.wsum.part.order(h, t.o, q).block(t.i, 4, at=t.o).fuse(h, t.o).parallel(h.t.o)\n O.wsum.part.weight.vector(t.i.i)\n O.wsum.vector(e)",
]
SIZES = [{"H": 2, "Q": 5, "T": 11, "E": 3}, {"H": 1, "Q": 1, "T": 1, "E": 1}, {"H": 2, "Q": 4, "T": 8, "E": 4}, {"H": 1, "Q": 3, "T": 0, "E": 2}]


@pytest.mark.parametrize("directives", SHAPES)
@pytest.mark.parametrize("monoid", [SOFTMAX, PLAIN, HALF], ids=["clamped", "plain", "exp2"])
def test_means_what_it_meant(monoid: str, directives: str) -> None:
    op = programs.op_of(monoid + ROWS)
    for sizes in SIZES if monoid == SOFTMAX else SIZES[:2]:
        programs.check_same(op, programs.steps_of(op, directives), sizes)


def test_states_of_unknown_sizes_are_as_large_as_the_part_that_is_computed() -> None:
    """Two reads of one state in a loop that may be empty are no two such loops."""
    op = programs.op_of(SOFTMAX + ROWS)
    text = print_kernel(programs.scheduled(op, programs.steps_of(op, "O.split(q, 3)\n O.wsum.at(O, q.o)")))
    assert "alloc O.l: f32[1, 3] in l1" in text and "alloc O.o: f32[1, 3, E] in l1" in text


def test_hidden_keys_of_a_part() -> None:
    """Parts that a row does not see at all, and parts that it sees in part."""
    op = programs.op_of(SOFTMAX + CAUSAL)
    for queries, keys in ((7, 7), (4, 11), (11, 4)):
        for directives in ("O.wsum.parts(t, 3)", "w.inline()\n O.wsum.parts(t, 3)\n O.wsum.part.order(t.o, q).block(t.i, 2, at=t.o)"):
            programs.check_same(op, programs.steps_of(op, directives), {"Q": queries, "T": keys, "E": 2})


def test_without_shared_axes_and_with_a_running_minimum() -> None:
    op = programs.op_of(SOFTMAX + ONE)
    programs.check_same(op, programs.steps_of(op, "O.wsum.block(t, 4)\n O.wsum.weight.vector(t.i)"), {"T": 9, "E": 3})
    op = programs.op_of(LEAST.replace("a.m - m", "m - a.m").replace("b.m - m", "m - b.m") + ROWS)
    with pytest.raises(TriError, match="E0428"):  # f(a, b) is read as exp(a - b)
        programs.scheduled(op, programs.steps_of(op, "O.wsum.block(t, 4)"))


SPECIAL = (0.0, 1.0, -3.0, np.inf, -np.inf, np.nan, 3e38, -3e38)


@pytest.mark.parametrize("monoid", [SOFTMAX, PLAIN], ids=["clamped", "plain"])
def test_infinities_and_nan(monoid: str) -> None:
    """Every triple of special scores, as a block and a half."""
    op = programs.op_of(monoid + ROWS)
    kinds = [x for x in SPECIAL if monoid == SOFTMAX or x != -np.inf]  # to the plain one `lowest` is not neutral there
    scores = np.array(list(product(kinds, repeat=3)), np.float32)
    sizes = {"H": 1, "Q": len(scores), "T": 3, "E": 1}
    given = {"w": scores[None], "V": np.array([1.0, 2.0, 4.0], np.float32).reshape(1, 3, 1)}
    with np.errstate(all="ignore"):
        want = evaluate_op(op, given, sizes)["O"]
        for directives in ("O.wsum.parts(t, 2)", "O.wsum.block(t, 2)", "O.wsum.at(O, h)\n O.wsum.block(t, 2)\n O.wsum.weight.order(t.i, q).vector(q)"):
            got = evaluate_kernel(programs.scheduled(op, programs.steps_of(op, directives), sizes), given, sizes)["O"]
            np.testing.assert_allclose(got, want, rtol=1e-6)


@pytest.mark.parametrize(("queries", "keys"), [(7, 7), (4, 11), (11, 4), (1, 9)])
def test_hidden_blocks_are_not_visited(queries: int, keys: int) -> None:
    op = programs.op_of(SOFTMAX + CAUSAL)
    sizes = {"Q": queries, "T": keys, "E": 2}
    for rows, elements in product((2, 4), (2, 3)):
        directives = f"w.inline()\n O.split(q, {rows})\n O.wsum.at(O, q.o)\n O.wsum.block(t, {elements})"
        programs.check_same(op, programs.steps_of(op, directives), sizes)
    kernel = programs.scheduled(op, programs.steps_of(op, "w.inline()\n O.split(q, 2)\n O.wsum.at(O, q.o)\n O.wsum.block(t, 2)"), {"Q": 8, "T": 8, "E": 2})
    blocks = next(n for p in kernel.phases for n in walk(p) if isinstance(n, For) and n.var == "O.wsum:t.o")
    given = {"x": np.ones((8, 8), np.float32), "V": np.ones((8, 2), np.float32)}
    given["V"][7] = np.nan  # only the last query sees it
    assert blocks.bound == 4 and not np.isnan(evaluate_kernel(kernel, given, {"Q": 8, "T": 8, "E": 2})["O"][:6]).any()


@pytest.mark.parametrize(
    ("condition", "visited"),
    [("t >= q + 1", 2), ("q + 1 <= t", 2), ("not (t <= q)", 2), ("t > q or x[q, t] > 9", 2), ("t > q and x[q, t] > 9", 4), ("t < q", 4), ("t // 2 > q", 4)],
)
def test_what_hides_a_block(condition: str, visited: int) -> None:
    """Rows 2 and 3 of eight keys: how many blocks of two are walked."""
    text = CAUSAL.replace("t > q + (T - Q)", condition)
    op = programs.op_of(SOFTMAX + text)
    steps = programs.steps_of(op, "w.inline()\n O.split(q, 2)\n O.wsum.at(O, q.o)\n O.wsum.block(t, 2)")
    programs.check_same(op, steps, {"Q": 4, "T": 8, "E": 2})
    kernel = programs.scheduled(op, steps, {"Q": 4, "T": 8, "E": 2})
    x = np.ones((4, 8), np.float32)
    touched = np.full((8, 2), np.nan, np.float32)
    touched[: visited * 2] = 1
    got = evaluate_kernel(kernel, {"x": x, "V": touched}, {"Q": 4, "T": 8, "E": 2})["O"]
    assert not np.isnan(got[2:]).any() or visited == 4


MEAN = """monoid mean(v: f32) -> f32 {
  state n: f32 = 0, s: f32 = 0
  lift {
    n = 1
    s = v
  }
  merge a, b {
    n = a.n + b.n
    s = a.s + b.s
  }
  result s / n
}
op f(V: f32[T, E]) -> O: f32[E] {
  O[e] = mean[t](V[t, e])
}
"""
UNSCALED = MONOID.format(start="lowest", lift=CLAMPED, op="max", l="a.l + b.l * exp(b.m - m)", f="exp")
SWAPPED = MONOID.format(start="lowest", lift=CLAMPED, op="max", l="a.l * exp(m - a.m) + b.l * exp(m - b.m)", f="exp")
MIXED = MONOID.format(start="lowest", lift=CLAMPED, op="max", l=MERGED, f="exp2")
ILLEGAL = [
    (MEAN, "O.mean.block(t, 4)", "E0428"),
    (UNSCALED + ROWS, "O.wsum.block(t, 4)", "E0428"),
    (SWAPPED + ROWS, "O.wsum.block(t, 4)", "E0428"),
    (MIXED + ROWS, "O.wsum.block(t, 4)", "E0428"),
    (SOFTMAX + ROWS, "O.wsum.block(q, 4)", "E0428"),
    (programs.MATMUL, "C.block(k, 4)", "E0428"),
    (SOFTMAX + ROWS, "O.wsum.block(t, 0)", "E0403"),
    (SOFTMAX + ROWS, "O.wsum.block(x, 4)", "E0402"),
    (SOFTMAX + ROWS, "P.block(t, 4)", "E0401"),
    (SOFTMAX + ROWS, "O.wsum.block(t)", "E0435"),
    (SOFTMAX + ROWS, "O.wsum.split(t, 8).block(t.i, 4)", "E0428"),
    (SOFTMAX + ROWS, "O.wsum.parallel(h).block(t, 4)", "E0411"),
    (SOFTMAX + ROWS, "O.wsum.block(t, 4, at=t)", "E0411"),
    (SOFTMAX + ROWS, "O.wsum.parts(t, 5)\n O.wsum.part.block(t.i, 2)", "E0411"),
    (SOFTMAX + ROWS, "O.wsum.block(t, 4, at=x)", "E0402"),
    (SOFTMAX + ROWS, "O.wsum.block(t, 4, by=h)", "E0435"),
    (MEAN, "O.mean.parts(t, 4).parts(t.o, 2)", "E0424"),
    (UNSCALED + ROWS, "O.wsum.parts(t, 4)", "E0424"),
    (SOFTMAX + ROWS, "O.wsum.parts(q, 4)", "E0424"),
    (SOFTMAX + ROWS, "O.wsum.split(e, 3).parts(t, 4)", "E0424"),
    (SOFTMAX + ROWS, "O.wsum.split(e, 3).parts(t, 4, into=block)", "E0424"),
    (SOFTMAX + ROWS, "O.wsum.block(t, 4).parts(t.o, 4)", "E0424"),
    (SOFTMAX + ROWS, "O.wsum.block(t, 4)\n O.wsum.at(O, h)", "E0411"),
    (SOFTMAX + ROWS, "O.wsum.block(t, 4).parallel(t.o)", "E0408"),
    (SOFTMAX + ROWS, "O.wsum.block(t, 4)\n O.wsum.scale.at(O.wsum, t.o)", "E0410"),
    (SOFTMAX + ROWS, "O.layout(e, q)", "E0417"),
    (SOFTMAX + ROWS, "w.layout(t, q)", "E0417"),
    (SOFTMAX + ROWS, "P.layout(t, q)", "E0401"),
    (SOFTMAX + CAUSAL, "w.layout(t, e)", "E0402"),
    (SOFTMAX + CAUSAL, "w.layout(t, t)", "E0402"),
    (SOFTMAX + CAUSAL, "w.layout()", "E0435"),
]


@pytest.mark.parametrize(("text", "directives", "code"), ILLEGAL, ids=[f"{c} {d.splitlines()[-1]}" for _, d, c in ILLEGAL])
def test_illegal(text: str, directives: str, code: str) -> None:
    op = programs.op_of(text)
    with pytest.raises(TriError) as caught:
        programs.scheduled(op, programs.steps_of(op, directives))
    assert caught.value.code == code
    first = caught.value.diagnostics[0]
    assert first.span is not None and first.help


@pytest.mark.parametrize("directives", ["w.layout(t, q)", "w.layout(q, t)", "w.layout(q)", "w.split(t, 3).layout(t, q)", "w.at(O, q)\n w.layout(t, q)"])
def test_layout_changes_no_value(directives: str) -> None:
    op = programs.op_of(SOFTMAX + CAUSAL)
    if ".at" in directives:
        directives = f"O.wsum.at(O, q)\n {directives}"
    programs.check_same(op, programs.steps_of(op, directives), {"Q": 5, "T": 7, "E": 2})


PRODUCT = """op product(A: {t}[M, K], B: bf16[K, N]) -> C: f32[M, N] {{
  C[i, j] = sum[k](f32(A[i, k]) * f32(B[k, j]))
}}
"""
TILE = "C.tile(i=4, j=8).split(k, 4).order(i.o, j.o, k.o, k.i, i.i, j.i)"


@pytest.mark.parametrize("directives", [f"{TILE}\n A.pack(at=k.o, type=bf16)", f"{TILE}\n B.pack(at=k.o, type=f32)"])
def test_panels_in_another_type(directives: str) -> None:
    """Small integers, which bf16 holds."""
    op = programs.op_of(PRODUCT.format(t="f32"))
    for sizes in ({"M": 5, "K": 6, "N": 9}, {"M": 8, "K": 4, "N": 16}):
        programs.check_same(op, programs.steps_of(op, directives), sizes)


@pytest.mark.parametrize(
    ("text", "directives", "code"),
    [
        (programs.MATMUL, f"{TILE}\n A.pack(at=k.o, type=bf16)", "E0429"),
        (PRODUCT.format(t="f32").replace(") * f32(B", ") + f32(B"), f"{TILE}\n A.pack(at=k.o, type=bf16)", "E0429"),
        (programs.MATMUL, f"{TILE}\n A.pack(at=k.o, type=i8)", "E0429"),
        (programs.MATMUL, f"{TILE}\n A.pack(at=k.o, type=7)", "E0435"),
        (programs.SOFTMAX, "e.at(y, r)\n m.at(y, r)\n y.sum.at(y, r)\n e.pack(at=r, reader=y)", "E0412"),
    ],
)
def test_panels_that_may_not_be(text: str, directives: str, code: str) -> None:
    op = programs.op_of(text)
    with pytest.raises(TriError) as caught:
        programs.scheduled(op, programs.steps_of(op, directives))
    assert caught.value.code == code


@pytest.mark.parametrize(("result", "masks", "reducer"), [("o / l", True, "max_number="), ("o / l + 0 * m", True, "max="), ("o / l", False, "max=")])
def test_a_key_that_nobody_else_reads_need_not_carry_a_nan(result: str, masks: bool, reducer: str) -> None:
    """Every sum is NaN then, and so is every result."""
    text = SOFTMAX.replace("if l == 0 then 0 else o / l", result) + ONE
    op = programs.op_of(text)
    kernel = programs.scheduled(op, programs.steps_of(op, "O.wsum.block(t, 4)"), spec=replace(programs.CPU, has_masks=masks))
    assert f"O.wsum.key[] {reducer}" in print_kernel(kernel)
