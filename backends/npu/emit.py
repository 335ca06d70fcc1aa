"""A laid out kernel as text: the kernel functions in C++, the design in MLIR's `aie` dialect, the host's instruction stream."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from tridsl.backend import Code, Signature
from tridsl.backends.npu.emit_instructions import instruction_text
from tridsl.backends.npu.emit_kernel import kernel_text
from tridsl.backends.npu.emit_mlir import design_text
from tridsl.backends.npu.lower_array import Laid, Launches
from tridsl.backends.npu.program_memory import check_text
from tridsl.devices.spec import DeviceSpec
from tridsl.diagnostics import Diagnostic
from tridsl.ir.expr import Const

MARK = "// ---- "
"""Begins the line before each file in the emitted text; the file's name follows."""
KERNELS, DESIGN, INSTRUCTIONS = "kernels.cc", "design.mlir", "insts.txt"
FACT, BETWEEN = "design", "between"
"""Facts of the code, and parts of a binary: the design as JSON, and the tensors between several."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Between:
    """A tensor that one launch makes and another reads."""

    name: str
    dtype: str
    shape: tuple[int, ...]


def emit(laid: Laid | Launches, spec: DeviceSpec) -> Code:
    """All files of a design, one behind the other, and the design itself for whoever builds or simulates it. Of several launches the files of each
    have its number in front. E0774 for a construct that has no AIE code, E0771 for more of it than a core holds."""
    parts = laid.parts if isinstance(laid, Launches) else (laid,)
    several = len(parts) > 1
    text = ""
    facts: list[tuple[str, str]] = []
    for n, part in enumerate(parts):
        kernels = kernel_text(part, spec)
        check_text(part.design.name, kernels, spec)
        files = {KERNELS: kernels, DESIGN: design_text(part.design), INSTRUCTIONS: instruction_text(part.design)}
        text += "".join(f"{MARK}{numbered(name, n, several=several)}\n{content}" for name, content in files.items())
        facts.append((numbered(FACT, n, several=several), msgspec.json.encode(part.design).decode()))
    if isinstance(laid, Launches):
        between = [Between(name=t.name, dtype=str(t.dtype), shape=tuple(int(i.value) for i in t.shape if isinstance(i, Const))) for t in laid.between]
        facts.append((BETWEEN, msgspec.json.encode(between).decode()))
    entry = laid.name if isinstance(laid, Launches) else laid.design.name
    return Code(entry=entry, text=text, extension="txt", signature=Signature(params=laid.params, sizes=()), facts=tuple(facts))


def numbered(name: str, launch: int, *, several: bool) -> str:
    return f"{launch}/{name}" if several else name


def launches_in(names: Iterable[str]) -> int:
    """How many designs there are, from the names of their parts."""
    return sum(name.rpartition("/")[2] == FACT for name in names)


def files_of(text: str) -> dict[str, str]:
    """The files of an emitted text by name."""
    found = {}
    for part in ("\n" + text).split("\n" + MARK)[1:]:
        name, _, content = part.partition("\n")
        found[name.strip()] = content
    return found


def accepts(laid: Laid | Launches, spec: DeviceSpec) -> tuple[Diagnostic, ...]:
    """Nothing: limits were checked when the designs were made, and `emit` says itself what it has no words for."""
    return ()
