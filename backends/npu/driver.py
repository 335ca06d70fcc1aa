"""The NPUs of this machine, and the ones that `npu:sim` plays."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import import_module
from typing import Any, Protocol

import ml_dtypes
import msgspec
import numpy as np
from numpy.typing import NDArray

from tridsl.backend import BackendUnavailable, Binary, Device, Executable
from tridsl.backends.npu.build_sim import Library
from tridsl.backends.npu.container import unpack
from tridsl.backends.npu.design import ArrayDesign
from tridsl.backends.npu.emit import BETWEEN, FACT, Between, launches_in, numbered
from tridsl.backends.npu.emit_instructions import instructions, scalar_words
from tridsl.backends.npu.facts import absent, npu_on_bus, this_machine
from tridsl.backends.npu.gather import gathered
from tridsl.backends.npu.memory import ELEMENTS, from_array_order, to_array_order
from tridsl.backends.npu.simulate import Fault, Simulator
from tridsl.backends.npu.xrt import Contexts
from tridsl.devices.spec import ArraySpec, DeviceSpec, load_chip
from tridsl.diagnostics import Diagnostic, error
from tridsl.dtypes import BF16, DTYPES, NUMPY_TYPES
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
        several = BETWEEN in parts
        between = msgspec.json.decode(parts[BETWEEN], type=tuple[Between, ...]) if several else ()
        launches: list[Launch] = []
        for n in range(launches_in(parts)):
            design = msgspec.json.decode(parts[numbered(FACT, n, several=several)], type=ArrayDesign)
            assert device.spec.array is not None
            if device.spec.software:
                library = Library(parts[numbered("library", n, several=several)])
                launches.append(Simulated(design=design, library=library, facts=device.spec.array))
            else:
                launches.append(OnArray(design=design, xclbin=parts[numbered("xclbin", n, several=several)], contexts=self._contexts(design.generation)))
        return Launched(binary=binary, launches=tuple(launches), between=between)


    def _contexts(self, generation: str) -> Contexts:
        if self._device is None:
            try:
                xrt = import_module("pyxrt")
                self._device = Contexts(xrt=xrt, device=xrt.device(0), generation=generation)
            except (ImportError, RuntimeError) as problem:
                what = "XRT's Python module does not load" if isinstance(problem, ImportError) else "XRT has no device"
                raise BackendUnavailable(Diagnostic(code="E0775", message=f"npu: {what}: {str(problem).strip()}", help="`tridsl doctor` lists what it takes")) from None
        return self._device


class Launch(Protocol):
    """One design, ready to run."""

    def run(self, given: Mapping[str, Any], scalars: Mapping[str, bytes]) -> None:
        """Arrays and scalars by name; results are written into their arrays."""


@dataclass(slots=True, kw_only=True, eq=False)
class Launched:
    """Designs one after the other, mostly one (`backend.Executable`), with tensors of their own between."""

    binary: Binary
    launches: tuple[Launch, ...]
    between: tuple[Between, ...]

    def __call__(self, slots: Sequence[Any], threads: int) -> None:
        """`threads` means nothing here. TriError E0776 when a run does not complete, or would have answered with wrong numbers."""
        params = list(zip(self.binary.signature.params, slots))
        given = {p.name: value for p, value in params}
        given |= {t.name: np.zeros(t.shape, NUMPY_TYPES[DTYPES[t.dtype]]) for t in self.between}
        scalars = {p.name: word_of(p, value) for p, value in params if isinstance(p, Scalar)}
        for launch in self.launches:
            launch.run(given, scalars)


@dataclass(slots=True, kw_only=True, eq=False)
class OnArray:
    """A design on an NPU."""

    design: ArrayDesign
    xclbin: bytes
    contexts: Contexts
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def run(self, given: Mapping[str, Any], scalars: Mapping[str, bytes]) -> None:
        laid = laid_out(self.design, given)
        words = list(instructions(self.design))
        for name, at in scalar_words(self.design):
            words[at] = int.from_bytes(scalars[name], "little")
        order = sorted(range(len(self.design.tensors)), key=lambda n: self.design.tensors[n].role)
        inputs = [laid[self.design.tensors[n].name] for n in order if self.design.tensors[n].role == "input"]
        outputs = [laid[self.design.tensors[n].name] for n in order if self.design.tensors[n].role == "output"]
        with self._lock:
            self.contexts.run(self.xclbin, np.array(words, np.uint32).tobytes(), inputs, outputs, order)
        brought_back(self.design, laid, given)


@dataclass(slots=True, kw_only=True, eq=False)
class Simulated:
    """A design that the simulator runs. Every run begins with the array as it is configured."""

    design: ArrayDesign
    library: Library
    facts: ArraySpec
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def run(self, given: Mapping[str, Any], scalars: Mapping[str, bytes]) -> None:
        laid = laid_out(self.design, given)
        simulator = Simulator(self.design, self.library, self.facts.lock_maximum, self.facts.shim_queue_tasks)
        with self._lock:  # the stand-in's rounding mode is one for the process, as a core's is one for the core
            try:
                simulator.run(laid, scalars)
            except Fault as fault:
                raise error(
                    "E0776", f"simulated NPU: {fault}", help="this is a fault of tridsl's NPU backend; the same operation on another device is not affected"
                ) from None
        brought_back(self.design, laid, given)


def laid_out(design: ArrayDesign, given: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """The tensors in the array's order, by name; results are empty."""
    laid: dict[str, NDArray[Any]] = {}
    for tensor in design.tensors:
        empty = np.zeros(int(np.prod(tensor.shape)), ELEMENTS[tensor.element_bytes])
        laid[tensor.name] = to_array_order(np.asarray(given[tensor.name]), tensor) if tensor.role == "input" else empty
    return laid


def brought_back(design: ArrayDesign, laid: Mapping[str, NDArray[Any]], given: Mapping[str, Any]) -> None:
    """The results, into the arrays that were passed for them."""
    packed = {g.packed for g in design.gathers}
    for tensor in design.tensors:
        if tensor.role == "output" and tensor.name not in packed:
            from_array_order(laid[tensor.name], tensor, given[tensor.name])
    for gather, values in gathered(design, laid):
        given[gather.result][: values.size] = values
        given[gather.length][...] = values.size


def word_of(param: Scalar | Tensor, value: Any) -> bytes:
    """A scalar in the low bytes of the 4 that the host writes."""
    if param.dtype == BF16:
        return np.asarray(value, ml_dtypes.bfloat16).tobytes().ljust(4, b"\0")
    raw = np.asarray(value, NUMPY_TYPES[param.dtype])
    return raw.astype(np.int32).tobytes() if param.dtype.is_integer and raw.itemsize < 4 else raw.tobytes()[:4]


@cache
def process_driver() -> NpuDriver:
    return NpuDriver()
