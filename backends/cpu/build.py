"""LLVM IR to object code: the only place of this backend that calls the compiler.

The explicit vectors of `emit` are what runs, so LLVM's own vectorisers, unroller and interleaver stay off; everything else
is the ordinary O2 pipeline. The object is position independent and names few outside symbols (`SYMBOLS`).
"""

from __future__ import annotations

from functools import cache
from typing import Any

import llvmlite.binding as _binding

from tridsl.backend import Binary, Code
from tridsl.devices.spec import DeviceSpec

llvm: Any = _binding

SYMBOLS = frozenset(
    {"memcpy", "memmove", "memset", "aligned_alloc", "free", "tridsl_scratch", "GOMP_parallel", "omp_get_thread_num", "omp_get_num_threads"}
)
"""What an object may ask of the process that loads it."""


def build(code: Code, spec: DeviceSpec) -> Binary:
    """Compile for `spec`."""
    machine = _machine(spec.target_triple, spec.target_cpu, spec.target_features)
    module = _optimised(code, machine)
    return Binary(
        backend="cpu", entry=code.entry, blob=machine.emit_object(module), signature=code.signature, facts=(("triple", spec.target_triple),)
    )


def assembly(code: Code, spec: DeviceSpec) -> str:
    """The machine code of `build` as text, to read (spills, widths) and for tests."""
    machine = _machine(spec.target_triple, spec.target_cpu, spec.target_features)
    return str(machine.emit_assembly(_optimised(code, machine)))


def _optimised(code: Code, machine: Any) -> Any:
    module = llvm.parse_assembly(code.text)
    module.verify()
    options = llvm.create_pipeline_tuning_options(speed_level=2)
    options.loop_vectorization = options.slp_vectorization = options.loop_unrolling = options.loop_interleaving = False
    builder = llvm.create_pass_builder(machine, options)
    passes = builder.getModulePassManager()
    passes.run(module, builder)
    return module


@cache
def _machine(triple: str, cpu: str, features: str) -> Any:
    """A target machine: made once, it costs more than compiling a small kernel."""
    target = _target(triple or llvm.get_process_triple())
    return target.create_target_machine(cpu=cpu, features=features, opt=3, reloc="pic", codemodel="small")


def _target(triple: str) -> Any:
    """LLVM's own target; the others of its targets are set up (1 ms) when one of them is asked for."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    try:
        return llvm.Target.from_triple(triple)
    except RuntimeError:
        llvm.initialize_all_targets()
        llvm.initialize_all_asmprinters()
        return llvm.Target.from_triple(triple)
