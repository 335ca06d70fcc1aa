"""Arrays of the caller that the device uses where they lie: no copy, the same results, nothing left behind."""

from __future__ import annotations

import gc
import mmap
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import tridsl
from tests.backends.vulkan.kernels import call, group, kernel, lane, load, serial, store, tensor, var
from tests.backends.vulkan.test_driver import build_for, doubled
from tests.backends.vulkan.test_recording import added, launch
from tridsl.backend import Device, Held
from tridsl.backends.vulkan.device import LogicalDevice
from tridsl.backends.vulkan.driver import VulkanDriver
from tridsl.backends.vulkan.executable import VulkanExecutable
from tridsl.backends.vulkan.imports import HostImports, Span
from tridsl.backends.vulkan.settings import VulkanSettings
from tridsl.diagnostics import TriError
from tridsl.dtypes import F32
from tridsl.ir.expr import index

COUNT = 5000
BYTES = 4 * COUNT


@pytest.fixture(params=[False, True], ids=["in place", "staged"])
def importing(request: pytest.FixtureRequest, device: Device) -> Iterator[VulkanDriver]:
    """A driver of its own that imports whatever is a page long, with and without memory of its own; silent at the end."""
    made = VulkanDriver(settings=VulkanSettings(validation=True, staging=request.param, import_bytes=(mmap.PAGESIZE, mmap.PAGESIZE)))
    if made.open(device.name).imports is None:
        pytest.skip("this device imports no host memory")
    yield made
    gc.collect()
    made.close()
    assert made.messages == ()


def opened_of(driver: VulkanDriver, device: Device) -> tuple[LogicalDevice, HostImports]:
    opened = driver.open(device.name)
    assert opened.imports is not None
    return opened, opened.imports


def twice(driver: VulkanDriver, device: Device) -> VulkanExecutable:
    return driver.load(build_for(doubled(), device), device)


def test_nothing_is_copied(importing: VulkanDriver, device: Device) -> None:
    executable, (opened, imports) = twice(importing, device), opened_of(importing, device)
    x, y = np.arange(COUNT, dtype=np.float32), np.zeros(COUNT, np.float32)
    executable((x, y, COUNT), 1)
    np.testing.assert_array_equal(y, 2 * x)
    assert opened.copied_bytes == 0 and imports.imported_bytes >= 2 * BYTES and imports.live == imports.refused == 0
    small = np.ones(10, np.float32)
    executable((small, small_result := np.zeros(10, np.float32), 10), 1)
    assert (small_result == 2).all() and opened.copied_bytes == 80  # too little to import


@pytest.mark.parametrize("start", [0, 1, 2, 1023, 1024])
def test_an_array_may_begin_and_end_anywhere(importing: VulkanDriver, device: Device, start: int) -> None:
    """What lies around it on its pages stays as it is, also where both arrays lie on one page."""
    executable, (opened, imports) = twice(importing, device), opened_of(importing, device)
    memory = np.full(4 * COUNT, 7, np.float32)
    x, y = memory[start : start + COUNT], memory[start + COUNT + 3 : start + 2 * COUNT + 3]
    x[:] = np.arange(COUNT)
    executable((x, y, COUNT), 1)
    np.testing.assert_array_equal(y, 2 * np.arange(COUNT))
    np.testing.assert_array_equal(x, np.arange(COUNT))
    others = np.concatenate([memory[:start], memory[start + COUNT : start + COUNT + 3], memory[start + 2 * COUNT + 3 :]])
    assert (others == 7).all() and opened.copied_bytes == 0 and imports.live == 0


def test_ranges_that_share_pages_are_imported_together(importing: VulkanDriver, device: Device) -> None:
    _, imports = opened_of(importing, device)
    memory = mmap.mmap(-1, 8 * mmap.PAGESIZE)
    low = np.frombuffer(memory, np.uint8).__array_interface__["data"][0]
    page = mmap.PAGESIZE
    spans = [Span(low, low + page + 1), Span(low + page + 4, low + 3 * page), Span(low + 3 * page, low + 4 * page), Span(low + 7, low + 2 * page), Span(low, low + 8)]
    taken = imports.take(spans)
    assert set(taken) == set(spans[:4])  # the last one is less than a page
    assert len({array.block.serial for array in taken.values()}) == 2 and imports.live == 2
    first = taken[spans[0]].address
    assert [taken[span].address - first for span in spans[:2]] == [0, page + 4] and taken[spans[3]].address - first == 7
    imports.release(list({array.block.serial: array.block for array in taken.values()}.values()))
    assert imports.live == 0


def test_views_read_only_arrays_and_files(importing: VulkanDriver, device: Device, tmp_path: Path) -> None:
    executable, (_, imports) = twice(importing, device), opened_of(importing, device)
    values = np.arange(COUNT, dtype=np.float32)
    frozen = values.copy()
    frozen.flags.writeable = False
    (tmp_path / "x").write_bytes(values.tobytes())
    for x in (frozen, np.frombuffer(values.tobytes(), np.float32), np.memmap(tmp_path / "x", np.float32, "r")):
        y = np.zeros(COUNT, np.float32)
        executable((x, y, COUNT), 1)
        np.testing.assert_array_equal(y, 2 * values)
    assert imports.live == 0
    with pytest.raises(RuntimeError, match="read-only"):
        executable((values, frozen, COUNT), 1)
    np.testing.assert_array_equal(frozen, values)


def test_what_the_driver_refuses_is_copied(importing: VulkanDriver, device: Device) -> None:
    executable, (opened, imports) = twice(importing, device), opened_of(importing, device)
    imports.memory_types = 0  # no type of memory fits
    x, y = np.arange(COUNT, dtype=np.float32), np.zeros(COUNT, np.float32)
    executable((x, y, COUNT), 1)
    np.testing.assert_array_equal(y, 2 * x)
    assert imports.refused in (1, 2) and imports.live == 0 and opened.copied_bytes == 2 * BYTES


def test_in_place(importing: VulkanDriver, device: Device) -> None:
    """One array in two places is one range."""
    executable, (opened, imports) = twice(importing, device), opened_of(importing, device)
    x = np.arange(COUNT, dtype=np.float32)
    executable((x, x, COUNT), 1)
    np.testing.assert_array_equal(x, 2 * np.arange(COUNT))
    assert opened.copied_bytes == 0 and imports.imported_bytes < 2 * BYTES


def test_arrays_that_are_gone_leave_nothing_behind(importing: VulkanDriver, device: Device) -> None:
    """A thousand calls, each on arrays of its own, of which some get the memory of those before them."""
    executable, (opened, imports) = twice(importing, device), opened_of(importing, device)
    for size in np.random.default_rng(0).integers(1024, 3 * COUNT, 1000):
        x, y = np.full(size, 1.5, np.float32), np.zeros(size, np.float32)
        executable((x, y, int(size)), 1)
        assert y[0] == y[-1] == 3
        del x, y
    assert imports.live == 0 and opened.left == [] and opened.copied_bytes == 0
    assert opened.memory.used_bytes == 0


def test_programs_import_what_they_are_given(importing: VulkanDriver, device: Device) -> None:
    opened, imports = opened_of(importing, device)
    arrays = [Held(bytes=BYTES, upload=True), Held(bytes=BYTES, offset=0), Held(bytes=BYTES, download=True)]
    launches = [launch(importing, device, doubled(), 0, 1, COUNT), launch(importing, device, added(), 1, 0, 2, COUNT)]
    recording = importing.record(launches, arrays, BYTES, device)
    for scale in range(1, 5):
        x, y = scale * np.arange(COUNT, dtype=np.float32), np.zeros(COUNT, np.float32)
        recording([x, y])
        np.testing.assert_array_equal(y, 3 * x)
    assert opened.copied_bytes == 0 and imports.live == 0 and imports.imported_bytes >= 8 * BYTES


def test_memory_of_a_run_that_never_ended_is_kept(importing: VulkanDriver, device: Device) -> None:
    """The device may still write to it: neither the import nor the array goes."""
    busy = kernel(
        "busy", (tensor("y", F32, COUNT, role="inout"),),
        group("g", index(40), lane("l", index(64), serial("s", index(2000), store("y", call("sin", load("y", F32, var("l"))), var("l"))))),
    )  # fmt: skip
    executable, (opened, imports) = importing.load(build_for(busy, device), device), opened_of(importing, device)
    opened.settings = replace(opened.settings, timeout_seconds=1e-6, watch_seconds=0.0)
    y = np.zeros(COUNT, np.float32)
    with pytest.raises(TriError, match="did not finish within"):
        executable((y,), 1)
    opened.api.lib.vkDeviceWaitIdle(opened.handle)
    ((blocks, owners),) = opened.left
    assert owners[0] is y and len(blocks) == imports.live == 1
    opened.failure = ""  # it has ended after all: so that the driver can be closed
    imports.release(blocks)


def test_settings_and_devices_that_do_not(device: Device) -> None:
    plain = VulkanDriver(settings=VulkanSettings(import_bytes=None))
    assert plain.open(device.name).imports is None
    plain.close()


@pytest.mark.usefixtures("software")
def test_calls_by_name_give_the_same(gpu: str) -> None:
    ops = tridsl.compile("op f(x: f32[N]) -> y: f32[N] {\n  y[i] = 2 * x[i] + 1\n}\n")
    for size in (65535, 65536, 65537, 200_003):
        x = np.arange(size, dtype=np.float32)
        np.testing.assert_array_equal(ops.f(x, device=gpu), ops.f(x))
        np.testing.assert_array_equal(ops.f(x[::-1], device=gpu), ops.f(x[::-1]))
        buffer = tridsl.buffer(size, "f32")
        ops.f(x, out=buffer, device=gpu)
        np.testing.assert_array_equal(np.asarray(buffer), ops.f(x))
