"""Monoids some of whose states vary over fewer axes than others, under the automatic schedule."""

from __future__ import annotations

import numpy as np
import pytest

import tridsl

SOFTMEAN = """monoid softmean(s: f32, v: f32) -> f32 {
  state m: f32 = lowest, l: f32 = 0, o: f32 = 0
  lift {
    m = s
    l = 1
    o = v
  }
  merge x, y {
    m = max(x.m, y.m)
    l = x.l * exp(x.m - m) + y.l * exp(y.m - m)
    o = x.o * exp(x.m - m) + y.o * exp(y.m - m)
  }
  result if l == 0 then 0 else o / l
}
op mean(s: f32[N], v: f32[M, N]) -> y: f32[M] {
  y[i] = softmean[n](s[n], v[i, n])
}
"""


@pytest.mark.parametrize(("rows", "columns"), [(3, 5), (300, 2000), (0, 3), (3, 0)])
def test_states_over_fewer_axes(rows: int, columns: int) -> None:
    """Large enough for threads: the outermost axis is not one of every state."""
    random = np.random.default_rng(0)
    op = tridsl.compile(SOFTMEAN).mean
    scores = random.standard_normal(columns).astype(np.float32)
    values = random.standard_normal((rows, columns)).astype(np.float32)
    np.testing.assert_allclose(op(scores, values, device="cpu"), op.reference(scores, values), rtol=1e-3, atol=1e-4)
