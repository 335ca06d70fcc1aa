"""The object loader: what LLVM writes runs; what is damaged is refused, never loaded."""

from __future__ import annotations

import ctypes
import gc
import mmap
import os
import platform
import random
import struct
from pathlib import Path

import pytest

from tests.backends.cpu import native_objects
from tridsl.backends.cpu.code_memory import Code, load_object
from tridsl.backends.cpu.elf import Layout, link, place
from tridsl.backends.cpu.relocations import MACHINES, RelocationRange
from tridsl.diagnostics import TriError

OUTSIDE = ctypes.c_int64(77)
MEMCPY = ctypes.cast(ctypes.CDLL(None).memcpy, ctypes.c_void_p).value
SYMBOLS = {"outside": ctypes.addressof(OUTSIDE), "memcpy": MEMCPY}

x86_only = pytest.mark.skipif(platform.machine() != "x86_64", reason="needs an x86-64 processor")


def call(code: Code, name: str, result: type, *arguments: object) -> object:
    return ctypes.CFUNCTYPE(result, *map(type, arguments))(code.address(name))(*arguments)


@pytest.fixture(params=[0, 2], ids=["O0", "O2"])
def everything(request: pytest.FixtureRequest) -> Code:
    return load_object(native_objects.object_code(native_objects.EVERYTHING, "x86_64", request.param), SYMBOLS.get)


@x86_only
def test_constants_variables_calls_and_jump_tables(everything: Code) -> None:
    f64, i64, i32 = ctypes.c_double, ctypes.c_int64, ctypes.c_int32
    assert [call(everything, "from_table", f64, i64(i)) for i in range(4)] == [1.625, 2.625, 3.625, 4.625]
    assert [call(everything, "count", i64) for _ in range(3)] == [41, 42, 43]
    assert call(everything, "read_outside", i64) == 77
    assert [call(everything, "through_pointer", i64, i64(w), i64(5)) for w in (0, 1)] == [10, 15]
    jumps = [call(everything, "jump", f64, i32(i), f64(8.0)) for i in range(6)]
    assert jumps == [9.5, 20.0, 4.5, 2.0, 44.0, -1.0]


@x86_only
def test_a_tail_call_leaves_the_object_through_a_stub(everything: Code) -> None:
    source, target = ctypes.create_string_buffer(b"kernel"), ctypes.create_string_buffer(7)
    returned = call(everything, "copy", ctypes.c_void_p, target, source, ctypes.c_int64(7))
    assert target.value == b"kernel" and returned == ctypes.addressof(target)


@x86_only
def test_no_page_is_writable_and_executable(everything: Code) -> None:
    rights = {}
    for line in Path("/proc/self/maps").read_text().splitlines():
        start, end = (int(number, 16) for number in line.split()[0].split("-"))
        if start < everything.base + everything.size and everything.base < end:
            rights[start] = line.split()[1]
    assert set(rights.values()) == {"r-xp", "r--p", "rw-p"}


@x86_only
def test_memory_is_returned_with_the_last_reference() -> None:
    code = load_object(native_objects.object_code(native_objects.EVERYTHING), SYMBOLS.get)
    start = f"{code.base:x}-"
    assert start in Path("/proc/self/maps").read_text()
    del code
    gc.collect()
    assert not any(line.startswith(start) for line in Path("/proc/self/maps").read_text().splitlines())


@x86_only
def test_perf_map_names_every_function() -> None:
    path = Path(f"/tmp/perf-{os.getpid()}.map")
    path.unlink(missing_ok=True)
    code = load_object(native_objects.object_code(native_objects.EVERYTHING), SYMBOLS.get, perf_map=True)
    lines = [line.split() for line in path.read_text().splitlines()]
    path.unlink()
    assert (f"{code.address('jump'):x}", "jump") in {(start, name) for start, _, name in lines}
    assert all(int(size, 16) > 0 for _, size, _ in lines)


@x86_only
def test_a_missing_symbol_is_named() -> None:
    with pytest.raises(TriError, match="`memcpy`") as caught:
        load_object(native_objects.object_code(native_objects.EVERYTHING), {"outside": 1}.get)
    assert caught.value.code == "E0742"


@x86_only
def test_a_missing_entry_is_named(everything: Code) -> None:
    with pytest.raises(TriError, match="no function `nobody`"):
        everything.address("nobody")


@x86_only
def test_an_object_of_another_machine_is_refused() -> None:
    with pytest.raises(TriError, match="x86_64") as caught:
        load_object(native_objects.object_code(native_objects.EVERYTHING, "aarch64"), SYMBOLS.get)
    assert caught.value.code == "E0741"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("@t = thread_local global i64 1\ndefine ptr @f() {\n ret ptr @t\n}", "thread-local|relocation|unexpected"),
        ("@c = common global i64 0\ndefine ptr @f() {\n ret ptr @c\n}", "in no section"),
        (
            "@llvm.global_ctors = appending global [1 x { i32, ptr, ptr }] "
            + "[{ i32, ptr, ptr } { i32 1, ptr @f, ptr null }]\ndefine void @f() {\n ret void\n}",
            "start-up",
        ),
    ],
)
def test_what_kernels_do_not_need_is_refused(text: str, why: str) -> None:
    with pytest.raises(TriError, match=why) as caught:
        place(native_objects.object_code(text), MACHINES["x86_64"], 4096)
    assert caught.value.code == "E0741"


def load_quietly(blob: bytes, machine: str) -> bool:
    """Whether a blob links; anything but TriError escapes."""
    try:
        link(place(blob, MACHINES[machine], 4096), 0x7F00_0000_0000, {"memcpy": 1 << 40, "outside": 1 << 41}.get)
    except TriError as problem:
        assert problem.code in ("E0741", "E0742")
        return False
    return True


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_damaged_objects_are_refused_or_harmless(machine: str) -> None:
    blob = native_objects.object_code(native_objects.EVERYTHING, machine)
    assert load_quietly(blob, machine)
    generator = random.Random(7)
    refused = sum(not load_quietly(blob[: generator.randrange(len(blob))], machine) for _ in range(200))
    assert refused == 200
    refused = 0
    for _ in range(2000):
        damaged = bytearray(blob)
        for _ in range(generator.randrange(1, 4)):
            at = generator.randrange(len(blob))
            damaged[at : at + 1] = generator.choice((b"\x00", b"\xff", b"\x80", bytes([generator.randrange(256)])))
        refused += not load_quietly(bytes(damaged), machine)
    assert refused > 100


def aarch64(base: int) -> tuple[Layout, bytearray]:
    layout = place(native_objects.object_code(native_objects.EVERYTHING, "aarch64"), MACHINES["aarch64"], 4096)
    return layout, link(layout, base, {"memcpy": 0x1234_5678_9AB8, "outside": 0x7654_3210_0008}.get)


def test_aarch64_addresses_are_what_the_instructions_say() -> None:
    """Decodes ADRP + ADD/LDR pairs, branches and stubs of a linked image, independently of the code that wrote them."""
    base = 0x7E00_1234_0000
    layout, image = aarch64(base)
    functions = {f.name: base + f.offset for f in layout.functions()}

    def word(offset: int) -> int:
        return int(struct.unpack_from("<I", image, offset)[0])

    def signed(value: int, bits: int) -> int:
        return value - (1 << bits) if value >> bits - 1 else value

    pages: dict[int, int] = {}
    checked = set()
    for entry in sorted(layout.relocations, key=lambda e: (e.section, e.offset)):
        offset = layout.places[entry.section] + entry.offset
        symbol = layout.symbols[entry.symbol]
        wanted = functions.get(symbol.name) or (
            base + layout.places[symbol.section] + symbol.value if symbol.section in layout.places else 0
        )
        name = entry.row.name.removeprefix("R_AARCH64_")
        if name in ("ADR_PREL_PG_HI21", "ADR_GOT_PAGE"):
            instruction = word(offset)
            immediate = signed((instruction >> 5 & 0x7FFFF) << 2 | instruction >> 29 & 3, 21)
            pages[entry.symbol] = (base + offset & ~0xFFF) + (immediate << 12)
        elif name == "ADD_ABS_LO12_NC":
            assert pages[entry.symbol] + (word(offset) >> 10 & 0xFFF) == wanted + entry.addend
        elif name == "LDST64_ABS_LO12_NC":
            assert pages[entry.symbol] + (word(offset) >> 10 & 0xFFF) * 8 == wanted + entry.addend
        elif name == "LD64_GOT_LO12_NC":
            slot = pages[entry.symbol] + (word(offset) >> 10 & 0xFFF) * 8 - base
            assert struct.unpack_from("<Q", image, slot)[0] == 0x7654_3210_0008
        elif name in ("CALL26", "JUMP26"):
            target = offset + 4 * signed(word(offset) & 0x3FF_FFFF, 26)
            if symbol.name == "memcpy":
                load, jump = word(target), word(target + 4)
                slot = target + 4 * signed(load >> 5 & 0x7FFFF, 19)
                assert load & 0xFF00_001F == 0x5800_0010 and jump == 0xD61F_0200
                assert struct.unpack_from("<Q", image, slot)[0] == 0x1234_5678_9AB8
            else:
                assert base + target == wanted + entry.addend
        elif name == "ABS64":
            assert struct.unpack_from("<Q", image, offset)[0] == wanted + entry.addend
        checked.add(name)
    assert {"ADR_PREL_PG_HI21", "ADR_GOT_PAGE", "LD64_GOT_LO12_NC", "CALL26", "ABS64"} <= checked


def test_values_that_do_not_fit_are_refused() -> None:
    rows = MACHINES["x86_64"].relocations
    with pytest.raises(RelocationRange):
        rows[2].apply(0, 1 << 33, 0)
    assert rows[2].apply(0, 0, 4) == 0xFFFF_FFFC
    with pytest.raises(RelocationRange):
        MACHINES["aarch64"].relocations[283].apply(0x9400_0000, 1 << 28, 0)
    with pytest.raises(RelocationRange, match="multiple"):
        MACHINES["aarch64"].relocations[286].apply(0xF940_0000, 4, 0)


def test_the_parts_of_an_image_start_pages() -> None:
    layout = place(native_objects.object_code(native_objects.EVERYTHING), MACHINES["x86_64"], mmap.PAGESIZE)
    for boundary in (layout.read_only, layout.writable, layout.size):
        assert boundary % mmap.PAGESIZE == 0
