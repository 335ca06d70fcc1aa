"""What the functions of a design take of a core's program memory: an estimate from the text, and the truth once there is an object file.

Only a compiler for the cores knows the size. The estimate counts each operation that stands in the text once, with the bytes of the shortest
instruction that has one; loops that are unrolled and helpers that are inlined make more of it, operations that share an instruction or that the
compiler finds to be the same make less. What is beyond the memory by that count has no chance; what is below may still not fit.
"""

from __future__ import annotations

import re
import struct

from tridsl.devices.spec import DeviceSpec
from tridsl.diagnostics import error

LIMIT = "core program memory"
SHORTEST_BYTES = 4
"""Of an instruction with a vector operation; the longest are 16 (llvm-aie)."""
_OPERATION = re.compile(r"\baie::(?!vector|mask|accum|mmul|set_|swap_|rounding|saturation)\w+|\.(?:unpack|pack|template to_vector|get|test|mac|mul)\b")

_HEADER = {1: ("<16xHHIIIIIHHHHHH", 5, 10, 11), 2: ("<16xHHIQQQIHHHHHH", 5, 10, 11)}
"""By class of an ELF file (1: 32 bits, 2: 64): its header, and where in it the place, the size and the number of the section headers are."""
_SECTION = {1: ("<IIIIII", 2, 5), 2: ("<IIQQQQ", 2, 5)}
"""The beginning of a section header, and where in it the flags and the size are."""
_EXECUTABLE = 4
"""SHF_EXECINSTR."""


def estimated_bytes(text: str) -> int:
    """Of all functions of a kernel text."""
    return SHORTEST_BYTES * len(_OPERATION.findall(text))


def code_bytes(elf: bytes) -> int | None:
    """The sections of an object or program of ELF that are run; None for other files, which are their tool's business."""
    if elf[:4] != b"\x7fELF" or elf[4] not in _HEADER or elf[5] != 1:
        return None
    layout, place, size, number = _HEADER[elf[4]]
    header = struct.unpack_from(layout, elf)
    section, flags, length = _SECTION[elf[4]]
    sections = (struct.unpack_from(section, elf, header[place] + n * header[size]) for n in range(header[number]))
    return sum(int(s[length]) for s in sections if s[flags] & _EXECUTABLE)


def check_text(name: str, text: str, spec: DeviceSpec) -> None:
    """E0771: the estimate is beyond a core's program memory."""
    _check(name, estimated_bytes(text), "an estimate: 4 for each operation of the text, however the compiler arranges them", spec)


def check_object(name: str, elf: bytes, spec: DeviceSpec) -> None:
    """E0771: what the compiler made is."""
    if (size := code_bytes(elf)) is not None:
        _check(name, size, "as compiled", spec)


def _check(name: str, size: int, how: str, spec: DeviceSpec) -> None:
    if spec.array is not None and size > spec.array.core_program_bytes:
        raise error(
            "E0771", f"`{name}` exceeds the limit `{LIMIT}` of {spec.name}: its functions take {size} bytes ({how}), at most {spec.array.core_program_bytes} are possible",
            help="write out less (smaller tiles, fewer unrolled loops) in the schedule, or run this operation on another device",
        )  # fmt: skip
