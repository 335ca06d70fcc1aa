"""Stores around the caches give the same bytes as ordinary ones, wherever the array starts."""

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
