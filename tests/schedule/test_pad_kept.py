"""`s.pad(q, 16, kept=true)`: what lies beyond the end is made, too, for readers of whole tiles."""

from __future__ import annotations

import pytest

from tests.schedule.test_lines import same, scheduled
from tridsl.diagnostics import TriError

CHAIN = "op f(x: f32[N], z: f32[N]) -> y: f32[N] {\n  t[i] = 2 * x[i] + z[i]\n  u[i] = t[i] * t[i]\n  y[i] = u[i] + 1\n}\n"
SUMS = "op f(A: f32[M, K], b: f32[K]) -> y: f32[M] {\n  s[i] = sum[k](A[i, k] * b[k])\n  y[i] = s[i] + 1\n}\n"


@pytest.mark.parametrize("length", [1, 4, 5, 23])
def test_a_chain_of_padded_stages(length: int) -> None:
    kernel = same(CHAIN, "t.pad(i, 4, kept=true)\n  u.pad(i, 4, kept=true)", N=length)
    assert {str(b.shape[0]) for b in kernel.scratch if b.name in "tu"} <= {str(kernel.scratch[0].shape[0])}


@pytest.mark.parametrize("rows", [3, 8, 9])
def test_sums_have_their_own_rows_beyond_the_end(rows: int) -> None:
    same(SUMS, "s.pad(i, 8, kept=true).split(i, 8)", M=rows, K=7)


@pytest.mark.parametrize("length", [3, 16, 17])
def test_indices_beyond_the_end_are_nobodys_mistake(length: int) -> None:
    """A check says that row and column are inside; a buffer of each point's own is made for the points that there are."""
    same("op f(x: i32[N, N], r: i32[N]) -> y: i32[N, N] {\n  t[i, j] = x[r[i] % i32(N), j]\n  y[i, j] = t[j, i] * 2\n}\n",
         "t.pad(i, 16, kept=true).pad(j, 8, kept=true)", N=length)  # fmt: skip
    same("op f(x: i32[N, N]) -> y: i32[N, N] {\n  t[i, j] = x[i, j] * 2\n  s[i in 0..N] = sum[j in 0..N](t[i, j - 1; pad=wrap])\n  y[i, j] = s[i] + x[i, j]\n}\n",
         "t.at(s, i)\n s.pad(i, 16, kept=true)", N=length)  # fmt: skip


FOUND = """monoid compose(p: i32, q: i32) -> i32 {
  state a: i32 = 1, c: i32 = 0
  lift { a = p
    c = q }
  merge x, y { a = x.a * y.a
    c = x.c * y.a + y.c }
  result c
}
op f(x: i32[N]) -> y: i32[N, N] {
  y[i, j] = compose[k in 0..N](x[j], x[i] + x[k])
}
"""
"""A state that has an axis of its own, whose first values are in a loop of their own."""


@pytest.mark.parametrize(
    ("op", "directives", "why"),
    [
        (FOUND, "y.compose.pad(i, 5, kept=true)", "begins in another loop"),
        (CHAIN, "y.pad(i, 4, kept=true)", "`y` is a result"),
        (CHAIN, "u.pad(i, 4, kept=true)", "`t`, which it reads, has nothing beyond the end"),
        (SUMS, "s.pad(k, 4, kept=true)", "no loop over points"),
    ],
)
def test_what_has_nothing_to_keep(op: str, directives: str, why: str) -> None:
    with pytest.raises(TriError, match=f"E0450.*{why}"):
        scheduled(op, directives, **({"M": 9, "K": 7} if op is SUMS else {"N": 23}))
