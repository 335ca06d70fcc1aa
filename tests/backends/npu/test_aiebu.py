"""The instruction stream as AMD's tools read it: `aiebu-asm` takes it, `aiebu-dump` lists it, and what is listed is what the design says.

A descriptor is taken apart by the fields of the edge's DMA registers (aie-rt, xaiemlgbl_params.h and xaiemlgbl_reginit.c), into the addresses
that it walks.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator, Sequence
from math import prod
from pathlib import Path

import numpy as np
import pytest

from tests.backends.npu.designs import GENERATIONS, subject
from tests.backends.npu.test_kernels import CASES
from tests.sid_root import SidRoot
from tridsl.backends.npu.design import ArrayDesign, Await, Command, Dimension, SetLock, Task, WriteScalar
from tridsl.backends.npu.emit_instructions import instructions, runs

ORDINARY = {"saxpy": "aie2", "softmax": "aie2p", "matmul bf16": "aie2", "matmul i8, deep": "aie2p"}
"""Scalars, rows, elements of two bytes and of one; every other design in the full run."""
TURNS = [
    pytest.param(case, generation, marks=[] if ORDINARY.get(case) == generation else [pytest.mark.full])
    for case in CASES for generation in GENERATIONS
]  # fmt: skip
DESCRIPTORS, QUEUES, LOCKS = 0x1D000, {0x1D204: ("in", 0), 0x1D20C: ("in", 1), 0x1D214: ("out", 0), 0x1D21C: ("out", 1)}, 0x1F000
DIRECTIONS = {"DMA_S2MM": "in", "DMA_MM2S": "out"}
OPERATION = re.compile(
    r"XAIE_IO_(?:"
    r"BLOCKWRITE\.\d+ +(?P<word>0x[0-9a-f]+)"
    r"|BLOCKWRITE +@(?P<block>0x[0-9a-f]+), \[(?P<count>\d+)\]"
    r"|WRITE +@(?P<write>0x[0-9a-f]+), (?P<value>0x[0-9a-f]+)"
    r"|CUSTOM_OP_DDR_PATCH +@(?P<patch>0x[0-9a-f]+), #(?P<argument>\d+), \+(?P<plus>0x[0-9a-f]+)"
    r"|CUSTOM_OP_TCT +R\[(?P<row>\d+)\]\+1, C\[(?P<column>\d+)\]\+1, #(?P<direction>\w+), (?P<channel>\d+)"
    r")"
)


@pytest.fixture
def listing(sid: SidRoot, tmp_path: Path) -> Callable[[Sequence[int]], list[re.Match[str]]]:
    """The operations that AMD's tools find in a stream."""

    def make(words: Sequence[int]) -> list[re.Match[str]]:
        (tmp_path / "insts.bin").write_bytes(struct.pack(f"<{len(words)}I", *words))
        sid.tool("aiebu-asm", "-t", "aie2txn", "-c", "insts.bin", "-o", "insts.elf", cwd=tmp_path)
        lines = [line for line in sid.tool("aiebu-dump", "-d", "insts.elf", cwd=tmp_path).splitlines() if line.startswith("XAIE_IO_")]
        found = [OPERATION.fullmatch(line.strip()) for line in lines]
        assert all(found), [line for line, match in zip(lines, found) if match is None]
        return [match for match in found if match is not None]

    return make


def hexadecimal(match: re.Match[str], group: str) -> int:
    return int(match[group], 16)


def tile_of(address: int) -> tuple[tuple[int, int], int]:
    return (address >> 25, address >> 20 & 31), address & 0xFFFFF


def walked(words: Sequence[int], times: int) -> list[int]:
    """Addresses of 4-byte words, from where the descriptor begins, in `times` runs of it."""

    def field(word: int, low: int, bits: int) -> int:
        return words[word] >> low & (1 << bits) - 1

    assert field(7, 25, 1) == 1, "not valid"
    assert field(6, 26, 6) == 0, "does not begin with the first iteration"
    length, wraps = words[0], (field(3, 20, 10), field(4, 20, 10))
    steps = [field(3, 0, 20) + 1, field(4, 0, 20) + 1, field(5, 0, 20) + 1]
    iterations, iteration_step = field(6, 20, 6) + 1, field(6, 0, 20) + 1
    found = []
    for run in range(times):
        start = run % iterations * iteration_step
        for n in range(length):
            inner, rest = (n % wraps[0], n // wraps[0]) if wraps[0] else (n, 0)
            middle, outer = (rest % wraps[1], rest // wraps[1]) if wraps[1] else (rest, 0)
            found.append(start + inner * steps[0] + middle * steps[1] + outer * steps[2])
    return found


def meant(dimensions: Sequence[Dimension], element_bytes: int, repeats: int) -> list[int]:
    """The same from what the design says: its elements in order, four bytes at a time."""
    places = np.zeros(1, np.int64)
    for d in dimensions:
        places = (places[:, None] + np.arange(d.size) * d.stride).ravel()
    addresses = (places[:, None] * element_bytes + np.arange(element_bytes)).ravel()
    words = addresses.reshape(-1, 4)
    assert (words[:, 0] % 4 == 0).all() and (words == words[:, :1] + np.arange(4)).all()
    return [int(w) for w in words[:, 0] // 4] * repeats


def commands(found: Sequence[re.Match[str]], design: ArrayDesign) -> Iterator[tuple[Command, list[int]]]:
    """What each group of operations tells the array to do, with the addresses of its transfer."""
    cores = {(b.tile, b.address): b.name for b in design.buffers}
    numbers = {(lock.tile, lock.number): lock.name for lock in design.locks}
    scalars = [c.name for c in design.sequence if isinstance(c, WriteScalar)]
    at = 0
    while at < len(found):
        match = found[at]
        if match["direction"]:
            tile = int(match["column"]), int(match["row"])
            yield Await(tile=tile, direction=DIRECTIONS[match["direction"]], channel=int(match["channel"])), []  # type: ignore[arg-type]  # the table's values are the literals
            at += 1
        elif match["block"]:
            count = int(match["count"])
            words = [hexadecimal(m, "word") for m in found[at + 1 : at + 1 + count]]
            patch, start = found[at + 1 + count : at + 3 + count]
            tile, offset = tile_of(hexadecimal(match, "block"))
            assert hexadecimal(patch, "patch") == hexadecimal(match, "block") + 4  # the word of the address
            queue, register = tile_of(hexadecimal(start, "write"))
            direction, channel = QUEUES[register]
            value = hexadecimal(start, "value")
            number, times = value & 15, (value >> 16 & 255) + 1
            assert queue == tile and offset == DESCRIPTORS + 0x20 * number
            tensor = design.tensors[int(patch["argument"])]
            yield Task(
                tile=tile, direction=direction, channel=channel, number=number, tensor=tensor.name,  # type: ignore[arg-type]  # as above
                offset=hexadecimal(patch, "plus") // tensor.element_bytes, dimensions=(), token=bool(value >> 31),
            ), walked(words, times)  # fmt: skip
            at += 3 + count
        else:
            tile, offset = tile_of(hexadecimal(match, "write"))
            if offset >= LOCKS:
                yield SetLock(lock=numbers[tile, (offset - LOCKS) // 16], value=hexadecimal(match, "value")), []
            else:
                name = next(name for (place, address), name in cores.items() if place == tile and 0 <= offset - address < 4 * len(scalars))
                base = next(b.address for b in design.buffers if b.name == name)
                yield WriteScalar(name=scalars.pop(0), buffer=name, word=(offset - base) // 4), []
            at += 1


@pytest.mark.parametrize(("case", "generation"), TURNS)
def test_amds_tools_list_what_the_design_says(listing: Callable[[Sequence[int]], list[re.Match[str]]], case: str, generation: str) -> None:
    name, arguments, decisions = CASES[case]
    design = subject(name, *arguments(), generation=generation, decisions=decisions).design
    listed = list(commands(listing(instructions(design)), design))
    assert len(listed) == len(design.sequence)
    sizes = {t.name: t.element_bytes for t in design.tensors}
    for (command, addresses), said in zip(listed, design.sequence):
        if isinstance(said, Task):
            assert addresses == meant(said.dimensions, sizes[said.tensor], said.repeats)
            assert runs(said) * prod(d.size for d in said.dimensions[-3:]) * sizes[said.tensor] == 4 * len(addresses)
            said = Task(
                tile=said.tile, direction=said.direction, channel=said.channel, number=said.number, tensor=said.tensor, offset=said.offset,
                dimensions=(), token=said.token,
            )  # fmt: skip
        assert command == said


@pytest.mark.parametrize("damage", ["cut short", "no such operation"])
def test_amds_tools_refuse_a_damaged_stream(sid: SidRoot, tmp_path: Path, damage: str) -> None:
    """So that what they list is worth something."""
    words = list(instructions(subject("silu", np.zeros(300, np.float32)).design))
    broken = words[:-1] if damage == "cut short" else [*words[:4], 0x7F, *words[5:]]
    (tmp_path / "insts.bin").write_bytes(struct.pack(f"<{len(broken)}I", *broken))
    taken = sid.run("aiebu-asm", "-t", "aie2txn", "-c", "insts.bin", "-o", "insts.elf", cwd=tmp_path)
    assert taken.returncode != 0 or sid.run("aiebu-dump", "-d", "insts.elf", cwd=tmp_path).returncode != 0
