"""Emitted texts: goldens of a small design and of whole ops, the eras of the dialect, and the instruction stream word by word."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from tests.backends.npu.designs import GENERATIONS, Subject, subject
from tests.backends.npu.small import small
from tridsl.backends.npu.design import Await, Dimension, SetLock, Task, WriteScalar
from tridsl.backends.npu.emit import DESIGN, INSTRUCTIONS, KERNELS, files_of
from tridsl.backends.npu.emit_instructions import descriptor_words, instruction_text, instructions, scalar_words
from tridsl.backends.npu.emit_mlir import ERAS, design_text
from tridsl.backends.npu.print_design import print_design

GOLDEN = Path(__file__).parents[2] / "golden" / "npu"


def same_as_golden(name: str, text: str, update: bool) -> None:
    file = GOLDEN / name
    if update:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    assert text == file.read_text()


def product(generation: str) -> Subject:
    a, b = np.zeros((20, 48), np.int8), np.zeros((48, 20), np.int8)
    return subject("matmul", a, b, generation=generation, decisions={"C.columns": 1, "C.depth": 16})


def saxpy() -> Subject:
    return subject("saxpy", 2.0, np.zeros(300, np.float32), np.zeros(300, np.float32), decisions={"z.columns": 1})


@pytest.mark.parametrize("generation", GENERATIONS)
def test_the_text_of_a_product(generation: str, update_golden: bool) -> None:
    same_as_golden(f"matmul_i8.{generation}.txt", product(generation).text, update_golden)


def test_the_text_of_a_map_with_a_scalar(update_golden: bool) -> None:
    same_as_golden("saxpy.aie2p.txt", saxpy().text, update_golden)


def test_the_text_of_rows(update_golden: bool) -> None:
    given = subject("softmax", np.zeros((9, 40), np.float32), decisions={"y.columns": 1})
    same_as_golden("softmax.aie2p.kernels.cc", given.kernels, update_golden)
    same_as_golden("softmax.aie2p.array", print_design(given.design), update_golden)


@pytest.mark.parametrize("era", ERAS)
def test_the_three_eras_of_the_dialect(era: Any, update_golden: bool) -> None:
    same_as_golden(f"small.{era}.mlir", design_text(small(), era), update_golden)


def test_a_text_has_its_three_files() -> None:
    files = files_of(saxpy().text)
    assert list(files) == [KERNELS, DESIGN, INSTRUCTIONS]
    assert files[DESIGN].startswith("module {") and files[KERNELS].startswith("// saxpy")


@pytest.mark.parametrize("generation", GENERATIONS)
def test_names_are_defined_once_and_before_their_use(generation: str) -> None:
    """As far as a text without a parser of the dialect can be looked at: brackets are in pairs, every value and block has one definition."""
    text = files_of(product(generation).text)[DESIGN]
    assert all(text.count(a) == text.count(b) for a, b in ("{}", "()", "[]"))
    for region in re.split(r"(?m)^    (?=\S)", text):  # cores and DMA programs have names of their own
        defined = re.findall(r"(?m)^\s*(%[\w]+)(?::\d+)? = ", region)
        assert len(defined) == len(set(defined))
    known = set(re.findall(r"(%\w+)(?::\d+)? =", text)) | set(re.findall(r"scf\.for (%\w+) =", text)) | set(re.findall(r"(%host_\w+):", text))
    assert set(re.findall(r"%[a-zA-Z\d]\w*", text)) <= known
    assert set(re.findall(r"\^bb\d+", text)) == set(re.findall(r"(\^bb\d+):", text))


def test_the_symbols_of_transfers_are_declared() -> None:
    text = files_of(product("aie2").text)[DESIGN]
    assert set(re.findall(r"metadata = @(\w+)", text)) == set(re.findall(r"shim_dma_allocation @(\w+)", text))


# The instruction stream.


def operations(words: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Taken apart by the sizes that the operations have; the header must agree."""
    assert words[3] == 4 * len(words)
    found = []
    at = 4
    while at < len(words):
        code = words[at]
        size = {0x0: 24, 0x1: words[at + 3], 0x80: words[at + 1], 0x81: words[at + 1]}[code] // 4
        found.append(words[at : at + size])
        at += size
    assert at == len(words) and len(found) == words[2]
    return found


def test_the_stream_of_the_small_design() -> None:
    found = operations(instructions(small()))
    assert [o[0] for o in found] == [0x1, 0x81, 0x0, 0x1, 0x81, 0x0, 0x80]
    sent, patch, queue, received, _, token, wait = found
    assert sent[1:4] == (0, 0x1D000, 48) and sent[4] == 32  # descriptor 0: 32 words
    assert patch[6] == 0x1D004 and patch[8] == 0 and patch[10] == 0
    assert queue[2] == 0x1D214 and queue[4] == 0
    assert received[2] == 0x1D000 + 8 * 0x20
    assert token[2] == 0x1D204 and token[4] == 1 << 31 | 8
    assert wait == (0x80, 16, 0, 1 << 8 | 1 << 16)


@pytest.mark.parametrize("generation", GENERATIONS)
def test_every_command_of_a_product_is_in_its_stream(generation: str) -> None:
    design = product(generation).design
    found = operations(instructions(design))
    want = []
    for command in design.sequence:
        want += {Task: [0x1, 0x81, 0x0], Await: [0x80], WriteScalar: [0x0], SetLock: [0x0]}[type(command)]
    assert [o[0] for o in found] == want
    assert len(instruction_text(design).splitlines()) == len(instructions(design))


@pytest.mark.parametrize(("generation", "burst"), [("aie2", 2), ("aie2p", 3)])
def test_descriptors_count_words_and_strides_less_one(generation: str, burst: int) -> None:
    dims = (Dimension(size=5, stride=256), Dimension(size=3, stride=128), Dimension(size=4, stride=32), Dimension(size=16, stride=1))
    words = descriptor_words(dims, 2, generation)
    assert words[0] == 3 * 4 * 8
    assert words[3] == 8 << 20
    assert words[4] == burst << 30 | 4 << 20 | 15
    assert words[5] == 2 << 24 | 63
    assert words[6] == 4 << 20 | 127
    assert words[7] == 1 << 25


def test_standing_still_is_the_queues_count_alone() -> None:
    dims = (Dimension(size=5, stride=0), *(Dimension(size=1, stride=0),) * 2, Dimension(size=16, stride=1))
    assert descriptor_words(dims, 4, "aie2")[6] == 0
    task = Task(tile=(0, 0), direction="out", channel=0, number=0, tensor="x", offset=0, dimensions=dims)
    (_, _, queue) = operations(instructions(replace(small(), sequence=(task,))))
    assert queue[4] == 4 << 16


def test_scalars_have_their_words() -> None:
    design = saxpy().design
    words = instructions(design)
    places = scalar_words(design)
    assert {name for name, _ in places} == {"a"} and len(places) == len(design.cores)
    buffers = {b.name: b for b in design.buffers}
    first = buffers[design.cores[0].scalars or ""]
    at = places[0][1]
    assert words[at] == 0 and words[at - 2] == first.tile[0] << 25 | first.tile[1] << 20 | first.address
