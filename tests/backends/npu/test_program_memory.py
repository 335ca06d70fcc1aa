"""A text at the limit of a core's program memory is possible and one past it is not; so are objects, whose size is the sum of what is run."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

import tridsl
from tests.backends.npu.designs import GENERATIONS, chip
from tests.backends.npu.small import small
from tests.backends.npu.test_hardware import program
from tridsl.backends.npu.build_peano import build_package, find_toolchain
from tridsl.backends.npu.emit import DESIGN, KERNELS
from tridsl.backends.npu.program_memory import (
    LIMIT,
    SHORTEST_BYTES,
    check_object,
    check_text,
    code_bytes,
    estimated_bytes,
)
from tridsl.diagnostics import TriError

ADD = "  c = aie::add(a, b);\n"


def elf(code: int, wide: bool = False) -> bytes:
    """A file with two sections that are run, of `code` bytes together, and one of data."""
    word = "Q" if wide else "I"
    size = struct.calcsize(f"<II{word}{word}{word}{word}II{word}{word}")
    start = 64 if wide else 52
    ident = b"\x7fELF" + bytes([2 if wide else 1, 1, 1]).ljust(12, b"\0")
    header = ident + struct.pack(f"<HHI{word}{word}{word}IHHHHHH", 1, 264, 1, 0, 0, start, 0, start, 0, 0, size, 3, 0)
    sections = (struct.pack(f"<II{word}{word}{word}{word}II{word}{word}", 0, 1, flags, 0, 0, n, 0, 0, 1, 0) for flags, n in ((6, 64), (6, code - 64), (2, 9999)))
    return header + b"".join(sections)


@pytest.mark.parametrize("generation", GENERATIONS)
def test_a_text_at_the_limit_is_possible_and_one_past_it_is_not(generation: str) -> None:
    spec = chip(generation)
    assert spec.array is not None
    most = spec.array.core_program_bytes // SHORTEST_BYTES
    check_text("f", ADD * most, spec)
    with pytest.raises(TriError, match=f"E0771.*`f` exceeds the limit `{LIMIT}` of {generation}: .* {4 * most + 4} bytes .an estimate"):
        check_text("f", ADD * (most + 1), spec)


@pytest.mark.parametrize("generation", GENERATIONS)
@pytest.mark.parametrize("wide", [False, True])
def test_an_object_at_the_limit_is_possible_and_one_past_it_is_not(wide: bool, generation: str) -> None:
    spec = chip(generation)
    assert spec.array is not None
    most = spec.array.core_program_bytes
    assert code_bytes(elf(most, wide)) == most
    check_object("f", elf(most, wide), spec)
    with pytest.raises(TriError, match=f"E0771.*`{LIMIT}`.* {most + 2} bytes .as compiled"):
        check_object("f", elf(most + 2, wide), spec)


def test_the_code_of_a_real_file_is_a_part_of_it() -> None:
    """This machine's shell."""
    content = Path("/bin/sh").read_bytes()
    assert 0 < (code_bytes(content) or 0) < len(content)
    assert code_bytes(b"#!/bin/sh") is None


def test_names_of_types_and_modes_are_no_operations() -> None:
    text = "aie::vector<float, 16> v; aie::set_rounding(aie::rounding_mode::conv_even); aie::mask<16> m = aie::lt(a, b); x.get(0);"
    assert estimated_bytes(text) == 2 * SHORTEST_BYTES


def test_an_op_that_is_written_out_too_far_is_refused_where_it_is_emitted() -> None:
    terms = [f"abs(x[i] - {n})" for n in range(1024)]
    while len(terms) > 1:
        terms = [f"({a} + {b})" for a, b in zip(terms[::2], terms[1::2])]
    text = f"op f(x: f32[N]) -> y: f32[N] {{\n  y[i] = {terms[0]}\n}}\n"
    with pytest.raises(TriError, match=f"E0771.*`{LIMIT}`"):
        tridsl.compile(text).f.lower(np.zeros(64, np.float32), device="npu:sim", until="emit")


def test_an_object_that_is_too_large_ends_the_build(tmp_path: Path) -> None:
    (tmp_path / "large.o").write_bytes(elf(20000))
    program(tmp_path / "peano" / "bin" / "clang++", f"cp {tmp_path}/large.o kernels.o")
    program(tmp_path / "bin" / "aiecc", "echo --get-xclbin")
    with pytest.raises(TriError, match="E0771.*20000 bytes .as compiled"):
        build_package({KERNELS: "", DESIGN: ""}, "aie2-none-unknown-elf", find_toolchain(tmp_path / "peano", str(tmp_path / "bin")), small())
