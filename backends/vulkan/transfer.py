"""Host arrays on their way to the device and back."""

from __future__ import annotations

from dataclasses import dataclass

from tridsl.backends.vulkan.memory import DeviceArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """One host array on its way: `host` bytes ↔ `array`, through `staging` where the device does not share memory. `host` is None where
    `staging` is the caller's own memory."""

    host: memoryview | None
    array: DeviceArray
    staging: DeviceArray | None
    upload: bool
    download: bool

    @property
    def window(self) -> DeviceArray:
        """The array that the host reads and writes."""
        return self.staging or self.array
