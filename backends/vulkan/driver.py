"""The Vulkan driver of this process: devices, and binaries made runnable on them."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import numpy as np

from tridsl.backend import Binary, Device, Held, RecordedLaunch
from tridsl.backends.vulkan.api import open_api
from tridsl.backends.vulkan.commands import download, upload
from tridsl.backends.vulkan.device import LogicalDevice, open_device
from tridsl.backends.vulkan.executable import VulkanExecutable, load_executable
from tridsl.backends.vulkan.facts import PhysicalDevice, Unfit, query_device
from tridsl.backends.vulkan.instance import Instance, no_driver, open_instance
from tridsl.backends.vulkan.memory import DeviceArray
from tridsl.backends.vulkan.recording import VulkanRecording, load_recording
from tridsl.backends.vulkan.settings import VulkanSettings
from tridsl.backends.vulkan.spelling import spelled
from tridsl.diagnostics import error

SOFTWARE = "gpu:software"


@dataclass(slots=True, kw_only=True, eq=False)
class VulkanDriver:
    """Nothing is opened before the first call. Real devices are `gpu:0`, `gpu:1`, …; the software one is `gpu:software`."""

    settings: VulkanSettings = field(default_factory=VulkanSettings)
    _instance: Instance | None = None
    _found: dict[str, PhysicalDevice] = field(default_factory=dict)
    _open: dict[str, LogicalDevice] = field(default_factory=dict)
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def devices(self) -> tuple[Device, ...]:
        """The devices that are here and have not failed, real ones first. Raises BackendUnavailable E0701, E0704."""
        with self._lock:
            self._look()
            failed = {name for name, device in self._open.items() if device.failure}
            return tuple(
                Device(name=name, backend="vulkan", spec=found.spec, description=found.description)
                for name, found in self._found.items()
                if name not in failed
            )

    def load(self, binary: Binary, device: Device) -> VulkanExecutable:
        """`binary` on `device`. Raises TriError E0703 for a device that is not here, E0705 for one that failed."""
        return load_executable(self.open(device.name), binary)

    def record(self, launches: Sequence[RecordedLaunch], arrays: Sequence[Held], memory_bytes: int, device: Device) -> VulkanRecording:
        """`backend.Recorder`: one command buffer, replayed with one submit."""
        return load_recording(self.open(device.name), launches, arrays, memory_bytes)

    def keep(self, array: Any, device: Device) -> DeviceArray:
        """`backend.Keeps`."""
        opened = self.open(device.name)
        with opened.lock:
            opened.require_alive()
            kept = opened.memory.allocate(array.nbytes)
        if array.nbytes:
            upload(opened, _bytes_of(array), kept)
        return kept

    def fetch(self, kept: DeviceArray, array: Any, device: Device) -> None:
        """`backend.Keeps`."""
        if array.nbytes:
            download(self.open(device.name), kept, _bytes_of(array))

    def drop(self, kept: DeviceArray, device: Device) -> None:
        """`backend.Keeps`."""
        opened = self.open(device.name)
        with opened.lock:
            if not opened.failure:  # else it may still be writing there
                opened.memory.release(kept)

    def open(self, name: str) -> LogicalDevice:
        """The logical device behind a name, opened once."""
        with self._lock:
            self._look()
            if name not in self._found:
                raise error(
                    "E0703", f"there is no device `{name}`", help=f"devices here: {', '.join(self._found) or 'none'}"
                )
            if name not in self._open:
                assert self._instance is not None
                self._open[name] = open_device(self._instance.api, name, self._found[name], self.settings)
            return self._open[name]

    def sharing(self, name: str) -> str:
        """How arrays of the caller get to a device, for people."""
        opened = self.open(name)
        if opened.imports is None:
            return "copied"
        least = f"from {opened.imports.least_bytes >> 10} KiB on"
        return f"used where they lie {least}" if opened.staging is None else f"fetched from where they lie {least}, without a copy of the host's"

    @property
    def messages(self) -> tuple[str, ...]:
        """Warnings and errors of the validation layer so far."""
        return tuple(self._instance.messages) if self._instance else ()

    def close(self) -> None:
        """Release all devices; executables loaded here must not be used any more."""
        with self._lock:
            for device in self._open.values():
                device.close()
            self._open.clear()

    def _look(self) -> None:
        if self._instance is not None:
            return
        api = open_api(self.settings.loaders, self.settings.declarations)
        instance = open_instance(api, self.settings.validation)
        here = [query_device(instance, handle) for handle in instance.physical_devices()]
        found = [replace(device, spec=spelled(device.spec)) for device in here if isinstance(device, PhysicalDevice)]
        if not found:
            raise no_driver("; ".join(f"{d.name}: {d.reason}" for d in here if isinstance(d, Unfit)) or "no device is here")
        real = [device for device in found if not device.spec.software]
        software = [device for device in found if device.spec.software]
        self._found = {f"gpu:{position}": device for position, device in enumerate(real)}
        if software:
            self._found[SOFTWARE] = software[0]
        self._instance = instance


def _bytes_of(array: Any) -> memoryview:
    return memoryview(array.reshape(-1).view(np.uint8).data)


@cache
def process_driver() -> VulkanDriver:
    """The one driver of the process, with default settings."""
    return VulkanDriver()
