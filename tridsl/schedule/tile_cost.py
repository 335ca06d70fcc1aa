"""The tiles of a product on an array of cores: what fits a core and a memory tile, and what is fastest by `devices.array_model`."""

from __future__ import annotations

from math import ceil

from tridsl.devices.array_model import Product, kept_parts, kernel_macs, peak_macs, seconds
from tridsl.devices.intrinsics import Intrinsic
from tridsl.devices.spec import ArraySpec
from tridsl.dtypes import DType
from tridsl.ir.packings import BYTES, ROWS, Packing
from tridsl.schedule.weights_npu import columns_of
from tridsl.structs import dataclass

EXPANSION = 2
"""Blocks of the result along each side that a core's accumulators hold: each loaded block of a factor is used twice."""
STRIPS = (1, 2, 3)
"""Times as many rows as the accumulators hold that a strip may have: the most for few calls of the kernel, which yet take little memory."""
BANK_SPARE = 8
"""Descriptors of a memory tile that stay unused where long chains have to be divided between its two halves."""
DECODING_CYCLES = 0.08
"""Of a core for each packed weight: of two bits each, 128 take two loads, six operations, two exchanges and two stores."""
PIECES = range(1, 9)
"""Panels of a core, one behind another along K, that a memory tile can be given in one piece: longer runs in the host's memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TileCost:
    """What tiles of one product cost: `result` is the type of its elements, `sums` that of the sums that a core keeps between panels, `deep` whether
    A and B are contiguous along the sum, `beside` what else the result takes of a core's memory: bytes a row, a column, an element, and by itself;
    `riders`: how many tensors of it come along with A and with B; `packing`: of B; `across`: every core has columns of its own;
    `kept`: the memory tile of a column keeps all of K of B for all tiles of rows, so that the host sends it once; `strips`: a core
    takes A in strips."""

    row: Intrinsic
    array: ArraySpec
    extents: tuple[int, int, int]
    columns: int
    result: DType
    sums: DType
    deep: tuple[bool, bool] = (True, False)
    beside: tuple[int, int, int, int] = (0, 0, 0, 0)
    riders: tuple[int, int] = (0, 0)
    packing: Packing | None = None
    across: bool = False
    kept: bool = False
    strips: bool = False

    def strip(self, m: int) -> int:
        """Times the rows that the accumulators hold which a strip of `m` rows has: equal strips, two or more; 0 where there are none."""
        blocks = m // (EXPANSION * self.row.m)
        return max((q for q in STRIPS if blocks % q == 0 and blocks > q), default=0) if self.strips else 0

    @property
    def grid(self) -> tuple[int, int]:
        """Cores along the result's columns and rows."""
        return (self.columns * self.array.rows, 1) if self.across else (self.columns, self.array.rows)

    @property
    def unit(self) -> int:
        """Panels are as many columns deep, or several times as many."""
        return self.row.k if self.packing is None else columns_of(self.packing, self.row)

    @property
    def bytes_b(self) -> float:
        """Of one element of B as it travels."""
        if self.packing is None:
            return self.row.b.storage_bytes
        return self.packing.planes * BYTES / self.packing.columns

    def fits(self, m: int, n: int, k: int) -> bool:
        """Whether a core holds two panels of each factor and the result, which shares its memory with the sums."""
        room = self.array.core_memory_bytes - self.array.core_stack_bytes
        row, column, element, fixed = self.beside
        wide = max(self.result.storage_bytes, self.sums.storage_bytes)
        decoded = k * n * self.row.b.storage_bytes if self.packing is not None else 0
        rows = self.strip(m) * EXPANSION * self.row.m or m
        size = 2 * (rows * k * self.row.a.storage_bytes + ceil(k * n * self.bytes_b)) + decoded + m * n * (wide + element)
        return size + m * row + n * column + fixed <= room and m * n * self.result.storage_bytes // 4 <= self.array.core_length_words

    def pieces(self, m: int, n: int, k: int) -> tuple[int, ...]:
        """How many panels can come together: they are all of K in equal parts, and the memory tile has room and descriptors for two pieces."""
        steps = -(-self.extents[2] // k)
        return tuple(q for q in PIECES if steps % q == 0 and self._held(m, n, k, q))

    def _held(self, m: int, n: int, k: int, piece: int) -> bool:
        """Whether a memory tile has room and descriptors for two pieces of each factor, and a tile of each core's result."""
        rows = self.array.rows
        tiles = -(-self.extents[1] // n)
        busy = -(-tiles // -(-tiles // self.columns))  # columns that have tiles share the panels of all rows
        shares = (1, rows) if self.across else (-(-rows // busy), 1)
        size = rows * m * n * self.result.storage_bytes
        descriptors = 2 * rows
        sides = zip(shares, (m * k * self.row.a.storage_bytes, ceil(k * n * self.bytes_b)))
        for side, ((parts, panel), deep, riders) in enumerate(zip(sides, (self.deep[0], self.deep[1] and self.packing is None), self.riders)):
            if side and self.kept:
                size += -(-self.extents[2] // k) * panel
                descriptors += 2 * self.turns(k)
                continue
            tiles = piece if deep else 1
            depth = 2 if parts == 1 or tiles > 1 else 1  # `npu.turns`: those of others move meanwhile
            size += depth * parts * tiles * panel
            descriptors += depth * parts * (1 + riders * tiles) + depth * parts * tiles * (1 + riders)
        spare = BANK_SPARE if any(self.riders) else 0
        return size <= self.array.memtile_memory_bytes and descriptors + spare <= self.array.memtile_descriptors

    def turns(self, k: int) -> int:
        """Parts of K in which B is kept, each let go by itself."""
        return kept_parts(-(-self.extents[2] // k))

    def keeps(self, m: int, n: int, k: int) -> bool:
        """Whether a memory tile can keep B: the next columns come part by part while the last rows still need the others."""
        rounds = -(-self.extents[0] // (m * self.array.rows))
        return not self.riders[1] and not self.across and 1 < rounds <= self.array.lock_maximum and self.turns(k) > 1 and self._held(m, n, k, 1)

    def is_possible(self, m: int, n: int, k: int) -> bool:
        """Whether there is something to keep, or more than one strip that nothing else has to come with."""
        if self.kept:
            return self.keeps(m, n, k)
        alone = not (self.across or self.packing is not None or any(self.riders))
        return not self.strips or (alone and self.strip(m) > 0 and self.fits(m, n, k))

    def seconds(self, m: int, n: int, k: int) -> float:
        """By `devices.array_model`, at the rate of kernels like the published ones."""
        a, b, c = self.row.a.storage_bytes, self.bytes_b, self.result.storage_bytes
        run = max(self.pieces(m, n, k), default=1) * k
        deep_b = k if self.kept else run
        of_b = round(k * b) * ROWS if self.packing is not None else deep_b * b if self.deep[1] else n * b
        columns, rows = self.grid
        product = Product(
            m=self.extents[0], n=self.extents[1], k=-(-self.extents[2] // k) * k, tile=(m, n, k), columns=columns, rows=rows,
            bytes_a=a, bytes_b=b, bytes_c=c, runs=(run * a if self.deep[0] else m * a, of_b, n * c),
            kept=self.kept,
        )  # fmt: skip
        peak = peak_macs(self.array, self.row.arithmetic) or 1
        macs = kernel_macs(self.array, peak, k, self.sums.storage_bytes)
        if self.packing is not None:
            macs = 1 / (1 / macs + DECODING_CYCLES / m)
        return seconds(product, self.array, macs)


def tile_of(cost: TileCost) -> tuple[int, int, int]:
    """The fastest tile that a core holds."""
    row, extents = cost.row, cost.extents
    best: tuple[float, int, tuple[int, int, int]] | None = None
    for m in _sizes(EXPANSION * row.m, extents[0], cost.grid[1]):
        for n in _sizes(EXPANSION * row.n, extents[1], cost.grid[0]):
            for k in _sizes(cost.unit, extents[2], 1):
                if not cost.fits(m, n, k):
                    break  # a deeper one is larger still
                if cost.kept and not cost.keeps(m, n, k):
                    continue
                candidate = (cost.seconds(m, n, k), -m * n * k, (m, n, k))
                best = candidate if best is None or candidate < best else best
    return best[2] if best else (EXPANSION * row.m, EXPANSION * row.n, cost.unit)


def _sizes(unit: int, extent: int, parts: int) -> list[int]:
    """Multiples of `unit` up to 256, none larger than what one of `parts` needs."""
    most = -(-extent // (parts * unit)) * unit
    return list(range(unit, min(256, most) + 1, unit)) or [unit]
