"""Memory that kernels borrow stays with the process, belongs to one call at a time, and is the heap's where it does not suffice."""

from __future__ import annotations

import ctypes
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from tridsl import stdlib
from tridsl.backends.cpu import scratch


def words(table: int, count: int) -> list[int]:
    return list((ctypes.c_uint64 * count).from_address(table))


def test_table() -> None:
    made = scratch.make(3, 1 << 21)
    found = words(made.table, 4 * scratch.LINE // 8)
    blocks = [found[(1 + n) * scratch.LINE // 8 + 1] for n in range(3)]
    assert found[:2] == [3, 1 << 21]
    assert all(b % scratch.HUGE_PAGE == 0 for b in blocks) and blocks == [blocks[0] + (n << 21) for n in range(3)]
    ctypes.memset(blocks[2], 7, 1 << 21)  # the last byte is there


def test_no_space() -> None:
    """An empty table sends every kernel to the heap."""
    assert words(scratch.make(1, 1 << 62).table, 2) == [0, 0]


def test_only_its_name() -> None:
    assert scratch.resolve("free") is None
    assert scratch.resolve(scratch.SYMBOL) == scratch.resolve(scratch.SYMBOL)


def test_calls_at_the_same_time_and_after_each_other() -> None:
    """More calls at once than there are blocks; all are given back."""
    rng = np.random.default_rng(0)
    a, b = (rng.integers(-9, 9, (256, 256)).astype(np.float32) for _ in range(2))
    want = a @ b
    with ThreadPoolExecutor(16) as pool:
        results = list(pool.map(lambda _: stdlib.matmul(a, b, threads=1), range(64)))
    assert all(np.array_equal(want, r) for r in results)
    table = scratch.resolve(scratch.SYMBOL)
    assert table is not None
    count = words(table, 1)[0]
    taken = words(table, (1 + count) * scratch.LINE // 8)[scratch.LINE // 8 :: scratch.LINE // 8]
    assert not any(taken)
