"""Hints of where data goes: stores around the caches and prefetches never change a result."""

from __future__ import annotations

import numpy as np
import pytest

import tridsl

TEXT = """op scale(x: f32[R, N], a: f32) -> y: f32[R, N] {
  y[r, n] = x[r, n] * a
}
schedule scale for cpu {
  y.parallel(r).vector(n).store(stream)
}
"""


@pytest.mark.parametrize("offset", [0, 1, 3, 4, 16])
@pytest.mark.parametrize("columns", [1, 7, 64, 100, 257])
@pytest.mark.parametrize("threads", [1, 2])
def test_any_alignment(offset: int, columns: int, threads: int) -> None:
    ops = tridsl.compile(TEXT)
    x = np.random.default_rng(0).standard_normal((5, columns)).astype(np.float32)
    memory = np.full(5 * columns + 64, -7, np.float32)
    y = memory[offset : offset + 5 * columns].reshape(5, columns)
    ops.scale(x, 2.0, out=y, threads=threads)
    np.testing.assert_array_equal(y, x * np.float32(2))
    assert (memory[:offset] == -7).all() and (memory[offset + 5 * columns :] == -7).all()


def test_lowered_text_shows_it() -> None:
    ops = tridsl.compile(TEXT)
    x = np.zeros((4, 32), np.float32)
    assert "nontemporal" in ops.scale.lower(x, 2.0, device="cpu", until="emit")
    assert "stream" in ops.scale.lower(x, 2.0, device="cpu", until="schedule")


PREFETCHING = """op center(x: f32[R, N]) -> y: f32[R, N] {
  s[r] = sum[k](x[r, k])
  y[r, n] = x[r, n] - s[r]
}
schedule center for cpu {
  s.at(y, r).vector(k)
  y.parallel(r).vector(n)
  x.pipeline(2, at=r, reader=y)
}
"""


@pytest.mark.parametrize("shape", [(1, 1), (3, 257), (7, 64)])
def test_prefetch_changes_nothing(shape: tuple[int, int]) -> None:
    ops = tridsl.compile(PREFETCHING)
    x = np.random.default_rng(0).integers(-9, 9, shape).astype(np.float32)
    np.testing.assert_array_equal(ops.center(x), x - x.sum(axis=1, keepdims=True))
    assert "r + 2, n]" in ops.center.lower(x, device="cpu", until="schedule")
    assert "llvm.prefetch" in ops.center.lower(x, device="cpu", until="emit") or shape == (1, 1)
