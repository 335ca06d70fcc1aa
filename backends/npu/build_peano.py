"""Kernel text and design to an `xclbin`, with the tools on the user's machine: Peano's clang++ for the kernels, mlir-aie's `aiecc` for the rest.

Written from the tools' documentation; neither has been run by this project.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tridsl.backend import BackendUnavailable
from tridsl.backends.npu.design import ArrayDesign
from tridsl.backends.npu.emit import DESIGN, KERNELS
from tridsl.backends.npu.emit_mlir import OBJECT
from tridsl.backends.npu.package import AIECC_TENSORS, cdo_files, find_packager, make_container, make_pdi, repack
from tridsl.backends.npu.program_memory import check_object
from tridsl.devices.spec import load_chip
from tridsl.diagnostics import Diagnostic
from tridsl.environment import peano_folder

XCLBIN, INSTS = "design.xclbin", "insts.bin"
TIMEOUT_SECONDS = 1800.0
KERNEL_FLAGS = (
    "-O2", "-std=c++20", "-Wno-parentheses", "-Wno-attributes", "-Wno-macro-redefined", "-Wno-empty-body", "-DNDEBUG", "-D__AIE_API_AIE_ADF_HPP__",
)  # fmt: skip
"""What mlir-aie compiles its own kernels with. The AIE API's headers come with mlir-aie."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Toolchain:
    """`peano`: its folder; `aiecc`: the program; `include`: the folder with `aie_api/`; `renamed`: the options of 2026 (1.4)."""

    peano: Path
    aiecc: Path
    include: Path
    renamed: bool


def find_toolchain(peano: Path | None = None, path: str | None = None) -> Toolchain:
    """`peano`: where it is installed, otherwise `PEANO_INSTALL_DIR`. BackendUnavailable E0773 names the part that is missing."""
    folder = peano or peano_folder()
    if folder is None or not (folder / "bin" / "clang++").exists():
        raise _missing("Peano (AMD's clang++ for AI Engine cores)", "install llvm-aie and name its folder in PEANO_INSTALL_DIR")
    program = shutil.which("aiecc", path=path) or shutil.which("aiecc.py", path=path)
    if program is None:
        raise _missing("`aiecc` (mlir-aie)", "install mlir-aie and put its tools on PATH")
    aiecc = Path(program)
    include = aiecc.resolve().parent.parent / "include"
    return Toolchain(peano=folder, aiecc=aiecc, include=include, renamed="--get-xclbin" in _help(aiecc))


def commands(tools: Toolchain, triple: str) -> tuple[tuple[str, ...], ...]:
    """What is run in the folder of the emitted files, in order."""
    compile_kernels = (
        str(tools.peano / "bin" / "clang++"), *KERNEL_FLAGS, f"--target={triple}", "-I", str(tools.include), "-c", KERNELS, "-o", OBJECT,
    )  # fmt: skip
    options: tuple[str, ...]
    if tools.renamed:
        options = (f"--peano={tools.peano}", "--get-npu-insts", f"--npu-insts-name={INSTS}", "--get-xclbin", f"--xclbin-name={XCLBIN}")
    else:
        options = (
            "--alloc-scheme=basic-sequential", "--aie-generate-xclbin", f"--xclbin-name={XCLBIN}", "--no-compile-host", "--no-xchesscc", "--no-xbridge",
            "--peano", str(tools.peano), "--aie-generate-npu-insts", f"--npu-insts-name={INSTS}",
        )  # fmt: skip
    return compile_kernels, (str(tools.aiecc), *options, DESIGN)


def build_package(files: dict[str, str], triple: str, tools: Toolchain, design: ArrayDesign) -> dict[str, bytes]:
    """`xclbin`, and `insts` as `aiecc` has it. BackendUnavailable E0773 with what a tool said when it fails; TriError E0771 when the functions are
    more than a core's program memory holds (which a linker would say too, without the reason)."""
    with tempfile.TemporaryDirectory(prefix="tridsl-npu-") as name:
        folder = Path(name)
        for file, content in files.items():
            (folder / file).write_text(content)
        for command in commands(tools, triple):
            try:
                done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False)
            except (OSError, subprocess.TimeoutExpired) as problem:
                raise _missing(f"a working `{Path(command[0]).name}` ({problem})", "run it by hand on the files of `tridsl lower --until emit`") from None
            if done.returncode != 0 and not cdo_files(folder):
                said = (done.stderr or done.stdout).strip()[-2000:]
                raise _missing(f"a `{Path(command[0]).name}` that takes the emitted files; it said: {said}", "report it with the output of `tridsl lower --until emit`")
            if command[-1] == OBJECT and done.returncode == 0:
                check_object(design.name, (folder / OBJECT).read_bytes(), load_chip(design.generation))
        return {"xclbin": _container(folder, design), "insts": (folder / INSTS).read_bytes()}


def _container(folder: Path, design: ArrayDesign) -> bytes:
    """What `aiecc` made, if a call can pass all tensors to it; otherwise one of our own, of its parts."""
    if not (folder / XCLBIN).exists():
        tools, cdo = find_packager(), cdo_files(folder)
        if cdo is None:
            raise _missing("an `aiecc` that leaves a container or CDO files", "report it with the output of `tridsl lower --until emit`")
        return make_container(design, make_pdi(cdo, tools), tools)
    made = (folder / XCLBIN).read_bytes()
    return repack(design, made, find_packager()) if len(design.tensors) > AIECC_TENSORS else made


def _help(program: Path) -> str:
    try:
        return subprocess.run([str(program), "--help"], capture_output=True, text=True, timeout=60, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""


def _missing(what: str, fix: str) -> BackendUnavailable:
    return BackendUnavailable(Diagnostic(code="E0773", message=f"npu: building takes {what}", help=fix))
