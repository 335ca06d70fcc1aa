"""Runs kernels with `ir.evaluate_kernel`. The device is always here."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

from tridsl.backend import Binary, Device, Driver
from tridsl.devices.spec import DeviceSpec
from tridsl.ir.evaluate_kernel import evaluate_kernel
from tridsl.ir.loop import Kernel
from tridsl.ir.op import Tensor
from tridsl.ir.serial import from_json
from tridsl.structs import dataclass

DEVICE = Device(
    name="reference",
    backend="reference",
    spec=DeviceSpec(name="reference", kind="reference"),
    description="the NumPy oracle: slow, every access checked",
)


@dataclass(frozen=True, slots=True)
class _Interpreted:
    """One loaded kernel."""

    kernel: Kernel

    def __call__(self, slots: Sequence[Any], threads: int) -> None:
        names = [p.name for p in self.kernel.params]
        arguments = dict(zip(names, slots))
        sizes = dict(zip(self.kernel.sizes, slots[len(names) :], strict=True))
        results = evaluate_kernel(self.kernel, {n: _readable(v) for n, v in arguments.items()}, sizes)
        for parameter in self.kernel.params:
            if isinstance(parameter, Tensor) and parameter.role != "input":
                np.copyto(np.asarray(arguments[parameter.name]), results[parameter.name], casting="no")


def _readable(value: Any) -> Any:
    return value if isinstance(value, bool | int | float) else np.asarray(value)


class _ReferenceDriver:
    def devices(self) -> tuple[Device, ...]:
        return (DEVICE,)

    def load(self, binary: Binary, device: Device) -> _Interpreted:
        """Raises ValueError when `binary` is not one of this backend's."""
        return _Interpreted(from_json(binary.blob, Kernel))


@cache
def driver() -> Driver:
    return _ReferenceDriver()
