"""The format of a Vulkan binary: one SPIR-V module per phase.

    4 bytes  "TRVK"
    u32      version of this format (1)
    u32      number of phases
    then for every phase: u32 number of bytes, the SPIR-V words

All numbers are little-endian. What the driver must know besides stands in the `facts` of `Code` and `Binary`:

    arguments        "push" or "buffer": where the 8-byte slots lie (params, sizes, scratch addresses, address of the status)
    groups.<phase>   three extents (`extent.py`) separated by `;`: workgroups along x, y, z
    matrices.<phase> 1 when its shader has cooperative matrices, which takes whole subgroups
    scratch.<n>      extent: bytes of scratch buffer n
    status           1 when the kernel has checks: a u32, all ones before the call, the least number that failed after it
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

MAGIC = b"TRVK"
VERSION = 1


def pack_modules(modules: Sequence[bytes]) -> bytes:
    return struct.pack("<4sII", MAGIC, VERSION, len(modules)) + b"".join(struct.pack("<I", len(m)) + m for m in modules)


def unpack_modules(blob: bytes) -> tuple[bytes, ...]:
    """The SPIR-V modules. ValueError when `blob` is not one of ours or is cut short."""
    if len(blob) < 12 or blob[:4] != MAGIC:
        raise ValueError("not a Vulkan binary")
    _, version, count = struct.unpack_from("<4sII", blob)
    if version != VERSION:
        raise ValueError(f"Vulkan binary of format {version}, expected {VERSION}")
    modules, offset = [], 12
    for _ in range(count):
        if offset + 4 > len(blob):
            raise ValueError("Vulkan binary is cut short")
        (size,) = struct.unpack_from("<I", blob, offset)
        module = blob[offset + 4 : offset + 4 + size]
        if len(module) != size or size % 4:
            raise ValueError("Vulkan binary is cut short")
        modules.append(module)
        offset += 4 + size
    return tuple(modules)
