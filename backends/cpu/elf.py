"""Linking one ELF64 relocatable object in memory, without LLVM: a process that only runs cached code never loads it.

Strict on purpose. LLVM's position-independent output without C++ constructors, thread-local variables or common symbols
is all that is taken; anything else, and any offset outside the file, is TriError E0741. The image is
`code and stubs | read-only data and the table of addresses | writable data`, each part on pages of its own. It is
one range, so distances inside it always fit 32 bits; what lies outside (memcpy, …) is reached through the table.

The records of this package's start-up path are `msgspec.Struct`s: a frozen one is made in a fiftieth of the time that
a dataclass takes to define itself (about half a millisecond each), which a process that only runs cached code would feel.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping

import msgspec

from tridsl.backends.cpu.relocations import STUB_BYTES, Machine, Relocation, RelocationRange
from tridsl.diagnostics import TriError, error

Resolve = Callable[[str], int | None]
"""The address of a symbol that the object does not define; None where there is none."""

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_RELA = struct.Struct("<QQq")

_IMAGE_LIMIT = 1 << 30
_ALLOC, _WRITE, _EXECUTE, _TLS = 2, 1, 4, 0x400
_PROGBITS, _SYMTAB, _RELA_TYPE, _NOBITS = 1, 2, 4, 8
_X86_64_UNWIND = 0x7000_0001
_RUN_AT_START = (".init", ".fini", ".ctors", ".dtors", ".preinit")
_WEAK, _FUNCTION = 2, 2
_UNDEFINED, _ABSOLUTE, _FIRST_RESERVED = 0, 0xFFF1, 0xFF00


class _Section(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    kind: int
    flags: int
    offset: int
    size: int
    link: int
    info: int
    align: int

    @property
    def loaded(self) -> bool:
        """Has a place in the image. Unwind tables do not: nothing unwinds through a kernel."""
        return bool(self.flags & _ALLOC) and self.kind != _X86_64_UNWIND and self.name != ".eh_frame"


class _Symbol(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    weak: bool
    function: bool
    section: int
    value: int
    size: int


class _Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One relocation: at `offset` of `section`, to `symbol` + `addend`."""

    section: int
    offset: int
    symbol: int
    row: Relocation
    addend: int


class Function(msgspec.Struct, frozen=True, kw_only=True):
    """A function of a linked image; `offset` in bytes from the image's start, `size` in bytes."""

    name: str
    offset: int
    size: int


class Layout(msgspec.Struct, frozen=True, kw_only=True):
    """An object with a place for every section. All numbers are bytes from the start of the image.

    Parts `[0, read_only)` executable, `[read_only, writable)` read-only, `[writable, size)` writable; each starts a page.
    """

    blob: bytes
    machine: Machine
    sections: tuple[_Section, ...]
    symbols: tuple[_Symbol, ...]
    relocations: tuple[_Entry, ...]
    places: Mapping[int, int]
    slots: Mapping[int, int]
    stubs: Mapping[int, int]
    read_only: int
    writable: int
    size: int

    def functions(self) -> tuple[Function, ...]:
        """The functions that the object defines, by address."""
        found = [
            Function(name=s.name, offset=self.places[s.section] + s.value, size=s.size)
            for s in self.symbols
            if s.function and s.section in self.places
        ]
        return tuple(sorted(found, key=lambda f: f.offset))


def _damaged(what: str) -> TriError:
    return error(
        "E0741",
        f"this object code cannot be loaded: {what}",
        notes=("objects come from LLVM on this machine or from the artifact cache",),
        help="run `tridsl cache clear`; the code is then made anew",
    )


def place(blob: bytes, machine: Machine, page: int) -> Layout:
    """Read an object for `machine` and give every loaded section, stub and address slot its place. Raises TriError E0741."""
    try:
        sections = _sections(blob, machine)
        symbols = _symbols(blob, sections)
        relocations = _relocations(blob, machine, sections, len(symbols))
    except struct.error:
        raise _damaged("it is shorter than its tables say") from None
    return _lay_out(blob, machine, sections, symbols, relocations, page)


def link(layout: Layout, base: int, resolve: Resolve) -> bytearray:
    """The bytes of the image for address `base`. Raises TriError E0741 (damaged) and E0742 (an unknown symbol)."""
    image = bytearray(layout.size)
    for number, offset in layout.places.items():
        section = layout.sections[number]
        if section.kind != _NOBITS:
            image[offset : offset + section.size] = layout.blob[section.offset : section.offset + section.size]
    numbers = {entry.symbol for entry in layout.relocations}
    addresses = {number: _address(layout, number, base, resolve) for number in sorted(numbers)}
    for number, slot in layout.slots.items():
        struct.pack_into("<Q", image, slot, addresses[number])
    try:
        for number, stub in layout.stubs.items():
            image[stub : stub + STUB_BYTES] = layout.machine.stub(layout.slots[number] - stub)
    except RelocationRange as problem:
        raise _damaged(f"its code is too large for its jump stubs: {problem}") from None
    for entry in layout.relocations:
        _apply(layout, entry, image, base, addresses[entry.symbol])
    return image


def _sections(blob: bytes, machine: Machine) -> tuple[_Section, ...]:
    ident, kind, number, _, _, _, table, _, _, _, _, entry, count, names = _HEADER.unpack_from(blob, 0)
    if ident[:7] != b"\x7fELF\x02\x01\x01" or kind != 1:
        raise _damaged("it is not a little-endian 64-bit ELF relocatable object")
    if number != machine.number:
        raise _damaged(f"it is for ELF machine {number}, this one is {machine.name} ({machine.number})")
    if entry != _SECTION.size or names >= count:
        raise _damaged("its section table is malformed")
    if table + count * entry > len(blob):
        raise _damaged("its section table lies outside the file")
    rows = [_SECTION.unpack_from(blob, table + index * entry) for index in range(count)]
    sections = []
    for name, kind, flags, _, offset, size, link_, info, align, _ in rows:
        if kind != _NOBITS and offset + size > len(blob):
            raise _damaged("a section lies outside the file")
        sections.append(
            _Section(
                name=_string(blob, rows[names][4], rows[names][5], name),
                kind=kind,
                flags=flags,
                offset=offset,
                size=size,
                link=link_,
                info=info,
                align=max(1, align),
            )
        )
    for section in sections:
        _accept(section)
    return tuple(sections)


def _accept(section: _Section) -> None:
    if not section.loaded:
        return
    if section.flags & _TLS:
        raise _damaged(f"section {section.name} holds thread-local variables")
    if section.name.startswith(_RUN_AT_START):
        raise _damaged(f"section {section.name} holds functions to run at start-up")
    if section.kind not in (_PROGBITS, _NOBITS) or (section.flags & _WRITE and section.flags & _EXECUTE):
        raise _damaged(f"section {section.name} is of an unexpected kind")
    if section.align & (section.align - 1) or section.align > 4096:
        raise _damaged(f"section {section.name} asks for an alignment of {section.align} bytes")
    if section.size > _IMAGE_LIMIT:
        raise _damaged(f"section {section.name} is {section.size} bytes long")


def _string(blob: bytes, start: int, size: int, offset: int) -> str:
    end = blob.find(b"\0", start + offset, start + size)
    if offset >= size or end < 0:
        raise _damaged("a name lies outside its string table")
    return blob[start + offset : end].decode("ascii", "replace")


def _symbols(blob: bytes, sections: tuple[_Section, ...]) -> tuple[_Symbol, ...]:
    tables = [s for s in sections if s.kind == _SYMTAB]
    if len(tables) != 1 or tables[0].link >= len(sections) or tables[0].size % _SYMBOL.size:
        raise _damaged("it has no well-formed symbol table")
    strings = sections[tables[0].link]
    symbols = []
    rows = _SYMBOL.iter_unpack(blob[tables[0].offset : tables[0].offset + tables[0].size])
    for name, info, _, section, value, size in rows:
        text = _string(blob, strings.offset, strings.size, name) if name else ""
        if _FIRST_RESERVED <= section != _ABSOLUTE or section < _FIRST_RESERVED and section >= len(sections):
            raise _damaged(f"symbol {text} is in no section")
        if 0 < section < _FIRST_RESERVED and value + size > sections[section].size:
            raise _damaged(f"symbol {text} lies outside its section")
        symbols.append(
            _Symbol(
                name=text,
                weak=info >> 4 == _WEAK,
                function=info & 15 == _FUNCTION,
                section=section,
                value=value,
                size=size,
            )
        )
    return tuple(symbols)


def _lay_out(
    blob: bytes,
    machine: Machine,
    sections: tuple[_Section, ...],
    symbols: tuple[_Symbol, ...],
    relocations: tuple[_Entry, ...],
    page: int,
) -> Layout:
    outside = (_UNDEFINED, _ABSOLUTE)
    stubs = dict.fromkeys(e.symbol for e in relocations if e.row.target == "stub" and symbols[e.symbol].section in outside)
    slots = {**stubs, **dict.fromkeys(e.symbol for e in relocations if e.row.target == "slot")}
    places: dict[int, int] = {}
    end = 0

    def part(want: int) -> None:
        nonlocal end
        for number, section in enumerate(sections):
            if section.loaded and section.flags & (_WRITE | _EXECUTE) == want:
                end = _align(end, section.align)
                places[number] = end
                end += section.size

    part(_EXECUTE)
    end = _align(end, STUB_BYTES)
    stub_places = {number: end + i * STUB_BYTES for i, number in enumerate(stubs)}
    read_only = end = _align(end + len(stubs) * STUB_BYTES, page)
    slot_places = {number: end + i * 8 for i, number in enumerate(slots)}
    end += len(slots) * 8
    part(0)
    writable = end = _align(end, page)
    part(_WRITE)
    size = _align(max(end, 1), page)
    if size > _IMAGE_LIMIT:
        raise _damaged(f"it asks for {size} bytes of memory")
    return Layout(
        blob=blob, machine=machine, sections=sections, symbols=symbols, relocations=relocations, places=places,
        slots=slot_places, stubs=stub_places, read_only=read_only, writable=writable, size=size,
    )  # fmt: skip


def _align(value: int, to: int) -> int:
    return (value + to - 1) & -to


def _relocations(blob: bytes, machine: Machine, sections: tuple[_Section, ...], symbols: int) -> tuple[_Entry, ...]:
    """Every relocation of a loaded section, checked against the file."""
    entries = []
    for table in sections:
        if table.kind != _RELA_TYPE or table.info >= len(sections) or not sections[table.info].loaded:
            continue
        target = sections[table.info]
        if table.size % _RELA.size or target.kind == _NOBITS:
            raise _damaged(f"the relocation table of section {target.name} is malformed")
        for offset, info, addend in _RELA.iter_unpack(blob[table.offset : table.offset + table.size]):
            number, kind = info >> 32, info & 0xFFFF_FFFF
            if not kind:
                continue
            row = machine.relocations.get(kind)
            if row is None:
                raise _damaged(f"it uses {machine.name} relocation {kind}, which position-independent kernels do not need")
            if number >= symbols:
                raise _damaged(f"a relocation names symbol {number} of {symbols}")
            if offset + row.size > target.size:
                raise _damaged(f"a relocation lies outside section {target.name}")
            entries.append(_Entry(section=table.info, offset=offset, symbol=number, row=row, addend=addend))
    return tuple(entries)


def _address(layout: Layout, number: int, base: int, resolve: Resolve) -> int:
    symbol = layout.symbols[number]
    if symbol.section == _ABSOLUTE:
        return symbol.value
    if symbol.section != _UNDEFINED:
        if symbol.section not in layout.places:
            raise _damaged(f"a relocation refers to section {layout.sections[symbol.section].name}, which is not loaded")
        return base + layout.places[symbol.section] + symbol.value
    found = resolve(symbol.name) if symbol.name else 0
    if found is None and not symbol.weak:
        raise error(
            "E0742",
            f"this object code needs the function `{symbol.name}`, which this process does not have",
            help="run `tridsl cache clear`; the code is then made anew for this machine",
        )
    return found or 0


def _apply(layout: Layout, entry: _Entry, image: bytearray, base: int, address: int) -> None:
    row = entry.row
    if row.target == "slot":
        address = base + layout.slots[entry.symbol]
    elif row.target == "stub" and entry.symbol in layout.stubs:
        address = base + layout.stubs[entry.symbol]
    at = layout.places[entry.section] + entry.offset
    old = int.from_bytes(image[at : at + row.size], "little")
    try:
        new = row.apply(old, address + entry.addend, base + at)
    except RelocationRange as problem:
        raise _damaged(f"{row.name} to `{layout.symbols[entry.symbol].name}`: {problem}") from None
    image[at : at + row.size] = new.to_bytes(row.size, "little")
