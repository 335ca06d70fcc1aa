"""Kernel text and design to what the driver loads: for the simulator a library of this machine, for hardware an `xclbin`."""

from __future__ import annotations

import msgspec

from tridsl.backend import Binary, Code
from tridsl.backends.npu.build_peano import build_package, find_toolchain
from tridsl.backends.npu.build_sim import compile_library
from tridsl.backends.npu.container import pack
from tridsl.backends.npu.design import ArrayDesign
from tridsl.backends.npu.emit import DESIGN, KERNELS, files_of
from tridsl.backends.npu.emit_mlir import design_text
from tridsl.devices.spec import DeviceSpec


def build(code: Code, spec: DeviceSpec) -> Binary:
    """BackendUnavailable E0773 without the compiler that it takes."""
    facts = str(dict(code.facts)["design"]).encode()
    files = files_of(code.text)
    if spec.software:
        parts = {"library": compile_library(files[KERNELS], spec.target_triple.partition("-")[0])}
    else:
        tools = find_toolchain()
        design = msgspec.json.decode(facts, type=ArrayDesign)
        if not tools.renamed:
            files[DESIGN] = design_text(design, "2025")
        parts = build_package(files, spec.target_triple, tools, design)
    return Binary(backend="npu", entry=code.entry, blob=pack({"design": facts, **parts}), signature=code.signature)
