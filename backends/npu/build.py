"""Kernel text and design to what the driver loads: for the simulator a library of this machine."""

from __future__ import annotations

from tridsl.backend import BackendUnavailable, Binary, Code
from tridsl.backends.npu.build_sim import compile_library
from tridsl.backends.npu.container import pack
from tridsl.backends.npu.emit import KERNELS, files_of
from tridsl.backends.npu.facts import absent
from tridsl.devices.spec import DeviceSpec


def build(code: Code, spec: DeviceSpec) -> Binary:
    """BackendUnavailable E0773 or E0775 without the compiler that it takes."""
    if not spec.software:
        raise BackendUnavailable(absent())
    library = compile_library(files_of(code.text)[KERNELS], spec.target_triple.partition("-")[0])
    design = str(dict(code.facts)["design"]).encode()
    return Binary(backend="npu", entry=code.entry, blob=pack({"design": design, "library": library}), signature=code.signature)
