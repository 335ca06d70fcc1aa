"""A laid out kernel as text: the kernel functions in C++, the design in MLIR's `aie` dialect, the host's instruction stream."""

from __future__ import annotations

import msgspec

from tridsl.backend import Code, Signature
from tridsl.backends.npu.emit_instructions import instruction_text
from tridsl.backends.npu.emit_kernel import kernel_text
from tridsl.backends.npu.emit_mlir import design_text
from tridsl.backends.npu.lower_array import Laid
from tridsl.devices.spec import DeviceSpec
from tridsl.diagnostics import Diagnostic, TriError

MARK = "// ---- "
"""Begins the line before each file in the emitted text; the file's name follows."""
KERNELS, DESIGN, INSTRUCTIONS = "kernels.cc", "design.mlir", "insts.txt"


def emit(laid: Laid, spec: DeviceSpec) -> Code:
    """All files of a design, one behind the other, and the design itself for whoever builds or simulates it."""
    files = {KERNELS: kernel_text(laid, spec), DESIGN: design_text(laid.design), INSTRUCTIONS: instruction_text(laid.design)}
    text = "".join(f"{MARK}{name}\n{content}" for name, content in files.items())
    return Code(
        entry=laid.design.name,
        text=text,
        extension="txt",
        signature=Signature(params=laid.params, sizes=()),
        facts=(("design", msgspec.json.encode(laid.design).decode()),),
    )


def files_of(text: str) -> dict[str, str]:
    """The files of an emitted text by name."""
    found = {}
    for part in ("\n" + text).split("\n" + MARK)[1:]:
        name, _, content = part.partition("\n")
        found[name.strip()] = content
    return found


def accepts(laid: Laid, spec: DeviceSpec) -> tuple[Diagnostic, ...]:
    """E0774 for a construct that has no AIE code; limits were checked when the design was made."""
    try:
        kernel_text(laid, spec)
    except TriError as problem:
        return problem.diagnostics
    return ()
