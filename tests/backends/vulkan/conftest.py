"""One driver with validation for the whole run; tests that need it are skipped only where a part of Vulkan is missing."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tridsl.backend import BackendUnavailable, Device
from tridsl.backends.vulkan import BACKEND
from tridsl.backends.vulkan.build import build, find_compiler
from tridsl.backends.vulkan.driver import VulkanDriver
from tridsl.backends.vulkan.executable import VulkanExecutable
from tridsl.backends.vulkan.settings import VulkanSettings
from tridsl.ir.loop import Kernel

Run = Callable[..., None]


@pytest.fixture(scope="session")
def driver() -> Iterator[VulkanDriver]:
    """A driver under Khronos' validation layer, which must have had nothing to say in the end."""
    made = VulkanDriver(settings=VulkanSettings(validation=True, timeout_seconds=60))  # a software device compiles when it first runs
    try:
        made.devices()
        find_compiler()
    except BackendUnavailable as missing:
        pytest.skip(f"Vulkan cannot be used here: {missing.diagnostics[0].message}")
    yield made
    assert made.messages == ()


@pytest.fixture(scope="session")
def device(driver: VulkanDriver) -> Device:
    return driver.devices()[-1]


@pytest.fixture(scope="session")
def gpu(device: Device) -> str:
    """The name of that device, for calls by `device=`."""
    return str(device)


@pytest.fixture
def software(gpu: str) -> None:
    """For what only Mesa's software device does."""
    if gpu != "gpu:software":
        pytest.skip("no software GPU here")


@pytest.fixture(scope="session")
def load(driver: VulkanDriver, device: Device) -> Callable[[Kernel], VulkanExecutable]:
    """A kernel, lowered, emitted, built and loaded."""

    def make(kernel: Kernel) -> VulkanExecutable:
        for stage in BACKEND.lower:
            kernel = stage.run(kernel, device.spec)
        assert BACKEND.accepts(kernel, device.spec) == ()
        return driver.load(build(BACKEND.emit(kernel, device.spec), device.spec), device)

    return make


@pytest.fixture
def run(load: Callable[[Kernel], VulkanExecutable], driver: VulkanDriver) -> Iterator[Run]:
    """Run a kernel on its slots; validation must stay silent."""
    before = len(driver.messages)
    yield lambda kernel, *slots: load(kernel)(slots, 1)
    assert driver.messages[before:] == ()
