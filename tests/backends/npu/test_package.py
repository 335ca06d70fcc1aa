"""Containers as AMD's tools make and read them, of images with nothing in them: `bootgen`, `xclbinutil`, `pyxrt`; and the driver up to "no device"."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import numpy as np
import pytest
from msgspec.structs import replace

from tests.backends.npu.designs import GENERATIONS, subject
from tests.backends.npu.small import small, tensor
from tests.backends.npu.test_hardware import program
from tests.sid_root import SidRoot
from tridsl.backend import BackendUnavailable
from tridsl.backends.npu.build_peano import build_package, find_toolchain
from tridsl.backends.npu.design import ArrayDesign
from tridsl.backends.npu.emit import DESIGN, KERNELS
from tridsl.backends.npu.package import (
    CDO_FILES,
    Packager,
    find_packager,
    make_container,
    make_pdi,
    partition_section,
    repack,
)


def cdo(*words: int) -> bytes:
    """A configuration of these commands: header words, their complement as a checksum."""
    header = (4, 0x004F4443, 0x200, len(words))
    return struct.pack(f"<{5 + len(words)}I", *header, ~sum(header) & 0xFFFFFFFF, *words)


EMPTY = {name: cdo(0x111) for name in CDO_FILES}
"""Of one command that does nothing."""


@pytest.fixture
def tools(sid: SidRoot) -> Packager:
    enter = str(sid.folder / "enter")
    return Packager(bootgen=(enter, "bootgen"), xclbinutil=(enter, "xclbinutil"))


def section(sid: SidRoot, container: Path, kind: str, folder: Path) -> str:
    sid.tool("xclbinutil", "--quiet", "--force", "--input", container, "--dump-section", f"{kind}:section", cwd=folder)
    return (folder / "section").read_text()


SHOWN = """
import json, sys, pyxrt
container = pyxrt.xclbin(sys.argv[1])
kernels = [(k.get_name(), k.get_num_args()) for k in container.get_kernels()]
print(json.dumps({"kernels": kernels, "memories": [m.get_tag() for m in container.get_mems()]}))
"""


def shown(sid: SidRoot, container: Path, scratch: Path) -> dict[str, list[object]]:
    """What `pyxrt.xclbin` finds in a container."""
    done = sid.python("-c", SHOWN, container, scratch=scratch)
    assert done.returncode == 0, done.stderr
    found: dict[str, list[object]] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("generation", GENERATIONS)
def test_xrt_reads_the_kernel_and_its_arguments(sid: SidRoot, tools: Packager, tmp_path: Path, generation: str) -> None:
    design = subject("saxpy", np.float32(2), np.zeros(300, np.float32), np.zeros(300, np.float32), generation=generation).design
    file = tmp_path / "design.xclbin"
    file.write_bytes(make_container(design, make_pdi(EMPTY, tools), tools))
    assert shown(sid, file, tmp_path) == {"kernels": [["MLIR_AIE_saxpy", 6]], "memories": ["HOST", "SRAM"]}
    arguments = ElementTree.fromstring(section(sid, file, "EMBEDDED_METADATA:RAW", tmp_path)).iter("arg")
    assert [(a.get("name"), a.get("offset")) for a in arguments] == [
        ("opcode", "0x00"), ("instr", "0x08"), ("ninstr", "0x10"), ("x", "0x14"), ("y", "0x1c"), ("z", "0x24"),
    ]  # fmt: skip
    partition = json.loads(section(sid, file, "AIE_PARTITION:JSON", tmp_path))["aie_partition"]
    assert partition["partition"]["column_width"] == str(design.columns)
    (image,) = partition["PDIs"]
    assert (tmp_path / image["file_name"]).read_bytes() == make_pdi(EMPTY, tools)


def test_an_image_is_named_by_what_it_holds() -> None:
    (one,), (other,) = (partition_section(small(), pdi)["aie_partition"]["PDIs"] for pdi in (b"one", b"other"))
    assert one["uuid"] != other["uuid"]
    assert partition_section(small(), b"one")["aie_partition"]["PDIs"] == [one]


@pytest.mark.parametrize(
    ("generation", "columns", "starts"), [("aie2", 4, [1]), ("aie2", 1, [1, 2, 3, 4]), ("aie2p", 8, [0]), ("aie2p", 6, [0, 1, 2])]
)
def test_a_partition_begins_where_it_fits(generation: str, columns: int, starts: list[int]) -> None:
    design = replace(small(), generation=generation, columns=columns)
    assert partition_section(design, b"")["aie_partition"]["partition"] == {"column_width": columns, "start_columns": starts}


def many() -> ArrayDesign:
    """A design with more tensors than `aiecc`'s own containers take."""
    return replace(small(), tensors=tuple(tensor(f"t{n}", "input") for n in range(6)))


def test_a_container_with_too_few_arguments_is_packed_anew(sid: SidRoot, tools: Packager, tmp_path: Path) -> None:
    given = make_container(small(), make_pdi(EMPTY, tools), tools)
    file = tmp_path / "design.xclbin"
    file.write_bytes(repack(many(), given, tools))
    assert shown(sid, file, tmp_path)["kernels"] == [["MLIR_AIE_small", 9]]
    assert json.loads(section(sid, file, "AIE_PARTITION:JSON", tmp_path))["aie_partition"]["PDIs"]


@pytest.mark.parametrize("leaves", ["container", "cdo"])
def test_what_aiecc_leaves_becomes_a_container(
    sid: SidRoot, tools: Packager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, leaves: str
) -> None:
    """`aiecc` is played: it makes a container of five tensors, or stops for want of `bootgen` with the CDO files written."""
    given = tmp_path / "given"
    given.mkdir()
    (given / "design.xclbin").write_bytes(make_container(small(), make_pdi(EMPTY, tools), tools))
    for name, content in EMPTY.items():
        (given / f"main_aie_cdo_{name}").write_bytes(content)
    program(tmp_path / "peano" / "bin" / "clang++", "echo object > kernels.o")
    work = f"cp {given}/design.xclbin ." if leaves == "container" else f"mkdir prj; cp {given}/*cdo* prj; echo no bootgen >&2; exit 1"
    program(tmp_path / "bin" / "aiecc", f'[ "$1" = --help ] && echo --get-xclbin && exit; echo insts > insts.bin; {work}')
    for name, command in (("bootgen", tools.bootgen), ("xclbinutil", tools.xclbinutil)):
        program(tmp_path / "bin" / name, f'exec {" ".join(command)} "$@"')
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    built = build_package({KERNELS: "", DESIGN: ""}, "aie2-none-unknown-elf", find_toolchain(tmp_path / "peano"), many())
    (tmp_path / "built.xclbin").write_bytes(built["xclbin"])
    assert shown(sid, tmp_path / "built.xclbin", tmp_path)["kernels"] == [["MLIR_AIE_small", 9]]


def test_the_program_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(BackendUnavailable, match="bootgen") as caught:
        find_packager(str(tmp_path))
    assert "xilinx-bootgen" in (caught.value.diagnostics[0].help or "")
    program(tmp_path / "bootgen", "exit 1")
    with pytest.raises(BackendUnavailable, match="xclbinutil"):
        find_packager(str(tmp_path))
    program(tmp_path / "xclbinutil", "exit 1")
    with pytest.raises(BackendUnavailable, match="takes the files"):
        make_pdi(EMPTY, find_packager(str(tmp_path)))


DRIVER = """
import sys
from tridsl.backend import Binary, Device, Signature
from tridsl.backends.npu.container import pack
from tridsl.backends.npu.driver import NpuDriver
from tridsl.devices.spec import load_chip
from tridsl.diagnostics import TriError

parts = {"design": open(sys.argv[1], "rb").read(), "xclbin": open(sys.argv[2], "rb").read(), "insts": b""}
binary = Binary(backend="npu", entry="small", blob=pack(parts), signature=Signature(params=(), sizes=()))
try:
    NpuDriver().load(binary, Device(name="npu", backend="npu", spec=load_chip("aie2"), description=""))
except TriError as problem:
    print(problem.code, problem)
"""


def test_the_driver_gets_as_far_as_no_device(sid: SidRoot, tools: Packager, tmp_path: Path) -> None:
    """With the real module: it is imported, asked for the first device, and has none."""
    (tmp_path / "design.json").write_bytes(msgspec.json.encode(small()))
    (tmp_path / "design.xclbin").write_bytes(make_container(small(), make_pdi(EMPTY, tools), tools))
    done = sid.python("-c", DRIVER, tmp_path / "design.json", tmp_path / "design.xclbin", scratch=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("E0775") and "XRT has no device: No such device" in done.stdout and "tridsl doctor" in done.stdout
