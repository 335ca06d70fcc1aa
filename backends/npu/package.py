"""A container (`xclbin`) of what configures the array and of what a call passes: AMD's `bootgen` and `xclbinutil` make it.

    core ELFs, routes, descriptors as CDO files  --bootgen-->  PDI  --xclbinutil-->  xclbin

The CDO files come from `aiecc`, which makes them of Peano's core ELFs and leaves them where the two programs were missing. Its own container has
room for five tensors; `repack` gives it a kernel named after the design, with an argument for each tensor. Sections and numbers are those
that mlir-aie writes (tools/aiecc). Containers load in `pyxrt.xclbin`; none has configured an NPU.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_OID, uuid5

from tridsl.backend import BackendUnavailable
from tridsl.backends.npu.design import ArrayDesign
from tridsl.diagnostics import Diagnostic

KERNEL = "MLIR_AIE"
"""Begins the name of every kernel; the design's follows."""
KERNEL_ID = "0x901"
INSTANCE = "MLIRAIE"
PDI_ID = "0x01"
OPERATIONS_PER_CYCLE = "2048"
USABLE_COLUMNS = {"aie2": (1, 4), "aie2p": (0, 8)}
"""First column that a partition may begin with, and how many there are: XDNA1's column 0 has no DMA to the host's memory."""
CDO_FILES = ("elfs.bin", "init.bin", "enable.bin")
"""Cores' programs; locks, descriptors and routes; the start. In the order in which they are carried out."""
AIECC_TENSORS = 5
"""What a call of `aiecc`'s own container can pass."""
PDI = "design.pdi"
TIMEOUT_SECONDS = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Packager:
    """Commands that start the two programs."""

    bootgen: tuple[str, ...]
    xclbinutil: tuple[str, ...]


def find_packager(path: str | None = None) -> Packager:
    """Both programs on PATH. BackendUnavailable E0773 names the one that is missing."""
    found = []
    for name, package in (("bootgen", "xilinx-bootgen"), ("xclbinutil", "libxrt-utils")):
        program = shutil.which(name, path=path)
        if program is None:
            raise _missing(f"`{name}`", f"install it (Debian sid: {package})")
        found.append((program,))
    return Packager(bootgen=found[0], xclbinutil=found[1])


def kernel_name(design: ArrayDesign) -> str:
    return f"{KERNEL}_{design.name}"


def make_pdi(cdo: Mapping[str, bytes], tools: Packager) -> bytes:
    """The image that configures a partition, of the files `CDO_FILES`."""
    files = " ".join(f"file={name}" for name in CDO_FILES)
    with tempfile.TemporaryDirectory(prefix="tridsl-npu-") as name:
        folder = Path(name)
        for file in CDO_FILES:
            (folder / file).write_bytes(cdo[file])
        (folder / "design.bif").write_text(
            "all:\n{\n  id_code = 0x14ca8093\n  extended_id_code = 0x01\n"
            f"  image\n  {{\n    name=aie_image, id=0x1c000000\n    {{ type=cdo {files} }}\n  }}\n}}\n"
        )
        _run((*tools.bootgen, "-arch", "versal", "-image", "design.bif", "-o", PDI, "-w"), folder)
        return (folder / PDI).read_bytes()


def make_container(design: ArrayDesign, pdi: bytes, tools: Packager) -> bytes:
    """The container of `design`, which `pdi` configures."""
    with tempfile.TemporaryDirectory(prefix="tridsl-npu-") as name:
        folder = Path(name)
        (folder / PDI).write_bytes(pdi)
        (folder / "partition.json").write_text(json.dumps(partition_section(design, pdi), indent=2))
        return _contained(design, folder, tools)


def repack(design: ArrayDesign, container: bytes, tools: Packager) -> bytes:
    """What another container configures, as one of ours."""
    with tempfile.TemporaryDirectory(prefix="tridsl-npu-") as name:
        folder = Path(name)
        (folder / "given.xclbin").write_bytes(container)
        _run((*tools.xclbinutil, "--quiet", "--input", "given.xclbin", "--dump-section", "AIE_PARTITION:JSON:partition.json"), folder)
        return _contained(design, folder, tools)


def cdo_files(folder: Path) -> dict[str, bytes] | None:
    """The CDO files that `aiecc` left in its folder, where all are there: it puts the device's name before theirs."""
    found = {}
    for name in CDO_FILES:
        file = next(iter(sorted(folder.rglob(f"*cdo_{name}"))), None)
        if file is None:
            return None
        found[name] = file.read_bytes()
    return found


def _contained(design: ArrayDesign, folder: Path, tools: Packager) -> bytes:
    """Of `partition.json` and the images that it names."""
    (folder / "memory.json").write_text(json.dumps(memory_section(), indent=2))
    (folder / "kernels.json").write_text(json.dumps(kernel_section(design), indent=2))
    command = (
        *tools.xclbinutil, "--add-replace-section", "MEM_TOPOLOGY:JSON:memory.json", "--add-kernel", "kernels.json",
        "--add-replace-section", "AIE_PARTITION:JSON:partition.json", "--force", "--quiet", "--output", "design.xclbin",
    )  # fmt: skip
    _run(command, folder)
    return (folder / "design.xclbin").read_bytes()


def memory_section() -> dict[str, Any]:
    """Where buffers may be: the host's memory, and the controller's for instructions."""
    banks = (("HOST", "0x10000"), ("SRAM", "0xc000"))
    data = [{"m_type": "MEM_DRAM", "m_used": "1", "m_sizeKB": size, "m_tag": tag, "m_base_address": "0x4000000"} for tag, size in banks]
    return {"mem_topology": {"m_count": str(len(data)), "m_mem_data": data}}


def kernel_section(design: ArrayDesign) -> dict[str, Any]:
    """The kernel's arguments: opcode, instructions, their number, then the design's tensors."""
    arguments = [
        {"name": "opcode", "address-qualifier": "SCALAR", "type": "uint64_t", "offset": "0x00"},
        {"name": "instr", "memory-connection": "SRAM", "address-qualifier": "GLOBAL", "type": "char *", "offset": "0x08"},
        {"name": "ninstr", "address-qualifier": "SCALAR", "type": "uint32_t", "offset": "0x10"},
    ]
    arguments += [
        {"name": t.name, "memory-connection": "HOST", "address-qualifier": "GLOBAL", "type": "void*", "offset": hex(0x14 + 8 * n)}
        for n, t in enumerate(design.tensors)
    ]
    kernel = {
        "name": kernel_name(design), "type": "dpu",
        "extended-data": {"subtype": "DPU", "functional": "0", "dpu_kernel_id": KERNEL_ID},
        "arguments": arguments, "instances": [{"name": INSTANCE}],
    }  # fmt: skip
    return {"ps-kernels": {"kernels": [kernel]}}


def partition_section(design: ArrayDesign, pdi: bytes) -> dict[str, Any]:
    """The columns that the design takes, every place where they may begin, and the image that configures them."""
    first, usable = USABLE_COLUMNS[design.generation]
    starts = list(range(first, first + usable - design.columns + 1))
    image = {
        "uuid": str(uuid5(NAMESPACE_OID, sha256(pdi).hexdigest())), "file_name": PDI,
        "cdo_groups": [{"name": "DPU", "type": "PRIMARY", "pdi_id": PDI_ID, "dpu_kernel_ids": [KERNEL_ID], "pre_cdo_groups": ["0xC1"]}],
    }  # fmt: skip
    partition = {
        "name": "QoS", "operations_per_cycle": OPERATIONS_PER_CYCLE, "inference_fingerprint": "23423", "pre_post_fingerprint": "12345",
        "partition": {"column_width": design.columns, "start_columns": starts}, "PDIs": [image],
    }  # fmt: skip
    return {"aie_partition": partition}


def _run(command: Sequence[str], folder: Path) -> None:
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as problem:
        raise _missing(f"a working `{command[0]}` ({problem})", "reinstall it") from None
    if done.returncode != 0:
        said = (done.stderr + done.stdout).strip()[-2000:]
        raise _missing(f"a `{Path(command[0]).name}` that takes the files; it said: {said}", "report it with the output of `tridsl lower --until emit`")


def _missing(what: str, fix: str) -> BackendUnavailable:
    return BackendUnavailable(Diagnostic(code="E0773", message=f"npu: packaging takes {what}", help=fix))
