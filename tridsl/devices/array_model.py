"""What a matrix product costs on an array of cores, from its facts: predicted, never measured here.

The equations balance three flows: multiply-adds in the cores, streams into a core's memory (one DMA channel each), and the host's memory. The
bandwidth is one number a chip, fitted to the tables of arXiv 2512.13282; what a kernel reaches of the cores' peak is an input.
"""

from __future__ import annotations

from tridsl.devices.spec import ArraySpec
from tridsl.structs import dataclass

EFFICIENCY = 0.75
"""Of the peak, what compiled kernels reach in published tables where nothing better is known (0.75 to 0.91 for chess, half to two thirds for Peano)."""
SHORT_RUN_BYTES = 474
"""Contiguous bytes at which the host's memory gives half of its rate: runs of 128 bytes reach 10 of 47 GB/s (amd/IRON, on XDNA2)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """C[m, n] += A[m, k] B[k, n] on `columns` x `rows` cores; `tile` (m, n, k) is what one core multiplies at a time. Bytes of one element each.

    `by_tiles`: the host's memory is read in rows of tiles, k elements of A and n of B at a time; else in long runs.
    """

    m: int
    n: int
    k: int
    tile: tuple[int, int, int]
    columns: int
    rows: int
    bytes_a: int
    bytes_b: int
    bytes_c: int
    by_tiles: bool = False


def seconds(product: Product, array: ArraySpec, macs_per_cycle: float, *, single: bool = True) -> float:
    """Predicted time of one call. `macs_per_cycle`: of one core running the kernel; `single`: C has one buffer, so that writing it out is not hidden."""
    return max(compute_seconds(product, array, macs_per_cycle, single=single), memory_seconds(product, array)) + array.dispatch_seconds


def compute_seconds(product: Product, array: ArraySpec, macs_per_cycle: float, *, single: bool = True) -> float:
    """Time of the cores, or of the streams that feed them where those are slower."""
    m, n, k = product.tile
    multiply = m * n * k / macs_per_cycle
    feed = max(m * k * product.bytes_a, k * n * product.bytes_b) / array.stream_bytes_per_cycle
    drain = m * n * product.bytes_c / array.stream_bytes_per_cycle if single else 0.0
    tiles = _parts(product.m, m * product.rows) * _parts(product.n, n * product.columns)
    return float(tiles * (_parts(product.k, k) * max(multiply, feed) + drain) / array.clock_hz)


def memory_seconds(product: Product, array: ArraySpec) -> float:
    """Time of the host's memory: A is read once for each tile column of the array, B once for each tile row."""
    m, n, k = product.tile
    a: float = product.m * product.k * product.bytes_a * _parts(product.n, n * product.columns)
    b: float = product.k * product.n * product.bytes_b * _parts(product.m, m * product.rows)
    c: float = product.m * product.n * product.bytes_c
    if product.by_tiles:
        a, b, c = (_slowed(whole, run) for whole, run in ((a, k * product.bytes_a), (b, n * product.bytes_b), (c, n * product.bytes_c)))
    return float((a + b + c) / array.memory_bytes_per_second)


def _slowed(whole: float, run: int) -> float:
    """Bytes that could be moved in the time that `whole` bytes take in runs of `run` bytes."""
    return whole * (run + SHORT_RUN_BYTES) / run


def stream_seconds(bytes_moved: int, array: ArraySpec) -> float:
    """Elementwise operations and norms: what the host's memory has to move."""
    return bytes_moved / array.memory_bytes_per_second + array.dispatch_seconds


def peak_macs(array: ArraySpec, dtype: str) -> int:
    """Multiply-adds of one core in a cycle, 0 where the factors' type has no instruction."""
    return dict(array.macs_per_cycle).get(dtype, 0)


def _parts(whole: int, part: int) -> int:
    return -(-whole // part)
