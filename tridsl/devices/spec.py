"""`DeviceSpec`: the facts of one device that schedules, passes and emitters may read. Nothing else about a device may matter.

Absent is absent (None), never 0. Values come from `chips/<name>.toml` or from a driver that asked the hardware.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Literal

import msgspec

from tridsl.dtypes import DType
from tridsl.structs import dataclass

DeviceKind = Literal["cpu", "gpu", "npu", "reference"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ArraySpec:
    """An array of cores fed by DMA (AMD AI Engine): memories, and how many of what a tile has. One fact, one number; a limit is inclusive.

    `core_*`, `memtile_*`, `shim_*`: compute tiles, memory tiles, and the tiles at the edge towards the host's memory. `in_channels` write to a
    tile's memory (S2MM), `out_channels` read it (MM2S). Of a buffer descriptor: `dimensions`, the largest `wrap` (count of a dimension, in words
    along the innermost), `step` (stride, words) and `length` (words). `iterations`: the outermost dimension of a transfer; `repeats`: runs of a task.
    `north_streams`: streams from a memory tile to cores, `south_streams` back; `side_streams`: from
    a core's tile to a neighbour column. `arguments`: tensors of a kernel.
    `load_bytes`: the widest access of a core, which is also the alignment that it needs. `macs_per_cycle`: by element type of the factors.
    """

    rows: int
    granule_bytes: int
    load_bytes: int
    core_memory_bytes: int
    core_program_bytes: int
    core_stack_bytes: int
    core_in_channels: int
    core_out_channels: int
    core_descriptors: int
    core_locks: int
    core_dimensions: int
    core_wrap: int
    core_step_words: int
    core_length_words: int
    memtile_memory_bytes: int
    memtile_in_channels: int
    memtile_out_channels: int
    memtile_north_streams: int
    memtile_south_streams: int
    side_streams: int
    memtile_descriptors: int
    memtile_locks: int
    memtile_dimensions: int
    memtile_wrap: int
    memtile_step_words: int
    memtile_length_words: int
    shim_in_channels: int
    shim_out_channels: int
    shim_descriptors: int
    shim_locks: int
    shim_dimensions: int
    shim_wrap: int
    shim_step_words: int
    shim_length_words: int
    shim_queue_tasks: int
    lock_maximum: int
    iterations: int
    repeats: int
    arguments: int
    clock_hz: float
    stream_bytes_per_cycle: int
    memory_bytes_per_second: float
    dispatch_seconds: float
    macs_per_cycle: tuple[tuple[str, int], ...] = ()


MATRIX_LANES = 32
"""Lanes for which matrix instructions are made. RDNA 3 has them for 32 and for 64, but every 16 lanes hold the same operands: 64 lanes keep
four copies of each in registers where 32 keep two (AMD, "How to accelerate AI applications on RDNA 3 using WMMA")."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceSpec:
    """One device.

    `vector_bits` x `vector_registers`: the CPU's SIMD file (masks: `has_masks`). `subgroup_sizes`, `shared_bytes`,
    `max_group_lanes`: the GPU's workgroups. `stream_bytes`: the size from which a result is stored faster around the caches than
    through them (absent: what is larger than the last of them; a core's part of one that many share can be far smaller).
    `max_loop_iterations`: what one invocation may run in all its loops. `features`: lower-case names (`avx512vnni`,
    `cooperative_matrix`, `float16`). `array`: the tiles of an NPU. `fixed_sizes`: kernels must know every size. `simulated`: the
    device is a model, whose times mean nothing. `target_*`: what the code generator is told. `cpuid`: in a chip file, the processors that it
    describes: vendor, family, and a model or a range of them (`GenuineIntel 6 143`, `AuthenticAMD 25 16..31`). `pci`: the same of GPUs, as
    vendor and device in hexadecimal (`1002:150e`). Rates are per second and per device unless named otherwise; `peak_bf16_…`: of the instructions that multiply pairs of bf16 (on some chips less
    than that of f32).
    """

    name: str
    kind: DeviceKind
    features: frozenset[str] = frozenset()
    target_triple: str = ""
    target_cpu: str = ""
    target_features: str = ""
    cpuid: tuple[str, ...] = ()
    pci: tuple[str, ...] = ()
    vector_bits: int | None = None
    vector_registers: int | None = None
    has_masks: bool = False
    cores: int | None = None
    l1_bytes: int | None = None
    l2_bytes: int | None = None
    l3_bytes: int | None = None
    stream_bytes: int | None = None
    subgroup_sizes: tuple[int, ...] = ()
    shared_bytes: int | None = None
    max_group_lanes: int | None = None
    max_push_bytes: int | None = None
    max_loop_iterations: int | None = None
    columns: int | None = None
    array: ArraySpec | None = None
    fixed_sizes: bool = False
    memory_bytes: int | None = None
    software: bool = False
    simulated: bool = False
    peak_f32_ops_per_second_per_core: float | None = None
    peak_bf16_ops_per_second_per_core: float | None = None
    peak_copy_bytes_per_second: float | None = None

    def lanes(self, dtype: DType) -> int:
        """Elements of `dtype` in one vector register (1 without SIMD); `chip.lanes(T)` of schedules."""
        return max(1, (self.vector_bits or 0) // dtype.storage_bits)

    @property
    def matrix_lanes(self) -> int | None:
        """Lanes of the subgroups of kernels that are bound to subgroups; None where the driver gives such kernels sizes of its own choice."""
        if "subgroup_size_choice" not in self.features:
            return self.subgroup_sizes[0] if len(self.subgroup_sizes) == 1 else None
        return next((size for size in self.subgroup_sizes if size >= MATRIX_LANES), self.subgroup_sizes[-1])


ARRAY = "array_"
"""Facts of a chip file with this prefix are those of `ArraySpec`."""


class _Fact(msgspec.Struct, frozen=True):
    value: int | float | str | bool | list[int | str] | dict[str, int]
    source: str


_FOLDER = Path(__file__).with_name("chips")
"""A path rather than `importlib.resources`, whose import takes 8 ms of a cold start; the files lie beside this one."""


def load_chip(name: str) -> DeviceSpec:
    """The spec in `chips/<name>.toml`, where each fact is `{ value = …, source = "datasheet" | "measured" | "published" | "fitted" }`."""
    text = (_FOLDER / f"{name}.toml").read_text(encoding="utf-8")
    facts = msgspec.toml.decode(text, type=dict[str, str | _Fact])
    values: dict[str, object] = {}
    array: dict[str, object] = {}
    for key, fact in facts.items():
        value = fact.value if isinstance(fact, _Fact) else fact
        into, name = (array, key.removeprefix(ARRAY)) if key.startswith(ARRAY) else (values, key)
        into[name] = frozenset(value) if key == "features" and isinstance(value, list) else _frozen(value)
    if array:
        values["array"] = ArraySpec(**array)  # type: ignore[arg-type]
    return DeviceSpec(**values)  # type: ignore[arg-type]


def _frozen(value: object) -> object:
    """Lists as tuples; a table as its pairs."""
    if isinstance(value, dict):
        return tuple(sorted(value.items()))
    return tuple(value) if isinstance(value, list) else value


def chip_names() -> tuple[str, ...]:
    """Names that `load_chip` (and `--chip`) accept."""
    return tuple(sorted(file.stem for file in _FOLDER.glob("*.toml")))


def chips_that_mention(text: str) -> tuple[str, ...]:
    """Names of the chip files in which `text` stands somewhere."""
    return tuple(name for name in chip_names() if text in (_FOLDER / f"{name}.toml").read_text(encoding="utf-8"))


@cache
def chip_of_pci(vendor: int, device: int) -> DeviceSpec | None:
    """The spec of the first chip file, by name, that describes this GPU."""
    wanted = f"{vendor:04x}:{device:04x}"
    return next((chip for chip in map(load_chip, chip_names()) if wanted in chip.pci), None)
