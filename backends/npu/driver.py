"""The NPUs of this machine, and the ones that `npu:sim` plays."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import ml_dtypes
import msgspec
import numpy as np
from numpy.typing import NDArray

from tridsl.backend import BackendUnavailable, Binary, Device, Executable
from tridsl.backends.npu.build_sim import Library
from tridsl.backends.npu.container import unpack
from tridsl.backends.npu.design import ArrayDesign
from tridsl.backends.npu.facts import absent
from tridsl.backends.npu.memory import ELEMENTS, from_array_order, to_array_order
from tridsl.backends.npu.simulate import Fault, Simulator
from tridsl.devices.spec import ArraySpec, DeviceSpec, load_chip
from tridsl.diagnostics import error
from tridsl.dtypes import BF16, NUMPY_TYPES
from tridsl.ir.op import Scalar, Tensor

SIMULATED = {"npu:sim": "aie2p", "npu:sim:aie2p": "aie2p", "npu:sim:aie2": "aie2"}
"""Names of simulated devices, and the generation that each plays."""


@dataclass(slots=True, kw_only=True)
class NpuDriver:
    _played: dict[str, Device] = field(default_factory=dict)

    def devices(self) -> tuple[Device, ...]:
        """Raises BackendUnavailable E0775: which part of an NPU is missing here."""
        raise BackendUnavailable(absent())

    def played(self, name: str) -> Device | None:
        """The simulated device of this name."""
        generation = SIMULATED.get(name)
        if generation is None:
            return None
        if name not in self._played:
            spec: DeviceSpec = replace(load_chip(generation), software=True)
            self._played[name] = Device(name=name, backend="npu", spec=spec, description=f"{generation}, simulated on this machine")
        return self._played[name]

    def load(self, binary: Binary, device: Device) -> Executable:
        """Raises ValueError when `binary` is not one of this backend's."""
        parts = unpack(binary.blob)
        design = msgspec.json.decode(parts["design"], type=ArrayDesign)
        assert device.spec.array is not None
        return Simulated(binary=binary, design=design, library=Library(parts["library"]), facts=device.spec.array)


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
        params = {p.name: (p, value) for p, value in zip(self.binary.signature.params, slots)}
        laid: dict[str, NDArray[Any]] = {}
        for tensor in self.design.tensors:
            value = np.asarray(params[tensor.name][1])
            empty = np.zeros(int(np.prod(tensor.shape)), ELEMENTS[tensor.element_bytes])
            laid[tensor.name] = to_array_order(value, tensor) if tensor.role == "input" else empty
        scalars = {p.name: word_of(p, value) for p, value in params.values() if isinstance(p, Scalar)}
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
                from_array_order(laid[tensor.name], tensor, params[tensor.name][1])


def word_of(param: Scalar | Tensor, value: Any) -> bytes:
    """A scalar in the low bytes of the 4 that the host writes."""
    if param.dtype == BF16:
        return np.asarray(value, ml_dtypes.bfloat16).tobytes().ljust(4, b"\0")
    raw = np.asarray(value, NUMPY_TYPES[param.dtype])
    return raw.astype(np.int32).tobytes() if param.dtype.is_integer and raw.itemsize < 4 else raw.tobytes()[:4]


@cache
def process_driver() -> NpuDriver:
    return NpuDriver()
