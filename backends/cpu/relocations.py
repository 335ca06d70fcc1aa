"""The relocations LLVM writes into position-independent objects, as data.

A row says which address goes into the place (`target`), measured from where (`form`), and into which bits (`field`).
Sources: System V ABI, AMD64 supplement, table 4.9; ELF for the Arm 64-bit architecture (aaelf64), section 5.7.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import msgspec

Target = Literal["symbol", "stub", "slot"]
Form = Literal["absolute", "place", "page", "low12"]


class RelocationRange(ValueError):
    """A value does not fit the bits that a relocation gives it."""


class Relocation(msgspec.Struct, frozen=True, kw_only=True):
    """`target`: the symbol itself, a jump stub to it where it lies outside the object, or its slot in the offset table.

    `form`: the address, its distance from the place, the distance of their 4 KiB pages, or its low twelve bits.
    `field` puts the number into the `size` bytes that stand at the place and returns the new bytes' value.
    """

    name: str
    target: Target
    form: Form
    size: int
    field: Callable[[int, int], int]

    def apply(self, old: int, address: int, place: int) -> int:
        """The new value of the `size` bytes at `place` (which hold `old`) for a target at `address`, addend included."""
        distance = {
            "absolute": address,
            "place": address - place,
            "page": (address & ~0xFFF) - (place & ~0xFFF),
            "low12": address & 0xFFF,
        }[self.form]
        return self.field(old, distance)


def _fits(value: int, bits: int, signed: bool) -> int:
    low, high = (-(1 << bits - 1), 1 << bits - 1) if signed else (0, 1 << bits)
    if not low <= value < high:
        raise RelocationRange(f"{value:#x} does not fit {bits} {'signed' if signed else 'unsigned'} bits")
    return value & ((1 << bits) - 1)


def _word64(_old: int, value: int) -> int:
    return value & 0xFFFF_FFFF_FFFF_FFFF


def _signed32(_old: int, value: int) -> int:
    return _fits(value, 32, True)


def _unsigned32(_old: int, value: int) -> int:
    return _fits(value, 32, False)


def _branch(bits: int, shift: int) -> Callable[[int, int], int]:
    """A signed distance in instructions, in `bits` bits from bit `shift` of the instruction."""

    def field(old: int, value: int) -> int:
        if value & 3:
            raise RelocationRange(f"branch distance {value:#x} is not a multiple of 4")
        mask = ((1 << bits) - 1) << shift
        return old & ~mask | _fits(value >> 2, bits, True) << shift

    return field


def _adr(scale: int) -> Callable[[int, int], int]:
    """ADR and ADRP: 21 signed bits, the low two in bits 29-30, the others in bits 5-23."""

    def field(old: int, value: int) -> int:
        number = _fits(value >> scale, 21, True)
        return old & 0x9F00_001F | (number & 3) << 29 | (number >> 2) << 5

    return field


def _offset12(scale: int) -> Callable[[int, int], int]:
    """The unsigned 12-bit offset of ADD, LDR and STR, in units of the access size, in bits 10-21."""

    def field(old: int, value: int) -> int:
        if value & ((1 << scale) - 1):
            raise RelocationRange(f"offset {value:#x} is not a multiple of the access size {1 << scale}")
        return old & ~(0xFFF << 10) | (value >> scale) << 10

    return field


def _row(name: str, target: Target, form: Form, size: int, field: Callable[[int, int], int]) -> Relocation:
    return Relocation(name=name, target=target, form=form, size=size, field=field)


X86_64: dict[int, Relocation] = {
    1: _row("R_X86_64_64", "symbol", "absolute", 8, _word64),
    2: _row("R_X86_64_PC32", "symbol", "place", 4, _signed32),
    4: _row("R_X86_64_PLT32", "stub", "place", 4, _signed32),
    9: _row("R_X86_64_GOTPCREL", "slot", "place", 4, _signed32),
    10: _row("R_X86_64_32", "symbol", "absolute", 4, _unsigned32),
    11: _row("R_X86_64_32S", "symbol", "absolute", 4, _signed32),
    24: _row("R_X86_64_PC64", "symbol", "place", 8, _word64),
    41: _row("R_X86_64_GOTPCRELX", "slot", "place", 4, _signed32),
    42: _row("R_X86_64_REX_GOTPCRELX", "slot", "place", 4, _signed32),
    43: _row("R_X86_64_CODE_4_GOTPCRELX", "slot", "place", 4, _signed32),
}

AARCH64: dict[int, Relocation] = {
    257: _row("R_AARCH64_ABS64", "symbol", "absolute", 8, _word64),
    258: _row("R_AARCH64_ABS32", "symbol", "absolute", 4, _unsigned32),
    260: _row("R_AARCH64_PREL64", "symbol", "place", 8, _word64),
    261: _row("R_AARCH64_PREL32", "symbol", "place", 4, _signed32),
    274: _row("R_AARCH64_ADR_PREL_LO21", "symbol", "place", 4, _adr(0)),
    275: _row("R_AARCH64_ADR_PREL_PG_HI21", "symbol", "page", 4, _adr(12)),
    277: _row("R_AARCH64_ADD_ABS_LO12_NC", "symbol", "low12", 4, _offset12(0)),
    278: _row("R_AARCH64_LDST8_ABS_LO12_NC", "symbol", "low12", 4, _offset12(0)),
    279: _row("R_AARCH64_TSTBR14", "symbol", "place", 4, _branch(14, 5)),
    280: _row("R_AARCH64_CONDBR19", "symbol", "place", 4, _branch(19, 5)),
    282: _row("R_AARCH64_JUMP26", "stub", "place", 4, _branch(26, 0)),
    283: _row("R_AARCH64_CALL26", "stub", "place", 4, _branch(26, 0)),
    284: _row("R_AARCH64_LDST16_ABS_LO12_NC", "symbol", "low12", 4, _offset12(1)),
    285: _row("R_AARCH64_LDST32_ABS_LO12_NC", "symbol", "low12", 4, _offset12(2)),
    286: _row("R_AARCH64_LDST64_ABS_LO12_NC", "symbol", "low12", 4, _offset12(3)),
    299: _row("R_AARCH64_LDST128_ABS_LO12_NC", "symbol", "low12", 4, _offset12(4)),
    311: _row("R_AARCH64_ADR_GOT_PAGE", "slot", "page", 4, _adr(12)),
    312: _row("R_AARCH64_LD64_GOT_LO12_NC", "slot", "low12", 4, _offset12(3)),
}


def _stub_x86_64(distance: int) -> bytes:
    """`jmp *[rip + d]`, padded to 16 bytes with int3; `distance` is from the stub to its slot."""
    return b"\xff\x25" + _signed32(0, distance - 6).to_bytes(4, "little") + b"\xcc" * 10


def _stub_aarch64(distance: int) -> bytes:
    """`ldr x16, slot; br x16` (x16 is the register that the procedure call standard gives to stubs), padded with brk."""
    words = (0x5800_0010 | _branch(19, 5)(0, distance), 0xD61F_0200, 0xD420_0000, 0xD420_0000)
    return b"".join(word.to_bytes(4, "little") for word in words)


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """An instruction set: its ELF number, relocations, and the 16-byte stub that jumps through a slot."""

    name: str
    number: int
    relocations: dict[int, Relocation]
    stub: Callable[[int], bytes]


STUB_BYTES = 16

MACHINES: dict[str, Machine] = {
    machine.name: machine
    for machine in (
        Machine(name="x86_64", number=62, relocations=X86_64, stub=_stub_x86_64),
        Machine(name="aarch64", number=183, relocations=AARCH64, stub=_stub_aarch64),
    )
}
