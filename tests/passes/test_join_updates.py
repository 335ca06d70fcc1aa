"""An update of a whole buffer is made where a sum is added to it; not where one of the two sees other elements, or other values."""

from __future__ import annotations

import numpy as np
import pytest

from tests.ir.handmade import arithmetic, const, load, reducer, tensor, var
from tests.passes.golden import body
from tridsl.dtypes import F32
from tridsl.ir.evaluate import evaluate_kernel
from tridsl.ir.expr import Expr, binary, index, minimum, mul, sub
from tridsl.ir.loop import Accumulate, For, Kernel, Phase, Prefetch, Ref, Stmt, Store
from tridsl.ir.printer import print_kernel
from tridsl.ir.walk import walk
from tridsl.passes.join_updates import join_updates

Q, E, T = 6, 10, 3
ROW = binary("add", mul(var("q.o"), index(4)), var("q.i"))
CLIPPED = minimum(index(4), sub(index(Q), mul(var("q.o"), index(4))))


def loop(name: str, extent: int | Expr, *body: Stmt, reduce: bool = False) -> For:
    return For(var=name, extent=index(extent) if isinstance(extent, int) else extent, body=body, reduce=reduce)


def place(tensor: str, *at: Expr | str) -> Ref:
    return Ref(tensor=tensor, index=tuple(var(a) if isinstance(a, str) else a for a in at))


def update(value: Expr | None = None, rows: int = Q) -> For:
    scaled = arithmetic("mul", load("C", "q", "e"), load("scale", "q"))
    return loop("q", rows, loop("e", E, Store(target=place("C", "q", "e"), value=scaled if value is None else value)))


def added(row: Expr = ROW, value: Expr | None = None, **more: object) -> Accumulate:
    product = arithmetic("mul", load("A", row), load("B", "e2"))
    values = (product if value is None else value,)
    return Accumulate(targets=(place("C", row, "e2"),), reducer=reducer("add", F32, 0), values=values, **more)  # type: ignore[arg-type]  # fields by name


def sums(statement: Stmt, extent: int | Expr = CLIPPED, count: int = 2, columns: int = E, *before: Stmt) -> For:
    return loop("q.o", count, *before, loop("q.i", extent, loop("e2", columns, statement)))


def kernel(*block: Stmt) -> Kernel:
    params = (*(tensor(name, *shape) for name, shape in (("D", (Q, E)), ("scale", (Q,)), ("A", (Q,)), ("B", (E,)))), tensor("C", Q, E, role="output"))
    first = loop("q0", Q, loop("e0", E, Store(target=place("C", "q0", "e0"), value=load("D", "q0", "e0"))))
    return Kernel(name="f", params=params, sizes=(), phases=(Phase(name="C", body=(first, *block)),))


def same(before: Kernel) -> Kernel:
    """The kernel behind the pass, which means what it meant."""
    after = join_updates(before)
    rng = np.random.default_rng(0)
    arrays = {p.name: rng.standard_normal([int(n.value) for n in p.shape]).astype(np.float32) for p in before.params if p.name != "C"}  # type: ignore[union-attr]  # sizes of tests are constants
    want, got = (evaluate_kernel(k, arrays, {})["C"] for k in (before, after))
    np.testing.assert_array_equal(got, want)
    return after


def test_a_clipped_tile_takes_the_update() -> None:
    hint = Prefetch(tensor="C", index=(var("q.o"), index(0)))
    after = same(kernel(update(), sums(added(), CLIPPED, 2, E, hint)))
    text = print_kernel(after)
    assert "= C[q.o*4 + q.i, e2] * scale[q.o*4 + q.i] + A[q.o*4 + q.i] * B[e2]" in text, text
    assert not any(isinstance(n, Accumulate) for n in walk(after.phases[0])) and len(after.phases[0].body) == 2


MORE = load("C", binary("mod", binary("add", ROW, index(1)), index(Q)), "e2")


@pytest.mark.parametrize(
    "block",
    [
        (update(rows=Q - 1), sums(added())),  # of some rows only
        (update(), sums(added(), columns=E - 1)),
        (update(), sums(added(), CLIPPED, 1)),
        (update(), sums(added(row=var("q.o")), 4, Q)),  # each is added to four times
        (update(), sums(added(row=binary("add", var("q.o"), var("q.i"))), 2, Q - 1)),
        (update(), sums(added(value=MORE))),  # reads what others have updated
        (update(), sums(added(mask=binary("lt", var("e2"), index(3))))),
        (update(arithmetic("mul", load("C", binary("sub", index(Q - 1), var("q")), "e"), const(2))), sums(added())),
        (update(load("scale", "q")), sums(added())),  # no update: it starts anew
        (update(), loop("x", 1), sums(added())),
        (update(), loop("t", T, sums(added()), reduce=True)),
    ],
)  # fmt: skip
def test_where_it_stays(block: tuple[For, ...]) -> None:
    before = kernel(*block)
    assert join_updates(before) == before


def test_what_the_update_reads_is_made_beside_the_sum() -> None:
    spoils = Store(target=place("scale", "q.o"), value=const(2))
    before = kernel(update(), sums(added(), CLIPPED, 2, E, spoils))
    assert join_updates(before) == before


MONOID = """monoid wsum(s: f32, v: f32) -> f32 {
  state m: f32 = lowest, l: f32 = 0, o: f32 = 0
  lift {
    m = max(s, lowest)
    l = exp(s - m)
    o = l * v
  }
  merge a, b {
    m = max(a.m, b.m)
    l = a.l * exp(a.m - m) + b.l * exp(b.m - m)
    o = a.o * exp(a.m - m) + b.o * exp(b.m - m)
  }
  result o / l
}
op f(w: f32[Q, T], V: f32[T, E]) -> O: f32[Q, E] {
  O[q, e] = wsum[t](w[q, t], V[t, e])
}
"""


def test_the_sums_of_a_block_are_rescaled_where_they_are_added() -> None:
    tiles = "O.wsum.block(t, 4)\n O.wsum.o.split(q, 4).order(q.o, t.i, q.i, e).unroll(q.i).vector(e)"
    text = body("join_updates", MONOID, tiles, sizes={"Q": 10, "E": 16})
    assert "O.o[q.i.add + q.o*4, e.add] = O.o[q.i.add + q.o*4, e.add] * O.wsum.scale[q.i.add + q.o*4] + O.wsum.o:acc.sum[q.i.add, e.add]" in text, text
    assert text.count("* O.wsum.scale[") == 2  # this one, and the sum of the weights

