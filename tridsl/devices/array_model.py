"""What a matrix product costs on an array of cores, from its facts: predicted, never measured here.

The equations balance three flows: multiply-adds in the cores, streams into a core's memory (one DMA channel each), and the host's memory. Two
numbers are fitted to the tables of arXiv 2512.13282 ("Striking the Balance"): the bandwidth of each chip's memory, and `PASS_CYCLES`. Those kernels
were compiled by chess; what Peano would make of ours is not known.
"""

from __future__ import annotations

from tridsl.devices.spec import ArraySpec
from tridsl.structs import dataclass

PASS_CYCLES = 0.05
"""Cycles for each element of a core's result and each pass over its panels, besides reading and writing the element: the start of the pipeline, pointers.
Fitted: with it `kernel_macs` is within 3.2% of the 24 published kernels on average, 10% at most."""
SHORT_RUN_BYTES = 414
LONG_RUN_BYTES = 448
"""Runs of contiguous bytes in the host's memory: its rate goes as run / (run + SHORT), and the fitted bandwidth was reached with runs of LONG bytes (four
panels of bf16 deep). A quarter of that gives 1.27 instead of 3.1 TOPS (arXiv 2512.13282, on XDNA1); so do 128 bytes, 10 of 47 GB/s (amd/IRON, on XDNA2)."""


KEPT_PARTS = range(1, 9)


def kept_parts(steps: int) -> int:
    """In how many equal parts a memory tile keeps `steps` panels: each is let go by itself, so that the next ones come meanwhile."""
    return max(parts for parts in KEPT_PARTS if steps % parts == 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """C[m, n] += A[m, k] B[k, n] on `columns` x `rows` cores; `tile` (m, n, k) is what one core multiplies at a time. Bytes of one element each.

    `runs`: contiguous bytes of A, B and C in the host's memory that one transfer moves; none: long ones. `kept`: B is
    read once, and kept by memory tiles for all rows of A.
    """

    m: int
    n: int
    k: int
    tile: tuple[int, int, int]
    columns: int
    rows: int
    bytes_a: float
    bytes_b: float
    bytes_c: float
    runs: tuple[float, float, float] | None = None
    kept: bool = False


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
    m, n, _k = product.tile
    a: float = product.m * product.k * product.bytes_a * _parts(product.n, n * product.columns)
    b: float = product.k * product.n * product.bytes_b * (1 if product.kept else _parts(product.m, m * product.rows))
    c: float = product.m * product.n * product.bytes_c
    if product.runs is not None:
        a, b, c = (whole * slowness(run) for whole, run in zip((a, b, c), product.runs))
    return float((a + b + c) / array.memory_bytes_per_second)


def slowness(run: float) -> float:
    """How much longer bytes take in runs of `run` of them than in long ones."""
    return max(1.0, (run + SHORT_RUN_BYTES) / run * LONG_RUN_BYTES / (LONG_RUN_BYTES + SHORT_RUN_BYTES))


def kernel_macs(array: ArraySpec, peak: float, depth: int, sum_bytes: int) -> float:
    """Multiply-adds a cycle of one core whose kernel adds `depth` products to each element of its result in memory, of `sum_bytes`: it reads two
    accesses a cycle and writes one."""
    touched = pass_cycles(array, sum_bytes)
    return 1 / (1 / peak + touched / depth)


def pass_cycles(array: ArraySpec, sum_bytes: int) -> float:
    """Cycles for one element of the result, each time that products are added to it."""
    return PASS_CYCLES + sum_bytes * (1 / (2 * array.load_bytes) + 1 / array.load_bytes)


def stream_seconds(bytes_moved: int, array: ArraySpec) -> float:
    """Elementwise operations and norms: what the host's memory has to move."""
    return bytes_moved / array.memory_bytes_per_second + array.dispatch_seconds


def peak_macs(array: ArraySpec, arithmetic: str) -> int:
    """Multiply-adds of one core in a cycle, 0 where the factors' type (or `Intrinsic.arithmetic`) has no instruction."""
    return dict(array.macs_per_cycle).get(arithmetic, 0)


def _parts(whole: int, part: int) -> int:
    return -(-whole // part)
