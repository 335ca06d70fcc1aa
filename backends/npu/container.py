"""The format of an NPU binary: named parts behind one another.

    4 bytes  "TRNP"
    u32      version of this format (1)
    u32      number of parts
    then for every part: u32 length of its name, the name, u32 length, the bytes

All numbers are little-endian. Parts: `design` (JSON of an `ArrayDesign`); for the simulator `library` (a shared library of this machine); for hardware
`xclbin` and `insts` (what `aiecc` made).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

MAGIC = b"TRNP"
VERSION = 1


def pack(parts: Mapping[str, bytes]) -> bytes:
    packed = [struct.pack("<4sII", MAGIC, VERSION, len(parts))]
    for name, content in parts.items():
        packed += [struct.pack("<I", len(name)), name.encode(), struct.pack("<I", len(content)), content]
    return b"".join(packed)


def unpack(blob: bytes) -> dict[str, bytes]:
    """The parts by name. ValueError when `blob` is not one of ours or is cut short."""
    if len(blob) < 12 or blob[:4] != MAGIC:
        raise ValueError("not an NPU binary")
    _, version, count = struct.unpack_from("<4sII", blob)
    if version != VERSION:
        raise ValueError(f"NPU binary of format {version}, expected {VERSION}")
    parts, offset = {}, 12
    for _ in range(count):
        name, offset = _piece(blob, offset)
        parts[name.decode("ascii", "replace")], offset = _piece(blob, offset)
    return parts


def _piece(blob: bytes, offset: int) -> tuple[bytes, int]:
    if offset + 4 > len(blob):
        raise ValueError("NPU binary is cut short")
    (size,) = struct.unpack_from("<I", blob, offset)
    piece = blob[offset + 4 : offset + 4 + size]
    if len(piece) != size:
        raise ValueError("NPU binary is cut short")
    return piece, offset + 4 + size
