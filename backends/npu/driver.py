"""The NPUs of this machine, and the ones that `npu:sim` plays."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import import_module
from typing import Any

import ml_dtypes
import msgspec
import numpy as np
from numpy.typing import NDArray

from tridsl.backend import BackendUnavailable, Binary, Device, Executable
from tridsl.backends.npu.build_sim import Library
from tridsl.backends.npu.container import unpack
from tridsl.backends.npu.design import ArrayDesign
from tridsl.backends.npu.emit_instructions import instructions, scalar_words
from tridsl.backends.npu.facts import absent, npu_on_bus, this_machine
from tridsl.backends.npu.memory import ELEMENTS, from_array_order, to_array_order
from tridsl.backends.npu.simulate import Fault, Simulator
from tridsl.backends.npu.xrt import Contexts
from tridsl.devices.spec import ArraySpec, DeviceSpec, load_chip
from tridsl.diagnostics import Diagnostic, error
from tridsl.dtypes import BF16, NUMPY_TYPES
from tridsl.ir.op import Scalar, Tensor

SIMULATED = {"npu:sim": "aie2p", "npu:sim:aie2p": "aie2p", "npu:sim:aie2": "aie2"}
"""Names of simulated devices, and the generation that each plays."""


@dataclass(slots=True, kw_only=True)
class NpuDriver:
    _played: dict[str, Device] = field(default_factory=dict)
    _device: Contexts | None = None

    def devices(self) -> tuple[Device, ...]:
        """The NPU of this machine. BackendUnavailable E0775 says which part is missing."""
        machine = this_machine()
        problem, found = absent(machine), npu_on_bus(machine)
        if problem is not None or found is None:
            raise BackendUnavailable(problem or Diagnostic(code="E0775", message="npu: none on the PCI bus"))
        return (Device(name="npu", backend="npu", spec=load_chip(found.generation), description=found.product),)

    def played(self, name: str) -> Device | None:
        """The simulated device of this name."""
        generation = SIMULATED.get(name)
        if generation is None:
            return None
        if name not in self._played:
            spec: DeviceSpec = replace(load_chip(generation), software=True, simulated=True)
            self._played[name] = Device(name=name, backend="npu", spec=spec, description=f"{generation}, simulated on this machine")
        return self._played[name]

    def load(self, binary: Binary, device: Device) -> Executable:
        """Raises ValueError when `binary` is not one of this backend's."""
        parts = unpack(binary.blob)
        design = msgspec.json.decode(parts["design"], type=ArrayDesign)
        assert device.spec.array is not None
        if not device.spec.software:
            return OnArray(binary=binary, design=design, xclbin=parts["xclbin"], contexts=self._contexts(design.generation))
        return Simulated(binary=binary, design=design, library=Library(parts["library"]), facts=device.spec.array)


    def _contexts(self, generation: str) -> Contexts:
        if self._device is None:
            try:
                xrt = import_module("pyxrt")
                self._device = Contexts(xrt=xrt, device=xrt.device(0), generation=generation)
            except (ImportError, RuntimeError) as problem:
                what = "XRT's Python module does not load" if isinstance(problem, ImportError) else "XRT has no device"
                raise BackendUnavailable(Diagnostic(code="E0775", message=f"npu: {what}: {str(problem).strip()}", help="`tridsl doctor` lists what it takes")) from None
        return self._device


@dataclass(slots=True, kw_only=True, eq=False)
class OnArray:
    """A design on an NPU (`backend.Executable`)."""

    binary: Binary
    design: ArrayDesign
    xclbin: bytes
    contexts: Contexts
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, slots: Sequence[Any], threads: int) -> None:
        """TriError E0776 when the run does not complete."""
        params, laid, scalars = arguments_of(self.binary, self.design, slots)
        words = list(instructions(self.design))
        for name, at in scalar_words(self.design):
            words[at] = int.from_bytes(scalars[name], "little")
        order = sorted(range(len(self.design.tensors)), key=lambda n: self.design.tensors[n].role)
        inputs = [laid[self.design.tensors[n].name] for n in order if self.design.tensors[n].role == "input"]
        outputs = [laid[self.design.tensors[n].name] for n in order if self.design.tensors[n].role == "output"]
        with self._lock:
            self.contexts.run(self.xclbin, np.array(words, np.uint32).tobytes(), inputs, outputs, order)
        for tensor in self.design.tensors:
            if tensor.role == "output":
                from_array_order(laid[tensor.name], tensor, params[tensor.name])


@dataclass(slots=True, kw_only=True, eq=False)
class Simulated:
    """A design that the simulator runs (`backend.Executable`). Every call begins with the array as it is configured."""

    binary: Binary
    design: ArrayDesign
    library: Library
    facts: ArraySpec
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, slots: Sequence[Any], threads: int) -> None:
        """`threads` means nothing here. TriError E0776 for what hardware would have answered with wrong numbers or not at all."""
        params, laid, scalars = arguments_of(self.binary, self.design, slots)
        simulator = Simulator(self.design, self.library, self.facts.lock_maximum, self.facts.shim_queue_tasks)
        with self._lock:  # the stand-in's rounding mode is one for the process, as a core's is one for the core
            try:
                simulator.run(laid, scalars)
            except Fault as fault:
                raise error(
                    "E0776", f"simulated NPU: {fault}", help="this is a fault of tridsl's NPU backend; the same operation on another device is not affected"
                ) from None
        for tensor in self.design.tensors:
            if tensor.role == "output":
                from_array_order(laid[tensor.name], tensor, params[tensor.name])


def arguments_of(binary: Binary, design: ArrayDesign, slots: Sequence[Any]) -> tuple[dict[str, Any], dict[str, NDArray[Any]], dict[str, bytes]]:
    """By name: what was passed, the tensors in the array's order (results empty), the scalars as words."""
    params = list(zip(binary.signature.params, slots))
    given = {p.name: value for p, value in params}
    laid: dict[str, NDArray[Any]] = {}
    for tensor in design.tensors:
        empty = np.zeros(int(np.prod(tensor.shape)), ELEMENTS[tensor.element_bytes])
        laid[tensor.name] = to_array_order(np.asarray(given[tensor.name]), tensor) if tensor.role == "input" else empty
    return given, laid, {p.name: word_of(p, value) for p, value in params if isinstance(p, Scalar)}


def word_of(param: Scalar | Tensor, value: Any) -> bytes:
    """A scalar in the low bytes of the 4 that the host writes."""
    if param.dtype == BF16:
        return np.asarray(value, ml_dtypes.bfloat16).tobytes().ljust(4, b"\0")
    raw = np.asarray(value, NUMPY_TYPES[param.dtype])
    return raw.astype(np.int32).tobytes() if param.dtype.is_integer and raw.itemsize < 4 else raw.tobytes()[:4]


@cache
def process_driver() -> NpuDriver:
    return NpuDriver()
