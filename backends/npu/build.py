"""Kernel text and design to what the driver loads: for the simulator a library of this machine, for hardware an `xclbin`."""

from __future__ import annotations

import msgspec

from tridsl.backend import Binary, Code
from tridsl.backends.npu.build_peano import build_package, find_toolchain
from tridsl.backends.npu.build_sim import compile_library
from tridsl.backends.npu.container import pack
from tridsl.backends.npu.design import ArrayDesign
from tridsl.backends.npu.emit import BETWEEN, DESIGN, FACT, INSTRUCTIONS, KERNELS, files_of, launches_in, numbered
from tridsl.backends.npu.emit_mlir import design_text
from tridsl.devices.spec import DeviceSpec


def build(code: Code, spec: DeviceSpec) -> Binary:
    """BackendUnavailable E0773 without the compiler that it takes."""
    facts = {name: str(value).encode() for name, value in code.facts}
    several = BETWEEN in facts
    files = files_of(code.text)
    parts = {name: content for name, content in facts.items() if several or name == FACT}
    for n in range(launches_in(facts)):
        own = {name: files[numbered(name, n, several=several)] for name in (KERNELS, DESIGN, INSTRUCTIONS)}
        made = _built(own, facts[numbered(FACT, n, several=several)], spec)
        parts |= {numbered(name, n, several=several): content for name, content in made.items()}
    return Binary(backend="npu", entry=code.entry, blob=pack(parts), signature=code.signature)


def _built(files: dict[str, str], facts: bytes, spec: DeviceSpec) -> dict[str, bytes]:
    """One design."""
    if spec.software:
        return {"library": compile_library(files[KERNELS], spec.target_triple.partition("-")[0])}
    tools = find_toolchain()
    design = msgspec.json.decode(facts, type=ArrayDesign)
    if not tools.renamed:
        files[DESIGN] = design_text(design, "2025")
    return build_package(files, spec.target_triple, tools, design)
