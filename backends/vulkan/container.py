"""The format of a Vulkan binary: one SPIR-V module per phase, and the sizes that it is specialised for (`template.py`).

    4 bytes  "TRVK"
    u32      version of this format (2)
    u32      number of phases
    then for every phase:
        u32      number of bytes of the module
        u32      number of its sizes
        for every size: u32 `constant_id`, u32 bytes (4 or 8), i64 value
        the SPIR-V words

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
from dataclasses import dataclass

MAGIC = b"TRVK"
VERSION = 2

_HEAD, _PHASE, _SIZE = struct.Struct("<4sII"), struct.Struct("<II"), struct.Struct("<IIq")


@dataclass(frozen=True, slots=True, kw_only=True)
class Constant:
    """The value of a specialisation constant, an integer of `width` bytes."""

    number: int
    width: int
    value: int

    @property
    def data(self) -> bytes:
        """As the driver is given it; an unsigned value is the same bits."""
        return self.value.to_bytes(8, "little", signed=True)[: self.width]


@dataclass(frozen=True, slots=True, kw_only=True)
class Module:
    """SPIR-V and the values of its specialisation constants."""

    spirv: bytes
    constants: tuple[Constant, ...] = ()


def pack_modules(modules: Sequence[Module]) -> bytes:
    parts = [_HEAD.pack(MAGIC, VERSION, len(modules))]
    for module in modules:
        parts.append(_PHASE.pack(len(module.spirv), len(module.constants)))
        parts += [_SIZE.pack(c.number, c.width, c.value) for c in module.constants]
        parts.append(module.spirv)
    return b"".join(parts)


def unpack_modules(blob: bytes) -> tuple[Module, ...]:
    """The modules. ValueError when `blob` is not one of ours or is cut short."""
    if len(blob) < _HEAD.size or blob[:4] != MAGIC:
        raise ValueError("not a Vulkan binary")
    _, version, count = _HEAD.unpack_from(blob)
    if version != VERSION:
        raise ValueError(f"Vulkan binary of format {version}, expected {VERSION}")
    modules, offset = [], _HEAD.size
    for _ in range(count):
        if offset + _PHASE.size > len(blob):
            raise ValueError("Vulkan binary is cut short")
        size, sizes = _PHASE.unpack_from(blob, offset)
        first = offset + _PHASE.size
        offset = first + sizes * _SIZE.size + size
        if offset > len(blob) or size % 4:
            raise ValueError("Vulkan binary is cut short")
        constants = tuple(Constant(number=n, width=w, value=v) for n, w, v in _SIZE.iter_unpack(blob[first : offset - size]))
        if any(constant.width not in (4, 8) for constant in constants):
            raise ValueError("Vulkan binary with a constant of neither 4 nor 8 bytes")
        modules.append(Module(spirv=blob[offset - size : offset], constants=constants))
    return tuple(modules)
