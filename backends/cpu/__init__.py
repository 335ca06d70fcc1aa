"""The CPU backend: loop IR to LLVM IR to object code, run in this process.

Imported when a CPU is first named. LLVM itself (50 ms) is imported by the first kernel that has to be compiled, so a process
that only runs cached kernels never loads it; that is why `_emit` and `_build` import late, and what else only a compilation needs.
"""

from __future__ import annotations

from tridsl.backend import Backend, Binary, Code
from tridsl.backends.cpu.driver import driver
from tridsl.backends.cpu.lower import LOWER
from tridsl.devices.spec import DeviceSpec
from tridsl.diagnostics import Diagnostic
from tridsl.ir.loop import Kernel


def _accepts(kernel: Kernel, spec: DeviceSpec) -> tuple[Diagnostic, ...]:
    from tridsl.backends.cpu.accepts import accepts  # start-up time

    return accepts(kernel, spec)


def _emit(kernel: Kernel, spec: DeviceSpec) -> Code:
    from tridsl.backends.cpu.emit import emit  # start-up time: imports llvmlite

    return emit(kernel, spec)


def _build(code: Code, spec: DeviceSpec) -> Binary:
    from tridsl.backends.cpu.build import build  # start-up time: imports llvmlite

    return build(code, spec)


BACKEND = Backend(
    name="cpu",
    version="4",
    kind="cpu",
    lower=LOWER,
    accepts=_accepts,
    emit=_emit,
    build=_build,
    driver=driver,
)
